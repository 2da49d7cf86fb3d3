"""What is installed: the compiled module, and the files that are not Python. Runs on a wheel as well."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import tomllib
from pathlib import Path

import pytest
import torch

import bre
from bre import ops

PAGES = ["report/page/report.html.j2", "report/page/sweep.html.j2", "report/page/style.css"]
FILES = ["py.typed", "_core.pyi", "_cuda.pyi", *PAGES]
PROJECT = Path(__file__).parents[2] / "pyproject.toml"


@pytest.mark.parametrize("name", FILES)
def test_files_beside_the_code(name):
    assert importlib.resources.files("bre").joinpath(*name.split("/")).is_file()


def test_none_is_missing_from_the_list():
    """What lies in the source and is neither Python nor compiled must be named above."""
    source = PROJECT.parent / "python" / "bre"
    found = {str(p.relative_to(source)) for p in source.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    assert {name for name in found if not name.endswith((".py", ".so", ".pyd"))} == set(FILES)


def test_the_compiled_kernels_run():
    assert ops.unavailable("cpu") is None
    images = torch.arange(2 * 3 * 4 * 5, dtype=torch.uint8).reshape(2, 3, 4, 5)
    labels = torch.tensor([0, 1])
    found, expected = (ops.moments(images, labels, classes=2, backend=name) for name in ("cpu", "reference"))
    assert torch.equal(found.second, expected.second)


def test_the_command_is_installed():
    (command,) = (e for e in importlib.metadata.distribution("bre-engine").entry_points if e.name == "bre")
    assert callable(command.load())
    assert importlib.metadata.version("bre-engine") == bre.__version__


def test_wheels_are_built_for_what_is_supported():
    project = tomllib.loads(PROJECT.read_text())
    wheels = project["tool"]["cibuildwheel"]
    assert wheels["build"].startswith("cp311-*")
    assert project["project"]["requires-python"] == ">=3.11"
    assert wheels["config-settings"] == {"cmake.define.BRE_CUDA": "OFF"}
    cmake = (PROJECT.parent / "CMakeLists.txt").read_text()
    assert 'set(BRE_CUDA "AUTO"' in cmake, "the option that wheels switch off"
