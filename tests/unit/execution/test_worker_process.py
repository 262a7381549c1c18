"""Replies of workers: results, errors in the worker's words, and lines that are neither."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ortc.common.disk import DiskFullError
from ortc.common.errors import StageError
from ortc.execution.worker_process import WorkerError, ended, result_of
from ortc.execution.worker_protocol import INTERNAL, CodedError, Json, reply


def test_a_result_and_an_empty_one() -> None:
    assert result_of("a worker", "run", b'{"ok": true, "result": {"a": 1}}') == {"a": 1}
    assert result_of("a worker", "run", b'{"ok": true, "result": null}') == {}
    assert result_of("a worker", "run", b'{"ok": true}') == {}


@pytest.mark.parametrize(
    "line",
    [
        *(b"", b"Segmentation fault", b"\xff\xfe", b"null", b"[]", b"{}", b"3", b'{"ok": false}', b"[" * 100_000),
        *(b'{"ok": false, "error": "bad"}', b'{"ok": false, "error": {"code": "a"}}', b'{"ok": true, "result": 3}'),
        *(b'{"ok": false, "error": null}', b'{"ok": true, "result": ["a"]}', b'{"result": {"a": 1}}'),
    ],
)
def test_what_is_no_reply_is_an_error_of_the_worker(line: bytes) -> None:
    with pytest.raises(WorkerError, match="a worker answered `run` with something else than a reply") as caught:
        result_of("a worker", "run", line)
    assert caught.value.code == INTERNAL
    assert len(caught.value.details[0]) <= 201


def operation(error: Exception) -> Any:
    def run(_: Json) -> Json:
        raise error

    return {"run": run}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CodedError("refused", "no"), "refused"),
        (StageError("no", help="do", details=("a", "b")), "StageError"),
        (DiskFullError("no", help="do"), "DiskFullError"),
        (ValueError("no"), INTERNAL),
    ],
)
def test_errors_arrive_as_they_were_raised(error: Exception, code: str) -> None:
    line = json.dumps(reply(operation(error), '{"op": "run"}')).encode()
    with pytest.raises(WorkerError) as caught:
        result_of("a worker", "run", line)
    assert (caught.value.code, caught.value.message.removeprefix("ValueError: ")) == (code, "no")
    if isinstance(error, StageError):
        assert (caught.value.help, caught.value.details) == (error.help, error.details)
    if code == INTERNAL:
        assert caught.value.details[-1] == "ValueError: no"


def test_a_worker_that_died_says_its_last_lines() -> None:
    log = "\n".join(map(str, range(40))).encode() + b"\xff"
    found = ended("a worker", "run", -9, log)
    assert found.message == "a worker ended during `run` (exit code -9)"
    assert found.help == "it ran out of memory, or was killed"
    assert found.details == (*map(str, range(28, 39)), "39�")
