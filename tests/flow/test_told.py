"""What is told of real jobs, and of a model that is asked: webhooks of each end, and figures for a monitor."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from far.hooks import Receiver, receiving

pytestmark = pytest.mark.slow
GRADER = {"type": "string_check", "name": "g", "input": "{{ sample.output_text }}", "reference": "yes", "operation": "eq"}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as server:
        yield server


def test_jobs_tell_their_ends_and_a_monitor_what_they_and_a_chat_took(
    make_server: Any, eventually: Any, receiver: Receiver
) -> None:
    server = make_server(webhook_hosts=receiver.host)
    kinds = ("succeeded", "failed", "cancelled")
    with server.client as client:
        made = client.webhooks.create(
            name="mine",
            url=receiver.url,
            event_types=[f"fine_tuning.job.{kind}" for kind in kinds],  # type: ignore[misc]
        )
        first = server.create(server.upload(10, method="reinforcement"), n_epochs=1, method="reinforcement")
        wrong = client.files.create(file=("rows.jsonl", b'{"messages": []}\n' * 10), purpose="fine-tune").id
        jobs = {"succeeded": first, "failed": server.create(wrong), "cancelled": server.create(wrong)}
        server.cancel(jobs["cancelled"])
        tuned = server.reaches(first, "succeeded").fine_tuned_model
        eventually(lambda: len(receiver.came) == len(kinds), "each end is told")
        told = [client.webhooks.unwrap(body, headers, secret=made.signing_secret) for headers, body in receiver.came]
        assert {event.type.rpartition(".")[2]: event.data.id for event in told} == jobs  # type: ignore[union-attr]
        assert server.status(jobs["failed"]) == "failed"

        asked: Any = {"model": tuned, "messages": [{"role": "user", "content": "number 3"}], "max_tokens": 3}
        usage = client.chat.completions.create(**asked).usage
        assert usage is not None
        for sample in ("yes", "no"):
            client.fine_tuning.alpha.graders.run(grader=GRADER, model_sample=sample)  # type: ignore[arg-type]
        broken = {**GRADER, "input": "{{ item.lacking }}"}
        client.fine_tuning.alpha.graders.run(grader=broken, model_sample="yes", item={})  # type: ignore[arg-type]
    found = figures(server)
    assert found["tunesmith_jobs", "proj_default", "succeeded"] == 1
    assert found["tunesmith_jobs", "failed", "proj_default"] == 1
    assert found["tunesmith_webhook_tries_total", "delivered"] == found["tunesmith_webhook_deliveries", "delivered"] == 3
    assert found["tunesmith_trained_tokens_total", "proj_default"] == server.job(first).trained_tokens
    steps = len(server.steps(first)) - 1  # before the first one there is an evaluation
    assert found["tunesmith_training_step_seconds_count", "reinforcement"] in (steps, steps + 1)
    assert found["tunesmith_job_queue_seconds_count", "train"] == 1
    assert found["tunesmith_job_queue_seconds_count", "validate"] >= 2
    assert found["tunesmith_grade_seconds_count", "text_similarity", "training"] >= steps
    assert found["tunesmith_grade_seconds_count", "run", "string_check"] == 3
    assert found["tunesmith_grade_errors_total", "invalid_variable_error", "string_check"] == 1
    assert found["tunesmith_inference_tokens_total", "completion", "tiny"] == usage.completion_tokens
    assert found["tunesmith_inference_tokens_total", "prompt", "tiny"] == usage.prompt_tokens
    assert found["tunesmith_inference_seconds_count", "tiny"] == 1
    assert found["tunesmith_inference_first_token_seconds_count", "tiny"] == 1


def figures(server: Any) -> dict[tuple[str, ...], float]:
    """Return every figure by its name and the values of its labels, in alphabetical order."""
    text = httpx2.get(f"{server.url.removesuffix('/v1')}/metrics", trust_env=False).text
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
