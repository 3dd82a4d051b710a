"""A stranger's file cannot run code, take memory without bound, reach the network, or write where it was not asked to.

The three readers of such files are fuzzed for ten minutes each by `make fuzz`; here they get a few hundred examples.
"""

import io
import json
import os
import random
import re
import struct
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import tifffile
import tiny
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cosdd import checkpoint, config, images, overrides
from cosdd.errors import InputError
from gauntlet import fuzz, readers
from gauntlet.process import FORKED, Cosdd

FULL = os.environ.get("COSDD_GAUNTLET") == "full"
EXAMPLES = 2000 if FULL else 60
WATCHED = pytest.mark.skipif(sys.platform != "linux", reason="processes and limits as Linux has them")

common = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip


def spoiled(reader: str) -> st.SearchStrategy[bytes]:
    """A whole file with changes by chance, or any bytes."""
    whole = readers.examples(reader)
    changed = st.tuples(st.sampled_from(whole), st.integers())
    made = changed.map(lambda drawn: fuzz.mutated(drawn[0], random.Random(drawn[1])))
    return st.one_of(made, made, made, st.binary(max_size=300))


@common
@given(spoiled("model"))
def test_any_model_file_is_read_or_refused(content):
    readers.model(content)


@common
@given(st.one_of(spoiled("configuration"), st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace"))))
def test_any_configuration_is_read_or_refused(content):
    readers.configuration(content)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # numpy leaves files open
@common
@given(spoiled("metadata"))
def test_any_metadata_are_read_or_refused(content):
    readers.metadata(content)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just(10**30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
names = st.sampled_from([f"{part}.{name}" for part in ("model", "blind_row", "train") for name in getattr(
    config, {"model": "Model", "blind_row": "BlindRow", "train": "Train"}[part]).model_fields])  # fmt: skip


@common
@given(names, values)
def test_any_value_of_any_setting_is_taken_or_refused_in_a_line(name, value):
    part, _, field = name.partition(".")
    said, built = "", None
    try:
        built = config.build("tiny", {part: {field: value}})
    except InputError as error:
        said = str(error)
    assert "\n" not in said
    assert len(said) < 600
    if built is not None:
        assert config.Config.model_validate(json.loads(built.model_dump_json())) == built


# --------------------------------------------------------------------------------------------------- memory


def header_only(header: object, tail: bytes = b"") -> bytes:
    said = json.dumps(header).encode()
    return struct.pack("<Q", len(said)) + said + tail


def large_files(folder: Path) -> list[tuple[str, bytes, str]]:
    """(name, content, reader): each says that it is far larger than it is."""
    path = folder / "whole.safetensors"
    checkpoint.save(tiny.checkpoint(), path)
    whole = tiny.without_checksum(path.read_bytes())
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    first = next(name for name in header if name != "__metadata__")
    vast = header | {first: {"dtype": "F32", "shape": [2**20, 2**16], "data_offsets": [0, 2**38]}}
    many = {f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(20_000)}
    inside = json.loads(header["__metadata__"]["cosdd"])
    inside["settings"]["model"] |= {"levels": 20, "features": 512, "max_features": 1024, "noise_features": 512}
    asking = header | {"__metadata__": header["__metadata__"] | {"cosdd": json.dumps(inside)}}
    npy = io.BytesIO()
    np.lib.format.write_array_header_1_0(npy, {"descr": "<f4", "fortran_order": False, "shape": (2**40, 16)})
    tiff = io.BytesIO()
    tifffile.imwrite(tiff, np.zeros((1, 1), np.uint8), compression="zlib")
    wide = tiff.getvalue()
    for tag in (256, 257):  # width and length, 1 as a 16-bit or 32-bit number
        place = wide.index(struct.pack("<H", tag), 8)
        wide = wide[:place] + struct.pack("<HHII", tag, 4, 1, 2**19) + wide[place + 12 :]
    png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 2**30, 2**30) + b"\x08\0\0\0\0" + b"\0" * 99
    bomb = "\n".join(f"k{i}: &k{i} [{', '.join([f'*k{i - 1}'] * 9)}]" if i else "k0: &k0 [x]" for i in range(40))
    return [
        ("header.safetensors", struct.pack("<Q", 2**40) + b"{}", "model"),
        ("header of a gigabyte.safetensors", struct.pack("<Q", 2**30) + b"{" + b" " * 10**6, "model"),
        ("tensor.safetensors", header_only(vast, whole[8 + length :]), "model"),
        ("tensors.safetensors", header_only(header | many, whole[8 + length :]), "model"),
        ("network.safetensors", header_only(asking, whole[8 + length :]), "model"),
        ("brackets.safetensors", struct.pack("<Q", 10**6) + b"[" * 10**6, "model"),
        ("bomb.yaml", f"{bomb}\nmodel: {{levels: *k39}}\n".encode(), "configuration"),
        ("deep.yaml", b"model: " + b"[" * 50_000, "configuration"),
        ("long.yaml", b"model: [" + b"1, " * 10**6 + b"]", "configuration"),
        ("merge.yaml", b"a: &a {x: 1}\ntrain:\n  <<: [*a, *a]\n", "configuration"),
        ("number.yaml", b"train: {steps: 0x" + b"f" * 50_000 + b"}", "configuration"),
        ("x.npy", npy.getvalue(), "image"),
        ("x.tif", wide, "image"),
        ("x.png", png, "image"),
    ]


def _refused(folder: Path) -> None:
    """In a process that may take little memory: every file is refused, quickly, before that matters."""
    import resource

    made = large_files(folder)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + 300 * 2**20,) * 2)
    read = {"model": checkpoint.load, "image": images.read}
    read["configuration"] = lambda path: config.build("tiny", overrides.from_file(path))
    said = {}
    for name, content, reader in made:
        (folder / name).write_bytes(content)
        began = time.process_time()
        try:
            read[reader](folder / name)
            said[name] = "was read"
        except InputError as error:
            said[name] = str(error)
        assert time.process_time() - began < 5, name
        assert len(said[name]) < 600
    (folder / "said.json").write_text(json.dumps(said))


@WATCHED
def test_what_a_file_says_of_its_size_is_checked_before_memory_is_taken(tmp_path):
    process = FORKED.Process(target=_refused, args=(tmp_path,))
    process.start()
    process.join(120)
    assert process.exitcode == 0
    said = json.loads((tmp_path / "said.json").read_text())
    assert len(said) == 14
    for name, line in said.items():
        assert line != "was read", name
        assert "out of memory" not in line, name


# ---------------------------------------------------------------------------------------------- XML and YAML


def described(folder: Path, text: str, name: str = "x.ome.tif") -> Path:
    path = folder / name
    tifffile.imwrite(path, readers.FRAMES, description=text.encode(), metadata=None)
    return path


def ome(folder: Path, before: str = "", name: str = "x") -> str:
    tifffile.imwrite(folder / "plain.ome.tif", readers.FRAMES, metadata={"axes": "TYX", "Channel": {"Name": [name]}})
    with tifffile.TiffFile(folder / "plain.ome.tif") as tif:
        text = tif.ome_metadata or ""
    return text.replace("<OME ", before + "<OME ", 1)


def test_xml_cannot_grow_or_reach_out(tmp_path):
    laughs = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' if i else '<!ENTITY l0 "ha">' for i in range(12))
    for text in (
        ome(tmp_path, before=f"<!DOCTYPE OME [{laughs}]>", name="n").replace('Name="n"', 'Name="&l11;"'),
        ome(tmp_path, before='<!DOCTYPE OME [<!ENTITY f SYSTEM "file:///etc/passwd">]>'),
        ome(tmp_path, before='<!DOCTYPE OME SYSTEM "http://example.org/evil.dtd">'),
    ):
        began = time.process_time()
        with pytest.raises(InputError, match="entities"):
            images.read(described(tmp_path, text))
        assert time.process_time() - began < 5


def test_pages_in_a_circle_end(tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", readers.FRAMES[0], metadata=None)
    with tifffile.TiffFile(tmp_path / "x.tif") as tif:
        page = tif.pages[0]
        following = page.offset + 2 + 12 * len(page.tags)  # type: ignore[union-attr]
    content = bytearray((tmp_path / "x.tif").read_bytes())
    content[following : following + 4] = struct.pack("<I", 8)
    (tmp_path / "x.tif").write_bytes(content)
    with pytest.raises(InputError, match="circle"):
        images.read(tmp_path / "x.tif")


@pytest.mark.parametrize("name", ["/etc/passwd", "../outside.ome.tif", "..\\outside.ome.tif"])
def test_an_image_names_no_files_of_other_folders(tmp_path, name):
    tifffile.imwrite(tmp_path / "outside.ome.tif", readers.FRAMES, metadata={"axes": "TYX"})
    (tmp_path / "in").mkdir()
    pages = f'<TiffData IFD="0" PlaneCount="2"><UUID FileName="{name}">urn:uuid:1</UUID></TiffData>'
    text = re.sub(r"<TiffData.*?(/>|</TiffData>)", lambda _: pages, ome(tmp_path))
    assert name in text
    with pytest.raises(InputError, match="names the file"):
        images.read(described(tmp_path / "in", text))


def test_yaml_makes_no_objects(tmp_path):
    harm = tmp_path / "harm"
    for text in (
        f"!!python/object/apply:os.system ['touch {harm}']",
        f"model: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{harm}']]",
        f"model: !!python/object/new:os.system [touch {harm}]",
    ):
        (tmp_path / "c.yaml").write_text(text)
        with pytest.raises(InputError):
            config.build("tiny", overrides.from_file(tmp_path / "c.yaml"))
        with pytest.raises(InputError):
            config.build("tiny", overrides.from_assignments([f"train.lr={text}"]))
    assert not harm.exists()


def test_a_written_configuration_can_be_read_again(tmp_path):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config.build("small").model_dump(mode="json")))
    assert config.build("tiny", overrides.from_file(tmp_path / "c.yaml")) == config.build("small")


# ------------------------------------------------------------------------------------- names, pages, terminals

EVIL = "<img src=x onerror=alert(1)>"


class Tags(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, tuple[str, ...]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, tuple(name for name, _ in attrs)))


def named_image(path: Path, channels: list[str]) -> None:
    frames = np.stack([tiny.stripes(3)[:, 0]] * 2, 1)
    tifffile.imwrite(path, frames, metadata={"axes": "TCYX", "Channel": {"Name": channels}}, ome=True)


@pytest.fixture
def folder(tmp_path) -> Path:
    place = tmp_path / "work"
    place.mkdir()
    checkpoint.save(tiny.checkpoint(1050.0, 100.0, channels=2), place / "given.safetensors")
    return place


@WATCHED
def test_the_report_shows_names_and_runs_none_of_them(folder):
    pages = []
    for name, channels in (("plain", ["a", "b"]), (EVIL, ["</script><script>alert(1)</script>", EVIL])):
        image = folder / f"{name}.ome.tif"
        named_image(image, channels)
        run = Cosdd(folder, "report", "given.safetensors", image, "-o", "page.html", "--overwrite", watched=True)
        assert run.end() == 0, run.complaints
        assert run.seen == ""
        pages.append((folder / "page.html").read_text())
    assert "&lt;img src=x onerror=alert(1)&gt;" in pages[1]
    assert EVIL not in pages[1]
    assert Tags(pages[1]).found == Tags(pages[0]).found
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", pages[1])


@WATCHED
def test_the_terminal_shows_names_and_obeys_none_of_them(folder):
    image, names = folder / "[bold]x[.tif", ["[/nothing]", "\x1b]0;owned\x07\x1b[2J"]
    frames = np.stack([tiny.stripes(3)[:, 0]] * 2, 1)
    tifffile.imwrite(image, frames, imagej=True, metadata={"axes": "TCYX", "Labels": names * 3})
    run = Cosdd(folder, "denoise", "given.safetensors", image, "-o", "out", "--samples", "1", watched=True)
    assert run.end() == 0, run.complaints
    assert "[bold]x[" in run.said
    assert "[/nothing]" in run.said
    assert "\x1b" not in run.said + run.complaints
    assert run.seen == ""


# ------------------------------------------------------------------------- no network, no code, no other folder


@WATCHED
def test_no_run_reaches_the_network_starts_programs_or_writes_elsewhere(folder):
    tifffile.imwrite(folder / "noisy.tif", tiny.stripes(12)[:, 0], metadata={"axes": "TYX"})
    small = ["--set", "train.steps=3", "--set", "blind_row.features=[4]", "--set", "train.crop=16"]
    for arguments in (
        ["inspect", "noisy.tif"],
        ["train", "noisy.tif", "-o", "m.safetensors", *small],
        ["denoise", "m.safetensors", "noisy.tif", "-o", "out", "--std"],
        ["report", "m.safetensors", "noisy.tif"],
        ["evaluate", "out/noisy.tif", "noisy.tif"],
        ["simulate", "row-ar", "noisy.tif", "-o", "simulated"],
    ):
        run = Cosdd(folder, *arguments, watched=True)
        assert run.end() == 0, run.complaints
        assert run.seen == "", arguments[0]


@WATCHED
def test_the_watch_sees_what_it_is_there_for(tmp_path):
    process = FORKED.Process(target=_naughty, args=(tmp_path,))
    process.start()
    process.join(60)
    seen = (tmp_path / "seen").read_text()
    for event in ("socket.connect", "subprocess.Popen", "pickle.find_class", "writes"):
        assert event in seen


def _naughty(folder: Path) -> None:
    import pickle
    import socket
    import subprocess

    from gauntlet.process import _watch

    (folder / "in").mkdir()
    _watch(folder / "in", folder / "seen")
    with socket.socket() as one:
        one.connect_ex(("127.0.0.1", 9))
    subprocess.run(["true"], check=True)
    pickle.loads(pickle.dumps(Path))
    (folder / "elsewhere").write_text("x")
