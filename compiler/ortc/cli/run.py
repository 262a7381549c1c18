"""`ortc run`: answer texts, images, sounds or rows with a finished bundle, in its own environment."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import rich_click as click

from ortc.common.plain_files import MOST_TEXTS, read_plain_text

_BUNDLE = click.Path(path_type=Path, exists=True, file_okay=False)
_SHOWN = 60
_NUMBERS, _LABELS = 4, 5


@click.command(name="run")
@click.argument("bundle", type=_BUNDLE)
@click.argument("texts", nargs=-1, required=True, metavar="TEXT|ROW|FILE|-...")
@click.option("--prompt", metavar="NAME", help="One of the model's prompts, instead of its default.")
@click.option("--json", "as_json", is_flag=True, help="Print the answers as JSON.")
def run(bundle: Path, texts: tuple[str, ...], prompt: str | None, as_json: bool) -> int:
    """Answer texts, images, sounds or rows with a bundle.

    A text is answered as it is; of an existing file, every line is one, and `-` reads lines from stdin. A bundle that
    takes images or sounds answers each file. A row is numbers between commas, a JSON list, or a JSON object of columns.
    The bundle's files are verified and its golden cases run first, in an environment of exactly its pinned
    requirements.
    """
    from ortc.bundle.answering import answer_texts, takes_files

    given = list(texts) if takes_files(bundle) else [line for text in texts for line in _lines(text)]
    if not given:
        raise click.UsageError("there is no text to answer")
    answers = answer_texts(bundle, given, prompt)
    if as_json:
        rows = [{"text": text, "answer": answer} for text, answer in zip(given, answers, strict=True)]
        sys.stdout.write(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
        return 0
    for text, answer in zip(given, answers, strict=True):
        sys.stdout.write(f"{_shown(text)}\n    {described(answer)}\n")
    return 0


def _lines(text: str) -> list[str]:
    """The texts that an argument stands for."""
    if text == "-":
        return sys.stdin.read().splitlines()
    try:
        is_file = Path(text).is_file()
    except (OSError, ValueError):
        is_file = False
    if not is_file:
        return [text]
    try:
        return read_plain_text(Path(text), MOST_TEXTS).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{text} cannot be read as text: {error}") from error


def _shown(text: str) -> str:
    from ortc.common.texts import shown

    return shown(text, _SHOWN)


def described(answer: Any) -> str:
    """One line for people: what was found with scores, values by name, or a vector by its first numbers and length."""
    if isinstance(answer, float | int):
        return f"{answer:.4f}"
    if isinstance(answer, dict) and set(answer) == {"text"}:
        return repr(answer["text"])
    if isinstance(answer, dict) and "depth" in answer:
        height, width = answer["size"]
        return f"{width} x {height} pixels, depths from {answer['minimum']:.4f} to {answer['maximum']:.4f}"
    if isinstance(answer, dict) and "start" not in answer:
        return ", ".join(f"{name} {_value(value)}" for name, value in answer.items())
    if isinstance(answer, dict):
        return f"{answer['answer']!r} at {answer['start']} to {answer['end']}, {answer['score']:.4f}"
    if not answer:
        return "nothing"
    if isinstance(answer[0], dict):
        more = ", …" if len(answer) > _LABELS else ""
        return ", ".join(map(_found, answer[:_LABELS])) + more
    if isinstance(answer[0], list) and answer[0] and isinstance(answer[0][0], dict):
        return " | ".join(map(described, answer))
    if isinstance(answer[0], list):
        return f"{len(answer)} tokens, each with a vector of {len(answer[0])} numbers"
    first = ", ".join(f"{value:.4f}" for value in answer[:_NUMBERS])
    more = ", …" if len(answer) > _NUMBERS else ""
    length = sum(value * value for value in answer) ** 0.5
    return f"[{first}{more}] ({len(answer)} numbers, length {length:.4f})"


def _value(value: Any) -> str:
    """A value of a row's answer."""
    if isinstance(value, list):
        more = ", …" if len(value) > _NUMBERS else ""
        return f"[{', '.join(map(_value, value[:_NUMBERS]))}{more}]"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _found(entry: dict[str, Any]) -> str:
    """A class, an entity with its place, or a word for a masked place."""
    name = next(str(entry[key]) for key in ("label", "entity_group", "entity", "token_str") if key in entry)
    if "box" in entry:
        box = entry["box"]
        return f"{name} {box['xmin']},{box['ymin']} to {box['xmax']},{box['ymax']} {entry['score']:.4f}"
    if "mask" in entry:
        inside, every = sum(entry["mask"]["counts"][1::2]), sum(entry["mask"]["counts"])
        return f"{name} {inside / every:.1%}"
    where = f" {entry['word']!r} at {entry['start']} to {entry['end']}," if "word" in entry else ""
    return f"{name}{where} {entry['score']:.4f}"
