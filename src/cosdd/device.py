"""Which device computes, and in which arithmetic."""

from __future__ import annotations

import torch


def best() -> torch.device:
    """The first GPU, or the CPU."""
    if torch.cuda.is_available():
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
