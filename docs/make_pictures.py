"""The README's pictures and examples/demo_report.html, of the demo's report:

    bre demo --out FOLDER && python docs/make_pictures.py FOLDER

The page is FOLDER's; headless Chromium shows the top of it. The terminal is what `bre detect` prints on the demo's
images and network, made again and written to files; rich draws it. Takes half a minute.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.text import Text

from bre import demo

DOCS = Path(__file__).parent
EXAMPLE = DOCS.parent / "examples" / "demo_report.html"
SIZE = (1000, 1425)  # of the page that is shown, at most, in CSS pixels: as far as the first flagged images
SCALE = 1.28  # pixels in a CSS pixel: twice the width of 640 that the README shows
COLUMNS = 100
COMMAND = "bre detect train.npz --model model.pt2"
FONTS = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)  # rich's, which a reader's browser would fetch from afar


def main(folder: Path) -> None:
    shutil.copyfile(folder / "report.html", EXAMPLE)
    _page(EXAMPLE, DOCS / "report.png")
    _terminal(DOCS / "terminal.svg")


def _page(page: Path, out: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome") or sys.exit("no Chromium here")
    with tempfile.TemporaryDirectory() as box:
        shot = Path(box) / "page.png"
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--disable-gpu", f"--user-data-dir={box}/user"]
        size = [f"--window-size={SIZE[0]},{SIZE[1]}", f"--force-device-scale-factor={SCALE}"]
        command = [browser, *options, *size, f"--screenshot={shot}", page.resolve().as_uri()]
        subprocess.run(command, check=True, capture_output=True)
        image = Image.open(shot).convert("RGB")
    blank = (np.asarray(image) == 255).all((1, 2))  # rows; the picture ends at one, not within a line or an image
    bottom = int(np.flatnonzero(blank)[-1]) + 1
    # in all its colours: fewer would hide the faint pattern in the images, or draw another
    image.crop((0, 0, image.width, bottom)).save(out, optimize=True)


def _terminal(out: Path) -> None:
    with tempfile.TemporaryDirectory() as box:
        _write_demo(Path(box))
        environment = {**os.environ, "FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)}
        command = [sys.executable, "-m", *COMMAND.split()]
        answer = subprocess.run(command, cwd=box, env=environment, capture_output=True, text=True)
    if answer.returncode != 1:
        sys.exit(f"{COMMAND} found no poison:\n{answer.stdout}{answer.stderr}")
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text(f"$ {COMMAND}", style="dim"))
    console.print(Text.from_ansi(answer.stdout.rstrip()))
    out.write_text(FONTS.sub("", console.export_svg(title="bre", unique_id="bre")), "utf-8")


def _write_demo(folder: Path) -> None:
    """What `bre demo` plants and trains, with its seed 0."""
    train, _ = demo.digits(0)
    planted, _, _ = demo.plant(train, 0)
    np.savez(folder / "train.npz", images=planted.images, labels=planted.labels)
    victim = demo.fit(planted.images, planted.labels, seed=0)
    batch = {"images": {0: torch.export.Dim("batch")}}
    example = torch.zeros(2, *train.images.shape[1:])
    torch.export.save(torch.export.export(victim, (example,), dynamic_shapes=batch), folder / "model.pt2")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
