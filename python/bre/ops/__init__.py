"""The numerical primitives: one contract each, several backends with the same answers.

`backend="auto"` takes the first usable of `backends(device)`; any other name means that one, or `BackendUnavailable`.
`resolve` says what a name stands for, so that callers can report it.
"""

from bre.ops._backends import backends, resolve, unavailable
from bre.ops.apply_pattern import apply_pattern
from bre.ops.loss_head import LossHead, loss_head
from bre.ops.moments import Moments, moments
from bre.ops.project import project
from bre.ops.update_pattern import update_pattern

__all__ = [
    "LossHead",
    "Moments",
    "apply_pattern",
    "backends",
    "loss_head",
    "moments",
    "project",
    "resolve",
    "unavailable",
    "update_pattern",
]
