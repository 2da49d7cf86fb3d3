"""The numerical primitives: one contract each, several backends with the same answers.

`backend="auto"` takes the first usable of `backends(device)`; any other name means that one, or `BackendUnavailable`.
`resolve` says what a name stands for, so that callers can report it.
"""

from ._backends import backends, resolve, unavailable
from .apply_pattern import apply_pattern
from .cpu import instruction_set
from .gram import gram
from .loss_head import LossHead, loss_head
from .moments import Moments, moments
from .project import project
from .update_pattern import update_pattern

__all__ = [
    "LossHead",
    "Moments",
    "apply_pattern",
    "backends",
    "gram",
    "instruction_set",
    "loss_head",
    "moments",
    "project",
    "resolve",
    "unavailable",
    "update_pattern",
]
