"""What a file says of its pixels beside axes and scale: how to show them, how they were taken. Carried, never used.

All of it comes from strangers: what is not as it should be is left out, and nothing is without bounds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

WHITE = "FFFFFF"
_LONGEST_NAME, _LONGEST_NOTES = 256, 2**20  # characters
_NOT_TEXT = re.compile("[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # what XML or terminals forbid
_ESCAPED = re.compile("&+(?=(amp|lt|gt);)")
_COLOUR = re.compile("#?([0-9A-Fa-f]{6})")


@dataclass(frozen=True)
class Channel:
    """One channel, as it is shown and as it was lit.

    lut: 256 levels each of red, green and blue, as in ImageJ; b"" where nothing is said. A colour is a ramp to it.
    window: the grey values shown as darkest and brightest.
    excitation, emission: wavelengths in nanometers.
    """

    lut: bytes = b""
    window: tuple[float, float] | None = None
    excitation: float | None = None
    emission: float | None = None


@dataclass(frozen=True)
class Metadata:
    """What is carried from file to file.

    names: of the images, one for each position. notes: ImageJ's Info, OME's Description.
    mode: how ImageJ shows channels: "composite", "color" or "grayscale".
    planes: when and where each was taken, by (position, t, z, c), under OME's names.
    translation: where the first pixel lies, by axis letter, in the unit of the axis; 0 where it is not named.
    """

    names: tuple[str, ...] = ()
    notes: str = ""
    mode: str = ""
    channels: tuple[Channel, ...] = ()
    planes: Mapping[tuple[int, ...], Mapping[str, Any]] = field(default_factory=dict)
    translation: Mapping[str, float] = field(default_factory=dict)

    def fitting(self, positions: int, channels: int) -> Metadata:
        """Without what is said of other numbers of positions and channels than there are, or says nothing."""
        names = self.names if len(self.names) == positions and any(self.names) else ()
        told = len(self.channels) == channels and any(channel != Channel() for channel in self.channels)
        return replace(self, names=names, channels=self.channels if told else ())

    def without_windows(self) -> Metadata:
        """For pixels that are no grey values of the image, such as their standard deviation."""
        return replace(self, channels=tuple(replace(channel, window=None) for channel in self.channels))

    def inverted(self, white: float) -> Metadata:
        """For pixels ``white`` less those that are spoken of, shown as they were."""

        def one(channel: Channel) -> Channel:
            window = channel.window and (white - channel.window[1], white - channel.window[0])
            levels = np.frombuffer(channel.lut, np.uint8).reshape(3, -1)[:, ::-1].tobytes()
            return replace(channel, lut=levels, window=window)

        return replace(self, channels=tuple(map(one, self.channels)))


def name(said: object) -> str:
    """A line of text without double quotes; "" for what is none."""
    if not isinstance(said, str):
        return ""
    return " ".join(escapable(_NOT_TEXT.sub("", said[:_LONGEST_NAME])).replace('"', "'").split())


def notes(said: object) -> str:
    """A text of any number of lines, cut where it is long beyond use; "" for what is none."""
    return _NOT_TEXT.sub("", said[:_LONGEST_NOTES]).strip() if isinstance(said, str) else ""


def escapable(text: str) -> str:
    """Without what looks escaped. tifffile up to 2026.2.15 writes it as it is, and quotes too: that may be no XML."""
    return _ESCAPED.sub("", text)


def number(said: Any) -> float | None:
    """A finite number, or None."""
    with suppress(TypeError, ValueError, OverflowError):
        return found if math.isfinite(found := float(said)) else None
    return None


def window(low: object, high: object) -> tuple[float, float] | None:
    """Two numbers, the second larger, or None."""
    darkest, brightest = number(low), number(high)
    return (darkest, brightest) if darkest is not None and brightest is not None and darkest < brightest else None


def ramp(colour: object) -> bytes:
    """The LUT that rises from black to a colour such as "FF8000"; b"" for what is none."""
    if not (isinstance(colour, str) and (found := _COLOUR.fullmatch(colour))):
        return b""
    brightest = np.frombuffer(bytes.fromhex(found[1]), np.uint8)
    return np.rint(np.outer(brightest, np.arange(256) / 255)).astype(np.uint8).tobytes()


def colour(lut: bytes) -> str:
    """The colour to which a LUT rises from black; "" where it is of another kind, such as fire or inverted."""
    brightest = lut[255::256].hex().upper()
    levels, straight = (np.frombuffer(levels, np.uint8).astype(int) for levels in (lut, ramp(brightest)))
    return brightest if lut and np.abs(levels - straight).max() <= 2 else ""  # programs round differently
