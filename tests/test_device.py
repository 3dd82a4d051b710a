"""Memory is taken as far as it is there: for this process, and not for others."""

import sys

import pytest
import torch

from cosdd import device

CPU = torch.device("cpu")


@pytest.mark.skipif(sys.platform != "linux", reason="limits as Linux has them")
@pytest.mark.parametrize(
    ("line", "root", "limit", "usage", "total", "none"),
    [
        ("0::/job/step", "", "memory.max", "memory.current", "", "max"),
        ("4:memory:/job/step", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_", str(2**63 - 4096)),
    ],
    ids=["version 2", "version 1"],
)
def test_a_job_has_no_more_memory_than_its_limit_leaves(tmp_path, monkeypatch, line, root, limit, usage, total, none):
    monkeypatch.setattr(device, "CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(device, "CGROUPS", tmp_path)
    (tmp_path / "cgroup").write_text(f"9:name=systemd:/\n{line}\n")

    def say(group: str, most: str) -> None:
        folder = tmp_path / root / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / limit).write_text(f"{most}\n")
        (folder / usage).write_text("900000\n")
        (folder / "memory.stat").write_text(f"{total}inactive_file 300\n{total}active_file 50\n")

    say("job/step", none)
    assert device.free_memory(CPU) > 1e7
    say("job", "1000000")  # of a group around that of the process
    assert device.free_memory(CPU) == 100350  # what files have left in memory makes room
    say("job", "800000")
    assert device.free_memory(CPU) == 0
    assert device.pixels_at_once(CPU, 100) == 1
