"""Kinds of module that users hand over, most of them around the backdoored toy."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint

from shapprune.model.classifier import Classifier
from toys import CLASSES, backdoored_net, toy_images

IMAGES, LABELS = toy_images()


class Does(nn.Module):
    """The backdoored network with something before it, and something after it."""

    def __init__(
        self,
        before: Callable[[Tensor], Any] = lambda x: x,
        after: Callable[[Tensor], Any] = lambda x: x,
        network: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.network = backdoored_net() if network is None else network
        self.before, self.after = before, after

    def forward(self, images: Tensor) -> Any:
        return self.after(self.network(self.before(images)))


def changed(change: Callable[[nn.Module], object]) -> nn.Module:
    """The network after a change in place."""
    net = backdoored_net()
    change(net)
    return net


class Remembers(Does):
    """Keeps features with their graph, which deepcopy refuses."""

    def forward(self, images: Tensor) -> Tensor:
        self.features = self.network.conv1(images)
        return self.network(images)


class Checkpointed(Does):
    def forward(self, images: Tensor) -> Tensor:
        return checkpoint(self.network, images, use_reentrant=False)


class Autocast(Does):
    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.network(images)


class Auxiliary(Does):
    def forward(self, images: Tensor) -> Any:
        logits = self.network(images)
        return (logits, logits) if self.training else logits


def hooked(net: nn.Module) -> None:
    net.register_forward_pre_hook(lambda _module, _inputs: None)
    net.bn1.register_forward_hook(lambda _module, _inputs, output: output * 1.0)
    net.bn2.register_full_backward_hook(lambda *_: None)


def tied(net: nn.Module) -> None:
    net.again = nn.Conv2d(8, 8, 3, padding=1, bias=False)
    net.again.weight = net.conv2.weight


def made_in_inference_mode() -> nn.Module:
    with torch.inference_mode():
        return backdoored_net()


def pruned(net: nn.Module) -> None:
    prune.custom_from_mask(net.conv2, "weight", torch.ones_like(net.conv2.weight))


WORKS: dict[str, Callable[[], nn.Module]] = {
    "plain": backdoored_net,
    "in training mode": lambda: changed(lambda net: net.train()),
    "float64": lambda: backdoored_net().double(),
    "float16": lambda: backdoored_net().half(),
    "bfloat16": lambda: backdoored_net().bfloat16(),
    "made in inference mode": made_in_inference_mode,
    "frozen parameters": lambda: changed(lambda net: net.requires_grad_(False)),
    "gradients left over": lambda: changed(lambda net: net(IMAGES).sum().backward()),
    "tied weights": lambda: changed(tied),
    "hooks": lambda: changed(hooked),
    "weight norm": lambda: changed(lambda net: parametrizations.weight_norm(net.conv1)),
    "old weight norm": lambda: changed(lambda net: nn.utils.weight_norm(net.conv1)),
    "pruned by torch": lambda: changed(pruned),
    "compiled": lambda: torch.compile(backdoored_net(), backend="eager"),
    "compiled in place": lambda: changed(lambda net: net.compile(backend="eager")),
    "compiled inside": lambda: Does(network=torch.compile(backdoored_net(), backend="eager")),
    "data parallel": lambda: nn.DataParallel(backdoored_net()),
    "averaged": lambda: torch.optim.swa_utils.AveragedModel(backdoored_net()),
    "fx": lambda: torch.fx.symbolic_trace(backdoored_net()),
    "keeps features": Remembers,
    "checkpoints": Checkpointed,
    "autocast inside": Autocast,
    "half logits": lambda: Does(after=lambda logits: logits.half()),
    "a tuple in training": Auxiliary,
    "writes into its images": lambda: Does(lambda x: x.mul_(0.5).mul_(2)),
    "softmax": lambda: Does(after=lambda logits: logits.softmax(1)),
    "log-softmax": lambda: Does(after=lambda logits: logits.log_softmax(1)),
}


# Refused, in a line


def no_deepcopy() -> nn.Module:
    class Lonely(Does):
        def __deepcopy__(self, memo: object) -> nn.Module:
            raise TypeError("no copies")

    return Lonely()


class One(Does):
    def forward(self, images: Tensor) -> Tensor:
        assert len(images) == 1, "one\nat a time"
        return self.network(images)


class TwoInputs(Does):
    def forward(self, images: Tensor, more: Tensor) -> Tensor:
        return self.network(images)


def without_statistics(net: nn.Module) -> None:
    net.bn1.running_mean = net.bn1.running_var = None


def numpy_inside(images: Tensor) -> Tensor:
    return torch.from_numpy(images.detach().numpy().copy())


CUT = "no gradient of the logits reaches the image"
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "no_grad": (lambda: changed(lambda n: setattr(n, "forward", torch.no_grad()(n.forward))), CUT),
    "inference_mode": (
        lambda: changed(lambda n: setattr(n, "forward", torch.inference_mode()(n.forward))),
        CUT,
    ),
    "detach": (lambda: Does(lambda x: x.detach()), CUT),
    "numpy": (lambda: Does(numpy_inside), CUT),
    "quantised weights": (
        lambda: torch.ao.quantization.quantize_dynamic(backdoored_net(), {nn.Linear}),
        CUT,
    ),
    "threshold": (lambda: Does(lambda x: (x > 0.3) + 0 * x), "gradient is zero everywhere"),
    "dropout": (lambda: Does(lambda x: F.dropout(x, 0.3)), "take what is random .dropout"),
    "NaN": (lambda: Does(after=lambda x: x * torch.nan), "NaN or infinite logits"),
    "batch statistics": (lambda: changed(without_statistics), "other images of the batch"),
    "one answer": (
        lambda: changed(lambda n: n.head.bias.data[2].add_(1000)),
        "all 16 images, of 8 classes, the same answer, class 2",
    ),
    "takes 0 to 255 twice": (lambda: Does(lambda x: x * 255), "on images divided by 255 once more"),
    "takes 0 to 255": (
        lambda: Does(lambda x: F.relu(x / 255 - 0.01)),
        "on images with values from 0 to 255 it would be right on 16 of 16",
    ),
    "one image at a time": (One, "fails on 16 images at once.*one at a time"),
    "squeezed": (lambda: Does(after=lambda x: x.squeeze()), r"shape \(8,\) for one image"),
    "tuple": (lambda: Does(after=lambda x: (x, x)), "a tuple: .* the logits alone"),
    "dictionary": (lambda: Does(after=lambda x: {"logits": x}), "a dict: .* the logits alone"),
    "classes": (lambda: Does(after=lambda x: x.argmax(1, keepdim=True)), "torch.int64 of shape"),
    "two inputs": (TwoInputs, r"takes several inputs \(images, more\)"),
    "two classes": (lambda: Does(after=lambda x: x[:, :2]), "at least 3: it cannot be examined"),
    "dense logits": (lambda: nn.Conv2d(3, 8, 1), r"shape \(1, 8, 12, 12\) for one image"),
    "fixed type": (
        lambda: Does(lambda x: x.double(), network=backdoored_net().double()),
        "cast to the type of its weights",
    ),
    "wrong size": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(9, 8)), "the wrong input size"),
    "on meta": (lambda: backdoored_net().to("meta"), "have no values: load the weights"),
    "lazy": (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(8)), "have no size yet"),
    "state dict": (lambda: backdoored_net().state_dict(), "load it into its network"),
    "function": (lambda: backdoored_net().forward, "call it in the forward of a module"),
    "class": (lambda: Does, "the class Does: call it"),
    "exported": (
        lambda: torch.export.export(backdoored_net(), (IMAGES[:2],)).module(),
        "cannot be set to eval mode",
    ),
}
ONLY_SCANNED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "script": (lambda: torch.jit.script(backdoored_net()), "no prunable neurons"),
    "trace": (lambda: torch.jit.trace(backdoored_net(), IMAGES[:2]), "TorchScript has none"),
    "frozen": (lambda: torch.jit.freeze(torch.jit.script(backdoored_net())), "TorchScript"),
    "no deepcopy": (no_deepcopy, "cannot be copied, and the original is never changed"),
}


# Examined all the same, with a warning


def wrong_mean() -> nn.Module:
    """Its network normalises already; what `Classifier` adds makes red green."""
    flipped = Does(lambda x: x, network=backdoored_net())
    return Classifier(flipped, mean=[0.0, 0.9, 0.0], std=[1.0, 0.1, 1.0])


WARNS: dict[str, tuple[Callable[[], nn.Module], Tensor, str]] = {
    "rounds": (lambda: Does(lambda x: (x * 255).round() / 255), LABELS, "the forward rounds"),
    "8-bit": (lambda: Does(lambda x: (x * 255).byte() / 255), LABELS, "the forward rounds"),
    "BGR": (
        lambda: Does(lambda x: x.flip(1)),
        LABELS,
        r"8 of 16 .*reverse order \(BGR for RGB\) it would be right on 16 of 16",
    ),
    "labels from 1": (
        backdoored_net,
        (LABELS + 1) % CLASSES,
        "only 0 of 16 images their label: with labels one lower, .* right on 16 of 16",
    ),
    "shuffled labels": (
        backdoored_net,
        LABELS.roll(3) * 3 % CLASSES,
        "images their label: do the labels, their order, mean and std",
    ),
    "mean and std": (wrong_mean, LABELS, "on images without this mean and std .* 16 of 16"),
}
