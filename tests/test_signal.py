"""The signal decoder and the direct denoiser."""

import pytest
import torch
from torch import nn

from cosdd.model.signal import SignalDecoder

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


def test_decoder_answers_in_float32_inside_mixed_precision():
    with torch.autocast("cpu", torch.bfloat16):
        clean = SignalDecoder(2, 1, 3, layers=1, features=4, padding="zeros")(torch.randn(1, 3, 8, 8))
    assert clean.dtype == torch.float32
