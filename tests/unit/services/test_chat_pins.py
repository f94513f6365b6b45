"""A tuned model is served with the very tokenizer, template and weights that it was tuned on, or not at all."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tunesmith.blobs.local import LocalBlobs
from tunesmith.core.clock import SystemClock
from tunesmith.core.errors import ApiError
from tunesmith.core.ids import Ids
from tunesmith.core.settings import Settings
from tunesmith.domain.job import Job
from tunesmith.domain.model import TunedModel
from tunesmith.domain.scope import DEFAULT_ORGANIZATION, DEFAULT_PROJECT, Project
from tunesmith.domain.states import Status
from tunesmith.inference.pictures import GuardedPictures
from tunesmith.inference.resident import Resident
from tunesmith.inference.upstream import HttpUpstreams
from tunesmith.inference.vllm import VllmServers
from tunesmith.lm.inspect import inspect
from tunesmith.services.asking import Asking
from tunesmith.services.bases import Bases
from tunesmith.services.chat import Chat, ChatRequest
from tunesmith.services.passing import Passing
from tunesmith.services.vllm import Vllm
from tunesmith.store import jobs, models
from tunesmith.store.session import Database

SCOPE = Project(DEFAULT_PROJECT)
TUNED = "ft:tiny:tunesmith::AbCdEfGh"
ASKED = ChatRequest(TUNED, [{"role": "user", "content": "Hello"}])
#: A job that made a model.
JOB = Job(
    id="ftjob-x", project_id=DEFAULT_PROJECT, organization_id=DEFAULT_ORGANIZATION, model="tiny", base="tiny",
    start_adapter=None, training_file="file-x", validation_file=None, suffix=None, seed=1, method="supervised",
    method_config={}, resolved=None, integrations=[], metadata=None, created_at=1.0, status=Status.SUCCEEDED,
)  # fmt: skip


@pytest.fixture
def folder(base_folder: Callable[[str], Path], tmp_path: Path) -> Path:
    return shutil.copytree(base_folder("llama"), tmp_path / "tiny")


@pytest.fixture
def make_chat(database: Database, folder: Path, tmp_path: Path) -> Callable[[], Chat]:
    """Return a maker of chats as servers have them at their start, with a model tuned on the base `tiny`."""
    clock, settings = SystemClock(), Settings(data_dir=tmp_path)
    bases = Bases(db=database, clock=clock, settings=settings, inspect=inspect)
    base = bases.add("tiny", str(folder))
    with database.begin() as tx:
        jobs.add(tx, SCOPE, JOB)
        tuned = (TUNED, SCOPE.project_id, SCOPE.organization_id, JOB.id, "tiny", 1.0, "jobs/key", "0" * 64, base.pins)
        models.add(tx, SCOPE, TunedModel(*tuned))

    servers = HttpUpstreams(clock=clock)
    vllm = Vllm(servers, VllmServers(tmp_path, settings=settings, clock=clock), tmp_path / "blobs", n_most=1)

    def make() -> Chat:
        return Chat(
            db=database, bases=bases, blobs=LocalBlobs(tmp_path / "blobs"), clock=clock, ids=Ids(random.Random(1)),
            inference=Resident(tmp_path, settings=settings, clock=clock),
            elsewhere=Passing(Asking(servers, vllm), GuardedPictures(), clock, Ids()),
        )  # fmt: skip

    return make


def swap(file: Path, old: bytes, new: bytes) -> None:
    """Put other content of the same length and time there, as nobody who only looks at these would notice."""
    before = file.stat()
    content = file.read_bytes()
    assert old in content
    assert len(old) == len(new)
    file.write_bytes(content.replace(old, new, 1))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


SWAPS = {
    "tokenizer": ("tokenizer.json", b'"normalized": false', b'"normalized":false '),
    "template": ("chat_template.jinja", b"assistant", b"bssistant"),
    "weights": ("model.safetensors", b"\0\0\0\0", b"\0\0\0\1"),
}


@pytest.mark.anyio
@pytest.mark.parametrize("part", SWAPS)
async def test_a_swapped_file_is_refused_by_name_and_its_return_is_taken(
    make_chat: Callable[[], Chat], folder: Path, part: str
) -> None:
    chat = make_chat()
    answer = await chat.answer(SCOPE, ASKED)
    assert answer.n_prompt_tokens > 0
    name, old, new = SWAPS[part]
    swap(folder / name, old, new)
    (folder / name).touch()
    with pytest.raises(ApiError, match=f"tiny cannot be used: its {part} in .* changed since it was added"):
        await chat.answer(SCOPE, ASKED)
    swap(folder / name, new, old)
    assert (await chat.answer(SCOPE, ASKED)).fingerprint == answer.fingerprint


@pytest.mark.anyio
@pytest.mark.parametrize("part", ["tokenizer", "template"])
async def test_what_is_loaded_is_compared_whatever_size_and_time_say(
    make_chat: Callable[[], Chat], folder: Path, part: str
) -> None:
    chat = make_chat()
    name, old, new = SWAPS[part]
    swap(folder / name, old, new)
    with pytest.raises(ApiError, match="is not the one that it was added with"):
        await chat.answer(SCOPE, ASKED)
    swap(folder / name, new, old)
    assert (await chat.answer(SCOPE, ASKED)).n_prompt_tokens > 0
