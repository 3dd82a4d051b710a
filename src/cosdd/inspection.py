"""Which noise is this? Correlation along each axis, dependence on the signal, and the axis to train with.

From noisy images alone: `excerpts` says how much each pixel counts, `correlation` tells noise from structure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from cosdd import lazy, swing
from cosdd.axes import Image
from cosdd.correlation import CERTAIN, Correlation, blocks, correlations
from cosdd.errors import InputError
from cosdd.excerpts import Excerpt, finest, flatness, flattest, upright, windows
from cosdd.lazy import Pixels
from cosdd.swing import Swing

FEW_PIXELS = 40_000  # to learn from
MUCH_CLIPPED = 0.01  # share of the pixels
SHORTEST = 12  # pixels along each edge; in less, noise cannot be told
_BLOCK = (16, 8)  # lines and pixels of as much of an image as may be of one brightness
LINES = {"x": "rows", "y": "columns"}
_LENGTH = {"x": -1, "y": -2, "z": -3}  # place of an axis in (z, y, x)


@dataclass(frozen=True)
class Evidence:
    """What the verdict rests on, beside the correlations. Variances are in grey levels squared."""

    estimator: str  # "frame differences" or "single frames"
    pixels: int  # number looked at
    flat: float  # their mean weight, 0 to 1
    variance: float  # of the noise where it is flat
    gain: float | None  # photon transfer: variance = gain * mean + offset; None where no such line shows
    offset: float | None
    read_noise: float  # standard deviation of the noise in the darkest parts, grey levels
    saturated: float  # share of pixels at the highest value, if that is a wall
    cut_off: float  # share of pixels at the lowest value, if that is a wall and not the darkness between photons
    hot: float  # share of isolated bright pixels
    offset_ratio: dict[str, float]  # per axis: variance of line means over what white noise gives
    period: dict[str, float]  # per axis, pixels: of a periodic pattern in the noise, where there is one
    swing: dict[str, Swing]  # per axis: of the lines along it, in turn, where they swing together
    strength: dict[str, float]  # per axis: correlation along its most telling shape, root sum of squared lags
    significance: dict[str, float]  # per axis: of that correlation, standard errors less doubts


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

    @property
    def sure(self) -> bool:
        """Is the axis beyond doubt? Where it is only plain to see in very few places, it is taken all the same."""
        return self.axis == "none" or self.evidence.significance[self.axis] > CERTAIN

    @property
    def remarks(self) -> dict[str, str]:
        """A sentence for each end of the grey values that cuts off more than a hundredth of the pixels looked at."""
        e, said = self.evidence, {}
        if e.saturated > MUCH_CLIPPED:
            said["saturated"] = (
                f"{e.saturated:.1%} of the pixels are saturated: their noise is cut off, and bright parts will come "
                "out too dark; leave such images out, or record with less light"
            )
        if e.cut_off > MUCH_CLIPPED:
            said["cut_off"] = (
                f"{e.cut_off:.1%} of the pixels have the lowest value, and hardly any the next: if a background was "
                "subtracted and cut off there, noise no longer averages to zero and dark parts will come out too "
                "bright: use the images as they were before. Zeros between single photons do no harm; crop empty "
                "borders"
            )
        return said

    def swing_along(self, axis: str) -> str | None:
        """A sentence about lines along the axis that swing together, where they do."""
        if not (found := self.evidence.swing.get(axis)):
            return None
        lines = LINES[axis]
        return (
            f"{lines} are {found.what} in turn, all along, every {found.period:.1f} {lines}. Where that is no "
            f"structure the scan swings (mains, vibration), and most of it will stay, as other {lines} tell of it: "
            "mend the cause"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, lists and strings; keys as the fields."""
        return asdict(self)

    def lines(self) -> list[str]:
        """What a person reads."""
        e = self.evidence
        rows = [f"verdict: {self.verdict}"]
        for axis, values in self.autocorrelation.items():
            numbers = " ".join(f"{v:+.2f}" for v in values)
            rows.append(
                f"noise correlation along {axis}, lags 1 to {len(values)}: {numbers} "
                f"(+- {max(self.interval[axis]):.2f})"
            )
        ratios = ", ".join(f"{axis} {ratio:.1f}" for axis, ratio in e.offset_ratio.items())
        rows.append(f"variance of line means over that of white noise: {ratios}")
        rows += [
            f"{LINES[a]} swing together: {w.what} every {w.period:.1f} {LINES[a]}, {w.height:.1f} times the usual power"
            for a, w in e.swing.items()
        ]
        rows += [f"periodic pattern in the noise along {a}: every {p:.1f} pixels" for a, p in e.period.items()]
        line = "none seen" if e.gain is None else f"variance = {e.gain:.3g} x mean {e.offset:+.3g}"
        if e.gain is not None and not e.read_noise > 0:
            line = "no straight line fits: the best one has less than no noise where it is darkest"
        rows.append(f"signal dependence: {line}")
        rows.append(f"noise standard deviation: {e.variance**0.5:.3g} on average, {e.read_noise:.3g} where darkest")
        rows.append(
            f"saturated pixels: {e.saturated:.3%}; cut off at the lowest value: {e.cut_off:.3%}; "
            f"isolated bright pixels: {e.hot:.3%}"
        )
        rows.append(f"estimated from {e.estimator}: {e.pixels:,} pixels, {e.flat:.0%} of them flat")
        return rows


def _variance(excerpts: Sequence[Excerpt], axis: str) -> float:
    """Of the noise where it is flat, grey levels squared; row offsets, which only show across the axis, included."""
    parts = []
    for e in excerpts:
        fine = finest(upright(e.noise, axis))
        parts.append(e.variance * float(np.average(fine**2, weights=upright(e.flat, axis)[:, 2:-2])))
    return float(np.mean(parts))


def _photon_transfer(excerpts: Sequence[Excerpt], axis: str) -> tuple[float, float]:
    """Fit variance = gain * mean + offset over blocks; gain 0 and the usual variance where no line shows."""
    means, variances = np.concatenate([_transfer_blocks(e, axis) for e in excerpts], axis=1)
    gain, error, offset = 0.0, 0.0, float(np.median(variances))
    least = 0.02 * float(variances.mean())
    for _ in range(12 if len(means) >= 16 and np.ptp(means) > 1e-6 * np.abs(means).max() and least > 0 else 0):
        model = np.maximum(gain * means + offset, least)
        rest = variances / model - 1
        # Tukey's weights: motion and structure raise the variance of some blocks.
        trust = np.maximum(0, 1 - (rest / (6 * np.median(np.abs(rest)) + 1e-3)) ** 2)
        fit, covariance = np.polyfit(means, variances, 1, w=trust / model, cov=True)
        (gain, offset), error = fit.tolist(), float(np.sqrt(covariance[0, 0]))
    return (gain, offset) if abs(gain) > 4 * error else (0.0, float(np.median(variances)))


def _transfer_blocks(e: Excerpt, axis: str) -> np.ndarray:
    """(2, blocks): weighted mean and noise variance, in grey levels, of the flatter half of the blocks."""
    noise, weight, mean = (upright(v, axis) for v in (e.noise, e.flat, e.mean))
    weight, mean = weight[:, 2:-2], mean[:, 2:-2]
    noise = finest(noise) * weight
    pairs = [(noise, noise), (weight, weight), (weight, weight * mean)]
    squares, total, means = (blocks(a, b, 0, _BLOCK) for a, b in pairs)
    keep = total >= np.median(total)
    return np.stack([means, e.variance * squares])[:, keep] / total[keep]


def _hot(seen: list[np.ndarray], variance: float, gain: float, offset: float) -> float:
    """Share of pixels that are brighter than each neighbour by 8 standard deviations of the noise."""
    around = np.ones((1, 1, 3, 3), bool)
    around[0, 0, 1, 1] = False
    hot = 0
    for w in seen:
        brightest = ndimage.maximum_filter(w, footprint=around)
        hot += int((w - brightest > 8 * np.sqrt(np.maximum(gain * brightest + offset, variance))).sum())
    return hot / sum(w.size for w in seen)


def _walls(seen: list[np.ndarray]) -> tuple[float, float]:
    """Shares of pixels at the highest and at the lowest value, where that is a wall: else 0.

    The highest is one if more pixels have it than the 2 % of the range below. Of photons a dark image has many zeros:
    so the lowest is one only if the next value is rare, and no more common than the one after it.
    """
    values, counts = np.unique(np.concatenate([w.ravel() for w in seen]), return_counts=True)
    if len(values) < 3:
        return 0.0, 0.0
    near = counts[(values < values[-1]) & (values >= values[-1] - 0.02 * (values[-1] - values[0]))].sum()
    saturated = counts[-1] > max(10, near)
    cut_off = counts[0] > max(10, 4 * counts[1]) and counts[1] < 1.5 * counts[2]
    total = counts.sum()
    return float(counts[-1] / total) if saturated else 0.0, float(counts[0] / total) if cut_off else 0.0


def _period(excerpts: Sequence[Excerpt], axis: str) -> float | None:
    """Period, in pixels, of the highest peak in the spectrum of the noise along the axis, if it stands out."""
    length = excerpts[0].noise.shape[_LENGTH[axis]]
    power, lines = np.zeros(length // 2 + 1), 0
    for e in excerpts:
        noise = finest(upright(e.noise, axis)) * upright(e.weight, axis)[:, 2:-2]
        spectrum = np.abs(np.fft.rfft(noise * np.hanning(length), axis=-1)) ** 2
        power += spectrum.sum((0, 1))
        lines += spectrum[..., 0].size
    peak = power / np.maximum(ndimage.median_filter(power, 15, mode="nearest"), 1e-12 * power.max() + 1e-300)
    best = length // 32 + 2 + int(np.argmax(peak[length // 32 + 2 :]))  # longer periods are not told from drift
    return round(length / best, 2) if length >= 32 and peak[best] > 1.5 + 10 / np.sqrt(lines) else None


def _verdict(along: dict[str, Correlation]) -> tuple[str, str]:
    found = {a: c for a, c in along.items() if c.matters()}
    plain = [a for a, c in along.items() if c.is_plain()]
    if not found and len(plain) == 1:
        return plain[0], (
            f"perhaps correlated along {plain[0]} ({along[plain[0]].value[0]:+.2f} at lag 1), but too little is flat "
            f"to be sure: inspect more images; noise axis {plain[0]}, which does no harm where noise is white"
        )
    if not found:
        return "none", "white: cosdd works, N2V would do (no correlation along any axis matters)"
    axis, *others = sorted(found, key=lambda a: -found[a].significance)
    c, line = found[axis], {"x": "row", "y": "column"}.get(axis, "line")
    size = next(word for least, word in ((0.3, "strong"), (0.08, "clear"), (0, "weak")) if abs(c.strength) > least)
    if others and abs(found[others[0]].strength) > 0.5 * abs(c.strength):
        return axis, (
            f"correlated along both axes, {axis} ({size}) and {others[0]}: outside the method, because what is "
            f"correlated along {others[0]} too cannot be told from structure; axis {axis} removes a part"
        )
    if c.is_offset():
        return axis, f"{line} offsets only, along {axis} ({size}): what cosdd removes; noise axis {axis}"
    lag = int(np.argmax(np.abs(c.value)))
    size += f": {c.value[lag]:+.2f} at lag {lag + 1}"
    return axis, f"{line}-correlated along {axis} ({size}): what cosdd removes; noise axis {axis}"


def _inspect(data: Pixels, spatial: str) -> Inspection:
    """data: (*frames, c, *spatial); neighbours along the last axis of `frames` may show one scene."""
    if data.dtype.kind not in "uif" or not data.size:
        raise InputError(f"pixels are {data.shape} of type {data.dtype}, expected integers or floats")
    if spatial == "X":  # no lines to compare but those of other samples: they stand in for y
        data = np.moveaxis(np.asarray(data).reshape(-1, *data.shape[-2:]), 0, 1)
    if min(data.shape[-2:]) < SHORTEST:
        edges = f"{data.shape[-2]} x {data.shape[-1]}"
        what = f"{edges} (lines x pixels)" if spatial == "X" else f"{edges} pixels (YX)"
        raise InputError(f"{what}, expected at least {SHORTEST} x {SHORTEST}: the noise is told from line to line")
    seen = windows(data, max(2, len(spatial)))
    excerpts, estimator = flattest(seen)
    along = correlations(excerpts, [a for a in spatial.lower()[::-1] if data.shape[_LENGTH[a]] >= 4])
    axis, verdict = _verdict(along)
    lines = "x" if axis == "none" else axis
    gain, offset = _photon_transfer(excerpts, lines)
    variance = _variance(excerpts, lines)
    darkest = min(float(np.quantile(e.mean, 0.01)) for e in excerpts)
    saturated, cut_off = _walls(seen)
    evidence = Evidence(
        estimator=estimator,
        pixels=sum(w.size for w in seen),
        flat=flatness(excerpts),
        variance=variance,
        gain=gain or None,
        offset=offset if gain else None,
        read_noise=float(np.sqrt(max(0.0, gain * darkest + offset))),
        saturated=saturated,
        cut_off=cut_off,
        hot=_hot(seen, variance, gain, offset),
        offset_ratio={a: c.ratio for a, c in along.items()},
        period={a: period for a, c in along.items() if (period := _period(excerpts, a) or c.comb())},
        swing={a: found for a in "xy" if len(spatial) > 1 and (found := swing.found([upright(w[0], a) for w in seen]))},
        strength={a: c.strength for a, c in along.items()},
        significance={a: c.significance for a, c in along.items()},
    )
    values = {a: np.round(c.value, 4).tolist() for a, c in along.items()}
    intervals = {a: np.round(c.interval, 4).tolist() for a, c in along.items()}
    return Inspection(axis, values, intervals, verdict, evidence)


def inspect_image(image: Image, spatial: str = "YX") -> Inspection:
    """Inspect the noise of a file without loading it: windows of some frames are read.

    spatial: "X", "YX" or "ZYX", the axes the model will work on; every other axis but C counts frames.
    Raises InputError if an axis is missing, and as `inspect_samples`.
    """
    if missing := [a for a in spatial if a not in image.axes]:
        raise InputError(
            f"{image.path or 'the array'}: axes {image.axes}, expected {spatial}: {' and '.join(missing)} is missing"
        )
    frames = sorted((a for a in image.axes if a not in "C" + spatial), key=lambda a: a == "T")  # T fastest
    order = [*frames, "C", *spatial]
    data = lazy.arrange(image.data, [image.axes.find(a) for a in order])
    try:
        return _inspect(data, spatial)
    except InputError as error:
        raise InputError(f"{image.path or 'the array'}: {error}") from None


def inspect_samples(samples: np.ndarray, spatial: str = "YX") -> Inspection:
    """Inspect the noise of samples (n, c, *spatial), any integer or float type; may be a memory map.

    Neighbouring samples may show one scene: this is tested. Raises InputError for a wrong shape, fewer than 12 lines,
    pixels that are not finite, or no noise at all.
    """
    if spatial not in ("X", "YX", "ZYX") or samples.ndim != len(spatial) + 2:
        raise InputError(f"samples have shape {samples.shape}, expected (n, c, {', '.join(spatial.lower())})")
    return _inspect(samples, spatial)
