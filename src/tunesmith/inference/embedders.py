"""Embedding models on this machine: processes kept as samplers are, asked for vectors."""

import base64
import json
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunesmith.core.channel import PROTOCOL
from tunesmith.core.clock import Clock
from tunesmith.core.errors import InvalidRequest, Unavailable
from tunesmith.core.settings import Settings
from tunesmith.domain.embedding import Embedded
from tunesmith.inference.resident import Resident, died


class ResidentEmbedders(Resident):
    """The `Embedders` port over processes like samplers, one for each embedding model."""

    def __init__(self, folder: Path, *, settings: Settings, clock: Clock) -> None:
        super().__init__(folder, settings=settings, clock=clock, embedding=True)

    async def embed(self, path: str, inputs: Sequence[str | list[int]], *, project: str = "") -> Embedded:
        """Return the vectors of inputs.

        Raises:
            Unavailable: the model cannot be loaded, or its process died.
            InvalidRequest: an input is too long, or has what is no token.
        """
        async with self._connected(path, project) as (process, reader, writer):
            try:
                said: dict[str, Any] = {"version": PROTOCOL, "op": "embed", "inputs": list(inputs)}
                writer.write(json.dumps(said, separators=(",", ":")).encode() + b"\n")
                await writer.drain()
                n_tokens = _told(await reader.readline())["n_tokens"]
                vectors = [array("f", base64.b64decode(_told(await reader.readline())["vector"])) for _ in inputs]
            except ConnectionError as error:
                await self._bury(process)
                raise died(path) from error
        return Embedded(vectors, n_tokens)


def _told(line: bytes) -> dict[str, Any]:
    if not line.endswith(b"\n"):
        raise ConnectionResetError("the connection ended within an answer")
    said: dict[str, Any] = json.loads(line)
    if "error" in said:
        reason = str(said["error"]).rstrip(".")
        if said["kind"] == "input":
            raise InvalidRequest(f"{reason}.", param="input")
        raise Unavailable(f"The embedding model could not be asked: {reason}.")
    return said
