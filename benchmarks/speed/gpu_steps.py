"""The steps of `benchmarks/gpu.py --all`: each asserts the answers that it times, and returns what it found.

Every step takes a `Run`, which says how large it may be: on a card as large as the claims are, in a dry run on the CPU
as small as says that the step works.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

import bre
from benchmarks.speed.roofline import tensors
from bre import attacks, ops

TIMED = 10  # calls of an op, whose median counts
# images, channels, height, width, pixels of a tile: ragged, one cell, many channels, larger than a block
AWKWARD = [(7, 3, 30, 30, 16), (40, 1, 7, 9, 16), (3, 2, 17, 49, 8), (5, 3, 32, 32, 16), (3, 8, 24, 24, 24)]


@dataclass(frozen=True)
class Run:
    """device: to measure on; backends: of the ops, that work there; dry: whether sizes are those of a dry run."""

    device: str
    backends: tuple[str, ...]
    dry: bool

    def pick(self, full: Any, small: Any) -> Any:
        return small if self.dry else full


# ---- every op on the card, against the reference in host memory


def parity(run: Run) -> dict[str, Any]:
    """Largest differences by backend and op; exact ops have none, or this raises AssertionError."""
    found: dict[str, Any] = {}
    generator = torch.Generator().manual_seed(1)
    for backend in run.backends:
        worst: dict[str, float] = {}
        for M, C, H, W, tile in run.pick(AWKWARD, AWKWARD[1:2]):
            images = torch.randint(0, 256, (M, C, H, W), dtype=torch.uint8, generator=generator)
            for name, exact, got, want in compared(run, backend, images, tile):
                difference = float((got.cpu().double() - want.double()).abs().max()) if want.numel() else 0.0
                assert difference <= (0 if exact else 1e-3 * (1 + float(want.abs().max()))), (backend, name, difference)
                worst[name] = max(worst.get(name, 0.0), difference)
        found[backend] = worst
    return found


def compared(run: Run, backend: str, images: Tensor, tile: int) -> list[tuple[str, bool, Tensor, Tensor]]:
    """(name, whether it is exact, the backend's answer, the reference's) of the ops on images and on codes."""
    M, C, H, W = images.shape
    there = images.to(run.device)
    codes, labels = torch.randint(-128, 128, (M, 70), dtype=torch.int8), torch.arange(M) % 3
    templates = torch.linspace(-1, 1, 2 * C * H * W).view(2, -1)
    sums = ops.channel_sums(images, backend="reference")
    out = [
        ("halve", True, ops.halve(there, backend=backend), ops.halve(images, backend="reference")),
        ("channel_sums", True, ops.channel_sums(there, backend=backend), sums),
        ("gram", True, ops.gram(codes.to(run.device), backend=backend), ops.gram(codes, backend="reference")),
    ]
    some = ops.cross_gram(codes.to(run.device)[: M // 2], codes.to(run.device), backend=backend)
    out.append(("cross_gram", True, some, ops.cross_gram(codes[: M // 2], codes, backend="reference")))
    moments = ops.moments(images, labels, classes=3, backend="reference")
    got_moments = ops.moments(there, labels.to(run.device), classes=3, backend=backend)
    out += [("moments", True, a, b) for a, b in zip(got_moments, moments, strict=True)]
    scores = ops.project(images, templates=templates, backend="reference")
    out.append(("project", False, ops.project(there, templates=templates.to(run.device), backend=backend), scores))
    grams = [ops.gram(codes, backend="reference")] * 2
    rows = {"rows": torch.arange(M), "floor": 99}
    added = ops.sum_grams(grams, **rows, backend="reference")  # type: ignore[arg-type]
    on_device = {"rows": rows["rows"].to(run.device), "floor": 99}  # type: ignore[attr-defined]
    again = ops.sum_grams([g.to(run.device) for g in grams], **on_device, backend=backend)
    out += [("sum_grams", True, a, b) for a, b in zip(again, added, strict=True)]
    weights = []
    for grid in ops.grids(H, W, tile):
        d, sides = C * grid.height * grid.width, (C, grid.height, grid.width)
        covariance = 900 * torch.exp(-(torch.linspace(0, 5, d)[:, None] - torch.linspace(0, 5, d)).abs()).double()
        inverse = torch.linalg.inv(torch.linalg.cholesky(covariance + torch.eye(d) / 12)).tril().float()
        mean = torch.zeros(grid.down * grid.across, d, dtype=torch.float64)
        weights.append(ops.tile_weights(inverse, mean, shape=sides))
        tiles = ops.cut_tiles(images, grid=grid, backend="reference")
        given = {"groups": 1, "area": H * W, "shape": sides}
        group = torch.zeros(M, dtype=torch.int64)
        want = ops.tile_moments(tiles, group, sums=sums, **given, backend="reference")  # type: ignore[arg-type]
        moved = tiles.to(run.device), group.to(run.device)
        got = ops.tile_moments(*moved, sums=sums.to(run.device), **given, backend=backend)  # type: ignore[arg-type]
        out.append(("tile_moments", False, got.second, want.second))
        out.append(("cut_tiles", True, ops.cut_tiles(there, grid=grid, backend=backend), tiles))
    want_codes = ops.whiten(images, weights=weights, tile=tile, backend="reference")
    carried = [ops.TileWeights(*(part.to(run.device) for part in each)) for each in weights]
    got_codes = ops.whiten(there, weights=carried, tile=tile, backend=backend)
    assert (got_codes.values.cpu().int() - want_codes.values.int()).abs().max() <= 1, (backend, "whiten")
    out.append(("whiten", False, got_codes.kept, want_codes.kept))
    return out


# ---- times of the ops on images, beside their floors


def image_ops(run: Run) -> list[dict[str, Any]]:
    """Seconds of each op, the reference's answer asserted first, and the shares of the card's own copy and int8 product
    (the library's) that it reaches."""
    M, n, d = run.pick((2048, 4096, 768), (8, 32, 48))
    shape = run.pick((3, 224, 224), (3, 16, 16))
    images = torch.randint(0, 256, (M, *shape), dtype=torch.uint8, device=run.device)
    codes = torch.randint(-127, 128, (n, d), dtype=torch.int8, device=run.device)
    grams = [torch.zeros(n, n, dtype=torch.int32, device=run.device) for _ in range(2)]
    rows = torch.arange(n, device=run.device)
    copied = torch.zeros(run.pick(2**30, 2**16), dtype=torch.uint8, device=run.device)
    copy = 2 * len(copied) / seconds(run, lambda: copied.clone())
    product = n * n * d / seconds(run, lambda: torch._int_mm(codes, codes.T))
    work: dict[str, tuple[Callable[[str], Any], float, float]] = {
        "halve": (lambda b: ops.halve(images, backend=b), images.numel() * 1.25, 0),
        "channel_sums": (lambda b: ops.channel_sums(images, backend=b), images.numel(), 0),
        "gram": (lambda b: ops.gram(codes, backend=b), n * d + 8 * n * n, n * n * d / 2),
        "cross_gram": (lambda b: ops.cross_gram(codes[: n // 4], codes, backend=b), n * d + 2 * n * n, n * n * d / 4),
        "sum_grams": (lambda b: ops.sum_grams(grams, rows=rows, floor=9, backend=b), 12 * n * n, 0),
    }
    found = [{"op": "copy", "bytes_per_second": copy}, {"op": "torch._int_mm", "products_per_second": product}]
    for name, (call, moved, products) in work.items():
        want = tensors([call("reference")])
        for backend in (*run.backends, "reference"):
            assert all(map(torch.equal, tensors([call(backend)]), want)), (backend, name)
            taken = seconds(run, lambda: call(backend))  # noqa: B023
            floor = max(moved / copy, products / product)
            found.append({"op": name, "backend": backend, "seconds": taken, "of_the_floor": floor / taken})
    return found


def seconds(run: Run, work: Callable[[], Any]) -> float:
    """Median, by the card's own clock where there is one."""
    work()
    times = []
    for _ in range(run.pick(TIMED, 1)):
        if run.device == "cpu":
            begin = time.perf_counter()
            work()
            times.append(time.perf_counter() - begin)
            continue
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return float(np.median(times))


# ---- whole verdicts


def smooth(seed: int, classes: int, each: int, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Images with a steep spectrum, each class with stripes of its own direction; uint8 (n, C, H, W) and labels."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.repeat(np.arange(classes), each))
    C, H, W = shape
    out = np.empty((len(labels), C, H, W), np.uint8)
    row, column = np.indices((H, W)) / H
    for start in range(0, len(labels), 256):
        part = labels[start : start + 256]
        coarse = torch.from_numpy(generator.normal(0, 30, (len(part), C, 8, 8)))
        scene = torch.nn.functional.interpolate(coarse, (H, W), mode="bilinear").numpy()
        angle = (np.pi * part / classes + generator.normal(0, 0.1, len(part)))[:, None, None, None]
        phase = generator.uniform(0, 6.3, (len(part), 1, 1, 1))
        stripes = 14 * np.cos(6.3 * (row * np.cos(angle) + column * np.sin(angle)) + phase)
        noise = generator.normal(0, 3, scene.shape)
        out[start : start + 256] = np.clip(np.rint(128 + scene + stripes + noise), 0, 255)
    return out, labels


def verdicts(run: Run) -> list[dict[str, Any]]:
    """`screen` of a planted and a clean set at 32 and at 224: what the card says, and the host; flags must be equal."""
    found = []
    for shape, each in run.pick([((3, 32, 32), 1000), ((3, 224, 224), 100)], [((3, 12, 12), 100)]):
        images, labels = smooth(3, run.pick(10, 5), each, shape)
        planted = attacks.plant(images, labels, attacks.chessboard(shape, 8 / 255), target=1, count=each // 3, seed=0)
        for name, data in (("planted", (planted.images, planted.labels)), ("clean", (images, labels))):
            begin = time.perf_counter()
            here = bre.screen(data)
            middle = time.perf_counter()
            there = bre.screen(data, device=run.device)
            end = time.perf_counter()
            row = {"set": name, "shape": list(shape), "poisoned": there.poisoned, "p_value": there.p_value}
            row |= {"host_p_value": here.p_value, "seconds": end - middle, "host_seconds": middle - begin}
            assert there.poisoned == here.poisoned, row
            assert np.array_equal(there.indices, here.indices), (row, len(there.indices), len(here.indices))
            found.append(row)
    return found


def sizes(run: Run) -> list[dict[str, Any]]:
    """`screen` of sets in memory, by size and number of classes: seconds, by stage, and the device's memory."""
    cases = [(32, 10, 5000), (32, 100, 500), (32, 1000, 60), (64, 10, 1000), (64, 100, 100), (64, 1000, 60)]
    cases += [(224, 10, 200), (224, 100, 60)]
    found = []
    for side, classes, each in run.pick(cases, [(12, 4, 60)]):
        data = smooth(side, classes, each, (3, side, side))
        if run.device != "cpu":
            torch.cuda.reset_peak_memory_stats()
        begin = time.perf_counter()
        report = bre.screen(data, device=run.device)
        row: dict[str, Any] = {"side": side, "classes": classes, "images": len(data[1])}
        row |= {"seconds": time.perf_counter() - begin, "stages": report.cost.seconds, "poisoned": report.poisoned}
        if run.device != "cpu":
            row["peak_bytes"] = torch.cuda.max_memory_allocated()
        found.append(row)
    return found
