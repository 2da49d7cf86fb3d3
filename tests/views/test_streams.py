"""Random streams by name."""

from __future__ import annotations

from bre.views.streams import stream


def first(seed: int, purpose: str) -> int:
    return int(stream(seed, purpose).integers(2**62))


def test_one_seed_and_purpose_give_one_stream():
    assert first(3, "rows") == first(3, "rows")


def test_no_two_purposes_or_seeds_share_a_stream():
    drawn = {first(seed, f"images of class {label}") for seed in range(4) for label in range(4)}
    drawn |= {first(seed, purpose) for seed in range(4) for purpose in ("rows", "", "images of class ")}
    assert len(drawn) == 28
