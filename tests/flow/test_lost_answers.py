"""A server killed with -9 between the commit of a create and its answer: whoever sends the create again gets the one job."""

from typing import Any

import openai
import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("headers", [{"x-stainless-retry-count": "1"}, {"Idempotency-Key": "monday"}], ids=["retry", "key"])
def test_a_create_committed_and_never_answered_makes_one_job(make_server: Any, headers: dict[str, str]) -> None:
    server = make_server(failpoints="jobs.created=kill", training_slots=1)
    asked: Any = {"model": "tiny", "training_file": server.upload(), "seed": 7}
    first = {name: "0" if name.startswith("x-") else value for name, value in headers.items()}
    with server.client as client, pytest.raises(openai.APIConnectionError):
        client.fine_tuning.jobs.create(**asked, extra_headers=first)
    server.kill()  # it is dead; this waits for it
    server.failpoints = ""
    server.start()
    with server.client as client:
        answer = client.fine_tuning.jobs.with_raw_response.create(**asked, extra_headers=headers)
        job = answer.parse()
        assert answer.headers["idempotent-replayed"] == "true"
        assert [each.id for each in client.fine_tuning.jobs.list().data] == [job.id]
        server.jobs.append(job.id)
        assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
