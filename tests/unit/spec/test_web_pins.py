"""The pins of browsers: files of an npm package instead of wheels; and what their loader lets session.json say."""

from __future__ import annotations

import hashlib
import re

import pytest

from ortc.common.resources import data_dir, templates_dir
from ortc.spec.load import load_profile
from ortc.spec.runtimes import pins, runtime
from ortc.spec.settings import settings

SESSION = templates_dir() / "web" / "runtime" / "session.mjs"
OPTIONS = templates_dir() / "javascript" / "runtime" / "options.mjs"
IN_NODE = templates_dir() / "node" / "runtime" / "session.mjs"


def test_the_set_of_browsers_has_files_and_no_wheels() -> None:
    found = pins("onnxruntime-web")
    (package,) = found.npm
    assert found.requirement == f"{package.name}@{package.version}"
    assert found.platforms == ("web/wasm",)
    assert found.packages() == ()
    assert found.requirements_txt() == ""
    assert found.serves("web/wasm", "3.12")
    assert not found.serves("linux/amd64", "3.12")
    assert found.loader_bytes("web/wasm") == sum(file.bytes for file in package.files)
    carried = {file.path.rpartition("/")[2] for file in package.files}
    assert carried == set(re.findall(r"\$\{ORT\}([\w.-]+)`", SESSION.read_text("utf-8")))


def test_sets_of_wheels_have_the_digest_that_they_had() -> None:
    names = sorted(path.stem for path in (data_dir() / "pins").glob("*.json"))
    for found in map(pins, names):
        text = found.model_dump_json() if found.npm else found.model_dump_json(exclude={"npm"})
        assert found.sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_the_profile_pins_what_was_probed() -> None:
    profile = load_profile("web")
    known = runtime(profile.runtime.package, profile.runtime.version)
    assert (known.max_opset, known.max_ir) == (26, 13)
    assert profile.is_web
    assert profile.image is None


@pytest.mark.parametrize("package", ["onnxruntime-web", "onnxruntime-node"])
def test_the_loader_allows_what_profiles_may_say(package: str) -> None:
    source = OPTIONS.read_text("utf-8")
    allowed = settings().of(package, "1.30.0")
    own = re.findall(r'^const UNSIGNED_WEIGHTS = "(.*)";', IN_NODE.read_text("utf-8"), re.MULTILINE)
    options = re.search(r"const SESSION_OPTIONS = \{(.*?)\};", source, re.DOTALL)
    entries = re.search(r"const CONFIG_ENTRIES = new Set\(\s*`(.*?)`", source, re.DOTALL)
    assert options is not None
    assert entries is not None
    names, taken = set(re.findall(r"^\s+(\w+):", options[1], re.MULTILINE)), set(entries[1].split())
    if package == "onnxruntime-web":
        assert (names, taken) == (set(allowed.session_options), set(allowed.config_entries))
        return
    # The native library knows more, of which a profile may set what the loader takes.
    profile = load_profile("node")
    assert names <= set(allowed.session_options)
    assert taken | set(own) <= set(allowed.config_entries)
    assert profile.session.options.keys() <= names
    assert profile.session.config_entries.keys() <= taken | set(own)


def test_the_set_of_node_has_a_native_library_by_platform() -> None:
    found = pins("onnxruntime-node")
    (package,) = found.npm
    assert found.platforms == ("linux/amd64", "linux/arm64")
    assert sorted(package.placed(("linux/arm64",))) == [
        "runtime/ort/arm64/libonnxruntime.so.1",
        "runtime/ort/arm64/onnxruntime_binding.node",
    ]
    assert len(package.placed(found.platforms)) == 4
    both = [found.loader_bytes(platform) for platform in found.platforms]
    assert sum(both) == sum(file.bytes for file in package.files)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"platforms": ["web/wasm", "linux/amd64"]}, "browsers need a profile of their own"),
        ({"image": {"base_image": "python", "python": "3.12"}}, "has no `image`"),
        ({"requires_gpu": True}, "has no `requires_gpu`"),
        ({"platforms": ["linux/amd64"]}, "`image` is missing"),
    ],
)
def test_profiles_for_browsers_have_nothing_of_containers(change: dict[str, object], said: str) -> None:
    profile = load_profile("web")
    with pytest.raises(ValueError, match=re.escape(said)):
        type(profile).model_validate_json(
            type(profile)
            .model_validate({**profile.model_dump(by_alias=True), **change}, strict=False)
            .model_dump_json()
        )
