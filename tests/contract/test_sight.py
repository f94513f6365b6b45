"""What an operator sees: figures for a monitor, and a line of the log for every request."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.responses import PlainTextResponse
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from tunesmith.api.app import create_app, with_pages
from tunesmith.core.ids import Ids
from tunesmith.domain.identity import Key, hashed, masked
from tunesmith.domain.sight import COUNTERS, TIMINGS
from tunesmith.services.attempts import Fenced
from tunesmith.store import outbox

Figures = dict[tuple[str, frozenset[tuple[str, str]]], float]


def figures(http: httpx2.Client) -> Figures:
    """Return every sample, as a monitor's own parser finds them."""
    answer = http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def figure(found: Figures, name: str, **labels: str) -> float:
    return found.get((name, frozenset(labels.items())), 0.0)


def test_every_figure_is_there_with_its_help(http: httpx2.Client) -> None:
    text = http.get("/metrics").text
    for each in (*COUNTERS, *TIMINGS):
        assert f"# HELP {each.name} {each.told}" in text
    for name in ("jobs", "job_oldest_queued_seconds", "webhook_deliveries", "sampler_rows", "sampler_waiting", "disk_bytes"):
        assert f"# HELP tunesmith_{name} " in text
    assert figure(figures(http), "tunesmith_database_bytes") > 0
    assert figure(figures(http), "tunesmith_disk_free_bytes") > 0


def test_jobs_by_state_and_cancels(http: httpx2.Client, client: openai.OpenAI, training_file: str) -> None:
    job = client.fine_tuning.jobs.create(model="tunesmith-nano", training_file=training_file)
    found = figures(http)
    before = figure(found, "tunesmith_cancel_seconds_count")
    cancelled = figure(found, "tunesmith_jobs", status="cancelled", project="proj_default")
    assert figure(found, "tunesmith_jobs", status="validating_files", project="proj_default") >= 1
    client.fine_tuning.jobs.cancel(job.id)
    found = figures(http)
    assert figure(found, "tunesmith_cancel_seconds_count") == before + 1
    assert figure(found, "tunesmith_jobs", status="cancelled", project="proj_default") == cancelled + 1


def test_a_report_of_an_attempt_that_is_over_is_counted(
    served: Any, http: httpx2.Client, client: openai.OpenAI, training_file: str
) -> None:
    job = client.fine_tuning.jobs.create(model="tunesmith-nano", training_file=training_file).id
    before = figure(figures(http), "tunesmith_fenced_writes_total")
    with pytest.raises(Fenced):
        served.composed.attempts.report(job, 7, "a token", [])
    assert figure(figures(http), "tunesmith_fenced_writes_total") == before + 1


@pytest.mark.parametrize(
    ("method", "path", "route", "status"),
    [
        ("GET", "/v1/fine_tuning/jobs/ftjob-none", "/v1/fine_tuning/jobs/{job_id}", 404),
        ("GET", "/v1/files?purpose=fine-tune", "/v1/files", 200),
        ("GET", "/v1/nothing/of/this/name", "other", 404),
        ("FOO", "/v1/files", "/v1/files", 405),
        ("GET", "/v1/models/ft:x:y::z", "/v1/models/{model:path}", 404),
    ],
)
def test_a_request_is_counted_by_the_template_of_its_route(
    http: httpx2.Client, method: str, path: str, route: str, status: int
) -> None:
    labels = {"route": route, "method": "other" if method == "FOO" else method}
    before = figures(http)
    assert http.request(method, path).status_code == status
    after = figures(http)
    for name, more in (("requests_total", {"status": str(status)}), ("request_seconds_count", {})):
        told = [figure(found, f"tunesmith_http_{name}", **labels, **more) for found in (before, after)]
        assert told[1] == told[0] + 1


def test_pages_for_people_are_counted_and_logged_too(
    served: Any, serve_app: Callable[..., Any], http: httpx2.Client
) -> None:
    services = served.composed.services
    app = with_pages(create_app(services), PlainTextResponse("a page", status_code=203), services)
    before = figures(http)
    with (
        serve_app(app) as root,
        httpx2.Client(base_url=root, trust_env=False) as client,
        capture_logs([merge_contextvars]) as logs,
    ):
        paths = ("/dashboard/jobs/ftjob-abc?secret", "/dashboard/_nicegui/a.js", "/dashboard", "/dashboards")
        assert [client.get(path).status_code for path in paths] == [203, 203, 203, 404]
        lines = served_lines(logs, len(paths))
    told = [(line["route"], line["log_level"], line.get("job")) for line in lines]
    page = ("/dashboard", "info", None)
    assert told == [(*page[:2], "ftjob-abc"), ("/dashboard/_nicegui", "debug", None), page, ("other", "info", None)]
    labels = {"route": "/dashboard", "method": "GET", "status": "203"}
    seen = [figure(found, "tunesmith_http_requests_total", **labels) for found in (before, figures(http))]
    assert seen[1] == seen[0] + 2


def served_lines(logs: list[Any], n: int) -> list[Any]:
    """Return the lines of so many requests; a line is written once the answer is out."""
    for _ in range(500):
        found = [line for line in logs if line["event"] == "request.served"]
        if len(found) >= n:
            break
        time.sleep(0.01)
    return found


def lines_of(logs: list[Any], request: str) -> list[Any]:
    """Return a request's lines, once the last is written; the line of an earlier request may come as late as these."""
    for _ in range(500):
        found = [line for line in logs if line.get("request") == request]
        if found and found[-1]["event"] == "request.served":
            break
        time.sleep(0.01)
    return found


def test_every_request_is_one_line_of_the_log(http: httpx2.Client) -> None:
    with capture_logs() as logs:
        http.get("/v1/fine_tuning/jobs/ftjob-none?after=secret", headers={"authorization": "Bearer sk-secret"})
        http.get("/healthz")
        line, probe = served_lines(logs, 2)
    assert line.pop("ms") >= 0
    assert line == {
        "event": "request.served", "log_level": "info", "method": "GET", "route": "/v1/fine_tuning/jobs/{job_id}",
        "status": 404, "project": "proj_default", "key": None,
    }  # fmt: skip
    assert "secret" not in repr(logs)
    assert probe["log_level"] == "debug", "whoever watches the server asks all the time"


def test_what_a_request_logs_holds_its_id_and_its_job(
    http: httpx2.Client, client: openai.OpenAI, training_file: str
) -> None:
    job = client.fine_tuning.jobs.create(model="tunesmith-nano", training_file=training_file)
    with capture_logs(processors=[merge_contextvars]) as logs:
        answer = http.post(f"/v1/fine_tuning/jobs/{job.id}/cancel")
        mine = lines_of(logs, answer.headers["x-request-id"])
    assert [(line["event"], line["job"]) for line in mine] == [("job.cancelled", job.id), ("request.served", job.id)]


def test_on_a_server_with_keys_an_admin_reads_the_figures_and_takes_backups(tmp_path: Path, open_house: Any) -> None:
    with (
        open_house(tmp_path / "keyed", auth="on") as served,
        httpx2.Client(base_url=served.root, trust_env=False) as http,
    ):
        admin = {"authorization": f"Bearer {(tmp_path / 'keyed' / 'admin-key').read_text().strip()}"}
        secret = Ids().key()
        made = Key(Ids().key_id(), "proj_default", "member", "test", hashed(secret.encode()), masked(secret), 1.0)
        served.composed.services.identity.add(made)
        whose = ({}, {"authorization": f"Bearer {secret}"}, admin)
        assert [http.get("/metrics", headers=headers).status_code for headers in whose] == [401, 403, 200]
        assert [http.post("/tunesmith/v1/backup", headers=headers).status_code for headers in whose] == [401, 403, 200]
    with (
        open_house(tmp_path / "public", auth="on", metrics_public=True) as served,
        httpx2.Client(base_url=served.root, trust_env=False) as http,
    ):
        assert http.get("/metrics").status_code == 200
        assert http.get("/v1/models").status_code == 401


def test_requests_and_jobs_are_traced(
    tmp_path: Path, open_house: Any, rows: Callable[[int], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra tunesmith[otel] is not installed")
    from far.collector import collecting
    from tunesmith.sight.traces import planned

    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        with (
            open_house(tmp_path / "traced") as served,
            openai.OpenAI(base_url=served.base_url, api_key="any", max_retries=0) as client,
            capture_logs(processors=[merge_contextvars]) as logs,
        ):
            served.composed.deliveries.start()
            file = client.files.create(file=("rows.jsonl", rows(10)), purpose="fine-tune").id
            job = client.fine_tuning.jobs.create(model="tunesmith-nano", training_file=file).id
            trace = "4bf92f3577b34da6a3ce929d0e0e4736"
            headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
            client.fine_tuning.jobs.cancel(job, extra_headers=headers)
            with served.composed.db.read() as tx:
                wanted = outbox.untold(tx, served.scope, limit=1)
            while wanted:
                time.sleep(0.01)
                with served.composed.db.read() as tx:
                    wanted = outbox.untold(tx, served.scope, limit=1)
    cancel = collector.named("POST /v1/fine_tuning/jobs/{job_id}/cancel")
    assert cancel.trace_id.hex() == trace
    assert [line["trace"] for line in logs if line["event"] == "job.cancelled"] == [trace]
    life = collector.named("fine_tuning.job")
    assert int.from_bytes(life.trace_id) == planned(job)[0] == int.from_bytes(cancel.links[0].trace_id)
    assert {each.key: each.value.string_value for each in life.attributes}["tunesmith.status"] == "cancelled"


def test_the_dashboard_for_grafana_asks_for_figures_that_there_are(http: httpx2.Client) -> None:
    board = json.loads((Path(__file__).parents[2] / "deploy" / "grafana.json").read_text())
    asked = {
        name
        for panel in board["panels"]
        for target in panel["targets"]
        for name in re.findall(r"(?:tunesmith|process)_[a-z_]+", target["expr"])
    }
    told = set(re.findall(r"^# TYPE (\S+)", http.get("/metrics").text, flags=re.MULTILINE))
    assert len(asked) > 10
    assert {re.sub(r"_seconds_(bucket|sum|count)$", "_seconds", name) for name in asked} <= told
