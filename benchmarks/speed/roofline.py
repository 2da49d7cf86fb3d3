"""What the kernels must move, and what the eager torch composition moves instead: the tables of docs/gpu.md.

Predictions count the bytes that must move, and divide by what others measured an H200 to move, 4.3 TB/s. The eager
composition is the `reference` backend; its operations and their bytes are counted while it runs on tensors of the meta
device, which have no values.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common.networks import ResNet18
from benchmarks.speed.image_floors import image_tables
from bre import ops
from bre.views import pattern_batch
from bre.views.cuda_graph import Stream
from bre.views.fitting import FIT_ROWS as N

BANDWIDTH = 4.3e12  # bytes per second of an H200's memory, as others measured it
FLOPS = 790e12  # bfloat16 operations per second of its tensor cores, dense, likewise
L2 = 50e6  # bytes
TARGETS = (10, 100, 1000)
LAUNCHES = {"apply_pattern": 1, "loss_head": 1, "update_pattern": 2}  # tests/ops/test_cuda_emulated.py counts them


@dataclass(frozen=True)
class Case:
    """Images, classes, and the network between them."""

    name: str
    image: tuple[int, int, int]
    K: int
    network: Callable[[], nn.Module]

    @property
    def pool(self) -> int:
        """Images that all problems draw their rows from: as many of each class as one problem needs of the others."""
        return self.K * -(-N // (self.K - 1))

    @property
    def D(self) -> int:
        return math.prod(self.image)

    def least_bytes(self, op: str, T: int, N: int = N) -> int:
        """Of bfloat16 rows."""
        return least_bytes(op, T=T, N=N, D=self.D, C=self.image[0], K=self.K, size=2)


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        outputs = 4 * width
        self.body = nn.Sequential(
            *_conv(inputs, width, 1, 1),
            nn.ReLU(),
            *_conv(width, width, 3, stride),
            nn.ReLU(),
            *_conv(width, outputs, 1, 1),
        )
        self.skip = nn.Sequential(*(_conv(inputs, outputs, 1, stride) if stride > 1 or inputs != outputs else ()))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.skip(x))


def _conv(inputs: int, outputs: int, size: int, stride: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False), nn.BatchNorm2d(outputs)


def resnet50() -> nn.Module:
    """ResNet-50 as published, on 3 x 224 x 224 images."""
    layers: list[nn.Module] = [*_conv(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        width = 64 * 2**stage
        for block in range(blocks):
            layers.append(Bottleneck(inputs, width, 2 if stage and not block else 1))
            inputs = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 1000))


CASES = [
    Case("ResNet-18, 3 x 32 x 32", (3, 32, 32), 10, ResNet18),
    Case("ResNet-50, 3 x 224 x 224", (3, 224, 224), 1000, resnet50),
]


# ---- what must move


def least_bytes(op: str, *, T: int, N: int, D: int, C: int, K: int, size: int) -> int:
    """Bytes that the op reads and writes, every array once; `size` bytes per network input, logit and gradient."""
    rows = T * N
    if op == "apply_pattern":  # image bytes, index and sign; pattern, mean and std; the network's inputs
        return rows * (D + 8 + 1) + 4 * T * D + 8 * C + size * rows * D
    if op == "loss_head":  # logits and their gradient; sign, weight, loss, success; target
        return 2 * size * rows * K + rows * (1 + 4 + 4 + 1) + 8 * T
    # the gradients and image bytes, index and sign; the pattern's own gradient written and read, pattern and momentum
    # read and written; std, active, norms
    return rows * (size * D + D + 8 + 1) + 6 * 4 * T * D + 4 * C + T * (1 + 4)


class Eager(TorchDispatchMode):
    """Counts the operations that would be launched, and the bytes they read and write, expanded dimensions once.

    A lower bound: what torch does inside one operation (a logsumexp, say) counts as one launch, its arguments once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.launches = self.bytes = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        results = function._schema.returns
        view = any(r.alias_info is not None and not r.alias_info.is_write for r in results)
        if view or name.startswith(("empty", "new_empty", "detach", "_unsafe_view", "_reshape_alias")):
            return out
        given = list(tensors([*args, *(kwargs or {}).values()]))
        if name == "copy_":
            given = given[1:]  # the first is only written
        if name == "index":
            given = [out, *given[1:]]  # of the first, as much is read as comes out
        self.launches += 1
        self.bytes += sum(map(_bytes, [*given, *tensors([out])]))
        return out


def tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from tensors(value)


def _bytes(x: Tensor) -> int:
    return x.element_size() * math.prod(n for n, stride in zip(x.shape, x.stride(), strict=True) if stride)


def arguments(op: str, case: Case, T: int, N: int, dtype: torch.dtype, device: str) -> dict[str, Any]:
    """Random arguments of the op, positional ones under their own names; on "meta" without values."""
    C, H, W = case.image

    def numbers(*shape: int) -> Tensor:
        return torch.randn(shape, device=device)

    rows = {"sign": torch.ones(T, N, dtype=torch.int8, device=device)}
    if op == "loss_head":
        target = torch.randint(0, case.K, (T,), device=device)
        logits = numbers(T * N, case.K).to(dtype)
        return {"logits": logits, "target": target, "weight": torch.rand(T, N, device=device), **rows}
    rows |= {"index": torch.randint(0, case.pool, (T, N), device=device), "std": torch.ones(C, device=device)}
    rows |= {"images": torch.randint(0, 256, (case.pool, C, H, W), dtype=torch.uint8, device=device)}
    rows |= {"pattern": 0.05 * numbers(T, C, H, W)}
    if op == "apply_pattern":
        return {**rows, "mean": torch.zeros(C, device=device), "layout": "nhwc", "dtype": dtype}
    return {
        **rows,
        "grad": numbers(T * N, C, H, W).to(dtype).contiguous(memory_format=torch.channels_last),
        "momentum": numbers(T, C, H, W),
        "active": torch.ones(T, dtype=torch.bool, device=device),
        **{"step": 0.1, "decay": 0.5, "bound": 1.0},
    }


def eager(op: str, case: Case, T: int, dtype: torch.dtype) -> Eager:
    given = arguments(op, case, T, N, dtype, "meta")
    with Eager() as count:
        getattr(ops, op)(**given, backend="reference")
    return count


class Uncounted:
    """A classifier of meta tensors for `optimize`, whose network's own operations `counter` leaves out."""

    def __init__(self, case: Case, counter: Eager):
        self.device, self.mean, self.std = torch.device("meta"), (0.0,) * 3, (1.0,) * 3
        self.precision, self.forward_images, self.backward_images = torch.float32, 0, 0
        self.case, self.counter = case, counter
        self.inside = 0

    def logits(self, x: Tensor, *, look: bool) -> Tensor:
        before = self.counter.launches
        out = x.mean((1, 2, 3))[:, None].expand(-1, self.case.K).contiguous()
        self.inside += 2 * (self.counter.launches - before)  # and as many backward
        return out


def plain_stream() -> Stream:
    """A device's, that captures nothing."""
    stream = Stream()
    stream.done = False
    return stream


def bookkeeping(case: Case) -> int:
    """Launches of one step besides the kernels and the network: what is gathered, weighed and written back."""
    stream, counter = plain_stream(), Eager()
    T = pattern_batch.MAX_ROWS // N
    index = torch.zeros(T, N, dtype=torch.int64)
    images = torch.zeros(1, *case.image, dtype=torch.uint8)
    classifier: Any = Uncounted(case, counter)
    batch = pattern_batch.PatternBatch(
        classifier,
        images,
        index,
        index,
        torch.ones_like(index, dtype=torch.int8),
        torch.zeros(T, dtype=torch.int64),
        backend="reference",
        stream=stream,
    )
    kernels = [0]

    def counted(op: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            before = counter.launches
            out = op(*args, **kwargs)
            kernels[0] += counter.launches - before
            return out

        return call

    originals = {name: getattr(ops, name) for name in LAUNCHES}
    try:
        for name, op in originals.items():
            setattr(ops, name, counted(op))
        with counter:
            batch.step(torch.ones(T, dtype=torch.bool))
    finally:
        for name, op in originals.items():
            setattr(ops, name, op)
    return counter.launches - kernels[0] - classifier.inside


def network_cost(case: Case, rows: int) -> tuple[int, int]:
    """(launches, FLOP) of the frozen network forward and to its input's gradient, on meta tensors."""
    with torch.device("meta"):
        network = case.network().eval().requires_grad_(False)
        x = torch.empty(rows, *case.image).requires_grad_()
    counter = Eager()
    with counter, FlopCounterMode(display=False) as flops:
        out = network(x.view_as(x))  # the counter wants no leaf
        torch.autograd.grad(out, x, torch.empty_like(out))
    return counter.launches, flops.get_total_flops()


# ---- the tables of docs/gpu.md


def predictions() -> str:
    version = torch.__version__.partition("+")[0]
    counted = f"Predictions, not measurements. Eager operations as torch {version} has them."
    return "\n\n".join((counted, kernel_table(), data_table(), step_table(), pool_table(), *image_tables()))


def table(heads: list[str], rows: list[list[Any]]) -> str:
    """Markdown; text columns to the left, numbers to the right."""
    rules = ["---" if isinstance(cell, Text) else "---:" for cell in rows[0]]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in [heads, rules, *rows])


class Text(str):
    """A cell of words."""


def parts_of(T: int) -> tuple[int, int]:
    """How many parts a step of T problems is done in, and the problems of one."""
    most = pattern_batch.MAX_ROWS // N
    return -(-T // most), min(T, most)


def kernel_table() -> str:
    own, plain = ["MB moved", "at 4.3 TB/s", "launches"], ["eager: MB moved", "at 4.3 TB/s", "launches"]
    rows: list[list[object]] = []
    for case, op, T in itertools.product(CASES, LAUNCHES, TARGETS):
        parts, each = parts_of(T)
        moved, eagerly = parts * case.least_bytes(op, each), eager(op, case, each, torch.bfloat16)
        ours = [_mb(moved), _time(moved / BANDWIDTH), parts * LAUNCHES[op]]
        theirs = [_mb(parts * eagerly.bytes), _time(parts * eagerly.bytes / BANDWIDTH), parts * eagerly.launches]
        rows.append([Text(case.name), Text(f"`{op}`"), T, *ours, *theirs])
    return table(["network and images", "kernel", "T", *own, *plain], rows)


def data_table() -> str:
    """The data's view of 50 000 CIFAR images."""
    M, D, K, P = 50_000, 3072, 10, 8
    images = torch.empty(M, 3, 32, 32, dtype=torch.uint8, device="meta")
    heads = ["50 000 images, 3 x 32 x 32", "MB moved", "at 4.3 TB/s", "10⁹ multiply-adds", "launches"]
    heads += ["eager: MB moved", "at 4.3 TB/s", "launches"]
    with Eager() as projecting:
        ops.project(images, templates=torch.empty(P, D, device="meta"), backend="reference")
    out = ops.Moments.zeros(K, D, "meta")
    with Eager() as summing:
        ops.moments(images, torch.empty(M, dtype=torch.int64, device="meta"), classes=K, out=out, backend="reference")
    rows: list[list[object]] = []
    for name, moved, products, launches, eagerly in (
        ("`project`, 8 templates", M * D + 4 * P * D + 4 * M * P, M * P * D, 1, projecting),
        ("`moments`, 10 classes", M * D + 8 * M + 2 * sum(x.nbytes for x in out), M * D * D, 2, summing),
    ):
        ours = [_mb(moved), _time(moved / BANDWIDTH), _short(products / 1e9), launches]
        rows.append([Text(name), *ours, _mb(eagerly.bytes), _time(eagerly.bytes / BANDWIDTH), eagerly.launches])
    return table(heads, rows)


def step_table() -> str:
    heads = ["network and images", "T", "graphs replayed", "launches in a graph: kernels + bookkeeping + network"]
    heads += ["eager: launches", "the network's TFLOP", "at 790 TFLOP/s", "the kernels at 4.3 TB/s"]
    rows: list[list[object]] = []
    for case, T in itertools.product(CASES, TARGETS):
        parts, each = parts_of(T)
        own, (launches, flop) = bookkeeping(case), network_cost(case, each * N)
        eagerly = sum(eager(op, case, each, torch.bfloat16).launches for op in LAUNCHES) + own + launches
        moved = sum(case.least_bytes(op, each) for op in LAUNCHES)
        graph = f"{sum(LAUNCHES.values())} + {own} + {launches}"
        floors = [_time(parts * flop / FLOPS), _time(parts * moved / BANDWIDTH)]
        rows.append([Text(case.name), T, parts, graph, parts * eagerly, _short(parts * flop / 1e12), *floors])
    return table(heads, rows)


def pool_table() -> str:
    """What reading every image once for all targets of a part could save of apply_pattern's traffic."""
    heads = ["images", "pool", "MB", "rows of a part", "distinct images among them"]
    heads += ["of the bytes moved, repeats are", "which come"]
    rows: list[list[object]] = []
    for case in CASES:
        _, T = parts_of(max(TARGETS))
        distinct = case.pool * (1 - (1 - min(N / case.pool, 1)) ** T)  # expected, of T draws of N different ones
        repeats = (T * N - distinct) * case.D / case.least_bytes("apply_pattern", T)
        where = Text("from the L2 cache" if case.pool * case.D < L2 else "from memory")
        size = [case.pool, _mb(case.pool * case.D), T * N, f"{distinct:.0f}"]
        rows.append([Text(" x ".join(map(str, case.image))), *size, f"{repeats:.0%}", where])
    return table(heads, rows)


def _short(number: float) -> str:
    return f"{number:.3g}" if number < 999.5 else f"{number:,.0f}"


def _mb(count: float) -> str:
    return _short(count / 1e6)


def _time(seconds: float) -> str:
    return f"{_short(seconds * 1e6)} µs" if seconds < 1e-3 else f"{_short(seconds * 1e3)} ms"
