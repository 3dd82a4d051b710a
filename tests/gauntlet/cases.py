"""Images as users have them: of every kind, damaged, misnamed, meaningless. Each is a name and a way to write it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tifffile
import tiny
from PIL import Image as Picture

Case = tuple[str, Callable[[Path], object]]
STACK = tiny.stripes(12)[:, 0]  # (t, y, x) uint16
TYX = {"axes": "TYX"}
KINDS = ("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", ">u2", ">f4")
KINDS += ("float16", "float32", "float64", "complex64")


def tiff(pixels: np.ndarray, **how) -> Callable[[Path], object]:
    return lambda path: tifffile.imwrite(path, pixels, **({"metadata": TYX} | how))


def npy(pixels: np.ndarray) -> Callable[[Path], object]:
    return lambda path: np.save(path, pixels)


def raw(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def picture(pixels: np.ndarray, mode: str | None = None, **how) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        made = Picture.fromarray(pixels)
        (made.convert(mode) if mode else made).save(path, **how)

    return write


def kinds() -> Iterator[Case]:
    for kind in KINDS:
        pixels = STACK > 1000 if kind == "bool" else (STACK % 120).astype(kind)
        yield f"kind {kind}.tif", tiff(pixels)
        yield f"kind {kind}.npy", npy(pixels)
    yield "kind object.npy", lambda path: np.save(path, np.array([{1: 2}, "x"], object), allow_pickle=True)
    yield "kind record.npy", npy(np.zeros(40, [("a", "f4"), ("b", "i2")]))
    yield "kind text.npy", npy(np.array([["a", "b"]] * 40))
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 255, (32, 32, 3), np.uint8)
    yield "rgb.png", picture(rgb)
    yield "rgba.png", picture(rng.integers(0, 255, (32, 32, 4), np.uint8))
    yield "grey.png", picture(STACK[0].astype(np.uint8))
    yield "16 bit.png", picture(STACK[0])
    yield "palette.png", picture(STACK[0].astype(np.uint8), "P")
    yield "1 bit.png", picture(STACK[0] > 1000)
    yield "rgb.tif", tiff(rgb, photometric="rgb", metadata=None)
    yield "jpeg.tif", picture(STACK[0].astype(np.uint8), compression="jpeg")


def values() -> Iterator[Case]:
    floats = STACK.astype(np.float32)
    for value in (np.nan, np.inf, -np.inf):
        pixels = floats.copy()
        pixels[3, 4, 5] = value
        yield f"one {value}.tif", tiff(pixels)
    border = floats.copy()
    border[:, :2] = np.nan
    yield "nan border.tif", tiff(border)
    yield "all nan.tif", tiff(floats * np.nan)
    yield "constant.tif", tiff(np.full_like(STACK, 7))
    yield "zeros.tif", tiff(np.zeros_like(STACK))
    yield "all saturated.tif", tiff(np.full((12, 32, 32), 255, np.uint8))
    hot = np.zeros_like(STACK)
    hot[0, 5, 5] = 65535
    yield "one hot pixel.tif", tiff(hot)
    for base, value in ((7, 1e5), (0, 1e-3), (7, 1e15)):
        odd = np.full((48, 48), base, np.float32)
        odd[5, 5] += value
        yield f"one odd pixel, {value:g} on {base}.tif", tiff(odd, metadata=None)
    rng = np.random.default_rng(0)
    far = np.full(STACK.shape, 2_000_000_000, np.int32)
    yield "few of 2e9.tif", tiff(far + (rng.random(far.shape) < 0.02) * rng.integers(0, 10**8, far.shape, np.int32))
    yield "huge offset.tif", tiff((1e6 + rng.normal(size=(12, 32, 32))).astype(np.float32))
    yield "huge values.tif", tiff(STACK * 1e300)
    yield "tiny values.tif", tiff(STACK * 1e-310)
    yield "largest floats.tif", tiff((3e38 * rng.uniform(-1, 1, (12, 32, 32))).astype(np.float32))


def sizes() -> Iterator[Case]:
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (1, 64), (64, 1), (2, 2), (13, 17), (11, 32), (12, 12), (31, 37), (3, 500)):
        yield f"size {shape[0]} x {shape[1]}.tif", tiff(rng.normal(100, 9, (12, *shape)).astype(np.float32))
    yield "no axis.npy", npy(np.float32(3))
    yield "no frame.npy", npy(np.zeros((0, 32, 32), np.float32))
    yield "four axes.npy", npy(np.zeros((2, 3, 32, 32), np.float32))


def names() -> Iterator[Case]:
    for name in ("with space.tif", "ünï ☃.tif", "-dash.tif", "[brackets].tif", "a;b$(c).tif", "%41.tif", "a.b.c.tif"):
        yield name, tiff(STACK)


def damaged(count: int) -> Iterator[Case]:
    for suffix in (".tif", ".png", ".npy"):
        yield f"empty file{suffix}", raw(b"")
        yield f"a web page{suffix}", raw(b"<html>404 not found</html>")
        yield f"an archive{suffix}", raw(b"PK\x03\x04" + b"0" * 99)
    rng = random.Random(0)
    for name, content in whole():
        for index in range(count):
            yield f"cut {index} {name}", raw(content[: rng.randrange(len(content))])
        for index in range(count):
            flipped = bytearray(content)
            for _ in range(rng.choice((1, 3, 30))):  # more often in the header, where it hurts
                flipped[rng.randrange(min(len(content), rng.choice((64, 600, len(content)))))] = rng.randrange(256)
            yield f"flipped {index} {name}", raw(bytes(flipped))


def whole() -> Iterator[tuple[str, bytes]]:
    import io

    for name, how in (
        ("imagej.tif", {"imagej": True}),
        ("x.ome.tif", {"ome": True}),
        ("zlib.tif", {"compression": "zlib"}),
    ):
        file = io.BytesIO()
        tifffile.imwrite(file, STACK, metadata=TYX, **how)
        yield name, file.getvalue()
    file = io.BytesIO()
    np.save(file, STACK)
    yield "x.npy", file.getvalue()
    file = io.BytesIO()
    Picture.fromarray(STACK[0]).save(file, "PNG")
    yield "x.png", file.getvalue()


def every(count: int) -> list[Case]:
    return [*kinds(), *values(), *sizes(), *names(), *damaged(count)]
