"""What every project has on the disk: files, models, earlier checkpoints, counted and measured when somebody asks."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from tunesmith.domain.model import TunedModel
from tunesmith.domain.retention import WalkedBlobs
from tunesmith.domain.scope import Everywhere, Project
from tunesmith.store import identity, limits, models
from tunesmith.store.session import Database

_EVERYWHERE: Final = Everywhere("an admin sees what every project has on the disk")


@dataclass(frozen=True, slots=True)
class Lying:
    """Things of a kind, and their bytes."""

    n: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Stored:
    """What a project has on the disk."""

    project_id: str
    files: Lying
    #: Results of jobs, with what a job that goes on from them needs.
    models: Lying
    checkpoints: Lying


class Storage:
    """What lies on the disk."""

    def __init__(self, *, db: Database, blobs: WalkedBlobs) -> None:
        self._db = db
        self._blobs = blobs

    def projects(self, admin: Project) -> list[Stored]:
        """Return what each project of the organisation has, archived ones too."""
        with self._db.read() as tx:
            ours = [
                each.id for each in identity.get_projects(tx, _EVERYWHERE) if each.organization_id == admin.organization_id
            ]
            scopes = [Project(each, admin.organization_id) for each in ours]
            files = [Lying(limits.n_files(tx, scope), limits.n_bytes(tx, scope)) for scope in scopes]
            tuned = models.tuned(tx, _EVERYWHERE)
        of_project: defaultdict[str, list[TunedModel]] = defaultdict(list)
        for model in tuned:
            of_project[model.project_id].append(model)
        return [
            Stored(
                project_id,
                has,
                self._measured(each for each in of_project[project_id] if each.step is None),
                self._measured(each for each in of_project[project_id] if each.step is not None),
            )
            for project_id, has in zip(ours, files, strict=True)
        ]

    def _measured(self, tuned: Iterable[TunedModel]) -> Lying:
        folders = [each.adapter_key for each in tuned]
        return Lying(len(folders), sum(found.bytes for folder in set(folders) for found in self._blobs.found(folder)))
