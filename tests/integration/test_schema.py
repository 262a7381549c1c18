"""The committed JSON Schemas as `check-jsonschema` reads them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LANGUAGES = {"spec": "specs", "target": "targets"}


def check(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "check_jsonschema", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_are_schemas() -> None:
    done = check("--check-metaschema", *(f"docs/{language}.schema.json" for language in LANGUAGES))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("language", "directory"), LANGUAGES.items())
def test_accepts_what_this_repository_ships(language: str, directory: str) -> None:
    files = sorted(str(path) for path in (ROOT / directory).glob("*.yaml"))
    done = check("--schemafile", f"docs/{language}.schema.json", *files)
    assert done.returncode == 0, done.stdout


WRONG = (
    ("bert", "opset: 17", "opset: seventeen", "'seventeen' is not of type 'integer'"),
    ("bert", "p99: 120ms", "p99: 120", "120"),
    ("digits", "opset: 20", "opsett: 20", "'opsett' was unexpected"),
    ("digits", "kind: ModelDeployment", "kind: Deployment", "'ModelDeployment' was expected"),
    ("bert-base", "version: 1.0.0\n", "", "'version' is a required property"),
)


def test_refuses(tmp_path: Path) -> None:
    for number, (name, found, wrong, _) in enumerate(WRONG):
        text = (ROOT / "specs" / f"{name}.yaml").read_text("utf-8")
        assert found in text
        (tmp_path / f"spec-{number}.yaml").write_text(text.replace(found, wrong, 1), "utf-8")
    files = sorted(map(str, tmp_path.iterdir()))
    done = check("--schemafile", "docs/spec.schema.json", "--output-format", "json", *files)
    assert done.returncode == 1
    told: dict[str, str] = {}
    for error in json.loads(done.stdout)["errors"]:
        told[error["filename"]] = told.get(error["filename"], "") + json.dumps(error)
    assert sorted(told) == files
    for file, (*_, message) in zip(files, WRONG, strict=True):
        assert message in told[file]
