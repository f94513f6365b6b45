"""What a project shares and may have, what is noted of it and what it lets go: rows for the tests of scopes."""

from typing import Any

from tunesmith.domain.audit import Entry
from tunesmith.domain.limits import ProjectLimits
from tunesmith.domain.permission import Permission
from tunesmith.domain.retention import Policy, Rule
from tunesmith.domain.scope import Project
from tunesmith.domain.states import Status
from tunesmith.store import audit, limits, permissions, retention
from tunesmith.store.session import Transaction

PROJECT, JOB, MODEL = "proj_b", "ftjob-theirs", "ft:nano:t::theirs"

ASKED: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "permissions.add": ((Permission("cp_other", PROJECT, MODEL, 1.0),), {}),
    "permissions.of": ((MODEL,), {}),
    "permissions.page": ((MODEL,), {}),
    "permissions.delete_one": ((MODEL, "cp_theirs"), {}),
    "audit.add": (([Entry("audit_other", PROJECT, 1.0, "admin", "POST /v1/files")],), {}),
    "audit.tell": (("job.failed", PROJECT, [JOB]), {}),
    "audit.page": ((), {}),
    "limits.every": ((), {}),
    "limits.keep": ((ProjectLimits(PROJECT, {"files": 1}),), {}),
    "limits.n_waiting": ((), {}),
    "limits.n_files": ((), {}),
    "limits.n_bytes": ((), {}),
    "retention.put": ((Policy(PROJECT, files=Rule(None, 1)),), {}),
    "retention.every": ((), {}),
    "retention.old_files": ((), {"results": False, "before": 9.0, "limit": 9}),
    "retention.listed": ((), {}),
    "retention.sampled": ((), {"before": 9.0}),
    "retention.recorded": ((), {"before": 9.0}),
    "retention.named": ((), {}),
}
_ENDED: dict[str, Any] = {"status": Status.FAILED, "released_at": 1.0, "finished_at": 1.0, "method": "reinforcement"}
#: How the job has to be for a question to find what belongs to it.
JOB_AS: dict[str, dict[str, Any]] = dict.fromkeys(
    (f"retention.{name}" for name in ("old_files", "listed", "sampled", "recorded")), _ENDED
)


def lay_out(tx: Transaction, scope: Project) -> None:
    """Let a project have one of each."""
    permissions.add(tx, scope, Permission("cp_theirs", PROJECT, MODEL, 1.0))
    audit.add(tx, scope, [Entry("audit_theirs", PROJECT, 1.0, "admin", "POST /v1/files")])
    retention.put(tx, scope, Policy(PROJECT))
    limits.keep(tx, scope, ProjectLimits(PROJECT))
