"""A packed bundle through a real container registry: Debian's docker-registry on loopback, and skopeo."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.whole_bundles import whole_bundle

from ortc.bundle.delivery.pack import pack

pytestmark = pytest.mark.integration

CONFIG = """version: 0.1
storage:
  filesystem:
    rootdirectory: {root}
http:
  addr: 127.0.0.1:{port}
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an empty container registry."""
    for tool in ("skopeo", "docker-registry"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed: apt-get install {tool}")
    place = tmp_path_factory.mktemp("registry")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (place / "config.yml").write_text(CONFIG.format(root=place / "store", port=port))
    command = [str(shutil.which("docker-registry")), "serve", str(place / "config.yml")]
    with (place / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            for _ in range(600):
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=30):
                        break
                except urllib.error.URLError:
                    assert process.poll() is None, (place / "log").read_text()
                    time.sleep(0.1)
            else:
                pytest.fail((place / "log").read_text())
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()


def skopeo(*arguments: str) -> str:
    # No machine-wide policy is needed, nor does one decide the outcome.
    command = [str(shutil.which("skopeo")), "--insecure-policy", *arguments]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("reference", ["1.0.0-cpu", "1.0.0-cpu-modelcar"], ids=["artifact", "modelcar"])
def test_a_bundle_goes_to_a_registry_and_back(registry: str, reference: str, tmp_path: Path) -> None:
    bundle = whole_bundle(tmp_path / "cpu")
    done = pack(bundle, tmp_path / "out", ["oci"])
    image = next(entry for entry in done.images if entry.reference == reference)
    there = f"docker://{registry}/models/linear:{reference}"
    skopeo("copy", "--preserve-digests", "--dest-tls-verify=false", f"oci:{done.layout}:{reference}", there)
    back = tmp_path / "back"
    skopeo("copy", "--preserve-digests", "--src-tls-verify=false", there, f"oci:{back}:{reference}")
    (entry,) = json.loads((back / "index.json").read_bytes())["manifests"]
    assert entry["digest"] == image.digest
    manifest = json.loads((back / "blobs" / "sha256" / image.digest.removeprefix("sha256:")).read_bytes())
    for layer in manifest["layers"]:
        with tarfile.open(back / "blobs" / "sha256" / layer["digest"].removeprefix("sha256:")) as opened:
            opened.extractall(tmp_path / "root", filter="data")
    files = {p.relative_to(bundle): p.read_bytes() for p in bundle.rglob("*") if p.is_file()}
    came = tmp_path / "root" / "models"
    assert {p.relative_to(came): p.read_bytes() for p in came.rglob("*") if p.is_file()} == files
