"""Each example runs as a reader of it would, with the official client against a real server: one epoch of its first rows."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tunesmith

pytestmark = pytest.mark.slow
EXAMPLES = Path(tunesmith.__path__[0]).parents[1] / "examples"
RUNS = sorted(EXAMPLES.glob("*/run.py"))
N_ROWS = {"training.jsonl": 10, "validation.jsonl": 2, "held_out.jsonl": 2}
KNOBS = '"hyperparameters": {'
LIMIT_S = 600


@pytest.fixture
def running(make_server: Callable[..., Any], tmp_path: Path) -> Iterator[list[tuple[str, subprocess.Popen[str]]]]:
    """All examples at once, so that they wait for one another's imports."""
    server = make_server(training_slots=len(RUNS))
    started: list[tuple[str, subprocess.Popen[str]]] = []
    for run in RUNS:
        folder = tmp_path / run.parent.name
        folder.mkdir()
        for file in run.parent.iterdir():
            lines = file.read_text().splitlines(keepends=True)
            (folder / file.name).write_text("".join(lines[: N_ROWS.get(file.name)]))
        # what `auto` makes of so few rows is many rounds of them
        text = run.read_text()
        assert text.count(KNOBS) == 1
        (folder / run.name).write_text(text.replace(KNOBS, KNOBS + '"n_epochs": 1, '))
        command = [sys.executable, str(folder / run.name), server.url]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        started.append((run.parent.name, subprocess.Popen(command, **pipes)))
    yield started
    for _, process in started:
        process.kill()
        process.communicate()
    with server.client as client:
        server.jobs += [job.id for job in client.fine_tuning.jobs.list()]


def test_every_example_tunes_a_model_and_measures_it(running: list[tuple[str, subprocess.Popen[str]]]) -> None:
    assert {name for name, _ in running} >= {"preferences", "reinforcement"}
    for name, process in running:
        told, _ = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0, f"{name}: {told}"
        base, tuned = told.splitlines()
        assert base.startswith("tunesmith-nano: ")
        assert tuned.startswith("ft:tunesmith-nano:")
        assert "; for example: " in tuned
