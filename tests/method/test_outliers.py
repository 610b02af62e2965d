"""MAD and MAD-small on norms whose indices can be worked out by hand."""

from dataclasses import FrozenInstanceError
from math import exp, log

import pytest

from shapprune.errors import InputError
from shapprune.method.outliers import combine, detect, fitting_method

SIGMA = 1.482602218505602  # 1 / Φ⁻¹(3/4), Eq. 6

ODD = [1, 2, 3, 4, 100]  # median 3; deviations 2 1 0 1 97; those below it 2 1
EVEN = [1, 8, 9, 10, 12, 14, 15, 16]  # median 11; deviations 10 3 2 1 1 3 4 5; below it 10 3 2 1


@pytest.mark.parametrize(
    ("norms", "method", "mad"),
    [(ODD, "mad", 1), (ODD, "mad-small", 1.5), (EVEN, "mad", 3), (EVEN, "mad-small", 2.5)],
)
@pytest.mark.parametrize("logarithm", [False, True])
def test_indices_by_hand(norms, method, mad, logarithm):
    """With ``logarithm``, of norms whose logarithms are those of the hand."""
    given = [exp(n / 10) for n in norms] if logarithm else norms
    found = detect(given, method=method, logarithm=logarithm)
    middle = 3 if norms is ODD else 11
    assert found.indices == pytest.approx([max(0, middle - n) / (SIGMA * mad) for n in norms])
    assert found.anomaly_index == pytest.approx((middle - 1) / (SIGMA * mad))
    assert found.norms == tuple(given)


@pytest.mark.parametrize("method", ["mad", "mad-small"])
def test_the_target_stands_out(method):
    assert detect(EVEN, method=method, logarithm=False).targets == (0,)


@pytest.mark.parametrize("method", ["mad", "mad-small"])
@pytest.mark.parametrize("logarithm", [False, True])
def test_only_small_norms_are_outliers(method, logarithm):
    found = detect([40, 42, 38, 41, 39, 40.5, 10000], method=method, logarithm=logarithm)
    assert found.targets == ()
    assert found.indices[-1] == 0


def test_large_norms_hide_the_target_from_mad_and_not_from_mad_small():
    """Half of the classes do not converge: Sec. 3.3."""
    norms = [20, 78, 79, 80, 81, 82, 300, 350, 400, 450, 500]
    assert detect(norms, method="mad", logarithm=False).targets == ()
    assert detect(norms, method="mad-small", logarithm=False).targets == (0,)


@pytest.mark.parametrize("method", ["mad", "mad-small"])
def test_several_targets_the_most_anomalous_first(method):
    norms = [50, 52, 5, 49, 51, 2, 50.5, 48, 53, 47, 49.5, 51.5]
    assert detect(norms, method=method).targets == (5, 2)


def test_order_and_position_do_not_matter():
    forward, backward = detect(EVEN), detect(EVEN[::-1])
    assert forward.indices == pytest.approx(backward.indices[::-1])
    assert backward.targets == tuple(7 - target for target in forward.targets)


def test_logarithms_forget_the_unit():
    assert detect(EVEN).indices == pytest.approx(detect([1000 * n for n in EVEN]).indices)


@pytest.mark.parametrize("method", ["mad", "mad-small"])
def test_equal_norms(method):
    found = detect([7.0] * 10, method=method)
    assert found.targets == ()
    assert found.indices == (0.0,) * 10


def test_one_below_equal_norms():
    found = detect([7.0] * 9 + [1.0], method="mad")
    assert found.targets == (9,)
    assert found.indices[9] == float("inf")


def test_bound():
    """Eq. 7; the paper's bound is 2 (Sec. 6.4)."""
    assert detect(EVEN).bound == pytest.approx(2, abs=1e-3)
    assert detect(EVEN, confidence=0.95).bound == pytest.approx(1.959964, abs=1e-5)
    index = 10 / (SIGMA * 2.5)  # 2.698, between the bounds of the two confidences
    assert detect(EVEN, logarithm=False).anomaly_index == pytest.approx(index)
    assert detect(EVEN, logarithm=False, confidence=0.992).targets == (0,)
    assert detect(EVEN, logarithm=False, confidence=0.994).targets == ()


@pytest.mark.parametrize("method", ["mad", "mad-small"])
def test_smaller_norms_are_never_less_suspect(method):
    indices = [
        detect([target, *EVEN[1:]], method=method).indices[0] for target in (8, 4, 2, 1, 0.1)
    ]
    assert indices == sorted(indices)


@pytest.mark.parametrize(
    ("norms", "options", "message"),
    [
        ([], {}, "three classes"),
        ([1, 2], {}, "three classes"),
        ([1, 2, 0], {}, "positive"),
        ([1, 2, -3], {}, "positive"),
        ([1, 2, float("nan")], {}, "positive"),
        ([1, 2, float("inf")], {}, "positive"),
        (EVEN, {"confidence": 0}, "confidence"),
        (EVEN, {"confidence": 1}, "confidence"),
        (EVEN, {"confidence": -0.1}, "confidence"),
    ],
)
def test_errors(norms, options, message):
    with pytest.raises(InputError, match=message):
        detect(norms, **options)


@pytest.mark.parametrize("classes", [3, 4, 5])
def test_few_classes(classes):
    assert detect([2, 41, 40, 42, 39][:classes], method="mad").targets == (0,)


def test_unknown_method():
    with pytest.raises(InputError, match="method"):
        detect(EVEN, method="MAD")


def test_hand_values_of_logarithms():
    found = detect([1, 10, 100, 1000, 10000])
    assert found.indices == pytest.approx(
        [2 * log(10) / (1.5 * log(10) * SIGMA), 1 / (1.5 * SIGMA), 0, 0, 0]
    )


def test_so_many_times_smaller_is_small_enough():
    assert detect([5, 10, 10.5, 9.5, 11, 9, 10], factor=2).targets == (0,)


@pytest.mark.parametrize(
    ("norms", "message"),
    [
        ([], "got none"),
        ([[]], "got 0"),
        ([[1, 2], [1]], "got 2, 1"),
        ([[1], [1, 2], [1, 2, 3]], "got 1, 2, 3"),
        ([[1, 2], [0, 1]], "positive"),
    ],
)
def test_kinds_that_do_not_fit_together(norms, message):
    with pytest.raises(InputError, match=message):
        combine(norms)


def test_what_is_detected_is_not_written_over():
    with pytest.raises(FrozenInstanceError):
        detect(EVEN).targets = ()  # type: ignore[misc]


def test_an_outlier_is_smaller_by_a_factor():
    norms = [4.0, 9.9, 10, 10.1, 10.2, 10.3, 10.4, 10.5]
    assert detect(norms, factor=2.5).targets == (0,)
    assert detect(norms, factor=2.6).targets == ()
    assert detect(norms, factor=2.6).indices == detect(norms).indices


def test_a_norm_far_below_the_median_is_an_outlier_by_itself():
    """Classes that are small by nature widen σ: 0.093 of the median has an index below 1.5."""
    norms = [0.93, 2.9, 4.0, 5.1, 9.0, 11.0, 12.0, 13.0, 14.0, 15.0]
    assert detect(norms, confidence=0.9, factor=1.75).anomaly_index < 2.5
    assert detect(norms, confidence=0.99, factor=1.75).targets == ()
    assert detect(norms, confidence=0.99, factor=1.75, alone=4).targets == (0,)
    assert detect(norms, confidence=0.99, factor=1.75, alone=10.7).targets == (0,)
    assert detect(norms, confidence=0.99, factor=1.75, alone=10.8).targets == ()


def test_kinds_together():
    """What is small by one measure only stands out less than what is small by both."""
    patches = [1, 1.5, 8, 9, 10, 12, 14, 15, 16]
    perturbations = [2, 6, 5, 6, 7, 5.5, 6.5, 7.5, 8]
    together = combine([patches, perturbations])
    assert together[0] == pytest.approx((0.1 * 2 / 6) ** 0.5)
    alone, both = detect(patches).indices, detect(together).indices
    assert both[0] / both[1] > 1.5 > alone[0] / alone[1]
    assert combine([patches]) == pytest.approx([norm / 10 for norm in patches])


def test_five_norms_are_too_few_for_those_below_the_median():
    assert [fitting_method(classes) for classes in (4, 5, 6)] == ["mad", "mad", "mad-small"]


def test_a_norm_that_is_little_smaller_is_an_outlier_where_the_others_agree():
    """1.6 times smaller, and far from norms that hardly differ: no factor is asked for."""
    close = [1.0, 1.6, 1.61, 1.62, 1.63, 1.64, 1.65, 1.66]
    assert detect(close).targets == (0,)
    assert detect(close, factor=2.0).targets == ()
