"""The main path on the hand-wired network, and what it refuses."""

import pytest
import torch
from toys import snapshot, unchanged
