"""The catalogue of rules: every code that a diagnostic can carry."""

from ortc.spec.diagnostics.rules import answers, checks, plans, reuse, schema, sources, syntax
from ortc.spec.diagnostics.rules.model import Rule, Severity

CATALOGUE: tuple[Rule, ...] = (
    *syntax.RULES,
    *schema.RULES,
    *reuse.RULES,
    *plans.RULES,
    *checks.RULES,
    *sources.RULES,
    *answers.RULES,
)

__all__ = ["CATALOGUE", "Rule", "Severity", "find_rule"]


def find_rule(code: str) -> Rule | None:
    """The rule with a code or a name, whatever the case."""
    wanted = code.strip().lower()
    return next((rule for rule in CATALOGUE if wanted in {rule.code.lower(), rule.name}), None)
