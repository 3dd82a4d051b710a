"""What a method gets and what it gives, on disk: arrays as .npz, words and numbers as JSON.

Needs numpy alone, because methods in environments of their own read it too.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Filter = Callable[[np.ndarray], np.ndarray]  # noisy images (n, y, x) -> denoised ones
ARRAYS, WORDS = "arrays.npz", "words.json"


@dataclass(frozen=True)
class Task:
    """Noisy images (n, y, x), float32, turned so that the noise runs along x; and what only some methods may see.

    extent: how many pixels away along x noise is still correlated; 0 for white noise, None for the whole row.
    clean: of the training images. second: other noisy images of the same scenes. truth: clean test images, only for
    the filters that are marked as oracles.
    """

    train: np.ndarray
    test: np.ndarray
    budget: float  # seconds of training
    clock: str  # "wall", or "processor": seconds that this process computed, whatever else the machine does
    seed: int
    extent: int | None
    clean: np.ndarray | None = None
    second: np.ndarray | None = None
    truth: np.ndarray | None = None
    checkout: str = ""  # a folder of the authors' code

    def start(self) -> Callable[[], float]:
        """Start the clock; what it returns tells the share of the budget that is used."""
        now = now_of(self.clock)
        began = now()
        return lambda: (now() - began) / self.budget


@dataclass(frozen=True)
class Fitted:
    """A method that has learned: its estimates by name, updates made, and settings worth knowing."""

    estimates: Mapping[str, Filter]
    steps: int | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def now_of(clock: str) -> Callable[[], float]:
    return {"wall": time.perf_counter, "processor": time.process_time}[clock]


def write(folder: Path, words: Mapping[str, Any], **arrays: np.ndarray) -> None:
    """The words last: where they are, the arrays are whole."""
    np.savez(folder / ARRAYS, **arrays)  # type: ignore[arg-type]
    (folder / WORDS).write_text(json.dumps(words), encoding="utf-8")


def read(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    with np.load(folder / ARRAYS, allow_pickle=False) as arrays:
        return json.loads((folder / WORDS).read_text(encoding="utf-8")), dict(arrays)
