"""One Zarr array, of version 2 or 3, as a lazy array. Read only.

Not by the library zarr, which trusts what it reads: its Blosc decoder takes a chunk that was cut off for a whole one
and returns what lies behind it in memory. Here sizes are checked before anything is allocated, a chunk unpacks to
its own size or is refused, only known codecs unpack it, and no link leads out of the folder.
"""

from __future__ import annotations

import bz2
import json
import math
import os
import re
import stat
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import imagecodecs
import numpy as np

from cosdd.errors import AGAIN, InputError, passing, refusal
from cosdd.lazy import Chunks, Lazy

COPY = "copy it again, or write it anew with the program that made it"
_MOST_METADATA = 2**24  # bytes of one JSON file
_MOST_CHUNK = 2**30  # bytes of an unpacked chunk
_MOST_CHUNKS = 2**28  # of an array
_MOST_IN_SHARD = 2**20
_MOST_BYTES = 2**50  # of an array
_PIXELS_2 = re.compile(r"[<>|][uif][1248]")  # |O is Python objects, which would be unpickled
_PIXELS_3 = re.compile(r"u?int(8|16|32|64)|float(16|32|64)")
_BLOSC_HEADER, _CHECKSUM = 16, 4  # bytes
_NOWHERE = 2**64 - 1  # in the index of a shard: the chunk was not written


@dataclass(frozen=True)
class _Grid:
    """How the pixels of an array lie in its files."""

    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    shard: tuple[int, ...]  # of a file; that of a chunk where files hold one
    dtype: np.dtype
    fill: Any
    key: str  # begin of the files' names
    separator: str
    order: tuple[int, ...]  # of the axes as they are stored
    packing: tuple[str, ...]  # codecs from bytes to bytes, in the order of packing
    index_first: bool = False
    index_packing: tuple[str, ...] = ()


def is_array(folder: Path) -> bool:
    """Do this folder's metadata describe an array?"""
    if (folder / "zarr.json").exists():
        return metadata(folder / "zarr.json").get("node_type") == "array"
    return (folder / ".zarray").exists()


def metadata(file: Path) -> dict[str, Any]:
    """A JSON file of a store. Raises InputError where it is no ordinary file of ordinary size, or holds no object."""
    _refuse_strange(file, _MOST_METADATA)
    found = json.loads(file.read_bytes())
    if not isinstance(found, dict):
        raise refusal(file, f"a JSON {type(found).__name__}", "Zarr metadata", COPY)
    return found


def open_array(folder: Path) -> Lazy:
    """The array in this folder, a resolved path; no chunk is read.

    Raises InputError for what is larger than any image or packed by a codec that is not known here, and other errors
    where the metadata are damaged. Chunks that are damaged raise InputError when they are read.
    """
    if (folder / "zarr.json").exists():
        grid = _grid_3(metadata(folder / "zarr.json"), folder)
    else:
        grid = _grid_2(metadata(folder / ".zarray"), folder)
    if not len(grid.shape) == len(grid.chunk) == len(grid.shard) == len(grid.order):
        raise refusal(folder, f"chunks of {len(grid.chunk)} axes for {len(grid.shape)}", "as many", COPY)
    if any(outer % inner for outer, inner in zip(grid.shard, grid.chunk, strict=True)):
        raise refusal(folder, f"shards of {_by(grid.shard)} pixels", f"multiples of {_by(grid.chunk)}", COPY)
    together = math.prod(outer // inner for outer, inner in zip(grid.shard, grid.chunk, strict=True))
    chunks = math.prod(-(-n // c) for n, c in zip(grid.shape, grid.chunk, strict=True))
    too_many = chunks > _MOST_CHUNKS or together > _MOST_IN_SHARD
    if too_many or grid.dtype.itemsize * math.prod(grid.shape) > _MOST_BYTES:
        seen, expected = f"{_by(grid.shape)} pixels in {chunks} chunks", f"at most {_MOST_BYTES >> 40} TB"
        raise refusal(folder, seen, f"{expected} in {_MOST_CHUNKS} chunks", "cut it into several images")
    if grid.dtype.itemsize * math.prod(grid.chunk) > _MOST_CHUNK:
        expected = f"at most {_MOST_CHUNK >> 20} MB each"
        raise refusal(folder, f"chunks of {_by(grid.chunk)} pixels", expected, "write it anew in smaller chunks")

    def chunk(place: tuple[int, ...]) -> np.ndarray:
        corner = [i * step for i, step in zip(place, grid.chunk, strict=True)]
        file = folder / _name(grid, [i // step for i, step in zip(corner, grid.shard, strict=True)])
        try:
            packed = _packed(file, grid, place)
            return np.broadcast_to(grid.fill, grid.chunk) if packed is None else _unpacked(packed, grid)
        except InputError:
            raise
        except Exception as error:  # decoders raise nearly every kind; only they run in here
            problem = " ".join(str(error).split()) or type(error).__name__
            seen, disk = f"chunk {' '.join(map(str, place))} cannot be read: {problem:.120}", passing(error)
            raise refusal(file, seen, "a complete store", AGAIN if disk else COPY) from disk

    return Lazy(Chunks(grid.shape, grid.dtype, grid.chunk, chunk))


# ------------------------------------------------------------------------------------------------ metadata


def _grid_2(said: Mapping[str, Any], folder: Path) -> _Grid:
    if said["zarr_format"] != 2:
        raise refusal(folder, f"Zarr format {said['zarr_format']!r:.20}", "2 or 3", COPY)
    if not (isinstance(said["dtype"], str) and _PIXELS_2.fullmatch(said["dtype"])):
        raise refusal(folder, f"pixels of type {str(said['dtype'])!r:.40}", "integers or floats", "convert the image")
    packing = [*(said.get("filters") or ()), *([said["compressor"]] if said.get("compressor") else ())]
    chunk, dtype = _sizes(said["chunks"], folder), np.dtype(said["dtype"])
    axes = tuple(range(len(chunk)))
    return _Grid(
        shape=_sizes(said["shape"], folder),
        chunk=chunk,
        shard=chunk,
        dtype=dtype,
        fill=_fill(said.get("fill_value"), dtype),
        key="",
        separator=_separator(said.get("dimension_separator", "."), folder),
        order=axes[::-1] if said.get("order") == "F" else axes,
        packing=_packing([codec["id"] for codec in packing], folder),
    )


def _grid_3(said: Mapping[str, Any], folder: Path) -> _Grid:
    if said["zarr_format"] != 3:
        raise refusal(folder, f"Zarr format {said['zarr_format']!r:.20}", "2 or 3", COPY)
    if not (isinstance(said["data_type"], str) and _PIXELS_3.fullmatch(said["data_type"])):
        seen = f"pixels of type {str(said['data_type'])!r:.40}"
        raise refusal(folder, seen, "integers or floats", "convert the image")
    if said["chunk_grid"]["name"] != "regular" or said.get("storage_transformers"):
        raise refusal(folder, "an irregular grid of chunks", "a regular one", "write it anew in chunks of one size")
    shard, codecs = _sizes(said["chunk_grid"]["configuration"]["chunk_shape"], folder), said["codecs"]
    chunk, index_first, index = shard, False, ()
    if [codec["name"] for codec in codecs] == ["sharding_indexed"]:
        inside = codecs[0]["configuration"]
        chunk, codecs = _sizes(inside["chunk_shape"], folder), inside["codecs"]
        index_first = inside.get("index_location", "end") == "start"
        index = [codec["name"] for codec in inside["index_codecs"]]
        if index not in (["bytes"], ["bytes", "crc32c"]):
            raise refusal(folder, f"an index packed by {', '.join(map(str, index)):.60}", "bytes, crc32c", COPY)
    order, names = tuple(range(len(chunk))), [codec["name"] for codec in codecs]
    while names[:1] == ["transpose"]:
        turn = codecs[0]["configuration"]["order"]
        if sorted(turn) != list(range(len(chunk))):
            raise refusal(folder, f"axes stored in the order {turn!r:.60}", "each axis once", COPY)
        order, codecs, names = tuple(order[i] for i in turn), codecs[1:], names[1:]
    if names[:1] != ["bytes"]:
        raise refusal(folder, f"pixels packed by {str(names[:1])!r:.40}", "the codec bytes first", COPY)
    big = codecs[0].get("configuration", {}).get("endian") == "big"
    dtype = np.dtype(said["data_type"]).newbyteorder(">" if big else "<")
    key = said["chunk_key_encoding"]
    old = {"default": False, "v2": True}[key["name"]]
    separator = key.get("configuration", {}).get("separator", "." if old else "/")
    return _Grid(
        shape=_sizes(said["shape"], folder),
        chunk=chunk,
        shard=shard,
        dtype=dtype,
        fill=_fill(said["fill_value"], dtype),
        key="" if old else f"c{separator}",
        separator=_separator(separator, folder),
        order=order,
        packing=_packing(names[1:], folder),
        index_first=index_first,
        index_packing=tuple(index),
    )


def _sizes(said: Any, folder: Path) -> tuple[int, ...]:
    if not (isinstance(said, list) and 1 <= len(said) <= 9 and all(type(n) is int and 1 <= n < 2**48 for n in said)):
        raise refusal(folder, f"a shape of {said!r:.80}", "1 to 9 lengths of at least 1", COPY)
    return tuple(said)


def _separator(said: Any, folder: Path) -> str:
    if said not in (".", "/"):
        raise refusal(folder, f"names of chunks with {said!r:.20}", "'.' or '/'", COPY)
    return said


def _packing(names: Sequence[Any], folder: Path) -> tuple[str, ...]:
    """Refuse codecs that are not known, and to be packed twice: then no size is known in advance."""
    unknown = [name for name in names if not isinstance(name, str) or name not in (*_UNPACK, "crc32c")]
    if unknown or len([name for name in names if name != "crc32c"]) > 1:
        seen = f"chunks packed by {str(unknown[0] if unknown else ', '.join(names))!r:.60}"
        raise refusal(folder, seen, f"one of {', '.join(_UNPACK)}", "write it anew with such a one")
    return tuple(names)


def _fill(said: Any, dtype: np.dtype) -> np.ndarray:
    """The value of pixels that were not written, 0-D."""
    if isinstance(said, str) and said.startswith("0x"):  # the bits of a float
        return np.array(int(said, 16), f"u{dtype.itemsize}").view(dtype.newbyteorder("="))
    return np.array(said or 0).astype(dtype.newbyteorder("=")) if not isinstance(said, str) else np.array(float(said))


def _by(lengths: Sequence[int]) -> str:
    return " x ".join(map(str, lengths))


# ---------------------------------------------------------------------------------------------------- chunks


def _name(grid: _Grid, place: Sequence[int]) -> str:
    return grid.key + grid.separator.join(map(str, place))


def _refuse_strange(file: Path, most: float) -> None:
    """Refuse what is no ordinary file, lies behind a link, or holds more than it can have to say."""
    found = os.lstat(file)
    if not stat.S_ISREG(found.st_mode) or os.path.realpath(file) != str(file):
        raise refusal(file, "a link or a special file", "an ordinary file", "do not trust this store")
    if found.st_size > most:
        raise refusal(file, f"{found.st_size} bytes", f"at most {most}", COPY)


def _packed(file: Path, grid: _Grid, place: Sequence[int]) -> bytes | None:
    """The bytes of a chunk as they are stored; None where it was not written."""
    most = 2 * grid.dtype.itemsize * math.prod(grid.chunk) + 2**16  # packing makes noise a little larger
    try:
        _refuse_strange(file, math.inf if grid.index_packing else most)
    except FileNotFoundError:
        return None
    with file.open("rb") as source:
        if not grid.index_packing:
            return source.read()
        counts = [outer // inner for outer, inner in zip(grid.shard, grid.chunk, strict=True)]
        checked = _CHECKSUM if "crc32c" in grid.index_packing else 0
        length, end = 16 * math.prod(counts) + checked, source.seek(0, os.SEEK_END)
        if end < length:
            raise ValueError("the file was cut off")
        source.seek(0 if grid.index_first else end - length)
        index = source.read(length)
        index = _without_checksum(index) if checked else index
        number = int(np.ravel_multi_index([i % n for i, n in zip(place, counts, strict=True)], counts))
        start, size = struct.unpack_from("<QQ", index, 16 * number)
        if start == size == _NOWHERE:
            return None
        if size > most or start + size > end:
            raise ValueError(f"{size} bytes at {start} do not lie in a file of {end}")
        source.seek(start)
        return source.read(size)


def _unpacked(packed: bytes, grid: _Grid) -> np.ndarray:
    size = grid.dtype.itemsize * math.prod(grid.chunk)
    for name in reversed(grid.packing):
        packed = _without_checksum(packed) if name == "crc32c" else _UNPACK[name](packed, size)
    if len(packed) != size:
        raise ValueError(f"{len(packed)} bytes instead of {size}")
    stored = np.frombuffer(packed, grid.dtype).reshape([grid.chunk[i] for i in grid.order])
    return stored.transpose(np.argsort(grid.order))


def _without_checksum(packed: bytes) -> bytes:
    if google_crc32c.value(packed[:-_CHECKSUM]).to_bytes(_CHECKSUM, "little") != packed[-_CHECKSUM:]:
        raise ValueError("the checksum is wrong")
    return packed[:-_CHECKSUM]


def _blosc(packed: bytes, size: int) -> bytes:
    if len(packed) < _BLOSC_HEADER or struct.unpack_from("<I", packed, 12)[0] != len(packed):
        raise ValueError("the chunk was cut off")  # the decoder does not look where it ends
    return bytes(imagecodecs.blosc_decode(packed, out=size))


def _zlib(packed: bytes, size: int) -> bytes:
    stream = zlib.decompressobj(zlib.MAX_WBITS | 32)  # zlib or gzip, by its header
    result = stream.decompress(packed, size + 1)
    if not stream.eof:
        raise ValueError("the chunk was cut off, or is too large")
    return result


def _bz2(packed: bytes, size: int) -> bytes:
    stream = bz2.BZ2Decompressor()
    result = stream.decompress(packed, size + 1)
    if not stream.eof:
        raise ValueError("the chunk was cut off, or is too large")
    return result


_UNPACK = {
    "blosc": _blosc,
    "zstd": lambda packed, size: imagecodecs.zstd_decode(packed, out=size),
    "zlib": _zlib,
    "gzip": _zlib,
    "lz4": lambda packed, size: imagecodecs.lz4_decode(packed, header=True, out=size),
    "bz2": _bz2,
}
