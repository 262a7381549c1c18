"""What verdicts mean for a build: how they are made, how a broken one reads, and the exit code that follows."""

from __future__ import annotations

from dataclasses import dataclass

from ortc.evaluation.gate_table import ACCURACY_GATES, HEADLINES, gate_of, plain_gate
from ortc.evaluation.report import Verdict

EXIT_STAGE, EXIT_ACCURACY, EXIT_BUDGET, EXIT_UNMEASURED = 4, 5, 6, 7


@dataclass(frozen=True, slots=True)
class Judge:
    """Make verdicts about answers on one platform; `against` begins the name of each gate, as `teacher `."""

    platform: str
    against: str = ""

    def number(
        self, gate: str, value: float | None, bound: float, where: str = "", *, held: bool = False, said: str = ""
    ) -> Verdict:
        """Judge a number as the table of gates compares it; `held` passes whatever the number is.

        `said` explains a number that is missing, which fails.
        """
        row = gate_of(gate)
        holds = held or (value is not None and row.holds(value, bound))
        return Verdict(
            gate=f"{self.against}{gate}",
            platform=self.platform,
            outcome="pass" if holds else "fail",
            value=value,
            comparison=row.comparison,
            bound=bound,
            unit=row.unit,
            said=said if value is None else "",
            where=where,
        )

    def words(self, gate: str, said: str, required: str, where: str = "", *, held: bool = False) -> Verdict:
        """Judge a promise in words."""
        return Verdict(
            gate=f"{self.against}{gate}",
            platform=self.platform,
            outcome="pass" if held else "fail",
            said=said,
            required=required,
            where=where,
        )


def describe(verdict: Verdict | None) -> str:
    """One line for people."""
    if verdict is None:
        return "passes"
    if verdict.gate == "applies":
        return f"cannot be made: {verdict.observed}"
    where = f" at {verdict.where}" if verdict.where else ""
    if verdict.gate == "runs":
        return f"does not run{where}: {verdict.observed}"
    return f"{verdict.gate} is {verdict.observed}, must be {verdict.limit}{where}"


def parity(verdicts: tuple[Verdict, ...]) -> str | None:
    """The accuracy that a variant is shown with."""
    found = next((verdict for verdict in verdicts if verdict.gate in HEADLINES), None)
    return None if found is None else f"{found.gate} {found.observed}"


def answers_of(verdicts: tuple[Verdict, ...]) -> dict[str, float]:
    """Values of the gates that judge answers, by name."""
    return {
        verdict.gate: verdict.value
        for verdict in verdicts
        if verdict.value is not None and plain_gate(verdict.gate) in ACCURACY_GATES
    }


def failure_code(gates: set[str]) -> int:
    """Exit code when no variant passes, from the gates that they failed."""
    gates = {plain_gate(gate) for gate in gates}
    if gates <= {"runs", "applies"}:
        return EXIT_STAGE
    # Where one variant is right and only too large or too hungry, the budget is what stands in the way.
    return EXIT_BUDGET if gates - ACCURACY_GATES - {"runs", "applies"} else EXIT_ACCURACY
