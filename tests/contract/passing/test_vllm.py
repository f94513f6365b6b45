"""Bases tuned here and served by vLLM: adapters are pushed there, reloaded when forgotten, unloaded when deleted."""

import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from typer.testing import CliRunner

import tunesmith
from far.judging import ITEM, MODELS, ROOT, SCORE
from far.passing import SAID, ask
from far.vllm import MODEL, VllmServer, vllm_server
from near import lay_out
from tunesmith.cli.main import app

NANO = str(Path(tunesmith.__file__).parent / "bases" / "tunesmith-nano")
TUNED = "ft:qwen:tunesmith:mine:{}"
PROBED = ["chat", "structured_output"]


@pytest.fixture(scope="module")
def _there() -> Iterator[VllmServer]:
    with vllm_server() as server:
        yield server


@pytest.fixture
def there(_there: VllmServer) -> VllmServer:
    _there.clear()
    return _there


def register(http: httpx2.Client, url: str, **changes: Any) -> httpx2.Response:
    body = {"name": "qwen", "source": NANO, "kind": "vllm", "upstream": {"url": url}, "aliases": ["gpt-4o-mini"], **changes}
    return http.post(MODELS, json=body)


@pytest.fixture(scope="module")
def home(open_house: Callable[..., Any], tmp_path_factory: Any, _there: VllmServer) -> Iterator[Any]:
    """A server that has a base there, and three tuned models on it, one of them a checkpoint."""
    with (
        open_house(tmp_path_factory.mktemp("house"), vllm_adapters=2) as served,
        httpx2.Client(base_url=served.root, timeout=120, trust_env=False) as http,
    ):
        added = register(http, _there.url)
        assert added.status_code == 200, added.text
        for number, name in enumerate(("one", "two", "two:ckpt-step-1")):
            lay_out(served, TUNED.format(name), base="qwen", seed=number)
        served.composed.services.upstreams._servers._first_pause_s = 0.01
        yield served


@pytest.fixture(scope="module")
def http(home: Any) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=home.root, timeout=60, trust_env=False) as client:
        yield client


@pytest.fixture
def client(home: Any, there: VllmServer) -> Iterator[openai.OpenAI]:
    home.composed.services.vllm._slots.clear()  # it has loaded nothing there
    with openai.OpenAI(base_url=home.base_url, api_key="any", max_retries=0) as client:
        yield client


def says(client: openai.OpenAI, name: str) -> str:
    """Return what a model says; what is there says what it was asked as."""
    answer = ask(client, TUNED.format(name))
    assert answer.model == TUNED.format(name)
    return str(answer.choices[0].message.content)


def test_the_base_is_of_the_folder_and_of_the_server(http: httpx2.Client, there: VllmServer) -> None:
    base = http.get(f"{MODELS}/qwen").json()
    nano = http.get(f"{MODELS}/tunesmith-nano").json()
    assert (base["kind"], base["source"], base["pins"]) == ("vllm", NANO, nano["pins"])
    assert (base["upstream"]["model"], base["upstream"]["abilities"]) == (MODEL, PROBED)
    serving = {"url": there.url, "healthy": True, "detail": None, "adapters": 0, "adapters_dir": None}
    assert base["serving"] == serving
    assert nano["serving"] is None


def test_the_base_answers_there_with_the_defaults_of_openai(
    client: openai.OpenAI, there: VllmServer, conforms: Callable[..., None]
) -> None:
    answer = ask(client, "gpt-4o-mini", temperature=0.5)
    conforms(answer, "CreateChatCompletionResponse")
    assert (answer.model, answer.choices[0].message.content) == ("gpt-4o-mini", MODEL)
    options = {"stream": True, "stream_options": {"include_usage": True}}
    assert there.asked == [{"model": MODEL, "messages": SAID, "temperature": 0.5, "top_p": 1.0, **options}]
    assert there.told == []


def test_a_tuned_model_is_loaded_before_it_is_asked(client: openai.OpenAI, there: VllmServer, home: Any) -> None:
    name = says(client, "one")
    assert name.startswith("ft-qwen-tunesmith-mine-one-")
    assert there.told == [("load", name)]
    model = home.composed.services.exports._found(home.scope, TUNED.format("one"))[1]
    assert name.endswith(f"-{model.sha256[:12]}")
    assert there.adapters[name] == str(home.composed.folder.path / "blobs" / model.adapter_key)
    assert says(client, "one") == name
    assert len(there.told) == 1
    chunks = list(ask(client, TUNED.format("one"), stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == name
    assert says(client, "two:ckpt-step-1") != says(client, "two")


def test_models_have_fingerprints_of_their_own(client: openai.OpenAI, there: VllmServer) -> None:
    names = ["qwen", TUNED.format("one"), TUNED.format("two")]
    assert len({ask(client, name).system_fingerprint for name in names}) == 3


def test_many_who_ask_at_once_have_it_loaded_once(client: openai.OpenAI, there: VllmServer) -> None:
    there.gate.clear()
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(says, client, "one") for _ in range(8)]
        threading.Event().wait(0.3)
        there.gate.set()
        (name,) = {answer.result() for answer in answers}
    assert there.told == [("load", name)]


def test_what_a_restart_forgot_is_loaded_again(client: openai.OpenAI, there: VllmServer) -> None:
    name = says(client, "one")
    there.restart()
    assert says(client, "one") == name
    assert there.told == [("load", name)] * 2


def test_what_somebody_has_loaded_already_counts_as_loaded(client: openai.OpenAI, there: VllmServer, home: Any) -> None:
    name = says(client, "one")
    home.composed.services.vllm._slots.clear()  # as after a restart of this server
    assert says(client, "one") == name
    assert there.told == [("load", name)] * 2


def test_the_least_used_beyond_the_bound_is_unloaded(client: openai.OpenAI, there: VllmServer, http: httpx2.Client) -> None:
    one, two = says(client, "one"), says(client, "two")
    assert says(client, "one") == one
    third = says(client, "two:ckpt-step-1")
    assert there.told[-2:] == [("load", third), ("unload", two)]
    assert set(there.adapters) == {one, third}
    assert http.get(f"{MODELS}/qwen").json()["serving"]["adapters"] == 2
    assert says(client, "two") == two


def test_a_refusal_names_the_model_and_the_way_out(client: openai.OpenAI, there: VllmServer, http: httpx2.Client) -> None:
    def told() -> str:
        with pytest.raises(openai.APIStatusError) as caught:
            ask(client, TUNED.format("one"), stream=True)
        assert (caught.value.status_code, caught.value.type) == (502, "server_error")
        assert TUNED.format("one") in caught.value.message
        return caught.value.message

    there.max_lora_rank = 4
    assert "LoRA rank 8 is greater than max_lora_rank 4" in (message := told())
    assert "--max-lora-rank" in message
    there.max_lora_rank, there.updating = 16, False
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" in told()
    there.updating, there.mount = True, ("/elsewhere", Path("/nowhere"))
    assert "--adapters-dir" in told()
    there.mount = None
    assert says(client, "one") in there.adapters


def test_adapters_are_named_by_where_the_server_sees_them(
    client: openai.OpenAI, there: VllmServer, http: httpx2.Client, home: Any
) -> None:
    there.mount = ("/mnt/ours", home.composed.folder.path / "blobs")
    added = register(http, there.url, upstream={"url": there.url, "adapters_dir": "/mnt/ours"}, aliases=[])
    try:
        assert added.json()["serving"]["adapters_dir"] == "/mnt/ours"
        assert added.json()["aliases"] == ["gpt-4o-mini"]
        assert there.adapters[says(client, "one")].startswith("/mnt/ours/jobs/")
    finally:
        assert register(http, there.url).json()["serving"]["adapters_dir"] is None


def test_deleting_unloads(client: openai.OpenAI, there: VllmServer, home: Any) -> None:
    lay_out(home, TUNED.format("gone"), base="qwen", seed=9)
    kept, name = says(client, "one"), says(client, "gone")
    client.models.delete(TUNED.format("gone"))
    assert there.told[-1] == ("unload", name)
    assert set(there.adapters) == {kept}
    with pytest.raises(openai.NotFoundError):
        says(client, "gone")
    lay_out(home, TUNED.format("gone"), base="qwen", seed=9)
    there.updating = False  # it refuses, and is not asked in vain for long
    assert client.models.delete(TUNED.format("gone")).deleted


def test_health_is_shown(there: VllmServer, http: httpx2.Client) -> None:
    def serving() -> Any:
        (base,) = [base for base in http.get(MODELS).json()["data"] if base["name"] == "qwen"]
        return base["serving"]

    assert (serving()["healthy"], serving()["adapters"]) == (True, 0)
    there.healthy = False
    assert (serving()["healthy"], serving()["adapters"]) == (False, None)
    assert "503" in serving()["detail"]


def test_responses_comparisons_and_judges_ask_it_too(client: openai.OpenAI, there: VllmServer, http: httpx2.Client) -> None:
    name = says(client, "one")
    assert client.responses.create(model=TUNED.format("one"), input="Hello").output_text == name
    asked = {"models": ["qwen", TUNED.format("one")], "messages": SAID}
    compared = http.post("/tunesmith/v1/compare", json=asked).json()["data"]
    assert [each["completion"]["choices"][0]["message"]["content"] for each in compared] == [MODEL, name]
    for judge in ("qwen", TUNED.format("one")):
        grader = {**SCORE, "model": judge}
        graded = http.post(f"{ROOT}/run", json={"grader": grader, "item": ITEM, "model_sample": "42"}).json()
        assert graded["reward"] == 0.25, graded
    assert [body["model"] for body in there.asked[-2:]] == [MODEL, name]


def test_bare_completions_are_asked_of_it(client: openai.OpenAI, there: VllmServer, conforms: Callable[..., None]) -> None:
    name = says(client, "one")
    there.restart()
    asked = {"model": TUNED.format("one"), "prompt": ["Hello", "Bye"], "n": 2, "logprobs": 2, "echo": True, "seed": 3}
    answer = client.completions.create(**asked, max_tokens=4)
    assert (answer.model, answer.object) == (TUNED.format("one"), "text_completion")
    assert [choice.text for choice in answer.choices] == [f"{said}{name}" for said in ("Hello", "Hello", "Bye", "Bye")]
    assert {choice.finish_reason for choice in answer.choices} == {"length"}
    told = answer.choices[2].logprobs
    assert "".join(told.tokens) == f"Bye{name}"
    assert (told.token_logprobs, told.text_offset) == ([None, -0.5], [0, len(told.tokens[0])])
    assert told.top_logprobs == [None, {told.tokens[1]: -0.5, " €": -2.0}]
    assert answer.usage.prompt_tokens == 11
    options = {"stream": True, "stream_options": {"include_usage": True}, "temperature": 1.0, "top_p": 1.0}
    assert there.asked[-1] == {**asked, **options, "model": name, "max_tokens": 4}
    chunks = list(client.completions.create(model="qwen", prompt="Hello", stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == MODEL
    assert there.asked[-1] == {"model": MODEL, "prompt": "Hello", "max_tokens": 16, **options}


def test_an_export_is_as_ever(client: openai.OpenAI, http: httpx2.Client) -> None:
    export = http.get(f"{MODELS}/{TUNED.format('one')}/export", params={"format": "adapter"})
    assert export.status_code == 200


def test_it_is_tuned_here(client: openai.OpenAI, rows: Callable[[int], bytes]) -> None:
    file = client.files.create(file=("rows.jsonl", io.BytesIO(rows(10))), purpose="fine-tune").id
    for model in ("qwen", TUNED.format("one")):
        job = client.fine_tuning.jobs.create(model=model, training_file=file)
        assert client.fine_tuning.jobs.cancel(job.id).model == model


@pytest.mark.parametrize(
    ("changes", "param", "words"),
    [
        ({"source": None}, "source", "say the folder"),
        ({"upstream": None}, "upstream", "`vllm_python`"),
        ({"source": "/no/such/folder"}, "source", "no folder"),
        ({"source": "Qwen/Qwen3-0.6B"}, "source", "no folder"),
        ({"kind": None}, "source", "leave one out"),
        ({"name": "tunesmith-nano"}, "name", "taken"),
        ({"adapters_dir": "blobs"}, "upstream.adapters_dir", "whole path"),
        ({"model": "other"}, "upstream.model", f"It has: {MODEL}"),
        ({"kind": None, "source": None, "adapters_dir": "/blobs"}, "upstream.adapters_dir", "leave it out"),
    ],
)  # fmt: skip
def test_what_is_not_registered(
    http: httpx2.Client, there: VllmServer, changes: dict[str, Any], param: str, words: str
) -> None:
    there_alone = {key: value for key, value in changes.items() if key in ("adapters_dir", "model")}
    here = {key: value for key, value in changes.items() if key not in there_alone}
    body = {"name": "other", "aliases": [], "upstream": {"url": there.url, **there_alone}, **here}
    answer = register(http, there.url, **body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert words in answer.json()["error"]["message"]


def test_a_key_that_is_refused_is_told_as_ever(client: openai.OpenAI, there: VllmServer) -> None:
    there.key = "another"
    try:
        with pytest.raises(openai.APIStatusError) as caught:
            says(client, "two")
    finally:
        there.key = None
    assert caught.value.status_code == 502
    assert "refuses the key" in caught.value.message


def test_no_sampler_is_started_for_it(open_house: Callable[..., Any], tmp_path: Path, there: VllmServer) -> None:
    with (
        open_house(tmp_path, sampler_warm=True, default_base="qwen") as served,
        httpx2.Client(base_url=served.root, timeout=60, trust_env=False) as http,
        openai.OpenAI(base_url=served.base_url, api_key="any", max_retries=0) as client,
    ):
        assert register(http, there.url).status_code == 200
        assert ask(client, "whatever").choices[0].message.content == MODEL
        assert http.get("/tunesmith/v1/samplers").json()["data"] == []


def test_the_command_line_adds_it_and_tells_how_it_is(home: Any, there: VllmServer) -> None:
    def command(*words: str) -> str:
        done = CliRunner().invoke(app, ["models", *words, "--base-url", home.base_url])
        assert done.exit_code == 0, done.stderr
        return done.stdout

    flags = ["--upstream", there.url, "--kind", "vllm", "--model", MODEL, "--adapters-dir", "/mnt/ours"]
    told = command("add", "second", NANO, *flags)
    assert "second is ready: LlamaForCausalLM" in told
    assert f"{MODEL} of vLLM at {there.url}, 0 adapters." in told
    there.healthy = False
    (row,) = [line for line in command("list").splitlines() if line.startswith("second\t")]
    assert "not healthy: " in row
    assert command("remove", "second").splitlines()[-1] == "second is removed."
