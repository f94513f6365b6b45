"""A job on a base that vLLM serves: trained here from the folder, answered there with the adapter that it made."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from far.vllm import VllmServer, vllm_server

pytestmark = pytest.mark.slow


@pytest.fixture
def there() -> Iterator[VllmServer]:
    with vllm_server() as server:
        yield server


def test_it_is_trained_here_and_answers_there(make_server: Any, tiny_base: Any, there: VllmServer) -> None:
    server = make_server(sampler_warm=True, default_base="far")
    root = server.url.removesuffix("/v1")
    body = {"name": "far", "source": str(tiny_base), "kind": "vllm", "upstream": {"url": there.url}}
    assert httpx2.post(f"{root}/tunesmith/v1/models", json=body, timeout=120).status_code == 200
    file = server.upload()
    with server.client as client:
        job = client.fine_tuning.jobs.create(model="far", training_file=file, seed=7)
        server.jobs.append(job.id)
        model = server.reaches(job.id, "succeeded").fine_tuned_model
        answer = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hello"}])
        (name,) = there.adapters
        assert answer.choices[0].message.content == name
        assert httpx2.get(f"{root}/tunesmith/v1/samplers").json()["data"] == [], "nobody answers for it here"
        client.models.delete(model)
    assert there.adapters == {}
