# pyright: basic
"""The process of an embedding model: texts or tokens in, vectors out, batched over all who ask.

A request is `{"version": 1, "op": "embed", "inputs": […]}` on a Unix socket, each input a text or a list of tokens, and is
answered by a line `{"n_tokens": …}` and one for each input, `{"vector": …}`, float32 in base64.
"""

import argparse
import asyncio
import base64
import json
import os
from collections import deque
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer
from transformers import AutoModel

from tunesmith.core.channel import PROTOCOL
from tunesmith.data.encoder import read_encoder
from tunesmith.data.folder import TOKENIZER
from tunesmith.supervisor.tree import die_with_parent

#: Rows of a batch, and its tokens with what fills them up.
N_ROWS: Final = 64
N_TOKENS: Final = 16_384
_N_MAX_LINE_BYTES: Final = 64 * 1024 * 1024
_N_BACKLOG: Final = 4096


class InputRefused(ValueError):
    """An input that the model cannot take; the message says which and why."""


class Encoder:
    """The model and its tokenizer."""

    def __init__(self, folder: Path) -> None:
        self.told = read_encoder(folder)
        self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = AutoModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, dtype=torch.float32
        )
        self._model = model.eval().to(device)
        self._n_vocabulary = model.get_input_embeddings().weight.shape[0]

    def tokens(self, inputs: list[str | list[int]]) -> list[list[int]]:
        """Return the tokens of inputs, those of texts with the special ones.

        Raises:
            InputRefused: one is too long, or has what is no token.
        """
        rows = [
            self._tokenizer.encode(self.told.prompt + each).ids if isinstance(each, str) else [int(id) for id in each]
            for each in inputs
        ]
        for number, row in enumerate(rows):
            if len(row) > self.told.n_max_tokens:
                raise InputRefused(
                    f"This model's maximum context length is {self.told.n_max_tokens} tokens, however input {number} has "
                    f"{len(row)} tokens. Please reduce it."
                )
            strange = next((id for id in row if not 0 <= id < self._n_vocabulary), None)
            if strange is not None:
                raise InputRefused(
                    f"Input {number} has the token {strange}, and this model's are 0 to {self._n_vocabulary - 1}."
                )
        return rows

    @torch.inference_mode()
    def vectors(self, rows: list[list[int]]) -> list[bytes]:
        """Return the vectors of rows that are computed together."""
        device = self._model.device
        lengths_B = torch.tensor([len(row) for row in rows], device=device)
        n_longest = int(lengths_B.max())
        tokens_BT = torch.tensor([row + [0] * (n_longest - len(row)) for row in rows], device=device)
        mask_BT = (torch.arange(n_longest, device=device)[None] < lengths_B[:, None]).long()
        hidden_BTH = self._model(input_ids=tokens_BT, attention_mask=mask_BT).last_hidden_state.float()
        vectors_BH = self._pooled(hidden_BTH, mask_BT, lengths_B)
        if self.told.normalized:
            vectors_BH = torch.nn.functional.normalize(vectors_BH, dim=-1)
        return [row.tobytes() for row in vectors_BH.cpu().numpy().astype("<f4")]

    def _pooled(self, hidden_BTH: torch.Tensor, mask_BT: torch.Tensor, lengths_B: torch.Tensor) -> torch.Tensor:
        match self.told.pooling:
            case "cls":
                return hidden_BTH[:, 0]
            case "lasttoken":
                return hidden_BTH[torch.arange(len(lengths_B)), lengths_B - 1]
            case "max":
                return hidden_BTH.masked_fill(mask_BT[..., None] == 0, -torch.inf).amax(1)
            case _:
                return (hidden_BTH * mask_BT[..., None]).sum(1) / lengths_B[:, None]


class Server:
    """Answers connections; what waits is computed together, whoever asked for it."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._waiting: deque[tuple[list[int], asyncio.Future[bytes]]] = deque()
        self._news = asyncio.Event()

    async def serve(self, socket: Path) -> None:
        """Listen until the process ends."""
        server = await asyncio.start_unix_server(self._connected, path=socket, limit=_N_MAX_LINE_BYTES, backlog=_N_BACKLOG)
        print("ready", flush=True)  # noqa: T201 - the parent waits for this line
        os.dup2(2, 1)
        async with server:
            await self._work()

    async def _work(self) -> None:
        while True:
            await self._news.wait()
            batch = self._batch()
            if not batch:
                self._news.clear()
                continue
            try:
                made = await asyncio.to_thread(self._encoder.vectors, [row for row, _ in batch])
            except (RuntimeError, ValueError) as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(RuntimeError(str(error)))
                continue
            for (_, future), vector in zip(batch, made, strict=True):
                if not future.done():
                    future.set_result(vector)

    def _batch(self) -> list[tuple[list[int], asyncio.Future[bytes]]]:
        """Take what is computed next: the first that wait, without those whose client is gone."""
        batch: list[tuple[list[int], asyncio.Future[bytes]]] = []
        longest = 0
        while self._waiting and len(batch) < N_ROWS:
            row, future = self._waiting[0]
            longest = max(longest, len(row))
            if batch and longest * (len(batch) + 1) > N_TOKENS:
                break
            self._waiting.popleft()
            if not future.cancelled():
                batch.append((row, future))
        return batch

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            message = json.loads(await reader.readline())
            if message.get("version") != PROTOCOL:
                raise ValueError(f"version {message.get('version')!r} is not {PROTOCOL}")
            match message.get("op"):
                case "embed":
                    await self._embed(message["inputs"], reader, writer)
                case "status":
                    await _say(writer, {"rows": 0, "waiting": len(self._waiting)})
                case unknown:
                    raise ValueError(f"there is no operation {unknown!r}")
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            kind = "input" if isinstance(error, InputRefused) else "engine"
            await _say(writer, {"error": f"{error}" or type(error).__name__, "kind": kind})
        except ConnectionError:
            return
        finally:
            writer.close()

    async def _embed(self, inputs: list[Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        rows = await asyncio.to_thread(self._encoder.tokens, inputs)
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[bytes]] = [loop.create_future() for _ in rows]
        gone = asyncio.ensure_future(reader.read(1))
        gone.add_done_callback(lambda _: [future.cancel() for future in futures])
        # Rows of like length side by side, so that little is filled up.
        self._waiting.extend(sorted(zip(rows, futures, strict=True), key=lambda pair: len(pair[0])))
        self._news.set()
        try:
            vectors = await asyncio.gather(*futures)
        except asyncio.CancelledError:
            return
        finally:
            gone.cancel()
        await _say(writer, {"n_tokens": sum(map(len, rows))})
        for vector in vectors:
            await _say(writer, {"vector": base64.b64encode(vector).decode()})


async def _say(writer: asyncio.StreamWriter, line: dict[str, Any]) -> None:
    writer.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
    await writer.drain()


def main() -> int:
    """Load the model and serve; one that does not load is one line on stdout and exit code 3."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--embedding", action="store_true")
    arguments.add_argument("--base", type=Path, required=True)
    arguments.add_argument("--socket", type=Path, required=True)
    arguments.add_argument("--parent", type=int, required=True)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--queue", type=int)
    given = arguments.parse_args()
    die_with_parent(given.parent)
    torch.set_num_threads(given.threads)
    try:
        encoder = Encoder(given.base)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        print(json.dumps({"error": f"{error}"}), flush=True)  # noqa: T201 - the parent reads this line
        return 3
    given.socket.unlink(missing_ok=True)
    os.umask(0o177)  # the socket is its owner's alone
    asyncio.run(Server(encoder).serve(given.socket))
    return 0
