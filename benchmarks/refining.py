"""What does the last step gain, and how is it done best? ``python -m benchmarks.refining [--train 60]``.

Models of preset tiny learn sets of the table for so many seconds of processor time. The estimates of their test
images are refined by the filter of `cosdd.model.wiener` once, twice, three times and so on; beside that, how often the
model itself would, as held-out images told it (`cosdd.calibration`). What `auto` makes of training images, which the
table does not score, is refined with several shares of its error taken to be each row's own. It needs COSDD_DATA for
the photographs.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch

from benchmarks.record import Entry, circumstances, write
from benchmarks.table.sets import SETS, Set
from cosdd import metrics, preparation, training
from cosdd.calibration import MOST_PASSES
from cosdd.denoise import Denoiser
from cosdd.model import COSDD, BlindRow, wiener
from cosdd.model.blindrow import BY_ROW

NAMES = ("bsd400-stripe", "bsd400-row-ar", "bsd400-row-ar-negative", "specimen-heavy", "nuclei256-stripe")
MORE = ("bsd400-checkerboard", "nuclei256-checkerboard", "bsd400-white", "nuclei256-white")  # for the shares alone
TESTED = 8  # images of a set
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
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
def once(
    model: Denoiser, noisy: np.ndarray, mean: np.ndarray, std: np.ndarray | None, by_row: float | None = None
) -> np.ndarray:
    """The estimate (n, y, x) after one pass; by_row: instead of the share that the model takes."""
    network, statistics = model.checkpoint.network, model.checkpoint.statistics
    x, estimate = (torch.from_numpy(statistics.normalise(image[:, None])) for image in (noisy, mean))
    spread = None if std is None else torch.from_numpy(std[:, None] / np.float32(statistics.std[0]))
    if isinstance(network, COSDD):
        assert network.measured is not None
        refining = wiener.refined(x, estimate, spread, network.measured)
    elif by_row is None:
        assert spread is not None
        refining = network.refined(x, estimate, spread)
    else:
        refining = wiener.refined(x, estimate, spread, network.noise, by_row=by_row)
    *_, (_, better) = refining
    return statistics.restore(better.numpy())[:, 0]


def passes(model: Denoiser, noisy: np.ndarray, mean: np.ndarray, std: np.ndarray | None) -> list[np.ndarray]:
    """The estimate (n, y, x), and what one, two, ... passes make of it."""
    found = [mean]
    for _ in range(MOST_PASSES):
        found.append(once(model, noisy, found[-1], std))
    return found


def by_share(model: Denoiser, images: Set) -> dict[str, float]:
    """PSNR of training images, before the last step and by the share of the error that is each row's own."""
    assert images.clean is not None
    few = slice(None, None, -(-len(images.train) // TESTED))
    noisy, clean = images.train[few], images.clean[few]
    ((mean, std),) = estimates(model, noisy).values()
    found = {"none": mean} | {str(share): once(model, noisy, mean, std, share) for share in SHARES}
    return {name: round(metrics.psnr(estimate, clean, "unit"), 3) for name, estimate in found.items()}


def lines(entry: Entry) -> list[str]:
    """What passes gain, for docs/training.md."""
    told = [
        f"`{entry['command']}`; {circumstances(entry)}. PSNR (range 1) in dB of {TESTED} images of each set, before "
        "the last step and after so many passes of its filter; bold: as many as the model takes, by what held-out "
        "images told it:",
        "",
        f"| | | none | {' | '.join(map(str, range(1, MOST_PASSES + 1)))} |",
        "|---" * (MOST_PASSES + 3) + "|",
    ]
    taken = entry["results"]["taken"]
    for name, found in entry["results"]["passes"].items():
        for way, says in WAYS.items():
            cells = [f"**{v:.2f}**" if n == taken[name][way] else f"{v:.2f}" for n, v in enumerate(found[way])]
            told.append(f"| {name} | {says} | {' | '.join(cells)} |")
    return told


def share_lines(entry: Entry) -> list[str]:
    """How the error of an estimate is taken to spread, for docs/blind-row.md."""
    heads = [f"**{share:g}**" if share == BY_ROW else f"{share:g}" for share in SHARES]
    told = [
        "",
        f"`{entry['command']}`; {circumstances(entry)}. PSNR (range 1) in dB of {TESTED} of the images that were "
        "learned from, which the comparison does not score: without the last step, and by the share of the error that "
        "is taken to be each row's own.",
        "",
        f"| | none | {' | '.join(heads)} |",
        "|---" * (len(SHARES) + 2) + "|",
    ]
    for name, found in entry["results"]["shares"].items():
        told.append(f"| {name} | {' | '.join(f'{value:.2f}' for value in found.values())} |")
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=float, default=60)
    asked = parser.parse_args()
    results: dict[str, Any] = {"passes": {}, "taken": {}, "shares": {}}
    for name in (*NAMES, *MORE):
        images = SETS[name](0, TESTED)
        for method in ("cosdd", "blind-row") if name in NAMES else ("blind-row",):
            model = trained(images, method, asked.train)
            for way, (mean, std) in estimates(model, images.test).items() if name in NAMES else ():
                refined = passes(model, images.test, mean, std)
                found = results["passes"].setdefault(name, {})
                found[way] = [round(images.judge(each)["psnr"], 3) for each in refined]
                taken = model.checkpoint.passes._asdict() | {"auto": 1}
                results["taken"].setdefault(name, {})[way] = taken[way]
        results["shares"][name] = by_share(model, images)
        print(name, results["passes"].get(name, ""), results["shares"][name], flush=True)
        write("refining", f"python -m benchmarks.refining --train {asked.train:g}", results)


if __name__ == "__main__":
    main()
