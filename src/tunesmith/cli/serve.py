"""`tunesmith serve`: one process, one event loop; the public app on TCP, the attempts' channel on a Unix socket."""

import asyncio
import contextlib
import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator
from functools import partial
from typing import Final, cast

import structlog
import typer
import uvicorn
from starlette.types import ASGIApp

from tunesmith.api.app import create_app, with_pages
from tunesmith.api.internal import create_internal_app
from tunesmith.api.protocol import N_HEAD_BYTES, Protocol
from tunesmith.bootstrap import Composed, compose
from tunesmith.core import logs
from tunesmith.core.address import is_loopback
from tunesmith.core.data_folder import FolderRefused
from tunesmith.core.errors import Unavailable
from tunesmith.core.ids import Ids
from tunesmith.core.settings import Settings
from tunesmith.dashboard.mount import Dashboard

REFUSED: Final = 1
#: How long answers that are still being written at the end may take.
FAREWELL_S: Final = 3
#: How soon a thread gives way to another that waits: an answer changes threads some times, and the scheduler is one of them.
SWITCH_S: Final = 0.0005

#: Between two looks for slow clients, in tenths of a second.
N_TICKS: Final = 5

log = structlog.get_logger()


class CannotServe(Exception):
    """The server cannot start; the text is for its user."""


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT, with logs on stderr; return the exit code."""
    logs.configure(level=settings.log_level, form=settings.log_format)  # stdout holds the ready line alone
    sys.setswitchinterval(SWITCH_S)
    return start(settings)


def start(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code. What prevents the start is one line on stderr."""
    try:
        if settings.auth == "off" and not is_loopback(settings.host):
            raise CannotServe(
                f"auth is off and the host {settings.host}: whoever reaches that address could use and delete everything. "
                "Leave auth out, so that callers need keys there, or serve on 127.0.0.1 alone."
            )
        with contextlib.closing(listen(settings.host, settings.port)) as listener:
            composed = compose(settings)
            asyncio.run(_until_signalled(composed, listener))
    except (CannotServe, FolderRefused, Unavailable) as error:
        typer.echo(f"tunesmith: {' '.join(str(error).split())}", err=True)
        return REFUSED
    return 0


def listen(host: str, port: int) -> socket.socket:
    """Listen on the public address; whoever knocks waits until the server is ready.

    Raises:
        CannotServe: the address is not this machine's, or it is taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        # asyncio sends small answers without delay only where the protocol is named; without it each costs 40 ms
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise CannotServe(f"cannot listen on {host}: {error.strerror}.") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # Two sockets may be bound to an address that nobody listens on; listening settles it before anything else is done.
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise CannotServe(
            f"port {port} on {host} cannot be used: {error.strerror}. Stop what holds it, or choose another with --port "
            "(0 takes a free one)."
        ) from error
    return listener


class Door(uvicorn.Server):
    """A server whose signals are somebody else's business."""

    def __init__(
        self, app: ASGIApp, *, uds: str | None = None, patience_s: float | None = None, websockets: bool = False
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                uds=uds,
                http=cast("type[asyncio.Protocol]", partial(Protocol, ids=Ids(), patience_s=patience_s)),
                loop="asyncio",
                ws="websockets-sansio" if websockets else "none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                h11_max_incomplete_event_size=N_HEAD_BYTES,
                timeout_graceful_shutdown=FAREWELL_S,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave the signals alone: two servers share this process."""
        yield

    async def on_tick(self, counter: int) -> bool:
        """Look for slow clients now and then."""
        if counter % N_TICKS == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                if isinstance(connection, Protocol):  # a websocket waits for its visitor as long as its page is open
                    connection.look(now)
        return await super().on_tick(counter)

    async def opened(self, task: asyncio.Task[None]) -> None:
        """Wait until the door is open."""
        while not self.started:
            if task.done():
                await task
                raise CannotServe("the server ended before it listened; the lines above tell why.")
            await asyncio.sleep(0.002)


async def run(
    composed: Composed,
    listener: socket.socket,
    *,
    ended: asyncio.Event,
    ready: Callable[[str], None],
    hurry: threading.Event | None = None,
) -> None:
    """Serve until `ended` is set; `ready` is called with the base URL once the server answers, `hurry` cuts a drain short.

    Raises:
        CannotServe: a door could not be opened.
    """
    channel = composed.folder.run / "channel.sock"
    inner = Door(create_internal_app(composed.attempts, composed.tools), uds=str(channel))
    pages = Dashboard(storage=composed.folder.run)
    app = with_pages(create_app(composed.services), pages, composed.services)
    outer = Door(app, patience_s=composed.settings.slow_client_s, websockets=True)
    tasks = [asyncio.create_task(inner.serve())]
    try:
        await inner.opened(tasks[0])
        channel.chmod(0o600)
        await asyncio.to_thread(composed.start)
        composed.warm()
        tasks.append(asyncio.create_task(outer.serve(sockets=[listener])))
        await outer.opened(tasks[1])
        host, port = listener.getsockname()[:2]
        root = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        pages.api_url = root
        ready(f"{root}/v1")
        waiting = asyncio.create_task(ended.wait())
        await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
    finally:
        outer.should_exit = True
        await pages.close()
        await asyncio.gather(*tasks[1:])
        if composed.settings.drain and ended.is_set():
            await asyncio.to_thread(composed.drain.run, hurry or threading.Event())
        inner.should_exit = True
        await composed.close()
        await tasks[0]
        channel.unlink(missing_ok=True)


async def _until_signalled(composed: Composed, listener: socket.socket) -> None:
    ended, hurry = asyncio.Event(), threading.Event()

    def asked() -> None:
        if ended.is_set():
            hurry.set()
        ended.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked)

    def ready(base_url: str) -> None:
        typer.echo(f"Tunesmith is ready at {base_url}")
        log.info("server.ready", base_url=base_url, data_dir=str(composed.folder.path))

    await run(composed, listener, ended=ended, ready=ready, hurry=hurry)
    log.info("server.stopped")
