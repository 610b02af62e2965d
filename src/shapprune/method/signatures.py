"""Trojan signatures: what the weights of the classifier's last layer say of each class.

What excites a target class comes from the trigger's own features on top of those of its images, so
that its row of the last layer has more positive weight than others' (Fields et al., "Trojan
Signatures in DNN Weights", ICCV workshops 2021). It needs no image and no pass, and shows triggers
that no small patch or perturbation imitates, such as warps.
"""

import torch
from torch import Tensor, nn

from shapprune.model.neurons import classifier_head


def signatures(model: nn.Module, images: Tensor, *, classes: int) -> tuple[float, ...] | None:
    """For each class the mean weight of its row in the last layer.

    Args:
        model: maps images to logits (n, classes); left as it was.
        images: (n, C, H, W), at least one, to find the last layer by.
        classes: that it tells apart.

    Returns:
        In standard deviations of all weights of the layer; None where the last layer has not one
        row a class, or no spread.

    >>> linear = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
    >>> _ = linear[1].weight.data.copy_(torch.tensor([[3.0, 1.0], [1.0, -1.0]]))
    >>> [round(value, 3) for value in signatures(linear, torch.rand(1, 1, 1, 2), classes=2)]
    [1.414, 0.0]
    """
    head = classifier_head(model, images)
    weight = getattr(head, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim < 2 or len(weight) != classes:
        return None
    rows = weight.detach().to("cpu", torch.float64).flatten(1)
    spread = float(rows.std(unbiased=False))
    if not spread > 0:
        return None
    return tuple((rows.mean(1) / spread).tolist())
