"""What a file says beside its pixels comes through; what it says wrongly harms nothing."""

import json
import sys
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile
import tiny
from test_images import sample
from test_omezarr import store_04

from cosdd import checkpoint, cli, images
from cosdd.metadata import Channel, Metadata, colour, name, ramp

FIRE = np.random.default_rng(0).integers(0, 256, (3, 256), np.uint8)  # a LUT that is no ramp
GREEN = np.frombuffer(ramp("00FF00"), np.uint8).reshape(3, 256)
NOTES = "Objective: 63x <oil> & more\nGain = 2"


def imagej(path, axes="TCYX", **said):
    image = sample(axes)
    mode = {"mode": "composite"} if "C" in axes else {}
    tifffile.imwrite(path, image.data, imagej=True, metadata={"axes": axes} | mode | said)
    return path


def ome(path, axes="TCYX", **said):
    image = sample(axes)
    tifffile.imwrite(path, image.data, ome=True, metadata={"axes": axes} | said)
    return path


def again(path, target):
    """The same pixels under another name, by way of `Image`."""
    image = images.read(path)
    images.write(target, np.asarray(image.data, np.float32), like=image)
    return target


def xml(path):
    with tifffile.TiffFile(path) as tif:
        return ElementTree.fromstring(tif.ome_metadata or "")


def found(path, tag):
    return [dict(element.attrib) for element in xml(path).iter() if element.tag.endswith("}" + tag)]


def omero(path):
    ome = json.loads((path / "zarr.json").read_text())["attributes"]["ome"]
    return ome["omero"]["channels"]


# ---- the same format


def test_an_imagej_composite_stays_one(tmp_path):
    said = {"LUTs": [FIRE, GREEN], "Ranges": (10.0, 90.0, 0.0, 40.5), "Info": NOTES}
    path = again(imagej(tmp_path / "a.tif", **said), tmp_path / "b.tif")
    with tifffile.TiffFile(path) as tif:
        back = tif.imagej_metadata or {}
    assert (back["mode"], back["Ranges"], back["Info"]) == ("composite", said["Ranges"], NOTES)
    np.testing.assert_array_equal(back["LUTs"], said["LUTs"])


def test_a_single_channel_in_imagej_keeps_its_contrast(tmp_path):
    path = again(imagej(tmp_path / "a.tif", "TYX", min=0.0, max=120.5, Info=NOTES), tmp_path / "b.tif")
    assert images.read(path).metadata == Metadata((), NOTES, "grayscale", (Channel(window=(0.0, 120.5)),))


def test_ome_tiff_keeps_names_colours_wavelengths_and_planes(tmp_path):
    channels = {
        "Name": ["DAPI", "GFP"],
        "Color": [65535, -16711681],
        "ExcitationWavelength": [405.0, 0.488],
        "ExcitationWavelengthUnit": ["nm", "µm"],
        "EmissionWavelength": [461.5, 520.0],
    }
    planes = {
        "DeltaT": [0.5 * i for i in range(8)],
        "ExposureTime": [20.0] * 8,
        "ExposureTimeUnit": ["ms"] * 8,
        "PositionX": [100.25 + i for i in range(8)],
        "PositionXUnit": ["µm"] * 8,
    }
    first = ome(tmp_path / "a.ome.tif", Name="cell <1>", Description=NOTES, Channel=channels, Plane=planes)
    second = again(first, tmp_path / "b.ome.tif")
    assert [image["Name"] for image in found(second, "Image")] == ["cell <1>"]
    assert [e.text for e in xml(second).iter() if e.tag.endswith("}Description")] == [NOTES]
    assert [(c["Name"], c["Color"]) for c in found(second, "Channel")] == [("DAPI", "65535"), ("GFP", "-16711681")]
    waves = [(float(c["ExcitationWavelength"]), float(c["EmissionWavelength"])) for c in found(second, "Channel")]
    assert waves == [(405.0, 461.5), (488.0, 520.0)]
    assert found(second, "Plane") == found(first, "Plane")


def test_planes_keep_their_times_where_they_are_stored_in_another_order(tmp_path):
    said = {"DeltaT": [float(i) for i in range(8)]}  # of a file that is written channel by channel
    path = again(ome(tmp_path / "a.ome.tif", "CTYX", Plane=said), tmp_path / "b.ome.tif")
    image = images.read(path)
    assert image.axes == "CTYX"
    assert {place: plane["DeltaT"] for place, plane in image.metadata.planes.items()} == {
        (0, t, 0, c): float(4 * c + t) for c in range(2) for t in range(4)
    }
    relabelled = images.read(path, axes="TCYX")
    assert not relabelled.metadata.planes  # they would be those of others


def test_every_position_keeps_its_name(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as tif:
        for i, position in enumerate(np.asarray(sample("PTYX").data)):
            tif.write(position, metadata={"axes": "TYX", "Name": f"well {i}", "Plane": {"DeltaT": [float(i)] * 4}})
    path = again(tmp_path / "a.ome.tif", tmp_path / "b.ome.tif")
    assert [image["Name"] for image in found(path, "Image")] == ["well 0", "well 1", "well 2"]
    assert [plane["DeltaT"] for plane in found(path, "Plane")] == ["0.0"] * 4 + ["1.0"] * 4 + ["2.0"] * 4


def test_ome_zarr_keeps_colours_labels_and_contrast(tmp_path):
    path = store_04(tmp_path / "a.zarr", np.asarray(sample("TCYX").data), "TCYX")
    said = json.loads((path / ".zattrs").read_text())
    said["multiscales"][0]["name"] = "cell 1"
    windows = [{"min": 0, "max": 65535, "start": 5, "end": 70.5}, {}]
    for channel, shown, window in zip(said["omero"]["channels"], ("0000FF", "ff8000"), windows, strict=True):
        channel |= {"color": shown, "window": window}
    (path / ".zattrs").write_text(json.dumps(said))
    second = again(path, tmp_path / "b.zarr")
    assert [(c["label"], c["color"]) for c in omero(second)] == [("dye 0", "0000FF"), ("dye 1", "FF8000")]
    window, unsaid = (channel["window"] for channel in omero(second))
    assert (window["start"], window["end"]) == (5, 70.5)
    assert (unsaid["start"], unsaid["end"]) == (unsaid["min"], unsaid["max"])
    assert images.read(second).metadata.names == ("cell 1",)


# ---- from one format to another


@pytest.mark.parametrize(
    "way", [("tif", "ome.zarr", "tif"), ("ome.tif", "ome.zarr", "ome.tif"), ("tif", "ome.tif", "tif")]
)
def test_names_and_colours_go_from_format_to_format(tmp_path, way):
    shown = Metadata(mode="composite", channels=(Channel(ramp("FF8000")), Channel(ramp("00FF00"))))
    like = replace(sample("TCYX"), metadata=shown)
    first = tmp_path / f"0.{way[0]}"
    images.write(first, like.data, like=like)
    second = again(first, tmp_path / f"1.{way[1]}")
    back = images.read(again(second, tmp_path / f"2.{way[2]}"))
    assert [colour(channel.lut) for channel in back.metadata.channels] == ["FF8000", "00FF00"]
    assert back.channel_names == ("dye 0", "dye 1")
    assert back.metadata.mode == ("composite" if way[2] == "tif" else "")


def test_contrast_goes_from_imagej_to_ome_zarr_and_back(tmp_path):
    first = imagej(tmp_path / "a.tif", Ranges=(10.0, 90.0, 0.0, 40.5))
    second = again(first, tmp_path / "b.zarr")
    assert [(c["color"], c["window"]["start"], c["window"]["end"]) for c in omero(second)] == [
        ("FF0000", 10.0, 90.0),  # what ImageJ shows where nothing is said
        ("00FF00", 0.0, 40.5),
    ]
    windows = [channel.window for channel in images.read(again(second, tmp_path / "c.tif")).metadata.channels]
    assert windows == [(10.0, 90.0), (0.0, 40.5)]


def test_a_lut_that_is_no_colour_is_white_elsewhere(tmp_path):
    first = imagej(tmp_path / "a.tif", LUTs=[FIRE, GREEN[:, ::-1]])
    assert [c["color"] for c in omero(again(first, tmp_path / "b.zarr"))] == ["FFFFFF", "FFFFFF"]
    assert all("Color" not in channel for channel in found(again(first, tmp_path / "b.ome.tif"), "Channel"))


# ---- results


def test_the_spread_of_an_image_has_a_contrast_of_its_own(tmp_path, monkeypatch):
    model = tmp_path / "m.safetensors"
    checkpoint.save(tiny.checkpoint(1050.0, 100.0), model)
    frames = tiny.stripes(3)[:, 0]
    said = {"axes": "TYX", "min": 1000.0, "max": 1200.0, "Info": NOTES}
    tifffile.imwrite(tmp_path / "a.tif", frames, imagej=True, metadata=said)
    arguments = ["denoise", str(model), str(tmp_path / "a.tif"), "-o", str(tmp_path / "out"), "--std"]
    monkeypatch.setattr(sys, "argv", ["cosdd", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    mean, spread = (images.read(tmp_path / "out" / f"a{suffix}.tif").metadata for suffix in ("", "_std"))
    assert mean == Metadata((), NOTES, "grayscale", (Channel(window=(1000.0, 1200.0)),))
    assert spread == Metadata((), NOTES, "grayscale")


# ---- odd files

ODD = [None, "", "red", -1, 1e400, "NaN", True, [], {}, [1], "\x1b[2J", "x" * 10**6, {"start": "a"}, "FF00FF00FF"]


@pytest.mark.parametrize("odd", ODD, ids=lambda value: repr(value)[:12])
def test_an_odd_store_is_read_and_written(tmp_path, odd):
    path = store_04(tmp_path / "a.zarr", np.asarray(sample("CYX").data), "CYX")
    whole = json.loads((path / ".zattrs").read_text())
    for number, omero in enumerate(
        [odd, {"channels": odd}, {"channels": [odd, odd]}, {"channels": [{"color": odd, "window": odd}] * 2}]
    ):
        said = whole | {"omero": omero}
        said["multiscales"][0]["name"] = odd
        (path / ".zattrs").write_text(json.dumps(said))
        for end in ("zarr", "tif", "ome.tif"):
            again(path, tmp_path / f"{number}.{end}")
            np.testing.assert_array_equal(
                np.asarray(images.read(tmp_path / f"{number}.{end}").data), sample("CYX").data
            )


@pytest.mark.parametrize(
    "said",
    [
        {"LUTs": [GREEN]},
        {"LUTs": [GREEN[:2], GREEN]},
        {"LUTs": [GREEN] * 9, "Ranges": (1.0,)},
        {"Ranges": (np.nan, 1.0, 5.0, 2.0)},
        {"Ranges": tuple(range(60))},
        {"mode": "evil", "min": "low", "max": "high"},
        {"Info": "<a> &&lt; \x00\x1b]0;owned\x07" + "x" * 10**7},
        {"Labels": ["\x1b[2J\x00", "b" * 10**5] * 4},
    ],
    ids=lambda said: repr(said)[:20],
)
def test_an_odd_imagej_file_is_read_and_written(tmp_path, said):
    path = imagej(tmp_path / "a.tif", **said)
    for end in ("zarr", "tif", "ome.tif"):
        back = images.read(again(path, tmp_path / f"b.{end}"))
        np.testing.assert_array_equal(np.asarray(back.data).squeeze(), sample("TCYX").data)
        assert (tmp_path / "b.tif").stat().st_size < 10**7 if end == "tif" else True


@pytest.mark.parametrize("odd", ["", "NaN", "-1", "1e400", "red", "&#233;&quot;&lt;", "9" * 5000])
def test_an_odd_ome_tiff_is_read_and_written(tmp_path, odd):
    said = {key: ["@@"] * 2 for key in ("Name", "Color", "ExcitationWavelength", "ExcitationWavelengthUnit")}
    planes = {key: ["@@"] * 8 for key in ("DeltaT", "DeltaTUnit", "PositionX")}
    path = ome(tmp_path / "a.ome.tif", Name="@@", Channel=said, Plane=planes)
    with tifffile.TiffFile(path) as tif:
        text = (tif.ome_metadata or "").replace("@@", odd).replace('TheT="2"', f'TheT="{odd}"')
    with tifffile.TiffWriter(path) as tif:
        for plane in np.asarray(sample("TCYX").data).reshape(8, 12, 20):
            tif.write(plane, description=text.encode(), metadata=None)
            text = ""
    for end in ("zarr", "tif", "ome.tif"):
        back = images.read(again(path, tmp_path / f"b.{end}"))
        np.testing.assert_array_equal(np.asarray(back.data), sample("TCYX").data)


def test_names_are_text_of_one_line():
    assert name("a\x00b\x1b[2J\n c\ud800") == "ab[2J c"
    assert len(name("x" * 10**6)) < 1000
    assert name('5" <a> &&lt; & b') == "5' <a> lt; & b"
    assert name(5) == ""
