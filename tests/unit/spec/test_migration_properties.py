"""Every profile whose former keys have a present spelling is rewritten, however it is laid out."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.examples import examples

from ortc.spec.diagnostics.source import SourceFile
from ortc.spec.former_keys import former_keys, migrated
from ortc.spec.migration import migrated_text
from ortc.spec.syntax.yaml_parser import parse

FLAGS = {
    "int8-dynamic": {"smooth": ["true", "false"], "weight_only": ["true", "false"]},
    "int8-static": {"smoothing": ["auto", "0.5", "null"], "keep_narrowing": ["true"], "symmetric": ["true", "false"]},
    "int8-weights": {"symmetric": ["false"]},
    "int4-weights": {"calibration": ["minmax"]},
    "none": {"smooth": ["false"]},
}


def entries(chance: random.Random, name: str) -> list[tuple[str, str]]:
    """The keys of a variant in any order."""
    kind = chance.choice(list(FLAGS))
    found = [("name", name), ("precision", "int8"), ("quantization", chance.choice([kind, f'"{kind}"', f"'{kind}'"]))]
    if kind != "none":
        found.append(("operators", "[MatMul, Gemm]"))
    found += [(key, chance.choice(values)) for key, values in FLAGS[kind].items() if chance.random() < 0.5]
    found += [("config_entries", '{a: "1, #x"}')] if chance.random() < 0.5 else []
    chance.shuffle(found)
    return found


def in_flow(chance: random.Random, name: str) -> str:
    parts = [f"{key}: {value}" for key, value in entries(chance, name)]
    text = parts[0]
    for part in parts[1:]:
        text += chance.choice([", ", ",", " , ", ", # c\n     ", ",\n     ", ",\n     # d\n     "]) + part
    return f"  - {{{text}{chance.choice(['', ' ', ', ', chr(10) + '     ', ' # e' + chr(10) + '     '])}}}  # z\n"


def in_block(chance: random.Random, name: str) -> str:
    text = "  -"
    for index, (key, value) in enumerate(entries(chance, name)):
        above = chance.choice(["", "    # above\n", "\n", "# far left\n"]) if index else ""
        value = "\n      - MatMul  # q\n      - Gemm" if key == "operators" and chance.random() < 0.5 else f" {value}"
        text += f"{above}{'    ' if index else ' '}{key}:{value}{chance.choice(['', '  # t', ' '])}\n"
    return text


@settings(max_examples=examples(150))
@given(st.integers(0, 2**32), st.booleans())
def test_any_layout_is_rewritten(seed: int, is_windows: bool) -> None:
    chance = random.Random(seed)  # noqa: S311  # a layout is no secret
    variants = [chance.choice([in_flow, in_block])(chance, f"v{index}") for index in range(2)]
    text = f"# mine\nkind: TargetProfile\nvariants:\n{''.join(variants)}# end\n"
    text = text.replace("\n", "\r\n") if is_windows else text
    before = parse(SourceFile("board.yaml", text))
    after = migrated_text(SourceFile("board.yaml", text))
    document = parse(SourceFile("board.yaml", after))
    assert document.data == migrated(before.data, before)
    assert list(former_keys(document)) == []
    for mark in ("# mine", "# c", "# d", "# e", "# z", "# t", "# q", "# above", "# far left", "# end"):
        assert after.count(mark) == text.count(mark)
