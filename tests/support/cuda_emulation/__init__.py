"""csrc/cuda compiled as C++ for the CPU, in place of bre._cuda. See cuda_runtime.h for what it checks.

`build` compiles into build/emulation what has changed; `emulated` makes `backend="cuda"` run it on host tensors.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib.machinery
import importlib.util
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest
import torch

HERE = Path(__file__).resolve().parent
CSRC = HERE.parents[2] / "csrc"
BUILD = HERE.parents[2] / "build" / "emulation"

SCHEDULES = {"forward": 0, "reverse": 1, "random": 2}

# -ffp-contract=off: the source says where a multiply-add is fused.
FLAGS = ["-std=c++17", "-O1", "-g1", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"]
FLAGS += ["-Wno-unknown-pragmas", "-Wno-attributes", '-DBRE_CUDA_ARCHITECTURES="emulated"']
# The second flag fences shared memory, which lies in a section of its own; the third checks the inner bounds of arrays.
SANITIZERS = ["-fsanitize=address", "-fsanitize-sections=emulated_shared", "-fsanitize=bounds,alignment,shift"]
SANITIZERS += ["-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]

COMPILER = shutil.which(os.environ.get("CXX", "g++"))


def missing() -> str | None:
    """Why there can be no emulation here."""
    if COMPILER is None:
        return "there is no C++ compiler"
    return None if importlib.util.find_spec("pybind11") else "pybind11 is not installed"


def sanitized() -> bool:
    """Whether AddressSanitizer's runtime is in this process; what it checks must be compiled for it."""
    return hasattr(ctypes.CDLL(None), "__asan_init")


def build(sanitize: bool) -> Path:
    """The emulated module's file."""
    import pybind11

    sources = sorted([*CSRC.glob("cuda/*.cu"), *CSRC.glob("cuda/*.cpp"), *HERE.glob("*.cu"), *HERE.glob("*.cpp")])
    headers = sorted([*CSRC.glob("*.h"), *CSRC.glob("c*/*.*h"), *HERE.glob("*.h")])
    includes = [f"-I{path}" for path in (HERE, pybind11.get_include(), sysconfig.get_path("include"))]
    flags = FLAGS + (SANITIZERS if sanitize else [])
    common = b"".join(path.read_bytes() for path in headers) + " ".join(includes).encode()
    BUILD.mkdir(parents=True, exist_ok=True)

    def compile(source: Path) -> Path:
        # The bindings are most of the time and none of what is tested, so one quick object serves both builds.
        own = [*FLAGS, "-O0", "-g0"] if source.name == "module.cpp" else flags
        digest = hashlib.sha256(common + source.read_bytes() + " ".join(own).encode())
        object = BUILD / f"{source.stem}-{digest.hexdigest()[:16]}.o"
        return _make(object, [*own, *includes, "-x", "c++", "-c", str(source)])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile, sources))
    name = hashlib.sha256(" ".join(map(str, objects)).encode()).hexdigest()[:16]
    link = ["-shared", *(flag for flag in flags if flag.startswith(("-fsanitize=", "-fno-sanitize")))]
    return _make(BUILD / f"_cuda-{name}.so", [*link, *map(str, objects)])


def _make(path: Path, arguments: list[str]) -> Path:
    if not path.exists():
        partial = path.with_suffix(f".{os.getpid()}")
        clean = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}  # no sanitizer in the compiler
        command = [str(COMPILER), *arguments, "-o", str(partial)]
        done = subprocess.run(command, capture_output=True, text=True, env=clean)
        assert done.returncode == 0, done.stderr
        partial.replace(path)  # whole or not at all, whoever else builds
    return path


@functools.cache
def module() -> ModuleType:
    """bre._cuda, emulated."""
    path = str(build(sanitized()))
    loader = importlib.machinery.ExtensionFileLoader("_cuda", path)
    spec = importlib.util.spec_from_file_location("_cuda", path, loader=loader)
    assert spec is not None
    loaded = importlib.util.module_from_spec(spec)
    loader.exec_module(loaded)
    return loaded


@functools.cache
def library() -> ctypes.CDLL:
    """The same file, for what is not in bre._cuda."""
    library = ctypes.CDLL(module().__file__)
    library.emulation_run.restype = ctypes.c_char_p
    library.emulation_launches.restype = library.emulation_launch.restype = ctypes.c_size_t
    return library


def use_schedule(name: str, seed: int = 0) -> None:
    """Which of the threads that could run goes first: "forward", "reverse" or "random"."""
    library().emulation_schedule(SCHEDULES[name], seed)


def launches() -> list[tuple[int, int]]:
    """(device, stream) of every launch since the last call."""
    count, part = library().emulation_launches(), library().emulation_launch
    found = [(part(ctypes.c_size_t(i), 0), part(ctypes.c_size_t(i), 1)) for i in range(count)]
    library().emulation_forget()
    return found


def run_broken(name: str) -> torch.Tensor:
    """What a kernel of broken.cu leaves in 64 floats; RuntimeError with the emulation's words."""
    out = torch.zeros(64)
    error = library().emulation_run(name.encode(), ctypes.c_void_p(out.data_ptr()))
    if error is not None:
        raise RuntimeError(error.decode())
    return out


@contextlib.contextmanager
def emulated(schedule: str) -> Iterator[None]:
    """Within, bre.ops.cuda computes on host tensors."""
    from bre.ops import cuda

    use_schedule(schedule)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda.native, "extension", module())
        patch.setattr(cuda.native, "launch", lambda device: {"device": 0, "stream": 0})
        patch.setattr(cuda, "unavailable", lambda device: None if device.type == "cpu" else "it is emulated on the CPU")
        yield
