"""What training sampled and changed, over HTTP; the files are put where a worker writes them."""

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest

from tunesmith.domain.scope import Project
from tunesmith.domain.states import Status
from tunesmith.store import jobs

OTHER = Project("proj_other", "org-default")
BASE = "tunesmith-nano"


class House:
    """A server with one job, and what its attempts wrote."""

    def __init__(self, served: Any, client: openai.OpenAI, http: httpx2.Client) -> None:
        self.served, self.http = served, http
        row = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
        file = client.files.create(file=("rows.jsonl", row * 10), purpose="fine-tune").id
        self.job = client.fine_tuning.jobs.create(model=BASE, training_file=file).id
        with served.composed.db.begin() as tx:
            assert jobs.swap(tx, served.scope, self.job, expect_status=list(Status), status=Status.QUEUED, attempt=3)

    def put(self, attempt: int, name: str, text: str) -> None:
        blobs = self.served.composed.folder.path / "blobs"
        path = blobs / "jobs" / self.job / "attempts" / str(attempt) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def sampled(self, attempt: int, step: int, *rollouts: Any) -> None:
        self.put(attempt, f"rollouts/{step:06d}.jsonl", "".join(json.dumps(rollout) + "\n" for rollout in rollouts))

    def get(self, what: str, **query: Any) -> httpx2.Response:
        return self.http.get(f"/tunesmith/v1/fine_tuning/jobs/{self.job}/{what}", params=query)

    def rollouts(self, **query: Any) -> dict[str, Any]:
        answer = self.get("rollouts", **query)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
def house(fresh: Any) -> Iterator[House]:
    with (
        openai.OpenAI(base_url=fresh.base_url, api_key="any", max_retries=0) as client,
        httpx2.Client(base_url=fresh.root, timeout=60, trust_env=False) as http,
    ):
        yield House(fresh, client, http)


def sample(step: int, row: int, text: str, split: str = "train", **more: Any) -> dict[str, Any]:
    return {
        "step": step, "split": split, "row": row, "sample": 0, "messages": [{"role": "user", "content": "a"}],
        "output_text": text, "output_tools": [], "finish_reason": "stop", "reward": 0.5, "error": None,
        "scores": {"a": 0.5}, "advantage": -0.1, "prompt_tokens": 3, "completion_tokens": 4, **more,
    }  # fmt: skip


def texts(body: dict[str, Any]) -> list[str]:
    return [rollout["output_text"] for rollout in body["data"]]


def test_a_job_that_sampled_nothing_has_an_empty_list(house: House) -> None:
    assert house.rollouts() == {"object": "list", "data": [], "has_more": False, "step": None, "steps": []}
    assert house.rollouts(step=7) == {"object": "list", "data": [], "has_more": False, "step": 7, "steps": []}


def test_a_steps_rollouts_are_told_whole_and_the_newest_attempts_count(house: House) -> None:
    first = sample(0, 0, "before", split="valid", advantage=None)
    house.sampled(1, 0, first)
    house.sampled(1, 12, sample(12, 0, "lost"))
    house.sampled(2, 12, sample(12, 0, "kept"), sample(12, 1, "half \ud800 a pair", reward=float("nan")))
    house.put(2, "rollouts/000012.jsonl.x.unfinished", "{")
    newest = house.rollouts()
    assert (newest["step"], newest["steps"], newest["has_more"]) == (12, [0, 12], False)
    assert texts(newest) == ["kept", "half \ud800 a pair"]
    assert newest["data"][1]["reward"] is None
    (told,) = house.rollouts(step=0)["data"]
    assert told == {**first, "object": "tunesmith.rollout", "id": "rollout-0-0", "job_id": house.job}
    assert house.rollouts(step=1) == {"object": "list", "data": [], "has_more": False, "step": 1, "steps": [0, 12]}


def test_rollouts_come_in_pages_and_by_split(house: House) -> None:
    split = ("train", "valid")
    house.sampled(1, 3, *(sample(3, number, str(number), split=split[number % 2]) for number in range(7)))
    page, seen = house.rollouts(limit=3), list[str]()
    while True:
        seen += texts(page)
        if not page["has_more"]:
            break
        page = house.rollouts(limit=3, after=page["data"][-1]["id"])
    assert seen == list("0123456")
    assert texts(house.rollouts(split="train")) == list("0246")
    page = house.rollouts(split="valid", limit=2)
    assert (texts(page), page["has_more"]) == (["1", "3"], True)
    page = house.rollouts(split="valid", limit=1, after=page["data"][-1]["id"])
    assert (texts(page), page["has_more"]) == (["5"], False)
    assert house.rollouts(after="rollout-3-6")["data"] == []


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"step": -1}, "step"),
        ({"step": "x"}, "step"),
        ({"split": "test"}, "split"),
        ({"limit": 0}, "limit"),
        ({"after": "rollout-3-9"}, "after"),
        ({"after": "x", "step": 9}, "after"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_bad_query_names_its_parameter(house: House, query: dict[str, Any], param: str) -> None:
    house.sampled(1, 3, sample(3, 0, "a"))
    answer = house.get("rollouts", **query)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_base_and_tuned_model_stand_side_by_side_once_the_run_has_ended(house: House) -> None:
    assert house.get("comparison").json() == {
        "object": "tunesmith.comparison", "job_id": house.job, "fine_tuned_model": None, "base": BASE, "rows": [],
        "seconds": None,
    }  # fmt: skip
    row = {
        "messages": [{"role": "user", "content": "a"}],
        "reference": None,
        "base": "x",
        "tuned": "\ud800",
        "held_out": True,
    }
    house.put(1, "comparison.json", json.dumps({"rows": [], "base": BASE, "seconds": 1.0}))
    house.put(2, "comparison.json", json.dumps({"rows": [row], "base": BASE, "seconds": 2.5}))
    told = house.get("comparison").json()
    assert (told["rows"], told["base"], told["seconds"], told["job_id"]) == ([row], BASE, 2.5, house.job)


@pytest.mark.parametrize("what", ["rollouts", "comparison"])
def test_an_unknown_job_and_another_projects_are_a_404_in_openai_s_shape(house: House, what: str) -> None:
    house.sampled(1, 3, sample(3, 0, "secret"))
    with house.served.composed.db.begin() as tx:
        tx.execute(jobs.jobs.update().values(project_id=OTHER.project_id))
    for job in (house.job, "ftjob-none", "..%2F..", "ftjob-ü"):
        answer = house.http.get(f"/tunesmith/v1/fine_tuning/jobs/{job}/{what}")
        assert answer.status_code == 404, job
        assert "secret" not in answer.text
        assert answer.json()["error"]["type"] == "invalid_request_error"
