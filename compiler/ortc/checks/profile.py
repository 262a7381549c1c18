"""A target profile against what its pinned runtime has."""

from collections.abc import Iterable, Iterator

from packaging.version import InvalidVersion, Version

from ortc import versions
from ortc.diagnostics import Diagnostic, quoted
from ortc.load import LoadedProfile
from ortc.rules import checks as rules
from ortc.rules.model import Rule
from ortc.suggest import closest, listed

_SUFFIX = "ExecutionProvider"
_OWNED = {
    "graph_optimization_level": "`graph_levels`",
    "intra_op_num_threads": "`session.threads.intra_op`",
    "inter_op_num_threads": "`session.threads.inter_op`",
    "optimized_model_filepath": "`variants`, with `offline: true`",
}
"""Session options that other keys of a profile decide."""


def check(item: LoadedProfile) -> Iterator[Diagnostic]:
    """Everything that can be told from a profile and the tables of its runtime."""
    pinned = item.profile.runtime
    try:
        runtime = versions.runtime(pinned.package, pinned.version)
    except versions.UnknownVersionError as error:
        yield _runtime(item, "version", str(error))
        return
    try:
        if Version(pinned.minimum_version) > Version(pinned.version):
            yield _runtime(item, "minimum_version", f"minimum_version is above the pinned {pinned.version}")
    except InvalidVersion:
        yield _runtime(item, "minimum_version", f"{quoted(pinned.minimum_version)} is not a version")
    for index, platform in enumerate(item.profile.default_platforms or ()):
        if platform not in item.profile.platforms:
            message = f"the profile `{item.profile.name}` does not serve {platform}"
            span = item.document.locate(("default_platforms", index))
            yield Diagnostic(rules.PLATFORM, message, span, help=f"it serves {listed(item.profile.platforms, 'and')}")
    yield from _wheels(item, runtime)
    yield from _providers(item, runtime)
    yield from _session(item, runtime)


def _runtime(item: LoadedProfile, key: str, problem: str) -> Diagnostic:
    return Diagnostic(
        rules.RUNTIME,
        f"the runtime of the profile `{item.profile.name}`: {problem}",
        item.document.locate(("runtime", key)),
    )


def _wheels(item: LoadedProfile, runtime: versions.Runtime) -> Iterator[Diagnostic]:
    profile = item.profile
    what = f"{runtime.package} {runtime.version}"
    try:
        pins = versions.pins(profile.runtime.pins)
    except versions.UnknownVersionError as error:
        yield _runtime(item, "pins", str(error))
        return
    for index, platform in enumerate(profile.platforms):
        if platform not in runtime.platforms or platform not in pins.platforms:
            served = [name for name in runtime.platforms if name in pins.platforms]
            yield Diagnostic(
                rules.NO_WHEELS,
                f"{what} with the pins `{pins.name}` has no wheels for {platform}",
                item.document.locate(("platforms", index)),
                f"it has wheels for {listed(served, 'and')}",
            )
    if profile.image.python not in runtime.pythons or profile.image.python not in pins.pythons:
        served = [name for name in runtime.pythons if name in pins.pythons]
        yield Diagnostic(
            rules.NO_WHEELS,
            f"{what} with the pins `{pins.name}` has no wheels for Python {profile.image.python}",
            item.document.locate(("image", "python")),
            f"it has wheels for {listed(served, 'and')}",
        )


def _providers(item: LoadedProfile, runtime: versions.Runtime) -> Iterator[Diagnostic]:
    what = f"{runtime.package} {runtime.version}"
    for index, provider in enumerate(item.profile.execution_providers):
        path = ("execution_providers", index)
        if provider.name not in runtime.providers.available:
            known = provider.name in runtime.providers.all
            stems = {name.removesuffix(_SUFFIX): name for name in runtime.providers.available}
            meant = None if known else stems.get(closest(provider.name.removesuffix(_SUFFIX), stems) or "")
            yield Diagnostic(
                rules.PROVIDER,
                f"the wheel of {what} does not contain {provider.name}"
                if known
                else f"{what} has no execution provider {quoted(provider.name)}",
                item.document.locate((*path, "name")),
                f"did you mean `{meant}`?" if meant else "",
                help=None if meant else f"it has {listed(runtime.providers.available, 'and')}",
            )
            continue
        for option in provider.options:
            options = runtime.provider_options(provider.name)
            if option not in options:
                message = f"{provider.name} of {what} has no option {quoted(option)}"
                yield _unknown(item, rules.PROVIDER_OPTION, (*path, "options", option), message, option, options)


def _session(item: LoadedProfile, runtime: versions.Runtime) -> Iterator[Diagnostic]:
    what = f"{runtime.package} {runtime.version}"
    for name, value in item.profile.session.options.items():
        path = ("session", "options", name)
        if name in _OWNED:
            message, span = f"{quoted(name)} is not set here", item.document.locate(path, key=True)
            yield Diagnostic(rules.SESSION_OPTION, message, span, help=f"use {_OWNED[name]} of the profile")
            continue
        option = runtime.session_options.get(name)
        if option is None:
            message = f"{what} has no session option {quoted(name)}"
            yield _unknown(item, rules.SESSION_OPTION, path, message, name, runtime.session_options)
        elif (problem := _mismatch(option, value)) is not None:
            message = f"the session option `{name}` takes {problem}"
            yield Diagnostic(rules.SESSION_OPTION, message, item.document.locate(path))
    for name in item.profile.session.config_entries:
        if name not in runtime.config_keys:
            message = f"{what} has no session configuration key {quoted(name)}"
            path = ("session", "config_entries", name)
            yield _unknown(item, rules.SESSION_OPTION, path, message, name, runtime.config_keys)


def _mismatch(option: versions.Option, value: bool | str) -> str | None:
    """What an option takes, when that is not the value; enum members are written in lower case, without `ORT_`."""
    match option.kind:
        case "bool":
            return None if isinstance(value, bool) else "`true` or `false`"
        case "enum":
            members = [member.removeprefix("ORT_").lower() for member in option.values]
            return None if value in members else listed(members)
        case "str":
            return None if isinstance(value, str) else "a string"
        case _:
            return "an integer, which profiles do not set"


def _unknown(
    item: LoadedProfile,
    rule: Rule,
    path: tuple[str | int, ...],
    message: str,
    word: str,
    known: Iterable[str],
) -> Diagnostic:
    candidates = sorted(known)
    meant = closest(word, candidates)
    return Diagnostic(
        rule,
        message,
        item.document.locate(path, key=True),
        f"did you mean `{meant}`?" if meant else "",
        help=f"it has {listed(candidates, 'and')}" if candidates and not meant and len(candidates) <= 8 else None,
    )
