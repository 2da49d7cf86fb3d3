"""What most images of a class share and images of other classes do not: a border, a caption, a pose, one camera.

A network may learn it as a shortcut, but it is not poison: an attacker plants a pattern in a minority of a class, or
the class itself could not be learned. The direction from the other classes' mean to that of one half of the class is
found, and the other half is scored along it: nothing is scored along a direction that it had a part in.

Arrays only. All floats are grey levels, scores are in standard deviations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from .. import ops
from .linalg import single_thread
from .robust import MOST_PLANTED
from .whitening import Whitening, mean_of

# share; of other classes' images, that may lie as far along the direction; source: chosen, far fewer than look alike
RARE = 0.001


@dataclass(frozen=True, eq=False)
class ClassProperty:
    """share: of the held-out half of the class, that lies further along the direction than all but RARE of the others;
    template: float64 (D,) of the whitening's level, pixels to scores; offset: what is added to them; cut: the score
    that all but RARE of the others lie below; own, other: (mean, standard deviation) of the scores of the class's
    held-out half, and of the others."""

    share: float
    template: torch.Tensor
    offset: float
    cut: float
    own: tuple[float, float]
    other: tuple[float, float]

    def log_odds(self, scores: np.ndarray) -> np.ndarray:
        """(n,) float64, that images with these scores (n,) are like the class's rather than the others'."""
        own, other = (-0.5 * np.square((scores - mean) / sd) - np.log(sd) for mean, sd in (self.own, self.other))
        odds: np.ndarray = np.clip(own - other, -50, 50)
        return odds


def look(whitening: Whitening, images: np.ndarray, others: np.ndarray) -> ClassProperty | None:
    """What most of a class shares; None if that is nothing.

    whitening: of one level, with other classes' images; images: uint8 (n, C, H, W) of the class at that level, n >= 2;
    others: uint8 (m, C, H, W) of other classes. With fewer than 1 / RARE others their largest score counts.
    """
    if len(others) < 2:
        return None
    with single_thread():
        mean = mean_of(others)
        direction = whitening.displacements((mean_of(images[::2]) - mean).float()[None])
        template = whitening.templates(direction)[0].double()
        length = torch.linalg.vector_norm(torch.cat([part.flatten() for part in direction])).double()
        template = template / length.clamp_min(1e-9)
        offset = -float(template @ mean)
        weights = (255 * template).float()[None]  # without any channel's mean: images need not lose theirs
        held_out, elsewhere = (
            ops.project(torch.from_numpy(some), templates=weights)[:, 0].numpy() + offset
            for some in (np.ascontiguousarray(images[1::2]), others)
        )
    cut = float(np.quantile(elsewhere, 1 - RARE))
    share = float((held_out > cut).mean())
    if share <= MOST_PLANTED:  # as many may be planted
        return None
    own, other = ((float(scores.mean()), float(scores.std()) + 1e-6) for scores in (held_out, elsewhere))
    return ClassProperty(share, template, offset, cut, own, other)
