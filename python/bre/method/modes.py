"""A second mode among scores, for many rows of them at once (`stats.second_mode`, vectorised)."""

from __future__ import annotations

import numpy as np
from scipy import special

LEAST_MODE = 5  # values that make a mode
SPANS = 12  # widths looked at, each 1.5 times the one before; the last reaches 170 times the narrowest


def second_modes(scores: np.ndarray, floor: float, width: float) -> np.ndarray:
    """(P, 5) float64 for scores (P, n): evidence (nats), low, high, centre, count inside; zeros and infinities if none.

    The interval above `floor` that holds more of the values than any density that decreases from `floor` on can: of m
    values between floor and an upper edge, it puts each into the last part p of the way with probability p at most, so
    that k of them there are worth k log(k / mp) + (m - k) log((m - k) / m(1 - p)) nats (Kulldorff, Communications in
    Statistics 1997), maximised over upper edges and widths. The value that makes the edge does not count.
    """
    rows = len(scores)
    out = np.tile([0.0, np.inf, np.inf, np.inf, 0.0], (rows, 1))
    above = scores > floor
    counts = above.sum(1)
    most = int(counts.max(initial=0))
    if most < LEAST_MODE:
        return out
    ordered = -np.partition(-scores, most - 1, axis=1)[:, :most] if most < scores.shape[1] else scores
    ordered = np.sort(np.where(ordered > floor, ordered, np.inf), axis=1).astype(np.float64)
    total = np.arange(most)
    valid = total < counts[:, None]
    edges = np.where(valid, ordered, 0.0)
    top = edges.max(1)
    spans = width * 1.5 ** np.arange(SPANS)
    shift = (np.arange(rows) * (2 * top.max() + spans[-1] + 10))[:, None]  # rows side by side, for one search
    flat = np.where(valid, ordered, top.max() + 1) + shift
    best = np.zeros((rows, most))
    chosen = np.zeros((rows, most), np.int64)
    starts = np.zeros((rows, most), np.int64)
    reach = np.maximum(top - floor, width)[:, None]
    for number, span in enumerate(spans):
        if number and span > reach.max():
            break
        lows = np.maximum(edges - span, floor)
        first = (
            np.searchsorted(flat.ravel(), (lows + shift).ravel()).reshape(rows, most) - np.arange(rows)[:, None] * most
        )
        inside = np.clip(total - first, 0, None)
        part = (edges - lows) / np.maximum(edges - floor, 1e-12)
        expected = total * part
        evidence = special.xlogy(inside, inside / np.maximum(expected, 1e-300)) + special.xlogy(
            total - inside, (total - inside) / np.maximum(total - expected, 1e-300)
        )
        evidence = np.where(
            valid & (inside + 1 >= LEAST_MODE) & (inside > expected) & (span <= reach * 1.0000001), evidence, 0.0
        )
        better = evidence > best
        best = np.where(better, evidence, best)
        chosen = np.where(better, number, chosen)
        starts = np.where(better, first, starts)
    places = best.argmax(1)
    for row in np.flatnonzero(best.max(1) > 0):
        place = places[row]
        start, edge = starts[row, place], edges[row, place]
        out[row] = (
            best[row, place],
            max(edge - spans[chosen[row, place]], floor),
            edge,
            np.median(edges[row, start : place + 1]),
            place + 1 - start,
        )
    return out
