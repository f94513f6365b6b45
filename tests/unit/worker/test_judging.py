# ruff: noqa: ASYNC110, ASYNC240 - small files; uvicorn tells in no other way that it serves
"""Judges by way of the server: a real one on a Unix socket that answers, refuses, is away and comes back."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from tunesmith.core.channel import Task
from tunesmith.graders.base import GradingFailed, Needs, Question, Usage, Verdict
from tunesmith.worker.judging import ServerDoor, ServerEmbedder, ServerJudge

pytestmark = pytest.mark.anyio

QUESTION = Question("judge", [{"role": "user", "content": "half a pair: \ud800"}], "grade", {"type": "object"}, {"seed": 1})
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "cached_tokens": 1}
VERDICT = {"text": "{}", "model": "judge-1", "usage": USAGE}

Answer = tuple[int, bytes]


def said(**body: Any) -> Answer:
    return 200, json.dumps({"version": 1, **body}).encode()


class Door:
    """An ASGI application that answers each question with the next of its answers, the last one for ever."""

    def __init__(self, answers: list[Answer], *, takes_s: float = 0.0) -> None:
        self.answers = answers
        self.takes_s = takes_s
        self.asked: list[tuple[str, str, Any]] = []
        self.n_at_once = self.n_most = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            event = await receive()
            body, more = body + event.get("body", b""), event.get("more_body", False)
        self.n_at_once += 1
        self.n_most = max(self.n_most, self.n_at_once)
        self.asked.append((scope["path"], dict(scope["headers"])[b"authorization"].decode(), json.loads(body)))
        await asyncio.sleep(self.takes_s)
        self.n_at_once -= 1
        status, content = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": content})


@contextlib.asynccontextmanager
async def serving(door: Door, path: Path) -> AsyncIterator[Door]:
    server = uvicorn.Server(uvicorn.Config(door, uds=str(path), lifespan="off", log_config=None))
    running = asyncio.create_task(server._serve())  # without its handlers of signals, which are the process's
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield door
    finally:
        server.should_exit = True
        await running
        path.unlink(missing_ok=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "channel.sock"


@pytest.fixture
def way(path: Path, tmp_path: Path) -> Callable[..., ServerDoor]:
    """Return a maker of ways to the server, without much patience."""
    task = Task("train", "ftjob-1", 2, "secret", str(path), str(tmp_path), {})
    return lambda **knobs: ServerDoor(task, **{"patience_s": 5.0, "first_pause_s": 0.01, **knobs})


async def test_the_server_is_asked_as_the_attempt(way: Callable[..., ServerDoor], path: Path) -> None:
    async with serving(Door([said(verdict=VERDICT), said(cosine=0.5), said(cosine=1)]), path) as door:
        judge, embedder = ServerJudge(way()), ServerEmbedder(way())
        await judge.check("judge", Needs())
        await embedder.check()
        assert await judge.ask(QUESTION) == Verdict("{}", "judge-1", Usage(3, 2, 1))
        assert await embedder.similarity("a", "b") == 0.5
        assert await embedder.similarity("a", "a") == 1.0
    root = "/internal/v1/attempts/ftjob-1/2"
    question = {
        "model": "judge", "messages": QUESTION.messages, "schema_name": "grade", "schema": QUESTION.schema,
        "sampling": {"seed": 1},
    }  # fmt: skip
    assert door.asked[:2] == [
        (f"{root}/judge", "Bearer secret", {"version": 1, "question": question}),
        (f"{root}/similarity", "Bearer secret", {"version": 1, "left": "a", "right": "b"}),
    ]


async def test_what_fails_there_fails_here_with_its_flag_and_verdict(way: Callable[..., ServerDoor], path: Path) -> None:
    failures = [
        {"flag": "model_grader_refusal_error", "details": "no", "verdict": VERDICT},
        {"flag": "model_grader_server_error", "details": "busy", "verdict": None},
        {"flag": "what is this", "details": "new"},
        "odd",
    ]
    async with serving(Door([said(failed=failure) for failure in failures]), path):
        seen: list[tuple[str, str, Verdict | None]] = []
        for _ in failures:
            with pytest.raises(GradingFailed) as caught:
                await ServerJudge(way()).ask(QUESTION)
            seen.append((caught.value.flag, caught.value.details, caught.value.verdict))
    assert seen == [
        ("model_grader_refusal_error", "no", Verdict("{}", "judge-1", Usage(3, 2, 1))),
        ("model_grader_server_error", "busy", None),
        ("other_error", "new", None),
        ("model_grader_server_error", "the server tells of a failure: odd", None),
    ]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((410, b"{}"), "ftjob-1, attempt 2, is not the job's any more: the server answers 410"),
        ((403, b"{}"), "ftjob-1, attempt 2, is not the job's any more: the server answers 403"),
        ((400, b"bad"), "the server answers 400: bad"),
        ((200, b'{"version": 2}'), "the server answers in version 2, not 1"),
        (said(), "the server answers without a"),
        (said(verdict={"text": "a"}, cosine="b"), "the server answers without a"),
    ],
)
async def test_a_refusal_is_not_asked_again(way: Callable[..., ServerDoor], path: Path, answer: Answer, words: str) -> None:
    async with serving(Door([answer]), path) as door:
        for asked in (ServerJudge(way()).ask(QUESTION), ServerEmbedder(way()).similarity("a", "b")):
            with pytest.raises(GradingFailed) as caught:
                await asked
            assert caught.value.flag == "model_grader_server_error"
            assert caught.value.details.startswith(words)
    assert len(door.asked) == 2


async def test_a_server_that_cannot_now_is_asked_again(way: Callable[..., ServerDoor], path: Path) -> None:
    answers = [(500, b""), (503, b"{}"), (200, b"[]"), (200, b"{"), said(verdict=VERDICT)]
    async with serving(Door(answers), path) as door:
        assert (await ServerJudge(way()).ask(QUESTION)).model == "judge-1"
    assert len(door.asked) == 5


async def test_a_server_that_is_away_is_waited_for(way: Callable[..., ServerDoor], path: Path) -> None:
    asking = asyncio.create_task(ServerJudge(way()).ask(QUESTION))
    await asyncio.sleep(0.1)
    assert not asking.done()
    path.touch()  # what a server that died left behind
    await asyncio.sleep(0.1)
    assert not asking.done()
    path.unlink()
    async with serving(Door([said(verdict=VERDICT)]), path):
        assert (await asking).model == "judge-1"


async def test_a_server_that_leaves_amid_the_question_is_asked_again(way: Callable[..., ServerDoor], path: Path) -> None:
    heard = asyncio.Event()

    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        heard.set()
        writer.close()

    dying = await asyncio.start_unix_server(leave, path)
    asking = asyncio.create_task(ServerJudge(way()).ask(QUESTION))
    await heard.wait()
    dying.close()
    await dying.wait_closed()
    path.unlink(missing_ok=True)
    async with serving(Door([said(verdict=VERDICT)]), path):
        assert (await asking).model == "judge-1"


async def test_patience_has_an_end(way: Callable[..., ServerDoor], path: Path) -> None:
    with pytest.raises(GradingFailed) as caught:
        await ServerEmbedder(way(patience_s=0.1)).similarity("a", "b")
    assert caught.value.flag == "model_grader_server_error"
    assert caught.value.details.startswith("the server has been away for 0.1 s: ")


async def test_only_so_many_ask_at_once(way: Callable[..., ServerDoor], path: Path) -> None:
    async with serving(Door([said(cosine=0.5)], takes_s=0.02), path) as door:
        embedder = ServerEmbedder(way(n_at_once=3))
        assert await asyncio.gather(*(embedder.similarity("a", str(n)) for n in range(12))) == [0.5] * 12
    assert door.n_most == 3


def test_each_loop_is_its_own(way: Callable[..., ServerDoor], path: Path) -> None:
    embedder = ServerEmbedder(way(n_at_once=1))

    async def both() -> list[float]:
        async with serving(Door([said(cosine=0.5)], takes_s=0.01), path):
            return await asyncio.gather(embedder.similarity("a", "b"), embedder.similarity("a", "c"))

    assert asyncio.run(both()) == asyncio.run(both()) == [0.5, 0.5]
