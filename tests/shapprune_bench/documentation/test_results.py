"""The pages on what was measured say what the files of results say."""

import json
import re
from pathlib import Path
from statistics import median

import pytest

from bench_files import repair_file
from shapprune_bench.documentation import results
from shapprune_bench.documentation.attacks import attacks
from shapprune_bench.documentation.repairs import after_whole_run
from shapprune_bench.documentation.verdicts import beside_others

ROOT = Path(__file__).parents[3]
MEASURED = ROOT / "benchmarks" / "results"


def row(page: str, title: str, first: str) -> list[str]:
    """The cells of a row, below a heading."""
    section = page.split(f"\n## {title}\n")[1].split("\n## ")[0]
    (line,) = (line for line in section.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize("page", ["detection", "attacks", "repair", "retuning", "table1"])
def test_the_pages_are_those_of_the_files(page):
    """If this fails: ``python -m shapprune_bench.documentation``."""
    text = (ROOT / "docs" / "results" / f"{page}.md").read_text(encoding="utf-8")
    assert text == results.result_pages(MEASURED)[f"{page}.md"]


def test_a_verdicts_row_counted_by_hand():
    scans = json.loads((MEASURED / "detection" / "dev" / "detection.json").read_text())["scans"]
    clean = [s["verdict"] for s in scans if not s["backdoored"]]
    found = [s["found"] for s in scans if s["attack"] == "badnets"]
    page = results.result_pages(MEASURED)["detection.md"]
    cells = row(page, "Verdicts", "development population, cross-validated")
    assert cells[1] == "chosen on these"
    names = [{s["model"] for s in scans if s["backdoored"] == poisoned} for poisoned in (0, 1)]
    assert cells[2] == f"{len(names[0])} + {len(names[1])}"
    assert cells[3] == f"{clean.count('backdoored')} of {len(clean)} (set)"
    cells = row(page, "Development population", "badnets")
    assert re.match(rf"{sum(found)} of {len(found)} \(", cells[2])


def test_a_models_row_counted_by_hand():
    facts = json.loads((MEASURED / "detection" / "foreign" / "detection.json").read_text())
    verdicts = [s["verdict"] for s in facts["scans"] if s["model"] == "sashank_cifar"]
    page = results.result_pages(MEASURED)["detection.md"]
    cells = row(page, "Strangers' models, model by model", "sashank_cifar")
    assert cells[2] == f"{verdicts.count('backdoored')} of {len(verdicts)}"
    assert "Development population, model by model" not in page  # 161 are too many to read


def test_a_repairs_row_counted_by_hand():
    files = (MEASURED / "repairs" / "foreign").glob("repair_sashank-cifar_1a_*.json")
    runs = [json.loads(file.read_text()) for file in files]
    page = results.result_pages(MEASURED)["repair.md"]
    cells = row(page, "Strangers' models", "sashank_cifar")
    asr = median(100 * run["after"]["asr"] for run in runs)
    assert cells[2] == str(len(runs))
    assert cells[4].split(" → ")[1].split(" ")[0] == f"{asr:.1f}"


def test_a_row_of_the_paper_counted_by_hand():
    files = (MEASURED / "cpu").glob("defend_cpu_mnist-badnets_ours_1a_*.json")
    asr = [100 * json.loads(file.read_text())["after"]["asr"] for file in files]
    page = results.result_pages(MEASURED)["table1.md"]
    cells = row(page, "ACC and ASR after a repair, one clean image a class", "mnist-badnets")
    assert cells[3] == f"{median(asr):.1f} ({min(asr):.1f} … {max(asr):.1f})"
    assert cells[7].startswith("neural-cleanse")  # the only one below 10 % with so much ACC


def test_what_comes_back_is_told(tmp_path):
    for method, asr in (("none", 0.9), ("ours", 0.1), ("clp", 0.5)):
        recipe = {"recipe": {"name": "net"}, "method": method}
        scores = {"after": {"accuracy": 0.8, "asr": 0}, "retuned": {"accuracy": 0.7, "asr": asr}}
        (tmp_path / "zoo").mkdir(exist_ok=True)
        file = tmp_path / "zoo" / f"retune_zoo_net_{method}_1a_0_x.json"
        file.write_text(json.dumps({"cell": recipe, "state": "done", **scores}))
    page = results.result_pages(tmp_path)["retuning.md"]
    assert "| model | none | clp | ours |" in page
    assert "| net | 80.0 / 0.0 → 70.0 / 90.0 | 80.0 / 0.0 → 70.0 / 50.0 |" in page


def test_what_is_added_is_told_and_what_is_older_is_told_apart(tmp_path):
    folder = tmp_path / "repairs" / "test_population"
    repair_file(folder, "new", 0, "2.10", lost=0.01, asr=0.02)
    repair_file(folder, "new", 1, "2.10", lost=0.03, asr=0.04)
    repair_file(folder, "old", 0, "2.9", lost=0.5, asr=0.5)
    page = results.result_pages(tmp_path)["repair.md"]
    newest, older = page.split("\n## ")[1:3]
    assert newest.startswith("Test population\n\nRules 2.10.")
    assert "| new | badnets | 2 | 90.0 → 88.0 (87.0 … 89.0) | 100.0 → 3.0 (2.0 … 4.0) |" in newest
    assert "Older rules." in older
    assert "| old |" in older
    told = "| test population: 1 |  | 2 | 2.0 (3.0) | 3.0 (4.0) | 50 (50) | 2 of 2 | 2 of 2 |"
    assert told in results.summary(tmp_path)


@pytest.mark.parametrize(
    ("verdict", "targets", "change", "left"),
    [
        ("backdoored", [1], {}, 0.2),
        ("suspicious", [1], {}, 0.2),
        ("clean", [], {}, 1.0),
        ("backdoored", [2], {}, 1.0),
        ("backdoored", [1, 2], {}, 1.0),  # which would repair both: another repair
        ("backdoored", [2, 1], {"target": [1, 2]}, 0.2),
        ("backdoored", [1], {"source": 3}, 1.0),  # the repair was told the source too
        ("backdoored", [], {"target": "y+1"}, 1.0),
    ],
)
def test_a_whole_run_ends_where_its_verdict_leads(tmp_path, verdict, targets, change, left):
    repair_file(tmp_path, "net", 0, "2.4", 0.01, 0.2)
    (file,) = tmp_path.glob("*.json")
    run = json.loads(file.read_text()) | {"verdict": verdict, "targets": targets}
    run["cell"]["specimen"] |= change
    assert after_whole_run(run) == left


def test_a_failed_repair_is_told(tmp_path):
    folder = tmp_path / "repairs" / "some"
    repair_file(folder, "fine", 0, "2.1", lost=0.0, asr=0.0)
    repair_file(folder, "broken", 0, "2.1", lost=0.0, asr=0.0)
    file = folder / "repair_broken_0_2.1.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({"cell": content["cell"], "state": "failed", "error": "no"}))
    assert "Failed: broken." in results.result_pages(tmp_path)["repair.md"]
    assert "some: 1 (1 failed)" in results.summary(tmp_path)
    (folder / "repair_fine_0_2.1.json").unlink()
    assert "| some: 0 (1 failed) |" in results.summary(tmp_path)


def test_other_detections_stand_beside_ours_on_the_same_models(tmp_path):
    def scan(model, verdict, score, target=None, right=True):
        facts = {"model": model, "seed": 0, "backdoored": target is not None, "target": target}
        return {**facts, "verdict": verdict, "score": score, "right": right}

    scans = [
        scan("a", "clean", 0.5),
        scan("b", "backdoored", 2.0, target=1),
        scan("c", "backdoored", 0.1, target="y+1", right=False),
        scan("d", "clean", 0.2, target=3, right=False),
    ]
    scans.append(scan("a", "backdoored", 9.0) | {"seed": 1})  # a draw that they have not
    write_json(tmp_path / "detection" / "test" / "detection.json", {"scans": scans})
    for part, models in (("", "abc"), ("few/", "ad")):
        folder = tmp_path / "rivals" / "test" / part
        write_json(folder / "rivals.json", {})
        for model in models:
            (mine,) = (s for s in scans if s["model"] == model and s["seed"] == 0)
            specimen = {"name": model, "backdoored": mine["backdoored"], "target": mine["target"]}
            told = {"MM-BD": {"score": float(ord(model)), "flagged": model == "c", "first": 1}}
            facts = {"cell": {"specimen": specimen, "seed": 0}, "state": "done", "told": told}
            write_json(folder / f"rival_{model}.json", facts)
    few, whole = sorted(beside_others(tmp_path), key=lambda table: -len(table.title))
    assert whole.title == "Test population, beside other detections"
    assert few.title == "Test population, beside other detections: few"
    ours, other = whole.rows
    assert [cell.split(" (")[0] for cell in ours] == [
        *("**shapprune**", "3", "0.50", "", "0 of 1", "2 of 2", "1 of 1")
    ]
    assert [cell.split(" (")[0] for cell in other] == [
        *("MM-BD", "3", "1.00", "-1.00 to 0.00", "0 of 1", "1 of 2", "1 of 1")
    ]
    assert [cell.split(" (")[0] for cell in few.rows[0]] == [
        *("**shapprune**", "2", "0.00", "", "0 of 1", "0 of 1", "0 of 1")
    ]


def write_json(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def test_verdicts_and_repairs_of_an_attack_stand_in_one_row(tmp_path):
    facts = {"model": "net", "backdoored": True, "attack": "sig", "data": "mnist"}
    scans = [
        {**facts, "verdict": "backdoored", "found": True},
        {**facts, "verdict": "backdoored", "found": False},
        {**facts, "verdict": "suspicious", "found": False},
        {**facts, "model": "fine", "backdoored": False, "verdict": "clean", "found": False},
    ]
    file = tmp_path / "detection" / "test" / "detection.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"scans": scans}))
    (table,) = attacks(tmp_path)
    (unrepaired,) = table.rows
    assert unrepaired == ["sig", "mnist", "net", "3", "2", "1", "1", "", "", "", ""]
    for seed, (rules, asr) in enumerate([("2.3", 0.9), ("2.4", 0.1), ("2.4", 0.2), ("2.4", 0.3)]):
        repair_file(tmp_path / "repairs" / "test", "net", seed, rules, 0.01, asr)
    (table,) = attacks(tmp_path)
    (row,) = table.rows
    assert row[-4:] == ["3", "90.0 → 89.0", "100.0 → 20.0 (10.0 … 30.0)", "3"]
