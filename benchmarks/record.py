"""What was measured, with the machine, the versions and the command: one JSON file per benchmark."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
DATA = Path(os.environ.get("COSDD_DATA", Path(__file__).parents[2] / "shared" / "data"))
Entry = dict[str, Any]  # command, date, commit, machine, results


def machine() -> dict[str, Any]:
    """Processor, cores, memory, and the versions that matter."""
    import torch

    model = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    memory = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    amx = any("amx_bf16" in line for line in _lines("/proc/cpuinfo"))
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "amx_bfloat16": amx,
        "memory_gb": round(memory / 1e6, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cosdd": version("cosdd"),
    }


def origin(command: str) -> dict[str, str]:
    """What was run, when, and on which state of the code."""
    return {"command": command, "date": datetime.now(UTC).strftime("%Y-%m-%d"), "commit": commit()}


def commit() -> str:
    """The state of the code."""
    said = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=RESULTS, capture_output=True, text=True)
    return said.stdout.strip()


def write(name: str, command: str, results: Any, folder: Path | None = None) -> Path:
    """Write ``results/<name>.json``, or that file in another folder."""
    folder = folder or RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    entry = origin(command) | {"machine": machine(), "results": results}
    path.write_text(json.dumps(entry, indent=2) + "\n", encoding="utf-8")
    return path


def read(name: str, folder: Path | None = None) -> Entry | None:
    """What ``results/<name>.json`` holds, or that file in another folder; None where it was not measured."""
    path = (folder or RESULTS) / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def results(name: str, folder: Path | None = None) -> dict[str, Any]:
    """What was measured on any machine; nothing where it was not."""
    entry = read(name, folder)
    return entry["results"] if entry else {}


def earlier(name: str) -> dict[str, Any]:
    """Results of an earlier run on the same machine and versions, for a run that measures only some of them again."""
    entry = read(name)
    return entry["results"] if entry and entry.get("machine") == machine() else {}


def circumstances(entry: Entry) -> str:
    """The machine, the version of torch and the date of an entry, in words."""
    m = entry["machine"]
    extra = " with AMX bfloat16" if m["amx_bfloat16"] else ""
    gpu = m["gpu"] or "no GPU"
    cores = f"{m['threads']} of {m['cores']}" if m["threads"] < m["cores"] else m["cores"]
    return f"{cores} cores ({m['cpu']}{extra}), {gpu}, torch {m['torch']}, measured {entry['date']}"


def cosdd(*arguments: str | Path) -> None:
    """Run the real command line in a process of its own; raises where it fails."""
    subprocess.run([sys.executable, "-m", "cosdd", *map(str, arguments)], check=True)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
