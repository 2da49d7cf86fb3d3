"""The GPU on the card of this machine, or predicted for one that is not here.

python benchmarks/gpu.py --all             measure everything: parity on the card, verdicts beside the host's, kernels,
                                           steps, sizes; no step begins after eight minutes. What was found so far is
                                           written to benchmarks/results/gpu.json after every step, and to docs/gpu.md
python benchmarks/gpu.py --all --dry-run   the same on the CPU, as small as can be, to --out alone
python benchmarks/gpu.py                   kernels and steps on the terminal: every answer is asserted, then timed
python benchmarks/gpu.py --predict         print the predictions of docs/gpu.md (roofline.py); --write puts them there

Without a card, what measures says so and exits with 2.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common.places import DOCS, ROWS
from benchmarks.speed import gpu_page, gpu_steps
from benchmarks.speed.gpu_steps import Run
from benchmarks.speed.roofline import CASES, LAUNCHES, Case, N, arguments, plain_stream, predictions, tensors
from bre import ops
from bre.inputs import Classifier
from bre.views import pattern_batch
from bre.views.cuda_graph import WARM_UP

PAGE = DOCS / "gpu.md"
# Of bfloat16 results, one rounding step; the update takes bfloat16 gradients, but all it writes is float32.
TOLERANCE = {"apply_pattern": 2**-7, "loss_head": 2**-7, "update_pattern": 1e-5}
BEGIN, END = "<!-- predictions -->", "<!-- /predictions -->"
RESULT = ROWS / "gpu.json"
MOST_SECONDS = 480  # of a whole run: a step that would begin later is left out, and the result says so


def with_predictions(text: str) -> str:
    """The page with what stands between its two marks made anew."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{predictions()}\n{END}{rest.split(END)[1]}"


@contextmanager
def host_clock() -> Iterator[Callable[[], float]]:
    """For a device whose work is done when it returns."""
    begin = time.perf_counter()
    yield lambda: time.perf_counter() - begin


@contextmanager
def cuda_events() -> Iterator[Callable[[], float]]:
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()

    def seconds() -> float:
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3

    yield seconds


def seconds(work: Callable[[], Any], device: str, repeats: int = 20) -> float:
    """Median time of one call, after three to warm up."""
    for _ in range(3):
        work()
    times = []
    for _ in range(repeats):
        with (cuda_events if device == "cuda" else host_clock)() as elapsed:
            work()
            times.append(elapsed())
    return statistics.median(times)


def assert_same(op: str, given: dict[str, Any], backend: str) -> None:
    """The backend's answer, and what it writes in place, is the reference's."""
    answers = []
    for name in (backend, "reference"):
        own = {k: v.clone() if k in ("pattern", "momentum") else v for k, v in given.items()}
        out = getattr(ops, op)(**own, backend=name)
        answers.append([*tensors([out]), *(own[k] for k in ("pattern", "momentum") if k in own)])
    for got, want in zip(*answers, strict=True):
        torch.testing.assert_close(got.float(), want.float(), rtol=TOLERANCE[op], atol=TOLERANCE[op])


def measure_kernels(cases: list[Case], T: int, N: int, backends: tuple[str, ...], device: str) -> None:
    copied = torch.zeros(2**28 if device == "cuda" else 2**20, dtype=torch.uint8, device=device)
    target = torch.empty_like(copied)
    ceiling = 2 * len(copied) / seconds(lambda: target.copy_(copied), device)
    print(f"device copy: {ceiling / 1e9:.0f} GB/s")
    for case in cases:
        for op in LAUNCHES:
            given = arguments(op, case, T, N, torch.bfloat16, device)
            moved = case.least_bytes(op, T, N)
            for backend in backends:
                assert_same(op, given, backend)
                taken = seconds(lambda: getattr(ops, op)(**given, backend=backend), device)  # noqa: B023
                print(
                    f"{case.name:26}{op:16}{backend:11}{taken * 1e6:10.1f} µs {moved / taken / 1e9:8.0f} GB/s "
                    f"{moved / taken / ceiling:6.0%} of the copy's"
                )


def measure_steps(cases: list[Case], T: int, N: int, device: str) -> None:
    """A step run plainly and replayed from a graph, in both precisions: the same patterns first, then the time."""
    for case in cases:
        torch.manual_seed(0)
        images = torch.randint(0, 256, (case.pool, *case.image), dtype=torch.uint8)
        index, active = torch.randint(0, case.pool, (T, N)), torch.ones(T, dtype=torch.bool)
        network = case.network().eval().to(device)
        for precision in ("float32", "bfloat16"):
            with Classifier(network, precision=precision) as classifier:
                classifier.check(case.image, case.K)
                patterns = []
                for name, stream in (("plain", plain_stream()), ("graph", None)):
                    batch = pattern_batch.PatternBatch(
                        classifier,
                        images,
                        index,
                        index % case.K,
                        torch.ones_like(index, dtype=torch.int8),
                        torch.arange(T),
                        backend="auto",
                        stream=stream,
                    )
                    for _ in range(WARM_UP + 2):
                        batch.step(active)
                    batch.look()
                    patterns.append(batch.pattern.clone())
                    difference = (patterns[-1] - patterns[0]).norm() / patterns[0].norm()
                    assert difference < 0.05, f"a replayed step is another step: patterns differ by {difference:.1%}"
                    taken = seconds(lambda: batch.step(active), device)  # noqa: B023
                    label = f"{case.name:26}{precision:10}{name:17}"
                    print(f"{label}{taken * 1e3:10.2f} ms a step {'; '.join(batch.notes)}")


def printed(measure: Callable[[], None]) -> list[str]:
    """What it prints, line by line, and prints as well."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        measure()
    print(text.getvalue(), end="", flush=True)
    return text.getvalue().splitlines()


def tiny() -> nn.Module:
    """For a dry run."""
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 5))


def steps_of(run: Run) -> dict[str, Callable[[], Any]]:
    """By name, in the order of what a cut run should have said first."""
    cases, T, rows = (CASES, 10, N) if not run.dry else ([Case("tiny", (3, 8, 8), 5, tiny)], 2, 4)
    backends = (*run.backends, "reference")
    return {
        "parity": lambda: gpu_steps.parity(run),
        "verdicts": lambda: gpu_steps.verdicts(run),
        "image_ops": lambda: gpu_steps.image_ops(run),
        "kernels": lambda: printed(lambda: measure_kernels(cases, T, rows, backends, run.device)),
        "steps": lambda: printed(
            lambda: measure_steps(cases, 2 if run.dry else pattern_batch.MAX_ROWS // N, rows, run.device)
        ),
        "sizes": lambda: gpu_steps.sizes(run),
    }


def measure_all(run: Run, out: Path, most: float = MOST_SECONDS) -> dict[str, Any]:
    """All steps, one after another; what failed says how, and the others go on. Written to `out` after each."""
    card = "cpu" if run.device == "cpu" else torch.cuda.get_device_name()
    result: dict[str, Any] = {"machine": f"{card}, {platform.machine()}", "torch": torch.__version__, "dry": run.dry}
    result |= {"date": time.strftime("%Y-%m-%d"), "backends": list(run.backends), "steps": {}}
    begin = time.perf_counter()
    for name, step in steps_of(run).items():
        since = time.perf_counter()
        if since - begin > most:
            result["steps"][name] = {"left_out": f"it would have begun after {most:.0f} seconds"}
        else:
            try:
                result["steps"][name] = {"found": step()}
            except Exception as error:  # one failure must not take the other steps' answers away
                result["steps"][name] = {"failed": f"{type(error).__name__}: {error}"}
            result["steps"][name]["seconds"] = round(time.perf_counter() - since, 1)
        partial = out.with_suffix(".partial")
        partial.write_text(json.dumps(result, indent=1) + "\n")
        partial.replace(out)
        print(f"{name}: {result['steps'][name].get('failed') or result['steps'][name].get('left_out') or 'done'}")
    return result


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="measure everything, as JSON after every step")
    parser.add_argument("--dry-run", action="store_true", help="with --all: on the CPU, as small as can be")
    parser.add_argument("--out", type=Path, default=RESULT, help="where --all writes; with --dry-run to be given")
    parser.add_argument("--predict", action="store_true", help="print the predictions instead of measuring")
    parser.add_argument("--write", action="store_true", help="with --predict: put them into docs/gpu.md")
    options = parser.parse_args(arguments)
    if options.predict:
        if options.write:
            PAGE.write_text(with_predictions(PAGE.read_text()))
        else:
            print(predictions())
        return 0
    if options.all and options.dry_run:
        if options.out == RESULT:
            parser.error("--dry-run: expected --out, since nothing is measured that belongs to the page")
        result = measure_all(Run("cpu", ("cpu",), dry=True), options.out)
        return int(any("failed" in step for step in result["steps"].values()))
    if not torch.cuda.is_available():
        print("there is no CUDA device here, so nothing can be measured (--predict needs none)", file=sys.stderr)
        return 2
    usable = tuple(name for name in ("cuda", "triton") if ops.unavailable(name, "cuda") is None)
    if options.all:
        result = measure_all(Run("cuda", usable, dry=False), options.out)
        PAGE.write_text(gpu_page.with_measured(PAGE.read_text(), result))
        return int(any("failed" in step for step in result["steps"].values()))
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, backends {', '.join(usable) or 'none'}")
    measure_kernels(CASES, 10, N, (*usable, "reference"), "cuda")
    measure_steps(CASES, pattern_batch.MAX_ROWS // N, N, "cuda")
    return 0


if __name__ == "__main__":
    sys.exit(main())
