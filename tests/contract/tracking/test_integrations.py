"""Integrations over HTTP and on the command line: registered, never shown, asked for by a job, refused with the way out."""

from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from typer.testing import CliRunner

from tunesmith.cli.integrations import app
from tunesmith.cli.tracking import trackers
from tunesmith.core.settings import Settings
from tunesmith.domain.recording import PACKAGES
from tunesmith.notify.processes import TrackerProcesses

KEY = "w" * 40
PATH = "/tunesmith/v1/integrations"
ASKED: Any = [{"type": "wandb", "wandb": {"project": "p", "name": None, "entity": "e", "tags": ["t"]}}]


@pytest.fixture(scope="module")
def house(make_house: Any) -> Any:
    return make_house()


@pytest.fixture
def http(house: Any) -> Any:
    with httpx2.Client(base_url=house.served.root) as client:
        yield client
        client.delete(f"{PATH}/wandb")


def test_a_job_without_a_key_is_refused_with_the_command_and_with_one_it_is_echoed(
    house: Any, http: httpx2.Client, conforms: Any
) -> None:
    with pytest.raises(openai.BadRequestError, match="tunesmith integrations wandb") as caught:
        house.create(integrations=ASKED)
    assert caught.value.param == "integrations"
    assert http.put(f"{PATH}/wandb", json={"api_key": KEY}).status_code == 200
    job = house.client.fine_tuning.jobs.retrieve(house.create(integrations=ASKED))
    conforms(job, "FineTuningJob")
    assert job.integrations is not None
    shown = job.integrations[0].to_dict()
    assert shown == {"type": "wandb", "wandb": {**ASKED[0]["wandb"], "run_id": job.id}}
    assert house.told(job.id) == [
        {
            "object": "tunesmith.job_integration", "type": "wandb", "project": "p", "status": "waiting", "url": None,
            "last_step": None, "last_sent_at": None, "error": None, "failures": 0, "next_try_at": None,
        }
    ]  # fmt: skip


def test_every_tracker_is_told_of_with_where_it_is_and_without_its_password(
    http: httpx2.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {each["type"]: each for each in http.get(PATH).json()["trackers"]}
    assert list(told) == ["wandb", "tensorboard", "mlflow", "trackio"]
    assert told["wandb"] == {
        "object": "tunesmith.tracker", "type": "wandb", "name": "Weights & Biases", "tells": "jobs_that_ask", "place": None,
        "setting": "wandb_mode", "install": None,
    }  # fmt: skip
    assert (told["trackio"]["tells"], told["trackio"]["setting"]) == ("no_job", "trackio_dir")
    monkeypatch.setitem(PACKAGES, "mlflow", "json")
    settings = Settings(
        wandb_mode="offline", tensorboard_dir=tmp_path / "boards", mlflow_url="http://user:secret@mlflow.example.com"
    )
    here = TrackerProcesses(tmp_path, settings)
    assert [here.place(kind) for kind in ("wandb", "tensorboard", "trackio")] == [
        str(tmp_path / "wandb"), str(tmp_path / "boards"), None,
    ]  # fmt: skip
    shown = here.place("mlflow") or ""
    assert "mlflow.example.com" in shown
    assert "secret" not in shown
    assert list(here.always) == ["tensorboard", "mlflow"]


def test_two_runs_of_one_job_in_one_project_are_refused(house: Any, http: httpx2.Client, conforms: Any) -> None:
    http.put(f"{PATH}/wandb", json={"api_key": KEY})
    with pytest.raises(openai.BadRequestError, match="more than once") as caught:
        house.create(integrations=ASKED * 2)
    assert caught.value.param == "integrations"
    other = [{"type": "wandb", "wandb": {"project": "q"}}]
    job = house.client.fine_tuning.jobs.retrieve(house.create(integrations=ASKED + other))
    conforms(job, "FineTuningJob")
    assert len(house.told(job.id)) == 2


def test_what_is_not_installed_is_named_with_its_extra(
    house: Any, http: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.domain import recording

    monkeypatch.setitem(recording.PACKAGES, "wandb", "no_such_package")
    with pytest.raises(openai.BadRequestError, match=r"pip install 'tunesmith\[wandb\]'") as caught:
        house.create(integrations=ASKED)
    assert caught.value.param == "integrations"
    answer = http.put(f"{PATH}/wandb", json={"api_key": KEY})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "api_key")


def test_a_key_is_shown_nowhere_and_lies_sealed(house: Any, http: httpx2.Client) -> None:
    made = http.put(f"{PATH}/wandb", json={"api_key": KEY, "base_url": "https://wandb.example.com/"})
    listed = http.get(PATH)
    assert [each["id"] for each in listed.json()["data"]] == ["wandb"]
    assert listed.json()["data"][0]["base_url"] == "https://wandb.example.com"
    assert KEY not in made.text + listed.text
    folder = house.served.composed.folder.path
    assert not any(KEY.encode() in file.read_bytes() for file in folder.glob("tunesmith.db*"))
    assert (folder / "secrets.key").stat().st_mode & 0o777 == 0o600
    assert http.delete(f"{PATH}/wandb").json()["deleted"] is True
    gone = http.delete(f"{PATH}/wandb")
    assert (gone.status_code, gone.json()["error"]["param"]) == (404, "integration")


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("wandb", {}, 400, "api_key"),
        ("wandb", {"api_key": ""}, 400, "api_key"),
        ("wandb", {"api_key": "two words"}, 400, "api_key"),
        ("wandb", {"api_key": KEY, "base_url": "ftp://x"}, 400, "base_url"),
        ("wandb", {"api_key": KEY, "base_url": "https://me:pw@x"}, 400, "base_url"),
        ("wandb", {"api_key": KEY, "mood": "good"}, 400, "mood"),
        ("mlflow", {"api_key": KEY}, 404, "integration"),
    ],
)
def test_what_cannot_be_registered_is_refused_by_its_field(
    http: httpx2.Client, path: str, body: dict[str, Any], status: int, param: str
) -> None:
    answer = http.put(f"{PATH}/{path}", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
    assert http.get(PATH).json()["data"] == []


def test_an_unknown_job_is_told_nowhere(http: httpx2.Client) -> None:
    answer = http.get("/tunesmith/v1/fine_tuning/jobs/ftjob-none/integrations")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "fine_tune_not_found")


def test_the_command_line_reads_the_key_from_a_pipe(house: Any, http: httpx2.Client) -> None:
    def command(*args: str, said: str = "") -> str:
        env = {"TUNESMITH_BASE_URL": house.served.base_url, "WANDB_API_KEY": ""}
        done = CliRunner().invoke(app, args, input=said, env=env)
        assert done.exit_code == 0, done.output
        return done.output

    assert KEY not in command("wandb", said=f"{KEY}\n")
    assert command("list").endswith("wandb\twandb.ai\n")
    assert dict(trackers(Settings(), house.served.root))["wandb"] == "installed; a key is registered, for wandb.ai"
    assert house.served.composed.services.integrations.key(house.served.scope, "wandb") == (KEY, None)
