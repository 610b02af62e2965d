"""Networks of the benchmarks, small enough to be trained on two CPU cores."""

from torch import nn

from shapprune.networks.paper import Block


class PlainNet(nn.Sequential):
    """Six conv-BN-ReLU layers with 448 channels, as VGG has them, and a linear head."""

    def __init__(self, channels: int, num_classes: int) -> None:
        layers: list[nn.Module] = []
        for width in (32, 64, 128):
            for _ in range(2):
                layers += [
                    nn.Conv2d(channels, width, 3, padding=1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(),
                ]
                channels = width
            layers.append(nn.MaxPool2d(2))
        super().__init__(
            *layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(512, num_classes)
        )


class SmallResNet(nn.Sequential):
    """A ResNet of 14 layers for small images."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__(
            nn.Conv2d(channels, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            *(Block(16, 16, 1) for _ in range(2)),
            *(Block(16 if i == 0 else 32, 32, 2 - i) for i in range(2)),
            *(Block(32 if i == 0 else 64, 64, 2 - i) for i in range(2)),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(64, num_classes),
        )
