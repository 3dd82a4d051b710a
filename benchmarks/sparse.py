"""A stack larger than memory trains: ``python -m benchmarks.sparse [--gigabytes 20 --time 30s]``.

The file is sparse: it is as long as it says and holds real noise here and there, so that it needs little of the disk;
cosdd cannot know that and reads it as any other. Measured is the largest resident memory of the whole command.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile

from benchmarks.record import Entry, circumstances, write
from cosdd import simulate
from cosdd.specimen import specimen

EDGE = 1024
EVERY = 50  # frames between those with pixels in them


def npy(path: Path, frames: np.ndarray, count: int) -> None:
    """(t, y, x) uint16 of ``count`` frames, most of them zeros that are nowhere on the disk."""
    with path.open("wb") as file:
        shape = (count, *frames.shape[1:])
        np.lib.format.write_array_header_1_0(file, {"descr": "<u2", "fortran_order": False, "shape": shape})
        start = file.tell()
        _pixels(file, frames, count)
        file.truncate(start + count * frames[0].nbytes)


def tiff(path: Path, frames: np.ndarray, count: int) -> None:
    """The same as a BigTIFF."""
    shape = (count, *frames.shape[1:])
    tifffile.imwrite(path, shape=shape, dtype=np.uint16, bigtiff=True, metadata={"axes": "TYX"})
    with tifffile.TiffFile(path) as tif:
        start = tif.series[0].dataoffset
    assert start is not None
    with path.open("rb+") as file:
        file.seek(start)
        _pixels(file, frames, count)


def _pixels(file, frames: np.ndarray, count: int) -> None:
    start, size = file.tell(), frames[0].nbytes
    for index in range(0, count, EVERY):
        file.seek(start + index * size)
        file.write(frames[index // EVERY % len(frames)].tobytes())


def train(path: Path, budget: str) -> dict[str, float]:
    """Train on the file from the command line; what it took."""
    command = [sys.executable, "-m", "cosdd", "train", path, "-o", path.with_suffix(".safetensors")]
    command += ["--noise-axis", "x", "--time", budget, "--axes", "TYX"]
    began = time.perf_counter()
    process = subprocess.Popen(list(map(str, command)))
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0
    return {
        "gigabytes": round(path.stat().st_size / 1e9, 2),
        "on_disk_gb": round(path.stat().st_blocks * 512 / 1e9, 2),
        "peak_memory_gb": round(used.ru_maxrss / 1e6, 2),
        "processor_seconds": round(used.ru_utime + used.ru_stime, 1),
        "seconds": round(time.perf_counter() - began, 1),
    }


def lines(entry: Entry) -> list[str]:
    """What it found, for docs/reliability.md."""
    return [
        f"- Training on a stack of {found['gigabytes']:.0f} GB ({kind}, sparse): "
        f"{found['peak_memory_gb']:.2f} GB of memory at most. (`{entry['command']}`; {circumstances(entry)}.)"
        for kind, found in entry["results"].items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=20)
    parser.add_argument("--time", default="30s")
    parser.add_argument("--formats", nargs="+", default=["npy", "tif"])
    asked = parser.parse_args()
    noisy = simulate.stripe(np.tile(specimen(8, EDGE // 4, 0), (4, 4)), np.random.default_rng(0))
    frames = (1000 + 1000 * noisy).clip(0, 65535).astype(np.uint16)
    count = round(asked.gigabytes * 1e9 / frames[0].nbytes)
    results = {}
    with tempfile.TemporaryDirectory() as name:
        for kind in asked.formats:
            path = Path(name) / f"stack.{kind}"
            {"npy": npy, "tif": tiff}[kind](path, frames, count)
            results[kind] = train(path, asked.time)
            path.unlink()
            print(kind, results[kind], flush=True)
    command = f"python -m benchmarks.sparse --gigabytes {asked.gigabytes:g} --time {asked.time}"
    print(write("sparse", f"{command} --formats {' '.join(asked.formats)}", results))


if __name__ == "__main__":
    main()
