"""Every kind of dataset without its flagged images, the list of what went, and what is refused."""

import csv
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from reports import LABELS, M, flagging

import bre
from bre.errors import InputError
from bre.inputs import open_dataset
from bre.inputs.datasets.imageset import ImageSet
from bre.report import Report
from bre.verbs.cleanse import Removed, _table, cleanse, removed, removed_path

H, W = 5, 7
KEPT = [i for i in range(M) if i not in (1, 4, 5)]


@pytest.fixture
def images():
    """(M, H, W, 3) uint8."""
    return np.random.default_rng(0).integers(0, 256, (M, H, W, 3), dtype=np.uint8)


def make_folder(root, images):
    for i, image in enumerate(images):
        folder = root / f"{'abc'[LABELS[i]]}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i:02}.png")
    return root


def refused(match):
    return pytest.raises(InputError, match=match)


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_a_pair_gives_a_pair(images, kind):
    given = (kind(images), kind(LABELS))
    kept, labels = cleanse(given, flagging(given))
    assert type(kept) is type(given[0])
    np.testing.assert_array_equal(kept, images[KEPT])
    np.testing.assert_array_equal(labels, LABELS[KEPT])
    assert len(given[0]) == M


def test_a_torch_dataset_gives_a_subset(images):
    nchw = torch.from_numpy(images).permute(0, 3, 1, 2)
    dataset = torch.utils.data.TensorDataset(nchw, torch.from_numpy(LABELS))
    clean = cleanse(dataset, flagging(dataset))
    assert isinstance(clean, torch.utils.data.Subset)
    assert clean.dataset is dataset
    assert list(clean.indices) == KEPT


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_keeps_its_other_arrays(images, tmp_path, save):
    beside = {
        "ids": np.arange(M) * 7,
        "names": np.array([f"image {i}" for i in range(M)]),
        "mean": np.float32(0.4),
        "classes": np.array(["a", "b", "c"]),
        "boxes": np.random.default_rng(1).random((M, 2, 3)),
    }
    save(tmp_path / "set.npz", images=images, labels=LABELS, **beside)
    cleanse(tmp_path / "set.npz", flagging(tmp_path / "set.npz"), out=tmp_path / "clean.npz")
    with np.load(tmp_path / "clean.npz") as z:
        assert sorted(z.files) == sorted(["images", "labels", *beside])
        for name, array in beside.items():
            expected = array[KEPT] if array.shape[:1] == (M,) else array
            np.testing.assert_array_equal(z[name], expected)
            assert z[name].dtype == expected.dtype


def test_pickles_with_a_row_for_each_image_are_refused_before_anything_is_written(images, tmp_path):
    np.savez(tmp_path / "set.npz", images=images, labels=LABELS, names=np.array([str(i) for i in range(M)], object))
    report = flagging(tmp_path / "set.npz")
    with refused(r"names\.npy is an object array"):
        cleanse(tmp_path / "set.npz", report, out=tmp_path / "clean.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["set.npz"]


def test_an_npz_gives_an_npz_and_a_list(images, tmp_path):
    np.savez(tmp_path / "set.npz", images=images, labels=LABELS)
    given, out = tmp_path / "set.npz", tmp_path / "clean.npz"
    report = flagging(given)
    assert cleanse(given, report, out=str(out)) == out
    with np.load(out) as z:
        np.testing.assert_array_equal(z["images"], images[KEPT])
        np.testing.assert_array_equal(z["labels"], LABELS[KEPT])
    assert removed_path(out).name == "clean.npz.removed.csv"
    with removed_path(out).open(newline="") as f:
        rows = list(csv.DictReader(f))
    assert rows[0] == {
        "index": "1",
        "image": "image 1",
        "label": "1",
        "class_name": "1",
        "finding": "1",
        "log_odds": "0.5",
        "p_value": "0.001",
    }
    assert [row["index"] for row in rows] == ["1", "4", "5"]
    assert sorted(os.listdir(tmp_path)) == ["clean.npz", "clean.npz.removed.csv", "set.npz"]


def test_a_folder_gives_a_folder_whose_list_names_files(images, tmp_path):
    root = make_folder(tmp_path / "set", images)
    order = [root / "abc"[k] / f"{i:02}.png" for k in range(3) for i in range(M) if LABELS[i] == k]
    flagged = {1: [4, 5], 2: [11]}  # in dataset order, class by class
    clean = cleanse(root, flagging(root, flagged), out=tmp_path / "clean")
    left = sorted(p.relative_to(clean) for p in clean.rglob("*.png"))
    gone = [order[4], order[5], order[11]]
    assert left == sorted(p.relative_to(root) for p in order if p not in gone)
    assert not list(clean.glob("*.csv"))
    with (tmp_path / "clean.removed.csv").open(newline="") as f:
        assert [row["image"] for row in csv.DictReader(f)] == [str(p) for p in gone]
    assert all(p.exists() for p in order)
    assert len(open_dataset(clean)) == M - 3


def test_cifar_batches_give_batches(tmp_path):
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 256, (M, 3073), dtype=np.uint8)
    rows[:, 0] = LABELS
    root = tmp_path / "batches"
    root.mkdir()
    rows.tofile(root / "data_batch_1.bin")
    clean = cleanse(root, flagging(root), out=tmp_path / "clean")
    assert (clean / "data_batch_1.bin").read_bytes() == rows[KEPT].tobytes()


def test_removed_says_which_and_why(images):
    dataset = (images, LABELS)
    assert removed(dataset, flagging(dataset))[0] == Removed(1, "image 1", 1, "1", 1, 0.5, 0.001)
    overlapping = flagging(dataset)
    twice = Report(**{**vars(overlapping), "findings": overlapping.findings * 2})
    assert [(r.index, r.finding) for r in removed(dataset, twice)] == [(1, 1), (4, 1), (5, 2)]
    assert len(cleanse(dataset, twice)[0]) == M - 3


def test_a_clean_report_removes_nothing(images):
    dataset = (images, LABELS)
    assert removed(dataset, flagging(dataset, {})) == []
    np.testing.assert_array_equal(cleanse(dataset, flagging(dataset, {}))[0], images)


def test_a_saved_report_serves_as_well(images, tmp_path):
    dataset = (images, LABELS)
    flagging(dataset).save(tmp_path / "report")
    assert len(cleanse(dataset, tmp_path / "report")[0]) == M - 3
    assert len(cleanse(dataset, str(tmp_path / "report"))[0]) == M - 3


def test_a_report_on_another_dataset(images):
    report = flagging((images, LABELS))
    with refused("another dataset: 12 images of 3x5x7 .arrays., this one has 6 of 3x5x7"):
        cleanse((images[:6], LABELS[:6]), report)
    with refused("their labels must be the same"):
        cleanse((images, LABELS[::-1].copy()), report)


def test_a_report_that_flags_images_of_another_class(images):
    dataset = (images, LABELS)
    with refused("flags image 2 in class 1, but its label is 2"):
        cleanse(dataset, flagging(dataset, {1: [1, 2]}))


def test_what_is_no_report(images, tmp_path):
    with refused("the path of a saved one, got NoneType"):
        cleanse((images, LABELS), None)
    with refused("no such report"):
        cleanse((images, LABELS), tmp_path / "nothing")


def test_where_it_cannot_be_written(images, tmp_path):
    given = tmp_path / "set.npz"
    np.savez(given, images=images, labels=LABELS)
    report = flagging(given)
    with refused("give a new path .*argument out"):
        cleanse(given, report)
    with refused("in memory"):
        cleanse((images, LABELS), flagging((images, LABELS)), out=tmp_path / "clean")
    with refused("set.npz exists already"):
        cleanse(given, report, out=given)
    with refused("does not exist"):
        cleanse(given, report, out=tmp_path / "no" / "clean.npz")
    (tmp_path / "there").touch()
    with refused("exists already"):
        cleanse(given, report, out=tmp_path / "there")
    (tmp_path / "new.npz.removed.csv").touch()
    with refused("new.npz.removed.csv exists already"):
        cleanse(given, report, out=tmp_path / "new.npz")
    assert sorted(os.listdir(tmp_path)) == ["new.npz.removed.csv", "set.npz", "there"]


def test_out_inside_the_folder_would_become_part_of_it(images, tmp_path):
    root = make_folder(tmp_path / "set", images)
    with refused("lies inside the dataset"):
        cleanse(root, flagging(root, {}), out=root / "clean")


def test_every_image_flagged(images):
    dataset = (images, LABELS)
    flagged = {k: np.flatnonzero(k == LABELS) for k in range(3)}
    report = flagging(dataset, flagged)
    with refused(r"all 4 images of class 0 '0' \(and 2 more classes\) are flagged, none would be left"):
        cleanse(dataset, report)
    with refused("keeps no image at all"):
        cleanse(dataset, report, allow_empty_class=True)


def test_a_class_is_emptied_only_on_demand(images, tmp_path):
    np.savez(tmp_path / "set.npz", images=images, labels=LABELS)
    given = tmp_path / "set.npz"
    report = flagging(given, {1: [1, 4, 7, 10]})
    with refused("all 4 images of class 1 '1' are flagged, none would be left: .* .argument allow_empty_class"):
        cleanse(given, report, out=tmp_path / "clean.npz")
    assert os.listdir(tmp_path) == ["set.npz"]
    cleanse(given, report, out=tmp_path / "clean.npz", allow_empty_class=True)
    with np.load(tmp_path / "clean.npz") as z:
        assert set(z["labels"]) == {0, 2}
    last = {2: np.flatnonzero(LABELS == 2)}
    with refused("class 2 '2' are flagged"):
        cleanse((images, LABELS), flagging((images, LABELS), last))
    labels = LABELS + (LABELS == 2)  # no image has label 2: nothing is emptied there
    assert len(cleanse((images, labels), flagging((images, labels), {1: [1, 4]}))[0]) == M - 2


def test_properties_are_left_alone_unless_asked_for(images):
    dataset = (images, LABELS)
    report = flagging(dataset)
    known = replace(report.findings[1], kind="property")
    report = replace(report, findings=(report.findings[0], known))
    assert [row.index for row in removed(dataset, report)] == [1, 4]
    assert len(cleanse(dataset, report)[0]) == M - 2
    assert [(row.index, row.finding) for row in removed(dataset, report, properties=True)] == [(1, 1), (4, 1), (5, 2)]
    assert len(cleanse(dataset, report, properties=True)[0]) == M - 3
    moved = images.copy()
    moved[5] = 0
    with refused("another dataset"):  # also where only a property is concerned
        cleanse((moved, LABELS), report)


def test_interrupted_leaves_nothing(images, tmp_path, monkeypatch):
    given = tmp_path / "set.npz"
    np.savez(given, images=images, labels=LABELS)
    report = flagging(given)

    def interrupted(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(ImageSet, "keep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cleanse(given, report, out=tmp_path / "clean.npz")
    assert os.listdir(tmp_path) == ["set.npz"]


STOPPED = """
import os, sys
from pathlib import Path
import bre
given, report, out, names = sys.argv[1:]
replace, rename, left = Path.replace, Path.rename, [int(names)]
def stop_after(change):
    def changed(self, to):
        if not left[0]:
            os.kill(os.getpid(), 9)
        left[0] -= 1
        return change(self, to)
    return changed
Path.replace, Path.rename = stop_after(replace), stop_after(rename)
bre.cleanse(given, report, out=out)
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("names", [0, 1, 2])
def test_a_killed_run_is_repaired_by_the_next(images, tmp_path, names):
    """Killed before the set and its list have their names, between the two, and after."""
    given, out = tmp_path / "set.npz", tmp_path / "clean.npz"
    np.savez(given, images=images, labels=LABELS)
    report = flagging(given).save(tmp_path / "report")
    environment = {**os.environ, "PYTHONPATH": str(Path(bre.__file__).parents[1])}
    killed = subprocess.run([sys.executable, "-c", STOPPED, given, report, out, str(names)], env=environment)
    assert killed.returncode == -signal.SIGKILL
    assert removed_path(out).exists() == (names > 0)  # the list is never missing where the set is there
    assert out.exists() == (names > 1)
    if names == 1:
        with refused("clean.npz.removed.csv exists"):
            cleanse(given, flagging(given, {1: [1]}), out=out)
    if names < 2:
        assert cleanse(given, report, out=out) == out
    assert sorted(os.listdir(tmp_path)) == ["clean.npz", "clean.npz.removed.csv", "report", "set.npz"]
    with removed_path(out).open(newline="") as f:
        assert len(list(csv.DictReader(f))) == 3


def test_the_list_is_harmless_in_a_spreadsheet_and_a_terminal(images):
    names = ("=1+1", "a\x1b[31mb", "-x\udcff\u202e")
    dataset = open_dataset((images, LABELS))
    dataset.class_names = names
    report = flagging(dataset, {0: [0], 1: [1], 2: [2]})
    rows = removed(dataset, report)
    assert [row.class_name for row in rows] == list(names)
    table = list(csv.reader(_table([replace(row, log_odds=-1.0) for row in rows]).decode().splitlines()))
    assert [row[3] for row in table[1:]] == ["'=1+1", "a\\x1b[31mb", "'-x\\udcff\\u202e"]
    assert [row[5] for row in table[1:]] == ["-1.0"] * 3


def test_other_images_where_the_flagged_ones_were(images):
    report, moved = flagging((images, LABELS)), images.copy()
    moved[[4, 7]] = images[[7, 4]]  # of one class
    with refused("another dataset"):
        cleanse((moved, LABELS), report)
