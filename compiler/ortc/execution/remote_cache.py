"""A cache that machines share: finished actions and their files in any place that fsspec reaches.

Below its URL lie `actions/KEY.json` and `blobs/AA/SHA256`, as in a local cache. What is read is compared with its
digest before anything uses it. A remote cache saves work and is never needed: whatever fails of it is told once, and
the build goes on without.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ortc.common.digests import sha256_file
from ortc.common.disk import is_full
from ortc.common.redaction import mask_secrets
from ortc.common.remote_files import check_url, copy_file, put_whole, reach, read_document, reason
from ortc.execution.action_record import KeptFile, Record, read_record

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds for the first answer; drivers retry for minutes where there is nobody."""


class RemoteCache:
    """The remote cache of one run of ortc.

    `warnings` are for whoever tells the user; each is there once.
    """

    def __init__(self, url: str) -> None:
        """Look whether fsspec can reach such a place, without reaching for it.

        Raises:
            ValueError: no file system of fsspec has this protocol, or its package is not installed.
        """
        check_url(url)
        self.name = mask_secrets(url)
        self.warnings: deque[str] = deque()
        self._url = url
        self._system: Any = None
        self._root = ""
        self._readable = self._writable = True
        self._damaged: set[str] = set()

    def public_uri(self, key: str) -> str:
        """Name the record of an action for everybody: the protocol and the key, without host, bucket or path."""
        protocol, separator, _ = self._url.partition("://")
        return f"{protocol if separator else 'file'}://redacted/actions/{key}.json"

    def find(self, key: str) -> Record | None:
        """The record of an action, if it is there and whole."""
        content = self._read(lambda: read_document(self._system, self._action(key)))
        if content is None:
            return None
        try:
            return read_record(content, key)
        except ValueError as error:
            self._warn(f"the remote cache's record {key[:12]}… cannot be used, so its action is done here: {error}")
            return None

    def fetch(self, file: KeptFile, place: Path) -> bool:
        """Copy a file to a place, and say whether it came with its digest. What came without is left there."""

        def get() -> bool:
            copy_file(self._system, self._blob(file.sha256), place, file.bytes)
            return True

        if self._read(get) is None:
            if self._readable:
                self._warn(f"the remote cache lacks a file of `{file.path}`, so its action is done here")
            return False
        if place.stat().st_size == file.bytes and sha256_file(place) == file.sha256:
            return True
        self._damaged.add(file.sha256)
        self._warn(f"the remote cache's `{file.path}` is damaged ({file.sha256[:12]}…), so its action is done here")
        return False

    def offer(self, key: str, record: bytes, files: list[tuple[KeptFile, Path]]) -> None:
        """Put an action there: its files first, so that whoever sees the record finds them."""
        if not (self._readable and self._writable):
            return
        try:
            self._connect()
            for file, place in files:
                if file.sha256 in self._damaged or self._size(file.sha256) != file.bytes:
                    put_whole(self._system, self._blob(file.sha256), partial(self._system.put_file, str(place)))
            put_whole(self._system, self._action(key), partial(self._system.pipe_file, value=record))
        except Exception as error:  # noqa: BLE001 - drivers raise what the libraries below them raise
            self._writable = False
            self._warn(f"the remote cache {self.name} takes no results, which stay on this machine: {reason(error)}")

    def _read(self, operation: Callable[[], T]) -> T | None:
        """What an operation gives; None where there is no such file, or no way to the cache any more."""
        if not self._readable:
            return None
        try:
            self._connect()
            return operation()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except Exception as error:
            if is_full(error):
                # This machine's disk, where the file was to go.
                raise
            self._readable = False
            self._warn(f"the remote cache {self.name} cannot be reached, the build goes on without it: {reason(error)}")
            return None

    def _connect(self) -> None:
        """Reach the cache, the first time, in a thread that can be left behind.

        Raises:
            TimeoutError: no answer came.
            Exception: whatever the driver raises.
        """
        if self._system is not None:
            return
        # An empty one is made by the first to write.
        self._system, self._root = reach(self._url, probe="actions", patience=PATIENCE)

    def _size(self, sha256: str) -> int | None:
        try:
            return int(self._system.info(self._blob(sha256))["size"])
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _action(self, key: str) -> str:
        return f"{self._root}/actions/{key}.json"

    def _blob(self, sha256: str) -> str:
        return f"{self._root}/blobs/{sha256[:2]}/{sha256}"

    def _warn(self, text: str) -> None:
        self.warnings.append(text)
