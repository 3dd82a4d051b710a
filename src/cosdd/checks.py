"""Can this result be trusted? Checks of a denoised image against its noisy one, without a clean image.

What denoising took away, noisy - denoised, has to look like the noise: as much of it as there is noise, none of the
structure, and on average nothing at any brightness.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from cosdd import config, inspection, likeness, noisefloor
from cosdd.axes import Image
from cosdd.checkpoint import FEW_STEPS
from cosdd.data import Statistics
from cosdd.likeness import Light, Likeness

_SEVERITY: dict[Light, int] = {"grey": 0, "green": 0, "yellow": 1, "red": 2}
LAGS = 10
ACROSS = 3  # lags across the noise axis that are looked at for structure
BRIGHTNESSES = 10
FEW = 100  # pixels in a class of brightness; fewer are no evidence

# Beyond the first limit yellow, beyond the second red.
REMOVED = (1.25, 1.7)  # factor between the noise that was taken away and the noise that is there, either way
STRUCTURE = (0.06, 0.15)  # correlation of the residual across the noise axis
BIAS = (0.1, 0.25)  # mean of the residual at a brightness, in standard deviations of the residual
BLUR = (-0.2, 1.0)  # decibels by which the best Gaussian filter is better
UNSURE = 0.03  # about so far off, relatively, is the measured variance of the noise
SIGMAS = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)  # of the filters tried, pixels


@dataclass(frozen=True)
class Check:
    """One question, the answer as a light and in words, and the figure behind it."""

    question: str
    light: Light
    figure: float
    answer: str


@dataclass(frozen=True)
class Checks:
    """Checks, and the curves that they rest on. Grey values; lags in pixels."""

    answers: tuple[Check, ...]
    along: np.ndarray  # (1 + LAGS,) autocorrelation of the residual along the noise axis
    across: np.ndarray  # the same across it
    brightness: np.ndarray  # (classes,) mean of the denoised image, by brightness of the neighbouring lines
    bias: np.ndarray  # (classes,) mean of the residual there
    spread: np.ndarray  # (classes,) standard deviation of the residual there
    gain: float | None  # decibels of PSNR over the noisy image: measured noise over posterior variance, if both known


def examine(
    noisy: np.ndarray,
    denoised: np.ndarray,
    std: np.ndarray | None,
    noise_axis: str,
    trained_on: Statistics,
    inspected: inspection.Inspection | None = None,
    steps: int | None = None,
) -> Checks:
    """Check (n, c, *space) images in grey values, at least two-dimensional, of one file.

    std: posterior standard deviation, where there is one. noise_axis: "x", "y", "z" or "none" (then x).
    inspected: what `inspect` found in the noisy file. steps: of the training.
    """
    axis = config.AXIS[noise_axis]
    alike = likeness.compare(noisy, trained_on, leave_out=True)
    defects = alike.defects
    assert defects is not None
    noisy = np.stack([defects.without(image) for image in noisy])  # what they were replaced by is no noise
    noisy = np.moveaxis(noisy.astype(np.float64), axis, -1)
    denoised = np.moveaxis(denoised.astype(np.float64), axis, -1)
    residual = noisy - denoised
    variance = np.zeros_like(denoised) if std is None else np.moveaxis(np.square(std, dtype=np.float64), axis, -1)
    channels = range(noisy.shape[1])
    along, across = (np.stack([_correlation(residual[:, c], where) for c in channels]) for where in (-1, -2))
    curves = [_by_brightness(noisy[:, c], denoised[:, c], residual[:, c]) for c in channels]
    worst = int(np.argmax([np.abs(bias / spread).max() for _, bias, spread in curves]))
    floor = noisefloor.measure(list(noisy), None if noise_axis == "none" else -1)
    noise = None if floor is None else _noise(floor, denoised)
    checks = [
        _removed(floor, noise, residual, variance),
        _structure(across),
        _bias(*curves[worst]),
        _likeness(alike),
    ]
    left = variance.mean((0, *range(2, variance.ndim)))
    few = steps is not None and steps < FEW_STEPS
    checks.append(_blur(floor if left.min() > 0 else None, noisy, denoised, left, few))
    if steps is not None:
        checks.append(_training(steps))
    if inspected is not None:
        checks.append(_axis(inspected, noise_axis))
    shown = int(np.argmax(across[:, 1 : 1 + ACROSS].max(1)))
    gain = None if noise is None or not left.min() > 0 else float(10 * np.log10(max(noise.mean(), 1e-12) / left.mean()))
    return Checks(tuple(checks), along[shown], across[shown], *curves[worst], gain)


def inspected(image: Image) -> inspection.Inspection | None:
    """What `inspect` finds; None for images it cannot say anything about."""
    return inspection.inspect_image(image, "YX") if {"Y", "X"} <= set(image.axes) else None


def worst(answers: Sequence[Check]) -> Light:
    """The light that decides."""
    lights: list[Light] = ["green", *(check.light for check in answers)]
    return max(lights, key=_SEVERITY.__getitem__)


def _light(value: float, limits: tuple[float, float]) -> Light:
    return "green" if value <= limits[0] else "yellow" if value <= limits[1] else "red"


def _noise(floor: noisefloor.NoiseFloor, denoised: np.ndarray) -> np.ndarray:
    """(channels,) mean variance of the noise, as measured across the lines at the brightness of each pixel."""
    return np.array(
        [np.interp(denoised[:, c], floor.signal[c], floor.covariance[c, :, 0]).mean() for c in range(denoised.shape[1])]
    )


def _removed(
    floor: noisefloor.NoiseFloor | None, noise: np.ndarray | None, residual: np.ndarray, variance: np.ndarray
) -> Check:
    """The residual of a right posterior mean has the variance of the noise less that of the posterior."""
    question = "Is the noise gone?"
    if floor is None or noise is None:
        return Check(question, "yellow", float("nan"), "too few rows to measure how much noise there is")
    shares = [(residual[:, c].var() + variance[:, c].mean()) / max(v, 1e-12) for c, v in enumerate(noise)]
    share = float(max(shares, key=lambda value: abs(np.log(max(value, 1e-6)))))
    light = _light(max(share, 1 / max(share, 1e-6)), REMOVED)
    percent = f"what was taken away is {share:.0%} of the noise that is measured in the noisy image"
    if floor.hidden and light == "green":
        light, percent = "yellow", percent + "; but fine texture is strong there, so that measure is a guess"
    answer = {
        "green": percent,
        "yellow": percent,
        "red": f"{percent}: " + ("noise is left" if share < 1 else "more than the noise was taken away"),
    }
    return Check(question, light, share, answer[light])


def _structure(across: np.ndarray) -> Check:
    """Noise is independent from line to line; what neighbours share is structure of the image.

    Only what they share with the same sign: any average over lines leaves a little of the noise of each in the
    others, and so a negative correlation.
    """
    worst = max(0.0, float(across[:, 1 : 1 + ACROSS].max()))
    light = _light(worst, STRUCTURE)
    words = {
        "green": "neighbouring lines of what was taken away have nothing in common, as noise should",
        "yellow": "neighbouring lines of what was taken away have a little in common: look there for lost structure",
        "red": "what was taken away holds structure, or noise that is not independent from line to line",
    }
    return Check("Is the structure intact?", light, worst, f"{words[light]} (correlation {worst:.2f})")


def _bias(brightness: np.ndarray, bias: np.ndarray, spread: np.ndarray) -> Check:
    relative = np.abs(bias / spread)
    worst = int(np.argmax(relative))
    light = _light(float(relative[worst]), BIAS)
    words = {"green": "kept", "yellow": "shifted a little", "red": "shifted"}
    return Check(
        "Is the brightness kept?",
        light,
        float(relative[worst]),
        f"grey values are {words[light]}: by at most {bias[worst]:+.3g} (around {brightness[worst]:.4g}), "
        f"{relative[worst]:.2f} standard deviations of the noise",
    )


def _blur(
    floor: noisefloor.NoiseFloor | None, noisy: np.ndarray, denoised: np.ndarray, left: np.ndarray, few: bool
) -> Check:
    """The error that the model states, against that of the best Gaussian filter, which noisy images tell.

    A filter h is linear, so its mean squared error is known but for the truth (Stein): that to the noisy image, less
    the variance of the noise, plus twice what h leaves of it, the sum of h times the autocovariance of the noise.
    The variance is known to a few per cent. Grey where that is as much as the errors: nothing can be said then. What a
    model states that was hardly trained (few) is not believed.
    """
    question, dimensions, worst = "Is it better than a blur?", noisy.ndim - 2, None
    if floor is None:
        why = "the noise cannot be measured, or the model states no error"
        return Check(question, "grey", float("nan"), f"this cannot be said: {why}")
    for c, stated in enumerate(left):
        at = np.quantile(denoised[:, c], (np.arange(20) + 0.5) / 20)  # brightness of the pixels
        covariance = np.stack([np.interp(at, floor.signal[c], lag).mean() for lag in floor.covariance[c].T])
        risk = covariance[0]
        for sigma in SIGMAS:
            kernel = np.exp(-0.5 * (np.arange(len(covariance)) / sigma) ** 2)
            kernel /= 2 * kernel.sum() - 1
            along = 2 * (kernel * covariance).sum() - kernel[0] * covariance[0]
            moved = ndimage.gaussian_filter(noisy[:, c], sigma, axes=range(-dimensions, 0)) - noisy[:, c]
            risk = min(risk, float(np.mean(moved**2)) - covariance[0] + 2 * kernel[0] ** (dimensions - 1) * along)
        doubt = UNSURE * covariance[0]
        if risk <= 2 * doubt:
            why = "the error of a filter is too small beside the noise to be measured"
            return Check(question, "grey", float("nan"), f"this cannot be said: {why}")
        found = 10 * np.log10(stated / np.array([risk, risk + doubt]))
        worst = found if worst is None or found[0] > worst[0] else worst
    assert worst is not None
    light: Light = "green" if worst[0] <= BLUR[0] else "yellow" if worst[1] <= BLUR[1] else "red"
    if few and light == "green":
        answer = (
            f"it states so ({-worst[0]:+.1f} dB of PSNR), but was hardly trained, which makes such figures too good"
        )
        return Check(question, "yellow", -worst[0], answer)
    words = {
        "green": "better than the best Gaussian filter would be, by what the model states",
        "yellow": "hardly better than the best Gaussian filter: train for longer, or use more images",
        "red": "worse than the best Gaussian filter: train for longer, or use more images",
    }
    return Check(question, light, -worst[0], f"{words[light]} ({-worst[0]:+.1f} dB of PSNR)")


def _training(steps: int) -> Check:
    enough = steps >= FEW_STEPS
    words = "it was trained" if enough else "barely: train for longer, on a machine that is not busy"
    return Check("Was it trained?", "green" if enough else "yellow", steps, f"{words} ({steps} steps)")


def _likeness(found: Likeness) -> Check:
    figure = max(found.shift, found.contrast - 1)
    answer = ". ".join(filter(None, (found.answer, found.replacing)))
    return Check("Was the model made for this image?", found.light, figure, answer)


def _axis(found: inspection.Inspection, noise_axis: str) -> Check:
    question = "Is the noise axis right?"
    if found.axis == noise_axis:
        return Check(question, "green", 1.0, f"noise axis {noise_axis}, as the noisy image shows")
    if found.axis == "none":
        answer = (
            f"the noisy image shows white noise; the model's axis, {noise_axis}, does no harm, but any denoiser for "
            "independent pixels would do"
        )
        return Check(question, "yellow", 0.5, answer)
    light: Light = "yellow" if noise_axis == "z" or not found.sure else "red"  # z is not looked at
    answer = f"the noisy image shows noise along {found.axis}, the model was trained for {noise_axis}"
    return Check(question, light, 0.0, f"{answer}: train again with --noise-axis {found.axis}")


def _correlation(residual: np.ndarray, axis: int) -> np.ndarray:
    """Autocorrelation at lags 0 to LAGS, pooled over everything else; 0 beyond the length of the axis."""
    values = np.moveaxis(residual - residual.mean(), axis, -1)
    power = max(float(np.mean(values**2)), 1e-30)
    length = values.shape[-1]
    lags = [np.mean(values[..., : length - lag] * values[..., lag:]) if lag < length else 0 for lag in range(LAGS + 1)]
    return np.array(lags) / power


def _by_brightness(
    noisy: np.ndarray, denoised: np.ndarray, residual: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean of the denoised image and of the residual, and its spread, by the brightness of the neighbouring lines.

    Not by that of the denoised image: where it kept some noise it is bright and the residual, too, is positive, in
    the best of estimates. Other lines share no noise with the residual.
    """
    others = np.array([1, 1, 1, 0, 1, 1, 1]) / 6
    brightness = ndimage.correlate1d(ndimage.gaussian_filter1d(noisy, 2.0, axis=-1), others, axis=-2)
    edges = np.quantile(brightness, np.linspace(0, 1, BRIGHTNESSES + 1)[1:-1])
    where = np.searchsorted(edges, brightness.ravel())
    count = np.bincount(where, minlength=BRIGHTNESSES)
    used = count >= max(1, min(FEW, residual.size // (2 * BRIGHTNESSES)))
    count = np.maximum(count, 1)
    values = residual.ravel()
    mean = np.bincount(where, values, BRIGHTNESSES) / count
    squares = np.bincount(where, values**2, BRIGHTNESSES) / count
    level = np.bincount(where, denoised.ravel(), BRIGHTNESSES) / count
    return level[used], mean[used], np.sqrt(np.maximum(squares - mean**2, 1e-30))[used]
