"""Blobs on the local disk: written to the side, flushed to the disk, renamed into place, the folder flushed after it."""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from tunesmith.core.failpoint import failpoint
from tunesmith.core.ids import Ids
from tunesmith.domain.ports import Stored
from tunesmith.domain.retention import Found

_UNFINISHED = ".unfinished"


class LocalBlobs:
    """The `Blobs` port over a folder; an object is whole or absent, whatever happens meanwhile."""

    def __init__(self, folder: Path, *, ids: Ids | None = None) -> None:
        self._folder = folder.absolute()
        self._ids = ids or Ids()

    @property
    def url(self) -> str:
        """Where the store is, as a `file://` URL."""
        return self._folder.as_uri()

    def put(self, key: str, chunks: Iterable[bytes], *, create_only: bool = False) -> Stored:
        """Write an object durably and atomically.

        Raises:
            FileExistsError: `create_only` and the object exists.
            OSError: the disk refused; nothing is left of the object.
        """
        path = self._path(key)
        self._make_folder(path.parent)
        unfinished = path.with_name(f"{path.name}.{self._ids.scratch()}{_UNFINISHED}")
        try:
            stored = _write(unfinished, chunks)
            failpoint("blobs.rename")
            if create_only:
                # A hard link, unlike a rename, fails where the name is taken.
                path.hardlink_to(unfinished)
            else:
                unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
        _flush_folder(path.parent)
        failpoint("blobs.renamed")
        return stored

    def open(self, key: str) -> BinaryIO:
        """Open an object for reading.

        Raises:
            FileNotFoundError: there is none.
        """
        return self._path(key).open("rb")

    def path(self, key: str) -> Path:
        """Return the path of an object or of a prefix's folder."""
        return self._path(key)

    def delete(self, key: str) -> None:
        """Delete an object, or everything under a prefix; absent is fine."""
        path = self._path(key)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def keys(self, prefix: str) -> list[str]:
        """List the objects under a prefix, sorted."""
        folder = self._path(prefix)
        found = [folder] if folder.is_file() else [path for path in folder.rglob("*") if path.is_file()]
        return sorted(path.relative_to(self._folder).as_posix() for path in found if path.suffix != _UNFINISHED)

    def found(self, prefix: str) -> Iterator[Found]:
        """Yield every object under a prefix, and what puts that never ended left, in any order."""
        folders = [self._path(prefix)]
        while folders:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(Path(entry.path))
                        continue
                    with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                        stat = entry.stat(follow_symlinks=False)
                        key = Path(entry.path).relative_to(self._folder).as_posix()
                        yield Found(key, stat.st_size, stat.st_mtime)

    def clear_unfinished(self, prefix: str) -> int:
        """Remove what puts that never ended left under a prefix; return how many it were."""
        left = [path for path in self._path(prefix).rglob(f"*{_UNFINISHED}") if path.is_file()]
        for path in left:
            path.unlink(missing_ok=True)
        return len(left)

    def _path(self, key: str) -> Path:
        parts = key.rstrip("/").split("/")
        if "\0" in key or any(part in ("", ".", "..") for part in parts):
            raise ValueError(f"'{key}' is not a blob's key")
        return self._folder.joinpath(*parts)

    def _make_folder(self, folder: Path) -> None:
        """Make a folder and flush the names of those that are new."""
        missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for made in reversed(missing):
            _flush_folder(made.parent)


def _write(path: Path, chunks: Iterable[bytes]) -> Stored:
    digest = hashlib.sha256()
    n_bytes = 0
    with path.open("xb") as file:
        for chunk in chunks:
            file.write(chunk)
            digest.update(chunk)
            n_bytes += len(chunk)
        failpoint("blobs.write")
        file.flush()
        os.fsync(file.fileno())
    return Stored(n_bytes, digest.hexdigest())


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
