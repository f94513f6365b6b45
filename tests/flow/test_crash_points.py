"""A server killed with -9 between any two commits, and at every other point that it passes, loses nothing answered for."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import openai
import pytest

from laws.failpoints import in_source

#: What this story does not come by: new bases, models that leave or are deleted, new tables, kept answers,
#: uploads in parts, webhooks, trackers, the log of requests. A life does, below.
ELSEWHERE = {
    "fetch.spawn", "inspect.spawn", "export.spawn", "preflight.spawn",
    "models.deleted", "migrate.upgrade", "migrate.upgraded",
    "idempotency.claim", "idempotency.keep", "idempotency.sweep",
    "completions.keep", "completions.describe", "completions.delete",
    "responses.keep", "responses.delete", "responses.sweep",
    "webhooks.fanned_out", "webhooks.sent",
    "audit.write",
    "recordings.told",
    "uploads.part_stored", "uploads.completed", "uploads.parts_deleted",
}  # fmt: skip


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[list[str]], set[str]]:
    """Return the lines that the story told, and the points that it passed."""
    script, folder = Path(__file__).parent / "crash_points.py", tmp_path_factory.mktemp("story")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(script.parents[1]), environment.get("PYTHONPATH", "")])
    told = subprocess.run(
        [sys.executable, str(script), str(folder)],
        env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stdout + told.stderr
    return [line.split() for line in told.stdout.splitlines()], set((folder / "visits").read_text().split())


@pytest.mark.slow
def test_nothing_answered_for_is_lost_at_any_point(story: tuple[list[list[str]], set[str]]) -> None:
    lines, _ = story
    assert {line[2] for line in lines} == {"held", "unpassed"}
    assert {line[0] for line in lines if line[2] == "unpassed"} == ELSEWHERE
    assert sum(line[0] == "store.committed" for line in lines) > 20


@pytest.mark.slow
def test_every_failpoint_of_the_source_is_passed(
    story: tuple[list[list[str]], set[str]], make_server: Any, tiny_base: Path, tmp_path: Path, eventually: Any
) -> None:
    """What the story does not pass, a life passes: new bases, a job paused and resumed, its model asked and deleted."""
    visits = tmp_path / "visits"
    server = type(make_server())(tmp_path / "life" / "data", warm_spares=1, tensorboard_dir=tmp_path / "boards")
    server.failpoints = f"*=note:{visits}"
    server.data_dir.parent.mkdir()
    try:
        live(server.start(), tiny_base, eventually)
    finally:
        server.kill(signal.SIGTERM)
        server.close()
    passed = set(visits.read_text().split()) | story[1]
    assert passed - in_source() == set(), "these have no name in the source, nor in the table of names made at run time"
    assert in_source() - passed == set(), "these were never passed"


def live(server: Any, base: Path, eventually: Any) -> None:
    root = server.url.removesuffix("/v1")
    with server.client as client:
        for body in ({"name": "tiny", "source": str(base)}, {"name": "none", "source": "nobody/nothing"}):
            client.post(f"{root}/tunesmith/v1/models", cast_to=dict[str, Any], body=body, options={"timeout": 120})
        hook: Any = {"name": "nobody", "url": "https://nobody.invalid/", "event_types": ["fine_tuning.job.cancelled"]}
        client.webhooks.create(**hook)
        client.put(f"{root}/tunesmith/v1/integrations/wandb", cast_to=dict[str, Any], body={"api_key": "k"})
        file = server.upload()
        cold: Any = {"model": "tiny", "training_file": file, "extra_headers": {"x-stainless-retry-count": "1"}}
        dropped = client.fine_tuning.jobs.create(**cold).id
        server.reaches(dropped, "queued", "running")
        client.fine_tuning.jobs.cancel(dropped)
        eventually(lambda: n_spares(client, root) == 2, "a spare of each kind")
        job = server.create(file, validation_file=server.upload(6))
        server.reaches(job, "running")
        client.fine_tuning.jobs.pause(job, extra_headers={"Idempotency-Key": "rest"})
        server.reaches(job, "paused")
        client.fine_tuning.jobs.resume(job)
        model = server.reaches(job, "succeeded").fine_tuned_model
        eventually(lambda: told_of(client, root, job) == ["finished"], "the boards know of it")
        question: Any = [{"role": "user", "content": "number 1"}]
        client.chat.completions.create(model=model, messages=question, max_tokens=4, n=16)  # one of which goes on for a step
        stored = client.chat.completions.create(model=model, messages=question, max_tokens=4, store=True).id
        client.chat.completions.update(stored, metadata={"k": "v"})
        client.chat.completions.delete(stored)
        client.get(f"{root}/tunesmith/v1/models/{model}/export?format=adapter", cast_to=openai.HttpxBinaryResponseContent)
        dry = {"model": "tiny", "training_file": file}
        client.post(f"{root}/tunesmith/v1/fine_tuning/preflight", cast_to=dict[str, Any], body=dry)
        client.responses.delete(client.responses.create(model=model, input="number 1", max_output_tokens=16).id)
        client.models.delete(model)
        client.files.delete(file)
        client.uploads.upload_file_chunked(
            file=b"{}\n", filename="a.jsonl", bytes=3, mime_type="text/plain", purpose="batch", part_size=2
        )


def told_of(client: Any, root: str, job: str) -> list[str]:
    told = client.get(f"{root}/tunesmith/v1/fine_tuning/jobs/{job}/integrations", cast_to=dict[str, Any])
    return [each["status"] for each in told["data"]]


def n_spares(client: Any, root: str) -> int:
    told = client.get(f"{root}/tunesmith/v1/spares", cast_to=dict[str, Any])
    return sum(spare["status"] == "ready" for spare in told["data"])
