"""The Triton kernels of the ops on tiles: pointers and sizes in, as in kernels.py.

Sizes of an image and of its tiles are compile-time constants. Integers are exact, whatever the order; sums of float32
have an order that the constants fix.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped, import-not-found"
# No `from __future__ import annotations`: triton reads tl.constexpr off the signatures.
import triton
import triton.language as tl

# 1.5 * 2^23: adding it to a float32 below 2^22 rounds that to the nearest integer, ties to even
MAGIC = tl.constexpr(12582912.0)


@triton.jit
def halve(
    images,  # (planes, H, W) uint8
    out,  # (planes, ceil(H/2), ceil(W/2)) uint8
    lines,  # planes * ceil(H/2)
    H: tl.constexpr,
    W: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Means of 2 x 2 pixels. One program: ROWS rows of the result and COLUMNS of their pixels, each byte read once.

    What is beyond the edge of an odd image is the last row or column again: the mean of what is there.
    """
    height: tl.constexpr = (H + 1) // 2
    width: tl.constexpr = (W + 1) // 2
    line = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    x = tl.program_id(1) * 2 * COLUMNS + tl.arange(0, 2 * COLUMNS)[None, :]
    inside = (line < lines) & (x < 2 * width)
    if W % 2:
        x = tl.minimum(x, W - 1)
    y = line % height * 2
    above = images + (line // height * H + y) * W
    below = images + (line // height * H + tl.minimum(y + 1, H - 1)) * W
    total = tl.load(above + x, inside, other=0).to(tl.int32) + tl.load(below + x, inside, other=0).to(tl.int32)
    mean = (tl.sum(tl.reshape(total, [ROWS, COLUMNS, 2]), axis=2) + 2) // 4
    to = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    tl.store(out + line * width + to, mean.to(tl.uint8), (line < lines) & (to < width))


@triton.jit
def channel_sums(
    images,  # (planes, A) uint8
    out,  # (planes,) int64
    planes,
    A,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: ROWS planes. Reads 1 byte per pixel."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    total = tl.zeros([ROWS, 1], tl.int64)
    for begin in range(0, A, BLOCK):
        a = begin + tl.arange(0, BLOCK)[None, :]
        x = tl.load(images + row * A + a, (row < planes) & (a < A), other=0)
        total += tl.sum(x.to(tl.int32), axis=1, keep_dims=True)
    tl.store(out + row, total, row < planes)


@triton.jit
def cut_tiles(
    images,  # (M, C*H*W) uint8
    chosen,  # (M, Q) int64, or not read
    places,  # (d,) int32: of a tile's values in its image, from its corner on
    out,  # (rows, stride) uint8, or int8 of x - 128
    first,  # number of the first row among (M, Q)
    rows,
    Q,
    across,
    top,
    left,
    step,
    W: tl.constexpr,
    D: tl.constexpr,
    DEPTH: tl.constexpr,
    STRIDE: tl.constexpr,
    EVERY: tl.constexpr,
    CENTRED: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Row q of image m: the tile number chosen[m, q], or q where EVERY tile is taken; with STRIDE > DEPTH = d, zeros
    from d on. One program: ROWS tiles, BLOCK of their values. Runs of 8 pixels lie side by side in the image and in
    the tile; moves 2 bytes per value."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    there = row < rows
    m = (first + row) // Q
    if EVERY:  # noqa: SIM108
        p = (first + row) % Q
    else:
        p = tl.load(chosen + first + row, there, other=0)
    corner = m * D + (top + p // across * step) * W + left + p % across * step
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)[None, :]
    x = tl.load(images + corner + tl.load(places + j, j < DEPTH, other=0), there & (j < DEPTH), other=128)
    if CENTRED:
        x = (x ^ 128).to(tl.int8, bitcast=True)
    tl.store(out + row * STRIDE + j, x, there & (j < STRIDE))


@triton.jit
def sum_grams(
    a,  # (r, n) int32 each
    b,
    c,
    d,
    rows,  # (r,) int64
    out,  # (r, n) int32
    excess,  # (r,) int64
    above,  # (r,) int64
    n,
    floor,
    COUNT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """out = the sum of the first COUNT; of what exceeds the floor in a row, but for its own column, how much and how
    many. One program: a row. Moves 4 bytes per entry of each matrix and 4 of the sum."""
    i = tl.program_id(0).to(tl.int64)
    own = tl.load(rows + i)
    total = tl.zeros([BLOCK], tl.int64)
    count = tl.zeros([BLOCK], tl.int64)
    for begin in range(0, n, BLOCK):
        j = begin + tl.arange(0, BLOCK)
        place, inside = i * n + j, j < n
        x = tl.load(a + place, inside, other=0)
        if COUNT > 1:
            x += tl.load(b + place, inside, other=0)
        if COUNT > 2:
            x += tl.load(c + place, inside, other=0)
        if COUNT > 3:
            x += tl.load(d + place, inside, other=0)
        tl.store(out + place, x, inside)
        over = tl.where(inside & (j != own), x.to(tl.int64) - floor, 0)
        total += tl.where(over > 0, over, 0)
        count += (over > 0).to(tl.int64)
    tl.store(excess + i, tl.sum(total))
    tl.store(above + i, tl.sum(count))


@triton.jit
def _whitened(
    staged,  # (rows, stride) int8
    high,  # (stride + WIDTH, stride) int8
    low,
    sums,  # (stride,) int32
    prefix,  # (rows, stride / DEPTH) int32
    scale,
    channel,
    offset,
    means,
    row,
    m,
    p,
    r,
    end,
    stride,
    d,
    C,
    DEPTH: tl.constexpr,
    TILES: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Whitened values r of the tiles, (TILES, WIDTH) float32; no weight beyond the `end`-th counts.

    A weight of 16 bits is 256 h + l + 128 of two signed bytes, a value s + 128 of one. The sum over j of their products
    is 256 h.s + l.s + 128 (sum of s) + 128 (sum of the weights), modulo 2^32, in which it fits."""
    depths = tl.cdiv(end, DEPTH)
    product = tl.zeros([TILES, WIDTH], tl.int32)
    at = staged + row * stride
    for step in range(0, depths):
        k = step * DEPTH + tl.arange(0, DEPTH)
        s = tl.load(at + k[None, :])
        w = tl.load(high + r.to(tl.int64) * stride + k[:, None])
        product = tl.dot(s, w, product, out_dtype=tl.int32)
    product = product * 256
    for step in range(0, depths):
        k = step * DEPTH + tl.arange(0, DEPTH)
        s = tl.load(at + k[None, :])
        w = tl.load(low + r.to(tl.int64) * stride + k[:, None])
        product = tl.dot(s, w, product, out_dtype=tl.int32)
    r = tl.minimum(r, end - 1)  # what is beyond is not stored
    product += 128 * (tl.load(prefix + row * (stride // DEPTH) + depths - 1) + tl.load(sums + r))
    y = tl.load(scale + r) * product.to(tl.float32)
    y -= tl.load(offset + p * d + r)
    for c in range(0, C):
        y -= tl.load(channel + c * d + r) * tl.load(means + m * C + c)
    return y


@triton.jit
def whiten(
    staged,  # (rows rounded up to TILES, stride) int8: tiles less 128, zero from d on
    high,  # (stride + WIDTH, stride) int8: upper bytes of the weights; their rows are those of outputs
    low,  # likewise: lower bytes, less 128 up to d
    sums,  # (d,) int32: sums of the rows of weights
    prefix,  # (rows, stride / DEPTH) int32: sums of the staged values up to each multiple of DEPTH
    scale,  # (d,) float32
    channel,  # (C, d) float32
    offset,  # (P, d) float32
    means,  # (M, C) float32
    start,  # (cells + 1,) int32
    unit,  # (2, cells) int32
    values,  # int8
    kept,  # (all cells, total) float32
    first_row,  # number of the first staged tile among (M, P)
    rows,
    P,
    across,
    top,
    left,
    height,
    step,
    image_width,
    total,
    first,
    cells,
    stride,
    d,
    C,
    down_cells,
    across_cells,
    CELL: tl.constexpr,
    UNIT: tl.constexpr,
    PIECES: tl.constexpr,
    DEPTH: tl.constexpr,
    TILES: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Codes of one cell of TILES tiles: integer products on the int8 tensor cores up to the cell's last value, then
    mean, scale, length and rounding in registers. Programs on the same tiles run next to each other. A cell of more
    than WIDTH values is done in PIECES, twice: for its length, then for its codes.
    """
    number = tl.program_id(0) % cells
    row = tl.program_id(0).to(tl.int64) // cells * TILES + tl.arange(0, TILES)[:, None]
    there = row < rows
    row = tl.minimum(row, rows - 1)
    m, p = (first_row + row) // P, ((first_row + row) % P).to(tl.int32)
    begin = tl.load(start + number)
    end = tl.load(start + number + 1)
    lane = tl.arange(0, WIDTH)[None, :]

    square = tl.zeros([TILES, 1], tl.float32)
    y = tl.zeros([TILES, WIDTH], tl.float32)
    for piece in range(0, PIECES):
        r = begin + piece * WIDTH + lane
        y = _whitened(
            *(staged, high, low, sums, prefix, scale, channel, offset, means, row, m, p, r, end, stride, d, C),
            *(DEPTH, TILES, WIDTH),
        )
        y = tl.where(r < end, y, 0.0)
        square += tl.sum(y * y, axis=1, keep_dims=True)
    share = 1.0 / tl.sqrt(1.0 + square / (end - begin).to(tl.float32))

    tile_row, tile_column = top + p // across * step, left + p % across * step
    image = first + m
    cell = tile_row // CELL * across_cells + tile_column // CELL * down_cells + number
    tl.store(kept + cell * total + image, share, there)
    unit_start, unit_size = tl.load(unit + number), tl.load(unit + cells + number)
    before = C * (tile_row * image_width + height * tile_column)  # values of the tiles before
    to = values + total * (before + unit_start) + image * unit_size + (begin - unit_start)
    for piece in range(0, PIECES):
        r = begin + piece * WIDTH + lane
        if PIECES > 1:
            y = _whitened(
                *(staged, high, low, sums, prefix, scale, channel, offset, means, row, m, p, r, end, stride, d),
                *(C, DEPTH, TILES, WIDTH),
            )
        code = tl.minimum(tl.maximum(y * (UNIT * share), -127.0), 127.0)
        code = (code + MAGIC) - MAGIC
        tl.store(to + piece * WIDTH + lane, code.to(tl.int8), there & (r < end))
