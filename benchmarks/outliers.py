"""What hot pixels cost, and how much of it leaving them out saves: ``python -m benchmarks.outliers [--steps 400]``.

The stripe simulation of ``benchmarks.blindrow``, in which one pixel in a thousand is hot: 0.5 to 3 brighter, where the
photographs go from 0 to 1. Trained and denoised without hot pixels, with them left out, and with them kept. PSNR over
all pixels, and over those that are not hot themselves.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import cosdd
from benchmarks.blindrow import photographs, simulate
from benchmarks.record import Entry, write

SHARE = 1e-3


def lines(entry: Entry) -> list[str]:
    """What it found, for docs/blind-row.md."""
    run = entry["results"]
    none, out, kept = run["none"], run["left out"], run["kept"]
    return [
        "",
        f"Hot pixels, {run['share']:.1%} of all, in *stripe* (`{entry['command']}`): {kept['psnr_noisy']} dB noisy; "
        f"left out, as they are by default, **{out['psnr_denoised']} dB** denoised, {out['psnr_elsewhere']} dB without "
        f"the hot pixels themselves; kept, {kept['psnr_denoised']} and {kept['psnr_elsewhere']} dB. Without any hot "
        f"pixel it is {none['psnr_denoised']} dB.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400)
    steps = parser.parse_args().steps
    clean, rng = photographs(), np.random.default_rng(0)
    noisy = simulate("stripe", clean, rng)
    hot = rng.random(noisy.shape) < SHARE
    spoiled = noisy.copy()
    spoiled[hot] += rng.uniform(0.5, 3, hot.sum()).astype(np.float32)
    results: dict[str, Any] = {"share": SHARE}
    for name, images, outliers in (("none", noisy, True), ("left out", spoiled, True), ("kept", spoiled, False)):
        settings = {"train": {"outliers": outliers}}
        model = cosdd.train(images[:360], noise_axis="x", method="blind-row", steps=steps, settings=settings)
        denoised = model.denoise(images[360:], axes="TYX").mean
        error = (denoised - clean[360:]) ** 2
        results[name] = {
            "psnr_noisy": round(float(-10 * np.log10(np.mean((images[360:] - clean[360:]) ** 2))), 2),
            "psnr_denoised": round(float(-10 * np.log10(error.mean())), 2),
            "psnr_elsewhere": round(float(-10 * np.log10(error[~hot[360:]].mean())), 2),
        }
        print(name, results[name], flush=True)
    print(write("outliers", f"python -m benchmarks.outliers --steps {steps}", results))


if __name__ == "__main__":
    main()
