"""Other papers' detections: by hand, and on a small model."""

import pytest

from bench_files import options, tiny_manifest
from shapprune.errors import InputError
from shapprune_bench.populations.manifest import read_manifest
from shapprune_bench.studies.rivals import LARGEST_SCORE, Rival, by_norms, mm_bd, report, study

ALIKE = [1.0, 1.2, 0.9, 1.1, 1.05, 0.95, 1.15, 0.85]


def test_mm_bd_flags_what_no_gamma_distribution_of_the_others_reaches():
    assert not mm_bd(ALIKE).flagged
    found = mm_bd([*ALIKE, 5.0])
    assert (found.flagged, found.first) == (True, 8)
    assert mm_bd([*ALIKE, 2.0]).score < found.score <= LARGEST_SCORE


def test_a_small_norm_by_both_deviations():
    norms = [2.0, 30.0, 32.0, 34.0, 36.0, 90.0, 95.0, 99.0]
    small, both = by_norms(norms, "mad-small"), by_norms(norms, "mad")
    assert (small.flagged, small.first) == (True, 0)
    assert small.score > 2 > both.score  # large norms hide it from MAD (Sec. 3.3)
    assert by_norms([1.0, 5.0, 5.0, 5.0, 5.0], "mad").score == LARGEST_SCORE


@pytest.fixture
def manifest(tmp_path):
    return tiny_manifest(tmp_path)


def test_each_search_is_made_and_told(manifest):
    found = study(options("rival-detectors", results=manifest, methods=["mm-bd", "paper"]))
    assert len({task.name for task in found.tasks}) == 4
    done = [(task, found.work(task)) for task in found.tasks]
    told = [set(result["told"]) for _, result in done]
    assert told[0] == {"MM-BD"}
    assert told[2] == {"MAD-small (the paper)", "MAD (the paper's patches)"}
    page = found.pages(done)["report.md"].decode()
    assert "| MM-BD | 2 |" in page
    assert "| badnets | " in page


def test_the_page_counts(manifest):
    clean, poisoned = read_manifest(manifest)
    told = [
        (clean, {"score": 1.0, "flagged": True, "first": 1}),
        (poisoned, {"score": 3.0, "flagged": True, "first": 0}),
        (poisoned, {"score": 0.5, "flagged": False, "first": 2}),
    ]
    done = [(Rival(specimen, "paper"), {"told": {"X": one}}) for specimen, one in told]
    line = next(
        line for line in report(done)["report.md"].decode().splitlines() if line.startswith("| X")
    )
    assert line.startswith("| X | 3 | 0.500 | 1 of 1 (")
    assert line.count("1 of 2 (") == 2


def test_no_such_method(manifest):
    with pytest.raises(InputError, match=r"no method 'mmbd': did you mean 'mm-bd'"):
        study(options("rival-detectors", results=manifest, methods=["mmbd"]))
