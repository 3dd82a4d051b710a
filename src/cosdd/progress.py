"""How far a long job is and how long it will take: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

out = Console(highlight=False, soft_wrap=True)
LOG_EVERY = 30.0  # seconds between lines where there is no terminal to draw a bar on


class Bar:
    """Called with the share that is done, 0 to 1, and values worth a look, which it averages."""

    def __init__(self, title: str):
        self.title, self.began, self.last = title, time.perf_counter(), time.perf_counter()
        self.means: dict[str, float] = {}
        columns = (
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[values]}"),
        )  # fmt: skip
        self.drawn = Progress(*columns, console=out, disable=not out.is_terminal, transient=True)
        self.task = self.drawn.add_task(title, total=1.0, values="")

    def __call__(self, share: float, values: Mapping[str, float] | None = None) -> None:
        for name, value in (values or {}).items():
            self.means[name] = 0.95 * self.means.get(name, value) + 0.05 * value
        text = "  ".join(f"{name} {value:.3f}" for name, value in self.means.items())
        self.drawn.update(self.task, completed=share, values=text)
        now = time.perf_counter()
        if not out.is_terminal and now - self.last > LOG_EVERY and share > 0:
            self.last = now
            left = (now - self.began) * (1 - share) / share
            out.print(f"{self.title} {100 * share:.0f} %, {left:.0f} s left  {text}")


@contextmanager
def bar(title: str) -> Iterator[Bar]:
    """Show a bar while the body runs; it vanishes at the end."""
    shown = Bar(title)
    with shown.drawn:
        yield shown
