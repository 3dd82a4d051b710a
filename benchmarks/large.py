"""One large image on a laptop: time and memory. ``python -m benchmarks.large [--edge 8192 --train 60s]``.

Trains on a small stack of the demo's kind, then denoises a single edge x edge image through the command line (a COSDD
model: one sample) and measures the largest resident memory of that process.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.record import Entry, circumstances, cosdd, earlier, write
from cosdd import images, simulate
from cosdd.specimen import specimen

TILE = 512


def lines(entry: Entry) -> list[str]:
    """What it found, for README.md."""
    told = [
        "",
        f"Large images, `{entry['command']}`; {circumstances(entry)}: largest resident memory of `denoise`.",
        "",
    ]
    for name, run in entry["results"].items():
        edge, method = name.split(maxsplit=1)
        what = "one sample" if method == "cosdd" else "mean and standard deviation"
        told.append(f"- {edge} x {edge} pixels, {method}, {what}: {run['seconds']:.0f} s, **{run['memory_gb']} GB**")
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edge", type=int, default=8192)
    parser.add_argument("--train", default="60s")
    parser.add_argument("--methods", nargs="+", default=["blind-row", "cosdd"])
    asked = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        noisy = simulate.heavy(specimen(60, 128, 0), np.random.default_rng(0))
        images.write(folder / "small.tif", noisy * 1000 + 1000, images.from_array(noisy, "TYX"))
        band = np.tile(specimen(1, TILE, 1)[0], (1, asked.edge // TILE))
        large = np.empty((band.shape[1], band.shape[1]), np.uint16)
        for start in range(0, len(large), TILE):
            noise = simulate.heavy(band, np.random.default_rng(start))
            large[start : start + TILE] = (noise * 1000 + 1000).clip(0, 65535)
        images.write(folder / "large.tif", large, images.from_array(large, "YX"))
        for method in asked.methods:
            model = folder / f"{method}.safetensors"
            cosdd("train", folder / "small.tif", "-o", model, "--time", asked.train, "--noise-axis", "x",
                  "--method", method)  # fmt: skip
            command = [sys.executable, "-m", "cosdd", "denoise", str(model), str(folder / "large.tif"), "--axes", "YX"]
            began = time.perf_counter()
            process = subprocess.Popen([*command, "-o", str(folder / method), "--samples", "1"])
            _, status, used = os.wait4(process.pid, 0)
            assert status == 0
            seconds = time.perf_counter() - began
            found[f"{len(large)} {method}"] = {
                "seconds": round(seconds, 1),
                "microseconds_per_pixel": round(1e6 * seconds / large.size, 2),
                "memory_gb": round(used.ru_maxrss / 1e6, 2),
            }
            print(found, flush=True)
    command = f"python -m benchmarks.large --edge {asked.edge} --train {asked.train}"
    print(write("large", command, earlier("large") | found))


if __name__ == "__main__":
    main()
