"""What is told of the machine."""

import os
from pathlib import Path

import pytest

from tunesmith.core import machine
from tunesmith.core.machine import Gpu


def test_cores_memory_and_disk_are_this_machines(tmp_path: Path) -> None:
    assert 1 <= machine.n_cores() <= (os.cpu_count() or 1)
    assert 0 < machine.memory_bytes() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    free = machine.free_disk_bytes(tmp_path / "not" / "there" / "yet")
    assert 0 < free <= os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize


@pytest.mark.parametrize(
    ("script", "gpus"),
    [
        ("echo 'NVIDIA H200, 143771'; echo 'Tesla, V100, 16160'", [("NVIDIA H200", 143771), ("Tesla, V100", 16160)]),
        ("echo 'No devices were found'; exit 6", []),
        ("echo 'NVIDIA H200, [N/A]'", []),
        ("", []),
    ],
)
def test_accelerators_are_what_the_drivers_tool_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, gpus: list[tuple[str, int]]
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert machine.gpus() == [Gpu(name, megabytes * 1024 * 1024) for name, megabytes in gpus]


def test_without_the_tool_or_with_one_that_does_not_start_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.gpus() == []
    (tmp_path / "nvidia-smi").write_text("#!/nowhere/sh\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert machine.gpus() == []


@pytest.mark.parametrize(
    ("n_bytes", "told"),
    [(0, "0 B"), (999, "999 B"), (9_400_000, "9.4 MB"), (1_600_000_000, "1.6 GB"), (5e13, "50.0 TB")],
)
def test_sizes_read_as_people_write_them(n_bytes: float, told: str) -> None:
    assert machine.readable_bytes(n_bytes) == told
