"""A ladder that starts as a wavelet denoiser: the latents hold the image's Haar wavelets from the first update on.

The ladder of the paper starts with nothing in its latents, and most of a short run passes until something is there.
Here the latents of a level begin with the wavelets of the clean image at its scale, in units of their standard
deviation. What the noisy image says about them is known: its own wavelets, and how noisy they are. So the posterior
starts as Bayes' rule has it,

    q(w | coarser, x)  ~  p(w | coarser) N(noisy wavelet; w, noise)        and is free to change from there,

and improves by itself while the prior learns. The prior starts from what coarser scales say by interpolation. More
latents, which start empty as in the paper, hold what wavelets cannot. The code is the image that the wavelets make
(the first ``channels`` of it), and features beside it; the decoders predict what is to be added to that image.

The finest level lives on patches of two pixels along each axis, where its work is a
quarter of what it would be on pixels.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cosdd.model import layers
from cosdd.model.ladder import LARGEST_STD, SMALLEST_STD, Ladder, Normal
from cosdd.model.sight import Sight

# Features and image that come down to a level; nothing comes to the top.
Above = tuple[Tensor | None, Tensor | None]
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
NARROWEST, WIDEST = -5.0, 3.0  # log of what the posterior's standard deviation may be of that by Bayes' rule
LEAST_SIGNAL = 0.02  # share of the variance of a noisy wavelet that is never taken for noise
LEAST_VARIANCE = 1e-6  # of clean wavelets and of noise; the images have unit variance


def kernels(dimensions: int) -> Float[Tensor, "k 1 *two"]:
    """Haar wavelets of two pixels along each axis, orthonormal; the first one is the mean, times 2^(dimensions/2)."""
    pair = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    found = []
    for kinds in itertools.product(range(2), repeat=dimensions):
        kernel = torch.ones(())
        for kind in kinds:
            kernel = kernel[..., None] * pair[kind]
        found.append(kernel)
    return torch.stack(found)[:, None] * 2 ** (-dimensions / 2)


def analyse(x: Float[Tensor, "b c *space"], haar: Tensor) -> tuple[Float[Tensor, "b c *half"], Tensor]:
    """The coarser image, and the wavelets (b, c (k - 1), *half) that it leaves out. In float32, as the image is."""
    channels = x.shape[1]
    weight = haar.to(x.dtype).repeat(channels, *[1] * (x.dim() - 1))
    with torch.autocast(x.device.type, enabled=False):
        h = layers.CONVOLVE[x.dim() - 2](x, weight, None, 2, 0, 1, channels)
    h = h.unflatten(1, (channels, len(haar)))
    return h[:, :, 0], h[:, :, 1:].flatten(1, 2)


def combine(
    coarser: Float[Tensor, "b c *half"], wavelets: Float[Tensor, "b w *half"], haar: Tensor
) -> Float[Tensor, "b c *space"]:
    """What `analyse` took apart."""
    channels = coarser.shape[1]
    h = torch.cat([coarser[:, :, None], wavelets.unflatten(1, (channels, -1))], 2).flatten(1, 2)
    weight = haar.to(h.dtype).repeat(channels, *[1] * (h.dim() - 1))
    with torch.autocast(h.device.type, enabled=False):
        return TRANSPOSED[h.dim() - 2](h, weight, None, 2, 0, 0, channels)


def patches(x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b p *half"]:
    """Two pixels along each axis become channels."""
    dimensions = x.dim() - 2
    for axis in range(dimensions):
        x = x.unflatten(2 + 2 * axis, (-1, 2))
    order = [*range(3, 3 + 2 * dimensions, 2), *range(2, 2 + 2 * dimensions, 2)]
    return x.permute(0, 1, *order).flatten(1, 1 + dimensions)


def unpatched(h: Float[Tensor, "b p *half"], dimensions: int) -> Float[Tensor, "b c *space"]:
    """What `patches` made of an image."""
    h = h.unflatten(1, (-1, *[2] * dimensions))
    order = [axis for d in range(dimensions) for axis in (2 + dimensions + d, 2 + d)]
    h = h.permute(0, 1, *order)
    for axis in range(dimensions):
        h = h.flatten(2 + axis, 3 + axis)
    return h


def variance_along(covariance: Float[Tensor, "c lags"], level: int, kind: int) -> Float[Tensor, " c"]:
    """Variance of the noise of wavelets of a level: means (kind 0) or differences (kind 1) along the noise axis."""
    size = 2 ** (level + 1)
    kernel = covariance.new_full((size,), size**-0.5)
    if kind:
        kernel[size // 2 :] *= -1
    lags = min(size, covariance.shape[1])
    shared = torch.stack([(kernel[lag:] * kernel[: size - lag]).sum() for lag in range(lags)])
    shared[1:] *= 2  # either way
    return (covariance[:, :lags] * shared).sum(1)


class WaveletLevel(nn.Module):
    """What one scale does on the way up and on the way down."""

    def __init__(
        self,
        dimensions: int,
        features: int,
        leaving: int,
        wavelets: int,
        channels: int,
        free: int,
        *,
        entry: nn.Module,
        top: bool,
        activation: str,
    ):
        """wavelets, free: latents that start as wavelets, and empty. entry: from the finer level to ``features``."""
        super().__init__()

        def conv(inputs: int, outputs: int, kernel: int = 3) -> nn.Module:
            return layers.convolution(dimensions, inputs, outputs, kernel)

        self.top, self.channels, self.wavelets, self.latents = top, channels, wavelets, wavelets + free
        self.entry = entry
        self.up = layers.PlainBlock(dimensions, features, activation)
        # Zero: prior and posterior start as said above.
        self.posterior = layers.start_at_zero(conv(features, 2 * self.latents))
        if top:
            self.top_prior = nn.Parameter(torch.zeros(1, 2 * self.latents, *[1] * dimensions))
        else:
            self.prior = layers.start_at_zero(conv(features, 2 * self.latents))
            self.merge_up = conv(2 * features, features, 1)
            self.merge_latents = conv(2 * features, features, 1)
        self.activation = layers.ACTIVATION[activation]()
        self.insert = conv(self.latents + channels, features)
        self.down = layers.PlainBlock(dimensions, features, activation)
        self.leave = conv(features, leaving, 1)
        one = [1] * dimensions
        self.scale: Tensor
        self.noise: Tensor
        # Standard deviation of the clean wavelets, and variance of their noise in units of its square. Not learned:
        # what is missing in the one would be made up for by the other.
        self.register_buffer("scale", torch.ones(wavelets, *one))
        self.register_buffer("noise", torch.ones(wavelets, *one))

    def start_at(self, signal: Tensor, noise: Tensor) -> None:
        """Variances of the clean wavelets and of their noise, for each of them."""
        self.scale.copy_(signal.sqrt().view_as(self.scale))
        self.noise.copy_((noise / signal).view_as(self.noise))

    def get_prior(self, down: Tensor | None, interpolated: Tensor | None) -> Normal:
        prior = Normal.of(self.top_prior if down is None else self.prior(down))
        if interpolated is None:
            return prior
        of = self.wavelets
        mean = prior.mean[:, :of] + interpolated / self.scale
        return Normal(torch.cat([mean, prior.mean[:, of:]], 1), prior.std)

    def get_posterior(self, up: Tensor, noisy: Tensor, down: Tensor | None, prior: Normal) -> Normal:
        """Bayes' rule for the wavelets, changed by what the network has learned; other latents as it says."""
        h = up if down is None else self.activation(self.merge_up(torch.cat([up, down], 1)))
        shift, raw = layers.at_least_float32(self.posterior(h)).chunk(2, 1)
        of = self.wavelets
        variance = prior.std[:, :of].square()
        weight = variance / (variance + self.noise)
        std = (weight * self.noise).sqrt()
        mean = prior.mean[:, :of] + weight * (noisy / self.scale - prior.mean[:, :of]) + std * shift[:, :of]
        std = (std * torch.exp(raw[:, :of].clamp(NARROWEST, WIDEST))).clamp(SMALLEST_STD, LARGEST_STD)
        free = Normal.of(torch.cat([shift[:, of:], raw[:, of:]], 1))
        return Normal(torch.cat([mean, free.mean], 1), torch.cat([std, free.std], 1))


class WaveletLadder(Ladder):
    """What goes up and comes down between levels is features, and the image so far in patches as the last channels."""

    def __init__(
        self,
        dimensions: int,
        channels: int,
        levels: int,
        features: int,
        max_features: int,
        latents: int,
        code_features: int,
        *,
        activation: str,
    ):
        """latents: of each level beside its wavelets. code_features: channels of the code beside the image."""
        super().__init__()
        counts = self.counts = layers.feature_counts(features, max_features, [True] * levels)
        patch = 2**dimensions
        self.dimensions, self.channels = dimensions, channels
        # The way down: the block, what inserts the latents, and the posterior or the prior. The first convolution
        # looks at patches.
        reach = layers.BLOCK_REACH
        self.sight = Sight((True,) * levels, (reach,) * levels, (reach + 2,) * levels, enter=0, stem=2)
        self.code_channels = channels + code_features
        self.haar: Tensor
        self.register_buffer("haar", kernels(dimensions), persistent=False)
        self.levels = nn.ModuleList()
        for level, count in enumerate(counts):
            top = level == levels - 1
            # The finest level sees each patch of the image as channels, and leaves patches of the code.
            entry = (
                layers.Stem(layers.convolution(dimensions, patch * channels, count))
                if level == 0
                else layers.CONVOLUTION[dimensions](counts[level - 1], count, 2, stride=2)
            )
            leaving = patch * code_features if level == 0 else counts[level - 1]
            wavelets = channels * (patch if top else patch - 1)
            self.levels.append(
                WaveletLevel(
                    dimensions, count, leaving, wavelets, channels, latents,
                    entry=entry, top=top, activation=activation,
                )
            )  # fmt: skip

    def enter(self, x: Float[Tensor, "b c *space"]) -> Tensor:
        return self._enter(patches(x), x, 0)

    def ascend(self, index: int, h: Tensor) -> tuple[Tensor, Tensor]:
        """What the posterior needs: features and, as the last channels, the wavelets of the noisy image."""
        level = self._level(index)
        h, image = h.tensor_split([self.counts[index]], 1)
        h = level.up(layers.hand_over(h))
        image, noisy = analyse(unpatched(image, self.dimensions), self.haar)
        if level.top:  # the mean is all that is left of the image
            return torch.cat([h, noisy, image], 1), h
        return torch.cat([h, noisy], 1), self._enter(h, image, index + 1)

    def _enter(self, h: Tensor, image: Tensor, index: int) -> Tensor:
        return torch.cat([self._level(index).entry(h), patches(image)], 1)

    def above(self, index: int, down: Tensor | None) -> Above:
        if down is None:
            return None, None
        h, image = down.tensor_split([self.counts[index]], 1)
        return layers.double(layers.hand_over(h)), unpatched(image, self.dimensions)

    def prior(self, index: int, above: Above) -> Normal:
        h, image = above
        return self._level(index).get_prior(h, None if image is None else self._interpolated(image))

    def infer(self, index: int, evidence: Tensor, above: Above, with_prior: bool) -> tuple[Normal, Normal]:
        up, noisy = evidence.tensor_split([self.counts[index]], 1)
        prior = self.prior(index, above)
        return self._level(index).get_posterior(layers.hand_over(up), noisy, above[0], prior), prior

    def descend(self, index: int, z: Tensor, above: Above) -> Tensor:
        """From the finest level the code comes down, in patches."""
        level, (h, image) = self._level(index), above
        wavelets = z[:, : level.wavelets] * level.scale
        if image is None:
            wavelets, image = wavelets.tensor_split([level.wavelets - self.channels], 1)
        grey = image * 2 ** (-self.dimensions * (index + 1) / 2)  # whatever the scale
        inserted = level.insert(layers.hand_over(torch.cat([z, grey], 1)))
        if h is not None:
            inserted = level.activation(level.merge_latents(torch.cat([inserted, h], 1)))
        left: Tensor = level.leave(level.down(inserted))
        finer = patches(combine(image, wavelets, self.haar))
        return torch.cat([left, finer] if index else [finer, left], 1)

    def code(self, down: Tensor) -> Float[Tensor, "b s *space"]:
        return unpatched(down, self.dimensions)

    def _level(self, index: int) -> WaveletLevel:
        return self.levels[index]  # type: ignore[return-value]

    def start_at(
        self,
        images: Sequence[Float[Tensor, " c *space"]],
        covariance: Float[Tensor, "c lags"] | None,
        axis: int | None,
    ) -> Float[Tensor, " c"]:
        """Measure the wavelets of noisy images, and what of their variance is noise; returns the noise's own.

        covariance: of the noise along ``axis`` (-1 is x) at lags 0, 1, ...; elsewhere it is independent. None: white
        noise, as strong as it may be by the finest wavelets.
        """
        kinds = list(itertools.product(range(2), repeat=self.dimensions))[1:]
        along = -1 if axis is None else axis
        coarser = [layers.pad_to_multiple(image[None], self.stride)[0] for image in images]
        for index, level in enumerate(self.levels):
            assert isinstance(level, WaveletLevel)
            parts = [analyse(image, self.haar) for image in coarser]
            coarser = [image for image, _ in parts]
            wavelets = torch.cat([found.flatten(2) for _, found in parts], 2)[0].unflatten(0, (self.channels, -1))
            if covariance is None:  # the median of |N(0, 1)| is .6745
                covariance = (wavelets[:, -1].abs().median(-1).values / 0.6745).square()[:, None]
            noise = torch.stack([variance_along(covariance, index, kind[along]) for kind in kinds], 1)
            variance = wavelets.square().mean(-1)
            if level.top:
                mean = torch.cat([image[0].flatten(1) for image in coarser], 1)
                variance, noise = variance.flatten(), noise.flatten()
                variance = torch.cat([variance, mean.square().mean(-1)])  # about 0, which is that of all images
                noise = torch.cat([noise, variance_along(covariance, index, 0)])
            signal = torch.maximum(variance - noise, LEAST_SIGNAL * variance).clamp_min(LEAST_VARIANCE)
            level.start_at(signal.flatten(), noise.flatten().clamp_min(LEAST_VARIANCE))
        assert covariance is not None
        return covariance[:, 0].clamp_min(LEAST_VARIANCE).sqrt()

    def _interpolated(self, image: Float[Tensor, "b c *space"]) -> Float[Tensor, "b w *space"]:
        """The next finer wavelets of an image that is linear between the pixels of this one.

        Only differences along a single axis are not zero: an eighth of the difference between both neighbours.
        """
        found = [torch.zeros_like(image) for _ in self.haar[1:]]
        for axis in range(self.dimensions):
            pads = [0, 0] * (self.dimensions - 1 - axis) + [1, 1] + [0, 0] * axis
            padded = F.pad(image, pads, mode="replicate")
            size = image.shape[2 + axis]
            slope = padded.narrow(2 + axis, 0, size) - padded.narrow(2 + axis, 2, size)
            found[2 ** (self.dimensions - 1 - axis) - 1] = slope / 8
        return torch.stack(found, 2).flatten(1, 2)
