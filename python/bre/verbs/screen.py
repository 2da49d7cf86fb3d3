"""`bre.screen`: is a common pattern planted in some class of these images?"""

from __future__ import annotations

from typing import Any

from .. import ops
from ..inputs import open_dataset
from ..report import Cost, Report, dataset_facts, versions
from ..views.images import ImageView
from .verdict import Clock, Progress, check_images, check_options, class_rows, image_finding, image_tests, judge_images


def screen(
    dataset: Any,
    *,
    seed: int = 0,
    alpha: float = 0.05,
    backend: str = "auto",
    unsafe: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Look for a planted pattern in images and labels alone.

    dataset: whatever `bre.open_dataset` takes, or what it returned: a pair of arrays (images, labels), a torch Dataset
        of (image, label), the path of a folder of class folders, of a table of images, ...
    seed: of the sampling and of the split into halves; same seed, same report
    alpha: in (0, 1), the share of clean datasets that may be called poisoned
    backend: of the ops: "auto", "cpu", "reference", ...
    unsafe: allow files that are pickles, which can run any code
    progress: called with (stage, fraction of it done)

    A class is a finding when some of its images share a direction with far more evidence of a second mode than other
    classes' images do; or when images of several classes share one and look like other classes than theirs
    (docs/method.md). Raises InputError for unusable input, BackendUnavailable.
    """
    seed, alpha = check_options(seed, alpha)
    backend = ops.resolve(backend)
    clock = Clock(progress)
    with clock.stage("open"):
        images = open_dataset(dataset, unsafe=unsafe)
        check_images(images)
    with clock.stage("search"):
        view = ImageView(images, seed=seed, backend=backend, progress=clock.progress)
        test, everywhere = judge_images(view, alpha)
    findings = []
    with clock.stage("recover"):
        for label in test.outliers:
            clock.progress(f"recovering the pattern of class {label}", 0.0)
            carriers = everywhere.get(label) or view.carriers(label)
            findings.append(image_finding(label, float(test.p_values[label]), carriers))
    return Report(
        verb="screen",
        poisoned=bool(findings),
        p_value=test.p_value,
        alpha=alpha,
        findings=tuple(findings),
        classes=tuple(class_rows(images, test.p_values, image_statistic=view.statistics)),
        cost=Cost(0, 0, clock.seconds),
        backend=backend,
        seed=seed,
        versions=versions(),
        dataset=dataset_facts(images, findings),
        tests=image_tests(view, alpha),
        notes=view.notes,
    )
