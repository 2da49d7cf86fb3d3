"""What a page holds, for tests that look into one."""

from __future__ import annotations

import base64
import dataclasses
import html.parser
import io

import numpy as np
from PIL import Image
from reports import NAMES, SHAPE, make_finding, make_histogram, make_report

from bre.inputs import open_dataset
from bre.report import ClassRow, StatisticTest, dataset_facts


class Elements(html.parser.HTMLParser):
    """Every element of a document with its attributes, and its text."""

    def __init__(self, page):
        super().__init__()
        self.found, self.words = [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def all(self, tag):
        return [attrs for name, attrs in self.found if name == tag]


def pixels(url):
    """(H, W, C) of a data: URL."""
    kind, _, data = url.partition(",")
    assert kind == "data:image/png;base64"
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    return np.asarray(image).reshape(*image.size[::-1], -1)


def make_data():
    """Twenty images, 2, 4 and 9 of them in class 2, as `make_finding` flags them."""
    labels = np.arange(20) % 4
    labels[[2, 4, 9]] = 2
    return np.random.default_rng(1).integers(0, 256, (20, *SHAPE), dtype=np.uint8), labels


def about(data, **changes):
    rows = [ClassRow(k, name, 5, True, 1.5 + 20 * (k == 2), 0.4 + k, 0.8) for k, name in enumerate(NAMES)]
    findings = changes.pop("findings", (make_finding(histogram=make_histogram()),))
    facts = dataclasses.replace(dataset_facts(open_dataset(data), findings), class_names=NAMES)
    tests = (StatisticTest("image_statistic", 0.025, 9.0), StatisticTest("model_statistic", 0.025, 6.0))
    return make_report(**{"dataset": facts, "classes": rows, "findings": findings, "tests": tests, **changes})
