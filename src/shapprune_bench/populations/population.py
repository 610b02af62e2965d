"""Two populations of small clean and poisoned networks of many kinds.

Rules and bounds of the verdict are chosen on the development population and on no other models;
the test population shows what they are worth on models that they were not chosen on. A family is a
data set, a network and a way of learning; its members differ in seed and attack, and are siblings.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, zip_longest

from shapprune_bench.populations.development import cifar, faces, gtsrb, mnist
from shapprune_bench.populations.family import Family
from shapprune_bench.populations.held_out import families as held_out
from shapprune_bench.tables.recipes import Recipe

# The kinds of data in turn, and what is most common first.
_ORDER = (
    "mnist-lenet",
    "cifar-vgg",
    "gtsrb-vgg",
    "faces-vgg",
    "mnist-lenet-max",
    "cifar-elu",
    "gtsrb-pooled",
    "mnist-digits",
    "cifar-resnet20-tuned",
    "faces-pooled",
    "mnist-vgg",
    "cifar-wrn",
    "gtsrb-lenet",
    "mnist-pooled",
    "cifar-lenet",
    "faces-elu",
    "mnist-lenet-tuned",
    "cifar-pooled",
    "gtsrb-wrn",
    "gtsrb-vgg-tuned",
    "mnist-lenet-weak",
    "mnist-vgg-plain",
    "cifar-elu-plain",
    "cifar-adversarial",
    "cifar-resnet20-adversarial",
    "mnist-adversarial",
    "gtsrb-adversarial",
)
_BY_NAME = {
    family.name: family
    for families in (mnist.FAMILIES, cifar.FAMILIES, gtsrb.FAMILIES, faces.FAMILIES)
    for family in families
}
FAMILIES: tuple[Family, ...] = tuple(_BY_NAME[name] for name in _ORDER)


def _in_pairs(families: Sequence[Family]) -> Iterator[Recipe]:
    """Two members of each family in turn, so that the first models are of all kinds."""
    left = [family.members() for family in families]
    pairs = [list(zip_longest(*[iter(members)] * 2)) for members in left]
    for row in zip_longest(*pairs, fillvalue=()):
        yield from (member for member in chain.from_iterable(row) if member)


POPULATION: tuple[Recipe, ...] = tuple(_in_pairs(FAMILIES))
TEST: tuple[Recipe, ...] = tuple(_in_pairs(held_out.FAMILIES))
POPULATIONS: Mapping[str, tuple[Recipe, ...]] = {"dev": POPULATION, held_out.PROFILE: TEST}
