"""docs/benchmarks.md from ``results/table.json`` and ``table_long.json``: first who beats us, then the tables."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.paper import figures
from benchmarks.record import read
from benchmarks.table.methods import METHODS
from benchmarks.table.run import PICTURES, SHOWN, slug
from benchmarks.table.scores import (
    HIGHER,
    LOWER,
    NOTHING_MORE,
    OURS,
    Row,
    Score,
    comparable,
    gathered,
    method_of,
    number,
    sees,
    shown,
)
from benchmarks.table.sets import EDGE, SETS
from benchmarks.table.verdict import NOBODY, coverage, part, verdict

CONTROLS = (
    "auto --plain",
    "row Wiener",
    "row-split Noise2Noise",
    "row-split Noise2Noise refined",
    "row-masked network",
    "row-masked network refined",
    "cosdd",
    "cosdd direct",
    "cosdd MMSE-100",
)
COLUMNS = 4  # of pictures
DOTS = "distances.svg"
SAYS_DOTS = (
    f"Every estimate that sees {NOTHING_MORE}, once for each set with known noise; to the left is worse. Our default, "
    "in black, is at 0, and to its left without its last step. Hollow: farther than the picture reaches."
)
SECTIONS = (  # score, what it is, which way is better, digits
    ("psnr", "Noise that is known: PSNR (dB, range 1)", HIGHER, 2),
    ("ssim", "The same: structural similarity", HIGHER, 3),
    ("mse", "Real frames, fitted by a line each: mean squared error against the mean of the others", LOWER, 3),
    ("mse_in_place", "The same, the others moved into place", LOWER, 3),
    ("streaks", "Real frames without a reference: variance of row-to-row differences of 16-pixel segments", 0, 3),
    ("residual_x1", "The same: correlation of what was removed with the next pixel of the row", 0, 2),
    ("residual_y1", "The same: with the next pixel of the column, 0 where no structure was removed", 0, 2),
)


def lines(entry: Mapping[str, Any]) -> list[str]:
    """The tables of docs/benchmarks.md."""
    return _tables(entry, _given_longer(), PICTURES, "images/table")


def write(name: str, folder: Path) -> Path:
    """The same of rows and pictures in another folder, beside them."""
    entry = read(name, folder)
    path = folder / f"{name}.md"
    told = _tables(entry, [], folder if name == "table" else None, ".") if entry else []  # pictures are of that one
    path.write_text("\n".join(told) + "\n", encoding="utf-8")
    return path


def _tables(entry: Mapping[str, Any], remark: Sequence[str], pictures: Path | None, link: str) -> list[str]:
    rows = comparable(entry["results"]["rows"])
    by = method_of(rows)
    found = [*verdict(rows, by), *part("", coverage(rows)), *remark, ""]
    if pictures and OURS in gathered(rows, "psnr"):
        picture(rows, pictures / DOTS)
        found += [f"![Distance of each estimate to auto, set by set]({link}/{DOTS})", "", SAYS_DOTS, ""]
    found += [*conditions(entry, rows), "", *controls(gathered(rows, "psnr"))]
    for score, says, better, digits in SECTIONS:
        scores = gathered(rows, score)
        if scores:
            found += [f"### {says}", "", *table(scores, by, better, digits), ""]
        if score == "mse" and scores:
            found += [*_of_the_reference(rows), ""]
        if score == "mse" and any("clean" in METHODS[by[estimate]].needs for estimate in scores):
            found += ["What was shown as clean images here is the mean of the other frames: the reference itself.", ""]
    found += ["### What it took", "", "Medians over sets, and over the machines above.", "", *costs(rows), ""]
    failures = [row for row in rows if row["status"] != "done" and not row["status"].startswith("not applicable")]
    if failures:
        found += ["### What did not run to the end", "", *_told(failures), ""]
    return found + (gallery(rows, pictures, link) if pictures else [])


def longer(entry: Mapping[str, Any]) -> list[str]:
    """The sets that were measured again with more time."""
    rows = comparable(entry["results"]["rows"])
    by = method_of(rows)
    found = [f"### {_title_of_longer(rows)}", "", *verdict(rows, by), *part("", coverage(rows)), ""]
    return [*found, *conditions(entry, rows), "", *table(gathered(rows, "psnr"), by, HIGHER, 2), ""]


def _given_longer() -> list[str]:
    """Who beats our default with more time, for the top of the page."""
    entry = read("table_long")
    if not entry:
        return []
    rows = comparable(entry["results"]["rows"])
    told = [line for line in verdict(rows, method_of(rows)) if line.startswith("- **")]
    anchor = re.sub("[^a-z0-9]+", "-", _title_of_longer(rows).lower()).strip("-")
    if told:
        return ["", f"With more time, [below](#{anchor}):", "", *told]
    sets = sum(row["method"] == OURS for row in rows)
    said = f"With more time, [below](#{anchor}), {NOBODY} on the {sets} sets that were measured"
    return ["", f"{said}; which others were, stands there."]


def _title_of_longer(rows: Sequence[Row]) -> str:
    minutes = max(row["protocol"].get("budget", 0) for row in rows) / 60
    return f"With {minutes:g} minutes each: PSNR (dB, range 1)"


GROUPS = {  # of methods that see noisy images alone, for the picture
    "our default": ("auto",),
    "after the paper (ours)": ("cosdd",),
    "controls": ("row Wiener", "row-split Noise2Noise", "row-masked network"),
}
OTHERS = "filters and networks of others"
LEAST = -10.0  # dB


def picture(rows: Sequence[Row], path: Path) -> None:
    """Each estimate as a dot: its distance to our default, set by set."""
    psnr, by = gathered(rows, "psnr"), method_of(rows)
    found = []
    for name in (name for name in SETS if name in psnr.get(OURS, {})):
        values: dict[str, list[float]] = {group: [] for group in (*GROUPS, OTHERS)}
        for estimate, by_set in psnr.items():
            method = by[estimate]
            if name in by_set and sees(method) == NOTHING_MORE and method != "noisy":
                group = next((group for group, methods in GROUPS.items() if method in methods), OTHERS)
                values[group].append(by_set[name].middle - psnr[OURS][name].middle)
        found.append((name, values))
    most = max(value for _, values in found for of in values.values() for value in of)
    figures.dots(path, found, (LEAST, max(0.5, 1.1 * most)), "PSNR less that of auto, dB")


def controls(psnr: Mapping[str, Mapping[str, Score]]) -> list[str]:
    """How far what is simpler than `auto`, or follows the paper, is from it."""
    names = [name for name in SETS if name in psnr.get(OURS, {})]
    found = []
    for estimate in CONTROLS:
        by_set = psnr.get(estimate, {})
        cells = [f"{by_set[n].middle - psnr[OURS][n].middle:+.2f}" if n in by_set else "" for n in names]
        if any(cells):
            found.append(f"| {shown(estimate)} | {' | '.join(cells)} |")
    if not found:
        return []
    head = [f"| PSNR less that of `auto`, dB | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    return ["### Controls, and the paper's model, against `auto`", "", *head, *found, ""]


def conditions(entry: Mapping[str, Any], rows: Sequence[Row]) -> list[str]:
    """Where and how it was measured, however narrow that is; of the methods that learn, which of them elsewhere."""
    trained: dict[tuple[Any, ...], dict[str, list[str]]] = {}  # methods by set, for each budget and machine
    for row in rows:
        t = row["protocol"]
        if row["status"] == "done" and "budget" in t:
            terms = tuple(t[name] for name in ("budget", "clock", "cores", "cpu", "amx_bfloat16", "gpu"))
            trained.setdefault(terms, {}).setdefault(row["set"], []).append(row["method"])
    most = max(trained, key=lambda terms: sum(map(len, trained[terms].values())), default=None)
    told = [f"- {_time_on(*most)}{': all but what follows' if len(trained) > 1 else ''}."] if most else []
    for terms, by_set in trained.items():
        if terms == most:
            continue
        alike: dict[tuple[str, ...], list[str]] = {}
        for name, methods in by_set.items():
            alike.setdefault(tuple(dict.fromkeys(methods)), []).append(name)
        which = [f"{', '.join(methods)} on {', '.join(names)}" for methods, names in alike.items()]
        told.append(f"- {_time_on(*terms)}: {'; '.join(which)}.")
    tested = sorted({row["protocol"]["tested"] for row in rows})
    counts = Counter((row["method"], row["set"]) for row in rows).values()  # of seeds
    ends = " to ".join(map(str, dict.fromkeys((min(counts), max(counts)))))
    seeds = f"{ends} seed{'s' if max(counts) > 1 else ''}"
    return [
        f"`{entry['command']}`, in several calls that named methods and sets, the last of them {entry['date']} (each "
        f"row of the file of results says its own terms, newer ones also their commit). {seeds} each, "
        f"{' or '.join(map(str, tested))} test images of each set ({EDGE} pixels wide where simulated; all frames of "
        f"two-photon, aurora and STEM recordings). Bold: the best of those that see {NOTHING_MORE}. An empty cell was "
        "not measured. Methods that learn were trained for:",
        "",
        *told,
        "",
        "Where there is AMX bfloat16, ours and the controls use it.",
    ]


def _time_on(budget: float, clock: str, cores: int, cpu: str, amx: bool, gpu: str | None) -> str:
    kind = {"wall": "wall-clock", "processor": "processor time (others were using the machine, too)"}[clock]
    machine = f"{cpu}{' with AMX bfloat16' if amx else ''}{f', {gpu}' if gpu else ''}"
    return f"{budget:g} s of {kind} on {cores} core{'s' if cores > 1 else ''} of {machine}"


def table(scores: Mapping[str, Mapping[str, Score]], by: Mapping[str, str], better: int, digits: int) -> list[str]:
    """One row per estimate, one column per set."""
    names = [name for name in SETS if any(name in by_set for by_set in scores.values())]
    best = {}
    for name in names if better else ():
        fair = [e for e, by_set in scores.items() if name in by_set and sees(by[e]) == NOTHING_MORE]
        if fair:
            best[name] = max(fair, key=lambda estimate: better * scores[estimate][name].middle)
    found = [f"| method | sees more than {NOTHING_MORE} | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    for estimate, by_set in scores.items():
        cells = [by_set[name].text(digits) if name in by_set else "" for name in names]
        cells = [f"**{cell}**" if best.get(name) == estimate else cell for name, cell in zip(names, cells, strict=True)]
        told = sees(by[estimate])
        found.append(f"| {shown(estimate)} | {'' if told == NOTHING_MORE else told} | {' | '.join(cells)} |")
    return found


def costs(rows: Sequence[Row]) -> list[str]:
    """Medians over sets and seeds."""
    found = ["| method | what it is | updates | training | denoising | memory | made with |", "|---" * 7 + "|"]
    for name, method in METHODS.items():
        done = [row for row in rows if row["method"] == name and row["status"] == "done"]
        if not done:
            continue
        steps = f"{median(row['steps'] for row in done):,.0f}" if method.learns else ""
        training = _seconds(median(row["training_seconds"] for row in done))
        estimates = dict.fromkeys(e for row in done for e in row["denoising_seconds"])
        times = [[row["denoising_seconds"][e] for row in done if e in row["denoising_seconds"]] for e in estimates]
        denoising = [_seconds(median(of_one)) for of_one in times]
        memory = median(row["peak_memory_gb"]["process"] for row in done)
        versions = done[-1]["versions"]
        tools = [tool for tool in ("careamics", "scikit-image", "PyWavelets", "bm3d", "torch") if tool in versions]
        made = ", ".join(f"{tool} {versions[tool]}" for tool in tools) or f"numpy {versions['numpy']}"
        found.append(
            f"| {name} | {method.says} | {steps} | {training} | {' and '.join(denoising)} | {memory:.1f} GB | {made} |"
        )
    return found


def _told(failures: Sequence[Row]) -> list[str]:
    """One line for each method and outcome."""
    sets: dict[tuple[str, str], list[str]] = {}
    for row in failures:
        sets.setdefault((row["method"], row["status"]), []).append(row["set"])
    return [f"- {method}: {status} ({', '.join(dict.fromkeys(names))})" for (method, status), names in sets.items()]


def gallery(rows: Sequence[Row], pictures: Path, link: str) -> list[str]:
    """The pictures that the run left, clean first, with the updates that a method had made."""
    captions = {"clean": "clean"}
    for row in rows:
        if row["set"] == SHOWN and row["seed"] == 0:  # as the pictures
            after = f", {row['steps']:,} updates" if row.get("steps") else ""
            captions |= {e: f"{e}: {v['psnr']:.1f} dB{after}" for e, v in row.get("scores", {}).items()}
    there = [name for name in captions if (pictures / f"{slug(name)}.png").exists()]
    if not there:
        return []
    found = [f"### What it looks like: {SHOWN}", "", "| " * COLUMNS + "|", "|---" * COLUMNS + "|"]
    for first in range(0, len(there), COLUMNS):
        names = there[first : first + COLUMNS]
        cells = [f"![{name}]({link}/{slug(name)}.png)<br>{captions[name]}" for name in names]
        found.append("| " + " | ".join(cells + [""] * (COLUMNS - len(cells))) + " |")
    return [*found, ""]


def _of_the_reference(rows: Sequence[Row]) -> list[str]:
    own = gathered(rows, "mse_of_the_reference").get(OURS, {})
    told = " and ".join(f"{number(score.middle, 3)} on {name}" for name, score in own.items())
    return [f"The noise of that mean is a part of these errors: about {told}."] if told else []


def _seconds(value: float) -> str:
    return "under 0.1 s" if value < 0.1 else f"{value:.1f} s" if value < 10 else f"{value:,.0f} s"
