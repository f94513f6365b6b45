"""A sampler that says what it was told, so that each answer has a known text; the server around it is the real one."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from tunesmith.core.errors import Unavailable
from tunesmith.domain.ports import GenerateRequest, Sampled

MODEL = "tunesmith-nano"


class Script:
    """An `Inference` whose samples are the texts it was given; it may break off or fall silent after some tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.clear()

    def clear(self) -> None:
        """Forget what was asked and told."""
        self.texts = ["Fine."]
        self.breaks_after: int | None = None
        self.waits_after: int | None = None
        self.requests: list[GenerateRequest] = []
        self.n_left = 0

    def prompt(self, which: int = -1) -> str:
        """Return a prompt that was asked, as text."""
        return self._tokenizer.decode(self.requests[which].prompt, skip_special_tokens=False)

    async def stream(self, base_path: str, request: GenerateRequest) -> AsyncGenerator[Sampled]:
        """Say the texts, each up to the most tokens that were asked for."""
        self.requests.append(request)
        n_said = 0
        try:
            for index in range(request.n):
                ids = self._tokenizer.encode(self.texts[index % len(self.texts)], add_special_tokens=False).ids
                for place, token in enumerate([*ids, min(request.stop_ids)]):
                    if n_said == self.breaks_after:
                        raise Unavailable("The sampler stopped while it answered.")
                    if n_said == self.waits_after:
                        await asyncio.Event().wait()
                    n_said += 1
                    ends = "stop" if place == len(ids) else "length" if place + 1 == request.max_tokens else None
                    yield Sampled(index, token, -0.5, ends)
                    if ends is not None:
                        break
        finally:
            self.n_left += 1

    async def warm(self, base_path: str) -> None:
        """Be warm."""

    async def forget(self, adapter_name: str) -> None:
        """Hold no adapter."""

    def unload(self, base_path: str) -> None:
        """Hold no base."""

    async def close(self) -> None:
        """Hold no process."""


def scripted(served: Any) -> Script:
    """Put a script into the place of a served app's sampler."""
    path = served.composed.services.bases.find(MODEL).path
    script = Script(Tokenizer.from_file(str(Path(path) / "tokenizer.json")))
    served.composed.services.chat.inference = script
    return script
