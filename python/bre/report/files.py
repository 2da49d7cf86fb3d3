"""A report to disk and back.

A saved report is a folder of four files: `report.json` (everything but arrays and seconds), `arrays.npz` (pattern,
indices and scores of each finding), `timing.json` (the seconds) and `report.html` (all of it, for people); and of
`skipped.csv`, where images that cannot be read were left out. Two runs
with one seed differ in the seconds only. `load` reads the first three and trusts none of them.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .. import _check as check
from .._files import atomic_path, check_new
from ..errors import InputError
from ..inputs import open_dataset
from .facts import ClassRow, Cost, DatasetFacts, StatisticTest
from .finding import ARRAYS, Finding, Histogram
from .report import SCHEMA, Report
from .tables import skipped_csv

PAGE, SKIPPED = "report.html", "skipped.csv"
MAX_JSON = 256 << 20  # bytes; of report.json; source: chosen, a million classes with long names stay below it
_MAX_HEADER = 10_000  # bytes; of one .npy header or zip entry; source: chosen, far above what numpy writes


def save(report: Report, directory: str | os.PathLike[str], dataset: Any = None) -> Path:
    """See `Report.save`."""
    images = None if dataset is None else open_dataset(dataset)
    check_new(directory, outside=images.disk_path if images else None)
    page = report.page(images)
    content = report.to_dict(arrays=False)
    seconds = content["cost"].pop("seconds")
    arrays = {
        f"finding{i}_{name}": array.astype(array.dtype.newbyteorder("<"))
        for i, finding in enumerate(report.findings)
        for name in ARRAYS
        if (array := getattr(finding, name)) is not None
    }
    with atomic_path(directory, directory=True) as part:
        for name, value in (("report.json", content), ("timing.json", {"seconds": seconds})):
            text = json.dumps(value, indent=1, allow_nan=False) + "\n"
            (part / name).write_bytes(text.encode("ascii"))
        np.savez(part / "arrays.npz", **arrays)  # none holds objects, so nothing is pickled
        (part / PAGE).write_bytes(page.encode())
        if images is not None and images.skipped:
            (part / SKIPPED).write_bytes(skipped_csv(images))
    return Path(directory)


def load(directory: str | os.PathLike[str]) -> Report:
    """See `Report.load`."""
    directory = Path(directory)
    if not directory.is_dir():
        raise InputError(f"no such report: {directory} (a saved report is a folder)")
    try:
        content = _read_json(directory / "report.json")
        if (schema := content.pop("schema", None)) != SCHEMA or isinstance(schema, bool):
            raise InputError(f"schema {check.short(schema)}, this version of bre reads {SCHEMA}")
        check.same_keys(content, [f.name for f in dataclasses.fields(Report)], "report")
        content["dataset"] = _build(DatasetFacts, content["dataset"], "dataset")
        rows = check.items(content["classes"], "classes")
        content["classes"] = [_build(ClassRow, row, "class row") for row in rows]
        tests = check.items(content["tests"], "tests")
        content["tests"] = [_build(StatisticTest, test, "test") for test in tests]
        cost = check.mapping(content["cost"], "cost")
        if "seconds" in cost:
            raise InputError("cost: seconds belong into timing.json")
    except InputError as e:
        raise InputError(f"{directory / 'report.json'}: {e}") from e
    try:
        timing = _read_json(directory / "timing.json")
        check.same_keys(timing, ["seconds"], "timing")
        content["cost"] = _build(Cost, {**cost, **timing}, "cost")
    except InputError as e:
        raise InputError(f"{directory / 'timing.json'}: {e}") from e
    try:
        content["findings"] = _load_findings(directory / "arrays.npz", content)
        return Report(**content)
    except InputError as e:
        raise InputError(f"{directory}: {e}") from e


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError("there is no such file" if not path.exists() else "not a regular file")
    with path.open("rb") as f:
        data = f.read(MAX_JSON + 1)
    if len(data) > MAX_JSON:
        raise InputError(f"larger than {MAX_JSON} bytes")
    try:
        content = json.loads(data, parse_constant=_no_constant, object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as e:
        raise InputError(f"damaged or truncated, or no JSON: {check.printable(str(e), 200)}") from None
    return check.mapping(content, "the content")


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key occurs twice")
    return content


def _load_findings(path: Path, content: dict[str, Any]) -> list[Finding]:
    """The findings of report.json with their arrays, whose shapes are known before the file is touched."""
    facts: DatasetFacts = content["dataset"]
    rows = [dict(check.mapping(row, "finding")) for row in check.items(content["findings"], "findings")]
    expected: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {}
    for i, row in enumerate(rows):
        flagged = check.integer(row.pop("flagged", None), "finding: flagged", 0, facts.count)
        if known := row.keys() & set(ARRAYS):
            raise InputError(f"finding: {check.short(sorted(known))} belong into {path.name}")
        if row.get("histogram") is not None:
            row["histogram"] = _build(Histogram, row["histogram"], "histogram")
        if row.get("pattern_norm") is not None:
            expected[f"finding{i}_pattern.npy"] = (np.dtype("<f4"), facts.image_shape)
        expected[f"finding{i}_indices.npy"] = (np.dtype("<i8"), (flagged,))
        expected[f"finding{i}_log_odds.npy"] = (np.dtype("<f4"), (flagged,))
    arrays = _read_npz(path, expected)
    for i, row in enumerate(rows):
        row.update({name: arrays.get(f"finding{i}_{name}.npy") for name in ARRAYS})
    return [_build(Finding, row, "finding") for row in rows]


def _read_npz(path: Path, expected: dict[str, tuple[np.dtype[Any], tuple[int, ...]]]) -> dict[str, np.ndarray]:
    """Exactly the arrays expected, {member: (dtype, shape)}, stored: nothing is unpacked or unpickled."""
    if not path.is_file():
        raise InputError(f"{path.name}: there is no such file")
    limit = sum(dtype.itemsize * math.prod(shape) + _MAX_HEADER for dtype, shape in expected.values())
    try:
        if path.stat().st_size > limit + _MAX_HEADER:
            raise InputError(f"{path.name} is larger than the arrays that report.json tells of")
        with zipfile.ZipFile(path) as z:
            if sorted(z.namelist()) != sorted(expected):
                raise InputError(f"{path.name} does not hold the arrays that report.json tells of")
            return {name: _read_npy(z, name, *form) for name, form in expected.items()}
    except InputError:
        raise
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError, RuntimeError) as e:
        raise InputError(f"{path.name} is damaged or truncated: {check.printable(str(e), 200)}") from e


def _read_npy(z: zipfile.ZipFile, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
    """One member, which must be stored, of this dtype and shape, and end where they end."""
    info, size = z.getinfo(name), dtype.itemsize * math.prod(shape)
    if info.compress_type == zipfile.ZIP_STORED and size < info.file_size <= size + _MAX_HEADER:
        data = io.BytesIO(z.read(info))
        if _npy_form(data) == (shape, False, dtype) and info.file_size - data.tell() == size:
            return np.frombuffer(data.getbuffer(), dtype, offset=data.tell()).reshape(shape)
    raise InputError(f"{name} in arrays.npz is not stored as {dtype} {tuple(shape)}")


def _npy_form(data: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]] | None:
    """(shape, whether in Fortran's order, dtype) from the header, read by numpy; None for what is no such header."""
    try:
        if np.lib.format.read_magic(data) == (1, 0):
            form: tuple[tuple[int, ...], bool, np.dtype[Any]] = np.lib.format.read_array_header_1_0(data, _MAX_HEADER)
            return form
    except Exception:  # numpy's parser of headers raises whatever Python's tokenizer does
        return None
    return None


def _build(kind: type, content: Any, what: str) -> Any:
    content = check.mapping(content, what)
    check.same_keys(content, [f.name for f in dataclasses.fields(kind)], what)
    return kind(**content)
