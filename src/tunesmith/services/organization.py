"""The organisation: its projects, and the keys to them; what is made here is an admin's to make."""

from typing import Final, Protocol, TypeVar

import structlog

from tunesmith.core.clock import Clock
from tunesmith.core.errors import InvalidRequest, NotFound, StateConflict
from tunesmith.core.ids import Ids
from tunesmith.domain.identity import ENVIRONMENT, Key, NamedProject, Role, hashed, masked
from tunesmith.domain.scope import DEFAULT_ORGANIZATION, DEFAULT_PROJECT, Everywhere, Project
from tunesmith.services.identity import Identity
from tunesmith.store import identity as rows
from tunesmith.store import jobs
from tunesmith.store.session import Database

_EVERYWHERE: Final = Everywhere("projects are the organisation's")

log = structlog.get_logger()


class _Named(Protocol):
    @property
    def id(self) -> str: ...


Item = TypeVar("Item", bound=_Named)


class ProjectNotFound(NotFound):
    """No such project (404)."""

    param = "project_id"

    def __init__(self, project_id: str) -> None:
        super().__init__(f"No such project: {project_id}")


class KeyNotFound(NotFound):
    """No such key (404)."""

    param = "key_id"

    def __init__(self, key_id: str) -> None:
        super().__init__(f"No such API key: {key_id}")


class Organization:
    """What an admin sees and changes."""

    def __init__(self, *, db: Database, identity: Identity, clock: Clock, ids: Ids) -> None:
        self._db = db
        self._identity = identity
        self._clock = clock
        self._ids = ids

    def create_project(self, name: str) -> NamedProject:
        """Make a project."""
        made = NamedProject(self._ids.project(), DEFAULT_ORGANIZATION, name, self._clock.now())
        with self._identity.changing:
            with self._db.begin() as tx:
                rows.add_project(tx, _EVERYWHERE, made)
            self._identity.keep_project(made)
        log.info("project.created", project=made.id)
        return made

    def project(self, project_id: str) -> NamedProject:
        """Return a project.

        Raises:
            ProjectNotFound: there is none.
        """
        found = self._identity.project(project_id)
        if found is None:
            raise ProjectNotFound(project_id)
        return found

    def projects(self, *, archived: bool) -> list[NamedProject]:
        """Return every project, oldest first."""
        return [each for each in self._identity.projects() if archived or each.status == "active"]

    def rename(self, project_id: str, name: str) -> NamedProject:
        """Give a project another name.

        Raises:
            ProjectNotFound: there is none.
            StateConflict: it is archived.
        """
        if self.project(project_id).status == "archived":
            raise StateConflict(f"The project {project_id} is archived and cannot be changed.", param="project_id")
        return self._change(project_id, name=name)

    def archive(self, project_id: str) -> NamedProject:
        """Archive a project: its keys are refused from now on, and what belongs to it stays.

        Raises:
            ProjectNotFound: there is none.
            StateConflict: it is the first one, or it has jobs under way.
        """
        if project_id == DEFAULT_PROJECT:
            raise StateConflict(
                f"{DEFAULT_PROJECT} is where requests go that name no project: it stays.", param="project_id"
            )
        known = self.project(project_id)
        if known.status == "archived":
            return known
        with self._db.read() as tx:
            n_under_way = len(jobs.unfinished(tx, Project(project_id)))
        if n_under_way:
            raise StateConflict(
                f"The project {project_id} has {n_under_way} unfinished jobs, which its keys could no longer cancel: "
                "cancel them first, or wait for them.",
                param="project_id",
            )
        log.info("project.archived", project=project_id)
        return self._change(project_id, status="archived", archived_at=self._clock.now())

    def create_key(
        self, project_id: str | None, name: str, *, role: Role, expires_at: float | None = None
    ) -> tuple[Key, str]:
        """Make a key, a project's or without one an admin's, and return it with its text, which is kept nowhere.

        Raises:
            ProjectNotFound: there is no such project.
            StateConflict: the project is archived.
            InvalidRequest: the key would have expired already.
        """
        now = self._clock.now()
        if expires_at is not None and expires_at <= now:
            raise InvalidRequest(
                f"must be a time to come, in unix seconds (now is {int(now)}) - 'expires_at'", param="expires_at"
            )
        if project_id is not None and self.project(project_id).status == "archived":
            raise StateConflict(f"The project {project_id} is archived: a key to it would be refused.", param="project_id")
        secret = self._ids.key("admin" if role == "admin" else None)
        made = Key(
            id=self._ids.key_id(),
            project_id=project_id,
            role=role,
            name=name,
            sha256=hashed(secret.encode()),
            hint=masked(secret, "sk-admin-" if role == "admin" else "sk-"),
            created_at=now,
            account_id=None if project_id is None else self._ids.service_account(),
            expires_at=expires_at,
        )
        self._identity.add(made)
        log.info("key.created", key=made.id, role=role, project=project_id)
        return made, secret

    def keys(self, project_id: str | None) -> list[Key]:
        """Return a project's keys, or without one the admins', oldest first.

        Raises:
            ProjectNotFound: there is no such project.
        """
        if project_id is not None:
            self.project(project_id)
        return [key for key in self._identity.every_key() if key.project_id == project_id]

    def every_key(self) -> list[Key]:
        """Return every key, oldest first."""
        return self._identity.every_key()

    def key(self, project_id: str | None, key_id: str) -> Key:
        """Return a key by its id or its account's.

        Raises:
            ProjectNotFound: there is no such project.
            KeyNotFound: there is no such key of it.
        """
        return _named(self.keys(project_id), key_id)

    def change_key(self, project_id: str, key_id: str, **changes: object) -> Key:
        """Change the role or the expiry of a project's key: the next request with it finds it so.

        Raises:
            ProjectNotFound, KeyNotFound: as `key`.
            StateConflict: it has expired.
        """
        with self._identity.changing:
            key = self.key(project_id, key_id)
            if key.expires_at is not None and key.expires_at <= self._clock.now():
                raise StateConflict(f"The key {key.id} has expired and stays so: make another one.", param="key_id")
            if not changes:
                return key
            changed = self._identity.change(key, **changes)
        log.info("key.changed", key=key.id, role=changed.role, project=project_id)
        return changed

    def revoke(self, key_id: str) -> None:
        """Revoke a key of whatever kind, by its id or its account's: the next request with it is refused.

        Raises:
            KeyNotFound: there is no such key.
            StateConflict: it stands in the environment, or no admin key would be left.
        """
        with self._identity.changing:
            key = _named(self.every_key(), key_id)
            now = self._clock.now()
            if key.id == ENVIRONMENT:
                raise StateConflict(
                    "This key is the server's variable TUNESMITH_ADMIN_KEY: change that and start the server again.",
                    param="key_id",
                )
            others = [each for each in self.keys(None) if each.id != key.id]
            if key.role == "admin" and not any(each.expires_at is None or each.expires_at > now for each in others):
                raise StateConflict("This is the last admin key that works: make another one first.", param="key_id")
            self._identity.drop(key)
        log.info("key.revoked", key=key.id, role=key.role, project=key.project_id)

    def _change(self, project_id: str, **changes: object) -> NamedProject:
        with self._identity.changing:
            with self._db.begin() as tx:
                changed = rows.change_project(tx, _EVERYWHERE, project_id, **changes)
            if changed is None:
                raise ProjectNotFound(project_id)
            self._identity.keep_project(changed)
        return changed


def page_of(items: list[Item], *, after: str | None, limit: int) -> tuple[list[Item], bool]:
    """Return the part of a list that comes after an item, and whether there is more.

    Raises:
        InvalidRequest: there is no such item.
    """
    start = 0
    if after is not None:
        ids = [item.id for item in items]
        if after not in ids:
            raise InvalidRequest(f"There is no object with id '{after}' to list after.", param="after")
        start = ids.index(after) + 1
    return items[start : start + limit], len(items) > start + limit


def _named(keys: list[Key], key_id: str) -> Key:
    for key in keys:
        if key_id in (key.id, key.account_id):
            return key
    raise KeyNotFound(key_id)
