"""What does the last step gain, and how often should it be done? ``python -m benchmarks.refining [--train 60]``.

Models of preset tiny learn sets of the table for so many seconds of processor time; the estimates of their test images
are refined by the filter of `cosdd.model.wiener` once, twice and three times. It needs COSDD_DATA for the photographs.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.record import Entry, circumstances, write
from benchmarks.table.sets import SETS, Set
from cosdd import preparation, training
from cosdd.denoise import Denoiser
from cosdd.model import COSDD, BlindRow, wiener

NAMES = ("bsd400-stripe", "bsd400-row-ar", "specimen-heavy", "nuclei256-stripe")
TESTED, MOST = 8, 3  # images of a set; passes
WAYS = {"samples": "cosdd, mean of samples", "direct": "cosdd, direct denoiser", "auto": "`auto` (blind-row)"}


def trained(images: Set, method: str, seconds: float) -> Denoiser:
    """By processor time, so that other work on the machine does not matter."""
    ready = preparation.prepare([images.train], "TYX", "x", "tiny", {"method": method, "train": {"time": seconds}})
    run = training.start(ready.settings, ready.frames)
    began = time.process_time()
    for _ in training.fit(run):
        run.seconds = time.process_time() - began
    return Denoiser(training.finish(run))


def estimates(model: Denoiser, noisy: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    """Mean and standard deviation of images (n, y, x), by the name of the way, before the last step."""
    network = model.checkpoint.network
    if isinstance(network, BlindRow):
        found = model.denoise(noisy, axes="TYX", plain=True)
        return {"auto": (found.mean, found.std)}
    measured, network.measured = network.measured, None
    found, direct = model.denoise(noisy, axes="TYX"), model.denoise(noisy, axes="TYX", direct=True)
    network.measured = measured
    return {"samples": (found.mean, found.std), "direct": (direct.mean, None)}


@torch.no_grad()
def passes(model: Denoiser, noisy: np.ndarray, mean: np.ndarray, std: np.ndarray | None) -> list[np.ndarray]:
    """The estimate (n, y, x), and what one, two, ... passes make of it."""
    network, statistics = model.checkpoint.network, model.checkpoint.statistics
    if isinstance(network, COSDD):
        assert network.measured is not None
        once = partial(wiener.refined, noise=network.measured)
    else:
        once = network.refined
    x, better = (torch.from_numpy(statistics.normalise(image[:, None])) for image in (noisy, mean))
    spread = None if std is None else torch.from_numpy(std[:, None] / np.float32(statistics.std[0]))
    found = [mean]
    for _ in range(MOST):
        *_, (_, better) = once(x, better, spread)
        found.append(statistics.restore(better.numpy())[:, 0])
    return found


def lines(entry: Entry) -> list[str]:
    """What it found, for docs/training.md."""
    told = [
        f"`{entry['command']}`; {circumstances(entry)}. PSNR (range 1) in dB of {TESTED} images of each set, before "
        "the last step and after so many passes of its filter:",
        "",
        f"| | | none | {' | '.join(map(str, range(1, MOST + 1)))} |",
        "|---" * (MOST + 3) + "|",
    ]
    for name, found in entry["results"].items():
        told += [f"| {name} | {says} | {' | '.join(f'{v:.2f}' for v in found[way])} |" for way, says in WAYS.items()]
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=float, default=60)
    asked, results = parser.parse_args(), dict[str, Any]()
    for name in NAMES:
        images, results[name] = SETS[name](0, TESTED), {}
        for method in ("cosdd", "blind-row"):
            model = trained(images, method, asked.train)
            for way, (mean, std) in estimates(model, images.test).items():
                refined = passes(model, images.test, mean, std)
                results[name][way] = [round(images.judge(each)["psnr"], 3) for each in refined]
        print(name, results[name], flush=True)
        write("refining", f"python -m benchmarks.refining --train {asked.train:g}", results)


if __name__ == "__main__":
    main()
