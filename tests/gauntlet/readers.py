"""What reads strangers' files, each as a function of bytes: it returns, or raises InputError, and nothing else.

And examples to begin from: the whole files that are then spoiled.
"""

from __future__ import annotations

import io
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
import tiny
import yaml
from PIL import Image as Picture
from PIL.PngImagePlugin import PngInfo

from cosdd import checkpoint, config, images, overrides
from cosdd.errors import InputError

FRAMES = tiny.stripes(2, 16, 16)[:, 0]
PLACE = Path(tempfile.gettempdir()) / f"cosdd_readers_{os.getpid()}"


class Fault(AssertionError):
    """A message that is not one short line, or an attempt to take memory without bound."""


def _read(content: bytes, name: str, reader: Callable[[Path], object]) -> None:
    PLACE.mkdir(exist_ok=True)
    path = PLACE / name
    path.write_bytes(content)
    refusal = ""
    try:
        reader(path)
    except InputError as error:
        refusal = str(error)
    if "\n" in refusal or len(refusal) > 1200 or "out of memory" in refusal:
        raise Fault(refusal[:2000])


SMALLEST = {"levels": 1, "features": 1, "max_features": 1, "latents": 1, "final_latents": 1, "noise_layers": 1}
SMALLEST |= {"noise_features": 1, "signal_layers": 0, "direct": False, "components": 1}


def model(content: bytes) -> None:
    """A model file; or, after a byte 0, only its header, whose length and tensors are made to fit."""
    if content[:1] == b"\0":
        said = content[1:]
        content = len(said).to_bytes(8, "little") + said + bytes(_largest(said))
    _read(content, "m.safetensors", checkpoint.load)


def _largest(header: bytes) -> int:
    ends = [int(end) for end in re.findall(rb'"data_offsets":\[\d{1,6},(\d{1,6})\]', header)]
    return max(ends, default=0)


def configuration(content: bytes) -> None:
    """A YAML file, and the same text after --set."""
    _read(content, "c.yaml", lambda path: config.build("tiny", overrides.from_file(path)))
    text = content.decode("utf-8", "replace")
    _read(b"", "c.yaml", lambda _: config.build("tiny", overrides.from_assignments([f"train.lr={text}", text])))


def _described(text: bytes, **how: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, FRAMES, description=text.replace(b"\0", b" "), metadata=None, **how)
    return file.getvalue()


def _image(name: str) -> Callable[[bytes], None]:
    def read(content: bytes) -> None:
        def look(path: Path) -> None:
            image = images.read(path)
            image.describe()
            if image.data.size < 10**6:
                images.check(image)

        _read(content, name, look)

    return read


KINDS: tuple[Callable[[bytes], None], ...] = (
    lambda content: _image("x.tif")(_described(b"ImageJ=1.11a\nimages=2\n" + content)),
    lambda content: _image("x.ome.tif")(_described(b'<?xml version="1.0"?><OME ' + content)),
    lambda content: _image("x.tif")(_described(b'{"shape": ' + content)),
    _image("x.tif"),
    _image("x.npy"),
    _image("x.png"),
)


def metadata(content: bytes) -> None:
    """What images say about themselves; the first byte chooses how."""
    if content:
        KINDS[content[0] % len(KINDS)](content[1:])


READERS: dict[str, Callable[[bytes], None]] = {"model": model, "configuration": configuration, "metadata": metadata}


def examples(reader: str) -> list[bytes]:
    """Whole files."""
    if reader == "model":
        found = []
        PLACE.mkdir(exist_ok=True)
        path = PLACE / "example.safetensors"
        for axis in ("x", "y"):
            checkpoint.save(tiny.checkpoint(100.0, 10.0, noise_axis=axis, **SMALLEST), path, overwrite=True)
            content = tiny.without_checksum(path.read_bytes())
            header = content[8 : 8 + int.from_bytes(content[:8], "little")]
            found += [content, b"\0" + re.sub(rb'"crc32":"\w*",?', b"", header)]
        return found
    if reader == "configuration":
        settings = config.build("tiny").model_dump(mode="json")
        bomb = "a: &a [1, 1]\nmodel: {levels: [*a, *a]}\n"
        texts = (yaml.safe_dump(settings), "train: {steps: 10, lr: 1e-3}\n", "model.levels=3", bomb, "preset: small\n")
        return [text.encode() for text in texts]
    pages = []
    said = {"axes": "TYX", "Labels": ["a", "b"], "Name": "n", "Info": "i", "mode": "composite", "min": 1, "max": 9}
    said |= {"Channel": {"Color": [255], "EmissionWavelength": [500]}, "Plane": {"DeltaT": [0, 1]}}
    for index, how in enumerate(({"imagej": True}, {"ome": True}, {})):
        file = io.BytesIO()
        tifffile.imwrite(file, FRAMES, metadata=said, **how)
        pages.append(b"\3" + file.getvalue())
        file.seek(0)
        with tifffile.TiffFile(file) as tif:
            description = tif.pages[0].tags["ImageDescription"].value.encode()  # type: ignore[union-attr]
        pages.append(bytes([index]) + description.split(b"\n", 2)[-1].removeprefix(b'{"shape": '))
    file = io.BytesIO()
    np.save(file, FRAMES)
    pages.append(b"\4" + file.getvalue())
    file, text = io.BytesIO(), PngInfo()
    text.add_text("Description", "x" * 50, zip=True)
    Picture.fromarray(FRAMES[0]).save(file, "PNG", pnginfo=text)
    return [*pages, b"\5" + file.getvalue()]
