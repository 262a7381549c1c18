"""Have a command of the compiler run in a process that was forked from one which has imported everything.

Importing PyTorch takes seconds, and builds of tests start hundreds of processes. Where `PLACE` names a directory, an
interpreter that starts for a command of `COMMANDS` asks the server of its environment there (warm_server.py) for such a
process, lends it its descriptors, passes signals on, and ends as that process does. A command in any other environment
than that of most builds runs as ever.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

PLACE = "PYTEST_WARM_SERVERS"
"""Variable with the directory of the servers' sockets."""
COMMANDS = ("ortc", "ortc.frontend", "ortc.passes", "ortc.frontend.samples.image_worker")
"""Modules that are run as programs."""
FREE = frozenset({"ORTC_CACHE_DIR", "ORTC_CACHE_URL", "ORTC_TRUST_ENTRYPOINT", "PWD", "OLDPWD", "SHLVL", "_"})
FREE_PREFIXES = ("PYTEST_", "ORTC_OF_")
"""Variables that nothing reads when it is imported; those of ORTC_OF_ are for entry points that tests write."""
STATE = ("Uid", "Gid", "Umask", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp", "Cpus_allowed", "SigIgn")
"""Fields of /proc/self/status that a process hands to those that it starts."""
START_SECONDS = 120.0
"""For a server to import everything; without it the command runs in a process of its own."""
SERVER = Path(__file__).with_name("warm_server.py")
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


class Command(NamedTuple):
    """`python FLAGS -m MODULE ARGUMENTS`."""

    flags: tuple[str, ...]
    module: str
    arguments: tuple[str, ...]


def command_of(words: Sequence[str]) -> Command | None:
    """The command of an interpreter's command line; None of another one."""
    flags = tuple(words[1:2]) if words[1:2] == ["-P"] else ()
    rest = words[1 + len(flags) :]
    if len(rest) < 2 or rest[0] != "-m" or rest[1] not in COMMANDS:
        return None
    return Command(flags, rest[1], tuple(rest[2:]))


def environment_key(variables: Mapping[str, str], *, is_compiler: bool) -> str:
    """What two commands have in common whose processes may be forked from one; not the values of `FREE`.

    Limits, capabilities and the like of this process are a part of it: a test may have given a command others.
    """
    shared = {
        name: value for name, value in variables.items() if name not in FREE and not name.startswith(FREE_PREFIXES)
    }
    identity = json.dumps([sys.executable, is_compiler, sorted(shared.items()), _state()])
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def _state() -> list[object]:
    """What this process hands to those that it starts, besides variables and files."""
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text("utf-8").splitlines())
    limits = {getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")}
    return [[resource.getrlimit(limit) for limit in sorted(limits)], [status[name] for name in STATE], os.nice(0)]


def prepare(place: Path, owner: int, compiler: Mapping[str, str], helper: Mapping[str, str]) -> None:
    """Fill the directory of servers that end with the process `owner`.

    Args:
        place: the directory.
        owner: number of a process.
        compiler: the environment of commands, and `helper` that of processes that they start.
    """
    (place / "owner").write_text(str(owner), "ascii")
    (place / f"{environment_key(compiler, is_compiler=True)}.wanted").touch()
    (place / f"{environment_key(helper, is_compiler=False)}.wanted").touch()


def hand_over() -> None:
    """Run this interpreter's command in a forked process, and end; return where it has to run here."""
    place = os.environ.get(PLACE)
    command = command_of(sys.orig_argv)
    if not place or command is None:
        return
    is_compiler = command.module == "ortc"
    key = environment_key(os.environ, is_compiler=is_compiler)
    # A command of the compiler drops the working directory from the path of imports; its helpers never have it.
    if not (Path(place) / f"{key}.wanted").exists() or sys.flags.safe_path is is_compiler:
        return
    connection = _connected(Path(place), key, command)
    if connection is not None:
        _lend(connection, command)


def _connected(place: Path, key: str, command: Command) -> socket.socket | None:
    """A connection to the server of a key, which the first one who asks starts."""
    address = place / f"{key}.sock"
    if _is_first(place / f"{key}.started"):
        _start(place, key, command)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and not (place / f"{key}.ended").exists():
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(address))
        except FileNotFoundError:
            connection.close()
            time.sleep(0.02)
            continue
        except OSError:
            connection.close()
            return None
        return connection
    return None


def _is_first(mark: Path) -> bool:
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    return True


def _start(place: Path, key: str, command: Command) -> None:
    import subprocess

    with (place / f"{key}.log").open("wb") as log:
        subprocess.Popen(
            [sys.executable, *command.flags, str(SERVER), str(place), key, command.module],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _lend(connection: socket.socket, command: Command) -> None:
    """Give the descriptors and all that a process inherits; end as the process does.

    Returns where the server has ended before it had started one.
    """
    ignored = [number for number in _catchable() if signal.getsignal(number) == signal.SIG_IGN]
    mask = os.umask(0)
    os.umask(mask)
    told: dict[str, Any] = {
        "module": command.module,
        "arguments": command.arguments,
        "words": sys.orig_argv,
        "environment": dict(os.environ),
        "directory": os.getcwd(),  # noqa: PTH109
        "umask": mask,
        "ignored": ignored,
    }
    content = json.dumps(told).encode()
    # What comes from now on is for the other process.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)
    try:
        socket.send_fds(connection, [len(content).to_bytes(4, "big")], [0, 1, 2])
        connection.sendall(content)
        is_taken = connection.recv(1) == b"+"
    except OSError:
        is_taken = False
    if not is_taken:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    for number in _PASSED_ON:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda number, _frame: _pass_on(connection, number))
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    for descriptor in (0, 1, 2):
        os.close(descriptor)
    _end_as(connection)


def _pass_on(connection: socket.socket, number: int) -> None:
    with contextlib.suppress(OSError):
        connection.send(bytes([number]))


def _end_as(connection: socket.socket) -> NoReturn:
    status = connection.recv(4)
    if len(status) < 4:
        # The server was killed, and its processes with it.
        os._exit(255)
    code = os.waitstatus_to_exitcode(int.from_bytes(status, "big"))
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def _catchable() -> list[int]:
    return sorted(set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP})


def default_signals(ignored: Sequence[int]) -> None:
    """What a new process does at signals: Python's own handlers, and none for what is ignored."""
    handlers: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGPIPE: signal.SIG_IGN}
    for number in _catchable():
        wanted: Any = signal.SIG_IGN if number in ignored else handlers.get(number, signal.SIG_DFL)
        current: Any = signal.getsignal(number)
        if current is not None and current != wanted:
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, wanted)
