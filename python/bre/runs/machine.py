"""What the last digits of a result depend on: the code and the libraries that compute it, and their instruction set."""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..method import linalg
from ..ops import cpu

_CODE = (".py", ".so", ".pyd")


@cache
def machine() -> dict[str, str]:
    """By name: bre is a digest of its files, since it may have changed without a new version."""
    known = {"python": platform.python_version(), "bre": _code()}
    for name in ("torch", "numpy", "scipy"):
        try:
            known[name] = version(name)
        except PackageNotFoundError:
            known[name] = "not installed"
    return {**known, "instruction set": cpu.instruction_set() or "not compiled", "blas": linalg.blas()}


def _code() -> str:
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.suffix in _CODE):
        digest.update(str(path.relative_to(root)).encode() + b"\0")
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
