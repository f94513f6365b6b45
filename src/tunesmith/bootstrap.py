"""The fuse box of the server: settings to adapters to services; no other file of the server's side names an adapter."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version

import structlog

from tunesmith.blobs.local import LocalBlobs
from tunesmith.core.clock import Clock, SystemClock
from tunesmith.core.data_folder import DataFolder, FolderRefused
from tunesmith.core.ids import Ids
from tunesmith.core.secrets import Secrets
from tunesmith.core.settings import Settings
from tunesmith.domain.embedding import Embedders
from tunesmith.domain.ports import Inference
from tunesmith.domain.recording import TrackerKind
from tunesmith.domain.retention import WalkedBlobs
from tunesmith.domain.scope import DEFAULT_ORGANIZATION, Project
from tunesmith.domain.serving import OwnServers
from tunesmith.executors.local import LocalExecutor
from tunesmith.executors.spares import LocalSpares
from tunesmith.graders.base import Tools
from tunesmith.graders.sandbox.environment import FOLDER as GRADER_ENV
from tunesmith.graders.sandbox.environment import Environment
from tunesmith.graders.sandbox.pool import Sandbox
from tunesmith.inference.embedders import ResidentEmbedders
from tunesmith.inference.pictures import GuardedPictures
from tunesmith.inference.resident import Resident
from tunesmith.inference.upstream import HttpUpstreams
from tunesmith.inference.vllm import VllmServers
from tunesmith.notify.processes import NotInstalled, TrackerProcesses
from tunesmith.notify.webhooks import GuardedWebhooks
from tunesmith.services.aliases import Aliases
from tunesmith.services.all import Services
from tunesmith.services.asking import Asking
from tunesmith.services.attempts import Attempts
from tunesmith.services.audit import Audit
from tunesmith.services.backup import Backups
from tunesmith.services.bases import EMBEDDED, Bases
from tunesmith.services.chat import Chat
from tunesmith.services.completions import Completions
from tunesmith.services.completions_kept import KeptCompletions
from tunesmith.services.deliveries import Deliveries
from tunesmith.services.details import Details
from tunesmith.services.drain import Drain
from tunesmith.services.embeddings import Embeddings
from tunesmith.services.exporting import Exports
from tunesmith.services.figures import Figures
from tunesmith.services.files import Files
from tunesmith.services.forgetting import Forgetting
from tunesmith.services.gc import Gc
from tunesmith.services.grading import Grading
from tunesmith.services.idempotency import Idempotency
from tunesmith.services.identity import AdminKeyRefused, Identity
from tunesmith.services.integrations import Integrations
from tunesmith.services.jobs import Jobs, Wake
from tunesmith.services.judging import Embedding, Judging
from tunesmith.services.limits import Limits
from tunesmith.services.models import Models
from tunesmith.services.organization import Organization
from tunesmith.services.passing import Passing
from tunesmith.services.passing_texts import PassingTexts
from tunesmith.services.pauses import Pauses
from tunesmith.services.permissions import Permissions
from tunesmith.services.placement import Placement
from tunesmith.services.preflights import Preflights
from tunesmith.services.queue import Queue
from tunesmith.services.recordings import Recordings
from tunesmith.services.responses import Responses
from tunesmith.services.retention import Retention
from tunesmith.services.rewards import Rewards
from tunesmith.services.rollouts import Rollouts
from tunesmith.services.samplers import Samplers
from tunesmith.services.scheduler import Scheduler
from tunesmith.services.specs import Specs
from tunesmith.services.storage import Storage
from tunesmith.services.surveys import Surveys
from tunesmith.services.tracing import Tracing
from tunesmith.services.trials import Trials
from tunesmith.services.uploads import Uploads
from tunesmith.services.upstreams import UpstreamModels
from tunesmith.services.vllm import Vllm
from tunesmith.services.warmth import Warmth
from tunesmith.services.webhooks import Webhooks
from tunesmith.sight.prometheus import Prometheus
from tunesmith.sight.traces import open_traces
from tunesmith.store.migrate import NewerDatabase
from tunesmith.store.session import Database, DatabaseInUse

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Composed:
    """A server's parts, wired: what the doors serve, and what has to be started and stopped."""

    settings: Settings
    folder: DataFolder
    db: Database
    services: Services
    attempts: Attempts
    scheduler: Scheduler
    drain: Drain
    inference: Inference
    embedders: Embedders
    own: OwnServers
    warmth: Warmth
    forgetting: Forgetting
    retention: Retention
    deliveries: Deliveries
    recordings: Recordings
    spares: LocalSpares
    sandbox: Sandbox
    tools: Callable[[Project], Tools]

    def start(self) -> None:
        """Begin to work, once the channel's socket listens."""
        self.services.bases.start()
        self.services.webhooks.seal()
        self.drain.undo()
        self.spares.start()  # before the scheduler: no spare of a killed server may still take a task
        self.scheduler.start()
        self.retention.start()
        self.deliveries.start()
        self.recordings.start()

    def warm(self) -> None:
        """Make the sampler of the default base ready, on the running loop."""
        self.forgetting.begin()
        base = self.services.bases.find(self.settings.default_base or EMBEDDED)
        here = base is not None and base.status == "ready" and base.tunable and base.upstream is None
        self.warmth.begin(base.path if base is not None and here else None)

    async def close(self) -> None:
        """Stop what was started and let go of the data folder."""
        self.warmth.end()
        self.forgetting.end()
        self.scheduler.stop()
        self.spares.close()
        self.retention.stop()
        self.deliveries.stop()
        self.recordings.stop()
        self.sandbox.close()
        self.services.exports.close()
        self.services.preflights.close()
        await self.inference.close()
        await self.embedders.close()
        await self.own.close()
        self.services.bases.stop()
        self.services.identity.sweep()
        self.services.audit.stop()
        self.services.traces.close()
        self.db.close()
        self.folder.close()


def compose(settings: Settings, *, clock: Clock | None = None, ids: Ids | None = None) -> Composed:
    """Open the data folder and the database, bring its tables up to date, and wire every part.

    Raises:
        FolderRefused: another server holds the folder or the database, a newer one wrote them, or they cannot be written;
            or a setting names what is not installed.
        Unavailable: the database cannot be reached.
    """
    clock = clock or SystemClock()
    ids = ids or Ids()
    folder = DataFolder(settings.data_dir)
    with ExitStack() as undone:
        undone.callback(folder.close)
        try:
            composed = _wire(folder, settings, clock, ids)
        except (DatabaseInUse, NewerDatabase, AdminKeyRefused, NotInstalled) as error:
            raise FolderRefused(str(error)) from error
        undone.pop_all()
    return composed


def _wire(folder: DataFolder, settings: Settings, clock: Clock, ids: Ids) -> Composed:  # noqa: PLR0915 - all is named here
    settings = settings.model_copy(update={"data_dir": folder.path})
    db = _database(folder, settings, clock, ids)
    identity = _identity(db, folder, settings, clock, ids)
    trackers, secrets = TrackerProcesses(folder.path, settings), Secrets(folder.path)
    blobs = LocalBlobs(folder.path / "blobs", ids=ids)
    for prefix in ("files", "uploads"):
        blobs.clear_unfinished(prefix)
    spares = LocalSpares(
        folder.path,
        wanted={"validate": min(1, settings.warm_spares), "train": min(settings.warm_spares, settings.training_slots)},
        max_bytes=settings.warm_spares_max_bytes,
        threads=settings.training_threads or 1,
        clock=clock,
    )
    sight, traces = Prometheus(), open_traces(version("tunesmith"))
    executor = LocalExecutor(folder.path / "attempts", spares=spares)
    inference = Resident(folder.run, settings=settings, clock=clock)
    warmth = Warmth(inference, wanted=settings.sampler_warm)
    sandbox = Sandbox(Environment(folder.path / GRADER_ENV), reduced=settings.sandbox_reduced)
    wake = _Later()
    limits = Limits(db=db, clock=clock, settings=settings)
    attempts = Attempts(db=db, blobs=blobs, clock=clock, ids=ids, settings=settings, on_change=wake, sight=sight)
    placement = Placement(
        db=db,
        attempts=attempts,
        clock=clock,
        ids=ids,
        limits=limits,
        blobs_url=blobs.url,
        socket=folder.run / "channel.sock",
        on_train=warmth.ask,
    )
    scheduler = Scheduler(placement=placement, attempts=attempts, executor=executor, clock=clock)
    wake.call = scheduler.wake
    embedders = ResidentEmbedders(folder.run, settings=settings, clock=clock)
    own = VllmServers(folder.run, settings=settings, clock=clock)
    bases = Bases(db=db, clock=clock, settings=settings, on_removed=_each(inference.unload, embedders.unload, own.unload))
    integrations = Integrations(db=db, clock=clock, secrets=secrets, trackers=trackers)
    jobs = Jobs(
        db=db,
        bases=bases,
        clock=clock,
        ids=ids,
        limits=limits,
        executor=executor,
        on_change=wake,
        sight=sight,
        watchers=integrations,
    )
    files = Files(db=db, blobs=blobs, clock=clock, ids=ids, settings=settings, jobs=jobs, limits=limits)
    pauses = Pauses(db=db, jobs=jobs, clock=clock, on_change=wake)
    servers = HttpUpstreams(clock=clock, n_at_once=settings.judge_requests, timeout_s=settings.judge_timeout_s)
    pictures = GuardedPictures(hosts=_hosts(settings.image_hosts))
    sender = GuardedWebhooks(hosts=_hosts(settings.webhook_hosts))
    embeddings = Embeddings(bases, servers, embedders, clock)
    vllm = Vllm(servers, own, folder.path / "blobs", n_most=settings.vllm_adapters)
    asking, forgetting = Asking(servers, vllm), Forgetting(inference, vllm)
    passing = Passing(asking, pictures, clock, ids)
    chat = Chat(db=db, bases=bases, blobs=blobs, inference=inference, elsewhere=passing, clock=clock, ids=ids, sight=sight)

    def tools(scope: Project) -> Tools:
        judges = Judging(db, bases, servers, pictures, chat, scope)
        return Tools(clock, judges=judges, sandbox=sandbox, embeddings=Embedding(bases, embeddings))

    grading = Grading(tools=tools, ids=ids, sight=sight)
    rewards = Rewards(db=db, blobs=blobs, grading=grading, settings=settings)
    preflights = Preflights(
        db=db,
        jobs=jobs,
        rewards=rewards,
        trials=Trials(rewards=rewards, grading=grading),
        surveys=Surveys(),
        specs=Specs(settings, blobs.url),
        clock=clock,
        settings=settings,
    )
    services = Services(
        settings=settings,
        clock=clock,
        ids=ids,
        reads_in_place=db.is_sqlite,
        identity=identity,
        organization=Organization(db=db, identity=identity, clock=clock, ids=ids),
        files=files,
        webhooks=Webhooks(db=db, clock=clock, ids=ids, sender=sender, secrets=secrets),
        integrations=integrations,
        uploads=Uploads(db=db, blobs=blobs, clock=clock, ids=ids, settings=settings, files=files),
        jobs=jobs,
        details=Details(db),
        pauses=pauses,
        preflights=preflights,
        queue=Queue(db=db, clock=clock, limits=limits),
        limits=limits,
        models=Models(db=db, blobs=blobs, forgetting=forgetting, settings=settings),
        aliases=Aliases(db=db, bases=bases, clock=clock),
        permissions=Permissions(db=db, clock=clock, ids=ids),
        audit=Audit(db=db),
        gc=Gc(db=db, blobs=blobs, files=files, clock=clock, runs=_kept_runs(folder, settings), on_gone=forgetting.soon),
        storage=Storage(db=db, blobs=blobs),
        exports=Exports(db=db, bases=bases, blobs=blobs, chat=chat),
        bases=bases,
        upstreams=UpstreamModels(db=db, bases=bases, servers=servers, own=own, clock=clock),
        vllm=vllm,
        chat=chat,
        embeddings=embeddings,
        completions=KeptCompletions(db=db),
        bare=Completions(chat, PassingTexts(asking, clock, ids)),
        responses=Responses(db=db, chat=chat, clock=clock, ids=ids, settings=settings),
        idempotency=Idempotency(db=db, clock=clock, ids=ids),
        spares=spares,
        grading=grading,
        rewards=rewards,
        rollouts=Rollouts(db=db, blobs=blobs),
        samplers=Samplers(db=db, bases=bases, inference=inference, embedders=embedders, own=own),
        sight=sight,
        traces=traces,
        figures=Figures(db, folder.path, bases, inference, sight, clock),
        backups=Backups(db=db, folder=folder.path, clock=clock, ids=ids, version=version("tunesmith")),
    )
    deliveries = Deliveries(db=db, clock=clock, ids=ids, sender=sender, secrets=secrets, sight=sight)
    deliveries.on_told = Tracing(db, traces).told
    return Composed(
        settings,
        folder,
        db,
        services,
        attempts,
        scheduler,
        Drain(db=db, pauses=pauses, scheduler=scheduler, clock=clock),
        inference,
        embedders,
        own,
        warmth,
        forgetting,
        Retention(*_sweeps(services)),
        deliveries,
        Recordings(db=db, clock=clock, trackers=trackers, integrations=integrations),
        spares,
        sandbox,
        tools,
    )


def _database(folder: DataFolder, settings: Settings, clock: Clock, ids: Ids) -> Database:
    """Return the database, held and up to date."""
    file = folder.path / "tunesmith.db"
    if settings.database_url is None:
        file.touch(mode=0o600)
    db = Database(settings.database_url or f"sqlite:///{file}", clock=clock, ids=ids)
    db.hold()
    db.migrate()
    return db


def _identity(db: Database, folder: DataFolder, settings: Settings, clock: Clock, ids: Ids) -> Identity:
    """Return who may call, with an admin key where keys are needed and there is none."""
    identity = Identity(db=db, clock=clock, ids=ids, organization=(DEFAULT_ORGANIZATION, settings.organization_slug))
    identity.load(settings.admin_key)
    if settings.needs_keys:
        identity.make_first_key(folder.path)
    return identity


def _sweeps(served: Services) -> Iterator[Callable[[], int]]:
    """Yield what removes what is over."""
    for each in (
        served.identity,
        served.files,
        served.uploads,
        served.idempotency,
        served.responses,
        served.webhooks,
        served.gc,
    ):
        yield each.sweep


def _each(*calls: Callable[[str], None]) -> Callable[[str], None]:
    def call(path: str) -> None:
        for each in calls:
            each(path)

    return call


def _kept_runs(folder: DataFolder, settings: Settings) -> dict[TrackerKind, tuple[WalkedBlobs, str]]:
    """Return where trackers keep runs in folders of ours: a store, and the prefix in it."""
    kept: dict[TrackerKind, tuple[WalkedBlobs, str]] = {"wandb": (LocalBlobs(folder.path), "wandb")}
    if settings.tensorboard_dir is not None:
        boards = settings.tensorboard_dir.expanduser().absolute()
        kept["tensorboard"] = LocalBlobs(boards.parent), boards.name
    return kept


def _hosts(said: str | None) -> list[str]:
    return (said or "").replace(",", " ").split()


class _Later:
    """A callback that is handed out before what it calls exists."""

    def __init__(self) -> None:
        self.call: Wake | None = None

    def __call__(self, after_s: float = 0.0, /) -> None:
        if self.call is not None:
            self.call(after_s)
