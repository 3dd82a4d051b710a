"""Several processes give what one gives, and the death of one of them is no loss."""

import importlib
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from cosdd import checkpoint, cli, device, images, outputs, recipe, unfinished, workers
from cosdd.denoise import Settings
from cosdd.errors import InputError
from cosdd.recipe import Recipe
from cosdd.unfinished import Unfinished

FRAMES = 6


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Iterator[Path]:
    noisy = tiny.stripes(FRAMES)[:, 0]
    images.write(tmp_path / "noisy.ome.zarr", noisy, images.from_array(noisy, "TYX"))
    checkpoint.save(tiny.checkpoint(1050.0, 100.0), tmp_path / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # "bit for bit" holds for equal threads, and a worker gets one here
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(threads)


COMMAND = ["denoise", "model.safetensors", "noisy.ome.zarr", "--samples", "20", "--std", "-o"]


def cosdd(*arguments: object) -> int:
    """The command line in this process; returns the exit code."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["cosdd", *COMMAND, *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
    return int(end.value.code or 0)


def pixels(folder: Path) -> dict[str, np.ndarray]:
    assert sorted(path.name for path in folder.iterdir()) == ["noisy.ome.zarr", "noisy_std.ome.zarr"]
    return {path.name: np.asarray(images.read(path).data) for path in folder.iterdir()}


def equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in one)


def children(pid: int) -> set[int]:
    tasks = Path(f"/proc/{pid}/task")
    return {int(child) for file in tasks.glob("*/children") for child in file.read_text().split()}


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes as Linux has them")
def test_processes_give_what_one_gives_also_after_a_kill(folder, capsys):
    assert cosdd("one") == 0
    expected = pixels(folder / "one")
    command = [sys.executable, "-W", "error", "-m", "cosdd", *COMMAND, "several", "--workers", "2"]
    running = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    began = time.monotonic()
    while not list((folder / "several").glob(".*.frames/*.npz")):
        assert running.poll() is None
        assert time.monotonic() - began < 200
        time.sleep(0.002)
    team = children(running.pid)
    running.send_signal(signal.SIGKILL)
    running.wait()
    while any(alive(child) for child in team):  # nobody computes for nobody
        assert time.monotonic() - began < 200
        time.sleep(0.01)
    assert cosdd("several", "--resume") == 0
    assert f"of {FRAMES} frame(s) are there already" in capsys.readouterr().out
    assert equal(pixels(folder / "several"), expected)


@dataclass(frozen=True)
class Ending:
    """Frames of which one ends its process, once or each time."""

    folder: Path
    times: int
    error: Exception | None = None

    def __call__(self, numbers):
        for number in numbers:
            attempts = list(self.folder.glob("attempt*"))
            if number == 3 and len(attempts) < self.times:
                (self.folder / f"attempt{len(attempts)}").touch()
                if self.error is not None:
                    raise self.error
                os.kill(os.getpid(), signal.SIGKILL)
            yield {"": np.full((1, 2, 2), number, np.float32)}


@pytest.fixture(scope="module")
def team():
    with workers.team(2, None) as found:
        yield found


def spread(team, folder: Path, times: int, error: Exception | None = None) -> Unfinished:
    """What is there after the frames were shared out."""
    with unfinished.opened(folder, "a.tif", Recipe({}), 8, {"": np.dtype(np.float32)}, True) as work:
        for share in team(Ending(folder, times, error), work):
            assert 0 < share <= 1
        assert work.missing() == []
        like = images.from_array(np.zeros((8, 2, 2)), "TYX")
        np.testing.assert_array_equal(work.result("", like, "YX")[:, 0, 0], np.arange(8))
    return work


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_worker_that_ends_is_replaced_and_its_frame_made_again(team, tmp_path):
    spread(team, tmp_path, 1)
    assert len(list(tmp_path.glob("attempt*"))) == 1


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_frame_that_ends_its_worker_again_is_said_and_the_others_are_kept(team, tmp_path, capsys):
    with pytest.raises(workers.Lost, match="frame 3 and 0 other") as lost:
        spread(team, tmp_path, 99)
    assert lost.value.code == 1
    assert len(list(tmp_path.glob("attempt*"))) == 2
    assert len(list(tmp_path.glob(".a.tif.*.frames/*.npz"))) == 7
    assert "7 of 8 frame(s) are kept" in capsys.readouterr().out


def test_what_a_worker_finds_at_fault_is_said_as_here(team, tmp_path):
    with pytest.raises(InputError, match="chunk 3 cannot be read"):
        spread(team, tmp_path, 99, InputError("chunk 3 cannot be read"))
    assert not list(tmp_path.glob(".*"))
    (tmp_path / "next").mkdir()
    spread(team, tmp_path / "next", 0)  # the team is ready for the next file


@pytest.mark.parametrize("cause", [OSError(5, "Input/output error"), MemoryError("no room")])
def test_a_worker_whose_disk_or_memory_fails_for_a_moment_costs_no_frame(team, tmp_path, cause):
    error = InputError("chunk 3 cannot be read")
    error.__cause__ = cause
    with pytest.raises(InputError, match="chunk 3 cannot be read"):
        spread(team, tmp_path, 99, error)
    assert list(tmp_path.glob(".a.tif.*.frames/*.npz"))


def frames_of(path: Path, folder: Path, **meant: str) -> workers.Denoising:
    """Denoised frames by a model that has this path here or elsewhere; meant: other fingerprints than those of ours."""
    model, source = folder / "model.safetensors", folder / "noisy.ome.zarr"
    settings, wanted = Settings(samples=2), outputs.Wanted()
    asked = recipe.asked("denoise", recipe.fingerprint(model), source, None, "float32", settings)
    return workers.Denoising(path, source, None, settings, wanted, Recipe(dict(asked.values) | meant))


@pytest.mark.parametrize(
    ("name", "meant", "said"),
    [
        ("elsewhere/model.safetensors", {}, "cannot be read"),
        ("model.safetensors", {"model": "an earlier one"}, "model.safetensors: another file"),
        ("model.safetensors", {"input": "an earlier one"}, "noisy.ome.zarr: another file"),
    ],
)
def test_a_machine_that_does_not_see_the_files_is_named_and_costs_no_frame(team, folder, name, meant, said):
    def begin() -> None:
        kinds = {"": np.dtype(np.float32)}
        with unfinished.opened(folder, "a.tif", Recipe({}), FRAMES, kinds, True) as work:
            list(work.fill(frames_of(folder / "model.safetensors", folder), [0, 1]))
            list(team(frames_of(folder / name, folder, **meant), work))

    with pytest.raises(InputError, match=f"on {re.escape(platform.node())}.*{said}"):
        begin()
    assert len(list(folder.glob(".a.tif.*.frames/*.npz"))) == 2


@dataclass(frozen=True)
class Interrupted:
    """Frames in whose midst somebody presses Ctrl-C, which reaches all processes of a terminal."""

    def __call__(self, numbers):
        for number in numbers:
            signal.raise_signal(signal.SIGINT)
            yield {"": np.full((1, 2, 2), number, np.float32)}


def test_workers_leave_an_interrupt_to_the_first_process(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "_deaf", nullcontext)  # as on Windows, where it does not reach them
    with (
        workers.team(2, None) as team,
        unfinished.opened(tmp_path, "a.tif", Recipe({}), 8, {"": np.dtype(np.float32)}, True) as work,
    ):
        assert list(team(Interrupted(), work))
        assert work.missing() == []


@dataclass(frozen=True)
class Planned:
    """Frames that hold how many pixels the worker would take at once."""

    def __call__(self, numbers):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(device, "free_memory", lambda _: 4e9)
            for _ in numbers:
                yield {"": np.full((1, 2, 2), device.pixels_at_once(torch.device("cpu"), 1), np.float32)}


def shared_out(team, folder, monkeypatch):
    with unfinished.opened(folder, "a.tif", Recipe({}), 8, {"": np.dtype(np.float32)}, True) as work:
        assert list(team(Planned(), work))
        planned = work.result("", images.from_array(np.zeros((8, 2, 2)), "TYX"), "YX")[:, 0, 0]
    monkeypatch.setattr(device, "free_memory", lambda _: 4e9)
    np.testing.assert_allclose(2 * planned, device.pixels_at_once(torch.device("cpu"), 1), rtol=1e-6)


def test_workers_share_out_the_memory_of_their_machine(team, tmp_path, monkeypatch):
    shared_out(team, tmp_path, monkeypatch)


def test_workers_that_were_given_a_gpu_each_need_not_share_it(monkeypatch):
    seats = set()
    for gpus in ("0,1", "1,0", "1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
        seats.add(workers._seat())
    assert len(seats) == 2


def test_workers_of_a_cluster_share_out_the_memory_of_the_machine_they_are_on(tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        workers.team(1, cluster.scheduler_address) as team,
    ):
        shared_out(team, tmp_path, monkeypatch)


def test_gpus_are_taken_in_turn(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    workers._take_gpu(3)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "7"


def test_a_cluster_gives_what_one_process_gives(folder):
    distributed = pytest.importorskip("distributed")
    assert cosdd("one") == 0
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        assert cosdd("several", "--dask", cluster.scheduler_address) == 0
        assert equal(pixels(folder / "several"), pixels(folder / "one"))
        # Its workers outlive the command: under the same names others may be meant now.
        checkpoint.save(tiny.checkpoint(900.0, 80.0), folder / "model.safetensors", overwrite=True)
        (folder / "scheduler.json").write_text(json.dumps({"address": cluster.scheduler_address}))
        assert cosdd("several", "--dask", folder / "scheduler.json", "--overwrite") == 0
    assert cosdd("one", "--overwrite") == 0
    assert equal(pixels(folder / "several"), pixels(folder / "one"))


def test_a_scheduler_file_that_is_not_there_is_said_at_once(folder, capsys):
    pytest.importorskip("distributed")
    assert cosdd("several", "--dask", folder / "scheduler.json") == 2
    assert "scheduler.json: no such file: give the one that dask scheduler wrote" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_worker_of_a_cluster_that_ends_costs_no_frame_and_one_that_ends_each_time_is_said(tmp_path, capsys):
    distributed = pytest.importorskip("distributed")
    for name in ("once", "always"):
        (tmp_path / name).mkdir()
    with (
        importlib.import_module("dask").config.set({"distributed.scheduler.allowed-failures": 1}),
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        workers.team(1, cluster.scheduler_address) as team,
    ):
        spread(team, tmp_path / "once", 1)
        assert len(list((tmp_path / "once").glob("attempt*"))) == 1
        with pytest.raises(workers.Lost, match="the worker ended each time"):
            spread(team, tmp_path / "always", 99)
    kept = len(list((tmp_path / "always").glob(".a.tif.*.frames/*.npz")))
    assert 5 <= kept <= 7  # frames that wait for the same worker may be given up with it
    assert f"{kept} of 8 frame(s) are kept" in capsys.readouterr().out


@dataclass(frozen=True)
class Slow:
    """Frames of which few are there when something happens."""

    def __call__(self, numbers):
        for number in numbers:
            time.sleep(0.5)
            yield {"": np.full((1, 2, 2), number, np.float32)}


def test_a_scheduler_that_ends_is_said_at_once_and_costs_no_frame(tmp_path, capsys):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:

        def begin(anew: bool) -> None:
            kinds = {"": np.dtype(np.float32)}
            with unfinished.opened(tmp_path, "a.tif", Recipe({}), 8, kinds, anew) as work:
                for _ in team(Slow(), work):
                    cluster.close()

        with workers.team(1, cluster.scheduler_address) as team:
            for anew in (True, False):  # and for the next file
                with pytest.raises(workers.Lost, match="scheduler has ended"):
                    begin(anew)
    assert list(tmp_path.glob(".a.tif.*.frames/*.npz"))
    assert "of 8 frame(s) are there already" in capsys.readouterr().out


def test_a_cluster_without_cosdd_is_refused_before_any_work(tmp_path, monkeypatch):
    """Its workers would end at the first frame, and nobody would hear of it."""
    distributed = pytest.importorskip("distributed")
    (tmp_path / "cosdd").mkdir()
    (tmp_path / "cosdd" / "__init__.py").write_text("raise ImportError")
    with monkeypatch.context() as patched:
        patched.setattr(sys, "path", [str(tmp_path), *sys.path])  # of the workers, which start from here
        cluster = distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None)
    with (
        cluster,
        pytest.raises(InputError, match=r"has no cosdd: .* need the same cosdd"),
        workers.team(1, cluster.scheduler_address),
    ):
        pass


def test_a_cluster_with_another_cosdd_is_refused(monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(workers, "__version__", "0.0.1")
    with (
        distributed.LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster,
        pytest.raises(InputError, match=r"has cosdd .*the same cosdd as this one \(0.0.1\)"),
        workers.team(1, cluster.scheduler_address),
    ):
        pass


def test_frames_that_another_machine_is_slow_to_show_are_no_reason_to_remove_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "PATIENCE", 0.0)
    kinds = {"": np.dtype(np.float32)}

    def begin() -> None:
        with unfinished.opened(tmp_path, "a.tif", Recipe({}), 8, kinds, True) as work:
            assert list(work.fill(Ending(tmp_path, 0), [0])) == []
            workers._wait_for(work)

    with pytest.raises(InputError, match="7 of the frames"):
        begin()
    assert len(list(tmp_path.glob(".a.tif.*.frames/*.npz"))) == 1


def test_a_cluster_that_is_not_there(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(workers, "CONNECTING", 0.5)
    with pytest.raises(InputError, match="no scheduler"), workers.team(1, "tcp://127.0.0.1:9"):
        pass
    with pytest.raises(InputError, match="leave out one"), workers.team(2, "tcp://127.0.0.1:9"):
        pass
