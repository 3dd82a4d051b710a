"""Pictures of what was done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image as Picture
from PIL import ImageDraw, ImageFont

CAPTION_HEIGHT, GAP, FONT_SIZE = 26, 6, 15
INK, PAPER = (230, 230, 230), (24, 24, 24)


def side_by_side(
    path: str | Path, panels: Sequence[tuple[str, np.ndarray]], limits: Sequence[tuple[float, float]], zoom: int
) -> None:
    """Write a PNG of captioned grey panels in a row.

    panels: (caption, (y, x) array). limits: the grey values shown black and white, for each panel.
    zoom: pixels of the picture per pixel of the image.
    """
    height = max(image.shape[0] for _, image in panels) * zoom + CAPTION_HEIGHT
    width = sum(image.shape[1] * zoom for _, image in panels) + GAP * (len(panels) - 1)
    sheet = Picture.new("RGB", (width, height), PAPER)
    write = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(FONT_SIZE)
    left = 0
    for (caption, image), (low, high) in zip(panels, limits, strict=True):
        grey = np.clip((image.astype(np.float64) - low) / max(high - low, 1e-12), 0, 1)
        panel = Picture.fromarray(np.round(grey * 255).astype(np.uint8))
        panel = panel.resize((image.shape[1] * zoom, image.shape[0] * zoom), Picture.Resampling.NEAREST)
        sheet.paste(panel.convert("RGB"), (left, CAPTION_HEIGHT))
        write.text((left + 2, 4), caption, fill=INK, font=font)
        left += panel.width + GAP
    sheet.save(path)
