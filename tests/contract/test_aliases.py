"""Aliases of tuned models: every door that takes a model's name takes them, through the command line and the wire."""

from typing import Any

import httpx2
import openai
import pytest
from typer.testing import CliRunner

from far.judging import SCORE, flags, run
from near import NANO, TUNED, lay_out
from tunesmith.cli.main import app

PATH = "/tunesmith/v1/aliases"
OLD = "ft:gpt-4o-mini-2024-07-18:org::abc123"
SAID: list[Any] = [{"role": "user", "content": "Hello there"}]


def tunesmith(served: Any, *words: str) -> Any:
    return CliRunner().invoke(app, ["models", *words, "--base-url", served.base_url])


@pytest.fixture
def tuned(fresh: Any) -> Any:
    """A server of its own with a tuned model that has an old hard-coded name."""
    lay_out(fresh)
    made = tunesmith(fresh, "alias", TUNED, OLD)
    assert (made.exit_code, made.stdout.splitlines()[-1]) == (0, f"{OLD} stands for {TUNED}.")
    return fresh


@pytest.fixture
def asked(tuned: Any) -> Any:
    with openai.OpenAI(base_url=tuned.base_url, api_key="any", max_retries=0, timeout=120) as client:
        yield client


@pytest.fixture
def wire(tuned: Any) -> Any:
    with httpx2.Client(base_url=tuned.root, timeout=60, trust_env=False) as client:
        yield client


def refusal(answer: httpx2.Response) -> str:
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == "alias"
    return error["message"]


def test_an_alias_answers_in_chat_as_the_model_does(tuned: Any, asked: openai.OpenAI) -> None:
    said = {
        name: asked.chat.completions.create(model=name, messages=SAID, max_tokens=12, temperature=0)
        for name in (NANO, TUNED, OLD)
    }
    assert said[OLD].model == OLD
    assert said[OLD].choices[0].message.content == said[TUNED].choices[0].message.content
    assert said[OLD].choices[0].message.content != said[NANO].choices[0].message.content
    assert said[OLD].system_fingerprint == said[TUNED].system_fingerprint


def test_an_alias_is_listed_and_retrieved(asked: openai.OpenAI, wire: httpx2.Client) -> None:
    assert {NANO, TUNED, OLD} <= {model.id for model in asked.models.list()}
    assert asked.models.retrieve(OLD).id == OLD
    assert asked.models.retrieve(OLD).owned_by == asked.models.retrieve(TUNED).owned_by
    assert wire.post("/tunesmith/v1/models", json={"name": NANO, "aliases": ["gpt-4o-mini"]}).status_code == 200
    assert wire.get(PATH).json() == {
        "object": "list",
        "data": [
            {"object": "tunesmith.alias", "alias": "gpt-4o-mini", "model": NANO},
            {"object": "tunesmith.alias", "alias": OLD, "model": TUNED},
        ],
        "has_more": False,
    }


def test_a_job_goes_on_from_what_an_alias_stands_for(tuned: Any, asked: openai.OpenAI, rows: Any) -> None:
    file = asked.files.create(file=("rows.jsonl", rows(10)), purpose="fine-tune").id
    made = asked.fine_tuning.jobs.create(model=OLD, training_file=file)
    assert made.model == OLD
    job = tuned.composed.services.jobs.get(tuned.scope, made.id)
    assert (job.base, job.start_adapter is None) == (NANO, False)
    with pytest.raises(openai.BadRequestError, match="is tuning"):
        asked.models.delete(TUNED)


def test_a_grader_asks_by_an_alias(asked: openai.OpenAI) -> None:
    answer = run(asked, {**SCORE, "model": OLD, "range": [2, 5], "sampling_params": {"seed": 1}})
    assert flags(answer) == {}
    assert answer["metadata"]["sampled_model_name"] == OLD


def test_a_deleted_models_aliases_go_with_it_and_an_alias_deletes_nothing(tuned: Any, asked: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="is an alias of") as refused:
        asked.models.delete(OLD)
    assert "unalias" in refused.value.message
    assert asked.models.delete(TUNED).deleted
    for name in (TUNED, OLD):
        with pytest.raises(openai.NotFoundError):
            asked.models.retrieve(name)
    lay_out(tuned, TUNED[:-1] + "X")
    assert tunesmith(tuned, "alias", TUNED[:-1] + "X", OLD).exit_code == 0


def test_an_unknown_old_name_is_told_the_command(asked: openai.OpenAI) -> None:
    unknown = "ft:gpt-4o-mini-2024-07-18:org::zzz999"
    with pytest.raises(openai.NotFoundError, match="does not exist or you do not have access") as refused:
        asked.chat.completions.create(model=unknown, messages=SAID)
    assert f"`tunesmith models alias MODEL {unknown}`" in refused.value.message
    file = asked.files.create(file=("rows.jsonl", b'{"messages": []}\n'), purpose="fine-tune").id
    with pytest.raises(openai.BadRequestError) as refused_job:
        asked.fine_tuning.jobs.create(model=unknown, training_file=file)
    assert f"`tunesmith models alias TUNED-MODEL {unknown}`" in refused_job.value.message


def test_names_that_are_taken_are_refused_with_the_way_out(tuned: Any, wire: httpx2.Client) -> None:
    other = TUNED[:-1] + "2"
    lay_out(tuned, other, seed=2)
    wire.post("/tunesmith/v1/models", json={"name": NANO, "aliases": ["gpt-4o"]})
    for alias, told in (
        (NANO, "Choose another"),
        ("gpt-4o", "`tunesmith models unalias gpt-4o` frees it"),
        (TUNED, "tuned model's own"),
        (OLD, "--move"),
        ("", "letters, digits"),
        ("a b", "letters, digits"),
        ("x" * 256, "letters, digits"),
    ):
        assert told in refusal(wire.post(PATH, json={"alias": alias, "model": other})), alias
    again = wire.post(PATH, json={"alias": OLD, "model": TUNED})
    assert again.json() == {"object": "tunesmith.alias", "alias": OLD, "model": TUNED}
    base = wire.post("/tunesmith/v1/models", json={"name": NANO, "aliases": ["mine"]})
    assert base.status_code == 200
    assert tunesmith(tuned, "alias", other, "theirs").exit_code == 0
    taken = wire.post("/tunesmith/v1/models", json={"name": NANO, "aliases": ["theirs"]})
    assert taken.status_code == 400
    assert "`tunesmith models unalias theirs` frees it" in taken.json()["error"]["message"]


def test_an_alias_moves_to_the_next_model_at_once(tuned: Any, asked: openai.OpenAI) -> None:
    other = TUNED[:-1] + "3"
    lay_out(tuned, other, seed=3)
    moved = tunesmith(tuned, "alias", other, OLD, "--move")
    assert moved.stdout.splitlines()[-1] == f"{OLD} stands for {other}."
    by_name, by_alias = (asked.chat.completions.create(model=name, messages=SAID, max_tokens=4) for name in (other, OLD))
    assert by_alias.system_fingerprint == by_name.system_fingerprint


def test_unalias_frees_aliases_alone(tuned: Any, wire: httpx2.Client) -> None:
    assert tunesmith(tuned, "alias", NANO, "gpt-4o").exit_code == 0
    for alias in (OLD, "gpt-4o"):
        freed = tunesmith(tuned, "unalias", alias)
        assert (freed.exit_code, freed.stdout.splitlines()[-1]) == (0, f"{alias} is free.")
        assert tunesmith(tuned, "unalias", alias).exit_code == 1
    assert wire.get(PATH).json()["data"] == []
    for name in (NANO, TUNED):
        assert "own name and no alias" in refusal(wire.delete(f"{PATH}/{name}"))
        assert wire.get(f"/v1/models/{name}").status_code == 200
    nobody = wire.post(PATH, json={"alias": "x", "model": "nobody"})
    assert (nobody.status_code, nobody.json()["error"]["code"]) == (404, "model_not_found")


def test_another_projects_model_has_no_alias_here(tuned: Any, wire: httpx2.Client) -> None:
    theirs = "ft:tunesmith-nano:theirs::AbCdEfGh"
    lay_out(tuned, theirs, project="proj_other")
    assert wire.post(PATH, json={"alias": "x", "model": theirs}).status_code == 404
