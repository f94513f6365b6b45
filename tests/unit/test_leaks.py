"""The leak oracle finds a leak of each kind, and none where there is none."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from laws import leaks

SLEEPS = [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"]


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "PATIENCE_S", 0.2)


def started(*, tag: bool, session: bool = False) -> subprocess.Popen[bytes]:
    """Start a process that lives on, and wait until it is itself."""
    tags = {"TUNESMITH_JOB": "ftjob-planted", "TUNESMITH_ATTEMPT": "1"} if tag else {}
    process = subprocess.Popen(SLEEPS, env={**os.environ, **tags}, stdout=subprocess.PIPE, start_new_session=session)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    return process


def told(folder: Path, act: Callable[[], object], processes: leaks.Processes = leaks.any_process) -> str:
    """Return what the oracle says of an act."""
    keep: list[object] = []
    with pytest.raises(pytest.fail.Exception) as failed, leaks.watched(folder, processes):
        keep.append(act())
    for kept in keep:
        if isinstance(kept, subprocess.Popen):
            kept.wait(30)
    return str(failed.value)


def test_a_tidy_test_leaves_nothing(tmp_path: Path) -> None:
    with leaks.watched(tmp_path, leaks.tagged):
        process = started(tag=True)
        process.kill()
        process.wait(30)
        with tempfile.TemporaryDirectory(), socket.socket():
            (tmp_path / "x.part").write_text("")
        (tmp_path / "x.part").unlink()


@pytest.mark.parametrize("processes", [leaks.any_process, leaks.tagged])
def test_a_process_of_a_job_is_found_and_killed(tmp_path: Path, processes: leaks.Processes) -> None:
    assert "process " in told(tmp_path, lambda: started(tag=True, session=True), processes)


def test_a_process_without_a_tag_counts_where_every_process_does(tmp_path: Path) -> None:
    assert "process " in told(tmp_path, lambda: started(tag=False))
    with leaks.watched(tmp_path, leaks.tagged):
        process = started(tag=False)
    process.kill()
    process.wait(30)


def test_somebody_else_s_process_does_not_count(tmp_path: Path) -> None:
    process = started(tag=True)
    with leaks.watched(tmp_path):
        pass
    assert process.poll() is None
    process.kill()
    process.wait(30)


@pytest.mark.parametrize("kind", ["socket", "pipe", "file"])
def test_an_open_descriptor_is_found(tmp_path: Path, kind: str) -> None:
    opened: list[int] = []

    def act() -> None:
        match kind:
            case "socket":
                opened.append(socket.socket().detach())
            case "pipe":
                opened.extend(os.pipe())
            case _:
                opened.append(os.open(tmp_path / "f", os.O_CREAT | os.O_RDWR))

    assert "descriptor: " in told(tmp_path, act)
    for descriptor in opened:
        os.close(descriptor)


def test_a_temporary_folder_is_found_and_removed(tmp_path: Path) -> None:
    made: list[Path] = []
    assert "temporary: " in told(tmp_path, lambda: made.append(Path(tempfile.mkdtemp())))
    assert not made[0].exists()


@pytest.mark.parametrize("name", ["blobs/files/x.0.unfinished", "attempts/j/2/task.json.part"])
def test_a_part_file_is_found(tmp_path: Path, name: str) -> None:
    part = tmp_path / name
    part.parent.mkdir(parents=True)
    if name.startswith("attempts"):
        (part.parent / "exit.json").write_text('{"exit_code": 0}')
    assert f"unfinished: {part}" in told(tmp_path, lambda: part.write_text(""))


def test_a_killed_attempt_may_leave_what_it_was_writing(tmp_path: Path) -> None:
    part = tmp_path / "blobs/jobs/j/attempts/2/checkpoints/000001/x.0.unfinished"
    with leaks.watched(tmp_path):
        part.parent.mkdir(parents=True)
        part.write_text("")
