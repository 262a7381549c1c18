"""A target profile against what its pinned runtime has."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from packaging.version import InvalidVersion, Version

from ortc.common.resources import templates_dir
from ortc.common.suggest import closest, listed
from ortc.plan.checks.settings import (
    refused_entries,
    refused_environment,
    refused_options,
    refused_provider_options,
)
from ortc.spec import runtimes
from ortc.spec.diagnostics.diagnostic import Diagnostic, quoted
from ortc.spec.diagnostics.rules import checks as rules
from ortc.spec.diagnostics.rules.model import Rule
from ortc.spec.diagnostics.rules.sources import FILE_MISSING
from ortc.spec.load import LoadedProfile
from ortc.spec.profile import ExecutionProvider, Runtime, Session
from ortc.spec.vocabulary import Platform

_SUFFIX = "ExecutionProvider"
_OWNED = {
    "graph_optimization_level": "`graph_levels`",
    "intra_op_num_threads": "`session.threads.intra_op`",
    "inter_op_num_threads": "`session.threads.inter_op`",
    "optimized_model_filepath": "`variants`, with `offline: true`",
}
"""Session options that other keys of a profile decide."""


class _Part(NamedTuple):
    """The profile itself or one of its engines, and where in the file it is."""

    path: tuple[str | int, ...]
    platforms: tuple[Platform, ...]
    runtime: Runtime
    execution_providers: tuple[ExecutionProvider, ...]
    session: Session


def check(item: LoadedProfile) -> Iterator[Diagnostic]:
    """Everything that can be told from a profile and the tables of its runtimes."""
    profile = item.profile
    for index, platform in enumerate(profile.default_platforms or ()):
        if platform not in profile.platforms:
            message = f"the profile `{profile.name}` does not serve {platform}"
            span = item.document.locate(("default_platforms", index))
            yield Diagnostic(rules.PLATFORM, message, span, help=f"it serves {listed(profile.platforms, 'and')}")
    own = _Part((), profile.platforms, profile.runtime, profile.execution_providers, profile.session)
    yield from _template(item)
    yield from _base_image(item)
    yield from _scripts(item)
    yield from _part(item, own)
    for name, engine in profile.engines.items():
        part = _Part(("engines", name), engine.platforms, engine.runtime, engine.execution_providers, engine.session)
        yield from _part(item, part)
    yield from _variants(item, own)


def _part(item: LoadedProfile, part: _Part) -> Iterator[Diagnostic]:
    pinned = part.runtime
    try:
        runtime = runtimes.runtime(pinned.package, pinned.version)
    except runtimes.UnknownVersionError as error:
        yield _runtime(item, part, "version", str(error))
        return
    try:
        if Version(pinned.minimum_version) > Version(pinned.version):
            yield _runtime(item, part, "minimum_version", f"minimum_version is above the pinned {pinned.version}")
    except InvalidVersion:
        yield _runtime(item, part, "minimum_version", f"{quoted(pinned.minimum_version)} is not a version")
    yield from _wheels(item, part, runtime)
    yield from _providers(item, part, runtime)
    yield from _session(item, part, runtime)


def _runtime(item: LoadedProfile, part: _Part, key: str, problem: str) -> Diagnostic:
    return Diagnostic(
        rules.RUNTIME,
        f"the runtime of the profile `{item.profile.name}`: {problem}",
        item.document.locate((*part.path, "runtime", key)),
    )


def _variants(item: LoadedProfile, own: _Part) -> Iterator[Diagnostic]:
    """Variants against the engines that they name: engine, options of its provider, configuration keys."""
    profile = item.profile
    for index, variant in enumerate(profile.variants):
        path = ("variants", index)
        if variant.engine is not None and variant.engine not in profile.engines:
            message = f"the profile `{profile.name}` has no engine {quoted(variant.engine)}"
            meant = closest(variant.engine, profile.engines)
            yield Diagnostic(
                rules.RUNTIME,
                message,
                item.document.locate((*path, "engine")),
                f"did you mean `{meant}`?" if meant else "",
                help=None if meant else f"it has {listed(sorted(profile.engines), 'and') or 'none'}",
            )
            continue
        engine = profile.engines[variant.engine] if variant.engine is not None else own
        try:
            runtime = runtimes.runtime(engine.runtime.package, engine.runtime.version)
        except runtimes.UnknownVersionError:
            continue
        what = f"{runtime.package} {runtime.version}"
        first = engine.execution_providers[0].name
        for option in variant.provider_options if first in runtime.providers.available else ():
            options = runtime.provider_options(first)
            if option not in options:
                message = f"{first} of {what} has no option {quoted(option)}"
                where = (*path, "provider_options", option)
                yield _unknown(item, rules.PROVIDER_OPTION, where, message, option, options)
        if first in runtime.providers.available:
            place = (*path, "provider_options")
            yield from refused_provider_options(item, place, first, variant.provider_options, runtime)
        yield from _entries(item, (*path, "config_entries"), variant.config_entries, runtime)
    for index, tuning in enumerate(profile.tuning):
        try:
            runtime = runtimes.runtime(own.runtime.package, own.runtime.version)
        except runtimes.UnknownVersionError:
            return
        yield from _options(item, ("tuning", index, "options"), tuning.options, runtime)
        yield from _entries(item, ("tuning", index, "config_entries"), tuning.config_entries, runtime)


def _scripts(item: LoadedProfile) -> Iterator[Diagnostic]:
    """What a page and Node cannot do: read a graph that another build optimized, variables, operators side by side."""
    profile = item.profile
    if not (profile.is_web or profile.is_node):
        return
    where = "a browser" if profile.is_web else "Node"
    for index, variant in enumerate(profile.variants):
        if variant.offline:
            place = ("variants", index, "offline") if "offline" in variant.model_fields_set else ("variants", index)
            yield Diagnostic(
                rules.RUNTIME,
                f"{quoted(variant.name)} is optimized at build time, and {where} runs another ONNX Runtime",
                item.document.locate(place),
                help="write `offline: false`: the session optimizes the graph when it loads",
            )
    for name in profile.session.environment:
        yield Diagnostic(
            rules.SESSION_OPTION,
            f"the variable {quoted(name)} cannot be set in {where}",
            item.document.locate(("session", "environment", name), key=True),
            help="remove it",
        )
    if profile.session.threads.inter_op != 1:
        yield Diagnostic(
            rules.SESSION_OPTION,
            "`inter_op` is above 1, and these loaders run one operator at a time",
            item.document.locate(("session", "threads", "inter_op")),
            help="remove it",
        )


def _template(item: LoadedProfile) -> Iterator[Diagnostic]:
    if item.profile.image is None:
        return
    known = sorted(path.name for path in templates_dir().glob("Dockerfile*.j2"))
    if item.profile.image.template not in known:
        meant = closest(item.profile.image.template, known)
        yield Diagnostic(
            FILE_MISSING,
            f"there is no template {quoted(item.profile.image.template)} of a Dockerfile",
            item.document.locate(("image", "template")),
            f"did you mean `{meant}`?" if meant else "",
            help=None if meant else f"there is {listed(known, 'and')}",
        )


def _base_image(item: LoadedProfile) -> Iterator[Diagnostic]:
    """A tag of a profile that the project can edit; the Dockerfile says the same of those that come with ortc."""
    if item.profile.image is None:
        return
    image = item.profile.image.base_image
    if "@sha256:" not in image and not item.shipped:
        yield Diagnostic(
            rules.BASE_IMAGE,
            f"the base image {quoted(image)} is named by a tag, which may come to name another image",
            item.document.locate(("image", "base_image")),
            help=f"add its digest: `{image}@sha256:` and 64 hexadecimal digits",
        )


def _wheels(item: LoadedProfile, part: _Part, runtime: runtimes.Runtime) -> Iterator[Diagnostic]:
    profile = item.profile
    what = f"{runtime.package} {runtime.version}"
    try:
        pins = runtimes.pins(part.runtime.pins)
    except runtimes.UnknownVersionError as error:
        yield _runtime(item, part, "pins", str(error))
        return
    for index, platform in enumerate(part.platforms):
        if platform not in runtime.platforms or platform not in pins.platforms:
            served = [name for name in runtime.platforms if name in pins.platforms]
            yield Diagnostic(
                rules.NO_WHEELS,
                f"{what} with the pins `{pins.name}` has no wheels for {platform}",
                item.document.locate((*part.path, "platforms", index)),
                f"it has wheels for {listed(served, 'and')}",
            )
    if profile.image is None:
        return
    if profile.image.python not in runtime.pythons or profile.image.python not in pins.pythons:
        served = [name for name in runtime.pythons if name in pins.pythons]
        yield Diagnostic(
            rules.NO_WHEELS,
            f"{what} with the pins `{pins.name}` has no wheels for Python {profile.image.python}",
            item.document.locate(("image", "python")),
            f"it has wheels for {listed(served, 'and')}",
        )


def _providers(item: LoadedProfile, part: _Part, runtime: runtimes.Runtime) -> Iterator[Diagnostic]:
    what = f"{runtime.package} {runtime.version}"
    for index, provider in enumerate(part.execution_providers):
        path = (*part.path, "execution_providers", index)
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
        yield from refused_provider_options(item, (*path, "options"), provider.name, provider.options, runtime)


def _session(item: LoadedProfile, part: _Part, runtime: runtimes.Runtime) -> Iterator[Diagnostic]:
    path = (*part.path, "session")
    yield from _options(item, (*path, "options"), part.session.options, runtime)
    yield from _entries(item, (*path, "config_entries"), part.session.config_entries, runtime)
    yield from refused_environment(item, (*path, "environment"), part.session.environment)


def _options(
    item: LoadedProfile, place: tuple[str | int, ...], options: Mapping[str, bool | str], runtime: runtimes.Runtime
) -> Iterator[Diagnostic]:
    what = f"{runtime.package} {runtime.version}"
    refused = {name: next(refused_options(item, place, [name], runtime), None) for name in options}
    for name, value in options.items():
        path = (*place, name)
        if name in _OWNED:
            message, span = f"{quoted(name)} is not set here", item.document.locate(path, key=True)
            yield Diagnostic(rules.SESSION_OPTION, message, span, help=f"use {_OWNED[name]} of the profile")
            continue
        option = runtime.session_options.get(name)
        if option is None:
            message = f"{what} has no session option {quoted(name)}"
            yield _unknown(item, rules.SESSION_OPTION, path, message, name, runtime.session_options)
        elif (refusal := refused[name]) is not None:
            yield refusal
        elif (problem := _mismatch(option, value)) is not None:
            message = f"the session option `{name}` takes {problem}"
            yield Diagnostic(rules.SESSION_OPTION, message, item.document.locate(path))


def _entries(
    item: LoadedProfile, place: tuple[str | int, ...], entries: Mapping[str, str], runtime: runtimes.Runtime
) -> Iterator[Diagnostic]:
    for name in entries:
        if name not in runtime.config_keys:
            message = f"{runtime.package} {runtime.version} has no session configuration key {quoted(name)}"
            yield _unknown(item, rules.SESSION_OPTION, (*place, name), message, name, runtime.config_keys)
    yield from refused_entries(item, place, entries, runtime)


def _mismatch(option: runtimes.Option, value: bool | str) -> str | None:
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
