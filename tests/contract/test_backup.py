"""Backup and restore of an embedded installation, while its server runs and while it does not."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from typer.testing import CliRunner

from tunesmith.cli.main import app
from tunesmith.core.clock import SystemClock
from tunesmith.core.ids import Ids
from tunesmith.domain.job import Checkpoint
from tunesmith.domain.states import Desired, Status
from tunesmith.services.backup import Backups
from tunesmith.store import checkpoints, jobs
from tunesmith.store.session import Database

#: A process that lives on this machine, which a restored installation must not take for one of its own.
ALIVE = {"pid": os.getpid(), "start_time": 1, "boot_id": "b"}


def run(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == code, done.output
    return done.output


class House:
    """A server with a file and three jobs that have processes: one trains, one is asked to pause, one was cancelled."""

    def __init__(self, served: Any, client: openai.OpenAI, file: str) -> None:
        self.served, self.client, self.file = served, client, file
        self.folder: Path = served.composed.folder.path
        self.training, self.pausing, self.cancelled = [self._job() for _ in range(3)]
        self._at_work(self.training, Status.RUNNING, Desired.RUN)
        self._at_work(self.pausing, Status.RUNNING, Desired.PAUSE)
        self._at_work(self.cancelled, Status.CANCELLED, Desired.CANCEL)
        key = f"jobs/{self.training}/attempts/2/checkpoints/000010"
        blobs = served.composed.attempts._blobs
        blobs.put(f"{key}/adapter_model.safetensors", [b"weights"])
        blobs.put(f"jobs/{self.training}/attempts/2/rollouts/000005-train.jsonl", [b"{}"])
        (self.folder / f"blobs/jobs/{self.training}/attempts/2/rollouts/000006.jsonl.a.unfinished").touch()
        blobs.put(f"jobs/{self.training}/attempts/2/checkpoints/000020/adapter_model.safetensors", [b"unfinished"])
        checkpoint = Checkpoint(
            "ftckpt_a", self.training, "proj_default", 1.0, 10, "ft:a:b::c:ckpt-step-10", key, "0" * 64, {}
        )
        with served.composed.db.begin() as tx:
            checkpoints.add(tx, served.scope, checkpoint)
        (self.folder / "secrets.key").write_text("secret")

    def _job(self) -> str:
        return self.client.fine_tuning.jobs.create(model="tunesmith-nano", training_file=self.file, seed=len(self.file)).id

    def _at_work(self, job: str, status: Status, desired: Desired) -> None:
        with self.served.composed.db.begin() as tx:
            for passed in (Status.QUEUED, status):
                done = jobs.swap(
                    tx,
                    self.served.scope,
                    job,
                    expect_status=set(Status),
                    status=passed,
                    desired=desired,
                    attempt=2,
                    handle=ALIVE,
                )
                assert done is not None


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory, open_house: Any, rows: Callable[[int], bytes]) -> Iterator[House]:
    with (
        open_house(tmp_path_factory.mktemp("full") / "data") as served,
        openai.OpenAI(base_url=served.base_url, api_key="any", max_retries=0) as client,
    ):
        file = client.files.create(file=("rows.jsonl", rows(10)), purpose="fine-tune").id
        yield House(served, client, file)


@pytest.fixture(scope="module")
def backed_up(full: House, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup that the running server made."""
    destination = tmp_path_factory.mktemp("backups") / "first"
    told = run("backup", destination, "--data-dir", full.folder, "--base-url", full.served.base_url)
    assert "is backed up" in told
    return destination


def test_a_backup_holds_what_its_rows_name_and_nothing_unfinished(full: House, backed_up: Path) -> None:
    found = {path.relative_to(backed_up).as_posix() for path in backed_up.rglob("*") if path.is_file()}
    assert found == {
        "VERSION", "tunesmith.db", "secrets.key", "manifest.json", f"blobs/files/{full.file}",
        f"blobs/jobs/{full.training}/attempts/2/checkpoints/000010/adapter_model.safetensors",
        f"blobs/jobs/{full.training}/attempts/2/rollouts/000005-train.jsonl",
    }  # fmt: skip
    assert not list(full.folder.glob("backup/*")), "nothing of it is left with the server"
    assert (backed_up.stat().st_mode & 0o777, (backed_up / "secrets.key").stat().st_mode & 0o777) == (0o700, 0o600)


def test_a_restored_installation_answers_and_its_jobs_go_on(
    full: House, backed_up: Path, tmp_path: Path, open_house: Any, rows: Callable[[int], bytes]
) -> None:
    told = run("restore", backed_up, "--data-dir", tmp_path / "new")
    assert full.training in told
    assert full.cancelled not in told
    assert (tmp_path / "new" / "secrets.key").read_text() == "secret"
    with (
        open_house(tmp_path / "new") as served,
        openai.OpenAI(base_url=served.base_url, api_key="any", max_retries=0) as client,
    ):
        assert client.files.content(full.file).read() == rows(10)
        states = {job.id: job.status for job in client.fine_tuning.jobs.list()}
        assert states == {full.training: "queued", full.pausing: "paused", full.cancelled: "cancelled"}
        newest = [client.fine_tuning.jobs.list_events(job, limit=1).data[0].message for job in (full.training, full.pausing)]
        assert newest == [
            "The installation was restored from a backup; the job goes on from its checkpoint at step 10",
            "The installation was restored from a backup; the job is paused at its start",
        ]
        with served.composed.db.read() as tx:
            assert jobs.occupied(tx, served.scope) == [], "no process of elsewhere is waited for, or killed"
        noted = client.get(f"{served.root}/tunesmith/v1/audit?limit=1", cast_to=dict[str, Any])["data"][0]
        assert (noted["actor"], noted["action"]) == ("system", "installation.restored")
        assert set(noted["objects"]) == {full.training, full.pausing}


def test_a_folder_that_no_server_holds_is_backed_up_from_itself(backed_up: Path, tmp_path: Path) -> None:
    run("restore", backed_up, "--data-dir", tmp_path / "new")
    told = run("backup", tmp_path / "second", "--data-dir", tmp_path / "new")
    assert f"{tmp_path / 'new'} is backed up" in told
    first, second = (json.loads((folder / "manifest.json").read_text()) for folder in (backed_up, tmp_path / "second"))
    names = [[file["name"] for file in manifest["files"]] for manifest in (first, second)]
    assert names[0] == names[1]


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), "is no whole backup"),
        (lambda folder: (folder / "secrets.key").write_text("other"), "hash differs"),
        (lambda folder: (folder / "secrets.key").unlink(), "is missing"),
        (lambda folder: _change(folder, form=99), "form 99"),
        (lambda folder: _change(folder, files=[{"name": "../x", "bytes": 0, "sha256": ""}]), "is no file of a backup"),
    ],
)
def test_what_is_no_whole_backup_is_refused(
    backed_up: Path, tmp_path: Path, spoil: Callable[[Path], Any], told: str
) -> None:
    copy = tmp_path / "copy"
    for file in (path for path in backed_up.rglob("*") if path.is_file()):
        (copy / file.relative_to(backed_up)).parent.mkdir(parents=True, exist_ok=True)
        (copy / file.relative_to(backed_up)).hardlink_to(file)
    for name in ("secrets.key", "manifest.json"):
        text = (copy / name).read_text()
        (copy / name).unlink()
        (copy / name).write_text(text)
    spoil(copy)
    assert told in run("restore", copy, "--data-dir", tmp_path / "new", code=1)
    assert [path.name for path in tmp_path.iterdir()] == ["copy"], "nothing is left of the attempt"


def _change(folder: Path, **changes: Any) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, **changes}))


def test_nothing_is_written_over(full: House, backed_up: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "x").touch()
    assert "not empty" in run("restore", backed_up, "--data-dir", tmp_path / "there", code=1)
    assert "not written over" in run("backup", tmp_path / "there", "--data-dir", full.folder, code=2)
    assert "is no data folder" in run("backup", tmp_path / "new", "--data-dir", tmp_path / "there", code=1)


def test_a_client_that_leaves_in_the_middle_leaves_nothing(full: House) -> None:
    with (
        httpx2.Client(base_url=full.served.root, trust_env=False) as http,
        http.stream("POST", "/tunesmith/v1/backup", json={}) as answer,
    ):
        assert answer.headers["content-type"] == "application/x-tar"
    parts = full.served.composed.services.backups.stream()
    next(parts)
    assert list(full.folder.glob("backup/*"))
    parts.close()
    assert not list(full.folder.glob("backup/*"))
    with httpx2.Client(base_url=full.served.root, trust_env=False) as http:
        refused = http.post("/tunesmith/v1/backup", json={"to": "/etc"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "to")


class Busy(Database):
    """A database whose server deletes a file while each of the first copies is made."""

    def __init__(self, url: str, deletions: list[Callable[[], Any]]) -> None:
        super().__init__(url, clock=SystemClock(), ids=Ids())
        self.deletions = deletions
        self.n_copies = 0

    def copy(self, path: Path) -> None:
        super().copy(path)
        self.n_copies += 1
        if self.deletions:
            self.deletions.pop()()


def test_what_is_deleted_meanwhile_is_in_neither_the_rows_nor_the_files(full: House, tmp_path: Path) -> None:
    extra = [full.client.files.create(file=("x.txt", b"x"), purpose="user_data").id for _ in range(2)]
    db = Busy(
        f"sqlite:///{full.folder / 'tunesmith.db'}", [lambda file=file: full.client.files.delete(file) for file in extra]
    )
    try:
        backups = Backups(db=db, folder=full.folder, clock=SystemClock(), ids=Ids(), version="0")
        text = b"".join(backups.stream())
    finally:
        db.close()
    assert db.n_copies == 3
    assert not [file for file in extra if file.encode() in text[text.rindex(b'"files"') :]]


def test_a_postgresql_is_told_its_own_way() -> None:
    db = Database("postgresql://nowhere/x", clock=SystemClock(), ids=Ids())
    with pytest.raises(Exception, match="pg_dump"):
        next(Backups(db=db, folder=Path("x"), clock=SystemClock(), ids=Ids(), version="0").stream())
    db.close()
