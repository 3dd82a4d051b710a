"""Write what is generated into the pages: ``python -m benchmarks.pages``.

What README.md and docs say of measurements, each benchmark tells from its own entry in ``benchmarks/results``: BLOCKS
says which of them stand where. What comes from the code is in `benchmarks.reference`. WRITTEN names every page that is
written so, whole or in part.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import (
    audit,
    blend,
    blindrow,
    checkerboard,
    demo,
    estimators,
    gauntlet,
    gpu_page,
    inference,
    inspection,
    large,
    outliers,
    real,
    reference,
    refining,
    report,
    resume,
    sampling,
    seams,
    sparse,
    spoiled,
    swing,
    training,
)
from benchmarks.paper import page as paper
from benchmarks.record import Entry, read
from benchmarks.table import page as table

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"

# What stands in each block of a page: results by name, and what tells them; those that were not measured are left out.
Block = dict[str, Callable[[Entry], list[str]]]
BLOCKS: dict[str, tuple[Block, ...]] = {
    "README.md": ({"demo": demo.lines, "real": real.lines, "large": large.lines},),
    "docs/benchmarks.md": (
        {
            "table": table.lines,
            "table_long": table.longer,
            "checkerboard": checkerboard.lines,
            "inference": inference.lines,
        },
        {"swing": swing.lines},
    ),
    "docs/blind-row.md": (
        {"blindrow": blindrow.lines, "outliers": outliers.lines},
        {"refining": refining.share_lines},
    ),
    "docs/noise.md": ({"swing": swing.alarm_lines}, {"inspection": inspection.lines}),
    "docs/reliability.md": (
        {
            "gauntlet": gauntlet.images,
            "resume": resume.lines,
            "resume_store": gauntlet.stores,
            "sparse": sparse.lines,
            "spoiled": spoiled.lines,
            "faults": gauntlet.faults,
            "fuzz": gauntlet.fuzz,
            "audit": audit.lines,
        },
    ),
    "docs/report.md": ({"report": report.lines},),
    "docs/samples.md": ({"estimators": estimators.lines, "seams": seams.lines, "blend": blend.lines},),
    "docs/training.md": ({"refining": refining.lines}, {"training": training.lines, "gpu": gpu_page.lines}),
}


def told(block: Block) -> list[str]:
    return [line for name, lines in block.items() if (entry := read(name)) for line in lines(entry)]


def filled(page: str, *blocks: list[str]) -> str:
    """The page with its blocks of results filled in, in their order."""
    text, rest = "", (ROOT / page).read_text(encoding="utf-8")
    for lines in blocks:
        before, _, rest = rest.partition(BEGIN)
        _, _, rest = rest.partition(END)
        text += before + BEGIN + "\n" + "\n".join(lines) + "\n" + END
    return text + rest


def measured(page: str) -> str:
    return filled(page, *map(told, BLOCKS[page]))


def how_it_works() -> str:
    """A block for each experiment of `benchmarks.paper`."""
    blocks = {name: paper.lines(name) for name in paper.EXPERIMENTS}
    blocks["noise"] += told({"sampling": sampling.lines})
    return filled("docs/how-it-works.md", *blocks.values())


# Every page that is written here, whole or in part, by its place in the repository.
WRITTEN: dict[str, Callable[[], str]] = {
    **{page: partial(measured, page) for page in BLOCKS},
    "docs/how-it-works.md": how_it_works,
    "docs/python.md": reference.python,
    "docs/scores.md": lambda: filled("docs/scores.md", reference.recipes()),
    "docs/settings.md": reference.settings,
}


def main() -> None:
    for page, text in WRITTEN.items():
        (ROOT / page).write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
