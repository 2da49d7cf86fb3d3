"""What a report says of each image, beside the images: columns, a wrapper, a CSV, a table."""

import csv

import numpy as np
import pytest
import torch
from reports import flagging

import bre
from bre.errors import InputError
from bre.verbs.annotate import NAMES

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 3, 6, 6), dtype=np.uint8)
LABELS = np.arange(12) % 3


@pytest.fixture
def report():
    """Flags images 1 and 4 of class 1, and 5 of class 2."""
    return flagging((IMAGES, LABELS), {1: [1, 4], 2: [5]})


class Items(torch.utils.data.Dataset):
    def __init__(self, make):
        self.make, self.classes = make, ["a", "b", "c"]

    def __len__(self):
        return 12

    def __getitem__(self, i):
        return self.make(torch.from_numpy(IMAGES[i]), int(LABELS[i]))


def test_columns_of_a_hugging_face_dataset(report):
    datasets = pytest.importorskip("datasets")
    from PIL import Image

    pictures = [Image.fromarray(image.transpose(1, 2, 0)) for image in IMAGES]
    data = datasets.Dataset.from_dict({"image": pictures, "label": LABELS.tolist()})
    found = bre.annotate(data, report)
    assert found["bre_flagged"][:] == [i in (1, 4, 5) for i in range(12)]
    assert found["bre_finding"][:] == [0, 1, 0, 0, 1, 2, *[0] * 6]
    assert found["bre_kind"][1] == "poison"
    assert found["bre_log_odds"][1] == pytest.approx(float(report.findings[0].log_odds[0]))
    assert found.column_names[:2] == data.column_names
    with pytest.raises(InputError, match="has columns of these names already"):
        bre.annotate(found, report)


@pytest.mark.parametrize(
    ("make", "part"),
    [(lambda x, k: (x, k), lambda item: item[2]), (lambda x, k: {"image": x, "label": k}, lambda item: item)],
)
def test_a_wrapper_of_a_torch_dataset(report, make, part):
    data = Items(make)
    for found in (bre.annotate(data, report), bre.annotate(torch.utils.data.DataLoader(data, batch_size=4), report)):
        assert len(found) == 12
        assert found.classes == data.classes
        rows = [part(found[i]) for i in range(12)]
        assert [row["bre_finding"] for row in rows] == [0, 1, 0, 0, 1, 2, *[0] * 6]
        assert part(found[-8])["bre_flagged"]
        batch = next(iter(torch.utils.data.DataLoader(found, batch_size=12)))
        assert part(batch)["bre_flagged"].tolist() == [i in (1, 4, 5) for i in range(12)]


def test_a_csv_of_all_images(report, tmp_path):
    out = bre.annotate((IMAGES, LABELS), report, out=tmp_path / "images.csv")
    with out.open(newline="") as f:
        rows = list(csv.DictReader(f))
    assert list(rows[0]) == ["index", "image", "label", "class_name", *NAMES]
    assert [row["bre_kind"] for row in rows] == ["poison" if i in (1, 4, 5) else "" for i in range(12)]
    assert rows[0]["bre_log_odds"] == ""
    assert float(rows[5]["bre_log_odds"]) == pytest.approx(float(report.findings[1].log_odds[0]))
    with pytest.raises(InputError, match="exists already"):
        bre.annotate((IMAGES, LABELS), report, out=out)


def test_what_cannot_be_annotated(report):
    with pytest.raises(InputError, match=r"are arrays: give a path for a table.*argument out"):
        bre.annotate((IMAGES, LABELS), report)
    with pytest.raises(InputError, match="about another dataset"):
        bre.annotate((IMAGES, LABELS[::-1].copy()), report)


def test_a_pandas_table(report):
    found = report.to_pandas()
    assert found.index.tolist() == [1, 4, 5]
    assert found["finding"].tolist() == [1, 1, 2]
    assert found["label"].tolist() == [1, 1, 2]
    np.testing.assert_allclose(found["log_odds"], [*report.findings[0].log_odds, *report.findings[1].log_odds])
    assert report.to_pandas((IMAGES, LABELS))["image"].tolist() == ["image 1", "image 4", "image 5"]
    with pytest.raises(InputError, match="about another dataset"):
        report.to_pandas((IMAGES[:9], LABELS[:9]))


def test_a_table_of_nothing():
    assert len(flagging((IMAGES, LABELS), {}).to_pandas()) == 0
