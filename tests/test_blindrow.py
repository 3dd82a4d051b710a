"""Blind-row Bayesian denoiser: blind to its own row, exact in closed form, and it learns the noise."""

import copy

import pytest
import torch

from cosdd import noisefloor
from cosdd.errors import InputError
from cosdd.model import blindrow, layers
from cosdd.model.blindrow import BlindRow, RowNll, signal_covariance

SMALL = {"features": (8, 12), "rank": 2}


def trained_looking(**settings) -> BlindRow:
    """A model whose heads are far from their start, so that every term of the covariance matters."""
    torch.manual_seed(0)
    model = BlindRow(**{**SMALL, **settings})
    torch.nn.init.normal_(model.network.head.weight, std=0.3)
    return model


def test_what_is_remembered_from_denoising_can_be_learned_through():
    model, x = trained_looking(), torch.randn(1, 1, 9, 10)
    blindrow._lattice.cache_clear()
    with torch.inference_mode():
        model.prior(x, 0)
    x.requires_grad_()
    model.prior(x, 0)[0].sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("height", [2, 3, 7, 12])
def test_a_row_is_never_seen_by_the_network_that_predicts_it(height):
    model = trained_looking()
    x = torch.randn(1, 1, height, 10, requires_grad=True)
    for offset in range(min(model.period, height)):
        mean, factors = model.prior(x, offset)
        for n, row in enumerate(range(offset, height, model.period)):
            (gradient,) = torch.autograd.grad(mean[0, n].sum() + factors[0, n].sum(), x, retain_graph=True)
            assert gradient[0, 0, row].abs().max() == 0
            assert gradient.abs().max() > 0


def test_posterior_is_the_dense_gaussian_one():
    model = trained_looking().double()
    x = torch.randn(2, 1, 9, 21, dtype=torch.float64)
    mean, std = model.posterior(x)
    for offset in range(4):
        prior_mean, factors = model.prior(x, offset)
        signal = signal_covariance(factors, model._kernels(prior_mean))
        noise = model.noise.covariance(prior_mean)
        precision = torch.linalg.inv(signal + noise)
        row = x[:, 0, offset::4].flatten(0, 1)
        expected = prior_mean[0] + (signal @ precision)[0].matmul((row - prior_mean[0])[..., None])[..., 0]
        variance = (signal - signal @ precision @ signal).diagonal(dim1=-2, dim2=-1)[0]
        torch.testing.assert_close(mean[:, 0, offset::4].flatten(0, 1), expected, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(std[:, 0, offset::4].flatten(0, 1) ** 2, variance, atol=1e-3, rtol=1e-3)


def test_windows_of_a_wide_image_agree_with_the_whole_row():
    """To a few per cent of what is unsure anyway; the offset of a row, which has no range, is all that is cut off."""
    model = trained_looking()
    x = torch.randn(1, 1, 8, 300)
    whole, unsure = model.posterior(x, window=300)
    for windowed, expected in zip(model.posterior(x), (whole, unsure), strict=True):
        assert ((windowed - expected) / unsure).abs().max() < 0.05
    model.noise.log_offset.data.fill_(-30.0)
    for windowed, expected in zip(model.posterior(x), model.posterior(x, window=300), strict=True):
        assert ((windowed - expected) / unsure).abs().max() < 0.005


@pytest.mark.parametrize(("axis", "dimensions"), [("x", 2), ("y", 2), ("z", 3)])
@pytest.mark.parametrize("lines", [331, 500])
def test_strips_of_a_large_image_equal_the_whole(axis, dimensions, lines):
    model = trained_looking(features=(4, 4, 4), dimensions=dimensions, noise_axis=axis).double()
    torch.nn.init.normal_(model.network.down[0][0].residual[3].weight, std=0.3)  # no branch is silent
    torch.nn.init.normal_(model.network.down[2][0].residual[3].weight, std=0.3)
    shape = {"x": (lines, 18), "y": (18, lines), "z": (9, 5, lines)}[axis]
    x = torch.randn(1, 1, *shape, dtype=torch.float64)
    if axis == "z":
        x = x.movedim(-1, -2)  # the lines are those along y
    whole = model.posterior(x)
    used = list(model._strips(lines, x.numel() // lines, 1000))
    assert len(used) >= 2 if lines == 500 else used
    for pixels in (1000, 5000):
        for part, expected in zip(model.posterior(x, pixels=pixels), whole, strict=True):
            torch.testing.assert_close(part, expected, rtol=0, atol=1e-11)


def test_a_halo_that_is_too_short_would_show():
    model = trained_looking(features=(4, 4, 4)).double()
    for level in model.network.down:
        torch.nn.init.normal_(level[0].residual[3].weight, std=0.3)
    x = torch.randn(1, 1, 500, 18, dtype=torch.float64)
    whole = model.posterior(x)[0]
    model._strips = lambda *_: [(slice(a, a + 100), slice(max(0, a - 16), a + 116)) for a in range(0, 500, 100)]
    assert (model.posterior(x)[0] - whole).abs().max() > 1e-6


def test_evidence_and_its_gradient_are_those_of_a_multivariate_normal():
    torch.manual_seed(0)

    def leaf(*shape):
        return torch.rand(*shape, dtype=torch.float64, requires_grad=True)

    kernel = torch.eye(6, dtype=torch.float64)[None, None].clone().requires_grad_()
    kernels = torch.ones(2, 6, 6, dtype=torch.float64)
    symmetric = leaf(2, 1, 6, 1) * torch.ones(6, dtype=torch.float64)
    symmetric = (symmetric @ symmetric.mT).detach().requires_grad_()
    inputs = (leaf(2, 3, 6), leaf(2, 3, 6), leaf(2, 3, 6), kernel, symmetric, leaf(2, 3, 2, 2, 6))
    residual, white, scale, _, steady, factors = inputs
    covariance = signal_covariance(factors, kernels) + steady + torch.diag_embed(white + scale**2)
    expected = -torch.distributions.MultivariateNormal(torch.zeros_like(residual), covariance).log_prob(residual)
    nll = RowNll.apply(*inputs, kernels)
    torch.testing.assert_close(nll, expected, atol=1e-3, rtol=1e-3)
    got = torch.autograd.grad(nll.sum(), [residual, white, scale, steady, factors])
    want = torch.autograd.grad(expected.sum(), [residual, white, scale, steady, factors])
    torch.testing.assert_close(got, want, atol=1e-2, rtol=1e-3)


@pytest.mark.parametrize("lag_one", [0.4, -0.3])
def test_noise_is_recovered_from_noisy_images_alone(lag_one):
    torch.manual_seed(0)
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    phase = torch.rand(32, 2, 1, 1, 1) * 6
    clean = 0.8 * torch.sin(x / 9 + y / 13 + phase[:, 0]) + 0.8 * torch.sin(y / 8 - x / 11 + phase[:, 1])

    def noisy(clean):
        theta = (1 - (1 - 4 * lag_one**2) ** 0.5) / (2 * lag_one)
        white = torch.randn(*clean.shape[:-1], clean.shape[-1] + 1)
        moving_average = (white[..., 1:] + theta * white[..., :-1]) / (1 + theta**2) ** 0.5
        return clean + moving_average * (0.15 + 0.06 * clean).sqrt()

    model = BlindRow(features=(16, 24))
    model.noise.start_at(noisefloor.measure(list(noisy(clean).numpy()), -1))
    with torch.no_grad():  # far from the measurement: training has to find the noise, not only to keep it
        for parameter in (model.noise.log_white, model.noise.log_correlated, model.noise.log_white_gain):
            parameter.add_(0.7)
    groups = [{"params": g["params"], "lr": 5e-3 * g["lr_scale"]} for g in model.parameter_groups()]
    optimiser = torch.optim.Adam(groups, betas=(0.9, 0.98))
    steps = 150
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / steps)
    for _ in range(steps):
        loss = model(noisy(clean[torch.randint(32, (4,))])[..., :32])["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    learned = model.noise.described()
    assert learned["variance"][0] == pytest.approx(0.15, rel=0.15)
    assert learned["gain"][0] == pytest.approx(0.06, rel=0.15)
    assert learned["autocorrelation"][0][0] == pytest.approx(lag_one, abs=0.08)
    x = noisy(clean[:4])
    assert (model.posterior(x)[0] - clean[:4]).square().mean() < 0.1 * (x - clean[:4]).square().mean()


@pytest.mark.parametrize("shape", [(5, 7), (33, 50), (1, 9), (6, 5, 7)])
def test_any_size_works(shape):
    model = trained_looking(dimensions=len(shape), channels=2)
    x = torch.randn(2, 2, *shape)
    if shape[-2] == 1:
        with pytest.raises(InputError, match="single row"):
            model.posterior(x)
        return
    assert torch.isfinite(model(x)["loss"])
    mean, std = model.posterior(x)
    assert mean.shape == std.shape == x.shape
    assert torch.isfinite(mean).all()
    assert (std >= 0).all()


def test_columns_are_rows_transposed():
    rows = trained_looking(noise_axis="x")
    columns = trained_looking(noise_axis="y")
    columns.load_state_dict(rows.state_dict())
    x = torch.randn(1, 1, 12, 20)
    for a, b in zip(rows.posterior(x), columns.posterior(x.mT), strict=True):
        torch.testing.assert_close(a, b.mT)


def test_depth_can_be_the_noise_axis():
    along_x = trained_looking(dimensions=3)
    along_z = trained_looking(dimensions=3, noise_axis="z")
    along_z.load_state_dict(along_x.state_dict())
    x = torch.randn(1, 1, 5, 6, 8)
    torch.testing.assert_close(along_x.posterior(x)[0], along_z.posterior(x.movedim(-1, -3))[0].movedim(-3, -1))


def test_images_without_other_rows_are_refused():
    with pytest.raises(InputError, match="other rows"):
        BlindRow(dimensions=1)
    with pytest.raises(InputError, match="noise axis"):
        BlindRow(dimensions=2, noise_axis="z")


def test_extreme_parameters_stay_finite():
    model = trained_looking()
    with torch.no_grad():
        for parameter in model.noise.parameters():
            parameter.fill_(-40.0)
        model.network.head.weight.mul_(100)
    out = model(torch.randn(2, 1, 16, 64) * 5)
    out["loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert torch.isfinite(model.posterior(torch.randn(1, 1, 16, 200))[0]).all()


def test_a_copy_gives_the_same_answer():
    model = trained_looking()
    x = torch.randn(1, 1, 8, 16)
    torch.testing.assert_close(copy.deepcopy(model).posterior(x), model.posterior(x))


def test_a_missing_pixel_is_as_if_its_noise_were_infinite():
    """Against the dense formula with that pixel left out of the evidence."""
    model = trained_looking().double()
    x = torch.randn(1, 1, 8, 16, dtype=torch.float64)
    x[0, 0, 3, 5] = torch.nan
    mean, std = model.posterior(x)
    filled, known = layers.fill_missing(x)
    prior, factors = model.prior(filled, 3)
    signal = blindrow.signal_covariance(factors, model._kernels(filled))[0, 0]
    total = signal + model.noise.covariance(prior)[0, 0]
    keep = known[0, 0, 3]
    gain = signal[:, keep] @ torch.linalg.inv(total[keep][:, keep])
    expected = prior[0, 0] + gain @ (x[0, 0, 3] - prior[0, 0])[keep]
    variance = (signal - gain @ signal[keep]).diagonal()
    torch.testing.assert_close(mean[0, 0, 3], expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(std[0, 0, 3].square(), variance, rtol=1e-3, atol=1e-3)


def test_a_row_is_not_seen_through_what_lies_outside_of_its_image():
    model = trained_looking()
    seen = []
    for noise in (0, 5):
        x = torch.full((1, 1, 16, 24), torch.nan)
        x[..., :10, :16] = torch.linspace(-1, 1, 160).reshape(10, 16)
        x[..., 9, :16] += noise
        mean, factors = model.prior(layers.fill_missing(x)[0], 1)
        seen.append(torch.cat([mean[0, 2], factors[0, 2].flatten()]))  # of row 9
    assert torch.equal(*seen)


def test_saturated_pixels_teach_nothing():
    torch.manual_seed(0)
    model = trained_looking()
    model.ceiling.fill_(2.0)
    gradients = []
    for wall in (2.0, 2.5):  # what stands in a saturated row is read by other rows, but is no evidence in its own
        x = torch.zeros(1, 1, 4, 16)
        x[..., 1, :] = wall
        model.zero_grad()
        torch.manual_seed(1)
        with torch.no_grad():
            model.network.head.weight.zero_()
            model.neighbours.zero_()
        out = model(x)
        out["loss"].backward()
        gradients.append(model.noise.log_white.grad.clone())
    torch.testing.assert_close(*gradients)
