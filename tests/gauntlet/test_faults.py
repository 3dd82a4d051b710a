"""Real faults: kills, signals, full disks, no memory, two runs at once. Nothing finished is lost, nothing is half.

`make test` tries a few of each, `make gauntlet` hundreds, and counts.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import tifffile
import tiny
import torch

from cosdd import checkpoint, images
from cosdd.errors import InputError
from gauntlet.process import FORKED, Cosdd, killed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, limits and mounts as Linux has them")
FULL = os.environ.get("COSDD_GAUNTLET") == "full"
KILLS = {"train blind-row": 70, "train cosdd": 10, "denoise": 70, "denoise into OME-Zarr": 10, "report": 50}
KILLS = KILLS if FULL else dict.fromkeys(KILLS, 1)
COUNTED: dict[str, dict[str, int]] = {}

SMALL = ("model.features=4", "model.max_features=4", "model.levels=2", "model.latents=2", "model.final_latents=2")
SMALL += ("model.noise_features=4", "model.signal_features=4", "model.direct_features=4", "blind_row.features=[4]")
SMALL += ("train.batch=2", "train.crop=16", "train.snapshot=0.01", "train.validations=4")
SET = [part for setting in SMALL for part in ("--set", setting)]
TRAIN = ["train", "noisy.tif", "-o", "model.safetensors", "--noise-axis", "x", *SET]
LONG = [*TRAIN, "--method", "blind-row", "--set", "train.steps=1000000"]
QUICK = [*TRAIN, "--method", "blind-row", "--set", "train.steps=2"]


def count(what: str, outcome: str, number: int = 1) -> None:
    found = COUNTED.setdefault(what, {})
    found[outcome] = found.get(outcome, 0) + number


@pytest.fixture
def folder(tmp_path) -> Path:
    """Images and models to work on; logs are beside it, so that it holds nothing but inputs and outputs."""
    place = tmp_path / "work"
    place.mkdir()
    frames = tiny.stripes(12)[:, 0]
    tifffile.imwrite(place / "noisy.tif", frames, metadata={"axes": "TYX"})
    for index in range(3):
        tifffile.imwrite(place / f"image{index}.tif", np.roll(frames, 5 * index), metadata={"axes": "TYX"})
    checkpoint.save(tiny.checkpoint(1050.0, 100.0), place / "given.safetensors")
    return place


def hidden(place: Path, frames: bool = False) -> list[str]:
    """What lies about; with ``frames`` not those that wait for the same command again."""
    return [path.name for path in place.rglob(".*") if not (frames and path.suffix == ".frames")]


def line(command: Cosdd) -> str:
    """Its one line of complaint."""
    said = command.complaints.strip()
    assert len(said.splitlines()) == 1, said
    return said


# -------------------------------------------------------------------------------------------------- kill -9


def weights(path: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load(path).network.state_dict()


def kill_again_and_again(what: str, folder: Path, arguments: list[str], look) -> None:
    """Kill a command at random moments, start it again, up to three times before it may end; `look` at what is there.

    `look(folder, ended)` is given the folder after each kill, and after the end of each run.
    """
    moments, done = random.Random(what), 0
    assert Cosdd(folder, "--version").end() == 0  # the process that all others are forked from is there now
    whole = Cosdd(folder, *arguments)
    assert whole.end() == 0, whole.complaints
    seconds = [time.perf_counter() - whole.began]
    look(folder, True)
    while done < KILLS[what]:
        for entry in outputs(folder):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        kills = min(3, KILLS[what] - done)
        for attempt in range(kills + 1):
            forked = not (FULL and done % 10 == 0)  # now and then also while everything is imported
            run = Cosdd(folder, *arguments, forked=forked)
            if attempt < kills and killed(run, moments.uniform(0, min(seconds[-5:]) + 2 * (not forked))):
                done += 1
                count(f"kill -9 {what}", "killed")
                look(folder, False)
                continue
            assert run.end() == 0, run.complaints
            if attempt == 0 and forked:
                seconds.append(time.perf_counter() - run.began)
            break
        look(folder, True)
        assert not hidden(folder)
        count(f"kill -9 {what}", "runs that then came to their end")


def outputs(folder: Path) -> list[Path]:
    given = {"noisy.tif", "given.safetensors", "image0.tif", "image1.tif", "image2.tif"}
    return [path for path in folder.iterdir() if path.name not in given]


@pytest.mark.parametrize("method", ["blind-row", "cosdd"] if FULL else ["blind-row"])
def test_a_training_that_is_killed_ends_with_the_same_weights(folder, method):
    expected: dict[str, torch.Tensor] = {}

    def look(folder: Path, ended: bool) -> None:
        model = folder / "model.safetensors"
        assert model.exists() or not ended
        if model.exists():
            found = weights(model)
            expected.update({} if expected else found)
            assert all(torch.equal(value, expected[name]) for name, value in found.items())

    arguments = [*TRAIN, "--method", method, "--resume", "--set", "train.steps=20"]
    kill_again_and_again(f"train {method}", folder, arguments, look)


def test_a_denoising_that_is_killed_loses_nothing(folder):
    expected: dict[str, bytes] = {}

    def look(folder: Path, ended: bool) -> None:
        found = {path.name: path.read_bytes() for path in (folder / "out").glob("[!.]*")}
        expected.update({} if expected else found)
        assert len(found) == 6 or not ended
        assert all(content == expected[name] for name, content in found.items())

    arguments = ["denoise", "given.safetensors", "image0.tif", "image1.tif", "image2.tif", "-o", "out", "--std"]
    kill_again_and_again("denoise", folder, [*arguments, "--samples", "4", "--resume"], look)


def test_a_denoising_into_a_store_that_is_killed_goes_on_inside_it(folder):
    """Killed once at a random moment and resumed, again and again: whole or not there, and in the end the same."""
    what, moments = "denoise into OME-Zarr", random.Random("a store")
    arguments = ["denoise", "given.safetensors", "image0.tif", "-o", "out", "--std", "--format", "ome.zarr"]
    arguments += ["--samples", "100", "--resume"]

    def pixels() -> dict[str, np.ndarray]:
        return {path.name: np.asarray(images.read(path).data) for path in (folder / "out").glob("[!.]*")}

    assert Cosdd(folder, "--version").end() == 0  # the process that all others are forked from is there now
    whole = Cosdd(folder, *arguments)
    assert whole.end() == 0, whole.complaints
    seconds, expected = time.perf_counter() - whole.began, pixels()
    assert len(expected) == 2
    found = {"frames": 12, "kills": 0, "bit_identical": 0, "inside": 0, "left_behind": 0}
    while found["kills"] < KILLS[what]:
        shutil.rmtree(folder / "out", ignore_errors=True)
        run = Cosdd(folder, *arguments)
        if not killed(run, moments.uniform(0, seconds)):
            seconds = time.perf_counter() - run.began  # quicker than before
            continue
        found["kills"] += 1
        count(f"kill -9 {what}", "killed")
        assert all(np.array_equal(there, expected[name]) for name, there in pixels().items())
        again = Cosdd(folder, *arguments)
        assert again.end() == 0, again.complaints
        count(f"kill -9 {what}", "runs that then came to their end")
        there = pixels()
        found["bit_identical"] += all(np.array_equal(there[name], one) for name, one in expected.items())
        found["inside"] += "going on: " in again.said
        found["left_behind"] += len(hidden(folder))
    assert (found["bit_identical"], found["left_behind"]) == (found["kills"], 0)
    if FULL:
        from benchmarks.record import write

        write("resume_store", "make gauntlet", found)


def test_a_report_that_is_killed_is_whole_or_not_there(folder):
    expected: list[bytes] = []

    def look(folder: Path, ended: bool) -> None:
        page = folder / "page.html"
        assert page.exists() or not ended
        if page.exists():
            expected.append(page.read_bytes())
            assert expected[0].rstrip().endswith(b"</html>")
            assert expected[-1] == expected[0]

    arguments = ["report", "given.safetensors", "image0.tif", "-o", "page.html", "--overwrite"]
    kill_again_and_again("report", folder, arguments, look)


# -------------------------------------------------------------------------------------------------- signals


def begun(folder: Path, *more: str) -> Cosdd:
    run = Cosdd(folder, *LONG, *more)
    assert run.until(lambda: "budget" in run.said and (folder / "model.run.safetensors").exists()), run.complaints
    return run


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_ends_a_training_with_the_best_model(folder, number):
    run = begun(folder)
    run.send(number)
    assert run.end() == 0
    assert "--resume" in run.said
    steps = checkpoint.load(folder / "model.safetensors").steps
    assert f"interrupted after {steps} steps" in run.said
    assert not hidden(folder)
    written = (folder / "model.run.safetensors").stat().st_mtime_ns
    again = Cosdd(folder, *LONG, "--resume")
    assert again.until(lambda: (folder / "model.run.safetensors").stat().st_mtime_ns > written), again.complaints
    again.send(signal.SIGINT)
    assert again.end() == 0
    assert f"continuing after {steps} steps" in again.said
    count("signals", "ended in order")


def test_two_signals_end_it_at_once_and_it_can_be_resumed(folder):
    for pause in [random.Random(i).uniform(0, 0.2) for i in range(20)] if FULL else [0.0]:
        (folder / "model.run.safetensors").unlink(missing_ok=True)
        run = begun(folder, "--overwrite")
        run.send(signal.SIGINT)
        time.sleep(pause)
        run.send(signal.SIGINT)
        assert run.end() in (0, 130)
        assert (run.code() == 0) == (run.complaints == ""), run.complaints
        assert not hidden(folder)
        with suppress(InputError):
            checkpoint.load(folder / "model.safetensors")
        assert (folder / "model.run.safetensors").exists()
        count("signals", "ended in order")
    written = (folder / "model.run.safetensors").stat().st_mtime_ns
    run = Cosdd(folder, *LONG, "--resume")
    assert run.until(lambda: (folder / "model.run.safetensors").stat().st_mtime_ns > written), run.complaints
    run.send(signal.SIGINT)
    assert run.end() == 0
    assert "continuing after" in run.said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM] if FULL else [signal.SIGTERM])
def test_a_signal_while_denoising_leaves_whole_files(folder, number):
    arguments = ["denoise", "given.safetensors", "image0.tif", "image1.tif", "-o", "out", "--samples", "100"]
    run = Cosdd(folder, *arguments)
    assert run.until(lambda: "image0.tif" in run.said)
    run.send(number)
    assert run.end() == 130
    assert line(run) == "cosdd: interrupted"
    assert not hidden(folder, frames=True)
    for path in (folder / "out").glob("[!.]*"):
        assert np.isfinite(tifffile.imread(path)).all()
    again = Cosdd(folder, *arguments, "--resume")  # with the frames that were kept
    assert again.end() == 0, again.complaints
    assert not hidden(folder)
    count("signals", "ended in order")


# ----------------------------------------------------------------------------------------- disks and folders


@contextmanager
def mounted(place: Path, *how: str):
    """A file system of our own at ``place``, where this is allowed."""
    place.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *how, str(place)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_said_in_a_line_and_a_finished_output_stays(folder):
    with mounted(folder / "disk", "-t", "tmpfs", "-o", "size=320k", "none") as disk:
        denoise = ["denoise", "given.safetensors", "image0.tif", "-o", disk, "--samples", "1"]
        assert Cosdd(folder, *denoise).end() == 0
        whole = (disk / "image0.tif").read_bytes()
        filler = disk / "filler"
        with suppress(OSError):
            filler.write_bytes(b"0" * 2**20)
        for arguments in (
            [*denoise, "--overwrite"],
            ["denoise", "given.safetensors", "image1.tif", "-o", disk, "--samples", "1"],
            ["report", "given.safetensors", "image0.tif", "-o", disk / "page.html"],
            [*QUICK, "-o", disk / "m.safetensors"],
        ):
            run = Cosdd(folder, *arguments)
            assert run.end() == 2, run.said
            assert "No space left on device" in line(run)
            assert not hidden(disk, frames=True)
            assert {path.name for path in disk.glob("[!.]*")} == {"image0.tif", "filler"}
            assert (disk / "image0.tif").read_bytes() == whole
            count("disk full", "one line, finished outputs kept")
        filler.unlink()
        assert Cosdd(folder, *denoise, "--overwrite").end() == 0
        assert (disk / "image0.tif").read_bytes() == whole


def test_a_disk_that_is_full_at_the_end_of_a_training_does_not_lose_it(folder):
    with mounted(folder / "disk", "-t", "tmpfs", "-o", "size=200k", "none") as disk:
        run = Cosdd(folder, *LONG, "-o", disk / "model.safetensors", "--set", "train.snapshot=3600")
        assert run.until((disk / "model.run.safetensors").exists)
        filler = disk / "filler"
        with suppress(OSError):
            filler.write_bytes(b"0" * 2**20)
        run.send(signal.SIGINT)
        assert run.end() == 2
        assert "--resume" in run.said
        assert "No space left" in line(run)
        filler.unlink()
        again = Cosdd(folder, *LONG, "-o", disk / "model.safetensors", "--set", "train.snapshot=3600", "--resume")
        assert again.until(lambda: "continuing after" in again.said or again.code() is not None)
        time.sleep(0.2)
        again.send(signal.SIGINT)
        assert again.end() == 0, again.complaints
        assert checkpoint.load(disk / "model.safetensors").steps > 0
        count("disk full", "resumed when there was room")


@pytest.mark.parametrize("most", [3000, 20_000, 48_000] if FULL else [20_000])
def test_a_limit_on_the_size_of_files(folder, most):
    for arguments in (
        ["denoise", "given.safetensors", "image0.tif", "-o", "out", "--samples", "1"],
        ["report", "given.safetensors", "image0.tif", "-o", "page.html"],
        [*QUICK, "--set", "model.features=32"],
        ["simulate", "row-ar", "image0.tif", "-o", "out"],
    )[: 4 if FULL else 2]:
        run = Cosdd(folder, *arguments, disk=most)
        code = run.end()
        assert code in (0, 2)
        if code == 2:
            assert "cannot be written" in line(run)
        assert not hidden(folder, frames=True)
        for entry in outputs(folder):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        count("limit on the size of files", "one line" if code else "worked")


def test_a_folder_that_cannot_be_written(folder):
    (folder / "file").write_text("in the way")
    with mounted(folder / "fixed", "-t", "tmpfs", "-o", "ro", "none") as fixed:
        places = (fixed, folder / "file", fixed / "new", folder / "file" / "new")
        for index, place in enumerate(places):
            commands = [
                ["denoise", "given.safetensors", "image0.tif", "-o", place, "--samples", "1"],
                ["report", "given.safetensors", "image0.tif", "-o", place / "page.html"],
                [*QUICK, "-o", place / "m.safetensors"],
                ["simulate", "row-ar", "image0.tif", "-o", place],
            ]
            for arguments in commands if FULL else [commands[index]]:
                run = Cosdd(folder, *arguments)
                assert run.end() == 2
                assert "cannot be written" in line(run)
                count("folder that cannot be written", "one line")
    assert (folder / "file").read_text() == "in the way"
    assert not hidden(folder)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a file system of Linux")
def test_a_file_system_that_takes_no_files(folder):
    """It says of a new file that its folder is not there, which is looked for anew, but not for ever."""
    for arguments in (
        [*QUICK, "-o", "/proc/m.safetensors"],
        ["denoise", "given.safetensors", "image0.tif", "-o", "/proc", "--samples", "1"],
    ):
        run = Cosdd(folder, *arguments)
        assert run.end() == 2
        assert "/proc: cannot be written" in line(run)
        count("folder that cannot be written", "one line")


# --------------------------------------------------------------------------------------------------- memory


def large(folder: Path) -> None:
    large = np.random.default_rng(0).normal(1000, 100, (1, 1200, 1200)).astype(np.float32)
    tifffile.imwrite(folder / "large.tif", large, metadata={"axes": "TYX"})


@pytest.mark.parametrize("megabytes", [1, 10, 40, 60, 100, 200, 400] if FULL else [60])
def test_out_of_memory_is_said_in_a_line(folder, megabytes):
    large(folder)
    train = ["train", "large.tif", "-o", "m.safetensors", "--noise-axis", "x", "--method", "cosdd"]
    commands = [
        ["denoise", "given.safetensors", "large.tif", "image0.tif", "-o", "out", "--samples", "1"],
        [*train, "--set", "train.steps=1", "--set", "train.crop=1024"],
        ["denoise", "given.safetensors", "large.tif", "-o", "out", "--samples", "1"],
        ["inspect", "large.tif"],
        ["report", "given.safetensors", "large.tif", "-o", "page.html"],
    ]
    for arguments in commands if FULL else commands[:2]:
        run = Cosdd(folder, *arguments, memory=megabytes * 2**20)
        code = run.end()
        if code == -signal.SIGSEGV:  # torch's C++ libraries do not survive every failed allocation
            assert {path.suffix for path in outputs(folder) if path.is_file()} <= {".tif", ".lock", ".part"}
        else:
            assert code in (0, 1, 2), run.complaints
            assert not hidden(folder, frames=True)
        if code == 2 and arguments[2:4] != ["large.tif", "image0.tif"]:
            assert "out of memory" in line(run)
        for entry in outputs(folder):
            if entry.name != "large.tif":
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        outcome = {0: "worked", -signal.SIGSEGV: "ended by a fault in a library"}.get(code, "one line")
        count("out of memory", outcome)


@pytest.mark.parametrize(("method", "room"), [("blind-row", 400 * 300), ("cosdd", 200 * 200)])
def test_a_gpu_that_is_too_small_is_said_in_a_line_and_images_go_through_it_in_parts(folder, method, room):
    """Simulated: networks raise what torch raises there, beyond so many pixels."""
    large = np.random.default_rng(0).normal(1000, 100, (1, 800, 300)).astype(np.float32)
    tifffile.imwrite(folder / "large.tif", large, metadata={"axes": "TYX"})
    train = [*TRAIN, "--method", method, "--overwrite", "--set", "train.steps=3"]
    run = Cosdd(folder, *train, "--set", "train.batch=8", card=8 * 16 * 16 - 1)
    assert run.end() == 2
    assert "out of memory (CUDA out of memory" in line(run)
    assert "smaller --set train.batch" in line(run)
    assert not (folder / "model.safetensors").exists()
    assert Cosdd(folder, *train, card=8 * 16 * 16 - 1).end() == 0
    denoise = ["denoise", "model.safetensors", "large.tif", "--samples", "2", "--tile", "none"]
    for place, card in (("whole", None), ("parts", room)):
        run = Cosdd(folder, *denoise, "-o", place, card=card)
        assert run.end() == 0, run.complaints
        assert ("note: out of memory with" in run.said) == (card is not None)
    whole, parts = (tifffile.imread(folder / place / "large.tif") for place in ("whole", "parts"))
    np.testing.assert_allclose(parts, whole, atol=1e-5 * np.ptp(whole))
    count("GPU out of memory (simulated)", "one line, or in parts", 3)


@pytest.mark.parametrize("megabytes", [70, 300, 600, 940] if FULL else [600])
def test_less_memory_than_the_libraries_need_is_refused_before_they_are_loaded(folder, megabytes):
    began = time.process_time()
    for arguments in (["inspect", "image0.tif"], QUICK)[: 2 if FULL else 1]:
        run = Cosdd(folder, *arguments, memory=megabytes * 2**20, forked=False)
        assert run.end() == 2
        assert "expected at least 1000 MB" in line(run)
        assert not outputs(folder)
        count("less memory than the libraries need", "one line")
    assert time.process_time() - began < 5


@pytest.mark.skipif(not FULL, reason="each loads all libraries anew")
@pytest.mark.parametrize("megabytes", range(960, 1280, 20))
def test_where_a_library_crashes_for_want_of_memory_a_line_says_so(folder, megabytes):
    large(folder)
    for arguments in (
        ["denoise", "given.safetensors", "large.tif", "-o", "out", "--samples", "1"],
        ["train", "large.tif", "-o", "m.safetensors", "--noise-axis", "x", "--set", "train.steps=1"],
        ["report", "given.safetensors", "large.tif", "-o", "page.html"],
    ):
        run = Cosdd(folder, *arguments, memory=megabytes * 2**20, forked=False)
        code = run.end()
        assert code in (0, 2) or code < 0
        if code:
            said = last_line(run)
            assert "out of memory" in said or (code < 0 and "ended by force" in said), said
        left = {path.name for path in folder.rglob("*") if not path.name.startswith(".")}
        assert not left & {"page.html", "m.safetensors"} or code == 0
        outcome = "worked" if code == 0 else "one line" if code == 2 else "a fault in a library, said in a line"
        count("out of memory, libraries loaded anew", outcome)
        for entry in outputs(folder):
            if entry.name != "large.tif":
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV] if FULL else [signal.SIGSEGV])
def test_a_run_that_is_ended_by_force_is_said_to_be(folder, number):
    """As the system does where memory runs out, or a library that crashes; nothing but the line is left of it."""
    arguments = ["denoise", "given.safetensors", "image0.tif", "-o", "out"]
    run = Cosdd(folder, *arguments, "--samples", "100000", forked=False)
    assert run.until(lambda: "image0.tif" in run.said), run.complaints
    run.send(number)
    assert run.end() == -number
    assert "ended by force" in last_line(run)
    again = Cosdd(folder, *arguments, "--samples", "1", forked=not FULL)
    assert again.end() == 0
    assert again.complaints == ""
    assert not hidden(folder)
    count("ended by force", "said in a line by the witness")


def last_line(run: Cosdd) -> str:
    """The last complaint, which a witness may make a moment after the run's end."""
    end = time.perf_counter() + 20
    while not run.complaints.endswith("\n") and time.perf_counter() < end:
        time.sleep(0.01)
    return run.complaints.strip().splitlines()[-1]


# ---------------------------------------------------------------------------------------------------- clock


def test_a_clock_that_goes_backwards_changes_nothing(folder):
    timed = Cosdd(folder, *TRAIN, "--method", "blind-row", "--time", "0.2s", back=True)
    assert timed.end() == 0, timed.complaints
    assert checkpoint.load(folder / "model.safetensors").seconds > 0.1
    count("clock going backwards", "worked")
    arguments = ["denoise", "given.safetensors", "image0.tif", "--samples", "1"]
    first, second = Cosdd(folder, *arguments, "-o", "a"), Cosdd(folder, *arguments, "-o", "b", back=True)
    assert (first.end(), second.end()) == (0, 0), second.complaints
    assert (folder / "a" / "image0.tif").read_bytes() == (folder / "b" / "image0.tif").read_bytes()
    count("clock going backwards", "worked")


# ----------------------------------------------------------------------------------------------- two at once


def test_the_second_of_two_trainings_into_one_place_is_refused(folder):
    first = begun(folder)
    second = Cosdd(folder, *LONG, "--resume")
    assert second.end() == 2
    assert "another cosdd" in line(second)
    beside = Cosdd(folder, *QUICK, "-o", "other.safetensors")  # which is no harm
    assert beside.end() == 0, beside.complaints
    first.send(signal.SIGKILL)
    assert first.end() == -signal.SIGKILL
    (folder / ".model.safetensors.1234.part").write_bytes(b"what a kill left")
    third = Cosdd(folder, *QUICK, "--overwrite")  # a killed run holds nothing
    assert third.end() == 0, third.complaints
    assert not hidden(folder)
    count("two runs at once", "the second refused", 1)


def test_the_second_of_two_denoisings_into_one_place_is_refused(folder):
    arguments = ["denoise", "given.safetensors", "image0.tif", "-o", "out"]
    first = Cosdd(folder, *arguments, "--samples", "100000")
    assert first.until(lambda: "image0.tif" in first.said), first.complaints
    for more in ([], ["--resume"], ["--overwrite"]):
        second = Cosdd(folder, *arguments, *more)
        assert second.end() == 2
        assert "another cosdd" in line(second)
        count("two runs at once", "the second refused")
    beside = Cosdd(folder, "denoise", "given.safetensors", "image1.tif", "-o", "out", "--samples", "1")
    assert beside.end() == 0, beside.complaints
    first.send(signal.SIGKILL)
    first.end()
    assert Cosdd(folder, *arguments, "--samples", "1").end() == 0
    assert not hidden(folder)
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["image0.tif", "image1.tif"]


def test_many_at_once_leave_one_result(folder):
    """Runs that start and end while others do: whoever is not refused writes the whole file."""
    arguments = ["denoise", "given.safetensors", "image0.tif", "-o", "out", "--samples", "1", "--overwrite"]
    for _ in range(10 if FULL else 1):
        runs = [Cosdd(folder, *arguments) for _ in range(6)]
        codes = [run.end() for run in runs]
        assert set(codes) <= {0, 2}
        assert 0 in codes
        for run in (run for run in runs if run.code() == 2):
            assert "another cosdd" in line(run)
        assert [path.name for path in (folder / "out").iterdir()] == ["image0.tif"]
        count("two runs at once", "the second refused", codes.count(2))


# ---------------------------------------------------------------------------- a model that changes while it is read


def _read_often(path: Path, seconds: float, log: Path) -> None:
    end, found = time.perf_counter() + seconds, {"one of the two": 0, "refused": 0}
    allowed = [2.0, 3.0]
    while time.perf_counter() < end or not found["one of the two"]:
        try:
            loaded = checkpoint.load(path)
        except InputError:
            found["refused"] += 1
        else:
            values = {float(value) for w in loaded.network.parameters() for value in w.unique()}
            assert values in ({allowed[0]}, {allowed[1]}), values
            found["one of the two"] += 1
    log.write_text(json.dumps(found))


@pytest.mark.parametrize("in_place", [False, True])
def test_a_model_that_is_replaced_while_it_is_read(tmp_path, in_place):
    """Replaced by us, whole; or overwritten in place, as `cp` does: never a mixture, never a crash."""
    path, contents = tmp_path / "m.safetensors", []
    for value in (2.0, 3.0):
        made = tiny.checkpoint(1000.0, 20.0, features=64, max_features=64)
        with torch.no_grad():
            for parameter in made.network.parameters():
                parameter.fill_(value)
        checkpoint.save(made, path, overwrite=True)
        contents.append(path.read_bytes())
    seconds = 20.0 if FULL else 0.7
    reader = FORKED.Process(target=_read_often, args=(path, seconds, tmp_path / "log"))
    reader.start()
    index, pauses = 0, random.Random(0)
    while reader.is_alive():
        index += 1
        if in_place:
            path.write_bytes(contents[index % 2])
            time.sleep(pauses.uniform(0, 0.2))
        else:
            (tmp_path / "new").write_bytes(contents[index % 2])
            os.replace(tmp_path / "new", path)
    assert reader.exitcode == 0
    found = json.loads((tmp_path / "log").read_text())
    assert found["one of the two"] > 0
    assert in_place or not found["refused"]
    for outcome, number in found.items():
        count("model read while it is replaced", outcome, number)


@pytest.mark.skipif(not FULL, reason="counted by make gauntlet")
def test_what_was_tried_is_written_down(request):
    from benchmarks.record import write

    assert not request.session.testsfailed, "what failed is to be mended, not to be left out of the count"
    write("faults", "make gauntlet", COUNTED)
