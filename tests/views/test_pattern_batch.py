"""The batch of patterns on its device: what is captured, replayed, compacted, split, and that nobody waits in between.

The device is the CPU behind a double that records what it is asked for, so that all decisions of the host are seen.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import cuda_emulation
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from bre import ops
from bre.errors import InputError
from bre.inputs import Classifier
from bre.ops import _check, cuda
from bre.views.cuda_graph import WARM_UP, CudaStream, GraphedStep, Stream, out_of_memory, stream_of
from bre.views.pattern_batch import MAX_ROWS, PI, PatternBatch

K, N, SHAPE = 4, 12, (3, 8, 8)
STEPS = 12  # after which some patterns have won, and some go on


class NoWaiting(TorchDispatchMode):
    """Refuses every operation that would make the host wait for an accelerator."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal")

    def __enter__(self) -> NoWaiting:
        self._patch = pytest.MonkeyPatch()
        self._patch.setattr(_check, "values", lambda *_: None)  # ops look at values in host memory only
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._patch.undo()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert function.overloadpacket.__name__ not in self.WAITS, f"{function} waits for the device"
        return function(*args, **(kwargs or {}))


class Recorder(Stream):
    """A device that captures by running the work on what `batch` will then have again, and replays by running it."""

    def __init__(self, refuses: str | None = None):
        self.captures, self.done, self.refuses = True, False, refuses
        self.calls: list[str] = []
        self.batch: PatternBatch | None = None

    @contextlib.contextmanager
    def side_stream(self) -> Iterator[None]:
        self.calls.append("plain")
        yield

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        self.calls.append("capture")
        if self.refuses is not None:
            raise RuntimeError(self.refuses)
        assert self.batch is not None
        state = [*answers(self.batch), self.batch.finite]
        before = [x.clone() for x in state]
        with NoWaiting():
            work()
        for x, was in zip(state, before, strict=True):
            x.copy_(was)

        def replay() -> None:
            self.calls.append("replay")
            counted = classifier.forward_images, classifier.backward_images
            with NoWaiting():
                work()
            classifier.forward_images, classifier.backward_images = counted  # a graph runs no Python

        classifier = self.batch.classifier
        return replay

    def release(self) -> None:
        self.calls.append("release")


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(54, K)).eval()


def classifier_of(module: nn.Module, precision: str = "float32") -> Classifier:
    classifier = Classifier(module, mean=(0.5,) * 3, std=(0.25,) * 3, precision=precision)
    with classifier:
        classifier.check(SHAPE, K)
    return classifier


def batch_of(
    classifier: Classifier,
    stream: Stream | None = None,
    rows: int = N,
    backend: str = "reference",
    at_once: int = MAX_ROWS,
    **options: Any,
) -> PatternBatch:
    torch.manual_seed(4)
    images = torch.randint(0, 256, (30, *SHAPE), dtype=torch.uint8)
    index = torch.stack([torch.randperm(30)[:rows] for _ in range(K)])
    batch = PatternBatch(
        classifier,
        images,
        index,
        index % 3,
        torch.ones_like(index, dtype=torch.int8),
        torch.arange(K),
        backend=backend,
        rows=at_once,
        stream=stream,
        **options,
    )
    if isinstance(stream, Recorder):
        stream.batch = batch
    return batch


def answers(batch: PatternBatch) -> list[Tensor]:
    common = [batch.common] if batch.compare else []
    return [batch.pattern, batch.momentum, batch.share, batch.weight, batch.alignment, *common]


def same(got: PatternBatch, want: PatternBatch) -> None:
    assert all(torch.equal(a, b) for a, b in zip(answers(got), answers(want), strict=True))


ALL = torch.ones(K, dtype=torch.bool)


@pytest.fixture
def classifier() -> Iterator[Classifier]:
    with classifier_of(network()) as classifier:
        yield classifier


def grow(batch: PatternBatch) -> None:
    for _ in range(STEPS):
        batch.step(ALL)


@pytest.fixture
def plain(classifier: Classifier) -> PatternBatch:
    """Patterns that have grown, every step run plainly."""
    batch = batch_of(classifier)
    grow(batch)
    assert batch.share.max() >= PI > batch.share.min()
    return batch


def steps_of(classifier: Classifier, run: Callable[[], None]) -> float:
    """How many steps of all problems `run` paid for."""
    before = classifier.forward_images, classifier.backward_images
    run()
    forward, backward = classifier.forward_images - before[0], classifier.backward_images - before[1]
    assert forward == backward
    return forward / (K * N)


# ---- captured, replayed: the same answers


@pytest.mark.parametrize("compare", [False, True])
def test_replayed_steps_are_the_same_steps(classifier: Classifier, compare: bool) -> None:
    stream, plain = Recorder(), batch_of(classifier, compare=compare)
    grow(plain)
    batch = batch_of(classifier, stream, compare=compare)
    assert steps_of(classifier, lambda: grow(batch)) == STEPS
    same(batch, plain)
    assert stream.calls == ["plain"] * WARM_UP + ["capture"] + ["replay"] * (STEPS - WARM_UP)
    assert batch.notes == ()


def test_a_pattern_that_has_won_stays(plain: PatternBatch) -> None:
    won, before = plain.share >= PI, plain.pattern.clone()
    plain.step(ALL)
    assert torch.equal(plain.pattern[won], before[won])
    assert not any(torch.equal(a, b) for a, b in zip(plain.pattern[~won], before[~won], strict=True))


def test_what_gradients_have_in_common_in_pixels() -> None:
    module, std = network(), torch.tensor([0.2, 0.3, 0.6])[:, None, None]
    with Classifier(module, mean=(0.5,) * 3, std=(0.2, 0.3, 0.6)) as classifier:
        classifier.check(SHAPE, K)
        batch = batch_of(classifier, compare=True)
        batch.step(ALL)
        for target in range(K):
            x = (batch.images[batch.index[target]] / 255).requires_grad_(True)
            likely = module((x - 0.5) / std).log_softmax(1)[:, target].sum()
            (gradient,) = torch.autograd.grad(likely, x)
            unit = torch.nn.functional.normalize(gradient.flatten(1), dim=1)
            pairs = (unit @ unit.T)[~torch.eye(N, dtype=torch.bool)]
            torch.testing.assert_close(batch.alignment[target], pairs.square().mean())
            _, _, leading = torch.linalg.svd(unit)
            assert float((leading[0] @ batch.common[target].flatten()).abs()) == pytest.approx(1, abs=1e-5)


def test_one_row_is_aligned_with_nothing(classifier: Classifier) -> None:
    batch = batch_of(classifier, rows=1, compare=True)
    batch.step(ALL)
    assert torch.equal(batch.alignment, torch.zeros(K))


def test_gradients_are_compared_on_demand(plain: PatternBatch) -> None:
    assert not plain.alignment.any()
    assert not plain.common.any()


class OnMeta:
    """A classifier on a device of its own, whose tensors have no values to wait for, and do not mix with the host's."""

    device, mean, std, precision = torch.device("meta"), (0.5,) * 3, (0.25,) * 3, torch.float32
    forward_images = backward_images = 0
    module = network().to("meta")

    def logits(self, x: Tensor, *, look: bool) -> Tensor:
        assert not look
        return self.module(x)


def on_meta(**options: Any) -> PatternBatch:
    stream = Stream()
    stream.done = False
    return batch_of(OnMeta(), stream, **options)  # type: ignore[arg-type]


def test_a_step_waits_for_nothing() -> None:
    batch = on_meta()
    for active in (ALL, torch.tensor([True, False, True, True])):
        batch.step(active)
    assert all(x.device.type == "meta" for x in answers(batch))
    with pytest.raises(RuntimeError, match="meta tensors"):
        batch.look()


def test_a_step_calls_three_launchers(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, int, int]] = []

    class Module:
        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda **given: calls.append((name, given["T"], given["N"]))

    monkeypatch.setattr(cuda.native, "extension", Module())
    monkeypatch.setattr(cuda.native, "launch", lambda device: {})
    monkeypatch.setattr(cuda, "unavailable", lambda device: None)
    batch = on_meta(backend="cuda")
    batch.step(torch.tensor([True, False, True, True]))
    assert calls == [("apply_pattern", 3, N), ("loss_head", 3, N), ("update_pattern", 3, N)]


@pytest.mark.parametrize("backend", ["cpu", "triton", "cuda"])
def test_every_backend_takes_the_same_steps(classifier: Classifier, plain: PatternBatch, backend: str) -> None:
    if backend == "cuda" and cuda_emulation.missing():
        pytest.skip(str(cuda_emulation.missing()))
    with cuda_emulation.emulated("random") if backend == "cuda" else contextlib.nullcontext():
        if (reason := ops.unavailable(backend)) is not None:
            pytest.skip(reason)
        batch = batch_of(classifier, Recorder(), backend=backend)
        grow(batch)
    for got, want in zip(answers(batch), answers(plain), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_a_start_where_another_batch_is(classifier: Classifier) -> None:
    """At half the length; what was captured for another length is not replayed."""
    first, stream = batch_of(classifier), Recorder()
    batch = batch_of(classifier, stream)
    first.step(ALL)
    grow(batch)
    batch.start(first, 0.5)
    assert torch.equal(batch.pattern, 0.5 * first.pattern)
    assert torch.equal(batch.momentum, first.momentum)
    assert batch.length == 0.5 * first.length
    assert torch.equal(batch.weight, torch.full_like(batch.weight, 1 / N))
    stream.calls.clear()
    batch.step(ALL)
    assert stream.calls == ["plain"]
    moved = (batch.pattern - 0.5 * first.pattern).flatten(1).norm(dim=1)
    torch.testing.assert_close(moved, torch.full_like(moved, batch.length))


# ---- compaction


def test_inactive_problems_cost_nothing_and_stay(classifier: Classifier) -> None:
    batch = batch_of(classifier)
    batch.step(ALL)
    before = [x.clone() for x in answers(batch)]
    some = torch.tensor([False, True, False, True])
    assert steps_of(classifier, lambda: batch.step(some)) == 1 / 2
    for got, was in zip(answers(batch), before, strict=True):
        assert torch.equal(got[~some], was[~some])
    assert not torch.equal(batch.pattern[some], before[0][some])
    assert steps_of(classifier, lambda: batch.step(~ALL)) == 0


def test_compaction_comes_between_captures(classifier: Classifier) -> None:
    """One graph per number of problems: which ones they are is data."""
    stream = Recorder()
    batch, want = batch_of(classifier, stream), batch_of(classifier)
    first, second = torch.tensor([True, True, False, True]), torch.tensor([False, True, True, True])
    for active in [first] * 4 + [second] * 2 + [first & second] * 4 + [second]:
        batch.step(active)
        want.step(active)
    captured = ["plain"] * WARM_UP + ["capture"]
    assert stream.calls == captured + ["replay"] * 4 + captured + ["replay"] * 3
    same(batch, want)


def test_many_problems_go_in_parts_of_fixed_size(classifier: Classifier) -> None:
    stream = Recorder()
    # On the kernels, which add a problem's images in one order: torch's sums round by how many problems there are.
    batch = batch_of(classifier, stream, at_once=3 * N + 5, backend="cpu")
    want = batch_of(classifier, backend="cpu")
    for _ in range(4):
        assert steps_of(classifier, lambda: batch.step(ALL)) == 1
        want.step(ALL)
    assert stream.calls == ["plain"] * 4 + ["capture", "replay"] * 2 + ["replay"] * 2  # parts of three and of one
    same(batch, want)


@pytest.mark.parametrize(("at_once", "widths"), [(N - 1, [6, 6]), (5, [4, 4, 4]), (1, [1] * N)])
def test_a_problem_goes_in_even_pieces(plain: PatternBatch, at_once: int, widths: list[int]) -> None:
    module, taken = network(), []

    def taking(inner: nn.Module, x: Tensor) -> Tensor:
        taken.append(len(x))
        out: Tensor = inner(x)
        return out

    with classifier_of(Wrapped(taking)) as classifier:
        classifier.module.inner.load_state_dict(module.state_dict())
        batch = batch_of(classifier, at_once=at_once)
        taken.clear()
        batch.step(ALL)
        assert taken == widths * K
        for _ in range(STEPS - 1):
            batch.step(ALL)
        assert batch.notes == ()
    for got, want in zip(answers(batch), answers(plain), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


# ---- where the model cannot be captured


def test_a_model_that_cannot_be_captured_runs_plainly(classifier: Classifier, plain: PatternBatch) -> None:
    stream = Recorder(refuses="operation not permitted when stream is capturing\nsome more")
    batch = batch_of(classifier, stream)
    grow(batch)
    same(batch, plain)
    assert stream.calls == ["plain"] * WARM_UP + ["capture"]  # tried once, and no side stream after
    (note,) = batch.notes
    assert "could not be captured" in note
    assert "(RuntimeError: operation not permitted when stream is capturing)" in note


def test_the_first_error_of_a_failed_capture_is_told() -> None:
    stream = Recorder()

    def capture(work: Callable[[], None]) -> Callable[[], None]:
        try:
            raise RuntimeError("operation not permitted when stream is capturing")
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")

    stream.capture = capture  # type: ignore[method-assign]
    run = GraphedStep(lambda: None, stream)
    assert [run() for _ in range(WARM_UP + 1)] == ["plain"] * (WARM_UP + 1)
    assert stream.failure == "RuntimeError: operation not permitted when stream is capturing"


def test_a_model_that_looks_at_its_values_cannot_be_captured() -> None:
    class Looks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) if float(x.detach().max()) < 100 else self.inner(-x)

    def strict(work: Callable[[], None]) -> Callable[[], None]:
        try:
            return Recorder.capture(stream, work)
        except AssertionError as error:
            raise RuntimeError(str(error)) from error

    with classifier_of(Looks()) as classifier:
        stream = Recorder()
        stream.capture = strict  # type: ignore[method-assign]
        batch = batch_of(classifier, stream)
        grow(batch)
        assert batch.share.max() >= PI
        assert "waits for the device" in batch.notes[0]


# ---- memory


class Small(nn.Module):
    """Takes so many images at once, and counts those it took."""

    def __init__(self, most: int, error: Callable[[str], RuntimeError] = torch.OutOfMemoryError):
        super().__init__()
        self.inner, self.most, self.error = network(), most, error

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            raise self.error("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.inner(x)


@pytest.mark.parametrize("most", [3 * N, N, 7, 2])
@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_a_batch_too_large_is_split(plain: PatternBatch, most: int, error: Any) -> None:
    with classifier_of(Small(most, error)) as classifier:
        stream = Recorder()
        batch = batch_of(classifier, stream)
        grow(batch)
        for got, want in zip(answers(batch), answers(plain), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
        (note,) = batch.notes
        rows = next(r for r in (24, 12, 6, 3, 1) if r <= most)
        assert note == f"memory was short: the batch was split, {rows} images at a time instead of 1024"
        assert "release" in stream.calls
        assert stream.calls[-1] == "replay"


def test_a_batch_that_is_split_loses_nothing() -> None:
    """Problems done before memory ran out are not done again."""
    with classifier_of(Small(10_000)) as classifier:
        batch, want = batch_of(classifier), batch_of(classifier)
        batch._rows = 2 * N  # two parts of two problems
        calls = []

        def once(x: Tensor) -> Tensor:
            calls.append(len(x))
            if len(calls) == 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return nn.Module.__call__(classifier.module.inner, x)

        classifier.module.forward = once  # type: ignore[method-assign]
        batch.step(ALL)
        assert calls == [2 * N, 2 * N, N, N]
        want.step(ALL)
        torch.testing.assert_close(batch.pattern, want.pattern, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rows", [N, 1])
def test_one_image_too_large_is_an_error(rows: int) -> None:
    with classifier_of(Small(10_000)) as classifier:
        batch = batch_of(classifier, rows=rows)
        classifier.module.most = 0
        before = [x.clone() for x in answers(batch)]
        with pytest.raises(torch.OutOfMemoryError, match="Tried to allocate"):
            batch.step(ALL)
        assert all(torch.equal(a, b) for a, b in zip(answers(batch), before, strict=True))


def test_memory_too_short_for_a_graph_is_enough_without(classifier: Classifier, plain: PatternBatch) -> None:
    batch = batch_of(classifier, Recorder(refuses="CUDA out of memory. Tried to allocate 2.00 GiB"))
    grow(batch)
    same(batch, plain)
    assert "ran plainly (RuntimeError: CUDA out of memory" in batch.notes[0]


def test_other_errors_are_passed_on() -> None:
    with classifier_of(Small(10_000)) as classifier:
        classifier.module.most, classifier.module.error = 0, lambda _: RuntimeError("illegal memory access")
        with pytest.raises(RuntimeError, match="illegal memory access"):
            batch_of(classifier).step(ALL)


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (torch.OutOfMemoryError("anything"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"), True),
        (RuntimeError("cudaErrorInvalidValue: invalid argument (csrc/cuda/project.cu:90: launch)"), False),
    ],
)
def test_what_is_out_of_memory(error: RuntimeError, is_memory: bool) -> None:
    assert out_of_memory(error) is is_memory


# ---- the network's ways


class Wrapped(nn.Module):
    def __init__(self, change: Callable[[nn.Module, Tensor], Tensor]):
        super().__init__()
        self.inner, self.change = network(), change

    def forward(self, x: Tensor) -> Tensor:
        return self.change(self.inner, x)


@pytest.mark.parametrize(
    "change",
    [
        lambda inner, x: torch.cat([inner(x)] * 2, 1)[:, :K],  # logits that are not contiguous
        lambda inner, x: inner(x).double(),
        lambda inner, x: inner(x.transpose(2, 3).contiguous().transpose(2, 3)),  # gradients neither NCHW nor NHWC
    ],
    ids=["sliced", "double", "transposed"],
)
def test_layouts_and_dtypes_of_the_networks_choice(plain: PatternBatch, change: Any) -> None:
    with classifier_of(Wrapped(change)) as classifier:
        batch = batch_of(classifier)
        grow(batch)
        for got, want in zip(answers(batch), answers(plain), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_logits_that_are_not_finite_are_an_error_at_the_next_look(classifier: Classifier) -> None:
    batch = batch_of(classifier, Recorder())
    batch.step(ALL)
    batch.look()
    classifier.module[3].bias[0] = torch.nan
    batch.step(ALL)
    classifier.module[3].bias[0] = 0
    batch.step(ALL)
    with pytest.raises(InputError, match="the model gave NaN or infinite logits or gradients"):
        batch.look()


@pytest.mark.parametrize("backend", ["reference", "cpu", "triton"])
def test_gradients_that_are_not_finite_are_an_error_at_the_next_look(backend: str) -> None:
    """Kernels may make any pixel of them: -1, for one."""
    if (reason := ops.unavailable(backend)) is not None:
        pytest.skip(reason)

    def root(inner: nn.Module, x: Tensor) -> Tensor:
        pixel = x[:, 0, 0, :1] + 0.5
        bright = (pixel + pixel.abs()).square().sqrt()  # no gradient at 0, where some images are
        out: Tensor = inner(x) * (1 + bright)
        return out

    with classifier_of(Wrapped(root)) as classifier:
        batch = batch_of(classifier, backend=backend)
        batch.step(ALL)
        with pytest.raises(InputError, match="the model gave NaN or infinite logits or gradients"):
            batch.look()


def test_logits_that_are_not_finite_are_an_error_at_once_where_looking_is_free(classifier: Classifier) -> None:
    classifier.module[3].bias[0] = torch.nan
    with pytest.raises(InputError, match="the model gave NaN or infinite logits for 48 of 48 images"):
        batch_of(classifier).step(ALL)


# ---- bad input


@pytest.mark.parametrize(
    "active", [torch.ones(K), torch.ones(K + 1, dtype=torch.bool), torch.ones(K, dtype=torch.bool, device="meta")]
)
def test_bad_masks(classifier: Classifier, active: Tensor) -> None:
    with pytest.raises(InputError, match=r"active: expected torch.bool \(4,\) in host memory, got"):
        batch_of(classifier).step(active)


def test_no_rows(classifier: Classifier) -> None:
    with pytest.raises(InputError, match=r"index: expected at least one problem of one image, got shape \(4, 0\)"):
        batch_of(classifier, rows=0)


# ---- the calls that a CUDA device gets


def test_the_calls_of_a_cuda_device(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    class Stream:
        def __init__(self, name: str = "side"):
            self.name = name

        def wait_stream(self, other: Stream) -> None:
            calls.append(f"{self.name} waits for {other.name}")

    class Within:
        def __init__(self, name: str):
            self.name = name

        def __enter__(self) -> None:
            calls.append(f"in {self.name}")

        def __exit__(self, *_: object) -> None:
            calls.append(f"out of {self.name}")

    class Graph:
        def replay(self) -> None:
            calls.append("replay")

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream(f"current of {device}"))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: Within(stream.name))
    monkeypatch.setattr(torch.cuda, "device", lambda device: Within(str(device)))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: "pool")
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, pool, stream: Within(f"capture on {stream.name}, {pool}"))
    stream = stream_of(torch.device("cuda:1"))
    assert isinstance(stream, CudaStream)
    run = GraphedStep(lambda: calls.append("work"), stream)
    for _ in range(WARM_UP + 2):
        run()
    apart = [
        "side waits for current of cuda:1",
        "in side",
        "work",
        "out of side",
        "current of cuda:1 waits for side",
    ]
    capture = ["in cuda:1", "in capture on side, pool", "work", "out of capture on side, pool", "out of cuda:1"]
    assert calls == apart * WARM_UP + capture + ["in cuda:1", "replay", "out of cuda:1"] * 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_on_a_card(plain: PatternBatch, precision: str) -> None:
    """The step is captured, and the pattern wins that wins on the host."""
    with classifier_of(network().cuda(), precision) as classifier:
        batch = batch_of(classifier, backend="auto")
        grow(batch)
        assert int(batch.look().argmax()) == int(plain.share.argmax())
        assert batch.look().max() >= PI
        assert not any("captured" in note for note in batch.notes)
