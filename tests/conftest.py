"""Shapes and types are checked at run time in the tests, in the rooms where annotations say shapes."""

import os
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# Before anything imports the package.
SHAPED = ["model", "latents", "estimates", "specimen", "calibration", "feed", "updates"]
_hook = install_import_hook([f"cosdd.{room}" for room in SHAPED], "shapes.checked")

import torch  # noqa: E402

DATA = Path(os.environ.get("COSDD_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(autouse=True)
def _quiet_and_equal():
    """Each test starts from the same random numbers."""
    torch.manual_seed(0)


@pytest.fixture
def shared_data() -> Path:
    """Real images that are never part of the project; tests that need them are skipped without them."""
    if not DATA.is_dir():
        pytest.skip(f"no real images at {DATA}: set COSDD_DATA")
    return DATA
