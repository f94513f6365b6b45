"""The samplers as a project sees them: which bases are in memory, how busy they are, and its own adapters beside them."""

from dataclasses import replace

from anyio import to_thread

from tunesmith.domain.ports import Inference, Sampler
from tunesmith.domain.scope import Project
from tunesmith.services.bases import Bases
from tunesmith.store import models
from tunesmith.store.session import Database


class Samplers:
    """What the server keeps in memory to answer from."""

    def __init__(self, *, db: Database, bases: Bases, inference: Inference) -> None:
        self._db = db
        self._bases = bases
        self._inference = inference

    async def seen_by(self, scope: Project) -> list[tuple[str, Sampler]]:
        """Return the samplers with their bases' names; of the adapters those that the project has."""
        samplers = await self._inference.samplers()
        return await to_thread.run_sync(self._named, scope, samplers)

    def _named(self, scope: Project, samplers: list[Sampler]) -> list[tuple[str, Sampler]]:
        names = {base.path: base.name for base in reversed(self._bases.list())}
        with self._db.read() as tx:
            own = {model.name for model in models.tuned(tx, scope)}
        return [
            (
                names.get(sampler.base_path, sampler.base_path),
                replace(sampler, adapters=tuple(name for name in sampler.adapters if name in own)),
            )
            for sampler in samplers
        ]
