"""What the rows of the accuracy table say against the goals: pure functions of rows and cases."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from benchmarks.accuracy.victims import Attack, Case

Row = dict[str, Any]
ALPHA, LEARNED = 0.05, 0.8  # attack success from which a backdoor counts as learned
SOURCES, FOUND, LOST = 0.9, 0.99, 0.001
SUCCESS_LEFT, SUCCESS_ABOVE, ACCURACY_BELOW = 0.049, 0.01, 0.005
PLAIN, WHITENED = 0.8, 0.95
FEW = {50: 0.9, 20: 0.9, 10: 0.8}  # poisoned images: least share found


def precision_and_recall(named: set[int], true: set[int]) -> tuple[float, float]:
    return len(named & true) / max(len(named), 1), len(named & true) / len(true)


def spread(statistics: Iterable[float]) -> float:
    """Standard deviation of the logarithms of classes' statistics, the largest left out."""
    return float(np.log(sorted(statistics))[:-1].std(ddof=1))


def typical(spreads: Sequence[float]) -> float:
    """Their root mean square."""
    return float(np.sqrt(np.mean(np.square(spreads))))


@dataclass(frozen=True)
class Judged:
    """A case and what was measured of it: {"case": name, stage: result, ...}, any stages missing."""

    case: Case
    row: Row

    @property
    def measured(self) -> bool:
        return "train" in self.row or "judge" in self.row

    @property
    def success(self) -> list[float]:
        return self.row["train"]["success"]

    @property
    def family(self) -> str | None:
        """clean, ladder, other, learned or unlearned; None where nothing was measured."""
        if not self.measured:
            return None
        if not self.case.trained:
            return "ladder"
        if not self.case.attacks:
            return "clean"
        if not all(a.additive and a.target not in (None, *(a.sources or ())) for a in self.case.attacks):
            return "other"
        return "learned" if min(self.success) >= LEARNED else "unlearned"

    @property
    def filters(self) -> dict[str, Row]:
        """The published filters' results by name."""
        return {k: v for k, v in self.row.get("baselines", {}).items() if isinstance(v, dict) and "found" in v}

    def verdict(self, verb: str) -> Row | None:
        return self.row.get("judge", {}).get(verb)

    def named(self, verb: str) -> list[int]:
        """Classes that the verb calls targets."""
        return sorted({finding["target"] for finding in (self.verdict(verb) or {"findings": []})["findings"]})

    def right(self, verb: str) -> bool:
        """Whether the targets named are the attacks' targets, all of them and no others."""
        every = range(len(self.case.classes))
        true = {t for a in self.case.attacks for t in (every if a.target is None else (a.target,))}
        return set(self.named(verb)) == true

    def lost_count(self, verb: str) -> int:
        verdict = self.row["judge"][verb]
        return len(verdict["flagged"]) - round((verdict["found"] or 0) * sum(a.count for a in self.case.attacks))

    def sources(self, verb: str) -> list[tuple[float, float]]:
        """(precision, recall) of the sources named, for each attack that has a target other than its sources."""
        rates = []
        for attack in self.case.attacks:
            others = set(range(len(self.case.classes))) - {attack.target}
            true = others if attack.sources is None else set(attack.sources)
            if attack.target is not None and attack.target not in true:
                finding = self._finding(verb, attack)
                named = set(finding["sources"]) if finding else set()
                rates.append(precision_and_recall(named, true))
        return rates

    def cosines(self, verb: str) -> list[tuple[float, float]]:
        """(plain, whitened) for each additive attack; (0, 0) where it is not found."""
        additive = [attack for attack in self.case.attacks if attack.additive]
        findings = [self._finding(verb, attack) for attack in additive]
        return [tuple(finding["cosines"][i]) if finding else (0.0, 0.0) for i, finding in enumerate(findings)]

    def _finding(self, verb: str, attack: Attack) -> Row | None:
        """The one that names the attack's target; for all-to-all, the surest of all."""
        findings = [f for f in self.row["judge"][verb]["findings"] if attack.target in (None, f["target"])]
        return min(findings, key=lambda finding: finding["p_value"], default=None)


def judged(rows: Iterable[Row], cases: Iterable[Case]) -> list[Judged]:
    """In the order of the cases. Raises KeyError for a row of no case."""
    by_name = {case.name: {"case": case.name} for case in cases}
    for row in rows:
        by_name[row["case"]] |= row
    return [Judged(case, by_name[case.name]) for case in cases]


@dataclass(frozen=True)
class Goal:
    """met: None, and got: "", where nothing was measured."""

    what: str
    wanted: str
    got: str = ""
    met: bool | None = None


def goals(items: Sequence[Judged]) -> list[Goal]:
    learned = [item for item in items if item.family == "learned" and item.verdict("detect")]
    return [
        _detected(learned),
        _sources(learned),
        *_images(learned),
        *_retrained(items),
        *_quiet(items),
        *_patterns(learned),
        *_few(items),
        _beside(items),
    ]


def _detected(learned: Sequence[Judged]) -> Goal:
    goal = "learned additive attacks detected, right target", "all"
    count = sum(item.right("detect") for item in learned)
    return Goal(*goal, f"{count} of {len(learned)}", count == len(learned)) if learned else Goal(*goal)


def _sources(learned: Sequence[Judged]) -> Goal:
    goal = "sources named, additive: precision, recall, averages", f">= {SOURCES}"
    rates = [pair for item in learned for pair in item.sources("detect")]
    if not rates:
        return Goal(*goal)
    precision, recall = np.mean(rates, axis=0)
    return Goal(*goal, f"{precision:.3f}, {recall:.3f}", bool(min(precision, recall) >= SOURCES))


def _images(learned: Sequence[Judged]) -> list[Goal]:
    found, lost = ([item.row["judge"]["detect"][key] for item in learned] for key in ("found", "lost"))
    whole = [item.row["whole"]["found"]["detect"] for item in learned if item.row.get("whole", {}).get("found")]
    return [
        _each("recall, additive", f">= {FOUND:.0%} on every row", found, lambda x: x >= FOUND, min),
        replace(
            _each(
                "- counting only images in which clipping left at least a quarter of the pattern",
                "no goal of its own",
                whole,
                lambda x: x >= FOUND,
                min,
            ),
            met=None,
        ),
        _each("false positive rate, additive", f"<= {LOST:.1%} on every row", lost, lambda x: x <= LOST, max),
    ]


def _each(
    what: str,
    wanted: str,
    values: Sequence[float],
    good: Callable[[float], bool],
    worst: Callable[[Sequence[float]], float],
) -> Goal:
    """A goal of every row: how many reach it, the median, and the worst."""
    if not values:
        return Goal(what, wanted)
    count = sum(map(good, values))
    text = f"{count} of {len(values)} rows; median {np.median(values):.2%}, worst {worst(values):.2%}"
    return Goal(what, wanted, text, count == len(values))


def _retrained(items: Sequence[Judged]) -> list[Goal]:
    rows = [item.row["retrain"] for item in items if item.row.get("retrain", {}).get("cleansed")]
    left = [max(row["cleansed"]["success"]) for row in rows]
    possible = [
        success for success, row in zip(left, rows, strict=True) if max(row["reference"]["success"]) <= SUCCESS_LEFT
    ]
    above = [max(np.subtract(row["cleansed"]["success"], row["reference"]["success"]).tolist()) for row in rows]
    below = [row["reference"]["accuracy"] - row["cleansed"]["accuracy"] for row in rows]
    median = "attack success rate after cleansing, minus that without poisoned images", "<= 1 point on the median row"
    return [
        _each(
            "attack success rate after cleansing, attacks of every kind",
            f"<= {SUCCESS_LEFT:.1%} on every row",
            left,
            lambda x: x <= SUCCESS_LEFT,
            max,
        ),
        replace(
            _each(
                "- of the rows that reach the goal without poisoned images",
                "no goal of its own",
                possible,
                lambda x: x <= SUCCESS_LEFT,
                max,
            ),
            met=None,
        ),
        Goal(*median, f"median {np.median(above):.2%}, worst {max(above):.2%}", bool(np.median(above) <= SUCCESS_ABOVE))
        if rows
        else Goal(*median),
        _each(
            "accuracy without poisoned images, minus that after cleansing",
            "<= 0.5 points on every row",
            below,
            lambda x: x <= ACCURACY_BELOW,
            max,
        ),
    ]


def _quiet(items: Sequence[Judged]) -> list[Goal]:
    lines = []
    for verb in ("detect", "screen"):
        quiet, _ = p_values(items, verb)
        goal = f"false alarms of `{verb}` on clean victims", f"<= {ALPHA:.0%} within the interval"
        if quiet:
            count, low, high = false_alarms(quiet)
            lines.append(Goal(*goal, f"{count} of {len(quiet)}, {low:.1%} to {high:.1%}", low <= ALPHA))
        else:
            lines.append(Goal(*goal))
    return lines


def _patterns(learned: Sequence[Judged]) -> list[Goal]:
    pairs = [pair for item in learned for pair in item.cosines("detect")]
    lines = []
    for i, (name, least) in enumerate((("plain", PLAIN), ("whitened", WHITENED))):
        goal = f"estimated pattern against the true one, {name} cosine, additive", f">= {least} (median)"
        median = float(np.median([pair[i] for pair in pairs])) if pairs else 0.0
        lines.append(Goal(*goal, f"{median:.3f}", median >= least) if pairs else Goal(*goal))
    return lines


def _few(items: Sequence[Judged]) -> list[Goal]:
    lines = []
    for count, least in FEW.items():
        rows = [item for item in items if item.family == "ladder" and item.case.attacks[0].count == count]
        found = [item.row["judge"]["screen"]["found"] for item in rows]
        goal = f"recall of {count} poisoned images of 20 000, by `screen`", f">= {least:.0%} on every row"
        lines.append(_each(*goal, found, partial(operator.le, least), min))
    rows = [item for item in items if item.family == "ladder" and item.case.attacks[0].count in FEW]
    spoiled = sum(item.lost_count("screen") > 0 or bool(_invented(item, "screen")) for item in rows)
    goal = "rows of these with a false positive or a wrong class", "none"
    return [*lines, Goal(*goal, f"{spoiled} of {len(rows)}", spoiled == 0) if rows else Goal(*goal)]


def _beside(items: Sequence[Judged]) -> Goal:
    goal = (
        "recall minus false positive rate, against activation clustering and spectral signatures",
        "never worse, row by row",
    )
    rows = [item for item in items if item.case.attacks and item.filters and item.verdict("detect")]
    worse = [item for item in rows if _surpassed(item)]
    return Goal(*goal, f"worse on {len(worse)} of {len(rows)} rows", not worse) if rows else Goal(*goal)


def _surpassed(item: Judged) -> list[str]:
    """The published filters that do better on a row."""
    own = item.row["judge"]["detect"]
    return [name for name, other in item.filters.items() if other["found"] - other["lost"] > own["found"] - own["lost"]]


def _invented(item: Judged, verb: str) -> list[int]:
    """Classes called targets that are none."""
    targets = {attack.target for attack in item.case.attacks}
    return [] if None in targets else [k for k in item.named(verb) if k not in targets]


def p_values(items: Iterable[Judged], verb: str) -> tuple[list[float], list[float]]:
    """Of clean victims, and of learned attacks of every kind."""
    groups: tuple[list[float], list[float]] = [], []
    for item in items:
        if item.verdict(verb) and item.case.trained and (not item.case.attacks or min(item.success) >= LEARNED):
            groups[bool(item.case.attacks)].append(item.row["judge"][verb]["p_value"])
    return groups


def false_alarms(p_values: Sequence[float]) -> tuple[int, float, float]:
    """How many at ALPHA, and the 95% Clopper-Pearson interval of their rate."""
    count = sum(p <= ALPHA for p in p_values)
    interval = binomtest(count, len(p_values)).proportion_ci(0.95, method="exact")
    return count, float(interval.low), float(interval.high)


def spreads(items: Iterable[Judged]) -> list[float]:
    """Between the least and the largest accuracy of clean victims that differ in nothing but the seed, a group each."""
    groups: dict[Case, list[float]] = {}
    for item in items:
        if item.family == "clean" and "train" in item.row:
            groups.setdefault(replace(item.case, name="", seed=0), []).append(item.row["train"]["accuracy"])
    return [max(group) - min(group) for group in groups.values() if len(group) > 1]


def area(clean: Sequence[float], attacked: Sequence[float]) -> float:
    """Under the ROC curve of 1 - p: the chance that an attacked case has the smaller p-value, ties counted half."""
    return float(roc_auc_score([0] * len(clean) + [1] * len(attacked), 1 - np.array([*clean, *attacked])))


def failures(item: Judged) -> list[str]:
    """Where a row falls short, in words; empty where it does not, or was not measured."""
    if item.family == "clean":
        return [
            f"`{verb}` gives a false alarm, class {_all(item.named(verb))}"
            for verb in ("screen", "detect")
            if item.named(verb)
        ]
    lines: list[str] = []
    for verb in ("screen", "detect"):
        if found := item.verdict(verb):
            lines += _misses(item, verb, found)
    if retrained := item.row.get("retrain"):
        cleansed, reference = retrained["cleansed"], retrained["reference"]
        if max(cleansed["success"]) > SUCCESS_LEFT:
            lines.append(
                f"attack success rate {max(cleansed['success']):.1%} after cleansing, "
                f"{max(reference['success']):.1%} without poisoned images"
            )
        if (below := reference["accuracy"] - cleansed["accuracy"]) > ACCURACY_BELOW:
            lines.append(f"accuracy {100 * below:.1f} points below that without poisoned images")
    if item.filters and item.verdict("detect") and item.case.attacks and (better := _surpassed(item)):
        lines.append(f"recall minus false positive rate is better by {_all(better)}")
    return lines


def _misses(item: Judged, verb: str, found: Row) -> list[str]:
    if not item.named(verb):
        return [f"`{verb}` misses the attack (p = {found['p_value']:.2g})"]
    lines = [] if item.right(verb) else [f"`{verb}` names {_all(item.named(verb))}"]
    least = FEW.get(item.case.attacks[0].count, FOUND) if item.family == "ladder" else FOUND
    if found["found"] < least:
        lines.append(f"`{verb}` has a recall of {found['found']:.1%}")
    if found["lost"] > LOST or (item.family == "ladder" and item.lost_count(verb)):
        count = item.lost_count(verb)
        lines.append(f"`{verb}` has {count} false positive{'s' * (count != 1)}")
    if verb == "detect" and item.family == "learned":
        lines += [f"sources: precision {p:.2f}, recall {r:.2f}" for p, r in item.sources(verb) if min(p, r) < SOURCES]
        lines += [
            f"pattern: cosine {plain:.2f}, whitened {whitened:.2f}"
            for plain, whitened in item.cosines(verb)
            if plain < PLAIN or whitened < WHITENED
        ]
    return lines


def _all(values: Iterable[Any]) -> str:
    return ", ".join(map(str, values))
