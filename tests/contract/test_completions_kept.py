"""Stored chat completions through the official client: what is stored, when, and how it is found again."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import openai
import pytest
from sqlalchemy import text

from scripted import MODEL, Script, scripted
from tunesmith.domain.completion import Completion
from tunesmith.domain.scope import Project
from tunesmith.store import completions

SAID: list[Any] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "new?"}], "name": "Ann"},
]
TOOLS: list[Any] = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]
CALL = 'Well.\n<tool_call>{"name": "look", "arguments": {"at": "sky"}}</tool_call>'


@pytest.fixture(scope="module")
def script(served: Any) -> Script:
    return scripted(served)


@pytest.fixture(autouse=True)
def said(script: Script, served: Any) -> Iterator[Script]:
    script.clear()
    yield script
    with served.composed.db.begin() as tx:
        for each in completions.page(tx, served.scope, limit=1000)[0]:
            completions.delete_one(tx, served.scope, each.id)


def ask(client: openai.OpenAI, **wishes: Any) -> Any:
    return client.chat.completions.create(**{"model": MODEL, "messages": SAID, "store": True, **wishes})


def ids(client: openai.OpenAI, **query: Any) -> list[str]:
    return [each.id for each in client.chat.completions.list(**query)]


def test_what_is_stored_is_what_was_answered(client: openai.OpenAI, said: Script, conforms: Callable[..., None]) -> None:
    said.texts = [CALL, "Nothing."]
    wishes = {"temperature": 0.5, "top_p": 0.9, "seed": 7, "tools": TOOLS, "tool_choice": "auto", "user": "u"}
    wishes |= {"presence_penalty": 0.5, "frequency_penalty": -0.5, "n": 2, "logprobs": True}
    answer = ask(client, **wishes, metadata={"task": "news"})
    kept = client.chat.completions.retrieve(answer.id).to_dict()
    conforms(kept, "CreateChatCompletionResponse")
    assert {**kept, **answer.to_dict()} == kept
    assert [choice["finish_reason"] for choice in kept["choices"]] == ["tool_calls", "stop"]
    assert all(choice["logprobs"]["content"] for choice in kept["choices"])
    del wishes["n"], wishes["logprobs"]
    wishes["input_user"] = wishes.pop("user")
    assert {name: kept[name] for name in wishes} == wishes
    assert kept["metadata"] == {"task": "news"}
    assert kept["request_id"] == answer._request_id
    plain = ask(client)
    kept = client.chat.completions.retrieve(plain.id).to_dict()
    unset = {"seed": None, "tools": None, "tool_choice": None, "response_format": None, "input_user": None, "metadata": {}}
    assert {name: kept[name] for name in unset} == unset
    assert (kept["temperature"], kept["top_p"], kept["presence_penalty"], kept["frequency_penalty"]) == (1, 1, 0, 0)


def test_the_form_that_was_asked_for_is_stored(client: openai.OpenAI, said: Script) -> None:
    said.texts = ['{"a": 1}']
    form: Any = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True}}
    assert client.chat.completions.retrieve(ask(client, response_format=form).id).to_dict()["response_format"] == form


def test_nothing_is_stored_unless_it_was_asked_for(client: openai.OpenAI) -> None:
    for store in (None, False, openai.omit):
        with pytest.raises(openai.NotFoundError, match="'store' true"):
            client.chat.completions.retrieve(ask(client, store=store).id)
    assert ids(client) == []


def test_a_streamed_answer_is_stored_when_its_end_is_read(client: openai.OpenAI, said: Script) -> None:
    said.texts = [CALL]
    options = {"stream": True, "tools": TOOLS, "metadata": {"k": "v"}}
    chunks = list(ask(client, **options, stream_options={"include_usage": True}))
    kept = client.chat.completions.retrieve(chunks[0].id)
    assert kept.choices[0].message.content == "Well."
    assert kept.choices[0].message.tool_calls[0].function.name == "look"  # type: ignore[index,union-attr]
    assert (kept.choices[0].finish_reason, kept.usage) == ("tool_calls", chunks[-1].usage)
    assert kept.to_dict()["metadata"] == {"k": "v"}


def test_an_answer_that_was_interrupted_leaves_nothing(client: openai.OpenAI, said: Script) -> None:
    said.texts, said.waits_after = ["One two three four."], 2
    with ask(client, stream=True) as stream:
        next(iter(stream))
    end = time.monotonic() + 10
    while not said.n_left and time.monotonic() < end:
        time.sleep(0.01)
    assert said.n_left == 1
    said.waits_after, said.breaks_after = None, 2
    with pytest.raises(openai.APIError, match="stopped while it answered"):
        list(ask(client, stream=True))
    with pytest.raises(openai.InternalServerError):
        ask(client)
    assert ids(client) == []


def test_an_answer_that_cannot_be_stored_says_so(served: Any, client: openai.OpenAI) -> None:
    with served.composed.db.begin() as tx:
        n_pages = tx.execute(text("PRAGMA page_count")).scalar()
        tx.execute(text(f"PRAGMA max_page_count={n_pages}"))
    long: Any = {
        "tools": [{"type": "function", "function": {"name": "f", "description": "d" * 400_000}}],
        "tool_choice": "none",
    }
    try:
        with pytest.raises(openai.APIStatusError) as caught:
            ask(client, **long)
        heard: list[str] = []
        with pytest.raises(openai.APIError, match="disk"):
            heard.extend(chunk.choices[0].delta.content or "" for chunk in ask(client, **long, stream=True))
    finally:
        with served.composed.db.begin() as tx:
            tx.execute(text("PRAGMA max_page_count=1000000"))
    assert (caught.value.status_code, "".join(heard)) == (507, "Fine.")
    assert ids(client) == []


def test_a_list_has_pages_in_both_orders(client: openai.OpenAI, http: httpx2.Client, conforms: Callable[..., None]) -> None:
    made = [ask(client).id for _ in range(5)]
    assert ids(client, limit=2) == made
    assert ids(client, limit=2, order="desc") == made[::-1]
    page = http.get("/v1/chat/completions", params={"limit": 2, "after": made[1]}).json()
    conforms(page, "ChatCompletionList")
    assert (page["first_id"], page["last_id"], page["has_more"]) == (made[2], made[3], True)
    empty = http.get("/v1/chat/completions", params={"after": made[-1]}).json()
    conforms(empty, "ChatCompletionList")
    assert empty == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


def test_a_list_is_filtered_as_the_clients_send_it(client: openai.OpenAI, http: httpx2.Client) -> None:
    both = ask(client, metadata={"team": "a b", "k[1]": "ü&="}).id
    one = ask(client, metadata={"team": "a b", "blank": ""}).id
    ask(client)
    assert ids(client, metadata={"team": "a b"}) == [both, one]
    assert ids(client, metadata={"team": "a b", "k[1]": "ü&="}, model=MODEL) == [both]
    assert ids(client, metadata={"blank": ""}) == [one]
    assert ids(client, model="another") == []
    assert len(ids(client, metadata={})) == len(ids(client, metadata=None)) == 3
    for query in ("metadata[team]=a+b", "metadata%5Bteam%5D=a%20b"):
        found = http.get(f"/v1/chat/completions?{query}").json()["data"]
        assert [each["id"] for each in found] == [both, one]


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("metadata=null", "metadata"),
        ("metadata[a]=1&metadata[a]=2", "metadata[a]"),
        ("after=chatcmpl-none", "after"),
        ("limit=0", "limit"),
        ("order=up", "order"),
        ("status=done", "status"),
    ],
)
def test_a_query_that_says_something_else_is_refused_by_name(http: httpx2.Client, query: str, named: str) -> None:
    answer = http.get(f"/v1/chat/completions?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == named


def test_messages_come_in_pages_as_they_were_sent(
    client: openai.OpenAI, http: httpx2.Client, said: Script, conforms: Callable[..., None]
) -> None:
    said.texts = [CALL]
    first = ask(client, tools=TOOLS)
    answered = [*SAID, first.choices[0].message, {"role": "tool", "tool_call_id": "x", "content": "Blue."}]
    kept = ask(client, messages=answered)
    messages = client.chat.completions.messages
    page = http.get(f"/v1/chat/completions/{kept.id}/messages").json()
    # The schema knows the role assistant alone, its own example shows a user's message.
    conforms({**page, "data": [{**each, "role": "assistant"} for each in page["data"]]}, "ChatCompletionMessageList")
    assert [each.id for each in messages.list(kept.id, limit=3)] == [f"{kept.id}-{place}" for place in range(4)]
    assert [each.role for each in messages.list(kept.id, order="desc", limit=1)] == ["tool", "assistant", "user", "system"]
    system, user, assistant, tool = (each.to_dict() for each in messages.list(kept.id))
    assert (system["content"], system["content_parts"], system["name"]) == ("Be brief.", None, None)
    assert (user["content"], user["content_parts"], user["name"]) == ("What is new?", SAID[1]["content"], "Ann")
    assert assistant["tool_calls"] == [call.to_dict() for call in first.choices[0].message.tool_calls]
    assert (tool["tool_call_id"], tool["content"]) == ("x", "Blue.")
    with pytest.raises(openai.BadRequestError) as caught:
        messages.list(kept.id, after=f"{first.id}-0")
    assert caught.value.param == "after"


def test_metadata_is_replaced_and_found_anew(client: openai.OpenAI) -> None:
    made = ask(client, metadata={"old": "x"}).id
    changed = client.chat.completions.update(made, metadata={"new": "y"})
    assert changed.to_dict()["metadata"] == {"new": "y"} == client.chat.completions.retrieve(made).to_dict()["metadata"]
    assert (ids(client, metadata={"old": "x"}), ids(client, metadata={"new": "y"})) == ([], [made])
    assert client.chat.completions.update(made, metadata=None).to_dict()["metadata"] == {}


def test_a_deleted_completion_is_gone(client: openai.OpenAI) -> None:
    made = ask(client, metadata={"k": "v"}).id
    told = client.chat.completions.delete(made)
    assert told.to_dict() == {"id": made, "object": "chat.completion.deleted", "deleted": True}
    gone: list[Callable[[], object]] = [
        lambda: client.chat.completions.retrieve(made),
        lambda: client.chat.completions.delete(made),
        lambda: client.chat.completions.update(made, metadata={}),
        lambda: client.chat.completions.messages.list(made),
    ]
    for call in gone:
        with pytest.raises(openai.NotFoundError, match=made):
            call()
    assert ids(client, metadata={"k": "v"}) == []


def test_another_projects_completion_is_unknown(client: openai.OpenAI, served: Any) -> None:
    theirs = Completion("chatcmpl-theirs", "proj_b", 1.0, MODEL, {}, {}, [])
    with served.composed.db.begin() as tx:
        completions.add(tx, Project("proj_b"), theirs)
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.retrieve(theirs.id)
    assert ids(client) == []


@pytest.mark.parametrize(
    ("wishes", "param", "told"),
    [
        ({"store": False, "metadata": {"k": "v"}}, "metadata", "only allowed when 'store' is enabled"),
        ({"metadata": {f"k{n}": "v" for n in range(17)}}, "metadata", "at most 16"),
        ({"metadata": {"k" * 65: "v"}}, "metadata", "at most 64"),
        ({"metadata": {"k": "v" * 513}}, "metadata", "at most 512"),
        ({"metadata": {"k": 1}}, "metadata.k", "a string"),
    ],
)
def test_metadata_that_does_not_fit_is_refused(client: openai.OpenAI, wishes: Any, param: str, told: str) -> None:
    with pytest.raises(openai.BadRequestError, match=told) as caught:
        ask(client, **wishes)
    assert caught.value.param == param
    ask(client, store=openai.omit, metadata={})


@pytest.mark.parametrize(
    ("body", "param"), [({}, "metadata"), ({"metadata": {"k": 1}}, "metadata.k"), ({"metadata": {}, "model": "x"}, "model")]
)
def test_nothing_but_metadata_can_be_changed(client: openai.OpenAI, http: httpx2.Client, body: Any, param: str) -> None:
    answer = http.post(f"/v1/chat/completions/{ask(client).id}", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_text_that_could_not_be_shown_again_is_refused(http: httpx2.Client) -> None:
    for field in (
        '"user": "\\ud800"',
        '"tools": [{"type": "function", "function": {"name": "f", "parameters": {"a": NaN}}}]',
    ):
        text = f'{{"model": "{MODEL}", "store": true, "messages": [{{"role": "user", "content": "json"}}], {field}}}'
        answer = http.post("/v1/chat/completions", content=text, headers={"content-type": "application/json"})
        assert answer.status_code == 400, answer.text


def test_an_answer_under_a_key_is_stored_once(client: openai.OpenAI) -> None:
    first, again = (ask(client, extra_headers={"Idempotency-Key": "once"}) for _ in range(2))
    assert first.to_dict() == again.to_dict()
    assert ids(client) == [first.id]


@pytest.mark.anyio
async def test_the_async_client_pages_through_the_same(client: openai.OpenAI, async_client: openai.AsyncOpenAI) -> None:
    made = [ask(client, metadata={"k": "v"}).id for _ in range(3)]
    chat = async_client.chat.completions
    assert [each.id async for each in chat.list(limit=1, metadata={"k": "v"})] == made
    assert [each.role async for each in chat.messages.list(made[0], limit=1)] == ["system", "user"]
    assert (await chat.delete(made[0])).deleted
