"""A report as a statement for supply chains: in-toto's test result, and an entry of a CycloneDX bill of materials.

Neither is signed here, and neither has a date: whoever vouches for it does both.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .text import class_name

if TYPE_CHECKING:
    from ..inputs.datasets.digests import Digest
    from .report import Report

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://in-toto.io/attestation/test-result/v0.1"
SPEC = "1.6"  # of CycloneDX


def statement(
    report: Report, subjects: Sequence[Digest], options: Mapping[str, Any], *, fail_on: str = "poison"
) -> dict[str, Any]:
    """An in-toto statement, whose predicate is a test result of two tests, "poison" and "property".

    subjects: what was judged. options: those that it was judged with, JSON's own types. fail_on: "property" makes a
    property of a class a failure too, which is a warning otherwise.
    """
    bad = fail_on == "property"
    results = {"poison": report.poisoned, "property": any(not finding.is_poison for finding in report.findings)}
    failed = [name for name, found in results.items() if found and (bad or name == "poison")]
    warned = [name for name, found in results.items() if found and name not in failed]
    return {
        "_type": STATEMENT,
        "subject": [{"name": one.name, "digest": {one.algorithm: one.value}} for one in subjects],
        "predicateType": PREDICATE,
        "predicate": {
            "result": "FAILED" if failed else "WARNED" if warned else "PASSED",
            "configuration": [{"name": f"bre {report.verb}", "annotations": _facts(report, options)}],
            "passedTests": [name for name in results if name not in (*failed, *warned)],
            "warnedTests": warned,
            "failedTests": failed,
        },
    }


def bill_of_materials(report: Report, subjects: Sequence[Digest], models: int = 0) -> dict[str, Any]:
    """A CycloneDX document with the data set, and the last `models` of the subjects as models, as its components.

    The hash of a folder, which CycloneDX has no name for, is among the properties.
    """
    facts = {
        "verdict": "poisoned" if report.poisoned else "nothing found",
        "p_value": report.p_value,
        "alpha": report.alpha,
        "seed": report.seed,
        "flagged": len(report.indices),
        "images": report.dataset.count,
        "fingerprint": report.dataset.fingerprint,
    }
    components = []
    first_model = len(subjects) - models
    for number, one in enumerate(subjects):
        of_model = number >= first_model
        component: dict[str, Any] = {
            "type": "machine-learning-model" if of_model else "data",
            "bom-ref": f"{number}",
            "name": one.name,
        }
        if one.algorithm == "sha256":
            component["hashes"] = [{"alg": "SHA-256", "content": one.value}]
        if not of_model:
            component["data"] = [{"type": "dataset", "name": one.name}]
        told: dict[str, Any] = {one.algorithm: one.value} if one.algorithm != "sha256" else {}
        told |= facts if number == 0 else {}
        component["properties"] = [{"name": f"bre:{name}", "value": str(value)} for name, value in told.items()]
        components.append(component)
    content = " ".join([report.dataset.fingerprint, *(one.value for one in subjects)])
    return {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPEC}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPEC,
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, content)}",
        "version": 1,
        "metadata": {
            "tools": {
                "components": [{"type": "application", "name": "bre", "version": report.versions.get("bre", "unknown")}]
            }
        },
        "components": components,
    }


def _facts(report: Report, options: Mapping[str, Any]) -> dict[str, Any]:
    """What the verdict is, on what, and with what: numbers, texts, lists and dicts of them."""
    found = [
        {
            "kind": finding.kind,
            "class": class_name(report, finding.target),
            "flagged": len(finding.indices),
            "p_value": finding.p_value,
            "seen_in": list(finding.seen_in),
        }
        for finding in report.findings
    ]
    return {
        "verdict": "poisoned" if report.poisoned else "nothing found",
        "p_value": report.p_value,
        "alpha": report.alpha,
        "seed": report.seed,
        "images": report.dataset.count,
        "image_shape": list(report.dataset.image_shape),
        "fingerprint": report.dataset.fingerprint,
        "findings": found,
        "options": dict(options),
        "versions": dict(report.versions),
        "notes": list(report.notes),
    }
