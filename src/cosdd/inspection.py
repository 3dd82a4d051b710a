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


# ---------------------------------------------------------------------------------------------- pixels


def _inspect(data: np.ndarray, spatial: str, seed: int, has_sequence: bool) -> Inspection:
    """`data`: (*frames, c, *spatial), the frame axis that may be a sequence last among the frames."""
    if data.dtype.kind not in "uif" or not data.size:
        raise InputError(f"pixels are {data.shape} of type {data.dtype}, expected integers or floats")
    letters = spatial.lower()[::-1]
    if spatial == "X":  # the lines to compare are the samples
        lines = data.reshape(-1, *data.shape[-2:])
        data, has_sequence = np.moveaxis(lines, 0, 1)[None], False
    windows = list(_windows(data, max(2, len(spatial)), has_sequence, np.random.default_rng(seed)))
    pieces, estimator = _pieces(windows)
    axes = [a for a in letters if pieces[0].noise.shape[_ALONG[a]] >= 4]
    along = {a: _correlation(pieces, a) for a in axes}
    axis, verdict = _verdict(along)
    return Inspection(
        axis=axis,
        autocorrelation={a: [round(float(v), 4) for v in c.value] for a, c in along.items()},
        interval={a: [round(float(v), 4) for v in c.interval] for a, c in along.items()},
        verdict=verdict,
        evidence=_evidence(windows, pieces, along, axis, estimator),
    )


def _windows(data: np.ndarray, dimensions: int, pairs: bool, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield windows (frames, z or 1, y, x), float32, `frames` 2 where there are neighbours, else 1."""
    *before, channels = data.shape[: data.ndim - dimensions]
    space = data.shape[data.ndim - dimensions :]
    frames = int(np.prod(before))
    together = 2 if pairs and before and before[-1] > 1 else 1
    size = [min(s, _WINDOW) for s in space[-2:]]
    if dimensions == 3:
        size = [min(space[0], max(16, _BUDGET // (8 * size[0] * size[1]))), *size]
    starts = [range(0, s - w + 1, w) for s, w in zip(space, size, strict=True)]
    # Whole numbers stand for (frame, channel, window): drawn without listing them all.
    shape = (frames, channels, *(len(r) for r in starts))
    wanted = max(1, _BUDGET // (together * int(np.prod(size))))
    total = int(np.prod(shape))
    chosen = np.arange(total) if total <= wanted else np.sort(rng.choice(total, wanted, replace=False))
    for number in chosen:
        frame, channel, *place = (int(i) for i in np.unravel_index(number, shape))
        corner = tuple(slice(r[i], r[i] + w) for r, i, w in zip(starts, place, size, strict=True))
        index = [int(i) for i in np.unravel_index(frame, before)] if before else []
        if together == 2 and index[-1] + 1 == before[-1]:
            if total <= wanted:
                continue  # the last frame has been seen as the second of a pair
            index[-1] -= 1
        stack = [
            np.asarray(data[(*index[:-1], index[-1] + i, channel, *corner)] if index else data[(channel, *corner)])
            for i in range(together)
        ]
        window = np.stack(stack).astype(np.float32)
        if not np.isfinite(window).all():
            raise InputError("pixels hold NaN or infinity, expected finite values")
        yield window if dimensions == 3 else window[:, None]


@dataclass(frozen=True)
class _Piece:
    """noise: (b, y, x), frames or their differences, unit noise variance; weight: same shape, 0 to 1;
    mean: the grey levels; variance: what `noise` was divided by, squared."""

    noise: np.ndarray
    weight: np.ndarray
    mean: np.ndarray
    variance: float


def _pieces(windows: list[np.ndarray]) -> tuple[list[_Piece], str]:
    """Frame differences where they hold no more structure than the frames, else single frames."""
    if min(windows[0].shape[-2:]) < 8:
        raise InputError(f"images are {windows[0].shape[-2:]} pixels, expected at least 8 x 8 (or 8 samples)")
    single = [p for w in windows for p in [_piece(w[0], w[0])] if p]
    pairs = [w for w in windows if len(w) == 2]
    difference = [p for w in pairs for p in [_piece((w[1] - w[0]) / np.float32(np.sqrt(2)), w.mean(0))] if p]
    if not single and not difference:
        raise InputError("no noise found: the image is constant, or perfectly smooth")
    if difference and _flat(difference) >= 0.9 * _flat(single):
        return difference, "frame differences"
    return single, "single frames"


def _flat(pieces: list[_Piece]) -> float:
    return float(np.mean([p.weight.mean() for p in pieces])) if pieces else 0.0


def _piece(pixels: np.ndarray, mean: np.ndarray) -> _Piece | None:
    """Weigh each pixel by how flat its surroundings are, on the scale of what noise alone would show."""
    pixels = pixels - pixels.mean(dtype=np.float64).astype(np.float32)

    def slope(axis: int) -> np.ndarray:
        order = [int(i == axis) for i in range(3)]
        return ndimage.gaussian_filter(pixels, (0, _SIGMA, _SIGMA), order=order)

    gradient = ndimage.gaussian_filter(slope(1) ** 2 + slope(2) ** 2, (0, _SIGMA, _SIGMA))
    fine = sum(ndimage.correlate1d(pixels, _FINE, axis=a) ** 2 for a in (1, 2)) / 2
    flat = gradient <= np.quantile(gradient, 0.1)
    if not (variance := float(np.mean(fine[flat]))) > 0 and not (variance := float(np.mean(fine))) > 0:
        return None
    # White noise of this variance shows 2 * variance / (8 pi sigma^4); correlated noise shows more, whence
    # the quantile: what is everywhere is not structure.
    usual = max(4 * variance / (8 * np.pi * _SIGMA**4), float(np.quantile(gradient, 0.1)))
    weight = 1 / (1 + (gradient / usual) ** 2)
    variance = float((fine * weight).sum(dtype=np.float64) / weight.sum(dtype=np.float64))
    return _Piece(pixels / np.float32(np.sqrt(variance)), weight.astype(np.float32), mean, variance)


# ---------------------------------------------------------------------------------------- correlation


@dataclass(frozen=True)
class _Correlation:
    """value, error, excess: (lags,), the last the growth from the fine to the coarse scale; `offset` the same
    for the mean over all lags; ratio: variance of line means over white noise's."""

    value: np.ndarray
    interval: np.ndarray
    strength: float
    significance: float
    shape: str
    offset: float
    ratio: float


def _correlation(pieces: list[_Piece], axis: str) -> _Correlation:
    fine, coarse = (_sums(pieces, axis, kernel) for kernel in (_FINE, _COARSE))
    power = fine[0][:, 0].sum() / fine[1][:, 0].sum()
    value, scatter = _ratio(fine[0][:, 1:], fine[1][:, 1:], power)
    below, _ = _ratio(coarse[0][:, 1:], coarse[1][:, 1:], power)
    scores = {}
    for name, shape in _SHAPES.items():
        s = shape[: len(value)]
        scores[name] = _score(value @ s, below @ s, float(np.sqrt(((scatter @ s) ** 2).sum())))
    lines, pairs, squares = fine[2].T
    offset, spread = _ratio(lines[:, None], pairs[:, None], power)
    offset_below, _ = _ratio(coarse[2][:, :1], coarse[2][:, 1:2], power)
    scores["offset"] = _score(offset[0], offset_below[0], float(np.sqrt((spread**2).sum())))
    best = max(scores, key=lambda name: scores[name])
    size = offset[0] if best == "offset" else value @ _SHAPES[best][: len(value)]
    error = np.sqrt((scatter**2).sum(0))
    structure = _STRUCTURE * np.maximum(0, np.sign(value) * (below - value))
    return _Correlation(
        value=value,
        interval=1.96 * error + structure,
        strength=float(size),
        significance=scores[best],
        shape=best,
        offset=float(offset[0]),
        ratio=float(1 + offset[0] * pairs.sum() / squares.sum()),
    )


def _score(value: float, below: float, error: float) -> float:
    """Standard errors by which a correlation stands out once structure is allowed for."""
    structure = _STRUCTURE * max(0.0, np.sign(value) * (below - value))
    return float((abs(value) - structure) / error) if error > 0 else 0.0


def _ratio(numerator: np.ndarray, denominator: np.ndarray, power: float) -> tuple[np.ndarray, np.ndarray]:
    """Pooled ratio (lags,) and each block's share of its error (blocks, lags): infinitesimal jackknife."""
    total = np.maximum(denominator.sum(0), 1e-12)
    value = numerator.sum(0) / total
    share = (numerator - value * denominator) / total * np.sqrt(len(numerator) / max(1, len(numerator) - 1))
    return value / power, share / power


def _sums(pieces: list[_Piece], axis: str, kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weighted products, their weights (blocks, lags 0 ..), and of whole lines (blocks, 3)."""
    parts = [_piece_sums(p, axis, kernel) for p in pieces]
    products, weights, lines = zip(*parts, strict=True)
    return np.concatenate(products), np.concatenate(weights), np.concatenate(lines)


def _piece_sums(piece: _Piece, axis: str, kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    noise, weight = _upright(piece.noise, axis), _upright(piece.weight, axis)
    noise = ndimage.correlate1d(noise, kernel, axis=-2)[..., 2:-2, :]
    weight = weight[..., 2:-2, :]
    weighted = noise * weight
    lags = min(LAGS, noise.shape[-1] - 1)
    products = np.stack([_blocks(weighted, lag) for lag in range(lags + 1)], 1)
    weights = np.stack([_blocks(weight, lag) for lag in range(lags + 1)], 1)

    def of_lines(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        squares = (values**2).sum(-1, dtype=np.float64)
        return values.sum(-1, dtype=np.float64) ** 2 - squares, squares

    (lines, _), (pairs, squares) = of_lines(weighted), of_lines(weight)
    starts = np.arange(0, lines.shape[-1], 8)
    columns = [np.add.reduceat(v, starts, -1).ravel() for v in (lines, pairs, squares)]
    return products, weights, np.stack(columns, 1)


def _upright(values: np.ndarray, axis: str) -> np.ndarray:
    """(z, y, x) with `axis` last and the axis it is compared across before it."""
    order = {"x": (0, 1, 2), "y": (0, 2, 1), "z": (1, 2, 0)}[axis]
    return np.ascontiguousarray(np.transpose(values, order))


def _blocks(values: np.ndarray, lag: int) -> np.ndarray:
    """Sum of values[i] values[i + lag] along the last axis, in blocks of the last two axes, flat."""
    length = values.shape[-1]
    product = values[..., : length - lag] * values[..., lag:]
    rows, columns = (np.arange(0, n, _BLOCK) for n in values.shape[-2:])
    columns = np.minimum(columns, length - lag - 1)
    sums = np.add.reduceat(np.add.reduceat(product, columns, -1), rows, -2)
    if len(columns) > 1 and columns[-1] == columns[-2]:
        sums[..., -1] = 0
    return sums.astype(np.float64).ravel()


# -------------------------------------------------------------------------------------------- verdict


def _verdict(along: dict[str, _Correlation]) -> tuple[str, str]:
    found = {a: c for a, c in along.items() if c.significance > _CERTAIN and _matters(c)}
    if not found:
        return "none", "white: cosdd works, N2V would do (no correlation along any axis stands out)"
    ranked = sorted(found, key=lambda a: -abs(found[a].strength))
    axis = ranked[0]
    best = found[axis]
    kind = "column" if axis == "y" else "row"
    if len(ranked) > 1 and abs(found[ranked[1]].strength) > 0.5 * abs(best.strength):
        other = ranked[1]
        return axis, (
            f"correlated along both axes, {axis} and {other}: outside the method, because what is correlated "
            f"along {other} is indistinguishable from structure when the noise axis is {axis}"
        )
    strength = "strong" if abs(best.strength) > 0.3 else "clear" if abs(best.strength) > 0.08 else "weak"
    if best.shape in ("offset", "long") and best.value[0] < 1.5 * max(best.offset, 0) + 0.02:
        return axis, f"{kind} offsets only along {axis} ({strength}): use cosdd, axis {axis}"
    sign = "negative" if best.value[0] < 0 else "positive"
    return axis, (
        f"{kind}-correlated along {axis} ({strength}, {sign}, next pixel {best.value[0]:+.2f}): use cosdd, axis {axis}"
    )


def _matters(c: _Correlation) -> bool:
    return abs(c.strength) > _MATTERS or (c.shape == "offset" and c.ratio > 1.5)


# ------------------------------------------------------------------------------------------- evidence


def _evidence(
    windows: list[np.ndarray],
    pieces: list[_Piece],
    along: dict[str, _Correlation],
    axis: str,
    estimator: str,
) -> Evidence:
    upright = "x" if axis == "none" else axis
    gain, offset, darkest = _photon_transfer(pieces, upright)
    return Evidence(
        estimator=estimator,
        pixels=sum(w.size for w in windows),
        flat=round(_flat(pieces), 4),
        variance=float(np.mean([p.variance for p in pieces])),
        gain=gain,
        offset=offset,
        read_noise=float(np.sqrt(max(0.0, darkest))),
        saturated=_saturated(windows),
        hot=_hot(windows, pieces),
        offset_ratio={a: round(c.ratio, 3) for a, c in along.items()},
        period={a: p for a in along for p in [_period(pieces, a)] if p},
        strength={a: round(c.strength, 4) for a, c in along.items()},
        significance={a: round(c.significance, 2) for a, c in along.items()},
    )


def _photon_transfer(pieces: list[_Piece], axis: str) -> tuple[float | None, float | None, float]:
    """Fit variance = gain * mean + offset over flat blocks; and the variance of the darkest tenth."""
    means, sums, weights = [], [], []
    for p in pieces:
        products, weight, _ = _piece_sums(p, axis, _FINE)
        ones = np.ones_like(p.weight)
        grey = _upright(p.mean, axis)[..., 2:-2, :]
        area = _blocks(_upright(ones, axis)[..., 2:-2, :], 0)
        root = _blocks_sum(grey) / area
        means.append(root)
        sums.append(products[:, 0] * p.variance)
        weights.append(weight[:, 0])
    mean, total, weight = (np.concatenate(v) for v in (means, sums, weights))
    order = np.argsort(mean)
    edges = np.searchsorted(np.cumsum(weight[order]), np.linspace(0, weight.sum(), 25)[1:-1])
    groups = [g for g in np.split(order, edges) if weight[g].sum() > 0]
    x = np.array([np.average(mean[g], weights=weight[g]) for g in groups])
    y = np.array([total[g].sum() / weight[g].sum() for g in groups])
    if len(x) < 4 or not np.ptp(x) > 0:
        return None, None, float(y[0])
    trust = np.ones_like(y)
    gain = offset = error = 0.0
    for _ in range(4):
        root = np.sqrt(trust)
        design = np.stack([x, np.ones_like(x)], 1)
        (gain, offset), *_ = np.linalg.lstsq(design * root[:, None], y * root, rcond=None)
        model = np.maximum(gain * x + offset, 0.02 * y.max())
        rest = (y - gain * x - offset) / model
        scale = 1.5 * np.median(np.abs(rest)) + 1e-9
        trust = 1 / model**2 / np.maximum(1, np.abs(rest) / (2 * scale))
        covariance = np.linalg.inv((design * trust[:, None]).T @ design) * scale**2
        error = float(np.sqrt(covariance[0, 0]))
    if not abs(gain) > 4 * error:
        return None, None, float(y[0])
    return float(gain), float(offset), float(max(0, gain * x[0] + offset))


def _blocks_sum(values: np.ndarray) -> np.ndarray:
    rows, columns = (np.arange(0, n, _BLOCK) for n in values.shape[-2:])
    return np.add.reduceat(np.add.reduceat(values, columns, -1), rows, -2).astype(np.float64).ravel()


def _saturated(windows: list[np.ndarray]) -> float:
    """Share of pixels at the highest value, where that is a wall: more pixels than in the 2 % below it."""
    top, low = max(float(w.max()) for w in windows), min(float(w.min()) for w in windows)
    total = sum(w.size for w in windows)
    at = sum(int((w == top).sum()) for w in windows)
    near = sum(int(((w < top) & (w >= top - 0.02 * (top - low))).sum()) for w in windows)
    return at / total if at > max(10, near) else 0.0


def _hot(windows: list[np.ndarray], pieces: list[_Piece]) -> float:
    """Share of pixels brighter than all their neighbours by 6 noise standard deviations."""
    around = np.ones((1, 1, 3, 3), bool)
    around[0, 0, 1, 1] = False
    noise = np.sqrt(max(p.variance for p in pieces))
    found = [(w - ndimage.maximum_filter(w, footprint=around) > 6 * noise).sum() for w in windows]
    return float(sum(found) / sum(w.size for w in windows))


def _period(pieces: list[_Piece], axis: str) -> float | None:
    """Period in pixels of the strongest peak in the spectrum of the noise along the axis, if it stands out."""
    length = min(p.noise.shape[_ALONG[axis]] for p in pieces)
    if length < 32:
        return None
    power, lines = np.zeros(length // 2 + 1), 0
    for p in pieces:
        noise, weight = _upright(p.noise, axis)[..., :length], _upright(p.weight, axis)[..., 2:-2, :length]
        noise = ndimage.correlate1d(noise, _FINE, axis=-2)[..., 2:-2, :] * weight * np.hanning(length)
        spectrum = np.abs(np.fft.rfft(noise, axis=-1)) ** 2
        power += spectrum.sum((0, 1))
        lines += spectrum.shape[0] * spectrum.shape[1]
    level = ndimage.median_filter(power, 15, mode="nearest")
    peak = np.divide(power, level, out=np.ones_like(power), where=level > 0)
    peak[: length // 32 + 1] = 0
    best = int(np.argmax(peak))
    return round(length / best, 2) if peak[best] > 1.5 + 10 / np.sqrt(lines) else None
