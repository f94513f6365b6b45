"""Base models: registering, finding by name or alias, and seeing that their files are still the ones that were registered.

Bases belong to the server, not to a project. How a folder or a repository is looked at is `inspection.py`'s business.
"""

import importlib.resources
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import structlog

from tunesmith.core.clock import Clock
from tunesmith.core.errors import InvalidRequest, ModelNotFound, StateConflict
from tunesmith.core.machine import readable_bytes
from tunesmith.core.settings import Settings
from tunesmith.data.folder import BrokenFolder, fingerprint, pins, read_folder
from tunesmith.domain.model import BASE_NAME, Base, vetted_names
from tunesmith.domain.scope import Everywhere
from tunesmith.services.inspection import BaseRefused, Download, folder_of, inspect_folder
from tunesmith.store import jobs, models
from tunesmith.store.session import Database, Transaction

EMBEDDED: Final = "tunesmith-nano"
HUB_ID: Final = re.compile(r"^[A-Za-z0-9][\w.-]*(/[\w.-]+)?(@[\w./-]+)?$")
SERVER: Final = Everywhere("base models belong to the server")

log = structlog.get_logger()


class ModelNotAvailable(InvalidRequest):
    """The name stands for no base that can be used now (400 `model_not_available`)."""

    code = "model_not_available"


class Bases:
    """The register of base models."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        settings: Settings,
        inspect: Callable[[Path], dict[str, Any]] = inspect_folder,
        on_removed: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._db = db
        self._clock = clock
        self._settings = settings
        self._inspect = inspect
        self._on_removed = on_removed
        self._downloads: dict[str, tuple[Download, threading.Thread]] = {}

    def start(self) -> None:
        """Register the embedded base, and go on with downloads that the server's end had interrupted."""
        self._register_embedded()
        for base in self.list():
            if base.status == "loading":
                self._download(base)

    def stop(self) -> None:
        """End running downloads; the next start goes on with them."""
        running = list(self._downloads.values())
        for download, _ in running:
            download.stop()
        for _, thread in running:
            thread.join()

    def list(self) -> list[Base]:
        """Return every registered base, oldest first."""
        with self._db.read() as tx:
            return models.bases(tx, SERVER)

    def get(self, name: str) -> Base:
        """Return a base by name or alias, whatever its state.

        Raises:
            ModelNotFound: no base has the name.
        """
        base = self.known(name)
        if base is None:
            raise ModelNotFound(name)
        return base

    def find(self, name: str) -> Base | None:
        """Return the base that a name stands for: its own, one of its aliases, or any name when there is a default base."""
        default = self._settings.default_base
        base = self.known(name)
        if base is None and default is not None and not name.startswith("ft:"):
            base = self.known(default)
        return base

    def resolve(self, name: str) -> Base:
        """Return the base that a name stands for, ready to be tuned and unchanged since it was registered.

        Raises:
            ModelNotAvailable: there is none (the message lists those there are), it cannot be used now, or its weights are
                another server's.
        """
        base = self.find(name)
        if base is None:
            raise ModelNotAvailable(self._unknown(name))
        if base.kind == "embedding":
            raise ModelNotAvailable(
                f"{base.name} is an embedding model: it is asked by /v1/embeddings, and cannot be tuned. {self._tunable()}",
                param="model",
            )
        if not base.tunable:
            raise ModelNotAvailable(
                f"{base.name} is a model of the server {base.source}: it can be asked, and not be tuned. {self._tunable()}",
                param="model",
            )
        return self.intact(base)

    def intact(self, base: Base) -> Base:
        """Return the base if it is ready and its files are the ones that were registered; only sizes and times are read.

        Raises:
            ModelNotAvailable: it is still loading, its loading failed, its folder vanished or its files changed.
        """
        if base.status == "loading":
            raise ModelNotAvailable(
                f"Base model {base.name} is still being downloaded ({_progress(base)}). `tunesmith models list` shows "
                "when it is ready."
            )
        if base.status != "ready":
            raise ModelNotAvailable(f"Base model {base.name} could not be loaded: {base.detail}")
        path = Path(base.path)
        try:
            seen = fingerprint(path)
            if seen == base.fingerprint:
                return base
            now = pins(path)
        except BrokenFolder as error:
            raise ModelNotAvailable(
                f"Base model {base.name} cannot be used: {error} Put its folder back, or remove the base "
                f"(`tunesmith models remove {base.name}`) and add it from where it is now."
            ) from error
        changed = [part for part, digest in base.pins.items() if now.get(part) != digest]
        if changed:
            raise ModelNotAvailable(
                f"Base model {base.name} cannot be used: its {' and '.join(changed)} in {base.path} changed since it was "
                "added, and jobs and tuned models hold on to the files they were made with. Bring those back, or add the "
                f"new ones under another name: `tunesmith models add NEW-NAME {base.path}`."
            )
        with self._db.begin() as tx:
            return models.swap_base(tx, SERVER, base.name, fingerprint=seen) or base

    def add(self, name: str, source: str | None, aliases: Iterable[str] = ()) -> Base:
        """Register a base and return it: a folder is ready at once, a hub repository is `loading` until it is downloaded.

        Without a source, or with the one it was added from, a registered base gets further aliases.

        Raises:
            InvalidRequest: a name, alias or source cannot be taken; the message names it and the way out.
        """
        names = vetted_names(name, aliases)
        existing = self.known(name)
        if existing is not None:
            return self._add_again(existing, name=name, source=source, aliases=names[1:])
        if source is None:
            raise InvalidRequest(
                f"There is no base model {name} to give aliases to. To add it, say where it is: a folder, or a model id of "
                "the Hugging Face hub - 'source'",
                param="source",
            )
        self.refuse_taken(names)  # before the long look, and again when it is written down
        base = self.register(self._looked_at(name, source, names[1:]))
        if base.status == "loading":
            self._download(base)
        return base

    def refuse_taken(self, names: Iterable[str]) -> None:
        """Raise `InvalidRequest` when one of the names of a new base stands for another one."""
        with self._db.read() as tx:
            self._refuse_taken(tx, names, owner=None)

    def register(self, base: Base) -> Base:
        """Write a new base down.

        Raises:
            InvalidRequest: one of its names stands for another one by now.
        """
        with self._db.begin() as tx:
            self._refuse_taken(tx, [base.name, *base.aliases], owner=None)
            models.add_base(tx, SERVER, base)
        log.info("base.added", base=base.name, kind=base.kind, source=base.source, status=base.status)
        return base

    def remove(self, name: str) -> None:
        """Remove a base, or only the alias when `name` is one; what was downloaded is deleted, a user's folder never is.

        Raises:
            ModelNotFound: no base has the name.
            StateConflict: it is the embedded base, or an unfinished job stands on it.
        """
        with self._db.begin() as tx:
            base = models.get_base(tx, SERVER, name) if BASE_NAME.fullmatch(name) else None
            if base is None:
                raise ModelNotFound(name)
            if base.name != name:
                models.swap_base(tx, SERVER, base.name, aliases=[alias for alias in base.aliases if alias != name])
                return
            if base.kind == "embedded":
                raise StateConflict(f"{name} comes with Tunesmith and cannot be removed; its aliases can, by their names.")
            holders = [job.id for job in jobs.unfinished(tx, SERVER) if job.base == name]
            if holders:
                raise StateConflict(
                    f"Base model {name} is in use by {len(holders)} unfinished job{'s' * (len(holders) > 1)}: "
                    f"{', '.join(holders[:5])}{', …' * (len(holders) > 5)}. Cancel them or wait for their end."
                )
            models.delete_base(tx, SERVER, name)
        log.info("base.removed", base=name)
        running = self._downloads.pop(name, None)
        if running is not None:
            running[0].stop()
            running[1].join()
        self._on_removed(base.path)
        if base.kind == "hub":
            shutil.rmtree(base.path, ignore_errors=True)

    def known(self, name: str) -> Base | None:
        """Return the base that has the name or the alias, or None."""
        if not BASE_NAME.fullmatch(name):
            return None
        with self._db.read() as tx:
            return models.get_base(tx, SERVER, name)

    def _unknown(self, name: str) -> str:
        message = f"Model {name} is not available for fine-tuning or does not exist. {self._tunable()}"
        first = next((base for base in self.list() if base.tunable), None)
        if name.startswith("ft:"):
            return f"{message} To let this name stand for a tuned model: `tunesmith models alias TUNED-MODEL {name}`"
        if first is None or not BASE_NAME.fullmatch(name):
            return message
        return f"{message} To let this name stand for one of them: `tunesmith models add {first.name} --alias {name}`"

    def _tunable(self) -> str:
        """Return a sentence that lists what can be tuned."""
        known = [base for base in self.list() if base.tunable]
        if not known:
            return "This server has no base models yet: `tunesmith models add NAME SOURCE` adds one."
        names = [base.name + (f" (also {', '.join(base.aliases)})" if base.aliases else "") for base in known]
        return f"Base models here: {', '.join(names)}."

    def _looked_at(self, name: str, source: str, aliases: Sequence[str]) -> Base:
        """Look at a source for the first time and return the base that it would make."""
        folder = folder_of(source)
        if folder is not None:
            return self.from_folder(name, "folder", folder, aliases)
        if not HUB_ID.fullmatch(source):
            raise InvalidRequest(
                f"'{source}' is neither a folder on the server's machine nor a model id of the Hugging Face hub (such as "
                "OWNER/MODEL or OWNER/MODEL@REVISION) - 'source'",
                param="source",
            )
        return Base(
            name=name,
            kind="hub",
            source=source,
            path=str((self._settings.data_dir / "bases" / name).resolve()),
            created_at=self._clock.now(),
            architecture="",
            context_length=0,
            n_parameters=0,
            weights_bytes=0,
            pins={},
            aliases=[*aliases],
            status="loading",
        )

    def from_folder(self, name: str, kind: str, folder: Path, aliases: Sequence[str]) -> Base:
        """Look at a folder for the first time and return the base that it would make; raises `InvalidRequest`."""
        try:
            facts = self._inspect(folder)
        except BaseRefused as error:
            raise InvalidRequest(f"{error} - 'source'", param="source") from error
        return Base(
            name=name,
            kind=kind,
            source=str(folder),
            path=str(folder),
            created_at=self._clock.now(),
            aliases=[*aliases],
            **_columns(facts),
        )

    def _add_again(self, base: Base, *, name: str, source: str | None, aliases: Sequence[str]) -> Base:
        """Give a registered base more aliases, or look at its source again when the first time had failed."""
        if base.name != name:
            raise InvalidRequest(
                f"{name} is an alias of {base.name}. `tunesmith models remove {name}` frees the name - 'name'", param="name"
            )
        if source is not None and source != base.source and str(folder_of(source)) != base.source:
            raise InvalidRequest(
                f"There is a base model {name} already, from {base.source}. Choose another name, or remove it first: "
                f"`tunesmith models remove {name}` - 'name'",
                param="name",
            )
        again = base.status == "failed"
        with self._db.begin() as tx:
            self._refuse_taken(tx, aliases, owner=name)
            merged = list(dict.fromkeys([*base.aliases, *aliases]))
            changes: dict[str, Any] = {"status": "loading", "detail": None} if again else {}
            changed = models.swap_base(tx, SERVER, name, aliases=merged, **changes)
        if changed is None:
            raise ModelNotFound(name)
        if again:
            self._download(changed)
        return changed

    def _refuse_taken(self, tx: Transaction, names: Iterable[str], *, owner: str | None) -> None:
        for name in names:
            holder = models.get_base(tx, SERVER, name)
            if holder is not None and holder.name != owner:
                raise InvalidRequest(
                    f"The name {name} is taken by base model {holder.name}. `tunesmith models remove {name}` frees it "
                    "- 'aliases'",
                    param="aliases",
                )
            if models.aliases(tx, SERVER, name):
                raise InvalidRequest(
                    f"The name {name} is an alias of a tuned model. `tunesmith models unalias {name}` frees it - 'aliases'",
                    param="aliases",
                )
            if name == owner:
                raise InvalidRequest(f"{name} cannot be an alias of itself - 'aliases'", param="aliases")

    def _register_embedded(self) -> None:
        folder = Path(str(importlib.resources.files("tunesmith"))) / "bases" / EMBEDDED
        try:
            facts = read_folder(folder)
            columns: dict[str, Any] = {
                "path": str(folder),
                "architecture": facts.architecture,
                "context_length": facts.context_length,
                "n_parameters": facts.n_parameters,
                "weights_bytes": facts.weights_bytes,
                "fingerprint": fingerprint(folder),
                "pins": pins(folder),
            }
        except BrokenFolder as error:
            log.warning("base.embedded_missing", base=EMBEDDED, reason=str(error))
            return
        with self._db.begin() as tx:
            if models.swap_base(tx, SERVER, EMBEDDED, **columns) is None:
                base = Base(name=EMBEDDED, kind="embedded", source=EMBEDDED, created_at=self._clock.now(), **columns)
                models.add_base(tx, SERVER, base)

    def _download(self, base: Base) -> None:
        download = Download(base.source, Path(base.path), self._settings.hf_token)
        thread = threading.Thread(target=self._fetch, args=(base.name, download), name=f"fetch-{base.name}", daemon=True)
        self._downloads[base.name] = (download, thread)
        thread.start()

    def _fetch(self, name: str, download: Download) -> None:
        def swap(**changes: Any) -> Base | None:
            with self._db.begin() as tx:
                return models.swap_base(tx, SERVER, name, expect_status=["loading"], **changes)

        def progress(downloaded_bytes: int, total_bytes: int) -> None:
            if swap(downloaded_bytes=downloaded_bytes, total_bytes=total_bytes) is None:
                download.stop()

        try:
            facts = download.run(progress)
        except (BaseRefused, OSError, ValueError) as error:
            if not download.stopped:
                log.warning("base.failed", base=name, source=download.hub_id, reason=str(error))
                swap(status="failed", detail=str(error))
        else:
            log.info("base.ready", base=name, source=download.hub_id)
            swap(status="ready", detail=None, **_columns(facts))
        finally:
            current = self._downloads.get(name)
            if current is not None and current[0] is download:
                del self._downloads[name]


def _columns(facts: dict[str, Any]) -> dict[str, Any]:
    names = ("architecture", "context_length", "n_parameters", "weights_bytes", "pins", "fingerprint")
    return {name: facts[name] for name in names}


def _progress(base: Base) -> str:
    if not base.total_bytes:
        return "just begun"
    return f"{readable_bytes(base.downloaded_bytes or 0)} of {readable_bytes(base.total_bytes)}"
