"""Is the blind-row denoiser right, and about the noise too? ``python -m benchmarks.blindrow [--seeds 3 --time 2m]``.

Photographs (bsd400, 128 px centre crops; 360 to train on, 40 to test) under noise that is known:

stripe    .002 s + .0004 white, plus row-blurred Gaussian noise of standard deviation .025 before the blur
heavy     Poisson noise of 20 counts at white, plus row-blurred Gaussian noise of standard deviation .2
negative  variance .004 s + .001, each pixel sharing -.3 with the next of its row, as cameras with an
          electron-multiplying register have it
faint     stripe with a tenth of the variances: less noise than fine texture, where it must go wrong and say so

Real ones: an electron-multiplying camera (only the noise is scored), and photon counts (white noise; frames against
the mean of the other frames, the same frames that were trained on). Models are trained through the command line.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import tifffile
from PIL import Image
from scipy import ndimage

import cosdd
from benchmarks.real import against_others
from benchmarks.record import DATA, Entry, circumstances, write
from cosdd import metrics

SIGNAL = np.linspace(0.1, 0.9, 9)  # where the learned variance is compared with the true one
NEGATIVE = -1 / 3  # weight of the neighbour; shares NEGATIVE / (1 + NEGATIVE^2) = -.3
BLUR = np.exp(-0.5 * np.arange(-3, 4) ** 2) / np.exp(-0.5 * np.arange(-3, 4) ** 2).sum()
SIMULATIONS = ("stripe", "heavy", "negative", "faint")


def photographs() -> np.ndarray:
    """(400, 128, 128), 0 to 1."""
    files = sorted((DATA / "clean" / "bsd400").glob("*"))
    images = np.stack([np.asarray(Image.open(file).convert("L"), np.float32) for file in files]) / 255
    return images[:, 26:154, 26:154]


def blurred(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> np.ndarray:
    return ndimage.correlate1d(rng.normal(0, sigma, (*shape[:-1], shape[-1] + 6)), BLUR, axis=-1)[..., 3:-3]


def simulate(kind: str, clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if kind == "heavy":
        noisy = rng.poisson(clean * 20) / 20 + blurred(rng, clean.shape, 0.2)
    elif kind == "negative":
        white = rng.normal(size=(*clean.shape[:-1], clean.shape[-1] + 1))
        noise = (white[..., 1:] + NEGATIVE * white[..., :-1]) / np.sqrt(1 + NEGATIVE**2)
        noisy = clean + np.sqrt(0.004 * clean + 0.001) * noise
    else:
        noise = np.sqrt(0.002 * clean + 0.0004) * rng.normal(size=clean.shape) + blurred(rng, clean.shape, 0.025)
        noisy = clean + (noise if kind == "stripe" else noise * np.sqrt(0.1))
    return noisy.astype(np.float32)


def truth(kind: str, mean: float) -> tuple[float, float, float]:
    """Gain and offset of the total variance; lag-1 correlation where the image has its mean brightness."""
    power = float((BLUR**2).sum())
    shared = float((BLUR[1:] * BLUR[:-1]).sum()) / power
    if kind == "heavy":
        return 1 / 20, 0.04 * power, shared * 0.04 * power / (mean / 20 + 0.04 * power)
    if kind == "negative":
        return 0.004, 0.001, NEGATIVE / (1 + NEGATIVE**2)
    scale, correlated = (1.0 if kind == "stripe" else 0.1), 0.000625 * power
    return 0.002 * scale, scale * (0.0004 + correlated), shared * correlated / (0.002 * mean + 0.0004 + correlated)


def trained(path: Path, model: Path, time: str, seed: int) -> str:
    """Train through the command line; returns what it said."""
    command = [sys.executable, "-m", "cosdd", "train", str(path), "-o", str(model), "--time", time]
    command += ["--method", "blind-row", "--seed", str(seed), "--noise-axis", "x", "--overwrite"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout


def simulation(kind: str, seed: int, time: str, folder: Path) -> dict[str, Any]:
    clean = photographs()
    noisy = simulate(kind, clean, np.random.default_rng(seed))
    path, model = folder / f"{kind}.tif", folder / f"{kind}.safetensors"
    tifffile.imwrite(path, noisy[:360], imagej=False, metadata={"axes": "TYX"})
    said = trained(path, model, time, seed)
    denoiser = cosdd.load(model)
    result, clean, noisy = denoiser.denoise(noisy[360:], axes="TYX"), clean[360:], noisy[360:]
    assert result.std is not None
    gaussian, _ = metrics.best_gaussian(noisy, clean)
    noise = denoiser.noise()[0]
    gain, offset, lag_one = truth(kind, denoiser.checkpoint.statistics.mean[0])
    error = (noise.gain * SIGNAL + noise.variance_at_zero) / (gain * SIGNAL + offset) - 1
    return {
        "psnr_noisy": metrics.psnr(noisy, clean, "unit"),
        "psnr_gaussian": metrics.psnr(gaussian, clean, "unit"),
        "psnr_denoised": metrics.psnr(result.mean, clean, "unit"),
        "coverage_90": float((np.abs(result.mean - clean) < 1.645 * result.std).mean()),
        "gain_error": noise.gain / gain - 1,
        "worst_variance_error": float(error[np.abs(error).argmax()]),
        "lag_one": noise.autocorrelation[0],
        "lag_one_truth": lag_one,
        "warned": "note:" in said,
    }


def aurora(seed: int, time: str, folder: Path) -> dict[str, Any]:
    model = folder / "aurora.safetensors"
    trained(DATA / "noisy" / "emccd_aurora_2x512x512.tif", model, time, seed)
    noise = cosdd.load(model).noise()[0]
    return {"lag_one": noise.autocorrelation[0], "gain": noise.gain, "variance_at_zero": noise.variance_at_zero}


def confocal(seed: int, time: str, folder: Path) -> dict[str, Any]:
    path, model = sorted((DATA / "noisy" / "confocal_counts").glob("*"))[0], folder / "confocal.safetensors"
    trained(path, model, time, seed)
    noisy = tifffile.imread(path).astype(np.float32)
    denoised = cosdd.load(model).denoise(noisy, axes="TYX").mean
    blurred, _ = metrics.best_gaussian_by(noisy, lambda filtered: against_others(filtered, noisy))
    errors = [against_others(images, noisy) for images in (noisy, blurred, denoised)]
    return {
        "mse_noisy": errors[0],
        "mse_best_gaussian": errors[1],
        "mse_denoised": errors[2],
        "over_gaussian_db": float(10 * np.log10(errors[1] / errors[2])),
    }


def lines(entry: Entry) -> list[str]:
    """What it found, for docs/blind-row.md."""
    found = entry["results"]
    told = [
        f"`{entry['command']}`: median over seeds (lowest to highest); {circumstances(entry)}.",
        "",
        "| simulation | noisy | best Gaussian | denoised | 90 % interval covers | gain | worst variance | lag 1 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, run in found.items():
        if "psnr_denoised" not in run["median"]:
            continue
        m, (low, high) = run["median"], run["range"]["psnr_denoised"]
        spread = f" ({low:.1f} to {high:.1f})" if high > low else ""
        warned = ", and said so" if run["warned"] else ""
        told.append(
            f"| {name}{warned} | {m['psnr_noisy']:.1f} dB | {m['psnr_gaussian']:.1f} dB "
            f"| **{m['psnr_denoised']:.1f} dB**{spread} | {100 * m['coverage_90']:.0f} % "
            f"| {100 * m['gain_error']:+.0f} % | {100 * m['worst_variance_error']:+.0f} % "
            f"| {m['lag_one']:+.2f} for {m['lag_one_truth']:+.2f} |"
        )
    aurora, confocal = found["aurora"], found["confocal"]["median"]
    low, high = aurora["range"]["lag_one"]
    told += [
        "",
        f"Real: aurora, an electron-multiplying camera: lag 1 {aurora['median']['lag_one']:+.2f} ({low:+.2f} to "
        f"{high:+.2f}). Photon counts of a confocal microscope, white noise, trained and scored on the same frames, "
        "each against the mean of the others: "
        f"mean squared error {confocal['mse_noisy']:.2f} noisy, {confocal['mse_best_gaussian']:.2f} best Gaussian "
        f"filter, **{confocal['mse_denoised']:.2f}** denoised ({confocal['over_gaussian_db']:+.1f} dB to that filter).",
    ]
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--time", default="2m")
    asked = parser.parse_args()
    jobs = {kind: lambda *a, kind=kind: simulation(kind, *a) for kind in SIMULATIONS}
    jobs |= {"aurora": aurora, "confocal": confocal}
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, job in jobs.items():
            runs = [job(seed, asked.time, Path(folder)) for seed in range(1 if name == "faint" else asked.seeds)]
            values = {key: sorted(run[key] for run in runs) for key in runs[0] if key != "warned"}
            results[name] = {
                "median": {key: float(f"{median(v):.4g}") for key, v in values.items()},
                "range": {key: [float(f"{v[0]:.4g}"), float(f"{v[-1]:.4g}")] for key, v in values.items()},
            }
            if "warned" in runs[0]:
                results[name]["warned"] = all(run["warned"] for run in runs)
            print(name, results[name], flush=True)
    print(write("blindrow", f"python -m benchmarks.blindrow --seeds {asked.seeds} --time {asked.time}", results))


if __name__ == "__main__":
    main()
