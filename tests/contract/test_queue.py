"""The queue over HTTP; nothing is scheduled, so jobs stand where the test puts them."""

import time
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest

from tunesmith.domain.scope import Project
from tunesmith.domain.states import Status
from tunesmith.store import jobs

PATH = "/tunesmith/v1"
OTHER = Project("proj_other", "org-default")
RESOLVED: dict[str, Any] = {"resolved": {"n_epochs": 1}, "attempt": 1, "released_at": 1.0}


@pytest.fixture
def house(fresh: Any) -> Iterator["House"]:
    with (
        openai.OpenAI(base_url=fresh.base_url, api_key="any", max_retries=0) as client,
        httpx2.Client(base_url=fresh.root, timeout=60, trust_env=False) as http,
    ):
        yield House(fresh, client, http)


class House:
    """A server with jobs that stand where they are put."""

    def __init__(self, served: Any, client: openai.OpenAI, http: httpx2.Client) -> None:
        self.served, self.client, self.http = served, client, http
        row = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
        self.file = client.files.create(file=("rows.jsonl", row * 10), purpose="fine-tune").id

    def job(self, *path: Status, **changes: Any) -> str:
        made = self.client.fine_tuning.jobs.create(model="tunesmith-nano", training_file=self.file)
        with self.served.composed.db.begin() as tx:
            for status in path:
                assert jobs.swap(tx, self.served.scope, made.id, expect_status=list(Status), status=status, **changes)
        return made.id

    def queued(self, queued_at: float, **changes: Any) -> str:
        return self.job(Status.QUEUED, **{**RESOLVED, "queued_at": queued_at, **changes})

    def running(self) -> str:
        at_work = {"attempt": 2, "released_at": None, "started_at": 5.0, "token_sha256": "t"}
        return self.job(Status.QUEUED, Status.RUNNING, **{**RESOLVED, **at_work})

    def of_another_project(self, job: str) -> None:
        with self.served.composed.db.begin() as tx:
            tx.execute(jobs.jobs.update().where(jobs.jobs.c.id == job).values(project_id=OTHER.project_id))

    def entry(self, job: str) -> dict[str, Any]:
        answer = self.http.get(f"{PATH}/fine_tuning/jobs/{job}/queue")
        assert answer.status_code == 200
        return answer.json()

    def queue(self, **query: Any) -> dict[str, Any]:
        answer = self.http.get(f"{PATH}/queue", params=query)
        assert answer.status_code == 200
        return answer.json()


def test_a_waiting_job_tells_its_place_and_what_it_waits_for(house: House) -> None:
    working, first, second = house.running(), house.queued(10.0), house.queued(20.0)
    assert house.entry(second) == {
        "object": "tunesmith.queue_entry",
        "job_id": second,
        "status": "queued",
        "position": 2,
        "jobs_ahead": 1,
        "reason": "training_slots",
        "message": "The only training slot is in use; 1 job is before it.",
        "not_before": None,
    }
    assert house.entry(working) == {
        "object": "tunesmith.queue_entry",
        "job_id": working,
        "status": "running",
        "position": None,
        "jobs_ahead": None,
        "reason": None,
        "message": "The job is running.",
        "not_before": None,
    }
    assert house.entry(first)["position"] == 1
    house.client.fine_tuning.jobs.pause(first)
    assert (house.entry(first)["status"], house.entry(first)["position"]) == ("paused", None)
    assert house.entry(second)["position"] == 1
    house.client.fine_tuning.jobs.resume(first)
    assert house.entry(first)["position"] == 2


def test_backoff_has_a_time(house: House) -> None:
    not_before = time.time() + 50.0
    lost = house.queued(10.0, not_before=not_before)
    entry = house.entry(lost)
    assert (entry["reason"], entry["not_before"], entry["position"]) == ("backoff", int(not_before), 1)


def test_the_queue_lists_what_waits_in_order_with_the_slots_taken(house: House) -> None:
    house.running()
    new = house.job()
    second, first = house.queued(20.0), house.queued(10.0)
    cancelled = house.queued(5.0)
    house.client.fine_tuning.jobs.cancel(cancelled)
    listed = house.queue()
    assert (listed["object"], listed["has_more"]) == ("list", False)
    assert [entry["job_id"] for entry in listed["data"]] == [first, second, new]
    assert listed["data"] == [house.entry(job) for job in (first, second, new)]
    assert listed["training"] == {"running": 1, "running_in_project": 1, "limit": 1, "limit_per_project": None}
    assert listed["validation"] == {"running": 0, "running_in_project": 0, "limit": 2, "limit_per_project": None}
    page = house.queue(limit=2)
    assert ([entry["job_id"] for entry in page["data"]], page["has_more"]) == ([first, second], True)
    page = house.queue(limit=2, after=second)
    assert ([entry["job_id"] for entry in page["data"]], page["has_more"]) == ([new], False)


def test_other_projects_jobs_are_a_number(house: House) -> None:
    theirs, own = house.queued(10.0), house.queued(20.0)
    house.of_another_project(theirs)
    assert [(entry["job_id"], entry["jobs_ahead"]) for entry in house.queue()["data"]] == [(own, 1)]
    answer = house.http.get(f"{PATH}/fine_tuning/jobs/{theirs}/queue")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "fine_tune_not_found")
    answer = house.http.get(f"{PATH}/queue", params={"after": theirs})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "after")


@pytest.mark.parametrize("job", ["ftjob-none", "x", "ftjob-ü"])
def test_an_unknown_job_is_a_404_in_openai_s_shape(http: httpx2.Client, job: str) -> None:
    answer = http.get(f"{PATH}/fine_tuning/jobs/{job}/queue")
    assert answer.status_code == 404
    assert answer.json() == {
        "error": {
            "message": f"Could not find fine tune: {job}",
            "type": "invalid_request_error",
            "param": "fine_tune_id",
            "code": "fine_tune_not_found",
        }
    }


@pytest.mark.parametrize(
    ("query", "param"), [({"limit": 0}, "limit"), ({"after": "x"}, "after"), ({"colour": "red"}, "colour")]
)
def test_a_bad_query_names_its_parameter(http: httpx2.Client, query: dict[str, Any], param: str) -> None:
    answer = http.get(f"{PATH}/queue", params=query)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
