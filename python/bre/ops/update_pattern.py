from __future__ import annotations

import math

import torch
from torch import Tensor

from . import _check
from ._backends import implementation


def update_pattern(
    grad: Tensor,
    *,
    images: Tensor,
    index: Tensor,
    sign: Tensor,
    pattern: Tensor,
    momentum: Tensor,
    active: Tensor,
    std: Tensor,
    step: float,
    decay: float,
    bound: float,
    backend: str = "auto",
) -> Tensor:
    """One step of normalised gradient descent with momentum on every active pattern, in place.

    grad:      (T*N, C, H, W) float32, bfloat16 or float16, contiguous or channels_last: d(weighted loss)/d(network
               input)
    images:    (M, C, H, W) uint8
    index:     (T, N) int64, values in [0, M)
    sign:      (T, N) int8, values in {-1, 0, 1}; all three as given to apply_pattern
    pattern:   (T, C, H, W) float32, pixel units of [0, 1]; overwritten
    momentum:  (T, C, H, W) float32; overwritten, start it at zero
    active:    (T,) bool: where False, pattern and momentum stay as they are
    std:       (C,) float32, > 0: what apply_pattern divided by
    step:      >= 0, L2 length of the step, pixel units
    decay:     in [0, 1), of the momentum
    bound:     > 0, largest magnitude of a pattern's pixel, pixel units
    returns:   (T,) float32: L2 norm of every pattern afterwards

    A pixel counts in the gradient where clipping let it through: 0 <= x/255 + sign*v <= 1. Both ends are included, so
    that a pattern can start moving black and white pixels inwards. A zero gradient leaves the momentum's direction, a
    zero momentum the pattern; norms below 2^-126, which have no inverse in float32, count as zero. The answer does
    not depend on the number of threads.

    Equivalent to, for each active t:
        y = images[index[t]] / 255 + sign[t] * pattern[t]
        g = (sign[t] * ((0 <= y) & (y <= 1)) * grad[t] / std).sum(0)
        momentum[t] = decay * momentum[t] + g / g.norm()
        pattern[t] = (pattern[t] - step * momentum[t] / momentum[t].norm()).clamp(-bound, bound)

    Raises InputError. Values of index and sign are looked at only in host memory.
    """
    _check.images(images)
    _check.tensor("index", index, ("T", "N"), torch.int64, like=images)
    T, N = index.shape
    M, C, H, W = images.shape
    _check.dense("grad", grad, (T * N, C, H, W), *_check.FLOATS, like=images)
    _check.is_nhwc("grad", grad)
    _check.tensor("sign", sign, (T, N), torch.int8, like=images)
    _check.tensor("pattern", pattern, (T, C, H, W), torch.float32, like=images)
    _check.tensor("momentum", momentum, (T, C, H, W), torch.float32, like=images)
    _check.tensor("active", active, (T,), torch.bool, like=images)
    _check.tensor("std", std, (C,), torch.float32, like=images)
    _check.values("index", index, 0, M - 1)
    _check.values("sign", sign, -1, 1)
    if not (math.isfinite(step) and step >= 0):
        _check.refuse("step", "a length >= 0", step)
    if not 0 <= decay < 1:
        _check.refuse("decay", "a number in [0, 1)", decay)
    if not bound > 0:
        _check.refuse("bound", "a magnitude > 0", bound)

    function = implementation("update_pattern", backend, images.device)
    norms: Tensor = function(
        grad,
        images=images,
        index=index,
        sign=sign,
        pattern=pattern,
        momentum=momentum,
        active=active,
        std=std,
        step=step,
        decay=decay,
        bound=bound,
    )
    return norms
