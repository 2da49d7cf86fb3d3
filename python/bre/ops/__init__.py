"""The numerical primitives: one contract each, several backends with the same answers.

`backend="auto"` takes the first usable of `backends(device)`; any other name means that one, or `BackendUnavailable`.
`resolve` says what a name stands for, so that callers can report it.
"""

from ._backends import backends, resolve, unavailable
from .apply_pattern import apply_pattern
from .channel_sums import channel_sums
from .cpu import instruction_set
from .cut_tiles import cut_tiles
from .gram import cross_gram, gram
from .halve import halve
from .loss_head import LossHead, loss_head
from .moments import Moments, moments
from .project import project
from .sum_grams import GramSum, sum_grams
from .tile_moments import TileMoments, tile_moments
from .tiles import Cell, Grid, Unit, grids, units
from .update_pattern import update_pattern
from .whiten import CODE_UNIT, Codes, TileWeights, tile_weights, whiten

__all__ = [
    "CODE_UNIT",
    "Cell",
    "Codes",
    "GramSum",
    "Grid",
    "LossHead",
    "Moments",
    "TileMoments",
    "TileWeights",
    "Unit",
    "apply_pattern",
    "backends",
    "channel_sums",
    "cross_gram",
    "cut_tiles",
    "gram",
    "grids",
    "halve",
    "instruction_set",
    "loss_head",
    "moments",
    "project",
    "resolve",
    "sum_grams",
    "tile_moments",
    "tile_weights",
    "unavailable",
    "units",
    "update_pattern",
    "whiten",
]
