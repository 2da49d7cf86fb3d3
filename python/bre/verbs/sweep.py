"""`bre.sweep`: screen or detect, row by row of a list, to one table of verdicts."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import _check as check
from .._files import atomic_path, check_new
from ..errors import BreError, InputError
from ..inputs import open_dataset, open_model
from ..report import Report
from ..runs.executors import Submit, check_executor, ended, submitter
from .checks import check_options
from .detect import detect
from .manifest import Row, read_rows
from .screen import screen
from .sweep_tables import write_tables

MARK = "sweep.json"  # what makes a folder one of a sweep
_SCHEMA = 1
ROWS_AHEAD = 1000  # rows; that may wait in an executor of others; source: chosen, enough for a large cluster


@dataclass(frozen=True)
class SweepResult:
    """What came of one row.

    number: of the row, from 1. verb: "screen", or "detect" where the row names a model. status: 0 nothing found, 1
    poisoning found, 2 not answered, and then `error` says why. p_value, poison and properties (names of classes),
    flagged (images that findings of poison flag), images (of the set), skipped (that could not be read), seconds: of
    the report. report: the folder that it is saved in, relative to the sweep's, or "" without one.
    """

    number: int
    name: str
    data: str
    model: str
    verb: str
    status: int
    error: str = ""
    p_value: float | None = None
    poison: tuple[str, ...] = ()
    properties: tuple[str, ...] = ()
    flagged: int = 0
    images: int = 0
    skipped: int = 0
    seconds: float = 0.0
    report: str = ""
    note: str = ""


def sweep(
    rows: Any,
    *,
    out: str | os.PathLike[str] | None = None,
    executor: str | Submit = "local",
    jobs: int = 1,
    ray_address: str | None = None,
    seed: int = 0,
    alpha: float = 0.05,
    backend: str = "auto",
    unsafe: bool = False,
    run_arch: bool = False,
) -> Iterator[SweepResult]:
    """Screen every data set of a list, or detect with every model and its data set; yield results as they end.

    rows: the path of a CSV, of JSON Lines or of Parquet, or mappings. Keys: `data`, what `bre.open_dataset` takes;
        `model`, what `bre.open_model` takes, or nothing; `name` and `note`, which are passed on; and options of either
        and of the verbs, such as `resize`, `columns`, `arch`, `mean`, `std`, `device`, `seed`: in text as the command
        line has them. Paths in a file are relative to its folder
    out: a folder of the sweep, new or from an earlier one: rows that have a verdict there are not done again, as long
        as their options, bre's version, and the sizes and times of their files are the same. It gets a report for
        each, and, when the sweep ends, verdicts.csv, verdicts.jsonl and index.html. None keeps nothing
    executor: "local", with as many processes as `jobs`; "ray", with the cluster at `ray_address`; or a function like
        `concurrent.futures.Executor.submit`, which then must see the files
    seed, alpha, backend: as for `bre.screen`, of rows that do not say
    unsafe, run_arch: of all rows, as for `bre.open_dataset` and `bre.open_model`; a list cannot ask for them

    A row that fails is a result of status 2, and the others go on. Raises InputError for a list that is none, columns
    that mean nothing, and a folder that is no sweep's.
    """
    seed, alpha = check_options(seed, alpha)
    check_executor(executor, jobs, ray_address)
    listed = read_rows(rows, {"seed": seed, "alpha": alpha, "backend": backend})
    folder = None if out is None else _folder(Path(out))
    if folder is not None and (memory := [row.number for row in listed if not row.on_disk()]):
        raise InputError(
            f"row {memory[0]} is in memory, and nothing can be kept for it: leave the folder out", argument="out"
        )
    tasks = [_Task(row, folder, unsafe, run_arch) for row in listed]
    ahead = jobs if executor == "local" else ROWS_AHEAD
    return _results(tasks, lambda: submitter(executor, jobs, ray_address), ahead, folder)


@dataclass(frozen=True)
class _Task:
    """A row with what does not stand in it; may go to another machine."""

    row: Row
    folder: Path | None
    unsafe: bool
    run_arch: bool

    def files(self) -> tuple[Path, Path, str]:
        """Where its record and its report go, and the latter's name in the sweep's folder."""
        assert self.folder is not None
        from .versions import packages

        key = f"{self.row.key()}-{packages()['bre']}"
        return self.folder / "rows" / f"{key}.json", self.folder / "reports" / key, f"reports/{key}"


def _results(tasks: list[_Task], executor: Callable[[], Any], ahead: int, folder: Path | None) -> Iterator[SweepResult]:
    found: dict[int, SweepResult] = {}
    try:
        waiting = []
        for task in tasks:
            if (known := _known(task)) is None:
                waiting.append(task)
            else:
                yield found.setdefault(task.row.number, known)
        lost = []
        if waiting:
            with executor() as submit:
                for i, future in ended(submit, ((do, task) for task in waiting), ahead):
                    if isinstance(future.exception(), BrokenExecutor):
                        lost.append(waiting[i])
                        continue
                    result = _of(future, waiting[i])
                    yield found.setdefault(result.number, result)
        for task in lost:  # whose process was killed, by itself or by a row beside it
            with submitter("local", 2) as submit:  # alone, and not in this process
                future = submit(do, task)
                future.exception()
            result = _of(future, task)
            yield found.setdefault(result.number, result)
    finally:
        if folder is not None:
            write_tables([found[number] for number in sorted(found)], folder)


def _of(future: Any, task: _Task) -> SweepResult:
    error = future.exception()
    if error is None:
        result: SweepResult = future.result()
        return result
    if isinstance(error, BrokenExecutor):
        return _failed(task.row, "its process was killed (is there not enough memory?)")
    return _failed(task.row, check.first_line(error))


def do(task: _Task) -> SweepResult:
    """One row, wherever this is run."""
    row = task.row
    try:
        return _answered(task)
    except InputError as e:
        return _failed(row, str(e))
    except BreError as e:
        return _failed(row, str(e))
    except MemoryError as e:
        return _failed(row, f"there is not enough memory: {e}")
    except Exception as e:
        return _failed(row, f"{check.first_line(e)} (unexpected)")


def _answered(task: _Task) -> SweepResult:
    row = task.row
    if row.wrong:
        raise InputError(row.wrong)
    report, images, place = None, None, ""
    if task.folder is not None:
        record, directory, place = task.files()
        if directory.is_dir():  # of a run that was killed before it wrote the record
            report = Report.load(directory)
    skipped = 0
    if report is None:
        images = open_dataset(row.data, unsafe=task.unsafe, **row.reading)
        skipped = len(images.skipped)
        if row.model is None:
            report = screen(images, **row.judging)
        else:
            model = open_model(row.model, unsafe=task.unsafe, run_arch=task.run_arch, **row.network)
            report = detect(model, images, **row.judging)
        if task.folder is not None:
            report.save(directory, images)
    result = _result(row, report, skipped, place)
    if task.folder is not None:
        _write_new(record, dataclasses.asdict(result))
    return result


def _result(row: Row, report: Report, skipped: int, place: str) -> SweepResult:
    names = report.dataset.class_names
    poison = [finding for finding in report.findings if finding.is_poison]
    return SweepResult(
        **_about(row),
        status=1 if report.poisoned else 0,
        p_value=report.p_value,
        poison=tuple(names[finding.target] for finding in poison),
        properties=tuple(names[f.target] for f in report.findings if not f.is_poison),
        flagged=len(report.indices),
        images=report.dataset.count,
        skipped=skipped,
        seconds=sum(report.cost.seconds.values()),
        report=place,
    )


def _failed(row: Row, error: str) -> SweepResult:
    return SweepResult(**_about(row), status=2, error=check.printable(error))


def _about(row: Row) -> dict[str, Any]:
    return {
        "number": row.number,
        "name": row.name,
        "data": _shown(row.data),
        "model": _shown(row.model),
        "verb": "screen" if row.model is None else "detect",
        "note": row.note,
    }


def _shown(place: Any) -> str:
    from ..inputs.datasets.remote_path import shown

    if place is None:
        return ""
    return shown(os.fspath(place)) if isinstance(place, str | os.PathLike) else type(place).__name__


def _known(task: _Task) -> SweepResult | None:
    """What an earlier run found for this row, unless that was an error."""
    if task.folder is None or task.row.wrong:
        return None
    record, directory, _ = task.files()
    if not record.is_file() or not directory.is_dir():
        return None
    try:
        content = json.loads(record.read_bytes())
        fields = {field.name for field in dataclasses.fields(SweepResult)}
        if not isinstance(content, dict) or content.keys() != fields:
            raise ValueError("other keys")
        lists = {name: tuple(content[name]) for name in ("poison", "properties")}
        return SweepResult(**{**content, **lists, **_about(task.row)})
    except (ValueError, TypeError) as e:
        raise InputError(f"{record} is damaged: {check.first_line(e)}; remove it, and its row is done again") from e


def _folder(out: Path) -> Path:
    """The folder of a sweep, made where there is none. Raises InputError for one that is something else's."""
    if not os.path.lexists(out):
        check_new(out)
        with atomic_path(out, directory=True) as part:
            (part / "rows").mkdir()
            (part / "reports").mkdir()
            (part / MARK).write_text(json.dumps({"schema": _SCHEMA}) + "\n")
    if not (out / MARK).is_file():
        raise InputError(f"{out} exists, and is no folder of a sweep: give a new name", argument="out")
    try:
        schema = json.loads((out / MARK).read_bytes())["schema"]
    except (ValueError, KeyError, TypeError):
        schema = None
    if schema != _SCHEMA:
        raise InputError(f"{out} is of another version's sweep: give a new name", argument="out")
    return out.absolute()


def _write_new(path: Path, content: dict[str, Any]) -> None:
    if not path.exists():
        with atomic_path(path) as part:
            part.write_text(json.dumps(content, allow_nan=False) + "\n")
