"""The dry run of a job, through a real server and the process that reads the files: nothing is created, all is told."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from typer.testing import CliRunner

from tunesmith.cli.main import app
from tunesmith.domain.job import NewEvent
from tunesmith.domain.states import Status
from tunesmith.store import events, jobs

PATH = "/tunesmith/v1/fine_tuning/preflight"
MODEL = "tunesmith-nano"


def chat(user: str = "What is 1 plus 1?", answer: str = "2", **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": answer}], **more}


def pair(n: int, **more: Any) -> dict[str, Any]:
    def answer(text: str) -> list[dict[str, str]]:
        return [{"role": "assistant", "content": text}]

    asked = {"messages": [{"role": "user", "content": f"What is {n} plus one?"}]}
    return {
        "input": asked,
        "preferred_output": answer(f"It is {n + 1}."),
        "non_preferred_output": answer("No idea."),
        **more,
    }


def prompt(n: int, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": f"What is {n} plus one?"}], "answer": str(n + 1), **more}


@pytest.fixture
def upload(client: openai.OpenAI) -> Callable[..., str]:
    def send(*rows: Any) -> str:
        text = b"\n".join(row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows)
        return client.files.create(file=("rows.jsonl", text), purpose="fine-tune").id

    return send


@pytest.fixture
def ask(http: httpx2.Client) -> Callable[..., dict[str, Any]]:
    def post(status: int = 200, **body: Any) -> dict[str, Any]:
        answer = http.post(PATH, json={"model": MODEL, **body})
        assert answer.status_code == status, answer.text
        return answer.json()

    return post


def n_jobs(client: openai.OpenAI) -> int:
    return len(client.fine_tuning.jobs.list(limit=100).data)


def test_a_supervised_job(ask: Any, upload: Any, client: openai.OpenAI) -> None:
    train = upload(*[chat(f"What is {n} plus 1?", str(n + 1)) for n in range(12)], chat("What is 3 plus 1?", "4"))
    valid = upload(chat("What is 3 plus 1?", "4"), chat("What is 77 plus 1?", "78"))
    before = n_jobs(client)
    told = ask(training_file=train, validation_file=valid, suffix="dry", metadata={"a": "b"})
    assert n_jobs(client) == before
    assert (told["object"], told["valid"], told["error"], told["errors"]) == ("tunesmith.preflight", True, None, [])
    knobs = {"n_epochs": 7, "batch_size": 1, "learning_rate_multiplier": 1.0}
    assert told["method"] == {"type": "supervised", "supervised": {"hyperparameters": knobs}}
    assert (told["steps_per_epoch"], told["total_steps"]) == (13, 91)
    file = told["training_file"]
    assert (file["id"], file["examples"], file["complete"]) == (train, 13, True)
    assert 0 < file["trainable_tokens"] < file["tokens"]
    assert told["trained_tokens"] == 7 * file["tokens"]
    assert sum(bar["examples"] for bar in file["lengths"]) == 13
    assert file["longest"]["tokens"] <= file["lengths"][-1]["up_to"]
    assert file["duplicates"] == {"examples": 1, "lines": [{"line": 13, "as": 4}]}
    assert told["validation_file"]["examples"] == 2
    twice, few, both = sorted(told["warnings"])
    assert twice.startswith("1 of 13 examples of the training file are the same as an earlier one: line 13 (as line 4).")
    assert few.startswith("1 of 2 examples of the validation file are in the training file too: line 1.")
    assert both.startswith("The training file has 13 examples")
    estimate = told["estimate"]
    assert (estimate["source"], estimate["jobs"], told["cost"], told["grader"]) == ("rule", 0, None, None)
    assert estimate["seconds_low"] < estimate["seconds"] < estimate["seconds_high"]
    assert 400e6 < estimate["memory_bytes"] < 2e9 < estimate["machine_memory_bytes"]


def test_every_bad_row_of_both_files_is_told(ask: Any, upload: Any) -> None:
    bad = {"messages": [{"role": "user", "content": "a"}, {"role": "wizard", "content": "b"}]}
    train = upload(*[chat(str(n)) for n in range(10)], b"", bad, chat(x=1), chat("a " * 3000), bad)
    told = ask(training_file=train, validation_file=upload({"messages": []}, chat("ok"), *[bad] * 110))
    assert not told["valid"]
    assert told["error"]["code"] == "invalid_training_file"
    assert told["error"]["message"].startswith("The job failed due to an invalid training file. Invalid file format. Ex")
    assert told["n_errors"] == 115
    assert len(told["errors"]) == 104, "a hundred of each file at the most"
    first, extra, long, _, empty, *rest = told["errors"]
    assert (first["param"], first["line"], first["field"]) == ("training_file", 12, "messages[1].role")
    assert first["message"].startswith("Example 11 (line 12), message 2 No match for")
    assert (extra["line"], "unknown keys: x" in extra["message"]) == (13, True)
    assert (long["line"], "trains on nothing" in long["message"]) == (14, True)
    assert (empty["param"], empty["line"], rest[-1]["line"]) == ("validation_file", 1, 101)
    assert told["training_file"]["examples"] == 11
    assert told["total_steps"] == 99, "as if the bad rows were not there"


def test_a_preference_job(ask: Any, upload: Any) -> None:
    method = {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2, "n_epochs": 2}}}
    told = ask(training_file=upload(*map(pair, range(10))), method=method)
    knobs = {"n_epochs": 2, "batch_size": 1, "learning_rate_multiplier": 1.0, "beta": 0.2}
    assert told["method"]["dpo"]["hyperparameters"] == knobs
    assert (told["valid"], told["total_steps"]) == (True, 20)
    wrong = ask(training_file=upload(*[chat(str(n)) for n in range(10)]), method=method)
    assert wrong["error"]["message"].startswith("The job failed due to an invalid training file. Invalid file format. Input")
    assert (wrong["errors"], wrong["total_steps"], wrong["estimate"]) == ([], None, None)
    assert wrong["method"]["dpo"]["hyperparameters"]["batch_size"] == "auto"


GRADER: Any = {"type": "string_check", "name": "g", "input": "{{ sample.output_text }}", "operation": "eq"}


def rewarded(reference: str) -> Any:
    return {"type": "reinforcement", "reinforcement": {"grader": {**GRADER, "reference": reference}}}


def test_a_reinforcement_job_is_graded_on_five_rows(ask: Any, upload: Any) -> None:
    train, valid = upload(*map(prompt, range(10))), upload(*map(prompt, range(20, 22)))
    told = ask(training_file=train, validation_file=valid, method=rewarded("{{ item.answer }}"))
    samples = told["grader"]["samples"]
    assert [sample["line"] for sample in samples] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert samples[0] == {
        "line": 1, "sample": "reference", "column": "item.answer", "model_sample": "1",
        "reward": 1.0, "sub_rewards": {}, "errors": {},
    }  # fmt: skip
    assert (samples[1]["sample"], samples[1]["reward"]) == ("empty", 0.0)
    assert told["trained_tokens"] is None
    assert not [text for text in told["warnings"] if "reward" in text]
    told = ask(training_file=train, validation_file=valid, method=rewarded("never"))
    assert any("gives 0 to each of 10 answers" in text for text in told["warnings"])


WANDB: Any = {"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]}
RUBRIC: Any = {"type": "python", "name": "p", "source": "def grade(", "image_tag": "2025-05-08"}


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"training_file": None}, 400, "training_file"),
        ({"model": "nobody"}, 400, None),
        ({"model": "ft:tunesmith-nano:tunesmith::none0000"}, 400, None),
        ({"training_file": "file-none"}, 400, "training_file"),
        ({"validation_file": "file-none"}, 400, "validation_file"),
        ({"training_file": "batch"}, 400, "training_file"),
        ({"colour": 1}, 400, "colour"),
        ({"metadata": {"k": "v" * 513}}, 400, "metadata"),
        (WANDB, 400, "integrations"),
        ({"integrations": WANDB["integrations"] * 2}, 400, "integrations"),
        ({"method": rewarded("{{ item.none }}")}, 400, "validation_file"),
        ({"method": rewarded("{{ item.none }}"), "validation_file": "rows"}, 400, "method.reinforcement.grader.reference"),
        (
            {"method": {"type": "reinforcement", "reinforcement": {"grader": RUBRIC}}, "validation_file": "rows"},
            400, "method.reinforcement.grader.source",
        ),
        ({"method": {"type": "dpo"}, "hyperparameters": {"n_epochs": 1}}, 400, "hyperparameters"),
        ({"limits": {"queued_jobs": 0}}, 429, None),
        ({"limits": {"queued_jobs": 0}, **WANDB}, 400, "integrations"),
    ],
    ids=str,
)  # fmt: skip
def test_what_create_refuses_is_refused_alike(
    http: httpx2.Client, client: openai.OpenAI, upload: Any, body: Any, status: int, param: str | None
) -> None:
    rows = upload(*map(prompt, range(10)))
    files = {"rows": rows, "batch": client.files.create(file=("a.jsonl", b"{}\n"), purpose="batch").id}
    asked = {name: files.get(value, value) if isinstance(value, str) else value for name, value in body.items()}
    http.put("/tunesmith/v1/projects/proj_default/limits", json=asked.pop("limits", {}))
    asked = {"model": MODEL, "training_file": rows, **asked}
    dry, real = http.post(PATH, json=asked), http.post("/v1/fine_tuning/jobs", json=asked)
    http.put("/tunesmith/v1/projects/proj_default/limits", json={})
    assert (dry.status_code, dry.json()) == (real.status_code, real.json())
    assert (dry.status_code, dry.json()["error"]["param"]) == (status, param)
    assert dry.headers.get("x-should-retry") == real.headers.get("x-should-retry")


def test_jobs_that_ended_here_tell_how_long_it_takes(open_house: Any, rows: Any, tmp_path: Path) -> None:
    with (
        open_house(tmp_path / "data", training_price=2.0, training_currency="EUR", preflight_seconds=60) as served,
        openai.OpenAI(base_url=served.base_url, api_key="any", max_retries=0) as client,
        httpx2.Client(base_url=served.root, timeout=60, trust_env=False) as http,
    ):
        file = client.files.create(file=("rows.jsonl", rows(10)), purpose="fine-tune").id
        job = client.fine_tuning.jobs.create(model=MODEL, training_file=file).id
        with served.composed.db.begin() as tx:
            steps = [_step("s1", 12.0), _step("s100", 111.0)]
            done = {"resolved": {"n_epochs": 10}, "counts": {"total_steps": 100, "n_examples": 10}, "trained_tokens": 1000}
            for status in (Status.QUEUED, Status.RUNNING, Status.SUCCEEDED):
                jobs.swap(tx, served.scope, job, expect_status=list(Status), status=status)
            jobs.swap(tx, served.scope, job, expect_status=list(Status), started_at=10.0, finished_at=120.0, **done)
            events.append(tx, served.scope, job, 1, steps)
        told = http.post(PATH, json={"model": MODEL, "training_file": file}).json()
    estimate = told["estimate"]
    assert (estimate["source"], estimate["jobs"]) == ("jobs", 1)
    assert estimate["seconds"] == pytest.approx(10 + told["trained_tokens"] * 0.1, abs=0.1)
    cost = {"currency": "EUR", "per_million_tokens": 2.0, "trained_tokens": told["trained_tokens"]}
    assert told["cost"] == {**cost, "amount": pytest.approx(told["trained_tokens"] * 2e-6)}


def _step(key: str, at: float) -> Any:
    return NewEvent(key, "Step", type="metrics", created_at=at)


def test_a_client_that_leaves_takes_the_reading_with_it(served: Any, upload: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_FAILPOINTS", "worker.preflight=sleep:600")
    reading = served.composed.services.preflights._surveys._running
    body = {"model": MODEL, "training_file": upload(chat())}
    with httpx2.Client(base_url=served.root, timeout=2, trust_env=False) as http, pytest.raises(httpx2.ReadTimeout):
        http.post(PATH, json=body)
    end = time.monotonic() + 30
    while reading and time.monotonic() < end:
        time.sleep(0.02)
    assert not reading


def test_the_command_uploads_asks_shows_and_deletes(
    served: Any, client: openai.OpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TUNESMITH_BASE_URL", served.base_url)
    good, bad, rule = tmp_path / "good.jsonl", tmp_path / "bad.jsonl", tmp_path / "grader.json"
    good.write_text("".join(json.dumps(prompt(n)) + "\n" for n in range(10)))
    bad.write_text("".join(json.dumps(chat(str(n))) + "\n" for n in range(10)) + '{"messages": []}\n')
    rule.write_text(json.dumps({**GRADER, "reference": "{{ item.answer }}"}))
    before = {file.id for file in client.files.list()}

    def run(*arguments: object, code: int) -> str:
        result = CliRunner().invoke(app, ["preflight", *map(str, arguments)])
        assert result.exit_code == code, result.output
        return result.output

    flags = ("--model", MODEL, "--training-file", good, "--validation-file", good, "--set", "n_epochs=2")
    words = run(*flags, "--grader", rule, code=0)
    assert "A job of this would pass its validation." in words
    assert "n_epochs 2" in words
    assert "item.answer" in words
    assert {file.id for file in client.files.list()} == before
    words = run("--model", MODEL, "--training-file", bad, "--keep", code=1)
    assert "training file line 11: Example 11: messages must be a list of at least one message" in words
    (kept,) = {file.id for file in client.files.list()} - before
    body = tmp_path / "body.json"
    body.write_text(json.dumps({"model": MODEL, "training_file": kept}))
    told = json.loads(run(body, "--json", code=1))
    assert told["error"]["code"] == "invalid_training_file"
    assert "there is no file" in run("--training-file", tmp_path / "none", code=2)
