"""``cosdd demo``: simulate a specimen, make it noisy, train, denoise what was held out, and say how well it went."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cosdd import images, metrics, preparation, report, simulate, training, writing
from cosdd.denoise import Denoiser, Result, Settings
from cosdd.errors import InputError
from cosdd.model import COSDD
from cosdd.specimen import specimen

TRAIN_IMAGES, TEST_IMAGES, SIZE = 120, 8, 128
SUMMARY = "summary.json"


def run(
    folder: Path, seed: int, overwrite: bool, layers: list[dict[str, Any]], samples: int | None
) -> Iterator[training.Record | float | dict[str, Any]]:
    """Yields training records, then shares of the denoising done, then the summary.

    Writes clean and noisy images, the model, the denoised images, a picture, a report and ``summary.json`` to
    ``folder``.
    """
    began = time.perf_counter()
    if (folder / SUMMARY).exists() and not overwrite:
        raise InputError(f"{folder}: holds a demo already: choose another folder with -o, or add --overwrite")
    folder.mkdir(parents=True, exist_ok=True)
    clean = specimen(TRAIN_IMAGES + TEST_IMAGES, SIZE, seed)
    noisy = simulate.heavy(clean, np.random.default_rng((seed, 1)))
    test_noisy, test_clean = noisy[TRAIN_IMAGES:], clean[TRAIN_IMAGES:]
    stack = images.from_array(test_noisy, "TYX")
    images.write(folder / "noisy_train.tif", noisy[:TRAIN_IMAGES], stack, overwrite=True)
    images.write(folder / "noisy_test.tif", test_noisy, stack, overwrite=True)
    images.write(folder / "clean_test.tif", test_clean, stack, overwrite=True)

    ready = preparation.prepare([folder / "noisy_train.tif"], None, "x", "tiny", {"train": {"seed": seed}}, *layers)
    training_began = time.perf_counter()
    state = training.start(ready.settings, ready.frames)
    yield from training.fit(state)
    denoiser = Denoiser(training.finish(state))
    train_seconds = time.perf_counter() - training_began
    denoiser.save(folder / "model.safetensors", overwrite=True)

    results: list[Result] = []
    frames = denoiser.frames(stack)
    draws = isinstance(denoiser.checkpoint.network, COSDD)
    asked = Settings(samples=samples, seed=seed, save_samples=1 if draws else 0)
    denoising_began = time.perf_counter()
    for part in denoiser.stream(frames, asked):
        if isinstance(part, Result):
            results.append(part)
        else:
            yield part
    denoise_seconds = time.perf_counter() - denoising_began
    denoised = np.concatenate([result.mean for result in results])
    images.write(folder / "denoised.tif", denoised, stack, overwrite=True)

    def psnr(image: np.ndarray) -> float:
        return round(float(metrics.psnr(image, test_clean, "unit")), 3)

    blurred, sigma = metrics.best_gaussian(test_noisy, test_clean)
    summary: dict[str, Any] = {
        "psnr_noisy": psnr(test_noisy),
        "psnr_denoised": psnr(denoised),
        "psnr_gaussian": psnr(blurred),
        "gaussian_sigma": round(float(sigma), 3),
    }
    if all(result.samples is not None for result in results):
        summary["psnr_one_sample"] = psnr(np.stack([r.samples[0, 0] for r in results if r.samples is not None]))
    network = denoiser.checkpoint.network
    summary |= {"method": denoiser.checkpoint.settings.method}
    if isinstance(network, COSDD) and network.direct is not None:
        direct = denoiser.denoise(stack, direct=True).mean
        summary["psnr_direct"] = psnr(direct)
    summary |= {
        "psnr_convention": "range 1, per image, then mean",
        "steps": denoiser.checkpoint.steps,
        "samples": max(max(result.taken) for result in results),
        "seed": seed,
        "train_seconds": round(train_seconds, 1),
        "denoise_seconds": round(denoise_seconds, 1),
        "total_seconds": 0.0,
        "peak_memory_gb": 0.0,
        "doubts": denoiser.checkpoint.doubts,
    }
    picture(folder / "before_after.png", test_noisy, blurred, denoised, test_clean, summary)
    shown = images.read(folder / "noisy_test.tif")
    facts = {"gain": f"{summary['psnr_denoised'] - summary['psnr_noisy']:+.2f} dB, measured with the clean images"}
    for part in report.page(denoiser, shown, folder / "report.html", facts, overwrite=True):
        if isinstance(part, float):
            yield part
    summary["total_seconds"] = round(time.perf_counter() - began, 1)
    summary["peak_memory_gb"] = peak_memory_gb()
    with writing.whole(folder / SUMMARY) as part:
        part.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    yield summary


def picture(
    path: Path,
    noisy: np.ndarray,
    blurred: np.ndarray,
    denoised: np.ndarray,
    clean: np.ndarray,
    summary: dict[str, Any],
    index: int = 0,
) -> None:
    """Noisy, best Gaussian, denoised and clean side by side."""
    panels = [
        (f"noisy {summary['psnr_noisy']:.1f} dB", noisy[index]),
        (f"best Gaussian {summary['psnr_gaussian']:.1f} dB", blurred[index]),
        (f"cosdd {summary['psnr_denoised']:.1f} dB", denoised[index]),
        ("clean (never seen)", clean[index]),
    ]
    report.side_by_side(path, panels, [(0.0, float(clean[index].max()))] * len(panels), zoom=2)


def peak_memory_gb() -> float | None:
    """The most memory this process ever held; None on Windows, which keeps no such record for us."""
    if sys.platform == "win32":
        return None
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9, 2)
