"""Judges and embeddings for graders inside a trainer, which has no database: it asks its server, at the attempt's socket.

A server that is away (it restarts, and the attempt outlives it) is waited for and asked again, up to a patience; whatever
fails is a flag of the sample's grade, never a crash of the training.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, cast, get_args
from weakref import WeakKeyDictionary

import httpx2
import structlog

from tunesmith.core.channel import PROTOCOL, Task
from tunesmith.core.clock import Clock, SystemClock
from tunesmith.graders.base import Flag, GradingFailed, Needs, Question, Usage, Verdict

log = structlog.get_logger()

#: Seconds for which a server may be away, the pause after the first look, and the longest one.
PATIENCE_S: Final = 600.0
FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 10.0
#: Questions that wait for an answer at once; each has a connection of its own.
N_AT_ONCE: Final = 64
_CONNECT_S: Final = 10.0
_OK: Final = 200
_FENCED: Final = frozenset({403, 410})
_SERVER_ERROR: Final = 500
_N_SHOWN: Final = 500
_AWAY: Final[Flag] = "model_grader_server_error"
_FLAGS: Final = frozenset(get_args(Flag))


class _Away(Exception):
    """The server does not answer now; the same question may be asked again."""


class ServerDoor:
    """The attempt's door at its server, for questions. Each has a connection of its own, on whichever loop it is asked."""

    def __init__(
        self,
        task: Task,
        *,
        clock: Clock | None = None,
        patience_s: float = PATIENCE_S,
        first_pause_s: float = FIRST_PAUSE_S,
        n_at_once: int = N_AT_ONCE,
    ) -> None:
        self._socket, self._attempt = task.socket, f"{task.job}, attempt {task.attempt}"
        self._root = f"http://tunesmith/internal/v1/attempts/{task.job}/{task.attempt}"
        self._headers = {"authorization": f"Bearer {task.token}", "content-type": "application/json"}
        self._clock = clock or SystemClock()
        self._patience_s, self._first_pause_s, self._n_at_once = patience_s, first_pause_s, n_at_once
        self._turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()

    async def ask(self, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the server's answer to a question.

        Raises:
            GradingFailed: the grade failed there, the attempt is not the job's any more, or the server stays away.
        """
        # In ASCII: a template may have filled in what UTF-8 cannot hold.
        content = json.dumps({"version": PROTOCOL, **body}, separators=(",", ":")).encode()
        turns = self._turns.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(self._n_at_once))
        async with turns:
            answer = await self._patiently(name, content)
        failed = answer.get("failed")
        if failed is not None:
            raise _failure(failed)
        return answer

    async def _patiently(self, name: str, content: bytes) -> dict[str, Any]:
        away_at: float | None = None
        pause_s = self._first_pause_s
        while True:
            try:
                return await self._once(name, content)
            except _Away as away:
                now = self._clock.monotonic()
                if away_at is None:
                    away_at = now
                    log.warning("judging.away", question=name, reason=str(away))
                if now - away_at >= self._patience_s:
                    details = f"the server has been away for {self._patience_s:g} s: {away}"
                    raise GradingFailed(_AWAY, details) from away
            await asyncio.sleep(min(pause_s, max(0.0, self._patience_s - (now - away_at))))
            pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)

    async def _once(self, name: str, content: bytes) -> dict[str, Any]:
        timeout = httpx2.Timeout(None, connect=_CONNECT_S)  # a judge takes its time; a server that dies ends the connection
        transport = httpx2.AsyncHTTPTransport(uds=self._socket, verify=False, trust_env=False)
        try:
            async with httpx2.AsyncClient(transport=transport, trust_env=False, timeout=timeout) as client:
                answer = await client.post(f"{self._root}/{name}", content=content, headers=self._headers)
        except httpx2.TransportError as error:
            raise _Away(str(error) or type(error).__name__) from error
        status = answer.status_code
        if status in _FENCED:
            raise GradingFailed(_AWAY, f"{self._attempt}, is not the job's any more: the server answers {status}")
        if status >= _SERVER_ERROR:
            raise _Away(f"the server answers {status}")
        if status != _OK:
            raise GradingFailed(_AWAY, f"the server answers {status}: {answer.text[:_N_SHOWN]}")
        try:
            told: object = json.loads(answer.content)
        except ValueError:
            told = None
        if not isinstance(told, dict):
            raise _Away(f"the server answers no JSON object: {answer.text[:_N_SHOWN]}")
        message = cast("dict[str, Any]", told)
        if message.get("version") != PROTOCOL:
            raise GradingFailed(_AWAY, f"the server answers in version {message.get('version')!r}, not {PROTOCOL}")
        return message


@dataclass(frozen=True, slots=True)
class ServerJudge:
    """The `Judge` port: the models that the server knows for the job's project."""

    door: ServerDoor

    async def check(self, model: str, needs: Needs) -> None:
        """Do nothing: the server has checked when the job was created."""

    async def ask(self, question: Question) -> Verdict:
        """Have the server ask.

        Raises:
            GradingFailed: with the flag that the server tells, or its own where it stays away.
        """
        answer = await self.door.ask("judge", {"question": asdict(question)})
        verdict = _verdict(answer.get("verdict"))
        if verdict is None:
            raise GradingFailed(_AWAY, f"the server answers without a verdict: {str(answer)[:_N_SHOWN]}")
        return verdict


@dataclass(frozen=True, slots=True)
class ServerEmbedder:
    """The `Embedder` port: the embedding model that the server knows."""

    door: ServerDoor

    async def check(self) -> None:
        """Do nothing: the server has checked when the job was created."""

    async def similarity(self, left: str, right: str) -> float:
        """Have the server compare.

        Raises:
            GradingFailed: with the flag that the server tells, or its own where it stays away.
        """
        answer = await self.door.ask("similarity", {"left": left, "right": right})
        cosine = answer.get("cosine")
        if isinstance(cosine, bool) or not isinstance(cosine, int | float):
            raise GradingFailed(_AWAY, f"the server answers without a cosine: {str(answer)[:_N_SHOWN]}")
        return float(cosine)


def _failure(failed: Any) -> GradingFailed:
    """Read what the server tells of a grade that failed there."""
    if not isinstance(failed, dict):
        return GradingFailed(_AWAY, f"the server tells of a failure: {str(failed)[:_N_SHOWN]}")
    told = cast("dict[str, Any]", failed)
    flag = told.get("flag")
    known = flag if isinstance(flag, str) and flag in _FLAGS else "other_error"
    return GradingFailed(cast("Flag", known), str(told.get("details", "")), _verdict(told.get("verdict")))


def _verdict(told: Any) -> Verdict | None:
    """Read a verdict, None where there is none."""
    try:
        usage = {name: int(told["usage"][name]) for name in ("prompt_tokens", "completion_tokens", "cached_tokens")}
        return Verdict(str(told["text"]), str(told["model"]), Usage(**usage))
    except (KeyError, TypeError, ValueError):
        return None
