"""Progress where there is no terminal: a line now and then, and no look at values that nobody sees."""

import io
import re

import pytest

from cosdd import progress


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    return now


def test_a_log_gets_a_line_every_half_minute_with_the_time_left(clock, capsys):
    with progress.bar("training") as show:
        for second in range(100):
            clock[0] = float(second)
            show(second / 100, lambda: {"nll": 1.5})
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "training 31 %, 0:31 elapsed, 1:09 left  nll 1.500",
        "training 62 %, 1:02 elapsed, 0:38 left  nll 1.500",
        "training 93 %, 1:33 elapsed, 0:07 left  nll 1.500",
    ]


def test_values_are_averaged_and_read_a_few_times_a_second(clock):
    looks = []

    def values():
        looks.append(clock[0])
        return {"nll": float(len(looks))}

    with progress.bar("training") as show:
        for millisecond in range(1, 1001):
            clock[0] = millisecond / 1000 + 1
            show(0.5, values)
    assert 4 <= len(looks) <= 6
    assert 1 < show.means["nll"] < len(looks)


def test_a_bar_says_which_time_is_which(monkeypatch):
    screen = progress.Page(file=io.StringIO(), force_terminal=True, width=120)
    monkeypatch.setattr(progress, "out", screen)
    with progress.bar("training") as show:
        show(0.5)
        show.drawn.refresh()
    drawn = re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "", screen.file.getvalue())
    assert re.search(r"[\d:]+ elapsed, [-\d:]+ left", drawn)


def test_hours_are_shown_where_there_are_any():
    assert [progress.clock(seconds) for seconds in (4.6, 116, 3723)] == ["0:05", "1:56", "1:02:03"]


def test_a_notebook_gets_lines_not_a_widget(monkeypatch):
    monkeypatch.setattr(progress.out, "is_jupyter", True)
    assert not progress.Bar("training").draws
