"""Scan a model without any image: images are recovered from the network first."""

import torch

import shapprune
from shapprune import demo


def main() -> None:
    model = shapprune.load_classifier(demo.WEIGHTS, arch=demo.ARCH, num_classes=10)
    recovered = shapprune.recover_images(
        model,
        input_size=(1, 28, 28),
        per_class=1,
        steps=100,  # left out, it is slower and better
        generator=torch.Generator().manual_seed(0),
    )
    print(f"recovered {len(recovered.images)} images, guided by {recovered.layers} batch norms")
    result = shapprune.scan(model, recovered=recovered)
    print(f"{result.verdict}: target {result.targets}")
    if not result.judgement.conclusive:
        print("the data are too few to call a model clean")
    # shapprune.repair(model, recovered=recovered) goes on from here.


if __name__ == "__main__":
    main()
