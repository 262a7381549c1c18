"""Entry points come from the project, as the source that its owners review, and from nowhere else."""

from __future__ import annotations

import importlib.util
import py_compile
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ortc.common.errors import StageError
from ortc.common.permissions import SETTINGS, grant, masked, may_read
from ortc.common.project import module_file, resolve_entrypoint
from ortc.plan.checks import check_spec
from ortc.spec.deployment import Spec
from ortc.spec.diagnostics.errors import SpecError
from ortc.spec.diagnostics.source import SourceFile
from ortc.spec.env_references import substitute
from ortc.spec.load import find_profile, load_spec
from ortc.spec.syntax.yaml_parser import parse

COMPILER = Path(__file__).parents[3] / "compiler" / "ortc"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty project; what is imported from it is forgotten afterwards."""
    known = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    place = tmp_path / "project"
    place.mkdir()
    yield place
    for name in set(sys.modules) - known:
        del sys.modules[name]


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        place = root.joinpath(name if "/" in name else name.replace("__", "/")).with_suffix(".py")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)


@pytest.mark.parametrize(
    "entrypoint",
    ["os:kill", "shutil:rmtree", "posix:kill", "subprocess:run", "builtins:exec", "pydantic:BaseModel"],
)
def test_installed_functions_are_refused(root: Path, entrypoint: str) -> None:
    with pytest.raises(StageError, match=r"is not of this project|there is no such module") as caught:
        resolve_entrypoint(entrypoint, root)
    assert "site-packages" not in str(caught.value)
    grant(packages=[entrypoint.partition(":")[0]])
    if "posix" not in entrypoint and "builtins" not in entrypoint:
        assert callable(resolve_entrypoint(entrypoint, root))


def test_a_function_of_a_trusted_package_above(root: Path) -> None:
    grant(packages=["importlib"])
    assert resolve_entrypoint("importlib.metadata:version", root) is importlib.metadata.version
    with pytest.raises(StageError, match="is not of this project"):
        resolve_entrypoint("shutil:copy", root)


@pytest.mark.parametrize(
    ("text", "owner"),
    [
        ("from os import kill as run", "posix"),
        ("from shutil import rmtree as run", "shutil"),
        ("import functools, subprocess\nrun = functools.partial(subprocess.run, shell=True)", "subprocess"),
        ("run = [].append", ""),
        ("import pathlib\nrun = pathlib.Path.unlink", "pathlib"),
        ("run = exec", "builtins"),
    ],
)
def test_functions_that_a_module_only_imports_are_refused(root: Path, text: str, owner: str) -> None:
    write(root, nets_a=text)
    with pytest.raises(StageError, match=f"`nets_a:run` is a function of `{owner}`, which is not of this project"):
        resolve_entrypoint("nets_a:run", root)


def test_functions_of_the_project(root: Path) -> None:
    write(
        root,
        nets_b__layers="import functools\ndef build(n=1): return n\n"
        "half = functools.partial(build, 2)\nclass Net: pass",
        nets_b__model="from .layers import build, half, Net\nfrom nets_b import layers\nmake = lambda: 3",
    )
    assert resolve_entrypoint("nets_b.model:build", root)() == 1
    assert resolve_entrypoint("nets_b.model:half", root)() == 2
    assert resolve_entrypoint("nets_b.model:make", root)() == 3
    assert resolve_entrypoint("nets_b.model:Net", root).__name__ == "Net"


def test_bytecode_beside_the_source_is_not_read(root: Path) -> None:
    """Bytecode that says it need not be checked is imported in place of the source, by Python's rules."""
    write(root, nets_c="def build(): return 'reviewed'", other="def build(): return 'forged'")
    cached = Path(importlib.util.cache_from_source(str(root / "nets_c.py")))
    py_compile.compile(
        str(root / "other.py"), str(cached), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
    )
    assert resolve_entrypoint("nets_c:build", root)() == "reviewed"


@pytest.mark.parametrize("suffix", [".pyc", ".so", f".cpython-{sys.version_info[0]}{sys.version_info[1]}-x.so"])
def test_modules_without_source_are_refused(root: Path, suffix: str) -> None:
    write(root, nets_d="import helper_d\ndef build(): return helper_d.VALUE", other="VALUE = 1")
    if suffix == ".pyc":
        py_compile.compile(str(root / "other.py"), str(root / "helper_d.pyc"))
    else:
        (root / "helper_d.so").write_bytes(b"\x7fELF")
        write(root, helper_d="VALUE = 1")
    with pytest.raises(StageError, match="is no Python source"):
        resolve_entrypoint("nets_d:build", root)


def test_a_module_without_source_is_no_entry_point(root: Path) -> None:
    write(root, other="def build(): return 1")
    py_compile.compile(str(root / "other.py"), str(root / "nets_e.pyc"))
    with pytest.raises(StageError, match="there is no such module"):
        resolve_entrypoint("nets_e:build", root)


def test_links_and_environments_are_not_of_the_project(root: Path, tmp_path: Path) -> None:
    write(tmp_path, outside="def build(): return 1")
    (root / "nets_f.py").symlink_to(tmp_path / "outside.py")
    (root / "venv").mkdir()
    (root / "venv" / "pyvenv.cfg").touch()
    write(root, venv__lib__nets_g="def build(): return 1")
    write(root, **{"env__site-packages__nets_h": "def build(): return 1"})
    for name in ("nets_f", "venv.lib.nets_g", "env.site-packages.nets_h"):
        with pytest.raises(StageError, match=f"`{name}` of the entry point .* is not of this project"):
            resolve_entrypoint(f"{name}:build", root)


def test_an_installed_package_in_the_project_is_the_projects(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root, src__nets_i__model="def build(): return 1", **{"src/nets_i/__init__": ""})
    monkeypatch.syspath_prepend(str(root / "src"))
    assert resolve_entrypoint("nets_i.model:build", root)() == 1


def test_a_module_of_the_project_does_not_stand_for_an_installed_one(root: Path) -> None:
    """It was imported before: the name means the installed one."""
    write(root, shutil="def rmtree(): pass")
    with pytest.raises(StageError, match="is not of this project"):
        resolve_entrypoint("shutil:rmtree", root)
    assert sys.modules["shutil"] is shutil


def test_looking_for_a_module_imports_nothing(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(
        tmp_path / "installed",
        **{"nets_j/__init__": "raise RuntimeError", "nets_j/deep/__init__": "raise RuntimeError"},
    )
    write(tmp_path / "installed", nets_j__deep__model="raise RuntimeError", nets_j__bare__model="raise RuntimeError")
    monkeypatch.syspath_prepend(str(tmp_path / "installed"))
    file = module_file("nets_j.deep.model", root)
    assert file == tmp_path / "installed" / "nets_j" / "deep" / "model.py"
    assert not [name for name in sys.modules if name.startswith("nets_j")]
    assert module_file("nets_j.bare.model", root) == tmp_path / "installed" / "nets_j" / "bare" / "model.py"
    for name in ("nets_j.none", "nets_j.deep.model.more", "none.at.all", "", ".", "a..b", "nets_j.", "é"):
        assert module_file(name, root) is None


# --- files of the project ---


def test_a_base_outside_of_the_project(root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.yaml").write_text("password: hunter2 hunter2\n")
    (root / "pyproject.toml").touch()
    (root / "inner").symlink_to(tmp_path)
    (root / "linked.yaml").symlink_to(tmp_path / "secret.yaml")
    (root / "spec.yaml").write_text("base: linked.yaml\n")
    (root / "near.yaml").write_text("base: inner/secret.yaml\n")
    (root / "far.yaml").write_text("base: ../secret.yaml\n")
    (root / "none.yaml").write_text("base: ../no-such.yaml\n")
    for name in ("spec", "near", "far", "none", "linked", "inner/secret"):
        with pytest.raises(SpecError) as caught:
            load_spec(root / f"{name}.yaml")
        assert [diagnostic.code for diagnostic in caught.value.diagnostics] == ["ORTC152"], name
        assert "hunter2" not in str([diagnostic.span for diagnostic in caught.value.diagnostics])


def test_a_profile_outside_of_the_project(root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.yaml").write_text("password: hunter2 hunter2\n")
    (root / "pyproject.toml").touch()
    (root / "targets").mkdir()
    (root / "targets" / "mine.yaml").symlink_to(tmp_path / "secret.yaml")
    for name in ("mine", str(tmp_path / "secret.yaml"), f"{root}/../secret.yaml"):
        with pytest.raises(SpecError) as caught:
            find_profile(name, root=root)
        assert [diagnostic.code for diagnostic in caught.value.diagnostics] == ["ORTC152"], name


# --- variables of the environment ---


def test_settings_of_ortc_are_not_for_specs() -> None:
    named = set()
    for path in COMPILER.rglob("*.py"):
        named |= set(re.findall(r'"(ORTC_[A-Z_]+)"', path.read_text("utf-8")))
    assert named - {"ORTC_"} == SETTINGS
    assert not any(map(may_read, SETTINGS))
    assert may_read("ORTC_MODELS")
    assert not may_read("AWS_SECRET_ACCESS_KEY")
    grant(variables=["MODELS"])
    assert may_read("MODELS")


@given(st.text("AZ_09", min_size=1, max_size=6), st.text(min_size=1))
def test_no_other_variable_is_read(name: str, value: str) -> None:
    document = parse(SourceFile("spec.yaml", f"version: '${{env:A{name}}}'\nmodel: {{source: onnx, path: x}}\n"))
    found, wrong = substitute(Spec, document, {f"A{name}": value})
    assert [diagnostic.code for diagnostic in wrong] == ["ORTC158"]
    assert found.data["version"] == f"${{env:A{name}}}"


def test_messages_show_the_reference(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORTC_PLACE", "/secret/place")
    monkeypatch.setenv("ORTC_TAG", "s3cr3t words")
    document = parse(
        SourceFile("s.yaml", "version: '${env:ORTC_TAG}'\nmodel: {source: onnx, path: '${env:ORTC_PLACE}/m.onnx'}\n")
    )
    substitute(Spec, document, {"ORTC_PLACE": "/secret/place", "ORTC_TAG": "s3cr3t words"})
    assert masked("no `/secret/place/m.onnx` of s3cr3t words") == "no `${env:ORTC_PLACE}/m.onnx` of ${env:ORTC_TAG}"


# --- names that mean something else than the file that was checked ---


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of installed packages, after the project on the import path."""
    place = tmp_path / "installed"
    monkeypatch.setattr(sys, "path", [*sys.path, str(place)])
    return place


@pytest.mark.parametrize("depth", [1, 2])
def test_an_installed_package_is_not_imported_for_a_module_of_the_project(
    root: Path, installed: Path, depth: int
) -> None:
    """Python takes an installed package before a directory of the same name without an `__init__.py`."""
    package = "nets_k" if depth == 1 else "nets_l/deep"
    write(installed, **{f"{package}/__init__": f"open({str(root / 'ran')!r}, 'w')"})
    write(root, **{f"{package}/evil": "def build(): return 1"})
    name = package.replace("/", ".")
    with pytest.raises(StageError, match=r"of the entry point .* is not of this project") as caught:
        resolve_entrypoint(f"{name}.evil:build", root)
    assert f"`{name.partition('.')[0]}" in str(caught.value)
    assert not (root / "ran").exists()


def test_a_package_that_was_imported_before_is_not_taken_for_the_projects(
    root: Path, installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(installed, **{"nets_m/__init__": "", "nets_m/model": "def build(): return 'installed'"})
    monkeypatch.syspath_prepend(str(installed))
    importlib.import_module("nets_m")
    sys.path.remove(str(installed))
    write(root, **{"nets_m/__init__": "", "nets_m/model": "def build(): return 'project'"})
    with pytest.raises(StageError, match=r"the package `nets_m` of the entry point .* is not of this project"):
        resolve_entrypoint("nets_m.model:build", root)
    assert "nets_m.model" not in sys.modules


def test_packages_without_code_are_the_projects(root: Path, installed: Path) -> None:
    write(root, **{"nets_n/deep/model": "def build(): return 'project'"})
    write(installed, **{"nets_n/other": "", "nets_n/deep/model": "def build(): return 'installed'"})
    assert resolve_entrypoint("nets_n.deep.model:build", root)() == "project"


def test_a_check_tells_of_an_installed_package_of_the_name(root: Path, installed: Path) -> None:
    write(installed, **{"nets_o/__init__": "raise RuntimeError"})
    write(root, **{"nets_o/evil": "def build(): return 1"})
    (root / "pyproject.toml").touch()
    text = (Path(__file__).parents[3] / "specs" / "digits.yaml").read_text()
    entrypoint = re.search("entrypoint: (.*)", text)
    assert entrypoint is not None
    (root / "s.yaml").write_text(text.replace(entrypoint[1], "nets_o.evil:build"))
    with pytest.raises(SpecError) as caught:
        check_spec(root / "s.yaml")
    assert "ORTC330" in [diagnostic.code for diagnostic in caught.value.diagnostics]
