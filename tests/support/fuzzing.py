"""Damaged and hostile files at every door that takes one: each is read as usual, or refused with an InputError.

    python tests/support/fuzzing.py --count 100000 --state fuzzed.json

Real files, made by the libraries that people make them with, are mutated: bytes, numbers, blocks, text, and inside of
containers (zip members, PNG chunks, tar headers), whose checksums are then made right again, so that not every change
ends at the first check. Every input follows from the seed, the door and its number alone. Inputs run in a process of
their own, which may crash, hang or take memory without end; it is then noted and started anew after that input. An
audit hook sees what it does: nothing may be written outside of the input's own folder, no program started, no
connection made. With --state, a run goes on where the last one ended.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from fuzzing_doors import Door, doors, fill

from bre.errors import InputError

SECONDS = 30  # of processor time for one input; the slowest honest one takes a small part of that
WAITED = 900  # seconds by the clock, on a machine that may be busy with other things, till one that sleeps is given up
MEMORY = 12 << 30  # bytes of address space


# ---- one input


_home: str | None = None  # the folder that may be written to while an input runs
_seen: list[str] = []
_FORBIDDEN = {"os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect", "os.startfile"}
_CHANGES = {"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.truncate", "shutil.rmtree"}


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if _home is None:
        return
    paths: list[Any] = []
    if event in _FORBIDDEN:
        _seen.append(f"{event}{args!r}"[:300])
    elif event in _CHANGES:
        paths = [a for a in args[:2] if isinstance(a, str | bytes | os.PathLike)]
    elif event == "open" and isinstance(args[0], str | bytes | os.PathLike):
        flags = args[2] if isinstance(args[2], int) else 0
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) or (args[1] and set(str(args[1])) & set("wax+")):
            paths = [args[0]]
    anchor = ""  # relative names may be relative to an open folder
    if event in _CHANGES and isinstance(args[-1], int) and args[-1] >= 0:
        anchor = os.readlink(f"/proc/self/fd/{args[-1]}")
    for path in paths:
        full = os.path.abspath(os.path.join(anchor, os.fsdecode(path)))
        if not full.startswith(_home) and full != os.devnull:
            _seen.append(f"{event} {full}"[:300])


def run_one(door: Door, name: str, seed: int, index: int, folder: Path) -> str:
    """ "read" or "refused". Raises AssertionError for anything that must not be; the input is in `folder`."""
    global _home
    door.write(folder, seed, index, name)
    _seen.clear()
    _home = os.path.abspath(folder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            door.read(folder / door.path)
        outcome = "read"
    except InputError as e:
        outcome = "refused" if str(e).strip() else "refused without a reason"
    finally:
        _home = None
    assert outcome in ("read", "refused"), outcome
    assert not hasattr(sys, "bre_was_run"), "code of the file was run"
    assert not _seen, f"it did what no reader may: {_seen}"
    return outcome


# ---- many


def _work(names: list[str], seed: int, starts: dict[str, int], stops: dict[str, int], out: Any, box: str) -> None:
    """The child: ("start", door, index), then ("end", outcome or None, complaint or None), for every input."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    torch.set_num_threads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries complain there in their own words
    found = doors()
    fill(found, Path(box) / "corpus")
    sys.addaudithook(_audit)
    for name in names:
        for index in range(starts[name], stops[name] if name in found else 0):
            folder = Path(box) / "input"
            folder.mkdir()
            out.send(("start", name, index))
            signal.setitimer(signal.ITIMER_PROF, SECONDS)  # a signal that ends the process
            try:
                out.send(("end", run_one(found[name], name, seed, index, folder), None))
            except BaseException as e:
                where = "".join(traceback.format_exception(e))[-3000:]
                if hasattr(sys, "bre_was_run"):
                    del sys.bre_was_run
                out.send(("end", None, f"{type(e).__name__}: {e}\n{where}"))
            signal.setitimer(signal.ITIMER_PROF, 0)
            shutil.rmtree(folder)
    out.send(("done", None, None))


def fuzz(state: dict[str, Any], stops: dict[str, int], report: Callable[[dict[str, Any]], None], until: float) -> None:
    """Go on from a state up to `stops` inputs of each door, or till the time `until`."""
    context = multiprocessing.get_context("spawn")
    while any(state["next"].get(name, 0) < stop for name, stop in stops.items()) and time.monotonic() < until:
        starts = {name: state["next"].get(name, 0) for name in stops}
        with tempfile.TemporaryDirectory(prefix="bre-fuzz-") as box:
            here, there = context.Pipe(duplex=False)
            args = (list(stops), state["seed"], starts, stops, there, box)
            child = context.Process(target=_work, args=args, daemon=True)
            child.start()
            there.close()
            over = _watch(child, here, state, report, until)
            child.join(5 if over else 0)
            child.kill()
            child.join()
        if over:
            return


def _watch(child: Any, pipe: Any, state: dict[str, Any], report: Callable[..., None], until: float) -> bool:
    """Book what the child says until it is done (true), or has to be started anew (false)."""
    name, index = "", -1  # the input that runs
    while True:
        try:
            if not pipe.poll(WAITED):
                complaint = f"slept for more than {WAITED} seconds"
                break
            what, *rest = pipe.recv()
        except (EOFError, OSError):
            child.join()
            hung = child.exitcode == -signal.SIGPROF
            complaint = f"ran for more than {SECONDS} seconds" if hung else f"crashed with status {child.exitcode}"
            break
        if what == "done":
            report(state)
            return True
        if what == "start":
            name, index = rest
            state["next"][name] = index + 1
            continue
        book(state, name, index, *rest)
        if sum(state["next"].values()) % 500 == 0:
            report(state)
        if time.monotonic() > until:
            report(state)
            return True
    if index < 0:
        raise RuntimeError(f"the fuzzing process itself {complaint}")
    book(state, name, index, None, complaint)
    report(state)
    return False


def book(state: dict[str, Any], name: str, index: int, outcome: str | None, complaint: str | None) -> None:
    counts = state["counts"].setdefault(name, {})
    counts[outcome or "failed"] = counts.get(outcome or "failed", 0) + 1
    if complaint:
        state["failures"].append({"door": name, "index": index, "what": complaint})


def shares(count: int, names: list[str] | None = None) -> dict[str, int]:
    """How many inputs each door gets of so many in all."""
    found = {name: door for name, door in doors().items() if not names or name in names}
    total = sum(door.share for door in found.values())
    return {name: -(-int(count * door.share) // int(total)) for name, door in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--count", type=int, default=100_000, help="inputs in all, spread over the doors")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--door", action="append", help="only this one (again for more)")
    parser.add_argument("--minutes", type=float, default=1e6)
    parser.add_argument("--state", type=Path, help="go on from this file, and write to it")
    parser.add_argument("--one", metavar="DOOR:INDEX", help="run one input here, with its traceback")
    options = parser.parse_args()
    if options.one:
        name, _, index = options.one.rpartition(":")
        with tempfile.TemporaryDirectory() as box:
            found = doors()
            fill(found, Path(box) / "corpus")
            (Path(box) / "input").mkdir()
            sys.addaudithook(_audit)
            print(run_one(found[name], name, options.seed, int(index), Path(box) / "input"))
        return
    state: dict[str, Any] = {"seed": options.seed, "next": {}, "counts": {}, "failures": []}
    if options.state and options.state.exists():
        state = json.loads(options.state.read_text())
    stops = shares(options.count, options.door)

    def report(state: dict[str, Any]) -> None:
        if options.state:
            part = options.state.with_suffix(".part")
            part.write_text(json.dumps(state, indent=1))
            part.replace(options.state)

    fuzz(state, stops, report, time.monotonic() + 60 * options.minutes)
    total: Counter[str] = Counter()
    for name, counts in state["counts"].items():
        total.update(counts)
        print(f"{name:<14} {sum(counts.values()):>7}  {counts}")
    print(f"{'all':<14} {sum(total.values()):>7}  {dict(total)}  seed {state['seed']}")
    for failure in state["failures"][:20]:
        print(f"\n{failure['door']}:{failure['index']}\n{failure['what'][-1500:]}")
    sys.exit(1 if state["failures"] else 0)


if __name__ == "__main__":
    main()
