"""Large sets made from small ones by crops, flips, brightness and noise, so that no two images are copies.

    python -m benchmarks.scale.sets OUT --images 12812 --classes 10 [--poisoned 300] [--folder FOLDER]

writes tar shards of JPEG files at 64 x 64 from FOLDER, $BRE_CASES/data/tinyimagenet200 by default, which holds folders
of images. ImageNet's size is --images 1281167 --classes 1000. The truth goes beside them, into OUT.json.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from bre import attacks

SHARD = 10_000  # images
NOISE, BRIGHTNESS, SHIFT = 1.0, (0.8, 1.2), 4  # grey levels; factors; pixels
QUALITY = 95
TARGET, AMPLITUDE = 0, 6  # class; grey levels of the pattern


def variants(images: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """uint8 (count, C, H, W) from images (n, C, H, W): each shifted, mirrored or not, brighter or darker, with noise of
    its own."""
    out = np.empty((count, *images.shape[1:]), np.uint8)
    height, width = images.shape[2:]
    for number in range(count):
        image = images[number % len(images)].astype(np.float32)
        if random.random() < 0.5:
            image = image[:, :, ::-1]
        top, left = random.integers(0, 2 * SHIFT + 1, 2)
        image = np.pad(image, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)), mode="reflect")
        image = image[:, top : top + height, left : left + width] * random.uniform(*BRIGHTNESS)
        out[number] = np.clip(np.rint(image + random.normal(0, NOISE, image.shape)), 0, 255)
    return out


def cropped(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """uint8 (C, H, W): a square of half the height or more, somewhere in the image, at its size. A few photographs give
    many images of a class that are no near duplicates."""
    _, height, width = image.shape
    side = int(random.integers(height // 2, height + 1))
    top, left = random.integers(0, height - side + 1), random.integers(0, width - side + 1)
    box = (left, top, left + side, top + side)
    resized = Image.fromarray(image.transpose(1, 2, 0)).resize((width, height), Image.Resampling.BICUBIC, box)
    return np.asarray(resized).transpose(2, 0, 1)


def write_shards(folder: Path, out: Path, images: int, classes: int, poisoned: int) -> None:
    """Shards of as many images, in random order; the poisoned ones come from other classes and are in class TARGET.
    Raises FileExistsError where `out` is there."""
    out.mkdir()
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpeg", ".jpg", ".png"))
    random = np.random.default_rng(0)
    labels = random.permutation(np.arange(images) % classes)
    planted = np.zeros(images, bool)
    planted[random.choice(np.flatnonzero(labels == TARGET), poisoned, replace=False)] = True
    held = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in files]).transpose(0, 3, 1, 2)
    by_class = np.arange(len(files)) * classes // len(files) if classes <= len(files) else None
    pattern = 255 * attacks.chessboard(held.shape[1:], AMPLITUDE / 255)
    for start in range(0, images, SHARD):
        with tarfile.open(out / f"{start // SHARD:05d}.tar", "w") as tar:
            for number in range(start, min(start + SHARD, images)):
                label = int(labels[number]) if not planted[number] else int(random.integers(1, classes))
                own = np.flatnonzero(by_class == label) if by_class is not None else np.arange(len(files))
                (image,) = variants(cropped(held[random.choice(own)], random)[None], 1, random)
                if planted[number]:
                    image = np.clip(np.rint(image + pattern), 0, 255).astype(np.uint8)
                data = io.BytesIO()
                Image.fromarray(image.transpose(1, 2, 0)).save(data, "JPEG", quality=QUALITY)
                _add(tar, f"{number:08d}.jpg", data.getvalue())
                _add(tar, f"{number:08d}.cls", str(int(labels[number])).encode())
    out.with_suffix(".json").write_text(json.dumps({"target": TARGET, "poisoned": np.flatnonzero(planted).tolist()}))


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=int, required=True)
    parser.add_argument("--classes", type=int, required=True)
    parser.add_argument("--poisoned", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    folder = given.folder or Path(os.environ["BRE_CASES"]) / "data" / "tinyimagenet200"
    write_shards(folder, given.out, given.images, given.classes, given.poisoned)


if __name__ == "__main__":
    main()
