"""Which images are versions of one before: never poisoned ones, always copies."""

from __future__ import annotations

import numpy as np
import pytest
import synthetic

from bre.method.levels import halve, levels, pyramid
from bre.method.near_duplicates import digests, distinct


def coarse(images: np.ndarray) -> np.ndarray:
    return halve(pyramid(images, levels(images.shape[1:]))[-1])


def kept(images: np.ndarray) -> np.ndarray:
    return distinct(coarse(images), digests(images))


@pytest.mark.parametrize("shape", [(3, 30, 30), (1, 12, 12), (3, 50, 70)])
def test_versions_are_dropped_and_others_stay(shape):
    images = synthetic.images(0, 200, shape)
    assert kept(images).mean() > 0.97
    random = np.random.default_rng(0)
    versions = [images, images, synthetic.to_bytes(images + 9.0), synthetic.to_bytes(0.9 * images)]
    versions.append(synthetic.to_bytes(images + random.normal(0, 3, images.shape)))
    found = kept(np.concatenate(versions))
    assert found[:200].mean() > 0.97
    assert not found[200:].any()


def test_poisoned_images_stay():
    images = synthetic.images(1, 200, (3, 30, 30))
    images = synthetic.to_bytes(images + 12 * (np.indices((30, 30)).sum(0) % 2))
    assert kept(images).mean() > 0.97


def test_flat_images_are_copies_only_of_their_like():
    flat = np.stack([np.full((3, 30, 30), value, np.uint8) for value in (5, 7, 5, 200, 7)])
    assert kept(flat).tolist() == [True, True, False, True, False]


def test_more_images_than_a_strip_holds():
    images = synthetic.images(2, 700, (1, 16, 16))
    found = kept(np.concatenate([images, images[::-1]]))
    assert not found[700:].any()


def test_digests_tell_every_byte():
    images = synthetic.images(3, 2, (3, 8, 8))
    changed = images.copy()
    changed[1, 2, 7, 7] ^= 1
    assert (digests(images) == digests(images.copy())).all()
    assert (digests(images) == digests(changed)).tolist() == [True, False]
