"""The ResNets of CIFAR-10 that defence papers train: BackdoorBench's, ANP's and others'.

He et al. 2016 with a 3 × 3 stem and no pooling, for images of 32 × 32, with the parameter names
that public checkpoints have (`layer1.0.shortcut.0`, `linear`).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shapprune.networks.paper import Block


class _PreActBlock(nn.Module):
    """Two 3 × 3 convolutions, each preceded by its norm; the shortcut leaves after the first."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.shortcut: nn.Module | None = None
        if stride > 1 or channels != width:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(out)
        result: Tensor = self.conv2(F.relu(self.bn2(self.conv1(out)))) + shortcut
        return result


class _CifarResNet(nn.Module):
    """Four stages of blocks, 64 to 512 channels wide."""

    def __init__(
        self, block: type[Block] | type[_PreActBlock], depths: Sequence[int], num_classes: int
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        # Pre-activation networks norm where each block begins.
        self.bn1 = nn.BatchNorm2d(64) if block is Block else None
        channels = 64
        for stage, depth in enumerate(depths):
            width = 64 << stage
            blocks: list[nn.Module] = []
            for index in range(depth):
                blocks.append(block(channels, width, 2 if stage and not index else 1))
                channels = width
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.linear = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, num_classes) of normalised images (n, 3, 32, 32) or larger."""
        x = self.conv1(images)
        if self.bn1 is not None:
            x = F.relu(self.bn1(x))
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
        logits: Tensor = self.linear(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))
        return logits


def resnet18(num_classes: int = 10) -> nn.Module:
    """Two blocks a stage."""
    return _CifarResNet(Block, (2, 2, 2, 2), num_classes)


def resnet34(num_classes: int = 10) -> nn.Module:
    """Three, four, six and three blocks."""
    return _CifarResNet(Block, (3, 4, 6, 3), num_classes)


def preactresnet18(num_classes: int = 10) -> nn.Module:
    """Pre-activation, two blocks a stage; no norm after the last, as in BackdoorBench."""
    return _CifarResNet(_PreActBlock, (2, 2, 2, 2), num_classes)


def preactresnet34(num_classes: int = 10) -> nn.Module:
    """Pre-activation, three, four, six and three blocks."""
    return _CifarResNet(_PreActBlock, (3, 4, 6, 3), num_classes)
