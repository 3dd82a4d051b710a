"""Are the latents a clean image? Supplement section 1 and Figure 1.

For a noisy image of the specimen two latents are drawn from the posterior. What the signal decoder says of each is
compared with the mean of many noisy images that the noise decoder draws for it: if the latents hold the image and
nothing else, the two are the same, and differ from the other draw's in structure.

The mean is taken in two ways: of the noisy images themselves, and of the means of their pixels' mixtures, given the
pixels before them, which has the same expectation and less chance in it. Chance is taken out of the second altogether
by comparing with two halves of the noisy images: the error of one does not know that of the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.paper import figures
from benchmarks.paper.models import Size, trained
from benchmarks.table.sets import SETS
from cosdd import data, device, latents
from cosdd.denoise import Denoiser
from cosdd.model import COSDD

NAMES = ("specimen-heavy",)
METHODS = ("cosdd",)
LIMIT, AIM = 0.3, 0.1  # of rms(signal decoder - mean) / rms(two draws)
PIXELS_AT_ONCE = {"cpu": 2**19, "cuda": 2**24}
PICTURE = "latents.png"


@torch.inference_mode()
def two_draws(model: Denoiser, noisy: np.ndarray, count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Of one (y, x) image, for both draws: signal (2, y, x), samples and halves, as (2, y, x) and (2, 2, y, x).

    samples: mean of `count` noisy images. halves: means of the mixtures' means over two halves of them.
    """
    checkpoint, network = model.checkpoint, model.checkpoint.network
    assert isinstance(network, COSDD)
    network = network.to(device.best())
    x = torch.from_numpy(data.normalise(noisy[None, None], checkpoint.statistics, None)).to(device.best())
    features, window = network.encode(x)
    found: dict[str, list[np.ndarray]] = {"signal": [], "samples": [], "halves": []}
    for sample in range(2):
        draw = latents.addressed(seed, 0, [sample], [0, 0], network.ladder.sight.strides)
        code, _ = network.ladder.top_down(features, draw, with_kl=False)
        found["signal"].append(network.signal(code)[window][0, 0].cpu().numpy())
        generator = torch.Generator(x.device).manual_seed(2 * seed + sample)
        halves = [averaged(network, code[window], -(-count // 2), generator) for _ in range(2)]
        found["samples"].append(np.mean([drawn for drawn, _ in halves], 0))
        found["halves"].append(np.stack([expected for _, expected in halves]))
    return {name: np.stack(images) for name, images in found.items()}


def averaged(
    network: COSDD, code: Float[Tensor, "1 s y x"], count: int, generator: torch.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Mean of ``count`` noisy images of one code, and of the expectation of each of their pixels given the row."""
    space = code.shape[2:]
    drawn, expected = (torch.zeros(space, dtype=torch.float64, device=code.device) for _ in range(2))
    at_once = max(1, PIXELS_AT_ONCE.get(code.device.type, 2**20) // space.numel())
    for start in range(0, count, at_once):
        shape = (min(at_once, count - start), 1, 1, *space)
        uniform, normal = (make(shape, generator=generator, device=code.device) for make in (torch.rand, torch.randn))
        x = network.noise.sample(code, uniform, normal)[:, 0]
        logits, means, _ = network.noise(x, code.expand(len(x), *code.shape[1:]))
        drawn += x[:, 0].double().sum(0)
        expected += (logits.softmax(2) * means).sum(2)[:, 0].double().sum(0)
    return (drawn / count).cpu().numpy(), (expected / count).cpu().numpy()


def measured(draws: list[dict[str, np.ndarray]]) -> dict[str, Any]:
    """Root mean squares over all images and both draws, and their ratios."""
    signal, samples, halves = (np.stack([one[name] for one in draws]) for name in ("signal", "samples", "halves"))
    mixtures = halves.mean(2)

    def rms(difference: np.ndarray) -> float:
        return float(np.sqrt(np.mean(difference**2)))

    apart = rms(signal[:, 0] - signal[:, 1])
    without_chance = float(np.mean((signal - halves[:, :, 0]) * (signal - halves[:, :, 1])))
    errors = {
        "samples": rms(signal - samples),
        "mixture_means": rms(signal - mixtures),
        "without_chance": max(without_chance, 0.0) ** 0.5,
    }
    seen_by_both = np.corrcoef((signal[:, 0] - signal[:, 1]).ravel(), (mixtures[:, 0] - mixtures[:, 1]).ravel())[0, 1]
    return {
        "two_draws_rms": round(apart, 4),
        "rms": {name: round(error, 4) for name, error in errors.items()},
        "ratio": {name: round(error / apart, 3) for name, error in errors.items()},
        "chance_rms": round(rms(halves[:, :, 0] - halves[:, :, 1]) / 2, 4),
        "difference_seen_by_both": round(float(seen_by_both), 3),
        "reached": {"limit": errors["without_chance"] < LIMIT * apart, "aim": errors["without_chance"] < AIM * apart},
    }


def run(size: Size, sets: list[str], methods: list[str], folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for name in sets:
        images = SETS[name](0, max(2, size.tested // 2))
        model = trained(name, images.train, "x", "cosdd", size.steps["cosdd"], size, folder)
        draws = [two_draws(model.denoiser, noisy, size.drawn, seed) for seed, noisy in enumerate(images.test)]
        assert images.truth is not None
        scenes = np.stack([images.test[0], images.truth[0]])[:, None]
        noisy, clean = model.denoiser.checkpoint.statistics.normalise(scenes)[:, 0]
        side_by_side(noisy, clean, draws[0])
        found = {"images": len(draws), "noisy_images_drawn": size.drawn}
        results[f"{name} cosdd"] = measured(draws) | found | model.facts
    return results


def summarise(results: Mapping[str, Any]) -> None:
    """Each row says all by itself."""


def side_by_side(noisy: np.ndarray, clean: np.ndarray, draws: dict[str, np.ndarray], edge: int = 96) -> None:
    """Above the images of both draws, by both ways; below how the draws differ, by both ways, and how the ways do."""
    (one, two), (first, second) = draws["signal"], draws["halves"].mean(1)
    above = [("noisy", noisy), ("draw 1: signal decoder", one), ("mean of noisy images", first),
             ("draw 2: signal decoder", two), ("mean of noisy images", second)]  # fmt: skip
    below = [("clean (never seen)", clean), ("draw 1 - 2: decoder", one - two), ("draw 1 - 2: means", first - second),
             ("decoder - mean: draw 1", one - first), ("decoder - mean: draw 2", two - second)]  # fmt: skip
    cut = (slice(16, 16 + edge), slice(16, 16 + edge))
    rows = [[(caption, image[cut]) for caption, image in row] for row in (above, below)]
    greys, spread = (float(clean.min()), float(clean.max())), 3 * float((one - two).std())
    figures.grid(figures.IMAGES / PICTURE, rows, [[greys] * 5, [greys, *[(-spread, spread)] * 4]], zoom=2)


def table(results: Mapping[str, Any]) -> list[str]:
    (run,) = results.values()
    words = {
        "samples": "mean of the noisy images",
        "mixture_means": "mean of their mixtures' means",
        "without_chance": "the same, without what is chance",
    }
    lines = [
        f"| signal decoder against, over {run['images']} images | rms of the difference | to that of two draws |",
        "|---|---|---|",
    ]
    lines += [f"| {words[name]} | {run['rms'][name]:.4f} | **{run['ratio'][name]:.2f}** |" for name in words]
    return [*lines, f"| the other draw | {run['two_draws_rms']:.4f} | 1 |"]
