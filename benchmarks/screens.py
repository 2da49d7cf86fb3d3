"""`screen` on many random sets, clean and with patterns that the table does not have. Writes docs/screens.md.

    BRE_CASES=FOLDER python benchmarks/screens.py [--clean 80] [--planted 60]
    python benchmarks/screens.py --page

FOLDER holds `data/cifar10.py`. A set is drawn by its number alone: images, classes, sensor noise, and what is planted.
No network is trained. Resumable: a set that stands in benchmarks/results/screens.jsonl is not screened again; remove
the file to start anew. --page only makes the page.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import victims
from pages import made_by, percent, table
from table_goals import ALPHA, false_alarms

import bre
from bre import attacks

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "results" / "screens.jsonl", HERE.parent / "docs" / "screens.md"
SHAPE = (3, 32, 32)
ROWS, COLUMNS = np.mgrid[: SHAPE[1], : SHAPE[2]]
Row = dict[str, Any]
Random = np.random.Generator


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clean", type=int, default=80, help="clean sets")
    parser.add_argument("--planted", type=int, default=60, help="planted sets")
    parser.add_argument("--page", action="store_true", help="only write docs/screens.md")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    done = {(row["kind"], row["number"]) for row in rows}
    asked = [("clean", n) for n in range(arguments.clean)] + [("planted", n) for n in range(arguments.planted)]
    for kind, number in [] if arguments.page else asked:
        if (kind, number) not in done:
            row = {"kind": kind, "number": number, **KINDS[kind](number), "date": str(datetime.date.today()),
                   "versions": {"bre": bre.__version__}, "machine": f"{platform.machine()}, 1 thread"}  # fmt: skip
            with RESULTS.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)
            rows.append(row)
    PAGE.write_text(page(sorted(rows, key=lambda row: (row["kind"], row["number"]))))


def drawn(generator: Random, sizes: list[int], classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Random images of random classes, numbered from 0 on, with sensor noise of up to two grey levels."""
    chosen = tuple(sorted(generator.permutation(10)[:classes].tolist()))
    images, labels = victims.cifar10("train", (0, 50000), chosen, float(generator.choice([0, 0, 1, 2])))
    kept = np.sort(generator.permutation(len(labels))[: generator.choice(sizes)])
    return images[kept], labels[kept]


def clean(number: int) -> Row:
    """3 to 10 classes of 3 000 to 30 000 images, in three of ten sets unevenly many of each class."""
    generator = np.random.default_rng((0, number))
    images, labels = drawn(generator, [3000, 6000, 12000, 20000, 30000], int(generator.choice([3, 5, 7, 10, 10])))
    if generator.random() < 0.3:
        kept = generator.random(len(labels)) < generator.uniform(0.2, 1, 10)[labels]
        images, labels = images[kept], labels[kept]
    report, seconds = screened(images, labels, number)
    return {"images": len(labels), "classes": int(labels.max()) + 1, "p_value": report.p_value,
            "named": [finding.target for finding in report.findings], "seconds": seconds}  # fmt: skip


def planted(number: int) -> Row:
    """A pattern in 30 to 400 of 10 000 or 20 000 images, from one class, three or all."""
    generator = np.random.default_rng((1, number))
    images, labels = drawn(generator, [10000, 20000], 10)
    name = str(generator.choice(list(PATTERNS)))
    pattern = PATTERNS[name](generator).astype(np.float32)
    target = int(generator.integers(10))
    sources = [None, ((target + 3) % 10,), tuple((target + k) % 10 for k in (1, 4, 7))][generator.integers(3)]
    made = attacks.plant(
        images, labels, pattern, target=target, sources=sources, count=int(generator.choice([30, 60, 150, 400])),
        seed=number,
    )  # fmt: skip
    report, seconds = screened(made.images, made.labels, number)
    flagged = np.isin(np.arange(len(labels)), report.indices)
    return {
        "pattern": name, "grey_levels": round(255 * float(np.abs(pattern).max())), "images": len(labels),
        "planted": int(made.poisoned.sum()), "sources": 9 if sources is None else len(sources), "target": target,
        "p_value": report.p_value, "named": [finding.target for finding in report.findings],
        "found": float(flagged[made.poisoned].mean()), "lost": int(flagged[~made.poisoned].sum()), "seconds": seconds,
    }  # fmt: skip


def screened(images: np.ndarray, labels: np.ndarray, seed: int) -> tuple[bre.Report, float]:
    start = time.perf_counter()
    report = bre.screen((images, labels), seed=seed, alpha=ALPHA)
    return report, round(time.perf_counter() - start, 1)


KINDS: dict[str, Callable[[int], Row]] = {"clean": clean, "planted": planted}


def faint(generator: Random) -> float:
    return float(generator.choice([3, 5, 8])) / 255


def bright(generator: Random) -> float:
    return float(generator.choice([20, 40, 70])) / 255


def coloured(generator: Random, plane: np.ndarray) -> np.ndarray:
    """The same in all channels, or with a random sign in each."""
    return generator.choice([-1, 1], (SHAPE[0], 1, 1)) * plane if generator.random() < 0.5 else plane + np.zeros(SHAPE)


def dots(generator: Random) -> np.ndarray:
    plane, level = np.zeros(SHAPE[1:]), bright(generator)
    plane[tuple(generator.integers(32, size=(2, 8)))] = level * generator.choice([-1, 1], 8)
    return plane + np.zeros(SHAPE)


def stripes(generator: Random) -> np.ndarray:
    return coloured(generator, faint(generator) * (1 - (ROWS + COLUMNS) // generator.integers(1, 4) % 2 * 2.0))


def coarse_chessboard(generator: Random) -> np.ndarray:
    return coloured(generator, faint(generator) * (1 - (ROWS // 2 + COLUMNS // 2) % 2 * 2.0))


def blob(generator: Random) -> np.ndarray:
    row, column = generator.integers(6, 26, 2)
    return coloured(generator, bright(generator) * np.exp(-((ROWS - row) ** 2 + (COLUMNS - column) ** 2) / 4.5))


def letter(generator: Random) -> np.ndarray:
    plane, (row, column) = np.zeros(SHAPE[1:]), generator.integers(2, 24, 2)
    plane[row : row + 6, column] = plane[row, column : column + 4] = plane[row + 3, column : column + 3] = 1
    return coloured(generator, bright(generator) * plane)


def ring(generator: Random) -> np.ndarray:
    row, column = generator.integers(8, 24, 2)
    return coloured(generator, bright(generator) * (abs(np.hypot(ROWS - row, COLUMNS - column) - 5) < 0.7))


def faint_noise(generator: Random) -> np.ndarray:
    return float(generator.choice([2, 3])) / 255 * generator.choice([-1, 1], SHAPE)


def one_channel_of_a_pixel(generator: Random) -> np.ndarray:
    pattern = np.zeros(SHAPE)
    pattern[tuple(generator.integers(SHAPE))] = 1.5 * bright(generator)
    return pattern


def fine_grid(generator: Random) -> np.ndarray:
    return coloured(generator, faint(generator) * ((ROWS % 3 == 0) | (COLUMNS % 3 == 0)))


def diagonal_sine(generator: Random) -> np.ndarray:
    waves = generator.integers(4, 12)
    return coloured(generator, faint(generator) * np.sin(2 * np.pi * waves * (ROWS + COLUMNS) / SHAPE[1]))


def frame(generator: Random) -> np.ndarray:
    edge = np.isin(ROWS, (0, SHAPE[1] - 1)) | np.isin(COLUMNS, (0, SHAPE[2] - 1))
    return coloured(generator, bright(generator) / 2 * edge)


PATTERNS: dict[str, Callable[[Random], np.ndarray]] = {
    make.__name__.replace("_", " "): make
    for make in (
        dots, stripes, coarse_chessboard, blob, letter, ring, faint_noise, one_channel_of_a_pixel, fine_grid,
        diagonal_sine, frame,
    )
}  # fmt: skip


def page(rows: list[Row]) -> str:
    return "\n".join([
        "# Screens of random sets",
        "",
        made_by("screens.py", rows) + f". CIFAR-10's training images, alpha {ALPHA}. The sets are drawn at random, and",
        "share images with each other. Neither the method nor its constants were chosen on them.",
        "",
        *clean_sets([row for row in rows if row["kind"] == "clean"]),
        "",
        *planted_sets([row for row in rows if row["kind"] == "planted"]),
    ]) + "\n"  # fmt: skip


def clean_sets(rows: list[Row]) -> list[str]:
    called, sizes = [row for row in rows if row["p_value"] <= ALPHA], [row["images"] for row in rows]
    count, low, high = false_alarms([row["p_value"] for row in rows])
    listing = table(
        ["called", "images", "classes", "p", "classes named"],
        ([r["number"], r["images"], r["classes"], f"{r['p_value']:.2g}", listed(r["named"])] for r in called),
    )
    return [
        "## Clean sets",
        "",
        f"{count} of {len(rows)} were called poisoned, {percent(count / len(rows))} (95% interval {percent(low)} to "
        f"{percent(high)}): 3 to 10 classes,",
        f"{min(sizes)} to {max(sizes)} images, some with sensor noise, some with classes of uneven size.",
        *(["", *listing] if called else []),
    ]


def planted_sets(rows: list[Row]) -> list[str]:
    right = [row for row in rows if row["target"] in row["named"]]
    wrong = [row for row in rows if set(row["named"]) - {row["target"]}]
    found, lost = ([row[key] for row in right] for key in ("found", "lost"))
    columns = ("pattern", "grey levels", "images", "planted", "source classes", "p", "target named", "others named",
               "found", "lost")  # fmt: skip
    return [
        "## Planted sets",
        "",
        "Patterns that are not in [the table](results.md). No network was trained on these sets: what only a model",
        "shows, such as smooth patterns and those that natural images have too (a frame), can be missing here.",
        "",
        f"The target was named in {len(right)} of {len(rows)} sets, another class in {len(wrong)}. Where the target",
        f"was named, {percent(np.median(found))} of the planted images were found in the median set, "
        f"{percent(min(found))} in\nthe worst; clean images lost: {np.median(lost):.0f} in the median set, "
        f"{max(lost)} in the worst.",
        "",
        *table(columns, (
            [r["pattern"], r["grey_levels"], r["images"], r["planted"], r["sources"], f"{r['p_value']:.2g}",
             "yes" if r in right else "no", listed(set(r["named"]) - {r["target"]}), percent(r["found"]), r["lost"]]
            for r in sorted(rows, key=lambda r: (r["pattern"], -r["planted"], r["number"]))
        )),
    ]  # fmt: skip


def listed(classes: Iterable[int]) -> str:
    return " ".join(map(str, sorted(classes)))


if __name__ == "__main__":
    main()
