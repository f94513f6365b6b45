"""Runs that are sent, by the real package to a made-up server: each step once over a pause, each state, the artifacts."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from far.wandb import Wandb
from tunesmith.core.settings import Settings
from tunesmith.domain.recording import End, Row, Run
from tunesmith.notify.processes import TrackerProcesses

RUN: dict[str, Any] = {
    "kind": "wandb", "job_id": "ftjob-x", "place": 0, "project": "p", "name": "mine", "entity": None,
    "tags": ["openai/finetune"], "config": {"model": "nano"}, "created_at": 1_700_000_000.0, "secret": "w" * 40,
}  # fmt: skip
ROWS = [Row(step, 1_700_000_000.0 + step, {"step": step, "train_loss": 1.5 / step}, {}) for step in range(1, 8)]
FILES = {"step_metrics.csv": "step,train_loss\n1,1.5\n", "model.json": json.dumps({"name": "ft:nano"})}


def check_artifacts(far: Wandb) -> None:
    """Assert that both are there whole, each with its type and the run that it is of."""
    told = {known.fields["artifactTypeName"]: known for known in far.artifacts.values()}
    assert set(told) == {"fine-tune-results", "model"}
    for known, name in ((told["fine-tune-results"], "step_metrics.csv"), (told["model"], "model.json")):
        assert known.is_committed
        assert known.files[name].decode() == FILES[name]
        assert list(json.loads(known.files["wandb_manifest.json"])["contents"]) == [name]
        assert (known.fields["projectName"], known.fields["runName"]) == ("p", "ftjob-x")
    assert told["fine-tune-results"].fields["artifactCollectionName"] == "metrics-ftjob-x"
    assert json.loads(told["model"].fields["metadata"]) == {"name": "ft:nano"}


def test_artifacts_are_uploaded_and_committed_before_the_end_is_told(far: Wandb, tmp_path: Path) -> None:
    far.clear()
    trackers = TrackerProcesses(tmp_path, Settings())

    async def tell() -> None:
        run = await trackers.open(Run(base_url=far.url, **RUN))
        await run.tell(ROWS[:1])
        await run.end(End("succeeded", {"status": "succeeded"}, FILES))

    asyncio.run(tell())
    check_artifacts(far)
    assert far.runs["ftjob-x"].ends == [0]


def test_a_run_that_was_kept_here_is_sent_by_wandb_sync(far: Wandb, tmp_path: Path) -> None:
    far.clear()
    trackers = TrackerProcesses(tmp_path, Settings(wandb_mode="offline"))

    async def keep() -> None:
        run = await trackers.open(Run(**RUN))
        await run.tell(ROWS)
        await run.end(End("succeeded", {"status": "succeeded"}, FILES))

    asyncio.run(keep())
    (kept,) = tmp_path.glob("wandb/ftjob-x/wandb/offline-run-*")
    environment = {**os.environ, "WANDB_BASE_URL": far.url, "WANDB_API_KEY": "w" * 40, "WANDB_ERROR_REPORTING": "false"}
    done = subprocess.run(
        [sys.executable, "-m", "wandb", "sync", str(kept)],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    known = far.runs["ftjob-x"]
    assert [(line["_step"], line["train_loss"]) for line in known.history] == [
        (row.step, row.data["train_loss"]) for row in ROWS
    ]
    assert known.ends == [0]
    assert (known.fields["displayName"], known.summary["status"]) == ("mine", "succeeded")
    check_artifacts(far)


def test_a_run_that_was_paused_goes_on_where_its_server_says(far: Wandb, tmp_path: Path) -> None:
    far.clear()
    trackers, rows = TrackerProcesses(tmp_path, Settings()), ROWS

    async def tell() -> None:
        run = await trackers.open(Run(base_url=far.url, **RUN))
        assert run.last_step == -1
        await run.tell(rows[:4])
        await run.rest()
        assert (far.runs["ftjob-x"].preempting, far.runs["ftjob-x"].ends) == ([True], [1])
        run = await trackers.open(Run(base_url=far.url, **RUN))
        assert run.last_step == 4
        await run.tell([row for row in rows if row.step > run.last_step])
        await run.end(End("cancelled", {"status": "cancelled"}))

    asyncio.run(tell())
    known = far.runs["ftjob-x"]
    assert [(line["_step"], line["train_loss"], line["_timestamp"]) for line in known.history] == [
        (row.step, row.data["train_loss"], row.at) for row in rows
    ]
    assert known.ends == [1, 255]
    assert known.summary["status"] == "cancelled"
    assert (known.fields["displayName"], known.fields["tags"]) == ("mine", ["openai/finetune"])
    assert "host" not in known.fields
    assert known.fields["program"] == "tunesmith"
    assert not (tmp_path / "wandb" / "ftjob-x").exists()
