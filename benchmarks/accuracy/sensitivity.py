"""How much verdicts and flags hang on each constant: all of them halved and doubled, one at a time. Writes
docs/sensitivity.md.

    BRE_CASES=FOLDER python -m benchmarks.accuracy.sensitivity [--only WORD,...] [--cases NAME,...] [--shard I/N]
    python -m benchmarks.accuracy.sensitivity --page

Every constant of docs/constants.md that stands in `method`, `views` or `verbs` is changed in a copy of the package,
which judges the cases in a process of its own. Where doubling would take a number below 1 to 1 or more, it goes half of
the way to 1; whole numbers stay whole; of a tuple or dict all values change. FOLDER holds `zoo/cases.py` and
`data/cifar10.py`.

Resumable: rows stand in benchmarks/results/sensitivity.jsonl with a fingerprint of the code that they judge; those of
other code are not used, and run again. A constant that is changed to what the code refuses, or that never ends, makes a
row with an error.
"""

from __future__ import annotations

import argparse
import ast
import datetime
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from benchmarks.common.constants import PACKAGE, Constant, assignments, constants
from benchmarks.common.pages import made_by, percent, table
from benchmarks.common.places import DOCS, ROOT, ROWS, module_of_cases

RESULTS, PAGE = ROWS / "sensitivity.jsonl", DOCS / "sensitivity.md"
ROOMS = ("bre.method.", "bre.views.", "bre.verbs.")
FACTORS = (0.5, 2.0)
AS_IT_IS = "as it is"  # in place of a constant's name
LIMIT = 3600  # seconds that all cases together may take
Row = dict[str, Any]
Key: TypeAlias = tuple[str, float, str, str]  # constant, factor, case, verb


# --- a constant, changed


def changed(value: Any, factor: float) -> Any:
    """A value of a constant times `factor`: numbers, or all those of a tuple, list or dict."""
    if isinstance(value, dict):
        return {key: changed(each, factor) for key, each in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(changed(each, factor) for each in value)
    if isinstance(value, int):
        return max(1, round(value * factor)) if value > 0 else round(value * factor)
    if 0 < value < 1 and value * factor >= 1:
        return (1 + value) / 2
    return value * factor


def rewritten(source: str, name: str, factor: float) -> tuple[str, str]:
    """(a module's source with the constant changed, its new value as written)."""
    known: dict[str, Any] = {}
    for other, expression, _ in assignments(source):
        # numbers and names of numbers alone: `assignments` gives no others; keys may be names
        keys = {node.id: node.id for node in ast.walk(expression) if isinstance(node, ast.Name)}
        known[other] = eval(compile(ast.Expression(expression), "constant", "eval"), {"__builtins__": {}}, keys | known)
        if other == name:
            new = _written(expression, changed(known[other], factor))
            lines = source.encode().splitlines(keepends=True)
            first, last = expression.lineno - 1, (expression.end_lineno or expression.lineno) - 1
            before = b"".join(lines[:first]) + lines[first][: expression.col_offset]
            after = lines[last][expression.end_col_offset :] + b"".join(lines[last + 1 :])
            return (before + new.encode() + after).decode(), new
    raise ValueError(f"{name}: the module has no such constant")


def _written(expression: ast.expr, value: Any) -> str:
    """A dict keeps the expressions of its keys."""
    if isinstance(expression, ast.Dict):
        keys = [ast.unparse(key) for key in expression.keys if key is not None]
        return "{" + ", ".join(f"{key}: {each!r}" for key, each in zip(keys, value.values(), strict=True)) + "}"
    return repr(value)


def fingerprint() -> str:
    """Of the code that a row depends on."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.relative_to(PACKAGE).parts[0] in ("method", "views", "verbs", "ops"):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


# --- cases: (images, labels, poisoned, model or None)

Judged: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray, Any]


def known(name: str) -> Judged:
    case = module_of_cases("zoo", "cases").load(name)
    return case["images"], case["labels"], case["poisoned"], case["model"]


def drawn(number: int, count: int) -> Judged:
    """10 000 CIFAR-10 images that no other benchmark judges alone, with sensor noise, `count` of them with a pattern:
    near what can be found at all, so that a change shows."""
    from bre import attacks

    images, labels = module_of_cases("data", "cifar10").load("train", 50000, noise=1.0)
    first = 40000 - 10000 * number
    images = np.ascontiguousarray(images[first : first + 10000].transpose(0, 3, 1, 2))
    labels = labels[first : first + 10000]
    if not count:
        return images, labels, np.zeros(len(labels), bool), None
    pattern = attacks.local((3, 32, 32), "cross", 50 / 255, (9 + number, 20))
    made = attacks.plant(images, labels, pattern, target=3 + number, sources=None, count=count, seed=number)
    return made.images, made.labels, made.poisoned, None


CASES: dict[str, Callable[[], Judged]] = {
    **{name: lambda name=name: known(name) for name in ("chess9", "cross1", "sine9", "clean0")},  # type: ignore[misc]
    "few0": lambda: drawn(0, 30),
    "few1": lambda: drawn(1, 60),
    "clean1": lambda: drawn(2, 0),
    "clean2": lambda: drawn(3, 0),
}


def judge(names: Iterable[str]) -> Iterator[Row]:
    """The rows of this process: verdict and flags of each case."""
    import bre

    for name in names:
        images, labels, poisoned, model = CASES[name]()
        for verb in ("screen", "detect") if model is not None else ("screen",):
            start = time.perf_counter()
            row: Row = {"case": name, "verb": verb, "poisoned": int(poisoned.sum()), "images": len(labels)}
            try:
                pair = images, labels
                report = bre.screen(pair, seed=0) if verb == "screen" else bre.detect(model, pair, seed=0)
            except Exception as e:  # a number that the code cannot work with, which is an answer too
                yield {**row, "error": f"{type(e).__name__}: {e}"[:200]}
                continue
            flagged = np.isin(np.arange(len(labels)), report.indices)
            yield {
                **row,
                "p_value": report.p_value,
                "targets": [finding.target for finding in report.findings],
                "recall": float(flagged[poisoned].mean()) if poisoned.any() else None,
                "false_positives": int(flagged[~poisoned].sum()),
                "flagged": report.indices.tolist(),
                "seconds": round(time.perf_counter() - start, 1),
            }


def judged_by(constant: Constant | None, factor: float, names: list[str]) -> list[Row]:
    """What a copy of the package with the constant changed makes of the cases, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "bre"
        shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        compiled = importlib.util.find_spec("bre._core")
        assert compiled is not None
        assert compiled.origin is not None
        shutil.copy(compiled.origin, copy)
        value = ""
        if constant is not None:
            source, value = rewritten((copy / constant.path).read_text("utf-8"), constant.name, factor)
            (copy / constant.path).write_text(source, "utf-8")
        # -S with the installed packages on PYTHONPATH: the import hook of an editable installation must not come first
        places = [folder, str(ROOT), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(places))}
        command = [sys.executable, "-S", "-m", "benchmarks.accuracy.sensitivity", "--here", "--cases", ",".join(names)]
        try:
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT)
            rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
            error = "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no message"])[-1][:200]
        except subprocess.TimeoutExpired:
            rows, error = [], f"not done after {LIMIT} s"
    if error:
        rows += [{"case": name, "verb": "", "error": error} for name in names if name not in {r["case"] for r in rows}]
    return [{**row, "value": value} for row in rows]


# --- rows


def stored() -> list[Row]:
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    return [row for row in map(json.loads, lines) if row["code"] == fingerprint()]


def run(found: list[Constant], names: list[str]) -> None:
    import bre

    stamp = {
        "code": fingerprint(),
        "date": str(datetime.date.today()),
        "machine": platform.machine(),
        "versions": {"python": platform.python_version(), "bre": bre.__version__},
    }
    for constant, factor in [(None, 1.0), *((one, factor) for one in found for factor in FACTORS)]:
        name = AS_IT_IS if constant is None else f"{constant.module}.{constant.name}"
        rows = stored()
        done = {row["case"] for row in rows if (row["constant"], row["factor"]) == (name, factor)}
        left = [case for case in names if case not in done]
        if left:
            print(name, factor, flush=True)
            base = {(row["case"], row["verb"]): row for row in rows if row["constant"] == AS_IT_IS}
            new = [compared(row, base) for row in judged_by(constant, factor, left)]
            with RESULTS.open("a") as file:
                file.writelines(json.dumps({"constant": name, "factor": factor, **row, **stamp}) + "\n" for row in new)


def compared(row: Row, base: dict[tuple[str, str], Row]) -> Row:
    """Flags as what changed of those without a change; a row without a change keeps them."""
    before = base.get((row["case"], row["verb"]))
    if before is None or "flagged" not in row:
        return row
    flagged, usual = set(row.pop("flagged")), set(before.get("flagged", []))
    return {**row, "more": len(flagged - usual), "fewer": len(usual - flagged)}


# --- the page


def page(rows: list[Row], found: list[Constant]) -> str:
    base = {(row["case"], row["verb"]): row for row in rows if row["constant"] == AS_IT_IS}
    lines = [
        "# Sensitivity to the constants",
        "",
        made_by("accuracy/sensitivity.py", rows) + ".",
        "",
        "Each constant of [constants.md](constants.md) that can move a verdict, halved and doubled, with all others as "
        "they are: which verdicts change, and how many flags.",
        "",
        "## As it is",
        "",
        *table(
            ("case", "verb", "p", "targets", "recall", "false positives"),
            [
                (case, verb, f"{row['p_value']:.2g}", _classes(row), percent(row["recall"]), row["false_positives"])
                for (case, verb), row in base.items()
                if "error" not in row
            ],
        ),
    ]
    moved, still = [], []
    for one in found:
        name = f"{one.module}.{one.name}"
        cells = [effects([r for r in rows if (r["constant"], r["factor"]) == (name, f)], base) for f in FACTORS]
        if any(cell == "not run" for cell in cells):
            continue
        short = f"`{name.removeprefix('bre.')}`"
        if any(cells):
            moved.append((short, f"`{one.value}`", *(cell or "nothing" for cell in cells)))
        else:
            still.append(short)
    lines += ["", "## What moves something", "", *table(("constant", "value", "halved", "doubled"), moved)]
    lines += ["", "## What moves nothing", "", ", ".join(still) + "." if still else "None, so far."]
    return "\n".join(lines) + "\n"


def effects(rows: list[Row], base: dict[tuple[str, str], Row]) -> str:
    """What a change did, in words; empty where it did nothing."""
    if not rows:
        return "not run"
    said = []
    for row in rows:
        case = f"{row['case']} ({row['verb']})" if row["verb"] else row["case"]
        before = base.get((row["case"], row["verb"]))
        if "error" in row:
            said.append(f"{case}: {row['error']}".replace("|", "\\|"))
        elif before is None or "error" in before:
            continue
        elif row["targets"] != before["targets"]:
            said.append(f"**{case}: {_classes(row)} instead of {_classes(before)}**")
        elif row["more"] or row["fewer"]:
            said.append(f"{case}: {row['more']} more flags, {row['fewer']} fewer")
    return "; ".join(said)


def _classes(row: Row) -> str:
    return " ".join(map(str, row["targets"])) or "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="words; constants whose names hold one of them")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--shard", default="0/1", help="I/N: every N-th constant from the I-th on")
    parser.add_argument("--page", action="store_true", help="only write the page")
    parser.add_argument("--here", action="store_true", help="judge the cases in this process and print the rows")
    options = parser.parse_args()
    names = options.cases.split(",")
    if unknown := [name for name in names if name not in CASES]:
        parser.error(f"--cases: no case is called {', '.join(unknown)}; there are {', '.join(CASES)}")
    if options.here:
        for row in judge(names):
            print(json.dumps(row), flush=True)
        return
    found = [one for one in constants() if one.module.startswith(ROOMS)]
    if not options.page:
        first, step = map(int, options.shard.split("/"))
        words = options.only.split(",")
        run([one for one in found if any(word in f"{one.module}.{one.name}" for word in words)][first::step], names)
    if not (rows := stored()):
        raise SystemExit("no rows of this code to make docs/sensitivity.md from")
    PAGE.write_text(page(rows, found))


if __name__ == "__main__":
    main()
