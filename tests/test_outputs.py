"""Denoised frames become files: bounded memory, nothing half-written, nothing wrapped around."""

import tracemalloc

import numpy as np
import pytest

from cosdd import images, outputs
from cosdd.config import InputError
from cosdd.denoise import Result


def results(frames, std=False, samples=0):
    for index, frame in enumerate(frames):
        yield index / len(frames)
        drawn = np.stack([frame + i for i in range(samples)]) if samples else None
        yield Result(frame, 0.5 * frame if std else None, drawn)


def written(folder, frames, like, **wanted):
    asked = outputs.Wanted(**wanted)
    parts = results(frames, asked.std, asked.samples)
    return outputs.write_all(parts, like, folder / "in.tif", folder / "out", asked, False, lambda _: None)


def test_memory_holds_a_frame_however_many_there_are(tmp_path):
    edge, count = 256, 64

    def frames():
        for index in range(count):
            yield 0.0
            yield Result(np.full((1, edge, edge), index, np.float32), None, None)

    like = images.from_array(np.broadcast_to(np.uint8(0), (count, edge, edge)), "TYX")
    tracemalloc.start()
    outputs.write_all(frames(), like, tmp_path / "in.tif", tmp_path, outputs.Wanted(), False, lambda _: None)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * edge * edge * 4
    found = images.read(tmp_path / "in.tif").data
    np.testing.assert_array_equal(found[:, 3, 5], np.arange(count))


def test_every_kind_of_file_comes_in_order(tmp_path):
    frames = np.arange(2 * 3 * 16 * 16, dtype=np.float32).reshape(3, 2, 16, 16)  # t, c, y, x
    like = images.from_array(np.zeros((2, 3, 16, 16), np.uint16), "CTYX")
    lines = written(tmp_path, frames, like, std=True, samples=2)
    assert len(lines) == 4
    for suffix, expected in (("", frames), ("_std", frames / 2), ("_sample2", frames + 1)):
        found = images.read(tmp_path / "out" / f"in{suffix}.tif")
        np.testing.assert_array_equal(images.to_samples(found, "YX"), expected)
        assert found.axes == "CTYX"


@pytest.mark.parametrize("kind", ["uint8", "int16", "uint32", "uint64", "int64"])
def test_integers_are_rounded_and_clipped_never_wrapped(tmp_path, kind):
    limits = np.iinfo(kind)
    frame = np.full((1, 16, 16), 41.6, np.float64)
    frame[0, 0, :2] = 1e30, -1e30
    like = images.from_array(np.zeros((16, 16), kind), "YX")
    path = tmp_path / "in.npy"
    parts = iter([Result(frame, None, None)])
    (line,) = outputs.write_all(parts, like, path, tmp_path, outputs.Wanted(dtype="same"), False, lambda _: None)
    found = np.load(path)
    assert found.dtype == kind
    assert found[0, 1] == limits.min
    assert float(found[0, 0]) >= 0.999 * float(limits.max)
    assert found[5, 5] == 42
    assert "2 pixel(s) clipped" in line


def test_what_breaks_on_the_way_leaves_nothing(tmp_path):
    def frames():
        yield Result(np.zeros((1, 16, 16), np.float32), None, None)
        raise InputError("the file is broken from here")

    like = images.from_array(np.zeros((2, 16, 16), np.uint8), "TYX")
    with pytest.raises(InputError, match="broken"):
        outputs.write_all(frames(), like, tmp_path / "in.tif", tmp_path, outputs.Wanted(), False, lambda _: None)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InputError, match="cannot be written"):
        written(tmp_path, np.zeros((1, 1, 16, 16), np.float32), images.from_array(np.zeros((1, 16, 16)), "TYX"))
