"""A report as SARIF 2.1.0 (OASIS, 2020), the form in which code-scanning dashboards take findings on files."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .._check import printable
from . import text

if TYPE_CHECKING:
    from ..inputs import ImageSet
    from ..inputs.datasets.remote_path import AnyPath
    from .finding import Finding
    from .report import Report

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
RULES = {  # id: (level, in a line, in full, what to do); GitHub wants all three texts
    "poisoned-class": (
        "error",
        "One class of the training set holds a planted pattern",
        "One class is an outlier among the others, as a class would be whose images were planted with a common "
        "additive pattern, so that a classifier trained on the set gives images with that pattern its label.",
        "Look at the pattern and at some of the flagged images in the report: a class that differs from all others by "
        "its nature (one camera, one watermark) can be an outlier too. If you agree, `bre cleanse` writes a set "
        "without them.",
    ),
    "poisoned-image": (
        "error",
        "A training image carries a planted pattern",
        "The image is labelled with a class that is an outlier, and carries the pattern that was found in it.",
        "Look at the image in the report, where the pattern is amplified and subtracted. `bre cleanse` writes the set "
        "without all flagged images; its list says why each went.",
    ),
    "class-property": (
        "note",
        "Images of one class share a property that belongs to the class",
        "Images of one class share a border, a caption, a pose, one camera or the like. A network may learn it as a "
        "shortcut. It is not poison.",
        "Look at the pattern in the report. Nothing has to be removed. If the images that the network will see lack "
        "the property, crop or mask it, or add images without it.",
    ),
}


def sarif(report: Report, images: ImageSet) -> dict[str, Any]:
    """Plain dicts and lists, ready for JSON: one result for each finding, and one for each image flagged as poisoned.

    A result on an image is on the file that it is in, naming the image; one on a class is on the dataset. A property of
    a class is a note, without results on its images. Files below the current folder are named relative to it, as
    dashboards expect.
    """
    results = []
    for number, finding in enumerate(report.findings, 1):
        results.append(_class_result(report, images, number, finding))
        if finding.is_poison:
            pairs = zip(finding.indices.tolist(), finding.log_odds.tolist(), strict=True)
            results += [_image_result(report, images, number, finding, *pair) for pair in pairs]
    driver = {
        "name": "bre",
        "semanticVersion": report.versions.get("bre", "0"),
        "rules": [
            {
                "id": rule,
                "shortDescription": {"text": line},
                "fullDescription": {"text": full},
                "help": {"text": help},
                "defaultConfiguration": {"level": level},
            }
            for rule, (level, line, full, help) in RULES.items()
        ],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "invocations": [{"executionSuccessful": True}],
        "results": results,
        "properties": {
            "verdict": text.verdict(report),
            "pValue": report.p_value,
            "alpha": report.alpha,
            "tests": [dataclasses.asdict(test) for test in report.tests],
        },
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _class_result(report: Report, images: ImageSet, number: int, finding: Finding) -> dict[str, Any]:
    facts = "; ".join(f"{name} {value}" for name, value in text.facts_of(report, finding))
    target = text.class_name(report, finding.target)
    there = images.path is None or (images.disk_path is not None and images.disk_path.exists())
    title = text.title(report, finding)
    return _result(
        "poisoned-class" if finding.is_poison else "class-property",
        f"{title[0].upper()}{title[1:]} (p = {finding.p_value:.2g}): {facts}.",
        _location(images, images.path if there else images.file(0), f"class {target}"),  # a glob is no file itself
        {"finding": number, "pValue": finding.p_value},
    )


def _image_result(
    report: Report, images: ImageSet, number: int, finding: Finding, index: int, log_odds: float
) -> dict[str, Any]:
    name = images.describe(index)
    target = text.class_name(report, finding.target)
    return _result(
        "poisoned-image",
        f"{printable(name)}, labelled {target}, carries the pattern of finding {number}.",
        _location(images, images.file(index), name),
        {"finding": number, "index": index, "logOdds": log_odds},
    )


def _result(rule: str, message: str, location: dict[str, Any], properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "ruleId": rule,
        "ruleIndex": list(RULES).index(rule),
        "level": RULES[rule][0],
        "message": {"text": _plain(message)},
        "locations": [location],
        "properties": properties,
    }


def _location(images: ImageSet, file: AnyPath | None, name: str) -> dict[str, Any]:
    location: dict[str, Any] = {"logicalLocations": [{"fullyQualifiedName": printable(f"{images.source}: {name}")}]}
    if file is not None:
        # GitHub shows no result without a line, not even one on an image.
        location["physicalLocation"] = {"artifactLocation": {"uri": _uri(file)}, "region": {"startLine": 1}}
    return location


def _uri(file: AnyPath) -> str:
    if not isinstance(file, Path):  # elsewhere
        return quote(str(file), safe="/:")
    path, here = file.resolve(), Path.cwd().resolve()
    relative = path.is_relative_to(here)
    return quote(os.fsencode(path.relative_to(here).as_posix())) if relative else path.as_uri()


def _plain(text: str) -> str:
    """A SARIF message gives meaning to braces (placeholders) and brackets (links)."""
    return text.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]").replace("{", "{{").replace("}", "}}")
