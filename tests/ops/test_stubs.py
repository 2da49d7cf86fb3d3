"""The compiled modules' stubs are what csrc/make_stubs.py writes: run it after changing a kernel's arguments."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import cuda_emulation
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(cuda_emulation.missing() is not None, reason=str(cuda_emulation.missing()))
def test_the_stubs_are_those_of_the_modules(tmp_path: Path) -> None:
    pytest.importorskip("pybind11_stubgen")
    pytest.importorskip("ruff")
    spec = importlib.util.spec_from_file_location("make_stubs", ROOT / "csrc" / "make_stubs.py")
    assert spec is not None
    assert spec.loader is not None
    make_stubs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_stubs)
    for name, text in make_stubs.stubs(tmp_path).items():
        assert (ROOT / "python" / "bre" / name).read_text() == text, name
