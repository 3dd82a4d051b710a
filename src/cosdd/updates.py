"""Updates of the weights: one summed loss, one backward pass, one step of the optimiser.

The three networks' gradients are disjoint, so this equals three optimisers, one for each (method 2.3, 2.4). An update
whose loss or gradients are not finite must not cost the run: it leaves no trace.

`Plain` asks the device whether they are. On a GPU, `Replayed` never asks: it records an update as a CUDA graph, in
which the device itself undoes what it should not have done. Both end with the same weights, up to rounding.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float
from lightning_fabric import Fabric
from torch import Tensor

from cosdd import config, processes
from cosdd.device import arithmetic
from cosdd.errors import brief
from cosdd.model import COSDD, BlindRow
from cosdd.model.graph import Graph

WARM_UP = 3  # finite updates of a phase after which it is recorded: the optimiser then knows all its weights

Losses = dict[str, Tensor]


@contextmanager
def quiet():
    """Lightning looks for a loop of its own kind; ours is in plain sight. Never around a yield: see `training.fit`."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning_fabric")
        # The first updates of a phase are not recorded, on purpose.
        warnings.filterwarnings("ignore", "This instance was constructed with capturable=True")
        yield


class Plain:
    """Updates of a network, on any device.

    wrapped: the network behind Fabric, which knows of other processes.
    """

    def __init__(
        self,
        network: COSDD | BlindRow,
        wrapped: torch.nn.Module,
        optimiser: torch.optim.Optimizer,
        fabric: Fabric,
        train: config.Train,
    ) -> None:
        self.network, self.wrapped, self.optimiser, self.fabric, self.train = network, wrapped, optimiser, fabric, train

    @quiet()
    def step(self, crops: Float[Tensor, "b c *edges"], progress: float) -> tuple[Losses, bool | Bool[Tensor, ""]]:
        """The losses of the crops, and whether the update was made, or left out because something was not finite."""
        return self._plain(crops, progress)

    def _plain(self, crops: Float[Tensor, "b c *edges"], progress: float) -> tuple[Losses, bool]:
        buffers = {name: buffer.clone() for name, buffer in self.network.named_buffers()}
        losses, norm = self._gradients(crops, progress)
        finite = bool(torch.isfinite(norm))
        if finite:
            self.optimiser.step()
        else:  # nor may it spoil the statistics of batch norm
            for name, buffer in self.network.named_buffers():
                buffer.copy_(buffers[name])
        return losses, finite

    def _gradients(self, crops: Float[Tensor, "b c *edges"], progress: float) -> tuple[Losses, Float[Tensor, ""]]:
        """The losses, and the norm of the gradients, which are left with the weights."""
        train = self.train
        self.optimiser.zero_grad(set_to_none=True)
        losses: Losses = {}
        together: dict[str, Any] = {}
        if processes.count() > 1 and isinstance(self.network, COSDD):  # blind-row models draw no latents
            together["draw"] = processes.part_of_noise()
        for part in crops.chunk(min(train.virtual_batches, train.batch)):
            with arithmetic(train.precision, self.fabric.device):
                terms = self.wrapped(part, progress, **together)
            share = len(part) / len(crops)
            self.fabric.backward(terms["loss"] * share)
            for name, value in terms.items():
                losses[name] = losses.get(name, 0) + value.detach() * share  # type: ignore[assignment]
        if train.clip is None:
            return losses, torch.nn.utils.get_total_norm(
                [p.grad for p in self.network.parameters() if p.grad is not None]
            )
        norm = self.fabric.clip_gradients(self.wrapped, self.optimiser, max_norm=train.clip, error_if_nonfinite=False)  # type: ignore[arg-type]
        assert norm is not None
        return losses, norm


class Replayed(Plain):
    """Updates that the device makes by itself, once the first few of a phase were plain ones.

    record: what makes a recording of work; see `Graph`.
    """

    def __init__(self, *arguments: Any, record: Callable[[Callable[[], Any]], Any] = Graph) -> None:
        super().__init__(*arguments)
        self._record: Callable[[Callable[[], Any]], Any] | None = record
        self._phase: object = None
        self._finite = 0  # updates of this phase
        self._recording: Any = None
        self._crops = torch.empty(0)
        if self.fabric.device.type == "cuda":  # what changes must be in the device's memory: also the learning rate
            for group in self.optimiser.param_groups:
                group["capturable"] = True
                group["lr"] = torch.tensor(float(group["lr"]), device=self.fabric.device)

    @quiet()
    def step(self, crops: Float[Tensor, "b c *edges"], progress: float) -> tuple[Losses, bool | Bool[Tensor, ""]]:
        assert isinstance(self.network, COSDD)
        phase = self.network.phase(progress)
        if phase != self._phase:  # other parts of the network learn: another graph
            self._phase, self._finite, self._recording = phase, 0, None
        if self._recording is None and self._finite >= WARM_UP:
            self._recording = self._recorded(crops, progress)
        if self._recording is None:
            losses, finite = self._plain(crops, progress)
            self._finite += finite
            return losses, finite
        self._crops.copy_(crops)
        losses, made = self._recording.replay()
        return {name: value.clone() for name, value in losses.items()}, made.clone()

    def _recorded(self, crops: Float[Tensor, "b c *edges"], progress: float) -> Any:
        """A recording of an update of these crops, or of what takes their place; None where there is none to be had."""
        if self._record is None:
            return None
        self._crops = crops.clone()
        try:
            return self._record(lambda: self._undoable(self._crops, progress))
        except RuntimeError as error:
            self._record = None
            reason = brief(str(error), 200)
            warnings.warn(f"updates could not be recorded as a CUDA graph and are slower: {reason}", stacklevel=2)
            return None

    def _undoable(self, crops: Float[Tensor, "b c *edges"], progress: float) -> tuple[Losses, Bool[Tensor, ""]]:
        """As `_plain`, without asking the device for anything."""
        state = [*self.network.parameters(), *self.network.buffers()]
        state += [value for known in self.optimiser.state.values() for value in known.values()]
        with torch.no_grad():
            before = [tensor.clone() for tensor in state]
        losses, norm = self._gradients(crops, progress)
        self.optimiser.step()
        finite = torch.isfinite(norm)
        with torch.no_grad():
            for tensor, earlier in zip(state, before, strict=True):
                tensor.copy_(torch.where(finite, tensor, earlier))
        return losses, finite
