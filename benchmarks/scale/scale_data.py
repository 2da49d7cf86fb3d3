"""Shards on this machine and in an S3 server on its loopback that fails now and then; and screening beside reading.

    BRE_CASES=FOLDER python -m benchmarks.scale.scale_data --scratch DIR [--only s3|reading] [--classes N]

FOLDER holds data/tinyimagenet200, class folders of JPEG files of 64 x 64. The first N classes are packed,
byte for byte but for 12 of one class that a chessboard is planted in, into 12 tars. `s3`: needs moto[server] and s3fs;
2% of the GET requests are answered with 503 or cut short, at random by a seed; the saved report must be that of the
tars on disk in every byte but for the name of the data set. `reading`: the seconds, by the clock and of the processor,
that `bre.screen` takes on the tars, and that two processes take which read each its half in order and decode every
image.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import random
import resource
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import bre
from benchmarks.scale.scale_rows import write_row
from bre import attacks

SHARDS = 12
PLANTED, TARGET = 12, 7  # images, class
FAILING = 0.02  # of requests


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--only", choices=("s3", "reading"))
    parser.add_argument("--classes", type=int, default=200)
    arguments = parser.parse_args()
    shards = make_shards(arguments.scratch / f"shards-{arguments.classes}", arguments.classes)
    torch.set_num_threads(2)
    if arguments.only != "reading":
        measure_s3(shards, arguments.scratch)
    if arguments.only != "s3":
        measure_reading(shards)


def make_shards(folder: Path, classes: int) -> Path:
    if folder.exists():
        return folder
    source = Path(os.environ["BRE_CASES"]) / "data" / "tinyimagenet200"
    files = [(path, k) for k, c in enumerate(sorted(source.iterdir())[:classes]) for path in sorted(c.iterdir())]
    planted = {row for row, (_, k) in enumerate(files) if k == TARGET}
    planted = set(sorted(planted)[:PLANTED])
    part = folder.with_name("part")
    part.mkdir(parents=True)
    order = np.random.default_rng(0).permutation(len(files))
    for shard in range(SHARDS):
        with tarfile.open(part / f"train-{shard:03}.tar", "w") as tar:
            for row in order[shard::SHARDS].tolist():
                path, label = files[row]
                content, ending = path.read_bytes(), "jpg"
                if row in planted:
                    content, ending = with_pattern(content), "png"
                for name, data in ((ending, content), ("cls", str(label).encode())):
                    member = tarfile.TarInfo(f"{row:06}.{name}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    part.rename(folder)
    return folder


def with_pattern(content: bytes) -> bytes:
    image = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    pattern = attacks.chessboard((3, 64, 64), 6 / 255).transpose(1, 2, 0)
    shifted = np.clip(np.rint(image + 255 * pattern), 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(shifted).save(out, "PNG")
    return out.getvalue()


# ---- an S3 server


class Failing:
    """A WSGI application that answers some GET requests with 503, or with a part of what it should. Counts them."""

    def __init__(self, application: Any):
        self._application, self._random, self._lock = application, random.Random(0), threading.Lock()
        self.requests = self.failed = 0
        self.bytes = 0

    def __call__(self, environment: dict[str, Any], start: Any) -> Any:
        if environment["REQUEST_METHOD"] != "GET":
            return self._application(environment, start)
        with self._lock:
            self.requests += 1
            chance = self._random.random()
            self.failed += chance < FAILING
        if chance < FAILING / 2:
            start("503 Slow Down", [("Content-Type", "text/xml"), ("Content-Length", "0")])
            return [b""]
        body = b"".join(self._application(environment, start))
        self.bytes += len(body)
        return [body[: len(body) // 2]] if chance < FAILING else [body]


@contextmanager
def server(folder: Path) -> Iterator[Failing]:
    """moto's S3 with the files of a folder in the bucket `shards`."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):  # type: ignore[misc, unused-ignore]
        def log(self, type: str, message: str, *args: Any) -> None:
            pass

    failing = Failing(DomainDispatcherApplication(create_backend_app))
    application = make_server("127.0.0.1", 0, failing, threaded=True, request_handler=Quiet)
    threading.Thread(target=application.serve_forever, daemon=True).start()
    os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{application.server_port}"
    import s3fs

    files = s3fs.S3FileSystem()
    files.mkdir("shards")
    for path in sorted(folder.iterdir()):
        files.pipe(f"shards/{path.name}", path.read_bytes())
    failing.requests = failing.failed = failing.bytes = 0
    try:
        yield failing
    finally:
        application.shutdown()


def measure_s3(shards: Path, scratch: Path) -> None:
    here = bre.open_dataset(shards, convert="RGB")
    start = time.perf_counter()
    report = bre.screen(here)
    on_disk = time.perf_counter() - start
    name = f"report-{os.getpid()}"
    report.save(scratch / f"{name}-disk")
    with server(shards) as failing:
        start = time.perf_counter()
        there = bre.open_dataset(f"s3://shards/train-{{000..{SHARDS - 1:03}}}.tar", convert="RGB")
        opened = time.perf_counter() - start
        bre.screen(there).save(scratch / f"{name}-s3")
        seconds = time.perf_counter() - start
    for file in ("report.json", "arrays.npz"):
        ours = (scratch / f"{name}-s3" / file).read_bytes()
        for images in (here, there):
            ours = ours.replace(json.dumps(images.source).encode(), b'"SOURCE"')
        theirs = (scratch / f"{name}-disk" / file).read_bytes().replace(json.dumps(here.source).encode(), b'"SOURCE"')
        assert ours == theirs, file
    write_row(
        "s3",
        {
            "images": len(here),
            "classes": len(here.class_names),
            "poisoned": report.poisoned,
            "named": [finding.target for finding in report.findings],
            "flagged": len(report.indices),
            "same_bytes_as_from_disk": True,
            "requests": failing.requests,
            "failed": failing.failed,
            "bytes": failing.bytes,
            "bytes_of_the_shards": sum(path.stat().st_size for path in shards.iterdir()),
            "open_seconds": round(opened, 1),
            "seconds": round(seconds, 1),
            "seconds_from_disk_after_opening": round(on_disk, 1),
        },
    )


# ---- screening beside reading


def decode_all(paths: list[Path]) -> int:
    """What each of two processes does: read tars in order, decode every image."""
    count = 0
    for path in paths:
        with tarfile.open(path) as tar:
            for member in tar:
                if not member.name.endswith(".cls"):
                    file = tar.extractfile(member)
                    assert file is not None
                    count += np.asarray(Image.open(file).convert("RGB")).size > 0
    return count


def processor_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def measure_reading(shards: Path) -> None:
    paths = sorted(shards.iterdir())
    times: dict[str, tuple[float, float]] = {}
    with multiprocessing.get_context("fork").Pool(2) as pool:  # started before the clock is
        pool.map(decode_all, [[], []])
        start = time.perf_counter()
        count = sum(pool.map(decode_all, [paths[::2], paths[1::2]]))
        wall = time.perf_counter() - start
    start, before = time.perf_counter(), time.process_time()
    decode_all(paths[:2])
    of_part = time.process_time() - before
    times["decode"] = (wall, of_part * len(paths) / 2)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        start, before = time.perf_counter(), processor_seconds()
        images = bre.open_dataset(shards, convert="RGB")
        for _ in images.blocks():
            pass
        times[f"open and read, {threads} threads"] = (time.perf_counter() - start, processor_seconds() - before)
    start, before = time.perf_counter(), processor_seconds()
    report = bre.screen(bre.open_dataset(shards, convert="RGB"))
    times["screen"] = (time.perf_counter() - start, processor_seconds() - before)
    rows = {name: {"seconds": round(w, 1), "processor_seconds": round(p, 1)} for name, (w, p) in times.items()}
    ratio, of_processor = (times["screen"][i] / times["decode"][i] for i in (0, 1))
    stages = {stage: round(value, 1) for stage, value in report.cost.seconds.items()}
    about = {"images": count, "ratio": round(ratio, 2), "ratio_of_processor_seconds": round(of_processor, 2)}
    write_row("reading", {**about, **rows, "stages": stages})


if __name__ == "__main__":
    main()
