"""What a search could find at best: how evident a pattern is to one who starts from the images that carry it."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.accuracy.size_cases import SizeCase
from bre.inputs import open_dataset
from bre.method import clusters, levels, near_duplicates, stats
from bre.runs.run import Run
from bre.views.backgrounds import gather
from bre.views.class_search import ClassSearch, encoded
from bre.views.passes import Passes


def best_statistic(case: SizeCase, seed: int = 0) -> float:
    """The image statistic of the target class if the search started from the planted images, in every window of every
    level: above the statistic that a verdict needs, the search missed something; below it, the pattern is as evident as
    what natural classes hold anyway."""
    passes = Passes(open_dataset((case.images, case.labels)), "cpu")
    search = ClassSearch(passes, gather(passes, seed, Run(), lambda _: None), seed)
    members = search.members[int(case.target or 0)]
    images, whitenings = passes.read(members), search.backgrounds.without(int(case.target or 0))
    pyramid = levels.pyramid(images, [whitening.level for whitening in whitenings])
    kept = np.flatnonzero(near_duplicates.distinct(levels.halve(pyramid[-1]), near_duplicates.digests(images)))
    truth = torch.from_numpy(case.poisoned[members[kept]])
    most = 0.0
    for number, (whitening, some) in enumerate(zip(whitenings, pyramid, strict=True)):
        codes = encoded(whitening, some, kept)
        for window in codes.level.windows:
            scores = clusters.standardised(clusters.shares(codes, window, truth)[None])[0]
            table = stats.second_modes(scores[None].numpy(), floor=clusters.MODE_FLOOR, width=clusters.MODE_WIDTH)[0]
            if table[0] > 0.8 * most:
                most = max(most, clusters.sharpen(codes, number, window, scores, table).evidence, float(table[0]))
    return float(stats.class_statistics(np.array([most]), np.array([len(kept)]))[0])
