"""Files come back as they went in: pixels, axes, scale. What is unclear or damaged is said in one line."""

import base64
import io
import re
import struct
import subprocess
import sys
import tracemalloc
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile

from cosdd import images, lazy, tiff, writing
from cosdd.axes import Image, unit_name
from cosdd.errors import InputError

LENGTHS = {"P": 3, "T": 4, "Z": 5, "C": 2, "Y": 12, "X": 20}
SIZE = {"T": 0.5, "Z": 1.5, "Y": 0.25, "X": 0.1083}
UNIT = {"T": "second", "Z": "micrometer", "Y": "micrometer", "X": "micrometer"}


def sample(axes, dtype="uint16", **lengths):
    """An image with every pixel different from its neighbours, and all that a file can say about it."""
    shape = [(LENGTHS | lengths)[a] for a in axes]
    data = np.random.default_rng(1).uniform(0, 250, shape).astype(dtype)
    names = tuple(f"dye {i}" for i in range(shape[axes.index("C")])) if "C" in axes else ()
    have = [a for a in axes if a in SIZE]
    return Image(data, axes, {a: SIZE[a] for a in have}, {a: UNIT[a] for a in have}, names)


def refused(call, *arguments, **options):
    """The one line a user sees."""
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 420
    return message


def attempt(file):
    """Pixels or the one line a user sees; any other error fails the test."""
    try:
        return images.read(file).data, ""
    except InputError as error:
        message = str(error)
    assert "\n" not in message
    return None, message


# ---- round trips


@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "float32"])
@pytest.mark.parametrize("axes", ["YX", "TYX", "ZYX", "CYX", "TCYX", "TZCYX", "TCZYX"])
def test_what_is_written_is_read_again(tmp_path, axes, dtype, name):
    image = sample(axes, dtype)
    images.write(tmp_path / name, image.data, like=image)
    back = images.read(tmp_path / name)
    assert back.axes == axes
    assert back.data.dtype == dtype
    np.testing.assert_array_equal(back.data, image.data)
    assert back.pixel_size == pytest.approx(image.pixel_size, rel=1e-6)
    assert (back.unit, back.channel_names) == (image.unit, image.channel_names)


@pytest.mark.parametrize("axes", ["XY", "X", "YXC", "TYXC", "PYX", "PTCYX", "HYX", "XZCY"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int64", "float32"])
def test_unusual_orders_keep_their_axes_in_tif(tmp_path, axes, dtype):
    image = sample(axes, dtype, C=3, H=4)
    images.write(tmp_path / "a.tif", image.data, like=image)
    back = images.read(tmp_path / "a.tif")
    assert back.axes == axes or (axes, dtype) == ("X", "int64")  # plain TIFF has rows and columns
    np.testing.assert_array_equal(back.data.reshape(image.data.shape), image.data)
    assert {a: back.pixel_size[a] for a in axes if a in "YX"} == pytest.approx(
        {a: SIZE[a] for a in axes if a in "YX"}, rel=1e-6
    )


def test_fiji_sees_the_axes_and_the_scale(tmp_path):
    image = sample("CZTYX", "float64")
    images.write(tmp_path / "a.tif", image.data, like=image)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        said = tif.imagej_metadata
        assert (tif.series[0].axes, tif.series[0].dtype) == ("TZCYX", np.float32)
        assert (said["frames"], said["slices"], said["channels"]) == (4, 5, 2)
        assert (said["unit"], said["spacing"], said["finterval"]) == ("micron", 1.5, 0.5)
        assert said["Labels"][:3] == ["dye 0", "dye 1", "dye 0"]
        for tag, size in (("XResolution", 0.1083), ("YResolution", 0.25)):
            pixels, micrometers = tif.pages[0].tags[tag].value
            assert micrometers / pixels == pytest.approx(size, rel=1e-6)
        np.testing.assert_allclose(tif.asarray(), image.data.transpose(2, 1, 0, 3, 4), rtol=1e-6)


def test_colour_of_8_bit_stays_colour_in_fiji(tmp_path):
    image = sample("YXC", "uint8", C=3)
    images.write(tmp_path / "a.tif", image.data, like=image)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.pages[0].photometric == tifffile.PHOTOMETRIC.RGB
        assert tif.is_imagej


def test_float64_survives_in_ome(tmp_path):
    image = sample("TYX", "float64")
    images.write(tmp_path / "a.ome.tiff", image.data, like=image)
    assert images.read(tmp_path / "a.ome.tiff").data.dtype == np.float64


def test_one_scale_in_fiji_for_mixed_units(tmp_path):
    image = Image(
        np.eye(8, dtype=np.uint8)[None],
        "ZYX",
        {"Z": 2.0, "Y": 300.0, "X": 0.3},
        {"Z": "micrometer", "Y": "nanometer", "X": "micrometer"},
    )
    images.write(tmp_path / "a.tif", image.data, like=image)
    back = images.read(tmp_path / "a.tif")
    assert back.pixel_size == pytest.approx({"Z": 2.0, "Y": 0.3, "X": 0.3})
    assert set(back.unit.values()) == {"micrometer"}


def test_more_than_4_gb_is_bigtiff(tmp_path, monkeypatch):
    monkeypatch.setattr(tiff, "_CLASSIC_TIFF_BYTES", 1000)
    image = sample("TYX")
    images.write(tmp_path / "a.tif", image.data, like=image)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.is_bigtiff
    back = images.read(tmp_path / "a.tif")
    assert back.axes == "TYX"
    assert back.pixel_size == pytest.approx(image.pixel_size)


# ---- files of other programs


def test_big_endian_imagej_stack_stays_in_the_file(tmp_path):
    data = sample("TZYX").data
    tifffile.imwrite(
        tmp_path / "fiji.tif",
        data,
        imagej=True,
        byteorder=">",
        resolution=(5, 4),
        metadata={"axes": "TZYX", "unit": "\\u00B5m", "spacing": 2.0, "finterval": 0.1},
    )
    image = images.read(tmp_path / "fiji.tif")
    assert isinstance(image.data, np.memmap)
    assert np.shares_memory(images.to_samples(image, "YX"), image.data)
    np.testing.assert_array_equal(image.data, data)
    assert image.describe() == (
        "fiji.tif: 4 x 5 x 12 x 20 (TZYX), uint16, pixel size 2 x 0.25 x 0.2 micrometer, one frame every 0.1 second"
    )


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "zstd"])
def test_plain_pages_are_frames(tmp_path, compression):
    data = sample("TYX").data
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        for page in data:
            tif.write(page, compression=compression, metadata=None, resolution=(25400, 25400), resolutionunit=2)
    image = images.read(tmp_path / "a.tif")
    assert image.axes == "TYX"
    assert (image.pixel_size, image.unit) == ({"Y": 1.0, "X": 1.0}, {"Y": "micrometer", "X": "micrometer"})
    np.testing.assert_array_equal(image.data, data)


@pytest.mark.parametrize(("resolution", "unit"), [((72, 72), 2), ((1, 1), 1), ((1, 1), 2)])
def test_a_screen_resolution_is_no_pixel_size(tmp_path, resolution, unit):
    tifffile.imwrite(tmp_path / "a.tif", sample("YX").data, resolution=resolution, resolutionunit=unit)
    assert images.read(tmp_path / "a.tif").pixel_size == {}


@pytest.mark.parametrize("spelling", ["µm", "μm", "um", "micron", "\\u00B5m", "micrometer"])
def test_one_name_for_the_micrometer(tmp_path, spelling):
    assert unit_name(spelling) == "micrometer"


def test_ome_positions_are_one_axis(tmp_path):
    data = sample("PTYX").data
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as tif:
        for position in data:
            tif.write(position, metadata={"axes": "TYX"})
    image = images.read(tmp_path / "a.ome.tif")
    assert image.axes == "PTYX"
    np.testing.assert_array_equal(image.data, data)


def test_images_of_different_shape_are_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        tif.write(sample("YX").data)
        tif.write(sample("YX", Y=16).data)
    assert "12 x 20 (YX) uint16, 16 x 20 (YX)" in refused(images.read, tmp_path / "a.tif")


def test_ome_with_a_missing_file_is_refused_not_filled_with_zeros(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as tif:
        tif.write(sample("ZYX").data, metadata={"axes": "ZYX"})
    whole = (tmp_path / "a.ome.tif").read_bytes()
    # the XML now promises more planes than there are
    (tmp_path / "a.ome.tif").write_bytes(whole.replace(b'SizeZ="5"', b'SizeZ="9"'))
    refused(images.read, tmp_path / "a.ome.tif")


def test_npy_is_mapped_and_never_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", sample("TYX").data)
    image = images.read(tmp_path / "a.npy", axes="TYX")
    assert isinstance(image.data, np.memmap)
    np.save(tmp_path / "evil.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    refused(images.read, tmp_path / "evil.npy")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png(tmp_path, dtype):
    top = np.iinfo(dtype).max
    grey = np.arange(12, dtype=dtype).reshape(3, 4)
    colour = np.stack([grey, grey + 1, grey + 2], -1)
    for data, axes in ((grey, "YX"), (colour, "YXC")):
        swapped = data.astype(data.dtype.newbyteorder(">"))
        images.write(tmp_path / "a.png", swapped, like=Image(data, axes), overwrite=True)
        back = images.read(tmp_path / "a.png")
        assert (back.axes, back.data.dtype) == (axes, dtype)
        np.testing.assert_array_equal(back.data, data)
    for opacity in (top, top - 1):
        rgba = np.concatenate([colour, np.full((3, 4, 1), opacity, dtype)], -1)
        (tmp_path / "alpha.png").write_bytes(imagecodecs.png_encode(rgba))
        if opacity == top:
            np.testing.assert_array_equal(images.read(tmp_path / "alpha.png").data, colour)
        else:
            assert "transparent" in refused(images.read, tmp_path / "alpha.png")


# ---- larger than memory


WRITERS = {
    "a.npy": np.save,
    "imagej.tif": lambda f, data: tifffile.imwrite(f, data, imagej=True, byteorder=">", metadata={"axes": "TZYX"}),
    "a.ome.tif": lambda f, data: tifffile.imwrite(f, data, metadata={"axes": "TZYX"}),
    "strips.tif": lambda f, data: tifffile.imwrite(f, data, compression="zlib", metadata={"axes": "TZYX"}),
    "tiles.ome.tif": lambda f, data: tifffile.imwrite(
        f, data, compression="zstd", tile=(16, 16), metadata={"axes": "TZYX"}
    ),
    "one page.tif": lambda f, data: tifffile.imwrite(f, data[0, 0], compression="zlib"),
    "colour.tif": lambda f, data: tifffile.imwrite(f, data[0, :, :, :18].reshape(5, 12, 6, 3), compression="zlib"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_large_files_stay_in_the_file(tmp_path, monkeypatch, name):
    data = sample("TZYX").data
    WRITERS[name](tmp_path / name, data)
    axes = {"a.npy": "TZYX", "colour.tif": "TYXC"}.get(name)
    small = images.read(tmp_path / name, axes)
    monkeypatch.setattr(lazy, "LARGE", 0)
    large = images.read(tmp_path / name, axes)
    assert isinstance(large.data, lazy.Lazy)
    assert not isinstance(small.data, lazy.Lazy)
    assert (large.axes, large.data.shape, large.data.dtype) == (small.axes, small.data.shape, small.data.dtype)
    np.testing.assert_array_equal(np.asarray(large.data), small.data)
    for spatial in ("YX", "ZYX") if "Z" in large.axes else ("YX",):
        expected = images.to_samples(small, spatial)
        np.testing.assert_array_equal(np.asarray(images.to_samples(large, spatial)), expected)


@pytest.mark.parametrize("name", ["a.ome.tif", "a.ome.zarr"])
@pytest.mark.parametrize("axes", ["YX", "TYX"])
def test_the_only_channel_keeps_its_name_where_there_is_no_axis_for_it(tmp_path, name, axes):
    pixels = np.zeros((3, 20, 30)[-len(axes) :], np.float32)
    said = {"axes": axes, "Channel": {"Name": ["EGFP"]}}
    tifffile.imwrite(tmp_path / "given.ome.tif", pixels, ome=True, metadata=said)
    given = images.read(tmp_path / "given.ome.tif")
    images.write(tmp_path / name, pixels, like=given)
    assert images.read(tmp_path / name).channel_names == given.channel_names == ("EGFP",)
    assert "channel EGFP" in given.describe()


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_positions_of_a_large_file_are_read_page_by_page(tmp_path, monkeypatch, compression):
    pixels = np.random.default_rng(0).integers(0, 999, (3, 4, 20, 30), np.uint16)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as tif:
        for position in pixels:
            tif.write(position, compression=compression, metadata={"axes": "TYX"})
    small = images.read(tmp_path / "a.ome.tif")
    monkeypatch.setattr(lazy, "LARGE", 0)
    large = images.read(tmp_path / "a.ome.tif")
    assert isinstance(large.data, lazy.Lazy)
    assert large.axes == small.axes == "PTYX"
    np.testing.assert_array_equal(small.data, pixels)
    np.testing.assert_array_equal(np.asarray(large.data), pixels)
    np.testing.assert_array_equal(np.asarray(large.data[1:3, 2, 5:9]), pixels[1:3, 2, 5:9])


@pytest.mark.parametrize(
    ("axes", "told"), [("YXT", "quicker as TYX"), ("ZYXTC", "quicker as TZYXC"), ("YXZ", "as ZYX"), ("TYXC", None)]
)
def test_a_large_file_whose_frames_are_interleaved_is_told_to_be_slow(tmp_path, monkeypatch, axes, told):
    np.save(tmp_path / "a.npy", np.zeros((5, 6, 7, 8, 9)[: len(axes)], np.uint8))
    assert "slow" not in images.read(tmp_path / "a.npy", axes).describe()  # it is in memory after the first frame
    monkeypatch.setattr(lazy, "LARGE", 0)
    said = images.read(tmp_path / "a.npy", axes).describe()
    assert told in said if told else "slow" not in said


def test_a_large_file_with_a_broken_page_is_refused(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(lazy, "LARGE", 0)
    tifffile.imwrite(tmp_path / "a.tif", sample("TYX", T=9).data, compression="zlib", metadata={"axes": "TYX"})
    whole = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        where = tif.pages[6].dataoffsets[0]  # type: ignore[union-attr]
    whole[where + 20 : where + 60] = bytes(40)
    (tmp_path / "a.tif").write_bytes(whole)
    image = images.read(tmp_path / "a.tif")
    np.testing.assert_array_equal(image.data[5], sample("TYX", T=9).data[5])
    assert "a.tif: cannot be read" in refused(images.check, image)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif", "big.tif", "a.npy"])
def test_axes_in_another_order_are_not_copied_at_once(tmp_path, monkeypatch, name):
    if name == "big.tif":
        monkeypatch.setattr(tiff, "_CLASSIC_TIFF_BYTES", 1000)
    pixels = np.random.default_rng(0).random((3, 8, 2, 128, 128), np.float32).transpose(0, 2, 1, 3, 4)
    images.write(tmp_path / f"first.{name}", pixels[:1], like=Image(pixels[:1], "TCZYX"))  # imports what it needs
    tracemalloc.start()
    images.write(tmp_path / name, pixels, like=Image(pixels, "TCZYX"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < pixels.nbytes / 4 + 2**20
    np.testing.assert_array_equal(
        np.asarray(images.read(tmp_path / name, "TCZYX" if name == "a.npy" else None).data), pixels
    )


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
def test_checks_and_crops_of_a_stack_larger_than_memory(tmp_path):
    """More than 1 GB of pixels, on a disk that holds what was written alone."""
    stack = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.uint16, (150, 2048, 2048))
    stack[::50, ::64] = np.random.default_rng(0).integers(0, 99, (3, 32, 2048))
    del stack
    code = f"""
import resource
from cosdd import data, images
image = images.read({str(tmp_path / "a.npy")!r}, "TYX")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
images.check(image)
everything = tuple((0, i) for i in range(150))
frames = data.Frames([images.to_samples(image, "YX")], data.Statistics((0.0,), (1.0,), 1.0), everything, ())
for step in range(20):
    frames.batch(0, step, 8, (64, 64), "")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    more = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(more) < 300_000  # kilobytes


# ---- unclear, wrong, damaged


@pytest.mark.parametrize(("shape", "advice"), [((3, 2, 12, 20), "--axes TZYX"), ((12, 20, 3), "--axes YXC")])
def test_unclear_axes_are_asked_for(tmp_path, shape, advice):
    data = np.zeros(shape, np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="minisblack")
    np.save(tmp_path / "a.npy", data)
    for name in ("a.tif", "a.npy"):
        message = refused(images.read, tmp_path / name)
        assert " x ".join(map(str, shape)) in message
        assert advice in message
        given = advice.split()[-1]
        if name == "a.tif":
            assert f"the file does not say what its {'first and second ' * (len(shape) > 3)}axes are" in message
        assert images.read(tmp_path / name, axes=given).axes == given
    refused(images.from_array, data)


@pytest.mark.parametrize("axes", ["YX", "TZYX", "YYX", "CSX", "TZC", "T1X", "TZX", ""])
def test_wrong_axes_are_refused_with_the_shape(tmp_path, axes):
    tifffile.imwrite(tmp_path / "a.tif", sample("TYX").data, photometric="minisblack")
    assert "4 x 12 x 20" in refused(images.read, tmp_path / "a.tif", axes=axes)


def test_damaged_files_are_refused_in_silence(tmp_path, capfd):
    """A file cut anywhere is refused or, if only tags are lost, complete: never some of its frames."""
    image = sample("TYX")
    writers = {
        "imagej.tif": lambda f: images.write(f, image.data, like=image),
        "plain.tif": lambda f: tifffile.imwrite(f, image.data, photometric="minisblack"),
        "packed.tif": lambda f: tifffile.imwrite(f, image.data, photometric="minisblack", compression="zlib"),
        "a.ome.tif": lambda f: tifffile.imwrite(f, image.data, metadata={"axes": "TYX"}),
        "a.png": lambda f: images.write(f, image.data[0], like=sample("YX")),
        "a.npy": lambda f: np.save(f, image.data[0]),
    }
    for name, writer in writers.items():
        file = tmp_path / name
        writer(file)
        whole = file.read_bytes()
        expected = images.read(file).data.copy()
        for share in (0, 0.002, 0.05, 0.2, 0.5, 0.8, 0.9, 0.99):
            file.write_bytes(whole[: int(len(whole) * share)])
            data, message = attempt(file)
            if message:
                assert name in message
            else:
                assert share > 0.5
                np.testing.assert_array_equal(data, expected)
        file.write_bytes(b"not an image " * 50)
        refused(images.read, file)
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


# Found by the fuzzer: a page whose size is lost while tags are read, which tifffile gives as no pixels, of no shape.
WITHOUT_SHAPE = base64.b64decode(
    "SUkqAAgAAAAOAADZBAABAQAAA0lJKgAIAAAADgAA2QQAAQAAABABAAAAEAAAEAAAAAEBBAABAAAAEAAAAAIBAwABAPv7+/v7+/v7"
    "+/v7+wAAAgEDAAEAAAAQAAP9SSoACAAAAA4AAAEEAAAA+/v7+/v7+/v7+/v7AAAQAAD/////AAEAAAABAAAABgEDAAEAAAABAAAA"
    "EAAAAAAAAAAAAQHgDgECAPsCBAAAhgUAABEBAAAAAAAAAA8EAAEAAADgAAAAFQEDAAEAAAABAAAAFgEE"
)


def test_pixels_that_do_not_fill_their_shape_are_refused(tmp_path, capfd):
    (tmp_path / "a.tif").write_bytes(WITHOUT_SHAPE)
    assert "0 pixels for a shape of 0-D" in refused(images.read, tmp_path / "a.tif")
    assert capfd.readouterr() == ("", "")


def test_corrupt_bytes_never_give_a_traceback(tmp_path):
    image = sample("ZYX")
    images.write(tmp_path / "a.ome.tif", image.data, like=image)
    tifffile.imwrite(tmp_path / "b.tif", image.data, compression="zlib", tile=(16, 16))
    rng = np.random.default_rng(0)
    for name in ("a.ome.tif", "b.tif"):
        whole = np.frombuffer((tmp_path / name).read_bytes(), np.uint8)
        for _ in range(60):
            broken = whole.copy()
            broken[rng.integers(8, 600, 5)] = rng.integers(0, 255, 5)
            (tmp_path / name).write_bytes(broken.tobytes())
            attempt(tmp_path / name)


def spoiled_npy(then: bytes, now: bytes) -> bytes:
    file = io.BytesIO()
    np.save(file, np.ones((12, 32, 32), np.uint16))
    assert then in file.getvalue()
    return file.getvalue().replace(then, now)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.png", b"\xff\xd8\xff\xe0" + b"0" * 99, "by its content a JPEG; expected a PNG, .*use the raw data"),
        ("a.png", b"RIFF0000WEBP" + b"0" * 99, "by its content a WebP"),
        ("a.png", b"hello" * 99, "not a PNG file"),
        ("a.tif", b"\x93NUMPY" + b"0" * 99, r"by its content a numpy array; .*name it a\.npy"),
        ("a.npy", b"PK\x03\x04" + b"0" * 99, "by its content a zip archive.*an npz"),
        ("a.zarr", b"PK\x03\x04" + b"0" * 99, "a file; expected an OME-Zarr, which is a folder; unpack it"),
        ("a.npy", spoiled_npy(b"'descr'", b"'dexcr'"), "its npy header is damaged"),
        ("a.npy", spoiled_npy(b"{'descr'", b"['descr'"), "its npy header is damaged"),
        ("a.npy", spoiled_npy(b"'<u2'", b"'<q9'"), "its npy header is damaged"),
        ("a.npy", spoiled_npy(b"32, 32)", b"32, -2)"), "a shape of"),
        ("a.npy", spoiled_npy(b"32, 32)", b"32, 31)"), "768 bytes more than the 12 x 32 x 31 pixels of its header"),
        ("a.npy", spoiled_npy(b"32, 32)", b"32, 99)"), "cut short"),
        ("a.npy", spoiled_npy(b"(12, ", b"(0,  "), "0 x 32 x 32: no pixels"),
        ("a.npy", spoiled_npy(b"'<u2'", b"'|O' "), "Python objects, which are pickled, and nothing is unpickled"),
    ],
)
def test_what_a_file_is_and_its_name_does_not_say_is_told(tmp_path, name, content, told):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=told):
        images.read(tmp_path / name, "TYX" if name.endswith(".npy") else None)


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("kind", ["uint8", ">u2"])
def test_what_has_0_as_white_is_read_as_its_twin_that_has_it_as_black(tmp_path, monkeypatch, kind, large):
    monkeypatch.setattr(lazy, "LARGE", 0 if large else lazy.LARGE)
    pixels = np.arange(3 * 20 * 30).reshape(3, 20, 30).astype(kind)
    white = np.iinfo(kind).max
    for name, stored, photometric in (("black", pixels, "minisblack"), ("white", white - pixels, "miniswhite")):
        said = (
            {"axes": "TYX", "min": 3, "max": 9}
            if name == "black"
            else {"axes": "TYX", "min": white - 9, "max": white - 3}
        )
        tifffile.imwrite(tmp_path / f"{name}.tif", stored, imagej=True, photometric=photometric, metadata=said)
    twin, turned = (images.read(tmp_path / f"{name}.tif") for name in ("black", "white"))
    np.testing.assert_array_equal(turned.data, pixels)
    np.testing.assert_array_equal(turned.data[1, 2:5, ::3], pixels[1, 2:5, ::3])
    assert isinstance(turned.data, lazy.Lazy) == large
    assert turned.metadata.channels == twin.metadata.channels
    assert [len(image.remarks) for image in (twin, turned)] == [0, 1]
    images.write(tmp_path / "again.tif", turned.data, turned)
    assert images.read(tmp_path / "again.tif").remarks == ()
    np.testing.assert_array_equal(images.read(tmp_path / "again.tif").data, pixels)


def test_what_is_white_of_floats_is_asked_for(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((8, 8), np.float32), photometric="miniswhite")
    with pytest.raises(InputError, match=r"0 is white.*Edit > Invert"):
        images.read(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("then", "now", "told"),
    [
        ('SizeX="30"', 'SizeX="60"', "says 60 x 20 pixels, its pages hold 30 x 20"),
        ('SizeT="12"', 'SizeT="6"', "tells of 6 of its 12 pages"),
        ('Type="uint16"', 'Type="float"', "says pixels of type float32, its pages hold uint16"),
        ('SizeX="0.5"', 'SizeX="0"', "pixel size along x is 0: left out"),
        ('SizeX="0.5"', 'SizeX="-3"', "pixel size along x is -3: left out"),
        ('SizeX="0.5"', 'SizeX="NaN"', "pixel size along x is nan: left out"),
        ('SizeX="0.5"', 'SizeX="abc"', "pixel size along x is nan: left out"),
    ],
)
def test_what_ome_says_otherwise_than_the_pages_is_told(tmp_path, then, now, told):
    pixels, path = np.ones((12, 20, 30), np.uint16), tmp_path / "a.ome.tif"
    tifffile.imwrite(path, pixels, metadata={"axes": "TYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5})
    assert images.read(path).remarks == ()
    with tifffile.TiffFile(path) as file:
        said = file.ome_metadata or ""
    assert then in said
    tifffile.imwrite(path, pixels, description=said.replace(then, now).encode(), metadata=None)
    (remark,) = images.read(path).remarks
    assert told in remark


@pytest.mark.parametrize(("count", "seen"), [("100000000", "1e+08"), (" +2_000_000_000 ", "2e+09")])
def test_a_description_of_more_planes_than_any_file_has_takes_no_memory(tmp_path, count, seen):
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, np.ones((12, 20, 30), np.uint16), metadata={"axes": "TYX"})
    with tifffile.TiffFile(path) as file:
        said = (file.ome_metadata or "").replace('SizeT="12"', f'SizeT="{count}"').encode()
    tifffile.imwrite(path, np.ones((12, 20, 30), np.uint16), description=said, metadata=None)
    tracemalloc.start()
    with pytest.raises(InputError, match=re.escape(f"its OME-XML tells of {seen} planes, in a file of 12; expected")):
        images.read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**25


def test_pages_that_a_description_leaves_out_are_told_of(tmp_path):
    path, page = tmp_path / "a.tif", np.ones((64, 64), np.uint16)
    told = "its description tells of {} of its 6 pages: the others are not read"
    with tifffile.TiffWriter(path) as file:
        for index in range(6):
            file.write(page, description=None if index else b'{"shape": [6, 640, 64]}', metadata=None)
    assert images.read(path, "YX").remarks == (told.format(1),)
    said = "ImageJ=1.53\nimages=4\nframes=4\n"
    tifffile.imwrite(path, np.stack([page] * 6), description=said, metadata=None, photometric="minisblack")
    assert images.read(path, "TYX").remarks == (told.format(4),)


@pytest.mark.parametrize("large", [False, True])
def test_a_tile_that_lost_its_length_is_no_tile_of_zeros(tmp_path, monkeypatch, large):
    monkeypatch.setattr(lazy, "LARGE", 0 if large else lazy.LARGE)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.ones((2, 64, 64), np.uint16), tile=(32, 32), compression="zlib", photometric="minisblack")
    with tifffile.TiffFile(path) as file:
        where = file.pages[1].tags["TileByteCounts"].valueoffset  # type: ignore[union-attr]
        size = {3: 2, 4: 4, 16: 8}[file.pages[1].tags["TileByteCounts"].dtype]  # type: ignore[union-attr]
    content = bytearray(path.read_bytes())
    content[where : where + size] = bytes(size)
    path.write_bytes(content)
    with pytest.raises(InputError, match="pixels of 0 bytes"):
        np.asarray(images.read(path).data)


def test_of_an_animation_the_first_frame_is_read_and_that_is_told(tmp_path):
    plain = imagecodecs.png_encode(np.arange(64, dtype=np.uint8).reshape(8, 8))
    chunk = b"acTL" + struct.pack(">II", 3, 0)
    animated = plain[:33] + struct.pack(">I", 8) + chunk + struct.pack(">I", zlib.crc32(chunk)) + plain[33:]
    for content, remarks in ((plain, ()), (animated, ("an animation: its first frame is read",))):
        (tmp_path / "a.png").write_bytes(content)
        assert images.read(tmp_path / "a.png").remarks == remarks


def test_arrays_that_are_none_are_refused():
    pixels = np.ma.masked_less(np.arange(64.0).reshape(8, 8), 5)
    with pytest.raises(InputError, match="masked pixels; expected all of them"):
        images.from_array(pixels)
    assert images.from_array(np.ma.masked_less(np.ones((8, 8)), 0)).axes == "YX"  # nothing is masked
    for parts, seen in (([np.ones((8, 8)), pixels], "masked pixels"), ([[1, 2], [3]], "parts of different shape")):
        with pytest.raises(InputError, match=seen):
            images.from_array(parts)  # type: ignore[arg-type]
    for thing, seen in ((None, "a NoneType"), ({"a": 1}, "a dict"), (["a", "b"], "2 of type <U1")):
        with pytest.raises(InputError, match=f"{seen}; expected an array of numbers"):
            images.from_array(thing)  # type: ignore[arg-type]


def test_what_metadata_lack_is_told_in_words(tmp_path):
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, np.ones((12, 20, 30), np.uint16), metadata={"axes": "TYX"})
    with tifffile.TiffFile(path) as file:
        said = (file.ome_metadata or "").replace("XYCZT", "XYCQT")
    tifffile.imwrite(path, np.ones((12, 20, 30), np.uint16), description=said.encode(), metadata=None)
    with pytest.raises(InputError, match="cannot be read: its metadata lack SizeQ;"):
        images.read(path)


@pytest.mark.parametrize(("offset", "kind"), [(1e7, np.float64), (2e9, np.int64), (2**60, np.uint64)])
def test_what_32_bit_floats_cannot_tell_apart_is_refused(offset, kind):
    pixels = (
        np.arange(400, dtype=kind).reshape(20, 20) / kind(400) if kind is np.float64 else np.arange(400).reshape(20, 20)
    )
    images.check(images.from_array(pixels))
    with pytest.raises(InputError, match=r"which differ by .*subtract a constant"):
        images.check(images.from_array((pixels + kind(offset)).astype(kind)))


def test_find(tmp_path):
    for name in ("b.tif", "a.TIFF", "c.png", ".hidden.tif", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "d.tif").touch()
    names = [p.name for p in images.find([tmp_path, tmp_path / "b.tif", str(tmp_path / "*" / "*.tif")])]
    assert names == ["a.TIFF", "b.tif", "c.png", "d.tif"]
    (tmp_path / "empty").mkdir()
    for wrong in ("missing.tif", "no*.tif", "notes.txt", "empty", "a.zarr"):
        assert wrong in refused(images.find, [tmp_path / wrong])
    refused(images.find, [])
    assert f"did you mean {tmp_path / 'b.tif'}?" in refused(images.find, [tmp_path / "bb.tif"])


def test_what_a_folder_holds_besides_images_is_counted(tmp_path):
    for name in ("a.tif", ".hidden.txt", "a.safetensors", "a.history.csv", "a.html", "a.preview.png"):
        (tmp_path / name).touch()
    assert images.not_read([tmp_path, tmp_path / "a.tif"]) == ""
    assert images.find([tmp_path]) == images.find([str(tmp_path / "a.*")]) == [tmp_path / "a.tif"]
    assert "name the images themselves" in refused(images.find, [tmp_path / "a.preview.png"])
    (tmp_path / "deeper").mkdir()
    assert images.not_read([tmp_path, tmp_path]) == "1 subfolder not read"
    (tmp_path / "notes.txt").touch()
    (tmp_path / "scan.czi").touch()
    (tmp_path / "b.zarr").mkdir()
    assert images.not_read([str(tmp_path)]) == "1 subfolder and 2 other files not read"
    assert images.not_read([tmp_path / "b.zarr"]) == ""


def test_check_refuses_what_nothing_can_be_learned_from():
    data = sample("TYX", "float32").data
    images.check(images.from_array(data))
    holed = data.copy()
    holed[2, 3, 4] = np.nan
    message = refused(images.check, images.from_array(holed))
    assert "T=2, Y=3, X=4" in message
    assert "every pixel is 7" in refused(images.check, images.from_array(np.full((8, 8), 7)))
    for dtype in (bool, complex, [("a", "u1")]):
        refused(images.check, images.from_array(np.zeros((8, 8), dtype)))


# ---- samples


@pytest.mark.parametrize("spatial", ["YX", "ZYX", "X", "XY"])
@pytest.mark.parametrize("axes", ["ZYX", "TZCYX", "TCZYX", "ZYXC", "XZCY"])
def test_samples_go_back_to_where_they_came_from(axes, spatial):
    image = sample(axes)
    samples = images.to_samples(image, spatial)
    assert samples.shape[1:] == (2 if "C" in axes else 1, *(LENGTHS[a] for a in spatial))
    assert samples.dtype == np.uint16
    np.testing.assert_array_equal(images.from_samples(samples, image, spatial), image.data)
    assert images.from_samples(samples.astype(np.float32), image, spatial).dtype == np.float32


def test_samples_are_whole_planes():
    image = sample("TCZYX")
    samples = images.to_samples(image, "YX")
    np.testing.assert_array_equal(samples[1 * 5 + 3], image.data[1, :, 3])


def test_a_missing_spatial_axis_is_refused():
    assert "--axes" in refused(images.to_samples, sample("TYX"), "ZYX")


# ---- output


def test_an_output_is_kept_unless_told(tmp_path):
    image = sample("YX")
    images.write(tmp_path / "a.tif", image.data, like=image)
    assert "--overwrite" in refused(images.write, tmp_path / "a.tif", image.data + 1, like=image)
    np.testing.assert_array_equal(images.read(tmp_path / "a.tif").data, image.data)
    images.write(tmp_path / "a.tif", image.data + 1, like=image, overwrite=True)
    np.testing.assert_array_equal(images.read(tmp_path / "a.tif").data, image.data + 1)


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    image = sample("YX")
    images.write(tmp_path / "a.tif", image.data, like=image)
    before = (tmp_path / "a.tif").read_bytes()
    monkeypatch.setattr(writing.os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        images.write(tmp_path / "a.tif", image.data + 1, like=image, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]
    assert (tmp_path / "a.tif").read_bytes() == before


def test_what_a_format_cannot_hold_is_refused(tmp_path):
    image = sample("YX", "float32")
    assert "a.tif" in refused(images.write, tmp_path / "a.png", image.data, like=image)
    assert "a.tif" in refused(images.write, tmp_path / "a.jpg", image.data, like=image)
    wide = sample("YX", "int64")
    refused(images.write, tmp_path / "a.ome.tif", wide.data, like=wide)
    (tmp_path / "file").touch()
    refused(images.write, tmp_path / "file" / "a.tif", image.data, like=image)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("stack.tif", "stack_std.tif"),
        ("stack.v2.ome.tiff", "stack.v2_std.ome.tiff"),
        ("A.PNG", "A_std.tif"),
        ("a.npy", "a_std.npy"),
    ],
)
def test_output_path(tmp_path, name, result):
    assert images.output_path(tmp_path / name, tmp_path / "out", "_std") == tmp_path / "out" / result


@pytest.mark.parametrize("scale", [1e30, 1e-40])
def test_grey_values_beyond_32_bit_floats_are_refused(scale):
    pixels = np.random.default_rng(0).normal(size=(16, 16)) * scale
    with pytest.raises(InputError, match="multiply the image"):
        images.check(images.from_array(pixels))
