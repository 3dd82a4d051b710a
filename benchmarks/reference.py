"""What is told from the code itself: the settings, the recipes of noise, and the Python interface by its docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import cosdd
from cosdd import config, denoise, generation, simulate

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


def recipes() -> list[str]:
    """Of docs/scores.md: the recipes of `cosdd simulate`, their formulas, and every option with its default."""
    lines: list[str] = []
    for name, recipe in simulate.RECIPES.items():
        told = inspect.getdoc(recipe) or ""
        about, _, arguments = told.partition("Args:\n")
        explained = _arguments(arguments) or _arguments((inspect.getdoc(simulate.stripe) or "").partition("Args:\n")[2])
        formula = [line.strip() for line in about.splitlines() if line.startswith("    ")]
        lines += ["", f"### {name}", "", about.splitlines()[0], ""]
        lines += ["```text", *formula, "```", ""] if formula else []
        lines += ["| option | default | |", "|---|---|---|"]
        for option, default in simulate.options(name, {}).items():
            lines.append(f"| `{option}` | {_plain(default)} | {explained[option]} |")
    return [*lines[1:], ""]


def _arguments(text: str) -> dict[str, str]:
    """What a docstring says of each argument, after "Args:"."""
    found = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", text.partition("\nReturns:")[0], re.MULTILINE)
    return {name: " ".join(said.split()) for name, said in found}


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


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
