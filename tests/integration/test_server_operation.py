"""The server under fault: signals, logs that nobody reads, bundles that come, go and are broken, and who may load."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.support import bundles
from tests.support.serving import SECONDS, Running, body, serve, start

pytestmark = pytest.mark.integration
INFER = "/v2/models/text/infer"
TOKEN = "f0e1d2c3b4a5968778695a4b3c2d1e0f"  # noqa: S105
messages = bundles.runtime_module("serving.messages")
KINDS = messages.make("inference", messages.INFERENCE)


def version(root: Path, number: str) -> Path:
    recipe = bundles.text()
    recipe.manifest["version"] = number
    return recipe.write(root / "text" / number / "cpu")


def corrupt(root: Path, number: str) -> Path:
    """A bundle whose manifest was changed after its digests were made."""
    place = version(root, number)
    bundles.edit_json(place / "manifest.json", runtime={"package": "onnxruntime"})
    return place


def ask(running: Running, path: str = INFER) -> tuple[int, Any]:
    return running.request("POST", path, body([[1, 2]]))


# --- starting and ending -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def held(bundle: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A server that cannot finish loading: a golden file is a pipe that nobody writes to."""
    gate = bundle.parent / "gate"
    os.mkfifo(gate)
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import loader; load, gate = loader.Model.load, sys.argv[2]\n"
        "loader.Model.load = lambda *a, **k: (open(gate).read(), load(*a, **k))[1]\n"
        "sys.argv[:] = sys.argv[:1] + sys.argv[3:]; import server; sys.exit(server.main())"
    )
    command = [sys.executable, "-c", program, str(bundle / "runtime"), str(gate), "--bundle", str(bundle)]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(
        [*command, "--port", "0", *arguments], stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            yield process, gate
        finally:
            process.kill()


def listening(process: subprocess.Popen[str]) -> Running:
    assert process.stderr is not None
    event = json.loads(process.stderr.readline())
    assert event["event"] == "listening"
    return Running(process, int(event["url"].rpartition(":")[2]), [event])


def test_while_it_loads_it_listens_and_is_not_ready(tmp_path: Path) -> None:
    bundle = bundles.text().write(tmp_path / "bundle")
    with held(bundle, "--grpc-port", "0") as (process, gate):
        running = listening(process)
        assert running.request("GET", "/v2/health/live") == (200, {"live": True})
        assert running.request("GET", "/v2/health/ready") == (503, {"ready": False})
        assert running.request("GET", "/v2/models/text/ready")[0] == 503
        assert running.request("GET", "/v2/models/text")[0] == 503
        status, headers, _ = running.exchange("POST", INFER, body([[1]]))
        assert (status, headers["retry-after"]) == (503, "1")
        with grpc.insecure_channel(running.grpc) as channel:
            ready = channel.unary_unary(f"/{messages.SERVICE}/ServerReady")(b"", timeout=SECONDS)
            assert not KINDS["ServerReadyResponse"].FromString(ready).ready
        gate.write_text("")
        while running.request("GET", "/v2/health/ready")[0] != 200:
            time.sleep(0.01)
        assert ask(running)[0] == 200
        running.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_while_it_loads_ends_it(tmp_path: Path, number: int) -> None:
    with held(bundles.text().write(tmp_path / "bundle")) as (process, _):
        running = listening(process)
        events = running.stop(number)
    assert [event["event"] for event in events] == ["draining", "ended"]


@pytest.mark.skipif(
    subprocess.run(["unshare", "-Urpf", "true"], capture_output=True, check=False).returncode != 0,  # noqa: S607
    reason="the system makes no namespaces for processes",
)
@pytest.mark.parametrize("number", ["TERM", "HUP"])
def test_the_first_process_of_a_container_hears_signals_from_its_start(tmp_path: Path, number: str) -> None:
    """Signals reach the first process of a namespace only where it has a handler."""
    bundle = bundles.text().write(tmp_path / "bundle")
    command = ["unshare", "-Urpf", "--mount-proc", sys.executable, str(bundle / "runtime/server.py"), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            while not (found := children.read_text().split()):
                time.sleep(0.01)
            inner = int(found[0])
            ignored = True
            while ignored:  # until Python has run its first lines
                status = Path(f"/proc/{inner}/status").read_text("utf-8")
                caught = int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")), 16)
                ignored = not caught >> (signal.Signals[f"SIG{number}"] - 1) & 1
            os.kill(inner, signal.Signals[f"SIG{number}"])
            assert process.wait(SECONDS) == 0
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(inner, signal.SIGKILL)
            process.kill()


def test_sighup_drains(tmp_path: Path) -> None:
    with serve(bundles.text().write(tmp_path / "bundle")) as running:
        assert ask(running)[0] == 200
        events = running.stop(signal.SIGHUP)
    assert [event["event"] for event in events] == ["draining", "ended"]


def test_a_log_that_nobody_reads_stops_no_request(tmp_path: Path) -> None:
    bundle = bundles.text().write(tmp_path / "bundle")
    with start(bundle, "--log-requests") as process:
        try:
            assert process.stderr is not None
            url = ""
            while not url:
                event = json.loads(process.stderr.readline())
                url = event["url"] if event["event"] == "serving" else ""
            running = Running.__new__(Running)  # without the thread that reads its log
            running.process, running.port, running.events = process, int(url.rpartition(":")[2]), []
            content = body([[1]])
            head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nX-Request-Id: {'x' * 128}\r\n"
            pipeline = (f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content) * 200
            while running.metric("ortc_log_lines_dropped_total") < 10:
                with socket.create_connection(("127.0.0.1", running.port), timeout=SECONDS) as connection:
                    connection.sendall(pipeline)
                    found = b""
                    while found.count(b"HTTP/1.1 200") < 200:
                        found += connection.recv(2**20)
            assert ask(running)[0] == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(SECONDS) == 0
        finally:
            process.kill()


# --- bundles that come and go --------------------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    version(tmp_path / "repository", "1.0.0")
    return tmp_path / "repository"


def serving(repository: Path, *arguments: str) -> contextlib.AbstractContextManager[Running]:
    return serve(repository / "text/1.0.0/cpu", "--repository", str(repository), *arguments)


def test_a_corrupt_newer_version_stops_no_working_model(repository: Path) -> None:
    with serving(repository) as running:
        corrupt(repository, "2.0.0")
        states = running.request("POST", "/v2/repository/index", b"{}", Host="localhost")[1]
        assert {(state["version"], state["state"]) for state in states} == {
            ("1.0.0", "READY"),
            ("2.0.0", "UNAVAILABLE"),
        }
        assert ask(running)[1]["model_version"] == "1.0.0"
        assert running.request("POST", "/v2/repository/models/text/load", b"{}")[0] == 400
        assert ask(running)[1]["model_version"] == "1.0.0"
        running.stop()


def test_a_load_that_failed_is_not_repeated_by_every_request(repository: Path) -> None:
    corrupt(repository, "2.0.0")
    with serving(repository) as running:
        for _ in range(50):
            status, headers, _ = running.exchange("POST", "/v2/models/text/versions/2.0.0/infer", body([[1]]))
            assert status == 503
            assert int(headers["retry-after"]) >= 1
        loads = running.metric("ortc_model_loads_total", outcome="failure")
        assert loads < 10
        assert running.metric("ortc_request_errors_total", version="2.0.0", kind="load-failed") == 50
        running.stop()


def test_a_repository_that_is_deleted_stops_no_loaded_model(repository: Path) -> None:
    with serving(repository) as running:
        assert ask(running)[0] == 200
        shutil.rmtree(repository)
        assert running.request("POST", "/v2/repository/index", b"{}")[0] == 200
        assert ask(running)[0] == 200
        running.stop()


def test_old_versions_leave_and_one_version_can_be_unloaded(repository: Path) -> None:
    with serving(repository) as running:
        assert ask(running)[1]["model_version"] == "1.0.0"
        version(repository, "2.0.0")
        assert running.request("POST", "/v2/repository/models/text/load", b"{}")[0] == 200

        def ready() -> set[str]:
            states = running.request("POST", "/v2/repository/index", b'{"ready": true}')[1]
            return {state["version"] for state in states}

        assert ready() == {"2.0.0"}
        assert ask(running, "/v2/models/text/versions/1.0.0/infer")[0] == 200
        assert ready() == {"1.0.0", "2.0.0"}
        assert running.request("POST", "/v2/repository/models/text/versions/2.0.0/unload", b"{}")[0] == 200
        assert (ready(), ask(running)[1]["model_version"]) == ({"1.0.0"}, "1.0.0")
        content = json.dumps({"parameters": {"version": "1.0.0"}}).encode()
        assert running.request("POST", "/v2/repository/models/text/unload", content)[0] == 200
        assert ask(running)[0] == 404
        for wrong in (b'{"parameters": 1}', b'{"parameters": {"version": 1}}'):
            assert running.request("POST", "/v2/repository/models/text/unload", wrong)[0] == 400
        assert running.request("POST", "/v2/repository/models/text/versions/9/unload", b"{}")[0] == 404
        running.stop()


def leave(running: Running, times: int) -> None:
    """Ask, and go before the answer."""
    content = body([[1, 2]])
    for _ in range(times):
        with socket.create_connection(("127.0.0.1", running.port), timeout=SECONDS) as leaving:
            leaving.sendall(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n".encode())
            leaving.sendall(content)


def test_under_steady_load_faults_and_the_end_cost_no_answer(repository: Path) -> None:
    """A hundred requests a second, and no answer is lost.

    Meanwhile come two hot loads, a corrupt version, a deleted repository, a thousand aborts, and SIGTERM with a delay.
    """
    wrong, count, ended = list[str](), [0] * 4, list[float]()
    delay, each = 1.0, 0.04

    def client(running: Running, number: int) -> None:
        due = time.monotonic()
        while True:
            due = max(due + each, time.monotonic() - 1)
            time.sleep(max(0.0, due - time.monotonic()))
            began = time.monotonic()
            try:
                status, _ = ask(running)
            except OSError as error:
                # Whoever asks once the delay is over finds nobody.
                if not ended or began < ended[0] + delay:
                    wrong.append(str(error))
                return
            count[number] += 1
            if status != 200 and (not ended or began < ended[0] + delay):
                wrong.append(str(status))

    with serving(repository, "--shutdown-delay-seconds", str(delay)) as running:
        clients = [threading.Thread(target=client, args=(running, number)) for number in range(4)]
        for one in clients:
            one.start()

        def go_on() -> None:
            """Every client is answered five times more."""
            before = list(count)
            while any(now < then + 5 for now, then in zip(count, before, strict=True)):
                assert all(one.is_alive() for one in clients), wrong
                time.sleep(0.01)

        def change(path: str, status: int) -> None:
            assert running.request("POST", path, b"{}")[0] == status
            go_on()

        version(repository, "1.1.0")
        change("/v2/repository/models/text/load", 200)
        corrupt(repository, "3.0.0")
        change("/v2/repository/index", 200)
        change("/v2/repository/models/text/load", 400)
        shutil.rmtree(repository / "text/3.0.0")
        version(repository, "1.2.0")
        change("/v2/repository/models/text/load", 200)
        shutil.rmtree(repository)
        change("/v2/repository/index", 200)
        leave(running, 1000)
        go_on()
        ended.append(time.monotonic())
        running.stop()
        for one in clients:
            one.join(SECONDS)
        assert wrong == []


# --- who may load --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "place", ["index", "models/text/load", "models/text/unload", "models/text/versions/1.0.0/unload"]
)
def test_only_administrators_change_models(repository: Path, tmp_path: Path, place: str) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    path = f"/v2/repository/{place}"
    with serving(repository, "--admin-token-file", str(file)) as running:
        status, headers, _ = running.exchange("POST", path, b"{}")
        assert (status, headers["www-authenticate"]) == (401, "Bearer")
        right = {"Authorization": f"Bearer {TOKEN}"}
        assert running.request("POST", path, b"{}", **{**right, "Origin": "http://evil.example"})[0] == 403
        assert running.request("POST", path, b"{}", Authorization=f"Bearer {TOKEN[:-1]}")[0] == 401
        assert ask(running)[0] == 200
        assert running.request("POST", path, b"{}", **right)[0] == 200
        running.stop()


def test_without_a_token_pages_and_remote_servers_change_nothing(repository: Path) -> None:
    path = "/v2/repository/models/text/unload"
    with serving(repository) as running:
        for headers in (
            {"Host": "evil.example"},
            {"Origin": "http://evil.example"},
            {"Sec-Fetch-Site": "cross-site"},
            {"X-Forwarded-For": "10.0.0.1"},
        ):
            assert running.request("POST", path, b"{}", **headers)[0] == 403
        assert ask(running)[0] == 200
        assert running.request("POST", path, b"{}")[0] == 200
        running.stop()
    with serving(repository, "--host", "0.0.0.0") as running:  # noqa: S104
        assert running.request("POST", path, b"{}")[0] == 403
        assert ask(running)[0] == 200
        running.stop()


def test_only_administrators_change_models_over_grpc(repository: Path) -> None:
    request = KINDS["RepositoryModelUnloadRequest"](model_name="text")
    request.parameters["version"].string_param = "1.0.0"
    with serve(
        repository / "text/1.0.0/cpu", "--repository", str(repository), "--grpc-port", "0", ORTC_ADMIN_TOKEN=TOKEN
    ) as running:
        with grpc.insecure_channel(running.grpc) as channel:

            def unload(*metadata: tuple[str, str]) -> str:
                method = channel.unary_unary(f"/{messages.SERVICE}/RepositoryModelUnload")
                future = method.future(request.SerializeToString(), metadata=metadata, timeout=SECONDS)
                return str(future.code().name)

            right = ("authorization", f"Bearer {TOKEN}")
            assert unload() == "UNAUTHENTICATED"
            assert unload(("authorization", "Bearer no")) == "UNAUTHENTICATED"
            assert unload(right, ("origin", "http://evil.example")) == "PERMISSION_DENIED"
            assert ask(running)[0] == 200
            assert unload(right) == "OK"
        assert ask(running)[0] == 404
        running.stop()
