"""A dataset, and verbs that answer what a test says."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from reports import LABELS, M

import bre
import bre.inputs


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "set.npz"
    images = np.random.default_rng(0).integers(0, 256, (M, 5, 7, 3), dtype=np.uint8)
    np.savez(path, images=images, labels=LABELS)
    return path


@pytest.fixture
def images_folder(tmp_path):
    """Twelve files in three class folders, whose names mean something to a dashboard."""
    for i in range(M):
        path = tmp_path / "the set" / ("[b]", "a{0}", "c")[i // 4] / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (7, 5)).save(path)
    return tmp_path / "the set"


@pytest.fixture
def answer(monkeypatch):
    """Make screen and detect record how they were called, and return or raise what the test says."""
    state = SimpleNamespace(result=None, calls=[])

    def verb(*args, **kwargs):
        state.calls.append((args, kwargs))
        if kwargs["progress"]:
            kwargs["progress"]("searching", 0.5)
        if isinstance(state.result, BaseException):
            raise state.result
        return state.result

    monkeypatch.setattr(bre, "screen", verb, raising=False)
    monkeypatch.setattr(bre, "detect", verb, raising=False)
    monkeypatch.setattr(bre.inputs, "open_model", lambda path, **how: (str(path), how))
    return state
