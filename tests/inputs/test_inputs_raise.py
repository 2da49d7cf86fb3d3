"""Bad datasets only: each is refused with an InputError whose message says what is wrong."""

import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin
from torch.utils.data import BatchSampler, SequentialSampler

from bre._files import atomic_path
from bre.errors import BreError, InputError
from bre.inputs import open_dataset, open_model

IMAGES = np.zeros((6, 4, 5, 3), np.uint8)
LABELS = np.arange(6) % 2


def refused(match):
    return pytest.raises(InputError, match=match)


def test_input_error_is_a_value_error_and_a_bre_error():
    assert issubclass(InputError, ValueError)
    assert issubclass(InputError, BreError)


# ---- what is not a dataset


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (None, "pair .images, labels.*NoneType"),
        (3, "got int"),
        ({"images": IMAGES, "labels": LABELS}, "got dict"),
        (IMAGES, "labels are missing"),
        (torch.from_numpy(IMAGES), "labels are missing"),
        ((IMAGES,), "expected a pair.*1 items"),
        ([IMAGES, LABELS, LABELS], "expected a pair.*3 items"),
        ((IMAGES.tolist(), LABELS), "numpy array or a torch tensor, got list"),
        ("/no/such/path", "no such dataset: /no/such/path"),
        (iter([(IMAGES[0], 0)]), "map-style"),
    ],
)
def test_other_things(data, match):
    with refused(match):
        open_dataset(data)


def test_iterable_dataset():
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter([])

    for data in (Stream(), torch.utils.data.DataLoader(Stream())):
        with refused("map-style"):
            open_dataset(data)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"sampler": torch.utils.data.SubsetRandomSampler([0, 2])}, "SubsetRandomSampler. may leave out"),
        ({"sampler": torch.utils.data.RandomSampler(range(6), replacement=True)}, "may leave out or repeat"),
        ({"collate_fn": list}, "collate_fn of its own"),
        ({"collate_fn": list, "batch_size": None}, "collate_fn of its own"),
        ({"batch_sampler": BatchSampler(torch.utils.data.SubsetRandomSampler([0, 2]), 2, False)}, "may leave out"),
        ({"batch_sampler": [[0, 1], [2]]}, "list. may leave out"),
        ({"batch_sampler": []}, "list. may leave out"),
        ({"batch_sampler": BatchSampler(range(6), 2, False), "collate_fn": list}, "may leave out"),
        ({"batch_sampler": BatchSampler(SequentialSampler(range(6)), 2, False), "collate_fn": list}, "collate_fn"),
        ({"batch_size": 4, "drop_last": True}, "drops the last 2 items"),
    ],
)
def test_data_loaders_that_change_the_set(options, match):
    items = [(IMAGES[i], int(LABELS[i])) for i in range(6)]
    with refused(match):
        open_dataset(torch.utils.data.DataLoader(items, **options))


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": None},
        {"batch_size": 3, "drop_last": True},
        {"batch_size": 4, "drop_last": True, "shuffle": True},
        {"batch_sampler": BatchSampler(SequentialSampler(range(6)), 4, False)},
    ],
    ids=lambda options: " ".join(options),
)
def test_data_loaders_that_give_all_items_are_their_datasets(options):
    items = [(IMAGES[i], int(LABELS[i])) for i in range(6)]
    assert len(open_dataset(torch.utils.data.DataLoader(items, **options))) == 6


class Table:
    """Indexed by columns, as pandas' are."""

    iloc = columns = ()

    def __getitem__(self, name):
        raise KeyError(name)

    def __len__(self):
        return 6


def test_tables_and_archives_are_no_datasets(tmp_path):
    np.savez(tmp_path / "set.npz", images=IMAGES, labels=LABELS)
    for data in (np.load(tmp_path / "set.npz"), Table()):
        with refused("a dataset must be a pair"):
            open_dataset(data)
    with refused("dense tensor"):
        open_dataset((torch.from_numpy(IMAGES).to_sparse(), LABELS))


def test_other_files(tmp_path):
    (tmp_path / "set.bin").write_text("a,b\n")
    with refused("no dataset bre knows"):
        open_dataset(tmp_path / "set.bin")


# ---- images


@pytest.mark.parametrize(
    ("images", "match"),
    [
        (IMAGES.astype(np.int64) + 256, "integer pixels must lie in 0 to 255, found 256 to 256"),
        (IMAGES.astype(np.int8) - 1, "found -1 to -1"),
        (IMAGES.astype(bool), "uint8, or floats.*bool"),
        (IMAGES.astype(complex), "complex128"),
        (np.full(IMAGES.shape, np.nan, np.float32), "NaN"),
        (np.full(IMAGES.shape, np.inf, np.float32), "infinity"),
        (np.full(IMAGES.shape, 128.5), "grey levels stored as floats.*uint8"),
        (np.full(IMAGES.shape, 256.0), "grey levels stored as floats.*uint8"),
        (np.full(IMAGES.shape, -1.5), "look normalised.*un-normalised.*mean and std"),
        (torch.full(IMAGES.shape, -1.5), "look normalised"),
        (np.zeros((6, 3, 3, 3), np.uint8), "ambiguous, both.*argument layout"),
        (np.zeros((6, 8, 8, 5), np.uint8), "ambiguous, no axis.*argument layout"),
        (np.zeros((6, 8), np.uint8), r"\(M, H, W\).*\(6, 8\)"),
        (np.zeros((6, 3, 0, 5), np.uint8), "at least one channel and one pixel"),
        (np.uint8(3), "got uint8"),
        (np.array(3, np.uint8), r"got shape \(\)"),
    ],
)
def test_images(images, match):
    with refused(match):
        open_dataset((images, LABELS))


def test_a_bad_float_late_in_the_set_is_found_when_opening():
    images = np.zeros((3000, 2, 2), np.float32)
    images[2500, 1, 1] = 7.5
    with refused("images 2048 to 2999.*0 to 7.5"):
        open_dataset((images, np.arange(3000) % 2))


def test_layout_names():
    with refused("layout must be one of"):
        open_dataset((IMAGES, LABELS), layout="HWC")


# ---- labels


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (None, "labels are missing"),
        (LABELS[:-1], "6 images but 5 labels"),
        (LABELS / 2, "must be integers, got float64 with 0.5 at image 1"),
        (LABELS.astype(bool), "must be integers, got bool"),
        (np.array(["a", ""] * 3), "image 1 has an empty label"),
        (np.eye(6, 2, dtype=int), "1-D.*argmax"),
        ([[0], [1, 2], [0], [0], [0], [0]], "one integer per image"),
        (3, r"1-D, got shape \(\)"),
        (LABELS - 1, ">= 0, got -1 at image 0"),
        (LABELS * 10**9, "6 images must be class numbers, .* below 1000, got 1000000000 at image 1"),
        (np.array([0, 2**63 + 1] * 3, np.uint64), "below 1000"),
        (np.zeros(6, int), "label 0; at least two classes"),
    ],
)
def test_labels(labels, match):
    with refused(match):
        open_dataset((IMAGES, labels))


@pytest.mark.parametrize("shape", [(0, 4, 5, 3), (0, 4, 5)])
def test_empty_set(shape):
    with refused("dataset is empty"):
        open_dataset((np.zeros(shape, np.uint8), np.zeros(0, int)))


# ---- reading and keeping


@pytest.mark.parametrize(
    ("indices", "match"),
    [
        ([6], r"\[0, 6\)"),
        ([-1], r"\[0, 6\)"),
        ([0.5], "1-D integers"),
        ([[0]], "1-D integers"),
        ([True], "bool"),
    ],
)
def test_indices(indices, match):
    with refused(match):
        open_dataset((IMAGES, LABELS)).read(np.array(indices))


@pytest.mark.parametrize(
    ("mask", "match"),
    [
        (np.ones(5, bool), r"bool \(6,\)"),
        (np.ones(6, int), "must be bool"),
        (np.zeros(6, bool), "no image at all"),
    ],
)
def test_masks(mask, match):
    with refused(match):
        open_dataset((IMAGES, LABELS)).keep(mask)


def test_keep_in_memory_takes_no_path(tmp_path):
    with refused("returned, not written"):
        open_dataset((IMAGES, LABELS)).keep(np.ones(6, bool), tmp_path / "out")


def test_keep_on_disk_needs_a_new_path(tmp_path):
    np.savez(tmp_path / "set.npz", images=IMAGES, labels=LABELS)
    dataset = open_dataset(tmp_path / "set.npz")
    with refused("give a new path .*argument out"):
        dataset.keep(np.ones(6, bool))
    with refused("never overwrites"):
        dataset.keep(np.ones(6, bool), tmp_path / "set.npz")
    with refused("does not exist"):
        dataset.keep(np.ones(6, bool), tmp_path / "no" / "out.npz")


def test_a_target_that_appears_meanwhile_is_not_overwritten(tmp_path):
    with refused("appeared while"), atomic_path(tmp_path / "out") as part:
        part.write_text("mine")
        (tmp_path / "out").write_text("theirs")
    assert (tmp_path / "out").read_text() == "theirs"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


# ---- torch datasets


def pixels(n=2, size=4):
    return torch.zeros(n, 3, size, size, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("items", "match"),
    [
        ([], "dataset is empty"),
        ([{"image": 0}] * 2, r"item 0: expected one label column .* found \['image'\].*argument columns"),
        ([(pixels()[0],)] * 2, r"expected \(image, label\), got a tuple of 1"),
        ([(pixels()[0], 0), (pixels(size=6)[0], 1)], r"item 1 has shape \(3, 6, 6\), item 0 has \(3, 4, 4\)"),
        ([(pixels()[0], 0.5)] * 2, "label must be an integer, got float"),
        ([(pixels()[0], True)] * 2, "label must be an integer, got bool"),
        ([(pixels()[0], torch.tensor([1, 1]))] * 2, r"one-hot rows .*argmax"),
        ([(pixels()[0], torch.zeros(2, 2))] * 2, r"single integer, got shape \(2, 2\)"),
        ([(pixels()[0], "cat")] * 2, "got str"),
        ([(pixels()[0], -1), (pixels()[0], 0)], ">= 0"),
        ([("cat.png", 0)] * 2, "tensor, a numpy array or a PIL image, got str"),
        ([(Image.new("RGBA", (4, 4)), 0)] * 2, "item 0 has mode RGBA.*argument convert"),
        ([(torch.full((3, 4, 4), -2.0), 0)] * 2, "item 0: float pixels.*look normalised"),
        ([(torch.full((3, 4, 4), 256, dtype=torch.int32), 0)] * 2, "integer pixels must lie in 0 to 255"),
        ([(torch.zeros(3, 4, 4, dtype=torch.bool), 0)] * 2, "got bool"),
        ([(torch.zeros(3, 3, 3), 0)] * 2, "item 0.*ambiguous.*argument layout"),
        ([(pixels()[0], 5)] * 2, "at least two classes"),
    ],
)
def test_torch_items(items, match):
    with refused(match):
        open_dataset(items)


class Augmented(torch.utils.data.Dataset):
    def __init__(self):
        self.generator = torch.Generator().manual_seed(0)

    def __len__(self):
        return 20

    def __getitem__(self, i):
        return torch.randint(0, 256, (3, 4, 4), dtype=torch.uint8, generator=self.generator), i % 2


def test_random_augmentation():
    with refused("another image.*augmentation"):
        open_dataset(Augmented())


def test_labels_that_change():
    items = [(pixels()[0], i % 2) for i in range(4)]
    dataset = open_dataset(items)
    items[2] = (pixels()[0], 1)
    with refused("item 2 has label 1, it had 0"):
        dataset.read(np.array([2]))


# ---- folders


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "set"
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for i in range(2):
            noise = np.random.default_rng(i).integers(0, 256, (16, 12, 3), dtype=np.uint8)
            Image.fromarray(noise).save(root / name / f"{i}.png")
    return root


def test_folder_without_classes(tmp_path):
    with refused("no class folders"):
        open_dataset(tmp_path)


def test_folder_with_one_class(folder):
    (folder / "b").rename(folder.parent / "elsewhere")
    with refused("at least two classes"):
        open_dataset(folder)


def test_class_folder_without_images(folder):
    (folder / "c").mkdir()
    with refused(r"class folder .*/c holds no images"):
        open_dataset(folder)


def test_images_of_two_sizes(folder):
    Image.new("RGB", (7, 9)).save(folder / "b" / "1.png")
    with refused(r"b/1\.png is 7x9 RGB, .*a/0\.png is 12x16 RGB"):
        open_dataset(folder)


def test_images_of_two_modes(folder):
    Image.new("L", (12, 16)).save(folder / "b" / "1.png")
    with refused(r"b/1\.png is 12x16 L, .* is 12x16 RGB"):
        open_dataset(folder)


@pytest.mark.parametrize("mode", ["RGBA", "P", "1", "LA"])
def test_other_modes(folder, mode):
    Image.new(mode, (12, 16)).save(folder / "b" / "1.png")
    with refused(r"b/1\.png has mode .*RGB or L"):
        open_dataset(folder)


def test_several_frames(folder):
    frames = [Image.new("RGB", (12, 16), (i, i, i)) for i in range(3)]
    frames[0].save(folder / "b" / "1.tiff", save_all=True, append_images=frames[1:])
    with refused("holds 3 frames"):
        open_dataset(folder)


def test_a_file_that_is_no_image(folder):
    (folder / "b" / "1.png").write_bytes(b"this is no png")
    with refused(r"b/1\.png is damaged or truncated, or no image"):
        open_dataset(folder)


def test_an_empty_file(folder):
    (folder / "b" / "1.png").write_bytes(b"")
    with refused(r"b/1\.png is damaged"):
        open_dataset(folder)


def test_a_format_that_is_not_listed(folder):
    Image.new("RGB", (12, 16)).save(folder / "b" / "1.png", format="GIF")
    with refused(r"b/1\.png is damaged or truncated, or no image"):
        open_dataset(folder)


@pytest.mark.parametrize("extension", ["png", "jpg"])
def test_a_truncated_image_is_named_when_it_is_read(folder, extension):
    path = folder / "b" / f"9.{extension}"
    Image.open(folder / "b" / "1.png").save(path)
    path.write_bytes(path.read_bytes()[:-120])
    dataset = open_dataset(folder)
    with refused(rf"b/9\.{extension} is damaged or truncated"):
        dataset.read(np.array([4]))


def test_a_file_that_changes_or_goes_after_opening(folder):
    dataset = open_dataset(folder)
    Image.new("RGB", (3, 3)).save(folder / "a" / "0.png")
    with refused(r"a/0\.png is 3x3"):
        dataset.read(np.array([0]))
    (folder / "a" / "1.png").unlink()
    with refused(r"a/1\.png' cannot be read: No such file"):
        dataset.read(np.array([1]))


def test_decompression_bomb(folder):
    header = b"\x89PNG\r\n\x1a\n"
    with (folder / "b" / "1.png").open("wb") as f:
        f.write(header)
        PngImagePlugin.putchunk(f, b"IHDR", (60000).to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00")
        PngImagePlugin.putchunk(f, b"IDAT", b"")
        PngImagePlugin.putchunk(f, b"IEND", b"")
    with refused(r"b/1\.png is too large.*bomb"):
        open_dataset(folder)


def test_a_large_image_that_pillow_only_warns_about(folder, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with refused("too large.*bomb"):
        open_dataset(folder)


def test_linked_folders_and_loops(folder):
    (folder / "a" / "loop").symlink_to(folder)
    with refused("a/loop is a link to a folder"):
        open_dataset(folder)


def test_links_that_leave_the_folder(folder, tmp_path):
    Image.new("RGB", (12, 16)).save(tmp_path / "secret.png")
    (folder / "a" / "x.png").symlink_to(tmp_path / "secret.png")
    with refused(r"x\.png is a link that leaves"):
        open_dataset(folder)


def test_broken_links_and_pipes(folder):
    (folder / "a" / "x.png").symlink_to(folder / "a" / "none.png")
    with refused("leads nowhere"):
        open_dataset(folder)
    (folder / "a" / "x.png").unlink()
    os.mkfifo(folder / "a" / "x.png")
    with refused("not a regular file"):
        open_dataset(folder)


def test_keeping_no_image_of_a_class_folder(folder, tmp_path):
    with refused("every image of class 'a'"):
        open_dataset(folder).keep(np.array([False, False, True, True]), tmp_path / "out")


# ---- npz


@pytest.fixture
def npz(tmp_path):
    path = tmp_path / "set.npz"
    np.savez(path, images=IMAGES, labels=LABELS)
    return path


def npy(array, shape=None):
    """The bytes of a .npy, its header claiming another shape."""
    header = {"descr": array.dtype.str, "fortran_order": False, "shape": shape or array.shape}
    f = io.BytesIO()
    np.lib.format.write_array_header_1_0(f, header)
    return f.getvalue() + array.tobytes()


def write_zip(path, compression=zipfile.ZIP_DEFLATED, **members):
    with zipfile.ZipFile(path, "w", compression) as z:
        for name, data in members.items():
            z.writestr(f"{name}.npy", data)
    return path


@pytest.mark.parametrize("missing", ["images", "labels"])
def test_npz_without_a_key(tmp_path, missing):
    other = "labels" if missing == "images" else "images"
    np.savez(tmp_path / "set.npz", **{other: IMAGES if other == "images" else LABELS, "x": LABELS, "z": LABELS})
    with refused(f"no array '{missing}'.*found .*'x'"):
        open_dataset(tmp_path / "set.npz")


@pytest.mark.parametrize("key", ["images", "labels"])
def test_npz_with_pickles(tmp_path, key):
    arrays = {"images": IMAGES, "labels": LABELS} | {key: np.array([{}] * 6, object)}
    np.savez(tmp_path / "set.npz", **arrays)
    with refused(f"{key}.npy is an object array.*pickle"):
        open_dataset(tmp_path / "set.npz")


@pytest.mark.parametrize("size", [0, 10, 200, 500])
def test_truncated_npz(npz, size):
    npz.write_bytes(npz.read_bytes()[:size])
    with refused("damaged or truncated"):
        open_dataset(npz)


@pytest.mark.parametrize("name", ["set.npz", "set"])
def test_a_zip_that_says_it_spans_several_disks(npz, name):
    """Python's own is_zipfile fails on it, where it should answer."""
    data, end = npz.read_bytes(), struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 2)
    path = npz.with_name(name)
    path.write_bytes(data[:-22] + end + data[-22:])
    with refused("damaged or truncated, .*multiple disks"):
        open_dataset(path)
    with refused("truncated or damaged zip file: .*multiple disks"):
        open_model(path)


def test_damaged_npz(tmp_path):
    rng = np.random.default_rng(0)
    np.savez_compressed(tmp_path / "set.npz", images=rng.integers(0, 256, IMAGES.shape, dtype=np.uint8), labels=LABELS)
    data = bytearray((tmp_path / "set.npz").read_bytes())
    data[300:340] = bytes(40)
    (tmp_path / "set.npz").write_bytes(data)
    with refused("damaged or truncated"):
        open_dataset(tmp_path / "set.npz")


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_npz_whose_header_claims_another_size(tmp_path, compression):
    data = npy(IMAGES, (10**6, 1000, 1000, 3))
    path = write_zip(tmp_path / "set.npz", compression, images=data, labels=npy(LABELS))
    with refused("declares uint8 .*3000000000128 bytes.*holds"):
        open_dataset(path)


def test_npz_that_would_not_fit_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("bre.inputs.datasets.npy.MAX_UNPACKED", 300)
    np.savez_compressed(tmp_path / "set.npz", images=IMAGES, labels=LABELS)
    with refused(r"would unpack to 360 bytes, the limit here is 300.*np\.savez"):
        open_dataset(tmp_path / "set.npz")


def test_npz_member_that_is_no_array(tmp_path):
    path = write_zip(tmp_path / "set.npz", images=b"not an array at all", labels=npy(LABELS))
    with refused("damaged or truncated"):
        open_dataset(path)


def test_npz_with_bad_contents_meets_the_same_checks(tmp_path):
    np.savez(tmp_path / "set.npz", images=IMAGES, labels=LABELS[:-1])
    with refused("6 images but 5 labels"):
        open_dataset(tmp_path / "set.npz")


# ---- CIFAR-10's folders


def test_truncated_binary_batch(tmp_path):
    (tmp_path / "data_batch_1.bin").write_bytes(bytes(3073 + 5))
    with refused("3078 bytes, expected a positive multiple of 3073"):
        open_dataset(tmp_path)


def test_empty_binary_batch(tmp_path):
    (tmp_path / "data_batch_1.bin").write_bytes(b"")
    with refused("0 bytes"):
        open_dataset(tmp_path)


def test_too_few_class_names(tmp_path):
    (tmp_path / "data_batch_1.bin").write_bytes(b"".join(bytes([k]) + bytes(3072) for k in range(4)))
    (tmp_path / "batches.meta.txt").write_text("one\ntwo\n")
    with refused("2 class names for labels up to 3"):
        open_dataset(tmp_path)


def batch(path, content):
    path.write_bytes(pickle.dumps(content, 2))


def test_python_batches_are_pickles(tmp_path):
    batch(tmp_path / "data_batch_1", {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 1]})
    with refused("pickles.*argument unsafe"):
        open_dataset(tmp_path)


class Attack:
    def __reduce__(self):
        return os.mkdir, ("/tmp/bre-was-here",)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (Attack(), "mkdir is not allowed"),
        ([1, 2], "holds list, expected a dict"),
        ({b"labels": [0, 1]}, "has no 'data'"),
        ({b"data": np.zeros((2, 3072), np.uint8)}, "has no 'labels'"),
        ({b"data": np.zeros((2, 3072)), b"labels": [0, 1]}, "data must be uint8"),
        ({b"data": np.zeros((2, 100), np.uint8), b"labels": [0, 1]}, "data must be uint8"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]}, "2 images but 1 labels"),
    ],
)
def test_python_batches_with_unsafe(tmp_path, content, match):
    batch(tmp_path / "data_batch_1", content)
    with refused(match):
        open_dataset(tmp_path, unsafe=True)
    assert not os.path.exists("/tmp/bre-was-here")


def test_truncated_python_batch(tmp_path):
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({b"data": b"x" * 100}, 2)[:-20])
    with refused("no CIFAR batch"):
        open_dataset(tmp_path, unsafe=True)


# ---- what would be taken for something else


@pytest.mark.parametrize("names", [["train", "test"], ["Train", "val", "test"], ["training", "validation"]])
def test_a_folder_of_splits(tmp_path, names):
    for name in names:
        for kind in "ab":
            (tmp_path / name / kind).mkdir(parents=True)
            Image.new("L", (4, 4)).save(tmp_path / name / kind / "0.png")
    with refused(f"holds the splits {', '.join(sorted(names))}, .*name the one to read, as in "):
        open_dataset(tmp_path)
    assert open_dataset(tmp_path / names[0]).class_names == ("a", "b")


@pytest.mark.parametrize(
    ("labels", "found"), [(["0.0", "1.5"], "0.0"), (["0", "1.5"], "1.5"), (["-1", "nan"], "nan"), (["1e3", "2"], "1e3")]
)
def test_numbers_that_are_not_whole(tmp_path, labels, found):
    (tmp_path / "set.csv").write_text("path,label\n" + "".join(f"{i}.png,{k}\n" for i, k in enumerate(labels)))
    for i in range(2):
        Image.new("L", (4, 4)).save(tmp_path / f"{i}.png")
    with refused(f"labels must be whole numbers, or names, got '{found}'"):
        open_dataset(tmp_path / "set.csv")


def test_a_layout_where_it_means_nothing(tmp_path):
    for kind in "ab":
        (tmp_path / kind).mkdir()
        Image.new("L", (4, 4)).save(tmp_path / kind / "0.png")
    with refused("for arrays, .*; .* has no use for it .argument layout"):
        open_dataset(tmp_path, layout="NCHW")
    with refused(r"\(6, 4, 5\) have no axis of channels: leave 'NCHW' out .argument layout"):
        open_dataset((IMAGES[..., 0], LABELS), layout="NCHW")


@pytest.mark.parametrize(("high", "advice"), [(1.001, "found 0 to 1.001; clip them"), (200.0, "convert them to uint8")])
def test_floats_beyond_one(high, advice):
    with refused(advice):
        open_dataset((np.linspace(0, high, IMAGES.size, dtype=np.float32).reshape(IMAGES.shape), LABELS))


def test_mean_in_grey_levels():
    with refused(r"mean and std must be in units of pixels in \[0, 1\].*divide both by 255"):
        open_model(torch.nn.Flatten(), mean=(125.3, 123.0, 113.9), std=(63.0, 62.1, 66.7))


# ---- whose fault it is


def test_a_bug_of_ours_is_not_called_a_bad_dataset(folder, npz, tmp_path, monkeypatch):
    """Only what is expected of bad files becomes "cannot be read"."""

    def bug(*args, **options):
        raise ValueError("a bug")

    def surfaces(target, path, out):
        with monkeypatch.context() as patched:
            patched.setattr(f"bre.inputs.datasets.{target}", bug)
            with pytest.raises(ValueError, match="a bug") as error:
                open_dataset(path).keep(np.ones(6 if path == npz else 4, bool), tmp_path / out)
        assert not isinstance(error.value, InputError)

    surfaces("folder.FolderSet._add_images", folder, "kept")
    surfaces("image_form.ImageForm.header", folder, "kept")
    surfaces("npz._members", npz, "kept.npz")
    surfaces("npz.write_rows", npz, "kept.npz")
    monkeypatch.setattr("bre.inputs.datasets.image_form.ImageForm.apply", bug)
    with pytest.raises(ValueError, match="a bug") as error:
        open_dataset(folder).read(np.array([0]))
    assert not isinstance(error.value, InputError)


def test_a_missing_permission_is_no_damage(folder, monkeypatch):
    def denied(path, *args, **options):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", denied)
    with refused("cannot be read: Permission denied"):
        open_dataset(folder)
