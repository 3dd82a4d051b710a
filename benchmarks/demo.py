"""The demo, three seeds, for each variant: ``python -m benchmarks.demo [--seeds 3]``."""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.record import cosdd, earlier, origin, write

# Each variant is a method, and settings after commas.
VARIANTS = ["auto", "cosdd", "cosdd,model.start=empty"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--variants", nargs="+", default=VARIANTS)
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
