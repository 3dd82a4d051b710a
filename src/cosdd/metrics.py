"""How good is a denoised image? PSNR in its conventions, SSIM, the best Gaussian filter, correlations.

All image arguments are (..., y, x): the last two axes are one image, any axes before them are a stack.
Per-image figures are averaged over the stack. Sums run in float64.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Num
from scipy import ndimage

from cosdd.errors import InputError

_AXES = {"x": -1, "y": -2, "z": -3}


def psnr(
    image: Num[np.ndarray, "*stack y x"],
    reference: Num[np.ndarray, "*stack y x"],
    data_range: float | str,
) -> float:
    """Peak signal-to-noise ratio, 10 log10(range^2 / mse) decibels: per image, then the mean over the stack.

    A PSNR means nothing without its convention. The ones in use for this method:

    - `data_range="unit"` (or 1.0): images in [0, 1]; the usual one for photographs (FFHQ). A number is taken
      as it is, such as 255 for 8-bit images.
    - `data_range="reference"`: max - min of each reference image; the authors' published code. One hot pixel
      in a reference moves it by decibels.
    - `scale_invariant_psnr`: the image mapped affinely onto the reference first (AI4Life 2024, CAREamics).
    - The authors' confocal figures map the *reference* affinely onto the noisy stack and leave the prediction
      alone: `scale, offset = affine_fit(reference, noisy)`, then `psnr(image, scale * reference + offset,
      "reference")`.

    Args:
        image: the estimate, (..., y, x).
        reference: the truth, same shape.
        data_range: a positive number, "unit" or "reference".

    Returns:
        decibels; infinity where an image equals its reference.

    Raises:
        InputError: shapes differ, unknown or non-positive range, constant reference with "reference".
    """
    image, reference = _pair(image, reference)
    error = np.mean((image - reference) ** 2, axis=(-2, -1))
    return _decibels(error, _data_range(reference, data_range))


def affine_fit(image: Num[np.ndarray, "*shape"], reference: Num[np.ndarray, "*shape"]) -> tuple[float, float]:
    """The (scale, offset) that bring scale * image + offset closest to `reference`: one map, least squares.

    A constant image gets scale 0 and the mean of the reference.
    """
    if np.shape(image) != np.shape(reference):
        raise InputError(f"image has shape {np.shape(image)}, reference {np.shape(reference)}: expected equal")
    image, reference = np.asarray(image, np.float64), np.asarray(reference, np.float64)
    centred = image - image.mean()
    power = float(np.vdot(centred, centred))
    scale = float(np.vdot(centred, reference)) / power if power > 0 else 0.0
    return scale, float(reference.mean() - scale * image.mean())


def affine_mse(image: Num[np.ndarray, "*stack y x"], reference: Num[np.ndarray, "*stack y x"]) -> float:
    """Mean squared error after the best affine map image -> reference: per image, then the mean.

    For real data, where image and reference may differ in gain and offset. Units: the reference's, squared.
    It never exceeds the variance of the reference.

    Raises:
        InputError: shapes differ.
    """
    return float(np.mean(_affine_errors(*_pair(image, reference))))


def scale_invariant_psnr(
    image: Num[np.ndarray, "*stack y x"],
    reference: Num[np.ndarray, "*stack y x"],
    data_range: float | str = "reference",
) -> float:
    """PSNR in decibels after the best affine map image -> reference, per image, then the mean over the stack.

    The SI-PSNR of the AI4Life 2024 challenge and CAREamics, with their range max - min of each reference.
    Arguments and errors as in `psnr`.
    """
    image, reference = _pair(image, reference)
    return _decibels(_affine_errors(image, reference), _data_range(reference, data_range))


def ssim(
    image: Num[np.ndarray, "*stack y x"],
    reference: Num[np.ndarray, "*stack y x"],
    data_range: float | str,
) -> float:
    """Structural similarity, 1 for equal images: per image, then the mean over the stack.

    Wang et al. 2004 as published: Gaussian window (sigma 1.5, 11 x 11), K1 = 0.01, K2 = 0.03, population
    covariance, mean over the pixels whose window lies inside the image.

    Args:
        image: the estimate, (..., y, x), at least 11 x 11.
        reference: the truth, same shape.
        data_range: as in `psnr`.

    Raises:
        InputError: as in `psnr`, or images smaller than the window.
    """
    image, reference = _pair(image, reference)
    reach = 5
    if min(image.shape[-2:]) < 2 * reach + 1:
        raise InputError(f"ssim: images are {image.shape[-2:]} pixels, expected at least 11 x 11")
    ranges = np.broadcast_to(_data_range(reference, data_range), image.shape[:-2])

    def local(values: np.ndarray) -> np.ndarray:
        mean = ndimage.gaussian_filter(values, 1.5, axes=(-2, -1), radius=reach)
        return mean[..., reach:-reach, reach:-reach]

    luminance, contrast = ((k * ranges[..., None, None]) ** 2 for k in (0.01, 0.03))
    mean_i, mean_r = local(image), local(reference)
    variance_i = local(image**2) - mean_i**2
    variance_r = local(reference**2) - mean_r**2
    covariance = local(image * reference) - mean_i * mean_r
    similarity = (2 * mean_i * mean_r + luminance) * (2 * covariance + contrast)
    similarity /= (mean_i**2 + mean_r**2 + luminance) * (variance_i + variance_r + contrast)
    return float(similarity.mean())


def best_gaussian(
    noisy: Num[np.ndarray, "*stack y x"],
    clean: Num[np.ndarray, "*stack y x"],
    *,
    max_sigma: float = 16.0,
) -> tuple[Float[np.ndarray, "*stack y x"], float]:
    """The isotropic Gaussian filter chosen with the truth: the control that any denoiser has to beat.

    One sigma for the whole stack, the one of least mean squared error; each image is filtered by itself.

    Args:
        noisy: (..., y, x).
        clean: same shape.
        max_sigma: largest filter tried, pixels.

    Returns:
        the filtered stack, float32, and sigma in pixels (0: no filter helps).

    Raises:
        InputError: shapes differ.
    """
    _pair(noisy, clean)
    truth = np.asarray(clean, np.float32)
    return best_gaussian_by(
        noisy, lambda filtered: float(np.mean((filtered - truth) ** 2, dtype=np.float64)), max_sigma=max_sigma
    )


def best_gaussian_by(
    noisy: Num[np.ndarray, "*stack y x"],
    score: Callable[[np.ndarray], float],
    *,
    max_sigma: float = 16.0,
) -> tuple[Float[np.ndarray, "*stack y x"], float]:
    """`best_gaussian` by a score of your own: the sigma whose filtered stack scores lowest.

    For real data without a clean image, score each frame against the mean of the other frames:
    `best_gaussian_by(frames, lambda filtered: affine_mse(filtered, mean_of_others))`.

    Args:
        noisy: (..., y, x).
        score: takes the filtered stack (float32, same shape), returns a number; lower is better.
        max_sigma: largest filter tried, pixels.

    Returns:
        the filtered stack, float32, and sigma in pixels (0: no filter helps).

    Raises:
        InputError: fewer than two axes, or max_sigma not above 0.3.
    """
    stack = np.asarray(noisy, np.float32)
    if stack.ndim < 2:
        raise InputError(f"noisy image has shape {stack.shape}, expected (..., y, x)")
    chosen = best_sigma(lambda sigma: score(gaussian(stack, sigma)), max_sigma)
    return gaussian(stack, chosen), chosen


def gaussian(image: Num[np.ndarray, "*stack y x"], sigma: float) -> Float[np.ndarray, "*stack y x"]:
    """Each image of a stack under a Gaussian filter of this sigma in pixels, float32; 0: as it is."""
    image = np.asarray(image, np.float32)
    return ndimage.gaussian_filter(image, sigma, axes=(-2, -1)) if sigma else image.copy()


def best_sigma(score: Callable[[float], float], max_sigma: float = 16.0) -> float:
    """The sigma in pixels, 0 to about `max_sigma`, of the filter that scores lowest; `score` filters and looks.

    Raises InputError where max_sigma is not above 0.3.
    """
    if not max_sigma > 0.3:
        raise InputError(f"max_sigma is {max_sigma} pixels, expected more than 0.3")
    # A coarse pass (steps of 15 %) finds the valley, whatever the shape of the score; it stops once the score
    # has risen for a while, because wide filters are the slow ones.
    sigmas, scores = [0.0], [score(0.0)]
    sigma = 0.3
    while sigma <= max_sigma and len(scores) - int(np.argmin(scores)) <= 6:
        sigmas.append(sigma)
        scores.append(score(sigma))
        sigma *= 1.15
    best = int(np.argmin(scores))
    if best == 0:
        return 0.0
    # Golden-section search between the neighbours of the best.
    low, high = sigmas[best - 1], sigmas[min(best + 1, len(sigmas) - 1)]
    golden = (np.sqrt(5) - 1) / 2
    left, right = high - golden * (high - low), low + golden * (high - low)
    score_left, score_right = score(left), score(right)
    while high - low > 0.005 * high:
        if score_left <= score_right:
            high, right, score_right = right, left, score_left
            left = high - golden * (high - low)
            score_left = score(left)
        else:
            low, left, score_left = left, right, score_right
            right = low + golden * (high - low)
            score_right = score(right)
    candidates = [(scores[best], sigmas[best]), (score_left, left), (score_right, right)]
    return float(min(candidates)[1])


def autocorrelation(
    residual: Num[np.ndarray, "*stack y x"], max_lag: int, axis: str = "x"
) -> Float[np.ndarray, " lags"]:
    """Normalised autocorrelation of a residual along one axis, pooled over everything else.

    The mean of the *whole array* is removed, not the mean of each line: a line's own offset is correlated
    noise and must be seen. Value at lag d: the mean of r[i] r[i + d] over all pairs inside a line, divided by
    the mean of r^2. White noise of N pixels gives 0 with standard deviation 1 / sqrt(N) at every lag but 0.

    Args:
        residual: (..., y, x), such as noisy - clean, or the difference of two frames.
        max_lag: largest lag, pixels; at least 0 and less than the length of the axis.
        axis: "x" along rows, "y" along columns, "z" along the axis before them.

    Returns:
        (max_lag + 1,) float64; the first value is 1.

    Raises:
        InputError: unknown axis, lag out of range, residual constant or not finite.
    """
    values = np.asarray(residual, np.float64)
    if axis not in _AXES or values.ndim < max(2, -_AXES[axis]):
        raise InputError(f'axis is {axis!r} for shape {values.shape}, expected "x", "y" or "z" of (..., y, x)')
    values = np.moveaxis(values - values.mean(), _AXES[axis], -1)
    length = values.shape[-1]
    if not 0 <= max_lag < length:
        raise InputError(f"max_lag is {max_lag}, expected 0 to {length - 1} along an axis of {length} pixels")
    power = float(np.mean(values**2))
    if not (np.isfinite(power) and power > 0):
        raise InputError("residual is constant or not finite, so its correlation is not defined")
    lags = [np.mean(values[..., : length - lag] * values[..., lag:]) for lag in range(max_lag + 1)]
    return np.array(lags) / power


# ------------------------------------------------------------------------------------------------ parts


def _pair(image: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    image, reference = np.asarray(image, np.float64), np.asarray(reference, np.float64)
    if image.shape != reference.shape or image.ndim < 2:
        raise InputError(
            f"image has shape {image.shape}, reference {reference.shape}: expected equal shapes (..., y, x)"
        )
    return image, reference


def _data_range(reference: np.ndarray, data_range: float | str) -> np.ndarray:
    """Range of each image of the stack, shape (...) or ()."""
    if data_range == "reference":
        ranges = np.ptp(reference, axis=(-2, -1))
    elif data_range == "unit":
        ranges = np.asarray(1.0)
    elif isinstance(data_range, str):
        raise InputError(f'data_range is {data_range!r}, expected a number, "unit" or "reference"')
    else:
        ranges = np.asarray(float(data_range))
    if not (np.isfinite(ranges).all() and (ranges > 0).all()):
        raise InputError(f"data range is {ranges.min():g}, expected more than 0 (is a reference constant?)")
    return ranges


def _affine_errors(image: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Mean squared error of each image after its own affine map, shape (...)."""
    errors = np.empty(image.shape[:-2])
    for index in np.ndindex(errors.shape):
        scale, offset = affine_fit(image[index], reference[index])
        errors[index] = np.mean((scale * image[index] + offset - reference[index]) ** 2)
    return errors


def _decibels(error: np.ndarray | np.floating, ranges: np.ndarray) -> float:
    """Mean PSNR of a stack; infinity where the error is zero."""
    with np.errstate(divide="ignore"):
        return float(np.mean(10 * np.log10(ranges**2 / error)))
