"""Parquet files and Hugging Face datasets: what only they have, and what is refused."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from real_files import (
    IMAGES,
    LABELS,
    MASK,
    NAMES,
    ORDER,
    PNGS,
    M,
    datasets,
    nchw,
    pa,
    parquet,
    png,
    pq,
    refused,
    saved,
    write_hugging_face,
    write_parquet,
    write_parquet_folder,
    write_tar,
)

from bre.inputs import open_dataset

# ---- Hugging Face


def test_datasets_reads_what_is_kept(tmp_path):
    dataset = open_dataset(write_hugging_face(tmp_path / "set"))
    out = dataset.keep(MASK, tmp_path / "kept")
    again, before = datasets.load_from_disk(str(out)), datasets.load_from_disk(str(tmp_path / "set"))
    assert again.features == before.features
    assert again["label"][:] == LABELS[MASK].tolist()
    np.testing.assert_array_equal(np.asarray(again[3]["image"]), IMAGES[MASK][3])
    assert again._fingerprint != before._fingerprint, "or `datasets` would answer from caches about the old set"


def test_splits_are_named_one_at_a_time(tmp_path):
    datasets.DatasetDict({"train": saved(), "test": saved()}).save_to_disk(tmp_path / "set")
    with refused(r"holds the splits \['train', 'test'\]: name the one to read, as in .*set/train"):
        open_dataset(tmp_path / "set")
    assert len(open_dataset(tmp_path / "set" / "train")) == M


@pytest.mark.parametrize(
    ("state", "match"),
    [
        ("{", "damaged"),
        ("[1]", "holds list, expected an object"),
        ("[" * 100_000, "damaged"),
        ({}, "must name data files"),
        ({"_data_files": [{"filename": "../x.arrow"}]}, r"got '\.\./x\.arrow'"),
        ({"_data_files": [{"filename": "/etc/passwd"}]}, "got '/etc/passwd'"),
        ({"_data_files": [{"filename": "none.arrow"}]}, "got 'none.arrow'"),
        ({"_data_files": ["data.arrow"]}, "got None"),
        ({"_indices_data_files": [{"filename": "i.arrow"}]}, "index file"),
    ],
)
def test_states_of_a_hugging_face_folder(tmp_path, state, match):
    write_hugging_face(tmp_path / "set")
    (tmp_path / "set" / "state.json").write_text(state if isinstance(state, str) else json.dumps(state))
    with refused(match):
        open_dataset(tmp_path / "set")


def test_images_that_are_only_paths_are_not_followed(tmp_path):
    (tmp_path / "x.png").write_bytes(png(IMAGES[0]))
    table = pa.table({"image": [{"bytes": None, "path": str(tmp_path / "x.png")}] * 4, "label": [0, 1, 0, 1]})
    schema = pa.schema({"image": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "label": pa.int64()})
    pq.write_table(table.cast(schema), tmp_path / "set.parquet")
    with refused("row 0 holds no image bytes"):
        open_dataset(tmp_path / "set.parquet")


# ---- Parquet


def test_parquet_of_plain_bytes_and_names(tmp_path):
    path = parquet(tmp_path / "set.parquet", picture=PNGS, kind=[NAMES[k] for k in LABELS])
    with refused(r"expected one label column .* found \['picture', 'kind'\].*argument columns"):
        open_dataset(path)
    dataset = open_dataset(path, columns=("picture", "kind"))
    assert dataset.class_names == tuple(NAMES)
    np.testing.assert_array_equal(dataset.read(ORDER), nchw(IMAGES)[ORDER])


@pytest.mark.parametrize(
    ("columns", "match"),
    [
        ({"image": [[1, 2]] * M, "label": LABELS}, "column 'image' holds list<.*encoded image files"),
        ({"image": PNGS, "label": LABELS / 1}, "whole numbers or names, got double"),
        ({"image": PNGS, "label": LABELS > 0}, "got bool"),
        ({"image": PNGS, "label": [0, None] * 6}, "6 of 12 labels are missing"),
        ({"image": PNGS, "label": LABELS - 1}, "labels must be >= 0, got -1"),
        ({"image": [None] * M, "label": LABELS}, "holds null"),
        ({"image": [*PNGS[:-1], None], "label": LABELS}, "row 11 holds no image bytes"),
        ({"image": [*PNGS[:-1], b"x"], "label": LABELS}, "row 11 is damaged"),
        ({"image": PNGS}, "expected one label column"),
        ({"image": PNGS[:0], "label": LABELS[:0]}, "holds null|empty"),
    ],
)
def test_parquet_of_other_things(tmp_path, columns, match):
    with refused(match):
        open_dataset(parquet(tmp_path / "set.parquet", **columns))


def test_columns_whose_names_begin_alike(tmp_path):
    """Parquet's own selection takes "label.text" for a part of "label"."""
    texts = ["x"] * M
    columns = {"label.text": texts, "image.small": PNGS[::-1], "label": LABELS, "image": PNGS}
    dataset = open_dataset(parquet(tmp_path / "set.parquet", **columns))
    assert dataset.labels.tolist() == LABELS.tolist()
    np.testing.assert_array_equal(dataset.read(ORDER), nchw(IMAGES)[ORDER])


def test_parquet_reads_forward_in_one_pass(tmp_path, monkeypatch):
    """However long the row group: opened once for labels, once for the pass over headers, once for the blocks."""
    monkeypatch.setattr("bre.inputs.datasets.parquet._BATCH", 2)
    dataset = open_dataset(parquet(tmp_path / "set.parquet", image=PNGS, label=LABELS))
    opened = []
    original = type(dataset)._open
    monkeypatch.setattr(type(dataset), "_open", lambda self, *args: opened.append(args[0]) or original(self, *args))
    for start, block in dataset.blocks(3):
        np.testing.assert_array_equal(block, nchw(IMAGES)[start : start + 3])
    assert len(opened) == 1


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
def test_every_kind_of_bytes(tmp_path, kind):
    path = parquet(tmp_path / "set.parquet", image=pa.array(PNGS, pa.binary()).cast(kind), label=LABELS)
    dataset = open_dataset(path)
    np.testing.assert_array_equal(dataset.read(ORDER), nchw(IMAGES)[ORDER])
    assert len(open_dataset(dataset.keep(MASK, tmp_path / "kept.parquet"))) == MASK.sum()


def test_paths_in_a_parquet_are_told_what_to_do(tmp_path):
    path = parquet(tmp_path / "set.parquet", image=["a.png"] * M, label=LABELS)
    with refused("paths are not followed: .*save_to_disk"):
        open_dataset(path)


def test_parquet_files_that_differ(tmp_path):
    (tmp_path / "set").mkdir()
    parquet(tmp_path / "set" / "a.parquet", image=PNGS, label=LABELS)
    parquet(tmp_path / "set" / "b.parquet", image=PNGS, label=LABELS, more=LABELS)
    with refused(r"b\.parquet has other columns than .*a\.parquet"):
        open_dataset(tmp_path / "set")


def test_splits_in_one_folder_and_patterns(tmp_path):
    root = write_parquet_folder(tmp_path / "set")
    write_parquet(root / "test-00000-of-00001.parquet")
    with refused(r"several splits.*train-\*\.parquet"):
        open_dataset(root)
    dataset = open_dataset(root / "train-*.parquet")
    assert len(dataset) == M
    out = dataset.keep(MASK, tmp_path / "kept")
    assert sorted(p.name for p in out.iterdir()) == [f"train-{i:05}-of-00002.parquet" for i in range(2)]
    (root / "more.tar").write_bytes(b"")
    with refused(r"expected .parquet files only"):
        open_dataset(root)
    with refused("no such dataset"):
        open_dataset(root / "none-*.parquet")


def test_columns_other_than_image_and_label_survive(tmp_path):
    path = parquet(tmp_path / "set.parquet", image=PNGS, label=LABELS, caption=[f"no. {i}" for i in range(M)])
    kept = pq.read_table(open_dataset(path).keep(MASK, tmp_path / "kept.parquet"))
    assert kept.column("caption").to_pylist() == [f"no. {i}" for i in np.flatnonzero(MASK)]


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    path = write_parquet(tmp_path / "set.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with refused(r"needs pyarrow.*pip install 'bre-engine\[arrow\]'"):
        open_dataset(path)


@pytest.mark.parametrize("ending", ["parquet", "tar"])
def test_files_of_one_name_do_not_overwrite_each_other(tmp_path, ending):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (write_parquet if ending == "parquet" else write_tar)(tmp_path / folder / f"train.{ending}")
    dataset = open_dataset(tmp_path / "*" / f"train.{ending}")
    assert len(dataset) == 2 * M
    with refused(rf"a/train\.{ending} and .*b/train\.{ending} have one name.*rename one"):
        dataset.keep(np.arange(2 * M) != 3, tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
