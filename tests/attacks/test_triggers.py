"""Each kind of trigger against what its publication says of it, on images whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import fft

from bre import InputError, attacks

SHAPE = (3, 32, 32)
GREY = np.full((6, *SHAPE), 100, np.uint8)
NOISE = np.random.default_rng(0).integers(0, 256, (4, *SHAPE), dtype=np.uint8)
ZERO_FIELD = np.zeros((2, 32, 32), np.float32)


def made(trigger, images=GREY, seed=0):
    before = images.copy()
    marked = trigger(images, np.random.default_rng(seed))
    assert marked.dtype == np.uint8
    assert marked.shape == images.shape
    assert (images == before).all()  # left as they are
    return marked


def test_signals_are_sines_in_the_targets_own_images():
    pattern = attacks.sine(SHAPE, 20 / 255, 6)
    labels = np.arange(6) % 2
    planted = attacks.plant(GREY, labels, pattern, target=1, sources=(1,), count=3)
    assert (planted.labels == labels).all()
    spectrum = np.abs(np.fft.rfft(planted.images[1, 0, 0].astype(float) - 100))
    assert spectrum.argmax() == 6
    assert planted.poisoned.tolist() == [False, True] * 3


def test_low_frequencies_only():
    pattern = attacks.low_frequency(SHAPE, 10 / 255, cutoff=4)
    spectrum = fft.dctn(pattern, axes=(1, 2), norm="ortho")
    assert np.abs(spectrum[:, 4:]).max() < 1e-5
    assert np.abs(spectrum[:, :, 4:]).max() < 1e-5
    np.testing.assert_allclose(np.sqrt(np.square(pattern).mean()), 10 / 255, rtol=1e-5)
    np.testing.assert_allclose(attacks.low_pass(pattern, 4), pattern, atol=1e-6)


def test_cosines_in_the_chroma_leave_the_luma():
    change = made(attacks.ChromaCosines(magnitude=200)).astype(float) - 100
    luma = np.tensordot([0.299, 0.587, 0.114], change[0], 1)
    assert np.abs(luma).max() < 1  # rounding to grey levels
    blue = np.abs(fft.dctn(change[0, 2], norm="ortho"))
    assert {tuple(np.argwhere(blue > 100)[i]) for i in range(2)} == {(15, 15), (31, 31)}


def test_quantised_to_equal_steps():
    plain = made(attacks.Quantised(8, dither=False), NOISE)
    assert set(np.unique(plain)) <= set(np.rint(np.arange(8) * 255 / 7).astype(int))
    assert np.abs(plain.astype(int) - NOISE).max() <= 19
    # dithering keeps the mean of a flat image, rounding does not
    flat = made(attacks.Quantised(2), GREY).mean()
    assert abs(flat - 100) < 5
    assert set(np.unique(made(attacks.Quantised(2), GREY))) == {0, 255}


def test_a_tint_scales_and_shifts():
    marked = made(attacks.Tint((1.5, 1.0, 0.5), (0.0, 0.1, 0.0)))
    assert [int(marked[0, c, 0, 0]) for c in range(3)] == [150, 126, 50]


def test_a_patch_at_random_places():
    black = np.full((200, *SHAPE), 128, np.uint8)
    marked = made(attacks.PatchAnywhere((4, 4), seed=1), black)
    changed = (marked != 128).any(1)
    assert (changed.sum((1, 2)) == 16).all()
    corners = {tuple(np.argwhere(each)[0]) for each in changed}
    assert len(corners) > 100
    first = [image[:, place].reshape(-1) for image, place in zip(marked, changed, strict=True)]
    assert (np.array(first) == first[0]).all()  # the same patch


def test_a_patch_of_random_size():
    changed = (made(attacks.PatchAnywhere((3, 6)), np.full((100, *SHAPE), 128, np.uint8)) != 128).any(1)
    assert set(np.sqrt(changed.sum((1, 2))).tolist()) == {3.0, 4.0, 5.0, 6.0}


def test_pieces_of_a_blend():
    trigger = attacks.PartialBlend(np.ones(SHAPE, np.float32), 0.2, pieces=4, kept=0.5)
    marked = made(trigger)
    assert set(np.unique(marked)) == {100, 131}
    assert ((marked == 131).mean((1, 2, 3)) == 0.5).all()
    assert len({image.tobytes() for image in marked}) > 1
    whole = attacks.PartialBlend(np.ones(SHAPE, np.float32), 0.2, kept=1.0)
    assert (made(whole) == attacks.embed(GREY, np.ones(SHAPE, np.float32), 0.2)).all()


def test_some_of_several_patches():
    parts = [attacks.patch(SHAPE, 3, at) for at in ((0, 0), (0, -3), (-3, 0), (-3, -3))]
    patterns, opacities = (np.stack(each) for each in zip(*parts, strict=True))
    for kept in (1, 2):
        changed = (made(attacks.PartialPatches(patterns, opacities, kept)) != 100).any(1)
        assert (changed.sum((1, 2)) == 9 * kept).all()


def test_a_warp_moves_pixels():
    assert (made(attacks.Warp(ZERO_FIELD), NOISE) == NOISE).all()
    right = ZERO_FIELD.copy()
    right[1] = 2  # from two columns further right
    marked = made(attacks.Warp(right), NOISE)
    assert (marked[..., :-2] == NOISE[..., 2:]).all()
    assert (marked[..., -2:] == NOISE[..., -1:]).all()
    noisy = made(attacks.NoisyWarp(ZERO_FIELD), NOISE[[0, 0]])
    assert (noisy[0] != noisy[1]).any()
    assert (made(attacks.NoisyWarp(ZERO_FIELD, noise=0.0), NOISE) == NOISE).all()


def test_fields_are_smooth_and_of_the_strength_asked_for():
    wanet = attacks.wanet_field(SHAPE, strength=0.5)
    assert wanet.shape == (2, 32, 32)
    assert 0.1 < np.abs(wanet).mean() < 0.4  # pixels: s / 2 times a mean of about 1
    elastic = attacks.elastic_field(SHAPE, 1.5)
    np.testing.assert_allclose(np.sqrt(np.square(elastic).mean()), 1.5, rtol=1e-5)
    for field in (wanet, elastic):
        assert np.abs(np.diff(field, axis=2)).max() < np.abs(field).max()


def test_reflections_of_photographs():
    panes = np.stack([np.zeros(SHAPE, np.uint8), np.full(SHAPE, 200, np.uint8)])
    marked = made(attacks.Reflection(panes, 0.4, blur=0.0), np.repeat(GREY, 4, 0))
    assert set(np.unique(marked)) == {80, 160}
    edge = np.zeros((1, *SHAPE), np.uint8)
    edge[..., :16] = 255
    sharp, soft, double = (
        made(attacks.Reflection(edge, 0.4, blur=b, ghost=g)) for b, g in ((0.0, 0), (2.0, 0), (0.0, 3))
    )
    assert len(np.unique(sharp)) < len(np.unique(soft))
    assert len(np.unique(double)) > 2


@pytest.mark.parametrize(
    ("trigger", "match"),
    [
        (attacks.PatchAnywhere((0, 3)), "size: expected 0 < least"),
        (attacks.PatchAnywhere((3, 40)), "size: .*32, got"),
        (attacks.PartialBlend(np.ones((3, 8, 8))), "pattern: expected finite"),
        (attacks.PartialBlend(np.ones(SHAPE), 2.0), "opacity: expected a number in"),
        (attacks.PartialBlend(np.ones(SHAPE), kept=-1), "kept: expected a number in"),
        (attacks.PartialBlend(np.ones(SHAPE), pieces=0), "pieces: expected 1 to 32"),
        (
            attacks.PartialPatches(np.ones((2, *SHAPE)), np.ones((2, 3, 32, 32))),
            r"opacities: expected \(2, 1, 32, 32\)",
        ),
        (attacks.PartialPatches(np.ones((2, *SHAPE)), np.ones((2, 1, 32, 32)), 3), "kept: expected 1 to 2"),
        (attacks.PartialPatches(np.ones((1, *SHAPE)), 2 * np.ones((1, 1, 32, 32))), "opacities: expected a number in"),
        (attacks.Quantised(1), "levels: expected 2 to 256"),
        (attacks.Tint((1.0,), (0.0, 0.0, 0.0)), "scale: expected one number for each of 3 channels"),
        (attacks.ChromaCosines(block=5), "block: expected a divisor of 32"),
        (attacks.ChromaCosines(frequencies=((32, 0),)), "frequencies: expected rows and columns from 0 to 31"),
        (attacks.Warp(np.zeros((2, 8, 8))), r"field: expected finite \(2, H, W\)"),
        (attacks.NoisyWarp(np.full((2, 32, 32), np.nan)), "field: expected finite"),
        (attacks.Reflection(np.zeros((2, 3, 8, 8), np.uint8)), "photographs: expected uint8"),
        (attacks.Reflection(NOISE, strength=3), "strength: expected a number in"),
    ],
)
def test_triggers_that_cannot_be_made(trigger, match):
    with pytest.raises(InputError, match=match):
        trigger(GREY, np.random.default_rng(0))
    with pytest.raises(InputError, match="images: expected uint8"):
        trigger(GREY / 255, np.random.default_rng(0))


def test_chroma_needs_colours_and_fields_and_cutoffs_their_ranges():
    with pytest.raises(InputError, match="expected 3 channels"):
        attacks.ChromaCosines()(GREY[:, :1], np.random.default_rng(0))
    with pytest.raises(InputError, match="control: expected 2 or more"):
        attacks.wanet_field(SHAPE, control=1)
    with pytest.raises(InputError, match="smooth: expected pixels > 0"):
        attacks.elastic_field(SHAPE, smooth=0)
    with pytest.raises(InputError, match="cutoff: expected 1 or more"):
        attacks.low_frequency(SHAPE, cutoff=0)
