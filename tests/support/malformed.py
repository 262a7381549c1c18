"""Requests that are wrong: mutations of a right one, and what schemathesis makes of the OpenAPI document."""

from __future__ import annotations

import copy
import json
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

from tests.support.serving import Running

WORDS: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, 2**31, 2**63, 2**64, -(2**70), 1e308, "", "x", "FP32", "BYTES", "\ud800", "é" * 50,
    [], [[]], [1, [2]], {}, {"name": 1}, [None], ["1"], [[1, 2], [3]], [1e40], [2**65], "9" * 5000,
)  # fmt: skip


def mutations(document: dict[str, Any], tail: bytes, seed: int) -> Iterator[tuple[bytes, dict[str, str]]]:
    """Bodies and headers, without an end: a binary request with one to three things changed."""
    chance = random.Random(seed)  # noqa: S311 - for tests
    while True:
        changed = json.loads(json.dumps(document))
        body_tail, headers = tail, dict[str, str]()
        length: int | str | None = None
        cut: int | None = None
        for _ in range(chance.randint(1, 3)):
            kind = chance.randrange(9)
            if kind < 4:
                _change(changed, chance)
            elif kind == 4:
                body_tail = body_tail[: chance.randrange(len(tail) + 1)]
            elif kind == 5:
                body_tail += chance.randbytes(chance.choice((1, 7, 64)))
            elif kind == 6:
                body_tail = chance.randbytes(len(tail))
            elif kind == 7:
                length = chance.choice((0, 1, -1, 10**9, 10**30, "", "x", "0x10", "1 2", 5))
            else:
                cut = chance.randrange(200)
        head = json.dumps(changed).encode()
        if chance.random() < 0.1:
            at = chance.randrange(len(head))
            head = head[:at] + chance.randbytes(chance.randint(0, 3)) + head[at + chance.randint(0, 3) :]
        headers["Inference-Header-Content-Length"] = str(len(head) if length is None else length)
        if chance.random() < 0.1:
            del headers["Inference-Header-Content-Length"]
        if chance.random() < 0.05:
            headers["Content-Encoding"] = chance.choice(("gzip", "br", "identity"))
        yield (head + body_tail)[:cut], headers


def _change(value: Any, chance: random.Random) -> None:
    """Put something else at one place of a JSON document, or take it away."""
    while True:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        if not keys:
            return
        key = chance.choice(list(keys))
        inner = value[key]
        if isinstance(inner, dict | list) and inner and chance.random() < 0.75:
            value = inner
            continue
        if chance.random() < 0.2:
            del value[key]
        else:
            value[key] = copy.deepcopy(chance.choice(WORDS))
        return


def send_mutations(running: Running, path: str, document: dict[str, Any], tail: bytes, count: int) -> Counter[int]:
    """How many were answered with which status; each answer is JSON that says why, or an inference."""
    found: Counter[int] = Counter()
    for (content, headers), _ in zip(mutations(document, tail, seed=count), range(count), strict=False):
        status, _, answer = running.exchange("POST", path, content, headers)
        found[status] += 1
        if status != 200:
            assert json.loads(answer).keys() == {"error"}, answer
    return found


def send_generated(running: Running, examples: int) -> Counter[int]:
    """The same of what schemathesis generates for every operation, right and wrong requests in turn."""
    import hypothesis
    import schemathesis
    from schemathesis.core.result import Ok
    from schemathesis.generation import GenerationMode

    schema = schemathesis.openapi.from_dict(running.request("GET", "/openapi.json")[1])
    found: Counter[int] = Counter()
    operations = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
    assert operations
    for operation in operations:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @hypothesis.settings(
                max_examples=max(1, examples // (2 * len(operations))),
                deadline=None,
                database=None,
                derandomize=True,
                suppress_health_check=list(hypothesis.HealthCheck),
            )
            @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
            def send(case: Any) -> None:
                answer = case.call(base_url=f"http://127.0.0.1:{running.port}", timeout=120)
                found[answer.status_code] += 1

            try:
                send()
            except hypothesis.errors.Unsatisfiable:
                continue  # an operation without parameters cannot be asked wrongly
    return found
