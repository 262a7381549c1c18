"""Run a root file system as its image's configuration says, with runc."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from ortc.bundle.emulation import MACHINES, PROCESSORS

SECONDS = 600
"""For anything: the machine may be busy, and an emulator is slow."""


def program(name: str) -> str:
    """Where a program is that the test has asked for before."""
    found = shutil.which(name)
    assert found is not None, name
    return found


def runc(state: Path, *arguments: str) -> int:
    """Exit code of a command of runc's."""
    command = [program("runc"), "--root", str(state), *arguments]
    return subprocess.run(command, capture_output=True, timeout=SECONDS, check=False).returncode


def runtime_spec(
    image: dict[str, Any], root: Path, arguments: tuple[str, ...], over: dict[str, Path]
) -> dict[str, Any]:
    """config.json of the OCI runtime specification."""
    config = image["config"]
    command = [*config["Entrypoint"], *(arguments or config["Cmd"])]
    environment = list(config["Env"])
    user, _, group = config["User"].partition(":")
    mounts: list[dict[str, Any]] = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]},
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"]},  # noqa: S108
    ]
    platform = f"{image['os']}/{image['architecture']}"
    if platform == "linux/arm64":
        over = {**over, "/tmp/emulator": Path(program(f"qemu-{MACHINES[platform]}-static"))}  # noqa: S108
        command = ["/tmp/emulator", f"/usr/bin/{command[0]}", *command[1:]]  # noqa: S108
        environment.append(f"QEMU_CPU={os.environ.get('QEMU_CPU', PROCESSORS[platform])}")
    mounts += [
        {"destination": target, "type": "bind", "source": str(source), "options": ["bind", "ro"]}
        for target, source in over.items()
    ]
    nothing: dict[str, list[str]] = {
        kind: [] for kind in ("bounding", "effective", "inheritable", "permitted", "ambient")
    }
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": int(user), "gid": int(group)},
            "args": command,
            "env": environment,
            "cwd": config["WorkingDir"],
            "capabilities": nothing,
            "noNewPrivileges": True,
        },
        "root": {"path": str(root), "readonly": True},
        "mounts": mounts,
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")]},
    }


@dataclass
class Container:
    """A container that is ready to be started; `log` is what it wrote to stderr."""

    name: str
    place: Path
    state: Path
    log: list[str] = field(default_factory=list)
    process: subprocess.Popen[str] | None = None
    reader: threading.Thread | None = None

    def start(self) -> subprocess.Popen[str]:
        command = [program("runc"), "--root", str(self.state), "run", "--bundle", str(self.place), self.name]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.reader = threading.Thread(target=self._read, args=(self.process.stderr,), daemon=True)
        self.reader.start()
        return self.process

    def _read(self, stream: IO[str]) -> None:
        with stream:
            self.log.extend(stream)

    def delete(self) -> None:
        """Whatever state it is in."""
        runc(self.state, "delete", "--force", self.name)
        if self.process is not None and self.reader is not None:
            self.process.wait(SECONDS)
            self.reader.join(SECONDS)

    def port(self) -> int:
        """The port that the server told to listen on, once it did."""
        process = self.process or self.start()
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            for line in list(self.log):
                if line.startswith("{") and json.loads(line)["event"] == "serving":
                    return urlsplit(json.loads(line)["url"]).port or 0
            assert process.poll() is None, self.log
            time.sleep(0.1)
        raise AssertionError(f"not ready in {SECONDS} s: {self.log}")

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port(), timeout=SECONDS)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def execute(self, *command: str) -> int:
        """Exit code of a command inside."""
        return runc(self.state, "exec", self.name, *command)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Exit code after a signal to process 1."""
        assert self.process is not None
        assert runc(self.state, "kill", self.name, str(int(number))) == 0
        return self.process.wait(SECONDS)


def health_check(dockerfile: str, port: int) -> list[str]:
    """The command of HEALTHCHECK, for another port; OCI's format has no place for it."""
    found = re.search(r"^HEALTHCHECK .*?CMD (\[.*?\])$", dockerfile, re.MULTILINE | re.DOTALL)
    assert found is not None
    return [part.replace("8080", str(port)) for part in json.loads(found[1])]
