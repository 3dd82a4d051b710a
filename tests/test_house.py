"""The house stays in order: data flows one way, and help is instant."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import cosdd

SOURCE = Path(cosdd.__file__).parent
# Each room may use those before it.
ROOMS = ["errors", "config", "overrides", "progress", "writing", "lazy", "zarray", "metadata", "omezarr", "axes"]
ROOMS += ["tiff", "images", "specimen", "simulate", "simulation", "metrics", "evaluation", "excerpts", "correlation"]
ROOMS += [
    "swing",
    "inspection",
    "noisefloor",
    "outliers",
    "data",
    "preparation",
    "likeness",
    "device",
    "processes",
    "feed",
]
ROOMS += [
    "model",
    "updates",
    "tensorfile",
    "latents",
    "estimates",
    "tiles",
    "pyramid",
    "sampling",
    "calibration",
    "checkpoint",
    "training",
    "snapshot",
    "generation",
]
ROOMS += ["denoise", "recipe", "unfinished", "outputs", "workers"]
ROOMS += ["checks", "report", "preview", "demo", "commands", "witness", "cli_train", "cli", "__main__"]


def room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Rooms that a file imports, at its top or inside a function."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {f"{node.module}.{a.name}" for node in nodes if isinstance(node, ast.ImportFrom) for a in node.names}
    return {name.split(".")[1] for name in names if name.startswith("cosdd.")} - {"__version__"}


FILES = [path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_data_flows_one_way(path):
    allowed = set(ROOMS[: ROOMS.index(room(path))])
    if room(path) == "model":
        allowed = {"errors", "config", "noisefloor", "model"}
    assert imported(path) <= allowed


def test_every_room_is_known():
    assert {room(path) for path in FILES} == set(ROOMS)


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_help_loads_nothing_heavy():
    """`cosdd --help` in half a second: torch alone takes longer."""
    code = """
import sys
sys.argv = ["cosdd", "--help"]
from cosdd.cli import main
try:
    main()
except SystemExit as end:
    print("exit", end.code)
print("loaded", *sorted({name.split(".")[0] for name in sys.modules}))
"""
    shown, loaded = run(code).rsplit("loaded", 1)
    assert "exit 0" in shown
    verbs = ["demo", "inspect", "train", "denoise", "report", "evaluate", "simulate", "generate"]
    assert re.findall(rf"^\W*({'|'.join(verbs)}) ", shown, re.MULTILINE) == verbs  # in the order of use
    assert not {"torch", "numpy", "scipy", "tifffile", "lightning_fabric", "safetensors"} & set(loaded.split())


@pytest.mark.parametrize("loading", ["importlib.metadata", "typer", "rich.console"])
def test_an_interrupt_while_it_is_loaded_is_said_in_a_line(loading):
    """It takes a second where the disk is slow: whoever sees that a name is mistyped is quicker."""
    project = tomllib.loads((SOURCE.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, main = project["scripts"]["cosdd"].split(":")
    code = f"""
import sys
class CtrlC:
    def find_spec(self, name, *_):
        if name == {loading!r}:
            raise KeyboardInterrupt
sys.meta_path.insert(0, CtrlC())
sys.argv = ["cosdd", "--version"]
from {module} import {main}
{main}()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "cosdd: interrupted\n")


@pytest.mark.parametrize("verb", ["train", "denoise", "report"])
def test_a_mistyped_name_is_told_before_torch_is_loaded(verb, tmp_path):
    model = [] if verb == "train" else [str(tmp_path / "model.safetensors")]
    code = f"""
import sys
sys.argv = ["cosdd", {verb!r}, *{model}, "no-such.tif"]
from cosdd.cli import main
try:
    main()
except SystemExit as end:
    print(end.code, "torch" in sys.modules)
"""
    assert run(code).split() == ["2", "False"]


def test_the_shapes_of_a_model_are_told_without_torchs_compiler():
    """`load` asks for them before it believes a file; the compiler alone takes two seconds to import."""
    code = """
import sys, torch
from cosdd import config, model
with torch.device("meta"):
    model.build(config.build("tiny", {"method": "blind-row"}))
print("torch._dynamo" in sys.modules)
"""
    assert run(code).split() == ["False"]


def test_the_public_surface_is_light_and_says_what_it_has():
    code = "import sys, cosdd; print('torch' in sys.modules, 'numpy' in sys.modules, *cosdd.__all__)"
    torch_loaded, numpy_loaded, *names = run(code).split()
    assert (torch_loaded, numpy_loaded) == ("False", "False")
    assert {"train", "load", "InputError", "__version__"} <= set(names)
    assert all(hasattr(cosdd, name) for name in names)


def test_nothing_reaches_for_the_network_while_it_is_loaded():
    code = """
import importlib, sys
seen = []
names = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.bind", "socket.sendto", "urllib")
sys.addaudithook(lambda event, given: seen.append(event) if event.startswith(names) else None)
for name in {rooms}:
    if name != "__main__":
        importlib.import_module("cosdd." + name)
print(*seen)
"""
    assert run(code.replace("{rooms}", repr(ROOMS))).strip() == ""
