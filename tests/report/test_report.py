"""Reports: what they hold and print, to disk and back byte for byte, and every way a saved one can lie."""

import contextlib
import dataclasses
import json
import os
import pickle
import zipfile

import numpy as np
import pytest
from reports import SHAPE, make_clean, make_finding, make_histogram, make_report

from bre.errors import InputError
from bre.report import BINS, ClassRow, Cost, Histogram, Report, StatisticTest, dataset_facts, versions


def refused(match):
    return pytest.raises(InputError, match=match)


# ---- what it is


def test_frozen_and_its_arrays_are_read_only_copies():
    given = np.array([2, 4, 9])
    finding = make_finding(indices=given)
    given[0] = 0
    assert finding.indices.tolist() == [2, 4, 9]
    for array in (finding.indices, finding.log_odds, finding.pattern, make_report().indices):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_report().poisoned = False


def test_arrays_take_their_declared_dtypes_and_numbers_become_plain():
    finding = make_finding(
        target=np.int64(2),
        p_value=np.float64(0.01),
        indices=np.array([1, 2, 3], np.uint16),
        log_odds=np.zeros(3, np.float64),
        pattern=np.zeros(SHAPE, np.float64),
    )
    assert (finding.indices.dtype, finding.log_odds.dtype) == (np.int64, np.float32)
    assert finding.pattern.dtype == np.float32
    assert type(finding.target) is int
    assert type(finding.p_value) is float
    assert type(make_report(poisoned=np.bool_(True)).poisoned) is bool


def test_indices_are_the_union_in_dataset_order():
    other = make_finding(target=0, indices=np.array([3, 4, 7]))
    report = make_report(findings=(make_finding(), other))
    assert report.indices.tolist() == [2, 3, 4, 7, 9]
    assert make_clean().indices.tolist() == []
    assert make_clean().indices.dtype == np.int64


def test_survives_pickling():
    report = make_report()
    assert pickle.loads(pickle.dumps(report)).to_dict() == report.to_dict()


def test_facts_and_versions_fit_a_report():
    from bre.inputs import open_dataset

    images = np.zeros((6, 4, 5, 3), np.uint8)
    dataset = open_dataset((images, np.arange(6) % 2))
    facts = dataset_facts(dataset, [])
    report = make_clean(dataset=facts, versions=versions(), classes=())
    assert report.dataset == facts
    assert facts["fingerprint"] == dataset.fingerprint(np.empty(0, np.int64))
    assert {"bre", "python", "torch", "numpy"} <= report.versions.keys()


# ---- what it prints


def test_notes_are_kept_and_shown(tmp_path):
    report = make_report(notes=["memory was short", "<b>\x1b"])
    assert report.notes == ("memory was short", "<b>\x1b")
    assert Report.load(report.save(tmp_path / "report")).to_dict() == report.to_dict()
    assert "Notes:\n  memory was short\n  <b>\ufffd\n" in report.summary()
    assert "<dt>notes</dt><dd>memory was short; &lt;b&gt;\ufffd</dd>" in report.page()
    assert "otes" not in make_report().summary() + make_report().page()
    for bad in ("one", [1], None):
        with refused("notes must be"):
            make_report(notes=bad)


def test_reprs():
    assert repr(make_report()) == ("Report(detect: poisoned, p=3e-05, target 2 'bird', 3 of 20 images flagged, 12.3 s)")
    assert repr(make_clean()) == "Report(screen: nothing found, p=0.41, 20 images, 12.3 s)"
    two = make_report(findings=(make_finding(), make_finding(target=0, indices=[11, 12, 13])))
    assert "targets 2 'bird', 0 'plane', 6 of 20" in repr(two)
    assert repr(make_finding()) == ("Finding(target 2, sources [1, 3], p=3e-05, 3 images, seen in images and model)")


def test_summary_of_a_finding():
    text = make_report().summary()
    assert text.startswith("POISONED (p = 3e-05, alpha = 0.05)\nset.npz: 20 images of 3x4x5, 4 classes")
    for part in (
        "planted in class 2 'bird'",
        "3 of the 5 images labelled 2 'bird'",
        "taken from 1 'car', 3 'cat'",
        "98.5% of held-out source images go to 2 'bird'",
        "L2 norm 0.3",
        "of 255 grey levels",
        "bre cleanse",
        "Took 12.3 s (images 5.2 s, model 7.1 s); 20 images forward, 10 backward",
    ):
        assert part in text
    assert max(map(len, text.splitlines())) <= 100


def test_summary_of_less():
    text = make_clean().summary()
    assert text.startswith("NOTHING FOUND (p = 0.41")
    assert max(map(len, text.splitlines())) <= 100
    text = " ".join(text.split())
    assert "no proof that the set is clean" in text
    assert "forward" not in text
    unsure = make_finding(sources=(), success_rate=None, indices=np.empty(0, int), log_odds=np.empty(0))
    text = make_report(findings=(unsure,), classes=()).summary()
    assert "taken from not known" in text
    assert "success" not in text
    assert "No single image could be told apart" in text


def test_summary_names_classes_that_were_not_tested():
    rows = [ClassRow(0, "plane", 1, False, note="too few images"), ClassRow(1, "car", 3, False)]
    text = make_clean(classes=rows).summary()
    assert "0 'plane': too few images" in text
    assert "1 'car': 3 images" in text


def test_names_from_outside_cannot_drive_a_terminal():
    names = ("\x1b[31mred", "a\nb", "\udcff", "x" * 5000)
    dataset = {**make_report().dataset, "class_names": names, "source": "\x1b]0;title\x07"}
    report = make_report(dataset=dataset, findings=(make_finding(sources=(0, 1, 3)),))
    for text in (report.summary(), repr(report)):
        assert all(line.isprintable() for line in text.split("\n"))
        assert len(text) < 3000


def test_to_dict_is_json_and_holds_everything():
    report = make_report()
    out = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert out == report.to_dict()
    assert out["schema"] == 3
    assert {f.name for f in dataclasses.fields(Report)} < out.keys()
    assert np.array_equal(np.array(out["findings"][0]["pattern"], np.float32), report.findings[0].pattern)
    assert out["findings"][0]["indices"] == [2, 4, 9]
    small = report.to_dict(arrays=False)
    assert small["findings"][0]["flagged"] == 3
    assert "pattern" not in small["findings"][0]


# ---- what it refuses to be


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"p_value": float("nan")}, r"p_value must be a finite number in \[0, 1\], got nan"),
        ({"p_value": 1.5}, r"got 1\.5"),
        ({"target": -1}, "target must be an integer from 0"),
        ({"target": True}, "got True"),
        ({"sources": (2,)}, "sources must be distinct classes other than it"),
        ({"sources": (1, 1)}, "sources must be distinct"),
        ({"seen_in": ("hearsay",)}, "seen_in must be one of images, model; got 'hearsay'"),
        ({"pattern": np.full(SHAPE, np.nan)}, "pattern must be finite and within"),
        ({"pattern": np.full(SHAPE, 60.0)}, "pattern must be finite and within"),
        ({"pattern": np.zeros((4, 5))}, r"float32 with 3 axes, got float64 of shape \(4, 5\)"),
        ({"pattern": np.zeros(SHAPE, np.uint8)}, "got uint8"),
        ({"indices": np.array([4, 2, 9])}, "strictly ascending"),
        ({"indices": np.array([2, 2, 9])}, "strictly ascending"),
        ({"indices": np.array([-1, 2, 9])}, ">= 0"),
        ({"indices": np.array([1.0, 2.0, 3.0])}, "int64 with 1 axes, got float64"),
        ({"log_odds": np.zeros(2, np.float32)}, "one per index: 2 for 3"),
        ({"log_odds": np.array([0, np.inf, 0])}, "log_odds must be finite"),
        ({"success_rate": 2}, "success_rate"),
        ({"pattern_norm": -0.1}, "pattern_norm"),
    ],
)
def test_findings_that_cannot_be(changes, match):
    with refused(match):
        make_finding(**changes)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"verb": "guess"}, "verb must be one of screen, detect"),
        ({"poisoned": False}, "poisoned is False but there are 1 findings"),
        ({"findings": ()}, "poisoned is True but there are 0 findings"),
        ({"findings": ("x",)}, "findings must hold Finding, got str"),
        ({"cost": {}}, "cost must hold Cost, got dict"),
        ({"seed": 1.0}, r"seed must be an integer from 0 .* got 1\.0"),
        ({"versions": {"bre": 1}}, "must be text, got 1"),
        ({"classes": (ClassRow(4, "dog", 5, True),)}, r"distinct labels below 4, got \[4\]"),
        ({"classes": (ClassRow(1, "a", 5, True),) * 2}, "distinct labels"),
        ({"findings": [make_finding(target=4)]}, "target 4 and sources .1, 3. of 4 classes"),
        ({"findings": [make_finding(sources=[9])]}, r"sources \(9,\) of 4 classes"),
        ({"findings": [make_finding(pattern=np.zeros((1, 4, 5)))]}, r"shape \(1, 4, 5\), the images have"),
        ({"findings": [make_finding(indices=[1, 2, 20])]}, "flags image 20, the dataset has 20 images"),
        ({"dataset": {}}, "missing"),
    ],
)
def test_reports_that_cannot_be(changes, match):
    with refused(match):
        make_report(**changes)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"count": 0}, "count"),
        ({"image_shape": (4, 5)}, r"\(C, H, W\), got \(4, 5\)"),
        ({"class_names": ()}, "at least one class"),
        ({"fingerprint": "zz"}, "64 hexadecimal digits, got 'zz'"),
        ({"more": 1}, "unknown"),
    ],
)
def test_datasets_that_cannot_be(changes, match):
    with refused(match):
        make_report(dataset={**make_report().dataset, **changes})


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"edges": [0.0]}, "2 to 1001 ascending"),
        ({"edges": [0.0, 0.0, 1.0]}, "ascending"),
        ({"edges": [0.0, 1.0, np.inf]}, "finite"),
        ({"edges": [-1e308, 0.0, 1e308]}, "finite"),
        ({"edges": [0.0, 5e-324, 1e-323]}, "finite"),
        ({"target_counts": [1]}, "target_counts must be 2 counts"),
        ({"target_counts": [1, [2]]}, "int64 with 1 axes, got"),
        ({"other_counts": [1, -1]}, "other_counts must be 2 counts >= 0"),
        ({"other_counts": [1.0, 2.0]}, "int64 with 1 axes, got float64"),
        ({"cut": None}, "cut"),
    ],
)
def test_histograms_that_cannot_be(changes, match):
    with refused(match):
        make_histogram(**changes)


def test_a_finding_takes_no_other_histogram():
    with refused("histogram must hold Histogram, got dict"):
        make_finding(histogram={})


def test_a_histogram_of_scores_loses_none_and_has_an_edge_on_the_cut():
    rng = np.random.default_rng(0)
    for target, others, cut in (
        (rng.normal(3, 40, 200), rng.normal(-20, 1, 1000), 0.0),
        (rng.normal(3, 1, 5).astype(np.float32), np.empty(0), -7.5),
        (np.full(4, 2.0), np.full(3, 2.0), 2.0),
        (np.array([1e30, -1e30]), np.array([0.0]), 1.0),
    ):
        made = Histogram.of(target, others, cut)
        assert len(made.target_counts) == len(made.other_counts) == BINS
        assert (made.target_counts.sum(), made.other_counts.sum()) == (len(target), len(others))
        assert cut in made.edges
        assert made.target_counts[made.edges[:-1] >= cut].sum() == (target >= cut).sum()


@pytest.mark.parametrize(
    ("tests", "match"),
    [
        ("x", "tests must be a list"),
        (({"name": "cross_class"},), "tests must hold StatisticTest, got dict"),
        ((StatisticTest("alignment", 0.01),) * 2, "tests must have distinct names"),
        (
            (StatisticTest("alignment", 0.04), StatisticTest("cross_class", 0.02)),
            "add up to 0.06, more than alpha 0.05",
        ),
    ],
)
def test_tests_that_a_report_cannot_hold(tests, match):
    with refused(match):
        make_report(tests=tests)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"name": "p_value"}, "name must be one of image_statistic, model_statistic, alignment, cross_class"),
        ({"level": 1.5}, "level must be a finite number in .0, 1."),
        ({"level": None}, "level must be"),
        ({"threshold": 0.0}, "threshold must be"),
        ({"threshold": 1e300}, "threshold must be"),
        ({"threshold": float("nan")}, "threshold must be"),
        ({"threshold": "2"}, "threshold must be"),
    ],
)
def test_tests_that_cannot_be(changes, match):
    with refused(match):
        StatisticTest(**{"name": "image_statistic", "level": 0.05, "threshold": 3.0, **changes})


def test_costs_that_cannot_be():
    with refused("forward_images"):
        Cost(-1, 0, {})
    with refused("seconds"):
        Cost(0, 0, {"a": float("inf")})


# ---- to disk and back


@pytest.mark.parametrize(
    "report",
    [
        make_report(),
        make_clean(),
        make_report(findings=(make_finding(), make_finding(target=0, indices=[1, 5, 6], success_rate=None))),
        make_report(findings=(make_finding(indices=np.empty(0, int), log_odds=np.empty(0)),)),
        make_report(findings=(make_finding(histogram=make_histogram()),)),
        make_report(tests=(StatisticTest("image_statistic", 0.045, 3.5), StatisticTest("cross_class", 0.005))),
        make_report(dataset={**make_report().dataset, "class_names": ("a", "\udcff", "ü", "\n")}),
    ],
    ids=["one", "clean", "two", "no images", "histogram", "tests", "odd names"],
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
        assert ours.pattern.dtype == np.float32
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
        (put("schema", 1), "schema 1, this version of bre reads 3"),
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
        (put("findings", 0, "pattern", []), "'pattern'. belong into arrays.npz"),
        (put("dataset", "image_shape", [3, 4, 6]), "pattern.npy in arrays.npz is not stored as"),
        (put("dataset", "image_shape", [2**40, 2**40, 1]), "image_shape"),
        (put("dataset", "count", 5), "flags image 9, the dataset has 5"),
        (put("dataset", []), "dataset must be a mapping"),
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
        ('{"schema": 3}', "missing"),
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
