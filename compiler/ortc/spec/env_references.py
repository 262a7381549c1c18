"""`${env:NAME}` in the few values of a spec that may come from the environment."""

import re
from collections.abc import Iterator
from collections.abc import Mapping as Variables

from pydantic import BaseModel

from ortc.common.permissions import PREFIX, may_read, remember
from ortc.spec.diagnostics.diagnostic import Diagnostic, quoted
from ortc.spec.diagnostics.rules import reuse as rules
from ortc.spec.diagnostics.source import Document, Entry, Mapping, Node, Path, Scalar, Sequence
from ortc.spec.syntax import schema_walk
from ortc.spec.vocabulary import ENVIRONMENT, VERSION_PATTERN

_START = "${env:"
_REFERENCE = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)\}", re.ASCII)
_HELP = "only `version`, `model.path` and `model.mirrors` may come from the environment; use `--set` for this"


def substitute(
    model: type[BaseModel], document: Document, variables: Variables[str, str]
) -> tuple[Document, tuple[Diagnostic, ...]]:
    """A document with the values of variables in the place of references; every value keeps its place.

    Returned beside it is what is wrong: a reference where none may be, one that is not well-formed, or to a variable
    without a value. Those stay as they are written.

    Args:
        model: The language, whose fields say which of them may hold references.
        document: What was written.
        variables: The environment.
    """
    found: list[Diagnostic] = []
    root = _Substitution(model, document, variables, found).node(document.root, ())
    if not isinstance(root, Mapping):
        raise TypeError("a mapping became something else")
    return Document(document.source, root), tuple(found)


class _Substitution:
    def __init__(
        self, model: type[BaseModel], document: Document, variables: Variables[str, str], found: list[Diagnostic]
    ) -> None:
        self._model = model
        self._document = document
        self._variables = variables
        self._found = found

    def node(self, node: Node, path: Path) -> Node:
        match node:
            case Mapping(span=span, entries=entries):
                inner = {key: Entry(entry.key, self.node(entry.value, (*path, key))) for key, entry in entries.items()}
                return Mapping(span, inner)
            case Sequence(span=span, items=items):
                return Sequence(span, tuple(self.node(item, (*path, index)) for index, item in enumerate(items)))
            case Scalar(value=str() as text) if "${" in text:
                return self._scalar(node, text, path)
        return node

    def _scalar(self, node: Scalar, text: str, path: Path) -> Scalar:
        if not schema_walk.marked(self._model, self._document.root, path, ENVIRONMENT):
            if _START in text:
                message = f"`{path[-1]}` cannot come from the environment" if path else "no reference can stand here"
                self._found.append(Diagnostic(rules.ENVIRONMENT_PLACE, message, node.span, help=_HELP))
            return node
        problems = list(self._problems(node, text))
        if problems:
            self._found += problems
            return node
        for name in _REFERENCE.findall(text):
            # A version is published; what is no version is not.
            if path != ("version",) or not re.fullmatch(VERSION_PATTERN, self._variables[name]):
                remember(name, self._variables[name])
        value = _REFERENCE.sub(lambda match: self._variables[match[1]], text)
        return Scalar(node.span, value, value, plain=False)

    def _problems(self, node: Scalar, text: str) -> Iterator[Diagnostic]:
        rest = _REFERENCE.sub("", text)
        if "${" in rest:
            wrong = rest[rest.index("${") :].partition("}")
            message = f"{quoted(wrong[0] + wrong[1])} is not a reference to the environment"
            yield Diagnostic(rules.ENVIRONMENT_SYNTAX, message, node.span, help="write `${env:NAME}`")
        for name in dict.fromkeys(_REFERENCE.findall(text)):
            if not may_read(name):
                message = f"the variable {quoted(name)} of the environment is not for specs"
                advice = (
                    f"allow it: `ortc ... --env {name}`; other names that begin with {PREFIX}, without ortc's own "
                    "settings, need no allowance"
                )
                yield Diagnostic(rules.ENVIRONMENT_REFUSED, message, node.span, help=advice)
                continue
            value = self._variables.get(name)
            if value and value.isprintable():
                continue
            state = "is not set" if value is None else "is empty" if not value else "holds unprintable characters"
            message = f"the variable {quoted(name)} of the environment {state}"
            yield Diagnostic(rules.ENVIRONMENT_UNSET, message, node.span, help=f"set it: `{name}=... ortc ...`")
