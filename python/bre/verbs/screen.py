"""`bre.screen`: is a common pattern planted in some class of these images?"""

from __future__ import annotations

from typing import Any

import torch

from .. import ops
from .._progress import Progress
from ..errors import InputError
from ..inputs import open_dataset
from ..inputs.models.devices import usable
from ..method.uploads import in_host_memory
from ..report import Cost, Report, dataset_facts
from ..runs.executors import Submit, check_executor
from ..views.images import search_images
from ..views.placement import Placement, check_memory
from .checks import Clock, check_images, check_options
from .findings import class_rows, findings
from .runs import Workdir, done_here, run_on
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
    workdir: Workdir = None,
    executor: str | Submit = "local",
    jobs: int = 1,
    ray_address: str | None = None,
    progress: Progress | None = None,
) -> Report:
    """Look for a planted pattern in images and labels alone.

    dataset: whatever `bre.open_dataset` takes, or what it returned: a pair of arrays (images, labels), a torch Dataset
        of (image, label), the path of a folder of class folders, of a table of images, ...
    seed: of the sampling and of the split into halves; same seed, same report
    alpha: in (0, 1), the share of clean datasets that may be called poisoned
    backend: of the ops: "auto", "cpu", "reference", ...
    device: where images are whitened, compared and scored: "cpu", "cuda" or "cuda:N"; they are decoded on the CPU.
        Another one than "cpu" is used by this process alone: without a workdir, with the executor "local" and one job
    device_memory: bytes of the device that may be taken; None for what it has. Work that does not fit is split, or
        done in host memory, and the notes say so
    unsafe: allow files that are pickles, which can run any code
    workdir: a new folder that keeps what is done, or one of an earlier run, which then goes on where that ended
    executor: who does the work: "local", "ray" (the extra `ray`), or a function with the shape of
        `concurrent.futures.Executor.submit`; the report is the same. A dataset that is no path is sent to others whole
    jobs: processes of this machine, with the executor "local"; 1 is this one, which uses its threads
    ray_address: of the cluster, "auto" for the one that this machine belongs to; None for one of this machine alone
    progress: called with (stage, fraction of it done)

    A class is a finding if the scan statistic for a second mode among its images is an outlier among the classes; or if
    images of several classes share a pattern and, without it, look like other classes than their own (docs/method.md).
    What most of a class shares is a finding of kind "property", which does not make the set poisoned. Raises
    InputError for unusable input, BackendUnavailable.
    """
    seed, alpha = check_options(seed, alpha)
    check_executor(executor, jobs, ray_address)
    where = usable(device)
    placement = Placement(where, check_memory(device_memory, where))
    if not (in_host_memory(where) or done_here(workdir, executor, jobs)):
        raise InputError(
            f"images are compared on {where} by this process alone, and nothing of it is kept: give no workdir, the "
            "executor 'local' and one job, or compare them on the CPU",
            argument=("device", "workdir", "executor", "jobs"),
        )
    backend = ops.resolve(backend, where)
    clock = Clock(progress)
    with clock.stage("open"):
        images = open_dataset(dataset, unsafe=unsafe)
        check_images(images)
    with (
        placement.bounded(),
        run_on(
            images,
            seed=seed,
            backend=backend,
            workdir=workdir,
            executor=executor,
            jobs=jobs,
            ray_address=ray_address,
        ) as run,
    ):
        with clock.stage("search"):
            evidence = search_images(
                images, seed=seed, backend=backend, progress=clock.progress, run=run, placement=placement
            )
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
