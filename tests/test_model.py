"""COSDD, the parts joined: gradients, presets, sizes."""

import copy
import itertools
import math

import pytest
import torch
from tiny import network, shaken
from torch import nn

from cosdd import config
from cosdd.model import COSDD
from cosdd.model.layers import SupplementBlock

SPACE = {1: (16,), 2: (16, 8), 3: (8, 4, 8)}


def fixed(seed):
    """A draw that gives each level the same noise on every call."""

    def draw(level, shape, device):
        return torch.randn(shape, generator=torch.Generator().manual_seed(100 * seed + level))

    return draw


def touched(net: COSDD) -> set[str]:
    """The parts that have a gradient."""
    return {name.split(".")[0] for name, p in net.named_parameters() if p.grad is not None and p.grad.any()}


# -------------------------------------------------------------------------------------------- gradients


def test_each_loss_trains_its_own_network_only():
    """Stop-gradients: regression to the noisy image would pull noise into the latents (method 2.3, 2.4)."""
    net = shaken(network())
    for name, own in (("signal", {"signal"}), ("direct", {"direct"}), ("elbo", {"ladder", "noise"})):
        net.zero_grad(set_to_none=True)
        net(torch.randn(2, 1, 16, 16))[name].backward()
        assert touched(net) == own


def test_the_bound_is_one_for_the_pixels_that_are_known():
    """Spread over pixels that miss, the latents would be as good as free, and would copy the noise."""
    net, x = shaken(network()), torch.randn(1, 1, 16, 16)
    x[..., 10:, :] = 0
    whole = net(x, draw=fixed(0))["kl"]
    x[..., 10:, :] = torch.nan
    torch.testing.assert_close(net(x, draw=fixed(0))["kl"] * 10, whole * 16)


@pytest.mark.parametrize("decoder_input", ["latent", "features"])
def test_one_summed_loss_with_one_adamax_equals_three_of_each(decoder_input):
    together = shaken(network(decoder_input=decoder_input))
    apart = copy.deepcopy(together)
    start = copy.deepcopy(together.state_dict())
    one = torch.optim.Adamax(together.parameter_groups(), lr=0.002)
    three = {group["name"]: torch.optim.Adamax(group["params"], lr=0.002) for group in apart.parameter_groups()}
    assert list(three) == ["vae", "signal", "direct"]
    for step in range(5):
        x = torch.randn(2, 1, 16, 16)
        one.zero_grad()
        together(x, draw=fixed(step))["loss"].backward()
        one.step()

        for optimiser in three.values():
            optimiser.zero_grad()
        terms = apart(x, draw=fixed(step))
        (terms["nll"] + terms["kl"]).backward()
        terms["signal"].backward()
        terms["direct"].backward()
        for optimiser in three.values():
            optimiser.step()
    for name, value in together.state_dict().items():
        # The same sums in the same order: equal to the last bit, so float32 shows as much as float64 would.
        torch.testing.assert_close(value, apart.state_dict()[name], rtol=0, atol=1e-12)
        learns = name != "noise.smallest_sigma" and not name.startswith("measured.")
        assert torch.equal(value, start[name]) != learns


def test_the_groups_hold_every_parameter_once():
    for direct in (True, False):
        net = network(direct=direct)
        held = [id(p) for group in net.parameter_groups() for p in group["params"]]
        assert sorted(held) == sorted(id(p) for p in net.parameters() if p.requires_grad)
        assert len(net.parameter_groups()) == (3 if direct else 2)


def test_forward_never_edits_a_parameter():
    """The authors' code masks and rescales its weights in every forward pass (method 8.10, 8.12)."""
    net = shaken(network(block="supplement")).train()
    before = {name: p.clone() for name, p in net.named_parameters()}
    net(torch.randn(2, 1, 16, 16))
    for name, p in net.named_parameters():
        assert torch.equal(p, before[name]), name


# ----------------------------------------------------------------------------------------------- losses


def test_losses_are_nats_per_pixel_and_mean_squares():
    net = shaken(network(channels=2)).eval()
    x, noise = torch.randn(3, 2, 16, 8), fixed(0)
    terms = net(x, draw=noise)
    code, kls = net.ladder.top_down(net.ladder.bottom_up(x), noise)
    torch.testing.assert_close(terms["kl"], torch.stack(kls).sum() / (3 * 2 * 16 * 8))
    torch.testing.assert_close(terms["nll"], net.noise.nll(x, code).mean())
    torch.testing.assert_close(terms["elbo"], -(terms["nll"] + terms["kl"]))
    torch.testing.assert_close(terms["signal"], (net.signal(code) - x).square().mean())
    torch.testing.assert_close(terms["direct"], (net.direct(x) - net.signal(code)).square().mean())
    torch.testing.assert_close(terms["loss"], terms["signal"] + terms["direct"] - terms["elbo"])
    torch.testing.assert_close(terms["kl_levels"].sum(), terms["kl"])
    assert not terms["kl_levels"].requires_grad


def test_nll_starts_near_that_of_a_gaussian():
    """Normalised images under an untrained decoder: nothing like the thousands that break a run."""
    terms = network()(torch.randn(4, 1, 16, 16))
    assert terms["nll"].item() == pytest.approx(0.5 * math.log(2 * math.pi * math.e), abs=0.7)
    assert abs(terms["kl"].item()) < 1e-6


def test_the_direct_denoiser_waits_until_its_targets_have_settled():
    net = network(direct_from=0.5)
    x = torch.randn(1, 1, 16, 16)
    assert "direct" not in net(x, 0.49)
    assert "direct" in net(x, 0.5)
    assert "direct" not in network(direct=False)(x)


# ------------------------------------------------------------------------------------- any kind of image

KINDS = [(dimensions, axis) for dimensions, axes in ((1, "x"), (2, "xy"), (3, "xyz")) for axis in (*axes, "none")]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("dimensions", "axis"), KINDS)
def test_every_dimension_channel_count_and_noise_axis(dimensions, axis, channels):
    net = network(dimensions=dimensions, noise_axis=axis, channels=channels)
    x = torch.randn(2, channels, *SPACE[dimensions])
    terms = net(x)
    terms["loss"].backward()
    assert all(torch.isfinite(value).all() for value in terms.values())
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in net.parameters())
    assert net.eval().sample(*net.encode(x)).shape == x.shape
    assert net.denoise_directly(x).shape == x.shape


@pytest.mark.parametrize("decoder_input", ["latent", "features"])
@pytest.mark.parametrize("block", ["supplement", "plain"])
@pytest.mark.parametrize("padding", ["zeros", "reflect"])
@torch.no_grad()
def test_odd_sizes_come_back_as_they_were(padding, block, decoder_input):
    net = network(padding=padding, block=block, decoder_input=decoder_input, levels=3).eval()
    for space in itertools.product((5, 9, 22), (7, 16)):
        x = torch.randn(1, 1, *space)
        assert net.sample(*net.encode(x)).shape == x.shape
        assert net.denoise_directly(x).shape == x.shape


@pytest.mark.parametrize("padding", ["zeros", "reflect"])
@pytest.mark.parametrize("space", [(1, 1), (1, 40), (3, 1), (2, 5)])
@torch.no_grad()
def test_images_of_a_few_pixels_come_back_as_they_were(space, padding):
    net = network(padding=padding, levels=3).eval()
    x = torch.randn(1, 1, *space)
    assert net.sample(*net.encode(x)).shape == x.shape
    assert net.denoise_directly(x).shape == x.shape


@torch.no_grad()
def test_a_flat_image_has_no_edges_where_convolutions_reflect():
    """Zeros outside the image would be an artificial border (method 8.5)."""

    def silent(level, shape, device):
        return torch.zeros(shape)

    net = shaken(network(padding="reflect", block="supplement", levels=3)).eval()
    code, _ = net.ladder.top_down(net.ladder.bottom_up(torch.ones(1, 1, 16, 16)), silent)
    for flat in (code, net.signal(code), net.direct(torch.ones(1, 1, 16, 16))):
        torch.testing.assert_close(flat, flat[..., :1, :1].expand_as(flat), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_sizes_that_fit_are_framed_by_reflection():
    """Borders see the image mirrored, not nothing (method 8.5): a mirror image has a mirrored result."""
    net = shaken(network(levels=2)).eval()
    features, window = net.encode(torch.randn(1, 1, 16, 16))
    assert features[0].shape[2:] == (20, 20)
    assert window[2:] == (slice(2, 18), slice(2, 18))


@torch.no_grad()
def test_a_sample_depends_on_its_own_image_and_noise_only():
    net = shaken(network()).eval()
    x = torch.randn(3, 1, 16, 16)
    all_three = net.sample(*net.encode(x), lambda level, shape, device: torch.zeros(shape))
    alone = net.sample(*net.encode(x[1:2]), lambda level, shape, device: torch.zeros(shape))
    torch.testing.assert_close(all_three[1:2], alone)


# -------------------------------------------------------------------------------- the paper's networks

PAPER = {"large": (14, 64, 128, 128), "small": (6, 32, 64, 64)}  # levels, latents, final latents, features


@pytest.mark.parametrize("preset", ["large", "small"])
def test_the_paper_networks_are_built_to_the_letter(preset):
    """Supplement section 3, in the modules themselves and not only in the settings."""
    with torch.device("meta"):
        net = COSDD(config.build(preset).model)
    levels, latents, final_latents, features = PAPER[preset]
    assert len(net.ladder.levels) == levels
    for index, level in enumerate(net.ladder.levels):
        assert level.posterior.out_channels == 2 * (latents if index else final_latents)
        assert level.posterior.in_channels == features
        # Resampling at alternating levels.
        assert (level.enter is not None and level.enter.stride == (2, 2)) == (index % 2 == 1)
        # A residual block with its gate on the way up and on the way down.
        assert isinstance(level.up, SupplementBlock)
        blocks_down = [level.down] if index else [level.merge_up.block]
        assert all(isinstance(block, SupplementBlock) for block in blocks_down)
        for part, kind in zip(level.up.residual, [nn.Conv2d, nn.BatchNorm2d, nn.Mish] * 2, strict=True):
            assert isinstance(part, kind)
    assert net.stride == 2 ** (levels // 2)

    # The decoders receive the sample of the final level.
    assert net.ladder.code_channels == final_latents
    assert not hasattr(net.ladder.levels[0], "down")

    causal = [m for m in net.noise.causal.modules() if isinstance(m, nn.Conv2d)]
    assert [c.kernel_size for c in causal] == [(1, 5)] * 8
    assert [c.out_channels for c in causal] == [64] * 8
    assert [c.dilation[1] for c in causal] == [1, 2] * 4
    assert net.noise.reach == 49
    assert net.noise.components == 3

    signal = [m for m in net.signal.hidden if not isinstance(m, nn.ReLU)]
    assert [(c.kernel_size, c.out_channels) for c in signal] == [((3, 3), 128)] * 4
    assert net.direct is None


def test_the_paper_trained_14_levels_on_128_pixel_images():
    """FFHQ, supplement section 2.1: the top level is a single pixel."""
    net = network(
        levels=14, downsampling="alternating", block="supplement", padding="reflect", decoder_input="latent",
        activation="mish", direct=False,
    )  # fmt: skip
    assert net.stride == 128
    assert torch.isfinite(net(torch.randn(2, 1, 128, 128))["loss"])
