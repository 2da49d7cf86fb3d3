"""The notebook in examples/, run as a person would."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.common.places import ROOT

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_notebook(path, tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "python"), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells), "clear all outputs before saving"
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute(cwd=str(tmp_path))
    printed = "".join(
        out.get("text", "") for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs
    )
    assert "poison" in printed.lower()
    assert "planted images flagged" in printed


def test_there_are_examples():
    assert NOTEBOOKS
    page = (ROOT / "examples" / "demo_report.html").read_text("utf-8")
    assert page.count("<script") == 0
    assert Path(ROOT / "examples" / "demo_report.html").stat().st_size < 1 << 20
