"""Several processes that share the frames of one input: on this machine, or on those of a Dask cluster.

Each makes whole blocks of frames and puts them where one process alone would have put them (`unfinished`); nothing
else is shared. So the result is that of one process, bit for bit where each computes with as many threads as it.
"""

from __future__ import annotations

import functools
import importlib
import logging
import multiprocessing
import os
import pkgutil
import platform
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from cosdd import __version__, device, images, outputs, recipe
from cosdd.denoise import Denoiser, Settings
from cosdd.errors import InputError, about
from cosdd.lazy import Pixels
from cosdd.outputs import Wanted
from cosdd.recipe import Recipe, Value
from cosdd.unfinished import Frame, Make, Unfinished

TRIES = 2  # of a block whose worker ends
PARTS = 8  # of a stack for each worker of a cluster: small enough that all end at about the same time
CONNECTING = 20.0  # seconds within which a scheduler has to answer
PATIENCE = 60.0  # seconds until what another machine wrote has to be seen here
ONE_DISK = "models, images and results have to lie on a disk that all machines see under the same name"

Team = Callable[[Make, Unfinished], Iterator[float]]  # `make` travels to other processes


class Lost(InputError):
    """Workers that ended without a word, again and again, or their scheduler: not the fault of what the user gave."""

    code = 1


@dataclass(frozen=True)
class Denoising:
    """Denoised frames of one file, for a process that knows nothing yet, or what an earlier command told it.

    asked: with the fingerprints of the model and of the file that are meant.
    """

    model: Path
    source: Path
    axes: str | None
    settings: Settings
    wanted: Wanted
    asked: Recipe

    def __call__(self, numbers: Iterator[int]) -> Iterator[Frame | float]:
        meant = self.asked.values["model"], self.asked.values["input"]
        denoiser, frames = _loaded(self.model, self.source, self.axes, *meant)
        with about(self.source):
            yield from outputs.by_name(denoiser.stream(frames, self.settings, numbers), self.wanted)


@functools.lru_cache(maxsize=1)
def _loaded(model: Path, source: Path, axes: str | None, *meant: Value) -> tuple[Denoiser, Pixels]:
    """The model and the frames (n, c, *space), whose pixels the process that shares them out has checked.

    meant: fingerprints of both. Workers of a cluster outlive commands, and the next one may mean others under the same
    names; another machine may have others there, or nothing.
    """
    try:
        for path, one in zip((model, source), meant, strict=True):
            if recipe.fingerprint(path) != one:
                raise InputError(f"{path}: another file than the command began with: {ONE_DISK}")
        denoiser = Denoiser.load(model)
        return denoiser, images.to_samples(images.read(source, axes), denoiser.spatial)
    except InputError as error:
        raise InputError(
            f"on {platform.node()}, which should see what the first process sees: {error}"
        ) from OSError()  # not the input, which that one could read: what is there is kept


@contextmanager
def team(count: int, dask: str | None) -> Iterator[Team | None]:
    """So many processes of this machine, or the workers of a Dask scheduler; None where this process is enough."""
    if dask is not None:
        if count > 1:
            raise InputError("--workers is for this machine and --dask for a cluster: leave out one of them")
        with _cluster(dask) as found:
            yield found
    elif count > 1:
        with _local(count) as found:
            yield found
    else:
        yield None


# ------------------------------------------------------------------------------------------- on this machine


@contextmanager
def _local(count: int) -> Iterator[Team]:
    """Processes that are started when they are needed and stay for the next file."""
    context, places = multiprocessing.get_context("spawn"), range(count)
    threads = max(1, torch.get_num_threads() // count)
    team: dict[int, tuple[BaseProcess, Connection]] = {}

    def pipe(place: int) -> Connection:
        if place not in team:
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, place, count, threads), daemon=True)
            with _deaf():
                process.start()
            theirs.close()
            team[place] = process, ours
        return team[place][1]

    def dismiss(place: int) -> None:
        if place in team:
            process, ours = team.pop(place)
            ours.close()
            process.kill()
            process.join()

    def spread(make: Make, work: Unfinished) -> Iterator[float]:
        blocks = work.missing()
        todo, tries, lost = deque(blocks), dict.fromkeys(blocks, 0), []
        busy: dict[int, int] = {}
        done = work.count - sum(len(work.frames(block)) for block in blocks)
        try:
            while todo or busy:
                for place in places:
                    if todo and place not in busy:
                        busy[place] = todo.popleft()
                        with suppress(OSError):  # it has ended, which is seen when it should answer
                            pipe(place).send((make, work, busy[place]))
                ready = wait([pipe(place) for place in busy])
                for place in [place for place in busy if pipe(place) in ready]:
                    block = busy.pop(place)
                    try:
                        answer = pipe(place).recv()
                    except (EOFError, OSError):
                        dismiss(place)
                        tries[block] += 1
                        (todo if tries[block] < TRIES else lost).append(block)
                        continue
                    if isinstance(answer, Exception):
                        raise answer
                    done += len(work.frames(block))
                    yield done / work.count
        finally:
            for place in busy:  # of a file that is given up
                dismiss(place)
        _refuse_lost(work, lost)

    try:
        yield spread
    finally:
        for place in list(team):
            dismiss(place)


def _serve(pipe: Connection, place: int, count: int, threads: int) -> None:
    """One of the processes of `_local`: makes the blocks that it is sent, answers when each is on disk."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Windows hands nothing of `_deaf` down
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    device.sharers = -(-count // max(1, torch.cuda.device_count()))
    _take_gpu(place)
    with suppress(EOFError):
        message = pipe.recv()
        while True:
            make, work, _ = message

            def blocks(begun: tuple[Make, Unfinished] = (make, work)) -> Iterator[int]:
                nonlocal message
                while (message[0], message[1]) == begun:
                    yield message[2]
                    pipe.send(message[2])  # the next one is asked for: this one is on disk
                    message = pipe.recv()

            try:
                for _ in work.fill(make, blocks()):
                    pass
            except EOFError:
                raise
            except Exception as error:
                pipe.send(error)
                message = pipe.recv()


def _end_with_parent() -> None:
    """However the process ends that shares out the work: nobody would take the next answer."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _take_gpu(place: int) -> None:
    """One GPU for each process, in turn, where there are several."""
    count = torch.cuda.device_count()
    if count > 1:
        seen = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
        os.environ["CUDA_VISIBLE_DEVICES"] = seen.split(",")[place % count]


@contextmanager
def _deaf() -> Iterator[None]:
    """Who is started in here does not hear Ctrl-C, which a terminal sends to all: the first process ends the others."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


# ---------------------------------------------------------------------------------------------- on a cluster


@contextmanager
def _cluster(address: str) -> Iterator[Team]:
    try:
        distributed = importlib.import_module("distributed")
    except ImportError:
        raise InputError("--dask needs the package distributed: pip install 'cosdd[cluster]'") from None
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # a lost scheduler, which is said here
    kept = address.endswith(".json")  # the file of --scheduler-file, which says the address
    if kept and not Path(address).is_file():  # it would be waited for
        raise InputError(f"--dask {address}: no such file: give the one that dask scheduler wrote, or its address")
    where = {"scheduler_file" if kept else "address": address}
    try:
        client = distributed.Client(**where, timeout=CONNECTING)
    except (OSError, ValueError, TimeoutError):
        raise InputError(f"--dask {address}: no scheduler answers there: start one with dask scheduler") from None
    with client:
        if not client.nthreads():
            raise InputError(f"--dask {address}: the scheduler has no workers: start some with dask worker {address}")
        _refuse_other_cosdd(client)
        yield functools.partial(_by_dask, distributed, client)


def _refuse_other_cosdd(client: Any) -> None:
    """A worker without it would end at the first frame, without a word; one with another would make other pixels."""
    ask = pkgutil.resolve_name, "cosdd:__version__"  # nothing of ours, which they could not take
    answers = client.run(*ask, on_error="return")
    try:
        answers["the scheduler"] = client.run_on_scheduler(*ask)
    except ImportError as error:
        answers["the scheduler"] = error
    for machine, answer in answers.items():
        none = isinstance(answer, ImportError)
        if none or (isinstance(answer, str) and answer != __version__):
            raise InputError(
                f"--dask: {machine} has {'no cosdd' if none else f'cosdd {answer}'}: the machines of the cluster need "
                f"the same cosdd as this one ({__version__}): install it there and start their dask worker anew"
            )


def _by_dask(distributed: Any, client: Any, make: Make, work: Unfinished) -> Iterator[float]:
    if client.status != "running":
        raise _ended()
    blocks = work.missing()
    size = max(1, len(blocks) // (PARTS * max(1, len(client.nthreads()))))
    parts = [blocks[i : i + size] for i in range(0, len(blocks), size)]
    done, lost = work.count - sum(len(work.frames(block)) for block in blocks), []
    beside = Counter(where for where, _ in set(client.run(_seat, on_error="ignore").values()))
    tasks = {client.submit(_task, make, work, part, beside, pure=False, retries=TRIES - 1): part for part in parts}
    try:
        for task in distributed.as_completed(tasks):
            if task.cancelled():  # by nobody here: so all are where the scheduler is lost
                raise _ended()
            error = task.exception()
            if isinstance(error, distributed.KilledWorker):
                lost += tasks[task]
                continue
            if isinstance(error, FileNotFoundError):
                raise InputError(f"{work.folder.parent}: the workers do not find it: {ONE_DISK}") from error
            if error is not None:
                raise error
            done += sum(len(work.frames(block)) for block in tasks[task])
            yield done / work.count
    finally:
        if client.status == "running":
            client.cancel(list(tasks))
    _refuse_lost(work, lost)
    _wait_for(work)


def _ended() -> Lost:
    error = Lost(
        "--dask: the scheduler has ended, or is not reached any more: start it and its workers anew and give the same "
        "command again with --resume"
    )
    error.__cause__ = ConnectionError()  # not the input: what is there is kept
    return error


def _seat() -> tuple[tuple[str, str], int]:
    """Where a worker computes, by machine and first GPU that it may see, and its process."""
    return (platform.node(), os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0]), os.getpid()


_TURN = threading.Lock()


def _task(make: Make, work: Unfinished, blocks: list[int], beside: Counter[tuple[str, str]]) -> None:
    """In a worker of the cluster: one task at a time with all of its threads, however many it would run at once.

    beside: how many of them share a machine and its GPU, as the file began.
    """
    worker = importlib.import_module("distributed").get_worker()
    with _TURN:
        torch.set_num_threads(worker.state.nthreads)
        device.sharers = beside[_seat()[0]] or 1
        for _ in work.fill(make, iter(blocks)):
            pass


def _wait_for(work: Unfinished) -> None:
    """Disks that machines share may show late what another one wrote."""
    end = time.monotonic() + PATIENCE
    while missing := work.missing():
        if time.monotonic() > end:
            raise InputError(
                f"{work.folder.parent}: {len(missing)} of the frames that workers wrote are not seen here: {ONE_DISK}"
            ) from TimeoutError()  # not the input: what is there is kept
        time.sleep(0.5)


def _refuse_lost(work: Unfinished, lost: list[int]) -> None:
    if lost:
        first = work.frames(min(lost))[0]
        raise Lost(
            f"frame {first} and {sum(len(work.frames(block)) for block in lost) - 1} other(s): the worker ended each "
            f"time, {TRIES} times (out of memory?): the others are kept; give the same command again with "
            "--resume and fewer --workers or a smaller --tile"
        ) from ChildProcessError()
