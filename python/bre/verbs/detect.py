"""`bre.detect`: was this classifier given a backdoor by the images it was trained on?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from .. import ops
from ..inputs import open_dataset, open_model
from ..method import stats
from ..report import Cost, Finding, Histogram, Report, dataset_facts, versions
from ..views.images import Carriers, ImageView, evenly
from ..views.model import ModelView
from .verdict import (
    Clock,
    Progress,
    check_images,
    check_options,
    class_rows,
    image_finding,
    image_tests,
    judge_classes,
    judge_images,
    main_sources,
    statistic_test,
)

LEAST_SUCCESS = 0.5  # of held-out images of some source: below it, a pattern that only the model shows is no backdoor
DOUBT = 4.0  # log odds on either side of 0 in which the model's word counts too
SURE = 2  # images on either side of these, for each in doubt, that tell what the model's word means
ENOUGH = 200  # images that tell how often the model says something
BESIDE = 140  # images of other classes in a histogram; each goes through the network twice


def detect(
    model: Any,
    dataset: Any,
    *,
    seed: int = 0,
    alpha: float = 0.05,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    precision: str = "float32",
    backend: str = "auto",
    unsafe: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Look for a backdoor in a classifier and the images it was trained on.

    model: whatever `bre.open_model` takes, or what it returned: an nn.Module, an ExportedProgram, a TorchScript module,
        or the path of a `.pt2` or TorchScript file, from float32 (n, C, H, W) to logits (n, K)
    dataset, seed, alpha, unsafe, progress: as for `bre.screen`
    mean, std: C floats each, in units of [0, 1], if the network wants (x - mean) / std; neither if it takes [0, 1]
    precision: what the network computes in, "float32" or "bfloat16", as for `bre.open_model`
    backend: of the ops on the model's device, which is the device that the model's part is computed on. The images'
        part is computed on the CPU, with the same backend where it computes there, else with the best one

    Two views, each tested at alpha / 2: the images' (as `bre.screen`), and the model's: the pattern that pushes images
    of other classes towards a class, and how well it carries over to unseen images; and how alike the directions are
    in which single images move towards it (docs/method.md). Raises InputError for unusable input, BackendUnavailable.
    """
    seed, alpha = check_options(seed, alpha)
    clock = Clock(progress)
    with clock.stage("open"):
        classifier = open_model(model, mean=mean, std=std, precision=precision, unsafe=unsafe)
        for_model, for_images = _backends(backend, classifier.device)
        before = classifier.forward_images, classifier.backward_images
        images = open_dataset(dataset, unsafe=unsafe)
        check_images(images)
    with classifier:
        with clock.stage("check model"):
            classifier.check(images.image_shape, len(images.class_names))
        with clock.stage("optimize"):
            model_view = ModelView(classifier, images, seed=seed, backend=for_model, progress=clock.progress)
            by_model = _working(_judge_model(model_view, alpha / 2), model_view)
        with clock.stage("search"):
            image_view = ImageView(images, seed=seed, backend=for_images, progress=clock.progress)
            by_images, everywhere = judge_images(image_view, alpha / 2)
        test, findings = stats.combine(by_images, by_model), []
        with clock.stage("recover"):
            for label in test.outliers:
                clock.progress(f"recovering the pattern of class {label}", 0.0)
                p_value = float(test.p_values[label])
                if label in by_images.outliers:
                    carriers = everywhere.get(label) or image_view.carriers(label)
                    finding = image_finding(label, p_value, _doubt_settled(carriers, label, model_view))
                    findings.append(_seen_by_model(finding, model_view, label in by_model.outliers))
                else:
                    findings.append(_model_finding(label, p_value, model_view, image_view))
    return Report(
        verb="detect",
        poisoned=bool(findings),
        p_value=test.p_value,
        alpha=alpha,
        findings=tuple(findings),
        classes=tuple(
            class_rows(
                images,
                test.p_values,
                image_statistic=image_view.statistics,
                model_statistic=model_view.statistics,
                pattern_norm=model_view.norms,
                alignment=model_view.alignments,
            )
        ),
        cost=Cost(classifier.forward_images - before[0], classifier.backward_images - before[1], clock.seconds),
        backend=for_model if for_model == for_images else f"{for_model} for the model, {for_images} for the images",
        seed=seed,
        versions=versions(),
        dataset=dataset_facts(images, findings),
        tests=(
            *image_tests(image_view, alpha / 2),
            statistic_test("model_statistic", model_view.statistics, alpha / 4),
            statistic_test("alignment", model_view.alignments, alpha / 4),
        ),
        notes=image_view.notes + model_view.notes,
    )


def _backends(name: str, device: torch.device) -> tuple[str, str]:
    """What `name` stands for on the model's device, and for the images, which stay in host memory."""
    for_model = ops.resolve(name, device)
    return for_model, ops.resolve("auto") if name == "auto" or ops.unavailable(name) else name


def _judge_model(view: ModelView, alpha: float) -> stats.OutlierTest:
    """The classes that stand out by how far their pattern pushes, and the one where the gradients are most alike if it
    stands out by that: those towards other classes lead away from a backdoor's target, along the same direction."""
    gains = judge_classes(view.statistics, alpha / 2, spread=stats.SPREADS["model_statistic"])
    alike = judge_classes(view.alignments, alpha / 2, spread=stats.SPREADS["alignment"])
    others = np.arange(len(view.alignments)) != np.nanargmax(view.alignments)
    p_values = np.where(others & np.isfinite(alike.p_values), 1.0, alike.p_values)
    return stats.combine(gains, stats.OutlierTest(p_values, alike.outliers[:1], alike.p_value))


def _working(test: stats.OutlierTest, view: ModelView) -> stats.OutlierTest:
    """The test without those outliers whose pattern moves too few images of every source: a backdoor works."""
    idle = [label for label in test.outliers if view.moved(label)[0][1] < LEAST_SUCCESS]
    if not idle:
        return test
    p_values = test.p_values.copy()
    p_values[idle] = 1.0
    outliers = tuple(label for label in test.outliers if label not in idle)
    p_value = float(np.min(p_values[list(outliers)], initial=1.0))
    return stats.OutlierTest(p_values, outliers, max(p_value, test.p_value))


def _doubt_settled(carriers: Carriers, label: int, view: ModelView) -> Carriers:
    """With what the model says of images that the pattern leaves in doubt, because saturation swallowed it, say.

    Carriers come from other classes, and a classifier that was taught to give them the target's label sees those
    classes behind it.
    """
    log_odds = carriers.log_odds.copy()
    doubtful = np.flatnonzero(np.abs(log_odds) < DOUBT)
    most = min(SURE * len(doubtful), ENOUGH)
    sure = [evenly(np.flatnonzero(group), most) for group in (log_odds >= DOUBT, log_odds <= -DOUBT)]
    if len(doubtful) and all(map(len, sure)):
        upper, lower, choices = (view.second_choice(carriers.members[some], label) for some in (*sure, doubtful))
        log_odds[doubtful] += stats.choice_odds(upper, lower, len(view.images.class_names))[choices]
    return replace(carriers, log_odds=log_odds)


def _seen_by_model(finding: Finding, view: ModelView, outlier: bool) -> Finding:
    """A finding of the data's view, with what the model says of its pattern: the sources, and how often it works."""
    finding = replace(finding, seen_in=("images", "model") if outlier else ("images",))
    if not len(finding.indices):
        return finding
    pattern = torch.from_numpy(np.array(finding.pattern))
    sources = main_sources(view.homes(evenly(finding.indices, ENOUGH), finding.target, pattern)) or finding.sources
    return replace(finding, sources=sources, success_rate=view.success_rate(finding.target, pattern, sources))


def _model_finding(label: int, p_value: float, view: ModelView, image_view: ImageView) -> Finding:
    """A finding that only the model shows: its images are those whose log odds fall when the pattern is taken away;
    none where what these images seem to carry does not work.

    The model's own pattern is a rough one. What the images flagged with it share is a better one, if it works; and then
    how far an image lies along it tells something beside the fall.
    """
    members = np.flatnonzero(view.images.labels == label)
    pattern, along, weight = view.planted(label, evenly(members, ENOUGH)), None, 0.0
    score = view.fall(members, label, pattern)
    log_odds = _log_odds(score)
    shared = image_view.shared(members[log_odds > 0], label) if (log_odds > 0).any() else None
    if shared is not None:
        better = torch.from_numpy(shared.pattern)
        falls = view.fall(members, label, better)
        fallen = _log_odds(falls)
        sources = _sources(members[fallen > 0], label, better, view)
        if (view.success_rate(label, better, sources) or 0.0) >= LEAST_SUCCESS:
            pattern, along, lie = better, shared.along, shared.along(members)
            weight = stats.weight(falls, lie, fallen)
            score = falls + weight * lie
            log_odds = _log_odds(score)
    flagged = log_odds > 0
    sources = _sources(members[flagged], label, pattern, view)
    success_rate = view.success_rate(label, pattern, sources) or 0.0
    if success_rate < LEAST_SUCCESS:
        pattern, sources, flagged = view.pattern(label), main_sources(view.moved(label)), np.zeros_like(flagged)
        success_rate = view.success_rate(label, pattern, sources) or 0.0
    histogram = None
    if flagged.any():
        others = evenly(np.flatnonzero(view.images.labels != label), BESIDE)
        beside = view.fall(others, label, pattern)
        if along is not None:
            beside = beside + weight * along(others)
        histogram = Histogram.of(score, beside, cut=stats.parting(score, flagged))
    return Finding(
        target=label,
        sources=sources,
        p_value=p_value,
        pattern=pattern.numpy(),
        pattern_norm=float(pattern.double().square().sum().sqrt()),
        indices=members[flagged],
        log_odds=log_odds[flagged].astype(np.float32),
        success_rate=success_rate,
        seen_in=("model",),
        histogram=histogram,
    )


def _log_odds(scores: np.ndarray) -> np.ndarray:
    """(n,), that an image is of the upper part of a class; a few images have none."""
    return stats.two_normals(scores) if len(scores) >= 4 else np.full(len(scores), -np.inf)


def _sources(flagged: np.ndarray, label: int, pattern: torch.Tensor, view: ModelView) -> tuple[int, ...]:
    """The classes that flagged images come from."""
    return main_sources(view.homes(flagged, label, pattern)) if len(flagged) else ()
