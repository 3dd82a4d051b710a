"""The report: one page that opens anywhere, shows what it says and lets nothing of a file's names in as code."""

import base64
import io
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
import tifffile
import tiny
from PIL import Image as Picture
from typer.testing import CliRunner

from cosdd import checkpoint, report
from cosdd.cli import app
from cosdd.denoise import Denoiser
from cosdd.errors import InputError
from cosdd.images import from_array

BROWSER = next((path for name in ("chromium", "google-chrome", "chrome") if (path := shutil.which(name))), None)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite(tmp_path / "noisy.tif", tiny.stripes(5)[:, 0], metadata={"axes": "TYX"})
    checkpoint.save(tiny.checkpoint(1050.0, 100.0), tmp_path / "model.safetensors")
    return tmp_path


def cosdd(*line):
    return CliRunner().invoke(app, ["report", *line])


def data(text):
    return json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.S)[1])


class Balanced(HTMLParser):
    """Collects elements; fails where one is not closed."""

    VOID = ("meta", "img", "input", "br", "link", "hr")

    def __init__(self):
        super().__init__()
        self.open, self.ids = [], []

    def handle_starttag(self, tag, attrs):
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_command_writes_one_page_that_needs_no_network(folder):
    done = cosdd("model.safetensors", "noisy.tif")
    assert done.exit_code == 0, done.output
    text = (folder / "noisy.html").read_text()
    assert "noisy.html" in done.output
    assert re.search(r"\(\d green.*\)", done.output)
    assert "  yellow: Was it trained?" in done.output
    parser = Balanced()
    parser.feed(text)
    assert not parser.open
    assert len(set(parser.ids)) == len(parser.ids)
    assert not re.search(r"(src|href)=.https?:|@import|fetch\(|XMLHttp", text)
    assert "default-src 'none'" in text
    assert "@" not in re.sub(r"<script.*?</script>", "", text, flags=re.S)  # every hole is filled
    for question in ("noise gone", "structure intact", "brightness kept", "noise axis"):
        assert question in text
    assert not list(folder.glob(".*"))
    again = cosdd("model.safetensors", "noisy.tif")
    assert isinstance(again.exception, InputError)
    assert cosdd("model.safetensors", "noisy.tif", "--overwrite").exit_code == 0


def test_samples_flicker_only_where_the_model_draws_them(folder):
    cosdd("model.safetensors", "noisy.tif")
    found = data((folder / "noisy.html").read_text())
    assert "flicker" in found["views"]
    samples = [sample["src"] for sample in found["planes"][0][0]["samples"]]
    assert len(set(samples)) == len(samples) == report.FLICKERING


def made(tmp_path, frames, axes, channel_names=(), name="name.tif", **model):
    from dataclasses import replace

    image = replace(from_array(frames, axes), channel_names=channel_names, path=tmp_path / name)
    path = tmp_path / "page.html"
    *shares, found = report.page(Denoiser(tiny.checkpoint(0.0, 1.0, **model)), image, path, {}, overwrite=True)
    assert shares == sorted(shares)
    assert {check.question for check in found.answers} >= {"Is the noise gone?", "Is it better than a blur?"}
    return path.read_text()


def test_planes_of_volumes_and_channels_are_all_there(tmp_path):
    rng = np.random.default_rng(0)
    text = made(tmp_path, rng.normal(size=(2, 3, 16, 32, 32)), "TCZYX", ("a", "b", "c"), channels=3, dimensions=3)
    found = data(text)
    assert found["channels"] == ["a", "b", "c"]
    assert [slider["name"] for slider in found["sliders"]] == ["time point", "plane"]
    times, planes = (slider["places"] for slider in found["sliders"])
    assert times == ["1 of 2", "2 of 2"]
    assert (planes[0], planes[-1]) == ("1 of 16", "16 of 16")
    assert len(found["planes"]) == len(times) * len(planes) == report.MOST_PLANES // 3
    assert all(len(plane) == 3 for plane in found["planes"])


def test_each_slider_moves_along_its_own_axis():
    """Time, position and plane of a 2-D model: the picture of each place is that of this place."""
    frames = np.random.default_rng(0).normal(size=(2, 3, 4, 32, 32))

    def pictures(pixels, axes):
        image = from_array(pixels, axes)
        stack = pixels.reshape(-1, 1, 32, 32)
        shown = report._chosen(image, "YX", stack.shape)
        assert shown.frames == list(range(len(stack)))
        return json.loads(report._data(image, shown, stack, stack, np.abs(stack), None))

    found, alone = pictures(frames, "TPZYX"), pictures(frames[1, 0, 2], "YX")
    assert [(s["name"], len(s["places"])) for s in found["sliders"]] == [
        ("time point", 2), ("position", 3), ("plane", 4)
    ]  # fmt: skip
    assert not alone["sliders"]
    assert found["planes"][(1 * 3 + 0) * 4 + 2] == alone["planes"][0]
    assert found["planes"].count(alone["planes"][0]) == 1


def test_places_are_few_even_and_never_none():
    assert report._places([20], 24) == [list(range(20))]
    times, planes = report._places([100, 50], 24)
    assert len(times) * len(planes) <= 24
    assert (times[0], times[-1], planes[0], planes[-1]) == (0, 99, 0, 49)
    assert report._places([9, 5], 1) == [[4], [2]]
    assert report._places([], 1) == []


def test_large_images_do_not_make_a_large_page():
    """Fewer of them are looked at: as many pixels as of small ones, and of many channels as of one."""
    large = from_array(np.broadcast_to(np.float32(0), (24, 2, 1024, 1024)), "TCYX")
    found = report._chosen(large, "YX", large.data.shape)
    assert len(found.frames) == len(found.planes) == 8 // 4 // 2
    huge = from_array(np.broadcast_to(np.float32(0), (3, 2000, 3000)), "TYX")
    shown = report._chosen(huge, "YX", (3, 1, 2000, 3000))
    assert [(part.start, part.stop) for part in shown.denoised] == [(424, 1576), (924, 2076)]
    assert [(part.start, part.stop) for part in shown.window] == [(64, 1088), (64, 1088)]


def test_of_large_images_the_middle_is_denoised_and_that_is_said(tmp_path, monkeypatch):
    """No more of them; a volume's planes keep their numbers."""
    monkeypatch.setattr(report, "LARGEST", {2: (32, 48), 3: (4, 32, 48)})
    monkeypatch.setattr(report, "MARGIN", {2: (16, 16), 3: (2, 16, 16)})
    frames = np.random.default_rng(0).normal(size=(12, 100, 120)).astype(np.float32)
    frames[:, :18], frames[:, 82:], frames[..., :20], frames[..., 100:] = np.nan, np.nan, np.nan, np.nan
    seen = []
    stream = Denoiser.stream
    monkeypatch.setattr(Denoiser, "stream", lambda self, part, asked: seen.append(part) or stream(self, part, asked))
    monkeypatch.setattr("cosdd.images.check", lambda *_: None)  # which refuses what is not finite
    monkeypatch.setattr("cosdd.checks.inspected", lambda _: None)
    found = {}
    for axes, dimensions in (("TYX", 2), ("ZYX", 3)):
        text = made(tmp_path, frames, axes, dimensions=dimensions)
        found[axes] = data(text)
        assert (found[axes]["height"], found[axes]["width"]) == (32, 48)
        assert np.isfinite(seen[-1]).all()
    assert "the middle 32 x 48 pixels of 100 x 120" in made(tmp_path, frames, "TYX")
    assert "the middle 4 x 32 x 48 pixels of 12 x 100 x 120" in text
    assert [part.shape[2:] for part in seen[:2]] == [(64, 80), (8, 64, 80)]
    assert found["ZYX"]["sliders"][0]["places"] == ["5 of 12", "6 of 12", "7 of 12", "8 of 12"]
    noisy = found["ZYX"]["planes"][1][0]["noisy"]
    picture = np.asarray(Picture.open(io.BytesIO(base64.b64decode(noisy["src"].split(",")[1]))), float)
    shown = noisy["low"] + picture / 255 * (noisy["high"] - noisy["low"])
    np.testing.assert_allclose(shown, frames[5, 34:66, 36:84], atol=0.05)


def test_of_a_long_recording_a_part_is_denoised_and_that_is_said(tmp_path):
    frames = np.random.default_rng(0).normal(size=(60, 16, 16))
    text = made(tmp_path, frames, "TYX")
    assert f"{report.MOST_PLANES} of 60 images, spread evenly" in text
    found = data(text)
    assert found["sliders"][0]["places"][:: report.MOST_PLANES - 1] == ["1 of 60", "60 of 60"]
    assert len(found["planes"]) == report.MOST_PLANES


def test_the_page_holds_the_grey_values_that_it_shows():
    """Noisy and denoised image to a 256th of their range, whatever a few hot pixels do."""
    rng = np.random.default_rng(0)
    clean = rng.uniform(100, 200, (1, 1, 64, 64))
    noisy = clean + rng.normal(0, 30, clean.shape)
    noisy[0, 0, 5, 7] = 60000
    image = from_array(noisy[0, 0], "YX")
    shown = report._chosen(image, "YX", noisy.shape)
    plane = json.loads(report._data(image, shown, noisy, clean, np.ones_like(clean), None))["planes"][0][0]
    for name, truth in (("noisy", noisy), ("denoised", clean)):
        picture = plane[name]
        grey = np.asarray(Picture.open(io.BytesIO(base64.b64decode(picture["src"].split(",")[1]))), float)
        found = picture["low"] + grey / 255 * (picture["high"] - picture["low"])
        usual = truth[0, 0] < 1000
        np.testing.assert_allclose(found[usual], truth[0, 0][usual], atol=np.ptp(truth[0, 0][usual]) / 150)


def test_names_cannot_become_code(tmp_path):
    evil = "</script><script>alert(1)</script>"
    frames = np.random.default_rng(0).normal(size=(2, 1, 32, 32))
    text = made(tmp_path, frames, "TCYX", (evil,), "<img src=x onerror=alert(2)>@data@.tif".replace("/", ""))
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert data(text)["channels"] == [evil]
    assert text.count('"planes"') == 1


def test_single_lines_are_refused(tmp_path):
    with pytest.raises(InputError, match="rows and columns"):
        list(
            report.page(
                Denoiser(tiny.checkpoint(dimensions=1, noise_axis="x")),
                from_array(np.zeros((3, 64)), "YX"),
                tmp_path / "p.html",
                {},
                False,
            )
        )


def test_what_cannot_be_written_is_said(folder):
    done = cosdd("model.safetensors", "noisy.tif", "-o", "noisy.tif/page.html")
    assert isinstance(done.exception, InputError)
    done = cosdd("model.safetensors", "noisy.tif", "-o", "page.pdf")
    assert ".html" in str(done.exception)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3.7, 12.1), (1e-5, 3e-5), (0, 81234)])
def test_ticks_are_few_and_round(low, high):
    ticks = report._ticks(low, high)
    assert 3 <= len(ticks) <= 11
    assert all(low <= tick <= high for tick in ticks)


@pytest.mark.parametrize("values", [(1e308, -1e308), (np.nan, 1.0), (1e20, 1e20), (0.0, 1e-320), (np.inf, -np.inf)])
def test_a_chart_draws_whatever_a_model_file_says_of_its_training(values):
    for curve in ((np.arange(2), np.array(values)), (np.array(values), np.arange(2))):
        text = report.chart("caption", "x", {"elbo": curve}, zero=True)
        assert not re.search(r"nan|inf\b", text)


def test_a_chart_of_one_constant_value_still_draws():
    text = report.chart("caption", "x", {"flat": (np.arange(3), np.zeros(3))}, zero=True)
    assert "nan" not in text
    assert "flat" in text


PROBE = """
<script>
window.onerror = (message) => { document.title = "FAILED " + message; };
window.addEventListener("unhandledrejection", (event) => { document.title = "FAILED " + event.reason; });
window.addEventListener("load", async () => {
  const seen = [], wait = time => new Promise(resolve => setTimeout(resolve, time));
  const waited = async () => { do await wait(20); while (at("window").ariaBusy !== "false"); };
  const pixels = () => [at("under"), at("over")].map(canvas => canvas.hidden ? "" : canvas.toDataURL());
  const styles = () => [
    at("divider").hidden, at("divider").style.left, at("stage").style.width, at("line").style.cssText];
  const state = () => [...pixels(), ...styles(), at("profile").innerHTML].join();
  const changed = async (name, act) => {
    const before = state(); act(); await waited(); seen.push(name + "=" + (state() !== before));
  };
  const move = (control, value, kind) => { control.value = value; control.dispatchEvent(new Event(kind)); };
  await waited();
  for (const button of at("views").children)
    if (button.value !== "compare" && button.value !== "flicker") await changed(button.value, () => button.click());
  await changed("compare", () => at("views").children[0].click());
  for (const button of [...at("zooms").children].slice(1)) await changed(button.textContent, () => button.click());
  await changed("divider", () => move(at("where"), 20, "input"));
  for (const slider of at("sliders").querySelectorAll("input"))
    await changed(slider.parentNode.firstChild.textContent.split(" ")[0], () => move(slider, 1, "input"));
  if (data.channels.length > 1) await changed("channel", () => move(at("channel"), 1, "change"));
  const box = at("stage").getBoundingClientRect();
  const point = (kind, x, y, buttons) => at("stage").dispatchEvent(new PointerEvent(
    kind, {buttons, clientX: box.left + x * box.width, clientY: box.top + y * box.height, pointerType: "mouse"}));
  await changed("drag", () => {
    point("pointerdown", .5, .5, 1); point("pointermove", .1, .5, 1); point("pointerup", .1, .5, 0);
  });
  await changed("row", () => move(at("number"), 3, "input"));
  await changed("click", () => { point("pointerdown", .5, .7, 1); point("pointerup", .5, .7, 0); });
  seen.push("clicked=" + (Number(at("number").value) === Math.floor(.7 * data.height)));
  await changed("column", () => move(at("along"), "column", "change"));
  seen.push("readout=" + /^x \\d+, y \\d+: noisy/.test((point("pointermove", .3, .3, 0), at("readout").textContent)));
  for (const control of document.querySelectorAll("button, select, input, [tabindex]")) {
    if (control.closest("[hidden]")) continue;
    const named = control.textContent.trim() || control.ariaLabel || control.labels?.[0]?.textContent.trim();
    control.focus();
    if (!named || document.activeElement !== control) seen.push("unreachable or unnamed: " + control.id + "=false");
  }
  for (const image of document.querySelectorAll("canvas, svg"))
    if (!image.closest("[hidden]") && !image.ariaLabel) seen.push("unnamed: " + image.id + "=false");
  await changed("flicker", () => { at("views").lastElementChild.click(); });
  const before = state();
  await wait(600);
  seen.push("flickers=" + (state() !== before));
  document.title += " PROBED " + seen.join(" ");
});
</script>
"""


def browsed(path, *more):
    """The page as Chromium has it after its scripts ran, and what it wrote to the console."""
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1280,900", "--dump-dom"]
    command += ["--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
    command += [
        "--disable-sync",
        "--enable-logging=stderr",
        f"--user-data-dir={path.parent / 'profile'}",
        "--virtual-time-budget=60000",
    ]
    done = subprocess.run(
        [*command, path.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"HOME": str(path.parent)},
    )
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
@pytest.mark.parametrize(("axes", "shape"), [("TCYX", (3, 2, 32, 32)), ("TCZYX", (2, 2, 16, 32, 32))])
def test_every_control_does_something_in_a_real_browser(tmp_path, axes, shape):
    frames = np.random.default_rng(0).normal(size=shape)
    text = made(tmp_path, frames, axes, channels=2, dimensions=3 if "Z" in axes else 2)
    page = tmp_path / "probed.html"
    page.write_text(text.replace("<title>", PROBE.replace("at(", "document.getElementById(") + "<title>", 1))
    shown, said = browsed(page)
    title = re.search(r"<title>(.*?)</title>", shown, re.S)[1]
    assert "FAILED" not in title
    assert "PROBED" in title, said
    assert "=false" not in title, title
    for name in ("time", "channel", *(["plane"] if "Z" in axes else [])):
        assert f" {name}=true" in title
    assert not said


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_the_browser_would_tell_of_an_error(tmp_path):
    page = tmp_path / "wrong.html"
    page.write_text("<!doctype html><script>missing.name = 1;</script>")
    assert browsed(page)[1]
