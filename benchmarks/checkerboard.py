"""Why row Wiener beats ``auto`` on the checkerboard: ``python -m benchmarks.checkerboard``.

Row Wiener takes the noise as it was measured across the rows; ``auto`` fits a model to that measurement: variances
that rise linearly with the signal, and the autocorrelation of a short kernel. Here row Wiener is given the fitted
model instead, whole and in parts. What it loses is what the model cannot hold.
"""

from __future__ import annotations

import copy

import numpy as np
import torch

from benchmarks.record import write
from benchmarks.table.classical import RowSpectrum, shrunk
from benchmarks.table.sets import SETS, Set
from cosdd import metrics, noisefloor
from cosdd.model.blindrow import RowNoise


def fitted(images: np.ndarray, signal: np.ndarray, lags: int, taps: int) -> np.ndarray:
    """Covariance (brightness, lags) of the noise model of ``auto`` where the clean image is `signal`."""
    mean, std = images.mean(), images.std()
    floor = noisefloor.measure(list(((images - mean) / std)[:, None]), -1)
    assert floor is not None
    torch.manual_seed(0)
    model = RowNoise(1, taps)
    model.start_at(floor)
    with torch.no_grad():
        s = torch.as_tensor((signal - mean) / std, dtype=torch.float32)[None, None]
        covariance = model.correlated(s).flatten()[:, None] * model.autocorrelation(lags)[0] + model.offset().flatten()
        covariance[:, 0] += model.white(s).flatten()
    return covariance.numpy() * std**2


def main() -> None:
    images: Set = SETS["bsd400-checkerboard"](0, 8)
    measured = RowSpectrum(images.train)
    own = measured.covariance
    short, long = (fitted(images.train, measured.signal, own.shape[1], taps) for taps in (15, 127))

    def score(covariance: np.ndarray) -> float:
        noise = copy.copy(measured)
        noise.covariance = covariance
        assert images.truth is not None
        return round(metrics.psnr(np.stack([shrunk(i, noise) for i in images.test]), images.truth, "unit"), 2)

    def shape(covariance: np.ndarray) -> np.ndarray:
        return covariance / covariance[:, :1]

    middle = len(own) // 2
    results = {
        "psnr": {
            "measured": score(own),
            "fitted": score(short),
            "measured variances, fitted correlations": score(shape(short) * own[:, :1]),
            "fitted variances, measured correlations": score(shape(own) * short[:, :1]),
            "fitted with a kernel of 127 pixels": score(long),
        },
        "lags": {
            name: [round(float(shape(c)[middle, lag]), 2) for lag in (2, 4, 8, 12)]
            for name, c in (("measured", own), ("fitted", short), ("fitted, 127 pixels", long))
        },
        "variance": {name: round(float(c[middle, 0]), 5) for name, c in (("measured", own), ("fitted", short))},
    }
    print(write("checkerboard", "python -m benchmarks.checkerboard", results), results)


if __name__ == "__main__":
    main()
