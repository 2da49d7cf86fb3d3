"""Arrays in files: names of a .npz, .npy pairs, idx, .mat, CIFAR-100; and labels and pixels as people keep them."""

from __future__ import annotations

import gzip
import io
import pickle
import struct

import numpy as np
import pytest
import scipy.io
import torch
import torchvision_ops
from PIL import Image
from real_files import IMAGES, LABELS, MASK, M, nchw, refused

from bre.inputs import open_dataset


def read_all(dataset):
    return dataset.read(np.arange(len(dataset)))


# ---- labels and pixels


ONE_HOT = np.eye(3)[LABELS]


@pytest.mark.parametrize(
    "labels",
    [LABELS[:, None], LABELS[:, None, None], torch.from_numpy(LABELS[:, None]), [[int(k)] for k in LABELS],
     ONE_HOT, ONE_HOT.astype(np.float32), ONE_HOT.astype(np.uint8), ONE_HOT.astype(bool), torch.from_numpy(ONE_HOT)],
    ids=lambda x: f"{type(x).__name__} {getattr(x, 'dtype', '')}",
)  # fmt: skip
def test_labels_in_columns_and_one_hot(labels):
    dataset = open_dataset((IMAGES, labels))
    assert dataset.labels.tolist() == LABELS.tolist()
    _, kept = dataset.keep(MASK)
    assert open_dataset((IMAGES[MASK], kept)).labels.tolist() == LABELS[MASK].tolist()


@pytest.mark.parametrize("rows", [ONE_HOT * 0.9, ONE_HOT + ONE_HOT[::-1], ONE_HOT * 0, ONE_HOT * 2])
def test_rows_that_are_not_one_hot(rows):
    with refused(r"one-hot rows of zeros and a single 1.*argmax\(1\)"):
        open_dataset((IMAGES, rows))


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int64, np.uint16, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("tensor", [False, True])
def test_grey_levels_of_any_type(dtype, tensor):
    images = IMAGES if dtype != np.int8 else IMAGES // 2
    given = images.astype(dtype)
    dataset = open_dataset((torch.from_numpy(given) if tensor else given, LABELS))
    np.testing.assert_array_equal(read_all(dataset), nchw(images))
    assert any("were read as grey levels" in note for note in dataset.notes) == (np.dtype(dtype).kind == "f")
    items = open_dataset(list(zip(given, LABELS.tolist(), strict=True)))
    np.testing.assert_array_equal(read_all(items), nchw(images))


def test_dark_images_of_a_set_of_grey_levels_stay_dark():
    images = IMAGES.astype(np.float32)
    images[2000 % M] = 1.0
    assert (open_dataset((images, LABELS)).read(np.array([2000 % M])) == 1).all()


def test_the_scale_of_a_set_is_of_all_its_images():
    images = np.zeros((3000, 2, 2), np.float32)
    images[0] = 128.0
    images[2500] = 0.5
    with refused("images 2048 to 2999: float pixels must lie in"):
        open_dataset((images, np.arange(3000) % 2))


def test_alpha_is_dropped_when_told():
    images = np.concatenate([IMAGES, np.full((*IMAGES.shape[:3], 1), 7, np.uint8)], axis=3)
    with refused("4 channels .RGBA.*argument convert"):
        open_dataset((images, LABELS))
    np.testing.assert_array_equal(read_all(open_dataset((images, LABELS), convert="RGB")), nchw(IMAGES))


# ---- items


def test_items_of_more_parts_and_labels_of_one_element():
    items = [(image, np.array([label]), i, 0) for i, (image, label) in enumerate(zip(IMAGES, LABELS, strict=True))]
    dataset = open_dataset(items)
    assert dataset.labels.tolist() == LABELS.tolist()
    assert dataset.notes == ("items have 4 parts: the first was taken as the image, the second as the label",)
    other = open_dataset([(i, image, 0, label) for image, label, i, _ in items], columns=("1", "3"))
    np.testing.assert_array_equal(read_all(other), nchw(IMAGES))
    assert other.notes == ()
    with refused("has 4 parts: .*argument columns"):
        open_dataset(items, columns=("1", "4"))


def test_items_that_are_dicts():
    items = [{"pixel_values": x, "labels": torch.tensor(int(k))} for x, k in zip(IMAGES, LABELS, strict=True)]
    assert open_dataset(items).labels.tolist() == LABELS.tolist()
    items = [{"a": x, "b": int(k)} for x, k in zip(IMAGES, LABELS, strict=True)]
    with refused("item 0: expected one image column .*argument columns"):
        open_dataset(items)
    np.testing.assert_array_equal(read_all(open_dataset(items, columns=("a", "b"))), nchw(IMAGES))


# ---- npz by other names


@pytest.mark.parametrize(
    "names",
    [("x_train", "y_train"), ("X", "y"), ("X_train", "Y_train"), ("arr_0", "arr_1"), ("data", "targets")],
)
def test_npz_by_usual_names(names, tmp_path):
    np.savez(tmp_path / "set.npz", **dict(zip(names, (IMAGES, LABELS), strict=True)), ids=np.arange(M))
    dataset = open_dataset(tmp_path / "set.npz")
    out = dataset.keep(MASK, tmp_path / "kept.npz")
    with np.load(out) as z:
        assert z["ids"].tolist() == np.flatnonzero(MASK).tolist()
        np.testing.assert_array_equal(z[names[0]], IMAGES[MASK])


def test_npz_by_names_that_were_said(tmp_path):
    np.savez(tmp_path / "set.npz", a=IMAGES, b=LABELS, images=IMAGES[:3])
    with refused("has no array 'labels'.*argument columns"):
        open_dataset(tmp_path / "set.npz")
    assert len(open_dataset(tmp_path / "set.npz", columns=("a", "b"))) == M
    with refused("has no array 'c'"):
        open_dataset(tmp_path / "set.npz", columns=("a", "c"))
    np.savez(tmp_path / "two.npz", X=IMAGES, y=LABELS, x_train=IMAGES, y_train=LABELS)
    with refused("could mean .*argument columns"):
        open_dataset(tmp_path / "two.npz")


def test_other_splits_are_named_and_kept_whole(tmp_path):
    """Though they have as many rows as the one that was read."""
    arrays = {f"{split}_images": IMAGES for split in ("train", "val", "test")}
    np.savez(tmp_path / "set.npz", **arrays, **{f"{s}_labels": LABELS[:, None] for s in ("train", "val", "test")})
    dataset = open_dataset(tmp_path / "set.npz")
    assert "train_images and train_labels were read, the other arrays were not: " in dataset.notes[0]
    with np.load(dataset.keep(MASK, tmp_path / "kept.npz")) as z:
        assert {name: len(z[name]) for name in z} == {
            **dict.fromkeys(z, M),
            "train_images": MASK.sum(),
            "train_labels": MASK.sum(),
        }


# ---- npy


def test_a_file_of_images_with_its_labels_beside_it(tmp_path):
    np.save(tmp_path / "my_images.npy", IMAGES)
    with refused("has no labels: put them beside it"):
        open_dataset(tmp_path / "my_images.npy")
    np.save(tmp_path / "my_labels.npy", LABELS)
    dataset = open_dataset(tmp_path / "my_images.npy")
    np.testing.assert_array_equal(read_all(dataset), nchw(IMAGES))
    out = dataset.keep(MASK, tmp_path / "kept")
    np.testing.assert_array_equal(np.load(out / "my_images.npy"), IMAGES[MASK])
    assert len(open_dataset(out / "my_images.npy")) == MASK.sum()
    assert len(open_dataset(tmp_path, columns=("my_images.npy", "my_labels.npy"))) == M


def test_npy_of_pickles_fortran_order_and_other_lengths(tmp_path):
    np.save(tmp_path / "labels.npy", LABELS)
    np.save(tmp_path / "images.npy", np.asfortranarray(IMAGES))
    np.testing.assert_array_equal(read_all(open_dataset(tmp_path)), nchw(IMAGES))
    np.save(tmp_path / "images.npy", IMAGES[:5])
    with refused("5 images but 12 labels"):
        open_dataset(tmp_path)
    np.save(tmp_path / "images.npy", np.array([{}] * M), allow_pickle=True)
    with refused(r"images\.npy is an object array.*pickle"):
        open_dataset(tmp_path)


# ---- idx


def idx(array):
    return struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def mnist(tmp_path):
    """As torchvision leaves it: packed and unpacked, the test set beside the training set."""
    root = tmp_path / "MNIST" / "raw"
    root.mkdir(parents=True)
    for split, images, labels in (("train", IMAGES[..., 0], LABELS), ("t10k", IMAGES[:4, ..., 0], LABELS[:4])):
        for what, array in (("images-idx3", images), ("labels-idx1", labels.astype(np.uint8))):
            data = idx(np.ascontiguousarray(array))
            (root / f"{split}-{what}-ubyte").write_bytes(data)
            (root / f"{split}-{what}-ubyte.gz").write_bytes(gzip.compress(data))
    return root


def test_idx_is_read_as_torchvision_reads_it(mnist, tmp_path):
    torchvision_ops.declare()
    mnist_of_torchvision = pytest.importorskip("torchvision.datasets.mnist")
    dataset = open_dataset(mnist)
    assert dataset.image_shape == (1, *IMAGES.shape[1:3])
    for at in (mnist, dataset.keep(MASK, tmp_path / "kept")):
        expected = mnist_of_torchvision.read_image_file(str(at / "train-images-idx3-ubyte")).numpy()
        labels = mnist_of_torchvision.read_label_file(str(at / "train-labels-idx1-ubyte")).tolist()
        np.testing.assert_array_equal(read_all(open_dataset(at))[:, 0], expected)
        assert open_dataset(at).labels.tolist() == labels
    assert len(open_dataset(mnist / "t10k-images-idx3-ubyte.gz")) == 4
    for above in (mnist.parent, mnist.parent.parent):
        assert open_dataset(above).labels.tolist() == LABELS.tolist()


def test_packed_idx_is_kept_packed(mnist, tmp_path):
    for file in mnist.glob("*ubyte"):
        file.unlink()
    out = open_dataset(mnist).keep(MASK, tmp_path / "kept")
    assert sorted(p.name for p in out.iterdir()) == ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"]
    assert len(open_dataset(out)) == MASK.sum()


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "no idx file of bytes"),
        (b"\0\0\x0d\x03" + bytes(12), "no idx file of bytes"),
        (b"\0\0\x08\x03\0\0", "truncated"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "declares an array"),
        (idx(IMAGES[..., 0])[:-1], "it holds 435"),
        (idx(IMAGES[:5, ..., 0].copy()), "5 images but 12 labels"),
    ],
)
def test_idx_files_of_other_things(mnist, data, match):
    for file in mnist.glob("*.gz"):
        file.unlink()
    (mnist / "train-images-idx3-ubyte").write_bytes(data)
    with refused(match):
        open_dataset(mnist)


def test_idx_files_that_unpack_to_something_else(mnist, monkeypatch):
    path, data = mnist / "train-images-idx3-ubyte.gz", idx(IMAGES[..., 0])
    for content, match in (
        (gzip.compress(data + b"x"), "holds more than"),
        (gzip.compress(data)[:-20], "damaged or truncated"),
        (gzip.compress(data[:-5]), "truncated"),
        (data, "not packed by gzip"),
    ):
        path.write_bytes(content)
        with refused(match):
            open_dataset(path)
    monkeypatch.setattr("bre.inputs.datasets.npy.MAX_UNPACKED", 100)
    path.write_bytes(gzip.compress(data))
    with refused("would unpack to 420 bytes"):
        open_dataset(path)


def test_labels_alone(mnist):
    with refused("holds labels: name the file of images"):
        open_dataset(mnist / "train-labels-idx1-ubyte")
    (mnist / "t10k-labels-idx1-ubyte").unlink()
    with refused("has no file of labels beside it"):
        open_dataset(mnist / "t10k-images-idx3-ubyte")


# ---- mat


def test_svhn_counts_its_digits_from_one(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 20), dtype=np.uint8)
    labels = np.arange(20)[:, None] % 10 + 1
    scipy.io.savemat(tmp_path / "train_32x32.mat", {"X": images, "y": labels.astype(float)}, do_compression=True)
    dataset = open_dataset(tmp_path / "train_32x32.mat")
    assert dataset.labels.tolist() == [*range(1, 10), 0] * 2
    assert dataset.class_names == tuple("0123456789")
    assert "label 10 was read as 0" in dataset.notes[0]
    np.testing.assert_array_equal(read_all(dataset), images.transpose(3, 2, 0, 1))
    mask = np.arange(20) != 4
    kept = scipy.io.loadmat(dataset.keep(mask, tmp_path / "kept.mat"))
    np.testing.assert_array_equal(kept["X"], images[..., mask])
    assert kept["y"].ravel().tolist() == labels[mask].ravel().tolist()


@pytest.mark.parametrize("dtype", ["u1", "i2", "u4", "f4", "f8", ">f8", ">u1"])
@pytest.mark.parametrize("packed", [False, True])
def test_mats_of_any_numbers(tmp_path, dtype, packed):
    content = {"note": "text", "cell": np.array([{}], object), "z": np.ones(3) * 1j, "few": np.uint8([1, 2])}
    labels = LABELS.astype(dtype)
    content |= {"X": np.moveaxis(IMAGES, 0, -1).astype(dtype), "y": labels if packed else labels[:, None]}
    scipy.io.savemat(tmp_path / "set.mat", content, do_compression=packed)
    dataset = open_dataset(tmp_path / "set.mat")
    np.testing.assert_array_equal(read_all(dataset), nchw(IMAGES))
    assert dataset.labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"X": IMAGES.transpose(1, 2, 3, 0)}, "no array of numbers 'y'.*argument columns"),
        ({"X": "text", "y": LABELS}, "no array of numbers 'X'"),
        ({"X": np.array([[{}]], object), "y": LABELS}, "no array of numbers 'X'"),
        (b"x" * 1000, "no .mat file"),
        (b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\x89HDF\r\n\x1a\n", "v7.3 file .HDF5.*-v7"),
        (b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + b"\xff" * 50, "damaged"),
    ],
)
def test_mats_of_other_things(tmp_path, content, match):
    if isinstance(content, bytes):
        (tmp_path / "set.mat").write_bytes(content)
    else:
        scipy.io.savemat(tmp_path / "set.mat", content)
    with refused(match):
        open_dataset(tmp_path / "set.mat")


def test_a_mat_that_would_not_fit_in_memory(tmp_path, monkeypatch):
    scipy.io.savemat(tmp_path / "set.mat", {"X": np.zeros((8, 8, 3, 99), np.uint8), "y": np.arange(99) % 3})
    monkeypatch.setattr("bre.inputs.datasets.npy.MAX_UNPACKED", 1000)
    with refused("would unpack to .* the limit here is 1000"):
        open_dataset(tmp_path / "set.mat")


# ---- CIFAR-100


ROWS = np.random.default_rng(0).integers(0, 256, (20, 3072), dtype=np.uint8)
FINE, COARSE = np.arange(20) % 5, np.arange(20) % 5 // 2


@pytest.fixture(params=["binary", "python"])
def cifar100(request, tmp_path):
    root = tmp_path / ("cifar-100-binary" if request.param == "binary" else "cifar-100-python")
    root.mkdir()
    fine, coarse = [f"f{i}" for i in range(5)], [f"c{i}" for i in range(3)]
    if request.param == "binary":
        table = np.concatenate([np.stack([COARSE, FINE], 1).astype(np.uint8), ROWS], 1)
        table.tofile(root / "train.bin")
        table[:5].tofile(root / "test.bin")
        (root / "fine_label_names.txt").write_text("\n".join(fine))
        (root / "coarse_label_names.txt").write_text("\n".join(coarse))
        return root
    batch = {b"data": ROWS, b"fine_labels": FINE.tolist(), b"coarse_labels": COARSE.tolist()}
    batch[b"filenames"] = [b"%d.png" % i for i in range(20)]
    (root / "train").write_bytes(pickle.dumps(batch, 2))
    (root / "test").write_bytes(pickle.dumps({}, 2))
    (root / "meta").write_bytes(pickle.dumps({b"fine_label_names": fine, b"coarse_label_names": coarse}, 2))
    return root


def test_cifar_100_fine_and_coarse(cifar100, tmp_path):
    for root in (cifar100, cifar100.parent):  # the folder above it too
        dataset = open_dataset(root, unsafe=True)
        assert dataset.labels.tolist() == FINE.tolist()
        assert dataset.class_names == ("f0", "f1", "f2", "f3", "f4")
    dataset = open_dataset(cifar100, unsafe=True, columns=("data", "coarse_labels"))
    assert dataset.labels.tolist() == COARSE.tolist()
    assert dataset.class_names == ("c0", "c1", "c2")
    mask = np.arange(20) % 7 != 3
    out = dataset.keep(mask, tmp_path / "kept")
    again = open_dataset(out, unsafe=True)
    assert again.labels.tolist() == FINE[mask].tolist(), "both labels are kept"
    np.testing.assert_array_equal(read_all(again), ROWS.reshape(-1, 3, 32, 32)[mask])
    with refused("fine_labels and coarse_labels"):
        open_dataset(cifar100, unsafe=True, columns=("data", "labels"))


def test_cifar_100_pickles_and_both_versions(cifar100):
    if cifar100.name == "cifar-100-python":
        with refused("pickles.*argument unsafe"):
            open_dataset(cifar100)
    (cifar100.parent / "cifar-10-batches-bin").mkdir()
    with refused("name the one to read"):
        open_dataset(cifar100.parent)


# ---- one size


def png(array):
    f = io.BytesIO()
    Image.fromarray(array).save(f, "PNG")
    return f.getvalue()


@pytest.mark.parametrize("kind", ["folder", "pil", "tensor"])
def test_crop_and_pad(kind, tmp_path):
    rng = np.random.default_rng(0)
    shapes = [(6, 9), (7, 5), (5, 8), (6, 6)]
    images = [rng.integers(1, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]
    if kind == "folder":
        data = tmp_path / "set"
        for i, image in enumerate(images):
            (data / "ab"[i // 2]).mkdir(parents=True, exist_ok=True)
            (data / "ab"[i // 2] / f"{i}.png").write_bytes(png(image))
    else:
        make = Image.fromarray if kind == "pil" else lambda x: torch.from_numpy(x.transpose(2, 0, 1).copy())
        data = [(make(image), i // 2) for i, image in enumerate(images)]
    with refused("arguments resize, crop, pad"):
        open_dataset(data)
    padded = open_dataset(data, pad=True)
    assert padded.image_shape == (3, 7, 9)
    cropped = open_dataset(data, crop=(4, 5))
    assert cropped.image_shape == (3, 4, 5)
    for i, (image, (h, w)) in enumerate(zip(images, shapes, strict=True)):
        whole = np.zeros((7, 9, 3), np.uint8)
        whole[:h, :w] = image
        np.testing.assert_array_equal(padded.read(np.array([i]))[0], whole.transpose(2, 0, 1))
        top, left = (h - 4) // 2, (w - 5) // 2
        middle = image[top : top + 4, left : left + 5]
        np.testing.assert_array_equal(cropped.read(np.array([i]))[0], middle.transpose(2, 0, 1))
    with refused("smaller than the 6x4 to crop.*arguments crop, resize"):
        open_dataset(data, crop=(4, 6))
    with refused("one of the three .arguments resize, crop, pad"):
        open_dataset(data, crop=(4, 4), pad=True)


def test_arrays_are_cropped_too():
    dataset = open_dataset((IMAGES, LABELS), crop=(3, 4))
    np.testing.assert_array_equal(read_all(dataset), nchw(IMAGES[:, 1:4, 1:5]))
    assert open_dataset((IMAGES, LABELS), pad=True).image_shape == nchw(IMAGES).shape[1:]
    with refused("smaller than the 9x4 to crop"):
        open_dataset((IMAGES, LABELS), crop=(4, 9))
