"""`bre.screen`: is a common pattern planted in some class of these images?"""

from __future__ import annotations

from typing import Any

import torch

from .. import ops
from .._progress import Progress
from ..inputs import open_dataset
from ..inputs.models.devices import usable
from ..report import Cost, Report, dataset_facts
from ..views.images import search_images
from ..views.placement import Placement, check_memory
from .checks import Clock, check_images, check_options
from .findings import class_rows, findings
from .verdict import judge
from .versions import versions


def screen(
    dataset: Any,
    *,
    seed: int = 0,
    alpha: float = 0.05,
    backend: str = "auto",
    device: str | torch.device = "cpu",
    device_memory: int | None = None,
    unsafe: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Look for a planted pattern in images and labels alone.

    dataset: whatever `bre.open_dataset` takes, or what it returned: a pair of arrays (images, labels), a torch Dataset
        of (image, label), the path of a folder of class folders, of a table of images, ...
    seed: of the sampling and of the split into halves; same seed, same report
    alpha: in (0, 1), the share of clean datasets that may be called poisoned
    backend: of the ops: "auto", "cpu", "reference", ...
    device: where images are whitened, compared and scored: "cpu", "cuda" or "cuda:N"; they are decoded on the CPU
    device_memory: bytes of the device that may be taken; None for what it has. Work that does not fit is split, or
        done in host memory, and the notes say so
    unsafe: allow files that are pickles, which can run any code
    progress: called with (stage, fraction of it done)

    A class is a finding if the scan statistic for a second mode among its images is an outlier among the classes; or if
    images of several classes share a pattern and, without it, look like other classes than their own (docs/method.md).
    What most of a class shares is a finding of kind "property", which does not make the set poisoned. Raises
    InputError for unusable input, BackendUnavailable.
    """
    seed, alpha = check_options(seed, alpha)
    where = usable(device)
    placement = Placement(where, check_memory(device_memory, where))
    backend = ops.resolve(backend, where)
    clock = Clock(progress)
    with clock.stage("open"):
        images = open_dataset(dataset, unsafe=unsafe)
        check_images(images)
    with placement.bounded():
        with clock.stage("search"):
            evidence = search_images(images, seed=seed, backend=backend, progress=clock.progress, placement=placement)
        with clock.stage("judge"):
            verdict = judge([evidence], alpha)
        with clock.stage("recover"):
            found = tuple(findings(verdict, clock.progress))
    return Report(
        verb="screen",
        poisoned=any(finding.is_poison for finding in found),
        p_value=verdict.p_value,
        alpha=alpha,
        findings=found,
        classes=tuple(class_rows(images, verdict, [evidence])),
        cost=Cost(0, 0, clock.seconds),
        backend=backend,
        seed=seed,
        versions=versions(),
        dataset=dataset_facts(images, found),
        tests=verdict.tests,
        notes=images.notes + evidence.notes + verdict.notes,
    )
