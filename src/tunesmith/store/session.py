"""The database: one write transaction at a time on SQLite (cancel first), plain transactions on PostgreSQL."""

import sqlite3
import threading
from collections import deque
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, Executable, create_engine, event, func, make_url, select
from sqlalchemy.engine import CursorResult
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry

from tunesmith.core.clock import Clock
from tunesmith.core.errors import StorageFull, Unavailable
from tunesmith.core.failpoint import failpoint
from tunesmith.core.ids import Ids
from tunesmith.store import migrate

BUSY_TIMEOUT_MS: Final = 30_000
#: The advisory lock of PostgreSQL that a server holds: `tune` in ASCII.
SERVER_LOCK: Final = 0x74756E65
#: How long a starting server waits for that lock: the database learns of its predecessor's death a moment later.
HOLD_TIMEOUT_MS: Final = 2000
#: The SQLSTATEs of a full disk and of a lock that was not to be had in time.
PG_DISK_FULL: Final = "53100"
PG_LOCK_TIMEOUT: Final = "55P03"


@dataclass(frozen=True, slots=True)
class Transaction:
    """A connection inside a transaction, with the clock and the ids that its rows are stamped with."""

    connection: Connection
    clock: Clock
    ids: Ids

    def execute(self, statement: Executable, rows: list[dict[str, Any]] | None = None) -> CursorResult[Any]:
        """Execute a statement, once, or once a row."""
        return self.connection.execute(statement, rows) if rows is not None else self.connection.execute(statement)

    def one(self, statement: Executable) -> dict[str, Any] | None:
        """Return the only row as a dictionary, or None; more than one is an error."""
        found = self.connection.execute(statement)
        row = found.one_or_none()
        return None if row is None else dict(zip(found.keys(), row, strict=True))

    def every(self, statement: Executable) -> list[dict[str, Any]]:
        """Return all rows as dictionaries."""
        found = self.connection.execute(statement)
        names = tuple(found.keys())
        return [dict(zip(names, row, strict=True)) for row in found]


class Lanes:
    """A fair lock with two lanes: whoever is urgent goes before all who are not, each lane in the order of arrival."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._taken = False
        self._urgent: deque[object] = deque()
        self._ordinary: deque[object] = deque()

    @contextmanager
    def hold(self, *, urgent: bool) -> Generator[None]:
        """Wait for the turn, hold the lock, give it back."""
        ticket = object()
        lane = self._urgent if urgent else self._ordinary
        with self._condition:
            lane.append(ticket)
            try:
                self._condition.wait_for(lambda: not self._taken and self._next() is ticket)
                self._taken = True
            finally:
                lane.remove(ticket)
        try:
            yield
        finally:
            with self._condition:
                self._taken = False
                self._condition.notify_all()

    def _next(self) -> object:
        return self._urgent[0] if self._urgent else self._ordinary[0]


class DatabaseInUse(Exception):
    """Another server works on the database; two of this release would take each other's attempts for lost ones."""


class Database:
    """A store by URL: `sqlite:///…` or `postgresql://…`.

    Raises (at any use):
        Unavailable: the database cannot be reached or cannot be written.
        StorageFull: its disk is full.
    """

    def __init__(self, url: str, *, clock: Clock, ids: Ids) -> None:
        self._clock = clock
        self._ids = ids
        parsed = make_url(url)
        if parsed.drivername in ("postgresql", "postgres"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        self._lanes = Lanes()
        if self.is_sqlite:
            # One connection writes, others read beside it: that is what WAL allows; one for each of 40 threads and the loop.
            self._writer = create_engine(parsed, pool_size=1, max_overflow=0)
            self._reader = create_engine(parsed, pool_size=8, max_overflow=33)
            _prepare_sqlite(self._writer, "BEGIN IMMEDIATE")
            _prepare_sqlite(self._reader, "BEGIN")
        else:
            self._writer = self._reader = create_engine(parsed, pool_size=8, max_overflow=32, pool_pre_ping=True)
        self._held: Connection | None = None

    def hold(self) -> None:
        """Be the only server on the database until `close`; a SQLite database has the lock of its data folder.

        Raises:
            DatabaseInUse: another server is.
        """
        if self.is_sqlite:
            return
        with _clear():
            connection = self._writer.connect().execution_options(isolation_level="AUTOCOMMIT")
            try:
                connection.exec_driver_sql(f"SET lock_timeout = {HOLD_TIMEOUT_MS}")
                connection.execute(select(func.pg_advisory_lock(SERVER_LOCK)))
            except OperationalError as error:
                connection.invalidate()
                if getattr(error.orig, "sqlstate", None) != PG_LOCK_TIMEOUT:
                    raise
                raise DatabaseInUse(
                    "The PostgreSQL database is in use by another Tunesmith server. Stop that one, or give this one a "
                    "database of its own with --database-url."
                ) from error
            connection.detach()  # a connection of the pool's could be handed on, and the lock with it
        self._held = connection

    def migrate(self) -> None:
        """Bring the tables up to date.

        Raises:
            migrate.NewerDatabase: a newer release wrote the database.
        """
        with _clear():
            migrate.upgrade(self._writer)

    @contextmanager
    def begin(self, *, urgent: bool = False) -> Generator[Transaction]:
        """Open a write transaction; it commits at the end of the block, an exception rolls it back."""
        if not self.is_sqlite:
            with _clear(), self._writer.begin() as connection:
                yield Transaction(connection, self._clock, self._ids)
                failpoint("store.commit")
        else:
            with self._lanes.hold(urgent=urgent), _clear(), self._writer.begin() as connection:
                yield Transaction(connection, self._clock, self._ids)
                failpoint("store.commit")
        failpoint("store.committed")

    @contextmanager
    def read(self) -> Generator[Transaction]:
        """Open a read transaction: everything read in it is of one moment (SQLite) or committed (PostgreSQL)."""
        with _clear(), self._reader.connect() as connection, connection.begin():
            yield Transaction(connection, self._clock, self._ids)

    def copy(self, path: Path) -> None:
        """Write a copy of a SQLite database, of one moment; whoever writes meanwhile goes on."""
        with _clear(), self._reader.connect() as connection, closing(sqlite3.connect(path)) as target:
            source: Any = connection.connection.driver_connection
            source.backup(target)

    def n_bytes(self) -> int:
        """Return what the database takes of its disk."""
        if not self.is_sqlite:
            with self.read() as tx:
                return int(tx.execute(select(func.pg_database_size(func.current_database()))).scalar_one())
        path = str(self._reader.url.database)
        return sum(part.stat().st_size for part in map(Path, (path, f"{path}-wal")) if part.exists())

    def close(self) -> None:
        """Close every connection."""
        if self._held is not None:
            self._held.close()
            self._held = None
        self._writer.dispose()
        self._reader.dispose()


@contextmanager
def _clear() -> Generator[None]:
    """Turn the driver's operational errors into one that a client may see."""
    try:
        yield
    except (OperationalError, PoolTimeout) as error:
        if _is_full(error):
            raise StorageFull(
                "The disk of the database is full and nothing was stored. Free space there, then try again."
            ) from error
        raise Unavailable(f"The database cannot serve this now ({getattr(error, 'orig', error)}). Try again.") from error


def _is_full(error: Exception) -> bool:
    cause = getattr(error, "orig", None)
    return getattr(cause, "sqlite_errorname", None) == "SQLITE_FULL" or getattr(cause, "sqlstate", None) == PG_DISK_FULL


def _prepare_sqlite(engine: Engine, begin: str) -> None:
    @event.listens_for(engine, "connect")
    def configure(connection: Any, _: ConnectionPoolEntry) -> None:  # pyright: ignore[reportUnusedFunction] - SQLAlchemy calls it
        # The driver's own transaction handling would defer BEGIN; ours is explicit, below.
        connection.isolation_level = None
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            f"busy_timeout={BUSY_TIMEOUT_MS}",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def start(connection: Connection) -> None:  # pyright: ignore[reportUnusedFunction] - SQLAlchemy calls it
        raw: Any = connection.connection.dbapi_connection
        raw.execute(begin)
