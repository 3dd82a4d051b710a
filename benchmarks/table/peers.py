"""Noise2Void and its kin through CAREamics (``benchmarks/environments/careamics.txt``), with published settings.

Runs in an environment of its own: imports nothing of ours but ``task``. No rotations, which would turn row noise into
column noise; flips along both axes, as our noise is the same read backwards.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.table.task import Fitted, Task

WHOLE_ROWS = 127  # pixels: wider than any patch
SMALL = 8  # images in a batch, as ours


def n2v(task: Task) -> Fitted:
    return fitted(task, "N2V", _n2v(task, 0))


def structured_n2v(task: Task) -> Fitted:
    """Scrambles the row around each hidden pixel as far as its noise reaches; all of it where there is no end."""
    span = _span(task)
    return fitted(task, "Structured N2V", _n2v(task, span), {"span": span})


def n2v_small(task: Task) -> Fitted:
    return fitted(task, "N2V small batch", _n2v(task, 0, SMALL, _ours()))


def structured_n2v_small(task: Task) -> Fitted:
    span = _span(task)
    return fitted(task, "Structured N2V small batch", _n2v(task, span, SMALL, _ours()), {"span": span})


def n2v2(task: Task) -> Fitted:
    from careamics.config.factories import create_advanced_n2v_config

    config = create_advanced_n2v_config(
        experiment_name="n2v2", use_n2v2=True, roi_size=5, masked_pixel_percentage=0.2,
        model_params={"depth": 3, "num_channels_init": 64}, **_common(task, 1e-3, batch=80),
    )  # fmt: skip
    return fitted(task, "N2V2", config)


def care(task: Task) -> Fitted:
    return fitted(task, "CARE", _pairs(task, "care"), target=task.clean)


def noise2noise(task: Task) -> Fitted:
    return fitted(task, "Noise2Noise", _pairs(task, "n2n"), target=task.second)


def _span(task: Task) -> int:
    """Pixels of the row that share noise with one of them; 0 where none does."""
    return WHOLE_ROWS if task.extent is None else 2 * task.extent + 1 if task.extent else 0


def _ours() -> str:
    """The arithmetic of ours: bfloat16 where the processor has it (`cosdd.device`, which is not installed here)."""
    import torch

    native = torch.cuda.is_available() or bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())
    return "bf16-mixed" if native else "32-true"


def _n2v(task: Task, span: int, batch: int = 128, precision: str = "32-true") -> Any:
    """span: pixels of the row that are scrambled around each hidden one; 0 for none."""
    from careamics.config.factories import create_advanced_n2v_config

    config = create_advanced_n2v_config(
        experiment_name="n2v", roi_size=11, masked_pixel_percentage=0.2,
        struct_n2v_axes="horizontal" if span else "none", struct_n2v_span=min(span, 15) or 5,
        model_params={"depth": 2, "num_channels_init": 32}, **_common(task, 4e-4, batch),
    )  # fmt: skip
    config.training_config.trainer_params["precision"] = precision
    if span > 15:  # its validation refuses more, its code does not
        mask = config.algorithm_config.n2v_config.struct_mask
        config.algorithm_config.n2v_config.struct_mask = type(mask).model_construct(axes="horizontal", span=span)
    return config


def _pairs(task: Task, kind: str) -> Any:
    from careamics.config.factories import create_advanced_care_config, create_advanced_n2n_config

    model = {"depth": 2, "num_channels_init": 32, "residual": True, "use_batch_norm": False}
    make = create_advanced_care_config if kind == "care" else create_advanced_n2n_config
    common = _common(task, 4e-4, batch=16, patch=128)
    if kind == "care":  # left alone it keeps the latest weights and ends after three epochs without gain
        best = {"monitor": "val_loss", "mode": "min"}
        common["checkpoint_params"] |= best
        common["early_stopping_params"] = best | {"patience": 5 * common["lr_scheduler_params"]["patience"]}
    config = make(experiment_name=kind, model_params=model, **common)
    # The mean, which PSNR asks for; the published mean absolute error asks for the median.
    config.algorithm_config.loss = "mse"
    return config


def _common(task: Task, lr: float, batch: int, patch: int = 64) -> dict[str, Any]:
    patch = min(patch, 2 ** int(math.log2(min(task.train.shape[1:]))))
    # Patience is published for epochs of 400 updates; those of CAREamics are as many as there are patches.
    updates = max(1, math.ceil(len(task.train) * math.ceil(math.prod(task.train.shape[1:]) / patch**2) / batch))
    return {
        "data_type": "array",
        "axes": "SYX",
        "patch_size": [patch] * 2,
        "batch_size": batch,
        "num_epochs": 100_000,  # the clock ends it
        "num_workers": 0,
        "seed": task.seed + 1,  # CAREamics wants more than 0
        "augmentations": ["x_flip", "y_flip"],
        "optimizer": "Adam",
        "optimizer_params": {"lr": lr},
        "lr_scheduler": "ReduceLROnPlateau",
        "lr_scheduler_params": {"factor": 0.5, "patience": math.ceil(10 * 400 / updates)},
        "trainer_params": {"accelerator": "auto", "enable_model_summary": False},
        "checkpoint_params": {"save_last": True, "save_top_k": 1},
    }


def fitted(
    task: Task, name: str, config: Any, facts: dict[str, Any] | None = None, target: np.ndarray | None = None
) -> Fitted:
    """Train until the budget is used; one image in twenty is held out for its schedule and checkpoints."""
    from careamics import CAREamist

    held = max(1, len(task.train) // 20) if len(task.train) > 1 else 0
    train, held_out = slice(held, None), slice(0, held or 1)
    pairs = {} if target is None else {"train_data_target": target[train], "val_data_target": target[held_out]}
    stop = _stop(task.start())
    # Its files are read once more to denoise: the folder lives as long as this process does.
    folder = tempfile.TemporaryDirectory()
    peer = CAREamist(config, work_dir=Path(folder.name), enable_progress_bar=False, callbacks=[stop])
    peer.train(train_data=task.train[train], val_data=task.train[held_out], **pairs)

    def denoise(images: np.ndarray) -> np.ndarray:
        assert Path(folder.name).exists()
        large = max(images.shape[1:]) > 512 or any(size % 8 for size in images.shape[1:])
        tiles = {"tile_size": (256, 256), "tile_overlap": (48, 48)} if large else {}
        results, _ = peer.predict(images, batch_size=1, num_workers=0, **tiles)
        return np.asarray(results[0]).reshape(images.shape)

    model = config.algorithm_config.model
    count = sum(parameter.numel() for parameter in peer.model.parameters())
    said = {
        "parameters": count,
        "depth": model.depth,
        "channels": model.num_channels_init,
        "loss": str(config.algorithm_config.loss),
        "batch": config.data_config.batch_size,
        "precision": str(config.training_config.trainer_params.get("precision", "32-true")),
    }
    return Fitted({name: denoise}, peer.trainer.global_step, said | (facts or {}))


def _stop(used: Callable[[], float]) -> Any:
    """Ends the training of Lightning when the budget is used."""
    from lightning.pytorch.callbacks import Callback

    class Stop(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            trainer.should_stop = trainer.should_stop or used() >= 1

    return Stop()
