"""Models upstream: registering them among the bases with what they can do, and where they are asked, with which key."""

import math
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import urlsplit

import structlog
from anyio import to_thread

from tunesmith.core.clock import Clock
from tunesmith.core.errors import ApiError, BadGateway, InvalidRequest, ModelNotFound, RateLimited, Unavailable
from tunesmith.data.folder import chat_template
from tunesmith.domain.model import Base, Upstream, vetted_names
from tunesmith.domain.ports import Endpoint, UpstreamFailed, Upstreams
from tunesmith.domain.serving import OWN_MODEL, OwnServers
from tunesmith.services.abilities import Probe, served_models
from tunesmith.services.bases import SERVER, Bases
from tunesmith.services.inspection import folder_of
from tunesmith.store import models
from tunesmith.store.session import Database

log = structlog.get_logger()

#: What a variable must be called to be sent to another server, whoever asks for it.
KEY_ENV: Final = re.compile(r"(?!TUNESMITH_|HF_TOKEN$)[A-Za-z_][A-Za-z0-9_]*(KEY|TOKEN)", re.IGNORECASE)
N_MAX_URL: Final = 2000
_N_SHOWN: Final = 20


class KeyMissing(Exception):
    """The key of a model upstream is not in the server's environment, or is none; the message says where it must be."""


def endpoint(url: str, key_env: str | None) -> Endpoint:
    """Return where a model upstream is asked.

    Raises:
        KeyMissing: the variable that holds its key is not set.
    """
    if key_env is None:
        return Endpoint(url)
    key = os.environ.get(key_env, "").strip()
    if not key or not (key.isascii() and key.isprintable()):
        held = "holds no key" if key else "is not set"
        raise KeyMissing(
            f"The key for {url} is read from the variable {key_env} of the server's environment, and that {held}: start "
            "the server with it."
        )
    return Endpoint(url, key)


def can(base: Base, ability: str) -> bool:
    """Say whether a model upstream was found to be able to do something, one of `ABILITIES`."""
    return base.upstream is not None and ability in base.upstream.abilities


def unable(base: Base, ability: str, words: str, *, name: str | None = None) -> str | None:
    """Return what to say of an ability that a model was found to lack; None where it has it."""
    return None if can(base, ability) else f"{name or base.name} ({what(base)}) was found not to know {words}. {again(base)}"


def what(base: Base) -> str:
    """Return what a model is, and where."""
    return base.source if base.upstream is None else f"{base.upstream.model} of {base.url}"


def again(base: Base) -> str:
    """Return a sentence on how to have a model looked at again."""
    return f"If that has changed: `{_command(base)}` looks at it again."


def _command(base: Base) -> str:
    served = f" {base.source} --kind vllm" if base.tunable else ""
    return f"tunesmith models add {base.name}{served}" + ("" if base.served_here else f" --upstream {base.url}")


def failed(base: Base, failure: UpstreamFailed) -> ApiError:
    """Return what a failure of a model's server is for our client: the client's own fault where it is that."""
    match failure.status:
        case 429:
            pause_s = None if failure.pause_s is None else max(1, math.ceil(failure.pause_s))
            return RateLimited(f"The server of {base.name} is busy: {failure.reason}", retry_after_s=pause_s)
        case 401 | 403:  # whose words may tell more of the key than a client may know
            return BadGateway(
                f"The server of {base.name} refuses the key that it is asked with ({failure.status}): the key, or what it "
                "may be used for, has to be put right by whoever runs this server."
            )
        case 404 | 405:
            return BadGateway(
                f"The server of {base.name} does not know the model any more, or does not do this: {failure}. "
                f"`{_command(base)}` looks at it again."
            )
        case status if 400 <= status < 500 and not failure.passing:
            return InvalidRequest(failure.reason or str(failure), param=failure.param, code=failure.code)
        case _:
            return Unavailable(f"{base.name} gives no answer: {failure}")


class UpstreamModels:
    """Registers models of servers upstream."""

    def __init__(self, *, db: Database, bases: Bases, servers: Upstreams, own: OwnServers, clock: Clock) -> None:
        self._db = db
        self._bases = bases
        self._servers = servers
        self._own = own
        self._clock = clock

    async def add(
        self,
        name: str,
        url: str,
        *,
        model: str | None = None,
        key_env: str | None = None,
        aliases: Sequence[str] = (),
        folder: str | None = None,
        adapters_dir: str | None = None,
    ) -> Base:
        """Register a model upstream once its server has shown what it can do; one that is registered is looked at again.

        With a folder it is tuned here from that, and served there by vLLM, which sees our blobs under `adapters_dir`.

        Raises:
            InvalidRequest: a name, the URL, the variable or the model cannot be taken, or the server does not answer.
        """
        names = vetted_names(name, aliases)
        url = _vetted_url(url)
        if key_env is not None and not KEY_ENV.fullmatch(key_env):
            raise InvalidRequest(
                f"'{key_env}' cannot name the key's variable: its name ends in KEY or TOKEN, and is none of Tunesmith's "
                "own, so that nothing else of the server's environment is ever sent elsewhere - 'upstream.key_env'",
                param="upstream.key_env",
            )
        if adapters_dir is not None and not PurePosixPath(adapters_dir).is_absolute():
            raise InvalidRequest(
                f"'{adapters_dir}' is no whole path, such as /blobs - 'upstream.adapters_dir'", param="upstream.adapters_dir"
            )
        source = url if folder is None else str(_folder(folder))
        known = await to_thread.run_sync(self._known, names, source)
        try:
            at = endpoint(url, key_env)
            model = await self._model(at, name, model if known is None or model else _model_of(known))
            found = await Probe(self._servers, at, model).found()
            if folder is None:
                upstream = Upstream(model, key_env, **found)
            else:
                upstream = Upstream(model, key_env, **_heeded(found, source), url=url, adapters_dir=adapters_dir)
        except KeyMissing as missing:
            raise InvalidRequest(f"{missing} - 'upstream.key_env'", param="upstream.key_env") from missing
        except UpstreamFailed as failure:
            raise InvalidRequest(f"{name} cannot be added: {failure} - 'upstream.url'", param="upstream.url") from failure
        if folder is None:
            return await to_thread.run_sync(self._written, names, source, upstream)
        looked = await to_thread.run_sync(self._looked_at, known, names, source)
        added = await to_thread.run_sync(self._written, names, source, upstream, looked)
        self._own.unload(source)  # which may have served it before
        return added

    async def add_own(self, name: str, folder: str, aliases: Sequence[str] = ()) -> Base:
        """Register a base that is tuned here from a folder, and served by a vLLM that this server starts.

        Raises:
            InvalidRequest: a name or the folder cannot be taken, there is no vLLM, or it does not come to serve.
        """
        if not self._own.available:
            raise InvalidRequest(
                "Without an 'upstream' a model of kind 'vllm' is served by a vLLM that this server starts, and it knows of "
                "none: say which Python has it (the setting `vllm_python`), or where a server runs - 'upstream'",
                param="upstream",
            )
        names = vetted_names(name, aliases)
        source = str(_folder(folder))
        known = await to_thread.run_sync(self._known, names, source)
        # a folder that is no base need not be tried
        looked = await to_thread.run_sync(self._looked_at, known, names, source)
        try:
            async with self._own.serving(source) as at:
                found = await Probe(self._servers, at, OWN_MODEL).found()
        except (Unavailable, UpstreamFailed) as failure:
            if known is None:
                self._own.unload(source)
            raise InvalidRequest(f"{name} cannot be added: {failure} - 'source'", param="source") from failure
        return await to_thread.run_sync(self._written, names, source, Upstream(OWN_MODEL, **_heeded(found, source)), looked)

    def _looked_at(self, known: Base | None, names: Sequence[str], folder: str) -> Base | None:
        """Return the base that a folder makes, None where it is registered already; raises `InvalidRequest`."""
        return None if known is not None else self._bases.from_folder(names[0], "vllm", Path(folder), names[1:])

    async def _model(self, at: Endpoint, name: str, wanted: str | None) -> str:
        """Return the model's name at its server: the one that is wanted, or this server's, or the only one there is."""
        listed = await served_models(self._servers, at)
        if listed is None:
            return wanted or name
        if wanted is None and name not in listed and len(listed) == 1:
            return listed[0]
        model = wanted or name
        if model not in listed:
            shown = ", ".join(sorted(listed)[:_N_SHOWN]) + ", …" * (len(listed) > _N_SHOWN)
            raise InvalidRequest(
                f"{at.url} has no model {model}. It has: {shown} - 'upstream.model'",
                param="upstream.model",
            )
        return model

    def _known(self, names: Sequence[str], source: str) -> Base | None:
        """Return the model if it is registered already, as one of this server upstream, or of this folder and vLLM."""
        name = names[0]
        known = self._bases.known(name)
        if known is None:
            self._bases.refuse_taken(names)
        elif known.name != name or known.upstream is None or known.source != source:
            raise InvalidRequest(
                f"The name {name} is taken by {known.name}, from {known.source}. Choose another name, or free it first: "
                f"`tunesmith models remove {name}` - 'name'",
                param="name",
            )
        return known

    def _written(self, names: Sequence[str], source: str, upstream: Upstream, looked: Base | None = None) -> Base:
        """Write a model down; `looked` is the base that its folder makes, of one that is tuned here."""
        name, *aliases = names
        if self._known(names, source) is None:
            if looked is not None:
                return self._bases.register(replace(looked, upstream=upstream))
            base = Base(
                name=name,
                kind="upstream",
                source=source,
                path="",
                created_at=self._clock.now(),
                architecture="",
                context_length=0,
                n_parameters=0,
                weights_bytes=0,
                pins={},
                aliases=aliases,
                upstream=upstream,
            )
            return self._bases.register(base)
        base = self._bases.add(name, None, aliases)
        changes: dict[str, Any] = {"upstream": asdict(upstream)}
        with self._db.begin() as tx:
            changed = models.swap_base(tx, SERVER, base.name, **changes)
        if changed is None:
            raise ModelNotFound(name)
        log.info("base.looked_at_again", base=name, source=source)
        return changed


def _heeded(found: dict[str, Any], folder: str) -> dict[str, Any]:
    """Return what a vLLM server was found to do, without efforts that the template never hears of: vLLM takes any."""
    hears = "reasoning_effort" in (chat_template(Path(folder)) or "")
    return found if hears else {**found, "efforts": []}


def _model_of(base: Base) -> str | None:
    return None if base.upstream is None else base.upstream.model


def _folder(source: str) -> Path:
    folder = folder_of(source)
    if folder is None:
        raise InvalidRequest(
            f"'{source}' is no folder on the server's machine: what is tuned here and served by vLLM is read from one - "
            "'source'",
            param="source",
        )
    return folder


def _vetted_url(text: str) -> str:
    """Return a base URL without a slash at its end."""
    try:
        parts = urlsplit(text)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
        fine = fine and not (parts.username or parts.password or parts.query or parts.fragment)
    except ValueError:
        fine = False
    if not fine or len(text) > N_MAX_URL or not text.isascii() or any(map(str.isspace, text)):
        raise InvalidRequest(
            f"'{text[:200]}' is no base URL of a server, such as http://127.0.0.1:8001/v1: http or https, and a key goes "
            "into a variable of the server's environment - 'upstream.url'",
            param="upstream.url",
        )
    return text.rstrip("/")
