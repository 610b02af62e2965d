"""The paper's figures, to stand beside ours: ACC and ASR in per cent.

Of "Few-shot Backdoor Defense Using Shapley Estimation", row by row, named as our recipes and
methods are; its faces are those of YouTubeFace.
"""

from collections.abc import Mapping
from typing import TypeAlias

Figures: TypeAlias = Mapping[tuple[str, str], tuple[float, float]]  # (row, method): (ACC, ASR)


def _read(table: str) -> Figures:
    """(ACC, ASR) by row and method; "before" is the poisoned model itself."""
    head, *lines = table.strip().split("\n")
    found = {}
    for line in lines:
        row, *numbers = line.split()
        pairs = zip(numbers[::2], numbers[1::2], strict=True)
        for method, (acc, asr) in zip(head.split(), pairs, strict=True):
            found[row, method] = (float(acc), float(asr))
    return found


TABLE1 = _read("""
before fine-pruning neural-cleanse gangsweep paper paper-o
mnist-badnets      99.02 100.00 97.00  3.02 98.64 29.87 95.30  80.33 98.99 0.34 99.06 0.56
cifar10-badnets    86.05  99.57 35.39 10.19 78.98 46.32 83.45 100.00 85.63 0.06 85.66 0.03
gtsrb-badnets      97.03  99.60 96.26  6.16 96.69  4.76 96.63   1.11 96.94 0.49 97.16 0.46
faces-badnets      98.93  99.82 97.49  0.61 95.66  7.38 90.90   0.58 98.61 0.35 98.67 0.34
mnist-input-aware  99.41  99.37 98.12  2.66 99.32 43.55 88.85  32.05 99.29 0.15 99.35 0.24
gtsrb-trojan       97.08  92.06 16.32  2.56 95.01  2.01 96.33  10.91 96.03 0.98 96.44 0.64
faces-physical-key 98.39 100.00 90.70  0.05 98.49 64.34 97.21  54.21 95.94 0.60 97.26 0.08
gtsrb-resnet18     95.17 100.00 17.03  0.79 90.44 43.10 89.46  57.73 92.25 0.48 92.71 0.20
faces-resnet34     98.37  99.98 97.93  0.19 98.65  0.25 56.84   6.55 98.49 0.07 98.51 0.05
""")

# Without data; its ShapPruning is the mixture mode, as Table 5 shows.
TABLE2 = _read("""
before fine-pruning neural-cleanse deepinspect paper-mixture
cifar10-vgg16     86.51 100.00 27.27  0.00 82.48 56.71 48.35 30.26 83.04 0.90
cifar100-resnet34 62.08  99.98 35.39 10.19 47.12 27.82 53.76 81.44 59.51 0.89
gtsrb-trojan      97.08  92.06 22.49 71.32 95.17  2.82 84.43 33.24 96.21 0.14
""")

TABLE5 = _read("""
before paper-mixture paper
cifar10-vgg16     86.51 100.00 83.04 0.90 81.42 1.74
cifar100-resnet34 62.08  99.98 59.51 0.89 56.34 1.21
gtsrb-trojan      97.08  92.06 96.21 0.14 94.82 0.67
""")

# Told in the captions of Fig. 8 and 9, after fine-tuning.
FIG7TO9 = _read("""
before fine-pruning paper
gtsrb-vgg11   95.05 100.00 42.02 1.18 95.24 1.67
faces-vggface 98.40  99.50 55.35 1.50 98.20 1.63
""")

# Sec. 4.4: how many of an estimator's best 50 are among the true best 70.
RANKING: Mapping[str, int] = {"algorithm1": 46, "tmab": 27}

# Sec. 4.2: seconds on GTSRB, on a Titan RTX.
TIME: Mapping[str, float] = {"neural-cleanse": 704.54, "paper": 671.13 + 585.95}
