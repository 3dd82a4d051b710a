"""Several processes train the model that one would have trained."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from tiny import MODEL, stripes
from typer.testing import CliRunner

import cosdd
from cosdd import cli, processes
from cosdd.errors import InputError


def settings(method: str) -> list[str]:
    small = {f"model.{name}": value for name, value in MODEL.items()} | {"blind_row.features": "[6,8]"}
    small |= {
        "train.steps": 6,
        "train.batch": 4,
        "train.crop": 32,
        "train.validations": 2,
        "train.precision": "float32",
    }
    given = [argument for name, value in small.items() for argument in ("--set", f"{name}={value}")]
    return ["--method", method, "--noise-axis", "x", *given]


def run(*command: object, **variables: str) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | variables
    command = (sys.executable, *map(str, command))
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("method", ["blind-row", "cosdd"])
def test_two_processes_end_with_the_weights_of_one(tmp_path, method):
    tifffile.imwrite(tmp_path / "stack.tif", stripes(12)[:, 0], metadata={"axes": "TYX"}, imagej=False)
    train = ["train", tmp_path / "stack.tif", *settings(method)]
    run("-m", "cosdd", *train, "-o", tmp_path / "one.safetensors")
    said = run("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2, "-m", "cosdd", *train,
               "-o", tmp_path / "two.safetensors")  # fmt: skip
    assert said.count("2 processes") == said.count("trained 6 steps") == 1
    assert method == "cosdd" or "unused parameters" not in said  # torch, made to look for them in vain
    one, two = (cosdd.load(tmp_path / f"{name}.safetensors").checkpoint for name in ("one", "two"))
    for name, value in one.network.state_dict().items():
        torch.testing.assert_close(two.network.state_dict()[name], value, rtol=1e-3, atol=2e-4)
    assert [entry["nll"] for entry in two.history] == pytest.approx([entry["nll"] for entry in one.history], rel=1e-4)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_several_processes_that_are_interrupted_end_together_with_a_model(tmp_path, number):
    """Ctrl-C reaches torchrun and all that it started; a scheduler's SIGTERM torchrun alone, which passes it on."""
    tifffile.imwrite(tmp_path / "stack.tif", stripes(12)[:, 0], metadata={"axes": "TYX"}, imagej=False)
    model, log = tmp_path / "m.safetensors", tmp_path / "log"
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "cosdd"]
    line += ["train", tmp_path / "stack.tif", "-o", model, *settings("blind-row"), "--set", "train.steps=1000000"]
    with log.open("w") as file:
        group = subprocess.Popen(
            [*map(str, line), "--set", "train.snapshot=0.01"], stdout=file, stderr=file, start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    try:
        began = time.perf_counter()
        while not model.with_suffix(".run.safetensors").exists():
            assert time.perf_counter() - began < 300
            assert group.poll() is None, log.read_text()
            time.sleep(0.05)
        (os.killpg if number == signal.SIGINT else os.kill)(group.pid, number)
        group.wait(60)
    finally:
        if group.poll() is None:
            os.killpg(group.pid, signal.SIGKILL)
    said = log.read_text()
    assert said.count("keeping the best model so far") == 1
    assert said.count("model: ") == 1
    assert "src/cosdd" not in said  # torchrun shows a traceback of its own
    assert cosdd.load(model).checkpoint.steps > 0
    assert not list(tmp_path.glob(".*"))


UNEQUAL = """
import os
from itertools import count
from types import SimpleNamespace

from cosdd import processes, training
from tiny import frames, settings

clock, validate = count(), training.validate


def slowly(run):
    for _ in range(5 * processes.rank()):
        next(clock)
    return validate(run)


training.time, training.validate = SimpleNamespace(perf_counter=lambda: float(next(clock))), slowly
run = training.start(settings({"steps": None, "time": 20.0, "validations": 4}), frames())
end = len(list(training.fit(run)))
os.write(1, f"ended after {end}\\n".encode())  # at once: the other process writes to the same place
"""


def test_where_validation_takes_unequally_long_several_processes_end_after_the_same_update(tmp_path):
    (tmp_path / "unequal.py").write_text(UNEQUAL)
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    group = subprocess.Popen(
        [*line, str(tmp_path / "unequal.py")], stdout=subprocess.PIPE, text=True, start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path},
    )  # fmt: skip
    try:
        said = group.communicate(timeout=200)[0]
    finally:
        group.terminate()  # torchrun ends what it has started
        group.wait(60)
    assert group.returncode == 0
    ends = re.findall(r"ended after (\d+)", said)
    assert len(ends) == 2
    assert len(set(ends)) == 1


def test_the_scripts_for_a_cluster_are_shell_and_name_options_that_exist():
    page = (Path(__file__).parents[1] / "docs" / "cluster.md").read_text(encoding="utf-8")
    scripts = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    assert len(scripts) == 5
    for script in scripts:
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    known = {verb: run("-m", "cosdd", verb, "--help", COLUMNS="200") for verb in ("train", "denoise")}
    for verb, arguments in re.findall(r"cosdd (train|denoise) (.*)", "".join(scripts)):
        for option in re.findall(r"--[a-z]+", arguments):
            assert option in known[verb], f"{verb} {option}"


def test_a_batch_is_shared_out(monkeypatch):
    batch = np.arange(12).reshape(6, 2)
    np.testing.assert_array_equal(processes.part(batch), batch)
    monkeypatch.setenv("WORLD_SIZE", "3")
    parts = []
    for rank in "012":
        monkeypatch.setenv("RANK", rank)
        parts.append(processes.part(batch))
    np.testing.assert_array_equal(np.concatenate(parts), batch)
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(InputError, match=r"train.batch is 6, which 4 processes cannot share evenly.*train.batch=8"):
        processes.part(batch)


def test_latent_noise_is_that_of_the_whole_batch(monkeypatch):
    torch.manual_seed(5)
    whole = processes.part_of_noise()(0, torch.Size([4, 2, 3, 3]), torch.device("cpu"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    parts = []
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        torch.manual_seed(5)
        parts.append(processes.part_of_noise()(0, torch.Size([2, 2, 3, 3]), torch.device("cpu")))
    torch.testing.assert_close(torch.cat(parts), whole)


def test_processes_are_counted_as_torchrun_and_slurm_state_them(monkeypatch):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_WORLD_SIZE", "SLURM_STEP_ID"):
        monkeypatch.delenv(name, raising=False)
    assert (processes.count(), processes.rank(), processes.local_count()) == (1, 0, 1)
    for name, value in {"SLURM_NTASKS": "8", "SLURM_PROCID": "5", "SLURM_NTASKS_PER_NODE": "4"}.items():
        monkeypatch.setenv(name, value)
    assert processes.count() == 1  # a shell in an allocation is one process
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    assert (processes.count(), processes.rank(), processes.local_count()) == (8, 5, 4)
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE")  # which is there only where it was asked for
    monkeypatch.setenv("SLURM_STEP_NUM_NODES", "4")
    assert processes.local_count() == 2
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert (processes.count(), processes.rank(), processes.local_count()) == (2, 1, 2)


def test_after_the_end_no_process_waits_for_the_others(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    np.save(tmp_path / "a.npy", np.zeros((16, 16), np.float32))
    model = tmp_path / "m.safetensors"
    model.touch()
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        done = CliRunner().invoke(cli.app, ["train", str(tmp_path / "a.npy"), "-o", str(model), "--resume"])
        assert done.exit_code == 0, done.output
