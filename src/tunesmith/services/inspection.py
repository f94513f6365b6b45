"""Runs the two processes that look at base models: one inspects a folder, one fetches it from the hub; no torch in here."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tunesmith.core.environment import passed_on
from tunesmith.core.failpoint import failpoint

#: What the download needs of the server's environment beside what every child gets; the hub's token is handed to it apart.
NETWORK: Final = (
    frozenset({"HF_ENDPOINT", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"})
    | {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"}
    | {"http_proxy", "https_proxy", "no_proxy"}
)
INSPECT_S: Final = 600.0


class BaseRefused(Exception):
    """A folder or a repository is no base model for this product; the message is the reason."""


def inspect_folder(path: Path) -> dict[str, Any]:
    """Inspect a folder and return its facts: `architecture`, `context_length`, `n_parameters`, `weights_bytes`, `pins`, …

    Raises:
        BaseRefused: with the reason.
    """
    command = [sys.executable, "-m", "tunesmith.lm.inspect", str(path)]
    environment = {**passed_on(), "HF_HUB_OFFLINE": "1"}
    failpoint("inspect.spawn")
    try:
        answer = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=INSPECT_S,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BaseRefused(f"Looking at {path} took longer than {INSPECT_S:.0f} s.") from error
    return _facts(answer.stdout.splitlines(), answer.stderr)


@dataclass(slots=True)
class Download:
    """A running download; `run` waits for its end in the caller's thread, `stop` ends it from another."""

    hub_id: str
    folder: Path
    token: str | None
    stopped: bool = False
    _process: subprocess.Popen[str] | None = field(default=None, repr=False)

    def run(self, progress: Callable[[int, int], None]) -> dict[str, Any]:
        """Download and inspect, calling `progress(downloaded_bytes, total_bytes)` as it goes; return the folder's facts.

        Raises:
            BaseRefused: with the reason, also when the download was stopped.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        environment = {**passed_on(), "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        environment.update({name: os.environ[name] for name in NETWORK if name in os.environ})
        if self.token:
            environment["HF_TOKEN"] = self.token
        failpoint("fetch.spawn")
        with (
            tempfile.TemporaryFile("w+", encoding="utf-8") as log,
            subprocess.Popen(
                [sys.executable, "-m", "tunesmith.lm.fetch", self.hub_id, str(self.folder)],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            ) as process,
        ):
            self._process = process
            if self.stopped:
                process.kill()
            assert process.stdout is not None
            lines: list[str] = []
            for line in process.stdout:
                lines = [line]
                message = json.loads(line)
                if "downloaded_bytes" in message:
                    progress(int(message["downloaded_bytes"]), int(message["total_bytes"]))
            process.wait()
            log.seek(0)
            return _facts(lines, log.read())

    def stop(self) -> None:
        """End the download, if it has not ended by itself; its files stay where they are."""
        self.stopped = True
        if self._process is not None:
            self._process.kill()


def _facts(lines: list[str], errors: str) -> dict[str, Any]:
    """Read a process's last word."""
    message = json.loads(lines[-1]) if lines else {}
    if "refused" in message:
        raise BaseRefused(str(message["refused"]))
    if "pins" not in message:
        told = errors.strip().splitlines()
        raise BaseRefused(f"Looking at it ended without an answer: {told[-1] if told else 'the process was killed'}")
    return message


def folder_of(source: str) -> Path | None:
    """Return the folder that a source is, None where it is none."""
    try:
        path = Path(source).expanduser().resolve()
        return path if path.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # no such user, too long, a NUL in it
        return None
