"""The command line: what it passes on, what it prints where, and how it ends."""

import dataclasses
import inspect
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from reports import FLAGGED, LABELS, M, flagging
from typer.testing import CliRunner

import bre
import bre.inputs
from bre import _progress
from bre.cli.commands import app
from bre.cli.options import OPTIONS, Network, Reading
from bre.errors import BackendUnavailable, InputError
from bre.inputs import open_dataset, open_model
from bre.report import ClassRow, Report
from bre.report.sarif import sarif
from bre.verbs.versions import versions


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "set.npz"
    images = np.random.default_rng(0).integers(0, 256, (M, 5, 7, 3), dtype=np.uint8)
    np.savez(path, images=images, labels=LABELS)
    return path


@pytest.fixture
def images_folder(tmp_path):
    """Twelve files in three class folders, whose names mean something to a dashboard."""
    for i in range(M):
        path = tmp_path / "the set" / ("[b]", "a{0}", "c")[i // 4] / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (7, 5)).save(path)
    return tmp_path / "the set"


@pytest.fixture
def answer(monkeypatch):
    """Make screen and detect record how they were called, and return or raise what the test says."""
    state = SimpleNamespace(result=None, calls=[])

    def verb(*args, **kwargs):
        state.calls.append((args, kwargs))
        if kwargs["progress"]:
            kwargs["progress"]("searching", 0.5)
        if isinstance(state.result, BaseException):
            raise state.result
        return state.result

    monkeypatch.setattr(bre, "screen", verb, raising=False)
    monkeypatch.setattr(bre, "detect", verb, raising=False)
    monkeypatch.setattr(bre.inputs, "open_model", lambda path, **how: (str(path), how))
    return state


def run(*args):
    return CliRunner().invoke(app, [str(a) for a in args])


# ---- verdicts


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
        ClassRow(2, "c", 4, True, 22.5, 3.0, 1e-6, alignment=0.01),
    ]
    answer.result = dataclasses.replace(flagging(data), classes=tuple(rows))
    done = run("screen", data, "-v")
    table = done.stdout.removeprefix(answer.result.summary()).split("\n")
    assert [line.split() for line in table if line] == [
        ["class", "images", "in", "images", "in", "model", "in", "gradients", "p"],
        ["0", "4", "1.5", "-", "-", "0.25"],
        ["2", "4", "22.5", "3", "0.01", "1e-06"],
    ]
    assert len({len(line) for line in table if line}) == 1
    assert done.stderr == "bre: opening the images\nbre: searching\n"


def test_options_reach_the_verbs(data, answer):
    answer.result = flagging(data, {})
    run("screen", data)
    (images,), options = answer.calls.pop()
    assert images.path == data
    assert options == {"seed": 0, "alpha": 0.05, "backend": "auto", "progress": None}
    more = ["--seed", 3, "--alpha", 0.01, "--backend", "reference", "--unsafe-pickle", "--device", "cpu"]
    run("detect", data, "--model", "m.pt2", *more, "--mean", "0.5,0.25, 0", "--std", "1,1,2")
    (model, images), options = answer.calls.pop()
    assert images.path == data
    assert options == {"seed": 3, "alpha": 0.01, "backend": "reference", "progress": None}
    nothing = {"arch": None, "input_size": None, "run_arch": False, "device": "cpu", "precision": "float32"}
    assert model == ("m.pt2", {"mean": (0.5, 0.25, 0.0), "std": (1.0, 1.0, 2.0), "unsafe": True, **nothing})
    more = ["--arch", "mine:net", "--run-arch", "--input-size", "8,9", "--device", "cuda:1", "--precision", "bfloat16"]
    run("detect", data, "--model", "m.safetensors", *more)
    (model, _), _ = answer.calls.pop()
    assert model[1] == {
        "mean": None,
        "std": None,
        "unsafe": False,
        "arch": "mine:net",
        "run_arch": True,
        "input_size": (8, 9),
        "device": "cuda:1",
        "precision": "bfloat16",
    }


@pytest.mark.parametrize("verb", [["screen"], ["detect", "--model", "m"]])
def test_options_reach_the_dataset(data, answer, verb, tmp_path):
    listing = tmp_path / "list.csv"
    Image.new("RGB", (4, 6)).save(tmp_path / "a.png")
    listing.write_text("file,kind\n" + "a.png,0\na.png,1\n")
    done = run(*verb, listing, "--columns", "file,kind", "--resize", "2,3", "--convert", "L")
    assert done.exit_code == 2  # no result to answer with
    (*_, images), _ = answer.calls.pop()
    assert images.image_shape == (1, 2, 3)


def test_every_option_of_the_dataset_has_the_name_of_its_argument():
    taken = set(inspect.signature(open_dataset).parameters) - {"data"}
    assert {f.name for f in dataclasses.fields(Reading)} == taken
    taken = set(inspect.signature(open_model).parameters) - {"model", "unsafe"}
    assert {f.name for f in dataclasses.fields(Network)} == taken


@pytest.mark.parametrize(
    ("options", "shape"),
    [(["--crop", "2,3"], (3, 2, 3)), (["--pad"], (3, 6, 5)), (["--pad", "--skip-damaged"], (3, 6, 5))],
)
def test_sizes_of_a_list(data, answer, tmp_path, options, shape):
    (tmp_path / "images").mkdir()
    for i, size in enumerate([(4, 6), (5, 3)] * 2):
        Image.new("RGB", size).save(tmp_path / "images" / f"{i}.png")
    if "--skip-damaged" in options:
        (tmp_path / "images" / "3.png").write_bytes(b"no image")
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(f"{i}.png,{i % 2}\n" for i in range(4)))
    run("screen", tmp_path / "list.csv", "--root", tmp_path / "images", *options)
    ((images,), _) = answer.calls.pop()
    assert images.image_shape == shape
    assert len(images) == 4 - ("--skip-damaged" in options)


# ---- a configuration file


def test_a_config_file_gives_defaults(data, answer, tmp_path):
    answer.result = flagging(data, {})
    config = tmp_path / "bre.toml"
    config.write_text('seed = 7\nalpha = 0.01\nbackend = "reference"\nmean = [0.5, 1, 0]\n')
    assert run("detect", data, "--model", "m", "--config", config, "--seed", 8).exit_code == 0
    ((_, how), _), options = answer.calls.pop()
    assert (options["seed"], options["alpha"], options["backend"]) == (8, 0.01, "reference")
    assert (how["mean"], how["std"]) == ((0.5, 1.0, 0.0), None)
    config.write_text("")
    assert run("screen", data, "--config", config).exit_code == 0
    assert answer.calls.pop()[1]["seed"] == 0
    config.write_text("resize = [2, 3]\n")
    assert run("screen", data, "--config", config).exit_code == 0
    assert answer.calls.pop()[0][0].image_shape == (3, 2, 3)
    config.write_text('device = "cuda"\n')
    assert run("screen", data, "--config", config).exit_code == 0  # the model's, of which screen has none
    run("detect", data, "--model", "m", "--config", config)
    assert answer.calls.pop()[0][0][1]["device"] == "cuda"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed = true", "seed: expected an integer, got True"),
        ("alpha = '0.1'", "alpha: expected a number, got '0.1'"),
        ("convert = 3", "convert: expected text, got 3"),
        ('layout = "CHWN"', "'--layout'"),
        ('columns = ["a", 1]', "columns: expected a list of text"),
        ("seed = " + "[" * 10_000, "nested too deeply"),
        ("seed" + ".a" * 10_000 + " = 1", "seed: expected an integer"),
        ("seed = " + "[" * 100_000, "larger than 64 KiB"),
        ("sead = 1", "unknown key 'sead', known are seed, alpha,"),
        ("unsafe = true", "unknown key 'unsafe'"),
        ('seed = "1"', "seed: expected an integer, got '1'"),
        ("seed = -1", "'--seed'"),
        ("alpha = 2.0", "'--alpha'"),
        ("alpha = 1e-300", "'--alpha'"),  # with which whoever adds images beside the file would pass
        ('mean = [0.5, "a"]', "mean: expected a list of numbers, got [0.5, 'a']"),
        ("resize = [1]", "expected HEIGHT,WIDTH"),
        ("seed = ", "is no TOML"),
        ("seed = 1\nseed = 2", "is no TOML"),
        ("\udcff", "is no TOML"),
        (None, "No such file"),
    ],
)
def test_a_config_file_that_cannot_be(data, answer, tmp_path, text, message):
    config = tmp_path / "bre.toml"
    if text is not None:
        config.write_text(text, errors="surrogateescape")
    done = run("screen", data, "--config", config)
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not answer.calls


def test_what_a_config_file_may_give_is_told_by_the_help():
    keys = [one.name for one in OPTIONS.values() if one.config]
    told = " ".join(run("screen", "--help").stdout.split())
    assert f"any of {', '.join(keys)}." in told
    assert {"resize", "alpha", "std"} <= set(keys)
    forbidden = {"unsafe", "run_arch", "out", "sarif", "root", "boxes", "follow_links"}
    assert not forbidden & set(keys), "what runs code, writes, or reads elsewhere is not for a file to say"


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


# ---- could not answer


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("labels are\nmissing \x1b[31m"), "bre: error: labels are missing \ufffd[31m"),
        (BackendUnavailable("no cuda"), "bre: error: no cuda"),
        (PermissionError(13, "Permission denied", "a\nb"), "bre: error: Permission denied: a b"),
        (InputError("allow it", argument="unsafe"), "bre: error: allow it (option --unsafe-pickle)"),
        (
            InputError("give both", argument=("mean", "input_size", "other")),
            "bre: error: give both (options --mean R,G,B, --input-size H,W, --other)",
        ),
        (InputError("no /a/std=1, mean=2"), "bre: error: no /a/std=1, mean=2"),
        (MemoryError("no"), "bre: error: there is not enough memory here: no"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried"),
            "bre: error: there is not enough memory here: [enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't "
            "allocate memory: you tried",
        ),
        (ZeroDivisionError("oh"), "bre: error: ZeroDivisionError: oh (unexpected; --traceback shows where)"),
    ],
)
def test_errors_take_one_line_and_end_with_2(data, answer, error, line):
    answer.result = error
    done = run("screen", data)
    assert (done.exit_code, done.stdout, done.stderr) == (2, "", line + "\n")
    done = run("screen", data, "--traceback")
    assert done.exit_code == 2
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.endswith(line + "\n")


def test_interrupted(data, answer):
    answer.result = KeyboardInterrupt()
    done = run("screen", data, "--json")
    assert (done.exit_code, done.stdout) == (130, "")
    assert done.stderr == "bre: interrupted, nothing was left half-written\n"


@pytest.mark.parametrize(
    "args",
    [
        ["screen"],
        ["nonsense"],
        ["screen", "x", "--alpha", "2"],
        ["screen", "x", "--seed", "-1"],
        ["detect", "x"],
        ["detect", "x", "--model", "m", "--mean", "a,b"],
        ["detect", "x", "--model", "m", "--std", ""],
        ["screen", "x", "--device", "cuda"],
        ["detect", "x", "--model", "m", "--device", "gpu"],
        ["detect", "x", "--model", "m", "--precision", "float16"],
        ["screen", "x", "--resize", "1,2,3"],
        ["screen", "x", "--columns", "a"],
        ["cleanse", "x", "y"],
        ["--nonsense"],
    ],
)
def test_wrong_usage_ends_with_2(args, answer):
    done = run(*args)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("bre: error: ")
    assert done.stderr.endswith(" --help)\n")
    assert done.stderr.count("\n") == 1
    assert not answer.calls


@pytest.mark.parametrize("verb", [["screen"], ["detect", "--model", "m"]])
def test_out_is_looked_at_before_any_work(data, answer, tmp_path, verb):
    for out, message in (
        (tmp_path, "exists already"),
        (tmp_path / "a" / "b", "does not exist"),
    ):
        for option in ("--out", "--sarif"):
            done = run(*verb, data, option, out)
            assert done.exit_code == 2
            assert message in done.stderr
    assert not answer.calls


def test_two_outputs_of_one_name(data, answer, tmp_path):
    done = run("screen", data, "--out", tmp_path / "a", "--sarif", tmp_path / "a")
    assert done.exit_code == 2
    assert "give each a name of its own" in done.stderr
    assert not answer.calls


def test_a_folder_that_takes_no_files(data, answer, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)  # root may write anywhere
    done = run("screen", data, "--out", tmp_path / "report")
    assert done.exit_code == 2
    assert "no permission to write" in done.stderr
    assert not answer.calls


def test_without_a_command_comes_the_help():
    done = run()
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: ")
    assert "bre screen train.npz" in done.stderr


@pytest.mark.parametrize("option", ["--out", "--sarif"])
def test_a_report_is_not_saved_into_the_dataset(answer, images_folder, option):
    done = run("screen", images_folder, option, images_folder / "report")
    assert done.exit_code == 2
    assert "lies inside the dataset" in done.stderr
    assert not answer.calls


# ---- cleanse, info, demo


def test_cleanse(data, tmp_path):
    flagging(data).save(tmp_path / "report")
    done = run("cleanse", data, tmp_path / "report", "--out", tmp_path / "clean.npz")
    assert done.exit_code == 0, done.output
    assert f"{M - 3} images kept in {tmp_path / 'clean.npz'}, 3 removed" in done.stdout
    with np.load(tmp_path / "clean.npz") as z:
        assert len(z["labels"]) == M - 3
    assert (tmp_path / "clean.npz.removed.csv").is_file()
    done = run("cleanse", data, tmp_path / "report", "--out", tmp_path / "clean.npz")
    assert done.exit_code == 2
    assert "exists already" in done.stderr
    done = run("cleanse", data, tmp_path / "report", "--out", tmp_path / "more.npz", "--json")
    assert json.loads(done.stdout) == {
        "removed": 3,
        "kept": M - 3,
        "out": str(tmp_path / "more.npz"),
        "list": str(tmp_path / "more.npz.removed.csv"),
    }


def test_cleanse_refuses_a_report_on_another_dataset(data, tmp_path):
    other = tmp_path / "other.npz"
    np.savez(other, images=np.zeros((4, 5, 7, 3), np.uint8), labels=np.arange(4) % 2)
    flagging(other, {}).save(tmp_path / "report")
    done = run("cleanse", data, tmp_path / "report", "--out", tmp_path / "clean.npz", "--quiet")
    assert done.exit_code == 2
    assert "another dataset: 4 images" in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["other.npz", "report", "set.npz"]


def test_info():
    done = run("info")
    assert done.exit_code == 0
    for part in ("python", "torch", "numpy", "threads", "reference  available", "cpu "):
        assert part in done.stdout
    facts = json.loads(run("info", "--json").stdout)
    assert facts["versions"] == versions()
    assert facts["backends"]["reference"] is None
    assert set(facts["backends"]) == {"reference", "cpu", "triton", "cuda"}


def test_info_says_why_a_backend_cannot_be_used_on_its_own_devices(monkeypatch):
    monkeypatch.setattr("bre.ops._backends.unavailable", lambda name, device: f"no {name} on {device}")
    assert json.loads(run("info", "--json").stdout)["backends"] == {
        "reference": "no reference on cpu",
        "cpu": "no cpu on cpu",
        "triton": "no triton on cuda",
        "cuda": "no cuda on cuda",
    }


@pytest.mark.parametrize(("compiled", "shown"), [("80-real 90", "sm_80 sm_90"), (None, None)])
def test_info_says_what_the_cuda_kernels_were_compiled_for(monkeypatch, compiled, shown):
    monkeypatch.setattr("bre.ops.cuda.architectures", lambda: compiled)
    assert json.loads(run("info", "--json").stdout)["cuda"] == shown
    assert ("for CUDA        sm_80 sm_90\n" in run("info").stdout) == bool(shown)


def test_demo_passes_its_lines_on(monkeypatch, tmp_path):
    def demo(*, seed, out, echo):
        echo(f"planted with seed {seed}, saved to {out}")

    monkeypatch.setitem(sys.modules, "bre.demo", SimpleNamespace(run=demo))
    done = run("demo", "--seed", "5", "--out", tmp_path / "r")
    assert (done.exit_code, done.stdout) == (0, f"planted with seed 5, saved to {tmp_path / 'r'}\n")
    assert run("demo", "--out", tmp_path).exit_code == 2


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


# ---- as a program


PROGRAM = "from bre.cli import main; main()"


def program(*args, code=PROGRAM, **options):
    command = [sys.executable, "-W", "error", "-c", code, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, **options)


def stub(report, body="return Report.load(REPORT)"):
    """The program, with bre.screen replaced by `body`; REPORT is the path of a saved report."""
    lines = ["import os, signal, time, bre", "from bre.report import Report", f"REPORT = {str(report)!r}"]
    return "\n".join([*lines, "def screen(*args, **options):", f"    {body}", "bre.screen = screen", PROGRAM])


def test_help_has_an_example_for_every_command():
    done = run("--help")
    assert done.exit_code == 0
    for name in ("screen", "detect", "cleanse", "demo", "info"):
        assert f"\n  {name} " in done.stdout
        assert f"Example: bre {name}" in run(name, "--help").stdout
    assert "..." not in done.stdout.partition("Commands:")[2]


def test_help_and_completion_do_not_wait_for_torch():
    code = f"import atexit, sys; atexit.register(lambda: print('torch' in sys.modules)); {PROGRAM}"
    words = {"COMP_WORDS": "bre screen x --a", "COMP_CWORD": "3", "_BRE_COMPLETE": "complete_bash"}
    for args, environment in ((["screen", "--help"], {}), (["--version"], {}), ([], words)):
        done = program(*args, code=code, env={**os.environ, **environment})
        assert done.stdout.endswith("\nFalse\n"), done.stdout + done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_device_that_is_not_here(data):
    done = run("detect", data, "--model", data, "--device", "cuda:3")
    assert done.exit_code == 2
    assert done.stderr.startswith("bre: error: there is no cuda:3 here: ")


def test_the_program_runs():
    done = program("info")
    assert (done.returncode, done.stderr) == (0, "")
    assert versions()["torch"] in done.stdout


def test_version():
    assert run("--version").stdout == f"bre {versions()['bre']}\n"


def test_completion_knows_the_backends():
    line = "bre screen x --backend "
    words = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" ")), "_BRE_COMPLETE": "complete_bash"}
    done = program(env={**os.environ, **words})
    assert done.stderr == ""
    assert {"auto", "reference", "cpu"} <= set(done.stdout.split())


def test_errors_name_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run("cleanse", "set.npz", "report", "--out", "clean.npz")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == "bre: error: no such report: report (a saved report is a folder)\n"


posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals, limits and terminals")


@posix
def test_colour_is_for_terminals_only(data, tmp_path):
    import pty

    flagging(data).save(tmp_path / "report")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", stub(tmp_path / "report"), "screen", str(data)]
    terminal = {**os.environ, "TERM": "xterm"}
    done = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE, env=terminal, timeout=180)
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert (done.returncode, done.stderr) == (1, b"")
    assert "\x1b[1;31mPOISONED (p = 0.001, alpha = 0.05)\x1b[0m" in shown
    assert "\x1b[1mFinding 1" in shown


@posix
@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_signals_leave_nothing_half_written(data, tmp_path, name, status):
    """While the report is being written: two of its files are there, the third never comes."""
    flagging(data).save(tmp_path / "report")
    waiting = "import numpy; numpy.savez = lambda *a, **k: (print('now', flush=True), time.sleep(60))"
    code = stub(tmp_path / "report", f"{waiting}; return Report.load(REPORT)")
    (tmp_path / "here").mkdir()
    command = [sys.executable, "-c", code, "screen", str(data), "--out", "new"]
    with subprocess.Popen(
        command,
        cwd=tmp_path / "here",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background jobs of a shell ignore it
    ) as running:
        while running.stdout.readline().strip() != b"now":
            assert running.poll() is None
        assert len(os.listdir(tmp_path / "here")) == 1  # the unfinished one, under another name
        running.send_signal(getattr(signal, name))
        _, error = running.communicate(timeout=180)
    assert running.returncode == status
    assert error == b"bre: interrupted, nothing was left half-written\n"
    assert os.listdir(tmp_path / "here") == []


@posix
@pytest.mark.parametrize("option", ["--out", "--sarif"])
def test_a_full_disk_leaves_nothing_half_written(data, tmp_path, option):
    flagging(data).save(tmp_path / "report")
    (tmp_path / "here").mkdir()
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500)); return Report.load(REPORT)"
    done = program("screen", data, option, "new", code=stub(tmp_path / "report", limit), cwd=tmp_path / "here")
    assert done.returncode == 2
    assert done.stdout.startswith("POISONED")  # what was found is not lost
    assert done.stderr == ("bre: error: File too large; nothing was left half-written, write to where there is room\n")
    assert os.listdir(tmp_path / "here") == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_an_output_that_takes_nothing_is_an_error(data, tmp_path):
    flagging(data, {}).save(tmp_path / "report")
    command = [sys.executable, "-c", stub(tmp_path / "report"), "screen", str(data), "--json"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=180)
    assert done.returncode == 2
    assert done.stderr.startswith("bre: error: No space left on device")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize(
    "args", [["screen", "nothing.npz"], ["screen", "nothing.npz", "--traceback"], ["nonsense"], []]
)
def test_an_error_is_no_finding_where_stderr_takes_nothing(tmp_path, args):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-c", PROGRAM, *args]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, cwd=tmp_path, timeout=180)
    assert (done.returncode, done.stdout) == (2, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_verdict_stays_where_stderr_takes_nothing(data, tmp_path):
    flagging(data).save(tmp_path / "report")
    command = [
        sys.executable,
        "-c",
        stub(tmp_path / "report"),
        "screen",
        str(data),
        "--out",
        str(tmp_path / "new"),
        "-v",
    ]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, timeout=180)
    assert done.returncode == 1
    assert done.stdout.startswith(b"POISONED")


@pytest.mark.parametrize(
    "broken",
    [
        "import sys; sys.modules['typer'] = None",
        "import bre.cli.exit_status as e; e.printable = None",  # the handler of errors fails itself
        "import bre.cli.commands as c; c.app = lambda **_: None",
        "import bre.cli.commands as c\ndef app(**_): raise SystemExit('no')\nc.app = app",
    ],
)
def test_a_failure_that_reaches_no_handler_is_no_finding(tmp_path, broken):
    done = program("screen", "nothing.npz", code=f"import sys\n{broken}\n{PROGRAM}", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


@posix
@pytest.mark.parametrize("raised", ["KeyboardInterrupt", "ImportError('numpy failed')"])
def test_interrupted_while_importing(raised):
    """An import may turn what a signal raises into another error."""
    hook = f"""
import os, signal, sys
class Importing:
    def find_spec(self, name, path, target=None):
        if name == "typer":
            try:
                os.kill(os.getpid(), signal.SIGINT)
                signal.pause()
            except KeyboardInterrupt:
                raise {raised}
sys.meta_path.insert(0, Importing())
signal.signal(signal.SIGINT, signal.default_int_handler)
"""
    done = program("info", code=hook + PROGRAM)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "bre: interrupted, nothing was left half-written\n"


@posix
def test_nobody_reads_the_output():
    reading, writing = os.pipe()
    os.close(reading)
    for args in (["--help"], ["screen", "--help"], ["--version"]):
        command = [sys.executable, "-c", PROGRAM, *args]
        done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=180)
        assert (done.returncode, done.stderr) == (2, "")
    command = [sys.executable, "-c", PROGRAM, "info"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=180)
    os.close(writing)
    assert (done.returncode, done.stderr) == (2, "")


@posix
@pytest.mark.parametrize("options", [[], ["--json"], ["--verbose"]])
def test_what_was_asked_for_is_written_where_nobody_reads_the_verdict(data, tmp_path, options):
    flagging(data, {}).save(tmp_path / "report")
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", stub(tmp_path / "report"), "screen", str(data), *options]
    command += ["--out", str(tmp_path / "new"), "--sarif", str(tmp_path / "new.sarif")]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=180)
    os.close(writing)
    assert done.returncode == 2
    assert "error" not in done.stderr
    assert (tmp_path / "new" / "report.html").exists()
    assert json.loads((tmp_path / "new.sarif").read_text())


@posix
@pytest.mark.parametrize("closed", [1, 2])
def test_a_closed_output_is_no_error(data, tmp_path, closed):
    flagging(data, {}).save(tmp_path / "report")
    command = [sys.executable, "-c", stub(tmp_path / "report"), "screen", str(data)]
    done = subprocess.run(command, preexec_fn=lambda: os.close(closed), capture_output=True, text=True, timeout=180)
    assert done.returncode == 0
    assert done.stderr == ""
