"""The classifiers that benchmarks train: all take float32 (n, 3, H, W) in [0, 1], normalise it, and give logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)


class Normalised(nn.Module):
    """net: from normalised images to maps, which are averaged; fc: from these to logits, registered last."""

    net: nn.Module
    fc: nn.Module
    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(CIFAR_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(CIFAR_STD).view(1, 3, 1, 1))

    def normalised(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std

    def features(self, x: Tensor) -> Tensor:
        """(n, features), what the last layer sees."""
        return functional.adaptive_avg_pool2d(self.net(self.normalised(x)), 1).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x))


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b = _conv(width, width), _conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(self.a(x))


class ResNet9(Normalised):
    """Nine layers; the victim of most rows, since it trains in minutes on two cores."""

    def __init__(self, classes: int = 10, width: int = 16) -> None:
        super().__init__()
        w = width
        self.net = nn.Sequential(
            _conv(3, w),
            _conv(w, 2 * w, 2),
            _Residual(2 * w),
            _conv(2 * w, 4 * w, 2),
            _conv(4 * w, 4 * w),
            _conv(4 * w, 8 * w, 2),
            _Residual(8 * w),
        )
        self.fc = nn.Linear(8 * w, classes)


class EarlyStride(Normalised):
    """A small residual net behind whitened patches of 8 x 8: a pass over 224 x 224 costs a millisecond on one core.

    The whitening (Coates, Lee and Ng, AISTATS 2011) is fixed before training, by `whiten`. Without it a net behind
    patches sees what is smooth, and learns what is faint and fine many epochs later.
    """

    def __init__(self, classes: int = 10, width: int = 24) -> None:
        super().__init__()
        w = width
        self.patches = nn.Conv2d(3, 192, 8, 8, bias=False)
        self.patches.weight.requires_grad_(False)
        self.net = nn.Sequential(
            self.patches,
            nn.Conv2d(192, w, 1, bias=False),
            nn.BatchNorm2d(w),
            nn.ReLU(),
            _conv(w, 2 * w, 2),
            _Residual(2 * w),
            _conv(2 * w, 4 * w, 2),
            _Residual(4 * w),
        )
        self.fc = nn.Linear(4 * w, classes)

    @torch.no_grad()
    def whiten(self, images: Tensor, floor: float = 0.1) -> None:
        """From images (n, 3, H, W) in [0, 1]; floor: of the variances, in units of the normalised images'."""
        patches = functional.unfold(self.normalised(images), 8, stride=8).transpose(1, 2).reshape(-1, 192)
        values, vectors = torch.linalg.eigh(torch.cov(patches.T.double()))
        filters = vectors / (values + floor).sqrt()
        self.patches.weight.copy_(filters.T.view(192, 3, 8, 8))


class _Basic(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.a = _conv(inputs, outputs, stride)
        self.b = nn.Sequential(nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs))
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.skip = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.b(self.a(x)) + self.skip(x))


class ResNet18(Normalised):
    """ResNet-18 as it is used on CIFAR: a 3 x 3 stem without pooling (the paper's network)."""

    def __init__(self, classes: int = 10, width: int = 64) -> None:
        super().__init__()
        blocks: list[nn.Module] = [_conv(3, width)]
        inputs = width
        for stage in range(4):
            outputs = width * 2**stage
            blocks += [_Basic(inputs, outputs, 1 if stage == 0 else 2), _Basic(outputs, outputs, 1)]
            inputs = outputs
        self.net = nn.Sequential(*blocks)
        self.fc = nn.Linear(inputs, classes)


class VGG(Normalised):
    """Plain convolutions with pooling, two linear layers and dropout: nothing residual, not averaged at the end."""

    def __init__(self, classes: int = 10, width: int = 32) -> None:
        super().__init__()
        w = width
        channels = ((3, w), (w, 2 * w), (2 * w, 4 * w), (4 * w, 4 * w))
        self.net = nn.Sequential(
            *(layer for i, o in channels for layer in (_conv(i, o), nn.MaxPool2d(2))),
            nn.Flatten(),
            nn.Linear(16 * w, 4 * w),
            nn.ReLU(),
            nn.Dropout(0.3),
        )
        self.fc = nn.Linear(4 * w, classes)

    def features(self, x: Tensor) -> Tensor:
        return self.net(self.normalised(x))


def _separable(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.SiLU(),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.SiLU(),
    )


class MobileNet(Normalised):
    """Depthwise and pointwise convolutions, with smooth activations."""

    def __init__(self, classes: int = 10, width: int = 32) -> None:
        super().__init__()
        w = width
        self.net = nn.Sequential(
            _conv(3, w, 2),
            _separable(w, 2 * w),
            _separable(2 * w, 4 * w, 2),
            _separable(4 * w, 4 * w),
            _separable(4 * w, 8 * w, 2),
            _separable(8 * w, 8 * w),
        )
        self.fc = nn.Linear(8 * w, classes)


class _Attending(nn.Module):
    """A block of a transformer, normalised first: attention, then two linear layers."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        q, k, v = self.qkv(self.before(x)).view(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, width)
        x = x + self.out(mixed)
        return x + self.mlp(self.after(x))


class SmallViT(Normalised):
    """A small vision transformer on 64 patches of 4 x 4, its tokens averaged; two convolutions make the patches (Xiao
    et al., NeurIPS 2021), without which 20 000 images teach it little."""

    def __init__(self, classes: int = 10, width: int = 64) -> None:
        super().__init__()
        self.patches = nn.Sequential(_conv(3, width // 4, 2), nn.Conv2d(width // 4, width, 3, 2, 1))
        self.places = nn.Parameter(0.02 * torch.randn(1, 64, width))
        self.net = nn.Sequential(*(_Attending(width, 4) for _ in range(4)), nn.LayerNorm(width))
        self.fc = nn.Linear(width, classes)

    def features(self, x: Tensor) -> Tensor:
        tokens = self.patches(self.normalised(x)).flatten(2).transpose(1, 2)
        return self.net(tokens + self.places).mean(1)
