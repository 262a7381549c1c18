"""Build the images of bundles with buildah, look into them, and run them with runc; no daemon and no registry.

The base image is a root file system that mmdebstrap unpacks: what `python:3.x-slim` is to the Dockerfiles, with
Debian's Python. The package index is what pip of this machine has as one: it fills a directory that builds see.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.pages import options
from tests.support.runs import SECONDS, Container, program, runtime_spec

from ortc.bundle.debian_rootfs import PACKAGES, SUITES, make_root
from ortc.bundle.dockerfile import wheel_tags
from ortc.common.resources import cache_root
from ortc.common.values import digest
from ortc.execution.runtime_environment import kept
from ortc.spec.runtimes import pins

PAGE = "docs/deploy.md"
PYTHON = "3.13"
STAMP = 315532800
WITH_PIP = (*PACKAGES, "ca-certificates", "coreutils", "dash", "findutils", "python3-pip")
"""For the image that runs pip; the one that serves has no shell, and no other program than Python."""
PACKAGED = {"buildah": "buildah", "mmdebstrap": "mmdebstrap", "runc": "runc", "qemu-aarch64-static": "qemu-user-static"}
"""Debian's packages by the programs that are used of them."""


def need(*tools: str) -> None:
    """Skip where a tool is missing, or fail where ORTC_REQUIRE_TOOLS says that none may be."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if os.geteuid() != 0:
        missing.append("root")
    if missing:
        packages = " ".join(PACKAGED[tool] for tool in missing if tool in PACKAGED)
        reason = f"containers need {', '.join(missing)} (Debian: apt-get install {packages})"
        if os.environ.get("ORTC_REQUIRE_TOOLS") == "1":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


@dataclass(frozen=True)
class Layer:
    """A layer of an image: its sizes in bytes, and what is in it."""

    compressed: int
    content: bytes

    def members(self) -> list[tarfile.TarInfo]:
        with tarfile.open(fileobj=io.BytesIO(self.content)) as archive:
            return archive.getmembers()

    @property
    def unpacked(self) -> int:
        return sum(member.size for member in self.members())


@dataclass(frozen=True)
class Image:
    """An image as it is pushed, in OCI's format."""

    digest: str
    config: dict[str, Any]
    layers: tuple[Layer, ...]

    @property
    def labels(self) -> dict[str, str]:
        return dict(self.config["config"]["Labels"])

    @property
    def added(self) -> tuple[Layer, ...]:
        """The layers above the base image, which has one."""
        return self.layers[1:]

    def files(self) -> dict[str, tarfile.TarInfo]:
        """Everything above the base image but directories, by path."""
        return {member.name: member for layer in self.added for member in layer.members() if not member.isdir()}


@dataclass(frozen=True)
class Engine:
    """Images in a storage of their own, built and pushed with the options that docs/deploy.md gives."""

    place: Path

    @property
    def wheels(self) -> Path:
        """What builds see of the package index."""
        return self.place / "wheels"

    def unmount(self) -> None:
        """Everything that is mounted below, for the directory to be removed."""
        mounted = [line.split()[1] for line in Path("/proc/mounts").read_text("utf-8").splitlines()]
        for place in reversed([entry for entry in mounted if entry.startswith(f"{self.place}/")]):
            subprocess.run([program("umount"), "--lazy", place], check=True)

    def buildah(self, *arguments: str | Path) -> str:
        storage = ["--root", self.place / "root", "--runroot", self.place / "run"]
        done = subprocess.run(
            [program("buildah"), *map(str, storage), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            env={**os.environ, "STORAGE_DRIVER": os.environ.get("STORAGE_DRIVER", "overlay")},
        )
        assert done.returncode == 0, f"{done.stderr[-4000:]}\n{done.stdout[-2000:]}"
        return done.stdout.strip()

    def base(self, platform: str, *, pip: bool) -> str:
        """Name of a base image; its root file system is kept in the user's cache between runs."""
        architecture = platform.partition("/")[2]
        name = f"localhost/python-{'pip' if pip else 'bare'}:{architecture}"
        if name in self.buildah("images", "--format", "{{.Name}}:{{.Tag}}").split():
            return name
        packages = WITH_PIP if pip else PACKAGES
        place = cache_root() / "environments" / f"root-{digest([platform, SUITES[PYTHON], packages])[:16]}"
        kept(place, lambda new: _root(new, architecture, packages))
        container = self.buildah("from", "--arch", architecture, "scratch")
        self.buildah("copy", container, place / "rootfs", "/")
        self.buildah("config", "--arch", architecture, "--os", "linux", "--env", "PATH=/usr/bin:/bin", container)
        self.buildah("commit", "--quiet", "--rm", "--timestamp", "0", container, name)
        return name

    def build(self, bundle: Path, platform: str, tag: str, extras: tuple[str, ...] = ()) -> Image:
        """`buildah build` of a bundle's Dockerfile, from nothing, and the image as it would be pushed."""
        for listing in ("requirements.txt", *(f"requirements-{extra}.txt" for extra in extras)):
            self._fetch(bundle, platform, listing)
        secret = self.place / "pip.conf"
        secret.write_text("[global]\nno-index = true\nfind-links = /wheels\n", "utf-8")
        here = "linux/amd64"
        arguments = {
            "BASE_IMAGE": self.base(platform, pip=False),
            "BUILD_IMAGE": self.base(here, pip=True),
            # BuildKit and newer buildah know it; buildah 1.28 has to be told.
            "BUILDPLATFORM": here,
            "EXTRAS": " ".join(extras),
        }
        self.buildah(
            "build",
            *("--isolation", "chroot", "--layers", "--no-cache", "--pull-never", "--platform", platform),
            *options(PAGE, "buildah build"),
            *("--secret", f"id=pip.conf,src={secret}", "--volume", f"{self.wheels}:/wheels:ro"),
            *(part for name, value in arguments.items() for part in ("--build-arg", f"{name}={value}")),
            *("--tag", f"localhost/{tag}", bundle),
        )
        target = self.place / f"oci-{tag}"
        shutil.rmtree(target, ignore_errors=True)
        self.buildah("push", "--quiet", *options(PAGE, "buildah push"), f"localhost/{tag}", f"oci:{target}:image")
        return read_image(target)

    @contextlib.contextmanager
    def run(self, tag: str, image: Image, *arguments: str, over: dict[str, Path] | None = None) -> Iterator[Container]:
        """The image's own entry point as process 1 of a container that may do nothing.

        Its user, no capabilities and no new privileges, a read-only root file system, a /tmp and no shell. Another
        platform's is run by an emulator, which is put in front of the command.

        Args:
            tag: of the image.
            image: the image.
            arguments: in place of the image's CMD.
            over: files of this machine that are seen in place of the container's.
        """
        container = self.buildah("from", "--pull-never", f"localhost/{tag}")
        name = f"ortc-{os.getpid()}-{tag}"
        place = self.place / name
        place.mkdir(exist_ok=True)
        try:
            root = Path(self.buildah("mount", container))
            spec = runtime_spec(image.config, root, arguments, over or {})
            (place / "config.json").write_text(json.dumps(spec), "utf-8")
            running = Container(name, place, self.place / "runc")
            try:
                yield running
            finally:
                running.delete()
        finally:
            self.buildah("rm", container)

    def _fetch(self, bundle: Path, platform: str, listing: str) -> None:
        """The wheels that a bundle pins, from the index that pip of this machine has."""
        package = json.loads((bundle / "manifest.json").read_bytes())["runtime"]["package"]
        tags = wheel_tags(pins(package), platform)
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"),
                *("--only-binary=:all:", "--python-version", PYTHON, "--dest", str(self.wheels)),
                *(part for tag in tags for part in ("--platform", tag)),
                *("-r", str(bundle / listing)),
            ],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def _root(place: Path, architecture: str, packages: tuple[str, ...]) -> None:
    place.mkdir()
    root = place / "rootfs"
    make_root(root, architecture, SUITES[PYTHON], packages)
    for name in ("dev", "proc", "sys", "tmp"):
        (root / name).mkdir(exist_ok=True)
    certificates = sorted((root / "usr/share/ca-certificates").rglob("*.crt"))
    if certificates:
        # What configuring the package would have made; pip does not start without it.
        (root / "etc/ssl/certs").mkdir(parents=True, exist_ok=True)
        bundle = b"".join(path.read_bytes() for path in certificates)
        (root / "etc/ssl/certs/ca-certificates.crt").write_bytes(bundle)


def read_image(layout: Path) -> Image:
    """An image in a directory of OCI's layout."""

    def blob(described: dict[str, Any]) -> bytes:
        return (layout / "blobs" / described["digest"].replace(":", "/")).read_bytes()

    (described,) = json.loads((layout / "index.json").read_bytes())["manifests"]
    manifest = json.loads(blob(described))
    layers = tuple(Layer(layer["size"], gzip.decompress(blob(layer))) for layer in manifest["layers"])
    return Image(described["digest"], json.loads(blob(manifest["config"])), layers)
