"""bre in other people's programs, against the real ones."""

import numpy as np
import pytest
from PIL import Image
from reports import flagging

from bre.errors import InputError
from bre.inputs import open_dataset

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 6, 6, 3), dtype=np.uint8)
LABELS = np.arange(12) % 3


def test_an_issue_of_cleanlab():
    pytest.importorskip("cleanlab", exc_type=ImportError)
    from cleanlab import Datalab

    import bre.integrations.cleanlab  # noqa: F401

    report = flagging((IMAGES, LABELS), {1: [1, 4], 2: [5]})
    lab = Datalab(data={"label": LABELS.tolist()}, label_name="label", verbosity=0)
    lab.find_issues(issue_types={"backdoor": {"report": report}})
    found = lab.get_issues("backdoor")
    assert np.flatnonzero(found["is_backdoor_issue"]).tolist() == [1, 4, 5]
    odds = np.exp(-report.findings[0].log_odds.astype(float))
    np.testing.assert_allclose(found["backdoor_score"][[1, 4]], odds / (1 + odds), rtol=1e-5)
    assert found["backdoor_score"].drop([1, 4, 5]).eq(1).all()
    assert lab.get_info("backdoor")["verdict"] == "poisoned"


def test_cleanlab_with_a_report_on_something_else():
    pytest.importorskip("cleanlab", exc_type=ImportError)
    from bre.integrations.cleanlab import BackdoorIssueManager

    class Lab:
        data = range(9)

    manager = BackdoorIssueManager(Lab())
    with pytest.raises(InputError, match="about 12 images, the lab holds 9"):
        manager.find_issues(report=flagging((IMAGES, LABELS), {1: [1]}))
    with pytest.raises(InputError, match="needs a report"):
        manager.find_issues()


class Sample(dict):
    """What of FiftyOne's samples is used."""

    def __init__(self, filepath, tags):
        self.filepath, self.tags, self.in_dataset, self.saved = filepath, tags, True, 0

    def save(self):
        self.saved += 1


def files(root):
    for i, image in enumerate(IMAGES):
        (root / "abc"[LABELS[i]]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / "abc"[LABELS[i]] / f"{i:02}.png")
    return root


@pytest.mark.parametrize("real", [False, True])
def test_tags_of_fiftyone(tmp_path, real):
    make = Sample
    if real:
        fiftyone = pytest.importorskip("fiftyone", exc_type=ImportError)

        def make(filepath, tags):
            return fiftyone.Sample(filepath=filepath, tags=tags)

    from bre.integrations.fiftyone import POISON, tag

    root = files(tmp_path / "set")
    images = open_dataset(root)
    paths = [str(images.file(i)) for i in range(12)]
    report = flagging(root, {1: [5, 6]})
    samples = [make(path, ["mine", *([POISON] if i == 0 else [])]) for i, path in enumerate(paths)]
    assert tag(samples, root, report) == 2
    assert [sample.tags for sample in samples] == [["mine", POISON] if i in (5, 6) else ["mine"] for i in range(12)]
    assert samples[5]["bre_finding"] == 1
    assert samples[6]["bre_log_odds"] == pytest.approx(float(report.findings[0].log_odds[1]))
    if not real:
        assert [sample.saved for sample in samples] == [1, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0]
    with pytest.raises(InputError, match="none of the samples is one of the images"):
        tag([make("/elsewhere/x.png", [])], root, report)
    with pytest.raises(InputError, match="files of their own"):
        tag(samples, (IMAGES, LABELS), flagging((IMAGES, LABELS), {1: [1]}))
