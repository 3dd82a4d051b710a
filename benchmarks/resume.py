"""Can a training run be lost? ``python -m benchmarks.resume [--kills 10 --steps 400]``.

For each method: one run to the end; then the same run killed (SIGKILL) at random moments and resumed, once for each
kill, until it ends. The weights have to be the same, bit for bit.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.record import Entry, circumstances, write
from cosdd import checkpoint, images, simulate
from cosdd.specimen import specimen

SNAPSHOT = 0.5  # seconds


def command(folder: Path, method: str, steps: int) -> list[str]:
    line = [sys.executable, "-m", "cosdd", "train", str(folder / "noisy.tif"), "-o", str(folder / "model.safetensors")]
    line += ["--noise-axis", "x", "--method", method, "--resume", "--set", f"train.steps={steps}"]
    return [*line, "--set", f"train.snapshot={SNAPSHOT}", "--set", "train.crop=32", "--set", "train.batch=2"]


def whole(folder: Path, method: str, steps: int) -> float:
    """Train without a fault; returns the seconds it took."""
    began = time.perf_counter()
    subprocess.run(command(folder, method, steps), check=True, capture_output=True)
    return time.perf_counter() - began


def killed(folder: Path, method: str, steps: int, kills: int, seconds: float, rng: random.Random) -> int:
    """Kill and resume until the run has ended; returns how many of the kills hit a living process."""
    hit = 0
    for _ in range(kills):
        process = subprocess.Popen(command(folder, method, steps), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(rng.uniform(0, seconds))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            hit += 1
    whole(folder, method, steps)
    return hit


def lines(entry: Entry) -> list[str]:
    """What it found, for docs/reliability.md."""
    runs = entry["results"]
    kills, same = sum(run["kills"] for run in runs.values()), all(run["bit_identical"] for run in runs.values())
    left = sum(len(run["left_behind"]) for run in runs.values())
    return [
        f"- Killed trainings: {len(runs)} runs ({', '.join(runs)}), {kills} kills: weights "
        f"{'identical bit for bit' if same else '**not identical**'}, {left} files left behind. "
        f"(`{entry['command']}`; {circumstances(entry)}.)"
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--steps", type=int, default=400)
    asked = parser.parse_args()
    results: dict[str, Any] = {}
    for method in ("blind-row", "cosdd"):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            noisy = simulate.heavy(specimen(12, 64, 0), np.random.default_rng(0))
            images.write(folder / "noisy.tif", noisy, images.from_array(noisy, "TYX"))
            seconds = whole(folder, method, asked.steps)
            expected = checkpoint.load(folder / "model.safetensors").network.state_dict()
            for file in folder.glob("model.*"):
                file.unlink()
            hit = killed(folder, method, asked.steps, asked.kills, seconds * 0.6, random.Random(method))
            found = checkpoint.load(folder / "model.safetensors").network.state_dict()
            same = all(torch.equal(value, found[key]) for key, value in expected.items())
            left = [file.name for file in folder.iterdir() if file.name.startswith(".") or ".run." in file.name]
        results[method] = {"kills": hit, "bit_identical": same, "left_behind": left, "seconds_whole": round(seconds, 1)}
        print(method, results[method], flush=True)
    path = write("resume", f"python -m benchmarks.resume --kills {asked.kills} --steps {asked.steps}", results)
    print(path)


if __name__ == "__main__":
    main()
