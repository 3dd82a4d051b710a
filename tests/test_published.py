"""The authors' code is driven in the order of its training step, and a row of the table needs a checkout of it."""

import itertools
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import published, training  # noqa: E402
from benchmarks.table import run, sets  # noqa: E402
from benchmarks.table.methods import METHODS  # noqa: E402

# Networks of one number each, and a loader without chance, by the names and arguments of the authors' code.
UTILS = """
import random
import torch
from matplotlib import pyplot  # hollow here
class DataModule:
    def __init__(self, images, batch_size, rand_crop_size, train_split):
        self.images, self.batch_size, self.count = images, batch_size, int(len(images) * train_split)
    def setup(self, stage):
        random.shuffle(self.images)  # of a tensor: rows are swapped in place, and lost
    def train_dataloader(self):
        return self.images[:self.count].split(self.batch_size)
    def val_dataloader(self):
        return self.images[self.count:].split(self.batch_size)
"""
GET_MODELS = """
import torch
class Scaled(torch.nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value, self.checkpointed = torch.nn.Parameter(torch.tensor(value)), True
    def forward(self, x, *_):
        return x * self.value if self.training else x * self.value.detach() + 1
    def loss(self, x, clean):
        return (x - clean) ** 2
class Ladder(Scaled):
    def forward(self, x):
        return {"s_code": super().forward(x), "q_list": self.value, "p_list": self.value}
    def kl_divergence(self, q, p):
        return q ** 2 + p ** 2
class Decoder(Scaled):
    def forward(self, x, code):
        return code * self.value
    def loglikelihood(self, x, parts):
        return -(x - parts) ** 2
def get_models(settings, colour_channels):
    return Ladder(0.5), Decoder(0.4), Scaled(0.3), Scaled(0.2)
"""


@pytest.fixture
def checkout(tmp_path):
    """A folder like a checkout of the authors' code; nothing imported from it stays."""
    (tmp_path / "models").mkdir()
    (tmp_path / "utils.py").write_text(UTILS)
    (tmp_path / "models" / "get_models.py").write_text(GET_MODELS)
    return tmp_path


def test_an_update_follows_the_gradients_of_each_loss(checkout):
    code = published.Published(checkout, 8, 6, 32, torch.device("cpu"))
    x = torch.randn(4, 1, 8, 8)
    a, b, c, d = (network.value.detach().clone().requires_grad_() for network in code.networks)
    losses = (
        ((x - x * a * b) ** 2).mean() + 2 * a**2 / x.numel(),
        ((x - c * (x * a).detach()) ** 2).mean(),
        ((x * a * c).detach() - x * d).square().mean(),
    )
    for loss in losses:
        loss.backward()
    code.learn(x, step=False)
    for network, value in zip(code.networks, (a, b, c, d), strict=True):
        torch.testing.assert_close(network.value.grad, value.grad)
        assert network.value == value  # they do not move before the step
    code.learn(x, step=True)
    # The first step of Adamax is its rate, against the sign of the gradient.
    for network, value in zip(code.networks, (a, b, c, d), strict=True):
        assert float((network.value - value).detach()) == pytest.approx(-2e-3 * float(value.grad.sign()), rel=1e-3)
        assert network.value.grad is None


def test_recomputation_is_a_switch_and_prediction_leaves_training_on(checkout):
    code = published.Published(checkout, 8, 6, 32, torch.device("cpu"))
    code.recompute(False)
    assert not any(network.checkpointed for network in code.networks)
    x = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(code.mean(x, 3), (x * 0.5 + 1) * 0.3 + 1)
    torch.testing.assert_close(code.directly(x), x * 0.2 + 1)
    assert all(network.training for network in code.networks)


@pytest.mark.parametrize("mended", [False, True])
def test_four_batches_make_an_update_and_the_estimate_is_in_grey_values(checkout, mended):
    images = np.random.default_rng(0).normal(100, 3, (40, 8, 8)).astype(np.float32)
    steps = published.training(checkout, mended, images, 0, torch.device("cpu"))
    updates = [step for step, _ in itertools.islice(steps, 9)]
    assert updates == [0, 0, 0, 1, 1, 1, 1, 2, 2]
    _, estimate = next(steps)
    found = estimate(images[:2], 3)
    assert {name: value.shape for name, value in found.items()} == {"direct": (2, 8, 8), "mean": (2, 8, 8)}
    assert 95 < found["mean"].mean() < 110
    assert list(estimate(images[:2], 0)) == ["direct"]


@pytest.mark.parametrize("mended", [False, True])
def test_images_are_lost_by_shuffling_unless_that_is_mended(checkout, mended, monkeypatch):
    seen = []
    monkeypatch.setattr(published.Published, "learn", lambda self, x, step: seen.extend(x.mean((1, 2, 3)).tolist()))
    images = np.arange(40, dtype=np.float32)[:, None, None] + np.zeros((40, 8, 8), np.float32)
    list(itertools.islice(published.training(checkout, mended, images, 0, torch.device("cpu")), 9))  # an epoch
    assert len(seen) == 36
    assert (len({*seen}) == 36) == mended


def test_to_look_at_an_estimate_does_not_change_training(checkout, monkeypatch):
    monkeypatch.setattr(published.Published, "mean", lambda self, x, samples: torch.rand_like(x))
    images = np.random.default_rng(0).normal(100, 3, (40, 8, 8)).astype(np.float32)
    _, estimate = next(published.training(checkout, False, images, 0, torch.device("cpu")))
    before = torch.get_rng_state()
    estimate(images[:2], 3)
    assert torch.equal(before, torch.get_rng_state())


def test_a_folder_without_their_code_is_named(tmp_path):
    with pytest.raises(SystemExit, match=r"no models/get_models.py, expected a checkout"):
        published.modules(tmp_path)


def test_their_rows_need_a_checkout_and_say_so(checkout):
    rng = np.random.default_rng(0)
    truth = rng.random((40, 16, 16)).astype(np.float32)
    judge = partial(sets.against_truth, truth[:2])
    images = sets.Set("tiny", truth, truth[:2], 0, judge)
    method = METHODS["published COSDD mended"]
    row = run.attempt(method, images, 0, run.Protocol(budget=0.01, limit=60))
    assert row["status"] == "not there: give --checkout, a folder of github.com/krulllab/COSDD"
    row = run.attempt(method, images, 0, run.Protocol(budget=0.01, limit=60, checkout=str(checkout)))
    assert row["status"] == "done"
    assert list(row["scores"]) == ["published COSDD mended direct", "published COSDD mended MMSE-100"]


def test_the_page_says_which_seeds_were_measured_on_which_machine():
    machines = {"ours": {"0": "old", "10": "new", "2": "new"}, "mended": {"0": "old"}}
    of_one = {"results": {"stripe": {"machines": {"ours": {"0": "old"}}}}}
    assert training._machines(of_one) == ""
    told = training._machines({"results": {"stripe": {"machines": machines}, "heavy": {"machines": {}}}})
    assert told == " Measured on 2 machines: seed 0 on old; seeds 2, 10 on new."
