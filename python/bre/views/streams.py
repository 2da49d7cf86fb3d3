"""Random streams, one for each purpose."""

from __future__ import annotations

import numpy as np


def stream(seed: int, purpose: str) -> np.random.Generator:
    """A generator of its own for each purpose, whatever other purposes there are; seed: the user's, >= 0."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=tuple(purpose.encode())))
