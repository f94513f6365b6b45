"""Models through the official client, sync and async: bases, aliases, tuned models and checkpoints, names of any form."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx2
import openai
import pytest

from tunesmith.domain.job import Checkpoint, CreateJob, Job
from tunesmith.domain.model import TunedModel
from tunesmith.domain.states import Status
from tunesmith.store import checkpoints, jobs, models

MODEL = "tunesmith-nano"
NAMES = ["ft:tunesmith-nano:tunesmith::AbCdEf12", "ft:a/b:org:s p:c", "ft:tunesmith-nano:tunesmith:x:AbCdEf12:ckpt-step-10"]


def finish(served: Any, training_file: str, name: str, *, status: Status = Status.SUCCEEDED) -> TunedModel:
    """Leave the rows and the bytes that a finished job leaves."""
    inside = served.composed
    job = inside.services.jobs.create(served.scope, CreateJob(model=MODEL, training_file=training_file))
    model = TunedModel(
        name=name,
        project_id=job.project_id,
        organization_id=job.organization_id,
        job_id=job.id,
        base=job.base,
        created_at=job.created_at,
        adapter_key=f"jobs/{job.id}/attempts/1/checkpoints/000010",
        sha256="0" * 64,
        pins=job.pins,
    )
    checkpoint = Checkpoint(
        id=inside.services.ids.checkpoint(),
        job_id=job.id,
        project_id=job.project_id,
        created_at=job.created_at,
        step=10,
        model_name=name,
        key=model.adapter_key,
        sha256=model.sha256,
        metrics={"step": 10, "train_loss": 0.5, "train_mean_token_accuracy": 0.9, "type": "supervised"},
    )
    with inside.db.begin() as tx:
        models.add(tx, served.scope, model)
        checkpoints.add(tx, served.scope, checkpoint)
        for onward in (Status.QUEUED, Status.RUNNING, status)[: 2 if status is Status.RUNNING else 3]:
            assert jobs.swap(tx, served.scope, job.id, expect_status=list(Status), status=onward)
    folder = inside.folder.path / "blobs" / model.adapter_key
    folder.mkdir(parents=True)
    (folder / "MANIFEST.json").write_text("{}")
    return model


def job_of(served: Any, model: TunedModel) -> Job:
    return served.composed.services.jobs.get(served.scope, model.job_id)


def test_the_embedded_base_is_listed_and_retrieved(
    client: openai.OpenAI, http: httpx2.Client, conforms: Callable[[object, str], None]
) -> None:
    page = client.models.list()
    conforms(page, "ListModelsResponse")
    [base] = [model for model in page.data if model.id == MODEL]
    conforms(client.models.retrieve(MODEL), "Model")
    assert client.models.retrieve(MODEL) == base
    assert list(http.get(f"/v1/models/{MODEL}").json()) == ["id", "object", "created", "owned_by"]


def test_an_alias_is_a_name_like_any_other(client: openai.OpenAI, http: httpx2.Client, training_file: str) -> None:
    added = http.post("/tunesmith/v1/models", json={"name": MODEL, "aliases": ["gpt-3.5-turbo"]})
    assert added.status_code == 200
    assert client.models.retrieve("gpt-3.5-turbo").id == "gpt-3.5-turbo"
    assert "gpt-3.5-turbo" in [model.id for model in client.models.list()]
    job = client.fine_tuning.jobs.create(model="gpt-3.5-turbo", training_file=training_file)
    assert job.model == "gpt-3.5-turbo"


@pytest.mark.parametrize("name", NAMES)
def test_a_tuned_model_goes_round_whatever_its_name_holds(
    fresh: Any, rows: Callable[[int], bytes], conforms: Callable[[object, str], None], name: str
) -> None:
    with openai.OpenAI(base_url=fresh.base_url, api_key="any", max_retries=0) as client:
        file = client.files.create(file=("rows.jsonl", rows(10)), purpose="fine-tune").id
        model = finish(fresh, file, name)
        shown = client.models.retrieve(name)
        conforms(shown, "Model")
        assert (shown.id, shown.owned_by, shown.created) == (name, "tunesmith", int(model.created_at))
        assert shown in client.models.list().data
        page = client.fine_tuning.jobs.checkpoints.list(model.job_id)
        conforms(page, "ListFineTuningJobCheckpointsResponse")
        assert (page.data[0].fine_tuned_model_checkpoint, page.data[0].step_number) == (name, 10)
        deleted = client.models.delete(name)
        conforms(deleted, "DeleteModelResponse")
        assert deleted.to_dict() == {"id": name, "object": "model", "deleted": True}
        assert list(client.fine_tuning.jobs.checkpoints.list(model.job_id)) == []
        assert not (fresh.composed.folder.path / "blobs" / model.adapter_key).exists()
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve(name)


@pytest.mark.anyio
async def test_models_go_round_async(async_client: openai.AsyncOpenAI, served: Any, training_file: str) -> None:
    name = "ft:tunesmith-nano:tunesmith::Async123"
    finish(served, training_file, name)
    assert name in [model.id async for model in async_client.models.list()]
    assert (await async_client.models.retrieve(name)).id == name
    assert (await async_client.models.delete(name)).deleted


@pytest.mark.parametrize("name", [*NAMES, "gpt-9", "ft:", "a/b/c", "ü", "…"])
def test_an_unknown_model_is_a_404_in_the_recorded_words(client: openai.OpenAI, name: str) -> None:
    for call in (client.models.retrieve, client.models.delete):
        with pytest.raises(openai.NotFoundError) as caught:
            call(name)
        assert caught.value.body == {
            "message": f"The model '{name}' does not exist",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }


def test_a_base_model_is_not_deleted_by_a_project(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.models.delete(MODEL)
    assert "comes with Tunesmith and stays" in caught.value.message
    assert client.models.retrieve(MODEL).id == MODEL


def test_what_an_unfinished_job_needs_is_not_deleted(client: openai.OpenAI, served: Any, training_file: str) -> None:
    running = finish(served, training_file, "ft:tunesmith-nano:tunesmith::Running1", status=Status.RUNNING)
    with pytest.raises(openai.BadRequestError) as caught:
        client.models.delete(running.name)
    assert running.job_id in caught.value.message
    tuned = finish(served, training_file, "ft:tunesmith-nano:tunesmith::Tuned123")
    further = client.fine_tuning.jobs.create(model=tuned.name, training_file=training_file)
    assert further.model == tuned.name
    with pytest.raises(openai.BadRequestError) as caught:
        client.models.delete(tuned.name)
    assert further.id in caught.value.message
    client.fine_tuning.jobs.cancel(further.id)
    assert client.models.delete(tuned.name).deleted


def test_a_tuned_model_on_changed_files_is_refused(client: openai.OpenAI, served: Any, training_file: str) -> None:
    model = finish(served, training_file, "ft:tunesmith-nano:tunesmith::Changed1")
    with served.composed.db.begin() as tx:
        models.delete(tx, served.scope, model.name)
        models.add(tx, served.scope, replace(model, pins={**model.pins, "weights": "other"}))
    with pytest.raises(openai.BadRequestError) as caught:
        client.fine_tuning.jobs.create(model=model.name, training_file=training_file)
    assert "weights" in caught.value.message
    assert job_of(served, model).status is Status.SUCCEEDED
