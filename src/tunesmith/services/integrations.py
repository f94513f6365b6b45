"""Integrations: the key that an organisation registers, what a job may ask for, and the recordings of a new one."""

from typing import Any, Final
from urllib.parse import urlsplit

import structlog

from tunesmith.core.clock import Clock
from tunesmith.core.errors import InvalidRequest, NotFound
from tunesmith.core.secrets import Secrets
from tunesmith.domain.integration import Integration
from tunesmith.domain.job import Job
from tunesmith.domain.recording import NAMES, Recording, Tracker, TrackerKind, Trackers
from tunesmith.domain.scope import Project
from tunesmith.store import integrations, jobs, recordings
from tunesmith.store.session import Database, Transaction

WANDB: Final[TrackerKind] = "wandb"
COMMAND: Final = "tunesmith integrations wandb"

log = structlog.get_logger()


class IntegrationNotFound(NotFound):
    """The organisation has registered no such integration (404)."""

    param = "integration"

    def __init__(self, kind: str) -> None:
        super().__init__(f"No integration '{kind}' is registered. `{COMMAND}` registers the key of Weights & Biases.")


class Integrations:
    """What organisations have registered, and what their jobs make of it."""

    def __init__(self, *, db: Database, clock: Clock, secrets: Secrets, trackers: Trackers) -> None:
        self._db = db
        self._clock = clock
        self._secrets = secrets
        self._trackers = trackers

    def register(self, scope: Project, kind: str, *, api_key: str, base_url: str | None) -> Integration:
        """Keep an organisation's key, in the place of the one before.

        Raises:
            IntegrationNotFound: there are none of that kind.
            InvalidRequest: the address is none, or the package is not installed.
        """
        if kind != WANDB:
            raise IntegrationNotFound(kind)
        self._refuse_missing(kind, "api_key")
        url = None if base_url is None else _vetted(base_url)
        now = self._clock.now()
        sealed = self._secrets.seal(api_key)
        with self._db.begin() as tx:
            before = integrations.get(tx, scope, kind)
            made_at = now if before is None else before.created_at
            made = Integration(scope.organization_id, kind, sealed, url, made_at, now)
            integrations.put(tx, scope, made)
        log.info("integration.registered", kind=kind, organization=scope.organization_id)
        return made

    def registered(self, scope: Project) -> list[Integration]:
        """Return what the organisation has registered."""
        with self._db.read() as tx:
            return integrations.registered(tx, scope)

    def remove(self, scope: Project, kind: str) -> None:
        """Forget a key.

        Raises:
            IntegrationNotFound: none is registered.
        """
        with self._db.begin() as tx:
            if not integrations.remove(tx, scope, kind):
                raise IntegrationNotFound(kind)
        log.info("integration.removed", kind=kind, organization=scope.organization_id)

    def trackers(self) -> list[Tracker]:
        """Return the trackers that a server can tell of jobs."""
        here = self._trackers
        return [
            Tracker(
                kind,
                "jobs_that_ask" if kind == WANDB else "every_job" if kind in here.always else "no_job",
                here.place(kind),
                here.missing(kind),
            )
            for kind in NAMES
        ]

    def check(self, scope: Project, asked: list[dict[str, Any]]) -> None:
        """Look at what a job to be asks for.

        Raises:
            InvalidRequest: no key is registered for it, the package is not installed, or two would be one run.
        """
        if not asked:
            return
        self._refuse_missing(WANDB, "integrations")
        places = [(each[WANDB].get("entity"), each[WANDB]["project"]) for each in asked]
        if len(set(places)) < len(places):
            raise InvalidRequest(
                "'integrations' names the same project of Weights & Biases more than once: a job is one run of a project. "
                "Leave one out.",
                param="integrations",
            )
        if self._trackers.offline:
            return
        with self._db.read() as tx:
            if integrations.get(tx, scope, WANDB) is None:
                raise InvalidRequest(
                    "'integrations' asks for Weights & Biases, and no key of it is registered for this organization. An "
                    f"admin registers one with `{COMMAND}`; or leave 'integrations' out.",
                    param="integrations",
                )

    def begin(self, tx: Transaction, scope: Project, job: Job) -> None:
        """Note where a new job is to be told, in the commit that makes it."""
        targets: list[tuple[TrackerKind, dict[str, Any]]] = [(WANDB, each[WANDB]) for each in job.integrations]
        for kind in self._trackers.always:
            targets.append((kind, {}))
        for place, (kind, target) in enumerate(targets):
            recordings.add(tx, scope, Recording(job.id, place, job.project_id, job.organization_id, kind, target))

    def recordings(self, scope: Project, job_id: str) -> list[Recording] | None:
        """Return where a job is told and how that goes; None when the project has no such job."""
        with self._db.read() as tx:
            return None if jobs.get(tx, scope, job_id) is None else recordings.of_job(tx, scope, job_id)

    def key(self, scope: Project, kind: str) -> tuple[str, str | None] | None:
        """Return an organisation's key and where it is for, or None.

        Raises:
            SecretLost: the key cannot be opened.
        """
        with self._db.read() as tx:
            found = integrations.get(tx, scope, kind)
        return None if found is None else (self._secrets.open(found.secret), found.base_url)

    def _refuse_missing(self, kind: TrackerKind, param: str) -> None:
        command = self._trackers.missing(kind)
        if command is not None:
            raise InvalidRequest(
                f"'{param}' is for Weights & Biases, and its package is not installed beside this server: an admin installs "
                f"it with `{command}`.",
                param=param,
            )


def _vetted(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise InvalidRequest(
            f"'base_url' is the http or https address of a server of Weights & Biases, not '{url}'.",
            param="base_url",
        )
    return url.rstrip("/")
