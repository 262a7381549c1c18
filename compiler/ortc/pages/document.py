"""One file of HTML: its style and its data are in it, it asks nothing of any server, and it runs no script."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from ortc.common.errors import StageError
from ortc.common.resources import templates_dir
from ortc.common.units import format_bytes

MOST_BYTES = 1_000_000
"""Of a page."""
_UNPRINTABLE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
"""Controls, marks of direction and halves of characters: in a text of somebody else they hide what it says."""


def render_page(template: str, fields: Mapping[str, object], document: Any) -> bytes:
    """Render a page: the same fields and the same document give the same bytes.

    Args:
        template: a file of templates/pages.
        fields: what the template shows; every text is escaped.
        document: the JSON that the page embeds; its numbers are finite.

    Raises:
        StageError: the page is larger than a page may be.
    """
    import jinja2

    places = jinja2.FileSystemLoader(templates_dir() / "pages")
    environment = jinja2.Environment(
        loader=places,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    style = (templates_dir() / "pages" / "page.css").read_text("utf-8")
    policy = f"default-src 'none'; style-src '{_hash(style)}'; img-src data:; base-uri 'none'; form-action 'none'"
    # The template marks these two as safe: the style is a file of ortc, and the data is escaped here.
    shown = {"style": style, "policy": policy, "data": _inert(document)}
    content = environment.get_template(template).render({**fields, **shown}).encode()
    if len(content) > MOST_BYTES:
        raise StageError(
            f"the page would have {format_bytes(len(content))}, more than {format_bytes(MOST_BYTES)}",
            help="read the JSON report instead",
        )
    return content


def printable(text: str) -> str:
    """A text with its unprintable characters as `\\u202e`, so that nothing in it is hidden."""
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _inert(document: Any) -> str:
    """JSON that ends no element and begins none, in ASCII."""
    try:
        text = json.dumps(document, separators=(",", ":"), allow_nan=False)
    except ValueError as error:
        raise StageError("the report has a number that is not finite, which JSON has no text for") from error
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
