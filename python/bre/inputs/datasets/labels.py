"""Labels as people keep them (numbers, columns, one-hot rows, names) to class numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import InputError

# classes; largest label; source: chosen, larger labels are identifiers or mistakes, and would allocate per-class
# tables
MAX_CLASSES = 1_000_000
_CLASSES_PER_IMAGE = 10  # likewise, beyond that many classes for each image there is ...
_ALWAYS_CLASSES = 1000  # ... but for sets of few images of many classes
_WHOLE_FLOAT = re.compile(r"-?[0-9]{1,9}(\.0+)?")
_LONGEST_NAME = 1000  # characters, of a class


def as_labels(labels: Any, count: int, source: str) -> np.ndarray:
    """labels: (M,) whole numbers of any integer or float dtype, or a sequence of them; (M, 1); or (M, K) one-hot rows
    of any number dtype -> (M,) int64, a copy.

    Raises InputError for None, bools, numbers that are not whole, another shape or length, and negative labels.
    """
    if labels is None:
        raise InputError(f"{source}: labels are missing; bre needs one integer label per image")
    if hasattr(labels, "detach"):
        labels = labels.detach().cpu().numpy()
    try:
        given: np.ndarray = np.asarray(labels)
    except ValueError as e:  # ragged nested lists
        raise InputError(f"{source}: labels must be one integer per image: {e}") from None
    if given.ndim > 1 and given.shape[1:] == (1,) * (given.ndim - 1):
        given = given.reshape(len(given))
    if len(given.shape) and len(given) != count:
        raise InputError(f"{source}: {count} images but {len(given)} labels")
    if given.ndim == 2:
        given = _of_one_hot(given, source)
    if given.ndim != 1:
        raise InputError(f"{source}: labels must be 1-D, got shape {given.shape}")
    if count == 0:
        return np.empty(0, np.int64)
    if given.dtype.kind == "f":
        given = _of_floats(given, source)
    if given.dtype.kind not in "iu":
        raise InputError(f"{source}: labels must be integers, got {given.dtype}")
    if given.min() < 0:
        bad = int(np.argmax(given < 0))
        raise InputError(f"{source}: labels must be >= 0, got {given[bad]} at image {bad}")
    limit = _class_limit(count)
    if given.max() >= limit:
        raise InputError(
            f"{source}: labels of {count} images must be class numbers, from 0 on and below {limit}, got {given.max()} "
            f"at image {int(np.argmax(given))}"
        )
    return np.array(given, np.int64)


def _class_limit(count: int) -> int:
    return min(MAX_CLASSES, max(_ALWAYS_CLASSES, _CLASSES_PER_IMAGE * count))


def check_label_shape(shape: tuple[int, ...], count: int, source: str) -> None:
    """Raise InputError for an array that cannot be the labels of `count` images, before it is read: it may be of
    gigabytes."""
    if not shape or shape[0] != count:
        raise InputError(f"{source}: {count} images but {shape[0] if shape else 'no'} labels")
    if math.prod(shape[1:]) > _class_limit(count):
        raise InputError(f"{source}: labels must be 1-D, or one-hot rows, got shape {shape}")


def named_labels(labels: Any, count: int, source: str) -> tuple[np.ndarray, list[str] | None]:
    """Labels as `as_labels` takes them, or (M,) names -> (M,) int64 and the class names, None for numbers."""
    given = labels if isinstance(labels, (list, tuple, np.ndarray)) else []
    if not len(given) or not all(isinstance(label, str) for label in given):
        return as_labels(labels, count, source), None
    if len(given) != count:
        raise InputError(f"{source}: {count} images but {len(given)} labels")
    return number_labels([str(label) for label in given], source)


def _of_floats(given: np.ndarray, source: str) -> np.ndarray:
    """Whole numbers that a table or a network's library keeps as floats -> (M,) int64."""
    odd = ~(np.isfinite(given) & (given == np.rint(given)) & (np.abs(given) <= MAX_CLASSES))
    if odd.any():
        bad = int(np.argmax(odd))
        raise InputError(f"{source}: labels must be integers, got {given.dtype} with {given[bad]} at image {bad}")
    return given.astype(np.int64)


def _of_one_hot(rows: np.ndarray, source: str) -> np.ndarray:
    """(M, K) -> (M,) int64. Raises InputError unless every row is 0 but for one 1."""
    number = rows.dtype.kind in "iufb"
    if not number or not ((rows == 0) | (rows == 1)).all() or not (rows.sum(axis=1) == 1).all():
        raise InputError(
            f"{source}: labels must be 1-D, or one-hot rows of zeros and a single 1, got {rows.dtype} of shape "
            f"{rows.shape}; turn rows of probabilities into class numbers with argmax(1)"
        )
    numbers: np.ndarray = rows.argmax(axis=1)
    return numbers


def as_label(label: Any, where: str) -> int:
    """The label of one item: an integer, an array or tensor of one, or a one-hot vector. Raises InputError for others.

    Whether it is negative or too large is seen when all are there.
    """
    if hasattr(label, "detach"):
        label = label.detach().cpu().numpy()
    if isinstance(label, (list, tuple)) and len(label) == 1:
        label = label[0]
    if isinstance(label, (np.ndarray, np.generic)):
        if label.ndim == 1 and label.size > 1:
            label = _of_one_hot(np.asarray(label)[None], where)[0]
        if label.size != 1:
            raise InputError(f"{where}: the label must be a single integer, got shape {tuple(label.shape)}")
        label = label.item()
    if isinstance(label, float) and label.is_integer():
        return int(label)
    if isinstance(label, bool) or not isinstance(label, int):
        raise InputError(f"{where}: the label must be an integer, got {type(label).__name__}")
    return label


def number_labels(values: Sequence[str], source: str) -> tuple[np.ndarray, list[str] | None]:
    """values: (M,) labels as text -> (M,) int64 and the class names.

    Whole numbers stay what they are (written as 3 or as 3.0), and have no names; anything else is the name of a class,
    and the names are numbered in sorted order. Raises InputError for an empty name, for numbers that are not whole, and
    as `as_labels`.
    """
    if all(map(_is_whole, values)):
        return as_labels([int(value) for value in values], len(values), source), None
    if "" in values:
        raise InputError(f"{source}: image {values.index('')} has an empty label")
    if all(map(_is_number, values)):  # as pandas writes a column of integers that had gaps, and MXNet its lists
        if all(map(_WHOLE_FLOAT.fullmatch, values)):
            return as_labels([float(value) for value in values], len(values), source), None
        odd = next(value for value in values if not _is_whole(value))
        raise InputError(f"{source}: labels must be whole numbers, or names, got {odd[:100]!r}")
    names = sorted(set(values))
    if len(longest := max(names, key=len)) > _LONGEST_NAME:
        raise InputError(f"{source}: a class name is {len(longest)} characters long, expected names of classes")
    number = {name: i for i, name in enumerate(names)}
    return as_labels([number[value] for value in values], len(values), source), names


def _is_whole(text: str) -> bool:
    return text.isascii() and text.removeprefix("-").isdigit() and len(text) < 19


def _is_number(text: str) -> bool:
    """Also for nan and inf."""
    try:
        float(text)
    except ValueError:
        return False
    return True
