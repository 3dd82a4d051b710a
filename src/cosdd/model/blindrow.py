"""Blind-row Bayesian denoiser: a quick estimate, a readable noise model, a warm start.

Given the clean image, the rows of a noisy image are independent. So a network that sees every *other* row
knows all that those rows can tell about row i, and nothing about the noise of row i. It predicts a Gaussian
over the clean row, `p(signal_i | other rows) = N(mean_i, C_i)`; the noise of the row is Gaussian too,
`N_i = white(mean_i) + correlated(mean_i) + row offset`, with a handful of global parameters. Both are learned by
maximum likelihood of the noisy rows, `N(x_i; mean_i, C_i + N_i)`, and the clean row follows in closed form:

    E[signal_i | x]   = mean_i + C_i (C_i + N_i)^-1 (x_i - mean_i)
    Var[signal_i | x] = C_i - C_i (C_i + N_i)^-1 C_i

Where noise depends on the signal, the prediction also has to explain how strong the noise is, and comes out too bright
or too dark by what the noise model lacks there. That is put right after training (`cosdd.calibration.brightness`). A
last step without anything to learn makes use of what rows have in common (`wiener`).

This is Laine et al. 2019 ("High-quality self-supervised deep image denoising") with the blind spot grown to the
whole row and the noise correlated along it. Here "row" is the line of pixels along the noise axis.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cosdd.config import AXIS
from cosdd.errors import InputError
from cosdd.model import wiener
from cosdd.model.layers import fill_missing
from cosdd.model.rownoise import RowNoise
from cosdd.model.unet import UNet

NUGGET = 1e-5
UNKNOWN = 1e4  # variance of the noise of a pixel that is missing: its value says nothing
LEVELS = 32  # of brightness, at which predictions are put right
BY_ROW = 0.5  # share of the error that is each row's own, as the closed form is (tried: 0 to 1; docs/blind-row.md)


# --- Gaussian rows --------------------------------------------------------------------------------------------


def signal_covariance(factors: Float[Tensor, "c n g r w"], kernels: Float[Tensor, "g w w"]) -> Float[Tensor, "c n w w"]:
    """Covariance of the clean row given the other rows: `C_ij = sum_g <f_gi, f_gj> kernel_g(i - j)`.

    The elementwise product of two positive semi-definite matrices is one again, whatever the network predicts:
    the length of a pixel's factor is its uncertainty, the angle between two factors cuts their correlation
    (edges), and the fixed kernels give the length scales.
    """
    covariance = torch.zeros((), dtype=factors.dtype, device=factors.device)
    for g, kernel in enumerate(kernels):
        f = factors[..., g, :, :]
        covariance = torch.addcmul(covariance, f.mT @ f, kernel)
    return covariance


class RowNll(torch.autograd.Function):
    """-log N(residual; 0, signal covariance + noise covariance), one value in nats per row.

    With `P = covariance^-1` and `a = P residual` the gradient with respect to the covariance is `(P - a a^T) / 2`,
    so one Cholesky factor serves value and gradient: twice as fast as differentiating through it.
    """

    @staticmethod
    def forward(
        ctx: Any,
        residual: Float[Tensor, "c n w"],
        white: Float[Tensor, "c n w"],
        scale: Float[Tensor, "c n w"],
        kernel: Float[Tensor, "#c 1 w w"],
        steady: Float[Tensor, "#c 1 w w"],
        factors: Float[Tensor, "c n g r w"],
        kernels: Float[Tensor, "g w w"],
    ) -> Float[Tensor, "c n"]:
        """scale: standard deviation of the correlated noise, whose correlation is ``kernel``."""
        covariance = signal_covariance(factors, kernels)
        covariance.addcmul_(scale[..., :, None] * kernel, scale[..., None, :]).add_(steady)
        diagonal = covariance.diagonal(dim1=-2, dim2=-1)
        diagonal.add_(white + NUGGET * diagonal.amax(-1, keepdim=True))
        # Without an error where there is no factor: the loss is not finite then, and training leaves out the update.
        cholesky, failed = torch.linalg.cholesky_ex(covariance)
        cholesky[..., 0, 0].masked_fill_(failed != 0, torch.nan)
        eye = torch.eye(residual.shape[-1], dtype=residual.dtype, device=residual.device).expand_as(cholesky)
        whitener = torch.linalg.solve_triangular(cholesky, eye, upper=False)
        z = whitener @ residual[..., None]
        ctx.save_for_backward((whitener.mT @ z)[..., 0], whitener, scale, kernel, factors, kernels)
        half_logdet = cholesky.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return 0.5 * z[..., 0].square().sum(-1) + half_logdet + 0.5 * residual.shape[-1] * math.log(2 * math.pi)

    @staticmethod
    def backward(ctx: Any, *outputs: Float[Tensor, "c n"]) -> tuple[Tensor | None, ...]:
        (upstream,) = outputs
        a, whitener, scale, kernel, factors, kernels = ctx.saved_tensors
        g = whitener.mT @ whitener
        g.sub_(a[..., :, None] * a[..., None, :]).mul_(0.5 * upstream[..., None, None])
        to_factors = torch.stack([2 * factors[..., k, :, :] @ (g * kernels[k]) for k in range(len(kernels))], -3)
        to_white = g.diagonal(dim1=-2, dim2=-1)
        to_steady = g.sum(-3, keepdim=True)
        scaled = g * scale[..., None, :]
        to_scale = 2 * (scaled * kernel).sum(-1)
        to_kernel = scaled.mul_(scale[..., :, None]).sum(-3, keepdim=True)
        return upstream[..., None] * a, to_white, to_scale, to_kernel, to_steady, to_factors, None


# --- the whole ------------------------------------------------------------------------------------------------


@functools.cache
def _lattice(height: int, period: int, offset: int) -> Tensor:
    """For the rows offset, offset + period, ...: which rows the network reads. Shape (2 period - 2, rows).

    These are the nearest `period - 1` rows on either side, so never a row of the lattice itself: the network is
    blind to the rows it predicts by construction, however far its convolutions reach. Where the image ends, the
    nearest row that is not in the lattice stands in.
    """
    with torch.inference_mode(False):  # it is kept, and whoever trains after denoising has to learn through it
        readable = torch.tensor([row for row in range(height) if row % period != offset])
        near = torch.tensor([d for d in range(1 - period, period) if d])
        wanted = near[:, None] + torch.arange(offset, height, period)
        return readable[(wanted[..., None] - readable).abs().argmin(-1)]


class BlindRow(nn.Module):
    """Blind-row Bayesian denoiser for images of two or three dimensions, normalised to mean 0, variance 1.

    `noise_axis` is the spatial axis ("x" is the last) along which noise may be correlated; "none" means white
    noise, where a row is as good a blind line as any. `period`: every so many rows are predicted at once, from
    the rows between them. `rank` factors per pixel and length scale in `widths` (pixels) describe the signal's
    uncertainty along the row. `anchor` (nats per pixel) says how strongly the noise is held at what was measured
    across the rows (`RowNoise.start_at`).
    """

    def __init__(
        self,
        *,
        dimensions: int = 2,
        channels: int = 1,
        noise_axis: str = "x",
        features: tuple[int, ...] = (32, 48, 64),
        blocks: int = 1,
        period: int = 4,
        rank: int = 4,
        widths: tuple[float, ...] = (1.0, 4.0),
        anchor: float = 0.2,
    ) -> None:
        super().__init__()
        if dimensions not in (2, 3):
            raise InputError(
                f"blind-row denoising learns a row from the other rows: images need 2 or 3 spatial axes, not "
                f"{dimensions}; use --method cosdd"
            )
        if -AXIS[noise_axis] > dimensions:
            raise InputError(f"noise axis {noise_axis!r} needs images with {-AXIS[noise_axis]} spatial axes")
        self.dimensions, self.channels, self.axis = dimensions, channels, AXIS[noise_axis]
        self.period, self.rank, self.widths = period, rank, widths
        self.anchor = anchor
        near = 2 * period - 2
        self.network = UNet(dimensions, channels * near, channels * (1 + rank * len(widths)), features, blocks)
        # The mean starts as the average of the two adjacent rows, its uncertainty small and alike everywhere.
        self.neighbours = nn.Parameter(torch.zeros(channels, near))
        nn.init.constant_(self.neighbours[:, period - 2 : period], 0.5)
        self.factor = nn.Parameter(torch.full((channels, len(widths), 1), 0.1))
        self.noise = RowNoise(channels)
        # Nothing is learned from pixels at or above this value: there the detector saturates.
        self.ceiling: Tensor
        # On the CPU also where shapes alone are asked for: no file will fill it in.
        self.register_buffer("ceiling", torch.full((channels,), math.inf, device="cpu"), persistent=False)
        # Predictions, and what they are too low by, as measured after training (`cosdd.calibration.brightness`).
        self.brightness: Tensor
        self.register_buffer("brightness", torch.zeros(2, channels, LEVELS))

    def prior(
        self, x: Float[Tensor, "b c *space"], offset: int
    ) -> tuple[Float[Tensor, "c n w"], Float[Tensor, "c n g r w"]]:
        """Mean and covariance factors of the clean rows offset, offset + period, ..., given all others.

        The noise axis is last; n counts the rows of all images of the batch.
        """
        if x.shape[-2] < 2:
            raise InputError("blind-row denoising learns a row from the other rows: the images have a single row")
        c = self.channels
        index = _lattice(x.shape[-2], self.period, offset).to(x.device)
        seen = self.noise.without_wave(x).index_select(-2, index.flatten()).unflatten(-2, index.shape).movedim(-3, 2)
        output = self._rows(self.network(seen.flatten(1, 2)))
        mean = (self._rows(seen.flatten(1, 2)) * self.neighbours[:, None, :, None]).sum(2) + output[:, :, 0]
        factors = output[:, :, 1:].unflatten(2, (len(self.widths), self.rank))
        first, others = factors[..., :1, :], factors[..., 1:, :]
        factors = torch.cat([first + self.factor[:, None, ..., None].reshape(c, 1, -1, 1, 1), others], -2)
        return mean, 3 * torch.tanh(factors / 3)

    def predicted(
        self, x: Float[Tensor, "b c *space"], offset: int
    ) -> tuple[Float[Tensor, "c n w"], Float[Tensor, "c n w"]]:
        """The rows offset, offset + period, ... as predicted from all others, and as they are."""
        mean, _ = self.prior(x, offset)
        return mean.float(), self._rows(x[..., offset :: self.period, :])[:, :, 0]

    def missing_brightness(self, mean: Float[Tensor, "c n w"]) -> Float[Tensor, "c n w"]:
        """What predictions of such brightness are too low by, on average over the training frames."""
        levels, missing = self.brightness
        values = mean.flatten(1).contiguous()
        right = torch.searchsorted(levels, values).clamp(1, LEVELS - 1)
        (a, b), (low, high) = ([t.gather(1, i) for i in (right - 1, right)] for t in (levels, missing))
        share = ((values - a) / (b - a).clamp_min(1e-12)).clamp(0, 1)
        return low.lerp(high, share).view_as(mean)

    def _rows(self, t: Tensor) -> Tensor:
        """(b, c k, *lines, w) -> (c, n, k, w)."""
        t = t.unflatten(1, (self.channels, -1)).movedim(0, 1)
        return t.movedim(2, -2).flatten(1, -3)

    def _kernels(self, like: Tensor) -> Float[Tensor, "g w w"]:
        position = torch.arange(like.shape[-1], device=like.device, dtype=like.dtype)
        distance = (position[:, None] - position).square()
        # Smaller values would only be denormal numbers, on which CPUs are very slow.
        return torch.stack([torch.exp(-0.5 * distance / width**2).clamp_min(1e-9) for width in self.widths])

    def forward(self, x: Float[Tensor, "b c *space"], progress: float = 1.0) -> dict[str, Tensor]:
        """Loss of one random lattice of rows. `progress` is there for COSDD's sake: nothing here waits for a time.

        Pixels of ``x`` that are NaN are missing: nothing is learned from them, nor from saturated ones.
        `nll` is -log p(row | other rows) in nats per pixel. It knows only the sum of signal uncertainty and noise,
        so `loss` also holds the noise at what was measured across the rows.
        """
        x, known = fill_missing(x)
        trusted = known & (x < self.ceiling.reshape(-1, *[1] * self.dimensions))
        x, trusted = x.movedim(self.axis, -1), trusted.movedim(self.axis, -1)
        offset = int(torch.randint(min(self.period, x.shape[-2]), ()))
        mean, factors = self.prior(x, offset)
        with torch.autocast(x.device.type, enabled=False):
            row, trusted = (self._rows(image[..., offset :: self.period, :])[:, :, 0] for image in (x, trusted))
            white, correlated = self.noise.white(mean), self.noise.correlated(mean)
            nll = RowNll.apply(
                row - mean,
                white + UNKNOWN * ~trusted,
                correlated.sqrt(),
                self.noise.toeplitz(row.shape[-1]),
                self.noise.steady(row.shape[-1]),
                factors,
                self._kernels(row),
            )
            # What a pixel of such variance adds is no evidence, and is taken out again.
            nll = nll.sum() - 0.5 * math.log(2 * math.pi * UNKNOWN) * (~trusted).sum()
            nll = nll / trusted.sum().clamp_min(1)
            loss = nll + self.anchor * self.noise.mismatch()
        return {
            "loss": loss,
            "nll": nll.detach(),
            "blind_mse": ((row - mean).detach().square() * trusted).sum() / trusted.sum().clamp_min(1),
        }

    def posterior(
        self, x: Float[Tensor, "b c *space"], window: int = 64, batch: int = 2048, pixels: int = 1 << 22
    ) -> tuple[Float[Tensor, "b c *space"], Float[Tensor, "b c *space"]]:
        """Mean and standard deviation of the clean image given the noisy one, in which missing pixels are NaN.

        Rows are solved in windows of that many pixels, half overlapping, of which the middle is kept: what lies
        more than `window / 4` pixels away does not matter. `batch` rows at a time and strips of about that many
        `pixels` bound the memory; the result does not depend on them.
        """
        *_, (_, mean, std) = self.posterior_by_strips(x, window, batch, pixels)
        return mean, std

    @torch.no_grad()
    def posterior_by_strips(
        self, x: Float[Tensor, "b c *space"], window: int = 64, batch: int = 2048, pixels: int = 1 << 22
    ) -> Iterator[tuple[float, Float[Tensor, "b c *space"], Float[Tensor, "b c *space"]]]:
        """`posterior` while it grows, for those who want to know how far it is: yields (share done, mean, std)."""
        x, known = (image.movedim(self.axis, -1) for image in fill_missing(x))
        mean, std = torch.empty_like(x), torch.empty_like(x)
        for strip, seen in self._strips(x.shape[-2], x.numel() // x.shape[-2], pixels):
            inside = slice(strip.start - seen.start, strip.stop - seen.start)
            solved = self._strip(x[..., seen, :], known[..., seen, :], window, batch)
            for result, part in zip((mean, std), solved, strict=True):
                result[..., strip, :] = part[..., inside, :]
            yield strip.stop / x.shape[-2], mean.movedim(-1, self.axis), std.movedim(-1, self.axis)

    def _strips(self, lines: int, line: int, pixels: int) -> Iterator[tuple[slice, slice]]:
        """Strips of lines, and the lines that matter to each. `line`: pixels in a line of the whole batch.

        Both begin where lattice and U-Net fall into step with those of the whole image.
        """
        step = self.period * self.network.stride
        halo = -(-(self.network.reach + 1) * self.period // step) * step
        height = max(2 * halo, pixels // line // step * step)
        if lines <= height + 2 * halo:
            yield slice(0, lines), slice(0, lines)
            return
        for start in range(0, lines, height):
            stop = min(start + height, lines)
            yield slice(start, stop), slice(max(0, start - halo), min(lines, stop + halo))

    def _strip(
        self, x: Float[Tensor, "b c *space"], known: Bool[Tensor, "b c *space"], window: int, batch: int
    ) -> tuple[Float[Tensor, "b c *space"], Float[Tensor, "b c *space"]]:
        """`posterior` of an image whose noise axis is the last."""
        mean, std = torch.empty_like(x), torch.empty_like(x)
        for offset in range(min(self.period, x.shape[-2])):
            rows, there = x[..., offset :: self.period, :], known[..., offset :: self.period, :]
            prior_mean, factors = self.prior(x, offset)
            with torch.autocast(x.device.type, enabled=False):  # covariances keep all their digits
                solved = [
                    self._solve(*part, window)
                    for part in zip(
                        self._rows(rows)[:, :, 0].split(batch, 1),
                        self._rows(there)[:, :, 0].split(batch, 1),
                        prior_mean.split(batch, 1),
                        factors.split(batch, 1),
                        strict=True,
                    )
                ]
            for result, parts in zip((mean, std), zip(*solved, strict=True), strict=True):
                whole = torch.cat(parts, 1).unflatten(1, (len(x), *rows.shape[2:-1]))
                result[..., offset :: self.period, :] = whole.movedim(0, 1)
        return mean, std

    def _solve(
        self,
        row: Float[Tensor, "c n w"],
        known: Bool[Tensor, "c n w"],
        mean: Float[Tensor, "c n w"],
        factors: Float[Tensor, "c n g r w"],
        window: int,
    ) -> tuple[Float[Tensor, "c n w"], Float[Tensor, "c n w"]]:
        # The noise was learned as that of the prediction as it is.
        prior_mean = mean + self.missing_brightness(mean)
        difference, width = row - prior_mean, row.shape[-1]
        window = min(window, width)
        posterior_mean, posterior_std = torch.empty_like(row), torch.empty_like(row)
        for start in sorted({min(s, width - window) for s in range(0, width, max(1, window // 2))}):
            span = slice(start, start + window)
            signal = signal_covariance(factors[..., span], self._kernels(row[..., span]))
            total = self.noise.covariance(mean[..., span]).add_(signal)
            total.diagonal(dim1=-2, dim2=-1).mul_(1 + NUGGET).add_(~known[..., span], alpha=UNKNOWN)
            # A later window overwrites the rim of the one before it, except for the rim of its own.
            keep = slice(0 if start == 0 else window // 4, window if start + window == width else window - window // 4)
            cholesky = torch.linalg.cholesky(total)
            sides = torch.cat([signal[..., keep], difference[..., span, None]], -1)
            half, residual = torch.linalg.solve_triangular(cholesky, sides, upper=False).tensor_split([-1], -1)
            variance = signal.diagonal(dim1=-2, dim2=-1)[..., keep] - half.square().sum(-2)
            posterior_mean[..., span][..., keep] = prior_mean[..., span][..., keep] + (half.mT @ residual)[..., 0]
            posterior_std[..., span][..., keep] = variance.clamp_min(0).sqrt()
        return posterior_mean, posterior_std

    def estimate(
        self, x: Float[Tensor, "b c *space"]
    ) -> tuple[Float[Tensor, "b c *space"], Float[Tensor, "b c *space"]]:
        """The clean image given the noisy one: the posterior mean, refined, and the posterior standard deviation."""
        mean, std = self.posterior(x)
        *_, (_, mean) = self.refined(x, mean, std)
        return mean, std

    def refined(
        self, x: Float[Tensor, "b c *space"], mean: Float[Tensor, "b c *space"], std: Float[Tensor, "b c *space"]
    ) -> Iterator[tuple[float, Float[Tensor, "b c *space"]]]:
        """A better mean, from the noisy image and its posterior (`wiener`), while it grows: (share done, mean)."""
        return wiener.refined(x, mean, std, self.noise, self.axis, by_row=BY_ROW)

    @torch.no_grad()
    def draw_noise(
        self, signal: Float[Tensor, "b c *space"], generator: torch.Generator
    ) -> Float[Tensor, "b c *space"]:
        """New noise for clean images, a function of the (CPU) generator's state."""
        return self.noise.draw_along(self.axis, signal, generator)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The few noise parameters learn ten times faster than the network, so that noise is explained first."""
        noise = list(self.noise.parameters())
        others = [p for name, p in self.named_parameters() if not name.startswith("noise.")]
        return [{"params": others, "lr_scale": 1.0}, {"params": noise, "lr_scale": 10.0}]
