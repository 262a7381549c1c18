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


def rpc_mutations(message: Any, seed: int) -> Iterator[bytes]:
    """Messages without an end: a right one with one to three things changed, in its fields or in its bytes."""
    chance = random.Random(seed)  # noqa: S311 - for tests
    while True:
        changed = type(message)()
        changed.CopyFrom(message)
        for _ in range(chance.randint(1, 3)):
            _change_field(changed, chance)
        content = bytearray(changed.SerializeToString())
        if chance.random() < 0.3 and content:
            for _ in range(chance.randint(1, 4)):
                content[chance.randrange(len(content))] = chance.randrange(256)
        if chance.random() < 0.1:
            del content[chance.randrange(len(content) + 1) :]
        if chance.random() < 0.1:
            content += chance.randbytes(chance.randint(1, 64))
        yield bytes(content)


def _change_field(message: Any, chance: random.Random) -> None:
    """Put another value at one place of a message, empty it, or add to it."""
    field = chance.choice(message.DESCRIPTOR.fields)
    if field.message_type is not None and not field.message_type.GetOptions().map_entry:
        inner = getattr(message, field.name)
        if field.is_repeated:
            if not inner or chance.random() < 0.1:
                inner.add()
            elif chance.random() < 0.1:
                del inner[chance.randrange(len(inner))]
            else:
                _change_field(chance.choice(inner), chance)
        else:
            _change_field(inner, chance)
        return
    if field.message_type is not None:
        name = chance.choice(("shared_memory_region", "classification", "binary_data", "x"))
        _change_field(getattr(message, field.name)[name], chance)
        return
    value: Any = {
        field.CPPTYPE_STRING: chance.choice(("", "x", "FP32", "BYTES", "é" * 50, "9" * 5000)),
        field.CPPTYPE_BOOL: chance.random() < 0.5,
        field.CPPTYPE_FLOAT: chance.choice((0.0, float("nan"), float("inf"), -1e38)),
        field.CPPTYPE_DOUBLE: chance.choice((0.0, float("nan"), float("inf"), -1e308)),
        field.CPPTYPE_INT32: chance.choice((0, -1, 2**31 - 1, -(2**31))),
        field.CPPTYPE_INT64: chance.choice((0, -1, 1, 2**31, 2**63 - 1, -(2**63))),
        field.CPPTYPE_UINT32: chance.choice((0, 1, 2**32 - 1)),
        field.CPPTYPE_UINT64: chance.choice((0, 1, 2**64 - 1)),
    }[field.cpp_type]
    if field.type == field.TYPE_BYTES:
        value = chance.randbytes(chance.choice((0, 1, 8, 48, 1000)))
    if not field.is_repeated:
        setattr(message, field.name, value)
        return
    values = getattr(message, field.name)
    if values and chance.random() < 0.5:
        values[chance.randrange(len(values))] = value
    elif values and chance.random() < 0.5:
        del values[chance.randrange(len(values)) :]
    else:
        values.append(value)


def send_rpc_mutations(place: str, path: str, message: Any, count: int) -> Counter[str]:
    """How many were answered with which code."""
    import grpc

    found: Counter[str] = Counter()
    with grpc.insecure_channel(place) as channel:
        method = channel.unary_unary(path)
        for content, _ in zip(rpc_mutations(message, seed=count), range(count), strict=False):
            found[method.future(content, timeout=120).code().name] += 1
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
