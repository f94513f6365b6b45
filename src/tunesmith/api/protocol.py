"""HTTP/1.1 below the app: bytes that are no request are answered in the shape of every error, slow clients are cut off.

A client is slow when the server waits for it: for the head of a request, for its body, or for room to send an answer to. The
time that the server itself takes is nobody's slowness.
"""

import contextlib
import fcntl
import sys
import termios
from typing import Any, Final

import h11
import structlog
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from tunesmith.api.errors import render
from tunesmith.api.middleware import own_headers
from tunesmith.core.errors import ApiError, HeadTooLarge, InvalidRequest, RequestTimeout
from tunesmith.core.ids import Ids

#: About how large the request line with all headers may be: what comes whole at once may be a little larger.
N_HEAD_BYTES: Final = 64 * 1024
#: A body, or the taking of an answer, that is slower than this on average over the patience is too slow.
LEAST_BYTES_S: Final = 500

log = structlog.get_logger()


class Protocol(H11Protocol):
    """uvicorn's HTTP/1.1 with our answers to what cannot be read, and to what takes too long."""

    def __init__(self, *arguments: Any, ids: Ids, patience_s: float | None = None, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._ids = ids
        self._patience_s = patience_s
        self._n_received = 0
        self._n_pauses = 0
        #: What was waited for when last looked, how many bytes of it had come or gone, and when that was.
        self._seen: tuple[object, int, float] = (None, 0, 0.0)

    def data_received(self, data: bytes) -> None:
        """Take bytes of a request."""
        self._n_received += len(data)
        super().data_received(data)

    def pause_writing(self) -> None:
        """Note that the client has not taken what was sent so far."""
        self._n_pauses += 1
        super().pause_writing()

    def look(self, now: float) -> None:
        """Cut the client off if it has kept the server waiting for too long; called now and then with monotonic seconds."""
        if self._patience_s is None:
            return
        awaited, n_bytes = self._awaited()
        before, n_before, since = self._seen
        if awaited != before or awaited is None or n_bytes - n_before >= LEAST_BYTES_S * self._patience_s:
            self._seen = (awaited, n_bytes, now)
        elif now - since >= self._patience_s:
            self._cut(awaited[0])

    def _awaited(self) -> tuple[tuple[str, object] | None, int]:
        """Return what the client is waited for, None for nothing; and a number that grows as it comes."""
        unsent = self.transport.get_write_buffer_size()
        if unsent and (self.flow.write_paused or self.transport.is_closing()):
            return ("answer", self._n_pauses), -unsent - self._unacknowledged()
        cycle = self._cycle
        if cycle is None or cycle.response_complete:
            return ("head", cycle), 0
        if cycle.more_body and not self.flow.read_paused and not cycle.waiting_for_100_continue:
            return ("body", cycle), self._n_received
        return None, 0

    def _unacknowledged(self) -> int:
        """Return how many bytes the kernel holds for the client: it takes no more of ours before it is rid of many."""
        held = bytearray(4)
        with contextlib.suppress(OSError):
            fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, held)
        return int.from_bytes(held, sys.byteorder)

    @property
    def _cycle(self) -> RequestResponseCycle | None:
        """Return the request that came last, None before the first."""
        return self.cycle

    def _cut(self, awaited: str) -> None:
        log.info("client.slow", awaited=awaited, address=self.client[0] if self.client else None)
        cycle = self._cycle
        if awaited == "answer" or (cycle is not None and cycle.response_started and not cycle.response_complete):
            self.transport.abort()
            return
        if awaited == "body" and cycle is not None:
            cycle.disconnected = True
            cycle.message_event.set()
        if awaited == "body" or self.conn.trailing_data[0]:
            self._refuse(
                RequestTimeout(
                    f"The {awaited} of the request did not come within {self._patience_s:g} s, or at less than "
                    f"{LEAST_BYTES_S} bytes a second. Send it again over a better connection."
                )
            )
        self.transport.close()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's signature; its text says less
        """Answer what is no request, unless an answer has begun; the connection cannot be used any longer."""
        fault = sys.exc_info()[1]
        if isinstance(fault, h11.RemoteProtocolError) and fault.error_status_hint == HeadTooLarge.status:
            told: ApiError = HeadTooLarge(f"The request's URL and headers are over the limit of {N_HEAD_BYTES} bytes.")
        else:
            told = InvalidRequest(
                "The request is not valid HTTP/1.1. A URL is ASCII: percent-encode what is not (ü is %C3%BC)."
            )
        self._refuse(told)
        self.transport.close()

    def _refuse(self, told: ApiError) -> None:
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            answer = render(told, {**own_headers(self._ids.request(), took_s=0.0), "connection": "close"})
            for event in (
                h11.Response(status_code=answer.status_code, headers=answer.raw_headers),
                h11.Data(data=bytes(answer.body)),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
