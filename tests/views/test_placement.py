"""The images' view on a device, without one: host tensors take the device's way, and a double stands for its link."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import synthetic
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import bre
from bre import InputError, attacks, ops
from bre.inputs import open_dataset
from bre.method import clusters, codes, levels, uploads, whitening
from bre.method.uploads import Link, Upload
from bre.views import class_search
from bre.views.backgrounds import Backgrounds
from bre.views.images import ImageEvidence, search_images
from bre.views.passes import Scored, Template
from bre.views.placement import MIN_DEVICE_MEMORY, Placement, check_memory

HOST = torch.device("cpu")
SHAPE = (3, 12, 12)


class Recorder(Link):
    """Copies when it is told to, and writes down what it was asked; nothing else makes the host wait."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.copies = 0

    def pinned(self, size: int) -> torch.Tensor:
        self.asked.append(("pinned", size))
        return torch.zeros(size, dtype=torch.uint8)

    def fetch(self, host: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, Any]:
        self.copies += 1
        self.asked.append(("fetch", self.copies))
        return host.clone(), self.copies

    def wait(self, event: Any) -> None:
        self.asked.append(("wait", event))


class NoWaiting(TorchDispatchMode):
    """Refuses what would make the host wait for a device."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal")

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert function.overloadpacket.__name__ not in self.WAITS, f"{function} waits for the device"
        return function(*args, **(kwargs or {}))


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Host memory is taken for a device's."""
    recorder = Recorder()
    for module in (uploads, codes, class_search):
        monkeypatch.setattr(module, "in_host_memory", lambda device: False)
    for name in ("pinned", "fetch", "wait"):
        monkeypatch.setattr(Link, name, lambda self, *given, name=name: getattr(recorder, name)(*given))
    return recorder


def planted() -> tuple[attacks.Poisoned, ImageEvidence]:
    images, labels = synthetic.labelled(6, 6, 120, SHAPE)
    made = attacks.plant(images, labels, attacks.chessboard(SHAPE, 8 / 255), target=1, count=40, seed=0)
    return made, view(made)


def view(made: Any) -> ImageEvidence:
    images = open_dataset((made.images, made.labels))
    return search_images(images, seed=0, backend="auto", progress=lambda *_: None)


def flagged(found: ImageEvidence) -> set[int]:
    carriers = found.carriers(1, "image_statistic")
    return set(carriers.members[carriers.flagged].tolist())


def test_the_host_waits_for_the_copy_two_blocks_ago_alone(elsewhere):
    link = Recorder()
    upload = Upload(torch.device("cuda"), link)
    blocks = [np.full((n, 2), n, np.uint8) for n in (3, 3, 3, 2, 5)]
    for block in blocks:
        assert np.array_equal(upload(block).numpy(), block)
    assert link.asked == [
        *[("pinned", 6), ("fetch", 1), ("pinned", 6), ("fetch", 2)],
        *[("wait", 1), ("fetch", 3), ("wait", 2), ("fetch", 4)],
        *[("wait", 3), ("pinned", 10), ("fetch", 5)],
    ]


def test_in_host_memory_nothing_is_copied():
    block = np.zeros((2, 3), np.uint8)
    assert np.shares_memory(Upload(HOST, Recorder())(block).numpy(), block)


def test_a_device_gives_the_same_verdict(elsewhere, monkeypatch):
    """Whole searches, their images flagged; the float path of a tile too large to be whitened from bytes as well."""
    made, there = planted()
    assert elsewhere.copies >= 6  # a block for each class
    monkeypatch.undo()
    here = view(made)
    np.testing.assert_allclose(there.statistics[0].values, here.statistics[0].values, rtol=1e-3)
    assert flagged(there) == flagged(here)
    assert flagged(here) >= set(np.flatnonzero(made.poisoned).tolist()[:30])


def whitening_of(shape: tuple[int, int, int], device: torch.device = HOST) -> whitening.Whitening:
    level = levels.levels(shape)[0]
    images = np.random.default_rng(0).integers(0, 256, (80, *shape), dtype=np.uint8)
    moments = whitening.TileMoments(level, 4, device)
    moments.add(images, np.zeros(80, np.int64), np.arange(80) % 2, np.random.default_rng(1))
    return moments.whitening()


@pytest.mark.parametrize("shape", [SHAPE, (3, 20, 20), (2, 41, 33)], ids=str)
def test_nothing_waits_inside_a_block(elsewhere, shape):
    """Codes and scores: what a grid needs is there after the first block."""
    made = whitening_of(shape)
    images = np.random.default_rng(2).integers(0, 256, (9, *shape), dtype=np.uint8)
    out, upload = ops.Codes.empty(9, shape, made.level.tile), Upload(HOST)
    scored = Scored(Template(torch.randn(made.level.size, dtype=torch.float64), 0.5), "reference")
    made.encode(images[:3], out, 0, upload)
    with NoWaiting():
        made.encode(images[3:6], out, 3, upload)
        made.encode(images[6:], out, 6, upload)
        scored.add(images)
    assert scored.down().shape == (9,)


@pytest.mark.parametrize("shape", [SHAPE, (3, 20, 20)], ids=str)
def test_a_device_codes_as_the_host_does(elsewhere, monkeypatch, shape):
    images = np.random.default_rng(2).integers(0, 256, (9, *shape), dtype=np.uint8)
    made, results = whitening_of(shape), []
    for _ in range(2):
        out = ops.Codes.empty(9, shape, made.level.tile)
        made.encode(images, out)
        results.append(out)
        monkeypatch.undo()
    assert all(map(torch.equal, *results))


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_blocks_that_do_not_fit_are_split(elsewhere, monkeypatch, rows):
    made, images = whitening_of(SHAPE), np.random.default_rng(2).integers(0, 256, (40, *SHAPE), dtype=np.uint8)
    want = class_search.encoded(made, images, np.arange(40))
    encode = whitening.Whitening.encode

    def small(self: Any, block: np.ndarray, *given: Any) -> None:
        if len(block) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory")
        encode(self, block, *given)

    monkeypatch.setattr(whitening.Whitening, "encode", small)
    got = class_search.encoded(made, images, np.arange(40))
    assert all(map(torch.equal, got.units, want.units))
    monkeypatch.setattr(whitening.Whitening, "encode", lambda *_: (_ for _ in ()).throw(RuntimeError("another error")))
    with pytest.raises(RuntimeError, match="another error"):
        class_search.encoded(made, images, np.arange(40))


def test_a_class_that_does_not_fit_is_compared_in_host_memory(elsewhere, monkeypatch):
    made, want = planted()
    tried = []
    look = clusters.search

    def full(levels: Any, seed: int = 0) -> Any:
        tried.append(len(levels[0]))
        if len(tried) % 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return look(levels, seed)

    monkeypatch.setattr(clusters, "search", full)
    monkeypatch.setattr("bre.runs.threads.MAX_WORKERS", 1)
    placement = Placement(HOST)
    images = open_dataset((made.images, made.labels))
    found = search_images(images, seed=0, backend="auto", progress=lambda *_: None, placement=placement)
    assert len(placement.spilled) == 6
    assert np.nanargmax(found.statistics[0].values) == np.nanargmax(want.statistics[0].values) == 1


def test_notes_tell_the_device_and_what_was_split():
    assert Placement(HOST).notes == ()
    placement = Placement(torch.device("cuda:1"))
    assert placement.notes == ("the images' part was computed on cuda:1; images were decoded on the CPU",)
    placement.spilled.append("80 images were compared in host memory")
    assert placement.notes[1] == (
        "cuda:1 ran out of memory: 1 times work was split (80 images were compared in host memory)"
    )


def test_bytes_of_a_device_are_bounded(monkeypatch):
    class Properties:
        total_memory = 2**32

    asked: list[float] = []
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties())
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, device: asked.append(share))
    with Placement(torch.device("cuda"), 2**30).bounded():
        assert asked == [0.25]
    assert asked == [0.25, 1.0]
    with (
        pytest.raises(InputError, match=r"cuda has 4294967296 bytes, got 8589934592"),
        Placement(torch.device("cuda"), 2**33).bounded(),
    ):
        pass


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"device": "tpu"}, "device must be 'cpu', 'cuda' or 'cuda:N', got 'tpu'"),
        ({"device_memory": 2**30}, "expected with a CUDA device"),
    ],
)
def test_bad_places(given, message):
    with pytest.raises(InputError, match=message):
        bre.screen((np.zeros((4, 1, 4, 4), np.uint8), np.arange(4) % 2), **given)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_device_that_is_not_there_is_told_before_any_work(monkeypatch):
    monkeypatch.setattr("bre.verbs.screen.open_dataset", lambda *_, **__: pytest.fail("it went to work"))
    with pytest.raises(InputError, match="there is no cuda here"):
        bre.screen((np.zeros((4, 1, 4, 4), np.uint8), np.arange(4) % 2), device="cuda")


@pytest.mark.parametrize("more", [{"workdir": "run"}, {"jobs": 2}, {"executor": "ray"}, {"executor": print}], ids=str)
def test_a_device_is_used_by_this_process_alone(monkeypatch, tmp_path, more):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bre.verbs.screen.usable", torch.device)
    monkeypatch.setattr("bre.verbs.screen.open_dataset", lambda *_, **__: pytest.fail("it went to work"))
    message = r"compared on cuda by this process alone.*arguments? device, workdir, executor, jobs"
    with pytest.raises(InputError, match=message):
        bre.screen((np.zeros((4, 1, 4, 4), np.uint8), np.arange(4) % 2), device="cuda", **more)
    assert not list(tmp_path.iterdir())


def test_blocks_of_a_large_class_stay_in_host_memory():
    """On the meta device, for which nothing could be computed: what its blocks are whitened with is the host's."""
    made = whitening_of((3, 40, 40))
    there = dataclasses.replace(made, device=torch.device("meta"))
    gathered = Backgrounds([], np.zeros(2, np.int64), np.zeros(0, np.int64), {0: [there]})
    (host,) = gathered.in_host_memory(1)
    assert gathered.without(1) == [there]
    assert host.device == HOST
    assert gathered.in_host_memory(0)[0] is host
    images = np.random.default_rng(2).integers(0, 256, (60, 3, 40, 40), dtype=np.uint8)
    assert class_search.encoded(host, images, np.arange(60)).device == HOST
    assert made.on(HOST) is made


def test_a_note_tells_that_large_classes_stay_in_host_memory(monkeypatch):
    monkeypatch.setattr(class_search, "MAX_SEARCH", 100)
    images, labels = synthetic.labelled(6, 3, 120, SHAPE)
    found = view(SimpleNamespace(images=images, labels=labels))
    assert any("searched in blocks" in note and "host memory" not in note for note in found.notes)
    monkeypatch.setattr("bre.views.images.in_host_memory", lambda device: False)
    assert any("each image in one; in host memory, not on the device" in note for note in found.notes)


@pytest.mark.parametrize("bad", [0, MIN_DEVICE_MEMORY - 1, 1e9, True])
def test_bad_memory(bad):
    with pytest.raises(InputError, match="expected bytes, 268435456 at least"):
        check_memory(bad, torch.device("cuda"))


@pytest.mark.parametrize("shape", [(3, 40, 40), (3, 20, 20)], ids=str)
def test_devices_are_not_mixed(monkeypatch, shape):
    """On the meta device, whose tensors do not mix with the host's: codes of a block, and what is made of them."""
    meta = torch.device("meta")
    monkeypatch.setattr(Link, "pinned", lambda self, size: torch.empty(size, dtype=torch.uint8))
    monkeypatch.setattr(Link, "fetch", lambda self, host, device: (host.to(device), None))
    made = dataclasses.replace(whitening_of(shape), device=meta)
    coded = ops.Codes.empty(30, shape, made.level.tile, meta)
    made.encode(np.zeros((30, *shape), np.uint8), coded)
    held = codes.Codes.of(coded, made.level, np.arange(0, 30, 2))
    own, kept = held.own_and_whole(made.level.windows[0])
    between, rows = torch.empty(15, 15, device=meta), torch.arange(15, device=meta)
    products = clusters.Products(between, own, kept, rows)
    some = [codes.inner_products(held.units[0], rows[:7], torch.empty(7, 15, dtype=torch.int32, device=meta))]
    some += [window for _, window in held.windows(np.arange(15))]
    some += [own, kept, clusters.left_out(torch.ones(4, 15, device=meta), products), *clusters.axes(between, 3)]
    assert {each.device for each in some} == {meta}
