"""Budgets: limits of bytes, seconds and counts that a target promises, beside those of latency percentiles."""

from pydantic import Field

from ortc.common.units import Duration, Size
from ortc.spec.vocabulary import MAX_SIZE, Model


class Budgets(Model):
    """Limits that whatever ships keeps. `ortc.evaluation.gate_table` has a row for each."""

    size_budget: Size | None = Field(default=None, description="Most bytes of the model's files.")
    download_budget: Size | None = Field(
        default=None,
        description="Most bytes of the model's files and of the wheels that the loader needs, as they are downloaded, "
        "on each promised platform; the server's wheels are not counted.",
    )
    memory_budget: Size | None = Field(default=None, description="Most bytes of peak resident memory while serving.")
    start_budget: Duration | None = Field(default=None, description="Most time from process start to the first answer.")
    min_speedup: float | None = Field(default=None, gt=0, description="Least speed-up over PyTorch eager.")
    max_cpu_nodes: int | None = Field(
        default=None,
        ge=0,
        le=MAX_SIZE,
        description="Most graph nodes on the CPU where another provider is asked for, besides those that compute "
        "nothing but shapes, which ONNX Runtime leaves there by design.",
    )
    max_memcpy_nodes: int | None = Field(
        default=None,
        ge=0,
        le=MAX_SIZE,
        description="Most nodes that ONNX Runtime adds to the graph to copy between host and device, as one run of it "
        "shows.",
    )
