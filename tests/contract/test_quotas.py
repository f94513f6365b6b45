"""What a project may have: jobs that wait, files, bytes; set by settings or for one project, and told when it is enough."""

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import openai
import pytest
from typer.testing import CliRunner

from tunesmith.cli.main import app

MODEL = "tunesmith-nano"
URL = "/tunesmith/v1/projects/proj_default/limits"
NONE = {"training_slots": None, "queued_jobs": None, "files": None, "file_bytes": None}


@pytest.fixture
def limit(http: httpx2.Client) -> Iterator[Callable[..., Any]]:
    def put(**limits: int | None) -> Any:
        answer = http.put(URL, json=limits)
        assert answer.status_code == 200, answer.text
        return answer.json()

    yield put
    put()


def refused(call: Callable[[], object]) -> openai.RateLimitError:
    with pytest.raises(openai.RateLimitError) as raised:
        call()
    assert raised.value.response.headers["x-should-retry"] == "false"
    assert "retry-after" not in raised.value.response.headers
    return raised.value


def test_jobs_that_wait(client: openai.OpenAI, limit: Callable[..., Any], training_file: str) -> None:
    jobs = client.fine_tuning.jobs
    first = jobs.create(model=MODEL, training_file=training_file)
    told = limit(queued_jobs=1)
    assert (told["limits"], told["own"]) == ({**NONE, "queued_jobs": 1}, ["queued_jobs"])
    assert told["usage"]["queued_jobs"] == 1
    error = refused(lambda: jobs.create(model=MODEL, training_file=training_file))
    assert (error.code, error.type) == ("rate_limit_exceeded", "insufficient_quota")
    assert "has 1 jobs that wait for their turn, and its limit is 1. Cancel one" in error.message
    jobs.cancel(first.id)
    jobs.cancel(jobs.create(model=MODEL, training_file=training_file).id)


def test_files_and_their_bytes(client: openai.OpenAI, limit: Callable[..., Any], rows: Callable[[int], bytes]) -> None:
    def upload(n: int) -> str:
        return client.files.create(file=("f.jsonl", io.BytesIO(rows(n))), purpose="fine-tune").id

    usage = limit()["usage"]
    one = upload(10)
    n_bytes = len(rows(10))
    limit(file_bytes=usage["file_bytes"] + n_bytes + 200)
    error = refused(lambda: upload(10))
    assert (error.code, error.param) == ("exceeded_quota", "file")
    assert f"The file has {n_bytes} bytes" in error.message
    upload(1)
    limit(files=usage["files"] + 2)
    assert "Delete one that is not needed" in refused(lambda: upload(1)).message
    announced = {"bytes": 10, "filename": "f.jsonl", "mime_type": "text/jsonl", "purpose": "fine-tune"}
    assert refused(lambda: client.uploads.create(**announced)).code == "exceeded_quota"  # type: ignore[arg-type]
    client.files.delete(one)
    upload(1)


def test_the_queue_tells_a_projects_own_limit(http: httpx2.Client, limit: Callable[..., Any]) -> None:
    limit(training_slots=3)
    assert http.get("/tunesmith/v1/queue").json()["training"]["limit_per_project"] == 3


def test_limits_outlive_the_server(tmp_path: Any, open_house: Callable[..., Any]) -> None:
    with open_house(tmp_path / "data", files_per_project=5) as served, httpx2.Client(base_url=served.root) as http:
        assert http.get(URL).json()["limits"] == {**NONE, "files": 5}
        http.put(URL, json={"files": None, "queued_jobs": 4})
    with open_house(tmp_path / "data", files_per_project=5) as served, httpx2.Client(base_url=served.root) as http:
        told = http.get(URL).json()
    assert (told["limits"], told["own"]) == ({**NONE, "queued_jobs": 4}, ["files", "queued_jobs"])


@pytest.mark.parametrize("body", [{"training_slots": 0}, {"files": -1}, {"jobs": 1}, {"files": "3"}])
def test_what_is_no_limit_is_refused(http: httpx2.Client, body: Any) -> None:
    answer = http.put(URL, json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, next(iter(body)))
    assert http.get("/tunesmith/v1/projects/proj_none/limits").status_code == 404


def test_the_command_line_shows_and_changes_them(served: Any, http: httpx2.Client, limit: Callable[..., Any]) -> None:
    def run(*said: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, ["projects", "limits", *said, "--base-url", served.base_url])
        assert done.exit_code == code, done.output
        return done.output

    limit(queued_jobs=4)
    name = http.get("/v1/organization/projects/proj_default").json()["name"]
    lines = run(name, "--set", "files=500", "--set", "file_bytes=none").splitlines()
    assert lines[0] == "training_slots\tno limit\tas for every project\t"
    assert [line.split("\t")[1:3] for line in lines[1:]] == [["4", "own"], ["500", "own"], ["no limit", "own"]]
    assert lines[2].split("\t")[3].startswith("has ")
    told = json.loads(run("proj_default", "--set", "queued_jobs=default", "--json"))
    assert told == http.get(URL).json()
    assert (told["limits"]["queued_jobs"], told["own"]) == (None, ["file_bytes", "files"])
    assert "'jobs' is no limit of a project; these are: training_slots" in run(name, "--set", "jobs=1", code=2)
    assert "as in --set files=20" in run(name, "--set", "files=few", code=2)
    assert "No such project: nobody" in run("nobody", code=1)
    again = http.post("/v1/organization/projects", json={"name": name}).json()["id"]
    assert f"2 projects are named '{name}': name one by its id" in run(name, code=2)
    http.post(f"/v1/organization/projects/{again}/archive")
    assert run(name)
