"""New images and new noise from a trained model: for augmentation, and to test denoisers against a known truth.

A COSDD model draws clean images from its prior, and the noise of any image from its noise decoder. A blind-row model
knows the noise alone, as a few numbers, and draws it from them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cosdd import config, device, images, lazy, noisefloor
from cosdd.axes import AXES, Image
from cosdd.checkpoint import Checkpoint
from cosdd.errors import InputError
from cosdd.lazy import Pixels
from cosdd.model import COSDD, BlindRow
from cosdd.model.ladder import Draw

SIZE = {1: (1024,), 2: (256, 256), 3: (16, 256, 256)}  # of images from the prior, by dimensions
# Pixels that are drawn together, which is quicker; the results do not depend on it.
PIXELS_AT_ONCE = {"cpu": 2**18, "cuda": 2**24}
MOST_PIXELS = 2**36  # of all new images together; more are a slip of the pen
MOST_TOGETHER = 2**32  # pixels of all noisy versions of one frame, which are in memory together
FAR = 4.0  # standard deviations of the training images
NOISY = 0.5  # share of the variance of the noise: an image that holds so much of it is not clean
LOOKED_AT = 256  # pixels along each edge


@dataclass(frozen=True)
class Generated:
    """Noisy images and the clean one under them, float32, in grey values.

    In a stream clean is (c, *space) and noisy (count, c, *space): versions of one clean image.
    """

    clean: np.ndarray
    noisy: np.ndarray


@dataclass(frozen=True)
class Settings:
    """What is asked of ``generate``. ``size``: edges in pixels of new images, None for those of ``SIZE``."""

    count: int = 1
    size: tuple[int, ...] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InputError(f"count is {self.count}: at least 1 is needed")
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}: at least 0 is needed")
        if self.size is not None and not (1 <= len(self.size) <= 3 and all(edge >= 1 for edge in self.size)):
            raise InputError(f"size {_times(self.size)}: expected edges in pixels, such as 256x256")
        if self.size is not None and math.prod(self.size) > MOST_PIXELS:
            raise InputError(f"size {_times(self.size)}: expected at most {MOST_PIXELS:,} pixels, such as 256x256")

    @staticmethod
    def parse_size(text: str) -> tuple[int, ...]:
        """Edges in a text: "256x256" -> (256, 256). Raises InputError."""
        edges = text.lower().split("x")
        if not all(edge.strip().isdecimal() for edge in edges):
            raise InputError(f"--size {text}: expected edges in pixels, such as 256x256")
        return tuple(int(edge) for edge in edges)


@torch.inference_mode()
def noisy_versions(
    checkpoint: Checkpoint, frames: Pixels, settings: Settings, which: Iterable[int] | None = None
) -> Iterator[Generated | float]:
    """``count`` noisy versions of each clean (n, c, *space) frame, with independent noise of the learned kind.

    Yields the share done (float) often, and a Generated per frame. The noise is added to the frame as it is given:
    it is the truth under what comes out. which: the numbers of the frames that are wanted; all.
    """
    statistics, count, shape = checkpoint.statistics, settings.count, frames.shape[1:]
    if count > 1 and count * math.prod(shape) > MOST_TOGETHER:
        raise InputError(
            f"count is {count}: so many versions of {_times(shape[1:])} pixels do not fit into memory, expected at "
            f"most {max(1, MOST_TOGETHER // math.prod(shape))}: make them in parts, each with a seed of its own"
        )
    for index in range(len(frames)) if which is None else which:
        clean, noisy = frames[index], np.empty((count, *shape), np.float32)
        for version, noise in enumerate(_noise(checkpoint, frames[index : index + 1], settings, index)):
            # Added to the very pixels that were given, not to what is left of them after normalising.
            added = statistics.restore_std(noise.cpu().numpy())
            noisy[version] = (clean + added.astype(np.float64)).astype(np.float32)[0]
            yield (index + (version + 1) / count) / len(frames)
        yield Generated(np.asarray(clean, np.float32), noisy)


def _noise(checkpoint: Checkpoint, frame: np.ndarray, settings: Settings, index: int) -> Iterator[Tensor]:
    """``count`` times the noise (1, c, *space) of a clean frame of that shape, in normalised units."""
    where = device.best()
    network = checkpoint.network.to(where)
    clean = torch.from_numpy(checkpoint.statistics.normalise(frame)).to(where)
    if isinstance(network, BlindRow):
        for version in range(settings.count):
            yield network.draw_noise(clean, _generator(settings.seed, index, version, 0))
        return
    with device.arithmetic(checkpoint.settings.train.precision, where):
        features, window = network.encode(clean)
        code, _ = network.ladder.top_down(features, _latents(settings.seed, index), with_kl=False)
        estimate = network.signal(code)[window].float()
    for batch in _batches(settings.count, clean):
        drawn = _drawn(network, code[window], settings.seed, [(index, version) for version in batch])
        yield from (one - estimate for one in drawn)


def doubts(checkpoint: Checkpoint, frames: Pixels) -> list[str]:
    """A line for each reason why these (n, c, *space) frames are no clean images of the kind that the model knows."""
    return [line for line in (_of_another_kind(checkpoint, frames), _noisy(checkpoint, frames)) if line]


def _of_another_kind(checkpoint: Checkpoint, frames: Pixels) -> str | None:
    total = np.zeros(frames.shape[1])
    for (_, there, *_), block in lazy.blocks(frames):
        total[there] += block.sum((0, *range(2, block.ndim)), dtype=np.float64)
    mean = total / (frames.size // frames.shape[1])
    known = zip(mean.tolist(), checkpoint.statistics.mean, checkpoint.statistics.std, strict=True)
    for found, expected, spread in known:
        if abs(found - expected) > FAR * spread:
            return (
                f"mean grey value {found:g}, but the model was trained on images of {expected:g} with standard "
                f"deviation {spread:g}: its noise is right only in the same grey values"
            )
    return None


@torch.inference_mode()
def _noisy(checkpoint: Checkpoint, frames: Pixels) -> str | None:
    """Does the middle of the first frame hold, across the rows, about the noise that is to be added to it?"""
    axis = config.AXIS[checkpoint.settings.model.noise_axis]
    middle = tuple(slice(max(0, (n - LOOKED_AT) // 2), (n + LOOKED_AT) // 2) for n in frames.shape[2:])
    piece = np.asarray(frames[(slice(0, 1), slice(None), *middle)])
    with np.errstate(over="ignore", invalid="ignore"):  # of images far from what the model knows
        floor = noisefloor.measure([checkpoint.statistics.normalise(piece)[0]], axis) if piece.ndim > 3 else None
    if floor is None or floor.hidden:
        return None
    (noise,) = _noise(checkpoint, piece, Settings(), 0)
    added = checkpoint.statistics.restore_std(noise.cpu().numpy())[0].var(axis=tuple(range(1, piece.ndim - 1)))
    there = floor.covariance[..., 0].mean(1) * np.square(checkpoint.statistics.std)
    channel = int(np.argmax(there / added.clip(1e-12)))
    if not there[channel] >= NOISY * added[channel]:  # nor where it is no number
        return None
    return (
        f"holds noise itself, of standard deviation {math.sqrt(there[channel]):.3g}, to which noise of "
        f"{math.sqrt(added[channel]):.3g} is added: to know the truth under it, give a clean or a denoised image"
    )


@torch.inference_mode()
def new_images(
    checkpoint: Checkpoint, settings: Settings, which: Iterable[int] | None = None
) -> Iterator[Generated | float]:
    """``count`` clean images from the prior of a COSDD model, each with one noisy version.

    Yields the share done (float) often, and a Generated per image. which: the numbers of those that are wanted; all.
    Raises InputError where `canvas` does.
    """
    size = canvas(checkpoint, settings).data.shape[-checkpoint.settings.model.dimensions :]
    network, statistics = checkpoint.network, checkpoint.statistics
    assert isinstance(network, COSDD)
    where = device.best()
    network = network.to(where)
    stride = network.stride
    # As for denoising, an image is cut out of a larger one: at the border of that the network sees less.
    padded = [-(-edge // stride) * stride + 2 * stride for edge in size]
    window = (slice(None), slice(None), *(slice(stride, stride + edge) for edge in size))
    for index in range(settings.count) if which is None else which:
        with device.arithmetic(checkpoint.settings.train.precision, where):
            code = network.ladder.generate((1, *padded), where, _latents(settings.seed, index))
            clean = network.signal(code)[window].float()
        yield (index + 0.1) / settings.count
        noisy = _drawn(network, code[window], settings.seed, [(index, 0)])[0]
        clean, noisy = (statistics.restore(part.cpu().numpy())[0] for part in (clean, noisy))
        yield Generated(clean, noisy[None])
        yield (index + 1) / settings.count


def canvas(checkpoint: Checkpoint, settings: Settings) -> Image:
    """An empty image of the axes and the shape of all that `new_images` draws.

    Raises InputError for a blind-row model, and for a size of other dimensions than the model's.
    """
    model = checkpoint.settings.model
    if isinstance(checkpoint.network, BlindRow):
        raise InputError(
            "a blind-row model knows the noise and has no images of its own: name images to make noisy, "
            "or train with --method cosdd"
        )
    size = settings.size or SIZE[model.dimensions]
    if len(size) != model.dimensions:
        raise InputError(
            f"size {_times(size)}: this model makes images of {model.dimensions} dimension(s), "
            f"such as {_times(SIZE[model.dimensions])}"
        )
    pixels = settings.count * model.channels * math.prod(size)
    if pixels > MOST_PIXELS:
        raise InputError(f"count is {settings.count}: {pixels:,} pixels in all, expected at most {MOST_PIXELS:,}")
    lengths = {"T": settings.count, "C": model.channels} | dict(zip(images.SPATIAL[len(size)], size, strict=True))
    axes = "".join(axis for axis in AXES if axis in lengths and (axis != "C" or model.channels > 1))
    return Image(np.broadcast_to(np.float32(0), [lengths[axis] for axis in axes]), axes)


def _drawn(network: COSDD, code: Tensor, seed: int, keys: Sequence[tuple[int, int]]) -> Tensor:
    """(len(keys), 1, c, *space) noisy images of one code, each a function of its key."""
    shape = (network.noise.channels, *code.shape[2:])
    generators = [_generator(seed, *key, 0) for key in keys]
    uniform = torch.stack([torch.rand(shape, generator=generator) for generator in generators])[:, None]
    normal = torch.stack([torch.randn(shape, generator=generator) for generator in generators])[:, None]
    return network.noise.sample(code, uniform.to(code.device), normal.to(code.device))


def _batches(count: int, x: Tensor) -> Iterator[range]:
    at_once = max(1, PIXELS_AT_ONCE.get(x.device.type, 2**20) // x[0, 0].numel())
    return (range(start, min(start + at_once, count)) for start in range(0, count, at_once))


def _latents(seed: int, index: int) -> Draw:
    """Latent noise of one image, a function of (seed, index, level)."""

    def draw(level: int, shape: torch.Size, device: torch.device) -> Tensor:
        return torch.randn(shape, generator=_generator(seed, index, level, 1)).to(device)

    return draw


def _generator(*key: int) -> torch.Generator:
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def _times(size: Sequence[int]) -> str:
    return "x".join(map(str, size))
