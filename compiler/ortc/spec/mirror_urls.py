"""URLs of mirrors: places that a model's files may be fetched from."""

import re
from urllib.parse import urlsplit

MIRROR_PROTOCOLS = ("https", "http", "s3", "gs", "gcs", "az", "abfs", "abfss", "oci", "hf", "file")
"""Protocols of mirrors: stores of files. fsspec has others that run programs, log in or unpack."""


def is_mirror_url(url: str) -> bool:
    """Whether a mirror may be at a URL."""
    if url.startswith(("https://", "http://")) and not host_of(url):
        return False
    return any(url.startswith(f"{protocol}://") for protocol in MIRROR_PROTOCOLS) and "::" not in _without_host(url)


def _without_host(url: str) -> str:
    """The URL without an IPv6 address in brackets, which may hold the `::` that chains file systems."""
    return re.sub(r"//\[[0-9A-Fa-f:.%]*\]", "//", url, count=1)


def host_of(url: str) -> str:
    """The host of a URL, in lower case; empty where the URL has none that can be read."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
