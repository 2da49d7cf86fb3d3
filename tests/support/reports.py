"""Reports made by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bre.inputs import open_dataset
from bre.report import ClassRow, Cost, DatasetFacts, Finding, Histogram, Report, dataset_facts

NAMES = ("plane", "car", "bird", "cat")
SHAPE = (3, 4, 5)


def make_finding(**changes):
    rng = np.random.default_rng(0)
    return Finding(
        **{
            "target": 2,
            "sources": (1, 3),
            "p_value": 3e-5,
            "pattern": rng.uniform(-0.01, 0.01, SHAPE).astype(np.float32),
            "pattern_norm": 0.3,
            "indices": np.array([2, 4, 9]),
            "log_odds": np.array([1.5, 2.5, 3.5], np.float32),
            "success_rate": 0.985,
            "seen_in": ("images", "model"),
            **changes,
        }
    )


def make_histogram(**changes):
    given = {"edges": [-1.0, 0.0, 1.5], "target_counts": [2, 3], "other_counts": [15, 0], "cut": 0.0}
    return Histogram(**{**given, **changes})


def make_facts(**changes):
    given = {"source": "set.npz", "count": 20, "image_shape": SHAPE, "class_names": NAMES, "fingerprint": "0a" * 32}
    return DatasetFacts(**{**given, **changes})


def make_report(**changes):
    rows = [ClassRow(k, name, 5, True, 1.5, 0.4, 0.8) for k, name in enumerate(NAMES)]
    return Report(
        **{
            "verb": "detect",
            "poisoned": True,
            "p_value": 3e-5,
            "alpha": 0.05,
            "findings": (make_finding(),),
            "classes": rows,
            "cost": Cost(20, 10, {"images": 5.2, "model": 7.1}),
            "backend": "cpu",
            "seed": 0,
            "versions": {"bre": "0.1.0"},
            "dataset": make_facts(),
            **changes,
        }
    )


def make_property(**changes):
    """What a class shares by its nature, in a corner."""
    return make_finding(**{"kind": "property", "sources": (), "window": (0, 1, 2, 3), "success_rate": None, **changes})


def make_clean(**changes):
    return make_report(**{"poisoned": False, "findings": (), "p_value": 0.41, "verb": "screen", **changes})


M = 12  # images of the sets that `flagging` is about
LABELS = np.arange(M) % 3
FLAGGED = {1: [1, 4], 2: [5]}  # target: images


def flagging(dataset: Any, flagged: Mapping[int, Sequence[int]] = FLAGGED, kind: str = "poison") -> Report:
    """A report by hand that flags images of a dataset: {target: indices}."""
    images, findings = open_dataset(dataset), []
    for target, indices in flagged.items():
        findings.append(
            Finding(
                target=target,
                sources=(),
                p_value=0.001 * target,
                pattern=np.zeros(images.image_shape, np.float32),
                pattern_norm=0.0,
                indices=np.array(indices, np.int64),
                log_odds=np.array(indices, np.float32) / 2,
                success_rate=None,
                seen_in=("images",),
                kind=kind,
            )
        )
    return Report(
        verb="screen",
        poisoned=bool(findings) and kind == "poison",
        p_value=0.001,
        alpha=0.05,
        findings=tuple(findings),
        classes=(),
        cost=Cost(0, 0, {}),
        backend="reference",
        seed=0,
        versions={},
        dataset=dataset_facts(images, findings),
    )
