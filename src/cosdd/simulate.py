"""Simulated images: a synthetic specimen, and recipes for noise that runs along rows or columns.

Intensities are in units of the clean image's full scale, so `clean` is meant to lie in [0, 1]. Every recipe
adds noise of mean zero: the clean image is the mean of its noisy versions. What each recipe's noise measures,
as formulas, stands in its docstring; `stripe_variance`, `checkerboard_variance`, `row_ar_variance` and
`blur_autocorrelation` compute it.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Num
from scipy import ndimage
from scipy.signal import lfilter
from scipy.spatial import KDTree

from cosdd.config import InputError

# --------------------------------------------------------------------------------------------- specimen


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


# ------------------------------------------------------------------------------------------------ noise


def stripe(
    clean: Num[np.ndarray, "*stack y x"],
    rng: np.random.Generator,
    *,
    gain: float = 0.002,
    read_std: float = 0.02,
    white_std: float = 0.025,
    blur: float = 1.0,
    axis: str = "x",
) -> Float[np.ndarray, "*stack y x"]:
    """Poisson noise, white Gaussian noise, and Gaussian noise blurred along the noise axis.

    The defaults are FFHQ-Stripe of Salmon and Krull 2025, supplement 5:

        x = gain * Poisson(s / gain) + N(0, read_std^2) + blur_axis(N(0, white_std^2), sigma = blur)

    Truth: the noise has mean 0; its variance is `stripe_variance`; the blurred part alone has autocorrelation
    exp(-d^2 / (4 blur^2)) at lag d along the axis (`blur_autocorrelation`) and none across it.

    Args:
        clean: (..., y, x), 0 or more; full scale 1.
        rng: source of the noise; every line and image of the stack gets its own.
        gain: intensity of one photon; 0 for no Poisson noise.
        read_std: standard deviation of the white Gaussian noise.
        white_std: standard deviation of the second Gaussian noise *before* it is blurred.
        blur: standard deviation of that blur, pixels; 0 for none.
        axis: "x", the noise runs along rows, or "y", along columns.

    Returns:
        float32, same shape.

    Raises:
        InputError: fewer than two axes, negative or non-finite intensities, an option out of range.
    """
    lines = _lines(clean, axis)
    noisy = lines + _shot(lines, gain, rng)
    if _at_least_zero("read_std", read_std):
        noisy += np.float32(read_std) * rng.standard_normal(lines.shape, np.float32)
    if _at_least_zero("white_std", white_std):
        # The source leaves open how the blur treats borders: blur wider and crop, so that no pixel differs.
        margin = len(_blur_kernel(blur)) // 2
        wide = rng.standard_normal((*lines.shape[:-1], lines.shape[-1] + 2 * margin), np.float32)
        wide = ndimage.correlate1d(wide, _blur_kernel(blur), axis=-1)
        noisy += np.float32(white_std) * wide[..., margin : margin + lines.shape[-1]]
    return _upright(noisy, axis)


def heavy(
    clean: Num[np.ndarray, "*stack y x"],
    rng: np.random.Generator,
    *,
    gain: float = 1 / 20,
    read_std: float = 0.0,
    white_std: float = 0.2,
    blur: float = 1.0,
    axis: str = "x",
) -> Float[np.ndarray, "*stack y x"]:
    """`stripe` in poor light: 20 photons at full scale and strong streaks; about 15 dB (range 1).

    The noise of `cosdd demo`; our own choice, not from the paper. Options, truth and errors as in `stripe`.
    """
    return stripe(clean, rng, gain=gain, read_std=read_std, white_std=white_std, blur=blur, axis=axis)


def checkerboard(
    clean: Num[np.ndarray, "*stack y x"],
    rng: np.random.Generator,
    *,
    strength: float = 0.15,
    reading: str = "variance",
    levels: float = 255.0,
    floor: float = 1.0,
    amplitude: float = 0.1,
    phase: str = "line",
    axis: str = "y",
) -> Float[np.ndarray, "*stack y x"]:
    """White noise that fades where the image is bright, and a - - + + pattern along the noise axis.

    FFHQ-Checkerboard of Salmon and Krull 2025, supplement 5. The text there ("N(0, 0.15 * 1/s)", then -0.1 on
    two pixels, +0.1 on the next two, the start drawn uniformly) leaves the scale of s, variance or standard
    deviation, and the phase open; the defaults are the reading whose noise level comes closest:

        x[i] = s[i] + sqrt(strength / g[i]) * N(0, 1) + amplitude * P[(i + r) mod 4]
        g = max(levels * s, floor);  P = (-1, -1, +1, +1);  r uniform on {0, 1, 2, 3}

    Truth: over the random start the noise has mean 0 and the variance `checkerboard_variance`; the pattern
    alone has autocorrelation 1, 0, -1, 0, 1, ... along the axis and, with phase "line", none across it.

    Args:
        clean: (..., y, x); full scale 1.
        rng: source of the noise.
        strength: the 0.15 above.
        reading: "variance" as above, or "std": standard deviation strength / g.
        levels: grey levels at full scale, the unit of `g`.
        floor: smallest `g`, in grey levels: keeps the noise finite in the dark. More than 0.
        amplitude: height of the pattern.
        phase: "line", every line of every image has its own start, or "image", one start per image.
        axis: "x" or "y", the direction along which the pattern runs; the paper's is "y" (columns).

    Returns:
        float32, same shape.

    Raises:
        InputError: fewer than two axes, non-finite intensities, an option out of range.
    """
    lines = _lines(clean, axis)
    white = np.sqrt(_checkerboard_white(lines, strength, reading, levels, floor)).astype(np.float32)
    noisy = lines + white * rng.standard_normal(lines.shape, np.float32)
    if phase not in ("line", "image"):
        raise InputError(f'phase is {phase!r}, expected "line" or "image"')
    starts = lines.shape[:-1] if phase == "line" else (*lines.shape[:-2], 1)
    start = rng.integers(0, 4, starts)[..., None]
    pattern = np.array([-1, -1, 1, 1], np.float32)
    noisy += np.float32(amplitude) * pattern[(np.arange(lines.shape[-1]) + start) % 4]
    return _upright(noisy, axis)


def row_ar(
    clean: Num[np.ndarray, "*stack y x"],
    rng: np.random.Generator,
    *,
    gain: float = 0.01,
    shot_correlation: float = 0.0,
    row_std: float = 0.05,
    correlation: float = 0.6,
    offset_std: float = 0.0,
    axis: str = "x",
) -> Float[np.ndarray, "*stack y x"]:
    """Autoregressive noise along the noise axis, Poisson noise, and one random offset per line.

    Covers the cameras and scanners that we measured: a detector with slow electronics (`shot_correlation`
    0.2), an electron-multiplying camera (`shot_correlation` -0.1), long streaks of scanning electron
    microscopes (`correlation` 0.85 with Poisson noise), line offsets of a CCD (`offset_std`). Our own; not
    from the paper.

        x = s + shot + row_std * a + offset_std * N(0, 1) per line
        a[i] = correlation * a[i-1] + sqrt(1 - correlation^2) * N(0, 1), started stationary

    `shot` is gain * Poisson(s / gain) - s; with `shot_correlation` r, shot / sqrt(gain s) runs through the
    same recursion with r, which keeps its variance at every pixel.

    Truth: the noise has mean 0; its variance is `row_ar_variance`; along the axis at lag d the three parts
    have autocorrelation shot_correlation^d (where s is constant), correlation^d, and 1; none across it.

    Args:
        clean: (..., y, x), 0 or more; full scale 1.
        rng: source of the noise.
        gain: intensity of one photon; 0 for no Poisson noise.
        shot_correlation: between -1 and 1 (excluded): lag-1 correlation of the Poisson noise.
        row_std: standard deviation of the autoregressive part.
        correlation: between -1 and 1 (excluded): its lag-1 correlation.
        offset_std: standard deviation of the offsets, one per line.
        axis: "x" or "y".

    Returns:
        float32, same shape.

    Raises:
        InputError: fewer than two axes, negative or non-finite intensities, an option out of range.
    """
    lines = _lines(clean, axis)
    shot = _shot(lines, gain, rng)
    if shot_correlation:
        scale = np.sqrt(np.float32(gain) * lines)
        unit = np.divide(shot, scale, out=np.zeros_like(shot), where=scale > 0)
        # A dark pixel has no shot noise of its own to pass on: stand in a normal deviate to stay stationary.
        unit = np.where(scale > 0, unit, rng.standard_normal(lines.shape, np.float32))
        shot = scale * _autoregressive("shot_correlation", unit, shot_correlation)
    noisy = lines + shot
    if _at_least_zero("row_std", row_std):
        white = rng.standard_normal(lines.shape, np.float32)
        noisy += np.float32(row_std) * _autoregressive("correlation", white, correlation)
    if _at_least_zero("offset_std", offset_std):
        noisy += np.float32(offset_std) * rng.standard_normal((*lines.shape[:-1], 1), np.float32)
    return _upright(noisy, axis)


# ------------------------------------------------------------------------------------------------ truth


def stripe_variance(
    signal: Num[np.ndarray, "*shape"] | float,
    *,
    gain: float = 0.002,
    read_std: float = 0.02,
    white_std: float = 0.025,
    blur: float = 1.0,
) -> Float[np.ndarray, "*shape"]:
    """Variance of `stripe` at clean intensity `signal`: gain s + read_std^2 + white_std^2 sum(kernel^2).

    The sum is 1 / (2 blur sqrt(pi)) to within 1e-4 for a blur of 1 pixel or more. Defaults as in `stripe`.
    """
    blurred = white_std**2 * float(np.sum(_blur_kernel(blur) ** 2))
    return gain * np.asarray(signal, np.float64) + read_std**2 + blurred


def checkerboard_variance(
    signal: Num[np.ndarray, "*shape"] | float,
    *,
    strength: float = 0.15,
    reading: str = "variance",
    levels: float = 255.0,
    floor: float = 1.0,
    amplitude: float = 0.1,
) -> Float[np.ndarray, "*shape"]:
    """Variance of `checkerboard` at clean intensity `signal`, over the random start.

    strength / g + amplitude^2, or (strength / g)^2 + amplitude^2 with reading "std".
    """
    return _checkerboard_white(np.asarray(signal, np.float64), strength, reading, levels, floor) + amplitude**2


def row_ar_variance(
    signal: Num[np.ndarray, "*shape"] | float,
    *,
    gain: float = 0.01,
    row_std: float = 0.05,
    offset_std: float = 0.0,
) -> Float[np.ndarray, "*shape"]:
    """Variance of `row_ar` at clean intensity `signal`: gain s + row_std^2 + offset_std^2."""
    return gain * np.asarray(signal, np.float64) + row_std**2 + offset_std**2


def blur_autocorrelation(max_lag: int, blur: float = 1.0) -> Float[np.ndarray, " lags"]:
    """Autocorrelation of white noise after the blur of `stripe`, at lags 0 .. max_lag along the axis.

    Exact for the sampled kernel; equals exp(-d^2 / (4 blur^2)) to within 1e-3
    for a blur of 1 pixel or more.
    """
    kernel = np.pad(_blur_kernel(blur), (0, max_lag))
    lags = [float(np.dot(kernel[: len(kernel) - lag], kernel[lag:])) for lag in range(max_lag + 1)]
    return np.array(lags) / lags[0]


# ------------------------------------------------------------------------------------------------ parts


def _lines(clean: np.ndarray, axis: str) -> np.ndarray:
    """The image as float32 with the noise axis last."""
    if axis not in ("x", "y"):
        raise InputError(f'noise axis is {axis!r}, expected "x" or "y"')
    lines = np.asarray(clean, np.float32)
    if lines.ndim < 2:
        raise InputError(f"clean image has shape {lines.shape}, expected (..., y, x)")
    if not np.isfinite(lines).all():
        raise InputError("clean image holds NaN or infinity, expected finite intensities")
    return lines if axis == "x" else np.ascontiguousarray(np.swapaxes(lines, -1, -2))


def _upright(lines: np.ndarray, axis: str) -> np.ndarray:
    """Undo `_lines`."""
    return lines if axis == "x" else np.ascontiguousarray(np.swapaxes(lines, -1, -2))


def _at_least_zero(name: str, value: float) -> float:
    if not (np.isfinite(value) and value >= 0):
        raise InputError(f"{name} is {value}, expected 0 or more")
    return value


def _shot(lines: np.ndarray, gain: float, rng: np.random.Generator) -> np.ndarray:
    """Poisson noise without its mean, float32."""
    if not _at_least_zero("gain", gain):
        return np.zeros_like(lines)
    if lines.size and lines.min() < 0:
        raise InputError(f"clean image goes down to {lines.min():g}; Poisson noise needs 0 or more (or gain 0)")
    # float64 for the difference: with a small gain both terms are large.
    return (gain * rng.poisson(lines / np.float64(gain)) - lines).astype(np.float32)


def _checkerboard_white(signal: np.ndarray, strength: float, reading: str, levels: float, floor: float) -> np.ndarray:
    """Variance of the white part of `checkerboard`."""
    _at_least_zero("strength", strength)
    if reading not in ("variance", "std"):
        raise InputError(f'reading is {reading!r}, expected "variance" or "std"')
    if not floor > 0:
        raise InputError(f"floor is {floor} grey levels, expected more than 0")
    inverse = strength / np.maximum(levels * signal, floor)
    return inverse if reading == "variance" else inverse**2


def _autoregressive(name: str, white: np.ndarray, correlation: float) -> np.ndarray:
    """First-order recursion along the last axis: unit variance in, unit variance out."""
    if not -1 < correlation < 1:
        raise InputError(f"{name} is {correlation}, expected between -1 and 1 (excluded)")
    drive = white * np.float32(np.sqrt(1 - correlation**2))
    drive[..., 0] = white[..., 0]  # the first pixel already has the stationary variance
    return np.asarray(lfilter([1.0], [1.0, -correlation], drive, axis=-1), np.float32)


def _blur_kernel(blur: float) -> np.ndarray:
    """Gaussian kernel of unit sum, cut at 5 standard deviations, odd length."""
    if not _at_least_zero("blur", blur):
        return np.ones(1)
    reach = int(np.ceil(5 * blur))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / blur) ** 2)
    return kernel / kernel.sum()
