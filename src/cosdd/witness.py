"""A witness: a second, very small process that says in one line that a run was ended by force.

The run itself cannot. Memory that runs out is not always an error that Python sees: the system may kill the run, and
libraries crash where an allocation inside them fails (oneDNN writes machine code to nowhere then).
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cosdd.errors import InputError

COUNTERS = Path("/proc/vmstat")  # among them: how often the system has killed for want of memory
LEAST = 10**9  # bytes of addresses: below that, loading torch fails in many ways, some of them without a word or an end
DEAF = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")  # they are for the run


@contextmanager
def beside(advice: str) -> Iterator[None]:
    """Keep a witness while the body runs; ``advice`` is what to do where memory ran out.

    Only on Linux, and only before torch is there: a process as small as that is copied in milliseconds, and has no
    threads that a copy would lack. Raises InputError where memory is limited so tightly that nothing can be loaded.
    """
    if not hasattr(os, "pidfd_open") or "torch" in sys.modules:
        yield
        return
    _refuse_too_little()
    try:
        run, (listen, tell) = os.pidfd_open(os.getpid()), os.pipe()
        sys.stderr.flush()
        witness = os.fork()
    except OSError:  # no more processes or memory for one: then without
        yield
        return
    if not witness:
        try:
            os.close(tell)
            _watch(run, listen, advice)
        finally:
            os._exit(0)  # whatever happens: this copy of the program ends here
    os.close(run)
    os.close(listen)
    try:
        yield
    finally:
        with suppress(OSError):
            os.write(tell, b"the end")
            os.waitpid(witness, 0)
        os.close(tell)


def _refuse_too_little() -> None:
    import resource

    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most != resource.RLIM_INFINITY and most < LEAST:
        raise InputError(
            f"out of memory: the limit for this process (ulimit -v) is {most / 1e6:.0f} MB, expected at least "
            f"{LEAST / 1e6:.0f} MB of addresses, which torch and its libraries fill: raise it with ulimit -v"
        )


def _watch(run: int, listen: int, advice: str) -> None:
    """Wait for the end; say so where the run did not. ``run``: a descriptor of its process."""
    import select

    for name in DEAF:
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):  # whoever waits for the end of the output waits for the run alone
        os.dup2(nowhere, stream)
    before = killed()
    ready, _, _ = select.select([run, listen], [], [])
    if listen in ready and os.read(listen, 1):
        return
    os.write(2, f"cosdd: {last_words(before)}: {advice}\n".encode())


def last_words(before: int) -> str:
    """What is known of a run that ended without a word. ``before``: how often the system had killed when it began."""
    left = "what was finished is whole, and nothing half-written is left under its name"
    left += "; train and denoise go on with --resume where they were"
    if killed() > before:
        return f"out of memory (the system killed the run): {left}"
    return f"ended by force (killed, or a fault in a library, as happens where memory runs out): {left}"


def killed() -> int:
    """How often the system has killed a process for want of memory since it was started."""
    try:
        lines = COUNTERS.read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    except (OSError, StopIteration, ValueError):
        return 0
