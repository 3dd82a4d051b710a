"""The training loop: budgets, repeatability, the schedule, and what happens when something goes wrong."""

import math
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import ndimage
from tiny import MODEL, TRAIN, frames, settings, shaken, stripes

import cosdd
from cosdd import config, training
from cosdd.axes import Image
from cosdd.data import Frames
from cosdd.denoise import Denoiser
from cosdd.errors import InputError
from cosdd.model import COSDD, USUAL, Passes


def start(train=None, data=None, **model) -> training.Run:
    return training.start(settings(train, **model), data or frames())


def trained(train=None, data=None, **model) -> tuple[training.Run, list[training.Record]]:
    run = start(train, data, **model)
    return run, list(training.fit(run))


def weights(run: training.Run) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in run.network.state_dict().items()}


def parameters(run: training.Run) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in run.network.named_parameters()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.fixture
def idle(monkeypatch):
    """Updates that do nothing: the loop around them is what is looked at."""
    monkeypatch.setattr(training, "update", lambda run, *rest: {})


# ----------------------------------------------------------------------------------------------- budget


@pytest.mark.parametrize("steps", [1, 7])
def test_a_budget_in_steps_ends_exactly_there(steps):
    run, records = trained({"steps": steps, "validations": 3})
    assert [record.step for record in records] == list(range(1, steps + 1))
    assert records[-1].progress == 1.0
    assert [record.progress for record in records] == sorted(record.progress for record in records)
    assert records[-1].validation is not None
    assert run.history[-1]["step"] == steps
    finite = {"nll", "kl", "elbo", "signal"}
    assert finite <= records[0].losses.keys()
    assert finite <= records[-1].validation.keys()
    assert not any(value.requires_grad for value in records[0].losses.values())


@pytest.mark.parametrize("validations", [1, 4, 5])
def test_validations_are_spread_over_the_budget(validations, idle):
    _, records = trained({"steps": 20, "validations": validations})
    at = [record.step for record in records if record.validation]
    assert at == [20 // validations * i for i in range(1, validations + 1)]


def test_a_budget_in_time_ends_when_it_is_used(monkeypatch, idle):
    clock = iter(range(10_000))
    monkeypatch.setattr(training, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    _, records = trained({"steps": None, "time": 30.5, "validations": 3})
    assert records[-1].progress == 1.0
    assert 30.5 <= records[-1].seconds <= 32
    assert records[-2].seconds < 30.5
    assert len([record for record in records if record.validation]) == 3
    # Validation is part of the time that was asked for.
    assert records[-1].seconds == len(records) + 3


def test_the_caller_may_stop_at_any_record():
    run = start({"steps": 100})
    for record in training.fit(run):
        if record.step == 3:
            break
    assert run.step == 3


# ----------------------------------------------------------------------------------------- repeatability


def test_the_seed_decides_every_weight():
    one, _ = trained({"seed": 5})
    torch.manual_seed(1234)
    other = start({"seed": 5})
    for _ in training.fit(other):
        torch.randn(7)  # what the caller does between records is the caller's business
        np.random.default_rng(0).random()
    assert same(weights(one), weights(other))
    assert one.history[-1]["elbo"] == other.history[-1]["elbo"]

    third, _ = trained({"seed": 6})
    assert not same(weights(one), weights(third))


def test_validations_do_not_disturb_the_training():
    one, _ = trained({"validations": 1})
    other, _ = trained({"validations": 4})
    assert same(weights(one), weights(other))


@torch.no_grad()
def test_validation_is_the_same_for_the_same_weights():
    run = start()
    shaken(run.network)
    training.follow(run)
    before = weights(run)
    assert training.validate(run) == training.validate(run)
    assert same(weights(run), before)


@torch.no_grad()
def test_validation_judges_the_average():
    run = start()
    before = training.validate(run)
    run.network.noise.head.bias.fill_(10.0)
    assert training.validate(run) == before


def test_validation_judges_each_image_by_itself(monkeypatch):
    """Batch norm at rest, as when denoising: the company an image is in changes nothing."""
    monkeypatch.setattr(torch, "randn", lambda shape, **how: torch.zeros(shape))
    found = []
    for batch in (2, 32):
        run = start({"batch": batch, "ema": 0.0}, block="supplement")
        torch.manual_seed(0)
        shaken(run.network, 1.0)
        training.follow(run)
        found.append(training.validate(run))
    # Float32, and other sizes of batches take other algorithms; statistics of a batch would differ by tens of per cent.
    assert found[0] == pytest.approx(found[1], rel=1e-3)


def test_batch_norm_goes_on_learning_after_a_validation():
    run, _ = trained({"steps": 4, "validations": 4}, block="supplement")
    counts = [value for name, value in weights(run).items() if name.endswith("num_batches_tracked")]
    assert counts
    assert {int(count) for count in counts} == {4}


# ------------------------------------------------------------------------------------------- the schedule


def test_the_rate_rises_then_falls_like_a_cosine_to_nothing(idle):
    run, records = trained({"steps": 200, "warmup": 0.1, "lr": 0.01})
    rates = np.array([record.lr for record in records])
    peak = int(rates.argmax())
    assert rates[0] < 0.1 * 0.01
    assert 15 <= peak <= 25
    assert 0.95 * 0.01 < rates[peak] <= 0.01
    assert (np.diff(rates[: peak + 1]) > 0).all()
    assert (np.diff(rates[peak:]) < 0).all()
    assert rates[100] == pytest.approx(0.005, rel=0.02)
    assert rates[-1] < 1e-5
    assert len({group["lr"] for group in run.optimiser.param_groups}) == 1


def test_the_rate_of_a_run_without_warmup_starts_at_the_top(idle):
    _, records = trained({"steps": 50, "warmup": 0.0, "lr": 0.01})
    assert records[0].lr == pytest.approx(0.01, rel=1e-3)


def test_a_plateau_costs_a_tenth_and_twice_as_long_ends_the_run(idle, monkeypatch):
    """Supplement section 2.1: a tenth after 50 epochs without gain, the end after 100."""
    monkeypatch.setattr(training, "SHORTEST_EPOCH", 1)
    run = start({"schedule": "plateau", "patience": 3, "steps": 1000, "lr": 0.01, "crop": 32, "batch": 16, "ema": 0.0})
    records = list(training.fit(run))
    assert all(record.validation for record in records)  # an epoch is one update here
    # The first validation is a gain over nothing; the next three are none, and three more.
    assert [record.lr for record in records] == pytest.approx([0.01] * 4 + [0.001] * 3)


def test_a_plateau_within_a_budget_goes_back_to_the_best_weights_at_a_smaller_rate(monkeypatch):
    """On little data what is learned after the best point is the noise of the training frames."""
    monkeypatch.setattr(training, "update", lambda run, *rest: shaken(run.network, 3.0) and {})  # worse and worse
    train = {"steps": 12, "validations": 12, "patience": 2, "warmup": 0.0, "ema": 0.0, "lr": 0.01}
    run = start(train, direct=False)
    good = weights(run)
    training.validate(run)
    assert run.best is not None
    for _ in training.fit(run):
        if run.lr_scale < 1:
            break
    assert run.step < 12
    assert same(run.best, good)
    assert same(weights(run), good)
    assert same(run.average, good)
    training.set_lr(run, 0.0)
    assert run.lr == pytest.approx(0.3 * 0.01)


def test_going_back_to_the_best_weights_does_not_undo_the_direct_denoiser(monkeypatch):
    """It joins in late: the best weights may hold it as it was before its first update."""
    monkeypatch.setattr(training, "update", lambda run, *rest: shaken(run.network, 3.0) and {})
    run = start({"steps": 12, "validations": 12, "patience": 2, "ema": 0.0})
    untrained = {name: value.clone() for name, value in run.network.direct.state_dict().items()}
    training.validate(run)
    for _ in training.fit(run):
        if run.lr_scale < 1:
            break
    assert run.lr_scale < 1
    assert not same(run.network.direct.state_dict(), untrained)


@pytest.mark.parametrize(("axis", "flips"), [("x", "yz"), ("y", "xz"), ("z", "xy"), ("none", "xyz")])
def test_the_noise_is_never_read_backwards(axis, flips, monkeypatch):
    """An autoregressive model learns a direction: crops are flipped across the noise axis only (method 4.1)."""
    space = (16, 16, 16) if axis == "z" else (32, 32)
    asked = []
    cut = Frames.batch

    def batch(self, *how):
        asked.append(how[-1])
        return cut(self, *how)

    monkeypatch.setattr(Frames, "batch", batch)
    pixels = np.random.default_rng(0).normal(size=(2, 1, *space))
    training.update(start({}, frames(pixels), noise_axis=axis, dimensions=len(space)), 0.0)
    assert [set(letters) for letters in asked] == [set(flips)]


def test_a_gain_starts_the_wait_anew(monkeypatch, idle):
    monkeypatch.setattr(training, "SHORTEST_EPOCH", 1)
    run = start({"schedule": "plateau", "patience": 3, "steps": 9, "lr": 0.01, "crop": 32, "batch": 16, "ema": 0.0})
    rates = []
    for record in training.fit(run):
        rates.append(record.lr)
        if record.step == 3:
            shaken(run.network, 0.01)  # other weights, better or not,
            run.best_evidence = -math.inf  # count as a gain at the next validation
    assert rates == pytest.approx([0.01] * 7 + [0.001] * 2)


# ------------------------------------------------------------------------------------------- the average


@torch.no_grad()
def test_the_average_follows_the_weights_and_smooths_them():
    run = start({"ema": 0.95})
    for step in range(200):
        for parameter in run.network.parameters():
            parameter.fill_(3.0 + (-1) ** step)
        run.step += 1
        training.follow(run)
    for name, _ in run.network.named_parameters():
        torch.testing.assert_close(run.average[name], torch.full_like(run.average[name], 3.0), rtol=0, atol=0.1)


@torch.no_grad()
def test_the_average_forgets_the_random_start_quickly():
    run = start({"ema": 0.999})
    for parameter in run.network.parameters():
        parameter.fill_(3.0)
    for _ in range(30):
        run.step += 1
        training.follow(run)
    assert (run.average["noise.head.bias"] - 3.0).abs().max() < 0.05


@torch.no_grad()
def test_without_an_average_the_weights_themselves_count():
    run = start({"ema": 0.0})
    shaken(run.network)
    run.step += 1
    training.follow(run)
    assert same(run.average, weights(run))


def test_the_average_is_what_is_kept():
    run, _ = trained({"steps": 12, "ema": 0.9, "lr": 0.05, "validations": 1})
    kept = training.finish(run).network.state_dict()
    assert same(kept, run.average)
    assert not same(kept, weights(run))


@torch.no_grad()
def test_the_best_weights_are_kept_not_the_last():
    run = start({"ema": 0.0})
    for quality in (0.0, 2.0, 10.0):  # further and further from the data
        run.network.noise.head.bias.fill_(quality)
        run.step += 1
        training.follow(run)
        training.validate(run)
    assert (training.finish(run).network.noise.head.bias == 0).all()


# ---------------------------------------------------------------------------------------------- updates


def gradients(monkeypatch, **train) -> dict[str, torch.Tensor]:
    monkeypatch.setattr(torch, "randn", lambda shape, **how: torch.zeros(shape))  # no latent noise
    run = start({"batch": 5, "seed": 1} | train)
    training.update(run, 1.0)
    return {name: p.grad.clone() for name, p in run.network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("parts", [2, 4, 5, 64])
def test_virtual_batches_have_the_gradient_of_the_whole_batch(parts, monkeypatch):
    """Supplement section 2.1; also where the batch does not divide evenly."""
    whole, split = gradients(monkeypatch), gradients(monkeypatch, virtual_batches=parts)
    assert whole.keys() == split.keys()
    for name, value in whole.items():
        torch.testing.assert_close(split[name], value, rtol=1e-4, atol=1e-6)


def test_losses_of_virtual_batches_are_those_of_the_whole_batch(monkeypatch):
    monkeypatch.setattr(torch, "randn", lambda shape, **how: torch.zeros(shape))
    losses = [training.update(start({"batch": 5, "virtual_batches": parts}), 1.0) for parts in (1, 2)]
    for name, value in losses[0].items():
        torch.testing.assert_close(losses[1][name], value, rtol=1e-4, atol=1e-6)


def test_gradients_are_clipped_where_asked():
    run = start({"clip": 1e-3})
    training.update(run, 1.0)
    grads = [p.grad for p in run.network.parameters() if p.grad is not None]
    assert torch.nn.utils.get_total_norm(grads) == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("block", ["plain", "supplement"])
def test_one_bad_batch_does_not_cost_the_run(block, clip):
    data = frames(stripes().astype(np.float32))
    run = start({"steps": 8, "clip": clip}, data, block=block)
    good = data.arrays[0].copy()
    for record in training.fit(run):
        if record.step == 2:
            before = parameters(run)
            data.arrays[0][:] = 1e30
        elif record.step == 3:
            assert same(parameters(run), before)
            assert not torch.isfinite(record.losses["nll"])
            data.arrays[0][:] = good
    assert run.skipped == 1
    assert not same(parameters(run), before)
    assert all(torch.isfinite(value).all() for value in weights(run).values())
    assert math.isfinite(run.history[-1]["elbo"])
    assert all(torch.isfinite(value).all() for value in training.finish(run).network.state_dict().values())


@pytest.mark.parametrize("method", ["blind-row", "cosdd"])
def test_infinite_pixels_cost_the_update_they_are_in(method, monkeypatch):
    batch = Frames.batch

    def spoiled(self, seed, step, *more):
        crops = batch(self, seed, step, *more)
        if step in (2, 5):
            crops[0, ..., :3] = np.inf
        return crops

    monkeypatch.setattr(Frames, "batch", spoiled)
    small = {"method": method, "model": MODEL, "blind_row": {"features": [4]}, "train": TRAIN | {"steps": 8}}
    run = training.start(config.build("tiny", small), frames())
    for _ in training.fit(run):
        pass
    assert run.skipped == 2
    assert math.isfinite(run.history[-1]["nll"])
    assert all(torch.isfinite(value).all() for value in training.finish(run).network.state_dict().values())


def test_weights_gone_astray_go_back_to_the_best_with_smaller_steps():
    """A batch is not to blame when every one fails: without a way back the rest of the budget would be lost."""
    run = start({"steps": 60, "validations": 60})
    for record in training.fit(run):
        if record.step == 5:
            assert run.best is not None
            best = {name: value.clone() for name, value in run.best.items()}
            with torch.no_grad():
                for parameter in run.network.parameters():
                    parameter.fill_(float("inf"))
        elif record.step == 5 + training.TOO_MANY_SKIPPED:
            assert run.skipped == training.TOO_MANY_SKIPPED
            assert run.lr_scale < 1
            assert same(weights(run), best | {n: v for n, v in weights(run).items() if n.startswith("direct.")})
            break


# -------------------------------------------------------------------------------------------------- end


@pytest.mark.parametrize("train", [{"steps": 100}, {"steps": None, "time": 3600}], ids=["steps", "time"])
def test_an_interrupted_run_still_gives_a_model(train):
    run = start(train)
    records = training.fit(run)
    for _ in range(3):
        next(records)
    with pytest.raises(KeyboardInterrupt):
        records.throw(KeyboardInterrupt())
    checkpoint = training.finish(run)
    assert checkpoint.steps == 3
    assert checkpoint.history[-1]["step"] == 3
    mean = Denoiser(checkpoint).denoise(stripes(1)[0, 0], samples=2).mean
    assert mean.shape == (32, 32)
    assert np.isfinite(mean).all()


def test_how_often_the_last_step_is_repeated_is_measured_at_the_end(monkeypatch):
    """Not of a run that was interrupted: whoever ended it waits."""
    monkeypatch.setattr(training.calibration, "passes", lambda network, frames, precision: Passes(1, 4))
    noise = Frames.split([3 + 2 * np.random.default_rng(0).normal(size=(8, 1, 96, 96))], 0.1, 0)
    run = start({"steps": 2}, noise)
    records = training.fit(run)
    next(records)
    assert training.finish(run).passes == USUAL
    next(records)
    assert training.finish(run).passes == (1, 4)


@pytest.mark.parametrize(("begins", "stops", "kept"), [(0.6, 3, False), (0.1, 11, False), (0.1, 33, True)])
def test_a_direct_denoiser_that_hardly_trained_is_not_used(begins, stops, kept, idle):
    """Interrupted early, the model can sample; one pass would be about the noisy image, without a warning."""
    run = start({"steps": 100}, direct_from=begins)
    for record in training.fit(run):
        if record.step == stops:
            break
    assert (training.finish(run).network.direct is not None) == kept
    if kept:
        return
    with pytest.raises(InputError, match="direct"):
        Denoiser(training.finish(run)).denoise(stripes(1)[0, 0], direct=True)


def test_the_weights_that_are_kept_have_a_trained_direct_denoiser():
    """Where the elbo was best before the direct denoiser joined in, as on a single image."""
    run = start({"steps": 10, "validations": 10, "ema": 0.0}, direct_from=0.5)
    untrained = {name: value.clone() for name, value in run.network.direct.state_dict().items()}
    for record in training.fit(run):
        if record.step == 2:
            run.best_evidence = math.inf
    kept = training.finish(run).network.direct
    assert kept is None or not same(kept.state_dict(), untrained)


def test_a_run_whose_losses_were_never_finite_still_ends_with_a_word():
    """The model is useless and the user has to hear so, from a message, not from an assertion."""
    data = frames(stripes().astype(np.float32))
    run = start({"steps": 2}, data)
    data.arrays[0][:] = 1e30
    for _ in training.fit(run):
        pass
    with pytest.raises(InputError, match="finite"):
        training.finish(run)


def test_what_is_finished_is_ready_to_use():
    run, records = trained({"steps": 5})
    checkpoint = training.finish(run)
    assert not checkpoint.network.training
    assert checkpoint.settings == run.settings
    assert checkpoint.statistics == run.frames.statistics
    assert (checkpoint.steps, checkpoint.seconds) == (5, run.seconds)
    assert [entry["step"] for entry in checkpoint.history] == [5]
    assert records[-1].validation is not None
    assert checkpoint.history[-1]["elbo"] == records[-1].validation["elbo"]
    assert float(checkpoint.network.noise.smallest_sigma) == pytest.approx(run.frames.statistics.smallest_sigma())


def test_the_loop_leaves_the_callers_warnings_alone():
    """A filter of Lightning's making must not outlive, or leak out of, the loop."""
    run = start({"steps": 3})
    filters = list(warnings.filters)
    for _ in training.fit(run):
        assert list(warnings.filters) == filters
    assert list(warnings.filters) == filters


# --------------------------------------------------------------------------------------------- learning


@pytest.mark.parametrize("decoder_input", ["latent", "features"])
def test_training_explains_the_images_better_and_better(decoder_input):
    train = {"steps": 60, "batch": 4, "lr": 0.01, "validations": 6, "ema": 0.8}
    run, records = trained(train, frames(stripes(24)), decoder_input=decoder_input, features=8, signal_features=8)
    elbo = [entry["elbo"] for entry in run.history]
    assert elbo[-1] > elbo[0] + 0.1
    assert elbo[-1] > -1.3  # a Gaussian of the images' own mean and variance has -1.42
    assert run.history[-1]["signal"] < run.history[0]["signal"]
    # Little information in z at the start: it grows with the signal, and is never the noise (method 4.3).
    kl = [record.losses["kl"].item() for record in records]
    assert max(kl[:3]) < 0.02
    assert max(kl) < 0.3


# -------------------------------------------------------------------------------------- measured noise


def blind_row(pixels: np.ndarray, anchor: float = 0.2) -> training.Run:
    given = {"method": "blind-row", "train": TRAIN, "blind_row": {"features": [4], "anchor": anchor}}
    return training.start(config.build("tiny", given), Frames.split([pixels], 0.1, 0))


def test_fine_texture_is_a_reason_to_doubt_the_noise():
    rng = np.random.default_rng(0)
    texture = ndimage.gaussian_filter(rng.normal(size=(4, 1, 64, 64)), (0, 0, 0.8, 0.8))
    assert "more than half" in blind_row(texture).notes[0]
    smooth = ndimage.gaussian_filter(rng.normal(size=(4, 1, 64, 64)), (0, 0, 4, 4))
    assert blind_row(smooth + 0.1 * rng.normal(size=smooth.shape)).notes == ()
    assert "too few rows" in blind_row(texture[..., :12, :]).notes[0]
    assert blind_row(texture, anchor=0).notes == ()


def test_estimates_are_refined_only_where_the_noise_could_be_measured():
    rng = np.random.default_rng(0)
    texture = ndimage.gaussian_filter(rng.normal(size=(4, 1, 64, 64)), (0, 0, 0.8, 0.8))
    fine, few, noise = texture, texture[..., :12, :], rng.normal(size=texture.shape)
    for start_at in ("wavelets", "empty"):
        for pixels, said in ((fine, "fine texture"), (few, "too few rows"), (noise, "")):
            run, _ = trained({"steps": 2}, Frames.split([pixels], 0.1, 0), start=start_at)
            assert len(run.notes) == (said != "")
            assert said in " ".join(run.notes)
            model = training.finish(run)
            assert model.settings.model.refine is (said == "")
            assert isinstance(model.network, COSDD)
            assert (model.network.measured is not None) is (said == "")


def test_the_noise_for_the_filter_stays_as_measured():
    noise = 3 + 2 * np.random.default_rng(0).normal(size=(8, 1, 96, 96))
    run = start({"steps": 6, "lr": 0.1, "ema": 0.5}, Frames.split([noise], 0.1, 0))
    assert isinstance(run.network, COSDD)
    assert run.network.measured is not None
    before = {name: value.clone() for name, value in run.network.measured.state_dict().items()}
    assert len(list(training.fit(run))) == 6
    found = training.finish(run).network
    assert isinstance(found, COSDD)
    assert found.measured is not None
    for name, value in found.measured.state_dict().items():
        assert torch.equal(value, before[name])
    # Normalised images that are all noise, white.
    torch.testing.assert_close(found.measured.at(torch.zeros(1, 1), 3)[0, 0], torch.eye(3)[0], atol=0.05, rtol=0)


def test_where_pixels_are_said_to_be_independent_the_measured_noise_is():
    streaks = ndimage.gaussian_filter1d(np.random.default_rng(0).normal(size=(4, 1, 64, 64)), 2.0, axis=-1)
    for start_at in ("wavelets", "empty"):
        for axis, white in (("none", True), ("x", False)):
            run = start({}, Frames.split([streaks], 0.1, 0), start=start_at, noise_axis=axis)
            assert isinstance(run.network, COSDD)
            assert run.network.measured is not None
            found = run.network.measured.at(torch.zeros(1, 1), 3)[0, 0]
            assert bool(found[1:].abs().max() < 0.01 * found[0]) is white


def test_python_shows_doubts_and_progress_unless_quiet(capsys):
    texture = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(4, 64, 64)), (0, 0.8, 0.8))
    settings = {"train": {"crop": 16, "batch": 2}, "blind_row": {"features": [4]}}
    for quiet in (True, False):
        cosdd.train(texture, noise_axis="x", steps=2, settings=settings, quiet=quiet)
        shown = capsys.readouterr().out
        for note in ("note: more than half", "warning: only 2 steps: barely trained; give it more time"):
            assert (note in shown) == (not quiet)
    remarked = Image(texture.astype(np.float32), "TYX", remarks=("0 is white",))
    cosdd.train(remarked, noise_axis="x", steps=2, settings=settings)
    assert "note: 0 is white" in capsys.readouterr().out


def test_a_model_and_a_result_are_shown_in_a_line(tmp_path):
    noisy = stripes(3)[:, 0]
    model = cosdd.train(noisy, noise_axis="x", steps=1, settings={"blind_row": {"features": [4]}}, quiet=True)
    assert repr(model).startswith("Denoiser(method blind-row, noise axis x, YX images of 1 channel(s), trained 1 steps")
    assert repr(model.denoise(noisy)) == "Result(mean (3, 32, 32), std (3, 32, 32), float32)"
    model.save(tmp_path / "m.safetensors")
    with pytest.raises(InputError, match="overwrite=True"):
        model.save(tmp_path / "m.safetensors")


@pytest.mark.parametrize(("weight", "copies"), [(1.0, False), (0.0, True)])
def test_latents_that_copy_the_noise_are_found_out(weight, copies, monkeypatch):
    """Without a price on what the latents hold, they hold everything."""
    forward = COSDD.forward

    def cheap(self, *given, **more):
        terms = forward(self, *given, **more)
        terms["loss"] = terms["loss"] - (1 - weight) * terms["kl"]
        return terms

    monkeypatch.setattr(COSDD, "forward", cheap)
    clean = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=(12, 1, 64, 64)), (0, 0, 6, 6))
    noise = ndimage.gaussian_filter1d(np.random.default_rng(2).normal(size=clean.shape), 1.0, axis=-1)
    data = Frames.split([clean / clean.std() + noise / noise.std()], 0.1, 0)
    run, records = trained({"steps": 250, "lr": 1e-2, "crop": 32, "batch": 4, "validations": 4}, data, start="wavelets")
    removed = [record.validation["removed"] for record in records if record.validation]
    assert removed[-1] < 0.3 if copies else 0.8 < removed[-1] < 1.3
    assert any("the latents copy the noise" in doubt for doubt in training.finish(run).doubts) is copies
    assert sum(run.history[-1][f"kl_{level}"] for level in (0, 1)) == pytest.approx(run.history[-1]["kl"], rel=1e-4)
