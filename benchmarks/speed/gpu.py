"""The GPU kernels on the card of this machine, or predicted for one that is not here.

python -m benchmarks.speed.gpu             measure: every answer is asserted, then timed, beside the eager torch
                                           composition and a device copy; without a card it says so and exits with 2
python -m benchmarks.speed.gpu --predict   print the predictions of docs/gpu.md (roofline.py); --write puts them there
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from benchmarks.common.places import DOCS
from benchmarks.speed.roofline import CASES, LAUNCHES, Case, N, arguments, plain_stream, predictions, tensors
from bre import ops
from bre.inputs import Classifier
from bre.views import pattern_batch
from bre.views.cuda_graph import WARM_UP

PAGE = DOCS / "gpu.md"
# Of bfloat16 results, one rounding step; the update takes bfloat16 gradients, but all it writes is float32.
TOLERANCE = {"apply_pattern": 2**-7, "loss_head": 2**-7, "update_pattern": 1e-5}
BEGIN, END = "<!-- predictions -->", "<!-- /predictions -->"


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


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predict", action="store_true", help="print the predictions instead of measuring")
    parser.add_argument("--write", action="store_true", help="with --predict: put them into docs/gpu.md")
    options = parser.parse_args(arguments)
    if options.predict:
        if options.write:
            PAGE.write_text(with_predictions(PAGE.read_text()))
        else:
            print(predictions())
        return 0
    if not torch.cuda.is_available():
        print("there is no CUDA device here, so nothing can be measured (--predict needs none)", file=sys.stderr)
        return 2
    usable = tuple(name for name in ("cuda", "triton") if ops.unavailable(name, "cuda") is None)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, backends {', '.join(usable) or 'none'}")
    measure_kernels(CASES, 10, N, (*usable, "reference"), "cuda")
    measure_steps(CASES, pattern_batch.MAX_ROWS // N, N, "cuda")
    return 0


if __name__ == "__main__":
    sys.exit(main())
