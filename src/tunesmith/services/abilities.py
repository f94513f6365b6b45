"""What a model upstream can do, found out with small requests: what its server takes, and what it heeds of that."""

import asyncio
import base64
import io
import json
import struct
import wave
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from tunesmith.domain.model import ABILITIES, EFFORTS
from tunesmith.domain.ports import Endpoint, UpstreamFailed, Upstreams

#: Most tokens of an answer; the second is for a model that thinks before it speaks.
N_TOKENS: Final = (512, 4096)
N_TRIES: Final = 2
LONGEST_S: Final = 60.0
LIMITS: Final = ("max_completion_tokens", "max_tokens")

Messages = Sequence[Mapping[str, Any]]
YES: Final[Messages] = ({"role": "user", "content": "Answer with the word yes, and nothing else."},)
GREETING: Final[Messages] = ({"role": "user", "content": "Say good morning."},)
#: Nobody greets so who is not forced to.
LETTERS: Final = ("q", "z")
LETTER: Final[Mapping[str, Any]] = {
    "type": "json_schema",
    "json_schema": {
        "name": "letter",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"letter": {"type": "string", "enum": LETTERS}},
            "required": ["letter"],
            "additionalProperties": False,
        },
    },
}
#: A server that takes this takes anything, and heeds none of it.
NO_EFFORT: Final = "tunesmith"
_KEY_REFUSED: Final = 401
_SERVER_ERROR: Final = 500


async def served_models(servers: Upstreams, at: Endpoint) -> list[str] | None:
    """Return the names of the models that a server lists; None where it lists none.

    Raises:
        UpstreamFailed: it cannot be reached, or refuses the key.
    """
    try:
        answer = await servers.call(at, "models", n_tries=N_TRIES, timeout_s=LONGEST_S)
    except UpstreamFailed as failure:
        if failure.passing or failure.status == _KEY_REFUSED:
            raise
        return None  # there is no such path, or this key may not see it; what the model answers will tell
    rows: Any = answer.get("data")
    if not isinstance(rows, list):
        return None
    names = [row.get("id") for row in rows if isinstance(row, dict)]
    return [name for name in names if isinstance(name, str) and name.isprintable()] or None


class Probe:
    """Small requests to one model."""

    def __init__(self, servers: Upstreams, at: Endpoint, model: str) -> None:
        self._servers = servers
        self._at = at
        self._model = model
        self._limit = LIMITS[0]
        #: Why the last request was refused; and why nothing can be said of the server now.
        self._refusal: UpstreamFailed | None = None
        self._broken: UpstreamFailed | None = None

    async def found(self) -> dict[str, Any]:
        """Return `abilities`, `efforts` and `limit`, as `Upstream` has them.

        Raises:
            UpstreamFailed: the server answers neither chat completions nor embeddings, or cannot be asked now.
        """
        chat, refusal = await self._chats(), self._refusal
        embeddings = await self._embeds()
        if not chat and not embeddings and self._broken is None:
            assert refusal is not None
            raise refusal
        forced = sees = hears = False
        efforts: list[str] = []
        if chat:
            forced, sees, hears, efforts = await asyncio.gather(
                self._is_forced(), self._sees(), self._hears(), self._efforts()
            )
        if self._broken is not None:
            raise self._broken
        can = dict(zip(ABILITIES, (chat, forced, sees, hears, embeddings), strict=True))
        return {"abilities": [name for name in ABILITIES if can[name]], "efforts": efforts, "limit": self._limit}

    async def _chats(self) -> bool:
        for limit in LIMITS:
            self._limit = limit
            if await self._asked(YES) is not None:
                return True
        return False

    async def _is_forced(self) -> bool:
        answer = await self._asked(GREETING, response_format=LETTER)
        try:
            return answer is not None and json.loads(answer)["letter"] in LETTERS
        except (ValueError, KeyError, TypeError, RecursionError):
            return False

    async def _sees(self) -> bool:
        url = f"data:image/png;base64,{base64.b64encode(red_png()).decode()}"
        question = {"type": "text", "text": "Which colour is this picture? Answer with one word."}
        content = [question, {"type": "image_url", "image_url": {"url": url, "detail": "low"}}]
        answer = await self._asked([{"role": "user", "content": content}])
        return answer is not None and "red" in answer.lower()

    async def _hears(self) -> bool:
        sound = {"data": base64.b64encode(silent_wav()).decode(), "format": "wav"}
        content = [{"type": "text", "text": "Answer with the word yes."}, {"type": "input_audio", "input_audio": sound}]
        return await self._asked([{"role": "user", "content": content}]) is not None

    async def _efforts(self) -> list[str]:
        if await self._asked(YES, reasoning_effort=NO_EFFORT) is not None:
            return []
        answers = await asyncio.gather(*(self._asked(YES, reasoning_effort=effort) for effort in EFFORTS))
        return [effort for effort, answer in zip(EFFORTS, answers, strict=True) if answer is not None]

    async def _embeds(self) -> bool:
        answer = await self._call("embeddings", {"model": self._model, "input": ["yes"]})
        try:
            return answer is not None and isinstance(answer["data"][0]["embedding"][0], int | float)
        except (KeyError, IndexError, TypeError):
            return False

    async def _asked(self, messages: Messages, **changes: Any) -> str | None:
        """Return the text of an answer, None where the server refuses; one cut short is asked for again with more room."""
        text = None
        for n_tokens in N_TOKENS:
            body = {"model": self._model, "messages": messages, self._limit: n_tokens, **changes}
            answer = await self._call("chat/completions", body)
            if answer is None:
                continue  # some servers refuse a limit that thinking alone has used up
            try:
                choice = answer["choices"][0]
                text = str(choice["message"].get("content") or "")
                if choice.get("finish_reason") != "length":
                    return text
            except (KeyError, IndexError, TypeError, AttributeError):
                self._refusal = UpstreamFailed(f"{self._at.url} answers what is no chat completion.")
        return text

    async def _call(self, path: str, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the answer, None where the server refuses the request for what it asks."""
        try:
            async with self._servers.turn(self._at):
                return await self._servers.call(self._at, path, body, n_tries=N_TRIES, timeout_s=LONGEST_S)
        except UpstreamFailed as failure:
            crashed = failure.status == _SERVER_ERROR  # so some servers say that they know no images
            self._refusal = failure
            if failure.status == _KEY_REFUSED or (failure.passing and not crashed):
                self._broken = failure
            return None


@lru_cache(maxsize=1)
def red_png() -> bytes:
    """Return a red picture."""
    side = 64

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = (b"\x00" + b"\xff\x00\x00" * side) * side
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@lru_cache(maxsize=1)
def silent_wav() -> bytes:
    """Return a quarter of a second of silence."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16_000)
        sound.writeframes(bytes(8_000))
    return file.getvalue()
