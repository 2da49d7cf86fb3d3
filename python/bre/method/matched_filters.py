"""What some images of a class share in one window, as a matched filter of pixels; and how common it is elsewhere.

Natural classes hold modes too: corners of one white, the artefacts of one encoder, a frame. Images of other classes
have them as well, though not always as often. A pattern that was planted in one class is in hardly any image of others.
Filters are linear, so that one pass over a sample of all images asks for those of all classes.

Arrays only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .. import ops
from ..ops.tiles import CELL
from .clusters import MODE_FLOOR, Found, is_another
from .codes import Codes
from .directions import shared_by
from .levels import Window
from .linalg import single_thread
from .whitening import Whitening

FILTER_IMAGES = 64  # images; that make a filter, the strongest; source: chosen, more change it little
MAX_COMPARED = 4  # modes; of a class that are compared with other classes; source: chosen, each takes a pass
# quantiles; of the scores of a mode's images, between which others are taken to have what they share; source: chosen,
# so that no single one of them makes the interval wide
BETWEEN = (0.1, 0.9)
# ratio; of how much of it a class may hold by nature to what others do; source: chosen, in view of CIFAR-10's
# classes, most of whose modes it explains, and some not
NATURAL_RATIO = 2.0
ERRORS = 2.0  # standard errors; of chance, that more images elsewhere are beyond; source: chosen, the usual number
LEAST_ELSEWHERE = 0.5  # images; of a sample that are taken to have it, where none has; source: chosen, less than one


@dataclass(frozen=True, eq=False)
class MatchedFilter:
    """found: a mode, members counted among the images that were searched; template: float32 (D,), of its level's
    pixels; scores: float32 (s,), of images of the class along it, those of the mode each without its own part in it;
    inside: int64, which of them are in the mode; beside: int64, which do not lie out along it; count: images that the
    class counts for."""

    found: Found
    template: np.ndarray
    scores: np.ndarray
    inside: np.ndarray
    beside: np.ndarray
    count: int

    def evidence(self, elsewhere: np.ndarray) -> float:
        """Nats, that the mode is more of the class than nature explains; elsewhere: scores (m,) of images of others.

        The log likelihood ratio of its images' number against the number expected, as Poisson, if the class holds up to
        NATURAL_RATIO times as much of it as others do. Of those that score as its images do, as many as of images that
        lack it do so by chance.
        """
        beside = self.scores[self.beside]
        usual = float(np.median(beside)) if len(beside) else 0.0
        low, high = np.quantile(self.scores[self.inside], BETWEEN) - usual
        others = elsewhere - np.median(elsewhere)
        share, by_chance = (_between(scores, low, high) for scores in (others, beside - usual))
        error = np.sqrt(by_chance * (1 / len(elsewhere) + 1 / max(len(beside), 1)))
        more = (share - by_chance - ERRORS * error) * len(elsewhere)
        there = max(more, LEAST_ELSEWHERE) / (BETWEEN[1] - BETWEEN[0])
        expected, seen = NATURAL_RATIO * self.count * there / len(elsewhere), len(self.inside)
        return seen * float(np.log(seen / expected)) - (seen - expected) if seen > expected else 0.0


def _between(scores: np.ndarray, low: float, high: float) -> float:
    """Share of scores (n,) from low to high."""
    return float(((scores >= low) & (scores <= high)).mean()) if len(scores) else 0.0


def of_class(
    whitenings: Sequence[Whitening],
    codes: Sequence[Codes],
    found: Sequence[Found],
    images: Sequence[np.ndarray],
    kept: np.ndarray,
) -> list[MatchedFilter]:
    """whitenings, codes: by level; found: modes of the class; images: uint8 (m, C, h, w) by level; kept: int64 (n,),
    which of them were searched."""
    out = []
    with single_thread():
        for each in found:
            rows = strongest(each)
            theirs = images[each.level][kept[rows]]
            template, own = template_of(whitenings[each.level], codes[each.level], each.window, theirs, rows)
            scores = score([template], images[each.level])[0][kept]
            scores[rows] -= own
            beside = np.flatnonzero(each.scores < MODE_FLOOR)
            out.append(MatchedFilter(each, template, scores, each.members, beside, len(kept)))
    return out


def strongest(found: Found) -> np.ndarray:
    """int64, ascending: up to FILTER_IMAGES of a mode's images, those that lie furthest along it."""
    rows: np.ndarray = np.sort(found.members[np.argsort(-found.scores[found.members], kind="stable")[:FILTER_IMAGES]])
    return rows


def template_of(
    whitening: Whitening, codes: Codes, window: Window, images: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of some images, rows int64 (k,) of the codes: the template of what they share in a window, float32 (D,), and what
    each made of its own score along it, float32 (k,). images: theirs, uint8 (k, C, h, w)."""
    there = torch.from_numpy(rows).to(codes.device)
    total = shared_by(codes, window, there).total.cpu()
    length = float(torch.linalg.vector_norm(total).clamp_min(1e-9))
    whitened = whitening.whiten(images)
    direction = [each.new_zeros(1, *each.shape[1:]) for each in whitened]
    into, values, start = whitening.cells(direction), whitening.cells(whitened), 0
    own = whitened[0].new_zeros(len(rows))
    for number in codes.inside(window):
        theirs = codes.units[number][there].cpu().float()
        place = 0
        for cell in codes.level.units[number].cells:
            where = cell.top // CELL, cell.left // CELL
            size = into[where].shape[1]
            into[where][0] = total[start : start + size] / length
            own += (theirs[:, place : place + size] * values[where]).sum(1) / length
            start, place = start + size, place + size
    return whitening.templates(direction)[0].numpy(), own.numpy()


def score(templates: Sequence[np.ndarray], images: np.ndarray) -> np.ndarray:
    """float32 (P, n): scores of images, uint8 (n, C, H, W), along P templates, each up to a constant."""
    with single_thread():
        weights = torch.from_numpy(255 * np.stack(templates))
        scores: np.ndarray = ops.project(torch.from_numpy(images), templates=weights).T.contiguous().numpy()
    return scores


def different(found: Sequence[Found]) -> list[Found]:
    """The first MAX_COMPARED that are no mode of the same images as one before."""
    chosen: list[Found] = []
    for each in found:
        if len(chosen) < MAX_COMPARED and is_another(each.members, (other.members for other in chosen)):
            chosen.append(each)
    return chosen
