"""Which noise is this? Correlation along each axis, dependence on the signal, and the axis to train with.

From noisy images alone. Noise of this method's kind is independent from line to line, structure is not, so the
estimate looks across the lines at the finest scale, where structure is weakest; it leans on flat regions; it
uses differences of frames where these hold less structure than the frames; and it takes back what also grows
one scale coarser, as structure does and noise does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from cosdd.config import InputError
from cosdd.images import Image

LAGS = 10

_BUDGET = 1 << 21  # pixels looked at: more would not change a verdict, and this takes a second
_WINDOW = 512  # edge of the windows that large frames are sampled with
_BLOCK = 16  # edge of the blocks whose scatter gives the intervals
_SIGMA = 1.5  # pixels; scale at which structure is looked for
_ACROSS = {"x": -2, "y": -1, "z": -1}  # the axis whose lines are compared
_ALONG = {"x": -1, "y": -2, "z": -3}

# Second moments across the lines, at the finest scale and one octave coarser; unit norm, so that noise
# independent from line to line keeps its autocovariance.
_FINE = np.array([1, -4, 6, -4, 1]) / np.sqrt(70)
_COARSE = np.array([1, 0, -2, 0, 1]) / np.sqrt(6)

# What noise correlations look like: next pixel, short, long, alternating, and a pattern of 2 + 2 pixels.
_SHAPES = {
    "next": np.eye(LAGS)[0],
    "short": np.array([1, 1, 1] + [0] * 7) / np.sqrt(3),
    "long": np.ones(LAGS) / np.sqrt(LAGS),
    "alternating": (-1.0) ** np.arange(1, LAGS + 1) / np.sqrt(LAGS),
    "period 4": np.tile([0, -1, 0, 1], 3)[:LAGS] / np.sqrt(5),
}
_STRUCTURE = 0.5  # share of the excess at the coarse scale that may pass as structure at the fine one
_CERTAIN = 4.0  # standard errors; 2 axes x 6 shapes are tried
_MATTERS = 0.02  # correlations below this change nothing for a denoiser


@dataclass(frozen=True)
class Evidence:
    """What the verdict rests on, beside the correlations.

    estimator: "frame differences" or "single frames".
    pixels: number looked at. flat: share of them that carries weight, 0 to 1.
    variance: of the noise at the mean grey level, grey levels squared.
    gain, offset: variance = gain * mean + offset, the photon transfer line; None where it cannot be fitted.
    read_noise: noise standard deviation in the darkest parts.
    saturated: share of pixels at the highest value, if it is a wall; hot: share of isolated bright pixels.
    offset_ratio: per axis, variance of line means over what white noise would give.
    period: per axis, pixels, of a periodic pattern in the noise, where there is one.
    strength: per axis, size of the correlation (root of summed squares along its best shape), with sign.
    significance: per axis, standard errors that are left after structure is allowed for.
    """

    estimator: str
    pixels: int
    flat: float
    variance: float
    gain: float | None
    offset: float | None
    read_noise: float
    saturated: float
    hot: float
    offset_ratio: dict[str, float]
    period: dict[str, float]
    strength: dict[str, float]
    significance: dict[str, float]


@dataclass(frozen=True)
class Inspection:
    """The answer: `axis` to train with ("x", "y", "z", or "none" for white noise) and why.

    autocorrelation: axis letter -> noise autocorrelation at lags 1 .. 10 (fewer where the axis is shorter).
    interval: half-widths of its 95 % intervals. verdict: one sentence.
    """

    axis: str
    autocorrelation: dict[str, list[float]]
    interval: dict[str, list[float]]
    verdict: str
    evidence: Evidence

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, lists and strings; keys as the fields."""
        return asdict(self)

    def lines(self) -> list[str]:
        """What a person reads."""
        e = self.evidence
        rows = [f"verdict: {self.verdict}"]
        for axis, values in self.autocorrelation.items():
            numbers = " ".join(f"{v:+.2f}" for v in values)
            widest = max(self.interval[axis])
            rows.append(f"noise correlation along {axis}, lags 1 to {len(values)}: {numbers} (+- {widest:.2f})")
        for axis, ratio in e.offset_ratio.items():
            rows.append(f"{axis} line means vary {ratio:.1f} x what white noise gives")
        if e.gain is not None and e.offset is not None:
            rows.append(f"signal dependence: variance = {e.gain:.3g} x mean {e.offset:+.3g} grey levels squared")
        else:
            rows.append(f"signal dependence: none seen; variance {e.variance:.3g} grey levels squared")
        for axis, period in e.period.items():
            rows.append(f"periodic pattern along {axis}: every {period:.1f} pixels")
        if e.saturated > 0:
            rows.append(f"saturated: {e.saturated:.2%} of the pixels")
        if e.hot > 0:
            rows.append(f"isolated bright pixels: {e.hot:.3%}")
        rows.append(f"estimated from {e.estimator}, {e.pixels:,} pixels, {e.flat:.0%} of them flat")
        return rows


def inspect_image(image: Image, spatial: str = "YX", seed: int = 0) -> Inspection:
    """Inspect the noise of a file without loading it: windows of some frames are read.

    spatial: "X", "YX" or "ZYX", the axes the model will work on; every other axis but C counts frames.
    Raises InputError if an axis is missing, pixels are not finite, or nothing varies.
    """
    if missing := [a for a in spatial if a not in image.axes]:
        raise InputError(f"axes {image.axes}: expected {spatial}, {' and '.join(missing)} is missing")
    frames = sorted((a for a in image.axes if a not in "C" + spatial), key=lambda a: a == "T")  # T fastest
    order = "".join(frames) + ("C" if "C" in image.axes else "") + spatial
    data = np.transpose(image.data, [image.axes.index(a) for a in order])
    if "C" not in image.axes:
        data = np.expand_dims(data, len(frames))
    return _inspect(data, spatial, seed, has_sequence=bool(frames))


def inspect_samples(samples: np.ndarray, spatial: str = "YX", seed: int = 0, is_sequence: bool = True) -> Inspection:
    """Inspect the noise of samples (n, c, *spatial), any real dtype; may be a memory map.

    is_sequence: neighbouring samples may show one scene (it is tested); False skips the test.
    seed: of the choice of windows where there are too many pixels.
    Raises InputError for a wrong shape, pixels that are not finite, or nothing that varies.
    """
    if spatial not in ("X", "YX", "ZYX") or samples.ndim != len(spatial) + 2:
        raise InputError(f"samples have shape {samples.shape}, expected (n, c, {', '.join(spatial.lower())})")
    return _inspect(samples, spatial, seed, has_sequence=is_sequence)
