"""Datasets by URI: what comes is what the same files on this machine give, also where requests fail now and then."""

from __future__ import annotations

import itertools
import os
import shutil

import fsspec
import numpy as np
import pytest
from real_files import (
    IMAGES,
    LABELS,
    MASK,
    NAMES,
    M,
    files,
    nchw,
    refused,
    write_csv,
    write_parquet,
    write_parquet_folder,
    write_shards,
    write_tar,
)

from bre import InputError, open_dataset
from bre.inputs.datasets import remote_files, remote_path
from bre.inputs.datasets.remote_path import RemotePath


@pytest.fixture
def memory(monkeypatch):
    """fsspec's file system in memory, empty."""
    monkeypatch.setattr(remote_path, "FIRST_WAIT", 1e-4)
    memory = fsspec.filesystem("memory")
    memory.rm("/", recursive=True) if memory.find("/") else None
    yield memory
    memory.rm("/", recursive=True) if memory.find("/") else None


def put(memory, path, name):
    """A file or folder of this machine, at memory://name."""
    memory.put(str(path), f"/{name}", recursive=path.is_dir())


def folder(path):
    write_csv(path / "list.csv")
    for i, label in enumerate(LABELS):
        target = path / "set" / NAMES[label] / ("deep/" * (i % 2)) / f"{i:02}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path / "images" / f"{i:02}.png", target)
    (path / "set" / "ant" / "notes.txt").write_text("x")
    (path / "set" / ".hidden").write_text("x")
    return path / "set"


WRITERS = {
    "tar": (write_tar, "set.tar"),
    "shards": (write_shards, "set"),
    "parquet": (write_parquet, "set.parquet"),
    "parquet folder": (write_parquet_folder, "set"),
    "folder": (lambda path: folder(path.parent), "set"),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_what_lies_elsewhere_is_read_as_what_lies_here(kind, tmp_path, memory, monkeypatch):
    monkeypatch.setattr(remote_files, "PART_BYTES", 100)  # several requests for each file
    write, name = WRITERS[kind]
    here = open_dataset(write(tmp_path / name))
    put(memory, tmp_path / name, name)
    there = open_dataset(f"memory://{name}")
    order = np.random.default_rng(0).integers(0, M, 30)
    assert (there.read(order) == here.read(order)).all()
    assert (there.labels == here.labels).all()
    assert (there.class_names, there.image_shape) == (here.class_names, here.image_shape)
    assert len(there.notes) == len(here.notes)
    assert there.describe(3) == here.describe(3).replace(str(tmp_path), "memory:/")
    assert str(there.file(3)) == str(here.file(3)).replace(str(tmp_path), "memory:/")
    here.keep(MASK, tmp_path / f"here-{name}")
    there.keep(MASK, tmp_path / f"there-{name}")
    if (tmp_path / name).is_dir():
        assert files(tmp_path / f"there-{name}") == files(tmp_path / f"here-{name}")
    else:
        assert (tmp_path / f"there-{name}").read_bytes() == (tmp_path / f"here-{name}").read_bytes()


@pytest.mark.parametrize("name", ["set/train-{0000..0002}.tar", "set/train-*.tar", "set/*", "set"])
def test_several_files_by_one_name(name, tmp_path, memory):
    here = open_dataset(write_shards(tmp_path / "set"))
    put(memory, tmp_path / "set", "set")
    there = open_dataset(f"memory://{name}")
    assert (there.read(np.arange(M)) == here.read(np.arange(M))).all()
    assert (there.labels == here.labels).all()


def test_a_file_uri_is_a_path(tmp_path):
    path = write_tar(tmp_path / "a set.tar")
    assert open_dataset(path.as_uri()).path == path
    assert len(open_dataset(f"file://{tmp_path}/a*.tar")) == M
    with refused("names another machine"):
        open_dataset("file://server/share/set.tar")


@pytest.fixture
def failing(memory, monkeypatch):
    """Makes every n-th request fail, as it may on a network; with n > 1 none of them twice, in whatever order."""
    counter, failed = itertools.count(1), set()

    def fail(every: int, how):
        cat = type(memory).cat_file

        def cat_file(self, path, start=None, end=None, **more):
            asked = (path, start, end)
            if next(counter) % every == 0 and (every == 1 or asked not in failed):
                failed.add(asked)
                return how(cat(self, path, start, end, **more))
            return cat(self, path, start, end, **more)

        monkeypatch.setattr(type(memory), "cat_file", cat_file)

    return fail


def broken(data):
    raise ConnectionResetError("reset by peer")


@pytest.mark.parametrize("how", [broken, lambda data: data[:-1]], ids=["an error", "cut short"])
def test_requests_that_fail_are_sent_again(how, tmp_path, memory, failing, monkeypatch):
    monkeypatch.setattr(remote_files, "PART_BYTES", 100)
    put(memory, write_shards(tmp_path / "set"), "set")
    failing(3, how)
    there = open_dataset("memory://set")
    assert (there.read(np.arange(M)) == nchw(IMAGES)).all()


def test_requests_that_go_on_failing_end_it(tmp_path, memory, failing):
    put(memory, write_tar(tmp_path / "set.tar"), "set.tar")
    failing(1, broken)
    with refused("memory://set.tar cannot be read after 6 tries: ConnectionResetError: reset by peer"):
        open_dataset("memory://set.tar")


def test_a_file_that_changes(tmp_path, memory, monkeypatch):
    monkeypatch.setattr(remote_files, "RECHECK", -1.0)
    put(memory, write_tar(tmp_path / "set.tar"), "set.tar")
    there = open_dataset("memory://set.tar")
    memory.pipe("/set.tar", b"x" * 10240)
    with refused("memory://set.tar has changed since the dataset was opened"):
        there.read(np.arange(M))


def test_what_is_not_there(tmp_path, memory):
    memory.pipe("/a/x.txt", b"x")
    memory.pipe("/split/train/a/x.png", b"x")
    memory.pipe("/split/test/a/x.png", b"x")
    put(memory, write_shards(tmp_path / "set"), "set")
    for uri, message in {
        "memory://no.tar": "memory://no.tar is not there: no such bucket, folder or file",
        "memory://no": "memory://no is not there",
        "memory://a/x.txt": "neither a folder nor .tar nor .parquet",
        "memory://a": "holds no class folders, no .tar and no .parquet",
        "memory://split": "holds the splits test, train",
        "memory://a/*.tar": "no such files: memory://a/\\*.tar",
        "memory://set/train-{0000..0003}.tar": "train-0003.tar is not there",
        "ftp://host/x.tar": "'ftp://host/x.tar': bre reads paths and s3://, gs://",
        "zip::memory://x.tar": "bre reads paths and s3://",
        "https://host/folder": "neither .tar nor .parquet; nothing can be listed over https: name each file",
        "https://host/*.tar": "nothing can be listed over https",
    }.items():
        with refused(message):
            open_dataset(uri)


def test_what_is_missing_is_named(monkeypatch):
    import importlib

    def missing(name):
        raise ModuleNotFoundError(name=name)

    remote_path._file_system.cache_clear()
    monkeypatch.setattr(importlib, "import_module", missing)
    with refused(r"reading s3:// needs s3fs, which is not installed: pip install 'bre-engine\[s3\]'"):
        open_dataset("s3://bucket/set.tar")
    with refused(r"reading gs:// needs gcsfs, which is not installed: pip install 'bre-engine\[gcs\]'"):
        open_dataset("gs://bucket/set.tar")


SECRETS = ("hunter2", "AKIA", "abcdef")


def test_no_message_tells_of_keys():
    path = RemotePath("https://me:hunter2@host/dir/set.tar?X-Amz-Credential=AKIA&X-Amz-Signature=abcdef")
    assert str(path) == "https://host/dir/set.tar"
    assert (path.name, path.suffix) == ("set.tar", ".tar")
    assert "hunter2" in path.uri

    def fail():
        raise ValueError(f"no connection to {path.uri}, secret=AKIA")

    for text in (repr(path), str(path), message_of(path, fail)):
        assert not any(secret in text for secret in SECRETS)


def message_of(path, fail):
    import unittest.mock

    with unittest.mock.patch.object(remote_path, "FIRST_WAIT", 0), pytest.raises(InputError) as caught:
        path.ask(fail)
    assert caught.value.__cause__ is None
    return str(caught.value)


class NoCredentialsError(Exception):
    """As botocore's."""


class Answer(Exception):
    def __init__(self, status):
        super().__init__("answer")
        self.status = status


@pytest.mark.parametrize(
    ("error", "tries", "message"),
    [
        (FileNotFoundError("x"), 1, "is not there: no such bucket, folder or file"),
        (PermissionError("Access Denied"), 1, "access is denied, or the credentials are wrong"),
        (NoCredentialsError(), 1, "no credentials were found where its library looks for them"),
        (Answer(404), 1, "is not there"),
        (Answer(403), 1, "access is denied"),
        (Answer(503), remote_path.TRIES, "after 6 tries: Answer: answer"),
        (Answer(429), remote_path.TRIES, "after 6 tries"),
        (TimeoutError(), remote_path.TRIES, "after 6 tries: TimeoutError"),
    ],
)
def test_what_is_asked_again_and_what_is_not(error, tries, message, monkeypatch):
    monkeypatch.setattr(remote_path, "FIRST_WAIT", 0)
    asked = []

    def fail():
        asked.append(1)
        raise error

    with refused(message):
        RemotePath("memory://x").ask(fail)
    assert len(asked) == tries


def test_no_more_is_kept_than_what_lies_ahead(tmp_path, memory, monkeypatch):
    """A tar that is read to its end leaves a few blocks in memory, not all."""
    monkeypatch.setattr(remote_files, "PART_BYTES", 64)
    memory.pipe("/x", os.urandom(6400))
    file = remote_files.SameRemoteFile(RemotePath("memory://x")).open()
    content = b""
    while data := file.read(50):
        content += data
        assert len(file._blocks) <= 2 + 1 + remote_files.MAX_AHEAD
    assert content == memory.cat("/x")


def test_a_large_image_is_read_by_blocks(tmp_path, memory, monkeypatch):
    monkeypatch.setattr(remote_files, "MAX_WHOLE", 10)
    monkeypatch.setattr(remote_files, "PART_BYTES", 64)
    put(memory, write_tar(tmp_path / "set.tar"), "set.tar")
    assert (open_dataset("memory://set.tar").read(np.arange(M)) == nchw(IMAGES)).all()
