"""What a stage of a build is: a name, the code and the inputs that make a key, and the type of the result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, TypeAdapter

from ortc.execution.action_record import action_key
from ortc.execution.code_closure import Code, code_of

R = TypeVar("R", bound=BaseModel)
Json = dict[str, Any]

CODE = "code"
"""The input that holds the digest of a stage's code."""
OPENED = "opened"
"""The input, and the part of the result, that holds the state of the files that a function has read."""


@dataclass(frozen=True, eq=False)
class Stage(Generic[R]):
    """A kind of action.

    Attributes:
        name: in keys, progress and reports; several stages may do the same work for different subjects.
        inputs: names of everything that decides the result.
        result: the type of the result, or several.
        of: what tells the stage from others of its name.
        code: the modules whose import closure is in the key; None where no code of ortc decides the result.
        assume: the result that a comparison of two states of a spec takes an action to have; None where nothing after
            the action depends on its result, or where a race decides what comes after.
        is_final: whether a result may be kept; every result when None.
        counts_results: whether subjects count what earlier results tell, so that a comparison names the plan instead.
        reads_files: whether the work calls a function of the spec, whose files become an input once they change.
    """

    name: str
    inputs: tuple[str, ...]
    result: Any
    of: str = ""
    code: Code | None = None
    assume: Callable[[Action[R]], R] | None = None
    is_final: Callable[[R], bool] | None = None
    reads_files: bool = False
    counts_results: bool = False

    @property
    def label(self) -> str:
        """The name, with what tells the stage from others of it."""
        return f"{self.name} {self.of}".rstrip()

    def action(self, subject: str, inputs: Json) -> Action[R]:
        """The stage's action for some inputs, with the digest of its code among them.

        Raises:
            ValueError: inputs that decide the result are missing, or nobody knows of one.
        """
        found = dict(inputs)
        if CODE in self.inputs and CODE not in found:
            found[CODE] = self.code_sha256
        if found.keys() - ({OPENED} if self.reads_files else set()) != set(self.inputs):
            raise ValueError(f"{self.label} depends on {sorted(self.inputs)}, and was given {sorted(found)}")
        return Action(self, subject, found)

    @property
    def code_sha256(self) -> str:
        """The digest of the stage's code.

        Raises:
            ValueError: no code of ortc decides the result.
        """
        if self.code is None:
            raise ValueError(f"{self.label} has no code")
        return code_of(self.code)

    def read(self, result: Json) -> R:
        """The result that a record holds."""
        value: R = TypeAdapter(self.result).validate_python(result)
        return value


@dataclass(frozen=True)
class Action(Generic[R]):
    """A stage with everything that goes into it, as JSON; `subject` names it for people."""

    stage: Stage[R]
    subject: str
    inputs: Json

    @property
    def key(self) -> str:
        """What the result is found by."""
        return action_key(self.stage.name, self.inputs)
