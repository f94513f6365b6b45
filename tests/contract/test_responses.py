"""Responses through the official client: text and its events, forms, chains, what is stored and read again."""

import time
from collections.abc import Callable
from typing import Any

import httpx2
import openai
import pytest
from pydantic import BaseModel
from sqlalchemy import text

from scripted import MODEL, Script, scripted
from tunesmith.domain.response import StoredResponse
from tunesmith.domain.scope import Project
from tunesmith.store import responses

NULLS = {"user", "usage"}
TEXT_EVENTS = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]


@pytest.fixture(scope="module")
def script(served: Any) -> Script:
    return scripted(served)


@pytest.fixture(autouse=True)
def said(script: Script) -> Script:
    script.clear()
    return script


def ask(client: openai.OpenAI, said: Any = "What is new?", **wishes: Any) -> Any:
    return client.responses.create(**{"model": MODEL, "input": said, **wishes})


def schema_of(kind: str) -> str:
    """Return the name that the published schema gives to an event."""
    own = {"response.output_text.delta": "ResponseTextDeltaEvent", "response.output_text.done": "ResponseTextDoneEvent"}
    return own.get(kind, "".join(part.title() for part in kind.replace(".", "_").split("_")) + "Event")


def known(event: Any) -> dict[str, Any]:
    """Return an event without the nulls that the schema has no word for: its own example has a user who is null."""
    told = event.to_dict()
    if "response" in told:
        told["response"] = {
            name: value for name, value in told["response"].items() if value is not None or name not in NULLS
        }
    return told


def kinds(events: list[Any]) -> list[str]:
    """Return the types of events, each run of one type once."""
    types = [event.type for event in events]
    return [kind for place, kind in enumerate(types) if not place or types[place - 1] != kind]


def test_an_answer_is_an_output_message(client: openai.OpenAI, said: Script, conforms: Callable[..., None]) -> None:
    said.texts = ["Nothing much."]
    answer = ask(client, temperature=0.5, top_p=0.25, max_output_tokens=40, metadata={"k": "v"}, user="u")
    conforms(answer, "Response")
    assert (answer.output_text, answer.status, answer.error, answer.incomplete_details) == (
        "Nothing much.",
        "completed",
        None,
        None,
    )
    assert (answer.temperature, answer.top_p, answer.max_output_tokens, answer.metadata) == (0.5, 0.25, 40, {"k": "v"})
    assert (answer.model, answer.store, answer.tools, answer.tool_choice) == (MODEL, True, [], "auto")
    assert answer.completed_at >= answer.created_at
    assert answer.id.startswith("resp_")
    assert answer.output[0].id.startswith("msg_")
    request = said.requests[-1]
    assert (request.temperature, request.top_p, request.max_tokens) == (0.5, 0.25, 40)
    usage = answer.usage
    assert (usage.input_tokens, usage.total_tokens) == (len(request.prompt), len(request.prompt) + usage.output_tokens)
    assert usage.output_tokens_details.reasoning_tokens == usage.input_tokens_details.cached_tokens == 0


def test_the_prompt_is_that_of_the_same_chat(client: openai.OpenAI, said: Script) -> None:
    items: list[Any] = [
        {"role": "user", "content": "One?"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Two."}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Three?"}], "status": "completed"},
    ]
    ask(client, items, instructions="Count.")
    messages: Any = [
        {"role": "system", "content": "Count."},
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "Two."},
        {"role": "user", "content": "Three?"},
    ]
    client.chat.completions.create(model=MODEL, messages=messages)
    assert said.requests[0].prompt == said.requests[1].prompt


def test_thoughts_that_are_sent_are_not_told_again(client: openai.OpenAI, said: Script) -> None:
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]}
    question = {"role": "user", "content": "What is new?"}
    made = ask(client, [thought, question])
    ask(client, [question])
    assert said.requests[0].prompt == said.requests[1].prompt
    assert [item.type for item in client.responses.input_items.list(made.id, order="asc")] == ["reasoning", "message"]


def test_an_image_is_refused_by_its_place_of_a_base_that_reads_text(client: openai.OpenAI) -> None:
    image = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, [{"role": "user", "content": "x"}, {"role": "user", "content": [image]}], instructions="Look.")
    assert (caught.value.param or "").startswith("input[1].content[0]")


def test_events_come_in_order_and_make_the_response(
    client: openai.OpenAI, said: Script, conforms: Callable[..., None]
) -> None:
    said.texts = ["One two three."]
    events = list(ask(client, stream=True, include=["message.output_text.logprobs"], top_logprobs=0))
    assert kinds(events) == TEXT_EVENTS
    assert [event.sequence_number for event in events] == list(range(len(events)))
    for event in events:
        conforms(known(event), schema_of(event.type))
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    last = events[-1].response
    assert "".join(event.delta for event in deltas) == last.output_text == "One two three."
    assert [one.token for event in deltas for one in event.logprobs] == [
        one.token for one in last.output[0].content[0].logprobs
    ]
    assert (events[0].response.status, events[0].response.output) == ("in_progress", [])
    assert {event.item_id for event in events[3:7]} == {last.output[0].id}
    assert client.responses.retrieve(last.id) == last


def test_events_are_named_and_the_last_one_ends_the_stream(http: httpx2.Client, said: Script) -> None:
    answer = http.post("/v1/responses", json={"model": MODEL, "input": "x", "stream": True})
    *events, rest = answer.text.split("\n\n")
    assert rest == ""
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert [event.split("\n")[0] for event in events][:2] == ["event: response.created", "event: response.in_progress"]
    assert all(event.split("\n")[1].startswith("data: {") for event in events)
    assert events[-1].startswith("event: response.completed")


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_reaches_its_limit_is_incomplete(client: openai.OpenAI, said: Script, stream: bool) -> None:
    said.texts = ["one two three four five six seven eight nine ten " * 9]
    answer = ask(client, max_output_tokens=16, stream=stream)
    if stream:
        events = list(answer)
        assert events[-1].type == "response.incomplete"
        answer = events[-1].response
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert (answer.output[0].status, answer.completed_at, answer.usage.output_tokens) == ("incomplete", None, 16)


def test_an_answer_without_a_word_is_an_empty_message(client: openai.OpenAI, said: Script) -> None:
    said.texts = [""]
    answer = ask(client)
    assert (len(answer.output), answer.output_text, answer.status) == (1, "", "completed")
    events = list(ask(client, stream=True))
    assert kinds(events) == [kind for kind in TEXT_EVENTS if kind != "response.output_text.delta"]


def test_log_probabilities_are_told_where_they_are_asked_for(client: openai.OpenAI, said: Script) -> None:
    said.texts = ["Yes."]
    assert ask(client).output[0].content[0].logprobs == []
    for wishes in ({"include": ["message.output_text.logprobs"]}, {"top_logprobs": 2}):
        told = ask(client, **wishes).output[0].content[0].logprobs
        assert "".join(one.token for one in told) == "Yes."
        assert {one.logprob for one in told} == {-0.5}
    assert said.requests[-1].top_logprobs == 2


class Point(BaseModel):
    """What an answer is parsed into."""

    x: int
    y: int


def test_an_answer_is_parsed_into_a_model(client: openai.OpenAI, said: Script) -> None:
    said.texts = ['{"x": 1, "y": 2}']
    parsed = client.responses.parse(model=MODEL, input="Where?", text_format=Point)
    assert parsed.output_parsed == Point(x=1, y=2)
    assert said.requests[-1].grammar is not None
    assert parsed.to_dict()["text"]["format"]["name"] == "Point"  # type: ignore[index]
    said.texts = ["Well."]
    again = client.responses.create(model=MODEL, input=[*parsed.output, {"role": "user", "content": "So?"}])  # type: ignore[list-item]
    assert again.output_text == "Well."


def test_the_clients_stream_gathers_the_same(client: openai.OpenAI, said: Script) -> None:
    said.texts = ['{"x": 1, "y": 2}']
    with client.responses.stream(model=MODEL, input="Where?", text_format=Point) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_response()
    assert kinds == set(TEXT_EVENTS)
    assert (final.output_parsed, final.status) == (Point(x=1, y=2), "completed")


@pytest.mark.parametrize(
    ("form", "bound"),
    [({"type": "text"}, False), ({"type": "json_object"}, True), ({"type": "json_schema", "name": "n", "schema": {}}, True)],
)
def test_a_form_binds_the_answer(client: openai.OpenAI, said: Script, form: Any, bound: bool) -> None:
    answer = ask(client, "Some JSON.", text={"format": form})
    assert (said.requests[-1].grammar is not None) == bound
    assert answer.text.format.to_dict().items() >= form.items()


def test_a_response_goes_on_from_another(client: openai.OpenAI, said: Script) -> None:
    said.texts = ["Two."]
    first = ask(client, "One?", instructions="Count.")
    said.texts = ["Four."]
    second = ask(client, "Three?", previous_response_id=first.id, instructions="Go on.")
    third = ask(client, "Five?", previous_response_id=second.id)
    said.clear()
    talk = [("user", "One?"), ("assistant", "Two."), ("user", "Three?"), ("assistant", "Four."), ("user", "Five?")]
    messages: Any = [{"role": role, "content": words} for role, words in talk]
    client.chat.completions.create(model=MODEL, messages=messages)
    assert third.usage.input_tokens == len(said.requests[-1].prompt)
    assert (second.previous_response_id, third.previous_response_id) == (first.id, second.id)
    asked = list(client.responses.input_items.list(third.id, limit=2, order="asc"))
    assert [(item.role, item.content[0].text) for item in asked] == talk  # type: ignore[union-attr]
    newest = client.responses.input_items.list(third.id, limit=1)
    assert (newest.data[0].content[0].text, newest.has_more) == ("Five?", True)  # type: ignore[union-attr,index]
    assert len({item.id for item in asked}) == 5


def test_a_chain_breaks_where_a_response_is_gone(client: openai.OpenAI, served: Any) -> None:
    first = ask(client)
    second = ask(client, previous_response_id=first.id)
    unkept = ask(client, store=False)
    theirs = StoredResponse("resp_theirs", "proj_b", 1.0, None, None, [], {"output": []})
    with served.composed.db.begin() as tx:
        responses.add(tx, Project("proj_b"), theirs)
    client.responses.delete(first.id)
    for previous, named in ((first.id,) * 2, (second.id, first.id), (unkept.id,) * 2, (theirs.id,) * 2):
        with pytest.raises(openai.BadRequestError, match=f"Previous response with id '{named}' not found") as caught:
            ask(client, previous_response_id=previous)
        assert (caught.value.code, caught.value.param) == ("previous_response_not_found", "previous_response_id")
    for gone in (first.id, unkept.id, theirs.id):
        with pytest.raises(openai.NotFoundError, match=gone):
            client.responses.retrieve(gone)
        with pytest.raises(openai.NotFoundError, match=gone):
            client.responses.input_items.list(gone)
    assert client.responses.retrieve(second.id).previous_response_id == first.id


def test_a_stored_response_is_read_deleted_and_never_cancelled(client: openai.OpenAI, http: httpx2.Client) -> None:
    made = ask(client, metadata={"k": "v"})
    assert client.responses.retrieve(made.id, include=["message.output_text.logprobs"]) == made
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a synchronous response"):
        client.responses.cancel(made.id)
    for named in ("stream=true", "starting_after=3"):
        refused = http.get(f"/v1/responses/{made.id}?{named}").json()["error"]
        assert (refused["code"], refused["param"]) == ("not_available", named.split("=")[0])
    assert http.get(f"/v1/responses/{made.id}?include=nothing").json()["error"]["param"] == "include[0]"
    told = http.delete(f"/v1/responses/{made.id}").json()
    assert told == {"id": made.id, "object": "response", "deleted": True}
    for gone in (client.responses.retrieve, client.responses.delete, client.responses.cancel):
        with pytest.raises(openai.NotFoundError, match=f"Response with id '{made.id}' not found"):
            gone(made.id)


def test_a_response_expires_unless_one_goes_on_from_it(client: openai.OpenAI, served: Any) -> None:
    first = ask(client)
    second = ask(client, previous_response_id=first.id)
    alone = ask(client)
    table = "UPDATE responses SET expires_at = 1.0 WHERE id"
    with served.composed.db.begin() as tx:
        kept = (
            tx.execute(text(f"SELECT expires_at FROM responses WHERE id IN ('{first.id}', '{second.id}')")).scalars().all()
        )
        tx.execute(text(f"{table} = '{alone.id}'"))
    assert len(set(kept)) == 1
    assert kept[0] == pytest.approx(second.created_at + 30 * 24 * 3600, abs=1)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(alone.id)
    assert served.composed.services.responses.sweep() == 1


def test_a_response_that_was_interrupted_leaves_nothing(
    client: openai.OpenAI, said: Script, served: Any, conforms: Callable[..., None]
) -> None:
    said.texts, said.waits_after = ["One two three four."], 2
    with ask(client, stream=True) as stream:
        left = next(iter(stream)).response.id
    end = time.monotonic() + 10
    while not said.n_left and time.monotonic() < end:
        time.sleep(0.01)
    assert said.n_left == 1
    said.waits_after, said.breaks_after = None, 3
    events = list(ask(client, stream=True))
    failed = events[-1]
    conforms(known(failed), "ResponseFailedEvent")
    assert failed.type == "response.failed"
    assert (failed.response.status, failed.response.error.code) == ("failed", "server_error")
    assert "stopped while it answered" in failed.response.error.message
    assert failed.response.output[0].status == "incomplete"
    with pytest.raises(openai.InternalServerError):
        ask(client)
    for gone in (left, failed.response.id):
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(gone)
    said.breaks_after = 0
    with pytest.raises(openai.InternalServerError):
        ask(client, stream=True)


def test_a_response_that_cannot_be_stored_says_so(client: openai.OpenAI, served: Any) -> None:
    with served.composed.db.begin() as tx:
        n_pages = tx.execute(text("PRAGMA page_count")).scalar()
        tx.execute(text(f"PRAGMA max_page_count={n_pages}"))
    long: Any = {"tools": [{"type": "function", "name": "f", "description": "d" * 400_000}], "tool_choice": "none"}
    try:
        with pytest.raises(openai.APIStatusError) as caught:
            ask(client, **long)
        events = list(ask(client, **long, stream=True))
        assert ask(client, **long, store=False).output_text == "Fine."
    finally:
        with served.composed.db.begin() as tx:
            tx.execute(text("PRAGMA max_page_count=1000000"))
    assert caught.value.status_code == 507
    assert (events[-1].type, events[-1].response.output_text) == ("response.failed", "Fine.")
    assert "disk" in events[-1].response.error.message


def test_a_conversation_is_cut_at_its_beginning_where_it_may_be(client: openai.OpenAI, said: Script, served: Any) -> None:
    context = served.composed.services.bases.find(MODEL).context_length
    talk: list[Any] = [{"role": "user", "content": f"{place} " + "word " * (context // 8)} for place in range(12)]
    with pytest.raises(openai.BadRequestError, match="maximum context length") as caught:
        ask(client, talk)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "input")
    said.requests.clear()
    answer = ask(client, talk, truncation="auto", instructions="Stay.")
    assert answer.truncation == "auto"
    prompt = said.prompt()
    assert len(said.requests) == 1
    assert "Stay." in prompt
    assert "11 word" in prompt
    assert "0 word word" not in prompt.replace("10 word", "")
    assert context - len(said.requests[-1].prompt) < context // 4, "no more is cut than has to be"
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        ask(client, "word " * 2 * context, truncation="auto")


def test_a_response_under_a_key_is_made_once(client: openai.OpenAI) -> None:
    first, again = (ask(client, extra_headers={"Idempotency-Key": "one"}) for _ in range(2))
    assert first == again
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, stream=True, extra_headers={"Idempotency-Key": "two"})
    assert caught.value.param == "Idempotency-Key"


def test_an_unknown_model_is_404(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        ask(client, model="nobody")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


@pytest.mark.anyio
async def test_the_async_client_gets_the_same(async_client: openai.AsyncOpenAI, said: Script) -> None:
    said.texts = ["One two."]
    made = await async_client.responses.create(model=MODEL, input="x")
    events = [event async for event in await async_client.responses.create(model=MODEL, input="x", stream=True)]
    assert kinds(events) == TEXT_EVENTS
    assert made.output_text == events[-1].response.output_text  # type: ignore[union-attr]
    assert [item.type async for item in async_client.responses.input_items.list(made.id, limit=1)] == ["message"]
