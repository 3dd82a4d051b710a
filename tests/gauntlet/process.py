"""The real command line as processes of its own that start at once.

Each is forked from one that has imported everything, so a hundred kills take no longer than they must. Signals, locks,
limits and disks are the real ones.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOMS = (
    "cli",
    "training",
    "snapshot",
    "preview",
    "data",
    "checkpoint",
    "denoise",
    "outputs",
    "checks",
    "report",
    "inspection",
)
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload([f"cosdd.{room}" for room in ROOMS])
LONGEST = 120.0  # seconds


def _command(
    arguments: list[str],
    folder: Path,
    log: Path,
    memory: int | None,
    disk: int | None,
    card: int | None,
    back: bool,
    watched: bool,
) -> None:
    """In the new process: cosdd, as its console script starts it."""
    import resource

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job is started without
    os.chdir(folder)
    for stream, suffix in ((1, ".out"), (2, ".err")):
        os.dup2(os.open(log.with_suffix(suffix), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    import torch

    torch.set_num_threads(1)
    if memory is not None:  # bytes more than it has now
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + memory
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    if disk is not None:  # bytes in a file
        resource.setrlimit(resource.RLIMIT_FSIZE, (disk, disk))
    if card is not None:
        _small_card(card)
    if back:  # every look at the clock is earlier than the one before
        ticks = iter(range(2_000_000_000, 0, -60))
        time.time = lambda: float(next(ticks))
    if watched:
        _watch(folder, log.with_suffix(".seen"))
    sys.argv = ["cosdd", *arguments]
    from cosdd.cli import main

    main()


def _small_card(pixels: int) -> None:
    """As on a GPU whose memory ends at so many pixels: the networks then raise what torch raises there."""
    import torch

    from cosdd.model import COSDD, BlindRow

    for network, name in ((COSDD, "forward"), (COSDD, "sample"), (BlindRow, "forward"), (BlindRow, "_strip")):
        whole = getattr(network, name)

        def limited(self, given, *more, whole=whole, **others):
            finest = given if isinstance(given, torch.Tensor) else given[0]  # features, finest first
            if finest[:, 0].numel() > pixels:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return whole(self, given, *more, **others)

        setattr(network, name, limited)


FORBIDDEN = ("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork", "pickle.")
FORBIDDEN += ("urllib.", "http.", "ftplib.", "smtplib.", "webbrowser.", "shutil.rmtree")


def _watch(folder: Path, log: Path) -> None:
    """Write down what no run may do: reach the network, start programs, unpickle, write outside its folder."""
    seen = log.open("w", buffering=1)

    def hook(event: str, given: tuple) -> None:
        if event == "open" and isinstance(given[0], str | bytes) and isinstance(given[2], int):
            path = Path(os.path.realpath(os.fsdecode(given[0])))
            writes = given[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and folder not in path.parents and path not in (folder, Path(os.devnull)):
                print(f"writes {path}", file=seen)
        elif event.startswith(FORBIDDEN):
            print(event, *given, file=seen)

    sys.addaudithook(hook)


class Cosdd:
    """One running command. ``memory``, ``disk``: limits in bytes. ``card``: pixels that fit into a GPU's memory,
    simulated. ``back``: with a clock that goes backwards. ``watched``: what it must not do is written to ``seen``.

    ``forked`` off: a new interpreter, `python -m cosdd`, which first has to import everything; ``memory`` is then all
    that it may take, as `ulimit -v` has it, not what it may take beside the libraries.
    """

    count = 0

    def __init__(
        self,
        folder: Path,
        *arguments: object,
        memory: int | None = None,
        disk: int | None = None,
        card: int | None = None,
        back: bool = False,
        watched: bool = False,
        forked: bool = True,
    ):
        Cosdd.count += 1
        self.log = folder.parent / f"log{Cosdd.count}"
        self.began = time.perf_counter()
        for suffix in (".out", ".err"):
            self.log.with_suffix(suffix).touch()
        given = [str(argument) for argument in arguments]
        if forked:
            process = FORKED.Process(
                target=_command, args=(given, folder, self.log, memory, disk, card, back, watched), daemon=True
            )
            process.start()
            self.wait, self.code = process.join, lambda: process.exitcode
        else:
            with self.log.with_suffix(".out").open("w") as out, self.log.with_suffix(".err").open("w") as err:
                limit = [] if memory is None else ["bash", "-c", f'ulimit -v {memory // 1024}; exec "$@"', "bash"]
                line = [*limit, sys.executable, "-m", "cosdd", *given]
                process = subprocess.Popen(line, cwd=folder, stdout=out, stderr=err)
            self.wait, self.code = process.wait, process.poll
        assert process.pid is not None
        self.pid = process.pid

    def until(self, condition: Callable[[], object]) -> bool:
        """Wait for a condition; False where the command ended first."""
        while not condition():
            assert time.perf_counter() - self.began < LONGEST, "waited too long"
            if self.code() is not None:
                return False
            time.sleep(0.002)
        return True

    def send(self, number: signal.Signals) -> None:
        if self.code() is None:
            os.kill(self.pid, number)

    def end(self) -> int:
        """The exit code, -9 after kill -9."""
        self.until(lambda: self.code() is not None)
        code = self.code()
        assert code is not None
        assert "Traceback" not in self.complaints, self.complaints
        return code

    @property
    def said(self) -> str:
        return self.log.with_suffix(".out").read_text()

    @property
    def seen(self) -> str:
        return self.log.with_suffix(".seen").read_text()

    @property
    def complaints(self) -> str:
        return self.log.with_suffix(".err").read_text()


def killed(command: Cosdd, seconds: float) -> bool:
    """`kill -9` after so many seconds. False where the command had ended by then."""
    while command.code() is None and time.perf_counter() - command.began < seconds:
        time.sleep(0.001)
    if command.code() is not None:
        return False
    command.send(signal.SIGKILL)
    return command.end() == -signal.SIGKILL
