"""What graders ask from inside an attempt, at the attempts' door: judges and embeddings, over real sockets."""

import json
import time
from collections.abc import Callable
from http.client import HTTPConnection
from typing import Any

import httpx2
import openai
import pytest

from far import N_CACHED, N_COMPLETION, N_PROMPT, FarServer, says, status
from tunesmith.domain.states import Status
from tunesmith.services.attempts import token_sha256
from tunesmith.store import jobs

SCHEMA = {"type": "object", "properties": {"steps": {}, "result": {"type": "number"}}}
ASKED: dict[str, Any] = {
    "model": "judge",
    "messages": [{"role": "user", "content": "Is half a pair \ud800 a text?"}],
    "schema_name": "grade",
    "schema": SCHEMA,
    "sampling": {"max_completion_tokens": 9},
}
HEADERS = {"authorization": "Bearer secret", "content-type": "application/json"}
USAGE = {"prompt_tokens": N_PROMPT, "completion_tokens": N_COMPLETION, "cached_tokens": N_CACHED}
#: As many questions as a server upstream is asked at once, unless the settings say otherwise.
N_AT_ONCE = 8


@pytest.fixture(scope="module")
def served(judging: Any) -> Any:
    return judging


class Attempt:
    """An attempt at a running job, at the attempts' door."""

    def __init__(self, http: httpx2.Client, job: str) -> None:
        self.http = http
        self.root = f"/internal/v1/attempts/{job}/1"

    def ask(self, what: str, **body: Any) -> dict[str, Any]:
        content = json.dumps({"version": 1, **body})  # in ASCII: a text may hold what UTF-8 cannot
        answer = self.http.post(f"{self.root}/{what}", content=content, headers=HEADERS)
        assert answer.status_code == 200, answer.text
        assert answer.json()["version"] == 1
        return answer.json()

    def begin(self) -> HTTPConnection:
        """Ask a judge over a connection of its own, without waiting for the answer."""
        connection = HTTPConnection(self.http.base_url.host, self.http.base_url.port)
        connection.request("POST", f"{self.root}/judge", json.dumps({"version": 1, "question": ASKED}), HEADERS)
        return connection


@pytest.fixture
def attempt(served: Any, http: httpx2.Client, client: openai.OpenAI, training_file: str) -> Attempt:
    job = client.fine_tuning.jobs.create(model="tunesmith-nano", training_file=training_file).id
    at_work: dict[str, Any] = {"attempt": 1, "token_sha256": token_sha256("secret"), "resolved": {}}
    with served.composed.db.begin() as tx:
        for step in (Status.QUEUED, Status.RUNNING):
            assert jobs.swap(tx, served.scope, job, expect_status=list(Status), status=step, **at_work)
    return Attempt(http, job)


def test_a_judge_answers_with_its_verdict(attempt: Attempt, far: FarServer) -> None:
    told = attempt.ask("judge", question=ASKED)
    assert set(told) == {"version", "verdict"}
    assert told["verdict"] == {
        "text": '{"steps": [{"description": "I looked", "conclusion": "so it is"}], "result": 0.75}',
        "model": "judge-2026-01-01",
        "usage": USAGE,
    }
    [body] = far.judged()
    assert body["messages"] == ASKED["messages"]
    assert body["response_format"]["json_schema"] == {"name": "grade", "strict": True, "schema": SCHEMA}
    assert body["max_completion_tokens"] == 9


def test_a_judge_that_fails_is_told_by_its_flag(attempt: Attempt, far: FarServer) -> None:
    far.acts.append(says(None, refusal="I will not."))
    failed = attempt.ask("judge", question=ASKED)["failed"]
    assert (failed["flag"], failed["details"]) == ("model_grader_refusal_error", "judge-2026-01-01 refused: I will not.")
    assert failed["verdict"] == {"text": "", "model": "judge-2026-01-01", "usage": USAGE}
    far.acts.append(status(400, "no such field"))
    failed = attempt.ask("judge", question=ASKED)["failed"]
    assert (failed["flag"], failed["verdict"]) == ("model_grader_server_error", None)
    failed = attempt.ask("judge", question={**ASKED, "model": "gone"})["failed"]
    assert (failed["flag"], failed["details"]) == ("model_grader_server_error", "gone is no model any more")


def test_a_model_of_this_server_judges_too(attempt: Attempt) -> None:
    schema = {
        "type": "object",
        "properties": {
            "steps": {"type": "array", "items": {"type": "object", "properties": {}, "additionalProperties": False}},
            "result": {"type": "string", "enum": ["good"]},
        },
        "required": ["steps", "result"],
        "additionalProperties": False,
    }
    verdict = attempt.ask(
        "judge",
        question={
            **ASKED,
            "model": "tunesmith-nano",
            "schema": schema,
            "messages": [{"role": "user", "content": "Say good."}],
            "sampling": {"seed": 1},
        },
    )["verdict"]
    assert verdict["model"] == "tunesmith-nano"
    assert verdict["text"].endswith('"result": "good"}')


def test_texts_are_compared(attempt: Attempt, far: FarServer) -> None:
    far.vectors = {"up": [0.0, 1.0], "down": [0.0, -1.0]}
    assert attempt.ask("similarity", left="up", right="up") == {"version": 1, "cosine": 1.0}
    assert attempt.ask("similarity", left="up", right="down") == {"version": 1, "cosine": -1.0}
    assert attempt.ask("similarity", left="", right="down") == {"version": 1, "cosine": 0.0}
    far.acts.append(status(400, "too long"))
    assert attempt.ask("similarity", left="up", right="down")["failed"]["flag"] == "model_grader_server_error"


def test_a_slow_judge_stops_nobody_and_a_caller_who_left_frees_its_turn(attempt: Attempt, far: FarServer) -> None:
    far.gate.clear()
    try:
        callers = [attempt.begin() for _ in range(N_AT_ONCE)]
        until(lambda: len(far.judged()) == N_AT_ONCE)
        last = attempt.begin()
        assert attempt.ask("heartbeat") == {"version": 1, "desired": "run"}
        assert len(far.judged()) == N_AT_ONCE
        for caller in callers:
            caller.close()
        until(lambda: len(far.judged()) == N_AT_ONCE + 1)
        far.gate.set()
        assert json.loads(last.getresponse().read())["verdict"]["model"] == "judge-2026-01-01"
        last.close()
    finally:
        far.gate.set()


def until(true: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)
