"""How far a long job is and how long it will take: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def plain(text: str) -> str:
    """Text without control characters: what a file says about itself is shown, and commands no terminal."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "\N{REPLACEMENT CHARACTER}" for letter in text)


class Page(Console):
    """Shows text as it is: brackets in a name are no markup."""

    def print(self, *texts: Any, **how: Any) -> None:  # type: ignore[override]
        super().print(*(plain(text) if isinstance(text, str) else text for text in texts), **how)


out = Page(highlight=False, soft_wrap=True, markup=False)
LOG_EVERY = 30.0  # seconds between lines where there is no terminal to draw a bar on
LOOK_EVERY = 0.2  # seconds between looks at the values: reading them may wait for a GPU
LARGEST_SHARE = 0.02  # of the time may go into what is done now and then


def clock(seconds: float) -> str:
    """ "0:05", "1:56" or "1:02:03"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Bar:
    """Called with the share that is done, 0 to 1, and a way to values worth a look, which it averages."""

    def __init__(self, title: str):
        self.title, self.began = title, time.perf_counter()
        self.logged, self.looked = self.began, 0.0
        self.means: dict[str, float] = {}
        self.draws = out.is_terminal and not out.is_jupyter  # Rich's bar needs a widget there that few have
        columns = (
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(), TextColumn("elapsed,"), TimeRemainingColumn(), TextColumn("left"),
            TextColumn("{task.fields[values]}"),
        )  # fmt: skip
        self.drawn = Progress(*columns, console=out, disable=not self.draws, transient=True)
        self.task = self.drawn.add_task(title, total=1.0, values="")

    def __call__(self, share: float, values: Callable[[], Mapping[str, float]] | None = None) -> None:
        now = time.perf_counter()
        if values is not None and now - self.looked > LOOK_EVERY:
            self.looked = now
            for name, value in values().items():
                self.means[name] = 0.9 * self.means.get(name, value) + 0.1 * value
        text = "  ".join(f"{name} {value:.3f}" for name, value in self.means.items())
        self.drawn.update(self.task, completed=share, values=text)
        if not self.draws and now - self.logged > LOG_EVERY and share > 0:
            self.logged = now
            spent = now - self.began
            left = spent * (1 - share) / share
            out.print(f"{self.title} {100 * share:.0f} %, {clock(spent)} elapsed, {clock(left)} left  {text}")


@contextmanager
def bar(title: str) -> Iterator[Bar]:
    """Show a bar while the body runs; it vanishes at the end."""
    shown = Bar(title)
    with shown.drawn:
        yield shown


class NowAndThen:
    """Does a job at the first call and every ``every`` seconds, less often where it takes long."""

    def __init__(self, job: Callable[[], None], every: float):
        self.job, self.every = job, every
        self.due = time.perf_counter()

    def __call__(self) -> bool:
        """True where the job was done; raises what it raises."""
        began = time.perf_counter()
        if began < self.due:
            return False
        self.due = began + self.every  # also where it fails
        self.job()
        now = time.perf_counter()
        self.due = now + max(self.every, (now - began) / LARGEST_SHARE)
        return True
