"""Workers that answer, stall, babble and die."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from ortc.execution.worker import Worker
from ortc.execution.worker_process import WorkerError, answer_of

COMPILER = str(Path(__file__).parents[2] / "compiler")
ECHO = """
import json, sys
for line in sys.stdin:
    print(json.dumps({"ok": True, "result": {"bytes": len(line), "op": json.loads(line)["op"]}}), flush=True)
"""


def run(program: str) -> Worker:
    return Worker("a model", [sys.executable, "-c", program], seconds=1.0)


def test_one_reply_a_request() -> None:
    with run(ECHO) as model:
        # More than a pipe holds.
        assert model.call("load", text="x" * 300_000)["bytes"] > 300_000
        assert [model.call(name)["op"] for name in ("run", "info")] == ["run", "info"]


def test_replies_that_come_together_are_told_apart() -> None:
    both = (
        """print('{"ok": true, "result": {"n": 1}}\\n{"ok": true, "result": {"n": 2}}', flush=True); input(); input()"""
    )
    with run(both) as model:
        assert [model.call("a")["n"], model.call("b")["n"]] == [1, 2]


def test_the_workers_own_error() -> None:
    reply = """print('{"ok": false, "error": {"code": "golden", "message": "wrong", "details": ["a"]}}'); input()"""
    with run(reply) as model, pytest.raises(WorkerError, match="wrong") as caught:
        model.call("load")
    assert (caught.value.code, caught.value.help, caught.value.details) == ("golden", None, ("a",))


@pytest.mark.parametrize(
    "program",
    [
        "import time; time.sleep(60)",
        # Half a line, then nothing.
        "import time; print('{', end='', flush=True); time.sleep(60)",
        # A line that never ends.
        "import time\nwhile True: print(' ', end='', flush=True); time.sleep(0.05)",
    ],
)
def test_no_answer_in_time(program: str) -> None:
    begin = time.monotonic()
    with run(program) as model, pytest.raises(WorkerError, match="gave no answer to `run` in 1 s") as caught:
        model.call("run")
    assert caught.value.code == "timeout"
    assert time.monotonic() - begin < 10


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("import sys; sys.exit('out of luck')", r"ended during `run` \(exit code 1\)"),
        ("import os; os.kill(os.getpid(), 9)", r"ended during `run` \(exit code -9\)"),
        # It stops reading before it ends.
        ("import os, time; os.close(0); time.sleep(0.2); os._exit(3)", r"\(exit code 3\)"),
    ],
)
def test_a_worker_that_dies(program: str, message: str) -> None:
    with run(program) as model, pytest.raises(WorkerError, match=message) as caught:
        model.call("run", text="x" * 300_000)
    assert caught.value.code == "died"


def test_the_last_words_of_a_worker() -> None:
    with run("import sys; sys.exit('out of luck')") as model, pytest.raises(WorkerError) as caught:
        model.call("run")
    assert caught.value.details == ("out of luck",)


def test_something_else_than_a_reply() -> None:
    with run("print('Segmentation fault' * 100, flush=True); input()") as model, pytest.raises(WorkerError) as caught:
        model.call("run")
    assert caught.value.code == "internal"
    assert len(caught.value.details[0]) <= 201


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("""print('{"ok": false, "error": {"code": "golden", "message": "wrong"}}'); exit(5)""", "golden"),
        ("import sys; sys.exit('out of luck')", "died"),
        # It says that all is well, and does not end well.
        ("""print('{"ok": true, "result": {}}'); exit(1)""", "died"),
        ("print('Segmentation fault')", "internal"),
        ("import time; time.sleep(60)", "timeout"),
    ],
)
def test_a_program_that_answers_once_and_does_not(program: str, code: str) -> None:
    with pytest.raises(WorkerError) as caught:
        answer_of("a program", [sys.executable, "-c", program], seconds=2.0 if code == "timeout" else 60.0)
    assert caught.value.code == code
    if program.startswith("import sys"):
        assert caught.value.details == ("out of luck",)


def test_a_program_that_answers_once() -> None:
    program = """import os; print('{"ok": true, "result": {"a": "%s"}}' % os.environ["A"])"""
    assert answer_of("a program", [sys.executable, "-c", program], environment={"A": "b"}) == {"a": "b"}


def test_the_reference_reports_its_own_memory() -> None:
    big = bytearray(600 * 2**20)
    big[:: 2**12] = b"x" * len(big[:: 2**12])  # resident
    from ortc.frontend.__main__ import peak_rss_bytes

    assert peak_rss_bytes() > len(big)
    program = (
        'from ortc.frontend.__main__ import peak_rss_bytes as p; print(\'{"ok": true, "result": {"n": %d}}\' % p())'
    )
    with Worker("PyTorch", [sys.executable, "-c", program], environment={"PYTHONPATH": COMPILER}) as model:
        assert 0 < model.call("info")["n"] < len(big)
