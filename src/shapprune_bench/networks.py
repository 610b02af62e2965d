"""Small networks of many kinds for the populations, a few seconds an epoch on a core.

Each is a callable for ``--arch``, as in ``shapprune_bench.networks:lenet?channels=1&size=28``. All
map images (n, C, H, W) in [0, 1] to logits (n, num_classes).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LeNet(nn.Module):
    """LeNet-5 (LeCun et al. 1998) with ReLUs, and without batch norms.

    Args:
        channels: of the images.
        size: side of the images, in pixels.
        pool: "average" or "max".
        dropout: before the last layer, and half of it before the one ahead.
        width: all widths are multiplied by this.
    """

    def __init__(
        self,
        num_classes: int = 10,
        *,
        channels: int = 1,
        size: int = 28,
        pool: str = "average",
        dropout: float = 0.0,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        first, second, third, fourth = (round(base * width) for base in (6, 16, 120, 84))
        self.conv1 = nn.Conv2d(channels, first, 5, padding=2)
        self.conv2 = nn.Conv2d(first, second, 5)
        self.fc1 = nn.Linear(second * ((size // 2 - 4) // 2) ** 2, third)
        self.fc2 = nn.Linear(third, fourth)
        self.fc3 = nn.Linear(fourth, num_classes)
        self.pool, self.dropout = pool, dropout

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, num_classes) of images (n, channels, size, size)."""
        pool = F.avg_pool2d if self.pool == "average" else F.max_pool2d
        x = pool(F.relu(self.conv1(x)), 2)
        x = pool(F.relu(self.conv2(x)), 2).flatten(1)
        x = F.dropout(F.relu(self.fc1(x)), self.dropout / 2, self.training)
        x = F.dropout(F.relu(self.fc2(x)), self.dropout, self.training)
        logits: Tensor = self.fc3(x)
        return logits


def elu_vgg(
    num_classes: int = 10,
    *,
    channels: int = 3,
    size: int = 32,
    widths: Sequence[int] = (16, 32, 64),
    dropout: float = 0.2,
    batch_norm: bool = True,
) -> nn.Sequential:
    """Two convolutions a stage, each with an ELU (Clevert et al. 2016) and a batch norm after it.

    Args:
        channels, size: see `LeNet`.
        widths: of the stages, each of which halves the image in the end.
        dropout: after the first stage; a tenth more after each other one.
        batch_norm: whether there are norms.
    """
    layers: list[nn.Module] = []
    inputs = channels
    for stage, width in enumerate(widths):
        for _ in range(2):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ELU()]
            layers += [nn.BatchNorm2d(width)] if batch_norm else []
            inputs = width
        layers += [nn.MaxPool2d(2), nn.Dropout(dropout + 0.1 * stage)]
        size //= 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(inputs * size * size, num_classes))


def pooled_cnn(
    num_classes: int = 10,
    *,
    channels: int = 3,
    widths: Sequence[int] = (16, 32, 48, 64),
    hidden: int = 64,
    batch_norm: bool = True,
) -> nn.Sequential:
    """Convolutions, global average pooling (Lin et al. 2014) and two linear layers.

    Args:
        channels: see `LeNet`.
        widths: of the convolutions; each but the first halves the image by its stride.
        hidden: width of the first linear layer.
        batch_norm: a norm after each convolution.
    """
    layers: list[nn.Module] = []
    inputs = channels
    for depth, width in enumerate(widths):
        stride = 2 if depth else 1
        layers.append(nn.Conv2d(inputs, width, 3, stride, padding=1, bias=not batch_norm))
        layers += [nn.BatchNorm2d(width)] if batch_norm else []
        layers.append(nn.ReLU())
        inputs = width
    return nn.Sequential(
        *layers,
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        *(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, num_classes)),
    )


class _PreActivation(nn.Module):
    """Two 3 × 3 convolutions, norm and ReLU before each (He et al. 2016, "Identity Mappings")."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        same = stride == 1 and inputs == width
        self.shortcut = None if same else nn.Conv2d(inputs, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(y)
        added: Tensor = shortcut + self.conv2(F.relu(self.bn2(self.conv1(y))))
        return added


class WideResNet(nn.Module):
    """A wide ResNet (Zagoruyko and Komodakis 2016) with pre-activation.

    Args:
        channels: of the images.
        depth: layers, 6 n + 4.
        width: channels of the first stage, doubled in each other one; 16 a widening factor.
        stride: of the first convolution; 2 takes a quarter of the time.
    """

    def __init__(
        self,
        num_classes: int = 10,
        *,
        channels: int = 3,
        depth: int = 16,
        width: int = 16,
        stride: int = 1,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        blocks: list[nn.Module] = []
        inputs = width
        for stage in range(3):
            for block in range((depth - 4) // 6):
                outputs = width * 2**stage
                blocks.append(_PreActivation(inputs, outputs, 2 if stage and not block else 1))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.bn = nn.BatchNorm2d(inputs)
        self.fc = nn.Linear(inputs, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, num_classes) of images (n, channels, H, W)."""
        x = F.relu(self.bn(self.blocks(self.conv1(x))))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


class _PaddedBlock(nn.Module):
    """Two 3 × 3 convolutions; where the shape changes, a shortcut of its pixels and zeros."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride, self.added = stride, width - inputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        thinned = x[..., :: self.stride, :: self.stride]
        before = self.added // 2
        return F.relu(y + F.pad(thinned, (0, 0, 0, 0, before, self.added - before)))


class CifarResNet(nn.Module):
    """The ResNets for CIFAR-10 (He et al. 2016, Sec. 4.2), with shortcuts of option A.

    Args:
        channels: of the images.
        depth: layers, 6 n + 2.
        width: channels of the first stage, doubled in each other one; the paper's is 16.
        stride: of the first convolution; 2 takes a quarter of the time.
    """

    def __init__(
        self,
        num_classes: int = 10,
        *,
        channels: int = 3,
        depth: int = 20,
        width: int = 8,
        stride: int = 1,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        blocks: list[nn.Module] = []
        inputs = width
        for stage in range(3):
            for block in range((depth - 2) // 6):
                outputs = width * 2**stage
                blocks.append(_PaddedBlock(inputs, outputs, 2 if stage and not block else 1))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(inputs, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, num_classes) of images (n, channels, H, W)."""
        x = self.blocks(F.relu(self.bn1(self.conv1(x))))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


class _Inverted(nn.Module):
    """A wide layer between narrow ones, convolved channel by channel (Sandler et al. 2018)."""

    def __init__(self, inputs: int, width: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.body = nn.Sequential(
            *(nn.Conv2d(inputs, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()),
            nn.Conv2d(wide, wide, 3, stride, padding=1, groups=wide, bias=False),
            *(nn.BatchNorm2d(wide), nn.ReLU6()),
            *(nn.Conv2d(wide, width, 1, bias=False), nn.BatchNorm2d(width)),
        )
        self.same = stride == 1 and inputs == width

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return x + y if self.same else y


def mobile_net(
    num_classes: int = 10,
    *,
    channels: int = 3,
    widths: Sequence[int] = (16, 24, 32),
    expansion: int = 4,
    stride: int = 2,
) -> nn.Sequential:
    """A small MobileNetV2: two inverted residuals a stage, average pooling, one linear layer.

    Args:
        channels: see `LeNet`.
        widths: of the stages, each of which but the first halves the image.
        expansion: how many times wider the layer between is.
        stride: of the first convolution; 2 takes a quarter of the time.
    """
    inputs = widths[0]
    first = nn.Conv2d(channels, inputs, 3, stride, padding=1, bias=False)
    layers: list[nn.Module] = [first, nn.BatchNorm2d(inputs), nn.ReLU6()]
    for stage, width in enumerate(widths):
        halved = 2 if stage else 1
        layers += [_Inverted(inputs, width, halved, expansion)]
        layers += [_Inverted(width, width, 1, expansion)]
        inputs = width
    last = 4 * inputs
    return nn.Sequential(
        *layers,
        *(nn.Conv2d(inputs, last, 1, bias=False), nn.BatchNorm2d(last), nn.ReLU6()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, num_classes)),
    )


class _Dense(nn.Module):
    """Adds channels to those that come in (Huang et al. 2017, DenseNet-BC)."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, 4 * growth, 1, bias=False)),
            *(nn.BatchNorm2d(4 * growth), nn.ReLU()),
            nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.body(x)], 1)


def dense_net(
    num_classes: int = 10,
    *,
    channels: int = 3,
    blocks: Sequence[int] = (3, 3, 3),
    growth: int = 8,
    stride: int = 2,
) -> nn.Sequential:
    """A small DenseNet-BC with compression 0.5.

    Args:
        channels: see `LeNet`.
        blocks: layers a block; between blocks the image is halved.
        growth: channels that a layer adds.
        stride: of the first convolution; 2 takes a quarter of the time.
    """
    inputs = 2 * growth
    layers: list[nn.Module] = [nn.Conv2d(channels, inputs, 3, stride, padding=1, bias=False)]
    for number, count in enumerate(blocks):
        if number:
            half = inputs // 2
            layers += [nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, half, 1, bias=False)]
            layers.append(nn.AvgPool2d(2))
            inputs = half
        layers += [_Dense(inputs + k * growth, growth) for k in range(count)]
        inputs += count * growth
    return nn.Sequential(
        *layers,
        *(nn.BatchNorm2d(inputs), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Linear(inputs, num_classes),
    )
