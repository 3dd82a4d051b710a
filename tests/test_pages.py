"""The pages say what the code and the measurements say."""

import re
import shlex
import sys
from pathlib import Path

import pytest
import tiny

import cosdd
from cosdd import cli, images

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


def test_commands_of_the_generate_page_run(tmp_path, monkeypatch):
    """Line by line as they stand there, with small models of the names they use."""
    monkeypatch.chdir(tmp_path)
    noisy = tiny.stripes(3)[:, 0]
    images.write(Path("stack.tif"), noisy, images.from_array(noisy, "TYX"))
    for name, method in (("stack", "blind-row"), ("paper", "cosdd")):
        settings = {"train": tiny.TRAIN | {"steps": 1}, "model": tiny.MODEL, "blind_row": {"features": [4]}}
        cosdd.train(noisy, method=method, noise_axis="x", settings=settings, quiet=True).save(f"{name}.safetensors")
    page = (ROOT / "docs" / "generate.md").read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    assert len(lines) == 4
    for line in lines:
        monkeypatch.setattr(sys, "argv", shlex.split(line))
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code in (0, None), line
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(block, {})
    assert sorted(path.name for path in Path("noisy_again").iterdir()) == ["stack_1.tif", "stack_2.tif"]
    assert sorted(path.name for path in Path("new").iterdir()) == ["generated_clean.tif", "generated_noisy.tif"]
