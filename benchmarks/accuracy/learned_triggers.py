"""Triggers that a network makes, another one for each image, and how these networks are trained.

  input-aware  Nguyen and Tran, NeurIPS 2020: a generator gives each image a mask and a pattern that only work together
               with it; trained with a classifier that obeys an image's own pattern and not another's
  encoder      ISSBA, Li et al., ICCV 2021: an encoder hides a fixed string of bits in each image, trained with a
               decoder that reads it, as in StegaStamp (Tancik et al., CVPR 2020)
Both are smaller than published, for images of 32 x 32 and processors without an accelerator; the encoder's residual is
bounded in place of a perceptual loss. The poisoned set is made once, after training, and the victim learns from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.accuracy.trigger_cases import Parts, TriggerCase
from benchmarks.common import networks
from bre.attacks.planting import check_images

IMAGES, BATCH = 10000, 128  # of the natural set, which the attacker trains on
GENERATOR_EPOCHS, CODE_EPOCHS = 8, 5
MASKED, MASK_WEIGHT = 0.06, 100.0  # share of the pixels that a mask may take without loss; weight of what is beyond
DIVERSITY = 0.1  # weight of: patterns of different images differ as the images do
CROSS = 0.2  # share of a batch that is shown another image's pattern, and its own
BITS, RESIDUAL, FAINT = 20, 32 / 255, 0.02  # of the string; bound in each channel; weight of the mean square
LOUD = 4.0  # times the residual that the decoder is shown at first: it learns to read nothing otherwise
ADAM_RATE = 2e-3


class Generator(nn.Module):
    """From images, float32 (n, 3, H, W) in [0, 1], to (pattern (n, 3, H, W), mask (n, 1, H, W)), both in [0, 1]."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        w = width
        self.down = nn.Sequential(
            nn.Conv2d(3, w, 3, 2, 1), nn.BatchNorm2d(w), nn.ReLU(), nn.Conv2d(w, 2 * w, 3, 2, 1), nn.BatchNorm2d(2 * w)
        )
        self.up = nn.Sequential(
            nn.ReLU(),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(2 * w, w, 3, 1, 1),
            nn.BatchNorm2d(w),
            nn.ReLU(),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(w, 4, 3, 1, 1),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        made = self.up(self.down(x - 0.5))
        return torch.sigmoid(made[:, :3]), torch.sigmoid(4 * made[:, 3:] - 2)


class Encoder(nn.Module):
    """From images, float32 (n, 3, H, W) in [0, 1], and bits (n, BITS) to what is added to the images."""

    def __init__(self, width: int = 16, side: int = 8) -> None:
        super().__init__()
        self.side = side
        self.spread = nn.Linear(BITS, 3 * side * side)
        self.body = nn.Sequential(
            nn.Conv2d(6, width, 3, 1, 1), nn.ReLU(), nn.Conv2d(width, width, 3, 1, 1), nn.ReLU(), nn.Conv2d(width, 3, 1)
        )

    def forward(self, x: Tensor, bits: Tensor) -> Tensor:
        plane = self.spread(bits - 0.5).view(-1, 3, self.side, self.side)
        grown = functional.interpolate(plane, size=x.shape[2:], mode="nearest")
        return RESIDUAL * torch.tanh(self.body(torch.cat([x - 0.5, grown], 1)))


@dataclass(frozen=True, eq=False)
class InputAware:
    """cross: the pattern of another image of the batch, which a cover gets."""

    net: Generator
    cross: bool = False

    @torch.no_grad()
    def __call__(self, images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """As `bre.attacks.Trigger`."""
        x = _pixels(images)
        pattern, mask = self.net.eval()(x.roll(1, 0) if self.cross else x)
        return _levels((1 - mask) * x + mask * pattern)


@dataclass(frozen=True, eq=False)
class Encoded:
    """One string of bits hidden in every image; key: the seed that drew it."""

    net: Encoder
    key: int

    @torch.no_grad()
    def __call__(self, images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """As `bre.attacks.Trigger`."""
        x, bits = _pixels(images), np.random.default_rng(self.key).integers(0, 2, (1, BITS))
        return _levels(x + self.net.eval()(x, torch.from_numpy(bits).float().expand(len(x), -1)))


def _pixels(images: np.ndarray) -> Tensor:
    check_images(images, channels=3)
    return torch.from_numpy(images).float() / 255


def _levels(x: Tensor) -> np.ndarray:
    return (255 * x).round().clamp(0, 255).to(torch.uint8).numpy()


def generator_parts(net: nn.Module, case: TriggerCase) -> Parts:
    assert isinstance(net, Generator)
    return Parts(InputAware(net), InputAware(net), InputAware(net, cross=True))


def encoder_parts(net: nn.Module, case: TriggerCase) -> Parts:
    assert isinstance(net, Encoder)
    return Parts(Encoded(net, case.seed), Encoded(net, case.seed))


def trained_generator(data: tuple[np.ndarray, np.ndarray], case: TriggerCase) -> Generator:
    """Trained with a classifier of half the victims' width, which is thrown away."""
    assert isinstance(case.target, int)
    torch.manual_seed(case.seed)
    net, judge = Generator(), networks.ResNet9(case.classes, width=8)
    optimizer = torch.optim.Adam([*net.parameters(), *judge.parameters()], ADAM_RATE)
    for x, y in _batches(data, GENERATOR_EPOCHS, case.seed):
        share = round(CROSS * len(x))
        pattern, mask = net(x)
        own, other = slice(0, share), slice(share, 2 * share)
        marked = (1 - mask[own]) * x[own] + mask[own] * pattern[own]
        crossed = (1 - mask[own]) * x[other] + mask[own] * pattern[own]
        logits = judge(torch.cat([marked, crossed, x[2 * share :]]))
        wanted = torch.cat([torch.full((share,), case.target), y[share:]])
        apart = (x[1:] - x[:-1]).square().mean((1, 2, 3)).sqrt()
        differ = (pattern[1:] - pattern[:-1]).square().mean((1, 2, 3)).sqrt()
        loss = functional.cross_entropy(logits, wanted)
        loss = loss + DIVERSITY * (apart / (differ + 1e-3)).mean()
        loss = loss + MASK_WEIGHT * functional.relu(mask.mean((1, 2, 3)) - MASKED).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


def trained_encoder(data: tuple[np.ndarray, np.ndarray], case: TriggerCase) -> Encoder:
    """Trained with a decoder, which is thrown away; each image of a batch gets other bits."""
    torch.manual_seed(case.seed)
    net = Encoder()
    layers = [(3, 16, 1), (16, 32, 2), (32, 32, 2)]  # channels in and out, stride
    convolutions = [(nn.Conv2d(i, o, 3, stride, 1), nn.BatchNorm2d(o), nn.ReLU()) for i, o, stride in layers]
    decoder = nn.Sequential(*(part for each in convolutions for part in each), nn.Flatten(), nn.Linear(32 * 64, BITS))
    optimizer = torch.optim.Adam([*net.parameters(), *decoder.parameters()], ADAM_RATE)
    steps = CODE_EPOCHS * -(-min(IMAGES, len(data[1])) // BATCH)
    for step, (x, _) in enumerate(_batches(data, CODE_EPOCHS, case.seed)):
        bits = torch.randint(0, 2, (len(x), BITS)).float()
        added = net(x, bits)
        loudness = 1 + (LOUD - 1) * max(0.0, 1 - 2 * step / steps)  # down to 1 in the middle
        read = decoder((x + loudness * added).clamp(0, 1) - 0.5)
        loss = functional.binary_cross_entropy_with_logits(read, bits)
        loss = loss + FAINT * (added / RESIDUAL).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


def _batches(data: tuple[np.ndarray, np.ndarray], epochs: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(images in [0, 1], labels) of every step."""
    shuffling = torch.Generator().manual_seed(seed)
    images, labels = (torch.from_numpy(each[:IMAGES]) for each in data)
    for _ in range(epochs):
        for rows in torch.randperm(len(labels), generator=shuffling).split(BATCH):
            yield images[rows].float() / 255, labels[rows]


@dataclass(frozen=True)
class Learned:
    """train: the network from the natural set; build: an untrained one, to load weights into; parts: its triggers."""

    train: Callable[[tuple[np.ndarray, np.ndarray], TriggerCase], nn.Module]
    build: Callable[[], nn.Module]
    parts: Callable[[nn.Module, TriggerCase], Parts]


LEARNED = {
    "input-aware": Learned(trained_generator, Generator, generator_parts),
    "encoder": Learned(trained_encoder, Encoder, encoder_parts),
}
