"""The generated reference has everything that the code has, and refuses what nobody has described."""

import asyncio
import re
from collections.abc import Iterator

import pytest
import typer
from fastapi import APIRouter, FastAPI
from fastapi.routing import iter_route_contexts

from docsite import commands, errors, http, subjects, tree
from tunesmith.api.app import create_routes
from tunesmith.bootstrap import Composed, compose
from tunesmith.core.settings import Settings
from tunesmith.domain.states import Status


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composed]:
    made = compose(Settings(data_dir=tmp_path_factory.mktemp("data"), sampler_warm=False, warm_spares=0))
    yield made
    asyncio.run(made.close())


@pytest.fixture(scope="module")
def app(composed: Composed) -> FastAPI:
    return create_routes(composed.services)


@pytest.fixture(scope="module")
def pages(app: FastAPI, composed: Composed) -> dict[str, str]:
    return tree.reference(app, composed.services)


def test_every_route_has_its_section(app: FastAPI, pages: dict[str, str]) -> None:
    told = "\n".join(page for name, page in pages.items() if name.startswith("http/"))
    served = {
        f"## {verb} {route.path_format}\n"
        for route in iter_route_contexts(app.routes)
        if getattr(route, "include_in_schema", False)
        for verb in route.methods or ()
    }
    assert len(served) > 80
    assert [section for section in sorted(served) if section not in told] == []


def test_a_route_tells_who_may_and_its_fields_with_their_limits(pages: dict[str, str]) -> None:
    page = pages["http/fine-tuning"]
    create = page.partition("## POST /v1/fine_tuning/jobs\n")[2].partition("\n## ")[0]
    assert "Keys of admins and members" in create
    assert "| `training_file` | string | **required** |" in create
    assert "| `suffix` | string, at least 1 characters, at most 64 characters or null |  |" in create
    assert "### ReinforcementHyperparameters" in page
    assert "| `n_epochs` | `auto` or integer, at least 1, at most 50 | `auto` |" in page
    listed = page.partition("## GET /v1/fine_tuning/jobs\n")[2].partition("\n## ")[0]
    assert "`metadata`" in listed
    assert "`limit`" in listed
    assert "Every key" in listed
    upload = pages["http/files"].partition("## POST /v1/files\n")[2].partition("\n## ")[0]
    assert "| `file` | bytes | **required** |" in upload
    assert "Admin keys alone" in pages["http/backup"]
    assert "Needs no key" in pages["http/health"]


def test_the_apps_own_description_has_no_status_that_is_never_answered(app: FastAPI) -> None:
    assert "422" not in {
        code for verbs in app.openapi()["paths"].values() for told in verbs.values() for code in told["responses"]
    }


def test_every_verb_and_option_of_the_command_line_is_there(pages: dict[str, str]) -> None:
    told = list(commands.verbs(typer.main.get_command(commands.app), "tunesmith"))
    assert len(told) > 30
    for name, command in told:
        section = pages["commands"].partition(f"## {name}\n")[2].partition("\n## ")[0]
        assert section, name
        if name.split()[-1] not in commands.BY_SETTINGS:
            assert [
                each.opts for each in command.params if each.opts[0].startswith("--") and f"`{each.opts[0]}`" not in section
            ] == []


def test_the_table_of_settings_is_made_of_the_settings() -> None:
    page = "# Settings\n\n| name |\n|---|\n| `gone` | |\n\nAfter.\n"
    made = subjects.with_settings(page)
    assert "`gone`" not in made
    assert [line.split("`")[1] for line in made.splitlines() if line.startswith("| `")] == list(Settings.model_fields)
    assert made.endswith("\n\nAfter.\n")


def test_statuses_graders_rows_events_and_figures_are_there(composed: Composed, pages: dict[str, str]) -> None:
    for status in Status:
        assert f"| `{status}` |" in pages["states"]
    assert "`The job was cancelled`" in pages["states"]
    for kind in ("string_check", "text_similarity", "python", "score_model", "label_model", "multi"):
        assert f"## {kind}\n" in pages["graders"]
    for method in ("supervised", "dpo", "reinforcement"):
        assert f"## {method}\n" in pages["rows"]
    assert "`fine_tuning.job.cancelled`" in pages["webhooks"]
    text, _ = asyncio.run(composed.services.figures.exposition())
    shown = set(re.findall(rb"^# TYPE (tunesmith_\w+)", text, re.MULTILINE))
    assert [name for name in shown if f"`{name.decode()}`" not in pages["metrics"]] == []


def test_every_code_has_a_meaning_and_every_meaning_a_code() -> None:
    assert errors.raised_codes() == errors.CODES.keys()
    assert errors.job_codes() == errors.JOB_CODES.keys()


def test_what_nobody_has_described_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    router = APIRouter(tags=["New"])
    router.add_api_route("/v1/new", lambda: None, methods=["GET"], operation_id="new")
    app = FastAPI()
    app.include_router(router)
    with pytest.raises(http.Undescribed, match="GET /v1/new"):
        http.pages(app)
    verbs = typer.Typer()
    verbs.command("new")(lambda: None)
    verbs.command("old")(lambda: None)
    monkeypatch.setattr(commands, "app", verbs)
    with pytest.raises(http.Undescribed, match="tunesmith new"):
        commands.page()
    monkeypatch.delitem(errors.JOB_CODES, "diverged")
    with pytest.raises(http.Undescribed, match="diverged"):
        errors.page()


def test_lines_of_the_command_line_are_tried_without_being_executed() -> None:
    assert commands.refusal(["models", "add", "qwen", "./folder", "--alias", "x"]) is None
    assert commands.refusal(["serve", "--port", "1"]) is None
    assert "vreb" in (commands.refusal(["models", "vreb"]) or "")
    assert "--nope" in (commands.refusal(["models", "list", "--nope"]) or "")
    assert "export" in (commands.refusal(["models", "export"]) or "")
