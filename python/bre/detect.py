"""`bre.detect`: was this classifier given a backdoor by the images it was trained on?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from . import ops, stats
from .errors import InputError
from .image_view import ImageView
from .inputs import open_dataset, open_model
from .model_view import ModelView
from .report import Cost, Finding, Report, dataset_facts, versions
from .screen import (
    Clock,
    Progress,
    check_images,
    check_options,
    class_rows,
    image_finding,
    judge_classes,
    main_sources,
)  # fmt: skip

LEAST_SUCCESS = 0.5  # of held-out images of some source: below it, a pattern that only the model shows is no backdoor


def detect(
    model: Any, dataset: Any, *, seed: int = 0, alpha: float = 0.05, mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None, backend: str = "auto", unsafe: bool = False, progress: Progress | None = None,
) -> Report:  # fmt: skip
    """Look for a backdoor in a classifier and the images it was trained on.

    model: an nn.Module, an ExportedProgram, a TorchScript module, or the path of a `.pt2` or TorchScript file, from
        float32 (n, C, H, W) to logits (n, K)
    dataset, seed, alpha, backend, unsafe, progress: as for `bre.screen`
    mean, std: C floats each, in units of [0, 1], if the network wants (x - mean) / std; neither if it takes [0, 1]

    Two views, each tested at alpha / 2: the images' (as `bre.screen`), and the model's: the pattern that pushes images
    of other classes towards a class, and how well it carries over to unseen images (docs/method.md). Raises InputError
    for unusable input, BackendUnavailable.
    """
    seed, alpha = check_options(seed, alpha)
    backend = ops.resolve(backend)
    clock = Clock(progress)
    with clock.stage("open"):
        images = open_dataset(dataset, unsafe=unsafe)
        check_images(images)
        classifier = open_model(model, mean=mean, std=std, unsafe=unsafe)
        if classifier.device.type != "cpu":
            raise InputError(f"the model is on {classifier.device}; detect runs on the CPU as yet: pass model.cpu()")
    with classifier:
        with clock.stage("open model"):
            classifier.check(images.image_shape, len(images.class_names))
        with clock.stage("optimize"):
            model_view = ModelView(classifier, images, seed=seed, backend=backend, progress=clock.progress)
            by_model = _working(judge_classes(model_view.statistics, alpha / 2), model_view)
        with clock.stage("search"):
            image_view = ImageView(images, seed=seed, backend=backend, progress=clock.progress)
            by_images = judge_classes(image_view.statistics, alpha / 2, image_view.chances)
        p_values = np.minimum(1.0, 2 * np.fmin(by_model.p_values, by_images.p_values))
        findings = []
        with clock.stage("recover"):
            for label in dict.fromkeys(by_images.outliers + by_model.outliers):
                clock.progress(f"recovering the pattern of class {label}", 0.0)
                p_value = float(p_values[label])
                if label in by_images.outliers:
                    finding = image_finding(label, p_value, image_view.carriers(label), images)
                    findings.append(_seen_by_model(finding, model_view, label in by_model.outliers))
                else:
                    findings.append(_model_finding(label, p_value, model_view))
    return Report(
        verb="detect", poisoned=bool(findings), p_value=stats.combine(by_model.p_value, by_images.p_value),
        alpha=alpha, findings=tuple(findings),
        classes=tuple(
            class_rows(
                images, p_values, image_statistic=image_view.statistics, model_statistic=model_view.statistics,
                pattern_norm=model_view.norms,
            )
        ),
        cost=Cost(classifier.forward_images, classifier.backward_images, clock.seconds),
        backend=backend, seed=seed, versions=versions(), dataset=dataset_facts(images),
    )  # fmt: skip


def _working(test: stats.OutlierTest, view: ModelView) -> stats.OutlierTest:
    """The test without those outliers whose pattern moves too few images of every source: a backdoor works."""
    idle = [label for label in test.outliers if view.best_success_rate(label) < LEAST_SUCCESS]
    p_values = test.p_values.copy()
    p_values[idle] = 1.0
    outliers = tuple(label for label in test.outliers if label not in idle)
    return stats.OutlierTest(p_values, outliers, 1.0 if idle and not outliers else test.p_value)


def _seen_by_model(finding: Finding, view: ModelView, outlier: bool) -> Finding:
    """A finding of the data's view, with what the model says of its pattern: the sources, and how often it works."""
    if not len(finding.indices):
        return finding
    pattern = torch.from_numpy(np.array(finding.pattern))
    sources = main_sources(view.homes(finding.indices, finding.target, pattern)) or finding.sources
    return Finding(
        target=finding.target, sources=sources, p_value=finding.p_value, pattern=finding.pattern,
        pattern_norm=finding.pattern_norm, indices=finding.indices, scores=finding.scores,
        success_rate=view.success_rate(finding.target, pattern, sources), evidence="both" if outlier else "images",
    )  # fmt: skip


def _model_finding(label: int, p_value: float, view: ModelView) -> Finding:
    """A finding that only the model shows: its images are those whose log odds fall when the pattern is taken away."""
    pattern = view.pattern(label)
    members = np.flatnonzero(view.images.labels == label)
    log_odds = stats.two_normals(view.fall(members, label, pattern)).log_odds if len(members) >= 4 else np.zeros(0)
    members = members[: len(log_odds)]
    flagged = log_odds > 0
    sources = main_sources(view.homes(members[flagged], label, pattern)) if flagged.any() else ()
    return Finding(
        target=label, sources=sources, p_value=p_value, pattern=pattern.numpy(),
        pattern_norm=float(pattern.double().square().sum().sqrt()), indices=members[flagged],
        scores=log_odds[flagged].astype(np.float32),
        success_rate=view.success_rate(label, pattern, sources) if sources else None, evidence="model",
    )  # fmt: skip
