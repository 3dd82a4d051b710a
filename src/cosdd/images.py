"""Files <-> Image: pixels with named axes, pixel size and channel names.

TIFF (plain, ImageJ, OME), OME-Zarr, PNG and npy. Pixels stay in the file wherever its layout allows it.
What the file says about its axes wins; what it leaves open is asked for, never guessed.
"""

import errno
import glob
import logging
import math
import struct
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree  # nosec B405

import imagecodecs
import numpy as np
import tifffile

from cosdd import __version__, lazy, omezarr, writing
from cosdd.config import AGAIN, InputError, passing, refusal
from cosdd.lazy import Chunks, Lazy, Mapped, Pixels

SUFFIXES = (".tif", ".tiff", ".png", ".npy", omezarr.SUFFIX)
AXES = "TZCYX"  # ImageJ's order
SPATIAL = {1: "X", 2: "YX", 3: "ZYX"}  # the axes that are space, by dimensions
OTHER_AXES = "PIQRAHEVML"  # positions, unnamed sequences, angles, lifetimes, ...: all of them separate images

LARGE = 2**30  # bytes of pixels that are not mapped or loaded as one; see `_in_file`
LARGEST_EXPANSION = 5000  # bytes of pixels for a byte of file; deflate reaches 1032
_LARGEST = 1e18  # grey value: the square of a larger one does not fit into 32-bit floats

_JPEG = (".jpg", ".jpeg", ".jpe", ".jfif", ".jp2")
_KINDS = f"an image ({', '.join(SUFFIXES)})"
_UNITS = {  # name in `Image.unit`: (in metres or seconds, symbol in OME)
    "angstrom": (1e-10, "Å"),
    "nanometer": (1e-9, "nm"),
    "micrometer": (1e-6, "µm"),
    "millimeter": (1e-3, "mm"),
    "centimeter": (1e-2, "cm"),
    "millisecond": (1e-3, "ms"),
    "second": (1.0, "s"),
}
_SPELLINGS = {symbol: name for name, (_, symbol) in _UNITS.items()}
_SPELLINGS |= {"um": "micrometer", "micron": "micrometer", "sec": "second", "msec": "millisecond"}
_OME_SIZES = {"X": "PhysicalSizeX", "Y": "PhysicalSizeY", "Z": "PhysicalSizeZ", "T": "TimeIncrement"}
_IMAGEJ_TYPES = ("uint8", "uint16", "int16", "float32")
_OME_TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
_MADE, _MOST_MADE = b"\nmade by ", 4096  # begin of the line behind the pixels of an npy; bytes of it
_CLASSIC_TIFF_BYTES = 2**32 - 2**25  # offsets are 32 bit; the margin is for tags


@dataclass(frozen=True, eq=False)
class Image:
    """Pixels and what the file says about them.

    data: in file axis order and file dtype (big-endian if the file is: Fiji writes so); may be a memory map, or
    an array in a file (`Lazy`) that is read where it is indexed.
    axes: one upper-case letter per axis, e.g. "TZCYX"; the channel axis is always "C".
    pixel_size, unit: by axis letter, only where the file has them; T holds the frame interval.
    """

    data: Pixels
    axes: str
    pixel_size: dict[str, float] = field(default_factory=dict)
    unit: dict[str, str] = field(default_factory=dict)
    channel_names: tuple[str, ...] = ()
    path: Path | None = None

    def describe(self) -> str:
        """One line: "stack.tif: 20 x 128 x 256 (TYX), uint16, pixel size 0.2 x 0.2 micrometer"."""
        parts = [f"{_shape(self.data)} ({self.axes})", self.data.dtype.name]
        if space := [a for a in self.axes if a in self.pixel_size and a != "T"]:
            units = dict.fromkeys(self.unit.get(a, "") for a in space)
            sizes = " x ".join(f"{self.pixel_size[a]:g}" for a in space)
            parts.append(f"pixel size {sizes} {' / '.join(units)}".rstrip())
        if "T" in self.pixel_size:
            parts.append(f"one frame every {self.pixel_size['T']:g} {self.unit.get('T', '')}".rstrip())
        if self.channel_names:
            parts.append(f"channels {', '.join(self.channel_names)}")
        after = [a for a in self.axes[self.axes.find("X") :] if a not in "CXY"]
        if after and isinstance(self.data, Lazy) and isinstance(self.data.chunks, Mapped):
            order = "".join(after) + "".join(a for a in self.axes if a not in after)
            parts.append(f"each frame lies all over the file, which is slow to read: quicker as {order}")
        return f"{self.path.name if self.path else 'array'}: {', '.join(parts)}"


def find(inputs: Sequence[str | Path]) -> list[Path]:
    """Return the image files meant by files, folders (not recursive) and glob patterns, each file once.

    An OME-Zarr folder is one image; so is an image inside a store, by its address ``plate.zarr/A/1/0``.
    Raises InputError for what is missing, empty, or no image by its suffix.
    """
    if not inputs:
        raise refusal("input", "nothing given", _KINDS, "name a file, a folder or a pattern")
    found: list[Path] = []
    for name in inputs:
        path = Path(name).expanduser()
        if "://" in str(name):
            raise refusal(name, "a web address", "a file or a folder", "download it first")
        if omezarr.is_store(path):
            found.append(path)
            continue
        if path.is_dir():
            candidates, seen, advice = path.iterdir(), "a folder without images", "check the name"
        elif path.exists():
            candidates, seen, advice = [path], f"suffix '{path.suffix}'", _advice_for(path)
        else:
            candidates, seen, advice = map(Path, glob.glob(str(path))), "no such file or folder", "check the name"
        files = [p for p in candidates if (p.is_file() or omezarr.is_store(p)) and not p.name.startswith(".")]
        if not (matches := sorted(p for p in files if p.suffix.lower() in SUFFIXES)):
            raise refusal(name, seen, _KINDS, advice)
        found += matches
    return list(dict.fromkeys(found))


def _advice_for(path: Path) -> str:
    if path.suffix.lower() in _JPEG:
        return "JPEG has mixed neighbouring rows, which converting does not undo: use the raw data"
    if path.suffix.lower() == ".safetensors":
        return "the model comes first, as in cosdd denoise MODEL IMAGES"
    return "convert it to TIFF, e.g. with Fiji"


def read(path: str | Path, axes: str | None = None) -> Image:
    """Read one file; uncompressed TIFF and npy are memory-mapped, not loaded, and large ones read part by part.

    axes: one letter per axis of the file, where the file does not say, or says it wrongly. "S" means "C".

    A TIFF with several images (series) of one shape, as multi-position OME-TIFF, gets the axis "P" in front;
    with several shapes it is refused, thumbnails aside. A palette TIFF gives its indices: in microscopy these
    are the intensities, and the palette a display colour.
    Raises InputError for a file that is missing, damaged, no image, or whose axes are unclear.
    """
    path = Path(path).expanduser()
    if find([path]) != [path]:
        raise refusal(path, "a folder or pattern", "one image file", "name the file")
    readers = {".npy": _read_npy, ".png": _read_png}
    is_zarr = path.is_dir() or path.suffix.lower() == omezarr.SUFFIX
    reader = _read_zarr if is_zarr else readers.get(path.suffix.lower(), _read_tiff)
    with _library(path):
        image = reader(path, axes)
    # nine digits undo the rounding of 1 / resolution and of TIFF's fractions
    size = {a: float(f"{s:.9g}") for a, s in image.pixel_size.items() if a in image.axes and 0 < s < math.inf}
    unit = {a: image.unit[a] for a in size if image.unit.get(a)}
    channels = image.data.shape[image.axes.index("C")] if "C" in image.axes else 0
    names = image.channel_names if len(image.channel_names) == channels else ()
    return Image(image.data, image.axes, size, unit, names, path)


def from_array(array: np.ndarray, axes: str | None = None) -> Image:
    """Wrap an array: 1-D is X, 2-D YX, 3-D TYX (separate images); anything else needs `axes`.

    Raises InputError where the axes are unclear or do not fit.
    """
    array = np.asarray(array)
    return Image(array, _array_axes(array, axes, None, ("X", "YX", "TYX")))


def check(image: Image, may_be_flat: bool = False) -> None:
    """Refuse what no model can learn from: NaN, infinity, one constant value, pixels that are no grey levels.

    may_be_flat: let a constant image pass.

    Reads every pixel once, a part at a time. Raises InputError.
    """
    data = image.data
    if data.dtype.kind not in "uif" or not data.size:
        seen = f"{_shape(data)} pixels of type {data.dtype}"
        raise refusal(image.path, seen, "integers or floats", "convert it to 16-bit or 32-bit grey levels")
    low, high = math.inf, -math.inf
    for where, block in lazy.blocks(data):
        lowest, highest = block.min(), block.max()
        low, high = min(low, lowest), max(high, highest)
        if not (np.isfinite(lowest) and np.isfinite(highest)):  # NaN passes through min and max
            place = [p.start + int(i) for p, i in zip(where, np.argwhere(~np.isfinite(block))[0], strict=True)]
            count = np.count_nonzero(~np.isfinite(data[tuple(place[:-2])]))
            at = ", ".join(f"{a}={i}" for a, i in zip(image.axes, place, strict=True))
            seen = f"NaN or infinite at {at} ({count} such in this plane)"
            raise refusal(image.path, seen, "finite pixels", "Fiji: Process > Noise > Remove NaNs")
    if low == high and not may_be_flat:
        raise refusal(image.path, f"every pixel is {low:g}", "an image", "check that it was exported well")
    if max(abs(float(low)), abs(float(high))) > _LARGEST or 0 < float(high) - float(low) < 1 / _LARGEST:
        seen, expected = (
            f"grey values from {low:g} to {high:g}",
            f"values up to {_LARGEST:g} that differ by more than 0",
        )
        raise refusal(image.path, seen, expected, "multiply the image by a constant")


def to_samples(image: Image, spatial: str) -> Pixels:
    """Return (n, c, *spatial) in the file's dtype: all axes but C and `spatial` are samples, in file order.

    Still in the file, unless sample axes of a memory map are merged across another axis, as T and Z in "TCZYX".
    Raises InputError if the image lacks an axis of `spatial`.
    """
    samples = _ordered(image.data, image.axes, _sample_order(image, spatial))
    return lazy.merge(samples, samples.ndim - len(spatial) - 1)


def from_samples(samples: np.ndarray, image: Image, spatial: str) -> np.ndarray:
    """Undo `to_samples`: (n, c, *spatial) of any dtype -> the axis order of `image`."""
    order = _sample_order(image, spatial)
    lengths = dict(zip(image.axes, image.data.shape, strict=True)) | {"C": samples.shape[1]}
    return _ordered(samples.reshape([lengths[a] for a in order]), order, image.axes)


def from_frames(
    read: Callable[[int], np.ndarray], shape: tuple[int, ...], kind: np.dtype, image: Image, spatial: str
) -> Lazy:
    """Undo `to_samples` for frames (c, *space) of this shape and dtype that are read, by number, where needed."""
    order = _sample_order(image, spatial)
    lengths = dict(zip(image.axes, image.data.shape, strict=True))
    samples = [lengths[a] for a in order[: -len(spatial) - 1]]
    chunk = (1,) * len(samples) + shape

    def one(place: tuple[int, ...]) -> np.ndarray:
        index = int(np.ravel_multi_index(place[: len(samples)], samples)) if samples else 0
        return read(index).reshape(chunk)

    frames = Chunks((*samples, *shape), kind, chunk, one, lazy.Kept(0))  # the one that was just read
    return _ordered(Lazy(frames), order, image.axes)


def write(path: str | Path, data: Pixels, like: Image, overwrite: bool = False, made: str = "") -> None:
    """Write `data` (axis order of `like`) with the axes, pixel size, units and channel names of `like`.

    made: a line of ASCII on how these pixels came to be, kept with them in every format but PNG; see `made`.

    .ome.tif is OME-TIFF. Other .tif are ImageJ TIFF, which Fiji opens with the same axes and pixel size
    (float64 becomes float32); what ImageJ cannot hold (32-bit integers, extra axes, > 4 GB) becomes OME-TIFF
    or plain TIFF. .zarr is OME-Zarr 0.5, its axes in the order TCZYX. .png takes 8-bit and 16-bit grey or RGB;
    .npy keeps pixels only. A file appears when it is complete. Raises InputError if it exists, or cannot be written.
    """
    path = Path(path)
    kind = path.suffix.lower()
    assert data.ndim == len(like.axes), f"data of shape {data.shape} do not have the axes {like.axes}"
    if path.exists() and not overwrite:
        raise refusal(
            path, "exists already", "a new file", "choose another output or add --overwrite (in Python overwrite=True)"
        )
    refuse_format(path, like.axes, data.dtype)
    refuse_folder(path)
    flat = like.axes == "YX" or (like.axes == "YXC" and data.shape[-1] == 3)
    if kind not in SUFFIXES or (kind == ".png" and not (flat and data.dtype.name in ("uint8", "uint16"))):
        seen = f"suffix '{kind}' for {_shape(data)} ({like.axes}) {data.dtype.name} pixels"
        raise refusal(path, seen, ".tif, .zarr, .npy, or .png for an 8/16-bit plane", f"try {path.stem}.tif")
    with writing.whole(path) as part:
        if kind == ".npy":
            _write_npy(part, data, made)
        elif kind == ".png":
            native = np.ascontiguousarray(data, dtype=data.dtype.newbyteorder("="))
            part.write_bytes(imagecodecs.png_encode(native))
        elif kind == omezarr.SUFFIX:
            _write_zarr(part, data, like, made)
        else:
            _write_tiff(part, data, like, path.stem.lower().endswith(".ome"), made)


def made(path: Path) -> str:
    """The line that `write` kept on how a file came to be; "" where there is none. Raises InputError as `read` does."""
    text = ""
    with _library(path):
        if path.is_dir():
            text = omezarr.made(path)
        elif path.suffix.lower() == ".npy":
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - _MOST_MADE))
                _, found, line = file.read().rpartition(_MADE)
            text = line.decode("ascii").strip() if found else ""
        elif path.suffix.lower() in (".tif", ".tiff"):
            with tifffile.TiffFile(path) as tif:
                text = str(tif.pages.first.tags.valueof("Software", default=""))
    return text


def refuse_folder(path: Path) -> None:
    """Raise InputError where an output would take the place of a folder that is no OME-Zarr."""
    if path.is_dir() and not (path.suffix.lower() == omezarr.SUFFIX and omezarr.may_replace(path)):
        raise refusal(path, "a folder", "a file or an OME-Zarr to replace", "choose another output")


def refuse_format(path: Path, axes: str, pixels: np.dtype) -> None:
    """Raise InputError where the format of this name cannot hold such pixels: before the work rather than after."""
    kind, seen = path.suffix.lower(), f"{pixels.name} pixels with axes {axes}"
    if kind == omezarr.SUFFIX:
        if omezarr.order(axes) is None or pixels.kind not in "uif" or pixels.itemsize > 8:
            expected = "for OME-Zarr numbers with Y, X, and of T, C, Z some"
            raise refusal(path, seen, expected, f"name the output {path.stem}.tif")
    elif kind in (".tif", ".tiff") and path.stem.lower().endswith(".ome") and not _fits_ome(axes, pixels):
        expected = f"for OME-TIFF {', '.join(_OME_TYPES)} and axes of P{AXES}"
        raise refusal(path, seen, expected, "name the output .tif")


def _fits_ome(axes: str, pixels: np.dtype) -> bool:
    return pixels.name in (*_OME_TYPES, "float16") and set(axes) <= set("P" + AXES)  # float16 is written as float32


def output_path(source: Path, folder: Path, suffix: str = "", kind: str | None = None) -> Path:
    """Name the result for an input: stack.ome.tif -> folder/stack{suffix}.ome.tif; .png -> .tif (floats).

    kind: another ending, such as ".ome.zarr".
    """
    if source.is_dir():  # an image inside a store is named after the store
        source = Path(omezarr.name(source))
    end = "".join(source.suffixes[-2:]) if source.stem.lower().endswith(".ome") else source.suffix
    kind = kind or (".tif" if end.lower() == ".png" else end)
    return folder / f"{source.name[: -len(end)]}{suffix}{kind}"


def _array_axes(data: Pixels, given: str | None, path: Path | None, defaults: tuple[str, ...]) -> str:
    """Axes of a bare array: given, or by its number of dimensions where that leaves no doubt."""
    if given is not None:
        return _given_axes(given, data, path)
    if not 1 <= data.ndim <= len(defaults) or (data.ndim == 3 and data.shape[-1] <= 4):
        raise refusal(path, f"{_shape(data)}, axes unclear", "a letter for each", _advice(data))
    return defaults[data.ndim - 1]


def _fit(axes: str, data: Pixels) -> bool:
    """Are these our letters, each once, and one for each axis of the pixels?"""
    once = len(axes) == len(set(axes)) == data.ndim
    return once and set("YX"[-data.ndim :]) <= set(axes) <= set(AXES + OTHER_AXES)


def _given_axes(axes: str, data: Pixels, path: Path | None) -> str:
    """Check the user's axes against the pixels; "S" (colour samples) is "C"."""
    named = axes.upper().replace("S", "C")
    if not _fit(named, data):
        expected = "each axis once: Y, X, and of T, Z, C (colour), P or I (other separate images) what it has"
        raise refusal(path, f"--axes {axes} for {_shape(data)} pixels", expected, _advice(data))
    return named


def _file_axes(data: Pixels, axes: str, stated: bool, path: Path) -> tuple[Pixels, str]:
    """Put tifffile's axes into our letters, or refuse to guess. `stated`: the file names its axes."""
    unnamed = tuple(i for i, a in enumerate(axes) if a in "QI" and data.shape[i] == 1)
    data = lazy.arrange(data, [i for i in range(data.ndim) if i not in unnamed])
    letters = "".join(a for i, a in enumerate(axes) if i not in unnamed)
    named = letters if "C" in letters else letters.replace("S", "C")
    unknown = sum(a in "QI" for a in named)
    # saved without saying RGB, (64, 64, 3) is read as 64 pages of 64 x 3 ("QYX"); saved without saying grey,
    # 3 or 4 frames are stored by tifffile as the planes of one RGB page ("SYX")
    colour = letters.startswith("S") or (len(letters) == 3 and letters[1:] == "YX" and data.shape[-1] <= 4)
    if unknown > 1 or (colour and not stated) or "S" in named or len(set(named)) < len(named):
        raise refusal(path, f"{_shape(data)}, axes unclear: {letters}", "a letter for each", _advice(data))
    if unknown and "T" not in named:  # a sequence of pages: time or z, both are samples
        named = named.replace("Q", "T").replace("I", "T")
    return data, named


def _sample_order(image: Image, spatial: str) -> str:
    """Axes of the samples, then C, then `spatial`."""
    if missing := [a for a in spatial if a not in image.axes]:
        fix = f"{' and '.join(missing)} is missing: if axes are misnamed, give --axes with one letter each"
        raise refusal(image.path, f"{_shape(image.data)} ({image.axes})", f"the axes {spatial}", fix)
    return "".join(a for a in image.axes if a not in "C" + spatial) + "C" + spatial


def _ordered(data: Pixels, axes: str, order: str) -> Any:
    """View `data` with its axes in `order`: those it lacks get length 1, those of length 1 may be dropped."""
    return lazy.arrange(data, [axes.find(a) for a in order])


def _read_npy(path: Path, given: str | None) -> Image:
    data = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(data, np.ndarray):
        raise refusal(path, "an npz archive", "one npy array", "save the array with numpy.save")
    return Image(_in_file(data, path), _array_axes(data, given, path, ("X", "YX")))


def _read_zarr(path: Path, given: str | None) -> Image:
    store = omezarr.read(path)
    axes = store.axes
    if axes is None or given is not None:
        axes = _array_axes(store.data, given, path, ("X", "YX"))
    elif not _fit(axes, store.data):
        raise refusal(path, f"{_shape(store.data)}, axes unclear: {axes}", "a letter for each", _advice(store.data))
    size = {a: s for a, s in zip(axes, store.scale, strict=False) if s is not None}
    unit = {a: _unit(u) for a, u in zip(axes, store.unit, strict=False)}
    return Image(store.data, axes, size, unit, store.channel_names if all(store.channel_names) else ())


def _read_png(path: Path, given: str | None) -> Image:
    """Decode grey or RGB; an alpha channel goes if it hides nothing."""
    with path.open("rb") as file:
        head = file.read(24)
    _refuse_bomb(path, math.prod(int.from_bytes(head[at : at + 4], "big") for at in (16, 20)))
    data = imagecodecs.png_decode(path.read_bytes())
    if data.ndim == 3 and data.shape[-1] in (2, 4):
        if (data[..., -1] != np.iinfo(data.dtype).max).any():
            raise refusal(path, "transparent pixels", "opaque grey or RGB", "save it without alpha channel")
        data = data[..., 0] if data.shape[-1] == 2 else data[..., :3]
    return Image(data, "YXC"[: data.ndim] if given is None else _given_axes(given, data, path))


def _read_tiff(path: Path, given: str | None) -> Image:
    with tifffile.TiffFile(path) as tif:
        _refuse_circle(tif, path)
        pixels = _ome_pixels(tif, path)
        series = [s for s in tif.series if not s.keyframe.is_reduced]  # reduced: thumbnails
        data, axes = _tiff_pixels(tif, series, path)
        kind = series[0].kind
        own = (tif.shaped_metadata or ({},))[0] if kind == "shaped" else {}
        imagej = (tif.imagej_metadata or {}) if kind == "imagej" else {}
        order, letters = str(imagej.get("cosdd_axes", "")), axes.replace("S", "C")  # see _write_tiff
        if given is not None:
            axes = _given_axes(given, data, path)
        elif order and all(n == 1 or a in order for a, n in zip(letters, data.shape, strict=True)):
            data, axes = _ordered(data, letters, order), order
        else:
            stated = "axes" in own or kind not in ("shaped", "uniform", "generic")
            data, axes = _file_axes(data, axes, stated, path)
        if kind == "ome" and pixels is not None:
            names = [e.get("Name", "") for e in pixels if e.tag.endswith("}Channel")]
            scale = _ome_scale(pixels.attrib)
        else:
            labels = [str(label) for label in imagej.get("Labels", ())]  # one per plane, channels fastest
            names = labels[: data.shape[axes.index("C")] if "C" in axes else 0]
            names = names if names and labels == names * (len(labels) // len(names)) else []
            scale = _ome_scale(own) if "PhysicalSizeX" in own else _tag_scale(series[0].keyframe, imagej)
        return Image(data, axes, *scale, tuple(names) if all(names) else ())


def _refuse_circle(tif: tifffile.TiffFile, path: Path) -> None:
    """The pages of a TIFF are a chain; tifffile would follow one that bites its own tail for hours."""
    form, file, seen = tif.tiff, tif.filehandle, set()

    def number(at: int, layout: str) -> int:
        file.seek(at)
        return struct.unpack(layout, file.read(struct.calcsize(layout)))[0]

    with suppress(struct.error):  # the end of the file, where the chain is cut off: tifffile says so
        offset = number(form.offsetsize, form.offsetformat)  # the first is after 4 bytes, in BigTIFF after 8
        while offset and offset < file.size:
            if offset in seen:
                raise refusal(path, "its pages refer to each other in a circle", "a TIFF file", "copy it again")
            seen.add(offset)
            tags = number(offset, form.tagnoformat)
            offset = number(offset + form.tagnosize + tags * form.tagsize, form.offsetformat)


def _ome_pixels(tif: tifffile.TiffFile, path: Path) -> ElementTree.Element | None:
    """OME's description of the pixels, read before tifffile follows it. It may name files of its own folder only."""
    if not (text := tif.ome_metadata):
        return None
    if "<!DOCTYPE" in text or "<!ENTITY" in text:  # nothing OME needs, and the way in which XML grows or reaches out
        raise refusal(path, "its OME-XML declares entities", "plain OME-XML", "save it again, e.g. with Fiji")
    elements = list(ElementTree.fromstring(text).iter())  # nosec B314
    for name in (element.get("FileName") for element in elements):
        if name and (Path(name).name != name or "\\" in name):
            raise refusal(path, f"its OME-XML names the file {name:.80}", "files of the same folder", "save it again")
    return next((element for element in elements if element.tag.endswith("}Pixels")), None)


def _refuse_bomb(path: Path, size: int) -> None:
    """Refuse an image of ``size`` bytes whose file is too small for it: no known compression of images does that."""
    if size > max(LARGEST_EXPANSION * path.stat().st_size, 2**28):
        seen = f"{size / 1e9:.3g} GB of pixels in a file of {path.stat().st_size / 1e6:.3g} MB"
        raise refusal(path, seen, "an image file", "it is damaged, or made to fill the memory")


def _tiff_pixels(tif: tifffile.TiffFile, series: list[Any], path: Path) -> tuple[Pixels, str]:
    """All images of the file as one array, left there if they lie in one piece or are large; and tifffile's axes."""
    shapes = list(dict.fromkeys(f"{_shape(s)} ({s.axes}) {s.dtype}" for s in series))
    if len(shapes) != 1:
        seen = f"{len(series)} images of different shape or type: {', '.join(shapes[:4])}"
        raise refusal(path, seen, "one image per file", "save each as a TIFF of its own")
    first = series[0]
    if not first.is_multifile:
        _refuse_bomb(path, sum(s.nbytes for s in series))
    if first.kind == "ome" and any(page is None for s in series for page in s.pages):
        raise refusal(path, "planes are missing", "all planes of the OME-TIFF", "put its files together")
    if len(series) > 1:
        return np.stack([s.asarray() for s in series]), f"P{first.axes}"
    if first.dataoffset is not None and not first.is_multifile and first.keyframe.parent is tif:
        mapped = np.memmap(path, tif.byteorder + first.dtype.char, "r", first.dataoffset, first.shape)
        return _in_file(mapped, path), first.axes
    page = first.keyframe.shape
    before = first.shape[: len(first.shape) - len(page)]
    by_pages = first.shape[len(before) :] == page and math.prod(before) == len(first.pages)
    if first.nbytes < LARGE or first.is_multifile or not by_pages:
        return first.asarray(), first.axes
    turn = threading.Lock()

    def read(place: tuple[int, ...]) -> np.ndarray:
        number = int(np.ravel_multi_index(place[: len(before)], before)) if before else 0
        with turn, _library(path):
            tif.filehandle.open()  # it was closed after the last part
            try:
                return first.pages[number].asarray().reshape((1,) * len(before) + page)
            finally:
                tif.filehandle.close()

    return Lazy(Chunks(first.shape, first.dtype, (1,) * len(before) + page, read)), first.axes


def _in_file(mapped: np.ndarray, path: Path) -> Pixels:
    """A memory map of a large file as an array whose parts are mapped when they are read, and let go then: else all
    pages that were looked at once would count as memory of ours."""
    if mapped.nbytes < LARGE or not isinstance(mapped, np.memmap) or not mapped.flags.c_contiguous:
        return mapped
    return Lazy(Mapped(path, mapped.dtype, mapped.offset, mapped.shape))


def _tag_scale(page: Any, imagej: dict[str, Any]) -> tuple[dict[str, float], dict[str, str]]:
    """Pixel size from the resolution tags of `page` and, if there is any, ImageJ's description."""
    fractions = {a: page.tags.valueof(f"{a}Resolution") for a in "XY"}  # pixels, units
    size = {a: f[1] / f[0] for a, f in fractions.items() if f and f[0] and f[1]}
    length, tag_unit = _unit(imagej.get("unit")), int(page.tags.valueof("ResolutionUnit", default=2))
    if length:
        size["Z"] = abs(float(imagej.get("spacing", 0)))
    # 1 is what libraries write for "unknown", 72 and 96 dpi what drawing programs write
    elif {round(1 / s, 3) for s in size.values()} <= ({1.0, 72.0, 96.0} if tag_unit == 2 else {1.0}):
        size = {}
    else:
        size = {a: s * {2: 25400.0, 3: 10000.0}.get(tag_unit, 0.0) for a, s in size.items()}
    size["T"] = float(imagej.get("finterval", 0))  # `read` drops what is 0
    return size, dict.fromkeys(size, length or "micrometer") | {"T": _unit(imagej.get("tunit")) or "second"}


def _ome_scale(said: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, str]]:
    """Pixel size and unit from the attributes of OME's Pixels, with OME's default units."""
    unit = {a: _unit(said.get(f"{name}Unit", "s" if a == "T" else "µm")) for a, name in _OME_SIZES.items()}
    return {a: float(said[name]) for a, name in _OME_SIZES.items() if name in said and unit[a]}, unit


@contextmanager
def _library(path: Path) -> Iterator[None]:
    """Turn whatever a decoder raises or logs about a damaged file into one InputError; keep it quiet.

    tifffile only logs that pages are missing and returns the rest: training would go on with half a file.
    """
    complaints: list[str] = []
    disk: OSError | None = None
    logger = logging.getLogger("tifffile")

    def note(record: logging.LogRecord) -> bool:
        complaints.extend([record.getMessage()] if record.levelno >= logging.ERROR else [])
        return False  # goes no further

    logger.addFilter(note)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    except (MemoryError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.ENOMEM:
            complaints.insert(0, str(error))
            disk = passing(error)
        else:
            fix = "cut the image into parts, or use a machine with more memory"
            raise refusal(path, "out of memory while it was read", "room for the whole image", fix) from error
    except Exception as error:  # decoders raise nearly every kind; only they run in here
        complaints.insert(0, str(error) or type(error).__name__)
    finally:
        logger.removeFilter(note)
    # a bad tag is harmless, except 270, which has the axes
    if complaints := [c for c in complaints if "TiffTag" not in c or "TiffTag 270 " in c]:
        too_short = any("mmap length" in c or ("TiffPages" in c and "offset" in c) for c in complaints)
        complaints = ["the file is cut short"] if too_short else complaints
        fix = AGAIN if disk else "copy it again, or open it in Fiji and save it as TIFF, or leave it out"
        raise refusal(path, f"cannot be read: {complaints[0]:.120}", "a complete image file", fix) from disk


def _write_npy(path: Path, data: Pixels, made: str) -> None:
    """Plane by plane. What follows the pixels is of no concern to who reads them."""
    native = data.dtype.newbyteorder("=")
    with path.open("wb") as file:
        head = {"descr": np.lib.format.dtype_to_descr(native), "fortran_order": False, "shape": data.shape}
        np.lib.format.write_array_header_1_0(file, head)
        for place in np.ndindex(data.shape[:-2]):
            file.write(np.ascontiguousarray(data[place], native).data)
        file.write(_MADE + made.encode("ascii") + b"\n" if made else b"")


def _write_tiff(path: Path, data: Pixels, like: Image, ome: bool, made: str) -> None:
    """Write the richest TIFF that holds these pixels: ImageJ, else OME, else plain with JSON."""
    if data.dtype.kind == "f" and data.dtype != np.float32 and (data.dtype.itemsize == 2 or not ome):
        data = np.asarray(data, np.float32)
    axes, pixel = like.axes, data.dtype.name
    lengths = dict(zip(axes, data.shape, strict=True))
    big = data.nbytes > _CLASSIC_TIFF_BYTES
    imagej = pixel in _IMAGEJ_TYPES and set(axes) <= set(AXES) and not (ome or big)
    fits_ome = _fits_ome(axes, data.dtype)
    rgb = axes.endswith("YXC") and lengths["C"] == 3 and (pixel == "uint8" if imagej else fits_ome)
    names = list(like.channel_names) if not rgb and len(like.channel_names) == lengths.get("C") else []
    unit = like.unit.get("X", "") if imagej else "centimeter"  # ImageJ has one for all directions
    x, y, z = (_converted(like, axis, unit) for axis in "XYZ")
    said: dict[str, Any] = {}
    if imagej:
        order = "TZYXC" if rgb else AXES  # the only ones Fiji knows; `cosdd_axes` keeps ours
        symbol = "micron" if unit == "micrometer" else _UNITS.get(unit, (0, unit))[1]
        said["unit"] = symbol if symbol.isascii() else unit if unit.isascii() else ""
        said |= {"spacing": z, "finterval": _converted(like, "T", "second"), "cosdd_axes": axes}
        said["Labels"] = names * (lengths.get("T", 1) * lengths.get("Z", 1))
    else:
        order = axes if "Y" in axes else axes.replace("X", "YX")
        order = order.replace("P", "") if fits_ome else order
        if fits_ome and not (rgb or order.endswith("YX")):
            order = "".join(a for a in AXES if a in order)
        for axis, name in _OME_SIZES.items():
            if axis in like.pixel_size and like.unit.get(axis) in _UNITS:
                said |= {name: like.pixel_size[axis], f"{name}Unit": _UNITS[like.unit[axis]][1]}
        said["Channel"] = {"Name": names} if names else None
    said = {k: v for k, v in said.items() if v} | {"axes": order.replace("C", "S") if rgb else order}
    options: dict[str, Any] = {"photometric": "rgb" if rgb else "minisblack", "metadata": said}
    options["software"] = made or f"cosdd {__version__}"
    if x and unit:
        options |= {"resolution": (1 / x, 1 / (y or x)), "resolutionunit": 1 if imagej else 3}
    with tifffile.TiffWriter(path, imagej=imagej, ome=fits_ome and not imagej, bigtiff=big) as tif:
        # OME: one image per position; ImageJ and plain: one image, under an axis that is not there
        images = _ordered(data, axes, ("P" if fits_ome else "#") + order)
        for place in range(len(images)):
            # Plane by plane: axes in another order are a copy, which need not be one of all pixels.
            inner = np.ndindex(images.shape[1 : -3 if rgb else -2])
            planes = (np.ascontiguousarray(images[(place, *i)]) for i in inner)
            tif.write(planes, shape=images.shape[1:], dtype=images.dtype, contiguous=False, **options)


def _write_zarr(path: Path, data: Pixels, like: Image, made: str) -> None:
    order = omezarr.order(like.axes) or ""
    unit = {a: u for a, u in like.unit.items() if u in _UNITS}
    omezarr.write(path, _ordered(data, like.axes, order), order, like.pixel_size, unit, like.channel_names, made)


def _unit(text: object) -> str:
    """One spelling per unit; "" where the file says pixels, or nothing. Unknown units stay as they are."""
    name = str(text or "").strip().replace("\\u00B5", "µ").replace("\u03bc", "µ")  # ImageJ's; Greek mu
    plain = name.lower().replace("metre", "meter").removesuffix("s") if len(name) > 2 else name
    name = _SPELLINGS.get(name) or _SPELLINGS.get(plain) or (plain if plain in _UNITS else name)
    return "" if plain in ("pixel", "none", "null") else name


def _converted(image: Image, axis: str, unit: str) -> float | None:
    """Pixel size along `axis` in `unit`, or None if the file has none or the units do not compare."""
    have = image.unit.get(axis, "")
    if axis not in image.pixel_size or (have != unit and not {have, unit} <= set(_UNITS)):
        return None
    return image.pixel_size[axis] * (1.0 if have == unit else _UNITS[have][0] / _UNITS[unit][0])


def _shape(data: Pixels | tifffile.TiffPageSeries) -> str:
    return " x ".join(map(str, data.shape)) or "0-D"


def _advice(data: Pixels) -> str:
    tail = "YXC" if data.ndim > 2 and data.shape[-1] <= 4 else "YX"[-data.ndim :]
    example = ("TZCPIQRAHEV" if tail != "YXC" else "TZPIQRAHEV")[: max(data.ndim - len(tail), 0)] + tail
    return f"say what they are, e.g. --axes {example} (in Python axes='{example}')"
