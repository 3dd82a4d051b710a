"""Snapshots of a training run: what it takes to go on after a kill as if nothing had happened.

The batch and the latent noise of a step depend on (seed, step) alone, so weights, optimiser and counters are
enough: on a CPU, a resumed run of a given number of steps ends with the same weights, bit for bit.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cosdd import tensorfile
from cosdd.config import Config
from cosdd.errors import InputError
from cosdd.training import Run, read

FORMAT = "cosdd-run-6"  # a new one whenever what a run needs, or does, is another
COUNTERS = ("step", "seconds", "skipped", "skipped_in_a_row", "best_evidence", "waited", "lr_scale", "history")


def path_for(model: Path) -> Path:
    """The snapshot's place, beside the model file that the run will write."""
    return model.with_suffix(".run.safetensors")


def save(run: Run, path: Path) -> None:
    """Write the state of a run between two updates; it appears whole or not at all."""
    read(run)
    tensors = {f"weights/{name}": value for name, value in run.network.state_dict().items()}
    tensors |= {f"average/{name}": value for name, value in run.average.items()}
    tensors |= {f"best/{name}": value for name, value in (run.best or {}).items()}
    for index, state in run.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{index}/{name}": torch.as_tensor(value) for name, value in state.items()}
    header = {
        "settings": run.settings.model_dump(mode="json"),
        "statistics": dataclasses.asdict(run.frames.statistics),
        "counters": {name: getattr(run, name) for name in COUNTERS},
    }
    tensorfile.write(path, tensors, {"format": FORMAT, "cosdd": json.dumps(header)})


def restore(run: Run, path: Path) -> None:
    """Bring a run that was just started to the state in the snapshot.

    Raises InputError where the snapshot is damaged, or of a run with other settings or other images.
    """
    anew = f"start anew with --overwrite, or remove {path}"
    try:
        with tensorfile.opened(path) as file:
            if (found := file.metadata.get("format", "")) != FORMAT:
                other = "begun by another version of cosdd: go on with that one, or "
                raise InputError(f"{path}: {other if found.startswith('cosdd-run-') else 'no snapshot: '}{anew}")
            header = json.loads(file.metadata["cosdd"])
            _refuse_other_runs(run, header, path, anew)
            tensors = _checked(run, file)
            counters = {name: type(getattr(run, name))(header["counters"][name]) for name in COUNTERS}
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: the snapshot is damaged: {anew}") from None

    groups: dict[str, dict[str, Tensor]] = {"weights": {}, "average": {}, "best": {}, "optimiser": {}}
    for key, value in tensors.items():
        group, _, name = key.partition("/")
        groups[group][name] = value
    run.network.load_state_dict(groups["weights"])
    device = run.fabric.device
    for name, value in groups["average"].items():
        run.average[name].copy_(value)
    run.best = {name: value.to(device) for name, value in groups["best"].items()} or None
    states: dict[int, dict[str, Tensor]] = {}
    for key, value in groups["optimiser"].items():
        index, _, name = key.partition("/")
        states.setdefault(int(index), {})[name] = value
    run.optimiser.load_state_dict(run.optimiser.state_dict() | {"state": states})
    for name, value in counters.items():
        setattr(run, name, value)


def _refuse_other_runs(run: Run, header: dict[str, Any], path: Path, anew: str) -> None:
    then, now = Config.model_validate(header["settings"]).model_dump(), run.settings.model_dump()
    if then != now:
        flat_then, flat_now = _flat(then), _flat(now)
        name = next(name for name in flat_now if flat_then.get(name) != flat_now[name])
        raise InputError(
            f"{path}: was begun with {name} = {flat_then.get(name)}, now it is {flat_now[name]}: "
            f"resume with the settings it was begun with, or {anew}"
        )
    if json.loads(json.dumps(dataclasses.asdict(run.frames.statistics))) != header["statistics"]:
        raise InputError(f"{path}: was begun on other images (mean or spread differ): resume on those, or {anew}")


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    flat = {name: value for name, value in settings.items() if not isinstance(value, dict)}
    sections = {name: section for name, section in settings.items() if isinstance(section, dict)}
    return flat | {f"{name}.{field}": value for name, section in sections.items() for field, value in section.items()}


def _checked(run: Run, file: tensorfile.Contents) -> dict[str, Tensor]:
    """The tensors of the file, once their shapes are known to be those that this run needs."""
    weights = run.network.state_dict()
    parameters = [p for group in run.optimiser.param_groups for p in group["params"]]
    if not {f"{group}/{name}" for group in ("weights", "average") for name in weights} <= set(file.entries):
        raise ValueError("missing tensors")
    for key, entry in file.entries.items():
        group, _, name = key.partition("/")
        if group == "optimiser":
            index, _, name = name.partition("/")
            allowed = ((), tuple(parameters[int(index)].shape))
        else:
            allowed = (tuple(weights[name].shape),)
        if entry.shape not in allowed:
            raise ValueError("a tensor of another shape")
    return file.tensors()
