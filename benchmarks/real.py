"""Two real recordings, trained and denoised through the command line: ``python -m benchmarks.real``.

two-photon: each of 20 frames is scored against the mean of the other 19 after the best affine map (mean squared
error; part of it is the noise of that mean, estimated from the scatter of the frames). The scene drifts by several
pixels, which blurs that mean and favours blurred images; so a second score moves the other frames onto the one that
is scored, by whole pixels.
STEM: one frame with long row streaks. There is no reference; streaks make neighbouring rows differ, so the
variance of row-to-row differences of row segments (means over 16 pixels along the row) is what must fall. A clean
image has some too: structure that is not streaks.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from scipy import ndimage

from benchmarks.record import DATA, RESULTS, Entry, circumstances, cosdd, write
from cosdd import metrics, report

SEGMENT = 16  # pixels along the row


def against_others(frames: np.ndarray, noisy: np.ndarray) -> float:
    """Mean over frames of the error against the mean of the other noisy frames, after the best affine map."""
    total = noisy.sum(0)
    errors = [
        metrics.affine_mse(frame, (total - own) / (len(noisy) - 1)) for frame, own in zip(frames, noisy, strict=True)
    ]
    return float(np.mean(errors))


def drift(frames: np.ndarray, reach: int = 6, rounds: int = 2) -> np.ndarray:
    """Whole-pixel shift (n, 2) of each frame, from the highest correlation of smoothed frames with their mean."""
    smooth = ndimage.gaussian_filter(frames.astype(np.float64), (0, 1.5, 1.5))
    inside = np.s_[2 * reach : -2 * reach, 2 * reach : -2 * reach]
    shifts = np.zeros((len(frames), 2), int)
    steps = [(dy, dx) for dy in range(-reach, reach + 1) for dx in range(-reach, reach + 1)]
    for _ in range(rounds):
        mean = np.mean([np.roll(f, tuple(-s), (0, 1)) for f, s in zip(smooth, shifts, strict=True)], axis=0)
        moved = np.stack([np.roll(mean, step, (0, 1))[inside].ravel() for step in steps])
        moved -= moved.mean(1, keepdims=True)
        moved /= np.linalg.norm(moved, axis=1, keepdims=True)
        shifts = np.array([steps[int((moved @ (f[inside].ravel() - f[inside].mean())).argmax())] for f in smooth])
    return shifts


def against_others_in_place(frames: np.ndarray, noisy: np.ndarray, shifts: np.ndarray) -> float:
    """As ``against_others``, with the other frames moved onto the one that is scored; without the rim."""
    rim = int(np.abs(shifts).max()) * 2
    inside = np.s_[rim:-rim, rim:-rim] if rim else np.s_[:, :]
    errors = []
    for index, frame in enumerate(frames):
        others = [
            np.roll(other, tuple(shifts[index] - shift), (0, 1))
            for k, (other, shift) in enumerate(zip(noisy, shifts, strict=True))
            if k != index
        ]
        errors.append(metrics.affine_mse(frame[inside], np.mean(others, axis=0)[inside]))
    return float(np.mean(errors))


def streaks(image: np.ndarray) -> float:
    """Variance of differences between neighbouring rows, of means over segments along the rows."""
    width = image.shape[-1] // SEGMENT * SEGMENT
    segments = image[..., :width].reshape(*image.shape[:-1], -1, SEGMENT).mean(-1)
    return float(np.diff(segments, axis=-2).var())


def run(path: Path, budget: str, method: str, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Train on a file and denoise it; returns noisy and denoised."""
    model = folder / f"{path.stem}_{method}.safetensors"
    cosdd("train", path, "-o", model, "--time", budget, "--method", method)
    cosdd("denoise", model, path, "-o", folder / method)
    return tifffile.imread(path).astype(np.float32), tifffile.imread(folder / method / path.name)


def with_flips(path: Path, method: str, folder: Path) -> np.ndarray:
    """Denoise once more with the model of ``run``, averaging over mirrored images."""
    cosdd("denoise", folder / f"{path.stem}_{method}.safetensors", path, "-o", folder / f"{method}_flips", "--flips")
    return tifffile.imread(folder / f"{method}_flips" / path.name)


def lines(entry: Entry) -> list[str]:
    """What it found, for README.md."""
    told = ["", f"Real recordings, `{entry['command']}`; {circumstances(entry)}:", ""]
    for name, run in entry["results"].items():
        kind, method = name.split(maxsplit=1)
        if kind == "twophoton":
            gain, moved = 100 * (1 - run["mse_denoised"] / run["mse_noisy"]), run["in_place"]
            told.append(
                f"- two-photon calcium imaging, 20 frames, about one photon per pixel ({method}): squared error "
                f"against the mean of the other frames, brightness and contrast matched: {run['mse_noisy']:,} noisy, "
                f"{run['mse_best_gaussian']:,} best Gaussian filter, **{run['mse_denoised']:,}** denoised, "
                f"{run['mse_with_flips']:,} with `--flips` ({gain:.0f} % below noisy). {run['mse_of_the_reference']:,} "
                f"of each figure is the noise of that mean. The scene drifts by up to {run['largest_drift_pixels']} "
                f"pixels, which blurs the mean and favours blur; with the other frames moved into place: "
                f"{moved['mse_noisy']:,}, {moved['mse_best_gaussian']:,} and **{moved['mse_denoised']:,}**."
            )
        else:
            before, after = run["streak_variance_noisy"], run["streak_variance_denoised"]
            told.append(
                f"- STEM, one frame with long row streaks ({method}): how much neighbouring rows differ, "
                f"as the variance of the difference of {SEGMENT}-pixel stretches: {before:,.0f} before, "
                f"**{after:,.0f}** after."
            )
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--time", default="10m")
    parser.add_argument("--methods", nargs="+", default=["auto", "cosdd"])
    asked = parser.parse_args()
    command = f"python -m benchmarks.real --time {asked.time} --methods {' '.join(asked.methods)}"
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for method in asked.methods:
            path = DATA / "noisy" / "twophoton_neurons_20x128x256.tif"
            noisy, denoised = run(path, asked.time, method, folder)
            blurred, sigma = metrics.best_gaussian_by(noisy, lambda filtered, n=noisy: against_others(filtered, n))
            flipped = with_flips(path, method, folder) if method != "cosdd" else denoised
            shifts = drift(noisy)

            def in_place(frames: np.ndarray, noisy: np.ndarray = noisy, shifts: np.ndarray = shifts) -> float:
                return against_others_in_place(frames, noisy, shifts)

            results[f"twophoton {method}"] = {
                "mse_noisy": round(against_others(noisy, noisy)),
                "mse_best_gaussian": round(against_others(blurred, noisy)),
                "gaussian_sigma": round(float(sigma), 2),
                "mse_denoised": round(against_others(denoised, noisy)),
                "mse_with_flips": round(against_others(flipped, noisy)),
                "mse_of_the_reference": round(float(noisy.var(0, ddof=1).mean() / (len(noisy) - 1))),
                "largest_drift_pixels": int(np.ptp(shifts, axis=0).max()),
                "in_place": {
                    "mse_noisy": round(in_place(noisy)),
                    "mse_best_gaussian": round(in_place(metrics.best_gaussian_by(noisy, in_place)[0])),
                    "mse_denoised": round(in_place(denoised)),
                    "mse_with_flips": round(in_place(flipped)),
                },
            }
            path = DATA / "noisy" / "stem_srtio3_1024x1024.tif"
            noisy, denoised = run(path, asked.time, method, folder)
            results[f"stem {method}"] = {
                "streak_variance_noisy": round(streaks(noisy), 2),
                "streak_variance_denoised": round(streaks(denoised), 2),
                "row_difference_variance_noisy": round(float(np.diff(noisy, axis=-2).var())),
                "row_difference_variance_denoised": round(float(np.diff(denoised, axis=-2).var())),
            }
            view(RESULTS.parent / f"stem_{method}.png", noisy, denoised)
            print(results, flush=True)
    print(write("real", command, results))


def view(path: Path, noisy: np.ndarray, denoised: np.ndarray, size: int = 256) -> None:
    """Before, after and difference of a corner of the image, on one grey scale. Not committed: others' data."""
    before, after = noisy[:size, :size], denoised[:size, :size]
    low, high = np.percentile(before, [0.5, 99.5])
    half = (high - low) / 2
    report.side_by_side(
        path,
        [("noisy", before), ("cosdd", after), ("removed", before - after)],
        [(low, high), (low, high), (-half, half)],
        zoom=2,
    )


if __name__ == "__main__":
    main()
