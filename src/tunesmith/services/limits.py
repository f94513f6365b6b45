"""What every project may have and ask for: the settings, and in their place what an admin has set for a project.

All of it is in memory beside the database: there is one server, and every change passes through here after its commit. What
was asked for in the last minute is in memory alone, so a restart forgets it.
"""

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from tunesmith.core.clock import Clock
from tunesmith.core.errors import OverQuota, RateLimited, RequestTooLarge, TokensLimited
from tunesmith.core.settings import Settings
from tunesmith.domain.limits import Bucket, ProjectLimits, Quotas, Rate
from tunesmith.domain.queue import Limits as Allowed
from tunesmith.domain.scope import Everywhere, Project
from tunesmith.store import limits as rows
from tunesmith.store.session import Database, Transaction

_EVERYWHERE: Final = Everywhere("limits are the server's own work")
_RATES: Final = ("requests", "tokens")


@dataclass(frozen=True, slots=True)
class Usage:
    """How much a project has of what is limited."""

    queued_jobs: int
    files: int
    file_bytes: int


class Limits:
    """The limits of every project."""

    def __init__(self, *, db: Database, clock: Clock, settings: Settings) -> None:
        self.settings = settings
        self._db = db
        self._clock = clock
        self._quotas = Quotas(
            training_slots=settings.training_slots_per_project,
            queued_jobs=settings.queued_jobs_per_project,
            files=settings.files_per_project,
            file_bytes=settings.file_bytes_per_project,
        )
        self._rate = Rate(requests=settings.requests_per_minute, tokens=settings.tokens_per_minute)
        with db.read() as tx:
            self._own = {each.project_id: each for each in rows.every(tx, _EVERYWHERE)}
        self._buckets: dict[tuple[str, str, str], Bucket] = {}
        self._lock = threading.Lock()

    def own(self, project_id: str) -> ProjectLimits:
        """Return what was set for a project."""
        return self._own.get(project_id) or ProjectLimits(project_id)

    def quotas(self, project_id: str) -> Quotas:
        """Return what a project may have."""
        return replace(self._quotas, **self.own(project_id).own)

    def set_quotas(self, scope: Project, own: Mapping[str, int | None]) -> Quotas:
        """Set what a project may have, by the names of `Quotas`; what is not named is as for every project."""
        self._keep(scope, own=dict(own))
        return self.quotas(scope.project_id)

    def rate(self, project_id: str, base: str) -> Rate:
        """Return what a project may ask of a base in a minute."""
        return replace(self._rate, **self.own(project_id).rates.get(base, {}))

    def set_rate(self, scope: Project, base: str, changes: Mapping[str, int | None]) -> Rate:
        """Change what a project may ask of a base, by the names of `Rate`; what is not named stays."""
        rates = self.own(scope.project_id).rates
        self._keep(scope, rates={**rates, base: {**rates.get(base, {}), **changes}})
        return self.rate(scope.project_id, base)

    def _keep(self, scope: Project, **changes: Any) -> None:
        with self._lock:
            changed = replace(self.own(scope.project_id), **changes)
            with self._db.begin() as tx:
                rows.keep(tx, scope, changed)
            self._own = {**self._own, changed.project_id: changed}

    def of_queue(self) -> Allowed:
        """Return what may be done at the same time, by all and by each project."""
        name = "training_slots"
        return Allowed(
            training_slots=self.settings.training_slots,
            validation_slots=self.settings.validation_slots,
            max_attempts=self.settings.max_attempts,
            training_slots_per_project=self._quotas.training_slots,
            training_slots_of={each.project_id: each.own[name] for each in self._own.values() if name in each.own},
        )

    def usage(self, scope: Project) -> Usage:
        """Return how much a project has."""
        with self._db.read() as tx:
            return Usage(rows.n_waiting(tx, scope), rows.n_files(tx, scope), rows.n_bytes(tx, scope))

    def check_job(self, tx: Transaction, scope: Project) -> None:
        """Refuse a job too many.

        Raises:
            OverQuota: as many as the project may have wait already.
        """
        most = self.quotas(scope.project_id).queued_jobs
        if most is not None and (n := rows.n_waiting(tx, scope)) >= most:
            raise OverQuota(
                f"This fine-tune request has been rate-limited: project {scope.project_id} has {n} jobs that wait for their "
                f"turn, and its limit is {most}. Cancel one, or wait until one has begun to train.",
                code="rate_limit_exceeded",
            )

    def check_file(self, tx: Transaction, scope: Project, n_bytes: int) -> None:
        """Refuse a file too many, or one that is too much.

        Raises:
            OverQuota: the project would have more files, or more bytes in files, than it may.
        """
        quotas = self.quotas(scope.project_id)
        if quotas.files is not None and (n := rows.n_files(tx, scope)) >= quotas.files:
            raise OverQuota(
                f"Project {scope.project_id} has {n} files, and its limit is {quotas.files}. Delete one that is not needed.",
                param="file",
                code="exceeded_quota",
            )
        if quotas.file_bytes is not None and (n := rows.n_bytes(tx, scope)) + n_bytes > quotas.file_bytes:
            raise OverQuota(
                f"The file has {n_bytes} bytes, project {scope.project_id} has {n} in its files, and its limit is "
                f"{quotas.file_bytes} bytes. Delete files that are not needed.",
                param="file",
                code="exceeded_quota",
            )

    @property
    def rated(self) -> bool:
        """Say whether any rate is limited."""
        return self._rate != Rate() or any(each.rates for each in self._own.values())

    def enter(self, scope: Project, base: str, n_tokens: int) -> "Admitted | None":
        """Take a request and its tokens, as far as they can be told yet, from what the project may ask of a base.

        None where nothing is limited.

        Raises:
            RateLimited: it has to wait, so long as the error tells.
            RequestTooLarge: no waiting would help.
        """
        rate, now = self.rate(scope.project_id, base), self._clock.monotonic()
        if rate == Rate():
            return None
        with self._lock:
            buckets = {
                name: self._bucket(scope.project_id, base, name, per_minute, now)
                for name in _RATES
                if (per_minute := getattr(rate, name)) is not None
            }
            admitted = Admitted(buckets, n_tokens, self._clock, self._lock)
            for name, bucket in buckets.items():
                self._check(scope, base, name, bucket, 1 if name == "requests" else n_tokens, admitted)
            for name, bucket in buckets.items():
                bucket.take(1 if name == "requests" else n_tokens, now)
        return admitted

    def _bucket(self, project_id: str, base: str, name: str, per_minute: int, now: float) -> Bucket:
        bucket = self._buckets.setdefault((project_id, base, name), Bucket(per_minute, now))
        if bucket.per_minute != per_minute:
            bucket.resize(per_minute)
        return bucket

    def _check(self, scope: Project, base: str, name: str, bucket: Bucket, n: int, admitted: "Admitted") -> None:
        now = self._clock.monotonic()
        short = {"requests": "requests per min (RPM)", "tokens": "tokens per min (TPM)"}[name]
        where = f"{base} in project {scope.project_id} on {short}"
        limit = bucket.per_minute
        if n > limit:
            way_out = {
                "requests": "Ask fewer models at once, or have an admin raise the limit.",
                "tokens": "The input or output tokens must be reduced in order to run successfully.",
            }[name]
            raise RequestTooLarge(
                f"Request too large for {where}: Limit {limit}, Requested {n}. {way_out}",
                kind=name,
                headers=admitted.told(now),
            )
        wait_s = bucket.wait_s(n, now)
        if wait_s > 0:
            used = limit - bucket.left(now)
            limited = RateLimited if name == "requests" else TokensLimited
            raise limited(
                f"Rate limit reached for {where}: Limit {limit}, Used {used}, Requested {n}. Please try again in "
                f"{duration(wait_s)}.",
                retry_after_s=wait_s,
                headers=admitted.told(now),
            )


@dataclass(slots=True)
class Admitted:
    """A request that was let in: what it has taken, and what its answer tells of the rest."""

    _buckets: Mapping[str, Bucket]
    _n_taken: int
    _clock: Clock
    _lock: threading.Lock

    def settle(self, n_used: int) -> None:
        """Give back the tokens that were not used, or take those used beyond; once."""
        bucket = self._buckets.get("tokens")
        if bucket is not None:
            with self._lock:
                bucket.give(self._n_taken - n_used, self._clock.monotonic())
        self._n_taken = n_used

    def headers(self) -> dict[str, str]:
        """Return OpenAI's headers of a request's rate limits."""
        with self._lock:
            return self.told(self._clock.monotonic())

    def told(self, now: float) -> dict[str, str]:
        """Return the headers, for who holds the lock."""
        found: dict[str, str] = {}
        for name, bucket in self._buckets.items():
            found[f"x-ratelimit-limit-{name}"] = str(bucket.per_minute)
            found[f"x-ratelimit-remaining-{name}"] = str(bucket.left(now))
            found[f"x-ratelimit-reset-{name}"] = duration(bucket.full_s(now))
        return found


def duration(seconds: float) -> str:
    """Return a time as OpenAI's headers have it: `17ms`, `1.5s`, `6m0s`, `1h0m2s`; rounded up to milliseconds."""
    milliseconds = math.ceil(seconds * 1000 - 1e-6)
    if milliseconds < 1000:
        return f"{milliseconds}ms" if milliseconds else "0s"
    hours, rest = divmod(milliseconds, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    text = f"{rest / 1000:.3f}".rstrip("0").rstrip(".")
    return f"{f'{hours}h' if hours else ''}{f'{minutes}m' if hours or minutes else ''}{text}s"


NAMES: Final = tuple(each.name for each in fields(Quotas))
