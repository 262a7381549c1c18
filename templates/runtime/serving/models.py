"""One model as it is served: the session, its queue and its metrics."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import nvml
from loading.errors import BundleError
from loading.model import Model
from loading.rows import takes_rows

from serving.batching import Batching
from serving.bounds import Capacity
from serving.catalogue import UNEXPECTED, Known, gpu_of, measurements
from serving.examples import file_of, row_of, tensors_of
from serving.media import MediaModel
from serving.metrics import Metrics, ModelMetrics
from serving.rows import RowModel
from serving.scheduler import Scheduler
from serving.text_tensors import described
from serving.texts import TextModel


class UnfitError(BundleError):
    """The bundle says of itself that it must not serve."""

    code: ClassVar[str] = "unfit"
    exit_code: ClassVar[int] = 12


@dataclass(frozen=True)
class Settings:
    """How models are served. `batch_rows` 1 and `batch_tokens` 0 are no batching; `slow_seconds` None: as promised."""

    threads: int | None = None
    concurrency: int | None = None
    allow_unfit: bool = False
    nan: str = "raise"
    queue_size: int = 128
    batch_rows: int = 1
    batch_delay: float = 0.0
    batch_tokens: int = 0
    slow_seconds: float | None = None


class Served:
    """A loaded model with the threads that run it."""

    def __init__(
        self, model: Model, metrics: Metrics, settings: Settings, memory_bytes: int, device_bytes: int = 0
    ) -> None:
        """Raise UsageError when the settings ask for batches that the bundle does not allow."""
        # Tokens are those of texts: other models are served without such batches.
        tokens = settings.batch_tokens if _takes_texts(model) else 0
        batching = Batching.of(model, settings.batch_rows, settings.batch_delay, tokens)
        self.model, self.bytes, self.device_bytes = model, memory_bytes, device_bytes
        self.names = {tensor.name for tensor in (*model.inputs, *model.outputs)}
        self._metrics = metrics
        self.metrics = ModelMetrics(metrics, model, memory_bytes, settings.slow_seconds)
        metrics.device_memory.labels(model.name, model.version).set(device_bytes)
        self.scheduler = Scheduler(
            model,
            self.metrics,
            workers=settings.concurrency or model.concurrency,
            queue_size=settings.queue_size,
            batching=batching,
        )
        self.texts = _answering(model, self.scheduler.workers, tokens or None)
        names = self.texts.inputs if self.texts is not None and self.texts.takes_tensors else ()
        self.capacity = Capacity.of(model.inputs, model.axes, texts=names)
        self.example = tensors_of(model)
        self.made = [] if self.texts is None else [entry["name"] for entry in described(self.texts)[1]]
        metrics.waiting.labels(model.name, model.version).set_function(lambda: self.scheduler.waiting)

    def close(self) -> None:
        """End the threads, free the session."""
        self.scheduler.close()
        self.model.close()
        self._metrics.forget(self.model.name, self.model.version)


def _takes_texts(model: Model) -> bool:
    processing = model.manifest.get("processing")
    return processing is not None and processing.get("takes", "text") == "text"


def _answering(model: Model, threads: int, most_tokens: int | None) -> TextModel | None:
    """What makes inputs of texts, images, sounds or rows; None for a model of tensors."""
    if takes_rows(model.manifest):
        of_rows = RowModel(model.processing(), model, threads)
        of_rows.example = row_of(model)
        return of_rows
    if not model.manifest.get("processing"):
        return None
    processing = model.processing()
    if processing.media is None:
        return TextModel(processing, model, threads, most_tokens)
    made = MediaModel(processing, model, threads)
    made.example = file_of(model, processing.takes)
    return made


def open_model(path: Path, settings: Settings) -> Model:
    """The bundle, with every file hashed and every golden case run.

    Raises:
        BundleError: It is not as it promises; UnfitError when it says itself that it must not serve.
    """
    model = Model.load(path, verify="full", threads=settings.threads, nan=settings.nan)
    if not model.manifest.get("fit_to_serve") and not settings.allow_unfit:
        reason = model.manifest.get("unfit_reason")
        model.close()
        raise UnfitError(f"{model.name} {model.version} is not fit to serve: {reason}. --allow-unfit serves it.")
    return model


@dataclass(frozen=True)
class Opener:
    """Opens the models of a cache, and measures what that takes."""

    metrics: Metrics
    settings: Settings

    def __call__(self, known: Known) -> Served:
        """Load, check, start the threads."""
        gpu = gpu_of(known.path)
        before, free = rss_bytes(), None if gpu is None else nvml.free_bytes(gpu)
        try:
            model = open_model(known.path, self.settings)
            # What another model left free is taken first, and does not show: weights take their size at the least.
            taken = max(rss_bytes() - before, int(model.manifest["model"]["bytes"])) + growth_bytes(known.path)
            device_taken = known.device_bytes
            left = None if gpu is None else nvml.free_bytes(gpu)
            if free is not None and left is not None:
                device_taken = max(device_taken, free - left)
            served = Served(model, self.metrics, self.settings, taken, device_taken)
        except BaseException:
            self.metrics.loads.labels("failure").inc()
            raise
        self.metrics.loads.labels("success").inc()
        return served


def growth_bytes(path: Path) -> int:
    """Return how much more memory a bundle takes once it has run many shapes, by the most that was measured."""
    found = [0]
    for content in measurements(path):
        try:
            grown = json.loads(content)["numbers"]["soak"]["grown_bytes"]
            found.append(int(grown))
        except UNEXPECTED:
            continue  # nothing was measured there, or by an older compiler
    return max(found)


def rss_bytes() -> int:
    """Memory that this process holds resident; 0 where the kernel does not tell."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
