"""How a reinforcement job that trains is told over the wire: events, checkpoints, result file; its reports are made up."""

import csv
import json
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

from tunesmith.core.channel import Report
from tunesmith.domain.states import Status
from tunesmith.services.attempts import token_sha256
from tunesmith.store import jobs

GRADER: Any = {
    "type": "string_check",
    "name": "a, b",
    "input": "{{ sample.output_text }}",
    "reference": "x",
    "operation": "eq",
}
MEASURED: dict[str, Any] = {
    "train_mean_reward": 0.421,
    "reasoning_tokens_mean": 0.0,
    "completion_tokens_mean": 7.5,
    "mean_unresponsive_rewards": 0.25,
    "train_loss": -0.01,
    "sampler_logp_gap": 0.0001,
    "model_graders_token_usage": {"judge": {"train_prompt_tokens": 11}},
    "usage": {"graders": [], "samples": {"train_reasoning_tokens_mean": 0.0}},
    "errors": {"graders": [{"name": "a, b", "type": "string_check", "train_other_error_mean": 0.0}]},
    "scores": {
        "train_reward_mean": 0.421,
        "graders": [{"name": "a, b", "type": "string_check", "train_reward_mean": 0.421}],
    },
    "timing": {"step": {"sampling": 1.0, "training": 0.5, "eval": 0.25, "full_iteration": 1.75}, "graders": []},
}


class Run:
    """A job at work."""

    def __init__(self, served: Any, client: openai.OpenAI) -> None:
        self.served, self.client = served, client
        row = {"messages": [{"role": "user", "content": "Say x."}]}
        text = (json.dumps(row) + "\n") * 10
        file = client.files.create(file=("rows.jsonl", text.encode()), purpose="fine-tune").id
        method: Any = {"type": "reinforcement", "reinforcement": {"grader": GRADER}}
        made = client.fine_tuning.jobs.create(
            model="tunesmith-nano", training_file=file, validation_file=file, method=method, suffix="rewarded"
        )
        self.id = made.id
        at_work: dict[str, Any] = {"attempt": 1, "token_sha256": token_sha256("secret"), "resolved": {}}
        with served.composed.db.begin() as tx:
            for status in (Status.QUEUED, Status.RUNNING):
                assert jobs.swap(tx, served.scope, made.id, expect_status=list(Status), status=status, **at_work)

    def send(self, kind: str, step: int, at: float, **data: Any) -> None:
        report = Report(kind, self.id, 1, f"{kind}-{step}", at, {"step": step, **data})
        self.served.composed.attempts.report(self.id, 1, "secret", [report])

    def step(self, step: int, **measured: Any) -> dict[str, Any]:
        self.send("metrics", step, 1_800_000_000.0 + step, total_steps=4, **measured)
        return {"step": step, "total_steps": 4, **measured}

    def checkpoint(self, kind: str, step: int, metrics: dict[str, Any], **more: Any) -> None:
        key = f"jobs/{self.id}/attempts/1/checkpoints/{step:06d}"
        self.send(kind, step, 1_800_000_000.0 + step, key=key, sha256="0" * 64, metrics=metrics, **more)


@pytest.fixture
def run(fresh: Any) -> Iterator[Run]:
    with openai.OpenAI(base_url=fresh.base_url, api_key="any", max_retries=0) as client:
        yield Run(fresh, client)


def test_a_run_is_told_by_its_rewards(run: Run, conforms: Callable[..., None]) -> None:
    before = run.step(0, full_valid_mean_reward=0.25, full_valid_mean_parse_error=0.0, valid_reward_mean=0.25)
    first = run.step(1, **MEASURED)
    assert run.client.fine_tuning.jobs.retrieve(run.id).estimated_finish == 1_800_000_004
    told = []
    for step, reward in ((2, 0.5), (3, 0.375), (4, 0.75)):
        evaluated = {"full_valid_mean_reward": reward, "full_valid_mean_parse_error": 0.125, "valid_reward_mean": reward}
        told.append(run.step(step, **MEASURED, **evaluated))
        kind, more = ("checkpoint", {}) if step < 4 else ("finished", {"trained_tokens": 99})
        run.checkpoint(kind, step, told[-1], **more)

    jobs = run.client.fine_tuning.jobs
    events = [event for event in jobs.list_events(run.id, limit=100) if event.type == "metrics"][::-1]
    for event in events:
        conforms(event, "FineTuningJobEvent")
    assert [event.data for event in events] == [before, first, *told]
    assert [event.message for event in events] == [
        "Step 0/4 , full validation mean reward=0.25, full validation mean parse error=0.00",
        "Step 1/4 , train mean reward=0.42",
        *(
            f"Step {step}/4 , train mean reward=0.42, full validation mean reward={reward}, "
            "full validation mean parse error=0.12"
            for step, reward in ((2, "0.50"), (3, "0.38"), (4, "0.75"))
        ),
    ]

    page = jobs.checkpoints.list(run.id)
    conforms(page, "ListFineTuningJobCheckpointsResponse")
    assert [checkpoint.step_number for checkpoint in page.data] == [4, 3, 2]
    assert page.data[0].to_dict()["metrics"] == {**told[-1], "type": "reinforcement"}

    job = jobs.retrieve(run.id)
    conforms(job, "FineTuningJob")
    assert (job.status, job.trained_tokens, page.data[0].fine_tuned_model_checkpoint) == (
        "succeeded", 99, job.fine_tuned_model,
    )  # fmt: skip
    table = list(csv.DictReader(run.client.files.content(job.result_files[0]).text.splitlines()))
    assert [row["step"] for row in table] == ["0", "1", "2", "3", "4"]
    assert [row["full_valid_mean_reward"] for row in table] == ["0.25000", "", "0.50000", "0.37500", "0.75000"]
    assert [row["scores/graders/string_check/a, b/train_reward_mean"] for row in table] == ["", *["0.42100"] * 4]
    assert table[1]["total_duration"] == "1.75000"
