"""Answers of models upstream: a chat request as their server takes it, and the chunks of its answer as deltas."""

import hashlib
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

from pydantic import BaseModel, Field, ValidationError

from tunesmith.core.clock import Clock
from tunesmith.core.errors import BadGateway, InvalidRequest
from tunesmith.core.ids import Ids
from tunesmith.core.tool_choice import AUTO
from tunesmith.data.answers import Delta
from tunesmith.data.calls import CallPart
from tunesmith.data.vocabulary import TokenLogprob
from tunesmith.domain.model import Base
from tunesmith.domain.ports import Adapter, PictureRefused, Pictures, UpstreamFailed
from tunesmith.services.asking import Asking, Number, Told
from tunesmith.services.chat import Answer, ChatRequest
from tunesmith.services.images import has_images, with_images
from tunesmith.services.upstreams import again, failed, unable, what

PATH: Final = "chat/completions"
FINISHES: Final = frozenset({"stop", "length", "tool_calls", "content_filter"})
#: Fields of a part of a message that steer OpenAI's own operation, and that other servers may not know.
_OPENAIS_OWN: Final = "prompt_cache_breakpoint"


class _Function(BaseModel):
    name: str | None = None
    arguments: str | None = None


class _Call(BaseModel):
    index: int | None = None
    id: str | None = None
    function: _Function = Field(default_factory=_Function)


class _Said(BaseModel):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_Call] | None = None


class _Token(BaseModel):
    token: str
    logprob: float
    bytes: list[Annotated[int, Field(ge=0, le=255)]] | None = None
    top_logprobs: list["_Token"] = []

    def scored(self) -> TokenLogprob:
        raw = self.token.encode(errors="replace") if self.bytes is None else bytes(self.bytes)
        return TokenLogprob(raw, self.logprob, tuple(each.scored() for each in self.top_logprobs))


class _Logprobs(BaseModel):
    content: list[_Token] | None = None


class _Part(BaseModel):
    """What a chunk adds to a choice; a server that does not stream sends one chunk, and calls this `message`."""

    index: Number = 0
    delta: _Said | None = None
    message: _Said | None = None
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None


class _Chunk(Told):
    choices: list[_Part] | None = None


@dataclass(slots=True)
class _Choice:
    """One choice as it grows: its calls, each by the number that the other server gives it."""

    calls: dict[int, int] = field(default_factory=dict[int, int])
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Passing:
    """What `Chat` needs of models upstream."""

    asking: Asking
    pictures: Pictures
    clock: Clock
    ids: Ids

    async def answer(self, base: Base, request: ChatRequest, adapter: Adapter | None = None) -> Answer:
        """Return the answer of a model upstream, or of an adapter on it, which nobody has asked for yet.

        Raises:
            InvalidRequest: the model was found not to do what is asked for, or an image is not fetched.
        """
        there = base.upstream
        assert there is not None
        _refuse_unable(base, request)
        try:
            messages = await with_images(self.pictures, request.messages)
        except PictureRefused as refused:
            raise InvalidRequest(f"{refused}.", param="messages") from refused
        body = {"model": there.model, "messages": [_plain(message) for message in messages], **_wishes(request, there.limit)}
        if base.tunable:  # as the bases of this server do; vLLM would take what the model's folder recommends
            body = {"temperature": 1.0, "top_p": 1.0, **body}
        answer = Answer(
            id=self.ids.chat(),
            created_at=self.clock.now(),
            model=request.model,
            n_prompt_tokens=0,
            fingerprint=fingerprint_of(base, adapter),
            deltas=_nothing(),
        )
        answer.deltas = self._deltas(base, self.asking.chunks(base, PATH, body, adapter), request.n, answer)
        return answer

    async def _deltas(
        self, base: Base, said: AsyncGenerator[dict[str, Any]], n: int, answer: Answer
    ) -> AsyncGenerator[Delta]:
        choices = [_Choice() for _ in range(n)]
        try:
            async with aclosing(said) as chunks:
                async for raw in chunks:
                    chunk = _Chunk.model_validate(raw)
                    chunk.note(answer)
                    for part in chunk.choices or []:
                        for delta in self._read(part, choices[part.index]):
                            yield delta
        except UpstreamFailed as failure:
            raise failed(base, failure) from failure
        except (ValidationError, IndexError) as error:
            raise BadGateway(f"The server of {base.name} answers what is no chunk of a chat completion.") from error
        if not all(choice.ended for choice in choices):
            raise BadGateway(f"The server of {base.name} ended its answer in the middle. Send the request again.")

    def _read(self, part: _Part, choice: _Choice) -> Iterator[Delta]:
        said = part.delta or part.message or _Said()
        thought = said.reasoning_content or said.reasoning or ""
        scores = tuple(token.scored() for token in (part.logprobs or _Logprobs()).content or ())
        if said.content or thought or said.refusal or scores:
            text, refusal = said.content or "", said.refusal or ""
            yield Delta(part.index, text=text, reasoning=thought, refusal=refusal, logprobs=scores)
        for place, call in enumerate(said.tool_calls or []):
            number = place if call.index is None else call.index
            arguments = call.function.arguments or ""
            if number in choice.calls:
                made = CallPart(choice.calls[number], arguments)
            else:
                ours = choice.calls[number] = len(choice.calls)
                made = CallPart(ours, arguments, call.id or self.ids.tool_call(), call.function.name or "")
            yield Delta(part.index, tool_call=made)
        if part.finish_reason and not choice.ended:
            choice.ended = True
            reason = part.finish_reason if part.finish_reason in FINISHES else "stop"
            yield Delta(part.index, finish_reason=reason)


def _refuse_unable(base: Base, request: ChatRequest) -> None:
    """Refuse what the model was found not to do: its server might pass over it in silence."""
    bound = request.schema is not None and (request.form is None or request.form["type"] == "json_schema")
    for ability, wanted, param, words in (
        ("chat", True, "model", "chat completions"),
        ("structured_output", bound, "response_format", "structured output (`response_format` of type `json_schema`)"),
        ("images", has_images(request.messages), "messages", "images"),
    ):
        if wanted and (told := unable(base, ability, words)) is not None:
            raise InvalidRequest(told, param=param)
    effort, there = request.reasoning_effort, base.upstream
    if effort is not None and there is not None and effort not in there.efforts:
        taken = ", ".join(there.efforts) or "none at all"
        raise InvalidRequest(
            f"{base.name} ({what(base)}) was found not to know the reasoning effort '{effort}'; it takes: {taken}. "
            f"{again(base)}",
            param="reasoning_effort",
        )


def _wishes(request: ChatRequest, limit: str) -> dict[str, Any]:
    """Return the fields that the request sets, and no others: a server need not know every field there is."""
    form = request.form
    if form is None and request.schema is not None:
        form = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": request.schema}}
    tools, choice = request.tools, request.tool_choice
    if tools and choice.names is not None and not choice.named:  # few servers know of allowed tools
        tools = [tool for tool in tools if choice.allows(tool["function"]["name"])]
    wishes: dict[str, Any] = {
        limit: request.max_tokens,
        "n": request.n if request.n != 1 else None,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "stop": list(request.stops) or None,
        "seed": request.seed,
        "tools": tools,
        "tool_choice": (choice.wire if choice.named else choice.mode) if tools and choice != AUTO else None,
        "parallel_tool_calls": request.parallel_tool_calls if request.tools else None,
        "response_format": form,
        "reasoning_effort": request.reasoning_effort,
        "presence_penalty": request.presence_penalty or None,
        "frequency_penalty": request.frequency_penalty or None,
        "logit_bias": {str(token): bias for token, bias in request.logit_bias.items()} or None,
        "logprobs": request.logprobs or None,
        "top_logprobs": request.top_logprobs or None,
    }
    return {name: value for name, value in wishes.items() if value is not None}


def _plain(message: Mapping[str, Any]) -> Mapping[str, Any]:
    content = message.get("content")
    if not isinstance(content, list):
        return message
    return {**message, "content": [{key: part[key] for key in part if key != _OPENAIS_OWN} for part in content]}


def fingerprint_of(base: Base, adapter: Adapter | None) -> str:
    """Return what changes with the server, the model and the adapter, of a server that tells no fingerprint."""
    assert base.upstream is not None
    tuned = "" if adapter is None else f" {adapter.sha256}"
    return f"fp_{hashlib.sha256(f'{base.url} {base.upstream.model}{tuned}'.encode()).hexdigest()[:10]}"


async def _nothing() -> AsyncGenerator[Delta]:
    return
    yield
