"""Embeddings: vectors of texts or tokens, by embedding models of this server and by models upstream that make them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from anyio import to_thread

from tunesmith.core.clock import Clock
from tunesmith.core.errors import BadGateway, InvalidRequest, ModelNotFound, Unavailable
from tunesmith.data.encoder import read_encoder
from tunesmith.data.folder import BrokenFolder, fingerprint, pins
from tunesmith.domain.embedding import Embedded, Embedders
from tunesmith.domain.model import Base, vetted_names
from tunesmith.domain.ports import UpstreamFailed, Upstreams
from tunesmith.services.bases import Bases
from tunesmith.services.upstreams import KeyMissing, endpoint, failed

Inputs = Sequence[str] | Sequence[list[int]]


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Makes vectors, and registers the embedding models of this server."""

    bases: Bases
    servers: Upstreams
    embedders: Embedders
    clock: Clock

    async def embed(self, name: str, inputs: Inputs, *, dimensions: int | None = None, project: str = "") -> Embedded:
        """Return the vectors of inputs by the model of a name.

        Raises:
            ModelNotFound: there is no such model.
            InvalidRequest: it makes no embeddings, not of that width, or not of these inputs.
        """
        base = await to_thread.run_sync(self._find, name)
        try:
            return await self.ask(base, inputs, dimensions=dimensions, project=project)
        except KeyMissing as missing:
            raise Unavailable(f"{base.name} cannot be asked. {missing}") from missing
        except UpstreamFailed as failure:
            raise failed(base, failure) from failure

    async def ask(self, base: Base, inputs: Inputs, *, dimensions: int | None = None, project: str = "") -> Embedded:
        """Return the vectors of inputs by a model that makes embeddings.

        Raises:
            KeyMissing, UpstreamFailed: it is another server's, and cannot be asked.
            ApiError: it is of this server, and cannot be asked.
        """
        if base.upstream is not None:
            return await self._ask_there(base, base.upstream.model, inputs, dimensions)
        await to_thread.run_sync(self.bases.intact, base)
        if dimensions is not None:
            n_dimensions = (await to_thread.run_sync(_encoder, base.path)).n_dimensions
            if dimensions != n_dimensions:
                raise InvalidRequest(
                    f"'dimensions' {dimensions}: the vectors of {base.name} have {n_dimensions}, and are not made shorter. "
                    f"Leave it out, or say {n_dimensions}.",
                    param="dimensions",
                )
        return await self.embedders.embed(base.path, inputs, project=project)

    async def add(self, name: str, source: str | None, aliases: Sequence[str] = ()) -> Base:
        """Register a folder as an embedding model of this server, once it has made a vector.

        Raises:
            InvalidRequest: a name or the folder cannot be taken.
        """
        names = vetted_names(name, aliases)
        known = await to_thread.run_sync(self.bases.known, name)
        if known is not None:
            if known.kind != "embedding":
                raise InvalidRequest(f"The name {name} is taken by {known.name}, from {known.source} - 'name'", param="name")
            return await to_thread.run_sync(self.bases.add, name, source, aliases)
        try:
            base = await to_thread.run_sync(self._looked_at, names, source or "")
            await self.embedders.embed(base.path, ["yes"])
        except (BrokenFolder, Unavailable) as error:
            reason = error.message if isinstance(error, Unavailable) else str(error)
            raise InvalidRequest(f"{name} cannot be added: {reason.rstrip('.')} - 'source'", param="source") from error
        return await to_thread.run_sync(self.bases.register, base)

    def _looked_at(self, names: Sequence[str], source: str) -> Base:
        self.bases.refuse_taken(names)
        path = Path(source).expanduser().resolve()
        if not source or not path.is_dir():
            raise BrokenFolder(f"it comes from a folder on the server's machine, and {source!r} is none")
        told = read_encoder(path)
        return Base(
            name=names[0],
            kind="embedding",
            source=str(path),
            path=str(path),
            created_at=self.clock.now(),
            architecture=told.architecture,
            context_length=told.n_max_tokens,
            n_parameters=told.n_parameters,
            weights_bytes=told.weights_bytes,
            pins=pins(path),
            aliases=list(names[1:]),
            fingerprint=fingerprint(path),
        )

    async def _ask_there(self, base: Base, model: str, inputs: Inputs, dimensions: int | None) -> Embedded:
        assert base.upstream is not None
        at = endpoint(base.url, base.upstream.key_env)
        wish = {} if dimensions is None else {"dimensions": dimensions}
        async with self.servers.turn(at):
            answer = await self.servers.call(at, "embeddings", {"model": model, "input": list(inputs), **wish})
        try:
            rows = sorted(answer["data"], key=lambda row: row["index"])
            vectors = [[float(number) for number in row["embedding"]] for row in rows]
        except (KeyError, TypeError, ValueError) as error:
            raise BadGateway(f"The server of {base.name} answers what are no embeddings.") from error
        if len(vectors) != len(inputs):
            raise BadGateway(f"The server of {base.name} answers {len(vectors)} embeddings of {len(inputs)} inputs.")
        told = answer.get("usage")
        n_tokens = cast("dict[str, Any]", told).get("prompt_tokens") if isinstance(told, dict) else 0
        return Embedded(vectors, n_tokens if isinstance(n_tokens, int) else 0)

    def _find(self, name: str) -> Base:
        base = self.bases.find(name)
        if base is None:
            raise ModelNotFound(name)
        if not base.embeds:
            able = [known.name for known in self.bases.list() if known.embeds]
            raise InvalidRequest(
                f"{name} makes no embeddings. Models here that do: {', '.join(able) or 'none'}; `tunesmith models add NAME "
                "FOLDER --kind embedding` adds one, and so does `tunesmith models add NAME --upstream URL`.",
                param="model",
            )
        return base


def _encoder(path: str) -> Any:
    return read_encoder(Path(path))
