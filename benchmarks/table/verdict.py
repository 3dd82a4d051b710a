"""Who beats our default, or comes closest; and how far that can be said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.table.methods import METHODS
from benchmarks.table.scores import (
    HIGHER,
    LOWER,
    NOTHING_MORE,
    OURS,
    Row,
    Score,
    gathered,
    method_of,
    number,
    sees,
    shown,
)
from benchmarks.table.sets import SETS

OWN = ("auto", "cosdd")
ALIKE = 0.05  # correlations that differ by so little
FEW = 200  # updates: methods that made fewer have hardly begun
UNDECIDED = 0.1  # dB: seeds of `auto` differ by so much
NOBODY = f"no method of others and no control that sees {NOTHING_MORE} was better than `{OURS}`"
RANKING = {  # by score: its name in a sentence, which way is better, whether it ranks
    "psnr": ("", HIGHER, True),
    "mse": ("", LOWER, True),
    "ssim": (" in structural similarity", HIGHER, False),
    "mse_in_place": (" with frames moved into place", LOWER, False),
}


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
    own = [f"- {shown(r.estimate)} on {r.where}: {r.gap}." for r in found if r.own and r.wins]
    return [
        *fair,
        *part("", _few_updates(rows)),
        *part("", unfair),
        *part("By another score:", winners(leads=False)),
        *part("Of our own, these were better than `auto`:", own),
        *part(
            "Without a reference nothing is ranked. Fewer streaks than by `auto` are left, and no more structure is "
            "taken away, by:",
            _streaks(rows),
        ),
    ]


def part(title: str, found: Sequence[str]) -> list[str]:
    return ["", *([title, ""] if title else []), *found] if found else []


def _gap(value: Score, ours: Score, score: str) -> str:
    if score == "psnr":
        gap = value.middle - ours.middle
        told = f"{gap:+.2f} dB"
        if min(value.seeds, ours.seeds) == 1 and abs(gap) < UNDECIDED:
            return f"{told}, which one seed does not decide"
    else:
        told, than = number(value.middle, 3), number(ours.middle, 3)
        if told == than and min(value.seeds, ours.seeds) == 1:
            return f"{told} both, which one seed does not tell apart"
        told += f" for {than}"
    return told + value.borne_out(ours)


def _streaks(rows: Sequence[Row]) -> list[str]:
    """Who leaves fewer streaks than our default without taking away more structure, which any blur does."""
    streaks, column = gathered(rows, "streaks"), gathered(rows, "residual_y1")

    def told(estimate: str, name: str) -> str:
        left, correlation = streaks[estimate][name].middle, column[estimate][name].middle
        return f"{shown(estimate)} ({number(left, 3)}, {correlation:+.2f})"

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


def coverage(rows: Sequence[Row]) -> list[str]:
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
