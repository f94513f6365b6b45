"""Who calls: the keys and projects of the installation, held in memory, so that no request waits for the database.

There is one server on a database, and every change passes through here after its commit: what is revoked is gone at once.
"""

import os
import threading
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import structlog

from tunesmith.core.clock import Clock
from tunesmith.core.errors import Unauthorized
from tunesmith.core.ids import Ids
from tunesmith.domain.identity import ENVIRONMENT, Key, NamedProject, hashed, masked
from tunesmith.domain.scope import DEFAULT_PROJECT, Everywhere
from tunesmith.store import audit
from tunesmith.store import identity as rows
from tunesmith.store.session import Database

#: Where the first admin key is written, in the data folder.
FIRST_KEY: Final = "admin-key"
#: Nothing longer is a key; what is shown of it would be no use either.
N_MAX_KEY: Final = 512
#: Of the audit log, for the admin keys that a server makes, takes from its environment, or finds there no more.
MADE: Final = "admin_api_key.created"
DROPPED: Final = "admin_api_key.deleted"
_EVERYWHERE: Final = Everywhere("who calls is asked before it is known for which project")
_HOW: Final = "Ask who runs this server for a key, or make one with `tunesmith keys create`."

log = structlog.get_logger()


class AdminKeyRefused(Exception):
    """The admin key of the environment cannot be one; the text tells why and the way out."""


@dataclass(frozen=True, slots=True)
class Identified:
    """A caller with a key, and the project that the request is for."""

    key: Key
    project: NamedProject


@dataclass(slots=True)
class _Known:
    """A key, and when it was used: in memory first, in the database within a minute."""

    key: Key
    used_at: float | None


class Identity:
    """The keys and projects of the installation."""

    def __init__(self, *, db: Database, clock: Clock, ids: Ids, organization: Collection[str]) -> None:
        """Take the names that the organisation may be called by in a request."""
        self._db = db
        self._clock = clock
        self._ids = ids
        self._organization = organization
        #: Held while the database and what is in memory are changed together.
        self.changing = threading.RLock()
        self._by_hash: dict[str, _Known] = {}
        self._projects: dict[str, NamedProject] = {}

    def load(self, environment_key: str | None = None) -> None:
        """Read all keys and projects; the key of the environment, if any, is an admin key while it stands there.

        Raises:
            AdminKeyRefused: that key is a project's.
        """
        sha256 = None if environment_key is None else hashed(environment_key.encode())
        with self.changing:
            with self._db.begin() as tx:
                known = rows.get_keys(tx, _EVERYWHERE)
                for key in known:
                    if key.id == ENVIRONMENT and key.sha256 != sha256:
                        rows.delete_key(tx, _EVERYWHERE, key.id)
                        audit.tell(tx, _EVERYWHERE, DROPPED, DEFAULT_PROJECT, [key.id])
                same = next((key for key in known if key.sha256 == sha256), None)
                if same is not None and same.role != "admin":
                    raise AdminKeyRefused(f"TUNESMITH_ADMIN_KEY is the key {same.id} of a project: choose another.")
                if environment_key is not None and sha256 is not None and same is None:
                    hint, now = masked(environment_key), self._clock.now()
                    made = Key(ENVIRONMENT, None, "admin", "TUNESMITH_ADMIN_KEY", sha256, hint, now)
                    rows.add_key(tx, _EVERYWHERE, made)
                    audit.tell(tx, _EVERYWHERE, MADE, DEFAULT_PROJECT, [made.id])
            with self._db.read() as tx:
                self._projects = {project.id: project for project in rows.get_projects(tx, _EVERYWHERE)}
                self._by_hash = {key.sha256: _Known(key, key.last_used_at) for key in rows.get_keys(tx, _EVERYWHERE)}

    def make_first_key(self, folder: Path) -> Path | None:
        """Make an admin key if there is none that works, and return the file that it was written to.

        The file comes first: after a crash between the two there is a file too many, not a key that nobody knows.
        """
        with self.changing:
            if any(self._works(key) for key in self.every_key() if key.role == "admin"):
                return None
            secret = self._ids.key("admin")
            file = folder / FIRST_KEY
            _write_closed(file, f"{secret}\n")
            made = Key(
                self._ids.key_id(), None, "admin", "first admin key", hashed(secret.encode()),
                masked(secret, "sk-admin-"), self._clock.now(),
            )  # fmt: skip
            self.add(made, told=MADE)
        log.warning("identity.first_admin_key", key=made.id, file=str(file))
        return file

    def authenticate(self, secret: bytes, *, organization: str | None = None, project: str | None = None) -> Identified:
        """Return who has a key and which project is meant: the key's, or for an admin key the named one.

        Raises:
            Unauthorized: there is no such key, it has expired, its project is archived, or another is named.
        """
        known = self._by_hash.get(hashed(secret)) if len(secret) <= N_MAX_KEY else None
        if known is None:
            shown = masked("".join(chr(byte) if 33 <= byte < 127 else "?" for byte in secret[:N_MAX_KEY]), "sk-")
            raise Unauthorized(f"Incorrect API key provided: {shown}. {_HOW}", code="invalid_api_key")
        key, now = known.key, self._clock.now()
        if key.expires_at is not None and key.expires_at <= now:
            raise Unauthorized(f"The API key {key.hint} has expired. {_HOW}", code="invalid_api_key")
        if organization and organization not in self._organization:
            raise Unauthorized(
                f"The header OpenAI-Organization names '{organization}', and the API key is not that organization's. Leave "
                f"the header out, or name {' or '.join(self._organization)}.",
                code="mismatched_organization",
            )
        meant = self._projects.get(project or key.project_id or DEFAULT_PROJECT)
        if meant is None or (key.project_id is not None and meant.id != key.project_id):
            raise Unauthorized(
                f"The header OpenAI-Project names '{project}', and the API key is not that project's. Leave the header out, "
                "or use a key of that project.",
                code="mismatched_project",
            )
        if meant.status == "archived" and key.role != "admin":
            raise Unauthorized(
                f"The project {meant.id} has been archived, and its keys with it. {_HOW}",
                code="not_authorized_invalid_project",
            )
        known.used_at = now
        return Identified(key, meant)

    def every_key(self) -> list[Key]:
        """Return every key, oldest first, each with the time of its last use."""
        known = [replace(each.key, last_used_at=each.used_at) for each in list(self._by_hash.values())]
        return sorted(known, key=lambda key: (key.created_at, key.id))

    def projects(self) -> list[NamedProject]:
        """Return every project, oldest first."""
        return sorted(self._projects.copy().values(), key=lambda project: (project.created_at, project.id))

    def project(self, project_id: str) -> NamedProject | None:
        """Return a project, or None."""
        return self._projects.get(project_id)

    def add(self, key: Key, *, told: str | None = None) -> None:
        """Keep a new key; `told` is for the audit log, of one that the server makes by itself."""
        with self.changing:
            with self._db.begin() as tx:
                rows.add_key(tx, _EVERYWHERE, key)
                if told is not None:
                    audit.tell(tx, _EVERYWHERE, told, DEFAULT_PROJECT, [key.id])
            self._by_hash[key.sha256] = _Known(key, None)

    def change(self, key: Key, **changes: object) -> Key:
        """Change a key and return it; the next request with it finds it so."""
        with self.changing:
            with self._db.begin() as tx:
                rows.change_key(tx, _EVERYWHERE, key.id, **changes)
            known = self._by_hash[key.sha256]
            known.key = replace(known.key, **changes)
            return replace(known.key, last_used_at=known.used_at)

    def drop(self, key: Key) -> None:
        """Delete a key; the next request with it is refused."""
        with self.changing:
            with self._db.begin() as tx:
                rows.delete_key(tx, _EVERYWHERE, key.id)
            self._by_hash.pop(key.sha256, None)

    def keep_project(self, project: NamedProject) -> None:
        """Take note of a project as it is in the database now."""
        self._projects[project.id] = project

    def sweep(self) -> int:
        """Write down when keys were last used, once for all since the last time; return 0, for there is no more of it."""
        used = {
            each.key.id: (each, each.used_at)
            for each in list(self._by_hash.values())
            if each.used_at is not None and each.used_at != each.key.last_used_at
        }
        if used:
            with self.changing, self._db.begin() as tx:
                for key_id, (_, at) in used.items():
                    rows.change_key(tx, _EVERYWHERE, key_id, last_used_at=at)
            for each, at in used.values():
                each.key = replace(each.key, last_used_at=at)
        return 0

    def _works(self, key: Key) -> bool:
        return key.expires_at is None or key.expires_at > self._clock.now()


def _write_closed(file: Path, text: str) -> None:
    """Write a file that its owner alone can read, whole or not at all."""
    new = file.with_name(f"{file.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    new.replace(file)
