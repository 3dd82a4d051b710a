"""Recipes for noise that runs along rows or columns, for arrays.

Intensities are in units of the clean image's full scale, so `clean` is meant to lie in [0, 1]. Every recipe
adds noise of mean zero: the clean image is the mean of its noisy versions. What each recipe's noise measures,
as formulas, stands in its docstring; `stripe_variance`, `checkerboard_variance`, `row_ar_variance` and
`blur_autocorrelation` compute it. `simulation` does it to files, with the clean partners.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Num
from scipy import ndimage
from scipy.signal import lfilter

from cosdd.errors import InputError

# ------------------------------------------------------------------------------------------------ noise


def stripe(
    clean: Num[np.ndarray, "*stack y x"],
    rng: np.random.Generator,
    *,
    gain: float = 0.002,
    read_std: float = 0.02,
    white_std: float = 0.025,
    blur: float = 1.0,
    axis: str = "x",
) -> Float[np.ndarray, "*stack y x"]:
    """Poisson noise, white Gaussian noise, and Gaussian noise blurred along the noise axis.

    The defaults are FFHQ-Stripe of Salmon and Krull 2025, supplement 5:

        x = gain * Poisson(s / gain) + N(0, read_std^2) + blur_axis(N(0, white_std^2), sigma = blur)

    Truth: the noise has mean 0; its variance is `stripe_variance`; the blurred part alone has autocorrelation
    exp(-d^2 / (4 blur^2)) at lag d along the axis (`blur_autocorrelation`) and none across it.

    Args:
        clean: (..., y, x), 0 or more; full scale 1.
        rng: source of the noise; every line and image of the stack gets its own.
        gain: intensity of one photon; 0 for no Poisson noise.
        read_std: standard deviation of the white Gaussian noise.
        white_std: standard deviation of the second Gaussian noise *before* it is blurred.
        blur: standard deviation of that blur, pixels; 0 for none.
        axis: "x", the noise runs along rows, or "y", along columns.

    Returns:
        float32, same shape.

    Raises:
        InputError: fewer than two axes, negative or non-finite intensities, an option out of range.
    """
    lines = _lines(clean, axis)
    noisy = lines + _shot(lines, gain, rng)
    if _at_least_zero("read_std", read_std):
        noisy += np.float32(read_std) * rng.standard_normal(lines.shape, np.float32)
    if _at_least_zero("white_std", white_std):
        # The source leaves open how the blur treats borders: blur wider and crop, so that no pixel differs.
        margin = len(_blur_kernel(blur)) // 2
        wide = rng.standard_normal((*lines.shape[:-1], lines.shape[-1] + 2 * margin), np.float32)
        wide = ndimage.correlate1d(wide, _blur_kernel(blur), axis=-1)
        noisy += np.float32(white_std) * wide[..., margin : margin + lines.shape[-1]]
    return _upright(noisy, axis)


def heavy(
    clean: Num[np.ndarray, "*stack y x"],
    rng: np.random.Generator,
    *,
    gain: float = 1 / 20,
    read_std: float = 0.0,
    white_std: float = 0.2,
    blur: float = 1.0,
    axis: str = "x",
) -> Float[np.ndarray, "*stack y x"]:
    """`stripe` in poor light: 20 photons at full scale and strong streaks; about 15 dB (range 1).

    The noise of `cosdd demo`; our own choice, not from the paper. Options, truth and errors as in `stripe`.
    """
    return stripe(clean, rng, gain=gain, read_std=read_std, white_std=white_std, blur=blur, axis=axis)


def checkerboard(
    clean: Num[np.ndarray, "*stack y x"],
    rng: np.random.Generator,
    *,
    strength: float = 0.15,
    reading: str = "variance",
    levels: float = 255.0,
    floor: float = 1.0,
    amplitude: float = 0.1,
    phase: str = "line",
    axis: str = "y",
) -> Float[np.ndarray, "*stack y x"]:
    """White noise that fades where the image is bright, and a - - + + pattern along the noise axis.

    FFHQ-Checkerboard of Salmon and Krull 2025, supplement 5. The text there ("N(0, 0.15 * 1/s)", then -0.1 on
    two pixels, +0.1 on the next two, the start drawn uniformly) leaves the scale of s, variance or standard
    deviation, and the phase open; the defaults are the reading whose noise level comes closest:

        x[i] = s[i] + sqrt(strength / g[i]) * N(0, 1) + amplitude * P[(i + r) mod 4]
        g = max(levels * s, floor);  P = (-1, -1, +1, +1);  r uniform on {0, 1, 2, 3}

    Truth: over the random start the noise has mean 0 and the variance `checkerboard_variance`; the pattern
    alone has autocorrelation 1, 0, -1, 0, 1, ... along the axis and, with phase "line", none across it.

    Args:
        clean: (..., y, x); full scale 1.
        rng: source of the noise.
        strength: how strong the white noise is; 0.15 in the paper.
        reading: "variance" as above, or "std": the standard deviation of the white noise is strength / g.
        levels: grey levels at full scale, the unit of `g`.
        floor: smallest `g`, in grey levels: keeps the noise finite in the dark. More than 0.
        amplitude: height of the pattern.
        phase: "line", every line of every image has its own start, or "image", one start per image.
        axis: "x" or "y", the direction along which the pattern runs; the paper's is "y" (columns).

    Returns:
        float32, same shape.

    Raises:
        InputError: fewer than two axes, non-finite intensities, an option out of range.
    """
    lines = _lines(clean, axis)
    white = np.sqrt(_checkerboard_white(lines, strength, reading, levels, floor)).astype(np.float32)
    noisy = lines + white * rng.standard_normal(lines.shape, np.float32)
    if phase not in ("line", "image"):
        raise InputError(f'phase is {phase!r}, expected "line" or "image"')
    starts = lines.shape[:-1] if phase == "line" else (*lines.shape[:-2], 1)
    start = rng.integers(0, 4, starts)[..., None]
    pattern = np.array([-1, -1, 1, 1], np.float32)
    noisy += np.float32(amplitude) * pattern[(np.arange(lines.shape[-1]) + start) % 4]
    return _upright(noisy, axis)


def row_ar(
    clean: Num[np.ndarray, "*stack y x"],
    rng: np.random.Generator,
    *,
    gain: float = 0.01,
    shot_correlation: float = 0.0,
    row_std: float = 0.05,
    correlation: float = 0.6,
    offset_std: float = 0.0,
    axis: str = "x",
) -> Float[np.ndarray, "*stack y x"]:
    """Autoregressive noise along the noise axis, Poisson noise, and one random offset per line.

    Covers the cameras and scanners that we measured: a detector with slow electronics (`shot_correlation`
    0.2), an electron-multiplying camera (`shot_correlation` -0.1), long streaks of scanning electron
    microscopes (`correlation` 0.85 with Poisson noise), line offsets of a CCD (`offset_std`). Our own; not
    from the paper.

        x = s + shot + row_std * a + offset_std * N(0, 1) per line
        a[i] = correlation * a[i-1] + sqrt(1 - correlation^2) * N(0, 1), started stationary

    `shot` is gain * Poisson(s / gain) - s; with `shot_correlation` r, shot / sqrt(gain s) runs through the
    same recursion with r, which keeps its variance at every pixel.

    Truth: the noise has mean 0; its variance is `row_ar_variance`; along the axis at lag d the three parts
    have autocorrelation shot_correlation^d (where s is constant), correlation^d, and 1; none across it.

    Args:
        clean: (..., y, x), 0 or more; full scale 1.
        rng: source of the noise.
        gain: intensity of one photon; 0 for no Poisson noise.
        shot_correlation: between -1 and 1 (excluded): lag-1 correlation of the Poisson noise.
        row_std: standard deviation of the autoregressive part.
        correlation: between -1 and 1 (excluded): its lag-1 correlation.
        offset_std: standard deviation of the offsets, one per line.
        axis: "x", the noise runs along rows, or "y", along columns.

    Returns:
        float32, same shape.

    Raises:
        InputError: fewer than two axes, negative or non-finite intensities, an option out of range.
    """
    lines = _lines(clean, axis)
    shot = _shot(lines, gain, rng)
    if shot_correlation:
        scale = np.sqrt(np.float32(gain) * lines)
        unit = np.divide(shot, scale, out=np.zeros_like(shot), where=scale > 0)
        # A dark pixel has no shot noise of its own to pass on: stand in a normal deviate to stay stationary.
        unit = np.where(scale > 0, unit, rng.standard_normal(lines.shape, np.float32))
        shot = scale * _autoregressive("shot_correlation", unit, shot_correlation)
    noisy = lines + shot
    if _at_least_zero("row_std", row_std):
        white = rng.standard_normal(lines.shape, np.float32)
        noisy += np.float32(row_std) * _autoregressive("correlation", white, correlation)
    if _at_least_zero("offset_std", offset_std):
        noisy += np.float32(offset_std) * rng.standard_normal((*lines.shape[:-1], 1), np.float32)
    return _upright(noisy, axis)


# ----------------------------------------------------------------------------------------------- by name

RECIPES: dict[str, Callable[..., np.ndarray]] = {
    "stripe": stripe,
    "heavy": heavy,
    "checkerboard": checkerboard,
    "row-ar": row_ar,
}


def options(recipe: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a recipe, those that are given and the defaults of the others.

    Raises InputError for an unknown recipe or option, or a value that is of another kind than the default.
    """
    if recipe not in RECIPES:
        raise InputError(f"recipe {recipe!r} is unknown: choose one of {', '.join(RECIPES)}")
    parameters = inspect.signature(RECIPES[recipe]).parameters.values()
    found = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    for name, value in given.items():
        if name not in found:
            near = difflib.get_close_matches(name, found, 1, cutoff=0.4)
            advice = f"did you mean {near[0]}?" if near else f"its options are {', '.join(found)}"
            raise InputError(f"{recipe} has no option {name}: {advice}")
        number = isinstance(found[name], float)
        if isinstance(value, bool) or not isinstance(value, int | float if number else str):
            raise InputError(f"{name} is {value!r}, expected {'a number' if number else 'a word'}")
        found[name] = float(value) if number else value
    return found


# ------------------------------------------------------------------------------------------------ truth


def stripe_variance(
    signal: Num[np.ndarray, "*shape"] | float,
    *,
    gain: float = 0.002,
    read_std: float = 0.02,
    white_std: float = 0.025,
    blur: float = 1.0,
) -> Float[np.ndarray, "*shape"]:
    """Variance of `stripe` at clean intensity `signal`: gain s + read_std^2 + white_std^2 sum(kernel^2).

    The sum is 1 / (2 blur sqrt(pi)) to within 1e-4 for a blur of 1 pixel or more. Defaults as in `stripe`.
    """
    blurred = white_std**2 * float(np.sum(_blur_kernel(blur) ** 2))
    return gain * np.asarray(signal, np.float64) + read_std**2 + blurred


def checkerboard_variance(
    signal: Num[np.ndarray, "*shape"] | float,
    *,
    strength: float = 0.15,
    reading: str = "variance",
    levels: float = 255.0,
    floor: float = 1.0,
    amplitude: float = 0.1,
) -> Float[np.ndarray, "*shape"]:
    """Variance of `checkerboard` at clean intensity `signal`, over the random start.

    strength / g + amplitude^2, or (strength / g)^2 + amplitude^2 with reading "std".
    """
    return _checkerboard_white(np.asarray(signal, np.float64), strength, reading, levels, floor) + amplitude**2


def row_ar_variance(
    signal: Num[np.ndarray, "*shape"] | float,
    *,
    gain: float = 0.01,
    row_std: float = 0.05,
    offset_std: float = 0.0,
) -> Float[np.ndarray, "*shape"]:
    """Variance of `row_ar` at clean intensity `signal`: gain s + row_std^2 + offset_std^2."""
    return gain * np.asarray(signal, np.float64) + row_std**2 + offset_std**2


def blur_autocorrelation(max_lag: int, blur: float = 1.0) -> Float[np.ndarray, " lags"]:
    """Autocorrelation of white noise after the blur of `stripe`, at lags 0 .. max_lag along the axis.

    Exact for the sampled kernel; equals exp(-d^2 / (4 blur^2)) to within 1e-3
    for a blur of 1 pixel or more.
    """
    kernel = np.pad(_blur_kernel(blur), (0, max_lag))
    lags = [float(np.dot(kernel[: len(kernel) - lag], kernel[lag:])) for lag in range(max_lag + 1)]
    return np.array(lags) / lags[0]


# ------------------------------------------------------------------------------------------------ parts

_MOST_PHOTONS = 1e18  # of a pixel; numpy draws no more


def _lines(clean: np.ndarray, axis: str) -> np.ndarray:
    """The image as float32 with the noise axis last."""
    if axis not in ("x", "y"):
        raise InputError(f'noise axis is {axis!r}, expected "x" or "y"')
    lines = np.asarray(clean, np.float32)
    if lines.ndim < 2:
        raise InputError(f"clean image has shape {lines.shape}, expected (..., y, x)")
    if not np.isfinite(lines).all():
        raise InputError("clean image holds NaN or infinity, expected finite intensities")
    return lines if axis == "x" else np.ascontiguousarray(np.swapaxes(lines, -1, -2))


def _upright(lines: np.ndarray, axis: str) -> np.ndarray:
    """Undo `_lines`."""
    return lines if axis == "x" else np.ascontiguousarray(np.swapaxes(lines, -1, -2))


def _at_least_zero(name: str, value: float) -> float:
    if not (np.isfinite(value) and value >= 0):
        raise InputError(f"{name} is {value}, expected 0 or more")
    return value


def _shot(lines: np.ndarray, gain: float, rng: np.random.Generator) -> np.ndarray:
    """Poisson noise without its mean, float32."""
    if not _at_least_zero("gain", gain):
        return np.zeros_like(lines)
    if lines.size and lines.min() < 0:
        raise InputError(f"clean image goes down to {lines.min():g}; Poisson noise needs 0 or more (or gain 0)")
    if lines.size and lines.max() > _MOST_PHOTONS * gain:
        raise InputError(
            f"clean image goes up to {lines.max():g}, and a photon is {gain:g} of that; expected at most "
            f"{_MOST_PHOTONS:g} photons: give a larger full scale or gain"
        )
    # float64 for the difference: with a small gain both terms are large.
    return (gain * rng.poisson(lines / np.float64(gain)) - lines).astype(np.float32)


def _checkerboard_white(signal: np.ndarray, strength: float, reading: str, levels: float, floor: float) -> np.ndarray:
    """Variance of the white part of `checkerboard`."""
    _at_least_zero("strength", strength)
    if reading not in ("variance", "std"):
        raise InputError(f'reading is {reading!r}, expected "variance" or "std"')
    if not floor > 0:
        raise InputError(f"floor is {floor} grey levels, expected more than 0")
    inverse = strength / np.maximum(levels * signal, floor)
    return inverse if reading == "variance" else inverse**2


def _autoregressive(name: str, white: np.ndarray, correlation: float) -> np.ndarray:
    """First-order recursion along the last axis: unit variance in, unit variance out."""
    if not -1 < correlation < 1:
        raise InputError(f"{name} is {correlation}, expected between -1 and 1 (excluded)")
    drive = white * np.float32(np.sqrt(1 - correlation**2))
    drive[..., 0] = white[..., 0]  # the first pixel already has the stationary variance
    return np.asarray(lfilter([1.0], [1.0, -correlation], drive, axis=-1), np.float32)


def _blur_kernel(blur: float) -> np.ndarray:
    """Gaussian kernel of unit sum, cut at 5 standard deviations, odd length."""
    if not _at_least_zero("blur", blur):
        return np.ones(1)
    reach = int(np.ceil(5 * blur))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / blur) ** 2)
    return kernel / kernel.sum()
