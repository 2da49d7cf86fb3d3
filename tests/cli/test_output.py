"""What the commands print and write: verdicts, findings for dashboards, progress."""

import dataclasses
import io
import json
import os
import sys

import numpy as np
import pytest
from command_line import run
from reports import FLAGGED, LABELS, M, flagging

from bre import _progress
from bre.inputs import open_dataset
from bre.report import ClassRow, Report
from bre.report.sarif import sarif


def test_poisoning_found(data, answer):
    answer.result = flagging(data)
    done = run("screen", data)
    assert done.exit_code == 1
    assert done.stdout == answer.result.summary() + "\n"
    assert done.stderr == ""


def test_nothing_found(data, answer):
    answer.result = flagging(data, {})
    done = run("detect", data, "--model", "m.pt2")
    assert done.exit_code == 0
    assert done.stdout.startswith("NOTHING FOUND (p = 0.001")


@pytest.mark.parametrize(("fail_on", "status"), [([], 0), (["--fail-on", "poison"], 0), (["--fail-on", "property"], 1)])
def test_a_property_of_a_class_fails_where_that_was_asked_for(data, answer, fail_on, status):
    poison = flagging(data)
    found = dataclasses.replace(poison.findings[0], kind="property")
    answer.result = dataclasses.replace(poison, poisoned=False, findings=(found,))
    done = run("screen", data, *fail_on)
    assert done.exit_code == status
    assert done.stdout.startswith("NO POISON FOUND, 1 CLASS PROPERTY")
    answer.result = flagging(data, {})
    assert run("screen", data, *fail_on).exit_code == 0
    answer.result = poison
    assert run("screen", data, *fail_on).exit_code == 1


@pytest.mark.parametrize("flagged", [FLAGGED, {}])
def test_json_is_all_there_is_on_stdout(data, answer, flagged, tmp_path):
    answer.result = flagging(data, flagged)
    done = run("screen", data, "--json", "--out", tmp_path / "report")
    assert done.exit_code == bool(flagged)
    assert json.loads(done.stdout) == answer.result.to_dict()
    assert f"open {tmp_path / 'report' / 'report.html'}" in done.stderr
    assert Report.load(tmp_path / "report").to_dict() == answer.result.to_dict()


def test_out_holds_the_page_with_its_images(data, answer, tmp_path):
    answer.result = flagging(data)
    assert run("screen", data, "--out", tmp_path / "report").exit_code == 1
    page = (tmp_path / "report" / "report.html").read_text("utf-8")
    assert page == answer.result.page(data)
    assert page.count("<img") == 8  # three flagged images and five beside them; the pattern is all zero


def test_quiet_prints_nothing(data, answer, tmp_path):
    answer.result = flagging(data)
    done = run("screen", data, "--quiet", "--out", tmp_path / "report", "--sarif", tmp_path / "a.sarif")
    assert (done.exit_code, done.output) == (1, "")
    assert (tmp_path / "report").is_dir()
    assert (tmp_path / "a.sarif").is_file()


def test_verbose_adds_the_classes_and_the_stages(data, answer):
    rows = [
        ClassRow(0, "a", 4, True, 1.5, None, 0.25),
        ClassRow(2, "c", 4, True, 22.5, 3.0, 1e-6, alignment=0.01, separation=12.5),
    ]
    answer.result = dataclasses.replace(flagging(data), classes=tuple(rows))
    done = run("screen", data, "-v")
    table = done.stdout.removeprefix(answer.result.summary()).split("\n")
    assert [line.split() for line in table if line] == [
        ["class", "images", "in", "images", "in", "model", "in", "gradients", "inside", "p"],
        ["0", "4", "1.5", "-", "-", "-", "0.25"],
        ["2", "4", "22.5", "3", "0.01", "12.5", "1e-06"],
    ]
    assert len({len(line) for line in table if line}) == 1
    assert done.stderr == "bre: opening the images\nbre: searching\n"


# ---- findings for dashboards


def sarif_of(text):
    content = json.loads(text)
    (one,) = content["runs"]
    assert content["version"] == "2.1.0"
    rules = one["tool"]["driver"]["rules"]
    for rule in rules:  # what GitHub refuses a rule, and below a location, without
        assert all(rule[part]["text"] for part in ("shortDescription", "fullDescription", "help"))
    for result in one["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] == "error"
        assert result["message"]["text"]
        for place in result["locations"]:
            assert place.get("physicalLocation", {"region": {"startLine": 1}})["region"] == {"startLine": 1}
    return one


def places(one):
    return [
        (r["ruleId"], r["locations"][0].get("physicalLocation", {}).get("artifactLocation", {}).get("uri"))
        for r in one["results"]
    ]


def test_sarif_names_the_files(images_folder, answer, tmp_path, monkeypatch):
    answer.result = flagging(images_folder, {0: [1], 1: [4, 6]})
    monkeypatch.chdir(tmp_path)
    done = run("screen", images_folder, "--sarif", "-")
    assert done.exit_code == 1
    one = sarif_of(done.stdout)
    assert places(one) == [
        ("poisoned-class", "the%20set"),
        ("poisoned-image", "the%20set/%5Bb%5D/01.png"),
        ("poisoned-class", "the%20set"),
        ("poisoned-image", "the%20set/a%7B0%7D/04.png"),
        ("poisoned-image", "the%20set/a%7B0%7D/06.png"),
    ]
    assert one["results"][4]["properties"] == {"finding": 2, "index": 6, "logOdds": 3.0}
    assert r"0 '\[b\]'" in one["results"][1]["message"]["text"]  # else a dashboard takes it for a link
    assert "1 'a{{0}}'" in one["results"][4]["message"]["text"]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert run("screen", images_folder, "--sarif", "a.sarif").exit_code == 1
    assert places(sarif_of((elsewhere / "a.sarif").read_text()))[1][1] == f"file://{tmp_path}/the%20set/%5Bb%5D/01.png"


def test_sarif_of_a_name_that_is_no_text(images_folder, answer, monkeypatch):
    try:
        os.rename(images_folder / "[b]", os.fsencode(images_folder) + b"/b\xff")
    except OSError:
        pytest.skip("this file system takes text only")
    dataset = open_dataset(images_folder)
    label = next(k for k, name in enumerate(dataset.class_names) if name.startswith("b"))
    answer.result = flagging(images_folder, {label: np.flatnonzero(dataset.labels == label)[:1].tolist()})
    monkeypatch.chdir(images_folder.parent)
    done = run("screen", images_folder, "--sarif", "-")
    assert done.exit_code == 1
    assert any("%FF" in (place or "") for _, place in places(sarif_of(done.stdout)))


def test_sarif_of_one_file_names_the_images_in_it(data, answer, tmp_path):
    answer.result = flagging(data)
    done = run("screen", data, "--sarif", tmp_path / "a.sarif", "--json")
    assert json.loads(done.stdout) == answer.result.to_dict()
    one = sarif_of((tmp_path / "a.sarif").read_text())
    assert {uri.rpartition("/")[2] for _, uri in places(one)} == {"set.npz"}
    names = [r["locations"][0]["logicalLocations"][0]["fullyQualifiedName"] for r in one["results"]]
    assert names[1] == "set.npz: image 1"


def test_sarif_of_a_pattern_names_the_shards(answer, tmp_path):
    real_files = pytest.importorskip("real_files")
    root = real_files.write_parquet_folder(tmp_path / "set")
    answer.result = flagging(root / "train-*.parquet")
    run("screen", root / "train-*.parquet", "--sarif", tmp_path / "a.sarif", "--quiet")
    one = sarif_of((tmp_path / "a.sarif").read_text())
    assert {uri.rpartition("/")[2] for _, uri in places(one)} == {"train-00000-of-00002.parquet"}  # of images 1, 4, 5


def test_sarif_of_nothing_and_of_memory(data):
    arrays = np.zeros((M, 5, 7, 3), np.uint8), LABELS
    images = open_dataset(arrays)
    assert sarif_of(json.dumps(sarif(flagging(arrays, {}), images)))["results"] == []
    found = sarif_of(json.dumps(sarif(flagging(arrays), images)))
    assert {uri for _, uri in places(found)} == {None}


def test_stdout_takes_one_machine_only(data, answer):
    done = run("screen", data, "--sarif", "-", "--json")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "stdout takes one of --json and --sarif -" in done.stderr


# ---- progress


def test_progress_is_for_terminals_only(monkeypatch, capsys):
    with _progress.shown_progress("opening") as progress:
        assert progress is None
    with _progress.shown_progress("opening", lines=True) as progress:
        progress("reading", 0.5)
        progress("reading", 1.0)
    assert capsys.readouterr().err == "bre: opening\nbre: reading\n"

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with _progress.shown_progress("opening", bar=False) as progress:
        assert progress is None
    with _progress.shown_progress("opening") as progress:
        progress("covariance [bold]", 0.5)
        progress("covariance [bold]", 1.0)
        progress("patterns", 0.25)
    assert "opening" in terminal.getvalue()
