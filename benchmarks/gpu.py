"""All that is measured on a GPU, in one command and ten minutes.

python -m benchmarks.gpu [--minutes 8] [--checkout FOLDER]

Needs no data: specimens of our own under the noise of ``cosdd simulate``. In order, each kept as soon as it is
there, so that what is cut off by a time limit is only the rest:

checks      loss terms and denoised images of both methods on the CPU and on the GPU, float32: largest difference
graph       losses and weights after 60 updates of cosdd, plain and recorded as a CUDA graph: largest difference
impossible  updates that cannot be recorded: are they made all the same?
training    updates and crops per second of each preset, plain and recorded, in turn, and its peak memory
theirs      with --checkout (see benchmarks.published): crops per second of the authors' code at 14 levels, 64 filters,
            256 x 256, as shipped (4 x 4 crops, recomputation) and with its best flags (16 at once, none), and of a
            network of ours of that size, in turn
denoising   megapixels per second of each method, 1024 x 1024
noise       seconds for 1000 noisy versions of a 256 x 256 image by `generate`
sampler     the same without what is around it: 10,000 samples of one code, of the decoders of three presets,
            and a single one, replayed
quality     PSNR after the rest of the time, shared by blind-row, cosdd tiny and fast, and the authors' networks, on
            ``stripe`` and ``heavy``

Runs on a CPU too (``--minutes 1``), to see that it works. Results go to ``$OUT/gpu.json`` where OUT is set.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import cosdd
from benchmarks.published import Published
from benchmarks.record import RESULTS, machine, origin
from cosdd import config, data, device, generation, metrics, simulate, training
from cosdd.checkpoint import Checkpoint
from cosdd.data import Frames
from cosdd.denoise import Denoiser
from cosdd.model import COSDD
from cosdd.specimen import specimen

PRESETS = {
    "blind-row": ("tiny", {"method": "blind-row"}),
    "cosdd tiny": ("tiny", {"method": "cosdd"}),
    "fast": ("fast", {}),
    "small": ("small", {}),
    "large": ("large", {}),
}


PARTS = ("checks", "graph", "impossible", "training", "theirs", "drawing", "quality")
LONGEST = 150.0  # seconds of a part that is not given a time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--checkout", type=Path, help="folder of the authors' code")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--sets", default="stripe,heavy", help="of quality")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.part:
        for name, result in part(asked.part, asked.checkout, 60 * asked.minutes, asked.sets.split(",")):
            print("\n" + json.dumps({name: result}), flush=True)
        return
    began = time.perf_counter()
    path = Path(os.environ.get("OUT", RESULTS)) / "gpu.json"
    entry = origin(f"python -m benchmarks.gpu --minutes {asked.minutes:g} --checkout FOLDER") | {"machine": machine()}
    entry["results"] = {}
    for name in asked.parts.split(","):
        left = 60 * asked.minutes - (time.perf_counter() - began)
        limit = left if name == "quality" else min(left, LONGEST)
        # In a process of its own: what goes wrong on a device may spoil all that follows there.
        command = [
            sys.executable,
            "-m",
            "benchmarks.gpu",
            "--part",
            name,
            "--minutes",
            str((limit - 15) / 60),
            "--sets",
            asked.sets,
        ]
        command += ["--checkout", str(asked.checkout)] if asked.checkout else []
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=max(limit, 1))
            said, trouble = done.stdout, done.stderr[-1500:] if done.returncode else ""
        except subprocess.TimeoutExpired as end:
            written = end.stdout or b""  # text or not, as the release of Python likes
            said = written if isinstance(written, str) else written.decode()
            trouble = f"not done after {limit:.0f} s"
        for line in said.splitlines():
            if line.startswith("{"):
                entry["results"] |= json.loads(line)
        if trouble:
            entry["results"][f"{name} failed"] = trouble
        path.write_text(json.dumps(entry, indent=2) + "\n", encoding="utf-8")
        print(f"{time.perf_counter() - began:6.1f} s  {name}\n{said}{trouble}", flush=True)
    print(path)


def part(name: str, checkout: Path | None, seconds: float, sets: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is found, as soon as it is."""
    clean = specimen(120, 128, 0)
    noisy = {kind: getattr(simulate, kind)(clean, np.random.default_rng(0)) for kind in ("stripe", "heavy")}
    quick = device.best().type == "cpu"
    if name == "checks":
        for method in ("blind-row", "cosdd tiny"):
            yield f"checks {method}", check(method, noisy["stripe"])
    elif name == "graph":
        for preset in ("cosdd tiny",) if quick else ("cosdd tiny", "fast"):
            yield f"graph {preset}", recorded(preset, noisy["stripe"], 10 if quick else 60)
    elif name == "impossible" and not quick:
        yield "a graph that cannot be recorded", impossible(noisy["stripe"])
    elif name == "training":
        for preset in list(PRESETS)[: 2 if quick else None]:
            yield f"training {preset}", attempt(throughput, preset, noisy["stripe"], 1 if quick else 4)
    elif name == "theirs" and checkout is not None:
        for found in beside_theirs(checkout, quick):
            yield "theirs", found
    elif name == "drawing":
        for preset in ("blind-row", "cosdd tiny", "fast"):
            yield f"denoising {preset}", attempt(denoising, preset, 128 if quick else 1024)
        yield "noise", attempt(sampling, noisy["stripe"], 4 if quick else 1000)
        for preset in ("cosdd tiny",) if quick else ("cosdd tiny", "fast", "large"):
            yield f"sampler {preset}", attempt(sampler, preset, 8 if quick else 10_000)
    elif name == "quality":
        names = ["blind-row", "cosdd tiny"] + ([] if quick else ["fast"]) + (["theirs"] if checkout else [])
        each = seconds / (len(names) * len(sets)) - 4
        for kind in sets:
            images = noisy[kind]
            for method in names:
                if method == "theirs":
                    yield f"quality {kind} theirs", attempt(their_quality, checkout, images, clean, each)
                else:
                    yield f"quality {kind} {method}", attempt(quality, method, images, clean, each)


def attempt(job: Callable[..., dict[str, Any]], *given: Any) -> dict[str, Any]:
    """What came out, or what went wrong: where memory ends, say."""
    try:
        return job(*given)
    except RuntimeError as error:
        return {"failed": str(error).splitlines()[0]}


def settings(name: str, **train: Any) -> config.Config:
    preset, given = PRESETS[name]
    return config.build(preset, given, {"model": {"noise_axis": "x"}, "train": train})


def started(name: str, noisy: np.ndarray, **train: Any) -> training.Run:
    return training.start(settings(name, **train), Frames.split([noisy[:, None]], 0.1, 0))


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def check(name: str, noisy: np.ndarray) -> dict[str, float]:
    """Largest differences between CPU and GPU, relative to the loss and to the range of the image."""
    run = started(name, noisy, precision="float32", steps=20)
    for _ in training.fit(run):
        pass
    trained = training.finish(run)
    x = torch.from_numpy(data.normalise(noisy[:2, None], run.frames.statistics, run.frames.outliers))
    found = []
    for where in (torch.device("cpu"), device.best()):
        network = trained.network.to(where).eval()
        torch.manual_seed(0)
        with torch.no_grad():
            if name == "blind-row":
                mean, std = network.posterior(x.to(where))
                found.append((mean.cpu(), std.cpu()))
            else:
                features, window = network.encode(x.to(where))
                zeros = lambda level, shape, device: torch.zeros(shape, device=device)  # noqa: E731
                found.append(
                    (network.sample(features, window, zeros).cpu(), network.denoise_directly(x.to(where)).cpu())
                )
    (one, two), (first, second) = found
    return {
        "first_output": float((one - first).abs().max() / one.abs().max()),
        "second_output": float((two - second).abs().max() / two.abs().max()),
    }


def recorded(name: str, noisy: np.ndarray, updates: int) -> dict[str, Any]:
    """How far losses are apart, relative to the elbo, of updates plain and recorded; two of them are spoiled."""
    elbos, runs = [], []
    for graph in (False, True):
        run = started(name, noisy, precision="float32", steps=updates, graph=graph, snapshot=3600)
        crops, kind = run.feed, type(run.feed).__name__
        run.feed = lambda step, crops=crops: crops(step) * (torch.inf if step in (updates // 2, updates - 2) else 1)  # type: ignore[assignment]
        found = np.array([float(record.losses["elbo"]) for record in training.fit(run)])
        training.finish(run)
        elbos.append(found[np.isfinite(found)])
        runs.append(run)
    apart = np.abs(np.subtract(*elbos)) / np.abs(elbos[0]).clip(0.1)
    weights = [run.network.state_dict() for run in runs]
    return {
        "largest": float(apart.max()),
        "last": float(apart[-1]),
        "weights": max(float((one - weights[1][key]).abs().max()) for key, one in weights[0].items()),
        "skipped": [run.skipped for run in runs],
        "recorded": getattr(runs[1].updates, "_recording", None) is not None,
        "feed": kind,
    }


def impossible(noisy: np.ndarray) -> dict[str, Any]:
    """Updates that ask the device for something go on in the plain way."""
    run = started("cosdd tiny", noisy, steps=30)
    nll = run.network.noise.nll

    def asking(x: Tensor, code: Tensor) -> Tensor:
        found = nll(x, code)
        found.sum().item()
        return found

    run.network.noise.nll = asking  # type: ignore[method-assign,union-attr]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        records = list(training.fit(run))
    said = [str(warning.message) for warning in told if "CUDA graph" in str(warning.message)]
    return {"updates": len(records), "finite": bool(np.isfinite(float(records[-1].losses["elbo"]))), "said": said}


def throughput(name: str, noisy: np.ndarray, seconds: float, turns: int = 2) -> dict[str, Any]:
    """The median of the turns, of updates with the direct denoiser where there is one."""
    found: dict[bool, list[float]] = {False: [], True: []}
    memory = 0.0
    for _ in range(turns):
        for graph, rates in found.items():
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            run = started(name, noisy, time=3600, graph=graph)
            rates.append(rate(lambda run=run: one_update(run), seconds))
            # What is reserved: the memory of a graph counts as taken only while it is recorded.
            memory = torch.cuda.max_memory_reserved() / 1e9 if torch.cuda.is_available() else 0.0
            batch, crop = run.settings.train.batch, run.edges[0]
            del run
            gc.collect()
    plain, graph = (float(np.median(rates)) for rates in found.values())
    return {
        "updates_per_second": round(graph, 2),
        "updates_per_second_plain": round(plain, 2),
        "all": {"plain": found[False], "graph": found[True]},
        "crops_per_second": round(graph * batch, 1),
        "crop": crop,
        "memory_gb": round(memory, 2),
    }


def one_update(run: training.Run) -> None:
    training.update(run, 0.7)
    run.step += 1
    training.follow(run)


def rate(job: Callable[[], Any], seconds: float, warm: int = 5) -> float:
    """How often in a second, once warm."""
    for _ in range(warm if torch.cuda.is_available() else 1):
        job()
    synchronise()
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        job()
        count += 1
    synchronise()
    return count / (time.perf_counter() - began)


def beside_theirs(checkout: Path, quick: bool) -> Iterator[dict[str, Any]]:
    """Crops per second in training, of random pixels: how quick it is does not depend on them. After every turn."""
    edge, levels, filters, seconds, turns = (64, 6, 32, 1, 1) if quick else (256, 14, 64, 4, 3)
    where, found = device.best(), {}
    noisy = np.random.default_rng(0).normal(size=(32, edge, edge)).astype(np.float32)
    model = {
        "levels": levels, "features": filters, "max_features": filters, "latents": filters // 2,
        "final_latents": filters, "signal_features": filters, "direct": True, "direct_from": 0.0,
        "direct_features": filters,
    }  # fmt: skip
    asked = config.build("small", {"model": model, "train": {"crop": edge, "batch": 16, "virtual_batches": 1}})
    run = training.start(asked, Frames.split([noisy[:, None]], 0.1, 0))
    for _ in range(5 if not quick else 0):
        one_update(run)  # it is recorded after the third
    jobs: dict[str, Callable[[], Any]] = {"ours": lambda: one_update(run)}
    for name, parts in (("as shipped", 4), ("best flags", 1)):
        code = Published(checkout, edge, levels, filters, where)
        code.recompute(parts > 1)
        jobs[name] = lambda c=code, p=parts: their_update(c, torch.randn(16, 1, edge, edge, device=where), p)
    for _ in range(turns):
        for name, job in jobs.items():
            found.setdefault(name, []).append(round(16 * rate(job, seconds, warm=2), 1))
            print(name, found[name], flush=True)
        medians = {name: float(np.median(values)) for name, values in found.items()}
        quicker = {f"times {name}": round(medians["ours"] / medians[name], 2) for name in list(jobs)[1:]}
        yield {"crops_per_second": found, "edge": edge, "levels": levels, "filters": filters} | quicker


def their_update(code: Published, crops: Tensor, parts: int) -> None:
    """Of all crops, so many parts of them one after the other."""
    for index, x in enumerate(crops.chunk(parts)):
        code.learn(x, step=index == parts - 1)


def denoising(name: str, edge: int) -> dict[str, float]:
    """A network that was not trained takes as long."""
    torch.manual_seed(0)
    asked = settings(name)
    network = training.build(asked).eval()
    model = Denoiser(Checkpoint(asked, data.Statistics((0.0,), (1.0,), 0.0), network, (), 1, 1.0))
    noisy = np.random.default_rng(0).normal(size=(edge, edge)).astype(np.float32)
    samples = 10
    model.denoise(noisy, samples=1)
    synchronise()
    began = time.perf_counter()
    model.denoise(noisy, samples=samples)
    synchronise()
    took = time.perf_counter() - began
    return {"seconds": round(took, 3), "samples": samples, "megapixels_per_second": round(edge**2 / took / 1e6, 3)}


def sampling(noisy: np.ndarray, count: int) -> dict[str, float]:
    run = started("cosdd tiny", noisy, steps=1)
    for _ in training.fit(run):
        pass
    trained = training.finish(run)
    frame = np.zeros((1, 1, 256, 256), np.float32) + noisy.mean()
    began = time.perf_counter()
    for _ in generation.noisy_versions(trained, frame, generation.Settings(count=count)):
        pass
    synchronise()
    return {"samples": count, "seconds": round(time.perf_counter() - began, 2)}


@torch.inference_mode()
def sampler(name: str, count: int, edge: int = 256) -> dict[str, float]:
    """Random numbers are drawn where the network is, and of the samples only the mean is kept."""
    torch.manual_seed(0)
    where = device.best()
    model = config.build(PRESETS[name][0], PRESETS[name][1], {"model": {"noise_axis": "x"}}).model
    network = COSDD(model).to(where).eval()
    code = torch.randn(1, network.ladder.code_channels, edge, edge, device=where)

    def drawn(samples: int) -> Tensor:
        shape = (samples, 1, 1, edge, edge)
        return network.noise.sample(code, torch.rand(shape, device=where), torch.randn(shape, device=where)).mean(0)

    def seconds(counts: Iterable[int]) -> float:
        synchronise()
        began = time.perf_counter()
        for some in counts:
            drawn(some)
        synchronise()
        return time.perf_counter() - began

    drawn(1), drawn(1)  # the second is recorded
    together = min(count, 500)
    one = seconds([1])
    many = seconds([together] * (count // together))
    return {"samples": count, "size": edge, "seconds": round(many, 2), "seconds_of_one": round(one, 3)}


def quality(name: str, noisy: np.ndarray, clean: np.ndarray, seconds: float) -> dict[str, float]:
    """Trained on 100 images, scored on the 20 others."""
    preset, given = PRESETS[name]
    model = cosdd.train(noisy[:100], noise_axis="x", preset=preset, time=seconds, axes="TYX", quiet=True, **given)
    denoised = model.denoise(noisy[100:], axes="TYX", samples=20).mean
    return scores(denoised, noisy, clean) | {"seconds": round(seconds, 1), "steps": model.checkpoint.steps}


def their_quality(checkout: Path, noisy: np.ndarray, clean: np.ndarray, seconds: float) -> dict[str, float]:
    """The same of the authors' networks of their example configuration, with its best flags, on whole images."""
    code = Published(checkout, 128, 14, 64, device.best())
    code.recompute(False)
    x = torch.from_numpy(noisy[:, None]).to(device.best())
    mean, std = x[:100].mean(), x[:100].std()
    x = (x - mean) / std
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        their_update(code, x[torch.randint(100, (16,), device=x.device)], 1)
        steps += 1
        synchronise()
    denoised = (code.mean(x[100:], 20) * std + mean).cpu().numpy()[:, 0]
    return scores(denoised, noisy, clean) | {"seconds": round(seconds, 1), "steps": steps}


def scores(denoised: np.ndarray, noisy: np.ndarray, clean: np.ndarray) -> dict[str, float]:
    gaussian, _ = metrics.best_gaussian(noisy[100:], clean[100:])
    return {
        "psnr_noisy": round(float(metrics.psnr(noisy[100:], clean[100:], "unit")), 2),
        "psnr_gaussian": round(float(metrics.psnr(gaussian, clean[100:], "unit")), 2),
        "psnr_denoised": round(float(metrics.psnr(denoised, clean[100:], "unit")), 2),
    }


if __name__ == "__main__":
    main()
