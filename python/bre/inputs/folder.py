"""A folder of class folders of image files, as torchvision's ImageFolder reads it."""

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from .._files import atomic_path, link_or_copy
from ..errors import InputError
from .imageset import ImageSet

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
_FORMATS = (
    "PNG",
    "JPEG",
    "BMP",
    "WEBP",
    "PPM",
    "TIFF",
)  # the decoders that may run; all others stay out of reach
_MANY_FRAMES = ("PNG", "WEBP", "TIFF")
_SYSTEM_FILES = ("thumbs.db", "desktop.ini")


class FolderSet(ImageSet):
    """root/<class name>/**/<image>: classes are the folders in sorted order; images are decoded when read.

    All images must share one size and one mode (RGB or L); their headers are checked when the set is opened.
    Hidden files and Thumbs.db are skipped, every other file must be an image. Links to folders and links that
    leave the root are refused.
    """

    on_disk = True

    def __init__(self, root: Path):
        self._root = root
        names, self._files, labels = [], [], []
        for entry in _entries(root):
            if not entry.is_dir():
                raise InputError(
                    f"{entry.path} is a file beside the class folders; the root may hold folders only"
                )
            files = list(_images(entry, root.resolve()))
            if not files:
                raise InputError(f"class folder {entry.path} holds no images")
            labels += [len(names)] * len(files)
            self._files += files
            names.append(entry.name)
        if not names:
            raise InputError(f"{root} holds no class folders; expected {root}/<class name>/<image>")
        self._size, self._mode = _header(self._files[0])
        for file in self._files:
            self._check(file, *_header(file))
        (w, h), c = self._size, len(self._mode)
        super().__init__(np.array(labels, np.int64), (c, h, w), str(root), names)

    def describe(self, index: int) -> str:
        return str(self._files[index])

    def _check(self, file: Path, size: tuple[int, int], mode: str) -> None:
        if (size, mode) != (self._size, self._mode):
            (w, h), (w0, h0) = size, self._size
            raise InputError(
                f"{file} is {w}x{h} {mode}, {self._files[0]} is {w0}x{h0} {self._mode}; all images need one "
                "size and mode"
            )

    def _read(self, indices: np.ndarray) -> np.ndarray:
        c, h, w = self.image_shape
        raw = np.empty((len(indices), h, w, c), np.uint8)
        for row, i in enumerate(indices.tolist()):
            with _opened(self._files[i]) as image:
                self._check(self._files[i], image.size, image.mode)
                raw[row] = np.asarray(image).reshape(h, w, c)
        return raw.transpose(0, 3, 1, 2)

    def _keep(self, mask: np.ndarray, out: Path) -> Path:
        """A folder of the same structure; files are hard-linked where possible, copied elsewhere."""
        gone = sorted(set(self.labels.tolist()) - set(self.labels[mask].tolist()))
        if gone:
            raise InputError(
                f"every image of class {self.class_names[gone[0]]!r} would go, and without its folder the "
                "classes after it would be renumbered; remove that class by hand"
            )
        with atomic_path(out, directory=True) as part:
            for i in np.flatnonzero(mask):
                target = part / self._files[i].relative_to(self._root)
                target.parent.mkdir(parents=True, exist_ok=True)
                link_or_copy(self._files[i].resolve(), target)
        return out


def _entries(folder: str | Path) -> list[os.DirEntry]:
    """What a folder holds, sorted by name, hidden and system files left out; links to folders are refused."""
    with os.scandir(folder) as found:
        entries = [e for e in found if not e.name.startswith(".") and e.name.lower() not in _SYSTEM_FILES]
    for entry in entries:
        if entry.is_symlink() and entry.is_dir():
            raise InputError(f"{entry.path} is a link to a folder; bre does not follow those")
    return sorted(entries, key=lambda e: e.name)


def _images(folder: os.DirEntry, root: Path) -> Iterator[Path]:
    for entry in _entries(folder.path):
        path = Path(entry.path)
        if entry.is_dir():
            yield from _images(entry, root)
            continue
        if path.suffix.lower() not in EXTENSIONS:
            raise InputError(f"{path} is no image file; known extensions are {', '.join(EXTENSIONS)}")
        if not entry.is_file():
            raise InputError(f"{path} is not a regular file, or a link that leads nowhere")
        if entry.is_symlink() and not path.resolve().is_relative_to(root):
            raise InputError(f"{path} is a link that leaves the dataset's folder, to {path.resolve()}")
        yield path


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Image.open with every way a file can be bad turned into InputError, decoding included."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                yield image
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as e:
        raise InputError(f"{path} is too large to decode (a decompression bomb?): {e}") from e
    except (OSError, SyntaxError, ValueError, EOFError) as e:
        raise InputError(f"{path} is damaged or truncated, or no image: {e}") from e


def _header(path: Path) -> tuple[tuple[int, int], str]:
    """((W, H), mode) without decoding pixels; the mode is RGB or L."""
    with _opened(path) as image:
        if image.mode not in ("RGB", "L"):
            raise InputError(
                f"{path} has mode {image.mode}; images must be 8-bit RGB or L (grey), convert them"
            )
        if image.format in _MANY_FRAMES and getattr(image, "n_frames", 1) > 1:
            raise InputError(f"{path} holds {image.n_frames} frames; one image per file is needed")
        return image.size, image.mode
