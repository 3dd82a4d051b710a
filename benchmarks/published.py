"""The authors' published code, driven from a checkout of https://github.com/krulllab/COSDD (MIT licence), branch main.

No line of it is part of this project. Its modules are driven from plain loops in the order of its training step:
ladder and autoregressive decoder, signal decoder, direct denoiser, each with its own Adamax. What is left out here:
logging, pictures, and the end of training when nothing has improved for 50 epochs.
"""

from __future__ import annotations

import importlib
import random
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

# An estimate of noisy images (n, y, x), by the name of the way it is made; without samples there is no mean.
Estimate = Callable[[np.ndarray, int], dict[str, np.ndarray]]
HOLLOW = ("matplotlib", "matplotlib.pyplot", "pytorch_lightning", "sklearn", "sklearn.linear_model", "tqdm")
BATCH, BATCHES = 4, 4  # crops at once, and how many of such batches make an update: its example configuration
EDGE, LEVELS, FILTERS = 64, 6, 32  # crops and networks that half an hour of one core is of use to


@cache
def modules(checkout: Path) -> tuple[Any, Any]:
    """The authors' ``utils`` and ``get_models``; what these import for logging, pictures and statistics is hollow."""
    if not (checkout / "models" / "get_models.py").exists():
        sys.exit(f"error: {checkout}: no models/get_models.py, expected a checkout of github.com/krulllab/COSDD, main")

    class Hollow(types.ModuleType):
        def __getattr__(self, name: str) -> type:
            return object

    with mock.patch.dict(sys.modules, {name: Hollow(name) for name in HOLLOW}):
        sys.path.insert(0, str(checkout))
        try:
            return importlib.import_module("utils"), importlib.import_module("models.get_models").get_models
        finally:
            sys.path.remove(str(checkout))


class Published:
    """Their networks and optimisers. Crops and images are (n, 1, y, x), normalised."""

    def __init__(self, checkout: Path, edge: int, levels: int, filters: int, where: torch.device) -> None:
        settings = {
            "data": {"number-dimensions": 2},
            "hyper-parameters": {
                "number-layers": levels, "s-code-channels": filters, "number-gaussians": 5, "noise-direction": "x",
                "scale-initialisation": False,
            },
            "train-parameters": {"crop-size": [edge, edge], "use-direct-denoiser": True, "direct-denoiser-loss": "MSE"},
        }  # fmt: skip
        self.where = where
        self.networks = [network.to(where) for network in modules(checkout)[1](settings, 1)]
        self.ladder, self.decoder, self.signal, self.direct = self.networks
        weights = (
            [*self.ladder.parameters(), *self.decoder.parameters()],
            self.signal.parameters(),
            self.direct.parameters(),
        )
        self.optimisers = [torch.optim.Adamax(parameters) for parameters in weights]

    def recompute(self, wanted: bool) -> None:
        """Whether activations are computed anew on the way back, as they ship it."""
        for network in self.networks:
            for module in network.modules():
                if hasattr(module, "checkpointed"):
                    module.checkpointed = wanted

    def losses(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One for each optimiser, in their order."""
        with self.mixed():
            encoded = self.ladder(x)
            code = encoded["s_code"]
            nll = -self.decoder.loglikelihood(x, self.decoder(x, code)).mean()
            elbo = nll + self.ladder.kl_divergence(encoded["q_list"], encoded["p_list"]) / x.numel()
            clean = self.signal(code.detach())
            signal = self.signal.loss(x, clean).mean()
            return elbo, signal, self.direct.loss(clean.detach(), self.direct(x)).mean()

    def learn(self, x: Tensor, *, step: bool) -> None:
        """Gradients of some crops are added to those of before; `step` moves the weights and forgets them."""
        for optimiser, loss in zip(self.optimisers, self.losses(x), strict=True):
            loss.backward()
            if step:
                optimiser.step()
                optimiser.zero_grad()

    def mixed(self) -> torch.autocast:
        """bfloat16 on a GPU, as they ship it; elsewhere it would be emulated."""
        return torch.autocast(self.where.type, torch.bfloat16, enabled=self.where.type == "cuda")

    def held(self, batches: Iterator[Tensor]) -> Tensor:
        """Means of the losses of crops that are not learned from."""
        with self.still(), torch.no_grad():
            return torch.tensor([[float(loss) for loss in self.losses(crops)] for crops in batches]).mean(0)

    @contextmanager
    def still(self) -> Iterator[None]:
        """As they are for prediction."""
        for network in self.networks:
            network.eval()
        try:
            yield
        finally:
            for network in self.networks:
                network.train()

    @torch.no_grad()
    def mean(self, x: Tensor, samples: int) -> Tensor:
        """Of so many samples, each from the image anew."""
        with self.still(), self.mixed():
            total = torch.zeros_like(x)
            for _ in range(samples):
                total += self.signal(self.ladder(x)["s_code"]).float()
            return total / samples

    @torch.no_grad()
    def directly(self, x: Tensor) -> Tensor:
        with self.still(), self.mixed():
            return self.direct(x).float()


def training(
    checkout: Path, mended: bool, images: np.ndarray, seed: int, where: torch.device
) -> Iterator[tuple[int, Estimate]]:
    """Updates so far and the estimate they give, after every batch; never ends.

    images: (n, y, x). mended: shuffled as a permutation; as published, shuffling a tensor repeats some images and
    loses about half of them. Without recomputation.
    """
    utils, _ = modules(checkout)
    random.seed(seed)
    torch.manual_seed(seed)
    pixels = torch.from_numpy(images)[:, None]
    mean, std = pixels.mean(), pixels.std()
    if mended:
        pixels = pixels[torch.randperm(len(pixels))]
    loader = utils.DataModule(pixels, batch_size=BATCH, rand_crop_size=(EDGE, EDGE), train_split=0.9)
    with mock.patch("random.shuffle") if mended else nullcontext():
        loader.setup("fit")
    code = Published(checkout, EDGE, LEVELS, FILTERS, where)
    code.recompute(False)
    schedules = [
        torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, factor=0.1, patience=25) for optimiser in code.optimisers
    ]

    def normalised(x: Tensor) -> Tensor:
        return ((x - mean) / std).to(where)

    def estimate(noisy: np.ndarray, samples: int) -> dict[str, np.ndarray]:
        x = normalised(torch.from_numpy(noisy)[:, None])
        with torch.random.fork_rng():  # training goes on as if nobody had looked
            # One image at a time: all at once would hold the memory of all.
            found = {"direct": torch.cat([code.directly(one) for one in x.split(1)])}
            if samples:
                found["mean"] = torch.cat([code.mean(one, samples) for one in x.split(1)])
        return {name: (value.cpu() * std + mean).numpy()[:, 0] for name, value in found.items()}

    updates = 0
    while True:
        for index, crops in enumerate(loader.train_dataloader()):
            step = (index + 1) % BATCHES == 0
            code.learn(normalised(crops), step=step)
            updates += step
            yield updates, estimate
        held = code.held(normalised(crops) for crops in loader.val_dataloader())
        for schedule, value in zip(schedules, held, strict=True):
            schedule.step(value)
