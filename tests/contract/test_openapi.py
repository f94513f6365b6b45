"""Conformity: the schemas are sound, each difference from them is needed, and every path of the contract has an answer."""

import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from jsonschema import Draft202012Validator
from openai.types import FileListParams
from openai.types.chat import ChatCompletionStreamOptionsParam, CompletionListParams, CompletionUpdateParams
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming
from openai.types.chat.completions import MessageListParams
from openai.types.completion_create_params import CompletionCreateParamsStreaming as BareParams
from openai.types.fine_tuning import (
    DpoHyperparametersParam,
    JobCreateParams,
    JobListEventsParams,
    JobListParams,
    ReinforcementHyperparametersParam,
    SupervisedHyperparametersParam,
    job_create_params,
)
from openai.types.fine_tuning.checkpoints import PermissionCreateParams, PermissionListParams
from openai.types.fine_tuning.jobs import CheckpointListParams
from starlette.routing import Match

from tunesmith.api.app import create_routes
from tunesmith.api.chat_schema import NOT_YET, WITHOUT_EFFECT, CreateChatCompletion, StreamOptions
from tunesmith.api.completions_kept import ListCompletions, ListMessages, UpdateCompletion
from tunesmith.api.completions_schema import CreateCompletion
from tunesmith.api.files import ListFiles
from tunesmith.api.graders import wire_grade
from tunesmith.api.job_schema import (
    CreateJobRequest,
    DpoHyperparameters,
    Method,
    ReinforcementHyperparameters,
    SupervisedHyperparameters,
    Wandb,
)
from tunesmith.api.jobs import ListCheckpoints, ListJobs, wire_event
from tunesmith.api.permissions import CreatePermissions, ListPermissions
from tunesmith.api.wire import Page
from tunesmith.domain import events as wording
from tunesmith.domain.job import Event, NewEvent
from tunesmith.domain.states import Status
from tunesmith.graders.base import Grade, Usage
from tunesmith.store import jobs

#: The paths of OpenAI's published document for these resources.
CONTRACT = """
GET /chat/completions | POST /chat/completions | GET /chat/completions/x | GET /chat/completions/x/messages
POST /completions | POST /embeddings
GET /files | POST /files | DELETE /files/x | GET /files/x | GET /files/x/content
POST /fine_tuning/alpha/graders/run | POST /fine_tuning/alpha/graders/validate
GET /fine_tuning/checkpoints/x/permissions | POST /fine_tuning/checkpoints/x/permissions
DELETE /fine_tuning/checkpoints/x/permissions/y
POST /fine_tuning/jobs | GET /fine_tuning/jobs | GET /fine_tuning/jobs/x | POST /fine_tuning/jobs/x/cancel
GET /fine_tuning/jobs/x/checkpoints | GET /fine_tuning/jobs/x/events | POST /fine_tuning/jobs/x/pause
POST /fine_tuning/jobs/x/resume
GET /models | GET /models/x | DELETE /models/x
POST /responses | GET /responses/x | DELETE /responses/x | POST /responses/x/cancel | GET /responses/x/input_items
POST /uploads | POST /uploads/x/cancel | POST /uploads/x/complete | POST /uploads/x/parts
"""
OPERATIONS = [tuple(line.split()) for line in re.split(r"[|\n]", CONTRACT) if line.strip()]


def test_the_schemas_are_sound(published: dict[str, Any], differences: list[dict[str, Any]]) -> None:
    Draft202012Validator.check_schema(published)
    references = set(re.findall(r"#/\$defs/(\w+)", str(published)))
    assert references <= set(published["$defs"])
    for difference in differences:
        place: Any = published["$defs"]
        for step in difference["at"]:
            place = place[step]
        assert place != difference["schema"], f"no difference any more: {difference['name']}"


@pytest.mark.parametrize(("verb", "path"), OPERATIONS)
def test_every_operation_of_the_contract_has_an_answer(served: Any, verb: str, path: str) -> None:
    scope = {"type": "http", "method": verb, "path": f"/v1{path}", "root_path": "", "headers": []}
    routes = create_routes(served.composed.services).routes
    assert any(route.matches(scope)[0] is Match.FULL for route in routes)


def shown(told: NewEvent) -> dict[str, Any]:
    """Return an event as the wire shows it once it is stored."""
    own = {"id": "ftevent-x", "job_id": "ftjob-x", "project_id": "proj_default", "seq": 1, "attempt": 1}
    return wire_event(Event(**{**asdict(told), **own, "created_at": 1.0}))


@pytest.fixture
def departures(
    fresh: Any, rows: Callable[[int], bytes], faults: Callable[..., list[str]]
) -> Callable[[str], dict[str, list[str]]]:
    """Return a function that tells, by response, where real responses depart from schemas that lack one difference."""
    with openai.OpenAI(base_url=fresh.base_url, api_key="any", max_retries=0) as client:
        empty = client.files.list().to_dict()
        unstored = client.chat.completions.list().to_dict()
        file = client.files.create(file=("rows.jsonl", rows(10)), purpose="evals").to_dict()
        rows_id = client.files.create(file=("rows.jsonl", rows(10)), purpose="fine-tune").id
        waiting = client.fine_tuning.jobs.create(model="tunesmith-nano", training_file=rows_id, method={"type": "dpo"})
        paused = client.fine_tuning.jobs.pause(waiting.id).to_dict()
    event = shown(wording.started(1, 0))
    grade = wire_grade("g", "score_model", Grade(1.0, usage={"judge": Usage(2, 1)}, model="judge"))
    bodies = {"ListFilesResponse": empty, "OpenAIFile": file, "FineTuningJobEvent": event, "FineTuningJob": paused}
    bodies["RunGraderResponse"], bodies["ChatCompletionList"] = grade, unstored
    return lambda without: {name: faults(body, name, without) for name, body in bodies.items()}


def test_each_difference_is_needed_and_no_other_is(
    departures: Callable[[str], dict[str, list[str]]], differences: list[dict[str, Any]]
) -> None:
    assert not any(departures("").values())
    for difference in differences:
        name, *steps = difference["at"]
        told = departures(difference["name"])
        assert [fault.split(":")[0] for fault in told.pop(name)] == [".".join(["$", *steps[1::2]])], difference["name"]
        assert not any(told.values())


RESOLVED = {"batch_size": 1, "learning_rate_multiplier": 1.0, "n_epochs": 3}
STATES: dict[str, dict[str, Any]] = {
    "queued": {"resolved": RESOLVED},
    "running": {"resolved": RESOLVED, "estimated_finish": 1_800_000_000.7},
    "succeeded": {
        "resolved": RESOLVED, "finished_at": 1_800_000_000.7, "fine_tuned_model": "ft:m:o::AbCdEf12", "trained_tokens": 9,
        "result_files": ["file-x"],
    },
    "failed": {"finished_at": 1_800_000_000.7, "error": {"code": "c", "param": None, "message": "m"}},
    "cancelled": {"finished_at": 1_800_000_000.7},
}  # fmt: skip


@pytest.mark.parametrize("status", STATES)
def test_a_job_conforms_in_every_state(
    client: openai.OpenAI, served: Any, training_file: str, conforms: Callable[[object, str], None], status: str
) -> None:
    made = client.fine_tuning.jobs.create(model="tunesmith-nano", training_file=training_file)
    path = {"succeeded": ["queued", "running"], "running": ["queued"], "failed": [], "cancelled": [], "queued": []}[status]
    with served.composed.db.begin() as tx:
        for onward in path:
            assert jobs.swap(tx, served.scope, made.id, expect_status=list(Status), status=Status(onward))
        changes = STATES[status]
        assert jobs.swap(tx, served.scope, made.id, expect_status=list(Status), status=Status(status), **changes)
    job = client.fine_tuning.jobs.retrieve(made.id)
    conforms(job, "FineTuningJob")
    body = job.to_dict()
    assert body["status"] == status
    for name in ("finished_at", "estimated_finish"):
        assert body[name] == (int(changes[name]) if name in changes else None)
    assert body["error"] == changes.get("error")
    assert body["fine_tuned_model"] == changes.get("fine_tuned_model")
    resolved = changes.get("resolved", dict.fromkeys(RESOLVED, "auto"))
    assert body["hyperparameters"] == resolved == body["method"]["supervised"]["hyperparameters"]


def test_events_of_every_kind_conform(conforms: Callable[[object, str], None]) -> None:
    measured = {"step": 3, "total_steps": 9, "train_loss": 0.123, "train_mean_token_accuracy": 0.5}
    for told in (
        wording.step("supervised", measured, 1.5),
        wording.step("dpo", {**measured, "train_loss": None}, 1.5),
        wording.step("reinforcement", {"step": 0, "total_steps": 9, "scores": {"graders": [{"name": "a"}]}}, 1.5),
        wording.warning(1, "2 of 10 examples"),
        wording.failed("The job failed"),
        wording.cancelled(),
        wording.lost(1, "The worker was killed by signal 9", 4),
    ):
        conforms(shown(told), "FineTuningJobEvent")


@pytest.mark.parametrize(
    ("sent", "taken"),
    [
        (CompletionCreateParamsStreaming, CreateChatCompletion),
        (ChatCompletionStreamOptionsParam, StreamOptions),
        (BareParams, CreateCompletion),
        (JobCreateParams, CreateJobRequest),
        (job_create_params.Method, Method),
        (job_create_params.IntegrationWandb, Wandb),
        (SupervisedHyperparametersParam, SupervisedHyperparameters),
        (DpoHyperparametersParam, DpoHyperparameters),
        (ReinforcementHyperparametersParam, ReinforcementHyperparameters),
        (FileListParams, ListFiles),
        (JobListParams, ListJobs),
        (JobListEventsParams, Page),
        (CheckpointListParams, ListCheckpoints),
        (PermissionCreateParams, CreatePermissions),
        (PermissionListParams, ListPermissions),
        (CompletionListParams, ListCompletions),
        (CompletionUpdateParams, UpdateCompletion),
        (MessageListParams, ListMessages),
    ],
    ids=lambda value: value.__name__,
)
def test_each_parameter_of_the_official_client_is_known_and_no_other(sent: Any, taken: Any) -> None:
    assert set(taken.model_fields) - {"api_version"} == set(sent.__annotations__)


def test_fields_without_effect_and_fields_to_come_are_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "compatibility.md").read_text()
    lines = {line.split(":")[0]: set(re.findall(r"`(\w+)`", line)) for line in page.splitlines() if ":" in line}
    without = lines["- Without effect, since they steer OpenAI's own operation"]
    assert without == WITHOUT_EFFECT | {"include_obfuscation", "stream_options", "prompt_cache_breakpoint"}
    later = lines["- Not available yet, refused unless they ask for nothing"]
    assert set(NOT_YET) <= later


def test_our_own_description_is_served_and_names_what_is_served(http: httpx2.Client) -> None:
    paths = http.get("/openapi.json").json()["paths"]
    assert {"/v1/files", "/v1/fine_tuning/jobs", "/v1/models", "/v1/chat/completions", "/healthz"} <= set(paths)
    undescribed = [
        f"{verb} {path}" for path, verbs in paths.items() for verb, told in verbs.items() if not told.get("description")
    ]
    assert undescribed == []
