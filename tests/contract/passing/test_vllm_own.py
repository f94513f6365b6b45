"""Bases whose vLLM server is started here, by the command line that a real one takes: its life, from start to end."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

import tunesmith
from far.judging import MODELS
from far.passing import ask
from far.vllm import vllm_python
from near import lay_out
from tunesmith.inference import keeper
from tunesmith.supervisor.tree import descendants, start_time

TUNED = "ft:own:tunesmith:mine:one"


@pytest.fixture(scope="module")
def nano() -> str:
    return str(Path(tunesmith.__file__).parent / "bases" / "tunesmith-nano")


@pytest.fixture(scope="module")
def home(open_house: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory, nano: str) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("house")
    with (
        open_house(folder / "data", vllm_python=vllm_python(folder), vllm_flags="--max-model-len 512") as served,
        httpx2.Client(base_url=served.root, timeout=120, trust_env=False) as http,
    ):
        added = http.post(MODELS, json={"name": "own", "source": nano, "kind": "vllm"})
        assert added.status_code == 200, added.text
        assert (added.json()["kind"], added.json()["upstream"]["model"]) == ("vllm", "base")
        assert added.json()["upstream"]["reasoning_efforts"] == [], "its template knows of none"
        assert added.json()["serving"]["healthy"]
        lay_out(served, TUNED, base="own")
        served.composed.services.upstreams._servers._first_pause_s = 0.01
        yield served


@pytest.fixture(scope="module")
def http(home: Any) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=home.root, timeout=60, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def client(home: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=home.base_url, api_key="any", max_retries=0) as client:
        yield client


def says(client: openai.OpenAI, name: str = TUNED) -> str:
    return str(ask(client, name).choices[0].message.content)


def server(http: httpx2.Client) -> Any:
    """Return the one process that answers here."""
    (found,) = http.get("/tunesmith/v1/samplers").json()["data"]
    return found


def gone(pids: list[int]) -> bool:
    end = time.monotonic() + 20
    while any(start_time(pid) is not None for pid in pids) and time.monotonic() < end:
        time.sleep(0.02)
    return all(start_time(pid) is None for pid in pids)


def test_it_answers_for_the_base_and_what_is_tuned_on_it(client: openai.OpenAI, http: httpx2.Client) -> None:
    assert says(client, "own") == "base"
    name = says(client)
    assert name.startswith("ft-own-tunesmith-mine-one-")
    told = server(http)
    assert (told["base"], told["kind"], told["status"], told["rows"]) == ("own", "vllm", "ready", 0)
    assert told["memory_bytes"] > 0
    serving = http.get(f"{MODELS}/own").json()["serving"]
    assert (serving["healthy"], serving["adapters"]) == (True, 1)
    assert httpx2.get(f"{serving['url']}/models").status_code == 401, "nobody else may ask it"
    command = Path(f"/proc/{told['pid']}/cmdline").read_bytes()
    assert b"VLLM_API_KEY" not in command
    assert client.completions.create(model=TUNED, prompt="Hello").choices[0].text == name


def test_one_that_dies_is_started_again_and_knows_its_adapters(
    client: openai.OpenAI, http: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = says(client)
    monkeypatch.setattr(keeper, "RESTART_AFTER_S", 0.0)
    pid = server(http)["pid"]
    family = [pid, *descendants(pid)]
    assert len(family) == 3, "the leash, the server, and a process of the server's"
    os.kill(family[1], signal.SIGKILL)
    assert gone(family)
    assert says(client) == name
    assert server(http)["pid"] != pid


def test_an_unused_one_is_ended_and_started_when_it_is_asked(client: openai.OpenAI, http: httpx2.Client, home: Any) -> None:
    name, pid = says(client), server(http)["pid"]
    family = [pid, *descendants(pid)]
    base = home.composed.services.bases.get("own")
    home.composed.own.unload(base.path)
    assert gone(family)
    serving = http.get(f"{MODELS}/own").json()["serving"]
    assert (serving["url"], serving["healthy"], serving["adapters"]) == (None, True, 0)
    assert client.models.retrieve(TUNED).id == TUNED
    assert says(client) == name


def test_one_that_does_not_start_is_told_with_its_last_words(
    client: openai.OpenAI, http: httpx2.Client, home: Any, nano: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.composed.own.unload(home.composed.services.bases.get("own").path)
    for flags, words in (("--broken", "no device has room for the model"), ("--nonsense", "unrecognized arguments")):
        settings = home.composed.settings.model_copy(update={"vllm_flags": flags})
        monkeypatch.setattr(home.composed.own, "_settings", settings)
        refused = http.post(MODELS, json={"name": "own", "source": nano, "kind": "vllm"})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "source")
        assert words in refused.json()["error"]["message"]
        with pytest.raises(openai.InternalServerError, match=words):
            says(client)
    assert http.get("/tunesmith/v1/samplers").json()["data"] == []


def test_removing_the_base_ends_it(client: openai.OpenAI, http: httpx2.Client) -> None:
    says(client, "own")
    pid = server(http)["pid"]
    family = [pid, *descendants(pid)]
    assert http.delete(f"{MODELS}/own").status_code == 200
    assert gone(family)
