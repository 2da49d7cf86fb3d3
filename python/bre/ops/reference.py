"""The ops as plain torch: these are the definitions, every other backend is a faster way to the same answer.

They run on any device, and check nothing: the public functions of bre.ops do.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from .moments import Moments
from .tiles import Grid, channel_of, cut, grids, units
from .whiten import CODE_UNIT, Codes, TileWeights

# images; in floating point at a time; source: derived, float64 sums of byte products are exact up to 2^37 images
_CHUNK = 2048


def unavailable(device: torch.device) -> str | None:
    return None


def apply_pattern(
    images: Tensor,
    *,
    index: Tensor,
    sign: Tensor,
    pattern: Tensor,
    mean: Tensor,
    std: Tensor,
    layout: str,
    out: Tensor,
) -> None:
    y = _shifted(images, index, sign, pattern).clamp(0, 1)
    out.copy_(((y - _per_channel(mean)) / _per_channel(std)).flatten(0, 1))


def loss_head(logits: Tensor, *, target: Tensor, sign: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    T, N = sign.shape
    K = logits.shape[1]
    z = logits.float().view(T, N, K)
    is_target = target.view(T, 1, 1) == torch.arange(K, device=target.device)
    top = z.masked_fill(is_target, -torch.inf).amax(2, keepdim=True)
    z = z - top  # first, or large logits would drown the logarithm
    others = z.masked_fill(is_target, -torch.inf)
    d = (z * is_target).sum(2) - others.logsumexp(2)  # log-odds of the target: p_t = sigmoid(d)

    add = sign >= 0
    a = torch.where(add, d, -d)
    loss = -logsigmoid(a)
    pull = weight * torch.where(add, 1, -1) * torch.sigmoid(-a)  # -weight * dloss/dd
    grad = pull[:, :, None] * torch.where(is_target, -1, others.softmax(2))
    success = add == (z.argmax(2) == target[:, None])
    return loss, grad.view(T * N, K).to(logits.dtype), success


def update_pattern(
    grad: Tensor,
    *,
    images: Tensor,
    index: Tensor,
    sign: Tensor,
    pattern: Tensor,
    momentum: Tensor,
    active: Tensor,
    std: Tensor,
    step: float,
    decay: float,
    bound: float,
) -> Tensor:
    y = _shifted(images, index, sign, pattern)
    signed = ((y >= 0) & (y <= 1)) * sign[:, :, None, None, None]
    g = (signed * grad.float().view_as(y)).sum(1) / _per_channel(std)
    m = decay * momentum + g * _inverse_or_zero(_norm(g))
    v = (pattern - step * m * _inverse_or_zero(_norm(m))).clamp(-bound, bound)
    momentum.copy_(torch.where(active[:, None, None, None], m, momentum))
    pattern.copy_(torch.where(active[:, None, None, None], v, pattern))
    return _norm(pattern).view(len(pattern))


def moments(images: Tensor, labels: Tensor, *, classes: int, out: Moments) -> None:
    rows = images.flatten(1)
    for x, label in zip(torch.split(rows, _CHUNK), torch.split(labels, _CHUNK), strict=True):
        member = (label[:, None] == torch.arange(classes, device=label.device)).double()
        double = x.double()  # products and sums of bytes are exact in it
        out.count.add_(member.sum(0).long())
        out.sum.add_((member.T @ double).long())
        out.second.add_((double.T @ double).long())


def gram(codes: Tensor, *, out: Tensor) -> None:
    double = codes.double()  # products and sums of bytes are exact in it
    out.add_((double @ double.T).int())


def cross_gram(left: Tensor, right: Tensor, *, out: Tensor) -> None:
    out.add_((left.double() @ right.double().T).int())


def sum_grams(grams: Sequence[Tensor], *, rows: Tensor, floor: int, out: Tensor) -> tuple[Tensor, Tensor]:
    out.copy_(torch.stack(list(grams)).sum(0))
    over = (out.long() - floor).clamp(min=0)
    over[torch.arange(len(rows), device=rows.device), rows] = 0
    return over.sum(1), (over > 0).sum(1)


def halve(images: Tensor, *, out: Tensor) -> None:
    x = images.int()
    H, W = x.shape[2:]
    x = torch.cat([x, x[:, :, H - H % 2 :]], 2)  # the last row and column of an odd image twice
    x = torch.cat([x, x[:, :, :, W - W % 2 :]], 3)
    out.copy_((x[:, :, ::2, ::2] + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2] + 2) // 4)


def channel_sums(images: Tensor, *, out: Tensor) -> None:
    out.copy_(images.long().sum((2, 3)))


def cut_tiles(images: Tensor, *, grid: Grid, chosen: Tensor, out: Tensor) -> None:
    out.copy_(cut(images, grid).gather(1, chosen[:, :, None].expand_as(out)))


def tile_moments(
    tiles: Tensor, group: Tensor, *, groups: int, sums: Tensor, area: int, shape: tuple[int, int, int]
) -> tuple[Tensor, Tensor]:
    d = tiles.shape[2]
    count = torch.zeros(groups, dtype=torch.int64, device=tiles.device)
    second = torch.zeros(groups, d, d, dtype=torch.float64, device=tiles.device)
    means = (sums.double() / area)[:, channel_of(*shape).to(tiles.device)]
    for g in range(groups):
        x = (tiles[group == g].double() - means[group == g][:, None]).flatten(0, 1)
        count[g] = len(x)
        second[g] = x.T @ x
    return count, second


def whiten(images: Tensor, *, weights: Sequence[TileWeights], tile: int, out: Codes, first: int) -> None:
    M, C, H, W = images.shape
    R, rows = out.kept.shape[1], slice(first, first + M)
    means = images.double().mean((2, 3)).float()
    tiles = {}  # whitened, by their upper left corner
    for grid, (digits, scale, channel, offset) in zip(grids(H, W, tile), weights, strict=True):
        exact = cut(images, grid).double() @ digits.double().tril().T
        y = scale * exact.float() - offset
        for c in range(C):
            y = y - channel[c] * means[:, c, None, None]
        for p, whitened in enumerate(y.unbind(1)):
            tiles[grid.top + p // grid.across * tile, grid.left + p % grid.across * tile] = whitened
    number = 0
    for unit in units(C, H, W, tile):
        codes = out.values[R * unit.start :][: R * unit.size].view(R, unit.size)[rows]
        for cell in unit.cells:
            top, left = cell.top // tile * tile, cell.left // tile * tile
            before = C * (top * W + min(tile, H - top) * left)  # where the tile's values begin
            n = C * cell.height * cell.width
            y = tiles[top, left][:, cell.start - before :][:, :n]
            kept = (1 / (1 + y.double().square().sum(1) / n).sqrt()).float()
            out.kept[number, rows] = kept
            code = (y * (CODE_UNIT * kept)[:, None]).clamp(-127, 127).round().to(torch.int8)
            codes[:, cell.start - unit.start :][:, :n] = code
            number += 1


def project(images: Tensor, *, templates: Tensor) -> Tensor:
    double = templates.double().T  # neither autocast nor TF32 touches products in it
    scores = [(x.flatten(1).double() @ double / 255).float() for x in torch.split(images, _CHUNK)]
    return torch.cat(scores) if scores else templates.new_empty(0, len(templates))


def _shifted(images: Tensor, index: Tensor, sign: Tensor, pattern: Tensor) -> Tensor:
    """(T, N, C, H, W) float32: x/255 + sign*v, every operation correctly rounded, so equal bits on every backend."""
    # Divided by a tensor: on CUDA, torch multiplies by the rounded reciprocal when it divides by a number.
    x = images[index].float() / torch.full((), 255.0, device=images.device)
    return x + sign[:, :, None, None, None] * pattern[:, None]


def _per_channel(x: Tensor) -> Tensor:
    return x[:, None, None]


def _norm(x: Tensor) -> Tensor:
    """(T, 1, 1, 1) float32: L2 norm of each pattern, summed in double."""
    return x.double().square().sum((1, 2, 3), keepdim=True).sqrt().float()


def _inverse_or_zero(norm: Tensor) -> Tensor:
    """Of norms that have an inverse in float32; smaller ones count as zero."""
    return torch.where(norm >= torch.finfo(torch.float32).tiny, 1 / norm, 0)
