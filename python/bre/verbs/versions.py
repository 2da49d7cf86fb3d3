"""What computed a report: packages, instruction set, BLAS."""

from __future__ import annotations

import importlib.metadata
import platform


def packages() -> dict[str, str]:
    """The versions of bre, Python and the packages that compute, without importing them."""
    distributions = {"bre": "bre-engine", "torch": "torch", "numpy": "numpy", "scipy": "scipy"}
    out = {"python": platform.python_version()}
    for name, distribution in distributions.items():
        try:
            out[name] = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            out[name] = "not installed"
    return out


def versions() -> dict[str, str]:
    """What `Report.versions` holds: the packages, and what last digits depend on beside them, which is the instruction
    set of the compiled kernels, and the BLAS with the processor that it computes for."""
    from ..method import linalg
    from ..ops import cpu

    return {**packages(), "instruction set": cpu.instruction_set() or "not compiled", "blas": linalg.blas()}
