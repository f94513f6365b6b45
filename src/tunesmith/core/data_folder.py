"""The server's data folder: made when absent, versioned, and held by one server at a time."""

import contextlib
import fcntl
import hashlib
import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tunesmith.core.failpoint import failpoint

#: Raised when what lies in the folder changes its form; a newer one is refused.
VERSION: Final = 1
#: A Unix socket's path must fit into the kernel's 108 bytes, with the name of the longest socket.
SOCKET_FOLDER_BYTES: Final = 70


#: What lies in the folder beside the database, the blobs and the bases, and is to be kept: the keys of secrets and the first
#: admin key.
KEPT_FILES: Final = ("VERSION", "secrets.key", "admin-key")
#: Made so that other users of the machine read nobody's rows and models; who wants otherwise changes it, and it stays so.
CLOSED_FOLDERS: Final = ("blobs", "run", "attempts")


class FolderRefused(Exception):
    """The folder cannot be used; the text tells why and the way out."""


class FolderInUse(FolderRefused):
    """A server holds the folder."""


class DataFolder:
    """A data folder, held until `close`; the kernel lets go of it when the process dies, however that happens."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        self.run = self.path / "run"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise FolderRefused(f"The data folder {self.path} cannot be used: {error.strerror}.") from error
        try:
            self._hold()
            self._check_version()
            for name in CLOSED_FOLDERS:
                (self.path / name).mkdir(mode=0o700, exist_ok=True)
            (self.path / "bases").mkdir(exist_ok=True)
            self.run = self._socket_folder()
        except OSError as error:
            self.close()
            raise FolderRefused(f"The data folder {self.path} cannot be written: {error.strerror}.") from error
        except FolderRefused:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the folder; a folder of sockets outside it goes too, unless a socket is left in it."""
        if self._lock >= 0:
            if self.run != self.path / "run":
                with contextlib.suppress(OSError):  # not empty: a process that outlives the server still uses it
                    self.run.rmdir()
            os.close(self._lock)
            self._lock = -1

    def _hold(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._lock, 32, 0).decode(errors="replace").strip() or "unknown"
            raise FolderInUse(
                f"The data folder {self.path} is in use by another server (process {holder}). Stop that one, or give this "
                "one a folder of its own with --data-dir."
            ) from error
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def _check_version(self) -> None:
        file = self.path / "VERSION"
        if not file.exists():
            written = self.path / "VERSION.new"
            with written.open("w") as stream:
                stream.write(f"{VERSION}\n")
                stream.flush()
                os.fsync(stream.fileno())
            failpoint("folder.version")
            written.replace(file)
            return
        text = file.read_text(errors="replace").strip()
        if not text.isdecimal():
            raise FolderRefused(
                f"{file} should hold a whole number, not '{text[:40]}': this is no data folder of Tunesmith."
            )
        if int(text) > VERSION:
            raise FolderRefused(
                f"The data folder {self.path} has version {text}, and this Tunesmith knows up to {VERSION}. Start it "
                "with the newer Tunesmith that wrote it, or give this one another folder with --data-dir."
            )

    def _socket_folder(self) -> Path:
        """Return the folder of the sockets, closed to other users: in the data folder unless its path is too long for one.

        The other place is the same after a restart, so that what runs on finds its server again.
        """
        run = self.path / "run"
        if len(os.fsencode(run)) > SOCKET_FOLDER_BYTES:
            name = f"tunesmith-{os.getuid()}-{hashlib.sha256(os.fsencode(self.path)).hexdigest()[:12]}"
            run = Path(tempfile.gettempdir()) / name
            if len(os.fsencode(run)) > SOCKET_FOLDER_BYTES:
                run = Path("/tmp") / name  # short for certain; its owner is checked below
            run.mkdir(mode=0o700, exist_ok=True)
            if run.is_symlink() or run.stat().st_uid != os.getuid():
                raise FolderRefused(f"{run}, where this server's sockets would be, belongs to somebody else: remove it.")
        run.chmod(0o700)
        return run
