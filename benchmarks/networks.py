"""Networks of the benchmarks, small enough to be trained on two CPU cores."""

from torch import Tensor, nn
from torch.nn import functional as F


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


class Block(nn.Module):
    """Two 3 × 3 convolutions with a shortcut (He et al. 2016)."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if stride > 1 or inputs != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


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


def paper_vgg(num_classes: int, hidden: tuple[int, ...] = (1024,)) -> nn.Sequential:
    """The VGG of the paper's Table 3, 2,688 neurons, with batch norms, which make it trainable
    in minutes; for colour images of 32 pixels, since five poolings leave one there.

    Args:
        hidden: the widths of the fully connected layers, which widen the network at little cost.
    """
    layers: list[nn.Module] = []
    inputs = 3
    for width, pooled in (
        *((96, True), (128, True), (160, True), (256, False), (256, True)),
        *((384, False), (384, True)),
    ):
        layers += [
            nn.Conv2d(inputs, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]
        if pooled:
            layers.append(nn.MaxPool2d(3, stride=2, padding=1))
        inputs = width
    layers.append(nn.Flatten())
    for width in hidden:
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, num_classes))
