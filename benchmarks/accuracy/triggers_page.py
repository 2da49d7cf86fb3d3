"""docs/triggers.md, made from the rows of accuracy/triggers.py and from nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.accuracy.trigger_cases import GROUPS, PHOTOGRAPH_SIDE, Group, TriggerCase, group_of
from benchmarks.accuracy.trigger_victims import EPOCHS, RECIPES
from benchmarks.common.pages import IMAGES, made_by, percent, table

Row = dict[str, Any]
LEARNED = 0.8  # attack success from which a row counts for the goals
FALSE_ALARMS, CLEAN, TWO_THINGS = 0.05, 40, 10  # share of the clean networks; how many are wanted, of either kind
METHODS = (
    "activation clustering, smaller",
    "activation clustering, relative-size",
    "activation clustering, silhouette-scores",
    "spectral signatures, ART",
    "spectral signatures, centred",
    "FLARE",
    "PSBD",
)
COMMANDS = """```sh
pip install -c constraints.txt '.[bench]'
BRE_CASES=FOLDER python -m benchmarks.accuracy.triggers --victims VICTIMS \\
    --train --judge --baselines --retrain --ceiling --page
```"""
TRAINING = """\
ResNet9 is of width 16. Networks are trained for {epochs} epochs, the transformer {vit}, those on photographs \
{photos}, in float32, by stochastic gradient descent with one cycle of the rate, without augmentation unless a row \
says so. Triggers differ from their publications where networks of this size would not learn them: WaNet's warp has \
three times its strength, the signal 40 grey levels in four fifths of its class; the generator and the encoder are \
small, and low frequencies are random, not fitted to a network. Rows that a network does not learn are marked, and \
count for no goal."""
TERMS = """\
*Found* is the share of the poisoned images that are flagged, *lost* that of the images that nobody touched, *covers* \
that of the images with a trigger and their own label, which are neither. *Success* is the share of triggered test \
images of the sources that get the label that the attacker wants; for all-to-all and all-to-others, of those that are \
classified right without the trigger. *Right target*: a finding of kind poison names it; for all-to-all and \
all-to-others, findings name half of the classes or more. Spectral signatures are told the share of \
poisoned images, PSBD has 1000 clean test images; `detect` and the others have neither. FLARE and PSBD are written \
from their papers and, for details that those leave open, their published code. In signal-clean-label four fifths of \
the class carry the signal: what most of a class shares is reported as a class property, which counts as a miss here. \
A set counts as a false alarm if \
`detect` has a finding of kind poison. All rows were judged before classes were compared with a sample of other \
classes' images. Rows marked \\* were looked at while the method was built or changed. The sets' \
triggers are in `benchmarks/accuracy/trigger_cases.py` and \
`learned_triggers.py`, each with its source. [Glossary](glossary.md)."""


@dataclass(frozen=True)
class Item:
    """A case with what was measured of it."""

    case: TriggerCase
    row: Row

    @property
    def learned(self) -> bool:
        return self.row.get("train", {}).get("success", 0.0) >= LEARNED

    @property
    def judged(self) -> Row | None:
        return self.row.get("judge")

    @property
    def targets(self) -> list[int]:
        findings = self.row["judge"]["findings"]
        return sorted({each["target"] for each in findings if each["kind"] == "poison"})

    @property
    def right(self) -> bool:
        """Whether `detect` names the target."""
        if isinstance(self.case.target, int):
            return self.targets == [self.case.target]
        return 2 * len(self.targets) >= self.case.classes

    @property
    def name(self) -> str:
        return self.case.name + (" \\*" if self.case.looked_at else "")

    def result(self, method: str) -> Row | None:
        """What a published method says of this row; None where it was not asked or cannot."""
        found = self.row.get("baselines", {}).get(method)
        return None if found is None or "unsuited" in found else found


def write(rows: Sequence[Row], cases: Sequence[TriggerCase], file: Path) -> None:
    """rows: as read, {"case": name} where nothing was measured."""
    if not any("train" in row for row in rows):
        raise SystemExit(f"no results to make {file} from: run benchmarks.accuracy.triggers --train first")
    file.write_text(page(rows, cases))


def page(rows: Sequence[Row], cases: Sequence[TriggerCase]) -> str:
    items = [Item(case, row) for case, row in zip(cases, rows, strict=True)]
    trained = [item for item in items if "train" in item.row]
    steps = [step for item in trained for step in item.row.values() if isinstance(step, dict) and "date" in step]
    attacked = [item for item in trained if item.case.trigger]
    clean = [item for item in trained if not item.case.trigger]
    waiting = [item.case.name for item in items if "train" not in item.row]
    lines = [
        "# Every kind of trigger",
        "",
        made_by("accuracy/triggers.py", steps) + ".",
        "",
        COMMANDS,
        "",
        f"CIFAR-10, 20 000 images in a set, or folders of photographs. {IMAGES}",
        "",
        TRAINING.format(epochs=RECIPES["ResNet9"].epochs, vit=RECIPES["SmallViT"].epochs, photos=EPOCHS),
        "",
        TERMS,
        *_goals([item for item in items if item.case.trigger], clean),
        *_attacked(attacked),
        *_clean(clean),
        *_compared(trained),
        *_retrained(attacked),
        *_ceilings(attacked),
        *(["", "## Not measured", "", ", ".join(waiting) + "."] if waiting else []),
    ]
    return "\n".join(lines) + "\n"


def _goals(attacked: Sequence[Item], clean: Sequence[Item]) -> list[str]:
    head = ("trigger", "goal", "rows", "right target", "found, least", "lost, most", "reached")
    return [
        "",
        "## Goals",
        "",
        f"By `detect`, over rows that are trained, judged, and have a success of at least {percent(LEARNED, 0)}. "
        "*Rows*: how many, of those that are not trained yet or learned. *So far*: some of them are missing.",
        "",
        *table(head, [_goal(group, attacked) for group in GROUPS]),
        "",
        *_alarms(clean),
        *_success(attacked),
    ]


def _goal(group: Group, attacked: Sequence[Item]) -> list[str]:
    items = [item for item in attacked if item.learned and group_of(item.case) is group]
    judged = [item for item in items if item.judged]
    goal = f">= {percent(group.found, 0)} / <= {percent(group.lost)}"
    planned = sum(group_of(item.case) is group and (item.learned or "train" not in item.row) for item in attacked)
    if not judged:
        return [group.title, goal, f"0 of {planned}", *["not measured"] * 3, "-"]
    right = sum(item.right for item in judged)
    found, lost = (
        min(item.row["judge"]["found"] for item in judged),
        max(item.row["judge"]["lost"] for item in judged),
    )
    reached = right == len(judged) and found >= group.found and lost <= group.lost
    return [
        group.title,
        goal,
        f"{len(judged)} of {planned}",
        f"{right} of {len(judged)}",
        percent(found),
        percent(lost, 2),
        _reached(reached, whole=len(judged) == planned),
    ]


def _alarms(clean: Sequence[Item]) -> list[str]:
    lines = []
    two = [item for item in clean if item.case.two_things]
    for what, wanted, items in (
        ("clean networks", CLEAN, clean),
        ("of these, with classes that are honestly two things", TWO_THINGS, two),
    ):
        judged = [item for item in items if item.judged]
        if not judged:
            lines.append(
                f"- False alarms, {what}: not measured; goal <= {percent(FALSE_ALARMS, 0)} within the interval."
            )
            continue
        alarms = sum(bool(item.targets) for item in judged)
        interval = stats.binomtest(alarms, len(judged)).proportion_ci(method="exact")
        lines.append(
            f"- False alarms, {what}: {alarms} of {len(judged)}, 95% interval {percent(interval.low)} to "
            f"{percent(interval.high)}; goal <= {percent(FALSE_ALARMS, 0)} within the interval, of at least {wanted}: "
            f"{_reached(interval.low <= FALSE_ALARMS, whole=len(judged) >= wanted)}."
        )
    return lines


def _reached(reached: bool, *, whole: bool) -> str:
    return ("yes" if whole else "so far") if reached else "**no**"


def _success(attacked: Sequence[Item]) -> list[str]:
    again = [item.row["retrain"] for item in attacked if item.learned and "retrain" in item.row]
    learned = sum(item.learned for item in attacked)
    above = [100 * (each["cleansed"]["success"] - each["reference"]["success"]) for each in again]
    if not above:
        return [
            "- Success after cleansing and training again: not measured; goal at most 1 point above a clean network's."
        ]
    return [
        f"- Success after cleansing and training again, above a network that never saw the poison: median "
        f"{np.median(above):.1f} points, worst {max(above):.1f}, of {len(above)} rows; goal at most 1: "
        f"{_reached(max(above) <= 1, whole=len(above) == learned)}."
    ]


def _attacked(items: Sequence[Item]) -> list[str]:
    head = "row", "trigger", "network", "poisoned", "covers", "accuracy", "success"
    verdict = "target", "named", "p", "found / lost", "covers flagged", "seen in", "seconds"
    rows = []
    for item in items:
        case, made, judged = item.case, item.row["train"], item.judged
        wanted = {None: "next", "others": "others"}.get(case.target, case.target)  # type: ignore[arg-type]
        facts = [item.name, case.trigger, case.network, case.count, case.covers or ""]
        facts += [
            percent(made["accuracy"]),
            percent(made["success"]) + ("" if item.learned else ", not learned"),
            wanted,
        ]
        rows.append([*facts, *(_verdict(item, judged) if judged else ["not measured", *["-"] * 5])])
    return ["", "## Attacked sets", "", *table((*head, *verdict), rows)]


def _verdict(item: Item, judged: Row) -> list[str]:
    return [
        " ".join(map(str, item.targets)) or "none",
        f"{judged['p_value']:.1e}",
        _shares(judged),
        percent(judged["covers"]),
        ", ".join(dict.fromkeys(view for each in judged["findings"] for view in each["seen_in"])),
        f"{judged['seconds']:.0f}",
    ]


def _shares(result: Row | None) -> str:
    return "-" if result is None else f"{percent(result['found']) or 'none'} / {percent(result['lost'], 2)}"


def _clean(items: Sequence[Item]) -> list[str]:
    rows = []
    for item in items:
        case, judged = item.case, item.judged
        two = "; ".join(f"{k}: {' + '.join(map(str, old))}" for k, old in enumerate(case.merged) if len(old) > 1)
        facts = [
            item.name,
            case.network,
            _images(case),
            two,
            percent(item.row["train"]["accuracy"]),
        ]
        found = ["not measured", "-", "-", "-"]
        if judged:
            named = " ".join(map(str, item.targets)) or "none"
            found = [named, f"{judged['p_value']:.2g}", percent(judged["lost"], 2), f"{judged['seconds']:.0f}"]
        rows.append([*facts, *found])
    head = ("row", "network", "images", "two things in", "accuracy", "named", "p", "lost", "seconds")
    return [
        "",
        "## Clean sets",
        "",
        "CIFAR-10's classes by number; photographs' by place in the alphabet. Images: rows of CIFAR-10's training set.",
        "",
        *table(head, rows),
    ]


def _images(case: TriggerCase) -> str:
    if case.data != "cifar10":
        return f"{case.data} at {PHOTOGRAPH_SIDE}"
    return f"{case.rows[0]} to {case.rows[1]}" + (f", noise {case.noise:.0f}" if case.noise else "")


def _compared(items: Sequence[Item]) -> list[str]:
    """Every published method beside `detect`, and where one is better."""
    asked = [item for item in items if "baselines" in item.row]
    rows, better = [], []
    for item in asked:
        results = [item.result(method) for method in METHODS]
        cells = [
            "cannot" if result is None and method in item.row["baselines"] else _shares(result)
            for method, result in zip(METHODS, results, strict=True)
        ]
        seconds = " ".join(f"{result['seconds']:.0f}" if result else "-" for result in results)
        rows.append([item.name, _shares(item.judged), *cells, seconds])
        if item.judged:
            better += [
                f"- {item.case.name}: {method}"
                for method, result in zip(METHODS, results, strict=True)
                if result and _gain(result) > _gain(item.judged)
            ]
    lines = [
        "",
        "## Beside published filters",
        "",
        "Found / lost on the same networks; seconds in the columns' order.",
        "",
    ]
    lines += table(("row", "`detect`", *METHODS, "seconds"), rows)
    if any(item.judged for item in asked):
        lines += ["", "Rows where a method has more found minus lost than `detect`:" if better else "None is better."]
    return [*lines, *([""] if better else []), *better]


def _gain(result: Row) -> float:
    return (result["found"] or 0.0) - result["lost"]


def _retrained(items: Sequence[Item]) -> list[str]:
    rows = []
    for item in items:
        if again := item.row.get("retrain"):
            cells = [percent(again[net][key]) for key in ("success", "accuracy") for net in ("cleansed", "reference")]
            rows.append([item.name, percent(item.row["train"]["success"]), *cells])
    head = ("row", "success before", "cleansed", "never poisoned", "accuracy, cleansed", "accuracy, never poisoned")
    return ["", "## After cleansing and training again", "", *table(head, rows)]


def _ceilings(items: Sequence[Item]) -> list[str]:
    rows = [
        [item.name, percent(item.row["train"]["success"]), _shares(item.judged), _shares(item.row["ceiling"])]
        for item in items
        if "ceiling" in item.row
    ]
    return [
        "",
        "## What the activations tell at best",
        "",
        "Found / lost of a linear discriminant that is told which images are poisoned, from each half of the class for "
        "the other, in the layers that the inside view joins: what no view of these layers exceeds by much. Where it "
        "is below a goal, the network itself takes some clean images for triggered ones.",
        "",
        *table(("row", "success", "`detect`", "at best, told the truth"), rows),
    ]
