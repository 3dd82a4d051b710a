"""Figures: grids of images as PNG, small line charts and bars as SVG."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image as Picture

from cosdd import report, writing

IMAGES = Path(__file__).parents[2] / "docs" / "images" / "paper"
Range = tuple[float, float]
COLOURS = ("#1b1b1b", "#c4501b", "#1f6fb2", "#3c8d40")
WIDTH, HEIGHT = 250, 180  # of a panel
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 26, 36  # around what is drawn in it


def grid(
    path: Path, rows: Sequence[Sequence[tuple[str, np.ndarray]]], limits: Sequence[Sequence[Range]], zoom: int
) -> None:
    """Rows of captioned grey panels, as `report.side_by_side` draws one; rows of one width."""
    with TemporaryDirectory() as folder:
        strips = []
        for number, (panels, greys) in enumerate(zip(rows, limits, strict=True)):
            report.side_by_side(Path(folder) / f"{number}.png", panels, greys, zoom)
            with Picture.open(Path(folder) / f"{number}.png") as strip:
                strips.append(strip.convert("RGB"))
    sheet = Picture.new("RGB", (max(s.width for s in strips), sum(s.height for s in strips)), report.PAPER)
    top = 0
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height
    with writing.whole(path) as part:
        sheet.save(part, "PNG")


@dataclass(frozen=True)
class Curve:
    """Points of a chart, joined or as dots; its label stands in the legend of the first panel that has it."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    dots: bool = False


@dataclass(frozen=True)
class Panel:
    title: str
    curves: Sequence[Curve]
    x_label: str
    log_x: bool = False


def chart(path: Path, panels: Sequence[Panel], columns: int) -> None:
    """An SVG of panels; curves of one label have one colour everywhere."""
    labels = list(dict.fromkeys(curve.label for panel in panels for curve in panel.curves))
    colours, rows = _colours(labels), math.ceil(len(panels) / columns)
    parts = [*_opening(columns * WIDTH, rows * HEIGHT + 26), *_legend(labels)]
    for number, panel in enumerate(panels):
        x, y = number % columns * WIDTH, number // columns * HEIGHT + 22
        parts += [f'<g transform="translate({x},{y})">', *_panel(panel, colours), "</g>"]
    with writing.whole(path) as part:
        part.write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")


def _panel(panel: Panel, colours: dict[str, str]) -> list[str]:
    scale = math.log10 if panel.log_x else float
    across = [scale(value) for curve in panel.curves for value in curve.x]
    up = [value for curve in panel.curves for value in curve.y]
    (x0, x1), (y0, y1) = (min(across), max(across)), _room(min(up), max(up))

    def place(x: float, y: float) -> tuple[float, float]:
        inner_width, inner_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
        right = (scale(x) - x0) / ((x1 - x0) or 1)
        return LEFT + right * inner_width, TOP + (1 - (y - y0) / (y1 - y0)) * inner_height

    bottom = HEIGHT - BOTTOM
    parts = [_text(LEFT, 16, panel.title, "start", bold=True), _text(WIDTH - RIGHT, HEIGHT - 6, panel.x_label, "end")]
    for value in ticks(y0, y1):
        _, y = place(panel.curves[0].x[0], value)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#dddddd"/>')
        parts.append(_text(LEFT - 5, y + 4, f"{value:g}", "end"))
    shown = sorted({v for c in panel.curves for v in c.x}) if panel.log_x else ticks(x0, x1)
    for value in shown:
        if panel.log_x and math.log10(value) % 1:
            continue
        x, _ = place(value, y0)
        parts.append(_text(x, bottom + 14, f"{value:g}", "middle"))
    for curve in panel.curves:
        points = [place(x, y) for x, y in zip(curve.x, curve.y, strict=True)]
        colour = colours[curve.label]
        if curve.dots:
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
        else:
            line = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
            parts.append(f'<path d="M{line}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
    return parts


BAR, SPACE = 16, 220  # height of a bar, and width of the longest


def bars(path: Path, panels: Sequence[tuple[str, dict[str, tuple[float, str]]]], columns: int) -> None:
    """An SVG of panels: a title, and values by label as bars from zero, each with its words."""
    labels = list(dict.fromkeys(label for _, values in panels for label in values))
    width, high = 2 * WIDTH - 40, 26 + (BAR + 3) * len(labels) + 10
    rows = math.ceil(len(panels) / columns)
    size = columns * width, rows * high + 26
    parts = [*_opening(*size), *_legend(labels)]
    for number, (title, values) in enumerate(panels):
        left, top = 16 + number // rows * width, 22 + number % rows * high
        parts.append(_text(left, top + 18, title, "start", bold=True))
        most = max(value for value, _ in values.values())
        for place, (label, (value, words)) in enumerate(values.items()):
            long, y = max(SPACE * value / most, 1), top + 26 + (BAR + 3) * place
            colour = _colours(labels)[label]
            parts.append(f'<rect x="{left}" y="{y}" width="{long:.1f}" height="{BAR}" fill="{colour}"/>')
            parts.append(_text(left + long + 6, y + 12, words, "start"))
    with writing.whole(path) as part:
        part.write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")


LINE, MARGIN, LONG = 24, 190, 640  # height of a row of dots, its title, and the length of its axis


def dots(path: Path, rows: Sequence[tuple[str, dict[str, Sequence[float]]]], limits: Range, x_label: str) -> None:
    """An SVG of rows: a title, and values by label as dots on one axis; hollow at its end what lies below it."""
    labels = list(dict.fromkeys(label for _, values in rows for label in values))
    low, high = limits
    bottom = 30 + LINE * len(rows)
    parts = [*_opening(MARGIN + LONG + 20, bottom + 40), *_legend(labels)]

    def place(value: float) -> float:
        return MARGIN + (value - low) / (high - low) * LONG

    for value in ticks(low, high):
        parts.append(f'<path d="M{place(value):.1f} 26V{bottom}" stroke="#dddddd"/>')
        parts.append(_text(place(value), bottom + 14, f"{value:g}", "middle"))
    parts.append(_text(MARGIN + LONG, bottom + 32, x_label, "end"))
    for number, (title, values) in enumerate(rows):
        y = 30 + LINE * (number + 0.5)
        parts.append(_text(MARGIN - 12, y + 4, title, "end"))
        for label, found in values.items():
            colour = _colours(labels)[label]
            for value in found:
                look = f'fill="{colour}"' if value >= low else f'fill="#ffffff" stroke="{colour}"'
                parts.append(f'<circle cx="{place(max(value, low)):.1f}" cy="{y:.1f}" r="4" {look} opacity="0.85"/>')
    with writing.whole(path) as part:
        part.write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")


def _opening(width: int, height: int) -> list[str]:
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]


def _colours(labels: Sequence[str]) -> dict[str, str]:
    return {label: COLOURS[number % len(COLOURS)] for number, label in enumerate(labels)}


def _legend(labels: Sequence[str]) -> list[str]:
    parts, left = list[str](), LEFT
    for label, colour in _colours(labels).items():
        parts.append(f'<rect x="{left}" y="9" width="14" height="3" fill="{colour}"/>')
        parts.append(_text(left + 18, 14, label, "start"))
        left += 30 + 6.2 * len(label)
    return parts


def ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers from low to high."""
    step = 10.0 ** math.floor(math.log10((high - low) or 1.0))
    step = next(step * share for share in (5, 2, 1, 0.5, 0.2) if (high - low) / (step * share) >= 2.5)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 10) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _room(low: float, high: float) -> Range:
    """A little more than from low to high."""
    more = 0.06 * (high - low) or 0.5
    return low - more, high + more


def _text(x: float, y: float, words: str, anchor: str, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#333333"{weight}>{html.escape(words)}</text>'
