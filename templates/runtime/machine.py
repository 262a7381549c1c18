"""What else this machine does while something is timed: a control workload, other processes, and a lock.

`python runtime/machine.py` answers each JSON line on stdin with one on stdout: `{"op": "control", "threads": 2}` runs a
fixed computation on as many threads and gives its times; with `"runs": 8` a shorter one of as many blocks a thread. It
belongs to no contender of a race, so that what slows it down is somebody else. Standard library alone.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BLOCK_BYTES = 1 << 20
CONTROL_RUNS = 48
"""Blocks that each thread hashes in a turn of the control: 30 to 180 ms, several of a scheduler's time slices."""
MOST_THREADS = 1024
MOST_PROCESSES = 5
LEAST_CORES = 0.05
"""Processes that used less of one core are not named."""
NAME_LENGTH = 32
LOCK_NAME, NEXT_NAME = "ortc-measure.lock", "ortc-measure-next.lock"
LOCK_PLACES = (Path("/run/lock"), Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - opened without following links
HELD = "ORTC_MEASURE_LOCK_HELD"
"""Set for a process whose parent holds the lock."""
LOOK_SECONDS = 0.2


# --- the control workload -------------------------------------------------------------------------------------------


def control(threads: int, runs: int = CONTROL_RUNS) -> dict[str, Any]:
    """Hash a fixed block on some threads at once: milliseconds of each run, seconds of all and of the processor.

    A thread has no other work than one hash after the other, so that it uses a whole core when it gets one.

    Raises:
        ValueError: `threads` is not a number of threads, or `runs` is not a number of blocks.
    """
    if isinstance(runs, bool) or not isinstance(runs, int) or not 1 <= runs <= CONTROL_RUNS:
        raise ValueError(f"runs is {runs!r}. Expected a whole number from 1 to {CONTROL_RUNS}.")
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= MOST_THREADS:
        raise ValueError(f"threads is {threads!r}. Expected a whole number from 1 to {MOST_THREADS}.")
    block = bytes(BLOCK_BYTES)
    begin = threading.Barrier(threads + 1)
    times: list[list[float]] = [[] for _ in range(threads)]

    def work(mine: list[float]) -> None:
        begin.wait()
        for _ in range(runs):
            began = time.perf_counter_ns()
            hashlib.sha256(block).digest()  # the interpreter's lock is not held meanwhile
            mine.append((time.perf_counter_ns() - began) / 1e6)

    workers = [threading.Thread(target=work, args=(mine,)) for mine in times]
    for worker in workers:
        worker.start()
    begin.wait()
    began, computed = time.perf_counter_ns(), time.process_time_ns()
    for worker in workers:
        worker.join()
    computed, wall = time.process_time_ns() - computed, time.perf_counter_ns() - began
    return {
        "times_ms": [value for mine in times for value in mine],
        "wall_seconds": wall / 1e9,
        "cpu_seconds": computed / 1e9,
    }


# --- other processes ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Process:
    """One line of /proc: its parent, its name, and the ticks of processor time that it used so far."""

    parent: int
    name: str
    ticks: int


class Watch:
    """What runs beside a process and its descendants from now on, as far as it is looked at.

    A process that ends between two looks is known by what it had used at the last one.
    """

    def __init__(self, own: int | None = None, proc: Path = Path("/proc")) -> None:
        self._own = os.getpid() if own is None else own
        self._proc = proc
        self._began = self._looked = time.monotonic()
        self._stolen = _stolen(proc)
        # A process identifier may be given to another process: the name tells most of those apart.
        self._first = {(pid, entry.name): entry.ticks for pid, entry in processes(proc).items()}
        self._used: dict[tuple[int, str], int] = {}

    def look(self) -> None:
        """Look at every process, at most once a second: that takes some milliseconds."""
        if time.monotonic() - self._looked >= 1:
            self._look()

    def _look(self) -> None:
        self._looked = time.monotonic()
        found = processes(self._proc)
        for pid, entry in found.items():
            if not _descends(pid, self._own, found):
                key = (pid, entry.name)
                first = self._first.setdefault(key, 0)
                self._used[key] = max(self._used.get(key, 0), entry.ticks - first)

    def load(self) -> dict[str, Any]:
        """What ran so far.

        Returns:
            `average`: the load average of the last minute, None where the system has none. `stolen`: cores that a
            hypervisor gave to others. `processes`: the busiest by `name`, without arguments, and the `cores` of all of
            that name.
        """
        self._look()
        tick = os.sysconf("SC_CLK_TCK")
        seconds = max(self._looked - self._began, 1 / tick)
        names: dict[str, float] = {}
        for (_, name), used in self._used.items():
            names[name] = names.get(name, 0.0) + used / tick / seconds
        busiest = sorted(((round(cores, 2), name) for name, cores in names.items()), reverse=True)
        try:
            average: float | None = round(os.getloadavg()[0], 2)
        except OSError:
            average = None
        return {
            "average": average,
            "stolen": round(max(0, _stolen(self._proc) - self._stolen) / tick / seconds, 2),
            "processes": [
                {"name": name, "cores": cores} for cores, name in busiest[:MOST_PROCESSES] if cores >= LEAST_CORES
            ],
        }


def processes(proc: Path = Path("/proc")) -> dict[int, Process]:
    """Every process by its identifier. What cannot be read is left out."""
    found = {}
    with contextlib.suppress(OSError):
        for place in proc.iterdir():
            if place.name.isdigit() and (process := _process(_text(place / "stat"))) is not None:
                found[int(place.name)] = process
    return found


def _stolen(proc: Path) -> int:
    """Ticks that were stolen from this machine by others on the same hardware, since it started."""
    fields = _text(proc / "stat").partition("\n")[0].split()
    return int(fields[8]) if len(fields) > 8 and fields[8].isdigit() else 0


def clean(name: str) -> str:
    """A process' name as it may be shown: printable ASCII, bounded, never empty."""
    return re.sub(r"[^\x20-\x7e]", "?", name)[:NAME_LENGTH] or "?"


def _process(line: str) -> Process | None:
    # The name may hold spaces and brackets; nothing after it does.
    head, _, rest = line.rpartition(")")
    fields = rest.split()
    if not head or len(fields) < 13:
        return None
    try:
        return Process(int(fields[1]), clean(head.partition("(")[2]), int(fields[11]) + int(fields[12]))
    except ValueError:
        return None


def _descends(pid: int, ancestor: int, processes: Mapping[int, Process]) -> bool:
    seen = set()
    while pid not in seen:
        if pid == ancestor:
            return True
        seen.add(pid)
        if pid not in processes:
            return False
        pid = processes[pid].parent
    return False


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:  # the process ended, or this system has no such file
        return ""


# --- one at a time --------------------------------------------------------------------------------------------------


_own = threading.RLock()
_depth = 0


@contextlib.contextmanager
def exclusive(
    say: Callable[[str], None], fallback: Path, places: Sequence[Path] = LOCK_PLACES, patience: float = 3600.0
) -> Iterator[None]:
    """Hold this machine's lock for measuring, so that nothing else of ortc is timed meanwhile.

    The lock is the kernel's on an open file: it ends with the process, however that ends. The file is the same for
    every user, is opened for reading alone, and nothing is ever written to it. Within a process the lock may be taken
    again.

    Args:
        say: told in a sentence what is waited for, and that the lock is another one than everybody's.
        fallback: the directory for the lock where none of `places` will do.
        places: directories that all users of the machine share.
        patience: seconds to wait for the lock.

    Raises:
        TimeoutError: another process held it all the time.
        OSError: not even the fallback can be written to.
    """
    global _depth
    if os.environ.get(HELD):
        yield
        return
    with _own:
        if _depth:
            _depth += 1
            try:
                yield
            finally:
                _depth -= 1
            return
        with contextlib.ExitStack() as stack:
            following, held = _opened(say, fallback, places)
            stack.callback(os.close, held)
            # Who waits holds the second lock: a holder that ends and begins again at once comes after it.
            try:
                wait = _Wait(held, say, patience)
                wait.lock(following)
                wait.lock(held)
            finally:
                os.close(following)
            _depth = 1
            try:
                yield
            finally:
                _depth = 0


def _opened(say: Callable[[str], None], fallback: Path, places: Sequence[Path]) -> tuple[int, int]:
    problems = []
    for place in places:
        try:
            return _both(place)
        except OSError as error:
            problems.append(f"{place / LOCK_NAME}: {error.strerror or error}")
    fallback.mkdir(parents=True, exist_ok=True)
    descriptors = _both(fallback)
    say(
        f"measurements of other users are not waited for: the lock is {fallback / LOCK_NAME}, "
        f"because of {'; '.join(problems)}"
    )
    return descriptors


def _both(directory: Path) -> tuple[int, int]:
    held = open_lock(directory)
    try:
        return open_lock(directory, NEXT_NAME), held
    except OSError:
        os.close(held)
        raise


def open_lock(directory: Path, name: str = LOCK_NAME) -> int:
    """Open a lock's file in a directory, and make it where it is missing.

    Raises:
        OSError: the file is a link, no plain file, or may not be read.
    """
    path = directory / name
    # Never with O_CREAT alone: kernels refuse that for files of others in shared directories. O_NONBLOCK: a pipe there
    # would be waited for.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    for _ in range(8):
        try:
            descriptor = os.open(path, flags)
        except FileNotFoundError:
            try:
                descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o644)
            except FileExistsError:
                continue
            with contextlib.suppress(OSError):
                os.fchmod(descriptor, 0o644)  # whatever the umask: other users have to read it
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no plain file")
    raise OSError(errno.EBUSY, "it appears and disappears")


class _Wait:
    """Waits for locks, says once for whom, and not for ever."""

    def __init__(self, held: int, say: Callable[[str], None], patience: float) -> None:
        self._held = held
        self._say = say
        self._patience = patience
        self._deadline = time.monotonic() + patience
        self._told = False

    def lock(self, descriptor: int) -> None:
        """Take a lock.

        Raises:
            TimeoutError: it was held by others until patience ended.
        """
        import fcntl

        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                holder = _holder(self._held)
                if not self._told:
                    self._say(f"waiting for another measurement on this machine to end{holder}")
                    self._told = True
                if time.monotonic() > self._deadline:
                    raise TimeoutError(
                        f"another measurement held this machine's lock for {self._patience:.0f} s{holder}"
                    ) from None
            time.sleep(LOOK_SECONDS)


def _holder(descriptor: int, proc: Path = Path("/proc")) -> str:
    """Who holds the lock, as the kernel tells it: `, by process 12 (ortc)`."""
    status = os.fstat(descriptor)
    wanted = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for line in _text(proc / "locks").splitlines():
        fields = line.split()
        if len(fields) > 5 and fields[1] == "FLOCK" and fields[5] == wanted and fields[4].isdigit():
            process = _process(_text(proc / fields[4] / "stat"))
            return f", by process {fields[4]}" + (f" ({process.name})" if process is not None else "")
    return ""


# --- the process of the control -------------------------------------------------------------------------------------


def answer(line: str) -> dict[str, Any]:
    """The reply to one request."""
    try:
        request = json.loads(line)
        if request.get("op") != "control":
            raise ValueError("op: expected `control`")
        return {"ok": True, "result": control(request["threads"], request.get("runs", CONTROL_RUNS))}
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        return {"ok": False, "error": {"code": "usage", "message": f"{type(error).__name__}: {error}"}}


def main() -> int:
    """Answer requests until stdin ends."""
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(line)) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
