"""A backup of an embedded installation as a tar: its database at one moment, and every blob that its rows name."""

import hashlib
import json
import os
import shutil
import tarfile
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tunesmith.core.clock import Clock
from tunesmith.core.data_folder import KEPT_FILES
from tunesmith.core.errors import InvalidRequest, Unavailable
from tunesmith.core.ids import Ids
from tunesmith.domain.scope import Everywhere
from tunesmith.store import backup, models
from tunesmith.store.session import Database

#: Raised when what lies in a backup changes its form.
FORM: Final = 1
#: Names what else there is, with its hash; the last of all, so that a backup that has it is whole.
MANIFEST: Final = "manifest.json"
DATABASE: Final = "tunesmith.db"
FOLDER: Final = "backup"
#: How the blob store calls what it still writes.
UNFINISHED: Final = ".unfinished"
_N_TRIES: Final = 5
_N_CHUNK_BYTES: Final = 1024 * 1024
_SCOPE: Final = Everywhere("a backup is of the whole installation")


class Backups:
    """Makes backups of a data folder, beside everything else that goes on in it; one object for each process."""

    def __init__(self, *, db: Database, folder: Path, clock: Clock, ids: Ids, version: str) -> None:
        self._db = db
        self._folder = folder
        self._clock = clock
        self._ids = ids
        self._version = version
        shutil.rmtree(folder / FOLDER, ignore_errors=True)  # of one that a server's end broke off

    def stream(self, *, bases: bool = True) -> Generator[bytes]:
        """Yield the tar; without `bases` the weights that were downloaded are left out. Nothing is left of it at the end.

        Raises:
            InvalidRequest: the installation is not an embedded one.
            Unavailable: too much is deleted meanwhile.
        """
        if not self._db.is_sqlite:
            raise InvalidRequest(
                "This server's database is a PostgreSQL, which is backed up by pg_dump: copy the folder 'blobs' of the data "
                "folder, run pg_dump, and then copy what is new in 'blobs'."
            )
        with self._workplace() as place:
            entries, absent = self._gathered(place, bases=bases)
            listed: list[dict[str, Any]] = []
            for name, path in entries:
                yield from _member(name, path, listed)
            manifest = {
                "form": FORM,
                "tunesmith": self._version,
                "created_at": self._clock.now(),
                "data_dir": str(self._folder),
                "bases": bases,
                "absent": absent,
                "files": listed,
            }
            text = json.dumps(manifest, indent=1).encode()
            yield _header(MANIFEST, len(text))
            yield _padded(text)
            yield bytes(2 * tarfile.BLOCKSIZE)

    @contextmanager
    def _workplace(self) -> Generator[Path]:
        """Yield a folder on the disk of the blobs, so that links to them can lie in it."""
        place = self._folder / FOLDER / self._ids.scratch()
        place.mkdir(parents=True, mode=0o700)
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def _gathered(self, place: Path, *, bases: bool) -> tuple[list[tuple[str, Path]], list[str]]:
        """Return what goes into the backup, by name, and the keys of what should and is not there.

        Bytes go only after their rows. So what the copy of the database needs, and the database itself still needs once the
        links are made, was whole when it was linked; if that is not all of it, another copy is made.
        """
        copy = place / DATABASE
        for _ in range(_N_TRIES):
            self._db.copy(copy)
            needed, others, folders = self._named(copy, bases=bases)
            absent = [key for key in sorted(needed) if not self._link(place, f"blobs/{key}")]
            for name in [*(f"blobs/{key}" for key in others - needed), *folders, *self._records()]:
                self._link(place, name)
            with self._db.read() as tx:
                if needed <= set(backup.needed(tx, _SCOPE)):
                    return [*self._kept(), *_files(place, place)], absent
            shutil.rmtree(place / "blobs", ignore_errors=True)
            copy.unlink()
        raise Unavailable("Too much is deleted while the backup is made. Try again when less goes on.")

    def _named(self, copy: Path, *, bases: bool) -> tuple[set[str], set[str], list[str]]:
        """Return what the copy's rows need, what is useful to them, and the folders of bases that were downloaded."""
        db = Database(f"sqlite:///{copy}", clock=self._clock, ids=self._ids)
        try:
            with db.read() as tx:
                found = [Path(base.path) for base in models.bases(tx, _SCOPE) if base.status == "ready" and bases]
                own = [str(path.relative_to(self._folder)) for path in found if path.is_relative_to(self._folder)]
                return set(backup.needed(tx, _SCOPE)), set(backup.useful(tx, _SCOPE)), own
        finally:
            db.close()

    def _link(self, place: Path, name: str) -> bool:
        """Link a file, or all that is in a folder; False when it is not there."""
        source, target = self._folder / name, place / name
        if target.exists():
            return True
        if source.is_dir():
            found = [_linked(path, place / inner) for inner, path in _files(source, self._folder)]
            return bool(found) and all(found)
        return _linked(source, target)

    def _records(self) -> list[str]:
        """Return what attempts wrote down for people to read, which no row names: rollouts and comparisons."""
        attempts = self._folder / "blobs" / "jobs"
        found = [*attempts.glob("*/attempts/*/rollouts"), *attempts.glob("*/attempts/*/comparison.json")]
        return [path.relative_to(self._folder).as_posix() for path in found]

    def _kept(self) -> Iterable[tuple[str, Path]]:
        return [(name, self._folder / name) for name in KEPT_FILES if (self._folder / name).is_file()]


def _linked(source: Path, target: Path) -> bool:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(source)
    except FileNotFoundError:
        return False
    except OSError:  # a disk without links, or another one
        shutil.copyfile(source, target)
    return True


def _files(folder: Path, root: Path) -> list[tuple[str, Path]]:
    """Return the files below a folder, by their names from the root on."""
    found = [Path(at) / name for at, _, names in os.walk(folder) for name in names if not name.endswith(UNFINISHED)]
    return [(path.relative_to(root).as_posix(), path) for path in sorted(found)]


def _member(name: str, path: Path, listed: list[dict[str, Any]]) -> Iterator[bytes]:
    """Yield a file as a member of the tar, and list it."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        n_bytes = n_left = os.fstat(file.fileno()).st_size
        yield _header(name, n_bytes)
        while n_left:
            chunk = file.read(min(n_left, _N_CHUNK_BYTES))
            if not chunk:
                raise OSError(f"{path} became shorter while it was read")
            n_left -= len(chunk)
            digest.update(chunk)
            yield chunk
        yield bytes(-n_bytes % tarfile.BLOCKSIZE)
    listed.append({"name": name, "bytes": n_bytes, "sha256": digest.hexdigest()})


def _header(name: str, n_bytes: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = n_bytes, 0o600
    return info.tobuf(tarfile.PAX_FORMAT)


def _padded(text: bytes) -> bytes:
    return text + bytes(-len(text) % tarfile.BLOCKSIZE)
