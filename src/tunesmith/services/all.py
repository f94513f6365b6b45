"""What the doors of the product are handed: every service, made once by `bootstrap`."""

from dataclasses import dataclass

from tunesmith.core.clock import Clock
from tunesmith.core.ids import Ids
from tunesmith.core.settings import Settings
from tunesmith.domain.ports import Spares
from tunesmith.domain.sight import Sight
from tunesmith.domain.traces import Traces
from tunesmith.services.aliases import Aliases
from tunesmith.services.audit import Audit
from tunesmith.services.backup import Backups
from tunesmith.services.bases import Bases
from tunesmith.services.chat import Chat
from tunesmith.services.completions import Completions
from tunesmith.services.completions_kept import KeptCompletions
from tunesmith.services.details import Details
from tunesmith.services.embeddings import Embeddings
from tunesmith.services.exporting import Exports
from tunesmith.services.figures import Figures
from tunesmith.services.files import Files
from tunesmith.services.gc import Gc
from tunesmith.services.grading import Grading
from tunesmith.services.idempotency import Idempotency
from tunesmith.services.identity import Identity
from tunesmith.services.integrations import Integrations
from tunesmith.services.jobs import Jobs
from tunesmith.services.limits import Limits
from tunesmith.services.models import Models
from tunesmith.services.organization import Organization
from tunesmith.services.pauses import Pauses
from tunesmith.services.permissions import Permissions
from tunesmith.services.preflights import Preflights
from tunesmith.services.queue import Queue
from tunesmith.services.responses import Responses
from tunesmith.services.rewards import Rewards
from tunesmith.services.rollouts import Rollouts
from tunesmith.services.samplers import Samplers
from tunesmith.services.storage import Storage
from tunesmith.services.uploads import Uploads
from tunesmith.services.upstreams import UpstreamModels
from tunesmith.services.vllm import Vllm
from tunesmith.services.webhooks import Webhooks


@dataclass(frozen=True, slots=True)
class Services:
    """The services, with the settings, clock and ids that the doors need themselves."""

    settings: Settings
    clock: Clock
    ids: Ids
    #: Whether a read of the database is short enough to be done where it is asked for.
    reads_in_place: bool
    identity: Identity
    organization: Organization
    files: Files
    uploads: Uploads
    jobs: Jobs
    details: Details
    pauses: Pauses
    preflights: Preflights
    queue: Queue
    limits: Limits
    models: Models
    aliases: Aliases
    permissions: Permissions
    gc: Gc
    storage: Storage
    audit: Audit
    exports: Exports
    bases: Bases
    upstreams: UpstreamModels
    vllm: Vllm
    webhooks: Webhooks
    integrations: Integrations
    chat: Chat
    embeddings: Embeddings
    completions: KeptCompletions
    bare: Completions
    responses: Responses
    idempotency: Idempotency
    spares: Spares
    grading: Grading
    rewards: Rewards
    rollouts: Rollouts
    samplers: Samplers
    sight: Sight
    traces: Traces
    figures: Figures
    backups: Backups
