"""The model file: what was saved is what is loaded, and a stranger's file can do no harm."""

import dataclasses
import json
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import tiny
import torch
from safetensors import safe_open

import cosdd
from cosdd import checkpoint as files
from cosdd import config, tensorfile, writing
from cosdd.data import Statistics
from cosdd.denoise import Denoiser
from cosdd.errors import InputError
from cosdd.model import Passes, build


def all_of(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    with safe_open(path, framework="pt") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def read(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """As of format 3, without a checksum of the header: what is changed in it is to be found by other checks."""
    said, tensors = all_of(path)
    del said[tensorfile.OF_HEADER]
    return said | {"format_version": "3"}, tensors


@pytest.fixture
def model(tmp_path) -> Path:
    path = tmp_path / "model.safetensors"
    files.save(tiny.checkpoint(1000.0, 20.0), path)
    return path


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        files.load(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 500
    return message


# ---------------------------------------------------------------------------------------- there and back


@pytest.mark.filterwarnings("ignore:these images are not like")
@pytest.mark.parametrize("block", ["plain", "supplement"])
def test_a_loaded_model_denoises_to_the_last_bit_the_same(tmp_path, block):
    saved = dataclasses.replace(tiny.checkpoint(1000.0, 20.0, block=block), spread=(1.25,), passes=Passes(1, 3))
    noisy = tiny.stripes(2)[:, 0]
    before = Denoiser(saved).denoise(noisy, samples=3, save_samples=2)
    Denoiser(saved).save(tmp_path / "m.safetensors")
    again = Denoiser.load(tmp_path / "m.safetensors").denoise(noisy, samples=3, save_samples=2)
    np.testing.assert_array_equal(again.mean, before.mean)
    np.testing.assert_array_equal(again.std, before.std)
    np.testing.assert_array_equal(again.samples, before.samples)
    direct = Denoiser(saved).denoise(noisy, direct=True).mean
    np.testing.assert_array_equal(cosdd.load(tmp_path / "m.safetensors").denoise(noisy, direct=True).mean, direct)


def test_everything_else_comes_back_too(tmp_path):
    saved = tiny.checkpoint(1 / 3, 2 / 3, channels=2, noise_axis="y")
    saved.network.noise.set_smallest_sigma(0.125)
    files.save(saved, tmp_path / "m.safetensors")
    loaded = files.load(tmp_path / "m.safetensors")
    assert loaded.settings == saved.settings
    assert loaded.statistics == saved.statistics
    assert [dict(entry) for entry in loaded.history] == [dict(entry) for entry in saved.history]
    assert (loaded.steps, loaded.seconds, loaded.version) == (saved.steps, saved.seconds, cosdd.__version__)
    assert not loaded.network.training
    assert float(loaded.network.noise.smallest_sigma) == 0.125
    for name, value in saved.network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], value)


def test_a_model_file_can_be_replaced_while_it_is_in_use(model):
    """The weights are the model's own, not a window onto the file."""
    loaded = files.load(model)
    before = {name: value.clone() for name, value in loaded.network.state_dict().items()}
    files.save(tiny.checkpoint(), model, overwrite=True)
    for name, value in loaded.network.state_dict().items():
        assert torch.equal(value, before[name])


# --------------------------------------------------------------------------------------------- writing


def test_what_exists_is_not_replaced_unasked(model):
    content = model.read_bytes()
    with pytest.raises(InputError, match=r"model\.safetensors: exists already.*--overwrite"):
        files.save(tiny.checkpoint(), model)
    assert model.read_bytes() == content
    files.save(tiny.checkpoint(), model, overwrite=True)
    assert model.read_bytes() != content


def test_a_file_appears_whole_or_not_at_all(model, monkeypatch):
    content = model.read_bytes()

    def full_disk(*names):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing.os, "replace", full_disk)
    for path in (model, model.with_name("new.safetensors")):
        with pytest.raises((OSError, InputError)):
            files.save(tiny.checkpoint(), path, overwrite=True)
    assert [entry.name for entry in model.parent.iterdir()] == ["model.safetensors"]
    assert model.read_bytes() == content


def test_another_ending_is_refused_with_a_better_name(tmp_path):
    for wrong, better in (("m.pt", "m.safetensors"), ("m", "m.safetensors"), (".", "model.safetensors")):
        with pytest.raises(InputError, match=f"name it {re.escape(str(tmp_path / better))}"):
            files.save(tiny.checkpoint(), tmp_path / wrong)
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_beside_the_file_and_folders_are_made(tmp_path):
    path = tmp_path / "new" / "folder" / "m.safetensors"
    files.save(tiny.checkpoint(), path)
    assert [entry.name for entry in path.parent.iterdir()] == ["m.safetensors"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match="file"):
        files.save(tiny.checkpoint(), tmp_path / "file" / "m.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(InputError, match="folder"):
        files.save(tiny.checkpoint(), tmp_path / "folder.safetensors", overwrite=True)
    assert not list(tmp_path.rglob("*.part"))


# ------------------------------------------------------------------------------- files that are no models


def test_a_missing_file_comes_with_the_command_that_makes_one(tmp_path):
    assert "cosdd train" in refused(tmp_path / "none.safetensors")
    assert "model" in refused(tmp_path)


def test_a_truncated_file(model):
    content = model.read_bytes()
    for length in (0, 1, 7, 8, 9, 100, len(content) // 2, len(content) - 1):
        model.write_bytes(content[:length])
        refused(model)


def test_a_damaged_header(model):
    content = model.read_bytes()
    for place in range(8, 600, 13):
        model.write_bytes(content[:place] + b"\x00" + content[place + 1 :])
        refused(model)


@pytest.mark.parametrize(
    ("then", "now"),
    [
        (rb'\\"std\\": \[20.0\]', rb"\"std\": [21.0]"),
        (rb'\\"steps\\": 4', rb"\"steps\": 5"),
        (rb'"crc32":"\w{8}"', rb'"crc32":"00000000"'),
        (rb'"crc32_of_header":"\w{8}"', rb'"crc32_of_header":"00000000"'),
    ],
    ids=["std", "steps", "checksum of the tensors", "checksum of the header"],
)
def test_a_flipped_digit_in_the_header_is_noticed(model, then, now):
    content = model.read_bytes()
    changed = re.sub(then, lambda _: now, content, count=1)
    assert len(changed) == len(content)
    assert changed != content
    model.write_bytes(changed)
    assert "its header is not the one that was written: copy it again" in refused(model)


@pytest.mark.parametrize(
    ("name", "told"),
    [(tensorfile.OF_TENSORS, "not the one that was written"), (tensorfile.OF_HEADER, "checksums are missing")],
)
def test_a_checksum_cannot_be_renamed_away(model, name, told):
    content = model.read_bytes()
    renamed = content.replace(f'"{name}":"'.encode(), f'"{name[:-1]}3":"'.encode(), 1)
    assert len(renamed) == len(content)
    assert renamed != content
    model.write_bytes(renamed)
    assert told in refused(model)


def test_a_file_of_this_format_has_both_checksums(model):
    metadata, tensors = all_of(model)
    said = {name: text for name, text in metadata.items() if name not in tensorfile.CHECKSUMS}
    safetensors.torch.save_file(tensors, model, said)
    assert "its checksums are missing: copy it again" in refused(model)


def test_a_library_may_write_a_model_again(model):
    metadata, tensors = all_of(model)
    before = files.load(model)
    safetensors.torch.save_file(tensors, model, metadata)
    assert files.load(model).settings == before.settings


def test_files_of_before_there_were_checksums_are_read(model):
    metadata, tensors = read(model)
    safetensors.torch.save_file(tensors, model, {name: text for name, text in metadata.items() if name != "crc32"})
    files.load(model)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        np.random.default_rng(0).bytes(5000),
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 10**9) + b"{}",
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 4) + b"null",
    ],
    ids=["empty", "text", "random", "endless header", "long header", "no tensors", "null"],
)
def test_bytes_that_are_no_model(tmp_path, content):
    (tmp_path / "m.safetensors").write_bytes(content)
    refused(tmp_path / "m.safetensors")


def test_a_pickle_is_not_opened(tmp_path):
    class Harm:
        def __reduce__(self):
            return Path.touch, (tmp_path / "harm",)

    torch.save(Harm(), tmp_path / "m.safetensors")
    refused(tmp_path / "m.safetensors")
    assert not (tmp_path / "harm").exists()


def test_somebody_elses_safetensors(tmp_path):
    safetensors.torch.save_file({"a": torch.zeros(3)}, tmp_path / "m.safetensors")
    assert "not a cosdd model" in refused(tmp_path / "m.safetensors")


def test_models_from_before_brightness_was_measured_are_read(tmp_path):
    settings = config.build("tiny", {"method": "blind-row", "blind_row": {"features": [4]}})
    network = build(settings).eval()
    path, x = tmp_path / "m.safetensors", torch.randn(1, 1, 16, 16)
    files.save(files.Checkpoint(settings, Statistics((0.0,), (1.0,), 0.0), network, (), 1, 1.0), path)
    metadata, tensors = all_of(path)
    del tensors["brightness"]
    for version in range(files.OLDEST + 1, files.FORMAT_VERSION + 1):
        tensorfile.write(path, tensors, metadata | {"format_version": str(version)})
        if version < 6:
            torch.testing.assert_close(files.load(path).network.estimate(x), network.estimate(x))
        else:
            assert "do not fit its settings" in refused(path)


# ------------------------------------------------------------------------------ models that are not right


@pytest.mark.parametrize("found", [str(files.FORMAT_VERSION + 1), "99", "", "one", "-1", "1.5"])
def test_a_newer_format_asks_for_an_update(model, found):
    metadata, tensors = read(model)
    safetensors.torch.save_file(tensors, model, metadata | {"format_version": found})
    assert "update cosdd" in refused(model)


@pytest.mark.parametrize("found", ["9" * 5000, "3" + "\n{}" * 1000])
def test_a_format_that_is_no_number_of_ours_is_told_briefly(model, found):
    metadata, tensors = read(model)
    safetensors.torch.save_file(tensors, model, metadata | {"format_version": found})
    said = refused(model)
    assert "update cosdd" in said
    assert len(said) < len(str(model)) + 150


def test_an_older_format_asks_for_a_new_training(model):
    metadata, tensors = read(model)
    safetensors.torch.save_file(tensors, model, metadata | {"format_version": "1"})
    assert "train it again" in refused(model)


def test_a_small_file_cannot_ask_for_padding_without_bound(tmp_path):
    """A few kilobytes of networks that halve an image many times would pad it to any size."""
    deep = tiny.settings(latents=1, final_latents=1, features=1, max_features=1)
    deep = deep.model_copy(update={"model": deep.model.model_copy(update={"levels": 13})})
    path = tmp_path / "deep.safetensors"
    files.save(dataclasses.replace(tiny.checkpoint(), settings=deep, network=build(deep)), path)
    with pytest.raises(InputError, match="one pixel of 4096"):
        files.load(path)


def test_tensors_must_be_those_that_the_settings_ask_for(model):
    metadata, tensors = read(model)
    name = "noise.head.weight"
    value = tensors[name]
    for changed in (
        {key: tensor for key, tensor in tensors.items() if key != name},
        tensors | {"another": torch.zeros(2)},
        tensors | {name: value[:-1].clone()},
        tensors | {name: value.flatten()},
        tensors | {name: value.double()},
        tensors | {name: value.half()},
    ):
        safetensors.torch.save_file(changed, model, metadata)
        assert "tensor" in refused(model)


MODEL, STATISTICS = ("settings", "model"), ("statistics",)
NONSENSE = {
    "empty": ((), None),
    "no statistics": ((), {"statistics": None}),
    "settings a list": ((), {"settings": []}),
    "settings are huge": ((), {"settings": {"model": {"levels": 10**30}}}),
    "preset": (("settings",), {"preset": "/etc/passwd"}),
    "features": (MODEL, {"features": 10**9}),
    "levels": (MODEL, {"levels": -1}),
    "largest network": (MODEL, {"levels": 20, "features": 512, "max_features": 1024}),
    "levels are text": (MODEL, {"levels": "import os"}),
    "unknown": (MODEL, {"backdoor": True}),
    "channels": (MODEL, {"channels": 2}),
    "noise axis": (MODEL, {"noise_axis": "z"}),
    "dimensions": (MODEL, {"dimensions": 1, "noise_axis": "y"}),
    "no mean": (STATISTICS, {"mean": []}),
    "mean is text": (STATISTICS, {"mean": ["a"]}),
    "mean is NaN": (STATISTICS, {"mean": [float("nan")]}),
    "mean is infinite": (STATISTICS, {"mean": [float("inf")]}),
    "std is zero": (STATISTICS, {"std": [0.0]}),
    "std is NaN": (STATISTICS, {"std": [float("nan")]}),
    "std is infinite": (STATISTICS, {"std": [float("inf")]}),
    "grey step is NaN": (STATISTICS, {"grey_step": float("nan")}),
    "steps are infinite": ((), {"steps": float("inf")}),
    "steps are text": ((), {"steps": "many"}),
    "history is a number": ((), {"history": 5}),
    "history of lists": ((), {"history": [[1]]}),
    "history of nothing": ((), {"history": [{"elbo": None}]}),
    "spread of two channels": ((), {"spread": [1.0, 1.0]}),
    "spread is zero": ((), {"spread": [0.0]}),
    "passes of one kind": ((), {"passes": [2]}),
    "passes without end": ((), {"passes": [2, 10**9]}),
    "passes are negative": ((), {"passes": [-1, 2]}),
    "passes are no whole number": ((), {"passes": [1.5, 2]}),
    "passes are a truth": ((), {"passes": [True, 2]}),
}


@pytest.mark.parametrize(("place", "values"), NONSENSE.values(), ids=NONSENSE)
def test_a_header_that_makes_no_sense_is_refused_in_one_line(model, place, values):
    metadata, tensors = read(model)
    header = json.loads(metadata["cosdd"])
    section = header
    for name in place:
        section = section[name]
    if values is None:
        section.clear()
    else:
        section.update(values)
    safetensors.torch.save_file(tensors, model, metadata | {"cosdd": json.dumps(header)})
    refused(model)


@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "[]", "1" * 6000, "[" * 100_000, '"\\ud800"'],
    ids=["nothing", "unfinished", "null", "list", "long number", "deep list", "half a character"],
)
def test_a_header_that_is_no_json_object(model, text):
    metadata, tensors = read(model)
    safetensors.torch.save_file(tensors, model, metadata | {"cosdd": text})
    refused(model)


# ---------------------------------------------------------------------------------------------- no pickle


def test_nothing_in_the_package_unpickles():
    """Loading a stranger's model, or image, never runs code."""
    dangerous = r"^\s*(import|from) (pickle|dill|joblib|shelve|marshal)\b|torch\.(load|save)\(|allow_pickle\s*=\s*True"
    found = [
        f"{path.name}: {line}"
        for path in Path(files.__file__).parent.rglob("*.py")
        for line in path.read_text().splitlines()
        if re.search(dangerous, line)
    ]
    assert not found
