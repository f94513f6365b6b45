"""Requests that may come more than once and are executed once: their answers are kept, and given again.

A request is told again by its `Idempotency-Key`; a create without one, when its client says that it sends it again, by what
it says. What a create makes and its answer are one commit, so there is nothing to repair after a crash.
"""

from collections.abc import Callable
from typing import Final, TypeAlias, TypeVar

from tunesmith.core.clock import Clock
from tunesmith.core.errors import InvalidRequest
from tunesmith.core.failpoint import failpoint
from tunesmith.core.ids import Ids
from tunesmith.domain.idempotency import Asked, KeptAnswer, Record
from tunesmith.domain.scope import Everywhere, Project
from tunesmith.store import idempotency
from tunesmith.store.session import Database, Transaction

KEPT_S: Final = 24 * 3600.0
#: How long after a lost answer its client sends the request again: the SDKs' timeout and their longest pause.
RETRY_S: Final = 600.0 + 8.0
N_SWEPT: Final = 1000
_EVERYWHERE: Final = Everywhere("retention is the server's own work")

Made = TypeVar("Made")
#: What else is written in the commit that makes something.
Also: TypeAlias = Callable[[Transaction, Made], None]


class KeyReused(InvalidRequest):
    """The key stands for another request (400)."""

    param = "Idempotency-Key"
    code = "idempotency_key_reused"

    def __init__(self, key: str) -> None:
        super().__init__(
            f"The Idempotency-Key '{key}' was used within the last {KEPT_S / 3600:.0f} hours for another request (another "
            "path, query or body). Send that request again as it was, or give this one a key of its own."
        )


class Idempotency:
    """The kept answers of every project."""

    def __init__(self, *, db: Database, clock: Clock, ids: Ids) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids

    def find(self, scope: Project, asked: Asked) -> KeptAnswer | None:
        """Return the answer that a request got when it came before; None when it is to be executed.

        Raises:
            KeyReused: its key stands for another request.
        """
        if asked.key is not None:
            with self._db.read() as tx:
                record = idempotency.get(tx, scope, asked.key)
            if record is not None and record.fingerprint != asked.fingerprint:
                raise KeyReused(asked.key)
        elif asked.n_retries > 0:
            since = self._clock.now() - min(asked.n_retries * RETRY_S, KEPT_S)
            with self._db.begin() as tx:
                record = idempotency.claim(tx, scope, asked.fingerprint, n_retries=asked.n_retries, since=since)
                failpoint("idempotency.claim")
        else:
            record = None
        return None if record is None else KeptAnswer(record.status, record.headers, record.body)

    def keep(self, scope: Project, asked: Asked, answer: KeptAnswer) -> None:
        """Keep the answer of a request that made nothing."""
        with self._db.begin() as tx:
            idempotency.add(tx, scope, self._record(scope, asked, answer))
            failpoint("idempotency.keep")

    def also(self, scope: Project, answered: Callable[[Made], tuple[Asked, KeptAnswer]]) -> Also[Made]:
        """Return what keeps the answer of a request in the commit of what it makes."""

        def keep(tx: Transaction, made: Made) -> None:
            idempotency.add(tx, scope, self._record(scope, *answered(made)))

        return keep

    def sweep(self) -> int:
        """Remove expired answers, every project's; return how many that were."""
        with self._db.begin() as tx:
            swept = idempotency.sweep(tx, _EVERYWHERE, limit=N_SWEPT)
            failpoint("idempotency.sweep")
        return len(swept)

    def _record(self, scope: Project, asked: Asked, answer: KeptAnswer) -> Record:
        now = self._clock.now()
        return Record(
            id=self._ids.scratch(),
            project_id=scope.project_id,
            created_at=now,
            expires_at=now + KEPT_S,
            key=asked.key,
            fingerprint=asked.fingerprint,
            n_retries=asked.n_retries,
            status=answer.status,
            headers=answer.headers,
            body=answer.body,
        )
