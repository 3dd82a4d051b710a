"""HDN_{3-6} (Prakash et al., ICLR 2022), written from the paper and its published settings.

A six-level ladder VAE whose likelihood is a fixed, pixel-wise noise model that was learned beforehand from noisy and
clean pixels; the two finest levels of latents are cut off from the image, because structured noise would enter there.
What is said of its parts below are the published settings; ELU, 64 filters and 32 latents throughout.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.table.task import Fitted, Task
from cosdd import device

FEATURES, LATENTS, LEVELS, BLOCKS = 64, 32, 6, 5
CUT_OFF = (0, 1)  # levels, finest first
PATCH, BATCH, PARTS, SAMPLES, FREE_BITS = 64, 64, 8, 100, 1.0


class Block(nn.Module):
    """Residual block: (batch norm, ELU, convolution, dropout) twice, then a gate."""

    def __init__(self, gated: bool = True) -> None:
        super().__init__()

        def half() -> list[nn.Module]:
            convolution = nn.Conv2d(FEATURES, FEATURES, 3, padding=1)
            return [nn.BatchNorm2d(FEATURES), nn.ELU(), convolution, nn.Dropout2d(0.2)]

        self.body = nn.Sequential(*half(), *half())
        self.gate = nn.Conv2d(FEATURES, 2 * FEATURES, 1) if gated else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        if self.gate is not None:
            value, gate = self.gate(h).chunk(2, 1)
            h = F.elu(value) * torch.sigmoid(gate)
        return x + h


class Merge(nn.Module):
    """Two feature maps into one."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(2 * FEATURES, FEATURES, 1), Block())

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.body(torch.cat([a, b], 1))


class Level(nn.Module):
    """A latent level on the way down: prior and posterior from above and from the image, and the way to the next."""

    def __init__(self, top: bool) -> None:
        super().__init__()
        self.prior_here = None if top else nn.Conv2d(FEATURES, 2 * LATENTS, 3, padding=1)
        self.posterior_here = nn.Conv2d(FEATURES, 2 * LATENTS, 3, padding=1)
        self.out = nn.Conv2d(LATENTS, FEATURES, 3, padding=1)
        self.merge, self.skip = (None, None) if top else (Merge(), Merge())
        rise = nn.ConvTranspose2d(FEATURES, FEATURES, 3, stride=2, padding=1, output_padding=1)
        self.rise = nn.Sequential(rise, *(Block() for _ in range(BLOCKS)))

    def forward(self, above: Tensor | None, seen: Tensor | None, prior: Tensor, mean: bool) -> tuple[Tensor, Tensor]:
        """above: features of the level above, None at the top, where `prior` is learned. seen: features of the
        image, None for a level that is cut off. mean: the mean of the posterior instead of a sample."""
        if above is None:
            assert seen is not None
            features = seen
        else:
            assert self.prior_here is not None
            assert self.merge is not None
            prior = self.prior_here(above)
            features = above if seen is None else self.merge(seen, above)
        q_mean, q_logvar = self.posterior_here(features).chunk(2, 1)
        p_mean, p_logvar = prior.expand(len(features), -1, *features.shape[2:]).chunk(2, 1)
        z = q_mean if mean else q_mean + torch.exp(q_logvar / 2) * torch.randn_like(q_mean)
        kl = 0.5 * (p_logvar - q_logvar - 1 + (q_logvar.exp() + (q_mean - p_mean) ** 2) * torch.exp(-p_logvar))
        h = self.out(z)
        if self.skip is not None:
            h = self.skip(h, above)
        return self.rise(h), kl.sum((1, 2, 3))


class HDN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, FEATURES, 5, padding=2), nn.ELU(), Block(gated=False))

        def halving() -> nn.Sequential:
            step = nn.Conv2d(FEATURES, FEATURES, 3, stride=2, padding=1)
            return nn.Sequential(step, *(Block() for _ in range(BLOCKS)))

        self.up = nn.ModuleList(halving() for _ in range(LEVELS))
        self.levels = nn.ModuleList(Level(top=level == LEVELS - 1) for level in range(LEVELS))
        self.top_prior = nn.Parameter(torch.zeros(1, 2 * LATENTS, 1, 1))
        self.last = nn.Sequential(*(Block() for _ in range(BLOCKS)))
        self.head = nn.Conv2d(FEATURES, 1, 3, padding=1)

    def seen(self, x: Tensor) -> list[Tensor]:
        """Features of the image (b, 1, y, x), edges multiples of 64, at every level, finest first."""
        h, found = self.first(x), []
        for up in self.up:
            h = up(h)
            found.append(h)
        return found

    def drawn(self, seen: list[Tensor], denoising: bool = False) -> tuple[Tensor, Tensor]:
        """A clean image drawn from the posterior, and the KL of each level: (b, 1, y, x) and (levels, b)."""
        h, kls = None, []
        for level in reversed(range(LEVELS)):
            cut = level in CUT_OFF
            h, kl = self.levels[level](h, None if cut else seen[level], self.top_prior, mean=cut and denoising)
            kls.append(kl)
        return self.head(self.last(h)), torch.stack(kls[::-1])


class PixelNoise(nn.Module):
    """p(observation | signal): three Gaussians whose means, variances and log-weights are linear in the signal.

    Together their mean is the signal. Both in grey values; `low` to `high` is the range of the signal.
    """

    def __init__(self, low: float, high: float, variance: float, components: int = 3) -> None:
        super().__init__()
        self.low, self.range = low, high - low
        self.smallest = (1e-3 * self.range) ** 2
        self.mean = nn.Parameter(1e-2 * torch.randn(components, 2))
        self.weight = nn.Parameter(torch.zeros(components, 2))
        # Variances of a half, once and twice that of all: three alike would stay alike.
        spread = variance / self.range**2 * 2.0 ** torch.linspace(-1, 1, components)
        self.variance = nn.Parameter(torch.stack([spread, torch.zeros(components)], 1))

    def parts(self, signal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights, means and variances of the Gaussians, (components, *shape of the signal)."""
        s = (signal - self.low) / self.range

        def linear(p: Tensor) -> Tensor:
            return p[:, 0].view(-1, *[1] * s.dim()) + p[:, 1].view(-1, *[1] * s.dim()) * s

        weights = torch.log_softmax(linear(self.weight), 0)
        mean = linear(self.mean) * self.range
        mean = signal + mean - (weights.exp() * mean).sum(0)
        return weights, mean, (linear(self.variance) * self.range**2).clamp_min(self.smallest)

    def forward(self, signal: Tensor, observed: Tensor) -> Tensor:
        """log p of every pixel."""
        weights, mean, variance = self.parts(signal)
        logs = weights - 0.5 * ((observed - mean) ** 2 / variance + torch.log(2 * math.pi * variance))
        return torch.log(logs.exp().sum(0) + 1e-10)


def noise_model(clean: np.ndarray, noisy: np.ndarray, seed: int, updates: int = 2000) -> PixelNoise:
    """Learn the noise from pairs of pixels."""
    rng = np.random.default_rng(seed)
    low, high = float(clean.min()), float(clean.max())
    model = PixelNoise(low, high, float(np.mean((noisy - clean) ** 2)))
    # The published rate, 0.1, is for grey values in hundreds; here everything is in units of the signal's range.
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    signal, observed = clean.ravel(), noisy.ravel()
    for _ in range(updates):
        picked = rng.integers(len(signal), size=20_000)
        optimiser.zero_grad()
        (-model(torch.from_numpy(signal[picked]), torch.from_numpy(observed[picked])).mean()).backward()
        optimiser.step()
    return model.requires_grad_(False)


def loss(network: HDN, noise: PixelNoise, x: Tensor, mean: float, std: float) -> Tensor:
    """-log p(x | clean) per pixel, and the KL of each level, at least one nat each, per pixel."""
    clean, kls = network.drawn(network.seen((x - mean) / std))
    nll = -noise(clean * std + mean, x).mean()
    return nll + kls.clamp_min(FREE_BITS).mean(1).sum() / x[0].numel()


def hdn36(task: Task) -> Fitted:
    """Published settings; the noise model comes from the clean training images, which is more than most users have."""
    assert task.clean is not None
    used, where = task.start(), device.best()
    torch.manual_seed(task.seed)
    rng = np.random.default_rng(task.seed)
    noise = noise_model(task.clean, task.train, task.seed, updates=300).to(where)
    mean, std = float(task.train.mean()), float(task.train.std())
    network = HDN().to(where)
    optimiser = torch.optim.Adamax(network.parameters(), lr=3e-4)
    step = 0
    while used() < 1:
        optimiser.zero_grad(set_to_none=True)
        for _ in range(PARTS):
            crops = np.stack([_patch(rng, task.train) for _ in range(BATCH // PARTS)])
            (loss(network, noise, torch.from_numpy(crops)[:, None].to(where), mean, std) / PARTS).backward()
        optimiser.step()
        step += 1
    network.eval()

    @torch.inference_mode()
    def denoise(images: np.ndarray) -> np.ndarray:
        results = []
        for image in images:
            x = (torch.from_numpy(image)[None, None].to(where) - mean) / std
            height, width = image.shape
            seen = network.seen(F.pad(x, (0, -width % 64, 0, -height % 64)))
            total = sum(network.drawn(seen, denoising=True)[0] for _ in range(SAMPLES))
            results.append((total[0, 0, :height, :width] / SAMPLES * std + mean).cpu().numpy())  # type: ignore[index]
        return np.stack(results)

    return Fitted({"HDN36": denoise}, step, {"samples": SAMPLES, "batch": BATCH, "noise_model": "clean images"})


def _patch(rng: np.random.Generator, images: np.ndarray) -> np.ndarray:
    image = images[rng.integers(len(images))]
    y, x = (rng.integers(size - PATCH + 1) for size in image.shape)
    patch = np.rot90(image[y : y + PATCH, x : x + PATCH], int(rng.integers(4)))
    return patch[:, ::-1] if rng.integers(2) else patch
