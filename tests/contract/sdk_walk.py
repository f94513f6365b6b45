# ruff: noqa: PT017, PT018, RUF015 - a script that stands alone, without pytest
"""Walks every operation with the `openai` package of the interpreter that runs it: `python sdk_walk.py BASE_URL`.

Stands alone, so that the environments of older clients need nothing but their `openai`. Prints one line at its end.
"""

import asyncio
import io
import json
import re
import sys
import time
from typing import Any

import openai

MODEL = "tunesmith-nano"
END_S = 300.0
#: What is measured at the end of an epoch of a job with a validation file.
MEASURED = {
    "step", "train_loss", "train_mean_token_accuracy", "valid_loss", "valid_mean_token_accuracy", "full_valid_loss",
    "full_valid_mean_token_accuracy",
}  # fmt: skip


def rows(n: int, verb: str = "Say") -> bytes:
    lines = [
        {"messages": [{"role": "user", "content": f"{verb} {i}."}, {"role": "assistant", "content": f"{i}!"}]}
        for i in range(n)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def refused(kind: type[openai.APIStatusError], call: Any, *arguments: Any, **named: Any) -> Any:
    """Expect a refusal of a kind, with its message and request id, and return it."""
    try:
        call(*arguments, **named)
    except kind as error:
        assert error.request_id and error.request_id.startswith("req_"), error.request_id
        assert isinstance(error.body, dict), error.body
        assert set(error.body) == {"message", "type", "param", "code"}, error.body
        return error
    raise AssertionError(f"{call} was not refused")


async def refused_later(kind: type[openai.APIStatusError], call: Any) -> Any:
    """Expect a refusal of a call of the async client and return it."""
    try:
        await call
    except kind as error:
        assert error.request_id and error.request_id.startswith("req_"), error.request_id
        return error
    raise AssertionError(f"{call} was not refused")


def walk_files(client: openai.OpenAI) -> str:
    file = client.files.create(file=("walk.jsonl", io.BytesIO(rows(12))), purpose="fine-tune")
    assert file.id.startswith("file-"), file
    assert file.filename == "walk.jsonl", file
    assert client.files.wait_for_processing(file.id).status == "processed"
    assert client.files.retrieve(file.id).bytes == len(rows(12))
    assert client.files.content(file.id).read() == rows(12)
    assert file.id in [listed.id for listed in client.files.list(purpose="fine-tune", order="asc", limit=2)]
    doomed = client.files.create(
        file=rows(1),
        purpose="user_data",
        extra_body={"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"},
    )
    assert doomed.expires_at == doomed.created_at + 3600, doomed
    assert client.files.delete(doomed.id).deleted
    error = refused(openai.NotFoundError, client.files.retrieve, doomed.id)
    assert error.param == "id", error
    refused(openai.BadRequestError, client.files.create, file=b"no", purpose="fine-tune")
    return file.id


def walk_jobs(client: openai.OpenAI, file: str) -> str:
    jobs = client.fine_tuning.jobs
    method: Any = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": 6}}}
    named: Any = {"suffix": "walk", "seed": 1, "metadata": {"walk": "yes"}, "method": method}
    held_out = client.files.create(file=rows(12, "Shout"), purpose="fine-tune").id
    job = jobs.create(model=MODEL, training_file=file, validation_file=held_out, **named)
    assert job.status == "validating_files", job
    assert job.id in [listed.id for listed in jobs.list(limit=1)]
    assert [listed.metadata for listed in jobs.list(metadata={"walk": "yes"}).data][0] == {"walk": "yes"}
    other = jobs.create(model=MODEL, training_file=file)
    paused = jobs.pause(other.id)
    assert paused.status == "paused" and paused.estimated_finish is None and paused.finished_at is None, paused
    assert jobs.pause(other.id) == paused == jobs.retrieve(other.id)
    assert jobs.resume(other.id).status == "validating_files"
    assert jobs.pause(other.id).status == "paused"
    assert jobs.cancel(other.id).status == "cancelled"
    assert jobs.list_events(other.id).data[0].message == "The job was cancelled"
    assert refused(openai.BadRequestError, jobs.pause, other.id).status_code == 400
    assert refused(openai.BadRequestError, jobs.resume, other.id).status_code == 400
    assert refused(openai.NotFoundError, jobs.retrieve, "ft-AF1WoRqd3aJAHsqc9NY7iL8F").code == "fine_tune_not_found"
    refused(openai.BadRequestError, jobs.create, model="nobody", training_file=file)
    job = wait(client, job.id)
    assert job.status == "succeeded", (job, [event.message for event in jobs.list_events(job.id)])
    assert job.fine_tuned_model and job.fine_tuned_model.startswith(f"ft:{MODEL}:"), job
    assert job.hyperparameters.n_epochs == 2 and job.hyperparameters.batch_size == 6, job
    assert job.trained_tokens and job.finished_at, job
    checkpoints = list(jobs.checkpoints.list(job.id, limit=1))
    assert [checkpoint.step_number for checkpoint in checkpoints] == [4, 2], checkpoints
    for checkpoint in checkpoints:
        assert checkpoint.fine_tuning_job_id == job.id and checkpoint.id.startswith("ftckpt_"), checkpoint
        assert job.created_at <= checkpoint.created_at <= job.finished_at, checkpoint
        assert checkpoint.metrics.to_dict()["type"] == "supervised", checkpoint
        assert set(checkpoint.metrics.to_dict()) == MEASURED | {"type"}, checkpoint
    check_events([*jobs.list_events(job.id, limit=3)][::-1], job, checkpoints[1].fine_tuned_model_checkpoint)
    assert checkpoints[0].fine_tuned_model_checkpoint == job.fine_tuned_model, checkpoints
    assert checkpoints[1].fine_tuned_model_checkpoint.endswith(":ckpt-step-2"), checkpoints
    table = client.files.content(job.result_files[0]).read().decode()
    assert table.startswith("step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"), table
    assert len(table.splitlines()) == 5, table
    assert refused(openai.BadRequestError, jobs.cancel, job.id).status_code == 400
    return job.fine_tuned_model


def check_events(events: list[Any], job: Any, snapshot: str) -> None:
    """Expect the whole history of a job of four steps in two epochs, oldest first."""
    expected = [
        f"Created fine-tuning job: {job.id}",
        f"Validating training file: {job.training_file} and validation file: {job.validation_file}",
        "Files validated, moving job to queued state",
        "Fine-tuning job started",
        "Step 1/4: training loss=N",
        "Step 2/4: training loss=N, validation loss=N, full validation loss=N",
        f"Checkpoint created at step 2 with Snapshot ID: {snapshot}",
        "Step 3/4: training loss=N",
        "Step 4/4: training loss=N, validation loss=N, full validation loss=N",
        f"New fine-tuned model created: {job.fine_tuned_model}",
        "The job has successfully completed",
    ]
    assert [re.sub(r"=\d+\.\d\d\b", "=N", event.message) for event in events] == expected, events
    assert all(event.level == "info" and event.id.startswith("ftevent-") for event in events), events
    assert [event.created_at for event in events] == sorted(event.created_at for event in events), events
    for event in events:
        if not event.message.startswith("Step "):
            assert event.type == "message", event
            assert event.data == (None if event.message == "Fine-tuning job started" else {}), event
            continue
        keys = {"step", "total_steps", "train_loss", "train_mean_token_accuracy"}
        assert event.type == "metrics" and set(event.data) == (keys | MEASURED if "full" in event.message else keys), event
        assert event.data["total_steps"] == 4 and f"={event.data['train_loss']:.2f}" in event.message, event


def wait(client: openai.OpenAI, job_id: str) -> Any:
    end = time.monotonic() + END_S
    while time.monotonic() < end:
        job = client.fine_tuning.jobs.retrieve(job_id)
        if job.status in {"succeeded", "failed", "cancelled"}:
            return job
        time.sleep(0.2)
    raise AssertionError(f"{job_id} did not end")


def walk_models(client: openai.OpenAI, tuned: str) -> None:
    names = [model.id for model in client.models.list()]
    assert MODEL in names and tuned in names, names
    assert client.models.retrieve(tuned).id == tuned
    messages: Any = [{"role": "user", "content": "Say 3."}]
    for model in (MODEL, tuned):
        answer = client.chat.completions.create(model=model, messages=messages, max_tokens=8, temperature=0, seed=1)
        text = answer.choices[0].message.content
        assert answer.usage and answer.usage.completion_tokens <= 8, answer
        stream = client.chat.completions.create(
            model=model, messages=messages, max_tokens=8, temperature=0, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == text, chunks
        assert chunks[-1].usage and chunks[-1].usage.total_tokens == answer.usage.total_tokens, chunks
    walk_stored(client, tuned, messages)
    walk_permissions(client, tuned)
    assert client.models.delete(tuned).deleted
    assert refused(openai.NotFoundError, client.models.retrieve, tuned).code == "model_not_found"
    assert refused(openai.NotFoundError, client.models.delete, "ft:a:b:s p:c").code == "model_not_found"
    refused(openai.NotFoundError, client.chat.completions.create, model=tuned, messages=messages)


def walk_stored(client: openai.OpenAI, model: str, messages: Any) -> None:
    """Walk what is stored, with the majors of the client that know of it (the first from 1.66 on)."""
    chat = client.chat.completions
    kept = chat.create(model=model, messages=messages, max_tokens=4, store=True, metadata={"walk": "yes"})
    assert [each.id for each in chat.list(metadata={"walk": "yes"}, limit=1)] == [kept.id]
    assert chat.retrieve(kept.id).choices == kept.choices
    assert chat.update(kept.id, metadata={"walk": "no"}).id == kept.id
    assert [each.content for each in chat.messages.list(kept.id)] == ["Say 3."]
    assert chat.delete(kept.id).deleted
    assert refused(openai.NotFoundError, chat.retrieve, kept.id).param == "completion_id"
    wishes: Any = {"model": model, "max_output_tokens": 16, "temperature": 0}
    first = client.responses.create(input="Say 3.", **wishes)
    assert first.usage and first.usage.output_tokens <= 16, first
    events = list(client.responses.create(input="Say 3.", stream=True, **wishes))
    assert events[0].type == "response.created" and events[-1].type in {"response.completed", "response.incomplete"}, events
    assert events[-1].response.output_text == first.output_text, events
    second = client.responses.create(input="Say 4.", previous_response_id=first.id, **wishes)
    assert len(list(client.responses.input_items.list(second.id, limit=2))) == 3
    assert client.responses.retrieve(second.id).output_text == second.output_text
    client.responses.delete(first.id)
    error = refused(openai.BadRequestError, client.responses.create, input="x", previous_response_id=second.id, **wishes)
    assert error.code == "previous_response_not_found", error


def walk_permissions(client: openai.OpenAI, model: str) -> None:
    """Share a model with two projects, in both orders of the list, and take it back."""
    permissions = client.fine_tuning.checkpoints.permissions
    made: Any = [client.post("/organization/projects", body={"name": name}, cast_to=object) for name in ("a", "b")]
    projects = [project["id"] for project in made]
    shared = permissions.create(model, project_ids=projects).data
    assert [each.project_id for each in shared] == projects, shared
    told: Any = permissions.retrieve(model, order="ascending", limit=1)
    assert [each.project_id for each in told.data] == projects[:1] and told.has_more and told.last_id, told
    if hasattr(permissions, "list"):
        assert [each.project_id for each in permissions.list(model, limit=1)] == projects[::-1]
        assert [each.project_id for each in permissions.list(model, project_id=projects[0])] == projects[:1]
    for each in shared:
        assert permissions.delete(each.id, fine_tuned_model_checkpoint=model).deleted
    assert refused(openai.NotFoundError, permissions.delete, shared[0].id, fine_tuned_model_checkpoint=model)


async def walk_async(base_url: str) -> None:
    async with openai.AsyncOpenAI(base_url=base_url, api_key="any", max_retries=0) as client:
        file = await client.files.create(file=("walk.jsonl", io.BytesIO(rows(12))), purpose="fine-tune")
        assert (await client.files.retrieve(file.id)).id == file.id
        assert (await client.files.content(file.id)).content == rows(12)
        assert (await client.files.wait_for_processing(file.id)).status == "processed"
        assert file.id in [listed.id async for listed in client.files.list(purpose="fine-tune", order="asc", limit=2)]
        jobs = client.fine_tuning.jobs
        job = await jobs.create(model=MODEL, training_file=file.id, metadata={"walk": "async"})
        assert (await jobs.list(metadata={"walk": "async"})).data[0].id == job.id
        assert (await jobs.pause(job.id)).status == "paused"
        assert (await jobs.resume(job.id)).status == "validating_files"
        assert (await refused_later(openai.NotFoundError, jobs.retrieve("ft-AF1W"))).code == "fine_tune_not_found"
        assert (await jobs.cancel(job.id)).status == "cancelled"
        assert (await jobs.retrieve(job.id)).status == "cancelled"
        assert job.id in [listed.id async for listed in jobs.list(limit=50)]
        assert [event.message async for event in jobs.list_events(job.id)][0] == "The job was cancelled"
        assert [checkpoint async for checkpoint in jobs.checkpoints.list(job.id)] == []
        assert MODEL in [model.id async for model in client.models.list()]
        assert (await client.models.retrieve(MODEL)).id == MODEL
        assert (await refused_later(openai.NotFoundError, client.models.delete("ft:a:b:s p:c"))).code == "model_not_found"
        messages: Any = [{"role": "user", "content": "Hello"}]
        answer = await client.chat.completions.create(model=MODEL, messages=messages, max_tokens=4)
        assert answer.choices[0].finish_reason in {"stop", "length"}, answer
        stream = await client.chat.completions.create(model=MODEL, messages=messages, max_tokens=4, stream=True)
        chunks = [chunk async for chunk in stream]
        assert chunks[-1].choices[0].finish_reason in {"stop", "length"}, chunks
        assert (await client.files.delete(file.id)).deleted


def main() -> None:
    base_url = sys.argv[1]
    with openai.OpenAI(base_url=base_url, api_key="any", max_retries=0, timeout=60) as client:
        file = walk_files(client)
        walk_models(client, walk_jobs(client, file))
        assert client.files.delete(file).deleted
    asyncio.run(walk_async(base_url))
    sys.stdout.write(f"openai {openai.__version__} walked every operation\n")


main()
