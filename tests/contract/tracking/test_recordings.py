"""How trackers are told, over a tracker in memory that can fail: nothing lost, nothing twice, nobody held up."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest

from tunesmith.domain.recording import End, Row, Run, TrackerFailed
from tunesmith.domain.states import Desired, Status
from tunesmith.services import recordings as service
from tunesmith.store import jobs

ASKED = [{"type": "wandb", "wandb": {"project": "p"}}]


class Far:
    """A service that keeps runs, and knows of each how far it has come."""

    always: Sequence[Any] = ()
    offline = False

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.steps: dict[str, list[int]] = {}
        self.said: list[str] = []
        self.fault: str | None = None
        self.n_open = 0

    def missing(self, kind: str) -> str | None:
        return None

    async def open(self, run: Run) -> "FarRun":
        if self.fault is not None:
            raise TrackerFailed(self.fault)
        self.runs.append(run)
        self.n_open += 1
        return FarRun(self, run)


class FarRun:
    url = "https://far.test/run"

    def __init__(self, far: Far, run: Run) -> None:
        self.far, self.run = far, run
        self.last_step = max(far.steps.get(run.job_id, [-1]))

    async def tell(self, rows: Sequence[Row]) -> None:
        if self.far.fault is not None:
            raise TrackerFailed(self.far.fault)
        self.far.steps.setdefault(self.run.job_id, []).extend(row.step for row in rows)

    async def rest(self) -> None:
        self.far.said.append("rests")

    async def end(self, end: End) -> None:
        if self.far.fault is not None:
            raise TrackerFailed(self.far.fault)
        self.far.said.append(end.status)
        self.far.said += sorted(end.files)

    async def kill(self) -> None:
        self.far.n_open -= 1


@pytest.fixture(scope="module")
def house(make_house: Any) -> Any:
    house = make_house()
    house.served.composed.services.integrations.register(house.served.scope, "wandb", api_key="k1", base_url=None)
    return house


@contextmanager
def telling(house: Any, far: Far, **more: Any) -> Iterator[None]:
    ours = house.recordings(trackers=far, **more)
    ours.start()
    try:
        yield
    finally:
        ours.stop()


def shown(house: Any, job: str) -> dict[str, Any]:
    (told,) = house.told(job)
    return told


def test_over_a_restart_a_pause_and_an_end_every_step_is_told_once(house: Any, wait_until: Any) -> None:
    far, job = Far(), house.create(integrations=ASKED)
    house.train(job, range(1, 4))
    with telling(house, far):
        wait_until(lambda: shown(house, job)["last_step"] == 3)
    assert far.n_open == 0
    house.report(job, house.step(4))
    with telling(house, far):
        wait_until(lambda: shown(house, job)["last_step"] == 4)
        with house.served.composed.db.begin() as tx:
            rests: Any = {"status": Status.PAUSED, "desired": Desired.PAUSE}
            jobs.swap(tx, house.served.scope, job, expect_status={Status.RUNNING}, **rests)
        wait_until(lambda: shown(house, job)["status"] == "resting")
        house.train(job, range(3, 7), attempt=2)  # an attempt that goes on from an earlier checkpoint takes steps again
        house.finish(job, 6, attempt=2)
        wait_until(lambda: shown(house, job)["status"] == "finished")
    assert far.steps[job] == [1, 2, 3, 4, 5, 6]
    assert far.said == ["rests", "succeeded", "model_metadata.json", "step_metrics.csv"]
    assert {(run.secret, run.base_url) for run in far.runs} == {("k1", None)}
    assert shown(house, job)["url"] == "https://far.test/run"


def test_a_tracker_that_fails_is_told_once_of_and_gets_everything_when_it_is_back(house: Any, wait_until: Any) -> None:
    far, job = Far(), house.create(integrations=ASKED)
    far.fault = "W&B answers 500 to the key k…"
    house.train(job, range(1, 3))
    with telling(house, far, first_pause_s=0.01):
        wait_until(lambda: shown(house, job)["failures"] > 2)
        assert shown(house, job)["error"] == far.fault
        told = [event for event in house.events(job, "message") if event.level == "warn"]
        assert [event.message for event in told] == [
            f"Weights & Biases cannot be told of this job: {far.fault}. The job goes on; its metrics are kept here, and "
            "sent when that goes again"
        ]
        far.fault = None
        wait_until(lambda: shown(house, job)["last_step"] == 2)
        assert (shown(house, job)["error"], shown(house, job)["failures"]) == (None, 0)
        house.client.fine_tuning.jobs.cancel(job)
        wait_until(lambda: shown(house, job)["status"] == "finished")
    assert (far.steps[job], far.said) == ([1, 2], ["cancelled"])


def test_one_that_never_comes_back_is_given_up_and_the_end_stays_the_last_event(
    house: Any, wait_until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "PATIENCE_S", 0.3)
    far, job = Far(), house.create(integrations=ASKED)
    far.fault = "gone"
    house.train(job, range(1, 3))
    house.client.fine_tuning.jobs.cancel(job)
    with telling(house, far, first_pause_s=0.05):
        wait_until(lambda: shown(house, job)["status"] == "given_up")
    assert house.events(job, "message")[-1].message == "The job was cancelled"


def test_a_key_that_is_gone_is_said(house: Any, wait_until: Any) -> None:
    far, job = Far(), house.create(integrations=ASKED)
    house.train(job, range(1, 3))
    integrations = house.served.composed.services.integrations
    integrations.remove(house.served.scope, "wandb")
    with telling(house, far):
        wait_until(lambda: shown(house, job)["error"])
    assert "tunesmith integrations wandb" in shown(house, job)["error"]
    integrations.register(house.served.scope, "wandb", api_key="k1", base_url=None)
    with telling(house, far):
        house.client.fine_tuning.jobs.cancel(job)
        wait_until(lambda: shown(house, job)["status"] == "finished")


@pytest.mark.parametrize("mode", ["hangs", "refuses"])
def test_the_real_package_before_a_dead_server_holds_nobody_up(
    house: Any, wait_until: Any, serve_dead: Any, mode: str
) -> None:
    services = house.served.composed.services
    services.integrations.register(house.served.scope, "wandb", api_key="w" * 40, base_url=serve_dead(mode))
    trackers = house.served.composed.recordings._trackers
    trackers._patience |= {"open": 2.0}
    job = house.create(integrations=ASKED)
    with telling_really(house):
        house.train(job, range(1, 3))
        took = []
        for _ in range(20):
            begun = time.monotonic()
            house.client.fine_tuning.jobs.retrieve(job)
            took.append(time.monotonic() - begun)
        wait_until(lambda: shown(house, job)["error"])
        begun = time.monotonic()
        assert house.client.fine_tuning.jobs.cancel(job).status == "cancelled"
        assert time.monotonic() - begun < 1
    assert sorted(took)[10] < 0.5
    assert "w" * 40 not in str(house.told(job)) + str(house.events(job, "message"))
    assert httpx2.get(f"{house.served.root}/healthz").status_code == 200


@contextmanager
def telling_really(house: Any) -> Iterator[None]:
    ours = house.recordings()
    ours.start()
    try:
        yield
    finally:
        ours.stop()
