"""`ortc build` on the repository's specs: what it says, and what lies in the bundles."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from tests.support.builds import ROOT, Build, Compiler, answer, loader

pytestmark = pytest.mark.integration

SUITE = ("bert/1.0.0/cpu", "digits/1.0.0/cpu", "digits/1.0.0/edge")
"""Bundles that `make test` builds."""
MORE = ("bert/1.0.0/edge", "bert/1.0.0/server-gpu")
"""Bundles that `make proofs` builds besides."""
PROOF = pytest.mark.proof("test_checksums_cover_every_file and the tests beside it, of the digits at the edge")
BUNDLES = [*SUITE, *(pytest.param(name, marks=PROOF) for name in MORE)]
COLUMNS = ["model", "target", "variant", "size", "p50", "p99", "vs eager", "parity", "verdict"]
CPU = (("bert", 17), ("digits", 20))
"""Specs with a target `cpu`, and their opsets."""


def manifest_of(bundle: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((bundle / "manifest.json").read_bytes())
    return document


@pytest.mark.parametrize("names", [SUITE, pytest.param((*SUITE, *MORE), marks=PROOF)], ids=["suite", "more"])
def test_both_specs_build(built: Build, names: tuple[str, ...]) -> None:
    built.succeeded()
    assert built.bundles() == sorted(names)
    assert not list(built.output.rglob(".*.new-*"))


def test_the_table_tells_the_numbers(built: Build) -> None:
    lines = built.succeeded().stdout.splitlines()
    header = re.split(r"\s{2,}", lines[0].strip())
    assert header == COLUMNS
    bundles = built.bundles()
    rows = {(row[0], row[1]): dict(zip(COLUMNS, row, strict=True)) for row in map(_cells, lines[1 : 1 + len(bundles)])}
    assert {f"{name.replace(' ', '/')}/{target}" for name, target in rows} == set(bundles)
    for (_, target), row in rows.items():
        assert re.fullmatch(r"[\d.]+ [kM]?B", row["size"]), row
        if target == "server-gpu":
            continue
        assert all(re.fullmatch(r"[\d.]+ (us|µs|ms|s)", row[column]) for column in ("p50", "p99")), row
        assert re.fullmatch(r"[\d.]+x \[[\d.]+, [\d.]+\]", row["vs eager"]), row
        assert re.fullmatch(r"(max_abs|cosine) [\d.e+-]+", row["parity"]), row
    assert rows["bert 1.0.0", "cpu"]["verdict"].startswith("pass")
    assert rows["digits 1.0.0", "edge"]["verdict"] == "provisional: linux/arm64 not measured"
    for name in bundles:
        assert str(built.output / name.rpartition("/")[0]) in built.stdout


def test_the_summary_has_a_line_per_target(built: Build) -> None:
    lines = built.succeeded().stdout.splitlines()
    for spec in dict.fromkeys(name.partition("/")[0] for name in built.bundles()):
        report = built.report(spec)
        assert any(line.endswith(f"  {built.output}/{spec}/{report['version']}.report.json") for line in lines)
        for target in report["targets"]:
            (row,) = (line for line in lines if line.startswith(f"{spec} {report['version']} {target['target']} "))
            end = {"published": f"pass ({len(target['verdicts'])} gates)", "provisional": "not measured"}
            assert row.endswith(end[target["status"]]), row
    tried = next(line for line in lines if line.startswith("next "))
    assert tried.split()[1:3] in (["ortc", "run"], ["ortc", "verify"])


def _cells(line: str) -> list[str]:
    return re.split(r"\s{2,}", line.strip())


@pytest.mark.parametrize("name", ["bert", "digits"])
def test_the_report_has_every_promise(built: Build, name: str) -> None:
    report = built.succeeded().report(name)
    assert report["exit_code"] == 0
    assert (report["exporter"], report["exporter_reason"]) == ("dynamo", None)
    for target in report["targets"]:
        gates = {verdict["gate"] for verdict in target["verdicts"]}
        assert {"latency p99"} <= gates, target["target"]
        selected = [entry["variant"] for entry in target["decisions"] if entry["outcome"] == "selected"]
        assert selected == [target["variant"]]
    cpu = next(target for target in report["targets"] if target["target"] == "cpu")
    assert {verdict["outcome"] for verdict in cpu["verdicts"]} == {"pass"}
    assert {"max_abs", "latency p99"} <= {verdict["gate"] for verdict in cpu["verdicts"]}
    # PyTorch starts in a fork of a process that has imported it here, which takes less time than elsewhere.
    assert cpu["numbers"]["eager_start_seconds"] > 0
    if name == "digits":
        assert "metric" in {verdict["gate"] for verdict in cpu["verdicts"]}
        # an engine that compiles its own copy of the weights may take more than PyTorch does
        assert cpu["numbers"]["eager_peak_rss_bytes"] > cpu["numbers"]["start_peak_rss_bytes"]
    # A p99 with a confidence interval needs this many.
    assert cpu["numbers"]["p99_ms"]["samples"] >= 400
    assert cpu["numbers"]["p99_ms"]["low"] <= cpu["numbers"]["p99_ms"]["value"] <= cpu["numbers"]["p99_ms"]["high"]


def test_a_second_build_does_nothing_again(built: Build, ortc: Compiler) -> None:
    built.succeeded()
    from tests.support.builds import DIGITS, PLAIN, snapshot

    before = snapshot(built.bundle("digits", "cpu").parent)
    again = ortc.build(DIGITS, *PLAIN, output=built.output).succeeded()
    stages = [line for line in again.stderr.splitlines() if line.startswith("  ") and "note" not in line.split()]
    assert [line for line in stages if not line.endswith("cached") and line.split()[0] != "fetch"] == []
    assert snapshot(built.bundle("digits", "cpu").parent) == before


@pytest.mark.parametrize(("name", "opset"), CPU)
def test_the_graph_is_what_the_spec_asks_for(built: Build, name: str, opset: int) -> None:
    bundle = built.succeeded().bundle(name, "cpu")
    path = bundle / "model" / "model.onnx"
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(path, load_external_data=False)
    manifest = manifest_of(bundle)
    imported = {entry.domain: entry.version for entry in model.opset_import}
    assert imported.pop("", None) == opset == manifest["model"]["opset"]
    assert imported == manifest["model"]["domains"]
    assert model.ir_version == manifest["model"]["ir_version"] <= 13
    axes = [axis["name"] for axis in manifest["axes"]]
    assert axes == (["batch", "sequence"] if name == "bert" else ["batch"])
    for value, declared in zip(model.graph.input, manifest["inputs"], strict=True):
        assert value.name == declared["name"]
        assert _shape(value) == declared["shape"]
        assert _shape(value)[: len(axes)] == axes
    for value, declared in zip(model.graph.output, manifest["outputs"], strict=True):
        assert value.name == declared["name"]
        assert _shape(value) == declared["shape"]


def _shape(value: onnx.ValueInfoProto) -> list[str | int]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


@pytest.mark.parametrize("name", BUNDLES)
def test_no_file_tells_of_the_machine(built: Build, name: str) -> None:
    bundle = built.succeeded().output / name
    # The scratch files of the image and the place of engines are the only paths below /tmp that belong into a bundle.
    temporary = re.escape(tempfile.gettempdir().encode()) + rb"/(?!requirements(-[$\w]+)?\.txt|ortc-engines\"|\n)"
    places = [re.escape(str(place).encode()) for place in (ROOT, Path.home() / "x", built.output)]
    found = re.compile(b"|".join([*places, re.escape(f"{Path.home()}/".encode()), temporary]))
    for path in sorted(bundle.rglob("*")):
        if path.is_file():
            match = found.search(path.read_bytes())
            assert match is None, f"{path.relative_to(bundle)}: {match.group() if match else ''!r}"


@pytest.mark.parametrize("name", BUNDLES)
def test_checksums_cover_every_file(built: Build, name: str) -> None:
    bundle = built.succeeded().output / name
    command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    done = subprocess.run(command, cwd=bundle, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout
    listed = {line.split("  ", 1)[1] for line in (bundle / "SHA256SUMS").read_text().splitlines()}
    present = {str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()}
    assert {path for path in present if not path.startswith(("measurements/", "attestations/"))} == listed | {
        "SHA256SUMS"
    }


@pytest.mark.parametrize("name", BUNDLES)
def test_the_image_is_clean_under_hadolint(built: Build, name: str, tmp_path: Path) -> None:
    text = (built.succeeded().output / name / "Dockerfile").read_text("utf-8")
    assert "hadolint" not in text, "no rule is ignored"
    hadolint = Path(sys.executable).with_name("hadolint")
    # From a directory without a configuration file: none of its rules is off.
    done = subprocess.run(
        [hadolint, "--no-color", "-"], input=text, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.proof("BERT-base; test_random_weights_are_measured_and_reach_nobody has a smaller model")
def test_random_weights_build_a_bundle_that_is_not_served(
    bert_base: Build, fresh_python: Callable[[Path], Path]
) -> None:
    bundle = bert_base.succeeded().bundle("bert-base", "cpu")
    manifest = manifest_of(bundle)
    assert manifest["fit_to_serve"] is False
    assert "random" in manifest["unfit_reason"]
    python = fresh_python(bundle)
    done = loader(python, bundle, "selftest")
    answer(done)
    assert "not fit to serve" in done.stderr
    assert manifest["unfit_reason"] in done.stderr
    done = loader(python, bundle, "--port", "0", program="server.py")
    assert done.returncode == 12
    assert "--allow-unfit" in done.stderr


def test_without_hub_and_flag_both_ways_out_are_named(ortc: Compiler, tmp_path: Path) -> None:
    result = ortc.build("specs/bert-base.yaml", "-t", "cpu", output=tmp_path / "dist")
    told = result.failed(4)
    assert "`model.safetensors` of google-bert/bert-base-uncased" in told
    assert "access to the hub" in told
    assert "`model.mirrors`" in told
    assert "--set model.weights=random" in told
    assert result.bundles() == []
