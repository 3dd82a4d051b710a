"""Every setting once, the presets to the letter, and one line for whatever is wrong."""

import json

import pytest

from cosdd import config, overrides
from cosdd.errors import InputError


def refused(*layers, preset="tiny") -> str:
    with pytest.raises(InputError) as caught:
        config.build(preset, *layers)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


COSDD = {"method": "cosdd"}

# ----------------------------------------------------------------------------------------------- presets

PAPER_LADDER = {
    "large": {"levels": 14, "latents": 64, "final_latents": 128},
    "small": {"levels": 6, "latents": 32, "final_latents": 64},
}


@pytest.mark.parametrize("preset", ["small", "large"])
def test_paper_presets_state_what_the_supplement_states(preset):
    """Supplement section 3, sentence by sentence."""
    built = config.build(preset)
    stated = PAPER_LADDER[preset] | {
        "block": "supplement",
        "activation": "mish",
        "downsampling": "alternating",
        "decoder_input": "latent",
        "noise_layers": 8,
        "noise_kernel": 5,
        "noise_dilation": 2,
        "noise_features": 64,
        "components": 3,
        "signal_layers": 4,
        "signal_features": 128,
        "direct": False,
    }
    assert {name: getattr(built.model, name) for name in stated} == stated
    assert built.method == "cosdd"
    assert built.preset == preset


@pytest.mark.parametrize("preset", ["small", "large"])
def test_paper_presets_train_as_the_supplement_says(preset):
    """Supplement section 2.1: batch 16 as 4 virtual batches means 4 crops at a time."""
    train = config.build(preset).train
    assert (train.optimiser, train.lr, train.clip) == ("adamax", 0.002, None)
    assert (train.schedule, train.patience) == ("plateau", 50)
    assert (train.crop, train.batch, train.virtual_batches) == (256, 16, 4)
    assert (train.steps, train.time, train.ema) == (80_000, None, 0.0)


def test_tiny_is_the_default_and_has_a_budget():
    built = config.build()
    assert built.preset == "tiny"
    assert built.train.steps is None
    assert built.train.time == 600


def test_unknown_preset_names_the_valid_ones():
    assert all(name in refused(preset="huge") for name in config.PRESETS)


# ------------------------------------------------------------------------------------------------ layers


def test_later_layers_win_setting_by_setting():
    built = config.build("tiny", {"model": {"levels": 3, "features": 4}}, {"model": {"levels": 6}})
    assert (built.model.levels, built.model.features) == (6, 4)


def test_a_layer_may_choose_the_preset_and_still_change_it():
    built = config.build("tiny", {"preset": "small", "model": {"levels": 4}})
    assert (built.preset, built.model.levels, built.model.noise_features) == ("small", 4, 64)


def test_a_time_replaces_the_steps_of_the_preset():
    """cosdd train --preset small --time 10m stops after ten minutes."""
    train = config.build("small", {"train": {"time": "10m"}}).train
    assert (train.steps, train.time) == (None, 600)


def test_steps_given_later_replace_a_time_given_earlier():
    """cosdd demo (--time 3m) --set train.steps=20 makes twenty updates."""
    assert config.build("tiny", {"train": {"time": "3m"}}, {"train": {"steps": 20}}).train.steps == 20


def test_a_time_given_later_replaces_steps_given_earlier():
    train = config.build("tiny", {"train": {"steps": 20}}, {"train": {"time": "3m"}}).train
    assert (train.steps, train.time) == (None, 180)


def test_a_run_without_any_budget_is_refused():
    assert "steps" in refused({"train": {"steps": None, "time": None}})


def test_layers_are_left_as_they_were():
    layer = {"model": {"levels": 3}}
    config.build("small", layer, {"model": {"levels": 4}})
    assert layer == {"model": {"levels": 3}}
    assert config.build("small").model.levels == 6


def test_settings_that_were_written_out_can_be_given_again():
    built = config.build("tiny", COSDD)
    assert config.build("tiny", built.model_dump()) == built


def test_a_built_configuration_never_changes():
    with pytest.raises(ValueError, match="frozen"):
        config.build().train.lr = 1.0  # type: ignore[misc]


# --------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ({"model": {"level": 3}}, "did you mean model.levels?"),
        ({"train": {"epochs_without_gain": 3}}, "valid names: steps, time"),
        ({"modle": {"levels": 3}}, "did you mean model?"),
        ({"train": {"lr": -1}}, "train.lr=-1"),
        ({"train": {"lr": float("nan")}}, "train.lr"),
        ({"train": {"lr": "fast"}}, "train.lr='fast'"),
        ({"train": {"time": "10 parsecs"}}, "90s, 10m or 1.5h"),
        ({"train": {"time": 0}}, "train.time=0"),
        ({"train": {"steps": 1.5}}, "train.steps=1.5"),
        ({"train": {"seed": -1}}, "train.seed=-1"),
        ({"train": {"validations": 1001}}, "train.validations=1001: input should be less than or equal to 1000"),
        ({"model": {"levels": 10**12}}, "model.levels"),
        ({"model": {"noise_axis": "diagonal"}}, "'x', 'y', 'z' or 'none'"),
        ({"model": {"noise_axis": "z", "dimensions": 2}}, "noise_axis"),
        ({"model": {"noise_axis": "y", "dimensions": 1}}, "noise_axis"),
        ({"model": 3}, "model=3"),
        ({"preset": ["small"]}, "preset"),
        ({"preset": None}, "preset"),
        ({"method": ["cosdd"]}, "method"),
        (COSDD | {"model": {"padding": "reflect"}}, "add --set model.padding=zeros, or --set model.start=empty"),
        (COSDD | {"model": {"downsampling": "alternating"}}, "goes with downsampling every"),
        (COSDD | {"model": {"levels": 9}}, "9 levels halve the image to one pixel of 512; expected at most 256"),
        (COSDD | {"model": {"levels": 12, "start": "empty"}}, "one pixel of 2048"),
        ({"preset": "large", "model": {"start": "wavelets"}}, "block plain, decoder_input features, downsampling"),
        ({"preset": "large", "model": {"downsampling": "every"}}, "one pixel of 16384"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(layer, said):
    assert said in refused(layer)


# ------------------------------------------------------------------------------------ --set and YAML files


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400), ("2d", 172_800), (" 2 m ", 120), (7.5, 7.5)],
)
def test_durations(text, expected):
    assert config.build("tiny", {"train": {"time": text}}).train.time == expected


def test_assignments_reach_every_section_with_their_types():
    given = ["train.lr=1e-3", "train.time=10m", "model.noise_axis=none", "model.direct=false", "train.clip=null"]
    built = config.build("tiny", overrides.from_assignments(given))
    assert (built.train.lr, built.train.time, built.train.clip) == (0.001, 600, None)
    assert (built.model.noise_axis, built.model.direct) == ("none", False)


@pytest.mark.parametrize("axis", ["x", "y", "z", "none"])
def test_yaml_does_not_turn_an_axis_into_a_truth_value(axis):
    assert overrides.from_assignments([f"model.noise_axis={axis}"]) == {"model": {"noise_axis": axis}}


@pytest.mark.parametrize(
    "assignment", ["lr=1", "train.lr", "train.=1", "=", "", "train.lr={", "train.lr={[1]: 2}", "train.lr=2024-13-45"]
)
def test_a_malformed_assignment_is_shown_back(assignment):
    with pytest.raises(InputError, match="--set") as caught:
        overrides.from_assignments([assignment])
    assert f"--set {assignment}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_yaml_file_gives_settings(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("preset: small\nmodel:\n  levels: 4\ntrain:\n  time: 5m\n")
    built = config.build("tiny", overrides.from_file(path))
    assert (built.preset, built.model.levels, built.train.time, built.train.steps) == ("small", 4, 300, None)


def test_an_empty_yaml_file_changes_nothing(tmp_path):
    (tmp_path / "c.yaml").write_text("# nothing\n")
    assert config.build("tiny", overrides.from_file(tmp_path / "c.yaml")) == config.build()


@pytest.mark.parametrize(
    "content",
    [b"- 1\n- 2\n", b"model: [", b"\xff\xfe\x00", b"train: {lr: 2024-13-45}", b"just words"],
    ids=["list", "unfinished", "not text", "impossible date", "words"],
)
def test_a_file_that_is_no_configuration_is_named(tmp_path, content):
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"c\.yaml") as caught:
        overrides.from_file(path)
    assert "\n" not in str(caught.value)


def test_an_empty_section_changes_nothing(tmp_path):
    """Everything in it commented out, as people do."""
    (tmp_path / "c.yaml").write_text("model:\ntrain:\n  # lr: 0.1\n")
    built = config.build("tiny", overrides.from_file(tmp_path / "c.yaml"), {"train": {"time": "5m"}})
    assert built == config.build("tiny", {"train": {"time": "5m"}})


@pytest.mark.parametrize("given", ["10m", 5, [1], True])
def test_a_value_where_a_section_belongs(given):
    message = refused({"train": given}, {"train": {"time": "5m"}})
    assert "setting train=" in message
    assert "time" in message


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.yaml"):
        overrides.from_file(tmp_path / "none.yaml")


# --------------------------------------------------------------------------------------- made from here


def test_every_setting_says_what_it_is():
    """Help, docs and forms are made from these sentences."""
    sections = {name: field.annotation for name, field in config.Config.model_fields.items()}
    fields = {"": config.Config.model_fields} | {
        name: section.model_fields for name, section in sections.items() if hasattr(section, "model_fields")
    }
    mute = [
        f"{section}.{name}"
        for section, entries in fields.items()
        for name, field in entries.items()
        if not field.description and name not in fields
    ]
    assert not mute
    assert {"model", "train"} <= set(fields)


@pytest.mark.parametrize("preset", config.PRESETS)
def test_a_configuration_survives_the_model_file(preset):
    built = config.build(preset)
    assert config.Config.model_validate(json.loads(json.dumps(built.model_dump()))) == built


def test_a_setting_without_its_section_is_told_where_it_belongs():
    with pytest.raises(InputError, match=r"expected section.field=value, did you mean train.outliers\?"):
        overrides.from_assignments(["outliers=false"])
    with pytest.raises(InputError, match="for example --set"):
        overrides.from_assignments(["nonsense=1"])
