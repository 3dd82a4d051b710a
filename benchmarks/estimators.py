"""How many samples does a mean need, and is the standard deviation right? ``python -m benchmarks.estimators``.

Everything is simulated, so that the truth is known. Samples see the image from one position of the wavelets' grid, as
it is the coupling of their noise that is measured; what several positions are worth, docs/training.md says.
A small cosdd model learns the specimen of the demo under its noise
(`--train` seconds of processor time; `--model` uses one that is there). Then, on crops of ten held-out images:

limit     the mean of very many coupled samples; its error against the clean image is what no number of samples mends
samples   how far means of N plain and N coupled samples stay behind the limit, and what `--samples auto` takes
linear    variance of the mean of 16 samples, coupled in blocks of 4, 8 and 16, against 16 independent ones
blend     the direct denoiser, means of a few samples, and both together by the formula of performance section 5
coverage  how often the 90 % interval of the standard deviation holds the clean pixel: cosdd, and blind-row models of
          photographs (`benchmarks.blindrow`) trained for `--steps` steps; 0 leaves them out
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import cosdd
from benchmarks import blindrow
from benchmarks.record import Entry, circumstances, write
from cosdd import estimates, preparation, simulate, training
from cosdd.denoise import Denoiser
from cosdd.specimen import specimen

NEAR = 0.05  # dB behind the limit
INTERVAL = 1.645  # standard deviations either way: 90 % of a normal distribution
HELD_OUT = 40
SHORT = {"crop": 48, "validations": 12}
SMALL = {
    "levels": 4, "features": 16, "max_features": 32, "latents": 8, "final_latents": 8, "noise_layers": 3,
    "noise_features": 16, "signal_layers": 1, "signal_features": 16, "direct_features": 16,
    "refine": False,
}  # fmt: skip


def images(count: int = 400, size: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """Clean and noisy; the last HELD_OUT are to be tested on."""
    clean = specimen(count, size, 0)
    return clean, simulate.heavy(clean, np.random.default_rng((0, 1)))


def trained(noisy: np.ndarray, seconds: float, **settings: dict[str, Any]) -> Denoiser:
    """By processor time, so that other work on the machine does not matter."""
    asked = {"method": "cosdd", "train": {"time": seconds}}
    ready = preparation.prepare([noisy], "TYX", "x", "tiny", asked, settings)
    run = training.start(ready.settings, ready.frames)
    began = time.process_time()
    for _ in training.fit(run):
        run.seconds = time.process_time() - began
    return Denoiser(training.finish(run))


def covered(error: np.ndarray, std: np.ndarray) -> float:
    return float((np.abs(error) < INTERVAL * std).mean())


def factor_of(model: Denoiser) -> float:
    """By which the standard deviation was calibrated."""
    return (*model.checkpoint.spread, 1.0)[0]


def decibels(errors: np.ndarray, limit: np.ndarray) -> float:
    """How far behind the limit, as the mean over images of the difference in PSNR."""
    return float(10 * np.log10(errors / limit).mean())


class Bench:
    """A model, noisy images and the truth. Estimates of one number of samples are told apart by their seeds."""

    def __init__(self, model: Denoiser, noisy: np.ndarray, clean: np.ndarray, many: int, rounds: int):
        self.model, self.noisy, self.clean, self.rounds = model, noisy, clean, rounds
        found = model.denoise(noisy, axes="TYX", samples=many, seed=1000)
        assert found.std is not None
        self.limit, self.std = found.mean, found.std
        self.error = self.squared(self.limit - clean)

    @staticmethod
    def squared(values: np.ndarray) -> np.ndarray:
        """Mean of the squares, for each image."""
        return np.square(values, dtype=np.float64).mean((1, 2))

    def means(self, samples: int | None, plain: bool = False) -> list[np.ndarray]:
        return [
            self.model.denoise(self.noisy, axes="TYX", samples=samples, plain=plain, seed=seed).mean
            for seed in range(self.rounds)
        ]

    def behind(self, means: list[np.ndarray]) -> float:
        """dB behind the limit."""
        return decibels(np.mean([self.squared(mean - self.clean) for mean in means], 0), self.error)

    def variance(self, means: list[np.ndarray]) -> float:
        """Of a mean of samples, from its distance to the limit."""
        return float(np.mean([self.squared(mean - self.limit) for mean in means]))


def samples(bench: Bench) -> dict[str, Any]:
    """Plain and coupled samples against the limit; what auto takes; processor time."""
    spread = float(np.square(bench.std, dtype=np.float64).mean())
    found: dict[str, Any] = {
        "psnr_limit": float(-10 * np.log10(bench.error).mean()),
        "variance_over_error_of_the_limit": spread / float(bench.error.mean()),
    }
    for name, plain, counts in (("plain", True, (1, 4, 8, 16, 32)), ("coupled", False, (2, 4, 8, 12, 16))):
        found[name] = {str(count): bench.behind(bench.means(count, plain)) for count in counts}
    # Of independent samples the law is known: error of the limit + variance / number.
    needed = spread / bench.error.mean() / (10 ** (NEAR / 10) - 1)
    found["plain_needed"] = int(np.ceil(needed))
    found["coupled_needed"] = min((int(n) for n, behind in found["coupled"].items() if behind <= NEAR), default=None)
    found["plain"]["100"] = float(10 * np.log10(1 + spread / 100 / bench.error).mean())
    seconds, taken = {}, []
    for name, given in (("plain_100", {"samples": 100, "plain": True}), ("auto", {})):
        began = time.process_time()
        result = bench.model.denoise(bench.noisy, axes="TYX", **given)
        seconds[name] = time.process_time() - began
        if name == "auto":
            taken = result.taken
            found["auto"] = {"taken": [min(taken), max(taken)], "behind": bench.behind([result.mean])}
            assert result.std is not None
            found["auto"]["coverage"] = covered(result.mean - bench.clean, result.std)
    found["fewer_samples"] = 100 / float(np.mean(taken))
    found["processor_seconds"] = seconds
    found["less_work"] = seconds["plain_100"] / seconds["auto"]
    return found


def linear(bench: Bench) -> dict[str, float]:
    """Variance of the mean of 16 coupled samples over that of 16 plain ones, by the size of the blocks."""
    plain, found = bench.variance(bench.means(16, True)), {}
    before = estimates.BLOCK, estimates.GROUP
    try:
        for size in (2, 4, 8, 16):
            estimates.BLOCK, estimates.GROUP = size, 16
            found[str(size)] = bench.variance(bench.means(16)) / plain
    finally:
        estimates.BLOCK, estimates.GROUP = before
    return found


def blend(bench: Bench) -> dict[str, Any]:
    """The direct denoiser U, means m of a few coupled samples, and w U + (1 - w) m; dB to the limit, + is worse.

    w = V / (V + B), B = (U - m)^2 - V, V the variance of m, known without the truth; at least one half.
    """
    direct = bench.model.denoise(bench.noisy, axes="TYX", direct=True).mean
    found: dict[str, Any] = {"direct": bench.behind([direct])}
    for count in (4, 8):
        means = bench.means(count)
        variance = bench.variance(means)
        mixed, weights = [], []
        for mean in means:
            bias = np.maximum(bench.squared(direct - mean) - variance, 0)
            weight = np.maximum(variance / (variance + bias), 0.5)[:, None, None]
            mixed.append(weight * direct + (1 - weight) * mean)
            weights.append(float(weight.mean()))
        found[str(count)] = {
            "samples": bench.behind(means),
            "blend": bench.behind(mixed),
            "weight": float(np.mean(weights)),
        }
    return found


def coverage(kind: str, steps: int) -> dict[str, float]:
    """Of a blind-row model of photographs under a simulated noise, on those held out."""
    clean = blindrow.photographs()
    noisy = blindrow.simulate(kind, clean, np.random.default_rng(0))
    model = cosdd.train(noisy[:360], axes="TYX", noise_axis="x", method="blind-row", steps=steps, seed=0, quiet=True)
    found = model.denoise(noisy[360:], axes="TYX")
    assert found.std is not None
    error, factor = found.mean - clean[360:], factor_of(model)
    return {
        "coverage": covered(error, found.std),
        "coverage_uncalibrated": covered(error, found.std / factor),
        "factor": factor,
    }


def rounded(values: Any) -> Any:
    if isinstance(values, dict):
        return {name: rounded(value) for name, value in values.items()}
    return float(f"{values:.4g}") if isinstance(values, float | np.floating) else values


def lines(entry: Entry) -> list[str]:
    """What it found, for docs/samples.md."""
    found = entry["results"]
    taken, auto, blended = found["samples"], found["samples"]["auto"], found["blend"]
    (first, last), many = auto["taken"], f", {found['many']} samples"
    told = [
        f"`{entry['command']}`: a small cosdd model ({found['steps']} steps) of a simulated specimen in the noise of "
        f"the demo, its grid as it is; {found['images']} crops of {found['crop']} x {found['crop']} pixels that it "
        f"never saw; {circumstances(entry)}.",
        "",
        f"The mean of {found['many']} coupled samples, the limit, has {taken['psnr_limit']:.2f} dB (range 1). "
        "Behind it, in dB:",
        "",
        "| samples | plain | coupled |",
        "|---|---|---|",
    ]
    for count in sorted({*taken["plain"], *taken["coupled"]}, key=int):
        behind = (f"{row[count]:.3f}" if count in row else "" for row in (taken["plain"], taken["coupled"]))
        told.append(f"| {count} | {' | '.join(behind)} |")
    told += [
        "",
        f"- **Within 0.05 dB of the limit**: {taken['plain_needed']} plain samples, {taken['coupled_needed']} coupled "
        f"ones. Left to itself, `denoise` took {first if first == last else f'{first} to {last}'} and stayed "
        f"{auto['behind']:.3f} dB behind: {taken['fewer_samples']:.1f} times fewer samples than the paper's 100, "
        f"**{taken['less_work']:.1f} times less processor time**.",
        "- Variance of the mean of 16 coupled samples over that of 16 plain ones: "
        + ", ".join(f"{value:.3f} in blocks of {size}" for size, value in found["linear"].items())
        + ".",
        f"- The direct denoiser is {blended['direct']:+.3f} dB behind the limit. "
        + " ".join(
            f"{count} samples: {run['samples']:.3f} dB, blended with it {run['blend']:.3f} dB."
            for count, run in blended.items()
            if count != "direct"
        ),
    ]
    if found["coverage"]:
        told += [
            "",
            "| 90 % interval | of the clean pixels it covers | before calibration | factor |",
            "|---|---|---|---|",
        ]
        told.append(
            f"| cosdd, {first if first == last else f'{first} to {last}'} samples | **{auto['coverage']:.1%}** | | |"
        )
    for name, run in found["coverage"].items():
        of = many if name == "cosdd" else ""
        before = f"{run['coverage_uncalibrated']:.1%} | {run['factor']:.3f}"
        told.append(f"| {name}{of} | **{run['coverage']:.1%}** | {before} |")
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=float, default=280)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--many", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=800)
    asked = parser.parse_args()
    estimates.POSITIONS = (estimates.HOME,)
    clean, noisy = images()
    with TemporaryDirectory() as folder:
        path = asked.model or Path(folder) / "model.safetensors"
        if asked.model is None:
            trained(noisy[:-HELD_OUT], asked.train, model=SMALL, train=SHORT).save(path)
        model = cosdd.load(path)
    cut = (slice(-HELD_OUT, -HELD_OUT + asked.images), *[slice(0, asked.crop)] * 2)
    bench = Bench(model, noisy[cut], clean[cut], asked.many, asked.rounds)
    results: dict[str, Any] = {"model": SMALL, "steps": model.checkpoint.steps, "images": asked.images}
    results |= {"crop": asked.crop, "rounds": asked.rounds, "many": asked.many}
    results["samples"] = samples(bench)
    print(rounded(results), flush=True)
    results["linear"] = linear(bench)
    print(rounded(results["linear"]), flush=True)
    results["blend"] = blend(bench)
    print(rounded(results["blend"]), flush=True)
    results["coverage"] = {
        "cosdd": {
            "coverage": covered(bench.limit - bench.clean, bench.std),
            "coverage_uncalibrated": covered(bench.limit - bench.clean, bench.std / factor_of(model)),
            "factor": factor_of(model),
        }
    }
    for kind in blindrow.SIMULATIONS[:3] if asked.steps else ():
        results["coverage"][f"blind-row, {kind}"] = coverage(kind, asked.steps)
    print(rounded(results["coverage"]), flush=True)
    command = f"python -m benchmarks.estimators --train {asked.train:g} --steps {asked.steps}"
    print(write("estimators", command, rounded(results)))


if __name__ == "__main__":
    main()
