"""A change of what a user's function depends on shows in its digest, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ortc.common.errors import StageError
from ortc.inspection.entrypoint import entrypoint_digest

FILES = {
    "nets/__init__.py": "",
    "nets/model.py": "import torch\nfrom . import layers\nfrom .parts.head import Head\nimport common.math as m\n",
    "nets/layers.py": "def late():\n    from common import blocks\n",
    "nets/labels.txt": "a b c",
    "nets/weights.safetensors": "weights",
    "nets/README.md": "text",
    "nets/parts/__init__.py": "",
    "nets/parts/head.py": "from ..deep import inner\n",
    "nets/deep/__init__.py": "",
    "nets/deep/inner.py": "import nets.model\n",
    "common/__init__.py": "",
    "common/math.py": "",
    "common/blocks.py": "",
    "common/unused.py": "",
    "other/__init__.py": "",
}
DEPENDS = [
    "nets/__init__.py",
    "nets/model.py",
    "nets/layers.py",
    "nets/labels.txt",
    "nets/parts/__init__.py",
    "nets/parts/head.py",
    "nets/deep/__init__.py",
    "nets/deep/inner.py",
    "common/__init__.py",
    "common/math.py",
    "common/blocks.py",
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("name", FILES)
def test_what_it_depends_on(root: Path, name: str) -> None:
    before = entrypoint_digest("nets.model:build", root)
    assert entrypoint_digest("nets.model:build", root) == before
    (root / name).write_text(FILES[name] + "\n# changed")
    assert (entrypoint_digest("nets.model:build", root) != before) == (name in DEPENDS)


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "nets" / "new.py").touch(),
        lambda root: (root / "nets" / "labels.txt").rename(root / "nets" / "names.txt"),
        lambda root: (root / "common" / "blocks.py").unlink(),
    ],
)
def test_files_that_come_and_go(root: Path, change: Callable[[Path], None]) -> None:
    before = entrypoint_digest("nets.model:build", root)
    change(root)
    assert entrypoint_digest("nets.model:build", root) != before


def test_the_digest_does_not_depend_on_the_place(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "project"
    root.rename(elsewhere)
    there = entrypoint_digest("nets.model:build", elsewhere)
    elsewhere.rename(root)
    assert entrypoint_digest("nets.model:build", root) == there


def test_a_package_as_the_entry_point(root: Path) -> None:
    before = entrypoint_digest("nets:build", root)
    (root / "nets" / "__init__.py").write_text("from common import unused")
    assert entrypoint_digest("nets:build", root) != before
    after = entrypoint_digest("nets:build", root)
    (root / "common" / "unused.py").write_text("x = 1")
    assert entrypoint_digest("nets:build", root) != after


def test_an_installed_module(root: Path) -> None:
    assert entrypoint_digest("json:loads", root) == entrypoint_digest("json:dumps", root)


@pytest.mark.parametrize("name", ["missing", "nets.missing", "json.missing.deeper", "sys"])
def test_no_such_module(root: Path, name: str) -> None:
    with pytest.raises(StageError, match=f"cannot find the module `{name}` of the entry point `{name}:f`"):
        entrypoint_digest(f"{name}:f", root)


@pytest.mark.parametrize("text", ["def broken(:", "\x00", "from ......... import x"])
def test_code_that_cannot_be_read_is_still_in_the_digest(root: Path, text: str) -> None:
    before = entrypoint_digest("nets.model:build", root)
    (root / "nets" / "layers.py").write_text(text)
    assert entrypoint_digest("nets.model:build", root) != before
