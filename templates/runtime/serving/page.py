"""The page to try a bundle by hand: one document without a foreign request, under a strict content policy."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

FILE = Path(__file__).with_name("page.html")
STYLE = FILE.with_suffix(".css")
LINK = '<link rel="stylesheet" href="page.css">'
INLINE = re.compile(r"<(style|script)>(.*?)</\1>", re.DOTALL)


class Page:
    """The bytes of the page, and the headers that it is sent with: only its own script and style run."""

    def __init__(self) -> None:
        style = f"<style>\n{STYLE.read_text('utf-8')}</style>"
        page = FILE.read_text("utf-8").replace(LINK, style)
        self.content = page.encode("utf-8")
        digests: dict[str, list[str]] = {"style": [], "script": []}
        for kind, text in INLINE.findall(page):
            digest = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
            digests[kind].append(f"'sha256-{digest}'")
        policy = {
            "default-src": "'none'",
            "script-src": " ".join(digests["script"]),
            "style-src": " ".join(digests["style"]),
            "connect-src": "'self'",
            "img-src": "data:",
            "media-src": "data:",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
        }
        self.headers = {
            "content-security-policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
            "cache-control": "no-store",
            "cross-origin-opener-policy": "same-origin",
            "referrer-policy": "no-referrer",
            "x-content-type-options": "nosniff",
        }
