"""Exports through the command line and the wire, from a real server: whole or not at all, and gone with the client."""

import contextlib
import io
import os
import signal
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import peft
import pytest
import torch
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from near import NANO, TUNED, lay_out
from near.folders import make_folder
from tunesmith.cli.main import app

PATH = "/tunesmith/v1/models"
ALIAS = "ft:gpt-4o-mini-2024-07-18:org::abc123"


@pytest.fixture(scope="module")
def house(served: Any, http: httpx2.Client) -> Any:
    """A server with a tuned model that has an alias."""
    lay_out(served)
    assert http.post("/tunesmith/v1/aliases", json={"alias": ALIAS, "model": TUNED}).status_code == 200
    return served


def tunesmith(house: Any, *words: str) -> Any:
    return CliRunner().invoke(app, ["models", "export", *words, "--base-url", house.base_url])


def exporters() -> list[int]:
    """Return the processes that write exports."""
    found: list[int] = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                words = (path / "cmdline").read_bytes().split(b"\0")
                parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if b"tunesmith.lm.export" in words and parent == os.getpid():
                found.append(int(path.name))
    return found


def gone(within_s: float = 10.0) -> bool:
    end = time.monotonic() + within_s
    while exporters() and time.monotonic() < end:
        time.sleep(0.02)
    return exporters() == []


def error(answer: httpx2.Response, status: int = 400) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    return answer.json()["error"]


def test_adapter_and_merged_by_the_command_line_say_the_same(house: Any, tmp_path: Path) -> None:
    for form, name in (("adapter", TUNED), ("merged", ALIAS)):
        made = tunesmith(house, name, "--format", form, "--output", str(tmp_path / "out" / form))
        assert made.exit_code == 0, made.output
        assert made.stdout.splitlines()[-1].startswith(f"{tmp_path / 'out' / form} is written (")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["adapter", "merged"]
    base = house.composed.services.bases.get(NANO)
    tokens = torch.tensor([[1, 278, 205, 1119, 290, 409]])
    with torch.no_grad():
        plain = AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.float32)
        before = plain(tokens).logits.log_softmax(-1)
        tuned = peft.PeftModel.from_pretrained(plain, str(tmp_path / "out" / "adapter"))(tokens).logits.log_softmax(-1)
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "merged", dtype=torch.float32)
        whole = merged(tokens).logits.log_softmax(-1)
    assert (tuned - before).abs().max() > 1
    assert (tuned - whole).abs().max() < 0.3  # the base is kept in bf16, and so is what is merged
    readme = (tmp_path / "out" / "adapter" / "README.md").read_text()
    for told in (TUNED, base.pins["weights"], base.pins["template"], "--format merged"):
        assert told in readme
    assert gone()


def test_a_gguf_file_comes_as_it_is(house: Any, tmp_path: Path) -> None:
    made = tunesmith(house, TUNED, "--format", "gguf", "--type", "f16", "--output", str(tmp_path / "mine.gguf"))
    assert made.exit_code == 0, made.output
    assert (tmp_path / "mine.gguf").read_bytes()[:4] == b"GGUF"
    assert [path.name for path in tmp_path.iterdir()] == ["mine.gguf"]


def test_a_base_is_exported_too_but_for_an_adapter(house: Any, http: httpx2.Client) -> None:
    answer = http.get(f"{PATH}/{NANO}/export", params={"format": "merged"})
    assert answer.headers["content-type"] == "application/x-tar"
    assert answer.headers["content-disposition"] == 'attachment; filename="tunesmith-nano-merged.tar"'
    folder = Path(house.composed.services.bases.get(NANO).path)
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as tar:
        weights = tar.extractfile("model.safetensors")
        assert weights is not None
        assert weights.read() == (folder / "model.safetensors").read_bytes()
    told = error(http.get(f"{PATH}/{NANO}/export", params={"format": "adapter"}))
    assert (told["param"], "has no adapter" in told["message"]) == ("format", True)


def test_refusals_name_the_field_and_the_way_out(house: Any, http: httpx2.Client, tmp_path: Path) -> None:
    assert error(http.get(f"{PATH}/{TUNED}/export"))["param"] == "format"
    assert error(http.get(f"{PATH}/{TUNED}/export", params={"format": "onnx"}))["param"] == "format"
    assert error(http.get(f"{PATH}/{TUNED}/export", params={"format": "gguf", "more": "1"}))["param"] == "more"
    assert error(http.get(f"{PATH}/{TUNED}/export", params={"format": "merged", "type": "f16"}))["param"] == "type"
    assert error(http.get(f"{PATH}/nobody/export", params={"format": "merged"}), 404)["code"] == "model_not_found"
    lay_out(house, f"{TUNED}:theirs", project="proj_other")
    assert error(http.get(f"{PATH}/{TUNED}:theirs/export", params={"format": "adapter"}), 404)
    folder = make_folder(tmp_path / "mixtral", "mixtral")
    house.composed.services.bases.add("experts", str(folder))
    told = error(http.get(f"{PATH}/experts/export", params={"format": "gguf"}))
    assert "llama, mistral, qwen2, qwen3, gemma" in told["message"]
    refused = tunesmith(house, "experts", "--format", "gguf", "--output", str(tmp_path / "x.gguf"))
    assert (refused.exit_code, "llama, mistral" in refused.output) == (1, True)
    assert [path.name for path in tmp_path.iterdir()] == ["mixtral"]
    assert gone()


def test_nothing_is_written_over(house: Any, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for form, output in (("adapter", "there"), ("gguf", "there"), ("merged", "file")):
        (tmp_path / "file").write_text("mine")
        made = tunesmith(house, TUNED, "--format", form, "--output", str(tmp_path / output))
        assert made.exit_code == 2, made.output
    assert (tmp_path / "file").read_text() == "mine"


@pytest.fixture(scope="module")
def large(house: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A base of more bytes than lie in the buffers between the server and a client."""
    folder = make_folder(tmp_path_factory.mktemp("large") / "base", "llama", vocab_size=1_000_000)
    house.composed.services.bases.add("large", str(folder))
    yield "large"
    house.composed.services.bases.remove("large")


def asked(house: Any, timeout_s: float) -> threading.Thread:
    """Ask for an export and leave after a while; return when its process is stopped, so that it cannot end by itself."""

    def ask() -> None:
        with contextlib.suppress(httpx2.HTTPError):
            httpx2.get(f"{house.root}{PATH}/{NANO}/export?format=merged", timeout=timeout_s, trust_env=False)

    asking = threading.Thread(target=ask)
    asking.start()
    while not exporters():
        time.sleep(0.002)
    for pid in exporters():
        os.kill(pid, signal.SIGSTOP)
    return asking


def test_a_client_that_leaves_before_the_first_byte_ends_the_process(house: Any) -> None:
    asking = asked(house, 1.0)
    assert len(exporters()) == 1
    assert gone()
    asking.join()


def test_the_servers_end_ends_the_process(open_house: Any, tmp_path: Path) -> None:
    with open_house(tmp_path / "data") as own:
        asking = asked(own, 60.0)
        own.composed.services.exports.close()
        assert gone()
        asking.join()


@pytest.mark.anyio
async def test_a_reader_that_leaves_in_the_middle_ends_the_process(house: Any, large: str) -> None:
    begun = await house.composed.services.exports.open(house.scope, large, "merged", "auto")
    async with contextlib.aclosing(begun.chunks()) as chunks:
        await anext(chunks)
        assert len(exporters()) == 1
    await begun.close()
    assert exporters() == []


def test_an_export_that_breaks_off_is_a_failure_and_leaves_nothing(house: Any, tmp_path: Path) -> None:
    name = f"{TUNED}:huge"
    lay_out(house, name, strength=1e8)  # f16 cannot hold that, which is found when its turn comes
    made = tunesmith(house, name, "--format", "gguf", "--type", "f16", "--output", str(tmp_path / "x.gguf"))
    assert (made.exit_code, "broke off" in made.output) == (1, True), made.output
    assert list(tmp_path.iterdir()) == []
    assert gone()


def test_a_model_that_is_deleted_meanwhile_is_exported_whole(house: Any, http: httpx2.Client, large: str) -> None:
    name = "ft:large:tunesmith::AbCdEfGh"
    lay_out(house, name, base=large)
    with http.stream("GET", f"{PATH}/{name}/export", params={"format": "merged"}) as answer:
        assert http.delete(f"/v1/models/{name}").status_code == 200
        n_bytes = sum(len(chunk) for chunk in answer.iter_bytes())
        assert n_bytes == int(answer.headers["content-length"])
    assert error(http.get(f"{PATH}/{name}/export", params={"format": "merged"}), 404)
