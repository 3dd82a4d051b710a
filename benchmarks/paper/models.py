"""How large an experiment is, and the models in it: trained once, kept in a folder, and used by every command."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import cosdd
from benchmarks.record import origin
from cosdd import writing
from cosdd.denoise import Denoiser


@dataclass(frozen=True)
class Size:
    """Quick, for two processor cores, or full, for a GPU.

    presets, settings: of each method. steps: the budget of each in updates, so that a run is repeatable.
    control_steps: the same for each of the `controls`. tested: test images. samples: how many clean images are
    averaged (`samples`). drawn: noisy images of one code (`latents`). draws: noisy versions of a test image (`noise`).
    """

    name: str
    presets: Mapping[str, str]
    settings: Mapping[str, Mapping[str, dict[str, Any]]]
    steps: Mapping[str, int]
    control_steps: Mapping[str, int]
    tested: int
    samples: tuple[int, ...]
    drawn: int
    draws: int


TINY = {"cosdd": "tiny", "blind-row": "tiny"}
# A network with which two cores make a thousand updates in a few minutes.
_SMALL = {
    "levels": 4, "features": 16, "max_features": 32, "latents": 8, "final_latents": 8, "noise_layers": 3,
    "noise_features": 16, "signal_layers": 1, "signal_features": 16, "direct_features": 16,
    "refine": False,  # what the paper has no word of would hide what its model can do
}  # fmt: skip
QUICK = Size(
    "quick", TINY, {"cosdd": {"model": _SMALL, "train": {"crop": 48}}},
    steps={"cosdd": 900, "blind-row": 1000}, control_steps={"cosdd": 900, "blind-row": 100},
    tested=6, samples=(1, 10, 100), drawn=400, draws=8,
)  # fmt: skip
# The paper's for FFHQ (supplement sections 2.1 and 3), and a direct denoiser; the rate falls at plateaus.
_PAPER = {"model": {"components": 10, "direct": True}, "train": {"crop": 128, "batch": 64, "virtual_batches": 16}}
FULL = Size(
    "full", TINY | {"cosdd": "small"}, {"cosdd": _PAPER},
    steps={"cosdd": 80_000, "blind-row": 8000}, control_steps={"cosdd": 20_000, "blind-row": 4000},
    tested=40, samples=(1, 10, 100, 1000), drawn=10_000, draws=32,
)  # fmt: skip


@dataclass(frozen=True)
class Model:
    """A model and what it took: updates, and seconds of the processor (all its threads; not of a GPU)."""

    denoiser: Denoiser
    processor_seconds: float
    commit: str

    @property
    def facts(self) -> dict[str, Any]:
        steps = self.denoiser.checkpoint.steps
        return {"steps": steps, "train_processor_seconds": round(self.processor_seconds), "trained_at": self.commit}


def trained(name: str, noisy: np.ndarray, axis: str, method: str, steps: int, size: Size, folder: Path) -> Model:
    """The model in ``folder`` that was trained alike; else one that is trained on (n, y, x) now and kept there."""
    path = folder / f"{name} {axis} {method} {size.presets[method]} {steps}.safetensors"
    took = path.with_suffix(".json")
    if not (path.exists() and took.exists()):
        began = time.process_time()
        model = cosdd.train(
            noisy, axes="TYX", noise_axis=axis, method=method, preset=size.presets[method], steps=steps,
            settings=dict(size.settings.get(method, {})), quiet=True,
        )  # fmt: skip
        seconds = time.process_time() - began
        folder.mkdir(parents=True, exist_ok=True)
        model.save(path, overwrite=True)
        facts = {"processor_seconds": seconds, "commit": origin("")["commit"]}
        with writing.whole(took) as part:
            part.write_text(json.dumps(facts) + "\n", encoding="utf-8")
        print(f"trained {path.stem}: {seconds:.0f} s of processor time", flush=True)
    facts = json.loads(took.read_text(encoding="utf-8"))
    return Model(cosdd.load(path), facts["processor_seconds"], facts["commit"])
