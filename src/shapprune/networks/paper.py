"""The paper's networks (Sec. 4.1 and Table 3), at any input size and width.

Each is a callable for ``--arch``, as in ``shapprune.networks:resnet18?channels=1&size=28``.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from shapprune.errors import InputError

_POOL = 0  # among the channels of a VGG's convolutions
_VGG11 = (64, _POOL, 128, _POOL, *(256,) * 2, _POOL, *(512,) * 2, _POOL, *(512,) * 2, _POOL)
_VGG16 = (
    *(64, 64, _POOL, 128, 128, _POOL),
    *(*(256,) * 3, _POOL, *(512,) * 3, _POOL, *(512,) * 3, _POOL),
)
_LARGE = 64  # pixels; images above this get a ResNet's first layers for large ones


def table3_vgg(
    num_classes: int = 10,
    *,
    channels: int = 3,
    size: int = 96,
    width: float = 1.0,
    hidden: Sequence[int] = (1024,),
    batch_norm: bool = True,
) -> nn.Sequential:
    """The VGG of the paper's Table 3, 2,688 neurons.

    Args:
        channels: of the images.
        size: side of the images, in pixels.
        width: all widths are multiplied by this.
        hidden: widths of the fully connected layers.
        batch_norm: a norm after each convolution; the paper's has none, and trains slowly.
    """
    layers: list[nn.Module] = []
    inputs = channels
    for base, pooled in (
        *((96, True), (128, True), (160, True), (256, False), (256, True)),
        *((384, False), (384, True)),
    ):
        outputs = _scaled(base, width)
        layers += _convolution(inputs, outputs, batch_norm)
        if pooled:
            layers.append(nn.MaxPool2d(3, stride=2, padding=1))
            size = (size + 1) // 2
        inputs = outputs
    layers.append(nn.Flatten())
    inputs *= size * size
    for base in hidden:
        layers += [nn.Linear(inputs, _scaled(base, width)), nn.ReLU()]
        inputs = _scaled(base, width)
    return nn.Sequential(*layers, nn.Linear(inputs, num_classes))


def vgg11(
    num_classes: int = 10, *, channels: int = 3, size: int = 96, width: float = 1.0
) -> nn.Sequential:
    """VGG11 with batch norms (Simonyan and Zisserman 2015); see `table3_vgg`."""
    return _vgg(_VGG11, num_classes, channels, size, width, batch_norm=True)


def vgg16_bn(
    num_classes: int = 10, *, channels: int = 3, size: int = 96, width: float = 1.0
) -> nn.Sequential:
    """VGG16 with batch norms; see `table3_vgg`."""
    return _vgg(_VGG16, num_classes, channels, size, width, batch_norm=True)


def vgg_face(
    num_classes: int = 10,
    *,
    channels: int = 3,
    size: int = 96,
    width: float = 1.0,
    batch_norm: bool = False,
) -> nn.Sequential:
    """VGG-Face (Parkhi, Vedaldi and Zisserman 2015): VGG16 as it was before batch norms.

    For arguments see `table3_vgg`.
    """
    return _vgg(_VGG16, num_classes, channels, size, width, batch_norm=batch_norm)


def resnet18(
    num_classes: int = 10, *, channels: int = 3, size: int = 96, width: float = 1.0
) -> nn.Sequential:
    """ResNet-18 (He et al. 2016); for arguments see `table3_vgg`.

    Images of up to 64 pixels get a 3 × 3 convolution without stride or pooling at first.
    """
    return _resnet((2, 2, 2, 2), num_classes, channels, size, width)


def resnet34(
    num_classes: int = 10, *, channels: int = 3, size: int = 96, width: float = 1.0
) -> nn.Sequential:
    """ResNet-34; see `resnet18`."""
    return _resnet((3, 4, 6, 3), num_classes, channels, size, width)


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
        """Features (n, width, H / stride, W / stride) of features (n, inputs, H, W)."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def _vgg(
    plan: Sequence[int],
    num_classes: int,
    channels: int,
    size: int,
    width: float,
    *,
    batch_norm: bool,
) -> nn.Sequential:
    if size < 2 ** plan.count(_POOL):
        raise InputError(f"this VGG halves images five times: size must be 32 or more, got {size}")
    layers: list[nn.Module] = []
    inputs = channels
    for base in plan:
        if base == _POOL:
            layers.append(nn.MaxPool2d(2))
            size //= 2
        else:
            layers += _convolution(inputs, _scaled(base, width), batch_norm)
            inputs = _scaled(base, width)
    hidden = _scaled(4096, width)
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        *(nn.Linear(inputs * size * size, hidden), nn.ReLU(), nn.Dropout()),
        *(nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout()),
        nn.Linear(hidden, num_classes),
    )


def _resnet(
    blocks: Sequence[int], num_classes: int, channels: int, size: int, width: float
) -> nn.Sequential:
    inputs = _scaled(64, width)
    large = size > _LARGE
    first = (7, 2, 3) if large else (3, 1, 1)  # side, stride, padding
    layers: list[nn.Module] = [
        nn.Conv2d(channels, inputs, *first, bias=False),
        nn.BatchNorm2d(inputs),
        nn.ReLU(),
    ]
    if large:
        layers.append(nn.MaxPool2d(3, stride=2, padding=1))
    for stage, count in enumerate(blocks):
        outputs = _scaled(64 * 2**stage, width)
        for block in range(count):
            layers.append(Block(inputs, outputs, 2 if stage and not block else 1))
            inputs = outputs
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, num_classes)
    )


def _convolution(inputs: int, outputs: int, batch_norm: bool) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=not batch_norm)
    norm = [nn.BatchNorm2d(outputs)] if batch_norm else []
    return [convolution, *norm, nn.ReLU()]


def _scaled(base: int, width: float) -> int:
    return max(1, round(base * width))
