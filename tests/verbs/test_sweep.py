"""A list of data sets and models to one table of verdicts, on any executor, and where it goes on after a kill."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import synthetic
from command_line import run

import bre
from bre import InputError, attacks
from bre.verbs import sweep as module
from bre.verbs.sweep import SweepResult, sweep

SHAPE, CLASSES, EACH = (3, 12, 12), 6, 120


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A folder with a clean set, a planted one, and a list of both and of rows that cannot be done."""
    folder = tmp_path_factory.mktemp("sets")
    images, labels = synthetic.labelled(0, CLASSES, EACH, SHAPE)
    pattern = attacks.chessboard(SHAPE, 8 / 255)
    planted = attacks.plant(images, labels, pattern, target=2, count=40, seed=0)
    np.savez(folder / "clean.npz", images=images, labels=labels)
    np.savez(folder / "planted.npz", images=planted.images, labels=planted.labels)
    rows = [
        {"data": "clean.npz", "note": "as it came"},
        {"data": "planted.npz", "seed": 3},
        {"data": "missing.npz", "name": "=gone"},
        {"data": "clean.npz", "alpha": "much"},
        {"name": "nothing"},
    ]
    (folder / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


STATUSES = [0, 1, 2, 2, 2]


def by_row(results) -> list[SweepResult]:
    return sorted(results, key=lambda result: result.number)


def without_seconds(results) -> list[SweepResult]:
    return [dataclasses.replace(result, seconds=0.0) for result in by_row(results)]


@pytest.fixture(scope="module")
def alone(sets):
    return without_seconds(sweep(sets / "list.jsonl"))


def test_every_row_is_judged_as_alone_and_a_row_that_fails_is_one(sets, alone):
    assert [result.status for result in alone] == STATUSES
    clean, planted, *failed = alone
    report = bre.screen(sets / "planted.npz", seed=3)
    assert (planted.p_value, planted.flagged) == (report.p_value, len(report.indices))
    assert (planted.poison, planted.images, planted.verb) == (("2",), CLASSES * EACH, "screen")
    assert (clean.note, clean.name, planted.name) == ("as it came", "clean.npz", "planted.npz")
    assert "no such dataset" in failed[0].error
    assert failed[1].error == "alpha: 'much' is not what this option takes"
    assert failed[2].error == "it names no data"


def test_a_row_says_where_its_images_are_compared(sets, alone):
    listed = [{"data": sets / "clean.npz", "device": device, "note": "as it came"} for device in ("cpu", "tpu")]
    rest = {"data": sets / "clean.npz", "device": "cpu", "precision": "float32"}
    here, nowhere, without = by_row(sweep([*listed, rest]))
    assert without_seconds([here])[0].p_value == alone[0].p_value
    assert "device must be 'cpu', 'cuda' or 'cuda:N', got 'tpu'" in nowhere.error
    assert without.error == "it names no model, for which precision would be"


def test_any_executor_finds_the_same(sets, alone, tmp_path):
    with ThreadPoolExecutor(2) as pool:
        assert without_seconds(sweep(sets / "list.jsonl", executor=pool.submit)) == alone
    results = without_seconds(sweep(sets / "list.jsonl", jobs=2, out=tmp_path / "sweep"))
    assert [dataclasses.replace(result, report="") for result in results] == alone
    for result in results:
        assert bool(result.report) == (result.status < 2)
    saved = bre.Report.load(tmp_path / "sweep" / results[1].report)
    assert saved.p_value == alone[1].p_value


def test_tables(sets, tmp_path):
    out = tmp_path / "sweep"
    list(sweep(sets / "list.jsonl", out=out))
    with (out / "verdicts.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["status"]) for row in rows] == STATUSES
    assert rows[2]["name"] == "'=gone"
    lines = [json.loads(line) for line in (out / "verdicts.jsonl").read_text().splitlines()]
    assert [line["verdict"] for line in lines] == ["nothing found", "poisoned", *["no answer"] * 3]
    page = (out / "index.html").read_text()
    assert f'href="{lines[1]["report"]}/report.html"' in page
    assert "1 poisoned, 1 with nothing found, 3 without an answer" in page
    assert page.index("planted.npz") < page.index("missing") < page.index("clean.npz")
    assert (out / lines[1]["report"] / "report.html").is_file()


def test_rows_that_are_done_are_not_done_again(sets, tmp_path, monkeypatch):
    done = []
    screen = module.screen
    monkeypatch.setattr(module, "screen", lambda images, **how: done.append(images.source) or screen(images, **how))
    out = tmp_path / "sweep"
    results = sweep(sets / "list.jsonl", out=out)
    next(results)
    results.close()  # as an exception would
    assert len(done) == 1
    first = without_seconds(sweep(sets / "list.jsonl", out=out))
    assert len(done) == 2
    before = (out / "verdicts.jsonl").read_bytes()
    assert without_seconds(sweep(sets / "list.jsonl", out=out)) == first
    assert len(done) == 2
    assert (out / "verdicts.jsonl").read_bytes() == before
    list(sweep([{"data": sets / "clean.npz", "seed": 1}], out=out))
    assert len(done) == 3
    assert len((out / "verdicts.jsonl").read_text().splitlines()) == 1  # of this list


def test_a_report_without_its_record_is_not_made_again(sets, tmp_path, monkeypatch):
    """A kill may come between the two."""
    rows, out = [{"data": sets / "clean.npz"}], tmp_path / "sweep"
    (first,) = sweep(rows, out=out)
    for record in (out / "rows").iterdir():
        record.unlink()
    monkeypatch.setattr(module, "screen", None)
    (again,) = sweep(rows, out=out)
    assert again == first


def test_a_file_that_changed_is_looked_at_again(sets, tmp_path):
    path = tmp_path / "set.npz"
    path.write_bytes((sets / "clean.npz").read_bytes())
    (first,) = sweep([{"data": path}], out=tmp_path / "sweep")
    path.write_bytes((sets / "planted.npz").read_bytes())
    (second,) = sweep([{"data": path}], out=tmp_path / "sweep")
    assert (first.status, second.status) == (0, 1)


def test_a_model_makes_it_detect(sets, monkeypatch, tmp_path):
    calls = []

    def opened(model, **how):
        calls.append((str(model), how))
        return "the model"

    monkeypatch.setattr(module, "open_model", opened)
    monkeypatch.setattr(module, "detect", lambda model, images, **how: bre.screen(images, **how))
    text = 'data,model,mean,std,arch,resize,name\nclean.npz,m.pt2,"0.5, 0.25,0",1,,"12,12",first\n'
    (sets / "models.csv").write_text(text)
    (result,) = sweep(sets / "models.csv", run_arch=True)
    assert (result.verb, result.name, result.status) == ("detect", "first", 0)
    expected = {"unsafe": False, "run_arch": True, "mean": (0.5, 0.25, 0.0), "std": (1.0,)}
    assert calls == [(str(sets / "m.pt2"), expected)]


def test_parquet(sets, alone):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.table({"data": ["clean.npz", "planted.npz"], "seed": [None, 3], "resize": [[12, 12], None]})
    parquet.write_table(table, sets / "list.parquet")
    results = by_row(sweep(sets / "list.parquet"))
    assert [result.p_value for result in results] == [result.p_value for result in alone[:2]]


def test_a_row_that_kills_its_process_is_an_error_in_that_row(sets, monkeypatch):
    rows = [{"data": sets / "killer.tar"}, {"data": sets / "planted.npz", "seed": 3}]
    monkeypatch.setattr(module, "do", kill_or_do)
    results = by_row(sweep(rows, jobs=2))
    assert [result.status for result in results] == [2, 1]
    assert "its process was killed" in results[0].error


def kill_or_do(task):
    if str(task.row.data).endswith("killer.tar"):
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)
    from bre.verbs.sweep import do

    return do(task)


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_after_a_kill_it_goes_on(sets, alone, tmp_path):
    out = tmp_path / "sweep"
    command = [sys.executable, "-m", "bre", "sweep", sets / "list.jsonl", "--out", out, "--quiet"]
    process = subprocess.Popen([str(part) for part in command])
    while not list(out.glob("rows/*.json")) and process.poll() is None:
        time.sleep(0.02)
    process.kill()
    process.wait()
    kept = {path.name: path.read_bytes() for path in out.glob("rows/*.json")}
    assert kept
    again = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert again.returncode == 1, again.stderr
    lines = [json.loads(line) for line in (out / "verdicts.jsonl").read_text().splitlines()]
    assert [line["p_value"] for line in lines] == [result.p_value for result in alone]
    assert kept.items() <= {path.name: path.read_bytes() for path in out.glob("rows/*.json")}.items()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "the list has no rows"),
        ({"data": "x"}, "rows must be the path of a list, or mappings; got dict"),
        (3, "rows must be the path of a list, or mappings; got int"),
        (["set.npz"], "row 1 must be a mapping"),
        ([{"data": "x", "meen": 1}], r"row 1 has the columns \['meen'\], which mean nothing; known are data, model"),
        ([{"data": "x", "unsafe": True}], "which mean nothing"),
    ],
)
def test_lists_that_are_none(rows, message):
    with pytest.raises(InputError, match=message):
        sweep(rows)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("list.csv", "data,model\nx\n", "row 1 has more or fewer columns"),
        ("list.txt", "x", "must end in .csv, .tsv, .jsonl or .parquet"),
        ("list.jsonl", "{", "line 1 is damaged, or no JSON"),
        ("list.jsonl", "3\n", "row 1 must be a mapping"),
        ("list.parquet", "PAR1", "is damaged, or no Parquet"),
        ("list.csv", "", "the list has no rows"),
    ],
)
def test_files_that_are_no_lists(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        sweep(tmp_path / name)


def test_folders_that_are_no_sweeps(sets, tmp_path):
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match="exists, and is no folder of a sweep"):
        sweep([{"data": sets / "clean.npz"}], out=tmp_path / "other")
    with pytest.raises(InputError, match=r"the folder .* does not exist"):
        sweep([{"data": sets / "clean.npz"}], out=tmp_path / "no" / "sweep")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "sweep.json").write_text('{"schema": 99}')
    with pytest.raises(InputError, match="of another version's sweep"):
        sweep([{"data": sets / "clean.npz"}], out=tmp_path / "old")
    with pytest.raises(InputError, match="row 1 is in memory"):
        sweep([{"data": (np.zeros(3), np.zeros(3))}], out=tmp_path / "sweep")


def results_of(*statuses, **more):
    return [SweepResult(i, f"row{i}", "x", "", "screen", s, **more) for i, s in enumerate(statuses, 1)]


@pytest.mark.parametrize(
    ("results", "options", "status"),
    [
        (results_of(0, 0), [], 0),
        (results_of(0, 1, 2), [], 1),
        (results_of(0, 2), [], 2),
        (results_of(0, properties=("a",)), [], 0),
        (results_of(0, properties=("a",)), ["--fail-on", "property"], 1),
    ],
)
def test_the_command_ends_as_its_rows_do(monkeypatch, tmp_path, results, options, status):
    given = {}
    monkeypatch.setattr(bre, "sweep", lambda rows, **how: given.update(how) or iter(results), raising=False)
    done = run("sweep", "list.csv", "--out", tmp_path / "s", *options, "--jobs", "3", "--seed", "5")
    assert done.exit_code == status, done.output
    assert len(done.output.splitlines()) == len(results)
    expected = {"executor": "local", "jobs": 3, "ray_address": None, "seed": 5, "unsafe": False, "run_arch": False}
    assert expected.items() <= given.items()
    done = run("sweep", "list.csv", "--out", tmp_path / "s", "--json", "--ray", "auto")
    assert [json.loads(line)["number"] for line in done.output.splitlines()] == [r.number for r in results]
    assert (given["executor"], given["ray_address"]) == ("ray", "auto")
