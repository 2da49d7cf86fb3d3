"""A report in words: the sentences that the terminal, the page and the findings files share."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .._check import printable

if TYPE_CHECKING:
    from .facts import ClassRow
    from .finding import Finding
    from .report import Report

MAX_LISTED = 20  # classes; named in one list; source: chosen, a screen's height
WIDTH = 98  # letters; in a line of the summary; source: chosen, below the 100 columns of a wide terminal
# share of a class; flagged images above it are said to be nearly all, and perhaps a property; source: chosen, attackers
# leave most of a class clean, or its label would mean the pattern alone
NEARLY_ALL = 0.9
VIEWS = {"images": "the images", "model": "the model", "inside": "the model's activations"}
NO_PROOF = (
    "It is no proof that the set is clean: other kinds of backdoor (warped or redrawn images), patterns in very few "
    "images, and wrong labels without a pattern are not what this tests."
)


@dataclass(frozen=True)
class Meaning:
    """What a verdict says, what it does not say, and what to do now: one sentence or two each."""

    does: str
    does_not: str
    advice: str


def head(report: Report) -> str:
    """The verdict in a word or two."""
    if report.poisoned:
        return "Poisoned"
    if report.findings:
        return f"No poison found, {count(len(report.findings), 'class property', 'class properties')}"
    return "Nothing found"


def verdict(report: Report) -> str:
    """The verdict in one sentence, without its numbers: `level` has them."""
    if report.poisoned:
        classes = _classes(report, "poison")
        flagged = f"{number(len(report.indices))} of {count(report.dataset.count, 'image')}"
        if not len(report.indices):
            return f"A pattern is planted in {classes}, but the images that carry it could not be identified."
        return f"A pattern is planted in {classes}: {flagged} are flagged."
    if report.findings:
        return f"No planted pattern was found. Images of {_classes(report, 'property')} share a property of the class."
    where = "" if report.verb == "screen" else ", in the images or in the model"
    return f"No class is an outlier that would show a planted pattern{where}."


def level(report: Report) -> str:
    return f"p = {report.p_value:.2g}, alpha = {report.alpha:g}"


def meaning(report: Report) -> Meaning:
    if report.poisoned:
        return _meaning_of_poison(report)
    if report.findings:
        return Meaning(
            does="Images of a class share something that belongs to the class: a border, a caption, a pose, one "
            "camera, or a kind of its own among several that have one label. A network may learn it as a shortcut, and "
            "answer to it in place of the object.",
            does_not=f"It is not poison, and nobody need have meant it. {NO_PROOF}",
            advice="Look at the images: if they do not belong to the class, remove them. Else nothing has to be "
            "removed; bre cleanse leaves these images alone. If the images that the network "
            "will see lack the property, crop or mask it, or add images without it.",
        )
    return Meaning(
        does="No class differs from the others by more than chance, at the level asked for.",
        does_not=NO_PROOF,
        advice="Nothing has to be removed.",
    )


def _meaning_of_poison(report: Report) -> Meaning:
    advice = "Remove the flagged images (bre cleanse), train again, and do not use a model that was trained before."
    if not len(report.indices):
        advice = "No image could be flagged: do not train on this set, nor use such a model."
    elif any(is_nearly_all(report, finding) for finding in report.findings if finding.is_poison):
        advice = (
            "Look at the flagged images first: nearly all images of a class are flagged, so this may be a property of "
            "the class, and removing them leaves little of it. " + advice
        )
    if not all(finding.is_poison for finding in report.findings):
        advice += " A property of a class is not poison: bre cleanse leaves its images alone."
    return Meaning(
        does="Some images share an added pattern (a trigger, in the literature) that the rest of the set does not "
        "have. A classifier trained on this set may give any image with that pattern the label of the target class.",
        does_not="It does not say who did it, or that anyone meant to. A class that differs from all others by its "
        "nature (one camera, one watermark, one file format) can be an outlier too: look at the pattern and at some "
        "flagged images.",
        advice=advice,
    )


def summary(report: Report) -> str:
    """See `Report.summary`."""
    facts = report.dataset
    lines = [
        f"{head(report).upper()} ({level(report)})",
        f"{printable(facts.source)}: {number(facts.count)} images of {shape(facts.image_shape)}, "
        f"{number(len(facts.class_names))} classes; {report.verb}, backend {printable(report.backend)}, "
        f"seed {report.seed}",
    ]
    for order, finding in enumerate(report.findings, 1):
        lines += ["", f"Finding {order}: {title(report, finding)} (p = {finding.p_value:.2g})"]
        lines += [f"  {name:<14} {value}" for name, value in facts_of(report, finding)]
    if rows := untested(report):
        lines += ["", "Not fully tested, so a pattern in them may have been missed:"]
        lines += [f"  {class_name(report, row.label)}: {why_untested(row)}" for row in rows[:MAX_LISTED]]
        lines += [f"  and {number(len(rows) - MAX_LISTED)} more"] if len(rows) > MAX_LISTED else []
    if report.notes:
        lines += ["", "Notes:", *(f"  {printable(note)}" for note in report.notes)]
    words = meaning(report)
    first = words.does if report.findings else verdict(report)
    lines += ["", *textwrap.wrap(f"{first} {words.does_not}", WIDTH)]
    lines += textwrap.wrap(words.advice, WIDTH) if report.findings else []
    return "\n".join([*lines, "", *textwrap.wrap(cost(report), WIDTH)])


def title(report: Report, finding: Finding) -> str:
    """What a finding is, and of which class."""
    target = class_name(report, finding.target)
    if not finding.is_poison:
        return f"a property of class {target}"
    if is_nearly_all(report, finding):
        return f"a planted pattern, or a property of the class, in class {target}"
    return f"a pattern is planted in class {target}"


def facts_of(report: Report, finding: Finding) -> list[tuple[str, str]]:
    """A finding as (name, value) pairs."""
    target = class_name(report, finding.target)
    pairs = [("flagged", flagged(report, finding))]
    if finding.sources or finding.is_poison:
        sources = [class_name(report, source) for source in finding.sources]
        pairs += [("source classes", listed(sources) or "not known")]
    pairs += [("pattern", _pattern(finding))]
    if finding.window is not None:
        top, left, height, width = finding.window
        pairs += [("place", f"{height} x {width} pixels from row {top}, column {left} on")]
    if finding.success_rate is not None:
        share = f"{finding.success_rate:.1%} of held-out source images"
        pairs += [("attack success", f"{share} are predicted as {target} when the pattern is added")]
    *most, last = (VIEWS[view] for view in finding.seen_in)
    return [*pairs, ("seen in", f"{', '.join(most)} and {last}" if most else last)]


def flagged(report: Report, finding: Finding) -> str:
    """How many images a finding flags, and which share of the class that is."""
    images, size = len(finding.indices), class_size(report, finding.target)
    target = class_name(report, finding.target)
    if not size:
        return f"{count(images, 'image')} of class {target}"
    said = f"{number(images)} of {count(size, 'image')} of class {target}, {percent(images, size)}"
    if not is_nearly_all(report, finding):
        return said
    return f"{said}: the whole class" if images == size else f"{said}: nearly all of the class"


def _pattern(finding: Finding) -> str:
    if finding.pattern is None:
        return "none in pixels: found inside the network only"
    peak = 255 * float(np.abs(finding.pattern).max(initial=0))
    several = f"the first of {finding.patterns}: " if finding.patterns > 1 else ""
    return f"{several}L2 norm {finding.pattern_norm:.3g}, at most {peak:.1f} of 255 grey levels in a pixel"


def is_nearly_all(report: Report, finding: Finding) -> bool:
    """Whether the finding flags more than NEARLY_ALL of its class."""
    return len(finding.indices) > NEARLY_ALL * (class_size(report, finding.target) or np.inf)


def class_size(report: Report, label: int) -> int | None:
    """The number of its images, None where the report does not say."""
    return next((row.count for row in report.classes if row.label == label), None)


def untested(report: Report) -> list[ClassRow]:
    return [row for row in report.classes if row.note or not row.tested]


def why_untested(row: ClassRow) -> str:
    return printable(row.note) or count(row.count, "image")


def cost(report: Report) -> str:
    seconds = report.cost.seconds
    stages = ", ".join(f"{printable(k)} {v:.1f} s" for k, v in seconds.items())
    passes = f"; {number(report.cost.forward_images)} images forward, {number(report.cost.backward_images)} backward"
    total = f"Took {sum(seconds.values()):.1f} s" + (f" ({stages})" if stages else "")
    return total + (passes if report.verb == "detect" else "")


def class_name(report: Report, label: int) -> str:
    """7 'horse', or plain 7 where the class has no other name."""
    name = report.dataset.class_names[label]
    return str(label) if name == str(label) else f"{label} '{printable(name, 60)}'"


def _classes(report: Report, kind: str) -> str:
    """The classes that findings of a kind name: "class 7 'horse'", or "classes 1, 2"."""
    labels = dict.fromkeys(finding.target for finding in report.findings if finding.kind == kind)
    names = listed([class_name(report, label) for label in labels])
    return f"class {names}" if len(labels) == 1 else f"classes {names}"


def shape(image_shape: tuple[int, ...]) -> str:
    return "x".join(map(str, image_shape))


def listed(names: list[str], most: int = MAX_LISTED) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def number(n: int) -> str:
    """12 345, in groups of three digits."""
    return f"{n:,}".replace(",", " ")


def count(n: int, one: str, many: str | None = None) -> str:
    return f"{number(n)} {one if n == 1 else many or one + 's'}"


def percent(part: int, whole: int) -> str:
    """100% and 0% are said of all and none only."""
    if part in (0, whole):
        return f"{part / whole:.0%}"
    return f"{min(max(100 * part / whole, 0.1), 99.9):.3g}%"


def table(report: Report) -> list[str]:
    """Every class in numbers, as lines of aligned columns."""
    cells: list[tuple[str, ...]] = [("class", "images", "in images", "in model", "in gradients", "inside", "p")]
    for row in report.classes:
        values = (row.image_statistic, row.model_statistic, row.alignment, row.separation, row.p_value)
        numbers = ("-" if value is None else f"{value:.3g}" for value in values)
        cells.append((class_name(report, row.label), str(row.count), *numbers))
    first, *others = [max(map(len, column)) for column in zip(*cells, strict=True)]
    forms = [f"{{:<{first}}}", *(f"{{:>{width}}}" for width in others)]
    return ["  ".join(forms).format(*row) for row in cells]
