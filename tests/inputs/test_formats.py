"""The formats people keep datasets in: read, kept in part, brought to one form, damaged; all of them alike."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image
from real_files import (
    IMAGES,
    KINDS,
    LABELS,
    MASK,
    ORDER,
    H,
    M,
    W,
    files,
    nchw,
    refused,
    write_csv,
    write_hugging_face,
    write_parquet,
    write_shards,
    write_tar,
)

from bre.errors import InputError
from bre.inputs import open_dataset
from bre.verbs.cleanse import cleanse


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def path(kind, tmp_path):
    write, name, _ = KINDS[kind]
    return write(tmp_path / name)


def test_images_labels_and_names_are_read(path, kind):
    dataset = open_dataset(path)
    assert dataset.labels.tolist() == LABELS.tolist()
    assert dataset.class_names == tuple(KINDS[kind][2])
    assert dataset.path == path
    np.testing.assert_array_equal(dataset.read(ORDER), nchw(IMAGES)[ORDER])
    np.testing.assert_array_equal(dataset.read(ORDER[::-1]), nchw(IMAGES)[ORDER[::-1]])
    np.testing.assert_array_equal(dataset.read(np.array([7, 2, 7, 7, 2])), nchw(IMAGES)[[7, 2, 7, 7, 2]])
    for start, block in dataset.blocks(5):
        np.testing.assert_array_equal(block, nchw(IMAGES)[start : start + 5])
    assert len({dataset.describe(i) for i in range(M)}) == M


def test_keep_writes_the_same_kind_and_leaves_the_original(path, tmp_path):
    dataset, before = open_dataset(path), files(tmp_path)
    out = tmp_path / f"kept{path.suffix}"
    assert dataset.keep(MASK, out) == out
    again = open_dataset(out)
    assert type(again) is type(dataset)
    assert again.class_names == dataset.class_names
    assert again.labels.tolist() == LABELS[MASK].tolist()
    np.testing.assert_array_equal(again.read(np.arange(9)), nchw(IMAGES)[MASK])
    after = files(tmp_path)
    assert {name: after[name] for name in before} == before
    assert {name.parts[0] for name in after.keys() - before.keys()} == {out.name}


def test_resize_and_convert_when_told(path):
    dataset = open_dataset(path, resize=(3, 4), convert="L")
    assert dataset.image_shape == (1, 3, 4)
    expected = [np.asarray(Image.fromarray(x).convert("L").resize((4, 3), Image.Resampling.BILINEAR)) for x in IMAGES]
    np.testing.assert_array_equal(dataset.read(ORDER)[:, 0], np.stack(expected)[ORDER])


@pytest.mark.parametrize("write", [write_hugging_face, write_parquet, write_shards, write_tar, write_csv])
def test_mixed_sizes_and_modes(write, tmp_path):
    images = [Image.fromarray(x) for x in IMAGES]
    images[3] = images[3].resize((9, 8))
    images[5] = images[5].convert("RGBA")
    images[6] = images[6].convert("L")
    path = write(tmp_path / {write_csv: "set.csv", write_tar: "set.tar"}.get(write, "set"), images=images)
    with refused(r"is 9x8 RGB, .* is 7x5 RGB; .*arguments resize, crop, pad"):
        open_dataset(path)
    with refused(r"has mode RGBA.*argument convert"):
        open_dataset(path, resize=(5, 7))
    with refused(r"is 9x8 RGB, .* is 7x5 RGB; .*arguments resize, crop, pad"):
        open_dataset(path, convert="RGB")
    dataset = open_dataset(path, resize=(5, 7), convert="RGB")
    block = dataset.read(np.arange(M))
    rest = [i for i in range(M) if i not in (3, 6)]
    np.testing.assert_array_equal(block[rest], nchw(IMAGES)[rest])
    assert (block[6, 0] == block[6, 1]).all()


@pytest.mark.parametrize("part", [0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_truncated(path, part):
    file = sorted(p for p in path.iterdir() if p.suffix != ".json")[-1] if path.is_dir() else path
    file.write_bytes(file.read_bytes()[: int(part * file.stat().st_size)])
    try:
        dataset = open_dataset(path)
    except InputError:
        return
    assert path.suffix != ".parquet"
    assert part, "an empty file was taken"
    block = dataset.read(np.arange(len(dataset)))  # of a tar or CSV that ends between samples; what is there is right
    np.testing.assert_array_equal(block, nchw(IMAGES)[: len(dataset)])


def test_cleanse_of_an_opened_set(path, tmp_path):
    from reports import flagging

    dataset = open_dataset(path, resize=(3, 4))
    report = flagging(dataset, {1: [1, 4]})
    out = cleanse(dataset, report, out=tmp_path / f"kept{path.suffix}")
    assert len(open_dataset(out)) == M - 2
    assert open_dataset(out).image_shape == (3, H, W)
    with (tmp_path / f"{out.name}.removed.csv").open(newline="") as f:
        assert [row["image"] for row in csv.DictReader(f)] == [dataset.describe(1), dataset.describe(4)]
    if path.is_dir():
        with refused("lies inside the dataset"):
            cleanse(dataset, report, out=path / "kept")
