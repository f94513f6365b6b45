"""A SQLite database with every table and no rows: made once by the migrations, and copied from then on."""

import tempfile
from functools import cache
from pathlib import Path

from tunesmith.core.clock import SystemClock
from tunesmith.core.ids import Ids
from tunesmith.store.session import Database


@cache
def _migrated() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tunesmith.db"
        database = Database(f"sqlite:///{path}", clock=SystemClock(), ids=Ids())
        database.migrate()
        database.close()
        return path.read_bytes()


def make_database(path: Path) -> str:
    """Write the database, unless there is one, and its folder; return its URL."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_migrated())
    return f"sqlite:///{path}"
