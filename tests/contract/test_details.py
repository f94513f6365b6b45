"""What a job's page shows beyond the job object, over HTTP."""

from typing import Any

import httpx2
import openai
import pytest

from tunesmith.domain.scope import Project
from tunesmith.domain.states import Status
from tunesmith.store import jobs, metrics


@pytest.fixture
def job(fresh: Any) -> str:
    row = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
    with openai.OpenAI(base_url=fresh.base_url, api_key="any", max_retries=0) as client:
        file = client.files.create(file=("rows.jsonl", row * 10), purpose="fine-tune").id
        made = client.fine_tuning.jobs.create(
            model="tunesmith-nano",
            training_file=file,
            method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}},
        )
    return made.id


def get(served: Any, job: str, what: str = "", **query: Any) -> httpx2.Response:
    return httpx2.get(f"{served.root}/tunesmith/v1/fine_tuning/jobs/{job}{what}", params=query, trust_env=False)


def measure(served: Any, job: str, step: int, **values: float) -> None:
    with served.composed.db.begin() as tx:
        metrics.add(tx, served.scope, job, step, values)


def test_what_was_asked_and_what_came_of_it(fresh: Any, job: str):
    told = get(fresh, job).json()
    assert told["requested"] == {"n_epochs": 2, "batch_size": "auto", "learning_rate_multiplier": "auto"}
    assert told["resolved"] is None
    assert told["step"] is None
    measure(fresh, job, 3, train_loss=1.5)
    with fresh.composed.db.begin() as tx:
        assert jobs.swap(
            tx, fresh.scope, job, expect_status=list(Status), resolved={"batch_size": 1}, counts={"total_steps": 9}
        )
    told = get(fresh, job).json()
    assert (told["step"], told["total_steps"], told["resolved"]) == (3, 9, {"batch_size": 1})


def test_metrics_by_step_with_the_columns_that_have_values(fresh: Any, job: str):
    measure(fresh, job, 0, valid_loss=4.0)
    measure(fresh, job, 1, train_loss=2.0)
    measure(fresh, job, 2, train_loss=1.0, valid_loss=3.0)
    told = get(fresh, job, "/metrics").json()
    assert told["columns"] == ["step", "train_loss", "valid_loss"]
    assert told["rows"] == [[0, None, 4.0], [1, 2.0, None], [2, 1.0, 3.0]]
    assert get(fresh, job, "/metrics", after=1).json()["rows"] == [[2, 1.0, 3.0]]
    assert get(fresh, job, "/metrics", after=2).json()["rows"] == []


def test_a_long_curve_is_thinned_out(fresh: Any, job: str):
    with fresh.composed.db.begin() as tx:
        for step in range(1, 301):
            metrics.add(tx, fresh.scope, job, step, {"train_loss": 9.0 if step == 77 else 1.0})
    told = get(fresh, job, "/metrics", points=20).json()
    assert told["n_steps"] == 300
    assert len(told["rows"]) <= 24
    assert [77, 9.0] in told["rows"]


@pytest.mark.parametrize("query", [{"points": 1}, {"points": 100_001}, {"after": -1}, {"before": 3}])
def test_wrong_queries_are_refused_by_name(fresh: Any, job: str, query: dict[str, int]):
    answer = get(fresh, job, "/metrics", **query)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] in query


def test_another_projects_job_is_unknown(fresh: Any, job: str):
    assert get(fresh, "ftjob-none").status_code == 404
    assert fresh.composed.services.details.job(fresh.scope, job)[0].id == job
    with pytest.raises(Exception, match="ftjob-"):
        fresh.composed.services.details.curves(Project("proj_other"), job)
