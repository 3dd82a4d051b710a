"""The crops of each update: the same wherever they are cut."""

import numpy as np
import pytest
import torch
from tiny import stripes

from cosdd import feed, processes
from cosdd.data import Frames

CPU = torch.device("cpu")


def mixed() -> Frames:
    """Frames of two sizes, one smaller than a crop, with a hot pixel at many a border of a crop."""
    rng = np.random.default_rng(0)
    large = stripes(frames=6, height=48, width=48)
    for frame in large:
        frame[0, rng.integers(48, size=5), rng.integers(48, size=5)] = 60000
    return Frames.split([large, stripes(frames=6, height=12, width=20, seed=1)], 0.1, 0)


def hows(flips: str = "y") -> tuple:
    return CPU, 3, 4, (16, 16), flips


@pytest.mark.parametrize("kind", [feed.Ahead, feed.Resident])
@pytest.mark.parametrize("flips", ["", "y", "xy"])
def test_crops_are_the_same_wherever_they_are_cut(kind, flips):
    frames = mixed()
    plain, other = feed.Feed(frames, *hows(flips)), kind(frames, *hows(flips))
    missing = 0
    for step in (0, 1, 2, 3, 9, 10, 4, 5):  # also a jump, as after a snapshot
        expected = plain(step)
        missing += int(expected.isnan().sum())
        assert torch.equal(other(step).nan_to_num(nan=9e9), expected.nan_to_num(nan=9e9))
    assert missing


def test_several_processes_take_their_parts(monkeypatch):
    frames = mixed()
    whole = feed.Feed(frames, *hows())(7)
    monkeypatch.setattr(processes, "count", lambda: 2)
    for rank in range(2):
        monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
        for kind in (feed.Feed, feed.Ahead, feed.Resident):
            part = kind(frames, *hows())(7)
            assert torch.equal(part.nan_to_num(nan=9e9), whole[2 * rank : 2 * rank + 2].nan_to_num(nan=9e9))


def test_an_outlier_is_one_also_at_the_border_of_a_crop():
    """Its neighbours beyond the crop say so as well."""
    frames = mixed()
    hot = np.argwhere(frames.arrays[0] == 60000)
    assert len(hot) > 20
    for n, _, y, x in hot:
        for top, left in ((min(y, 40), min(x, 40)), (max(0, y - 7), max(0, x - 7))):
            window = (slice(top, top + 8), slice(left, left + 8))
            pixels = frames.cut(feed.Place(0, int(n), window, ()))
            corner = (0, y - window[0].start, x - window[1].start)
            whole = frames.cut(feed.Place(0, int(n), (slice(0, 48), slice(0, 48)), ()))
            assert np.isnan(pixels[corner]) == np.isnan(whole[0, y, x])
    assert np.isnan(whole).any()


def test_frames_stay_on_a_gpu_that_has_room_for_them(monkeypatch):
    frames, gpu = mixed(), torch.device("cuda")
    assert type(feed.choose(frames, *hows())) is feed.Feed
    bytes_of_training = 4 * sum(frames.arrays[a][i].size for a, i in frames.train)
    for room, kind in ((bytes_of_training / feed.ROOM, feed.Resident), (bytes_of_training, feed.Ahead)):
        monkeypatch.setattr(feed, "free_memory", lambda _, room=room: room)
        assert type(feed.choose(frames, gpu, *hows()[1:])) is kind
