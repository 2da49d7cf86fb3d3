"""The accuracy table: its bookkeeping, its cases, and the numbers that its page makes from rows."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.accuracy import table, victims
from benchmarks.accuracy import table_goals as goals

STAMP = {"minutes": 1.0, "date": "2026-11-20", "machine": "x86_64, 1 of 2 threads", "versions": {"bre": "0.1.0"}}
LATER = {**STAMP, "date": "2026-11-22"}


@pytest.fixture
def cases() -> dict[str, Any]:
    """One of every kind, small: two sources of five classes, and so on."""
    attack = victims.Attack
    made = [
        victims.Case("learned", (attack("chessboard", 4, 100, (0, 1)),), classes=tuple(range(5))),
        victims.Case("both", (attack("chessboard", 2, 50, (0,)), attack("x", 3, 50, (1,))), classes=tuple(range(5))),
        victims.Case("unlearned", (attack("pixel", 4, 100),), classes=tuple(range(5))),
        victims.Case("patch", (attack("patch", 1, 100),), classes=tuple(range(5))),
        victims.Case("around", (attack("cross", None, 100),), classes=tuple(range(5))),
        victims.Case("own", (attack("cross", 1, 100, (1,)),), classes=tuple(range(5))),
        victims.Case("few", (attack("cross", 1, 20),), classes=tuple(range(5)), trained=False),
        *(victims.Case(f"clean-{i}", classes=tuple(range(5))) for i in range(4)),
        victims.Case("later", (attack("sine", 1, 100),)),
    ]
    return {case.name: case for case in made}


def finding(target: int, sources: list[int], cosines: list[list[float]] | None = None, p: float = 0.001) -> dict:
    return {"target": target, "sources": sources, "p_value": p, "cosines": cosines or []}


def verdict(
    *findings: dict, p: float = 0.001, found: float | None = 1.0, lost: float = 0.0, flagged: int = 100
) -> dict:
    return {
        "p_value": p,
        "findings": list(findings),
        "found": found,
        "lost": lost,
        "flagged": list(range(flagged)),
        "seconds": 30.0,
    }


def trained(*success: float) -> dict:
    return {"fingerprint": "f", "accuracy": 0.74, "success": list(success), **STAMP}


def judge(screen: dict, detect: dict | None = None) -> dict:
    return {"screen": screen, **({"detect": detect} if detect else {}), **LATER}


def nothing(p: float) -> dict:
    spread = {"model_statistics": np.exp([1, 0, 2, 3.5, 1, 1.0]).tolist(), "alignments": [0.5] * 5 + [0.7]}
    return verdict(p=p, found=None, flagged=0) | spread


@pytest.fixture
def rows() -> list[dict]:
    named = verdict(finding(4, [1, 0, 2], [[0.9, 0.98]]), found=0.97, lost=0.002, flagged=103)
    two = verdict(finding(2, [0], [[0.7, 0.9], [0.1, 0.1]]), found=0.5, flagged=50)
    retrain = {
        "cleansed": {"accuracy": 0.735, "success": [0.051]},
        "reference": {"accuracy": 0.738, "success": [0.045]},
    }
    filters = {
        "art": "1.20.1",
        "spectral signatures, ART": {"found": 0.9, "lost": 0.3, "flagged": 9, "seconds": 1.0},
        "activation clustering, smaller": {"found": 0.99, "lost": 0.01, "flagged": 9, "seconds": 1.0},
    }
    pairwise = {"target": None, "p_value": 0.4, "seconds": 60.0, "steps": 9}
    few = verdict(finding(1, [0], [[0.9, 0.9]]), finding(3, [0], [[0.0, 0.0]]), found=0.95, lost=0.001, flagged=20)
    return [
        {
            "case": "learned",
            "train": trained(0.8),
            "judge": judge(nothing(0.6) | {"found": 0.0}, named),
            "whole": {"share": 0.98, "found": {"screen": 0.0, "detect": 0.99}, **LATER},
            "retrain": {**retrain, **LATER},
            "baselines": {**filters, **STAMP},
            "pairwise": {**pairwise, **STAMP},
        },
        {"case": "both", "train": trained(0.99, 0.9), "judge": judge(two, two)},
        {"case": "unlearned", "train": trained(0.79), "judge": judge(named, named)},
        {"case": "patch", "train": trained(0.99)},
        {"case": "around", "train": trained(0.7)},
        {"case": "own", "train": trained(0.9)},
        {"case": "few", "judge": judge(few)},
        {
            "case": "clean-0",
            "train": trained(),
            "judge": judge(nothing(0.9), nothing(0.04) | {"findings": [finding(3, [1])]}),
        },
        {"case": "clean-1", "train": trained(), "judge": judge(nothing(0.3), nothing(1.0))},
        {"case": "clean-2", "train": trained(), "judge": judge(nothing(0.7), nothing(1.0))},
        {"case": "clean-3", "train": trained()},
    ]


@pytest.fixture
def items(rows: list[dict], cases: dict[str, Any]) -> dict[str, Any]:
    return {item.case.name: item for item in goals.judged(rows, cases.values())}


def test_what_counts_as_learned(items):
    assert {name: item.family for name, item in items.items()} == {
        "learned": "learned",
        "both": "learned",
        "unlearned": "unlearned",
        "patch": "other",
        "around": "other",
        "own": "other",
        "few": "ladder",
        **{f"clean-{i}": "clean" for i in range(4)},
        "later": None,
    }


def test_targets_sources_and_cosines(items):
    assert items["learned"].right("detect")
    assert not items["learned"].right("screen")
    assert items["learned"].sources("detect") == [(pytest.approx(2 / 3), 1.0)]
    assert items["learned"].sources("screen") == [(0.0, 0.0)]
    assert items["learned"].cosines("screen") == [(0.0, 0.0)]
    assert items["learned"].lost_count("detect") == 6  # 103 flagged, 97 of them poisoned
    assert not items["both"].right("detect")  # one of two
    assert items["both"].sources("detect") == [(1.0, 1.0), (0.0, 0.0)]
    assert items["both"].cosines("detect") == [(0.7, 0.9), (0.0, 0.0)]
    assert items["unlearned"].sources("detect") == [(1.0, 0.75)]  # all but the target are sources
    assert not items["few"].right("screen")  # names another class too


def test_goals(items):
    got = {goal.what: goal for goal in goals.goals(list(items.values()))}
    assert len(got) == 18

    def said(start: str) -> tuple[str, bool | None]:
        (goal,) = (goal for what, goal in got.items() if what.startswith(start))
        return goal.got, goal.met

    assert said("learned additive attacks") == ("1 of 2", False)
    assert said("sources named") == ("0.556, 0.667", False)
    assert said("recall, additive") == ("0 of 2 rows; median 73.50%, worst 50.00%", False)
    assert said("- counting only images") == ("1 of 1 rows; median 99.00%, worst 99.00%", None)
    assert said("false positive rate, additive") == ("1 of 2 rows; median 0.10%, worst 0.20%", False)
    assert said("attack success rate after cleansing, attacks") == ("0 of 1 rows; median 5.10%, worst 5.10%", False)
    assert said("- of the rows that reach the goal") == ("0 of 1 rows; median 5.10%, worst 5.10%", None)
    assert said("attack success rate after cleansing, minus") == ("median 0.60%, worst 0.60%", True)
    assert said("accuracy without poisoned images") == ("1 of 1 rows; median 0.30%, worst 0.30%", True)
    assert said("false alarms of `detect`") == ("1 of 3, 0.8% to 90.6%", True)
    assert said("false alarms of `screen`") == ("0 of 3, 0.0% to 70.8%", True)
    assert said("estimated pattern against the true one, plain") == ("0.700", False)
    assert said("estimated pattern against the true one, whitened") == ("0.900", False)
    assert said("recall of 50 poisoned") == ("", None)
    assert said("recall of 20 poisoned") == ("1 of 1 rows; median 95.00%, worst 95.00%", True)
    assert said("rows of these") == ("1 of 1", False)
    assert said("recall minus false positive rate") == ("worse on 1 of 1 rows", False)


def test_false_alarms_and_area(items):
    quiet, loud = goals.p_values(items.values(), "screen")
    assert (quiet, loud) == ([0.9, 0.3, 0.7], [0.6, 0.001])
    assert goals.area(quiet, loud) == pytest.approx(5 / 6)
    assert goals.area([0.5], [0.5]) == 0.5
    count, low, high = goals.false_alarms([0.05, *[0.2] * 19])
    assert count == 1
    assert (low, high) == (pytest.approx(1 - 0.975 ** (1 / 20), abs=1e-6), pytest.approx(0.24873, abs=1e-5))
    assert goals.false_alarms([1.0] * 20)[1:] == (0.0, pytest.approx(1 - 0.025 ** (1 / 20), abs=1e-9))


def test_spread_of_accuracy_is_of_seeds_alone(items):
    for name, accuracy in (("clean-0", 0.75), ("clean-1", 0.72), ("clean-2", 0.74), ("clean-3", 0.9)):
        items[name].row["train"]["accuracy"] = accuracy
    cases = {"clean-1": {"seed": 9}, "clean-3": {"noise": 2.0}}
    changed = [
        goals.Judged(dataclasses.replace(item.case, **cases.get(name, {})), item.row) for name, item in items.items()
    ]
    assert goals.spreads(changed) == [pytest.approx(0.03)]


def test_what_falls_short_is_said(items):
    assert goals.failures(items["learned"]) == [
        "`screen` misses the attack (p = 0.6)",
        "`detect` has a recall of 97.0%",
        "`detect` has 6 false positives",
        "sources: precision 0.67, recall 1.00",
        "attack success rate 5.1% after cleansing, 4.5% without poisoned images",
        "recall minus false positive rate is better by activation clustering, smaller",
    ]
    assert goals.failures(items["clean-0"]) == ["`detect` gives a false alarm, class 3"]
    assert goals.failures(items["few"]) == ["`screen` names 1, 3", "`screen` has 1 false positive"]
    assert [name for name in items if not goals.failures(items[name])] == [
        "patch",
        "around",
        "own",
        "clean-1",
        "clean-2",
        "clean-3",
        "later",
    ]


def test_page(rows, cases, tmp_path):
    file = tmp_path / "results.md"
    table.table_page.write(rows, list(cases.values()), file)
    page = file.read_text()
    assert "on 2026-11-20 to 2026-11-22: x86_64, 1 of 2 threads; bre 0.1.0." in page
    assert "| learned | 80.0% | 74.0% | `screen` | 0.6 | none | no | 0.00 | 0.00 | 0.0% |" in page
    assert "| `detect` | 0.001 | 4 | yes | 0.67 | 1.00 | 97.0% | 0.20% (6) | 0.900 | 0.980 | 5.1% (4.5%) |" in page
    assert "| patch | 99.0% | 74.0% | `screen` | - |" in page
    assert "`detect`: 1 false alarms on 3 clean victims at 0.05: 33.3% (95% Clopper-Pearson interval 0.8% to" in page
    assert "| few | 20 | 0 | 0.001 | 1 3 | 95.0% | 0.10% (1) | 0.900 |" in page
    assert "| learned | 97.0% / 0.20% | 90.0% / 30.00% | 99.0% / 1.00% | 0.4 | none | 60 | 30 |" in page
    assert "gains 0.71 (the test assumes 0.2), alignments 0.00 (the test assumes 0.1)." in page
    assert "## Not measured\n\nlater.\n" in page
    for block in page.split("\n\n"):  # every row of a table has its head's number of cells
        assert len({line.count("|") for line in block.splitlines()}) == 1 or not block.startswith("|")


def test_page_of_nothing_and_of_one_row(rows, cases, tmp_path):
    with pytest.raises(SystemExit, match="no results to make"):
        table.table_page.write([{"case": "learned"}], list(cases.values()), tmp_path / "results.md")
    assert "No rows so far." in table.table_page.page(rows[3:4], list(cases.values()))


@pytest.fixture
def stages(monkeypatch) -> list[str]:
    """What ran: every stage is replaced by one that says so."""
    ran: list[str] = []

    def stage(name: str) -> Any:
        def run(case: Any, recipe: Any, row: dict) -> dict:
            ran.append(f"{case.name} {name}")
            return {"run": len(ran)}

        return run

    monkeypatch.setattr(table, "STAGES", {name: stage(name) for name in table.STAGES})
    return ran


def test_stages_resume_skip_and_run_again(cases, stages, tmp_path):
    made, recipe = table.Table(tmp_path / "rows"), victims.PRESETS["small"]

    def run(name: str, case: str, again: bool = False) -> list[str]:
        stages.clear()
        table.run(made, name, cases[case], recipe, again=again)
        return list(stages)

    for stage in ("judge", "retrain", "baselines", "pairwise"):  # nothing without a victim
        assert run(stage, "learned") == []
    assert run("train", "learned") == ["learned train"]
    assert run("retrain", "learned") == []  # and no retraining without a verdict
    for stage in ("judge", "retrain", "baselines"):
        assert run(stage, "learned") == [f"learned {stage}"]
        assert run(stage, "learned") == []
    row = made.read("learned")
    assert list(row) == ["case", "train", "judge", "retrain", "baselines"]
    assert row["train"]["versions"]["bre"]
    assert run("judge", "learned", again=True) == ["learned judge"]
    assert list(made.read("learned")) == ["case", "train", "judge", "baselines"]  # retrained on what stood there before
    assert run("train", "few") == run("baselines", "few") == []
    assert run("judge", "few") == ["few judge"]
    assert [file.name for file in sorted(made.folder.iterdir())] == ["few.json", "learned.json"]


def test_rows_are_whole_and_keep_other_stages(tmp_path):
    made = table.Table(tmp_path)
    made.add("a", "train", {"accuracy": 0.5})
    made.add("a", "pairwise", {"p_value": 1.0})
    assert made.read("a") == {"case": "a", "train": {"accuracy": 0.5}, "pairwise": {"p_value": 1.0}}
    assert json.loads((tmp_path / "a.json").read_text()) == made.read("a")
    assert made.read("b") == {"case": "b"}


@pytest.mark.parametrize(("arguments", "said"), [(["--stages", "jugde"], "jugde"), (["--only", "nobody"], "nobody")])
def test_wrong_names_are_refused(monkeypatch, capsys, arguments, said):
    monkeypatch.setattr(sys, "argv", ["table.py", *arguments])
    with pytest.raises(SystemExit):
        table.main()
    assert said in capsys.readouterr().err


def test_cases_have_names_of_their_own_and_presets_the_same_rate():
    small, paper = victims.all_cases(), victims.all_cases("paper")
    assert [case.name for case in small] == [case.name for case in paper]
    assert len({case.name for case in small}) == len(small)
    assert sum(case.trained and not case.attacks for case in small) >= 20
    by_name = {case.name: case for case in paper}
    assert by_name["chessboard-9"].rows == (0, 50000)
    assert by_name["chessboard-9"].attacks[0].count == 1500  # 600 of 20 000
    assert by_name["chessboard-20"].attacks[0].count == 20


@pytest.mark.parametrize("preset", ["vgg", "mobilenet"])
def test_presets_of_other_networks(preset):
    chosen = victims.all_cases(preset)
    assert {case.name for case in chosen} == set(victims.CHOSEN)
    assert all(case in victims.all_cases() for case in chosen)
    net = getattr(victims.networks, victims.PRESETS[preset].network)(7).eval()
    images = torch.rand(2, 3, 32, 32)
    assert net(images).shape == (2, 7)
    assert torch.equal(net(images), net.fc(net.features(images)))
    assert [child for child, _ in net.named_children()][-1] == "fc"  # as the baselines find the features
    rows, page = table.FILES[preset]
    assert (rows.name, page.name) == (f"table_{preset}", f"results_{preset}.md")
    rows = [{"case": "clean-0", "train": trained(), "judge": judge(nothing(0.3), nothing(1.0))}]
    assert f"benchmarks.accuracy.table --preset {preset}  #" in table.table_page.page(rows, chosen, preset)


def test_fingerprints_stay():
    """Of a victim trained before: else every one is trained anew."""
    images, labels = np.arange(60, dtype=np.uint8).reshape(5, 3, 2, 2), np.arange(5)
    known = victims.fingerprint(victims.Set(images, labels), 5, victims.PRESETS["small"], False, 0)
    assert known == "23676131cd48fb54"


def test_published_filters_read_the_features():
    art_baselines = pytest.importorskip("art_baselines", reason="needs the bench extra", exc_type=ImportError)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(12, 3)

        def features(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)

    generator = np.random.default_rng(0)
    images = generator.integers(100, 110, (300, 3, 2, 2), dtype=np.uint8)
    labels, poisoned = np.arange(300) % 3, np.zeros(300, bool)
    poisoned[1:61:3] = True  # 20 of class 1's 100
    images[poisoned, :, 0, 0] -= 60  # towards the origin, where only the centred scores find them
    truth = victims.Truth(victims.Attack("pixel", 1, 20), poisoned, np.zeros(0), None)
    results = art_baselines.run(Net(), victims.Set(images, labels, (truth,)), 3)
    assert results.pop("art")
    assert all(result["found"] == 1 for name, result in results.items() if "ART" not in name)
    lost = {name: result["lost"] for name, result in results.items()}
    assert lost["activation clustering, smaller"] > 0.2  # one cluster of every class
    assert lost["activation clustering, silhouette-scores"] <= lost["activation clustering, relative-size"] < 0.3
    assert results["spectral signatures, centred"]["flagged"] == 90  # 1.5 times 20% of each class
    assert results["spectral signatures, centred"]["expected_pp_poison"] == 0.2


def test_size_and_silhouette_rules():
    art_baselines = pytest.importorskip("art_baselines", reason="needs the bench extra", exc_type=ImportError)
    labels, smaller = np.repeat(np.arange(3), 10), np.zeros(30, bool)
    smaller[[0, 1, 10, 11, 20, 21, 22, 23]] = True
    apart = np.where(smaller, 5.0, 0.0)[:, None] + 0.01 * np.arange(30)[:, None] % 0.05
    mixed = np.tile([0.0, 1.0], 15)[:, None]
    flags = art_baselines.suspected(smaller, labels, [apart[:10], mixed[10:20], apart[20:]])
    assert flags["smaller"].sum() == 8
    assert np.flatnonzero(flags["relative-size"]).tolist() == [0, 1, 10, 11]  # 40% of the third class is too much
    assert np.flatnonzero(flags["silhouette-scores"]).tolist() == [0, 1]


def test_what_saturation_left_is_measured(cases, monkeypatch):
    """A pixel pattern on four images: whole, cut to a tenth by saturation, on one that is found and one that is not."""
    images = np.full((6, 3, 32, 32), 100, np.uint8)
    planted = images.copy()
    planted[:4, :, 9, 20] += 90
    planted[2:4, :, 9, 20] = 109
    poisoned = np.arange(6) < 4
    truth = victims.Truth(victims.Attack("pixel", 4, 4), poisoned, np.zeros(0), None)
    sets = {True: victims.Set(planted, np.zeros(6), (truth,)), False: victims.Set(images, np.zeros(6))}
    monkeypatch.setattr(victims, "training_set", lambda case: sets[bool(case.attacks)])
    row = {"judge": {"screen": {"flagged": [0, 5]}, "detect": {"flagged": [0, 1, 2]}}}
    assert table.whole(cases["unlearned"], None, row) == {"share": 0.5, "found": {"screen": 0.5, "detect": 1.0}}
    assert table.whole(cases["patch"], None, row) == table.whole(cases["clean-0"], None, row) == {}
