"""Are images like those that a model was trained on, and what will denoising replace in them?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from cosdd import data, inspection, outliers
from cosdd.data import Statistics
from cosdd.errors import InputError
from cosdd.lazy import Pixels
from cosdd.outliers import Outliers

Light = Literal["green", "yellow", "red", "grey"]  # grey: it could not be said
ENOUGH_PIXELS = 1 << 22  # for a mean and a standard deviation
# Beyond the first limit yellow, beyond the second red: in standard deviations of the training images; as a factor.
OTHER_MEAN, OTHER_SPREAD = (0.5, 3.0), (1.5, 4.0)
NOTHING_ALIKE = 1e4  # standard deviations: beyond, networks of 32-bit floats lose the image in its offset
WORDS: dict[Light, str] = {
    "green": "brightness and contrast are those of the training images",
    "yellow": "brightness or contrast differ from those of the training images: compare with a model of its own",
    "red": "these images are not like the training images: train a model on them",
}


@dataclass(frozen=True)
class Likeness:
    """Of images to those that a model was trained on; the channel counts that differs most.

    shift: of the mean brightness, in standard deviations of the training images. contrast: by which factor the
    standard deviation is larger or smaller. replaced: share of the pixels that stand out from all their neighbours.
    other_axis: what is wrong with the direction of the noise, where it can be told; else "". defects: which pixels
    stand out; None where nobody asked.
    """

    shift: float
    contrast: float
    replaced: float
    other_axis: str = ""
    defects: Outliers | None = field(default=None, repr=False, compare=False)

    @property
    def light(self) -> Light:
        if self.shift <= OTHER_MEAN[0] and self.contrast <= OTHER_SPREAD[0]:
            return "green"
        return "yellow" if self.shift <= OTHER_MEAN[1] and self.contrast <= OTHER_SPREAD[1] else "red"

    @property
    def answer(self) -> str:
        shift, contrast = (f"{n:.2f}" if n < 1000 else f"{n:.4g}" for n in (self.shift, self.contrast))
        figures = f"mean {shift} standard deviations away, contrast {contrast}-fold"
        return f"{WORDS[self.light]} ({figures})"

    @property
    def replacing(self) -> str:
        """What denoising replaces, where that is worth a word; else ""."""
        if self.replaced < outliers.WORTH_A_WORD:
            return ""
        return (
            f"{self.replaced:.3%} {outliers.STAND_OUT} and are replaced: where they are real (stars, single "
            "molecules), train with --set train.outliers=false"
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know before trusting the result."""
        unlike = "" if self.light == "green" else self.answer
        return tuple(filter(None, (unlike, self.other_axis, self.replacing)))


def compare(frames: Pixels, trained_on: Statistics, leave_out: bool) -> Likeness:
    """Of (n, c, *space) frames in grey values; of many, some are looked at. leave_out: outliers, as in training.

    Raises InputError where they have nothing in common.
    """
    defects, replaced = None, 0.0
    if leave_out:
        some = data.pieces([frames], 1 << 20)
        defects = outliers.measure(some)
        replaced = defects.share(some)
    mean, std = data.moments([frames], defects, ENOUGH_PIXELS)
    there, spread = np.asarray(trained_on.mean), np.asarray(trained_on.std)
    shift = float((np.abs(mean - there) / spread).max())
    if shift > NOTHING_ALIKE:
        raise InputError(
            f"grey values {shift:.4g} standard deviations away from those of the training images: the model knows "
            "nothing of such; train a model on these, or subtract what was added to them"
        )
    return Likeness(
        shift=shift,
        contrast=float(np.exp(np.abs(np.log(np.maximum(std, 1e-12) / spread)).max())),
        replaced=replaced,
        defects=defects,
    )


def other_axis(frames: Pixels, noise_axis: str) -> str:
    """What a user should know where the noise of (n, c, *space) frames is correlated along another axis than that."""
    spatial = "ZYX"[-(frames.ndim - 2) :]
    some = data.pieces([frames], 1 << 16)
    if len(spatial) < 2 or min(some[0].shape[1:]) < inspection.SHORTEST:
        return ""
    try:
        seen = inspection.inspect_samples(np.stack(some), spatial)
    except InputError:  # no noise, or not a number
        return ""
    found = seen.axis
    if found in ("none", noise_axis) or not seen.sure:
        return ""
    learned = "white noise" if noise_axis == "none" else f"noise along {noise_axis}"
    return (
        f"the noise here is correlated along {found}, and the model learned {learned}: see what cosdd inspect says; "
        "where axes are in another order than the file says, give them with --axes"
    )
