"""What an exported program may say in place of a size: torch evaluates it."""

import pytest

from ortc.reference.pt2 import _is_arithmetic


@pytest.mark.parametrize(
    "text",
    [
        "s77",
        "Symbol('s77', positive=True, integer=True)",
        "2*Symbol('u0', integer=True) + 1",
        "Max(1, Mod(s0, 8))",
        "(s0 // 2) ** 2 - 1",
        "Eq(s0, 3)",
        "-s0",
    ],
)
def test_arithmetic(text: str) -> None:
    assert _is_arithmetic(text)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "Symbol('__import__(\\'os\\')')",
        "s0.__class__",
        "eval('1')",
        "Symbol('s0')(1)",
        "open('/etc/passwd')",
        "(lambda: 1)()",
        "[s for s in (1,)]",
        "Max(*print('x'))",
        "f'{s0}'",
        "__builtins__",
        "s0; s1",
        "",
        "(" * 1000,
    ],
)
def test_code(text: str) -> None:
    assert not _is_arithmetic(text)
