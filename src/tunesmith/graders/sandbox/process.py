"""The server's end of one zygote: start it, send it calls, hear how they ended."""

import asyncio
import itertools
import os
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import tunesmith
from tunesmith.core import environment
from tunesmith.graders.sandbox import call, zygote
from tunesmith.graders.sandbox.layers import Limits

#: The user that graders run as under a server that is root: one that owns nothing and that no system gives away.
USER: Final = 65531
START_S: Final = 120.0
#: How much later than a call's own end its zygote may say so.
GRACE_S: Final = 15.0
_END_S: Final = 5.0
_PROGRAM: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]); from tunesmith.graders.sandbox import zygote; zygote.main(sys.argv[2])"
)


class Lost(Exception):
    """The zygote ended or broke its protocol: nothing is known of the calls that it had."""


class Ended(NamedTuple):
    """How a call ended: what it wrote, the status of its process as `waitpid` tells it, whether its time was over."""

    frame: bytes
    status: int
    timed_out: bool


class Process:
    """A zygote, bound to the event loop in which it is started; `close` ends it and every call that it has."""

    def __init__(self, words: list[str], modules: tuple[str, ...], limits: Limits, *, namespaces: bool) -> None:
        self.n_calls = 0
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[tuple[int, bool]]] = {}
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        package = str(Path(tunesmith.__file__).parents[1])
        config = zygote.Config(os.getpid(), package, namespaces, USER, modules, limits)
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [*words, "-c", _PROGRAM, package, config.to_json()],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=environment.tag(),  # the attempt's, where a trainer grades; nothing else
                    cwd="/",
                    start_new_session=True,
                )
            except OSError:
                self._control.close()
                raise
        self._loop.add_reader(self._control, self._listen)

    @property
    def pid(self) -> int:
        """The process that the server started; the others are its descendants."""
        return self._process.pid

    @property
    def lives(self) -> bool:
        """Whether calls can be sent."""
        return self._control.fileno() >= 0

    @property
    def idle(self) -> bool:
        """Whether it has no call."""
        return not self._waiting

    async def ready(self) -> None:
        """Wait until it has imported everything.

        Raises:
            Lost: it does not start; the text tells why.
        """
        try:
            await asyncio.wait_for(asyncio.shield(self._ready), START_S)
        except TimeoutError:
            self.close("it did not start in time")
            raise Lost("it did not start in time") from None

    async def call(self, job: bytes, wall_s: float) -> Ended:
        """Have a confined process do a job.

        Raises:
            Lost: the zygote is no more.
        """
        if not self.lives:
            raise Lost("it has ended")
        number = next(self._numbers)
        self.n_calls += 1
        read, write = os.pipe()
        try:
            future: asyncio.Future[tuple[int, bool]] = self._loop.create_future()
            try:
                self._send(zygote.CALL.pack(number, max(1, int(wall_s * 1000))), job, write)
            finally:
                os.close(write)
            self._waiting[number] = future
            try:
                status, timed_out = await asyncio.wait_for(future, wall_s + GRACE_S)
            except TimeoutError:
                self.close("it did not end a call in time")
                raise Lost("it did not end a call in time") from None
            except asyncio.CancelledError:
                self._kill(number)
                raise
            finally:
                self._waiting.pop(number, None)
            return Ended(_read(read), status, timed_out)
        finally:
            os.close(read)

    def close(self, reason: str = "it was closed") -> None:
        """End it, and every call of it."""
        if not self.lives:
            return
        self._loop_forget()
        self._control.close()
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)
        self._process.wait(_END_S)
        for future in (self._ready, *self._waiting.values()):
            if not future.done() and not self._loop.is_closed():
                future.set_exception(Lost(reason))
                future.exception()  # whoever waits is told; that nobody does is no news
        self._waiting.clear()

    def _loop_forget(self) -> None:
        if not self._loop.is_closed():
            self._loop.remove_reader(self._control)

    def _send(self, message: bytes, job: bytes, answer: int) -> None:
        paper = os.memfd_create("job", os.MFD_CLOEXEC)
        try:
            rest = memoryview(job)
            while rest:
                rest = rest[os.write(paper, rest) :]
            socket.send_fds(self._control, [message], [paper, answer])
        except OSError as error:
            self.close(f"it takes no calls: {error}")
            raise Lost(f"it takes no calls: {error}") from error
        finally:
            os.close(paper)

    def _kill(self, number: int) -> None:
        """End a call that nobody waits for any more."""
        with suppress(OSError):
            self._control.send(zygote.CALL.pack(number, 0))

    def _listen(self) -> None:
        try:
            message = self._control.recv(8192)
        except BlockingIOError:
            return
        except OSError as error:
            self.close(str(error))
            return
        if message == zygote.READY and not self._ready.done():
            self._ready.set_result(None)
        elif message.startswith(zygote.FAILED) and not self._ready.done():
            self.close(message[1:].decode(errors="replace"))
        elif len(message) == zygote.ENDED.size and self._ready.done():
            number, status, timed_out = zygote.ENDED.unpack(message)
            future = self._waiting.get(number)
            if future is not None and not future.done():
                future.set_result((status, bool(timed_out)))
        else:
            self.close("it ended" if not message else "it sent what is no message")


def _read(descriptor: int) -> bytes:
    """Return what lies in a pipe, one byte more than a frame may have at the most; it is not waited for."""
    os.set_blocking(descriptor, False)
    try:
        return os.read(descriptor, call.N_MAX_FRAME_BYTES + 1)
    except BlockingIOError:
        return b""
