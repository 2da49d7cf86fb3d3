"""Images brought to one size and mode, when told to and not otherwise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from real_files import IMAGES, LABELS, MASK, ORDER, H, M, W, nchw, refused

from bre.errors import InputError
from bre.inputs import open_dataset


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"resize": 32}, r"\(height, width\).*got 32"),
        ({"resize": (32,)}, r"\(height, width\)"),
        ({"resize": (0, 4)}, "from 1 to"),
        ({"resize": (True, 4)}, "two integers"),
        ({"resize": (4.0, 4)}, "two integers"),
        ({"resize": (10**6, 4)}, "from 1 to"),
        ({"resize": "44"}, r"\(height, width\)"),
        ({"convert": "RGBA"}, "convert must be"),
        ({"columns": "ab"}, "columns must be two names"),
        ({"columns": ("a",)}, "columns must be two names"),
        ({"columns": ("a", "b")}, "for CSV, .*; arrays has no use for it .argument columns"),
    ],
)
def test_options(options, match):
    with refused(match):
        open_dataset((IMAGES, LABELS), **options)


@pytest.mark.parametrize("given", ["arrays", "npz", "torch", "torch float", "pil"])
def test_resize_and_convert_of_sets_of_one_shape(given, tmp_path):
    data = {
        "arrays": lambda: (nchw(IMAGES), LABELS),
        "npz": lambda: (np.savez(tmp_path / "set.npz", images=IMAGES, labels=LABELS), tmp_path / "set.npz")[1],
        "torch": lambda: torch.utils.data.TensorDataset(torch.from_numpy(nchw(IMAGES)), torch.from_numpy(LABELS)),
        "torch float": lambda: [(x / 255, int(k)) for x, k in zip(IMAGES, LABELS, strict=True)],
        "pil": lambda: [(Image.fromarray(x), int(k)) for x, k in zip(IMAGES, LABELS, strict=True)],
    }[given]()
    dataset = open_dataset(data, resize=(3, 4), convert="L")
    expected = [np.asarray(Image.fromarray(x).convert("L").resize((4, 3), Image.Resampling.BILINEAR)) for x in IMAGES]
    np.testing.assert_array_equal(dataset.read(ORDER)[:, 0], np.stack(expected)[ORDER])
    kept = dataset.keep(MASK, tmp_path / "kept.npz" if given == "npz" else None)
    assert open_dataset(kept).image_shape == (3, H, W), "what is kept is the original"
    with refused("open already"):
        open_dataset(dataset, resize=(2, 2))


def test_torch_items_of_mixed_sizes():
    items = [(torch.zeros(3, 4 + i, 5, dtype=torch.uint8), i % 2) for i in range(4)]
    with refused("arguments resize, crop, pad, convert"):
        open_dataset(items)
    assert open_dataset(items, resize=(4, 4)).image_shape == (3, 4, 4)


def test_other_channels_are_not_resized():
    with refused("images of 5 channels"):
        open_dataset((np.zeros((4, 5, 6, 6), np.uint8), [0, 1, 0, 1]), layout="NCHW", resize=(3, 3))


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("1", 1, (255, 255, 255)),
        ("L", 7, (7, 7, 7)),
        ("LA", (7, 0), (7, 7, 7)),
        ("RGBA", (1, 2, 3, 0), (1, 2, 3)),
        ("CMYK", (0, 0, 0, 0), (255, 255, 255)),
    ],
)
def test_modes_that_convert(tmp_path, mode, color, expected):
    for name in "ab":
        (tmp_path / "set" / name).mkdir(parents=True)
        Image.new(mode, (3, 2), color).save(tmp_path / "set" / name / ("x.tiff" if mode == "CMYK" else "x.png"))
    with refused("argument convert" if mode != "L" else "no such class"):
        open_dataset(tmp_path / "set")
        raise InputError("no such class")
    assert open_dataset(tmp_path / "set", convert="RGB").read(np.array([0]))[0, :, 0, 0].tolist() == list(expected)


def test_palettes_with_transparency_convert_to_their_colours(tmp_path):
    for name in "ab":
        (tmp_path / "set" / name).mkdir(parents=True)
        image = Image.new("P", (3, 2), 1)
        image.putpalette([0, 0, 0, 10, 20, 30])
        image.save(tmp_path / "set" / name / "x.png", transparency=b"\xff\x00")
    assert open_dataset(tmp_path / "set", convert="RGB").read(np.array([1]))[0, :, 0, 0].tolist() == [10, 20, 30]


@pytest.mark.parametrize("convert", [None, "L"])
def test_more_than_eight_bits_do_not_convert(tmp_path, convert):
    for name in "ab":
        (tmp_path / "set" / name).mkdir(parents=True)
        Image.new("I;16", (3, 2)).save(tmp_path / "set" / name / "x.png")
    with refused("of more than 8 bits a channel: save it with 8 bits first"):
        open_dataset(tmp_path / "set", convert=convert)


def test_a_data_loader_is_read_through_its_dataset():
    data = torch.utils.data.TensorDataset(torch.from_numpy(nchw(IMAGES)), torch.from_numpy(LABELS))
    dataset = open_dataset(torch.utils.data.DataLoader(data, batch_size=5, shuffle=True))
    np.testing.assert_array_equal(dataset.read(np.arange(M)), nchw(IMAGES))
    assert dataset.keep(MASK).dataset is data


# ---- what is lost


@pytest.mark.parametrize("given", ["arrays", "torch", "pil", "folder"])
def test_a_form_that_loses_most_of_an_image_is_noted(given, tmp_path):
    images = np.zeros((4, 12, 20, 3), np.uint8)
    for i, image in enumerate(images):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "ab"[i % 2] / f"{i}.png")
    data = {
        "arrays": (images, [0, 1, 0, 1]),
        "torch": [(torch.from_numpy(nchw(images[i : i + 1])[0]), i % 2) for i in range(4)],
        "pil": [(Image.fromarray(x), i % 2) for i, x in enumerate(images)],
        "folder": tmp_path,
    }[given]
    (note,) = open_dataset(data, resize=(4, 4)).notes
    assert note.startswith("images of up to 20x12 pixels were resized to 4x4, which keeps 6.7% of their pixels")
    (note,) = open_dataset(data, crop=(2, 2)).notes
    assert note.startswith("images of up to 20x12 pixels were cropped to 2x2, which keeps 1.7% of their pixels")
    assert open_dataset(data, resize=(12, 10)).notes == ()
    assert open_dataset(data, resize=(24, 40)).notes == ()
    assert open_dataset(data).notes == ()
