"""OME-Zarr comes in and goes out with its axes and scale; what a stranger put into a store stays there."""

import json
import os
import shutil
import tracemalloc
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import zarr
from test_images import SIZE, UNIT, refused, sample
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, TransposeCodec, ZstdCodec

from cosdd import images, lazy, omezarr, outputs, writing
from cosdd.axes import Image
from cosdd.errors import InputError
from cosdd.lazy import Lazy


def store_04(path: Path, pixels: np.ndarray, axes: str, version: str = "0.4", **options) -> Path:
    """OME-Zarr 0.4 as other programs write it, by zarr itself."""
    types = {"T": "time", "C": "channel"}
    root = zarr.create_group(path, zarr_format=2)
    options = {
        "chunks": [max(1, n // 2) for n in pixels.shape],
        "chunk_key_encoding": {"name": "v2", "separator": "/"},
    } | options
    array = root.create_array("0", shape=pixels.shape, dtype=pixels.dtype, **options)
    array[...] = pixels
    scale = [SIZE.get(a, 1.0) for a in axes]
    root.attrs["multiscales"] = [
        {
            "version": version,
            "axes": [
                {"name": a.lower(), "type": types.get(a, "space")} | ({"unit": UNIT[a]} if a in UNIT else {})
                for a in axes
            ],
            "datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}],
        }
    ]
    if "C" in axes:
        root.attrs["omero"] = {"channels": [{"label": f"dye {i}"} for i in range(pixels.shape[axes.index("C")])]}
    return path


def store_05(path: Path, pixels: np.ndarray, axes: str) -> Path:
    like = sample(axes, pixels.dtype.name)
    images.write(path, pixels, like=like)
    return path


def change(file: Path, **values) -> None:
    """Set values in a JSON file, by names such as a__b__0."""
    said = json.loads(file.read_text())
    for name, value in values.items():
        *folders, last = [int(n) if n.isdecimal() else n for n in name.split("__")]
        inner = said
        for folder in folders:
            inner = inner[folder]
        inner[last] = value
    file.write_text(json.dumps(said))


def everything(path: Path) -> np.ndarray:
    return np.asarray(images.read(path).data)


# ---- round trips


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "int64", "float16", "float32", "float64"])
@pytest.mark.parametrize("axes", ["YX", "TYX", "CZYX", "TCZYX", "PZYX"])
def test_what_is_written_is_read_again(tmp_path, axes, dtype):
    image = sample(axes, dtype)
    images.write(tmp_path / "a.zarr", image.data, like=image)
    back = images.read(tmp_path / "a.zarr")
    assert isinstance(back.data, Lazy)
    assert (back.axes, back.data.dtype) == (axes, dtype)
    np.testing.assert_array_equal(np.asarray(back.data), image.data)
    assert (back.pixel_size, back.unit, back.channel_names) == (image.pixel_size, image.unit, image.channel_names)


@pytest.mark.parametrize(("axes", "stored"), [("XY", "YX"), ("TZCYX", "TCZYX"), ("YXC", "CYX"), ("XZTY", "TZYX")])
def test_axes_are_stored_as_ome_zarr_orders_them(tmp_path, axes, stored):
    image = sample(axes, ">u2")
    images.write(tmp_path / "a.ome.zarr", image.data, like=image)
    back = images.read(tmp_path / "a.ome.zarr")
    assert (back.axes, back.pixel_size) == (stored, image.pixel_size)
    np.testing.assert_array_equal(np.asarray(back.data), image.data.transpose([axes.index(a) for a in stored]))


def test_what_is_written_follows_ome_zarr_0_5(tmp_path):
    image = sample("TCZYX", "float32", T=2, C=2, Z=3, Y=1030, X=20)
    images.write(tmp_path / "a.zarr", image.data, like=image)
    root = zarr.open_group(tmp_path / "a.zarr", mode="r")
    ome = root.attrs["ome"]
    assert (root.metadata.zarr_format, ome["version"]) == (3, "0.5")
    (multiscale,) = ome["multiscales"]
    assert [(a["name"], a["type"], a.get("unit")) for a in multiscale["axes"]] == [
        ("t", "time", "second"), ("c", "channel", None),
        *[(n, "space", "micrometer") for n in "zyx"],
    ]  # fmt: skip
    assert multiscale["datasets"][0]["coordinateTransformations"] == [
        {"type": "scale", "scale": [0.5, 1.0, 1.5, 0.25, 0.1083]}
    ]
    windows = [channel["window"] for channel in ome["omero"]["channels"]]
    assert [w["start"] for w in windows] == [float(image.data[:, c].min()) for c in range(2)]
    assert [w["max"] for w in windows] == [float(image.data[:, c].max()) for c in range(2)]
    array = root[multiscale["datasets"][0]["path"]]
    assert array.chunks == (1, 1, 1, 1024, 20)
    assert array.shards == (2, 2, 3, 2048, 20)
    assert array.metadata.dimension_names == ("t", "c", "z", "y", "x")
    np.testing.assert_array_equal(array[...], image.data)


@pytest.mark.parametrize(
    "packing",
    [
        {"compressors": None},
        {"compressors": [{"id": "zlib"}]},
        {"compressors": numcodecs.LZ4()},
        {"compressors": numcodecs.BZ2()},
        {"compressors": numcodecs.Zstd()},
        {"compressors": numcodecs.GZip()},
        {"compressors": [{"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 2}], "order": "F"},
        {"chunk_key_encoding": {"name": "v2", "separator": "."}},
        {"chunks": (7, 5, 100)},
    ],
    ids=str,
)
def test_version_0_4(tmp_path, packing):
    image = sample("TYX")
    back = images.read(store_04(tmp_path / "a.zarr", image.data, "TYX", **packing))
    assert (back.axes, back.pixel_size, back.unit) == ("TYX", image.pixel_size, image.unit)
    np.testing.assert_array_equal(np.asarray(back.data), image.data)


@pytest.mark.parametrize(
    "packing",
    [
        {"compressors": [ZstdCodec(), Crc32cCodec()]},
        {"compressors": [GzipCodec()], "shards": (4, 8, 8), "chunks": (2, 4, 4)},
        {"compressors": [BloscCodec()], "filters": [TransposeCodec(order=(2, 1, 0))]},
    ],
    ids=["zstd", "sharded", "blosc"],
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # of writers, not of us
def test_zarr_3_arrays_without_ome(tmp_path, packing):
    image = sample("TYX")
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=image.data.shape, dtype="uint16", **({"chunks": (3, 5, 7)} | packing)
    )
    array[...] = image.data
    back = images.read(tmp_path / "a.zarr", axes="ZYX")
    assert (back.axes, back.pixel_size) == ("ZYX", {})
    np.testing.assert_array_equal(np.asarray(back.data), image.data)
    assert "--axes" in refused(images.read, tmp_path / "a.zarr")


def test_scale_of_the_level_and_of_all_levels_multiply(tmp_path):
    path = store_04(tmp_path / "a.zarr", sample("ZYX").data, "ZYX")
    shared = [{"type": "scale", "scale": [2.0, 4.0, 10.0]}]
    change(path / ".zattrs", multiscales__0__coordinateTransformations=shared)
    assert images.read(path).pixel_size == pytest.approx({"Z": 3.0, "Y": 1.0, "X": 1.083})


def test_nothing_known_is_not_a_pixel_size_of_1(tmp_path):
    images.write(tmp_path / "a.zarr", np.eye(8), like=Image(np.eye(8), "YX"))
    assert images.read(tmp_path / "a.zarr").pixel_size == {}
    path = store_04(tmp_path / "b.zarr", sample("ZYX").data, "ZYX")
    for steps in ([], [{"type": "identity"}], [{"type": "translation", "translation": [1.0, 2.0, 3.0]}]):
        change(path / ".zattrs", multiscales__0__datasets__0__coordinateTransformations=steps)
        assert images.read(path).pixel_size == {}


def transformations(path: Path) -> list[dict]:
    return json.loads((path / "zarr.json").read_text())["attributes"]["ome"]["multiscales"][0]["datasets"][0][
        "coordinateTransformations"
    ]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_tile_keeps_its_place(tmp_path, version):
    """For stitching; whatever the order of the axes, and when some are left out."""
    path = (store_04 if version == "0.4" else store_05)(tmp_path / "a.zarr", sample("TCYX").data, "TCYX")
    ome = "" if version == "0.4" else "attributes__ome__"
    file = path / (".zattrs" if version == "0.4" else "zarr.json")
    place = [{"type": "scale", "scale": [0.5, 1, 0.25, 0.25]}, {"type": "translation", "translation": [3, 0, 1250, 88]}]
    change(file, **{f"{ome}multiscales__0__datasets__0__coordinateTransformations": place})
    of_all = [{"type": "scale", "scale": [1, 1, 2, 2]}, {"type": "translation", "translation": [0, 0, 0, -6]}]
    change(file, **{f"{ome}multiscales__0__coordinateTransformations": of_all})
    image = images.read(path)
    images.write(tmp_path / "b.zarr", image.data, like=image)
    assert transformations(tmp_path / "b.zarr") == [
        {"type": "scale", "scale": [0.5, 1, 0.5, 0.5]},
        {"type": "translation", "translation": [3, 0, 2500, 170]},
    ]
    assert images.read(tmp_path / "b.zarr").metadata.translation == {"T": 3, "Y": 2500, "X": 170}
    frame = replace(image, data=everything(path)[0].transpose(2, 0, 1), axes="XCY")
    images.write(tmp_path / "c.zarr", frame.data, like=frame)
    assert transformations(tmp_path / "c.zarr")[1:] == [{"type": "translation", "translation": [0, 2500, 170]}]
    images.write(tmp_path / "d.ome.tif", image.data, like=image)  # which has no such thing
    images.write(tmp_path / "e.zarr", image.data, like=images.read(tmp_path / "d.ome.tif"))
    assert [step["type"] for step in transformations(tmp_path / "e.zarr")] == ["scale"]


@pytest.mark.parametrize("odd", [None, "far", [1.0], [1e400, 0, 0], [None, 1, 2], [[1], [2], [3]], {"X": 1}], ids=repr)
def test_a_place_that_is_none_is_left_out(tmp_path, odd):
    path = store_04(tmp_path / "a.zarr", sample("ZYX").data, "ZYX")
    scale = {"type": "scale", "scale": [1.5, 0.25, 0.25]}
    steps = [scale, {"type": "translation", "translation": odd}]
    change(path / ".zattrs", multiscales__0__datasets__0__coordinateTransformations=steps)
    image = images.read(path)
    images.write(tmp_path / "b.zarr", image.data, like=image)
    assert transformations(tmp_path / "b.zarr") == [scale]


def test_chunks_that_were_not_written_hold_the_fill_value(tmp_path):
    pixels = sample("TYX").data
    pixels[1] = 0
    path = store_04(tmp_path / "a.zarr", pixels, "TYX", chunks=(1, 12, 20), fill_value=7)
    shutil.rmtree(path / "0" / "2")
    pixels[2] = 7
    np.testing.assert_array_equal(everything(path), pixels)


# ---- which image


def test_a_store_is_an_image_and_so_is_an_image_in_a_store(tmp_path):
    image = sample("TYX")
    for name in ("b.ome.zarr", "c.ZARR", ".hidden.zarr"):
        store_05(tmp_path / name, image.data, "TYX")
    images.write(tmp_path / "a.tif", image.data, like=image)
    (tmp_path / "folder").mkdir()
    assert [p.name for p in images.find([tmp_path])] == ["a.tif", "b.ome.zarr", "c.ZARR"]
    assert [p.name for p in images.find([str(tmp_path / "*.zarr")])] == ["b.ome.zarr"]
    plate = tmp_path / "folder" / "plate.zarr"
    store_04(plate / "A" / "1" / "0", image.data, "TYX")
    (plate / ".zattrs").write_text(json.dumps({"plate": {"wells": [{"path": "A/1"}]}}))
    (plate / "A" / "1" / ".zattrs").write_text(json.dumps({"well": {"images": [{"path": "0"}]}}))
    for folder in (plate, plate / "A" / "1"):
        assert str(plate / "A" / "1" / "0") in refused(images.read, folder)
    np.testing.assert_array_equal(everything(plate / "A" / "1" / "0"), image.data)
    result = images.output_path(plate / "A" / "1" / "0", tmp_path / "out", "_std")
    assert result == tmp_path / "out" / "plate_A_1_0_std.zarr"
    assert images.output_path(tmp_path / "b.ome.zarr", tmp_path, "_std").name == "b_std.ome.zarr"
    assert images.output_path(tmp_path / "b.ome.zarr", tmp_path, "", ".tif").name == "b.tif"


def test_the_only_image_of_a_converted_file_is_meant(tmp_path):
    path = tmp_path / "a.zarr"
    store_04(path / "0", sample("TYX").data, "TYX")
    (path / "OME").mkdir()
    (path / ".zattrs").write_text(json.dumps({"bioformats2raw.layout": 3}))
    np.testing.assert_array_equal(everything(path), sample("TYX").data)
    store_04(path / "1", sample("TYX").data, "TYX")
    assert str(path / "0") in refused(images.read, path)


@pytest.mark.parametrize("name", ["https://example.org/a.zarr", "s3://bucket/a.zarr"])
def test_web_addresses_are_refused(name):
    assert "download" in refused(images.find, [name])


def test_what_is_no_image(tmp_path):
    (tmp_path / "empty.zarr").mkdir()
    (tmp_path / "file.zarr").write_text("pixels")
    zarr.create_group(tmp_path / "group.zarr")
    for name in ("empty.zarr", "file.zarr", "group.zarr"):
        assert "OME-Zarr" in refused(images.read, tmp_path / name)


@pytest.mark.parametrize("version", ["0.3", "0.6-dev", "7"])
def test_other_versions_are_refused(tmp_path, version):
    path = store_04(tmp_path / "a.zarr", sample("TYX").data, "TYX", version=version)
    assert version in refused(images.read, path)


def test_unclear_axes_are_asked_for(tmp_path):
    path = store_04(tmp_path / "a.zarr", sample("TYX").data, "TYX")
    change(path / ".zattrs", multiscales__0__axes__0={"name": "angle"})
    assert "--axes" in refused(images.read, path)
    back = images.read(path, axes="TYX")
    assert (back.axes, back.pixel_size["X"]) == ("TYX", SIZE["X"])
    change(path / ".zattrs", multiscales__0__axes=[{"name": "y"}, {"name": "x"}])
    assert "2 axes (y, x) for an array of 3" in refused(images.read, path)


# ---- damage and malice


def damaged(tmp_path, version: str) -> Path:
    pixels = np.random.default_rng(0).integers(0, 4000, (4, 30, 40)).astype(np.uint16)
    return (store_04 if version == "0.4" else store_05)(tmp_path / "a.zarr", pixels, "TYX")


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_chunk_that_was_cut_off_is_refused(tmp_path, version):
    path = damaged(tmp_path, version)
    file = max((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    whole = file.read_bytes()
    for share in (0, 0.01, 0.3, 0.9, 0.999):
        file.write_bytes(whole[: int(len(whole) * share)])
        assert "cannot be read" in refused(everything, path)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_flipped_bytes_anywhere_give_pixels_or_one_line(tmp_path, version):
    path, rng, wrong = damaged(tmp_path, version), np.random.default_rng(0), 0
    expected = everything(path)
    for file in [p for p in path.rglob("*") if p.is_file()]:
        whole = np.frombuffer(file.read_bytes(), np.uint8)
        for _ in range(20):
            broken = whole.copy()
            broken[rng.integers(0, len(whole), 2)] ^= rng.integers(1, 255, 2).astype(np.uint8)
            file.write_bytes(broken.tobytes())
            with suppress(InputError):
                found = everything(path)
                wrong += found.shape != expected.shape or not np.array_equal(found, expected)
        file.write_bytes(whole.tobytes())
        if file.parent.name != path.name and version == "0.5" and "zarr.json" not in file.name:
            assert not wrong  # what we write has checksums


@pytest.mark.parametrize(
    "name", ["../other.zarr/0", "/etc", "..", "", "a/../../other.zarr/0", "..\\other", "C:x", "0\0"]
)
def test_no_path_leads_out_of_the_store(tmp_path, name):
    store_04(tmp_path / "other.zarr", sample("TYX").data, "TYX")
    path = store_04(tmp_path / "a.zarr", sample("TYX").data, "TYX")
    change(path / ".zattrs", multiscales__0__datasets__0__path=name)
    assert "inside the store" in refused(images.read, path)


def test_no_link_leads_out_of_the_store(tmp_path):
    pixels = sample("YX").data
    secret = store_04(tmp_path / "secret.zarr", pixels, "YX", compressors=None)
    path = store_04(tmp_path / "a.zarr", pixels, "YX", compressors=None)
    chunk = path / "0" / "0" / "0"
    assert chunk.is_file()
    chunk.unlink()
    chunk.symlink_to(secret / "0" / "0" / "0")
    assert "link" in refused(everything, path)
    shutil.rmtree(path / "0" / "0")
    (path / "0" / "0").symlink_to(secret / "0" / "0")
    assert "link" in refused(everything, path)
    shutil.rmtree(path / "0")
    (path / "0").symlink_to(secret / "0")
    assert "link" in refused(images.read, path)
    (path / ".zattrs").unlink()
    (path / ".zattrs").symlink_to(secret / ".zattrs")
    assert "link" in refused(images.read, path)
    converted = tmp_path / "b.zarr"
    converted.mkdir()
    (converted / ".zattrs").write_text(json.dumps({"bioformats2raw.layout": 3}))
    (converted / "0").symlink_to(store_04(tmp_path / "other.zarr", pixels, "YX"))
    refused(images.read, converted)
    (tmp_path / "mine.zarr").symlink_to(secret)  # a link that the user made
    np.testing.assert_array_equal(everything(tmp_path / "mine.zarr"), pixels)


def test_a_pipe_does_not_hang_and_a_huge_file_is_not_read(tmp_path):
    path = store_04(tmp_path / "a.zarr", sample("YX").data, "YX", compressors=None)
    chunk = path / "0" / "0" / "0"
    os.truncate(chunk, 2**40)
    assert "bytes" in refused(everything, path)
    chunk.unlink()
    os.mkfifo(chunk)
    assert "special file" in refused(everything, path)
    os.truncate(path / ".zattrs", 2**36)
    assert "bytes" in refused(images.read, path)


HUGE = 2**46


@pytest.mark.parametrize(
    "said",
    [
        {"shape": [HUGE, HUGE, 20]},
        {"shape": [10**9, 10**9, 20], "chunks": [1, 1, 20]},
        {"chunks": [HUGE, 12, 20]},
        {"chunks": [4096, 4096, 4096]},
        {"chunks": [0, 12, 20]},
        {"chunks": [4, 12]},
        {"shape": [-4, 12, 20]},
        {"shape": "4"},
        {"shape": [True, 12, 20]},
        {"shape": [4.0, 12, 20]},
        {"dtype": "|O"},
        {"dtype": "<U9"},
        {"dtype": [["a", "<u2"]]},
        {"dtype": "|O", "filters": [{"id": "pickle"}]},
        {"filters": [{"id": "pickle"}]},
        {"compressor": {"id": "json2"}},
        {"compressor": {"id": 7}},
        {"zarr_format": 9},
        {"fill_value": "seven"},
    ],
    ids=str,
)
def test_metadata_of_zarr_2_are_checked_before_anything_is_allocated(tmp_path, said):
    path = store_04(tmp_path / "a.zarr", sample("TYX").data, "TYX")
    change(path / "0" / ".zarray", **said)
    everything_in_bounds(path)


def everything_in_bounds(path: Path) -> None:
    tracemalloc.start()
    refused(everything, path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50 * 2**20


@pytest.mark.parametrize(
    "said",
    [
        {"shape": [HUGE, HUGE, 20]},
        {"chunk_grid__configuration__chunk_shape": [HUGE, 12, 20]},
        {"codecs__0__configuration__chunk_shape": [1, 5, 20]},
        {"codecs__0__configuration__chunk_shape": [0, 12, 20]},
        {"codecs__0__name": "vlen-utf8"},
        {"codecs__0__configuration__codecs__1__name": "numcodecs.pickle"},
        {"codecs__0__configuration__codecs": []},
        {"codecs": []},
        {"data_type": "string"},
        {"data_type": {"name": "struct", "configuration": {}}},
        {"data_type": "numpy.datetime64"},
        {"chunk_grid__name": "rectilinear"},
        {"storage_transformers": [{"name": "x"}]},
        {"node_type": "group"},
        {"zarr_format": 2},
    ],
    ids=str,
)
def test_metadata_of_zarr_3_are_checked_before_anything_is_allocated(tmp_path, said):
    path = store_05(tmp_path / "a.zarr", sample("TYX").data, "TYX")
    change(path / "0" / "zarr.json", **said)
    everything_in_bounds(path)


@pytest.mark.parametrize("said", ["[]", "7", "{", '{"multiscales": 7}', '{"multiscales": [{}]}', "[" * 10**5, "\xff"])
def test_metadata_that_are_none_give_one_line(tmp_path, said):
    path = store_04(tmp_path / "a.zarr", sample("TYX").data, "TYX")
    (path / ".zattrs").write_text(said, encoding="latin-1")
    refused(images.read, path)


# ---- output


def test_a_store_appears_when_it_is_complete(tmp_path, monkeypatch):
    image = sample("TYX")
    path = store_05(tmp_path / "a.zarr", image.data, "TYX")
    assert "--overwrite" in refused(images.write, path, image.data + 1, like=image)

    def fails(*_):
        assert [p.name for p in tmp_path.iterdir() if not p.name.startswith(".")] == ["a.zarr"]
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(omezarr, "_shard", fails)
        with pytest.raises(KeyboardInterrupt):
            images.write(path, image.data + 1, like=image, overwrite=True)
    real, calls = os.replace, []

    def second_fails(*paths):  # of the moves of whole stores: zarr moves files, too
        if Path(paths[1]).parent == tmp_path:
            calls.append(paths)
            if len(calls) == 2:
                raise KeyboardInterrupt
        real(*paths)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", second_fails)
        with pytest.raises(KeyboardInterrupt):
            images.write(path, image.data + 1, like=image, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]
    np.testing.assert_array_equal(everything(path), image.data)
    images.write(path, image.data + 1, like=image, overwrite=True)
    np.testing.assert_array_equal(everything(path), image.data + 1)
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


def test_a_folder_that_is_no_store_is_never_replaced(tmp_path):
    image = sample("YX")
    (tmp_path / "a.tif").mkdir()
    (tmp_path / "a.tif" / "precious.txt").touch()
    refused(images.write, tmp_path / "a.tif", image.data, like=image, overwrite=True)
    assert (tmp_path / "a.tif" / "precious.txt").exists()
    (tmp_path / "a.zarr").mkdir()
    images.write(tmp_path / "a.zarr", image.data, like=image, overwrite=True)  # it was empty
    (tmp_path / "b.zarr" / "mine").mkdir(parents=True)  # a store by its name only
    refused(images.write, tmp_path / "b.zarr", image.data, like=image, overwrite=True)
    wanted = outputs.Wanted(format="ome.zarr")
    (tmp_path / "c.ome.zarr" / "mine").mkdir(parents=True)
    with pytest.raises(InputError, match="a folder"):  # before the work rather than after
        outputs.refuse_collisions([Path("c.tif")], tmp_path, wanted, overwrite=True)
    assert (tmp_path / "b.zarr" / "mine").exists()


def test_what_killed_runs_left_is_removed(tmp_path):
    for name in ("a.zarr", ".a.zarr.999.part", ".a.zarr.999-before.part", ".b.zarr.999.part"):
        (tmp_path / name / "0").mkdir(parents=True)
    with writing.claim(tmp_path, ["a.zarr"]):
        assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == [".b.zarr.999.part", "a.zarr"]


def test_a_store_that_a_killed_run_was_replacing_comes_back(tmp_path):
    image = sample("YX")
    store_05(tmp_path / "a.zarr", image.data, "YX").rename(tmp_path / ".a.zarr.999-before.part")
    (tmp_path / ".a.zarr.999.part").mkdir()
    with writing.claim(tmp_path, ["a.zarr"]):
        np.testing.assert_array_equal(everything(tmp_path / "a.zarr"), image.data)
        assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == ["a.zarr"]


def test_results_are_named_after_the_store_also_from_inside_it(tmp_path, monkeypatch):
    image = store_05(tmp_path / "one.zarr", sample("YX").data, "YX")
    (tmp_path / "plate.zarr" / "A").mkdir(parents=True)
    image.rename(tmp_path / "plate.zarr" / "A" / "0")
    for inside, name in (("plate.zarr/A/0", "."), ("plate.zarr/A", "0"), ("plate.zarr", "A/0")):
        monkeypatch.chdir(tmp_path / inside)
        assert images.output_path(Path(name), Path("out")) == Path("out/plate_A_0.zarr")


@pytest.mark.parametrize(("axes", "dtype"), [("X", "uint8"), ("PTCYX", "uint8"), ("YX", "bool"), ("YX", "complex64")])
def test_what_ome_zarr_cannot_hold_is_refused(tmp_path, axes, dtype):
    image = sample(axes, dtype)
    assert "a.tif" in refused(images.write, tmp_path / "a.zarr", image.data, like=image)
    assert not list(tmp_path.iterdir())


def test_memory_does_not_grow_with_the_image(tmp_path, monkeypatch):
    """Written a shard at a time, checked a block at a time."""
    monkeypatch.setattr(omezarr, "_SHARD_BYTES", 2**20)
    monkeypatch.setattr(lazy, "BLOCK_BYTES", 2**20)
    monkeypatch.setattr(lazy._KEPT, "most", 2**20)
    data = np.broadcast_to(np.random.default_rng(0).random((1, 256, 256), np.float32), (200, 256, 256))
    everything_here = data.size * 4
    like = Image(data, "TYX")
    tracemalloc.start()
    images.write(tmp_path / "a.zarr", data, like=like)
    images.check(images.read(tmp_path / "a.zarr"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < everything_here / 4
