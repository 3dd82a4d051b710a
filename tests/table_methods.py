"""Methods that behave and misbehave, for the frame of the comparison (test_table.py). They need numpy alone."""

import os
import subprocess
import sys
import time

import numpy as np

from benchmarks.table.task import Fitted, Task


def halved(task: Task) -> Fitted:
    assert task.truth is None, "the truth is only for those that ask for it"
    assert task.clean is None
    assert task.second is None
    used = task.start()
    assert 0 <= used() < 0.1
    return Fitted({"half": lambda x: x / 2, "same": lambda x: x}, 7, {"seed": task.seed})


def cheats(task: Task) -> Fitted:
    assert task.truth is not None
    return Fitted({"truth": lambda x: task.truth})


def crashes(task: Task) -> Fitted:
    raise RuntimeError("no such luck")


def dies(task: Task) -> Fitted:
    os._exit(3)


def sleeps(task: Task) -> Fitted:
    subprocess.Popen([sys.executable, "-c", f"import time; time.sleep(3); open({task.seed!r}, 'w')"])
    time.sleep(60)
    raise AssertionError


def lacks(task: Task) -> Fitted:
    import a_package_that_nobody_has  # noqa: F401

    raise AssertionError


def crops(task: Task) -> Fitted:
    return Fitted({"cropped": lambda x: x[:, 1:]})


def not_finite(task: Task) -> Fitted:
    return Fitted({"nothing": lambda x: x * np.nan})
