"""What `benchmarks.gpu` found, for docs/training.md."""

from __future__ import annotations

from statistics import median

from benchmarks.record import Entry, circumstances

PRESETS = ("blind-row", "cosdd tiny", "fast", "small", "large")


def lines(entry: Entry) -> list[str]:
    found, told = entry["results"], ["", f"`{entry['command']}`; {circumstances(entry)}:", ""]  # apart from a table
    for name in ("cosdd tiny", "fast"):
        if (graph := found.get(f"graph {name}")) is not None:
            told.append(
                f"- {name}: 60 updates in float32, recorded as a graph and plain: elbo of one update at most "
                f"{graph['largest']:.0e} apart, weights {graph['weights']:.0e}; two spoiled updates, left out in both."
            )
    rates = {
        name: found[key] for name in PRESETS if "failed" not in found.get(key := f"training {name}", {"failed": 0})
    }
    told += ["", "| updates per second | plain | as a graph | crops per second | memory |", "|---" * 5 + "|"]
    for name, rate_of in rates.items():
        plain, graph = (f"{rate_of[key]:.1f}" for key in ("updates_per_second_plain", "updates_per_second"))
        graph = "none" if name == "blind-row" else f"**{graph}**"
        told.append(
            f"| {name} | {plain} | {graph} | {rate_of['crops_per_second']:.0f} | {rate_of['memory_gb']:.1f} GB |"
        )
    if beside := found.get("theirs"):
        each = beside["crops_per_second"]
        told += [
            "",
            f"Training beside the authors' code, networks of {beside['levels']} levels and {beside['filters']} "
            f"filters, crops of {beside['edge']} pixels, {len(each['ours'])} turns: {median(each['ours']):.0f} crops "
            f"per second, theirs {median(each['as shipped']):.0f} as shipped (**{beside['times as shipped']:.1f} times "
            f"quicker**) and {median(each['best flags']):.0f} with its best flags ({beside['times best flags']:.1f} "
            "times).",
        ]
    draws = {name: found[key] for name in PRESETS if (key := f"sampler {name}") in found}
    if draws:
        seconds = ", ".join(f"{name} {drawn['seconds']:.1f} s" for name, drawn in draws.items())
        size, count = next((drawn["size"], drawn["samples"]) for drawn in draws.values())
        told += ["", f"{count:,} samples of the noise of {size} x {size} pixels: {seconds}."]
    scored = {key.removeprefix("quality "): value for key, value in found.items() if key.startswith("quality ")}
    if scored:
        each = ", ".join(f"{name} {value['psnr_denoised']:.1f} dB" for name, value in scored.items())
        one = next(iter(scored.values()))
        told += [
            "",
            f"After {one['seconds']:.0f} s of training, our own specimens: {each}; noisy {one['psnr_noisy']:.1f} dB, "
            f"best Gaussian {one['psnr_gaussian']:.1f} dB.",
        ]
    if speed := found.get("inference"):
        hundred, direct = speed["mmse_100_seconds"], speed["direct_seconds"]
        told += [
            "",
            "Denoising beside the authors' code, 512 x 512 pixels, 6 levels and 32 filters, bfloat16: 100 samples take "
            f"theirs {hundred['theirs']['median']:.1f} s, ours driven as theirs {hundred['naive']['median']:.1f} s, "
            f"and **ours {hundred['ours']['median']:.1f} s, which is slower**, extrapolated from eight: nearly all of "
            f"that was a fixed cost of each call, as the direct denoiser shows ({direct['ours']['median']:.2f} s, "
            f"theirs {direct['theirs']['median']:.2f} s). A copy of the network was made ready in each, and pixels "
            "that stand out were looked for twice, on the processor. The copy is kept now, and they are looked for "
            "once and more quickly; on a GPU that was not measured again.",
        ]
    return told
