"""Images that are damaged or not there: refused all together, or left out and listed, in every format."""

from __future__ import annotations

import json

import numpy as np
import pytest
from real_files import (
    IMAGES,
    LABELS,
    NAMES,
    PNGS,
    M,
    datasets,
    nchw,
    pa,
    parquet,
    refused,
    wds,
)

from bre import InputError, open_dataset

# Two of all: one that is cut in its middle, which its header does not show, and one that is not there or no image.
CUT, GONE = 4, 9
STAY = [i for i in range(M) if i not in (CUT, GONE)]


def encoded(i, gone=b"no image"):
    return PNGS[i][:-30] if i == CUT else gone if i == GONE else PNGS[i]


def in_folder(path):
    for i, label in enumerate(LABELS):
        target = path / "set" / NAMES[label] / f"{i:02}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(encoded(i))
    order = np.argsort(LABELS, kind="stable")
    return path / "set", order


def in_list(path):
    for i in range(M):
        if i != GONE:
            (path / f"{i:02}.png").write_bytes(encoded(i))
    (path / "set.csv").write_text("path,label\n" + "".join(f"{i:02}.png,{NAMES[k]}\n" for i, k in enumerate(LABELS)))
    return path / "set.csv", np.arange(M)


def in_tar(path):
    with wds.TarWriter(str(path / "set.tar")) as sink:
        for i, label in enumerate(LABELS):
            sink.write({"__key__": f"{i:04}", "png": encoded(i), "cls": NAMES[label]})
    return path / "set.tar", np.arange(M)


def in_parquet(path):
    images = pa.array([encoded(i, None) for i in range(M)], pa.binary())
    return parquet(path / "set.parquet", image=images, label=[NAMES[k] for k in LABELS]), np.arange(M)


def in_hugging_face(path):
    in_memory().save_to_disk(path / "set")
    return path / "set", np.arange(M)


def in_memory():
    rows = {"image": [{"bytes": encoded(i, None), "path": None} for i in range(M)], "label": LABELS.tolist()}
    rows["image"][GONE] = None
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    return datasets.Dataset.from_dict(rows, features=features)


WRITERS = {
    "folder": in_folder,
    "list": in_list,
    "tar": in_tar,
    "parquet": in_parquet,
    "hugging face": in_hugging_face,
    "hugging face's object": lambda path: (in_memory(), np.arange(M)),
}


@pytest.fixture(params=WRITERS)
def damaged(request, tmp_path):
    """(what is opened, which of IMAGES stands at each row)"""
    return WRITERS[request.param](tmp_path)


def test_they_are_left_out_and_listed(damaged):
    data, order = damaged
    images = open_dataset(data, on_error="skip")
    stay = [i for i in order if i in STAY]
    assert images.labels.tolist() == LABELS[stay].tolist()
    assert (images.read(np.arange(len(stay))) == nchw(IMAGES[stay])).all()
    assert sorted(image.class_name for image in images.skipped) == sorted(NAMES[LABELS[i]] for i in (CUT, GONE))
    assert any("2 images that are damaged or not there were left out" in note for note in images.notes)
    assert all(image.reason for image in images.skipped)


def test_they_are_not_kept(damaged, tmp_path):
    data, _ = damaged
    images = open_dataset(data, on_error="skip")
    mask = np.ones(len(images), bool)
    mask[0] = False
    out = None if images.path is None else tmp_path / ("kept" + (images.path.suffix if images.path.is_file() else ""))
    kept = open_dataset(images.keep(mask, out))
    assert len(kept) == len(STAY) - 1
    assert (kept.read(np.arange(len(kept))) == images.read(np.flatnonzero(mask))).all()


def test_they_are_refused_where_nothing_else_was_asked_for(damaged):
    data, _ = damaged
    with refused("argument on_error|argument root"):
        images = open_dataset(data)
        images.read(np.arange(len(images)))


def test_all_are_named_in_one_message_and_twenty_at_most(tmp_path):
    for label, name in enumerate(NAMES):
        (tmp_path / name).mkdir()
        for i in range(10):
            (tmp_path / name / f"{i}.png").write_bytes(PNGS[label] if label == 0 and i else b"x")
    with refused("^21 images of .* are damaged or not there: .*bee/0.png .*; and 1 more") as caught:
        open_dataset(tmp_path)
    assert str(caught.value).count("is damaged or truncated") == 20


def test_one_that_its_header_does_not_show_is_named_with_all_others(tmp_path):
    """They are looked for when the first is met."""
    for label, name in enumerate(NAMES):
        (tmp_path / name).mkdir()
        for i in range(4):
            (tmp_path / name / f"{i}.png").write_bytes(PNGS[label][: None if i else -30])
    images = open_dataset(tmp_path)
    with refused("^3 images of .* are damaged or not there: .*ant/0.png .*bee/0.png .*cat/0.png"):
        images.read(np.array([5, 4, 1]))


def test_rows_of_a_list_that_name_no_file_are_refused_together(tmp_path):
    (tmp_path / "0.png").write_bytes(PNGS[0])
    (tmp_path / "set.csv").write_text("path,label\n0.png,0\n1.png,1\n2.png,1\n")
    with refused("names 2 files that are not there: line 3 names '1.png'.*; line 4 names '2.png'.*root, on_error"):
        open_dataset(tmp_path / "set.csv")


@pytest.mark.parametrize(("limit", "message"), [(1, "; 1 may be left out .argument max_skipped"), (2, None)])
def test_a_limit(damaged, limit, message):
    data, _ = damaged
    if message is None:
        assert len(open_dataset(data, on_error="skip", max_skipped=limit).skipped) == 2
        return
    with refused(message):
        open_dataset(data, on_error="skip", max_skipped=limit)


def test_without_a_number_a_share_is_the_limit(tmp_path):
    for label, name in enumerate(NAMES):
        (tmp_path / name).mkdir()
        for i in range(10):
            (tmp_path / name / f"{i}.png").write_bytes(PNGS[label] if label == 0 and i else b"x")
    with refused("; 20 may be left out .argument max_skipped"):
        open_dataset(tmp_path, on_error="skip")


def test_boxes_in_damaged_images(tmp_path):
    (tmp_path / "images").mkdir()
    entries = []
    for i in range(4):
        if i != 3:
            data = PNGS[i] if i != 2 else PNGS[i][:-30]
            (tmp_path / "images" / f"{i}.png").write_bytes(data)
        entries += [{"image_id": i, "category_id": k, "bbox": [0, 0, 4, 4]} for k in (1, 2)]
    images = [{"id": i, "file_name": f"{i}.png"} for i in range(4)]
    categories = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps({"images": images, "annotations": entries, "categories": categories}))
    with refused("names '3.png', which is no file"):
        open_dataset(tmp_path / "images", boxes=boxes, resize=(4, 4))
    found = open_dataset(tmp_path / "images", boxes=boxes, resize=(4, 4), on_error="skip")
    assert len(found) == 4
    assert len(found.skipped) == 4
    assert found.read(np.arange(4)).shape == (4, 3, 4, 4)


def test_what_a_file_system_does_not_give_is_no_damage(tmp_path, monkeypatch):
    """Else a network that fails would leave out a whole set."""
    from bre.inputs.datasets.regular_files import FileSlice

    path, _ = in_tar(tmp_path)

    def fail(self, size=-1):
        raise InputError("the network is down")

    monkeypatch.setattr(FileSlice, "read", fail)
    with pytest.raises(InputError, match="the network is down"):
        open_dataset(path, on_error="skip", max_skipped=M)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_error": "ignore"}, "on_error must be 'fail' or 'skip', got 'ignore'"),
        ({"on_error": None}, "on_error must be"),
        ({"on_error": "skip", "max_skipped": -1}, "max_skipped must be an integer from 0"),
        ({"on_error": "skip", "max_skipped": 0.5}, "max_skipped must be an integer from 0"),
        ({"max_skipped": 3}, "argument on_error"),
    ],
)
def test_options_that_make_no_sense(tmp_path, options, message):
    path, _ = in_folder(tmp_path)
    with refused(message):
        open_dataset(path, **options)


def test_arrays_have_no_use_for_it():
    with refused("images that are encoded files; .* has no use for it .argument on_error"):
        open_dataset((IMAGES, LABELS), on_error="skip")


def test_the_list_goes_beside_the_report(tmp_path):
    from reports import flagging

    path, _ = in_folder(tmp_path)
    images = open_dataset(path, on_error="skip")
    report = flagging(images, {})
    report.save(tmp_path / "report", images)
    rows = (tmp_path / "report" / "skipped.csv").read_text().splitlines()
    assert rows[0] == "image,label,class,reason"
    assert len(rows) == 3
    assert type(report).load(tmp_path / "report").dataset.count == M - 2
