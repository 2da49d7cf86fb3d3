"""What screen and detect answer: frozen data that checks itself, prints itself, and goes to disk and back.

A saved report is a folder of three files: `report.json` (everything but arrays and seconds), `arrays.npz`
(pattern, indices and scores of each finding) and `timing.json` (the seconds). Two runs with one seed differ
in `timing.json` only. `Report.load` trusts none of them.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import math
import os
import platform
import reprlib
import sys
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ._files import atomic_path
from .errors import InputError

if TYPE_CHECKING:
    from .inputs import ImageSet

SCHEMA = 1  # raised when a reader of the old form would misread the new one
MAX_JSON = 256 << 20  # bytes; a million classes with long names stay below it
_MAX_HEADER = 10_000  # bytes of one .npy header or zip entry, far above what numpy writes
_LARGEST = 2**63 - 1
_ARRAYS = ("pattern", "indices", "scores")
_DATASET = ("source", "count", "image_shape", "class_names", "fingerprint")


@dataclass(frozen=True)
class Cost:
    """forward_images, backward_images: images through the model either way. seconds: by stage, disjoint."""

    forward_images: int
    backward_images: int
    seconds: dict[str, float]

    def __post_init__(self) -> None:
        _set(self, "forward_images", _integer(self.forward_images, "cost.forward_images"))
        _set(self, "backward_images", _integer(self.backward_images, "cost.backward_images"))
        seconds = _mapping(self.seconds, "cost.seconds")
        _set(self, "seconds", {k: _real(v, f"cost.seconds[{k!r}]", 0) for k, v in seconds.items()})


@dataclass(frozen=True)
class ClassRow:
    """One class as a putative target. What was not measured is None.

    count: its images. p_value: corrected for having been chosen among K classes. image_statistic,
    model_statistic: see bre.image_view and bre.model_view. pattern_norm: L2, pixel units. note: why it was not (fully)
    tested; may be empty.
    """

    label: int
    name: str
    count: int
    tested: bool
    image_statistic: float | None = None
    model_statistic: float | None = None
    p_value: float | None = None
    pattern_norm: float | None = None
    note: str = ""

    def __post_init__(self) -> None:
        _set(self, "label", _integer(self.label, "label"))
        what = f"class {self.label}"
        _text(self.name, f"{what}: name")
        _set(self, "count", _integer(self.count, f"{what}: count"))
        _set(self, "tested", _truth(self.tested, f"{what}: tested"))
        for name in ("image_statistic", "model_statistic"):
            _set(self, name, _optional(getattr(self, name), f"{what}: {name}"))
        _set(self, "p_value", _optional(self.p_value, f"{what}: p_value", 0, 1))
        _set(self, "pattern_norm", _optional(self.pattern_norm, f"{what}: pattern_norm", 0))
        _text(self.note, f"{what}: note")


@dataclass(frozen=True, eq=False)
class Finding:
    """One planted pattern.

    target: the class its images are labelled as. sources: the classes they come from, strongest first; may
    be empty where the images alone cannot tell. pattern: (C, H, W) float32, what was added, pixel units of
    [0, 1]. pattern_norm: its L2 norm as tested. indices: (n,) int64, the flagged images, ascending in dataset
    order. scores: (n,) float32, how strongly each carries the pattern. success_rate: share in [0, 1] of
    held-out source images that the pattern sends to the target, None without a model. evidence: which view
    showed it, "images", "model" or "both".
    """

    target: int
    sources: tuple[int, ...]
    p_value: float
    pattern: np.ndarray
    pattern_norm: float
    indices: np.ndarray
    scores: np.ndarray
    success_rate: float | None
    evidence: str

    def __post_init__(self) -> None:
        _set(self, "target", _integer(self.target, "finding: target"))
        what = f"finding with target {self.target}"
        sources = tuple(_integer(s, f"{what}: sources") for s in _items(self.sources, f"{what}: sources"))
        if self.target in sources or len(set(sources)) != len(sources):
            raise InputError(f"{what}: sources must be distinct classes other than it, got {_short(sources)}")
        _set(self, "sources", sources)
        _set(self, "p_value", _real(self.p_value, f"{what}: p_value", 0, 1))
        _set(self, "pattern_norm", _real(self.pattern_norm, f"{what}: pattern_norm", 0))
        _set(self, "success_rate", _optional(self.success_rate, f"{what}: success_rate", 0, 1))
        _choice(self.evidence, f"{what}: evidence", ("images", "model", "both"))
        pattern = _array(self.pattern, f"{what}: pattern", "f", np.float32, 3)
        if not (np.abs(pattern) <= 1).all():  # NaN fails too
            raise InputError(f"{what}: pattern must be finite and within [-1, 1]")
        indices = _array(self.indices, f"{what}: indices", "iu", np.int64, 1)
        if indices.size and (indices[0] < 0 or not (indices[1:] > indices[:-1]).all()):
            raise InputError(f"{what}: indices must be >= 0 and strictly ascending")
        scores = _array(self.scores, f"{what}: scores", "f", np.float32, 1)
        if scores.shape != indices.shape or not np.isfinite(scores).all():
            raise InputError(
                f"{what}: scores must be finite, one per index: {len(scores)} for {len(indices)}"
            )
        _set(self, "pattern", pattern)
        _set(self, "indices", indices)
        _set(self, "scores", scores)

    def __repr__(self) -> str:
        return (
            f"Finding(target {self.target}, sources {list(self.sources)}, p={self.p_value:.2g}, "
            f"{len(self.indices)} images, evidence {self.evidence!r})"
        )


@dataclass(frozen=True, eq=False)
class Report:
    """The answer of one screen or detect.

    poisoned: the verdict, true exactly when there are findings. p_value: chance of evidence at least this
    strong in a clean set, in [0, 1]. alpha: the level it was held against. classes: one row per class.
    backend: what "auto" stood for. dataset: source, count (M), image_shape (C, H, W), class_names (K) and
    fingerprint, as `dataset_facts` gives them. Everything but cost.seconds is the same in every run with one
    seed. Raises InputError for values that cannot be a report.
    """

    verb: str
    poisoned: bool
    p_value: float
    alpha: float
    findings: tuple[Finding, ...]
    classes: tuple[ClassRow, ...]
    cost: Cost
    backend: str
    seed: int
    versions: dict[str, str]
    dataset: dict[str, Any]

    def __post_init__(self) -> None:
        _choice(self.verb, "verb", ("screen", "detect"))
        _set(self, "poisoned", _truth(self.poisoned, "poisoned"))
        _set(self, "p_value", _real(self.p_value, "p_value", 0, 1))
        _set(self, "alpha", _real(self.alpha, "alpha", 0, 1))
        _set(self, "findings", _instances(self.findings, Finding, "findings"))
        _set(self, "classes", _instances(self.classes, ClassRow, "classes"))
        _instances((self.cost,), Cost, "cost")
        _text(self.backend, "backend")
        _set(self, "seed", _integer(self.seed, "seed"))
        versions = _mapping(self.versions, "versions")
        _set(self, "versions", {k: _text(v, f"versions[{k!r}]") for k, v in versions.items()})
        _set(self, "dataset", _checked_facts(self.dataset))
        if self.poisoned != bool(self.findings):
            raise InputError(f"poisoned is {self.poisoned} but there are {len(self.findings)} findings")
        k, shape, count = len(self.dataset["class_names"]), self.dataset["image_shape"], self.dataset["count"]
        labels = [row.label for row in self.classes]
        if len(set(labels)) != len(labels) or any(label >= k for label in labels):
            raise InputError(f"classes must have distinct labels below {k}, got {_short(labels)}")
        for f in self.findings:
            if max(f.target, *f.sources, 0) >= k:
                raise InputError(
                    f"a finding names target {f.target} and sources {_short(f.sources)} of {k} classes"
                )
            if f.pattern.shape != shape:
                raise InputError(
                    f"a finding's pattern has shape {f.pattern.shape}, the images have {tuple(shape)}"
                )
            if f.indices.size and f.indices[-1] >= count:
                raise InputError(f"a finding flags image {f.indices[-1]}, the dataset has {count} images")

    @property
    def indices(self) -> np.ndarray:
        """(n,) int64: every flagged image once, ascending."""
        union = np.unique(np.concatenate([np.empty(0, np.int64), *(f.indices for f in self.findings)]))
        union.flags.writeable = False
        return union

    def __repr__(self) -> str:
        parts = ["poisoned" if self.poisoned else "nothing found", f"p={self.p_value:.2g}"]
        count = self.dataset["count"]
        if self.poisoned:
            targets = list(dict.fromkeys(self._name(f.target) for f in self.findings))
            parts += [f"target{'s' * (len(targets) > 1)} {', '.join(targets)}"]
            parts += [f"{len(self.indices)} of {count} images flagged"]
        else:
            parts += [f"{count} images"]
        parts += [f"{sum(self.cost.seconds.values()):.1f} s"]
        return f"Report({self.verb}: {', '.join(parts)})"

    def summary(self) -> str:
        """The verdict for a person: several lines of plain text, no terminal codes in it."""
        facts = self.dataset
        c, h, w = facts["image_shape"]
        verdict = "POISONED" if self.poisoned else "NOTHING FOUND"
        lines = [
            f"{verdict} (p = {self.p_value:.2g}, alpha = {self.alpha:g})",
            f"{printable(facts['source'])}: {facts['count']} images of {c}x{h}x{w}, "
            f"{len(facts['class_names'])} classes; {self.verb}, backend {printable(self.backend)}, "
            f"seed {self.seed}",
        ]
        for number, finding in enumerate(self.findings, 1):
            lines += ["", *self._finding_lines(number, finding)]
        untested = [row for row in self.classes if row.note or not row.tested]
        if untested:
            lines += ["", "Not fully tested, so a pattern in them may have been missed:"]
            lines += [
                f"  {self._name(row.label)}: {printable(row.note) or _count(row.count, 'image')}"
                for row in untested[:20]
            ]
            lines += [f"  and {len(untested) - 20} more"] if len(untested) > 20 else []
        lines += ["", *self._meaning(), "", self._cost_line()]
        return "\n".join(lines)

    def to_dict(self, arrays: bool = True) -> dict[str, Any]:
        """Plain dicts, lists, numbers and strings, ready for JSON.

        arrays: with every finding's pattern, indices and scores as lists; without them `flagged`, the number
        of indices, still tells.
        """
        out: dict[str, Any] = {"schema": SCHEMA}
        for field in dataclasses.fields(self):
            out[field.name] = getattr(self, field.name)
        out["findings"] = [_finding_dict(f, arrays) for f in self.findings]
        out["classes"] = [dataclasses.asdict(row) for row in self.classes]
        out["cost"] = dataclasses.asdict(self.cost)
        out["versions"] = dict(self.versions)
        out["dataset"] = {k: list(v) if isinstance(v, tuple) else v for k, v in self.dataset.items()}
        return out

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Write the report as a new folder, whole or not at all; returns its path.

        Raises InputError when `directory` exists or its parent does not.
        """
        content = self.to_dict(arrays=False)
        seconds = content["cost"].pop("seconds")
        arrays = {
            f"finding{i}_{name}": getattr(f, name).astype(getattr(f, name).dtype.newbyteorder("<"))
            for i, f in enumerate(self.findings)
            for name in _ARRAYS
        }
        with atomic_path(directory, directory=True) as part:
            for name, value in (("report.json", content), ("timing.json", {"seconds": seconds})):
                text = json.dumps(value, indent=1, allow_nan=False) + "\n"
                (part / name).write_bytes(text.encode("ascii"))
            np.savez(part / "arrays.npz", allow_pickle=False, **arrays)
        return Path(directory)

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> Report:
        """Read a folder that `save` wrote, or that someone claims it wrote.

        Raises InputError, naming the file and what is wrong with it, for anything else.
        """
        directory = Path(directory)
        if not directory.is_dir():
            raise InputError(f"no such report: {directory} (a saved report is a folder)")
        try:
            content = _read_json(directory / "report.json")
            if (schema := content.pop("schema", None)) != SCHEMA or isinstance(schema, bool):
                raise InputError(f"schema {_short(schema)}, this version of bre reads {SCHEMA}")
            _same_keys(content, [f.name for f in dataclasses.fields(cls)], "report")
            content["dataset"] = _checked_facts(content["dataset"])
            rows = _items(content["classes"], "classes")
            content["classes"] = [_build(ClassRow, row, "class row") for row in rows]
            cost = _mapping(content["cost"], "cost")
            if "seconds" in cost:
                raise InputError("cost: seconds belong into timing.json")
        except InputError as e:
            raise InputError(f"{directory / 'report.json'}: {e}") from e
        try:
            timing = _read_json(directory / "timing.json")
            _same_keys(timing, ["seconds"], "timing")
            content["cost"] = _build(Cost, {**cost, **timing}, "cost")
        except InputError as e:
            raise InputError(f"{directory / 'timing.json'}: {e}") from e
        try:
            content["findings"] = _load_findings(directory / "arrays.npz", content)
            return cls(**content)
        except InputError as e:
            raise InputError(f"{directory}: {e}") from e

    def _name(self, label: int) -> str:
        """7 'horse', or plain 7 where the class has no other name."""
        name = self.dataset["class_names"][label]
        return str(label) if name == str(label) else f"{label} '{printable(name, 60)}'"

    def _finding_lines(self, number: int, f: Finding) -> list[str]:
        target = self._name(f.target)
        size = next((row.count for row in self.classes if row.label == f.target), None)
        of = f" of the {size} images labelled {target}" if size is not None else f" images labelled {target}"
        peak = 255 * float(np.abs(f.pattern).max(initial=0))
        seen = {"images": "the images", "model": "the model", "both": "the images and the model"}[f.evidence]
        sources = ", ".join(self._name(s) for s in f.sources[:20]) or "not known"
        sources += f" and {len(f.sources) - 20} more" if len(f.sources) > 20 else ""
        lines = [
            f"Finding {number}: images are planted in class {target} (p = {f.p_value:.2g})",
            f"  flagged    {len(f.indices)}{of}",
            f"  taken from {sources}",
            f"  pattern    L2 norm {f.pattern_norm:.3g}, at most {peak:.1f} of 255 grey levels in a pixel",
        ]
        if f.success_rate is not None:
            share = f"{f.success_rate:.1%} of held-out source images"
            lines += [f"  success    {share} go to {target} when it is added"]
        return [*lines, f"  seen in    {seen}"]

    def _meaning(self) -> list[str]:
        if not self.poisoned:
            where = "class" if self.verb == "screen" else "class, in the images or in the model,"
            return [
                f"No {where} stands out from the others as one with a planted additive pattern.",
                "That is no proof that the set is clean: other kinds of backdoor (warped or redrawn images),",
                "patterns in very few images, and wrong labels without a pattern are not what this tests.",
            ]
        advice = "Remove them (bre cleanse), train again, and do not use a model that was trained before."
        if not len(self.indices):
            advice = "No single image could be told apart: do not train on this set, nor use such a model."
        return [
            "Some images share an added pattern that the rest of the set does not have. A classifier trained",
            "on this set can be steered into the target class by adding that pattern to an image.",
            advice,
        ]

    def _cost_line(self) -> str:
        stages = ", ".join(f"{printable(k)} {v:.1f} s" for k, v in self.cost.seconds.items())
        passes = f"; {self.cost.forward_images} images forward, {self.cost.backward_images} backward"
        total = f"Took {sum(self.cost.seconds.values()):.1f} s" + (f" ({stages})" if stages else "")
        return total + (passes if self.verb == "detect" else "")


def dataset_facts(dataset: ImageSet) -> dict[str, Any]:
    """What `Report.dataset` holds: enough to say, and to check, which dataset a report is about."""
    return {
        "source": dataset.source,
        "count": len(dataset),
        "image_shape": tuple(dataset.image_shape),
        "class_names": tuple(dataset.class_names),
        "fingerprint": dataset.fingerprint(),
    }


def versions() -> dict[str, str]:
    """What `Report.versions` holds: bre, Python and the packages that compute, without importing them."""
    found = {"bre": "bre-engine", "torch": "torch", "numpy": "numpy", "scipy": "scipy"}
    out = {"python": platform.python_version()}
    for name, distribution in found.items():
        try:
            out[name] = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            out[name] = "not installed"
    return out


def printable(text: str, limit: int = 500) -> str:
    """Text that came from outside, made harmless for a terminal: one line, no control codes, not endless."""
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[: limit + 1])
    return text if len(text) <= limit else text[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"


# ---- from disk


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
        raise InputError(f"damaged or truncated, or no JSON: {printable(str(e), 200)}") from None
    return _mapping(content, "the content")


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key occurs twice")
    return content


def _load_findings(path: Path, content: dict[str, Any]) -> list[Finding]:
    """The findings of report.json with their arrays, whose shapes are known before the file is touched."""
    facts = content["dataset"]
    rows = [dict(_mapping(row, "finding")) for row in _items(content["findings"], "findings")]
    for row in rows:
        row["flagged"] = _integer(row.get("flagged"), "finding: flagged", 0, facts["count"])
        if known := row.keys() & set(_ARRAYS):
            raise InputError(f"finding: {_short(sorted(known))} belong into {path.name}")
    expected = {
        f"finding{i}_{name}.npy": (
            np.dtype({"indices": "<i8"}.get(name, "<f4")),
            facts["image_shape"] if name == "pattern" else (row["flagged"],),
        )
        for i, row in enumerate(rows)
        for name in _ARRAYS
    }
    arrays = _read_npz(path, expected)
    for i, row in enumerate(rows):
        del row["flagged"]
        row.update({name: arrays[f"finding{i}_{name}.npy"] for name in _ARRAYS})
    return [_build(Finding, row, "finding") for row in rows]


def _read_npz(
    path: Path, expected: dict[str, tuple[np.dtype[Any], tuple[int, ...]]]
) -> dict[str, np.ndarray]:
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
        raise InputError(f"{path.name} is damaged or truncated: {printable(str(e), 200)}") from e


def _read_npy(z: zipfile.ZipFile, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
    """One member, whose header must be the one that numpy writes for this dtype and shape."""
    info, size = z.getinfo(name), dtype.itemsize * math.prod(shape)
    if info.compress_type == zipfile.ZIP_STORED and size < info.file_size <= size + _MAX_HEADER:
        data = z.read(info)
        start = 10 + int.from_bytes(data[8:10], "little")
        header = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': {tuple(shape)!r}, }}"
        same = data[:8] == b"\x93NUMPY\x01\x00" and data[10:start].strip() == header.encode()
        if same and len(data) == start + size:
            return np.frombuffer(data, dtype, offset=start).reshape(shape)
    raise InputError(f"{name} in arrays.npz is not stored as {dtype} {tuple(shape)}")


def _build(kind: type, content: Any, what: str) -> Any:
    content = _mapping(content, what)
    _same_keys(content, [f.name for f in dataclasses.fields(kind)], what)
    return kind(**content)


def _same_keys(content: dict[str, Any], expected: Iterable[str], what: str) -> None:
    expected = set(expected)
    if content.keys() != expected:
        missing, extra = sorted(expected - content.keys()), sorted(content.keys() - expected)
        raise InputError(f"{what}: missing {_short(missing)}, unknown {_short(extra)}")


# ---- checks


def _checked_facts(facts: Any) -> dict[str, Any]:
    facts = dict(_mapping(facts, "dataset"))
    _same_keys(facts, _DATASET, "dataset")
    _text(facts["source"], "dataset.source")
    facts["count"] = _integer(facts["count"], "dataset.count", 1)
    sides = _items(facts["image_shape"], "dataset.image_shape")
    shape = tuple(_integer(n, "dataset.image_shape", 1) for n in sides)
    if len(shape) != 3 or math.prod(shape) > 1 << 32:
        raise InputError(f"dataset.image_shape must be (C, H, W), got {_short(shape)}")
    facts["image_shape"] = shape
    names = _items(facts["class_names"], "dataset.class_names")
    facts["class_names"] = tuple(_text(name, "dataset.class_names") for name in names)
    if not names:
        raise InputError("dataset.class_names must name at least one class")
    fingerprint = _text(facts["fingerprint"], "dataset.fingerprint")
    if len(fingerprint) != 64 or set(fingerprint) - set("0123456789abcdef"):
        raise InputError(f"dataset.fingerprint must be 64 hexadecimal digits, got {_short(fingerprint)}")
    return {key: facts[key] for key in _DATASET}


def _set(instance: Any, name: str, value: Any) -> None:
    object.__setattr__(instance, name, value)


def _short(value: Any) -> str:
    return printable(reprlib.repr(value), 100)


def _integer(value: Any, what: str, low: int = 0, high: int = _LARGEST) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise InputError(f"{what} must be an integer from {low} to {high}, got {_short(value)}")
    return int(value)


def _real(value: Any, what: str, low: float = -math.inf, high: float = math.inf) -> float:
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not number or not abs(value) <= sys.float_info.max or not low <= value <= high:  # NaN fails too
        raise InputError(f"{what} must be a finite number in [{low:g}, {high:g}], got {_short(value)}")
    return float(value)


def _optional(value: Any, what: str, low: float = -math.inf, high: float = math.inf) -> float | None:
    return None if value is None else _real(value, what, low, high)


def _truth(value: Any, what: str) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise InputError(f"{what} must be true or false, got {_short(value)}")
    return bool(value)


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{what} must be text, got {_short(value)}")
    return value


def _choice(value: Any, what: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{what} must be one of {', '.join(choices)}; got {_short(value)}")


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise InputError(f"{what} must be a mapping from text, got {_short(value)}")
    return value


def _items(value: Any, what: str) -> list[Any] | tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise InputError(f"{what} must be a list, got {_short(value)}")
    return value


def _instances(values: Any, kind: type, what: str) -> tuple[Any, ...]:
    values = _items(values, what)
    for value in values:
        if not isinstance(value, kind):
            raise InputError(f"{what} must hold {kind.__name__}, got {type(value).__name__}")
    return tuple(values)


def _array(values: Any, what: str, kinds: str, dtype: type, ndim: int) -> np.ndarray:
    """A read-only copy of `values`, of kind `kinds` and `ndim` axes, as `dtype`."""
    values = np.asarray(values)
    if values.dtype.kind not in kinds or values.ndim != ndim:
        raise InputError(
            f"{what} must be {np.dtype(dtype)} with {ndim} axes, got {values.dtype} of shape {values.shape}"
        )
    copy: np.ndarray = np.array(values, dtype, order="C")
    copy.flags.writeable = False
    return copy


def _finding_dict(finding: Finding, arrays: bool) -> dict[str, Any]:
    out = {f.name: getattr(finding, f.name) for f in dataclasses.fields(finding) if f.name not in _ARRAYS}
    out["sources"] = list(finding.sources)
    out["flagged"] = len(finding.indices)
    return {**out, **{name: getattr(finding, name).tolist() for name in _ARRAYS}} if arrays else out


def _count(n: int, one: str, many: str | None = None) -> str:
    return f"{n} {one if n == 1 else many or one + 's'}"
