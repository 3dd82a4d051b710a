"""The images of the table, and how an estimate of them is scored."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from benchmarks.real import against_others_in_place, drift, streaks
from benchmarks.record import DATA
from cosdd import metrics, simulate
from cosdd.errors import InputError
from cosdd.specimen import specimen

EDGE = 128  # pixels: centre crops of the clean images
TESTED = 40  # images at the end of each clean source
FLOATS = dict[str, float]


@dataclass(frozen=True)
class Noise:
    """A recipe of ``cosdd.simulate`` with the noise along x, and how far it is correlated (None: the whole row)."""

    recipe: str
    options: dict[str, Any]
    extent: int | None


NOISES = {
    "stripe": Noise("stripe", {}, 4),  # the paper's: Poisson, white, and row-blurred Gaussian noise
    "checkerboard": Noise("checkerboard", {"axis": "x"}, None),  # the paper's: white noise and a - - + + pattern
    "row-ar": Noise("row-ar", {}, 4),  # Poisson noise and autoregressive streaks, correlation .6
    "row-ar-negative": Noise("row-ar", {"shot_correlation": -0.3, "row_std": 0.0}, 4),  # shared with the next pixel
    "white": Noise("stripe", {"gain": 0.0, "read_std": 25 / 255, "white_std": 0.0}, 0),
    "heavy": Noise("heavy", {}, 4),  # Poisson noise of 20 counts and strong row-blurred Gaussian noise
}


@dataclass(frozen=True)
class Set:
    """Images (n, y, x) with the noise along x. `judge` scores an estimate of the test images.

    clean: of the training images; of real frames the mean of the others, against which they are scored as well.
    second: another noisy image of each scene; of real frames the one before.
    truth: what the test images are scored against, where that is an image.
    """

    name: str
    train: np.ndarray
    test: np.ndarray
    extent: int | None
    judge: Callable[[np.ndarray], FLOATS]
    clean: np.ndarray | None = None
    second: np.ndarray | None = None
    truth: np.ndarray | None = None


# Where the images of each source are, in the folder of those that are not part of the repository.
STORED = {
    "bsd400": "clean/bsd400",  # images of one size, 128 pixels or more
    "nuclei256": "clean/nuclei256.npz",  # an array "images" (n, y, x), 0 to 255
    "twophoton": "noisy/twophoton_neurons_20x128x256.tif",
    "confocal": "noisy/confocal_counts",  # the first file of it: frames of one scene
    "aurora": "noisy/emccd_aurora_2x512x512.tif",
    "stem": "noisy/stem_srtio3_1024x1024.tif",
    "stem_dso": "noisy/stem_dso_1024x1024.tif",
}


def stored(source: str) -> Path:
    """Raises InputError where it is not there."""
    path = DATA / STORED[source]
    if not path.exists():
        raise InputError(
            f"{path}: not there, expected the images of {source} (--data says where the folder is; "
            "--sets specimen-heavy needs none)"
        )
    return path


def check(names: Iterable[str]) -> None:
    """Raises InputError unless all images of the sets are there."""
    for name in names:
        source = name.split("-")[0]
        if source in STORED:
            stored(source)


@cache
def clean_images(source: str) -> np.ndarray:
    """(n, EDGE, EDGE), 0 to 1; the last TESTED are for tests."""
    if source == "specimen":
        return specimen(120 + TESTED, EDGE, 0)
    if source == "nuclei256":
        with np.load(stored(source), allow_pickle=False) as file:
            images = file["images"].astype(np.float32) / 255
    else:
        files = sorted(stored(source).glob("*"))
        images = np.stack([np.asarray(Image.open(file).convert("L"), np.float32) for file in files]) / 255
    top, left = (n // 2 - EDGE // 2 for n in images.shape[1:])
    return images[:, top : top + EDGE, left : left + EDGE]


def simulated(source: str, kind: str, seed: int, tested: int) -> Set:
    """Noise from `seed`; `tested` of the TESTED test images, evenly spaced."""
    noise, clean = NOISES[kind], clean_images(source)
    picked = np.linspace(len(clean) - TESTED, len(clean) - 1, min(tested, TESTED)).round().astype(int)

    def noisy(images: np.ndarray, which: int) -> np.ndarray:
        return simulate.RECIPES[noise.recipe](images, np.random.default_rng((seed, which)), **noise.options)

    train, truth = clean[:-TESTED], clean[picked]
    return Set(
        name=f"{source}-{kind}",
        train=noisy(train, 0),
        test=noisy(clean[-TESTED:], 2)[picked - len(train)],
        extent=noise.extent,
        judge=partial(against_truth, truth),
        clean=train,
        second=noisy(train, 1),
        truth=truth,
    )


def against_truth(truth: np.ndarray, images: np.ndarray) -> FLOATS:
    """PSNR with range 1, per image, then the mean; SSIM alike; and PSNR after the best affine map."""
    return {
        "psnr": metrics.psnr(images, truth, "unit"),
        "ssim": metrics.ssim(images, truth, "unit"),
        "si_psnr": metrics.scale_invariant_psnr(images, truth, "unit"),
    }


def twophoton(seed: int, tested: int) -> Set:
    noisy = tifffile.imread(stored("twophoton")).astype(np.float32)
    shifts = drift(noisy)

    def judge(images: np.ndarray) -> FLOATS:
        return {"mse_in_place": against_others_in_place(images, noisy, shifts)} | against_others(noisy, images, picked)

    picked = np.arange(len(noisy))
    mean = mean_of_others(noisy, picked)
    return Set("twophoton", noisy, noisy, 2, judge, clean=mean, second=np.roll(noisy, 1, 0), truth=mean)


def confocal(seed: int, tested: int) -> Set:
    path = sorted(stored("confocal").glob("*"))[0]
    noisy = tifffile.imread(path).astype(np.float32)
    picked = np.linspace(0, len(noisy) - 1, min(tested, len(noisy))).round().astype(int)
    mean = mean_of_others(noisy, np.arange(len(noisy)))
    return Set("confocal", noisy, noisy[picked], 0, lambda images: against_others(noisy, images, picked),
               clean=mean, second=np.roll(noisy, 1, 0), truth=mean[picked])  # fmt: skip


def mean_of_others(noisy: np.ndarray, picked: np.ndarray) -> np.ndarray:
    return (noisy.sum(0) - noisy[picked]) / (len(noisy) - 1)


def against_others(noisy: np.ndarray, images: np.ndarray, picked: np.ndarray) -> FLOATS:
    """Mean squared error of frames `picked` against the mean of the others, after the best affine map.

    The noise of that mean, estimated from the scatter of the frames, is part of it.
    """
    own = float(noisy.var(0, ddof=1).mean() / (len(noisy) - 1))
    return {"mse": metrics.affine_mse(images, mean_of_others(noisy, picked)), "mse_of_the_reference": own}


def without_reference(name: str, extent: int, seed: int, tested: int) -> Set:
    noisy = tifffile.imread(stored(name)).astype(np.float32)
    noisy = noisy.reshape(-1, *noisy.shape[-2:])
    return Set(name, noisy, noisy, extent, partial(by_itself, noisy))


def by_itself(noisy: np.ndarray, images: np.ndarray) -> FLOATS:
    """Scores without a reference: what must fall, and whether what was taken away looks like the noise.

    streaks: variance of row-to-row differences of 16-pixel row segments. rows: the same of single pixels.
    residual_x1, residual_y1: correlation of what was removed, with the next pixel of the row (that of the noise is
    right) and of the column (0 is right, more is structure). A blur lowers the first two too; only the last sees it.
    """
    found = {"streaks": streaks(images), "rows": float(np.diff(images, axis=-2).var())}
    removed = noisy - images
    if removed.std() > 0:
        found |= {f"residual_{axis}1": float(metrics.autocorrelation(removed, 1, axis)[1]) for axis in "xy"}
    return found


SETS: dict[str, Callable[[int, int], Set]] = {
    f"{source}-{kind}": partial(simulated, source, kind)
    for source, kinds in (
        ("bsd400", ("stripe", "checkerboard", "row-ar", "row-ar-negative", "white")),
        ("nuclei256", ("stripe", "checkerboard", "row-ar", "row-ar-negative", "white")),
        ("specimen", ("heavy",)),
    )
    for kind in kinds
}
SETS |= {
    "twophoton": twophoton,
    "confocal": confocal,
    "aurora": partial(without_reference, "aurora", 2),
    "stem": partial(without_reference, "stem", 4),
    "stem_dso": partial(without_reference, "stem_dso", 12),
}
