"""The verbs. No logic: each reads its options, calls the room that does the work, and shows how it goes.

torch is imported inside a verb, so that ``cosdd --help`` is instant. The verbs that train have a room of their own.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from cosdd import __version__, cli_train, commands, overrides, progress, witness, writing
from cosdd.errors import InputError, about
from cosdd.progress import out

app = typer.Typer(
    help="Remove row- and column-correlated noise from scientific images, learning from the noisy images alone.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
INTERRUPTED = 130  # exit code, as the shell has it


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False) -> None:
    if version:
        out.print(f"cosdd {__version__}")
        raise typer.Exit


def denoise(
    context: typer.Context,
    model: commands.Model,
    files: commands.Files,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the results.")] = Path("denoised"),
    samples: commands.Samples = "auto",
    plain: Annotated[
        bool,
        typer.Option(
            "--plain",
            help="The paper's estimate, not refined: the mean of independent samples, 100 unless --samples says how "
            "many. With --direct what the network says, of a blind-row model the closed form.",
        ),
    ] = False,
    std: Annotated[bool, typer.Option("--std", help="Also write the standard deviation of the estimate.")] = False,
    save_samples: Annotated[int, typer.Option(help="Also write this many single samples.")] = 0,
    direct: Annotated[bool, typer.Option("--direct", help="Use the direct denoiser: one pass, no samples.")] = False,
    tile: Annotated[
        str,
        typer.Option(
            help="Tiles of a cosdd model: auto (as memory allows), none, or pixels. Changes nothing but rounding."
        ),
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
    axes: commands.Axes = None,
    seed: commands.Seed = 0,
    processes: Annotated[
        int, typer.Option("--workers", min=1, help="Processes on this machine that share the frames of each file.")
    ] = 1,
    dask: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Share them among the workers of a Dask scheduler, or of its file."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Skip what is done, go on with what was begun.")] = False,
    overwrite: commands.Overwrite = False,
) -> None:
    """Write denoised images with the names, axes and pixel sizes of the noisy ones."""
    from cosdd import images

    paths = images.find(files)  # before torch is loaded: a name may be mistyped
    commands.tell_not_read(files)
    from cosdd import outputs, recipe, workers
    from cosdd.denoise import Denoiser
    from cosdd.denoise import Settings as DenoiseSettings

    commands.refuse_as_folder(output)
    wanted = outputs.Wanted(std=std, samples=save_samples, dtype=dtype, format=format_)
    edge = commands.tile_edge(tile)
    number = commands.how_many(samples)
    asked = DenoiseSettings(
        samples=number, plain=plain, save_samples=save_samples, direct=direct, flips=flips, tile=edge, seed=seed
    )
    if direct and std:
        raise InputError("--std needs samples and --direct draws none: leave out one of them")
    denoiser = Denoiser.load(model)
    if std and number == 1 and denoiser.checkpoint.settings.method == "cosdd":
        raise InputError("--std needs at least two samples: raise --samples")
    if number is not None and denoiser.checkpoint.settings.method != "cosdd":
        out.print("note: --samples changes nothing: a blind-row model knows the mean of all of them in closed form")
    if edge is not None and denoiser.checkpoint.settings.method != "cosdd":
        out.print("note: --tile changes nothing: a blind-row model works row by row")
    context.with_resource(writing.claim(output, outputs.names(paths, output, wanted)))
    outputs.refuse_collisions(paths, output, wanted, overwrite or resume, axes)
    count, made_of = len(paths), recipe.fingerprint(model)

    def asked_of(path: Path) -> recipe.Recipe:
        return recipe.asked("denoise", made_of, path, axes, dtype, asked)

    if resume:
        paths = outputs.left(paths, output, wanted, asked_of, overwrite)
        commands.tell_done(count - len(paths), count)
    team = context.with_resource(workers.team(processes, dask)) if paths else None
    began = time.perf_counter()
    unlike: list[Path] = []

    def one(path: Path) -> list[str]:
        image, its_recipe = images.read(path, axes), asked_of(path)
        frames = denoiser.frames(image)
        commands.tell(image)
        with about(path):
            like = denoiser.likeness(frames)
        if like.light == "red":
            unlike.append(path)
        for note in like.notes:
            out.print(f"{'warning' if like.light == 'red' and note == like.answer else 'note'}: {note}")

        def made(numbers: Iterator[int]) -> Iterator[outputs.Frame | float]:
            with about(path):
                yield from outputs.by_name(denoiser.stream(frames, asked, numbers, like.defects), wanted)

        if team is None:
            fill = outputs.here(made)
        else:
            given = model.absolute(), path.absolute(), axes, asked, wanted, its_recipe
            fill = partial(team, workers.Denoising(*given))
        result = (image, denoiser.spatial, path, output, wanted, its_recipe)
        with progress.bar("denoising") as show:
            # A file with some of its results was being written when a run ended: they appear one after the other.
            return outputs.write_all(fill, *result, show, overwrite or resume, anew=overwrite and not resume)

    failed = commands.each(paths, count, one)
    out.print(f"denoised {len(paths) - failed} of {len(paths)} file(s) in {time.perf_counter() - began:.0f} s")
    if unlike:
        out.print(
            f"warning: {len(unlike)} of them, {unlike[0].name} for one, are not like the training images: do not trust "
            "the results, train a model on them"
        )
    commands.tell_failed(failed, count)


def report(
    context: typer.Context,
    model: commands.Model,
    file: Annotated[Path, typer.Argument(help="The noisy image.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Page to write (.html).")] = None,
    axes: commands.Axes = None,
    overwrite: commands.Overwrite = False,
) -> None:
    """Write one HTML page to look at and to trust or not: before and after, what was taken away, checks."""
    from cosdd import images

    path = images.find([str(file)])[0]  # before torch is loaded: a name may be mistyped
    from cosdd import report as pages
    from cosdd.checks import Checks
    from cosdd.denoise import Denoiser

    output = output or Path(images.output_path(path, Path()).with_suffix(".html").name)
    if output.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{output}: a report ends in .html: use -o {output.with_suffix('.html')}")
    writing.refuse_unwritable(output)
    context.with_resource(writing.claim(output.parent, [output.name]))
    denoiser = Denoiser.load(model)
    image = images.read(path, axes)
    commands.tell(image)
    facts = {"model file": model.name, "reported by": f"cosdd {__version__}"}
    with progress.bar("looking") as show, about(path, output):
        for part in pages.page(denoiser, image, output, facts, overwrite):
            if isinstance(part, Checks):
                out.print("\n".join(pages.in_words(part)))
            else:
                show(part)
    out.print(f"look at: {output}", style="bold")


def inspect(
    files: commands.Files,
    axes: commands.Axes = None,
    details: Annotated[bool, typer.Option("--details", help="All lines of each of several files.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per file.")] = False,
) -> None:
    """Say which noise this is: its correlation along each axis, its signal dependence, and what to do."""
    from cosdd import images, inspection

    paths, failed = images.find(files), 0
    axes_found: Counter[str] = Counter()
    for path in paths:
        try:
            image = images.read(path, axes)
            images.check(image)
            found = inspection.inspect_image(image, "YX" if "Y" in image.axes else "X")
        except InputError as error:
            if len(paths) == 1:
                raise
            failed += 1
            commands.complain(error)
            continue
        said = [*found.remarks.values(), *filter(None, map(found.swing_along, found.evidence.swing))]
        if image.data.size < inspection.FEW_PIXELS:
            said.append(f"only {image.data.size:,} pixels: little to tell the noise by, and little to learn from")
        if as_json:
            print(json.dumps({"file": str(path), "notes": [*image.remarks, *said]} | found.to_json()))
        elif details or len(paths) == 1:
            commands.tell(image)
            for line in (*found.lines(), *(f"note: {remark}" for remark in said)):
                out.print(f"  {line}")
        else:
            out.print(f"{path.name}: {found.verdict}")
            for remark in (*image.remarks, *said):
                out.print(f"  note: {remark}")
        axes_found[found.axis] += 1
    if not as_json:
        commands.tell_not_read(files)
    if len(paths) > 1 and not as_json:
        counts = ", ".join(f"{axis} in {count}" for axis, count in axes_found.most_common())
        out.print(f"{len(paths)} files: noise axis {counts or 'unknown'}; --details says more of each")
    if failed:
        raise typer.Exit(2 if failed == len(paths) else 1)


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
    axes: commands.Axes = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write the scores of every image.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    overwrite: commands.Overwrite = False,
) -> None:
    """Score denoised images: PSNR by its conventions, SSIM; against clean images, or against other frames."""
    from cosdd import evaluation

    if csv_file is not None:
        if csv_file.suffix.lower() != ".csv":  # an image or a model by mistake: --overwrite must not replace it
            raise InputError(f"--csv {csv_file}: expected a name that ends in .csv, such as --csv scores.csv")
        writing.refuse_existing(csv_file, overwrite)
        writing.refuse_unwritable(csv_file)
    if frames and noisy is not None:
        raise InputError("--noisy: with --frames the reference is what was denoised: leave out --noisy")
    names = evaluation.find(denoised)
    estimates = evaluation.read_planes(denoised, axes=axes)
    truth = evaluation.read_planes(reference, names, axes)
    before = None if noisy is None else evaluation.read_planes(noisy, names, axes)
    found = evaluation.evaluate(estimates, truth, before, frames=frames, data_range=data_range)
    if csv_file is not None:
        commands.write_table(csv_file, found.rows())
    if as_json:
        print(json.dumps(found.to_json()))
        return
    for line in found.lines():
        out.print(line)
    if csv_file is not None:
        out.print(f"scores of every image: {csv_file}")


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
    axes: commands.Axes = None,
    seed: commands.Seed = 0,
    overwrite: commands.Overwrite = False,
) -> None:
    """Make clean images noisy by a known recipe, and keep the clean partners."""
    from cosdd import images, simulation

    commands.refuse_as_folder(output)
    given = overrides.from_options(settings or [])
    paths = images.find(files)
    commands.tell_not_read(files)
    context.with_resource(writing.claim(output, [simulation.SUMMARY]))
    with progress.bar("simulating") as show:
        for share in simulation.write_all(
            paths, output, recipe, given, scale=full_scale, axes=axes, seed=seed, overwrite=overwrite
        ):
            show(share)
    noisy, summary = output / "noisy", output / simulation.SUMMARY
    out.print(f"{len(paths)} file(s): {noisy}, {output / 'clean'}; recipe and options: {summary}")
    scale = json.loads(summary.read_text(encoding="utf-8"))["full_scale"]
    out.print(
        f"full scale: grey value {scale:g} is intensity 1" + ("; --full-scale sets it" if full_scale is None else "")
    )
    model = commands.quoted(str(output / "model.safetensors"))
    out.print(f"next: cosdd train {commands.quoted(str(noisy))} -o {model}", style="bold")


def generate(
    context: typer.Context,
    model: commands.Model,
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
    axes: commands.Axes = None,
    seed: commands.Seed = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Skip what is done, go on with what was begun.")] = False,
    overwrite: commands.Overwrite = False,
) -> None:
    """Make images noisy with the noise that a model learned; or draw new images from a model of method cosdd."""
    from cosdd import generation, images, outputs, recipe
    from cosdd.denoise import Denoiser

    commands.refuse_as_folder(output)
    edges = None if size is None else generation.Settings.parse_size(size)
    asked = generation.Settings(count=count, size=edges, seed=seed)
    wanted = outputs.WantedVersions(count, pair=not files, dtype=dtype)
    if files and size is not None:
        raise InputError("--size is for images of the model's own: leave it out, or leave out the files")
    if not files and dtype != "float32":
        raise InputError("--dtype same is for files: images of the model's own are float32")
    denoiser = Denoiser.load(model)
    empty = None if files else generation.canvas(denoiser.checkpoint, asked)
    own = Path("generated.tif")
    paths = images.find(files) if files else [own]
    commands.tell_not_read(files or [])
    context.with_resource(writing.claim(output, outputs.names(paths, output, wanted)))
    outputs.refuse_collisions(paths, output, wanted, overwrite or resume, axes)
    todo, made_of = paths, recipe.fingerprint(model)

    def asked_of(path: Path) -> recipe.Recipe:
        return recipe.asked("generate", made_of, path if files else None, axes, dtype, asked)

    if resume:
        todo = outputs.left(paths, output, wanted, asked_of, overwrite)
        commands.tell_done(len(paths) - len(todo), len(paths))

    def one(path: Path) -> list[str]:
        if empty is None:
            image = images.read(path, axes)
            frames = denoiser.frames(image, may_be_flat=True)
            stream = partial(generation.noisy_versions, denoiser.checkpoint, frames, asked)
            notes = generation.doubts(denoiser.checkpoint, frames)
        else:
            image, notes = empty, []
            stream = partial(generation.new_images, denoiser.checkpoint, asked)

        def made(which: Iterator[int]) -> Iterator[outputs.Frame | float]:
            with about(path):
                yield from outputs.by_name(stream(which), wanted)

        commands.tell(image)
        if dtype == "same" and image.data.dtype.kind == "f":
            out.print("note: the file holds floats, for which --dtype same gives float32, not rounded")
        for note in notes:
            out.print(f"note: {note}")
        result = (image, denoiser.spatial, path, output, wanted, asked_of(path))
        with progress.bar("generating") as show:
            fill = outputs.here(made)
            return outputs.write_all(fill, *result, show, overwrite or resume, anew=overwrite and not resume)

    commands.tell_failed(commands.each(todo, len(paths), one), len(paths))


# In the order of use, which is that of the help.
app.command()(cli_train.demo)
app.command()(inspect)
app.command()(cli_train.train)
for verb in (denoise, report, evaluate, simulate, generate):
    app.command()(verb)


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 some files of a batch failed, 2 the input was at fault."""
    try:
        with witness.beside(commands.LESS_MEMORY), commands.terminable():
            app()
    except InputError as error:
        commands.complain(error)
        sys.exit(error.code)
    except (MemoryError, RuntimeError, ImportError, OSError) as error:
        commands.complain(commands.out_of_memory(error))
        sys.exit(2)
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and end.code != INTERRUPTED:
            raise
        print("cosdd: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
