"""docs/sizes.md, made from the rows of benchmarks/accuracy/sizes.py and from nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from scipy.stats import binomtest

from benchmarks.accuracy.size_cases import PATTERNS, SHARES, SIDES
from benchmarks.common.pages import made_by, number, percent, table
from bre.method import stats
from bre.verbs import verdict
from bre.views.evidence import MARK

ALPHA = 0.05
LEVEL, MARK_LEVEL = (ALPHA * verdict.SHARES[name] for name in ("image_statistic", MARK))
PRIOR_SD = verdict.PRIOR_SD["image_statistic"]
PRIOR_SDS = (0.25, 0.3, 0.35, 0.4, 0.45, 0.5)  # that held-out sets are judged with
MIN_RECALL, MAX_FALSE_POSITIVES = 0.99, 0.001
Row = dict[str, Any]


def page(rows: list[Row]) -> str:
    if not rows:
        return "# Any size\n\nNo rows so far.\n"
    lines = ["# Any size", "", made_by("accuracy/sizes.py", rows) + ".", "", *INTRODUCTION, ""]
    for title, group, make in SECTIONS:
        of_group = [row for row in rows if row["group"] == group]
        lines += [f"## {title}", "", *make(of_group), ""]
    return "\n".join(lines).rstrip() + "\n"


INTRODUCTION = (
    "`bre.screen` on images of 30 x 30 to 224 x 224, on small sets, on few classes and on classes of very different",
    "size. Patterns are planted after decoding, in images of all other classes, which get the target's label. A share",
    "is of the target class. A row is right if the target is called poisoned and no other class is. *Recall* is the",
    "share of the poisoned images that are flagged, *false positives* the share of the clean images. Numbers behind",
    "patterns are grey levels. Class properties are listed, but they do not make a set poisoned. The method was",
    "developed with patterns of these kinds in imagenette at 64 x 64 and 224 x 224 in view, see",
    "[method.md](method.md#constants-that-are-chosen). The prior spread is 0.45 since 2026-12-01; rows of that day and",
    "before were judged with 0.5, 0.4 or 0.45, so their p differs by that. Where 0.45 gives another verdict, from the",
    "statistics that a row holds, the row was judged again. Marks are looked for since 2026-12-01: the held-out sets",
    "and the cells of crosses, pixels and checkered patches that were missed before were judged with them, all other",
    "rows without. Of marks, the threshold of 5 nats was chosen after two held-out sets of natural7 had been called by",
    "weaker ones, so those sets are held out no more. Nor are the cells: marks were made with them in view. Processor",
    "seconds of a day differ from another's: machines with and without AVX-512 made the rows. A class is compared",
    "with a sample of other classes' images since 2026-12-01, after all rows of this page.",
)


def statistics(row: Row) -> np.ndarray:
    """Of the classes that have one."""
    return np.array([value for value in row["statistics"] if value is not None and not np.isnan(value)])


def needed(row: Row) -> float:
    """The statistic of an outlier, all others as they are."""
    least = stats.threshold(statistics(row), LEVEL, PRIOR_SD)
    return np.inf if least is None else least


def right(row: Row) -> bool:
    return row["named"] == ([row["target"]] if row.get("target") is not None else [])


def cells(rows: list[Row]) -> list[str]:
    """A table for each size: in a cell, recall where the verdict is right."""
    by_name = {row["name"]: row for row in rows}
    lines = [
        "imagenette224, 10 classes of 600. In a cell: recall, and the number of clean images that are flagged, if the",
        'verdict is right; else "no", the classes that are called, and p. *At best*: the statistic of the target if',
        "the search starts from the planted images themselves, of what a verdict needs, and the p of what these images",
        f"share in one place, which calls the class up to {MARK_LEVEL:g}: where neither is reached, the pattern is no",
        "more evident than what natural classes hold anyway, and no search for it would help.",
        "",
    ]
    for side in SIDES:
        found = []
        for pattern in PATTERNS:
            of_row = [by_name.get(f"{side}, {pattern}, {share:.0%}") for share in SHARES]
            found.append([pattern, *("not measured" if row is None else cell(row) for row in of_row)])
        lines += [f"### {side} x {side}", "", *table(["pattern", *(f"{share:.0%}" for share in SHARES)], found), ""]
    return [*lines, *goals(rows)]


def cell(row: Row) -> str:
    if not right(row):
        best = f"; at best {row['best']:.1f} of {needed(row):.1f}" if "best" in row else ""
        best += f", mark {row['best_mark']:.2g}" if "best_mark" in row else ""
        return f"no: {' '.join(map(str, row['named'])) or 'none'} (p {row['p_value']:.2g}{best})"
    wrong = round(row["false_positives"] * (row["images"] - row["count"]))
    return f"{percent(row['recall'], 0)}, {wrong}"


def goals(rows: Iterable[Row]) -> list[str]:
    rows = list(rows)
    large = [row for row in rows if row["share"] >= 0.03]
    small = [row for row in rows if row["share"] < 0.03]
    found = [row for row in rows if right(row)]
    cosines = [row["cosine"] for row in found if row.get("cosine") is not None]
    return [
        *table(
            ["goal", "reached"],
            [
                ["right target at 10, 5 and 3%", reached(large)],
                ["right target at 1%", reached(small)],
                ["recall >= 99% where found", f"{sum(row['recall'] >= MIN_RECALL for row in found)} of {len(found)}"],
                [
                    "false positives <= 0.1% where found",
                    f"{sum(row['false_positives'] <= MAX_FALSE_POSITIVES for row in found)} of {len(found)}",
                ],
                [
                    "plain cosine of the pattern >= 0.9, median",
                    number(float(np.median(cosines))) if cosines else "none",
                ],
            ],
        )
    ]


def reached(rows: list[Row]) -> str:
    """In how many cells the verdict is right, and whether a search could have found the others."""
    missed = [row for row in rows if not right(row)]
    looked = [row for row in missed if "best" in row]
    below = sum(row["best"] < needed(row) and row.get("best_mark", 1) > MARK_LEVEL for row in looked)
    unknown, unmarked = len(missed) - len(looked), sum("best_mark" not in row for row in looked)
    words = f"{len(rows) - len(missed)} of {len(rows)} cells; of the others {below} stay below what a verdict needs"
    words += f"; a mark at best was not looked for in {unmarked}" if unmarked else ""
    return words + (f"; {unknown} were not looked at" if unknown else "")


def named(rows: list[Row]) -> list[str]:
    """One line a row."""
    return table(
        ["set", "images", "classes", "p", "right", "named", "recall", "false positives", "properties", "processor s"],
        (
            [
                row["name"],
                row["images"],
                row["classes"],
                f"{row['p_value']:.2g}",
                "yes" if right(row) else "no",
                " ".join(map(str, row["named"])) or "none",
                percent(row["recall"]),
                percent(row["false_positives"], 2),
                " ".join(map(str, row["properties"])) or "none",
                row["cpu_seconds"],
            ]
            for row in rows
        ),
    )


def large_shares(rows: list[Row]) -> list[str]:
    return [
        "imagenette224 at 64 x 64: a tenth of a set of ten equal classes, poisoned, is half of the class that gets it.",
        "",
        *named(rows),
    ]


def networks(rows: list[Row]) -> list[str]:
    """What `detect` says of networks, one line each."""
    lines = [
        "`bre.detect`, of networks that `accuracy/victims_224.py` trained at 224 x 224; 10% of the target class are",
        "poisoned. Accuracy and attack success are shares of images that were kept for testing; an epoch is one of the",
        "network's training, in bfloat16.",
        "",
    ]
    head = ["network", "images", "accuracy", "attack success", "p", "right", "named", "seen by", "recall"]
    return [
        *lines,
        *table(
            [*head, "false positives", "cosine", "processor s", "of an epoch", "peak GiB"],
            (
                [
                    row["name"],
                    row["images"],
                    percent(row["accuracy"]),
                    percent(row.get("attack_success")),
                    f"{row['p_value']:.2g}",
                    "yes" if right(row) else "no",
                    " ".join(map(str, row["named"])) or "none",
                    ", ".join(row["seen_in"]) or "none",
                    percent(row["recall"]),
                    percent(row["false_positives"], 2),
                    number(row.get("cosine")),
                    row["cpu_seconds"],
                    number(row["cpu_seconds"] / row["epoch_seconds"]),
                    row["peak_gib"],
                ]
                for row in rows
            ),
        ),
    ]


def alarms(rows: list[Row]) -> list[str]:
    """How often clean sets are called, and the rows."""
    clean = [row for row in rows if row.get("target") is None]
    called = [row for row in clean if row["named"]]
    if not clean:
        return named(rows)
    interval = binomtest(len(called), len(clean)).proportion_ci(method="wilson")
    most = sum(row["largest_share_flagged"] > 0.5 for row in clean)
    return [
        f"Of {len(clean)} clean sets {len(called)} are called at {ALPHA} ({percent(len(called) / len(clean))}; 95% "
        f"interval {percent(interval.low)} to {percent(interval.high)});",
        f"in {most} a finding of poison flags most of a class.",
        "",
        *named(rows),
    ]


def held_out(rows: list[Row]) -> list[str]:
    """How many would be called with each prior spread, and `alarms`."""
    several = [values for row in rows if len(values := statistics(row)) > 1]
    called = [
        [
            number(sd),
            *(sum(stats.outlier_test(values, LEVEL, sd).p_value <= n * LEVEL for values in several) for n in (1, 2, 4)),
        ]
        for sd in PRIOR_SDS
    ]
    levels = [f"below {n * LEVEL:g}" for n in (1, 2, 4)]
    return [
        f"Of {len(several)} sets so many have a p-value of the images' statistic, before the bound by each class's",
        f"own, that is below the part of {ALPHA} which that statistic has, and below twice and four times as much:",
        "",
        *table(["prior spread", *levels], called),
        "",
        f"The verdict takes {PRIOR_SD}.",
        "",
        *alarms(rows),
    ]


SECTIONS = (
    ("Patterns, sizes and shares", "cells", cells),
    ("A third and a half of a class", "large shares", large_shares),
    ("Sets that earlier versions failed on, in their likeness", "likeness", named),
    ("Imbalance", "imbalance", alarms),
    ("Odd sets without poison", "odd", named),
    ("Two classes", "two classes", alarms),
    ("Random clean sets", "clean", alarms),
    ("Further random clean sets, that the verdict's prior spread was checked on", "held out", held_out),
    ("Networks", "networks", networks),
)
