"""One scan of a manifest's model as a cell of the bench: its evidence, as JSON holds it."""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from shapprune.data.dataset import LabeledImages
from shapprune.data.loading import load_images
from shapprune.errors import InputError
from shapprune.method.evidence import features, untargeted_features
from shapprune.method.recovery import recover_images
from shapprune.method.scan import ScanResult
from shapprune.method.settings import RULES
from shapprune.pipeline import scan
from shapprune.running.runner import file_name
from shapprune_bench.populations.manifest import Specimen

TEST_IMAGES = 1000  # the first of the test part, by which repairs are scored


@dataclass(frozen=True)
class Scan:
    """What is to be measured.

    Attributes:
        specimen: the model.
        per_class: clean images a class that the defender gets; 0: they are recovered from the
            model.
        seed: of the draw of these images and of the scan.
        rules: of the verdict: results of others are not taken for these.
    """

    specimen: Specimen
    per_class: int = 1
    seed: int = 0
    rules: str = RULES

    @property
    def name(self) -> str:
        """The name of its file: readable, with a hash of everything."""
        words = ["detect", self.specimen.name, f"{self.per_class}a", str(self.seed)]
        return file_name(words, self.facts())

    def facts(self) -> dict[str, object]:
        """As JSON has it; without the folders that the models lie in."""
        return {**asdict(self), "specimen": specimen_facts(self.specimen)}


def specimen_facts(specimen: Specimen) -> dict[str, object]:
    """A model as JSON has it, without the folders that its files lie in."""
    return asdict(specimen) | {
        "weights": specimen.weights.name,
        "arch": Path(specimen.arch).name if ".py:" in specimen.arch else specimen.arch,
        "data": Path(specimen.data).name if specimen.data else None,
        "trigger": specimen.trigger and specimen.trigger.name,
    }


def measure(task: Scan) -> dict[str, object]:
    """The evidence about the model and the verdict of the shipped calibration.

    Raises:
        InputError: the model or its images cannot be read, or it cannot be examined.
    """
    specimen, generator = task.specimen, torch.Generator().manual_seed(task.seed)
    model = specimen.load()
    images = labels = recovered = None
    if task.per_class:
        data = given_images(specimen, task.per_class, generator)
        images, labels = data.images, data.labels
    else:
        recovered = recover_images(
            model, input_size=_size(specimen), prior_only=True, generator=generator
        )
    return scan_facts(scan(model, images, labels, recovered=recovered, seed=task.seed))


def given_images(specimen: Specimen, per_class: int, generator: torch.Generator) -> LabeledImages:
    """So many clean images a class, as the defender gets them.

    Raises:
        InputError: the model has none, or see `load_images`.
    """
    if specimen.data is None:
        raise InputError(f"{specimen.name} has no data to draw images from")
    return load_images(
        specimen.data,
        num_classes=specimen.num_classes,
        input_size=specimen.input_size,
        per_class=per_class,
        generator=generator,
    )


def unseen_images(specimen: Specimen) -> tuple[Tensor, Tensor]:
    """The images (n, C, H, W) and labels (n,) by which repairs are scored, of the test part.

    Raises:
        InputError: the model has none, or see `load_images`.
    """
    if specimen.data is None:
        raise InputError(f"{specimen.name} has no data to score with")
    test = load_images(
        specimen.data,
        split="test",
        num_classes=specimen.num_classes,
        input_size=specimen.input_size,
    )
    return test.images[:TEST_IMAGES], test.labels[:TEST_IMAGES]


def scan_facts(result: ScanResult) -> dict[str, object]:
    """The evidence and the verdict of a scan, as JSON has them."""
    evidence, said = result.evidence, result.judgement
    return {
        "basis": said.basis,
        "conclusive": said.conclusive,
        "features": features(evidence),
        "untargeted_features": evidence.untargeted and untargeted_features(evidence.untargeted),
        "verdict": said.verdict,
        "targets": said.targets,
        "mapping": said.mapping,
        "untargeted_mapping": evidence.untargeted and evidence.untargeted.clearest.mapping,
        "scores": said.scores,
        "untargeted_score": said.untargeted,
        "accuracy": result.accuracy,
        "stages": [asdict(stage) for stage in result.stages],
        "seconds": sum(stage.seconds for stage in result.stages),
        "passes": sum(stage.passes or 0 for stage in result.stages),
    }


def _size(specimen: Specimen) -> tuple[int, int, int]:
    if specimen.input_size is not None:
        return specimen.input_size
    if specimen.data is None:
        raise InputError(f"{specimen.name}: its manifest must state input_size or data")
    first = load_images(specimen.data, num_classes=specimen.num_classes, per_class=1)
    channels, height, width = first.images.shape[1:]
    return channels, height, width
