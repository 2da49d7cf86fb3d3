"""The model's view: one small additive pattern per putative target class, all optimised as one batch.

For target t minimise  sum_s w_ts mean_{x in s} -log p_t([x + v_t])  by normalised gradient steps of fixed length, where
the source weights w_ts grow with the share of source s that v_t already moves (Xiang, Miller, Kesidis, arXiv
2010.07489, section IV, with weights in place of one problem per class pair). Since every step has the same length, the
patterns grow side by side, and the first to move the share PI of its sources is the smallest.

Knows classifiers and ops; nothing of datasets or of statistics.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from . import ops
from .inputs import Classifier

PI = 0.9  # share of (weighted) source images that a pattern must move
STEP = 0.1 / 3072**0.5  # L2 length of a step over sqrt(D), pixel units
DECAY = 0.5  # of the momentum
TEMPERATURE = 0.1  # of the source weights, in units of success share
MAX_STEPS = 60
MAX_ROWS = 1024  # rows of one forward pass; results depend on it in the last bits, so it is fixed


class PatternBatch:
    """T patterns on their way, and everything a step needs.

    images: uint8 (M, C, H, W), the pool; index: int64 (T, N) into it; source: int64 (T, N), the class of each row;
    sign: int8 (T, N), +1 adds the pattern and asks for the target, -1 takes it away and asks for anything else;
    target: int64 (T,). pattern: float32 (T, C, H, W), pixel units, starts at zero.
    """

    def __init__(
        self, classifier: Classifier, images: Tensor, index: Tensor, source: Tensor, sign: Tensor, target: Tensor,
        *, backend: str,
    ):  # fmt: skip
        self.classifier, self.backend = classifier, backend
        self.images, self.index, self.source, self.sign, self.target = images, index, source, sign, target
        self.pattern = torch.zeros(len(target), *images.shape[1:])
        self.momentum = torch.zeros_like(self.pattern)
        self.share = torch.zeros(len(target))
        self.weight = torch.full(index.shape, 1 / index.shape[1])  # of each row; a problem's rows sum to one
        self._mean, self._std = torch.tensor(classifier.mean), torch.tensor(classifier.std)
        self._step = STEP * self.pattern[0].numel() ** 0.5

    def step(self, active: Tensor) -> None:
        """Measure the weighted success `share` of the active patterns, then move those that fall short of PI.

        active: bool (T,). The others stay as they are and cost nothing.
        """
        chosen = torch.nonzero(active).flatten()
        for part in chosen.split(max(1, MAX_ROWS // self.index.shape[1])):
            self._step_part(part)

    def _step_part(self, part: Tensor) -> None:
        index, sign = self.index[part], self.sign[part]
        pattern, momentum = self.pattern[part], self.momentum[part]
        inputs = self._inputs(index, sign, pattern).requires_grad_(True)
        logits = self.classifier.logits(inputs)
        head = ops.loss_head(
            logits.detach(), target=self.target[part], sign=sign, weight=self.weight[part], backend=self.backend
        )
        share = (self.weight[part] * head.success).sum(1)
        (gradient,) = torch.autograd.grad(logits, inputs, head.grad)
        self.classifier.backward_images += len(inputs)
        ops.update_pattern(
            gradient, images=self.images, index=index, sign=sign, pattern=pattern, momentum=momentum,
            active=share < PI, std=self._std, step=self._step, decay=DECAY, bound=1.0, backend=self.backend,
        )  # fmt: skip
        self.pattern[part], self.momentum[part], self.share[part] = pattern, momentum, share
        self.weight[part] = self._reweighted(part, head.success)

    def _inputs(self, index: Tensor, sign: Tensor, pattern: Tensor) -> Tensor:
        """The network's input for the given rows: (T*N, C, H, W) float32, channels last."""
        return ops.apply_pattern(
            self.images, index=index, sign=sign, pattern=pattern, mean=self._mean, std=self._std, layout="nhwc",
            dtype=torch.float32, backend=self.backend,
        )  # fmt: skip

    def _reweighted(self, part: Tensor, success: Tensor) -> Tensor:
        """Softmax of the sources' success shares, spread evenly over each source's rows."""
        classes = int(self.source.max()) + 1
        rows = torch.zeros(len(part), classes).scatter_add_(1, self.source[part], torch.ones(success.shape))
        moved = torch.zeros(len(part), classes).scatter_add_(1, self.source[part], success.float())
        share = moved / rows.clamp_min(1)
        weight = torch.softmax(torch.where(rows > 0, share / TEMPERATURE, -torch.inf), 1) / rows.clamp_min(1)
        return weight.gather(1, self.source[part])


def race(batch: PatternBatch, active: Tensor, report: Callable[[float], None] = lambda fraction: None) -> None:
    """Grow the active patterns until the first has moved PI of its sources, or for MAX_STEPS."""
    for step in range(MAX_STEPS):
        batch.step(active)
        report(max(float(batch.share[active].max()) / PI, step / MAX_STEPS))
        if bool((batch.share[active] >= PI).any()):
            return


def log_odds(logits: Tensor, target: int) -> Tensor:
    """log p_t / (1 - p_t) for each row of logits (n, K) -> (n,)."""
    others = logits.clone()
    others[:, target] = -torch.inf
    return logits[:, target] - others.logsumexp(1)
