"""The Triton kernels behind bre.ops.triton: pointers and sizes in, tiles chosen by the launchers.

Every image, gradient and pattern is C planes of A = H*W pixels; D = C*A numbers. C, A, D and K are compile-time
constants: one dataset and one model fix them, and the compiler then knows which rows are 16-byte aligned and may be
read and written in 16-byte pieces. T, N and M are not: they change from call to call.

Fused and unfused multiply-adds give the same bits wherever bits matter (`_shifted`), so that the interpreter, which
never fuses, and a GPU, which does, agree on which pixels were clipped.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped, import-not-found"
# No `from __future__ import annotations`: triton reads tl.constexpr off the signatures.
import triton
import triton.language as tl

INFINITY = tl.constexpr(float("inf"))
TINY = tl.constexpr(2.0**-126)  # the smallest normal float32
NAN_STAYS = tl.constexpr(tl.PropagateNan.ALL)


@triton.jit
def _shifted(x, sign, v):
    """x/255 + sign*v of bytes x, both operations correctly rounded, as the reference computes it.

    1/255 = 257/65536 + 6e-8. A byte times 257 has 17 bits, so the first product is exact, and the sum rounds to what
    a division gives for all 256 bytes, with or without a fused multiply-add: two instructions instead of a dozen.
    """
    x = x.to(tl.float32)
    return x * (257 / 65536) + x * (1 / 255 - 257 / 65536) + sign * v


@triton.jit
def _inverse_or_zero(norm):
    """Of norms that have an inverse in float32; smaller ones count as zero."""
    return 1 / tl.where(norm >= TINY, norm, INFINITY)


@triton.jit
def apply_pattern(
    images,  # (M, D) uint8
    index,  # (T, N) int64
    sign,  # (T, N) int8
    pattern,  # (T, D) float32
    mean,  # (C,) float32
    std,  # (C,) float32
    out,  # (T*N, D), any float
    N,
    C: tl.constexpr,
    A: tl.constexpr,
    NHWC: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """out = (clip(x/255 + sign*v) - mean) / std. One program: PIXELS pixels of ROWS images of one target.

    Bytes moved per number: 1 of image, 2 or 4 of output, 4/ROWS of pattern, which stays in registers while the ROWS
    images pass by. An image that several targets use comes from the cache the second time (60 images of 3x224x224 are
    9 MB). Each thread loads 16 bytes of image; shared memory carries them, or the result, to the thread that stores:
    16 bytes per thread in NCHW order, one number per thread with a warp's side by side in NHWC order of 3 channels.
    """
    groups, tiles = tl.cdiv(N, ROWS), tl.cdiv(A, PIXELS)
    i = tl.program_id(0) // tiles
    t = i // groups
    begin = i % groups * ROWS
    c = tl.arange(0, CHANNELS)[:, None]
    p = tl.program_id(0) % tiles * PIXELS + tl.arange(0, PIXELS)[None, :]
    inside = (c < C) & (p < A)
    here = c * A + p
    there = p * C + c if NHWC else here

    v = tl.load(pattern + t.to(tl.int64) * (C * A) + here, inside)
    centre = tl.load(mean + c, c < C)
    scale = 1 / tl.load(std + c, c < C, other=1)
    for n in range(begin, tl.minimum(begin + ROWS, N)):
        r = t.to(tl.int64) * N + n
        x = tl.load(images + tl.load(index + r) * (C * A) + here, inside)
        y = _shifted(x, tl.load(sign + r).to(tl.float32), v)
        y = (tl.minimum(tl.maximum(y, 0.0), 1.0) - centre) * scale
        tl.store(out + r * (C * A) + there, y.to(out.dtype.element_ty), inside)


@triton.jit
def _others(row, begin, target, K: tl.constexpr, BLOCK: tl.constexpr):
    """logits[begin : begin+BLOCK] as float32; -inf past the end and at the target."""
    k = begin + tl.arange(0, BLOCK)
    z = tl.load(row + k, k < K, other=-INFINITY).to(tl.float32)
    return k, tl.where(k == target, -INFINITY, z)


@triton.jit
def loss_head(
    logits,  # (T*N, K), any float
    target,  # (T,) int64
    sign,  # (T, N) int8
    weight,  # (T, N) float32
    loss,  # (T, N) float32
    grad,  # (T*N, K), as logits
    success,  # (T, N) bool
    N,
    K: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program per row. d = z_t - logsumexp(others), so p_t = sigmoid(d), and both losses are softplus of +-d.

    The first loop over the row keeps, in every lane, the largest logit so far and the sum of exponentials relative to
    it; the second writes the gradient. Bytes moved per logit: read once from memory and once more from the cache
    (K = 22 000: 88 KB at most), written once.
    """
    r = tl.program_id(0).to(tl.int64)
    t = tl.load(target + r // N)
    row = logits + r * K
    own = tl.load(row + t).to(tl.float32)

    best = tl.full([BLOCK], -INFINITY, tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    beaten = tl.zeros([BLOCK], tl.int32)
    for begin in range(0, K, BLOCK):
        k, z = _others(row, begin, t, K, BLOCK)
        larger = tl.maximum(best, z)
        shift = tl.where(larger > -INFINITY, larger, 0.0)  # a lane that has seen no class yet must not give inf - inf
        total = total * tl.exp(best - shift) + tl.exp(z - shift)
        best = larger
        beaten |= ((z > own) | ((z == own) & (k < t))).to(tl.int32)  # of equals, the lowest class is the arg max
    top = tl.max(best)
    total = tl.sum(total * tl.exp(best - top))

    add = tl.load(sign + r) >= 0
    d = (own - top) - tl.log(total)
    a = tl.where(add, d, -d)
    e = tl.exp(-tl.abs(a))
    one_more = 1 + e  # log1p(e) = log(1+e) * e/((1+e)-1): the rounding of 1+e cancels
    log1p = tl.where(one_more == 1, e, tl.log(one_more) * (e / tl.where(one_more == 1, 1.0, one_more - 1)))
    tl.store(loss + r, tl.maximum(-a, 0.0) + log1p)
    is_top = tl.max(beaten) == 0
    tl.store(success + r, add == is_top)

    pull = tl.load(weight + r) * tl.where(a >= 0, e, 1.0) / one_more  # weight * sigmoid(-a) = -weight * dloss/da
    pull = tl.where(add, pull, -pull)
    share = pull / total
    for begin in range(0, K, BLOCK):
        k, z = _others(row, begin, t, K, BLOCK)
        g = tl.where(k == t, -pull, share * tl.exp(z - top))
        tl.store(grad + r * K + k, g.to(grad.dtype.element_ty), k < K)


@triton.jit
def sum_gradient(
    grad,  # (T*N, D), any float
    images,  # (M, D) uint8
    index,  # (T, N) int64
    sign,  # (T, N) int8
    pattern,  # (T, D) float32
    active,  # (T,) bool
    std,  # (C,) float32
    gradient,  # (T, D) float32
    squares,  # (T, tiles) float64
    N,
    C: tl.constexpr,
    A: tl.constexpr,
    NHWC: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """gradient = sum over n of sign * [0 <= x/255 + sign*v <= 1] * grad / std, and each tile's sum of squares.

    One program: PIXELS pixels of one target, ROWS images at a time, each with its own running sum; the ROWS sums
    are added at the end. No atomics, and an order that only ROWS decides. The clip mask is computed again from the
    bytes: 1 byte per number instead of a stored mask's 1 byte written and 1 read.
    Bytes moved per number: 2 or 4 of grad, 1 of image; per pattern number, once: 4 read, 4 written.
    """
    tiles = tl.cdiv(A, PIXELS)
    t = (tl.program_id(0) // tiles).to(tl.int64)
    if tl.load(active + t):
        n = tl.arange(0, ROWS)[:, None, None]
        c = tl.arange(0, CHANNELS)[None, :, None]
        p = tl.program_id(0) % tiles * PIXELS + tl.arange(0, PIXELS)[None, None, :]
        inside = (c < C) & (p < A)
        here = c * A + p
        there = p * C + c if NHWC else here

        v = tl.load(pattern + t * (C * A) + here, inside)
        total = tl.zeros([ROWS, CHANNELS, PIXELS], tl.float32)
        for begin in range(0, N, ROWS):
            r = t * N + begin + n
            s = tl.load(sign + r, begin + n < N, other=0).to(tl.float32)
            used = inside & (s != 0)
            x = tl.load(images + tl.load(index + r, begin + n < N, other=0) * (C * A) + here, used)
            g = tl.load(grad + r * (C * A) + there, used, other=0).to(tl.float32)
            y = _shifted(x, s, v)
            total += tl.where((y >= 0) & (y <= 1), s * g, 0)
        g = tl.sum(total, axis=0, keep_dims=True) * (1 / tl.load(std + c, c < C, other=1))
        tl.store(gradient + t * (C * A) + here, g, inside)
        g = tl.where(inside, g, 0).to(tl.float64)
        tl.store(squares + tl.program_id(0), tl.sum(g * g))


@triton.jit
def _momentum(momentum, gradient, d, decay, unit, D: tl.constexpr):
    return decay * tl.load(momentum + d, d < D, other=0) + unit * tl.load(gradient + d, d < D, other=0)


@triton.jit
def descend(
    gradient,  # (T, D) float32
    squares,  # (T, tiles) float64
    active,  # (T,) bool
    momentum,  # (T, D) float32
    pattern,  # (T, D) float32
    norms,  # (T,) float32
    tiles,
    step,
    decay,
    bound,
    D: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program per target: m = decay*m + g/|g|; v = clip(v - step*m/|m|, -bound, bound); norms = |v|.

    |m| must be known before any v moves, and |v| after all have, so one target stays in one program, which passes
    twice over it: reading 8 bytes, then 12 and writing 8 per number. That is 4.3 MB for a 3x224x224 pattern, where
    applying it to 16 images moves 7 MB and the network a thousand times as much. Norms are summed in float64, as in
    the reference: the squares of a confident network's gradients would vanish in float32.
    """
    t = tl.program_id(0).to(tl.int64)
    gradient += t * D
    momentum += t * D
    pattern += t * D
    lane = tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float64)
    if tl.load(active + t):
        for begin in range(0, tiles, BLOCK):
            j = begin + lane
            total += tl.load(squares + t * tiles + j, j < tiles, other=0)
        unit = _inverse_or_zero(tl.sqrt(tl.sum(total)).to(tl.float32))

        total = tl.zeros([BLOCK], tl.float64)
        for begin in range(0, D, BLOCK):
            m = _momentum(momentum, gradient, begin + lane, decay, unit, D).to(tl.float64)
            total += m * m
        length = step * _inverse_or_zero(tl.sqrt(tl.sum(total)).to(tl.float32))

        total = tl.zeros([BLOCK], tl.float64)
        for begin in range(0, D, BLOCK):
            d = begin + lane
            m = _momentum(momentum, gradient, d, decay, unit, D)
            v = tl.load(pattern + d, d < D, other=0) - length * m
            v = tl.minimum(tl.maximum(v, -bound, NAN_STAYS), bound, NAN_STAYS)
            tl.store(momentum + d, m, d < D)
            tl.store(pattern + d, v, d < D)
            total += v.to(tl.float64) * v.to(tl.float64)
    else:
        for begin in range(0, D, BLOCK):
            v = tl.load(pattern + begin + lane, begin + lane < D, other=0).to(tl.float64)
            total += v * v
    tl.store(norms + t, tl.sqrt(tl.sum(total)).to(tl.float32))


@triton.jit
def project(
    images,  # (M, D) uint8
    templates,  # (P, D) float32
    scores,  # (M, P) float32
    M,
    P,
    D: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """scores = images/255 @ templates.T. One program: ROWS images with COLUMNS templates.

    Programs on the same images run next to each other, so that only the first reads them from memory. Float32
    products on the ordinary units: tensor cores would round the templates. Bytes moved per pixel: 1 from memory,
    4*COLUMNS/ROWS of templates from the cache.
    """
    groups = tl.cdiv(P, COLUMNS)
    m = (tl.program_id(0) // groups * ROWS + tl.arange(0, ROWS)[:, None, None]).to(tl.int64)
    q = tl.program_id(0) % groups * COLUMNS + tl.arange(0, COLUMNS)[None, :, None]
    total = tl.zeros([ROWS, COLUMNS, BLOCK], tl.float32)
    for begin in range(0, D, BLOCK):
        d = begin + tl.arange(0, BLOCK)[None, None, :]
        x = tl.load(images + m * D + d, (m < M) & (d < D), other=0).to(tl.float32)
        total += x * tl.load(templates + q * D + d, (q < P) & (d < D), other=0)
    score = tl.sum(total, axis=2, keep_dims=True) * (1 / 255)
    tl.store(scores + m * P + q, score, (m < M) & (q < P))


@triton.jit
def sum_classes(
    images,  # (M, D) uint8
    labels,  # (M,) int64
    sums,  # (K, D) int64
    M,
    D: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """sums[label] += image. Integer atomics: exact, so their order cannot be seen. 1 byte read, 8 added per pixel."""
    m = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    d = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)[None, :]
    inside = (m < M) & (d < D)
    x = tl.load(images + m * D + d, inside)
    k = tl.load(labels + m, m < M, other=0)
    tl.atomic_add(sums + k * D + d, x.to(tl.int64), inside, sem="relaxed")


@triton.jit
def second_moment(
    centred,  # (D rounded up to TILE, columns) int8: x - 128, one row per pixel, zero past D and past M
    total,  # (D,) int64: sum of x
    second,  # (D, D) int64
    M,
    columns,
    D: tl.constexpr,
    TILE: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """second += sum of x x^T over M <= 2**16 images, exact, on the int8 tensor cores.

    With s = x - 128, sum s s^T stays within 2**30, and
        sum x_i x_j = sum s_i s_j + 128 (sum x_i + sum x_j) - 128**2 M.
    A tile of 64 x 64 reads 2/64 bytes per multiply-add: D = 3072 and 50 000 images are 0.5e12 of them and 15 GB, a
    few milliseconds from an H100's cache, so the symmetric half is computed rather than copied. Larger tiles read
    less, but their int64 epilogue spills. That one adds atomically: exact for integers, and nothing has to be loaded.
    """
    i = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)[:, None]
    j = tl.program_id(1).to(tl.int64) * TILE + tl.arange(0, TILE)[None, :]
    k = tl.arange(0, DEPTH)
    product = tl.zeros([TILE, TILE], tl.int32)
    for begin in range(0, columns, DEPTH):
        left = tl.load(centred + i * columns + (begin + k)[None, :])
        right = tl.load(centred + j * columns + (begin + k)[:, None])
        product = tl.dot(left, right, product, out_dtype=tl.int32)
    sums = tl.load(total + i, i < D, other=0) + tl.load(total + j, j < D, other=0)
    correction = 128 * sums - 128 * 128 * M
    tl.atomic_add(second + i * D + j, product + correction, (i < D) & (j < D), sem="relaxed")


@triton.jit
def gram(
    left,  # (r, D) int8
    right,  # (n, D) int8
    out,  # (r, n) int32
    r,
    n,
    D: tl.constexpr,
    HIGH: tl.constexpr,
    WIDE: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """out += left right^T, exact, on the int8 tensor cores. Where left is right, both halves of it are computed: the
    second comes from the cache. A tile of 64 x 64 reads 2/64 bytes per multiply-add.
    """
    i = tl.program_id(0).to(tl.int64) * HIGH + tl.arange(0, HIGH)[:, None]
    j = tl.program_id(1).to(tl.int64) * WIDE + tl.arange(0, WIDE)[None, :]
    product = tl.zeros([HIGH, WIDE], tl.int32)
    for begin in range(0, D, DEPTH):
        k = begin + tl.arange(0, DEPTH)
        rows = tl.load(left + i * D + k[None, :], (i < r) & (k < D)[None, :], other=0)
        columns = tl.load(right + j * D + k[:, None], (j < n) & (k < D)[:, None], other=0)
        product = tl.dot(rows, columns, product, out_dtype=tl.int32)
    inside = (i < r) & (j < n)
    before = tl.load(out + i * n + j, inside, other=0)
    tl.store(out + i * n + j, before + product, inside)


# Triton decides where a kernel is defined, by TRITON_INTERPRET, whether it is compiled or interpreted.
INTERPRETED = not isinstance(apply_pattern, triton.JITFunction)
