"""Every method of the table: what it is, where its code is, and what it must be given."""

from __future__ import annotations

from dataclasses import dataclass

NEEDS = {
    "clean": "clean training images",
    "second": "a second noisy image of each scene",
    "truth": "the clean test images",
}


@dataclass(frozen=True)
class Method:
    """call: module:function. needs: what it must see beyond noisy images. environment: "" for the one that runs us.
    checkout: whether it needs a folder of the authors' code.
    """

    call: str
    says: str
    needs: tuple[str, ...] = ()
    learns: bool = False
    environment: str = ""
    checkout: bool = False


def _of(
    module: str,
    function: str,
    says: str,
    *needs: str,
    learns: bool = False,
    environment: str = "",
    checkout: bool = False,
) -> Method:
    return Method(f"benchmarks.table.{module}:{function}", says, needs, learns, environment, checkout)


METHODS = {
    "noisy": _of("classical", "nothing", "the noisy images themselves"),
    "gaussian": _of("classical", "gaussian", "Gaussian filter, width by the truth: an oracle", "truth"),
    "median": _of("classical", "median", "median filter, window by the truth: an oracle", "truth"),
    "non-local means": _of("classical", "non_local_means", "scikit-image, noise by its own estimate"),
    "wavelet-FFT": _of("classical", "wavelet_fft", "Münch 2009, width by the truth: an oracle", "truth"),
    "row median": _of("classical", "row_median", "row offsets taken off"),
    "row Wiener": _of("classical", "row_wiener", "windowed Fourier shrinkage with the row spectrum of the noise"),
    "3x3 autocorrelation": _of("classical", "own_autocorrelation", "each image convolved with its autocorrelation"),
    "BM3D": _of("classical", "bm3d", "with the row spectrum; non-commercial, used where the user installed it"),
    "auto": _of("ours", "auto", "ours, the default: the blind-row Bayesian denoiser", learns=True),
    "cosdd": _of("ours", "cosdd", "ours after the paper: by default, direct, and the bare mean of 100", learns=True),
    "published COSDD": _of("theirs", "as_published", "the authors' code, small networks", learns=True, checkout=True),
    "published COSDD mended": _of("theirs", "mended", "the same, its shuffling mended", learns=True, checkout=True),
    "row-split Noise2Noise": _of("controls", "row_split", "control: even rows predict odd rows", learns=True),
    "row-masked network": _of("controls", "row_masked", "control: rows predicted from the other rows", learns=True),
    "N2V": _of("peers", "n2v", "white noise only", learns=True, environment="careamics"),
    "Structured N2V": _of("peers", "structured_n2v", "told the noise's reach", learns=True, environment="careamics"),
    "N2V small batch": _of(
        "peers", "n2v_small", "batch and arithmetic of ours", learns=True, environment="careamics"
    ),
    "Structured N2V small batch": _of(
        "peers", "structured_n2v_small", "batch and arithmetic of ours", learns=True, environment="careamics"
    ),
    "N2V2": _of("peers", "n2v2", "white noise only", learns=True, environment="careamics"),
    "AP-BSN": _of("apbsn", "ap_bsn", "blind-spot network on every fifth pixel", learns=True),
    "HDN36": _of("hdn", "hdn36", "hierarchical VAE with a noise model from clean images", "clean", learns=True),
    "CARE": _of("peers", "care", "regression to clean images", "clean", learns=True, environment="careamics"),
    "Noise2Noise": _of("peers", "noise2noise", "regression to pairs", "second", learns=True, environment="careamics"),
}  # fmt: skip
