"""Files of mirrors: what a URL may lead to, and how many bytes come from there.

A spec names mirrors, and a mirror names others where it redirects. Plain HTTP needs an allowance of the caller for its
host, and nothing that is asked or redirected to may be a service that gives credentials to a machine.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import urllib.error
import urllib.request
from http.client import HTTPMessage
from pathlib import Path
from typing import IO, Any, NoReturn
from urllib.parse import urlsplit

from ortc import __version__
from ortc.common.permissions import may_use_http
from ortc.common.plain_files import open_plain
from ortc.common.texts import shown
from ortc.common.units import format_bytes
from ortc.inspection.hub_files import WEIGHT_SUFFIXES
from ortc.spec.mirror_urls import MIRROR_PROTOCOLS, is_mirror_url

MOST_WEIGHTS = 2**37
"""Most bytes of a file of weights that a mirror gives."""
MOST_OTHER = 2**28
"""Most bytes of any other file; tokenizers take some tens of megabytes."""
_PATIENCE = 60.0
"""Seconds without a byte after which a server is given up."""
_METADATA = frozenset({ipaddress.ip_address("fd00:ec2::254"), ipaddress.ip_address("100.100.100.200")})
"""Addresses at which clouds give machines their credentials, beside the link-local ones."""
_CHUNK = 1 << 20


def download(url: str, target: Path) -> Path:
    """Write the file of a URL.

    Raises:
        OSError: the place does not answer, or not with the file.
        ValueError: a mirror may not be there, may not redirect there, or the file is larger than a file of its kind.
    """
    if not is_mirror_url(url):
        raise ValueError(f"a mirror is a URL of {', '.join(MIRROR_PROTOCOLS)}")
    most = MOST_WEIGHTS if url.endswith(WEIGHT_SUFFIXES) else MOST_OTHER
    if url.startswith(("https://", "http://")):
        with _open(url) as remote:
            declared = remote.headers.get("Content-Length", "")
            if declared.isascii() and declared.isdigit() and (len(declared) > 18 or int(declared) > most):
                raise ValueError(f"it is larger than {format_bytes(most)}")
            return _write(remote, target, most)
    if (local := _local(url)) is not None:
        with open_plain(local) as stream:
            return _write(stream, target, most)
    import fsspec

    with fsspec.open(url, "rb") as remote:
        return _write(remote, target, most)


def _local(url: str) -> Path | None:
    """The file of this machine that a URL names."""
    scheme, _, place = url.partition(":")
    return Path(place.removeprefix("//")) if scheme == "file" else None


def _write(remote: IO[bytes], target: Path, most: int) -> Path:
    taken = 0
    with target.open("wb") as local:
        while chunk := remote.read(_CHUNK):
            taken += len(chunk)
            if taken > most:
                raise ValueError(f"it is larger than {format_bytes(most)}")
            local.write(chunk)
    return target


def _open(url: str) -> Any:
    _check_place(url)
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
        _Http(),
        _Https(),
    ):
        opener.add_handler(handler)
    request = urllib.request.Request(url, headers={"User-Agent": f"ortc/{__version__}"})  # noqa: S310 - checked above
    try:
        return opener.open(request, timeout=_PATIENCE)
    except urllib.error.HTTPError as error:
        with error:
            raise OSError(f"HTTP status {error.code}") from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, ValueError):
            raise error.reason from error
        raise OSError(shown(str(error.reason), 200)) from error
    except http.client.HTTPException as error:
        raise OSError(f"no answer in HTTP: {type(error).__name__}") from error


def _check_place(url: str) -> None:
    """Check a URL that is asked, or that a server redirects to.

    Raises:
        ValueError: plain HTTP to a host without an allowance, another protocol, or an address that no mirror has.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme not in ("https", "http") or not host:
        raise ValueError(f"it leads to `{shown(url)}`, which is no URL of https")
    if parts.scheme == "http" and not may_use_http(host):
        raise ValueError(
            f"it leads to plain HTTP on `{shown(host)}`; `--allow-http {shown(host)}` allows it for that host"
        )
    # Names are looked at where a connection is made; behind a proxy, the proxy makes it.
    if (address := _literal(host)) is not None:
        _check_address(address)


def _literal(host: str) -> str | None:
    """The address that a host is written as, in any of the forms that the system's resolver takes."""
    try:
        return str(ipaddress.ip_address(host.partition("%")[0]))
    except ValueError:
        pass
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except (OSError, ValueError):
        return None


def _check_address(text: str) -> None:
    address: Any = ipaddress.ip_address(text.partition("%")[0])
    address = getattr(address, "ipv4_mapped", None) or address
    if address.is_link_local or address.is_multicast or address.is_unspecified or address in _METADATA:
        raise ValueError(f"it leads to {address}, an address that no mirror has")


def _check_peer(connection: http.client.HTTPConnection) -> None:
    try:
        _check_address(connection.sock.getpeername()[0])
    except ValueError:
        connection.close()
        raise


class _HttpConnection(http.client.HTTPConnection):
    def connect(self) -> None:
        super().connect()
        _check_peer(self)


class _HttpsConnection(http.client.HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        _check_peer(self)


class _Http(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_HttpConnection, req)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_HttpsConnection, req)


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        _check_place(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)

    def http_error_302(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage
    ) -> Any:
        place = headers.get("location") or headers.get("uri") or ""
        scheme = urlsplit(place).scheme
        if scheme not in ("", "http", "https"):
            _refuse(place)
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _refuse(place: str) -> NoReturn:
    raise ValueError(f"it leads to `{shown(place)}`, which is no URL of https")
