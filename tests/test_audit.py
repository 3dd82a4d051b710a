"""What is installed is looked up in copies of the databases of known vulnerabilities as their formats say."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.version import Version

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import audit, record  # noqa: E402


def ranges(*events: dict[str, str]) -> dict:
    return {"ranges": [{"type": "GIT", "events": []}, {"type": "ECOSYSTEM", "events": list(events)}]}


FIXED = ranges({"introduced": "0"}, {"fixed": "1.2"}, {"introduced": "2.0"}, {"fixed": "2.0.3"})
UNSORTED = ranges({"introduced": "2.0"}, {"fixed": "2.0.3"}, {"introduced": "0"}, {"fixed": "1.2"})
LAST = ranges({"introduced": "1.5"}, {"last_affected": "1.7"})


@pytest.mark.parametrize(
    ("entry", "version", "concerned"),
    [
        (FIXED, "1.1.9", True),
        (FIXED, "1.2", False),
        (FIXED, "1.9", False),
        (FIXED, "2.0.2", True),
        (FIXED, "2.0.3", False),
        (UNSORTED, "1.1", True),
        (UNSORTED, "1.9", False),
        (UNSORTED, "2.0.2", True),
        (UNSORTED, "2.0.3", False),
        (LAST, "1.4", False),
        (LAST, "1.7.0", True),
        (LAST, "1.7.1", False),
        ({"versions": ["1.0", "3.0.0", "of-long-ago"]}, "3.0", True),
        ({"versions": ["1.0", "3.0.0", "of-long-ago"]}, "3.1", False),
    ],
)
def test_an_advisory_concerns_the_versions_it_names(entry, version, concerned):
    assert audit.concerns(entry, Version(version)) is concerned


def test_what_is_installed_is_found_in_both_databases_and_the_page_tells_it(tmp_path, monkeypatch):
    advisory = {"id": "PYSEC-1", "affected": [{"package": {"name": "Py_YAML"}, "versions": ["5.0"]}]}
    withdrawn = advisory | {"id": "PYSEC-2", "withdrawn": "2020-01-01"}
    folder = tmp_path / "vulns" / "py-yaml"
    folder.mkdir(parents=True)
    for name, text in (("a", advisory), ("b", withdrawn)):
        (folder / f"{name}.yaml").write_text(json.dumps(text))
    (tmp_path / "data").mkdir()
    specs = {"$meta": {}, "numpy": ["<1.0", ">=2.0,<2.5"], "nobody-has-it": ["<9"]}
    (tmp_path / "data" / "insecure.json").write_text(json.dumps(specs))
    packages = {"py-yaml": Version("5.0"), "numpy": Version("2.4.1")}
    assert audit.pypa(tmp_path, packages) == ({"py-yaml": ["PYSEC-1"]}, 1)
    assert audit.pypa(tmp_path, packages | {"py-yaml": Version("5.1")}) == ({}, 1)
    assert audit.pyup(tmp_path, packages) == ({"numpy": [">=2.0,<2.5"]}, 2)

    for command in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", *who, "commit", "-qm", "all"], cwd=tmp_path, check=True)
    written = {}
    monkeypatch.setattr(audit, "installed", lambda: packages)
    monkeypatch.setattr(audit, "write", lambda name, command, results: written.update({name: results}))
    monkeypatch.setattr(sys, "argv", ["audit", "--pypa", str(tmp_path), "--pyup", str(tmp_path)])
    audit.main()
    entry = {"command": "c", "date": "d", "machine": record.machine(), "results": written["audit"]}
    (line,) = audit.lines(entry)
    assert line.startswith("- Known vulnerabilities of the 2 packages of the development environment: PyPA as it was")
    assert ": 1 entries on these packages, **py-yaml**" in line
    assert "**numpy**" in line


def test_this_environment_is_read_without_us():
    found = audit.installed()
    assert "cosdd" not in found
    assert found["torch"].local is None
    assert {"numpy", "pydantic-core"} <= found.keys()
