"""How much quicker is cached sampling of noise? ``python -m benchmarks.sampling [--samples 16 --size 256 --every 16]``.

The noise decoder of the paper's presets (8 layers of 64 filters) draws noise for one code:

naive   for each column, the decoder sees all columns up to it again (never those behind it), and the code again;
        one sample after the other, which is the quicker way for it
cached  `NoiseDecoder.sample`: each layer remembers the few columns it needs, the code is looked at once, all samples
        together

Both alternate, medians are given. The naive one is timed on every sixteenth column, in the middle of its sixteen, and
that time is multiplied by sixteen (`--every 1` times all). Both have to draw the same pixels in those columns.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from torch import Tensor

from benchmarks.record import Entry, circumstances, write
from cosdd import config
from cosdd.model import COSDD
from cosdd.model.noise import NoiseDecoder, draw


def one_column(net: NoiseDecoder, column: int, x: Tensor, code: Tensor, uniform: Tensor, normal: Tensor) -> Tensor:
    """The pixels of one column of every sample, from all that lies before them."""
    seen, pixels = slice(0, column + 1), []
    for sample in zip(x.split(1), uniform.split(1), normal.split(1), strict=True):
        theta = [part[..., column] for part in net(sample[0][..., seen], code[..., seen])]
        pixels.append(draw(*theta, *(part[..., column] for part in sample[1:])))
    return torch.cat(pixels)


def timed(job: Callable[[], Tensor]) -> tuple[float, Tensor]:
    began = time.perf_counter()
    result = job()
    return time.perf_counter() - began, result


@torch.inference_mode()
def lines(entry: Entry) -> list[str]:
    """What it found, for docs/how-it-works.md."""
    run = entry["results"]
    return [
        "",
        f"Speed, `{entry['command']}`: {run['samples']} samples of the noise of a {run['size'][0]} x "
        f"{run['size'][1]} image, {run['decoder']}: {run['naive_seconds']:,.0f} s with the whole prefix for each "
        f"column ({run['naive_is']}), **{run['cached_seconds']:.1f} s** with remembered columns, "
        f"{run['times_quicker']:.0f} times quicker; {circumstances(entry)}.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--every", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    torch.manual_seed(0)
    model = COSDD(config.build("large").model).eval()
    net, shape = model.noise, (asked.samples, 1, 1, asked.size, asked.size)
    code = torch.randn(1, model.ladder.code_channels, asked.size, asked.size)
    uniform, normal = torch.rand(shape), torch.randn(shape)
    columns = range((asked.every - 1) // 2, asked.size, asked.every)

    seconds: dict[str, list[float]] = {"naive": [], "cached": []}
    worst = 0.0
    net.sample(code[..., :8], uniform[..., :8], normal[..., :8])  # warm-up
    for _ in range(asked.rounds):
        taken, drawn = timed(partial(net.sample, code, uniform, normal))
        seconds["cached"].append(taken)
        flat = [part[:, 0] for part in (drawn, uniform, normal)]
        taken = 0.0
        for column in columns:
            one, pixels = timed(partial(one_column, net, column, flat[0], code, *flat[1:]))
            taken += one
            worst = max(worst, float((pixels - flat[0][..., column]).abs().max()))
        seconds["naive"].append(taken * asked.size / len(columns))
        print({name: f"{values[-1]:.2f} s" for name, values in seconds.items()}, flush=True)
    assert worst < 1e-3, f"the two draw different pixels: {worst}"
    results = {
        "decoder": f"preset large: {net.depth} layers, {net.head.in_channels} filters, {net.components} Gaussians",
        "samples": asked.samples,
        "size": [asked.size, asked.size],
        "naive_seconds": round(median(seconds["naive"]), 1),
        "cached_seconds": round(median(seconds["cached"]), 2),
        "times_quicker": round(median(seconds["naive"]) / median(seconds["cached"]), 1),
        "range": {name: [round(min(values), 2), round(max(values), 2)] for name, values in seconds.items()},
        "naive_is": "timed in full"
        if asked.every == 1
        else f"timed on {len(columns)} of {asked.size} columns, evenly spaced, and extrapolated to all",
        "largest_difference_float32": float(f"{worst:.2g}"),
    }
    command = f"python -m benchmarks.sampling --samples {asked.samples} --size {asked.size} --every {asked.every}"
    print(results, write("sampling", command, results))


if __name__ == "__main__":
    main()
