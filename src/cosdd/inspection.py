"""Which noise is this? Correlation along each axis, dependence on the signal, and the axis to train with.

From noisy images alone. The noise this method removes is independent from line to line; structure is not. So
each pixel is predicted from the lines before it and, separately, from the lines after it; the products of the
two errors hold the noise of its own line, and structure only where both predictions fail alike. Flat regions
weigh most, frame differences replace frames where they hold less structure, and what a filter at the finest
scale does not confirm is taken for structure.
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

_BUDGET = 1 << 21  # pixels looked at: more would not change a verdict, and these take a second
_WINDOW = 512  # edge of the windows that large frames are sampled with
_BLOCK = 16  # lines per block, and twice the columns: the scatter of blocks gives the errors
_SIGMA = 1.5  # pixels; the scale at which structure is looked for, too coarse for `_FINE` to see
_LENGTH = {"x": -1, "y": -2, "z": -3}  # place of an axis in (z, y, x)

# Fourth difference across the lines: the finest scale, where structure is weakest. Of unit norm, so that
# noise independent from line to line keeps its autocovariance.
_FINE = np.array([1, -4, 6, -4, 1]) / np.sqrt(70)

# What noise correlations look like along the axis; a sixth, "offset", is the mean over all lags of a line.
_SHAPES = {
    "next pixel": np.eye(LAGS)[0],
    "short": np.array([1, 1, 1] + [0] * 7) / np.sqrt(3),
    "long": np.ones(LAGS) / np.sqrt(LAGS),
    "alternating": (-1.0) ** np.arange(1, LAGS + 1) / np.sqrt(LAGS),
    "period 4": np.tile([0, -1, 0, 1], 3)[:LAGS] / np.sqrt(5),
}
# Tuned on simulated frames of micrographs and photographs (2 % false alarms):
_DOUBT = 3.0  # how much the part that the finest scale does not confirm counts against a correlation
_CERTAIN = 3.7  # standard errors, for two axes and six shapes tried
_MATTERS = 0.02  # correlations below this change nothing for a denoiser


@dataclass(frozen=True)
class Evidence:
    """What the verdict rests on, beside the correlations.

    estimator: "frame differences" or "single frames"; pixels: number looked at; flat: their mean weight, 0 to 1.
    variance: of the noise, grey levels squared, where it is flat.
    gain, offset: the photon transfer line, variance = gain * mean + offset; None where variance does not grow
    or fall with the mean. read_noise: standard deviation of the noise in the darkest parts, grey levels.
    saturated: share of pixels at the highest value, if that is a wall; hot: share of isolated bright pixels.
    offset_ratio: per axis, variance of line means over what white noise gives (1 for white noise).
    period: per axis, in pixels, of a periodic pattern in the noise, where there is one.
    strength: per axis, the correlation along its most significant shape: the root of the summed squares of its
    lags, with the sign. significance: per axis, in standard errors, after doubts about structure.
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
    interval: half-widths of its 95 % intervals, doubts about structure included. verdict: one sentence.
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
            rows.append(
                f"noise correlation along {axis}, lags 1 to {len(values)}: {numbers} "
                f"(+- {max(self.interval[axis]):.2f}, {e.significance[axis]:.1f} standard errors)"
            )
        for axis, ratio in e.offset_ratio.items():
            rows.append(f"means of whole lines along {axis} vary {ratio:.1f} times as white noise would")
        for axis, period in e.period.items():
            rows.append(f"periodic pattern in the noise along {axis}: every {period:.1f} pixels")
        if e.gain is None or e.offset is None:
            rows.append(f"noise does not depend on the signal: standard deviation {e.variance**0.5:.3g}")
        else:
            rows.append(f"noise depends on the signal: variance = {e.gain:.3g} x mean {e.offset:+.3g}")
            rows.append(f"noise in the darkest parts: standard deviation {e.read_noise:.3g}")
        if e.saturated:
            rows.append(f"saturated: {e.saturated:.2%} of the pixels; their noise is cut off")
        if e.hot:
            rows.append(f"isolated bright pixels: {e.hot:.3%}")
        rows.append(f"estimated from {e.estimator}: {e.pixels:,} pixels, {e.flat:.0%} of them flat")
        return rows


def inspect_image(image: Image, spatial: str = "YX", seed: int = 0) -> Inspection:
    """Inspect the noise of a file without loading it: windows of some frames are read.

    spatial: "X", "YX" or "ZYX", the axes the model will work on; every other axis but C counts frames.
    seed: of the choice of windows. Raises InputError if an axis is missing, and as `inspect_samples`.
    """
    if missing := [a for a in spatial if a not in image.axes]:
        raise InputError(f"axes {image.axes}: expected {spatial}, {' and '.join(missing)} is missing")
    frames = sorted((a for a in image.axes if a not in "C" + spatial), key=lambda a: a == "T")  # T fastest
    order = [*frames, *(a for a in "C" if a in image.axes), *spatial]
    data = np.transpose(image.data, [image.axes.index(a) for a in order])
    return _inspect(data if "C" in image.axes else np.expand_dims(data, len(frames)), spatial, seed)


def inspect_samples(samples: np.ndarray, spatial: str = "YX", seed: int = 0, is_sequence: bool = True) -> Inspection:
    """Inspect the noise of samples (n, c, *spatial), any integer or float type; may be a memory map.

    is_sequence: neighbouring samples may show one scene (this is tested); False skips the test.
    seed: of the choice of windows where there are more pixels than are needed.
    Raises InputError for a wrong shape, fewer than 12 lines, pixels that are not finite, or no noise at all.
    """
    if spatial not in ("X", "YX", "ZYX") or samples.ndim != len(spatial) + 2:
        raise InputError(f"samples have shape {samples.shape}, expected (n, c, {', '.join(spatial.lower())})")
    return _inspect(samples if is_sequence else samples[:, None], spatial, seed)


def _inspect(data: np.ndarray, spatial: str, seed: int) -> Inspection:
    """data: (*frames, c, *spatial); neighbours along the last axis of `frames` may show one scene."""
    if data.dtype.kind not in "uif" or not data.size:
        raise InputError(f"pixels are {data.shape} of type {data.dtype}, expected integers or floats")
    if spatial == "X":  # no lines to compare but those of other samples: they stand in for y
        data = np.moveaxis(data.reshape(-1, *data.shape[-2:]), 0, 1)
    shortest = min(data.shape[-2:])
    if shortest < 12:
        what = "samples and pixels" if spatial == "X" else "pixels along y and x"
        raise InputError(f"{shortest} {what}, expected at least 12 to tell the noise: give the noise axis")
    windows = _merged(_windows(data, max(2, len(spatial)), np.random.default_rng(seed)))
    pieces, estimator = _pieces(windows)
    axes = [a for a in spatial.lower()[::-1] if data.shape[_LENGTH[a]] >= 4]
    along = {a: _correlation(pieces, a) for a in axes}
    axis, verdict = _verdict(along)
    gain, offset, darkest = _photon_transfer(pieces, "x" if axis == "none" else axis)
    evidence = Evidence(
        estimator=estimator,
        pixels=sum(w.size for w in windows),
        flat=_flat(pieces),
        variance=float(np.mean([p.variance for p in pieces])),
        gain=gain,
        offset=offset,
        read_noise=float(np.sqrt(darkest)),
        saturated=_saturated(windows),
        hot=_hot(windows, max(p.variance for p in pieces)),
        offset_ratio={a: c.ratio for a, c in along.items()},
        period={a: period for a in along if (period := _period(pieces, a))},
        strength={a: c.strength for a, c in along.items()},
        significance={a: c.significance for a, c in along.items()},
    )
    values = {a: [round(float(v), 4) for v in c.value] for a, c in along.items()}
    intervals = {a: [round(float(v), 4) for v in c.interval] for a, c in along.items()}
    return Inspection(axis, values, intervals, verdict, evidence)


# ---------------------------------------------------------------------------------------------- pixels


def _windows(data: np.ndarray, dimensions: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield windows (frames, z, y, x), float32: `frames` 2 where there are neighbours, else 1; z 1 in 2-D."""
    *before, channels = data.shape[: data.ndim - dimensions]
    space = data.shape[data.ndim - dimensions :]
    together = 2 if before and before[-1] > 1 else 1
    size = [min(s, _WINDOW) for s in space]
    if dimensions == 3:
        size[0] = min(space[0], max(16, _BUDGET // (4 * size[1] * size[2])))
    corners = [range(0, s - w + 1, w) for s, w in zip(space, size, strict=True)]
    firsts = [*before[:-1], before[-1] - together + 1] if before else []
    choices = (*firsts, channels, *(len(c) for c in corners))
    total, wanted = int(np.prod(choices)), max(1, _BUDGET // (together * int(np.prod(size))))
    # Numbers stand for the choices, so that a file of a million frames needs no list of them.
    chosen = range(total) if total <= wanted else sorted(rng.choice(total, wanted, replace=False))
    for number in chosen:
        place = [int(i) for i in np.unravel_index(number, choices)]
        *frame, channel = place[: len(before) + 1]
        starts = [c[i] for c, i in zip(corners, place[len(before) + 1 :], strict=True)]
        corner = tuple(slice(i, i + w) for i, w in zip(starts, size, strict=True))
        shifts = [[*frame[:-1], frame[-1] + i] for i in range(together)] if frame else [[]]
        window = np.stack([np.asarray(data[(*f, channel, *corner)], np.float32) for f in shifts])
        if not np.isfinite(window).all():
            raise InputError("pixels hold NaN or infinity, expected finite values")
        yield window if dimensions == 3 else window[:, None]


def _merged(windows: Iterator[np.ndarray]) -> list[np.ndarray]:
    """Join small windows along z: thousands of tiny frames would cost more in calls than in pixels."""
    merged, waiting = [], []
    for window in windows:
        waiting.append(window)
        if sum(w.size for w in waiting) >= 1 << 16:
            merged.append(np.concatenate(waiting, axis=1))
            waiting = []
    return [*merged, np.concatenate(waiting, axis=1)] if waiting else merged


@dataclass(frozen=True)
class _Piece:
    """noise: (z, y, x), a frame or a difference of two, of unit noise variance; weight: 0 to 1, flatness;
    mean: grey levels; scale: what the noise was divided by."""

    noise: np.ndarray
    weight: np.ndarray
    mean: np.ndarray
    variance: float


def _pieces(windows: list[np.ndarray]) -> tuple[list[_Piece], str]:
    """Frame differences where they are about as flat as the frames or flatter, else single frames."""
    single = [p for w in windows if (p := _piece(w[0], w[0]))]
    pairs = [w for w in windows if len(w) == 2]
    root = np.float32(np.sqrt(2))  # keeps the variance
    difference = [p for w in pairs if (p := _piece((w[1] - w[0]) / root, w.mean(0)))]
    if not single and not difference:
        raise InputError("no noise found: the pixels are constant, or perfectly smooth")
    if difference and _flat(difference) >= 0.9 * _flat(single):
        return difference, "frame differences"
    return single, "single frames"


def _flat(pieces: list[_Piece]) -> float:
    return float(np.mean([p.weight.mean() for p in pieces])) if pieces else 0.0


def _piece(pixels: np.ndarray, mean: np.ndarray) -> _Piece | None:
    """Weigh each pixel by how flat its surroundings are, compared with what noise alone would show."""
    pixels = pixels - np.float32(pixels.mean(dtype=np.float64))
    slopes = [ndimage.gaussian_filter(pixels, (0, _SIGMA, _SIGMA), order=o) for o in ((0, 1, 0), (0, 0, 1))]
    gradient = ndimage.gaussian_filter(slopes[0] ** 2 + slopes[1] ** 2, (0, _SIGMA, _SIGMA))
    squares = [ndimage.correlate1d(pixels, _FINE, axis=a) ** 2 for a in (1, 2)]
    power = (squares[0] + squares[1]) / 2
    # What is everywhere is not structure, hence a quantile. White noise of variance v shows v / (4 pi sigma^4);
    # twice that is let pass.
    calm = float(np.quantile(gradient, 0.1))
    variance = float(power[gradient <= calm].mean())
    usual = max(2 * variance / (4 * np.pi * _SIGMA**4), calm)
    if not usual > 0:
        return None
    weight = 1 / (1 + (gradient / np.float32(usual)) ** 2)
    variance = float(np.average(power, weights=weight))
    return _Piece(pixels / np.float32(np.sqrt(variance)), weight, mean, variance) if variance > 0 else None


def _upright(values: np.ndarray, axis: str) -> np.ndarray:
    """(z, y, x) -> (images, lines, pixels along `axis`)."""
    return np.ascontiguousarray(np.transpose(values, {"x": (0, 1, 2), "y": (0, 2, 1), "z": (1, 2, 0)}[axis]))


# ----------------------------------------------------------------------------------------- correlation


@dataclass(frozen=True)
class _Correlation:
    """value, interval: (lags,); the rest as in `Evidence`; offset: mean correlation over all lags of a line."""

    value: np.ndarray
    interval: np.ndarray
    shape: str
    strength: float
    significance: float
    offset: float
    ratio: float


def _correlation(pieces: list[_Piece], axis: str) -> _Correlation:
    parts = [_moments(p, axis) for p in pieces]
    both, fine, weights, lines = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    power = both[:, 0].sum() / weights[:, 0].sum()
    power_fine = fine[:, 0].sum() / weights[:, 0].sum()
    value, scatter = _ratio(both[:, 1:], weights[:, 1:], power)
    confirmed, _ = _ratio(fine[:, 1:], weights[:, 1:], power_fine)
    offset, offset_scatter = _ratio(lines[:, :1], lines[:, 2:3], power)
    offset_confirmed, _ = _ratio(lines[:, 1:2], lines[:, 2:3], power_fine)

    shapes = {name: shape[: len(value)] for name, shape in _SHAPES.items()}
    tried = {n: (value @ s, confirmed @ s, scatter @ s) for n, s in shapes.items()}
    if offset[0] > 0:  # whole lines cannot be correlated negatively, but choosing flat places makes it seem so
        root = np.sqrt(LAGS)  # to compare with "long"
        tried["offset"] = (offset[0] * root, offset_confirmed[0] * root, offset_scatter[:, 0] * root)
    scores = {name: _score(*numbers) for name, numbers in tried.items()}
    best = max(scores, key=lambda name: scores[name])
    error = np.sqrt((scatter**2).sum(0))
    doubt = np.maximum(0, np.sign(value) * (value - confirmed))
    return _Correlation(
        value=value,
        interval=np.hypot(1.96 * error, doubt),
        shape=best,
        strength=float(tried[best][0]),
        significance=scores[best],
        offset=float(offset[0]),
        ratio=float(max(0, 1 + offset[0] * lines[:, 2].sum() / lines[:, 3].sum())),
    )


def _score(value: float, confirmed: float, scatter: np.ndarray) -> float:
    """Standard errors by which a correlation stands out, less doubts; few blocks count as Student's t."""
    squares = float((scatter**2).sum())
    if not squares > 0:
        return 0.0
    doubt = max(0.0, float(np.sign(value) * (value - confirmed)))
    t = (abs(value) - _DOUBT * doubt) / np.sqrt(squares)
    blocks = max(squares**2 / float((scatter**4).sum()), 1.5)
    return float(np.sign(t) * np.sqrt(blocks * np.log1p(t**2 / blocks)))


def _ratio(numerator: np.ndarray, denominator: np.ndarray, power: float) -> tuple[np.ndarray, np.ndarray]:
    """Ratio (lags,) of sums over blocks, and each block's part of its error (blocks, lags): a jackknife."""
    total = np.maximum(denominator.sum(0), 1e-12)
    value = numerator.sum(0) / total
    return value / power, (numerator - value * denominator) / (total * power)


def _moments(piece: _Piece, axis: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Sums in blocks: products of the two prediction errors, products at the finest scale, and weights, each
    (blocks, 1 + lags); and the same three of whole lines and their squared weights, (blocks of lines, 4)."""
    noise, weight = _upright(piece.noise, axis), _upright(piece.weight, axis)
    fine = ndimage.correlate1d(noise, _FINE, axis=1)[:, 2:-2]
    before, after = _errors(noise, weight)
    weight = weight[:, 2:-2]
    pairs = [(before * weight, after * weight), (fine * weight,) * 2, (weight, weight)]
    lags = range(min(LAGS, noise.shape[-1] - 1) + 1)
    products = [np.stack([_blocks(a, b, lag) for lag in lags], 1) for a, b in pairs]

    def of_lines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a.sum(-1, dtype=np.float64) * b.sum(-1, dtype=np.float64) - (a * b).sum(-1, dtype=np.float64)

    columns = [*(of_lines(a, b) for a, b in pairs), (weight**2).sum(-1, dtype=np.float64)]
    starts = np.arange(0, weight.shape[1], _BLOCK // 2)
    lines = np.stack([np.add.reduceat(c, starts, axis=1).ravel() for c in columns], 1)
    return products[0], products[1], products[2], lines


def _errors(noise: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each pixel less its prediction from the two lines before, and less that from the two lines after.

    One linear prediction from 2 x 3 pixels that keeps a constant image, fitted by weighted least squares. The
    noise of other lines is independent of this one's, so only structure is predicted; and the two predictions
    share no pixel, so the product of the errors is free of what they drag along.
    """
    _, lines, length = noise.shape
    wide = np.pad(noise, ((0, 0), (0, 0), (1, 1)), mode="edge")

    def neighbours(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        taps = [image[:, 2 - k : lines - 2 - k, j : j + length] for k in (1, 2) for j in (0, 1, 2)]
        mean = sum(taps[1:], taps[0]) / np.float32(6)
        return mean, np.stack([t - mean for t in taps])

    here, heavy = noise[:, 2:-2], weight[:, 2:-2].ravel()
    sides = [neighbours(wide), neighbours(wide[:, ::-1])]
    sides[1] = (sides[1][0][:, ::-1], sides[1][1][:, :, ::-1])
    normal, right = np.zeros((6, 6)), np.zeros(6)
    for mean, taps in sides:
        flat = taps.reshape(6, -1)
        normal += (flat * heavy) @ flat.T
        right += (flat * heavy) @ (here - mean).ravel()
    # The taps sum to zero, so one of their six directions is empty: the ridge closes it.
    ridge = 1e-3 * np.trace(normal) / 6 * np.eye(6) + 1e-12 * np.eye(6)
    factors = np.linalg.solve(normal + ridge, right).astype(np.float32)
    before, after = (here - mean - np.tensordot(factors, taps, 1) for mean, taps in sides)
    return before, after


def _blocks(a: np.ndarray, b: np.ndarray, lag: int) -> np.ndarray:
    """Sums of a[i] b[i + lag], made symmetric in a and b, along the last axis in blocks; flat, float64."""
    length = a.shape[-1]
    product = a[..., : length - lag] * b[..., lag:]
    if a is not b and lag:
        product = (product + b[..., : length - lag] * a[..., lag:]) / 2
    rows, columns = np.arange(0, a.shape[-2], _BLOCK), np.arange(0, length, _BLOCK // 2)
    inside = columns[columns < length - lag]
    sums = np.add.reduceat(np.add.reduceat(product, inside, -1), rows, -2)
    beyond = [(0, 0)] * (sums.ndim - 1) + [(0, len(columns) - len(inside))]
    return np.pad(sums, beyond).astype(np.float64).ravel()


# --------------------------------------------------------------------------------------------- verdict


def _verdict(along: dict[str, _Correlation]) -> tuple[str, str]:
    def matters(c: _Correlation) -> bool:
        return c.strength**2 > _MATTERS**2 or (c.shape == "offset" and c.ratio > 1.5)

    found = {a: c for a, c in along.items() if c.significance > _CERTAIN and matters(c)}
    if not found:
        return "none", "white: cosdd works, N2V would do (no correlation along any axis stands out)"
    axis, *others = sorted(found, key=lambda a: -abs(found[a].strength))
    c, line = found[axis], {"x": "row", "y": "column"}.get(axis, "line")
    size = next(word for least, word in ((0.3, "strong"), (0.08, "clear"), (0, "weak")) if abs(c.strength) > least)
    if others and abs(found[others[0]].strength) > 0.5 * abs(c.strength):
        return axis, (
            f"correlated along both axes, {axis} ({size}) and {others[0]}: outside the method, because what is "
            f"correlated along {others[0]} too cannot be told from structure; axis {axis} removes a part"
        )
    if c.shape in ("offset", "long") and abs(c.value[0] - c.offset) < max(0.5 * c.offset, 0.05):
        return axis, f"{line} offsets only, along {axis} ({size}): use cosdd, axis {axis}"
    lag = int(np.argmax(np.abs(c.value)))
    return axis, (
        f"{line}-correlated along {axis} ({size}: {c.value[lag]:+.2f} at lag {lag + 1}): use cosdd, axis {axis}"
    )


# -------------------------------------------------------------------------------------------- evidence


def _photon_transfer(pieces: list[_Piece], axis: str) -> tuple[float | None, float | None, float]:
    """Fit variance = gain * mean + offset over blocks; and the variance where it is darkest."""
    table = np.concatenate([_transfer_blocks(p, axis) for p in pieces])
    table = table[np.argsort(table[:, 0])]
    bins = np.array_split(table, max(1, min(24, len(table) // 8)))
    # Medians over the blocks of a bin: motion and structure raise the variance of a few.
    x, y = np.array([[b[:, 0].mean(), np.median(b[:, 1])] for b in bins]).T
    gain, offset, error = 0.0, float(y.mean()), np.inf
    if len(x) >= 4 and np.ptp(x) > 0:
        model = y
        for _ in range(5):
            trust = 1 / np.maximum(model, 0.02 * y.max()) ** 2
            design = np.stack([x - np.average(x, weights=trust), np.ones_like(x)], 1)
            inverse = np.linalg.inv(design.T @ (design * trust[:, None]))
            gain, level = inverse @ design.T @ (trust * y)
            model = design @ [gain, level]
            offset = level - gain * np.average(x, weights=trust)
            error = np.sqrt(inverse[0, 0] * np.average((y - model) ** 2 * trust))
    darkest = float(max(0.0, gain * x[0] + offset))
    return (float(gain), float(offset), darkest) if abs(gain) > 4 * error else (None, None, float(y[0]))


def _transfer_blocks(piece: _Piece, axis: str) -> np.ndarray:
    """(blocks, 2): mean and noise variance, in grey levels, of the heavier half of the blocks."""
    noise, weight, mean = (_upright(v, axis) for v in (piece.noise, piece.weight, piece.mean))
    noise = ndimage.correlate1d(noise, _FINE, axis=1)[:, 2:-2]
    ones = np.ones_like(noise)
    count, total = _blocks(ones, ones, 0), _blocks(noise, noise, 0)
    means, weights = _blocks(mean[:, 2:-2], ones, 0) / count, _blocks(weight[:, 2:-2], ones, 0) / count
    keep = (weights >= np.median(weights)) & (count >= 0.5 * count.max())
    return np.stack([means, piece.variance * total / count], 1)[keep]


def _saturated(windows: list[np.ndarray]) -> float:
    """Share of pixels at the highest value, where that is a wall: more than in the 2 % of the range below."""
    top, low = max(float(w.max()) for w in windows), min(float(w.min()) for w in windows)
    at = sum(int((w == top).sum()) for w in windows)
    near = sum(int(((w < top) & (w >= top - 0.02 * (top - low))).sum()) for w in windows)
    return at / sum(w.size for w in windows) if at > max(10, near) else 0.0


def _hot(windows: list[np.ndarray], variance: float) -> float:
    """Share of pixels brighter than each neighbour by 8 standard deviations of the noise."""
    around = np.ones((1, 1, 3, 3), bool)
    around[0, 0, 1, 1] = False
    found = [(w - ndimage.maximum_filter(w, footprint=around) > 8 * np.sqrt(variance)).sum() for w in windows]
    return float(sum(found) / sum(w.size for w in windows))


def _period(pieces: list[_Piece], axis: str) -> float | None:
    """Period, in pixels, of the highest peak in the spectrum of the noise along the axis, if it stands out."""
    length = pieces[0].noise.shape[_LENGTH[axis]]
    power, lines = np.zeros(length // 2 + 1), 0
    for p in pieces:
        noise = ndimage.correlate1d(_upright(p.noise, axis), _FINE, axis=1) * _upright(p.weight, axis)
        spectrum = np.abs(np.fft.rfft(noise[:, 2:-2] * np.hanning(length), axis=-1)) ** 2
        power += spectrum.sum((0, 1))
        lines += spectrum.shape[0] * spectrum.shape[1]
    level = ndimage.median_filter(power, 15, mode="nearest")
    peak = np.divide(power, level, out=np.ones_like(power), where=level > 0)
    peak[: length // 32 + 2] = 1  # longer periods are not told from drift
    best = int(np.argmax(peak))
    return round(length / best, 2) if length >= 32 and peak[best] > 1.5 + 10 / np.sqrt(lines) else None
