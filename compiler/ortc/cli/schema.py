"""`ortc schema`: the language as JSON Schema."""

import sys

import rich_click as click

from ortc.spec.json_schema import LANGUAGES, schema_text


@click.command
@click.argument("language", type=click.Choice(sorted(LANGUAGES)), default="spec")
def schema(language: str) -> None:
    """Print the JSON Schema (draft-07) of specs, or of target profiles, for editors and other tools."""
    sys.stdout.write(schema_text(language))
