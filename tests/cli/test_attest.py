"""`--attest`: digests that others can compute, and documents that hold against their schemas."""

import hashlib
import importlib.resources
import json
import subprocess

import numpy as np
import pytest
from PIL import Image
from reports import flagging

from bre.cli.options import Gate, Judging, Reading
from bre.cli.output import Judged, materials_path
from bre.errors import InputError
from bre.inputs import open_dataset
from bre.inputs.datasets.digests import digests
from bre.report.attestation import bill_of_materials, statement

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 6, 6, 3), dtype=np.uint8)
LABELS = np.arange(12) % 3


def folder(root):
    for i, image in enumerate(IMAGES):
        (root / "abc"[LABELS[i]]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / "abc"[LABELS[i]] / f"{i:02}.png")
    (root / "README.md").write_text("about")
    return root


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def written(tmp_path, dataset, report, gate="poison"):
    images = open_dataset(dataset)
    Judged(images, Judging(), Reading(resize=(6, 6))).write(report, tmp_path / "it", Gate(fail_on=gate))
    return [json.loads(path.read_text("ascii")) for path in (tmp_path / "it", materials_path(tmp_path / "it"))]


def check_schemas(attested, materials):
    """Against in-toto's messages and CycloneDX's own JSON schema."""
    jsonschema = pytest.importorskip("jsonschema")
    pytest.importorskip("in_toto_attestation.v1.statement")
    import referencing
    from google.protobuf import json_format
    from in_toto_attestation.predicates.test_result.v0 import test_result_pb2
    from in_toto_attestation.v1 import statement_pb2
    from in_toto_attestation.v1.statement import Statement

    message = json_format.Parse(json.dumps(attested), statement_pb2.Statement())
    Statement.copy_from_pb(message).validate()
    json_format.Parse(json.dumps(attested["predicate"]), test_result_pb2.TestResult())
    schemas = importlib.resources.files(pytest.importorskip("cyclonedx.schema")) / "_res"
    names = ("bom-1.6.SNAPSHOT.schema.json", "spdx.SNAPSHOT.schema.json", "jsf-0.82.SNAPSHOT.schema.json")
    registry, bom = referencing.Registry(), None
    for name in names:
        schema = json.loads((schemas / name).read_text("utf-8"))
        resource = referencing.Resource.from_contents(schema, referencing.jsonschema.DRAFT7)
        registry = registry.with_resources(
            [(schema["$id"], resource), (f"http://cyclonedx.org/schema/{name}", resource)]
        )
        bom = bom or schema
    jsonschema.Draft7Validator(bom, registry=registry).validate(materials)


def test_a_file(tmp_path):
    np.savez(tmp_path / "set.npz", images=IMAGES, labels=LABELS)
    report = flagging(tmp_path / "set.npz", {1: [1, 4]})
    attested, materials = written(tmp_path, tmp_path / "set.npz", report)
    digest = sha256(tmp_path / "set.npz")
    assert attested["subject"] == [{"name": "set.npz", "digest": {"sha256": digest}}]
    assert attested["predicate"]["result"] == "FAILED"
    assert attested["predicate"]["failedTests"] == ["poison"]
    told = attested["predicate"]["configuration"][0]["annotations"]
    assert told["options"]["resize"] == [6, 6]
    assert (told["verdict"], told["findings"][0]["flagged"]) == ("poisoned", 2)
    assert materials["components"][0]["hashes"] == [{"alg": "SHA-256", "content": digest}]
    check_schemas(attested, materials)


def test_a_folder_by_the_command_of_the_specification(tmp_path):
    root = folder(tmp_path / "set")
    attested, materials = written(tmp_path, root, flagging(root, {}))
    command = "find . -type f | cut -c3- | LC_ALL=C sort | xargs -r sha256sum | sha256sum | cut -f1 -d' '"
    expected = subprocess.run(command, shell=True, cwd=root, capture_output=True, text=True, check=True).stdout.strip()
    assert attested["subject"] == [{"name": "set", "digest": {"dirHash": expected}}]
    assert attested["predicate"]["result"] == "PASSED"
    assert {"name": "bre:dirHash", "value": expected} in materials["components"][0]["properties"]
    check_schemas(attested, materials)


def test_what_lies_beside_a_list_or_an_array(tmp_path):
    root = folder(tmp_path / "set")
    rows = [f"set/{path.relative_to(root)},{path.parent.name}" for path in sorted(root.rglob("*.png"))]
    (tmp_path / "set.csv").write_text("path,label\n" + "\n".join(rows))
    found = digests(open_dataset(tmp_path / "set.csv"))
    assert [(one.name, one.algorithm) for one in found] == [("set.csv", "sha256"), ("set.csv: images", "dirHash")]
    (root / "README.md").unlink()
    assert found[1].value == digests(open_dataset(root))[0].value  # the same images
    np.save(tmp_path / "images.npy", IMAGES)
    np.save(tmp_path / "labels.npy", LABELS)
    found = digests(open_dataset(tmp_path / "images.npy", resize=(4, 4)))
    assert [one.name for one in found] == ["images.npy", "labels.npy"]
    with pytest.raises(InputError, match="in memory"):
        digests(open_dataset((IMAGES, LABELS)))


def test_what_changes_meanwhile_is_not_attested(tmp_path):
    root = folder(tmp_path / "set")
    judged = Judged(open_dataset(root), Judging())
    (root / "README.md").write_text("other")
    with pytest.raises(InputError, match="changed while it was judged"):
        judged.write(flagging(root, {}), tmp_path / "it", Gate())
    assert not (tmp_path / "it").exists()


@pytest.mark.parametrize(("gate", "result"), [("poison", "WARNED"), ("property", "FAILED")])
def test_a_property(gate, result):
    report = flagging((IMAGES, LABELS), {1: [1]}, kind="property")
    assert statement(report, [], {}, fail_on=gate)["predicate"]["result"] == result


def test_a_model_is_a_component_of_its_own(tmp_path):
    np.savez(tmp_path / "set.npz", images=IMAGES, labels=LABELS)
    (tmp_path / "net.pt2").write_bytes(b"x")
    judged = Judged(open_dataset(tmp_path / "set.npz"), Judging(), model=tmp_path / "net.pt2")
    report = flagging(tmp_path / "set.npz", {})
    materials = bill_of_materials(report, judged.subjects, models=1)
    assert [one["type"] for one in materials["components"]] == ["data", "machine-learning-model"]
    assert materials["components"][1]["hashes"][0]["content"] == sha256(tmp_path / "net.pt2")
    check_schemas(statement(report, judged.subjects, {}), materials)
