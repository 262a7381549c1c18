"""Mirrors on real servers: plain HTTP by allowance, redirects, and bytes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ortc.common.permissions import grant, withdraw
from ortc.frontend import mirrors
from ortc.frontend.mirrors import download

pytestmark = pytest.mark.integration

PLACES = {
    "/there": "/config.json",
    "/file": "file:///etc/passwd",
    "/ftp": "ftp://127.0.0.1/x",
    "/credentials": "http://169.254.169.254/latest/meta-data",
    "/credentials-in-decimal": "http://2852039166/x",
    "/credentials-as-ipv6": "http://[::ffff:169.254.169.254]/x",
    "/credentials-over-https": "https://169.254.169.254/x",
    "/link-local": "http://[fe80::1]/x",
    "/other-host": "http://models.invalid/x",
    "/in-circles": "/in-circles",
}


class Server(BaseHTTPRequestHandler):
    """Answers with a file, redirects, or more bytes than it should."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if (place := PLACES.get(self.path)) is not None:
            self.send_response(302)
            self.send_header("Location", place)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.path == "/config.json":
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")
        elif self.path == "/declared.json":
            self.send_response(200)
            self.send_header("Content-Length", str(2**40))
            self.end_headers()
        elif self.path == "/endless.json":
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(bytes(2**21))
        else:
            self.send_error(404)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a server on this machine, without an allowance."""
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    withdraw()
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()
    withdraw()


def test_plain_http_needs_an_allowance(server: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`--allow-http 127\.0\.0\.1` allows it"):
        download(f"{server}/config.json", tmp_path / "x")
    grant(hosts=["127.0.0.1"])
    assert download(f"{server}/config.json", tmp_path / "x").read_bytes() == b"{}"
    assert download(f"{server}/there", tmp_path / "y").read_bytes() == b"{}"
    with pytest.raises(OSError, match="HTTP status 404"):
        download(f"{server}/missing", tmp_path / "z")


@pytest.mark.parametrize("place", [place for place in PLACES if place != "/there"])
def test_redirects_lead_to_no_other_place(server: str, place: str, tmp_path: Path) -> None:
    hosts = ["127.0.0.1", "169.254.169.254", "2852039166", "::ffff:169.254.169.254", "fe80::1"]
    grant(hosts=hosts)
    expected = {"/other-host": "--allow-http", "/in-circles": "HTTP status 302"}.get(place, "it leads to")
    with pytest.raises((ValueError, OSError), match=expected):
        download(f"{server}{place}", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_bytes_end_at_the_limit(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grant(hosts=["127.0.0.1"])
    with pytest.raises(ValueError, match="it is larger than"):
        download(f"{server}/declared.json", tmp_path / "x")
    assert not (tmp_path / "x").exists()
    monkeypatch.setattr(mirrors, "MOST_OTHER", 2**20)
    with pytest.raises(ValueError, match="it is larger than"):
        download(f"{server}/endless.json", tmp_path / "x")


def test_a_name_that_leads_to_a_refused_address_is_not_asked(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address of the connection counts, whatever the name resolved to before."""
    grant(hosts=["127.0.0.1"])
    monkeypatch.setattr(mirrors, "_METADATA", frozenset({mirrors.ipaddress.ip_address("127.0.0.1")}))
    monkeypatch.setattr(mirrors, "_literal", lambda _: None)
    with pytest.raises(ValueError, match=r"it leads to 127\.0\.0\.1, an address that no mirror has"):
        download(f"{server}/config.json", tmp_path / "x")
