"""Draw docs/method.svg: the images' view at work on a small synthetic set, whose numbers are all computed here.

python docs/make_figures.py
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bre import attacks
from bre.inputs import open_dataset
from bre.method import clusters, stats
from bre.report import StatisticTest
from bre.verbs.verdict import judge
from bre.views.evidence import Carriers, Statistic
from bre.views.images import search_images

FILE = Path(__file__).parent / "method.svg"
SHAPE = (3, 16, 16)
CLASSES, EACH = 8, 400
TARGET, CLEAN = 3, 1  # the poisoned class, and the clean one that is drawn above it
PLANTED, GREY_LEVELS = 40, 3
ALPHA = 0.05

# Pixels of the figure.
WIDTH, HEIGHT = 860, 420
LEFT, PANEL = 60, 480  # of the histograms: where they start, how wide they are
ROW = 120  # height of one histogram
TOPS = (56, 250)
DOTS = 620  # where the panel of class statistics starts
SCORES = (-6.0, 22.0)  # range of the axis
BIN = 0.5
BLUE, RED, GREY, BAND = "#4477aa", "#cc3311", "#666666", "#fde9c9"


@dataclass(frozen=True)
class Example:
    """carriers: of the target class; poisoned: bool (n,), of its images, the truth; clean: (m,), scores of another
    class along the same direction; mode: of the target's scores; cut: from there on most images are flagged."""

    carriers: Carriers
    poisoned: np.ndarray
    clean: np.ndarray
    mode: stats.Mode
    cut: float
    statistic: Statistic
    test: StatisticTest


def scenes(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (n, C, H, W) and labels int64 (n,): smooth random scenes; a class is the direction of broad stripes."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.repeat(np.arange(CLASSES), EACH))
    one = (len(labels), 1, 1, 1)
    frequency = np.hypot(np.fft.fftfreq(SHAPE[1])[:, None], np.fft.fftfreq(SHAPE[2]))
    frequency[0, 0] = 1 / SHAPE[1]
    source = generator.normal(size=(len(labels), 1, *SHAPE[1:])) + 0.5 * generator.normal(size=(len(labels), *SHAPE))
    scene = np.fft.ifft2(np.fft.fft2(source) / frequency**2).real
    scene *= 45 * generator.uniform(0.4, 1.3, one) / scene.std()
    angle = np.pi * labels.reshape(one) / CLASSES + generator.normal(0, 0.1, one)
    cycles, phase = generator.uniform(0.7, 1.6, one), generator.uniform(0, 2 * np.pi, one)
    row, column = np.indices(SHAPE[1:]) / SHAPE[1]
    stripes = np.cos(2 * np.pi * cycles * (row * np.cos(angle) + column * np.sin(angle)) + phase)
    scene += 40 * generator.uniform(0.4, 1.4, (len(labels), SHAPE[0], 1, 1)) * stripes
    noise = generator.normal(0, 1, scene.shape)
    return np.clip(np.rint(128 + scene + noise), 0, 255).astype(np.uint8), labels


def example() -> Example:
    """A chessboard planted in one class, searched and judged as `bre.screen` does."""
    pattern = attacks.chessboard(SHAPE, GREY_LEVELS / 255)
    planted = attacks.plant(*scenes(0), pattern, target=TARGET, count=PLANTED, seed=0)
    images = open_dataset((planted.images, planted.labels))
    evidence = search_images(images, seed=0, backend="auto", progress=lambda stage, fraction: None)
    verdict = judge([evidence], ALPHA)
    assert verdict.outliers == (TARGET,)
    statistic = evidence.statistics[0]
    carriers = evidence.carriers(TARGET, statistic.name)
    others = planted.labels[planted.labels != TARGET]
    assert len(others) == len(carriers.other_scores)  # all of them
    return Example(
        carriers,
        np.isin(carriers.members, np.flatnonzero(planted.poisoned)),
        carriers.other_scores[others == CLEAN],
        stats.second_mode(carriers.scores, floor=clusters.MODE_FLOOR, width=clusters.MODE_WIDTH),
        stats.flag_threshold(carriers.scores, carriers.flagged),
        statistic,
        verdict.tests[0],
    )


def figure() -> str:
    """The figure as SVG."""
    found = example()
    title = "Scores along the direction found in the poisoned class, and the statistics of all classes"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12" role="img">',
        f"<title>{title}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        *histograms(found),
        *class_statistics(found),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def histograms(found: Example) -> list[str]:
    scores, poisoned = found.carriers.scores, found.poisoned
    mode = found.mode
    axis = TOPS[1] + ROW
    poison = f'<tspan fill="{RED}">{poisoned.sum()} poisoned</tspan>'
    band = rect(across(mode.low), TOPS[1], across(mode.high) - across(mode.low), ROW, BAND)
    lines = [
        text(LEFT, 20, "a  Scores of two classes along the direction found in class 3", bold=True),
        text(LEFT, TOPS[0] - 12, f"class {CLEAN}, clean: {len(found.clean)} images"),
        *bars([(found.clean, BLUE)], found.cut, TOPS[0]),
        band,
        text(LEFT, TOPS[1] - 24, f"class {TARGET}: {(~poisoned).sum()} clean images and {poison}"),
        *bars([(scores[~poisoned], BLUE), (scores[poisoned], RED)], found.cut, TOPS[1]),
        upright(across(clusters.MODE_FLOOR), TOPS[1], axis, GREY, dashed=True),
        text(across(clusters.MODE_FLOOR), TOPS[1] - 6, "floor of the scan", GREY, "middle"),
        upright(across(found.cut), TOPS[1], axis, "black"),
        text(across(found.cut) - 4, TOPS[1] + 12, "flagged from here", anchor="end"),
        text(across(mode.centre), TOPS[1] - 6, f"second mode, centre {mode.centre:.1f}", anchor="middle"),
    ]
    for top in TOPS:
        lines += [f'<path d="M{LEFT} {top + ROW}h{PANEL}" stroke="{GREY}"/>', *counts(top)]
        for tick in range(int(SCORES[0]) + 1, int(SCORES[1]) + 1, 5):
            lines.append(text(across(tick), top + ROW + 16, str(tick), GREY, "middle"))
    return [*lines, text(LEFT + PANEL / 2, HEIGHT - 12, "score, in standard deviations", anchor="middle")]


def class_statistics(found: Example) -> list[str]:
    """Every class's statistic on a logarithmic axis, and the threshold."""
    values, threshold, mode = found.statistic.values, found.test.threshold, found.mode
    assert threshold is not None
    low, high = TOPS[1] + ROW, TOPS[0]
    largest = np.log(1.6 * values.max())

    def up(value: float) -> float:
        return float(low - (low - high) * np.log(value) / largest)

    lines = [
        text(DOTS, 20, "b  Statistics of all classes", bold=True),
        f'<path d="M{DOTS} {low}h220" stroke="{GREY}"/>',
        f'<path d="M{DOTS} {up(threshold):.1f}h220" stroke="black"/>',
        text(DOTS + 220, up(threshold) + 15, f"outlier from {threshold:.1f} on", anchor="end"),
        text(DOTS + 110, HEIGHT - 12, "class", anchor="middle"),
    ]
    for label, value in enumerate(values):
        middle = DOTS + 20 + 180 * label / (len(values) - 1)
        colour = RED if label == TARGET else BLUE
        lines.append(f'<circle cx="{middle:.1f}" cy="{up(value):.1f}" r="5" fill="{colour}"/>')
        lines.append(text(middle, low + 16, str(label), GREY, "middle"))
    for value in (1, 2, 5, 10):
        lines.append(text(DOTS - 6, up(value) + 4, str(value), GREY, "end"))
    beside = DOTS + 20 + 180 * TARGET / (len(values) - 1) + 10
    nats = text(beside, up(values[TARGET]) - 8, f"scan {mode.log_likelihood_ratio:.1f} nats", RED)
    return [*lines, nats, text(beside, up(values[TARGET]) + 7, f"statistic {values[TARGET]:.1f}", RED)]


def across(score: float) -> float:
    """Where a score is on the axis."""
    return LEFT + PANEL * (score - SCORES[0]) / (SCORES[1] - SCORES[0])


def counts(top: float) -> list[str]:
    """The labels of the axis of counts."""
    return [text(LEFT - 6, top + ROW - tall(count) + 4, str(count), GREY, "end") for count in (1, 10, 50)]


def tall(count: int) -> float:
    """Height of a bar: the axis is of square roots, so that a few images are seen beside many."""
    return float(ROW * np.sqrt(count / 100))


def bars(groups: Sequence[tuple[np.ndarray, str]], cut: float, top: float) -> list[str]:
    """Histograms of scores (n,) in a colour each, stacked; the cut is an edge."""
    edges = cut + BIN * np.arange(np.ceil((SCORES[0] - cut) / BIN), np.floor((SCORES[1] - cut) / BIN) + 1)
    below = np.zeros(len(edges) - 1, int)
    lines, wide = [], across(BIN) - across(0) - 1
    for scores, colour in groups:
        upper = below + np.histogram(scores, edges)[0]
        for edge, low, high in zip(edges, below.tolist(), upper.tolist(), strict=False):
            lines.append(rect(across(edge), top + ROW - tall(high), wide, tall(high) - tall(low), colour))
        below = upper
    return lines


def rect(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'


def upright(x: float, top: float, bottom: float, colour: str, dashed: bool = False) -> str:
    dashes = ' stroke-dasharray="4 3"' if dashed else ""
    return f'<path d="M{x:.1f} {top}V{bottom}" stroke="{colour}"{dashes}/>'


def text(x: float, y: float, words: str, colour: str = "black", anchor: str = "start", bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}"{weight}>{words}</text>'


if __name__ == "__main__":
    FILE.write_text(figure(), "utf-8")
