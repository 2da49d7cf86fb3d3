"""What a search could find at best: how evident a pattern is to one who starts from the images that carry it."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch

from benchmarks.accuracy.size_cases import SizeCase
from bre.inputs import open_dataset
from bre.method import clusters, levels, near_duplicates, stats
from bre.method.codes import Codes
from bre.runs.run import Run
from bre.views.backgrounds import gather
from bre.views.class_search import ClassSearch, Searched, encoded, to_compare
from bre.views.elsewhere import Compared, compared
from bre.views.mark_evidence import least_surplus, look_at_marks
from bre.views.passes import Passes


class Limits:
    """The target class of a case, searched from its planted images."""

    def __init__(self, case: SizeCase, seed: int = 0):
        passes = Passes(open_dataset((case.images, case.labels)), "cpu")
        self.case, self.label = case, int(case.target or 0)
        self.search = ClassSearch(passes, gather(passes, seed, Run(), lambda _: None), seed)
        self.members = self.search.members[self.label]
        self.whitenings = self.search.backgrounds.without(self.label)
        images = passes.read(self.members)
        self.pyramid = levels.pyramid(images, [whitening.level for whitening in self.whitenings])
        coarse = levels.halve(self.pyramid[-1])
        self.kept = np.flatnonzero(near_duplicates.distinct(coarse, near_duplicates.digests(images)))

    @cached_property
    def codes(self) -> list[Codes]:
        return [encoded(each, some, self.kept) for each, some in zip(self.whitenings, self.pyramid, strict=True)]

    def sharpened(self, *, falling: bool) -> list[clusters.Found]:
        """In every window of every level, from the planted images; most evidence first."""
        truth = torch.from_numpy(self.case.poisoned[self.members[self.kept]])
        out, most = list[clusters.Found](), 0.0
        for number, codes in enumerate(self.codes):
            for window in codes.level.windows:
                scores = clusters.standardised(clusters.shares(codes, window, truth)[None])[0]
                (table,) = stats.second_modes(
                    scores[None].numpy(), floor=clusters.MODE_FLOOR, width=clusters.MODE_WIDTH, falling=falling
                )
                if table[0] > 0.8 * most:
                    candidate = clusters.Candidate(number, window, scores, table, falling)
                    out.append(clusters.sharpen(codes, candidate))
                    most = max(most, out[-1].evidence, float(table[0]))
        return sorted(out, key=lambda found: -found.evidence)

    @cached_property
    def compared(self) -> Compared:
        """What the planted images share, beside other classes."""
        found = clusters.Best(self.sharpened(falling=False), self.sharpened(falling=True))
        modes, marks = to_compare(self.whitenings, self.codes, found, self.pyramid, self.kept)
        best = found.anywhere[0] if found.anywhere else None
        searched = Searched(self.members[self.kept], best, None, modes=modes, marks=marks)
        ((_, each),) = compared(self.search, [(self.label, searched)], Run(), least_surplus(self.search))
        return each

    @property
    def statistic(self) -> float:
        """The image statistic: above what a verdict needs, the search missed something; below it, the pattern is as
        evident as what natural classes hold anyway."""
        evidence = np.array([self.compared.searched.evidence])
        return float(stats.class_statistics(evidence, np.array([len(self.kept)]))[0])

    @property
    def mark_p_value(self) -> float:
        """Of what the planted images share in one place."""
        return float(look_at_marks(self.search, {self.label: self.compared}, Run()).p_values[self.label])
