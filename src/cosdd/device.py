"""Which device computes, and in which arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch


def best() -> torch.device:
    """The first GPU, or the CPU. A GPU is told to compute in float32 what is said to be."""
    if torch.cuda.is_available():
        # Convolutions would round to ten bits: grey values, likelihood, wavelets.
        if hasattr(torch.backends.cudnn, "conv"):  # torch 2.9
            torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
        else:
            torch.backends.cudnn.allow_tf32 = False
        return torch.device("cuda", 0)
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def native_bfloat16(device: torch.device) -> bool:
    """Does the device compute bfloat16 convolutions quicker than float32 ones?"""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":  # emulated, and slow, without matrix instructions (performance section 8)
        return bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())
    return False


def in_bfloat16(precision: str, device: torch.device) -> bool:
    """Do the networks run in bfloat16? ``precision`` is a setting: auto, float32 or bfloat16."""
    return precision == "bfloat16" or (precision == "auto" and native_bfloat16(device))


def arithmetic(precision: str, device: torch.device) -> torch.autocast:
    """The context in which the networks run. Likelihood, KL and grey values are float32 in any case."""
    return torch.autocast(device.type, torch.bfloat16, enabled=in_bfloat16(precision, device))


# So many times as long as wide, an image may make bfloat16 convolutions of oneDNN with AMX go wrong: a thousand lines
# of three pixels gave other results each time, or none (torch 2.13).
SLENDER = 32


def sound(precision: str, x: torch.Tensor) -> str:
    """The precision for images x, lines last: float32 where the processor's bfloat16 cannot be trusted."""
    short, long = sorted(x.shape[-2:]) if x.dim() > 3 else (1, 1)
    return "float32" if x.device.type == "cpu" and long > SLENDER * short else precision


# Of the free memory of a processor, and no more than that: others live there too.
SHARE, MOST = {"cpu": 0.3, "cuda": 0.7}, {"cpu": 1.5e9}
UNKNOWN = 4e9  # free memory where the system does not say
sharers = 1  # processes that each take a part of it: `workers` says how many

CGROUP, CGROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")  # the limits that Linux sets to groups of processes


def pixels_at_once(device: torch.device, bytes_per_pixel: int) -> int:
    """How many pixels may go through networks that take so much memory for each."""
    budget = SHARE.get(device.type, 0.3) * free_memory(device) / sharers
    return max(1, int(min(budget, MOST.get(device.type, budget)) / bytes_per_pixel))


def free_memory(device: torch.device) -> float:
    """Bytes."""
    if device.type == "cuda":
        # What torch holds and does not use is free as well.
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(torch.cuda.mem_get_info(device)[0] + unused)
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        free = next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return UNKNOWN
    return min([free, *_left_by_limits()])


def _left_by_limits() -> Iterator[float]:
    """Bytes, for each limit of a container or of a job: that of this process's group, and of the groups around it.

    What files have left in memory counts as used there, and makes room where it is needed.
    """
    kinds = {  # version 2 and 1
        "": (CGROUPS, "memory.max", "memory.current", ""),
        "memory": (CGROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    }
    with suppress(OSError):
        for line in CGROUP.read_text(encoding="utf-8").splitlines():
            _, kind, name = line.split(":", 2)
            if kind not in kinds:
                continue
            root, limit, usage, total = kinds[kind]
            group = root / name.lstrip("/")
            for folder in (group, *group.parents):
                with suppress(OSError, ValueError, KeyError):  # "max" is no limit, and outer groups may be hidden
                    most, used = (int((folder / file).read_text()) for file in (limit, usage))
                    files = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                    cached = int(files[f"{total}inactive_file"]) + int(files[f"{total}active_file"])
                    yield max(0.0, float(most - used + cached))
