"""`ortc init --demo`: a project that builds, serves and tests, and that never takes the place of anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.builds import PLAIN, Compiler
from tests.support.serving import serve
from tests.support.shared import shared

pytestmark = pytest.mark.integration

TEXT = "My parcel has not arrived."


def init(ortc: Compiler, place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ortc", "init", "--demo", *arguments]
    return subprocess.run(command, cwd=place, env=ortc.environment(), capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def project(ortc: Compiler, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project, with its bundle in `dist`."""

    def make(place: Path) -> None:
        done = init(ortc, place)
        assert done.returncode == 0, done.stderr
        assert "held-out texts are labelled right\nnext  cd demo\n" in done.stdout
        ortc.build("specs/messages.yaml", *PLAIN, output=place / "demo" / "dist", cwd=place / "demo").succeeded()

    return shared(tmp_path_factory, "demo", make) / "demo"


def test_the_demo_is_whole(project: Path) -> None:
    files = {path.relative_to(project).as_posix() for path in project.rglob("*") if path.is_file()}
    assert {"README.md", ".gitignore", "pyproject.toml", "specs/messages.yaml", "test_messages.py"} <= files
    assert "gitignore" not in files
    assert len((project / "README.md").read_text("utf-8").splitlines()) < 40
    (target,) = json.loads((project / "dist/messages/1.0.0.report.json").read_bytes())["targets"]
    judged = {verdict["gate"]: verdict["outcome"] for verdict in target["verdicts"]}
    assert judged == dict.fromkeys(("max_abs", "answer_cosine", "answer_top1", "metric"), "pass")


def test_the_demo_tests_its_bundle(project: Path, ortc: Compiler) -> None:
    command = [sys.executable, "-m", "unittest"]
    done = subprocess.run(
        command, cwd=project, env=ortc.environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Ran 1 test" in done.stderr


def test_the_demo_answers_over_http(project: Path) -> None:
    with serve(project / "dist/messages/1.0.0/cpu") as server:
        status, _, content = server.exchange("POST", "/v1/predict", json.dumps({"inputs": TEXT}).encode())
        assert status == 200, content
        (answer,) = json.loads(content)["outputs"]
        assert answer[0]["label"] == "delivery"
        server.stop()


def test_a_directory_with_something_in_it_is_left_alone(ortc: Compiler, tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "README.md").write_text("mine", "utf-8")
    (tmp_path / "file").touch()
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere" / "else")
    for name, said in (
        ("demo", "demo is not empty: it has `README.md`"),
        (".", ". is not empty: it has `demo`"),
        ("file", "file is not a directory"),
        ("file/demo", "file/demo"),
    ):
        done = init(ortc, tmp_path, name)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert said in done.stderr
    assert [path.name for path in (tmp_path / "demo").iterdir()] == ["README.md"]
    assert (tmp_path / "demo" / "README.md").read_text("utf-8") == "mine"


@pytest.mark.parametrize("option", [("-t", "cpu"), ("--force",), ("-o", "spec.yaml"), ("--revision", "main")])
def test_options_of_a_draft_do_not_go_with_a_demo(option: tuple[str, ...], ortc: Compiler, tmp_path: Path) -> None:
    done = init(ortc, tmp_path, *option)
    assert done.returncode == 2
    assert "does not go with --demo" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_training_that_fails_leaves_nothing(ortc: Compiler, tmp_path: Path) -> None:
    (tmp_path / "transformers.py").write_text("raise ImportError('broken')\n", "utf-8")
    environment = ortc.environment()
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), environment["PYTHONPATH"]])
    command = [sys.executable, "-m", "ortc", "init", "--demo", "new"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 4, done.stderr
    assert "ImportError: broken" in done.stderr
    assert not (tmp_path / "new").exists()
