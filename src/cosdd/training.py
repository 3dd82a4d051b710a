"""Training: one readable loop that yields a record per step.

run = start(config, frames)
for record in fit(run):
    ...                       # show progress, stop early
trained = finish(run)         # the best weights seen, as a Checkpoint
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from cosdd import calibration, config, device, feed, noisefloor, processes
from cosdd.checkpoint import Checkpoint, evidence
from cosdd.data import Frames
from cosdd.device import arithmetic
from cosdd.errors import InputError
from cosdd.feed import Feed
from cosdd.model import COSDD, USUAL, BlindRow, build
from cosdd.model.rownoise import RowNoise
from cosdd.model.wavelets import WaveletLadder
from cosdd.updates import Plain, Replayed, quiet

VALIDATION_CROPS = 32
PLATEAU_FACTOR = {"plateau": 0.1, "budget": 0.3}  # the rate falls to this share after a plateau
SHORTEST_EPOCH = 50  # updates between validations of schedule plateau: fewer are no measure of a plateau
PLATEAUS_IN_A_ROW = 2  # end a run of schedule plateau (supplement section 2.1)
SETTLED = 0.5  # share of the budget before which no plateau counts
UNREAD = 10  # updates of which the host may not know yet whether they were made
TOO_MANY_SKIPPED = 20  # updates in a row that were not finite: back to the best weights, with smaller steps
SMALLEST_SCALE = 0.02  # of the rate ends a run of schedule budget
DIRECT_ENOUGH = 0.25  # share of its own time after which the direct denoiser is worth keeping

NOT_REFINED = "{} the noise: estimates are not refined by a filter for it (model.refine)"
LEFT_OUT = "the direct denoiser had too little time to learn and is left out: this model draws samples only"

SHOWN = ("nll", "kl", "elbo", "signal", "direct", "blind_mse")  # loss terms worth a look

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Record:
    """What one update did. Losses are detached tensors: reading one waits for the device."""

    step: int
    seconds: float  # of training so far
    progress: float  # share of the budget that is used, 0 to 1
    lr: float
    losses: dict[str, Tensor]
    validation: dict[str, float] | None  # at some steps, on the fixed crops: see `validate`

    def shown(self) -> dict[str, float]:
        """The losses that are worth a look, by name."""
        return {name: float(self.losses[name]) for name in SHOWN if name in self.losses}


@dataclass
class Run:
    """The state of a training run."""

    settings: config.Config
    frames: Frames
    fabric: Fabric
    network: COSDD | BlindRow
    optimiser: torch.optim.Optimizer
    edges: tuple[int, ...]
    feed: Feed
    updates: Plain
    average: Weights  # moving average of the weights, or the weights themselves without one
    noise_variance: Tensor | None = None  # of each channel on the fixed crops, as measured across the rows
    notes: tuple[str, ...] = ()  # what the user should know before trusting the result
    step: int = 0
    seconds: float = 0.0
    skipped: int = 0  # updates left out because a loss or gradient was not finite
    skipped_in_a_row: int = 0
    history: list[dict[str, float]] = field(default_factory=list)  # one entry per validation
    best: Weights | None = None
    best_evidence: float = -math.inf  # elbo, or log-likelihood where it is exact; nats per pixel
    waited: int = 0  # validations without gain
    lr: float = 0.0  # of the last update
    lr_scale: float = 1.0  # falls at plateaus
    unread: list[bool | Tensor] = field(default_factory=list)  # were the last updates made? See `read`


def make_fabric(settings: config.Config) -> Fabric:
    """Choose the device, or join the other processes; quiet, because progress is ours to show.

    Fabric's own mixed precision would round the images to bfloat16 on their way in; ``device.arithmetic`` does not.
    """
    device.best()  # sets how it computes
    for name in ("lightning_fabric", "lightning_fabric.utilities.seed", "lightning_fabric.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if processes.count() == 1:
        return Fabric(accelerator="auto", devices=1)
    here = processes.local_count()
    strategy = DDPStrategy(find_unused_parameters=some_wait(settings))
    fabric = Fabric(accelerator="auto", devices=here, num_nodes=processes.count() // here, strategy=strategy)
    fabric.launch()
    return fabric


def some_wait(settings: config.Config) -> bool:
    """Are there parts that wait for their time, and until then have no gradients?"""
    model = settings.model
    latents, direct = model.start == "wavelets" and model.latents_from > 0, model.direct and model.direct_from > 0
    return settings.method == "cosdd" and (latents or direct)


def start(settings: config.Config, frames: Frames) -> Run:
    """Build networks, optimiser and moving average for the frames; nothing is trained yet."""
    fabric = make_fabric(settings)
    torch.manual_seed(settings.train.seed)
    network = build(settings)
    notes: tuple[str, ...] = ()
    if isinstance(network, COSDD):
        network.noise.set_smallest_sigma(frames.statistics.smallest_sigma())
        notes = start_cosdd(network, frames)
    elif network.anchor:
        notes = start_noise(network, frames)
    network.ceiling.copy_(torch.tensor(frames.ceiling()))
    if settings.model.dimensions == 2:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    kind = {"adamax": torch.optim.Adamax, "adam": torch.optim.Adam}[settings.train.optimiser]
    optimiser = kind(network.parameter_groups(), lr=settings.train.lr)
    wrapped, wrapped_optimiser = fabric.setup(network, optimiser)
    edges = frames.edges(settings.train.crop, network.stride if isinstance(network, COSDD) else 16)
    average = {name: value.detach().clone() for name, value in network.state_dict().items()}
    variance = noise_variance(frames, edges, settings) if isinstance(network, COSDD) else None
    train, where = settings.train, fabric.device
    # Stationary Gaussian noise is the same read backwards; noise of any shape is not.
    flips = "xyz" if isinstance(network, BlindRow) else "xyz".replace(settings.model.noise_axis, "")
    crops = feed.choose(frames, where, train.seed, train.batch, edges, flips)
    by_itself = train.graph and where.type == "cuda" and isinstance(network, COSDD) and processes.count() == 1
    updates = (Replayed if by_itself else Plain)(network, wrapped, wrapped_optimiser, fabric, train)  # type: ignore[arg-type]
    return Run(settings, frames, fabric, network, wrapped_optimiser, edges, crops, updates, average, variance, notes)  # type: ignore[arg-type]


def noise_variance(frames: Frames, edges: tuple[int, ...], settings: config.Config) -> Tensor | None:
    """That of each channel on the crops of `validate`, normalised; None where too few rows or texture hide it."""
    axis = config.AXIS[settings.model.noise_axis]
    crops = frames.validation_crops(settings.train.seed, VALIDATION_CROPS, edges)
    whole = [crop for crop in crops if np.isfinite(crop).all()]
    floor = noisefloor.measure(whole, axis) if whole and frames.dimensions > 1 else None
    return None if floor is None or floor.hidden else torch.from_numpy(floor.covariance[..., 0].mean(1)).float()


def start_cosdd(network: COSDD, frames: Frames) -> tuple[str, ...]:
    """Start with the noise that the frames show across the rows, where it is asked for; returns doubts about it."""
    if network.measured is None and not isinstance(network.ladder, WaveletLadder):
        return ()
    windows, axis = frames.windows(), network.noise.axis
    floor = noisefloor.measure(windows, axis) if frames.dimensions > 1 else None
    if isinstance(network.ladder, WaveletLadder):
        covariance = None
        if floor is not None:
            covariance = torch.from_numpy(floor.covariance.mean(1)).float()  # of all brightnesses
        images = [torch.from_numpy(window) for window in windows]
        network.noise.start_at(network.ladder.start_at(images, covariance, axis))
    if network.measured is None:
        return ()
    if floor is None or floor.hidden:
        network.measured = None
        return (NOT_REFINED.format("too few rows to measure" if floor is None else "fine texture hides"),)
    measured = RowNoise(network.settings.channels)
    measured.start_at(floor)
    network.measured.load_state_dict(measured.state_dict())
    return ()


def start_noise(network: BlindRow, frames: Frames) -> tuple[str, ...]:
    """Start the noise at what the frames show across the rows; returns doubts about it."""
    floor = noisefloor.measure(frames.windows(), network.axis)
    if floor is None:
        return ("too few rows to measure the noise before training: it is learned from the fit alone",)
    network.noise.start_at(floor)
    if not floor.hidden:
        return ()
    structure = floor.structure.mean(1).max()  # of the worst channel
    return (
        f"more than half of the finest scale across the rows ({structure:.0%}) is structure, so noise and fine texture "
        "can hardly be told apart: compare the result with the noisy image before you trust small detail",
    )


def fit(run: Run) -> Iterator[Record]:
    """Train until the budget is used, the loss has plateaued for good, or the caller stops asking."""
    train = run.settings.train
    budget_validations = {round(i * 1000 / train.validations) for i in range(1, train.validations + 1)}
    epoch = max(SHORTEST_EPOCH, run.frames.epoch(run.edges, train.batch))
    while not ended(run):  # a resumed run may have nothing left to do
        began = time.perf_counter()
        before = progress(run)
        run.network.train()
        set_lr(run, before)
        losses = update(run, before)
        run.step += 1
        follow(run)
        run.seconds += time.perf_counter() - began
        agreed = processes.agreed([run.seconds, float(processes.told_to_end())], run.fabric.device)
        run.seconds, told_to_end = agreed
        after = progress(run)

        if train.schedule == "plateau":
            due = run.step % epoch == 0 or after >= 1
        else:
            due = any(before * 1000 < mark <= after * 1000 for mark in budget_validations)
        validation = None
        if due:
            began = time.perf_counter()
            validation = validate(run)
            run.seconds += time.perf_counter() - began
            # Again: whoever ends by a clock of its own leaves the others waiting for its gradients.
            (run.seconds,) = processes.agreed([run.seconds], run.fabric.device)
        yield Record(run.step, run.seconds, min(after, 1.0), run.lr, losses, validation)
        if told_to_end:  # each of several processes, after the same update
            processes.leave()
            raise processes.Asked
    processes.leave()


def ended(run: Run) -> bool:
    """Has the run used its budget, or has nothing left to learn?"""
    return progress(run) >= 1 or nothing_left(run)


def progress(run: Run) -> float:
    """Share of the budget that is used: of the steps, where they are given, else of the time."""
    train = run.settings.train
    if train.steps:
        return run.step / train.steps
    assert train.time is not None  # the settings are checked for one or the other
    return run.seconds / train.time


def set_lr(run: Run, share: float) -> None:
    train = run.settings.train
    if train.schedule == "plateau":
        scale = run.lr_scale
    else:
        # Rise, then a cosine to zero that ends with the budget: the average settles with it.
        rise = min(1.0, (share + 1e-3) / max(train.warmup, 1e-3))
        scale = rise * 0.5 * (1 + math.cos(math.pi * min(share, 1.0))) * run.lr_scale
    run.lr = train.lr * scale
    for group in run.optimiser.param_groups:
        wanted = run.lr * group.get("lr_scale", 1.0)
        if isinstance(group["lr"], Tensor):  # where a recorded update finds it
            group["lr"].fill_(wanted)
        else:
            group["lr"] = wanted


def update(run: Run, share_used: float) -> dict[str, Tensor]:
    """One update of the weights; returns its losses."""
    crops = run.feed(run.step)
    # Latent noise, like the crops, depends on seed and step alone.
    torch.manual_seed((run.settings.train.seed * 1_000_003 + run.step) % 2**63)
    losses, made = run.updates.step(crops, share_used)
    run.unread.append(made)
    if isinstance(made, bool) or len(run.unread) == UNREAD:
        read(run)
    return losses


def read(run: Run) -> None:
    """Look at whether the last updates were made; where the device decided that, this waits for it."""
    if not run.unread:
        return
    made = torch.stack([torch.as_tensor(each, device=run.fabric.device) for each in run.unread]).tolist()
    run.unread.clear()
    for each in made:
        run.skipped += not each
        run.skipped_in_a_row = 0 if each else run.skipped_in_a_row + 1
        if not each and run.skipped_in_a_row % TOO_MANY_SKIPPED == 0:  # not the batch: the weights have gone astray
            run.lr_scale *= PLATEAU_FACTOR["budget"]
            back_to_best(run)


@torch.no_grad()
def follow(run: Run) -> None:
    """Let the moving average follow the weights; its memory grows to 1 / (1 - ema) updates."""
    decay = min(run.settings.train.ema, (1 + run.step) / (10 + run.step))
    averaged, now = [], []
    for name, value in run.network.state_dict().items():
        if decay == 0 or not value.is_floating_point():
            run.average[name].copy_(value)
        else:
            averaged.append(run.average[name])
            now.append(value)
    if averaged:  # all at once: on a GPU it is the number of calls that takes time
        get_ema_multi_avg_fn(decay)(averaged, now, 0)


@contextmanager
def averaged(run: Run) -> Iterator[None]:
    """The network with its averaged weights, and as it denoises."""
    training = {name: value.clone() for name, value in run.network.state_dict().items()}
    run.network.load_state_dict(run.average)
    run.network.eval()
    try:
        yield
    finally:
        run.network.load_state_dict(training)


def looked_at(terms: Mapping[str, Tensor], noise_variance: Tensor | None) -> dict[str, float]:
    """The terms of a validation; see `validate`."""
    found = {name: terms[name] for name in SHOWN if name in terms}
    found |= {f"kl_{level}": value for level, value in enumerate(terms.get("kl_levels", ()))}
    if noise_variance is not None:
        # What a sample from the posterior takes away is distributed as the noise is, if the posterior is right.
        found["removed"] = (terms["signal_channels"].cpu() / noise_variance).min()
    return {name: float(value) for name, value in found.items()}


@quiet()
@torch.no_grad()
def validate(run: Run, alone: bool = False) -> dict[str, float]:
    """Losses of the averaged weights on fixed crops with fixed latent noise; remembers the best weights.

    Those of `SHOWN` that the method has, in nats per pixel or as mean squared errors; kl_0, kl_1, ...: the KL of each
    level, finest first; removed: the variance of what a clean sample takes away over that of the noise, as measured
    across the rows, in the channel where that is least.

    ``alone``: without the other processes, if there are any, which may have ended.
    """
    read(run)
    train = run.settings.train
    crops = torch.from_numpy(run.frames.validation_crops(train.seed, VALIDATION_CROPS, run.edges))
    torch.manual_seed(train.seed)
    sums: dict[str, float] = {}
    with averaged(run):
        for part in crops.split(max(1, train.batch // train.virtual_batches)):
            with arithmetic(train.precision, run.fabric.device):
                terms = run.network(part.to(run.fabric.device))
            for name, value in looked_at(terms, run.noise_variance).items():
                sums[name] = sums.get(name, 0.0) + value * len(part) / len(crops)
    if not alone:
        sums = dict(zip(sums, processes.agreed(list(sums.values()), run.fabric.device), strict=True))
    entry = {"step": float(run.step), "seconds": run.seconds, "lr": run.lr, **sums}
    run.history.append(entry)
    if evidence(sums) > run.best_evidence:
        run.best_evidence, run.waited = evidence(sums), 0
        run.best = {name: value.clone() for name, value in run.average.items()}
    else:
        run.waited += 1
        early = train.schedule == "budget" and progress(run) < SETTLED
        if run.waited % train.patience == 0 and not early:
            after_plateau(run)
    return sums


def after_plateau(run: Run) -> None:
    """The fixed crops no longer gain: a smaller rate.

    Schedule budget: also back to the best weights. On little data the networks begin to learn the noise of the
    training frames by heart, and what they learned after the best point is only that.
    """
    schedule = run.settings.train.schedule
    run.lr_scale *= PLATEAU_FACTOR[schedule]
    if schedule == "budget":
        back_to_best(run)


def back_to_best(run: Run) -> None:
    """Go on from the best weights, where there are any yet."""
    if run.best is not None:
        # All but the direct denoiser, which may not have been trained yet when they were the best.
        direct = {name: value for name, value in run.network.state_dict().items() if name.startswith("direct.")}
        run.network.load_state_dict(run.best | direct)
        for name, value in (run.best | direct).items():
            run.average[name].copy_(value)


def nothing_left(run: Run) -> bool:
    """Have the plateaus used up the learning rate?"""
    train = run.settings.train
    if train.schedule == "plateau":
        return run.waited >= PLATEAUS_IN_A_ROW * train.patience
    return run.lr_scale < SMALLEST_SCALE


def without_direct(run: Run) -> bool:
    """Does `finish` leave out the direct denoiser, which had too little time to learn?"""
    asked, begins = isinstance(run.network, COSDD) and run.settings.model.direct, run.settings.model.direct_from
    return asked and progress(run) < begins + DIRECT_ENOUGH * (1 - begins)


def passes_asked(run: Run) -> bool:
    """Does `finish` measure how often the last step is to be repeated? Not of a run that is to go on later."""
    return isinstance(run.network, COSDD) and run.network.measured is not None and ended(run)


def changed(settings: config.Config, **model: object) -> config.Config:
    """Settings with other values for the model."""
    return settings.model_copy(update={"model": settings.model.model_copy(update=model)})


def finish(run: Run) -> Checkpoint:
    """The best weights seen, ready to denoise. Also after an interruption, once a step was made."""
    if run.best is None or (run.step and run.history[-1]["step"] != run.step):
        validate(run, alone=True)
    if run.best is None:
        raise InputError(f"no loss was finite in {run.step} steps: try --set train.lr={run.settings.train.lr / 10:g}")
    settings, best = run.settings, dict(run.best)
    if isinstance(run.network, COSDD) and run.network.measured is None:
        settings = changed(settings, refine=False)
    # The best elbo may be older than the direct denoiser; and that may hardly have been trained.
    direct = {name: value for name, value in run.average.items() if name.startswith("direct.")}
    if without_direct(run):
        settings = changed(settings, direct=False)
        best = {name: value for name, value in best.items() if name not in direct}
    else:
        best |= direct
    network = build(settings)
    network.load_state_dict({name: value.cpu() for name, value in best.items()})
    network.eval()
    spread, passes = (), USUAL
    if isinstance(network, BlindRow):
        network.brightness.copy_(calibration.brightness(network, run.frames))
        spread = calibration.spread(network, run.frames)
    elif passes_asked(run):
        passes = calibration.passes(network, run.frames, settings.train.precision)
    return Checkpoint(
        settings=settings,
        statistics=run.frames.statistics,
        network=network,
        spread=spread,
        passes=passes,
        history=tuple(run.history),
        steps=run.step,
        seconds=run.seconds,
    )
