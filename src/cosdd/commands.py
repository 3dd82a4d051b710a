"""What the verbs have in common: options, each file in turn, complaints in one line, exit codes, interrupts."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cosdd import config, errors, progress, writing
from cosdd.errors import InputError
from cosdd.progress import out

if TYPE_CHECKING:
    from cosdd.axes import Image

LESS_MEMORY = (
    "train with a smaller --set train.batch or train.crop, denoise smaller images or single frames, "
    "or use a machine with more memory"
)


def _model(path: Path) -> Path:
    """Refuse images in the model's place before images are said to be missing."""
    from cosdd import images

    images.refuse_as_model(path)
    return path


Model = Annotated[Path, typer.Argument(help="Model file made by cosdd train.", callback=_model)]
Files = Annotated[
    list[str], typer.Argument(help="Images (TIFF, OME-TIFF, OME-Zarr, PNG, npy), folders or glob patterns.")
]
Axes = Annotated[str | None, typer.Option(help="Axes of the files where they do not say, such as TYX, ZYX or CYX.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what exists.")]
Seed = Annotated[int, typer.Option(help="Makes the command repeatable.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.FIELD=VALUE", help="Any setting, such as train.lr=1e-3.")
]
MethodName = Annotated[
    str | None, typer.Option(help="cosdd (the paper's), blind-row (quick, closed form) or auto.", show_default=False)
]
PresetName = Annotated[str | None, typer.Option(help=f"Where settings start from: {', '.join(config.PRESETS)}.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="Settings from a YAML file.")]
BUDGET = "Training time, such as 90s, 10m or 2h."
Budget = Annotated[str | None, typer.Option("--time", help=BUDGET)]
Samples = Annotated[
    str, typer.Option(help="Posterior samples to average: auto (as many as it takes, image by image) or a number.")
]


def how_many(samples: str) -> int | None:
    """The number in --samples; None for auto. Raises InputError."""
    if samples != "auto" and not samples.isdecimal():
        raise InputError(f"--samples {samples}: expected auto, or how many")
    return None if samples == "auto" else int(samples)


def tile_edge(tile: str) -> int | None:
    """The edge in --tile, which is beyond any image for none; None for auto. Raises InputError."""
    if tile not in ("auto", "none") and not tile.isdecimal():
        raise InputError(f"--tile {tile}: expected auto, none, or pixels along the edge of a tile")
    return None if tile == "auto" else sys.maxsize if tile == "none" else int(tile)


def refuse_as_folder(output: Path) -> None:
    """Raise InputError where a file is named for a folder of results."""
    from cosdd import images

    if output.suffix.lower() in images.SUFFIXES and not (output.is_dir() and output.suffix.lower() != ".zarr"):
        raise InputError(
            f"-o {output}: -o is a folder, and each result has the name of its input: "
            f"use -o {str(output.with_suffix('')).removesuffix('.ome')}, and --format for another kind of file"
        )


def tell(image: Image) -> None:
    """What was read, and what of it is not as the file says."""
    out.print(image.describe())
    for remark in image.remarks:
        out.print(f"note: {remark}")


def tell_not_read(files: Sequence[str]) -> None:
    """A line where folders hold more than images."""
    from cosdd import images

    if line := images.not_read(files):
        out.print(line)


def each(paths: Sequence[Path], count: int, job: Callable[[Path], list[str]]) -> int:
    """Do the job for each file, say what it has to say, and go on where one of several fails; returns how many did."""
    failed = 0
    for path in paths:
        try:
            written = job(path)
        except (InputError, MemoryError, RuntimeError) as error:
            if count == 1:
                raise
            failed += 1
            complain(error if isinstance(error, InputError) else out_of_memory(error))
            continue
        for line in written:
            out.print(f"  {line}")
    return failed


def tell_done(done: int, count: int) -> None:
    """Where a run goes on: how many of its files have all their results."""
    out.print(f"{done} of {count} file(s) have their results already" if done else "no file has all its results yet")


def tell_failed(failed: int, count: int) -> None:
    if failed:
        others = "the others are done" if failed < count else "none is done"
        out.print(f"{failed} failed, each for the reason above; {others}")
        raise typer.Exit(2 if failed == count else 1)


def complain(error: InputError) -> None:
    print("cosdd: " + progress.plain(" ".join(str(error).split())), file=sys.stderr)


def out_of_memory(error: Exception) -> InputError:
    """The line for running out of memory. Raises all else."""
    if not errors.of_memory(error):
        raise error
    text = " ".join(str(error).split())
    return InputError(f"out of memory ({text or 'nothing left'}): {LESS_MEMORY}")


@contextmanager
def terminable() -> Iterator[None]:
    """A scheduler's SIGTERM ends a run like Ctrl-C: in order."""
    import signal

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with writing.whole(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, sorted({name for row in rows for name in row}))
        writer.writeheader()
        writer.writerows(rows)


def quoted(name: str) -> str:
    import shlex

    return shlex.quote(name)
