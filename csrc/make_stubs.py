"""Write python/bre/_core.pyi and _cuda.pyi: the compiled modules' functions, by pybind11-stubgen, as they were built.

    python csrc/make_stubs.py

_cuda is taken from the emulation that the tests build, which has the same bindings and needs no CUDA.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
HEAD = "# Made by csrc/make_stubs.py; do not edit.\n"
PLAIN = {  # what is given by us is a plain number, and the compiler's targets are those of a build
    r"typing\.SupportsInt \| typing\.SupportsIndex": "int",
    r"typing\.SupportsFloat \| typing\.SupportsIndex": "float",
    r'typing\.Annotated\[collections\.abc\.Sequence\[int\], "FixedSize\(\d+\)"\]': "tuple[int, ...]",
    r"collections\.abc\.Sequence": "list",
    r"^import (typing|collections\.abc)\n": "",
    r"(?<=^architectures: str) = .*$": "",
}


def stub(module: ModuleType, folder: Path) -> str:
    """module: as `bre.NAME`; folder: to write to."""
    from pybind11_stubgen import main

    sys.modules[module.__name__] = module
    main(["--exit-code", "--output-dir", str(folder), module.__name__])
    path = folder.joinpath(*module.__name__.split(".")).with_suffix(".pyi")
    text = path.read_text()
    for written, plain in PLAIN.items():
        text = re.sub(written, plain, text, flags=re.MULTILINE)
    path.write_text(HEAD + text)
    ruff = [sys.executable, "-m", "ruff", "format", "-q", f"--config={ROOT / 'pyproject.toml'}"]
    subprocess.run([*ruff, str(path)], check=True)
    return path.read_text()


def stubs(folder: Path) -> dict[str, str]:
    """Of both modules, by file name."""
    import cuda_emulation

    path = str(cuda_emulation.build(cuda_emulation.sanitized()))
    loader = importlib.machinery.ExtensionFileLoader("bre._cuda", path)
    spec = importlib.util.spec_from_loader("bre._cuda", loader)
    assert spec is not None
    emulated = importlib.util.module_from_spec(spec)
    loader.exec_module(emulated)
    return {"_core.pyi": stub(importlib.import_module("bre._core"), folder), "_cuda.pyi": stub(emulated, folder)}


if __name__ == "__main__":
    sys.path.append(str(ROOT / "tests" / "support"))
    with tempfile.TemporaryDirectory() as scratch:
        for name, text in stubs(Path(scratch)).items():
            (ROOT / "python" / "bre" / name).write_text(text)
