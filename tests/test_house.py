"""The house stays in order: data flows one way, and help is instant."""

from pathlib import Path

import cosdd

SOURCE = Path(cosdd.__file__).parent
# Each room may use those before it.
ROOMS = ["errors", "config", "overrides", "progress", "writing", "lazy", "metadata", "zarray", "omezarr", "axes"]
ROOMS += ["tiff", "images", "specimen", "simulate", "metrics", "evaluation", "excerpts", "correlation", "inspection"]
ROOMS += ["noisefloor", "outliers", "data", "likeness", "device", "processes", "model", "tensorfile"]
ROOMS += ["calibration", "checkpoint", "training", "snapshot", "generation", "latents", "estimates", "tiles", "pyramid"]
ROOMS += ["sampling", "denoise", "recipe", "unfinished", "outputs", "workers", "checks", "report", "demo", "commands"]
ROOMS += ["witness", "cli_train", "cli", "__main__"]
