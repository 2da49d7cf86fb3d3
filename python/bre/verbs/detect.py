"""`bre.detect`: did the training images teach this classifier a backdoor?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .. import ops
from .._progress import Progress
from ..inputs import open_dataset, open_model
from ..report import Cost, Report, dataset_facts
from ..runs.executors import Submit, check_executor
from ..views.evidence import Evidence
from ..views.images import search_images
from ..views.inside import search_inside
from ..views.model import search_model
from .checks import Clock, check_images, check_options
from .findings import class_rows, findings
from .runs import Workdir, run_on
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
    unsafe: bool = False,
    workdir: Workdir = None,
    executor: str | Submit = "local",
    jobs: int = 1,
    ray_address: str | None = None,
    progress: Progress | None = None,
) -> Report:
    """Look for a backdoor in a classifier and the images it was trained on.

    model: whatever `bre.open_model` takes, or what it returned: an nn.Module, an ExportedProgram, a TorchScript module,
        or the path of a `.pt2` or TorchScript file, from float32 (n, C, H, W) to logits (n, K)
    dataset, seed, alpha, unsafe, workdir, executor, jobs, ray_address, progress: as for `bre.screen`; what needs the
        model is done in this process, on the model's device, whatever the executor
    mean, std: C floats each, in units of [0, 1], if the network wants (x - mean) / std; neither if it takes [0, 1]
    precision: what the network computes in, "float32" or "bfloat16", as for `bre.open_model`
    backend: of the ops on the model's device, which is the device that the model's part is computed on. The images'
        part is computed on the CPU, with the same backend where it computes there, else with the best one

    Three views, each tested at alpha / 3. The images' view is that of `bre.screen`. The model's view has two
    statistics: the gain in log odds of a class by a small pattern, on held-out images of other classes; and the
    alignment of the network's gradients towards the class at single images. The inside view tells how far a class
    falls apart into two modes in the network's activations, whatever the trigger looks like (docs/method.md). Raises
    InputError for unusable input, BackendUnavailable.
    """
    seed, alpha = check_options(seed, alpha)
    check_executor(executor, jobs, ray_address)
    clock = Clock(progress)
    with clock.stage("open"):
        classifier = open_model(model, mean=mean, std=std, precision=precision, unsafe=unsafe)
        for_model, for_images = backends_of(backend, classifier.device)
        before = classifier.forward_images, classifier.backward_images
        images = open_dataset(dataset, unsafe=unsafe)
        check_images(images)
    where = run_on(
        images,
        seed=seed,
        backend=for_images,
        workdir=workdir,
        executor=executor,
        jobs=jobs,
        ray_address=ray_address,
    )
    with classifier, where as run:
        with clock.stage("check model"):
            classifier.check(images.image_shape, len(images.class_names))
        with clock.stage("search"):
            by_images = search_images(images, seed=seed, backend=for_images, progress=clock.progress, run=run)
        with clock.stage("optimize"):
            by_model = search_model(
                classifier,
                images,
                shared=by_images.shared_pattern,
                seed=seed,
                backend=for_model,
                progress=clock.progress,
                run=run,
            )
        with clock.stage("look inside"):
            by_inside = search_inside(classifier, images, seed=seed, backend=for_model, progress=clock.progress)
        evidence: list[Evidence] = [by_images, by_model, by_inside]
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
        notes=images.notes + tuple(note for each in evidence for note in each.notes) + verdict.notes,
    )


def backends_of(name: str, device: torch.device) -> tuple[str, str]:
    """What `name` stands for on the model's device, and for the images, which stay in host memory."""
    for_model = ops.resolve(name, device)
    return for_model, ops.resolve("auto") if name == "auto" or ops.unavailable(name) else name
