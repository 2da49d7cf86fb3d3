"""The doors: what a user may hand to bre, turned into two small types, `ImageSet` and `Classifier`.

Here live adapters and their validation, one format to a file: nothing in this folder estimates, scores or
decides. Everything that came from outside is checked here, once; the layers above assume an ImageSet gives
valid uint8 (m, C, H, W) blocks and a Classifier gives finite (n, K) logits.
"""

from .datasets.imageset import ImageSet
from .datasets.open_dataset import open_dataset
from .models.activations import Layer
from .models.open_model import Classifier, open_model

__all__ = ["Classifier", "ImageSet", "Layer", "open_dataset", "open_model"]
