"""What tests/gauntlet found, for docs/reliability.md: `make gauntlet` and `make fuzz` write the results."""

from __future__ import annotations

from benchmarks.record import Entry, circumstances


def images(entry: Entry) -> list[str]:
    found, commands = entry["results"], entry["results"]["commands"]
    return [
        f"- Bad images: {found['bad images']}, {sum(commands.values()):,} commands: {_counted(commands)}; "
        f"{found['tracebacks']} tracebacks. (`{entry['command']}`; {circumstances(entry)}.)"
    ]


def stores(entry: Entry) -> list[str]:
    found = entry["results"]
    return [
        f"- Denoising a stack of {found['frames']} frames into OME-Zarr, killed at a random moment and resumed: "
        f"{found['bit_identical']} of {found['kills']} identical bit for bit, {found['inside']} of them went on "
        f"inside the stack, {found['left_behind']} files left behind. (`{entry['command']}`; {circumstances(entry)}.)"
    ]


def faults(entry: Entry) -> list[str]:
    found = entry["results"]
    kills = sum(outcomes["killed"] for what, outcomes in found.items() if what.startswith("kill -9"))
    return [
        *(f"- {what[0].upper()}{what[1:]}: {_counted(outcomes)}." for what, outcomes in found.items()),
        f"- In all {kills} kills, nothing lost. (`{entry['command']}`; {circumstances(entry)}.)",
    ]


def fuzz(entry: Entry) -> list[str]:
    readers = entry["results"]
    crashes, hangs = (sum(found[kind] for found in readers.values()) for kind in ("crashes", "hangs"))
    files = {f"{name} files": found["files"] for name, found in readers.items()}
    least = min(found["seconds"] for found in readers.values())
    return [
        f"- Fuzzing, {least} seconds or more for each reader: {_counted(files)}: {crashes} crashes, {hangs} hangs. "
        f"(`{entry['command']}`; {circumstances(entry)}.)"
    ]


def _counted(outcomes: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.items())
