"""A report as SARIF 2.1.0 (OASIS, 2020), the form in which code-scanning dashboards take findings on files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .._check import printable
from . import text

if TYPE_CHECKING:
    from ..inputs import ImageSet
    from .report import Finding, Report

SARIF_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
RULES = {  # id: (in a line, in full, what to do); GitHub wants all three
    "poisoned-class": (
        "One class of the training set holds a planted pattern",
        "One class stands out from the others as a class would whose images were planted with a common additive "
        "pattern, so that a classifier trained on the set answers to that pattern.",
        "Look at the pattern and at some of the flagged images in the report: a class that is honestly unlike all "
        "others (one camera, one watermark) can stand out too. If you agree, `bre cleanse` writes a set without them.",
    ),
    "poisoned-image": (
        "A training image carries a planted pattern",
        "The image is labelled with a class that stands out, and carries the pattern that was found in it.",
        "Look at the image in the report, where the pattern is amplified and taken away. `bre cleanse` writes the set "
        "without all flagged images; its list says why each went.",
    ),
}


def sarif(report: Report, images: ImageSet) -> dict[str, Any]:
    """Plain dicts and lists, ready for JSON: one result for each finding, and one for each image that it flags.

    A result on an image is on the file that it is in, naming the image; one on a class is on the dataset. Files below
    the current folder are named relative to it, as dashboards expect.
    """
    results = []
    for number, finding in enumerate(report.findings, 1):
        results.append(_class_result(report, images, number, finding))
        pairs = zip(finding.indices.tolist(), finding.log_odds.tolist(), strict=True)
        results += [_image_result(report, images, number, finding, *pair) for pair in pairs]
    driver = {
        "name": "bre",
        "semanticVersion": report.versions.get("bre", "0"),
        "rules": [
            {"id": rule, "shortDescription": {"text": line}, "fullDescription": {"text": full}, "help": {"text": help}}
            for rule, (line, full, help) in RULES.items()
        ],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "invocations": [{"executionSuccessful": True}],
        "results": results,
        "properties": {"verdict": text.verdict(report), "pValue": report.p_value, "alpha": report.alpha},
    }
    return {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}


def _class_result(report: Report, images: ImageSet, number: int, finding: Finding) -> dict[str, Any]:
    facts = "; ".join(f"{name} {value}" for name, value in text.facts_of(report, finding))
    target, path = text.class_name(report, finding.target), images.path  # a pattern of files is none itself
    return _result(
        "poisoned-class",
        f"Images are planted in class {target} (p = {finding.p_value:.2g}): {facts}.",
        _location(images, path if path is None or path.exists() else images.file(0), f"class {target}"),
        {"finding": number, "pValue": finding.p_value},
    )


def _image_result(
    report: Report, images: ImageSet, number: int, finding: Finding, index: int, score: float
) -> dict[str, Any]:
    name = images.describe(index)
    target = text.class_name(report, finding.target)
    return _result(
        "poisoned-image",
        f"{printable(name)}, labelled {target}, carries the pattern of finding {number}.",
        _location(images, images.file(index), name),
        {"finding": number, "index": index, "score": score},
    )


def _result(rule: str, message: str, location: dict[str, Any], properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "ruleId": rule,
        "ruleIndex": list(RULES).index(rule),
        "level": "error",
        "message": {"text": _plain(message)},
        "locations": [location],
        "properties": properties,
    }


def _location(images: ImageSet, file: Path | None, name: str) -> dict[str, Any]:
    location: dict[str, Any] = {"logicalLocations": [{"fullyQualifiedName": printable(f"{images.source}: {name}")}]}
    if file is not None:
        # GitHub shows no result without a line, not even one on an image.
        location["physicalLocation"] = {"artifactLocation": {"uri": _uri(file)}, "region": {"startLine": 1}}
    return location


def _uri(file: Path) -> str:
    path, here = file.resolve(), Path.cwd().resolve()
    relative = path.is_relative_to(here)
    return quote(os.fsencode(path.relative_to(here).as_posix())) if relative else path.as_uri()


def _plain(text: str) -> str:
    """A SARIF message gives meaning to braces (placeholders) and brackets (links)."""
    return text.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]").replace("{", "{{").replace("}", "}}")
