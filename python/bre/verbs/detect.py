"""`bre.detect`: did the training images teach this classifier a backdoor?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .. import ops
from .._progress import Progress
from ..inputs import open_dataset, open_model
from ..method.uploads import in_host_memory
from ..method.whitening import HOST
from ..report import Cost, Report, dataset_facts
from ..runs.executors import Submit, check_executor
from ..views.evidence import Evidence
from ..views.images import search_images
from ..views.inside import search_inside
from ..views.model import search_model
from ..views.placement import Placement, check_memory
from .checks import Clock, check_images, check_options
from .findings import class_rows, findings
from .runs import Workdir, done_here, run_on
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
    backend: of the ops on the model's device, which both parts are computed on if that is the CPU or a CUDA device. On
        another one, or on a CUDA device with a workdir or with other workers than this process, images are compared on
        the CPU, with the same backend where it computes there, else the best one; the notes say so
    device_memory: bytes of that device that may be taken, where it is not the CPU; see `bre.screen`

    Three views, each tested at alpha / 3. The images' view is that of `bre.screen`. The model's view has two
    statistics, which are tested each and together: the gain in log odds of a class by a small pattern, on held-out
    images of other classes; and the alignment of the network's gradients towards the class at single images. The inside
    view tells how far a class falls apart into two modes in the network's activations, whatever the trigger looks like
    (docs/method.md). Raises InputError for unusable input, BackendUnavailable.
    """
    seed, alpha = check_options(seed, alpha)
    check_executor(executor, jobs, ray_address)
    clock = Clock(progress)
    with clock.stage("open"):
        classifier = open_model(model, mean=mean, std=std, precision=precision, unsafe=unsafe)
        alone = done_here(workdir, executor, jobs)
        where, for_model, for_images = places_of(backend, classifier.device, alone)
        placement = Placement(where, check_memory(device_memory, where))
        before = classifier.forward_images, classifier.backward_images
        images = open_dataset(dataset, unsafe=unsafe)
        check_images(images)
    with (
        classifier,
        placement.bounded(),
        run_on(
            images,
            seed=seed,
            backend=for_images,
            workdir=workdir,
            executor=executor,
            jobs=jobs,
            ray_address=ray_address,
        ) as run,
    ):
        with clock.stage("check model"):
            classifier.check(images.image_shape, len(images.class_names))
        with clock.stage("search"):
            by_images = search_images(
                images, seed=seed, backend=for_images, progress=clock.progress, run=run, placement=placement
            )
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
        notes=(
            *images.notes,
            *apart(classifier.device, where),
            *(note for each in evidence for note in each.notes),
            *verdict.notes,
        ),
    )


def apart(model: torch.device, images: torch.device) -> tuple[str, ...]:
    """The note that says where each part was computed, where the images' is the CPU's and the model's is not."""
    if not in_host_memory(images) or in_host_memory(model):
        return ()
    return (f"images were compared on the CPU, the model ran on {model}",)


def places_of(name: str, device: torch.device, alone: bool = True) -> tuple[torch.device, str, str]:
    """Where the images' part is computed, and what backend `name` stands for on the model's device, and there; alone:
    whether it is this process's, see `done_here`."""
    for_model = ops.resolve(name, device)
    if device.type == "cpu" or (device.type == "cuda" and alone):
        return device, for_model, for_model
    return HOST, for_model, ops.resolve("auto") if name == "auto" or ops.unavailable(name) else name
