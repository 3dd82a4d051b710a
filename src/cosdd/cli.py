"""The verbs. No logic: each reads its options, calls the room that does the work, and shows how it goes.

torch is imported inside a verb, so that ``cosdd --help`` is instant.
"""

from __future__ import annotations

import csv
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cosdd import __version__, config, progress, writing
from cosdd.config import InputError
from cosdd.progress import out

if TYPE_CHECKING:
    from cosdd.data import Ready
    from cosdd.training import Run

app = typer.Typer(
    help="Remove row- and column-correlated noise from scientific images, learning from the noisy images alone.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
FEW_STEPS = 300  # below this no method has learned much
INTERRUPTED = 130  # exit code, as the shell has it
OUT_OF_MEMORY = ("can't allocate memory", "annot allocate memory", "not enough memory", "bad_alloc")
OUT_OF_MEMORY += ("could not create a primitive", "could not create a memory object")  # in words of oneDNN
LESS_MEMORY = (
    "train with a smaller --set train.batch or train.crop, denoise smaller images or single frames, "
    "or use a machine with more memory"
)

Files = Annotated[
    list[str], typer.Argument(help="Images (TIFF, OME-TIFF, OME-Zarr, PNG, npy), folders or glob patterns.")
]
Axes = Annotated[str | None, typer.Option(help="Axes of the files where they do not say, such as TYX, ZYX or CYX.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what exists.")]
Seed = Annotated[int, typer.Option(help="Makes the command repeatable.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.FIELD=VALUE", help="Any setting, such as train.lr=1e-3.")
]
MethodName = Annotated[
    str | None, typer.Option(help="cosdd (the paper's), blind-row (quick, closed form) or auto.", show_default=False)
]
PresetName = Annotated[str | None, typer.Option(help=f"Where settings start from: {', '.join(config.PRESETS)}.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="Settings from a YAML file.")]
Budget = Annotated[str | None, typer.Option("--time", help="Training time, such as 90s, 10m or 2h.")]
Samples = Annotated[int, typer.Option(help="Posterior samples to average.")]


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False) -> None:
    if version:
        out.print(f"cosdd {__version__}")
        raise typer.Exit


@app.command()
def train(
    context: typer.Context,
    files: Files,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Model file to write (.safetensors).")] = None,
    time_: Budget = None,
    noise_axis: Annotated[
        str, typer.Option(help="Axis along which the noise is correlated: auto, x (rows), y (columns), z or none.")
    ] = "auto",
    method: MethodName = None,
    preset: PresetName = None,
    config_file: ConfigFile = None,
    settings: Settings = None,
    axes: Axes = None,
    seed: Annotated[int | None, typer.Option(help="Makes a run of a given number of steps repeatable.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run, or start one.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Learn the noise and the images from noisy images alone."""
    from cosdd import checkpoint, data, images, processes, snapshot, training
    from cosdd.denoise import Denoiser

    paths = images.find(files)
    layers = _layers(config_file, settings, time_, seed, method, preset)
    output = output or Path(images.output_path(paths[0], Path()).with_suffix(".safetensors").name)
    if output.suffix != ".safetensors":
        raise InputError(f"{output}: a model file ends in .safetensors: use -o {output.with_suffix('.safetensors')}")
    history, saved = output.with_suffix(".history.csv"), snapshot.path_for(output)
    if processes.rank() > 0:  # the first process speaks and writes
        if resume and output.exists() and not saved.exists():
            return  # trained to the end already, as the first one says
        _train_along(data.prepare(list(paths), axes, noise_axis, "tiny", *layers), saved if resume else None)
        return
    checkpoint.refuse_unwritable(output)
    context.with_resource(writing.claim(output.parent, [output.name, history.name, saved.name]))
    begun = resume and saved.exists()
    if resume and not begun and output.exists():
        out.print(f"{output}: trained to the end already; train it anew with --overwrite instead of --resume")
        return
    if saved.exists() and not (resume or overwrite):
        raise InputError(f"{saved}: an interrupted run is here: continue it with --resume, or add --overwrite")
    overwrite = overwrite or begun  # what an interrupted run left is an earlier state of the same model
    for path in (output, history):
        checkpoint.refuse_existing(path, overwrite)
    ready = data.prepare(list(paths), axes, noise_axis, "tiny", *layers)
    for image in ready.images:
        out.print(image.describe())
    if ready.inspection is not None:
        for line in ready.inspection.lines():
            out.print(f"  {line}")
    run = training.start(ready.settings, ready.frames)
    _describe_run(run, ready.notes)
    if begun:
        snapshot.restore(run, saved)
        out.print(f"continuing after {run.step} steps, {run.seconds:.0f} s")
    elif not resume:
        saved.unlink(missing_ok=True)
    save = snapshot.Saver(run, saved, run.settings.train.snapshot)
    with progress.bar("training") as show, _interruptible(run, saved):
        for record in training.fit(run):
            show(record.progress, record.shown)
            try:
                save()
            except InputError as error:  # a full disk now may have room again when the model is written
                out.print(f"note: no snapshot: {error}")
    trained = training.finish(run)
    checkpoint.save(trained, output, overwrite)
    _write_table(history, trained.history)
    if training.ended(run):
        saved.unlink(missing_ok=True)
    last = trained.history[-1]
    out.print(
        f"trained {trained.steps} steps in {trained.seconds:.0f} s"
        + (f" ({run.skipped} skipped: not finite)" if run.skipped else "")
        + ": "
        + ", ".join(f"{name} {last[name]:.3f}" for name in training.SHOWN if name in last)
    )
    if trained.steps < FEW_STEPS:
        out.print(f"only {trained.steps} steps: barely trained; give it a longer --time, on a machine that is not busy")
    if trained.settings.method != "cosdd":
        learned = Denoiser(trained).noise()
        for channel, noise in enumerate(learned):
            out.print(f"learned noise{f' of channel {channel}' if len(learned) > 1 else ''}: {noise.describe()}")
    out.print(f"model: {output}   history: {history}")
    inputs = " ".join(_quoted(name) for name in files)
    out.print(f"next: cosdd denoise {_quoted(str(output))} {inputs} -o denoised", style="bold")


@app.command()
def denoise(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help="Model file made by cosdd train.")],
    files: Files,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the results.")] = Path("denoised"),
    samples: Samples = 100,
    std: Annotated[bool, typer.Option("--std", help="Also write the standard deviation over the samples.")] = False,
    save_samples: Annotated[int, typer.Option(help="Also write this many single samples.")] = 0,
    direct: Annotated[bool, typer.Option("--direct", help="Use the direct denoiser: one pass, no samples.")] = False,
    tile: Annotated[
        str, typer.Option(help="Tiles of a cosdd model: auto (as memory allows), none, or pixels. The result is equal.")
    ] = "auto",
    flips: Annotated[
        bool, typer.Option("--flips", help="Average over mirrored images too: a little better, four times the work.")
    ] = False,
    dtype: Annotated[
        str, typer.Option(help="float32, or same: the integer type of the input, rounded and clipped.")
    ] = "float32",
    format_: Annotated[
        str, typer.Option("--format", help="Files to write: same as the input, tif, ome.tif, ome.zarr or npy.")
    ] = "same",
    axes: Axes = None,
    seed: Seed = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Skip files whose results are there already.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Write denoised images with the names, axes and pixel sizes of the noisy ones."""
    from cosdd import checks, images, outputs
    from cosdd.denoise import Denoiser
    from cosdd.denoise import Settings as DenoiseSettings

    wanted = outputs.Wanted(std=std, samples=save_samples, dtype=dtype, format=format_)
    if tile not in ("auto", "none") and not tile.isdecimal():
        raise InputError(f"--tile {tile}: expected auto, none, or pixels along the edge of a tile")
    edge = None if tile == "auto" else sys.maxsize if tile == "none" else int(tile)
    asked = DenoiseSettings(
        samples=samples, save_samples=save_samples, direct=direct, flips=flips, tile=edge, seed=seed
    )
    if direct and std:
        raise InputError("--std needs samples and --direct draws none: leave out one of them")
    denoiser = Denoiser.load(model)
    if std and samples < 2 and denoiser.checkpoint.settings.method == "cosdd":
        raise InputError("--std needs at least two samples: raise --samples")
    paths = images.find(files)
    context.with_resource(writing.claim(output, outputs.names(paths, output, wanted)))
    outputs.refuse_collisions(paths, output, wanted, overwrite or resume)
    count = len(paths)
    if resume:
        todo = [path for path in paths if not outputs.done(path, output, wanted)]
        out.print(f"{count - len(todo)} of {count} file(s) have their results already")
        # A file with some of its results was being written when the run ended: results appear one after the other.
        paths, overwrite = todo, True
    began = time.perf_counter()

    def one(path: Path) -> list[str]:
        image = images.read(path, axes)
        frames = denoiser.frames(image)
        out.print(image.describe())
        like = checks.likeness(frames, denoiser.checkpoint.statistics)
        if like.light != "green":
            out.print(f"note: {like.answer}")
        with progress.bar("denoising") as show:
            return outputs.write_all(denoiser.stream(frames, asked), image, path, output, wanted, overwrite, show)

    failed = _each(paths, count, one)
    out.print(f"denoised {len(paths) - failed} of {len(paths)} file(s) in {time.perf_counter() - began:.0f} s")
    _tell_failed(failed, count)


@app.command()
def report(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help="Model file made by cosdd train.")],
    file: Annotated[Path, typer.Argument(help="The noisy image.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Page to write (.html).")] = None,
    axes: Axes = None,
    overwrite: Overwrite = False,
) -> None:
    """Write one HTML page to look at and to trust or not: before and after, what was taken away, checks."""
    from cosdd import checkpoint, images
    from cosdd import report as pages
    from cosdd.denoise import Denoiser

    path = images.find([str(file)])[0]
    output = output or Path(images.output_path(path, Path()).with_suffix(".html").name)
    if output.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{output}: a report ends in .html: use -o {output.with_suffix('.html')}")
    checkpoint.refuse_unwritable(output)
    context.with_resource(writing.claim(output.parent, [output.name]))
    denoiser = Denoiser.load(model)
    image = images.read(path, axes)
    out.print(image.describe())
    facts = {"model file": model.name, "reported by": f"cosdd {__version__}"}
    with progress.bar("looking") as show:
        for share in pages.page(denoiser, image, output, facts, overwrite):
            show(share)
    out.print(f"look at: {output}", style="bold")


@app.command()
def inspect(
    files: Files,
    axes: Axes = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per file.")] = False,
) -> None:
    """Say which noise this is: its correlation along each axis, its signal dependence, and what to do."""
    from cosdd import images, inspection

    paths, failed = images.find(files), 0
    for path in paths:
        try:
            image = images.read(path, axes)
            images.check(image)
            found = inspection.inspect_image(image, "YX" if "Y" in image.axes else "X")
        except InputError as error:
            if len(paths) == 1:
                raise
            failed += 1
            _complain(error)
            continue
        if as_json:
            print(json.dumps({"file": str(path)} | found.to_json()))
        else:
            out.print(image.describe())
            for line in found.lines():
                out.print(f"  {line}")
    if failed:
        raise typer.Exit(2 if failed == len(paths) else 1)


@app.command()
def evaluate(
    denoised: Annotated[str, typer.Argument(help="Denoised image, or a folder of them.")],
    reference: Annotated[
        str, typer.Argument(help="Clean image(s) of the same names; or with --frames the noisy ones.")
    ],
    noisy: Annotated[str | None, typer.Option(help="What was denoised: scored too, for comparison.")] = None,
    frames: Annotated[
        bool,
        typer.Option(
            "--frames",
            help="No clean image: the reference holds the noisy frames of one still scene, and "
            "each frame is scored against the mean of the others.",
        ),
    ] = False,
    data_range: Annotated[
        float | None, typer.Option("--range", help="Also PSNR with this peak, such as 255 or 1.")
    ] = None,
    axes: Axes = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write the scores of every image.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Score denoised images: PSNR by its conventions, SSIM; against clean images, or against other frames."""
    from cosdd import checkpoint, evaluation, images

    if csv_file is not None:
        checkpoint.refuse_existing(csv_file, overwrite)
        checkpoint.refuse_unwritable(csv_file)
    if frames and noisy is not None:
        raise InputError("--noisy: with --frames the reference is what was denoised: leave out --noisy")
    names = images.find([denoised])
    estimates = evaluation.read_planes(denoised, axes=axes)
    truth = evaluation.read_planes(reference, names, axes)
    before = None if noisy is None else evaluation.read_planes(noisy, names, axes)
    found = evaluation.evaluate(estimates, truth, before, frames=frames, data_range=data_range)
    if csv_file is not None:
        _write_table(csv_file, found.rows())
    if as_json:
        print(json.dumps(found.to_json()))
        return
    for line in found.lines():
        out.print(line)
    if csv_file is not None:
        out.print(f"scores of every image: {csv_file}")


@app.command()
def simulate(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(help="stripe or checkerboard (the paper's), heavy, or row-ar.")],
    files: Annotated[list[str], typer.Argument(help="Clean images (TIFF, OME-Zarr, PNG, npy), folders or patterns.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for noisy/ and clean/.")] = Path("simulated"),
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="OPTION=VALUE", help="An option of the recipe, such as gain=0.01 or axis=y."),
    ] = None,
    full_scale: Annotated[
        float | None, typer.Option(help="Grey value of intensity 1; else 255 for 8 bits, 1, or the largest value.")
    ] = None,
    axes: Axes = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Make clean images noisy by a known recipe, and keep the clean partners."""
    from cosdd import images
    from cosdd import simulate as recipes

    given = config.from_options(settings or [])
    paths = images.find(files)
    context.with_resource(writing.claim(output, [recipes.SUMMARY]))
    with progress.bar("simulating") as show:
        for share in recipes.write_all(
            paths, output, recipe, given, scale=full_scale, axes=axes, seed=seed, overwrite=overwrite
        ):
            show(share)
    noisy, summary = output / "noisy", output / recipes.SUMMARY
    out.print(f"{len(paths)} file(s): {noisy}, {output / 'clean'}; recipe and options: {summary}")
    model = _quoted(str(output / "model.safetensors"))
    out.print(f"next: cosdd train {_quoted(str(noisy))} -o {model}", style="bold")


@app.command()
def generate(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help="Model file made by cosdd train.")],
    files: Annotated[
        list[str] | None,
        typer.Argument(help="Clean or denoised images to make noisy; without any, the model draws images of its own."),
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the results.")] = Path("generated"),
    size: Annotated[
        str | None, typer.Option(help="Edges of the model's own images in pixels, such as 256x256.")
    ] = None,
    count: Annotated[int, typer.Option(help="Noisy versions of each file; or images of the model's own.")] = 1,
    dtype: Annotated[
        str, typer.Option(help="float32, or same: the integer type of the file, rounded and clipped.")
    ] = "float32",
    axes: Axes = None,
    seed: Seed = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Skip what is there already.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Make images noisy with the noise that a model learned; or draw new images from a model of method cosdd."""
    from cosdd import generation, images, outputs
    from cosdd.denoise import Denoiser

    edges = None if size is None else generation.Settings.parse_size(size)
    asked = generation.Settings(count=count, size=edges, seed=seed)
    wanted = outputs.WantedVersions(count, pair=not files, dtype=dtype)
    if files and size is not None:
        raise InputError("--size is for images of the model's own: leave it out, or leave out the files")
    if not files and dtype != "float32":
        raise InputError("--dtype same is for files: images of the model's own are float32")
    denoiser = Denoiser.load(model)
    own = Path("generated.tif")
    paths = images.find(files) if files else [own]
    context.with_resource(writing.claim(output, outputs.names(paths, output, wanted)))
    outputs.refuse_collisions(paths, output, wanted, overwrite or resume)
    todo = [path for path in paths if not (resume and outputs.done(path, output, wanted))]
    if resume:
        out.print(f"{len(paths) - len(todo)} of {len(paths)} already have their results")

    def one(path: Path) -> list[str]:
        if files:
            image = images.read(path, axes)
            frames = denoiser.frames(image, may_be_flat=True)
            stream = generation.noisy_versions(denoiser.checkpoint, frames, asked)
            note = generation.doubt(denoiser.checkpoint, frames)
        else:
            image, note = generation.canvas(denoiser.checkpoint, asked), None
            stream = generation.new_images(denoiser.checkpoint, asked)
        out.print(image.describe())
        if note:
            out.print(f"note: {note}")
        with progress.bar("generating") as show:
            return outputs.write_all(stream, image, path, output, wanted, overwrite or resume, show)

    _tell_failed(_each(todo, len(paths), one), len(paths))


@app.command()
def demo(
    context: typer.Context,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for images, model and summary.")] = Path(
        "demo"
    ),
    time_: Budget = "3m",
    method: MethodName = None,
    preset: PresetName = None,
    settings: Settings = None,
    samples: Samples = 100,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Simulate a specimen, make it noisy, train, denoise what was held out: minutes on two CPU cores."""
    from cosdd import demo as story
    from cosdd.training import Record

    layers = _layers(None, settings, time_, seed, method, preset)
    context.with_resource(writing.claim(output, [story.SUMMARY]))
    summary: dict[str, Any] = {}
    for kind, items in groupby(story.run(output, seed, overwrite, layers, samples), type):
        if kind is dict:
            summary = next(items)  # type: ignore[assignment]
            continue
        with progress.bar("training" if kind is Record else "denoising") as show:
            for item in items:
                if isinstance(item, Record):
                    show(item.progress, item.shown)
                elif isinstance(item, float):
                    show(item)
    for name, value in summary.items():
        out.print(f"{name:18} {value}")
    gain = summary["psnr_denoised"] - summary["psnr_noisy"]
    over = summary["psnr_denoised"] - summary["psnr_gaussian"]
    out.print(f"gain over noisy {gain:+.2f} dB, over the best Gaussian filter {over:+.2f} dB")
    out.print(f"look at: {output / 'before_after.png'} and {output / 'report.html'}", style="bold")
    out.print(
        f"next: cosdd denoise {_quoted(str(output / 'model.safetensors'))} "
        f"{_quoted(str(output / 'noisy_test.tif'))} -o {_quoted(str(output / 'again'))} --std",
        style="bold",
    )


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 some files of a batch failed, 2 the input was at fault."""
    try:
        with _terminable():
            app()
    except InputError as error:
        _complain(error)
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        _complain(_out_of_memory(error))
        sys.exit(2)
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and end.code != INTERRUPTED:
            raise
        print("cosdd: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


@contextmanager
def _terminable() -> Iterator[None]:
    """A scheduler's SIGTERM ends a run like Ctrl-C: in order."""
    import signal

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _out_of_memory(error: Exception) -> InputError:
    """The line for running out of memory: Python's, torch's on a GPU or the CPU, a C++ library's. Raises all else."""
    text = " ".join(str(error).split())
    if not (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or any(words in text for words in OUT_OF_MEMORY)
    ):
        raise error
    return InputError(f"out of memory ({text or 'nothing left'}): {LESS_MEMORY}")


def _each(paths: Sequence[Path], count: int, job: Callable[[Path], list[str]]) -> int:
    """Do the job for each file, say what it has to say, and go on where one of several fails; returns how many did."""
    failed = 0
    for path in paths:
        try:
            written = job(path)
        except (InputError, MemoryError, RuntimeError) as error:
            if count == 1:
                raise
            failed += 1
            _complain(error if isinstance(error, InputError) else _out_of_memory(error))
            continue
        for line in written:
            out.print(f"  {line}")
    return failed


def _tell_failed(failed: int, count: int) -> None:
    if failed:
        out.print(f"{failed} failed, each for the reason above; the others are done")
        raise typer.Exit(2 if failed == count else 1)


def _complain(error: InputError) -> None:
    print("cosdd: " + progress.plain(" ".join(str(error).split())), file=sys.stderr)


def _layers(
    config_file: Path | None,
    settings: list[str] | None,
    budget: str | None,
    seed: int | None,
    method: str | None,
    preset: str | None,
) -> list[dict[str, Any]]:
    """Settings in the order in which they win: file, --preset, --method, --time and --seed, --set."""
    layers = [config.from_file(config_file)] if config_file else []
    if preset is not None:
        layers.append({"preset": preset})
    if method is not None:
        layers.append({"method": method})
    if budget is not None:
        layers.append({"train": {"time": budget}})
    if seed is not None:
        layers.append({"train": {"seed": seed}})
    layers.append(config.from_assignments(settings or []))
    return layers


def _train_along(ready: Ready, saved: Path | None) -> None:
    """The part of a process that is not the first: compute, and nothing else."""
    from cosdd import snapshot, training

    run = training.start(ready.settings, ready.frames)
    if saved is not None and saved.exists():
        snapshot.restore(run, saved)
    for _ in training.fit(run):
        pass


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
    """Ctrl-C ends training and keeps the best model, if there is one yet."""
    try:
        yield
    except KeyboardInterrupt:
        if not run.step:
            raise
        out.print(f"interrupted after {run.step} steps: keeping the best model so far")
        if saved.exists():
            out.print("to go on with this run, give the same command with --resume")


def _write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with writing.whole(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, sorted({name for row in rows for name in row}))
        writer.writeheader()
        writer.writerows(rows)


def _quoted(name: str) -> str:
    import shlex

    return shlex.quote(name)
