"""The boxes of a detection set as a classification set of crops: COCO's JSON, and YOLO's text files."""

from __future__ import annotations

import json
import math
import os
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ...errors import InputError
from .dataset_options import Options
from .file_list import ImageFiles, listed
from .image_files import EXTENSIONS, decode, opened
from .image_form import as_hwc
from .imageset import ImageSet
from .labels import as_labels
from .regular_files import open_regular, parse_json, read_text, unreadable
from .remote_path import NotThere
from .unreadable import UnreadableImage, refusal

_LEAST_SIDE = 2  # pixels; smaller boxes show nothing
_ROUNDING = 1e-3  # pixels, of corners that were stored as parts of the image


class Box(NamedTuple):
    """(x0, y0) to (x1, y1) in an image, without the last column and row. entry: of the annotations, in their order."""

    image: int
    label: int
    corners: tuple[float, float, float, float]
    entry: int


class BoxSet(ImageSet):
    """Every box of a set of images, cut out and brought to one size, with the class that it is labelled with."""

    takes = frozenset({"boxes", "follow_links", "on_error", "max_skipped"})

    def __init__(self, root: Path, options: Options):
        if options.boxes is None or options.form.resize is None:
            raise InputError("boxes are of many sizes: bring their crops to one", argument="resize")
        self.path, self._form, self._boxes_path = root, options.form, options.boxes
        self.beside = () if options.boxes is None else (options.boxes,)
        self._files = ImageFiles(root, follow_links=options.follow_links)
        self._thorough = options.on_error == "skip"
        self._bad: dict[int, str] = {}  # {image: why it cannot be read}
        boxes, names = self._annotations(options.boxes)
        self._boxes = self._usable(boxes)
        labels = as_labels([box.label for box in self._boxes], len(self._boxes), str(options.boxes))
        mode = self._mode()
        self.unreadable = {i: bad for i, box in enumerate(self._boxes) if (bad := self._bad.get(box.image))}
        super().__init__(labels, (len(mode), *options.form.resize), str(root), names)

    @abstractmethod
    def _annotations(self, path: Path) -> tuple[list[Box], list[str] | None]:
        """The boxes and the class names; adds the images that they lie in to the files."""

    def _usable(self, boxes: list[Box]) -> list[Box]:
        """Those boxes of which at least some pixels lie in their image, cut to it."""
        sizes = self._sizes({box.image for box in boxes})
        found = []
        for box in boxes:
            if box.image in self._bad:
                found.append(box)
                continue
            x0, y0, x1, y1 = self._pixels(box, sizes[box.image])
            if x1 - x0 >= _LEAST_SIDE and y1 - y0 >= _LEAST_SIDE:
                found.append(box._replace(corners=(x0, y0, x1, y1)))
        if len(found) < len(boxes):
            self.notes += (f"{len(boxes) - len(found)} boxes of less than {_LEAST_SIDE} pixels a side were left out",)
        return found

    @staticmethod
    def _pixels(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """The corners as whole pixels within an image of this (W, H)."""
        limits = (*size, *size)
        corners = [min(max(value, 0.0), limit) for value, limit in zip(box.corners, limits, strict=True)]
        x0, y0 = (math.floor(value + _ROUNDING) for value in corners[:2])
        x1, y1 = (math.ceil(value - _ROUNDING) for value in corners[2:])
        return x0, y0, x1, y1

    def _sizes(self, images: set[int]) -> dict[int, tuple[int, int]]:
        """{image: (W, H)}, of those that can be read; the others are refused together, or where boxes in them may be
        left out, noted in `_bad`."""
        found, self._modes, self._bad = {}, {}, {}
        for i in sorted(images):
            where = str(self._files.paths[i])
            try:
                with self._files.open(i) as file, opened(file, where) as image:
                    _, self._modes[i] = self._form.header(image.size, image.mode, where)
                    found[i] = image.size
                    if self._thorough:
                        decode(image, where)
            except (UnreadableImage, NotThere) as e:
                self._bad[i] = e.message
        if self._bad and not self._thorough:
            raise refusal(self._bad, str(self.path))
        return found

    def _mode(self) -> str:
        modes = sorted(set(self._modes.values()))
        if len(modes) > 1:
            raise InputError(
                f"{self.path} holds images of the modes {' and '.join(modes)}: convert them to one", argument="convert"
            )
        return modes[0] if modes else "RGB"

    def file(self, index: int) -> Path:
        return self._files.paths[self._boxes[index].image]

    def describe(self, index: int) -> str:
        box = self._boxes[index]
        return f"{self._files.paths[box.image]}, box {','.join(f'{n:g}' for n in box.corners)}"

    def _read(self, indices: np.ndarray) -> np.ndarray:
        c, h, w = self.image_shape
        raw = np.empty((len(indices), h, w, c), np.uint8)
        of = np.array([self._boxes[i].image for i in indices.tolist()])
        for i in np.unique(of).tolist():  # each is decoded once for all of its boxes
            where = str(self._files.paths[i])
            with self._files.open(i) as file, opened(file, where) as image:
                self._form.header(image.size, image.mode, where)
                whole = decode(image, where)
                for row in np.flatnonzero(of == i).tolist():
                    raw[row] = self._crop(whole, self._boxes[int(indices[row])])
        return raw.transpose(0, 3, 1, 2)

    def _crop(self, image: Image.Image, box: Box) -> np.ndarray:
        x0, y0, x1, y1 = map(int, box.corners)
        return as_hwc(self._form.apply(image.crop((x0, y0, x1, y1))))


class CocoSet(BoxSet):
    """COCO's instances: `images` (id, file_name), `annotations` (image_id, category_id, bbox x, y, w, h), `categories`.

    Boxes of crowds are left out. Categories are numbered in the order of their ids. `keep` writes the JSON with the
    annotations that are kept; the images stay where they are.
    """

    def _annotations(self, path: Path) -> tuple[list[Box], list[str] | None]:
        with open_regular(path) as file:
            content = parse_json(read_text(file, path), path)
        self._content = content if isinstance(content, dict) else {}
        images, annotations, categories = (self._entries(path, key) for key in ("images", "annotations", "categories"))
        classes = {_number(c, "id", path): str(c.get("name", "")) for c in categories}
        order = {id_: label for label, id_ in enumerate(sorted(classes))}
        files = {_number(entry, "id", path): entry.get("file_name") for entry in images}
        known: dict[int, int] = {}
        boxes, crowds = [], 0
        for i, entry in enumerate(annotations):
            if entry.get("iscrowd"):
                crowds += 1
                continue
            image, label = _number(entry, "image_id", path), _number(entry, "category_id", path)
            if image not in files or label not in order:
                raise InputError(f"{path}: annotation {i} is of image {image} or category {label}, which is not listed")
            if image not in known:
                known[image] = self._add_file(files[image], f"{path}, image {image}")
            boxes.append(Box(known[image], order[label], _corners(entry.get("bbox"), f"{path}, annotation {i}"), i))
        if crowds:
            self.notes += (f"{crowds} boxes of crowds were left out",)
        return boxes, [classes[id_] for id_ in sorted(classes)]

    def _entries(self, path: Path, key: str) -> list[dict[str, Any]]:
        entries = self._content.get(key)
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise InputError(f"{path} is no COCO JSON: expected lists of images, annotations and categories")
        return entries

    def _add_file(self, name: Any, where: str) -> int:
        if not isinstance(name, str) or not name or "\0" in name:
            raise InputError(f"{where} names no file: {str(name)[:100]!r}")
        path = os.path.join(self._files.root, name)
        real = os.path.realpath(path)
        if self._files.lies_inside(real) and not os.path.isfile(real) and not self._thorough:
            raise InputError(f"{where} names {name[:100]!r}, which is no file in {self._files.root}")
        self._files.add(Path(path), real)
        return len(self._files) - 1

    def _write(self, mask: np.ndarray, part: Path) -> None:
        gone = {self._boxes[i].entry for i in np.flatnonzero(~mask).tolist()}
        annotations = [entry for i, entry in enumerate(self._content["annotations"]) if i not in gone]
        part.write_text(json.dumps({**self._content, "annotations": annotations}), encoding="utf-8")


class YoloSet(BoxSet):
    """YOLO's text files, one for each image: lines of class number, centre x, centre y, width and height, as parts of
    the image. Class names are read from classes.txt, if there is one. `keep` writes the folder of text files with the
    lines that are kept; the images stay where they are.
    """

    def _annotations(self, path: Path) -> tuple[list[Box], list[str] | None]:
        self._lines: list[tuple[str, list[str]]] = []  # (file, its lines), of each image
        boxes, entry = [], 0
        images = sorted(p for p in Path(self._files.root).rglob("*") if p.suffix.lower() in EXTENSIONS)
        missing = []
        for image in images:
            name = image.relative_to(self._files.root).with_suffix(".txt")
            if not (path / name).is_file():
                missing.append(image.name)
                continue
            self._files.add(image, os.path.realpath(image))
            with open_regular(path / name) as file:
                lines = [line for line in read_text(file, path / name).splitlines() if line.strip()]
            self._lines.append((str(name), lines))
            for number, line in enumerate(lines, 1):
                label, corners = _yolo_box(line, f"{path / name}, line {number}")
                boxes.append(Box(len(self._files) - 1, label, corners, entry))
                entry += 1
        if missing:
            self.notes += (listed(f"{len(missing)} images without a text file of boxes were left out", missing),)
        if not boxes:
            raise InputError(
                f"{path} holds no boxes for the images in {self._files.root}: as in {path}/NAME.txt for NAME.jpg"
            )
        return boxes, self._class_names(path)

    def _class_names(self, path: Path) -> list[str] | None:
        for folder in (path, path.parent):
            if (folder / "classes.txt").is_file():
                with open_regular(folder / "classes.txt") as file:
                    return [line.strip() for line in read_text(file, path).splitlines() if line.strip()]
        return None

    @staticmethod
    def _pixels(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
        (w, h), (x0, y0, x1, y1) = size, box.corners
        return BoxSet._pixels(box._replace(corners=(x0 * w, y0 * h, x1 * w, y1 * h)), size)

    def keeps_folder(self) -> bool:
        return True

    def _write(self, mask: np.ndarray, part: Path) -> None:
        gone = {self._boxes[i].entry for i in np.flatnonzero(~mask).tolist()}
        entry = 0
        for name, lines in self._lines:
            kept = [line for i, line in enumerate(lines, entry) if i not in gone]
            entry += len(lines)
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            (part / name).write_text("".join(line + "\n" for line in kept), encoding="utf-8")


def open_boxes(root: Path, options: Options) -> BoxSet:
    """boxes: a COCO JSON file or a folder of YOLO's text files, for the images in the folder `root`."""
    assert options.boxes is not None
    if not root.is_dir():
        raise InputError(f"boxes go with a folder of images, {root} is none", argument="boxes")
    if not options.boxes.exists():
        raise unreadable(options.boxes, FileNotFoundError(2, "no such file or folder"))
    return (YoloSet if options.boxes.is_dir() else CocoSet)(root, options)


def _number(entry: dict[str, Any], key: str, where: Path) -> int:
    value = entry.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise InputError(f"{where}: {key} must be a whole number, got {str(value)[:100]!r}")
    return value


def _corners(box: Any, where: str) -> tuple[float, float, float, float]:
    numbers = _finite(box if isinstance(box, list) else [])
    if len(numbers) != 4:
        raise InputError(f"{where}: bbox must be x, y, width and height, got {str(box)[:100]}")
    x, y, w, h = numbers
    return x, y, x + w, y + h


def _finite(values: Sequence[Any]) -> list[float]:
    """As floats; [] where one is no number, or far from any image."""
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        return []
    return numbers if all(abs(value) < 1e9 for value in numbers) else []


def _yolo_box(line: str, where: str) -> tuple[int, tuple[float, float, float, float]]:
    """(class, corners as parts of the image)"""
    cells = line.split()
    numbers = _finite(cells[1:5])
    whole = bool(cells) and cells[0].isascii() and cells[0].isdigit() and len(cells[0]) < 10
    if len(cells) not in (5, 6) or not whole or len(numbers) != 4:
        polygon = ": polygons of segmentation are not read" * (len(cells) > 6 and len(cells) % 2)
        raise InputError(f"{where}: expected class, x, y, width and height, got {line[:100]!r}{polygon}")
    x, y, w, h = numbers
    return int(cells[0]), (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
