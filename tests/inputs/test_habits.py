"""Data sets as people have them: the right images and labels come out, or one line says what to give instead."""

import io
import json
import shutil
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from bre.errors import InputError
from bre.inputs import open_dataset

M = 12
IMAGES = np.random.default_rng(0).integers(0, 256, (M, 5, 7, 3), dtype=np.uint8)
LABELS = np.arange(M) % 3
NAMES = ["cat", "dog", "ship"]


def png(image):
    f = io.BytesIO()
    Image.fromarray(image).save(f, "PNG")
    return f.getvalue()


def class_folders(root):
    for i, image in enumerate(IMAGES):
        (root / NAMES[LABELS[i]]).mkdir(parents=True, exist_ok=True)
        (root / NAMES[LABELS[i]] / f"{i:02}.png").write_bytes(png(image))
    return root


def is_it(images, names=None):
    """All images in order, and their labels."""
    assert (images.read(np.arange(M)) == IMAGES.transpose(0, 3, 1, 2)).all()
    assert images.labels.tolist() == LABELS.tolist()
    assert names is None or images.class_names == tuple(names)


def refused(match):
    return pytest.raises(InputError, match=match)


# ---- arrays


@pytest.mark.parametrize(
    "names",
    [("img", "label"), ("image", "target"), ("trainX", "trainY"), ("train_data", "train_labels"), ("foo", "bar"),
     ("Train-Images", "Train-Labels"), ("arr_1", "arr_0")],
)  # fmt: skip
def test_npz_by_names_or_by_shapes(tmp_path, names):
    np.savez(tmp_path / "set.npz", **dict(zip(names, (IMAGES, LABELS), strict=True)))
    is_it(open_dataset(tmp_path / "set.npz"))


def test_npz_whose_shapes_do_not_tell(tmp_path):
    np.savez(tmp_path / "set.npz", foo=IMAGES, bar=LABELS, baz=LABELS[::-1])
    with refused(r"no array 'images'.*found \['bar', 'baz', 'foo'\].*argument columns"):
        open_dataset(tmp_path / "set.npz")


def test_two_npy_of_any_name(tmp_path):
    np.save(tmp_path / "a.npy", IMAGES)
    np.save(tmp_path / "b.npy", LABELS)
    is_it(open_dataset(tmp_path))
    np.save(tmp_path / "c.npy", LABELS)
    with refused("holds no class folders"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("labels", [LABELS.astype(np.float32), torch.from_numpy(LABELS).double()[:, None]])
def test_labels_that_are_whole_numbers_in_floats(labels):
    is_it(open_dataset((IMAGES, labels)))


@pytest.mark.parametrize("kind", [np.array, list, tuple])
def test_labels_that_are_names(kind):
    images = open_dataset((IMAGES, kind([NAMES[k] for k in LABELS])))
    is_it(images, NAMES)
    kept = images.keep(LABELS > 0)
    assert len(kept[0]) == len(kept[1]) == 8
    assert open_dataset(kept).class_names == ("dog", "ship")


def test_splits_as_keras_gives_them():
    with refused("of several splits.*pass one"):
        open_dataset(((IMAGES, LABELS), (IMAGES, LABELS)))


# ---- folders and archives


def test_what_systems_and_other_programs_leave_in_a_folder(tmp_path):
    root = class_folders(tmp_path / "set")
    (root / "__MACOSX" / "cat").mkdir(parents=True)
    (root / "__MACOSX" / "cat" / "._0.png").write_bytes(b"x")
    (root / "state.json").write_text("{}")  # not of `save_to_disk`
    images = open_dataset(root)
    assert len(images) == M
    assert images.class_names == tuple(NAMES)
    assert "state.json" in images.notes[0]


@pytest.mark.parametrize("when", ["opened", "read"])
def test_a_damaged_image_names_the_option_that_leaves_it_out(tmp_path, when):
    root = class_folders(tmp_path / "set")
    (root / "cat" / "00.png").write_bytes(b"<html>" if when == "opened" else png(IMAGES[0])[:-30])
    with refused("00.png is damaged.*argument on_error"):
        open_dataset(root).read(np.arange(M))
    assert len(open_dataset(root, on_error="skip")) == M - 1


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("set.7z", b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it"),
        ("set.rar", b"Rar!\x1a\x07", "a RAR archive: unpack it"),
        ("set.h5", b"\x89HDF\r\n\x1a\n", "HDF5: read it in Python, and give a pair"),
        ("set.pkl", b"\x80\x04K\x01.", "a pickle, which can run any code"),
        ("set.arrow", b"ARROW1\0\0", "an Arrow file: name the folder"),
        ("set.json", b"[{}]", "an object a line, and call it .jsonl"),
    ],
)
def test_files_that_are_something_else(tmp_path, name, content, match):
    (tmp_path / name).write_bytes(content + bytes(64))
    with refused(match):
        open_dataset(tmp_path / name)


def test_archives_are_to_be_unpacked(tmp_path):
    class_folders(tmp_path / "set")
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "set.csv").write_text("path,label\n")
    (tmp_path / "zips").mkdir()
    shutil.make_archive(str(tmp_path / "zips" / "train"), "zip", tmp_path / "set")
    with refused("holds no class folders, but train.zip: unpack it"):
        open_dataset(tmp_path / "zips")
    with refused("a zip without arrays, of 'set.csv'.*: unpack it"):
        open_dataset(shutil.make_archive(str(tmp_path / "list"), "zip", tmp_path / "list"))
    torch.save((torch.from_numpy(IMAGES), torch.from_numpy(LABELS)), tmp_path / "train.pt")
    with refused("what torch.save writes, a pickle.*give a pair"):
        open_dataset(tmp_path / "train.pt")


def test_an_npy_of_objects(tmp_path):
    np.save(tmp_path / "set.npy", {"x": IMAGES}, allow_pickle=True)
    with refused("object array"):
        open_dataset(tmp_path / "set.npy")


# ---- lists and shards


def test_lists_with_floats_for_classes(tmp_path):
    """As MXNet writes its lists: number, label, path."""
    for i, image in enumerate(IMAGES):
        (tmp_path / f"{i}.png").write_bytes(png(image))
    (tmp_path / "set.lst").write_text("".join(f"{i}\t{k}.000000\t{i}.png\n" for i, k in enumerate(LABELS)))
    is_it(open_dataset(tmp_path / "set.lst", columns=("2", "1")))


def test_lists_that_are_no_utf8(tmp_path):
    (tmp_path / "set.csv").write_text("path,label\na.png,é\n", encoding="latin-1")
    with refused("no UTF-8 text.*save it as UTF-8"):
        open_dataset(tmp_path / "set.csv")


@pytest.mark.parametrize(
    ("names", "braces"),
    [
        (["s-a", "s-b", "s-c"], "s-{a..c}"),
        (["s-0", "s-2", "s-4"], "s-{0..4..2}"),
        ([f"s-{i}" for i in range(12)], "s-{0..11}"),
        (["b", "a"], "{b,a}"),
    ],
)
def test_braces_give_their_own_order(tmp_path, names, braces):
    for name, part in zip(names, np.array_split(np.arange(M), len(names)), strict=True):
        with tarfile.open(tmp_path / f"{name}.tar", "w") as tar:
            for i in part:
                for ending, data in (("png", png(IMAGES[i])), ("cls", b"%d" % LABELS[i])):
                    info = tarfile.TarInfo(f"{i:02}.{ending}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    is_it(open_dataset(tmp_path / f"{braces}.tar"))


def test_polygons_are_no_boxes(tmp_path):
    class_folders(tmp_path / "set")
    (tmp_path / "boxes" / "cat").mkdir(parents=True)
    (tmp_path / "boxes" / "cat" / "00.txt").write_text("0 0.1 0.1 0.9 0.1 0.9 0.9\n")
    with refused("polygons of segmentation are not read"):
        open_dataset(tmp_path / "set", boxes=tmp_path / "boxes", resize=(4, 4))


def test_json_lines_that_are_called_json(tmp_path):
    (tmp_path / "set.json").write_text(json.dumps({"image": "a.png", "label": 0}) + "\n")
    with refused(r"call it .jsonl.*argument boxes"):
        open_dataset(tmp_path / "set.json")
