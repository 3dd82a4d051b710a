"""Is the direct denoiser worth blending with samples? ``python -m benchmarks.blend [--train 120]``.

Everything is simulated, so that the truth is known. A cosdd model of preset tiny learns the specimen of the demo under
each noise (`--train` seconds of processor time) and denoises images that it never saw: by its direct denoiser, U; by
the mean m of samples, eight or as many as `denoise` takes; and by w U + (1 - w) m, where w is one number per image,
from what is known without the truth (performance section 5):

formula  w = V / (V + B): V the variance of m, as `denoise` measures it, B = |U - m|^2 - V what the two differ by beyond
half     the same, but at least one half
best     the w that the truth asks for, for each image: no rule can do better
"""

from __future__ import annotations

import argparse
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.estimators import trained
from benchmarks.record import Entry, circumstances, write
from cosdd import simulate
from cosdd.denoise import Denoiser
from cosdd.estimates import Estimate
from cosdd.specimen import specimen

KINDS = ("stripe", "heavy")
COUNT, SIZE, TESTED = 400, 128, 24
SAMPLES = {"8 samples": 8, "as many as it takes": None}
RULES = {"formula": "w = V / (V + B)", "half": "the same, at least 1/2", "best": "best w, from the truth"}


def sampled(model: Denoiser, noisy: np.ndarray, samples: int | None) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """Means of images (n, y, x), the variance of each as `denoise` knows it, and how many samples it took."""
    found, std = list[float](), Estimate.std

    def noting(estimate: Estimate):
        found.append(float(estimate.error.mean()))
        return std(estimate)

    with mock.patch.object(Estimate, "std", noting):
        result = model.denoise(noisy, axes="TYX", samples=samples)
    return result.mean, np.array(found) * model.checkpoint.statistics.std[0] ** 2, result.taken


def squared(values: np.ndarray) -> np.ndarray:
    """Mean of the squares, for each image."""
    return np.square(values, dtype=np.float64).mean((1, 2))


def weights(direct: np.ndarray, mean: np.ndarray, variance: np.ndarray, clean: np.ndarray) -> dict[str, np.ndarray]:
    """Of the direct denoiser, by each rule, for each image."""
    between = squared(direct - mean)
    bias = np.maximum(between - variance, 0)
    formula = variance / np.maximum(variance + bias, 1e-30)
    best = ((mean - clean) * (mean - direct)).mean((1, 2), dtype=np.float64) / np.maximum(between, 1e-30)
    return {"formula": formula, "half": np.maximum(formula, 0.5), "best": best.clip(0, 1)}


def compared(direct: np.ndarray, mean: np.ndarray, variance: np.ndarray, clean: np.ndarray) -> dict[str, Any]:
    """PSNR (range 1) of the parts and of each blend, and how far it is ahead of the better part."""

    def psnr(image: np.ndarray) -> np.ndarray:
        return -10 * np.log10(squared(image - clean))

    parts = {"direct": psnr(direct), "samples": psnr(mean)}
    better = max(parts.values(), key=np.mean)  # for all images: nobody knows which is the better of each
    found: dict[str, Any] = {name: float(values.mean()) for name, values in parts.items()}
    for rule, weight in weights(direct, mean, variance, clean).items():
        share = weight[:, None, None]
        ahead = psnr(share * direct + (1 - share) * mean) - better
        found[rule] = {"ahead": float(ahead.mean()), "weight": float(weight.mean())}
        found[rule]["ahead_where_worst"] = float(ahead.min())
    return found


def lines(entry: Entry) -> list[str]:
    """What it found, for docs/samples.md."""
    runs = entry["results"]
    rows = [(f"{name}, {count}", run[count]) for name, run in runs.items() for count in SAMPLES]
    told = [
        "",
        "### The direct denoiser blended with samples",
        "",
        f"`{entry['command']}`; {circumstances(entry)}. Models of preset tiny, {TESTED} images of {SIZE} x {SIZE} "
        "pixels that they never saw. PSNR (range 1) of the direct denoiser U and of the mean m of samples; how many dB "
        "w U + (1 - w) m is ahead of the better of them, and w, one for each image, on average. V is the variance of "
        "m, as `denoise` measures it, and B the mean square of U - m less V.",
        "",
        f"| | U (dB) | m (dB) | {' | '.join(RULES.values())} |",
        "|---" * (len(RULES) + 3) + "|",
    ]
    for name, found in rows:
        cells = (f"{found[rule]['ahead']:+.3f} (w {found[rule]['weight']:.2f})" for rule in RULES)
        told.append(f"| {name} | {found['direct']:.2f} | {found['samples']:.2f} | {' | '.join(cells)} |")
    ahead = {rule: [found[rule]["ahead"] for _, found in rows] for rule in RULES}
    told += [
        "",
        "So `denoise` does not blend. What it draws leaves V so small that there is next to nothing to gain. Against "
        f"the better of the two, w = V / (V + B) is {min(ahead['formula']):+.3f} to {max(ahead['formula']):+.3f} dB, "
        f"for the work of both; at least one half of U {min(ahead['half']):+.2f} to {max(ahead['half']):+.2f} dB; the "
        f"best w, from the truth, {max(ahead['best']):+.3f} dB at most. Where samples see the image from one position "
        "of the grid, as in the first measurement above, U is nearly as good as m, and a blend gains hundredths of a "
        "dB.",
    ]
    return told


def rounded(values: Any) -> Any:
    if isinstance(values, dict):
        return {name: rounded(value) for name, value in values.items()}
    return float(f"{values:.5g}") if isinstance(values, float | np.floating) else values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=float, default=120)
    asked = parser.parse_args()
    clean, results = specimen(COUNT, SIZE, 0), dict[str, Any]()
    truth = clean[-TESTED:]
    for kind in KINDS:
        noisy = getattr(simulate, kind)(clean, np.random.default_rng((0, 1)))
        model = trained(noisy[:-TESTED], asked.train, model={"refine": False})
        direct = model.denoise(noisy[-TESTED:], axes="TYX", direct=True).mean
        found: dict[str, Any] = {"steps": model.checkpoint.steps, "images": TESTED}
        for name, samples in SAMPLES.items():
            mean, variance, taken = sampled(model, noisy[-TESTED:], samples)
            found[name] = compared(direct, mean, variance, truth) | {"taken": float(np.mean(taken))}
        results[kind] = rounded(found)
        print(kind, results[kind], flush=True)
        write("blend", f"python -m benchmarks.blend --train {asked.train:g}", results)


if __name__ == "__main__":
    main()
