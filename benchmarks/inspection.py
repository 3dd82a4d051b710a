"""Does `inspect` find the noise? ``python -m benchmarks.inspection [DATA]``.

Three questions, each with the figure that it has to reach:

- real recordings: the axis and the sign of the correlation with the next pixel, as they were measured beforehand
  from frame differences or flat regions; and no axis for photon counts, whose noise is white;
- simulated single frames, photographs and nuclei in turn, under the four kinds of correlated noise that cameras and
  scanners were seen to have, at five shares of the variance of the noise; and as many frames of white noise alone.
  The scenes are small, 180 and 256 pixels wide; a frame holds four of them, which is still less than cameras give,
  or, as a harder question, one;
- photon transfer of pairs of flat frames.

The estimator was developed with other scenes and seeds than these: ``--develop`` takes those.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import DATA, Entry, circumstances, write
from cosdd import images, simulate
from cosdd.demo import SIZE, TRAIN_IMAGES
from cosdd.inspection import Inspection, inspect_image, inspect_samples
from cosdd.specimen import specimen

# Axis, and sign of the correlation with the next pixel along x: 0 is none worth the name.
RECORDINGS: dict[str, tuple[str, int]] = {
    "twophoton_neurons_20x128x256.tif": ("x", 1),
    "twophoton_calcium_1000x30x40.tif": ("x", 1),
    "stem_srtio3_1024x1024.tif": ("x", 1),
    "stem_dso_1024x1024.tif": ("x", 1),
    "emccd_aurora_2x512x512.tif": ("x", -1),
    "emccd_fielddiaphragm_1024x1024.tif": ("x", -1),
    "ccd_dark_50x480x640.tif": ("x", 0),  # row offsets; nothing at lag 1 by frame differences of the raw rows
    "ccd_flat_pairs_11x2x480x640.tif": ("none", 0),
    "camera_rownoise_5x512x512.tif": ("x", 1),
    "confocal_counts": ("none", 0),
}
PAIRS = "ccd_flat_pairs_11x2x480x640.tif"
TRANSFER = {"gain": 0.28, "offset": 5.0}
NOTHING = 0.03  # a correlation below this counts as none

# Options of `simulate.row_ar` that make the correlated part, of unit variance.
KINDS: dict[str, dict[str, float]] = {
    "short": {"row_std": 1.0, "correlation": 0.6},  # scanners
    "long": {"row_std": 1.0, "correlation": 0.9},  # scanning electron microscopes
    "negative": {"row_std": 1.0, "correlation": -0.5},  # electron-multiplying cameras
    "offsets": {"row_std": 0.0, "offset_std": 1.0},  # CCDs
}
SHARES = (0.05, 0.1, 0.2, 0.4, 0.8)  # of the variance of the noise that is correlated
LEVELS = (0.04, 0.18)  # standard deviation of the noise at half of full scale, from that of `stripe` to that of `heavy`
REPEATS = 8  # frames per kind, share and axis


def scenes(data: Path, develop: bool, seed: int, across: int) -> Iterator[np.ndarray]:
    """Frames of photographs and of nuclei in turn, `across` x `across` of them each, full scale 1, without end."""
    photographs = sorted((data / "clean" / "bsd400").iterdir())
    nuclei = np.load(data / "clean" / "nuclei256.npz")["images"]
    photographs = photographs[:360] if develop else photographs[360:]
    nuclei = nuclei[:-40] if develop else nuclei[-40:]
    pools = [
        [np.asarray(images.read(path).data, np.float32).squeeze() / 255 for path in photographs],
        [image.astype(np.float32) / np.percentile(image, 99.9) for image in nuclei],
    ]
    rng = np.random.default_rng((101 if develop else 0, seed))
    while True:
        for pool in pools:
            picks = rng.permutation(len(pool))[: across**2].reshape(across, across)
            yield np.block([[pool[k] for k in row] for row in picks])


def frame(scene: np.ndarray, kind: str, share: float, axis: str, rng: np.random.Generator) -> np.ndarray:
    """A noisy frame. Of the white part, a random share is photon noise."""
    level = float(np.exp(rng.uniform(*np.log(LEVELS))))
    photons = rng.uniform()
    noisy = simulate.stripe(
        scene,
        rng,
        gain=2 * photons * (1 - share) * level**2,  # half of full scale: gain / 2
        read_std=((1 - photons) * (1 - share)) ** 0.5 * level,
        white_std=0,
    )
    if share:
        noisy += share**0.5 * level * simulate.row_ar(0 * scene, rng, gain=0, axis=axis, **KINDS[kind])
    return noisy


def simulated(data: Path, develop: bool, seed: int, across: int) -> dict[str, Any]:
    rng = np.random.default_rng((202 if develop else 1, seed))
    pool = scenes(data, develop, seed, across)
    tried: dict[str, dict[str, int]] = {kind: {} for kind in KINDS}
    right = total = alarms = 0
    for kind in KINDS:
        for share in SHARES:
            found = [
                (axis, inspect_samples(frame(next(pool), kind, share, axis, rng)[None, None]).axis)
                for axis in "xy"
                for _ in range(REPEATS)
            ]
            hits = sum(axis == answer for axis, answer in found)
            tried[kind][f"{share:g}"] = hits
            right, total = right + hits, total + len(found)
    for _ in range(total):
        alarms += inspect_samples(frame(next(pool), "", 0.0, "x", rng)[None, None]).axis != "none"
    return {
        "scenes_per_frame": across**2,
        "frames": total,
        "right": right,
        "right_by_kind_and_share": tried,
        "of": 2 * REPEATS,
        "white_frames": total,
        "false_alarms": alarms,
    }


def recordings(data: Path) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for name, (axis, sign) in RECORDINGS.items():
        path = data / "noisy" / name
        paths = sorted(path.iterdir()) if path.is_dir() else [path]
        found = [inspect_image(images.read(p, "PTYX" if name == PAIRS else None)) for p in paths]
        lags = [f.autocorrelation["x"][0] for f in found]
        results[name] = {
            "axis": sorted({f.axis for f in found}),
            "expected": axis,
            "lag_one": round(lags[int(np.argmax(np.abs(lags)))], 3),
            "across": round(max((f.autocorrelation["y"][0] for f in found), key=abs), 3),
            "verdict": found[0].verdict,
            "files": len(found),
            "right": all(_is_right(f, axis, sign) for f in found),
        }
    return results


def _is_right(found: Inspection, axis: str, sign: int) -> bool:
    lag = found.autocorrelation["x"][0]
    offsets = "offsets only" in found.verdict  # correlate at every lag, as much as they matter
    return found.axis == axis and (offsets or abs(lag) < NOTHING if sign == 0 else sign * lag > NOTHING)


def photon_transfer(data: Path) -> dict[str, Any]:
    found = inspect_image(images.read(data / "noisy" / PAIRS, "PTYX")).evidence
    return {"gain": round(found.gain or 0, 4), "offset": round(found.offset or 0, 2), "expected": TRANSFER}


def example() -> list[str]:
    """What `cosdd inspect` says of images like those of the demonstration."""
    clean = specimen(TRAIN_IMAGES, SIZE, 0)
    return inspect_samples(simulate.heavy(clean, np.random.default_rng(0))[:, None]).lines()


def lines(entry: Entry) -> list[str]:
    """What it found, for docs/noise.md."""
    found = entry["results"]
    files, large, small = found["recordings"], found["simulated"], found["simulated_small"]
    right = sum(run["right"] for run in files.values())
    transfer, expected = found["photon_transfer"], found["photon_transfer"]["expected"]
    told = [
        f"`{entry['command']}`; {circumstances(entry)}.",
        "",
        f"**Real recordings: {right} of {len(files)} right**, axis and sign of the correlation with the next pixel.",
        "",
        "| recording | axis found | next pixel along x | along y |",
        "|---|---|---|---|",
    ]
    for name, run in files.items():
        several = f" ({run['files']} files)" if run["files"] > 1 else ""
        wrong = "" if run["right"] else f", expected {run['expected']}"
        told.append(
            f"| {name.removesuffix('.tif')}{several} | {', '.join(run['axis'])}{wrong} "
            f"| {run['lag_one']:+.2f} | {run['across']:+.2f} |"
        )
    shares = list(next(iter(large["right_by_kind_and_share"].values())))
    told += [
        "",
        "**Simulated single frames** of photographs and of nuclei. In the table: in how many frames the axis was "
        f"found, of {large['of']} each, by the share of the noise variance that is correlated.",
        "",
        f"| frames of {large['scenes_per_frame']} scenes | {' | '.join(f'{float(share):.0%}' for share in shares)} |",
        "|---" * (len(shares) + 1) + "|",
    ]
    told += [
        f"| {kind} | {' | '.join(str(hits[share]) for share in shares)} |"
        for kind, hits in large["right_by_kind_and_share"].items()
    ]
    told.append("")
    for run, size in ((large, "360 to 512 pixels wide"), (small, "180 to 256 pixels wide, one scene each")):
        told.append(
            f"- Frames {size}: right axis in {run['right']} of {run['frames']} ({run['right'] / run['frames']:.0%}); "
            f"an axis where the noise is white in {run['false_alarms']} of {run['white_frames']} "
            f"({run['false_alarms'] / run['white_frames']:.1%})."
        )
    told += [
        f"- Photon transfer of pairs of flat frames: gain {transfer['gain']:.3f} for {expected['gain']:.2f}, variance "
        f"without light {transfer['offset']:.1f} for {expected['offset']:.0f} grey levels squared.",
    ]
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="?", type=Path, default=DATA, help="folder with noisy/ and clean/")
    parser.add_argument("--develop", action="store_true", help="other scenes and seeds; nothing is written")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    results: dict[str, Any] = {
        "simulated": simulated(asked.data, asked.develop, asked.seed, 2),
        "simulated_small": simulated(asked.data, asked.develop, asked.seed, 1),
    }
    if asked.develop:
        print(results)
        return
    results |= {"recordings": recordings(asked.data), "photon_transfer": photon_transfer(asked.data)}
    results["example"] = example()
    print(results)
    print(write("inspection", f"python -m benchmarks.inspection --seed {asked.seed}", results))


if __name__ == "__main__":
    main()
