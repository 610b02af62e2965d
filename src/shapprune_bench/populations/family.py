"""Families of models: one data set, one network and one way of learning each, and many attacks."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from shapprune_bench.tables.recipes import Recipe


@dataclass(frozen=True)
class Family:
    """Siblings: models of one data set, network and way of learning.

    Attributes:
        name: first word of its members' names.
        recipe: of a clean member; its name does not matter.
        clean: how many clean members, of seeds from `first_seed` on.
        attacks: of its poisoned members by their names: what differs from the recipe.
        pretrained: its members are the family's first clean model, tuned: all share that base.
        tuning: of such members: what differs from the recipe.
        first_seed: of the clean ones; those of poisoned ones are a hundred above.
        first_target: of the first attack; the others follow from it where they name none.
    """

    name: str
    recipe: Recipe
    clean: int
    attacks: Mapping[str, Mapping[str, Any]]
    pretrained: bool = False
    tuning: Mapping[str, Any] = field(default_factory=dict)
    first_target: int = 0
    first_seed: int = 0

    def members(self) -> Iterator[Recipe]:
        """The base first, if there is one; then clean and poisoned ones in turn."""
        first = self.first_seed
        base = replace(self.recipe, name=f"{self.name}-clean-0", seed=first, rate=0.0)
        start = base
        if self.pretrained:
            yield base
            start = replace(base, base=base, **self.tuning)
        clean = [
            replace(start, name=f"{self.name}-clean-{number}", seed=first + number)
            for number in range(int(self.pretrained), self.clean)
        ]
        poisoned = [
            replace(
                start,
                name=f"{self.name}-{name}",
                seed=first + 100 + number,
                **{"target": (self.first_target + 3 * number) % start.num_classes, **changes},
            )
            for number, (name, changes) in enumerate(self.attacks.items())
        ]
        both = (poisoned, clean) if self.pretrained else (clean, poisoned)
        for pair in zip_longest(*both):
            yield from (member for member in pair if member)


def group_of(recipe: Recipe) -> str:
    """Models of one data set, network and way of learning are siblings, tuned ones their base's.

    More epochs or fewer images make no other group.
    """
    if recipe.base:
        return group_of(recipe.base)
    kind = recipe.learning
    words = [
        *(kind.optimizer, kind.schedule),
        *(f"{name}{getattr(kind, name):g}" for name in ("weight_decay", "label_smoothing")),
        *(f"{name}{getattr(kind, name):g}" for name in ("shift", "colour", "adversarial")),
    ]
    network = recipe.network.partition(":")[2]
    return f"{Path(recipe.data).stem}/{network}/{'-'.join(words)}"
