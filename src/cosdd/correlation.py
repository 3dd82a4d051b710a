"""Correlation of the noise along an axis, told from that of the image.

The noise this method removes is independent from line to line; structure is not. So each pixel is predicted from the
lines before it and, separately, from the lines after it; the products of the two errors hold the noise of its own line,
and structure only where both predictions fail alike. What a filter at the finest scale does not confirm is taken for
structure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cosdd.excerpts import Excerpt, finest, upright

LAGS = 10

# The scatter of regions gives the errors. Noise is the same all over a frame, texture is where its things are: among
# regions as large as those, what is found in but a few of them is unsure.
_REGIONS = 128  # about as many, if they have
_SMALLEST, _LARGEST = 8, 32  # edges then, pixels
_LINES = 8  # whole ones in a region of lines: they cross many things
# What noise correlations look like along the axis; one more, "offset", is the mean over all lags of a line.
_SHAPES = {
    "next pixel": np.eye(LAGS)[0],
    "short": np.array([1, 1, 1] + [0] * 7) / np.sqrt(3),
    "long": np.ones(LAGS) / np.sqrt(LAGS),
    "ringing": (-0.5) ** np.arange(LAGS) * np.sqrt(3 / 4),
    "alternating": (-1.0) ** np.arange(1, LAGS + 1) / np.sqrt(LAGS),
    "period 4": np.tile([0, -1, 0, 1], 3)[:LAGS] / np.sqrt(5),
}
# Tuned on simulated frames of micrographs and photographs, for 1 % false alarms. What counts against one:
_UNCONFIRMED = 3.0  # times the part that the finest scale does not confirm
_SHARED = 1.0  # times what the other axis shows too: texture has no axis
_TEXTURE = 0.1  # at most: more than this along both axes is noise that is correlated along both
CERTAIN = 3.0  # standard errors, for two axes and seven shapes tried
_PLAIN = 0.5  # at lag 1: what anybody sees
_MATTERS = 0.02  # correlations below this change nothing for a denoiser


@dataclass(frozen=True)
class Correlation:
    value: np.ndarray  # (lags,)
    interval: np.ndarray  # (lags,)
    shapes: dict[str, tuple[float, float, np.ndarray]]  # see `_score`
    offset: float  # mean correlation over all lags of a line
    ratio: float  # variance of line means over what white noise gives
    best: str = ""  # the most significant shape
    strength: float = 0.0
    significance: float = 0.0
    of_next_pixel: float = 0.0  # significance, if there were many regions: with few, one of them may decide

    def matters(self) -> bool:
        large = abs(self.strength) > _MATTERS or (self.best == "offset" and self.ratio > 2)
        return large and self.significance > CERTAIN

    def is_plain(self) -> bool:
        """Is it plain to see, and only of too few flat places to be beyond doubt?"""
        return bool(abs(self.value[0]) > _PLAIN and self.of_next_pixel > CERTAIN)

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


def blocks(a: np.ndarray, b: np.ndarray, lag: int, edges: tuple[int, int]) -> np.ndarray:
    """Sums of a[i] b[i + lag], made symmetric in a and b, along the last axis in blocks; flat, float64.

    edges: lines and pixels of a block.
    """
    length = a.shape[-1]
    product = a[..., : length - lag] * b[..., lag:]
    if a is not b and lag:
        product = (product + b[..., : length - lag] * a[..., lag:]) / 2
    rows, columns = (np.arange(0, size, edge) for size, edge in zip(a.shape[-2:], edges, strict=True))
    inside = columns[columns < length - lag]
    sums = np.zeros((*product.shape[:-2], len(rows), len(columns)))  # 0 where no pixel has a partner
    sums[..., : len(inside)] = np.add.reduceat(np.add.reduceat(product, inside, -1), rows, -2)
    return sums.ravel()


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


def _moments(
    excerpt: Excerpt, axis: str, edge: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Sums in regions of `edge` x `edge` pixels: products of the two prediction errors, their weights, products at the
    finest scale and the power of the pixels in them, each (regions, 1 + lags); and of whole lines the first three and
    the squared weights, (regions of lines, 4)."""
    noise, weight = upright(excerpt.noise, axis), upright(excerpt.weight, axis)
    before, after = _errors(noise, weight)
    fine, weight = finest(noise), weight[:, 2:-2]
    pairs = [(before * weight, after * weight), (weight, weight), (fine * weight,) * 2]
    lags = range(min(LAGS, noise.shape[-1] - 1) + 1)
    # No product is larger than the power of its two pixels, so no correlation is beyond 1, of however few pixels.
    both, weights, products, power = (
        np.stack([blocks(a, b, lag, (edge, edge)) for lag in lags], 1) for a, b in [*pairs, (fine**2 * weight, weight)]
    )
    columns = [*(a.sum(-1) * b.sum(-1) - (a * b).sum(-1) for a, b in pairs), (weight**2).sum(-1)]
    starts = np.arange(0, weight.shape[1], _LINES)
    lines = np.stack([np.add.reduceat(c, starts, axis=1).ravel() for c in columns], 1).astype(np.float64)
    return both, weights, products, power, lines


def _ratio(numerator: np.ndarray, denominator: np.ndarray, power: float) -> tuple[np.ndarray, np.ndarray]:
    """Ratio (lags,) of sums over regions, and each region's part of its error (regions, lags): a jackknife."""
    if power == 0:  # nothing is left that could be alike
        return np.zeros(numerator.shape[1]), np.zeros_like(numerator)
    total = np.maximum(denominator.sum(0), 1e-12)
    value = numerator.sum(0) / total
    return value / power, (numerator - value * denominator) / (total * power)


def _correlation(excerpts: Sequence[Excerpt], axis: str) -> Correlation:
    edge = int(np.clip((sum(e.noise.size for e in excerpts) / _REGIONS) ** 0.5, _SMALLEST, _LARGEST))
    parts = [_moments(e, axis, edge) for e in excerpts]
    both, weights, products, powers, lines = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    power, power_fine = (v[:, 0].sum() / weights[:, 0].sum() for v in (both, products))
    value, scatter = _ratio(both[:, 1:], weights[:, 1:], power)
    confirmed, scatter_fine = _ratio(products[:, 1:], powers[:, 1:], 1.0)
    whole, whole_scatter = _ratio(lines[:, :1], lines[:, 1:2], power)
    whole_confirmed, _ = _ratio(lines[:, 2:3], lines[:, 1:2], power_fine)
    forms = {name: form[: len(value)] for name, form in _SHAPES.items()}
    shapes = {name: (float(value @ f), float(confirmed @ f), scatter @ f) for name, f in forms.items()}
    # Never negative, but choosing flat places makes it seem so; the root puts it on the scale of "long".
    offset, root = max(0.0, float(whole[0])), np.sqrt(LAGS)
    shapes["offset"] = (offset * root, float(whole_confirmed[0] * root), whole_scatter[:, 0] * root)
    return Correlation(
        value=confirmed,  # less sure than `value`, but correlation along the other axis does not mislead it
        interval=1.96 * np.sqrt((scatter_fine**2).sum(0)),
        shapes=shapes,
        offset=offset,
        ratio=float(max(0, 1 + whole[0] * lines[:, 1].sum() / lines[:, 3].sum())),
    )


def _score(value: float, confirmed: float, scatter: np.ndarray, other: float) -> tuple[float, float]:
    """Standard errors left after doubts: what the predictions find, what the finest scale finds, the regions'
    parts (regions,) of the error, and what the other axis shows. Few regions count as in Student's t; and then as if
    they were many."""
    squares, sign = float((scatter**2).sum()), float(np.sign(value))
    if not squares > 0:
        return 0.0, 0.0
    # They sum up to zero: as many as count are free, but for one.
    freedom = max(squares**2 / float((scatter**4).sum()) - 1, 0.5)
    squares *= 1 + 1 / freedom
    shared = min(_SHARED * max(0.0, sign * other), _TEXTURE)
    doubt = _UNCONFIRMED * max(0.0, sign * (value - confirmed)) + shared
    t = (abs(value) - doubt) / np.sqrt(squares)
    return float(np.sign(t) * np.sqrt(freedom * np.log1p(t**2 / freedom))), float(t)


def correlations(excerpts: Sequence[Excerpt], axes: Sequence[str]) -> dict[str, Correlation]:
    """Along each axis; what shows along the other one too counts against it."""
    along = {a: _correlation(excerpts, a) for a in axes}
    for a, c in along.items():
        other = along.get("y" if a == "x" else "x")
        scores = {n: _score(*s, other.shapes[n][1] if other else 0.0) for n, s in c.shapes.items()}
        best = max(scores, key=lambda name: scores[name][0])
        strength, next_pixel = float(c.shapes[best][0]), scores["next pixel"][1]
        along[a] = replace(c, best=best, strength=strength, significance=scores[best][0], of_next_pixel=next_pixel)
    return along
