"""Do the rows of an image swing together? Mains or vibration may displace the rows of a scan, or brighten them, in
turn, with a period of two to four rows. "Row" is the line of pixels along the noise axis.

Whatever learns a row from other rows takes their noise to be independent; but what has a period can be told from other
rows, counts as structure, and stays. Measured in stretches of each row, against the image smoothed across the rows:
their displacement (by regression on the derivative along the row) and their brightness. Across the rows, both have
spectra in which what is independent from row to row is flat and a swing is a hump. Rows in random order tell how high
chance is; and where rows swing as a whole, different stretches of them are coherent in the hump.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

ACROSS, ALONG = 3.0, 1.5  # pixels, standard deviations of the smoothing
FROM = 0.15  # cycles per row: what optics let through usually ends below
HALF = 0.04  # cycles per row: half the width of a hump
SHUFFLES = 100
TOGETHER = 0.5  # coherence, which of so many rows is not reached by chance
CLEAR = 1.4  # times what chance reaches; offsets of whole rows are coherent too, but have no hump
FEWEST, SHORTEST = 512, 128  # rows in all, and pixels of each


@dataclass(frozen=True)
class Swing:
    """The highest hump in the spectrum of one measure across the rows.

    what: "displaced" or "brighter". period: in rows. height: of the hump, over the median of the spectrum. chance: what
    that of rows in random order stays below, 95 times in a hundred. coherence: of different stretches of the rows, in
    the hump, 0 to 1.
    """

    what: str
    period: float
    height: float
    chance: float
    coherence: float

    @property
    def clear(self) -> bool:
        return self.coherence > TOGETHER and self.height > CLEAR * self.chance


def segments(images: np.ndarray, length: int) -> np.ndarray:
    """(n, y, x) -> (n, y, stretches, length)."""
    whole = images.shape[-1] // length * length
    return images[..., :whole].reshape(*images.shape[:-1], -1, length)


def displacements(noisy: np.ndarray, length: int) -> np.ndarray:
    """Of each stretch of each row (n, y, stretches), in no unit: stretches of little contrast count little."""
    smooth = gaussian_filter1d(gaussian_filter1d(noisy, ACROSS, axis=1), ALONG, axis=2)
    slope, rest = segments(np.gradient(smooth, axis=2), length), segments(noisy - smooth, length)
    slope, rest = slope - slope.mean(-1, keepdims=True), rest - rest.mean(-1, keepdims=True)
    return -(slope * rest).sum(-1) / max((slope**2).sum(-1).mean(), 1e-30)


def brightness(noisy: np.ndarray, length: int) -> np.ndarray:
    """Of each stretch of each row (n, y, stretches)."""
    return segments(noisy - gaussian_filter1d(noisy, ACROSS, axis=1), length).mean(-1)


def transform(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies in cycles per row, and Fourier coefficients across the rows, of values (n, y, stretches)."""
    window = np.hanning(values.shape[1])[:, None]
    window /= np.sqrt(np.mean(window**2))
    return np.fft.rfftfreq(values.shape[1]), np.fft.rfft((values - values.mean(1, keepdims=True)) * window, axis=1)


def hump(values: np.ndarray) -> tuple[float, float]:
    """Where the spectrum across the rows is highest, in cycles per row, and by how many times its median.

    Or its power just below, if that is more: of structure, or of a slower swing, the coarsest is highest. The coarsest
    of all is no hump.
    """
    frequencies, coefficients = transform(values)
    smooth = gaussian_filter1d((np.abs(coefficients) ** 2).mean((0, 2)), 0.5 * HALF * values.shape[1])
    inside = frequencies > FROM + 2 * HALF
    best = int(np.argmax(smooth * inside))
    if best == int(np.argmax(inside)):
        return float(frequencies[best]), 1.0
    below = smooth[np.searchsorted(frequencies, frequencies[best] - 2 * HALF)]
    return float(frequencies[best]), float(smooth[best] / max(np.median(smooth[frequencies > FROM]), below, 1e-30))


def chance(values: np.ndarray) -> float:
    """What the hump of the same rows in random order is below of, 95 times in a hundred."""
    generator = np.random.default_rng(0)
    return float(np.quantile([hump(generator.permutation(values, axis=1))[1] for _ in range(SHUFFLES)], 0.95))


def coherence(values: np.ndarray, at: float) -> float:
    """Of stretches half a row apart, within HALF of a frequency: 1 where they swing as one.

    Where they are independent it falls with the root of the number of rows: .4 for 512 of them.
    """
    frequencies, coefficients = transform(values)
    inside = coefficients[:, np.abs(frequencies - at) < HALF]
    half = values.shape[2] // 2
    a, b = inside[..., :half], inside[..., half : 2 * half]
    shared = np.abs((a * b.conj()).sum((0, 1)))
    alone = (np.abs(a) ** 2).sum((0, 1)) * (np.abs(b) ** 2).sum((0, 1))
    return float(np.mean(shared / np.sqrt(alone).clip(1e-30)))


MEASURES: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {"displaced": displacements, "brighter": brightness}


def measured(windows: Sequence[np.ndarray]) -> list[Swing]:
    """Of windows (n, rows, pixels) of one size, by each measure; nothing where they are too small to tell."""
    noisy = np.concatenate(windows).astype(np.float64)
    if noisy.shape[0] * noisy.shape[1] < FEWEST or noisy.shape[2] < SHORTEST:
        return []
    swings = []
    for what, measure in MEASURES.items():
        values = measure(noisy, noisy.shape[2] // 2)
        at, height = hump(values)
        swings.append(Swing(what, 1 / at, height, chance(values), coherence(values, at)))
    return swings


def found(windows: Sequence[np.ndarray]) -> Swing | None:
    """The clearest swing, as `measured`; None where no rows swing, or not together."""
    return max((s for s in measured(windows) if s.clear), key=lambda swing: swing.height, default=None)
