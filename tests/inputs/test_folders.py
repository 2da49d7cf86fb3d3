"""Folders as people keep them: files that are no images, links, a level too many or too few, clones, detection sets."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image
from real_files import (
    IMAGES,
    LABELS,
    MASK,
    NAMES,
    PNGS,
    M,
    datasets,
    nchw,
    png,
    refused,
    saved,
    write_parquet,
    write_shards,
)

from bre.inputs import open_dataset

H, W = IMAGES.shape[1:3]


def write_folder(root, names=NAMES, ending="png"):
    for i, k in enumerate(LABELS):
        (root / names[k]).mkdir(parents=True, exist_ok=True)
        (root / names[k] / f"{i:02}.{ending}").write_bytes(PNGS[i])
    return root


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "set")


# ---- files that are no images


def test_files_that_are_no_images_are_left_out_and_named(folder, tmp_path):
    for name in ("README.md", "labels.csv", "0.png", "bee/bee_boxes.txt", "bee/x.svg", "bee/Makefile", "cat/._1.png"):
        (folder / name).write_text("x")
    dataset = open_dataset(folder)
    assert len(dataset) == M
    (note,) = dataset.notes
    assert note.startswith("6 files that are in no class folder or no image file were left out: ")
    assert "README.md" in note
    assert "and 1 more" in note
    assert len(list(dataset.keep(MASK, tmp_path / "kept").rglob("*.*"))) == MASK.sum()


def test_an_image_that_cannot_be_decoded_is_an_error_or_skipped(folder, tmp_path):
    (folder / "bee" / "01.png").write_bytes(PNGS[1][:-30])
    (folder / "cat" / "zz.jpg").write_text("not found")
    with refused(r"cat/zz\.jpg is damaged .*argument on_error"):
        open_dataset(folder)
    dataset = open_dataset(folder, on_error="skip")
    (note,) = dataset.notes
    assert "2 images that are damaged or not there were left out" in note
    assert "01.png" in note
    assert [image.label for image in dataset.skipped] == [1, 2]
    assert len(dataset) == M - 1
    dataset.read(np.arange(M - 1))
    assert len(open_dataset(dataset.keep(np.ones(M - 1, bool), tmp_path / "kept"))) == M - 1


def test_rows_of_damaged_images_are_skipped_too(tmp_path):
    rows = []
    for i, k in enumerate(LABELS):
        (tmp_path / f"{i}.png").write_bytes(PNGS[i] if i != 4 else b"x")
        rows.append(f"{i}.png {NAMES[k]}\n")
    (tmp_path / "set.txt").write_text("".join(rows))
    dataset = open_dataset(tmp_path / "set.txt", on_error="skip")
    assert dataset.labels.tolist() == np.delete(LABELS, 4).tolist()
    out = dataset.keep(np.arange(M - 1) % 3 > 0, tmp_path / "kept.txt")
    assert out.read_text() == "".join(np.array(rows)[np.delete(np.arange(M), 4)[np.arange(M - 1) % 3 > 0]])


# ---- a level too many or too few


def test_a_stray_file_does_not_hide_the_splits(tmp_path):
    for split in ("train", "val"):
        write_folder(tmp_path / split)
    (tmp_path / "wnids.txt").write_text("x")
    with refused("holds the splits train, val, .*name the one to read"):
        open_dataset(tmp_path)


def test_the_folder_above(folder):
    with refused("holds one folder, and .*/set the folders ant, bee, cat, .*name .*/set$"):
        open_dataset(folder.parent)


def test_a_class_folder_and_a_flat_folder(folder):
    with refused(
        f"4 image files and no class folders: name the folder above it, {folder}, .*else name a .csv .*argument boxes"
    ):
        open_dataset(folder / "ant")
    (folder / "ant" / "labels.csv").write_text("x")
    with refused("else name the list of their labels, as .*ant/labels.csv"):
        open_dataset(folder / "ant")


def test_lists_beside_a_flat_folder(folder):
    (folder / "val_annotations.txt").write_text("00.png\tant\t0\t0\n")
    with refused("else name the list of their labels, as .*set/val_annotations.txt"):
        open_dataset(folder / "ant")
    with refused("does not name its columns, .*0,1 .argument columns"):
        open_dataset(folder / "val_annotations.txt")
    (folder / "ant" / "01.png").write_bytes(PNGS[1])
    (folder / "val_annotations.txt").write_text("00.png\tant\t0\t0\n01.png\tbee\t0\t0\n")
    assert len(open_dataset(folder / "val_annotations.txt", columns=("0", "1"), root=folder / "ant")) == 2


def test_a_folder_of_one_folder_and_a_list(folder):
    """As Tiny-ImageNet's validation set, and GTSRB's training set two levels above its classes."""
    root = folder.parent / "val"
    root.mkdir()
    (folder / "ant").rename(root / "images")
    (root / "val_annotations.txt").write_text("x")
    with refused("holds one folder, and so one class: .*val_annotations.txt, and the folder .*images .argument root"):
        open_dataset(root)
    (folder.parent / "a" / "b").mkdir(parents=True)
    folder.rename(folder.parent / "a" / "b" / "c")
    with refused("if these are the classes, name .*/a/b/c"):
        open_dataset(folder.parent / "a")


def test_a_list_of_pixels(tmp_path):
    (tmp_path / "train.csv").write_text("label," + ",".join(f"pixel{i}" for i in range(784)) + "\n")
    with refused("785 columns, as of pixels: .*give a pair"):
        open_dataset(tmp_path / "train.csv")


def test_folders_beside_that_of_the_classes(folder):
    """As the birds of CUB-200 come."""
    root = folder.parent / "birds"
    (root / "attributes").mkdir(parents=True)
    folder.rename(root / "images")
    with refused("attributes holds no images; if the folders in .*birds/images are the classes, name that"):
        open_dataset(root)


def test_class_folders_without_images(folder):
    (folder / "docs").mkdir()
    with refused(r"class folder .*/docs holds no images; known endings"):
        open_dataset(folder)
    (folder / "docs" / "a.xml").write_text("x")
    with refused(r"docs holds no images, but a\.xml; .*move it away"):
        open_dataset(folder)


def test_folders_without_end(folder):
    deep = folder / "ant"
    for _ in range(80):
        deep = deep / "d"
    deep.mkdir(parents=True)
    with refused("more than 64 deep"):
        open_dataset(folder)


# ---- links


@pytest.fixture
def linked(tmp_path):
    """As DVC links a set out of its cache: every image, and one class folder."""
    cache = write_folder(tmp_path / "cache")
    root = tmp_path / "set"
    for name in ("ant", "bee"):
        (root / name).mkdir(parents=True)
        for file in (cache / name).iterdir():
            (root / name / file.name).symlink_to(file)
    (root / "cat").symlink_to(cache / "cat")
    return root


def test_links_out_of_the_folder_are_followed_when_told(linked, tmp_path):
    with refused("is a link .*argument follow_links"):
        open_dataset(linked)
    dataset = open_dataset(linked, follow_links=True)
    order = np.argsort(LABELS, kind="stable")
    np.testing.assert_array_equal(dataset.read(np.arange(M)), nchw(IMAGES)[order])
    out = dataset.keep(MASK[order], tmp_path / "kept")
    assert not any(p.is_symlink() for p in out.rglob("*"))
    np.testing.assert_array_equal(open_dataset(out).read(np.arange(9)), nchw(IMAGES)[order][MASK[order]])
    (tmp_path / "cache" / "cat" / "loop").symlink_to(tmp_path / "cache" / "cat")
    with refused("a link to a folder that it lies in"):
        open_dataset(linked, follow_links=True)


def test_paths_out_of_a_list_are_followed_when_told(tmp_path):
    write_folder(tmp_path / "images")
    (tmp_path / "lists").mkdir()
    rows = [f"../images/{NAMES[k]}/{i:02}.png {k}\n" for i, k in enumerate(LABELS)]
    (tmp_path / "lists" / "train.txt").write_text("".join(rows))
    with refused("lies outside of the folder .*arguments root, follow_links"):
        open_dataset(tmp_path / "lists" / "train.txt")
    assert len(open_dataset(tmp_path / "lists" / "train.txt", follow_links=True)) == M
    (tmp_path / "lists" / "train.txt").write_text("".join(row.replace("../images/", "") for row in rows))
    with refused("no file in .*argument root"):
        open_dataset(tmp_path / "lists" / "train.txt")
    dataset = open_dataset(tmp_path / "lists" / "train.txt", root=tmp_path / "images")
    np.testing.assert_array_equal(dataset.read(np.arange(M)), nchw(IMAGES))
    dataset.keep(MASK, tmp_path / "kept.txt")
    assert len(open_dataset(tmp_path / "kept.txt", root=tmp_path / "images")) == MASK.sum()


# ---- what else is a folder, or looks like one


def test_a_clone_of_a_set_on_the_hub(tmp_path):
    (tmp_path / "data").mkdir()
    write_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    (tmp_path / "README.md").write_text("---\n---\n")
    dataset = open_dataset(tmp_path)
    np.testing.assert_array_equal(dataset.read(np.arange(M)), nchw(IMAGES))
    write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet")
    with refused(r"several splits .*name the files to read, as in '.*data/train-\*\.parquet'"):
        open_dataset(tmp_path)
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + 64 * "0" + "\nsize 12345\n"
    (tmp_path / "data" / "train-00000-of-00001.parquet").write_text(pointer)
    with refused("pointer of Git LFS.*git lfs pull"):
        open_dataset(tmp_path / "data" / "train-00000-of-00001.parquet")


@pytest.mark.parametrize("name", ["x.npz", "ant/00.png", "x.csv", "x.mat"])
def test_pointers_of_git_lfs(folder, name):
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with refused("pointer of Git LFS|no .npz"):
        open_dataset(folder if "png" in name else folder / name)


def test_a_folder_of_packed_shards(tmp_path):
    write_shards(tmp_path / "set")
    for file in (tmp_path / "set").iterdir():
        file.rename(file.with_name(file.name + ".gz"))
    with refused(r"compressed tars, such as .*\.tar\.gz, .*gunzip"):
        open_dataset(tmp_path / "set")


def test_braces(tmp_path):
    write_shards(tmp_path / "set")
    dataset = open_dataset(f"{tmp_path}/set/train-{{0000..0002}}.tar")
    np.testing.assert_array_equal(dataset.read(np.arange(M)), nchw(IMAGES))
    assert len(open_dataset(f"{tmp_path}/set/train-000{{0,2}}.tar")) == 7
    with refused(r"names .*train-0003\.tar, which is not there"):
        open_dataset(f"{tmp_path}/set/train-{{0000..0003}}.tar")
    with refused("at most 100000 numbers|more than 100000 names"):
        open_dataset(f"{tmp_path}/set/train-{{0..999}}{{0..999}}.tar")
    with refused("must go up"):
        open_dataset(f"{tmp_path}/set/train-{{9..1}}.tar")
    with refused("no such dataset"):
        open_dataset(f"{tmp_path}/set/train-{{x}}.tar")


def test_a_zip_of_a_folder(folder):
    shutil.make_archive(str(folder.parent / "photos"), "zip", folder)
    with refused("a zip of 12 image files: unpack it"):
        open_dataset(folder.parent / "photos.zip")


# ---- Hugging Face in memory


def test_a_dataset_in_memory(tmp_path):
    data = saved()
    for given in (data, datasets.DatasetDict({"train": data}), data.with_format("torch")):
        dataset = open_dataset(given)
        assert dataset.class_names == tuple(NAMES)
        assert dataset.labels.tolist() == LABELS.tolist()
        np.testing.assert_array_equal(dataset.read(np.arange(M)), nchw(IMAGES))
    assert "format or transform was left out" in dataset.notes[0]
    kept = open_dataset(data.shuffle(seed=0)).keep(MASK)
    assert isinstance(kept, datasets.Dataset)
    assert len(open_dataset(kept)) == MASK.sum()
    with refused("splits .'train', 'test'.: pass one"):
        open_dataset(datasets.DatasetDict({"train": data, "test": data}))
    assert open_dataset(data, resize=(3, 3)).image_shape == (3, 3, 3)


def test_a_dataset_of_image_files(folder):
    data = datasets.load_dataset("imagefolder", data_dir=str(folder), split="train", cache_dir=str(folder.parent / "c"))
    dataset = open_dataset(data)
    assert dataset.class_names == tuple(NAMES)
    np.testing.assert_array_equal(dataset.read(np.arange(M)), nchw(IMAGES)[np.argsort(LABELS, kind="stable")])


def test_datasets_of_other_things():
    data = datasets.Dataset.from_dict({"image": [[1, 2]] * 4, "label": [0, 1, 0, 1]})
    with refused(r"column 'image' holds .*cast_column"):
        open_dataset(data)
    data = saved().add_column("fine", [str(i % 2) for i in range(M)])
    assert open_dataset(data, columns=("image", "fine")).labels.tolist() == [i % 2 for i in range(M)]
    with refused("expected one label column named 'x'"):
        open_dataset(data, columns=("image", "x"))


# ---- boxes


@pytest.fixture
def scene(tmp_path):
    """Two images, 40 x 30, with a box of each of three classes; and what the boxes show, (6, H, W, 3)."""
    rng = np.random.default_rng(0)
    root = tmp_path / "images"
    root.mkdir()
    boxes = [(0, 0, 10, 8), (12, 3, 16, 12), (20, 20, 20, 10)]  # x, y, w, h
    crops = []
    for i in range(2):
        image = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        (root / f"{i}.png").write_bytes(png(image))
        for x, y, w, h in boxes:
            crop = Image.fromarray(image[y : y + h, x : x + w])
            crops.append(np.asarray(crop.resize((8, 6), Image.Resampling.BILINEAR)))
    return root, boxes, np.stack(crops)


def write_coco(path, boxes, **changes):
    annotations = [
        {"id": 10 * i + j, "image_id": i + 7, "category_id": (1, 3, 90)[j], "bbox": list(box), "iscrowd": 0}
        for i in range(2)
        for j, box in enumerate(boxes)
    ]
    content = {
        "info": {"year": 2017},
        "images": [{"id": i + 7, "file_name": f"{i}.png", "width": 40, "height": 30} for i in range(2)],
        "annotations": annotations,
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}, {"id": 3, "name": "car"}],
    }
    path.write_text(json.dumps(content | changes))
    return path


def test_boxes_of_coco(scene, tmp_path):
    root, boxes, crops = scene
    path = write_coco(tmp_path / "instances.json", boxes)
    with refused("bring their crops to one .argument resize"):
        open_dataset(root, boxes=path)
    dataset = open_dataset(root, boxes=path, resize=(6, 8))
    assert dataset.class_names == ("person", "car", "toothbrush")
    assert dataset.labels.tolist() == [0, 1, 2] * 2
    np.testing.assert_array_equal(dataset.read(np.array([5, 0, 3, 1, 2, 4])), nchw(crops)[[5, 0, 3, 1, 2, 4]])
    assert dataset.describe(4) == f"{root}/1.png, box 12,3,28,15"
    out = dataset.keep(np.arange(6) != 4, tmp_path / "kept.json")
    assert open_dataset(root, boxes=out, resize=(6, 8)).labels.tolist() == [0, 1, 2, 0, 2]
    assert json.loads(out.read_text())["info"] == {"year": 2017}


def test_boxes_of_yolo(scene, tmp_path):
    root, boxes, crops = scene
    labels = tmp_path / "labels"
    labels.mkdir()
    (labels / "classes.txt").write_text("a\nb\nc\n")
    for i in range(2):
        lines = [f"{k} {(x + w / 2) / 40} {(y + h / 2) / 30} {w / 40} {h / 30}" for k, (x, y, w, h) in enumerate(boxes)]
        (labels / f"{i}.txt").write_text("\n".join(lines))
    (root / "2.png").write_bytes(PNGS[0])
    dataset = open_dataset(root, boxes=labels, resize=(6, 8))
    assert dataset.class_names == ("a", "b", "c")
    np.testing.assert_array_equal(dataset.read(np.arange(6)), nchw(crops))
    assert dataset.notes == ("1 images without a text file of boxes were left out: 2.png",)
    out = dataset.keep(np.arange(6) != 4, tmp_path / "kept")
    again = open_dataset(root, boxes=out, resize=(6, 8))
    assert again.labels.tolist() == [0, 1, 2, 0, 2]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"annotations": None}, "no COCO JSON"),
        (
            {"annotations": [{"image_id": 7, "category_id": 1, "bbox": [1, 2, 3]}]},
            "bbox must be x, y",
        ),
        ({"annotations": [{"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, "x"]}]}, "bbox must be"),
        ({"annotations": [{"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 1e400]}]}, "bbox must be"),
        ({"annotations": [{"image_id": 9, "category_id": 1, "bbox": [1, 2, 3, 4]}]}, "of image 9 or category 1"),
        ({"annotations": [{"image_id": 7, "category_id": "1", "bbox": [1, 2, 3, 4]}]}, "category_id must be a whole"),
        (
            {"images": [{"id": 7, "file_name": "../secret.png"}, {"id": 8, "file_name": "1.png"}]},
            "out of the",
        ),
        ({"images": [{"id": 7, "file_name": "none.png"}, {"id": 8, "file_name": "1.png"}]}, "no file in"),
        ({"images": [{"id": 7}, {"id": 8, "file_name": "1.png"}]}, "names no file"),
        ({"annotations": []}, "dataset is empty"),
    ],
)
def test_coco_files_of_other_things(scene, tmp_path, changes, match):
    root, boxes, _ = scene
    (tmp_path / "secret.png").write_bytes(PNGS[0])
    with refused(match):
        open_dataset(root, boxes=write_coco(tmp_path / "x.json", boxes, **changes), resize=(6, 8))


@pytest.mark.parametrize("line", ["0 0.5 0.5 0.1", "x 0.5 0.5 0.1 0.1", "0 a 0.5 0.1 0.1", "-1 0.5 0.5 0.1 0.1"])
def test_yolo_files_of_other_things(scene, tmp_path, line):
    (tmp_path / "0.txt").write_text(line)
    with refused("expected class, x, y, width and height"):
        open_dataset(scene[0], boxes=tmp_path, resize=(6, 8))


def test_boxes_that_show_nothing_and_crowds_are_left_out(scene, tmp_path):
    root, boxes, crops = scene
    path = write_coco(tmp_path / "x.json", [*boxes[:2], (50, 50, 5, 5)])
    content = json.loads(path.read_text())
    content["annotations"][0]["iscrowd"] = 1
    path.write_text(json.dumps(content))
    dataset = open_dataset(root, boxes=path, resize=(6, 8))
    np.testing.assert_array_equal(dataset.read(np.arange(3)), nchw(crops)[[1, 3, 4]])
    assert dataset.notes == (
        "1 boxes of crowds were left out",
        "2 boxes of less than 2 pixels a side were left out",
    )


def test_boxes_of_no_folder(scene, tmp_path):
    with refused("boxes go with a folder of images"):
        open_dataset(tmp_path / "none", boxes=tmp_path, resize=(6, 8))
    with refused("'.*none' cannot be read: no such file"):
        open_dataset(scene[0], boxes=tmp_path / "none", resize=(6, 8))
    with refused("for a folder of images; .* has no use for it .argument boxes"):
        open_dataset((IMAGES, LABELS), boxes=tmp_path)
    detection = tmp_path / "set"
    shutil.copytree(scene[0], detection / "images")
    os.mkdir(detection / "labels")
    (detection / "labels" / "0.txt").write_text("x")
    with refused("looks like a detection set: name its folder of images"):
        open_dataset(detection)
