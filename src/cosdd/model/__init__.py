"""COSDD: the parts joined; and ``build``, which makes the network that a configuration asks for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cosdd import config
from cosdd.model import wiener
from cosdd.model.blindrow import BlindRow
from cosdd.model.empty import EmptyLadder
from cosdd.model.ladder import Draw, Ladder, fresh_noise
from cosdd.model.layers import fill_missing, pad_to_multiple, start_at_zero
from cosdd.model.noise import NoiseDecoder
from cosdd.model.rownoise import RowNoise
from cosdd.model.signal import SignalDecoder
from cosdd.model.unet import UNet
from cosdd.model.wavelets import WaveletLadder

ALIVE = 7  # arrays of features of the finest level that live at a time, about


class Passes(NamedTuple):
    """Of the last step: a better estimate makes a better filter. As many where `calibration` could not tell."""

    samples: int = 2  # for a mean of samples
    direct: int = 2

    def of(self, direct: bool) -> int:
        return self.direct if direct else self.samples


USUAL = Passes()


def build(settings: config.Config) -> COSDD | BlindRow:
    """The network of ``settings.method``, freshly initialised."""
    if settings.method == "cosdd":
        return COSDD(settings.model)
    model, blind_row = settings.model, settings.blind_row
    return BlindRow(
        dimensions=model.dimensions, channels=model.channels, noise_axis=model.noise_axis,
        features=blind_row.features, blocks=blind_row.blocks, period=blind_row.period,
        rank=blind_row.rank, widths=blind_row.widths,
        anchor=blind_row.anchor,
    )  # fmt: skip


class COSDD(nn.Module):
    """Ladder VAE, noise decoder, signal decoder and, if asked for, direct denoiser.

    Images are ``(b, c, *space)`` float32, normalised to mean 0 and standard deviation 1 per channel.
    """

    def __init__(self, settings: config.Model):
        super().__init__()
        s = settings
        self.settings = s
        wavelets = self.centred = s.start == "wavelets"
        self.ladder: Ladder
        if wavelets:
            self.ladder = WaveletLadder(
                s.dimensions, s.channels, s.levels, s.features, s.max_features, s.latents, s.final_latents,
                activation=s.activation,
            )  # fmt: skip
        else:
            self.ladder = EmptyLadder(
                s.dimensions, s.channels, s.levels, s.features, s.max_features, s.latents, s.final_latents,
                downsampling=s.downsampling, block=s.block, activation=s.activation, padding=s.padding,
                decoder_input=s.decoder_input,
            )  # fmt: skip
        self.noise = NoiseDecoder(
            s.dimensions, s.channels, self.ladder.code_channels, s.noise_axis,
            layers=s.noise_layers, features=s.noise_features, kernel=s.noise_kernel,
            dilation=s.noise_dilation, components=s.components, centred=wavelets,
        )  # fmt: skip
        self.signal = SignalDecoder(
            s.dimensions, s.channels, self.ladder.code_channels,
            layers=s.signal_layers, features=s.signal_features, padding=s.padding, centred=wavelets,
        )  # fmt: skip
        self.direct = None
        if s.direct:
            # Noisy image -> mean of the clean images in one pass (Salmon and Krull 2023).
            features = [s.direct_features * min(2**level, 2) for level in range(self.ladder.stride.bit_length())]
            self.direct = UNet(s.dimensions, s.channels, s.channels, features, padding=s.padding)
            if wavelets:
                start_at_zero(self.direct.head)
        # The noise as measured before training, for the last step of denoising. It does not learn.
        self.measured = RowNoise(s.channels).requires_grad_(False) if s.refine and s.dimensions > 1 else None
        # Nothing is learned from pixels at or above this value: there the detector saturates.
        self.ceiling: Tensor
        # On the CPU also where shapes alone are asked for: no file will fill it in.
        self.register_buffer("ceiling", torch.full((s.channels,), torch.inf, device="cpu"), persistent=False)

    @property
    def stride(self) -> int:
        """Edges of training crops are multiples of this many pixels."""
        return self.ladder.stride

    def parameter_groups(self) -> list[dict]:
        """One group per network; their gradients are disjoint because of the stop-gradients."""
        groups = {
            "vae": [*self.ladder.parameters(), *self.noise.parameters()],
            "signal": list(self.signal.parameters()),
            "direct": [] if self.direct is None else list(self.direct.parameters()),
        }
        return [{"name": name, "params": params} for name, params in groups.items() if params]

    def forward(
        self, x: Float[Tensor, "b c *space"], progress: float = 1.0, draw: Draw = fresh_noise
    ) -> dict[str, Tensor]:
        """Loss terms by name, scalars: nll, kl and elbo in nats per pixel (method 2.1), signal and direct as
        mean squared errors; ``loss`` is what training minimises; ``kl_levels`` the KL of each level, finest first, and
        ``signal_channels`` the signal term of each channel.

        Edges of ``x`` must be multiples of ``stride``; pixels that are NaN are missing. ``progress`` is the share of
        the training budget that is used: latents and direct denoiser join in when those before them have settled.
        """
        x, known = fill_missing(x)
        trusted = known & (x < self.ceiling.reshape(-1, *[1] * self.settings.dimensions))

        def mean(values: Tensor, where: Tensor = trusted) -> Tensor:
            return (values * where).sum() / where.sum().clamp_min(1)

        # Wavelets speak from the start. What the noise decoder could not explain yet would go into them, for good.
        alone, directly = self.phase(progress)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not alone):
            code, kl_sums = self.ladder.top_down(self.ladder.bottom_up(x), draw)
        kl_levels = torch.stack(kl_sums) / trusted.sum().clamp_min(1)  # the bound is one for the pixels that count
        nll = mean(self.noise.nll(x, code))
        # Stop-gradient: regression to the noisy image would pull noise into the latents (method 2.3).
        clean = self.signal(code.detach())
        taken_away = (clean - x).square()
        pixels = (0, *range(2, x.dim()))
        terms = {
            "nll": nll,
            "kl": kl_levels.sum(),
            "elbo": -(nll + kl_levels.sum()),
            "signal": mean(taken_away),
            "kl_levels": kl_levels.detach(),
            "signal_channels": ((taken_away * trusted).sum(pixels) / trusted.sum(pixels).clamp_min(1)).detach(),
        }
        terms["loss"] = terms["signal"] - terms["elbo"]
        if directly:
            terms["direct"] = mean((self.directly(x) - clean.detach()).square(), known)
            terms["loss"] = terms["loss"] + terms["direct"]
        return terms

    def phase(self, progress: float) -> tuple[bool, bool]:
        """Does the noise decoder learn alone, and does the direct denoiser learn, at this share of the budget?"""
        alone = self.centred and progress < self.settings.latents_from
        return alone, self.direct is not None and progress >= self.settings.direct_from

    @property
    def bytes_per_pixel(self) -> int:
        """About what one pixel takes while it is denoised: the finest features, as many as live at a time."""
        return 4 * ALIVE * max(self.settings.features, self.settings.signal_features, self.settings.direct_features)

    def padded(
        self, x: Float[Tensor, "b c *space"], room: int = 0
    ) -> tuple[Float[Tensor, "b c *padded"], tuple[slice, ...]]:
        """An image of any size as the networks see it, and the slices that cut it out again.

        room: pixels more in front, so that it can be seen from so many other positions.
        """
        return pad_to_multiple(fill_missing(x)[0], self.stride, margin=self.stride, room=room)

    def encode(self, x: Float[Tensor, "b c *space"]) -> tuple[list[Tensor], tuple[slice, ...]]:
        """Bottom-up features of an image of any size, and the slices that cut it out of the padded one."""
        padded, window = self.padded(x)
        return self.ladder.bottom_up(padded), window

    def sample(
        self,
        features: Sequence[Tensor],
        window: tuple[slice, ...],
        draw: Draw = fresh_noise,
        down: Tensor | None = None,
    ) -> Float[Tensor, "b c *space"]:
        """One clean image per noisy one, drawn from the posterior (supplement section 1).

        down: what comes from the levels that have no part in ``features``, where there are any.
        """
        code, _ = self.ladder.top_down(features, draw, with_kl=False, down=down)
        return self.signal(code)[window]

    def denoise_directly(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
        """The direct denoiser's estimate of the mean of the clean images."""
        padded, window = self.padded(x)
        return self.directly(padded)[window]

    def directly(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
        """`denoise_directly` of an image whose edges are multiples of ``stride``."""
        assert self.direct is not None
        # Like the other decoders, beside wavelets it says what is to be added to an image: here, to the noisy one.
        return self.direct(x) + x if self.centred else self.direct(x)

    def refined(
        self,
        x: Float[Tensor, "b c *space"],
        mean: Float[Tensor, "b c *space"],
        std: Float[Tensor, "b c *space"] | None,
        passes: int,
    ) -> Iterator[tuple[float, Float[Tensor, "b c *space"]]]:
        """A better mean, from the noisy image and its estimate (`wiener`), while it grows: (share done, mean).

        std: of the samples; None for the direct denoiser, which knows none.
        """
        assert self.measured is not None
        for done in range(passes):
            refining, share = wiener.refined(x, mean, std, self.measured, self.noise.axis or -1), 0.0
            while share < 1:
                share, mean = next(refining)
                yield (done + share) / passes, mean
