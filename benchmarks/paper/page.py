"""What the experiments found, as lines of docs/how-it-works.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from benchmarks.paper import controls, latents, noise, samples
from benchmarks.record import RESULTS

EXPERIMENTS = {"latents": latents, "samples": samples, "noise": noise, "controls": controls}


def found(name: str) -> dict[str, Any] | None:
    """The full experiment where it was made, else the quick one."""
    for path in (RESULTS / f"paper_{name}_full.json", RESULTS / f"paper_{name}.json"):
        if path.exists():
            return json.loads(path.read_text(encoding="utf-8"))
    return None


def lines(name: str, machine: str) -> list[str]:
    """The command, the machine (in words), the table, and what was reached."""
    entry = found(name)
    if entry is None:
        return []
    rows = entry["results"]
    trained = sorted({f"{row['steps']:,}" for key, row in rows.items() if key.endswith("cosdd")})
    seconds = [row["train_processor_seconds"] for key, row in rows.items() if key.endswith("cosdd")]
    learned = f" Models of method cosdd: {' or '.join(trained)} updates, " if trained else ""
    learned += f"{min(seconds):,} to {max(seconds):,} s of processor time each." if trained else ""
    return [f"`{entry['command']}`; {machine}.{learned}", "", *EXPERIMENTS[name].table(rows), "", verdict(name, rows)]


def verdict(name: str, rows: Mapping[str, Any]) -> str:
    """One sentence on what was to be reached."""
    if name == "latents":
        (run,) = rows.values()
        ratio, reached = run["ratio"]["without_chance"], run["reached"]
        said = "reached" if reached["limit"] else "**not reached**"
        return (
            f"Below {latents.LIMIT} was to be reached, and is {said} ({ratio:.2f}); below {latents.AIM} is aimed at"
            f"{', and reached too' if reached['aim'] else ''}. Where the two draws differ, both ways see the same: "
            f"the differences have a correlation of {run['difference_seen_by_both']:.2f}. The noise decoder drew "
            f"{run['noisy_images_drawn']:,} noisy images for each draw."
        )
    if name == "samples":
        worst = max(abs(off) for run in rows.values() for off in run["law_off_db"].values())
        missed = [key.split()[0] for key, run in rows.items() if not run["reached"].get("direct", True)]
        direct = f" **Not** so for {', '.join(missed)}." if missed else " It does."
        return (
            f"The law was to hold within {samples.LAW} dB: it does within {worst:.3f} dB. The direct denoiser should "
            f"lose no more than {samples.DIRECT} dB to the mean of 100 samples.{direct}"
        )
    if name == "noise":
        reached = [key for key, run in rows.items() if run["reached"]["limit"]]
        missed = [key for key in rows if key not in reached]
        short = ", ".join(_named(key) for key in missed)
        return (
            f"Lags within {noise.LAG_LIMIT} and every variance within {100 * noise.VARIANCE_LIMIT:.0f} % were to be "
            f"reached: {len(reached)} of {len(rows)} do" + (f"; **not** {short}." if missed else ".")
        )
    wrong = [_named(key) for key, run in rows.items() if run.get("as_it_should") is False]
    return f"**Not as it should be**: {', '.join(wrong)}." if wrong else "All is as it should be."


def _named(key: str) -> str:
    what, method = key.rsplit(" ", 1)
    return f"{what.removeprefix('bsd400-')} ({method})"
