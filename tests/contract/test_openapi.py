"""Conformity: the schemas are sound, each difference from them is needed, and every path of the contract has an answer."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from jsonschema import Draft202012Validator
from openai.types import FileListParams
from openai.types.chat import ChatCompletionStreamOptionsParam
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming
from openai.types.fine_tuning import (
    DpoHyperparametersParam,
    JobCreateParams,
    JobListEventsParams,
    JobListParams,
    ReinforcementHyperparametersParam,
    SupervisedHyperparametersParam,
    job_create_params,
)
from openai.types.fine_tuning.jobs import CheckpointListParams
from starlette.routing import Match

from tunesmith.api.app import create_routes
from tunesmith.api.chat_schema import NOT_YET, WITHOUT_EFFECT, CreateChatCompletion, StreamOptions
from tunesmith.api.files import ListFiles
from tunesmith.api.job_schema import (
    CreateJobRequest,
    DpoHyperparameters,
    Method,
    ReinforcementHyperparameters,
    SupervisedHyperparameters,
    Wandb,
)
from tunesmith.api.jobs import ListCheckpoints, ListJobs, wire_event
from tunesmith.api.wire import Page
from tunesmith.domain import events as wording
from tunesmith.domain.job import Event

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
POST /responses | GET /responses/x | DELETE /responses/x
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


@pytest.fixture
def departures(
    fresh: Any, rows: Callable[[int], bytes], faults: Callable[..., list[str]]
) -> Callable[[str], dict[str, list[str]]]:
    """Return a function that tells, by response, where real responses depart from schemas that lack one difference."""
    with openai.OpenAI(base_url=fresh.base_url, api_key="any", max_retries=0) as client:
        empty = client.files.list().to_dict()
        file = client.files.create(file=("rows.jsonl", rows(10)), purpose="evals").to_dict()
    told = wording.started(1, 0)
    event = wire_event(
        Event(
            id="ftevent-x",
            job_id="ftjob-x",
            project_id="proj_default",
            seq=1,
            attempt=1,
            idempotency_key=told.idempotency_key,
            created_at=1.0,
            level=told.level,
            message=told.message,
            type=told.type,
            data=told.data,
        )
    )
    bodies = {"ListFilesResponse": empty, "OpenAIFile": file, "FineTuningJobEvent": event}
    return lambda without: {name: faults(body, name, without) for name, body in bodies.items()}


def test_each_difference_is_needed_and_no_other_is(
    departures: Callable[[str], dict[str, list[str]]], differences: list[dict[str, Any]]
) -> None:
    assert departures("") == {"ListFilesResponse": [], "OpenAIFile": [], "FineTuningJobEvent": []}
    for difference in differences:
        name, _, field, *_ = difference["at"]
        told = departures(difference["name"])
        assert [fault.split(":")[0] for fault in told.pop(name)] == [f"$.{field}"], difference["name"]
        assert not any(told.values())


@pytest.mark.parametrize(
    ("sent", "taken"),
    [
        (CompletionCreateParamsStreaming, CreateChatCompletion),
        (ChatCompletionStreamOptionsParam, StreamOptions),
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
    used = {"model", "messages", "tools", "n", "max_tokens", "max_completion_tokens", "temperature", "top_p", "stop", "seed"}
    used |= {"parallel_tool_calls", "stream", "stream_options"}
    assert used | WITHOUT_EFFECT | set(NOT_YET) == set(CreateChatCompletion.model_fields)


def test_our_own_description_is_served_and_names_what_is_served(http: httpx2.Client) -> None:
    paths = http.get("/openapi.json").json()["paths"]
    assert {"/v1/files", "/v1/fine_tuning/jobs", "/v1/models", "/v1/chat/completions", "/healthz"} <= set(paths)
    undescribed = [
        f"{verb} {path}" for path, verbs in paths.items() for verb, told in verbs.items() if not told.get("description")
    ]
    assert undescribed == []
