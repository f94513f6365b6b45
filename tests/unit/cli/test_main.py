import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tunesmith.cli.client import own_key
from tunesmith.cli.flags import SECRET
from tunesmith.cli.main import app
from tunesmith.core.settings import Settings
from tunesmith.domain import recording

CLOSED = "http://127.0.0.1:9/v1"


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def other_server() -> Iterator[str]:
    """Serve something that is no Tunesmith."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>")

        do_DELETE = do_GET

        def log_message(self, format: str, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_version_is_the_package_s() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.output.startswith("tunesmith 0.")


def test_the_command_line_starts_without_heavy_packages() -> None:
    heavy = {
        "torch",
        "transformers",
        "fastapi",
        "sqlalchemy",
        "openai",
        "tokenizers",
        "huggingface_hub",
        "rich",
        "httpx2",
        "pydantic",
    }
    probe = f"import sys; import tunesmith.cli.main; print(sorted({heavy!r} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_every_setting_but_secrets_is_a_flag_with_its_meaning() -> None:
    result = CliRunner().invoke(app, ["serve", "--help"])
    for name, field in Settings.model_fields.items():
        flag = f"--{name.replace('_', '-')}"
        assert (flag in result.output) == (name not in SECRET)
        assert field.description


@pytest.mark.parametrize("verb", [["list"], ["add", "x", "y"], ["remove", "x"]])
def test_no_server_is_one_line_with_the_way_out_and_code_3(verb: list[str]) -> None:
    result = CliRunner().invoke(app, ["models", *verb, "--base-url", CLOSED])
    assert result.exit_code == 3
    assert result.stderr.splitlines() == [
        "tunesmith: No server answers at http://127.0.0.1:9. "
        "Start one with `tunesmith serve`, or name yours with --base-url."
    ]


def test_the_address_comes_from_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_BASE_URL", "http://127.0.0.1:10/v1")
    assert "127.0.0.1:10" in CliRunner().invoke(app, ["models", "list"]).stderr


def test_another_server_is_told(other_server: str) -> None:
    result = CliRunner().invoke(app, ["models", "remove", "x", "--base-url", other_server])
    assert result.exit_code == 1
    assert "is it a Tunesmith server?" in result.stderr


@pytest.mark.parametrize(
    ("flags", "variables", "toml", "expected"),
    [
        (["--port", "70000"], {}, "", "port cannot be '70000' (flag)"),
        ([], {"TUNESMITH_PORT": "seven"}, "", "port cannot be 'seven' (TUNESMITH_PORT)"),
        ([], {}, "training_slots = 0", "training_slots cannot be 0 (tunesmith.toml)"),
        ([], {}, "colour = 'red'", "there is no setting 'colour'"),
        ([], {}, "port = ", "tunesmith.toml is not TOML"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_its_source(
    flags: list[str], variables: dict[str, str], toml: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    Path("tunesmith.toml").write_text(toml)
    result = CliRunner().invoke(app, ["doctor", *flags])
    assert result.exit_code == 2
    assert expected.replace("'70000'", "70000") in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_the_doctor_tells_where_each_setting_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("tunesmith.toml").write_text("validation_slots = 3\nport = 1\n")
    monkeypatch.setenv("TUNESMITH_TRAINING_SLOTS", "1")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    result = CliRunner().invoke(app, ["doctor", "--port", "9"])
    told = {line.split()[0]: line.split()[1:] for line in result.output.splitlines() if line.startswith("  ")}
    assert told["port"] == ["9", "flag"]
    assert told["training_slots"] == ["1", "TUNESMITH_TRAINING_SLOTS"]
    assert told["validation_slots"] == ["3", "tunesmith.toml"]
    assert told["host"] == ["127.0.0.1", "default"]
    assert told["hf_token"][-1] == "HF_TOKEN"
    assert "hf_secret" not in result.output
    assert "does not answer" in result.output


def test_the_doctor_tells_of_trackers_and_shows_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_MLFLOW_URL", "https://me:hush@ml.example.com")
    for kind in recording.NAMES:
        monkeypatch.setitem(recording.PACKAGES, kind, "no_such_package" if kind == "mlflow" else "json")
    flags = ["--port", "9", "--tensorboard-dir", str(tmp_path), "--database-url", "postgresql://me:hush@db/x"]
    said = CliRunner().invoke(app, ["doctor", *flags]).output
    assert "hush" not in said
    assert "https://me:…@ml.example.com" in said
    told = said.partition("Trackers\n")[2].partition("Graders\n")[0].splitlines()
    assert [line.split(None, 1)[1] for line in told] == [
        "installed; the server knows whether there is a key, and does not answer",
        f"told of every job, at {tmp_path}",
        "not installed: pip install 'tunesmith[mlflow]'",
        "not told (trackio_dir names where to); installed",
    ]
    assert "mlflow_url names MLflow, whose package is not installed: pip install 'tunesmith[mlflow]'." in said


def test_the_doctor_says_what_is_wrong_and_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    flags = ["--port", "9", "--host", "0.0.0.0", "--auth", "off", "--data-dir", str(tmp_path / "file" / "data")]
    result = CliRunner().invoke(app, ["doctor", *flags])
    assert result.exit_code == 1
    problems = result.output.partition("Problems\n")[2]
    assert "auth is off and host is 0.0.0.0" in problems
    assert "cannot be written: choose another with --data-dir" in problems


def test_the_doctor_knows_another_server(other_server: str) -> None:
    port = other_server.removesuffix("/v1").rpartition(":")[2]
    assert "is not a Tunesmith server" in CliRunner().invoke(app, ["doctor", "--port", port]).output


def test_what_is_typed_wrongly_is_one_line_and_code_2() -> None:
    result = CliRunner().invoke(app, ["models", "lst"], prog_name="tunesmith")
    assert result.exit_code == 2
    assert result.stderr == (
        "tunesmith: No such command 'lst'. Did you mean 'list'? `tunesmith models --help` shows what it takes.\n"
    )


def test_with_json_an_error_is_an_error_object_on_stderr() -> None:
    result = CliRunner().invoke(app, ["keys", "list", "--json", "--base-url", CLOSED])
    assert (result.exit_code, result.stdout) == (3, "")
    error = json.loads(result.stderr)["error"]
    assert error["type"] == "connection_error"
    assert error["message"].startswith("No server answers at")
    assert not CliRunner().invoke(app, ["models", "list", "--base-url", CLOSED]).stderr.startswith("{")


@pytest.mark.parametrize(
    ("variables", "host", "expected"),
    [
        ({"OPENAI_API_KEY": "theirs"}, "10.0.0.1", "theirs"),
        ({"OPENAI_API_KEY": "theirs", "TUNESMITH_API_KEY": "ours"}, "10.0.0.1", "ours"),
        ({"OPENAI_API_KEY": "theirs", "TUNESMITH_ADMIN_KEY": "ours"}, "api.openai.com", "theirs"),
        ({"TUNESMITH_API_KEY": "ours"}, "api.openai.com", None),
    ],
)
def test_each_server_gets_its_own_key(
    variables: dict[str, str], host: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "TUNESMITH_API_KEY", "TUNESMITH_ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert own_key(host) == ({"Authorization": f"Bearer {expected}"} if expected else {})


@pytest.mark.skipif(shutil.which("fish") is None, reason="there is no fish")
def test_fish_is_offered_verbs_flags_and_files() -> None:
    """By the script that `--install-completion` puts in its place; zsh and bash ask in the same way."""
    Path("few.jsonl").touch()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    script = subprocess.run(
        ["tunesmith"], env={"PATH": path, "_TUNESMITH_COMPLETE": "source_fish"}, capture_output=True, text=True, check=True
    ).stdout

    def offered(words: str) -> list[str]:
        asked = subprocess.run(
            ["fish", "--no-config", "-c", f"{script}\ncomplete -C '{words}'"],
            env={"PATH": path, "HOME": "."},
            capture_output=True,
            text=True,
            check=True,
        )
        return [line.split("\t")[0] for line in asked.stdout.splitlines()]

    assert offered("tunesmith jobs pl") == ["plot"]
    assert offered("tunesmith jobs create --mod") == ["--model"]
    assert offered("tunesmith files check f") == ["few.jsonl"]
