"""TIFF files <-> Image: plain, ImageJ's, OME-TIFF. Pixels stay in the file wherever its layout allows it."""

from __future__ import annotations

import errno
import logging
import math
import struct
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import zip_longest
from pathlib import Path
from typing import Any
from xml.etree import ElementTree  # nosec B405

import numpy as np
import tifffile

from cosdd import __version__, lazy, metadata
from cosdd.axes import AXES, UNITS, Image, converted, file_axes, given_axes, ordered, shape_text, unit_name
from cosdd.errors import AGAIN, InputError, passing, refusal
from cosdd.lazy import Chunks, Lazy, Pixels
from cosdd.metadata import WHITE, Channel, Metadata

MOST_PLANES, FAR_MORE_PLANES = 2**20, 64  # that a description may tell of, and times those that are there
LARGEST_EXPANSION = 5000  # bytes of pixels for a byte of file; deflate reaches 1032
_OME_SIZES = {"X": "PhysicalSizeX", "Y": "PhysicalSizeY", "Z": "PhysicalSizeZ", "T": "TimeIncrement"}
_OME_WAVES = ("ExcitationWavelength", "EmissionWavelength")
_OME_OF_PLANE = ("DeltaT", "ExposureTime", "PositionX", "PositionY", "PositionZ")
_IMAGEJ_MODES = ("composite", "color", "grayscale")
_IMAGEJ_COLOURS = ("FF0000", "00FF00", "0000FF", WHITE, "00FFFF", "FF00FF", "FFFF00")  # where a file names none
_IMAGEJ_TYPES = ("uint8", "uint16", "int16", "float32")
_OME_SPELLINGS = {"float": "float32", "double": "float64", "bit": "bool"}
OME_TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
_CLASSIC_TIFF_BYTES = 2**32 - 2**25  # offsets are 32 bit; the margin is for tags


def read(path: Path, given: str | None) -> Image:
    with tifffile.TiffFile(path) as tif:
        pages = _pages(tif, path)
        ome = _ome_elements(tif, path, pages)
        series = [s for s in tif.series if not s.keyframe.is_reduced]  # reduced: thumbnails
        data, axes = _pixels(tif, series, path)
        remarks, white = _differences(tif, ome, pages), _white(series, path)
        if white:
            data = lazy.inverted(data, white)
            remarks.append("0 is white in this file (MinIsWhite), and black in what is read and written here")
        kind = series[0].kind
        own = (tif.shaped_metadata or ({},))[0] if kind == "shaped" else {}
        imagej = (tif.imagej_metadata or {}) if kind == "imagej" else {}
        order, letters = str(imagej.get("cosdd_axes", "")), axes.replace("S", "C")  # see write
        if given is not None:
            axes = given_axes(given, data, path)
        elif order and all(n == 1 or a in order for a, n in zip(letters, data.shape, strict=True)):
            data, axes = ordered(data, letters, order), order
        else:
            stated = "axes" in own or kind not in ("shaped", "uniform", "generic")
            data, axes = file_axes(data, axes, stated, path)
        count = data.shape[axes.index("C")] if "C" in axes else 1
        if kind == "ome" and (pixels := _named(ome, "Pixels")):
            names = [e.get("Name", "") for e in _named(pixels[0], "Channel")]
            scale = _ome_scale(pixels[0].attrib)
            more = _ome_metadata(_named(ome, "Image"), len(series), planes=given is None)
        else:
            labels = [str(label) for label in imagej.get("Labels", ())]  # one per plane, channels fastest
            names = labels[: count if "C" in axes else 0]
            names = names if names and labels == names * (len(labels) // len(names)) else []
            scale = _ome_scale(own) if "PhysicalSizeX" in own else _tag_scale(series[0].keyframe, imagej)
            more = _imagej_metadata(imagej, count)
        return Image(data, axes, *scale, tuple(names), path, more.inverted(white) if white else more, tuple(remarks))


def _pages(tif: tifffile.TiffFile, path: Path) -> int:
    """How many there are. They are a chain; tifffile would follow one that bites its own tail for hours."""
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
    return len(seen)


def _ome_elements(tif: tifffile.TiffFile, path: Path, pages: int) -> list[ElementTree.Element]:
    """OME's description, read before tifffile follows it. It may name files of its own folder only, and no more planes
    than could be in them: tifffile makes a list of all."""
    if not (text := tif.ome_metadata):
        return []
    if "<!DOCTYPE" in text or "<!ENTITY" in text:  # nothing OME needs, and the way in which XML grows or reaches out
        raise refusal(path, "its OME-XML declares entities", "plain OME-XML", "save it again, e.g. with Fiji")
    elements = list(ElementTree.fromstring(text).iter())  # nosec B314
    files = {element.get("FileName") for element in elements}  # None is this one
    for name in files:
        if name and (Path(name).name != name or "\\" in name):
            raise refusal(path, f"its OME-XML names the file {name:.80}", "files of the same folder", "save it again")
    planes = 0
    for element in elements:
        if element.tag.endswith("Pixels"):  # so tifffile finds and reads them
            with suppress(ValueError):
                planes += math.prod(int(element.get(f"Size{axis}", 1)) for axis in "TCZ")
    if planes > max(MOST_PLANES, FAR_MORE_PLANES * pages * len(files)):
        seen = f"its OME-XML tells of {planes:.6g} planes, in a file of {pages}"
        raise refusal(path, seen, "as many as there are", "open it in Fiji and save it as TIFF")
    return elements


def _differences(tif: tifffile.TiffFile, ome: list[ElementTree.Element], pages: int) -> list[str]:
    """What the description says otherwise than the pages of the file, which are believed; a line for each."""
    page, found = tif.pages.first, []
    said = [{a: pixels.get(a, "") for a in ("SizeX", "SizeY", "Type")} for pixels in _named(ome, "Pixels")]
    sizes = [f"{one['SizeX']} x {one['SizeY']}" for one in said]
    if said and (size := f"{page.imagewidth} x {page.imagelength}") not in sizes:
        rest = "" if tif.series[0].kind == "ome" else "; nor is anything else of it used"
        found.append(f"its OME-XML says {sizes[0]:.40} pixels, its pages hold {size}, which is taken{rest}")
    kinds = [_OME_SPELLINGS.get(one["Type"], one["Type"]) for one in said]
    if said and str(page.dtype) not in kinds and not found:
        found.append(f"its OME-XML says pixels of type {kinds[0]:.20}, its pages hold {page.dtype}, which is taken")
    planes, kind = sum(len(s.pages) for series in tif.series for s in series.levels), tif.series[0].kind
    described = bool(said) or kind in ("shaped", "imagej")
    if described and not found and not any(series.is_multifile for series in tif.series) and planes < pages:
        by = "OME-XML" if said else "description"
        found.append(f"its {by} tells of {planes} of its {pages} pages: the others are not read")
    return found


def _white(series: list[Any], path: Path) -> int:
    """The value to which 0 is turned, where 0 is white; else 0."""
    pages = [s.keyframe for s in series if s.keyframe.photometric == tifffile.PHOTOMETRIC.MINISWHITE]
    if not pages or pages[0].dtype.kind == "b":  # bits are no grey levels, and are refused as such
        return 0
    if len(pages) < len(series) or pages[0].dtype.kind != "u":
        seen = f"0 is white (MinIsWhite) in {len(pages)} of {len(series)} images, of type {pages[0].dtype}"
        raise refusal(path, seen, "unsigned integers, or 0 as black", "Fiji: Edit > Invert, then save it again")
    return 2 ** int(pages[0].bitspersample) - 1


def _named(elements: Iterable[ElementTree.Element], name: str) -> list[ElementTree.Element]:
    return [element for element in elements if element.tag.endswith(f"}}{name}")]


def _pixels(tif: tifffile.TiffFile, series: list[Any], path: Path) -> tuple[Pixels, str]:
    """All images of the file as one array, left there if they lie in one piece or are large; and tifffile's axes."""
    shapes = list(dict.fromkeys(f"{shape_text(s)} ({s.axes}) {s.dtype}" for s in series))
    if not shapes:
        raise refusal(path, "no image in it", "a complete image file", "copy it again, or leave it out")
    if len(shapes) != 1:
        seen = f"{len(series)} images of different shape or type: {', '.join(shapes[:4])}"
        raise refusal(path, seen, "one image per file", "save each as a TIFF of its own")
    first = series[0]
    if not first.is_multifile:
        refuse_bomb(path, sum(s.nbytes for s in series))
    if first.kind == "ome" and any(page is None for s in series for page in s.pages):
        raise refusal(path, "planes are missing", "all planes of the OME-TIFF", "put its files together")
    one = len(series) == 1
    if one and first.dataoffset is not None and not first.is_multifile and first.keyframe.parent is tif:
        mapped = np.memmap(path, tif.byteorder + first.dtype.char, "r", first.dataoffset, first.shape)
        return lazy.in_file(mapped, path), first.axes
    shape, axes = (first.shape, first.axes) if one else ((len(series), *first.shape), f"P{first.axes}")
    page, pages = first.keyframe.shape, len(first.pages)
    before = shape[: len(shape) - len(page)]
    by_pages = shape[len(before) :] == page and math.prod(before) == len(series) * pages
    alike = not any(s.is_multifile or len(s.pages) != pages or s.keyframe.shape != page for s in series)
    if sum(s.nbytes for s in series) < lazy.LARGE or not by_pages or not alike:
        everything = np.empty(shape, first.dtype)
        for place, s in enumerate(series):
            everything[... if one else place] = _loaded(s, path)
        return everything, axes
    turn = threading.Lock()

    def read(place: tuple[int, ...]) -> np.ndarray:
        number = int(np.ravel_multi_index(place[: len(before)], before)) if before else 0
        with turn, decoding(path):
            tif.filehandle.open()  # it was closed after the last part
            try:
                stored = series[number // pages].pages[number % pages]
                _refuse_lost(stored, path)
                return stored.asarray().reshape((1,) * len(before) + page)
            finally:
                tif.filehandle.close()

    return Lazy(Chunks(shape, first.dtype, (1,) * len(before) + page, read)), axes


def _loaded(series: Any, path: Path) -> np.ndarray:
    """Its pixels; refused where they do not fill its shape, of which tifffile only warns."""
    for page in series.pages:
        _refuse_lost(page, path)
    pixels = series.asarray()
    if pixels.shape != series.shape or pixels.ndim != len(series.axes):
        seen = f"{shape_text(pixels)} pixels for a shape of {shape_text(series)}"
        raise refusal(path, seen, "a complete image file", "copy it again, or open it in Fiji and save it as TIFF")
    return pixels


def _refuse_lost(page: Any, path: Path) -> None:
    """Tiles and strips of no bytes are zeros, if they have no place either; else their number of bytes is lost."""
    places = zip(page.dataoffsets, page.databytecounts, strict=False) if page is not None else ()
    if any(at and not count for at, count in places):
        raise refusal(path, "pixels of 0 bytes", "a complete image file", "copy it again, or leave it out")


def _tag_scale(page: Any, imagej: dict[str, Any]) -> tuple[dict[str, float], dict[str, str]]:
    """Pixel size from the resolution tags of `page` and, if there is any, ImageJ's description."""
    fractions = {a: page.tags.valueof(f"{a}Resolution") for a in "XY"}  # pixels, units
    size = {a: f[1] / f[0] for a, f in fractions.items() if f and f[0] and f[1]}
    length, tag_unit = unit_name(imagej.get("unit")), int(page.tags.valueof("ResolutionUnit", default=2))
    if length:
        size["Z"] = abs(_number(imagej.get("spacing", 0)))
    # 1 is what libraries write for "unknown", 72 and 96 dpi what drawing programs write
    elif {round(1 / s, 3) for s in size.values()} <= ({1.0, 72.0, 96.0} if tag_unit == 2 else {1.0}):
        size = {}
    else:
        size = {a: s * {2: 25400.0, 3: 10000.0}.get(tag_unit, 0.0) for a, s in size.items()}
    size["T"] = _number(imagej.get("finterval", 0))
    size = {a: s for a, s in size.items() if s}  # 0 is what ImageJ writes where it does not know
    return size, dict.fromkeys(size, length or "micrometer") | {"T": unit_name(imagej.get("tunit")) or "second"}


def _ome_scale(said: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, str]]:
    """Pixel size and unit from the attributes of OME's Pixels, with OME's default units."""
    unit = {a: unit_name(said.get(f"{name}Unit", "s" if a == "T" else "µm")) for a, name in _OME_SIZES.items()}
    return {a: _number(said[name]) for a, name in _OME_SIZES.items() if name in said and unit[a]}, unit


def _number(said: Any) -> float:
    """NaN for what is none."""
    with suppress(TypeError, ValueError, OverflowError):
        return float(said)
    return math.nan


def _ome_metadata(images: list[ElementTree.Element], count: int, planes: bool) -> Metadata:
    """What OME says of as many images as there are; of their planes only where T, Z and C are as the file has them."""
    if not images or len(images) != count:
        return Metadata()
    places = {}
    for position, plane in ((i, p) for i, image in enumerate(images if planes else []) for p in image.iter()):
        with suppress(KeyError, ValueError):  # what is no plane, or does not say which
            place = (position, *(int(plane.attrib[f"The{a}"]) for a in "TZC"))
            said = {name: metadata.number(plane.get(name)) for name in _OME_OF_PLANE}
            said = {name: value for name, value in said.items() if value is not None}
            units = {f"{name}Unit": metadata.name(plane.get(f"{name}Unit")) for name in said}
            places[place] = said | {name: unit for name, unit in units.items() if unit}
    return Metadata(
        tuple(metadata.name(image.get("Name")) for image in images),
        "".join(metadata.notes(element.text) for element in _named(images[0], "Description")[:1]),
        channels=tuple(_ome_channel(element) for element in _named(images[0].iter(), "Channel")),
        planes=places,
    )


def _ome_channel(said: ElementTree.Element) -> Channel:
    """Colours are red, green, blue, opacity in a signed integer; lengths are in nanometers where nothing is said."""
    colour, waves = metadata.number(said.get("Color")), []
    for name in _OME_WAVES:
        wave, unit = metadata.number(said.get(name)), UNITS.get(unit_name(said.get(f"{name}Unit", "nm")))
        waves.append(metadata.number(f"{wave * unit[0] / 1e-9:.9g}") if wave and wave > 0 and unit else None)
    return Channel(b"" if colour is None else metadata.ramp(f"{int(colour) >> 8 & 0xFFFFFF:06X}"), None, *waves)


def _imagej_metadata(said: Mapping[str, Any], count: int) -> Metadata:
    """ImageJ shows a single channel from min to max, and several by Ranges, LUTs and a mode."""
    luts, ranges = said.get("LUTs"), said.get("Ranges", (said.get("min", 0), said.get("max")))
    luts, ranges = luts if isinstance(luts, list) else [luts], ranges if isinstance(ranges, tuple) else ()
    mode = said["mode"] if said.get("mode") in _IMAGEJ_MODES else ""
    colours = _IMAGEJ_COLOURS if mode in ("composite", "color") and "LUTs" not in said else ()
    channels = []
    for _, low, high, lut, colour in zip_longest(range(count), ranges[::2], ranges[1::2], luts, colours):
        levels = lut.tobytes() if isinstance(lut, np.ndarray) and lut.shape == (3, 256) else metadata.ramp(colour)
        channels.append(Channel(levels, metadata.window(low, high)))
    return Metadata(notes=metadata.notes(said.get("Info")), mode=mode, channels=tuple(channels[:count]))


def write(path: Path, data: Pixels, like: Image, ome: bool, made: str) -> None:
    """Write the richest TIFF that holds these pixels: ImageJ, else OME, else plain with JSON."""
    if data.dtype.kind == "f" and data.dtype != np.float32 and (data.dtype.itemsize == 2 or not ome):
        data = np.asarray(data, np.float32)
    axes, pixel = like.axes, data.dtype.name
    lengths = dict(zip(axes, data.shape, strict=True))
    big = data.nbytes > _CLASSIC_TIFF_BYTES
    imagej = pixel in _IMAGEJ_TYPES and set(axes) <= set(AXES) and not (ome or big)
    fits_ome = ome_holds(axes, data.dtype)
    as_ome = fits_ome and not imagej
    rgb = axes.endswith("YXC") and lengths["C"] == 3 and (pixel == "uint8" if imagej else fits_ome)
    one = 0 if imagej else 1  # Fiji shows names plane by plane: there the only channel needs none
    names = list(like.channel_names) if not rgb and len(like.channel_names) == lengths.get("C", one) else []
    more = like.metadata.fitting(lengths.get("P", 1), 0 if rgb else lengths.get("C", 1))
    unit = like.unit.get("X", "") if imagej else "centimeter"  # ImageJ has one for all directions
    x, y, z = (converted(like, axis, unit) for axis in "XYZ")
    said: dict[str, Any] = {}
    if imagej:
        order = "TZYXC" if rgb else AXES  # the only ones Fiji knows; `cosdd_axes` keeps ours
        symbol = "micron" if unit == "micrometer" else UNITS.get(unit, (0, unit))[1]
        said["unit"] = symbol if symbol.isascii() else unit if unit.isascii() else ""
        said |= {"spacing": z, "finterval": converted(like, "T", "second"), "cosdd_axes": axes}
        said["Labels"] = names * (lengths.get("T", 1) * lengths.get("Z", 1))
        said |= _said_to_imagej(more)
    else:
        order = axes if "Y" in axes else axes.replace("X", "YX")
        order = order.replace("P", "") if fits_ome else order
        if fits_ome and not (rgb or order.endswith("YX")):
            order = "".join(a for a in AXES if a in order)
        for axis, name in _OME_SIZES.items():
            if axis in like.pixel_size and like.unit.get(axis) in UNITS:
                said |= {name: like.pixel_size[axis], f"{name}Unit": UNITS[like.unit[axis]][1]}
        said["Channel"] = _said_to_ome(names, more.channels)
    said = {k: v for k, v in said.items() if v} | {"axes": order.replace("C", "S") if rgb else order}
    options: dict[str, Any] = {"photometric": "rgb" if rgb else "minisblack", "metadata": said}
    options["software"] = made or f"cosdd {__version__}"
    if x and unit:
        options |= {"resolution": (1 / x, 1 / (y or x)), "resolutionunit": 1 if imagej else 3}
    with tifffile.TiffWriter(path, imagej=imagej, ome=as_ome, bigtiff=big) as tif:
        # OME: one image per position; ImageJ and plain: one image, under an axis that is not there
        images = ordered(data, axes, ("P" if fits_ome else "#") + order)
        for place in range(len(images)):
            # Plane by plane: axes in another order are a copy, which need not be one of all pixels.
            inner = images.shape[1 : -3 if rgb else -2]
            planes = (np.ascontiguousarray(images[(place, *i)]) for i in np.ndindex(inner))
            options["metadata"] = said | (_said_of_position(more, place, order, inner) if as_ome else {})
            tif.write(planes, shape=images.shape[1:], dtype=images.dtype, contiguous=False, **options)


def _said_to_imagej(more: Metadata) -> dict[str, Any]:
    """See `_imagej_metadata`. LUTs and ranges are for all channels or for none; colours are of use on one another."""
    luts, windows = [c.lut for c in more.channels], [c.window for c in more.channels]
    said: dict[str, Any] = {"Info": more.notes, "mode": more.mode}
    if any(luts):
        said["LUTs"] = [np.frombuffer(lut or metadata.ramp(WHITE), np.uint8) for lut in luts]
        said["mode"] = more.mode or ("composite" if len(luts) > 1 else "")
    if ends := [end for window in windows if all(windows) for end in window or ()]:
        said |= {"Ranges": tuple(ends)} if len(windows) > 1 else {"min": ends[0], "max": ends[1]}
    return said


def _said_to_ome(names: list[str], channels: tuple[Channel, ...]) -> list[dict[str, Any]]:
    """See `_ome_channel`. Either may be empty."""
    said = []
    for name, channel in zip_longest(names, channels):
        shown = channel or Channel()
        colour = metadata.colour(shown.lut)
        number = int.from_bytes(bytes.fromhex(f"{colour}FF"), "big", signed=True) if colour else None
        one = {"Name": name, "Color": number} | dict(zip(_OME_WAVES, (shown.excitation, shown.emission), strict=True))
        said.append({key: value for key, value in one.items() if value is not None})
    return said


def _said_of_position(more: Metadata, position: int, order: str, planes: tuple[int, ...]) -> dict[str, Any]:
    """What OME says of one of the images, and of its planes as they are written."""
    said: dict[str, Any] = {"Name": more.names[position]} if more.names else {}
    if more.notes and position == 0:  # once is enough
        said["Description"] = metadata.escapable(more.notes)
    if more.planes:
        places = (dict(zip(order, i, strict=False)) for i in np.ndindex(planes))
        said["Plane"] = [more.planes.get((position, *(at.get(a, 0) for a in "TZC")), {}) for at in places]
    return said


def ome_holds(axes: str, pixels: np.dtype) -> bool:
    return pixels.name in (*OME_TYPES, "float16") and set(axes) <= set("P" + AXES)  # float16 is written as float32


def refuse_bomb(path: Path, size: int) -> None:
    """Refuse an image of ``size`` bytes whose file is too small for it: no known compression of images does that."""
    if size > max(LARGEST_EXPANSION * path.stat().st_size, 2**28):
        seen = f"{size / 1e9:.3g} GB of pixels in a file of {path.stat().st_size / 1e6:.3g} MB"
        raise refusal(path, seen, "an image file", "it is damaged, or made to fill the memory")


def _in_words(error: Exception) -> str:
    """What libraries say of a file, without what Python says of itself."""
    if isinstance(error, KeyError) and error.args:
        return f"its metadata lack {error.args[0]!s:.40}"
    if isinstance(error, TypeError | AttributeError | LookupError | ArithmeticError | SyntaxError | RecursionError):
        return "its metadata are not as they should be"
    return str(error) or type(error).__name__


@contextmanager
def decoding(path: Path) -> Iterator[None]:
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
        complaints.insert(0, _in_words(error))
    finally:
        logger.removeFilter(note)
    # a bad tag is harmless, except 270, which has the axes
    if complaints := [c for c in complaints if "TiffTag" not in c or "TiffTag 270 " in c]:
        too_short = any("mmap length" in c or ("TiffPages" in c and "offset" in c) for c in complaints)
        complaints = ["the file is cut short"] if too_short else complaints
        anew = "write it anew with the program that made it" if path.is_dir() else "open it in Fiji and save it as TIFF"
        fix = AGAIN if disk else f"copy it again, or {anew}, or leave it out"
        raise refusal(path, f"cannot be read: {complaints[0]:.120}", "a complete image file", fix) from disk
