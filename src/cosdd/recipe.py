"""How a result was made: from which model and which input, with which settings. It travels with the result.

A finished file says it in its metadata (the tag Software of a TIFF, an attribute of an OME-Zarr, a line behind the
pixels of an npy), so that ``--resume`` can tell a finished result from one that was made otherwise.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosdd import __version__, images
from cosdd.errors import InputError, refusal

PIECES, PIECE = 64, 4096  # bytes of a file that stand for it
WITHOUT_EFFECT = ("tile", "save_samples")  # on the pixels of a result
Value = str | int | float | bool | None


@dataclass(frozen=True)
class Recipe:
    """What decides the pixels of a result, by name."""

    values: Mapping[str, Value]

    @property
    def text(self) -> str:
        """One line for the metadata of a file."""
        return f"cosdd {__version__} {json.dumps(dict(self.values), sort_keys=True)}"

    @property
    def digest(self) -> str:
        """A name for work that is under way: that of another version is not continued."""
        return hashlib.blake2b(self.text.encode(), digest_size=6).hexdigest()

    def difference(self, made: Recipe) -> str | None:
        """What is asked for now and was not when ``made`` was: "samples = 100, now it is 50"; None where all is equal.

        ``model`` and ``input`` are fingerprints, which say nothing to people.
        """
        for name in sorted({*self.values, *made.values}):
            then, now = made.values.get(name), self.values.get(name)
            if then != now:
                other = {"model": "another model", "input": "another input, or one that has changed since"}
                return other.get(name) or f"{name} = {then}, now it is {now}"
        return None


def asked(verb: str, model: str, source: Path | None, axes: str | None, dtype: str, settings: Any) -> Recipe:
    """The recipe of what is asked for now. model: its fingerprint. settings: a dataclass of those of the verb."""
    chosen = {
        name: value if isinstance(value, Value) else str(value)
        for name, value in dataclasses.asdict(settings).items()
        if name not in WITHOUT_EFFECT
    }
    given = {"verb": verb, "model": model, "input": source and fingerprint(source), "axes": axes, "dtype": dtype}
    return Recipe(given | chosen)


def parse(text: str) -> Recipe | None:
    """The recipe in a line of metadata; None where it is none of ours."""
    name, _, rest = text.partition(" ")
    try:
        values = json.loads(rest.partition(" ")[2]) if name == "cosdd" else None
    except (ValueError, RecursionError):
        return None
    return Recipe(values) if isinstance(values, dict) else None


def of(path: Path) -> Recipe | None:
    """What a finished result says of how it was made; None where it says nothing, or cannot be read."""
    try:
        return parse(images.made(path))
    except InputError:
        return None


def fingerprint(path: Path) -> str:
    """A short name for the content of a file, or of the files in a folder: their lengths and pieces of each.

    No more than some hundred kilobytes are read, so that a change of a few pixels in a large unpacked file goes
    unnoticed; one of the length, or of all pixels, does not. Neither the name nor the time of a file counts: a copy
    is the same.
    """
    found = hashlib.blake2b(digest_size=8)
    files = [path]
    if path.is_dir():
        files = sorted(Path(folder) / name for folder, _, names in os.walk(path) for name in names)
    try:
        for file in files:
            found.update(f"{file.relative_to(path)} {file.stat().st_size}\n".encode("utf-8", "replace"))
        for file in files[:: -(-len(files) // PIECES)] if files else []:
            if not file.is_file():
                raise refusal(file, "a pipe or a device", "an image file", "leave it out")  # it would wait
            size = file.stat().st_size
            count = max(1, PIECES // len(files))
            with file.open("rb") as content:
                for number in range(count):
                    content.seek(max(0, (size - PIECE) * number // max(1, count - 1)))
                    found.update(content.read(PIECE))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}): check the name and the rights") from None
    return found.hexdigest()
