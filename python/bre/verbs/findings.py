"""From verdict and evidence to the report's findings and rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from scipy import special

from .._progress import Progress
from ..inputs import ImageSet
from ..method import class_property, stats
from ..report import ClassRow, Finding, Histogram
from ..views.class_search import MIN_IMAGES
from ..views.evidence import Carriers, Evidence
from .verdict import Verdict, ViewVerdict, judge_view

# patterns; of one class, that are looked for after the first, at most; source: chosen, each takes a search of the class
MAX_FURTHER_PATTERNS = 8


def findings(verdict: Verdict, progress: Progress) -> Iterator[Finding]:
    """One for each outlier: the images that the first view that sees any flags, with what the other views add; then one
    for each property of a class, unless it is what is planted there once more."""
    planted: dict[int, np.ndarray] = {}
    for label in verdict.outliers:
        progress(f"recovering the pattern of class {label}", 0.0)
        seen_by = verdict.seen_by(label)
        first, carriers = first_carriers(label, seen_by)
        carriers = with_further_patterns(label, first, carriers)
        for view in verdict.views:
            if view is not first:
                carriers = view.evidence.corroborate(label, carriers)
        seen_in = tuple(view.evidence.view for view in seen_by)
        planted[label] = carriers.members[carriers.flagged]
        yield finding_of(label, float(verdict.p_values[label]), carriers, seen_in)
    for view in verdict.views:
        unconfirmed = {label: p for label, p in view.unconfirmed.items() if label not in verdict.outliers}
        for label, carriers in view.evidence.properties(tuple(unconfirmed)).items():
            flagged = carriers.members[carriers.flagged]
            if label in planted and 2 * np.isin(planted[label], flagged).sum() > len(planted[label]):
                continue
            if label in unconfirmed:
                p_value = min(1.0, len(verdict.views) * unconfirmed[label])
            else:
                p_value = chance_of_property(carriers, len(verdict.p_values))
            yield finding_of(label, p_value, carriers, (view.evidence.view,), kind="property")


def first_carriers(label: int, seen_by: Sequence[ViewVerdict]) -> tuple[ViewVerdict, Carriers]:
    """Those of the first view that flags any image of an outlier: a view may know a target and no carrier. What the
    model alone flags by its pattern, and stands apart inside in no way, is taken from the inside view, if that calls
    the class too: a network that answers to a pattern need not have learned it from one."""
    looked = []
    for view in seen_by:
        looked.append((view, view.evidence.carriers(label, view.called_by[label])))
        if looked[-1][1].flagged.any() and view.evidence.view != "model":
            return looked[-1] if not _agree(looked) else looked[-2]
    return next((each for each in looked if each[1].flagged.any()), looked[0])


def _agree(looked: Sequence[tuple[ViewVerdict, Carriers]]) -> bool:
    """Whether the last two views flag the same images, for the most part."""
    if len(looked) < 2:
        return False
    first, second = (carriers.flagged for _, carriers in looked[-2:])
    return 2 * int((first & second).sum()) > max(int(first.sum()), int(second.sum()))


def with_further_patterns(label: int, view: ViewVerdict, carriers: Carriers) -> Carriers:
    """With the images that carry another pattern than the first: while the class is an outlier of the view without the
    images that are flagged. A trigger may be planted in parts, another part in each image, or be one of several."""
    for _ in range(MAX_FURTHER_PATTERNS if carriers.flagged.any() else 0):
        rest = view.evidence.without(label, carriers.members[carriers.flagged])
        again = None if rest is None else judge_view(rest, view.alpha)
        if again is None or label not in again.called_by:
            break
        more = again.evidence.carriers(label, again.called_by[label])
        if not (more.flagged & ~carriers.flagged).any():
            break
        carriers = replace(
            carriers,
            log_odds=np.maximum(carriers.log_odds, more.log_odds),
            flagged=carriers.flagged | more.flagged,
            scores=np.maximum(carriers.scores, more.scores),
            other_scores=np.maximum(carriers.other_scores, more.other_scores),
            patterns=carriers.patterns + 1,
        )
    return carriers


def chance_of_property(carriers: Carriers, classes: int) -> float:
    """Bound on the probability that so many images of some class lie further along a direction than all but RARE of the
    other classes' images, if the class is like the others."""
    count = len(carriers.flagged) // 2  # the other half made the direction
    seen = int(carriers.flagged.mean() * count)
    chance = float(special.bdtrc(seen - 1, count, class_property.RARE)) if seen else 1.0
    return min(1.0, classes * chance)


def finding_of(
    label: int, p_value: float, carriers: Carriers, seen_in: tuple[str, ...], kind: str = "poison"
) -> Finding:
    """seen_in: the views that call the class an outlier; kind: see `Finding`."""
    flagged, histogram = carriers.flagged, None
    if flagged.any():
        cut = stats.flag_threshold(carriers.scores, flagged)
        histogram = Histogram.of(carriers.scores, carriers.other_scores, cut=cut)
    return Finding(
        target=label,
        sources=carriers.sources,
        p_value=p_value,
        pattern=carriers.pattern,
        pattern_norm=None if carriers.pattern is None else float(np.linalg.norm(carriers.pattern.astype(np.float64))),
        indices=carriers.members[flagged],
        log_odds=carriers.log_odds[flagged].astype(np.float32),
        success_rate=carriers.success_rate,
        seen_in=seen_in,
        histogram=histogram,
        kind=kind,
        window=carriers.window,
        patterns=carriers.patterns,
    )


def class_rows(images: ImageSet, verdict: Verdict, evidence: Sequence[Evidence]) -> Iterator[ClassRow]:
    """The per-class table; with a note on each class that could not be searched."""
    columns = {statistic.name: statistic.values for each in evidence for statistic in each.statistics}
    columns |= {name: values for each in evidence for name, values in each.columns.items()}
    counts = np.bincount(images.labels, minlength=len(images.class_names))
    for label, (name, count) in enumerate(zip(images.class_names, counts.tolist(), strict=True)):
        measured = {key: float(column[label]) for key, column in columns.items() if np.isfinite(column[label])}
        tested = bool(np.isfinite(verdict.p_values[label]))
        note = ""
        if "image_statistic" not in measured:
            note = (
                f"not searched: {MIN_IMAGES} images without near duplicates are needed, its {count} images hold fewer"
            )
        yield ClassRow(
            label=label,
            name=name,
            count=count,
            tested=tested,
            p_value=float(verdict.p_values[label]) if tested else None,
            note=note,
            **measured,
        )
