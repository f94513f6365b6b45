"""Models upstream over HTTP and the command line: added with what they can do, listed, kept, refused; no key anywhere."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
import structlog
from typer.testing import CliRunner

from far import FarModel, FarServer, cuts, far_server, hangs, sends, status
from far.judging import COSINE, LABEL, MODELS, ROOT, SCORE, flags, run
from tunesmith.cli.main import app
from tunesmith.core.settings import Settings

NANO = "tunesmith-nano"
SECRET = "sk-far-7d0c5a31e2"
SAID: Any = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def _other() -> Iterator[FarServer]:
    with far_server() as server:
        yield server


@pytest.fixture
def other(_other: FarServer) -> FarServer:
    """A server upstream with models of the test's own."""
    _other.acts.clear()
    _other.asked.clear()
    _other.models.clear()
    _other.key, _other.lists = None, True
    return _other


def add(http: httpx2.Client, name: str, url: str, **more: Any) -> httpx2.Response:
    aliases = more.pop("aliases", [])
    return http.post(MODELS, json={"name": name, "upstream": {"url": url, **more}, "aliases": aliases})


def added(http: httpx2.Client, name: str, url: str, **more: Any) -> dict[str, Any]:
    """Add a model, forget it again, and return what it was found to be."""
    answer = add(http, name, url, **more)
    assert answer.status_code == 200, answer.text
    assert http.delete(f"{MODELS}/{name}").status_code == 200
    return answer.json()


def refusal(answer: httpx2.Response, param: str) -> str:
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], set(error)) == (400, param, {"message", "type", "param", "code"})
    return error["message"]


def tunesmith(served: Any, *words: str) -> Any:
    return CliRunner().invoke(app, ["models", *words, "--base-url", served.base_url])


@pytest.mark.parametrize(
    ("model", "abilities", "efforts"),
    [
        (FarModel(), ["chat", "structured_output"], []),
        (FarModel(structured=False), ["chat"], []),
        (FarModel(images=True, audio=True), ["chat", "structured_output", "images", "audio"], []),
        (FarModel(efforts=("none", "max")), ["chat", "structured_output"], ["none", "max"]),
        (FarModel(chat=False, embeddings=True), ["embeddings"], []),
        (FarModel(embeddings=True, limit="max_tokens"), ["chat", "structured_output", "embeddings"], []),
        (FarModel(heeds=False), ["chat", "images", "audio"], []),
    ],
)
def test_what_a_model_can_do_is_found_out(
    http: httpx2.Client, other: FarServer, model: FarModel, abilities: list[str], efforts: list[str]
) -> None:
    other.models["m"] = model
    base = added(http, "m", other.url)
    assert base == {
        "object": "tunesmith.base_model",
        "name": "m",
        "kind": "upstream",
        "source": other.url,
        "path": None,
        "status": "ready",
        "detail": None,
        "aliases": [],
        "created_at": base["created_at"],
        "architecture": None,
        "context_length": None,
        "n_parameters": None,
        "weights_bytes": None,
        "pins": {},
        "downloaded_bytes": None,
        "total_bytes": None,
        "serving": None,
        "upstream": {"model": "m", "key_env": None, "abilities": abilities, "reasoning_efforts": efforts},
    }
    assert sum(len(asked["raw"]) for asked in other.asked) < 100_000


def test_a_model_that_thinks_first_is_given_more_room(http: httpx2.Client, other: FarServer) -> None:
    other.models["m"] = FarModel()
    other.acts.extend([lambda answer: answer.say(None, end="length"), lambda answer: answer.say("yes")])
    assert "chat" in added(http, "m", other.url)["upstream"]["abilities"]
    assert [asked["body"].get("max_completion_tokens") for asked in other.asked[:2]] == [512, 4096]


def test_what_a_server_calls_its_models_is_not_believed_blindly(http: httpx2.Client, other: FarServer) -> None:
    other.models |= {"\ud800": FarModel(), "m": FarModel()}
    assert added(http, "judge", other.url)["upstream"]["model"] == "m"


def test_its_name_there_may_be_another(http: httpx2.Client, other: FarServer) -> None:
    other.models["org/model:7b"] = FarModel()
    assert added(http, "judge", other.url)["upstream"]["model"] == "org/model:7b"
    other.models["second"] = FarModel()
    assert added(http, "judge", f"{other.url}/", model="org/model:7b")["upstream"]["model"] == "org/model:7b"
    assert added(http, "second", other.url)["upstream"]["model"] == "second"
    told = refusal(add(http, "judge", other.url), "upstream.model")
    assert f"{other.url} has no model judge. It has: org/model:7b, second" in told
    other.lists = False
    assert added(http, "second", other.url)["upstream"]["model"] == "second"
    assert "answers 404: The model judge does not exist" in refusal(add(http, "judge", other.url), "upstream.url")


@pytest.mark.parametrize(
    ("acts", "told"),
    [
        ([status(404)] * 9, "answers 404"),
        ([status(400, "no")] * 9, "answers 400: no"),
        ([status(500, "broken")] * 20, "answers 500: broken"),
        ([status(429, "busy")] * 20, "answers 429: busy"),
        ([sends({"hello": 1})] * 20, "answers what is no chat completion"),
        ([cuts] * 20, "cannot be asked"),
    ],
)
def test_a_server_that_shows_nothing_is_refused_with_the_reason(
    http: httpx2.Client, other: FarServer, acts: Any, told: str
) -> None:
    other.models["m"] = FarModel()
    other.acts.extend(acts)
    assert told in refusal(add(http, "m", other.url), "upstream.url")
    assert http.get(f"{MODELS}/m").status_code == 404


def test_a_server_that_is_busy_with_one_question_is_refused_whole(http: httpx2.Client, other: FarServer) -> None:
    """What a model can do is not guessed from a server that could not say."""
    other.models["m"] = FarModel(embeddings=True)
    other.acts.extend([lambda answer: answer.say("yes"), status(503), status(503)])
    assert "answers 503" in refusal(add(http, "m", other.url), "upstream.url")


@pytest.mark.parametrize(
    ("body", "param", "told"),
    [
        ({"url": "http://127.0.0.1:9/v1"}, "upstream.url", "cannot be asked"),
        ({"url": "http://nobody.invalid/v1"}, "upstream.url", "cannot be asked"),
        ({"url": "ftp://127.0.0.1/v1"}, "upstream.url", "is no base URL"),
        ({"url": "127.0.0.1:8000"}, "upstream.url", "is no base URL"),
        ({"url": "http://me:secret@127.0.0.1/v1"}, "upstream.url", "is no base URL"),
        ({"url": "http://127.0.0.1:70000/v1"}, "upstream.url", "is no base URL"),
        ({"url": "http://127.0.0.1/v1?key=1"}, "upstream.url", "is no base URL"),
        ({"url": "http://[::1/v1"}, "upstream.url", "is no base URL"),
        ({"url": "http://127.0.0.1/\nv1"}, "upstream.url", "is no base URL"),
        ({"url": "http://127.0.0.1:9/v1", "key_env": "FAR_KEY"}, "upstream.key_env", "FAR_KEY of the server's environment"),
        ({"url": "http://127.0.0.1:9/v1", "key_env": "PATH"}, "upstream.key_env", "ends in KEY or TOKEN"),
        ({"url": "http://127.0.0.1:9/v1", "key_env": "TUNESMITH_ADMIN_KEY"}, "upstream.key_env", "ends in KEY or TOKEN"),
        ({"url": "http://127.0.0.1:9/v1", "key_env": "hf_token"}, "upstream.key_env", "ends in KEY or TOKEN"),
        ({"url": "http://127.0.0.1:9/v1", "key": "x"}, "upstream.key", "upstream.key"),
        ({}, "upstream.url", "upstream.url"),
    ],
)
def test_a_bad_request_names_its_parameter(
    http: httpx2.Client, monkeypatch: pytest.MonkeyPatch, body: Any, param: str, told: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", "x")
    monkeypatch.setenv("TUNESMITH_ADMIN_KEY", "x")
    assert told in refusal(http.post(MODELS, json={"name": "m", "upstream": body}), param)


@pytest.mark.parametrize(
    "url",
    [
        "", "http://", "http://\u2028/v1", "http://[v1.x]/", "http://%zz/", "http://a..b/v1", "http://x:0/", "http://xn--/",
        "http://" + "a" * 3000, "http://*/", "http://127.0.0.1:9/%", "http://127.0.0.1:9/\x7f", "HTTP://127.0.0.1:9",
        "http://127.0.0.1:9/v1/../..//", "http://-/", "http://a_b/", f"http://{'a' * 64}/", "http://0x7f.1:9/",
    ],
)  # fmt: skip
def test_no_url_makes_the_server_fail(http: httpx2.Client, url: str) -> None:
    assert refusal(add(http, "m", url), "upstream.url")


def test_a_name_is_one_models(http: httpx2.Client, other: FarServer) -> None:
    other.models["m"] = FarModel()
    assert "is taken by tunesmith-nano" in refusal(add(http, NANO, other.url), "name")
    assert "taken by base model tunesmith-nano" in refusal(add(http, "m", other.url, aliases=[NANO]), "aliases")
    assert refusal(add(http, "m/x", other.url), "name")
    both = {"name": "m", "source": "/", "upstream": {"url": other.url}}
    assert "leave one out" in refusal(http.post(MODELS, json=both), "source")
    assert add(http, "m", other.url, aliases=["n"]).json()["aliases"] == ["n"]
    assert "is taken by m, from" in refusal(add(http, "m", "http://127.0.0.1:9/v1"), "name")
    assert "is taken by m, from" in refusal(add(http, "n", other.url), "name")
    assert "There is a base model m already" in refusal(http.post(MODELS, json={"name": "m", "source": "/"}), "name")
    assert http.post(MODELS, json={"name": "m", "aliases": ["o"]}).json()["aliases"] == ["n", "o"]
    assert http.delete(f"{MODELS}/n").status_code == http.delete(f"{MODELS}/m").status_code == 200


def test_adding_it_again_looks_at_it_again(http: httpx2.Client, other: FarServer) -> None:
    other.models |= {"m": FarModel(structured=False), "x": FarModel()}
    assert add(http, "judge", other.url, model="m").json()["upstream"]["abilities"] == ["chat"]
    other.models["m"] = FarModel(efforts=("high",))
    again = add(http, "judge", other.url, aliases=["also"]).json()
    assert (again["upstream"]["model"], again["upstream"]["reasoning_efforts"], again["aliases"]) == (
        "m",
        ["high"],
        ["also"],
    )
    assert http.get(f"{MODELS}/also").json() == again
    assert add(http, "judge", other.url, model="x").json()["upstream"]["model"] == "x"
    assert http.delete(f"{MODELS}/judge").status_code == 200


def test_it_is_listed_and_is_no_base(
    served: Any, http: httpx2.Client, client: openai.OpenAI, other: FarServer, training_file: str
) -> None:
    other.models["m"] = FarModel()
    assert add(http, "m", other.url, aliases=["gpt-far"]).status_code == 200
    for name in ("m", "gpt-far"):
        with pytest.raises(openai.BadRequestError, match=r"it can be asked, and not be tuned\. Base models here") as caught:
            client.fine_tuning.jobs.create(model=name, training_file=training_file)
        assert (caught.value.code, caught.value.param) == ("model_not_available", "model")
        assert client.models.retrieve(name).owned_by == "system"
        with pytest.raises(openai.BadRequestError, match=f"`tunesmith models remove {name}`"):
            client.models.delete(name)
    assert [model.id for model in client.models.list()] == [NANO, "m", "gpt-far"]
    with pytest.raises(openai.BadRequestError) as unknown:
        client.fine_tuning.jobs.create(model="gpt-4o-mini", training_file=training_file)
    assert f"Base models here: {NANO}. To let" in unknown.value.message
    assert [base["name"] for base in http.get(MODELS).json()["data"]] == [NANO, "m"]
    job = client.fine_tuning.jobs.create(model=NANO, training_file=training_file)
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    assert http.delete(f"{MODELS}/m").status_code == 200


def test_a_server_whose_default_base_is_upstream_starts_and_judges(open_house: Any, tmp_path: Path, far: FarServer) -> None:
    with open_house(tmp_path / "data") as served, httpx2.Client(base_url=served.root, trust_env=False) as http:
        assert add(http, "judge", far.url).status_code == 200
    with (
        open_house(tmp_path / "data", default_base="judge", sampler_warm=True) as served,
        openai.OpenAI(base_url=served.base_url, api_key="any", max_retries=0) as client,
    ):
        assert run(client, {**SCORE, "model": "gpt-4o"})["reward"] == 0.75


def test_it_is_added_listed_and_removed_by_the_command_line(served: Any, other: FarServer) -> None:
    other.models["far/m"] = FarModel(images=True, efforts=("low", "high"))
    done = tunesmith(served, "add", "judge", "--upstream", other.url, "--model", "far/m", "--alias", "gpt-far")
    assert done.exit_code == 0, done.stderr
    words = "far/m upstream: chat, structured output, images, reasoning effort (low, high)"
    assert done.stdout.splitlines()[-1] == f"judge (also gpt-far) is ready: {words}."
    rows = [line.split("\t") for line in tunesmith(served, "list").stdout.splitlines()]
    assert ["judge", "gpt-far", "ready", words, other.url] in rows
    assert tunesmith(served, "remove", "judge").stdout.splitlines()[-1] == "judge is removed."
    assert tunesmith(served, "remove", "judge").exit_code == 1
    refused = tunesmith(served, "add", "judge", "--upstream", "http://127.0.0.1:9/v1")
    assert (refused.exit_code, "cannot be asked" in refused.stderr) == (1, True)
    wrong = tunesmith(served, "add", "judge", "--model", "m")
    assert (wrong.exit_code, wrong.stderr) == (
        2,
        "tunesmith: --model, --key-env and --adapters-dir belong to --upstream URL.\n",
    )


def test_the_doctor_tells_it_from_a_base(served: Any, http: httpx2.Client, other: FarServer) -> None:
    other.models["m"] = FarModel()
    assert add(http, "judge", other.url).status_code == 200
    flags_given = ["--port", served.root.rpartition(":")[2], "--default-base", "judge"]
    told = CliRunner().invoke(app, ["doctor", *flags_given])
    assert f"is ready; base models: {NANO}; models upstream: judge" in told.stdout
    assert f"default_base is judge, which is no base model of the server: {NANO}." in told.stdout
    assert http.delete(f"{MODELS}/judge").status_code == 200


def test_a_registration_outlives_the_server_and_its_key_is_kept_nowhere(
    open_house: Any, tmp_path: Path, other: FarServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    other.models |= {"m": FarModel(embeddings=True)}
    other.key = SECRET
    graders = [{**SCORE, "model": "m"}, {**LABEL, "model": "m"}, COSINE]
    seen: list[str] = []
    with structlog.testing.capture_logs() as logs:
        with open_house(tmp_path / "data") as served, httpx2.Client(base_url=served.root, trust_env=False) as http:
            for answer in (add(http, "m", other.url), add(http, "m", other.url, key_env="FAR_API_KEY")):
                assert answer.status_code == 400
                seen.append(answer.text)
            assert f"{other.url} answers 401: Incorrect API key provided: None" in seen[0]
            monkeypatch.setenv("FAR_API_KEY", "sk-wrong")
            seen.append(refusal(add(http, "m", other.url, key_env="FAR_API_KEY"), "upstream.url"))
            assert "Incorrect API key provided: Bearer [key]" in seen[-1]
            monkeypatch.setenv("FAR_API_KEY", f"{SECRET}\n")
            seen += [add(http, "m", other.url, key_env="FAR_API_KEY").text, http.get(MODELS).text]
            assert '"key_env":"FAR_API_KEY"' in seen[-1]
        assert {asked["authorization"] for asked in other.asked} == {f"Bearer {SECRET}"}
        with (
            open_house(tmp_path / "data") as served,
            httpx2.Client(base_url=served.root, trust_env=False) as http,
            openai.OpenAI(base_url=served.base_url, api_key="any", max_retries=0) as client,
        ):
            assert [flags(run(client, grader, "a")) for grader in graders] == [{}, {}, {}]
            other.acts.extend([status(400, f"you sent Bearer {SECRET}"), sends(f"what is {SECRET}?".encode(), 403)])
            other.acts.append(lambda answer: answer.say(f"my key is {SECRET}"))
            answers = [run(client, graders[0]) for _ in range(3)]
            assert all("[key]" in str(flags(answer)) for answer in answers)
            seen += [str(answers)]
            monkeypatch.delenv("FAR_API_KEY")
            for verb, grader in [(verb, grader) for verb in ("validate", "run") for grader in graders]:
                body = {"grader": grader} | ({"model_sample": "a", "item": {"answer": "b"}} if verb == "run" else {})
                told = http.post(f"{ROOT}/{verb}", json=body)
                seen.append(told.text)
                assert told.status_code == 400
                assert "variable FAR_API_KEY of the server's environment, and that is not set" in told.text
    assert logs
    kept = [path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file()]
    for secret in (SECRET, "sk-wrong"):
        assert secret not in "".join(seen)
        assert secret not in str(logs)
        assert not any(secret.encode() in content for content in kept)
    assert any(b"FAR_API_KEY" in content for content in kept)
    assert SECRET not in str(Settings())


def test_a_server_that_says_nothing_is_not_added(
    http: httpx2.Client, other: FarServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunesmith.services.abilities.LONGEST_S", 0.3)
    other.models["m"] = FarModel()
    other.acts.extend([hangs] * 4)
    assert "gave no answer within 0.3 s" in refusal(add(http, "m", other.url), "upstream.url")
