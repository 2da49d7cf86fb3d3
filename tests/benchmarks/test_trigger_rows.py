"""The rows of every kind of trigger: planted, trained, kept, loaded; the published filters; the page."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.accuracy import (
    inside_baselines,
    learned_triggers,
    trigger_cases,
    trigger_victims,
    triggers,
    triggers_page,
)
from benchmarks.accuracy.table import Table
from benchmarks.accuracy.trigger_cases import LOOKED_AT, TRIGGERS, TriggerCase, all_cases, group_of, merged_labels
from benchmarks.accuracy.victims import Recipe
from bre import attacks

MADE = {"date": "2026-01-01", "machine": "m", "versions": {"torch": "2"}, "minutes": 1.0}


@pytest.fixture
def small_sets(monkeypatch):
    """Random images in place of CIFAR-10, one epoch in place of ten."""

    def natural_set(case, split):
        generator, count = np.random.default_rng(split == "test"), {"train": 130, "test": 30}[split]
        images = generator.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
        return images, merged_labels(np.arange(count) % 10, case.merged)

    def cifar10(split, rows, classes, noise):
        return np.zeros((rows[1] - rows[0], 3, 32, 32), np.uint8), np.zeros(rows[1] - rows[0], np.int64)

    for module in (trigger_victims, triggers):
        monkeypatch.setattr(module, "natural_set", natural_set)
    monkeypatch.setattr(trigger_cases, "cifar10", cifar10)
    quick = {name: Recipe(name, 1, autocast=False) for name in ("ResNet9", "SmallViT")}
    monkeypatch.setattr(trigger_victims, "RECIPES", quick)


def test_every_row_has_a_trigger_a_goal_and_a_name_of_its_own():
    cases = all_cases()
    names = [case.name for case in cases]
    assert len(set(names)) == len(names)
    for case in cases:
        assert sorted(old for group in case.merged for old in group) == list(
            range(7 if case.data == "natural7" else 10)
        )
        if case.trigger:
            assert case.trigger in TRIGGERS or case.trigger in learned_triggers.LEARNED
            group_of(case)
    clean = [case for case in cases if not case.trigger]
    assert len(clean) >= triggers_page.CLEAN
    assert sum(case.two_things for case in clean) >= triggers_page.TWO_THINGS
    others = [case for case in cases if case.network != "ResNet9"]
    assert {case.network for case in others} == {"VGG", "MobileNet", "SmallViT"}
    assert sum(case.looked_at for case in cases) == len(LOOKED_AT)
    assert names[:4] == ["patch-anywhere-10", "quantised-10", "clean-1", "two-things-1"]


def test_every_trigger_can_be_planted(small_sets):
    for name in TRIGGERS:
        case = TriggerCase(name, name, 1, 20, covers=10)
        planted = trigger_victims.planted(case, TRIGGERS[name]())
        assert (planted.poisoned.sum(), planted.covers.sum()) == (20, 10)


@pytest.mark.parametrize(
    "case",
    [
        TriggerCase("patch", "patch anywhere", 1, 40, covers=20),
        TriggerCase("others", "patch", "others", 40, sources=tuple(range(10)), network="SmallViT"),
        TriggerCase("clean", merged=trigger_cases.MERGED["dog-car"]),
    ],
    ids=lambda case: case.name,
)
def test_a_victim_is_loaded_as_it_was_made(small_sets, tmp_path, case):
    found = trigger_victims.make(case, tmp_path)
    assert set(found) == ({"accuracy", "success"} if case.trigger else {"accuracy"})
    victim = trigger_victims.load(tmp_path, case.name)
    made = trigger_victims.planted(case, trigger_victims.parts_of(case, tmp_path / case.name))
    for name in ("images", "labels", "poisoned", "covers"):
        assert (getattr(victim, name) == getattr(made, name)).all()
    assert victim.truth["accuracy"] == found["accuracy"]
    again = trigger_victims.measured(victim.model, case, trigger_victims.parts_of(case, tmp_path / case.name))
    assert again == found


@pytest.mark.parametrize("kind", ["input-aware", "encoder"])
def test_a_learned_trigger_is_kept(small_sets, tmp_path, kind):
    case = TriggerCase("learned", kind, 1, 20, covers=20 if kind == "input-aware" else 0)
    parts = trigger_victims.parts_of(case, tmp_path)
    planted = trigger_victims.planted(case, parts)
    again = trigger_victims.planted(case, trigger_victims.parts_of(case, tmp_path))
    assert (planted.images == again.images).all()
    natural = trigger_victims.natural_set(case, "train")[0]
    changes = planted.images[planted.poisoned].astype(int) - natural[planted.poisoned]
    assert (np.abs(changes).max((1, 2, 3)) > 0).all()
    assert len(np.unique(changes.reshape(len(changes), -1), axis=0)) == len(changes)  # another in each image


class Blocks(nn.Module):
    """Two blocks with batch norm whose parameters are known, and a last layer."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(c, 4, 3, 1, 1), nn.BatchNorm2d(4), nn.ReLU()) for c in (3, 4))
        )
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(self.net(x).mean((2, 3)))


def test_likelihoods_are_those_of_the_least_likely_activation():
    torch.manual_seed(0)
    net, images = Blocks().eval(), np.random.default_rng(0).integers(0, 256, (5, 3, 6, 6), dtype=np.uint8)
    found = inside_baselines._likelihoods(net, images)
    with torch.no_grad():
        first = net.net[0][0](torch.from_numpy(images).float() / 255)
    variance = 1 + net.net[0][1].eps
    wanted = (-0.5 * first**2 / variance - 0.5 * np.log(2 * np.pi * variance)).flatten(1).amin(1)
    np.testing.assert_allclose(found[:, 0], wanted, rtol=1e-4)
    assert found.shape == (5, 2)
    with pytest.raises(inside_baselines.Unsuited, match="batch norm"):
        inside_baselines._likelihoods(nn.Sequential(nn.Flatten(), nn.Linear(108, 3)), images)


def test_a_branch_that_lives_on_is_stable():
    pandas = pytest.importorskip("pandas")
    rows = [(10, 11, 0.10, 900), (10, 12, 0.10, 100), (11, 13, 0.11, 600), (11, 14, 0.11, 300), (13, 0, 0.20, 1)]
    tree = pandas.DataFrame(rows, columns=["parent", "child", "lambda_val", "child_size"])
    assert inside_baselines._stable_level(tree) == 0.20  # 0.11 is too near to 0.10
    assert inside_baselines._stable_level(tree[:4]) is None


def test_what_dropout_does_not_move_is_flagged():
    class Steady(nn.Module):
        """Bright images set a logit that no block reaches."""

        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten()))

        def forward(self, x):
            means = self.net(x)
            bright = (x.mean((1, 2, 3)) > 0.9).float()
            noisy = means[:, :3] * 8
            return torch.cat([noisy, 100 * bright[:, None]], 1)

    generator = np.random.default_rng(0)
    images = generator.integers(0, 200, (60, 3, 8, 8), dtype=np.uint8)
    clean = generator.integers(0, 200, (40, 3, 8, 8), dtype=np.uint8)
    images[:10] = 250
    flagged, facts = inside_baselines.psbd(Steady().eval(), images, clean)
    assert flagged[:10].all()
    assert flagged[10:].mean() < 0.6
    assert facts["rate"] in inside_baselines.RATES


def rows_of(cases):
    """The first twelve rows trained, six judged, three beside published filters."""
    for place, case in enumerate(cases):
        row, attacked = {"case": case.name}, case.trigger is not None
        findings = [{"kind": "poison", "target": case.target, "sources": [1], "p_value": 0.01, "seen_in": ["model"]}]
        if place < 12:
            row["train"] = {"accuracy": 0.7, **({"success": 0.9} if attacked else {}), **MADE}
        if place < 6:
            verdict = {"found": 0.995 if attacked else None, "lost": 0.0005, "covers": None, "flagged": 3}
            row["judge"] = {
                **{**verdict, "seconds": 12.3, "p_value": 0.01, "indices": [1]},
                **{"findings": findings if attacked else [], **MADE},
            }
        if place < 3:
            shares = {"found": 1.0 if attacked else None, "lost": 0.01, "seconds": 3}
            methods = {method: shares for method in triggers_page.METHODS if method != "FLARE"}
            row["baselines"] = {**methods, "FLARE": {"unsuited": "no batch norm"}, **MADE}
            if attacked:
                again = {"accuracy": 0.7, "success": 0.02}
                row["retrain"] = {"cleansed": again, "reference": {**again, "success": 0.01}, **MADE}
        yield row


def test_the_page():
    cases = all_cases()
    page = triggers_page.page(list(rows_of(cases)), cases)
    assert "patch-anywhere-10 \\*" in page  # looked at
    assert "so far" in page
    assert "not measured" in page
    assert "False alarms, clean networks: 0 of 2" in page
    assert "median 1.0 points, worst 1.0, of 2 rows" in page
    assert "cannot" in page
    assert "more found minus lost" not in page
    assert "clean-22" in page.split("## Not measured")[1]


def test_a_page_of_nothing(tmp_path):
    with pytest.raises(SystemExit, match="--train first"):
        triggers_page.write([{"case": case.name} for case in all_cases()], all_cases(), tmp_path / "page.md")


def test_steps_are_kept_and_not_done_again(small_sets, tmp_path, monkeypatch):
    table, case = Table(tmp_path / "rows"), TriggerCase("clean-1", merged=trigger_cases.MERGED["dog-car"])
    monkeypatch.setattr(triggers, "TABLE", table)
    monkeypatch.setattr(triggers, "all_cases", lambda: [case])
    monkeypatch.setattr(sys, "argv", ["triggers", "--victims", str(tmp_path / "kept"), "--train", "--retrain"])
    triggers.main()
    first = table.read("clean-1")
    assert set(first) == {"case", "train"}  # a clean set has nothing to train again
    monkeypatch.setattr(trigger_victims, "make", lambda *_: pytest.fail("trained again"))
    triggers.main()
    assert table.read("clean-1") == first


def test_shares_leave_covers_out():
    class Victim:
        poisoned = np.array([True, True, False, False])
        covers = np.array([False, False, True, False])
        clean = np.array([False, False, False, True])

    flagged = np.array([True, False, True, False])
    assert triggers.compared(flagged, Victim()) == {"found": 0.5, "lost": 0.0, "covers": 1.0, "flagged": 2}


def test_networks_of_every_kind_have_features():
    for name in trigger_victims.RECIPES:
        net = getattr(trigger_victims.networks, name)(10).eval()
        assert net(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    assert callable(attacks.plant)
