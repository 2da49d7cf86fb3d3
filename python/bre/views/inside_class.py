"""One class seen inside a network: its two modes, which of them is planted, and which images are in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from ..inputs import Layer
from ..method import carriers as carriers_of
from ..method import modes
from ..method.class_spread import ClassSpread, OtherClasses, between_share, kappa
from ..method.linalg import single_thread
from ..method.robust import median_and_spread
from .evidence import Carriers, main_sources

# ratio; of a layer's separation to the best one's, from which on it helps to tell images apart; source: chosen, weaker
# layers add noise
JOINED_LAYERS = 0.25
# channels; of the layers that are joined, but for the best one; source: chosen, work grows as the cube
JOINED_CHANNELS = 2048
MODES_FROM = 2000  # images; that a direction is searched with, at most; source: chosen, work grows as the square
# share; of a class that the lesser mode is the planted one below, whatever it looks like; source: chosen
SMALL_MODE = 0.25
# depth; of the layers that tell whether images are of several classes; source: chosen, classes do not show before, and
# the trigger drowns them behind
MIDDLE = (0.4, 0.8)
# share, and its standard deviation; `between_share` of images of one thing; source: chosen, what classes of
# the networks had that were trained while this was built
BETWEEN_OF_ONE_THING = (0.0, 0.15)
# ratio, and its standard deviation; likewise, kappa between the class that an image looks like half way through a
# network and the one that the network names second; source: chosen, likewise
KAPPA_OF_ONE_THING = (0.25, 0.1)
# standard deviations; sum of both where they are above the mean, from which on images are of several classes; source:
# derived, one in 400 for two independent normals
OF_SEVERAL_CLASSES = 4.0


UNUSUAL = 3.0  # robust standard deviations; above what classes of the same network have; source: chosen
# images, share; flagged by another view, that are nearly all in a mode; source: chosen, a mode of half a class holds 19
# of 20 by chance once in 50 000
MIN_CONTAINED, CONTAINED = 20, 0.95


@dataclass(frozen=True, eq=False)
class Inside:
    """Images of a class seen inside. members: int64 (n,); found: the two modes, the planted one the upper; scores:
    (n,), 0 and 1 near the modes' means; other_scores: (m,) of images of other classes; log_odds: (n,), of the upper;
    logits: (n, K'); several: of the upper mode's images, see `of_several_classes`."""

    members: np.ndarray
    found: modes.TwoModes
    scores: np.ndarray
    other_scores: np.ndarray
    log_odds: np.ndarray
    logits: np.ndarray
    several: float

    @property
    def separation(self) -> float:
        return modes.separation(special.expit(self.log_odds))

    @property
    def flagged(self) -> np.ndarray:
        """(n,) bool: the images of the planted mode."""
        flagged: np.ndarray = self.log_odds > carriers_of.FLAG_LOG_ODDS
        return flagged

    @property
    def prior(self) -> float:
        """Log odds of any image of the class, before it is looked at."""
        return float(special.logit(np.clip(self.found.upper, 1e-6, 1 - 1e-6)))

    def towards(self, flagged: np.ndarray) -> Inside:
        """With the mode that most of what another view flags, bool (n,), is in as the planted one."""
        if float((self.log_odds > 0)[flagged].mean()) >= 0.5:
            return self
        (low, high), (below, above) = self.found.means, self.found.variances
        found, scores = modes.TwoModes(1 - self.found.upper, (1 - high, 1 - low), (above, below)), 1 - self.scores
        return replace(
            self,
            found=found,
            scores=scores,
            other_scores=1 - self.other_scores,
            log_odds=found.log_odds(scores),
            several=0.0,
        )

    def same(self, flagged: np.ndarray) -> bool:
        """Whether most of what another view flags, bool (n,), is in the upper mode, and most of the mode flagged."""
        upper = self.log_odds > 0
        return 2 * int((upper & flagged).sum()) > max(int(upper.sum()), int(flagged.sum()))

    def contains(self, flagged: np.ndarray) -> bool:
        """Whether what another view flags is nearly all in the upper mode, and too many for chance."""
        return int(flagged.sum()) >= MIN_CONTAINED and float((self.log_odds > 0)[flagged].mean()) >= CONTAINED

    def agrees(self, flagged: np.ndarray) -> bool:
        """Whether what another view flags, bool (n,), is in one of the modes, and is most of it or surely a part."""
        toward = self.towards(flagged)
        return toward.same(flagged) or toward.contains(flagged)

    def carriers(self, sources: tuple[int, ...]) -> Carriers:
        """The images of the upper mode; there is no pattern."""
        return Carriers(
            members=self.members,
            log_odds=self.log_odds,
            flagged=self.flagged,
            scores=self.scores,
            other_scores=self.other_scores,
            pattern=None,
            sources=sources,
        )

    def sources(self, label: int) -> tuple[int, ...]:
        """The classes that flagged images look like: the most likely after the class itself."""
        logits = self.logits[self.flagged].copy()
        logits[:, label] = -np.inf
        counts = np.bincount(logits.argmax(1), minlength=logits.shape[1]) / max(len(logits), 1)
        order = np.argsort(-counts, kind="stable")
        return main_sources([(int(k), float(counts[k])) for k in order])


def look(
    label: int,
    members: np.ndarray,
    activations: Sequence[np.ndarray],
    logits: np.ndarray,
    spreads: Sequence[ClassSpread],
    layers: Sequence[Layer],
    worth: np.ndarray,
    upper: np.ndarray | None = None,
) -> Inside | None:
    """Two modes of images of a class, in the layers that show them, joined; None where they do not fall apart.

    members: int64 (n,); activations: (n + m, d) each layer, m images of other classes behind; logits: (n + m, K');
    worth: (layers,), the class's separation in each layer; upper: (n,), responsibilities that another view gives, whose
    modes are looked for then, in the layers that show those.
    """
    count = len(members)
    with single_thread():
        others = [spread.without(label) for spread in spreads]
        if upper is not None:
            own = (classes.whiten(values[:count]) for classes, values in zip(others, activations, strict=True))
            worth = np.array([modes.separation_from(values, upper) for values in own])
        used = joined(worth, [layer.channels for layer in layers])
        parts = [others[number].whiten(activations[number]) for number in used]
        if upper is None:
            upper = modes_of(parts[0][:count])
        together = np.concatenate(parts, axis=1)
        scored = modes.held_out_scores(together[:count], together[count:], upper)
        if scored is None:
            return None
        scores, beside = scored
        found, upper = modes.two_modes(scores, upper)
        sides = [
            of_several_classes(others, [values[:count][side] for values in activations], logits[:count][side], layers)
            for side in (upper > 0.5, upper <= 0.5)
        ]
    if is_lower_planted(float(upper.mean()), *sides):
        scores, beside, sides = 1 - scores, 1 - beside, sides[::-1]
        found, _ = modes.two_modes(scores, 1 - upper)
    return Inside(members, found, scores, beside, found.log_odds(scores), logits[:count], sides[0])


def of_several_classes(
    others: Sequence[OtherClasses], activations: Sequence[np.ndarray], logits: np.ndarray, layers: Sequence[Layer]
) -> float:
    """How much images of a class look like those of several other classes, whatever else they have in common: in
    standard deviations of images of one thing, the sum of two.

    others: of each layer, all other classes; activations: (n, d) each layer, of which those half way through the
    network are used; logits: (n, K'). First, whether they differ by what other classes differ by. Second, whether the
    class that each looks like there is the one that the network names second for it.
    """
    middle = [
        (classes, values)
        for classes, layer, values in zip(others, layers, activations, strict=True)
        if MIDDLE[0] <= layer.depth <= MIDDLE[1]
    ]
    labels = middle[0][0].labels if middle else ()
    if len(labels) < 2 or len(logits) < 2:
        return 0.0
    variances = (classes.variance(values) for classes, values in middle)
    between = between_share([each for each in variances if each is not None])
    looks_like = np.sum([classes.distances(values) for classes, values in middle], axis=0)
    agreed = kappa(looks_like.argmin(1), logits[:, labels].argmax(1))
    return sum(
        max(0.0, (value - mean) / deviation)  # a trigger that drowns the rest says nothing against it
        for value, (mean, deviation) in ((between, BETWEEN_OF_ONE_THING), (agreed, KAPPA_OF_ONE_THING))
    )


def needed(usual: np.ndarray) -> float:
    """What `of_several_classes` has to be for images to be planted; usual: (k,), of all images of each of some
    classes. Networks of other kinds tell classes apart at other depths."""
    middle, spread = median_and_spread(usual)
    return max(OF_SEVERAL_CLASSES, middle + UNUSUAL * spread)


def joined(worth: np.ndarray, channels: Sequence[int]) -> list[int]:
    """Numbers of the layers that tell images apart together, the best one first."""
    worth = np.nan_to_num(worth, nan=1.0)
    order = np.argsort(-worth, kind="stable")
    useful = order[worth[order] >= JOINED_LAYERS * worth.max()]
    total = np.cumsum(np.asarray(channels)[useful])
    kept: list[int] = useful[(total <= JOINED_CHANNELS) | (np.arange(len(useful)) == 0)].tolist()
    return kept


def modes_of(values: np.ndarray) -> np.ndarray:
    """Responsibilities (n,) of the upper of the two modes of whitened values (n, d); zeros where there are none."""
    found = modes.search(values[:: max(1, len(values) // MODES_FROM)])
    if found is None:
        return np.zeros(len(values))
    scores = values @ found.direction
    _, upper = modes.two_modes(scores, special.expit(found.modes.log_odds(scores)))
    return upper


def is_lower_planted(share: float, upper: float, lower: float) -> bool:
    """Which of two modes is planted: the lesser, and where neither is small the one whose images look more like those
    of several other classes, if one does. share: of the upper; upper, lower: `of_several_classes` of their images."""
    if min(share, 1 - share) < SMALL_MODE or max(upper, lower) < OF_SEVERAL_CLASSES:
        return share > 0.5
    return lower > upper
