"""Chat completions as the official client sees them, over a tiny random base, a tuned model on it, and a real sampler."""

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from tiny import base_of, build
from tunesmith.domain.job import Job
from tunesmith.domain.model import TunedModel
from tunesmith.domain.scope import Everywhere, Project
from tunesmith.domain.states import Status
from tunesmith.store import jobs, models

N_CONTEXT = 400
TUNED = "ft:tiny:tunesmith:mine:AbCdEfGh"
SAID: list[Any] = [{"role": "user", "content": "Hello there"}]


def tune(folder: Path) -> dict[str, bytes]:
    """Return the files of a random adapter."""
    import torch
    from transformers import AutoModelForCausalLM

    from tunesmith.lm.adapter_file import to_files
    from tunesmith.lm.lora import LoraModel

    adapter = LoraModel(AutoModelForCausalLM.from_pretrained(folder)).fresh(seed=1, rank=8, alpha=16)
    generator = torch.Generator().manual_seed(1)
    for pair in adapter.pairs.values():
        pair.b_OR.data.normal_(0, 0.4, generator=generator)
    return to_files(adapter, base_name="tiny")


@pytest.fixture(scope="module")
def chatty(open_house: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server with a base `tiny` (also `gpt-4o-mini`), a model tuned on it, and one that was tuned on other weights."""
    folder = tmp_path_factory.mktemp("tiny")
    build(folder, n_context=N_CONTEXT)
    with open_house(tmp_path_factory.mktemp("chat")) as served:
        base = base_of(folder, "tiny", n_context=N_CONTEXT, aliases=["gpt-4o-mini"])
        known = base.pins
        files = tune(folder)
        key = "jobs/ftjob-x/attempts/1/checkpoints/000001"
        for name, content in files.items():
            served.composed.services.chat.blobs.put(f"{key}/{name}", [content])
        sha256 = hashlib.sha256(files["adapter_model.safetensors"]).hexdigest()
        tuned = TunedModel(TUNED, "proj_default", "org-default", "ftjob-x", "tiny", 2.0, key, sha256, known)
        odd = TunedModel(
            f"{TUNED}:odd", "proj_default", "org-default", "ftjob-x", "tiny", 2.0, key, sha256, {**known, "weights": "0"}
        )
        lost = TunedModel(f"{TUNED}:lost", "proj_default", "org-default", "ftjob-x", "tiny", 2.0, "jobs/no", sha256, known)
        other = TunedModel(f"{TUNED}:other", "proj_other", "org-default", "ftjob-x", "tiny", 2.0, key, sha256, known)
        with served.composed.db.begin() as tx:
            everywhere = Everywhere("the test lays out what others made")
            models.add_base(tx, everywhere, base)
            job = Job(
                id="ftjob-x", project_id="proj_default", organization_id="org-default", model="tiny", base="tiny",
                start_adapter=None, training_file="file-x", validation_file=None, suffix=None, seed=1, method="supervised",
                method_config={}, resolved=None, integrations=[], metadata=None, created_at=1.0, status=Status.SUCCEEDED,
            )  # fmt: skip
            jobs.add(tx, everywhere, job)
            for model in (tuned, odd, lost, other):
                models.add(tx, everywhere, model)
        yield served


@pytest.fixture(scope="module")
def chat(chatty: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=chatty.base_url, api_key="any", max_retries=0, timeout=120) as client:
        yield client


@pytest.fixture
async def async_chat(chatty: Any) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=chatty.base_url, api_key="any", max_retries=0, timeout=120) as client:
        yield client


def ask(client: openai.OpenAI, model: str = "tiny", **wishes: Any) -> Any:
    wishes = {"messages": SAID, "max_tokens": 12, "temperature": 0, **wishes}
    return client.chat.completions.create(model=model, **wishes)


def test_an_answer_conforms_and_counts(chat: openai.OpenAI, conforms: Callable[..., None]) -> None:
    answer = ask(chat)
    conforms(answer, "CreateChatCompletionResponse")
    choice = answer.choices[0]
    assert answer.model == "tiny"
    assert choice.finish_reason in {"length", "stop"}
    assert answer.usage.completion_tokens == 12 or choice.finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert ask(chat, "gpt-4o-mini").choices[0].message.content == choice.message.content


def test_a_tuned_model_answers_otherwise_than_its_base(chat: openai.OpenAI, conforms: Callable[..., None]) -> None:
    base, tuned = ask(chat), ask(chat, TUNED)
    conforms(tuned, "CreateChatCompletionResponse")
    assert tuned.choices[0].message.content != base.choices[0].message.content
    assert tuned.system_fingerprint != base.system_fingerprint
    assert ask(chat, TUNED).choices[0].message.content == tuned.choices[0].message.content


@pytest.mark.anyio
async def test_a_project_sees_its_own_adapters_beside_a_base(chatty: Any, async_chat: openai.AsyncOpenAI) -> None:
    await async_chat.chat.completions.create(model=TUNED, messages=SAID, max_tokens=1)
    samplers = chatty.composed.services.samplers
    own, others = [await samplers.seen_by(Project(name)) for name in ("proj_default", "proj_other")]
    assert [(base, sampler.adapters) for base, sampler in own] == [("tiny", (TUNED,))]
    assert [(base, sampler.adapters) for base, sampler in others] == [("tiny", ())]


def test_a_stream_says_the_same_as_the_whole(chat: openai.OpenAI, conforms: Callable[..., None]) -> None:
    whole = ask(chat, TUNED, seed=5, temperature=1.0, n=2, max_tokens=30)
    texts, reasons, usage = ["", ""], [None, None], None
    stream = ask(
        chat, TUNED, seed=5, temperature=1.0, n=2, max_tokens=30, stream=True, stream_options={"include_usage": True}
    )
    n_chunks = 0
    for chunk in stream:
        conforms(chunk, "CreateChatCompletionStreamResponse")
        n_chunks += 1
        usage = chunk.usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert texts == [choice.message.content for choice in whole.choices]
    assert reasons == [choice.finish_reason for choice in whole.choices]
    assert usage is not None
    assert usage.to_dict() == whole.usage.to_dict()
    assert n_chunks > 5


@pytest.mark.anyio
async def test_many_ask_at_once(async_chat: openai.AsyncOpenAI) -> None:
    async def one(i: int) -> str | None:
        model = TUNED if i % 2 else "tiny"
        answer = await async_chat.chat.completions.create(model=model, messages=SAID, max_tokens=12, temperature=0)
        return answer.choices[0].message.content

    said = await asyncio.gather(*(one(i) for i in range(12)))
    assert len(set(said[::2])) == 1
    assert len(set(said[1::2])) == 1


def test_the_tokens_of_a_prompt_that_were_computed_before_are_counted(chat: openai.OpenAI) -> None:
    system = {"role": "system", "content": "You never say more than you were asked for."}
    first, second = ([system, {"role": "user", "content": words}] for words in ("One?", "Two?"))
    with_usage = {"stream": True, "stream_options": {"include_usage": True}}
    for model in ("tiny", TUNED):
        counted = [ask(chat, model, messages=messages).usage for messages in (first, second, second)]
        *_, last = ask(chat, model, messages=second, **with_usage)
        cached = [usage.prompt_tokens_details.cached_tokens for usage in (*counted, last.usage)]
        n_prompt = counted[0].prompt_tokens
        assert cached[0] == 0
        assert len(system["content"]) < cached[1] < n_prompt - 10
        assert cached[2:] == [n_prompt - 1] * 2


def test_a_stop_string_ends_the_answer(chat: openai.OpenAI) -> None:
    whole = ask(chat, max_tokens=40).choices[0].message.content
    stop = whole[3:5]
    ended = ask(chat, max_tokens=40, stop=[stop]).choices[0]
    assert ended.message.content == whole[: whole.index(stop)]
    assert ended.finish_reason == "stop"


def test_fields_that_only_steer_openai_are_taken(chat: openai.OpenAI) -> None:
    plain = ask(chat).choices[0].message.content
    steered = ask(
        chat, user="u", safety_identifier="s", service_tier="auto", prompt_cache_key="k", store=True, metadata={"a": "b"},
        frequency_penalty=0, presence_penalty=0, logprobs=False, response_format={"type": "text"}, modalities=["text"],
        tool_choice="auto",
    )  # fmt: skip
    assert steered.choices[0].message.content == plain


@pytest.mark.parametrize("name", ["gpt-17", "ft:tiny:tunesmith::NOBODY00", f"{TUNED}:other"])
def test_an_unknown_model_is_not_found(chat: openai.OpenAI, name: str) -> None:
    with pytest.raises(openai.NotFoundError, match="does not exist or you do not have access") as refused:
        ask(chat, name)
    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")


def test_a_model_tuned_on_other_weights_is_refused(chat: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="weights"):
        ask(chat, f"{TUNED}:odd")


def test_an_adapter_that_is_gone_is_an_http_error_streaming_or_not(chat: openai.OpenAI) -> None:
    for stream in (False, True):
        with pytest.raises(openai.APIStatusError, match="holds no adapter") as refused:
            ask(chat, f"{TUNED}:lost", stream=stream)
        assert refused.value.status_code == 503


def test_the_context_is_one_clear_error(chat: openai.OpenAI) -> None:
    long = [{"role": "user", "content": "word " * 100}]
    with pytest.raises(openai.BadRequestError, match=f"{N_CONTEXT} tokens") as refused:
        ask(chat, messages=long)
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "messages")
    with pytest.raises(openai.BadRequestError, match=f"{N_CONTEXT} tokens"):
        ask(chat, max_tokens=N_CONTEXT)
    open_ended = ask(chat, max_tokens=openai.omit, temperature=1.0, seed=1)
    assert open_ended.choices[0].finish_reason in {"length", "stop"}
    assert open_ended.usage.total_tokens <= N_CONTEXT


def test_events_are_data_lines_up_to_done(chatty: Any) -> None:
    body = {"model": "tiny", "messages": SAID, "max_tokens": 4, "stream": True}
    with httpx2.Client(base_url=chatty.base_url, timeout=120, trust_env=False) as http:
        answer = http.post("/chat/completions", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    *events, done, rest = answer.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert chunks[-1]["choices"][0]["finish_reason"] is not None
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_the_first_token_is_sent_before_the_last_is_computed_and_leaving_stops(
    open_house: Callable[..., Any], chatty: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNESMITH_FAILPOINTS", "sampler.step=sleep:0.05")
    base = chatty.composed.services.bases.find("tiny")
    with open_house(tmp_path) as served:
        with served.composed.db.begin() as tx:
            models.add_base(tx, Everywhere("the test lays out what others made"), base)

        def status() -> dict[str, Any]:
            return next(iter(asyncio.run(served.composed.inference.status()).values()))

        def ends() -> dict[str, Any]:
            deadline = time.monotonic() + 60
            while (seen := status())["rows"]:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            return seen

        with openai.OpenAI(base_url=served.base_url, api_key="any", max_retries=0, timeout=120) as client:
            ask(client, max_tokens=1)
            wishes = {"max_tokens": 300, "n": 4, "temperature": 2.0, "seed": 1}
            before = status()["steps"]
            with ask(client, stream=True, **wishes) as stream:
                next(iter(stream))
                assert status()["rows"] > 0
            assert ends()["steps"] < before + 200
            before = status()["steps"]
            with pytest.raises(openai.APITimeoutError):
                ask(client, **wishes, timeout=1.0)
            assert ends()["steps"] < before + 200


def test_an_answer_is_told_again_by_its_key_and_a_stream_takes_none(chat: openai.OpenAI) -> None:
    wishes: dict[str, Any] = {"temperature": 1, "extra_headers": {"Idempotency-Key": "hello"}}
    assert ask(chat, **wishes) == ask(chat, **wishes)
    with pytest.raises(openai.BadRequestError) as caught:
        ask(chat, stream=True, **wishes)
    assert caught.value.code == "idempotency_key_reused"
    with pytest.raises(openai.BadRequestError, match="leave the header or 'stream' out") as caught:
        ask(chat, stream=True, extra_headers={"Idempotency-Key": "streamed"})
    assert caught.value.param == "Idempotency-Key"
    assert ask(chat, extra_headers={"Idempotency-Key": "streamed"}).choices, "the refusal took no key"
