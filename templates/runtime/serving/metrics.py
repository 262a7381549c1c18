"""What Prometheus reads: requests and errors, times, batches, memory, placement, and how far outputs have drifted.

Times are seconds, sizes bytes, as the names say.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from loading.arrays import read_npz
from loading.files import inside
from loading.model import Model
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from serving import logs
from serving.scheduler import Batch

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
LABELS = ("model", "version")
ROUTED = (*LABELS, "route")
# Answers that the moving statistics of an output remember, roughly; of a large output so many values are looked at.
MEMORY = 1000
MOST_VALUES = 65536
LARGEST = 1e150  # of means and variances that are looked at
SLOW_LOG_SECONDS = 1.0  # at most one line in this time
TEXT_BURST_SECONDS, TEXT_SHARE = 0.05, 0.02  # of the event loop's time, for making the exposition
SLOW_SECONDS = 1.0  # where the bundle promises no latency


@dataclass
class Moments:
    """Mean and variance of an output's finite values, and its NaN."""

    mean: float = 0.0
    variance: float = 0.0
    nan: int = 0
    answers: int = 0

    @classmethod
    @np.errstate(all="ignore")
    def of(cls, array: NDArray[Any]) -> Moments:
        """Those of one answer; of a large one evenly spaced values."""
        flat = array.reshape(-1)
        if flat.size > MOST_VALUES:
            flat = flat[:: -(-flat.size // MOST_VALUES)]
        values = flat.astype(np.float64) if flat.dtype.kind != "f" or flat.dtype.itemsize < 4 else flat
        mean = float(values.mean(dtype=np.float64)) if values.size else 0.0
        nan = 0
        if not np.isfinite(mean):
            nan = int(np.isnan(values).sum())
            values = values[np.isfinite(values)].astype(np.float64)
            mean = float(values.mean()) if values.size else 0.0
        if not values.size:
            return cls(nan=nan)
        centred = values - values.dtype.type(mean)
        squares = float(np.dot(centred, centred))
        if not np.isfinite(squares):  # of values that float32 holds, and their squares not
            centred = values.astype(np.float64) - mean
            squares = float(np.dot(centred, centred))
        if not abs(mean) < LARGEST or not squares < LARGEST:
            return cls(nan=nan)  # one such answer, and no statistic would ever be finite again
        return cls(mean, squares / values.size, nan, 1)

    def add(self, other: Moments) -> None:
        """Take in one more answer; old ones fade."""
        self.nan += other.nan
        if not other.answers:
            return
        self.answers += 1
        share = 1 / min(self.answers, MEMORY)
        # The variance of a mixture: within the parts, and between their means.
        difference = other.mean - self.mean
        self.mean += share * difference
        self.variance = (1 - share) * (self.variance + share * difference * difference) + share * other.variance


class Metrics:
    """Every metric of the process, and the text that /metrics answers."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each one, for nobody
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._all: list[Any] = []
        self._text, self._tokens, self._made = b"", TEXT_BURST_SECONDS, time.monotonic()

        def make(kind: Any, name: str, text: str, labels: tuple[str, ...] = LABELS, **more: Any) -> Any:
            metric = kind(name, text, labels, registry=self.registry, **more)
            self._all.append(metric)
            return metric

        self.requests = make(Counter, "ortc_requests", "Requests to models, refused ones included", ROUTED)
        self.errors = make(Counter, "ortc_request_errors", "Requests not answered with 200, by kind", (*ROUTED, "kind"))
        self.total = make(
            Histogram, "ortc_request_seconds", "From the head of a request to its whole answer", ROUTED, buckets=SECONDS
        )
        self.queued = make(Histogram, "ortc_queue_seconds", "Waiting for a thread, per request", buckets=SECONDS)
        self.compute = make(Histogram, "ortc_compute_seconds", "Running the model, per run", buckets=SECONDS)
        self.batches = make(Histogram, "ortc_batch_size", "Requests that one run served", buckets=BATCHES)
        self.slow = make(Counter, "ortc_slow_runs", "Runs that took longer than ortc_slow_run_threshold_seconds")
        self.threshold = make(Gauge, "ortc_slow_run_threshold_seconds", "The promised latency, or one second")
        self.waiting = make(Gauge, "ortc_queue_length", "Requests that wait for a thread")
        self.load = make(Gauge, "ortc_model_load_seconds", "Opening, checking and warming up the model")
        self.memory = make(Gauge, "ortc_model_memory_bytes", "Memory that loading the model took")
        self.device_memory = make(
            Gauge, "ortc_model_device_memory_bytes", "Memory of the device that the model takes, as it was measured"
        )
        self.budget = make(Gauge, "ortc_model_memory_budget_bytes", "Memory that all models may take", ("kind",))
        self.nodes = make(Gauge, "ortc_model_nodes", "Graph nodes by execution provider", (*LABELS, "provider"))
        self.fallback = make(
            Gauge, "ortc_model_fallback_nodes", "Graph nodes that the first provider left to the CPU, but for shapes"
        )
        self.shapes = make(Gauge, "ortc_model_shape_nodes", "Graph nodes left to the CPU that only compute shapes")
        output = (*LABELS, "output")
        self.mean = make(Gauge, "ortc_output_mean", "Mean of an output's values, over recent answers", output)
        self.variance = make(Gauge, "ortc_output_variance", "Variance of an output's values, recently", output)
        self.nan = make(Counter, "ortc_output_nan", "NaN among an output's values", output)
        self.golden_mean = make(Gauge, "ortc_output_golden_mean", "Mean of the output in the golden answers", output)
        self.golden_variance = make(Gauge, "ortc_output_golden_variance", "Variance in the golden answers", output)
        self.loads = make(Counter, "ortc_model_loads", "Loads of models by outcome", ("outcome",))
        self.evictions = make(Counter, "ortc_model_evictions", "Models that made room for others", ())

    def watch(self, connections: Callable[[], int], refusals: Callable[[], int], buffered: Callable[[], int]) -> None:
        """Read these numbers of the process when the metrics are asked for."""
        make = Gauge("ortc_connections", "Open HTTP connections", registry=self.registry)
        make.set_function(connections)
        make = Gauge("ortc_buffered_bytes", "Bytes of requests and answers that are held", registry=self.registry)
        make.set_function(buffered)
        self.registry.register(_Totals(refusals))

    def count(self, labels: tuple[str, str, str], kind: str) -> None:
        """Count a request by its model, version and route; `kind` is of its error, empty for none."""
        self.requests.labels(*labels).inc()
        if kind:
            self.errors.labels(*labels, kind).inc()

    def text(self) -> bytes:
        """The exposition; the last one again, where making it takes more than its share of the time."""
        began = time.monotonic()
        self._tokens = min(TEXT_BURST_SECONDS, self._tokens + (began - self._made) * TEXT_SHARE)
        self._made = began
        if self._tokens > 0:
            # What it computes, and not how long others kept the machine from it.
            spent = time.thread_time()
            self._text = generate_latest(self.registry)
            self._tokens -= time.thread_time() - spent
        return self._text

    def forget(self, name: str, version: str) -> None:
        """Drop what is said about a model that is no longer loaded, but for its counts."""
        gauges = (metric for metric in self._all if isinstance(metric, Gauge) and metric._labelnames[:2] == LABELS)
        for metric in gauges:
            metric.remove_by_labels({"model": name, "version": version})


class _Totals(Collector):
    """Counters that other modules count."""

    def __init__(self, refusals: Callable[[], int]) -> None:
        self._refusals = refusals

    def collect(self) -> list[CounterMetricFamily]:
        """The counters as they are now."""
        return [
            CounterMetricFamily("ortc_connection_refusals", "Refused HTTP connections", value=self._refusals()),
            CounterMetricFamily("ortc_log_lines_dropped", "Log lines that nobody read", value=logs.dropped_lines()),
        ]


class ModelMetrics:
    """The metrics of one model, and the observer of its scheduler."""

    def __init__(self, metrics: Metrics, model: Model, memory_bytes: int, slow_seconds: float | None) -> None:
        labels = (model.name, model.version)
        self._metrics, self._labels = metrics, labels
        for known in (metrics.requests, metrics.total):
            known.labels(*labels, "infer")  # there from the beginning, for those who look
        self._queued, self._compute = metrics.queued.labels(*labels), metrics.compute.labels(*labels)
        self._batches, self._slow = metrics.batches.labels(*labels), metrics.slow.labels(*labels)
        promised = (model.manifest.get("promises") or {}).get("latency") or {}
        self._threshold = slow_seconds or max(promised.values(), default=SLOW_SECONDS)
        metrics.threshold.labels(*labels).set(self._threshold)
        metrics.load.labels(*labels).set(model.seconds["total"])
        metrics.memory.labels(*labels).set(memory_bytes)
        providers = [provider for provider, *_ in model.placement()]
        for provider in model.providers:
            metrics.nodes.labels(*labels, provider).set(providers.count(provider))
        left = model.fallback()
        metrics.fallback.labels(*labels).set(left["nodes"])
        metrics.shapes.labels(*labels).set(left["shape_nodes"])
        self._lock = threading.Lock()
        self._quiet_until = 0.0
        self._moments = {tensor.name: Moments() for tensor in model.outputs}
        self._gauges = {
            name: tuple(metric.labels(*labels, name) for metric in (metrics.mean, metrics.variance, metrics.nan))
            for name in self._moments
        }
        for name, moments in golden_moments(model).items():
            metrics.golden_mean.labels(*labels, name).set(moments.mean)
            metrics.golden_variance.labels(*labels, name).set(moments.variance)

    def count(self, route: str, kind: str) -> None:
        """Count a request; `kind` is of its error, empty for one that was answered with 200."""
        self._metrics.count((*self._labels, route), kind)

    def answered(self, route: str, seconds: float) -> None:
        """A request was answered after so many seconds."""
        self._metrics.total.labels(*self._labels, route).observe(seconds)

    def ran(self, batch: Batch) -> None:
        """Count a run."""
        self._compute.observe(batch.compute_seconds)
        self._batches.observe(len(batch.jobs))
        for job in batch.jobs:
            self._queued.observe(job.queued_seconds)
        if batch.compute_seconds > self._threshold:
            self._slow.inc()
            if time.monotonic() > self._quiet_until:  # a busy machine makes every run slow
                self._quiet_until = time.monotonic() + SLOW_LOG_SECONDS
                name, version = self._labels
                logs.write("warning", "slow-run", model=name, version=version, seconds=round(batch.compute_seconds, 6))
        for name, array in batch.outputs.items():
            moments = Moments.of(array)
            mean, variance, nan = self._gauges[name]
            with self._lock:
                kept = self._moments[name]
                kept.add(moments)
                mean.set(kept.mean)
                variance.set(kept.variance)
            if moments.nan:
                nan.inc(moments.nan)


def golden_moments(model: Model) -> dict[str, Moments]:
    """Those of PyTorch's answers in the bundle."""
    found = {tensor.name: Moments() for tensor in model.outputs}
    for case in model.manifest["golden"]:
        for name, array in read_npz(inside(model.root, case["outputs"])).items():
            found[name].add(Moments.of(array))
    return found
