"""Sharing tuned models: whom admins let use them, what these can do with them then, and that they can't any more after."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import httpx2
import openai
import pytest

from scripted import MODEL, scripted
from tunesmith.core.ids import Ids
from tunesmith.domain.identity import Key, NamedProject, hashed, masked
from tunesmith.domain.job import Checkpoint, Job
from tunesmith.domain.model import TunedModel
from tunesmith.domain.scope import Everywhere
from tunesmith.domain.states import Status
from tunesmith.store import checkpoints, jobs, models
from tunesmith.store import identity as identity_rows

ALL = Everywhere("the test lays out what others made")
RESULT, CHECKPOINT = "ft:tunesmith-nano:org:mine:AbCdEfGh", "ft:tunesmith-nano:org:mine:AbCdEfGi:ckpt-step-1"
JOB = "ftjob-shared"
SAID: list[Any] = [{"role": "user", "content": "Hello there"}]
GRADER: Any = {"type": "score_model", "name": "g", "model": CHECKPOINT, "input": SAID}
LIST = "ListFineTuningCheckpointPermissionResponse"


@dataclass(frozen=True)
class Team:
    """A server with keys: the project `proj_default` has two models, others have none."""

    served: Any
    admin: openai.OpenAI
    owner: openai.OpenAI
    friend: openai.OpenAI
    stranger: openai.OpenAI

    @property
    def permissions(self) -> Any:
        return self.admin.fine_tuning.checkpoints.permissions


def project(served: Any, name: str, **fields: Any) -> None:
    made = NamedProject(name, "org-default", name, 2.0, **fields)
    with served.composed.db.begin() as tx:
        identity_rows.add_project(tx, ALL, made)
    served.composed.services.identity.keep_project(made)


def client(served: Any, project_id: str) -> openai.OpenAI:
    ids = Ids()
    secret = ids.key()
    key = Key(ids.key_id(), project_id, "member", "test", hashed(secret.encode()), masked(secret), 1.0)
    served.composed.services.identity.add(key)
    return openai.OpenAI(base_url=served.base_url, api_key=secret, max_retries=0)


def lay_out_models(served: Any) -> None:
    pins = served.composed.services.bases.get(MODEL).pins
    job = Job(
        id=JOB, project_id="proj_default", organization_id="org-default", model=MODEL, base=MODEL, start_adapter=None,
        training_file="file-x", validation_file=None, suffix=None, seed=1, method="supervised", method_config={},
        resolved=None, integrations=[], metadata=None, created_at=1.0, status=Status.SUCCEEDED, fine_tuned_model=RESULT,
        pins=pins,
    )  # fmt: skip
    with served.composed.db.begin() as tx:
        jobs.add(tx, ALL, job)
        for step, name in ((1, CHECKPOINT), (2, RESULT)):
            key = f"jobs/{JOB}/attempts/1/checkpoints/{step:06d}"
            model = TunedModel(
                name, "proj_default", "org-default", JOB, MODEL, 2.0, key, "0" * 64, pins, 1 if step == 1 else None
            )
            models.add(tx, ALL, model)
            checkpoints.add(tx, ALL, Checkpoint(f"ftckpt_{step}", JOB, "proj_default", 1.0, step, name, key, "0" * 64, {}))


@pytest.fixture(scope="module")
def team(open_house: Callable[..., AbstractContextManager[Any]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    folder = tmp_path_factory.mktemp("team")
    with open_house(folder, auth="on") as served:
        scripted(served)
        for name in ("proj_friend", "proj_stranger"):
            project(served, name)
        project(served, "proj_gone", status="archived", archived_at=3.0)
        lay_out_models(served)
        secret = (folder / "admin-key").read_text().strip()
        admin = openai.OpenAI(base_url=served.base_url, api_key=secret, max_retries=0)
        clients = [client(served, name) for name in ("proj_default", "proj_friend", "proj_stranger")]
        yield Team(served, admin, *clients)
        for each in (admin, *clients):
            each.close()


@pytest.fixture(autouse=True)
def _nobody_may(team: Team) -> Iterator[None]:
    yield
    for name in (CHECKPOINT, RESULT):
        for permission in list(team.permissions.list(name, limit=100)):
            team.permissions.delete(permission.id, fine_tuned_model_checkpoint=name)


def test_permissions_are_made_listed_in_both_orders_and_withdrawn(
    team: Team, conforms: Callable[[object, str], None]
) -> None:
    made = team.permissions.create(CHECKPOINT, project_ids=["proj_stranger", "proj_friend", "proj_stranger"])
    conforms(made, LIST)
    assert [each.project_id for each in made.data] == ["proj_stranger", "proj_friend"]
    assert all(each.id.startswith("cp_") and len(each.id) == 27 for each in made.data)
    assert (made.to_dict()["first_id"], made.to_dict()["last_id"]) == (made.data[0].id, made.data[1].id)
    again = team.permissions.create(CHECKPOINT, project_ids=["proj_friend"])
    assert again.data == made.data[1:], "who may already keeps his permission"
    page = team.permissions.list(CHECKPOINT, limit=1)
    conforms(page, LIST)
    assert (page.has_more, page.last_id) == (True, page.data[0].id)
    ids = [each.id for each in made.data]
    assert [each.id for each in page] == ids[::-1]
    assert [each.id for each in team.permissions.list(CHECKPOINT, limit=1, order="ascending")] == ids
    assert [each.id for each in team.permissions.list(CHECKPOINT, project_id="proj_stranger")] == ids[:1]
    assert team.permissions.list(RESULT).data == []
    gone = team.permissions.delete(ids[0], fine_tuned_model_checkpoint=CHECKPOINT)
    conforms(gone, "DeleteFineTuningCheckpointPermissionResponse")
    assert (gone.id, gone.deleted) == (ids[0], True)
    assert [each.id for each in team.permissions.list(CHECKPOINT)] == ids[1:]


def uses(who: openai.OpenAI) -> dict[str, Callable[[], Any]]:
    """Return every way in which a project uses a model that it can name."""
    body = {"models": [CHECKPOINT, MODEL], "messages": SAID}
    return {
        "chat": lambda: who.chat.completions.create(model=CHECKPOINT, messages=SAID),
        "completions": lambda: who.completions.create(model=CHECKPOINT, prompt="Hello"),
        "responses": lambda: who.responses.create(model=CHECKPOINT, input="Hello"),
        "compare": lambda: who.post(str(who.base_url.join("/tunesmith/v1/compare")), body=body, cast_to=object),
        "judge": lambda: who.fine_tuning.alpha.graders.validate(grader=GRADER),
        "retrieve": lambda: who.models.retrieve(CHECKPOINT),
    }


def test_a_permitted_project_uses_the_model_as_its_own_until_the_permission_is_withdrawn(team: Team) -> None:
    permission = team.permissions.create(CHECKPOINT, project_ids=["proj_friend"]).data[0]
    for use in uses(team.friend).values():
        use()
    assert {CHECKPOINT} == {model.id for model in team.friend.models.list() if model.id.startswith("ft:")}
    for use in uses(team.stranger).values():
        with pytest.raises((openai.NotFoundError, openai.BadRequestError)):
            use()
    assert [model.id for model in team.stranger.models.list()] == [MODEL]
    team.permissions.delete(permission.id, fine_tuned_model_checkpoint=CHECKPOINT)
    for use in uses(team.friend).values():
        with pytest.raises((openai.NotFoundError, openai.BadRequestError)):
            use()
    assert [model.id for model in team.friend.models.list()] == [MODEL]
    for use in uses(team.owner).values():
        use()


def test_a_permitted_project_tunes_the_model_further_and_goes_on_when_it_may_no_more(
    team: Team, rows: Callable[[int], bytes]
) -> None:
    permission = team.permissions.create(CHECKPOINT, project_ids=["proj_friend"]).data[0]
    file = team.friend.files.create(file=("rows.jsonl", rows(10)), purpose="fine-tune").id
    made = team.friend.fine_tuning.jobs.create(model=CHECKPOINT, training_file=file)
    with team.served.composed.db.read() as tx:
        job = jobs.get(tx, ALL, made.id)
    assert job is not None
    assert (job.project_id, job.start_adapter) == ("proj_friend", f"jobs/{JOB}/attempts/1/checkpoints/000001")
    with pytest.raises(openai.BadRequestError, match="A job of another project") as told:
        team.owner.models.delete(CHECKPOINT)
    assert made.id not in told.value.message
    team.permissions.delete(permission.id, fine_tuned_model_checkpoint=CHECKPOINT)
    assert team.friend.fine_tuning.jobs.retrieve(made.id).status == "validating_files"
    with pytest.raises(openai.BadRequestError) as refused:
        team.friend.fine_tuning.jobs.create(model=CHECKPOINT, training_file=file)
    assert refused.value.code == "model_not_available"
    team.friend.fine_tuning.jobs.cancel(made.id)


def test_what_the_owner_keeps_to_itself(team: Team) -> None:
    team.permissions.create(CHECKPOINT, project_ids=["proj_friend"])
    root = team.served.root
    with httpx2.Client(headers={"authorization": f"Bearer {team.friend.api_key}"}, trust_env=False) as wire:
        for answer in (
            wire.delete(f"{root}/v1/models/{CHECKPOINT}"),
            wire.post(f"{root}/tunesmith/v1/aliases", json={"alias": "short", "model": CHECKPOINT}),
            wire.get(f"{root}/tunesmith/v1/models/{CHECKPOINT}/export?format=adapter"),
        ):
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "model_shared"), answer.text
    for look in (
        lambda: team.friend.fine_tuning.jobs.retrieve(JOB),
        lambda: team.friend.fine_tuning.jobs.checkpoints.list(JOB),
    ):
        with pytest.raises(openai.NotFoundError):
            look()
    for call in (
        lambda: team.owner.fine_tuning.checkpoints.permissions.list(CHECKPOINT),
        lambda: team.owner.fine_tuning.checkpoints.permissions.create(CHECKPOINT, project_ids=["proj_friend"]),
        lambda: team.owner.fine_tuning.checkpoints.permissions.delete("cp_x", fine_tuned_model_checkpoint=CHECKPOINT),
    ):
        with pytest.raises(openai.PermissionDeniedError):
            call()


@pytest.mark.parametrize(
    ("name", "project_ids", "status", "param", "told"),
    [
        ("ft:nobody", ["proj_friend"], 404, "model", "ft:nobody"),
        (MODEL, ["proj_friend"], 400, "model", "is a base model"),
        (CHECKPOINT, [], 400, "project_ids", "names 0"),
        (CHECKPOINT, ["proj_friend", "proj_nobody"], 400, "project_ids", r"project_ids\[1\]' 'proj_nobody' is no project"),
        (CHECKPOINT, ["proj_gone"], 400, "project_ids", "is archived"),
        (CHECKPOINT, ["proj_default"], 400, "project_ids", "the project that the model belongs to"),
        (CHECKPOINT, "proj_friend", 400, "project_ids", "array"),
    ],
)
def test_a_wrong_request_names_its_field_and_permits_nobody(
    team: Team, name: str, project_ids: Any, status: int, param: str, told: str
) -> None:
    with pytest.raises(openai.APIStatusError, match=told) as refused:
        team.admin.post(f"/fine_tuning/checkpoints/{name}/permissions", body={"project_ids": project_ids}, cast_to=object)
    assert (refused.value.status_code, refused.value.param) == (status, param)
    assert team.permissions.list(CHECKPOINT).data == []


def test_an_unknown_permission_and_another_models(team: Team) -> None:
    made = team.permissions.create(RESULT, project_ids=["proj_friend"]).data[0]
    for permission in (made.id, "cp_x"):
        with pytest.raises(openai.NotFoundError) as refused:
            team.permissions.delete(permission, fine_tuned_model_checkpoint=CHECKPOINT)
        assert refused.value.param == "permission_id"
        with pytest.raises(openai.BadRequestError) as refused_list:
            team.permissions.list(CHECKPOINT, after=permission)
        assert refused_list.value.param == "after"


def test_a_name_with_a_slash_and_a_blank_is_a_name(team: Team) -> None:
    with pytest.raises(openai.NotFoundError, match="ft:a/b:s p:c"):
        team.permissions.list("ft:a/b:s p:c")
