"""What the rows of a database must say whatever has happened: asked in SQL, of SQLite and of PostgreSQL.

`History` also remembers what it saw, for the laws of what may follow what. Each law is a query for what breaks it.
"""

from typing import Any, Final

from sqlalchemy import text

from tunesmith.store.session import Database

_ENDED: Final = "('succeeded', 'failed', 'cancelled')"
_OCCUPIED: Final = "(j.attempt > 0 AND j.released_at IS NULL)"

LAWS: Final[dict[str, str]] = {
    "events are numbered from 1 without a gap": """
        SELECT j.id, j.next_seq, count(e.seq), max(e.seq) FROM jobs j LEFT JOIN events e ON e.job_id = j.id
        GROUP BY j.id, j.next_seq
        HAVING count(e.seq) <> j.next_seq - 1 OR coalesce(max(e.seq), 0) <> j.next_seq - 1
            OR count(DISTINCT e.idempotency_key) <> count(e.seq)""",
    "a job has an end exactly if it has ended, and it is told last and once": f"""
        SELECT j.id, j.status, count(e.seq) FROM jobs j
        LEFT JOIN events e ON e.job_id = j.id AND e.idempotency_key = 'terminal' GROUP BY j.id, j.status, j.next_seq
        HAVING count(e.seq) <> CASE WHEN j.status IN {_ENDED} THEN 1 ELSE 0 END
            OR (count(e.seq) = 1 AND max(e.seq) <> j.next_seq - 1)""",
    "the outbox holds one line for every end, and it is of that end": f"""
        SELECT j.id, j.status, count(o.id) FROM jobs j LEFT JOIN outbox o ON o.job_id = j.id GROUP BY j.id, j.status
        HAVING count(o.id) <> CASE WHEN j.status IN {_ENDED} THEN 1 ELSE 0 END
            OR max(o.type) <> 'fine_tuning.job.' || j.status""",
    "finished_at is set exactly if the job has ended": f"""
        SELECT j.id, j.status FROM jobs j WHERE (j.finished_at IS NOT NULL) <> (j.status IN {_ENDED})""",
    "a later event is never of an earlier attempt": """
        SELECT * FROM (
            SELECT e.job_id, e.seq, e.attempt, lag(e.attempt) OVER (PARTITION BY e.job_id ORDER BY e.seq) AS earlier
            FROM events e
        ) AS told WHERE told.attempt < told.earlier""",
    "no event is of an attempt that its job has not reached": """
        SELECT j.id, e.attempt, j.attempt FROM events e JOIN jobs j ON j.id = e.job_id WHERE e.attempt > j.attempt""",
    "what runs holds a slot": f"""
        SELECT j.id FROM jobs j WHERE j.status = 'running' AND (NOT {_OCCUPIED} OR j.started_at IS NULL)""",
    "what holds no slot has no place and no token": f"""
        SELECT j.id FROM jobs j WHERE NOT {_OCCUPIED} AND (j.handle IS NOT NULL OR j.token_sha256 IS NOT NULL)""",
    "a job is cancelled exactly if its owner wants that, and paused only if its owner does": """
        SELECT j.id, j.status, j.desired FROM jobs j
        WHERE (j.status = 'cancelled') <> (j.desired = 'cancel') OR (j.status = 'paused' AND j.desired <> 'pause')
            OR (j.status = 'queued' AND j.desired <> 'run')""",
    "a job has a model exactly if it succeeded": """
        SELECT j.id, j.status, count(m.name) FROM jobs j LEFT JOIN tuned_models m ON m.job_id = j.id AND m.step IS NULL
        GROUP BY j.id, j.status, j.fine_tuned_model
        HAVING count(m.name) <> CASE WHEN j.status = 'succeeded' THEN 1 ELSE 0 END
            OR (j.fine_tuned_model IS NULL) <> (j.status <> 'succeeded') OR max(m.name) <> j.fine_tuned_model""",
    "a listed checkpoint answers by its name, and no other does": """
        SELECT c.id, c.model_name FROM checkpoints c LEFT JOIN tuned_models m ON m.name = c.model_name
        WHERE c.kept AND m.name IS NULL
        UNION ALL SELECT m.job_id, m.name FROM tuned_models m LEFT JOIN checkpoints c ON c.model_name = m.name AND c.kept
        WHERE c.id IS NULL""",
    "a step has one listed checkpoint": """
        SELECT c.job_id, c.step FROM checkpoints c WHERE c.kept GROUP BY c.job_id, c.step HAVING count(*) > 1""",
    "a job that succeeded has every step's metrics": """
        SELECT j.id, count(m.step), max(m.step) FROM jobs j JOIN metrics m ON m.job_id = j.id AND m.step > 0
        WHERE j.status = 'succeeded'
        GROUP BY j.id HAVING count(m.step) <> max(m.step)""",
}

_ROW: Final = "SELECT id, status, attempt, version, next_seq, lost_attempts, started_at, finished_at FROM jobs"
_NEVER_LESS: Final = ("attempt", "version", "next_seq", "lost_attempts")
_ONCE: Final = ("started_at", "finished_at")


class History:
    """What a database was seen to say; `check` fails on a law that is broken now, or between the last look and this."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._seen: dict[str, dict[str, Any]] = {}

    def check(self, *, training_slots: int | None = None) -> None:
        """Look, and hold what is seen against the laws."""
        with self._db.read() as tx:
            broken = {law: tx.every(text(query)) for law, query in LAWS.items()}
            rows = {row["id"]: row for row in tx.every(text(_ROW))}
            held = tx.every(text(f"SELECT j.id FROM jobs j WHERE {_OCCUPIED} AND j.started_at IS NOT NULL"))
        broken = {law: found for law, found in broken.items() if found}
        assert broken == {}
        assert training_slots is None or len(held) <= training_slots, held
        for job, before in self._seen.items():
            _follows(before, rows[job])
        self._seen = rows


def _follows(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert all(after[name] >= before[name] for name in _NEVER_LESS), (before, after)
    assert all(before[name] in (None, after[name]) for name in _ONCE), (before, after)
    ended = before["finished_at"] is not None
    assert not ended or (after["status"], after["next_seq"]) == (before["status"], before["next_seq"]), (before, after)
