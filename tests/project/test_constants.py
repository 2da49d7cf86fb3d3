"""The pedigree of constants: how comments are read, that none is missing, that docs/constants.md is up to date."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks.common.constants import Constant, constants
from benchmarks.common.places import DOCS

# Modules whose constants have no sources yet. Nothing is to be added here.
PENDING: tuple[str, ...] = ()


def read(folder: Path, source: str) -> list[Constant]:
    (folder / "ops").mkdir()
    (folder / "ops" / "one.py").write_text(source)
    return constants(folder)


def pedigree(one: Constant) -> tuple[str, str, str, str]:
    return one.unit, one.meaning, one.kind, one.detail


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("A = 3  # images; of a class; source: chosen, why not", ("images", "of a class", "chosen", "why not")),
        ("A = 3  # images; source: chosen", ("", "images", "chosen", "")),
        (
            "# pixels; of a\n# side; source: paper, Tran\n# 2018\nA = 2**5",
            ("pixels", "of a side", "paper", "Tran 2018"),
        ),
        ("# a heading\nA = 3  # s; b; source: derived, c", ("s", "b", "derived", "c")),
        ("# s; b; source: derived, c\nA = 3  # more", ("s", "b", "derived", "c more")),
        ("A = (  # s; b; source: simulated: c\n    1,\n    2,\n)", ("s", "b", "simulated", "c")),
        ("A = 3  # images", ("", "images", "", "")),
        ("A = 3  # images; of a class; source: hearsay", ("", "images; of a class; source: hearsay", "", "")),
        ("A = 3", ("", "", "", "")),
    ],
)
def test_comments(tmp_path: Path, source: str, expected: tuple[str, str, str, str]) -> None:
    (found,) = read(tmp_path, source)
    assert pedigree(found) == expected
    assert (found.module, found.name) == ("bre.ops.one", "A")


def test_what_counts_as_a_constant(tmp_path: Path) -> None:
    numbers = 'A = 1\nB: int = -A\nC = (1, 2.5)\nD = {"x": A / 3}\n'
    others = 'E = "text"\nF = True\ng = 3\nH = f(3)\nJ = ((1, 2),)\n_K = 1\n'
    found = read(tmp_path, numbers + others)
    assert [(one.name, one.value, one.line) for one in found] == [
        ("A", "1", 1),
        ("B", "-A", 2),
        ("C", "(1, 2.5)", 3),
        ("D", "{'x': A / 3}", 4),
    ]


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_constants", DOCS / "make_constants.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_constant_has_a_source(maker: ModuleType) -> None:
    assert [name for name in maker.without_source(constants()) if not name.startswith(PENDING)] == []


def test_no_two_public_constants_have_one_name() -> None:
    names = Counter(one.name for one in constants())
    assert [name for name, count in names.items() if count > 1] == []


def test_the_page_is_up_to_date(maker: ModuleType) -> None:
    assert maker.page(constants()) == maker.PAGE.read_text("utf-8"), "run python docs/make_constants.py"
