"""What the experiments found, as lines of docs/how-it-works.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.paper import controls, figures, latents, noise, samples
from benchmarks.paper.models import FULL
from benchmarks.record import Entry, circumstances, read

EXPERIMENTS = {"latents": latents, "samples": samples, "noise": noise, "controls": controls}
# File, what it shows, and the words under it.
FIGURES: dict[str, list[tuple[str, str, str]]] = {
    "latents": [
        (
            "latents.png",
            "A noisy image, two draws of z, the clean image of each in both ways, and the differences",
            "Above: a noisy image of the specimen, and two draws of z, each by the signal decoder and as the mean of "
            "noisy images (of the means of their pixels' mixtures, which converges sooner). Below: the clean image; "
            "what tells draw 1 from draw 2, by the decoder and by the means; and what tells the decoder from the mean, "
            "these four in the same greys.",
        )
    ],
    "samples": [("samples.svg", "PSNR against the number of samples, and the law", "")],
    "noise": [
        (
            "generated_noise.png",
            "True noise above, generated noise below",
            "True noise above, noise from the blind-row model below, in the same greys: what is added to one image of "
            "the specimen, 64 pixels of it.",
        ),
        ("noise.svg", "Correlation along the rows and standard deviation, true and generated", ""),
    ],
    "controls": [
        (
            f"controls_{method}.png",
            "Streaks and white noise, denoised by models that were told different axes",
            f"Streaks above, white noise below; models of method {method}, told the axis that is written there.",
        )
        for method in controls.METHODS
    ],
}


def found(name: str) -> Entry | None:
    """The full experiment where it was made, else the quick one."""
    return read(f"paper_{name}_full") or read(f"paper_{name}")


def lines(name: str) -> list[str]:
    """Figures, the command, the machine, the table, and what was reached."""
    entry = found(name)
    if entry is None:
        return [f"Not measured yet: `python -m benchmarks.paper {name}`."]
    rows, shown = entry["results"], []
    for file, alt, caption in FIGURES[name]:
        if (figures.IMAGES / file).exists():
            shown += [f"![{alt}](images/paper/{file})", ""] + ([f"*{caption}*", ""] if caption else [])
    own = [row for key, row in rows.items() if key.endswith("cosdd")]
    steps, seconds = ([row[what] for row in own] for what in ("steps", "train_processor_seconds"))
    learned = f" Models of method cosdd: {_range(steps)} updates, {_range(seconds)} s of processor time." if own else ""
    told = f"`{entry['command']}`; {circumstances(entry)}.{learned}"
    return [*shown, told, "", *EXPERIMENTS[name].table(rows), "", verdict(name, rows)]


def _range(values: list[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def verdict(name: str, rows: Mapping[str, Any]) -> str:
    """One sentence on what was to be reached."""
    if name == "latents":
        (run,) = rows.values()
        ratio, reached = run["ratio"]["without_chance"], run["reached"]
        said = "reached" if reached["limit"] else "**not reached**"
        short = (
            f" After {run['steps']:,} updates the two decoders do not yet read z quite alike; more updates, and a "
            f"larger network, should change that (`--full` makes the paper's {FULL.steps['cosdd']:,})."
        )
        return (
            f"Below {latents.LIMIT} was to be reached, and is {said} ({ratio:.2f}); below {latents.AIM} is aimed at"
            f"{', and reached too' if reached['aim'] else ''}. Where the two draws differ, both ways see the same: "
            f"the differences have a correlation of {run['difference_seen_by_both']:.2f}. The noise decoder drew "
            f"{run['noisy_images_drawn']:,} noisy images for each draw.{'' if reached['limit'] else short}"
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
    said = f"**Not as it should be**: {', '.join(wrong)}." if wrong else "These are as they should be."
    left = [f"{of} {by}" for by in controls.METHODS for of in controls.NAMES if f"{of} {by}" not in rows]
    return said + (f" Not measured yet: {', '.join(map(_named, left))}." if left else "")


def _named(key: str) -> str:
    what, method = key.rsplit(" ", 1)
    return f"{what.removeprefix('bsd400-')} ({method})"
