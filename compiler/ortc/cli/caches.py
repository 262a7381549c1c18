"""The caches of a command: the local one, and a remote one where the user names it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import rich_click as click

if TYPE_CHECKING:
    from ortc.execution.action_cache import Store

cache_url = click.option(
    "--cache-url",
    envvar="ORTC_CACHE_URL",
    show_envvar=True,
    metavar="URL",
    help="A cache that machines share, as a URL of fsspec (file://, s3://, gs://, …).",
)


def open_store(url: str | None) -> Store:
    """The local cache, backed by a remote one.

    Raises:
        BadParameter: fsspec knows no such place.
    """
    from ortc.common.resources import cache_root
    from ortc.execution.action_cache import Store
    from ortc.execution.remote_cache import RemoteCache

    try:
        remote = RemoteCache(url) if url else None
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--cache-url (or ORTC_CACHE_URL)") from error
    return Store(cache_root(), remote)
