"""The paper's VGG (Table 3) and a wider one, poisoned by us: `python benchmarks/vggs.py`.

BadNets on CIFAR-10, as in the zoo: a white square in the corner, target class 8. The models are
kept in benchmarks/cache/, which git ignores.
"""

from functools import cache

import torch
from torch import nn

from clean_models import CACHE, load_split
from repair import Subject, score
from shapprune.attacks import BadNets, make_backdoored, square_trigger
from shapprune.checkpoints.state_dict import read_weights, save_weights
from shapprune.networks.paper import table3_vgg

# The widths of the fully connected layers, by the number of all neurons.
WIDTHS = {"vgg_2688": (1024,), "vgg_10000": (4168, 4168)}
DATA, CLASSES, TARGET, SIZE, RATE, EPOCHS, SEED = "cifar10_13k", 10, 8, 4, 0.05, 10, 21


def vgg(name: str) -> Subject:
    return Subject(
        lambda: _model(name),
        lambda split: load_split(DATA, CLASSES, split),
        TARGET,
        square_trigger((3, 32, 32), size=SIZE).stamp,
    )


@cache
def _model(name: str) -> nn.Module:
    """The model from the cache, trained first where it is not there."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        network = table3_vgg(CLASSES, size=32, hidden=WIDTHS[name])
    path = CACHE / f"{name}.safetensors"
    if path.exists():
        network.load_state_dict(read_weights(path))
        return network.eval().requires_grad_(False)
    model = make_backdoored(
        network.to(memory_format=torch.channels_last),
        load_split(DATA, CLASSES, "train"),
        load_split(DATA, CLASSES, "test"),
        num_classes=CLASSES,
        target=TARGET,
        attack=BadNets(size=SIZE),
        rate=RATE,
        epochs=EPOCHS,
        seed=SEED,
    ).model
    CACHE.mkdir(exist_ok=True)
    save_weights(model, path)
    return model


if __name__ == "__main__":
    for name in WIDTHS:
        subject = vgg(name)
        print(name, score(subject.load(), subject, subject.split("test")), flush=True)
