"""Ways to damage a file, or to make a hostile one of it, that get past the first check of its format."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import pickle
import random
import warnings
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

NASTY = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**63, 2**64 - 1]
TEXTS = [
    *(b"", b"0", b"-1", b"1e999", b"NaN", b"null", b"true", b"[]", b"{}", b'""', b"9" * 400, b"\x00", b"\xff\xfe"),
    *(b"../../../../tmp/x", b"/etc/passwd", b"file:///etc/passwd", b"http://127.0.0.1:9/", b"%s%n", b"(" * 5000),
    *(b"[" * 5000, b"__import__('os').system('true')", b"os.system", b"\xf0\x9f\x90\x9d", b"\n", b",", b'"', b"'"),
]


class Bee:
    """Unpickling it would run code, and leave a mark."""

    def __reduce__(self) -> Any:
        return exec, ("import sys; sys.bre_was_run = True",)


# ---- mutations: (random, bytes) -> bytes


def flip(r: random.Random, data: bytearray) -> None:
    for _ in range(r.choice([1, 1, 2, 4, 16, 64])):
        if data:
            data[r.randrange(len(data))] = r.randrange(256)


def number(r: random.Random, data: bytearray) -> None:
    size = r.choice([1, 2, 4, 8])
    if len(data) > size:
        place = r.randrange(len(data) - size)
        value = (r.choice(NASTY) + r.choice([-1, 0, 0, 1])) % (1 << 8 * size)
        data[place : place + size] = value.to_bytes(size, r.choice(["little", "big"]))


def block(r: random.Random, data: bytearray) -> None:
    if data:
        start = r.randrange(len(data))
        stop = min(len(data), start + r.choice([1, 2, 8, 64, 512, 4096]))
        part = bytes(data[start:stop])
        place = r.randrange(len(data))
        data[start:stop] = r.choice([b"", part * 2, bytes(len(part)), part[::-1]])
        data[place:place] = r.choice([b"", b"", part])


def truncate(r: random.Random, data: bytearray) -> None:
    del data[r.randrange(len(data) + 1) :]


def word(r: random.Random, data: bytearray) -> None:
    """Replace something between two marks of punctuation, as in JSON, CSV, headers and code."""
    marks = [i for i, c in enumerate(data[:200_000]) if c in b" \"',:[](){}\n.=/"]
    if len(marks) > 1:
        i = r.randrange(len(marks) - 1)
        data[marks[i] + 1 : marks[i + 1]] = r.choice(TEXTS)


def mutated(r: random.Random, data: bytes, text: bool = False) -> bytes:
    out = bytearray(data)
    ways = [word, word, word, flip, block, truncate] if text else [flip, number, number, block, truncate, word]
    for _ in range(r.choice([1, 1, 1, 2, 3])):
        r.choice(ways)(r, out)
    return bytes(out)


def in_json(r: random.Random, data: bytes) -> bytes:
    """One value of a JSON text replaced, removed, or put elsewhere; the text stays JSON."""
    content = json.loads(data)
    places: list[tuple[Any, Any]] = []
    stack = [content]
    while stack:
        here = stack.pop()
        for key, value in list(here.items() if isinstance(here, dict) else enumerate(here)):
            places.append((here, key))
            if isinstance(value, (dict, list)):
                stack.append(value)
    odd = [None, True, 0, -1, 1, 2**31, 2**63, 2**64, 1e308, -1e-300, 0.5, "", "x", "../x", "9" * 50, [], {}, [[]]]
    for _ in range(r.choice([1, 1, 2, 4])):
        here, key = r.choice(places)
        with contextlib.suppress(KeyError, IndexError):
            what = r.randrange(4)
            if what == 0:
                del here[key]
            elif what == 1:
                there, other = r.choice(places)
                here[key] = json.loads(json.dumps(there[other])) if len(json.dumps(there[other])) < 10_000 else 0
            else:
                here[key] = r.choice(odd)
    return json.dumps(content).encode()


def in_zip(r: random.Random, data: bytes) -> bytes:
    """One member mutated, renamed, doubled or replaced by a pickle; packed again with right checksums."""
    with zipfile.ZipFile(io.BytesIO(data)) as z:
        members = [(i.filename, z.read(i), i.compress_type) for i in z.infolist()]
    i = r.randrange(len(members))
    name, content, packing = members[i]
    what = r.randrange(12)
    if what == 0:
        del members[i]
    elif what == 1:
        members[i] = (mutated(r, name.encode(), text=True).decode(errors="replace"), content, packing)
    elif what == 2:
        members.append(members[r.randrange(len(members))])
    elif what == 3:
        members[i] = (name, pickle.dumps(Bee()), packing)
    elif what == 4:
        members[i] = (name, content, r.choice([0, 8, 12, 14]))
    elif name.endswith(".json") and what < 10:
        members[i] = (name, in_json(r, content), packing)
    else:
        members[i] = (name, mutated(r, content, text=name.endswith((".json", ".py"))), packing)
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w") as z:
        warnings.simplefilter("ignore")  # of double names
        for name, content, packing in members:
            z.writestr(zipfile.ZipInfo(name or "x"), content, packing)
    return out.getvalue()


def in_png(r: random.Random, data: bytes) -> bytes:
    """One chunk mutated, with its checksum made right; image data unpacked and packed again."""
    chunks, place = [], 8
    while place + 12 <= len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + size]))
        place += 12 + size
    i = r.randrange(len(chunks))
    kind, content = chunks[i]
    if kind == b"IDAT" and r.random() < 0.7:
        content = zlib.compress(mutated(r, zlib.decompress(content)))
    else:
        content = mutated(r, content) or b"\0"
    extra = [b"tEXt", b"zTXt", b"iCCP", b"tRNS", b"PLTE", b"acTL", b"fcTL", b"eXIf", b"gAMA", b"iTXt", b"IDAT", b"IHDR"]
    chunks[i] = (r.choice(extra) if r.random() < 0.2 else kind, content)
    if r.random() < 0.2:
        chunks.insert(r.randrange(len(chunks)), (r.choice(extra), mutated(r, content)))
    body = b"".join(len(c).to_bytes(4, "big") + k + c + zlib.crc32(k + c).to_bytes(4, "big") for k, c in chunks)
    return data[:8] + body


def in_tar(r: random.Random, data: bytes) -> bytes:
    """Headers mutated, with their checksums made right."""
    out = bytearray(data)
    headers = [i for i in range(0, len(out), 512) if out[i + 257 : i + 262] == b"ustar"]
    for _ in range(r.choice([1, 1, 2])):
        start = r.choice(headers)
        header = bytearray(out[start : start + 512])
        field = r.choice([(0, 100), (100, 108), (124, 136), (124, 136), (156, 157), (156, 157), (157, 257), (345, 500)])
        part = bytearray(header[field[0] : field[1]])
        r.choice([flip, number, word])(r, part)
        if field == (156, 157):
            part = bytearray([r.choice(b"0123456789gxLKSDVNM\0")])
        if field == (124, 136) and r.random() < 0.4:
            part = bytearray(b"\x80" + bytes(3) + r.choice(NASTY).to_bytes(8, "big"))
            part[0] = r.choice([0x80, 0xFF])
        header[field[0] : field[1]] = part[: field[1] - field[0]].ljust(field[1] - field[0], b"\0")
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        out[start : start + 512] = header
    return bytes(out)


def in_gzip(r: random.Random, data: bytes) -> bytes:
    """The content mutated and packed again; a file that is not packed, mutated."""
    if data[:2] != b"\x1f\x8b":
        return mutated(r, data)
    return gzip.compress(mutated(r, gzip.decompress(data)), mtime=0)


def in_mat(r: random.Random, data: bytes) -> bytes:
    """One packed element of a .mat mutated, and packed again; of one that is not packed, behind the header."""
    kind, size = (int.from_bytes(data[i : i + 4], "little") for i in (128, 132))
    if kind != 15:
        return data[:128] + mutated(r, data[128:])
    content = zlib.compress(mutated(r, zlib.decompress(data[136 : 136 + size])))
    return data[:132] + len(content).to_bytes(4, "little") + content + data[136 + size :]


def in_safetensors(r: random.Random, data: bytes) -> bytes:
    size = int.from_bytes(data[:8], "little")
    header = in_json(r, data[8 : 8 + size])
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


def any_of(*ways: Callable[[random.Random, bytes], bytes]) -> Callable[[random.Random, bytes], bytes]:
    def mutate(r: random.Random, data: bytes) -> bytes:
        return r.choice(ways)(r, data)

    return mutate


def as_text(r: random.Random, data: bytes) -> bytes:
    return mutated(r, data, text=True)


def in_zip_or_bytes(r: random.Random, data: bytes) -> bytes:
    return in_zip(r, data) if zipfile.is_zipfile(io.BytesIO(data)) else mutated(r, data)
