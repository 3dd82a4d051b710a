"""Denoising beside the authors' code: both are measured in one way, and what does not fit is told."""

import json
import shutil
import sys
import time
from argparse import Namespace
from pathlib import Path
from unittest import mock
from xml.etree import ElementTree

import pytest
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import inference, record  # noqa: E402

SMALL = {"levels": 2, "features": 4, "max_features": 4, "latents": 2, "final_latents": 4, "noise_layers": 2,
         "signal_features": 4, "direct_features": 4}  # fmt: skip
# Of one convolution each, by the names and arguments of the authors' code. The ladder needs a gigabyte from 96 pixels.
STRANGERS = {
    "lvae": """
class LadderVAE(torch.nn.Conv2d):
    def __init__(self, img_size, **given):
        super().__init__(1, 4, 3, padding=1)
    def forward(self, x):
        return {"s_code": super().forward(x) + torch.ones(x.shape[-1] // 96 * 2**28).mean()}
""",
    "s_decoder": """
class SDecoder(torch.nn.Conv2d):
    def __init__(self, **given):
        super().__init__(4, 1, 3, padding=1)
""",
    "unet": """
class UNet(torch.nn.Conv2d):
    def __init__(self, **given):
        super().__init__(1, 1, 3, padding=1)
""",
}


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder like a checkout of the authors' code; nothing that is written or imported from it stays."""
    (tmp_path / "models").mkdir()
    for name, text in STRANGERS.items():
        (tmp_path / "models" / f"{name}.py").write_text("import torch\n" + text)
    shutil.copy(record.RESULTS / "estimators.json", tmp_path)
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(inference, "PICTURE", tmp_path / "inference.svg")
    monkeypatch.setattr(inference, "NETWORK", inference.NETWORK | SMALL)
    monkeypatch.setattr(inference, "EDGE", 32)
    monkeypatch.setattr(inference, "PATCH", 64)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with mock.patch.dict(sys.modules):
        yield tmp_path


def go(checkout: Path, monkeypatch, *options: str) -> dict:
    monkeypatch.setattr(sys, "argv", ["inference", str(checkout), "--pairs", "1", "--limit", "0.1", *options])
    threads = torch.get_num_threads()
    inference.main()
    torch.set_num_threads(threads)
    return json.loads((checkout / "inference.json").read_text())


def here(asked: Namespace, who: str, edge: int, samples: int, limit: float = 0) -> dict:
    """In this process, where a limit would stay: what needs a gigabyte has too much."""
    if limit and who == "theirs" and edge >= 96:
        return {"edge": edge, "samples": samples, "out_of_memory": True}
    return inference.do(asked.checkout, who, edge, samples, asked.precision, 0)


@pytest.mark.parametrize("edge", [80, 128])
def test_one_command_measures_and_draws_and_the_page_tells_it(edge, checkout, monkeypatch):
    monkeypatch.setattr(inference, "apart", here)
    entry = go(checkout, monkeypatch, "--edge", str(edge))
    speed, memory, large = (entry["results"][part] for part in inference.PARTS)
    assert speed["mmse_100_seconds"]["theirs"]["median"] > 0
    assert {*memory} == {"theirs", "ours", "their direct", "our direct"}
    assert all(run["memory_gb"] >= run["before_gb"] > 0 for run in memory.values())
    told = inference.lines(entry)
    assert f"![Seconds and memory of both codes](images/{inference.PICTURE.name})" in told
    table = [line for line in told if line.startswith("|")]
    assert {line.count("|") for line in table} == {5}
    assert len(table) == 2 + 9
    picture = ElementTree.parse(inference.PICTURE).getroot()
    assert len(picture.findall(".//{*}rect")) == 1 + 2 + 2 * 9  # paper, legend, and a pair for each row
    whole = edge == 80
    assert large["theirs"]["patches"] == (1 if whole else 4)
    assert ("whole" not in large) == whole
    assert large["theirs"]["seconds_of_the_image"] == pytest.approx(
        large["theirs"]["seconds"] * 100 * large["theirs"]["patches"], abs=0.01
    )
    assert any("over 0.1 GB" in line for line in table) != whole
    assert any("`patch-size`" in line for line in told) != whole


def test_parts_are_measured_again_alone(checkout, monkeypatch):
    monkeypatch.setattr(inference, "apart", here)
    first = go(checkout, monkeypatch, "--edge", "128", "--parts", "memory", "large", "--codes", "theirs")
    second = go(checkout, monkeypatch, "--edge", "128", "--parts", "large", "--codes", "ours")
    assert second["results"]["memory"] == first["results"]["memory"]
    assert second["results"]["large"]["theirs"] == first["results"]["large"]["theirs"]
    assert {"ours", "our direct"} == {*second["results"]["large"]} - {*first["results"]["large"]}


def test_a_process_that_needs_more_than_the_limit_says_so(checkout):
    asked = Namespace(checkout=checkout, precision="float32")
    assert inference.apart(asked, "theirs", 96, 1, 0.6) == {"edge": 96, "samples": 1, "out_of_memory": True}


def test_what_theirs_keeps_is_a_hundred_samples(checkout):
    with mock.patch.object(torch, "stack", side_effect=torch.stack) as stack:
        inference.do(checkout, "theirs kept", 32, 3, "float32", 0)
    ((kept,), _), = stack.call_args_list  # fmt: skip
    assert len(kept) == 100
    assert len({sample.data_ptr() for sample in kept}) == 100


def test_a_gpu_is_waited_for_and_timed_by_the_clock(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waited.append(time.sleep(0.05)))
    assert inference.seconds(lambda: None) >= 0.05  # no processor time
    assert len(waited) == 2
