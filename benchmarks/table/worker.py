"""One method on one task, in a process and perhaps an environment of its own.

``python -m benchmarks.table.worker IN OUT``: folders as ``task.write`` makes them.
"""

from __future__ import annotations

import importlib
import resource
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.table import task as files
from benchmarks.table.task import Fitted, Task

PACKAGES = {"numpy": "numpy", "scipy": "scipy", "skimage": "scikit-image", "pywt": "PyWavelets", "bm3d": "bm3d"}
PACKAGES |= {"torch": "torch", "careamics": "careamics", "cosdd": "cosdd"}


def main() -> None:
    source, target = map(Path, sys.argv[1:3])
    words, arrays = files.read(source)
    module, function = words.pop("call").split(":")
    task = Task(**arrays, **words)
    now = files.now_of(task.clock)
    try:
        began = now()
        fitted: Fitted = getattr(importlib.import_module(module), function)(task)
        training = now() - began
        seconds, images = {}, {}
        for name, denoise in fitted.estimates.items():
            began = now()
            images[name] = np.asarray(denoise(task.test), np.float32)
            seconds[name] = now() - began
    except ModuleNotFoundError as error:
        files.write(target, {"missing": error.name})
        return
    facts = {
        "training_seconds": training,
        "denoising_seconds": seconds,
        "steps": fitted.steps,
        "peak_memory_gb": peak_memory(),
        "versions": {"python": sys.version.split()[0], **versions()},
        "facts": dict(fitted.facts),
    }
    files.write(target, facts, **images)


def peak_memory() -> dict[str, float]:
    """Largest memory of this process, and on the GPU where one was used, in gigabytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    found = {"process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9}
    torch: Any = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        found["gpu"] = torch.cuda.max_memory_allocated() / 1e9
    return found


def versions() -> dict[str, str]:
    """Of the packages that were loaded."""
    found = {}
    for module, package in PACKAGES.items():
        if module in sys.modules:
            try:
                found[package] = version(package)
            except PackageNotFoundError:
                found[package] = "?"
    return found


if __name__ == "__main__":
    main()
