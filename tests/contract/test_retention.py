"""What is kept how long, over the wire and by the command line."""

import os
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner

from near import lay_out
from tunesmith.cli.main import app
from tunesmith.domain.scope import Everywhere
from tunesmith.store import models

RETENTION, GC = "/tunesmith/v1/retention", "/tunesmith/v1/gc"
NOTHING = {
    "object": "tunesmith.retention",
    "project_id": "proj_default",
    "files": {"older_than_days": None},
    "results": {"older_than_days": None},
    "checkpoints": {"keep": None, "older_than_days": None},
    "rollouts": {"keep": None, "older_than_days": None},
    "runs": {"older_than_days": None},
}


def tunesmith(served: Any, *words: str) -> list[str]:
    told = CliRunner().invoke(app, [*words, "--base-url", served.base_url])
    assert told.exit_code == 0, told.output
    return [line for line in told.stdout.splitlines() if "[info" not in line]  # the server's own lines come out here too


def test_a_policy_is_put_whole_and_told_as_it_was_put(http: httpx2.Client) -> None:
    assert http.get(RETENTION).json() == NOTHING
    body = {"files": {"older_than_days": 30}, "checkpoints": {"keep": "best", "older_than_days": 7}, "rollouts": {"keep": 3}}
    expected = {**NOTHING, **body, "rollouts": {"keep": 3, "older_than_days": None}}
    assert http.put(RETENTION, json=body).json() == expected == http.get(RETENTION).json()
    assert http.put(RETENTION, json={}).json() == NOTHING == http.get(RETENTION).json()


@pytest.mark.parametrize(
    ("body", "param", "told"),
    [
        ({"files": {"keep": 3}}, "files.keep", "Unknown parameter"),
        ({"files": {"older_than_days": 0}}, "files.older_than_days", "must be greater than or equal to 1 (got 0)"),
        ({"checkpoints": {"keep": "worst"}}, "checkpoints.keep", "must be 'best', 'last', or a whole number from 1 to"),
        (
            {"checkpoints": {"keep": 0}},
            "checkpoints.keep",
            "must be 'best', 'last', or a whole number from 1 to 10000 (got 0)",
        ),
        ({"rollouts": {"keep": "best"}}, "rollouts.keep", "must be 'last', or a whole number from 1 to 10000 (got 'best')"),
        ({"models": {}}, "models", "Unknown parameter"),
    ],
)
def test_a_wrong_policy_names_its_field_and_what_would_do(
    http: httpx2.Client, body: dict[str, Any], param: str, told: str
) -> None:
    answer = http.put(RETENTION, json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert told in answer.json()["error"]["message"]
    assert http.get(RETENTION).json() == NOTHING


def test_a_collection_shows_first_and_lets_go_then(served: Any, http: httpx2.Client) -> None:
    blobs = served.composed.services.chat.blobs
    blobs.put("files/nobodys", [b"x" * 2048])
    assert tunesmith(served, "gc") == ["Let go nothing: 0 B."]
    os.utime(blobs.path("files/nobodys"), (1.0, 1.0))
    shown = http.post(GC, json={"dry_run": True}).json()
    [item] = shown["data"]
    assert (shown["dry_run"], shown["bytes"]) == (True, 2048)
    assert (item["kind"], item["id"], item["project_id"], item["bytes"]) == ("orphan", "files/nobodys", None, 2048)
    assert tunesmith(served, "gc", "--dry-run")[-1].startswith("Would let go 1 orphan: 2")
    assert blobs.keys("files/nobodys") != []
    assert tunesmith(served, "gc")[0].split("\t")[:3] == ["orphan", "files/nobodys", "-"]
    assert blobs.keys("files/nobodys") == []
    assert http.post(GC, json={"dry_run": 1}).status_code == 400


def test_what_every_project_has_on_the_disk_is_counted_and_measured(served: Any, http: httpx2.Client) -> None:
    lay_out(served)
    final = lay_out(served, "ft:tunesmith-nano:tunesmith:mine:IjKlMnOp")
    inside = served.composed
    early = replace(final, name=f"{final.name}:ckpt-step-1", step=1, adapter_key="jobs/x/attempts/1/checkpoints/000001")
    inside.services.chat.blobs.put(f"{early.adapter_key}/adapter_model.safetensors", [b"x" * 100])
    with inside.db.begin() as tx:
        models.add(tx, Everywhere("the test lays out what others made"), early)
    file = http.post("/v1/files", data={"purpose": "user_data"}, files={"file": ("a.txt", b"12345")}).json()
    [one] = http.get("/tunesmith/v1/storage").json()["data"]
    blobs = inside.services.chat.blobs
    n_bytes = sum(blobs.path(key).stat().st_size for key in blobs.keys(final.adapter_key))
    assert one == {
        "object": "tunesmith.project_storage", "project_id": "proj_default", "files": {"n": 1, "bytes": file["bytes"]},
        "models": {"n": 2, "bytes": 2 * n_bytes}, "checkpoints": {"n": 1, "bytes": 100},
    }  # fmt: skip


def test_the_command_line_sets_a_policy_and_shows_it(served: Any) -> None:
    told = tunesmith(served, "retention", "set", "--checkpoints-keep", "2", "--checkpoints-days", "7", "--files-days", "30")
    assert told == [
        "files\tall, once older than 30 days go",
        "results\tstay",
        "checkpoints\tall but the newest 2 of each job, once older than 7 days go",
        "rollouts\tstay",
        "runs\tstay",
    ]
    assert tunesmith(served, "retention", "show") == told
    assert tunesmith(served, "retention", "set") == [
        f"{kind}\tstay" for kind in ("files", "results", "checkpoints", "rollouts", "runs")
    ]
