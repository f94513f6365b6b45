"""A real vLLM, where the variable TUNESMITH_TEST_VLLM names a Python that has one: started, given adapters, and compared."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

import tunesmith
from tunesmith.supervisor.tree import descendants

PYTHON = os.environ.get("TUNESMITH_TEST_VLLM")
NANO = Path(tunesmith.__file__).parent / "bases" / "tunesmith-nano"
ASKED: Any = [{"role": "user", "content": "number 5"}]
#: On a CPU, for the community's build: a small memory, and nothing compiled.
FLAGS = "--enforce-eager --max-model-len 512 --dtype float32"
#: Our sampler computes in bf16, as the base is stored.
CLOSE = 0.05

pytestmark = [pytest.mark.slow, pytest.mark.skipif(PYTHON is None, reason="TUNESMITH_TEST_VLLM names no Python")]


def scored(client: openai.OpenAI, model: str) -> tuple[str, list[float]]:
    """Return a greedy answer and its log-probabilities; vLLM tells that of the end too."""
    answer = client.chat.completions.create(model=model, messages=ASKED, temperature=0, logprobs=True, max_tokens=20)
    assert answer.model == model
    choice = answer.choices[0]
    told = [token for token in choice.logprobs.content if token.token != "<|im_end|>"]
    assert "".join(token.token for token in told) == choice.message.content
    return str(choice.message.content), [token.logprob for token in told]


def test_a_real_one_is_started_given_adapters_and_says_what_our_sampler_says(
    make_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    server = make_server(vllm_python=PYTHON, vllm_flags=FLAGS)
    root = server.url.removesuffix("/v1")
    with httpx2.Client(base_url=root, timeout=600, trust_env=False) as http, server.client as client:
        for name, kind in (("far", "vllm"), ("near", None)):
            body = {"name": name, "source": str(NANO)} | ({"kind": kind} if kind else {})
            added = http.post("/tunesmith/v1/models", json=body)
            assert added.status_code == 200, added.text
        file = server.upload()
        tuned: dict[str, str] = {}
        for name in ("far", "near"):
            job = client.fine_tuning.jobs.create(model=name, training_file=file, seed=7)
            server.jobs.append(job.id)
            tuned[name] = server.reaches(job.id, "succeeded").fine_tuned_model
        for far, near in (("far", "near"), (tuned["far"], tuned["near"])):
            said, logprobs = scored(client, far)
            said_here, logprobs_here = scored(client, near)
            assert said == said_here
            assert logprobs == pytest.approx(logprobs_here, abs=CLOSE)
        assert scored(client, tuned["far"])[0] != scored(client, "far")[0]

        # bare completions, one at a time: the community's build dies of a batch of prompts that are scored
        wishes: Any = {"prompt": "number 5", "temperature": 0, "max_tokens": 8, "logprobs": 2, "echo": True}
        for far, near in (("far", "near"), (tuned["far"], tuned["near"])):
            there, here = (client.completions.create(model=model, **wishes) for model in (far, near))
            assert [choice.text for choice in there.choices] == [choice.text for choice in here.choices]
            for one, other in zip(there.choices, here.choices, strict=True):
                assert one.logprobs.text_offset == other.logprobs.text_offset
                assert one.logprobs.token_logprobs[1:] == pytest.approx(other.logprobs.token_logprobs[1:], abs=4 * CLOSE)

        # killed in the middle of its life it is started again, and the adapter is there again
        (told,) = [each for each in http.get("/tunesmith/v1/samplers").json()["data"] if each["kind"] == "vllm"]
        before = scored(client, tuned["far"])
        os.kill(descendants(told["pid"])[0], signal.SIGKILL)
        assert scored(client, tuned["far"])[0] == before[0]
        assert http.get("/tunesmith/v1/models/far").json()["serving"]["adapters"] == 1
        client.models.delete(tuned["far"])
        assert http.get("/tunesmith/v1/models/far").json()["serving"]["adapters"] == 0
        forced = client.chat.completions.create(
            model="far", messages=ASKED, max_tokens=40,
            response_format={"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": {
                "type": "object", "properties": {"n": {"type": "integer", "enum": [7]}}, "required": ["n"],
                "additionalProperties": False}}},
        )  # fmt: skip
        assert json.loads(str(forced.choices[0].message.content)) == {"n": 7}
