"""Which variants are judged on another instruction set, by which cases, and what is said where that is not possible."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.support.plans import target, variant

from ortc.build import instruction_sets
from ortc.build.instruction_sets import AMD64, CASES, emulator, is_asked, missing_verdicts, some_cases
from ortc.common.arrays import write_arrays
from ortc.evaluation.accuracy import ReferenceCase
from ortc.evaluation.gate_table import plain_gate
from ortc.evaluation.gates import failure_code
from ortc.execution.host import Host
from ortc.plan.plan import VariantPlan
from ortc.spec.quantization import DynamicQuantization, WeightQuantization

INT8 = variant("int8", "int8", quantization=DynamicQuantization(kind="dynamic", operators=("MatMul",)))
WEIGHTS = variant("w", "int8", quantization=WeightQuantization(kind="weight-only", bits=8, operators=("MatMul",)))


def host(platform: str = AMD64, *isa: str) -> Host:
    return Host(platform=platform, cpu="x", isa=isa, cores=2, memory=2**30, gpus=())


@pytest.mark.parametrize(
    ("plan", "machine", "asked"),
    [
        (INT8, host(AMD64, "avx2", "avx512_vnni"), True),
        (INT8, host(AMD64, "avx2", "avx_vnni"), True),
        # This machine is one without VNNI itself.
        (INT8, host(AMD64, "avx2"), False),
        (INT8, host("linux/arm64", "asimddp"), False),
        (variant("fp32", "fp32"), host(AMD64, "avx2", "avx512_vnni"), False),
        (WEIGHTS, host(AMD64, "avx2", "avx_vnni"), True),
    ],
)
def test_int8_for_amd64_is_judged_without_vnni(plan: VariantPlan, machine: Host, asked: bool) -> None:
    assert is_asked(target(), plan, machine) is asked
    assert not is_asked(target(platforms=("linux/arm64",)), plan, machine)


def test_some_cases_are_real_samples_where_there_are_any(tmp_path: Path) -> None:
    def case(name: str, size: int) -> ReferenceCase:
        path = tmp_path / f"{name}.npz"
        write_arrays(path, {"y": np.zeros(size)})
        return ReferenceCase(name=name, is_sample="samples" in name, inputs=path, outputs=path)

    shapes = tuple(case(f"batch={size}", size) for size in (64, 1, 32, 8, 16))
    samples = tuple(case(f"samples {number}", 8) for number in range(10))
    assert [entry.name for entry in some_cases((*shapes, *samples))] == [f"samples {n}" for n in (0, 2, 4, 6)]
    assert [entry.name for entry in some_cases(shapes)] == ["batch=1", "batch=8", "batch=16", "batch=32"]
    assert len(some_cases(samples[:2])) == 2 <= CASES


@pytest.mark.parametrize(("release", "found"), [("7.2.22", True), ("8.0", True), ("7.1", False), ("of", False)])
def test_an_emulator_has_to_know_avx2(monkeypatch: pytest.MonkeyPatch, release: str, found: bool) -> None:
    monkeypatch.setattr(instruction_sets.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(instruction_sets, "version", lambda path: release)
    assert (emulator() is not None) is found


def test_a_missing_emulator_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instruction_sets, "emulator", lambda: None)
    machine = host(AMD64, "avx2", "avx512_vnni")
    builder: Any = SimpleNamespace(target=target(), context=SimpleNamespace(host=machine))
    entry: Any = SimpleNamespace(made=SimpleNamespace(variant=INT8))
    (verdict,) = missing_verdicts(builder, entry)
    assert (verdict.gate, verdict.outcome, verdict.platform) == ("parity on AVX2", "unmeasured", AMD64)
    assert "qemu-user-static" in verdict.limit
    builder.context.host = host(AMD64, "avx2")
    assert list(missing_verdicts(builder, entry)) == []


def test_a_gate_on_avx2_is_about_accuracy() -> None:
    assert plain_gate("nrmse on AVX2") == "nrmse"
    assert failure_code({"nrmse on AVX2"}) == 5
