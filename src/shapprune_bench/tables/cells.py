"""A cell: one model, one thing measured on it, one seed; its result is one file."""

from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias

from shapprune.method.settings import REPAIR_RULES, RULES
from shapprune.running.runner import file_name
from shapprune_bench.tables.defences import OF_OURS
from shapprune_bench.tables.recipes import Recipe

# "model" trains it and measures ACC and ASR; "defend" measures a defended copy, and the network
# while the defence's order of neurons is pruned (Fig. 3, 4, 7 to 9); "time" is the same alone on
# the machine, for the seconds; "scan" inverts the triggers of all classes (Fig. 10, 11); "rank"
# tells what each neuron is worth (Sec. 4.4); "retune" measures a defended copy, and what it becomes
# by ordinary fine-tuning.
Kind: TypeAlias = Literal["model", "defend", "time", "scan", "rank", "retune"]


@dataclass(frozen=True)
class Cell:
    """What is to be measured. Two cells are the same if everything in them is: if their names are.

    Attributes:
        kind: what is done.
        recipe: of the model.
        method: the defence or ranking, where the kind has several.
        per_class: clean images a class that the defender gets; 0 for none: all methods get the
            images that are recovered from the model.
        seed: of the draw of these images and of the method.
    """

    kind: Kind
    recipe: Recipe
    method: str = ""
    per_class: int = 1
    seed: int = 0

    @property
    def name(self) -> str:
        """The name of its file: readable, with a hash of everything, the recipe included."""
        words = [self.kind, self.recipe.profile, self.recipe.name, self.method]
        if self.kind != "model":
            words += [f"{self.per_class}a", str(self.seed)]
        return file_name(words, self.facts())

    def facts(self) -> dict[str, object]:
        """As JSON has it; of our defence with its rules: results of others are not taken for it."""
        ours = self.method in OF_OURS and self.kind != "rank"
        rules = {"rules": f"{RULES}/{REPAIR_RULES}"} if ours else {}
        return {**asdict(self), "recipe": self.recipe.facts(), **rules}
