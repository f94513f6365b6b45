"""Events of a response whose model thinks, speaks, calls and refuses: items in order, each told from start to end."""

import random
from collections.abc import AsyncGenerator

from tunesmith.api.responses_events import Told
from tunesmith.core.ids import Ids
from tunesmith.data.answers import Delta
from tunesmith.data.calls import CallPart
from tunesmith.services.chat import Answer


async def _none() -> AsyncGenerator[Delta]:
    return
    yield


def test_thoughts_words_calls_and_refusals_are_items_of_their_own() -> None:
    ids = Ids(random.Random(0))
    told = Told("resp_x", Answer("chatcmpl-x", 1.0, "m", 3, "fp", _none()), {}, ids)
    deltas = [
        Delta(0, reasoning="Hm, "),
        Delta(0, reasoning="so."),
        Delta(0, text="Well."),
        Delta(0, tool_call=CallPart(0, "", "call_1", "look")),
        Delta(0, tool_call=CallPart(0, "{}")),
        Delta(0, refusal="No."),
        Delta(0, finish_reason="stop"),
    ]
    events = [*told.begin(), *(event for delta in deltas for event in told.feed(delta)), *told.finish(2.0), told.last()]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created", "in_progress",
        "output_item.added", "content_part.added", "reasoning_text.delta", "reasoning_text.delta", "reasoning_text.done",
        "content_part.done", "output_item.done",
        "output_item.added", "content_part.added", "output_text.delta", "output_text.done", "content_part.done",
        "output_item.done",
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done",
        "output_item.added", "content_part.added", "refusal.delta", "refusal.done", "content_part.done", "output_item.done",
        "completed",
    ]  # fmt: skip
    thought, word, call, refusal = told.body["output"]
    assert thought["content"] == [{"type": "reasoning_text", "text": "Hm, so."}]
    assert (thought["type"], thought["summary"]) == ("reasoning", [])
    assert word["content"] == [{"type": "output_text", "text": "Well.", "annotations": [], "logprobs": []}]
    assert (call["call_id"], call["name"], call["arguments"]) == ("call_1", "look", "{}")
    assert refusal["content"] == [{"type": "refusal", "refusal": "No."}]
    assert [event["output_index"] for event in events if event["type"] == "response.output_item.done"] == [0, 1, 2, 3]


def test_what_was_begun_when_it_broke_off_is_incomplete() -> None:
    told = Told("resp_x", Answer("chatcmpl-x", 1.0, "m", 3, "fp", _none()), {}, Ids(random.Random(0)))
    list(told.feed(Delta(0, text="Half")))
    told.fail("server_error", "It broke.")
    last = told.last()
    assert last["type"] == "response.failed"
    assert last["response"]["error"] == {"code": "server_error", "message": "It broke."}
    assert [(item["status"], item["content"][0]["text"]) for item in last["response"]["output"]] == [("incomplete", "Half")]
