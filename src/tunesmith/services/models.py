"""Models as clients list them: bases and their aliases, tuned models, kept checkpoints; and deleting tuned ones."""

from dataclasses import dataclass
from typing import Final

import structlog
from anyio import to_thread

from tunesmith.core.errors import InvalidRequest, ModelNotFound, StateConflict
from tunesmith.core.failpoint import failpoint
from tunesmith.core.settings import Settings
from tunesmith.domain.model import Base, TunedModel
from tunesmith.domain.ports import Blobs
from tunesmith.domain.scope import Everywhere, Project
from tunesmith.domain.states import TERMINAL
from tunesmith.services.forgetting import Forgetting
from tunesmith.services.permissions import Shared
from tunesmith.store import checkpoints, jobs, models
from tunesmith.store.session import Database, Transaction

#: Who owns the base models, in OpenAI's word for its own.
OWNER_OF_BASES: Final = "system"
_EVERYWHERE: Final = Everywhere("what a job of another project stands on stays")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Listed:
    """A name that answers."""

    name: str
    created_at: float
    owned_by: str


class Models:
    """The models that a project can name."""

    def __init__(self, *, db: Database, blobs: Blobs, forgetting: Forgetting, settings: Settings) -> None:
        self._db = db
        self._blobs = blobs
        self._forgetting = forgetting
        self._settings = settings

    def page(self, scope: Project) -> list[Listed]:
        """Return every model that answers: bases with their aliases, oldest first, then what was tuned, newest first."""
        with self._db.read() as tx:
            bases = [base for base in models.bases(tx, scope) if _answers(base)]
            tuned = models.tuned(tx, scope)
            aliases = models.aliases(tx, scope)
        listed = [_of_base(name, base) for base in bases for name in (base.name, *base.aliases)]
        for model in tuned:
            names = [model.name, *(alias.name for alias in aliases if alias.model == model.name)]
            listed.extend(self._of_tuned(name, model) for name in names)
        return listed

    def base_of(self, scope: Project, name: str) -> str | None:
        """Return the base that a name stands for or was tuned on, in whatever state; None where it stands for none."""
        with self._db.read() as tx:
            tuned = models.find(tx, scope, name)
            bases = models.bases(tx, scope)
        wanted = name if tuned is None else tuned.base
        known = {each: base.name for base in bases for each in (base.name, *base.aliases)}
        default = None if wanted.startswith("ft:") else self._settings.default_base
        return known.get(wanted, known.get(default or ""))

    def get(self, scope: Project, name: str) -> Listed:
        """Return a model by its name.

        Raises:
            ModelNotFound: nothing answers to the name.
        """
        with self._db.read() as tx:
            base = models.get_base(tx, scope, name)
            tuned = models.find(tx, scope, name)
        if base is not None and _answers(base):
            return _of_base(name, base)
        if tuned is None:
            raise ModelNotFound(name)
        return self._of_tuned(name, tuned)

    async def delete(self, scope: Project, name: str) -> None:
        """Delete a tuned model or a checkpoint: its name and aliases, its place in the job's list of checkpoints, its bytes.

        Samplers and vLLM drop it; answers under way end as they would have. The job's record stays.

        Raises:
            ModelNotFound: nothing answers to the name.
            InvalidRequest: it is a base model, or an alias.
            Shared: it is another project's.
            StateConflict: an unfinished job needs it.
        """
        model, base = await to_thread.run_sync(self._delete, scope, name)
        await self._forgetting.forget(model, base)
        log.info("model.deleted", model=name)

    def _delete(self, scope: Project, name: str) -> tuple[TunedModel, Base | None]:
        with self._db.begin() as tx:
            model = models.get(tx, scope, name, lock=True)
            if model is None:
                base, meant = models.get_base(tx, scope, name), models.find(tx, scope, name)
                if meant is not None and meant.name == name:
                    raise Shared(name, "deleting it")
                if meant is not None:
                    raise InvalidRequest(
                        f"'{name}' is an alias of {meant.name}, which is deleted by its own name; "
                        f"`tunesmith models unalias {name}` frees the alias.",
                        param="model",
                    )
                raise ModelNotFound(name) if base is None else _refused_base(name, base)
            _refuse_needed(tx, scope, model)
            stands_on = models.get_base(tx, scope, model.base)
            models.delete(tx, scope, name)
            listed, _ = checkpoints.page(tx, scope, model.job_id, limit=100)
            for checkpoint in listed:
                if checkpoint.model_name == name:
                    checkpoints.drop(tx, scope, checkpoint.id)
        failpoint("models.deleted")
        self._blobs.delete(model.adapter_key)
        return model, stands_on

    def _of_tuned(self, name: str, model: TunedModel) -> Listed:
        return Listed(name, model.created_at, self._settings.organization_slug)


def _answers(base: Base) -> bool:
    return base.status == "ready" and (base.chats or base.embeds)


def _of_base(name: str, base: Base) -> Listed:
    return Listed(name, base.created_at, OWNER_OF_BASES)


def _refused_base(name: str, base: Base) -> InvalidRequest:
    stays = base.kind == "embedded" and name == base.name
    way_out = "it comes with Tunesmith and stays" if stays else f"`tunesmith models remove {name}` removes it"
    return InvalidRequest(f"'{name}' is a base model of the server: {way_out}.", param="model")


def _refuse_needed(tx: Transaction, scope: Project, model: TunedModel) -> None:
    """Refuse to delete what an unfinished job stands on, or may have to go on from."""
    maker = jobs.get(tx, scope, model.job_id)
    if maker is not None and maker.status not in TERMINAL:
        raise StateConflict(f"'{model.name}' belongs to job {maker.id}, {maker.status}: cancel it or wait for its end.")
    for job in jobs.starting_from(tx, _EVERYWHERE, model.adapter_key):
        if job.project_id == model.project_id:
            raise StateConflict(f"Job {job.id} is tuning '{model.name}' further: cancel it or wait for its end.")
        raise StateConflict(f"A job of another project is tuning '{model.name}' further: wait for its end.")
