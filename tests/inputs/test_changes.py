"""What other programs may do to a dataset while it is read or kept, what the system may say, and what a small file may
unpack to."""

from __future__ import annotations

import io
import os
import signal
import struct
import tarfile
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from real_files import (
    IMAGES,
    KINDS,
    LABELS,
    MASK,
    NAMES,
    PNGS,
    M,
    nchw,
    pa,
    parquet,
    pq,
    refused,
    write_hugging_face,
    write_parquet,
    write_shards,
)

from bre import _memory
from bre.inputs import open_dataset
from bre.inputs.datasets import regular_files


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "set"
    for i, k in enumerate(LABELS):
        (root / NAMES[k]).mkdir(parents=True, exist_ok=True)
        (root / NAMES[k] / f"{i:02}.png").write_bytes(PNGS[i])
    return root


# ---- links and pipes that were not there before


def test_a_file_that_becomes_a_link(folder, tmp_path):
    dataset = open_dataset(folder)
    (tmp_path / "secret.png").write_bytes(PNGS[0])
    (folder / "ant" / "00.png").unlink()
    (folder / "ant" / "00.png").symlink_to(tmp_path / "secret.png")
    with refused("is a link, or lies behind one, that was not there"):
        dataset.read(np.array([0]))
    with refused("is a link, or lies behind one, that was not there"):
        dataset.keep(np.ones(M, bool), tmp_path / "kept")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["secret.png", "set"]


def test_a_class_folder_that_becomes_a_link(folder, tmp_path):
    dataset = open_dataset(folder)
    (folder / "ant").rename(tmp_path / "elsewhere")
    (folder / "ant").symlink_to(tmp_path / "elsewhere")
    for use in (lambda: dataset.read(np.array([0])), lambda: dataset.keep(np.ones(M, bool), tmp_path / "kept")):
        with refused("that was not there"):
            use()
    assert not (tmp_path / "kept").exists()


def test_a_link_that_appears_between_looking_and_linking(folder, tmp_path, monkeypatch):
    """What is kept is the file that was opened, whatever has its name by then."""
    dataset, link = open_dataset(folder), os.link
    (tmp_path / "secret.png").write_bytes(b"secret")

    def swapped(source, target, **options):
        if Path(source).name == "00.png":
            Path(source).unlink()
            Path(source).symlink_to(tmp_path / "secret.png")
        link(source, target, **options)

    monkeypatch.setattr(os, "link", swapped)
    out = dataset.keep(np.ones(M, bool), tmp_path / "kept")
    assert (out / "ant" / "00.png").read_bytes() == PNGS[0]
    assert not any(p.is_symlink() for p in out.rglob("*"))


def test_the_folder_itself_is_held(folder, tmp_path):
    dataset = open_dataset(folder)
    folder.rename(tmp_path / "moved")
    folder.symlink_to("/etc")
    np.testing.assert_array_equal(dataset.read(np.array([0])), nchw(IMAGES)[:1])


def test_names_that_lead_out_of_a_folder(folder):
    held = regular_files.Folder(folder)
    for name in ("../x", "ant/../../x", "", "ant//00.png", "/etc/passwd", "."):
        with refused("is no name of a file in"):
            held.open(name)


@pytest.mark.parametrize("kind", ["npz", "csv", "tar", "parquet", "npy", "mat", "png", "txt"])
def test_pipes_are_not_waited_for(folder, kind):
    path = folder / "ant" / "x.png" if kind == "png" else folder.parent / f"set.{kind}"
    os.mkfifo(path)
    with refused("no regular file|not a regular file"):
        open_dataset(folder if kind == "png" else path)
    if kind != "png":
        return
    path.unlink()
    dataset = open_dataset(folder)
    (folder / "ant" / "00.png").unlink()
    os.mkfifo(folder / "ant" / "00.png")
    with refused("no regular file"):
        dataset.read(np.array([0]))


def test_a_link_to_a_pipe_in_a_list(tmp_path):
    os.mkfifo(tmp_path / "x.png")
    (tmp_path / "set.csv").write_text("path,label\nx.png,1\n")
    with refused("no file in|no regular file"):
        open_dataset(tmp_path / "set.csv")


# ---- files that are cut or written anew


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ("medmnist", "mat")])
def test_a_file_that_is_cut_while_it_is_read(kind, tmp_path):
    write, name, _ = KINDS[kind]
    path = write(tmp_path / name)
    dataset = open_dataset(path)
    lists = path.suffix in (".csv", ".tsv", ".txt", ".jsonl")
    files = (tmp_path / "images").iterdir() if lists else [path] if path.is_file() else path.iterdir()
    for file in files:
        os.truncate(file, 50)
    with refused("was cut by another program|has changed since|is damaged"):
        dataset.read(np.arange(M))
    if lists:
        return  # which are written again without a look at the images
    with refused("was cut by another program|has changed since"):
        dataset.keep(MASK, tmp_path / f"kept{path.suffix}")


@pytest.mark.parametrize("name", ["npz", "cifar"])
def test_arrays_in_place_are_not_mapped(name, tmp_path):
    """A mapped file that is cut ends the process, by SIGBUS."""
    if name == "npz":
        path = file = tmp_path / "set.npz"
        np.savez(path, images=np.zeros((4000, 8, 8), np.uint8), labels=np.arange(4000) % 3)
    else:
        path, file = tmp_path / "set", tmp_path / "set" / "data_batch_1.bin"
        path.mkdir()
        file.write_bytes(b"".join(bytes([i % 3]) + bytes(3072) for i in range(200)))
    dataset = open_dataset(path)
    os.truncate(file, 3000)
    with refused("was cut by another program while it was read"):
        dataset.read(np.arange(len(dataset)))


@pytest.mark.parametrize("write", [write_parquet, write_hugging_face, write_shards])
def test_a_file_that_is_replaced(write, tmp_path):
    path = write(tmp_path / "set")
    dataset = open_dataset(path)
    for file in [path] if path.is_file() else path.iterdir():
        data = file.read_bytes()
        file.unlink()
        file.write_bytes(data[::-1])
    with refused("has changed since the dataset was opened"):
        dataset.read(np.arange(M))


def test_threads_may_share_a_dataset(tmp_path):
    for kind in ("parquet", "hugging face", "shards", "npy", "csv"):
        (tmp_path / kind).mkdir()
        write, name, _ = KINDS[kind]
        dataset = open_dataset(write(tmp_path / kind / name))
        orders = [np.random.default_rng(i).permutation(M) for i in range(60)]
        with ThreadPoolExecutor(3) as pool:
            for order, block in zip(orders, pool.map(dataset.read, orders), strict=True):
                np.testing.assert_array_equal(block, nchw(IMAGES)[order])


# ---- what the system says is not the dataset's fault


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_is_no_damage(kind, tmp_path, monkeypatch):
    write, name, _ = KINDS[kind]
    path = write(tmp_path / name)
    dataset = open_dataset(path)
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, limits[1]))
        with pytest.raises(OSError, match="File too large"):
            dataset.keep(MASK, tmp_path / f"kept{path.suffix}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert not [p for p in tmp_path.iterdir() if "kept" in p.name or p.name.startswith(".bre")]


def test_too_many_open_files_are_no_damage(folder, monkeypatch):
    dataset = open_dataset(folder)

    def full(*args, **options):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "open", full)
    with refused("00.png' cannot be read: Too many open files"):
        dataset.read(np.array([0]))


# ---- small files that unpack to much


def png_of(width, height):
    """A PNG of one colour, in a few hundred bytes for a million pixels."""
    f = io.BytesIO()
    f.write(b"\x89PNG\r\n\x1a\n")
    PngImagePlugin.putchunk(f, b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pack = zlib.compressobj(9)
    row = bytes(1 + 3 * width)
    PngImagePlugin.putchunk(f, b"IDAT", b"".join(pack.compress(row) for _ in range(height)) + pack.flush())
    PngImagePlugin.putchunk(f, b"IEND", b"")
    return f.getvalue()


def test_large_images_of_one_colour(folder):
    (folder / "ant" / "00.png").write_bytes(png_of(5000, 4000))
    with refused(r"00\.png is too large to decode .*5000x4000 pixels in \d+ bytes"):
        open_dataset(folder, resize=(8, 8))
    (folder / "ant" / "00.png").write_bytes(png_of(4000, 4000))
    assert open_dataset(folder, resize=(8, 8)).image_shape == (3, 8, 8)


def test_large_photographs_are_read(folder):
    noise = np.random.default_rng(0).integers(0, 256, (4200, 4100), dtype=np.uint8)
    Image.fromarray(noise).convert("RGB").save(folder / "ant" / "00.jpg", quality=20)
    (folder / "ant" / "00.png").unlink()
    assert open_dataset(folder, resize=(8, 8)).image_shape == (3, 8, 8)


def npz_of(path, **members):
    """members: {name: (descr, shape, bytes behind the header)}"""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        for name, (descr, shape, count) in members.items():
            head = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
            with z.open(f"{name}.npy", "w", force_zip64=True) as f:
                f.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head)
                for _ in range(0, count, 1 << 20):
                    f.write(bytes(min(1 << 20, count)))
    return path


def test_more_labels_than_images_are_refused_before_they_are_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("bre.inputs.datasets.npz._unpacked", lambda *args: pytest.fail("unpacked"))
    path = npz_of(tmp_path / "set.npz", images=("|u1", (4, 8, 8), 256), labels=("<i8", (1 << 20,), 8 << 20))
    with refused("4 images but 1048576 labels"):
        open_dataset(path)


@pytest.mark.parametrize("count", [10_001, (1 << 32) - 1])
def test_a_header_of_spaces_is_not_read(tmp_path, count):
    with zipfile.ZipFile(tmp_path / "set.npz", "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("images.npy", b"\x93NUMPY\x02\x00" + struct.pack("<I", count) + b" " * 20_000)
        z.writestr("labels.npy", b"")
    with refused(f"declares a header of {count} bytes, the limit is 10000"):
        open_dataset(tmp_path / "set.npz")


def test_a_label_far_beyond_the_number_of_images():
    labels = np.arange(M) % 3
    labels[5] = 99_999
    with refused("labels of 12 images must be class numbers, .* below 1000, got 99999 at image 5"):
        open_dataset((IMAGES, labels))


def test_parquet_of_millions_of_copies(tmp_path):
    rows = 200_000
    table = pa.table({
        "image": pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([PNGS[0]])),
        "label": pa.array(np.arange(rows) % 2),
    })  # fmt: skip
    pq.write_table(table.cast(pa.schema({"image": pa.binary(), "label": pa.int64()})), tmp_path / "set.parquet")
    with refused("declares 200000 rows in .* must be copies"):
        open_dataset(tmp_path / "set.parquet")


def test_parquet_whose_images_unpack_to_gigabytes(tmp_path):
    path = tmp_path / "set.parquet"
    with pq.ParquetWriter(path, pa.schema({"image": pa.binary(), "label": pa.int64()}), compression="zstd") as writer:
        writer.write_table(pa.table({"image": [bytes(280 << 20)], "label": [0]}))
    assert path.stat().st_size < 1 << 20
    with refused("would unpack from .* in one row group"):
        open_dataset(path)


def test_a_parquet_label_of_megabytes(tmp_path):
    with refused("a label is 1000000 bytes long"):
        open_dataset(parquet(tmp_path / "set.parquet", image=PNGS, label=["x" * 1_000_000] * M))


def test_a_tar_header_that_claims_gigabytes(tmp_path):
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 4 << 30
    (tmp_path / "set.tar").write_bytes(info.tobuf(tarfile.USTAR_FORMAT) + bytes(1024))
    with refused("holds a header of 4294967296 bytes"):
        open_dataset(tmp_path / "set.tar")


def test_packed_batches_of_arrow_are_refused(tmp_path):
    path = write_hugging_face(tmp_path / "set")
    file = sorted(path.glob("*.arrow"))[0]
    with pa.ipc.open_stream(file) as reader:
        table = reader.read_all()
    with pa.ipc.new_stream(file, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    with refused("packed batches, which `datasets` does not write"):
        open_dataset(path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000])
def test_json_that_is_nested_without_end(tmp_path, folder, text):
    (tmp_path / "set.jsonl").write_text(text)
    (tmp_path / "boxes.json").write_text(text)
    with refused("damaged, or no JSON"):
        open_dataset(tmp_path / "set.jsonl")
    with refused("damaged, or no JSON"):
        open_dataset(folder, boxes=tmp_path / "boxes.json", resize=(4, 4))


def test_texts_that_are_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(regular_files, "MAX_TEXT", 5)
    for name in ("set.csv", "set.jsonl"):
        (tmp_path / name).write_text("path,label\n")
        with refused("is larger than"):
            open_dataset(tmp_path / name)


def test_the_memory_of_a_control_group_counts(tmp_path, monkeypatch):
    machine = _memory.memory_limit()
    monkeypatch.setattr(_memory, "_GROUPS", tmp_path)
    (tmp_path / "memory.max").write_text("max\n")
    assert (_memory.memory_limit() or 0) >= (machine or 0)
    (tmp_path / "memory.max").write_text("1048576\n")
    assert _memory.memory_limit() == 1 << 20


def test_options_are_checked():
    for options, match in (
        ({"root": 3}, "root must be a path"),
        ({"boxes": "a\0b"}, "boxes must be a path"),
        ({"follow_links": 1}, "follow_links must be True or False"),
        ({"pad": 1}, "pad must be True or False"),
        ({"crop": 4}, "crop must be"),
        ({"root": "."}, "for CSV, .*; arrays has no use for it .argument root"),
        ({"on_error": "skip"}, "argument on_error"),
    ):
        with refused(match):
            open_dataset((IMAGES, LABELS), **options)
