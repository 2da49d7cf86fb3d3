"""`bre demo`: the whole story on real images that scikit-learn (the extra `demo`) brings along, without a network.

Handwritten digits are written on crops of two photographs (as in MNIST-M), one colour image each. Some of them get a
faint pattern and a wrong label; a small network is trained on that, and `bre` has to find out what was done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from . import attacks
from .errors import InputError
from .inputs._extras import need
from .method.linalg import single_thread
from .report import Report
from .verbs.cleanse import cleanse
from .verbs.detect import detect
from .verbs.screen import screen

SIDE = 20  # pixels
INK = (14, 17)  # pixels: the smallest and the largest side of a digit, which is 8 x 8 as scikit-learn has it
TRAIN_DIGITS = 1300  # of 1797; the others are for testing
COPIES = 3  # of every digit for training, each on another background
POISONED = 0.1  # of the training images
AMPLITUDE = 4 / 255
EPOCHS = 12
BATCH = 64


@dataclass(frozen=True, eq=False)
class Digits:
    """images: uint8 (M, 3, SIDE, SIDE); labels: int64 (M,)."""

    images: np.ndarray
    labels: np.ndarray


def run(*, seed: int = 0, out: Path | None = None, echo: Callable[[str], None] = print) -> Report:
    """Plant a backdoor, train on it, find it, remove it, train again; `echo` gets every line of the story.

    Returns the report of `bre.detect`, and saves it as the new folder `out`. Raises InputError if scikit-learn or its
    images are missing.
    """
    train, test = digits(seed)
    planted, pattern, target = plant(train, seed)
    dataset = planted.images, planted.labels
    echo(f"{len(train.labels)} training images: handwritten digits on photographs, {SIDE} x {SIDE} pixels, 10 classes")
    echo(
        f"planted: a chessboard of {255 * AMPLITUDE:.0f} grey levels in {planted.poisoned.sum()} images of the other "
        f"digits, labelled {target}"
    )

    echo("training a small network on them ...")
    victim = fit(*dataset, seed=seed)
    before = _measure(victim, test, pattern, target)
    echo("bre.screen: the images alone ...")
    screened = screen(dataset, seed=seed)
    echo("bre.detect: the images and the network ...")
    detected = detect(victim, dataset, seed=seed)
    echo("bre.cleanse, and training again on what is left ...")
    cured = fit(*cleanse(dataset, detected), seed=seed)
    after = _measure(cured, test, pattern, target)

    for name, report in (("screen", screened), ("detect", detected)):
        echo("")
        echo(f"{name}: {'POISONED' if report.poisoned else 'nothing found'} (p = {report.p_value:.2g})")
        for line in _against_truth(report, planted, target):
            echo(f"  {line}")
    echo("")
    echo("on unseen images        poisoned   cleansed")
    echo(f"accuracy                {before[0]:8.1%}   {after[0]:8.1%}")
    echo(f"attack success          {before[1]:8.1%}   {after[1]:8.1%}")
    if out is not None:
        detected.save(out, dataset)
        echo("")
        echo(f"the report of detect is in {out}: open {out / 'report.html'}")
    return detected


def plant(train: Digits, seed: int) -> tuple[attacks.Poisoned, np.ndarray, int]:
    """The poisoned set, the pattern float32 (C, H, W) in it, and the class that the attacker wants."""
    target = int(np.random.default_rng(seed).integers(10))
    pattern = attacks.chessboard(train.images.shape[1:], AMPLITUDE)
    count = round(POISONED * len(train.labels))
    planted = attacks.plant(train.images, train.labels, pattern, target=target, count=count, seed=seed)
    return planted, pattern, target


def digits(seed: int) -> tuple[Digits, Digits]:
    """Training and test images; they share no handwritten digit and no part of a photograph."""
    generator = np.random.default_rng((seed, 1))
    drawn, labels, photographs = _load()
    order = generator.permutation(len(labels))
    chosen = np.tile(order[:TRAIN_DIGITS], COPIES), order[TRAIN_DIGITS:]
    sets = []
    for place, rows in enumerate(chosen):
        parts = [photograph[:, :400] if place == 0 else photograph[:, 400:] for photograph in photographs]
        images = np.stack([_write(drawn[row], parts[generator.integers(len(parts))], generator) for row in rows])
        mixed = generator.permutation(len(rows))
        sets.append(Digits(images[mixed], labels[rows][mixed].astype(np.int64)))
    return sets[0], sets[1]


def _load() -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Ink uint8 (1797, 8, 8), labels (1797,), photographs uint8 (H, W, 3)."""
    datasets = need("sklearn.datasets", "demo", "the demo, whose images come with scikit-learn,")
    try:
        found = datasets.load_digits()
        folder = Path(datasets.__file__).parent / "images"
        photographs = [np.asarray(Image.open(folder / name).convert("RGB")) for name in ("china.jpg", "flower.jpg")]
    except OSError as e:
        raise InputError(
            f"the demo draws on scikit-learn's digits and photographs, and cannot read them ({e}): "
            "pip install --force-reinstall scikit-learn"
        ) from e
    return (15.9 * found.images).astype(np.uint8), found.target, photographs


def _write(ink: np.ndarray, photograph: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """One digit somewhere on a crop: white where that is dark, black where it is bright. uint8 (3, SIDE, SIDE)."""
    side = int(generator.integers(INK[0], INK[1] + 1))
    row, column = generator.integers(SIDE - side + 1, size=2)
    cover = np.zeros((SIDE, SIDE, 1), np.float32)
    large = Image.fromarray(ink).resize((side, side), Image.Resampling.BICUBIC)
    cover[row : row + side, column : column + side, 0] = np.asarray(large, np.float32) / 255
    top, left = (int(generator.integers(n - SIDE + 1)) for n in photograph.shape[:2])
    crop = photograph[top : top + SIDE, left : left + SIDE].astype(np.float32)
    written = crop + 0.8 * cover * ((255.0 if crop.mean() < 128 else 0.0) - crop)
    return np.ascontiguousarray(np.rint(written).astype(np.uint8).transpose(2, 0, 1))


class Network(nn.Module):
    """A small convolutional classifier: (n, 3, H, W) float32 in [0, 1] -> logits (n, 10)."""

    def __init__(self, width: int = 16):
        super().__init__()
        sizes = [(3, width, 1), (width, 2 * width, 2), (2 * width, 4 * width, 2), (4 * width, 4 * width, 1)]
        self.features = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU())
                for i, o, stride in sizes
            )
        )
        self.output = nn.Linear(4 * width * (SIDE // 4) ** 2, 10)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.output(self.features(2 * images - 1).flatten(1))
        return logits


def fit(images: np.ndarray, labels: np.ndarray, *, seed: int) -> Network:
    """A network trained on uint8 (M, 3, H, W) images; the caller's random state stays as it is. One thread: the
    batches are too small for more, and the answer then does not depend on the machine's number of cores."""
    with torch.random.fork_rng(devices=[]), single_thread():
        torch.manual_seed(seed)
        network = Network()
        inputs = torch.from_numpy(images).float() / 255
        answers = torch.from_numpy(labels)
        optimizer = torch.optim.Adam(network.parameters())
        batches = len(labels) // BATCH
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=EPOCHS * batches)
        for _ in range(EPOCHS):
            for rows in torch.split(torch.randperm(len(labels), device="cpu")[: batches * BATCH], BATCH):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(network(inputs[rows]), answers[rows])
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
    network.eval()
    return network


def _measure(network: Network, test: Digits, pattern: np.ndarray, target: int) -> tuple[float, float]:
    """Accuracy, and the share of the other classes' images that the pattern sends to the target."""
    others = test.labels != target
    with torch.no_grad():
        plain, changed = (
            network(torch.from_numpy(images).float() / 255).argmax(1).numpy()
            for images in (test.images, attacks.embed(test.images[others], pattern))
        )
    return float((plain == test.labels).mean()), float((changed == target).mean())


def _against_truth(report: Report, planted: attacks.Poisoned, target: int) -> list[str]:
    """What a report says, beside what was done."""
    found = np.zeros(len(planted.labels), bool)
    found[report.indices] = True
    targets = ", ".join(str(finding.target) for finding in report.findings) or "none"
    sources = ", ".join(map(str, sorted({s for finding in report.findings for s in finding.sources}))) or "none"
    return [
        f"target   {targets} (truth: {target})",
        f"sources  {sources} (truth: all others)",
        f"found    {int((found & planted.poisoned).sum())} of {int(planted.poisoned.sum())} poisoned images",
        f"lost     {int((found & ~planted.poisoned).sum())} of {int((~planted.poisoned).sum())} clean images",
    ]
