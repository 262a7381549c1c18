"""Who may list, load and unload models."""

from __future__ import annotations

import hmac
import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from loading.errors import UsageError
from loading.files import read_plain

from serving.errors import RefusedError

TOKEN = re.compile(r"[!-~]{16,512}")
MOST_FILE_BYTES = 4096
VARIABLE = "ORTC_ADMIN_TOKEN"
SAME = ("same-origin", "none")  # of Sec-Fetch-Site
PROXIED = (  # fields that proxies add
    *("forwarded", "via", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "client-ip", "true-client-ip"),
    *("cf-connecting-ip", "fastly-client-ip", "fly-client-ip", "proxy-connection"),
)


@dataclass(frozen=True)
class Guard:
    """Asks for `token`; without one, only clients on this machine may change models, of a server that only they reach.

    `local` is whether the server listens on a loopback address.
    """

    token: str | None
    local: bool

    @classmethod
    def of(cls, host: str, file: str | None, environment: Mapping[str, str] = os.environ) -> Guard:
        """The guard of a server that listens on `host`; the token is in a file or in ORTC_ADMIN_TOKEN.

        Raises:
            UsageError: The token is not one.
        """
        token, source = environment.get(VARIABLE), VARIABLE
        if file is not None:
            source = f"--admin-token-file {file}"
            try:
                token = read_plain(Path(file), MOST_FILE_BYTES).decode("utf-8", "replace").strip()
            except OSError as error:
                raise UsageError(f"{source}: {error.strerror or error}. Give a plain file that can be read.") from error
        if token is not None and not TOKEN.fullmatch(token):
            raise UsageError(
                f"{source} holds no token: expected 16 to 512 printable ASCII characters without spaces. "
                "Make one, for example with `openssl rand -hex 32`."
            )
        return cls(token, is_loopback(host))

    def check(self, peer: str, headers: Mapping[str, str]) -> None:
        """Raise RefusedError unless the request may change models.

        Args:
            peer: The address of the client; empty where it has none.
            headers: By lower-case names; those of HTTP, or the metadata of gRPC.
        """
        self._check_origin(headers)
        if self.token is not None:
            given = headers.get("authorization", "")
            kind, _, credentials = given.partition(" ")
            right = hmac.compare_digest(credentials.strip().encode("utf-8", "replace"), self.token.encode())
            if kind.lower() != "bearer" or not right:
                raise RefusedError(401, "unauthorized", "send the server's token as `Authorization: Bearer TOKEN`")
            return
        # Behind a proxy on the same machine every client looks local: only who reaches the server alone is trusted.
        if not self.local or not is_loopback(peer):
            raise RefusedError(
                403,
                "forbidden",
                "models are changed by local clients of a server that listens on a loopback address only; elsewhere "
                f"the server needs --admin-token-file or {VARIABLE}",
            )
        if any(name in PROXIED or name.startswith(("x-forwarded-", "x-original-", "x-envoy-")) for name in headers):
            raise RefusedError(403, "forbidden", "the request came through a proxy; the server needs a token for that")
        # A page of another site may have resolved its own name to this machine.
        if not is_loopback(host_of(headers.get("host", ""))):
            raise RefusedError(403, "forbidden", "without a token, the Host of the request is to be localhost")

    def _check_origin(self, headers: Mapping[str, str]) -> None:
        """A browser says on whose behalf it asks: only this server's own pages may, of which there are none."""
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        foreign = site is not None and site.lower() not in SAME
        if origin is not None:
            foreign = foreign or urlsplit_netloc(origin) != headers.get("host", "").lower()
        if foreign:
            raise RefusedError(403, "forbidden", "models are not changed by pages of other sites")


def urlsplit_netloc(origin: str) -> str | None:
    """Host and port of an origin; None where it has none."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


def host_of(authority: str) -> str:
    """The host of HOST:PORT."""
    try:
        return urlsplit(f"//{authority}").hostname or ""
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """Whether a name or an address can only be this machine."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
