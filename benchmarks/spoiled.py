"""Does one bad batch in fifty cost anything? ``python -m benchmarks.spoiled [--steps 500 --seeds 2]``.

The same training twice for each method and seed, on a simulated stack: as it is, and with infinite pixels in one batch
of fifty, whose loss is then not finite. Such updates are skipped; the results have to be as good, to 0.1 dB.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.record import Entry, circumstances, write
from cosdd import config, metrics, simulate, training
from cosdd.data import Frames
from cosdd.denoise import Denoiser
from cosdd.specimen import specimen

SHARE = 1 / 50
TRAIN_IMAGES, TEST_IMAGES, SIZE = 60, 8, 96


@dataclass(frozen=True)
class Spoiled(Frames):
    """Frames some of whose batches cannot be learned from."""

    def batch(self, seed: int, step: int, count: int, edges: tuple[int, ...], flips: str) -> np.ndarray:
        crops = super().batch(seed, step, count, edges, flips)
        if spoiled(seed, step):
            crops[0, ..., :3] = np.inf
        return crops


def spoiled(seed: int, step: int) -> bool:
    return np.random.default_rng((seed, 50, step)).random() < SHARE


def trained(method: str, seed: int, steps: int, kind: type[Frames], clean: np.ndarray, noisy: np.ndarray) -> dict:
    """PSNR on the held-out images of a model that was trained on ``kind`` of frames."""
    settings = config.build("tiny", {"method": method, "train": {"steps": steps, "seed": seed, "crop": 48, "batch": 4}})
    split = Frames.split([noisy[:TRAIN_IMAGES, None]], 0.1, seed)
    run = training.start(settings, kind(**vars(split)))
    for _ in training.fit(run):
        pass
    found = Denoiser(training.finish(run)).denoise(noisy[TRAIN_IMAGES:], samples=20)
    psnr = float(metrics.psnr(found.mean, clean[TRAIN_IMAGES:], "unit"))
    return {"psnr": round(psnr, 3), "skipped": run.skipped}


def compare(method: str, seed: int, steps: int) -> dict[str, Any]:
    clean = specimen(TRAIN_IMAGES + TEST_IMAGES, SIZE, seed)
    noisy = simulate.heavy(clean, np.random.default_rng((seed, 1)))
    began = time.process_time()
    whole, with_bad = (trained(method, seed, steps, kind, clean, noisy) for kind in (Frames, Spoiled))
    return {
        "bad_batches": sum(spoiled(seed, step) for step in range(steps)),
        "skipped": with_bad["skipped"],
        "psnr_clean": whole["psnr"],
        "psnr_spoiled": with_bad["psnr"],
        "difference_db": round(with_bad["psnr"] - whole["psnr"], 3),
        "processor_seconds": round(time.process_time() - began),
    }


def lines(entry: Entry) -> list[str]:
    """What it found, for docs/reliability.md."""
    found = []
    for method, runs in entry["results"].items():
        off = [run["difference_db"] for run in runs]
        skipped = sum(run["skipped"] for run in runs)
        found.append(f"{method} {min(off):+.2f} to {max(off):+.2f} dB of PSNR ({skipped} updates skipped)")
    seeds = len(next(iter(entry["results"].values())))
    return [
        f"- Infinite pixels in one batch of fifty, against the same training without, {seeds} seeds: "
        f"{'; '.join(found)}. (`{entry['command']}`; {circumstances(entry)}.)"
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=2)
    asked = parser.parse_args()
    results: dict[str, list[dict[str, Any]]] = {}
    for method in ("blind-row", "cosdd"):
        results[method] = []
        for seed in range(asked.seeds):
            results[method].append(compare(method, seed, asked.steps))
            print(method, results[method][-1], flush=True)
    print(write("spoiled", f"python -m benchmarks.spoiled --steps {asked.steps} --seeds {asked.seeds}", results))


if __name__ == "__main__":
    main()
