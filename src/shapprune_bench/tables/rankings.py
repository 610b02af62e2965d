"""What each neuron is worth to a backdoor, by estimators and by other papers' measures (Sec. 4.4).

The estimators play the ASR game on the defender's images under a trigger that was inverted for the
target. Unlike a defence they are told which class that is: what is compared is the ranking alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from shapprune.baselines.anp import neuron_masks
from shapprune.baselines.clp import channel_sensitivity
from shapprune.baselines.fine_pruning import dormant_first
from shapprune.method.attribution import estimate_shapley, stamped_images
from shapprune.method.inversion import invert_triggers
from shapprune.method.triggers import Stamp
from shapprune.model.game import NeuronGame
from shapprune.model.neurons import Neurons, find_neurons
from shapprune.shapley import ShapleyValues, algorithm1, multilinear, permutation, tmab
from shapprune.utils.progress import Progress
from shapprune.utils.rng import own_random_state

ITERATIONS = 50  # average iterations of Algorithm 1, the paper's; others spend no more
TRUTH = "monte-carlo"
_UNIFORM = 1e9  # average iterations before ε-greedy sets in


@dataclass(frozen=True, eq=False)
class Setup:
    """What all rankings are given.

    Attributes:
        model, neurons: the network and its players.
        images, labels: the defender's, (n, C, H, W) in [0, 1] and int64 (n,).
        target, trigger: a class and the trigger inverted for it.
        truth: average iterations of the long run that stands for the truth.
        seed: of the ranking.
    """

    model: nn.Module
    neurons: Neurons
    images: Tensor
    labels: Tensor
    target: int
    trigger: Stamp
    truth: int
    seed: int

    @property
    def generator(self) -> torch.Generator:
        """A fresh one at each call, so that every ranking draws the same."""
        return torch.Generator().manual_seed(self.seed)

    def game(self) -> NeuronGame:
        """ASR under the inverted trigger."""
        stamped, answers = stamped_images(self.images, self.labels, [(self.target, self.trigger)])
        return NeuronGame(self.model, self.neurons, stamped, answers)


Ranking: TypeAlias = Callable[[Setup], Tensor]  # what each neuron is worth, float (n,)


def _game(play: Callable[[NeuronGame, Setup], ShapleyValues]) -> Ranking:
    return lambda setup: play(setup.game(), setup).values


def _default(setup: Setup) -> Tensor:
    """What `shapprune repair` prunes by: gradients near the whole, for the ASR less the ACC."""
    values = estimate_shapley(
        setup.model,
        setup.images,
        setup.labels,
        neurons=setup.neurons,
        triggers=[(setup.target, setup.trigger)],
        generator=setup.generator,
    )
    return values.scores[0]


def _dormant(setup: Setup) -> Tensor:
    """Fine-Pruning's: channels of the last convolution, the least active on clean images first."""
    order = dormant_first(setup.model, setup.images, neurons=setup.neurons)
    values = torch.zeros(len(setup.neurons))
    values[order] = torch.arange(len(order), 0, -1).float()
    return values


def _sensitive(setup: Setup) -> Tensor:
    """CLP's: by how many σ of its layer a channel's Lipschitz constant is above the mean."""
    found = {
        layer.norm: (layer.constants - layer.constants.mean()) / layer.constants.std()
        for layer in channel_sensitivity(setup.model, setup.images)
    }
    least = torch.stack([values.min() for values in found.values()]).min()
    parts = [found.get(layer.name, least.expand(layer.size)) for layer in setup.neurons.layers]
    return torch.cat(parts).nan_to_num(0.0)


def _masked(setup: Setup) -> Tensor:
    """ANP's: how far the learned mask lets go of a neuron."""
    layers = setup.neurons.layers
    own = Neurons(tuple(layer for layer in layers if layer.projection is None))
    masks = neuron_masks(setup.model, setup.images, setup.labels, neurons=own, seed=setup.seed)
    of = dict(zip((layer.name for layer in own.layers), own.split(1 - masks), strict=True))
    return torch.cat([of.get(layer.name, torch.zeros(layer.size).to(masks)) for layer in layers])


def _shapiq(setup: Setup) -> Tensor:
    """shapiq's, of as many evaluations as Algorithm 1."""
    from shapiq import PermutationSamplingSV  # neither is needed but for these two

    game = setup.game()
    sampling = PermutationSamplingSV(n=game.n, random_state=setup.seed)
    found = sampling.approximate(ITERATIONS * game.n, game)
    return torch.tensor([float(found[(player,)]) for player in range(game.n)])


def _captum(setup: Setup) -> Tensor:
    """Captum's, of as many evaluations as Algorithm 1."""
    from captum.attr import ShapleyValueSampling

    game = setup.game()
    walks = max(1, ITERATIONS * game.n // (game.n + 1))
    with own_random_state(setup.seed, torch.device("cpu")), torch.no_grad():
        values = ShapleyValueSampling(game).attribute(torch.ones(1, game.n), n_samples=walks)
    first: Tensor = values[0].float()
    return first


_CONTEXTS = 4  # of each refined neuron


def _refined(game: NeuronGame, setup: Setup) -> ShapleyValues:
    """The passes of "multilinear 1/50", of which the marginals of the best take their share."""
    best = sizes(game.n)[1]
    marginals = _CONTEXTS * (1 + best)
    return multilinear(
        game,
        budget=marginals + max(16, (game.n - marginals) * game.m // 3),
        refine=best,
        contexts=_CONTEXTS,
        generator=setup.generator,
    )


def _gradients(game: NeuronGame, share: int) -> int:
    """For one in so many of Algorithm 1's passes; a gradient is three passes of one image."""
    return max(16, ITERATIONS * game.n * game.m // share // 3)


# Of our own estimators. On large networks they are dear, and no table of the paper has them.
_VARIANTS: Mapping[str, Callable[[NeuronGame, Setup], ShapleyValues]] = {
    "algorithm1 bisected": lambda game, setup: algorithm1(
        game,
        average_iterations=ITERATIONS,
        top=sizes(game.n)[0],
        bisect=True,
        generator=setup.generator,
    ),
    "multilinear 1/500": lambda game, setup: multilinear(
        game, budget=_gradients(game, 500), generator=setup.generator
    ),
    "multilinear antithetic 1/50": lambda game, setup: multilinear(
        game, budget=_gradients(game, 50), antithetic=True, generator=setup.generator
    ),
    "multilinear fractional 1/50": lambda game, setup: multilinear(
        game, budget=_gradients(game, 50), fractional=True, generator=setup.generator
    ),
    "multilinear refined 1/50": _refined,
}
FURTHER = (*_VARIANTS, "shapiq permutation", "captum sampling")

RANKINGS: Mapping[str, Ranking] = {
    # The paper's truth: every permutation uniform, for a long time.
    TRUTH: _game(
        lambda game, setup: algorithm1(
            game, average_iterations=setup.truth, explore=_UNIFORM, generator=setup.generator
        )
    ),
    "algorithm1": _game(
        lambda game, setup: algorithm1(
            game, average_iterations=ITERATIONS, top=sizes(game.n)[0], generator=setup.generator
        )
    ),
    "tmab": _game(
        lambda game, setup: tmab(
            game, budget=ITERATIONS * game.n, top=sizes(game.n)[0], generator=setup.generator
        )
    ),
    "permutation": _game(
        lambda game, setup: permutation(game, budget=ITERATIONS * game.n, generator=setup.generator)
    ),
    "multilinear 1/50": _game(
        lambda game, setup: multilinear(
            game, budget=_gradients(game, 50), generator=setup.generator
        )
    ),
    **{name: _game(play) for name, play in _VARIANTS.items()},
    "shapiq permutation": _shapiq,
    "captum sampling": _captum,
    "ours": _default,
    "fine-pruning": _dormant,
    "clp": _sensitive,
    "anp": _masked,
}


def sizes(n: int) -> tuple[int, int]:
    """How many of an estimator's best are looked for among how many of the true best.

    The paper's 50 and 70, or the same share of a network of fewer than 448 neurons.

    >>> sizes(2688), sizes(208)
    ((50, 70), (23, 32))
    """
    share = min(1.0, n / 448)
    return round(50 * share), round(70 * share)


def found(values: Tensor, true: Tensor) -> int:
    """How many of the best are among the true best, see `sizes`."""
    top, among = sizes(len(true))
    best = set(values.topk(top).indices.tolist())
    return len(best & set(true.topk(among).indices.tolist()))


def set_up(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    target: int,
    truth: int,
    seed: int,
    progress: Progress | None = None,
) -> Setup:
    """The same for every ranking: the trigger is inverted with a seed of its own.

    Args:
        model: left as it was.
        images, labels, target, truth, seed: see `Setup`.
        progress: called with a stage's name and the share of it done.
    """
    report = (lambda share: progress("invert the trigger", share)) if progress else None
    (inverted,) = invert_triggers(
        model,
        images,
        labels,
        targets=[target],
        per_step=32,
        gate=0.97,
        give_up=False,
        generator=torch.Generator().manual_seed(0),
        progress=report,
    ).triggers
    neurons = find_neurons(model, images)
    return Setup(model, neurons, images, labels, target, inverted.stamp, truth, seed)
