"""`ortc explain`: the catalogue of rules."""

import sys

import rich_click as click

from ortc.common.suggest import closest
from ortc.spec.diagnostics.rules import CATALOGUE, Rule, find_rule


@click.command
@click.argument("code", required=False)
def explain(code: str | None) -> None:
    """Explain an error code, like ORTC204, or list all of them."""
    if code is None:
        width = max(len(rule.name) for rule in CATALOGUE)
        sys.stdout.write("".join(f"{rule.code}  {rule.name:<{width}}  {rule.summary}\n" for rule in CATALOGUE))
        return
    rule = find_rule(code)
    if rule is None:
        names = [rule.code for rule in CATALOGUE] + [rule.name for rule in CATALOGUE]
        meant = closest(code, names)
        advice = f"did you mean {meant}?" if meant else "`ortc explain` lists all of them"
        raise click.BadParameter(f"there is no rule `{code}`; {advice}", param_hint="CODE")
    sys.stdout.write(page(rule))


def page(rule: Rule) -> str:
    """What is known about one rule, as text."""
    return (
        f"{rule.severity}[{rule.code}] {rule.name}: {rule.summary}\n\n{_wrapped(rule.explanation)}\n\n"
        f"Wrong:\n\n{_indented(rule.bad)}\nRight:\n\n{_indented(rule.good)}"
    )


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())


def _wrapped(text: str) -> str:
    import textwrap

    return textwrap.fill(text, width=88, break_on_hyphens=False)
