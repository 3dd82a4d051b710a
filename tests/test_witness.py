"""A run that is ended by force cannot say so; its witness does."""

import os
import signal
import subprocess
import sys

import pytest

from cosdd import witness

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="Linux")
BODY = """
import os, signal, sys, time
from cosdd import witness
with witness.beside("use less"):
    {body}
{after}
"""


def run(body: str, after: str = "") -> subprocess.CompletedProcess[str]:
    code = BODY.format(body=body, after=after)
    line = [sys.executable, "-c", code]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, start_new_session=True)


def test_an_end_in_order_is_no_news():
    for body, code in (("pass", 0), ("sys.exit(3)", 3), ("raise KeyboardInterrupt", -signal.SIGINT)):
        done = run(body)
        assert done.returncode == code
        assert "cosdd:" not in done.stderr


def test_no_process_is_left():
    done = run("pass", after="os.waitpid(-1, 0)")
    assert "ChildProcessError" in done.stderr


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), signal.SIGKILL)", "os.abort()", "os._exit(5)"])
def test_an_end_by_force_is_said_in_a_line(end):
    done = run(end)
    assert done.returncode not in (0, 2)
    assert done.stderr.splitlines()[-1].startswith("cosdd: ended by force")
    assert done.stderr.endswith(": use less\n")


def test_signals_are_for_the_run_and_not_for_the_witness():
    """Ctrl-C and a scheduler's signals reach the whole group."""
    quiet = "[signal.signal(n, signal.SIG_IGN) for n in (2, 15, 1)]; time.sleep(.5)"
    done = run(f"{quiet}; [os.kill(0, n) for n in (2, 15, 1)]; os.abort()")
    assert "ended by force" in done.stderr


def test_where_the_system_killed_for_want_of_memory_that_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(witness, "COUNTERS", tmp_path / "vmstat")
    assert witness.killed() == 0  # other systems count nothing
    (tmp_path / "vmstat").write_text("pgfault 77\noom_kill 4\n")
    assert witness.last_words(3).startswith("out of memory (the system killed the run)")
    assert witness.last_words(4).startswith("ended by force")
