"""Wrong usage: whatever is typed, whatever a file holds, one line tells it with the way out, and never a traceback."""

import http.server
import json
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tunesmith.cli import client
from tunesmith.cli.main import app

CLOSED = "http://127.0.0.1:9/v1"
ROW = json.dumps({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]})
KEY = "TUNESMITH_API_KEY"


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (KEY, "TUNESMITH_ADMIN_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TUNESMITH_BASE_URL", CLOSED)
    Path("row.jsonl").write_text(ROW)
    Path("empty").touch()
    Path("binary").write_bytes(b"PAR1\0\0\x15")
    for code in ("utf-16", "utf-16-le", "utf-16-be"):
        Path(code).write_text(ROW, encoding=code)
    Path("list.json").write_text("[]")
    Path("comma.json").write_text('{"type": "string_check",}')


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("jobs cancel ''", 2, "'' is no id or name: is a variable of your script empty?"),
        ("jobs show ' '", 2, "is a variable of your script empty?"),
        ("files delete ..", 2, "'..' is no id or name"),
        ("files download .", 2, "'.' is no id or name"),
        ("keys revoke ''", 2, "is no id or name"),
        ("models remove ''", 2, "is no id or name"),
        ("webhooks test ''", 2, "is no id or name"),
        ("jobs list --base-url localhost:8000", 2, "'localhost:8000' is no address of a server: --base-url takes one like"),
        ("jobs list --base-url ''", 2, "is no address of a server"),
        ("chat x -m hi --base-url ftp://x/v1", 2, "'ftp://x' is no address of a server"),
        ("jobs list --base-url 'http://['", 2, "is no address of a server"),
        ("jobs list --base-url http://h.invalid", 3, "No server answers at http://h.invalid ("),
        ("chat x -m hi", 3, "No server answers at http://127.0.0.1:9. Start one with `tunesmith serve`"),
        ("jobs create --model", 2, "`tunesmith jobs create --help` shows what it takes."),
        ("jobs create --model x --training-file gone", 2, "there is no file gone, and no id begins so"),
        ("jobs create --model x --training-file .", 2, "there is no file ., and no id begins so"),
        ("jobs create --model x --training-file empty", 1, "empty is empty."),
        ("files upload .", 2, ". cannot be read: Is a directory."),
        ("files check empty", 1, "empty is empty."),
        ("files check .", 2, ". is a folder, not a JSONL file."),
        ("files check binary", 1, "binary is no text: unpack it"),
        ("files check utf-16", 1, "utf-16 is UTF-16, and JSONL is UTF-8: `iconv"),
        ("files split utf-16-le", 1, "utf-16-le is UTF-16"),
        ("files convert utf-16-be", 1, "utf-16-be is UTF-16"),
        ("files split row.jsonl --training a --validation a", 2, "--training and --validation both name a"),
        ("files convert row.jsonl -o gone/a", 1, "gone/a cannot be written: No such file or directory."),
        ("graders validate list.json", 2, "list.json is JSON but no object."),
        ("graders validate comma.json", 2, "comma.json is not JSON: "),
        ("graders validate utf-16", 2, "utf-16 is not UTF-8: invalid start byte at byte 1."),
        ("graders validate .", 2, ". cannot be read: Is a directory."),
        ("backup row.jsonl/a --data-dir gone", 1, "is no data folder of Tunesmith"),
        ("backup row.jsonl/a", 3, "No server answers"),
        ("demo --keep row.jsonl", 2, "row.jsonl is a file: name a folder that is new"),
    ],
)
def test_what_is_wrong_is_one_line_with_the_way_out(words: str, code: int, said: str) -> None:
    done = CliRunner().invoke(app, words)
    assert (done.exit_code, len(done.stderr.splitlines()), done.stdout) == (code, 1, ""), done.output
    assert said in done.stderr
    assert isinstance(done.exception, SystemExit)


@pytest.mark.parametrize("key", ["schlüssel", "a\nb"])
@pytest.mark.parametrize("words", ["jobs list", "chat x -m hi"])
def test_a_key_that_cannot_be_sent_is_told_and_not_shown(words: str, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, key)
    done = CliRunner().invoke(app, words)
    assert (done.exit_code, done.stderr) == (
        2,
        f"tunesmith: The key in {KEY} has a character that no key has: set it again.\n",
    )


def test_a_key_of_a_file_may_end_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "sk-a\n")
    assert client.own_key() == {"Authorization": "Bearer sk-a"}


def test_a_full_disk_and_a_closed_output_are_no_traceback() -> None:
    words = [sys.executable, "-m", "tunesmith", "files", "convert", "row.jsonl", "-o"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*words, "a"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.stderr == "tunesmith: What the command read or wrote broke off: No space left on device.\n"
    assert done.returncode == 1
    shell = ["sh", "-c", '"$@" >&-', "sh", *words, "b"]
    assert subprocess.run(shell, capture_output=True, text=True, check=False).stderr == ""


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[str]:
    """Serve files by TLS with a certificate that nobody knows."""
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=here", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    try:
        subprocess.run([*made, *names], cwd=tmp_path, capture_output=True, check=True)
    except FileNotFoundError:
        pytest.skip("there is no openssl")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")

    class Silent(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Silent)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("words", [["jobs", "list"], ["chat", "x", "-m", "hi"]])
def test_a_certificate_is_trusted_or_told(words: list[str], secured: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*words, "--base-url", secured]
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 3
    assert "is not trusted here (self-signed certificate): the variable SSL_CERT_FILE names one that is." in refused.stderr
    monkeypatch.setenv("SSL_CERT_FILE", "cert.pem")
    assert CliRunner().invoke(app, words).exit_code == 1  # it answers, and is none of ours
