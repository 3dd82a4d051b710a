"""Is generated noise like the true noise? ``python -m benchmarks.noise [--time 2m --methods auto]``.

Photographs (bsd400, 128 px centre crops; 360 to train on, 40 to test) under simulated noise:

row-ar        Poisson noise and autoregressive row noise of correlation .6, with row offsets
row-ar, -     Poisson noise whose neighbours in a row share -.3, as cameras with an electron-multiplying register have
stripe        the paper's: Poisson noise, white noise, a little row-blurred noise
checkerboard  the paper's: white noise that fades with the signal, and a - - + + pattern along the columns

A model is trained on the noisy ones alone, through the command line, which also finds the axis; then `cosdd generate`
makes the clean test images noisy. True and generated noise, as many draws of each, are compared: autocorrelation at
lags 1 to 8 along and across the noise axis, and the variance at every tenth of the range. `--only stripe` measures
one and prints it.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

import cosdd
from benchmarks.blindrow import photographs
from benchmarks.record import Entry, circumstances, write
from benchmarks.record import cosdd as command_line
from cosdd import report, simulate

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "row-ar": ("row-ar", {"gain": 0.004, "row_std": 0.05, "correlation": 0.6, "offset_std": 0.02}),
    "row-ar, -": ("row-ar", {"gain": 0.01, "shot_correlation": -0.3, "row_std": 0.02, "correlation": 0.0}),
    "stripe": ("stripe", {}),
    "checkerboard": ("checkerboard", {}),
}
DRAWS, LAGS, TENTHS = 8, 8, 10
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "generated_noise.png"


def autocorrelation(noise: np.ndarray, axis: int) -> np.ndarray:
    """At lags 1 to LAGS along an axis, pooled over everything else; the noise has mean 0."""
    lines = np.moveaxis(noise.astype(np.float64), axis, -1)
    return np.array([np.mean(lines[..., lag:] * lines[..., :-lag]) for lag in range(1, LAGS + 1)]) / np.mean(lines**2)


def by_brightness(noise: np.ndarray, clean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of (draws, n, y, x) noise where the clean image is in each tenth of the range."""
    tenth = np.minimum((clean * TENTHS).astype(int), TENTHS - 1)
    parts = [noise[:, tenth == place].astype(np.float64) for place in range(TENTHS)]
    return np.array([part.mean() for part in parts]), np.array([part.var() for part in parts])


def measured(kind: str, method: str, time: str, folder: Path) -> tuple[dict[str, Any], tuple[np.ndarray, np.ndarray]]:
    """Figures, and true and generated noise of one test image."""
    recipe, options = KINDS[kind]
    clean = photographs()
    rng = np.random.default_rng(0)
    noisy = simulate.RECIPES[recipe](clean[:360], rng, **options)
    test = clean[360:]
    truth = np.stack([simulate.RECIPES[recipe](test, rng, **options) - test for _ in range(DRAWS)])
    name = kind.replace(", ", "")
    model, out = folder / f"{name} {method}.safetensors", folder / f"{name} {method}"
    tifffile.imwrite(folder / f"{name}.tif", noisy, metadata={"axes": "TYX"})
    tifffile.imwrite(folder / "clean.tif", test, metadata={"axes": "TYX"})
    command_line("train", folder / f"{name}.tif", "-o", model, "--time", time, "--method", method, "--overwrite")
    command_line("generate", model, folder / "clean.tif", "-o", out, "--count", DRAWS, "--overwrite")
    made = np.stack([tifffile.imread(out / f"clean_{draw + 1}.tif") for draw in range(DRAWS)]) - test
    trained = cosdd.load(model).checkpoint
    along = -2 if recipe == "checkerboard" else -1
    found: dict[str, Any] = {
        "method": trained.settings.method,
        "noise_axis": trained.settings.model.noise_axis,
        "steps": trained.steps,
        "train_seconds": round(trained.seconds),
    }
    for where, axis in (("along", along), ("across", -3 - along)):
        of_truth, of_made = autocorrelation(truth, axis), autocorrelation(made, axis)
        found |= {
            f"{where}_truth": of_truth.round(4).tolist(),
            f"{where}_generated": of_made.round(4).tolist(),
            f"{where}_worst": round(float(np.abs(of_made - of_truth).max()), 4),
        }
    (_, true_variance), (mean, variance) = by_brightness(truth, test), by_brightness(made, test)
    error = variance / true_variance - 1
    found |= {
        "std_truth": (true_variance**0.5).round(4).tolist(),
        "std_generated": (variance**0.5).round(4).tolist(),
        "variance_error": error.round(3).tolist(),
        "variance_worst": round(float(error[np.abs(error).argmax()]), 3),
        "mean_worst_in_stds": round(float(np.abs(mean / true_variance**0.5).max()), 3),
    }
    return found, (truth[0, 4], made[0, 4])


def picture(pairs: dict[str, tuple[np.ndarray, np.ndarray]], edge: int = 64) -> None:
    """True and generated noise of each kind side by side, each pair in the same greys."""
    panels, limits = [], []
    for kind, pair in pairs.items():
        spread = 3 * float(pair[0].std())
        for caption, noise in zip((kind, "generated"), pair, strict=True):
            panels.append((caption, noise[32 : 32 + edge, 32 : 32 + edge]))
            limits.append((-spread, spread))
    report.side_by_side(PICTURE, panels, limits, zoom=2)


def lines(entry: Entry) -> list[str]:
    """What it found, for docs/how-it-works.md."""
    told = [
        "![True and generated noise of each kind](images/generated_noise.png)",
        "",
        "*True noise and generated noise side by side, each pair in the same greys; 64 pixels of one test image.*",
        "",
        f"`{entry['command']}`; {circumstances(entry)}.",
        "",
        "| noise (method, steps) | lags 1, 2, 3 along: true | generated | worst along | worst across "
        "| variance: worst | median |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, run in entry["results"].items():
        true, made = (
            " ".join(f"{value:+.2f}" for value in run[f"along_{whose}"][:3]) for whose in ("truth", "generated")
        )
        errors = sorted(map(abs, run["variance_error"]))
        told.append(
            f"| {name.split(' (')[0]} ({run['method']}, {run['steps']}) | {true} | {made} "
            f"| {run['along_worst']:.3f} | {run['across_worst']:.3f} | {100 * run['variance_worst']:+.0f} % "
            f"| {100 * (errors[4] + errors[5]) / 2:.0f} % |"
        )
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--time", default="2m")
    parser.add_argument("--methods", default="auto", help="comma between several: auto,cosdd")
    parser.add_argument("--only", choices=KINDS)
    asked = parser.parse_args()
    results: dict[str, Any] = {}
    pairs: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for method in asked.methods.split(","):
            for kind in [asked.only] if asked.only else KINDS:
                found, pair = measured(kind, method, asked.time, Path(folder))
                results[f"{kind} ({found['method']})"] = found
                pairs.setdefault(kind, pair)
                print(kind, method, found, flush=True)
    if not asked.only:
        picture(pairs)
        print(write("noise", f"python -m benchmarks.noise --time {asked.time} --methods {asked.methods}", results))


if __name__ == "__main__":
    main()
