"""What docs/pipelines.md and the Dockerfile say, run as far as one machine can."""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
import types
from pathlib import Path

import numpy as np
import pytest
import synthetic
from PIL import Image
from typer.main import get_command

import bre
from bre import attacks
from bre.cli.commands import app

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "pipelines.md").read_text("utf-8")
SHAPE = (3, 12, 12)


def block(heading: str, language: str) -> str:
    """The first block of a language below a heading."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    found = re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)
    assert found
    return found[1]


def photos(folder: Path, *, planted: bool) -> None:
    images, labels = synthetic.labelled(0, 6, 120, SHAPE)
    if planted:
        made = attacks.plant(images, labels, attacks.chessboard(SHAPE, 8 / 255), target=2, count=40, seed=0)
        images, labels = made.images, made.labels
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / "photos" / "abcdef"[label] / f"{i:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(path)
    (folder / "photos" / "a" / "cut.png").write_bytes(b"no image")


@pytest.mark.parametrize("planted", [False, True])
def test_the_task_of_airflow(planted, tmp_path, monkeypatch):
    """Its decorators do as Airflow's: the task is a function, called when the graph is run."""
    sdk = types.ModuleType("airflow.sdk")
    sdk.task = lambda function: function
    sdk.dag = lambda **options: lambda function: function
    monkeypatch.setitem(sys.modules, "airflow", types.ModuleType("airflow"))
    monkeypatch.setitem(sys.modules, "airflow.sdk", sdk)
    monkeypatch.chdir(tmp_path)
    photos(tmp_path, planted=planted)
    code = compile(block("Airflow", "python"), "pipelines.md", "exec")
    if planted:
        with pytest.raises(ValueError, match="The report is in report-of-today"):
            exec(code, {})
    else:
        exec(code, {})
    assert bre.Report.load(tmp_path / "report-of-today").poisoned == planted
    assert "cut.png" in (tmp_path / "report-of-today" / "skipped.csv").read_text()


def parsed(arguments: list[str]) -> dict[str, object]:
    """The parameters that the program takes from a command line, which it refuses if there are others."""
    command = get_command(app)
    sub = command.commands[arguments[0]]
    return dict(sub.make_context(arguments[0], arguments[1:]).params)


def test_the_job_of_kubernetes():
    yaml = pytest.importorskip("yaml")
    job = yaml.safe_load(block("Kubernetes", "yaml"))
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    pod = job["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # which a policy on failures asks for
    (container,) = pod["containers"]
    volumes = {volume["name"] for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert {mount["name"] for mount in mounts.values()} == volumes
    given = parsed(container["args"])
    assert (str(given["manifest"]), str(given["out"]), given["jobs"]) == ("/lists/nightly.csv", "/results/sweep", 4)
    assert mounts["/lists"]["readOnly"]
    assert not mounts["/results"].get("readOnly")


def instructions() -> list[tuple[str, list[str]]]:
    lines = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    return [(line.split()[0], line.split()[1:]) for line in lines if line and not line.startswith("#")]


def test_the_dockerfile():
    """Its instructions are known, what it copies is here, and what it installs are extras."""
    found = instructions()
    assert {name for name, _ in found} <= {"FROM", "RUN", "WORKDIR", "COPY", "USER", "ENTRYPOINT"}
    stages = {words[2] for name, words in found if name == "FROM" and len(words) == 3}
    copied = set()
    for name, words in found:
        if name == "COPY":
            stage = [word.removeprefix("--from=") for word in words if word.startswith("--from=")]
            sources = [word for word in words[:-1] if not word.startswith("--")]
            assert set(stage) <= stages
            assert stage or all((ROOT / source).exists() for source in sources), sources
            copied |= set() if stage else set(sources)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert {project["project"]["readme"], *project["project"]["license-files"], "pyproject.toml"} <= copied
    installed = next(" ".join(words) for name, words in found if name == "RUN" and "--extra-index-url" in words)
    extras = re.search(r"\[([a-z0-9,]+)\]", installed)
    assert extras
    assert set(extras[1].split(",")) <= project["project"]["optional-dependencies"].keys()
    assert found[-1] == ("ENTRYPOINT", ['["bre"]'])
    assert "bre" in project["project"]["scripts"]


def test_a_sweep_on_ray(tmp_path, monkeypatch):
    """On a cluster of this machine, that is started for it."""
    pytest.importorskip("ray")
    line = block("Ray", "sh").strip()
    assert parsed(shlex.split(line)[1:])["ray"] == "auto"
    images, labels = synthetic.labelled(0, 6, 60, SHAPE)
    np.savez(tmp_path / "set.npz", images=images, labels=labels)
    monkeypatch.setenv("PYTHONPATH", str(Path(bre.__file__).parents[1]))
    rows = [{"data": tmp_path / "set.npz", "seed": seed} for seed in (0, 1)]
    (first, second) = sorted(bre.sweep(rows, executor="ray", out=tmp_path / "sweep"), key=lambda r: r.number)
    assert first.p_value == bre.screen(tmp_path / "set.npz").p_value
    assert second.status == 0
