"""Sharing: tuned models and checkpoints that other projects may use; whose they are stays as it was."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Literal

import structlog

from tunesmith.core.clock import Clock
from tunesmith.core.errors import Forbidden, InvalidRequest, ModelNotFound, NotFound
from tunesmith.core.failpoint import failpoint
from tunesmith.core.ids import Ids
from tunesmith.domain.model import TunedModel
from tunesmith.domain.permission import Permission
from tunesmith.domain.scope import Everywhere, Project
from tunesmith.store import identity, models, permissions
from tunesmith.store.session import Database, Transaction

#: The most projects that one call can name.
N_MAX_PROJECTS: Final = 1000
_EVERYWHERE: Final = Everywhere("an admin shares the models of every project")

log = structlog.get_logger()


class PermissionNotFound(NotFound):
    """Nobody has this permission to use the model (404)."""

    param = "permission_id"

    def __init__(self, permission_id: str, model: str) -> None:
        super().__init__(f"No such permission for {model}: {permission_id}")


class Shared(Forbidden):
    """The model belongs to another project, which only lets this one use it (403)."""

    param = "model"
    code = "model_shared"

    def __init__(self, name: str, what: str) -> None:
        super().__init__(
            f"'{name}' belongs to another project, which lets this one use it and no more: {what} is that project's to do."
        )


class Permissions:
    """Who may use which tuned model, for admins."""

    def __init__(self, *, db: Database, clock: Clock, ids: Ids) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids

    def create(self, admin: Project, name: str, project_ids: Sequence[str]) -> list[Permission]:
        """Let projects use a model, all of them or none, and return their permissions in order; who may already keeps his.

        Raises:
            ModelNotFound: no tuned model and no checkpoint has the name.
            InvalidRequest: a project is unknown, archived, or the one that the model belongs to; or the name is a base's.
        """
        wanted = list(dict.fromkeys(project_ids))
        if not 1 <= len(wanted) <= N_MAX_PROJECTS:
            raise InvalidRequest(
                f"'project_ids' must name 1 to {N_MAX_PROJECTS} projects, and names {len(wanted)}.", param="project_ids"
            )
        now = self._clock.now()
        with self._db.begin() as tx:
            model = _found(tx, admin, name, lock=True)
            _refuse_projects(tx, admin, model, wanted)
            known = {permission.project_id: permission for permission in permissions.of(tx, _EVERYWHERE, name)}
            for number, project_id in enumerate(wanted):
                if project_id not in known:
                    # a microsecond apart, so that a list has them in the order in which they were named
                    made = Permission(self._ids.permission(), project_id, name, now + number * 1e-6)
                    permissions.add(tx, _EVERYWHERE, made)
                    known[project_id] = made
            failpoint("permissions.create")
        log.info("model.shared", model=name, projects=wanted)
        return [known[project_id] for project_id in wanted]

    def page(
        self,
        admin: Project,
        name: str,
        *,
        project_id: str | None,
        after: str | None,
        limit: int,
        order: Literal["asc", "desc"],
    ) -> tuple[list[Permission], bool]:
        """Return permissions to use a model by time of creation, of one project or of all, and whether there are more.

        Raises:
            ModelNotFound: no tuned model and no checkpoint has the name.
            InvalidRequest: `after` names none of them, or the name is a base's.
        """
        scope = _EVERYWHERE if project_id is None else replace(admin, project_id=project_id)
        with self._db.read() as tx:
            _found(tx, admin, name)
            return permissions.page(tx, scope, name, after=after, limit=limit, order=order)

    def delete(self, admin: Project, name: str, permission_id: str) -> None:
        """Withdraw a permission: the next request that names the model is refused; jobs that began from it go on.

        Raises:
            ModelNotFound: no tuned model and no checkpoint has the name.
            PermissionNotFound: it is no permission to use this model.
        """
        with self._db.begin() as tx:
            _found(tx, admin, name)
            withdrawn = permissions.delete_one(tx, _EVERYWHERE, name, permission_id)
            failpoint("permissions.delete")
        if withdrawn is None:
            raise PermissionNotFound(permission_id, name)
        log.info("model.unshared", model=name, project=withdrawn.project_id)


def _found(tx: Transaction, admin: Project, name: str, *, lock: bool = False) -> TunedModel:
    model = models.get(tx, _EVERYWHERE, name, lock=lock)
    if model is not None and model.organization_id == admin.organization_id:
        return model
    if models.get_base(tx, _EVERYWHERE, name) is not None:
        raise InvalidRequest(f"'{name}' is a base model, which every project sees: it needs no permission.", param="model")
    raise ModelNotFound(name)


def _refuse_projects(tx: Transaction, admin: Project, model: TunedModel, wanted: Sequence[str]) -> None:
    known = {
        project.id: project.status
        for project in identity.get_projects(tx, _EVERYWHERE)
        if project.organization_id == admin.organization_id
    }
    for number, project_id in enumerate(wanted):
        if project_id == model.project_id:
            why = "is the project that the model belongs to"
        elif project_id not in known:
            why = "is no project of this organization"
        elif known[project_id] != "active":
            why = "is archived"
        else:
            continue
        raise InvalidRequest(f"'project_ids[{number}]' '{project_id}' {why}.", param="project_ids")
