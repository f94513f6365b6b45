"""Requests that come more than once and are executed once: with an `Idempotency-Key`, and a create whose answer was lost."""

import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import openai
import pytest
from sqlalchemy import update

from tunesmith.domain.states import Status
from tunesmith.store import jobs
from tunesmith.store.tables import idempotency

MODEL = "tunesmith-nano"


def keyed(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key}


def n_jobs(client: openai.OpenAI) -> int:
    return len(client.fine_tuning.jobs.list(limit=100).data)


@pytest.fixture
def shop(fresh: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=fresh.base_url, api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture
def file(shop: openai.OpenAI, rows: Callable[[int], bytes]) -> str:
    return upload(shop, rows(10)).id


def upload(client: openai.OpenAI, content: bytes, **headers: str) -> Any:
    return client.files.create(file=("rows.jsonl", io.BytesIO(content)), purpose="fine-tune", extra_headers=headers)


def create(client: openai.OpenAI, file: str, headers: dict[str, str] | None = None, **more: Any) -> Any:
    return client.fine_tuning.jobs.create(**{"model": MODEL, "training_file": file, "extra_headers": headers or {}, **more})


class LosesAnswers(httpx2.HTTPTransport):
    """A network over which the first answers do not come: the server has executed, its client does not know."""

    def __init__(self, n_lost: int) -> None:
        super().__init__()
        self.n_lost = n_lost
        self.seen: list[tuple[str, int]] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        answer = super().handle_request(request)
        answer.read()
        self.seen.append((request.headers.get("x-stainless-retry-count", ""), answer.status_code))
        if len(self.seen) <= self.n_lost:
            raise httpx2.ReadError("lost", request=request)
        return answer


@pytest.fixture
def unlucky(fresh: Any) -> Iterator[tuple[openai.OpenAI, LosesAnswers]]:
    transport = LosesAnswers(n_lost=1)
    http = httpx2.Client(transport=transport, trust_env=False)
    with openai.OpenAI(base_url=fresh.base_url, api_key="any", max_retries=2, http_client=http) as client:
        yield client, transport


def test_the_same_key_and_body_make_one_job_and_the_answer_is_told_again(shop: openai.OpenAI, file: str) -> None:
    first = create(shop, file, keyed("monday"))
    shop.fine_tuning.jobs.cancel(first.id)
    again = shop.fine_tuning.jobs.with_raw_response.create(model=MODEL, training_file=file, extra_headers=keyed("monday"))
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["content-type"] == "application/json"
    assert again.parse() == first, "the answer of then, not the job of now"
    assert n_jobs(shop) == 1
    assert create(shop, file, keyed("tuesday")).id != first.id


def test_requests_without_a_key_are_executed_each_time(shop: openai.OpenAI, file: str) -> None:
    assert create(shop, file).id != create(shop, file).id


@pytest.mark.parametrize(
    "other",
    [
        lambda client, file, _: create(client, file, keyed("k"), seed=8),
        lambda client, file, _: create(client, file, keyed("k"), extra_query={"a": "b"}),
        lambda client, _, job: client.fine_tuning.jobs.cancel(job, extra_headers=keyed("k")),
    ],
    ids=["body", "query", "path"],
)
def test_another_request_under_the_same_key_is_refused_and_not_executed(
    shop: openai.OpenAI, file: str, other: Callable[..., Any]
) -> None:
    first = create(shop, file, keyed("k"))
    with pytest.raises(openai.BadRequestError) as caught:
        other(shop, file, first.id)
    assert (caught.value.type, caught.value.param, caught.value.code) == (
        "invalid_request_error", "Idempotency-Key", "idempotency_key_reused",
    )  # fmt: skip
    assert "'k'" in caught.value.message
    assert "24 hours" in caught.value.message
    assert n_jobs(shop) == 1
    assert shop.fine_tuning.jobs.retrieve(first.id).status == "validating_files"


def test_one_key_in_two_projects_is_two_requests(open_house: Any, tmp_path: Any, rows: Callable[[int], bytes]) -> None:
    with open_house(tmp_path / "data", auth="on") as served:
        key = (tmp_path / "data" / "admin-key").read_text().strip()
        with openai.OpenAI(base_url=served.base_url, api_key=key, max_retries=0) as ours:
            project = ours.post("/organization/projects", cast_to=dict[str, Any], body={"name": "Other"})["id"]
            theirs = ours.with_options(project=project)
            files = [upload(each, rows(10), **keyed("k")).id for each in (ours, theirs) * 2]
            jobs = [create(each, file, keyed("j")).id for each, file in zip((ours, theirs) * 2, files, strict=True)]
            assert [job.id for each in (ours, theirs) for job in each.fine_tuning.jobs.list()] == jobs[:2]
    assert (files[:2], jobs[:2]) == (files[2:], jobs[2:])
    assert len({*files, *jobs}) == 4


@pytest.mark.parametrize(
    "path", ["webhook_endpoints", "webhook_endpoints/whep_a/rotate_secret", "organization/admin_api_keys"]
)
def test_an_answer_that_shows_a_secret_is_not_kept(fresh: Any, path: str) -> None:
    with httpx2.Client(base_url=fresh.base_url, trust_env=False) as http:
        answer = http.post(f"/{path}", json={"name": "a"}, headers=keyed("k"))
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "Idempotency-Key")
    assert "shows a secret once" in answer.json()["error"]["message"]


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb", "ümlaut".encode()])
def test_what_is_no_key_is_refused(fresh: Any, file: str, key: str | bytes) -> None:
    body = {"model": MODEL, "training_file": file}
    with httpx2.Client(base_url=fresh.base_url, trust_env=False) as http:
        answer = http.post("/fine_tuning/jobs", json=body, headers={"Idempotency-Key": key})
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "Idempotency-Key"
        assert "1 to 255 printable ASCII characters" in answer.json()["error"]["message"]
        twice = http.post("/fine_tuning/jobs", json=body, headers=[("Idempotency-Key", "a"), ("Idempotency-Key", "a")])
        assert "more than once" in twice.json()["error"]["message"]
        assert http.post("/fine_tuning/jobs", json=body, headers={"Idempotency-Key": "x" * 255}).status_code == 200


def test_a_malformed_request_takes_no_key_and_an_executed_refusal_does(shop: openai.OpenAI, file: str) -> None:
    with pytest.raises(openai.BadRequestError, match="seed"):
        create(shop, file, keyed("k"), seed="seven")
    job = create(shop, file, keyed("k"), seed=7)
    with pytest.raises(openai.BadRequestError, match="file-none"):
        create(shop, "file-none", keyed("other"))
    with pytest.raises(openai.BadRequestError, match="file-none") as caught:
        create(shop, "file-none", keyed("other"))
    assert caught.value.response.headers["idempotent-replayed"] == "true"
    with pytest.raises(openai.BadRequestError, match="another request"):
        create(shop, file, keyed("other"))
    assert [each.id for each in shop.fine_tuning.jobs.list().data] == [job.id]


def test_every_post_takes_a_key(shop: openai.OpenAI, fresh: Any, file: str) -> None:
    job = create(shop, file)
    actions = shop.fine_tuning.jobs
    paused = actions.pause(job.id, extra_headers=keyed("p"))
    actions.resume(job.id)
    again = actions.with_raw_response.pause(job.id, extra_headers=keyed("p"))
    assert again.parse() == paused
    assert actions.retrieve(job.id).status == "validating_files", "the second was not executed"
    assert actions.cancel(job.id, extra_headers=keyed("c")).status == "cancelled"
    assert actions.cancel(job.id, extra_headers=keyed("c")).status == "cancelled"
    assert "idempotent-replayed" not in again.http_request.headers
    assert again.headers["idempotent-replayed"] == "true"
    with fresh.composed.db.read() as tx:
        assert jobs.get(tx, fresh.scope, job.id).status is Status.CANCELLED


def test_a_get_has_no_use_for_a_key(shop: openai.OpenAI, file: str) -> None:
    job = create(shop, file)
    read = {"extra_headers": keyed("k")}
    assert shop.fine_tuning.jobs.retrieve(job.id, **read).status == "validating_files"
    shop.fine_tuning.jobs.cancel(job.id)
    assert shop.fine_tuning.jobs.retrieve(job.id, **read).status == "cancelled"


def test_uploads_take_keys_by_what_they_hold(shop: openai.OpenAI, rows: Callable[[int], bytes]) -> None:
    first = upload(shop, rows(10), **keyed("k"))
    assert upload(shop, rows(10), **keyed("k")).id == first.id
    with pytest.raises(openai.BadRequestError, match="another request"):
        upload(shop, rows(11), **keyed("k"))
    assert len(shop.files.list().data) == 1


def test_keys_survive_a_restart(open_house: Any, tmp_path: Any, rows: Callable[[int], bytes]) -> None:
    made: set[str] = set()
    for _ in range(2):
        with open_house(tmp_path / "data") as served, openai.OpenAI(base_url=served.base_url, api_key="any") as client:
            file = upload(client, rows(10), **keyed("f")).id
            made.add(create(client, file, keyed("j")).id)
    assert len(made) == 1


def test_one_job_of_many_requests_at_once(shop: openai.OpenAI, file: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: create(shop, file, keyed("k")).id, range(16)))
    assert len(set(made)) == 1
    assert n_jobs(shop) == 1


def test_a_key_is_forgotten_after_its_day(shop: openai.OpenAI, fresh: Any, file: str) -> None:
    first = create(shop, file, keyed("k"))
    with fresh.composed.db.begin() as tx:
        tx.execute(update(idempotency).values(expires_at=1.0))
    second = create(shop, file, keyed("k"), seed=8)
    assert second.id != first.id
    assert create(shop, file, keyed("k"), seed=8).id == second.id
    assert fresh.composed.services.idempotency.sweep() == 1, "that of the upload"
    assert fresh.composed.services.idempotency.sweep() == 0


def test_a_create_whose_answer_was_lost_makes_one_job(
    unlucky: tuple[openai.OpenAI, LosesAnswers], file: str, shop: openai.OpenAI
) -> None:
    client, transport = unlucky
    job = create(client, file)
    assert transport.seen == [("0", 200), ("1", 200)]
    assert [each.id for each in shop.fine_tuning.jobs.list().data] == [job.id]
    assert create(client, file).id != job.id, "one that is meant is made"


def test_an_upload_whose_answer_was_lost_makes_one_file(
    unlucky: tuple[openai.OpenAI, LosesAnswers], shop: openai.OpenAI, rows: Callable[[int], bytes]
) -> None:
    client, _ = unlucky
    file = upload(client, rows(10))
    assert [each.id for each in shop.files.list().data] == [file.id]


def test_two_lost_answers_are_told_again_one_each(shop: openai.OpenAI, file: str) -> None:
    retry = {"x-stainless-retry-count": "1"}
    both = {create(shop, file).id, create(shop, file).id}
    assert {create(shop, file, retry).id, create(shop, file, retry).id} == both
    third = create(shop, file, retry)
    assert third.id not in both, "nobody has sent this one before"
    assert create(shop, file, {"x-stainless-retry-count": "2"}).id == third.id, "the newest that was sent less often"


def test_a_create_that_is_sent_again_late_or_changed_is_another(shop: openai.OpenAI, fresh: Any, file: str) -> None:
    retry = {"x-stainless-retry-count": "1"}
    first = create(shop, file)
    assert create(shop, file, retry, seed=8).id != first.id
    with fresh.composed.db.begin() as tx:
        tx.execute(update(idempotency).values(created_at=idempotency.c.created_at - 700.0))
    assert create(shop, file, retry).id != first.id
