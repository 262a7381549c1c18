"""What requests of texts may hold, and who may send them: counted before parsing, and keys that are compared."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support import bundles

json_bounds = bundles.runtime_module("serving.json_bounds")
access_module = bundles.runtime_module("serving.access")
errors = bundles.runtime_module("serving.errors")
loading = bundles.runtime_module("loading.errors")
KEY, OTHER = "0123456789abcdef", "fedcba9876543210"
TEXTS = st.text(alphabet='a,[{"\\', max_size=20)
VALUES = st.recursive(
    st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)


def signs(value: Any) -> list[int]:
    """Commas, lists and objects of a value."""
    if not isinstance(value, list | dict):
        return [0, 0, 0]
    inner = [signs(entry) for entry in (value.values() if isinstance(value, dict) else value)]
    own = [max(0, len(value) - 1), int(isinstance(value, list)), int(isinstance(value, dict))]
    return [sum(column) for column in zip(own, *inner, strict=True)]


@given(VALUES, st.integers(1, 9))
def test_what_is_outside_of_strings_is_counted_exactly(value: Any, chunk: int) -> None:
    body = json.dumps(value).encode()
    before, json_bounds.CHUNK = json_bounds.CHUNK, chunk  # escapes and strings go over the ends of chunks
    try:
        found = json_bounds.structure(body, len(body))
    finally:
        json_bounds.CHUNK = before
    assert [found.values, found.lists, found.objects] == signs(value)
    every = json_bounds.count(body, len(body))
    assert (every.values, every.lists, every.objects) == tuple(body.count(sign) for sign in (b",", b"[", b"{"))


def status(access: Any, *headers: tuple[bytes, bytes], path: str = "/v1/embeddings") -> int:
    try:
        access.check_path(path, headers)
    except errors.RefusedError as error:
        return int(error.status)
    return 200


def keys(place: Path, text: str) -> Any:
    (place / "keys").write_text(text)
    return access_module.Access.of(str(place / "keys"))


def bearer(value: str) -> tuple[bytes, bytes]:
    return b"authorization", value.encode()


def test_a_key_is_asked_for_where_there_are_keys(tmp_path: Path) -> None:
    assert status(access_module.Access.of(None)) == 200
    access = keys(tmp_path, f"{KEY}\n\n  {OTHER}  \n")
    assert KEY.encode() not in access.keys
    for right in (f"Bearer {KEY}", f"bearer  {OTHER}"):
        assert status(access, bearer(right)) == 200
    for wrong in ("", KEY, f"Basic {KEY}", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", "Bearer ", f"Bearer {KEY} {OTHER}"):
        assert status(access, bearer(wrong)) == 401
    assert status(access) == 401
    assert status(access, bearer(f"Bearer {KEY}"), bearer(f"Bearer {OTHER}")) == 401
    for path in ("/", "/metrics", "/v2/health/live", "/v2/health/ready", "/v2/repository/index"):
        assert status(access, path=path) == 200
    for path in ("/v2", "/v2/models", "/openapi.json", "/v1/models", "//", "/metrics/", "/v2/health"):
        assert status(access, path=path) == 401


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "holds 0 keys"), ("\n \n", "holds 0 keys"), (f"{KEY}\nshort\n", "line 2 is no key"), ("é" * 20, "line 1")],
)
def test_a_file_without_keys_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(loading.UsageError, match=said):
        keys(tmp_path, text)
    with pytest.raises(loading.UsageError, match="plain file"):
        access_module.Access.of(str(tmp_path))


@pytest.mark.parametrize(
    "origin",
    [
        *("", "null", "example.com", "https://", "https://a/", "https://a/b", "https://A", "https://a:443"),
        *(
            "http://a:80",
            "https://a b",
            "ftp://a",
            "https://a\r\nx: y",
            "https://a:99999",
            "https://*.a",
            "https://u@a",
        ),
    ],
)
def test_an_origin_that_no_browser_sends_is_refused(origin: str) -> None:
    with pytest.raises(loading.UsageError, match="is no origin"):
        access_module.Access.of(None, [origin])


def test_origins_are_those_that_browsers_send() -> None:
    origins = ["https://a.example", "http://localhost:3000", "http://[::1]:8080", "*"]
    assert access_module.Access.of(None, origins).origins == frozenset(origins)


def test_the_page_is_left_out_where_nobody_wants_it() -> None:
    routes, page = bundles.runtime_module("serving.routes"), bundles.runtime_module("serving.page").Page()
    application, repository = SimpleNamespace(cache=None), SimpleNamespace(changes=False)
    for wanted, has in ((page, True), (None, False)):
        paths = {route.path for route in routes.Routes(application, repository, wanted).starlette().routes}
        assert ("/" in paths) == has
    arguments = bundles.runtime_module("server")._arguments
    assert (arguments([]).no_page, arguments(["--no-page"]).no_page) == (False, True)
