"""Requests to servers upstream: where a model is asked, and the chunks of its answer, with the adapter that it needs."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import BaseModel, Field

from tunesmith.core.errors import Unavailable
from tunesmith.domain.model import Base
from tunesmith.domain.ports import Adapter, Endpoint, UpstreamFailed, Upstreams
from tunesmith.services.chat import Answer
from tunesmith.services.upstreams import KeyMissing
from tunesmith.services.vllm import Vllm

_NOT_FOUND: Final = 404
Number = Annotated[int, Field(ge=0)]


class _Details(BaseModel):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class Usage(BaseModel):
    """What a server says that an answer took."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None


class Told(BaseModel):
    """What a chunk of any kind tells of the whole answer."""

    usage: Usage | None = None
    system_fingerprint: str | None = None

    def note(self, answer: Answer) -> None:
        """Write it down."""
        if self.system_fingerprint:
            answer.fingerprint = self.system_fingerprint
        if self.usage is not None:
            usage = self.usage
            answer.n_prompt_tokens, answer.n_completion_tokens = usage.prompt_tokens or 0, usage.completion_tokens or 0
            answer.n_cached_tokens = (usage.prompt_tokens_details or _Details()).cached_tokens or 0
            answer.n_reasoning_tokens = (usage.completion_tokens_details or _Details()).reasoning_tokens or 0


@dataclass(frozen=True, slots=True)
class Asking:
    """Streams of servers upstream."""

    servers: Upstreams
    vllm: Vllm

    async def chunks(
        self, base: Base, path: str, body: Mapping[str, Any], adapter: Adapter | None
    ) -> AsyncGenerator[dict[str, Any]]:
        """Yield the chunks of an answer; a server of ours that is found dead is replaced at once.

        Raises:
            UpstreamFailed: the server refuses, fails, falls silent, or breaks off.
            Unavailable: the model's key is not there, or a server of ours does not come to serve.
        """
        for attempt in (1, 2):
            said, at = False, None
            try:
                async with self.vllm.place(base) as at, aclosing(self._chunks(base, at, path, body, adapter)) as chunks:
                    async for chunk in chunks:
                        said = True
                        yield chunk
                return
            except KeyMissing as missing:
                raise Unavailable(f"{base.name} cannot be asked. {missing}") from missing
            except UpstreamFailed as failure:
                if said or failure.status or attempt == 2 or at is None or not base.served_here:
                    raise
            await self.vllm.bury(base, at)

    async def _chunks(
        self, base: Base, at: Endpoint, path: str, body: Mapping[str, Any], adapter: Adapter | None
    ) -> AsyncGenerator[dict[str, Any]]:
        """Yield the chunks of an answer; an adapter that its server has forgotten is loaded again, once."""
        if adapter is None:
            async with aclosing(self._asked(at, path, body)) as chunks:
                async for chunk in chunks:
                    yield chunk
            return
        said = again = False
        while True:
            async with self.vllm.loaded(base, at, adapter) as name:
                try:
                    async with aclosing(self._asked(at, path, {**body, "model": name})) as chunks:
                        async for chunk in chunks:
                            said = True
                            yield chunk
                    return
                except UpstreamFailed as failure:
                    if failure.status != _NOT_FOUND or said or again:
                        raise
                    again = True
                    self.vllm.lost(base, name)

    async def _asked(self, at: Endpoint, path: str, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        """Yield the chunks of a stream that tells its usage, if the server takes that."""
        for told in ({"stream_options": {"include_usage": True}}, {}):
            try:
                async with aclosing(self.servers.stream(at, path, {**body, "stream": True, **told})) as chunks:
                    async for chunk in chunks:
                        yield chunk
            except UpstreamFailed as failure:
                if not told or "stream_options" not in f"{failure.param} {failure.reason}":
                    raise
            else:
                return
