import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from tunesmith.core.clock import SystemClock
from tunesmith.core.errors import InvalidRequest, ModelNotFound, StateConflict
from tunesmith.core.settings import Settings
from tunesmith.data.folder import BrokenFolder, pins
from tunesmith.domain.job import Job
from tunesmith.domain.model import Base
from tunesmith.domain.scope import Project
from tunesmith.domain.states import Status
from tunesmith.services.bases import EMBEDDED, Bases
from tunesmith.services.inspection import BaseRefused
from tunesmith.store import jobs
from tunesmith.store.session import Database

BaseFolder = Callable[[str], Path]


class Hub(Protocol):
    """The hub of conftest.py."""

    repositories: dict[str, Path]
    token: str | None
    stall: threading.Event
    asked: list[str]


WAIT_S = 120


def _inspect_here(path: Path) -> dict[str, Any]:
    """Inspect as the process does, without paying for its imports again in every test."""
    from tunesmith.lm.inspect import Refused, inspect

    try:
        return inspect(path)
    except (Refused, BrokenFolder) as error:
        raise BaseRefused(str(error)) from error


@pytest.fixture
def bases(database: Database, tmp_path: Path) -> Iterator[Bases]:
    settings = Settings(data_dir=tmp_path / "data")
    service = Bases(db=database, clock=SystemClock(), settings=settings, inspect=_inspect_here)
    yield service
    service.stop()


@pytest.fixture
def llama(base_folder: BaseFolder, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base_folder("llama"), tmp_path / "llama"))


def _settled(bases: Bases, name: str) -> Base:
    limit = time.monotonic() + WAIT_S
    while (base := bases.get(name)).status == "loading":
        assert time.monotonic() < limit
        time.sleep(0.05)
    return base


def _job(base: str, status: Status) -> Job:
    return Job(
        id=f"ftjob-{base}-{status}",
        project_id="proj_default",
        organization_id="org-default",
        model=base,
        base=base,
        start_adapter=None,
        training_file="file-x",
        validation_file=None,
        suffix=None,
        seed=1,
        method="supervised",
        method_config={},
        resolved=None,
        integrations=[],
        metadata=None,
        created_at=1.0,
        status=status,
    )


def test_a_folder_is_ready_at_once_with_its_facts(bases: Bases, llama: Path) -> None:
    base = bases.add("tiny", str(llama), ["gpt-4o-mini"])
    assert (base.status, base.kind, base.source, base.aliases) == ("ready", "folder", str(llama), ["gpt-4o-mini"])
    assert (base.architecture, base.context_length, base.pins) == ("LlamaForCausalLM", 128, pins(llama))
    assert bases.resolve("tiny") == bases.resolve("gpt-4o-mini") == bases.get("tiny") == base
    assert bases.list() == [base]


@pytest.mark.slow
def test_the_process_that_looks_at_folders_says_the_same(database: Database, tmp_path: Path, llama: Path) -> None:
    bases = Bases(db=database, clock=SystemClock(), settings=Settings(data_dir=tmp_path / "data"))
    assert bases.add("tiny", str(llama)).pins == pins(llama)
    (llama / "config.json").write_text("{}")
    with pytest.raises(InvalidRequest, match="tells no context length"):
        bases.add("other", str(llama))


def test_the_embedded_base_is_there_after_the_start_and_stays_one(bases: Bases) -> None:
    bases.start()
    bases.start()
    [base] = bases.list()
    assert (base.name, base.kind, base.status) == (EMBEDDED, "embedded", "ready")
    assert base.pins == pins(Path(base.path))
    assert base.context_length >= 1024
    assert base.weights_bytes <= 10_000_000
    assert bases.resolve(EMBEDDED) == base


def test_an_unknown_name_lists_the_bases_and_the_command_that_would_alias_it(bases: Bases, llama: Path) -> None:
    with pytest.raises(InvalidRequest) as first:
        bases.resolve("gpt-4o-mini")
    assert first.value.message.startswith("Model gpt-4o-mini is not available for fine-tuning or does not exist. ")
    assert "no base models yet" in first.value.message
    bases.add("tiny", str(llama), ["small"])
    with pytest.raises(InvalidRequest) as second:
        bases.resolve("gpt-4o-mini")
    assert second.value.message == (
        "Model gpt-4o-mini is not available for fine-tuning or does not exist. Base models here: tiny (also small). "
        "To let this name stand for one of them: `tunesmith models add tiny --alias gpt-4o-mini`"
    )
    assert second.value.body()["error"] == {
        "message": second.value.message,
        "type": "invalid_request_error",
        "param": None,
        "code": "model_not_available",
    }
    with pytest.raises(InvalidRequest) as odd:
        bases.resolve("no such/name")
    assert "--alias" not in odd.value.message


def test_the_command_of_the_message_does_what_it_says(bases: Bases, llama: Path) -> None:
    bases.add("tiny", str(llama))
    bases.add("tiny", None, ["gpt-4o-mini"])
    bases.add("tiny", str(llama), ["gpt-4o-mini", "another"])
    assert bases.resolve("gpt-4o-mini").name == "tiny"
    assert bases.get("tiny").aliases == ["gpt-4o-mini", "another"]


def test_a_default_base_answers_for_unknown_names_only(database: Database, tmp_path: Path, llama: Path) -> None:
    settings = Settings(data_dir=tmp_path, default_base="tiny")
    bases = Bases(db=database, clock=SystemClock(), settings=settings, inspect=_inspect_here)
    assert bases.find("anything") is None
    bases.add("tiny", str(llama))
    assert bases.resolve("gpt-9").name == "tiny"
    assert bases.find("ft:gone:org::abcdefgh") is None


@pytest.mark.parametrize("name", ["a b", "a/b", "", "ft:x", "ä", "a\n", "..", "-"])
def test_a_name_of_other_letters_is_refused(bases: Bases, llama: Path, name: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot name a base model") as error:
        bases.add(name, str(llama))
    assert error.value.error_param == "name"
    with pytest.raises(InvalidRequest, match="cannot name a base model") as error:
        bases.add("tiny", str(llama), [name])
    assert error.value.error_param == "aliases"
    assert bases.list() == []


def test_a_taken_name_is_refused_with_its_holder(bases: Bases, llama: Path, base_folder: BaseFolder) -> None:
    bases.add("tiny", str(llama), ["small"])
    for name, aliases in (("other", ["tiny"]), ("other", ["small"]), ("small", [])):
        with pytest.raises(InvalidRequest, match=r"tiny.*`tunesmith models remove (tiny|small)` frees"):
            bases.add(name, str(base_folder("qwen3")), aliases)
    with pytest.raises(InvalidRequest, match="tiny already, from"):
        bases.add("tiny", str(base_folder("qwen3")))
    with pytest.raises(InvalidRequest, match="cannot be an alias of itself"):
        bases.add("tiny", None, ["tiny"])
    assert [base.name for base in bases.list()] == ["tiny"]


@pytest.mark.parametrize("source", ["./nowhere", "/no/where", "~nobody/x", "three/part/id", "a b", None])
def test_a_source_that_is_nothing_is_told_what_it_can_be(bases: Bases, source: str | None) -> None:
    with pytest.raises(InvalidRequest, match=r"folder.*Hugging Face hub") as error:
        bases.add("tiny", source)
    assert error.value.error_param == "source"


def test_a_folder_that_is_refused_is_not_registered(bases: Bases, llama: Path) -> None:
    (llama / "model.safetensors").rename(llama / "pytorch_model.bin")
    with pytest.raises(InvalidRequest, match="pickled weights only") as error:
        bases.add("tiny", str(llama))
    assert error.value.error_param == "source"
    assert bases.list() == []


def test_a_folder_that_vanished_is_told_and_its_return_heals(bases: Bases, llama: Path) -> None:
    bases.add("tiny", str(llama))
    llama.rename(llama.with_name("moved"))
    with pytest.raises(InvalidRequest, match="Base model tiny cannot be used: There is no folder") as error:
        bases.resolve("tiny")
    assert error.value.error_code == "model_not_available"
    assert "tunesmith models remove tiny" in error.value.message
    llama.with_name("moved").rename(llama)
    assert bases.resolve("tiny").name == "tiny"


def test_files_that_changed_are_told_by_their_part(bases: Bases, llama: Path) -> None:
    bases.add("tiny", str(llama))
    original = (llama / "chat_template.jinja").read_text()
    (llama / "chat_template.jinja").write_text(original + " ")
    with pytest.raises(InvalidRequest, match=r"its template in .* changed"):
        bases.resolve("tiny")
    (llama / "chat_template.jinja").write_text(original)
    assert bases.resolve("tiny").pins == pins(llama)


def test_a_touched_file_is_hashed_once_and_its_new_time_is_remembered(bases: Bases, llama: Path) -> None:
    before = bases.add("tiny", str(llama))
    (llama / "model.safetensors").touch()
    again = bases.resolve("tiny")
    assert again.fingerprint != before.fingerprint
    assert again.pins == before.pins
    assert bases.get("tiny") == again


def test_removing_frees_the_name_and_leaves_the_user_s_folder(bases: Bases, llama: Path) -> None:
    bases.add("tiny", str(llama), ["small"])
    bases.remove("small")
    assert bases.get("tiny").aliases == []
    bases.remove("tiny")
    assert bases.list() == []
    assert (llama / "model.safetensors").is_file()
    with pytest.raises(ModelNotFound):
        bases.remove("tiny")


def test_the_embedded_base_cannot_be_removed_but_its_aliases_can(bases: Bases) -> None:
    bases.start()
    bases.add(EMBEDDED, None, ["gpt-4o-mini"])
    with pytest.raises(StateConflict, match="comes with Tunesmith"):
        bases.remove(EMBEDDED)
    bases.remove("gpt-4o-mini")
    assert bases.get(EMBEDDED).aliases == []


def test_a_base_under_an_unfinished_job_cannot_be_removed(bases: Bases, database: Database, llama: Path) -> None:
    bases.add("tiny", str(llama))
    project = Project("proj_default")
    with database.begin() as tx:
        jobs.add(tx, project, _job("tiny", Status.CANCELLED), events=[])
        jobs.add(tx, project, _job("tiny", Status.QUEUED), events=[])
    with pytest.raises(StateConflict, match=r"1 unfinished job: ftjob-tiny-queued\. Cancel"):
        bases.remove("tiny")
    with database.begin() as tx:
        jobs.swap(tx, project, "ftjob-tiny-queued", expect_status=[Status.QUEUED], status=Status.CANCELLED)
    bases.remove("tiny")
    assert bases.list() == []


@pytest.mark.slow
def test_a_hub_repository_is_loading_then_ready_and_deleted_with_its_base(
    bases: Bases, hub: Hub, llama: Path, tmp_path: Path
) -> None:
    (llama / "pytorch_model.bin").write_bytes(b"pickled")
    (llama / "original").mkdir()
    (llama / "original" / "consolidated.safetensors").write_bytes(b"another format")
    hub.repositories["owner/tiny"] = llama
    hub.stall.clear()
    base = bases.add("tiny", "owner/tiny", ["small"])
    assert (base.status, base.kind, base.source) == ("loading", "hub", "owner/tiny")
    limit = time.monotonic() + WAIT_S
    while bases.get("tiny").total_bytes is None:
        assert time.monotonic() < limit
        time.sleep(0.05)
    with pytest.raises(InvalidRequest, match="still being downloaded") as error:
        bases.resolve("small")
    assert error.value.error_code == "model_not_available"
    hub.stall.set()
    base = _settled(bases, "tiny")
    assert (base.status, base.detail, base.architecture) == ("ready", None, "LlamaForCausalLM")
    assert bases.resolve("small").pins == pins(llama)
    folder = tmp_path / "data" / "bases" / "tiny"
    assert {file.name for file in folder.iterdir()} == {
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    bases.remove("tiny")
    assert not folder.exists()


@pytest.mark.slow
def test_a_download_that_the_server_s_end_interrupted_goes_on_at_the_next_start(
    bases: Bases, database: Database, hub: Hub, llama: Path, tmp_path: Path
) -> None:
    hub.repositories["owner/tiny"] = llama
    hub.stall.clear()
    bases.add("tiny", "owner/tiny")
    bases.stop()
    assert bases.get("tiny").status == "loading"
    hub.stall.set()
    later = Bases(db=database, clock=SystemClock(), settings=Settings(data_dir=tmp_path / "data"))
    later.start()
    assert _settled(later, "tiny").status == "ready"
    later.stop()


def test_removing_a_base_that_is_loading_stops_its_download(bases: Bases, hub: Hub, llama: Path, tmp_path: Path) -> None:
    hub.repositories["owner/tiny"] = llama
    hub.stall.clear()
    bases.add("tiny", "owner/tiny")
    bases.remove("tiny")
    assert bases.list() == []
    assert not (tmp_path / "data" / "bases" / "tiny").exists()


@pytest.mark.slow
def test_a_failed_download_tells_why_and_can_be_tried_again(bases: Bases, hub: Hub, llama: Path) -> None:
    bases.add("tiny", "owner/tiny")
    assert "The hub knows no model owner/tiny" in str(_settled(bases, "tiny").detail)
    with pytest.raises(InvalidRequest, match="could not be loaded: The hub knows no model"):
        bases.resolve("tiny")
    hub.repositories["owner/tiny"] = llama
    assert bases.add("tiny", "owner/tiny").status == "loading"
    assert _settled(bases, "tiny").status == "ready"


@pytest.mark.slow
def test_a_gated_repository_needs_the_server_s_token(
    database: Database, hub: Hub, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repositories["owner/tiny"] = llama
    hub.token = "hf_right"
    for token, status in (("hf_wrong", "failed"), ("hf_right", "ready")):
        monkeypatch.setenv("HF_TOKEN", token)
        bases = Bases(db=database, clock=SystemClock(), settings=Settings(data_dir=tmp_path / "data"))
        bases.add("tiny", "owner/tiny")
        base = _settled(bases, "tiny")
        assert base.status == status, base.detail
        bases.stop()
        if status == "failed":
            assert "start the server with HF_TOKEN" in str(base.detail)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "pickled weights only"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer.json"),
        (lambda folder: _edit(folder / "config.json", auto_map={"AutoModelForCausalLM": "x.Y"}), "trust_remote_code is off"),
    ],
)
def test_what_can_be_refused_before_the_weights_are_fetched_is(
    bases: Bases, hub: Hub, llama: Path, spoil: Callable[[Path], object], reason: str
) -> None:
    spoil(llama)
    hub.repositories["owner/tiny"] = llama
    bases.add("tiny", "owner/tiny")
    assert reason in str(_settled(bases, "tiny").detail)
    assert not any("safetensors" in line for line in hub.asked)


def _edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
