"""The signal decoder and the direct denoiser."""

import pytest
import torch
from torch import nn

from cosdd.model.signal import DirectDenoiser, SignalDecoder

SPACE = {1: (16,), 2: (16, 8), 3: (8, 8, 16)}


def test_hidden_layers_are_distinct_3_wide_convolutions_with_relu():
    """Supplement section 3; the authors' code shared the middle two by mistake (method 8.14)."""
    decoder = SignalDecoder(2, 1, 5, layers=4, features=6, padding="reflect")
    convolutions = [part for part in decoder.hidden if isinstance(part, nn.Conv2d)]
    for part, kind in zip(decoder.hidden, [nn.Conv2d, nn.ReLU] * 4, strict=True):
        assert isinstance(part, kind)
    assert [(c.in_channels, c.out_channels, c.kernel_size) for c in convolutions] == [
        (5, 6, (3, 3)), (6, 6, (3, 3)), (6, 6, (3, 3)), (6, 6, (3, 3)),
    ]  # fmt: skip
    assert len({id(c) for c in convolutions}) == 4


def test_the_clean_image_may_be_darker_than_the_mean():
    """A ReLU on normalised grey values would cut half of them off."""
    decoder = SignalDecoder(2, 1, 3, layers=2, features=8, padding="zeros")
    optimiser = torch.optim.Adam(decoder.parameters(), 0.05)
    code, wanted = torch.randn(1, 3, 8, 8), torch.full((1, 1, 8, 8), -3.0)
    for _ in range(60):
        optimiser.zero_grad()
        loss = (decoder(code) - wanted).square().mean()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.5


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("layers", [0, 1, 3])
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_signal_decoder_keeps_the_size(dimensions, layers, channels):
    decoder = SignalDecoder(dimensions, channels, 5, layers=layers, features=4, padding="reflect")
    assert decoder(torch.randn(2, 5, *SPACE[dimensions])).shape == (2, channels, *SPACE[dimensions])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("levels", [1, 2, 4])
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_direct_denoiser_keeps_the_size(dimensions, levels, channels):
    net = DirectDenoiser(dimensions, channels, levels, 4, "zeros")
    assert net.stride == 2 ** (levels - 1)
    assert net(torch.randn(2, channels, *SPACE[dimensions])).shape == (2, channels, *SPACE[dimensions])


def test_direct_denoiser_looks_far_and_near():
    """Every level contributes: an impulse reaches further than one block alone could carry it."""
    net = DirectDenoiser(1, 1, 4, 4, "zeros")
    for parameter in net.parameters():
        nn.init.uniform_(parameter, 0.05, 0.1)
    x = torch.zeros(1, 1, 128, requires_grad=True)
    net(x)[0, 0, 64].backward()
    assert x.grad is not None
    reached = x.grad[0, 0].nonzero().flatten()
    assert reached.min() <= 64 - 24
    assert reached.max() >= 64 + 24
    assert {62, 63, 64, 65, 66} <= set(reached.tolist())


def test_fine_detail_passes_by_the_coarse_levels():
    net = DirectDenoiser(2, 1, 3, 4, "zeros")
    for layer in net.leave:
        nn.init.zeros_(layer.weight)
    assert net(torch.randn(1, 1, 16, 16)).std() > 1e-3


def test_decoders_answer_in_float32_inside_mixed_precision():
    with torch.autocast("cpu", torch.bfloat16):
        clean = SignalDecoder(2, 1, 3, layers=1, features=4, padding="zeros")(torch.randn(1, 3, 8, 8))
        direct = DirectDenoiser(2, 1, 2, 4, "zeros")(torch.randn(1, 1, 8, 8))
    assert clean.dtype == direct.dtype == torch.float32
