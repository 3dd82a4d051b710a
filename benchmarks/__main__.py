"""The table that compares methods.

python -m benchmarks run --data DIR --methods all --budget 10m --out DIR     rows that are there are not run again
python -m benchmarks environment careamics                         what the methods of CAREamics need
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from cosdd.config import seconds
from cosdd.errors import InputError


def duration(text: str) -> float:
    """Seconds of "90s", "10m" or "1.5h"."""
    try:
        value = float(seconds(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text}: more than 0 is needed")
    return value


def number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected 1 or more")
    return int(text)


def names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="The table that compares methods.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="run methods on sets, write benchmarks/results")
    run.add_argument("--data", help="folder of the images (default: COSDD_DATA)")
    run.add_argument(
        "--methods", default="all", help="all (the default), or names after commas (a wrong one lists them)"
    )
    run.add_argument("--sets", default="all", help="all (the default), or names after commas")
    run.add_argument("--budget", default="10m", type=duration, help="training time of each method (default: 10m)")
    run.add_argument(
        "--clock", default="wall", choices=["wall", "processor"], help="processor: on busy machines (default: wall)"
    )
    run.add_argument("--seeds", default=1, type=number, help="how many, from 0 (default: 1)")
    run.add_argument("--test-images", default=40, type=number, help="of each simulated set (default: 40)")
    run.add_argument("--limit", default="3h", type=duration, help="a method is ended after so long (default: 3h)")
    run.add_argument("--checkout", default="", help="folder of the authors' code, github.com/krulllab/COSDD")
    run.add_argument(
        "--results", default="table", choices=["table", "table_long"], help="file, one for each budget (default: table)"
    )
    run.add_argument("--out", default="", help="folder for rows, pictures and a page of tables, instead of our own")
    run.add_argument("--again", action="store_true", help="also rows that are there, as after a change of the code")
    environment = verbs.add_parser("environment", help="make the environment of some methods")
    environment.add_argument("name")
    asked = parser.parse_args()
    if getattr(asked, "data", None):
        os.environ["COSDD_DATA"] = asked.data  # read when the sets are imported
    from benchmarks.table import methods, page, sets
    from benchmarks.table import run as table

    try:
        if asked.verb == "environment":
            table.make_environment(asked.name)
            return
        chosen = list(methods.METHODS) if asked.methods == "all" else names(asked.methods)
        images = list(sets.SETS) if asked.sets == "all" else names(asked.sets)
        checkout = os.path.abspath(asked.checkout) if asked.checkout else ""
        protocol = table.Protocol(
            budget=asked.budget,
            clock=asked.clock,
            tested=asked.test_images,
            limit=asked.limit,
            checkout=checkout,
            results=asked.results,
            again=asked.again,
            folder=Path(asked.out) if asked.out else None,
        )
        table.run(chosen, images, asked.seeds, protocol, _command(asked))
        if protocol.folder:
            print(page.write(protocol.results, protocol.folder))
    except InputError as error:
        sys.exit(_fault(error))
    except KeyboardInterrupt:
        print("stopped: rows that are done are kept, and the same command goes on", file=sys.stderr)
        sys.exit(130)


def _command(asked: argparse.Namespace) -> str:
    """What makes all rows of such a table, whichever were missing this time."""
    alone = "OMP_NUM_THREADS=1 " if asked.clock == "processor" else ""
    terms = f"--clock {asked.clock} --budget {asked.budget:g}s --seeds {asked.seeds} --test-images {asked.test_images}"
    return f"{alone}python -m benchmarks run --data FOLDER {terms} --results {asked.results}"


def _fault(error: InputError) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
