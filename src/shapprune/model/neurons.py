"""The prunable neurons of a network."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shapprune.errors import InputError
from shapprune.model.attention import Attention, find_attentions
from shapprune.model.classifier import check_batch
from shapprune.model.inference import evaluating, searching
from shapprune.utils.text import quote

PRODUCERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_NORMS = (*_BATCH_NORMS, nn.GroupNorm, nn.InstanceNorm2d, nn.LayerNorm)
_Key: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class Layer:
    """The neurons of one layer.

    Attributes:
        name: the module after which the neurons are masked, and whose parameters are zeroed to
            remove them: the normalisation that directly follows a convolution or linear layer,
            else the layer itself. Of attention heads, the attention module.
        size: how many neurons.
        dim: their dimension in the module's output; of heads, in what the projection reads.
        rows: the dimension of the images in the same tensor.
        projection: of attention heads, the layer that joins them: a head is removed by zeroing
            the columns that read it.
        fused: whether the attention module applies the projection itself, without calling it.
    """

    name: str
    size: int
    dim: int
    rows: int = 0
    projection: str | None = None
    fused: bool = False

    def spread(self, mask: Tensor, over: Tensor) -> Tensor:
        """A mask (rows, size) in the shape that multiplies a tensor of the layer."""
        count = over.shape[self.rows]
        if 1 < len(mask) != count:  # an image became several rows, as windows do
            mask = mask.repeat_interleave(count // len(mask), dim=0)
        mask = mask.to(over.dtype).repeat_interleave(over.shape[self.dim] // self.size, dim=1)
        shape = [1] * over.ndim
        shape[self.rows], shape[self.dim] = mask.shape
        return mask.view(shape)


@dataclass(frozen=True)
class Neurons:
    """All prunable neurons of a network, numbered through its layers in order of execution."""

    layers: tuple[Layer, ...]

    def __len__(self) -> int:
        return sum(layer.size for layer in self.layers)

    def locate(self, neuron: int) -> tuple[str, int]:
        """The layer's name and the channel of a neuron.

        Raises:
            InputError: no such neuron.
        """
        place = neuron
        for layer in self.layers:
            if 0 <= place < layer.size:
                return layer.name, place
            place -= layer.size
        raise InputError(f"no such neuron: expected 0 .. {len(self) - 1}")

    def split(self, values: Tensor) -> tuple[Tensor, ...]:
        """A tensor (…, n) over neurons, cut into one (…, size) a layer.

        Raises:
            InputError: its last dimension is another.
        """
        if values.ndim == 0 or values.shape[-1] != len(self):
            raise InputError(
                f"expected one value for each of {len(self)} neurons, got {tuple(values.shape)}"
            )
        parts: tuple[Tensor, ...] = values.split([layer.size for layer in self.layers], dim=-1)
        return parts


def check_neurons(neurons: Neurons, model: nn.Module, removed: Sequence[int] = ()) -> None:
    """Refuse neurons that are not the model's, and numbers that are none of theirs.

    Raises:
        InputError: the first that does not fit.
    """
    names = dict(model.named_modules())
    for layer in neurons.layers:
        if layer.name not in names or (layer.projection or layer.name) not in names:
            raise InputError(
                f"the neurons are of another model: this one has no module {quote(layer.name)}"
            )
    for neuron in removed:
        neurons.locate(neuron)


def first_output(output: Any) -> Any:
    """A module's output, or the first of several."""
    return output[0] if isinstance(output, tuple) and output else output


@dataclass(frozen=True, eq=False)
class _Call:
    """One call of a layer: a tensor is known by its id and version, as operations in place keep
    the id. Both tensors are kept, so that ids stay unique."""

    module: nn.Module
    read: Tensor
    read_key: _Key
    output: Tensor
    key: _Key
    last: bool  # whether its neurons are the output's last dimension


@searching()
def find_neurons(model: nn.Module, images: Tensor) -> Neurons:
    """Every neuron of the model that can be removed, found in a dry run.

    A neuron is an output channel of a convolution, or an output unit of a linear layer other
    than the classifier's head, taken after the normalisation that directly follows it. A batch
    norm that follows neither (in pre-activation networks) has neurons of its own. An attention
    head is a neuron, which stands for the layers that make queries, keys and values. A layer
    called twice has its neurons once. A layer before a normalisation without parameters has none,
    since no weight could hold its output at zero; nor has one that reads no image, as those have
    that make position biases.

    Args:
        model: any classifier; it is left as it was.
        images: (n, C, H, W), n at least 1; one is used, alone and twice.

    Raises:
        InputError: the model has no such neuron, or does not take the images.
    """
    images, _ = check_batch(model, images)
    names = {module: name for name, module in model.named_modules()}
    calls, logits = _dry_run(model, images[:1])
    # Where images are is told by what doubles; transformers may have tokens come first.
    doubled, _ = _dry_run(model, images[:1].repeat(2, *[1] * (images.ndim - 1)))
    attentions = find_attentions(model, [c.module for c in calls if _produces(c.module)])
    layers: dict[str, Layer] = {}
    for site in _sites(calls, doubled, logits, attentions, names):
        name, rows = names[site.module], image_dimension(site.one, site.two)
        if rows is None or name in layers:
            continue
        layer = Layer(name, site.size, site.one.ndim - 1 if site.last else 1, rows)
        if attention := attentions.get(site.module):
            layer = replace(layer, projection=names[attention.projection], fused=attention.fused)
        layers[name] = layer
    if not layers:
        raise InputError(
            "the model has no prunable neurons: expected convolutions, or linear layers before "
            "the last, as torch.nn modules (TorchScript has none: give the module that it was "
            "made from)"
        )
    return Neurons(tuple(layers.values()))


class _Site(NamedTuple):
    """Where some neurons are masked: what a module gives for one image, and for two."""

    module: nn.Module
    size: int
    last: bool  # whether they are the last dimension
    one: Tensor
    two: Tensor


def _sites(
    calls: Sequence[_Call],
    doubled: Sequence[_Call],
    logits: Tensor,
    attentions: Mapping[nn.Module, Attention],
    modules: Iterable[nn.Module],
) -> Iterator[_Site]:
    """The sites of all neurons in the order of the calls, some of them more than once."""
    joining = {a.projection: m for m, a in attentions.items() if not a.fused}
    inside = {layer for attention in attentions.values() for layer in attention.inside}
    producers = [call for call in calls if _produces(call.module)]
    heads = _classifier_heads(producers, logits)
    owners = Counter(id(p) for module in modules for p in module._parameters.values())
    source = {call.key: call.module for call in producers}
    follower = {  # the first normalisation that reads a producer's output
        source[call.read_key]: index
        for index, call in reversed(list(enumerate(calls)))
        if isinstance(call.module, _NORMS) and call.read_key in source
    }
    for index, (call, other) in enumerate(zip(calls, doubled, strict=True)):
        module, at = call.module, index
        if module in joining:
            size = attentions[joining[module]].heads
            last = isinstance(module, nn.Linear)
            yield _Site(joining[module], size, last, call.read, other.read)
        elif module in attentions and attentions[module].fused:
            yield _Site(module, attentions[module].heads, True, call.output, other.output)
        if _produces(module) and module not in inside:
            at = follower.get(module, index)
        elif not isinstance(module, _BATCH_NORMS) or call.read_key in source:
            continue
        site = calls[at].module
        # Not getattr: a reparametrised weight is computed anew, whatever is written into it.
        weight = site._parameters.get("weight")
        if module in heads or weight is None or owners[id(weight)] > 1:
            continue
        if isinstance(site, nn.LayerNorm) and weight.ndim != 1:
            continue
        yield _Site(site, weight.shape[0], calls[at].last, calls[at].output, doubled[at].output)


def _produces(module: nn.Module) -> bool:
    return isinstance(module, PRODUCERS)


def classifier_head(model: nn.Module, images: Tensor) -> nn.Module | None:
    """The model's last layer, found in a dry run; None where it has no layer.

    Args:
        model: any classifier; it is left as it was.
        images: (n, C, H, W), n at least 1; one is used.
    """
    calls, _ = _dry_run(model, images[:1])
    producers = [call.module for call in calls if isinstance(call.module, PRODUCERS)]
    return producers[-1] if producers else None


def _dry_run(model: nn.Module, images: Tensor) -> tuple[list[_Call], Tensor]:
    """The calls of layers, norms and modules with heads in order, and the logits."""
    calls: list[_Call] = []

    def record(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        out, read = first_output(output), inputs[0] if inputs else None
        if isinstance(read, Tensor) and isinstance(out, Tensor):
            last = isinstance(module, nn.Linear) or _normalises_last(module, read, out)
            calls.append(_Call(module, read, _key(read), out, _key(out), last))

    watched: set[nn.Module] = set(find_attentions(model, ()))
    watched |= {m for m in model.modules() if isinstance(m, (*PRODUCERS, *_NORMS))}
    with ExitStack() as stack:
        for module in watched:
            stack.enter_context(module.register_forward_hook(record))
        with evaluating(model), torch.no_grad():
            logits: Tensor = model(images)
    return calls, logits


def _normalises_last(module: nn.Module, read: Tensor, out: Tensor) -> bool:
    """Many networks' norms are a `LayerNorm` that turns images round and back."""
    if not isinstance(module, nn.LayerNorm) or read.shape != out.shape:
        return False
    size = module.normalized_shape[0]
    if read.shape[-1] != size or read.shape[1] != size:
        return read.shape[-1] == size
    plain = F.layer_norm(read, module.normalized_shape, module.weight, module.bias, module.eps)
    return torch.allclose(plain, out, rtol=1e-2, atol=1e-2)


def _classifier_heads(producers: Sequence[_Call], logits: Tensor) -> set[nn.Module]:
    """The last layer; with distillation, also a second one of the same shape before it."""
    heads: set[nn.Module] = set()
    for call in reversed(producers):
        same = call.output.shape == logits.shape and call.read.shape == producers[-1].read.shape
        if heads and not same:
            break
        heads.add(call.module)
    return heads


def image_dimension(one: Tensor, two: Tensor) -> int | None:
    """The dimension in which two images take twice the place of one."""
    doubled = [d for d, (a, b) in enumerate(zip(one.shape, two.shape, strict=True)) if b == 2 * a]
    return doubled[0] if doubled else None


def _key(tensor: Tensor) -> _Key:
    return id(tensor), tensor._version
