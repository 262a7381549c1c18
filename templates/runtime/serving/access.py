"""Who may ask for answers: keys that clients send, and pages of other origins that browsers let ask."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from loading.errors import UsageError
from loading.files import read_plain

from serving.bodies import Scope, Send
from serving.errors import RefusedError
from serving.guard import TOKEN

MOST_FILE_BYTES, MOST_KEYS, MOST_ORIGINS = 2**20, 1024, 64
ORIGIN = re.compile(r"https?://[a-z0-9.\-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:.]+\](:[0-9]{1,5})?")
OPEN = ("/", "/metrics")
OPEN_BELOW = ("/v2/health/", "/v2/repository/")  # whoever changes models has a token of its own
ASKED_HEADERS = b"authorization, content-type, inference-header-content-length, traceparent, tracestate, x-request-id"
SHOWN_HEADERS = b"inference-header-content-length, retry-after, x-request-id"
PREFLIGHT_SECONDS = b"600"
Header = tuple[bytes, bytes]


@dataclass(frozen=True)
class Access:
    """Digests of the keys, None where everybody may ask; and the origins whose pages may."""

    keys: tuple[bytes, ...] | None = None
    origins: frozenset[str] = frozenset()

    @classmethod
    def of(cls, file: str | None, origins: Sequence[str] = ()) -> Access:
        """The access that the options say.

        Raises:
            UsageError: The file holds no keys, or an origin is none.
        """
        return cls(None if file is None else _keys(file), _origins(origins))

    def check(self, headers: Iterable[Header]) -> None:
        """Raise RefusedError unless the headers, or the metadata of gRPC, hold a key."""
        if self.keys is None:
            return
        given = [value for name, value in headers if name == b"authorization"]
        kind, _, key = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        found = hashlib.sha256(key.strip()).digest()
        # Every key is compared: how long that takes says nothing of them.
        same = [hmac.compare_digest(found, digest) for digest in self.keys]
        if kind.lower() != b"bearer" or not any(same):
            raise RefusedError(401, "unauthorized", "send an API key of this server as `Authorization: Bearer KEY`")

    def check_path(self, path: str, headers: Iterable[Header]) -> None:
        """The same, but for health, metrics, the page, and what has a token of its own."""
        if path not in OPEN and not path.startswith(OPEN_BELOW):
            self.check(headers)

    def shared(self, scope: Scope, send: Send) -> Send:
        """Send answers with what lets a page of an allowed origin read them."""
        origin = self._origin(scope)
        if not self.origins or _is_guarded(scope["path"]):
            return send

        async def sent(message: Any) -> None:
            if message["type"] == "http.response.start":
                more: list[Header] = [(b"vary", b"origin")]
                if origin is not None:
                    more += [
                        (b"access-control-allow-origin", origin),
                        (b"access-control-expose-headers", SHOWN_HEADERS),
                    ]
                message = {**message, "headers": [*message.get("headers", ()), *more]}
            await send(message)

        return sent

    async def preflight(self, scope: Scope, send: Send) -> bool:
        """Answer a browser that asks whether a page may ask; False where this is no such question."""
        names = {name for name, _ in scope["headers"]}
        asks = scope["method"] == "OPTIONS" and {b"origin", b"access-control-request-method"} <= names
        if not asks or not self.origins or _is_guarded(scope["path"]):
            return False
        headers: list[Header] = [(b"content-length", b"0")]
        if self._origin(scope) is not None:
            headers += [
                (b"access-control-allow-methods", b"GET, POST"),
                (b"access-control-allow-headers", ASKED_HEADERS),
                (b"access-control-max-age", PREFLIGHT_SECONDS),
            ]
        await send({"type": "http.response.start", "status": 204, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
        return True

    def _origin(self, scope: Scope) -> bytes | None:
        """What an answer allows: the origin of the page, or `*`; credentials of a browser are never allowed."""
        given = [value for name, value in scope["headers"] if name == b"origin"]
        if len(given) != 1:
            return None
        if "*" in self.origins:
            return b"*"
        return given[0] if given[0].decode("latin-1") in self.origins else None


def _is_guarded(path: str) -> bool:
    """Whether pages of other origins never change what is there."""
    return str(path).startswith("/v2/repository/")


def _keys(file: str) -> tuple[bytes, ...]:
    source = f"--api-keys {file}"
    try:
        lines = read_plain(Path(file), MOST_FILE_BYTES).decode("utf-8", "replace").splitlines()
    except OSError as error:
        raise UsageError(f"{source}: {error.strerror or error}. Give a plain file that can be read.") from error
    keys = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    for number, key in keys:
        if not TOKEN.fullmatch(key):
            raise UsageError(
                f"{source}: line {number} is no key: expected 16 to 512 printable ASCII characters without spaces. "
                "Make one, for example with `openssl rand -hex 32`."
            )
    if not 0 < len(keys) <= MOST_KEYS:
        raise UsageError(f"{source} holds {len(keys)} keys. Give 1 to {MOST_KEYS}, each in a line of its own.")
    return tuple(hashlib.sha256(key.encode()).digest() for _, key in keys)


def _origins(given: Sequence[str]) -> frozenset[str]:
    if len(given) > MOST_ORIGINS:
        raise UsageError(f"--cors-origin is given {len(given)} times. Give at most {MOST_ORIGINS}.")
    for origin in given:
        if origin != "*" and not _is_origin(origin):
            raise UsageError(
                f"--cors-origin {ascii(origin)[1:-1][:200]} is no origin. Give SCHEME://HOST[:PORT] as browsers send "
                "it, in lower case and without a path, or `*` for every page."
            )
    return frozenset(given)


def _is_origin(origin: str) -> bool:
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return False
    default = {"http": 80, "https": 443}.get(parts.scheme)
    return bool(ORIGIN.fullmatch(origin)) and port != default
