"""Denoised frames become files: bounded memory, nothing half-written, nothing wrapped around."""

import errno
import io
import os
import re
import tracemalloc
import zipfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from cosdd import images, outputs, recipe, unfinished, writing
from cosdd.denoise import Result
from cosdd.errors import InputError
from cosdd.recipe import Recipe

SAME = outputs.Wanted(dtype="same")
ASKED = Recipe({"samples": 3})


def results(frames, std=False, samples=0, which=None):
    for index in range(len(frames)) if which is None else which:
        frame = frames[index]
        yield index / len(frames)
        drawn = np.stack([frame + i for i in range(samples)]) if samples else None
        yield Result(frame, 0.5 * frame if std else None, drawn)


def write(make, like, path, folder, wanted=None, asked=ASKED, **how):
    wanted = wanted or outputs.Wanted()
    place = (like, "YX", path, folder, wanted, asked, lambda _: None)
    return outputs.write_all(outputs.here(lambda which: outputs.by_name(make(which), wanted)), *place, **how)


def written(folder, frames, like, **wanted):
    asked = outputs.Wanted(**wanted)
    make = partial(results, frames, asked.std, asked.samples)
    return write(lambda which: make(which=which), like, folder / "in.tif", folder / "out", asked)


def test_memory_holds_a_frame_however_many_there_are(tmp_path):
    edge, count = 256, 64

    def frames(which):
        for index in which:
            yield 0.0
            yield Result(np.full((1, edge, edge), index, np.float32), None, None)

    like = images.from_array(np.broadcast_to(np.uint8(0), (count, edge, edge)), "TYX")
    tracemalloc.start()
    write(frames, like, tmp_path / "in.tif", tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * edge * edge * 4
    found = images.read(tmp_path / "in.tif").data
    np.testing.assert_array_equal(found[:, 3, 5], np.arange(count))


def test_what_was_averaged_and_what_rounding_loses_is_said_also_after_a_resume(tmp_path):
    """Of all frames, whoever made them and when."""
    like = images.from_array(np.zeros((3, 16, 16), np.uint16), "TYX")
    flat = 100 + 0.3 * np.random.default_rng(0).normal(size=(1, 16, 16)).astype(np.float32)
    asked = set()

    def made(which, ends=3):
        for index in which:
            if index == ends:
                raise KeyboardInterrupt
            asked.add(index)
            yield Result(flat, None, None, (8 * (index + 1),))

    with pytest.raises(KeyboardInterrupt):
        write(partial(made, ends=1), like, tmp_path / "in.tif", tmp_path / "out", SAME)
    assert asked == {0}
    asked.clear()
    _, rounded, averaged = write(made, like, tmp_path / "in.tif", tmp_path / "out", SAME)
    assert asked == {1, 2}
    assert rounded.startswith("note: in.tif varies by 0.3 grey levels (standard deviation), which rounding loses")
    assert averaged == "mean of 8 to 24 samples"
    lines = write(made, like, tmp_path / "in.tif", tmp_path / "floats")
    assert lines[1:] == ["mean of 8 to 24 samples"]


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
    (line,) = write(lambda which: (Result(frame, None, None) for _ in which), like, path, tmp_path, SAME)
    found = np.load(path)
    assert found.dtype == kind
    assert found[0, 1] == limits.min
    assert float(found[0, 0]) >= 0.999 * float(limits.max)
    assert found[5, 5] == 42
    assert "2 pixel(s) clipped" in line


def test_what_breaks_on_the_way_leaves_nothing(tmp_path):
    def frames(which):
        for _ in which:
            yield Result(np.zeros((1, 16, 16), np.float32), None, None)
            raise InputError("the file is broken from here")

    like = images.from_array(np.zeros((2, 16, 16), np.uint8), "TYX")
    with pytest.raises(InputError, match="broken"):
        write(frames, like, tmp_path / "in.tif", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InputError, match="cannot be written"):
        written(tmp_path, np.zeros((1, 1, 16, 16), np.float32), images.from_array(np.zeros((1, 16, 16)), "TYX"))


# ---- stopped on the way


class Stopped(BaseException):
    """As a kill or Ctrl-C."""


def stack(tmp_path, count=6):
    frames = np.random.default_rng(0).normal(100, 9, (count, 1, 16, 16)).astype(np.float32)
    return frames, images.from_array(np.zeros((count, 16, 16), np.uint8), "TYX")


def stop_after(tmp_path, frames, like, number, seen, name="in.tif", **how):
    """Make frames, and be stopped when ``number`` of them have been made; `seen` takes note of which."""

    def make(which):
        for index in which:
            if len(seen) == number:
                raise Stopped
            seen.append(index)
            yield Result(frames[index], None, None)

    return write(make, like, tmp_path / name, tmp_path, **how)


@pytest.mark.parametrize("kind", ["tif", "ome.tif", "ome.zarr", "npy"])
def test_frames_that_are_there_are_not_made_again(tmp_path, kind):
    frames, like = stack(tmp_path)
    wanted, seen = outputs.Wanted(format=kind), []
    with pytest.raises(Stopped):
        stop_after(tmp_path, frames, like, 4, seen, wanted=wanted)
    assert not (tmp_path / f"in.{kind}").exists()
    again = []
    stop_after(tmp_path, frames, like, 99, again, wanted=wanted)
    assert (seen, again) == ([0, 1, 2, 3], [4, 5])
    (path,) = tmp_path.iterdir()
    found = images.read(path, axes="TYX")
    np.testing.assert_array_equal(found.data, frames[:, 0])
    assert recipe.of(path) == ASKED  # and says how it was made


def test_what_was_begun_otherwise_is_never_mixed_in(tmp_path, capsys):
    frames, like = stack(tmp_path)
    for how in ({"asked": Recipe({"samples": 4})}, {"anew": True}, {"wanted": outputs.Wanted(dtype="same")}):
        with pytest.raises(Stopped):
            stop_after(tmp_path, frames, like, 4, [])
        wanted, asked = how.get("wanted", outputs.Wanted()), how.get("asked", ASKED)
        if "asked" in how:
            with pytest.raises(InputError, match="samples = 3, now it is 4"):
                outputs.left([tmp_path / "in.tif"], tmp_path, wanted, lambda _, asked=asked: asked, False)
        seen = []
        if "wanted" in how:  # its dtype is a part of the recipe
            how["asked"] = Recipe({"samples": 3, "dtype": "same"})
        stop_after(tmp_path, frames, like, 99, seen, **how)
        assert seen == list(range(6))
        assert [path.name for path in tmp_path.iterdir()] == ["in.tif"]
        (tmp_path / "in.tif").unlink()
    assert "starting anew: unfinished work was begun with samples = 3, now it is 4" in capsys.readouterr().out


def test_a_finished_result_is_skipped_only_if_it_was_made_so(tmp_path):
    frames, like = stack(tmp_path)
    stop_after(tmp_path, frames, like, 99, [])
    source = tmp_path / "in.tif"

    def left(overwrite=False, wanted=None, **values):
        return outputs.left([source], tmp_path, wanted or outputs.Wanted(), lambda _: Recipe(values), overwrite)

    assert left(samples=3) == []
    assert left(samples=3, wanted=outputs.Wanted(std=True)) == [source]  # one of its results is not there
    for values, told in (({"samples": 5}, "samples = 3, now it is 5"), ({"samples": 3, "input": "b"}, "another input")):
        with pytest.raises(InputError, match=told):
            left(**values)
        assert left(overwrite=True, **values) == [source]
    images.write(source, frames[:, 0], like, overwrite=True)
    with pytest.raises(InputError, match="does not say how it was made"):
        left(samples=3)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_not_filled_further_and_one_thing_is_said_to_do(tmp_path, capsys, monkeypatch, number):
    """Half-written frames are removed at once, and those of a kill when the work goes on."""
    frames, like = stack(tmp_path)

    def full(*_):
        raise OSError(number, os.strerror(number))

    def filling(file, works=np.savez, **arrays):
        if len(list(tmp_path.glob(".in.*.frames/*.npz"))) == 2:
            file.write(b"some of it")
            full()
        works(file, **arrays)

    said = rf"cannot be written \({os.strerror(number)}\): free some space and give the same command with --resume$"
    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", filling)
        with pytest.raises(InputError, match=said):
            stop_after(tmp_path, frames, like, 99, [])
    (place,) = tmp_path.iterdir()
    assert not list(place.glob("*.part"))
    assert "2 of 6 frame(s) are kept: to go on, give the same command with --resume" in capsys.readouterr().out
    (place / "0123456789abcdef.part").write_bytes(b"of a kill")
    with pytest.raises(Stopped):
        stop_after(tmp_path, frames, like, 1, again := [])
    assert again == [2]
    assert not list(place.glob("*.part"))
    with monkeypatch.context() as patch:  # or the disk is full when all frames are there
        patch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match=said):
            stop_after(tmp_path, frames, like, 99, [])
    stop_after(tmp_path, frames, like, 0, [])
    assert [path.name for path in tmp_path.iterdir()] == ["in.tif"]


def test_what_fails_beside_writing_is_called_by_its_name(tmp_path):
    """The input's disk, or a process that cannot be started: another folder for the results would not help."""
    frames, like = stack(tmp_path)
    errors = {
        "noisy.zarr/0/1: Input/output error: give the same": OSError(errno.EIO, "Input/output error", "noisy.zarr/0/1"),
        "in.tif: No more processes: .* and fewer --workers": OSError(errno.EAGAIN, "No more processes"),
    }
    for kept, (said, error) in enumerate(errors.items(), 1):

        def failing(which, error=error):
            yield Result(frames[next(which)], None, None)
            next(which)
            raise error

        with pytest.raises(InputError, match=said) as told:
            write(failing, like, tmp_path / "in.tif", tmp_path)
        assert "-o" not in str(told.value).split()
        assert len(list(tmp_path.glob(".in.*.frames/*.npz"))) == kept


@pytest.fixture
def umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


@contextmanager
def somebody_else(file):
    """Another user, whom root can become; nobody else can, to whom the file is closed instead."""
    if os.geteuid():
        file.chmod(0)
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_a_folder_that_several_users_share(tmp_path, monkeypatch, umask):
    monkeypatch.chdir(tmp_path)  # the folders above are closed to others
    here, lock = Path(), Path(writing.LOCK)
    with writing.claim(here, ["a.tif"]):
        assert lock.stat().st_mode & 0o777 == 0o644  # nobody else may write to the folder
    here.chmod(0o2777)
    with writing.claim(here, ["a.tif"]):
        assert lock.stat().st_mode & 0o777 == 0o666
    lock.touch(0o644)  # of another program, or an older one
    said = rf"{re.escape(writing.LOCK)}: belongs to {lock.owner()} and cannot be opened"
    with somebody_else(lock), pytest.raises(InputError, match=said), writing.claim(here, ["b.tif"]):
        pass


@pytest.mark.parametrize("letter", ["a", "é"])
@pytest.mark.parametrize("kind", ["tif", "ome.zarr"])
def test_a_name_as_long_as_the_disk_takes_works(tmp_path, kind, letter):
    """Names on the way to it are longer, but for that."""
    frames, like = stack(tmp_path)
    most = os.pathconf(tmp_path, "PC_NAME_MAX") if hasattr(os, "pathconf") else 255
    stem = letter * ((most - 1 - len(kind)) // len(letter.encode()) - 1)
    one, other = (f"{stem}{end}.{kind}" for end in "xy")
    with pytest.raises(Stopped):
        stop_after(tmp_path, frames, like, 4, [], one)
    for name, numbers in ((other, [0, 1, 2, 3, 4, 5]), (one, [4, 5])):  # frames of the one are not those of the other
        stop_after(tmp_path, frames, like, 99, seen := [], name)
        assert seen == numbers
    assert {path.name for path in tmp_path.iterdir()} == {one, other}
    (tmp_path / f".{writing.brief(one)}.999.part").touch()  # of a kill
    (tmp_path / f".{writing.brief(other)}.999.part").touch()
    with writing.claim(tmp_path, [one]):
        pass
    assert len(list(tmp_path.iterdir())) == 3
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match=r"_std.*too long\): give the file a shorter name"):
        outputs.refuse_collisions([Path(one)], tmp_path / "out", outputs.Wanted(std=True), overwrite=False)


def test_many_frames_share_files(tmp_path, monkeypatch):
    monkeypatch.setattr(unfinished, "MOST_FILES", 3)
    frames, like = stack(tmp_path, 8)
    seen, again = [], []
    with pytest.raises(Stopped):
        stop_after(tmp_path, frames, like, 5, seen)
    stop_after(tmp_path, frames, like, 99, again)
    assert again == [3, 4, 5, 6, 7]  # three to a file
    np.testing.assert_array_equal(images.read(tmp_path / "in.tif").data, frames[:, 0])


def test_frames_that_a_power_cut_spoiled_are_made_again(tmp_path):
    frames, like = stack(tmp_path)
    with pytest.raises(Stopped):
        stop_after(tmp_path, frames, like, 5, [])
    files = sorted(next(tmp_path.iterdir()).glob("*.npz"))
    files[1].write_bytes(b"")
    spoiled = bytearray(files[2].read_bytes())
    spoiled[300] ^= 1
    files[2].write_bytes(spoiled)
    with pytest.raises(InputError, match="give the same command with --resume"):
        stop_after(tmp_path, frames, like, 99, again := [])
    assert again == [1, 5]
    stop_after(tmp_path, frames, like, 99, last := [])
    assert last == [2]
    np.testing.assert_array_equal(images.read(tmp_path / "in.tif").data, frames[:, 0])


@pytest.mark.parametrize("part", ["frames.npy", "facts.npy"])
def test_frames_that_somebody_made_large_take_no_memory(tmp_path, part):
    frames, like = stack(tmp_path, 2)
    how = {"wanted": SAME} if part == "facts.npy" else {}
    with pytest.raises(Stopped):
        stop_after(tmp_path, frames, like, 1, [], **how)
    (file,) = next(tmp_path.iterdir()).glob("*.npz")
    with zipfile.ZipFile(file) as there:
        parts = {name: there.read(name) for name in there.namelist()}
    parts[part] = io.BytesIO()
    np.save(parts[part], np.zeros(2**26, np.uint8))
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as spoiled:
        for name, content in parts.items():
            spoiled.writestr(name, content if name != part else content.getvalue())
    tracemalloc.start()
    with pytest.raises(InputError, match="was damaged"):
        stop_after(tmp_path, frames, like, 99, [], **how)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**22
    stop_after(tmp_path, frames, like, 99, again := [], **how, overwrite=True)
    assert again == [0]


def test_the_fingerprint_of_a_file_or_a_store_is_that_of_its_content(tmp_path):
    pixels = np.random.default_rng(0).normal(size=(4, 300, 300)).astype(np.float32)
    for name in ("a.tif", "a.ome.zarr"):
        path = tmp_path / name
        images.write(path, pixels, images.from_array(pixels, "TYX"))
        first = recipe.fingerprint(path)
        path.rename(tmp_path / f"moved {name}")
        assert recipe.fingerprint(tmp_path / f"moved {name}") == first
        images.write(path, pixels + 1, images.from_array(pixels, "TYX"))
        assert recipe.fingerprint(path) != first
