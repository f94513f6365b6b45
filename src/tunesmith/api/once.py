"""One request that is not to be executed twice: how it is told again, and whether its answer is worth keeping.

`api/idempotency.py` makes one for each request that has a key and for every create; endpoints that make something are
handed it, since what they make and its answer belong into one commit.
"""

import hashlib
import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Any, Final, TypeVar

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from tunesmith.domain.idempotency import Asked, KeptAnswer
from tunesmith.domain.scope import Project
from tunesmith.services.idempotency import Also, Idempotency

#: Where it lies in a request's scope.
ONCE: Final = "tunesmith.once"
REPLAYED: Final = "idempotent-replayed"
#: Answers that tell of a moment and not of the request; 499 is said to a client that has left.
_PASSING: Final = frozenset({HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS, 499})

Made = TypeVar("Made")


class Once:
    """What is known of the request while it is served."""

    def __init__(self, service: Idempotency, scope: Project, *, route: bytes, key: str | None, n_retries: int) -> None:
        self.key = key
        self.n_retries = n_retries
        self._service = service
        self._scope = scope
        self._route = route
        #: None until the body was read.
        self._asked: Asked | None = None
        #: Whether the answer was found, is kept by the commit of what was made, or shall not be kept.
        self._settled = False

    @property
    def may_have_come(self) -> bool:
        """Say whether the request may have been executed before."""
        return self.key is not None or self.n_retries > 0

    def read(self, said: bytes) -> str:
        """Take note of what the body says, and return what tells the whole request."""
        fingerprint = hashlib.sha256(self._route + b"\n" + said).hexdigest()
        self._asked = Asked(fingerprint, self.key, self.n_retries)
        return fingerprint

    async def replay(self) -> Response | None:
        """Return the answer that the request got when it came before; None when it is to be executed.

        Raises:
            KeyReused: its key stands for another request.
        """
        if self._asked is None or not self.may_have_come:
            return None
        self._settled = True
        kept = await run_in_threadpool(self._service.find, self._scope, self._asked)
        if kept is None:
            self._settled = False
            return None
        return Response(kept.body, kept.status, {**kept.headers, REPLAYED: "true"})

    def also(self, render: Callable[[Made], dict[str, Any]], said: Callable[[Made], bytes] | None = None) -> Also[Made]:
        """Return what keeps the answer in the commit of what is made; `said` tells the body where it was not read before."""

        def answered(made: Made) -> tuple[Asked, KeptAnswer]:
            if said is not None:
                self.read(said(made))
            assert self._asked is not None
            self._settled = True
            response = JSONResponse(render(made))
            headers = {"content-type": response.headers["content-type"]}
            return self._asked, KeptAnswer(response.status_code, headers, bytes(response.body))

        return self._service.also(self._scope, answered)

    def refused(self) -> None:
        """Note that the request was refused for its form: it was not executed, and may come again corrected."""
        self._settled = True

    async def keep(self, answer: KeptAnswer) -> None:
        """Keep the answer, unless it is kept already or is not to be."""
        passing = answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR or answer.status in _PASSING
        if self._asked is not None and self.key is not None and not self._settled and not passing:
            await run_in_threadpool(self._service.keep, self._scope, self._asked, answer)


def said_by_form(fields: dict[str, str], filename: str, sha256: str) -> bytes:
    """Return what a form says, whatever boundary it was sent with and in whatever order."""
    return json.dumps([sorted(fields.items()), filename, sha256]).encode()


async def once(request: Request) -> Once | None:
    """Return what is known of the request, where it has a key or is a create."""
    return request.scope.get(ONCE)


Repeatable = Annotated[Once | None, Depends(once)]
