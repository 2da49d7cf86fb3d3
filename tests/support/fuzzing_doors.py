"""What can be fuzzed: real files of every kind that bre reads, and who reads them."""

from __future__ import annotations

import contextlib
import io
import pickle
import random
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from fuzzing_datasets import fill_arrays, fill_lists
from fuzzing_models import fill_folders, fill_models, fill_traced, read_model, read_weights
from mutations import (
    Bee,
    any_of,
    as_text,
    in_gzip,
    in_json,
    in_mat,
    in_png,
    in_safetensors,
    in_tar,
    in_zip,
    in_zip_or_bytes,
    mutated,
)
from PIL import Image

from bre import Report
from bre.inputs import ImageSet, open_dataset

M, H, W, K = 12, 8, 8, 3


class Door:
    """files: {name: bytes}, read from a folder as `path` in it. mutate: which of them, and how."""

    def __init__(self, path: str, read: Callable[[Path], Any], mutate: dict[str, Callable], share: float = 1):
        self.path, self.read, self.mutate, self.share = path, read, mutate, share
        self.files: list[dict[str, bytes]] = []  # the corpus: real ones

    def add(self, folder: Path) -> None:
        paths = sorted(p for p in folder.rglob("*") if p.is_file())
        self.files.append({str(p.relative_to(folder)): p.read_bytes() for p in paths})

    def write(self, folder: Path, seed: int, index: int, name: str) -> None:
        r = random.Random(f"{seed}/{name}/{index}")
        files = dict(r.choice(self.files))
        which = [f for f in files if any(Path(f).match(pattern) for pattern in self.mutate)]
        for f in r.sample(which, min(len(which), r.choice([1, 1, 1, 2]))):
            mutate = next(way for pattern, way in self.mutate.items() if Path(f).match(pattern))
            files[f] = mutate(r, files[f])
        for f, data in files.items():
            (folder / f).parent.mkdir(parents=True, exist_ok=True)
            (folder / f).write_bytes(data)


def read_images(path: Path, **options: Any) -> None:
    """Open, read some, and write a part; `kept` is where the part goes."""
    images = open_dataset(path, unsafe=True, **options)  # of pickles, CIFAR's are read by bre itself
    use(images, path)


def use(images: ImageSet, path: Path) -> None:
    few = np.unique(np.linspace(0, len(images) - 1, 8).astype(int))
    if np.prod(images.image_shape) < 1 << 24:
        images.read(few[::-1])
    repr(images), images.fingerprint(np.arange(min(len(images), 3))), images.describe(0)
    mask = np.ones(len(images), bool)
    mask[few[1::2]] = False
    images.keep(mask, path.with_name("kept" + path.suffix))


def read_boxes(path: Path) -> None:
    """`boxes` beside the folder of images."""
    images = open_dataset(path, boxes=path.with_name("boxes"), resize=(4, 4))
    use(images, path)


def read_json_labels(path: Path) -> None:
    read_images(path, columns=("png", "json:a.label"))


def read_converted(path: Path) -> None:
    read_images(path, resize=(6, 5), convert="RGB")


def doors() -> dict[str, Door]:
    png, zipped, by_json = any_of(in_png, in_png, mutated), any_of(in_zip, in_zip, mutated), any_of(in_json, as_text)
    batches = {"data_batch_?": mutated, "*.bin": mutated, "*.txt": as_text, "*": mutated}
    return {
        "png": Door("set", read_images, {"*.png": png}, 4),
        "images": Door("set", read_converted, {"*.png": png, "*": mutated}, 4),
        "npz": Door("set.npz", read_images, {"*": zipped}, 3),
        "tar": Door("set.tar", read_images, {"*": any_of(in_tar, in_tar, mutated)}, 3),
        "csv": Door("set.csv", read_images, {"*.csv": as_text}, 3),
        "parquet": Door("set.parquet", read_images, {"*": mutated}, 3),
        "hugging face": Door("set", read_images, {"*.json": by_json, "*.arrow": mutated}, 3),
        "cifar": Door("set", read_images, batches, 1),
        "npy": Door("set", read_images, {"*": mutated}, 1),
        "idx": Door("set", read_images, {"*": any_of(in_gzip, mutated)}, 2),
        "mat": Door("set.mat", read_images, {"*": any_of(in_mat, in_mat, mutated)}, 2),
        "lists": Door("set.txt", read_images, {"*.txt": as_text}, 1),
        "json lines": Door("set.jsonl", read_images, {"*.jsonl": as_text}, 1),
        "json in tar": Door("set.tar", read_json_labels, {"*": any_of(in_tar, as_text)}, 1),
        "coco": Door("set", read_boxes, {"boxes": by_json}, 2),
        "yolo": Door("set", read_boxes, {"*.txt": as_text}, 1),
        "report": Door("set", Report.load, {"*.json": by_json, "*.npz": zipped}, 4),
        "pt2": Door("net.pt2", read_model, {"*": zipped}, 1),
        "torchscript": Door("net.pt", read_model, {"*": zipped}, 1),
        "traced": Door("net.pt", read_model, {"*": zipped}, 1),
        "model folder": Door("net", read_model, {"*.json": by_json, "*.safetensors": in_safetensors}, 1),
        "safetensors": Door("net.safetensors", read_weights, {"*": any_of(in_safetensors, in_safetensors, mutated)}, 2),
        "checkpoint": Door("net.pth", read_weights, {"*": any_of(in_zip_or_bytes, mutated)}, 2),
    }


def corpus(found: dict[str, Door], folder: Path) -> Callable:
    """real(name): a folder to be filled, which then joins the corpus of that door."""

    @contextlib.contextmanager
    def real(name: str) -> Iterator[Path]:
        path = folder / f"{name} {len(found[name].files)}"
        path.mkdir(parents=True)
        yield path
        found[name].add(path)

    return real


def fill(found: dict[str, Door], folder: Path) -> None:
    """The corpora, made by the libraries that people make such files with; a door without its library goes."""
    images = np.random.default_rng(0).integers(0, 256, (M, H, W, 3), dtype=np.uint8)
    images[:, :4] = 77  # something that packs
    labels = np.arange(M) % K

    real = corpus(found, folder)

    def encoded(image: np.ndarray, kind: str = "PNG", mode: str = "RGB", **options: Any) -> bytes:
        f = io.BytesIO()
        Image.fromarray(image).convert(mode).save(f, kind, **options)
        return f.getvalue()

    with real("png") as path:
        for i in range(M):
            (path / "set" / "abc"[labels[i]]).mkdir(parents=True, exist_ok=True)
            (path / "set" / "abc"[labels[i]] / f"{i}.png").write_bytes(encoded(images[i]))
    kinds = [("JPEG", "RGB"), ("BMP", "RGB"), ("WEBP", "RGB"), ("PPM", "RGB"), ("TIFF", "RGB"), ("PNG", "P")]
    kinds += [("PNG", "RGBA"), ("PNG", "LA"), ("PNG", "1"), ("TIFF", "CMYK"), ("JPEG", "L"), ("GIF", "P")]
    for kind, mode in kinds:
        with real("images") as path:
            for i in range(6):
                (path / "set" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
                options = {"compression": "tiff_lzw"} if kind == "TIFF" and mode == "RGB" else {}
                ending = {"JPEG": "jpg", "GIF": "png"}.get(kind, kind.lower())
                data = encoded(images[i], kind, mode, **options)
                (path / "set" / "ab"[i % 2] / f"{i}.{ending}").write_bytes(data)
    for save in (np.savez, np.savez_compressed):
        for dtype in (np.uint8, np.float32):
            with real("npz") as path:
                pixels = images if dtype == np.uint8 else (images / 255).astype(dtype)
                save(path / "set.npz", images=pixels, labels=labels)
    with real("npz") as path:
        np.savez(path / "set.npz", images=np.array([Bee()] * M, object), labels=labels, allow_pickle=True)
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with real("tar") as path, tarfile.open(path / "set.tar", "w", format=form) as tar:
            for i in range(M):
                stem = "x" * (120 if form == tarfile.PAX_FORMAT and i == 3 else 3)
                for ending, data in (("png", encoded(images[i])), ("cls", b"%d" % labels[i])):
                    info = tarfile.TarInfo(f"{stem}{i}.{ending}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    with real("csv") as path:
        rows = ["id,path,label"]
        for i in range(M):
            (path / f"{i}.png").write_bytes(encoded(images[i]))
            rows.append(f'"no. {i}",{i}.png,{"abc"[labels[i]]}')
        (path / "set.csv").write_text("\n".join(rows) + "\n")
    with real("cifar") as path:
        (path / "set").mkdir()
        rows = np.random.default_rng(0).integers(0, 256, (M, 3073), dtype=np.uint8)
        rows[:, 0] = labels
        rows.tofile(path / "set" / "data_batch_1.bin")
        (path / "set" / "batches.meta.txt").write_text("one\ntwo\nthree\n")
    for content in ({b"labels": labels.tolist(), b"data": rows[:, 1:], b"filenames": [b"x"] * M}, Bee()):
        with real("cifar") as path:
            (path / "set").mkdir()
            (path / "set" / "data_batch_1").write_bytes(pickle.dumps(content, 2))
            (path / "set" / "batches.meta").write_bytes(pickle.dumps({"label_names": ["a", "b", "c"]}, 2))
    names = ("train_images", "train_labels", "val_images", "val_labels", "ids")
    with real("npz") as path:
        np.savez(path / "set.npz", **dict(zip(names, (images, labels[:, None], images, labels, labels), strict=True)))
    fill_arrays(real, images, labels)
    fill_lists(real, [encoded(x) for x in images], labels.tolist())
    with real("report") as path:
        from reports import flagging

        flagging((images, labels), {1: [1, 4], 2: [5]}).save(path / "set")
    fill_models(real)
    fill_traced(real)
    for name, make in (("parquet", _fill_parquet), ("hugging face", _fill_hugging_face)):
        try:
            make(real, [encoded(x) for x in images], labels.tolist())
        except ImportError as e:
            found.pop(name)
            print(f"no {name}: {e}", file=sys.stderr)
    try:
        fill_folders(real)
    except ImportError as e:
        found.pop("model folder")
        print(f"no model folder: {e}", file=sys.stderr)


def _fill_parquet(real: Callable, images: list[bytes], labels: list[int]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for i, compression in enumerate(("none", "snappy", "zstd", "gzip")):
        with real("parquet") as path:
            table = pa.table({"image": images, "label": [str(k) for k in labels] if i == 1 else labels})
            options = {"compression": compression, "use_dictionary": i != 2}
            pq.write_table(table, path / "set.parquet", row_group_size=5, **options)
    with real("parquet") as path:
        kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
        rows = pa.array([{"bytes": image, "path": None} for image in images], kind)
        pq.write_table(pa.table({"image": rows, "label": labels}), path / "set.parquet")


def _fill_hugging_face(real: Callable, images: list[bytes], labels: list[int]) -> None:
    import datasets

    datasets.disable_progress_bars()
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c"])})
    with real("hugging face") as path:
        rows = {"image": [{"bytes": image, "path": None} for image in images], "label": labels}
        datasets.Dataset.from_dict(rows, features=features).save_to_disk(path / "set", num_shards=2)
