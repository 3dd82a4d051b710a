"""Pixels with named axes: what is known of an image, whatever file it is in.

What a file says about its axes wins; what it leaves open is asked for, never guessed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cosdd import lazy
from cosdd.errors import refusal
from cosdd.lazy import Lazy, Mapped, Pixels
from cosdd.metadata import Metadata

AXES = "TZCYX"  # ImageJ's order
OTHER_AXES = "PIQRAHEVML"  # positions, unnamed sequences, angles, lifetimes, ...: all of them separate images
UNITS = {  # name in `Image.unit`: (in metres or seconds, symbol in OME)
    "angstrom": (1e-10, "Å"),
    "nanometer": (1e-9, "nm"),
    "micrometer": (1e-6, "µm"),
    "millimeter": (1e-3, "mm"),
    "centimeter": (1e-2, "cm"),
    "millisecond": (1e-3, "ms"),
    "second": (1.0, "s"),
}
_PLACES = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh")
_SPELLINGS = {symbol: name for name, (_, symbol) in UNITS.items()}
_SPELLINGS |= {"um": "micrometer", "micron": "micrometer", "sec": "second", "msec": "millisecond"}


@dataclass(frozen=True, eq=False)
class Image:
    """Pixels and what the file says about them.

    data: in file axis order and file dtype (big-endian if the file is: Fiji writes so); may be a memory map, or
    an array in a file (`Lazy`) that is read where it is indexed.
    axes: one upper-case letter per axis, e.g. "TZCYX"; the channel axis is always "C".
    pixel_size, unit: by axis letter, only where the file has them; T holds the frame interval.
    metadata: what goes from file to file with the pixels: colours, contrast, wavelengths, notes.
    remarks: what of the file is taken otherwise than it says, or not at all; each in a line.
    """

    data: Pixels
    axes: str
    pixel_size: dict[str, float] = field(default_factory=dict)
    unit: dict[str, str] = field(default_factory=dict)
    channel_names: tuple[str, ...] = ()
    path: Path | None = None
    metadata: Metadata = field(default_factory=Metadata)
    remarks: tuple[str, ...] = ()

    def describe(self) -> str:
        """One line: "stack.tif: 20 x 128 x 256 (TYX), uint16, pixel size 0.2 x 0.2 micrometer"."""
        parts = [f"{shape_text(self.data)} ({self.axes})", self.data.dtype.name]
        if space := [a for a in self.axes if a in self.pixel_size and a != "T"]:
            units = dict.fromkeys(self.unit.get(a, "") for a in space)
            sizes = " x ".join(f"{self.pixel_size[a]:g}" for a in space)
            parts.append(f"pixel size {sizes} {' / '.join(units)}".rstrip())
        if "T" in self.pixel_size:
            parts.append(f"one frame every {self.pixel_size['T']:g} {self.unit.get('T', '')}".rstrip())
        if self.channel_names:
            parts.append(f"channel{'s'[: len(self.channel_names) - 1]} {', '.join(self.channel_names)}")
        after = [a for a in self.axes[self.axes.find("X") :] if a not in "CXY"]
        if after and isinstance(self.data, Lazy) and isinstance(self.data.chunks, Mapped):
            order = "".join(after) + "".join(a for a in self.axes if a not in after)
            parts.append(f"each frame lies all over the file, which is slow to read: quicker as {order}")
        return f"{self.path.name if self.path else 'array'}: {', '.join(parts)}"


def array_axes(data: Pixels, given: str | None, path: Path | None, defaults: tuple[str, ...]) -> str:
    """Axes of a bare array: given, or by its number of dimensions where that leaves no doubt."""
    if given is not None:
        return given_axes(given, data, path)
    if not 1 <= data.ndim <= len(defaults) or (data.ndim == 3 and data.shape[-1] <= 4):
        raise refusal(path, f"{shape_text(data)}, axes unclear", "a letter for each", advice(data))
    return defaults[data.ndim - 1]


def fit(axes: str, data: Pixels) -> bool:
    """Are these our letters, each once, and one for each axis of the pixels?"""
    once = len(axes) == len(set(axes)) == data.ndim
    return once and set("YX"[-data.ndim :]) <= set(axes) <= set(AXES + OTHER_AXES)


def given_axes(axes: str, data: Pixels, path: Path | None) -> str:
    """Check the user's axes against the pixels; "S" (colour samples) is "C"."""
    if not isinstance(axes, str):
        raise refusal(path, f"axes {axes!r:.40}", "a letter for each axis in a text", "such as axes='TYX'")
    named = axes.upper().replace("S", "C")
    if not fit(named, data):
        expected = "each axis once: Y, X, and of T, Z, C (colour), P or I (other separate images) what it has"
        raise refusal(path, f"axes {axes} for {shape_text(data)} pixels", expected, advice(data))
    return named


def file_axes(data: Pixels, axes: str, stated: bool, path: Path) -> tuple[Pixels, str]:
    """Put tifffile's axes into our letters, or refuse to guess. `stated`: the file names its axes."""
    unnamed = tuple(i for i, a in enumerate(axes) if a in "QI" and data.shape[i] == 1)
    data = lazy.arrange(data, [i for i in range(data.ndim) if i not in unnamed])
    letters = "".join(a for i, a in enumerate(axes) if i not in unnamed)
    named = letters if "C" in letters else letters.replace("S", "C")
    unknown = sum(a in "QI" for a in named)
    # saved without saying RGB, (64, 64, 3) is read as 64 pages of 64 x 3 ("QYX"); saved without saying grey,
    # 3 or 4 frames are stored by tifffile as the planes of one RGB page ("SYX")
    colour = letters.startswith("S") or (len(letters) == 3 and letters[1:] == "YX" and data.shape[-1] <= 4)
    if unknown > 1 or (colour and not stated) or "S" in named or len(set(named)) < len(named):
        if colour and letters.startswith("S") and len(letters) == 3 and not stated:
            seen = f"{shape_text(data)}, which are {data.shape[0]} colours or as many frames"
            fix = "say which, by --axes CYX for colours or --axes TYX for frames (in Python axes=...)"
            raise refusal(path, seen, "a letter for each axis", fix)
        if unknown > 1:
            places = [place for place, a in zip(_PLACES, named, strict=False) if a in "QI"]
            seen = f"the file does not say what its {' and '.join(places)} axes are"
        else:
            seen = f"axes unclear: {letters}" if stated else "the file does not say what its axes are"
        raise refusal(path, f"{shape_text(data)}, {seen}", "a letter for each", advice(data))
    if unknown and "T" not in named:  # a sequence of pages: time or z, both are samples
        named = named.replace("Q", "T").replace("I", "T")
    return data, named


def ordered(data: Pixels, axes: str, order: str) -> Any:
    """View `data` with its axes in `order`: those it lacks get length 1, those of length 1 may be dropped."""
    return lazy.arrange(data, [axes.find(a) for a in order])


def unit_name(text: object) -> str:
    """One spelling per unit; "" where the file says pixels, or nothing. Unknown units stay as they are."""
    name = str(text or "").strip().replace("\\u00B5", "µ").replace("\u03bc", "µ")  # ImageJ's; Greek mu
    plain = name.lower().replace("metre", "meter").removesuffix("s") if len(name) > 2 else name
    name = _SPELLINGS.get(name) or _SPELLINGS.get(plain) or (plain if plain in UNITS else name)
    return "" if plain in ("pixel", "none", "null") else name


def converted(image: Image, axis: str, unit: str) -> float | None:
    """Pixel size along `axis` in `unit`, or None if the file has none or the units do not compare."""
    have = image.unit.get(axis, "")
    if axis not in image.pixel_size or (have != unit and not {have, unit} <= set(UNITS)):
        return None
    return image.pixel_size[axis] * (1.0 if have == unit else UNITS[have][0] / UNITS[unit][0])


def shape_text(data: Any) -> str:
    return " x ".join(map(str, data.shape)) or "0-D"


def advice(data: Pixels) -> str:
    tail = "YXC" if data.ndim > 2 and data.shape[-1] <= 4 else "YX"[-data.ndim :]
    example = ("TZCPIQRAHEV" if tail != "YXC" else "TZPIQRAHEV")[: max(data.ndim - len(tail), 0)] + tail
    return f"say what they are, e.g. --axes {example} (in Python axes='{example}')"
