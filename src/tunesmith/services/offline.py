"""Backups of a data folder that no server holds, and data folders made of them."""

from collections.abc import Generator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from tunesmith.core.clock import SystemClock
from tunesmith.core.data_folder import DataFolder, FolderRefused
from tunesmith.core.ids import Ids
from tunesmith.services.backup import Backups
from tunesmith.services.restoring import Restored, RestoreRefused, restore
from tunesmith.store.migrate import NewerDatabase
from tunesmith.store.session import Database


@contextmanager
def backups_of(data_dir: Path) -> Generator[Backups]:
    """Yield what makes backups of a data folder that no server holds; nothing in it is brought up to date.

    Raises:
        FolderInUse: a server holds it.
        FolderRefused: it is none, or cannot be used.
    """
    if not (data_dir / "VERSION").is_file():
        raise FolderRefused(f"{data_dir} is no data folder of Tunesmith: name yours with --data-dir.")
    clock, ids = SystemClock(), Ids()
    with DataFolder(data_dir) as folder:
        db = Database(f"sqlite:///{folder.path / 'tunesmith.db'}", clock=clock, ids=ids)
        try:
            yield Backups(db=db, folder=folder.path, clock=clock, ids=ids, version=version("tunesmith"))
        finally:
            db.close()


def restored(source: Path, data_dir: Path) -> Restored:
    """Make a data folder of a backup.

    Raises:
        FolderRefused: the source is no backup that can be restored, or the folder is not a new one.
        OSError: it cannot be written.
    """
    try:
        return restore(source, data_dir, clock=SystemClock(), ids=Ids())
    except (RestoreRefused, NewerDatabase) as error:
        raise FolderRefused(str(error)) from error
