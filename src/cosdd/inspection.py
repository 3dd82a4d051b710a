"""Which noise is this? Correlation along each axis, dependence on the signal, and the axis to train with.

From noisy images alone. The noise this method removes is independent from line to line; structure is not. So
each pixel is predicted from the lines before it and, separately, from the lines after it; the products of the
two errors hold the noise of its own line, and structure only where both predictions fail alike. Flat and quiet
regions weigh most, frame differences replace frames where they hold less structure, and what a filter at the
finest scale does not confirm is taken for structure.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy import ndimage

from cosdd import lazy
from cosdd.config import InputError
from cosdd.images import Image
from cosdd.lazy import Pixels

LAGS = 10

_BUDGET = 1 << 21  # pixels looked at: more would not change a verdict, and these take a second
_WINDOW = 256  # largest edge of the windows that frames are sampled with
_BLOCK = 16  # lines per block, and twice the columns: the scatter of blocks gives the errors
_SIGMA = 1.5  # pixels; the scale at which structure is looked for, too coarse for `_FINE` to see
_NEAR = 2.5  # pixels; the scale at which brightness is looked at
_BRIGHTNESSES = 8
_QUIETEST = 0.05  # of the largest variance; less counts as that, so that a few dark pixels do not decide alone
_LENGTH = {"x": -1, "y": -2, "z": -3}  # place of an axis in (z, y, x)

# Fourth difference across the lines: the finest scale, where structure is weakest. Of unit norm, so that
# noise independent from line to line keeps its autocovariance.
_FINE = np.array([1, -4, 6, -4, 1]) / np.sqrt(70)

# What noise correlations look like along the axis; one more, "offset", is the mean over all lags of a line.
_SHAPES = {
    "next pixel": np.eye(LAGS)[0],
    "short": np.array([1, 1, 1] + [0] * 7) / np.sqrt(3),
    "long": np.ones(LAGS) / np.sqrt(LAGS),
    "ringing": (-0.5) ** np.arange(LAGS) * np.sqrt(3 / 4),
    "alternating": (-1.0) ** np.arange(1, LAGS + 1) / np.sqrt(LAGS),
    "period 4": np.tile([0, -1, 0, 1], 3)[:LAGS] / np.sqrt(5),
}
# Tuned on simulated frames of micrographs and photographs, for 2 % false alarms. What counts against one:
_UNCONFIRMED = 3.0  # times the part that the finest scale does not confirm
_SHARED = 1.0  # times what the other axis shows too: texture has no axis
_TEXTURE = 0.1  # at most: more than this along both axes is noise that is correlated along both
_CERTAIN = 3.5  # standard errors, for two axes and seven shapes tried
_MATTERS = 0.02  # correlations below this change nothing for a denoiser


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
    hot: float  # share of isolated bright pixels
    offset_ratio: dict[str, float]  # per axis: variance of line means over what white noise gives
    period: dict[str, float]  # per axis, pixels: of a periodic pattern in the noise, where there is one
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
        ratios = ", ".join(f"{axis} {ratio:.1f}" for axis, ratio in e.offset_ratio.items())
        rows.append(f"variance of line means over that of white noise: {ratios}")
        rows += [f"periodic pattern in the noise along {a}: every {p:.1f} pixels" for a, p in e.period.items()]
        line = "none seen" if e.gain is None else f"variance = {e.gain:.3g} x mean {e.offset:+.3g}"
        rows.append(f"signal dependence: {line}")
        rows.append(f"noise standard deviation: {e.variance**0.5:.3g} on average, {e.read_noise:.3g} where darkest")
        rows.append(f"saturated pixels: {e.saturated:.3%}; isolated bright pixels: {e.hot:.3%}")
        rows.append(f"estimated from {e.estimator}: {e.pixels:,} pixels, {e.flat:.0%} of them flat")
        return rows


def inspect_image(image: Image, spatial: str = "YX", seed: int = 0) -> Inspection:
    """Inspect the noise of a file without loading it: windows of some frames are read.

    spatial: "X", "YX" or "ZYX", the axes the model will work on; every other axis but C counts frames.
    seed: of the choice of windows. Raises InputError if an axis is missing, and as `inspect_samples`.
    """
    if missing := [a for a in spatial if a not in image.axes]:
        raise InputError(
            f"{image.path or 'the array'}: axes {image.axes}, expected {spatial}: {' and '.join(missing)} is missing"
        )
    frames = sorted((a for a in image.axes if a not in "C" + spatial), key=lambda a: a == "T")  # T fastest
    order = [*frames, "C", *spatial]
    data = lazy.arrange(image.data, [image.axes.find(a) for a in order])
    try:
        return _inspect(data, spatial, seed)
    except InputError as error:
        raise InputError(f"{image.path or 'the array'}: {error}") from None


def inspect_samples(samples: np.ndarray, spatial: str = "YX", seed: int = 0, is_sequence: bool = True) -> Inspection:
    """Inspect the noise of samples (n, c, *spatial), any integer or float type; may be a memory map.

    is_sequence: neighbouring samples may show one scene (this is tested); False: they do not. seed: as above.
    Raises InputError for a wrong shape, fewer than 12 lines, pixels that are not finite, or no noise at all.
    """
    if spatial not in ("X", "YX", "ZYX") or samples.ndim != len(spatial) + 2:
        raise InputError(f"samples have shape {samples.shape}, expected (n, c, {', '.join(spatial.lower())})")
    return _inspect(samples if is_sequence else samples[:, None], spatial, seed)


def _inspect(data: Pixels, spatial: str, seed: int) -> Inspection:
    """data: (*frames, c, *spatial); neighbours along the last axis of `frames` may show one scene."""
    if data.dtype.kind not in "uif" or not data.size:
        raise InputError(f"pixels are {data.shape} of type {data.dtype}, expected integers or floats")
    if spatial == "X":  # no lines to compare but those of other samples: they stand in for y
        data = np.moveaxis(np.asarray(data).reshape(-1, *data.shape[-2:]), 0, 1)
    shortest = min(data.shape[-2:])
    if shortest < 12:
        what = "samples and pixels" if spatial == "X" else "pixels along y and x"
        raise InputError(f"{shortest} {what}, expected at least 12 to tell the noise: give the axis with --noise-axis")
    windows = _windows(data, max(2, len(spatial)), np.random.default_rng(seed))
    pieces, estimator = _pieces(windows)
    along = _correlations(pieces, [a for a in spatial.lower()[::-1] if data.shape[_LENGTH[a]] >= 4])
    axis, verdict = _verdict(along)
    lines = "x" if axis == "none" else axis
    gain, offset = _photon_transfer(pieces, lines)
    variance = _variance(pieces, lines)
    darkest = min(float(np.quantile(p.mean, 0.01)) for p in pieces)
    saturated, hot = _outliers(windows, variance, gain, offset)
    evidence = Evidence(
        estimator=estimator,
        pixels=sum(w.size for w in windows),
        flat=_flat(pieces),
        variance=variance,
        gain=gain or None,
        offset=offset if gain else None,
        read_noise=float(np.sqrt(max(0.0, gain * darkest + offset))),
        saturated=saturated,
        hot=hot,
        offset_ratio={a: c.ratio for a, c in along.items()},
        period={a: period for a, c in along.items() if (period := _period(pieces, a) or c.comb())},
        strength={a: c.strength for a, c in along.items()},
        significance={a: c.significance for a, c in along.items()},
    )
    values = {a: np.round(c.value, 4).tolist() for a, c in along.items()}
    intervals = {a: np.round(c.interval, 4).tolist() for a, c in along.items()}
    return Inspection(axis, values, intervals, verdict, evidence)


def _windows(data: Pixels, dimensions: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Windows (frames, z, y, x), float32: `frames` 2 where there are neighbours, else 1. In 2-D, z counts
    windows that were joined: thousands of tiny frames would cost more in calls than in pixels."""
    *before, channels = data.shape[: data.ndim - dimensions]
    space = data.shape[data.ndim - dimensions :]
    together = 2 if before and before[-1] > 1 else 1
    size = [s // -(-s // w) for s, w in zip(space, (16, _WINDOW, _WINDOW)[-dimensions:], strict=True)]
    corners = [range(0, s - w + 1, w) for s, w in zip(space, size, strict=True)]
    firsts = [*before[:-1], before[-1] - together + 1] if before else []
    choices, windows = (channels, *firsts, *(len(c) for c in corners)), []
    total = int(np.prod(choices))
    wanted = min(total, max(1, _BUDGET // (together * int(np.prod(size)))))
    # Numbers stand for the choices, so that a file of a million frames needs no list of them; one is drawn from
    # each stretch, so that frames from beginning to end are seen.
    for number in ((np.arange(wanted) + rng.random(wanted)) * (total / wanted)).astype(int):
        place = [int(i) for i in np.unravel_index(number, choices)]
        channel, *frame = place[: len(before) + 1]
        places = zip(corners, place[len(before) + 1 :], size, strict=True)
        corner = tuple(slice(c[i], c[i] + w) for c, i, w in places)
        shifts = [[*frame[:-1], frame[-1] + i] for i in range(together)] if frame else [[]]
        window = np.stack([np.asarray(data[(*f, channel, *corner)], np.float32) for f in shifts])
        if not np.isfinite(window).all():
            raise InputError("pixels hold NaN or infinity, expected finite values")
        windows.append(window if dimensions == 3 else window[:, None])
    joined = max(1, (1 << 16) // windows[0].size) if dimensions == 2 else 1
    return [np.concatenate(windows[i : i + joined], axis=1) for i in range(0, len(windows), joined)]


@dataclass(frozen=True)
class _Piece:
    noise: np.ndarray  # (z, y, x): a frame, or a difference of two, divided by `variance`'s root
    flat: np.ndarray  # same shape: flatness, 0 to 1
    weight: np.ndarray  # same shape: flatness over the variance of the noise at this brightness
    mean: np.ndarray  # same shape: grey levels
    variance: float  # of the noise, grey levels squared


def _pieces(windows: list[np.ndarray]) -> tuple[list[_Piece], str]:
    """Frame differences where they are about as flat as the frames or flatter, else single frames."""
    single = [p for w in windows if (p := _piece(w[0], w[0]))]
    root = np.float32(np.sqrt(2))  # keeps the variance
    difference = [p for w in windows if len(w) == 2 and (p := _piece((w[1] - w[0]) / root, w.mean(0)))]
    if not single:
        raise InputError("no noise found: the pixels are constant, or perfectly smooth")
    if difference and _flat(difference) >= 0.9 * _flat(single):
        return difference, "frame differences"
    return single, "single frames"


def _flat(pieces: list[_Piece]) -> float:
    return float(np.mean([p.flat.mean() for p in pieces])) if pieces else 0.0


def _piece(pixels: np.ndarray, mean: np.ndarray) -> _Piece | None:
    """Weigh each pixel by how flat its surroundings are, compared with what noise alone would show, and by how
    quiet: what is hidden among the photon noise of bright places may be plain in dark ones."""
    pixels = pixels - np.float32(pixels.mean(dtype=np.float64))
    smooth = ndimage.gaussian_filter(pixels, (0, _SIGMA, _SIGMA))
    down, right = np.gradient(smooth, axis=(1, 2))
    gradient = ndimage.gaussian_filter(down**2 + right**2, (0, _SIGMA, _SIGMA))
    power = (ndimage.correlate1d(pixels, _FINE, axis=1) ** 2 + ndimage.correlate1d(pixels, _FINE, axis=2) ** 2) / 2
    # What is everywhere is not structure, hence a quantile. White noise of variance v shows v / (4 pi sigma^4);
    # twice that is let pass.
    calm = float(np.quantile(gradient, 0.1))
    variance = float(power[gradient <= calm].mean())
    usual = max(2 * variance / (4 * np.pi * _SIGMA**4), calm)
    if not usual > 0:
        return None
    flat = 1 / (1 + (gradient / np.float32(usual)) ** 2)
    variance = float(np.average(power, weights=flat))
    if not variance > 0:
        return None
    noise = pixels / np.float32(np.sqrt(variance))
    return _Piece(noise, flat, flat / _by_brightness(power / variance, flat, mean), mean, variance)


def _by_brightness(power: np.ndarray, flat: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Power of the noise where it is as bright as here: one average for each of some classes of brightness, since
    weights that know the noise of single places would prefer pairs of pixels that are small together."""
    brightness = ndimage.gaussian_filter(mean.astype(np.float32), (0, _NEAR, _NEAR))
    edges = np.quantile(brightness, np.linspace(0, 1, _BRIGHTNESSES + 1)[1:-1])
    where = np.searchsorted(edges, brightness.ravel())
    weights = flat.ravel()
    count, total = np.bincount(where, minlength=_BRIGHTNESSES), np.bincount(where, weights, _BRIGHTNESSES)
    level = np.bincount(where, brightness.ravel(), _BRIGHTNESSES)[count > 0] / count[count > 0]
    classes = np.bincount(where, weights * power.ravel(), _BRIGHTNESSES)[count > 0] / total[count > 0]
    classes = np.maximum(classes, _QUIETEST * classes.max())
    return np.interp(brightness, level, classes).astype(np.float32)


def _variance(pieces: list[_Piece], axis: str) -> float:
    """Of the noise where it is flat, grey levels squared; row offsets, which only show across the axis, included."""
    parts = []
    for p in pieces:
        fine = ndimage.correlate1d(_upright(p.noise, axis), _FINE, axis=1)[:, 2:-2]
        parts.append(p.variance * float(np.average(fine**2, weights=_upright(p.flat, axis)[:, 2:-2])))
    return float(np.mean(parts))


def _upright(values: np.ndarray, axis: str) -> np.ndarray:
    """(z, y, x) -> (images, lines, pixels along `axis`)."""
    return np.ascontiguousarray(np.transpose(values, {"x": (0, 1, 2), "y": (0, 2, 1), "z": (1, 2, 0)}[axis]))


@dataclass(frozen=True)
class _Correlation:
    value: np.ndarray  # (lags,)
    interval: np.ndarray  # (lags,)
    shapes: dict[str, tuple[float, float, np.ndarray]]  # see `_score`
    offset: float  # mean correlation over all lags of a line
    ratio: float  # variance of line means over what white noise gives
    best: str = ""  # the most significant shape
    strength: float = 0.0
    significance: float = 0.0

    def matters(self) -> bool:
        large = abs(self.strength) > _MATTERS or (self.best == "offset" and self.ratio > 2)
        return large and self.significance > _CERTAIN

    def comb(self) -> float | None:
        """The lag, from 3 on, that stands out from both its neighbours: pixels that share an amplifier, say."""
        out = self.value[2:-1] - np.maximum(self.value[1:-2], self.value[3:])
        if not len(out):
            return None
        best = int(np.argmax(out))
        # 1.96 standard errors of each of two lags are in the interval: four of their difference.
        sure = max(4 / 1.96 * np.hypot(self.interval[best + 2], self.interval[best + 3]), _MATTERS)
        return float(best + 3) if out[best] > sure else None

    def is_offset(self) -> bool:
        """Every lag is like the mean over all lags (of neighbours, as some cameras read odd and even apart)."""
        smooth = (self.value[1:] + self.value[:-1]) / 2
        return self.ratio > 1.5 and np.abs(smooth - self.offset).mean() < max(0.5 * self.offset, 0.01)


def _correlations(pieces: list[_Piece], axes: list[str]) -> dict[str, _Correlation]:
    along = {a: _correlation(pieces, a) for a in axes}
    for a, c in along.items():
        other = along.get("y" if a == "x" else "x")
        scores = {n: _score(*s, other.shapes[n][1] if other else 0.0) for n, s in c.shapes.items()}
        best = max(scores, key=lambda name: scores[name])
        along[a] = replace(c, best=best, strength=float(c.shapes[best][0]), significance=scores[best])
    return along


def _correlation(pieces: list[_Piece], axis: str) -> _Correlation:
    parts = [_moments(p, axis) for p in pieces]
    both, fine, weights, lines = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    power, power_fine = (v[:, 0].sum() / weights[:, 0].sum() for v in (both, fine))
    value, scatter = _ratio(both[:, 1:], weights[:, 1:], power)
    confirmed, scatter_fine = _ratio(fine[:, 1:], weights[:, 1:], power_fine)
    whole, whole_scatter = _ratio(lines[:, :1], lines[:, 2:3], power)
    whole_confirmed, _ = _ratio(lines[:, 1:2], lines[:, 2:3], power_fine)
    forms = {name: form[: len(value)] for name, form in _SHAPES.items()}
    shapes = {name: (float(value @ f), float(confirmed @ f), scatter @ f) for name, f in forms.items()}
    # Never negative, but choosing flat places makes it seem so; the root puts it on the scale of "long".
    offset, root = max(0.0, float(whole[0])), np.sqrt(LAGS)
    shapes["offset"] = (offset * root, float(whole_confirmed[0] * root), whole_scatter[:, 0] * root)
    return _Correlation(
        value=confirmed,  # less sure than `value`, but correlation along the other axis does not mislead it
        interval=1.96 * np.sqrt((scatter_fine**2).sum(0)),
        shapes=shapes,
        offset=offset,
        ratio=float(max(0, 1 + whole[0] * lines[:, 2].sum() / lines[:, 3].sum())),
    )


def _score(value: float, confirmed: float, scatter: np.ndarray, other: float) -> float:
    """Standard errors left after doubts: what the predictions find, what the finest scale finds, the blocks'
    parts (blocks,) of the error, and what the other axis shows. Few blocks count as in Student's t."""
    squares, sign = float((scatter**2).sum()), float(np.sign(value))
    if not squares > 0:
        return 0.0
    shared = min(_SHARED * max(0.0, sign * other), _TEXTURE)
    doubt = _UNCONFIRMED * max(0.0, sign * (value - confirmed)) + shared
    t = (abs(value) - doubt) / np.sqrt(squares)
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

    columns = [*(a.sum(-1) * b.sum(-1) - (a * b).sum(-1) for a, b in pairs), (weight**2).sum(-1)]
    starts = np.arange(0, weight.shape[1], _BLOCK // 2)
    lines = np.stack([np.add.reduceat(c, starts, axis=1).ravel() for c in columns], 1).astype(np.float64)
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
    mirrored, taps = neighbours(wide[:, ::-1])
    sides = [neighbours(wide), (mirrored[:, ::-1], taps[:, :, ::-1])]
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
    sums = np.add.reduceat(np.add.reduceat(product, inside, -1), rows, -2).astype(np.float64)
    return np.pad(sums, ((0, 0), (0, 0), (0, len(columns) - len(inside)))).ravel()


def _verdict(along: dict[str, _Correlation]) -> tuple[str, str]:
    found = {a: c for a, c in along.items() if c.matters()}
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


def _photon_transfer(pieces: list[_Piece], axis: str) -> tuple[float, float]:
    """Fit variance = gain * mean + offset over blocks; gain 0 and the usual variance where no line shows."""
    means, variances = np.concatenate([_transfer_blocks(p, axis) for p in pieces], axis=1)
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


def _transfer_blocks(piece: _Piece, axis: str) -> np.ndarray:
    """(2, blocks): weighted mean and noise variance, in grey levels, of the flatter half of the blocks."""
    noise, weight, mean = (_upright(v, axis) for v in (piece.noise, piece.flat, piece.mean))
    noise = ndimage.correlate1d(noise, _FINE, axis=1)[:, 2:-2] * weight[:, 2:-2]
    squares, weight = _blocks(noise, noise, 0), weight[:, 2:-2]
    total, means = _blocks(weight, weight, 0), _blocks(weight, weight * mean[:, 2:-2], 0)
    keep = total >= np.median(total)
    return np.stack([means, piece.variance * squares])[:, keep] / total[keep]


def _outliers(windows: list[np.ndarray], variance: float, gain: float, offset: float) -> tuple[float, float]:
    """Shares of pixels: at the highest value, where that is a wall (more than in the 2 % of the range below);
    and brighter than each neighbour by 8 standard deviations of the noise."""
    top, low = max(float(w.max()) for w in windows), min(float(w.min()) for w in windows)
    at, near, hot, total = 0, 0, 0, sum(w.size for w in windows)
    around = np.ones((1, 1, 3, 3), bool)
    around[0, 0, 1, 1] = False
    for w in windows:
        at += int((w == top).sum())
        near += int(((w < top) & (w >= top - 0.02 * (top - low))).sum())
        brightest = ndimage.maximum_filter(w, footprint=around)
        hot += int((w - brightest > 8 * np.sqrt(np.maximum(gain * brightest + offset, variance))).sum())
    return at / total if at > max(10, near) else 0.0, hot / total


def _period(pieces: list[_Piece], axis: str) -> float | None:
    """Period, in pixels, of the highest peak in the spectrum of the noise along the axis, if it stands out."""
    length = pieces[0].noise.shape[_LENGTH[axis]]
    power, lines = np.zeros(length // 2 + 1), 0
    for p in pieces:
        noise = ndimage.correlate1d(_upright(p.noise, axis), _FINE, axis=1) * _upright(p.weight, axis)
        spectrum = np.abs(np.fft.rfft(noise[:, 2:-2] * np.hanning(length), axis=-1)) ** 2
        power += spectrum.sum((0, 1))
        lines += spectrum[..., 0].size
    peak = power / np.maximum(ndimage.median_filter(power, 15, mode="nearest"), 1e-12 * power.max() + 1e-300)
    best = length // 32 + 2 + int(np.argmax(peak[length // 32 + 2 :]))  # longer periods are not told from drift
    return round(length / best, 2) if length >= 32 and peak[best] > 1.5 + 10 / np.sqrt(lines) else None
