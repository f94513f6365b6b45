"""Fine-tuning jobs through the official client, sync and async; nothing is scheduled, so jobs stay as they were created."""

from collections.abc import Callable
from typing import Any

import httpx2
import openai
import pytest

KEYS = [
    "object", "id", "model", "created_at", "finished_at", "fine_tuned_model", "organization_id", "result_files", "status",
    "validation_file", "training_file", "hyperparameters", "trained_tokens", "error", "user_provided_suffix", "seed",
    "estimated_finish", "integrations", "metadata", "usage_metrics", "shared_with_openai", "eval_id", "method",
]  # fmt: skip
AUTO = {"batch_size": "auto", "learning_rate_multiplier": "auto", "n_epochs": "auto"}
MODEL = "tunesmith-nano"
UNKNOWN = ["ftjob-doesnotexist", "ft-AF1WoRqd3aJAHsqc9NY7iL8F", "x", "ftjob-ü"]


def create(client: openai.OpenAI, training_file: str, **more: Any) -> Any:
    return client.fine_tuning.jobs.create(**{"model": MODEL, "training_file": training_file, **more})


def test_a_minimal_job_has_every_recorded_key_in_order(
    client: openai.OpenAI, http: httpx2.Client, training_file: str, conforms: Callable[[object, str], None]
) -> None:
    job = create(client, training_file)
    conforms(job, "FineTuningJob")
    body = http.get(f"/v1/fine_tuning/jobs/{job.id}").json()
    assert list(body) == KEYS
    assert 0 <= body["seed"] < 2**31
    assert len(body["id"]) == len("ftjob-") + 24
    assert {key: value for key, value in body.items() if key not in {"id", "created_at", "seed"}} == {
        "object": "fine_tuning.job",
        "model": MODEL,
        "finished_at": None,
        "fine_tuned_model": None,
        "organization_id": "org-default",
        "result_files": [],
        "status": "validating_files",
        "validation_file": None,
        "training_file": training_file,
        "hyperparameters": AUTO,
        "trained_tokens": None,
        "error": None,
        "user_provided_suffix": None,
        "estimated_finish": None,
        "integrations": [],
        "metadata": None,
        "usage_metrics": None,
        "shared_with_openai": False,
        "eval_id": None,
        "method": {"type": "supervised", "supervised": {"hyperparameters": AUTO}},
    }
    assert client.fine_tuning.jobs.retrieve(job.id) == job


def test_every_parameter_of_a_supervised_job_is_echoed(
    client: openai.OpenAI, training_file: str, conforms: Callable[[object, str], None]
) -> None:
    job = create(
        client,
        training_file,
        validation_file=training_file,
        suffix="my_suffix",
        seed=7,
        integrations=[],
        metadata={"team": "blue", "run": "7"},
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2, "learning_rate_multiplier": 0.5}}},
    )
    conforms(job, "FineTuningJob")
    body = job.to_dict()
    assert (body["validation_file"], body["user_provided_suffix"], body["seed"]) == (training_file, "my_suffix", 7)
    assert body["metadata"] == {"team": "blue", "run": "7"}
    expected = {"batch_size": "auto", "learning_rate_multiplier": 0.5, "n_epochs": 2}
    assert body["hyperparameters"] == expected
    assert body["method"] == {"type": "supervised", "supervised": {"hyperparameters": expected}}


def test_the_deprecated_hyperparameters_are_those_of_the_method(client: openai.OpenAI, training_file: str) -> None:
    job = create(client, training_file, hyperparameters={"n_epochs": 3, "batch_size": 4})
    expected = {"batch_size": 4, "learning_rate_multiplier": "auto", "n_epochs": 3}
    assert job.to_dict()["method"] == {"type": "supervised", "supervised": {"hyperparameters": expected}}


def test_null_stands_for_every_optional_field_left_out(http: httpx2.Client, training_file: str) -> None:
    optional = ["validation_file", "suffix", "seed", "method", "hyperparameters", "integrations", "metadata"]
    body = {"model": MODEL, "training_file": training_file} | dict.fromkeys(optional)
    answer = http.post("/v1/fine_tuning/jobs", json=body)
    assert (answer.status_code, answer.json()["hyperparameters"]) == (200, AUTO)


@pytest.mark.anyio
async def test_a_job_goes_round_async(async_client: openai.AsyncOpenAI, training_file: str) -> None:
    jobs = async_client.fine_tuning.jobs
    job = await jobs.create(model=MODEL, training_file=training_file, metadata={"client": "async"})
    assert (await jobs.retrieve(job.id)).id == job.id
    assert job.id in [listed.id async for listed in jobs.list(limit=1)]
    assert [listed.id async for listed in jobs.list(metadata={"client": "async"})] == [job.id]
    assert (await jobs.pause(job.id)).status == "paused"
    assert (await jobs.resume(job.id)).status == "validating_files"
    for call in (jobs.retrieve, jobs.cancel):
        with pytest.raises(openai.NotFoundError) as missed:
            await call(UNKNOWN[1])
        assert missed.value.code == "fine_tune_not_found"
    assert (await jobs.cancel(job.id)).status == "cancelled"
    assert (await jobs.list_events(job.id)).data[0].message == "The job was cancelled"
    assert [checkpoint async for checkpoint in jobs.checkpoints.list(job.id)] == []


def test_cancel_is_final_in_its_own_answer_and_may_be_repeated(
    client: openai.OpenAI, training_file: str, conforms: Callable[[object, str], None]
) -> None:
    job = create(client, training_file)
    cancelled = client.fine_tuning.jobs.cancel(job.id)
    conforms(cancelled, "FineTuningJob")
    assert (cancelled.status, cancelled.error, cancelled.fine_tuned_model) == ("cancelled", None, None)
    assert cancelled.finished_at is not None
    assert client.fine_tuning.jobs.cancel(job.id) == cancelled == client.fine_tuning.jobs.retrieve(job.id)


def test_cancel_takes_no_body_or_an_empty_object_and_nothing_else(
    http: httpx2.Client, client: openai.OpenAI, training_file: str
) -> None:
    headers = {"content-type": "application/json"}
    for content in (b"", b"{}", b" \n", b"null"):
        job = create(client, training_file)
        answer = http.post(f"/v1/fine_tuning/jobs/{job.id}/cancel", content=content, headers=headers)
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    job = create(client, training_file)
    for content, told in (
        (b'{"force": true}', "'force'"),
        (b"[1]", "a value"),
        (b"{", "not valid JSON"),
        (b"\xff", "not valid JSON"),
    ):
        answer = http.post(f"/v1/fine_tuning/jobs/{job.id}/cancel", content=content, headers=headers)
        assert answer.status_code == 400
        assert told in answer.json()["error"]["message"]
    assert client.fine_tuning.jobs.retrieve(job.id).status == "validating_files"


def test_events_are_listed_newest_first(
    client: openai.OpenAI, http: httpx2.Client, training_file: str, conforms: Callable[[object, str], None]
) -> None:
    job = create(client, training_file)
    client.fine_tuning.jobs.cancel(job.id)
    page = client.fine_tuning.jobs.list_events(job.id)
    conforms(page, "ListFineTuningJobEventsResponse")
    assert page.has_more is False
    assert [event.message for event in page.data] == ["The job was cancelled", f"Created fine-tuning job: {job.id}"]
    newest = http.get(f"/v1/fine_tuning/jobs/{job.id}/events").json()["data"][0]
    assert list(newest) == ["object", "id", "created_at", "level", "message", "data", "type"]
    assert (newest["object"], newest["level"], newest["data"], newest["type"]) == (
        "fine_tuning.job.event", "info", {}, "message"
    )  # fmt: skip
    assert newest["id"].startswith("ftevent-")
    first = client.fine_tuning.jobs.list_events(job.id, limit=1)
    assert first.has_more
    assert [event.id for event in first] == [event.id for event in page.data]
    with pytest.raises(openai.BadRequestError) as caught:
        client.fine_tuning.jobs.list_events(job.id, after="ftevent-unknown")
    assert caught.value.param == "after"


def test_a_job_without_checkpoints_has_an_empty_list(
    client: openai.OpenAI, training_file: str, conforms: Callable[[object, str], None]
) -> None:
    page = client.fine_tuning.jobs.checkpoints.list(create(client, training_file).id)
    conforms(page, "ListFineTuningJobCheckpointsResponse")
    assert page.to_dict() == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


def test_jobs_are_listed_by_pages_and_by_metadata(
    fresh: Any, rows: Callable[[int], bytes], conforms: Callable[[object, str], None]
) -> None:
    with openai.OpenAI(base_url=fresh.base_url, api_key="any", max_retries=0) as client:
        file = client.files.create(file=("rows.jsonl", rows(10)), purpose="fine-tune").id
        metadata: list[dict[str, str] | None] = [{"a": "1"}, {"a": "1", "b c": "x y&z"}, None, {"a": ""}]
        ids = [create(client, file, metadata=pairs).id for pairs in metadata]
        listed = client.fine_tuning.jobs.list
        page = listed(limit=3)
        conforms(page, "ListPaginatedFineTuningJobsResponse")
        assert set(page.to_dict()) == {"object", "data", "has_more"}
        assert page.has_more
        assert [job.id for job in page] == ids[::-1] == [job.id for job in listed()]
        assert [job.id for job in listed(after=ids[2]).data] == [ids[1], ids[0]]
        assert [job.id for job in listed(metadata={"a": "1"})] == [ids[1], ids[0]]
        assert [job.id for job in listed(metadata={"a": "1", "b c": "x y&z"})] == [ids[1]]
        assert [job.id for job in listed(metadata={"a": ""})] == [ids[3]]
        assert [job.id for job in listed(metadata={"c": "1"})] == []
        assert [job.id for job in listed(extra_query={"metadata": "null"})] == [ids[2]]
        empty = create(client, file, metadata={})
        assert empty.metadata == {}
        assert [job.id for job in listed(extra_query={"metadata": "null"})] == [ids[2]]
        with pytest.raises(openai.BadRequestError) as caught:
            listed(after="ftjob-unknown")
        assert caught.value.param == "after"


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=x", "limit"),
        ("metadata=all", "metadata"),
        ("metadata=null&metadata%5Ba%5D=1", "metadata"),
        ("status=running", "status"),
        ("limit=1&limit=2", "limit"),
        ("limit=1&limit%5Ba%5D=2", "limit[a]"),
        ("limit%5Ba%5D=2&limit=1", "limit"),
        ("limit%5Ba%5D=2", "limit"),
        ("metadata%5Ba%5D=1&metadata%5Ba%5D=2", "metadata[a]"),
    ],
)
def test_a_wrong_query_is_refused_by_its_name(http: httpx2.Client, query: str, param: str) -> None:
    answer = http.get(f"/v1/fine_tuning/jobs?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_the_limit_of_every_list_is_one_to_ten_thousand(
    http: httpx2.Client, client: openai.OpenAI, training_file: str
) -> None:
    job = create(client, training_file)
    for path in ("", f"/{job.id}/events", f"/{job.id}/checkpoints"):
        for limit, status in ((0, 400), (1, 200), (10_000, 200), (10_001, 400)):
            answer = http.get(f"/v1/fine_tuning/jobs{path}?limit={limit}")
            assert (answer.status_code, answer.json().get("error", {}).get("param")) == (
                status, "limit" if status == 400 else None
            )  # fmt: skip


@pytest.mark.parametrize("job_id", UNKNOWN)
def test_an_unknown_or_foreign_job_is_a_404_on_every_verb(client: openai.OpenAI, job_id: str) -> None:
    jobs = client.fine_tuning.jobs
    for call in (jobs.retrieve, jobs.cancel, jobs.list_events, jobs.checkpoints.list, jobs.pause, jobs.resume):
        with pytest.raises(openai.NotFoundError) as caught:
            call(job_id)
        assert caught.value.body == {
            "message": f"Could not find fine tune: {job_id}",
            "type": "invalid_request_error",
            "param": "fine_tune_id",
            "code": "fine_tune_not_found",
        }


def test_a_job_that_waits_is_paused_at_once_and_resumed(
    client: openai.OpenAI, training_file: str, conforms: Callable[[object, str], None]
) -> None:
    jobs = client.fine_tuning.jobs
    job = create(client, training_file)
    paused = jobs.pause(job.id)
    conforms(paused, "FineTuningJob")
    assert (paused.status, paused.estimated_finish, paused.finished_at, paused.error) == ("paused", None, None, None)
    assert jobs.pause(job.id) == paused == jobs.retrieve(job.id)
    assert paused.id in [listed.id for listed in jobs.list(limit=1)]
    resumed = jobs.resume(job.id)
    conforms(resumed, "FineTuningJob")
    assert resumed.status == "validating_files"
    assert [event.message for event in jobs.list_events(job.id)] == [
        "The job was resumed", "The job was paused", f"Created fine-tuning job: {job.id}",
    ]  # fmt: skip


def test_what_cannot_be_paused_or_resumed_says_why(client: openai.OpenAI, training_file: str) -> None:
    jobs = client.fine_tuning.jobs
    job = create(client, training_file)
    for call, told in (
        (jobs.resume, f"Job {job.id} is validating_files, so it cannot be resumed: only a paused job can."),
        (jobs.cancel, ""),
        (jobs.pause, f"Job {job.id} was cancelled, so it cannot be paused."),
        (jobs.resume, f"Job {job.id} was cancelled, so it cannot be resumed: only a paused job can."),
    ):
        if not told:
            call(job.id)
            continue
        with pytest.raises(openai.BadRequestError) as caught:
            call(job.id)
        assert caught.value.body == {"message": told, "type": "invalid_request_error", "param": None, "code": None}


def test_a_paused_job_is_cancelled_at_once(client: openai.OpenAI, training_file: str) -> None:
    job = create(client, training_file)
    client.fine_tuning.jobs.pause(job.id)
    cancelled = client.fine_tuning.jobs.cancel(job.id)
    assert (cancelled.status, client.fine_tuning.jobs.retrieve(job.id)) == ("cancelled", cancelled)


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_pause_and_resume_take_no_body_or_an_empty_object(
    http: httpx2.Client, client: openai.OpenAI, training_file: str, verb: str
) -> None:
    for content in (b"", b"{}"):
        job = create(client, training_file)
        client.fine_tuning.jobs.pause(job.id)
        answer = http.post(f"/v1/fine_tuning/jobs/{job.id}/{verb}", content=content)
        assert answer.status_code == 200
    refused = http.post(f"/v1/fine_tuning/jobs/{job.id}/{verb}", json={"at": "step"})
    assert (refused.status_code, "'at'" in refused.json()["error"]["message"]) == (400, True)


@pytest.mark.parametrize("field", ["training_file", "validation_file"])
def test_an_unknown_file_is_refused_in_the_recorded_words(client: openai.OpenAI, training_file: str, field: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        create(client, **{"training_file": training_file, field: "file-unknown"})
    assert caught.value.body == {
        "message": f"invalid {field}: file-unknown",
        "type": "invalid_request_error",
        "param": field,
        "code": None,
    }


def test_files_are_checked_before_the_model(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        create(client, "file-unknown", model="unknown-model")
    assert caught.value.param == "training_file"


def test_a_file_of_another_purpose_is_refused(client: openai.OpenAI, rows: Callable[[int], bytes]) -> None:
    file = client.files.create(file=("rows.jsonl", rows(10)), purpose="user_data")
    with pytest.raises(openai.BadRequestError) as caught:
        create(client, file.id)
    assert caught.value.param == "training_file"
    assert "user_data" in caught.value.message


def test_an_unknown_model_is_refused_with_the_way_out(client: openai.OpenAI, training_file: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        create(client, training_file, model="gpt-4o-mini")
    error = caught.value
    assert (error.code, error.param) == ("model_not_available", None)
    assert "Model gpt-4o-mini is not available for fine-tuning or does not exist." in error.message
    assert "tunesmith models add tunesmith-nano --alias gpt-4o-mini" in error.message
