"""The model's view: one small additive pattern per putative target class, all optimised as one batch.

For target t minimise  sum_s w_ts mean_{x in s} -log p_t([x + v_t])  by normalised gradient steps of fixed length, where
the source weights w_ts grow with the share of source s that v_t already moves (Xiang, Miller, Kesidis, arXiv
2010.07489, section IV, with weights in place of one problem per class pair). Since every step has the same length, the
patterns grow side by side; one that moves the share PI of its sources stays as it is.

Everything a step reads and writes stays on the classifier's device, at the same addresses, and a step never waits for
the device: on a GPU it becomes a CUDA graph (bre.views.cuda_graph), and the host looks when it wants to know.

Knows classifiers and ops; nothing of datasets or of statistics.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import ops
from ..errors import InputError
from ..inputs import Classifier
from .cuda_graph import GraphedStep, Stream, out_of_memory, stream_of

PI = 0.9  # share; of (weighted) source images that a pattern must move; source: paper, Xiang, Miller and Kesidis 2020
STEP = 0.1 / 3072**0.5  # pixel units; L2 length of a step over sqrt(D); source: chosen
DECAY = 0.5  # share; of the momentum that is kept; source: chosen
TEMPERATURE = 0.1  # share; of success by which a source's weight grows e-fold; source: chosen
# squarings; of the rows' cosines; source: chosen, to the power 64 the leading direction is left, or a mixture of
# equals
SQUARINGS = 6
MAX_STEPS = 60  # steps; until some pattern moves MIN_MOVED of its sources; source: chosen, by time
# images; of one forward pass at most; source: chosen, more fill no device better, and results depend on it in the last
# bits, so it stays
MAX_ROWS = 1024


class PatternBatch:
    """T patterns on their way, and everything a step needs, on the classifier's device.

    images: uint8 (M, C, H, W), the pool; index: int64 (T, N) into it; source: int64 (T, N), the class of each row;
    sign: int8 (T, N), +1 adds the pattern and asks for the target, -1 takes it away and asks for anything else;
    target: int64 (T,). All in host memory when they come.
    What goes in and out of the network is of the classifier's precision. Patterns, momenta, weights and shares are
    float32 either way.

    pattern: float32 (T, C, H, W), pixel units, starts at zero. share, alignment: float32 (T,), and common: float32
    (T, C, H, W), (0, C, H, W) without `compare`, see `step`. All are written in place, and may be; `look` at what a
    device has done.
    """

    def __init__(
        self,
        classifier: Classifier,
        images: Tensor,
        index: Tensor,
        source: Tensor,
        sign: Tensor,
        target: Tensor,
        *,
        backend: str,
        rows: int = MAX_ROWS,
        compare: bool = False,
        stream: Stream | None = None,
    ):
        """rows: images that go through the network at once; compare: whether steps compare gradients; stream: how work
        gets to the classifier's device, None chooses."""
        if not index.numel():
            raise InputError(f"index: expected at least one problem of one image, got shape {tuple(index.shape)}")
        self.classifier, self.backend, self.compare = classifier, backend, compare
        self.classes = int(source.max()) + 1
        self.images, self.index, self.source, self.sign, self.target = (
            x.to(classifier.device) for x in (images, index, source, sign, target)
        )
        self.pattern = torch.zeros(len(target), *images.shape[1:], dtype=torch.float32, device=classifier.device)
        self.momentum = torch.zeros_like(self.pattern)
        self.share, self.alignment = self.pattern.new_zeros(len(target)), self.pattern.new_zeros(len(target))
        self.common = torch.zeros_like(self.pattern if compare else self.pattern[:0])
        self.weight = self.pattern.new_full(index.shape, 1 / index.shape[1])  # of each row; a problem's sum to one
        self.finite = torch.ones((), dtype=torch.bool, device=classifier.device)  # every logit and gradient so far
        self.mean, self.std = (self.pattern.new_tensor(x) for x in (classifier.mean, classifier.std))
        self.length = STEP * self.pattern[0].numel() ** 0.5  # of a step, pixel units
        self._stream = stream or stream_of(classifier.device)
        self._most = self._rows = rows
        self._steps: dict[int, tuple[_Step, GraphedStep]] = {}  # by the number of their problems
        self._active, self._chosen = torch.zeros(len(target), dtype=torch.bool, device="cpu"), self.target[:0]

    @property
    def notes(self) -> tuple[str, ...]:
        """What went otherwise than by default, for the report; one sentence each."""
        notes = []
        if self.classifier.precision != torch.float32:
            notes.append(f"the network ran in {str(self.classifier.precision).removeprefix('torch.')}")
        if self._rows < self._most:
            notes.append(
                f"memory was short: the batch was split, {self._rows} images at a time instead of {self._most}"
            )
        if self._stream.failure:
            notes.append(f"the step could not be captured in a CUDA graph and ran plainly ({self._stream.failure})")
        return tuple(notes)

    def start(self, other: PatternBatch, ratio: float) -> None:
        """Where another batch of as many patterns is, all patterns and the length of a step times ratio; sources are
        weighted as at first."""
        torch.mul(other.pattern, ratio, out=self.pattern)
        self.momentum.copy_(other.momentum)
        self.weight.fill_(1 / self.weight.shape[1])
        if (length := ratio * other.length) != self.length:
            self.length = length
            self._steps.clear()  # graphs hold the length
            self._stream.release()

    def step(self, active: Tensor) -> None:
        """Measure the weighted success `share` of the active patterns, then move those that fall short of PI.

        active: bool (T,) in host memory. The others stay as they are and cost nothing. With `compare`, the gradients
        also tell how alike they are, image by image and whatever their sign: `alignment` is the mean squared cosine of
        two of them, `common` the direction of unit length that they have most in common.
        """
        self._choose(active)
        begin, N = 0, self.index.shape[1]
        while begin < len(self._chosen):
            part = self._chosen[begin : begin + max(1, self._rows // N)]
            if self._fits(part):
                begin += len(part)
            else:
                self._rows = self._images_at_once(part) // 2
                self._steps.clear()
                self._stream.release()

    def look(self) -> Tensor:
        """Wait for the device: `share` in host memory, float32 (T,). InputError if it met NaN or infinities."""
        if not self.finite:
            raise InputError("the model gave NaN or infinite logits or gradients")
        return self.share.cpu()

    def _choose(self, active: Tensor) -> None:
        """Compact: the numbers of the active problems, sent to the device only when they change."""
        if active.dtype != torch.bool or active.shape != self.share.shape or active.device.type != "cpu":
            got = f"{active.dtype} {tuple(active.shape)} on {active.device}"
            raise InputError(f"active: expected torch.bool {tuple(self.share.shape)} in host memory, got {got}")
        if not torch.equal(active, self._active):
            self._active = active.clone()
            self._chosen = torch.nonzero(active).flatten().to(self.target.device)

    def _images_at_once(self, part: Tensor) -> int:
        """How many go through the network together when the problems in `part` take a step."""
        return min(self._rows, len(part) * self.index.shape[1])

    def _fits(self, part: Tensor) -> bool:
        """Do one step of the problems in `part`; False, with nothing changed, when memory is too short for them."""
        try:
            if len(part) not in self._steps:
                step = _Step(self, len(part), self._rows)
                self._steps[len(part)] = step, GraphedStep(step, self._stream)
            step, run = self._steps[len(part)]
            step.problems.copy_(part)
            before = self.classifier.forward_images, self.classifier.backward_images
            if run() == "replayed":  # which counted nothing, and its capture what it did not do
                images = len(part) * self.index.shape[1]
                self.classifier.forward_images, self.classifier.backward_images = (n + images for n in before)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error) or self._images_at_once(part) == 1:
                raise
            return False
        return True


class _Step:
    """One step of `size` problems of a batch, on tensors that stay where they are, without waiting for the device.

    problems: int64 (size,), their numbers, to be filled in before each call. At most `rows` images go through the
    network at once; only a single problem is ever cut for that. What the batch holds is written last, when nothing can
    run out of memory any more.
    """

    def __init__(self, batch: PatternBatch, size: int, rows: int):
        self.batch = batch
        self.problems = batch.target.new_zeros(size)
        rows_of_each = batch.index.shape[1]
        pieces = -(-rows_of_each // rows)
        self._width = -(-rows_of_each // pieces)  # rows of each problem that go through the network at once
        self._inputs = torch.empty(
            (size * self._width, *batch.images.shape[1:]),
            dtype=batch.classifier.precision,
            device=batch.images.device,
            memory_format=torch.channels_last,
        )

    def __call__(self) -> None:
        b, part = self.batch, self.problems
        index, sign = b.index[part], b.sign[part]
        pattern, momentum, weight = b.pattern[part], b.momentum[part], b.weight[part]
        pieces = [
            self._through_network(
                index[:, n : n + self._width],
                sign[:, n : n + self._width],
                pattern,
                b.target[part],
                weight[:, n : n + self._width],
            )
            for n in range(0, index.shape[1], self._width)
        ]
        gradients, successes, finite = zip(*pieces, strict=True)
        success = torch.cat(successes, 1)
        share = (weight * success).sum(1)
        weights = self._reweighted(success)
        gradient = gradients[0] if len(gradients) == 1 else torch.cat(gradients)
        ops.update_pattern(
            gradient,
            images=b.images,
            index=index,
            sign=sign,
            pattern=pattern,
            momentum=momentum,
            active=share < PI,
            std=b.std,
            step=b.length,
            decay=DECAY,
            bound=1.0,
            backend=b.backend,
        )
        news = [(b.pattern, pattern), (b.momentum, momentum), (b.share, share), (b.weight, weights)]
        if b.compare:
            news += zip((b.alignment, b.common), self._in_common(gradient), strict=True)
        for state, new in news:
            state.index_copy_(0, part, new)
        for each in finite:
            b.finite.logical_and_(each)

    def _through_network(
        self, index: Tensor, sign: Tensor, pattern: Tensor, target: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of (size, n) rows: the gradient at the network's input (size*n, C, H, W), which rows succeed (size, n) bool,
        and whether all logits and gradients are finite, a bool scalar."""
        b = self.batch
        inputs = (
            ops.apply_pattern(
                b.images,
                index=index,
                sign=sign,
                pattern=pattern,
                mean=b.mean,
                std=b.std,
                layout="nhwc",
                dtype=b.classifier.precision,
                out=self._inputs[: index.numel()],
                backend=b.backend,
            )
            .detach()
            .requires_grad_(True)
        )
        with torch.enable_grad():
            logits = b.classifier.logits(inputs, look=b._stream.done)  # where that waits for nothing
        values = logits.detach().contiguous()
        head = ops.loss_head(
            values.float() if values.dtype == torch.float64 else values,
            target=target,
            sign=sign,
            weight=weight,
            backend=b.backend,
        )
        with torch.enable_grad():  # from a scalar: for a given gradient torch would import sympy, half a second
            moved = (logits * head.grad.to(logits.dtype)).sum()
        (gradient,) = torch.autograd.grad(moved, inputs)
        b.classifier.backward_images += len(inputs)
        if not gradient.is_contiguous():
            gradient = gradient.contiguous(memory_format=torch.channels_last)
        # One value that is not finite makes the sum so too, without a mask of every pixel.
        return gradient, head.success, values.sum().isfinite() & gradient.sum().isfinite()

    def _in_common(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Of the gradients of each problem's rows, in pixel units: `alignment` (size,) and `common` (size, C, H, W)."""
        size, N = len(self.problems), self.batch.index.shape[1]
        rows = (gradient.float() / self.batch.std[:, None, None]).reshape(size, N, -1)
        unit = rows.div_(rows.norm(dim=2, keepdim=True).clamp_min(1e-12))
        cosines = unit @ unit.mT
        squared = cosines.square()
        alignment = (squared.sum((1, 2)) - squared.diagonal(dim1=1, dim2=2).sum(1)) / max(N * (N - 1), 1)
        for _ in range(SQUARINGS):
            cosines = cosines / cosines.amax((1, 2), keepdim=True).clamp_min(1e-30)  # of a power of them
            cosines = cosines @ cosines
        strongest = cosines.diagonal(dim1=1, dim2=2).argmax(1).view(-1, 1, 1).expand(-1, -1, N)
        common = torch.nn.functional.normalize((cosines.gather(1, strongest) @ unit)[:, 0], dim=1)
        return alignment, common.view(size, *gradient.shape[1:])

    def _reweighted(self, success: Tensor) -> Tensor:
        """Softmax of the sources' success shares, spread evenly over each source's rows: (size, N) float32."""
        source = self.batch.source[self.problems]
        zeros = self.batch.weight.new_zeros(len(source), self.batch.classes)
        rows = zeros.scatter_add(1, source, torch.ones_like(success, dtype=torch.float32))
        moved = zeros.scatter_add(1, source, success.float())
        share = moved / rows.clamp_min(1)
        weight = torch.softmax(torch.where(rows > 0, share / TEMPERATURE, -torch.inf), 1) / rows.clamp_min(1)
        return weight.gather(1, source)
