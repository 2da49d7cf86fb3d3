"""docs/results.md, made from the rows of accuracy/table.py and from nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy import table_goals as goals
from benchmarks.accuracy.table_goals import Judged, judged
from benchmarks.accuracy.victims import Case
from benchmarks.common.pages import IMAGES, made_by, number, percent, table
from bre.verbs.verdict import PRIOR_SD

Row = dict[str, Any]
LEVELS = (0.001, 0.01, 0.05, 0.1, 0.2, 0.5)
COMMANDS = """```sh
pip install -c constraints.txt '.[bench]'
BRE_CASES=FOLDER python -m benchmarks.accuracy.table{options}  # FOLDER holds data/cifar10.py
```"""
TERMS = (
    "*p* is that of the whole set; alpha is 0.05. *Recall* is the share of the poisoned images that are flagged, "
    "*false positives* the share of the clean images that are flagged, with their number. *Source precision* and "
    "*source recall* are those of the source classes named, averaged over a case's attacks. Cosines are between the "
    "estimated and the true pattern, channel means removed, plain and in the metric of the inverse second moment of "
    "the clean images. *Success, after* and *accuracy, after* are of a network trained on the images that `detect` "
    "does not flag, and in brackets of one trained without the poisoned images. A dash: not measured. "
    "[Glossary](glossary.md)."
)
TITLES = {
    "small": "Results",
    "paper": "Results in the paper's setting",
    "vgg": "Results with a plain convolutional network",
    "mobilenet": "Results with depthwise convolutions",
}
FAMILIES = {  # the sections, in order: title, what is in it
    "learned": ("Learned additive attacks", "Attack success of the victim at least 80%."),
    "unlearned": (
        "Additive attacks that the victim did not learn",
        "Attack success below 80%: the poisoned images are there, the backdoor is not.",
    ),
    "other": (
        "Attacks that are not additive, or not of one target",
        "A patch that replaces pixels, a blended image, all-to-all labels, clean labels.",
    ),
}


def write(rows: Sequence[Row], cases: Sequence[Case], file: Path, preset: str = "small") -> None:
    """rows: as read, {"case": name} where nothing was measured; cases: all, in the page's order."""
    if not any(len(row) > 1 for row in rows):
        raise SystemExit(f"no results to make {file} from: run the other stages of benchmarks.accuracy.table first")
    file.write_text(page(rows, cases, preset))


def page(rows: Sequence[Row], cases: Sequence[Case], preset: str = "small") -> str:
    items = judged(rows, cases)
    options = "" if preset == "small" else f" --preset {preset}"
    lines = [
        f"# {TITLES[preset]}",
        "",
        *stamp(rows),
        "",
        COMMANDS.format(options=options),
        "",
        f"{IMAGES} Known victims, trained elsewhere, are in [known_cases.md](known_cases.md).",
        "",
        TERMS,
        *reached(items),
        *failing(items),
        *alarms(items),
    ]
    parts = {family: [item for item in items if item.family == family] for family in (*FAMILIES, "clean", "ladder")}
    for family, (title, what) in FAMILIES.items():
        lines += attacked(title, what, parts[family])
    lines += [*clean(parts["clean"]), *ladder(parts["ladder"])]
    lines += baselines([item for item in items if item.row.get("baselines") or item.row.get("pairwise")])
    if waiting := [item.case.name for item in items if not item.measured]:
        lines += ["", "## Not measured", "", ", ".join(waiting) + "."]
    return "\n".join(lines) + "\n"


def stamp(rows: Iterable[Row]) -> list[str]:
    stages = [stage for row in rows for stage in row.values() if isinstance(stage, dict) and "date" in stage]
    return [made_by("accuracy/table.py", stages) + "."]


def reached(items: Sequence[Judged]) -> list[str]:
    rows = [
        (goal.what, goal.wanted, goal.got or "-", {True: "yes", False: "**no**", None: "-"}[goal.met])
        for goal in goals.goals(items)
    ]
    spreads = goals.spreads(items)
    noise = (
        [
            "",
            "Variation between training runs: the accuracies of clean victims with the same images and different "
            f"seeds differ by up to {100 * max(spreads):.1f} points ({len(spreads)} groups).",
        ]
        if spreads
        else []
    )
    return [
        "",
        "## Goals",
        "",
        "By `detect` unless it says otherwise, over the rows measured so far. Additive rows are those of learned "
        "attacks. An attack that is not detected counts with no sources, no pattern and cosines of 0.",
        "",
        *table(("", "goal", "so far", "reached"), rows),
        *noise,
    ]


def failing(items: Sequence[Judged]) -> list[str]:
    lines = [f"- {item.case.name}: {'; '.join(found)}" for item in items if (found := goals.failures(item))]
    return [
        "",
        "## Where goals are missed",
        "",
        "Made from the rows. [method.md](method.md#limits) gives the known reasons.",
        "",
        *(lines or ["Nothing, so far."]),
    ]


def alarms(items: Sequence[Judged]) -> list[str]:
    """False alarms, and the ROC over cases."""
    lines = [
        "",
        "## Verdicts over cases",
        "",
        "How many clean victims, and how many learned attacks of every kind, have p at most the level. AUC: area under "
        "the ROC curve of 1 - p.",
        "",
    ]
    rows = []
    for verb in ("screen", "detect"):
        quiet, loud = goals.p_values(items, verb)
        for level in LEVELS if quiet and loud else ():
            counts = (f"{sum(p <= level for p in group)} of {len(group)}" for group in (quiet, loud))
            rows.append((verb, level, *counts))
        if quiet:
            count, low, high = goals.false_alarms(quiet)
            curve = f", AUC {goals.area(quiet, loud):.3f}" if loud else ""
            interval = f"95% Clopper-Pearson interval {percent(low)} to {percent(high)}"
            lines += [
                f"- `{verb}`: {count} false alarms on {len(quiet)} clean victims at {goals.ALPHA}: "
                f"{percent(count / len(quiet))} ({interval}){curve}"
            ]
    return [*lines, "", *table(("verb", "level", "false alarms", "attacks detected"), rows)]


def attacked(title: str, what: str, items: Sequence[Judged]) -> list[str]:
    rows = []
    for item in items:
        retrained = item.row.get("retrain")
        for verb in ("screen", "detect"):
            first = verb == "screen"
            rows.append(
                (
                    item.case.name if first else "",
                    joined(item.success) if first else "",
                    percent(item.row["train"]["accuracy"]) if first else "",
                    f"`{verb}`",
                    *verdict(item, verb),
                    *("" if first else pair(retrained, key) for key in ("success", "accuracy")),
                )
            )
    head = (
        "case",
        "success",
        "accuracy",
        "verb",
        "p",
        "targets",
        "right",
        "source precision",
        "source recall",
        "recall",
        "false positives",
        "cosine",
        "whitened",
        "success, after (without)",
        "accuracy, after (without)",
    )
    return ["", f"## {title}", "", what, "", *table(head, rows)]


def verdict(item: Judged, verb: str) -> tuple[str, ...]:
    """p, targets, right, source precision and recall, recall, false positives, cosine, whitened cosine."""
    found = item.verdict(verb)
    if found is None:
        return ("-",) * 9
    sources, cosines = item.sources(verb), item.cosines(verb)
    return (
        f"{found['p_value']:.2g}",
        " ".join(map(str, item.named(verb))) or "none",
        "yes" if item.right(verb) else "no",
        *(number(float(np.mean([rates[i] for rates in sources])), 2) if sources else "" for i in range(2)),
        percent(found["found"]),
        lost(item, verb),
        *(" ".join(number(c[i]) for c in cosines) for i in range(2)),
    )


def clean(items: Sequence[Judged]) -> list[str]:
    rows = []
    for item in items:
        case, results = item.case, [item.verdict(verb) for verb in ("screen", "detect")]
        rows.append(
            (
                case.name,
                f"{case.rows[0]} to {case.rows[1]}",
                " ".join(map(str, case.classes)),
                f"{case.noise:g}",
                "yes" if case.augment else "no",
                percent(item.row["train"]["accuracy"]) if "train" in item.row else "-",
                *(f"{found['p_value']:.2g}" if found else "-" for found in results),
                *(lost(item, verb) for verb in ("screen", "detect")),
            )
        )
    head = (
        "case",
        "rows",
        "classes",
        "noise",
        "augmented",
        "accuracy",
        "`screen` p",
        "`detect` p",
        "`screen` false positives",
        "`detect` false positives",
    )
    return ["", "## Clean victims", "", *table(head, rows), *spreads(items)]


def spreads(items: Sequence[Judged]) -> list[str]:
    """Of the model's statistics over the classes of clean victims, beside what the test takes them to be."""
    verdicts = [item.verdict("detect") or {} for item in items]
    said = []
    kinds = ("gains", "model_statistics", "model_statistic"), ("alignments", "alignments", "alignment")
    for name, column, key in kinds:
        measured = [goals.spread(found[column]) for found in verdicts if len(found.get(column, [])) >= 5]
        if measured:
            said.append(f"{name} {goals.typical(measured):.2f} (the test assumes {PRIOR_SD[key]})")
    if not said:
        return []
    return [
        "",
        "The spread of the model's statistics over a victim's classes (standard deviation of the logarithms, "
        f"the largest left out; root mean square over victims): {', '.join(said)}.",
    ]


def ladder(items: Sequence[Judged]) -> list[str]:
    rows = [
        (
            item.case.name,
            item.case.attacks[0].count,
            f"{item.case.noise:g}",
            *(verdict(item, "screen")[i] for i in (0, 1, 5, 6, 7)),
        )
        for item in items
    ]
    return [
        "",
        "## Few poisoned images",
        "",
        "`screen` alone, on 20 000 images; the target is class 7.",
        "",
        *table(("case", "poisoned", "noise", "p", "targets", "recall", "false positives", "cosine"), rows),
    ]


def baselines(items: Sequence[Judged]) -> list[str]:
    versions = sorted({item.row["baselines"]["art"] for item in items if "baselines" in item.row})
    methods = list(dict.fromkeys(method for item in items for method in item.filters))
    rows = []
    for item in items:
        other, own = item.row.get("pairwise"), item.verdict("detect")
        rows.append(
            (
                item.case.name,
                shares(own),
                *(shares(item.filters.get(method)) for method in methods),
                "-" if other is None else f"{other['p_value']:.2g}",
                "-" if other is None else "none" if other["target"] is None else other["target"],
                "-" if other is None else f"{other['seconds']:.0f}",
                "-" if own is None else f"{own['seconds']:.0f}",
            )
        )
    return [
        "",
        "## Beside published methods",
        "",
        "Recall / false positive rate. Activation clustering and spectral signatures are those of the "
        f"adversarial-robustness-toolbox ({', '.join(versions) or 'not run'}), with its settings. Spectral signatures "
        "are given the true share of poisoned images in the worst class, which no defender knows. ART measures from "
        "the origin; as published (*centred*) it is from the class's mean. The pairwise detector gives a verdict and "
        "a target, no images.",
        "",
        *table(
            ("case", "`detect`", *methods, "pairwise p", "pairwise target", "pairwise seconds", "`detect` seconds"),
            rows,
        ),
    ]


def shares(result: Row | None) -> str:
    return "-" if result is None else f"{percent(result['found']) or 'none'} / {percent(result['lost'], 2)}"


def lost(item: Judged, verb: str) -> str:
    found = item.verdict(verb)
    return "-" if found is None else f"{percent(found['lost'], 2)} ({item.lost_count(verb)})"


def pair(retrained: Row | None, key: str) -> str:
    if not retrained:
        return "-"
    cleansed, reference = (retrained[name][key] for name in ("cleansed", "reference"))
    return f"{joined(cleansed)} ({joined(reference)})"


def joined(rates: float | Sequence[float]) -> str:
    return " ".join(map(percent, np.atleast_1d(rates)))
