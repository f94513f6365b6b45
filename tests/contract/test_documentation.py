"""Every Python block of the documentation, and every command, is run against a served app, page by page from its top.

Where a page waits for its job, the job has succeeded at once, and its model is the base: nothing is trained here.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from laws import documented, documented_shell
from near import lay_out
from tunesmith.cli.job_calls import ENDED
from tunesmith.domain.states import Status
from tunesmith.store import jobs, metrics


class World:
    """What the pages speak of, on a server: each is made when it is asked for."""

    def __init__(self, served: Any, client: openai.OpenAI, http: httpx2.Client, folder: Path) -> None:
        self._served, self._client, self._http, self._folder = served, client, http, folder
        self._of_pages: dict[tuple[str, str], str] = {}

    def succeed(self) -> None:
        """Let every job that has not ended have succeeded."""
        csv = ("step_metrics.csv", b"step,train_loss\n1,0.5\n")
        results = self._client.files.create(file=csv, purpose="user_data").id
        waiting = [job.id for job in self._client.fine_tuning.jobs.list() if job.status not in ENDED]
        done = {"fine_tuned_model": "tunesmith-nano", "result_files": [results]}
        with self._served.composed.db.begin() as tx:
            for job in waiting:
                for status in (Status.QUEUED, Status.RUNNING, Status.SUCCEEDED):
                    also: Any = done if status is Status.SUCCEEDED else {}
                    assert jobs.swap(tx, self._served.scope, job, expect_status=list(Status), status=status, **also)

    @property
    def made(self) -> dict[str, Callable[[str], str]]:
        """What stands for something in the pages' commands, and what makes it, by page."""
        return {
            r"(?<=watch )4sOdGC|ftjob-abc123|ftjob-def456": self._done,
            r"4sOdGC|ftjob-abc\b": lambda page: self._once(page, "job", lambda: self._job()),
            r"file-(…|abc|def)": lambda _: self._file(),
            r"proj_(…|abc)|(?<=limits )Speech": lambda page: self._once(
                page, "project", lambda: self._post("/v1/organization/projects", name=page)
            ),
            r"key_…": lambda _: self._post("/tunesmith/v1/keys", name="a"),
            "ENDPOINT": lambda _: self._post(
                "/v1/webhook_endpoints", name="ci", url="https://example.com/x", event_types=["fine_tuning.job.failed"]
            ),
            r"(?<!models alias )(?<!models remove )ft:tunesmith-nano\S*": lambda _: "tunesmith-nano",
            "/backups|/srv": lambda _: str(self._folder / "elsewhere"),
            "tunesmith-new": lambda page: f"{page}-restored",
            "monday": lambda page: f"{page}-backup",
        }

    def _once(self, page: str, what: str, make: Callable[[], str]) -> str:
        if (page, what) not in self._of_pages:
            self._of_pages[page, what] = make()
        return self._of_pages[page, what]

    def _file(self) -> str:
        rows = documented_shell.FILES["train.jsonl"].encode()
        return self._client.files.create(file=("t.jsonl", rows), purpose="fine-tune").id

    def _job(self) -> str:
        return self._client.fine_tuning.jobs.create(model="tunesmith-nano", training_file=self._file()).id

    def _done(self, _: str) -> str:
        job = self._job()
        self.succeed()
        with self._served.composed.db.begin() as tx:
            metrics.add(tx, self._served.scope, job, 1, {"train_loss": 0.5})
        return job

    def _post(self, path: str, **body: Any) -> str:
        return str(self._http.post(path, json=body).json()["id"])


@pytest.fixture
def world(fresh: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    documented.few_examples(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNESMITH_BASE_URL", fresh.base_url)
    with (
        openai.OpenAI(base_url=fresh.base_url, api_key="any") as client,
        httpx2.Client(base_url=fresh.root, trust_env=False) as http,
    ):
        yield World(fresh, client, http, tmp_path)


def test_every_python_block_and_command_of_the_docs_runs(fresh: Any, world: World, tmp_path: Path) -> None:
    for name in documented_shell.tuned():
        lay_out(fresh, name)
    said = documented.run_all(fresh.base_url, world.succeed)
    assert "step,train_loss" in said
    assert {"docs/migrate.md", "docs/howto/rewards.md", "docs/serving.md"} <= set(documented.pages())
    ran = documented_shell.run_all(fresh.root, tmp_path, world.made)
    assert len(ran) > 70


def test_what_is_not_run_is_there() -> None:
    assert all(documented.python(documented.ROOT / page) for page in documented.NOT_RUN)
