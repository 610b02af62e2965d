"""Randomness that torch draws from its global generators, without touching the caller's."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def own_random_state(seed: int, device: torch.device) -> Iterator[None]:
    """Dropout and fresh layers have no generator: lend them a global state of ours inside the
    block, and give the caller's back."""
    on_cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_cuda else []):
        torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())
        if on_cuda:
            torch.cuda.set_rng_state(torch.Generator(device).manual_seed(seed).get_state(), device)
        yield
