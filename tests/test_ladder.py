"""The hierarchical VAE: its distributions, its KL, what flows where."""

import math

import pytest
import torch
from tiny import shaken

from cosdd.model.empty import EmptyLadder
from cosdd.model.ladder import LARGEST_STD, ONE, SMALLEST_STD, Normal, fresh_noise, kl
from cosdd.model.layers import double

SPACE = {1: (16,), 2: (16, 8), 3: (8, 4, 16)}


def ladder(dimensions=2, levels=3, channels=1, **changes) -> EmptyLadder:
    asked = {
        "features": 4, "max_features": 8, "latents": 2, "final_latents": 3, "downsampling": "after_first",
        "block": "plain", "activation": "silu", "padding": "zeros", "decoder_input": "features",
    } | changes  # fmt: skip
    return EmptyLadder(dimensions, channels, levels, **asked)


def fixed(seed=0):
    """A draw that gives each level the same noise on every call."""

    def draw(level, shape, device):
        return torch.randn(shape, generator=torch.Generator().manual_seed(100 * seed + level))

    return draw


def silent(level, shape, device):
    """No latent noise: the mean is the sample."""
    return torch.zeros(shape)


# --------------------------------------------------------------------------------------- distributions


def test_kl_is_that_of_torch_in_float64():
    shape = (4, 3, 5)
    mq, mp = torch.randn(2, *shape, dtype=torch.float64)
    sq, sp = torch.randn(2, *shape, dtype=torch.float64).exp()
    expected = torch.distributions.kl_divergence(torch.distributions.Normal(mq, sq), torch.distributions.Normal(mp, sp))
    torch.testing.assert_close(kl(Normal(mq, sq), Normal(mp, sp)), expected, rtol=0, atol=1e-12)


def test_kl_is_zero_for_equals_and_positive_otherwise():
    one = Normal(torch.randn(2, 3, 4), torch.rand(2, 3, 4) + 0.1)
    assert kl(one, one).abs().max() < 1e-6
    assert (kl(one, Normal(one.mean + 0.1, one.std)) > 0).all()


def test_standard_deviations_are_bounded_and_the_kl_stays_finite():
    """Neither a collapse nor an explosion may cost the run (method 8.1)."""
    extreme = torch.tensor([-1e6, -30.0, 0.0, 30.0, 1e6]).reshape(1, 1, 5)
    parameters = torch.cat([torch.zeros_like(extreme), extreme], dim=1).requires_grad_()
    normal = Normal.of(parameters)
    assert normal.std.min() >= SMALLEST_STD > 0
    assert normal.std.max() <= LARGEST_STD < math.inf
    worst = kl(Normal(normal.mean, normal.std.flip(-1)), normal)
    assert torch.isfinite(worst).all()
    worst.sum().backward()
    assert parameters.grad is not None
    assert torch.isfinite(parameters.grad).all()


def test_zero_parameters_are_a_standard_normal():
    normal = Normal.of(torch.zeros(1, 4, 3))
    assert (normal.mean == 0).all()
    torch.testing.assert_close(normal.std, torch.ones(1, 2, 3))
    assert math.log1p(math.exp(ONE)) == pytest.approx(1.0)


def test_distributions_are_float32_inside_mixed_precision():
    with torch.autocast("cpu", torch.bfloat16):
        net = shaken(ladder())
        _, kls = net.top_down(net.bottom_up(torch.randn(1, 1, 16, 16)))
    assert {value.dtype for value in kls} == {torch.float32}
    assert Normal.of(torch.zeros(1, 4, 3, dtype=torch.bfloat16)).std.dtype == torch.float32


def test_samples_have_the_moments_they_should():
    normal = Normal(torch.full((1, 1, 1), 3.0), torch.full((1, 1, 1), 0.5))
    drawn = normal.sample(torch.randn(1, 1, 20_000))
    assert drawn.mean() == pytest.approx(3.0, abs=0.02)
    assert drawn.std() == pytest.approx(0.5, abs=0.02)


# ------------------------------------------------------------------------------------------ the start


@pytest.mark.parametrize("decoder_input", ["latent", "features"])
@pytest.mark.parametrize("block", ["plain", "supplement"])
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_training_starts_with_no_information_in_the_latents(dimensions, block, decoder_input):
    """A posterior that copies the noise early never unlearns it (method 4.3)."""
    net = ladder(dimensions, block=block, decoder_input=decoder_input)
    _, kls = net.top_down(net.bottom_up(torch.randn(2, 1, *SPACE[dimensions])))
    assert len(kls) == 3
    assert max(abs(value.item()) for value in kls) < 1e-4


@pytest.mark.parametrize("block", ["plain", "supplement"])
def test_every_parameter_can_learn_once_the_latents_speak(block):
    """No branch of the hierarchy is disconnected."""
    net = shaken(ladder(block=block))
    code, kls = net.top_down(net.bottom_up(torch.randn(2, 1, 16, 16)))
    (code.square().sum() + sum(kls)).backward()  # type: ignore[union-attr]
    silent = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    # A convolution's bias in front of batch norm has no effect.
    assert [name for name in silent if not (block == "supplement" and name.endswith("bias"))] == []


# ------------------------------------------------------------------------------------------- structure


@pytest.mark.parametrize("downsampling", ["alternating", "every", "after_first"])
@pytest.mark.parametrize("levels", [1, 2, 4])
@pytest.mark.parametrize("decoder_input", ["latent", "features"])
@torch.no_grad()
def test_latents_go_from_coarse_to_fine_with_the_sizes_they_should_have(levels, downsampling, decoder_input):
    net = ladder(levels=levels, downsampling=downsampling, decoder_input=decoder_input)
    halvings = {"alternating": [0, 1, 1, 2], "every": [1, 2, 3, 4], "after_first": [0, 1, 2, 3]}[downsampling]
    seen = []

    def draw(level, shape, device):
        seen.append((level, tuple(shape)))
        return torch.randn(shape)

    code, kls = net.top_down(net.bottom_up(torch.randn(2, 1, 16, 32)), draw)
    assert seen == [
        (level, (2, 2 if level else 3, 16 >> halvings[level], 32 >> halvings[level]))
        for level in reversed(range(levels))
    ]
    assert code.shape == (2, net.code_channels, 16, 32)
    assert net.stride == 1 << halvings[levels - 1]
    assert len(kls) == levels
    space = (net.stride, 2 * net.stride)
    assert net.generate((3, *space), torch.device("cpu")).shape == (3, net.code_channels, *space)


def test_the_sampled_final_latent_is_what_the_decoders_receive():
    """Supplement section 3; at the start posterior and noise are the same numbers."""
    net = ladder(decoder_input="latent")
    noise = fixed()
    code, _ = net.top_down(net.bottom_up(torch.randn(1, 1, 16, 16)), noise)
    assert net.code_channels == 3
    torch.testing.assert_close(code, noise(0, torch.Size([1, 3, 16, 16]), None))


def test_a_half_size_final_latent_is_brought_to_full_size():
    net = ladder(levels=2, downsampling="every", decoder_input="latent")
    noise = fixed()
    code, _ = net.top_down(net.bottom_up(torch.randn(1, 1, 16, 16)), noise)
    z = noise(0, torch.Size([1, 3, 8, 8]), None)
    torch.testing.assert_close(code[..., ::2, ::2], z)
    torch.testing.assert_close(code[..., 1::2, 1::2], z)


@pytest.mark.parametrize("decoder_input", ["latent", "features"])
def test_every_level_reaches_the_code(decoder_input):
    net = shaken(ladder(decoder_input=decoder_input))
    features = net.bottom_up(torch.randn(1, 1, 16, 16))
    before, _ = net.top_down(features, fixed())
    for changed in range(3):

        def draw(level, shape, device, changed=changed):
            return fixed()(level, shape, device) + (1.0 if level == changed else 0.0)

        after, _ = net.top_down(features, draw)
        assert (after - before).abs().max() > 1e-4, f"level {changed}"


def test_the_posterior_looks_at_the_image_and_the_prior_does_not():
    net = shaken(ladder())
    shape, noise = (1, 16, 16), fixed()
    a, _ = net.top_down(net.bottom_up(torch.randn(1, 1, 16, 16)), noise)
    b, _ = net.top_down(net.bottom_up(torch.randn(1, 1, 16, 16)), noise)
    assert not torch.allclose(a, b)
    assert torch.equal(net.generate(shape, a.device, noise), net.generate(shape, a.device, noise))
    assert not torch.allclose(net.generate(shape, a.device, fixed(1)), net.generate(shape, a.device, noise))


def test_coarse_latents_reach_the_code_without_the_posterior_of_finer_ones():
    """The skip around each level; at the start, posteriors do not look at what is above them."""
    net = ladder()
    features = net.bottom_up(torch.randn(1, 1, 16, 16))
    before, _ = net.top_down(features, fixed())
    after, _ = net.top_down(features, lambda *asked: fixed()(*asked) + (1.0 if asked[0] == 2 else 0.0))
    assert (after - before).abs().max() > 1e-4


@pytest.mark.parametrize("informed", [0, 1, 2])
def test_the_kl_is_told_level_by_level_finest_first(informed):
    net = ladder()
    torch.nn.init.ones_(net.levels[informed].posterior.bias)
    _, kls = net.top_down(net.bottom_up(torch.randn(1, 1, 16, 16)))
    assert [value.item() > 1 for value in kls] == [level == informed for level in range(3)]


def test_leaving_the_kl_out_changes_no_sample():
    net = shaken(ladder())
    features = net.bottom_up(torch.randn(1, 1, 16, 16))
    with_kl, kls = net.top_down(features, fixed())
    without, none = net.top_down(features, fixed(), with_kl=False)
    assert torch.equal(with_kl, without)
    assert (len(kls), none) == (3, [])


def test_the_prior_fits_any_image_size():
    """A top prior of the size of the crop would break on every other size (method 8.7)."""
    net = shaken(ladder(padding="reflect"))
    per_pixel = []
    for height, width in ((16, 16), (48, 32)):
        flat = torch.ones(1, 1, height, width)
        _, kls = net.top_down(net.bottom_up(flat), silent)
        per_pixel.append(torch.stack(kls) / (height * width))
    torch.testing.assert_close(*per_pixel)


def test_the_kl_counts_every_element_once():
    """Nats summed over batch, latents and space: a batch of two equal images has twice the KL of one."""
    net = shaken(ladder()).double()
    x = torch.randn(1, 1, 16, 16).double()
    _, one = net.top_down(net.bottom_up(x), silent)
    _, two = net.top_down(net.bottom_up(x.repeat(2, 1, 1, 1)), silent)
    torch.testing.assert_close(torch.stack(two), 2 * torch.stack(one), rtol=1e-12, atol=0)
    assert min(one) > 0


def test_upsampling_in_the_ladder_is_the_cheap_exact_one():
    """1x1 convolution, then doubling, equals doubling, then 1x1 convolution."""
    net = shaken(ladder()).double()
    level = net.levels[1]
    seen = []
    level.leave.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    z, down = torch.randn(1, 2, 8, 8).double(), torch.randn(1, 8, 8, 8).double()
    out = level.top_down(z, down)
    slow = level.leave(torch.nn.functional.interpolate(seen[0], scale_factor=2.0))
    torch.testing.assert_close(double(out), slow, rtol=0, atol=1e-12)


def test_fresh_noise_is_fresh():
    shape, device = torch.Size([1, 1, 4]), torch.device("cpu")
    assert not torch.equal(fresh_noise(0, shape, device), fresh_noise(0, shape, device))
