"""Denoising: a trained model at work, on images of any kind, frame by frame.

Of a blind-row model posterior mean and standard deviation are solved for here; what a COSDD model does with a frame is
in `sampling`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from cosdd import checkpoint as files
from cosdd import data, device, errors, generation, images, likeness, outliers
from cosdd.axes import Image
from cosdd.checkpoint import Checkpoint
from cosdd.errors import InputError
from cosdd.generation import Generated
from cosdd.lazy import Pixels
from cosdd.likeness import Likeness
from cosdd.model import COSDD, BlindRow
from cosdd.model.quick import quick
from cosdd.outliers import Outliers
from cosdd.progress import out
from cosdd.sampling import Memory, Sampling, Settings

MIRRORS = ((-1,), (-2,), (-2, -1))  # axes along which an image is flipped
# Work of a pass of the last step, in that of an estimate, about: of a blind-row model, of samples, of a direct one.
REFINING, REFINING_SAMPLES, REFINING_DIRECT = 0.1, 0.05, 0.5
STRIP, SMALLEST_STRIP = 1 << 22, 1 << 16  # pixels that are solved together, about: at first, and where memory is short


@dataclass(frozen=True)
class Result:
    """Denoised images as float32 arrays in the axis order and grey values of the input.

    mean: average of the samples, or the direct denoiser's estimate, or of a blind-row model the posterior mean; refined
    (`model.wiener`) unless ``plain``.
    std: standard deviation over the samples, before their mean is refined; or of the posterior, by the factor that
    held-out frames asked for (`calibration`; not with ``plain``, as it is measured of the refined mean); None with the
    direct denoiser.
    samples: (k, *shape of the input), each a clean image that explains the noisy one equally well; None where
    save_samples is 0.
    taken: how many samples were averaged, for each of the separate images; 0 where none are drawn.
    notes: what speaks against the result before anybody has looked at it, such as images unlike those trained on.
    """

    mean: np.ndarray
    std: np.ndarray | None
    samples: np.ndarray | None
    taken: tuple[int, ...] = (0,)
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        given = [f"{name} {array.shape}" for name, array in vars(self).items() if isinstance(array, np.ndarray)]
        return f"Result({', '.join(given)}, {self.mean.dtype})"


@dataclass(frozen=True)
class Noise:
    """Noise of one channel, in grey values: its variance is `gain * signal + variance_at_zero`.

    row_offset: standard deviation of what a whole row has in common; a part of that variance.
    autocorrelation: along the row at lags 1, 2, ... pixels, where the image has its average brightness.
    by_brightness: (grey value, variance) where no straight line describes the variance, and the above is only the
    best one; else empty. wave: standard deviation of a wave along the row, and its period in pixels; 0 and 0 where
    there is none.
    """

    gain: float
    variance_at_zero: float
    row_offset: float
    autocorrelation: tuple[float, ...]
    by_brightness: tuple[tuple[float, float], ...] = ()
    wave: tuple[float, float] = (0.0, 0.0)

    def describe(self) -> str:
        """One line for people."""
        lags = " ".join(f"{value:+.2f}" for value in self.autocorrelation[:5])
        sign = "-" if self.variance_at_zero < 0 else "+"
        variance = f"variance = {self.gain:.3g} x grey value {sign} {abs(self.variance_at_zero):.3g}"
        if self.by_brightness:
            variance = "variance by grey value " + ", ".join(f"{s:.3g}: {v:.3g}" for s, v in self.by_brightness)
        size, period = self.wave
        return (
            f"{variance}; correlation at lags 1 to 5: {lags}, row offsets of standard deviation {self.row_offset:.2g}"
            + (f", a wave of standard deviation {size:.2g} and period {period:.3g} pixels" if size else "")
        )


_PREPARED: WeakKeyDictionary[COSDD, tuple[object, COSDD]] = WeakKeyDictionary()


def _prepared(network: COSDD | BlindRow, where: torch.device) -> COSDD | BlindRow:
    """The network as it denoises quickest; made once, for as long as its weights stay as they are."""
    if isinstance(network, BlindRow):
        return network.to(where)
    weights = (*network.parameters(), *network.buffers())
    # Those of a network that was made in inference mode count no versions.
    known = where, [(t.data_ptr(), 0 if t.is_inference() else t._version) for t in weights]
    before = _PREPARED.get(network)
    if before is None or before[0] != known:
        before = _PREPARED[network] = known, quick(network).to(where)
    return before[1]


@dataclass(frozen=True)
class Denoiser:
    """A trained model at work; ``cosdd.train`` and ``cosdd.load`` return one."""

    checkpoint: Checkpoint

    def __repr__(self) -> str:
        settings, made = self.checkpoint.settings, self.checkpoint
        return (
            f"Denoiser(method {settings.method}, noise axis {settings.model.noise_axis}, {self.spatial} images of "
            f"{settings.model.channels} channel(s), trained {made.steps} steps in {made.seconds:.0f} s)"
        )

    @staticmethod
    def load(path: str | Path) -> Denoiser:
        """Read a model file. Raises InputError where it is missing, damaged or too new."""
        return Denoiser(files.load(path))

    def save(self, path: str | Path, overwrite: bool = False) -> None:
        """Write a model file (.safetensors). Raises InputError where it exists and ``overwrite`` is off."""
        files.save(self.checkpoint, path, overwrite)

    @property
    def spatial(self) -> str:
        """The axes that the model sees as space: "X", "YX" or "ZYX"; all others are separate images."""
        return images.SPATIAL[self.checkpoint.settings.model.dimensions]

    def denoise(
        self,
        noisy: np.ndarray | Image | str | Path,
        *,
        axes: str | None = None,
        samples: int | None = None,
        plain: bool = False,
        save_samples: int = 0,
        direct: bool = False,
        flips: bool = False,
        tile: int | None = None,
        seed: int = 0,
        progress: Callable[[float], None] | None = None,
    ) -> Result:
        """Denoise an array, an Image or a file; all at once.

        axes: letters such as "TYX" where an array or file does not say (2-D is YX, 3-D is TYX).
        samples: posterior samples to average; by default as many as it takes for each image, until the standard error
        of their mean is small next to the noise. plain: the paper's estimate, the mean of independent samples, 100 by
        default, or of a blind-row model the posterior mean in closed form; else the noise of samples is coupled so that
        most of it cancels, and a filter refines their mean. save_samples: how many samples to return.
        direct: use the direct denoiser, one pass. flips: average over the mirrored images too (blind-row models),
        four times the work. tile: edge in pixels of the tiles in which a COSDD model works, by default as memory
        allows; the result is that of the whole image. progress: called with the share done, 0 to 1.
        Raises InputError for images that the model cannot denoise; warns of images unlike those it was trained on.
        """
        image = _opened(noisy, axes)
        settings = Settings(samples, plain, save_samples, direct, flips, tile, seed)
        frames = self.frames(image)
        like = self.likeness(frames)
        if like.light == "red":
            warnings.warn(like.answer, stacklevel=2)
        means, stds, kept, taken = [], [], [], []
        with errors.about(image.path):
            for frame in self.stream(frames, settings, defects=like.defects):
                if not isinstance(frame, Result):
                    if progress:
                        progress(frame)
                    continue
                means.append(frame.mean)
                stds.append(frame.std)
                kept.append(frame.samples)
                taken += frame.taken

        def whole(parts: list[np.ndarray]) -> np.ndarray:
            return images.from_samples(np.stack(parts), image, self.spatial)

        return Result(
            mean=whole(means),
            std=None if direct else whole(stds),
            samples=np.stack([whole(list(one)) for one in zip(*kept, strict=True)]) if save_samples else None,
            taken=tuple(taken),
            notes=(*image.remarks, *like.notes),
        )

    def generate(
        self,
        clean: np.ndarray | Image | str | Path | None = None,
        *,
        size: Sequence[int] | None = None,
        count: int = 1,
        axes: str | None = None,
        seed: int = 0,
        progress: Callable[[float], None] | None = None,
    ) -> Generated:
        """Make a clean (or denoised) image noisy anew, `count` times; without one, draw clean images and their noise.

        size: edges in pixels of new images, such as (256, 256). count: noisy versions, or new images.
        Returns `noisy` (count, *shape of the image) and `clean`, the image; of new images each (count, *size), with
        channels, where there are several, in front of the size.
        Raises InputError for images that do not fit the model, and for new images from a blind-row model.
        """
        asked = generation.Settings(count, None if size is None else tuple(size), seed)
        image = None if clean is None else _opened(clean, axes)
        if image is None:
            stream = generation.new_images(self.checkpoint, asked)
        elif size is not None:
            raise InputError("size is for new images: an image that is given keeps its own")
        else:
            stream = generation.noisy_versions(self.checkpoint, self.frames(image, may_be_flat=True), asked)
        parts: list[Generated] = []
        for part in stream:
            if isinstance(part, Generated):
                parts.append(part)
            elif progress:
                progress(part)
        if image is None:
            channels = 0 if self.checkpoint.settings.model.channels == 1 else slice(None)
            return Generated(
                np.stack([part.clean[channels] for part in parts]),
                np.stack([part.noisy[0, channels] for part in parts]),
            )

        def whole(frames: Sequence[np.ndarray]) -> np.ndarray:
            return images.from_samples(np.stack(frames), image, self.spatial)

        versions = zip(*(part.noisy for part in parts), strict=True)
        return Generated(whole([part.clean for part in parts]), np.stack([whole(one) for one in versions]))

    def noise(self) -> list[Noise]:
        """The noise that a blind-row model learned, for each channel, in grey values.

        Raises InputError for a COSDD model, whose noise is no formula.
        """
        network, statistics = self.checkpoint.network, self.checkpoint.statistics
        if not isinstance(network, BlindRow):
            raise InputError(
                "a COSDD model describes its noise by samples, not by numbers: train with --method blind-row"
            )
        learned = network.noise.described()
        mean, std = np.asarray(statistics.mean), np.asarray(statistics.std)
        gain = std * learned["gain"]
        at_zero = std**2 * learned["variance"] - gain * mean
        row_offset = std * np.sqrt(learned["row_offset"])
        wave, period = std * np.sqrt(learned["wave"]), learned["period"]
        knots, bent = std[:, None] * learned["knots"] + mean[:, None], std[:, None] ** 2 * learned["bent"]
        return [
            Noise(
                gain=float(gain[c]),
                variance_at_zero=float(at_zero[c]),
                row_offset=float(row_offset[c]),
                autocorrelation=tuple(learned["autocorrelation"][c].tolist()),
                by_brightness=tuple(zip(knots[c].tolist(), bent[c].tolist(), strict=False)),
                wave=(float(wave[c]), float(period[c])),
            )
            for c in range(len(mean))
        ]

    def likeness(self, frames: Pixels) -> Likeness:
        """Are (n, c, *space) frames like those that the model was trained on?"""
        settings = self.checkpoint.settings
        found = likeness.compare(frames, self.checkpoint.statistics, settings.train.outliers)
        return replace(found, other_axis=likeness.other_axis(frames, settings.model.noise_axis))

    def frames(self, image: Image, may_be_flat: bool = False) -> Pixels:
        """The image as (n, c, *space). Raises InputError where dimensions, channels or pixels do not fit.

        may_be_flat: let a constant image pass.
        """
        name = image.path or "the array"
        missing = [axis for axis in self.spatial if axis not in image.axes]
        if missing:
            raise InputError(
                f"{name}: axes {image.axes}, but this model was trained on {self.spatial} images: "
                f"axis {missing[0]} is missing (say which is which with --axes)"
            )
        images.check(image, may_be_flat)
        frames = images.to_samples(image, self.spatial)
        channels = self.checkpoint.settings.model.channels
        if frames.shape[1] != channels:
            raise InputError(
                f"{name}: {frames.shape[1]} channel(s), but this model was trained on {channels}: "
                "denoise images of the same kind, or train a model on these"
            )
        return frames

    @torch.inference_mode()
    def stream(
        self,
        frames: Pixels,
        settings: Settings,
        which: Iterable[int] | None = None,
        defects: Outliers | None = None,
    ) -> Iterator[Result | float]:
        """Denoise (n, c, *space) frame by frame: yields the share done (float) often, and a Result per frame.

        which: the numbers of the frames that are wanted, each asked for when the one before it has been given; all.
        defects: pixels that stand out, as `likeness` found them; else they are looked for here.
        A Result's arrays are (c, *space), its samples (k, c, *space). Memory does not grow with the number
        of samples: mean and variance are streamed in float32.
        """
        network, statistics = self.checkpoint.network, self.checkpoint.statistics
        if settings.direct and not (isinstance(network, COSDD) and network.direct is not None):
            raise InputError(
                "this model has no direct denoiser: leave out --direct, or train with --method cosdd "
                "--set model.direct=true"
            )
        if settings.save_samples and not isinstance(network, COSDD):
            raise InputError(
                "a blind-row model knows mean and standard deviation and draws no samples: leave out "
                "--save-samples, or train with --method cosdd"
            )
        if settings.flips and not isinstance(network, BlindRow):
            raise InputError("--flips is for blind-row models: this one averages over samples; try more --samples")
        where = device.best()
        network, memory = _prepared(network, where), Memory()
        if defects is None and self.checkpoint.settings.train.outliers:
            defects = outliers.measure(data.pieces([frames], 1 << 20))
        for index in range(len(frames)) if which is None else which:
            x = torch.from_numpy(data.normalise(frames[index : index + 1], statistics, defects)).to(where)
            if isinstance(network, BlindRow):
                yield from self._solved(network, x, index, len(frames), settings)
            else:
                yield from self._sampled(network, x, index, len(frames), settings, memory)
            yield (index + 1) / len(frames)

    def _result(self, mean: Tensor, std: Tensor | None, samples: list[Tensor], taken: int = 0) -> Result:
        """Back to grey values: de-normalised in float32 at least, never in the networks' arithmetic."""
        statistics = self.checkpoint.statistics
        return Result(
            statistics.restore(mean.float().cpu().numpy())[0],
            None if std is None else statistics.restore_std(std.float().cpu().numpy())[0],
            np.stack([statistics.restore(sample.numpy())[0] for sample in samples]) if samples else None,
            (taken,),
        )

    def _sampled(
        self, network: COSDD, x: Tensor, index: int, count: int, settings: Settings, memory: Memory
    ) -> Iterator[Result | float]:
        """By samples, or by the direct denoiser; then refined, unless the bare average is asked for."""
        precision = device.sound(self.checkpoint.settings.train.precision, x)
        refine = network.measured is not None and not settings.plain
        passes = self.checkpoint.passes.of(settings.direct) if refine else 0
        refining_work = (REFINING_DIRECT if settings.direct else REFINING_SAMPLES) * passes
        for part in Sampling.of(network, x, index, settings, precision, memory).parts():
            if not isinstance(part, tuple):
                yield (index + part / (1 + refining_work)) / count
                continue
            mean, std, samples, taken = part
            if passes:
                refining, share = network.refined(x, mean, std, passes), 0.0
                while share < 1:
                    share, mean = next(refining)
                    yield (index + (1 + refining_work * share) / (1 + refining_work)) / count
            yield self._result(mean, std, samples, taken)

    def _solved(
        self, network: BlindRow, x: Tensor, index: int, count: int, settings: Settings
    ) -> Iterator[Result | float]:
        """In closed form; with flips the average over mirrored images, in which the learned noise is the same.

        Then refined, unless it is the closed form that is asked for.
        """
        views = ((), *MIRRORS) if settings.flips else ((),)
        precision = self.checkpoint.settings.train.precision
        work = len(views) + (0 if settings.plain else REFINING)
        mean, std = x, x
        for done, axes in enumerate(views):
            one, spread = x, x
            for share, *solved in _by_strips(network, x.flip(axes) if axes else x, precision):
                one, spread = solved
                yield (index + (done + share) / work) / count
            if not axes:
                mean, std = one, spread
                continue
            mean = mean.lerp(one.flip(axes), 1 / (done + 1))
            std = std.square().lerp(spread.flip(axes).square(), 1 / (done + 1)).sqrt()
        if not settings.plain:
            refining = network.refined(x, mean, std)
            share = 0.0
            while share < 1:
                share, mean = next(refining)
                yield (index + (len(views) + REFINING * share) / work) / count
            if self.checkpoint.spread:  # measured of the refined mean
                std = std * std.new_tensor(self.checkpoint.spread).reshape(-1, *[1] * (std.dim() - 2))
        yield self._result(mean, std, [])


def _by_strips(network: BlindRow, x: Tensor, precision: str) -> Iterator[tuple[float, Tensor, Tensor]]:
    """(share done, mean, std) of a frame in closed form, in smaller strips where memory does not suffice."""
    pixels, precision = STRIP, device.sound(precision, x.movedim(network.axis, -1))
    while True:
        strips, share = network.posterior_by_strips(x, pixels=pixels), 0.0
        try:
            while share < 1:
                with device.arithmetic(precision, x.device):  # not around a yield: the caller's code is its own
                    share, mean, std = next(strips)
                yield share, mean, std
            return
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
            raise InputError(data.SENSELESS) from error
        except (RuntimeError, MemoryError) as error:
            if not errors.of_memory(error) or pixels <= SMALLEST_STRIP:
                raise
            out.print(f"note: out of memory with {pixels:,} pixels at once; going on with half as many")
            pixels //= 2


def _opened(source: np.ndarray | Image | str | Path, axes: str | None) -> Image:
    if isinstance(source, Image):
        return source
    if isinstance(source, str | Path):
        return images.read(source, axes)
    return images.from_array(source, axes)
