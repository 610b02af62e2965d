"""Forty kinds of module through scan and repair: examined rightly, warned of, or refused in a line.

Each stands for something that users hand over. What works has the same backdoored network inside,
so that verdict, target and repair are known.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kinds import IMAGES, LABELS, ONLY_SCANNED, REFUSED, WARNS, WORKS
from shapprune.errors import InputError, InputWarning
from shapprune.method import attribution, finetuning, margins, refinement, untargeted
from shapprune.method.evaluation import Evaluator
from shapprune.method.settings import (
    EvaluationSettings,
    KindSettings,
    MarginSettings,
    PoolSettings,
    RefineSettings,
    TuningSettings,
    UntargetedSettings,
)
from shapprune.model.inference import searching
from shapprune.model.masking import masked
from shapprune.model.metrics import accuracy, attack_success_rate
from shapprune.pipeline import repair, scan
from toys import CLASSES, TARGET, backdoored_net, snapshot, toy_images, true_trigger, unchanged

UNSEEN, TRUTH = toy_images(per_class=5, seed=1)

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*torch.jit:DeprecationWarning",
    "ignore:.*torch.ao:DeprecationWarning",
    "ignore:.*quantize",
    "ignore:.*quantized::linear_dynamic",
    "ignore:.*weight_norm:FutureWarning",
)


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    for stage, settings in (
        (margins.maximum_margins, MarginSettings(starts=1, steps=30)),
        (untargeted.untargeted_triggers, UntargetedSettings(starts=1, steps=20)),
        (finetuning.distillation_pool, PoolSettings(images=128, least=64)),
        (finetuning.fine_tune, TuningSettings(least=16, most=16, batch_size=32)),
        (Evaluator.__init__, EvaluationSettings(views=48, resamples=50)),
        (attribution.estimate_shapley, 256),
    ):
        defaults = getattr(stage, "__wrapped__", stage).__kwdefaults__
        monkeypatch.setitem(defaults, "samples" if settings == 256 else "settings", settings)
    monkeypatch.setattr(refinement, "REFINEMENT", RefineSettings(steps=30, images=8))
    monkeypatch.setattr(refinement, "KINDS_OF_TRIGGER", KindSettings(steps=30))


@pytest.mark.parametrize("kind", WORKS)
def test_works(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    model = WORKS[kind]()
    before, images = snapshot(model), IMAGES.clone()
    with warnings.catch_warnings():
        warnings.simplefilter("error", InputWarning)  # nothing to warn of
        result = repair(model, IMAGES, LABELS)
    assert unchanged(model, before)
    assert torch.equal(IMAGES, images)
    assert capfd.readouterr() == ("", "")
    assert (result.scan.verdict, result.scan.targets) == ("backdoored", (TARGET,))
    is_repaired(model, result)


def is_repaired(model: nn.Module, result: Any) -> None:
    """The backdoor is gone, accuracy is not, and neurons that were removed count no more."""
    repaired, story = result.model, result.repair
    assert type(repaired).__qualname__ == type(model).__qualname__  # torch.fx makes one a module
    state, wanted = repaired.state_dict(), model.state_dict()
    assert {k: (v.shape, v.dtype) for k, v in state.items()} == {
        k: (v.shape, v.dtype) for k, v in wanted.items()
    }
    attack = {"stamp": true_trigger().stamp, "target": TARGET}
    with searching():
        assert attack_success_rate(model, UNSEEN, TRUTH, **attack) > 0.9
        assert attack_success_rate(repaired, UNSEEN, TRUTH, **attack) < 0.1
        assert accuracy(repaired, UNSEEN, TRUTH) > 0.9
        some = UNSEEN[:4].to(next(repaired.parameters()).dtype)
        keep = torch.ones(1, len(story.neurons))
        keep[:, list(story.pruned)] = 0
        repaired.eval()
        with torch.no_grad():
            folded = repaired(some.clone())
            with masked(repaired, story.neurons, keep):
                assert torch.allclose(repaired(some.clone()), folded, atol=1e-5)


def refuses(call: Callable[..., object], words: str, *given: Any, **options: Any) -> None:
    with pytest.raises(InputError, match=rf"(?s)\A[^\n]*{words}[^\n]*\Z"):
        call(*given, **options)


@pytest.mark.parametrize("kind", REFUSED)
def test_is_refused(kind: str) -> None:
    build, words = REFUSED[kind]
    model, images = build(), IMAGES.clone()
    tensors = isinstance(model, nn.Module) and kind not in ("on meta", "lazy", "quantised weights")
    before = snapshot(model) if tensors else []
    for call in (scan, repair):
        refuses(call, words, model, IMAGES, LABELS)
    assert not tensors or unchanged(model, before)
    assert torch.equal(IMAGES, images)


@pytest.mark.parametrize("kind", ONLY_SCANNED)
def test_is_scanned_and_left_unrepaired(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    build, words = ONLY_SCANNED[kind]
    model = build()
    with pytest.warns(InputWarning, match=f"scanned, but not to be repaired: .*{words}") as told:
        result = repair(model, IMAGES, LABELS)
    assert (result.scan.verdict, result.scan.targets) == ("backdoored", (TARGET,))
    assert result.scan.warnings == (str(told[0].message),)
    assert told[0].filename == __file__
    assert result.unrepaired
    assert result.model is model
    monkeypatch.setattr("shapprune.method.scan.gather", lambda *_, **__: pytest.fail("searched"))
    refuses(repair, words, model, IMAGES, LABELS, force_targets=[TARGET])


# What is examined all the same, with a warning that comes before the search


@pytest.mark.parametrize("kind", WARNS)
def test_is_warned_of_before_the_search(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    build, labels, words = WARNS[kind]
    with pytest.warns(InputWarning, match=words) as told:
        found = scan(build(), IMAGES, labels)
    assert tuple(str(one.message) for one in told) == found.warnings
    assert told[0].filename == __file__
    assert found.judgement.conclusive == (found.accuracy >= 0.5)

    def search(*_: object, **__: object) -> None:
        raise InterruptedError

    monkeypatch.setattr("shapprune.method.scan.gather", search)
    with pytest.warns(InputWarning, match=words), pytest.raises(InterruptedError):
        repair(build(), IMAGES, labels)


def test_rounding_is_no_way_to_hide() -> None:
    model = WARNS["rounds"][0]()
    with pytest.warns(InputWarning, match="the forward rounds"):
        result = repair(model, IMAGES, LABELS)
    assert (result.scan.verdict, result.scan.targets) == ("backdoored", (TARGET,))
    is_repaired(model, result)


def test_what_it_does_not_know_is_never_clean() -> None:
    """Guesses would do as well: no such images show that there is no backdoor."""
    clean = backdoored_net()
    clean.head.weight.data[TARGET, 16:20] = 0
    assert scan(clean, IMAGES, LABELS).verdict == "clean"
    with pytest.warns(InputWarning, match="only 0 of 16"):
        found = scan(clean, IMAGES, (LABELS + 1) % CLASSES)
    assert found.verdict == "suspicious"
    assert not found.judgement.conclusive


# Images, labels and callers of many kinds


def in_inference_mode() -> Tensor:
    with torch.inference_mode():
        return IMAGES.clone()


GIVEN: dict[str, Callable[[], Tensor]] = {
    "float64": lambda: IMAGES.double(),
    "float16": lambda: IMAGES.half(),
    "with a graph": lambda: IMAGES.clone().requires_grad_() * 1.0,
    "not contiguous": lambda: IMAGES.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
    "made in inference mode": in_inference_mode,
}


@pytest.mark.parametrize("kind", GIVEN)
def test_images_that_do(kind: str) -> None:
    images = GIVEN[kind]()
    before = images.detach().clone()
    found = scan(backdoored_net(), images, LABELS.int())
    assert (found.verdict, found.targets, found.accuracy) == ("backdoored", (TARGET,), 1.0)
    assert torch.equal(images.detach(), before)


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        ((IMAGES * 255).byte(), LABELS, "torch.uint8 .*: divide them by 255"),
        (IMAGES * 255, LABELS, r"in \[0, 1\], got 0.* to .*: divide them by 255"),
        ((IMAGES - 0.5) / 0.25, LABELS, "normalisation belongs into the model"),
        (IMAGES.permute(0, 2, 3, 1), LABELS, r"try images.permute\(0, 3, 1, 2\)"),
        (IMAGES[0], LABELS, r"image\[None\]"),
        (IMAGES.numpy(), LABELS, "got ndarray: use torch.from_numpy"),
        (IMAGES.index_fill(0, torch.tensor([1]), torch.nan), LABELS, "got NaN in 1 of 16"),
        (None, LABELS, "got NoneType"),
        (IMAGES, None, "labels must be an int64 tensor"),
        (IMAGES, LABELS.tolist(), "labels must be an int64 tensor"),
        (IMAGES, F.one_hot(LABELS), r"labels must be an int64 tensor \(n,\)"),
        (IMAGES, LABELS + 1, r"labels must be in 0 \.\. 7, got 1 to 8"),
    ],
)
def test_images_and_labels_that_do_not(images: Any, labels: Any, words: str) -> None:
    for call in (scan, repair):
        refuses(call, words, backdoored_net(), images, labels)


@pytest.fixture
def _float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    "surroundings",
    [
        torch.no_grad,
        torch.inference_mode,
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        lambda: torch.device("meta"),
        nullcontext,
    ],
    ids=["no_grad", "inference_mode", "autocast", "default device", "default type"],
)
def test_callers(surroundings: Callable[[], AbstractContextManager[Any]], request) -> None:
    if surroundings is nullcontext:
        request.getfixturevalue("_float64")
    model = backdoored_net().float()
    with surroundings():
        result = repair(model, IMAGES, LABELS)
    assert (result.scan.verdict, result.scan.targets) == ("backdoored", (TARGET,))
    assert not any(tensor.is_inference() for tensor in result.model.parameters())
    torch.set_default_dtype(torch.float32)
    is_repaired(model, result)
