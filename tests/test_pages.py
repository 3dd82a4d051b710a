"""The pages say what the code and the measurements say."""

import re
import shlex
import shutil
import sys
import tomllib
from pathlib import Path

import pytest
import tiny

import cosdd
from cosdd import cli, demo, images, training

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import pages  # noqa: E402


@pytest.mark.parametrize("page", pages.WRITTEN)
def test_what_is_generated_is_that_of_the_code_and_the_measurements(page):
    assert (ROOT / page).read_text(encoding="utf-8") == pages.WRITTEN[page](), "run python -m benchmarks.pages"


def test_links_and_pictures_exist():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_page_is_in_the_site():
    """And no page links to a file that the site does not have."""
    site = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]
    listed = [name for entry in site["nav"] for name in entry.values()]
    assert sorted(listed) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))
    for page in (ROOT / "docs").glob("*.md"):
        assert "](../" not in page.read_text(encoding="utf-8"), f"{page.name} links out of the site"


# What prepares a machine is not repeated here; that what it names exists is.
PREPARING = ("make ", ". .venv/", "python -m venv ", "python -m pip install ")


def snippets(page: Path) -> list[tuple[str, str]]:
    """(language, text) of each code block that is meant to be run."""
    found = re.findall(r"```(sh|python)\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    lines = [("sh", line) for kind, text in found if kind == "sh" for line in text.splitlines() if line.strip()]
    return lines + [(kind, text) for kind, text in found if kind == "python"]


RUN = [p for p in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if snippets(p)]


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory):
    """A folder with what the pages speak of: images, and models of either method, barely trained."""
    folder = tmp_path_factory.mktemp("laboratory")
    noisy = tiny.stripes(3)[:, 0]
    for name in ("stack.tif", "clean.tif"):
        images.write(folder / name, noisy, images.from_array(noisy, "TYX"))
    for name, method in (("stack", "blind-row"), ("paper", "cosdd")):
        settings = {"train": tiny.TRAIN | {"steps": 1}, "model": tiny.MODEL, "blind_row": {"features": [4]}}
        model = cosdd.train(noisy, method=method, noise_axis="x", settings=settings, quiet=True)
        model.save(folder / f"{name}.safetensors")
    return folder


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_every_command_and_snippet_of_the_pages_runs(page, laboratory, tmp_path, monkeypatch):
    """Line by line as they stand there, from top to bottom; only training is cut short, and networks are small."""
    here = tmp_path / "here"
    shutil.copytree(laboratory, here)
    monkeypatch.chdir(here)
    begin = training.start

    def start(settings, frames):
        train = settings.train.model_copy(update={"steps": 1, "validations": 1})
        small = settings.blind_row.model_copy(update={"features": (4,)})
        return begin(settings.model_copy(update={"train": train, "blind_row": small}), frames)

    monkeypatch.setattr(training, "start", start)
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    monkeypatch.setattr(demo, "TRAIN_IMAGES", 4)
    monkeypatch.setattr(demo, "TEST_IMAGES", 2)
    for kind, text in snippets(page):
        if kind == "python":
            for name in re.findall(r'save\("(.*?)"', text):
                Path(name).unlink(missing_ok=True)
            exec(text, {"noisy": tiny.stripes(3)[:, 0]})
            continue
        words = shlex.split(text, comments=True)
        if text.startswith(PREPARING):
            assert words[0] != "make" or words[1] in targets, f"{page.name}: {text}"
            continue
        assert words[0] == "cosdd", f"{page.name}: {text}"
        replacing = [] if words[1] in ("inspect", "--version") else ["--overwrite"]
        monkeypatch.setattr(sys, "argv", [*words, *replacing])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code in (0, None), f"{page.name}: {text}"
        assert "-o" not in words or Path(words[words.index("-o") + 1]).exists(), f"{page.name}: {text}"
