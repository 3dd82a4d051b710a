"""What a sensor or a scan adds to a row: a Gaussian noise model of a handful of numbers that can be read.

"Row" is the line of pixels along the noise axis. All values are in the units of normalised images.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from cosdd import noisefloor
from cosdd.noisefloor import NoiseFloor

# Normalised images have unit variance; white noise below this (1 % of the image's standard deviation) is never
# learned, which keeps every covariance safely positive definite in float32.
FLOOR = 1e-4
KNOTS = len(noisefloor.QUANTILES)  # of a variance that is no straight line
DOUBTFUL = 0.2  # share of structure at which the measured noise counts half
BENT = 0.15  # relative error of the best straight line beyond which variances follow the measurement instead
SMOOTH = 0.01  # weight of squared differences between factors of neighbouring brightnesses
WAVE = 0.03  # share of the variance from which a wave is believed
BELIEVED = 0.8  # share of what goes on along the row that it must explain
NOTCH = 12  # pixels: standard deviation of the window in which a wave is taken out of other rows
PITCH = 0.01  # radians per pixel: unit of what training may change about the frequency of the wave


class RowNoise(nn.Module):
    """Covariance of the noise of a row, as a function of the clean row, for each channel.

    Three parts. *White*: variance `white + white_gain * signal`. *Correlated*: variance alike, with the
    autocorrelation of a short learned kernel (valid for every kernel, of either sign). *Steady*, the same at every
    brightness and all along the row: an offset, and a wave of random phase.

    Sensors need no more than straight lines and no wave. Where the measured noise (`start_at`) says otherwise, both
    variances are multiplied by a factor for each brightness, and the wave has an amplitude.
    """

    def __init__(self, channels: int, taps: int = 15) -> None:
        super().__init__()
        self.measured_at: Tensor
        self.measured: Tensor | None
        self.measured_weight: Tensor
        self.measured_scale: Tensor
        for name in ("measured_at", "measured", "measured_weight", "measured_scale"):
            self.register_buffer(name, None, persistent=False)

        def positive(value: float) -> nn.Parameter:
            return nn.Parameter(torch.full((channels,), math.log(value)))

        # Where nothing was measured (`start_at`) noise explains everything at first and the signal's share grows from
        # there: started small, the noise never catches up with a flexible signal covariance.
        self.log_white, self.log_white_gain = positive(0.5), positive(0.12)
        self.log_correlated, self.log_correlated_gain = positive(0.5), positive(0.03)
        self.log_offset = positive(1e-3)
        # On the CPU also where shapes alone are asked for (the device "meta"): there torch would import its compiler
        # for the arithmetic, which takes two seconds.
        lag = torch.arange(taps, device="cpu") - taps // 2
        self.kernel = nn.Parameter(torch.exp(-0.5 * (lag / 0.45) ** 2).repeat(channels, 1))
        # Learned only where the measurement asks for them.
        self.bend = nn.Parameter(torch.zeros(2, channels, KNOTS), requires_grad=False)
        self.log_wave = nn.Parameter(torch.zeros(channels), requires_grad=False)
        self.pitch = nn.Parameter(torch.zeros(channels), requires_grad=False)
        self.knots: Tensor
        self.register_buffer("knots", torch.linspace(-1, 2, KNOTS, device="cpu").repeat(channels, 1))
        self.frequency: Tensor  # of the wave as measured, radians per pixel; 0 where there is none
        self.register_buffer("frequency", torch.zeros(channels))

    def white(self, signal: Float[Tensor, "c n w"]) -> Float[Tensor, "c n w"]:
        """Variance of the white part where the clean image is `signal`."""
        line = self.log_white.exp()[:, None, None] + self.log_white_gain.exp()[:, None, None] * signal
        return (line.clamp_min(FLOOR) * self._factor(0, signal)).clamp_min(FLOOR)

    def correlated(self, signal: Float[Tensor, "c n w"]) -> Float[Tensor, "c n w"]:
        """Variance of the part that is correlated along the row."""
        line = self.log_correlated.exp()[:, None, None] + self.log_correlated_gain.exp()[:, None, None] * signal
        return (line.clamp_min(FLOOR / 10) * self._factor(1, signal)).clamp_min(FLOOR / 10)

    def _factor(self, part: int, signal: Float[Tensor, "c n w"]) -> Float[Tensor, "c n w"]:
        """By how much a variance differs from its straight line: log-linear between the knots, constant beyond."""
        right = torch.searchsorted(self.knots, signal.flatten(1).contiguous()).clamp(1, self.knots.shape[-1] - 1)
        low, high = self.knots.gather(1, right - 1), self.knots.gather(1, right)
        share = ((signal.flatten(1) - low) / (high - low)).clamp(0, 1)
        bend = self.bend[part]
        return torch.lerp(bend.gather(1, right - 1), bend.gather(1, right), share).exp().view_as(signal)

    def steady(self, width: int) -> Float[Tensor, "c 1 w w"]:
        """Covariance of what is the same at every brightness and does not fade along the row: offset and wave."""
        position = torch.arange(width, device=self.kernel.device)
        return self._steady((position[:, None] - position).abs())[:, None]

    def _steady(self, lag: Tensor) -> Tensor:
        each = (..., *[None] * lag.dim())
        return self.offset()[each] + self.wave()[each] * torch.cos(self.turn()[each] * lag)

    def taps(self) -> Float[Tensor, "c taps"]:
        return self.kernel / self.kernel.square().sum(-1, keepdim=True).sqrt().clamp_min(1e-6)

    def autocorrelation(self, lags: int) -> Float[Tensor, "c lags"]:
        """Correlation of the correlated part at lags 0, 1, ... (1 at lag 0)."""
        k = self.taps()
        full = F.conv1d(k[None], k[:, None], padding=k.shape[-1] - 1, groups=len(k))[0, :, k.shape[-1] - 1 :]
        return F.pad(full, (0, lags))[:, :lags]

    def toeplitz(self, width: int) -> Float[Tensor, "c 1 w w"]:
        """Correlation matrix of the correlated part of a row."""
        position = torch.arange(width, device=self.kernel.device)
        return self.autocorrelation(width)[:, None, (position[:, None] - position).abs()]

    def at(self, signal: Float[Tensor, "c n"], lags: int) -> Float[Tensor, "c n lags"]:
        """Autocovariance of the noise where the clean image is `signal` all along the row, at lags 0, 1, ..."""
        signal = signal[..., None]
        covariance = self.correlated(signal) * self.autocorrelation(lags)[:, None]
        covariance = covariance + self._steady(torch.arange(lags, device=signal.device))[:, None]
        return covariance + F.pad(self.white(signal), (0, lags - 1))

    def covariance(self, signal: Float[Tensor, "c n w"]) -> Float[Tensor, "c n w w"]:
        """Covariance of the noise of rows whose clean image is `signal`."""
        scale, width = self.correlated(signal).sqrt(), signal.shape[-1]
        covariance = torch.addcmul(self.steady(width), scale[..., :, None] * self.toeplitz(width), scale[..., None, :])
        covariance.diagonal(dim1=-2, dim2=-1).add_(self.white(signal))
        return covariance

    def without_wave(self, x: Float[Tensor, "b c *lines w"]) -> Float[Tensor, "b c *lines w"]:
        """Rows (the last axis) less what goes up and down like the wave over some tens of pixels, if there is one.

        For eyes that look at *other* rows. A wave in them says nothing, but is strong, and the likelihood of a row
        that has one of its own hardly minds what is wrong at its frequency.
        """
        if not bool(self.frequency.any()):
            return x
        lag = torch.arange(-3 * NOTCH, 3 * NOTCH + 1, device=x.device)
        window = torch.exp(-0.5 * (lag / NOTCH) ** 2)
        turn = self.turn().detach()[:, None] * lag
        # The least-squares amplitude of a cosine in the window; it passes a wave unchanged.
        passes = (self.frequency > 0)[:, None] * window * torch.cos(turn)
        passes = passes / (window * torch.cos(turn) ** 2).sum(-1, keepdim=True)
        rows = x.movedim(1, -2).flatten(0, -3)  # (lines, c, w)
        with torch.autocast(x.device.type, enabled=False):  # a wave is strong: what rounding leaves of it shows
            there = F.conv1d(
                torch.ones_like(rows[:1, :1]), (window / window.sum())[None, None].to(x), padding=3 * NOTCH
            )
            wave = F.conv1d(rows, passes[:, None].to(x), padding=3 * NOTCH, groups=x.shape[1]) / there
        return x - wave.view(x.movedim(1, -2).shape).movedim(-2, 1)

    # --- what was measured ------------------------------------------------------------------------------------

    def start_at(self, floor: NoiseFloor) -> None:
        """Start at the noise that was measured across the rows; `mismatch` then holds it there.

        Straight lines first. What they leave decides whether there is a wave, and whether variances are bent.
        """

        def buffer(name: str, values: np.ndarray | Tensor) -> None:  # training needs it, a trained model does not
            self.register_buffer(name, torch.as_tensor(values).detach().to(self.kernel), persistent=False)

        buffer("measured_at", floor.signal)
        buffer("measured", floor.covariance)
        # A brightness without noise (padding, masks, clipped background) or without pixels says nothing.
        known = floor.covariance[..., 0] > FLOOR
        buffer("measured_weight", known / (1 + (floor.structure / DOUBTFUL) ** 2))
        self._begin()
        self._look_for_wave()
        assert self.measured is not None
        # Noise fades with the light, a wave does not: errors count relative to what is left without it.
        buffer("measured_scale", (self.measured[..., 0] - self.wave()[:, None]).clamp_min(FLOOR)[..., None])
        self._approach()
        self._look_for_bend(floor.quantiles)

    @torch.no_grad()
    def _begin(self) -> None:
        """Where the fit begins: the straight line through the variances, half of it correlated.

        From far away it would not arrive: the noise of a good image is thousands of times weaker than the image.
        """
        assert self.measured is not None
        weight = self.measured_weight / self.measured[..., 0].clamp_min(FLOOR)  # of relative errors
        design = torch.stack([torch.ones_like(self.measured_at), self.measured_at], -1)
        weighted = (weight[..., None] * design).double(), (weight * self.measured[..., 0]).double()
        line = torch.linalg.lstsq(weighted[0], weighted[1][..., None], driver="gelsd").solution[..., 0].float()
        at_zero, gain = line[:, 0].clamp_min(FLOOR), line[:, 1].clamp_min(FLOOR / 10)
        for log_variance, log_gain in (
            (self.log_white, self.log_white_gain), (self.log_correlated, self.log_correlated_gain),
        ):  # fmt: skip
            log_variance.copy_((at_zero / 2).log())
            log_gain.copy_((gain / 2).log())
        self.log_offset.copy_((at_zero / 500).log())

    @torch.no_grad()
    def _look_for_wave(self) -> None:
        """Beyond the reach of the kernel only an offset and a wave go on."""
        assert self.measured is not None
        taps, lags = self.kernel.shape[-1], self.measured.shape[-1]
        if lags < 2 * taps:
            return
        weight = (self.measured_weight / self.measured_weight.sum(-1, keepdim=True).clamp_min(1e-6))[..., None]
        mean = (weight * self.measured).sum(-2)
        far = (mean[:, taps:] / mean[:, :1].clamp_min(FLOOR)).double()
        # A longer period than is seen here could as well be a long correlation, or structure.
        frequency = torch.linspace(2 * math.pi / (lags - taps), math.pi, 2000, dtype=torch.float64)
        wave = torch.cos(frequency[:, None] * torch.arange(taps, lags))
        wave, far = wave - wave.mean(-1, keepdim=True), far - far.mean(-1, keepdim=True)
        amplitude = far @ wave.T / wave.square().sum(-1).clamp_min(1e-9)
        explained = amplitude * (far @ wave.T) / far.square().sum(-1, keepdim=True).clamp_min(1e-12)
        for channel, best in enumerate(explained.argmax(-1).tolist()):
            if amplitude[channel, best] > WAVE and explained[channel, best] > BELIEVED:
                self.frequency[channel] = frequency[best]
                self.log_wave[channel] = (amplitude[channel, best] * mean[channel, 0]).log()
                self.log_wave.requires_grad_(True)
                self.pitch.requires_grad_(True)

    def _look_for_bend(self, quantiles: np.ndarray) -> None:
        """Variances that no straight line follows get a factor for each brightness."""
        assert self.measured is not None
        with torch.no_grad():
            error = ((self.at(self.measured_at, 1) - self.measured[..., :1]) / self.measured_scale)[..., 0]
            mean = (self.measured_weight * error.square()).sum(-1) / self.measured_weight.sum(-1).clamp_min(1e-6)
            if mean.max() < BENT**2:
                return
            # Increasing in any case, also where several brightnesses are one.
            self.knots.copy_(torch.as_tensor(quantiles) + 1e-3 * torch.arange(KNOTS))
        self.bend.requires_grad_(True)
        self._approach()

    def _approach(self) -> None:
        """Go where `mismatch` is least, of all the places that the search comes by."""
        parameters = [p for p in self.parameters() if p.requires_grad]
        optimiser = torch.optim.LBFGS(parameters, max_iter=200, history_size=20, line_search_fn="strong_wolfe")
        least, there = math.inf, [p.detach().clone() for p in parameters]

        def evaluated() -> Tensor:
            nonlocal least, there
            optimiser.zero_grad()
            mismatch = self.mismatch()
            mismatch.backward()
            if (value := float(mismatch.detach())) < least:
                least, there = value, [p.detach().clone() for p in parameters]
            return mismatch

        # Where the measurement says next to nothing of a parameter, a step along it may become too long for a number.
        try:
            optimiser.step(evaluated)  # type: ignore[arg-type]
        except RuntimeError as error:
            if "overflow" not in str(error):
                raise
        optimiser.zero_grad()
        with torch.no_grad():
            for parameter, best in zip(parameters, there, strict=True):
                parameter.copy_(best)

    def mismatch(self) -> Float[Tensor, ""]:
        """Squared difference to the measured noise, relative to its variance; 0 where none was measured.

        Brightnesses count by how little structure the measurement had to leave out. A little is for factors that
        differ from one brightness to the next: the two variances could else take turns.
        """
        if self.measured is None:
            return self.kernel.new_zeros(())
        learned = self.at(self.measured_at, self.measured.shape[-1])
        error = ((learned - self.measured) / self.measured_scale).square().sum(-1)
        return (self.measured_weight * error).mean() + SMOOTH * self.bend.diff().square().mean()

    def draw(self, signal: Float[Tensor, "c n w"], generator: torch.Generator) -> Float[Tensor, "c n w"]:
        """New noise of rows whose clean image is `signal`: a draw from N(0, covariance(signal))."""

        def normal(width: int) -> Tensor:
            return torch.randn(*signal.shape[:2], width, generator=generator).to(signal)

        taps, width = self.taps(), signal.shape[-1]
        padded = normal(width + taps.shape[-1] - 1).movedim(0, 1)
        blurred = F.conv1d(padded, taps[:, None], groups=len(taps)).movedim(1, 0)
        own = self.white(signal).sqrt() * normal(width) + self.correlated(signal).sqrt() * blurred
        offset = self.offset().sqrt()[:, None, None] * normal(1)
        turn = self.turn()[:, None, None] * torch.arange(width, device=signal.device)
        wave = self.wave().sqrt()[:, None, None] * (normal(1) * torch.cos(turn) + normal(1) * torch.sin(turn))
        return own + offset + wave

    @torch.no_grad()
    def draw_along(
        self, axis: int, signal: Float[Tensor, "b c *space"], generator: torch.Generator
    ) -> Float[Tensor, "b c *space"]:
        """New noise of clean images, along an axis of theirs (-1 is x); a function of the (CPU) generator's state."""
        lines = signal.movedim(axis, -1)
        rows = lines.movedim(1, 0)
        noise = self.draw(rows.flatten(1, -2), generator)
        return noise.view(rows.shape).movedim(0, 1).movedim(-1, axis)

    @torch.no_grad()
    def described(self) -> dict[str, np.ndarray]:
        """The learned noise in numbers, one entry per channel.

        Variance of the noise at signal s: `variance + gain * s`, of which `row_offset` is common to a row, and `wave`
        goes up and down along it with a period of `period` pixels (0 and 0 where there is none). Where no straight
        line describes the variance it is the best one, and `bent` the variance at each brightness of `knots`; `bent`
        is empty elsewhere. `autocorrelation` is that of the whole noise at the mean signal, at lags 1, 2, ...
        """
        variance = self.log_white.exp() + self.log_correlated.exp() + self.offset() + self.wave()
        gain = self.log_white_gain.exp() + self.log_correlated_gain.exp()
        bent = self.knots[:, :0]
        if self.bend.any():
            bent = self.at(self.knots, 1)[..., 0]
            design = torch.stack([torch.ones_like(self.knots), self.knots], -1)
            variance, gain = torch.linalg.lstsq(design, bent[..., None]).solution[..., 0].unbind(-1)
        whole = self.at(torch.zeros_like(self.knots[:, :1]), self.kernel.shape[-1])[:, 0]
        found = {
            "variance": variance,
            "gain": gain,
            "row_offset": self.offset(),
            "wave": self.wave(),
            "period": torch.where(self.frequency > 0, 2 * math.pi / self.turn().clamp_min(1e-6), 0),
            "autocorrelation": whole[:, 1:] / whole[:, :1],
            "knots": self.knots,
            "bent": bent,
        }
        return {name: value.double().cpu().numpy() for name, value in found.items()}

    def wave(self) -> Float[Tensor, " c"]:
        """Variance of the wave; 0 where there is none."""
        return (self.frequency > 0) * self.log_wave.exp()

    def turn(self) -> Float[Tensor, " c"]:
        """Radians per pixel of the wave."""
        return self.frequency + PITCH * self.pitch

    def offset(self) -> Float[Tensor, " c"]:
        """Variance of the offset of a whole row."""
        return FLOOR / 100 + self.log_offset.exp()
