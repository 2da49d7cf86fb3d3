"""Waves: patterns of one frequency, such as sines, stripes and grids, which the mean of a class shows.

A wave is spread over all of an image, so two images that carry it agree in little of what they are: where few images of
a class do, neither their company nor an axis of the class tells. But images have any frequency at any phase, so that
their mean has next to nothing of it, unless some of them share it. The frequencies that the mean has most of, for what
single images have, each give a direction. Whether some images of the class lie apart along it is for their scores to
say.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import fft, ndimage
from torch import Tensor

from ..ops import CODE_UNIT
from ..ops.tiles import CELL
from .codes import Codes
from .directions import Direction
from .linalg import single_thread
from .whitening import Whitening

# waves; of a level, whose directions are looked along; source: chosen, a pattern of more frequencies has one that is
# strongest
MAX_WAVES = 8
# parts; of a frequency's distance to the next, in which frequencies are tried: a pattern need not have whole periods;
# source: chosen
PARTS = 2
# images; of the class, that tell how much of each frequency single images have; source: chosen, with its neighbours a
# frequency's is wrong by a seventeenth
SAMPLED = 32
# share; of the channels' mean energy, that any mixture of them has; source: chosen, for a grey set
LEAST_SHARE = 1e-4
# frequencies; along each axis, one and those beside it, that are as strong in single images; source: chosen
NEIGHBOURS = 3
# values; of sampled images, or of waves, that are in floating point at a time; source: chosen, for little memory; with
# fewer, the whitening's matrices are read more often
VALUES_TOGETHER = 2**21
# bytes; for each value of an image, that looking for waves takes; source: chosen, about what it takes at 224 x 224
IN_MEMORY = 400


def of_levels(whitenings: Sequence[Whitening], levels: Sequence[Codes]) -> list[Direction]:
    """`directions` of all levels."""
    pairs = enumerate(zip(whitenings, levels, strict=True))
    return [wave for number, (whitening, codes) in pairs for wave in directions(whitening, codes, number)]


def directions(whitening: Whitening, codes: Codes, level: int) -> list[Direction]:
    """Along the waves that the mean of images' codes shows most of: MAX_WAVES or fewer, the most promising first.

    whitening: what made the codes; level: its number.
    """
    with single_thread():
        mean = _in_tiles(whitening, codes, [values.float().mean(0, keepdim=True) for values in codes.units])
        chosen = _apart(_promise(whitening, codes, mean))
        together = max(1, VALUES_TOGETHER // (2 * codes.level.shape[0] * codes.level.size))
        parts = (chosen[start : start + together] for start in range(0, len(chosen), together))
        return [each for waves in parts for each in _directions(whitening, codes, mean, level, waves)]


def _in_tiles(whitening: Whitening, codes: Codes, units: list[Tensor]) -> list[Tensor]:
    """(m, T, d) float32 by `Whitening.kinds`, from codes (m, size) float32, unit by unit."""
    cells = {}
    for unit, values in zip(codes.level.units, units, strict=True):
        sizes = [codes.level.shape[0] * cell.height * cell.width for cell in unit.cells]
        for cell, part in zip(unit.cells, torch.split(values.cpu() / CODE_UNIT, sizes, 1), strict=True):
            cells[cell.top // CELL, cell.left // CELL] = part
    return [
        torch.stack([torch.cat([cells[place] for place in tile], dim=1) for tile in kind.cells], dim=1)
        for kind in whitening.kinds
    ]


def _promise(whitening: Whitening, codes: Codes, mean: list[Tensor]) -> np.ndarray:
    """(PARTS * H, PARTS * W // 2 + 1): how much of each frequency the mean (1, T, d) has, by inner products with it,
    for what some single images have, all channels together; -1 for less than a period."""
    channels, height, width = whitening.level.shape
    parts = PARTS * height, PARTS * width
    (back,) = whitening.templates(mean).view(1, *whitening.level.shape).numpy()
    spectrum = np.moveaxis(fft.rfft2(back, parts), 0, 2)  # (., ., C)
    covariance = _covariance(whitening, codes)
    around = (NEIGHBOURS, NEIGHBOURS, 1, 1)
    smooth = ndimage.uniform_filter(covariance, around, mode=("wrap", "nearest", "nearest", "nearest"))
    scale = np.trace(smooth, axis1=2, axis2=3).real[..., None, None] / channels
    smooth = smooth + (LEAST_SHARE * scale + 1e-30) * np.eye(channels, dtype=np.float32)
    inverse = np.linalg.inv(smooth)[np.arange(parts[0])[:, None] // PARTS, np.arange(parts[1] // 2 + 1) // PARTS]
    promise: np.ndarray = np.einsum("yxc,yxcd,yxd->yx", spectrum.conj(), inverse, spectrum).real
    promise[:PARTS, :PARTS] = promise[1 - PARTS :, :PARTS] = -1
    return promise


def _covariance(whitening: Whitening, codes: Codes) -> np.ndarray:
    """(H, W // 2 + 1, C, C) complex64: of the channels at each frequency, over SAMPLED images."""
    channels, height, width = whitening.level.shape
    count = min(SAMPLED, len(codes))
    some = torch.arange(count, device="cpu") * (len(codes) - 1) // max(count - 1, 1)
    out = np.zeros((height, width // 2 + 1, channels, channels), np.complex64)
    for rows in torch.split(some.to(codes.device), max(1, VALUES_TOGETHER // whitening.level.size)):
        tiles = _in_tiles(whitening, codes, [values[rows].float() for values in codes.units])
        for image in whitening.templates(tiles).view(-1, channels, height, width).numpy():
            one = np.moveaxis(fft.rfft2(image), 0, 2)
            out += one[..., :, None] * one[..., None, :].conj() / count
    return out


def _apart(promise: np.ndarray) -> list[tuple[float, float]]:
    """(periods down, periods across) of the most promising waves, none next to another."""
    left, out = promise.copy(), list[tuple[float, float]]()
    height, last = len(left), left.shape[1] - 1
    while len(out) < MAX_WAVES:
        row, column = (int(place) for place in np.unravel_index(left.argmax(), left.shape))
        if left[row, column] <= 0:
            break
        out.append(((row if row <= height // 2 else row - height) / PARTS, column / PARTS))
        around = np.arange(row - PARTS, row + PARTS + 1)
        left[around % height, max(0, column - PARTS) : column + PARTS + 1] = -1
        for beyond in (PARTS - column, column + PARTS - last):  # there a wave goes on as the one with the sign turned
            if beyond >= 0:
                edge = slice(0, beyond + 1) if column <= PARTS else slice(last - beyond, last + 1)
                left[-around % height, edge] = -1
    return out


def _directions(
    whitening: Whitening, codes: Codes, mean: list[Tensor], level: int, waves: list[tuple[float, float]]
) -> list[Direction]:
    """Along what the mean (1, T, d) has of each of the waves: amplitude and phase of every channel, by least squares.

    The waves are whitened side by side: reading the whitening's matrices takes most of the time."""
    planes = torch.cat([_planes(whitening.level.shape, wave) for wave in waves])
    moved = [part.view(len(waves), -1, *part.shape[1:]) for part in whitening.displacements(planes)]  # (., 2 C, T, d)
    target, out = torch.cat([part.flatten() for part in mean]).double(), []
    for number in range(len(waves)):
        columns = torch.cat([part[number].flatten(1) for part in moved], dim=1).double()
        gram, along = columns @ columns.T, columns @ target
        ridge = 1e-6 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device="cpu")
        amounts = torch.linalg.solve(gram + ridge, along).float()
        cells = whitening.cells([torch.tensordot(amounts, part[number], 1)[None] for part in moved])
        out.append(_through(codes, level, {place: values[0] for place, values in cells.items()}))
    return out


def _planes(shape: tuple[int, int, int], wave: tuple[float, float]) -> Tensor:
    """(2 C, D) float32: a wave's cosine and sine in each channel, without their means."""
    channels, height, width = shape
    down = wave[0] / height * torch.arange(height, dtype=torch.float32, device="cpu")
    across = wave[1] / width * torch.arange(width, dtype=torch.float32, device="cpu")
    phase = 2 * np.pi * (down[:, None] + across)
    planes = torch.stack([phase.cos(), phase.sin()])
    planes -= planes.mean((1, 2), keepdim=True)
    patterns = planes.new_zeros(2, channels, channels, height, width)
    for channel in range(channels):
        patterns[:, channel, channel] = planes
    return patterns.view(2 * channels, -1)


def _through(codes: Codes, level: int, cells: dict[tuple[int, int], Tensor]) -> Direction:
    """Along values (d,), whitened, of all cells by their (row, column)."""
    (rows, places), there = codes.level.grid, codes.device
    total = [cells[cell.top // CELL, cell.left // CELL] for unit in codes.level.units for cell in unit.cells]
    energy = [CODE_UNIT * cells[row, column].square().sum() for row in range(rows) for column in range(places)]
    return Direction(level, (0, 0, rows, places), torch.cat(total).to(there), torch.stack(energy).to(there), 1)
