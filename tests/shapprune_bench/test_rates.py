"""AUROCs of models with several draws, and their intervals."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from shapprune_bench.rates import auroc_words, resampled_aurocs


def drawn(generator, models, draws, shift=0.0):
    return [list(generator.normal(shift, 1, draws)) for _ in range(models)]


def test_the_auroc_is_that_of_all_scans():
    generator = np.random.default_rng(1)
    clean, poisoned = drawn(generator, 5, 3), [[0.5, 0.5], *drawn(generator, 6, 1, shift=1)]
    scores = [score for some in (clean, poisoned) for model in some for score in model]
    truth = [0] * 15 + [1] * 8
    assert auroc_words(clean, poisoned).startswith(f"{roc_auc_score(truth, scores):.2f} (")


def test_draws_of_one_model_are_no_further_models():
    generator = np.random.default_rng(2)
    clean, poisoned = drawn(generator, 8, 1), drawn(generator, 8, 1, shift=1)
    often = resampled_aurocs([m * 5 for m in clean], [m * 5 for m in poisoned])
    assert np.allclose(often, resampled_aurocs(clean, poisoned))


def test_the_interval_covers_as_often_as_it_says():
    truth, covered = 0.7602, 0  # of two normal distributions, one apart
    for seed in range(200):
        generator = np.random.default_rng(seed)
        clean, poisoned = drawn(generator, 40, 1), drawn(generator, 40, 1, shift=1)
        low, high = np.quantile(resampled_aurocs(clean, poisoned), [0.025, 0.975])
        covered += bool(low <= truth <= high)
    assert 0.9 <= covered / 200 <= 0.985


@pytest.mark.parametrize("some", [([], [[1.0]]), ([[1.0]], [])])
def test_of_one_kind_alone_there_is_none(some):
    assert auroc_words(*some) == ""
