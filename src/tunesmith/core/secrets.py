"""Secrets at rest: sealed by a key that lies in the data folder, beside the database and never in it."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tunesmith.core.failpoint import failpoint

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

FILE: Final = "secrets.key"
#: What a sealed text begins with; no secret that was kept before there were sealed ones does.
SEALED: Final = "sealed:"


class SecretLost(Exception):
    """A sealed text cannot be opened: it was sealed by another key than the data folder has."""


class Secrets:
    """Seals texts and opens them again, with the key of a data folder; the first use makes it, for its owner alone."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE
        self._key: Fernet | None = None

    def seal(self, text: str) -> str:
        """Return a text as it may be stored."""
        return SEALED + self._fernet().encrypt(text.encode()).decode()

    def open(self, stored: str) -> str:
        """Return what was sealed; what never was is returned as it is.

        Raises:
            SecretLost: it was sealed by another key.
        """
        if not stored.startswith(SEALED):
            return stored
        from cryptography.fernet import InvalidToken  # noqa: PLC0415 - as below

        try:
            return self._fernet().decrypt(stored.removeprefix(SEALED)).decode()
        except InvalidToken as error:
            raise SecretLost(
                f"a secret was sealed by another key than {self._file} holds: bring that file back, or set the secret anew"
            ) from error

    def _fernet(self) -> "Fernet":
        if self._key is None:
            from cryptography.fernet import Fernet  # noqa: PLC0415 - most servers start without a secret

            if not self._file.exists():
                self._make(Fernet.generate_key())
            self._key = Fernet(self._file.read_bytes())
        return self._key

    def _make(self, key: bytes) -> None:
        """Write the key; it is whole and on the disk before its name is there."""
        written = self._file.with_suffix(".new")
        written.unlink(missing_ok=True)
        with os.fdopen(os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(key)
            stream.flush()
            os.fsync(stream.fileno())
        failpoint("secrets.key")
        written.replace(self._file)
