"""A short run of `fuzzing`, and hypothesis at the doors that take values and not files."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import signal
import sys
import warnings

import fuzzing
import fuzzing_doors
import mutations
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bre.errors import InputError
from bre.inputs import open_dataset, open_model

INPUTS = 25  # of each door; `python tests/fuzzing.py` runs as many as one likes, isolated from crashes

HOSTILE = {"images": 1, "npz": 1, "cifar": 1, "torchscript": 1, "checkpoint": 4}  # of the corpus, refused as it is

quickly = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def doors(tmp_path_factory):
    found = fuzzing_doors.doors()
    fuzzing_doors.fill(found, tmp_path_factory.mktemp("corpus"))
    sys.addaudithook(fuzzing._audit)
    return found


@pytest.mark.parametrize("name", fuzzing_doors.doors())
def test_damaged_and_hostile_files_are_read_or_refused(doors, name, tmp_path):
    if name not in doors:
        pytest.skip(f"the library that writes {name} is not installed")
    outcomes = set()
    for index in range(INPUTS):
        folder = tmp_path / str(index)
        folder.mkdir()
        outcomes.add(fuzzing.run_one(doors[name], name, 0, index, folder))
    assert "refused" in outcomes


@pytest.mark.parametrize("name", fuzzing_doors.doors())
def test_the_corpus_itself_is_read(doors, name, tmp_path):
    """Or the mutations would all end at one and the same check."""
    if name not in doors:
        pytest.skip(f"the library that writes {name} is not installed")
    door, read, refused = doors[name], 0, 0
    for i, files in enumerate(door.files):
        for file, data in files.items():
            (tmp_path / str(i) / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / str(i) / file).write_bytes(data)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                door.read(tmp_path / str(i) / door.path)
            read += 1
        except InputError:
            refused += 1
    assert read
    assert refused == HOSTILE.get(name, 0)


def test_what_a_reader_must_not_do_is_seen(tmp_path):
    """The net has no hole: a reader that writes elsewhere, starts a program or runs the file's code is caught."""
    sys.addaudithook(fuzzing._audit)
    (tmp_path / "in").mkdir()

    def fails(read, match):
        door = fuzzing_doors.Door("x", read, {"*": mutations.as_text})
        door.files = [{"x": b"abc"}]
        with pytest.raises((AssertionError, ValueError), match=match):
            fuzzing.run_one(door, "x", 0, 0, tmp_path / "in")

    fails(lambda path: (tmp_path / "outside").write_text("x"), "open .*outside")
    fails(lambda path: (tmp_path / "outside").unlink(), "os.remove .*outside")
    fails(lambda path: __import__("os").system("true"), "os.system")
    fails(lambda path: setattr(sys, "bre_was_run", True), "code of the file was run")
    del sys.bre_was_run
    fails(lambda path: int("x"), "invalid literal")


class Child:
    """A process that ended in some way."""

    def __init__(self, exitcode):
        self.exitcode = exitcode

    def join(self):
        pass


@pytest.mark.parametrize(
    ("status", "told"),
    [(-signal.SIGSEGV, "crashed with status -11"), (-signal.SIGPROF, "ran for more than 30 seconds"), (None, "slept")],
)
def test_crashes_and_hangs_are_booked(status, told, monkeypatch):
    monkeypatch.setattr(fuzzing, "WAITED", 0.1)
    here, there = multiprocessing.Pipe(duplex=False)
    for message in (("start", "npz", 3), ("end", "read", None), ("start", "npz", 4)):
        there.send(message)
    if status is not None:
        there.close()
    state = {"next": {}, "counts": {}, "failures": []}
    assert not fuzzing._watch(Child(status), here, state, lambda state: None, float("inf"))
    assert state["next"] == {"npz": 5}, "the next child goes on behind it"
    assert state["counts"] == {"npz": {"read": 1, "failed": 1}}
    (failure,) = state["failures"]
    assert (failure["door"], failure["index"]) == ("npz", 4)
    assert told in failure["what"]
    here.close()
    there.close()


def values(*more):
    simple = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5)
    return st.recursive(
        simple | st.sampled_from([*more, np.int64(3), np.float32(1), np.zeros(2), torch.ones(2)]),
        lambda v: st.lists(v, max_size=3) | st.tuples(v, v) | st.dictionaries(st.text(max_size=3), v, max_size=2),
        max_leaves=5,
    )


def read_or_refused(data, **options):
    try:
        images = open_dataset(data, **options)
        block = images.read(np.arange(min(len(images), 3)))
    except InputError:
        return
    assert block.dtype == np.uint8
    assert block.shape[1:] == images.image_shape
    assert len(images.labels) == len(images)


IMAGES = np.arange(6 * 5 * 4 * 3, dtype=np.uint8).reshape(6, 5, 4, 3)


DTYPES = ["?", "b", "B", "h", "i", "q", "Q", "e", "f", "d", "g", "F", "S3", "U2", "O", "M8[s]", "m8[s]", "V4"]


@quickly
@given(
    shape=st.lists(st.integers(0, 6), max_size=5),
    dtype=st.sampled_from(DTYPES),
    labels=values() | st.lists(st.integers(-1, 3), max_size=6) | st.just(np.arange(6) % 2),
    fill=st.sampled_from([0, 1, -1, 2, 255, float("nan"), float("inf")]),
    tensor=st.booleans(),
)
def test_any_arrays(shape, dtype, labels, fill, tensor):
    images = np.zeros(shape, dtype)
    if images.dtype.kind in "iufcb":
        with np.errstate(all="ignore"):
            images[...] = np.asarray(fill, float).astype(images.dtype)
    if tensor and dtype in "?bBhiqefd":
        images = torch.from_numpy(images)
    read_or_refused((images, labels))


@quickly
@given(data=values(IMAGES, (IMAGES, [0, 1] * 3), range(3)))
def test_any_value_as_a_dataset(data):
    read_or_refused(data)


@quickly
@given(
    resize=st.none() | values((3, 3)),
    convert=st.none() | st.sampled_from(["RGB", "L"]) | values(),
    columns=st.none() | values(),
    layout=st.none() | st.sampled_from(["NHWC", "NCHW"]) | values(),
)
def test_any_options(resize, convert, columns, layout):
    read_or_refused((IMAGES, [0, 1] * 3), resize=resize, convert=convert, columns=columns, layout=layout)


@quickly
@given(
    items=st.lists(st.tuples(values(*IMAGES), values(0, 1)) | values(), max_size=4),
    resize=st.sampled_from([None, (2, 3)]),
)
def test_any_items_of_a_torch_dataset(items, resize):
    read_or_refused(items, resize=resize)


@quickly
@given(text=st.text(max_size=60))
def test_any_text_as_a_csv_or_a_path(text, tmp_path):
    (tmp_path / "set.csv").write_text("path,label\n" + text, encoding="utf-8", newline="")
    read_or_refused(tmp_path / "set.csv")
    read_or_refused(str(tmp_path) + "/" + text)


@quickly
@given(state=values())
def test_any_state_of_a_hugging_face_folder(state, tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "state.json").write_text(json.dumps({"_data_files": state}, default=str))
    read_or_refused(tmp_path)


@quickly
@given(model=values(), mean=values(), std=values(), size=values(), arch=values())
def test_any_options_of_a_model(model, mean, std, size, arch):
    for given_model in (model, torch.nn.Flatten()):
        with contextlib.suppress(InputError):
            open_model(given_model, mean=mean, std=std, input_size=size, arch=arch)
