"""Two published detectors that look inside the network, with their published settings: from their papers, and from
reading their published code for what those leave open.

  flare  FLARE (Hou et al., IEEE TIFS 2025, arXiv 2411.19479): of each batch norm, the least log-likelihood of an
         image's activations under the layer's own mean and variance; UMAP to two dimensions; HDBSCAN; the tree of
         clusters is cut where the largest branch is stable; what is outside of the largest cluster is poison. The last
         layers are left out one by one until a branch is stable.
  psbd   PSBD (Li et al., CVPR 2025, arXiv 2406.05826): how much an image's confidence drops when dropout is switched
         on behind every block; images that drop less than a quarter of the clean ones do are poison. It is given clean
         images of its own, 5% of the set.
Both return flags, bool (M,), and say with `Unsuited` where a network or a set lacks what they need.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

BATCH = 500
NEIGHBOURS, SMALLEST, STABLE, DEPTH = 40, 100, 0.02, 3  # UMAP's, HDBSCAN's, their xi, branches followed
PASSES, SHIFTED, QUARTER = 3, 0.8, 0.25  # of dropout; share of the clean images' predictions to shift; quantile
CHOOSING = 2000  # images of the set with which the rate is chosen; nine rates on all of them cost four times as much
RATES = tuple(rate / 10 for rate in range(1, 10))


class Unsuited(Exception):
    """Why a method cannot judge this network or set."""


def flare(net: nn.Module, images: np.ndarray) -> tuple[np.ndarray, dict[str, int]]:
    """net: float32 (n, C, H, W) in [0, 1] to logits, with batch norm; images: uint8 (M, C, H, W). Returns flags and how
    many of the last layers were left out (`left_out`); no flags where no branch is stable with any."""
    import hdbscan
    import umap

    likelihoods = _likelihoods(net, images)
    for left_out in range(likelihoods.shape[1]):
        kept = likelihoods[:, : likelihoods.shape[1] - left_out]
        places = umap.UMAP(n_neighbors=NEIGHBOURS, min_dist=0.0, n_components=2, random_state=42, n_jobs=1)
        clusters = hdbscan.HDBSCAN(min_cluster_size=SMALLEST, gen_min_span_tree=True)
        clusters.fit(places.fit_transform(kept))
        level = _stable_level(clusters.condensed_tree_.to_pandas())
        if level is not None:
            labels = clusters.single_linkage_tree_.get_clusters(1 / (level - 1e-4), min_cluster_size=SMALLEST)
            largest = np.bincount(labels[labels >= 0]).argmax() if (labels >= 0).any() else -1
            return (labels >= 0) & (labels != largest), {"left_out": left_out}
    return np.zeros(len(images), bool), {"left_out": likelihoods.shape[1]}


def _stable_level(tree: Any) -> float | None:
    """From the largest branch down its largest children, the density at which one lives on for more than STABLE."""
    node = tree.loc[tree["child_size"].idxmax()]
    for _ in range(DEPTH):
        children = tree[tree["parent"] == node["child"]]
        if not len(children):
            return None
        child = children.loc[children["child_size"].idxmax()]
        if child["lambda_val"] - node["lambda_val"] > STABLE:
            return float(child["lambda_val"])
        node = child
    return None


@torch.no_grad()
def _likelihoods(net: nn.Module, images: np.ndarray) -> np.ndarray:
    """float32 (M, layers): the least log-likelihood of any activation of each batch norm's input."""
    layers = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
    if len(layers) < 2:
        raise Unsuited("needs batch norm in more than one layer")
    least: list[list[Tensor]] = [[] for _ in layers]

    def keep(place: int) -> Callable[..., None]:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            assert isinstance(layer, nn.BatchNorm2d)
            mean, variance = layer.running_mean, layer.running_var
            assert mean is not None
            assert variance is not None
            normal = torch.distributions.Normal(mean.view(-1, 1, 1), (variance + layer.eps).sqrt().view(-1, 1, 1))
            least[place].append(normal.log_prob(inputs[0].float()).flatten(1).amin(1))

        return hook

    handles = [layer.register_forward_pre_hook(keep(place)) for place, layer in enumerate(layers)]
    try:
        for part in _batches(images):
            net(part)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack([torch.cat(each) for each in least], 1).numpy()


def psbd(net: nn.Module, images: np.ndarray, clean: np.ndarray, seed: int = 0) -> tuple[np.ndarray, dict[str, float]]:
    """net: with blocks in its child `net`; images: uint8 (M, C, H, W); clean: uint8 (n, C, H, W), of no training set.
    Returns flags, and the rate of dropout that was chosen: among those that shift SHIFTED of the clean images'
    predictions, where these shift most above those of CHOOSING of the set's; among all rates where none does."""
    torch.manual_seed(seed)
    some = np.sort(np.random.default_rng(seed).permutation(len(images))[:CHOOSING])
    plain_clean, plain = _softmax(net, clean), _softmax(net, images)
    found: list[tuple[float, float, float, np.ndarray]] = []
    for rate in RATES:
        with _dropped(net, rate):
            clean_shifts, clean_falls = _shift_and_fall(net, clean, plain_clean)
            shifts, _ = _shift_and_fall(net, images[some], plain[torch.from_numpy(some)])
        found.append((clean_shifts, clean_shifts - shifts, rate, clean_falls))
    able = [each for each in found if each[0] >= SHIFTED] or found
    _, _, rate, clean_falls = max(able, key=lambda each: each[1])
    with _dropped(net, rate):
        _, falls = _shift_and_fall(net, images, plain)
    return falls < np.quantile(clean_falls, QUARTER), {"rate": rate}


def _shift_and_fall(net: nn.Module, images: np.ndarray, plain: Tensor) -> tuple[float, np.ndarray]:
    """Share of predictions that dropout changes, and how far the confidence in the plain one falls, of each image."""
    label = plain.argmax(1)
    passes = [_softmax(net, images) for _ in range(PASSES)]
    shifted = float(torch.stack([each.argmax(1) != label for each in passes]).float().mean())
    fall = (plain - torch.stack(passes).mean(0)).gather(1, label[:, None])[:, 0]
    return shifted, fall.numpy()


@contextmanager
def _dropped(net: nn.Module, rate: float) -> Iterator[None]:
    """Dropout behind every block: children of `net.net` that have children of their own."""
    body = net.net
    assert isinstance(body, nn.Module)
    blocks = [child for child in body.children() if next(child.children(), None) is not None]
    if not blocks:
        raise Unsuited("needs blocks to put dropout behind")
    handles = [
        block.register_forward_hook(lambda _, __, out: functional.dropout(out, rate, training=True)) for block in blocks
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def _softmax(net: nn.Module, images: np.ndarray) -> Tensor:
    return torch.cat([net(part).softmax(1) for part in _batches(images)])


def _batches(images: np.ndarray) -> Iterator[Tensor]:
    for first in range(0, len(images), BATCH):
        part = torch.from_numpy(images[first : first + BATCH]).float() / 255
        yield part.contiguous(memory_format=torch.channels_last)
