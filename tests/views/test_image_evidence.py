"""The data's view of whole datasets: what must not look like a pattern, and what is refused."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import synthetic
import torch

from bre import InputError, attacks, screen
from bre.inputs import ImageSet, open_dataset
from bre.method import clusters
from bre.views import class_search, passes
from bre.views.images import ImageEvidence, search_images

SHAPE = (3, 12, 12)


def view(images: np.ndarray, labels: np.ndarray, seed: int = 0) -> ImageEvidence:
    return search_images(
        open_dataset((images, labels)), seed=seed, backend="auto", progress=lambda stage, fraction: None
    )


def statistic(found: ImageEvidence) -> np.ndarray:
    return found.statistics[0].values


def test_many_versions_of_one_photograph_are_no_pattern():
    images, labels = synthetic.labelled(0, 6, 200, SHAPE)
    members = np.flatnonzero(labels == 2)[:40]
    shades = np.random.default_rng(0).uniform(0.7, 1.1, (40, 1, 1, 1))
    before = statistic(view(images, labels))[2]
    images[members] = synthetic.to_bytes(images[members[0]] * shades)
    assert statistic(view(images, labels))[2] < 1.5 * before


def test_a_large_class_is_searched_in_part_and_flagged_in_full(monkeypatch):
    images, labels = synthetic.labelled(3, 5, 300, SHAPE)
    planted = attacks.plant(images, labels, attacks.chessboard(SHAPE, 6 / 255), target=1, count=120, seed=0)
    monkeypatch.setattr(class_search, "MAX_SEARCH", 60)
    monkeypatch.setattr(passes, "READ_BLOCK", 64)
    found = view(planted.images, planted.labels)
    assert np.nanargmax(statistic(found)) == 1
    carriers = found.carriers(1, "image_statistic")
    assert np.isin(np.flatnonzero(planted.poisoned), carriers.members[carriers.flagged]).mean() > 0.95
    assert planted.poisoned[carriers.members[carriers.flagged]].all()


@pytest.mark.parametrize("amplitude", [4, 10])
def test_of_two_halves_the_planted_one_is_flagged(amplitude):
    """A tenth of ten equal classes: enough to move the mean of all images towards the pattern, so that the clean half
    of the class differs from it as clearly as the planted half."""
    images, labels = synthetic.labelled(8, 10, 120, (3, 16, 16))
    pattern = attacks.random_sign((3, 16, 16), amplitude / 255, 1)
    planted = attacks.plant(images, labels, pattern, target=4, count=120, seed=0)
    found = view(planted.images, planted.labels)
    assert np.nanargmax(statistic(found)) == 4
    carriers = found.carriers(4, "image_statistic")
    flagged = carriers.members[carriers.flagged]
    assert planted.poisoned[flagged].all()
    assert len(flagged) > 110


def test_images_may_carry_more_or_less_of_a_pattern():
    """From a fifth of it to twice as much: what an image carries beyond the pattern is not its texture."""
    images, labels = synthetic.labelled(8, 4, 150, (3, 16, 16))
    random = np.random.default_rng(0)
    rows = random.permutation(np.flatnonzero(labels != 2))[:150]
    pattern = 10 * np.sign(attacks.random_sign((3, 16, 16), 10 / 255, 1))
    images[rows] = synthetic.to_bytes(images[rows] + random.uniform(0.2, 2, (150, 1, 1, 1)) * pattern)
    labels[rows] = 2
    found = view(images, labels)
    carriers = found.carriers(2, "image_statistic")
    assert np.isin(rows, carriers.members[carriers.flagged]).mean() > 0.95
    assert np.isin(carriers.members[carriers.flagged], rows).all()


@pytest.mark.parametrize(("together", "least", "wrong"), [(8192, 0.95, 0), (120, 0.7, 1)])
def test_a_trigger_in_parts_is_found_in_every_image(monkeypatch, together, least, wrong):
    """Each image has one quarter of it: no two quarters have anything in common. together: images of a class that are
    searched at once, in blocks the last quarter's twenty are too few, and one clean image may take their side."""
    monkeypatch.setattr(class_search, "MAX_SEARCH", together)
    images, labels = synthetic.labelled(9, 5, 150, (3, 16, 16))
    random, pattern = np.random.default_rng(0), 255 * attacks.random_sign((3, 16, 16), 24 / 255, 1)
    rows = random.permutation(np.flatnonzero(labels != 2))[:80]
    for number, row in enumerate(rows):
        top, left = 8 * (number % 2), 8 * (number // 2 % 2)
        part = np.s_[:, top : top + 8, left : left + 8]
        images[row][part] = synthetic.to_bytes(images[row][part] + pattern[part])
    labels[rows] = 2
    report = screen((images, labels))
    (finding,) = (each for each in report.findings if each.is_poison)
    assert finding.target == 2
    assert finding.patterns > 1
    assert np.isin(rows, finding.indices).mean() > least
    assert (~np.isin(finding.indices, rows)).sum() <= wrong


def test_a_trigger_in_one_piece_is_one_pattern():
    images, labels = synthetic.labelled(9, 5, 150, (3, 16, 16))
    made = attacks.plant(images, labels, attacks.random_sign((3, 16, 16), 8 / 255, 1), target=2, count=80, seed=0)
    report = screen((made.images, made.labels))
    assert [(each.target, each.patterns) for each in report.findings if each.is_poison] == [(2, 1)]


def test_thread_counts_do_not_matter_and_images_are_read_by_one_thread(monkeypatch):
    images, labels = synthetic.labelled(6, 8, 120, SHAPE)
    planted = attacks.plant(images, labels, attacks.chessboard(SHAPE, 6 / 255), target=1, count=40, seed=0)
    readers, answers = set(), []

    class Watched(ImageSet):
        def _read(self, indices: np.ndarray) -> np.ndarray:
            readers.add(threading.get_ident())
            return planted.images[indices]

    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found = search_images(
            Watched(planted.labels, SHAPE, "watched"), seed=0, backend="auto", progress=lambda *_: None
        )
        carriers = found.carriers(1, "image_statistic")
        answers.append((statistic(found).tolist(), carriers.log_odds.tolist(), carriers.pattern.tolist()))
        assert torch.get_num_threads() == threads
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == threads
    assert answers[0] == answers[1] == answers[2]
    assert readers == {threading.get_ident()}


def test_an_error_in_a_worker_reaches_the_caller(monkeypatch):
    def broken(*_):
        raise RuntimeError("no search today")

    monkeypatch.setattr(clusters, "search", broken)
    with pytest.raises(RuntimeError, match="no search today"):
        view(*synthetic.labelled(7, 4, 60, SHAPE))


def test_a_small_class_has_no_statistic():
    images, labels = synthetic.labelled(4, 4, 80, SHAPE)
    kept = (labels != 2) | (np.cumsum(labels == 2) <= class_search.MIN_IMAGES - 1)
    found = view(images[kept], labels[kept])
    assert np.isnan(statistic(found)).tolist() == [False, False, True, False]


def test_images_too_large():
    with pytest.raises(InputError, match="at most 3145728 values"):
        screen((np.zeros((150, 1, 1, 3 * 2**20 + 1), np.uint8), np.arange(150) % 3))


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 1)])
def test_images_too_small(shape):
    with pytest.raises(InputError, match="at least 3 values"):
        screen((np.zeros((300, *shape), np.uint8), np.arange(300) % 3))


def test_labels_that_are_identifiers():
    with pytest.raises(InputError, match="must be class numbers"):
        screen((np.zeros((300, 3, 8, 8), np.uint8), np.arange(300) % 3 * 100_000))


def test_labels_too_large():
    with pytest.raises(InputError, match="must be class numbers"):
        screen((np.zeros((300, 3, 64, 64), np.uint8), np.arange(300) % 3 * 40_000))


def test_a_third_of_the_classes_may_hold_patterns_of_their_own():
    images, labels = synthetic.labelled(6, 12, 150, SHAPE)
    targets = {1: 6, 4: 7, 7: 8, 10: 9}
    for target, level in targets.items():
        planted = attacks.plant(
            images,
            labels,
            attacks.random_sign(SHAPE, level / 255, seed=target),
            target=target,
            sources=(0, 2, 3, 5, 6, 8, 9, 11),
            count=40,
            seed=target,
        )
        images, labels = planted.images, planted.labels
    report = screen((images, labels))
    assert {finding.target for finding in report.findings} == set(targets)


def test_a_report_says_where_several_classes_were_not_looked_at_together():
    size = int(np.prod(SHAPE))
    for count, noted in [(2 * size, False), (2 * size - 1, True)]:
        images, labels = synthetic.labelled(0, 4, size // 2, SHAPE)
        report = screen((images[:count], labels[:count]))
        assert any("at once were not looked for" in note for note in report.notes) == noted


def test_a_set_stored_many_times_is_clean():
    """Copies of an image lie in its class and in both halves of the search across classes."""
    images, labels = synthetic.labelled(8, 4, 120, SHAPE)
    for copies in (1, 4, 8):
        report = screen((np.tile(images, (copies, 1, 1, 1)), np.tile(labels, copies)))
        assert not report.poisoned


def test_what_most_of_a_class_shares_is_its_property():
    images, labels = synthetic.labelled(2, 5, 120, (3, 24, 24))
    marked = labels == 3
    images[marked, :, :2] = images[marked, :, -2:] = 250
    report = screen((images, labels))
    (finding,) = report.findings
    assert (finding.kind, finding.target, report.poisoned) == ("property", 3, False)
    assert len(finding.indices) > 0.9 * marked.sum()
    assert marked[finding.indices].all()
    assert len(report.indices) == 0


@pytest.mark.parametrize(("share", "kind"), [(0.4, "poison"), (0.6, "poison"), (0.8, "property")])
def test_what_a_part_of_a_class_shares_is_poison_or_a_property(share, kind):
    """With no gap in between, and never both."""
    images, labels = synthetic.labelled(2, 5, 120, (3, 24, 24))
    marked = (labels == 3) & (np.random.default_rng(0).random(len(labels)) < share)
    images[marked, :, :2] = images[marked, :, -2:] = 250
    report = screen((images, labels))
    (finding,) = report.findings
    assert (finding.kind, finding.target, report.poisoned) == (kind, 3, kind == "poison")
    assert len(finding.indices) > 0.9 * marked.sum()
    assert (marked if kind == "poison" else labels == 3)[finding.indices].all()
    assert (len(report.indices) == 0) == (kind == "property")


@pytest.mark.parametrize("side", [40, 56, 90])
def test_a_pattern_in_images_larger_than_one_tile(side):
    images, labels = synthetic.labelled(1, 4, 90, (3, side, side))
    planted = attacks.plant(images, labels, attacks.chessboard((3, side, side), 5 / 255), target=2, count=12)
    report = screen((planted.images, planted.labels))
    assert [finding.target for finding in report.findings] == [2]
    np.testing.assert_array_equal(report.indices, np.flatnonzero(planted.poisoned))


def test_a_local_pattern_has_its_window():
    shape = (3, 80, 80)
    images, labels = synthetic.labelled(1, 4, 90, shape)
    planted = attacks.plant(images, labels, attacks.local(shape, "x", 90 / 255, (60, 20)), target=1, count=15)
    (finding,) = screen((planted.images, planted.labels)).findings
    top, left, height, width = finding.window
    assert top <= 59
    assert left <= 19
    assert top + height >= 62
    assert left + width >= 22
    assert height < 80
    assert width < 80


@pytest.mark.parametrize("planted", [True, False])
def test_two_classes(planted):
    images, labels = synthetic.labelled(3, 2, 200, (3, 20, 20))
    if planted:
        made = attacks.plant(images, labels, attacks.chessboard((3, 20, 20), 6 / 255), target=1, count=20)
        images, labels = made.images, made.labels
    report = screen((images, labels))
    assert [finding.target for finding in report.findings] == [1] * planted
    assert any("only 2 classes could be compared" in note for note in report.notes)


def test_one_class_is_refused():
    with pytest.raises(InputError, match="at least two classes"):
        screen((synthetic.images(0, 200, SHAPE), np.zeros(200, int)))
