"""An update is the same whether host or device decides what becomes of it; one that is recorded asks for nothing."""

import contextlib
import warnings

import pytest
import torch
from tiny import Repeated, frames, settings
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cosdd import config, training
from cosdd.model import build
from cosdd.updates import WARM_UP, Plain, Replayed


class Impossible:
    def __init__(self, work):
        raise RuntimeError("operation not permitted\nwhen stream is capturing")


def run(record=None, train=None, **model) -> training.Run:
    """A run with updates that the device makes by itself, where ``record`` is given."""
    begun = training.start(settings({"steps": 14, "ema": 0.9, "batch": 4} | (train or {}), **model), frames())
    feed = begun.feed
    begun.feed = lambda step: spoiled(step, feed(step))  # type: ignore[assignment]
    if record is not None:
        plain = begun.updates
        begun.updates = Replayed(
            plain.network, plain.wrapped, plain.optimiser, plain.fabric, plain.train, record=record
        )
    return begun


def spoiled(step: int, crops: torch.Tensor) -> torch.Tensor:
    if step in (5, 6, 11):
        crops[0, ..., :3] = torch.inf
    return crops


@pytest.mark.parametrize(
    ("train", "model"),
    [
        ({}, {}),
        ({"optimiser": "adam", "clip": 0.5, "virtual_batches": 2}, {}),
        ({}, {"block": "supplement", "padding": "reflect"}),  # batch norm: statistics must be undone, too
        ({"steps": 24}, {"start": "wavelets", "latents_from": 0.3, "downsampling": "every"}),
    ],
    ids=["adamax", "adam", "batch norm", "wavelets"],
)
def test_both_ways_end_with_the_same_weights(train, model):
    Repeated.made = 0
    runs = run(None, train, **model), run(Repeated, train, **model)
    losses = [[record.losses for record in training.fit(one)] for one in runs]
    for one, other in zip(*losses, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            torch.testing.assert_close(other[name], value, rtol=0, atol=0, equal_nan=True)
    for name in ("network", "average", "best"):
        states = [getattr(each, name) for each in runs]
        one, other = (state.state_dict() if name == "network" else state for state in states)
        assert all(torch.equal(value, other[key]) for key, value in one.items()), name
    assert [each.skipped for each in runs] == [3, 3]
    assert Repeated.made == (3 if model.get("latents_from") else 2)  # one for each phase


def test_updates_that_fail_one_after_the_other_go_back_to_the_best_weights():
    begun = run(Repeated, {"steps": 60, "validations": 12})
    for record in training.fit(begun):
        if record.step == 5:
            with torch.no_grad():
                for parameter in begun.network.parameters():
                    parameter.fill_(torch.inf)
        if begun.lr_scale < 1:
            break
    assert begun.skipped >= training.TOO_MANY_SKIPPED
    assert all(p.isfinite().all() for name, p in begun.network.named_parameters() if not name.startswith("direct."))


def test_what_cannot_be_recorded_is_done_all_the_same():
    plain, other = run(), run(Impossible)
    for _ in training.fit(plain):
        pass
    with pytest.warns(UserWarning, match="CUDA graph and are slower: operation not permitted when") as warned:
        for _ in training.fit(other):
            pass
    assert len(warned) == 1
    assert all(torch.equal(value, other.average[name]) for name, value in plain.average.items())


def test_only_finite_updates_make_a_phase_settled():
    """The optimiser makes its memory in its first step: recorded, it would be made anew in every update."""
    Repeated.made = 0
    begun = run(Repeated)
    begun.feed = lambda step: torch.full((4, 1, 16, 16), torch.inf)  # type: ignore[assignment]
    for _ in range(WARM_UP + 2):
        training.update(begun, 0.0)
    assert Repeated.made == 0


class Watched(TorchDispatchMode):
    """Notes work that mixes the device (of the kind "meta", which cannot be asked for values) with the host."""

    def __init__(self):
        super().__init__()
        self.mixed: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        of = lambda tree: {leaf.device.type for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)}  # noqa: E731
        if len(of((args, kwargs)) | of(result)) > 1:
            self.mixed.append(str(func))
        return result


@pytest.mark.parametrize("progress", [0.0, 0.05, 1.0])
@pytest.mark.parametrize("preset", config.PRESETS)
def test_the_loss_and_its_gradients_ask_the_host_for_nothing(preset, progress, monkeypatch):
    """Whatever does cannot be recorded: a value that is read, or brought there, or a shape that depends on one."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # there is none for "meta"
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)
    asked = config.build(preset, {"method": "cosdd", "model": {"levels": 3} if preset == "large" else {}})
    network = build(asked).to("meta")
    crops = torch.empty(2, 1, *[2 * network.stride] * 2, device="meta")
    with Watched() as watched:
        network(crops, progress)["loss"].backward()
    assert watched.mixed == []
    with pytest.raises(RuntimeError, match="meta tensors"):  # what would have come of a question
        crops.sum().item()
    with Watched() as watched:
        crops + torch.ones(())
        crops.new_tensor([1.0])
    assert watched.mixed


def test_without_a_gpu_updates_are_plain_and_nothing_is_said():
    begun = run()
    assert type(begun.updates) is Plain
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        training.update(begun, 1.0)
