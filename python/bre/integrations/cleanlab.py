"""cleanlab's Datalab: a report as one more kind of issue.

    import bre.integrations.cleanlab  # registers it
    lab.find_issues(issue_types={"backdoor": {"report": report}})

Needs cleanlab (`pip install 'bre-engine[cleanlab]'`).
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ..errors import InputError
from ..inputs._extras import need
from ..report import Report
from ..verbs.annotate import Annotations

_manager: Any = need("cleanlab.datalab.internal.issue_manager", "cleanlab", "an issue of Datalab").IssueManager
_register: Any = need("cleanlab.datalab.internal.issue_manager_factory", "cleanlab", "an issue of Datalab").register


@_register
class BackdoorIssueManager(_manager):  # type: ignore[misc]
    """Images that carry a pattern which was planted in their class, or one that belongs to the class.

    The score of an image is the probability that it does not carry the finding's pattern, 1 where no finding flags it.
    Properties of classes count only with `properties=True`.
    """

    description: ClassVar[str] = (
        "Images that share a pattern which other images of their class lack and a network would learn as a shortcut to "
        "that class: a backdoor that somebody planted."
    )
    issue_name: ClassVar[str] = "backdoor"
    verbosity_levels: ClassVar[dict[int, list[str]]] = {0: [], 1: [], 2: [], 3: []}

    def find_issues(self, report: Report | str | None = None, properties: bool = False, **_options: Any) -> None:
        """report: of `screen` or `detect` on the data set that the lab holds, in its order, or the path of a saved one.

        Raises InputError without one, and for one on another number of images.
        """
        import pandas as pd

        if report is None:
            raise InputError("the backdoor check needs a report: issue_types={'backdoor': {'report': report}}")
        report = report if isinstance(report, Report) else Report.load(report)
        count = len(self.datalab.data)
        if report.dataset.count != count:
            raise InputError(f"the report is about {report.dataset.count} images, the lab holds {count}")
        found = Annotations(report)
        flagged = np.array([kind == "poison" or (properties and kind == "property") for kind in found.kind], bool)
        scores = np.ones(count)
        scores[flagged] = 1 / (1 + np.exp(np.clip(found.log_odds[flagged], -700, 700)))
        self.issues = pd.DataFrame({f"is_{self.issue_name}_issue": flagged, self.issue_score_key: scores})
        self.summary = self.make_summary(score=float(scores.mean()))
        self.info = self.collect_info(report)

    def collect_info(self, report: Report) -> dict[str, Any]:
        """What the report says as a whole."""
        return {
            "verdict": "poisoned" if report.poisoned else "nothing found",
            "p_value": report.p_value,
            "alpha": report.alpha,
            "targets": [report.dataset.class_names[finding.target] for finding in report.findings if finding.is_poison],
        }
