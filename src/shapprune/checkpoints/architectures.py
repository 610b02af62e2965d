"""Networks from their architecture's name: code that the user names knowingly."""

import ast
import hashlib
import importlib
import inspect
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import parse_qsl

import torch
from torch import Tensor, nn

from shapprune.errors import InputError
from shapprune.utils.files import similar_file
from shapprune.utils.text import describe, list_names, printable, suggest

# Entries of transformers' configurations that say more than how a network is shaped.
_NOT_SHAPES = {
    *("model_type", "auto_map", "quantization_config", "dtype", "torch_dtype", "architectures"),
    *("backbone", "use_pretrained_backbone", "use_timm_backbone", "transformers_version"),
    "vocab_size",  # of BEiT's pretraining: no part of its classifier
}

_LIBRARIES = ("torchvision", "timm", "transformers")
_SMALL = 30_000_000  # numbers of a network that is built in any case: the usual ones

# What version 0.1 called its networks: manifests, scripts and reports say so.
_FORMER_NAMES = {
    "shapprune.cifar_resnets": "shapprune.networks.cifar",
    "shapprune.trojanzoo": "shapprune.networks.trojanzoo",
}


def build_network(
    spec: str,
    num_classes: int,
    *,
    options: Mapping[str, Any] | None = None,
    weights: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """A network with fresh weights, from its architecture's name.

    Args:
        spec: ``torchvision:NAME``, ``timm:NAME``, ``package.module:CALLABLE`` or
            ``file.py:CALLABLE``. The last two run the user's own code; imports beside the file
            (or in the working folder) work. CALLABLE gets ``num_classes=…`` if it takes that, and
            nothing otherwise: `check_classifier` then tells whether the number is right. It also
            gets what follows a question mark: ``CALLABLE?channels=1&width=0.5``.
        num_classes: classes that the network tells apart, at least 2.
        options, weights: what a Hugging Face folder holds: its ``config.json``, which
            ``transformers:TYPE`` is built from, and its tensors, which that library renames.

    Raises:
        InputError: an unknown name (with the nearest known ones), a missing package (with the
            command that installs it), anything that the code raises (with file and line), or a
            result that is no ``nn.Module``.
    """
    if num_classes < 2:
        raise InputError(f"num_classes must be at least 2, got {num_classes}")
    library = spec.startswith(tuple(f"{name}:" for name in _LIBRARIES))
    source, _, name = spec.partition(":") if library else spec.rpartition(":")
    name, _, extras = (name, "", "") if library else name.partition("?")
    if not (source and name):
        meant = f": did you mean torchvision:{spec} or timm:{spec}?" if spec.isidentifier() else ""
        raise InputError(
            "arch must be torchvision:NAME, timm:NAME, package.module:CALLABLE or "
            f"file.py:CALLABLE, got {spec!r}{meant}"
        )
    try:
        # A fresh network draws its weights from the global generator, which is the caller's.
        with torch.random.fork_rng(devices=[]):
            if library:
                network = _library_network(source, name, num_classes, options or {}, weights)
            else:
                network = _user_network(source, name, num_classes, _arguments(extras))
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        meant = ""
        if isinstance(error, ModuleNotFoundError) and error.name == source:
            meant = suggest(source, [*_LIBRARIES, *(file.stem for file in Path().glob("*.py"))])
        raise InputError(f"arch {spec} failed: {_where(error)}{describe(error)}{meant}") from error
    if not isinstance(network, nn.Module):
        raise InputError(f"arch {spec} gave a {type(network).__name__}: expected a torch.nn.Module")
    return network


def saved_names(network: nn.Module) -> dict[str, Tensor]:
    """The network's tensors under the names that its files have."""
    state = network.state_dict()
    if getattr(network, "_weight_conversions", None):  # transformers renames while it loads
        loading = importlib.import_module("transformers.core_model_loading")
        state = loading.revert_weight_conversion(network, state)
    return dict(state)


def _library_network(
    library: str,
    name: str,
    num_classes: int,
    options: Mapping[str, Any],
    weights: Mapping[str, Tensor] | None,
) -> object:
    try:
        package = importlib.import_module(library)
    except Exception as error:
        raise InputError(
            f"arch {library}:{name} needs {library}: pip install 'shapprune[{library}]' "
            f"({describe(error)})"
        ) from error
    if library == "transformers":
        return _transformer(package, name, options, weights)
    # Only names that the library lists: others could make it download something.
    if library == "timm":
        known = package.list_models()
    else:
        known = package.models.list_models(module=package.models)
    if name not in known:
        raise InputError(f"{library} knows no model {name!r}{suggest(name, known)}")

    def make() -> object:
        if library == "timm":
            return package.create_model(name, pretrained=False, num_classes=num_classes, **options)
        return package.models.get_model(name, weights=None, num_classes=num_classes)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about their own defaults
        if weights is not None:
            _check_sizes({**options, "num_classes": num_classes}, weights)
            _check_count(make, weights)
        return make()


def _check_count(make: Callable[[], object], weights: Mapping[str, Tensor]) -> None:
    """A stranger's small file may name a giant: its numbers are counted before they are made."""
    try:
        with torch.device("meta"):
            network = make()
    except Exception:  # not every network can be built without numbers; the next try tells why
        return
    assert isinstance(network, nn.Module)
    needed = sum(tensor.numel() for tensor in network.parameters())
    there = sum(tensor.numel() for tensor in weights.values())
    if needed > 4 * there + _SMALL:
        raise InputError(f"the network has {needed} numbers, and the file {there}")


def _transformer(
    package: Any, name: str, options: Mapping[str, Any], weights: Mapping[str, Tensor] | None
) -> nn.Module:
    """An image classifier of transformers, from its configuration and tensors alone."""
    if not options or weights is None:
        raise InputError(f"transformers:{name} needs a folder with its config.json")
    auto = importlib.import_module("transformers.models.auto.modeling_auto")
    known = sorted(auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES)
    if name not in known or name == "timm_wrapper":
        raise InputError(f"transformers has no image classifier {name!r}{suggest(name, known)}")
    _check_sizes({k: v for k, v in options.items() if k not in _NOT_SHAPES}, weights)
    # Plain sizes only: others could fetch kernels, backbones or code.
    shape = package.AutoConfig.for_model(name).to_dict().keys() - _NOT_SHAPES
    given = {k: v for k, v in options.items() if k in shape and not k.startswith("_")}
    config = package.AutoConfig.for_model(name, **given)
    kinds = auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING[type(config)]
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)  # DeiT's, with its teacher or without
    stated = options.get("architectures") or ()
    kind = next((one for one in kinds if one.__name__ in stated), kinds[0])
    with _quiet(package.utils.logging):
        network, told = kind.from_pretrained(
            None,
            config=config,
            state_dict=dict(weights),
            output_loading_info=True,
            dtype=torch.float32,
        )
    for fault in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if told[fault]:
            raise InputError(
                f"the weights do not fit: {fault} {list_names(sorted(map(str, told[fault])))}"
            )
    assert isinstance(network, nn.Module)
    network.register_forward_hook(_only_logits)
    return network


@contextmanager
def _quiet(logging: Any) -> Iterator[None]:
    """Without transformers' progress bar and report: what does not fit is an error of one line."""
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def _only_logits(_: nn.Module, __: Any, output: Any) -> Any:
    return output.logits


def _check_sizes(options: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """A stranger's configuration is built before it is compared: no larger than its tensors."""
    widest = max((n for tensor in weights.values() for n in tensor.shape), default=1)
    for key, value in options.items():
        numbers = value if isinstance(value, list | tuple) else [value]
        whole = [n for n in numbers if isinstance(n, int)]
        layers = key.endswith(("layers", "depths", "depth")) and sum(whole) > len(weights)
        if layers or max(whole, default=0) > max(widest, 4096):
            said = printable(repr(value), 80)
            raise InputError(f"the source states {key} {said}, and its tensors are smaller")


def _user_network(source: str, name: str, num_classes: int, arguments: dict[str, object]) -> object:
    file = Path(source) if source.endswith(".py") else None
    with _importable_from(file.resolve().parent if file else Path.cwd()):
        named = _FORMER_NAMES.get(source, source)
        module = _load_file(file) if file else importlib.import_module(named)
        if not hasattr(module, name):
            known = [n for n, value in vars(module).items() if callable(value)]
            raise InputError(f"{source} has no {name!r}{suggest(name, known)}")
        make = getattr(module, name)
        if isinstance(make, nn.Module):
            raise InputError(f"{name!r} in {source} is a network: name the class or function of it")
        if not callable(make):
            raise InputError(f"{name!r} in {source} is a {type(make).__name__}: expected a class")
        if _takes_num_classes(make):
            arguments = {"num_classes": num_classes, **arguments}
        network: object = make(**arguments)
    return network


def _arguments(text: str) -> dict[str, object]:
    """
    >>> _arguments("channels=1&width=0.5&batch_norm=False&kind=small")
    {'channels': 1, 'width': 0.5, 'batch_norm': False, 'kind': 'small'}
    """
    arguments: dict[str, object] = dict(parse_qsl(text, strict_parsing=True)) if text else {}
    for name, value in arguments.items():
        with suppress(ValueError, SyntaxError):
            arguments[name] = ast.literal_eval(str(value))
    return arguments


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
        raise InputError(f"no such file: {file}{similar_file(file)}")
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
