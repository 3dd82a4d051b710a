"""How good is a denoised image, and how sure is that? Against a clean image, or against other frames of the scene.

Without a clean image, a frame is scored against the mean of the *other* noisy frames of the same scene. Their noise
is not in the frame, so the error they add is known: the variance of that mean, estimated from their spread. It is
taken off, which leaves an unbiased estimate of the error against the clean image, as long as the scene stands still.
"""

from __future__ import annotations

import bisect
import importlib
import importlib.util
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Num

from cosdd import images, metrics
from cosdd.axes import Image
from cosdd.errors import InputError

RESAMPLES = 2000
CONFIDENCE = 0.95
SSIM_EDGE = 11  # pixels; smaller images have no SSIM
SWAPPED = -3.0  # dB by which denoised images are "better" than the noisy ones
UNLIKE = 0.1  # correlation with the clean image: less is another scene
SCALED = 0.8  # share of the error that another offset, or a steeper scale, of the grey values explains
SMALL = 0.1  # share of the variance of the clean image: less is no matter of scales
MOVING = 0.5  # share of the structure that differs from frame to frame: more is no still scene
BESIDE = re.compile(r"(.+)_(std|sample\d+)")  # what `denoise` writes beside an image: no denoised images

MEANING = {
    "psnr_range": "PSNR (dB), peak = {range}",
    "psnr": "PSNR (dB), peak = max - min of each reference image",
    "si_psnr": "PSNR (dB) after the best affine map to the reference, peak = its max - min",
    "ssim": "structural similarity, 1 is equal",
    "microssim": "MicroSSIM, 1 is equal: background and brightness fitted to each image first (package microssim)",
    "mse": "mean squared error, grey values squared",
    "affine_mse": "mean squared error after the best affine map to the reference",
}


@dataclass(frozen=True)
class Score:
    """Mean over the images and the interval that holds it with 95 % confidence (bootstrap over the images)."""

    mean: float
    low: float | None  # None for a single image: one image says nothing about the next
    high: float | None

    def to_json(self) -> dict[str, float | None]:
        """JSON knows no infinity, the PSNR of equal images: null."""
        values = {"mean": self.mean, "low": self.low, "high": self.high}
        return {name: v if v is not None and np.isfinite(v) else None for name, v in values.items()}

    def describe(self) -> str:
        spread = "" if self.low is None else f" ({self.low:.4g} to {self.high:.4g})"
        return f"{self.mean:.4g}{spread}"


@dataclass(frozen=True)
class Evaluation:
    """Scores by candidate ("denoised", and with a noisy image "noisy" and "gaussian") and by metric."""

    images: int
    reference: str  # "clean" or "frames"
    data_range: float | None
    scores: dict[str, dict[str, Score]]
    gaussian_sigma: float | None  # pixels, chosen with the reference
    per_image: dict[str, dict[str, list[float]]]
    moving: float | None = None  # with frames: share of their structure that differs, at least
    likeness: float | None = None  # with clean images: correlation of the denoised ones with them, the median
    scaled: float | None = None  # with clean images: share of the error that is another scale or offset, the median

    def doubt(self) -> str | None:
        """Why the scores are not to be believed, where they are not."""
        if self.likeness is not None and self.likeness < UNLIKE:
            return (
                f"the denoised images do not resemble their references (correlation {self.likeness:.2f}): do they show "
                "the same scenes, in the same order?"
            )
        if self.scaled is not None and self.scaled > SCALED:
            return (
                f"the grey values are on another scale than those of the reference, which makes {self.scaled:.0%} of "
                "the error: compare images of one scale, or by si_psnr, which fits it"
            )
        if self.moving is not None and self.moving > MOVING:
            return (
                f"these frames do not show one still scene: at least {self.moving:.0%} of their structure differs "
                "from one to the other, so the scores say nothing. Compare with clean images, or with frames "
                "where nothing moves"
            )
        if self.reference == "frames" and self.gain("mse", "noisy") < SWAPPED:
            return (
                "the denoised images are much farther from the other frames than the noisy ones are: were the two "
                "swapped? The denoised ones come first"
            )
        for name, found in self.scores.items() if self.reference == "frames" else ():
            for metric, score in found.items():
                if metric.endswith("mse") and score.high is not None and score.high < 0:
                    return (
                        f"{metric} of {name} is below zero, as no error is: do these frames show one still scene, and "
                        "is the noise of each its own?"
                    )
        return None

    def gain(self, metric: str, over: str) -> float:
        """Decibels by which the mean squared error of "denoised" is smaller; 0 where that cannot be said."""
        one, other = (self.scores.get(name, {}).get(metric) for name in (over, "denoised"))
        if one is None or other is None or min(one.mean, other.mean) <= 0:
            return 0.0
        return 10 * math.log10(one.mean / other.mean)

    def to_json(self) -> dict[str, Any]:
        return {
            "images": self.images,
            "reference": self.reference,
            "range": self.data_range,
            "gaussian_sigma": self.gaussian_sigma,
            "doubt": self.doubt(),
            "scores": {
                name: {metric: score.to_json() for metric, score in scores.items()}
                for name, scores in self.scores.items()
            },
        }

    def lines(self) -> list[str]:
        """A table for people, and what its rows mean."""
        against = (
            f"{self.images} frame(s), each against the mean of the others, less the error of that mean"
            if self.reference == "frames"
            else f"{self.images} image(s) against clean ones"
        )
        interval = f"; in brackets the {CONFIDENCE:.0%} interval of the mean" if self.images > 1 else ""
        names = list(self.scores)
        shown = self.scores["denoised"]
        cells = [["", *names]]
        meaning = {m: text.format(range=self.data_range) for m, text in MEANING.items() if m in shown}
        cells += [[metric, *(self.scores[name][metric].describe() for name in names)] for metric in meaning]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        table = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells]
        notes = [f"{metric}: {text}" for metric, text in meaning.items()]
        if self.gaussian_sigma is not None:
            notes.append(
                f"gaussian: the best Gaussian filter of the noisy image, sigma {self.gaussian_sigma:.2g} pixels, "
                "chosen with the reference"
            )
            gains = {metric: self.gain(metric, "gaussian") for metric in ("mse", "affine_mse") if metric in shown}
            told = (f"{abs(gain):.2f} dB {'better' if gain > 0 else 'worse'} by {m}" for m, gain in gains.items())
            notes.append(f"denoised against that filter: {' and '.join(told)}")
        doubt = self.doubt()
        return [f"{against}{interval}", *table, *notes, *([f"warning: {doubt}"] if doubt else [])]

    def rows(self) -> list[dict[str, str | float | int]]:
        """One row per candidate and image, for a spreadsheet."""
        return [
            {"candidate": name, "image": index} | {metric: values[index] for metric, values in found.items()}
            for name, found in self.per_image.items()
            for index in range(self.images)
        ]


class Planes:
    """2-D images (n, y, x), each read, or made, when it is asked for."""

    def __init__(self, count: int, size: Sequence[int], plane: Callable[[int], np.ndarray]):
        self.shape, self._plane = (count, *size), plane

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int) -> np.ndarray:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._plane(index)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[index] for index in range(len(self)))


Stack = np.ndarray | Planes


def find(source: str | Path) -> list[Path]:
    """The images meant, without the standard deviations and samples that `denoise` wrote beside them."""
    paths = images.find([source])
    names = {_name(path) for path in paths}
    return [path for path in paths if not ((beside := BESIDE.fullmatch(_name(path))) and beside[1] in names)]


def read_planes(source: str | Path, like: Sequence[Path] = (), axes: str | None = None) -> Planes:
    """All 2-D images of a file, a folder or a pattern, (n, y, x), in the order of their names.

    They stay in their files. like: files of the same names, where several are meant: the images come in their order.
    Raises InputError where names or sizes do not fit together.
    """
    paths = find(source)
    if len(like) > 1 and len(paths) > 1:
        by_name = {_name(path): path for path in paths}
        missing = [path for path in like if _name(path) not in by_name]
        if missing:
            raise InputError(f"{source}: no partner for {missing[0]}: expected a file named {_name(missing[0])}")
        if len(by_name) < len(paths):
            raise InputError(f"{source}: one image in several formats: keep each format in a folder of its own")
        paths = [by_name[_name(path)] for path in like]
    stacks = [planes(images.read(path, axes)) for path in paths]
    for path, stack in zip(paths, stacks, strict=True):
        if stack.shape[1:] != stacks[0].shape[1:]:
            raise InputError(
                f"{path}: images of {_shape(stack)}, but {paths[0]} has {_shape(stacks[0])}: "
                "evaluate images of one size at a time"
            )
    begins = np.cumsum([0, *map(len, stacks)]).tolist()

    def plane(index: int) -> np.ndarray:
        number = bisect.bisect_right(begins, index) - 1
        return stacks[number][index - begins[number]]

    return Planes(begins[-1], stacks[0].shape[1:], plane)


def _name(path: Path) -> str:
    """What files of one image have in common in all formats: a.tif, a.ome.tif and a.ome.zarr."""
    return path.stem.removesuffix(".ome")


def planes(image: Image) -> Planes:
    """All 2-D images of a file, whatever its other axes. Raises InputError for 1-D or unusable images."""
    images.check(image)
    if "Y" not in image.axes:
        name = image.path or "array"
        raise InputError(f"{name}: axes {image.axes}, expected images with Y and X (say it with --axes)")
    samples = images.to_samples(image, "YX")
    count, channels, *size = samples.shape
    return Planes(count * channels, size, lambda index: np.asarray(samples[divmod(index, channels)]))


def evaluate(
    denoised: Stack,
    reference: Stack,
    noisy: Stack | None = None,
    *,
    frames: bool = False,
    data_range: float | None = None,
    seed: int = 0,
) -> Evaluation:
    """Score every denoised image. Memory holds a few of them, where they come as `Planes`.

    Args:
        denoised: the estimates, (n, y, x).
        reference: clean images, one for each estimate or one for all; with ``frames``, the noisy frames of one
            still scene, of which frame i was denoised to estimate i.
        noisy: what was denoised: it is scored too, and the best Gaussian filter of it (sigma chosen with the
            reference), the control that any denoiser has to beat. With ``frames`` it is the reference itself.
        frames: score against the mean of the other frames.
        data_range: adds PSNR with this peak, such as 255 or 1.
        seed: of the bootstrap.

    Raises:
        InputError: shapes differ, fewer than three frames with ``frames``, or a range that is not positive.
    """
    if data_range is not None and not (np.isfinite(data_range) and data_range > 0):
        raise InputError(f"range is {data_range:g}, expected more than 0")
    if frames:
        if len(denoised) < 3:
            raise InputError(f"{len(denoised)} frame(s): at least 3 of one scene are needed to score against others")
        noisy = reference
    elif len(reference) == 1:
        only = reference[0]
        reference = Planes(len(denoised), reference.shape[1:], lambda _: only)
    for name, stack in (("reference", reference), ("noisy", noisy)):
        if stack is not None and stack.shape != denoised.shape:
            raise InputError(
                f"{name}: {_size(stack)}, but the denoised file has {_size(denoised)}: expected the same images"
            )
    score = _against_frames if frames else _against_clean
    judge = score(reference, data_range)
    per_image = {"denoised": judge(denoised)}
    sigma = None
    if noisy is not None:
        by, unfiltered = "affine_mse" if frames else "mse", noisy

        def filtered(sigma: float) -> Planes:
            return Planes(len(unfiltered), unfiltered.shape[1:], lambda i: metrics.gaussian(unfiltered[i], sigma))

        sigma = metrics.best_sigma(lambda tried: float(np.mean(judge(filtered(tried), by)[by])))
        per_image |= {"noisy": judge(noisy), "gaussian": judge(filtered(sigma))}
    rng = np.random.default_rng(seed)
    picks = rng.integers(len(denoised), size=(RESAMPLES, len(denoised)))
    scores = {
        name: {metric: _interval(np.array(values), picks) for metric, values in found.items()}
        for name, found in per_image.items()
    }
    found = {"moving": _moving(reference)} if frames else _compared(denoised, reference)
    return Evaluation(len(denoised), "frames" if frames else "clean", data_range, scores, sigma, per_image, **found)


def _compared(denoised: Stack, reference: Stack) -> dict[str, float]:
    """`likeness` and `scaled` of an Evaluation; nothing where all images are blank.

    The line goes from clean to denoised grey values: noise that is left does not change it. It is another scale where
    it is steeper than 1 or shifted, by more than a small part of the contrast: a blur makes it flatter.
    """
    likeness, scaled = [], []
    for i in range(len(denoised)):
        image, truth = (stack[i].astype(np.float64) for stack in (denoised, reference))
        variance, shared = truth.var(), np.mean((image - image.mean()) * (truth - truth.mean()))
        if min(variance, image.var()) > 0:  # no blank one, and none with missing pixels
            likeness.append(shared / math.sqrt(variance * image.var()))
            line = max(shared / variance - 1, 0) ** 2 * variance + (image.mean() - truth.mean()) ** 2
            scaled.append(line / np.mean((image - truth) ** 2) if line > SMALL * variance else 0.0)
    return {"likeness": float(np.median(likeness)), "scaled": float(np.median(scaled))} if likeness else {}


def _moving(frames: Stack) -> float | None:
    """Share of the structure of the frames that differs from one to the other, at least; None where too little shows.

    What diagonal neighbours have in common is structure, as noise along x or y is independent there (noise along both
    is not, and counts as what differs). In a still scene the difference of two frames holds none.
    """
    if min(frames.shape[-2:]) < 2:
        return None
    shared, differing = [], []
    for i in range(len(frames)):
        one, other = (frames[j].astype(np.float64) for j in (i, (i + len(frames) // 2) % len(frames)))
        shared.append((_diagonal(one) + _diagonal(other)) / 2)
        differing.append(_diagonal(one - other) / 2)
    structure, error = float(np.mean(shared)), (np.array([np.std(shared), np.std(differing)]) / len(frames) ** 0.5)
    if not structure > 4 * error.sum():
        return None
    return float(np.clip((np.mean(differing) - 2 * error[1]) / structure, 0, 1))


def _diagonal(image: np.ndarray) -> float:
    """Covariance of diagonal neighbours."""
    rest = image - image.mean()
    return float(np.mean(rest[1:, 1:] * rest[:-1, :-1] + rest[1:, :-1] * rest[:-1, 1:]) / 2)


Judge = Callable[..., dict[str, list[float]]]


def _against_clean(reference: Stack, data_range: float | None) -> Judge:
    found: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
        "mse": lambda image, truth: float(np.mean((image.astype(np.float64) - truth) ** 2)),
    }
    if data_range is not None:
        found["psnr_range"] = lambda image, truth: metrics.psnr(image, truth, data_range)
    if all(np.ptp(truth) > 0 for truth in reference):  # a blank reference has no range
        found["psnr"] = lambda image, truth: metrics.psnr(image, truth, "reference")
        found["si_psnr"] = metrics.scale_invariant_psnr
        if min(reference.shape[-2:]) >= SSIM_EDGE:
            found["ssim"] = lambda image, truth: metrics.ssim(image, truth, data_range or "reference")
            if importlib.util.find_spec("microssim"):  # not ours, and not needed
                found["microssim"] = _microssim

    def judge(stack: Stack, only: str | None = None) -> dict[str, list[float]]:
        scores: dict[str, list[float]] = {name: [] for name in found if only in (None, name)}
        for image, truth in zip(stack, reference, strict=True):
            for name, values in scores.items():
                values.append(found[name](image, truth))
        return scores

    return judge


def _microssim(image: np.ndarray, truth: np.ndarray) -> float:
    similarity = importlib.import_module("microssim").micro_structural_similarity
    return float(similarity(truth.astype(np.float64), image.astype(np.float64)))


def _against_frames(frames: Stack, data_range: float | None) -> Judge:
    """Errors against the mean of the other frames, less the error of that mean itself."""
    total, squares = np.zeros(frames.shape[1:]), np.zeros(frames.shape[1:])
    for frame in frames:
        total += frame
        squares += np.square(frame, dtype=np.float64)
    others = len(frames) - 1

    def judge(stack: Stack, only: str | None = None) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {"mse": [], "affine_mse": []}
        if data_range is not None:
            found["psnr_range"] = []
        for image, measured in zip(stack, frames, strict=True):
            frame = measured.astype(np.float64)
            mean = (total - frame) / others
            variance = (squares - frame**2) / others - mean**2
            own = float(variance.clip(0).mean()) / (others - 1)  # of the mean: its noise is not the image's fault
            error = float(np.mean((image - mean) ** 2)) - own
            found["mse"].append(error)
            found["affine_mse"].append(metrics.affine_mse(image, mean) - own)
            if data_range is not None:
                with np.errstate(divide="ignore", invalid="ignore"):
                    found["psnr_range"].append(float(10 * np.log10(np.float64(data_range) ** 2 / error)))
        return {name: values for name, values in found.items() if only in (None, name)}

    return judge


def _interval(values: Float[np.ndarray, " n"], picks: Num[np.ndarray, "k n"]) -> Score:
    if len(values) < 2:
        return Score(float(values.mean()), None, None)
    edge = (1 - CONFIDENCE) / 2
    with np.errstate(invalid="ignore"):  # infinite PSNR of equal images
        low, high = np.quantile(values[picks].mean(1), (edge, 1 - edge), method="nearest")
    return Score(float(values.mean()), float(low), float(high))


def _size(stack: Stack) -> str:
    return f"{len(stack)} image(s) of {_shape(stack)}"


def _shape(stack: Stack) -> str:
    return " x ".join(map(str, stack.shape[1:])) + " pixels"
