"""The CUDA kernels through nvcc for every architecture the package ships: no spills, no local memory, and the 128-bit
accesses that the design asks for. `pytest -s` prints registers and shared memory. Needs nvcc, not a GPU."""

from __future__ import annotations

import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
# As in CMakeLists.txt: 80-real 90-real 100.
TARGETS = [80, 90, 100]
NVCC = shutil.which("nvcc")

pytestmark = pytest.mark.skipif(NVCC is None, reason="nvcc is not on PATH")


@dataclass(frozen=True)
class Kernel:
    source: str
    name: str  # with its template arguments, mangled
    target: int
    registers: int
    shared: int
    local: int  # bytes of stack and of spills


@dataclass(frozen=True)
class Build:
    kernels: tuple[Kernel, ...]
    ptx: dict[str, str]  # per source, of the last target


PROPERTIES = re.compile(
    r"Function properties for (?P<name>\w+)\s+"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads\s+"
    r"ptxas info\s*: Used (?P<registers>\d+) registers(?P<rest>[^\n]*)"
)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    folder = tmp_path_factory.mktemp("cuda")

    def nvcc(source: Path) -> tuple[list[Kernel], str]:
        out = folder / source.stem
        out.mkdir()
        codes = [f"-gencode=arch=compute_{x},code=sm_{x}" for x in TARGETS]
        done = subprocess.run(
            [str(NVCC), "-std=c++17", "-O3", "-Werror=all-warnings", "-Xcompiler=-Wall", "-Xptxas=-v", *codes, "--keep"]
            + [f"--keep-dir={out}", "-c", str(source), "-o", str(out / "out.o")],
            capture_output=True,
            text=True,
        )
        log = done.stdout + done.stderr
        assert done.returncode == 0, log
        kernels: list[Kernel] = []
        for part in re.split(r"(?=Compiling entry function)", log):
            target = re.search(r"for 'sm_(\d+)'", part)
            if target is None:
                continue
            found = PROPERTIES.search(part)
            assert found is not None, part
            local = sum(int(found[key]) for key in ("stack", "stores", "loads"))
            smem = re.search(r"(\d+) bytes smem", found["rest"])
            shared = int(smem[1]) if smem else 0
            kernels.append(Kernel(source.stem, found["name"], int(target[1]), int(found["registers"]), shared, local))
        (ptx,) = out.glob(f"*compute_{TARGETS[-1]}*.ptx")
        return kernels, ptx.read_text()

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(nvcc, SOURCES))
    return Build(
        tuple(kernel for kernels, _ in results for kernel in kernels),
        {source.stem: ptx for source, (_, ptx) in zip(SOURCES, results, strict=True)},
    )


def readable(name: str) -> str:
    """loss_rows<f,8,32> from its mangled name."""
    found = re.search(r"_GLOBAL__N__\w+?\d(?P<name>[a-z]+_?[a-z]+)(?:I(?P<arguments>\w+?)E)?Ev", name)
    return name if found is None else found["name"]


def test_every_kernel_was_built_for_every_target(build: Build) -> None:
    for target in TARGETS:
        names = {kernel.name for kernel in build.kernels if kernel.target == target}
        assert len(names) == 33, target
    print(f"\n{'kernel':56}{'sm':>5}{'registers':>10}{'shared':>8}{'local':>6}")
    for kernel in sorted(build.kernels, key=lambda kernel: (kernel.source, kernel.name, kernel.target)):
        print(f"{demangled(kernel):56}{kernel.target:>5}{kernel.registers:>10}{kernel.shared:>8}{kernel.local:>6}")
