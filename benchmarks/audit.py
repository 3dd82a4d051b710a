"""Known vulnerabilities of what is installed, from copies of public databases: ``make audit`` where nothing is reached.

python -m benchmarks.audit --pypa FOLDER --pyup FOLDER

--pypa    a checkout of github.com/pypa/advisory-database, from which the service of PyPI is fed that pip-audit asks
--pyup    a checkout of github.com/pyupio/safety-db, which safety asks (for checks like this one; not for resale)

Every package of this environment, with all that it brought, is looked up. Nothing of the databases is kept but the
numbers of what they found, and their dates.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Iterable, Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import yaml
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from benchmarks.record import Entry, circumstances, write

Affected = dict[str, list[str]]  # package: numbers of advisories, or what was affected


def installed() -> dict[str, Version]:
    """Without local parts: 2.13.0+cpu is 2.13.0."""
    found = {canonicalize_name(one.metadata["Name"]): Version(Version(one.version).public) for one in distributions()}
    found.pop("cosdd")
    return found


def pypa(folder: Path, packages: Mapping[str, Version]) -> tuple[Affected, int]:
    """What is affected, and how many advisories there are of these packages, in the OSV format."""
    found: Affected = {}
    files = [path for name in packages for path in sorted((folder / "vulns" / name).glob("*.yaml"))]
    every = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in files]
    standing = [advisory for advisory in every if not advisory.get("withdrawn")]
    for advisory in standing:
        for affected in advisory["affected"]:
            name = canonicalize_name(affected["package"]["name"])
            if name in packages and concerns(affected, packages[name]):
                found.setdefault(name, []).append(advisory["id"])
    return found, len(standing)


def concerns(affected: Mapping[str, Any], version: Version) -> bool:
    """Whether one entry of an advisory names this version, or a range that holds it."""
    if any(_same(each, version) for each in affected.get("versions", ())):
        return True
    return any(_within(each["events"], version) for each in affected.get("ranges", ()) if each["type"] == "ECOSYSTEM")


def _same(text: str, version: Version) -> bool:
    try:
        return Version(text) == version
    except InvalidVersion:  # of long ago
        return False


def _within(events: Iterable[Mapping[str, str]], version: Version) -> bool:
    """The last event up to this version decides; the files have them in any order."""
    inside = False
    for bound, kind in sorted((Version(text), kind) for event in events for kind, text in event.items()):
        if kind == "introduced" and version >= bound:
            inside = True
        elif (kind == "fixed" and version >= bound) or (kind == "last_affected" and version > bound):
            inside = False
    return inside


def pyup(folder: Path, packages: Mapping[str, Version]) -> tuple[Affected, int]:
    """The same of ranges of versions."""
    ranges = json.loads((folder / "data" / "insecure.json").read_text(encoding="utf-8"))
    known = {canonicalize_name(name): specs for name, specs in ranges.items() if not name.startswith("$")}
    found: Affected = {}
    for name in packages.keys() & known.keys():
        holding = [spec for spec in known[name] if SpecifierSet(spec).contains(packages[name], prereleases=True)]
        if holding:
            found[name] = holding
    return found, sum(len(known.get(name, ())) for name in packages)


def dated(folder: Path) -> str:
    command = ["git", "log", "-1", "--format=%cs"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def lines(entry: Entry) -> list[str]:
    """What it found, for docs/reliability.md."""
    found = entry["results"]
    told = [
        f"{name} as it was on {each['date']}: {each['advisories']:,} entries on these packages, "
        + ("none on these versions" if not each["affected"] else ", ".join(f"**{n}**" for n in each["affected"]))
        for name, each in found["databases"].items()
    ]
    return [
        f"- Known vulnerabilities of the {found['packages']} packages of the development environment: "
        f"{'; '.join(told)}. Nothing that became known later. (`{entry['command']}`; {circumstances(entry)}.)"
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pypa", type=Path, required=True)
    parser.add_argument("--pyup", type=Path, required=True)
    asked = parser.parse_args()
    packages, databases = installed(), {}
    for name, look, folder in (("PyPA", pypa, asked.pypa), ("pyup.io", pyup, asked.pyup)):
        affected, count = look(folder, packages)
        databases[name] = {"date": dated(folder), "advisories": count, "affected": affected}
    command = "python -m benchmarks.audit --pypa FOLDER --pyup FOLDER"
    path = write("audit", command, {"packages": len(packages), "databases": databases})
    print(json.dumps(databases, indent=2), path, sep="\n")


if __name__ == "__main__":
    main()
