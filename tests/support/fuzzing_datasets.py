"""The corpora of datasets that no library but numpy and scipy is needed for: arrays in files, and lists of images."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io


def fill_arrays(real: Callable[[str], Any], images: np.ndarray, labels: np.ndarray) -> None:
    for order in ("C", "F"):
        with real("npy") as path:
            (path / "set").mkdir()
            np.save(path / "set" / "images.npy", np.asarray(images, order=order))
            np.save(path / "set" / "labels.npy", np.eye(3)[labels] if order == "F" else labels)
    for packed in (False, True):
        with real("idx") as path:
            (path / "set").mkdir()
            for name, array in (("images-idx4", images), ("labels-idx1", labels.astype(np.uint8))):
                head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
                data = head + array.tobytes()
                file = path / "set" / f"train-{name}-ubyte{'.gz' * packed}"
                file.write_bytes(gzip.compress(data, mtime=0) if packed else data)
        with real("mat") as path:
            content = {"X": images.transpose(1, 2, 3, 0), "y": labels[:, None] + 1.0, "name": "x"}
            scipy.io.savemat(path / "set.mat", content, do_compression=packed)
    rows = np.random.default_rng(0).integers(0, 256, (len(labels), 3074), dtype=np.uint8)
    rows[:, 0], rows[:, 1] = labels // 2, labels
    with real("cifar") as path:
        (path / "set").mkdir()
        rows.tofile(path / "set" / "train.bin")
        (path / "set" / "fine_label_names.txt").write_text("one\ntwo\nthree\n")
    batch: Any = {b"fine_labels": labels.tolist(), b"coarse_labels": labels.tolist(), b"data": rows[:, 2:]}
    with real("cifar") as path:
        (path / "set").mkdir()
        (path / "set" / "train").write_bytes(pickle.dumps(batch, 2))
        (path / "set" / "meta").write_bytes(pickle.dumps({"fine_label_names": ["a", "b", "c"]}, 2))


def fill_lists(real: Callable[[str], Any], images: list[bytes], labels: list[int]) -> None:
    def with_images(path: Path) -> None:
        path.mkdir(exist_ok=True)
        for i, image in enumerate(images):
            (path / f"{i}.png").write_bytes(image)

    with real("lists") as path:
        with_images(path)
        (path / "set.txt").write_text("".join(f"{i}.png {k}\n" for i, k in enumerate(labels)))
    with real("lists") as path:
        with_images(path)
        rows = "".join(f"{i}.png; 8;{'abc'[k]}\n" for i, k in enumerate(labels))
        (path / "set.txt").write_text("Filename;Width;ClassId\n" + rows)
    with real("json lines") as path:
        with_images(path)
        lines = [json.dumps({"file_name": f"{i}.png", "label": k, "x": [1]}) for i, k in enumerate(labels)]
        (path / "set.jsonl").write_text("\n".join(lines) + "\n")
    with real("json in tar") as path, tarfile.open(path / "set.tar", "w") as tar:
        for i, k in enumerate(labels):
            for ending, data in (("png", images[i]), ("json", json.dumps({"a": {"label": k}}).encode())):
                info = tarfile.TarInfo(f"{i}.{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    with real("coco") as path:
        with_images(path / "set")
        content = {
            "images": [{"id": i, "file_name": f"{i}.png"} for i in range(len(images))],
            "annotations": [{"image_id": i, "category_id": k, "bbox": [1, k, 3, 4.5]} for i, k in enumerate(labels)],
            "categories": [{"id": k, "name": f"class {k}"} for k in range(3)],
        }
        (path / "boxes").write_text(json.dumps(content))
    with real("yolo") as path:
        with_images(path / "set")
        (path / "boxes").mkdir()
        (path / "boxes" / "classes.txt").write_text("a\nb\nc\n")
        for i, k in enumerate(labels):
            (path / "boxes" / f"{i}.txt").write_text(f"{k} 0.5 0.5 0.5 0.5\n{k} 0.25 0.25 0.5 0.5\n")
