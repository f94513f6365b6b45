"""The samplers as a project sees them: which bases are in memory, how busy they are, and its own adapters beside them."""

from dataclasses import replace

from anyio import to_thread

from tunesmith.domain.embedding import Embedders
from tunesmith.domain.ports import Inference
from tunesmith.domain.sampler import Sampler
from tunesmith.domain.scope import Project
from tunesmith.domain.serving import OwnServers
from tunesmith.services.bases import Bases
from tunesmith.store import models
from tunesmith.store.session import Database


class Samplers:
    """What the server keeps in memory to answer from."""

    def __init__(self, *, db: Database, bases: Bases, inference: Inference, embedders: Embedders, own: OwnServers) -> None:
        self._db = db
        self._bases = bases
        self._keepers = (inference, embedders, own)

    async def seen_by(self, scope: Project) -> list[tuple[str, Sampler]]:
        """Return the samplers with their bases' names; of the adapters those that the project has."""
        samplers = [sampler for keeper in self._keepers for sampler in await keeper.samplers()]
        return await to_thread.run_sync(self._named, scope, samplers)

    def _named(self, scope: Project, samplers: list[Sampler]) -> list[tuple[str, Sampler]]:
        bases = self._bases.list()
        names = {(base.path, base.served_here): base.name for base in reversed(bases)}
        with self._db.read() as tx:
            own = {model.name for model in models.tuned(tx, scope)}
        return [
            (
                names.get((sampler.base_path, sampler.kind == "vllm"), sampler.base_path),
                replace(sampler, adapters=tuple(name for name in sampler.adapters if name in own)),
            )
            for sampler in samplers
        ]
