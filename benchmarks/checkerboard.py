"""What the checkerboard of the paper asks of the noise model of ``auto``: ``python -m benchmarks.checkerboard``.

Its white noise fades where the image is bright, and its pattern goes on along the row without end. Straight lines and
a short kernel hold neither. `RowNoise` therefore has a factor for each brightness and a wave, and takes the wave out of
the other rows before its network looks at them. Here each is left out: trained with a fixed number of updates, on the
images of the table.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from unittest import mock

import numpy as np

import cosdd
from benchmarks.record import Entry, circumstances, write
from benchmarks.table.classical import RowSpectrum, shrunk
from benchmarks.table.sets import SETS, Set
from cosdd import metrics
from cosdd.model.rownoise import RowNoise

LEFT_OUT = {
    "straight lines and a short kernel": ("_look_for_wave", "_look_for_bend"),
    "with a factor for each brightness": ("_look_for_wave",),
    "with a wave": ("_look_for_bend", "without_wave"),
    "with both": ("without_wave",),
    "with both, and the wave taken out of other rows": (),
}


def score(images: Set, left_out: tuple[str, ...], steps: int) -> dict[str, float]:
    """PSNR (range 1, mean over the test images), and the negative log-likelihood of rows that were held out."""
    with ExitStack() as changes:
        for name in left_out:
            instead = (lambda self, x: x) if name == "without_wave" else (lambda self, *_: None)
            changes.enter_context(mock.patch.object(RowNoise, name, instead))
        model = cosdd.train(
            images.train, axes="TYX", noise_axis="x", method="blind-row", steps=steps, seed=0, quiet=True
        )
        found = model.denoise(images.test, axes="TYX").mean
    assert images.truth is not None
    nll = min(entry["nll"] for entry in model.checkpoint.history)
    return {"psnr": round(metrics.psnr(found, images.truth, "unit"), 2), "nll": round(nll, 3)}


def lines(entry: Entry) -> list[str]:
    """What it found, for docs/benchmarks.md."""
    found = entry["results"]
    variants = [
        f"| {name} | {score['psnr']:.2f} dB | {score['nll']:+.3f} |" for name, score in found["variants"].items()
    ]
    return [
        "",
        "### What the checkerboard asks of the noise model",
        "",
        f"`auto` on bsd400-checkerboard with parts of its noise model left out, {found['steps']} updates, 40 test "
        f"images (`{entry['command']}`; {circumstances(entry)}). Noisy {found['noisy']:.2f} dB, row Wiener "
        f"{found['row Wiener']:.2f} dB.",
        "",
        "| noise model | PSNR | negative log-likelihood of held-out rows, nats per pixel |",
        "|---|---|---|",
        *variants,
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=500)
    steps = parser.parse_args().steps
    images: Set = SETS["bsd400-checkerboard"](0, 40)
    assert images.truth is not None
    spectrum = RowSpectrum(images.train)
    wiener = np.stack([shrunk(image, spectrum) for image in images.test])
    results = {
        "noisy": round(metrics.psnr(images.test, images.truth, "unit"), 2),
        "row Wiener": round(metrics.psnr(wiener, images.truth, "unit"), 2),
        "variants": {name: score(images, left_out, steps) for name, left_out in LEFT_OUT.items()},
        "steps": steps,
    }
    print(write("checkerboard", f"python -m benchmarks.checkerboard --steps {steps}", results), results)


if __name__ == "__main__":
    main()
