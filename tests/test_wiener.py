"""The last step brings an estimate nearer to the truth, is the same in strips, and knows how much noise there is."""

import numpy as np
import pytest
import torch

from cosdd import simulate
from cosdd.model import wiener
from cosdd.model.rownoise import RowNoise
from cosdd.noisefloor import measure
from cosdd.specimen import specimen


def known(noisy: np.ndarray) -> RowNoise:
    """The noise of (n, 1, y, x) images, as measured."""
    floor = measure(list(noisy), -1)
    assert floor is not None
    noise = RowNoise(1)
    noise.start_at(floor)
    return noise


def images(kind: str, count: int = 4, size: int = 96) -> tuple[torch.Tensor, torch.Tensor, RowNoise]:
    """Clean and noisy (count, 1, y, x) and the noise between them."""
    clean = specimen(count, size, 0)[:, None]
    rng = np.random.default_rng(0)
    if kind == "white":
        noisy = clean + rng.normal(0, 0.2, clean.shape)
    else:
        noisy = simulate.row_ar(
            clean, rng, gain=0.02, row_std=0.2, correlation={"streaks": 0.6, "negative": -0.4}[kind]
        )
    mean, std = noisy.mean(), noisy.std()
    clean, noisy = ((image - mean) / std for image in (clean, noisy))
    return torch.from_numpy(clean).float(), torch.from_numpy(noisy).float(), known(noisy)


def refined(*given: object, **how: float) -> torch.Tensor:
    *_, (share, better) = wiener.refined(*given, **how)  # type: ignore[arg-type]
    assert share == 1
    return better


@pytest.mark.parametrize("kind", ["white", "streaks", "negative"])
def test_an_estimate_comes_nearer_to_the_truth(kind):
    clean, noisy, noise = images(kind)
    guide = clean + 0.25 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    better = refined(noisy, guide, torch.full_like(clean, 0.25), noise)
    before, after = ((image - clean).square().mean() for image in (guide, better))
    assert after < 0.6 * before


def test_what_is_sure_stays_and_what_is_not_gives_way():
    clean, noisy, noise = images("streaks")
    torch.testing.assert_close(refined(noisy, clean, torch.full_like(clean, 1e-4), noise), clean, atol=1e-4, rtol=0)
    moved = refined(noisy, clean, torch.ones_like(clean), noise)
    assert (moved - clean).abs().mean() > 0.05


def test_an_error_of_each_row_s_own_is_looked_for_across_the_rows():
    clean, noisy, noise = images("streaks")
    error = 0.06 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    error = sum(weight * error.roll(shift, -1) for shift, weight in ((-1, 0.5), (0, 1.0), (1, 0.5)))
    std = error.std().expand_as(clean)
    alike, by_row = (
        (refined(noisy, clean + error, std, noise, by_row=share) - clean).square().mean() for share in (0.0, 1.0)
    )
    assert by_row < 0.9 * alike


@pytest.mark.parametrize("by_row", [0.0, 0.5, 1.0])
def test_estimate_and_filtered_image_count_by_the_inverse_of_their_variance(by_row):
    """At each frequency; against a plain sum over whole spectra."""
    x, guide, std = torch.randn(3, 1, 1, 17, 14, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    noise = RowNoise(1).double().requires_grad_(False)
    found = refined(x, guide, std, noise, by_row=by_row)[0, 0].numpy()

    n, before = wiener.BLOCK, wiener.BLOCK - wiener.STEP
    window = np.sin(np.pi * (np.arange(n) + 0.5) / n)
    both = np.outer(window, window)
    x, guide, variance = (np.pad(image[0, 0].numpy(), before + n, mode="reflect") for image in (x, guide, std.square()))
    total, weights = np.zeros((2, *x.shape))
    for i in range(n, before + n + 17, wiener.STEP):
        for j in range(n, before + n + 14, wiener.STEP):
            place = slice(i, i + n), slice(j, j + n)
            level = guide[place].mean()
            noisy, signal = (np.fft.fft2((image[place] - level) * both) for image in (x, guide))
            half = wiener._power(noise, torch.full((1, 1, 1, 1), level), torch.from_numpy(window)).detach().flatten()
            power = np.concatenate([half, half[1:-1].flip(0)]) * (window**2).sum()
            gain = abs(signal) ** 2 / (abs(signal) ** 2 + power)
            left = gain * power
            error = (1 - by_row) * left + by_row * left.mean(0)
            error *= (variance[place] * both**2).sum() * n**2 / error.sum()
            share = error / (error + left)
            block = np.fft.ifft2(share * gain * noisy + (1 - share) * signal).real + level * both
            weight = both / (wiener.LEAST + ((share * gain) ** 2).mean())
            total[place] += weight * block
            weights[place] += weight * both
    inside = slice(before + n, before + n + 17), slice(before + n, before + n + 14)
    np.testing.assert_allclose(found, total[inside] / weights[inside], rtol=1e-5, atol=1e-6)  # the window is float32


@pytest.mark.parametrize("shape", [(1, 1, 50, 37), (2, 1, 64, 16), (1, 1, 3, 50, 21), (1, 1, 1, 5), (1, 1, 13, 1)])
def test_strips_give_the_whole(shape):
    x, guide, std = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    noise = RowNoise(1)
    whole = refined(x, guide, std.abs(), noise)
    assert whole.isfinite().all()
    torch.testing.assert_close(refined(x, guide, std.abs(), noise, pixels=1), whole, atol=1e-5, rtol=1e-5)


def test_without_a_spread_the_filtered_image_alone_counts():
    clean, noisy, noise = images("streaks")
    unsure = refined(noisy, clean, torch.full_like(clean, 1e3), noise)
    torch.testing.assert_close(refined(noisy, clean, None, noise), unsure, atol=1e-4, rtol=1e-4)


def test_the_noise_may_run_along_any_axis():
    x, guide, std = torch.randn(3, 1, 1, 5, 30, 22, generator=torch.Generator().manual_seed(1))
    std, noise = std.abs(), RowNoise(1)
    expected = refined(x, guide, std, noise)
    for axis in (-2, -3):
        turned = refined(*(image.movedim(-1, axis) for image in (x, guide, std)), noise, axis=axis)
        torch.testing.assert_close(turned.movedim(axis, -1), expected)


def test_missing_pixels_are_what_the_estimate_says():
    clean, noisy, noise = images("streaks")
    std, holes = torch.full_like(clean, 0.25), torch.rand(clean.shape, generator=torch.Generator().manual_seed(0)) < 0.1
    filled, missing = (
        refined(noisy.where(~holes, other), clean, std, noise) for other in (clean, torch.tensor(torch.nan))
    )
    torch.testing.assert_close(missing, filled)


@pytest.mark.parametrize("kind", ["white", "streaks", "negative"])
def test_the_spectrum_of_the_noise_is_that_of_noise_drawn(kind):
    _, _, noise = images(kind)
    noise.requires_grad_(False)
    rows = noise.draw(torch.zeros(1, 4000, wiener.BLOCK), torch.Generator().manual_seed(2))
    window = torch.hann_window(wiener.BLOCK + 1)[1:]
    drawn = torch.fft.rfft(rows[0] * window).abs().square().mean(0)
    stated = wiener._power(noise, torch.zeros(1, 1, 1, 1), window)[0, 0, 0, 0]
    torch.testing.assert_close(stated, drawn, rtol=0.1, atol=0.01 * float(drawn.max()))


def test_each_channel_has_its_own_noise():
    clean, noisy, noise = images("white")
    quiet = RowNoise(1)
    quiet.load_state_dict(noise.state_dict())
    with torch.no_grad():
        for name in ("log_white", "log_correlated", "log_offset", "log_white_gain", "log_correlated_gain"):
            getattr(quiet, name).sub_(4.0)
    both = RowNoise(2)
    both.load_state_dict({key: torch.cat([a, b], 0 if key != "bend" else 1) for (key, a), b in zip(
        noise.state_dict().items(), quiet.state_dict().values(), strict=True)})  # fmt: skip
    std = torch.full_like(clean, 0.25)
    together = refined(*(image.repeat(1, 2, 1, 1) for image in (noisy, clean, std)), both)
    for channel, own in enumerate((noise, quiet)):
        torch.testing.assert_close(together[:, channel : channel + 1], refined(noisy, clean, std, own))
