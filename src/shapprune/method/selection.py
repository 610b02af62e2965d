"""One rule for all that a repair could give back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from shapprune.method.evaluation import Proxies
from shapprune.method.settings import SELECTION, SelectionSettings

Way: TypeAlias = Literal["pruned", "tuned"]


@dataclass(frozen=True)
class Candidate:
    """A network that a repair measured, and what is known of it; only tuned ones are given back.

    Attributes:
        way: "pruned" only; or "tuned", with neurons pruned or without.
        score: which of the scores neurons were pruned by.
        pruned: the neurons, most harmful first.
        proxies: what the evaluator says of it.
    """

    way: Way
    score: int
    pruned: tuple[int, ...]
    proxies: Proxies


def is_sufficient(proxies: Proxies, settings: SelectionSettings = SELECTION) -> bool:
    """Whether the ASR is low enough, at the upper end of its interval; of several maps, each."""
    return proxies.most_left.high <= settings.asr


def choose(
    candidates: Sequence[Candidate],
    *,
    original: Proxies,
    settings: SelectionSettings = SELECTION,
) -> tuple[int, bool]:
    """Of the candidates whose ASR is low enough, the one that loses least: answers that the
    original had right, and ASR that is left, at the upper end of its interval.

    If none's is low enough, the one with the least ASR, at the upper end; where these are level,
    the one that loses least; then the earlier one. What keeps too few answers is no repair, and is
    only taken where nothing else is there. Where the original's own ASR is low enough, of any map,
    its triggers do not work on it and show nothing: then nothing is sufficient.

    Args:
        candidates: at least one.
        original: of the network before the repair.
        settings: what is low enough, and what too few.

    Returns:
        The place of the candidate, and whether its ASR is low enough.
    """
    every = range(len(candidates))
    useful = [i for i in every if candidates[i].proxies.kept.value >= settings.least_kept]
    places = useful or every
    enough = [i for i in places if is_sufficient(candidates[i].proxies, settings)]
    if enough:
        best = min(enough, key=lambda i: _lost(candidates[i].proxies))
        return best, all(share.high > settings.asr for share in original.of_maps)
    return min(places, key=lambda i: _left(candidates[i].proxies)), False


def _left(proxies: Proxies) -> tuple[float, float]:
    """ASR at the upper end; where intervals say nothing, answers lost and the ASR itself."""
    return proxies.asr.high, 1 - proxies.kept.value + proxies.asr.value


def _lost(proxies: Proxies) -> float:
    """Answers and ASR in one: of networks that differ by 2 % in the answers that ten images keep,
    the one with a rest of ASR has as a rule more of it than the images show."""
    return 1 - proxies.kept.value + proxies.asr.high
