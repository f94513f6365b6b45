"""The `Sight` port as Prometheus has it, with a registry of its own."""

from collections.abc import Iterable, Iterator

import prometheus_client as client
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry

from tunesmith.domain.sight import COUNTERS, TIMINGS, Counter, Family, Timing


class Prometheus:
    """Counters and histograms in memory; figures of a moment are handed in when they are asked for."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        client.ProcessCollector(registry=self._registry)
        self._counters = {
            each.name: client.Counter(each.name, each.told, each.labels, registry=self._registry) for each in COUNTERS
        }
        self._timings = {
            each.name: client.Histogram(each.name, each.told, each.labels, registry=self._registry, buckets=each.borders)
            for each in TIMINGS
        }

    def count(self, counter: Counter, *labels: str, by: float = 1.0) -> None:
        """Add to a counter."""
        found = self._counters[counter.name]
        (found.labels(*labels) if labels else found).inc(by)

    def observe(self, timing: Timing, seconds: float, *labels: str) -> None:
        """Add a measurement; a clock that was set back measures nought."""
        found = self._timings[timing.name]
        (found.labels(*labels) if labels else found).observe(max(0.0, seconds))

    def exposition(self, now: Iterable[Family]) -> tuple[bytes, str]:
        """Return all figures in Prometheus's text format."""
        families = list(now)

        class Everything(Collector):
            """The registry, and what was handed in."""

            def collect(self) -> Iterator[client.Metric]:
                """Yield every family."""
                yield from map(_without_birthdays, registry.collect())
                yield from map(_metric, families)

        registry = self._registry
        return client.generate_latest(Everything()), client.CONTENT_TYPE_PLAIN_0_0_4


def _metric(family: Family) -> client.Metric:
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    made = kind(family.name, family.told, labels=family.labels)
    for labels, value in family.values:
        made.add_metric(labels, value)
    return made


def _without_birthdays(metric: client.Metric) -> client.Metric:
    """Leave out when each counter was made, which doubles the text and is of use to other formats alone."""
    metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
    return metric
