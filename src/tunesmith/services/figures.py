"""Figures: what is so at this moment, gathered when a monitor asks; what happens is told to `domain.sight` where it does."""

from collections import Counter as Tally
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from shutil import disk_usage
from typing import Final

from anyio import to_thread

from tunesmith.core.clock import Clock
from tunesmith.domain.ports import Inference, Sampler
from tunesmith.domain.scope import Everywhere
from tunesmith.domain.sight import Family, Sight
from tunesmith.services.bases import Bases
from tunesmith.store import figures
from tunesmith.store.session import Database

#: Projects that have series of their own, those of the most jobs; the others' jobs are told together.
N_PROJECTS: Final = 100
OTHERS: Final = "other"
_SCOPE: Final = Everywhere("a monitor of the server sees numbers of all projects")


@dataclass(frozen=True, slots=True)
class Figures:
    """All figures of a server, as its monitors read them."""

    db: Database
    folder: Path
    bases: Bases
    inference: Inference
    sight: Sight
    clock: Clock

    async def exposition(self) -> tuple[bytes, str]:
        """Return the text for a monitor, and its media type."""
        samplers = await self.inference.samplers()
        return await to_thread.run_sync(self._told, samplers)

    def _told(self, samplers: list[Sampler]) -> tuple[bytes, str]:
        return self.sight.exposition([*self._of_rows(), *self._of_samplers(samplers), *self._of_disk()])

    def _of_rows(self) -> Iterable[Family]:
        with self.db.read() as tx:
            jobs = figures.of_jobs(tx, _SCOPE)
            since = figures.queued_since(tx, _SCOPE)
            deliveries = figures.of_deliveries(tx, _SCOPE)
        largest = Tally[str]()
        for _, project, n, _ in jobs:
            largest[project] += n
        named = {project for project, _ in largest.most_common(N_PROJECTS)}
        counted, tokens = Tally[tuple[str, str]](), Tally[str]()
        for status, project, n, n_tokens in jobs:
            shown = project if project in named else OTHERS
            counted[status, shown] += n
            tokens[shown] += n_tokens
        yield Family("tunesmith_jobs", "Jobs by state and project.", ("status", "project"), values=_sorted(counted))
        yield Family(
            "tunesmith_trained_tokens_total",
            "Tokens that succeeded jobs were trained on, from the database.",
            ("project",),
            "counter",
            [((project,), n) for project, n in sorted(tokens.items())],
        )
        waited_s = 0.0 if since is None else max(0.0, self.clock.now() - since)
        yield Family(
            "tunesmith_job_oldest_queued_seconds", "For how long the first of the queue waits.", values=[((), waited_s)]
        )
        yield Family(
            "tunesmith_webhook_deliveries",
            "Deliveries of webhooks that the database still has.",
            ("status",),
            values=[((status,), n) for status, n in sorted(deliveries)],
        )

    def _of_samplers(self, samplers: list[Sampler]) -> Iterable[Family]:
        names = {base.path: base.name for base in reversed(self.bases.list())}
        told = [((names.get(sampler.base_path, OTHERS),), sampler) for sampler in samplers]
        base = ("base",)
        yield Family("tunesmith_sampler_rows", "Answers under way.", base, values=[(of, one.rows) for of, one in told])
        yield Family(
            "tunesmith_sampler_waiting", "Requests that wait.", base, values=[(of, one.waiting) for of, one in told]
        )
        memory = [(of, one.memory_bytes) for of, one in told]
        yield Family("tunesmith_sampler_memory_bytes", "Memory of each resident base's process.", base, values=memory)

    def _of_disk(self) -> Iterable[Family]:
        disk = disk_usage(self.folder)
        yield Family("tunesmith_disk_bytes", "The disk that holds the data folder.", values=[((), disk.total)])
        yield Family("tunesmith_disk_free_bytes", "What of that disk is free.", values=[((), disk.free)])
        yield Family("tunesmith_database_bytes", "The database.", values=[((), self.db.n_bytes())])


def _sorted(counted: Tally[tuple[str, str]]) -> list[tuple[tuple[str, ...], float]]:
    return [(labels, n) for labels, n in sorted(counted.items())]
