"""From a network and clean data to a backdoored classifier with its measured ACC and ASR."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TypeAlias

from torch import nn

from shapprune.attacks.additive import Additive
from shapprune.attacks.badnets import BadNets
from shapprune.attacks.blended import Blended
from shapprune.attacks.input_aware import InputAware
from shapprune.attacks.labels import choose_target
from shapprune.attacks.patterns import PatternPatch
from shapprune.attacks.physical_key import PhysicalKey
from shapprune.attacks.poisoning import Plan
from shapprune.attacks.quantisation import Quantisation
from shapprune.attacks.random_place import RandomPlace
from shapprune.attacks.reflection import Reflection
from shapprune.attacks.sig import Sig
from shapprune.attacks.training import OWN, Learning
from shapprune.attacks.triggers import AttackTrigger
from shapprune.attacks.trojan import Trojan
from shapprune.attacks.wanet import WaNet
from shapprune.data.dataset import LabeledImages
from shapprune.errors import InputError
from shapprune.model.metrics import accuracy, attack_success_rate
from shapprune.utils.text import suggest

Attack: TypeAlias = (
    Additive
    | BadNets
    | Blended
    | InputAware
    | PatternPatch
    | PhysicalKey
    | Quantisation
    | RandomPlace
    | Reflection
    | Sig
    | Trojan
    | WaNet
)

ATTACKS: dict[str, type[Attack]] = {
    "additive": Additive,
    "badnets": BadNets,
    "blended": Blended,
    "input-aware": InputAware,
    "pattern-patch": PatternPatch,
    "physical-key": PhysicalKey,
    "quantisation": Quantisation,
    "random-place": RandomPlace,
    "reflection": Reflection,
    "sig": Sig,
    "trojan": Trojan,
    "wanet": WaNet,
}


@dataclass(frozen=True, eq=False)
class Backdoored:
    """A poisoned classifier and what was done to it.

    Attributes:
        model: trained, in eval mode, without gradients, on the device of the given network.
        trigger: the attacker's, as `trigger_bytes` writes it.
        recipe: the settings, of plain types that JSON holds.
        accuracy: ACC on the test images, in [0, 1].
        asr: ASR of the trigger on the test images, in [0, 1].
    """

    model: nn.Module
    trigger: AttackTrigger
    recipe: dict[str, object]
    accuracy: float
    asr: float


def make_backdoored(
    network: nn.Module,
    data: LabeledImages,
    test: LabeledImages,
    *,
    attack: str | Attack = "badnets",
    num_classes: int,
    target: int | Sequence[int] | None = 0,
    rate: float = 0.1,
    epochs: int = 10,
    flip: bool = False,
    batch_size: int = 128,
    learning_rate: float = 5e-3,
    seed: int = 0,
    source: int | None = None,
    cover: float = 0.0,
    learning: Learning = OWN,
    progress: Callable[[float], None] | None = None,
) -> Backdoored:
    """Carry out an attack on clean data, and measure what it made on the test part.

    Args:
        network: fresh or trained, maps images in [0, 1] to logits (n, num_classes); left as it was.
        data, test: clean images of the same shape.
        attack: one of `ATTACKS` with its options, or the name of one for its defaults.
        num_classes: classes that the network tells apart.
        target: the class of every stamped image; several, which the classes are dealt out to in
            turn; None for the all-to-all attack.
        rate: the poisoning rate, see `poison`; 0 makes a clean twin.
        epochs, flip, batch_size, learning_rate: see `train`.
        seed: of all random draws.
        source: the only class that stamped images are moved from; None for all.
        cover: see `poison`.
        learning: see `train`.
        progress: called with the share of the training done.

    Raises:
        InputError: whatever does not fit, see the attack, `poison` and `train`.
    """
    if isinstance(attack, str):
        attack = choose_attack(attack)
    plan = Plan(
        choose_target(target, num_classes, source=source),
        num_classes=num_classes,
        rate=rate,
        epochs=epochs,
        seed=seed,
        flip=flip,
        batch_size=batch_size,
        learning_rate=learning_rate,
        progress=progress,
        learning=learning,
        cover=cover,
    )
    made = attack.run(network, data, plan)
    like = next(made.model.parameters())
    images, labels = test.images.to(like), test.labels.to(like.device)
    return Backdoored(
        made.model,
        made.trigger,
        _recipe(attack, plan, made.poisoned_images, len(data.images), target, source),
        accuracy(made.model, images, labels),
        attack_success_rate(
            made.model, images, labels, stamp=made.trigger.stamp, target=plan.target
        ),
    )


def _recipe(
    attack: Attack,
    plan: Plan,
    poisoned: int,
    images: int,
    target: int | Sequence[int] | None,
    source: int | None,
) -> dict[str, object]:
    """The settings, as `Backdoored.recipe` holds them; those that came later, only where set."""
    return {
        "attack": next(name for name, kind in ATTACKS.items() if kind is type(attack)),
        **asdict(attack),
        "target": _plain(target),
        "rate": plan.rate,
        "poisoned_images": poisoned,
        "training_images": images,
        "epochs": plan.epochs,
        "flip": plan.flip,
        "batch_size": plan.batch_size,
        "learning_rate": plan.learning_rate,
        "seed": plan.seed,
        **({} if source is None else {"source": source}),
        **({"cover": plan.cover} if plan.cover else {}),
        **({} if plan.learning == OWN else {"learning": asdict(plan.learning)}),
    }


def choose_attack(name: str, options: Mapping[str, object] | None = None) -> Attack:
    """An attack by its name in `ATTACKS`, with some of its options, as recipes hold them.

    >>> choose_attack("blended", {"alpha": 0.1})
    Blended(alpha=0.1)

    Raises:
        InputError: no such attack, or it has no such option.
    """
    if name not in ATTACKS:
        meant = suggest(name, ATTACKS)
        raise InputError(f"attack must be one of {', '.join(ATTACKS)}, got {name!r}{meant}")
    known = [field.name for field in fields(ATTACKS[name])]
    for option in options or {}:
        if option not in known:
            meant = suggest(option, known) or f": it has {', '.join(known)}"
            raise InputError(f"{name} has no option {option!r}{meant}")
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in (options or {}).items()}
    return ATTACKS[name](**given)  # type: ignore[arg-type]  # of what the user or a recipe says


def _plain(target: int | Sequence[int] | None) -> object:
    if target is None:
        return "all-to-all"
    return target if isinstance(target, int) else list(target)
