"""Every setting once: its type, its default and one sentence; and the presets.

The command line, the docs table and the model file are all made from the classes here. Unknown names are
refused with the nearest valid one, and a built configuration never changes (its models are frozen).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from cosdd.errors import InputError, brief

NoiseAxis = Literal["x", "y", "z", "none"]
AXIS = {"x": -1, "none": -1, "y": -2, "z": -3}  # of an array (..., z, y, x)
Method = Literal["auto", "blind-row", "cosdd"]
METHODS: tuple[str, ...] = get_args(Method)
Preset = Literal["tiny", "fast", "small", "large"]
PRESETS: tuple[str, ...] = get_args(Preset)


def seconds(value: Any) -> Any:
    """Read ``"90s"``, ``"10m"``, ``"1.5h"`` or a number of seconds."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*(s|m|h|d)?\s*", value)
    if not match:
        raise ValueError(f"not a duration: {value!r} (write for example 90s, 10m or 1.5h)")
    return float(match[1]) * {None: 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


Seconds = Annotated[float, BeforeValidator(seconds), Field(gt=0, le=1e9)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Model(Section):
    """The networks (supplement section 3)."""

    dimensions: Literal[1, 2, 3] = Field(
        default=2, description="Dimensions of the convolutions: 1 (x), 2 (y x) or 3 (z y x)."
    )
    channels: int = Field(default=1, ge=1, le=64, description="Image channels; filled in from the data.")
    noise_axis: NoiseAxis = Field(
        default="x", description="Axis along which the noise is correlated; filled in from the data for 'auto'."
    )

    start: Literal["empty", "wavelets"] = Field(
        default="empty",
        description="What the latents hold before training: nothing (paper), or the Haar wavelets of the image, "
        "weighed against the measured noise (docs/training.md); then every level halves the image, blocks are plain "
        "and pad with zeros.",
    )
    levels: int = Field(default=5, ge=1, le=20, description="Levels of the latent hierarchy.")
    downsampling: Literal["alternating", "every", "after_first"] = Field(
        default="after_first",
        description="Which levels halve the image, finest first: every second, every, or every one but the finest.",
    )
    features: int = Field(default=32, ge=1, le=512, description="Feature channels of the finest level.")
    max_features: int = Field(
        default=64, ge=1, le=1024, description="Feature channels double where the image halves, up to this many."
    )
    latents: int = Field(default=8, ge=1, le=512, description="Latent channels of every level but the final one.")
    final_latents: int = Field(
        default=16, ge=1, le=1024, description="Latent channels of the finest level, the last one sampled."
    )
    block: Literal["supplement", "plain"] = Field(
        default="plain",
        description="Residual block: convolution, batch norm, Mish, twice, then a gated block (supplement); "
        "or activation and convolution, twice, without normalisation (plain).",
    )
    activation: Literal["mish", "silu", "relu"] = Field(
        default="silu", description="Activation function of the ladder."
    )
    padding: Literal["reflect", "zeros"] = Field(
        default="zeros", description="What convolutions see outside the (reflected) image."
    )
    decoder_input: Literal["latent", "features"] = Field(
        default="features",
        description="What the decoders receive: the sampled final latent (supplement) or the last top-down features "
        "(the authors' published code).",
    )

    latents_from: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of the budget before which the noise decoder learns alone, and the latents stay as they "
        "start; for start wavelets.",
    )
    noise_layers: int = Field(default=4, ge=1, le=32, description="Layers of the autoregressive noise decoder.")
    noise_features: int = Field(default=32, ge=1, le=512, description="Filters of the noise decoder.")
    noise_kernel: int = Field(
        default=5, ge=2, le=33, description="Kernel length of the noise decoder along the noise axis."
    )
    noise_dilation: int = Field(
        default=1, ge=1, le=16, description="Dilation of every other layer of the noise decoder."
    )
    components: int = Field(default=3, ge=1, le=64, description="Gaussians in the mixture of the noise decoder.")

    signal_layers: int = Field(default=2, ge=0, le=16, description="3-wide convolutions of the signal decoder.")
    signal_features: int = Field(default=32, ge=1, le=1024, description="Filters of the signal decoder.")
    direct: bool = Field(default=True, description="Train a direct denoiser, which gives the mean in one pass.")
    direct_from: float = Field(default=0.6, ge=0, lt=1, description="Share of the budget after which it trains.")
    refine: bool = Field(
        default=False,
        description="Refine every estimate by a Wiener filter for the noise as it was measured before training "
        "(docs/training.md).",
    )
    direct_features: int = Field(
        default=32, ge=1, le=512, description="Feature channels of the direct denoiser's finest level."
    )

    @model_validator(mode="after")
    def _axis_exists(self) -> Model:
        if self.noise_axis not in ("none", *"xyz"[: self.dimensions]):
            raise ValueError(f"noise_axis {self.noise_axis} does not exist in {self.dimensions} dimension(s)")
        return self


class BlindRow(Section):
    """The blind-row Bayesian denoiser (docs/blind-row.md); dimensions, channels and noise axis are those of model."""

    features: tuple[Annotated[int, Field(ge=1, le=1024)], ...] = Field(
        default=(32, 48, 64),
        min_length=1,
        max_length=8,
        description="Feature channels of its U-Net, finest level first.",
    )
    blocks: int = Field(default=1, ge=1, le=8, description="Residual blocks on each level of its U-Net.")
    period: int = Field(
        default=4, ge=2, le=16, description="Every so many rows are predicted at once, from those between."
    )
    rank: int = Field(
        default=4, ge=1, le=64, description="Factors per pixel of the signal's uncertainty along the row."
    )
    widths: tuple[Annotated[float, Field(gt=0, le=1e4)], ...] = Field(
        default=(1.0, 4.0), min_length=1, max_length=8, description="Length scales of that uncertainty in pixels."
    )
    anchor: float = Field(
        default=0.2,
        ge=0,
        le=100,
        description="Weight (nats) that holds the noise at what is measured across the rows; 0 switches it off.",
    )


class Train(Section):
    """The training run (supplement section 2)."""

    steps: int | None = Field(
        default=None, ge=1, le=10**9, description="Budget in updates; makes a run exactly repeatable."
    )
    time: Seconds | None = Field(
        default=600, description="Budget in wall-clock time, such as 10m; used where steps is not given."
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="Seed of the weights, the crops and the latent noise.")
    batch: int = Field(default=8, ge=1, le=4096, description="Crops per update.")
    virtual_batches: int = Field(
        default=1, ge=1, le=64, description="Parts the batch is split into; gradients are accumulated."
    )
    crop: int | None = Field(
        default=None,
        ge=8,
        le=4096,
        description="Edge of the training crops in pixels, smaller where the image is; not given: 64 in two "
        "dimensions, 32 in three, 1024 in one.",
    )
    optimiser: Literal["adamax", "adam"] = Field(default="adamax", description="Optimiser; the paper uses Adamax.")
    lr: float = Field(default=2e-3, gt=0, le=1, description="Learning rate.")
    schedule: Literal["budget", "plateau"] = Field(
        default="budget",
        description="Learning rate over time: warm-up and cosine decay fitted to the budget; "
        "or a tenth after each plateau (paper).",
    )
    warmup: float = Field(
        default=0.03, ge=0, lt=1, description="Share of the budget in which the learning rate rises (schedule budget)."
    )
    patience: int = Field(default=3, ge=1, le=10**6, description="Validations without gain before the rate falls.")
    ema: float = Field(
        default=0.995, ge=0, lt=1, description="Decay of the moving average of the weights; 0 switches it off."
    )
    clip: float | None = Field(default=None, gt=0, description="Largest gradient norm; larger ones are scaled down.")
    validation: float = Field(
        default=0.1, gt=0, lt=1, description="Share of the frames held out where there are at least ten."
    )
    validations: int = Field(default=40, ge=1, le=1000, description="Validations during the run.")
    snapshot: Seconds = Field(
        default=30,
        description="Time between snapshots of the run, from which --resume goes on after a kill, and between "
        "previews.",
    )
    outliers: bool = Field(
        default=True,
        description="Leave hot, dead and saturated pixels out of training; replace hot and dead ones when denoising.",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="Arithmetic inside the networks; auto is bfloat16 where the processor computes it natively.",
    )

    graph: bool = Field(
        default=True,
        description="On a GPU, record updates of cosdd as a CUDA graph, which the host starts as one thing.",
    )

    @model_validator(mode="after")
    def _some_budget(self) -> Train:
        if self.steps is None and self.time is None:
            raise ValueError("neither steps nor time is given: the run would never end")
        return self


class Config(Section):
    """A training run from end to end."""

    preset: Preset = Field(default="tiny", description="Where the values that are not given come from.")
    method: Method = Field(
        default="auto",
        description="cosdd is the paper's model, blind-row the quick closed-form one; auto is blind-row where an image "
        "has other rows to learn from, else cosdd.",
    )
    model: Model = Model()
    blind_row: BlindRow = BlindRow()
    train: Train = Train()


# What the supplement states, to the letter (sections 3 and 2.1). Where it is silent: 128 and 64 features in the
# ladders (their memory figures fit no others); the gate's form; a residual block in each merge; a 1x1 linear map
# to the image's channels after the signal decoder; reflection at borders; a mark of the pixels that exist for the
# noise decoder. Its FFHQ sets: --set model.components=10 --set train.crop=128 --set train.batch=64
# --set train.virtual_batches=16; its STEM set: --set model.components=5.
_PAPER_MODEL: dict[str, Any] = {
    "downsampling": "alternating", "block": "supplement", "activation": "mish", "padding": "reflect",
    "decoder_input": "latent", "noise_layers": 8, "noise_features": 64, "noise_kernel": 5, "noise_dilation": 2,
    "components": 3, "signal_layers": 4, "signal_features": 128, "direct": False,
}  # fmt: skip
_PAPER_TRAIN: dict[str, Any] = {
    "steps": 80_000, "time": None, "batch": 16, "virtual_batches": 4, "crop": 256, "optimiser": "adamax", "lr": 2e-3,
    "schedule": "plateau", "patience": 50, "ema": 0.0,
}  # fmt: skip
# Each method has a training recipe of its own.
_BLIND_ROW_TRAIN = {"train": {"optimiser": "adam", "lr": 3e-3, "batch": 8, "ema": 0.99, "clip": 5.0}}
# docs/training.md: what made COSDD quick on two cores of a CPU, and what did not.
_COSDD: dict[str, Any] = {
    "model": {
        "start": "wavelets", "latents_from": 0.1, "direct_from": 0.1, "levels": 4, "latents": 4, "noise_layers": 2,
        "noise_kernel": 3, "noise_features": 16, "signal_features": 16, "direct_features": 16, "refine": True,
    },
    "train": {"lr": 4e-3, "batch": 4},
}  # fmt: skip
_TINY: dict[str, dict[str, Any]] = {"auto": _BLIND_ROW_TRAIN, "blind-row": _BLIND_ROW_TRAIN, "cosdd": _COSDD}
_PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {},
    "fast": {  # the same for a GPU: it has room for wider levels, and time for more crops in an update
        "method": "cosdd",
        "model": _COSDD["model"]
        | {
            "levels": 5, "features": 64, "max_features": 128, "latents": 8, "noise_layers": 3, "noise_features": 32,
            "signal_features": 32, "direct_features": 32,
        },
        "train": {"lr": 3e-3, "batch": 32},
    },
    "small": {
        "method": "cosdd",
        "model": _PAPER_MODEL | {"levels": 6, "features": 64, "max_features": 64, "latents": 32, "final_latents": 64},
        "train": _PAPER_TRAIN,
    },
    "large": {
        "method": "cosdd",
        "model": _PAPER_MODEL
        | {"levels": 14, "features": 128, "max_features": 128, "latents": 64, "final_latents": 128},
        "train": _PAPER_TRAIN,
    },
}  # fmt: skip


def build(preset: str = "tiny", *layers: Mapping[str, Any]) -> Config:
    """Make a configuration from a preset and layers of nested settings; later layers win.

    Raises InputError, in one line, for an unknown preset, an unknown name or a value out of range.
    """
    try:
        built = Config.model_validate(joined(preset, *layers))
    except ValidationError as error:
        raise InputError(_one_line(error)) from None
    if built.method == "cosdd":
        _refuse_contradictions(built.model)
    return built


def joined(preset: str, *layers: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a preset and layers, before anybody has looked at their values. Raises InputError."""
    for layer in layers:
        preset = layer.get("preset", preset)
    if not isinstance(preset, str) or preset not in _PRESETS:
        raise InputError(f"preset {preset!r} is unknown: choose one of {', '.join(PRESETS)}")
    method = "auto"
    for layer in (_PRESETS[preset], *layers):
        method = layer.get("method", method)
    if preset != "tiny" and method != "cosdd":
        raise InputError(f"preset {preset} is for --method cosdd: name that with it, or leave out --preset")
    by_method = {} if preset != "tiny" else _TINY.get(str(method), {})
    sections: dict[str, dict[str, Any]] = {"model": {}, "blind_row": {}, "train": {}}
    values: dict[str, Any] = {}
    for layer in (_PRESETS[preset], by_method, *layers):
        for name, settings in layer.items():
            if name not in sections:
                values[name] = settings
            elif isinstance(settings, Mapping):
                if settings.get("time") is not None and "steps" not in settings:
                    sections[name]["steps"] = None  # a budget replaces one of the other kind
                sections[name] |= settings
            elif settings is not None:  # None: an empty section of a YAML file
                raise InputError(
                    f"setting {name}={_shown(settings)}: a section, expected the names and values in it: "
                    f"{', '.join(_names((name, '')))}"
                )
    return sections | values | {"preset": preset}


# What start wavelets decides by itself, and the widest patch of the image for one pixel of the coarsest level.
_WAVELETS = {"block": "plain", "decoder_input": "features", "downsampling": "every", "padding": "zeros"}
_LARGEST_STRIDE = {1: 1024, 2: 256, 3: 128}


def _refuse_contradictions(model: Model) -> None:
    """Raise InputError where settings that are fine one by one do not go together. Old model files are not asked."""
    halvings = {"every": model.levels, "after_first": model.levels - 1, "alternating": model.levels // 2}
    stride = 2 ** halvings[model.downsampling]
    if model.start == "wavelets":
        stride = 2**model.levels
        own = {
            name: value
            for name, value in _WAVELETS.items()
            if getattr(model, name) not in (value, Model.model_fields[name].default)
        }
        if own:
            raise InputError(
                f"settings model: start wavelets goes with {', '.join(f'{n} {v}' for n, v in own.items())}: "
                f"add {' '.join(f'--set model.{n}={v}' for n, v in own.items())}, or --set model.start=empty"
            )
    if stride > (most := _LARGEST_STRIDE[model.dimensions]):
        raise InputError(
            f"settings model: {model.levels} levels halve the image to one pixel of {stride}; expected at most {most} "
            "in this many dimensions: lower --set model.levels"
        )


SECTIONS: dict[str, type[Section]] = {"model": Model, "blind_row": BlindRow, "train": Train}


def _names(location: tuple[int | str, ...]) -> list[str]:
    section: Any = SECTIONS.get(str(location[0]), Config) if len(location) > 1 else Config
    return list(section.model_fields)


def _one_line(error: ValidationError) -> str:
    first = error.errors()[0]
    location = first["loc"]
    name = ".".join(brief(str(part)) for part in location)
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(location[-1]), _names(location), 1, cutoff=0.4)
        prefix = ".".join(map(str, location[:-1]))
        advice = f"did you mean {'.'.join(filter(None, [prefix, near[0]]))}?" if near else (
            f"valid names: {', '.join(_names(location))}"
        )  # fmt: skip
        return f"setting {name} is unknown: {advice}"
    if first["type"] == "value_error" and isinstance(first["input"], Mapping):
        return f"settings {name}: {first['msg'].removeprefix('Value error, ')}"
    return f"setting {name}={_shown(first['input'])}: {brief(first['msg'].removeprefix('Value error, ').lower(), 300)}"


def _shown(value: Any) -> str:
    try:
        return brief(repr(value))
    except ValueError:  # a number with more digits than Python writes
        return "a number of many digits"
