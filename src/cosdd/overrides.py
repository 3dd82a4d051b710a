"""Settings as the user gives them, as YAML or one by one -> nested settings for ``config.build``."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from cosdd import config
from cosdd.errors import InputError, brief

LARGEST_TEXT, DEEPEST = 100_000, 20  # characters and levels of a YAML text that is still a configuration


def from_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """Turn ``["train.lr=1e-3", "model.levels=6"]`` into nested settings. What is given twice is what it was last."""
    settings: dict[str, Any] = {}
    for assignment in assignments:
        name, value = _assigned(assignment, "section.field=value, for example --set train.lr=1e-3")
        section, dot, field = name.partition(".")
        if not (dot and field):
            where = next((place for place in config.SECTIONS if name in config.SECTIONS[place].model_fields), None)
            meant = f"did you mean {where}.{name}?" if where else "for example --set train.lr=1e-3"
            raise InputError(f"--set {brief(assignment)}: expected section.field=value, {meant}")
        settings.setdefault(section, {})[field] = value
    return settings


def refuse_contradiction(option: str, section: str, field: str, value: Any, assigned: dict[str, Any]) -> None:
    """Raise InputError where an option and --set give one setting two values."""
    other = assigned.get(section, {}).get(field, value)
    if not _same(section, field, value, other):
        raise InputError(
            f"{option} {value} and --set {section}.{field}={other} contradict each other: leave out one of them"
        )


def from_option(option: str, section: str, field: str, value: Any) -> dict[str, Any]:
    """A setting that has an option of its own. Raises InputError, which names that."""
    settings = {section: {field: value}}
    try:
        config.build("tiny", settings)
    except InputError as error:
        raise InputError(str(error).replace(f"setting {section}.{field}=", f"{option} ", 1)) from None
    return settings


def from_options(assignments: Sequence[str]) -> dict[str, Any]:
    """Turn ``["gain=0.01", "axis=y"]`` into options of a simulation."""
    return dict(_assigned(assignment, "option=value, for example --set gain=0.01") for assignment in assignments)


def _same(section: str, field: str, one: Any, other: Any) -> bool:
    """Do two ways to write it give one value? 60 and "1m" are one time."""
    if one == other:
        return True
    try:
        built = [config.build("tiny", {section: {field: value}}) for value in (one, other)]
    except InputError:  # which is said by who builds all settings
        return True
    return built[0] == built[1]


def _assigned(assignment: str, expected: str) -> tuple[str, Any]:
    """Name and value of ``name=value``, the value read as YAML."""
    name, equals, text = assignment.partition("=")
    if not (equals and name.strip()):
        raise InputError(f"--set {brief(assignment)}: expected {expected}")
    try:
        value = _yaml(text)
    except (yaml.YAMLError, ValueError):
        raise InputError(f"--set {brief(assignment)}: the value is not valid YAML") from None
    if isinstance(value, str):  # YAML 1.1 reads 1e-3 as text
        with contextlib.suppress(ValueError):
            value = float(value)
    return name.strip(), value


class _Loader(yaml.SafeLoader):
    """Plain values, as SafeLoader makes them; refuses what is said twice, of which it takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [name.value for name, _ in node.value]
        if twice := [name for index, name in enumerate(names) if name in names[:index]]:
            raise ValueError(f"{brief(str(twice[0]))} is given twice: leave out one")
        return super().construct_mapping(node, deep)


def _yaml(text: str) -> Any:
    """The plain values in a YAML text. Raises YAMLError or ValueError, also for what can grow as it is read."""
    if len(text) > LARGEST_TEXT:
        raise ValueError(f"more than {LARGEST_TEXT:,} characters")
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent) or depth > DEEPEST:
            raise ValueError("aliases or many levels: write each setting out")
    try:
        return _Loader(text).get_single_data()
    except (TypeError, AttributeError, OverflowError) as error:  # of values that contradict their tags
        raise ValueError(str(error)) from None


def from_file(path: str | Path) -> dict[str, Any]:
    """Read nested settings from a YAML file. Raises InputError where it is missing or not a mapping."""
    try:
        with Path(path).open(encoding="utf-8") as file:
            text = file.read(LARGEST_TEXT + 1)
        settings = _yaml(text)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a configuration ({error})") from None
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{path}: not valid YAML ({brief(str(error), 300)})") from None
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise InputError(f"{path}: expected sections such as model and train, saw a {type(settings).__name__}")
    return settings
