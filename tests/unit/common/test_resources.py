"""The package finds its own directories in a checkout and inside an installed wheel."""

from pathlib import Path

import pytest

from ortc.common import resources

ROOT = Path(__file__).parents[3]


def test_a_checkout_uses_the_directories_beside_the_source_root() -> None:
    assert resources.targets_dir() == ROOT / "targets"
    assert resources.data_dir() == ROOT / "targets" / "data"
    assert resources.templates_dir() == ROOT / "templates"


def test_an_installed_package_uses_its_own_data_before_anything_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "lib" / "site-packages" / "ortc"
    for name in ("targets", "templates"):
        (package / "_data" / name).mkdir(parents=True)
        (tmp_path / "lib" / name).mkdir()
    monkeypatch.setattr(resources, "_PACKAGE", package)
    assert resources.targets_dir() == package / "_data" / "targets"
    assert resources.templates_dir() == package / "_data" / "templates"


def test_a_missing_directory_is_an_error_that_names_both_places(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "src" / "ortc"
    monkeypatch.setattr(resources, "_PACKAGE", package)
    with pytest.raises(FileNotFoundError) as raised:
        resources.data_dir()
    assert str(package / "_data" / "targets") in str(raised.value)
    assert str(tmp_path / "targets") in str(raised.value)
