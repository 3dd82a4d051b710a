"""How soon is an estimate good? Ours against the authors' published code, from the same images, on one core.

python -m benchmarks.training --checkout FOLDER [--seconds 20m --sets stripe,heavy --runs ours,auto --seeds 0]

FOLDER is a checkout of https://github.com/krulllab/COSDD (MIT licence), branch main: no line of it is part of this
project. Its modules are driven from a plain loop in the order of its training step: ladder and autoregressive decoder,
signal decoder, direct denoiser, each with its own Adamax; four batches of 4 crops of 64 x 64 to an update, as its
example configuration has it, with 6 levels and 32 filters; float32, without recomputation. What they leave out here:
logging and pictures.

ours     --method cosdd, preset tiny, which starts as a wavelet denoiser (docs/training.md)
empty    the same with latents that start empty, as in the paper: the settings of EMPTY
auto     the blind-row denoiser, which is what users get
theirs   as published
mended   theirs, but the images are shuffled as a permutation: as published, shuffling a tensor repeats some images
         and loses about half of them

Photographs (bsd400, 128 px centre crops; 360 to train on, 8 of the other 40 to test) under the noise of
benchmarks.blindrow. Seconds are processor time of training on one thread, so other work on the machine does not
count, and neither does scoring. A run that is there already, from this machine, is measured anew only if named.
"""

from __future__ import annotations

import argparse
import importlib
import random
import sys
import time
import types
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import numpy as np
import torch

from benchmarks.__main__ import duration
from benchmarks.blindrow import photographs, simulate
from benchmarks.record import Entry, circumstances, earlier, write
from cosdd import metrics, preparation, training
from cosdd.model import COSDD

# An estimate of noisy images (n, y, x), by the name of the way it is made.
Estimate = Callable[[np.ndarray], dict[str, np.ndarray]]
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
        "noise_features": 32, "signal_features": 32, "direct_features": 32,
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
    def estimate(noisy: np.ndarray) -> dict[str, np.ndarray]:
        network, kept = run.network, {name: value.clone() for name, value in run.network.state_dict().items()}
        network.load_state_dict(run.average)
        network.eval()
        x = torch.from_numpy(statistics.normalise(noisy[:, None]))
        if isinstance(network, COSDD):
            features, window = network.encode(x)
            samples = [network.sample(features, window) for _ in range(SAMPLES)]
            found = {"mean": torch.stack(samples).mean(0)}
            if network.direct is not None and training.progress(run) > network.settings.direct_from:
                found["direct"] = network.denoise_directly(x)
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


def modules(checkout: Path) -> tuple[Any, Any]:
    """The authors' ``utils`` and ``get_models``; what these import for logging, pictures and statistics is hollow."""
    if not (checkout / "models" / "get_models.py").exists():
        sys.exit(f"error: {checkout}: no models/get_models.py, expected a checkout of github.com/krulllab/COSDD, main")

    class Hollow(types.ModuleType):
        def __getattr__(self, name: str) -> type:
            return object

    names = ("matplotlib", "matplotlib.pyplot", "pytorch_lightning", "sklearn", "sklearn.linear_model", "tqdm")
    with mock.patch.dict(sys.modules, {name: Hollow(name) for name in names}):
        sys.path.insert(0, str(checkout))
        try:
            return importlib.import_module("utils"), importlib.import_module("models.get_models").get_models
        finally:
            sys.path.remove(str(checkout))


def theirs(checkout: Path, mended: bool, images: np.ndarray, seed: int) -> Iterator[tuple[int, Estimate]]:
    """Their modules in the order of their training step; never ends."""
    utils, get_models = modules(checkout)
    random.seed(seed)
    torch.manual_seed(seed)
    settings = {
        "data": {"number-dimensions": 2},
        "hyper-parameters": {
            "number-layers": 6, "s-code-channels": 32, "number-gaussians": 5, "noise-direction": "x",
            "scale-initialisation": False,
        },
        "train-parameters": {"crop-size": [64, 64], "use-direct-denoiser": True, "direct-denoiser-loss": "MSE"},
    }  # fmt: skip
    pixels = torch.from_numpy(images)[:, None]
    mean, std = pixels.mean(), pixels.std()
    if mended:
        pixels = pixels[torch.randperm(len(pixels))]
    loader = utils.DataModule(pixels, batch_size=4, rand_crop_size=(64, 64), train_split=0.9)
    with mock.patch("random.shuffle") if mended else nullcontext():
        loader.setup("fit")
    ladder, decoder, signal, direct = get_models(settings, 1)
    networks = (ladder, decoder, signal, direct)
    optimisers = [
        torch.optim.Adamax(parameters)
        for parameters in ([*ladder.parameters(), *decoder.parameters()], signal.parameters(), direct.parameters())
    ]
    schedules = [
        torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, factor=0.1, patience=25) for optimiser in optimisers
    ]

    def losses(crops: torch.Tensor) -> Iterator[torch.Tensor]:
        x = (crops - mean) / std
        encoded = ladder(x)
        code = encoded["s_code"]
        nll = -decoder.loglikelihood(x, decoder(x, code)).mean()
        yield nll + ladder.kl_divergence(encoded["q_list"], encoded["p_list"]) / x.numel()
        clean = signal(code.detach())
        yield signal.loss(x, clean).mean()
        yield direct.loss(clean.detach(), direct(x)).mean()

    @torch.no_grad()
    def estimate(noisy: np.ndarray) -> dict[str, np.ndarray]:
        state = torch.get_rng_state()
        for network in networks:
            network.eval()
        x = (torch.from_numpy(noisy)[:, None] - mean) / std
        samples = [signal(ladder(x)["s_code"]) for _ in range(SAMPLES)]
        found = {"mean": torch.stack(samples).mean(0), "direct": direct(x)}
        for network in networks:
            network.train()
        torch.set_rng_state(state)
        return {name: (value * std + mean).numpy()[:, 0] for name, value in found.items()}

    updates = 0
    while True:
        for index, crops in enumerate(loader.train_dataloader()):
            for optimiser, loss in zip(optimisers, losses(crops), strict=True):
                loss.backward()
                if (index + 1) % 4 == 0:
                    optimiser.step()
                    optimiser.zero_grad()
            updates += (index + 1) % 4 == 0
            yield updates, estimate
        for network in networks:
            network.eval()
        with torch.no_grad():
            held = torch.tensor([[float(loss) for loss in losses(crops)] for crops in loader.val_dataloader()])
        for network in networks:
            network.train()
        for schedule, value in zip(schedules, held.mean(0), strict=True):
            schedule.step(value)


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
            scores = {f"psnr_{name}": metrics.psnr(image, clean, "unit") for name, image in estimate(noisy).items()}
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
        "median, and from the least to the most.",
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
    results = earlier("training")
    for seed in map(int, asked.seeds.split(",")):  # alternating: what changes on the machine meets all of them
        for kind in asked.sets.split(","):
            noisy = simulate(kind, clean, np.random.default_rng(seed))
            for name in asked.runs.split(","):
                print(f"{kind}, {name}, seed {seed}", flush=True)
                if name in ("theirs", "mended"):
                    if asked.checkout is None:
                        sys.exit("error: --checkout is needed for theirs and mended: the folder of the authors' code")
                    steps = theirs(asked.checkout.resolve(), name == "mended", noisy[:360], seed)
                else:
                    steps = ours(name, noisy[:360], asked.seconds, seed)
                found = curve(steps, asked.seconds, noisy[tested], clean[tested])
                results = earlier("training") or results
                of_set = results.setdefault(kind, {"psnr_noisy": metrics.psnr(noisy[tested], clean[tested], "unit")})
                of_set.setdefault("runs", {}).setdefault(name, {})[str(seed)] = found
                command = f"python -m benchmarks.training --checkout FOLDER --seconds {asked.seconds:.0f}"
                write("training", command, results)


if __name__ == "__main__":
    main()
