"""A training run that is killed goes on as if nothing had happened."""

import contextlib
import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
import tifffile
import tiny
import torch

from cosdd import config, overrides, snapshot, tensorfile, training
from cosdd.checkpoint import load
from cosdd.errors import InputError
from cosdd.progress import NowAndThen

SMALL = ("model.features=4", "model.max_features=4", "model.levels=2", "model.latents=2", "model.final_latents=2")
SMALL += ("model.noise_features=4", "model.signal_features=4", "model.direct_features=4", "blind_row.features=[4]")
SMALL += ("train.batch=2", "train.crop=16", "train.snapshot=0.01", "train.validations=9")
STEPS = 150


def command(folder, method, *more):
    line = [sys.executable, "-m", "cosdd", "train", "noisy.tif", "-o", "model.safetensors", "--noise-axis", "x"]
    line += ["--method", method, "--set", f"train.steps={STEPS}"]
    return line + [part for setting in SMALL for part in ("--set", setting)] + list(more)


def run(folder, method, *more):
    return subprocess.run(command(folder, method, *more), cwd=folder, capture_output=True, text=True)


@pytest.fixture
def folder(tmp_path):
    noisy = np.random.default_rng(0).normal(100, 10, (12, 32, 32)).astype(np.float32)
    tifffile.imwrite(tmp_path / "noisy.tif", noisy, metadata={"axes": "TYX"})
    return tmp_path


def killed(folder, method, seconds, *more):
    """Kill a run some time after its first snapshot. False where it was quicker than that."""
    process = subprocess.Popen(
        command(folder, method, *more), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    began = time.perf_counter()
    while not (folder / "model.run.safetensors").exists() and process.poll() is None:
        assert time.perf_counter() - began < 120
        time.sleep(0.005)
    time.sleep(seconds)
    os.kill(process.pid, signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("method", ["blind-row", "cosdd"])
def test_a_killed_run_ends_with_the_same_weights(folder, method):
    assert run(folder, method).returncode == 0
    whole = load(folder / "model.safetensors")
    for file in folder.glob("model.*"):
        file.unlink()
    seconds = random.Random(method)
    assert killed(folder, method, seconds.uniform(0, 0.5))
    assert killed(folder, method, seconds.uniform(2.0, 3.0), "--resume") or True  # a run may also have ended
    done = run(folder, method, "--resume")
    assert done.returncode == 0, done.stderr
    again = load(folder / "model.safetensors")
    assert again.steps == STEPS
    theirs = again.network.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in whole.network.state_dict().items())
    timeless = [[{k: v for k, v in entry.items() if k != "seconds"} for entry in c.history] for c in (whole, again)]
    assert timeless[0] == timeless[1]
    with (folder / "model.history.csv").open() as file:
        assert len(list(csv.reader(file))) == 1 + len(whole.history)
    assert not (folder / "model.run.safetensors").exists()
    assert not list(folder.glob(".*"))


def test_what_an_interrupted_run_left_is_not_lost_by_mistake(folder):
    assert killed(folder, "blind-row", 0.0)
    refused = run(folder, "blind-row")
    assert refused.returncode == 2
    assert "--resume" in refused.stderr
    other = run(folder, "blind-row", "--resume", "--set", "train.lr=0.01")
    assert other.returncode == 2
    assert "train.lr = 0.003" in other.stderr
    assert "Traceback" not in other.stderr
    tifffile.imwrite(folder / "noisy.tif", np.random.default_rng(1).normal(90, 9, (12, 32, 32)).astype(np.float32))
    other = run(folder, "blind-row", "--resume")
    assert other.returncode == 2
    assert "other images" in other.stderr
    assert run(folder, "blind-row", "--overwrite").returncode == 0
    again = run(folder, "blind-row", "--resume")  # a job that is sent twice
    assert again.returncode == 0
    assert "already" in again.stdout


def test_sigterm_leaves_a_model_and_a_way_on(folder):
    process = subprocess.Popen(
        command(folder, "blind-row", "--set", "train.steps=1000000"), cwd=folder, stdout=subprocess.PIPE, text=True
    )
    while not (folder / "model.run.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.5)
    process.terminate()
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "--resume" in said
    assert load(folder / "model.safetensors").steps > 0
    assert (folder / "model.run.safetensors").exists()


@pytest.fixture
def begun():
    settings = config.build("tiny", overrides.from_assignments([*SMALL, "train.steps=5"]), {"method": "blind-row"})
    run = training.start(settings, tiny.frames())
    for _ in training.fit(run):
        pass
    return run


def test_a_damaged_snapshot_is_refused(begun, tmp_path):
    path = tmp_path / "model.run.safetensors"
    snapshot.save(begun, path)
    whole = path.read_bytes()
    rng = random.Random(0)
    for cut in (0, 5, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError, match="start anew"):
            snapshot.restore(begun, path)
    for _ in range(50):  # any byte of the header
        at = rng.randrange(2000)
        path.write_bytes(whole[:at] + bytes([rng.randrange(256)]) + whole[at + 1 :])
        with contextlib.suppress(InputError):  # anything else would reach the user as a traceback
            snapshot.restore(begun, path)


def test_a_snapshot_of_an_older_version_is_not_called_damaged(begun, tmp_path):
    path = tmp_path / "model.run.safetensors"
    snapshot.save(begun, path)
    with tensorfile.opened(path) as file:
        header = json.loads(file.metadata["cosdd"])
        tensors = file.tensors()
    del header["counters"]["lr_scale"]  # which they did not know
    tensorfile.write(path, tensors, {"format": "cosdd-run-1", "cosdd": json.dumps(header)})
    with pytest.raises(InputError, match="another version of cosdd: go on with that one, or start"):
        snapshot.restore(begun, path)


def test_a_run_that_has_ended_does_nothing_more(begun):
    assert [record.step for record in training.fit(begun)] == []


def test_snapshots_keep_their_distance(begun, tmp_path):
    save = NowAndThen(partial(snapshot.save, begun, tmp_path / "s.run.safetensors"), every=3600)
    assert [save() for _ in range(3)] == [True, False, False]


def test_a_full_disk_is_said_and_the_next_snapshot_waits(begun, tmp_path):
    (tmp_path / "s.run.safetensors").mkdir()  # cannot be replaced by a file
    save = NowAndThen(partial(snapshot.save, begun, tmp_path / "s.run.safetensors"), every=3600)
    with pytest.raises(InputError, match="cannot be written"):
        save()
    assert save() is False
    assert not list(tmp_path.glob(".*"))
