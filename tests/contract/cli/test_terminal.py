"""Every verb in a terminal and with `--json`, at a real server; `jobs` has tests of its own."""

import itertools
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from far import Act, FarServer, said
from terminal import CTRL_C, CTRL_D, Terminals, terminals
from tunesmith.cli.main import app
from tunesmith.cli.webhooks import EVENT_TYPES
from tunesmith.core.secrets import Secrets
from tunesmith.notify.webhooks import GuardedWebhooks
from tunesmith.services.deliveries import Deliveries

#: A verb; what follows it, `{…}` made anew for each; what a terminal shows; the exit code; a key of what `--json` prints.
Row = tuple[str, str, str, int, str]
TABLE: list[Row] = [
    ("files list", "", "{file}  rows.jsonl  fine-tune", 0, "data"),
    ("files show", "{file} --rows 1", "  user: What is 0 plus one?\n  assistant: 1\n", 0, "filename"),
    ("files upload", "{rows}", "file-", 0, "id"),
    ("files download", "{file} -o {new}", " is written.", 0, "path"),
    ("files delete", "{file}", "{file} is deleted.", 0, "deleted"),
    ("files check", "{rows}", "10 examples", 0, "valid"),
    ("files split", "{rows} --training {new} --validation {new}.v", "examples", 0, "training"),
    ("files convert", "{alpaca} -o {new}", "1 examples from alpaca", 0, "examples"),
    ("graders validate", "{grader}", "is a valid grader: exact, string_check.", 0, "grader"),
    ("graders run", "{grader} {rows} --limit 2", "2 of 2 rows graded: mean reward 0; 0 with errors", 0, "mean_reward"),
    ("chat", "plain -m hi --base-url {far}", "yes\n", 0, "choices"),
    ("models list", "", "name            aliases  status", 0, "bases"),
    ("models add", "{name} --upstream {far} --model plain", "{name} is ready: plain upstream", 0, "name"),
    ("models alias", "tunesmith-nano {name}", "{name} stands for tunesmith-nano.", 0, "alias"),
    ("models unalias", "{alias}", "{alias} is free.", 0, "deleted"),
    ("models remove", "{upstream}", "{upstream} is removed.", 0, "deleted"),
    ("models export", "nope --format merged --output {new}", "tunesmith: The model `nope` does not exist", 1, "error"),
    ("export", "tunesmith-nano --format merged --output {new}", "is written", 0, "path"),
    ("webhooks add", "ci https://example.com/x", "Its secret, shown this once: whsec_", 0, "signing_secret"),
    ("webhooks list", "", "{endpoint}  ci", 0, "data"),
    ("webhooks rotate", "{endpoint}", "The new secret, shown this once: whsec_", 0, "signing_secret"),
    ("webhooks deliveries", "{endpoint}", "id  event  job", 0, "data"),
    ("webhooks remove", "{endpoint}", "{endpoint} is removed.", 0, "deleted"),
    ("webhooks test", "{hook}", "{hook} answers 200.", 0, "status_code"),
    ("webhooks redeliver", "{delivery}", "{delivery} is sent again.", 0, "status"),
    ("keys create", "ada --reader", "The key, shown this once:\nsk-", 0, "value"),
    ("keys list", "", "{key}  member", 0, "data"),
    ("keys revoke", "{key}", "{key} is revoked.", 0, "deleted"),
    ("projects create", "{name}", "proj_", 0, "id"),
    ("projects list", "", "{project}  active", 0, "data"),
    ("projects limits", "proj_default --set files=1000", "files           1000", 0, "limits"),
    ("projects archive", "{project}", "{project} is archived.", 0, "status"),
    ("integrations list", "", "id  server", 0, "data"),
    ("integrations wandb", "--remove{registered}", "The key of Weights & Biases is forgotten.", 0, "deleted"),
    ("retention show", "", "checkpoints  stay", 0, "checkpoints"),
    ("retention set", "--checkpoints-keep best", "checkpoints  all but the best of each job go", 0, "checkpoints"),
    ("gc", "--dry-run", "Would let go nothing: 0 B.", 0, "bytes"),
    ("audit", "--limit 3", "time                  actor", 0, "data"),
    ("preflight", "--model tunesmith-nano --training-file {rows}", "would pass its validation", 0, "valid"),
    ("backup", "{new}", "is backed up in", 0, "path"),
    ("restore", "{backup} --data-dir {new}", "holds what was backed up at", 0, "path"),
    ("doctor", "--data-dir {new} --port {port}", "is ready; base models: tunesmith-nano", -1, "problems"),
    # that it succeeds is shown by tests/unit/graders/test_sandbox_pool.py: it takes seconds
    ("grader-env install", "--data-dir {rows}", "tunesmith: ", 1, "error"),
]
#: Verbs with a test of their own below, or elsewhere, and why they print no JSON.
NO_JSON = {"serve": "its log is JSON by --log-format", "demo": "a show for people; tests/flow/test_demo.py runs it"}
NUMBERS = itertools.count()
GRADER = {
    "type": "string_check", "name": "exact", "operation": "eq", "input": "{{ sample.output_text }}", "reference": "4",
}  # fmt: skip


@pytest.fixture(scope="module")
def at_terminals() -> Iterator[Terminals]:
    with terminals() as opened:
        yield opened


@pytest.fixture
def place(tmp_path: Path, served: Any, http: httpx2.Client, rows: Callable[[int], bytes], far: FarServer) -> Any:
    """Return a function that makes what stands in braces in a row, and tells what it is called."""

    def file(name: str, content: bytes) -> str:
        (tmp_path / name).write_bytes(content)
        return name

    def post(path: str, body: Any, key: str = "id", **more: Any) -> str:
        answer = http.post(path, **(more or {"json": body}))
        assert answer.is_success, answer.text
        return str(answer.json()[key])

    def backup() -> str:
        folder = tmp_path / "backup"
        tar = file("backup.tar", http.post("/tunesmith/v1/backup", json={"bases": False}).content)
        shutil.unpack_archive(tmp_path / tar, folder, filter="data")
        return str(folder)

    def unique() -> str:
        return f"name{next(NUMBERS)}"

    def hook() -> str:
        """Return an endpoint that is there, and answers."""
        sender = GuardedWebhooks(hosts=[f"127.0.0.1:{far.server_port}"], look_up=lambda *_: ["127.0.0.1"])
        served.composed.services.webhooks._sender = sender
        far.acts.extend([lambda answer: answer.send(200, {})] * 9)  # endpoints of earlier tests are told, too
        return post("/v1/webhook_endpoints", {"name": "ci", "url": far.url, "event_types": list(EVENT_TYPES)})

    def delivery() -> str:
        """Return what an endpoint was told of a job."""
        endpoint = hook()
        body = {"model": "tunesmith-nano", "training_file": post("/v1/files", None, **form)}
        post(f"/v1/fine_tuning/jobs/{post('/v1/fine_tuning/jobs', body)}/cancel", None)
        composed = served.composed
        parts = {"db": composed.db, "clock": composed.services.clock, "ids": composed.services.ids}
        secrets = Secrets(composed.folder.path)
        deliveries = Deliveries(**parts, secrets=secrets, sender=composed.services.webhooks._sender, every_s=0.01)
        deliveries.start()
        try:
            for _ in range(1000):
                told = http.get(f"/tunesmith/v1/webhook_endpoints/{endpoint}/deliveries").json()["data"]
                if told and told[0]["status"] == "delivered":
                    return str(told[0]["id"])
                time.sleep(0.01)
            raise AssertionError(told)
        finally:
            deliveries.stop()

    form = {"data": {"purpose": "fine-tune"}, "files": {"file": ("rows.jsonl", rows(10))}}
    unanswered = {"name": "ci", "url": "https://example.com/x", "event_types": ["fine_tuning.job.failed"]}
    there = {"url": far.url, "model": "plain"}
    makers: dict[str, Callable[[], str]] = {
        "file": lambda: post("/v1/files", None, **form),
        "rows": lambda: file("rows.jsonl", rows(10)),
        "alpaca": lambda: file("alpaca.jsonl", b'{"instruction": "a", "output": "b"}\n'),
        "grader": lambda: file("grader.json", json.dumps(GRADER).encode()),
        "new": unique,
        "name": unique,
        "far": lambda: far.url,
        "port": lambda: served.root.rpartition(":")[2],
        "endpoint": lambda: post("/v1/webhook_endpoints", unanswered),
        "hook": hook,
        "delivery": delivery,
        "alias": lambda: post("/tunesmith/v1/aliases", {"alias": unique(), "model": "tunesmith-nano"}, "alias"),
        "upstream": lambda: post("/tunesmith/v1/models", {"name": unique(), "upstream": there}, "name"),
        "key": lambda: post("/tunesmith/v1/keys", {"name": "ada"}),
        "project": lambda: post("/v1/organization/projects", {"name": unique()}),
        "backup": backup,
        "registered": lambda: http.put("/tunesmith/v1/integrations/wandb", json={"api_key": "w" * 40}).text[:0],
    }

    def make(text: str) -> dict[str, str]:
        return {name: make() for name, make in makers.items() if f"{{{name}}}" in text}

    return make


def verbs(command: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every verb of the command line with its parameters."""
    for name, inner in getattr(command, "commands", {}).items():
        yield from verbs(inner, f"{path} {name}".strip())
    if not getattr(command, "commands", None):
        yield path, command


def test_every_verb_is_tested_in_a_terminal_and_prints_json() -> None:
    found = dict(verbs(get_command(app)))
    tested = {row[0] for row in TABLE} | set(NO_JSON)
    assert {verb for verb in found if not verb.startswith("jobs ")} == tested
    flags = {verb: [flag for each in command.params for flag in each.opts] for verb, command in found.items()}
    assert {verb for verb in found if "--json" not in flags[verb]} == set(NO_JSON)


@pytest.mark.parametrize("row", TABLE, ids=[row[0] for row in TABLE])
def test_a_verb_in_a_terminal(row: Row, place: Any, at_terminals: Terminals, served: Any, tmp_path: Path) -> None:
    verb, more, expected, code, _ = row
    made = place(more + expected)
    env = {"TUNESMITH_BASE_URL": served.base_url}
    ended, text = at_terminals.open(
        *verb.split(), *(word.format(**made) for word in more.split()), cwd=tmp_path, env=env
    ).end()
    assert expected.format(**made) in text
    assert ended == code or code < 0, text
    assert "Traceback" not in text


@pytest.mark.parametrize("row", TABLE, ids=[row[0] for row in TABLE])
def test_a_verb_as_json(row: Row, place: Any, served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verb, more, _, code, key = row
    made = place(more)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNESMITH_BASE_URL", served.base_url)
    done = CliRunner().invoke(app, [*verb.split(), *(word.format(**made) for word in more.split()), "--json"])
    assert key in json.loads(done.stdout or done.stderr), done.output
    assert done.exit_code == code or code < 0, done.output


def test_what_is_typed_wrongly_is_one_line(at_terminals: Terminals, tmp_path: Path) -> None:
    ended, text = at_terminals.open("files", "show", cwd=tmp_path).end()
    assert (ended, len(text.splitlines())) == (2, 1)
    assert "`tunesmith files show --help` shows what it takes." in text


def test_serving_ends_with_ctrl_c(at_terminals: Terminals, tmp_path: Path) -> None:
    server = at_terminals.open("serve", "--port", "0", "--data-dir", "data", "--warm-spares", "0", cwd=tmp_path)
    server.until("Tunesmith is ready at http://127.0.0.1:")
    server.type(CTRL_C)
    assert server.end()[0] in (0, 130)


def test_the_demonstration_writes_into_no_folder_of_yours(at_terminals: Terminals, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    ended, text = at_terminals.open("demo", "--keep", "mine", cwd=tmp_path).end()
    assert (ended, len(text.splitlines())) == (2, 1)
    assert "is not empty: name a folder that is new for --keep." in text


def test_a_key_is_asked_for_and_not_shown(at_terminals: Terminals, served: Any, tmp_path: Path) -> None:
    asking = at_terminals.open("integrations", "wandb", "--base-url", served.base_url, cwd=tmp_path)
    asking.until("Key of Weights & Biases: ")
    asking.type("w" * 40 + "\n")
    ended, text = asking.end()
    assert (ended, "w" * 40 in text) == (0, False)
    assert "The key is registered for wandb.ai; it is shown nowhere." in text


def test_a_file_is_fetched_as_it_was_sent(served: Any, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    csv = b"step,train_loss\n" + b"1,0.5\n" * 100_000
    file = client.files.create(file=("a/../figures.csv", csv), purpose="user_data").id
    monkeypatch.chdir(tmp_path)
    words = ["files", "download", file, "--base-url", served.base_url]
    assert CliRunner().invoke(app, words).stdout == "figures.csv is written.\n"
    assert (tmp_path / "figures.csv").read_bytes() == csv
    assert CliRunner().invoke(app, [*words, "-o", "-"]).stdout_bytes == csv
    again = CliRunner().invoke(app, words)
    assert (again.exit_code, "nothing is overwritten" in again.stderr) == (2, True)


def test_a_large_file_goes_in_parts(served: Any, client: Any, tmp_path: Path) -> None:
    line = json.dumps({"messages": [{"role": "user", "content": "x" * 1000}, {"role": "assistant", "content": "y"}]})
    (tmp_path / "large.jsonl").write_text((line + "\n") * 2000)
    words = ["files", "upload", str(tmp_path / "large.jsonl"), "--base-url", served.base_url, "--json"]
    told = json.loads(CliRunner().invoke(app, [*words, "--part-size", "1"]).stdout)
    assert client.files.content(told["id"]).read() == (tmp_path / "large.jsonl").read_bytes()
    refused = CliRunner().invoke(app, [*words, "--part-size", "1", "--purpose", "none"])
    assert (refused.exit_code, json.loads(refused.stderr)["error"]["param"]) == (1, "purpose")


@pytest.fixture
def stops(far: FarServer) -> Iterator[Act]:
    """Begin to answer, and say no more until the test is over."""

    def begin(answer: Any) -> None:
        answer.begin_stream()
        for chunk in said("Once upon", end=None):
            answer.event(chunk)
        answer.server.released.wait(60)

    far.released.clear()
    yield begin
    far.released.set()


def test_a_chat_is_answered_stopped_and_left(at_terminals: Terminals, far: FarServer, stops: Act, tmp_path: Path) -> None:
    talk = at_terminals.open("chat", "plain", "--system", "Be brief.", "--base-url", far.url, cwd=tmp_path)
    talk.until("Ctrl-D leaves.\n> ")
    talk.type("one\n")
    talk.until("one\nyes\n> ")
    far.acts.append(stops)
    talk.type("two\n")
    talk.until("Once upon")
    talk.type(CTRL_C)
    talk.until("(stopped)\n> ")
    talk.type("//three\n")
    talk.until("yes\n> ")
    assert [message["content"] for message in far.asked[-1]["body"]["messages"]] == [
        "Be brief.", "one", "yes", "two", "Once upon", "/three",
    ]  # fmt: skip
    talk.type("/nope\n")
    talk.until("There is no /nope: /help tells what there is.\n> ")
    talk.type(CTRL_C)
    talk.until("Ctrl-D or /exit leaves.\n> ")
    talk.type(CTRL_D)
    assert talk.end()[0] == 0


@pytest.mark.parametrize("models", [["plain"], ["plain", "--compare", "blind"]])
def test_an_answer_to_one_question_is_interrupted(
    models: list[str], at_terminals: Terminals, far: FarServer, stops: Act, tmp_path: Path
) -> None:
    far.acts.extend([stops] * 2)
    asking = at_terminals.open("chat", *models, "-m", "hi", "--base-url", far.url, cwd=tmp_path)
    asking.until("Once upon")
    asking.type(CTRL_C)
    ended, text = asking.end()
    assert (ended, "Traceback" in text) == (130, False)


def test_two_models_answer_side_by_side(at_terminals: Terminals, far: FarServer, tmp_path: Path) -> None:
    words = ["chat", "plain", "--compare", "blind", "-m", "hi", "--base-url", far.url]
    ended, text = at_terminals.open(*words, cwd=tmp_path, columns=60).end()
    assert ended == 0
    assert [line.split() for line in text.strip().splitlines()[-2:]] == [["plain", "blind"], ["yes", "yes"]]


def test_a_pipe_is_one_question(far: FarServer) -> None:
    words = ["chat", "plain", "--base-url", far.url]
    done = CliRunner().invoke(app, words, input="What?\n")
    assert (done.exit_code, done.stdout) == (0, "yes\n")
    assert far.asked[-1]["body"]["messages"] == [{"role": "user", "content": "What?"}]
    assert CliRunner().invoke(app, words, input="\n").exit_code == 2
    assert CliRunner().invoke(app, ["chat", "nope", "-m", "x", "--base-url", far.url]).exit_code == 1
