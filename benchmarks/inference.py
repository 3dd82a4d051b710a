"""Denoising with ours and with the authors' code: ``python -m benchmarks.inference CHECKOUT [--pairs 5]``.

CHECKOUT is a copy of the authors' repository, github.com/krulllab/COSDD, branch main (MIT). Their modules are driven as
their prediction drives them: every sample from the image anew, one after the other, all kept. Both networks have
6 levels, each of which halves the image, and 32 filters everywhere, with random weights, since speed does not depend
on them. They are not one network: theirs doubles the size in front of the block on the way down and ours behind it,
so the floating point operations of a sample are counted and told. ``naive`` is the time that our own network takes if
it is driven as theirs is.

MMSE-100 is extrapolated: a hundred times one sample of theirs, 12.5 times eight of ours (which counts the first way up
of ours more often than it is gone). Times are those of the processor, one thread; the two codes alternate, medians
are given. Memory is the largest resident memory of a process of its own that denoises one image.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.record import Entry, circumstances, earlier, write
from cosdd import config
from cosdd.checkpoint import Checkpoint
from cosdd.data import Statistics
from cosdd.denoise import Denoiser
from cosdd.model import COSDD

NETWORK = {
    "start": "empty", "latents_from": 0.0,
    "levels": 6, "downsampling": "every", "features": 32, "max_features": 32, "latents": 16, "final_latents": 32,
    "block": "supplement", "activation": "mish", "padding": "zeros", "decoder_input": "features", "noise_layers": 8,
    "signal_layers": 3, "signal_features": 32, "direct": True, "direct_features": 32,
}  # fmt: skip
SAMPLES = 8  # of ours: they share one way up


def ours(model: dict) -> Denoiser:
    torch.manual_seed(0)
    settings = config.build("tiny", {"method": "cosdd", "model": model, "train": {"precision": "float32"}})
    network = COSDD(settings.model)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, 0, 0.05)
    return Denoiser(Checkpoint(settings, Statistics((0.0,), (1.0,), 0.0), network.eval(), (), 1, 1.0))


def theirs(checkout: Path) -> tuple[torch.nn.Module, ...]:
    sys.path.insert(0, str(checkout))
    for name in ("matplotlib", "matplotlib.pyplot"):  # for pictures of theirs that nobody asks for
        sys.modules.setdefault(name, types.ModuleType(name))
    from models.lvae import LadderVAE  # type: ignore[import-not-found]
    from models.s_decoder import SDecoder  # type: ignore[import-not-found]
    from models.unet import UNet  # type: ignore[import-not-found]

    common = {"colour_channels": 1, "n_filters": 32}
    halved = {"downsampling": [1] * 6}
    ladder = LadderVAE(img_size=[256, 256], s_code_channels=32, z_dims=[16] * 6, **common, **halved)
    networks = ladder, SDecoder(s_code_channels=32, **common), UNet(n_layers=6, **common, **halved)
    return tuple(network.eval() for network in networks)


def processor_time(job: Callable[[], object]) -> float:
    began = time.process_time()
    job()
    return time.process_time() - began


def operations(job: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        job()
    return counter.get_total_flops()


def memory(asked: argparse.Namespace, *job: str) -> float:
    """Largest resident memory in GB of a process that does one job."""
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.inference", str(asked.checkout), "--job", *job])
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0
    return round(used.ru_maxrss / 1e6, 2)


def do(checkout: Path, who: str, edge: str, samples: str) -> None:
    noisy = np.random.default_rng(0).normal(size=(int(edge), int(edge))).astype(np.float32)
    if who == "ours":
        ours(NETWORK).denoise(noisy, samples=int(samples))
    elif who == "tiny":
        taken = processor_time(lambda: ours({}).denoise(noisy, samples=int(samples)))
        print(json.dumps({"processor_seconds": round(taken, 1)}))
    else:
        ladder, signal, _ = theirs(checkout)
        image = torch.from_numpy(noisy)[None, None]
        with torch.inference_mode():
            torch.stack([signal(ladder(image)["s_code"]) for _ in range(int(samples))]).mean(0)


@torch.inference_mode()
def speed(checkout: Path, pairs: int, edge: int = 512) -> dict:
    noisy = np.random.default_rng(0).normal(size=(edge, edge)).astype(np.float32)
    image, model = torch.from_numpy(noisy)[None, None], ours(NETWORK)
    network = model.checkpoint.network
    ladder, signal, direct = theirs(checkout)
    padded, window = network.padded(image)
    jobs: dict[str, Callable[[], object]] = {
        "theirs": lambda: signal(ladder(image)["s_code"]),
        "naive": lambda: network.signal(network.ladder.top_down(network.ladder.bottom_up(padded))[0])[window],
        "ours": lambda: model.denoise(noisy, samples=SAMPLES),
        "their direct denoiser": lambda: direct(image),
        "our direct denoiser": lambda: model.denoise(noisy, direct=True),
    }
    taken: dict[str, list[float]] = {name: [] for name in jobs}
    jobs["theirs"](), jobs["naive"]()  # warm-up
    for _ in range(pairs):
        for name, job in jobs.items():
            taken[name].append(processor_time(job))
        print({name: round(times[-1], 2) for name, times in taken.items()}, flush=True)
    hundred = {
        "theirs": [100 * one for one in taken["theirs"]],
        "naive": [100 * one for one in taken["naive"]],
        "ours": [100 / SAMPLES * eight for eight in taken["ours"]],
    }
    ratios = {
        name: [other / one for other, one in zip(hundred[name], hundred["ours"], strict=True)]
        for name in ("theirs", "naive")
    }
    directly = [taken[f"{who} direct denoiser"] for who in ("their", "our")]
    return {
        "edge": edge,
        "pairs": pairs,
        "mmse_100_processor_seconds": {name: _summary(times) for name, times in hundred.items()},
        "times_quicker_than": {name: _summary(values) for name, values in ratios.items()},
        "direct_processor_seconds": {"theirs": _summary(directly[0]), "ours": _summary(directly[1])},
        "direct_times_quicker": _summary([a / b for a, b in zip(*directly, strict=True)]),
        "gflop_of_one_sample": {name: round(operations(jobs[name]) / 1e9, 1) for name in ("theirs", "naive")},
        "gflop_of_the_direct_denoiser": {
            "theirs": round(operations(jobs["their direct denoiser"]) / 1e9, 1),
            "ours": round(operations(jobs["our direct denoiser"]) / 1e9, 1),
        },
    }


def _summary(values: list[float]) -> dict[str, float]:
    return {"median": round(median(values), 2), "lowest": round(min(values), 2), "highest": round(max(values), 2)}


def lines(entry: Entry) -> list[str]:
    """What it found, for docs/benchmarks.md."""
    found = entry["results"]["speed"]
    hundred, quicker, direct = (
        found[name] for name in ("mmse_100_processor_seconds", "times_quicker_than", "direct_processor_seconds")
    )
    work = found["gflop_of_one_sample"]
    return [
        "",
        "### Denoising beside the authors' code",
        "",
        f"The mean of 100 samples of an image of {found['edge']} x {found['edge']} pixels, networks of 6 levels and 32 "
        f"filters, processor time of one thread, median of {found['pairs']} pairs in turn (`{entry['command']}`; "
        f"{circumstances(entry)}): theirs {hundred['theirs']['median']:.0f} s, ours {hundred['ours']['median']:.0f} s, "
        f"**{quicker['theirs']['median']:.1f} times quicker** ({quicker['theirs']['lowest']:.1f} to "
        f"{quicker['theirs']['highest']:.1f}). The networks are not the same: a sample is {work['theirs']:.1f} GFLOP "
        f"with theirs and {work['naive']:.1f} with ours. Ours driven as theirs is, every sample from the image anew, "
        f"takes {hundred['naive']['median']:.0f} s: {quicker['naive']['median']:.1f} times as long as it does. Direct "
        f"denoiser: {direct['theirs']['median']:.2f} and {direct['ours']['median']:.2f} s. By default ours draws as "
        "many samples as it takes, often eight ([samples.md](samples.md)).",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--parts", nargs="+", default=["speed", "memory", "large"])
    parser.add_argument("--edge", type=int, default=4096, help="of the large image")
    parser.add_argument("--job", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.job:
        do(asked.checkout, *asked.job)
        return
    found: dict = {}
    if "speed" in asked.parts:
        found["speed"] = speed(asked.checkout, asked.pairs)
    if "memory" in asked.parts:
        found["memory_gb"] = {who: memory(asked, who, "512", str(SAMPLES)) for who in ("theirs", "ours")}
    if "large" in asked.parts:
        found[f"large {asked.edge}"] = large(asked)
    print(
        write(
            "inference", f"python -m benchmarks.inference CHECKOUT --pairs {asked.pairs}", earlier("inference") | found
        )
    )


def large(asked: argparse.Namespace) -> dict:
    """One sample of a large image with the preset tiny: processor time and memory."""
    command = [sys.executable, "-m", "benchmarks.inference", str(asked.checkout), "--job", "tiny", str(asked.edge), "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = process.stdout.read().splitlines()
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0
    return json.loads(lines[-1]) | {"memory_gb": round(used.ru_maxrss / 1e6, 2), "samples": 1}


if __name__ == "__main__":
    main()
