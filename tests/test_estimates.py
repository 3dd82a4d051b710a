"""Estimates: what is said of mean and spread is true of independent and of coupled samples, and tiles do not matter."""

import pytest
import torch

from cosdd import estimates, latents
from cosdd.estimates import GROUP, MOST, Estimate

SIZE = 150
WHOLE = (..., slice(None), slice(None))
HALVES = [(..., slice(100, SIZE), slice(None)), (..., slice(0, 100), slice(None))]
# A clean image as a function of its latent noise, of variance 1; the share of it that is linear.
FUNCTIONS = {
    "linear": lambda eps: eps,
    "curved": lambda eps: (2 * eps + (eps.square() - 1) / 2**0.5) / 5**0.5,
    "even": lambda eps: (eps.square() - 1) / 2**0.5,
}


def estimated(function, samples, plain=False, noise=1.0, wheres=(WHOLE,), positions=(estimates.HOME,)) -> Estimate:
    """An estimate of an image that is 0, under white noise. Positions disagree: by the sum of their coordinates."""
    noisy = noise * torch.randn(1, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    found = Estimate(noisy, samples, plain, positions)
    for group in found.groups():
        draw = latents.coupled(0, 0, group, found.block, (0, 0), (1,))(group)
        drawn = FUNCTIONS[function](draw(0, torch.Size([len(group), 1, SIZE, SIZE]), noisy.device))
        for numbers, position in found.parts(group):
            drawn[numbers.start - group.start : numbers.stop - group.start] += sum(position)
        for where in wheres:
            for number, sample in zip(group, drawn.split(1), strict=True):
                found.add(where, number, sample[where])
    return found


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("samples", [7, 8, 13, 32])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_standard_deviation_is_that_of_a_sample(function, samples, plain):
    """Coupled ones lie farther apart, by up to L / (L - 1); nothing of that is left."""
    found = estimated(function, samples, plain)
    assert found.taken == samples
    assert found.std().square().mean().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_error_of_the_mean_is_known_without_the_truth(function, plain):
    found = estimated(function, 32, plain)
    truth = found.mean.square().mean().item()
    assert found.error.item() == pytest.approx(truth, rel=0.1, abs=1e-9)
    if plain:
        assert truth == pytest.approx(1 / 32, rel=0.1)


@pytest.mark.parametrize("samples", [8, 16, 32])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_what_positions_disagree_on_is_spread_but_no_error_of_their_mean(function, samples):
    found = estimated(function, samples, positions=estimates.POSITIONS)
    away = torch.cat([torch.full((len(n),), float(sum(at))) for n, at in found.parts(range(samples))])
    truth = (found.mean - away.mean()).square().mean().item()
    assert found.error.item() == pytest.approx(truth, rel=0.25, abs=1e-9)
    assert found.std().square().mean().item() == pytest.approx(1 + away.var(correction=0).item(), rel=0.05)


def test_coupled_samples_cancel_what_is_linear():
    errors = {
        name: [estimated(name, 32, plain).mean.square().mean().item() for plain in (True, False)] for name in FUNCTIONS
    }
    assert errors["linear"][1] < 1e-9
    assert errors["curved"][1] < errors["curved"][0] / 3
    assert errors["even"][1] < 1.4 * errors["even"][0]  # L / (L - 1) in theory


def test_there_are_enough_when_the_noise_is_far_larger_than_the_error():
    counts = [estimated("curved", None, noise=noise).taken for noise in (0.01, 4.0, 8.0, 1000.0)]
    assert counts == sorted(counts, reverse=True)
    assert (counts[0], counts[-1]) == (MOST, GROUP)
    found = estimated("curved", None, noise=4.0)
    assert GROUP < found.taken < MOST
    assert found.mean.square().mean().sqrt().item() < 1.1 * estimates.ACCURACY * 4


def test_tiles_change_nothing():
    whole, tiled = (estimated("curved", None, noise=4.0, wheres=wheres) for wheres in ([WHOLE], HALVES))
    assert whole.taken == tiled.taken
    torch.testing.assert_close(tiled.std(), whole.std(), rtol=1e-6, atol=0)
    torch.testing.assert_close(tiled.error, whole.error, rtol=1e-6, atol=0)


def test_what_is_expected_comes_about():
    found = Estimate(torch.ones(1, 1, 4, 4), 21)
    assert (found.expected, list(found.groups())) == (21, [range(8), range(8, 16), range(16, 21)])
    assert Estimate(torch.ones(1, 1, 4, 4), None, plain=True).expected == estimates.PAPER
    assert Estimate(torch.ones(1, 1, 4, 4), None).expected == GROUP
