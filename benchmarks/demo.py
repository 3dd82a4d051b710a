"""The demo, three seeds, for each variant: ``python -m benchmarks.demo [--seeds 3]``."""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.record import Entry, circumstances, cosdd, earlier, origin, write

# Each variant is a method, and settings after commas; beside it, what the page calls it.
VARIANTS = {
    "auto": "`auto` (blind-row)",
    "cosdd": "`--method cosdd`",
    "cosdd,model.start=empty": "`--method cosdd --set model.start=empty`",
}


def lines(entry: Entry) -> list[str]:
    """What it found, for README.md."""
    runs = entry["results"]
    first = next(iter(runs.values()))["median"]
    told = [
        f"`make demo`, eight held-out images: PSNR with range 1, median over seeds; {circumstances(entry)}.",
        "",
        "| method | seeds | denoised | over noisy | over Gaussian | training | denoising | in all | peak memory |",
        "|---|---|---|---|---|---|---|---|---|",
        f"| noisy | | {first['psnr_noisy']:.1f} dB | | | | | | |",
        f"| best Gaussian filter, its width chosen with the clean image | | {first['psnr_gaussian']:.1f} dB "
        f"| {first['psnr_gaussian'] - first['psnr_noisy']:+.1f} dB | | | | | |",
    ]
    for name, run in runs.items():
        m, reached = run["median"], [one["psnr_denoised"] for one in run["runs"]]
        spread = f" ({min(reached):.1f} to {max(reached):.1f})" if len(reached) > 1 else ""
        earlier_on = f" (of {run['date']})" if run["date"] != entry["date"] else ""
        told.append(
            f"| {VARIANTS.get(name, name)}{earlier_on} | {len(reached)} | **{m['psnr_denoised']:.1f} dB**{spread} "
            f"| {m['psnr_denoised'] - m['psnr_noisy']:+.1f} dB "
            f"| {m['psnr_denoised'] - m['psnr_gaussian']:+.1f} dB | {m['train_seconds']:.0f} s "
            f"| {m['denoise_seconds']:.1f} s | {m['total_seconds']:.0f} s | {m['peak_memory_gb']:.1f} GB |"
        )
    told += ["", "The paper's model starts as a wavelet denoiser here: [docs/training.md](docs/training.md)."]
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS))
    parser.add_argument("--picture", type=Path, help="where to put the picture of the first run")
    asked = parser.parse_args()
    results = earlier("demo")
    command = f"python -m benchmarks.demo --seeds {asked.seeds} --variants"
    for variant in asked.variants:
        method, *settings = variant.split(",")
        options = [word for setting in settings for word in ("--set", setting)]
        runs = []
        for seed in range(asked.seeds):
            with tempfile.TemporaryDirectory() as folder:
                cosdd("demo", "-o", folder, "--method", method, "--seed", str(seed), "--overwrite", *options)
                runs.append(json.loads((Path(folder) / "summary.json").read_text()))
                if asked.picture and variant == asked.variants[0] and seed == 0:
                    shutil.copy(Path(folder) / "before_after.png", asked.picture)
        numbers = [name for name, value in runs[0].items() if isinstance(value, int | float)]
        results[variant] = {
            **origin(f"{command} {variant}"),
            "median": {name: round(median(run[name] for run in runs), 3) for name in numbers},
            "runs": runs,
        }
        print(variant, results[variant]["median"])
    print(write("demo", f"{command} {' '.join(results)}", results))


if __name__ == "__main__":
    main()
