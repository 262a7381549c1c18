"""What a real build says of its bundle, and what signing a real bundle protects."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from tests.support.builds import ROOT, TIMEOUT, Build, Compiler, answer, loader

pytestmark = pytest.mark.integration

Fresh = Callable[[Path], Path]


def ortc(compiler: Compiler, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ortc", *map(str, arguments)],
        cwd=ROOT,
        env=compiler.environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


@pytest.mark.parametrize("target", ["cpu", "edge"])
def test_documents_of_a_build_are_valid(digits: Build, target: str) -> None:
    bundle = digits.succeeded().bundle("digits", target)
    (card,) = (bundle / "measurements").glob("*.cdx.json")
    for document in (bundle / "sbom.cdx.json", card):
        assert JsonStrictValidator(SchemaVersion.V1_7).validate_str(document.read_text("utf-8")) is None
    report = next(entry for entry in digits.report("digits")["targets"] if entry["target"] == target)
    metrics = json.loads(card.read_bytes())["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]
    told = {entry["type"]: entry["value"] for entry in metrics["performanceMetrics"]}
    assert float(told["latency p99 (ms)"]) == report["numbers"]["p99_ms"]["value"]
    assert {name.removeprefix("gate ") for name in told if name.startswith("gate ")} == {
        verdict["gate"] for verdict in report["verdicts"]
    }
    statement = json.loads((bundle / "attestations" / "provenance.intoto.json").read_bytes())
    listed = dict(reversed(line.split("  ", 1)) for line in (bundle / "SHA256SUMS").read_text("utf-8").splitlines())
    subjects = {entry["name"]: entry["digest"]["sha256"] for entry in statement["subject"]}
    sums = {"SHA256SUMS": hashlib.sha256((bundle / "SHA256SUMS").read_bytes()).hexdigest()}
    assert subjects == {**listed, **sums}
    definition = statement["predicate"]["buildDefinition"]
    assert "torch" in definition["internalParameters"]["tools"]
    used = {(entry["annotations"]["role"], entry["name"]) for entry in definition["resolvedDependencies"]}
    assert {
        ("model", "weights.safetensors"),
        ("model code", "model.py"),
        ("samples", "examples/digits/samples.npz"),
        ("metric code", "accuracy.py"),
    } <= used
    libraries = {entry["name"] for entry in json.loads((bundle / "sbom.cdx.json").read_bytes())["components"]}
    assert "grpcio" in libraries


def test_a_signed_bundle_runs_and_is_verified(
    digits_compiler: Compiler, digits: Build, copy_of: Callable[[Path], Path], fresh_python: Fresh, tmp_path: Path
) -> None:
    bundle = copy_of(digits.succeeded().bundle("digits", "cpu"))
    key, public = tmp_path / "key.pem", tmp_path / "key.pub"
    for command in (
        ["openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", str(key)],
        ["openssl", "ec", "-in", str(key), "-pubout", "-out", str(public)],
    ):
        subprocess.run(command, capture_output=True, check=True)
    done = ortc(digits_compiler, "sign", bundle, "--key", key)
    assert done.returncode == 0, done.stderr
    answer(loader(fresh_python(bundle), bundle, "selftest", "--verify", "full"))
    done = ortc(digits_compiler, "verify", "--key", public, bundle)
    assert done.returncode == 0, done.stderr
    other = copy_of(digits.bundle("digits", "edge"))
    assert ortc(digits_compiler, "sign", bundle, other, "--key", key).returncode == 0
    several = ortc(digits_compiler, "verify", "--key", public, bundle, other, "--json")
    assert several.returncode == 0, several.stderr
    assert [entry["target"] for entry in json.loads(several.stdout)["bundles"]] == ["cpu", "edge"]
    packed = ortc(digits_compiler, "pack", bundle, other, "-o", tmp_path / "packed", "--format", "tar")
    assert packed.returncode == 0, packed.stderr
    assert sorted(path.name for path in (tmp_path / "packed").glob("*.tar")) == [
        "digits-1.0.0-cpu.tar",
        "digits-1.0.0-edge.tar",
    ]
    model = bundle / "model" / "model.onnx"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    done = ortc(digits_compiler, "verify", "--key", public, bundle)
    assert done.returncode != 0
    assert "model/model.onnx" in done.stderr
