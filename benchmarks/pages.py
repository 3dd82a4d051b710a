"""Write what is generated into the pages: ``python -m benchmarks.pages``.

The figures in README.md come from ``benchmarks/results``, the tables in docs/settings.md from ``cosdd.config``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cosdd import config

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
NAMES = {
    "auto": "`auto` (blind-row)",
    "cosdd": "`--method cosdd`",
    "cosdd,model.decoder_input=latent": "`--method cosdd --set model.decoder_input=latent`",
}


def readme() -> str:
    """README.md with the block of results filled in."""
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + "\n" + "\n".join(results()) + "\n" + END + after


def results() -> list[str]:
    lines: list[str] = []
    demo = _read("demo")
    if demo:
        runs = demo["results"]
        first = next(iter(runs.values()))["median"]
        seeds = len(next(iter(runs.values()))["runs"])
        lines += [
            f"`make demo`, eight held-out images: PSNR with range 1, "
            f"{'one seed' if seeds == 1 else f'median of {seeds} seeds'}; {_machine(demo)}.",
            "",
            "| method | denoised | over noisy | over best Gaussian | training | denoising | in all | peak memory |",
            "|---|---|---|---|---|---|---|---|",
            f"| noisy | {first['psnr_noisy']:.1f} dB | | | | | | |",
            f"| best Gaussian filter, its width chosen with the clean image | {first['psnr_gaussian']:.1f} dB "
            f"| {first['psnr_gaussian'] - first['psnr_noisy']:+.1f} dB | | | | | |",
        ]
        for name, run in runs.items():
            m = run["median"]
            lines.append(
                f"| {NAMES.get(name, name)} | **{m['psnr_denoised']:.1f} dB** "
                f"| {m['psnr_denoised'] - m['psnr_noisy']:+.1f} dB "
                f"| {m['psnr_denoised'] - m['psnr_gaussian']:+.1f} dB | {m['train_seconds']:.0f} s "
                f"| {m['denoise_seconds']:.1f} s | {m['total_seconds']:.0f} s | {m['peak_memory_gb']:.1f} GB |"
            )
        lines += [
            "",
            "In three minutes on a CPU the paper's model comes close to the best Gaussian filter and does not pass it; "
            "the blind-row denoiser does. The last row is what the paper's text says reaches the decoders, the sampled "
            "final latent; the presets `small` and `large` follow it. At this budget it learns nothing yet, so `tiny` "
            "passes on the top-down features, as the authors' published code does.",
        ]
    real = _read("real")
    if real:
        lines += ["", f"Real recordings, `{real['command']}`; {_machine(real)}:", ""]
        for name, run in real["results"].items():
            kind, method = name.split(maxsplit=1)
            if kind == "twophoton":
                gain = 100 * (1 - run["mse_denoised"] / run["mse_noisy"])
                lines.append(
                    f"- two-photon calcium imaging, 20 frames, about one photon per pixel ({method}): mean squared "
                    f"error against the mean of the other frames {run['mse_noisy']:,} noisy, "
                    f"{run['mse_best_gaussian']:,} best Gaussian filter, **{run['mse_denoised']:,}** denoised "
                    f"({gain:.0f} % below noisy; {run['mse_of_the_reference']:,} of it is the noise of that mean)."
                )
            else:
                before, after = run["streak_variance_noisy"], run["streak_variance_denoised"]
                lines.append(
                    f"- STEM, one frame with long row streaks ({method}): variance of row-to-row differences of "
                    f"{run.get('segment', 16)}-pixel row segments {before:,.0f} before, **{after:,.0f}** after."
                )
    return lines


def settings() -> str:
    """docs/settings.md: every setting with its default in each preset."""
    presets = {name: config.build(name).model_dump() for name in config.PRESETS}
    presets["tiny, cosdd"] = config.build("tiny", {"method": "cosdd"}).model_dump()
    lines = [
        "# Settings",
        "",
        "Generated from `src/cosdd/config.py` by `python -m benchmarks.pages`. Give them as "
        "`--set section.field=value`, in a YAML file with `--config`, or from Python with `settings={...}`.",
    ]
    for section, model in (("model", config.Model), ("blind_row", config.BlindRow), ("train", config.Train)):
        lines += ["", f"## {section}", "", " ".join((model.__doc__ or "").split()), ""]
        lines += [f"| setting | {' | '.join(presets)} | |", "|---" * (len(presets) + 2) + "|"]
        for name, field in model.model_fields.items():
            values = " | ".join(_plain(preset[section][name]) for preset in presets.values())
            lines.append(f"| `{section}.{name}` | {values} | {field.description} |")
    return "\n".join(lines) + "\n"


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _machine(entry: dict[str, Any]) -> str:
    m = entry["machine"]
    extra = " with AMX bfloat16" if m["amx_bfloat16"] else ""
    gpu = m["gpu"] or "no GPU"
    return f"{m['cores']} cores ({m['cpu']}{extra}), {gpu}, torch {m['torch']}, measured {entry['date']}"


def _read(name: str) -> dict[str, Any] | None:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def main() -> None:
    (ROOT / "README.md").write_text(readme(), encoding="utf-8")
    (ROOT / "docs" / "settings.md").write_text(settings(), encoding="utf-8")


if __name__ == "__main__":
    main()
