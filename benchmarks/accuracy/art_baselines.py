"""Published filters of poisoned training images, as adversarial-robustness-toolbox (ART) implements them.

  activation clustering  Chen et al., 2018: two-means in each class on ten principal components of the features; one
                         clustering, and ART's three rules for which cluster is poison: "smaller" (its default: one
                         cluster of every class), "relative-size" (below 35% of the class), "silhouette-scores"
                         (below 35%, and a mean silhouette above 0.1)
  spectral signatures    Tran et al., 2018: the images of each class farthest along the features' first singular
                         vector, 1.5 times as many as are expected to be poisoned: as ART has it, which measures from
                         the origin, and as published, from the class's mean ("centred")
Settings are ART's own, but for the share that spectral signatures expect: it is told the truth (the largest share of
poisoned images in a class), which no defender knows. On a clean set that is 0, and it flags one image per class.
"""

from __future__ import annotations

import time
from typing import Any

import art
import numpy as np
import torch
from art.defences.detector.poison import ActivationDefence, SpectralSignatureDefense
from art.estimators.classification import PyTorchClassifier
from sklearn.metrics import silhouette_score
from torch import Tensor, nn

from benchmarks.accuracy.victims import Known

SMALL, APART = 0.35, 0.1  # share of the class, mean silhouette
RULES = ("smaller", "relative-size", "silhouette-scores")


class _Body(nn.Module):
    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net.features(x.contiguous(memory_format=torch.channels_last))


class FeaturesLast(nn.Module):
    """The same network with its feature body registered last: ART reads the last child, whatever runs last."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.head = net.fc
        self.body = _Body(net)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def run(net: nn.Module, data: Known, classes: int) -> dict[str, Any]:
    """{method: {found, lost, flagged, seconds}} and ART's version.

    net: with `features` (n, C, H, W) -> (n, F) and a last layer `fc`, float32 images in [0, 1]. found: share of the
    poisoned images that are flagged, None without any; lost: share of the clean; flagged: how many in all; seconds:
    of one method, the features included.
    """
    images = data.images.astype(np.float32) / 255
    classifier = PyTorchClassifier(
        model=FeaturesLast(net).eval(),
        loss=nn.CrossEntropyLoss(),
        input_shape=images.shape[1:],
        nb_classes=classes,
        clip_values=(0, 1),
        device_type="gpu" if torch.cuda.is_available() else "cpu",
    )
    results: dict[str, Any] = {"art": art.__version__}
    start = time.perf_counter()
    np.random.seed(0)  # ART's two-means draws from the global generator
    clustering = ActivationDefence(classifier, images, data.labels)
    smaller = np.asarray(clustering.detect_poison()[1]) == 0
    for rule, flagged in suspected(smaller, data.labels, clustering.red_activations_by_class).items():
        results[f"activation clustering, {rule}"] = compared(flagged, data, start)
    start, share = time.perf_counter(), largest_share(data, classes)
    spectral = SpectralSignatureDefense(classifier, images, data.labels, expected_pp_poison=share)
    flagged = np.asarray(spectral.detect_poison()[1]) == 0
    results["spectral signatures, ART"] = {**compared(flagged, data, start), "expected_pp_poison": share}
    start = time.perf_counter()
    flagged = farthest(clustering.activations_by_class, data.labels, spectral.eps_multiplier * share)
    results["spectral signatures, centred"] = {**compared(flagged, data, start), "expected_pp_poison": share}
    return results


def farthest(features: list[np.ndarray], labels: np.ndarray, share: float) -> np.ndarray:
    """Flags, bool (M,), of the share of each class that lies farthest from its mean along its first singular vector."""
    flagged = np.zeros(len(labels), bool)
    for k, each in enumerate(features):
        scores = SpectralSignatureDefense.spectral_signature_scores(each - each.mean(0))[:, 0]
        flagged[labels == k] = scores >= np.quantile(scores, max(1 - share, 0.0))
    return flagged


def largest_share(data: Known, classes: int) -> float:
    """Of poisoned images in a class."""
    counts = [np.bincount(data.labels[rows], minlength=classes) for rows in (data.poisoned, slice(None))]
    return float((counts[0] / np.maximum(counts[1], 1)).max())


def suspected(smaller: np.ndarray, labels: np.ndarray, features: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Each rule's flags, bool (M,), from those of the smaller cluster of each class, with ART's thresholds.

    features: of each class, its members in order, as they were clustered. The last two rules are written out here since
    ART 1.20.1's own fail: by relative size it raises under NumPy 2.2 or newer when a class is not suspected, and by
    silhouette it leaves the flags of the larger cluster of a suspected class unset.
    """
    small, apart = smaller.copy(), smaller.copy()
    for k, reduced in enumerate(features):
        members = labels == k
        small[members] &= round(float(smaller[members].mean()), 2) < SMALL
        apart[members] &= small[members] & (silhouette_score(reduced, smaller[members]) > APART)
    return dict(zip(RULES, (smaller, small, apart), strict=True))


def compared(flagged: np.ndarray, data: Known, start: float) -> dict[str, Any]:
    poisoned = data.poisoned
    return {
        "found": float(flagged[poisoned].mean()) if poisoned.any() else None,
        "lost": float(flagged[data.clean].mean()),
        "flagged": int(flagged.sum()),
        "seconds": round(time.perf_counter() - start, 1),
    }
