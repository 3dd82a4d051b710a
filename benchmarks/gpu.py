"""All that is measured on a GPU, in one command and ten minutes.

python -m benchmarks.gpu [--minutes 8] [--checkout FOLDER]

Needs no data: specimens of our own under the noise of ``cosdd simulate``. In order, each kept as soon as it is
there, so that what is cut off by a time limit is only the rest:

checks      loss terms and denoised images of both methods on the CPU and on the GPU, float32: largest difference
graph       the losses of 40 updates of cosdd, plain and recorded as a CUDA graph: largest difference
training    updates and crops per second of each preset, plain and recorded, in turn, and its peak memory
theirs      with --checkout (see benchmarks.training): crops per second of the authors' code at 14 levels, 64 filters,
            256 x 256, as shipped (4 x 4 crops, recomputation) and with its best flags (16 at once, none), and of a
            network of ours of that size, in turn
denoising   megapixels per second of each method, 1024 x 1024
noise       seconds for 1000 noisy versions of a 256 x 256 image by `generate`
sampler     the same without what is around it: 10,000 samples of one code, of the decoders of two presets, and a
            single one, whose time is that of starting the kernels: what a CUDA graph could save at most
quality     PSNR after the rest of the time, shared by blind-row and cosdd tiny, on ``stripe`` and ``heavy``

Runs on a CPU too (``--minutes 1``), to see that it works. Results go to ``$OUT/gpu.json`` where OUT is set.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import cosdd
from benchmarks.record import RESULTS, machine, origin
from benchmarks.training import modules
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--checkout", type=Path, help="folder of the authors' code")
    asked = parser.parse_args()
    began = time.perf_counter()
    path = Path(os.environ.get("OUT", RESULTS)) / "gpu.json"
    clean = specimen(120, 128, 0)
    noisy = {name: getattr(simulate, name)(clean, np.random.default_rng(0)) for name in ("stripe", "heavy")}
    quick = device.best().type == "cpu"
    entry = origin(f"python -m benchmarks.gpu --minutes {asked.minutes:g}") | {"machine": machine(), "results": {}}

    def keep(name: str, result: dict[str, Any]) -> None:
        entry["results"][name] = result
        path.write_text(json.dumps(entry, indent=2) + "\n", encoding="utf-8")
        print(f"{time.perf_counter() - began:6.1f} s  {name}: {result}", flush=True)

    keep("checks", {name: check(name, noisy["stripe"]) for name in ("blind-row", "cosdd tiny")})
    for name in ("cosdd tiny",) if quick else ("cosdd tiny", "fast"):
        keep(f"graph {name}", attempt(lambda name=name: recorded(name, noisy["stripe"], 8 if quick else 40)))
    for name in list(PRESETS)[:2] if quick else PRESETS:
        keep(f"training {name}", attempt(lambda name=name: throughput(name, noisy["stripe"], 1 if quick else 4)))
    if asked.checkout is not None:
        keep("theirs", attempt(lambda: beside_theirs(asked.checkout, quick)))
    for name in ("blind-row", "cosdd tiny"):
        keep(f"denoising {name}", attempt(lambda name=name: denoising(name, 256 if quick else 1024)))
    keep("noise", attempt(lambda: sampling(noisy["stripe"], 4 if quick else 1000)))
    for name in ("cosdd tiny",) if quick else ("cosdd tiny", "fast", "large"):
        keep(f"sampler {name}", attempt(lambda name=name: sampler(name, 8 if quick else 10_000)))
    jobs = [(name, kind) for kind in noisy for name in ("blind-row", "cosdd tiny")]
    for number, (name, kind) in enumerate(jobs):
        left = 60 * asked.minutes - (time.perf_counter() - began)
        keep(f"quality {kind} {name}", quality(name, noisy[kind], clean, max(5.0, left / (len(jobs) - number) - 5)))
    print(path)


def attempt(job: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What came out, or what went wrong: one part must not cost the others."""
    try:
        return job()
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


def recorded(name: str, noisy: np.ndarray, updates: int) -> dict[str, float]:
    """How far losses are apart, relative to the elbo, after some updates; and whether they were recorded at all."""
    elbos, kinds = [], []
    for graph in (False, True):
        run = started(name, noisy, precision="float32", steps=updates, graph=graph)
        elbos.append([float(record.losses["elbo"]) for record in training.fit(run)])
        kinds.append(getattr(run.updates, "_recording", None) is not None)
    apart = np.abs(np.subtract(*elbos)) / np.abs(elbos[0]).clip(0.1)
    return {"largest": float(apart.max()), "last": float(apart[-1]), "recorded": kinds[1]}


def throughput(name: str, noisy: np.ndarray, seconds: float, turns: int = 2) -> dict[str, Any]:
    """The median of the turns, of updates with the direct denoiser where there is one."""
    runs = {graph: started(name, noisy, time=3600, graph=graph) for graph in (False, True)}
    rates: dict[bool, list[float]] = {graph: [] for graph in runs}
    for _ in range(turns):
        for graph, run in runs.items():
            rates[graph].append(rate(lambda run=run: one_update(run), seconds))
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        one_update(runs[True])
    memory = torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0
    plain, graph = (float(np.median(rates[kind])) for kind in (False, True))
    return {
        "updates_per_second": round(graph, 2),
        "updates_per_second_plain": round(plain, 2),
        "crops_per_second": round(graph * runs[True].settings.train.batch, 1),
        "crop": runs[True].edges[0],
        "memory_gb": round(memory, 2),
    }


def one_update(run: training.Run) -> None:
    training.update(run, 0.7)
    run.step += 1
    training.follow(run)


def rate(job: Callable[[], Any], seconds: float) -> float:
    """How often in a second, once warm."""
    for _ in range(5 if torch.cuda.is_available() else 1):
        job()
    synchronise()
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        job()
        count += 1
    synchronise()
    return count / (time.perf_counter() - began)


def beside_theirs(checkout: Path, quick: bool) -> dict[str, Any]:
    """Crops per second in training, of random pixels: how quick it is does not depend on them."""
    edge, levels, filters, seconds, turns = (64, 6, 32, 1, 1) if quick else (256, 14, 64, 6, 3)
    where, found = device.best(), {}
    noisy = np.random.default_rng(0).normal(size=(32, edge, edge)).astype(np.float32)
    model = {
        "levels": levels, "features": filters, "max_features": filters, "latents": filters // 2,
        "final_latents": filters, "signal_features": filters, "direct": True, "direct_from": 0.0,
        "direct_features": filters,
    }  # fmt: skip
    asked = config.build("small", {"model": model, "train": {"crop": edge, "batch": 16, "virtual_batches": 1}})
    run = training.start(asked, Frames.split([noisy[:, None]], 0.1, 0))
    jobs: dict[str, Callable[[], Any]] = {"ours": lambda: one_update(run)}
    for name, parts in (("as shipped", 4), ("best flags", 1)):
        step = their_update(checkout, edge, levels, filters, parts)
        jobs[name] = lambda step=step: step(torch.randn(16, 1, edge, edge, device=where))
    for _ in range(turns):
        for name, job in jobs.items():
            found.setdefault(name, []).append(round(16 * rate(job, seconds), 1))
    medians = {name: float(np.median(values)) for name, values in found.items()}
    quicker = {f"times {name}": round(medians["ours"] / medians[name], 2) for name in list(jobs)[1:]}
    return {"crops_per_second": found, "edge": edge, "levels": levels, "filters": filters} | quicker


def their_update(checkout: Path, edge: int, levels: int, filters: int, parts: int) -> Callable[[Tensor], None]:
    """One update of 16 crops by their modules, in the order of their training step, as benchmarks.training has it."""
    settings = {
        "data": {"number-dimensions": 2},
        "hyper-parameters": {
            "number-layers": levels, "s-code-channels": filters, "number-gaussians": 5, "noise-direction": "x",
            "scale-initialisation": False,
        },
        "train-parameters": {"crop-size": [edge, edge], "use-direct-denoiser": True, "direct-denoiser-loss": "MSE"},
    }  # fmt: skip
    networks = [network.to(device.best()) for network in modules(checkout)[1](settings, 1)]
    for network in networks:
        for module in network.modules():
            if hasattr(module, "checkpointed"):
                module.checkpointed = parts > 1
    ladder, decoder, signal, direct = networks
    weights = [*ladder.parameters(), *decoder.parameters()], signal.parameters(), direct.parameters()
    optimisers = [torch.optim.Adamax(parameters) for parameters in weights]

    def update(crops: Tensor) -> None:
        for x in crops.chunk(parts):
            with torch.autocast(x.device.type, torch.bfloat16, enabled=x.device.type == "cuda"):  # elsewhere emulated
                encoded = ladder(x)
                code = encoded["s_code"]
                nll = -decoder.loglikelihood(x, decoder(x, code)).mean()
                bound = nll + ladder.kl_divergence(encoded["q_list"], encoded["p_list"]) / x.numel()
                clean = signal(code.detach())
                losses = bound, signal.loss(x, clean).mean(), direct.loss(clean.detach(), direct(x)).mean()
            for loss in losses:
                loss.backward()
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()

    return update


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

    drawn(1)
    together = min(count, 500)
    one = seconds([1])
    many = seconds([together] * (count // together))
    return {"samples": count, "size": edge, "seconds": round(many, 2), "seconds_of_one": round(one, 3)}


def quality(name: str, noisy: np.ndarray, clean: np.ndarray, seconds: float) -> dict[str, float]:
    """Trained on 100 images, scored on the 20 others."""
    method = PRESETS[name][1]["method"]
    model = cosdd.train(noisy[:100], noise_axis="x", method=method, time=seconds, axes="TYX", quiet=True)
    denoised = model.denoise(noisy[100:], axes="TYX", samples=20).mean
    gaussian, _ = metrics.best_gaussian(noisy[100:], clean[100:])
    return {
        "seconds": round(seconds, 1),
        "steps": model.checkpoint.steps,
        "psnr_noisy": round(float(metrics.psnr(noisy[100:], clean[100:], "unit")), 2),
        "psnr_gaussian": round(float(metrics.psnr(gaussian, clean[100:], "unit")), 2),
        "psnr_denoised": round(float(metrics.psnr(denoised, clean[100:], "unit")), 2),
    }


if __name__ == "__main__":
    main()
