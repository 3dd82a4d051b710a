"""Does a tile or a strip show? ``python -m benchmarks.seams [--edge 2048 --steps 30]``.

Large images, one of them of odd edges, by models that were trained for a few updates: a COSDD model as a whole and in
tiles of several sizes, the mean and a single sample of four, and the direct denoiser; a blind-row model as a whole and
in strips, mean and standard deviation. The largest difference anywhere, over the range of the result; in float32, and
in bfloat16 where the processor computes it natively: a sum in another order may round its features to another of 256
steps.
"""

from __future__ import annotations

import argparse
from functools import partial
from unittest import mock

import numpy as np

import cosdd
from benchmarks.record import Entry, circumstances, write
from cosdd import denoise, device, simulate
from cosdd.denoise import Denoiser
from cosdd.model import wiener
from cosdd.specimen import specimen

TILES = (384, 500, 1024)
STRIPS = (1 << 18, 1 << 20)  # pixels in each
WHOLE = 1 << 40
SAMPLES = 4


def lines(entry: Entry) -> list[str]:
    """What it found, for docs/samples.md."""
    found = entry["results"]
    told = ["", f"`{entry['command']}`; {circumstances(entry)}. Largest difference to the whole image, anywhere, over "
            "the range of the result:", ""]  # fmt: skip
    for name, run in found.items():
        worst = ", ".join(f"{what} {value:.1e}" for what, value in run.items())
        told.append(f"- {name}: {worst}")
    return told


def image(height: int, width: int) -> np.ndarray:
    clean = specimen(1, 512, 1)[0]
    clean = np.tile(clean, (-(-height // 512), -(-width // 512)))[:height, :width]
    return 1000 * simulate.heavy(clean, np.random.default_rng(2)) + 1000


def difference(one: np.ndarray | None, other: np.ndarray | None) -> float:
    assert one is not None
    assert other is not None
    return float(f"{np.abs(one - other).max() / np.ptp(other):.2g}")


def by_tiles(model: Denoiser, noisy: np.ndarray) -> dict[str, float]:
    def made(tile: int) -> dict[str, np.ndarray | None]:
        drawn = model.denoise(noisy, samples=SAMPLES, save_samples=1, tile=tile)
        direct = model.denoise(noisy, direct=True, tile=tile).mean
        return {"mean": drawn.mean, "single sample": drawn.samples, "standard deviation": drawn.std, "direct": direct}

    whole, worst = made(WHOLE), {}
    for tile in TILES:
        for what, tiled in made(tile).items():
            worst[what] = max(worst.get(what, 0.0), difference(tiled, whole[what]))
    return worst


def by_strips(model: Denoiser, noisy: np.ndarray) -> dict[str, float]:
    def made(pixels: int) -> dict[str, np.ndarray | None]:
        with (
            mock.patch.object(denoise, "STRIP", pixels),
            mock.patch.object(wiener, "refined", partial(wiener.refined, pixels=pixels)),
        ):
            result = model.denoise(noisy)
        return {"mean": result.mean, "standard deviation": result.std}

    whole, worst = made(WHOLE), {}
    for pixels in STRIPS:
        for what, part in made(pixels).items():
            worst[what] = max(worst.get(what, 0.0), difference(part, whole[what]))
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edge", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=30)
    asked = parser.parse_args()
    edge, noisy = asked.edge, 1000 * simulate.heavy(specimen(40, 128, 0), np.random.default_rng(0)) + 1000
    found = {}
    for precision in ("float32", "bfloat16")[: 1 + device.native_bfloat16(device.best())]:
        for method, measure in (("cosdd", by_tiles), ("blind-row", by_strips)):
            settings = {"train": {"precision": precision}}
            model = cosdd.train(
                noisy, axes="TYX", noise_axis="x", method=method, steps=asked.steps, settings=settings, quiet=True
            )
            for height, width in ((edge, edge), (edge // 2 - 1, edge - 49)):
                found[f"{method}, {precision}, {height} x {width}"] = measure(model, image(height, width))
                print(found, flush=True)
    print(write("seams", f"python -m benchmarks.seams --edge {edge} --steps {asked.steps}", found))


if __name__ == "__main__":
    main()
