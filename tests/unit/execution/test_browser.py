"""Messages of the DevTools pipe, and the site that a page sees."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ortc.execution.browser import site as site_module
from ortc.execution.browser.chromium import Frames
from ortc.execution.browser.page import resident
from ortc.execution.browser.site import BLANK, DRIVER, Site

MESSAGES = st.lists(st.dictionaries(st.text(), st.integers() | st.text() | st.none()), max_size=6)


@given(MESSAGES, st.data())
def test_messages_arrive_whole_in_whatever_pieces(messages: list[dict[str, object]], data: st.DataObject) -> None:
    stream = b"".join(map(Frames.of, messages))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    frames, found = Frames(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += frames.add(stream[start:end])
    assert found == messages


@pytest.fixture
def site(tmp_path: Path) -> Site:
    (tmp_path / "bundle" / "model").mkdir(parents=True)
    (tmp_path / "bundle" / "index.html").write_text("<p>page")
    (tmp_path / "bundle" / "model" / "a b.onnx").write_bytes(b"graph")
    (tmp_path / "secret").write_text("not served")
    return Site(tmp_path / "bundle")


def test_a_site_serves_its_bundle_and_nothing_beside_it(site: Site) -> None:
    assert site.content("/") == site.content("/index.html?threads=2") == b"<p>page"
    assert site.content("/model/a%20b.onnx") == b"graph"
    assert site.bytes == len(b"<p>page") * 2 + len(b"graph")
    for path in ("/../secret", "/%2e%2e/secret", "/model", "/model/..%2f..%2fsecret", "/none", "/%00"):
        assert site.content(path) is None, path
    (site.bundle / "link").symlink_to(site.bundle.parent / "secret")
    assert site.content("/link") is None


def test_files_beside_the_bundle_are_those_that_were_named(site: Site, tmp_path: Path) -> None:
    (tmp_path / "given").write_bytes(b"inputs")
    site.given["inputs.npz"] = tmp_path / "given"
    site.taken["outputs.npz"] = tmp_path / "taken"
    assert site.content("/.ortc/in/inputs.npz") == b"inputs"
    assert site.content("/.ortc/in/other.npz") is None
    assert site.take("/.ortc/out/outputs.npz", b"outputs")
    assert not site.take("/.ortc/out/other.npz", b"outputs")
    assert (tmp_path / "taken").read_bytes() == b"outputs"
    assert b"<title>" in (site.content(BLANK) or b"")
    assert b"export async function reply" in (site.content(DRIVER) or b"")
    assert site.bytes == 0


def test_memory_of_a_process() -> None:
    import os

    now, most = resident(os.getpid())
    assert 2**20 < now <= most
    assert resident(2**30) == (0, 0)


@pytest.mark.parametrize(
    ("error", "is_said"), [(ConnectionResetError(), False), (BrokenPipeError(), False), (ValueError(), True)]
)
def test_a_page_that_is_closed_in_the_middle_is_no_error(
    error: Exception, is_said: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    server = site_module._Server.__new__(site_module._Server)
    try:
        raise error
    except (ConnectionError, ValueError):
        server.handle_error(None, ("127.0.0.1", 1))
    assert ("Traceback" in capsys.readouterr().err) == is_said
