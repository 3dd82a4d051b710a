"""What must fail fails, what must work works: method 7.6, on the specimen.

streaks, x      row-correlated noise, the model told so: must work
streaks, y      the same noise, the model told that it runs along columns: must fail, the noise stays in the image
streaks, none   the same noise, the model told that it is white: must fail alike, but for blind-row models, which
                measure how far noise is correlated along the rows whatever they are told
white, x        white noise, the model told that it may run along rows: must work
white, none     white noise, the model told so: must work

What stays of the noise: the regression of (denoised - clean) on (noisy - clean). An estimate that uses a pixel's own
grey value at all keeps some of its noise, so what counts is the difference to the right axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.paper import figures
from benchmarks.paper.models import Size, trained
from benchmarks.table.sets import Set
from benchmarks.table.sets import simulated as noisy_set
from cosdd import metrics

KINDS = {"streaks": "heavy", "white": "white"}
NAMES = ("streaks x", "streaks y", "streaks none", "white x", "white none")
FAILING = ("streaks y", "streaks none")
METHODS = ("blind-row", "cosdd")
WORSE, MORE_NOISE = 1.0, 0.1  # dB below the right axis, and noise kept beyond it, that make a failure
BETTER = 3.0  # dB over the noisy image that make a success
LOST = 0.5  # dB that the unneeded axis may cost in white noise
PICTURE = "controls.png"


def measured(images: Set, denoised: np.ndarray) -> dict[str, Any]:
    truth, noisy = images.truth, images.test
    assert truth is not None
    noise = noisy - truth
    return {
        "psnr_noisy": round(metrics.psnr(noisy, truth, "unit"), 2),
        "psnr_best_gaussian": round(metrics.psnr(metrics.best_gaussian(noisy, truth)[0], truth, "unit"), 2),
        "psnr_denoised": round(metrics.psnr(denoised, truth, "unit"), 2),
        "noise_kept": round(float(np.sum((denoised - truth) * noise) / np.sum(noise**2)), 3),
    }


def fails(case: str, method: str) -> bool:
    """Must it fail?"""
    return case in FAILING and (case, method) != ("streaks none", "blind-row")


def summarise(results: Mapping[str, Any]) -> None:
    """Fill in `as_it_should`, where what a row is compared with is there too."""
    for name, run in results.items():
        case, method = name.rsplit(" ", 1)
        if fails(case, method):
            right = results.get(f"streaks x {method}")
            if right:
                worse = right["psnr_denoised"] - run["psnr_denoised"]
                more = run["noise_kept"] - right["noise_kept"]
                run["as_it_should"] = worse > WORSE and more > MORE_NOISE
            continue
        run["as_it_should"] = run["psnr_denoised"] - run["psnr_noisy"] > BETTER
        told = results.get(f"white none {method}")
        if case == "white x" and told:
            run["as_it_should"] &= told["psnr_denoised"] - run["psnr_denoised"] < LOST


def run(size: Size, sets: list[str], methods: list[str], folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for method in methods:
        shown: dict[str, np.ndarray] = {}
        for case in sets:
            kind, axis = case.split()
            images = noisy_set("specimen", KINDS[kind], 0, size.tested)
            steps = size.control_steps[method]
            model = trained(f"specimen-{KINDS[kind]}", images.train, axis, method, steps, size, folder)
            denoised = model.denoiser.denoise(images.test, axes="TYX", samples=20).mean
            results[f"{case} {method}"] = measured(images, denoised) | model.facts
            shown.setdefault(f"{kind}: noisy", images.test[0])
            shown[f"{kind}, told {axis}"] = denoised[0]
        if sets == list(NAMES):
            assert images.truth is not None
            side_by_side(shown, images.truth[0], method)
    return results


def side_by_side(shown: Mapping[str, np.ndarray], clean: np.ndarray, method: str) -> None:
    """Above the streaks, below the white noise."""
    rows = [[*((name, image) for name, image in shown.items() if name.startswith(kind)), ("clean", clean)]
            for kind in KINDS]  # fmt: skip
    limits = [[(0.0, float(clean.max()))] * len(row) for row in rows]
    figures.grid(figures.IMAGES / PICTURE.replace(".", f"_{method}."), rows, limits, zoom=1)


def table(results: Mapping[str, Any]) -> list[str]:
    lines = [
        "| noise, told axis (method, updates) | must | noisy | best Gaussian | denoised | noise kept | as it should |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, run in results.items():
        case, method = name.rsplit(" ", 1)
        as_it_should = {True: "yes", False: "**no**", None: ""}[run.get("as_it_should")]
        lines.append(
            f"| {case.replace(' ', ', ')} ({method}, {run['steps']}) | {'fail' if fails(case, method) else 'work'} "
            f"| {run['psnr_noisy']:.1f} dB | {run['psnr_best_gaussian']:.1f} dB | {run['psnr_denoised']:.1f} dB "
            f"| {100 * run['noise_kept']:.0f} % | {as_it_should} |"
        )
    return lines
