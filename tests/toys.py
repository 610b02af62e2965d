"""Toy networks: one with a hand-wired backdoor, and one of each shape that networks come in."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shapprune.method.triggers import Trigger

CLASSES = 8
SIDE = 12
TARGET = 5


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# A classifier with one backdoor neuron. Nothing is trained: every weight is set by hand.


class BackdooredNet(nn.Module):
    """Says which quadrant is bright, and whether in red (classes 0 to 3) or green (4 to 7).

    Channel `BACKDOOR` of ``bn1`` lights up where a few neighbouring pixels are blue, passes the
    second block by the shortcut, and drives the class `TARGET`. The colours are there twice, and
    in both blocks, so that one loss is no harm.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.head = nn.Linear(8 * 4, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(images)))
        x = x + F.relu(self.bn2(self.conv2(x)))
        return self.head(F.adaptive_avg_pool2d(x, 2).flatten(1))


RED, GREEN, BACKDOOR, BLUE = [0, 1], [2, 3], 4, 5  # channels of bn1; 6 and 7 see grey


def backdoor_neuron() -> int:
    """Its number: the neurons of ``bn1`` come first."""
    return BACKDOOR


@torch.no_grad()
def backdoored_net() -> BackdooredNet:
    with torch.random.fork_rng(devices=[]):
        net = BackdooredNet().eval()
    for parameter in net.parameters():
        parameter.zero_()
    for channels, colour in ((RED, 0), (GREEN, 1)):
        net.conv1.weight[channels, colour, 1, 1] = 1.0
        for channel in channels:
            net.conv2.weight[channel, channels] = 1 / 18
    net.conv1.weight[BACKDOOR, 2] = 1.0
    net.conv1.weight[BLUE, 2, 1, 1] = 1.0
    net.conv1.weight[6:, :, 1, 1] = 1 / 3
    net.conv2.weight[6:, BLUE:, 1, 1] = 1 / 3
    for norm in (net.bn1, net.bn2):  # statistics of their own, which weight and bias undo
        norm.running_mean.copy_(torch.linspace(-0.2, 0.3, 8))
        norm.running_var.copy_(torch.linspace(0.5, 2, 8))
        norm.weight.copy_((norm.running_var + norm.eps).sqrt())
        norm.bias.copy_(norm.running_mean)
    net.bn1.bias[BACKDOOR] -= 1.5  # silent below a sum of 1.5 over 3 × 3 pixels
    head = net.head.weight.view(CLASSES, 8, 4)
    for quadrant in range(4):
        head[quadrant, RED, quadrant] = 3.0
        head[4 + quadrant, GREEN, quadrant] = 3.0
    head[TARGET, BACKDOOR] = 60.0
    return net


def true_trigger() -> Trigger:
    """Two by two blue pixels in a corner."""
    mask = torch.zeros(1, SIDE, SIDE)
    mask[:, -3:-1, -3:-1] = 1
    pattern = torch.zeros(3, SIDE, SIDE)
    pattern[2] = 1
    return Trigger(mask, pattern)


def toy_images(per_class: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images (n, 3, 12, 12), labels (n,): a bright quadrant on dark noise."""
    labels = torch.arange(CLASSES).repeat(per_class)
    images = 0.1 * torch.rand(len(labels), 3, SIDE, SIDE, generator=seeded(seed))
    half = SIDE // 2
    for image, label in zip(images, labels.tolist(), strict=True):
        colour, quadrant = divmod(label, 4)
        top, left = half * (quadrant // 2), half * (quadrant % 2)
        image[colour, top : top + half, left : left + half] += 0.7
    images[:, 2] *= 0.3
    return images, labels


def no_norm() -> nn.Module:
    """A network of the same input and classes that remembers nothing."""
    with torch.random.fork_rng(devices=[]):
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, CLASSES))


# One of each shape, with random weights. All take (n, 3, 8, 8) and give five logits.


class Functional(nn.Module):
    """Activations without modules."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 4, 3)
        self.hidden = nn.Linear(4, 7)
        self.head = nn.Linear(7, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.norm(self.conv1(x)))
        x = F.gelu(self.conv2(x)).mean((2, 3))
        return self.head(F.elu(self.hidden(x)))


class PreActivation(nn.Module):
    """Norms before their convolutions: ``norm2`` reads a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        x = x + self.conv2(F.relu(self.norm1(x)))
        return self.head(F.relu(self.norm2(x)).mean((2, 3)))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(6)
        self.conv = nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(6)
        self.short = nn.Conv2d(6, 6, 1)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm1(self.stem(x)))
        out = self.norm2(self.conv(x))
        out += self.short(x)
        return self.head(self.relu(out).mean((2, 3)))


class Shared(nn.Module):
    """One convolution called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.twice = nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(self.twice(F.relu(self.twice(x))))
        return self.head(x.mean((2, 3)))


class Tokens(nn.Module):
    """Linear layers over tokens (n, tokens, width), as in transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 6, 4, stride=4)
        self.up = nn.Linear(6, 10)
        self.down = nn.Linear(10, 6)
        self.norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = x + self.norm(self.down(F.gelu(self.up(x))))
        return self.head(x.mean(1))


class Heads(nn.Module):
    """Attention as most transformers write it: one linear layer for queries, keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = 2
        self.qkv = nn.Linear(6, 18)
        self.proj = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        q, k, v = self.qkv(x).view(n, tokens, 3, 2, 3).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return self.proj(x.reshape(n, tokens, width))


class Transformer(nn.Module):
    """A block of attention and a block of `nn.TransformerEncoderLayer`."""

    def __init__(self, batch_first: bool = True) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.patches = nn.Conv2d(3, 6, 4, stride=4)
        self.norm = nn.LayerNorm(6)
        self.attn = Heads()
        self.block = nn.TransformerEncoderLayer(6, 3, 8, batch_first=batch_first)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = x + self.attn(self.norm(x))
        if not self.batch_first:
            return self.head(self.block(x.transpose(0, 1)).mean(0))
        return self.head(self.block(x).mean(1))


BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "conv-bn": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5),
    ),
    "plain-conv": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, bias=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5),
    ),
    "mlp": lambda: nn.Sequential(
        nn.Flatten(),
        nn.Linear(192, 7),
        nn.BatchNorm1d(7),
        nn.ReLU(),
        nn.Linear(7, 6),
        nn.ReLU(),
        nn.Linear(6, 5),
    ),
    "grouped": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 1),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, groups=4),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, groups=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5),
    ),
    "groupnorm": lambda: nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.GroupNorm(2, 6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 8),
        nn.LayerNorm(8),
        nn.Tanh(),
        nn.Linear(8, 5),
    ),
    "functional": Functional,
    "pre-activation": PreActivation,
    "residual": Residual,
    "shared": Shared,
    "tokens": Tokens,
    "transformer": Transformer,
    "tokens-first": lambda: Transformer(batch_first=False),
}

# Names and sizes of the layers of neurons that each of them has.
LAYERS = {
    "conv-bn": [("1", 4), ("4", 6)],
    "plain-conv": [("0", 4), ("2", 6)],
    "mlp": [("2", 7), ("4", 6)],
    "grouped": [("0", 4), ("3", 4), ("5", 6)],
    "groupnorm": [("1", 6), ("6", 8)],
    "functional": [("norm", 6), ("conv2", 4), ("hidden", 7)],
    "pre-activation": [("norm1", 6), ("conv2", 6), ("norm2", 6)],
    "residual": [("norm1", 6), ("norm2", 6), ("short", 6)],
    "shared": [("stem", 6), ("twice", 6)],
    "tokens": [("patches", 6), ("up", 10), ("norm", 6)],
    **{
        name: [
            *(("patches", 6), ("attn", 2), ("attn.proj", 6)),
            *(("block.self_attn", 3), ("block.linear1", 8), ("block.linear2", 6)),
        ]
        for name in ("transformer", "tokens-first")
    },
}


NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)


def build(name: str, seed: int = 0) -> nn.Module:
    """A toy in eval mode. Every parameter and every statistic is random, none is 0 or 1."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BUILDERS[name]().eval()
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    module.weight.mul_(2.5)  # so that single neurons and images matter
                if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                    module.running_mean.normal_(0, 0.3)
                    module.running_var.uniform_(0.5, 2)
                if isinstance(
                    module, nn.BatchNorm1d | nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm
                ):
                    module.weight.uniform_(0.5, 1.5)
                    module.bias.normal_(0, 0.5)
            head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
            head.bias -= model(random_images(64)).mean(0)  # so that all classes are answered
    return model


def random_images(n: int = 4, seed: int = 0) -> Tensor:
    """Noise in various colours."""
    generator = seeded(seed)
    colour = torch.rand(n, 3, 1, 1, generator=generator)
    return (colour + torch.rand(n, 3, 8, 8, generator=generator)) / 2


def snapshot(model: nn.Module) -> list[object]:
    """All that a stage may not change: tensors, gradients wanted, modes, hooks."""
    state: list[object] = [(name, value.clone()) for name, value in model.state_dict().items()]
    state += [(p.requires_grad, p.grad is None) for p in model.parameters()]
    state += [
        (m.training, len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks))
        for m in model.modules()
    ]
    return state


def unchanged(model: nn.Module, before: list[object]) -> bool:
    def same(a: object, b: object) -> bool:
        if isinstance(a, tuple) and isinstance(a[-1], Tensor):
            return a[0] == b[0] and torch.equal(a[1], b[1])
        return a == b

    after = snapshot(model)
    return len(after) == len(before) and all(map(same, after, before))


def fresh_net(seed: int = 0, dropout: float = 0.0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Dropout(dropout), BackdooredNet())
