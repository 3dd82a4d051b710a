"""How soon is an estimate good? Ours against the authors' published code, from the same images, on one core.

python -m benchmarks.training --checkout FOLDER [--seconds 20m --sets stripe,heavy --runs ours,auto --seeds 0]

FOLDER is a checkout of the authors' code, which benchmarks.published drives: four batches of 4 crops of 64 x 64 to an
update, as its example configuration has it, with 6 levels and 32 filters; float32, without recomputation.

ours     --method cosdd, preset tiny, which starts as a wavelet denoiser (docs/training.md)
empty    the same with latents that start empty, as in the paper: the settings of EMPTY
auto     the blind-row denoiser, which is what users get
theirs   as published
mended   theirs, but the images are shuffled as a permutation: as published, shuffling a tensor repeats some images
         and loses about half of them

Photographs (bsd400, 128 px centre crops; 360 to train on, 8 of the other 40 to test) under the noise of
benchmarks.blindrow. Seconds are processor time of training on one thread, so other work on the machine does not
count, and neither does scoring. A run that is there already is measured anew only if named; each says its machine.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks import published, record
from benchmarks.__main__ import duration
from benchmarks.blindrow import photographs, simulate
from benchmarks.published import Estimate
from benchmarks.record import Entry, circumstances, machine, write
from cosdd import metrics, preparation, training
from cosdd.model import COSDD, USUAL

RUNS = {  # what the page calls them
    "ours": "`--method cosdd`",
    "empty": "the same, started with empty latents, as before",
    "auto": "`auto` (blind-row)",
    "theirs": "the authors' published code",
    "mended": "the same, its shuffling mended",
}
EMPTY: dict[str, dict[str, Any]] = {  # preset tiny before there were wavelets
    "model": {
        "start": "empty", "latents_from": 0.0, "levels": 5, "latents": 8, "noise_layers": 4, "noise_kernel": 5,
        "noise_features": 32, "signal_features": 32, "direct_features": 32, "refine": False,
    },
    "train": {"lr": 2e-3, "batch": 8},
}  # fmt: skip
SAMPLES, TESTED = 8, 8
MARKS = (15, 30, 60, 120, 300, 600, 1200)  # seconds after which an estimate is scored, and at the end


def ours(name: str, images: np.ndarray, seconds: float, seed: int) -> Iterator[tuple[int, Estimate]]:
    """Train by the budget; yields after every update. The moving average of the weights is what is scored."""
    method = "blind-row" if name == "auto" else "cosdd"
    settings = {"method": method, "train": {"time": seconds, "seed": seed, "outliers": False, "precision": "float32"}}
    ready = preparation.prepare([images], "TYX", "x", "tiny", settings, EMPTY if name == "empty" else {})
    began = time.process_time()
    run = training.start(ready.settings, ready.frames)
    run.seconds = time.process_time() - began
    statistics = ready.frames.statistics

    @torch.inference_mode()
    def estimate(noisy: np.ndarray, samples: int) -> dict[str, np.ndarray]:
        network, kept = run.network, {name: value.clone() for name, value in run.network.state_dict().items()}
        network.load_state_dict(run.average)
        network.eval()
        x = torch.from_numpy(statistics.normalise(noisy[:, None]))
        if isinstance(network, COSDD):
            features, window = network.encode(x)
            drawn = torch.stack([network.sample(features, window) for _ in range(samples)])
            found = {"mean": refined(network, x, drawn.mean(0), drawn.std(0))}
            if network.direct is not None and training.progress(run) > network.settings.direct_from:
                found["direct"] = refined(network, x, network.denoise_directly(x), None)
        else:
            found = {"mean": network.estimate(x)[0]}
        network.load_state_dict(kept)
        return {name: statistics.restore(value.numpy())[:, 0] for name, value in found.items()}

    steps = training.fit(run)
    while True:
        began, before = time.process_time(), run.seconds
        if next(steps, None) is None:
            return
        run.seconds = before + time.process_time() - began  # the budget is processor time
        yield run.step, estimate


def refined(network: COSDD, x: torch.Tensor, mean: torch.Tensor, std: torch.Tensor | None) -> torch.Tensor:
    """As `cosdd denoise` does it where held-out images do not say how many passes are best."""
    if network.measured is None:
        return mean
    *_, (_, better) = network.refined(x, mean, std, USUAL.samples)
    return better


def curve(steps: Iterator[tuple[int, Estimate]], seconds: float, noisy: np.ndarray, clean: np.ndarray) -> list[dict]:
    """PSNR of every way of estimating, at the marks, against processor seconds of training."""
    marks, spent, updates, estimate = [*(mark for mark in MARKS if mark < seconds), seconds], 0.0, 0, None
    found: list[dict[str, Any]] = []
    while marks:
        began = time.process_time()
        step = next(steps, None)
        spent += time.process_time() - began
        if step is not None:
            updates, estimate = step
        if step is None or spent >= marks[0]:
            assert estimate is not None
            made = estimate(noisy, SAMPLES)
            scores = {f"psnr_{name}": metrics.psnr(image, clean, "unit") for name, image in made.items()}
            entry = {"seconds": spent, "updates": updates} | scores
            found.append({name: float(f"{value:.4g}") for name, value in entry.items()})
            print("  ", found[-1], flush=True)
            marks = [mark for mark in marks if mark > spent] if step is not None else []
    return found


def lines(entry: Entry) -> list[str]:
    """What it found, for docs/training.md."""
    told = [
        f"`{entry['command']}`; {circumstances(entry)}. PSNR with range 1, after so many seconds of training; of the "
        "mean of eight samples, or of the direct denoiser where that is better; where there are several seeds, the "
        "median, and from the least to the most." + _machines(entry),
    ]
    for kind, found in entry["results"].items():
        longest = max((points for seeds in found["runs"].values() for points in seeds.values()), key=len)
        marks = [f"{point['seconds']:.0f} s" for point in longest]
        told += [
            "",
            f"| {kind}: noisy {found['psnr_noisy']:.1f} dB | {' | '.join(marks)} | updates |",
            "|---" * (len(marks) + 2) + "|",
        ]
        for name, seeds in sorted(found["runs"].items(), key=lambda run: list(RUNS).index(run[0])):
            best = [[max(v for key, v in p.items() if key.startswith("psnr")) for p in each] for each in seeds.values()]
            # Not all seeds were trained for as long.
            cells = [_cell([psnrs[mark] for psnrs in best if len(psnrs) > mark]) for mark in range(len(marks))]
            updates = median(max(point["updates"] for point in points) for points in seeds.values())
            told.append(f"| {RUNS[name]} | {' | '.join(cells)} | {updates:.0f} |")
    return told


def _machines(entry: Entry) -> str:
    """Where not all was measured on one machine: which seeds were on which."""
    seeds: dict[str, dict[str, None]] = {}
    for found in entry["results"].values():
        for of_seeds in found["machines"].values():
            for seed, cpu in of_seeds.items():
                seeds.setdefault(cpu, {})[seed] = None
    if len(seeds) < 2:
        return ""
    told = [f"seed{'s' * (len(of) > 1)} {', '.join(sorted(of, key=int))} on {cpu}" for cpu, of in seeds.items()]
    return f" Measured on {len(seeds)} machines: {'; '.join(told)}."


def _cell(psnrs: list[float]) -> str:
    if not psnrs:
        return ""
    spread = f" ({min(psnrs):.1f} to {max(psnrs):.1f})" if len(psnrs) > 1 else ""
    return f"{median(psnrs):.1f} dB{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkout", type=Path, help="folder of the authors' code, for theirs and mended")
    parser.add_argument("--seconds", type=duration, default=1200, help="processor time of each run, such as 20m")
    parser.add_argument("--sets", default="stripe,heavy")
    parser.add_argument("--runs", default=",".join(RUNS))
    parser.add_argument("--seeds", default="0", help="such as 0,1,2; those of before are kept")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    clean = photographs()
    tested = np.linspace(360, 399, TESTED).round().astype(int)
    cpu = machine()["cpu"]
    for seed in map(int, asked.seeds.split(",")):  # alternating: what changes on the machine meets all of them
        for kind in asked.sets.split(","):
            noisy = simulate(kind, clean, np.random.default_rng(seed))
            for name in asked.runs.split(","):
                print(f"{kind}, {name}, seed {seed}", flush=True)
                if name in ("theirs", "mended"):
                    if asked.checkout is None:
                        sys.exit("error: --checkout is needed for theirs and mended: the folder of the authors' code")
                    steps = published.training(
                        asked.checkout.resolve(), name == "mended", noisy[:360], seed, torch.device("cpu")
                    )
                else:
                    steps = ours(name, noisy[:360], asked.seconds, seed)
                found = curve(steps, asked.seconds, noisy[tested], clean[tested])
                results = record.results("training")  # another run may have written meanwhile
                of_set = results.setdefault(kind, {"psnr_noisy": metrics.psnr(noisy[tested], clean[tested], "unit")})
                of_set.setdefault("runs", {}).setdefault(name, {})[str(seed)] = found
                of_set.setdefault("machines", {}).setdefault(name, {})[str(seed)] = cpu
                command = f"python -m benchmarks.training --checkout FOLDER --seconds {asked.seconds:.0f}"
                write("training", command, results)


if __name__ == "__main__":
    main()
