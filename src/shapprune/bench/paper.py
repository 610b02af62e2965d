"""The paper's figures, to stand beside ours: Table 1, ACC and ASR in per cent."""

from collections.abc import Mapping

_METHODS = ("before", "fine-pruning", "neural-cleanse", "gangsweep", "ours-plain", "ours-o")

# Table 1 of "Few-shot Backdoor Defense Using Shapley Estimation", row by row, named as our recipes
# are; its faces are those of YouTubeFace.
_TABLE1 = """
mnist-badnets      99.02 100.00 97.00  3.02 98.64 29.87 95.30  80.33 98.99 0.34 99.06 0.56
cifar10-badnets    86.05  99.57 35.39 10.19 78.98 46.32 83.45 100.00 85.63 0.06 85.66 0.03
gtsrb-badnets      97.03  99.60 96.26  6.16 96.69  4.76 96.63   1.11 96.94 0.49 97.16 0.46
faces-badnets      98.93  99.82 97.49  0.61 95.66  7.38 90.90   0.58 98.61 0.35 98.67 0.34
mnist-input-aware  99.41  99.37 98.12  2.66 99.32 43.55 88.85  32.05 99.29 0.15 99.35 0.24
gtsrb-trojan       97.08  92.06 16.32  2.56 95.01  2.01 96.33  10.91 96.03 0.98 96.44 0.64
faces-physical-key 98.39 100.00 90.70  0.05 98.49 64.34 97.21  54.21 95.94 0.60 97.26 0.08
gtsrb-resnet18     95.17 100.00 17.03  0.79 90.44 43.10 89.46  57.73 92.25 0.48 92.71 0.20
faces-resnet34     98.37  99.98 97.93  0.19 98.65  0.25 56.84   6.55 98.49 0.07 98.51 0.05
"""


def table1() -> Mapping[tuple[str, str], tuple[float, float]]:
    """(ACC, ASR) by row and method; "before" is the poisoned model itself.

    >>> table1()["gtsrb-badnets", "ours-plain"]
    (96.94, 0.49)
    """
    found = {}
    for line in _TABLE1.split("\n")[1:-1]:
        row, *numbers = line.split()
        pairs = zip(numbers[::2], numbers[1::2], strict=True)
        for method, (acc, asr) in zip(_METHODS, pairs, strict=True):
            found[row, method] = (float(acc), float(asr))
    return found
