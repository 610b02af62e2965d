"""Model inversion (Fredrikson et al., CCS 2015), by which DeepInspect recovers images.

The paper compares with it in Fig. 6. There is no official code of DeepInspect; this follows
Fredrikson's Algorithm 1 without the denoiser, which is for faces.
"""

import torch
from torch import Tensor, nn

from shapprune.model.inference import evaluating


def invert_model(
    model: nn.Module,
    labels: Tensor,
    *,
    input_size: tuple[int, int, int],
    steps: int = 500,
    rate: float = 0.1,
    enough: float = 0.01,
    generator: torch.Generator,
) -> Tensor:
    """Images that minimise 1 - p(class), by plain gradient descent from noise.

    Args:
        model: maps images in [0, 1] to logits; left as it was.
        labels: int64 (n,), the class of each image.
        input_size: (C, H, W).
        steps, rate: of gradient descent; the gradient of each image has its length divided out, as
            it all but vanishes where the network is sure of another class.
        enough: an image whose cost is as low is done.
        generator: on the CPU.

    Returns:
        Float (n, C, H, W) in [0, 1].
    """
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    labels = labels.to(like.device)
    noise = 0.5 + 0.1 * torch.randn(len(labels), *input_size, generator=generator)
    images = noise.clamp(0, 1).to(like)
    with evaluating(model), torch.enable_grad():
        for _ in range(steps):
            leaves = images.requires_grad_()
            chosen = model(leaves).softmax(1).gather(1, labels[:, None])[:, 0]
            (slope,) = torch.autograd.grad((1 - chosen).sum(), leaves)
            going = (1 - chosen.detach() > enough).view(-1, 1, 1, 1)
            length = slope.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, 1, 1, 1)
            images = (leaves.detach() - rate * going * slope / length).clamp(0, 1)
    return images
