import signal

import pytest
import torch

# Started in the background, a shell's children ignore Ctrl-C, and so would those of the tests.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _same_weights_every_time() -> None:
    """Networks that a test builds draw from the global generator."""
    torch.manual_seed(0)
