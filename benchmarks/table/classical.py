"""Methods that learn nothing. Oracles choose their one number with the clean test images: no method can do better
with that filter."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
from scipy import ndimage

from benchmarks.table.task import Filter, Fitted, Task
from cosdd import metrics, noisefloor

BLOCK, STEP = 16, 4  # pixels, of the windowed Fourier transform


def nothing(task: Task) -> Fitted:
    return Fitted({"noisy": lambda x: x})


def gaussian(task: Task) -> Fitted:
    assert task.truth is not None
    _, sigma = metrics.best_gaussian(task.test, task.truth)
    blur = partial(ndimage.gaussian_filter, sigma=sigma, axes=(-2, -1))
    return Fitted({"best Gaussian": blur if sigma else lambda x: x}, facts={"sigma": sigma, "oracle": True})


def median(task: Task) -> Fitted:
    windows = ((3, 1), (5, 1), (3, 3), (5, 5), (7, 7))
    filters = {f"{h}x{w}": partial(ndimage.median_filter, size=(1, h, w)) for h, w in windows}
    return _oracle(task, "median", filters)


def wavelet_fft(task: Task) -> Fitted:
    filters = {f"{width:g}": partial(_destriped, width=width) for width in (0.5, 1, 2, 4, 8, 16)}
    return _oracle(task, "wavelet-FFT", filters)


def row_median(task: Task) -> Fitted:
    return Fitted({"row median": _without_offsets}, facts={"smoothing": 8})


def non_local_means(task: Task) -> Fitted:
    from skimage import restoration

    def filtered(image: np.ndarray) -> np.ndarray:
        s = float(restoration.estimate_sigma(image))
        return restoration.denoise_nl_means(
            image, patch_size=7, patch_distance=11, h=0.8 * s, sigma=s, fast_mode=True, preserve_range=True
        )

    return Fitted({"non-local means": lambda x: np.stack([filtered(image) for image in x])})


def own_autocorrelation(task: Task) -> Fitted:
    def filtered(image: np.ndarray) -> np.ndarray:
        power = np.fft.ifft2(np.abs(np.fft.fft2(image - image.mean())) ** 2).real
        kernel = np.roll(power, (1, 1), (0, 1))[:3, :3]
        return ndimage.convolve(image, kernel / kernel.sum(), mode="reflect")

    return Fitted({"3x3 autocorrelation": lambda x: np.stack([filtered(image) for image in x])})


def bm3d(task: Task) -> Fitted:
    import bm3d  # pyright: ignore[reportMissingImports] # "free for non-commercial use": the user's own installation

    noise = RowSpectrum(task.train)

    def filtered(image: np.ndarray) -> np.ndarray:
        height, width = image.shape
        power = noise.at(float(image.mean()), np.ones(width)) * height
        return bm3d.bm3d(image.astype(np.float64), np.broadcast_to(power, image.shape))

    return Fitted({"BM3D": lambda x: np.stack([filtered(image) for image in x])})


def row_wiener(task: Task) -> Fitted:
    noise = RowSpectrum(task.train)
    return Fitted({"row Wiener": lambda x: np.stack([shrunk(image, noise) for image in x])}, facts={"block": BLOCK})


def _oracle(task: Task, name: str, filters: Mapping[str, Filter]) -> Fitted:
    """The filter that comes closest to the truth."""
    truth = task.truth
    assert truth is not None
    best = min(filters, key=lambda key: float(np.mean((filters[key](task.test) - truth) ** 2)))
    return Fitted({name: filters[best]}, facts={"chosen": best, "oracle": True})


def _destriped(images: np.ndarray, width: float) -> np.ndarray:
    """Detail across the rows is what streaks make: take its low frequencies along x out of every wavelet band."""
    import pywt

    height, columns = images.shape[-2:]
    bands = pywt.wavedec2(images, "db3", mode="symmetric", axes=(-2, -1))
    kept = [bands[0]]
    for across, along, diagonal in bands[1:]:
        frequency = np.fft.rfftfreq(across.shape[-1]) * across.shape[-1]
        damped = 1 - np.exp(-(frequency**2) / (2 * (width * across.shape[-1] / columns) ** 2))
        across = np.fft.irfft(np.fft.rfft(across, axis=-1) * damped, across.shape[-1], axis=-1)
        kept.append((across, along, diagonal))
    return pywt.waverec2(kept, "db3", mode="symmetric", axes=(-2, -1))[..., :height, :columns]


def _without_offsets(images: np.ndarray) -> np.ndarray:
    """What the median of a row has that its surroundings have not."""
    level = np.median(images, axis=-1, keepdims=True)
    return images - (level - ndimage.gaussian_filter1d(level, 8, axis=-2))


class RowSpectrum:
    """Power spectrum along the row of noise that was measured across the rows, by brightness."""

    def __init__(self, images: np.ndarray) -> None:
        floor = noisefloor.measure(list(images[:, None]), -1)
        if floor is None:
            raise ValueError("too few rows to measure the noise")
        order = np.argsort(floor.signal[0])
        self.signal, self.covariance = floor.signal[0][order], floor.covariance[0][order]

    def at(self, brightness: float | np.ndarray, window: np.ndarray) -> np.ndarray:
        """Expected |FFT(window * noise)|^2 along the row: (..., len(window)) for brightness (...)."""
        size, lags = len(window), self.covariance.shape[1]
        overlap = np.correlate(window, window, "full")[size - 1 :][:lags]
        wave = np.cos(2 * np.pi * np.outer(np.arange(len(overlap)), np.arange(size)) / size)
        wave[1:] *= 2
        covariance = np.stack(
            [np.interp(brightness, self.signal, lag) for lag in self.covariance.T[: len(overlap)]], -1
        )
        power = (covariance * overlap) @ wave
        return np.maximum(power, 1e-3 * power.mean(-1, keepdims=True).clip(1e-12))


def shrunk(image: np.ndarray, noise: RowSpectrum) -> np.ndarray:
    """Threshold, then an empirical Wiener filter by the result, in overlapping windowed Fourier blocks."""
    window = np.sin(np.pi * (np.arange(BLOCK) + 0.5) / BLOCK)
    both = np.outer(window, window)
    padded = np.pad(image, BLOCK, mode="reflect")
    blocks = _blocks(padded)
    level = blocks.mean((-2, -1))
    power = noise.at(level, window)[..., None, :] * np.square(window).sum()
    spectrum = np.fft.fft2((blocks - level[..., None, None]) * both)
    pilot = _joined(spectrum * (np.abs(spectrum) ** 2 > 2.7**2 * power), level, both, padded.shape)
    guide = _blocks(pilot)
    level = guide.mean((-2, -1))
    strength = np.abs(np.fft.fft2((guide - level[..., None, None]) * both)) ** 2
    spectrum = np.fft.fft2((blocks - level[..., None, None]) * both)
    result = _joined(spectrum * strength / (strength + power), level, both, padded.shape)
    return result[BLOCK:-BLOCK, BLOCK:-BLOCK]


def _blocks(image: np.ndarray) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(image, (BLOCK, BLOCK))[::STEP, ::STEP]


def _joined(spectrum: np.ndarray, level: np.ndarray, window: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Add up the blocks, each weighted by the window once more."""
    blocks = np.fft.ifft2(spectrum).real * window + level[..., None, None] * window**2
    total, weight = np.zeros(shape), np.zeros(shape)
    for y in range(blocks.shape[0]):
        for x in range(blocks.shape[1]):
            here = np.s_[y * STEP : y * STEP + BLOCK, x * STEP : x * STEP + BLOCK]
            total[here] += blocks[y, x]
            weight[here] += window**2
    return total / np.maximum(weight, 1e-9)
