"""WebDataset's tars and CSV lists: what only they have, and what is refused."""

from __future__ import annotations

import gc
import io
import json
import tarfile
import warnings

import numpy as np
import pytest
from real_files import (
    IMAGES,
    LABELS,
    MASK,
    NAMES,
    ORDER,
    PNGS,
    M,
    nchw,
    refused,
    wds,
    write_csv,
    write_parquet,
    write_shards,
    write_tar,
)

from bre.inputs import open_dataset

# ---- tar


def test_webdataset_reads_what_is_kept(tmp_path):
    dataset = open_dataset(write_shards(tmp_path / "set"))
    out = dataset.keep(MASK, tmp_path / "kept")
    shards = sorted(str(p) for p in out.iterdir())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # of webdataset, which leaves its shards open
        samples = list(wds.WebDataset(shards, shardshuffle=False, empty_check=False))
        gc.collect()
    kept = np.flatnonzero(MASK)
    assert [json.loads(s["json"])["id"] for s in samples] == kept.tolist()
    assert [s["png"] for s in samples] == [PNGS[i] for i in kept]


def test_tar_endings_are_said_where_several_could_be(tmp_path):
    with wds.TarWriter(str(tmp_path / "set.tar")) as sink:
        for i in range(M):
            sink.write({"__key__": f"{i}", "rgb.png": PNGS[i], "png": PNGS[0], "a.txt": NAMES[LABELS[i]]})
    with refused(r"set\.tar, 0: expected one label \(\.cls\), found members .*argument columns"):
        open_dataset(tmp_path / "set.tar")
    dataset = open_dataset(tmp_path / "set.tar", columns=("rgb.png", "a.txt"))
    np.testing.assert_array_equal(dataset.read(ORDER), nchw(IMAGES)[ORDER])


def add(tar, name, data=b"", **attributes):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in attributes.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize(
    ("members", "match"),
    [
        ([("a.png", PNGS[0])], r"a: expected one label \(\.cls\), found members \['\.png'\]"),
        ([("a.cls", b"1")], r"a: expected one image"),
        ([("a.png", PNGS[0]), ("a.cls", b"x" * 2000)], "label is 2000 bytes long"),
        ([("a.png", PNGS[0]), ("a.cls", b"\xff\xfe")], "no UTF-8"),
        ([("a.png", PNGS[0]), ("a.cls", b" ")], "empty label"),
        ([("a.png", PNGS[0]), ("a.png", PNGS[0])], "'a.png' twice"),
        ([("a.png", PNGS[0]), ("a.jpg", PNGS[0]), ("a.cls", b"1")], "expected one image"),
        ([], "is empty"),
    ],
)
def test_tars_of_other_things(tmp_path, members, match):
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        for name, data in members:
            add(tar, name, data)
    with refused(match):
        open_dataset(tmp_path / "set.tar")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_tars_with_links_and_devices(tmp_path, kind):
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        add(tar, "a.png", type=kind, linkname="/etc/passwd")
    with refused("'a.png', which is no regular file"):
        open_dataset(tmp_path / "set.tar")


def test_names_in_a_tar_are_never_paths(tmp_path):
    (tmp_path / "deep").mkdir()
    with tarfile.open(tmp_path / "deep" / "set.tar", "w") as tar:
        for i in range(M):
            add(tar, f"../../{i}.png", PNGS[i])
            add(tar, f"../../{i}.cls", b"%d" % LABELS[i])
    dataset = open_dataset(tmp_path / "deep" / "set.tar")
    dataset.keep(MASK, tmp_path / "deep" / "kept.tar")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["deep", "kept.tar", "set.tar"]


def test_long_names_and_folders_in_a_tar(tmp_path):
    with tarfile.open(tmp_path / "set.tar", "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "x"}) as tar:
        add(tar, "a", type=tarfile.DIRTYPE)
        for i in range(M):
            add(tar, f"a/{'é' * 120}{i}.png", PNGS[i])
            add(tar, "a/._junk", b"x")
            add(tar, f"a/{'é' * 120}{i}.cls", b"%d\n" % LABELS[i])
    dataset = open_dataset(tmp_path / "set.tar")
    out = dataset.keep(MASK, tmp_path / "kept.tar")
    np.testing.assert_array_equal(open_dataset(out).read(np.arange(9)), nchw(IMAGES)[MASK])
    with tarfile.open(out) as tar:
        assert len(tar.getnames()) == 9 * 3  # what lies between a sample's members goes with it


def test_packed_tars(tmp_path):
    with tarfile.open(tmp_path / "set.tar.gz", "w:gz") as tar:
        add(tar, "a.png", PNGS[0])
    with refused("compressed.*unpack it"):
        open_dataset(tmp_path / "set.tar.gz")


# ---- CSV


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "is empty"),
        ("path,label\n", "dataset is empty"),
        ("a,b\nx,1\n", r"expected one image column .* found \['a', 'b'\].*argument columns"),
        ("path,label\nimages/00.png\n", "line 2 has 1 columns, the first row has 2"),
        ("path,label\nnone.png,1\n", "line 2 names 'none.png', which is no file in"),
        ("path,label\n../secret.png,1\n", r"names '\.\./secret\.png', which lies outside"),
        ("path,label\n/etc/passwd,1\n", "names '/etc/passwd', which lies outside"),
        ("path,label\nimages,1\n", "names 'images', which is no file"),
        ("path,label\n,1\n", "line 2 names no file"),
        ("path,label\nlink.png,1\n", "names 'link.png', which lies outside"),
        ("path,label\nimages/00.png,\n", "image 0 has an empty label"),
        ("path,label\nimages/00.png,-1\n", ">= 0"),
        ('path,label\n"images/00.png,1\n', "damaged, or no UTF-8 CSV"),
        (b"path,label\n\xff\xfe,1\n", "damaged, or no UTF-8 text"),
        (b"path,label\n\0,1\n", "names no file|damaged"),
        ("path,label\n" + "x" * 5000 + ",1\n", "File name too long|no file"),
        ("path,label\n" + "x" * 200_000 + ",1\n", "field larger"),
    ],
)
def test_csvs_of_other_things(tmp_path, text, match):
    root = tmp_path / "set"
    root.mkdir()
    write_csv(root / "set.csv")
    (tmp_path / "secret.png").write_bytes(PNGS[0])
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "set.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with refused(match):
        open_dataset(root / "set.csv")


def test_a_csv_of_numbers_absolute_paths_and_other_names(tmp_path):
    write_csv(tmp_path / "set.csv", names=None)
    assert open_dataset(tmp_path / "set.csv").class_names == ("0", "1", "2")
    text = (tmp_path / "set.csv").read_text().replace("images/", f"{tmp_path}/images/")
    (tmp_path / "set.csv").write_text("\ufeff" + text.replace("path,label", "Where,what"), encoding="utf-8")
    dataset = open_dataset(tmp_path / "set.csv", columns=("Where", "what"))
    np.testing.assert_array_equal(dataset.read(ORDER), nchw(IMAGES)[ORDER])


def test_a_csv_keeps_its_other_columns_beside_it_only(tmp_path):
    dataset = open_dataset(write_csv(tmp_path / "set.csv"))
    (tmp_path / "elsewhere").mkdir()
    with refused("relative to its folder"):
        dataset.keep(MASK, tmp_path / "elsewhere" / "kept.csv")
    lines = dataset.keep(MASK, tmp_path / "kept.csv").read_text().splitlines()
    assert lines[:2] == ["id,path,label", "no. 0,images/00.png,ant"]
    assert len(lines) == 10


def test_a_class_that_is_known_by_its_images_only_must_stay(tmp_path):
    for path in (write_csv(tmp_path / "set.csv"), write_tar(tmp_path / "set.tar")):
        with refused("every image of class 'bee' would go"):
            open_dataset(path).keep(LABELS != 1, tmp_path / f"kept{path.suffix}")
    path = write_parquet(tmp_path / "set.parquet")  # which has the names
    assert open_dataset(open_dataset(path).keep(LABELS != 1, tmp_path / "kept.parquet")).class_names == tuple(NAMES)


@pytest.mark.parametrize("name", ["kept.tsv", "kept", "kept.npz"])
def test_what_is_kept_of_a_csv_is_read_as_one(tmp_path, name):
    with refused("would not be read as what set.csv is: give a name that ends alike"):
        open_dataset(write_csv(tmp_path / "set.csv")).keep(MASK, tmp_path / name)
    with refused("would not be read as what set.tar is"):
        open_dataset(write_tar(tmp_path / "set.tar")).keep(MASK, tmp_path / "kept.csv")


def test_a_refused_path_is_named_once(tmp_path):
    write_csv(tmp_path / "set.csv")
    text = (tmp_path / "set.csv").read_text().replace("images/00.png", "../..")
    (tmp_path / "set.csv").write_text(text)
    with refused("outside of the folder .*arguments root, follow_links") as error:
        open_dataset(tmp_path / "set.csv")
    assert str(error.value).count("set.csv") == 1


# ---- lists as people write them


def images_for(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in zip(names, PNGS, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def check(path, expected=NAMES, **options):
    dataset = open_dataset(path, **options)
    assert [dataset.class_names[k] for k in dataset.labels] == [expected[k] for k in LABELS]
    np.testing.assert_array_equal(dataset.read(np.arange(M)), nchw(IMAGES))
    return dataset


@pytest.mark.parametrize("separator", [",", ";", "\t", "|", ", "])
@pytest.mark.parametrize(
    ("image", "label"),
    [("path", "label"), ("Filename", "ClassId"), ("Image Path", "Class Name"), ("images", "labels"), ("image-id", "y")],
)
def test_separators_and_names_of_columns(tmp_path, separator, image, label):
    images_for(tmp_path, [f"{i}.png" for i in range(M)])
    rows = [["no", image, label], *([str(i), f"{i}.png", NAMES[LABELS[i]]] for i in range(M))]
    text = "\r\n".join(separator.join(row) for row in rows)
    (tmp_path / "set.csv").write_text(text, newline="")
    kept = check(tmp_path / "set.csv").keep(MASK, tmp_path / "kept.csv")
    assert len(open_dataset(kept)) == MASK.sum()
    check(tmp_path / "set.csv", columns=(image, label))


def test_paths_of_windows_and_ids_without_an_ending(tmp_path):
    images_for(tmp_path / "a b", [f"{i}.JPG" for i in range(M)])
    rows = "".join(f"a b\\{i}.JPG,{NAMES[LABELS[i]]}\n" for i in range(M))
    (tmp_path / "set.csv").write_text("path,label\n" + rows)
    check(tmp_path / "set.csv")
    (tmp_path / "ids.csv").write_text("id,breed\n" + rows.replace("a b\\", "").replace(".JPG", ""))
    check(tmp_path / "ids.csv", root=tmp_path / "a b")
    with refused("which is no file in .*argument root"):
        open_dataset(tmp_path / "ids.csv")


@pytest.mark.parametrize("name", ["set.txt", "set.lst", "set.csv", "set.tsv"])
@pytest.mark.parametrize("separator", [" ", "\t", ",", ";"])
def test_plain_lists(tmp_path, name, separator):
    images_for(tmp_path, [f"im/{i}.png" for i in range(M)])
    rows = [f"im/{i}.png{separator}{LABELS[i]}\n" for i in range(M)]
    (tmp_path / name).write_text("".join(rows))
    out = check(tmp_path / name, "012").keep(MASK, tmp_path / f"kept{name[3:]}")
    assert out.read_text().split() == "".join(np.array(rows)[MASK]).split()


def test_lists_with_comments_names_and_spaces(tmp_path):
    """As Oxford's pets, and what people make of them."""
    images_for(tmp_path / "images", [f"a b {i}.jpg" for i in range(M)])
    rows = [f"a b {i}.jpg {LABELS[i]}\n" for i in range(M)]
    (tmp_path / "images" / "set.txt").write_text("# path, label\n" + "".join(rows))
    check(tmp_path / "images" / "set.txt", "012").keep(MASK, tmp_path / "images" / "kept.txt")
    assert (tmp_path / "images" / "kept.txt").read_text() == "".join(np.array(rows)[MASK])
    images_for(tmp_path / "pets", [f"cat_{i}.jpg" for i in range(M)])
    (tmp_path / "list.txt").write_text("#Image CLASS-ID\n" + "".join(f"cat_{i} {LABELS[i]} 1 1\n" for i in range(M)))
    check(tmp_path / "list.txt", "012", root=tmp_path / "pets", columns=("0", "1"))
    (tmp_path / "named.txt").write_text("filename   label\n" + "".join(f"cat_{i} {LABELS[i]}\n" for i in range(M)))
    out = check(tmp_path / "named.txt", "012", root=tmp_path / "pets").keep(MASK, tmp_path / "kept.txt")
    assert len(open_dataset(out, root=tmp_path / "pets")) == MASK.sum()


def test_plain_lists_in_another_order(tmp_path):
    """As MXNet has them: number, label, path."""
    images_for(tmp_path, [f"{i}.png" for i in range(M)])
    (tmp_path / "set.lst").write_text("".join(f"{i}\t{LABELS[i]}\t{i}.png\n" for i in range(M)))
    with refused("argument columns"):
        open_dataset(tmp_path / "set.lst")
    check(tmp_path / "set.lst", "012", columns=("2", "1")).keep(MASK, tmp_path / "kept.lst")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "is empty"),
        ("[1]\n", "line 1 holds list, expected an object"),
        ("{\n", "line 1 is damaged, or no JSON"),
        ('{"a": 1}\n', "expected one image column .*argument columns"),
        ('{"file_name": "0.png"}\n', "expected one label column"),
        ('{"file_name": "0.png", "label": 1.5}\n', "'label' must be a whole number or a name, got '1.5'"),
        ('{"file_name": "0.png", "label": null}\n', "must be a whole number or a name"),
        ('{"file_name": "0.png", "label": true}\n', "must be a whole number or a name"),
        ('{"file_name": ["0.png"], "label": 1}\n', "'file_name' must be a path"),
        ('{"file_name": "../0.png", "label": 1}\n', "lies outside|no file"),
        ('{"file_name": "0.png", "label": 1' + "0" * 5000 + "}\n", "no JSON|whole number"),
        ('{"file_name": "0.png", "label": 1}\n{"file_name": "0.png"}\n', "line 2: 'label' must be"),
    ],
)
def test_json_lines_of_other_things(tmp_path, text, match):
    images_for(tmp_path, [f"{i}.png" for i in range(M)])
    (tmp_path / "set.jsonl").write_text(text)
    with refused(match):
        open_dataset(tmp_path / "set.jsonl")


# ---- tars as people make them


def in_order(path, order):
    """Members of (key, ending) in this order; samples are called 0 to M - 1."""
    with tarfile.open(path, "w") as tar:
        for i, ending in order:
            meta = {"label": int(LABELS[i]), "meta": {"name": NAMES[LABELS[i]]}}
            add(
                tar,
                f"{i}.{ending}",
                {"png": PNGS[i], "cls": b"%d" % LABELS[i], "json": json.dumps(meta).encode()}[ending],
            )
    return path


def test_images_and_labels_in_other_orders(tmp_path):
    everything = range(M)
    orders = {
        "images first": [(i, "png") for i in everything] + [(i, "cls") for i in reversed(everything)],
        "labels first": [(i, "cls") for i in everything] + [(i, "png") for i in everything],
        "json last": [(i, e) for i in everything for e in ("png", "cls")] + [(i, "json") for i in everything],
    }
    for name, order in orders.items():
        dataset = open_dataset(in_order(tmp_path / f"{name}.tar", order))
        labels = dataset.labels.tolist()
        images = dataset.read(np.arange(M))
        again = open_dataset(dataset.keep(MASK, tmp_path / f"kept {name}.tar"))
        assert again.labels.tolist() == np.array(labels)[MASK].tolist()
        np.testing.assert_array_equal(again.read(np.arange(9)), images[MASK])
        if name != "labels first":
            np.testing.assert_array_equal(images, nchw(IMAGES))
    assert "12 members that belong to no sample were left out" in dataset.notes[0]


def test_labels_in_json_members(tmp_path):
    path = in_order(tmp_path / "set.tar", [(i, e) for i in range(M) for e in ("png", "json")])
    with refused(r"expected one label \(\.cls\).*json:KEY for a value in a JSON member .argument columns"):
        open_dataset(path)
    with refused("its label is a JSON object: name the value in it, as in png,json:label .argument columns"):
        open_dataset(path, columns=("png", "json"))
    assert open_dataset(path, columns=("png", "json:label")).labels.tolist() == LABELS.tolist()
    assert open_dataset(path, columns=("png", "json:meta.name")).class_names == tuple(NAMES)
    for key, match in (
        ("x", "its JSON has no 'x'"),
        ("label.x", "its JSON has no 'label.x'"),
        ("meta", "must be a whole"),
    ):
        with refused(match):
            open_dataset(path, columns=("png", f"json:{key}"))


def test_a_json_member_that_is_damaged_or_endless(tmp_path):
    for data in (b"{", b"[" * 100_000, b'"' + b"x" * (2 << 20) + b'"'):
        with tarfile.open(tmp_path / "set.tar", "w") as tar:
            add(tar, "0.png", PNGS[0])
            add(tar, "0.json", data)
        with refused("damaged, or no JSON"):
            open_dataset(tmp_path / "set.tar", columns=("png", "json:label"))
