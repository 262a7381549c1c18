"""Settings of a profile that exist and that no bundle may carry: loaders refuse them."""

import json
from collections.abc import Iterable, Iterator, Mapping

from ortc.common.suggest import closest
from ortc.spec import runtimes
from ortc.spec.diagnostics.diagnostic import Diagnostic, quoted
from ortc.spec.diagnostics.rules import checks as rules
from ortc.spec.diagnostics.rules.model import Rule
from ortc.spec.load import LoadedProfile
from ortc.spec.settings import ENGINES, settings

OPENVINO = "OpenVINOExecutionProvider"
Place = tuple[str | int, ...]


def refused_options(
    item: LoadedProfile, place: Place, names: Iterable[str], runtime: runtimes.Runtime
) -> Iterator[Diagnostic]:
    """Session options that the runtime has and loaders refuse."""
    allowed = settings().of(runtime.package, runtime.version).session_options
    for name in names:
        if name in runtime.session_options and name not in allowed:
            yield _refused(item, (*place, name), f"the session option {quoted(name)}", name, allowed)


def refused_entries(
    item: LoadedProfile, place: Place, names: Iterable[str], runtime: runtimes.Runtime
) -> Iterator[Diagnostic]:
    """Session configuration keys that the runtime has and loaders refuse."""
    allowed = settings().of(runtime.package, runtime.version).config_entries
    for name in names:
        if name in runtime.config_keys and name not in allowed:
            yield _refused(item, (*place, name), f"the session configuration key {quoted(name)}", name, allowed)


def refused_environment(item: LoadedProfile, place: Place, names: Iterable[str]) -> Iterator[Diagnostic]:
    """Variables that loaders do not set."""
    allowed = settings().environment
    for name in names:
        if name not in allowed:
            yield _refused(item, (*place, name), f"the variable {quoted(name)}", name, allowed)


def refused_provider_options(
    item: LoadedProfile, place: Place, provider: str, options: Mapping[str, str], runtime: runtimes.Runtime
) -> Iterator[Diagnostic]:
    """Options of an execution provider that it has and loaders refuse; paths, and properties of OpenVINO."""
    table = settings()
    allowed = table.of(runtime.package, runtime.version).provider_options.get(provider, frozenset())
    known = runtime.provider_options(provider)
    for name, value in options.items():
        if name not in known:
            continue
        if name not in allowed:
            yield _refused(item, (*place, name), f"{quoted(name)} of {provider}", name, allowed, rules.PROVIDER_OPTION)
        elif name.endswith("_path") and value != ENGINES:
            message = f"{quoted(name)} of {provider} may name {ENGINES} and no other place"
            yield Diagnostic(rules.PROVIDER_OPTION, message, item.document.locate((*place, name)))
        elif provider == OPENVINO and name == "load_config":
            yield from _refused_properties(item, (*place, name), value)


def _refused_properties(item: LoadedProfile, path: Place, value: str) -> Iterator[Diagnostic]:
    try:
        devices = json.loads(value)
        named = [(device, str(name)) for device, properties in devices.items() for name in dict(properties)]
    except (ValueError, AttributeError, TypeError, RecursionError):
        message = "`load_config` takes JSON: an object of properties for each device"
        yield Diagnostic(rules.PROVIDER_OPTION, message, item.document.locate(path))
        return
    allowed = settings().openvino_properties
    for device, name in named:
        if name not in allowed:
            meant = closest(name, sorted(allowed))
            message = f"the property {quoted(name)} of OpenVINO's {quoted(str(device))} is refused by loaders"
            label = f"did you mean `{meant}`?" if meant else ""
            yield Diagnostic(rules.PROVIDER_OPTION, message, item.document.locate(path), label)


def _refused(
    item: LoadedProfile,
    path: Place,
    what: str,
    name: str,
    allowed: Iterable[str],
    rule: Rule = rules.SESSION_OPTION,
) -> Diagnostic:
    meant = closest(name, sorted(allowed))
    return Diagnostic(
        rule,
        f"{what} is refused by loaders",
        item.document.locate(path, key=True),
        f"did you mean `{meant}`?" if meant else "",
        help="bundles only say how to compute: nothing that reads or writes files, loads libraries or changes the log",
    )
