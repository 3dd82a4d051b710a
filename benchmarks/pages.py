"""Write what is generated into the pages: ``python -m benchmarks.pages``.

The figures in README.md and in docs come from ``benchmarks/results``, the tables in docs/settings.md from
``cosdd.config``. WRITTEN names every page that is written so, whole or in part.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cosdd
from benchmarks.paper import page as paper
from benchmarks.table import page as table
from cosdd import config, denoise, generation

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
NAMES = {
    "auto": "`auto` (blind-row)",
    "cosdd": "`--method cosdd`",
    "cosdd,model.start=empty": "`--method cosdd --set model.start=empty`",
}

RUNS = {
    "ours": "`--method cosdd`",
    "empty": "the same, started with empty latents, as before",
    "auto": "`auto` (blind-row)",
    "theirs": "the authors' published code",
    "mended": "the same, its shuffling mended",
}

# What a script may rely on, by the name it is called by.
PUBLIC: dict[str, Any] = {
    "cosdd.train": cosdd.train,
    "cosdd.load": cosdd.load,
    "model.denoise": denoise.Denoiser.denoise,
    "model.generate": denoise.Denoiser.generate,
    "model.noise": denoise.Denoiser.noise,
    "model.save": denoise.Denoiser.save,
    "Result": denoise.Result,
    "Generated": generation.Generated,
    "Noise": denoise.Noise,
    "cosdd.InputError": cosdd.InputError,
}


def filled(path: Path, *blocks: list[str]) -> str:
    """The page with its blocks of results filled in, in their order."""
    page, rest = "", path.read_text(encoding="utf-8")
    for lines in blocks:
        before, _, rest = rest.partition(BEGIN)
        _, _, rest = rest.partition(END)
        page += before + BEGIN + "\n" + "\n".join(lines) + "\n" + END
    return page + rest


def readme() -> str:
    return filled(ROOT / "README.md", results())


def blind_row() -> str:
    return filled(ROOT / "docs" / "blind-row.md", accuracy())


def accuracy() -> list[str]:
    """What `python -m benchmarks.blindrow` measured."""
    entry = _read("blindrow")
    if not entry:
        return []
    found = entry["results"]
    lines = [
        f"`{entry['command']}`: median over seeds (lowest to highest); {_machine(entry)}.",
        "",
        "| simulation | noisy | best Gaussian | denoised | 90 % interval covers | gain | worst variance | lag 1 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, run in found.items():
        if "psnr_denoised" not in run["median"]:
            continue
        m, (low, high) = run["median"], run["range"]["psnr_denoised"]
        spread = f" ({low:.1f} to {high:.1f})" if high > low else ""
        warned = ", and said so" if run["warned"] else ""
        lines.append(
            f"| {name}{warned} | {m['psnr_noisy']:.1f} dB | {m['psnr_gaussian']:.1f} dB "
            f"| **{m['psnr_denoised']:.1f} dB**{spread} | {100 * m['coverage_90']:.0f} % "
            f"| {100 * m['gain_error']:+.0f} % | {100 * m['worst_variance_error']:+.0f} % "
            f"| {m['lag_one']:+.2f} for {m['lag_one_truth']:+.2f} |"
        )
    aurora, confocal = found["aurora"], found["confocal"]["median"]
    low, high = aurora["range"]["lag_one"]
    lines += [
        "",
        f"Real: aurora, an electron-multiplying camera: lag 1 {aurora['median']['lag_one']:+.2f} ({low:+.2f} to "
        f"{high:+.2f}). Photon counts of a confocal microscope, white noise, trained and scored on the same frames, "
        "each against the mean of the others: "
        f"mean squared error {confocal['mse_noisy']:.2f} noisy, {confocal['mse_best_gaussian']:.2f} best Gaussian "
        f"filter, **{confocal['mse_denoised']:.2f}** denoised ({confocal['over_gaussian_db']:+.1f} dB to that filter).",
    ]
    return lines + _outliers(_read("outliers"))


def _outliers(measured: dict[str, Any]) -> list[str]:
    if not measured:
        return []
    run = measured["results"]
    none, out, kept = run["none"], run["left out"], run["kept"]
    return [
        "",
        f"Hot pixels, {run['share']:.1%} of all, in *stripe* (`{measured['command']}`): {kept['psnr_noisy']} dB noisy; "
        f"left out, as they are by default, **{out['psnr_denoised']} dB** denoised, {out['psnr_elsewhere']} dB without "
        f"the hot pixels themselves; kept, {kept['psnr_denoised']} and {kept['psnr_elsewhere']} dB. Without any hot "
        f"pixel it is {none['psnr_denoised']} dB.",
    ]


def results() -> list[str]:
    lines: list[str] = []
    demo = _read("demo")
    if demo:
        runs = demo["results"]
        first = next(iter(runs.values()))["median"]
        lines += [
            f"`make demo`, eight held-out images: PSNR with range 1, median over seeds; {_machine(demo)}.",
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
            lines.append(
                f"| {NAMES.get(name, name)} | {len(reached)} | **{m['psnr_denoised']:.1f} dB**{spread} "
                f"| {m['psnr_denoised'] - m['psnr_noisy']:+.1f} dB "
                f"| {m['psnr_denoised'] - m['psnr_gaussian']:+.1f} dB | {m['train_seconds']:.0f} s "
                f"| {m['denoise_seconds']:.1f} s | {m['total_seconds']:.0f} s | {m['peak_memory_gb']:.1f} GB |"
            )
        lines += ["", "The paper's model starts as a wavelet denoiser here: [docs/training.md](docs/training.md)."]
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
                    + (f"and {run['mse_with_flips']:,} with `--flips` " if "mse_with_flips" in run else "")
                    + f"({gain:.0f} % below noisy; {run['mse_of_the_reference']:,} of it is the noise of that mean)."
                    + _in_place(run)
                )
            else:
                before, after = run["streak_variance_noisy"], run["streak_variance_denoised"]
                lines.append(
                    f"- STEM, one frame with long row streaks ({method}): variance of row-to-row differences of "
                    f"{run.get('segment', 16)}-pixel row segments {before:,.0f} before, **{after:,.0f}** after."
                )
    if large := _read("large"):
        lines += [
            "",
            f"Large images, `{large['command']}`; {_machine(large)}: largest resident memory of `denoise`.",
            "",
        ]
        for name, run in large["results"].items():
            edge, method = name.split(maxsplit=1)
            what = "one sample" if method == "cosdd" else "mean and standard deviation"
            lines.append(
                f"- {edge} x {edge} pixels, {method}, {what}: {run['seconds']:.0f} s, **{run['memory_gb']} GB**"
            )
    return lines


def _in_place(run: dict[str, Any]) -> str:
    if "in_place" not in run:
        return ""
    moved = run["in_place"]
    return (
        f" The scene drifts by up to {run['largest_drift_pixels']} pixels, which blurs that mean and favours blur; "
        f"with the other frames moved into place: {moved['mse_noisy']:,} noisy, {moved['mse_best_gaussian']:,} best "
        f"Gaussian filter, **{moved['mse_denoised']:,}** denoised."
    )


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


def reliability() -> str:
    return filled(ROOT / "docs" / "reliability.md", endured())


def endured() -> list[str]:
    """What `make gauntlet`, `make fuzz` and `python -m benchmarks.resume` found."""
    lines = []
    if entry := _read("gauntlet"):
        found, commands = entry["results"], entry["results"]["commands"]
        lines.append(
            f"- Bad images: {found['bad images']}, {sum(commands.values()):,} commands: "
            f"{', '.join(f'{count:,} {outcome}' for outcome, count in commands.items())}; "
            f"{found['tracebacks']} tracebacks. (`{entry['command']}`; {_machine(entry)}.)"
        )
    if entry := _read("resume"):
        runs = entry["results"]
        kills, same = sum(run["kills"] for run in runs.values()), all(run["bit_identical"] for run in runs.values())
        left = sum(len(run["left_behind"]) for run in runs.values())
        lines.append(
            f"- Killed trainings: {len(runs)} runs ({', '.join(runs)}), {kills} kills: weights "
            f"{'identical bit for bit' if same else '**not identical**'}, {left} files left behind. "
            f"(`{entry['command']}`; {_machine(entry)}.)"
        )
    if entry := _read("resume_store"):
        found = entry["results"]
        lines.append(
            f"- Denoising a stack of {found['frames']} frames into OME-Zarr, killed at a random moment and resumed: "
            f"{found['bit_identical']} of {found['kills']} identical bit for bit, {found['inside']} of them went on "
            f"inside the stack, {found['left_behind']} files left behind. (`{entry['command']}`; {_machine(entry)}.)"
        )
    if entry := _read("sparse"):
        for kind, found in entry["results"].items():
            lines.append(
                f"- Training on a stack of {found['gigabytes']:.0f} GB ({kind}, sparse): "
                f"{found['peak_memory_gb']:.2f} GB of memory at most. (`{entry['command']}`; {_machine(entry)}.)"
            )
    if entry := _read("faults"):
        for what, outcomes in entry["results"].items():
            lines.append(f"- {what[0].upper()}{what[1:]}: {_counted(outcomes)}.")
        kills = sum(found["killed"] for what, found in entry["results"].items() if what.startswith("kill -9"))
        lines.append(f"- In all {kills} kills, nothing lost. (`{entry['command']}`; {_machine(entry)}.)")
    if entry := _read("fuzz"):
        readers = entry["results"]
        crashes, hangs = (sum(found[kind] for found in readers.values()) for kind in ("crashes", "hangs"))
        files = {f"{name} files": found["files"] for name, found in readers.items()}
        least = min(found["seconds"] for found in readers.values())
        lines.append(
            f"- Fuzzing, {least} seconds or more for each reader: {_counted(files)}: {crashes} crashes, {hangs} hangs. "
            f"(`{entry['command']}`; {_machine(entry)}.)"
        )
    return lines


def _counted(outcomes: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.items())


def noise() -> str:
    return filled(ROOT / "docs" / "noise.md", recognised())


def recognised() -> list[str]:
    """What `python -m benchmarks.inspection` found."""
    entry = _read("inspection")
    if not entry:
        return []
    found = entry["results"]
    files, large, small = found["recordings"], found["simulated"], found["simulated_small"]
    right = sum(run["right"] for run in files.values())
    transfer, expected = found["photon_transfer"], found["photon_transfer"]["expected"]
    lines = [
        f"`{entry['command']}`; {_machine(entry)}.",
        "",
        f"**Real recordings: {right} of {len(files)} right**, axis and sign of the correlation with the next pixel.",
        "",
        "| recording | axis found | next pixel along x | along y |",
        "|---|---|---|---|",
    ]
    for name, run in files.items():
        several = f" ({run['files']} files)" if run["files"] > 1 else ""
        wrong = "" if run["right"] else f", expected {run['expected']}"
        lines.append(
            f"| {name.removesuffix('.tif')}{several} | {', '.join(run['axis'])}{wrong} "
            f"| {run['lag_one']:+.2f} | {run['across']:+.2f} |"
        )
    shares = list(next(iter(large["right_by_kind_and_share"].values())))
    lines += [
        "",
        "**Simulated single frames** of photographs and of nuclei. In the table: in how many frames the axis was "
        f"found, of {large['of']} each, by the share of the noise variance that is correlated.",
        "",
        f"| frames of {large['scenes_per_frame']} scenes | {' | '.join(f'{float(share):.0%}' for share in shares)} |",
        "|---" * (len(shares) + 1) + "|",
    ]
    lines += [
        f"| {kind} | {' | '.join(str(hits[share]) for share in shares)} |"
        for kind, hits in large["right_by_kind_and_share"].items()
    ]
    lines.append("")
    for run, size in ((large, "360 to 512 pixels wide"), (small, "180 to 256 pixels wide, one scene each")):
        lines.append(
            f"- Frames {size}: right axis in {run['right']} of {run['frames']} ({run['right'] / run['frames']:.0%}); "
            f"an axis where the noise is white in {run['false_alarms']} of {run['white_frames']} "
            f"({run['false_alarms'] / run['white_frames']:.1%})."
        )
    lines += [
        f"- Photon transfer of pairs of flat frames: gain {transfer['gain']:.3f} for {expected['gain']:.2f}, variance "
        f"without light {transfer['offset']:.1f} for {expected['offset']:.0f} grey levels squared.",
    ]
    return lines


def benchmarks() -> str:
    entry = _read("table")
    found = table.lines(entry) if entry else []
    return filled(ROOT / "docs" / "benchmarks.md", found + checkerboard() + denoising())


def checkerboard() -> list[str]:
    """What `python -m benchmarks.checkerboard` found."""
    entry = _read("checkerboard")
    if not entry:
        return []
    found = entry["results"]
    variants = [
        f"| {name} | {score['psnr']:.2f} dB | {score['nll']:+.3f} |" for name, score in found["variants"].items()
    ]
    return [
        "",
        "### What the checkerboard asks of the noise model",
        "",
        f"`auto` on bsd400-checkerboard with parts of its noise model left out, {found['steps']} updates, 40 test "
        f"images (`{entry['command']}`; {_machine(entry)}). Noisy {found['noisy']:.2f} dB, row Wiener "
        f"{found['row Wiener']:.2f} dB.",
        "",
        "| noise model | PSNR | negative log-likelihood of held-out rows, nats per pixel |",
        "|---|---|---|",
        *variants,
    ]


def denoising() -> list[str]:
    """What `python -m benchmarks.inference` measured."""
    entry = _read("inference")
    if not entry:
        return []
    found = entry["results"]["speed"]
    hundred, quicker, direct = (
        found[name] for name in ("mmse_100_processor_seconds", "times_quicker_than", "direct_processor_seconds")
    )
    work = found["gflop_of_one_sample"]
    return [
        "",
        "### Denoising beside the authors' code",
        "",
        f"The mean of 100 samples of an image of {found['edge']} x {found['edge']} pixels, networks of 6 levels and 32 "
        f"filters, processor time of one thread, median of {found['pairs']} pairs in turn (`{entry['command']}`; "
        f"{_machine(entry)}): theirs {hundred['theirs']['median']:.0f} s, ours {hundred['ours']['median']:.0f} s, "
        f"**{quicker['theirs']['median']:.1f} times quicker** ({quicker['theirs']['lowest']:.1f} to "
        f"{quicker['theirs']['highest']:.1f}). The networks are not the same: a sample is {work['theirs']:.1f} GFLOP "
        f"with theirs and {work['naive']:.1f} with ours. Ours driven as theirs is, every sample from the image anew, "
        f"takes {hundred['naive']['median']:.0f} s: {quicker['naive']['median']:.1f} times as long as it does. Direct "
        f"denoiser: {direct['theirs']['median']:.2f} and {direct['ours']['median']:.2f} s. By default ours draws as "
        "many samples as it takes, often eight ([samples.md](samples.md)).",
    ]


def how_it_works() -> str:
    told = {name: experiment(name) for name in paper.EXPERIMENTS}
    if not paper.found("noise"):
        told["noise"] = earlier_noise()
    told["noise"] += speed()
    return filled(ROOT / "docs" / "how-it-works.md", *told.values())


def experiment(name: str) -> list[str]:
    """What `python -m benchmarks.paper NAME` found."""
    entry = paper.found(name)
    return paper.lines(name, _machine(entry) if entry else "")


def earlier_noise() -> list[str]:
    """What `python -m benchmarks.noise` measured, until `python -m benchmarks.paper noise` was run."""
    lines = [
        "![True and generated noise of each kind](images/generated_noise.png)",
        "",
        "*True noise and generated noise side by side, each pair in the same greys; 64 pixels of one test image.*",
        "",
    ]
    if entry := _read("noise"):
        lines += [
            f"`{entry['command']}`; {_machine(entry)}.",
            "",
            "| noise (method, steps) | lags 1, 2, 3 along: true | generated | worst along | worst across "
            "| variance: worst | median |",
            "|---|---|---|---|---|---|---|",
        ]
        for name, run in entry["results"].items():
            true, made = (
                " ".join(f"{value:+.2f}" for value in run[f"along_{whose}"][:3]) for whose in ("truth", "generated")
            )
            errors = sorted(map(abs, run["variance_error"]))
            lines.append(
                f"| {name.split(' (')[0]} ({run['method']}, {run['steps']}) | {true} | {made} "
                f"| {run['along_worst']:.3f} | {run['across_worst']:.3f} | {100 * run['variance_worst']:+.0f} % "
                f"| {100 * (errors[4] + errors[5]) / 2:.0f} % |"
            )
    return lines


def speed() -> list[str]:
    """What `python -m benchmarks.sampling` measured."""
    entry = _read("sampling")
    if not entry:
        return []
    run = entry["results"]
    return [
        "",
        f"Speed, `{entry['command']}`: {run['samples']} samples of the noise of a {run['size'][0]} x "
        f"{run['size'][1]} image, {run['decoder']}: {run['naive_seconds']:,.0f} s with the whole prefix for each "
        f"column ({run['naive_is']}), **{run['cached_seconds']:.1f} s** with remembered columns, "
        f"{run['times_quicker']:.0f} times quicker; {_machine(entry)}.",
    ]


def training() -> str:
    return filled(ROOT / "docs" / "training.md", trained())


def trained() -> list[str]:
    """What `python -m benchmarks.training` measured."""
    entry = _read("training")
    if not entry:
        return []
    lines = [
        f"`{entry['command']}`; {_machine(entry)}. PSNR with range 1, after so many seconds of training; of the mean "
        "of eight samples, or of the direct denoiser where that is better.",
    ]
    for kind, found in entry["results"].items():
        marks = [f"{point['seconds']:.0f} s" for point in next(iter(next(iter(found["runs"].values())).values()))]
        lines += [
            "",
            f"| {kind}: noisy {found['psnr_noisy']:.1f} dB | {' | '.join(marks)} | updates |",
            "|---" * (len(marks) + 2) + "|",
        ]
        for name, seeds in found["runs"].items():
            for points in seeds.values():
                best = [max(v for key, v in point.items() if key.startswith("psnr")) for point in points]
                cells = [f"{psnr:.1f} dB" for psnr in best] + [""] * (len(marks) - len(points))
                lines.append(f"| {RUNS[name]} | {' | '.join(cells)} | {points[-1]['updates']:.0f} |")
    return lines


def samples() -> str:
    return filled(ROOT / "docs" / "samples.md", estimated())


def estimated() -> list[str]:
    """What `python -m benchmarks.estimators` measured."""
    entry = _read("estimators")
    if not entry:
        return []
    found = entry["results"]
    taken, auto, blend = found["samples"], found["samples"]["auto"], found["blend"]
    (first, last), many = auto["taken"], f", {found['many']} samples"
    lines = [
        f"`{entry['command']}`: a small cosdd model ({found['steps']} steps) of a simulated specimen in the noise of "
        f"the demo; {found['images']} crops of {found['crop']} x {found['crop']} pixels that it never saw; "
        f"{_machine(entry)}.",
        "",
        f"The mean of {found['many']} coupled samples, the limit, has {taken['psnr_limit']:.2f} dB (range 1). "
        "Behind it, in dB:",
        "",
        "| samples | plain | coupled |",
        "|---|---|---|",
    ]
    for count in sorted({*taken["plain"], *taken["coupled"]}, key=int):
        behind = (f"{row[count]:.3f}" if count in row else "" for row in (taken["plain"], taken["coupled"]))
        lines.append(f"| {count} | {' | '.join(behind)} |")
    lines += [
        "",
        f"- **Within 0.05 dB of the limit**: {taken['plain_needed']} plain samples, {taken['coupled_needed']} coupled "
        f"ones. Left to itself, `denoise` took {first if first == last else f'{first} to {last}'} and stayed "
        f"{auto['behind']:.3f} dB behind: {taken['fewer_samples']:.1f} times fewer samples than the paper's 100, "
        f"**{taken['less_work']:.1f} times less processor time**.",
        "- Variance of the mean of 16 coupled samples over that of 16 plain ones: "
        + ", ".join(f"{value:.3f} in blocks of {size}" for size, value in found["linear"].items())
        + ".",
        f"- The direct denoiser is {blend['direct']:+.3f} dB behind the limit. "
        + " ".join(
            f"{count} samples: {run['samples']:.3f} dB, blended with it {run['blend']:.3f} dB."
            for count, run in blend.items()
            if count != "direct"
        ),
    ]
    if found["coverage"]:
        lines += [
            "",
            "| 90 % interval | of the clean pixels it covers | before calibration | factor |",
            "|---|---|---|---|",
        ]
        lines.append(
            f"| cosdd, {first if first == last else f'{first} to {last}'} samples | **{auto['coverage']:.1%}** | | |"
        )
    for name, run in found["coverage"].items():
        of = many if name == "cosdd" else ""
        before = f"{run['coverage_uncalibrated']:.1%} | {run['factor']:.3f}"
        lines.append(f"| {name}{of} | **{run['coverage']:.1%}** | {before} |")
    return lines


def report() -> str:
    return filled(ROOT / "docs" / "report.md", lit())


def lit() -> list[str]:
    """What `python -m benchmarks.report` found."""
    entry = _read("report")
    if not entry:
        return []
    found = entry["results"]
    lines = [
        f"`{entry['command']}`: {found['frames']} simulated frames of {found['size']} x {found['size']} pixels, "
        f"and what was done wrong on purpose; {_machine(entry)}.",
        "",
    ]
    for case, lights in found["lights"].items():
        on = [f"{light}: *{question}*" for question, light in lights.items() if light != "green"]
        missed = (
            "" if found["caught"].get(case, found["green_on_the_good_run"]) else " **This is not as it should be.**"
        )
        lines.append(f"- {case}: {'; '.join(on) or 'all green'}.{missed}")
    built, denoising = found["processor_seconds_built"], found["processor_seconds_of_denoising"]
    quick = found["seconds_to_open"] is not None and found["seconds_to_open"] < 2
    lines.append(
        f"- The page is one file of {found['megabytes']:.1f} MB. Making it took {built:.0f} s of one processor core, "
        f"{denoising:.0f} s of them for denoising (time computed, on a machine that others used as well)."
        + (" In Chromium it opens in less than 2 s." if quick else "")
    )
    return lines


def python() -> str:
    """docs/python.md: the public names, from their signatures and docstrings."""
    lines = [
        "# Python interface",
        "",
        "Everything the command line does with images, a script can do with arrays and files.",
        "",
        "```python",
        "import cosdd",
        "",
        'model = cosdd.train(noisy, noise_axis="x", time="10m")  # array (n, y, x), a path, or a list of paths',
        "result = model.denoise(noisy)",
        "result.mean, result.std  # float32, the shape and grey values of the input",
        'model.save("noisy.safetensors")',
        "```",
        "",
        "and later, in another script:",
        "",
        "```python",
        "import cosdd",
        "",
        'model = cosdd.load("noisy.safetensors")',
        "print(model.noise()[0].describe())",
        "```",
        "",
        "Generated from the code by `python -m benchmarks.pages`.",
    ]
    for name, thing in PUBLIC.items():
        lines += ["", f"## {name}", ""]
        if not inspect.isclass(thing):
            lines += ["```text", _call(name, thing), "```", ""]
        lines += _prose(inspect.getdoc(thing) or "")
    return "\n".join(lines) + "\n"


def _starred(text: str) -> str:
    """Stars as they are, in code spans and outside."""
    return re.sub(r"`[^`]*`|\*", lambda found: r"\*" if found[0] == "*" else found[0], text)


def _prose(docstring: str) -> list[str]:
    """A docstring as Markdown: lines that explain a name become a list, sentences stay paragraphs."""
    lines: list[str] = []
    each_on_its_own = re.sub(r"\. ([a-z_]+): ", r".\n\1: ", docstring)
    for line in _starred(each_on_its_own.replace("``", "`")).splitlines():
        entry = re.match(r"(\w+(?:, \w+)*): ", line)
        if entry:
            between = [""] if lines and lines[-1] and not lines[-1].startswith("- ") else []
            lines += [*between, f"- **{entry[1]}**: {line[entry.end() :]}"]
        elif line.startswith(("Raises ", "Returns ", "Ctrl-C ")):
            lines += ["", line]
        elif line and lines and lines[-1]:
            lines[-1] += " " + line
        else:
            lines.append(line)
    return lines


def _call(name: str, function: Callable[..., Any]) -> str:
    """The signature, a parameter a line, without the quotes of annotations."""
    signature = inspect.signature(function)
    given = [p for p in signature.parameters.values() if p.name != "self"]
    words, starred = [], False
    for p in given:
        if p.kind is p.KEYWORD_ONLY and not starred:
            words, starred = [*words, "*"], True
        default = "" if p.default is p.empty else f" = {p.default!r}"
        words.append(f"{p.name}: {p.annotation}{default}".replace("'", '"' if default else ""))
    shown = "".join(f"    {word},\n" for word in words)
    returned = signature.return_annotation
    return f"{name}(\n{shown}) -> {returned}" if words else f"{name}() -> {returned}"


# Every page that is written here, whole or in part, by its place in the repository.
WRITTEN: dict[str, Callable[[], str]] = {
    "README.md": readme,
    "docs/benchmarks.md": benchmarks,
    "docs/blind-row.md": blind_row,
    "docs/how-it-works.md": how_it_works,
    "docs/noise.md": noise,
    "docs/python.md": python,
    "docs/reliability.md": reliability,
    "docs/report.md": report,
    "docs/samples.md": samples,
    "docs/settings.md": settings,
    "docs/training.md": training,
}


def main() -> None:
    for page, text in WRITTEN.items():
        (ROOT / page).write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
