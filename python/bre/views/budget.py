"""How many images one network gets: at once, so that memory is bounded, and to fit and judge patterns with.

Both follow from what the network keeps of one image for the gradient, which is counted, so that the same network gets
the same on every machine, whatever else runs there. Bytes kept are also what a pass costs, up to a factor of a few:
most layers of a network wait for memory, and the others' arithmetic grows with their maps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..inputs import Classifier
from .pattern_batch import MAX_ROWS

# bytes; kept of all images that go through the network at once; source: chosen, `detect` may take 4 GiB, and gradients,
# images and torch itself take about as much again
PASS_BYTES = 2**30
# bytes; kept of one image, up to which all numbers of images are in full; source: derived, where MAX_ROWS images fit
CHEAP_BYTES = PASS_BYTES // MAX_ROWS
# share; of these numbers, what the dearest network gets; source: simulated, a backdoor of one source class among ten is
# seen by five images of it: at 32 x 32 it was found for four seeds of four with this share, for one of three with 0.25
# and for none with 0.12; two of all source classes for six of six with 0.25, for five with 0.12
MIN_SHARE = 0.3


@dataclass(frozen=True)
class Budget:
    """rows: images that go through the network at once; share: in (0, 1], of the numbers of images that patterns are
    fitted to and judged on."""

    rows: int = MAX_ROWS
    share: float = 1.0

    @classmethod
    def of(cls, classifier: Classifier, image_shape: tuple[int, int, int]) -> Budget:
        """For an entered and checked classifier of images (C, H, W).

        The variance of a mean over n images falls as 1 / n and its cost rises as n times one image's, c: their sum is
        least at an n proportional to c ** -0.5.
        """
        needed = bytes_per_image(classifier, image_shape)
        share = min(1.0, max((CHEAP_BYTES / needed) ** 0.5, MIN_SHARE))
        return cls(max(1, min(MAX_ROWS, PASS_BYTES // needed)), share)

    def images(self, number: int) -> int:
        """What this network gets where a cheap one gets `number`."""
        return math.ceil(self.share * number)


def bytes_per_image(classifier: Classifier, image_shape: tuple[int, int, int]) -> int:
    """What one image of a forward and backward pass takes: what autograd keeps, the image and its gradient.

    From a pass of n grey images and one of 2 n, n the fewest that the network takes, so that weights and their
    copies, which both keep, are not counted.
    """
    fewest = classifier.fewest
    more, less = (_kept(classifier, torch.Size((n, *image_shape))) for n in (2 * fewest, fewest))
    return max(more - less, 0) // fewest + 2 * math.prod(image_shape) * torch.float32.itemsize


def _kept(classifier: Classifier, shape: torch.Size) -> int:
    """Bytes that autograd keeps of a forward pass; tensors that share memory count once."""
    kept: dict[int, int] = {}
    alive: list[torch.UntypedStorage] = []  # until all are counted: the address of one that is freed may come again

    def count(saved: Tensor) -> Tensor:
        storage = saved.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        alive.append(storage)
        return saved

    grey = torch.full(shape, 0.5, dtype=classifier.precision, device=classifier.device)
    inputs = grey.contiguous(memory_format=torch.channels_last).requires_grad_()
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(count, lambda saved: saved):
        classifier.logits(inputs, look=False)
    return sum(kept.values())
