"""The noise decoder: autoregressive along the noise axis, with a Gaussian mixture for every pixel.

Its receptive field holds earlier pixels of the same row and nothing else, so it can explain noise that is
correlated along the row but not the image; the image is left to the latents (supplement section 3).

The same decoder draws new noise, pixel after pixel along the noise axis. Lines do not know each other, so a whole
column, of all lines and all samples, is drawn at once, and each layer remembers the few columns that it needs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cosdd.model.graph import Replay
from cosdd.model.layers import CONVOLUTION, Stem, convolution, start_at_zero

HALF_LOG_TWO_PI = 0.9189385332046727
LARGEST_SIGMA = 1e3  # in units of the images' standard deviation
REPLAYED, FEW = ("cuda",), 2**22  # so few pixels are drawn there before the host could say how: see `Replay`
LINES_AT_ONCE = {"cpu": 2**11, "cuda": 2**17}  # of sampling: what the layers remember should stay in the cache


def mixture_nll(
    x: Float[Tensor, "b c *space"],
    logits: Float[Tensor, "b c k *space"],
    means: Float[Tensor, "b c k *space"],
    sigmas: Float[Tensor, "b c k *space"],
) -> Float[Tensor, "b c *space"]:
    """Negative log-likelihood of each pixel in nats under its Gaussian mixture."""
    z = (x.unsqueeze(2) - means) / sigmas
    log_components = F.log_softmax(logits, dim=2) - 0.5 * z * z - torch.log(sigmas) - HALF_LOG_TWO_PI
    return -torch.logsumexp(log_components, dim=2)


def draw(
    logits: Float[Tensor, "*b k pixels"],
    means: Float[Tensor, "*b k pixels"],
    sigmas: Float[Tensor, "*b k pixels"],
    uniform: Float[Tensor, "*b pixels"],
    normal: Float[Tensor, "*b pixels"],
) -> Float[Tensor, "*b pixels"]:
    """A value of each pixel's mixture: ``uniform`` (0 to 1) chooses the Gaussian, ``normal`` the value within it."""
    cumulative = F.softmax(logits, dim=-2).cumsum(-2)[..., :-1, :]  # without the last: rounding cannot pass it
    chosen = (cumulative <= uniform.unsqueeze(-2)).sum(-2, keepdim=True)
    return (means.gather(-2, chosen) + sigmas.gather(-2, chosen) * normal.unsqueeze(-2)).squeeze(-2)


class CausalConvolution(nn.Module):
    """A convolution along one axis that sees pixels up to the present one, or strictly before it.

    Strictly before (the first layer): pad ``kernel`` zeros, drop the last output. Later: pad ``kernel - 1``.
    """

    def __init__(self, dimensions: int, axis: int, inputs: int, outputs: int, kernel: int, dilation: int, strict: bool):
        """``axis``: -1 for x, -2 for y, -3 for z."""
        super().__init__()
        size, spread = [1] * dimensions, [1] * dimensions
        size[axis], spread[axis] = kernel, dilation
        self.convolution = CONVOLUTION[dimensions](inputs, outputs, tuple(size), dilation=tuple(spread))
        self.axis, self.strict = axis, strict
        before = dilation * (kernel - 1) + (1 if strict else 0)
        self.pads = [0] * (2 * (-axis - 1)) + [before, 0]  # F.pad wants the last axis first
        self.reach = before

    def forward(self, h: Float[Tensor, "b c *space"]) -> Float[Tensor, "b f *space"]:
        # Dropping the last input is dropping the last output: a strict layer never sees the present pixel.
        if self.strict:
            h = h.narrow(self.axis, 0, h.shape[self.axis] - 1)
        return self.convolution(F.pad(h, self.pads))


class Rings:
    """The last inputs of a causal layer while columns are drawn; zeros stand for what lies before the first.

    Each column is kept twice, ``taps`` places apart: so the inputs of one output always lie in memory one after
    the other, oldest first, and a column costs one matrix product and no gathering.
    """

    def __init__(self, taps: int, dilation: int, features: int, lines: int, like: Tensor):
        """One ring of ``taps`` places for each of the ``dilation`` interleaved sequences of columns."""
        self.taps, self.dilation = taps, dilation
        self.places = like.new_zeros(dilation, 2 * taps, features, lines)

    def push(self, column: int, values: Float[Tensor, "f lines"]) -> None:
        """Columns come in order, from 0 on."""
        ring, place = column % self.dilation, column // self.dilation % self.taps
        self.places[ring, place] = values
        self.places[ring, place + self.taps] = values

    def until(self, column: int) -> Float[Tensor, "taps_f lines"]:
        """The inputs whose newest is ``column``."""
        ring, place = column % self.dilation, column // self.dilation % self.taps
        return self.places[ring, place + 1 : place + 1 + self.taps].flatten(0, 1)


def at_a_pixel(layer: nn.Module) -> tuple[Float[Tensor, "outputs taps_inputs"], Float[Tensor, "outputs 1"]]:
    """A convolution as a matrix for a single pixel, and its bias; the taps, if it has several, oldest first."""
    weight, bias = layer.weight, layer.bias  # type: ignore[union-attr]
    return weight.flatten(2).mT.flatten(1), bias[:, None]  # type: ignore[operator,index,return-value]


class NoiseDecoder(nn.Module):
    """p(x | code) = product over rows and pixels of p(x_ij | x_i,<j, code): nll and its parameters."""

    def __init__(
        self,
        dimensions: int,
        channels: int,
        code_channels: int,
        noise_axis: str,
        *,
        layers: int,
        features: int,
        kernel: int,
        dilation: int,
        components: int,
        centred: bool = False,
    ):
        """centred: the code begins with an image, and the means of the mixture are relative to it."""
        super().__init__()
        self.channels, self.components, self.depth = channels, components, layers
        self.centred = centred
        self.axis: int | None = None if noise_axis == "none" else {"x": -1, "y": -2, "z": -3}[noise_axis]
        self.from_code = convolution(dimensions, code_channels, layers * features, 1)
        # Context exists for x, y and z; with noise axis "none" the code alone decides.
        self.causal = nn.ModuleList()
        self.reach = 0
        if self.axis is not None:
            for layer in range(layers):
                # One input channel more than the image has: it is 1 where a pixel exists, so that the
                # zeros outside the image cannot be mistaken for grey values.
                inputs = channels + 1 if layer == 0 else features
                spread = dilation if layer % 2 else 1
                causal = CausalConvolution(dimensions, self.axis, inputs, features, kernel, spread, strict=layer == 0)
                self.reach += causal.reach
                self.causal.append(Stem(causal) if layer == 0 else causal)
        self.mix = nn.ModuleList(convolution(dimensions, features, features, 1) for _ in range(layers))
        self.head = convolution(dimensions, features, 3 * components * channels, 1)
        self._replay = Replay()
        self.smallest_sigma: Tensor
        self.register_buffer("smallest_sigma", torch.tensor(1e-3))

    def set_smallest_sigma(self, sigma: float) -> None:
        """Floor of the mixture's sigmas, in units of the images' standard deviation; saved with the weights."""
        self.smallest_sigma.fill_(sigma)

    @torch.no_grad()
    def start_at(self, sigma: Float[Tensor, " c"]) -> None:
        """Start as white noise of standard deviation ``sigma``, alike everywhere."""
        start_at_zero(self.head)
        _, means, raw = self.head.bias.view(3, self.channels, self.components)  # type: ignore[union-attr]
        above = (sigma - self.smallest_sigma).clamp_min(0.01 * sigma)[:, None]
        raw.copy_(torch.log(torch.expm1(above)).expand_as(raw))
        apart = torch.linspace(-0.3, 0.3, self.components)  # components that are alike would stay so
        means.copy_(sigma[:, None] * (apart - apart.mean()))  # a single one is in the middle

    def forward(
        self, x: Float[Tensor, "b c *space"], code: Float[Tensor, "b s *space"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, means and sigmas of every pixel's mixture, each float32 (b, c, k, *space)."""
        from_code = self.from_code(code).chunk(self.depth, dim=1)
        h = torch.empty(0)
        for layer in range(self.depth):
            skip = h if layer > 0 else None
            inner = from_code[layer]
            if self.causal:
                earlier = torch.cat([x, torch.ones_like(x[:, :1])], dim=1) if layer == 0 else h
                inner = inner + self.causal[layer](earlier)
            elif skip is not None:
                inner = inner + skip
            h = self.mix[layer](F.relu(inner))
            h = h if skip is None else h + skip
        with torch.autocast(x.device.type, enabled=False):
            theta = self.head(h.to(self.smallest_sigma.dtype))  # float32, whatever the networks compute in
        theta = theta.unflatten(1, (3, self.channels, self.components)).unbind(1)
        return self._mixture(theta, code[:, : self.channels].to(theta[1].dtype).unsqueeze(2))

    def _mixture(self, theta: tuple[Tensor, ...], image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """image: the first channels of the code, ready to be added to the means."""
        logits, means, raw = theta
        if self.centred:
            means = means + image
        # The floor is tied to the grey step of the data: repeated values cannot be fitted infinitely well.
        return logits, means, (self.smallest_sigma + F.softplus(raw)).clamp(max=LARGEST_SIGMA)

    def nll(self, x: Float[Tensor, "b c *space"], code: Float[Tensor, "b s *space"]) -> Float[Tensor, "b c *space"]:
        """-log p(x | code) of every pixel in nats."""
        return mixture_nll(x, *self(x, code))

    @torch.inference_mode()
    def sample(
        self,
        code: Float[Tensor, "b s *space"],
        uniform: Float[Tensor, "n b c *space"],
        normal: Float[Tensor, "n b c *space"],
    ) -> Float[Tensor, "n b c *space"]:
        """Noisy images drawn from p(x | code), n for each code: the same ones for the same ``uniform`` and ``normal``.

        uniform: uniform on [0, 1). normal: standard normal. Both in the dtype of the weights, in which all is computed.
        """
        with torch.autocast(code.device.type, enabled=False):
            code = code.to(self.smallest_sigma.dtype)
            if self.axis is None:
                none = code.new_zeros(len(code), self.channels, *code.shape[2:])
                logits, means, sigmas = (part.flatten(3) for part in self(none, code))
                draws = zip(uniform.flatten(3), normal.flatten(3), strict=True)
                return torch.stack([draw(logits, means, sigmas, *pair) for pair in draws]).view_as(uniform)
            # (columns, channels, samples, lines): a column at a time, the lines of all images side by side.
            columns = code.movedim(self.axis, 0).movedim(2, 1)
            others = columns.shape[2:]
            columns = columns.flatten(2)
            draws = [part.movedim(self.axis, 0).movedim(3, 1).flatten(3) for part in (uniform, normal)]
            drawn = torch.empty_like(draws[0])
            if code.device.type in REPLAYED and drawn.numel() <= FEW:
                weights = [*self.parameters(), self.smallest_sigma]
                drawn = self._replay(self._sample_lines, weights, columns, *draws)
                return drawn.unflatten(3, others).movedim(1, 3).movedim(0, self.axis)
            at_once = max(1, LINES_AT_ONCE.get(code.device.type, 2**14) // len(uniform))
            for start in range(0, columns.shape[-1], at_once):
                lines = slice(start, start + at_once)
                drawn[..., lines] = self._sample_lines(columns[..., lines], draws[0][..., lines], draws[1][..., lines])
            return drawn.unflatten(3, others).movedim(1, 3).movedim(0, self.axis)

    def _sample_lines(
        self,
        code: Float[Tensor, "w s lines"],
        uniform: Float[Tensor, "w c n lines"],
        normal: Float[Tensor, "w c n lines"],
    ) -> Float[Tensor, "w c n lines"]:
        """The pixels of some lines, drawn column after column."""
        drawn = torch.empty_like(uniform)
        samples, lines = uniform.shape[2:]
        assert self.axis is not None
        causal: list[CausalConvolution] = [getattr(layer, "layer", layer) for layer in self.causal]  # type: ignore[misc]
        weights = [at_a_pixel(layer.convolution) for layer in causal]
        mixes = [at_a_pixel(layer) for layer in self.mix]
        (from_code, code_bias), (head, head_bias) = at_a_pixel(self.from_code), at_a_pixel(self.head)
        code_bias = code_bias + torch.cat([bias for _, bias in weights])
        rings = [
            Rings(
                layer.convolution.kernel_size[self.axis], layer.convolution.dilation[self.axis],
                layer.convolution.in_channels, samples * lines, code,
            )
            for layer in causal
        ]  # fmt: skip
        exists = code.new_ones(1, samples * lines)
        for column in range(len(code)):
            said = torch.addmm(code_bias, from_code, code[column]).unflatten(0, (self.depth, -1, 1))
            h = exists
            for layer, (ring, (weight, _), (mix, mix_bias)) in enumerate(zip(rings, weights, mixes, strict=True)):
                if layer > 0:
                    ring.push(column, h)
                inner = weight @ ring.until(column if layer > 0 else column - 1)
                inner.view(-1, samples, lines).add_(said[layer]).relu_()
                h = torch.addmm(mix_bias, mix, inner) if layer == 0 else torch.addmm(h, mix, inner).add_(mix_bias)
            theta = torch.addmm(head_bias, head, h).unflatten(0, (3, self.channels, self.components))
            image = code[column, : self.channels].repeat(1, samples).unsqueeze(1)
            logits, means, sigmas = self._mixture(theta.unbind(0), image)
            x = draw(logits, means, sigmas, uniform[column].flatten(1), normal[column].flatten(1))
            rings[0].push(column, torch.cat([x, exists]))
            drawn[column] = x.view(self.channels, samples, lines)
        return drawn
