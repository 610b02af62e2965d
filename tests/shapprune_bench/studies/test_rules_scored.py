"""Choices among candidates that are measured: by hand."""

from typing import Any

import pytest

from shapprune_bench.studies.rules_scored import CHOICES, costs, page, taken


def share(value: float) -> dict[str, float]:
    return {"value": value, "low": value, "high": value}


def proxies(kept: float, asr: float) -> dict[str, Any]:
    shares = {"accuracy": share(1), "agreement": share(1), "kept": share(kept), "asr": share(asr)}
    return {**shares, "asr_by_trigger": [asr]}


def row(tuned, kept, asr, true) -> dict[str, Any]:
    accuracy, true_asr = true
    return {
        "tuned": tuned,
        "way": "pruned" if tuned == "not" else "tuned",
        "score": 0,
        "pruned": [] if tuned == "without pruning" else [1],
        "proxies": proxies(kept, asr),
        "true": {"accuracy": accuracy, "asr": true_asr, "right": 0.0},
    }


ROWS = [
    row("not", 0.90, 0.15, (0.85, 0.2)),
    row("by the rules", 0.99, 0.08, (0.89, 0.1)),
    row("by the rules", 0.97, 0.02, (0.88, 0.0)),
    row("with Adam", 0.93, 0.00, (0.80, 0.0)),
    row("without pruning", 0.95, 0.01, (0.86, 0.3)),
]
RESULT = {
    "before": {"accuracy": 0.9, "asr": 1.0, "right": 0.0},
    "proxies": proxies(1.0, 1.0),
    "candidates": ROWS,
}
BY_NAME = {choice.name: choice for choice in CHOICES}


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("the rules", 2),
        ("most kept first", 1),
        ("least ASR first", 2),
        ("bound on the ASR 0.05", 2),
        ("bound on the ASR 0.2", 2),
        ("pruned alone, too", 2),
        ("pruned alone", 0),
        ("tuned without pruning", 4),
        ("tuned with and without pruning", 2),
        ("tuned with Adam", 3),
    ],
)
def test_what_each_choice_takes(name, place):
    assert taken(BY_NAME[name], RESULT) is ROWS[place]


def test_networks_that_the_rules_tune_without_pruning_are_not_measured_twice():
    bare = {**RESULT, "candidates": ROWS[:3]}
    assert taken(BY_NAME["tuned without pruning"], bare) is ROWS[2]


def test_costs_are_points():
    assert costs(BY_NAME["the rules"], RESULT) == pytest.approx((2.0, 0.0))
    assert costs(BY_NAME["most kept first"], RESULT) == pytest.approx((1.0, 10.0))


def test_the_page_tries_each_choice_on_models_that_it_was_not_chosen_on():
    lines = page([(f"model {i}", RESULT) for i in range(10)]).splitlines()
    assert "| the rules | 2.0 (2.0) | 0.0 (0.0) | 2.0 |  |" in lines
    assert "| most kept first | 1.0 (1.0) | 10.0 (10.0) | 11.0 | +9.0 [+9.0, +9.0] |" in lines
    assert lines[-5:] == [f"| {k} | 2 | the rules | 2.0 | 2.0 |" for k in range(1, 6)]


def test_a_page_of_nothing():
    assert "Nothing measured yet" in page([])
