"""The model's view of a dataset: how far a small pattern pushes images of other classes towards each class.

Two statistics of class t. Grow all patterns by the same number of steps, put them to one common length, and take the
mean gain in log odds of t over images the pattern was not fitted to: a backdoor carries over to unseen images; a
pattern fitted to a few images of a clean class hardly does. And see how alike the directions are, whatever their sign,
in which single images move towards t: a network that was shown its pattern shifted and mirrored answers to it at either
sign, so that no single pattern pushes images far.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..inputs import Classifier, ImageSet
from ..method import carriers as carriers_of
from ..method import stats
from ..runs.run import Run
from . import fitting, pattern_batch
from .budget import Budget
from .evidence import Carriers, Statistic, evenly_spaced, main_sources
from .growing import Growth, grow_all, known_by
from .predictions import Predictions, Removal, log_odds
from .streams import stream

# share; of the images it was trained on that a network gets right, before a note is made; source: chosen, with less,
# something may be mixed up
MIN_ACCURACY = 0.5
# share; of held-out images of some source that a pattern has to move, if only the model shows it; source: chosen,
# below it, the pattern is no backdoor
MIN_SUCCESS = 0.5
DOUBT = 4.0  # log odds; on either side of 0 in which the model's word counts too; source: chosen
# images; on either side of the doubt, for each in doubt, that tell what the model's word means; source: chosen
SURE_PER_DOUBTFUL = 2
# images; that tell how often the model says something; source: chosen, a share of 200 is within a few per cent
ENOUGH_IMAGES = 200
OTHER_IMAGES = 140  # images; of other classes in a histogram; source: chosen, each goes through the network twice


class SharedPattern(Protocol):
    """A pattern that some images share: float32 (C, H, W), pixel units; `along`: from indices of images (n,) to how far
    each lies along it, in standard deviations, float32 (n,)."""

    @property
    def pattern(self) -> np.ndarray: ...
    @property
    def along(self) -> Callable[[np.ndarray], np.ndarray]: ...


Shared = Callable[[np.ndarray, int], SharedPattern | None]  # of images (n,) of a class; None where they share none


def search_model(
    classifier: Classifier,
    images: ImageSet,
    *,
    shared: Shared,
    seed: int,
    backend: str,
    progress: Callable[[str, float], None],
    run: Run | None = None,
) -> ModelEvidence:
    """Fit and judge one small pattern per class.

    classifier: entered and checked for these images; shared: what images have in common in the images' view; backend:
    of the ops on the classifier's device; progress: called with (stage, fraction of it done); run: whose folder keeps
    what is done, None for none: the model's tasks are done here, on its device. Raises InputError where the classifier
    gives NaN or infinities.
    """
    present, budget = np.unique(images.labels), Budget.of(classifier, images.image_shape)
    fit, held_out = fitting.split(images.labels, present, seed, budget)
    pool = fitting.Pool.of(images, fit)
    run = Run(None if run is None else run.folder)  # the classifier is here
    key = "" if run.folder is None else known_by(classifier, images, backend)
    growth = Growth(classifier, pool, present, budget, seed, backend)
    grown = grow_all(growth, run, key, lambda fraction: progress("fitting patterns", fraction))
    predictions = Predictions(classifier, images, backend, budget.rows)
    predictions.hold(held_out)
    patterns = dict(zip(present.tolist(), grown.pattern, strict=True))
    gains, accuracy = fitting.held_out_gains(predictions, held_out, patterns, seed, budget, run, key, progress)
    notes = list(grown.notes)
    if grown.length < grown.first_length:
        notes.append(
            f"the network answers to faint patterns: steps are {grown.length / grown.first_length:.2g} of the usual"
        )
    if not grown.moved:
        notes.append(
            f"no pattern changed the predictions of {fitting.MIN_MOVED:.0%} of its source images within "
            f"{pattern_batch.MAX_STEPS} steps, so the model's view had little to compare"
        )
    if accuracy < MIN_ACCURACY:
        notes.append(
            f"the model gives only {accuracy:.0%} of {len(held_out)} sampled images their labels: was it trained on "
            "these, with this mean and std, and with its classes in this order?"
        )
    alignments = grown.alignment.double().clamp(1 / grown.pattern[0].numel(), 1)
    return ModelEvidence(
        predictions,
        held_out,
        _Fitted(
            patterns=patterns,
            common=dict(zip(present.tolist(), grown.common, strict=True)),
            gains=gains,
            alignments=fitting.by_label(alignments.numpy(), present, len(images.class_names)),
            lengths=fitting.by_label(fitting.lengths(patterns), present, len(images.class_names)),
            step_length=grown.length,
        ),
        shared,
        budget,
        seed=seed,
        notes=notes,
    )


@dataclass(frozen=True, eq=False)
class _Fitted:
    """patterns: by class, (C, H, W) float32, pixel units; common: by class, (C, H, W) of unit length, what the
    gradients towards it have most in common; gains, alignments, lengths: float64 (K,), NaN for classes that have no
    images; step_length: L2, pixel units."""

    patterns: dict[int, Tensor]
    common: dict[int, Tensor]
    gains: np.ndarray
    alignments: np.ndarray
    lengths: np.ndarray
    step_length: float


class ModelEvidence:
    """What a network answers to small patterns; see `evidence.Evidence`.

    Statistics: `model_statistic`, UNIT_GAIN more than the mean gain in log odds at the common length; and `alignment`,
    the mean squared cosine of the gradients towards the class at two images of other classes, without a pattern, at
    least 1 / D, which is that of unrelated directions. Gradients towards other classes lead away from a backdoor's
    target, along the same direction, so only the class of largest alignment can be called by it. Column:
    `pattern_norm`, L2 length of each pattern, pixel units: where it moved `pattern_batch.PI` of its sources, or when
    the steps ended.
    """

    view = "model"
    cross_class_p_value = None
    mark_p_values = None

    def __init__(
        self,
        predictions: Predictions,
        held_out: np.ndarray,
        fitted: _Fitted,
        shared: Shared,
        budget: Budget,
        *,
        seed: int,
        notes: Sequence[str],
    ):
        self.predictions, self.held_out, self._fitted, self._shared = predictions, held_out, fitted, shared
        self._budget, self._seed = budget, seed
        self._notes = dict.fromkeys(notes)
        self._polished: dict[int, Tensor] = {}
        self._predicted: dict[int, np.ndarray] = {}  # by class, of the held-out images with its own pattern

    @property
    def statistics(self) -> tuple[Statistic, ...]:
        alignment = Statistic("alignment", self._fitted.alignments, single=True)
        return Statistic("model_statistic", self._fitted.gains), alignment

    @property
    def columns(self) -> dict[str, np.ndarray]:
        return {"pattern_norm": self._fitted.lengths}

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(self._notes)

    def properties(self, unconfirmed: Sequence[int]) -> dict[int, Carriers]:
        return {}

    def cross_class(self, known: Sequence[int]) -> tuple[int, ...]:
        return ()

    def without(self, label: int, images: np.ndarray) -> None:
        return None

    def confirms(self, label: int) -> bool:
        """Whether the class's pattern moves enough held-out images of some source: a backdoor works."""
        return self.attack_success_by_source(label)[0][1] >= MIN_SUCCESS

    def carriers(self, label: int, called_by: str) -> Carriers:
        """The images whose log odds drop when the pattern is taken away; none are flagged where what these images seem
        to carry does not work.

        The model's own pattern is a rough one. What the images flagged with it share is a better one, if it works; and
        then how far an image lies along it tells something beside the drop.
        """
        members = np.flatnonzero(self.predictions.images.labels == label)
        plain = self.predictions.plain(members)
        some = evenly_spaced(members, self._budget.images(ENOUGH_IMAGES))
        rough = self._carried_by(members, label, self.carried_pattern(label, some), plain)
        carried = self._sharpened(members, label, rough, plain) or rough
        sources = self._sources(label, carried)
        success_rate = self.success_rate(label, carried.pattern, sources) or 0.0
        if success_rate < MIN_SUCCESS:
            return self._carried_by_none(members, label, carried)
        return Carriers(
            members=members,
            log_odds=carried.log_odds,
            flagged=carried.flagged,
            scores=carried.scores,
            other_scores=self._other_scores(label, carried) if carried.flagged.any() else np.zeros(0),
            pattern=carried.pattern.numpy(),
            sources=sources,
            success_rate=success_rate,
        )

    def corroborate(self, label: int, carriers: Carriers) -> Carriers:
        """With what the model says of the pattern, if there is one: whether doubtful images carry it, its sources, its
        success."""
        carriers = self._doubt_settled(label, carriers)
        if carriers.pattern is None or not carriers.flagged.any():
            return carriers
        pattern = torch.from_numpy(np.array(carriers.pattern))
        flagged = evenly_spaced(carriers.members[carriers.flagged], self._budget.images(ENOUGH_IMAGES))
        predicted = self.predictions.without(flagged, pattern)
        sources = main_sources(self.predictions.shares(predicted, but=label)) or carriers.sources
        return replace(carriers, sources=sources, success_rate=self.success_rate(label, pattern, sources))

    def pattern(self, label: int) -> Tensor:
        """The pattern of a class that was found, carried on over more images: (C, H, W) float32, pixel units."""
        if label not in self._polished:
            images = self.predictions.images
            each = self._budget.images(fitting.POLISH_IMAGES)
            chosen = fitting.sample(images.labels, each, stream(self._seed, "polish images"), but=self.held_out)
            pool = fitting.Pool.of(images, np.concatenate(chosen))
            batch = pool.batch(
                self.predictions.classifier,
                np.array([label]),
                len(chosen) * each,
                self._seed,
                self.predictions.backend,
                rows=self._budget.rows,
            )
            batch.pattern[0] = self._fitted.patterns[label]
            batch.length = self._fitted.step_length
            for _ in range(fitting.POLISH_STEPS):
                batch.step(torch.ones(1, dtype=torch.bool, device="cpu"))
                if batch.look()[0] >= pattern_batch.PI:
                    break
            self._polished[label] = batch.pattern[0].cpu()
            self._notes.update(dict.fromkeys(batch.notes))
        return self._polished[label]

    def carried_pattern(self, label: int, indices: np.ndarray) -> Tensor:
        """What images of a class that was found most likely carry: its pattern, or what the gradients towards it have
        in common at the same length, or the negative of either. Of these, the candidate whose removal from images (n,)
        of the class leaves the least log odds: a network that was shown a pattern shifted and mirrored answers to other
        phases and signs too, its images carry one. (C, H, W) float32, pixel units."""
        own = self.pattern(label)
        common: Tensor = (self._fitted.common[label] * own.norm()).clamp(-1, 1)

        def remaining(pattern: Tensor) -> float:
            """Mean log odds without the pattern."""
            return float(log_odds(self.predictions.logits(indices, pattern, -1), label).double().mean())

        return min((own, -own, common, -common), key=remaining)

    def success_rate(self, label: int, pattern: Tensor, sources: tuple[int, ...]) -> float | None:
        """Share of held-out images of the source classes whose prediction the pattern changes to `label`; None if there
        are none."""
        chosen = np.isin(self.predictions.images.labels[self.held_out], sources)
        if not chosen.any():
            return None
        if pattern is self._polished.get(label):
            predicted = self._predicted_with_own(label)[chosen]
        else:
            predicted = self.predictions.classes(self.predictions.logits(self.held_out[chosen], pattern, 1))
        return float((predicted == label).mean())

    def attack_success_by_source(self, label: int) -> tuple[tuple[int, float], ...]:
        """The other classes by the success rate of the class's own pattern on them: (class, rate), largest first."""
        sources = self.predictions.images.labels[self.held_out]
        changed = self._predicted_with_own(label) == label
        rates = ((int(s), float(changed[sources == s].mean())) for s in np.unique(sources) if s != label)
        return tuple(sorted(rates, key=lambda pair: -pair[1]))

    def _predicted_with_own(self, label: int) -> np.ndarray:
        """The prediction for every held-out image with the class's own pattern: int64 (n,)."""
        if label not in self._predicted:
            logits = self.predictions.logits(self.held_out, self.pattern(label), 1)
            self._predicted[label] = self.predictions.classes(logits)
        return self._predicted[label]

    def _carried_by(self, members: np.ndarray, label: int, pattern: Tensor, plain: Tensor) -> _Carried:
        removal = self.predictions.removal(members, label, pattern, plain)
        return _Carried(pattern, removal, removal.log_odds_drop, _upper_log_odds(removal.log_odds_drop))

    def _sharpened(self, members: np.ndarray, label: int, rough: _Carried, plain: Tensor) -> _Carried | None:
        """With the pattern that the flagged images share, where that works."""
        shared = self._shared(members[rough.flagged], label) if rough.flagged.any() else None
        if shared is None:
            return None
        better = self._carried_by(members, label, torch.from_numpy(shared.pattern), plain)
        sources = self._sources(label, better)
        if (self.success_rate(label, better.pattern, sources) or 0.0) < MIN_SUCCESS:
            return None
        along = shared.along(members)
        weight = stats.fisher_weight(better.scores, along, better.log_odds)
        scores = better.scores + weight * along
        return _Carried(better.pattern, better.removal, scores, _upper_log_odds(scores), shared.along, weight)

    def _carried_by_none(self, members: np.ndarray, label: int, carried: _Carried) -> Carriers:
        pattern = self.pattern(label)
        sources = main_sources(self.attack_success_by_source(label))
        return Carriers(
            members=members,
            log_odds=carried.log_odds,
            flagged=np.zeros(len(members), bool),
            scores=carried.scores,
            other_scores=np.zeros(0),
            pattern=pattern.numpy(),
            sources=sources,
            success_rate=self.success_rate(label, pattern, sources) or 0.0,
        )

    def _sources(self, label: int, carried: _Carried) -> tuple[int, ...]:
        """The classes that flagged images come from: their predictions without the pattern."""
        return main_sources(self.predictions.shares(carried.removal.predicted[carried.flagged], but=label))

    def _other_scores(self, label: int, carried: _Carried) -> np.ndarray:
        labels = self.predictions.images.labels
        others = evenly_spaced(np.flatnonzero(labels != label), self._budget.images(OTHER_IMAGES))
        plain = self.predictions.plain(others)
        scores = self.predictions.removal(others, label, carried.pattern, plain).log_odds_drop
        return scores if carried.along is None else scores + carried.weight * carried.along(others)

    def _doubt_settled(self, label: int, carriers: Carriers) -> Carriers:
        """With what the model says of images that the pattern leaves in doubt, because saturation swallowed it, say.

        Carriers come from other classes, and a classifier that was taught to give them the target's label sees those
        classes behind it. As many sure images are asked as tell what its word means: a few for each in doubt.
        """
        doubtful = np.flatnonzero(np.abs(carriers.log_odds) < DOUBT)
        most = min(SURE_PER_DOUBTFUL * len(doubtful), ENOUGH_IMAGES)
        upper, lower = (
            evenly_spaced(np.flatnonzero(group), most)
            for group in (carriers.log_odds >= DOUBT, carriers.log_odds <= -DOUBT)
        )
        if not (len(doubtful) and len(upper) and len(lower)):
            return carriers
        said = [self.predictions.runner_up(carriers.members[group], label) for group in (upper, lower, doubtful)]
        ratio = stats.class_log_likelihood_ratio(said[0], said[1], len(self.predictions.images.class_names))
        settled = carriers.log_odds.copy()
        settled[doubtful] += ratio[said[2]]
        return replace(carriers, log_odds=settled, flagged=settled > carriers_of.FLAG_LOG_ODDS)


@dataclass(frozen=True, eq=False)
class _Carried:
    """A pattern (C, H, W) that images (n,) of a class may carry: what its removal does to them, their scores, and the
    log odds that each carries it; along, weight: the second part of a score, if it has one."""

    pattern: Tensor
    removal: Removal
    scores: np.ndarray
    log_odds: np.ndarray
    along: Callable[[np.ndarray], np.ndarray] | None = None
    weight: float = 0.0

    @property
    def flagged(self) -> np.ndarray:
        """(n,) bool."""
        flagged: np.ndarray = self.log_odds > 0
        return flagged


def _upper_log_odds(scores: np.ndarray) -> np.ndarray:
    """(n,), that an image is of the upper part of a class; a few images have none."""
    return stats.two_normals(scores) if len(scores) >= 4 else np.full(len(scores), -np.inf)
