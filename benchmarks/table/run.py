"""The frame: every method on every set in a process of its own, every outcome a row of a file in ``results``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import record
from benchmarks.table import task as files
from benchmarks.table.methods import METHODS, NEEDS, Method
from benchmarks.table.sets import SETS, Set, check
from cosdd import progress, report, writing
from cosdd.errors import InputError

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "benchmarks" / "environments"
ENVIRONMENTS = Path(os.environ.get("COSDD_ENVIRONMENTS", ROOT / ".environments"))
SHOWN, SHOWN_EDGE = "specimen-heavy", 96  # our own picture, so that it may be shown
PICTURES = ROOT / "docs" / "images" / "table"

Row = dict[str, Any]


@dataclass(frozen=True)
class Protocol:
    """budget: seconds of training. clock: see ``Task``. tested: test images. limit: seconds until a method is ended.
    checkout: folder of the authors' code, where there is one. results: name of the file of rows; pictures are those
    of "table". again: also what is there already, as after a change of the code. folder: of the file and the pictures,
    where they are not to take the place of the project's own.
    """

    budget: float
    clock: str = "wall"
    tested: int = 40
    limit: float = 3600.0
    checkout: str = ""
    results: str = "table"
    again: bool = False
    folder: Path | None = None


def run(methods: Sequence[str], sets: Sequence[str], seeds: int, protocol: Protocol, command: str) -> None:
    """Run what is missing; every row is written as soon as it is there."""
    for kind, names, known in (("method", methods, METHODS), ("set", sets, SETS)):
        for name in names:
            if name not in known:
                raise InputError(f"{kind} {name!r} is unknown: choose from {', '.join(known)}")
    check(sets)
    if protocol.folder:
        writing.refuse_unwritable(protocol.folder / f"{protocol.results}.json")
    if protocol.clock == "processor" and os.environ.get("OMP_NUM_THREADS") != "1":
        raise InputError("--clock processor counts every thread: set OMP_NUM_THREADS=1")
    # Of other machines too: each row says its own.
    rows: list[Row] = record.results(protocol.results, protocol.folder).get("rows", [])
    asked = [(seed, name, method) for seed in range(seeds) for name in sets for method in methods]
    due = [key for key in asked if protocol.again or not _is_there(rows, key, protocol)]
    print(f"{len(due)} of {len(asked)} rows to measure", flush=True)
    images: Set | None = None
    made_from, began, left = None, time.monotonic(), [METHODS[method].learns for _, _, method in due]
    for number, (seed, set_name, name) in enumerate(due):
        if made_from != (seed, set_name):
            images, made_from = SETS[set_name](seed, protocol.tested), (seed, set_name)
        assert images is not None
        key = {"set": set_name, "method": name, "seed": seed}
        row = key | {"protocol": stated(METHODS[name], protocol), "commit": record.commit()}
        row |= attempt(METHODS[name], images, seed, protocol)
        # The others take next to no time beside those that learn.
        to_come = (time.monotonic() - began) * sum(left[number + 1 :]) / max(1, sum(left[: number + 1]))
        place = f"{number + 1} of {len(due)}, about {progress.clock(to_come)} left:"
        print(place, set_name, name, seed, row["status"], row.get("scores", ""), flush=True)
        old = next((row for row in rows if key.items() <= row.items()), None)
        if old and old["status"] == "done" and row["status"] != "done":
            continue  # what was measured under other terms is worth more than a failure
        rows = [other for other in rows if other is not old] + [row]
        rows.sort(key=_order)
        record.write(protocol.results, command, {"rows": rows}, protocol.folder)


def _order(row: Row) -> tuple[int, int]:
    """Of what is unknown here last, as of methods that someone took out again."""
    places = ((list(SETS), row["set"]), (list(METHODS), row["method"]))
    sets, methods = (known.index(name) if name in known else len(known) for known, name in places)
    return sets, methods


def _is_there(rows: Sequence[Row], key: tuple[int, str, str], protocol: Protocol) -> bool:
    seed, name, method = key
    wanted = {"set": name, "method": method, "seed": seed, "status": "done"}
    wanted |= {"protocol": stated(METHODS[method], protocol)}
    return any(wanted.items() <= row.items() for row in rows)


def stated(method: Method, protocol: Protocol) -> dict[str, Any]:
    """What a row's figures depend on: those of methods without learning know no budget and no machine."""
    terms: dict[str, Any] = {"tested": protocol.tested}
    if method.learns:
        machine = record.machine()
        terms |= {"budget": protocol.budget, "clock": protocol.clock, "cores": cores()}
        terms |= {name: machine[name] for name in ("cpu", "amx_bfloat16", "gpu")}
    return terms


def cores() -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, int(os.environ.get("OMP_NUM_THREADS", usable)))


def attempt(method: Method, images: Set, seed: int, protocol: Protocol) -> Row:
    """One row without its key: what came of it, also where nothing did."""
    given = {"clean": images.clean, "second": images.second, "truth": images.truth}
    given = {need: array for need, array in given.items() if array is not None and need in method.needs}
    lacking = [NEEDS[need] for need in method.needs if need not in given]
    if lacking:
        return {"status": f"not applicable: needs {' and '.join(lacking)}"}
    if method.checkout and not protocol.checkout:
        return {"status": "not there: give --checkout, a folder of github.com/krulllab/COSDD"}
    python = interpreter(method.environment)
    if python is None:
        advice = f"python -m benchmarks environment {method.environment}"
        return {"status": f"not installed: {advice}"}
    with tempfile.TemporaryDirectory() as temporary:
        source, target = Path(temporary) / "in", Path(temporary) / "out"
        source.mkdir()
        target.mkdir()
        words = {"call": method.call, "budget": protocol.budget, "clock": protocol.clock, "seed": seed}
        words |= {"checkout": protocol.checkout} if method.checkout else {}
        files.write(source, words | {"extent": images.extent}, train=images.train, test=images.test, **given)
        failure = worked(python, source, target, protocol.limit)
        if failure:
            return {"status": failure, "date": today()}
        facts, estimates = files.read(target)
    if "missing" in facts:
        return {"status": f"not installed: no module {facts['missing']}"}
    shown = images.name == SHOWN and seed == 0 and protocol.results == "table"
    others = {name for name, other in METHODS.items() if other is not method}
    if taken := others & set(estimates):
        return {"status": f"failed: estimate {taken.pop()} has the name of another method", "date": today()}
    scores, wrong = {}, [name for name, e in estimates.items() if e.shape != images.test.shape]
    if wrong:
        return {"status": f"failed: estimate {wrong[0]} has shape {estimates[wrong[0]].shape}", "date": today()}
    for name, estimate in estimates.items():
        if not np.isfinite(estimate).all():
            return {"status": f"failed: estimate {name} is not finite", "date": today()}
        scores[name] = {score: rounded(value) for score, value in images.judge(estimate).items()}
        if shown:
            picture(name, estimate[0], protocol.folder or PICTURES)
    if shown and images.truth is not None:
        picture("clean", images.truth[0], protocol.folder or PICTURES)
    return {"status": "done", "date": today(), "scores": scores} | {name: tidy(value) for name, value in facts.items()}


def interpreter(environment: str) -> Path | None:
    """The Python of an environment, where it has been made."""
    if not environment:
        return Path(sys.executable)
    path = ENVIRONMENTS / environment / "bin" / "python"
    return path if path.exists() else None


def make_environment(name: str) -> None:
    """Make an environment of its own for methods whose dependencies clash with ours."""
    requirements = REQUIREMENTS / f"{name}.txt"
    if not requirements.exists():
        known = ", ".join(sorted(path.stem for path in REQUIREMENTS.glob("*.txt")))
        raise InputError(f"environment {name!r} is unknown: choose from {known}")
    folder = ENVIRONMENTS / name
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "-r", requirements], check=True)


def worked(python: Path, source: Path, target: Path, limit: float) -> str:
    """Run the worker; returns what went wrong, or nothing."""
    command = [python, "-m", "benchmarks.table.worker", source, target]
    own = python == Path(sys.executable)
    paths = [str(ROOT), *(path for path in sys.path if path and own)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONWARNINGS": "ignore"}
    process = subprocess.Popen(
        command, cwd=target, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        _, errors = process.communicate(timeout=limit)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)  # also what the method started itself
        process.communicate()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        return f"timed out after {limit:.0f} s"
    if process.returncode == 0 and (target / files.WORDS).exists():
        return ""
    lines = [line for line in errors.strip().splitlines() if line.strip()]
    return f"failed with exit code {process.returncode}: {lines[-1].strip()[:200] if lines else 'it said nothing'}"


def picture(name: str, image: np.ndarray, folder: Path) -> None:
    """A corner of the first image of the set that may be shown."""
    folder.mkdir(parents=True, exist_ok=True)
    corner = image[:SHOWN_EDGE, :SHOWN_EDGE]
    report.side_by_side(folder / f"{slug(name)}.png", [("", corner)], [(0.0, 1.0)], zoom=2)  # the page captions it


def slug(name: str) -> str:
    return name.lower().replace(" ", "-")


def today() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d")


def tidy(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: tidy(one) for name, one in value.items()}
    return rounded(value) if isinstance(value, float) else value


def rounded(value: float) -> float:
    return float(f"{value:.5g}")
