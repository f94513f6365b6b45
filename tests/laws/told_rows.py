"""What jobs are told to, for the tests of scopes: rows, how to ask for them, and how the job has to stand for it."""

from dataclasses import replace
from typing import Any

from tunesmith.domain.integration import Integration
from tunesmith.domain.recording import Recording
from tunesmith.domain.scope import Project
from tunesmith.domain.states import Status
from tunesmith.store import integrations, recordings
from tunesmith.store.session import Transaction

PROJECT, ORGANISATION, JOB = "proj_b", "org-b", "ftjob-theirs"


def _integration(kind: str) -> Integration:
    return Integration(ORGANISATION, kind, "sealed:theirs", None, 1.0, 1.0)


def _recording(place: int) -> Recording:
    return Recording(JOB, place, PROJECT, ORGANISATION, "wandb", {"project": "p"})


ASKED: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "events.steps": ((JOB,), {"after": 0, "limit": 9}),
    "integrations.put": ((_integration("other"),), {}),
    "integrations.get": (("wandb",), {}),
    "integrations.registered": ((), {}),
    "integrations.remove": (("wandb",), {}),
    "recordings.add": ((_recording(1),), {}),
    "recordings.of_job": ((JOB,), {}),
    "recordings.due": ((), {"limit": 9}),
    "recordings.change": ((JOB, 0), {"error": "stolen"}),
}
JOB_AS: dict[str, dict[str, Any]] = {
    "figures.queued_since": {"status": Status.QUEUED, "queued_at": 1.0, "released_at": 1.0},
    "jobs.drained": {"status": Status.PAUSED, "drained": True},
    "jobs.untold": {"status": Status.QUEUED, "released_at": 1.0},
    "jobs.waiting": {"released_at": 1.0},
    "recordings.due": {"status": Status.FAILED},
}


def lay_out(tx: Transaction, scope: Project) -> None:
    """Let a project have one of each."""
    integrations.put(tx, scope, _integration("wandb"))
    recordings.add(tx, scope, _recording(0))
    recordings.add(tx, scope, replace(_recording(2), status="finished"))
