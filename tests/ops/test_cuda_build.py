"""The CUDA kernels through nvcc for every architecture the package ships: no spills, no local memory, and the 128-bit
accesses that the design asks for. `pytest -s` prints registers and shared memory. Needs nvcc, not a GPU."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
# As in CMakeLists.txt: 80-real 90-real 100.
TARGETS = [80, 90, 100]
NVCC = shutil.which("nvcc")

pytestmark = pytest.mark.skipif(NVCC is None, reason="nvcc is not on PATH")


@dataclass(frozen=True)
class Kernel:
    name: str  # with its template arguments
    target: int
    registers: int
    shared: int
    local: int  # bytes of stack and of spills


@dataclass(frozen=True)
class Build:
    kernels: tuple[Kernel, ...]
    ptx: dict[str, str]  # per kernel
    objects: tuple[Path, ...]  # position-independent, with machine code for every target


def readable(mangled: str) -> str:
    """loss_rows<float, 8, 32>, of its mangled name."""
    argument = r"f|13__nv_bfloat16|6__half|L[ib]\d+E"
    found = re.search(
        rf"\d(?P<name>[a-z]+(?:_[a-z]+)?)(?:I(?P<arguments>(?:{argument})+)E)?Ev?[NP]", mangled
    )  # first a pointer or a struct
    assert found is not None, mangled
    words = {"f": "float", "13__nv_bfloat16": "bf16", "6__half": "f16"}
    arguments = re.findall(argument, found["arguments"] or "")
    shown = ", ".join(words.get(each, each[2:-1]) for each in arguments)
    return f"{found['name']}<{shown}>" if shown else found["name"]


def read_log(log: str) -> list[Kernel]:
    """What ptxas -v says of each kernel and target."""
    pattern = re.compile(
        r"Compiling entry function '(?P<name>\w+)' for 'sm_(?P<target>\d+)'\s+"
        r"ptxas info\s*: Function properties for \w+\s+"
        r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads\s+"
        r"ptxas info\s*: Used (?P<registers>\d+) registers(?P<rest>[^\n]*)"
    )
    kernels = []
    for found in pattern.finditer(log):
        smem = re.search(r"(\d+) bytes smem", found["rest"])
        local = sum(int(found[key]) for key in ("stack", "stores", "loads"))
        sizes = int(found["registers"]), int(smem[1]) if smem else 0, local
        kernels.append(Kernel(readable(found["name"]), int(found["target"]), *sizes))
    assert len(kernels) == log.count("Compiling entry function")
    return kernels


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    folder = tmp_path_factory.mktemp("cuda")
    codes = [f"-gencode=arch=compute_{x},code=sm_{x}" for x in TARGETS]
    flags = ["-std=c++17", "-O3", "-Werror=all-warnings", "-Xcompiler=-Wall,-fPIC", "-Xptxas=-v", *codes]

    def nvcc(source: Path) -> tuple[str, str]:
        out = folder / source.stem
        out.mkdir()
        keep = ["--keep", f"--keep-dir={out}", "-c", str(source), "-o", str(out / "out.o")]
        done = subprocess.run([str(NVCC), *flags, *keep], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        (ptx,) = out.glob(f"*compute_{TARGETS[-1]}.ptx")
        return done.stdout + done.stderr, ptx.read_text()

    with ThreadPoolExecutor(2) as pool:
        logs, texts = zip(*pool.map(nvcc, SOURCES), strict=True)
    entries = re.split(r"\.entry (?=\w+\()", "".join(texts))[1:]
    return Build(
        tuple(kernel for log in logs for kernel in read_log(log)),
        {readable(entry[: entry.index("(")]): entry for entry in entries},
        tuple(folder / source.stem / "out.o" for source in SOURCES),
    )


def test_every_kernel_was_built_for_every_target(build: Build) -> None:
    names = {(kernel.name, kernel.target) for kernel in build.kernels}
    assert names == {(name, target) for name in build.ptx for target in TARGETS}
    text = "".join(source.read_text() for source in SOURCES)
    written = set(re.findall(r"__launch_bounds__\(.*\)\s+(\w+)\(", text))
    assert {name.partition("<")[0] for name in build.ptx} == written
    print(f"\n{'kernel':32}{'sm':>5}{'registers':>11}{'shared':>8}{'local':>7}")
    for kernel in sorted(build.kernels, key=lambda kernel: (kernel.name, kernel.target)):
        print(f"{kernel.name:32}{kernel.target:>5}{kernel.registers:>11}{kernel.shared:>8}{kernel.local:>7}")


def test_nothing_spills_and_nothing_lives_in_local_memory(build: Build) -> None:
    assert [kernel for kernel in build.kernels if kernel.local] == []
    for name, ptx in build.ptx.items():
        assert ".local" not in ptx, name


def test_several_blocks_fit_a_multiprocessor(build: Build) -> None:
    """At most 48 KB of shared memory and the registers that let at least 8 warps be there together."""
    for kernel in build.kernels:
        assert kernel.shared <= 48 << 10
        assert kernel.registers <= 65536 // (8 * 32), kernel


# Which accesses move 16 bytes at once: images as bytes, gradients and templates in float32, tiles in shared memory.
WIDE = [
    *[(f"apply_tiles<{x}, {C}>", "ld.global.nc.v4.u32", 2 * C) for x in ("float", "bf16", "f16") for C in (1, 3, 4)],
    *[(f"apply_tiles<float, {C}>", "st.global.v4.f32", C) for C in (1, 3, 4)],
    *[(f"apply_tiles<{x}, {C}>", "st.global.v4.u16", C) for x in ("bf16", "f16") for C in (1, 3, 4)],  # 8 a lane
    *[(f"sum_gradients<float, {C}, 4>", "ld.global.nc.v4.f32", 2 * C) for C in (1, 3, 4)],  # pattern and gradient
    *[(f"sum_gradients<{x}, {C}, 4>", "ld.global.nc.v4.u16", C) for x in ("bf16", "f16") for C in (1, 3, 4)],
    *[(f"project_images<{P}, 1>", "ld.global.nc.v4.u32", 4) for P in (1, 4, 8)],
    *[(f"project_images<{P}, 1>", "ld.global.nc.v4.f32", P) for P in (1, 4, 8)],
    *[(f"project_images<{P}, 1>", "ld.shared.v4.f32", 4 * P) for P in (1, 4, 8)],
    ("class_sums<1>", "ld.global.nc.v4.u32", 1),
    ("second_moment<1>", "ld.global.nc.v4.u32", 4),
    ("gram_tiles<1>", "ld.global.nc.v4.u32", 8),
    ("gram_tiles<1>", "ld.shared.v4.u32", 4),
    *[(f"sum_rows<{count}, 1>", "ld.global.v4.u32", count) for count in (1, 2, 3, 4)],
    *[(f"whiten_tiles<{pieces}>", "ld.global.nc.v4.u32", 8) for pieces in (1, 3, 4)],
    *[(f"whiten_tiles<{pieces}>", "ld.shared.v4.u32", 6) for pieces in (1, 3, 4)],
    ("halve_eights", "ld.global.nc.v4.u32", 2),
    ("sum_planes<1>", "ld.global.nc.v4.u32", 1),
    ("second_moment<1>", "ld.shared.v4.u32", 4),
    ("second_moment<1>", "st.shared.v4.u32", 4),
]


@pytest.mark.parametrize(("kernel", "instruction", "least"), WIDE)
def test_wide_accesses(build: Build, kernel: str, instruction: str, least: int) -> None:
    # ptx may call 32 bits u32, f32 or b32
    pattern = re.sub(r"[uf](?=\d+$)", "[ufb]", re.escape(instruction))
    assert len(re.findall(pattern, build.ptx[kernel])) >= least


def test_exact_sums_use_the_byte_dot_product(build: Build) -> None:
    assert build.ptx["second_moment<1>"].count("dp4a.u32.u32") >= 64
    assert build.ptx["gram_tiles<1>"].count("dp4a.s32.s32") >= 64
    for pieces in (1, 3, 4):
        assert len(re.findall(r"dp2a\.(?:lo|hi)\.s32\.s32", build.ptx[f"whiten_tiles<{pieces}>"])) >= 128


def test_the_module_loads_without_a_driver(build: Build, tmp_path: Path) -> None:
    """And its first call says, with file and line, that there is none."""
    pybind11 = pytest.importorskip("pybind11")
    if Path("/dev/nvidiactl").exists():
        pytest.skip("there is a driver")
    module = tmp_path / "_cuda.so"
    sources = [ROOT / "csrc" / "cuda" / name for name in ("module.cpp", "device.cpp")]
    includes = [f"-I{path}" for path in (pybind11.get_include(), sysconfig.get_path("include"))]
    flags = ["-std=c++17", "-shared", "-cudart=static", "-Xcompiler=-fPIC,-fvisibility=hidden", *includes]
    define = '-DBRE_CUDA_ARCHITECTURES="80 90 100"'
    command = [str(NVCC), *flags, define, *map(str, [*sources, *build.objects]), "-o", str(module)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    script = "import _cuda; print(_cuda.architectures)\ntry: _cuda.device_count()\nexcept RuntimeError as e: print(e)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    architectures, error = done.stdout.splitlines()
    assert architectures == "80 90 100"
    assert re.search(r"^cudaError\w+: .*driver.* \(csrc/cuda/device\.cpp:\d+: cudaGetDeviceCount", error)


def test_nothing_is_atomic(build: Build) -> None:
    for name, ptx in build.ptx.items():
        assert not re.search(r"\b(atom|red)\.", ptx), name


OLD_NVCC = """#!/bin/sh
for argument in "$@"; do
  case "$argument" in
    --version) exec echo "Cuda compilation tools, release {release}, V{release}.1" ;;
    *{unknown}*) echo "nvcc fatal   : Unsupported gpu architecture '{unknown}'" >&2; exit 1 ;;
  esac
done
exec {nvcc} "$@"
"""


@pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not on PATH")
@pytest.mark.parametrize(
    ("release", "unknown", "said"),
    [
        ("12.4", "_100", "CUDA kernels for 80-real 90, by nvcc"),
        ("11.4", "_90", "nvcc 11.4 is older than 11.8, so the CUDA kernels are left out"),
        ("13.0", "_none", "CUDA kernels for 80-real 90-real 100, by nvcc"),
    ],
)
def test_older_compilers_are_asked_for_what_they_know(tmp_path: Path, release: str, unknown: str, said: str) -> None:
    pybind11 = pytest.importorskip("pybind11")
    (tmp_path / "nvcc").write_text(OLD_NVCC.format(release=release, unknown=unknown, nvcc=NVCC))
    (tmp_path / "nvcc").chmod(0o755)
    command = ["cmake", "-S", str(ROOT), "-B", str(tmp_path / "build"), f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"]
    environment = {**os.environ, "CUDACXX": str(tmp_path / "nvcc")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert said in done.stdout
