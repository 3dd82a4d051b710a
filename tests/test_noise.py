"""The autoregressive noise decoder: what it sees, and that what it says is a probability."""

import copy
import math

import pytest
import torch
from tiny import Repeated, shaken
from torch.nn import functional as F

from cosdd import config
from cosdd.model import noise
from cosdd.model.graph import Replay
from cosdd.model.noise import LARGEST_SIGMA, CausalConvolution, NoiseDecoder, mixture_nll

PAPER = {"layers": 8, "kernel": 5, "dilation": 2}
AXIS = {"x": -1, "y": -2, "z": -3}


def decoder(dimensions=2, channels=1, noise_axis="x", code_channels=2, **changes) -> NoiseDecoder:
    asked = {"layers": 3, "features": 4, "kernel": 3, "dilation": 2, "components": 2} | changes
    return NoiseDecoder(dimensions, channels, code_channels, noise_axis, **asked)


def positive(net: NoiseDecoder) -> NoiseDecoder:
    """Positive weights: no path can cancel another, and no ReLU is shut."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.uniform_(0.05, 0.15)
    return net


def seen_from(net: NoiseDecoder, space: tuple[int, ...], pixel: tuple[int, ...]) -> torch.Tensor:
    """Which pixels of x (c, *space) the parameters at ``pixel`` depend on, the code held fixed."""
    x = torch.rand(1, net.channels, *space, requires_grad=True)
    theta = net(x, torch.rand(1, 2, *space))
    sum(part[(..., *pixel)].sum() for part in theta).backward()  # type: ignore[union-attr]
    return torch.zeros(net.channels, *space, dtype=torch.bool) if x.grad is None else x.grad[0] != 0


# -------------------------------------------------------------------------------------------- causality


def test_the_paper_presets_see_49_earlier_pixels():
    """Supplement section 3: 5 pixels from the first layer, then 4 or, where dilated, 8 from each of seven."""
    assert 5 + 4 * 8 + 3 * 4 == 49
    for preset in ("small", "large"):
        model = config.build(preset).model
        net = decoder(layers=model.noise_layers, kernel=model.noise_kernel, dilation=model.noise_dilation)
        assert net.reach == 49


@pytest.mark.parametrize("asked", [PAPER, {"layers": 1, "kernel": 4}, {"layers": 3, "kernel": 3, "dilation": 1}])
@pytest.mark.parametrize(("axis", "place"), [("x", (2, 55)), ("y", (55, 2))])
def test_a_pixel_sees_exactly_the_reach_before_it_on_its_own_line(axis, place, asked):
    """Method 7.3: not itself, nothing after it, no other line; and every pixel within reach."""
    net = positive(decoder(noise_axis=axis, **asked))
    space = (4, 60) if axis == "x" else (60, 4)
    seen = seen_from(net, space, place)[0]
    line = seen[2] if axis == "x" else seen[:, 2]
    assert line.nonzero().flatten().tolist() == list(range(55 - net.reach, 55))
    assert seen.sum() == net.reach


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_causality_in_three_dimensions(axis):
    net = positive(decoder(3, noise_axis=axis, layers=2))
    place = [4, 4, 4]
    along = 3 + AXIS[axis]
    place[along] = 8
    space = [5, 5, 5]
    space[along] = 10
    seen = seen_from(net, tuple(space), tuple(place))[0]
    wanted = torch.zeros_like(seen)
    index: list = list(place)
    index[along] = slice(8 - net.reach, 8)
    wanted[tuple(index)] = True
    assert torch.equal(seen, wanted)


def test_causality_in_one_dimension():
    net = positive(decoder(1, layers=2))
    assert seen_from(net, (20,), (15,))[0].nonzero().flatten().tolist() == list(range(15 - net.reach, 15))


def test_no_channel_sees_the_pixel_itself_in_another_channel():
    """Channels are independent given the code and the past of all of them."""
    net = positive(decoder(channels=3, layers=2))
    seen = seen_from(net, (3, 20), (1, 15))
    for channel in range(3):
        assert seen[channel, 1].nonzero().flatten().tolist() == list(range(15 - net.reach, 15))
    assert seen.sum() == 3 * net.reach


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_without_a_noise_axis_no_pixel_is_seen_at_all(dimensions):
    net = positive(decoder(dimensions, noise_axis="none"))
    space = (6,) * dimensions
    assert net.reach == 0
    x = torch.randn(1, 1, *space)
    code = torch.rand(1, 2, *space)
    for one, other in zip(net(x, code), net(x + 5, code), strict=True):
        assert torch.equal(one, other)
    assert not seen_from(net, space, (3,) * dimensions).any()


def test_the_code_is_seen_at_the_pixel_itself_and_what_it_said_before():
    """Conditioning, unlike context, includes the present."""
    net = positive(decoder())
    code = torch.rand(1, 2, 3, 20, requires_grad=True)
    logits, _, _ = net(torch.rand(1, 1, 3, 20), code)
    logits[..., 1, 15].sum().backward()
    assert code.grad is not None
    seen = code.grad[0, 0] != 0
    assert seen[1, 15]
    assert not seen[1, 16:].any()
    assert not seen[[0, 2]].any()


def test_the_border_is_told_from_a_grey_value():
    """Zeros outside the image are not pixels of value 0, the mean."""
    net = shaken(decoder(layers=1))
    code = torch.zeros(1, 2, 1, 8)
    _, means, _ = net(torch.zeros(1, 1, 1, 8), code)
    assert (means[..., 0] - means[..., 4]).abs().max() > 1e-3
    torch.testing.assert_close(means[..., 4], means[..., 7])


@pytest.mark.parametrize("strict", [True, False])
def test_a_causal_layer_pads_as_the_supplement_says(strict):
    """k zeros and the last output dropped at first, k - 1 zeros later."""
    layer = CausalConvolution(2, -1, 1, 1, 5, 1, strict)
    x = torch.randn(1, 1, 3, 9)
    padded = F.pad(x, (5 if strict else 4, 0))
    expected = F.conv2d(padded, layer.convolution.weight, layer.convolution.bias)
    torch.testing.assert_close(layer(x), expected[..., :9])


@pytest.mark.parametrize("size", [1, 2, 3])
def test_lines_shorter_than_the_kernel(size):
    for asked in ({}, PAPER):
        logits, means, sigmas = decoder(**asked)(torch.randn(1, 1, 4, size), torch.randn(1, 2, 4, size))
        assert logits.shape == means.shape == sigmas.shape == (1, 1, 2, 4, size)


def test_column_noise_is_row_noise_of_the_transposed_image():
    rows, columns = shaken(decoder(channels=2)), decoder(channels=2, noise_axis="y")
    columns.load_state_dict(
        {name: value.mT if value.dim() == 4 else value for name, value in rows.state_dict().items()}
    )
    x, code = torch.randn(2, 2, 6, 11), torch.randn(2, 2, 6, 11)
    torch.testing.assert_close(columns.nll(x.mT, code.mT), rows.nll(x, code).mT)


# ------------------------------------------------------------------------------------------- the mixture


@pytest.mark.parametrize("components", [1, 3, 10])
def test_what_the_decoder_says_of_a_pixel_is_a_probability(components):
    """Method 7.4: everything else fixed, the density of the last pixel integrates to one."""
    net = shaken(decoder(components=components, channels=2), 0.5)
    grid = torch.linspace(-60, 60, 24_001)
    x = torch.randn(1, 2, 1, 6).repeat(len(grid), 1, 1, 1)
    code = torch.randn(1, 2, 1, 6).repeat(len(grid), 1, 1, 1)
    x[:, 1, 0, -1] = grid
    with torch.no_grad():
        nll = net.nll(x, code)
    density = torch.exp(-nll[:, 1, 0, -1].double())
    assert float(torch.trapezoid(density, grid.double())) == pytest.approx(1.0, abs=1e-4)
    # The other channel of that pixel, and all earlier ones, do not depend on it.
    assert nll[:, 0].std(dim=0).max() < 1e-5
    assert nll[:, 1, 0, :-1].std(dim=0).max() < 1e-5


def test_mixture_is_that_of_torch_in_float64():
    logits, means = torch.randn(2, 2, 3, 4, 5, dtype=torch.float64)
    sigmas = torch.rand(2, 3, 4, 5, dtype=torch.float64) + 0.05
    x = torch.randn(2, 3, 5, dtype=torch.float64)
    expected = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=logits.movedim(2, -1)),
        torch.distributions.Normal(means.movedim(2, -1), sigmas.movedim(2, -1)),
    ).log_prob(x)
    torch.testing.assert_close(mixture_nll(x, logits, means, sigmas), -expected, rtol=0, atol=1e-10)


def test_nll_of_samples_is_the_entropy():
    x = 0.7 * torch.randn(1, 1, 100_000) + 2
    one = torch.ones_like(x).unsqueeze(2)
    nll = mixture_nll(x, 0 * one, 2 * one, 0.7 * one)
    assert float(nll.mean()) == pytest.approx(0.5 * math.log(2 * math.pi * math.e * 0.7**2), abs=0.01)


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(2, 1, 4, 8),
        torch.full((2, 1, 4, 8), 7.0),
        torch.full((2, 1, 4, 8), 1e4),
        torch.full((2, 1, 4, 8), -1e4),
    ],
    ids=["zeros", "equal", "huge", "hugely negative"],
)
@pytest.mark.parametrize("raw_sigma", [0.0, -1e4, 1e4], ids=["", "collapsed", "exploded"])
def test_loss_and_gradients_are_finite_for_any_pixels(x, raw_sigma):
    net = decoder()
    with torch.no_grad():
        net.head.bias[-2:] = raw_sigma
    nll = net.nll(x, torch.randn(2, 2, 4, 8))
    nll.mean().backward()
    assert torch.isfinite(nll).all()
    for parameter in net.parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all()


def test_sigma_never_falls_below_its_floor():
    """Repeated grey values cannot be fitted infinitely well (method 8.1)."""
    net = shaken(decoder(components=3), 1.0)
    net.set_smallest_sigma(0.05)
    with torch.no_grad():
        net.head.bias.fill_(-1e4)
    _, _, sigmas = net(torch.zeros(1, 1, 4, 8), torch.zeros(1, 2, 4, 8))
    assert sigmas.min() >= 0.05
    assert net.nll(torch.zeros(1, 1, 4, 8), torch.zeros(1, 2, 4, 8)).isfinite().all()


def test_sigma_never_exceeds_its_ceiling():
    net = decoder()
    with torch.no_grad():
        net.head.bias.fill_(1e30)
    _, _, sigmas = net(torch.zeros(1, 1, 4, 8), torch.zeros(1, 2, 4, 8))
    assert sigmas.max() <= LARGEST_SIGMA


def test_the_floor_travels_with_the_weights():
    net, other = decoder(), decoder()
    net.set_smallest_sigma(0.25)
    other.load_state_dict(net.state_dict())
    assert float(other.smallest_sigma) == 0.25


def test_mixture_parameters_are_float32_inside_mixed_precision():
    with torch.autocast("cpu", torch.bfloat16):
        net = decoder()
        parts = net(torch.randn(1, 1, 4, 8), torch.randn(1, 2, 4, 8))
        nll = net.nll(torch.randn(1, 1, 4, 8), torch.randn(1, 2, 4, 8))
    assert {part.dtype for part in (*parts, nll)} == {torch.float32}


@pytest.mark.parametrize("coefficient", [0.8, -0.8])
def test_it_learns_noise_correlated_along_the_line_with_either_sign(coefficient):
    """EMCCD frames have negative neighbours (method 1); no code, no image: only the noise."""
    noise = torch.randn(4, 1, 8, 64)
    for column in range(1, 64):
        noise[..., column] = coefficient * noise[..., column - 1] + 0.6 * noise[..., column]
    net = decoder(layers=1, kernel=2, components=1, features=8)
    code = torch.zeros(4, 2, 8, 64)
    optimiser = torch.optim.Adam(net.parameters(), 0.05)
    for _ in range(60):
        optimiser.zero_grad()
        loss = net.nll(noise, code).mean()
        loss.backward()
        optimiser.step()
    white, exact = 0.5 * math.log(2 * math.pi * math.e), 0.5 * math.log(2 * math.pi * math.e * 0.36)
    assert loss.item() < exact + 0.25 * (white - exact)


# --------------------------------------------------------------------------------------------- sampling


def naively(net: NoiseDecoder, axis: int, code: torch.Tensor, uniform: torch.Tensor, normal: torch.Tensor):
    """One pixel of every line at a time, and the whole image through the decoder for each of them."""
    drawn = torch.zeros_like(uniform)
    for sample in range(len(drawn)):
        for column in range(uniform.shape[axis]):
            with torch.no_grad():
                logits, means, sigmas = (part.select(axis, column) for part in net(drawn[sample], code))
            weights = torch.softmax(logits, 2).cumsum(2)
            chance = uniform[sample].select(axis, column).unsqueeze(2)
            chosen = (weights[:, :, :-1] <= chance).sum(2, keepdim=True)
            value = normal[sample].select(axis, column).unsqueeze(2)
            value = means.gather(2, chosen) + sigmas.gather(2, chosen) * value
            drawn[sample].select(axis, column).copy_(value.squeeze(2))
    return drawn


@pytest.mark.parametrize(
    ("dimensions", "axis"),
    [(1, "x"), (1, "none"), (2, "x"), (2, "y"), (2, "none"), (3, "x"), (3, "y"), (3, "z"), (3, "none")],
)
@pytest.mark.parametrize("asked", [{}, PAPER, {"layers": 2, "kernel": 2, "dilation": 3, "channels": 3}])
def test_cached_sampling_is_naive_sampling(dimensions, axis, asked, monkeypatch):
    """Draw by draw in float64, however many lines go together."""
    monkeypatch.setitem(noise.LINES_AT_ONCE, "cpu", 10)
    net = shaken(decoder(dimensions, noise_axis=axis, **asked), 0.3).double()
    space = (4, 3, 23)[-dimensions:]
    if axis in "yz" and dimensions > 1:
        space = tuple(torch.tensor(space).roll(-1 if axis == "z" or dimensions == 2 else 1).tolist())
    code = torch.randn(2, 2, *space, dtype=torch.float64)
    shape = (3, 2, net.channels, *space)
    uniform, normal = torch.rand(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)
    expected = naively(net, AXIS.get(axis, -1), code, uniform, normal)
    assert expected.std() > 0.1
    torch.testing.assert_close(net.sample(code, uniform, normal), expected, rtol=1e-12, atol=1e-12)


def test_sampled_noise_has_the_correlation_that_was_learned():
    """A decoder set by hand to x_i = -0.6 x_(i-1) + 0.8 e_i: no training, no luck."""
    net = decoder(layers=1, kernel=2, components=1, features=2)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        # features relu(x) and relu(-x) of the previous pixel; the mean is -0.6 of their difference
        net.causal[0].layer.convolution.weight[:, 0, 0, 1] = torch.tensor([1.0, -1.0])
        net.mix[0].weight[:, :, 0, 0] = torch.eye(2)
        net.head.weight[1, :, 0, 0] = torch.tensor([-0.6, 0.6])
        net.head.bias[2] = math.log(math.expm1(0.8 - float(net.smallest_sigma)))
    shape = (2, 1, 1, 300, 300)
    drawn = net.sample(torch.zeros(1, 2, 300, 300), torch.rand(shape), torch.randn(shape))[:, 0, 0, :, 20:]
    assert float(drawn.var()) == pytest.approx(1.0, abs=0.02)
    for lag, truth in ((1, -0.6), (2, 0.36), (3, -0.216)):
        assert float((drawn[..., lag:] * drawn[..., :-lag]).mean()) == pytest.approx(truth, abs=0.02)
    assert float((drawn[:, 1:] * drawn[:, :-1]).mean()) == pytest.approx(0, abs=0.02)


def test_draws_come_from_all_gaussians_of_the_mixture():
    """Weights .2, .5, .3 at -10, 0, 10; also for a chance of exactly 0 and the largest below 1."""
    logits = torch.tensor([0.2, 0.5, 0.3]).log()[:, None].expand(3, 100_002)
    means = torch.tensor([-10.0, 0.0, 10.0])[:, None].expand(3, 100_002)
    chance = torch.cat([torch.rand(100_000), torch.tensor([0.0, 1 - 2**-24])])
    values = noise.draw(logits, means, torch.full_like(means, 0.5), chance, torch.randn(100_002))
    for place, weight in ((-10, 0.2), (0, 0.5), (10, 0.3)):
        near = values[(values - place).abs() < 4]
        assert len(near) / len(values) == pytest.approx(weight, abs=0.01)
        assert float(near.std()) == pytest.approx(0.5, abs=0.02)


def test_few_samples_at_a_time_are_replayed_on_a_gpu(monkeypatch):
    """With new codes, numbers and shapes, and with other weights in the same place; other networks have their own."""
    monkeypatch.setattr(noise, "REPLAYED", ("cpu",))
    monkeypatch.setattr(Repeated, "made", 0)
    net, made = decoder(), []
    net._replay = Replay(Repeated)
    for width in (6, 6, 6, 9, 9):
        code, shape = torch.randn(2, 2, 8, width), (2, 2, 1, 8, width)
        given = code, torch.rand(shape), torch.randn(shape)
        if width == 9:
            shaken(net)
        drawn = net.sample(*given)
        made.append(Repeated.made)
        with monkeypatch.context() as context:
            context.setattr(noise, "REPLAYED", ())
            assert torch.equal(net.sample(*given), drawn)
    assert made == [0, 1, 1, 1, 2]  # the second call with tensors of the same shapes is recorded
    other = copy.deepcopy(net)
    other.sample(*given), other.sample(*given)
    assert Repeated.made == 3


def test_sampling_asks_the_host_for_nothing():
    """Or it could not be recorded: a value that were read would raise."""
    net = decoder().to("meta")
    shape = (2, 1, 1, 4, 6)
    columns = [torch.empty(6, 2, 4), torch.empty(6, 1, 2, 4), torch.empty(6, 1, 2, 4)]
    drawn = net._sample_lines(*(t.to("meta") for t in columns))
    assert drawn.device.type == "meta"
    assert drawn.numel() == math.prod(shape)
