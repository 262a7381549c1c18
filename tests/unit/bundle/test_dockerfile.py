"""What Dockerfiles are rendered from: wheels of a platform that the building machine need not be."""

from __future__ import annotations

import pytest
from packaging.markers import Marker
from packaging.tags import compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename

from ortc.bundle.dockerfile import architecture_of, wheel_tags
from ortc.common.resources import data_dir
from ortc.spec.runtimes import extras, pins

NAMES = sorted(path.stem for path in (data_dir() / "pins").glob("*.json"))
SETS = [name for name in NAMES if not pins(name).npm]
"""Sets of wheels; bundles for browsers have no Dockerfile."""
MACHINES = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}
PAIRS = [
    pytest.param(name, platform, python, id=f"{name}-{platform}-{python}")
    for name in SETS
    for platform in pins(name).platforms
    for python in pins(name).pythons
]


@pytest.mark.parametrize(("name", "platform", "python"), PAIRS)
def test_pip_on_any_machine_accepts_the_wheels_of_a_platform(name: str, platform: str, python: str) -> None:
    """By the tags that `pip install --platform` makes of them, which adds none of its own; see PEP 425."""
    asked = wheel_tags(pins(name), platform)
    version = tuple(map(int, python.split(".")))
    accepted = {*cpython_tags(version, platforms=asked), *compatible_tags(version, f"cp{python}", platforms=asked)}
    for pin in (pin for chosen in (pins(name), *extras()) for pin in chosen.requirements):
        for wheel in pin.wheels:
            if python in wheel.serves.get(platform, ()):
                assert parse_wheel_filename(wheel.file)[3] & accepted, wheel.file


@pytest.mark.parametrize("name", SETS)
def test_tags_are_of_one_machine(name: str) -> None:
    for platform in pins(name).platforms:
        assert all(tag.endswith(f"_{MACHINES[platform]}") for tag in wheel_tags(pins(name), platform))


@pytest.mark.parametrize("name", SETS)
def test_extras_agree_with_every_runtime(name: str) -> None:
    """They are installed beside it: what both have must be of one version, on every platform and Python that it has."""
    versions = {pin.name: pin.version for pin in pins(name).requirements}
    for extra in extras():
        assert set(extra.platforms) >= set(pins(name).platforms)
        assert set(extra.pythons) >= set(pins(name).pythons)
        assert {pin.name: versions.get(pin.name, pin.version) for pin in extra.requirements} == {
            pin.name: pin.version for pin in extra.requirements
        }
        text = extra.requirements_txt(beside=pins(name))
        assert text
        assert not {line.partition("==")[0] for line in text.splitlines()} & versions.keys()


@pytest.mark.parametrize("name", SETS)
def test_no_package_belongs_to_one_machine_alone(name: str) -> None:
    """Images are put together on other machines than theirs, where pip evaluates markers for the machine it runs on."""
    chosen = pins(name)
    for python in chosen.pythons:
        wanted = {
            platform: {
                f"{pin.name}=={pin.version}"
                for pin in chosen.requirements
                if pin.marker is None
                or Marker(pin.marker).evaluate({"platform_machine": MACHINES[platform], "python_version": python})
            }
            for platform in chosen.platforms
        }
        assert all(packages == next(iter(wanted.values())) for packages in wanted.values()), wanted


def test_an_architecture_is_named_as_containers_name_it() -> None:
    assert [architecture_of(platform) for platform in MACHINES] == ["amd64", "arm64"]
