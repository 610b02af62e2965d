"""ResNet-50 as torchvision has it, for a study that must run without torchvision."""

from torch import Tensor, nn

_STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))  # width, blocks, first stride
_EXPANSION = 4


class Bottleneck(nn.Module):
    """1 × 1, 3 × 3 and 1 × 1 convolutions beside a shortcut, the stride in the second of them.

    He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, with the stride of
    version 1.5. ReLUs work in place, which keeps the memory of a batch at half. At first a block
    hands on what it gets, as its last norm has weight 0 (Goyal et al. 2017): else a network of
    random weights is so curved that a scan refuses it, as its gradients tell nothing.
    """

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = _EXPANSION * width
        last = nn.BatchNorm2d(outputs)
        nn.init.zeros_(last.weight)
        self.body = nn.Sequential(
            *(nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(True)),
            nn.Conv2d(width, width, 3, stride, padding=1, bias=False),
            *(nn.BatchNorm2d(width), nn.ReLU(True)),
            *(nn.Conv2d(width, outputs, 1, bias=False), last),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(outputs))
        self.relu = nn.ReLU(True)

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, H, W) to (n, 4 width, H / stride, W / stride)."""
        added: Tensor = self.relu(self.body(x) + self.shortcut(x))
        return added


def resnet50(num_classes: int = 1000) -> nn.Sequential:
    """Maps (n, 3, H, W) to logits (n, num_classes); 25,557,032 parameters with 1,000 classes."""
    layers: list[nn.Module] = [
        *(nn.Conv2d(3, 64, 7, 2, padding=3, bias=False), nn.BatchNorm2d(64), nn.ReLU(True)),
        nn.MaxPool2d(3, 2, padding=1),
    ]
    inputs = 64
    for width, blocks, first in _STAGES:
        for block in range(blocks):
            layers.append(Bottleneck(inputs, width, 1 if block else first))
            inputs = _EXPANSION * width
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, num_classes)
    )
