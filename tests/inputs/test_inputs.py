"""Every dataset format: a real one made here, read back, and kept in part."""

import os
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from bre.inputs import ImageSet, open_dataset
from bre.inputs.datasets.regular_files import FileRows

M, H, W = 12, 5, 7
LABELS = np.arange(M) % 3
MASK = np.array([True, True, False] * 4)  # class 2 goes


@pytest.fixture
def images():
    """(M, H, W, 3) uint8."""
    return np.random.default_rng(0).integers(0, 256, (M, H, W, 3), dtype=np.uint8)


def read_all(dataset):
    return dataset.read(np.arange(len(dataset)))


def nchw(images):
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


# ---- arrays


@pytest.mark.parametrize("as_type", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "NHW"])
def test_arrays_of_any_layout_read_as_nchw_bytes(images, as_type, layout):
    given = {"NHWC": images, "NCHW": nchw(images), "NHW": images[..., 0].copy()}[layout]
    expected = images[..., 0][:, None] if layout == "NHW" else nchw(images)
    dataset = open_dataset((as_type(given), as_type(LABELS)))
    assert isinstance(dataset, ImageSet)
    assert dataset.image_shape == expected.shape[1:]
    assert dataset.labels.dtype == np.int64
    assert dataset.labels.tolist() == LABELS.tolist()
    assert dataset.class_names == ("0", "1", "2")
    block = dataset.read(np.array([4, 0, 4]))
    assert block.dtype == np.uint8
    assert block.flags.c_contiguous
    np.testing.assert_array_equal(block, expected[[4, 0, 4]])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_pixels_round_to_the_nearest_grey_level(images, dtype):
    dataset = open_dataset(((images / 255).astype(dtype), LABELS))
    np.testing.assert_array_equal(read_all(dataset), nchw(images))
    half = np.full((2, 4, 4), 0.5 / 255 + 1e-4, dtype)
    assert (read_all(open_dataset((half, [0, 1]))) == 1).all()


def test_what_interpolation_leaves_beyond_the_limits_is_rounded_too():
    floats = np.float32([-3e-6, 0.5, 1.0000001, 1.00005]).repeat(4).reshape(4, 2, 2)
    assert read_all(open_dataset((floats, [0, 1, 0, 1])))[:, 0, 0, 0].tolist() == [0, 128, 255, 255]


def test_class_names_of_torch_datasets(images):
    data = torch.utils.data.TensorDataset(torch.from_numpy(nchw(images)), torch.from_numpy(LABELS))
    assert open_dataset(data).class_names == ("0", "1", "2")
    data.classes = ["ant", "bee", "cat", "dog"]
    assert open_dataset(data).class_names == ("ant", "bee", "cat")
    assert open_dataset(torch.utils.data.Subset(data, range(5))).class_names == ("ant", "bee", "cat")
    data.classes = ["ant"]
    assert open_dataset(data).class_names == ("0", "1", "2")


def test_bfloat16_tensors_are_read():
    dataset = open_dataset((torch.tensor([0.0, 1.0], dtype=torch.bfloat16).view(2, 1, 1).expand(2, 4, 4), [0, 1]))
    assert read_all(dataset)[:, 0, 0, 0].tolist() == [0, 255]


def test_layout_settles_an_ambiguous_shape():
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 3, 3), dtype=np.uint8)
    np.testing.assert_array_equal(read_all(open_dataset((images, [0, 1, 0, 1]), layout="NCHW")), images)
    np.testing.assert_array_equal(
        read_all(open_dataset((images, [0, 1, 0, 1]), layout="NHWC")), images.transpose(0, 3, 1, 2)
    )


def test_blocks_stream_the_set_in_order(images):
    dataset = open_dataset((images, LABELS))
    blocks = list(dataset.blocks(5))
    assert [start for start, _ in blocks] == [0, 5, 10]
    np.testing.assert_array_equal(np.concatenate([b for _, b in blocks]), nchw(images))


def test_reading_nothing_gives_an_empty_block(images):
    assert open_dataset((images, LABELS)).read(np.array([], np.int64)).shape == (0, 3, H, W)


def test_labels_may_skip_classes_and_class_names_do_not(images):
    assert open_dataset((images, LABELS * 2)).class_names == ("0", "1", "2", "3", "4")


def test_contiguous_images_are_not_copied(images):
    assert np.shares_memory(open_dataset((images, LABELS))._images, images)


def test_arrays_keep_their_own_types(images):
    kept_images, kept_labels = open_dataset((torch.from_numpy(images), LABELS.tolist())).keep(MASK)
    assert isinstance(kept_images, torch.Tensor)
    assert kept_labels == [0, 1] * 4
    np.testing.assert_array_equal(kept_images.numpy(), images[MASK])
    assert len(open_dataset((kept_images, kept_labels))) == 8


def test_fingerprint_tells_labels_counts_and_shapes_apart(images):
    sets = [
        (images, LABELS),
        (images, LABELS[::-1]),
        (images[:-1], LABELS[:-1]),
        (images[:, :, :-1], LABELS),
    ]
    none = np.empty(0, np.int64)
    prints = [open_dataset(s).fingerprint(none) for s in sets]
    assert len(set(prints)) == 4
    assert prints[0] == open_dataset((torch.from_numpy(nchw(images)), LABELS.astype(np.uint8))).fingerprint(none)
    assert len(prints[0]) == 64


def test_fingerprint_tells_apart_what_stands_at_some_places(images):
    swapped = images.copy()
    swapped[[1, 3]] = images[[3, 1]]
    before, after = open_dataset((images, LABELS)), open_dataset((swapped, LABELS))
    for places, same in (([], True), ([0, 2], True), ([0, 3], False)):
        places = np.array(places, np.int64)
        assert (before.fingerprint(places) == after.fingerprint(places)) is same


def test_an_image_set_passes_through_and_has_a_readable_repr(images):
    dataset = open_dataset((images, LABELS))
    assert open_dataset(dataset) is dataset
    assert repr(dataset) == "<ArraySet arrays: 12 images of 3x5x7, 3 classes>"
    assert dataset.describe(3) == "image 3"


# ---- torch datasets


class Items(torch.utils.data.Dataset):
    def __init__(self, images, labels):
        self.images, self.labels = images, labels

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i], self.labels[i]


@pytest.mark.parametrize("kind", ["tensor", "float tensor", "pil", "numpy"])
@pytest.mark.parametrize("label", [int, torch.tensor, np.int32], ids=["int", "tensor", "numpy"])
def test_torch_dataset_items_of_any_kind(images, kind, label):
    chw = torch.from_numpy(nchw(images))
    items = {
        "tensor": list(chw),
        "float tensor": list(chw.float() / 255),
        "pil": [Image.fromarray(x) for x in images],
        "numpy": list(images),
    }[kind]
    dataset = open_dataset(Items(items, [label(k) for k in LABELS.tolist()]))
    np.testing.assert_array_equal(read_all(dataset), nchw(images))
    assert dataset.labels.tolist() == LABELS.tolist()
    subset = dataset.keep(MASK)
    assert isinstance(subset, torch.utils.data.Subset)
    np.testing.assert_array_equal(read_all(open_dataset(subset)), nchw(images)[MASK])


def test_tensor_dataset_and_list_of_pairs(images):
    chw = torch.from_numpy(nchw(images))
    for data in (
        torch.utils.data.TensorDataset(chw, torch.from_numpy(LABELS)),
        list(zip(chw, LABELS.tolist(), strict=True)),
    ):
        np.testing.assert_array_equal(read_all(open_dataset(data)), nchw(images))


def test_grey_pil_images_have_one_channel(images):
    grey = [Image.fromarray(x[..., 0]) for x in images]
    dataset = open_dataset(Items(grey, LABELS.tolist()))
    assert dataset.image_shape == (1, H, W)


# ---- folder


@pytest.fixture
def folder(tmp_path, images):
    root = tmp_path / "set"
    for k, name in enumerate(["ant", "bee", "cat"]):
        (root / name / "deep").mkdir(parents=True)
        for j, i in enumerate(np.flatnonzero(k == LABELS)):
            Image.fromarray(images[i]).save(root / name / ("deep" if j == 3 else ".") / f"{i:02}.png")
    (root / ".DS_Store").write_bytes(b"x")
    (root / "ant" / "Thumbs.db").write_bytes(b"x")
    return root


def test_folder_reads_as_image_folder_would(folder, images):
    dataset = open_dataset(folder)
    assert dataset.class_names == ("ant", "bee", "cat")
    assert dataset.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    order = np.argsort(LABELS, kind="stable")
    np.testing.assert_array_equal(read_all(dataset), nchw(images[order]))
    assert dataset.describe(4) == str(folder / "bee" / "01.png")
    assert dataset.source == str(folder)


@pytest.mark.parametrize("extension", ["png", "bmp", "webp", "ppm", "tiff", "JPG"])
def test_folder_formats(tmp_path, extension):
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        options = {"lossless": True} if extension == "webp" else {}
        Image.new("RGB", (6, 4), (10, 10, 10)).save(tmp_path / "set" / name / f"0.{extension}", **options)
    block = read_all(open_dataset(str(tmp_path / "set")))
    assert block.shape == (2, 3, 4, 6)
    assert (block == 10).all()


def test_grey_folder(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("L", (6, 4), 9).save(tmp_path / name / "0.png")
    assert open_dataset(tmp_path).image_shape == (1, 4, 6)


def test_folder_keeps_links_of_the_same_files(folder, tmp_path, images):
    dataset = open_dataset(folder)
    mask = np.arange(M) % 4 != 1
    out = dataset.keep(mask, tmp_path / "kept")
    again = open_dataset(out)
    assert again.class_names == dataset.class_names
    np.testing.assert_array_equal(read_all(again), read_all(dataset)[mask])
    assert (out / "ant" / "deep" / "09.png").stat().st_ino == (folder / "ant" / "deep" / "09.png").stat().st_ino
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kept", "set"]


def test_folder_keeps_copies_where_links_are_impossible(folder, tmp_path, monkeypatch):
    def no_link(*_args, **_kwargs):
        raise OSError("cross-device link")

    monkeypatch.setattr(os, "link", no_link)
    dataset = open_dataset(folder)
    out = dataset.keep(np.ones(M, bool), tmp_path / "kept")
    np.testing.assert_array_equal(read_all(open_dataset(out)), read_all(dataset))


def test_links_inside_the_folder_are_followed(folder):
    (folder / "ant" / "alias.png").symlink_to(folder / "bee" / "01.png")
    assert len(open_dataset(folder)) == M + 1


# ---- npz


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npz_reads_and_keeps(tmp_path, images, save, order):
    save(
        tmp_path / "set.npz",
        images=np.asarray(images, order=order),
        labels=LABELS.astype(np.int16),
        other=[1],
    )
    dataset = open_dataset(tmp_path / "set.npz")
    assert dataset.source == "set.npz"
    in_place = save is np.savez and order == "C"
    assert isinstance(dataset._images, FileRows) == in_place, "or it is held in memory"
    np.testing.assert_array_equal(read_all(dataset), nchw(images))
    out = dataset.keep(MASK, tmp_path / "kept.npz")
    with np.load(out) as z:
        assert sorted(z) == ["images", "labels", "other"]
        np.testing.assert_array_equal(z["images"], images[MASK])
        assert z["labels"].dtype == np.int16
    np.testing.assert_array_equal(read_all(open_dataset(out)), nchw(images)[MASK])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kept.npz", "set.npz"]


def test_npz_of_floats_keeps_floats(tmp_path, images):
    np.savez(tmp_path / "set.npz", images=(images / 255).astype(np.float32), labels=LABELS)
    dataset = open_dataset(tmp_path / "set.npz")
    np.testing.assert_array_equal(read_all(dataset), nchw(images))
    with np.load(dataset.keep(MASK, tmp_path / "kept.npz")) as z:
        assert z["images"].dtype == np.float32


def test_what_keep_writes_is_the_same_every_time(tmp_path, images):
    np.savez_compressed(tmp_path / "set.npz", images=images, labels=LABELS)
    dataset = open_dataset(tmp_path / "set.npz")
    a, b = (dataset.keep(MASK, tmp_path / name).read_bytes() for name in ("a.npz", "b.npz"))
    assert a == b


# ---- CIFAR-10's own folders


@pytest.fixture
def cifar_rows():
    return np.random.default_rng(0).integers(0, 256, (20, 3072), dtype=np.uint8), np.arange(20) % 10


NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture
def binary_batches(tmp_path, cifar_rows):
    rows, labels = cifar_rows
    root = tmp_path / "cifar-10-batches-bin"
    root.mkdir()
    table = np.concatenate([labels[:, None].astype(np.uint8), rows], 1)
    table[:12].tofile(root / "data_batch_1.bin")
    table[12:].tofile(root / "data_batch_2.bin")
    table[:3].tofile(root / "test_batch.bin")
    (root / "batches.meta.txt").write_text("\n".join(NAMES) + "\n")
    return root


@pytest.fixture
def python_batches(tmp_path, cifar_rows):
    rows, labels = cifar_rows
    root = tmp_path / "cifar-10-batches-py"
    root.mkdir()
    for k, part in enumerate([slice(0, 12), slice(12, 20)], 1):
        batch = {b"data": rows[part], b"labels": labels[part].tolist(), b"batch_label": b"part"}
        batch[b"filenames"] = [f"{i}.png".encode() for i in range(20)[part]]
        (root / f"data_batch_{k}").write_bytes(pickle.dumps(batch, 2))
    (root / "batches.meta").write_bytes(pickle.dumps({"label_names": NAMES}, 2))
    return root


@pytest.mark.parametrize("kind", ["binary", "python"])
def test_cifar_batches_read_and_keep(kind, request, tmp_path, cifar_rows):
    rows, labels = cifar_rows
    root = request.getfixturevalue(f"{kind}_batches")
    dataset = open_dataset(root, unsafe=kind == "python")
    assert dataset.class_names == tuple(NAMES)
    assert dataset.labels.tolist() == labels.tolist()
    shuffled = np.random.default_rng(1).permutation(20)
    np.testing.assert_array_equal(dataset.read(shuffled), rows.reshape(20, 3, 32, 32)[shuffled])
    assert dataset.describe(13).endswith(("data_batch_2.bin, row 1", "data_batch_2, row 1"))
    mask = labels != 4
    out = dataset.keep(mask, tmp_path / "kept")
    again = open_dataset(out, unsafe=kind == "python")
    assert type(again) is type(dataset)
    assert again.class_names == dataset.class_names
    np.testing.assert_array_equal(read_all(again), read_all(dataset)[mask])
    np.testing.assert_array_equal(again.labels, labels[mask])
    test = ["test_batch"] if kind == "binary" else []  # copied where there is one
    assert sorted(p.name.split(".")[0] for p in out.iterdir()) == ["batches", "data_batch_1", "data_batch_2", *test]


def test_python_batches_keep_their_file_names(python_batches, tmp_path):
    mask = np.arange(20) % 2 == 0
    out = open_dataset(python_batches, unsafe=True).keep(mask, tmp_path / "kept")
    batch = pickle.loads((out / "data_batch_2").read_bytes(), encoding="bytes")
    assert batch[b"filenames"] == [b"12.png", b"14.png", b"16.png", b"18.png"]
    assert batch[b"batch_label"] == b"part"


# ---- writing whole or not at all


def test_an_interrupted_keep_leaves_nothing_behind(folder, tmp_path, monkeypatch):
    calls = []

    def interrupt(source, target, **_options):
        calls.append(source)
        if len(calls) == 3:
            raise KeyboardInterrupt
        Image.open(source).save(target)

    monkeypatch.setattr(os, "link", interrupt)
    with pytest.raises(KeyboardInterrupt):
        open_dataset(folder).keep(np.ones(M, bool), tmp_path / "kept")
    assert [p.name for p in tmp_path.iterdir()] == ["set"]
