"""Every figure that README.md and the pages of docs take from results, as text by its name.

A name is told where it is made, below. What is not measured yet has no name, and a page that asks
for it is an error (see `shapprune_bench.documentation.marks`).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from shapprune.method.settings import FALSE_ALARMS, SELECTION, SUSPICIOUS
from shapprune_bench.documentation.estimators import estimators
from shapprune_bench.documentation.files import Json, done, known_as, read_json
from shapprune_bench.documentation.repairs import (
    clean_repairs,
    medians,
    models_of,
    newest_rules,
    repairs,
)
from shapprune_bench.documentation.results import summary
from shapprune_bench.documentation.verdicts import detections
from shapprune_bench.studies.conditions import BASE
from shapprune_bench.studies.growth_page import expected, passes_by_classes
from shapprune_bench.tables.experiments import TABLE1

DEMO = Path("docs/pictures/figures.json")  # what `pictures` measured when it drew


def figures(root: Path) -> dict[str, str]:
    """All figures of the repository at ``root``."""
    results = root / "benchmarks" / "results"
    every = (
        _settings(),
        _verdicts(results),
        _costs(results),
        _robustness(results),
        _repairs(results),
        _table1(results),
        _clean_repairs(results),
        _retuned(results),
        _demo(root / DEMO),
    )
    found = {name: text for some in every for name, text in some}
    blocks = {"summary": summary(results), "estimators": estimators(results)}
    return {**found, **{name: f"\n\n{text}\n\n" for name, text in blocks.items()}}


Figures = Iterator[tuple[str, str]]


def _settings() -> Figures:
    """``settings.NAME``, in per cent."""
    for name, share in {
        "backdoored": FALSE_ALARMS,
        "suspicious": SUSPICIOUS * FALSE_ALARMS,
        "asr": SELECTION.asr,
        "least_kept": SELECTION.least_kept,
        "start_kept": SELECTION.start_kept,
        "most_pruned": SELECTION.most,
    }.items():
        yield f"settings.{name}", f"{100 * share:g}"


def _verdicts(results: Path) -> Figures:
    """Of ``bench detection``: ``detection.FOLDER.auroc`` and counts of scans and of models.

    ``detection.FOLDER.clean.VERDICT`` and ``….poisoned.VERDICT`` are scans of such a verdict,
    ``….scans`` all of them, ``….models`` their models, ``….accused_models`` those of which a scan
    is called backdoored, and ``….right`` the scans so called with the right target or map;
    ``….share_backdoored`` and ``….share_flagged`` (or suspicious) are in per cent.
    ``detection.FOLDER.found.ATTACK`` is how many scans are called backdoored with the right target
    or map. ``detection.FOLDER.draws.other`` are scans with another verdict than the model's first
    draw, and ``….again.clean``, ``….again.poisoned``: of models with a suspicious scan, the scans
    of their other draws that are flagged as well, once for each suspicious one.
    """
    for folder, content in detections(results).items():
        for attack, rates in content["by_attack"].items():
            found = rates["found"]
            yield (
                f"detection.{folder}.found.{attack.replace(' ', '-')}",
                f"{found['hits']} of {found['of']}",
            )
        yield from draws_told(f"detection.{folder}", content["scans"])
        if content["all"]["auroc"] is not None:
            yield f"detection.{folder}.auroc", f"{content['all']['auroc']:.2f}"
        for kind in ("clean", "poisoned"):
            scans = [s for s in content["scans"] if s["backdoored"] == (kind == "poisoned")]
            accused = [s["model"] for s in scans if s["verdict"] == "backdoored"]
            missed = sum(s["verdict"] == "clean" for s in scans)
            counts = {
                "clean": missed,
                "share_backdoored": round(100 * len(accused) / max(1, len(scans))),
                "share_flagged": round(100 * (len(scans) - missed) / max(1, len(scans))),
                "scans": len(scans),
                "models": len({s["model"] for s in scans}),
                "backdoored": len(accused),
                "accused_models": len(set(accused)),
                "suspicious": sum(s["verdict"] == "suspicious" for s in scans),
                "right": sum(s["found"] for s in scans),
            }
            for name, count in counts.items():
                yield f"detection.{folder}.{kind}.{name}", str(count)


def draws_told(name: str, scans: Sequence[Json]) -> Figures:
    """What other draws of the images say of the same model, see `_verdicts`."""
    models: dict[str, list[Json]] = {}
    for scan in sorted(scans, key=lambda s: int(s["seed"])):
        models.setdefault(scan["model"], []).append(scan)
    others = [s["verdict"] != some[0]["verdict"] for some in models.values() for s in some[1:]]
    yield f"{name}.draws.other", f"{sum(others)} of {len(others)}"
    for kind in ("clean", "poisoned"):
        again = [
            other["verdict"] != "clean"
            for some in models.values()
            for scan in some
            for other in some
            if scan["verdict"] == "suspicious"
            and other is not scan
            and scan["backdoored"] == (kind == "poisoned")
        ]
        yield f"{name}.again.{kind}", f"{sum(again)} of {len(again)}"


_STAGES = {  # of a scan
    "climb to the largest margin of every class": "margins",
    "try small windows": "windows",
    "try small perturbations": "perturbations",
    "try triggers without a target": "untargeted",
}


def _costs(results: Path) -> Figures:
    """Image passes of a scan, and how many times Neural Cleanse takes as much.

    ``passes.CLASSES`` and ``passes.CLASSES.STAGE`` are of ``bench growth``, and so are
    ``growth.POINT.minutes``, ``….hours`` and ``….gib`` of memory that the scan adds, where it was
    stopped by its pace;
    ``neural_cleanse.MODEL.passes`` and ``….seconds`` of ``bench detection-cost``: in all, or at
    least where it was stopped.
    """
    for result in done(results, "growth/classes-*.json"):
        if "stages" in result:
            classes = f"passes.{result['cell']['classes']}"
            yield classes, f"{result['passes']:,}"
            for stage in result["stages"]:
                yield f"{classes}.{_STAGES[stage['name']]}", f"{stage['passes']:,}"
    points = [r for r in done(results, "growth/*.json") if r.get("passes")]
    in_all = passes_by_classes(points)
    for result in points:
        if found := expected(result, in_all):
            name, memory = f"growth.{result['cell']['name']}", result["memory_mib"]
            yield f"{name}.minutes", f"{found[1] / 60:.0f}"
            yield f"{name}.hours", f"{found[1] / 3600:.0f}"
            yield f"{name}.gib", f"{(memory['at_most'] - memory['before']) / 1024:.0f}"
    for file in sorted(results.glob("detection_cost/*.json")):
        result = read_json(file)
        if result["state"] == "done":
            scan, theirs = result["scan"], result["neural_cleanse"]
            passes = theirs["passes_in_all"] or theirs["passes_at_least"]
            seconds = theirs["seconds_in_all"] or theirs["seconds"] * passes / theirs["passes"]
            name = f"neural_cleanse.{result['cell']['specimen']['name']}"
            yield f"{name}.passes", f"{passes / scan['passes']:.0f}"
            yield f"{name}.seconds", f"{seconds / scan['seconds']:.0f}"


def _robustness(results: Path) -> Figures:
    """Of ``bench robustness``: ``robustness.CONDITION.other`` and ``….accused``.

    Other: scans with another verdict, or another class named first, than the base's first draw has
    of that model; accused: of clean models, those called backdoored. ``draws`` are the base's
    further ones; ``robustness.models`` are all, ``robustness.clean`` the clean ones.
    """
    every = done(results, "robustness/robustness_*.json")
    first: dict[str, tuple[object, ...]] = {}
    groups: dict[str, list[Json]] = {}
    for result in every:
        cell = result["cell"]
        if cell["condition"] == BASE and cell["seed"] == 0:
            first[cell["specimen"]["name"]] = _said(result)
        else:
            name = "draws" if cell["condition"] == BASE else cell["condition"]
            groups.setdefault(name, []).append(result)
    models = {r["cell"]["specimen"]["name"]: r["cell"]["specimen"]["backdoored"] for r in every}
    yield "robustness.models", str(len(models))
    yield "robustness.clean", str(len(models) - sum(models.values()))
    for name, some in groups.items():
        others = [_said(r) != first[r["cell"]["specimen"]["name"]] for r in some]
        clean = [r for r in some if not r["cell"]["specimen"]["backdoored"]]
        accused = sum(r["verdict"] == "backdoored" for r in clean)
        yield f"robustness.{name}.other", f"{sum(others)} of {len(some)}"
        yield f"robustness.{name}.accused", f"{accused} of {len(clean)}"


def _said(result: Json) -> tuple[object, ...]:
    """The verdict and the class that it names first."""
    return result["verdict"], *result["targets"][:1]


def _repairs(results: Path) -> Figures:
    """Of ``bench repair``, each model by the newest rules that it was repaired by.

    ``repairs.FOLDER.MODEL.lost`` is the accuracy lost, in points, and ``….asr`` the ASR left, in
    per cent: medians over draws; ``….lost.least``, ``….lost.most`` and so on; ``….sufficient`` is
    in how many draws the defender's own measure says that it suffices. Without ``.MODEL``, the
    median model of the folder, and the least and the most of all draws.

    ``repairs.FOLDER.kept``, and ``repairs.chosen.kept`` of all that rules were chosen on and
    ``repairs.without.kept`` of those without images: of all repairs that are called sufficient, how
    many leave more than the tenth asked for. ``repairs.FOLDER.disturbed``: of those that leave
    less, how many answer under the trigger 20 points less rightly than without.
    """
    every = repairs(results)
    left: dict[str, list[float]] = {}
    gone: dict[str, list[bool]] = {}
    for result in (r for r in every if r["state"] == "done"):
        after, folder = result["after"], result["folder"]
        if result["sufficient"]:
            known = folder if known_as(folder, "repair") == "unseen" else "chosen"
            name = known if result["cell"]["per_class"] else "without"
            left.setdefault(name, []).append(after["asr"])
        if after["asr"] <= SELECTION.asr:
            gone.setdefault(folder, []).append(after["accuracy"] - after["right"] > 0.2)
    for name, rates in left.items():
        yield f"repairs.{name}.kept", f"{sum(r > SELECTION.asr for r in rates)} of {len(rates)}"
    for name, disturbed in gone.items():
        yield f"repairs.{name}.disturbed", f"{sum(disturbed)} of {len(disturbed)}"
    for folder in sorted({r["folder"] for r in every}):
        models = models_of([r for r in every if r["folder"] == folder])
        newest = [[r for r in m if r["cell"]["rules"] == newest_rules(m)] for m in models]
        for runs in newest:
            name = f"repairs.{folder}.{runs[0]['cell']['specimen']['name']}"
            yield from _lost_and_left(name, [runs])
            yield f"{name}.sufficient", f"{sum(r['sufficient'] for r in runs)} of {len(runs)}"
        if newest:
            yield from _lost_and_left(f"repairs.{folder}", newest)


def _lost_and_left(name: str, models: Sequence[Sequence[Json]]) -> Figures:
    of_models = zip(*map(medians, models), strict=True)
    of_draws = zip(*(medians([run]) for runs in models for run in runs), strict=True)
    for what, middle, all_draws in zip(("lost", "asr"), of_models, of_draws, strict=True):
        yield f"{name}.{what}", f"{median(middle):.1f}"
        yield f"{name}.{what}.least", f"{min(all_draws):.1f}"
        yield f"{name}.{what}.most", f"{max(all_draws):.1f}"


def _clean_repairs(results: Path) -> Figures:
    """Of ``bench clean-repair``: ``clean_repair.FOLDER.models``, and the points of accuracy
    ``….lost`` by the median and by the worst (``….lost.most``) of its runs."""
    for folder, models in clean_repairs(results).items():
        name = f"clean_repair.{folder}"
        lost = [100 * (r["before"]["accuracy"] - r["after"]["accuracy"]) for m in models for r in m]
        yield f"{name}.models", str(len(models))
        yield f"{name}.lost", f"{median(lost):.1f}"
        yield f"{name}.lost.most", f"{max(lost):.1f}"


def _table1(results: Path) -> Figures:
    """``table1.METHOD.gone``: how many draws of its nine rows leave at most the tenth asked for."""
    left: dict[str, list[float]] = {}
    for result in done(results, "cpu/defend_cpu_*_1a_*.json"):
        if result["cell"]["recipe"]["name"] in TABLE1:
            left.setdefault(result["cell"]["method"], []).append(result["after"]["asr"])
    for method, rates in left.items():
        gone = sum(rate <= SELECTION.asr for rate in rates)
        yield f"table1.{method}.gone", f"{gone} of {len(rates)}"


def _retuned(results: Path) -> Figures:
    """``retuning.MODEL.METHOD.WHEN.WHAT``: before, after (the repair), retuned; accuracy, asr."""
    found: dict[str, list[Json]] = {}
    for result in done(results, "zoo/retune_*.json"):
        cell = result["cell"]
        found.setdefault(f"{cell['recipe']['name']}.{cell['method']}", []).append(result)
    for name, runs in found.items():
        for when in ("before", "after", "retuned"):
            for what in ("accuracy", "asr"):
                share = median(run[when][what] for run in runs)
                yield f"retuning.{name}.{when}.{what}", f"{100 * share:.1f}"


def _demo(file: Path) -> Figures:
    """``demo.WHAT``, of the run that the pictures show, by the file beside them."""
    if file.exists():
        for name, value in read_json(file).items():
            yield f"demo.{name}", f"{value:,}"
