"""Scores of estimates, from rows of ``results/table.json``: gathered, made comparable, and said in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.table.methods import METHODS, NEEDS
from benchmarks.table.sets import SETS

Row = Mapping[str, Any]
OURS = "auto"
NOTHING_MORE = "noisy images alone"
HIGHER, LOWER = 1, -1


@dataclass(frozen=True)
class Score:
    """Of one estimate on one set: median over seeds, lowest, highest."""

    middle: float
    low: float
    high: float
    seeds: int

    def text(self, digits: int) -> str:
        spread = f" ({number(self.low, digits)} to {number(self.high, digits)})" if self.seeds > 1 else ""
        return number(self.middle, digits) + spread

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


def comparable(rows: Iterable[Row]) -> list[Row]:
    """In order, what was measured under the terms of our default on a set; of each method the seeds of equal terms.

    The machine may be another one: the page says which.
    """
    ordered = sorted((row for row in rows if row["method"] in METHODS and row["set"] in SETS), key=order)
    ours = {row["set"]: row["protocol"] for row in reversed(ordered) if row["method"] == OURS}
    alike = [row for row in ordered if all(
        row["protocol"].get(term, value) == value
        for term, value in ours.get(row["set"], {}).items() if term in ("tested", "budget", "clock", "cores")
    )]  # fmt: skip
    first: dict[tuple[str, str], Any] = {}
    return [row for row in alike if first.setdefault((row["method"], row["set"]), row["protocol"]) == row["protocol"]]


def number(value: float, digits: int) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.{digits}f}"


def shown(estimate: str) -> str:
    return f"`{estimate}`" if estimate == OURS or estimate.startswith("cosdd") else estimate


def order(row: Row) -> tuple[int, int, int]:
    return list(METHODS).index(row["method"]), list(SETS).index(row["set"]), row["seed"]
