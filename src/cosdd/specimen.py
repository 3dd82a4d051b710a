"""A synthetic specimen: fluorescence micrographs that belong to no data set, for demonstrations and tests."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import ndimage
from scipy.signal import lfilter
from scipy.spatial import KDTree

from cosdd.errors import InputError


def specimen(count: int, size: int, seed: int) -> Float[np.ndarray, "count size size"]:
    """Synthetic fluorescence micrographs with sharp structures, for demonstrations and tests.

    Each picture mixes, in its own proportions, nuclei with texture and crisp borders, membranes between
    neighbouring cells, thin curved filaments (1.5 to 3 pixels wide), bright puncta and an uneven background
    with out-of-focus light. All edges are antialiased. The pictures are ours; they belong to no data set.

    Args:
        count: number of images, at least 1.
        size: height and width in pixels, at least 16; structures keep their size in pixels.
        seed: non-negative. Image `i` depends on (seed, size, i) only, not on `count`.

    Returns:
        (count, size, size) float32 in [0, 1].

    Raises:
        InputError: an argument is out of its range.
    """
    if count < 1:
        raise InputError(f"specimen: count is {count}, expected at least 1")
    if size < 16:
        raise InputError(f"specimen: size is {size} pixels, expected at least 16")
    if seed < 0:
        raise InputError(f"specimen: seed is {seed}, expected 0 or more")
    images = np.empty((count, size, size), np.float32)
    for index in range(count):
        images[index] = _micrograph(size, np.random.default_rng([seed, index]))
    return images


def _micrograph(size: int, rng: np.random.Generator) -> np.ndarray:
    """One image: the stains add up as light does, then background, blur of the optics and exposure."""
    centres = _scattered(size, spacing=rng.uniform(34, 52), rng=rng)
    # Which stains are visible, and how strongly. One of them always leads, so that no picture is empty.
    nuclei, filaments, membranes, puncta = rng.dirichlet([0.9, 1.0, 0.45, 0.35])
    lead = max(nuclei, filaments, membranes, puncta)

    scene = np.zeros((size, size), np.float32)
    for stain, weight in (
        (_nuclei, nuclei),
        (_filaments, filaments),
        (_membranes, membranes),
        (_puncta, puncta),
    ):
        if weight > 0.08:
            scene += (weight / lead) ** 0.6 * stain(size, centres, rng)

    haze = ndimage.gaussian_filter(scene, rng.uniform(5, 11))
    uneven = _texture(size, 0.2 * size, rng)
    background = rng.uniform(0.03, 0.12) * np.exp(0.35 * uneven)
    scene = ndimage.gaussian_filter(scene, 0.45) + rng.uniform(0.15, 0.45) * haze + background
    # A soft shoulder instead of clipping: the brightest structures keep their shape, as on a good detector.
    exposed = 1 - np.exp(-rng.uniform(0.9, 1.7) * scene)
    return np.clip(exposed, 0, 1).astype(np.float32)


def _scattered(size: int, spacing: float, rng: np.random.Generator) -> np.ndarray:
    """Positions (n, 2) on a jittered grid that reaches past the border: spread like cells in a dish."""
    ticks = np.arange(-spacing, size + spacing, spacing) + rng.uniform(0, spacing)
    grid = np.stack(np.meshgrid(ticks, ticks, indexing="ij"), -1)
    grid[1::2, :, 1] += spacing / 2  # every second row shifted: neighbours stand hexagonally
    return (grid + rng.normal(0, 0.17 * spacing, grid.shape)).reshape(-1, 2)


def _nuclei(size: int, centres: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Filled blobs with crisp borders, mottled chromatin, dark nucleoli and differing brightness."""
    field = np.zeros((size, size), np.float32)
    fine, coarse = (_texture(size, sigma, rng) for sigma in (1.1, 3.0))
    mottled = 1 + rng.uniform(0.08, 0.22) * fine + rng.uniform(0.08, 0.2) * coarse
    radius = rng.uniform(8, 14)
    for y, x in centres:
        if rng.random() < 0.15:
            continue
        r = radius * rng.lognormal(0, 0.16)
        reach = int(np.ceil(1.9 * r))
        rows, cols = _window(y, size, reach), _window(x, size, reach)
        if rows.start >= rows.stop or cols.start >= cols.stop:
            continue
        dy = np.arange(rows.start, rows.stop)[:, None] - y
        dx = np.arange(cols.start, cols.stop)[None, :] - x
        turn, stretch = rng.uniform(0, np.pi), rng.uniform(1.0, 1.28)
        u = (np.cos(turn) * dx + np.sin(turn) * dy) / stretch
        v = (np.cos(turn) * dy - np.sin(turn) * dx) * stretch
        angle, distance = np.arctan2(v, u), np.hypot(u, v)
        border = r * np.ones_like(angle)
        for harmonic, size_of_bump in ((2, 0.06), (3, 0.04), (5, 0.02)):
            border += r * rng.normal(0, size_of_bump) * np.cos(harmonic * angle + rng.uniform(0, 2 * np.pi))
        inside = np.clip(border - distance + 0.5, 0, 1)  # coverage of the border pixel: antialiased
        rim = 1 + rng.uniform(0.0, 0.35) * np.exp(-(((border - distance - 1.5) / 1.3) ** 2))
        body = mottled[rows, cols] * rim
        for _ in range(rng.integers(1, 5)):  # nucleoli: sharp dark spots
            ny, nx = rng.normal(0, 0.33 * r, 2)
            spot = rng.uniform(1.3, 0.27 * r + 0.5)
            body = body * (1 - rng.uniform(0.35, 0.7) * np.clip(spot - np.hypot(dy - ny, dx - nx) + 0.5, 0, 1))
        light = inside * body * rng.uniform(0.3, 1.0)
        # Where two nuclei meet the brighter one lies on top; adding would draw lenses that no tissue shows.
        field[rows, cols] = np.maximum(field[rows, cols], light)
    return field


def _filaments(size: int, centres: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Thin curved fibres: radiating from cells like microtubules, or running in bundles like actin."""
    bundled = rng.random() < 0.5
    number = max(4, round(rng.uniform(11, 34) * (size / 128 + 0.3) ** 2))
    steps, step = 420, 0.5
    if bundled:
        start = rng.uniform(-30, size + 30, (number, 2))
        heading = rng.uniform(0, np.pi) + rng.normal(0, rng.uniform(0.15, 0.5), number)
    else:
        start = centres[rng.integers(0, len(centres), number)] + rng.normal(0, 5, (number, 2))
        heading = rng.uniform(0, 2 * np.pi, number)
    # Curvature follows a slow random process, so fibres bend gently instead of jittering.
    curvature = np.asarray(lfilter([1], [1, -0.97], rng.normal(size=(number, steps)), axis=1))
    heading = heading[:, None] + np.cumsum(rng.uniform(0.001, 0.0035) * curvature, axis=1)
    y = start[:, :1] + step * np.cumsum(np.sin(heading), axis=1)
    x = start[:, 1:] + step * np.cumsum(np.cos(heading), axis=1)
    length = rng.uniform(0.4, 1.0, (number, 1)) * steps
    along = np.arange(steps)
    light = rng.uniform(0.15, 1.0, (number, 1)) * np.clip(np.minimum(along / 12, (length - along) / 24), 0, 1)
    light = light * (1 + 0.2 * np.sin(along / rng.uniform(9, 30) + rng.uniform(0, 7, (number, 1))))

    field = np.zeros((size, size), np.float32)
    width = rng.integers(0, 2, number)
    for chosen, sigma in ((width == 0, rng.uniform(0.5, 0.62)), (width == 1, rng.uniform(0.65, 1.0))):
        # Peak height of a line of unit density is 1 / (sigma * sqrt(2 pi)); undo it, and the point spacing.
        height = step * sigma * np.sqrt(2 * np.pi)
        field += height * ndimage.gaussian_filter(_splat(size, y[chosen], x[chosen], light[chosen]), sigma)
    return field


def _membranes(size: int, centres: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Bright borders between neighbouring cells (a wavy Voronoi tessellation) over faint cytoplasm."""
    yx = np.indices((size, size), np.float32)
    wave = np.stack([_texture(size, 6, rng), _texture(size, 6, rng)])
    points = (yx + 1.6 * wave).reshape(2, -1)
    # Distance to the border of two cells = half the difference of the distances to their two centres.
    distance, cell = KDTree(centres).query(points.T, k=2)
    gap = np.diff(distance, axis=1).reshape(size, size) / 2
    thickness = rng.uniform(0.9, 1.5)
    line = np.clip(thickness - gap + 0.5, 0, 1) * (1 + 0.25 * _texture(size, 2, rng))
    cytoplasm = rng.uniform(0.0, 0.35, len(centres))[np.asarray(cell)[:, 0]].reshape(size, size)
    return (0.85 * np.maximum(line, 0) + cytoplasm * np.clip(gap - thickness + 0.5, 0, 1)).astype(np.float32)


def _puncta(size: int, centres: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Small bright spots, some scattered and some gathered around cells."""
    number = max(3, round(rng.uniform(20, 110) * (size / 128) ** 2))
    gathered = centres[rng.integers(0, len(centres), number)] + rng.normal(0, 11, (number, 2))
    position = np.where(rng.random((number, 1)) < 0.6, gathered, rng.uniform(0, size, (number, 2)))
    light = np.minimum(rng.lognormal(-0.4, 0.5, number), 1.6)
    field = np.zeros((size, size), np.float32)
    width = rng.integers(0, 2, number)
    for chosen, sigma in ((width == 0, 0.75), (width == 1, rng.uniform(1.0, 1.5))):
        spots = _splat(size, position[chosen, 0], position[chosen, 1], light[chosen])
        field += 2 * np.pi * sigma**2 * ndimage.gaussian_filter(spots, sigma)
    return field


def _texture(size: int, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth random field of mean 0, standard deviation 1 and correlation length `sigma` pixels."""
    field = ndimage.gaussian_filter(rng.standard_normal((size, size), np.float32), sigma, mode="wrap")
    return (field - field.mean()) / field.std()


def _window(centre: float, size: int, reach: int) -> slice:
    return slice(max(0, int(centre) - reach), min(size, int(centre) + reach + 1))


def _splat(size: int, y: np.ndarray, x: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Points with sub-pixel positions shared out to their four neighbouring pixels (bilinear)."""
    y, x, light = y.ravel(), x.ravel(), light.ravel()
    top, left = np.floor(y).astype(np.int64), np.floor(x).astype(np.int64)
    down, right = y - top, x - left
    # A frame of one pixel takes what falls just outside; what falls further out is dropped.
    seen = (top >= -1) & (top < size) & (left >= -1) & (left < size)
    corner = ((top + 1) * (size + 2) + left + 1)[seen]
    down, right, light = down[seen], right[seen], light[seen]
    field = np.zeros((size + 2) ** 2)
    for offset, share in (
        (0, (1 - down) * (1 - right)),
        (1, (1 - down) * right),
        (size + 2, down * (1 - right)),
        (size + 3, down * right),
    ):
        field += np.bincount(corner + offset, light * share, field.size)
    return field.reshape(size + 2, size + 2)[1:-1, 1:-1].astype(np.float32)
