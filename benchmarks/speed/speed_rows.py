"""The rows of docs/speed.md, each a function that measures one thing. verdicts.py runs them.

Every row runs in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import bre
from benchmarks.accuracy import victims
from benchmarks.accuracy.baselines import neural_cleanse, pairwise
from benchmarks.common.clocks import clocked
from benchmarks.common.networks import ResNet9, ResNet18
from benchmarks.common.places import module_of_cases
from benchmarks.speed import size_rows
from bre import attacks
from bre.inputs import Classifier, open_dataset
from bre.inputs.models.batchnorm_folding import folded
from bre.views import pattern_batch
from bre.views.model import search_model

BATCH = 128  # of a training step
TARGET, PLANTED = 7, 800  # what is planted in the sets, so that a verdict has something to find
NETWORKS = {"resnet9": (ResNet9, 16, 20000), "resnet18": (ResNet18, 64, 50000)}  # class, width, images
Row = dict[str, Any]


def best(run: Callable[[], Any], seconds: float = 5.0) -> float:
    """The shortest processor time of a call, of as many as fit."""
    run()
    shortest, until = np.inf, time.perf_counter() + seconds
    while time.perf_counter() < until:
        start = time.process_time()
        run()
        shortest = min(shortest, time.process_time() - start)
    return float(shortest)


def dataset(count: int, planted: int = PLANTED) -> tuple[np.ndarray, np.ndarray]:
    """CIFAR-10 training images (count, 3, 32, 32) uint8 with a 3/255 chessboard in `planted` of them, and labels."""
    images, labels = module_of_cases("data", "cifar10").load("train", count)
    images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    pattern = attacks.chessboard((3, 32, 32), 3 / 255)
    made = attacks.plant(images, labels, pattern, target=TARGET, sources=None, count=planted, seed=0)
    return made.images, made.labels


def trained(name: str, images: np.ndarray, labels: np.ndarray, most: int, precision: str) -> tuple[nn.Module, int, Row]:
    """The network after one pass over at most `most` of the images, how many those were, and the time they took."""
    make, width, _ = NETWORKS[name]
    torch.manual_seed(0)
    net = make(width=width)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    order = torch.randperm(len(x))[:most].split(BATCH)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True)

    def epoch() -> None:
        for rows in order:
            inputs = (x[rows].float() / 255).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                logits = net(inputs)
            loss = functional.cross_entropy(logits.float(), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    _, row = clocked(epoch)
    return net.eval(), sum(map(len, order)), row


def verdict(name: str, most: int, precision: str) -> Row:
    """`detect` on the whole set against one training epoch of the same network on it, timed on `most` images; the
    network in the same precision in both."""
    images, labels = dataset(NETWORKS[name][2])
    net, seen, part = trained(name, images, labels, most, precision)
    epoch = {key: value * len(images) / seen for key, value in part.items()}
    report, spent = clocked(lambda: bre.detect(net, (images, labels), precision=precision))
    return {
        "images": len(images),
        **spent,
        "epoch": epoch,
        "epoch_timed_on": seen,
        "ratio": spent["cpu_seconds"] / epoch["cpu_seconds"],
        "stages": dict(report.cost.seconds),
        "forward_images": report.cost.forward_images,
        "backward_images": report.cost.backward_images,
        "targets": [finding.target for finding in report.findings],
    }


def screened() -> Row:
    images, labels = dataset(50000)
    report, spent = clocked(lambda: bre.screen((images, labels)))
    return {"images": len(images), **spent, "targets": [finding.target for finding in report.findings]}


def view(net: nn.Module, images: np.ndarray, labels: np.ndarray) -> Row:
    """The model's view alone: every statistic, no finding."""
    classifier, data = Classifier(net), open_dataset((images, labels))
    with classifier:
        classifier.check(data.image_shape, len(data.class_names))
        made, spent = clocked(
            lambda: search_model(
                classifier, data, shared=lambda *_: None, seed=0, backend="cpu", progress=lambda *_: None
            )
        )
    return {
        **spent,
        "forward_images": classifier.forward_images,
        "backward_images": classifier.backward_images,
        "targets": [int(np.nanargmax(made.statistics[0].values))],
    }


def victim() -> tuple[nn.Module, np.ndarray, np.ndarray]:
    """A ResNet9 that has learned a chessboard in 2 000 of the 50 000 images, trained as the table's victims are, and
    kept where theirs are."""
    from benchmarks.accuracy.table import (
        network,  # and all that the table needs: no other row is to wait for it, or to count its memory
    )

    images, labels = dataset(50000, planted=2000)
    net, _ = network(victims.Set(images, labels), victims.Case("speed"), victims.PRESETS["small"])
    return net, images, labels


def baselines() -> Row:
    """The model's view and both baselines on one network and one set.

    Neural Cleanse would take long: the time of some of its steps is multiplied by all that its settings allow. Pairwise
    pattern estimation is run whole.
    """
    net, images, labels = victim()
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    ours = view(net, images, labels)
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    cleanse = neural_cleanse(net, x, y, classes=10, only=(0, TARGET), most=16)
    pairs = pairwise(net, x, y, classes=10)
    scale = cleanse.most_steps / cleanse.steps
    rows = {
        "bre": {**ours, "images": ours["forward_images"] + ours["backward_images"], "planted": TARGET},
        "Neural Cleanse": {
            "cpu_seconds": cleanse.cpu_seconds * scale,
            "steps": cleanse.steps,
            "all_steps": cleanse.most_steps,
            "images": (cleanse.forward_images + cleanse.backward_images) * scale,
        },
        "pairwise pattern estimation": {
            "cpu_seconds": pairs.cpu_seconds,
            "steps": pairs.steps,
            "all_steps": pairs.most_steps,
            "images": pairs.forward_images + pairs.backward_images,
            "targets": list(pairs.targets),
        },
    }
    return {name: {**row, "ratio": row["cpu_seconds"] / ours["cpu_seconds"]} for name, row in rows.items()}


def step(name: str, rows: int) -> Row:
    """One step of the patterns against the bare frozen forward and input gradient of the same batch."""
    make, width, _ = NETWORKS[name]
    net = make(width=width)
    images, index = torch.randint(0, 256, (256, 3, 32, 32), dtype=torch.uint8), torch.randint(0, 256, (10, rows // 10))
    with Classifier(net) as classifier:
        classifier.check((3, 32, 32), 10)
        batch = pattern_batch.PatternBatch(
            classifier,
            images,
            index,
            index % 10,
            torch.ones_like(index, dtype=torch.int8),
            torch.arange(10),
            backend="cpu",
        )
        everything = torch.ones(10, dtype=torch.bool)
        frozen = folded(net) or net
        inputs = torch.rand(rows, 3, 32, 32).contiguous(memory_format=torch.channels_last)
        whole, bare, plain = np.inf, np.inf, np.inf
        for _ in range(3):  # in turn, so that other work on the machine meets all of them
            whole = min(whole, best(lambda: batch.step(everything)))
            bare = min(bare, best(lambda: through(frozen, inputs)))
            plain = min(plain, best(lambda: through(net, inputs)))
    return {"rows": rows, "step": whole, "bare": bare, "ratio": whole / bare, "not_folded": plain}


def through(net: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """Forward, and the gradient at the input."""
    x = inputs.detach().requires_grad_(True)
    logits = net(x)
    (gradient,) = torch.autograd.grad(logits, x, torch.ones_like(logits))
    return gradient


def engine(name: str, rows: int) -> Row:
    """What folding, layout and compilation each bring to a frozen forward and input gradient."""
    make, width, _ = NETWORKS[name]
    net = make(width=width).eval().requires_grad_(False)
    nchw = torch.rand(rows, 3, 32, 32)
    nhwc = nchw.contiguous(memory_format=torch.channels_last)
    fast = folded(net)
    assert fast is not None
    torch.testing.assert_close(fast(nhwc), net(nhwc), rtol=0, atol=1e-4)
    times = {
        "as it came": best(lambda: through(net, nchw)),
        "channels-last images": best(lambda: through(net, nhwc)),
        "batch norm folded too": best(lambda: through(fast, nhwc)),
    }
    compiled = torch.compile(fast)
    _, spent = clocked(lambda: through(compiled, nhwc))
    torch.testing.assert_close(compiled(nhwc), net(nhwc), rtol=0, atol=1e-4)
    times["and compiled by inductor"] = best(lambda: through(compiled, nhwc))
    return {"rows": rows, "times": times, "compile_seconds": spent["seconds"]}


def scaling(axis: str, value: int) -> Row:
    """One point of a curve. K: labels subdivided at random; M: images; D: images resized; threads: of torch."""
    count = value if axis == "M" else 20000
    images, labels = dataset(count)
    classes = value if axis == "K" else 10
    labels = labels + 10 * np.random.default_rng(0).integers(0, classes // 10, len(labels))
    if axis == "D":
        size = round((value / 3) ** 0.5)
        resized = [
            functional.interpolate(torch.from_numpy(b).float(), (size, size), mode="bilinear", antialias=True)
            for b in np.array_split(images, 20)
        ]
        images = torch.cat(resized).round().clamp(0, 255).byte().numpy()
    torch.manual_seed(0)
    net = ResNet9(classes).eval()
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model = view(net, images, labels)
    _, data = clocked(lambda: bre.screen((images, labels)))
    return {"axis": axis, "value": value, "model_view": model, "screen": data}


ROWS: dict[str, Callable[[], Row]] = {
    **{
        f"detect {name}{ending}": partial(verdict, name, most, precision)
        for name, most in (("resnet9", 20000), ("resnet18", 1280))
        for ending, precision in (("", "float32"), (" bfloat16", "bfloat16"))
    },
    "screen": screened,
    "baselines": baselines,
    "step resnet9": partial(step, "resnet9", 500),
    "step resnet18": partial(step, "resnet18", 100),
    "engine resnet9": partial(engine, "resnet9", 500),
    "engine resnet18": partial(engine, "resnet18", 100),
    **{f"scaling K {k}": partial(scaling, "K", k) for k in (10, 50, 100)},
    **{f"scaling M {m}": partial(scaling, "M", m) for m in (5000, 10000, 20000, 40000)},
    **{f"scaling D {d}": partial(scaling, "D", d) for d in (768, 1728, 3072, 6912, 12288)},
    **{f"scaling threads {n}": partial(scaling, "threads", n) for n in (1, 2)},
    **size_rows.ROWS,
}
