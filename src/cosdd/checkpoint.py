"""The model file: one .safetensors file with weights, settings, statistics and history.

Reading one never runs code from it: the header is JSON, the tensors are plain numbers, and both are checked
against what the settings ask for before anything is allocated.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cosdd import __version__, config, images, tensorfile, writing
from cosdd.data import Statistics
from cosdd.errors import InputError, brief
from cosdd.model import COSDD, USUAL, BlindRow, Passes, build

FORMAT_VERSION = 6  # 4: model.refine; 5: a checksum of the header; 6: brightness
CHECKED = 5  # format since which both checksums are there
OLDEST = 2  # format that is still read
CREDIBLE_PASSES = 100  # of the last step: a file must not ask for any amount of work
LARGEST_STRIDE = 1024  # small images are padded to one pixel of the coarsest level, which must not ask for any memory
FEW_STEPS = 300  # of training: below this no method has learned much
COPYING = 0.5  # of the noise, taken away by a clean sample: the latents hold the rest. Good runs have 0.9 to 1.1
FEW = "only {} steps: barely trained; give it more time, on a machine that is not busy"
COPIES = (
    "the latents copy the noise: a clean sample takes away {:.0%} of it, where the whole of it is right. Look whether "
    "noise axis and images are right, as inspect sees them, or take method blind-row, which cannot copy it"
)
# Tensors that files do not have before a format. Their initial values mean: nothing of the kind.
SINCE = {3: {f"noise.{name}" for name in ("bend", "log_wave", "pitch", "knots", "frequency")}, 6: {"brightness"}}


@dataclass(frozen=True)
class Checkpoint:
    """A trained model: everything that denoising needs and everything worth knowing about how it came to be."""

    settings: config.Config
    statistics: Statistics
    network: COSDD | BlindRow  # in evaluation mode, on the CPU
    history: tuple[Mapping[str, float], ...]  # one entry per validation
    steps: int
    seconds: float
    version: str = __version__
    spread: tuple[float, ...] = ()  # factors that the standard deviations need, one for each channel; none: 1
    passes: Passes = USUAL  # of the last step of a COSDD model

    @property
    def doubts(self) -> list[str]:
        """What speaks against the training, in words."""
        best = max(self.history, key=evidence, default={})
        removed = best.get("removed", 1.0)
        found = [COPIES.format(removed)] if removed < COPYING else []
        return [*found, FEW.format(self.steps)] if self.steps < FEW_STEPS else found


def evidence(validation: Mapping[str, float]) -> float:
    """By which weights are chosen, nats per pixel: the bound, or the likelihood where that is known."""
    found = validation.get("elbo", -validation.get("nll", math.inf))
    return found if math.isfinite(found) else -math.inf


def save(checkpoint: Checkpoint, path: str | Path, overwrite: bool = False) -> None:
    """Write the model file; it appears whole or not at all.

    Raises InputError where it exists already, or has another ending than .safetensors.
    """
    path = Path(path)
    refuse_name(path)
    writing.refuse_existing(path, overwrite)
    header = {
        "settings": checkpoint.settings.model_dump(),
        "statistics": {
            "mean": checkpoint.statistics.mean,
            "std": checkpoint.statistics.std,
            "grey_step": checkpoint.statistics.grey_step,
        },
        "history": [dict(entry) for entry in checkpoint.history],
        "steps": checkpoint.steps,
        "seconds": checkpoint.seconds,
        "version": checkpoint.version,
        "spread": checkpoint.spread,
        "passes": checkpoint.passes,
    }
    metadata = {"format": "cosdd", "format_version": str(FORMAT_VERSION), "cosdd": json.dumps(header)}
    tensorfile.write(path, checkpoint.network.state_dict(), metadata)


def refuse_name(path: Path) -> None:
    """Raise InputError for a model file of another ending than .safetensors."""
    if path.suffix != ".safetensors":
        better = path / "model.safetensors" if path.is_dir() else path.with_suffix(".safetensors")
        raise InputError(f"{path}: a model file ends in .safetensors: name it {better}")


def load(path: str | Path) -> Checkpoint:
    """Read a model file written by ``save``.

    Raises InputError where it is missing, no model of ours, damaged, or of a newer format.
    """
    path = Path(path)
    images.refuse_as_model(path)
    if not path.is_file():
        raise InputError(f"{path}: no such model file: make one with cosdd train IMAGES -o {path}")
    try:
        with tensorfile.opened(path) as file:
            if file.metadata.get("format") != "cosdd":
                raise InputError(f"{path}: not a cosdd model: expected a file written by cosdd train")
            _refuse_other_formats(path, file.metadata)
            if int(file.metadata["format_version"]) >= CHECKED and not set(tensorfile.CHECKSUMS) <= set(file.metadata):
                raise tensorfile.Damaged("its checksums are missing: copy it again")
            try:
                header = json.loads(file.metadata["cosdd"])
                settings = config.Config.model_validate(header["settings"])
                statistics = _statistics(header["statistics"], settings.model.channels)
                history = tuple({str(k): float(v) for k, v in entry.items()} for entry in header["history"])
                steps, seconds, version = int(header["steps"]), float(header["seconds"]), str(header["version"])
                spread = _spread(header.get("spread", ()), settings.model.channels)
                passes = _passes(header.get("passes", USUAL))  # the first models have none
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
                raise InputError(f"{path}: the model's header is damaged ({brief(str(error), 120)})") from None
            with torch.device("meta"):  # shapes only, nothing allocated
                empty = build(settings)
            if isinstance(empty, COSDD) and empty.stride > LARGEST_STRIDE:
                raise InputError(
                    f"{path}: its networks make one pixel of {empty.stride}, expected at most {LARGEST_STRIDE}: "
                    "no model of cosdd train"
                )
            wanted = empty.state_dict()
            version_of_file = int(file.metadata["format_version"])
            later = set().union(*(names for since, names in SINCE.items() if version_of_file < since))
            later -= set(file.entries)
            wanted = {name: value for name, value in wanted.items() if name not in later}
            if set(wanted) != set(file.entries):
                raise InputError(f"{path}: the model's tensors do not fit its settings")
            for name, value in wanted.items():
                entry = file.entries[name]
                if entry.shape != tuple(value.shape):
                    raise InputError(f"{path}: tensor {name} does not have the shape its settings ask for")
                if entry.kind != value.dtype:
                    raise InputError(f"{path}: tensor {name} is {entry.kind}, expected {value.dtype}")
            weights = file.tensors()
    except (tensorfile.Damaged, OSError) as error:
        raise InputError(f"{path}: not a model file, or damaged ({brief(str(error), 120)})") from None
    with torch.random.fork_rng(devices=[]):
        network = build(settings)  # no larger than the file, now that it fits
    network.load_state_dict(weights, assign=True, strict=not later)
    return Checkpoint(settings, statistics, network.eval(), history, steps, seconds, version, spread, passes)


def _refuse_other_formats(path: Path, metadata: Mapping[str, str]) -> None:
    found = metadata.get("format_version", "")
    if not found.isdecimal() or len(found) > 9 or int(found) > FORMAT_VERSION:
        raise InputError(
            f"{path}: model format {brief(found, 20) or 'unknown'}, this cosdd {__version__} reads up to "
            f"{FORMAT_VERSION}: update cosdd (pip install -U cosdd)"
        )
    if int(found) < OLDEST:
        raise InputError(f"{path}: made by an older cosdd, whose networks were built differently: train it again")


def _statistics(values: Mapping[str, Any], channels: int) -> Statistics:
    mean, std = tuple(map(float, values["mean"])), tuple(map(float, values["std"]))
    step = float(values["grey_step"])
    if not (
        len(mean) == len(std) == channels and all(s > 0 for s in std) and all(map(math.isfinite, (*mean, *std, step)))
    ):
        raise ValueError("statistics")
    return Statistics(mean, std, step)


def _spread(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """The first models have none."""
    factors = tuple(map(float, values))
    if len(factors) not in (0, channels) or not all(math.isfinite(factor) and factor > 0 for factor in factors):
        raise ValueError("spread")
    return factors


def _passes(values: Sequence[int]) -> Passes:
    passes = Passes(*values)
    if len(values) != len(passes) or not all(type(each) is int and 0 <= each <= CREDIBLE_PASSES for each in passes):
        raise ValueError("passes")
    return passes
