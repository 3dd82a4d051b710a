"""Files <-> Image: TIFF (`tiff`), OME-Zarr (`omezarr`), PNG and npy; and Image <-> samples, as models see them.

Pixels stay in the file wherever its layout allows it.
"""

import difflib
import glob
import itertools
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Literal

import imagecodecs
import numpy as np
import tifffile

from cosdd import lazy, metadata, omezarr, tiff, writing
from cosdd.axes import AXES, UNITS, Image, advice, array_axes, fit, given_axes, ordered, shape_text, unit_name
from cosdd.errors import refusal
from cosdd.lazy import Chunks, Lazy, Pixels

SUFFIXES = (".tif", ".tiff", ".png", ".npy", omezarr.SUFFIX)
SPATIAL = {1: "X", 2: "YX", 3: "ZYX"}  # the axes that are space, by dimensions

_FLOAT32, _STEPS = 2.0**-23, 32  # what two 32-bit floats differ by, relatively; so many of them at least are an image
_LARGEST = 1e18  # grey value: the square of a larger one does not fit into 32-bit floats

_NO_JPEG = "JPEG has mixed neighbouring rows, which converting does not undo: use the raw data"
_NAMED = {".tif": "TIFF", ".tiff": "TIFF", ".png": "PNG", ".npy": "numpy array"}
_PNG = b"\x89PNG\r\n\x1a\n"
_SIGNS = {  # the first bytes of what is often misnamed
    b"\xff\xd8\xff": "JPEG", b"RIFF": "WebP", b"GIF8": "GIF", b"BM": "BMP", b"\x89HDF": "HDF5 file",
    b"PK\x03\x04": "zip archive", _PNG: "PNG", b"\x93NUMPY": "numpy array", b"%PDF": "PDF",
    b"II*\0": "TIFF", b"MM\0*": "TIFF", b"II+\0": "TIFF", b"MM\0+": "TIFF", b"<": "web page",
}  # fmt: skip
_JPEG = (".jpg", ".jpeg", ".jpe", ".jfif", ".jp2")
MODEL_FIRST = "the model comes first, as in cosdd denoise MODEL IMAGES or cosdd report MODEL FILE"
PREVIEW = ".preview.png"  # a picture of how far a training run is
_BESIDE = (".safetensors", ".history.csv", ".html", PREVIEW)  # what cosdd writes beside images: models, reports
_KINDS = f"an image ({', '.join(SUFFIXES)})"
_MADE, _MOST_MADE = b"\nmade by ", 4096  # begin of the line behind the pixels of an npy; bytes of it


def find(inputs: Sequence[str | Path]) -> list[Path]:
    """Return the image files meant by files, folders (not recursive) and glob patterns, each file once.

    An OME-Zarr folder is one image; so is an image inside a store, by its address ``plate.zarr/A/1/0``. One of several
    that is there and called an image, but is none, as a link that leads nowhere, is among them: `read` refuses it in
    its turn, and the others are done.
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
        elif path.is_symlink() and not path.exists():
            candidates, seen, advice = [], "a link that leads nowhere", "mend the link, or leave it out"
        elif path.exists() and not path.is_file():
            candidates, seen, advice = [], "a pipe or a device", "write what comes out of it to a file first"
        elif path.exists():
            candidates, seen, advice = [path], f"suffix '{path.suffix}'", _advice_for(path)
        else:
            candidates, seen, advice = map(Path, glob.glob(str(path))), "no such file or folder", _nearest(path)
        matches = sorted(filter(_is_image, candidates))
        if not matches and len(inputs) > 1 and path.suffix.lower() in SUFFIXES and os.path.lexists(path):
            matches = [path]
        if not matches:
            raise refusal(name, seen, _KINDS, advice)
        found += matches
    return list(dict.fromkeys(found))


def not_read(inputs: Sequence[str | Path]) -> str:
    """Say how much `find` passes over in folders, as "1 subfolder and 2 other files not read"; "" where nothing.

    Hidden files, and what cosdd writes beside images, do not count.
    """
    paths = dict.fromkeys(Path(name).expanduser() for name in inputs)
    inside = [entry for path in paths if path.is_dir() and not omezarr.is_store(path) for entry in path.iterdir()]
    rest = [entry for entry in inside if not (_is_image(entry) or entry.name.startswith("."))]
    folders = sum(entry.is_dir() for entry in rest)
    files = sum(not entry.is_dir() and not entry.name.endswith(_BESIDE) for entry in rest)
    said = [f"{n} {what}{'s' * (n > 1)}" for n, what in ((folders, "subfolder"), (files, "other file")) if n]
    return f"{' and '.join(said)} not read" if said else ""


def _is_image(path: Path) -> bool:
    """By its name: a file or an OME-Zarr, not hidden, nor a picture of a training run."""
    known = path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and not path.name.endswith(PREVIEW)
    return known and (path.is_file() or omezarr.is_store(path))


def _nearest(path: Path) -> str:
    """What may have been meant by a name that is not there."""
    names = [entry.name for entry in itertools.islice(path.parent.iterdir(), 10_000)] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, names, 1, cutoff=0.7)
    return f"did you mean {path.with_name(near[0])}?" if near else "check the name"


def _advice_for(path: Path) -> str:
    if path.suffix.lower() in _JPEG:
        return _NO_JPEG
    if path.suffix.lower() == ".safetensors":
        return MODEL_FIRST
    if path.name.endswith(PREVIEW):
        return "cosdd train drew it to show how far it was: name the images themselves"
    return "convert it to TIFF, e.g. with Fiji"


def refuse_as_model(path: Path) -> None:
    """Raise InputError where images stand in the place of a model."""
    if path.is_dir() or path.suffix.lower() in SUFFIXES:
        raise refusal(path, "a folder" if path.is_dir() else "an image", "a model file", MODEL_FIRST)


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
    reader = _read_zarr if is_zarr else readers.get(path.suffix.lower(), tiff.read)
    with tiff.decoding(path):
        if not is_zarr:
            _refuse_disguised(path)
        image = reader(path, axes)
    stated = {a: s for a, s in image.pixel_size.items() if a in image.axes}
    # nine digits undo the rounding of 1 / resolution and of TIFF's fractions
    size = {a: float(f"{s:.9g}") for a, s in stated.items() if 0 < s < math.inf}
    what = {a: "frame interval" if a == "T" else f"pixel size along {a.lower()}" for a in stated}
    senseless = tuple(f"its {what[a]} is {s:g}: left out" for a, s in stated.items() if a not in size)
    unit = {a: image.unit[a] for a in size if image.unit.get(a)}
    lengths = dict(zip(image.axes, image.data.shape, strict=True))
    names = tuple(metadata.name(name) for name in image.channel_names)
    names = names if len(names) == lengths.get("C", 1) and all(names) else ()
    more = image.metadata.fitting(lengths.get("P", 1), lengths.get("C", 1))
    return Image(image.data, image.axes, size, unit, names, path, more, image.remarks + senseless)


def _refuse_disguised(path: Path) -> None:
    """Refuse a file of another kind than its name says, by its first bytes."""
    with path.open("rb") as file:
        head = file.read(8)
    kind = next((kind for sign, kind in _SIGNS.items() if head.startswith(sign)), "")
    if not kind or kind == _NAMED[path.suffix.lower()]:
        return
    fix = {"JPEG": _NO_JPEG, "zip archive": "unpack it; of an npz, save each array with numpy.save"}
    right = next((suffix for suffix, known in _NAMED.items() if known == kind), None)
    advice = fix.get(kind, f"name it {path.stem}{right}" if right else "convert it to TIFF, e.g. with Fiji")
    raise refusal(path, f"by its content a {kind}", f"a {_NAMED[path.suffix.lower()]}, as its name says", advice)


def from_array(array: np.ndarray, axes: str | None = None) -> Image:
    """Wrap an array: 1-D is X, 2-D YX, 3-D TYX (separate images); anything else needs `axes`.

    Raises InputError where the axes are unclear or do not fit, and for what is no array, or one that is masked.
    """
    if any(np.ma.is_masked(one) for one in (array if isinstance(array, list | tuple) else [array])):
        raise refusal(None, "masked pixels", "all of them", "fill them, or cut the image to what is known")
    try:
        array = np.asarray(array)
    except ValueError:  # lists of unequal lengths
        raise refusal(None, "parts of different shape", "an array", "give each image by itself") from None
    if array.dtype.kind in "OSU":
        seen = f"{shape_text(array)} of type {array.dtype}" if array.ndim else f"a {type(array.item()).__name__}"
        raise refusal(None, seen, "an array of numbers, an Image, or a path", "give one of those")
    return Image(array, array_axes(array, axes, None, ("X", "YX", "TYX")))


def check(image: Image, may_be_flat: bool = False) -> None:
    """Refuse what no model can learn from: NaN, infinity, one constant value, pixels that are no grey levels.

    may_be_flat: let a constant image pass.

    Reads every pixel once, a part at a time. Raises InputError.
    """
    data = image.data
    if not data.size:
        expected, fix = "at least one along each axis", "check how it was saved"
        raise refusal(image.path, f"{shape_text(data)}: no pixels", expected, fix)
    if data.dtype.kind not in "uif":
        seen = f"{shape_text(data)} pixels of type {data.dtype}"
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
    exact = int if data.dtype.kind in "ui" else float
    largest, spread = max(abs(float(low)), abs(float(high))), float(exact(high) - exact(low))
    seen = f"grey values from {low:.9g} to {high:.9g}"
    if 0 < spread < _STEPS * largest * _FLOAT32:
        seen += f", which differ by {spread:.4g} at most"
        expected = f"more than {_STEPS * largest * _FLOAT32:.2g}: results are 32-bit floats"
        raise refusal(image.path, seen, expected, f"subtract a constant, such as {low:.9g}, from all images first")
    if largest > _LARGEST or 0 < spread < 1 / _LARGEST:
        expected = f"values up to {_LARGEST:g} that differ by more than 0"
        raise refusal(image.path, seen, expected, "multiply the image by a constant")


def to_samples(image: Image, spatial: str) -> Pixels:
    """Return (n, c, *spatial) in the file's dtype: all axes but C and `spatial` are samples, in file order.

    Still in the file, unless sample axes of a memory map are merged across another axis, as T and Z in "TCZYX".
    Raises InputError if the image lacks an axis of `spatial`.
    """
    samples = ordered(image.data, image.axes, _sample_order(image, spatial))
    return lazy.merge(samples, samples.ndim - len(spatial) - 1)


def from_samples(samples: np.ndarray, image: Image, spatial: str) -> np.ndarray:
    """Undo `to_samples`: (n, c, *spatial) of any dtype -> the axis order of `image`."""
    order = _sample_order(image, spatial)
    lengths = dict(zip(image.axes, image.data.shape, strict=True)) | {"C": samples.shape[1]}
    return ordered(samples.reshape([lengths[a] for a in order]), order, image.axes)


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
    return ordered(Lazy(frames), order, image.axes)


def write(path: str | Path, data: Pixels, like: Image, overwrite: bool = False, made: str = "") -> None:
    """Write `data` (axis order of `like`) with all that `like` says: axes, pixel size, units, names, metadata.

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
        seen = f"suffix '{kind}' for {shape_text(data)} ({like.axes}) {data.dtype.name} pixels"
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
            tiff.write(part, data, like, path.stem.lower().endswith(".ome"), made)


def made(path: Path) -> str:
    """The line that `write` kept on how a file came to be; "" where there is none. Raises InputError as `read` does."""
    text = ""
    with tiff.decoding(path):
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
    elif kind in (".tif", ".tiff") and path.stem.lower().endswith(".ome") and not tiff.ome_holds(axes, pixels):
        expected = f"for OME-TIFF {', '.join(tiff.OME_TYPES)} and axes of P{AXES}"
        raise refusal(path, seen, expected, "name the output .tif")


def output_path(source: Path, folder: Path, suffix: str = "", kind: str | None = None) -> Path:
    """Name the result for an input: stack.ome.tif -> folder/stack{suffix}.ome.tif; .png -> .tif (floats).

    kind: another ending, such as ".ome.zarr".
    """
    if source.is_dir():  # an image inside a store is named after the store
        source = Path(omezarr.name(source))
    end = "".join(source.suffixes[-2:]) if source.stem.lower().endswith(".ome") else source.suffix
    kind = kind or (".tif" if end.lower() == ".png" else end)
    return folder / f"{source.name[: -len(end)]}{suffix}{kind}"


def _sample_order(image: Image, spatial: str) -> str:
    """Axes of the samples, then C, then `spatial`."""
    if missing := [a for a in spatial if a not in image.axes]:
        fix = f"{' and '.join(missing)} is missing: if axes are misnamed, give a letter for each, by --axes or axes=..."
        raise refusal(image.path, f"{shape_text(image.data)} ({image.axes})", f"the axes {spatial}", fix)
    return "".join(a for a in image.axes if a not in "C" + spatial) + "C" + spatial


def _read_npy(path: Path, given: str | None) -> Image:
    with path.open("rb") as file:
        shape, order, kind = _npy_header(path, file)
        begin, end = file.tell(), path.stat().st_size
        file.seek(pixels := begin + kind.itemsize * math.prod(shape))
        more = file.read(len(_MADE))
    if end < pixels:
        seen, expected = "cannot be read: the file is cut short", "a complete npy file"
        raise refusal(path, f"{seen}, {end} bytes", f"{expected} of {pixels} bytes", "copy it again, or leave it out")
    if more not in (b"", _MADE):  # what we write behind them
        seen = f"{end - pixels} bytes more than the {' x '.join(map(str, shape))} pixels of its header"
        raise refusal(path, seen, "an npy file that ends with its pixels", "save the array again with numpy.save")
    data = np.memmap(path, kind, "r", begin, shape, order)
    return Image(lazy.in_file(data, path), array_axes(data, given, path, ("X", "YX")))


def _npy_header(path: Path, file: IO[bytes]) -> tuple[tuple[int, ...], Literal["C", "F"], np.dtype]:
    """Shape, order and type of the pixels that follow. Records and objects are no pixels, and nothing is unpickled."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        shape, by_columns, kind = readers[np.lib.format.read_magic(file)](file)
    except Exception:  # of any kind, from the parsing of a Python expression
        again = "copy it again, or save the array again with numpy.save"
        raise refusal(path, "its npy header is damaged", "an array as numpy.save writes it", again) from None
    if kind.hasobject:
        fix = "save the numbers alone: numpy.save(name, array.astype(float))"
        raise refusal(path, "Python objects, which are pickled, and nothing is unpickled here", "numbers", fix)
    if not shape or not all(shape):
        seen = f"{' x '.join(map(str, shape))}: no pixels" if shape else "a single number"
        raise refusal(path, seen, "an array of at least a pixel along each axis", "check how it was saved")
    if min(shape) < 0 or not kind.itemsize:
        raise refusal(path, f"a shape of {shape!r:.60}", "lengths of at least 1", "save the array again")
    return shape, "F" if by_columns else "C", kind


def _read_zarr(path: Path, given: str | None) -> Image:
    if not path.is_dir():
        fix = "unpack it where it is an archive; else see what it is, and name it so"
        raise refusal(path, "a file", "an OME-Zarr, which is a folder", fix)
    store = omezarr.read(path)
    axes = store.axes
    if axes is None or given is not None:
        axes = array_axes(store.data, given, path, ("X", "YX"))
    elif not fit(axes, store.data):
        raise refusal(path, f"{shape_text(store.data)}, axes unclear: {axes}", "a letter for each", advice(store.data))
    size = {a: s for a, s in zip(axes, store.scale, strict=False) if s is not None}
    unit = {a: unit_name(u) for a, u in zip(axes, store.unit, strict=False)}
    translation = {a: t for a, t in zip(axes, store.translation, strict=False) if t}
    more = replace(store.metadata, translation=translation)
    return Image(store.data, axes, size, unit, store.channel_names, path, more)


def _read_png(path: Path, given: str | None) -> Image:
    """Decode grey or RGB; an alpha channel goes if it hides nothing."""
    with path.open("rb") as file:
        head = file.read(24)
    if not head.startswith(_PNG):
        raise refusal(path, "cannot be read: not a PNG file", "a complete image file", "copy it again, or leave it out")
    tiff.refuse_bomb(path, math.prod(int.from_bytes(head[at : at + 4], "big") for at in (16, 20)))
    content = path.read_bytes()
    data = imagecodecs.png_decode(content)
    if data.ndim == 3 and data.shape[-1] in (2, 4):
        if (data[..., -1] != np.iinfo(data.dtype).max).any():
            raise refusal(path, "transparent pixels", "opaque grey or RGB", "save it without alpha channel")
        data = data[..., 0] if data.shape[-1] == 2 else data[..., :3]
    axes = "YXC"[: data.ndim] if given is None else given_axes(given, data, path)
    animated = b"acTL" in content[: content.find(b"IDAT")]
    return Image(data, axes, remarks=("an animation: its first frame is read",) if animated else ())


def _write_npy(path: Path, data: Pixels, made: str) -> None:
    """Plane by plane. What follows the pixels is of no concern to who reads them."""
    native = data.dtype.newbyteorder("=")
    with path.open("wb") as file:
        head = {"descr": np.lib.format.dtype_to_descr(native), "fortran_order": False, "shape": data.shape}
        np.lib.format.write_array_header_1_0(file, head)
        for place in np.ndindex(data.shape[:-2]):
            file.write(np.ascontiguousarray(data[place], native).data)
        file.write(_MADE + made.encode("ascii") + b"\n" if made else b"")


def _write_zarr(path: Path, data: Pixels, like: Image, made: str) -> None:
    order = omezarr.order(like.axes) or ""
    unit = {a: u for a, u in like.unit.items() if u in UNITS}
    pixels = ordered(data, like.axes, order)
    omezarr.write(path, pixels, order, like.pixel_size, unit, like.channel_names, like.metadata, made)
