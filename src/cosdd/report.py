"""Pictures of what was done: a strip of panels, and one self-contained HTML page to look at and to trust or not."""

from __future__ import annotations

import base64
import html
import io
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image as Picture
from PIL import ImageDraw, ImageFont

from cosdd import checks, data, outliers, writing
from cosdd.axes import Image
from cosdd.checkpoint import COPYING
from cosdd.checks import Checks, Light
from cosdd.denoise import Denoiser, Result, Settings
from cosdd.errors import InputError
from cosdd.model import COSDD

CAPTION_HEIGHT, GAP, FONT_SIZE = 26, 6, 15
INK, PAPER = (230, 230, 230), (24, 24, 24)


def side_by_side(
    path: str | Path, panels: Sequence[tuple[str, np.ndarray]], limits: Sequence[tuple[float, float]], zoom: int
) -> None:
    """Write a PNG of captioned grey panels in a row.

    panels: (caption, (y, x) array); without any caption there is no room for them. limits: the grey values shown
    black and white, for each panel.
    zoom: pixels of the picture per pixel of the image.
    """
    above = CAPTION_HEIGHT if any(caption for caption, _ in panels) else 0
    height = max(image.shape[0] for _, image in panels) * zoom + above
    width = sum(image.shape[1] * zoom for _, image in panels) + GAP * (len(panels) - 1)
    sheet = Picture.new("RGB", (width, height), PAPER)
    write = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(FONT_SIZE)
    left = 0
    for (caption, image), (low, high) in zip(panels, limits, strict=True):
        grey = np.clip((image.astype(np.float64) - low) / max(high - low, 1e-12), 0, 1)
        panel = Picture.fromarray(np.round(grey * 255).astype(np.uint8))
        panel = panel.resize((image.shape[1] * zoom, image.shape[0] * zoom), Picture.Resampling.NEAREST)
        sheet.paste(panel.convert("RGB"), (left, above))
        write.text((left + 2, 4), caption, fill=INK, font=font)
        left += panel.width + GAP
    with writing.whole(Path(path)) as part:
        sheet.save(part, "PNG")


# --------------------------------------------------------------------------------------------- HTML page

# Of larger stacks a part is looked at, spread evenly: the page stays below 10 MB and is there in seconds.
MOST_PLANES = 24  # of all channels together
MOST_PIXELS = 8 * 512 * 512  # of them
# Of a larger image its middle is looked at: planes, rows and columns. Around it so many more are denoised along, as the
# networks look around each pixel; the farther, the less it matters.
LARGEST = {2: (1024, 1024), 3: (16, 256, 256)}
MARGIN = {2: (64, 64), 3: (8, 64, 64)}
MOST_VOLUMES = 2  # each of many planes
FLICKERING = 4  # single samples shown
SAMPLES = 20
SMOOTH = 80  # quality of pictures without noise: WebP. Noise is told to the last of 256 greys: PNG, as quick as any
WORDS: dict[Light, str] = {"green": "good", "yellow": "look", "red": "wrong", "grey": "open"}
SHOWN_LIGHTS: tuple[Light, ...] = ("green", "grey", "yellow", "red")
VERDICTS: dict[Light, str] = {
    "green": "Nothing speaks against this result.",
    "yellow": "Mostly good; look closely where the light is yellow.",
    "red": "Do not use this result before the red point is settled.",
}
SLIDERS = {"T": "time point", "Z": "plane", "P": "position"}
VIEWS = {
    "compare": "Left of the divider the noisy image, right of it the denoised one; drag the divider.",
    "noisy": "The noisy image.",
    "denoised": "The denoised image.",
    "difference": "What was taken away: noisy minus denoised. It should look like noise and show no structure.",
    "std": "Standard deviation: how uncertain the denoised image is, brighter is less certain.",
    "flicker": "Single samples, each a clean image that explains the noisy one equally well: what flickers is unsure.",
}


def page(
    denoiser: Denoiser, image: Image, path: Path, facts: Mapping[str, str], overwrite: bool
) -> Iterator[float | Checks]:
    """Denoise a file and write the report on it; yields the share done often, and what was found at last.

    facts: what to say about how it was made, beside what the model file knows. Raises InputError for images that
    the model cannot denoise or that have no rows and columns, and where ``path`` exists or cannot be written.
    """
    if path.exists() and not overwrite:
        raise InputError(f"{path}: exists already: choose another name with -o, or add --overwrite")
    if denoiser.spatial == "X":
        raise InputError(f"{image.path or 'the array'}: a report shows images with rows and columns, not single lines")
    everything = denoiser.frames(image)
    shown = _chosen(image, denoiser.spatial, everything.shape)
    frames = np.concatenate([np.asarray(everything[slice(n, n + 1), :, *shown.denoised]) for n in shown.frames])
    if looked_at := _part(shown, everything.shape):
        facts = {"looked at": looked_at} | dict(facts)
    draws = isinstance(denoiser.checkpoint.network, COSDD)
    asked = Settings(samples=SAMPLES, save_samples=FLICKERING) if draws else Settings()
    results: list[Result] = []
    for part in denoiser.stream(frames, asked):
        if isinstance(part, Result):
            results.append(part)
        else:
            yield 0.9 * part
    middle = (..., *shown.window)
    frames = frames[middle]
    mean = np.stack([result.mean[middle] for result in results])
    std = np.stack([result.std[middle] for result in results if result.std is not None])
    samples = np.stack([r.samples[middle] for r in results if r.samples is not None], 1) if draws else None
    model = denoiser.checkpoint.settings.model
    trained = denoiser.checkpoint
    found = checks.examine(
        frames, mean, std, model.noise_axis, trained.statistics, checks.inspected(image), trained.steps
    )
    text = _filled(denoiser, image, shown, frames, mean, std, samples, found, facts)
    yield 0.99
    with writing.whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    yield found


def in_words(found: Checks) -> list[str]:
    """What a report says first, for a terminal: the verdict, and every light that is not green."""
    lights = [check.light for check in found.answers]
    counted = ", ".join(f"{lights.count(light)} {light}" for light in SHOWN_LIGHTS if light in lights)
    lines = [f"{VERDICTS[checks.worst(found.answers)]} ({counted})"]
    return lines + [f"  {c.light}: {c.question} {c.answer}" for c in found.answers if c.light != "green"]


def _filled(
    denoiser: Denoiser,
    image: Image,
    shown: Shown,
    frames: np.ndarray,
    mean: np.ndarray,
    std: np.ndarray,
    samples: np.ndarray | None,
    found: Checks,
    facts: Mapping[str, str],
) -> str:
    trained = denoiser.checkpoint
    worst = checks.worst(found.answers)
    rows = [
        f'<li><span class="light {c.light}">{WORDS[c.light]}</span>'
        f"<span><strong>{html.escape(c.question)}</strong> {html.escape(answer)}.</span></li>"
        for c, answer in ((c, c.answer[0].upper() + c.answer[1:]) for c in found.answers)
    ]
    made = {
        "image": image.describe(),
        "method": f"{trained.settings.method}, noise axis {trained.settings.model.noise_axis}",
        "training": f"{trained.steps} steps, {trained.seconds:.0f} s, cosdd {trained.version}",
    } | dict(facts)
    gain = ""
    if found.gain is not None:
        gain = (
            f" Estimated gain over the noisy image: {found.gain:+.1f} dB of PSNR, from the measured noise and the "
            "uncertainty that the model states."
        )
    if trained.settings.method != "cosdd":
        made["learned noise"] = "; ".join(noise.describe() for noise in denoiser.noise())
    settings = {
        f"{section}.{name}": value
        for section, values in trained.settings.model_dump().items()
        if isinstance(values, dict)
        for name, value in values.items()
    }
    holes = {
        "title": html.escape(image.path.name if image.path else "array"),
        "subtitle": "Denoised by cosdd, which learned from noisy images alone.",
        "verdict": VERDICTS[worst] + gain,
        "checks": "".join(rows),
        "charts": "".join(_charts(trained.history, found)),
        "facts": _table(made),
        "settings": _table(settings),
        "data": _data(image, shown, frames, mean, std, samples),
    }
    text = resources.files("cosdd").joinpath("report.html").read_text(encoding="utf-8")
    pieces = text.split("@")  # one pass: what is filled in is never searched for holes
    return "".join(holes.get(piece, f"@{piece}@") if i % 2 else piece for i, piece in enumerate(pieces))


def _table(rows: Mapping[str, Any]) -> str:
    return "".join(
        f'<tr><th scope="row">{html.escape(str(name))}</th><td>{html.escape(str(value))}</td></tr>'
        for name, value in rows.items()
    )


def _places(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Which places along each axis are shown: spread evenly, at most ``most`` combinations of them."""
    counts = list(lengths)
    while np.prod(counts, dtype=float) > most and max(counts) > 1:
        counts[int(np.argmax(counts))] -= 1
    return [
        np.linspace(0, length - 1, count).round().astype(int).tolist() if count > 1 else [length // 2]
        for length, count in zip(lengths, counts, strict=True)
    ]


@dataclass(frozen=True)
class Shown:
    """Which planes of a file are looked at. Axes before rows and columns each get a slider.

    frames: numbers of the images, as the model sees them. denoised: the part of each that is denoised. window: where
    in this part is what is shown. planes: for each combination of the sliders' places the place in `frames` and the
    plane of the window.
    """

    frames: list[int]
    denoised: tuple[slice, ...]
    window: tuple[slice, ...]
    planes: list[tuple[int, int]]
    sliders: list[dict[str, Any]]


def _chosen(image: Image, spatial: str, shape: Sequence[int]) -> Shown:
    """shape: (n, c, *space), of all images of the file."""
    channels, *space = shape[1:]
    edges = [min(size, most) for size, most in zip(space, LARGEST[len(space)], strict=True)]
    starts = [(size - edge) // 2 for size, edge in zip(space, edges, strict=True)]
    before = [min(start, margin) for start, margin in zip(starts, MARGIN[len(space)], strict=True)]
    denoised = [
        slice(start - nearer, min(start + edge + margin, size))
        for start, nearer, edge, margin, size in zip(starts, before, edges, MARGIN[len(space)], space, strict=True)
    ]
    window = [slice(nearer, nearer + edge) for nearer, edge in zip(before, edges, strict=True)]
    axes = [axis for axis in image.axes if axis not in "C" + spatial]
    lengths = [image.data.shape[image.axes.index(axis)] for axis in axes]
    most = max(1, min(MOST_PLANES, MOST_PIXELS // (edges[-2] * edges[-1])) // channels)
    volumes = len(space) == 3
    places = _places(lengths, min(most, MOST_VOLUMES) if volumes else most)
    frames = [int(np.ravel_multi_index(place, lengths)) if axes else 0 for place in itertools.product(*places)]
    sliders = [_slider(axis, shown, length) for axis, shown, length in zip(axes, places, lengths, strict=True)]
    depth = [0]
    if volumes:
        (depth,) = _places(edges[:1], max(1, most // len(frames)))
        sliders.append(_slider("Z", [starts[0] + z for z in depth], space[0]))
    planes = list(itertools.product(range(len(frames)), depth))
    return Shown(frames, tuple(denoised), tuple(window), planes, sliders)


def _slider(axis: str, places: Sequence[int], length: int) -> dict[str, Any]:
    return {"name": SLIDERS.get(axis, f"axis {axis}"), "places": [f"{place + 1} of {length}" for place in places]}


def _part(shown: Shown, shape: Sequence[int]) -> str:
    """In words, which part of a file of (n, c, *space) was looked at; nothing where it was all of it."""
    count, _, *space = shape
    edges = [along.stop - along.start for along in shown.window]
    words = [f"{len(shown.frames)} of {count} images, spread evenly"] * (len(shown.frames) < count)
    if edges != space:
        words.append(f"the middle {' x '.join(map(str, edges))} pixels of {' x '.join(map(str, space))}")
    return "; ".join(words)


def _data(
    image: Image, shown: Shown, frames: np.ndarray, mean: np.ndarray, std: np.ndarray, samples: np.ndarray | None
) -> str:
    """The pictures and names that the page's script needs, as JSON that cannot end the script element.

    Every picture comes with the grey values that its black and white stand for. The difference is left to the page.
    """
    channels = frames.shape[1]
    defects = outliers.measure(data.pieces([frames], 1 << 20))
    sound = np.stack([defects.without(frame) for frame in frames])  # hot pixels must not cost the others their greys

    def cut(stack: np.ndarray, n: int, c: int, z: int) -> np.ndarray:
        return np.asarray(stack[n, c, z] if stack.ndim == 5 else stack[n, c], np.float64)

    planes = []
    for n, z in shown.planes:
        row = []
        for c in range(channels):
            noisy, denoised, spread = (cut(stack, n, c, z) for stack in (frames, mean, std))
            limits, taken_away = greys(noisy, denoised)
            brightest = float(np.percentile(spread, 99.9)) or 1.0
            entry: dict[str, Any] = {
                "noisy": _picture(noisy, "PNG", cut(sound, n, c, z)),
                "denoised": _picture(denoised, "PNG", denoised),
                "std": _picture(spread, "WEBP", spread),
                "range": {"denoised": limits, "difference": taken_away, "std": [0, brightest]},
            }
            if samples is not None:
                entry["samples"] = [_picture(one, "WEBP", one) for one in (cut(sample, n, c, z) for sample in samples)]
            row.append(entry)
        planes.append(row)
    views = {name: text for name, text in VIEWS.items() if name != "flicker" or samples is not None}
    found = {
        "width": frames.shape[-1],
        "height": frames.shape[-2],
        "planes": planes,
        "sliders": shown.sliders,
        "channels": list(image.channel_names) or [f"channel {c}" for c in range(channels)],
        "views": views,
    }
    return json.dumps(found).replace("<", "\\u003c")


def greys(noisy: np.ndarray, denoised: np.ndarray) -> tuple[tuple[float, float], tuple[float, float]]:
    """The grey values shown black and white: of both images, by the denoised one, and of what was taken away."""
    low, high = np.percentile(denoised, (0.1, 99.9))
    margin = 0.1 * (high - low) + 1e-12
    reach = float(np.percentile(np.abs(noisy - denoised), 99.5)) or 1.0
    return (float(low - margin), float(high + margin)), (-reach, reach)


def _picture(plane: np.ndarray, kind: Literal["PNG", "WEBP"], within: np.ndarray) -> dict[str, str | float]:
    """A picture whose black and white are the darkest and the brightest of the grey values `within`."""
    low, high = float(within.min()), float(within.max())
    grey = np.round(np.clip((plane - low) / max(high - low, 1e-12), 0, 1) * 255).astype(np.uint8)
    file = io.BytesIO()
    Picture.fromarray(grey).save(file, kind, **({"compress_level": 1} if kind == "PNG" else {"quality": SMOOTH}))
    code = base64.b64encode(file.getvalue()).decode()
    return {"src": f"data:image/{kind.lower()};base64,{code}", "low": low, "high": high}


def _charts(history: Sequence[Mapping[str, float]], found: Checks) -> Iterator[str]:
    lags = np.arange(1, len(found.along))
    yield chart(
        "Correlation of what was taken away. Along the noise axis: that of the noise. Across it: none, or a little "
        "below (the best of averages leaves traces of each row in its neighbours); above is lost structure.",
        "lag (pixels)",
        {"along": (lags, found.along[1:]), "across": (lags, found.across[1:])},
        zero=True,
    )
    yield chart(
        "Mean of what was taken away, by the brightness of the neighbouring rows: it should be none. "
        "Dashed: a tenth of the noise.",
        "grey value",
        {"mean": (found.brightness, found.bias)},
        zero=True,
        dashed=[(found.brightness, sign * 0.1 * found.spread) for sign in (1, -1)],
    )
    if len(history) < 2:
        return
    seconds = np.array([entry["seconds"] for entry in history])
    curves = {
        name: (seconds, np.array([entry[name] for entry in history]))
        for name in history[0]
        if all(name in entry for entry in history)
    }
    if name := next((name for name in ("elbo", "nll") if name in curves), None):
        words = {"elbo": "higher is better", "nll": "lower is better"}[name]
        yield chart(f"Training: {name} on fixed crops, nats per pixel; {words}.", "seconds", {name: curves[name]})
    if levels := {name: curve for name, curve in curves.items() if name.startswith("kl_")}:
        shown = dict(itertools.islice(levels.items(), MOST_LEVELS))
        if rest := list(levels.values())[MOST_LEVELS:]:
            shown["others"] = seconds, np.sum([values for _, values in rest], 0)
        words = "what the latents of each level hold (KL, nats per pixel); level 0 is the finest"
        yield chart(f"Training: {words}.", "seconds", shown, zero=True)
    if "removed" in curves:
        words = "what one clean sample takes away, over the noise that was measured before. 1 (dashed) is right"
        ones = (seconds, np.ones(len(seconds)))
        yield chart(
            f"Training: {words}; below {COPYING:g} the latents copy the noise.", "seconds",
            {"removed": curves["removed"]}, zero=True, dashed=[ones],
        )  # fmt: skip


INKS = ("#c2570c", "#1f5fa8", "#2e7d32", "#7b3fa0", "#8a6d00", "#00798c")
MOST_LEVELS = len(INKS) - 1  # of which each gets a curve of its own
Curve = tuple[np.ndarray, np.ndarray]
_BEYOND = 1e30  # no chart has values so large


def chart(
    caption: str, x_title: str, curves: Mapping[str, Curve], zero: bool = False, dashed: Sequence[Curve] = ()
) -> str:
    """A line chart as SVG in a figure. curves: name -> (x, y). zero: show the line y = 0."""
    width, height, left, right, top, bottom = 460, 260, 64, 12, 26, 40
    everything = [*curves.values(), *dashed]
    xs, ys = (np.concatenate([np.asarray(c[i], np.float64) for c in everything]) for i in (0, 1))
    (x_low, x_high), (y_low, y_high) = _ends(xs), _ends(ys)
    if zero:
        y_low, y_high = min(y_low, 0.0), max(y_high, 0.0)
    pad = 0.06 * (y_high - y_low) or _one(y_high)
    y_low, y_high, x_high = y_low - pad, y_high + pad, x_high if x_high > x_low else x_low + _one(x_low)

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            left + (x - x_low) / (x_high - x_low) * (width - left - right),
            height - bottom - (y - y_low) / (y_high - y_low) * (height - top - bottom),
        )

    def path(curve: Curve, ink: str, more: str = "") -> str:
        points = [place(float(x), float(y)) for x, y in zip(*curve, strict=True) if _drawn(x) and _drawn(y)]
        d = "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        return f'<path d="{d}" fill="none" stroke="{ink}" stroke-width="1.8" stroke-linejoin="round" {more}/>'

    parts = []
    for value in _ticks(y_low, y_high):
        _, y = place(x_low, value)
        parts.append(f'<line x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e4e8ed"/>')
        parts.append(f'<text x="{left - 7}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>')
    for value in _ticks(x_low, x_high):
        x, _ = place(value, y_low)
        parts.append(f'<text x="{x:.1f}" y="{height - bottom + 17}" text-anchor="middle">{value:.4g}</text>')
    if zero:
        _, y = place(x_low, 0)
        parts.append(f'<line x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#1c2430"/>')
    parts += [path(curve, INKS[1], 'stroke-dasharray="4 4" opacity=".7"') for curve in dashed]
    apart = min(110, (width - left - right) // len(curves))
    for index, (name, curve) in enumerate(curves.items()):
        ink = INKS[index] if len(curves) > 1 else INKS[1]
        parts.append(path(curve, ink))
        at = left + apart * index
        parts.append(f'<text x="{at}" y="16" fill="{ink}" font-weight="600">{html.escape(name)}</text>')
    parts.append(f'<text x="{(left + width) / 2}" y="{height - 5}" text-anchor="middle">{html.escape(x_title)}</text>')
    label = html.escape(caption, quote=True)
    return (
        f'<figure><svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}" font-size="12" '
        f'font-family="system-ui, sans-serif" fill="#5a6675">{"".join(parts)}</svg>'
        f"<figcaption>{label}</figcaption></figure>"
    )


def _drawn(value: Any) -> Any:
    """May be drawn; a model file can hold any number."""
    return np.abs(value) < _BEYOND  # no for what is no number


def _ends(values: np.ndarray) -> tuple[float, float]:
    """Of an axis."""
    values = values[_drawn(values)]
    return (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)


def _one(value: float) -> float:
    """What an axis shows around a value that is the only one."""
    return max(1.0, 1e-3 * abs(value))


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers between low and high."""
    rough = (high - low) / 5
    unit = 10 ** np.floor(np.log10(rough))
    step = unit * min((1, 2, 5, 10), key=lambda factor: abs(np.log(factor * unit / rough)))
    first = int(np.ceil(low / step))
    return [round(k * step, 12) for k in range(first, int(np.floor(high / step)) + 1)]
