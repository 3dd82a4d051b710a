"""``python -m gauntlet.fuzz [--seconds 600]`` (``make fuzz``): spoiled files for every reader of strangers' files.

Guided by coverage where atheris is installed (Linux and macOS), else by chance. A fault is any exception but
InputError, more than ten seconds for a file, or more than two gigabytes; the file that did it is kept.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SLOWEST, LARGEST = 10, 2048  # seconds for a file, MB
NASTY = (b"999999999999", b"-1", b"1e999", b"null", b"[[[[", b"\xff\xff\xff\x7f", b"{", b"*a", b"<!ENTITY")
GUIDED = importlib.util.find_spec("atheris") is not None


def mutated(content: bytes, rng: random.Random) -> bytes:
    """A few random changes: bytes, cuts, repeats, numbers that are too large."""
    spoiled = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        at = rng.randrange(len(spoiled) + 1)
        near = min(at + rng.choice((1, 2, 4, 8, 50)), len(spoiled))
        choice = rng.randrange(5)
        if choice == 0:
            spoiled[at:near] = rng.randbytes(near - at)
        elif choice == 1:
            del spoiled[at:near]
        elif choice == 2:
            spoiled[at:at] = spoiled[at:near] * rng.choice((1, 3, 100))
        elif choice == 3:
            spoiled[at:near] = rng.choice(
                (b"999999999999", b"-1", b"1e999", b"null", b"[[[[", b"\xff\xff\xff\x7f", b"{")
            )
        else:
            other = rng.randrange(len(spoiled) + 1)
            spoiled[at:near] = spoiled[other : other + near - at]
    return bytes(spoiled)


def by_chance(reader: str, seconds: float, kept: Path) -> int:
    """How many spoiled files were read. Raises what a reader raises, the file being in ``kept``."""
    from gauntlet import readers

    read, examples, rng, count = readers.READERS[reader], readers.examples(reader), random.Random(reader), 0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        content, began = mutated(rng.choice(examples), rng), time.perf_counter()
        kept.write_bytes(content)
        read(content)
        assert time.perf_counter() - began < SLOWEST, "too slow"
        count += 1
    kept.unlink(missing_ok=True)
    return count


def guided(reader: str, seconds: int, folder: Path) -> None:
    """Never returns: libFuzzer ends the process, with 0 where it found no fault."""
    import atheris

    with atheris.instrument_imports(include=["cosdd", "yaml", "tifffile", "json", "xml.etree"]):
        from gauntlet import readers
    for index, content in enumerate(readers.examples(reader)):
        (folder / f"example{index}").write_bytes(content)
    limits = [f"-timeout={SLOWEST}", f"-rss_limit_mb={LARGEST}", "-max_len=20000", f"-artifact_prefix={folder}/fault-"]
    atheris.Setup([sys.argv[0], f"-max_total_time={seconds}", *limits, str(folder)], readers.READERS[reader])
    atheris.Fuzz()


def limit_memory() -> None:
    if sys.platform == "linux":
        import resource

        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + LARGEST * 2**20,) * 2)


def run(reader: str, seconds: int) -> dict[str, Any]:
    """Fuzz one reader in a process of its own."""
    folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{reader}-"))
    began = time.perf_counter()
    line = [sys.executable, "-m", "gauntlet.fuzz", "--seconds", str(seconds), "--reader", reader, "--folder", folder]
    done = subprocess.run(list(map(str, line)), capture_output=True, text=True)
    found = re.findall(r"(?:Done |stat::number_of_executed_units: |read )(\d+)", done.stdout + done.stderr)
    faults = [path.name for path in folder.glob("fault-*")]
    if done.returncode or faults:
        print(done.stdout[-1000:], done.stderr[-4000:], f"the files are in {folder}", sep="\n", file=sys.stderr)
    else:
        shutil.rmtree(folder)
    return {
        "seconds": round(time.perf_counter() - began),
        "files": int(found[-1]) if found else 0,
        "guided by coverage": GUIDED,
        "crashes": len([name for name in faults if "timeout" not in name]) or int(done.returncode != 0),
        "hangs": len([name for name in faults if "timeout" in name]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=600, help="for each reader")
    parser.add_argument("--reader", choices=("model", "configuration", "metadata"))
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    if asked.reader:
        if GUIDED:
            guided(asked.reader, asked.seconds, asked.folder)
        limit_memory()
        print("read", by_chance(asked.reader, asked.seconds, asked.folder / "fault-file"))
        return
    results = {}
    for reader in ("model", "configuration", "metadata"):
        results[reader] = run(reader, asked.seconds)
        print(reader, results[reader], flush=True)
    from benchmarks.record import write

    print(write("fuzz", f"python -m gauntlet.fuzz --seconds {asked.seconds}", results))
    sys.exit(any(found["crashes"] or found["hangs"] for found in results.values()))


if __name__ == "__main__":
    main()
