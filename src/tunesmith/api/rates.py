"""What inference costs of a project's rates: taken before an answer is begun, settled once it has been sent.

Before, a request's tokens are guessed as OpenAI does: a quarter of its characters, and as many as it lets the answer have.
"""

import math
import re
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Annotated, Final, Protocol

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from tunesmith.api.deps import Caller, Principal, Served
from tunesmith.api.middleware import HEADERS
from tunesmith.services.all import Services
from tunesmith.services.limits import Admitted

N_CHARACTERS: Final = 4
#: An image's bytes are no text: it is guessed to be as many tokens as one of low detail at OpenAI.
_IMAGE: Final = re.compile(rb'"data:image/[^"]*"')
N_IMAGE_TOKENS: Final = 85


class Counted(Protocol):
    """An answer that counts its tokens while it comes."""

    n_prompt_tokens: int
    n_completion_tokens: int


class Rated:
    """What one request takes; `enter` once for each model that it asks."""

    def __init__(self, request: Request, served: Services, caller: Principal) -> None:
        self._request = request
        self._served = served
        self._caller = caller
        self._taken: list[Admitted] = []
        self._used: list[Callable[[], int]] = []

    async def enter(self, model: str, n_answer_tokens: int = 0) -> None:
        """Take a request and its guessed tokens from what the project may ask of the model's base.

        Raises:
            RateLimited: that is too much at this moment.
        """
        limits = self._served.limits
        if not limits.rated:
            return
        base = await run_in_threadpool(self._served.models.base_of, self._caller.scope, model)
        if base is None:  # whoever answers says that there is no such model
            return
        text = await self._request.body()
        images = _IMAGE.findall(text)
        n_characters = len(text) - sum(map(len, images))
        n_tokens = math.ceil(n_characters / N_CHARACTERS) + len(images) * N_IMAGE_TOKENS + n_answer_tokens
        admitted = limits.enter(self._caller.scope, base, n_tokens)
        if admitted is not None:
            self._taken.append(admitted)
            self._request.scope.setdefault(HEADERS, {}).update(admitted.headers())

    def answers(self, *answers: Counted) -> None:
        """Settle by what these answers count once they have been sent, one for each `enter`."""
        self._used += [partial(_n_tokens, answer) for answer in answers]

    def used(self, n_tokens: int) -> None:
        """Settle the `enter` that is next by so many tokens."""
        self._used.append(lambda: n_tokens)

    def settle(self) -> None:
        """Give back what was not used: all of it where there is no answer."""
        for place, admitted in enumerate(self._taken):
            admitted.settle(self._used[place]() if place < len(self._used) else 0)


def _n_tokens(answer: Counted) -> int:
    return answer.n_prompt_tokens + answer.n_completion_tokens


async def rated(request: Request, served: Served, caller: Caller) -> AsyncGenerator[Rated]:
    """Return what a request takes, and settle it once its answer has been sent."""
    taken = Rated(request, served, caller)
    try:
        yield taken
    finally:
        taken.settle()


Rate = Annotated[Rated, Depends(rated)]
