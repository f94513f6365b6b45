"""Items of the Responses API, checked and whole, as the messages of a chat: one conversation, one prompt."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tunesmith.core.chat import Message

Item = dict[str, Any]
_TEXTS: Final = frozenset({"input_text", "output_text"})


def messages_of(items: Sequence[Item]) -> tuple[list[Message], list[int]]:
    """Return the messages that items stand for, and for each the place of its first item.

    A text of the assistant and the calls after it are one message, as a chat completion answers them. Thoughts are none.
    """
    messages: list[Message] = []
    places: list[int] = []
    for place, item in enumerate(items):
        if item["type"] == "reasoning":
            continue
        if item["type"] == "function_call":
            call = {"id": item["call_id"], "type": "function"}
            call["function"] = {"name": item["name"], "arguments": item["arguments"]}
            if not messages or messages[-1]["role"] != "assistant":
                messages.append({"role": "assistant", "content": None})
                places.append(place)
            messages[-1].setdefault("tool_calls", []).append(call)
            continue
        if item["type"] == "function_call_output":
            messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": _content(item["output"])})
        else:
            messages.append({"role": item["role"], "content": _content(item["content"])})
        places.append(place)
    return messages, places


def _content(said: str | Sequence[Mapping[str, Any]]) -> str | list[dict[str, Any]]:
    if isinstance(said, str):
        return said
    if all(part["type"] in _TEXTS for part in said) and len(said) == 1:
        return said[0]["text"]
    return [_part(part) for part in said]


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    if part["type"] in _TEXTS:
        return {"type": "text", "text": part["text"]}
    if part["type"] == "input_image":
        return {"type": "image_url", "image_url": {"url": part["image_url"], "detail": part["detail"]}}
    return {"type": "refusal", "refusal": part["refusal"]}
