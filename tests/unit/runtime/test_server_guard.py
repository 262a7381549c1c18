"""Who may change models: tokens, local clients, and pages of other sites."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.support import bundles

guard_module = bundles.runtime_module("serving.guard")
loader = bundles.runtime_module("loader")
errors = bundles.runtime_module("serving.errors")
TOKEN = "0123456789abcdef"  # noqa: S105
LOCAL = {"host": "localhost:8080"}
RIGHT = {"host": "models.example", "authorization": f"Bearer {TOKEN}"}


def status(guard: object, peer: str, headers: dict[str, str]) -> int:
    try:
        guard.check(peer, headers)  # type: ignore[attr-defined]
    except errors.RefusedError as error:
        return int(error.status)
    return 200


@pytest.mark.parametrize(
    ("host", "peer", "headers", "expected"),
    [
        ("127.0.0.1", "127.0.0.1", LOCAL, 200),
        ("localhost", "::1", {"host": "[::1]:8080"}, 200),
        ("127.0.0.1", "127.0.0.1", {"host": "127.0.0.1"}, 200),
        ("0.0.0.0", "127.0.0.1", LOCAL, 403),  # noqa: S104 - a sidecar would make every client local
        ("10.0.0.1", "127.0.0.1", LOCAL, 403),
        ("127.0.0.1", "10.0.0.2", LOCAL, 403),
        ("127.0.0.1", "", LOCAL, 403),
        ("127.0.0.1", "127.0.0.1", {**LOCAL, "x-forwarded-for": "10.0.0.2"}, 403),
        ("127.0.0.1", "127.0.0.1", {**LOCAL, "via": "1.1 proxy"}, 403),
        ("127.0.0.1", "127.0.0.1", {**LOCAL, "x-real-ip": "10.0.0.2"}, 403),
        ("127.0.0.1", "127.0.0.1", {**LOCAL, "forwarded": "for=10.0.0.2"}, 403),
        # A page that resolved its own name to this machine, or that asks from elsewhere.
        ("127.0.0.1", "127.0.0.1", {"host": "evil.example:8080"}, 403),
        ("127.0.0.1", "127.0.0.1", {"host": "localhost.evil.example"}, 403),
        ("127.0.0.1", "127.0.0.1", {"host": ""}, 403),
        ("127.0.0.1", "127.0.0.1", {}, 403),
        ("127.0.0.1", "127.0.0.1", {"host": "localhost, evil.example"}, 403),
        ("127.0.0.1", "127.0.0.1", {"host": "127.0.0.1@evil.example"}, 403),
        ("127.0.0.1", "127.0.0.1", {**LOCAL, "origin": "http://evil.example"}, 403),
        ("127.0.0.1", "127.0.0.1", {**LOCAL, "origin": "null"}, 403),
        ("127.0.0.1", "127.0.0.1", {**LOCAL, "origin": "http://localhost:3000"}, 403),
        ("127.0.0.1", "127.0.0.1", {**LOCAL, "origin": "http://localhost:8080"}, 200),
        ("127.0.0.1", "127.0.0.1", {**LOCAL, "sec-fetch-site": "cross-site"}, 403),
        ("127.0.0.1", "127.0.0.1", {**LOCAL, "sec-fetch-site": "same-site"}, 403),
        ("127.0.0.1", "127.0.0.1", {**LOCAL, "sec-fetch-site": "none"}, 200),
    ],
)
def test_without_a_token_only_local_clients_of_a_local_server_may(
    host: str, peer: str, headers: dict[str, str], expected: int
) -> None:
    assert status(guard_module.Guard.of(host, None, {}), peer, headers) == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (RIGHT, 200),
        ({**RIGHT, "authorization": f"bearer  {TOKEN}"}, 200),
        ({**RIGHT, "authorization": f"Bearer {TOKEN}x"}, 401),
        ({**RIGHT, "authorization": "Bearer "}, 401),
        ({**RIGHT, "authorization": TOKEN}, 401),
        ({**RIGHT, "authorization": f"Basic {TOKEN}"}, 401),
        ({**RIGHT, "authorization": f"Bearer {TOKEN}, Bearer {TOKEN}"}, 401),
        ({**RIGHT, "authorization": "Bearer \N{SNOWMAN}"}, 401),
        (LOCAL, 401),
        ({**RIGHT, "origin": "https://evil.example"}, 403),
        ({**RIGHT, "sec-fetch-site": "cross-site"}, 403),
    ],
)
@pytest.mark.parametrize("peer", ["127.0.0.1", "10.0.0.2"])
def test_with_a_token_everybody_needs_it(peer: str, headers: dict[str, str], expected: int, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert status(guard_module.Guard.of("0.0.0.0", str(file), {}), peer, headers) == expected  # noqa: S104
    assert status(guard_module.Guard.of("127.0.0.1", None, {"ORTC_ADMIN_TOKEN": TOKEN}), peer, headers) == expected


@pytest.mark.parametrize("content", ["", "short", "with space in the middle", "a" * 513, "\0" * 20, "é" * 20])
def test_what_is_no_token_is_refused_at_the_start(content: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(content)
    with pytest.raises(loader.UsageError, match="holds no token: expected 16 to 512"):
        guard_module.Guard.of("127.0.0.1", str(file), {})
    with pytest.raises(loader.UsageError, match="ORTC_ADMIN_TOKEN holds no token"):
        guard_module.Guard.of("127.0.0.1", None, {"ORTC_ADMIN_TOKEN": content})
    with pytest.raises(loader.UsageError, match="Give a plain file that can be read"):
        guard_module.Guard.of("127.0.0.1", str(tmp_path / "missing"), {})


@pytest.mark.parametrize("kind", ["a pipe", "an endless device", "a directory", "too much"])
def test_a_token_is_read_from_a_plain_file_alone(kind: str, tmp_path: Path) -> None:
    file = Path("/dev/zero") if kind == "an endless device" else tmp_path / "token"
    if kind == "a pipe":
        os.mkfifo(file)
    if kind == "a directory":
        file.mkdir()
    if kind == "too much":
        file.write_text(TOKEN + " " * 5000)
    with pytest.raises(loader.UsageError, match="Give a plain file that can be read"):
        guard_module.Guard.of("127.0.0.1", str(file), {})
