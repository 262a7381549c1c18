"""The Hugging Face hub: files of its local cache, downloads, and whatever a request to it fails of."""

from __future__ import annotations

import contextlib
import logging
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ortc.common.errors import StageError
from ortc.spec.model_sources import HuggingFaceSource


def cached(source: HuggingFaceSource, name: str) -> Path | None:
    """Return a file of the local cache, None where it has none."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(str(source.id), name, revision=source.revision)
    return Path(found) if isinstance(found, str) else None


def downloaded(source: HuggingFaceSource, name: str) -> Path:
    """Return a file of a repository of the hub.

    Raises:
        StageError: it cannot be downloaded.
    """
    from huggingface_hub import hf_hub_download

    with asking(f"`{name}` cannot be downloaded from the hub"):
        return Path(hf_hub_download(str(source.id), name, revision=source.revision))


@contextlib.contextmanager
def asking(failure: str, help: str | None = None) -> Iterator[None]:  # noqa: A002
    """Around a request to the hub: whatever it fails of is a StageError, and at once where no network is.

    Raises:
        StageError: `failure`, with the reason.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError

    # Its bases are OSError and the HTTP library's own error, which is another library from version to version.
    failures: tuple[Any, ...] = (*HfHubHTTPError.__bases__, ValueError)
    # It logs every retry; what is left of them in the end is in the error.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    endpoint = urlsplit(constants.ENDPOINT)
    proxies = urllib.request.getproxies()
    try:
        # A name that does not resolve is retried for 24 seconds. Behind a proxy, names are the proxy's business.
        if not (constants.HF_HUB_OFFLINE or endpoint.scheme in proxies or "all" in proxies):
            socket.getaddrinfo(endpoint.hostname, endpoint.port or endpoint.scheme)
        yield
    except failures as error:
        raise StageError(f"{failure} ({_first_line(error)})", help=help) from error


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
