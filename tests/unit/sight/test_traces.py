"""Traces as a collector gets them: a real one's protocol, spoken to a small server of this test's."""

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra tunesmith[otel] is not installed")

from far.collector import Collector, collecting
from tunesmith.domain.traces import UNTRACED, Life, Span
from tunesmith.sight.traces import open_traces, planned

PARENT = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting() as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.url)
        yield server


def attributes(span: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


def test_without_a_collector_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", raising=False)
    assert open_traces("1") is UNTRACED
    with UNTRACED.request("GET", {}, job_id=None) as ended:
        ended("/v1/files", 200)


def test_a_request_is_a_span_of_the_trace_that_its_headers_tell(collector: Collector) -> None:
    traces = open_traces("1")
    with traces.request("GET", {"traceparent": f"00-{PARENT}-00f067aa0ba902b7-01"}, job_id="ftjob-a") as ended:
        ended("/v1/fine_tuning/jobs/{job_id}", 200)
    with traces.request("POST", {}, job_id=None) as ended:
        ended("/v1/files", 500)
    traces.close()
    assert collector.services == {"tunesmith"}
    span = collector.named("GET /v1/fine_tuning/jobs/{job_id}")
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (PARENT, "00f067aa0ba902b7")
    assert attributes(span) == {
        "http.request.method": "GET", "http.route": "/v1/fine_tuning/jobs/{job_id}", "http.response.status_code": 200
    }  # fmt: skip
    assert [int.from_bytes(link.trace_id) for link in span.links] == [planned("ftjob-a")[0]]
    failed = collector.named("POST /v1/files")
    assert failed.status.code == failed.status.STATUS_CODE_ERROR
    assert not failed.parent_span_id


def test_a_jobs_life_is_one_trace(collector: Collector) -> None:
    traces = open_traces("1")
    phases = [Span("validate", 100.0, 101.0, {}), Span("train", 102.5, 110.0, {"tunesmith.steps": 5})]
    traces.job(Life("ftjob-a", Span("fine_tuning.job", 100.0, 111.0, {"tunesmith.job": "ftjob-a"}), phases, "no memory"))
    traces.close()
    root, train = collector.named("fine_tuning.job"), collector.named("train")
    assert (int.from_bytes(root.trace_id), int.from_bytes(root.span_id)) == planned("ftjob-a")
    assert (root.start_time_unix_nano, root.end_time_unix_nano) == (100 * 10**9, 111 * 10**9)
    assert (root.status.message, root.parent_span_id) == ("no memory", b"")
    assert (train.trace_id, train.parent_span_id) == (root.trace_id, root.span_id)
    assert train.start_time_unix_nano == 102_500_000_000
    assert attributes(train) == {"tunesmith.steps": 5}
    assert len({span.span_id for span in collector.spans}) == 3
