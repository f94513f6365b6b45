"""Letting go: what the policies of projects say, and bytes that no row names.

Rows go first and in one commit, bytes after it: whatever is interrupted between leaves bytes that nothing names, which the
next collection finds, and never a name without its bytes. Files keep their row, hidden, until their bytes are gone.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Final

import structlog

from tunesmith.core.clock import Clock
from tunesmith.core.failpoint import failpoint
from tunesmith.domain.model import Base, TunedModel
from tunesmith.domain.recording import TrackerKind
from tunesmith.domain.retention import DAY_S, Found, Going, Policy, Rule, WalkedBlobs, checkpoints_to_go
from tunesmith.domain.scope import Everywhere, Project
from tunesmith.services.files import Files
from tunesmith.store import audit, checkpoints, files, models, retention
from tunesmith.store.retention import Named
from tunesmith.store.session import Database

#: How often policies are applied without being asked.
EVERY_S: Final = 3600.0
#: Bytes that no row names are left alone for so long: their row may be on its way.
ORPHAN_S: Final = DAY_S
#: How much one commit lets go: a cancel may have to wait for it.
N_AT_ONCE: Final = 25
#: Of the audit log, for what goes by a policy.
ACTION: Final = "retention.deleted"
_EVERYWHERE: Final = Everywhere("retention is the server's own work")
_ALL: Final = 1_000_000_000
#: `jobs/ID/attempts/N/checkpoints/STEP`.
_N_CHECKPOINT_PARTS: Final = 6
#: What the name of a job's folder begins with.
_JOB: Final = "ftjob-"

log = structlog.get_logger()


class Gc:
    """What every project lets go."""

    def __init__(
        self,
        *,
        db: Database,
        blobs: WalkedBlobs,
        files: Files,
        clock: Clock,
        runs: Mapping[TrackerKind, tuple[WalkedBlobs, str]] | None = None,
        on_gone: Callable[[Sequence[tuple[TunedModel, Base | None]]], None] = lambda _: None,
    ) -> None:
        self._db = db
        self._blobs = blobs
        self._files = files
        self._clock = clock
        #: Where trackers keep runs in folders of their own, and under which prefix.
        self._runs = runs or {}
        #: Called with models whose names and bytes have gone.
        self._on_gone = on_gone
        self._next_at = 0.0

    def policy(self, scope: Project) -> Policy:
        """Return a project's policy, by which nothing goes where it has none."""
        with self._db.read() as tx:
            found = retention.every(tx, scope)
        return found[0] if found else Policy(scope.project_id)

    def put(self, scope: Project, policy: Policy) -> Policy:
        """Give a project a policy in place of the one that it has."""
        with self._db.begin() as tx:
            retention.put(tx, scope, policy)
            failpoint("gc.policy")
        log.info("retention.policy", project=scope.project_id, rules=policy.rules())
        return policy

    def look(self) -> list[Going]:
        """Return what `collect` would let go now, with its bytes."""
        going = [each for policy in self._policies() for each in self._by(policy)]
        return [self._measured(each) for each in going] + self._orphans()

    def collect(self) -> list[Going]:
        """Let go what policies say and no row names, and return it with its bytes."""
        return self._collect() + self._without_rows(self._orphans())

    def sweep(self) -> int:
        """Let go what policies say, once an hour; bytes that no row names wait until somebody asks."""
        now = self._clock.monotonic()
        if now >= self._next_at:
            self._next_at = now + EVERY_S
            self._collect()
        return 0

    def _policies(self) -> list[Policy]:
        with self._db.read() as tx:
            return retention.every(tx, _EVERYWHERE)

    def _collect(self) -> list[Going]:
        gone: list[Going] = []
        for policy in self._policies():
            scope = Project(policy.project_id)
            going = [self._measured(each) for each in self._by(policy)]
            for first in range(0, len(going), N_AT_ONCE):
                gone += self._let_go(scope, going[first : first + N_AT_ONCE])
        while self._files.sweep():
            pass
        if gone:
            log.info("retention.collected", n=len(gone), bytes=sum(each.bytes for each in gone))
        return gone

    def _by(self, policy: Policy) -> Iterator[Going]:
        """Yield what goes by a policy."""
        scope, now = Project(policy.project_id), self._clock.now()
        with self._db.read() as tx:
            old = [
                (kind, file)
                for kind, rule in (("file", policy.files), ("result_file", policy.results))
                if rule.says
                for file in retention.old_files(
                    tx, scope, results=kind == "result_file", before=_before(rule, now), limit=_ALL
                )
            ]
            listed = retention.listed(tx, scope) if policy.checkpoints.says else []
            sampled = retention.sampled(tx, scope, before=_before(policy.rollouts, now)) if policy.rollouts.says else []
            recorded = retention.recorded(tx, scope, before=_before(policy.runs, now)) if policy.runs.says else []
        for kind, file in old:
            yield Going(kind, policy.project_id, file.id, file.key)
        for _, of_job in groupby(listed, key=lambda each: each.checkpoint.job_id):
            group = list(of_job)
            pinned = {each.checkpoint.id for each in group if each.pinned}
            for checkpoint in checkpoints_to_go(
                policy.checkpoints, group[0].method, [each.checkpoint for each in group], group[0].final, now
            ):
                if checkpoint.id not in pinned:
                    yield Going("checkpoint", policy.project_id, checkpoint.id, checkpoint.key, name=checkpoint.model_name)
        for job_id, n_attempts in sampled:
            for key in self._steps(policy.rollouts, job_id, n_attempts):
                yield Going("rollouts", policy.project_id, job_id, key)
        for job_id, place, kind in recorded:
            for tracker, (store, prefix) in self._runs.items():
                key = f"{prefix}/{job_id}" + (f".{place}" if place and tracker == "wandb" else "")
                if tracker == kind and store.path(key).is_dir():
                    yield Going("run", policy.project_id, job_id, key, tracker=tracker)

    def _steps(self, rule: Rule, job_id: str, n_attempts: int) -> list[str]:
        """Return the keys of a job's rollouts that go: all but those of its newest steps."""
        of_step: defaultdict[str, list[str]] = defaultdict(list)
        for attempt in range(1, n_attempts + 1):
            for key in self._blobs.keys(f"jobs/{job_id}/attempts/{attempt}/rollouts"):
                of_step[key.rpartition("/")[2]].append(key)
        n_kept = rule.n_newest() or 0
        steps = sorted(of_step)
        return [key for step in (steps[:-n_kept] if n_kept else steps) for key in of_step[step]]

    def _let_go(self, scope: Project, going: list[Going]) -> list[Going]:
        """Take rows away in one commit, what is still free of them, and their bytes after it."""
        gone: list[Going] = []
        let_go: list[tuple[TunedModel, Base | None]] = []
        with self._db.begin() as tx:
            wanted = {each.id: each.name for each in going if each.name is not None}
            # whoever creates a job from one now goes first, or fails
            locked = {
                name: model for name in wanted.values() if (model := models.get(tx, scope, name, lock=True)) is not None
            }
            listed = retention.listed(tx, scope, wanted) if wanted else []
            free = {each.checkpoint.id for each in listed if not each.pinned}
            for each in going:
                if each.name is not None:
                    if each.id not in free:
                        continue
                    checkpoints.drop(tx, scope, each.id)
                    models.delete(tx, scope, each.name)
                    if (model := locked.get(each.name)) is not None:
                        let_go.append((model, models.get_base(tx, scope, model.base)))
                elif each.kind not in ("rollouts", "run") and files.delete_one(tx, scope, each.id) is None:
                    continue
                gone.append(each)
            objects = [each.name or each.id for each in gone]
            if gone:
                audit.tell(tx, scope, ACTION, scope.project_id, list(dict.fromkeys(objects)))
            failpoint("gc.commit")
        self._without_rows([each for each in gone if each.kind in ("checkpoint", "rollouts", "run")])
        self._on_gone(let_go)
        return gone

    def _without_rows(self, going: list[Going]) -> list[Going]:
        for each in going:
            failpoint("gc.delete")
            self._store(each).delete(each.key)
        return going

    def _store(self, going: Going) -> WalkedBlobs:
        return self._blobs if going.tracker is None else self._runs[going.tracker][0]

    def _measured(self, going: Going) -> Going:
        store = self._store(going)
        path = store.path(going.key)
        n_bytes = path.stat().st_size if path.is_file() else sum(found.bytes for found in store.found(going.key))
        return replace(going, bytes=n_bytes)

    def _orphans(self) -> list[Going]:
        """Return what lies in the store, is older than a day, and is named by no row."""
        # the store before the rows: what is put and named meanwhile is not seen, or seen with its name
        there = [found for prefix in ("files", "uploads", "jobs") for found in self._blobs.found(prefix)]
        with self._db.read() as tx:
            known = retention.named(tx, _EVERYWHERE)
        groups: defaultdict[str, list[Found]] = defaultdict(list)
        for found in there:
            key = _nobodys(found.key, known)
            if key is not None:
                groups[key].append(found)
        runs = self._nobodys_runs(known)
        before = self._clock.now() - ORPHAN_S
        return [
            Going("orphan", None, key, key, sum(found.bytes for found in group), tracker="wandb" if key in runs else None)
            for key, group in sorted({**groups, **runs}.items())
            if max(found.modified_at for found in group) <= before
        ]

    def _nobodys_runs(self, known: Named) -> dict[str, list[Found]]:
        """Return runs of Weights & Biases of jobs that are not here, by folder; folders of other trackers may be shared."""
        groups: defaultdict[str, list[Found]] = defaultdict(list)
        if "wandb" in self._runs:
            store, prefix = self._runs["wandb"]
            for found in store.found(prefix):
                name = found.key.removeprefix(f"{prefix}/").split("/")[0]
                if name.startswith(_JOB) and name.split(".")[0] not in known.jobs:
                    groups[f"{prefix}/{name}"].append(found)
        return dict(groups)


def _before(rule: Rule, now: float) -> float:
    return now - (rule.older_than_days or 0) * DAY_S


def _nobodys(key: str, known: Named) -> str | None:
    """Return what of the store goes with an object that no row names; None where one does."""
    parts = key.split("/")
    match parts[0]:
        case "files":
            return None if key in known.files else key
        case "uploads":
            return None if parts[1] in known.uploads else "/".join(parts[:2])
        case "jobs" if parts[1] not in known.jobs:
            return "/".join(parts[:2])
        case "jobs" if parts[1] in known.at_rest and len(parts) > _N_CHECKPOINT_PARTS and parts[4] == "checkpoints":
            folder = "/".join(parts[:_N_CHECKPOINT_PARTS])
            return None if folder in known.checkpoints else folder
        case "jobs" if parts[1] in known.at_rest and (parts[-1].startswith("results.csv") or ".unfinished" in parts[-1]):
            return None if key in known.files else key
        case _:
            return None
