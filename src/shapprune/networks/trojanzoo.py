"""Networks as TrojanZoo has them, whose files name two parts: ``features`` and ``classifier``.

Its files are bare state dicts. Their normalisation is not among the tensors: tell it.
"""

from collections import OrderedDict

from torch import Tensor, nn

from shapprune.checkpoints.architectures import build_network
from shapprune.errors import InputError


class TwoParts(nn.Module):
    """``features``, a pooling without weights, and ``classifier``."""

    def __init__(
        self, features: dict[str, nn.Module], pool: nn.Module, classifier: dict[str, nn.Module]
    ) -> None:
        super().__init__()
        self.features = nn.Sequential(OrderedDict(features))
        self.pool = nn.Sequential(pool, nn.Flatten())
        self.classifier = nn.Sequential(OrderedDict(classifier))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, classes) of normalised images (n, C, H, W)."""
        logits: Tensor = self.classifier(self.pool(self.features(x)))
        return logits


def resnet(num_classes: int = 10, *, name: str = "resnet18", comp: bool = True) -> TwoParts:
    """A ResNet of torchvision in two parts; TrojanZoo's ``resnet18_comp`` and its like.

    Args:
        name: of torchvision's model, such as ``resnet50``.
        comp: a 3 × 3 convolution without stride or pooling at first, for small images.
    """
    if not name.startswith(("resnet", "wide_resnet")):
        raise InputError(f"name must be a ResNet of torchvision, got {name!r}")
    whole = dict(build_network(f"torchvision:{name}", num_classes).named_children())
    head = {"fc": whole.pop("fc")}
    pool = whole.pop("avgpool")
    if comp:
        del whole["maxpool"]
        whole["conv1"] = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    return TwoParts(whole, pool, head)


def net(num_classes: int = 10) -> TwoParts:
    """TrojanZoo's ``net`` for MNIST: two convolutions and two linear layers."""
    return TwoParts(
        {
            "conv1": nn.Conv2d(1, 32, 3),
            "relu1": nn.ReLU(),
            "conv2": nn.Conv2d(32, 64, 3),
            "relu2": nn.ReLU(),
        },
        nn.MaxPool2d(2),
        {
            "dropout1": nn.Dropout(0.25),
            "fc1": nn.Linear(64 * 12 * 12, 128),
            "relu1": nn.ReLU(),
            "dropout2": nn.Dropout(0.5),
            "fc2": nn.Linear(128, num_classes),
        },
    )
