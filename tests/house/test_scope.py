"""Every query takes a scope and keeps to it: no function of the store shows, changes or counts another project's rows."""

import ast
import importlib
import inspect
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from laws import shared_rows, told_rows
from tunesmith.core.errors import ApiError
from tunesmith.core.ids import Ids
from tunesmith.domain.completion import Completion
from tunesmith.domain.file import File
from tunesmith.domain.idempotency import Record
from tunesmith.domain.identity import Key, NamedProject
from tunesmith.domain.job import Checkpoint, Job, NewEvent
from tunesmith.domain.model import Alias, TunedModel
from tunesmith.domain.queue import Limits, Load
from tunesmith.domain.response import StoredResponse
from tunesmith.domain.scope import Everywhere, Project
from tunesmith.domain.states import Status
from tunesmith.domain.upload import Part, Upload
from tunesmith.domain.webhook import Delivery, Endpoint
from tunesmith.store import (
    checkpoints,
    completions,
    events,
    files,
    idempotency,
    identity,
    jobs,
    metrics,
    models,
    outbox,
    responses,
    retention,
    uploads,
    webhooks,
)
from tunesmith.store.session import Database, Transaction
from tunesmith.store.tables import metadata

OWN, OTHER = Project("proj_a", "org-a"), Project("proj_b", "org-b")
JOB, FILE, CHECKPOINT, MODEL = "ftjob-theirs", "file-theirs", "ftckpt_theirs", "ft:nano:t::theirs"
COMPLETION, RESPONSE = "chatcmpl-theirs", "resp_theirs"
UPLOAD = "upload_theirs"
KEY = "key_theirs"
LIMITS = Limits(training_slots=1, validation_slots=1, max_attempts=3, training_slots_per_project=1)
ENDPOINT, DELIVERY, EVENT, OUTBOX = "whep_theirs", "wh_theirs", "evt_theirs", "evt_next"

#: The store's files that hold no queries of their own.
NO_QUERIES = {"session", "migrate", "scoping", "tables", "__init__"}
STORE = Path(inspect.getfile(jobs)).parent
QUERIES = [
    importlib.import_module(f"tunesmith.store.{path.stem}")
    for path in sorted(STORE.glob("*.py"))
    if path.stem not in NO_QUERIES
]
#: Base models belong to the server: every project sees them, no project changes them.
#: So do projects; of the keys an admin's is no project's.
OF_THE_SERVER = {
    "models": {"add_base", "bases", "get_base", "swap_base", "delete_base"},
    "identity": {"add_project", "get_projects", "change_project"},
}
SERVERS_TABLES = {"bases", "projects"}
#: What all projects of an organisation share.
ORGANISATIONS_TABLES = {"integrations"}


def _functions() -> list[tuple[str, Callable[..., Any]]]:
    return [
        (f"{module.__name__.rsplit('.', 1)[1]}.{name}", function)
        for module in QUERIES
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
    ]


FUNCTIONS = _functions()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """Return a database with every table, of which nothing written is ever committed."""
    db = Database(f"sqlite:///{tmp_path_factory.mktemp('scope') / 'x.db'}", clock=_Standing(), ids=Ids(random.Random(0)))
    db.migrate()
    yield db
    db.close()


@pytest.fixture
def tx(template: Database) -> Iterator[Transaction]:
    """Return a transaction in which another project owns one of everything; it is rolled back."""
    with suppress(_Undo), template.begin() as open_tx:
        jobs.add(open_tx, OTHER, _job(), [NewEvent("s1", "Step 1", type="metrics", data={"step": 1})])
        files.add(open_tx, OTHER, _file())
        checkpoints.add(open_tx, OTHER, _checkpoint())
        models.add(open_tx, OTHER, _model())
        models.add_alias(open_tx, OTHER, _alias())
        metrics.add(open_tx, OTHER, JOB, 1, {"train_loss": 1.0})
        outbox.add(open_tx, OTHER, JOB, "fine_tuning.job.failed")
        open_tx.execute(metadata.tables["outbox"].update().values(id=OUTBOX))
        idempotency.add(open_tx, OTHER, _record("k"))
        idempotency.add(open_tx, OTHER, _record(None))
        completions.add(open_tx, OTHER, _completion())
        responses.add(open_tx, OTHER, _response())
        uploads.add(open_tx, OTHER, _upload())
        uploads.add_part(open_tx, OTHER, _part("part_theirs"), most_bytes=9)
        webhooks.add_endpoint(open_tx, OTHER, _endpoint())
        webhooks.add_delivery(open_tx, OTHER, _delivery())
        identity.add_project(open_tx, Everywhere("a test"), NamedProject("proj_b", "org-b", "B", 1.0))
        identity.add_key(open_tx, OTHER, _key(KEY))
        shared_rows.lay_out(open_tx, OTHER)
        told_rows.lay_out(open_tx, OTHER)
        yield open_tx
        raise _Undo


class _Undo(Exception):
    """Ends a test's transaction without a commit."""


class _Standing:
    def now(self) -> float:
        return 1_000.0

    def monotonic(self) -> float:
        return 1_000.0


def _job() -> Job:
    return Job(
        id=JOB,
        project_id="proj_b",
        organization_id="org-b",
        model="nano",
        base="nano",
        start_adapter="jobs/k",
        training_file=FILE,
        validation_file=None,
        suffix=None,
        seed=1,
        method="supervised",
        method_config={},
        resolved=None,
        integrations=[],
        metadata={"k": "v"},
        created_at=1.0,
        attempt=1,
    )


def _file() -> File:
    return File(FILE, "proj_b", "org-b", 1.0, "x.jsonl", "fine-tune", 1, "0" * 64, f"files/{FILE}", expires_at=2_000.0)


def _checkpoint() -> Checkpoint:
    return Checkpoint(CHECKPOINT, JOB, "proj_b", 1.0, 1, MODEL, "jobs/k", "0" * 64, {})


def _model() -> TunedModel:
    return TunedModel(MODEL, "proj_b", "org-b", JOB, "nano", 1.0, "jobs/k", "0" * 64, {})


def _alias() -> Alias:
    return Alias("theirs", "proj_b", MODEL, 1.0)


def _response() -> StoredResponse:
    return StoredResponse(RESPONSE, "proj_b", 1.0, 2_000.0, None, [], {"output": []})


def _completion() -> Completion:
    return Completion(COMPLETION, "proj_b", 1.0, MODEL, {"k": "v"}, {}, [])


def _record(key: str | None) -> Record:
    return Record(f"idem-{key}", "proj_b", 1.0, 2_000.0, key, "f", 0, 200, {}, b"theirs")


def _upload(name: str = UPLOAD) -> Upload:
    return Upload(name, "proj_b", "org-b", 1.0, 2_000.0, "x.jsonl", "fine-tune", 1)


def _part(name: str) -> Part:
    return Part(name, UPLOAD, "proj_b", 1.0, 1)


def _endpoint(name: str = ENDPOINT) -> Endpoint:
    return Endpoint(name, "proj_b", 1.0, 1.0, "theirs", "https://x", ["fine_tuning.job.failed"], "whsec_")


def _delivery(name: str = DELIVERY, event: str = EVENT) -> Delivery:
    return Delivery(name, "proj_b", ENDPOINT, event, "fine_tuning.job.failed", {"id": JOB}, 1.0, 1.0, 1.0)


def _key(name: str) -> Key:
    return Key(name, "proj_b", "member", "theirs", name, "sk-…", 1.0, account_id=name)


INSERTS = (".add", ".add_alias", ".add_endpoint", ".add_delivery", ".add_key", ".keep")
JOB_AS = shared_rows.JOB_AS | told_rows.JOB_AS
#: How each function is asked for the other project's rows. Functions that insert what they are handed refuse it.
ASKED: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "jobs.add": ((_job(),), {}),
    "jobs.get": ((JOB,), {}),
    "jobs.page": ((), {"metadata": {"k": "v"}}),
    "jobs.swap": ((JOB,), {"expect_status": set(Status), "model": "stolen"}),
    "jobs.unfinished": ((), {}),
    "jobs.occupied": ((), {}),
    "jobs.drained": ((), {}),
    "jobs.untold": ((), {"limit": 9}),
    "queue.load": ((), {}),
    "queue.place": ((JOB,), {"now": 9.0, "limits": LIMITS}),
    "queue.page": ((), {"now": 9.0, "limits": LIMITS}),
    "jobs.waiting": ((Status.VALIDATING_FILES,), {"now": 9.0, "limit": 9}),
    "jobs.using_file": ((FILE,), {}),
    "jobs.starting_from": (("jobs/k",), {}),
    "events.append": ((JOB, 1, [NewEvent("x", "x")]), {}),
    "events.page": ((JOB,), {}),
    "paces.recent": ((), {"base": "nano", "pins": {}, "method": "supervised", "since": 0.0}),
    "checkpoints.add": ((_checkpoint(),), {}),
    "checkpoints.get": ((CHECKPOINT,), {}),
    "checkpoints.page": ((JOB,), {}),
    "checkpoints.drop": ((CHECKPOINT,), {}),
    "checkpoints.measure": ((CHECKPOINT, {"step": 1}), {}),
    "metrics.add": ((JOB, 1, {"train_loss": 9.0}), {}),
    "metrics.all": ((JOB,), {}),
    "metrics.last_step": ((JOB,), {}),
    "outbox.add": ((JOB, "fine_tuning.job.cancelled"), {}),
    "outbox.pending": ((JOB,), {}),
    "outbox.untold": ((), {"limit": 9}),
    "outbox.tell": ((OUTBOX,), {}),
    "webhooks.add_endpoint": ((_endpoint("whep_other"),), {}),
    "webhooks.get_endpoint": ((ENDPOINT,), {}),
    **{f"webhooks.{name}": ((), {}) for name in ("count_endpoints", "enabled", "endpoints_page", "unsealed")},
    "webhooks.change_endpoint": ((ENDPOINT,), {"name": "stolen"}),
    "webhooks.delete_endpoint": ((ENDPOINT,), {}),
    "webhooks.add_delivery": ((_delivery("wh_other", "evt_other"),), {}),
    "webhooks.get_delivery": ((DELIVERY,), {}),
    "webhooks.deliveries_page": ((ENDPOINT,), {"limit": 9}),
    "webhooks.due": ((), {"limit": 9}),
    "webhooks.change_delivery": ((DELIVERY,), {"n_tries": 9}),
    "webhooks.give_up": ((ENDPOINT, "stolen"), {}),
    "webhooks.sweep": ((), {"before": 9.0, "limit": 9}),
    **dict.fromkeys(("backup.needed", "backup.useful", "figures.of_jobs", "figures.of_deliveries"), ((), {})),
    "figures.queued_since": ((), {}),
    "figures.of_attempts": ((JOB,), {}),
    "identity.add_key": ((_key("key_other"),), {}),
    "identity.get_keys": ((), {}),
    "identity.change_key": ((KEY,), {"role": "admin"}),
    "identity.delete_key": ((KEY,), {}),
    **shared_rows.ASKED,
    **told_rows.ASKED,
    "files.add": ((_file(),), {}),
    "files.get": ((FILE,), {}),
    "files.retained": ((FILE,), {}),
    "files.page": ((), {}),
    "files.delete_one": ((FILE,), {}),
    "files.unneeded": ((), {"limit": 9}),
    "files.forget": ((FILE,), {}),
    "idempotency.add": ((_record("other"),), {}),
    "idempotency.get": (("k",), {}),
    "idempotency.claim": (("f",), {"n_retries": 1, "since": 0.0}),
    "idempotency.sweep": ((), {"limit": 9}),
    "responses.add": ((_response(),), {}),
    "responses.get": ((RESPONSE,), {}),
    "responses.chain": ((RESPONSE,), {}),
    "responses.keep_until": (([RESPONSE], 3_000.0), {}),
    "responses.delete_one": ((RESPONSE,), {}),
    "responses.sweep": ((), {"limit": 9}),
    "completions.add": ((_completion(),), {}),
    "completions.get": ((COMPLETION,), {}),
    "completions.page": ((), {"metadata": {"k": "v"}}),
    "completions.describe": ((COMPLETION, {"k": "stolen"}), {}),
    "completions.delete_one": ((COMPLETION,), {}),
    "uploads.add": ((_upload("upload_other"),), {}),
    "uploads.get": ((UPLOAD,), {}),
    "uploads.add_part": ((_part("part_other"),), {"most_bytes": 9}),
    "uploads.parts": ((UPLOAD,), {}),
    "uploads.end": ((UPLOAD, "cancelled"), {}),
    "uploads.ended": ((), {"limit": 9}),
    "uploads.forget_parts": ((_upload(),), {}),
    "models.add": ((_model(),), {}),
    "models.get": ((MODEL,), {}),
    "models.usable": ((MODEL,), {}),
    "models.find": (("theirs",), {}),
    "models.tuned": ((), {}),
    "models.add_alias": ((_alias(),), {}),
    "models.aliases": ((), {}),
    "models.delete_alias": (("theirs",), {}),
    "models.delete": ((MODEL,), {}),
}


def _everything(tx: Transaction) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row of every owned table."""
    return {
        table.name: sorted(map(repr, tx.execute(table.select())))  # type: ignore[misc]
        for table in metadata.sorted_tables
        if table.name not in SERVERS_TABLES
    }


def test_every_owned_table_names_its_project() -> None:
    without = {table.name for table in metadata.sorted_tables if "project_id" not in table.c or table.c.project_id.nullable}
    assert without == SERVERS_TABLES | ORGANISATIONS_TABLES | {"api_keys"}
    assert all("organization_id" in metadata.tables[name].c for name in ORGANISATIONS_TABLES)


@pytest.mark.parametrize(("name", "function"), FUNCTIONS, ids=[name for name, _ in FUNCTIONS])
def test_every_query_takes_the_transaction_and_then_the_scope(name: str, function: Callable[..., Any]) -> None:
    parameters = list(inspect.signature(function).parameters.values())
    assert [parameter.name for parameter in parameters[:2]] == ["tx", "scope"], name
    assert parameters[1].default is inspect.Parameter.empty, f"{name}: a scope has no default"


def test_every_query_is_asked_below() -> None:
    assert {name for name, _ in FUNCTIONS} == {
        *ASKED,
        *(f"{file}.{name}" for file, names in OF_THE_SERVER.items() for name in names),
    }


@pytest.mark.parametrize("name", ASKED)
def test_a_query_neither_shows_nor_touches_another_projects_rows(tx: Transaction, name: str) -> None:
    function = dict(FUNCTIONS)[name]
    args, kwargs = ASKED[name]
    before = _everything(tx)
    try:
        found = function(tx, OWN, *args, **kwargs)
    except (ValueError, ApiError):
        found = None
    if isinstance(found, Load):
        # how much of the machine is taken is everybody's to know, as a number
        assert found == Load(training=0, training_of_project=0, validating=1, validating_of_project=0)
        found = None
    if isinstance(found, retention.Named):
        found = any(asdict(found).values())
    assert found in (None, False, [], ([], False)), f"{name} shows another project's rows"
    assert _everything(tx) == before, f"{name} changed another project's rows"


def _make_findable(tx: Transaction, name: str) -> None:
    """Bring the other project's rows into the state that a query looks for."""
    if name == "files.unneeded":
        jobs.swap(tx, OTHER, JOB, expect_status=set(Status), status=Status.FAILED)
        files.delete_one(tx, OTHER, FILE)
    if name == "paces.recent":
        done = {"status": "succeeded", "counts": {"total_steps": 1, "n_examples": 1}, "resolved": {"n_epochs": 1}}
        tx.execute(metadata.tables["jobs"].update().values(**done, trained_tokens=1, started_at=1.0, finished_at=2.0))
        events.append(tx, OTHER, JOB, 1, [NewEvent("s1", "Step 1")])
    if name in JOB_AS:
        jobs.swap(tx, OTHER, JOB, expect_status=set(Status), **JOB_AS[name])
    if name == "webhooks.sweep":
        webhooks.change_delivery(tx, OTHER, DELIVERY, status="failed")
    if name == "uploads.ended":
        uploads.end(tx, OTHER, UPLOAD, "cancelled")
    if name in ("responses.sweep", "idempotency.sweep"):
        tx.execute(metadata.tables[name.split(".")[0]].update().values(expires_at=999.0))


@pytest.mark.parametrize("name", sorted(name for name in ASKED if not name.endswith(INSERTS)))
def test_the_same_question_from_its_own_project_is_answered(tx: Transaction, name: str) -> None:
    """Without this, the test above would pass for a query that never finds anything."""
    function = dict(FUNCTIONS)[name]
    args, kwargs = ASKED[name]
    _make_findable(tx, name)
    before = _everything(tx)
    for scope in (OTHER, Everywhere("a test looks at everything")):
        found = function(tx, scope, *args, **kwargs)
        changed = _everything(tx) != before
        assert changed or found not in (None, [], ([], False)), f"{name} finds nothing at all"
        if changed:
            break


@pytest.mark.parametrize("module", QUERIES, ids=lambda module: module.__name__)
def test_every_statement_of_a_function_filters_by_the_scope(module: ModuleType) -> None:
    """A function that builds SQL on an owned table says `owned`, `_there` or `past`, or is handed a row with its project."""
    tree = ast.parse(inspect.getsource(module))
    of_the_server = OF_THE_SERVER.get(module.__name__.rpartition(".")[2], set())
    guilty: list[str] = []
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef) or node.name in of_the_server:
            continue
        called = {call.func.id for call in ast.walk(node) if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)}
        reads = called & {"select", "update", "delete", "delete_rows"}
        if reads and not called & {"owned", "_there", "past"}:
            guilty.append(node.name)
    assert guilty == []
