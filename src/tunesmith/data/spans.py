"""Conversations as text with the spans to train on: messages fitted to what a template can take, rendered, and marked.

What a template can take is found by rendering small probes, not by its name. Tokens are `data/render.py`'s business.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from tunesmith.core.chat import Message, Tool, modern, text_of
from tunesmith.data.calls import CallForm, form_of
from tunesmith.data.template import ChatTemplate, Span, TemplateRefused

__all__ = ["Conversations", "Draft", "RenderError", "Span"]

#: A character no template writes, for content whose place is looked for.
_MARK: Final = "\ue0f7"
_PROBE: Final = "zqprobe"
_CALL_ID: Final = "zqprobe09"


class RenderError(ValueError):
    """The base's chat template has no place for this conversation; `message_number` is 1-based, None for the whole of it."""

    def __init__(self, reason: str, message_number: int | None = None) -> None:
        place = "" if message_number is None else f"message {message_number}: "
        super().__init__(f"{place}{reason}")
        self.reason = reason
        self.message_number = message_number


@dataclass(frozen=True, slots=True)
class Draft:
    """A rendered conversation and the spans of characters that are trained, in order."""

    text: str
    spans: tuple[Span, ...]
    #: True where the spans end with the assistant's turn and may take in what the template adds behind its end.
    by_prefix: bool


class Conversations:
    """Renders checked messages with one template."""

    def __init__(self, template: ChatTemplate, guard: Callable[[str], str] = str) -> None:
        """`guard` is applied to the content of every message that is not the assistant's."""
        self._template = template
        self._guard = guard

    def prompt(self, messages: Sequence[Message], tools: Sequence[Tool] | None, extra: Mapping[str, Any]) -> str:
        """Return the text that the assistant's next turn follows.

        Raises:
            RenderError: the template refuses the conversation.
        """
        fitted = self._fit(messages, tools)
        return self._render(fitted, tools, extra, generation_prompt=True)

    def drafts(self, messages: Sequence[Message], tools: Sequence[Tool] | None, extra: Mapping[str, Any]) -> list[Draft]:
        """Return the texts to train on: one, or one per trained turn where the template rewrites earlier turns.

        Empty when no assistant message has a weight other than 0.

        Raises:
            RenderError: the template refuses the conversation.
        """
        turns = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
        trained = [index for index in turns if messages[index].get("weight") != 0]
        if not trained:
            return []
        fitted = self._fit(messages, tools)
        if self._template.marks_generation:
            text, spans = self._render_with_spans(fitted, tools, extra)
            if spans is not None and (len(spans) == len(turns) or (spans and len(trained) == len(turns))):
                if len(trained) < len(turns):
                    spans = [span for turn, span in zip(turns, spans, strict=True) if turn in trained]
                return [Draft(text, tuple(spans), by_prefix=False)]
        return self._drafts_by_prefix(fitted, tools, extra, trained)

    def _drafts_by_prefix(
        self, fitted: list[Message], tools: Sequence[Tool] | None, extra: Mapping[str, Any], trained: list[int]
    ) -> list[Draft]:
        whole = self._render(fitted, tools, extra)
        stable: list[Span] = []
        for turn in trained:
            text = self._upto(fitted, tools, extra, turn, whole)
            if not whole.startswith(text):
                break
            stable.append((self._start(fitted, tools, extra, turn, text), len(text)))
        else:
            return [Draft(whole, tuple(stable), by_prefix=True)]
        drafts: list[Draft] = []
        for turn in trained:
            text = self._upto(fitted, tools, extra, turn, whole)
            drafts.append(Draft(text, ((self._start(fitted, tools, extra, turn, text), len(text)),), by_prefix=True))
        return drafts

    def _upto(
        self, fitted: list[Message], tools: Sequence[Tool] | None, extra: Mapping[str, Any], turn: int, whole: str
    ) -> str:
        return whole if turn + 1 == len(fitted) else self._render(fitted[: turn + 1], tools, extra)

    def _start(
        self, fitted: list[Message], tools: Sequence[Tool] | None, extra: Mapping[str, Any], turn: int, text: str
    ) -> int:
        """Return where in `text`, which ends with message `turn`, the assistant's own words begin.

        That is where the generation prompt ends. A template whose prompt is not how it renders the finished turn (or that
        renders no prompt here) is asked a second time with other words, and these tell the place.
        """
        try:
            prompt = self._template.render(fitted[:turn], tools, generation_prompt=True, extra=extra) if turn else ""
        except TemplateRefused:
            prompt = ""
        if prompt and text.startswith(prompt):
            return len(prompt)
        marked = self._said("assistant", _MARK)
        other = self._render([*fitted[:turn], marked], tools, extra)
        start = other.rfind(_MARK)
        if start < 0 or not text.startswith(other[:start]):
            raise RenderError(
                "the chat template of the base model does not tell where the assistant's words begin", turn + 1
            )
        return start

    def _render(
        self,
        fitted: list[Message],
        tools: Sequence[Tool] | None,
        extra: Mapping[str, Any],
        *,
        generation_prompt: bool = False,
    ) -> str:
        try:
            return self._template.render(fitted, tools, generation_prompt=generation_prompt, extra=extra)
        except TemplateRefused as error:
            raise self._explain(error, fitted, tools, extra) from error

    def _render_with_spans(
        self, fitted: list[Message], tools: Sequence[Tool] | None, extra: Mapping[str, Any]
    ) -> tuple[str, list[Span] | None]:
        try:
            return self._template.render_with_spans(fitted, tools, extra=extra)
        except TemplateRefused as error:
            raise self._explain(error, fitted, tools, extra) from error

    def _explain(
        self, refused: TemplateRefused, fitted: list[Message], tools: Sequence[Tool] | None, extra: Mapping[str, Any]
    ) -> RenderError:
        """Find the first message with which the template refuses in the same words."""
        reason = f"the chat template of the base model refuses it: {refused}"
        for end in range(1, len(fitted) + 1):
            try:
                self._template.render(fitted[:end], tools, extra=extra)
            except TemplateRefused as error:
                if str(error) == str(refused):
                    return RenderError(reason, end)
        return RenderError(reason)

    def _fit(self, messages: Sequence[Message], tools: Sequence[Tool] | None) -> list[Message]:
        """Bring checked messages into the form the template takes; raise where a part of them would be lost."""
        if tools and not self._takes_tools:
            raise RenderError("the chat template of the base model has no place for tools. Use a base whose template has.")
        return [self._fit_one(message, number) for number, message in enumerate(modern(messages), start=1)]

    def _fit_one(self, message: Message, number: int) -> Message:
        fitted: Message = {key: value for key, value in message.items() if value is not None and key != "weight"}
        refusal = fitted.pop("refusal", None)
        for key in ("audio", "annotations"):
            fitted.pop(key, None)
        content = text_of(message.get("content"))
        if content is None and refusal is not None:
            content = refusal
        if content is not None:
            fitted |= self._said(fitted["role"], content if fitted["role"] == "assistant" else self._guard(content))
        if fitted["role"] == "developer" and not self._knows_developer:
            fitted["role"] = "system"
        calls = fitted.get("tool_calls")
        if calls:
            if not self._takes_calls:
                reason = "the chat template of the base model has no place for tool calls. Use a base whose template has."
                raise RenderError(reason, number)
            fitted["tool_calls"] = [self._fit_call(call) for call in calls]
            if content is None and self._wants_content:
                fitted |= self._said("assistant", "")
        return fitted

    def _fit_call(self, call: Mapping[str, Any]) -> Mapping[str, Any]:
        """Give the arguments as a mapping, as templates are written for, where they parse and the template takes one."""
        function = call["function"]
        if not self._takes_mappings:
            return call
        try:
            arguments = json.loads(function["arguments"])
        except (ValueError, RecursionError):
            return call
        if not isinstance(arguments, dict):
            return call
        return {**call, "function": {**function, "arguments": arguments}}

    def after_turn(self) -> str:
        """Return what the template writes behind an assistant's words at the end of a conversation."""
        text = self._try([self._said("user", "a"), self._said("assistant", _MARK)])
        return text.rpartition(_MARK)[2] if text and _MARK in text else ""

    # What the template can take, each asked once.

    @cached_property
    def _knows_developer(self) -> bool:
        return self._template.compares_with("developer")

    @cached_property
    def _wants_parts(self) -> bool:
        """True where content shows as a list of parts and not as a string, as in templates of models that see."""
        text = self._try([{"role": "user", "content": _MARK}])
        if text is not None and _MARK in text:
            return False
        text = self._try([{"role": "user", "content": [{"type": "text", "text": _MARK}]}])
        return text is not None and _MARK in text

    @cached_property
    def _takes_tools(self) -> bool:
        parameters = {"type": "object", "properties": {}}
        function = {"name": _PROBE, "description": _PROBE, "parameters": parameters}
        text = self._try([self._said("user", "a")], [{"type": "function", "function": function}])
        return text is not None and _PROBE in text

    @cached_property
    def _takes_calls(self) -> bool:
        texts = [self._try_call(arguments, content) for arguments in ({}, "{}") for content in (None, "")]
        return any(text is not None and _PROBE in text for text in texts)

    @cached_property
    def _wants_content(self) -> bool:
        """True where a call without content trips the template, or makes it write out the absence."""
        arguments: Any = {} if self._takes_mappings else "{}"
        without = self._try_call(arguments, None)
        return without is None or without != self._try_call(arguments, "")

    @cached_property
    def _takes_mappings(self) -> bool:
        """True where a mapping comes out as JSON; some templates paste a string as it is."""
        texts = [self._try_call({"k": "v"}, content) for content in (None, "")]
        return any(text is not None and "{'k'" not in text for text in texts)

    @cached_property
    def call_form(self) -> CallForm:
        """How the template writes calls."""
        text = self._try_call({"k": "v"} if self._takes_mappings else '{"k": "v"}', "", n=2)
        return form_of(text or "", _PROBE, '{"k": "v"}')

    def _try_call(self, arguments: Any, content: str | None, n: int = 1) -> str | None:
        call = {"id": _CALL_ID, "type": "function", "function": {"name": _PROBE, "arguments": arguments}}
        message: Message = {"role": "assistant"} if content is None else self._said("assistant", content)
        return self._try([self._said("user", "a"), {**message, "tool_calls": [call] * n}])

    def _said(self, role: str, content: str) -> Message:
        return {"role": role, "content": [{"type": "text", "text": content}] if self._wants_parts else content}

    def _try(self, messages: list[Message], tools: list[Tool] | None = None) -> str | None:
        try:
            return self._template.render(messages, tools)
        except TemplateRefused:
            return None
