"""`bre.detect`: did the training images teach this classifier a backdoor?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .. import ops
from .._progress import Progress
from ..inputs import open_dataset, open_model
from ..method.whitening import HOST
from ..report import Cost, Report, dataset_facts
from ..views.evidence import Evidence
from ..views.images import search_images
from ..views.model import search_model
from ..views.placement import Placement, check_memory
from .checks import Clock, check_images, check_options
from .findings import class_rows, findings
from .verdict import judge
from .versions import versions


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
    device_memory: int | None = None,
    unsafe: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Look for a backdoor in a classifier and the images it was trained on.

    model: whatever `bre.open_model` takes, or what it returned: an nn.Module, an ExportedProgram, a TorchScript module,
        or the path of a `.pt2` or TorchScript file, from float32 (n, C, H, W) to logits (n, K)
    dataset, seed, alpha, unsafe, progress: as for `bre.screen`
    mean, std: C floats each, in units of [0, 1], if the network wants (x - mean) / std; neither if it takes [0, 1]
    precision: what the network computes in, "float32" or "bfloat16", as for `bre.open_model`
    backend: of the ops on the model's device, which both parts are computed on if that is the CPU or a CUDA device; on
        another one, images are compared on the CPU, with the same backend where it computes there, else the best one
    device_memory: bytes of that device that may be taken, where it is not the CPU; see `bre.screen`

    Two views, each tested at alpha / 2. The images' view is that of `bre.screen`. The model's view has two statistics:
    the gain in log odds of a class by a small pattern, on held-out images of other classes; and the alignment of the
    network's gradients towards the class at single images (docs/method.md). Raises InputError for unusable input,
    BackendUnavailable.
    """
    seed, alpha = check_options(seed, alpha)
    clock = Clock(progress)
    with clock.stage("open"):
        classifier = open_model(model, mean=mean, std=std, precision=precision, unsafe=unsafe)
        where, for_model, for_images = places_of(backend, classifier.device)
        placement = Placement(where, check_memory(device_memory, where))
        before = classifier.forward_images, classifier.backward_images
        images = open_dataset(dataset, unsafe=unsafe)
        check_images(images)
    with classifier, placement.bounded():
        with clock.stage("check model"):
            classifier.check(images.image_shape, len(images.class_names))
        with clock.stage("search"):
            by_images = search_images(
                images, seed=seed, backend=for_images, progress=clock.progress, placement=placement
            )
        with clock.stage("optimize"):
            by_model = search_model(
                classifier,
                images,
                shared=by_images.shared_pattern,
                seed=seed,
                backend=for_model,
                progress=clock.progress,
            )
        evidence: list[Evidence] = [by_images, by_model]
        with clock.stage("judge"):
            verdict = judge(evidence, alpha)
        with clock.stage("recover"):
            found = tuple(findings(verdict, clock.progress))
    return Report(
        verb="detect",
        poisoned=any(finding.is_poison for finding in found),
        p_value=verdict.p_value,
        alpha=alpha,
        findings=found,
        classes=tuple(class_rows(images, verdict, evidence)),
        cost=Cost(classifier.forward_images - before[0], classifier.backward_images - before[1], clock.seconds),
        backend=for_model if for_model == for_images else f"{for_model} for the model, {for_images} for the images",
        seed=seed,
        versions=versions(),
        dataset=dataset_facts(images, found),
        tests=verdict.tests,
        notes=images.notes + by_images.notes + by_model.notes + verdict.notes,
    )


def places_of(name: str, device: torch.device) -> tuple[torch.device, str, str]:
    """Where the images' part is computed, and what backend `name` stands for on the model's device, and there."""
    for_model = ops.resolve(name, device)
    if device.type in ("cpu", "cuda"):
        return device, for_model, for_model
    return HOST, for_model, ops.resolve("auto") if name == "auto" or ops.unavailable(name) else name
