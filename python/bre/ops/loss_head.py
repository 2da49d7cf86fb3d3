from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from . import _check
from ._backends import implementation


class LossHead(NamedTuple):
    """What `loss_head` returns."""

    loss: Tensor  # (T, N) float32, unweighted
    grad: Tensor  # (T*N, K) of the logits' dtype, weighted
    success: Tensor  # (T, N) bool


def loss_head(logits: Tensor, *, target: Tensor, sign: Tensor, weight: Tensor, backend: str = "auto") -> LossHead:
    """Loss, gradient and success of every row: added patterns should reach the target, removed ones should leave it.

    logits:   (T*N, K) float32, bfloat16 or float16, K >= 2, finite
    target:   (T,) int64, values in [0, K)
    sign:     (T, N) int8, as given to apply_pattern; below 0 the row is a removal, else an addition
    weight:   (T, N) float32, of each row in the gradient
    returns:  loss (T, N) float32, unweighted: -log p_t for an addition, -log(1 - p_t) for a removal;
              grad (T*N, K), of the logits' dtype: weight * dloss/dlogits;
              success (T, N) bool: the arg max (of equals, the lowest class) is the target, or for a removal is not

    Equivalent to:
        d = logits[rows, t] - logsumexp(the row's other logits)       # so p_t = sigmoid(d)
        loss = -logsigmoid(d) if sign >= 0 else -logsigmoid(-d)       # no cancellation, however large the logits
        grad = autograd.grad((weight * loss).sum(), logits)

    Raises InputError. Values of target are looked at only in host memory.
    """
    _check.tensor("logits", logits, ("T*N", "K"), *_check.FLOATS)
    _check.tensor("sign", sign, ("T", "N"), torch.int8, like=logits)
    T, N = sign.shape
    K = logits.shape[1]
    _check.tensor("logits", logits, (T * N, K), logits.dtype)
    _check.tensor("target", target, (T,), torch.int64, like=logits)
    _check.tensor("weight", weight, (T, N), torch.float32, like=logits)
    if K < 2:
        _check.refuse("logits", "at least K = 2 classes", K)
    _check.values("target", target, 0, K - 1)

    function = implementation("loss_head", backend, logits.device)
    return LossHead(*function(logits, target=target, sign=sign, weight=weight))
