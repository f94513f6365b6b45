"""`tunesmith jobs` before a real server, in a terminal and in a pipe; the tests move the jobs, and nothing is trained."""

import base64
import io
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from starlette.responses import JSONResponse, Response
from typer.testing import CliRunner, Result

from terminal import CTRL_C, Terminal, Terminals, terminals
from tunesmith.api.app import create_app
from tunesmith.cli.main import app
from tunesmith.domain.job import NewEvent
from tunesmith.domain.states import Status
from tunesmith.store import events, jobs, metrics

MODEL = "tunesmith-nano"
N_STEPS = 20
CSV = "step,train_loss,valid_loss\n" + "".join(f"{n},{4 / n},{5 / n if n % 5 == 0 else ''}\n" for n in range(1, N_STEPS + 1))


@pytest.fixture(scope="module")
def at_terminals() -> Iterator[Terminals]:
    with terminals() as opened:
        yield opened


@pytest.fixture
def start(at_terminals: Terminals, tmp_path: Path, served: Any) -> Callable[..., Terminal]:
    """Return a function that runs a verb in a terminal."""

    def run(*words: object, base_url: str = served.base_url) -> Terminal:
        return at_terminals.open("jobs", *words, cwd=tmp_path, env={"TUNESMITH_BASE_URL": base_url})

    return run


@pytest.fixture
def seen(start: Callable[..., Terminal]) -> Callable[..., str]:
    """Return a function that tells what a verb shows in a terminal."""

    def run(*words: object) -> str:
        code, text = start(*words).end()
        assert code == 0, text
        return text

    return run


@pytest.fixture(autouse=True)
def _our_server(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TUNESMITH_API_KEY", "TUNESMITH_ADMIN_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TUNESMITH_BASE_URL", served.base_url)


def make(client: openai.OpenAI, file: str, **more: Any) -> str:
    return client.fine_tuning.jobs.create(model=MODEL, training_file=file, **more).id


def move(served: Any, job: str, status: Status, **changes: Any) -> None:
    with served.composed.db.begin() as tx:
        assert jobs.swap(tx, served.scope, job, expect_status=list(Status), status=status, **changes)


def step(served: Any, job: str, number: int) -> None:
    data = {"step": number, "total_steps": N_STEPS, "train_loss": 4 / number}
    event = NewEvent(f"step-{number}", f"Step {number}/{N_STEPS}: training loss={4 / number:.2f}", type="metrics", data=data)
    with served.composed.db.begin() as tx:
        metrics.add(tx, served.scope, job, number, {"train_loss": 4 / number, "valid_loss": 5 / number})
        events.append(tx, served.scope, job, 1, [event])


def running(served: Any, client: openai.OpenAI, file: str, **more: Any) -> str:
    job = make(client, file, **more)
    move(served, job, Status.QUEUED)
    move(served, job, Status.RUNNING, estimated_finish=served.composed.services.clock.now() + 300)
    return job


@pytest.fixture(scope="module")
def done(served: Any, client: openai.OpenAI, training_file: str) -> str:
    """A job that has succeeded."""
    job = running(served, client, training_file, metadata={"team": "a"}, suffix="done")
    for number in range(1, N_STEPS + 1):
        step(served, job, number)
    table = client.files.create(file=("step_metrics.csv", CSV.encode()), purpose="user_data").id
    now = served.composed.services.clock.now()
    move(served, job, Status.SUCCEEDED, finished_at=now, result_files=[table], fine_tuned_model="ft:nano:me:done:1")
    return job


@pytest.fixture(scope="module")
def other(served: Any, client: openai.OpenAI, training_file: str) -> str:
    """A job that has failed, of other parameters."""
    method: Any = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 7}}}
    job = running(served, client, training_file, method=method, seed=3)
    step(served, job, 1)
    error = {"code": "x", "message": "It ran out.", "param": None}
    move(served, job, Status.FAILED, finished_at=served.composed.services.clock.now(), error=error)
    return job


def tunesmith(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["jobs", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def told(*arguments: object, code: int = 0) -> Any:
    """Return the one document that a verb prints with --json."""
    return json.loads(tunesmith(*arguments, "--json", code=code).stdout)


def test_list_filters_and_aligns(seen: Any, done: str, other: str) -> None:
    lines = seen("list").splitlines()
    assert lines[0].split() == ["id", "status", "method", "created", "model"]
    assert {line.index("supervised") for line in lines[1:]} == {lines[0].index("method")}
    assert [line.split("\t")[0] for line in tunesmith("list").stdout.splitlines()] == [other, done]
    for flags, expected in (
        (("--status", "failed"), [other]),
        (("--metadata", "team=a"), [done]),
        (("--model", "ft:nano:me:done:1"), [done]),
        (("--method", "dpo"), []),
    ):
        assert [job["id"] for job in told("list", *flags)["data"]] == expected
    assert told("list", "--limit", 1)["has_more"] is True
    assert "there are validating_files" in tunesmith("list", "--status", "over", code=2).stderr


def test_show_tells_all_of_a_job_by_a_piece_of_its_id(seen: Any, client: openai.OpenAI, done: str, other: str) -> None:
    lines = dict(line.split(None, 1) for line in seen("show", done[-8:]).splitlines())
    assert (lines["id"], lines["status"], lines["suffix"]) == (done, "succeeded", "done")
    assert "error\tIt ran out." in tunesmith("show", other).stdout.splitlines()
    assert told("show", done) == client.fine_tuning.jobs.retrieve(done).to_dict()
    assert tunesmith("show", "nowhere", code=1).stderr == "tunesmith: Could not find fine tune: nowhere\n"
    assert "several ids" in tunesmith("show", "ftjob-", code=1).stderr


def test_logs_results_and_curves(seen: Any, done: str, other: str, tmp_path: Path) -> None:
    assert seen("logs", done).splitlines()[-1].endswith("Step 20/20: training loss=0.20")
    assert tunesmith("logs", done).stdout.splitlines()[0].split("\t")[1:] == ["info", f"Created fine-tuning job: {done}"]
    assert len(told("logs", done)["data"]) == len(tunesmith("logs", done).stdout.splitlines())
    assert seen("results", done) == CSV
    assert tunesmith("results", done, "-o", tmp_path / "out.csv").stdout == ""
    assert (tmp_path / "out.csv").read_text() == CSV
    assert "is there already" in tunesmith("results", done, "-o", tmp_path / "out.csv", code=2).stderr
    assert told("results", done)["filename"] == "step_metrics.csv"
    assert "has no result file: it is failed" in tunesmith("results", other, code=1).stderr
    drawn = seen("plot", done).splitlines()
    assert drawn[0] == "loss   ⠒ train_loss   ● valid_loss"
    assert drawn[1] == "  5 ┤●"
    assert drawn[-1].split() == ["1", "20"]
    assert told("plot", done)["columns"] == ["step", "train_loss", "valid_loss"]
    assert "it has loss, train_loss" in tunesmith("plot", done, "--metric", "x", code=2).stderr


def test_compare_shows_what_differs(seen: Any, done: str, other: str) -> None:
    lines = [line.split() for line in seen("compare", done, other).splitlines()]
    assert ["n_epochs", "auto", "7"] in lines
    assert ["train_loss", "0.2", "4"] in lines
    assert not any(line[0] == "model" for line in lines)
    both = told("compare", done, other)
    assert [job["id"] for job in both["data"]] == [done, other]
    assert "no model that could be asked" in tunesmith("compare", done, other, "--prompt", "Hi", code=1).stderr
    assert tunesmith("compare", done, code=2).stderr.startswith("tunesmith: There are two jobs")


def test_create_looks_asks_and_tells(start: Any, client: openai.OpenAI, rows: Any, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(rows(12))
    (tmp_path / "bad.jsonl").write_text('{"messages": []}\n' * 12)
    flags = ("--model", MODEL, "--training-file", "rows.jsonl", "--n-epochs", 2, "--metadata", "team=b", "--seed", 4)
    before = len(list(client.files.list()))
    terminal = start("create", *flags)
    terminal.until("Create the job? [Y/n]")
    assert "12 examples" in terminal.text
    terminal.type("n\n")
    assert terminal.end()[0] == 130
    assert len(list(client.files.list())) == before
    terminal = start("create", *flags)
    terminal.until("Create the job? [Y/n]")
    terminal.type("\n")
    assert terminal.end()[0] == 0
    assert "is created; `tunesmith jobs watch" in terminal.text
    (made,) = told("list", "--metadata", "team=b")["data"]
    assert (made["seed"], made["method"]["supervised"]["hyperparameters"]["n_epochs"]) == (4, 2)
    body = tmp_path / "body.json"
    body.write_text(json.dumps({"model": MODEL, "training_file": made["training_file"], "metadata": {"team": "c"}}))
    assert told("create", "--from-json", body, "--metadata", "more=d")["metadata"] == {"team": "c", "more": "d"}
    assert tunesmith("create", "--from-json", body, "--no-preflight").stdout.startswith("ftjob-")
    refused = tunesmith("create", "--model", MODEL, "--training-file", tmp_path / "bad.jsonl", "--json", code=1)
    assert json.loads(refused.stderr.splitlines()[-1])["error"]["code"] == "invalid_training_file"
    assert (
        "there is no file gone.jsonl"
        in tunesmith("create", "--model", MODEL, "--training-file", "gone.jsonl", code=2).stderr
    )
    assert "needs a model" in tunesmith("create", code=2).stderr


def test_pause_resume_and_cancel(seen: Any, client: openai.OpenAI, training_file: str) -> None:
    job = make(client, training_file)
    assert seen("pause", job) == f"{job} is paused.\n"
    assert seen("resume", job) == f"{job} goes on when it is its turn.\n"
    assert told("pause", job)["status"] == "paused"
    assert told("resume", job)["status"] == "validating_files"
    assert seen("cancel", job) == f"{job} is cancelled.\n"
    assert "cannot be paused" in tunesmith("pause", job, code=1).stderr


def test_a_watch_shows_progress_and_follows_the_end(
    served: Any, start: Any, client: openai.OpenAI, training_file: str
) -> None:
    job = running(served, client, training_file)
    terminal = start("watch", job)
    terminal.until(f"{job} is running")
    for number in range(1, 11):
        step(served, job, number)
    terminal.until("50%  step 10/20")
    assert "▁  loss 0.4  5 min left" in terminal.text
    move(served, job, Status.FAILED, error={"code": "x", "message": "It ran out.", "param": None}, finished_at=9e9)
    assert terminal.end()[0] == 4
    assert terminal.text.endswith(f"{job} failed: It ran out.\n")


@pytest.mark.parametrize(
    ("keys", "code", "status"), [("d\n", 130, "running"), ("c\n", 5, "cancelled"), (CTRL_C, 130, "running")]
)
def test_ctrl_c_asks(
    served: Any, start: Any, client: openai.OpenAI, training_file: str, keys: str, code: int, status: str
) -> None:
    job = running(served, client, training_file)
    terminal = start("watch", job)
    terminal.until(f"{job} is running")
    terminal.type(CTRL_C)
    terminal.until("or [w]atch on?")
    terminal.type(keys)
    assert terminal.end()[0] == code
    assert (f"{job} was cancelled." if code == 5 else "goes on without you") in terminal.text
    assert client.fine_tuning.jobs.retrieve(job).status == status


def test_what_is_created_is_watched_and_its_log_followed(served: Any, start: Any, training_file: str) -> None:
    watching = start("create", "--model", MODEL, "--training-file", training_file, "--yes", "--watch")
    watching.until("is created; `tunesmith jobs watch ")
    job = watching.until("`").rstrip("`")
    move(served, job, Status.QUEUED)
    move(served, job, Status.RUNNING)
    following = start("logs", job, "--follow")
    following.until(f"info  Created fine-tuning job: {job}")
    step(served, job, 1)
    following.until("info  Step 1/20: training loss=4.00")
    watching.until("step 1/20")
    move(served, job, Status.SUCCEEDED, fine_tuned_model="ft:nano:me::3", finished_at=9e9)
    assert (following.end()[0], watching.end()[0]) == (0, 0)
    assert "ft:nano:me::3 is ready, " in watching.text


def test_a_watch_in_a_pipe_writes_lines_and_json_is_the_job(
    served: Any, client: openai.OpenAI, training_file: str, done: str
) -> None:
    lines = tunesmith("watch", done).stdout.splitlines()
    assert "step 20/20 loss 0.2" in lines
    assert lines[-1].startswith("ft:nano:me:done:1 is ready, ")
    assert told("watch", done)["status"] == "succeeded"
    job = running(served, client, training_file)
    command = [sys.executable, "-m", "tunesmith", "jobs", "watch", job]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while "is running" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(30) == 130
        finally:
            process.kill()
        assert process.stdout.read().endswith(f"goes on without you: `tunesmith jobs watch {job}`.\n")


def test_a_watch_survives_a_restart(
    start: Any, open_house: Callable[..., Any], tmp_path: Path, rows: Callable[[int], bytes]
) -> None:
    with open_house(tmp_path / "data") as first, openai.OpenAI(base_url=first.base_url, api_key="any") as client:
        port = httpx2.URL(first.base_url).port
        job = running(first, client, client.files.create(file=("r.jsonl", io.BytesIO(rows(10))), purpose="fine-tune").id)
        terminal = start("watch", job, base_url=first.base_url)
        terminal.until(f"{job} is running")
    terminal.until("The server does not answer; waiting for it.")
    with open_house(tmp_path / "data", port=port) as second:
        terminal.until("The server answers again.")
        now = second.composed.services.clock.now()
        move(second, job, Status.SUCCEEDED, fine_tuned_model="ft:nano:me::2", finished_at=now)
        assert terminal.end()[0] == 0
    assert "ft:nano:me::2 is ready" in terminal.text


def test_the_shell_is_offered_ids_and_nothing_where_no_server_answers(
    done: str, training_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offered(words: str) -> list[str]:
        environment = {"_TUNESMITH_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        result = CliRunner().invoke(app, [], prog_name="tunesmith", env=environment)
        assert result.stderr == ""
        return result.stdout.split()

    monkeypatch.setattr("tunesmith.cli.completion.PATIENCE_S", 20.0)  # of a machine that has other things to do
    assert offered(f"tunesmith jobs show {done[:12]}") == [done]
    assert training_file in offered("tunesmith jobs create --training-file ")
    assert offered("tunesmith jobs pl") == ["plot"]
    monkeypatch.setenv("TUNESMITH_BASE_URL", "http://127.0.0.1:9/v1")
    assert offered("tunesmith jobs show ftjob-") == []


@pytest.mark.parametrize("known", [True, False], ids=["openai", "another"])
def test_a_server_without_tunesmith_s_own_paths_does(
    known: bool, served: Any, serve_app: Any, done: str, other: str, training_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenAI's server has none of them, and its result files come in base64; it is not even asked for them."""
    whole = create_app(served.composed.services)
    asked: set[str] = set()
    if known:
        monkeypatch.setattr("tunesmith.cli.client.OPENAI", "127.0.0.1")

    async def openais(scope: Any, receive: Any, send: Any) -> None:
        asked.add(scope["path"])
        if scope["path"].startswith("/tunesmith/"):
            await JSONResponse({"error": {"message": "Invalid URL", "type": "invalid_request_error"}}, 404)(
                scope, receive, send
            )
        elif scope["path"].endswith("/content"):
            await Response(base64.b64encode(CSV.encode()))(scope, receive, send)
        else:
            await whole(scope, receive, send)

    with serve_app(openais) as root:
        monkeypatch.setenv("TUNESMITH_BASE_URL", f"{root}/v1")
        assert "status\tsucceeded" in tunesmith("show", done).stdout
        assert tunesmith("results", done).stdout == CSV
        assert told("plot", done)["columns"] == ["step", "train_loss", "valid_loss"]
        assert told("plot", other)["rows"] == [[1, 4.0]]
        assert "train_loss\t0.2\t4" in tunesmith("compare", done, other).stdout
        job = tunesmith("create", "--model", MODEL, "--training-file", training_file).stdout.strip()
        assert told("cancel", job)["status"] == "cancelled"
        assert CliRunner().invoke(app, ["models", "list"]).stdout.startswith("tunesmith-nano\t")
        for verb in ("keys list", "gc", "audit", "models add a b", "webhooks deliveries a", "preflight -"):
            refused = CliRunner().invoke(app, [*verb.split(), "--json"], input="{}")
            line = json.loads(refused.stderr)["error"]["message"]
            assert refused.exit_code == 1, verb
            assert "which is Tunesmith's own: this verb is for a Tunesmith server, named by --base-url." in line
    assert known != any(path.startswith("/tunesmith/") for path in asked)
