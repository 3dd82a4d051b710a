"""docs/benchmarks.md from ``results/table.json`` and ``table_long.json``: first who beats us, then the tables."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.paper import figures
from benchmarks.record import read
from benchmarks.table.methods import METHODS, NEEDS
from benchmarks.table.run import PICTURES, SHOWN, slug
from benchmarks.table.sets import EDGE, SETS

Row = Mapping[str, Any]
OURS = "auto"
OWN = ("auto", "cosdd")
ALIKE = 0.05  # correlations that differ by so little
FEW = 200  # updates: methods that made fewer have hardly begun
UNDECIDED = 0.1  # dB: seeds of `auto` differ by so much
NOTHING_MORE = "noisy images alone"
NOBODY = f"no method of others and no control that sees {NOTHING_MORE} was better than `{OURS}`"
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
HIGHER, LOWER = 1, -1
RANKING = {  # by score: its name in a sentence, which way is better, whether it ranks
    "psnr": ("", HIGHER, True),
    "mse": ("", LOWER, True),
    "ssim": (" in structural similarity", HIGHER, False),
    "mse_in_place": (" with frames moved into place", LOWER, False),
}
SECTIONS = (  # score, what it is, which way is better, digits
    ("psnr", "Noise that is known: PSNR (dB, range 1)", HIGHER, 2),
    ("ssim", "The same: structural similarity", HIGHER, 3),
    ("mse", "Real frames, fitted by a line each: mean squared error against the mean of the others", LOWER, 3),
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
        spread = f" ({_number(self.low, digits)} to {_number(self.high, digits)})" if self.seeds > 1 else ""
        return _number(self.middle, digits) + spread

    def borne_out(self, other: Score) -> str:
        """By how many seeds the difference to another one is, where there are several."""
        seeds = min(self.seeds, other.seeds)
        overlap = self.low <= other.high and other.low <= self.high
        return f" ({seeds} seeds{', which overlap' if overlap else ''})" if seeds > 1 else ""


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
    found = [*verdict(rows, by), *_part("", _coverage(rows)), *remark, ""]
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
    found = [f"### {_title_of_longer(rows)}", "", *verdict(rows, by), *_part("", _coverage(rows)), ""]
    return [*found, *conditions(entry, rows), "", *table(gathered(rows, "psnr"), by, HIGHER, 2), ""]


def comparable(rows: Iterable[Row]) -> list[Row]:
    """In order, what was measured under the terms of our default on a set; of each method the seeds of equal terms.

    The machine may be another one: the page says which.
    """
    ordered = sorted((row for row in rows if row["method"] in METHODS and row["set"] in SETS), key=_order)
    ours = {row["set"]: row["protocol"] for row in reversed(ordered) if row["method"] == OURS}
    alike = [row for row in ordered if all(
        row["protocol"].get(term, value) == value
        for term, value in ours.get(row["set"], {}).items() if term in ("tested", "budget", "clock", "cores")
    )]  # fmt: skip
    first: dict[tuple[str, str], Any] = {}
    return [row for row in alike if first.setdefault((row["method"], row["set"]), row["protocol"]) == row["protocol"]]


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


@dataclass(frozen=True)
class Rival:
    """An estimate that is not our default, on one set, by one score."""

    estimate: str
    sees: str
    own: bool
    leads: bool  # does the score rank?
    wins: bool
    where: str
    gap: str


def rivals(rows: Sequence[Row], by: Mapping[str, str]) -> list[Rival]:
    """Set by set, the best first."""
    found = []
    for name in dict.fromkeys(row["set"] for row in sorted(rows, key=lambda row: list(SETS).index(row["set"]))):
        for score, (words, better, leads) in RANKING.items():
            values = {e: v[name] for e, v in gathered(rows, score).items() if name in v}
            ours = values.pop(OURS, None)
            for estimate in sorted(values, key=lambda e: -better * values[e].middle) if ours else ():
                value, method = values[estimate], by[estimate]
                wins = better * value.middle > better * ours.middle
                if method != "noisy":
                    where, gap = f"{name}{words}", _gap(value, ours, score)
                    found.append(Rival(estimate, sees(method), method in OWN, leads, wins, where, gap))
    return found


def verdict(rows: Sequence[Row], by: Mapping[str, str]) -> list[str]:
    """Who beats our default, first, or who comes closest; then what else may be said against it."""
    if not any(row["method"] == OURS and row["status"] == "done" for row in rows):
        return ["Our default is not measured yet."]
    found = rivals(rows, by)
    others = [rival for rival in found if not rival.own]

    def winners(leads: bool) -> list[str]:
        return [
            f"- **{r.estimate} beats `auto` on {r.where}**: {r.gap}."
            for r in others
            if r.wins and r.leads == leads and r.sees == NOTHING_MORE
        ]

    fair = winners(leads=True)
    measured = len({r.where for r in others if r.leads})
    if not fair and measured:
        closest: dict[str, str] = {}
        for r in others:
            if r.leads and r.sees == NOTHING_MORE:
                closest.setdefault(r.where, f"- {r.where}: {r.estimate}, {r.gap}.")
        fair = [
            f"On {f'all {measured} sets' if measured > 1 else 'the one set'} with a reference, {NOBODY} in the time "
            "given. The closest of them (one seed, where no more are counted):",
            "",
            *closest.values(),
        ]
    unfair = [
        f"- {r.estimate}, which sees {r.sees}, beats `auto` on {r.where}: {r.gap}."
        for r in others
        if r.wins and r.leads and r.sees != NOTHING_MORE
    ]
    own = [f"- {_shown(r.estimate)} on {r.where}: {r.gap}." for r in found if r.own and r.wins]
    return [
        *fair,
        *_part("", _few_updates(rows)),
        *_part("", unfair),
        *_part("By another score:", winners(leads=False)),
        *_part("Of our own, these were better than `auto`:", own),
        *_part(
            "Without a reference nothing is ranked. Fewer streaks than by `auto` are left, and no more structure is "
            "taken away, by:",
            _streaks(rows),
        ),
    ]


def _part(title: str, found: Sequence[str]) -> list[str]:
    return ["", *([title, ""] if title else []), *found] if found else []


def _gap(value: Score, ours: Score, score: str) -> str:
    if score == "psnr":
        gap = value.middle - ours.middle
        told = f"{gap:+.2f} dB"
        if min(value.seeds, ours.seeds) == 1 and abs(gap) < UNDECIDED:
            return f"{told}, which one seed does not decide"
    else:
        told = f"{_number(value.middle, 3)} for {_number(ours.middle, 3)}"
    return told + value.borne_out(ours)


def _streaks(rows: Sequence[Row]) -> list[str]:
    """Who leaves fewer streaks than our default without taking away more structure, which any blur does."""
    streaks, column = gathered(rows, "streaks"), gathered(rows, "residual_y1")

    def told(estimate: str, name: str) -> str:
        left, correlation = streaks[estimate][name].middle, column[estimate][name].middle
        return f"{_shown(estimate)} ({_number(left, 3)}, {correlation:+.2f})"

    found = []
    for name, ours in streaks.get(OURS, {}).items():
        most = abs(column[OURS][name].middle) + ALIKE
        better = [e for e, by_set in streaks.items() if name in by_set and by_set[name].middle < ours.middle]
        better = [e for e in better if abs(column[e][name].middle) <= most]
        if better:
            better.sort(key=lambda e: streaks[e][name].middle)
            found.append(f"- {name}, for {told(OURS, name)}: {', '.join(told(e, name) for e in better)}.")
    return [*found, "", "The second figure is the correlation of what was removed with the next pixel of the column: "
            f"0 where no structure was; within {ALIKE} counts as no more."] if found else []  # fmt: skip


def _coverage(rows: Sequence[Row]) -> list[str]:
    """Which methods that learn were not measured on all of the sets on which our default was ranked."""
    sets: dict[str, set[str]] = {}
    for row in rows:
        if row["status"] == "done" and any(s in RANKING for v in row["scores"].values() for s in v):
            sets.setdefault(row["method"], set()).add(row["set"])
    every = sets.get(OURS, set())
    learning = [name for name, method in METHODS.items() if method.learns and name not in OWN]
    counts = {name: len(sets.get(name, set()) & every) for name in learning}
    some = [f"{name} ({count})" for name, count in counts.items() if 0 < count < len(every)]
    never = [name for name, count in counts.items() if not count]
    told = [f"Not measured on all of these sets, which are {len(every)}: {', '.join(some)}."] if some else []
    told += [f"Not at all: {', '.join(never)}."] if never else []
    return [" ".join(told)] if told else []


def _few_updates(rows: Sequence[Row]) -> list[str]:
    """Of whom the table says little, because it had little time."""
    steps: dict[str, list[int]] = {}
    for row in rows:
        if row["status"] == "done" and row.get("steps") is not None and row["method"] not in OWN:
            steps.setdefault(row["method"], []).append(row["steps"])
    few = {method: median(made) for method, made in steps.items() if median(made) < FEW}
    if not few:
        return []
    psnr = gathered(rows, "psnr")
    noisy = psnr.get("noisy", {})

    def told(method: str) -> str:
        # Some make several estimates, of which the best counts.
        made = [psnr[e] for e, by in method_of(rows).items() if by == method and e in psnr]
        sets = [name for name in noisy if any(name in by_set for by_set in made)]
        worse = [n for n in sets if all(by_set[n].middle < noisy[n].middle for by_set in made if n in by_set)]
        where = f", worse than the noisy images on {len(worse)} of {len(sets)} sets" if worse else ""
        return f"{method} ({few[method]:,.0f}{where})"

    return [f"**This does not tell how good others would be after the hours on a GPU that they were made for.** They "
            f"had hardly begun (updates, median): {'; '.join(map(told, few))}."]  # fmt: skip


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
            found.append(f"| {_shown(estimate)} | {' | '.join(cells)} |")
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
    told = " and ".join(f"{_number(score.middle, 3)} on {name}" for name, score in own.items())
    return [f"The noise of that mean is a part of these errors: about {told}."] if told else []


def _number(value: float, digits: int) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.{digits}f}"


def _seconds(value: float) -> str:
    return "under 0.1 s" if value < 0.1 else f"{value:.1f} s" if value < 10 else f"{value:,.0f} s"


def _order(row: Row) -> tuple[int, int, int]:
    return list(METHODS).index(row["method"]), list(SETS).index(row["set"]), row["seed"]


def _shown(estimate: str) -> str:
    return f"`{estimate}`" if estimate == OURS or estimate.startswith("cosdd") else estimate
