"""Every Python block of the documentation is run against a served app, page by page from its top.

Where a page waits for its job, the job has succeeded at once, and its model is the base: nothing is trained here.
"""

from pathlib import Path

import openai
import pytest

from laws import documented
from tunesmith.domain.states import Status
from tunesmith.store import jobs


def test_every_python_block_of_the_docs_runs(fresh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documented.few_examples(tmp_path)
    monkeypatch.chdir(tmp_path)

    with openai.OpenAI(base_url=fresh.base_url, api_key="any") as client:

        def succeed() -> None:
            results = client.files.create(file=("step_metrics.csv", b"step,train_loss\n1,0.5\n"), purpose="user_data").id
            waiting = list(client.fine_tuning.jobs.list())
            done = {"fine_tuned_model": "tunesmith-nano", "result_files": [results]}
            with fresh.composed.db.begin() as tx:
                for job in waiting:
                    for status in (Status.QUEUED, Status.RUNNING, Status.SUCCEEDED):
                        also = done if status is Status.SUCCEEDED else {}
                        assert jobs.swap(tx, fresh.scope, job.id, expect_status=list(Status), status=status, **also)

        said = documented.run_all(fresh.base_url, succeed)
    assert "step,train_loss" in said
    assert {"docs/migrate.md", "docs/howto/rewards.md", "docs/serving.md"} <= set(documented.pages())


def test_what_is_not_run_is_there() -> None:
    assert all(documented.python(documented.ROOT / page) for page in documented.NOT_RUN)
