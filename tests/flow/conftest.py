"""A real server as its user starts it, a tiny base model, and the official client in front of them."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from laws.leaks import watched
from tunesmith.supervisor import tree

#: Long enough for a busy machine that imports torch; whoever waits this long has found a fault.
PATIENCE_S = float(os.environ.get("TUNESMITH_TEST_PATIENCE_S", "120"))

#: Asked more often, client and server take a fifth of a core from those that are waited for.
POLL_S = 0.1

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}<|im_end|>{% endgeneration %}\n"
    "{% else %}{{ message['content'] }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


#: A grader that tells the answers of a base with random weights apart.
LIKENESS = {
    "type": "text_similarity", "name": "likeness", "input": "{{ sample.output_text }}", "reference": "{{ item.answer }}",
    "evaluation_metric": "fuzzy_match",
}  # fmt: skip
#: Left to itself such a base talks until its context is full, and a step would take seconds.
SHORT = {
    "type": "json_schema",
    "json_schema": {"name": "said", "schema": {"type": "string", "enum": [f"it is {n}" for n in range(10)]}},
}

#: A training row of every method, by its number: a new method's tests begin with a line here.
ROWS: dict[str, Callable[[int], dict[str, Any]]] = {
    "supervised": lambda n: {"messages": [_asked(n), {"role": "assistant", "content": f"it is {n}"}]},
    "dpo": lambda n: {
        "input": {"messages": [_asked(n)]},
        "preferred_output": [{"role": "assistant", "content": f"it is {n}"}],
        "non_preferred_output": [{"role": "assistant", "content": "no idea"}],
    },
    "reinforcement": lambda n: {"messages": [_asked(n)], "answer": f"it is {n}"},
}
#: What a method's block has beside its hyperparameters, and which of those it has that the others do not.
BLOCKS: dict[str, dict[str, Any]] = {"reinforcement": {"grader": LIKENESS, "response_format": SHORT}}
KNOBS: dict[str, dict[str, Any]] = {"reinforcement": {"compute_multiplier": 0.5, "eval_interval": 10}}


def _asked(n: int) -> dict[str, str]:
    return {"role": "user", "content": f"number {n}"}


def _eventually(condition: Callable[[], Any], what: str, *, within_s: float = PATIENCE_S) -> Any:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(POLL_S)
    pytest.fail(f"not within {within_s} s: {what}")


class Server:
    """`tunesmith serve` on a free port with a data folder of its own; `kill` and `start` as often as a test likes."""

    def __init__(self, data_dir: Path, **settings: Any) -> None:
        self.data_dir = data_dir
        self.settings = settings
        self.port = 0
        self.failpoints = ""
        self.more: dict[str, str] = {}
        self.process: subprocess.Popen[str] | None = None
        self.url = ""
        self.jobs: list[str] = []

    def start(self) -> "Server":
        named = {f"TUNESMITH_{name.upper()}": str(value) for name, value in self.settings.items()}
        few = {"OMP_NUM_THREADS": "1", "TUNESMITH_TRAINING_THREADS": "1"}
        few |= {"TUNESMITH_SAMPLER_WARM": "false", "TUNESMITH_WARM_SPARES": "0"}
        environment = {**os.environ, **few, **named, **self.more}
        if self.failpoints:
            environment["TUNESMITH_FAILPOINTS"] = self.failpoints
        with (self.data_dir.parent / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tunesmith", "serve", "--port", str(self.port), "--data-dir", str(self.data_dir)],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"ready at (\S+)", line)
        assert found, line + (self.data_dir.parent / "server.log").read_text()
        self.url = found[1]
        threading.Thread(target=self.process.stdout.read, daemon=True).start()
        return self

    def kill(self, number: int = signal.SIGKILL) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(PATIENCE_S)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def boot_anew(self) -> None:
        """Let the next start be on a machine that was booted since."""
        folder = Path(tempfile.mkdtemp(dir=self.data_dir.parent))
        patch = f"from tunesmith.supervisor import tree\ntree.boot_id = lambda: {folder.name!r}\n"
        (folder / "sitecustomize.py").write_text(patch)
        self.more |= {"PYTHONPATH": f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        for job in self.jobs:
            tree.sweep(job)

    @property
    def client(self) -> openai.OpenAI:
        # reading the certificates of the world takes 50 ms of processor time, which tests that poll have better uses for
        plain = httpx2.Client(verify=False, timeout=openai.DEFAULT_TIMEOUT)
        return openai.OpenAI(base_url=self.url, api_key="any", max_retries=0, http_client=plain)

    def register(self, base: Path) -> None:
        """Register a folder as the base `tiny`."""
        with self.client as client:
            client.post(
                f"{self.url.removesuffix('/v1')}/tunesmith/v1/models",
                cast_to=dict[str, Any],
                body={"name": "tiny", "source": str(base)},
                options={"timeout": PATIENCE_S},
            )

    def upload(self, n_rows: int = 20, *, method: str = "supervised") -> str:
        body = "\n".join(json.dumps(ROWS[method](n)) for n in range(n_rows)).encode()
        with self.client as client:
            return client.files.create(file=("rows.jsonl", body), purpose="fine-tune").id

    def create(
        self,
        file: str,
        *,
        n_epochs: int = 2,
        seed: int = 7,
        method: str = "supervised",
        validation_file: str | None = None,
        block: dict[str, Any] | None = None,
    ) -> str:
        """Create a job; a reinforcement job that is given no validation file is evaluated on one of three rows."""
        if method == "reinforcement" and validation_file is None:
            validation_file = self.upload(3, method=method)
        knobs = {"n_epochs": n_epochs, "batch_size": 2, **KNOBS.get(method, {})}
        chosen: Any = {"type": method, method: {"hyperparameters": knobs, **(block or BLOCKS.get(method, {}))}}
        with self.client as client:
            job = client.fine_tuning.jobs.create(
                model="tiny", training_file=file, seed=seed, method=chosen, validation_file=validation_file
            )
        self.jobs.append(job.id)
        return job.id

    def job(self, job: str) -> Any:
        with self.client as client:
            return client.fine_tuning.jobs.retrieve(job)

    def cancel(self, job: str) -> Any:
        with self.client as client:
            return client.fine_tuning.jobs.cancel(job)

    def status(self, job: str) -> str:
        return self.job(job).status

    def reaches(self, job: str, *statuses: str) -> Any:
        """Wait until a job has one of the statuses; one that failed instead is shown."""
        found = _eventually(lambda: self._at(job, statuses), f"{job} reaches {statuses}")
        assert found.status in statuses, (found.error, self.texts(job))
        return found

    def _at(self, job: str, statuses: tuple[str, ...]) -> Any:
        # asked again and again: the official client would take more time for it than the server
        with urllib.request.urlopen(f"{self.url}/fine_tuning/jobs/{job}", timeout=PATIENCE_S) as answer:
            status = json.load(answer)["status"]
        return self.job(job) if status in (*statuses, "succeeded", "failed", "cancelled") else None

    def events(self, job: str) -> list[Any]:
        """Return all events, oldest first."""
        with self.client as client:
            return list(client.fine_tuning.jobs.list_events(job, limit=100))[::-1]

    def texts(self, job: str) -> list[str]:
        return [event.message for event in self.events(job)]

    def steps(self, job: str) -> list[int]:
        return [int(event.data["step"]) for event in self.events(job) if event.type == "metrics"]

    def results(self, job: str) -> list[dict[str, str]]:
        """Return the rows of the result file, without the columns that tell how long something took."""
        with self.client as client:
            rows = csv.DictReader(client.files.content(self.job(job).result_files[0]).text.splitlines())
            return [{name: cell for name, cell in row.items() if not name.endswith("_duration")} for row in rows]

    def task(self, job: str, attempt: int) -> dict[str, Any]:
        return json.loads((self.data_dir / "attempts" / job / str(attempt) / "task.json").read_text())

    def handle(self, job: str, attempt: int) -> dict[str, Any]:
        return json.loads((self.data_dir / "attempts" / job / str(attempt) / "handle.json").read_text())


@pytest.fixture
def eventually() -> Callable[..., Any]:
    return _eventually


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer Llama with a tokenizer of bytes, in Hugging Face format."""
    import torch
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("bases") / "tiny"
    torch.manual_seed(0)
    shape = {
        "vocab_size": 264, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 256,
    }  # fmt: skip
    LlamaForCausalLM(LlamaConfig(**shape)).save_pretrained(folder)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|im_end|>")
    fast.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def furnished(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    """A data folder in which the base `tiny` is registered; registering takes seconds of torch, so it is done once."""
    server = Server(tmp_path_factory.mktemp("furnished") / "data").start()
    server.register(tiny_base)
    server.kill(signal.SIGTERM)
    return server.data_dir


@pytest.fixture
def furnish(furnished: Path) -> Iterator[Callable[..., Server]]:
    """Return a maker of servers, not yet started, on a data folder with the base `tiny` in it."""
    made: list[Server] = []

    def make(folder: Path, **settings: Any) -> Server:
        shutil.copytree(furnished, folder, ignore=shutil.ignore_patterns("*.sock"))
        made.append(Server(folder, **settings))
        return made[-1]

    yield make
    for server in made:
        server.close()


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Server]:
    """A server that has the embedded base alone."""
    server = Server(tmp_path / "data").start()
    yield server
    server.close()


@pytest.fixture
def make_server(tmp_path: Path, furnish: Callable[..., Server]) -> Callable[..., Server]:
    """Return a starter of servers; each has a data folder of its own with the base `tiny` in it."""

    def make(*, failpoints: str = "", more: dict[str, str] | None = None, **settings: Any) -> Server:
        server = furnish(Path(tempfile.mkdtemp(dir=tmp_path)) / "data", **settings)
        server.failpoints, server.more = failpoints, more or {}
        return server.start()

    return make


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path: Path) -> Iterator[None]:
    with watched(tmp_path):
        yield
