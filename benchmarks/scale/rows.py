"""What is measured for docs/scale.md: each function makes one row."""

from __future__ import annotations

import datetime
import os
import platform
import resource
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import bre
from benchmarks.common.places import module_of_cases
from benchmarks.scale import sets
from bre import attacks

Row = dict[str, Any]
SMALL, CROP = 1000, slice(8, 24)  # images of CIFAR-10, and their middle 16 pixels: what is killed and resumed
KILLS = 20  # of each verb


def facts() -> Row:
    return {
        "date": str(datetime.date.today()),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores shared with other work",
        "versions": {"bre": bre.__version__, "torch": torch.__version__.split("+")[0]},
    }


def cifar(limit: int) -> tuple[np.ndarray, np.ndarray]:
    images, labels = module_of_cases("data", "cifar10").load("train", limit)
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)), labels


def small() -> tuple[np.ndarray, np.ndarray]:
    images, labels = cifar(SMALL)
    images = np.ascontiguousarray(images[:, :, CROP, CROP])
    pattern = attacks.chessboard(images.shape[1:], 8 / 255)
    made = attacks.plant(images, labels, pattern, target=3, count=20, seed=0)
    return made.images, made.labels


def network(classes: int, stride: int = 2) -> torch.nn.Module:
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 8, 3, stride, 1), torch.nn.ReLU(), torch.nn.Conv2d(8, 16, 3, 2, 1), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(64, classes))


def saved(report: bre.Report) -> tuple[bytes, bytes]:
    """A saved report's files, but for the seconds."""
    with tempfile.TemporaryDirectory() as folder:
        report.save(Path(folder) / "report")
        place = Path(folder) / "report"
        return (place / "report.json").read_bytes(), (place / "arrays.npz").read_bytes()


def finished(folder: Path) -> dict[str, tuple[int, int]]:
    """By task of a run, or by row of a sweep, the file that it left."""
    files = [*folder.glob("*/*.safetensors"), *folder.glob("rows/*.json")]
    return {str(f): (f.stat().st_ino, f.stat().st_mtime_ns) for f in files}


def killed(scratch: Path, verb: str) -> Row:
    """A run killed at random moments, each resumed to the end."""
    place = Path(tempfile.mkdtemp(dir=scratch))
    run = {"screen": screening, "detect": detection, "sweep": sweeping}[verb](place)
    start = time.perf_counter()
    expected = run(place / "undisturbed")
    seconds = time.perf_counter() - start
    random, same, repeated, kept, tasks, landed = np.random.default_rng(0), 0, 0, 0, 0, 0
    for number in range(KILLS):
        folder = place / str(number)
        child = os.fork()
        if not child:
            run(folder)
            os._exit(0)
        time.sleep(random.uniform(0, seconds))
        os.kill(child, signal.SIGKILL)
        landed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        before = finished(folder)
        same += run(folder) == expected
        after = finished(folder)
        repeated += sum(after.get(task) != file for task, file in before.items())
        kept, tasks = kept + len(before), tasks + len(after)
    shutil.rmtree(place)
    counts = {"same": same, "repeated": repeated, "kept": kept, "tasks": tasks}
    return {"verb": verb, "kills": KILLS, "while_running": landed, **counts, "seconds": seconds, **facts()}


def screening(place: Path) -> Callable[[Path], object]:
    data = small()
    return lambda folder: saved(bre.screen(data, workdir=folder))


def detection(place: Path) -> Callable[[Path], object]:
    data, model = small(), network(10).eval()
    return lambda folder: saved(bre.detect(model, data, workdir=folder))


def sweeping(place: Path) -> Callable[[Path], object]:
    """Six rows, every other with a model. What stays of a sweep but for its seconds: verdicts, and reports' bytes."""
    images, labels = small()
    example = torch.zeros(1, *images.shape[1:])
    torch.export.save(torch.export.export(network(10).eval(), (example,)), place / "model.pt2")
    rows = []
    for number in range(6):
        some = np.random.default_rng(number).permutation(len(labels))[:600]
        np.savez(place / f"{number}.npz", images=images[some], labels=labels[some])
        rows.append({"data": str(place / f"{number}.npz"), "model": str(place / "model.pt2") if number % 2 else ""})

    def run(folder: Path) -> object:
        results = sorted(bre.sweep(rows, out=folder), key=lambda result: result.number)
        files = [folder / result.report / name for result in results for name in ("report.json", "arrays.npz")]
        return [replace(result, seconds=0.0) for result in results], [file.read_bytes() for file in files]

    return run


def in_processes(scratch: Path) -> Row:
    data, found = small(), {}
    expected = saved(bre.screen(data))
    for jobs in (1, 2, 4):
        start = time.perf_counter()
        same = saved(bre.screen(data, jobs=jobs)) == expected
        found[str(jobs)] = {"same": same, "seconds": round(time.perf_counter() - start, 1)}
    return {"jobs": found, **facts()}


def on_ray(scratch: Path) -> Row:
    """Two nodes of one machine, one killed in mid-run."""
    import ray
    from ray.cluster_utils import Cluster

    data = small()
    expected = saved(bre.screen(data))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    lost = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    folder = Path(tempfile.mkdtemp(dir=scratch)) / "run"
    at: list[int] = []

    def kill() -> None:
        while len(finished(folder)) < 3:
            time.sleep(0.01)
        at.append(len(finished(folder)))
        cluster.remove_node(lost, allow_graceful=False)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    start = time.perf_counter()
    report = bre.screen(data, executor="ray", ray_address=cluster.address, workdir=folder)
    seconds = time.perf_counter() - start
    killer.join(60)
    row = {"same": saved(report) == expected, "killed_after": at, "tasks": len(finished(folder)), "seconds": seconds}
    cluster.shutdown()
    return {**row, "ray": ray.__version__, **facts()}


def planted(scratch: Path, large: int, others: int, count: int) -> Row:
    """A few planted images in one large class of ten; the others are smaller."""
    images, labels = cifar(50_000)
    random = np.random.default_rng(0)
    rest = random.permutation(images[labels >= 6])
    parts = [sets.variants(images[labels < 6], large, random)]
    parts += [sets.variants(rest[k::9], others, random) for k in range(9)]
    classes = np.repeat(np.arange(10), [len(part) for part in parts])
    pixels = np.concatenate(parts)
    del images, parts
    made_images, made_labels, poisoned = pixels, classes, np.zeros(len(classes), bool)
    if count:
        made = attacks.plant(pixels, classes, attacks.chessboard((3, 32, 32), 6 / 255), target=0, count=count, seed=0)
        made_images, made_labels, poisoned = made.images, made.labels, made.poisoned
    start = time.process_time()
    report = bre.screen((made_images, made_labels))
    flagged = np.isin(np.arange(len(made_labels)), report.indices)
    return {
        "large": int((made_labels == 0).sum()),
        "others": others,
        "planted": count,
        "p_value": report.p_value,
        "named": [finding.target for finding in report.findings if finding.is_poison],
        "statistics": [round(row.image_statistic or 0, 2) for row in report.classes],
        "recall": float(flagged[poisoned].mean()) if count else None,
        "lost": int(flagged[~poisoned].sum()),
        "cpu_seconds": round(time.process_time() - start),
        "peak_gib": peak_gib(),
        **facts(),
    }


def peak_gib() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


def model_view(scratch: Path, classes: int, each: int = 22) -> Row:
    """The model's part of `detect` alone, at 64 x 64; each: images of a class."""
    from bre.inputs import open_dataset, open_model
    from bre.views.model import search_model

    random = np.random.default_rng(0)
    base = random.integers(0, 256, (200, 3, 64, 64), dtype=np.uint8)
    labels = np.arange(classes * each) % classes
    images = np.stack([np.roll(base[n % 200], n // 200, 2) for n in range(len(labels))])
    classifier = open_model(network(classes, 4).eval())
    dataset, start = open_dataset((images, labels)), time.process_time()
    with classifier:
        classifier.check((3, 64, 64), classes)
        search_model(
            classifier, dataset, shared=lambda *_: None, seed=0, backend="cpu", progress=lambda stage, fraction: None
        )
    spent = round(time.process_time() - start, 1)
    passes = {"forward": classifier.forward_images, "backward": classifier.backward_images}
    data_gib = round(images.nbytes / 2**30, 2)
    return {"classes": classes, "cpu_seconds": spent, "peak_gib": peak_gib(), "data_gib": data_gib, **passes, **facts()}


def shards(scratch: Path, images: int, classes: int, poisoned: int, data: str = "tinyimagenet200") -> Row:
    """A set in tar shards, screened; and read and decoded alone. data: a folder of photographs in $BRE_CASES/data."""
    out = scratch / f"shards-{data}-{images}-{classes}-{poisoned}"
    if not out.with_suffix(".json").exists():
        shutil.rmtree(out, ignore_errors=True)
        folder = Path(os.environ["BRE_CASES"]) / "data" / data
        sets.write_shards(folder, out, images, classes, poisoned)
    dataset, start = bre.open_dataset(out), time.process_time()
    for _ in dataset.blocks():
        pass
    read = time.process_time() - start
    start, clock = time.process_time(), time.perf_counter()
    report = bre.screen(out)
    spent, waited = time.process_time() - start, time.perf_counter() - clock
    truth = np.array(bre_truth(out), int)
    found = {
        "named": [finding.target for finding in report.findings if finding.is_poison],
        "recall": float(np.isin(truth, report.indices).mean()) if len(truth) else None,
        "lost": int((~np.isin(report.indices, truth)).sum()),
        "p_value": report.p_value,
    }
    row = {"images": images, "data": data, "classes": classes, "planted": poisoned, "read_seconds": round(read, 1)}
    return {**row, **found, "cpu_seconds": round(spent), "seconds": round(waited), "peak_gib": peak_gib(), **facts()}


def bre_truth(out: Path) -> list[int]:
    """The planted images of shards that `sets` wrote: their numbers are their places, image by image."""
    import json

    truth: list[int] = json.loads(out.with_suffix(".json").read_text())["poisoned"]
    return truth


def alone(measure: Callable[[Path], Row]) -> Callable[[Path], Row]:
    """In a process of its own, whose memory nothing else has grown."""

    def run(scratch: Path) -> Row:
        from multiprocessing import get_context

        with get_context("spawn").Pool(1) as pool:
            row: Row = pool.apply(_measured, (measure, scratch))
            return row

    return run


def _measured(measure: Callable[[Path], Row], scratch: Path) -> Row:
    torch.set_num_threads(1)
    return measure(scratch)


PLAN: dict[str, Callable[[Path], Row]] = {
    "killed screen": partial(killed, verb="screen"),
    "killed detect": partial(killed, verb="detect"),
    "killed sweep": partial(killed, verb="sweep"),
    "processes": in_processes,
    "ray": on_ray,
    "planted 50 of 100000": alone(partial(planted, large=100_000, others=2_500, count=50)),
    "clean 100000": alone(partial(planted, large=100_000, others=2_500, count=0)),
    "model K 100": alone(partial(model_view, classes=100)),
    "model K 1000": alone(partial(model_view, classes=1000)),
    "shards 12812": alone(partial(shards, images=12_812, classes=10, poisoned=300)),
    "shards 128117": alone(partial(shards, images=128_117, classes=100, poisoned=300)),
    "shards 1281167": alone(partial(shards, images=1_281_167, classes=1000, poisoned=300)),
    "shards 1281167 20": alone(partial(shards, images=1_281_167, classes=1000, poisoned=20)),
    "shards 224 6000": alone(partial(shards, images=6_000, classes=10, poisoned=30, data="imagenette224")),
    "shards 224 100000": alone(partial(shards, images=100_000, classes=10, poisoned=500, data="imagenette224")),
}
