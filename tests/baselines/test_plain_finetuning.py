"""Plain fine-tuning and unlearning."""

from functools import partial

import torch

from shapprune.baselines.plain_finetuning import batches, plain_fine_tune, suspects, unlearn
from shapprune.method.outliers import detect
from shapprune.model.metrics import accuracy, attack_success_rate
from toys import (
    TARGET,
    backdoored_net,
    build,
    random_images,
    seeded,
    toy_images,
    true_trigger,
)


def test_batches_hold_every_row_once_and_never_one_alone():
    for n in range(2, 70):
        rows = list(batches(n, 32, seeded()))
        assert torch.cat(rows).sort().values.tolist() == list(range(n))
        assert min(map(len, rows)) > 1
        assert max(map(len, rows)) <= 32


def test_fine_tuning_learns_the_images_and_the_statistics():
    net, (images, labels) = build("conv-bn"), (random_images(20), torch.arange(20) % 5)
    tuned = plain_fine_tune(net, images, labels, epochs=200)
    assert accuracy(tuned, images, labels) > accuracy(net, images, labels) + 0.2
    assert not torch.equal(tuned[1].running_mean, net[1].running_mean)


def test_unlearning_with_the_trigger_removes_the_backdoor():
    net, (images, labels) = backdoored_net(), toy_images()
    unseen = toy_images(per_class=10, seed=1)
    score = partial(
        attack_success_rate,
        images=unseen[0],
        labels=unseen[1],
        stamp=true_trigger().stamp,
        target=TARGET,
    )
    alone = {"stamps": [true_trigger().stamp], "norms": [1.0], "targets": []}
    repaired = unlearn(net, images, labels, **alone, epochs=60, seed=0)
    assert score(net) > 0.9
    assert score(repaired) < 0.2


def test_blamed_is_the_outlier_or_the_smallest():
    outlier = detect([3, 8, 9, 9.5, 10, 11, 11.5, 12, 13, 14], method="mad", logarithm=False)
    none = detect([5, 9, 4, 8], method="mad", logarithm=False)
    assert [tuple(suspects(d.norms, d.targets)) for d in (outlier, none)] == [(0,), (2,)]
