"""Base models over HTTP and through the command line, against a served house."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from typer.testing import CliRunner

from tunesmith.cli.main import app
from tunesmith.data.folder import fingerprint
from tunesmith.domain.scope import Everywhere
from tunesmith.store import models

PATH = "/tunesmith/v1/models"
NANO = "tunesmith-nano"


@pytest.fixture
def folder(tmp_path: Path, http: httpx2.Client) -> Path:
    """A copy of the embedded base, as a user's own folder."""
    embedded = http.get(f"{PATH}/{NANO}").json()["path"]
    return Path(shutil.copytree(embedded, tmp_path / "mine"))


def _error(response: httpx2.Response) -> dict[str, Any]:
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def _tunesmith(served: Any, *words: str) -> Any:
    return CliRunner().invoke(app, ["models", *words, "--base-url", served.base_url])


def _said(result: Any) -> list[str]:
    """Return the lines of a command; the server under test logs to the same stream before them."""
    return result.stdout.splitlines()


def test_the_embedded_base_is_listed_with_its_facts(http: httpx2.Client) -> None:
    listed = http.get(PATH).json()
    assert (listed["object"], listed["has_more"]) == ("list", False)
    [nano] = [base for base in listed["data"] if base["name"] == NANO]
    assert nano == http.get(f"{PATH}/{NANO}").json()
    assert (nano["object"], nano["kind"], nano["status"]) == ("tunesmith.base_model", "embedded", "ready")
    assert nano["architecture"] == "LlamaForCausalLM"
    assert nano["context_length"] >= 1024
    assert set(nano["pins"]) == {"weights", "tokenizer", "template"}


def test_an_alias_answers_where_its_base_does(http: httpx2.Client, client: openai.OpenAI) -> None:
    added = http.post(PATH, json={"name": NANO, "aliases": ["gpt-alias"]})
    assert added.status_code == 200
    assert "gpt-alias" in added.json()["aliases"]
    assert http.get(f"{PATH}/gpt-alias").json()["name"] == NANO
    assert client.models.retrieve("gpt-alias").id == "gpt-alias"
    assert http.delete(f"{PATH}/gpt-alias").json() == {
        "id": "gpt-alias",
        "object": "tunesmith.base_model",
        "deleted": True,
    }
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-alias")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "name"),
        ({"name": "x"}, "source"),
        ({"name": "a/b", "source": "/"}, "name"),
        ({"name": "x", "source": "/nowhere"}, "source"),
        ({"name": "x", "source": "/", "aliases": ["a b"]}, "aliases"),
        ({"name": "x", "source": "/", "colour": "red"}, "colour"),
        ({"name": 1}, "name"),
        ({"name": "x", "aliases": NANO, "source": "/"}, "aliases"),
        ({"name": "x", "source": "/", "aliases": [NANO]}, "aliases"),
    ],
)
def test_a_bad_request_names_its_parameter(http: httpx2.Client, body: dict[str, Any], param: str) -> None:
    response = http.post(PATH, json=body)
    assert response.status_code == 400
    assert _error(response)["param"] == param


def test_an_unknown_base_is_a_404_in_openai_s_shape(http: httpx2.Client) -> None:
    for response in (http.get(f"{PATH}/absent"), http.delete(f"{PATH}/absent"), http.get(f"{PATH}/a%20b")):
        assert response.status_code == 404
        assert _error(response)["code"] == "model_not_found"


def test_the_embedded_base_cannot_be_removed(http: httpx2.Client) -> None:
    response = http.delete(f"{PATH}/{NANO}")
    assert response.status_code == 400
    assert "comes with Tunesmith" in _error(response)["message"]


@pytest.mark.slow
def test_a_folder_is_added_listed_and_removed_by_the_command_line(
    served: Any, client: openai.OpenAI, training_file: str, folder: Path
) -> None:
    added = _tunesmith(served, "add", "mine", str(folder), "--alias", "gpt-mine", "--alias", "gpt-other")
    assert added.exit_code == 0, added.stderr
    assert _said(added)[-1].startswith("mine (also gpt-mine, gpt-other) is ready: LlamaForCausalLM, ")
    lines = _said(_tunesmith(served, "list"))
    assert [line.split("\t")[:3] for line in lines] == [
        [NANO, "", "ready"],
        ["mine", "gpt-mine, gpt-other", "ready"],
    ]
    job = client.fine_tuning.jobs.create(model="gpt-mine", training_file=training_file)
    refused = _tunesmith(served, "remove", "mine")
    assert refused.exit_code == 1
    assert job.id in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    client.fine_tuning.jobs.cancel(job.id)

    (folder / "model.safetensors").rename(folder / "elsewhere")
    with pytest.raises(openai.BadRequestError, match="holds no weights") as error:
        client.fine_tuning.jobs.create(model="mine", training_file=training_file)
    assert error.value.code == "model_not_available"

    assert _said(_tunesmith(served, "remove", "mine"))[-1] == "mine is removed."
    assert _tunesmith(served, "remove", "mine").exit_code == 1


@pytest.mark.slow
def test_a_folder_that_cannot_be_a_base_is_refused_by_the_command_line(served: Any, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModelForCausalLM": "evil.Model"}}))
    refused = _tunesmith(served, "add", "mine", str(folder))
    assert refused.exit_code == 1
    assert "trust_remote_code is off" in refused.stderr


def test_a_base_whose_folder_vanished_is_told_by_its_path_to_jobs_and_chats(
    served: Any, client: openai.OpenAI, training_file: str, folder: Path
) -> None:
    nano = served.composed.services.bases.get(NANO)
    gone = replace(nano, name="gone", kind="folder", source=str(folder), path=str(folder), fingerprint=fingerprint(folder))
    with served.composed.db.begin() as tx:
        models.add_base(tx, Everywhere("the test lays out what others made"), gone)
    client.fine_tuning.jobs.cancel(client.fine_tuning.jobs.create(model="gone", training_file=training_file).id)
    shutil.rmtree(folder)
    said: Any = [{"role": "user", "content": "Hello"}]
    for call in (
        lambda: client.fine_tuning.jobs.create(model="gone", training_file=training_file),
        lambda: client.chat.completions.create(model="gone", messages=said),
        lambda: client.chat.completions.create(model="gone", messages=said, stream=True),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            call()
        assert caught.value.code == "model_not_available"
        assert str(folder) in caught.value.message
        assert "Put its folder back" in caught.value.message
    assert _tunesmith(served, "remove", "gone").exit_code == 0


def test_an_unknown_model_is_refused_with_the_command_that_aliases_it(
    served: Any, client: openai.OpenAI, training_file: str
) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        client.fine_tuning.jobs.create(model="gpt-4o-mini", training_file=training_file)
    assert (error.value.code, error.value.param) == ("model_not_available", None)
    command = str(error.value.message).rpartition("`tunesmith models ")[2].rstrip("`'}").split("`")[0]
    done = _tunesmith(served, *command.split())
    assert done.exit_code == 0, done.stderr
    job = client.fine_tuning.jobs.create(model="gpt-4o-mini", training_file=training_file)
    assert job.model == "gpt-4o-mini"
    client.fine_tuning.jobs.cancel(job.id)
    assert _tunesmith(served, "remove", "gpt-4o-mini").exit_code == 0
