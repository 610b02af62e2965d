"""The pictures of the documentation."""

import io
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from PIL import Image

import shapprune
from shapprune.data.dataset import LabeledImages
from shapprune_bench.documentation import pictures
from toys import TARGET, backdoored_net, toy_images, true_trigger

STEPS = {
    *("after.svg", "backdoor.svg", "choice.svg", "evidence.svg", "finetuning.svg"),
    *("figures.json", "pruning.svg", "score.svg", "shapley.svg", "triggers.svg"),
}


def test_every_step_is_drawn_from_the_result():
    model, given = backdoored_net(), LabeledImages(*toy_images())
    result = shapprune.repair(model, given.images, given.labels)
    attack = pictures.Attack(true_trigger(), TARGET, LabeledImages(*toy_images(10, seed=1)))
    drawn = pictures.draw(model, given, result, attack)
    assert drawn.keys() == STEPS
    figures = json.loads(drawn.pop("figures.json"))
    assert (figures["accuracy_before"], figures["asr_before"]) == (100, 100)
    assert figures["neurons"] == len(result.repair.neurons)
    assert figures["unseen"] == len(attack.unseen.images)
    texts = {name: "".join(ElementTree.fromstring(svg).itertext()) for name, svg in drawn.items()}
    assert texts["backdoor.svg"].count(f"“{TARGET}”") == 5  # all of them under the trigger
    assert f"class {TARGET}" in texts["score.svg"]
    assert f"of {len(result.repair.neurons)} neurons" in texts["shapley.svg"]
    assert texts["after.svg"].count("100.0") == 3  # right before and after, ASR before


def test_the_picture_of_the_report_is_small(tmp_path):
    def browser(command: list[str], **_: object) -> None:
        (shot,) = (part for part in command if part.startswith("--screenshot="))
        assert command[-1] == (tmp_path / "report.html").as_uri()
        noise = torch.randint(256, (40, 60, 3), dtype=torch.uint8).numpy()
        Image.fromarray(noise).save(shot.partition("=")[2])

    report = tmp_path / "report.html"
    content = pictures.picture_of_report(report, run=browser, browser="a browser")
    with Image.open(io.BytesIO(content)) as image:
        assert (image.format, image.size) == ("PNG", (60, 40))
        assert len(image.getcolors()) <= 64


def test_without_a_browser_it_says_so(monkeypatch):
    monkeypatch.setattr(pictures.shutil, "which", lambda _: None)
    with pytest.raises(FileNotFoundError, match="needs chromium"):
        pictures.picture_of_report(Path("report.html"))


def test_the_pictures_that_pages_show_are_there():
    folder = Path(__file__).parents[3] / "docs" / "pictures"
    assert {file.name for file in folder.iterdir()} >= STEPS
    assert (folder / "report.png").stat().st_size < 150_000
