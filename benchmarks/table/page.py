"""docs/benchmarks.md from ``results/table.json`` and ``table_long.json``: first who beats us, then the tables."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.record import read
from benchmarks.table.methods import METHODS, NEEDS
from benchmarks.table.run import PICTURES, SHOWN, slug
from benchmarks.table.sets import EDGE, SETS

Row = Mapping[str, Any]
OURS = "auto"
OWN = ("auto", "cosdd")
NOTHING_MORE = "noisy images alone"
CONTROLS = (
    "auto --plain",
    "row Wiener",
    "row-split Noise2Noise",
    "row-masked network",
    "cosdd",
    "cosdd direct",
    "cosdd MMSE-100",
)
COLUMNS = 4  # of pictures
HIGHER, LOWER = 1, -1
SECTIONS = (  # score, what it is, which way is better, digits
    ("psnr", "Noise that is known: PSNR (dB, range 1)", HIGHER, 2),
    ("ssim", "The same: structural similarity", HIGHER, 3),
    ("mse", "Real frames, mean squared error against the mean of the others", LOWER, 3),
    ("mse_in_place", "The same, the others moved into place", LOWER, 3),
    ("streaks", "Real frames without a reference: variance of row-to-row differences of 16-pixel segments", 0, 3),
    ("residual_x1", "The same: correlation of what was removed with the next pixel of the row", 0, 2),
    ("residual_y1", "The same: with the next pixel of the column, 0 where no structure was removed", 0, 2),
)


@dataclass(frozen=True)
class Score:
    """Of one estimate on one set: median over seeds, lowest, highest."""

    middle: float
    low: float
    high: float
    seeds: int

    def text(self, digits: int) -> str:
        spread = f" ({self.low:.{digits}f} to {self.high:.{digits}f})" if self.seeds > 1 else ""
        return f"{self.middle:.{digits}f}{spread}"


def gathered(rows: Iterable[Row], score: str) -> dict[str, dict[str, Score]]:
    """Score by estimate and set, in the order of the rows, for the sets that have such a score."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        for estimate, scores in row.get("scores", {}).items():
            if score in scores:
                found.setdefault(estimate, {}).setdefault(row["set"], []).append(scores[score])
    return {
        estimate: {name: Score(median(v), min(v), max(v), len(v)) for name, v in by_set.items()}
        for estimate, by_set in found.items()
    }


def method_of(rows: Iterable[Row]) -> dict[str, str]:
    """Which method made an estimate."""
    return {estimate: row["method"] for row in rows for estimate in row.get("scores", {})}


def sees(method: str) -> str:
    return " and ".join(NEEDS[need] for need in METHODS[method].needs) or NOTHING_MORE


def lines(entry: Mapping[str, Any]) -> list[str]:
    rows: Sequence[Row] = sorted(entry["results"]["rows"], key=_order)
    by = method_of(rows)
    found = [*verdict(rows, by), *_given_longer(), "", *conditions(entry, rows), "", *controls(gathered(rows, "psnr"))]
    for score, says, better, digits in SECTIONS:
        scores = gathered(rows, score)
        if scores:
            found += [f"### {says}", "", *table(scores, by, better, digits), ""]
        if score == "mse" and any("clean" in METHODS[by[estimate]].needs for estimate in scores):
            found += ["What was shown as clean images here is the mean of the other frames: the reference itself.", ""]
    found += ["### What it took", "", "Medians over sets, and over the machines above.", "", *costs(rows), ""]
    failures = [row for row in rows if row["status"] != "done" and not row["status"].startswith("not applicable")]
    if failures:
        found += ["### What did not run to the end", "", *_told(failures), ""]
    return found + gallery(rows)


def longer(entry: Mapping[str, Any]) -> list[str]:
    """The sets that were measured again with more time."""
    rows: Sequence[Row] = sorted(entry["results"]["rows"], key=_order)
    by = method_of(rows)
    found = [f"### {_title_of_longer(rows)}", "", *verdict(rows, by), ""]
    return [*found, *conditions(entry, rows), "", *table(gathered(rows, "psnr"), by, HIGHER, 2), ""]


def _given_longer() -> list[str]:
    """Who beats our default with more time, for the top of the page."""
    entry = read("table_long")
    rows: Sequence[Row] = entry["results"]["rows"] if entry else []
    winners = [line for line in verdict(rows, method_of(rows)) if line.startswith("- **")]
    if not winners:
        return []
    anchor = re.sub("[^a-z0-9]+", "-", _title_of_longer(rows).lower()).strip("-")
    return ["", f"With more time, [below](#{anchor}):", "", *winners]


def _title_of_longer(rows: Sequence[Row]) -> str:
    minutes = max(row["protocol"].get("budget", 0) for row in rows) / 60
    return f"With {minutes:g} minutes each: PSNR (dB, range 1)"


def verdict(rows: Sequence[Row], by: Mapping[str, str]) -> list[str]:
    """Who beats our default, first; then who comes closest."""
    fair, unfair, closest, measured = [], [], [], []
    for name in dict.fromkeys(row["set"] for row in sorted(rows, key=lambda row: list(SETS).index(row["set"]))):
        for score, better in (("psnr", HIGHER), ("mse", LOWER)):
            values = {e: v[name].middle for e, v in gathered(rows, score).items() if name in v}
            if OURS not in values:
                continue
            others = {e: better * v for e, v in values.items() if by[e] not in (*OWN, "noisy")}
            if others:
                measured.append(name)
            for estimate in sorted(others, key=others.__getitem__, reverse=True):
                gap = _gap(values[estimate], values[OURS], score)
                told = sees(by[estimate])
                wins = others[estimate] > better * values[OURS]
                if wins and told == NOTHING_MORE:
                    fair.append(f"- **{estimate} beats `auto` on {name}**: {gap}.")
                elif wins:
                    unfair.append(f"- {estimate}, which sees {told}, beats `auto` on {name}: {gap}.")
            alone = [e for e in others if sees(by[e]) == NOTHING_MORE]
            if alone:
                best = max(alone, key=others.__getitem__)
                closest.append(f"- {name}: {best}, {_gap(values[best], values[OURS], score)}.")
    if not measured:
        return ["Our default is not measured yet."]
    where = f"all {len(measured)} sets" if len(measured) > 1 else "the one set"
    if not fair:
        fair = [
            f"On {where} with a reference, no method that sees {NOTHING_MORE} was better than `auto` "
            "in the time given. The closest of them, and by how much it is off:",
            "",
            *closest,
        ]
    return [*fair, *(["", *unfair] if unfair else [])]


def controls(psnr: Mapping[str, Mapping[str, Score]]) -> list[str]:
    """How far what is simpler than `auto`, or follows the paper, is from it."""
    found = []
    for estimate in CONTROLS:
        gaps = {
            name: f"{score.middle - psnr[OURS][name].middle:+.2f} dB on {name}"
            for name, score in psnr.get(estimate, {}).items()
            if name in psnr.get(OURS, {})
        }
        if gaps:
            found.append(f"- {_shown(estimate)}: {', '.join(gaps.values())}.")
    return ["### Controls, and the paper's model, against `auto`", "", *found, ""] if found else []


def _gap(value: float, ours: float, score: str) -> str:
    return f"{value - ours:+.2f} dB" if score == "psnr" else f"{value:.4g} for {ours:.4g}"


def conditions(entry: Mapping[str, Any], rows: Sequence[Row]) -> list[str]:
    """Where and how it was measured, however narrow that is; of the methods that learn, which of them on what."""
    trained: dict[tuple[Any, ...], dict[str, list[str]]] = {}  # methods by set, for each budget and machine
    for row in rows:
        t = row["protocol"]
        if row["status"] == "done" and "budget" in t:
            terms = tuple(t[name] for name in ("budget", "clock", "cores", "cpu", "amx_bfloat16", "gpu"))
            trained.setdefault(terms, {}).setdefault(row["set"], []).append(row["method"])
    told = []
    for terms, by_set in trained.items():
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
        f"`{entry['command']}`, last measured {entry['date']}. {seeds} each, "
        f"{' or '.join(map(str, tested))} test images of each simulated set, {EDGE} pixels wide. Bold: the best of "
        f"those that see {NOTHING_MORE}. An empty cell was not measured. Methods that learn were trained for:",
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
        found.append(f"| {_shown(estimate)} | {'' if told == NOTHING_MORE else told} | {' | '.join(cells)} |")
    return found


def costs(rows: Sequence[Row]) -> list[str]:
    """Medians over sets and seeds."""
    found = ["| method | what it is | updates | training | denoising | memory | made with |", "|---" * 7 + "|"]
    for name, method in METHODS.items():
        done = [row for row in rows if row["method"] == name and row["status"] == "done"]
        if not done:
            continue
        steps = f"{median(row['steps'] for row in done):,.0f}" if method.learns else ""
        training = median(row["training_seconds"] for row in done)
        estimates = dict.fromkeys(e for row in done for e in row["denoising_seconds"])
        times = [[row["denoising_seconds"][e] for row in done if e in row["denoising_seconds"]] for e in estimates]
        denoising = [f"{median(of_one):.2g} s" for of_one in times]
        memory = median(row["peak_memory_gb"]["process"] for row in done)
        versions = done[-1]["versions"]
        tools = [tool for tool in ("careamics", "scikit-image", "PyWavelets", "bm3d", "torch") if tool in versions]
        made = ", ".join(f"{tool} {versions[tool]}" for tool in tools) or f"numpy {versions['numpy']}"
        found.append(
            f"| {name} | {method.says} | {steps} | {training:.1f} s | {' and '.join(denoising)} "
            f"| {memory:.1f} GB | {made} |"
        )
    return found


def _told(failures: Sequence[Row]) -> list[str]:
    """One line for each method and outcome."""
    sets: dict[tuple[str, str], list[str]] = {}
    for row in failures:
        sets.setdefault((row["method"], row["status"]), []).append(row["set"])
    return [f"- {method}: {status} ({', '.join(dict.fromkeys(names))})" for (method, status), names in sets.items()]


def gallery(rows: Sequence[Row]) -> list[str]:
    """The pictures that the run left, clean first, with the updates that a method had made."""
    captions = {"clean": "clean"}
    for row in rows:
        if row["set"] == SHOWN and row["seed"] == 0:  # as the pictures
            after = f", {row['steps']:,} updates" if row.get("steps") else ""
            captions |= {e: f"{e}: {v['psnr']:.1f} dB{after}" for e, v in row.get("scores", {}).items()}
    there = [name for name in captions if (PICTURES / f"{slug(name)}.png").exists()]
    if not there:
        return []
    found = [f"### What it looks like: {SHOWN}", "", "| " * COLUMNS + "|", "|---" * COLUMNS + "|"]
    for first in range(0, len(there), COLUMNS):
        names = there[first : first + COLUMNS]
        cells = [f"![{name}](images/table/{slug(name)}.png)<br>{captions[name]}" for name in names]
        found.append("| " + " | ".join(cells + [""] * (COLUMNS - len(cells))) + " |")
    return found


def _order(row: Row) -> tuple[int, int, int]:
    return list(METHODS).index(row["method"]), list(SETS).index(row["set"]), row["seed"]


def _shown(estimate: str) -> str:
    return f"`{estimate}`" if estimate == OURS or estimate.startswith("cosdd") else estimate
