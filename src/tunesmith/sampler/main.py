# pyright: basic
"""The sampler process: a Unix socket, one request a connection, one JSON object a line; closing the connection stops it.

A request is `{"version": 1, "op": "generate", "prompt": […], …}` and is answered by lines `{"index", "token", "logprob",
"finish"}`, with `top` where it was asked for, and in the first `cached`, the part of the prompt that was computed before.
`{"op": "forget", "name": …}` drops an adapter, `{"op": "status"}` tells what the engine is at. Whatever goes wrong is one
line `{"error": …, "kind": …}`. When the base is loaded and the socket listens, `ready` is printed.
"""

import argparse
import asyncio
import json
import os
from pathlib import Path
from typing import Any, Final

import torch

from tunesmith.core.channel import PROTOCOL
from tunesmith.core.machine import memory_bytes
from tunesmith.data.folder import read_folder
from tunesmith.lm.load import BaseRefused, load
from tunesmith.lm.lora import LoraModel
from tunesmith.sampler.engine import Engine, PromptTooLong
from tunesmith.sampler.grammar import GrammarBroken, Grammars
from tunesmith.sampler.request import Request, Token
from tunesmith.sampler.waiting import QueueFull
from tunesmith.supervisor.tree import die_with_parent

_N_MAX_LINE_BYTES: Final = 64 * 1024 * 1024
#: Connections that the kernel holds until they are taken: one refused looks like a sampler that is gone.
_N_BACKLOG: Final = 4096


class Server:
    """Answers connections from an engine."""

    def __init__(self, engine: Engine, grammars: Grammars) -> None:
        self._engine = engine
        self._grammars = grammars

    async def serve(self, socket: Path) -> None:
        """Listen until the process ends."""
        server = await asyncio.start_unix_server(self._connected, path=socket, limit=_N_MAX_LINE_BYTES, backlog=_N_BACKLOG)
        print("ready", flush=True)  # noqa: T201 - the parent waits for this line
        os.dup2(2, 1)  # and reads no other: what is logged from here on goes where errors go
        async with server:
            await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            message = json.loads(await reader.readline())
            if message.get("version") != PROTOCOL:
                raise ValueError(f"version {message.get('version')!r} is not {PROTOCOL}")
            match message.get("op"):
                case "generate":
                    await self._generate(message, reader, writer)
                case "forget":
                    self._engine.forget(message["name"])
                case "status":
                    await _say(writer, self._engine.status())
                case unknown:
                    raise ValueError(f"there is no operation {unknown!r}")
        except (ValueError, KeyError, TypeError, QueueFull) as error:
            await _say(writer, _wrong(error))
        except ConnectionError:
            return
        finally:
            writer.close()

    async def _generate(self, message: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        news: asyncio.Queue[list[Token] | Exception | None] = asyncio.Queue()
        request = _request(message, lambda item: loop.call_soon_threadsafe(news.put_nowait, item))
        if message.get("grammar") is not None:
            request.matcher = await asyncio.to_thread(self._grammars.matcher, message["grammar"], request.stop_ids)
        gone = asyncio.ensure_future(reader.read(1))
        gone.add_done_callback(lambda _: news.put_nowait(None))
        try:
            self._engine.submit(request)
            await _answer(request.n, news, writer)
        finally:
            request.cancelled.set()
            gone.cancel()


async def _answer(n_open: int, news: asyncio.Queue[list[Token] | Exception | None], writer: asyncio.StreamWriter) -> None:
    """Write tokens as they come, until the last sample ends, something goes wrong, or the client is gone (None)."""
    while n_open:
        item = await news.get()
        if item is None:
            return
        if isinstance(item, Exception):
            await _say(writer, _wrong(item))
            return
        n_open -= sum(token.finish is not None for token in item)
        await _say(writer, *map(_told, item))


def _request(message: dict[str, Any], emit: Any) -> Request:
    adapter = message.get("adapter")
    return Request(
        prompt=[int(token) for token in message["prompt"]],
        emit=emit,
        n=int(message["n"]),
        max_tokens=int(message["max_tokens"]),
        temperature=float(message["temperature"]),
        top_p=float(message["top_p"]),
        seed=message.get("seed"),
        stop_ids=frozenset(message["stop_ids"]),
        adapter=None if adapter is None else (adapter["name"], Path(adapter["path"]), adapter["sha256"]),
        project=message.get("project", ""),
        presence_penalty=float(message["presence_penalty"]),
        frequency_penalty=float(message["frequency_penalty"]),
        logit_bias={int(token): float(bias) for token, bias in message["logit_bias"]},
        top_logprobs=int(message["top_logprobs"]),
        prompt_logprobs=bool(message["prompt_logprobs"]),
    )


def _told(token: Token) -> dict[str, Any]:
    line: dict[str, Any] = {"index": token.index, "token": token.token, "logprob": token.logprob, "finish": token.finish}
    if token.top:
        line["top"] = token.top
    if token.cached:
        line["cached"] = token.cached
    return line


async def _say(writer: asyncio.StreamWriter, *lines: dict[str, Any]) -> None:
    writer.write(b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines))
    await writer.drain()


def _wrong(error: Exception) -> dict[str, Any]:
    match error:
        case QueueFull():
            return {"error": f"{error}", "kind": "full", "retry_after_s": error.retry_after_s}
        case PromptTooLong():
            kind = "prompt"
        case GrammarBroken():
            kind = "grammar"
        case ValueError() | OSError():
            kind = "adapter"
        case _:
            kind = "engine"
    return {"error": f"{error}" or type(error).__name__, "kind": kind}


def _cache_bytes(device: torch.device) -> int:
    """Return how much memory rows may take: half of what a GPU has left beside the base, or an eighth of the machine's."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 2
    return memory_bytes() // 8


def main() -> int:
    """Load the base and serve; a base that does not load is one line on stdout and exit code 3."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--base", type=Path, required=True)
    arguments.add_argument("--socket", type=Path, required=True)
    arguments.add_argument("--parent", type=int, required=True)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--queue", type=int)
    given = arguments.parse_args()
    die_with_parent(given.parent)
    torch.set_num_threads(given.threads)
    try:
        base = load(given.base)
        context_length = read_folder(given.base).context_length
        grammars = Grammars(given.base / "tokenizer.json", base.head.weight_VC.shape[0])
        engine = Engine(
            base,
            LoraModel(base.model),
            context_length=context_length,
            cache_bytes=_cache_bytes(base.device),
            n_max_waiting=given.queue,
            reuse=True,
        )
    except (BaseRefused, OSError, ValueError) as error:
        print(json.dumps({"error": f"{error}"}), flush=True)  # noqa: T201 - the parent reads this line
        return 3
    engine.start(on_death=lambda: os._exit(1))  # whoever waits is told, and another process started
    given.socket.unlink(missing_ok=True)
    os.umask(0o177)  # the socket is its owner's alone
    asyncio.run(Server(engine, grammars).serve(given.socket))
    return 0
