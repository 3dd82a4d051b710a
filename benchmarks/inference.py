"""Denoising with ours and with the authors' code: ``python -m benchmarks.inference CHECKOUT [--pairs 5]``.

CHECKOUT is a copy of the authors' repository, github.com/krulllab/COSDD, branch main (MIT). Their modules are driven as
their prediction drives them: every sample from the image anew, one after the other, all kept. Both networks have
6 levels, each of which halves the image, and 32 filters everywhere, with random weights, since speed does not depend
on them. They are not one network: theirs doubles the size in front of the block on the way down and ours behind it,
so the floating point operations of a sample are counted and told. ``naive`` is the time that our own network takes if
it is driven as theirs is.

speed    an image of 512 x 512, the two codes by turns, medians; and how long ours looks at an image beforehand.
         MMSE-100 is extrapolated: a hundred times one sample of theirs, 12.5 times eight of ours (which counts what
         comes first in ours, the look and the first way up, more often than it is done)
memory   the mean of 100 samples of that image, and the direct denoiser; each in a process of its own. Eight samples are
         drawn; theirs keeps a hundred until they are averaged, here copies of them, ours keeps none
large    one sample of theirs and two of ours of a large image, extrapolated as above (of ours too much: eight share
         a way up), and the direct denoisers; theirs of the whole image if that fits into `--limit`, else of one of the
         patches into which its setting patch-size cuts an image (they do not overlap, so they leave seams)

On a GPU, times are those of the clock, and memory is what torch holds there. On a CPU they are processor time of one
thread, so other work on the machine does not count, and the largest resident memory.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import time
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.paper import figures
from benchmarks.record import Entry, circumstances, earlier, read, write
from cosdd import config, device, errors
from cosdd.checkpoint import Checkpoint
from cosdd.data import Statistics
from cosdd.denoise import Denoiser
from cosdd.model import COSDD

NETWORK = {
    "start": "empty", "latents_from": 0.0,
    "levels": 6, "downsampling": "every", "features": 32, "max_features": 32, "latents": 16, "final_latents": 32,
    "block": "supplement", "activation": "mish", "padding": "zeros", "decoder_input": "features", "noise_layers": 8,
    "signal_layers": 3, "signal_features": 32, "direct": True, "direct_features": 32,
    "refine": False,
}  # fmt: skip
EDGE, PATCH = 512, 2048  # pixels; of the small image, and of a patch of the large one
SAMPLES, FEW, MANY = 8, 2, 100  # of ours: they share one way up; of the large image; of a mean
PARTS = ("speed", "memory", "large")
BOTH = ("theirs", "ours")
WAYS = {"mean of 100 samples": BOTH, "direct denoiser": ("their direct", "our direct")}
PICTURE = figures.IMAGES.parent / "inference.svg"
Jobs = dict[str, Callable[[int], object]]  # what is measured, by name; given the number of samples


def ours(precision: str) -> Denoiser:
    torch.manual_seed(0)
    given = {"method": "cosdd", "model": NETWORK, "train": {"precision": precision}}
    settings = config.build("tiny", given)
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


def jobs(checkout: Path, edge: int, precision: str, only: str = "") -> Jobs:
    """Denoise an image, in each of the ways; networks are there only once, or for `only` the one that is named."""
    where = device.best()
    noisy = np.random.default_rng(0).normal(size=(edge, edge)).astype(np.float32)
    image = torch.from_numpy(noisy)[None, None].to(where)
    found: Jobs = {}
    if not only.startswith("our"):
        ladder, signal, direct = (network.to(where) for network in theirs(checkout))

        def drawn(count: int, kept: int = 0) -> object:
            with device.arithmetic(precision, where):
                samples = [signal(ladder(image)["s_code"]) for _ in range(count)]
                samples += [samples[0].clone() for _ in range(kept - count)]
                return torch.stack(samples).mean(0).float().cpu()

        def directly(_: int) -> object:
            with device.arithmetic(precision, where):
                return direct(image).float().cpu()

        found |= {"theirs": drawn, "theirs kept": lambda count: drawn(count, MANY), "their direct": directly}
    if not only.startswith("their"):
        model = ours(precision)
        network = model.checkpoint.network.to(where)
        padded, window = network.padded(image)

        def naive(count: int) -> object:
            with device.arithmetic(precision, where):
                for _ in range(count):
                    network.signal(network.ladder.top_down(network.ladder.bottom_up(padded))[0])[window]

        found |= {
            "naive": naive,
            "ours": lambda count: model.denoise(noisy, samples=count),
            "our direct": lambda _: model.denoise(noisy, direct=True),
            "our look": lambda _: model.likeness(noisy[None, None]),
        }
    return found


def seconds(job: Callable[[], object]) -> float:
    """Of the processor; of the clock where a GPU works."""
    gpu = torch.cuda.is_available()
    clock = time.perf_counter if gpu else time.process_time
    if gpu:
        torch.cuda.synchronize()
    began = clock()
    job()
    if gpu:
        torch.cuda.synchronize()
    return clock() - began


def operations(job: Callable[[], object]) -> float:
    from torch.utils.flop_counter import FlopCounterMode  # which takes memory itself

    with FlopCounterMode(display=False) as counter:
        job()
    return round(counter.get_total_flops() / 1e9, 1)


@torch.inference_mode()
def do(checkout: Path, who: str, edge: int, samples: int, precision: str, limit: float) -> dict[str, Any]:
    """One job, in a process of its own: seconds, and the most memory in GB; or that `limit` GB do not suffice."""
    try:
        job = jobs(checkout, edge, precision, who)[who]
        if limit and not torch.cuda.is_available():
            most = resource.getrlimit(resource.RLIMIT_DATA)[1]
            resource.setrlimit(resource.RLIMIT_DATA, (int(limit * 1e9), most))
        before = _most_memory()
        taken = seconds(lambda: job(samples))
    except (RuntimeError, MemoryError) as error:
        if not errors.of_memory(error):
            raise
        return {"edge": edge, "samples": samples, "out_of_memory": True}
    found = {"edge": edge, "samples": samples, "seconds": round(taken, 3)}
    return found | {"memory_gb": round(_most_memory(), 2), "before_gb": round(before, 2)}


def _most_memory() -> float:
    """In GB, of this process so far."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # kilobytes


def apart(asked: argparse.Namespace, who: str, edge: int, samples: int, limit: float = 0) -> dict[str, Any]:
    job = [who, str(edge), str(samples), str(limit)]
    command = [sys.executable, "-m", "benchmarks.inference", str(asked.checkout), "--precision", asked.precision]
    process = subprocess.run([*command, "--job", *job], check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(process.stdout.splitlines()[-1])
    print(who, found, flush=True)
    return found


@torch.inference_mode()
def speed(asked: argparse.Namespace) -> dict[str, Any]:
    every = jobs(asked.checkout, EDGE, asked.precision)
    counts = {"theirs": 1, "naive": 1, "ours": SAMPLES, "their direct": 1, "our direct": 1, "our look": 1}
    taken: dict[str, list[float]] = {name: [] for name in counts}
    for name, count in counts.items():  # warm-up
        every[name](count)
    for _ in range(asked.pairs):
        for name, count in counts.items():
            taken[name].append(seconds(lambda name=name, count=count: every[name](count)))
        print({name: round(times[-1], 2) for name, times in taken.items()}, flush=True)
    hundred = {name: [MANY / counts[name] * one for one in taken[name]] for name in ("theirs", "naive", "ours")}
    direct = {"theirs": taken["their direct"], "ours": taken["our direct"]}

    def quicker(other: list[float], one: list[float]) -> dict[str, float]:
        return _summary([a / b for a, b in zip(other, one, strict=True)])

    return {
        "edge": EDGE,
        "pairs": asked.pairs,
        "mmse_100_seconds": {name: _summary(times) for name, times in hundred.items()},
        "times_quicker_than": {name: quicker(hundred[name], hundred["ours"]) for name in ("theirs", "naive")},
        "direct_seconds": {name: _summary(times) for name, times in direct.items()},
        "look_seconds": _summary(taken["our look"]),
        "direct_times_quicker": quicker(direct["theirs"], direct["ours"]),
        "direct_times_quicker_than_mmse_100": quicker(hundred["theirs"], direct["ours"]),
        "gflop_of_one_sample": {name: operations(lambda name=name: every[name](1)) for name in ("theirs", "naive")},
        "gflop_of_the_direct_denoiser": {
            "theirs": operations(lambda: every["their direct"](1)),
            "ours": operations(lambda: every["our direct"](1)),
        },
    }


def memory(asked: argparse.Namespace) -> dict[str, Any]:
    """Of a mean of 100 samples and of the direct denoisers."""
    ways = {"theirs": "theirs kept", "ours": "ours", "their direct": "their direct", "our direct": "our direct"}
    return {who: apart(asked, way, EDGE, 1 if "direct" in who else SAMPLES) for who, way in ways.items()}


def large(asked: argparse.Namespace) -> dict[str, Any]:
    """A large image, and no more memory than the limit."""
    where = device.best()
    free = round(device.free_memory(where) / 1e9, 1)
    if where.type == "cpu" and free < asked.limit:
        sys.exit(f"error: {free} GB of memory are free: give --limit what may be taken of them")
    limit = asked.limit if where.type == "cpu" else free
    found: dict[str, Any] = {"limit_gb": limit}
    if "theirs" in asked.codes:
        run, patches = apart(asked, "theirs", asked.edge, 1, limit), 1
        if run.get("out_of_memory"):
            found["whole"], patches = run, math.ceil(asked.edge / PATCH) ** 2
            run = apart(asked, "theirs", PATCH, 1, limit)
            if "seconds" not in run:
                sys.exit(f"error: not even a patch of {PATCH} pixels fits into {limit:g} GB: raise --limit")
        found["theirs"] = run | {"patches": patches}
        found["their direct"] = apart(asked, "their direct", run["edge"], 1, limit) | {"patches": patches}
    if "ours" in asked.codes:
        found["ours"] = apart(asked, "ours", asked.edge, FEW, limit)
        found["our direct"] = apart(asked, "our direct", asked.edge, 1, limit)
    for who in {*WAYS["mean of 100 samples"], *WAYS["direct denoiser"]} & {*found}:
        run = found[who]
        times = run.get("patches", 1) * (1 if "direct" in who else MANY / run["samples"])
        run["seconds_of_the_image"] = float(f"{run['seconds'] * times:.4g}")
    return found


def _summary(values: list[float]) -> dict[str, float]:
    return {name: float(f"{of(values):.4g}") for name, of in (("median", median), ("lowest", min), ("highest", max))}


def near(speed: dict[str, Any]) -> dict[str, Any] | None:
    """Seconds to a mean within 0.05 dB of the limit: of the samples that `benchmarks.estimators` counted."""
    entry = read("estimators")
    if entry is None:
        return None
    counted = entry["results"]["samples"]
    samples = {"theirs": float(counted["plain_needed"]), "ours": round(MANY / counted["fewer_samples"], 1)}
    taken = {who: speed["mmse_100_seconds"][who]["median"] * count / MANY for who, count in samples.items()}
    return {"samples": samples, "behind": counted["auto"]["behind"], "seconds": taken}


@dataclass(frozen=True)
class Row:
    """A line of the table and a panel of the picture; a value is a number and how it is written."""

    title: str
    theirs: tuple[float, str]
    ours: tuple[float, str]
    ratio: str = ""

    def line(self) -> str:
        ratio = self.ratio or f"{self.theirs[0] / self.ours[0]:.1f}"
        return f"| {self.title} | {self.theirs[1]} | {self.ours[1]} | {ratio} |"


def _time(seconds: float) -> str:
    """Three digits."""
    if seconds < 600:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 6000 else f"{seconds / 3600:.3g} h"


def rows(results: dict[str, Any]) -> list[Row]:
    """All that was measured; memory that did not suffice is told as the limit."""
    told: list[Row] = []

    def timed(title: str, taken: list[float], remarks: tuple[str, ...] = ("", ""), ratio: str = "") -> None:
        one, other = ((value, _time(value) + remark) for value, remark in zip(taken, remarks, strict=True))
        told.append(Row(title, one, other, ratio))

    if found := results.get("speed"):
        of, spread = f"{found['edge']} x {found['edge']}", found["times_quicker_than"]["theirs"]
        ratio = f"**{spread['median']:.1f}** ({spread['lowest']:.1f} to {spread['highest']:.1f})"
        timed(f"{of}: mean of 100 samples", [found["mmse_100_seconds"][who]["median"] for who in BOTH], ratio=ratio)
        if reached := near(found):
            counts = tuple(f", {reached['samples'][who]:g} samples" for who in BOTH)
            timed(f"{of}: to 0.05 dB of the limit", [reached["seconds"][who] for who in BOTH], counts)
        timed(f"{of}: direct denoiser", [found["direct_seconds"][who]["median"] for who in BOTH])
    for part in ("memory", "large"):
        runs = results.get(part, {})
        for way, pair in WAYS.items():
            if not {*pair} <= {*runs}:
                continue
            theirs, ours = (runs[who] for who in pair)
            of, patches = f"{ours['edge']} x {ours['edge']}", theirs.get("patches", 1)
            one, other = ((run["memory_gb"], f"{run['memory_gb']:.2f} GB") for run in (theirs, ours))
            if part == "large":
                taken = [run["seconds_of_the_image"] for run in (theirs, ours)]
                timed(f"{of}: {way}", taken, (f", {patches} patches" if patches > 1 else "", ""))
            ratio, limit = "", runs.get("limit_gb", 0)
            if patches > 1:
                one = one[0], f"{one[1]} for a patch"
                if pair == BOTH:
                    one, ratio = (limit, f"over {limit:g} GB, {one[1]}"), f"over {limit / other[0]:.1f}"
            few = part == "large" and pair == BOTH  # not a hundred of theirs were kept
            told.append(Row(f"{of}: memory, {'while sampling' if few else way}", one, other, ratio))
    return told


def lines(entry: Entry) -> list[str]:
    """What it found, for docs/benchmarks.md."""
    results = entry["results"]
    found, once, big = (results.get(part, {}) for part in PARTS)
    hundred, work, small = found["mmse_100_seconds"], found["gflop_of_one_sample"], f"{found['edge']} x {found['edge']}"
    clock = "by the clock" if entry["machine"]["gpu"] else "of the processor, one thread"
    told = [
        "",
        "### Denoising beside the authors' code",
        "",
        *([f"![Seconds and memory of both codes](images/{PICTURE.name})", ""] if PICTURE.exists() else []),
        f"Networks of 6 levels and 32 filters, times {clock} (`{entry['command']}`; {circumstances(entry)}). Of "
        f"{small} pixels they are medians of {found['pairs']} runs, the two codes by turns; ratios with a range are "
        "medians of those of the pairs.",
        "",
        "| | authors' code | ours | the one over the other |",
        "|---|---|---|---|",
        *(row.line() for row in rows(results)),
        "",
        "Times of 100 samples are extrapolated: of theirs from one sample, as each starts from the image anew; of ours "
        f"from {SAMPLES}, which share a way up.",
    ]
    if once:
        told[-1] += (
            f" Memory: {once['theirs']['samples']} samples were drawn; of theirs, which keeps them all until they are "
            f"averaged, copies are kept for the rest. {once['ours']['before_gb']:.2f} GB are there before the image is."
        )
    if {*BOTH} <= {*big}:
        kept = 2 * MANY * 4 * big["ours"]["edge"] ** 2 / 1e9
        told[-1] += (
            f" Of the large image {big['ours']['samples']} of ours were drawn, which makes its time too long. What was "
            "measured does not hold the hundred samples of it that theirs would keep: while they are averaged, these "
            f"take another {kept:.1f} GB, twice in float32."
        )
    if {"whole", "theirs"} <= {*big}:
        patch = f"{big['theirs']['edge']} x {big['theirs']['edge']}"
        told[-1] += (
            f" Their model cannot take that image whole in {big['limit_gb']:g} GB. Its setting `patch-size` cuts images"
            f" into patches, which leaves seams: one of {patch} pixels was measured. Ours works in tiles by itself, and"
            " the result is that of the whole image."
        )
    if reached := near(found):
        told[-1] += (
            " How many samples are within 0.05 dB of the limit was counted with another, small model of ours "
            f"([samples.md](samples.md)): {reached['samples']['theirs']:g} independent ones, as theirs are, and "
            f"{reached['samples']['ours']:g} on average where ours stops by itself, {reached['behind']:.3f} dB behind. "
            "The time is so many times that of a sample."
        )
    direct = found["direct_times_quicker_than_mmse_100"]["median"]
    told += [
        "",
        f"Our direct denoiser is {direct:.0f} times quicker than their mean of 100 samples. The networks are not the "
        f"same: a sample is {work['theirs']:.1f} GFLOP with theirs and {work['naive']:.1f} with ours. Ours driven as "
        f"theirs is, every sample from the image anew, takes {_time(hundred['naive']['median'])} for 100 samples of "
        f"{small} pixels, {found['times_quicker_than']['naive']['median']:.1f} times as long as it does.",
    ]
    return told


def draw(results: dict[str, Any]) -> None:
    """The picture of the page."""
    panels = [(row.title, {"the authors' code": row.theirs, "ours": row.ours}) for row in rows(results)]
    figures.bars(PICTURE, panels, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--codes", nargs="+", default=BOTH, choices=BOTH, help="that see the large image")
    parser.add_argument("--edge", type=int, default=4096, help="of the large image")
    parser.add_argument("--limit", type=float, default=12.0, help="GB of memory that the large image may take on a CPU")
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"), help="of both networks")
    parser.add_argument("--job", nargs=4, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.job:
        who, edge, samples, limit = asked.job
        print(json.dumps(do(asked.checkout, who, int(edge), int(samples), asked.precision, float(limit))))
        return
    command = f"python -m benchmarks.inference CHECKOUT --pairs {asked.pairs}"
    command += "" if asked.precision == "float32" else f" --precision {asked.precision}"
    for part, measured in {"speed": speed, "memory": memory, "large": large}.items():
        if part in asked.parts:  # kept as soon as it is there
            found = measured(asked)
            results = earlier("inference")
            found = results.get(part, {}) | found if part == "large" else found
            path = write("inference", command, results | {part: found})
            print(path)
    draw(earlier("inference"))


if __name__ == "__main__":
    main()
