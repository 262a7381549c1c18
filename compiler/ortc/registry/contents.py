"""What lies in a registry: documents by their place, and contents by their digest."""

from __future__ import annotations

import hashlib
from typing import TypeVar

from ortc.common.errors import StageError
from ortc.registry.documents import Document, Marker
from ortc.registry.storage import Storage

D = TypeVar("D", bound=Document)
MARKER = "registry.json"


class Contents:
    """The documents and files of a registry, by its URL."""

    def __init__(self, url: str) -> None:
        """Name the place, without reaching for it.

        Raises:
            UsageError: fsspec cannot reach such a place.
        """
        self.storage = Storage(url)

    def check(self) -> None:
        """Make sure that there is a registry.

        Raises:
            StageError: there is none, or of another format.
        """
        if self.find(Marker, MARKER) is None:
            raise StageError(
                f"there is no registry at {self.storage.name}",
                help="the first `ortc registry add` makes one in an empty place",
            )

    def find(self, kind: type[D], path: str) -> D | None:
        """A document, if it is there.

        Raises:
            StageError: it is damaged, or of another format.
        """
        content = self.storage.read(path)
        if content is None:
            return None
        try:
            return kind.read(content)
        except ValueError as error:
            raise StageError(
                f"{path} of the registry {self.storage.name} cannot be used: {str(error).splitlines()[0]}",
                help="it was changed by hand or by another program, or a newer ortc wrote it",
            ) from error

    def demand(self, kind: type[D], path: str) -> D:
        """A document that was there when its directory was listed.

        Raises:
            StageError: it is not there any more, it is damaged, or of another format.
        """
        found = self.find(kind, path)
        if found is None:
            raise StageError(f"{path} was removed from the registry {self.storage.name} while it was read; try again")
        return found

    def content(self, path: str, sha256: str) -> bytes:
        """A small file of a bundle or beside it, compared with its digest.

        Raises:
            StageError: it is missing or damaged.
        """
        content = self.storage.read(blob(sha256))
        if content is None or hashlib.sha256(content).hexdigest() != sha256:
            what = "is missing from" if content is None else "is damaged in"
            raise StageError(
                f"`{path}` {what} the registry {self.storage.name} ({blob(sha256)})",
                help="`ortc registry add --repair` of the same bundle puts it there again",
            )
        return content


def blob(sha256: str) -> str:
    """Where the content with a digest lies."""
    return f"blobs/{sha256[:2]}/{sha256}"
