"""Find headless Chromium, and drive it over the pipe of the DevTools protocol.

Chromium reads commands from its file descriptor 3 and writes replies and events to 4, each a JSON text that ends with
NUL: https://chromedevtools.github.io/devtools-protocol/.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Self

from ortc.common.errors import StageError

Json = dict[str, Any]

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "chrome-headless-shell")
INSTALL = "install Chromium (Debian: apt-get install chromium; Ubuntu: snap install chromium)"
_FLAGS = (
    *("--headless=new", "--remote-debugging-pipe", "--no-first-run", "--no-default-browser-check"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"),
    *("--disable-extensions", "--disable-default-apps", "--disable-breakpad", "--mute-audio", "--disable-gpu"),
    # Pages that nobody looks at are throttled otherwise.
    *("--disable-background-timer-throttling", "--disable-renderer-backgrounding"),
    "--disable-backgrounding-occluded-windows",
    # /dev/shm of containers has 64 MB.
    "--disable-dev-shm-usage",
    # Whatever a page asks for elsewhere is refused, and counted.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
_LEAST_DESCRIPTOR = 10
_START_SECONDS = 60.0
_SECONDS = 1800.0
"""Seconds that a reply may take: as long as a request to a worker."""


class Chromium(NamedTuple):
    """A program that is Chromium, and the version that it tells."""

    program: Path
    version: str


@cache
def find_chromium() -> Chromium | None:
    """The first Chromium on the path that tells its version; None where there is none."""
    for name in PROGRAMS:
        found = shutil.which(name)
        if found is None:
            continue
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=30, check=False)
            words = done.stdout.split()
            version = next((word for word in words if word[0].isdigit()), None)
            if done.returncode == 0 and version is not None:
                return Chromium(Path(found), version)
    return None


class BrowserError(StageError):
    """Chromium does not start, dies, hangs or refuses a command."""


class Frames:
    """Messages of the pipe: JSON texts that end with NUL, in pieces as they come."""

    def __init__(self) -> None:
        self._received = b""

    def add(self, received: bytes) -> list[Json]:
        """The messages that a piece completes."""
        *whole, self._received = (self._received + received).split(b"\0")
        return [json.loads(text) for text in whole]

    @staticmethod
    def of(message: Mapping[str, Any]) -> bytes:
        """The bytes of one message."""
        return json.dumps(message).encode() + b"\0"


class Browser:
    """A headless Chromium with a profile of its own. Use as a context manager.

    `events` keeps every event that no reply has consumed, in order.
    """

    def __init__(self, chromium: Chromium) -> None:
        self.chromium = chromium
        self.events: list[Json] = []
        self._profile = tempfile.TemporaryDirectory(prefix="ortc-browser-", ignore_cleanup_errors=True)
        self._frames = Frames()
        self._replies: dict[int, Json] = {}
        self._last = 0
        self._process: int | None = None
        self._to = self._from = -1

    def __enter__(self) -> Self:
        place = Path(self._profile.name)
        command = [str(self.chromium.program), *_FLAGS, f"--user-data-dir={place / 'profile'}", "about:blank"]
        if os.geteuid() == 0:
            # Chromium refuses to run as root with its sandbox; what it loads here is a bundle of this build.
            command.insert(1, "--no-sandbox")
        inward, self._to = _pipe()
        self._from, outward = _pipe()
        log = place / "log"
        actions: list[tuple[Any, ...]] = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, str(log), os.O_WRONLY | os.O_CREAT, 0o600),
            (os.POSIX_SPAWN_DUP2, inward, 3),
            (os.POSIX_SPAWN_DUP2, outward, 4),
        ]
        environment = {**os.environ, "HOME": str(place)}
        try:
            self._process = os.posix_spawn(command[0], command, environment, file_actions=actions, setpgroup=0)
        except OSError as error:
            raise BrowserError(f"{command[0]} cannot be started: {error.strerror}", help=INSTALL) from error
        finally:
            os.close(inward)
            os.close(outward)
        self.call("Browser.getVersion", seconds=_START_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            with contextlib.suppress(BrowserError):
                self.call("Browser.close", seconds=5)
            for descriptor in (self._to, self._from):
                os.close(descriptor)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process, signal.SIGKILL)
            os.waitpid(self._process, 0)
            self._process = None
        self._profile.cleanup()

    def call(
        self,
        method: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        session: str | None = None,
        seconds: float = _SECONDS,
    ) -> Json:
        """One command and its result.

        Args:
            method: as the protocol names it.
            parameters: of the command.
            session: of a page or worker; the browser itself when None.
            seconds: that the reply may take.

        Raises:
            BrowserError: Chromium refuses the command, died, or gave no reply in time.
        """
        return self.reply(self.send(method, parameters, session=session), method, seconds=seconds)

    def reply(
        self, number: int, method: str, *, seconds: float = _SECONDS, between: Callable[[], None] | None = None
    ) -> Json:
        """The result of a command that was sent.

        Args:
            number: of the command.
            method: its name, for messages.
            seconds: that the reply may take.
            between: called whenever something came that is not the reply.

        Raises:
            BrowserError: Chromium refuses the command, died, or gave no reply in time.
        """
        deadline = time.monotonic() + seconds
        while number not in self._replies:
            self._receive(method, deadline)
            if between is not None:
                between()
        reply = self._replies.pop(number)
        # Replies that nobody waits for came before.
        self._replies = {other: found for other, found in self._replies.items() if other > number}
        if "error" in reply:
            raise BrowserError(f"Chromium refuses {method}: {reply['error'].get('message')}")
        result: Json = reply.get("result", {})
        return result

    def send(self, method: str, parameters: Mapping[str, Any] | None = None, *, session: str | None = None) -> int:
        """Send a command without waiting for its reply; returns its number.

        Raises:
            BrowserError: Chromium died.
        """
        self._last += 1
        message = {"id": self._last, "method": method, "params": dict(parameters or {})}
        content = memoryview(Frames.of({**message, "sessionId": session} if session else message))
        try:
            while content:
                content = content[os.write(self._to, content) :]
        except OSError as error:
            raise self._died(method) from error
        return self._last

    def wait(self, seconds: float) -> None:
        """Take the events of some seconds, or until one comes."""
        self._receive("an event", time.monotonic() + seconds, is_needed=False)

    def _receive(self, method: str, deadline: float, *, is_needed: bool = True) -> None:
        ready, _, _ = select.select([self._from], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            if is_needed:
                raise BrowserError(f"Chromium gave no reply to {method} in time")
            return
        received = os.read(self._from, 1 << 20)
        if not received:
            raise self._died(method)
        for message in self._frames.add(received):
            if "id" in message:
                self._replies[message["id"]] = message
            else:
                self.events.append(message)

    def _died(self, method: str) -> BrowserError:
        with contextlib.suppress(OSError):
            lines = (Path(self._profile.name) / "log").read_text("utf-8", errors="replace").strip().splitlines()
            return BrowserError(f"{self.chromium.program} ended during {method}", details=tuple(lines[-8:]))
        return BrowserError(f"{self.chromium.program} ended during {method}")


def _pipe() -> tuple[int, int]:
    """A pipe whose ends are none of the descriptors that Chromium's own become."""
    ends = os.pipe()
    try:
        high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, _LEAST_DESCRIPTOR) for end in ends]
    finally:
        for end in ends:
            os.close(end)
    return high[0], high[1]
