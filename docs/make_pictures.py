"""The README's pictures and examples/demo_report.html, from a saved report of the demo:

    bre demo --out FOLDER && python docs/make_pictures.py FOLDER

The terminal is drawn by rich, as `bre detect` prints it; the page is what headless Chromium shows of report.html.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.text import Text

from bre import Report

DOCS = Path(__file__).parent
EXAMPLE = DOCS.parent / "examples" / "demo_report.html"
SIZE = (1000, 1150)  # of the page that is shown, in CSS pixels


def main(folder: Path) -> None:
    shutil.copyfile(folder / "report.html", EXAMPLE)
    _terminal(Report.load(folder), DOCS / "terminal.svg")
    _page(EXAMPLE, DOCS / "report.png")


def _terminal(report: Report, out: Path) -> None:
    console = Console(record=True, width=100, file=io.StringIO(), force_terminal=True)
    verdict, *lines = report.summary().split("\n")
    console.print(Text("$ bre detect train.npz --model model.pt2 --out report", style="dim"))
    console.print(Text(verdict, style="bold red" if report.poisoned else "bold green"))
    for line in lines:
        console.print(Text(line, style="bold" if line.startswith("Finding ") else ""), highlight=False)
    out.write_text(console.export_svg(title="bre", unique_id="bre"), "utf-8")


def _page(page: Path, out: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome") or sys.exit("no Chromium here")
    with tempfile.TemporaryDirectory() as box:
        shot = Path(box) / "page.png"
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--disable-gpu", f"--user-data-dir={box}/user"]
        size = f"--window-size={SIZE[0]},{SIZE[1]}"
        subprocess.run([browser, *options, size, f"--screenshot={shot}", page.resolve().as_uri()], check=True)
        Image.open(shot).convert("RGB").quantize(128).save(out, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
