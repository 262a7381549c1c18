"""Texts that look like credentials: found by their published shapes, and never shown.

Shapes: GitHub's "About authentication", Hugging Face, GitLab, Slack, AWS and Google's documentation of their tokens.
"""

import re
from collections.abc import Iterator
from functools import lru_cache

_SHAPES = (
    ("a Hugging Face token", r"\bhf_[A-Za-z0-9]{20,}"),
    ("a GitHub token", r"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,})"),
    ("a GitLab token", r"\bglpat-[\w-]{20,}"),
    ("an AWS access key", r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    ("a Google API key", r"\bAIza[\w-]{35}"),
    ("a Slack token", r"\bxox[abprs]-[\w-]{10,}"),
    ("an API key", r"\bsk-[\w-]{20,}"),
    ("a JSON web token", r"(?<![\w-])(?=[\w-]*eyJ[\w-]{10})[\w-]++\.[\w-]{10,}+\.[\w-]++"),
    ("a private key", r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    ("a password in a URL", r"(?<=://)[^\s/:@]*:[^\s/@]+(?=@)"),
    ("a signed URL", r"(?i:(?<=[?&]sig=)|(?<=[?&]x-amz-signature=)|(?<=[?&]x-goog-signature=))[\w%+/=-]{16,}"),
)
_HINTS = ("hf_", "gh", "glpat-", "AKIA", "ASIA", "AIza", "xox", "sk-", "eyJ", "PRIVATE KEY", "://", "?", "&")
"""One of these is in every text that matches; looking for them is a hundred times faster than matching."""
_PATTERN = re.compile("|".join(f"(?P<s{index}>{shape})" for index, (_, shape) in enumerate(_SHAPES)))


def find_secrets(text: str) -> Iterator[tuple[str, int, int]]:
    """What kind of credential each is that a text holds, in words, and where it starts and ends."""
    for match in _PATTERN.finditer(text) if _suspicious(text) else ():
        yield _SHAPES[int(str(match.lastgroup)[1:])][0], match.start(), match.end()


def find_secret(text: str) -> str | None:
    """What kind of credential a text holds, in words; None when it looks like none."""
    return next((kind for kind, _, _ in find_secrets(text)), None)


@lru_cache(maxsize=16)  # a long line is shown once for each of its mistakes
def mask_secrets(text: str) -> str:
    """The text, as long as before, with stars for everything that looks like a credential."""
    return _PATTERN.sub(lambda match: "*" * len(match.group()), text) if _suspicious(text) else text


def _suspicious(text: str) -> bool:
    return any(hint in text for hint in _HINTS)
