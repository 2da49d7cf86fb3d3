from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from bre import InputError, demo
from bre.attacks import chessboard, plant


def test_demo_finds_the_truth():
    lines: list[str] = []
    report = demo.run(seed=0, echo=lines.append)

    train, _ = demo.digits(0)
    target = int(np.random.default_rng(0).integers(10))
    pattern = chessboard(train.images.shape[1:], demo.AMPLITUDE)
    count = round(demo.POISONED * len(train.labels))
    truth = plant(train.images, train.labels, pattern, target=target, count=count, seed=0).poisoned
    found = np.isin(np.arange(len(truth)), report.indices)
    assert report.poisoned
    assert [finding.target for finding in report.findings] == [target]
    assert found[truth].mean() >= 0.95
    assert found[~truth].mean() <= 0.005

    table = {line[:24].strip(): line[24:].split() for line in lines[-2:]}
    accuracy, success = ([float(cell.rstrip("%")) for cell in table[row]] for row in ("accuracy", "attack success"))
    assert min(accuracy) >= 90
    assert success[0] >= 90
    assert success[1] <= 10


def test_training_and_test_images_differ_and_follow_the_seed():
    train, test = demo.digits(3)
    again, _ = demo.digits(3)
    other, _ = demo.digits(4)
    assert train.images.dtype == np.uint8
    assert train.images.shape == (demo.COPIES * demo.TRAIN_DIGITS, 3, demo.SIDE, demo.SIDE)
    assert test.images.shape == (1797 - demo.TRAIN_DIGITS, 3, demo.SIDE, demo.SIDE)
    assert np.array_equal(train.images, again.images)
    assert not np.array_equal(train.images, other.images)
    seen = {image.tobytes() for image in train.images}
    assert not any(image.tobytes() in seen for image in test.images)


def test_training_leaves_the_callers_random_state(monkeypatch):
    monkeypatch.setattr(demo, "EPOCHS", 1)
    train, _ = demo.digits(0)
    state = torch.random.get_rng_state()
    weights = [demo.fit(train.images[:128], train.labels[:128], seed=1).state_dict()["output.weight"] for _ in range(2)]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(*weights)


def test_without_its_images_the_demo_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(InputError, match=r"scikit-learn.* not installed: pip install 'bre-engine\[demo\]'"):
        demo.run()
