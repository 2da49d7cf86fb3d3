"""Reports to disk and back byte for byte, and every way a saved one can lie."""

import contextlib
import json
import os
import pickle
import zipfile

import numpy as np
import pytest
from reports import SHAPE, make_clean, make_facts, make_finding, make_histogram, make_property, make_report

from bre.errors import InputError
from bre.report import (
    Cost,
    Report,
    StatisticTest,
)


def refused(match):
    return pytest.raises(InputError, match=match)


# ---- to disk and back


@pytest.mark.parametrize(
    "report",
    [
        make_report(),
        make_clean(),
        make_report(findings=(make_finding(), make_finding(target=0, indices=[1, 5, 6], success_rate=None))),
        make_report(findings=(make_finding(indices=np.empty(0, int), log_odds=np.empty(0)),)),
        make_report(findings=(make_finding(histogram=make_histogram()),)),
        make_report(findings=(make_finding(), make_property(target=0, indices=[1, 5, 6]))),
        make_report(findings=(make_finding(pattern=None, pattern_norm=None, seen_in=("inside",)),)),
        make_report(tests=(StatisticTest("image_statistic", 0.045, 3.5), StatisticTest("cross_class", 0.005))),
        make_report(dataset=make_facts(class_names=("a", "\udcff", "ü", "\n"))),
    ],
    ids=["one", "clean", "two", "no images", "histogram", "a property", "no pattern", "tests", "odd names"],
)
def test_round_trip(report, tmp_path):
    assert report.save(tmp_path / "r") == tmp_path / "r"
    files = ["arrays.npz", "report.html", "report.json", "timing.json"]
    assert sorted(p.name for p in (tmp_path / "r").iterdir()) == files
    assert os.listdir(tmp_path) == ["r"]
    again = Report.load(tmp_path / "r")
    assert again.to_dict() == report.to_dict()
    assert again.summary() == report.summary()
    assert again.dataset == report.dataset
    for ours, theirs in zip(again.findings, report.findings, strict=True):
        assert theirs.pattern is None or ours.pattern.dtype == np.float32
        assert (ours.kind, ours.window) == (theirs.kind, theirs.window)
        np.testing.assert_array_equal(ours.pattern, theirs.pattern)
        np.testing.assert_array_equal(ours.indices, theirs.indices)
        assert not ours.indices.flags.writeable


def test_two_runs_differ_in_their_seconds_only(tmp_path):
    make_report().save(tmp_path / "a")
    make_report(cost=Cost(20, 10, {"images": 9.0, "model": 0.25})).save(tmp_path / "b")
    same = {p.name: p.read_bytes() == (tmp_path / "b" / p.name).read_bytes() for p in (tmp_path / "a").iterdir()}
    assert same == {"report.json": True, "arrays.npz": True, "timing.json": False, "report.html": False}
    pages = [(tmp_path / name / "report.html").read_text().splitlines() for name in "ab"]
    assert ["12.3 s" in ours for ours, theirs in zip(*pages, strict=True) if ours != theirs] == [True]
    with zipfile.ZipFile(tmp_path / "a" / "arrays.npz") as z:  # no clock in the file
        assert {info.date_time for info in z.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_save_overwrites_nothing_and_leaves_nothing_half_written(tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    with refused("exists already"):
        make_report().save(tmp_path / "there")
    with refused("does not exist"):
        make_report().save(tmp_path / "no" / "such")

    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_report().save(tmp_path / "r")
    assert os.listdir(tmp_path) == ["there"]


# ---- what comes from strangers


@pytest.fixture
def saved(tmp_path):
    return make_report().save(tmp_path / "r")


def change(saved, edit):
    """Apply `edit` to the parsed report.json and write it back."""
    path = saved / "report.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def put(*keys):
    """A setter: put("findings", 0, "target", 5)(content) sets content["findings"][0]["target"] = 5."""
    *where, last, value = keys

    def edit(content):
        for key in where:
            content = content[key]
        content[last] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (put("schema", 1), "schema 1, this version of bre reads 4"),
        (put("schema", None), "schema None"),
        (lambda c: c.pop("alpha"), r"missing \['alpha'\]"),
        (put("surprise", 1), r"unknown \['surprise'\]"),
        (put("p_value", "0.01"), "p_value must be a finite number in .0, 1., got '0.01'"),
        (put("p_value", 10**400), "p_value"),
        (put("poisoned", 1), "poisoned must be true or false, got 1"),
        (put("poisoned", False), "poisoned is False but"),
        (put("findings", {}), "findings must be a list"),
        (put("findings", []), "does not hold the arrays"),
        (put("findings", [1]), "finding must be a mapping"),
        (put("findings", 0, "flagged", 2), "indices.npy in arrays.npz is not stored as int64 .2,."),
        (put("findings", 0, "flagged", 10**12), "flagged must be an integer from 0 to 20"),
        (put("findings", 0, "flagged", None), "flagged must be an integer"),
        (put("findings", 0, "target", 99), "target 99"),
        (put("findings", 0, "sources", "13"), "sources must be a list"),
        (put("findings", 0, "histogram", []), "histogram must be a mapping"),
        (
            put("findings", 0, "histogram", {"edges": [0.0, 1.0]}),
            r"histogram: missing \['cut', 'other_counts', 'target_counts'\]",
        ),
        (lambda c: c["findings"][0].pop("histogram"), r"finding: missing \['histogram'\]"),
        (put("findings", 0, "pattern_norm", None), "does not hold the arrays"),
        (put("findings", 0, "kind", "property"), "poisoned is True but there are 0 findings of poison"),
        (put("findings", 0, "kind", "?"), "kind must be one of poison, property"),
        (put("findings", 0, "window", {}), "window must be a list"),
        (put("findings", 0, "window", [0, 0, 2**62, 2**62]), "lies outside"),
        (put("findings", 0, "window", [0, 0, 1, "1"]), "window must be an integer"),
        (lambda c: c["findings"][0].pop("window"), r"finding: missing \['window'\]"),
        (put("findings", 0, "pattern", []), "'pattern'. belong into arrays.npz"),
        (put("dataset", "image_shape", [3, 4, 6]), "pattern.npy in arrays.npz is not stored as"),
        (put("dataset", "image_shape", [2**40, 2**40, 1]), "image_shape"),
        (put("dataset", "count", 5), "flags image 9, the dataset has 5"),
        (put("dataset", []), "dataset must be a mapping"),
        (put("dataset", "more", 1), r"dataset: missing \[\], unknown \['more'\]"),
        (put("classes", 0, {}), "class row: missing"),
        (put("classes", 0, "p_value", 7), "p_value"),
        (put("tests", [[]]), "test must be a mapping"),
        (put("tests", [{"name": "alignment"}]), r"test: missing \['level', 'threshold'\]"),
        (put("tests", [{"name": "alignment", "level": 0.01, "threshold": -1}]), "test alignment: threshold must be"),
        (put("cost", "seconds", {}), "seconds belong into timing.json"),
        (put("cost", "forward_images", -1), "forward_images"),
        (put("versions", ["1"]), "versions must be a mapping"),
        (put("verb", {}), "verb must be one of"),
    ],
)
def test_a_report_json_that_lies(saved, edit, match):
    change(saved, edit)
    with refused(match):
        Report.load(saved)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "damaged or truncated, or no JSON"),
        ("[1]", "the content must be a mapping"),
        ("null", "the content must be a mapping"),
        ('{"alpha": NaN}', "NaN is no number"),
        ('{"alpha": -Infinity}', "Infinity is no number"),
        ('{"alpha": 1, "alpha": 2}', "a key occurs twice"),
        ("[" * 100_000, "damaged or truncated"),
        ('{"seed": ' + "9" * 10_000 + "}", "damaged or truncated"),
        ('{"schema": 4}', "missing"),
        ("\x00\x01", "damaged or truncated"),
    ],
    ids=["empty", "list", "null", "nan", "infinity", "twice", "deep", "long number", "bare", "binary"],
)
def test_a_report_json_that_is_none(saved, text, match):
    (saved / "report.json").write_text(text)
    with refused(match):
        Report.load(saved)


@pytest.mark.parametrize("name", ["report.json", "timing.json", "arrays.npz"])
def test_missing_truncated_and_odd_files(saved, name, monkeypatch):
    path = saved / name
    whole = path.read_bytes()
    for length in {0, 1, len(whole) // 3, len(whole) // 2, len(whole) - 3}:
        path.write_bytes(whole[:length])
        with refused(name):
            Report.load(saved)
    path.unlink()
    with refused(f"{name}.*there is no such file"):
        Report.load(saved)
    if hasattr(os, "mkfifo"):
        os.mkfifo(path)  # reading it would wait for ever
        with refused(name):
            Report.load(saved)
        path.unlink()
        path.symlink_to("/dev/zero")
        with refused(name):
            Report.load(saved)


def test_oversized_json_is_not_parsed(saved, monkeypatch):
    monkeypatch.setattr("bre.report.files.MAX_JSON", 100)
    with refused("larger than 100 bytes"):
        Report.load(saved)


@pytest.mark.parametrize("timing", [{}, {"seconds": {"a": "b"}}, {"seconds": {"a": -1}}, {"seconds": 3}, []])
def test_a_timing_json_that_lies(saved, timing):
    (saved / "timing.json").write_text(json.dumps(timing))
    with refused(r"timing\.json: "):
        Report.load(saved)


def npz(saved, write=np.savez, **changes):
    """Rewrite arrays.npz with some arrays changed (None: left out)."""
    with np.load(saved / "arrays.npz") as old:
        arrays = {**dict(old), **changes}
    write(saved / "arrays.npz", **{k: v for k, v in arrays.items() if v is not None})


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"finding0_log_odds": None}, "does not hold the arrays"),
        ({"finding9_log_odds": np.zeros(1)}, "does not hold the arrays"),
        ({"finding0_log_odds": np.array([1, "x", None], object)}, "log_odds.npy in arrays.npz is not stored as"),
        ({"finding0_log_odds": np.zeros(3)}, "not stored as float32 .3,."),
        ({"finding0_log_odds": np.full(3, np.nan, np.float32)}, "log_odds must be finite"),
        ({"finding0_indices": np.array([2, 4, 99])}, "flags image 99"),
        ({"finding0_indices": np.array([9, 4, 2])}, "strictly ascending"),
        ({"finding0_pattern": np.full(SHAPE, 2, np.float32)}, "within"),
        ({"finding0_pattern": np.zeros((5, 4, 3), np.float32)}, "pattern.npy in arrays.npz is not stored"),
        ({"finding0_pattern": np.zeros(10**6, np.float32)}, "larger than the arrays"),
    ],
)
def test_an_npz_that_lies(saved, changes, match):
    npz(saved, **changes)
    with refused(match):
        Report.load(saved)


@pytest.mark.parametrize(
    "header", ["(" * 500, "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), 'x': 1}", "'" * 9, "3"]
)
def test_an_npy_header_that_numpy_cannot_read(saved, header):
    array = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + np.zeros(3, "<f4").tobytes()
    with np.load(saved / "arrays.npz") as old:
        arrays = dict(old)
    with zipfile.ZipFile(saved / "arrays.npz", "w") as z:
        for name, value in arrays.items():
            with z.open(f"{name}.npy", "w") as f:
                f.write(array) if name == "finding0_log_odds" else np.save(f, value)
    with refused("log_odds.npy in arrays.npz is not stored as float32 .3,."):
        Report.load(saved)


def test_an_npz_that_would_unpack_or_run(saved):
    npz(saved, np.savez_compressed)
    with refused("is not stored as"):
        Report.load(saved)
    npz(saved, np.savez_compressed, finding0_log_odds=np.zeros(10**7, np.uint8))  # a small bomb
    with refused("is not stored as"):
        Report.load(saved)
    (saved / "arrays.npz").write_bytes(pickle.dumps({}))
    with refused("arrays.npz is damaged"):
        Report.load(saved)


def test_flipped_bytes_never_end_in_another_error(saved):
    rng = np.random.default_rng(0)
    for path in sorted(saved.iterdir()):
        if path.suffix == ".html":  # which nobody reads back
            continue
        whole = path.read_bytes()
        for place, bit in zip(rng.integers(0, len(whole), 150), rng.integers(0, 8, 150), strict=True):
            broken = bytearray(whole)
            broken[place] ^= 1 << bit
            path.write_bytes(broken)
            with contextlib.suppress(InputError):
                Report.load(saved).summary()
        path.write_bytes(whole)
    Report.load(saved)


def test_what_is_no_report_at_all(tmp_path):
    with refused("no such report"):
        Report.load(tmp_path / "nothing")
    (tmp_path / "file").write_text("{}")
    with refused("a saved report is a folder"):
        Report.load(tmp_path / "file")
    with refused(r"report\.json: there is no such file"):
        Report.load(tmp_path)


ODD = (None, True, -1, 0, 3, 2**63, 1e308, "x", "\x1b<b>", [], [0], {}, {"a": 1}, [[1, 2], 3], 0.5, 1e-300)


def leaves(content, where=()):
    """The ways to every value of a JSON content that is no list or mapping, and to these."""
    yield where
    if isinstance(content, dict | list):
        for key in content if isinstance(content, dict) else range(len(content)):
            yield from leaves(content[key], (*where, key))


def test_any_value_replaced_is_refused_or_makes_a_report_that_can_be_shown(tmp_path):
    findings = (
        make_finding(histogram=make_histogram(), window=(0, 1, 2, 3)),
        make_property(target=0, indices=[1, 5, 6]),
    )
    tests = (StatisticTest("image_statistic", 0.045, 3.5), StatisticTest("cross_class", 0.005))
    saved = make_report(findings=findings, tests=tests, notes=("a note",)).save(tmp_path / "r")
    whole = (saved / "report.json").read_text()
    shown = 0
    for where in list(leaves(json.loads(whole)))[1:]:
        for value in ODD:
            content = json.loads(whole)
            put(*where, value)(content)
            (saved / "report.json").write_text(json.dumps(content))
            with contextlib.suppress(InputError):
                report = Report.load(saved)
                assert "\x1b" not in report.summary() + repr(report) + report.page()
                shown += 1
    assert shown > 100
