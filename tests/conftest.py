import pytest
import torch


@pytest.fixture(autouse=True)
def _same_weights_every_time() -> None:
    """Networks that a test builds draw from the global generator."""
    torch.manual_seed(0)
