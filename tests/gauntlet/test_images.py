"""Whatever the image: it works, or one line says why not; no traceback, nothing half-written, no long wait.

`make test` tries a part of it, `make gauntlet` all, and counts.
"""

import os
import sys
import time
import traceback
from pathlib import Path

import pytest
import tiny

from cosdd import checkpoint, cli
from gauntlet import cases

FULL = os.environ.get("COSDD_GAUNTLET") == "full"
LONGEST = 30.0  # seconds
TRAIN = ["train.steps=1", "train.batch=1", "train.crop=16", "blind_row.features=[4]"]
COUNTED: dict[str, int] = {}


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("gauntlet") / "model.safetensors"
    checkpoint.save(tiny.checkpoint(1050.0, 100.0), path)
    return path


def commands(model: Path, image: Path, folder: Path) -> list[list[str]]:
    train = ["train", str(image), "-o", str(folder / "m.safetensors")]
    return [
        ["inspect", str(image)],
        ["denoise", str(model), str(image), "-o", str(folder / "out"), "--samples", "2", "--dtype", "same"],
        train + [part for setting in TRAIN for part in ("--set", setting)],
        ["report", str(model), str(image), "-o", str(folder / "report.html")],
        ["evaluate", str(image), str(image)],
        ["generate", str(model), str(image), "-o", str(folder / "generated")],
        ["simulate", "row-ar", str(image), "-o", str(folder / "simulated")],
    ]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # numpy leaves files open
@pytest.mark.parametrize(("name", "write"), cases.every(40 if FULL else 2), ids=lambda value: str(value)[:40])
def test_an_image_works_or_a_line_says_why_not(name, write, model, tmp_path, monkeypatch, capsys):
    image = tmp_path / name
    write(image)
    before = image.read_bytes()
    for command in commands(model, image, tmp_path):
        monkeypatch.setattr(sys, "argv", ["cosdd", *command])
        began, fault = time.perf_counter(), None
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            fault, code = traceback.format_exc(), -1
        said = capsys.readouterr().err.strip()
        assert fault is None, f"{command[0]}: {fault}"
        assert code in (0, 1, 2), f"{command[0]} ended with {code}"
        assert len(said.splitlines()) == (1 if code == 2 else 0), f"{command[0]}, exit code {code}: {said}"
        assert time.perf_counter() - began < LONGEST, f"{command[0]} took too long"
        assert not list(tmp_path.rglob(".*")), f"{command[0]} left something half-written"
        if code == 2:
            written = {path for path in tmp_path.rglob("*") if path.is_file()} - {image}
            assert not [path for path in written if path.parent.name == "out" and command[0] == "denoise"]
        outcome = "refused in a line" if code == 2 else "worked"
        COUNTED[outcome] = COUNTED.get(outcome, 0) + 1
    assert image.read_bytes() == before


def test_what_is_broken_in_a_list_does_not_keep_the_others_from_being_done(model, tmp_path, monkeypatch, capsys):
    """As a shell spells out a pattern: with links that lead nowhere, pipes, folders, and broken files of one name."""
    monkeypatch.chdir(tmp_path)
    for name in ("first.tif", "last.tif", "b/same.tif"):
        Path(name).parent.mkdir(exist_ok=True)
        cases.tiff(cases.STACK)(Path(name))
    for name in ("a/same.tif", "c/same.tif"):
        Path(name).parent.mkdir()
        Path(name).write_bytes(b"broken")
    Path("gone.tif").symlink_to("nowhere.tif")
    Path("loop.tif").symlink_to("loop.tif")
    Path("folder.tif").mkdir()
    os.mkfifo("pipe.tif")
    broken = ["gone.tif", "loop.tif", "folder.tif", "pipe.tif", "a/same.tif", "c/same.tif"]
    files = ["first.tif", *broken[:5], "b/same.tif", "c/same.tif", "last.tif"]
    denoise = ["denoise", str(model), "--samples", "1"]
    for command in (denoise, [*denoise, "--resume"], ["generate", str(model)], ["inspect"]):
        folder = Path(f"of {command[0]} {command[-1]}")
        writes = ["-o", str(folder)] if command[0] != "inspect" else []
        monkeypatch.setattr(sys, "argv", ["cosdd", *command, *files, *writes])
        with pytest.raises(SystemExit) as end:
            cli.main()
        lines = capsys.readouterr().err.splitlines()
        assert end.value.code == 1
        assert [line.split(": ")[1] for line in lines] == broken
        if writes:
            assert sorted(path.name for path in folder.iterdir()) == ["first.tif", "last.tif", "same.tif"]
    Path("a/same.tif").write_bytes(Path("b/same.tif").read_bytes())
    monkeypatch.setattr(sys, "argv", ["cosdd", "denoise", str(model), *files])
    with pytest.raises(SystemExit):
        cli.main()
    assert "would both be written" in capsys.readouterr().err
    assert not Path("denoised").exists()


@pytest.mark.skipif(not FULL, reason="counted by make gauntlet")
def test_what_was_tried_is_written_down(request):
    from benchmarks.record import write

    assert not request.session.testsfailed, "what failed is to be mended, not to be left out of the count"
    write("gauntlet", "make gauntlet", {"bad images": len(cases.every(40)), "commands": COUNTED, "tracebacks": 0})
