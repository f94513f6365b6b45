"""Bytes that are no HTTP request, which never reach the app, answered in the shape of every other error."""

from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from tunesmith.api.errors import render
from tunesmith.api.middleware import own_headers
from tunesmith.core.errors import InvalidRequest
from tunesmith.core.ids import Ids


class Protocol(H11Protocol):
    """uvicorn's HTTP/1.1 with our answer to what cannot be read."""

    def __init__(self, *arguments: Any, ids: Ids, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._ids = ids

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's signature; its text says less
        """Answer what is no request, unless an answer has begun; the connection cannot be used any longer."""
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            told = InvalidRequest(
                "The request is not valid HTTP/1.1. A URL is ASCII: percent-encode what is not (ü is %C3%BC)."
            )
            answer = render(told, {**own_headers(self._ids.request(), took_s=0.0), "connection": "close"})
            for event in (
                h11.Response(status_code=answer.status_code, headers=answer.raw_headers),
                h11.Data(data=bytes(answer.body)),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
