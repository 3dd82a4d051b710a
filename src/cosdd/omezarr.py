"""OME-Zarr 0.4 and 0.5 in, 0.5 out: pixels in chunks, and what the store says about axes, scale and channels.

A store from a stranger is data and nothing else: no path leads out of its folder (and see `zarray`).
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from cosdd import metadata, zarray
from cosdd.errors import refusal
from cosdd.lazy import Lazy
from cosdd.metadata import WHITE, Channel, Metadata

SUFFIX = ".zarr"
_MARKS = ("zarr.json", ".zattrs", ".zgroup", ".zarray")  # files that make a folder a store or a part of one
_VERSIONS = ("0.4", "0.5")

_EDGE = 1024  # pixels of a written chunk along y and x
_SHARD_BYTES = 64 * 2**20  # a written file at most, unpacked
_TYPES = {"T": "time", "C": "channel", "Z": "space", "Y": "space", "X": "space"}


@dataclass(frozen=True)
class Store:
    """The largest resolution of one image, and what the store says of each of its axes.

    axes: a letter for each axis, "?" for a name that is none; None where nothing is said (a Zarr array alone).
    scale: pixel size, or None where the store leaves it open; unit: as written there, "" for none.
    translation: where the first pixel lies, in that unit; 0 where nothing is said.
    """

    data: Lazy
    axes: str | None = None
    scale: tuple[float | None, ...] = ()
    unit: tuple[str, ...] = ()
    translation: tuple[float, ...] = ()
    channel_names: tuple[str, ...] = ()
    metadata: Metadata = field(default_factory=Metadata)


def is_store(path: Path) -> bool:
    """Is this folder a Zarr store, or a part of one such as ``plate.zarr/A/1/0``?"""
    return path.is_dir() and (path.suffix.lower() == SUFFIX or any((path / mark).is_file() for mark in _MARKS))


def may_replace(path: Path) -> bool:
    """May a new store take the place of this folder? If it is a store by what it holds, or holds nothing."""
    return any((path / mark).is_file() for mark in _MARKS) or not any(path.iterdir())


def name(path: Path) -> str:
    """A name for an image in a store: plate.zarr/A/1/0 -> plate_A_1_0.zarr; stores keep theirs."""
    inside: list[str] = []
    path = Path(os.path.abspath(path))  # from inside a store it may be named "." or "0"
    for folder in (path, *path.parents):
        if folder.suffix.lower() == SUFFIX:
            end = ".ome" + folder.suffix if folder.stem.lower().endswith(".ome") else folder.suffix
            return "_".join([folder.name[: -len(end)], *inside]) + end
        inside.insert(0, folder.name)
    return path.name + SUFFIX


def read(path: Path) -> Store:
    """Open the image in this folder; no pixel is read.

    Raises InputError where the folder holds none or several, in a version or packing that is not known here, or
    larger than any image; and other errors where its metadata are damaged.
    """
    folder = path.resolve()
    if zarray.is_array(folder):
        return Store(zarray.open_array(folder))
    if (folder / "zarr.json").exists():
        ome = zarray.metadata(folder / "zarr.json").get("attributes", {})
        ome = ome.get("ome", ome)
    else:
        ome = zarray.metadata(folder / ".zattrs") if (folder / ".zattrs").exists() else {}
    if not ome.get("multiscales"):
        return _within(path, ome)
    image = ome["multiscales"][0]
    version = str(ome.get("version") or image.get("version") or _VERSIONS[0])
    if not version.startswith(_VERSIONS):
        seen, fix = f"OME-Zarr version {version:.20}", "convert it with the program that made it"
        raise refusal(path, seen, f"version {' or '.join(_VERSIONS)}", fix)
    if any(isinstance(axis, str) for axis in image["axes"]):
        seen, fix = "axes without a type, as in OME-Zarr 0.3", "convert it with the program that made it"
        raise refusal(path, seen, f"version {' or '.join(_VERSIONS)}", fix)
    level = image["datasets"][0]
    data = _array(folder, _inside(folder, level["path"], path), path)
    names = [str(axis["name"]) for axis in image["axes"]]
    if len(names) != data.ndim:
        seen = f"{len(names)} axes ({', '.join(names)}) for an array of {data.ndim} dimensions"
        raise refusal(path, seen, "an axis for each dimension", zarray.COPY)
    letters = {"time": "T", "channel": "C"}
    axes = [letters.get(axis.get("type", "")) or str(axis["name"]).upper() for axis in image["axes"]]
    steps = (*level.get("coordinateTransformations", ()), *image.get("coordinateTransformations", ()))
    scales = [step["scale"] for step in steps if step["type"] == "scale" and "scale" in step]
    scale = np.ones(data.ndim)
    for one in scales:
        scale = scale * np.asarray(one, float).reshape(data.ndim)
    unit = [str(axis.get("unit") or "") for axis in image["axes"]]
    channels = _omero(ome)
    return Store(
        data,
        "".join(axis if len(axis) == 1 else "?" for axis in axes),
        # 1 without a unit is what is written where nothing is known
        tuple(float(s) if scales and (u or s != 1) else None for s, u in zip(scale, unit, strict=True)),
        tuple(unit),
        _translation(steps, data.ndim),
        tuple(str(channel.get("label", "")) for channel in channels),
        Metadata(
            (metadata.name(image.get("name")),),
            channels=tuple(Channel(metadata.ramp(channel.get("color")), _window(channel)) for channel in channels),
        ),
    )


def _translation(steps: Sequence[Mapping[str, Any]], axes: int) -> tuple[float, ...]:
    """Where the steps, one after the other, take the first pixel. One that is not as it should be is left out."""
    place = [0.0] * axes
    for step in steps:
        said = step.get(step["type"])
        numbers = [metadata.number(one) for one in said] if isinstance(said, list) else []
        known = [one for one in numbers if one is not None]
        if len(numbers) != axes or len(known) != axes:
            continue
        if step["type"] == "scale":
            place = [at * one for at, one in zip(place, known, strict=True)]
        elif step["type"] == "translation":
            place = [at + one for at, one in zip(place, known, strict=True)]
    return tuple(metadata.number(at) or 0.0 for at in place)


def _omero(ome: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What is said of how to show each channel; nothing where it is not as it should be."""
    omero = ome.get("omero")
    channels = omero.get("channels") if isinstance(omero, dict) else None
    return [said if isinstance(said, dict) else {} for said in channels] if isinstance(channels, list) else []


def _window(channel: Mapping[str, Any]) -> tuple[float, float] | None:
    said = channel.get("window")
    return metadata.window(said.get("start"), said.get("end")) if isinstance(said, dict) else None


def _within(path: Path, ome: Mapping[str, Any]) -> Store:
    """A store without an image of its own: the only one inside, or a refusal that names one."""
    images = []
    if "bioformats2raw.layout" in ome:
        inside = (p for p in path.iterdir() if p.name.isdecimal() and is_store(p) and not p.is_symlink())
        images = sorted((p.name for p in inside), key=int)
        if len(images) == 1:
            return read(path / images[0])
    elif "plate" in ome:
        images = [f"{well['path']}/0" for well in ome["plate"]["wells"][:1]]
    elif "well" in ome:
        images = [image["path"] for image in ome["well"]["images"]]
    if images:
        raise refusal(path, "several images in one store", "one image", f"name one, such as {path / images[0]}")
    raise refusal(
        path, "a Zarr folder without an image", "OME-Zarr 0.4 or 0.5", "name the folder that has 'multiscales'"
    )


def _inside(folder: Path, inner: str, path: Path) -> Path:
    """The folder of an array by the path that the metadata give; it may not lead elsewhere."""
    parts = PurePosixPath(inner).parts
    if not parts or inner.startswith("/") or ".." in parts or re.search(r"[\\:\0]", inner):
        raise refusal(path, f"an array at {inner!r:.80}", "one inside the store", "do not trust this store")
    return folder.joinpath(*parts)


def _array(folder: Path, where: Path, path: Path) -> Lazy:
    if not zarray.is_array(where):
        raise refusal(path, f"no array at {where.relative_to(folder)}", "one for each resolution", zarray.COPY)
    return zarray.open_array(where)


# ------------------------------------------------------------------------------------------------------- out


def order(axes: str) -> str | None:
    """These axes as OME-Zarr orders them: time, then channel or one other, then space. None: it cannot hold them."""
    others = [a for a in axes if a not in "TZYX"]
    if len(others) > 1 or not {"Y", "X"} <= set(axes):
        return None
    return "".join(a for a in ("T", *others, "Z", "Y", "X") if a in axes)


def write(
    folder: Path,
    data: np.ndarray | Lazy,
    axes: str,
    pixel_size: Mapping[str, float],
    unit: Mapping[str, str],
    channel_names: Sequence[str],
    more: Metadata,
    made: str = "",
) -> None:
    """Write a new OME-Zarr 0.5 store of one resolution: integers or floats, axes ordered as `order` says.

    Chunks hold one time point and one plane, shards (files) about 64 MB; a shard is in memory at a time.
    made: a line on how the pixels came to be, see `made`.
    """
    darkest, brightest = _fill(folder, data, axes)
    ome: dict[str, Any] = {"version": "0.5", "multiscales": [_multiscale(axes, pixel_size, unit, more)]}
    if channel_names or more.channels:
        windows = [{"min": low, "max": high} for low, high in zip(darkest, brightest, strict=True)]
        ome["omero"] = {"channels": _channels(channel_names, more.channels, windows)}
    said = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome} | ({"cosdd": made} if made else {})}
    (folder / "zarr.json").write_text(json.dumps(said, indent=1), encoding="utf-8")


def _fill(folder: Path, data: np.ndarray | Lazy, axes: str) -> tuple[list[float], list[float]]:
    """Write the pixels; returns the least and the greatest of each channel."""
    import zarr  # half a second, which those who write other formats need not wait
    from zarr.codecs import BloscCodec, Crc32cCodec
    from zarr.storage import LocalStore

    kind = data.dtype.newbyteorder("=")
    chunk = [min(n, _EDGE) if a in "YX" else 1 for a, n in zip(axes, data.shape, strict=True)]
    shard = _shard(data.shape, chunk, kind.itemsize)
    array = zarr.create_array(
        LocalStore(folder),
        name="0",
        shape=data.shape,
        dtype=kind,
        chunks=tuple(chunk),
        shards=shard,
        compressors=[BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"), Crc32cCodec()],
        fill_value=0,
        dimension_names=list(axes.lower()),
        config={"write_empty_chunks": True},  # a chunk that is not there is a chunk that was lost
    )
    channel = axes.index("C") if "C" in axes else None
    count = data.shape[channel] if channel is not None else 1
    low, high = [math.inf] * count, [-math.inf] * count
    for where in _regions(data.shape, shard):
        block = np.asarray(data[where], kind)
        array[where] = block
        first = where[channel].start if channel is not None else 0
        for i, plane in enumerate(np.moveaxis(block, channel, 0) if channel is not None else [block]):
            low[first + i] = min(low[first + i], float(plane.min()))
            high[first + i] = max(high[first + i], float(plane.max()))
    return low, high


def _multiscale(axes: str, pixel_size: Mapping[str, float], unit: Mapping[str, str], more: Metadata) -> dict[str, Any]:
    """What the store says of axes, scale and place."""
    steps: list[dict[str, Any]] = [{"type": "scale", "scale": [pixel_size.get(a, 1.0) for a in axes]}]
    if any(translation := [more.translation.get(a, 0.0) for a in axes]):
        steps.append({"type": "translation", "translation": translation})
    return ({"name": more.names[0]} if len(more.names) == 1 else {}) | {
        "axes": [
            {"name": a.lower()}
            | ({"type": _TYPES[a]} if a in _TYPES else {})
            | ({"unit": unit[a]} if unit.get(a) else {})
            for a in axes
        ],
        "datasets": [{"path": "0", "coordinateTransformations": steps}],
    }


def _channels(
    names: Sequence[str], channels: Sequence[Channel], ranges: Sequence[dict[str, float]]
) -> list[dict[str, Any]]:
    """How viewers are to show each: its name, colour, and what is black and what is bright."""
    found = []
    for i, shown in enumerate(channels or [Channel()] * len(ranges)):
        start, end = shown.window or (ranges[i]["min"], ranges[i]["max"])
        window = ranges[i] | {"start": start, "end": end}
        look = {"color": metadata.colour(shown.lut) or WHITE, "active": True, "window": window}
        found.append(({"label": names[i]} if names else {}) | look)
    return found


def made(folder: Path) -> str:
    """The line that `write` kept on how a store came to be; "" where there is none."""
    return str(zarray.metadata(folder.resolve() / "zarr.json").get("attributes", {}).get("cosdd", ""))


def _shard(shape: Sequence[int], chunk: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """Chunks that go into one file: as many as fit, along x first, then along y, z, ..."""
    shard = list(chunk)
    for axis in reversed(range(len(shape))):
        room = _SHARD_BYTES // (itemsize * math.prod(shard))
        there = -(-shape[axis] // chunk[axis])
        shard[axis] = chunk[axis] * max(1, min(there, room))
        if shard[axis] < shape[axis]:
            break
    return tuple(shard)


def _regions(shape: Sequence[int], step: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    corners = product(*(range(0, n, s) for n, s in zip(shape, step, strict=True)))
    for corner in corners:
        yield tuple(slice(i, min(i + s, n)) for i, s, n in zip(corner, step, shape, strict=True))
