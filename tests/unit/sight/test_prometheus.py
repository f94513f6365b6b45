"""Figures as Prometheus reads them: what is counted, measured, and handed in."""

from prometheus_client.parser import text_string_to_metric_families

from tunesmith.domain.sight import CANCEL, COUNTERS, FENCED, STEP, TIMINGS, TOKENS, Family
from tunesmith.sight.prometheus import Prometheus


def read(sight: Prometheus, *now: Family) -> dict[str, float]:
    """Return every sample by name and labels, as a monitor's own parser finds them."""
    text, media_type = sight.exposition(now)
    assert media_type == "text/plain; version=0.0.4; charset=utf-8"
    return {
        f"{sample.name}{sorted(sample.labels.values())}": sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_what_is_counted_and_measured_is_exposed() -> None:
    sight = Prometheus()
    sight.count(FENCED)
    sight.count(TOKENS, "nano", "prompt", by=7)
    sight.count(TOKENS, "nano", "prompt", by=5)
    sight.observe(STEP, 0.2, "dpo")
    sight.observe(CANCEL, -1.0)
    found = read(sight, Family("tunesmith_jobs", "Jobs.", ("status",), values=[(("queued",), 3)]))
    assert found["tunesmith_fenced_writes_total[]"] == 1
    assert found["tunesmith_inference_tokens_total['nano', 'prompt']"] == 12
    assert found["tunesmith_training_step_seconds_bucket['0.1', 'dpo']"] == 0
    assert found["tunesmith_training_step_seconds_bucket['0.25', 'dpo']"] == 1
    assert found["tunesmith_training_step_seconds_sum['dpo']"] == 0.2
    assert found["tunesmith_cancel_seconds_sum[]"] == 0, "a clock that was set back measures nought"
    assert found["tunesmith_jobs['queued']"] == 3
    assert found["process_resident_memory_bytes[]"] > 0
    assert not [name for name in found if "_created" in name]


def test_two_servers_in_one_process_share_nothing() -> None:
    one, other = Prometheus(), Prometheus()
    one.count(FENCED)
    assert read(other)["tunesmith_fenced_writes_total[]"] == 0


def test_figures_are_named_as_others_name_theirs() -> None:
    assert all(each.name.startswith("tunesmith_") and each.name.endswith("_total") for each in COUNTERS)
    assert all(each.name.startswith("tunesmith_") and each.name.endswith("_seconds") for each in TIMINGS)
    assert all(each.told.endswith(".") for each in (*COUNTERS, *TIMINGS))
