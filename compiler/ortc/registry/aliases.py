"""Aliases of a model's versions: promote a version, and go back to the one before."""

from __future__ import annotations

import uuid
from pathlib import Path

from ortc.common.errors import StageError, UsageError
from ortc.registry.catalogue import EVENT, LATEST, Catalogue, is_plain
from ortc.registry.documents import AliasEvent, BundleRecord, now
from ortc.registry.signatures import check_signatures

_LAST = 99_999_999
"""Changes are in the order of their names, which have eight digits."""


def promote(
    registry: Catalogue,
    reference: str,
    alias: str,
    *,
    unfit: bool = False,
    fewer: bool = False,
    broken: bool = False,
    key: Path | None = None,
) -> str:
    """Let an alias name a version, and tell which.

    Args:
        registry: the registry.
        reference: the version, as `resolve` takes it.
        alias: a name like `production`.
        unfit: even one that is not fit to serve.
        fewer: even one that lacks a target of the version that the alias names now.
        broken: even one that a measurement says breaks a promise.
        key: a public key as PEM: the bundles must be signed with it.

    Raises:
        UsageError: there is no such version, or the alias cannot have that name.
        StageError: the version should not be promoted, or the registry has another bundle under its name.
    """
    name, version = registry.resolve(reference)
    if alias == LATEST or alias in registry.versions(name) or not is_plain(alias):
        raise UsageError(
            f"`{alias}` cannot be set: an alias is neither `{LATEST}` nor a version, and is written like a name"
        )
    targets = registry.targets(name, version)
    records = [registry.registered(name, version, target) for target in targets]
    if key is not None:
        for record in records:
            check_signatures(record, registry.companions(record), registry.content, key)
    manifests = [registry.manifest(record) for record in records]
    if not unfit and (bad := [manifest.target for manifest in manifests if not manifest.fit_to_serve]):
        raise StageError(
            f"{name} {version} is not fit to serve ({', '.join(bad)}): its weights are random",
            help="`--allow-unfit` promotes it all the same",
        )
    failures = [line for record in records for line in _broken(registry, record)]
    if not broken and failures:
        raise StageError(
            f"{name} {version} breaks a promise: {', '.join(failures)}",
            help="`ortc registry show` has the numbers; `--allow-broken-promises` promotes it all the same",
        )
    before = registry.aliases(name).get(alias)
    lost = [] if before is None else sorted(set(registry.targets(name, before)) - set(targets))
    if lost and not fewer:
        raise StageError(
            f"{name} {version} has no bundle for {', '.join(lost)}, which {before}, now `{alias}`, has",
            help="register the missing bundles first; `--allow-missing-targets` promotes it all the same",
        )
    _say(registry, name, alias, "promote", version)
    return version


def rollback(registry: Catalogue, name: str, alias: str) -> tuple[str, str]:
    """Let an alias name what it named before its newest promotion; tell the version before and after.

    Raises:
        UsageError: there is no such model or alias.
        StageError: there was nothing before, or it was removed.
    """
    name, _ = registry.resolve(name)
    stack = registry.stack(name, alias)
    if not stack:
        named = ", ".join(registry.alias_names(name)) or "none"
        raise UsageError(f"`{name}` has no alias `{alias}`", help=f"it has: {named}")
    if len(stack) == 1:
        raise StageError(f"`{alias}` of {name} has always been {stack[0]}: there is nothing to go back to")
    if stack[-2] not in registry.versions(name):
        raise StageError(
            f"`{alias}` of {name} was {stack[-2]} before, which was removed", help="promote another version"
        )
    _say(registry, name, alias, "rollback", stack[-2])
    return stack[-1], stack[-2]


def _say(registry: Catalogue, name: str, alias: str, action: str, version: str) -> None:
    """Add an event to an alias: after all that this process sees, in a file that no other process writes."""
    directory = f"models/{name}/aliases/{alias}"
    matches = [EVENT.fullmatch(found) for found in registry.storage.names(directory)]
    last = max((int(match["number"]) for match in matches if match is not None), default=0)
    if last == _LAST:
        raise StageError(
            f"{directory} of the registry {registry.storage.name} has a change with the highest number, {last}",
            help="somebody put it there: remove the file",
        )
    event = AliasEvent.model_validate({"name": name, "alias": alias, "action": action, "version": version, "at": now()})
    registry.storage.create(f"{directory}/{last + 1:08}-{uuid.uuid4().hex}.json", event.content())


def _broken(registry: Catalogue, record: BundleRecord) -> list[str]:
    """The machines on which a measurement says that a bundle breaks a promise."""
    return [
        f"{record.target} on {found.performance.host.cpu} ({found.performance.fingerprint})"
        for found in registry.companions(record)
        if found.performance is not None and found.performance.verdicts.get("fail")
    ]
