"""Several processes that train one model, on one machine or on many, started by torchrun or SLURM.

Each takes its part of every batch; Fabric averages the gradients. All of them make the same decisions (when the
budget is used, whether a validation gained), because the first one's clock and figures are everybody's.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from cosdd.errors import InputError

Part = TypeVar("Part", np.ndarray, list)


def count() -> int:
    """How many train together; 1 where nobody started several."""
    return _stated("WORLD_SIZE", "SLURM_NTASKS", 1)


def rank() -> int:
    """Which of them this is; the one with rank 0 speaks and writes."""
    return _stated("RANK", "SLURM_PROCID", 0) if count() > 1 else 0


def local_count() -> int:
    """How many of them are on this machine."""
    nodes = _stated("", "SLURM_STEP_NUM_NODES", 1)
    return _stated("LOCAL_WORLD_SIZE", "SLURM_NTASKS_PER_NODE", count() // nodes)


def _stated(torchrun: str, slurm: str, otherwise: int) -> int:
    # A shell in a SLURM allocation has its variables too, but no step: only srun starts several processes.
    names = [torchrun] if torchrun in os.environ or "SLURM_STEP_ID" not in os.environ else [slurm]
    values = [os.environ[name] for name in names if os.environ.get(name, "").isdecimal()]
    return int(values[0]) if values else otherwise


def part(crops: Part) -> Part:
    """What this process takes of a batch, or of the places of its crops.

    Raises InputError where it cannot be shared out evenly.
    """
    if len(crops) % count():
        raise InputError(
            f"train.batch is {len(crops)}, which {count()} processes cannot share evenly: "
            f"use --set train.batch={-(-len(crops) // count()) * count()}"
        )
    size = len(crops) // count()
    return crops[rank() * size : (rank() + 1) * size]


def agreed(values: Sequence[float], device: torch.device) -> list[float]:
    """These numbers of the first process, in every process."""
    if count() == 1:
        return list(values)
    kind = torch.float32 if device.type == "mps" else torch.float64
    tensor = torch.tensor(values, dtype=kind, device=device)
    torch.distributed.broadcast(tensor, 0)
    return tensor.tolist()


SETTLING = 0.2  # seconds


class Asked(KeyboardInterrupt):
    """Training was asked to end, and did so between two updates."""


_heard: list[int] = []  # signals that ask for an end


@contextmanager
def patient() -> Iterator[None]:
    """Where several train together, Ctrl-C and SIGTERM stop none of them at once: the others would wait for it, and
    the first one's model would be lost. They end after the same update, see `told_to_end`. torchrun passes such a
    signal on to all of them, a second time where the terminal did already, and kills whoever is still there later.
    """
    with nullcontext() if count() == 1 else _hearing(lambda number, _: _heard.append(number)):
        yield


@contextmanager
def between_updates() -> Iterator[None]:
    """One process alone: the first Ctrl-C or SIGTERM ends training when the update that is under way is done, so that
    a snapshot can be taken; the second one ends it at once.
    """

    def hear(number: int, _: object) -> None:
        if _heard:
            raise KeyboardInterrupt
        _heard.append(number)

    elsewhere = count() > 1 or threading.current_thread() is not threading.main_thread()
    with nullcontext() if elsewhere else _hearing(hear):
        yield


@contextmanager
def _hearing(hear: Callable[[int, object], None]) -> Iterator[None]:
    """Ctrl-C and SIGTERM go to this for as long as the body runs; what was heard is then forgotten."""
    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        _heard.clear()
        for number, handler in before.items():
            signal.signal(number, handler)


def told_to_end() -> bool:
    """Was there such a signal? The first process decides for all, through `agreed`."""
    return bool(_heard)


def leave() -> None:
    """Part from the others when all have come to the end: who leaves a group open may crash while Python ends."""
    if count() > 1 and torch.distributed.is_initialized():
        torch.distributed.barrier()
        # Threads of the group may still hold what they need Python's lock to let go of. Whoever takes the group down
        # has that lock and waits for them: for good, once in twenty runs on a busy machine.
        time.sleep(SETTLING)
        torch.distributed.destroy_process_group()


def part_of_noise() -> Callable[[int, torch.Size, torch.device], Tensor]:
    """Latent noise as if one process had drawn it for the whole batch: draw(level, shape, device)."""

    def draw(level: int, shape: torch.Size, device: torch.device) -> Tensor:
        first, whole = rank() * shape[0], torch.Size([count() * shape[0], *shape[1:]])
        return torch.randn(whole, device=device)[first : first + shape[0]]

    return draw
