"""What a repair tunes, by hand."""

import pytest

from shapprune.method.case import check_case
from shapprune.method.evaluation import Proxies, Share
from shapprune.method.repair import tuning_starts
from shapprune.method.selection import Candidate
from shapprune.method.settings import SELECTION
from toys import backdoored_net, toy_images

CASE = check_case(backdoored_net(), *toy_images())


def candidate(removed: int, kept: float, asr: float) -> Candidate:
    share = Share(kept, kept, kept)
    proxies = Proxies(share, share, share, Share(asr, asr, asr), ())
    return Candidate("pruned", 0, tuple(range(removed)), proxies)


def test_tuned_is_the_best_that_keeps_enough():
    points = [candidate(0, 1, 1), candidate(1, 0.95, 0.4), candidate(2, 0.91, 0.2)]
    points.append(candidate(3, 0.85, 0.0))
    ((pruned, share),) = tuning_starts(points, None)
    assert len(pruned.pruned) == 2
    least, most = SELECTION.least_stamped, SELECTION.most_stamped
    assert share == pytest.approx(least + 0.2 * (most - least))


def test_the_original_is_tuned_twice_where_pruning_costs_too_much():
    starts = tuning_starts([candidate(0, 1, 1), candidate(1, 0.5, 0)], None)
    assert [len(start.pruned) for start, _ in starts] == [0, 0]
    assert [share for _, share in starts] == [SELECTION.least_stamped, SELECTION.most_stamped]


def test_of_a_number_that_was_asked_for_one_is_tuned():
    points = [candidate(0, 1, 1), candidate(2, 0.5, 0.5), candidate(2, 0.5, 0.1)]
    ((only, _),) = tuning_starts([point for point in points if len(point.pruned) == 2], 2)
    assert only.proxies.asr.value == 0.1
