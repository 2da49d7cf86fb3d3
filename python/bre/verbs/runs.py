"""Where the tasks of a verb are done, as the caller said it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import numpy as np

from .._files import check_outside
from ..errors import InputError
from ..inputs import ImageSet
from ..runs.executors import Submit
from ..runs.run import Run, opened_run

# images; spread over the set, that a run's folder knows it by, beside its labels; source: chosen, read in no time
KNOWN_BY = 64

Workdir = str | os.PathLike[str] | None


def done_here(workdir: Workdir, executor: str | Submit, jobs: int) -> bool:
    """Whether this process does all tasks and keeps nothing of them: a device is used by it alone."""
    return workdir is None and executor == "local" and jobs == 1


@contextlib.contextmanager
def run_on(
    images: ImageSet,
    *,
    seed: int,
    backend: str,
    workdir: Workdir,
    executor: str | Submit,
    jobs: int,
    ray_address: str | None,
) -> Iterator[Run]:
    """backend: of the images' part. The folder may be shared by `screen` and `detect`, and at any alpha: tasks do not
    depend on those. Raises InputError for a workdir inside the dataset, and as `opened_run` does."""
    if workdir is not None:
        if not isinstance(workdir, str | os.PathLike):
            raise InputError(f"expected a path of a folder, got {workdir!r}", argument="workdir")
        check_outside(workdir, images.disk_path)
    some = np.unique(np.linspace(0, len(images) - 1, KNOWN_BY).astype(np.int64))
    made_from = {"dataset": images.fingerprint(some), "seed": seed, "backend": backend} if workdir is not None else {}
    with opened_run(workdir, executor, jobs, ray_address, made_from) as run:
        yield run
