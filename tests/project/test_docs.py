"""The pages of docs/ and the README: their examples run, their links lead somewhere, the reference is current.

In every page the blocks of python run in one namespace, in order, together with the lines of sh that start with `bre`,
and blocks like ```toml file=NAME are written. They run in a folder that holds what the pages call the user's. A line's
exit status is 0, or what a comment behind it says. `<!-- not run here: why -->` before a block skips it; blocks that
name a CUDA device are compiled only.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import synthetic
import torch
import torchvision_ops
from PIL import Image
from typer.testing import CliRunner

import bre
from bre import attacks
from bre.cli.commands import app
from bre.cli.config_file import read_config
from bre.cli.options import OPTIONS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHAPE = (3, 12, 12)
BLOCK = re.compile(r"(<!-- not run here: [^\n]*-->\n)?```(\w+)(?: file=(\S+))?\n(.*?)```", re.DOTALL)
STATUS = re.compile(r"#.*exit status (\d)")


def parts(page):
    """(language, file name or None, text) of the blocks that are run."""
    return [found.group(2, 3, 4) for found in BLOCK.finditer(page.read_text("utf-8")) if not found[1]]


def runs(page):
    if page.name == "reference.md":  # signatures
        return False
    return any(kind == "python" or (kind == "sh" and re.search("^bre ", text, re.M)) for kind, _, text in parts(page))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """What the pages call the user's: six classes of 300 images, and a network."""
    folder = tmp_path_factory.mktemp("home")
    images, labels = synthetic.labelled(0, 6, 300, SHAPE, strength=40)
    planted = attacks.plant(images, labels, attacks.chessboard(SHAPE, 6 / 255), target=2, count=120, seed=0)
    np.savez(folder / "train.npz", images=planted.images, labels=planted.labels)
    for i, (image, label) in enumerate(zip(planted.images, planted.labels, strict=True)):
        path = folder / "photos" / "abcdef"[label] / f"{i:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(path)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(int(np.prod(SHAPE)), 6)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of exporting
        batch = {"input": {0: torch.export.Dim("batch")}}
        program = torch.export.export(net, (torch.zeros(2, *SHAPE),), dynamic_shapes=batch)
        torch.export.save(program, folder / "model.pt2")
    return folder


def add_formats(folder):
    """What formats.md names beside that; needs the extras."""
    import safetensors.torch

    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    if not torch.cuda.is_available():
        torchvision_ops.declare()
    torchvision = pytest.importorskip("torchvision", exc_type=(ImportError, RuntimeError))
    timm = pytest.importorskip("timm")
    pngs = [p.read_bytes() for p in sorted((folder / "photos").glob("*/*.png"))[::100]]
    classes = [i % 3 for i in range(len(pngs))]
    pq.write_table(pa.table({"img": pngs, "fine_label": classes, "coarse_label": classes}), folder / "cifar100.parquet")
    safetensors.torch.save_file(
        timm.create_model("resnet10t", num_classes=3).state_dict(), folder / "model.safetensors"
    )
    state = torchvision.models.get_model("resnet18", num_classes=3).state_dict()
    torch.save({"state_dict": state}, folder / "weights.pth")


@pytest.mark.parametrize("page", [p for p in PAGES if runs(p)], ids=lambda p: p.name)
def test_the_examples_of_a_page(page, home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in home.iterdir():
        (tmp_path / path.name).symlink_to(path)  # nothing writes to them
    if page.name == "formats.md":
        add_formats(tmp_path)
    with np.load("train.npz") as z:
        names = {"bre": bre, "images": z["images"], "labels": z["labels"]}
    for language, file, text in parts(page):
        if file:
            Path(file).write_text(text)
        if language == "python":
            code = compile(text, page.name, "exec")
            if '"cuda"' not in text:
                exec(code, names)
        elif language == "sh":
            for line in text.splitlines():
                if line.startswith("bre "):
                    run(line)
        elif language == "toml":
            Path("options.toml").write_text(text)
            read_config(Path("options.toml"), OPTIONS.values())
    check = CHECKS.get(page.name)
    if check:
        check(names)


def run(line):
    told = STATUS.search(line)
    result = CliRunner().invoke(app, shlex.split(line, comments=True)[1:])
    assert result.exit_code == int(told[1] if told else 0), f"{line}\n{result.output}\n{result.exception!r}"


def reading(names):
    assert names["report"].findings[0].target == 2
    assert Path("report/report.html").read_text("utf-8").count("<img") > 3


def formats(names):
    assert names["images"].image_shape == (3, 64, 64)
    names["model"].check((3, 32, 32), 3)


def tour(_names):
    left = sum(1 for _ in Path("clean").rglob("*.png"))
    assert left == 1800 - len(Path("clean.removed.csv").read_text().splitlines()) + 1
    assert Path("second/report.html").exists()
    assert Path("photos").is_symlink()


def recipes(names):
    assert Path("findings.sarif").read_text().count("photos") > 50
    assert names["again"].findings[0].target == 1


CHECKS = {"reading.md": reading, "formats.md": formats, "tour.md": tour, "recipes.md": recipes}


def test_the_checks_are_of_pages_that_run():
    assert {p.name for p in PAGES if runs(p)} >= {*CHECKS, "README.md"}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"""(?:\]\(|src=")([^)\s"]+)[)"]""", page.read_text("utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = page.parent / path if path else page
        assert there.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(there), f"{page.name}: {target}"


def anchors(page):
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h).strip().lower().replace(" ", "-") for h in headings}


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "README.md").read_text("utf-8")
    names = {p.name for p in PAGES} - {"README.md"}
    assert [name for name in sorted(names) if f"({name})" not in index] == []


def test_the_reference_is_current():
    module = script("make_reference")
    if sys.version_info[:2] != (3, 11):
        pytest.skip("signatures are printed in other words by other Pythons")
    assert module.page() == module.PAGE.read_text("utf-8"), "run python docs/make_reference.py"
    listed = set(re.findall(r"^### (\w+)$", module.page(), re.MULTILINE))
    assert listed >= set(bre.__all__)


def test_the_figure_is_current():
    """Up to what another machine's arithmetic may round otherwise."""
    module = script("make_figures")
    new, old = module.figure(), module.FILE.read_text("utf-8")
    number = re.compile(r"-?\d+\.\d+")
    assert number.sub("", new) == number.sub("", old), "run python docs/make_figures.py"
    close = np.isclose(*(np.array(number.findall(page), float) for page in (new, old)), rtol=0, atol=0.2)
    assert close.mean() > 0.98, "run python docs/make_figures.py"


def script(name):
    """A module of docs/."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where its dataclasses look
    spec.loader.exec_module(module)
    return module
