"""Jobs whose training is made up, report by report, so that trackers have something to be told."""

import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest

from far.wandb import Wandb, far_wandb
from tunesmith.core.channel import Report
from tunesmith.domain.states import Status
from tunesmith.services.attempts import token_sha256
from tunesmith.services.recordings import Recordings
from tunesmith.store import jobs

RESOLVED = {"n_epochs": 2, "batch_size": 1, "learning_rate_multiplier": 1.0}


@dataclass
class House:
    """A server whose jobs train at a test's word."""

    served: Any
    client: openai.OpenAI
    file: str

    def create(self, **fields: Any) -> str:
        body: Any = {"model": "tunesmith-nano", "training_file": self.file, "seed": 3, **fields}
        return self.client.fine_tuning.jobs.create(**body).id

    def train(self, job: str, steps: range, *, attempt: int = 1, **more: Any) -> None:
        """Begin to train, or go on, and report steps."""
        composed = self.served.composed
        with composed.db.begin() as tx:
            jobs.swap(tx, self.served.scope, job, expect_status=set(Status), status=Status.QUEUED)
            jobs.swap(
                tx, self.served.scope, job, expect_status=set(Status), status=Status.RUNNING, attempt=attempt,
                started_at=1.0, token_sha256=token_sha256("secret"), resolved=RESOLVED,
            )  # fmt: skip
        self.report(job, *(self.step(n, **more) for n in steps), attempt=attempt)

    def step(self, number: int, **more: Any) -> tuple[str, str, dict[str, Any]]:
        data = {
            "step": number,
            "total_steps": 9,
            "train_loss": 1.5 / (number + 1),
            "train_mean_token_accuracy": 0.1 * number,
        }
        return "metrics", f"s{number}", {**data, **more}

    def report(self, job: str, *told: tuple[str, str, dict[str, Any]], attempt: int = 1) -> None:
        reports = [Report(kind, job, attempt, key, 1_700_000_000.0 + n, data) for n, (kind, key, data) in enumerate(told)]
        self.served.composed.attempts.report(job, attempt, "secret", reports)

    def finish(self, job: str, step: int, *, attempt: int = 1) -> None:
        key = f"jobs/{job}/attempts/{attempt}/checkpoints/{step:06d}"
        data = {"step": step, "key": key, "sha256": "0" * 64, "metrics": {"train_loss": 0.1}, "trained_tokens": 77}
        self.report(job, ("finished", "terminal", data), attempt=attempt)

    def fail(self, job: str) -> None:
        self.report(job, ("failed", "terminal", {"code": "diverged", "param": None, "message": "The loss is no number."}))

    def told(self, job: str) -> list[dict[str, Any]]:
        """Return how telling a job goes."""
        answer = self.client.get(
            f"{self.served.root}/tunesmith/v1/fine_tuning/jobs/{job}/integrations", cast_to=dict[str, Any]
        )
        return answer["data"]

    def events(self, job: str, kind: str = "metrics") -> list[Any]:
        found = self.client.fine_tuning.jobs.list_events(job, limit=1000).data
        return [event for event in reversed(found) if event.type == kind]

    def recordings(self, **more: Any) -> Recordings:
        composed = self.served.composed
        ours = composed.recordings
        given = {"trackers": ours._trackers, "every_s": 0.02, "first_pause_s": 0.2, **more}
        return Recordings(
            db=composed.db, clock=composed.services.clock, integrations=composed.services.integrations, **given
        )


def until(done: Callable[[], Any], within_s: float = 60.0) -> Any:
    end = time.monotonic() + within_s
    while not (found := done()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., Any]:
    """Return a function that waits until something holds, and returns it."""
    return until


@pytest.fixture(scope="module")
def make_house(tmp_path_factory: pytest.TempPathFactory, open_house: Any, rows: Any) -> Iterator[Callable[..., House]]:
    """Return a function that serves a fresh data folder with these settings."""
    with ExitStack() as open_ones:

        def make(**settings: Any) -> House:
            folder: Path = tmp_path_factory.mktemp("house")
            served = open_ones.enter_context(open_house(folder, **settings))
            client = open_ones.enter_context(openai.OpenAI(base_url=served.base_url, api_key="any", max_retries=0))
            file = client.files.create(file=("rows.jsonl", io.BytesIO(rows(12))), purpose="fine-tune").id
            return House(served, client, file)

        yield make


@pytest.fixture(scope="module")
def far() -> Iterator[Wandb]:
    """A server of Weights & Biases."""
    with far_wandb() as server:
        yield server


@pytest.fixture
def serve_dead() -> Iterator[Callable[[str], str]]:
    """Return a function that makes a server that takes connections and `hangs`, or `refuses` every request with 500."""
    with ExitStack() as open_ones:

        def serve(mode: str) -> str:
            listener = open_ones.enter_context(socket.create_server(("127.0.0.1", 0)))
            thread = threading.Thread(target=_answer, args=(listener, mode), daemon=True)
            thread.start()
            open_ones.callback(thread.join)
            open_ones.callback(listener.shutdown, socket.SHUT_RDWR)
            return f"http://127.0.0.1:{listener.getsockname()[1]}"

        yield serve


def _answer(listener: socket.socket, mode: str) -> None:
    taken: list[socket.socket] = []
    with suppress(OSError):
        while True:
            connection, _ = listener.accept()
            taken.append(connection)
            if mode == "refuses":
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 500 No\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
                connection.close()
    for connection in taken:
        connection.close()
