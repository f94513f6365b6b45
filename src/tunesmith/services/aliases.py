"""Further names: of a tuned model within its project, in any form that a model's id has; of a base for everybody."""

from typing import Final

import structlog

from tunesmith.core.clock import Clock
from tunesmith.core.errors import InvalidRequest, ModelNotFound
from tunesmith.domain.model import ALIAS, Alias
from tunesmith.domain.scope import Project
from tunesmith.services.bases import Bases
from tunesmith.services.permissions import Shared
from tunesmith.store import models
from tunesmith.store.session import Database, Transaction

FREE: Final = "`tunesmith models unalias {0}` frees it"

log = structlog.get_logger()


class Aliases:
    """The aliases that a project sees: its own, and those of the bases."""

    def __init__(self, *, db: Database, bases: Bases, clock: Clock) -> None:
        self._db = db
        self._bases = bases
        self._clock = clock

    def page(self, scope: Project) -> list[tuple[str, str]]:
        """Return every alias with the name of the model that it stands for: those of bases first."""
        with self._db.read() as tx:
            own = models.aliases(tx, scope)
        of_bases = [(alias, base.name) for base in self._bases.list() for alias in base.aliases]
        return of_bases + [(alias.name, alias.model) for alias in own]

    def add(self, scope: Project, name: str, alias: str, *, move: bool = False) -> str:
        """Let `alias` stand for the model `name` and return that model's own name; with `move` it may have had another one.

        Raises:
            ModelNotFound: no base and no tuned model has the name.
            Shared: the model is another project's.
            InvalidRequest: the alias cannot be a name, or another model has it.
        """
        with self._db.begin() as tx:
            model = models.find(tx, scope, name)
            if model is not None and model.project_id != scope.project_id:
                raise Shared(name, "giving it another name")
            if model is not None:
                self._refuse_taken(tx, scope, alias, model.name, move=move)
                models.add_alias(tx, scope, Alias(alias, scope.project_id, model.name, self._clock.now()))
        if model is None:
            base = self._bases.known(name)
            if base is None:
                raise ModelNotFound(name)
            return self._bases.add(base.name, None, [alias]).name
        log.info("model.alias", model=model.name, alias=alias)
        return model.name

    def remove(self, scope: Project, alias: str) -> None:
        """Free an alias; what it stood for stays.

        Raises:
            InvalidRequest: it is a model's own name.
            ModelNotFound: nobody has the name.
        """
        with self._db.begin() as tx:
            if models.delete_alias(tx, scope, alias) is not None:
                return
            tuned = models.get(tx, scope, alias)
        base = self._bases.known(alias)
        if tuned is None and base is None:
            raise ModelNotFound(alias)
        if base is None or base.name == alias:
            raise InvalidRequest(f"'{alias}' is a model's own name and no alias - 'alias'", param="alias")
        self._bases.remove(alias)

    def _refuse_taken(self, tx: Transaction, scope: Project, alias: str, name: str, *, move: bool) -> None:
        if not ALIAS.fullmatch(alias):
            raise InvalidRequest(
                f"'{alias}' cannot be an alias: use letters, digits, '.', '_', '-', ':' and '/', at most 255 of them, the "
                "first a letter or a digit - 'alias'",
                param="alias",
            )
        base, tuned = models.get_base(tx, scope, alias), models.usable(tx, scope, alias)
        if base is not None or tuned is not None:
            whose = "a tuned model's own" if base is None else f"taken by base model {base.name}"
            way_out = "Choose another one" if base is None or base.name == alias else FREE.format(alias)
            raise InvalidRequest(f"The name {alias} is {whose}. {way_out} - 'alias'", param="alias")
        for taken in models.aliases(tx, scope, alias):
            if taken.model != name and not move:
                raise InvalidRequest(
                    f"The name {alias} is an alias of {taken.model}. {FREE.format(alias)}, and "
                    f"`tunesmith models alias {name} {alias} --move` lets it stand for {name} from one moment to the next "
                    "- 'alias'",
                    param="alias",
                )
