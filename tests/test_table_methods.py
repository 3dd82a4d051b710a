"""Methods of others that we wrote ourselves: what shows that they are those methods."""

import ast
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.table import apbsn, hdn, peers  # noqa: E402
from benchmarks.table.task import Task  # noqa: E402


def parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def stacks(edge: int = 64) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    clean = np.sin(np.arange(edge) / 5)[:, None] * np.cos(np.arange(edge) / 7) + np.zeros((4, edge, edge))
    return clean.astype(np.float32), (clean + rng.normal(0, 0.3, clean.shape)).astype(np.float32)


# --- AP-BSN ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "expected"), [(1, 3_655_745), (3, 3_656_131)])
def test_ap_bsn_has_the_published_number_of_parameters(channels, expected):
    assert parameters(apbsn.BlindSpot(channels)) == expected


def test_ap_bsn_never_sees_the_pixel_and_reaches_29_pixels():
    torch.manual_seed(0)
    network = apbsn.BlindSpot(features=4).double()
    for p in network.parameters():  # positive, so that nothing cancels or is cut off
        p.data = p.data.abs() + 0.01
    x = torch.rand(1, 1, 71, 71, dtype=torch.float64, requires_grad=True)
    (seen,) = torch.autograd.grad(network(x)[0, 0, 35, 35], x)
    assert seen[0, 0, 35, 35] == 0
    row = (seen[0, 0, 35] != 0).nonzero()[:, 0] - 35
    assert {1, 2, 3, 4, 5, 7} <= set(row.tolist())
    assert row.abs().max() == 29


@pytest.mark.parametrize(("stride", "border"), [(5, 2), (2, 2), (2, 0)])
def test_what_is_taken_apart_comes_back(stride, border):
    x = torch.rand(2, 1, 20, 30)
    apart = apbsn.taken_apart(x, stride, border)
    assert apart.shape[-2:] == (20 + 2 * stride * border, 30 + 2 * stride * border)
    torch.testing.assert_close(apbsn.put_together(apart, stride, border), x, rtol=0, atol=0)
    inside = slice(border, border + 20 // stride)
    torch.testing.assert_close(apart[..., inside, border : border + 30 // stride], x[..., ::stride, ::stride])


def test_the_refinement_is_the_mean_of_eight_passes():
    torch.manual_seed(0)
    network, x = apbsn.BlindSpot(features=4).eval(), torch.rand(1, 1, 17, 20)
    with torch.inference_mode():
        refined = apbsn.denoised(network, x, torch.Generator().manual_seed(3))
        first = apbsn.through(network, torch.nn.functional.pad(x, (0, 0, 0, 1), mode="reflect"), 2)[..., :17, :]
        generator, passes = torch.Generator().manual_seed(3), []
        for _ in range(8):
            mixed = torch.where(torch.rand(x.shape, generator=generator) < 0.16, x, first)
            padded = torch.nn.functional.pad(mixed, (2, 2, 2, 2), mode="reflect")
            passes.append(network(padded)[..., 2:-2, 2:-2])
    torch.testing.assert_close(refined, torch.stack(passes).mean(0))
    assert (refined - first).abs().max() > 0


# --- HDN36 ----------------------------------------------------------------------------------------------------


def test_hdn36_has_the_published_number_of_parameters_and_latents():
    network = hdn.HDN().eval()
    assert parameters(network) == 7_301_697
    with torch.inference_mode():
        seen = network.seen(torch.zeros(1, 1, 64, 64))
        image, kls = network.drawn(seen)
    assert [features.shape[-1] for features in seen] == [32, 16, 8, 4, 2, 1]
    assert image.shape == (1, 1, 64, 64)
    assert kls.shape == (6, 1)
    assert (kls >= 0).all()


def test_the_two_finest_levels_of_hdn36_are_cut_off_from_the_image():
    torch.manual_seed(0)
    network = hdn.HDN().eval()
    with torch.no_grad():
        seen = [features.clone().requires_grad_() for features in network.seen(torch.randn(1, 1, 64, 64))]
    gradients = torch.autograd.grad(network.drawn(seen)[0].sum(), seen, allow_unused=True)
    assert [g is not None and bool(g.any()) for g in gradients] == [False, False, True, True, True, True]


def test_the_noise_model_is_a_density_whose_mean_is_the_signal():
    torch.manual_seed(0)
    model = hdn.PixelNoise(0.0, 100.0, 25.0).double()
    with torch.no_grad():
        model.mean.normal_(0, 0.1)
        model.weight.normal_(0, 0.5)
        model.variance[:, 1] = 0.01
    x = torch.linspace(-150, 250, 40_001, dtype=torch.float64)
    for signal in (0.0, 40.0, 100.0):
        density = model(torch.full_like(x, signal), x).exp() - 1e-10
        assert torch.trapezoid(density, x).item() == pytest.approx(1, abs=1e-6)
        assert torch.trapezoid(density * x, x).item() == pytest.approx(signal, abs=1e-4)


def test_the_noise_model_learns_noise_that_grows_with_the_signal():
    rng = np.random.default_rng(0)
    clean = rng.uniform(0, 1, (4, 64, 64)).astype(np.float32)
    noisy = (clean + rng.normal(size=clean.shape) * np.sqrt(0.01 + 0.04 * clean)).astype(np.float32)
    model = hdn.noise_model(clean, noisy, 0, updates=150)
    signal = torch.tensor([0.1, 0.9])
    weights, means, variances = model.parts(signal)
    total = (weights.exp() * (variances + (means - signal) ** 2)).sum(0)
    np.testing.assert_allclose(total, 0.01 + 0.04 * signal, rtol=0.2)


def test_the_loss_of_hdn36_is_likelihood_and_free_bits(monkeypatch):
    noise, network = hdn.PixelNoise(0.0, 1.0, 0.04), hdn.HDN().eval()
    x = torch.rand(2, 1, 64, 64)
    kls = torch.tensor([[0.5, 3.0], [2.0, 4.0]])  # two levels, two images
    monkeypatch.setattr(network, "drawn", lambda seen: (torch.zeros_like(x), kls))
    clean = torch.full_like(x, 0.25)  # 0 x 2 + .25
    expected = -noise(clean, x).mean() + (1.0 + 3.0 + 2.0 + 4.0) / 2 / 64**2
    torch.testing.assert_close(hdn.loss(network, noise, x, 0.25, 2.0), expected)


# --- they run --------------------------------------------------------------------------------------


def test_a_step_of_ap_bsn_runs_to_the_end(monkeypatch):
    _, noisy = stacks(40)
    monkeypatch.setattr(apbsn, "BATCH", 1)
    monkeypatch.setattr(apbsn, "PASSES", 1)
    fitted = apbsn.ap_bsn(Task(noisy, noisy[:1, :33], budget=1e-3, clock="wall", seed=0, extent=4))
    (denoise,) = fitted.estimates.values()
    assert denoise(noisy[:1, :33]).shape == (1, 33, 40)


def test_a_step_of_hdn36_runs_to_the_end(monkeypatch):
    clean, noisy = stacks()
    for name, value in (("BATCH", 4), ("PARTS", 2), ("SAMPLES", 2)):
        monkeypatch.setattr(hdn, name, value)
    counted = iter([0.0, 1.0])
    monkeypatch.setattr(Task, "start", lambda self: lambda: next(counted))
    fitted = hdn.hdn36(Task(noisy, noisy[:1], budget=1, clock="wall", seed=0, extent=4, clean=clean))
    (denoise,) = fitted.estimates.values()
    assert fitted.steps == 1
    assert np.isfinite(denoise(noisy[:1, :50])).all()
    assert denoise(noisy[:1, :50]).shape == (1, 50, 64)


def test_the_adapter_of_careamics_needs_nothing_of_ours():
    """It runs where cosdd is not installed."""
    tree = ast.parse(Path(peers.__file__).read_text(encoding="utf-8"))
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom | ast.Import)]
    names = {node.module if isinstance(node, ast.ImportFrom) else node.names[0].name for node in nodes}
    allowed = {"__future__", "collections", "numpy", "typing", "math", "tempfile", "pathlib"}
    allowed |= {"careamics", "lightning", "torch"}  # what its environment has
    assert {name.split(".")[0] for name in names if name and name != "benchmarks.table.task"} <= allowed
