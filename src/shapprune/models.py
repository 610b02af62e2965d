"""Networks of strangers: weights read without running code, architectures, normalisation.

A weights file is data and never runs; an architecture is code that the user names knowingly.
"""

import argparse
import difflib
import hashlib
import importlib
import inspect
import re
import sys
import tarfile
import traceback
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from shapprune.errors import InputError
from shapprune.files import describe, printable, write_whole

# Where training scripts put the weights, best first; other entries are tried after these.
_WEIGHT_ENTRIES = (
    *("state_dict", "model_state_dict", "model", "net", "network", "weights", "params"),
    *("ema", "ema_state_dict", "state_dict_ema", "model_ema"),
)
_WRAPPER_PREFIXES = ("module.", "_orig_mod.")  # DataParallel, torch.compile

# The bookkeeping that checkpoints carry beside the weights (`args`, `best_acc`). Rebuilding these
# runs no code of the file's choice.
_numpy_scalar = np.float64().__reduce__()[0]
_BOOKKEEPING: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(code)) for code in "?bBhHiIlLqQefd"),
    (_numpy_scalar, "numpy.core.multiarray.scalar"),
    (_numpy_scalar, "numpy._core.multiarray.scalar"),
]

_SAVE_ADVICE = "save it again with torch.save(model.state_dict(), …) or as safetensors"


class Classifier(nn.Module):
    """A network with its normalisation inside: images in [0, 1] in, logits out.

    Args:
        network: maps normalised images (n, C, H, W) to logits (n, classes).
        mean, std: one number, or one a channel, applied as (x - mean) / std to images in [0, 1];
            None leaves the images as they are.

    Raises:
        InputError: a std that is not positive, a mean outside [0, 1], or lengths that disagree.

    >>> model = Classifier(nn.Flatten(), mean=0.5, std=0.25)
    >>> model(torch.ones(1, 1, 1, 2))
    tensor([[2., 2.]])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        # Not persistent: they are the user's options, not part of the weights.
        self.register_buffer("mean", _a_channel("mean", mean, 0.0), persistent=False)
        self.register_buffer("std", _a_channel("std", std, 1.0), persistent=False)
        channels = {self.mean.shape[1], self.std.shape[1]} - {1}
        if len(channels) > 1:
            raise InputError(
                f"mean has {self.mean.shape[1]} numbers and std {self.std.shape[1]}: "
                "give one number, or one a channel"
            )
        if not bool((self.std > 0).all()):
            raise InputError(f"std must be positive, got {std}")
        if not bool(((self.mean >= 0) & (self.mean <= 1)).all()):
            raise InputError(f"mean must be for images in [0, 1], got {mean}: divide by 255?")

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, classes) of images (n, C, H, W) in [0, 1]."""
        logits: Tensor = self.network((images - self.mean) / self.std)
        return logits


def load_classifier(
    weights: Path,
    *,
    arch: str,
    num_classes: int,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
) -> Classifier:
    """The network of ``arch`` with the weights of a file, on the CPU, in eval mode.

    Args:
        weights: see `read_weights`.
        arch: see `build_network`.
        num_classes: classes that the network tells apart.
        mean, std: see `Classifier`.

    Raises:
        InputError: whatever is wrong with the file, the architecture, their match (the first
            key that differs is named) or the normalisation.
    """
    tensors = read_weights(weights)
    network = build_network(arch, num_classes)
    try:
        own = network.state_dict()
        if mismatch := _mismatch(own, tensors, num_classes):
            raise InputError(f"{weights} does not fit {arch}: {mismatch}")
        network.load_state_dict(tensors)
    except InputError:
        raise
    except Exception as error:  # a network may have loading hooks of its own
        raise InputError(f"{weights} cannot be loaded into {arch}: {describe(error)}") from error
    return Classifier(network, mean, std).eval()


def read_weights(path: Path) -> dict[str, Tensor]:
    """The named tensors of a weights file, on the CPU. No code in the file is ever run.

    Reads safetensors and what ``torch.save`` makes of tensors (.pth, .pt, .th, .pth.tar). Of a
    training checkpoint it takes the weights (under ``state_dict``, ``model``, ``net``, …); the
    prefixes ``module.`` and ``_orig_mod.`` go where every name carries them.

    Raises:
        InputError: a file that is missing, unreadable, empty or cut short; a pickle that calls
            for code, a TorchScript archive, an ONNX model; no weights inside; NaN or infinity
            (the first such tensor is named).
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            head = file.read(16)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    if not head:
        raise InputError(f"{path} is empty: expected a weights file")
    if path.suffix.lower() == ".safetensors" or head[8:9] == b"{":
        weights = _read_safetensors(path)
    else:
        weights = _find_weights(path, _read_pickle(path, head))
    for prefix in _WRAPPER_PREFIXES * 2:  # either may stand inside the other
        if all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    for name, tensor in weights.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise InputError(f"{path}: tensor {_quote(name)} is sparse, quantised or has no data")
        if tensor.is_floating_point() and not bool(tensor.float().isfinite().all()):
            raise InputError(f"{path}: tensor {_quote(name)} holds NaN or infinite values")
    return weights


def build_network(spec: str, num_classes: int) -> nn.Module:
    """A network with fresh weights, from its architecture's name.

    Args:
        spec: ``torchvision:NAME``, ``timm:NAME``, ``package.module:CALLABLE`` or
            ``file.py:CALLABLE``. The last two run the user's own code; imports beside the file
            (or in the working folder) work. CALLABLE gets ``num_classes=…`` if it takes that, and
            nothing otherwise: `check_classifier` then tells whether the number is right.
        num_classes: classes that the network tells apart, at least 2.

    Raises:
        InputError: an unknown name (with the nearest known ones), a missing package (with the
            command that installs it), anything that the code raises (with file and line), or a
            result that is no ``nn.Module``.
    """
    if num_classes < 2:
        raise InputError(f"num_classes must be at least 2, got {num_classes}")
    library = spec.startswith(("torchvision:", "timm:"))
    source, _, name = spec.partition(":") if library else spec.rpartition(":")
    if not (source and name):
        raise InputError(
            "arch must be torchvision:NAME, timm:NAME, package.module:CALLABLE or "
            f"file.py:CALLABLE, got {spec!r}"
        )
    try:
        # A fresh network draws its weights from the global generator, which is the caller's.
        with torch.random.fork_rng(devices=[]):
            if library:
                network = _library_network(source, name, num_classes)
            else:
                network = _user_network(source, name, num_classes)
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"arch {spec} failed: {_where(error)}{describe(error)}") from error
    if not isinstance(network, nn.Module):
        raise InputError(f"arch {spec} gave a {type(network).__name__}: expected a torch.nn.Module")
    return network


def check_classifier(model: nn.Module, *, images: Tensor, num_classes: int | None = None) -> int:
    """Run one image through the model, in eval mode, and check what comes out.

    The model is left as it was, training modes included.

    Args:
        images: (n, C, H, W) in [0, 1], n at least 1; the first is used.
        num_classes: classes that it must tell apart; None for any number.

    Returns:
        The number of classes.

    Raises:
        InputError: the model fails on the image, or does not return finite logits
            (1, num_classes).
    """
    shape = tuple(images.shape[1:])
    if isinstance(model, Classifier):
        # Broadcasting would turn a grey image into three channels without a word.
        channels = max(model.mean.shape[1], model.std.shape[1])
        if channels not in (1, shape[0]):
            raise InputError(
                f"mean and std are for {channels} channels, but the images have {shape[0]}"
            )
    like = next((p for p in model.parameters() if p.is_floating_point()), images)
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            logits: object = model(images[:1].to(like.device, like.dtype))
    except Exception as error:
        raise InputError(
            f"the model fails on an image of shape {shape}, which may be the wrong input size: "
            f"{describe(error)}"
        ) from error
    finally:
        for module, mode in modes:
            module.training = mode
    expected = f"expected float logits of shape (1, {num_classes or 'classes'})"
    if not isinstance(logits, Tensor):
        raise InputError(f"the model returns a {type(logits).__name__}: {expected}")
    if num_classes and logits.ndim == 2 and logits.shape[1] != num_classes:
        raise InputError(
            f"the model tells {logits.shape[1]} classes apart, but num_classes is {num_classes}"
        )
    if logits.ndim != 2 or len(logits) != 1 or not logits.is_floating_point():
        raise InputError(
            f"the model returns {logits.dtype} of shape {tuple(logits.shape)} for one image: "
            f"{expected}"
        )
    if not bool(logits.isfinite().all()):
        raise InputError(
            "the model returns NaN or infinite logits for the first image: "
            "check mean, std and the weights"
        )
    return logits.shape[1]


def save_weights(network: nn.Module, path: Path) -> None:
    """Write the network's state dict as safetensors, whole or not at all.

    Names, shapes and types are the network's own. Tensors that share memory are written once each.

    Raises:
        InputError: the file cannot be written.
    """
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in network.state_dict().items()
    }
    write_whole(Path(path), safetensors.torch.save(tensors))


def _a_channel(name: str, value: float | Sequence[float] | None, default: float) -> Tensor:
    """One number, or one a channel, as (1, C, 1, 1)."""
    try:
        numbers = torch.as_tensor(default if value is None else value, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} must be one number or one a channel, got {value!r}") from error
    if numbers.ndim > 1 or numbers.numel() == 0 or not bool(numbers.isfinite().all()):
        raise InputError(f"{name} must be one finite number or one a channel, got {value}")
    return numbers.detach().clone().reshape(1, -1, 1, 1)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        weights = safetensors.torch.load_file(path)
    except Exception as error:  # the parser raises several kinds on damaged files
        raise InputError(f"{path} is no whole safetensors file: {describe(error)}") from error
    if not weights:
        raise InputError(f"{path} holds no tensors")
    return weights


def _read_pickle(path: Path, head: bytes) -> object:
    """What ``torch.save`` wrote, through the unpickler that knows tensors and plain values only."""
    if path.suffix.lower() == ".onnx" or head[:1] == b"\x08":  # a protobuf's first field
        raise InputError(f"{path} is an ONNX model: expected the weights of a PyTorch network")
    # Before torch 2.6, torch.load left the safe unpickler for these two kinds of archive.
    if _is_torchscript(path):
        raise InputError(
            f"{path} is a TorchScript archive, which carries code and is not loaded: {_SAVE_ADVICE}"
        )
    if tarfile.is_tarfile(path):
        raise InputError(f"{path} is a tar archive: unpack it and name the weights file inside")
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_BOOKKEEPING):
            warnings.simplefilter("ignore")
            content: object = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can raise anything
        if found := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise InputError(
                f"{path} is a pickle that calls for {printable(found[1], 80)}, and loading it "
                f"could run any code: {_SAVE_ADVICE}"
            ) from error
        if head[:1] == b"\x80" and "Unsupported operand" in str(error):
            raise InputError(
                f"{path} is a pickle of something else than tensors, and loading it could run "
                f"any code: {_SAVE_ADVICE}"
            ) from error
        raise InputError(
            f"{path} is not a whole weights file: expected safetensors, or what torch.save makes "
            "of a state dict"
        ) from error
    return content


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.rpartition("/")[2] == "constants.pkl" for name in archive.namelist())
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return False


def _find_weights(path: Path, content: object) -> dict[str, Tensor]:
    """The state dict itself, or the entry of a training checkpoint that is one."""
    if isinstance(content, Mapping):
        entries = [content, *(content[name] for name in _WEIGHT_ENTRIES if name in content)]
        for entry in [*entries, *content.values()]:
            if (
                isinstance(entry, Mapping)
                and entry
                and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in entry.items())
            ):
                return dict(entry)
        found = f"a dict with {_list_names([str(name) for name in content])}"
    else:
        found = f"a {type(content).__name__}"
    raise InputError(f"{path} holds no weights: expected named tensors, found {found}")


def _mismatch(
    own: Mapping[str, Tensor], given: Mapping[str, Tensor], num_classes: int
) -> str | None:
    """How the weights ``given`` differ in names and shapes from the network's ``own``, if so."""
    # BatchNorm layers older than this counter lack it, and torch fills it in.
    missing = [k for k in own if k not in given and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in given if k not in own]
    misshaped = [
        k for k in own if k in given and not is_lazy(own[k]) and own[k].shape != given[k].shape
    ]
    classes = {_head_classes(own[k], given[k], num_classes) for k in misshaped}
    if not missing and not unexpected and len(classes) == 1 and None not in classes:
        return (
            f"the weights are for {classes.pop()} classes, but num_classes is {num_classes} "
            f"({_quote(misshaped[0])})"
        )
    reasons = []
    if missing:
        reasons.append(f"{len(missing)} missing: {_list_names(missing)}")
    if unexpected:
        reasons.append(f"{len(unexpected)} unexpected: {_list_names(unexpected)}")
    if misshaped:
        k = misshaped[0]
        reasons.append(
            f"{len(misshaped)} of another shape: {_quote(k)} is {tuple(given[k].shape)} in the "
            f"file and {tuple(own[k].shape)} in the network"
        )
    return "; ".join(reasons) or None


def _head_classes(own: Tensor, given: Tensor, num_classes: int) -> int | None:
    """The class count of a ``given`` tensor that differs from the network's in nothing else."""
    if own.shape[:1] == (num_classes,) and given.ndim and own.shape[1:] == given.shape[1:]:
        return given.shape[0]
    return None


def _library_network(library: str, name: str, num_classes: int) -> object:
    try:
        package = importlib.import_module(library)
    except Exception as error:
        raise InputError(
            f"arch {library}:{name} needs {library}: pip install 'shapprune[{library}]' "
            f"({describe(error)})"
        ) from error
    # Only names that the library lists: others could make it download something.
    if library == "timm":
        known = package.list_models()
    else:
        known = package.models.list_models(module=package.models)
    if name not in known:
        raise InputError(f"{library} knows no model {name!r}{_suggest(name, known)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about their own defaults
        if library == "timm":
            network: object = package.create_model(name, pretrained=False, num_classes=num_classes)
        else:
            network = package.models.get_model(name, weights=None, num_classes=num_classes)
    return network


def _user_network(source: str, name: str, num_classes: int) -> object:
    file = Path(source) if source.endswith(".py") else None
    with _importable_from(file.resolve().parent if file else Path.cwd()):
        module = _load_file(file) if file else importlib.import_module(source)
        if not hasattr(module, name):
            known = [n for n, value in vars(module).items() if callable(value)]
            raise InputError(f"{source} has no {name!r}{_suggest(name, known)}")
        make = getattr(module, name)
        if isinstance(make, nn.Module):
            raise InputError(f"{name!r} in {source} is a network: name the class or function of it")
        if not callable(make):
            raise InputError(f"{name!r} in {source} is a {type(make).__name__}: expected a class")
        network: object = make(num_classes=num_classes) if _takes_num_classes(make) else make()
    return network


@contextmanager
def _importable_from(folder: Path) -> Iterator[None]:
    """As ``python file.py`` does: what lies in the folder can be imported."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with suppress(ValueError):
            sys.path.remove(str(folder))


def _load_file(file: Path) -> ModuleType:
    if not file.is_file():
        raise InputError(f"no such file: {file}")
    # A name of its own, so that a `models.py` of the user never meets another one.
    name = "shapprune_arch_" + hashlib.sha256(bytes(file.resolve())).hexdigest()[:12]
    module = ModuleType(name)
    module.__file__ = str(file)
    sys.modules[name] = module  # dataclasses and pickling look it up there
    try:
        # Not importlib: it would leave a __pycache__ in the user's folder.
        exec(compile(file.read_bytes(), str(file), "exec", dont_inherit=True), vars(module))
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _takes_num_classes(make: Any) -> bool:
    try:
        parameters = inspect.signature(make).parameters
    except (TypeError, ValueError):  # some builtins have no signature
        return False
    return "num_classes" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _where(error: BaseException) -> str:
    """``file:line: `` of the deepest frame in the user's code, if the error comes from there."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: "
    not_theirs = (__file__, str(Path(torch.__file__).parent), importlib.__file__, "<frozen")
    frames = [
        f"{frame.filename}:{frame.lineno}: "
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(not_theirs)
    ]
    return frames[-1] if frames else ""


def _suggest(name: str, known: Sequence[str]) -> str:
    """
    >>> _suggest("resnet8", ["resnet18", "vgg11"])
    ": did you mean 'resnet18'?"
    """
    close = difflib.get_close_matches(name, known, n=3)
    return f": did you mean {' or '.join(map(repr, close))}?" if close else ""


def _quote(name: str) -> str:
    return f"'{printable(name, 80)}'"


def _list_names(names: Sequence[str]) -> str:
    """
    >>> _list_names(["a", "b", "c", "d"])
    "'a', 'b', 'c', …"
    """
    return ", ".join(map(_quote, names[:3])) + (", …" if len(names) > 3 else "")
