"""Real files of every dataset format, made by the libraries that people make them with, and what is in them."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
import scipy.io
from PIL import Image

from bre.errors import InputError

datasets = pytest.importorskip("datasets")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
pd = pytest.importorskip("pandas")  # comes with `datasets`
wds = pytest.importorskip("webdataset")

datasets.disable_progress_bars()

M, H, W = 12, 5, 7
NAMES = ["ant", "bee", "cat"]
LABELS = np.arange(M) % 3
MASK = np.arange(M) % 4 != 1  # nine stay, of every class
IMAGES = np.random.default_rng(0).integers(0, 256, (M, H, W, 3), dtype=np.uint8)
ORDER = np.random.default_rng(1).permutation(M)


def png(image):
    f = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(f, "PNG")
    return f.getvalue()


def saved(images=IMAGES, labels=LABELS, names=NAMES):
    """A Hugging Face dataset in memory."""
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    images = [Image.fromarray(x) if isinstance(x, np.ndarray) else x for x in images]
    table = {"image": images, "label": [int(k) for k in labels]}
    return datasets.Dataset.from_dict(table, features=features)


def write_hugging_face(path, **columns):
    saved(**columns).save_to_disk(path, num_shards=2)
    return path


def write_parquet(path, **columns):
    saved(**columns).to_parquet(path, batch_size=5)
    return path


def write_parquet_folder(path):
    path.mkdir()
    for i in range(2):
        part = slice(6 * i, 6 * i + 6)
        write_parquet(path / f"train-{i:05}-of-00002.parquet", images=IMAGES[part], labels=LABELS[part])
    return path


def write_shards(path, images=IMAGES, labels=LABELS, ending="png"):
    path.mkdir()
    with wds.ShardWriter(str(path / "train-%04d.tar"), maxcount=5, verbose=0) as sink:
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            sink.write({"__key__": f"a/{i:04}", ending: png(image), "cls": int(label), "json": {"id": i}})
    return path


def write_tar(path, images=IMAGES, labels=LABELS):
    with wds.TarWriter(str(path)) as sink:
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            sink.write({"__key__": f"{i:04}", "png": png(image), "cls": NAMES[label]})
    return path


def write_csv(path, images=IMAGES, labels=LABELS, names=NAMES):
    (path.parent / "images").mkdir(exist_ok=True)
    with path.open("w", newline="") as f:
        table = csv.writer(f, delimiter="\t" if path.suffix == ".tsv" else ",")
        table.writerow(["id", "path", "label"])
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            (path.parent / "images" / f"{i:02}.png").write_bytes(png(image))
            table.writerow([f"no. {i}", f"images/{i:02}.png", names[label] if names else label])
    return path


def write_semicolons(path, images=IMAGES, labels=LABELS):
    """As pandas writes them, with the columns of GTSRB's lists."""
    write_csv(path)
    rows = {"Filename": [f"images/{i:02}.png" for i in range(M)], "Width": W, "ClassId": [NAMES[k] for k in labels]}
    pd.DataFrame(rows).to_csv(path, sep=";", index=False)
    return path


def write_json_lines(path):
    """As Hugging Face's image folders have them."""
    write_csv(path)
    rows = {"file_name": [f"images/{i:02}.png" for i in range(M)], "label": [NAMES[k] for k in LABELS], "note": "é"}
    pd.DataFrame(rows).to_json(path, orient="records", lines=True)
    return path


def write_plain_list(path):
    """As Caffe and many after it have them."""
    write_csv(path)
    path.write_text("".join(f"images/{i:02}.png {NAMES[k]}\n" for i, k in enumerate(LABELS)))
    return path


def write_npy_pair(path):
    path.mkdir()
    np.save(path / "X_train.npy", IMAGES)
    np.save(path / "y_train.npy", LABELS[:, None])
    return path


def write_medmnist(path):
    """Three splits of one length, labels in a column."""
    arrays = {f"{split}_images": IMAGES if split == "train" else IMAGES[::-1] for split in ("train", "val", "test")}
    np.savez_compressed(path, **arrays, **{name.replace("images", "labels"): LABELS[:, None] for name in arrays})
    return path


def write_mat(path):
    """As SVHN's, but for the size."""
    scipy.io.savemat(path, {"X": IMAGES.transpose(1, 2, 3, 0), "y": LABELS[:, None].astype(np.uint8)})
    return path


KINDS = {
    "hugging face": (write_hugging_face, "set", NAMES),
    "parquet": (write_parquet, "set.parquet", NAMES),
    "parquet folder": (write_parquet_folder, "set", NAMES),
    "shards": (write_shards, "set", ["0", "1", "2"]),
    "tar": (write_tar, "set.tar", NAMES),
    "csv": (write_csv, "set.csv", NAMES),
    "tsv": (write_csv, "set.tsv", NAMES),
    "semicolons": (write_semicolons, "set.csv", NAMES),
    "json lines": (write_json_lines, "metadata.jsonl", NAMES),
    "plain list": (write_plain_list, "set.txt", NAMES),
    "npy": (write_npy_pair, "set", ["0", "1", "2"]),
    "medmnist": (write_medmnist, "set.npz", ["0", "1", "2"]),
    "mat": (write_mat, "set.mat", ["0", "1", "2"]),
}


def parquet(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


PNGS = [png(x) for x in IMAGES]


def refused(match):
    return pytest.raises(InputError, match=match)


def nchw(images):
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
