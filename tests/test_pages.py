"""The pages say what the code and the measurements say."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import pages  # noqa: E402


def test_figures_in_the_readme_are_the_measured_ones():
    assert (ROOT / "README.md").read_text(encoding="utf-8") == pages.readme(), "run python -m benchmarks.pages"


def test_figures_of_the_blind_row_page_are_the_measured_ones():
    assert (ROOT / "docs" / "blind-row.md").read_text(encoding="utf-8") == pages.blind_row(), (
        "run python -m benchmarks.pages"
    )


def test_figures_of_the_reliability_page_are_the_measured_ones():
    assert (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8") == pages.reliability(), (
        "run python -m benchmarks.pages"
    )


def test_settings_page_is_that_of_the_code():
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == pages.settings(), (
        "run python -m benchmarks.pages"
    )


def test_links_and_pictures_exist():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
