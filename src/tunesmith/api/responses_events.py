"""A response while it is told: deltas go in, events in their order come out, and what was told is the object in the end."""

from collections.abc import Iterator
from typing import Any, Final

from tunesmith.api.chat import wire_token, wire_usage
from tunesmith.core.ids import Ids
from tunesmith.data.answers import Delta
from tunesmith.data.calls import CallPart
from tunesmith.data.vocabulary import TokenLogprob
from tunesmith.services.chat import Answer

Event = dict[str, Any]

#: The parts that words are told in: what their events are called, and the field that holds the words.
_PARTS: Final = {
    "output_text": ("response.output_text", "text"),
    "refusal": ("response.refusal", "refusal"),
    "reasoning_text": ("response.reasoning_text", "text"),
}


class Told:
    """One response as it grows; `body` is the object as far as it has come."""

    def __init__(self, response_id: str, answer: Answer, asked: dict[str, Any], ids: Ids) -> None:
        self._answer = answer
        self._ids = ids
        self._n_events = 0
        self._reason: str | None = None
        #: The item that is being told; what it holds is put together when it is over.
        self._open: dict[str, Any] | None = None
        #: The part of it that words go into; None for a call.
        self._part: str | None = None
        self._pieces: list[str] = []
        self._logprobs: list[dict[str, Any]] = []
        self.body: dict[str, Any] = {
            "id": response_id,
            "object": "response",
            "created_at": int(answer.created_at),
            "completed_at": None,
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "output": [],
            "usage": None,
            **asked,
        }

    def begin(self) -> Iterator[Event]:
        """Tell that it is there."""
        yield self._event("response.created", response=self._snapshot())
        yield self._event("response.in_progress", response=self._snapshot())

    def feed(self, delta: Delta) -> Iterator[Event]:
        """Tell what is new."""
        if delta.reasoning:
            yield from self._say("reasoning_text", delta.reasoning)
        if delta.text:
            yield from self._say("output_text", delta.text, logprobs=[*map(_scored, delta.logprobs)])
        if delta.refusal:
            yield from self._say("refusal", delta.refusal)
        if delta.tool_call is not None:
            yield from self._call(delta.tool_call)
        self._reason = delta.finish_reason or self._reason

    def finish(self, now: float) -> Iterator[Event]:
        """Tell the rest of the last item; `body` is whole then, and `last` tells of it."""
        cut = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(self._reason or "")
        status = "completed" if cut is None else "incomplete"
        if self._open is None and not self.body["output"]:
            yield from self._open_part("output_text")
        yield from self._close(status)
        self._end(status)
        if cut is None:
            self.body["completed_at"] = int(now)
        else:
            self.body["incomplete_details"] = {"reason": cut}

    def fail(self, code: str, message: str) -> None:
        """Note that it broke off; `last` tells of it."""
        if self._open is not None:
            self._put_together("incomplete")
        self._end("failed")
        self.body |= {"error": {"code": code, "message": message}, "completed_at": None, "incomplete_details": None}

    def last(self) -> Event:
        """Tell how it ended."""
        return self._event(f"response.{self.body['status']}", response=self._snapshot())

    def _end(self, status: str) -> None:
        usage = wire_usage(self._answer)
        details = usage["completion_tokens_details"]
        self.body["status"] = status
        self.body["usage"] = {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {
                "cached_tokens": usage["prompt_tokens_details"]["cached_tokens"],
                "cache_write_tokens": 0,
            },
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": details["reasoning_tokens"]},
            "total_tokens": usage["total_tokens"],
        }

    def _event(self, kind: str, **said: Any) -> Event:
        event = {"type": kind, "sequence_number": self._n_events, **said}
        self._n_events += 1
        return event

    def _snapshot(self) -> dict[str, Any]:
        return {**self.body, "output": list(self.body["output"])}

    def _of_item(self, kind: str, **said: Any) -> Event:
        """Return an event of the open item."""
        assert self._open is not None
        place = {"item_id": self._open["id"], "output_index": len(self.body["output"])}
        if self._part is not None:
            place["content_index"] = 0
        return self._event(kind, **place, **said)

    def _add(self, item: dict[str, Any], part: str | None) -> Event:
        self._open, self._part, self._pieces, self._logprobs = item, part, [], []
        return self._event("response.output_item.added", output_index=len(self.body["output"]), item=dict(item))

    def _open_part(self, part: str) -> Iterator[Event]:
        if part == "reasoning_text":
            item = {"id": self._ids.item("rs"), "type": "reasoning", "status": "in_progress", "summary": [], "content": []}
        else:
            item = {
                "id": self._ids.item("msg"),
                "type": "message",
                "status": "in_progress",
                "role": "assistant",
                "content": [],
            }
        yield self._add(item, part)
        yield self._of_item("response.content_part.added", part=_whole_part(part, "", []))

    def _say(self, part: str, words: str, **logprobs: list[dict[str, Any]]) -> Iterator[Event]:
        if self._part != part:
            yield from self._close("completed")
            yield from self._open_part(part)
        self._pieces.append(words)
        self._logprobs += logprobs.get("logprobs", [])
        yield self._of_item(f"{_PARTS[part][0]}.delta", delta=words, **logprobs)

    def _call(self, part: CallPart) -> Iterator[Event]:
        if part.name is not None:
            yield from self._close("completed")
            item = {"id": self._ids.item("fc"), "type": "function_call", "status": "in_progress"}
            yield self._add({**item, "call_id": part.id, "name": part.name, "arguments": ""}, None)
        if part.arguments:
            self._pieces.append(part.arguments)
            yield self._of_item("response.function_call_arguments.delta", delta=part.arguments)

    def _close(self, status: str) -> Iterator[Event]:
        """Tell the end of the open item, if there is one."""
        item = self._open
        if item is None:
            return
        said = "".join(self._pieces)
        if self._part is not None:
            name, field = _PARTS[self._part]
            scored = {"logprobs": self._logprobs} if self._part == "output_text" else {}
            yield self._of_item(f"{name}.done", **{field: said}, **scored)
            yield self._of_item("response.content_part.done", part=_whole_part(self._part, said, self._logprobs))
        else:
            yield self._of_item("response.function_call_arguments.done", name=item["name"], arguments=said)
        place = len(self.body["output"])
        whole = self._put_together(status)
        yield self._event("response.output_item.done", output_index=place, item=whole)

    def _put_together(self, status: str) -> dict[str, Any]:
        item, said = self._open, "".join(self._pieces)
        assert item is not None
        part = self._part
        held = {"arguments": said} if part is None else {"content": [_whole_part(part, said, self._logprobs)]}
        whole = {**item, "status": status, **held}
        self.body["output"].append(whole)
        self._open = self._part = None
        return whole


def _whole_part(part: str, said: str, logprobs: list[dict[str, Any]]) -> dict[str, Any]:
    beside = {"annotations": [], "logprobs": logprobs} if part == "output_text" else {}
    return {"type": part, _PARTS[part][1]: said, **beside}


def _scored(token: TokenLogprob) -> dict[str, Any]:
    return {**wire_token(token), "top_logprobs": [*map(wire_token, token.top)]}
