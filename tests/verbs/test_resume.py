"""Runs that are killed and go on, and runs on other processes: the report's bytes are those of one that was left alone,
and nothing that was done is done again."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import synthetic
import torch

import bre
from bre import InputError, attacks
from bre.views import class_search

SHAPE = (3, 12, 12)
RUN = """
import sys, numpy as np, bre, torch
if __name__ == "__main__":
    torch.set_num_threads(1)
    bre.screen(sys.argv[1], workdir=sys.argv[2]).save(sys.argv[3])
"""


@pytest.fixture(scope="module")
def planted():
    images, labels = synthetic.labelled(0, 4, 110, SHAPE)
    made = attacks.plant(images, labels, attacks.chessboard(SHAPE, 6 / 255), target=1, count=15, seed=0)
    return made.images, made.labels


def content(report: bre.Report, folder: Path) -> tuple[bytes, bytes]:
    """What a saved report holds, but for the seconds."""
    report.save(folder)
    return saved(folder)


def saved(folder: Path) -> tuple[bytes, bytes]:
    return (folder / "report.json").read_bytes(), (folder / "arrays.npz").read_bytes()


def finished(folder: Path) -> dict[str, tuple[int, int]]:
    """By task, the file that it left."""
    files = folder.glob("*/*.safetensors")
    return {str(file.relative_to(folder)): (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}


def test_a_killed_run_goes_on(planted, tmp_path):
    data, run = tmp_path / "data.npz", tmp_path / "run"
    np.savez(data, images=planted[0], labels=planted[1])
    expected = content(bre.screen(data), tmp_path / "expected")
    before: dict[str, tuple[int, int]] = {}
    for tasks in (1, 3):
        process = subprocess.Popen([sys.executable, "-c", RUN, data, run, tmp_path / "killed"])
        while process.poll() is None and len(finished(run)) < tasks:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        after = finished(run)
        assert before.items() <= after.items()
        before = after
    assert content(bre.screen(data, workdir=run), tmp_path / "resumed") == expected
    assert before.items() <= finished(run).items()
    before = finished(run)
    assert content(bre.screen(data, workdir=run, alpha=0.06), tmp_path / "again")[1] == expected[1]
    assert finished(run) == before


def test_processes_and_a_callers_own_threads_answer_alike(planted, tmp_path):
    expected = content(bre.screen(planted), tmp_path / "expected")
    assert content(bre.screen(planted, jobs=2, workdir=tmp_path / "run"), tmp_path / "processes") == expected
    with ThreadPoolExecutor(2) as pool:
        assert content(bre.screen(planted, executor=pool.submit), tmp_path / "threads") == expected


def test_a_class_in_blocks_is_resumed_too(planted, tmp_path, monkeypatch):
    monkeypatch.setattr(class_search, "MAX_SEARCH", 60)
    expected = content(bre.screen(planted), tmp_path / "expected")
    assert content(bre.screen(planted, workdir=tmp_path / "run"), tmp_path / "first") == expected
    before = finished(tmp_path / "run")
    assert content(bre.screen(planted, workdir=tmp_path / "run"), tmp_path / "second") == expected
    assert finished(tmp_path / "run") == before


def test_detect_goes_on_and_knows_the_model(planted, tmp_path):
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten()]
    model, run = torch.nn.Sequential(*layers, torch.nn.Linear(32, 4)).eval(), tmp_path / "run"
    expected = content(bre.detect(model, planted), tmp_path / "expected")
    bre.screen(planted, workdir=run)
    before = finished(run)
    assert content(bre.detect(model, planted, workdir=run), tmp_path / "first") == expected
    assert before.items() < finished(run).items()
    before = finished(run)
    assert content(bre.detect(model, planted, workdir=run), tmp_path / "second") == expected
    assert finished(run) == before
    model[-1].weight.data *= 2
    assert content(bre.detect(model, planted, workdir=run), tmp_path / "other") != expected
    assert len(finished(run)) > len(before)


class _Unsendable(torch.utils.data.Dataset):
    def __init__(self, pair):
        self.pair, self.hook = pair, lambda: None

    def __len__(self):
        return len(self.pair[1])

    def __getitem__(self, index):
        return self.pair[0][index], int(self.pair[1][index])


def test_what_cannot_be_done_is_refused(planted, tmp_path):
    with pytest.raises(InputError, match="cannot be sent to other processes"):
        bre.screen(_Unsendable(planted), jobs=2)
    with pytest.raises(InputError, match="expected a path of a folder"):
        bre.screen(planted, workdir=3)
    with pytest.raises(InputError, match="jobs must be an integer from 1"):
        bre.screen(planted, jobs=0)
    bre.screen(planted, workdir=tmp_path / "run")
    with pytest.raises(InputError, match="another dataset"):
        bre.screen((planted[0] // 2, planted[1]), workdir=tmp_path / "run")
    folder = tmp_path / "set" / "a"
    folder.mkdir(parents=True)
    images = bre.open_dataset(planted)
    images.path = tmp_path / "set"
    with pytest.raises(InputError, match="inside the dataset"):
        bre.screen(images, workdir=tmp_path / "set" / "run")
