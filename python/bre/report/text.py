"""A report in words: the sentences that the terminal, the page and the findings files share."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .._check import printable

if TYPE_CHECKING:
    from .report import ClassRow, Finding, Report

MOST = 20  # classes; named in one list; source: chosen, by what can be read


@dataclass(frozen=True)
class Meaning:
    """What a verdict says, what it does not say, and what to do now: one sentence or two each."""

    does: str
    does_not: str
    advice: str


def verdict(report: Report) -> str:
    """The verdict in one sentence, without its numbers: `level` has them."""
    if not report.poisoned:
        where = "" if report.verb == "screen" else ", in the images or in the model,"
        return f"No class stands out from the others{where} as one with a planted additive pattern."
    targets = list(dict.fromkeys(class_name(report, f.target) for f in report.findings))
    classes = ("class " if len(targets) == 1 else "classes ") + listed(targets)
    flagged = f"{len(report.indices)} of {count(report.dataset['count'], 'image')}"
    if not len(report.indices):
        return f"A pattern is planted in {classes}, but no single image that carries it could be told apart."
    return f"A pattern is planted in {classes}: {flagged} carry it."


def level(report: Report) -> str:
    return f"p = {report.p_value:.2g}, alpha = {report.alpha:g}"


def meaning(report: Report) -> Meaning:
    if not report.poisoned:
        return Meaning(
            does="No class is more unlike the others than chance would make one, at the level asked for.",
            does_not="That is no proof that the set is clean: other kinds of backdoor (warped or redrawn images), "
            "patterns in very few images, and wrong labels without a pattern are not what this tests.",
            advice="Nothing has to be removed.",
        )
    advice = "Remove them (bre cleanse), train again, and do not use a model that was trained before."
    if not len(report.indices):
        advice = "No single image could be told apart: do not train on this set, nor use such a model."
    return Meaning(
        does="Some images share an added pattern that the rest of the set does not have. A classifier trained on this "
        "set can be steered into the target class by adding that pattern to an image.",
        does_not="It does not say who did it, or that anyone meant to. A class that is honestly unlike all others (one "
        "camera, one watermark, one file format) can stand out too: look at the pattern and at some flagged images.",
        advice=advice,
    )


def summary(report: Report) -> str:
    """See `Report.summary`."""
    facts = report.dataset
    head = "POISONED" if report.poisoned else "NOTHING FOUND"
    lines = [
        f"{head} ({level(report)})",
        f"{printable(facts['source'])}: {facts['count']} images of {shape(facts['image_shape'])}, "
        f"{len(facts['class_names'])} classes; {report.verb}, backend {printable(report.backend)}, seed {report.seed}",
    ]
    for number, finding in enumerate(report.findings, 1):
        title = f"Finding {number}: images are planted in class {class_name(report, finding.target)}"
        lines += ["", f"{title} (p = {finding.p_value:.2g})"]
        lines += [f"  {name:<10} {value}" for name, value in facts_of(report, finding)]
    if rows := untested(report):
        lines += ["", "Not fully tested, so a pattern in them may have been missed:"]
        lines += [f"  {class_name(report, row.label)}: {why_untested(row)}" for row in rows[:MOST]]
        lines += [f"  and {len(rows) - MOST} more"] if len(rows) > MOST else []
    if report.notes:
        lines += ["", "Notes:", *(f"  {printable(note)}" for note in report.notes)]
    words = meaning(report)
    first = words.does if report.poisoned else verdict(report)
    lines += ["", *textwrap.wrap(f"{first} {words.does_not}", 98)]
    lines += textwrap.wrap(words.advice, 98) if report.poisoned else []
    return "\n".join([*lines, "", cost(report)])


def facts_of(report: Report, finding: Finding) -> list[tuple[str, str]]:
    """A finding as (name, value) pairs."""
    target = class_name(report, finding.target)
    size = next((row.count for row in report.classes if row.label == finding.target), None)
    of = f"of the {size} images" if size is not None else "images"
    sources = listed([class_name(report, s) for s in finding.sources], MOST) or "not known"
    peak = 255 * float(np.abs(finding.pattern).max(initial=0))
    pairs = [
        ("flagged", f"{len(finding.indices)} {of} labelled {target}"),
        ("taken from", sources),
        ("pattern", f"L2 norm {finding.pattern_norm:.3g}, at most {peak:.1f} of 255 grey levels in a pixel"),
    ]
    if finding.success_rate is not None:
        share = f"{finding.success_rate:.1%} of held-out source images"
        pairs += [("success", f"{share} go to {target} when it is added")]
    return [*pairs, ("seen in", " and ".join(f"the {view}" for view in finding.seen_in))]


def untested(report: Report) -> list[ClassRow]:
    return [row for row in report.classes if row.note or not row.tested]


def why_untested(row: ClassRow) -> str:
    return printable(row.note) or count(row.count, "image")


def cost(report: Report) -> str:
    seconds = report.cost.seconds
    stages = ", ".join(f"{printable(k)} {v:.1f} s" for k, v in seconds.items())
    passes = f"; {report.cost.forward_images} images forward, {report.cost.backward_images} backward"
    total = f"Took {sum(seconds.values()):.1f} s" + (f" ({stages})" if stages else "")
    return total + (passes if report.verb == "detect" else "")


def class_name(report: Report, label: int) -> str:
    """7 'horse', or plain 7 where the class has no other name."""
    name = report.dataset["class_names"][label]
    return str(label) if name == str(label) else f"{label} '{printable(name, 60)}'"


def shape(image_shape: tuple[int, ...]) -> str:
    return "x".join(map(str, image_shape))


def listed(names: list[str], most: int = MOST) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def count(n: int, one: str) -> str:
    return f"{n} {one if n == 1 else one + 's'}"


def table(report: Report) -> list[str]:
    """Every class in numbers, as lines of aligned columns."""
    cells: list[tuple[str, ...]] = [("class", "images", "in images", "in model", "in gradients", "p")]
    for row in report.classes:
        values = (row.image_statistic, row.model_statistic, row.alignment, row.p_value)
        numbers = ("-" if value is None else f"{value:.3g}" for value in values)
        cells.append((class_name(report, row.label), str(row.count), *numbers))
    first, *others = [max(map(len, column)) for column in zip(*cells, strict=True)]
    forms = [f"{{:<{first}}}", *(f"{{:>{width}}}" for width in others)]
    return ["  ".join(forms).format(*row) for row in cells]
