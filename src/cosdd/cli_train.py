"""The verbs that train: `train` and `demo`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cosdd import commands, overrides, progress, writing
from cosdd.errors import InputError, brief
from cosdd.progress import out

if TYPE_CHECKING:
    from cosdd.preparation import Ready
    from cosdd.training import Run


def train(
    context: typer.Context,
    files: commands.Files,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Model file to write (.safetensors).")] = None,
    time_: Annotated[
        str | None,
        typer.Option("--time", help=commands.BUDGET, show_default="10m, or what --preset, --config or --set say"),
    ] = None,
    noise_axis: Annotated[
        str, typer.Option(help="Axis along which the noise is correlated: auto, x (rows), y (columns), z or none.")
    ] = "auto",
    method: commands.MethodName = None,
    preset: commands.PresetName = None,
    config_file: commands.ConfigFile = None,
    settings: commands.Settings = None,
    axes: commands.Axes = None,
    seed: Annotated[int | None, typer.Option(help="Makes a run of a given number of steps repeatable.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run, or start one.")] = False,
    overwrite: commands.Overwrite = False,
) -> None:
    """Learn the noise and the images from noisy images alone."""
    from cosdd import images

    paths = images.find(files)  # before torch is loaded: a name may be mistyped
    from cosdd import checkpoint, preparation, preview, processes, snapshot, training
    from cosdd.denoise import Denoiser

    layers = _layers(context, config_file, settings, time_, seed, method, preset)
    output = output or Path(images.output_path(paths[0], Path()).with_suffix(".safetensors").name)
    checkpoint.refuse_name(output)
    history, saved, picture = output.with_suffix(".history.csv"), snapshot.path_for(output), preview.path_for(output)
    context.with_resource(processes.patient())
    if processes.rank() > 0:  # the first process speaks and writes
        if resume and output.exists() and not saved.exists():
            return  # trained to the end already, as the first one says
        _train_along(preparation.prepare(list(paths), axes, noise_axis, "tiny", *layers), saved if resume else None)
        return
    writing.refuse_unwritable(output)
    context.with_resource(writing.claim(output.parent, [p.name for p in (output, history, saved, picture)]))
    begun = resume and saved.exists()
    if resume and not begun and output.exists():
        out.print(
            f"{output}: trained to the end already, where the learning rate is zero: for a longer training start anew, "
            "with --overwrite instead of --resume"
        )
        return
    if saved.exists() and not (resume or overwrite):
        raise InputError(f"{saved}: an interrupted run is here: continue it with --resume, or add --overwrite")
    overwrite = overwrite or begun  # what an interrupted run left is an earlier state of the same model
    for path in (output, history, picture):
        writing.refuse_existing(path, overwrite)
    commands.tell_not_read(files)
    with _all_or_none(paths):
        ready = preparation.prepare(list(paths), axes, noise_axis, "tiny", *layers)
    for image in ready.images:
        commands.tell(image)
    if ready.inspection is not None:
        if len(ready.images) > 1:
            out.print(f"noise, as {ready.inspected} shows it most clearly:")
        for line in ready.inspection.lines():
            out.print(f"  {line}")
    run = training.start(ready.settings, ready.frames)
    _describe_run(run, ready.notes)
    if begun:
        snapshot.restore(run, saved)
        out.print(f"continuing after {run.step} steps, {run.seconds:.0f} s")
    elif not resume:
        saved.unlink(missing_ok=True)
    every, drawn = run.settings.train.snapshot, preview.possible(run.frames)
    snapshots = progress.NowAndThen(partial(snapshot.save, run, saved), every)
    previews = progress.NowAndThen(partial(preview.of_run, run, picture), every)
    if drawn:
        out.print(f"look at {picture} to see how far it is")
    warned = False
    with progress.bar("training") as show, _interruptible(run, saved):
        for record in training.fit(run):
            show(record.progress, record.shown)
            removed = (record.validation or {}).get("removed", 1.0)
            if removed < checkpoint.COPYING and not warned:
                out.print(f"warning: {checkpoint.COPIES.format(removed)}")
                warned = True
            _attempt(snapshots)
            if drawn:
                _attempt(previews)
    if training.passes_asked(run):
        out.print("measuring how often the last step is best repeated")
    trained = training.finish(run)
    checkpoint.save(trained, output, overwrite)
    commands.write_table(history, trained.history)
    if drawn:
        _attempt(partial(preview.write, trained, run.frames, picture))
    if training.ended(run):
        saved.unlink(missing_ok=True)
    last = trained.history[-1]
    out.print(
        f"trained {trained.steps} steps in {trained.seconds:.0f} s"
        + (f" ({run.skipped} skipped: not finite)" if run.skipped else "")
        + ": "
        + ", ".join(f"{name} {last[name]:.3f}" for name in training.SHOWN if name in last)
    )
    if training.without_direct(run):
        out.print(f"note: {training.LEFT_OUT}")
    for doubt in trained.doubts:
        out.print(f"warning: {doubt}")
    if training.ended(run):
        _tell_how_to_go_on(trained.steps)
    if training.passes_asked(run):
        told = f", with --direct {trained.passes.direct}" if trained.settings.model.direct else ""
        out.print(f"passes of the last step: {trained.passes.samples}{told}")
    if trained.settings.method != "cosdd":
        learned = Denoiser(trained).noise()
        for channel, noise in enumerate(learned):
            out.print(f"learned noise{f' of channel {channel}' if len(learned) > 1 else ''}: {noise.describe()}")
    out.print(f"model: {output}   history: {history}")
    inputs = " ".join(commands.quoted(name) for name in files)
    out.print(f"next: cosdd denoise {commands.quoted(str(output))} {inputs} -o denoised", style="bold")


def demo(
    context: typer.Context,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for images, model and summary.")] = Path(
        "demo"
    ),
    time_: commands.Budget = "3m",
    method: commands.MethodName = None,
    preset: commands.PresetName = None,
    settings: commands.Settings = None,
    samples: commands.Samples = "auto",
    seed: commands.Seed = 0,
    overwrite: commands.Overwrite = False,
) -> None:
    """Simulate a specimen, make it noisy, train, denoise what was held out: minutes on two CPU cores."""
    from cosdd import demo as story
    from cosdd.training import Record

    layers, asked = _layers(context, None, settings, time_, seed, method, preset), commands.how_many(samples)
    context.with_resource(writing.claim(output, [story.SUMMARY]))
    summary: dict[str, Any] = {}
    for kind, items in groupby(story.run(output, seed, overwrite, layers, asked), type):
        if kind is dict:
            summary = next(items)  # type: ignore[assignment]
            continue
        with progress.bar("training" if kind is Record else "denoising") as show:
            for item in items:
                if isinstance(item, Record):
                    show(item.progress, item.shown)
                elif isinstance(item, float):
                    show(item)
    doubts = summary.pop("doubts")
    for name, value in summary.items():
        out.print(f"{name:18} {value}")
    gain = summary["psnr_denoised"] - summary["psnr_noisy"]
    over = summary["psnr_denoised"] - summary["psnr_gaussian"]
    out.print(f"gain over noisy {gain:+.2f} dB, over the best Gaussian filter {over:+.2f} dB")
    for doubt in doubts:
        out.print(f"warning: {doubt}")
    _tell_how_to_go_on(summary["steps"])
    out.print(f"look at: {output / 'before_after.png'} and {output / 'report.html'}", style="bold")
    out.print(
        f"next: cosdd denoise {commands.quoted(str(output / 'model.safetensors'))} "
        f"{commands.quoted(str(output / 'noisy_test.tif'))} -o {commands.quoted(str(output / 'again'))} --std",
        style="bold",
    )
    denoised, clean, noisy = (
        commands.quoted(str(output / f"{name}.tif")) for name in ("denoised", "clean_test", "noisy_test")
    )
    out.print(
        f"the same scores (PSNR with peak 1, not the range of each image), and others: cosdd evaluate {denoised} "
        f"{clean} --noisy {noisy} --range 1"
    )


@contextmanager
def _all_or_none(paths: Sequence[Path]) -> Iterator[None]:
    """One of several files at fault: say that nothing is learned from the others alone."""
    try:
        yield
    except InputError as error:
        if len(paths) > 1 and str(error).startswith(tuple(f"{path}: " for path in paths)):
            fix = "nothing is learned from the others alone: remove this file, or name those to learn from"
            raise InputError(f"{error}; {fix}") from error.__cause__
        raise


def _layers(
    context: typer.Context,
    config_file: Path | None,
    settings: list[str] | None,
    budget: str | None,
    seed: int | None,
    method: str | None,
    preset: str | None,
) -> list[dict[str, Any]]:
    """Settings in the order in which they win: file, --preset, --method, --time and --seed, --set.

    Raises InputError where --set contradicts another option that was given.
    """
    layers = [overrides.from_file(config_file)] if config_file else []
    if preset is not None:
        layers.append({"preset": preset})
    if method is not None:
        layers.append({"method": method})
    assigned = overrides.from_assignments(settings or [])
    for option, place, field, value in (("--time", "time_", "time", budget), ("--seed", "seed", "seed", seed)):
        if value is not None:
            layers.append(overrides.from_option(option, "train", field, value))
            if _given(context, place):
                overrides.refuse_contradiction(option, "train", field, value, assigned)
    if (axis := context.params.get("noise_axis", "auto")) != "auto":
        overrides.refuse_contradiction("--noise-axis", "model", "noise_axis", axis, assigned)
    return [*layers, assigned]


def _given(context: typer.Context, name: str) -> bool:
    """Did the user give this option, or is it at its default?"""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _train_along(ready: Ready, saved: Path | None) -> None:
    """The part of a process that is not the first: compute, and nothing else."""
    from cosdd import snapshot, training

    run = training.start(ready.settings, ready.frames)
    if saved is not None and saved.exists():
        snapshot.restore(run, saved)
    with suppress(KeyboardInterrupt):  # of which the first process tells
        for _ in training.fit(run):
            pass


def _attempt(job: Callable[[], Any]) -> None:
    """Neither snapshot nor picture is worth the run: a disk that is full may have room when the model is written."""
    try:
        job()
    except (InputError, RuntimeError, MemoryError) as error:
        out.print(f"note: {brief(str(error), 300)}")


def _describe_run(run: Run, notes: Sequence[str]) -> None:
    from cosdd import device, processes

    settings, frames = run.settings, run.frames
    count = sum(parameter.numel() for parameter in run.network.parameters())
    budget = f"{settings.train.steps} steps" if settings.train.steps else f"{settings.train.time:g} s"
    held = f"{len(frames.validation)} held out for validation" if frames.validation else "none held out: too few"
    bits = "bfloat16" if device.in_bfloat16(settings.train.precision, run.fabric.device) else "float32"
    crop = " x ".join(map(str, run.edges))
    together = f", {processes.count()} processes" if processes.count() > 1 else ""
    out.print(
        f"noise axis {settings.model.noise_axis}; method {settings.method}, preset {settings.preset}, "
        f"{count / 1e6:.1f} M parameters; {len(frames.train)} frames ({held}), crops {crop}; "
        f"{run.fabric.device.type}, {bits}{together}; budget {budget}"
    )
    for note in (*notes, *run.notes):
        out.print(f"note: {note}")


@contextmanager
def _interruptible(run: Run, saved: Path) -> Iterator[None]:
    """Ctrl-C ends training and keeps the best model, if there is one yet, and all that it takes to go on."""
    from cosdd import processes, snapshot

    with processes.between_updates():
        try:
            yield
        except KeyboardInterrupt as end:
            if not run.step:
                raise
            out.print(f"interrupted after {run.step} steps: keeping the best model so far")
            if isinstance(end, processes.Asked):
                _attempt(partial(snapshot.save, run, saved))
            if saved.exists():
                out.print("to go on with this run, give the same command with --resume")


def _tell_how_to_go_on(steps: int) -> None:
    from cosdd.checkpoint import FEW_STEPS

    if steps < FEW_STEPS:
        out.print("for a longer training, give the same command with a longer --time and --overwrite")
