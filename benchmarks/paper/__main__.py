"""The paper's experiments, each with one command.

python -m benchmarks.paper latents     the signal decoder against the mean of many noisy images (supplement, Figure 1)
python -m benchmarks.paper samples     PSNR of the mean of 1, 10, 100 samples (supplement, Table 1)
python -m benchmarks.paper noise       generated noise against the true noise
python -m benchmarks.paper controls    the wrong axis must fail, white noise must work

--quick (as it is) for two processor cores, --full for a GPU. Each prints its table, writes
benchmarks/results/paper_NAME.json, and its figures to docs/images/paper; `python -m benchmarks.pages` then writes
docs/how-it-works.md. Models are kept in --models and used again, also by the other commands; remove that folder to
train anew. `--sets` and `--methods` measure some of the rows again and keep the others.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

from cosdd.errors import InputError

NAMES = ("latents", "samples", "noise", "controls")
MODELS = Path(".cache") / "paper"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.paper", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiment", choices=NAMES)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="for two processor cores (default)")
    size.add_argument("--full", action="store_true", help="for a GPU")
    parser.add_argument("--steps", type=int, help="updates of each cosdd model instead of those of the size")
    parser.add_argument("--methods", help="of blind-row and cosdd, after a comma; default: all that the experiment has")
    parser.add_argument("--sets", help="names after commas; default: all")
    parser.add_argument("--models", type=Path, default=MODELS, help=f"folder of the models (default: {MODELS})")
    parser.add_argument("--data", help="folder of the images (default: COSDD_DATA)")
    asked = parser.parse_args()
    if asked.data:
        os.environ["COSDD_DATA"] = asked.data  # read when the sets are imported
    try:
        print("\n".join(go(asked)))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def go(asked: argparse.Namespace) -> list[str]:
    """Measure, draw, write; returns the table."""
    from benchmarks import record
    from benchmarks.paper import models, page

    module = page.EXPERIMENTS[asked.experiment]
    size = models.FULL if asked.full else models.QUICK
    if asked.steps:
        size = replace(size, steps={**size.steps, "cosdd": asked.steps})
    sets, methods = chosen(asked.sets, module.NAMES, "set"), chosen(asked.methods, module.METHODS, "method")
    name = f"paper_{asked.experiment}" + ("_full" if asked.full else "")
    # Always in one order, whichever rows are new.
    found = record.earlier(name) | module.run(size, sets, methods, asked.models)
    places = [f"{of} {by}" for of in module.NAMES for by in module.METHODS]
    results = {place: found[place] for place in places if place in found}
    module.summarise(results)
    steps = f" --steps {asked.steps}" if asked.steps else ""
    record.write(name, f"python -m benchmarks.paper {asked.experiment} --{size.name}{steps}", results)
    return module.table(results)


def chosen(asked: str | None, known: tuple[str, ...], what: str) -> list[str]:
    """Names after commas, in the order that is known; all where none are given."""
    names = asked.split(",") if asked else list(known)
    for name in names:
        if name not in known:
            raise InputError(f"{what} {name!r} is unknown: choose from {', '.join(known)}")
    return [name for name in known if name in names]


if __name__ == "__main__":
    main()
