"""FiftyOne: flagged images as tags and fields of samples.

    from bre.integrations.fiftyone import tag
    tag(fiftyone_dataset, "photos", report)

Works on whatever has FiftyOne's samples in it, and imports nothing of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..inputs import open_dataset
from ..report import Report
from ..verbs.annotate import Annotations

POISON, PROPERTY = "bre_poison", "bre_property"  # tags


def tag(samples: Iterable[Any], dataset: Any, report: Report | str) -> int:
    """Tag the samples whose file is a flagged image; how many these are.

    samples: a FiftyOne dataset, view or list of samples. dataset: the images that the report is about, as `bre.screen`
    takes them, one file each (a folder, a list). Tags are "bre_poison" and "bre_property"; the fields bre_finding (its
    number in the report) and bre_log_odds are set. Tags that an earlier report left are taken away.

    Raises InputError for a report on another dataset, a dataset whose images are no files of their own, and when no
    sample is one of its images.
    """
    report = report if isinstance(report, Report) else Report.load(report)
    images = open_dataset(dataset)
    report.check_dataset(images)
    places: dict[str, int] = {}
    for index in range(len(images)):
        file = images.file(index)
        if not isinstance(file, Path) or places.setdefault(os.path.realpath(file), index) != index:
            raise InputError(f"{images.source}: images must be files of their own to be found again among samples")
    found, met, flagged = Annotations(report), 0, 0
    for sample in samples:
        index = places.get(os.path.realpath(sample.filepath), -1)
        met += index >= 0
        kind = found.kind[index] if index >= 0 else ""
        mine = [POISON] if kind == "poison" else [PROPERTY] if kind else []
        tags = [one for one in sample.tags if one not in (POISON, PROPERTY)] + mine
        if not mine and tags == list(sample.tags):
            continue
        sample.tags = tags
        if mine:
            sample["bre_finding"] = int(found.finding[index])
            sample["bre_log_odds"] = float(found.log_odds[index])
            flagged += 1
        if getattr(sample, "in_dataset", False):
            sample.save()
    if not met:
        raise InputError(f"none of the samples is one of the images of {images.source}: their file paths differ")
    return flagged
