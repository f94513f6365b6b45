"""Runs that are sent, by the real package to a made-up server: each step once over a pause, and each state told."""

import asyncio
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


def test_a_run_that_was_paused_goes_on_where_its_server_says(far: Wandb, tmp_path: Path) -> None:
    trackers = TrackerProcesses(tmp_path, Settings())
    rows = [Row(step, 1_700_000_000.0 + step, {"step": step, "train_loss": 1.5 / step}, {}) for step in range(1, 8)]

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
    assert not (tmp_path / "wandb" / "ftjob-x").exists()
