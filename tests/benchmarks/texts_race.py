"""Servers of embeddings: texts per second of 16 clients, ours and the peers', in fp32 and in INT8.

Each client sends one text, waits for its vector, and sends the next one, over a connection that stays open. Texts have
mixed lengths (`texts_set.py`). The clients are one thread beside the servers, on the same cores. Servers take turns
and are stopped in between, so that none takes time of another. Before that, each setting of a server is tried, and the
one with most texts per second takes part. Answers are compared with those of sentence-transformers on torch: on the
held-out sentences before the race, and some of each turn.
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import records
from catalogue import model as model_of
from loadgen import BrokenError, Result, load
from numpy.typing import NDArray
from race import scheduling
from runners import say
from texts_catalogue import SERVERS, TextServer
from texts_servers import MODEL, Running, bundles, facts_of, home_of_texts, reference, running
from texts_set import BLOCK, Texts, halves, mixed
from workshop import Bundle, model_directory

from ortc.execution.host import Host

CLIENTS = 16
REST_SECONDS = 0.5
WARM_SECONDS = 1.5
TURN_SECONDS = 7.0
TRY_SECONDS = 4.0
LOOKED_AT = 32
"""One of so many answers of a turn is compared; comparing takes time of the clients' thread."""
WRONG = 0.9
"""Cosine below which an answer is another one: INT8 is further off in texts that nobody calibrated on."""

Json = dict[str, Any]


class Race:
    """The texts, the vectors that they should have, and the servers that take part."""

    def __init__(self, host: Host, threads: int, names: tuple[str, ...]) -> None:
        """Make what is needed; a server that cannot be made is absent."""
        self.threads = threads
        self.path = records.place(host.fingerprint(), "texts", MODEL)
        self.texts: Texts = mixed(model_directory(model_of(MODEL)) / "tokenizer.json")
        self.judged = halves()[0]
        vectors = reference([*self.judged, *self.texts.texts])
        self.expected, self.mixed = vectors[: len(self.judged)], vectors[len(self.judged) :]
        wanted = [entry for entry in SERVERS if entry.name in names]
        targets = [entry.artifact for entry in wanted if entry.is_ours]
        self.bundles = bundles(targets) if targets else {}
        self.document: Json = records.read(self.path) or {"contenders": {}, "absent": {}, "rounds": []}
        self.document |= {
            "kind": "texts",
            "host": host.model_dump(mode="json"),
            "threads": threads,
            "clients": CLIENTS,
            "scheduling": [scheduling()],
            "seconds": TURN_SECONDS,
            "tokens": {
                name: float(np.percentile(self.texts.tokens, share))
                for name, share in (("least", 0), ("quarter", 25), ("median", 50), ("most of three", 75), ("most", 100))
            },
        }
        self.document["tokens"]["mean"] = round(float(np.mean(self.texts.tokens)), 1)
        self.servers = [entry for entry in wanted if self._take_in(entry)]

    def bundle(self, entry: TextServer) -> Bundle | None:
        """Ours alone have one."""
        return self.bundles[entry.artifact] if entry.is_ours else None

    def _take_in(self, entry: TextServer) -> bool:
        """Note what a server is; what the record has of another one of its name goes."""
        known = self.document["contenders"]
        self.document["absent"].pop(entry.name, None)
        try:
            facts = facts_of(entry, self.bundle(entry)) | {"precision": entry.precision}
            facts["setting"], facts["tried"] = self._setting(entry, facts["identity"])
        except (RuntimeError, BrokenError) as error:
            self._leave_out(entry, str(error))
            return False
        kept = known.get(entry.name, {})
        if any(kept.get(key) != facts[key] for key in ("identity", "setting")):
            self._forget(entry)
        known[entry.name] = kept | facts
        return True

    def _leave_out(self, entry: TextServer, reason: str) -> None:
        say(f"  {entry.name} does not take part: {reason}")
        lines = [line.strip() for line in reason.splitlines() if line.strip()]
        self.document["absent"][entry.name] = lines[-1][:300] if lines else "no reason"
        self._forget(entry)

    def _forget(self, entry: TextServer) -> None:
        self.document["contenders"].pop(entry.name, None)
        for turn in self.document["rounds"]:
            turn.pop(entry.name, None)
        self.document["rounds"] = [turn for turn in self.document["rounds"] if turn]

    def _setting(self, entry: TextServer, identity: str) -> tuple[str, dict[str, float]]:
        """The setting with most texts per second, and what all of them came to; kept until the server is another."""
        place = home_of_texts() / "tried.json"
        every: dict[str, dict[str, float]] = json.loads(place.read_text("utf-8")) if place.is_file() else {}
        found = every.setdefault(f"{entry.name} {identity}", {})
        for setting in entry.settings:
            if setting not in found:
                with running(entry, setting, self.threads, self.bundle(entry)) as server:
                    measured, _ = self.turn(server, 0, TRY_SECONDS)
                found[setting] = round(measured["per_second"], 1)
                say(f"  {entry.name} as {setting}: {found[setting]} texts per second")
                place.write_text(json.dumps(every, indent=1) + "\n", "utf-8")
        found = {setting: found[setting] for setting in entry.settings}
        return max(found, key=lambda setting: found[setting]), found

    def turn(self, server: Running, first: int, seconds: float) -> tuple[Json, Result]:
        """One turn: warm up, then count.

        Raises:
            RuntimeError: an answer is wrong, or a request got none.
        """
        requests = [server.request(text) for text in self.texts.texts]

        def check(index: int, body: bytes) -> bool:
            return _cosine(server.vector(body), self.mixed[index]) > WRONG

        time.sleep(REST_SECONDS)
        with server.turn():
            load(server.port, _until(requests, first, WARM_SECONDS), CLIENTS, check, every=LOOKED_AT)
            before, own = server.cpu_seconds(), _own_seconds()
            result = load(server.port, _until(requests, first, seconds), CLIENTS, check, every=LOOKED_AT)
            after, own_after = server.cpu_seconds(), _own_seconds()
        if set(result.statuses) != {200} or result.wrong:
            raise RuntimeError(f"statuses {result.statuses}, {result.wrong} wrong answers")
        measured = {
            "per_second": round(result.per_second, 2),
            "p50_ms": round(float(np.percentile(result.latencies_ms, 50)), 2),
            "p99_ms": round(float(np.percentile(result.latencies_ms, 99)), 2),
            "requests": len(result.latencies_ms),
            "server_cores": round((after - before) / result.seconds, 3),
            "client_cores": round((own_after - own) / result.seconds, 3),
        }
        return measured, result

    def answers(self, server: Running) -> Json:
        """How far the vectors of the held-out sentences are from the reference, asked for by 16 clients at once."""
        cosines: list[float] = []

        def check(index: int, body: bytes) -> bool:
            cosines.append(_cosine(server.vector(body), self.expected[index]))
            return True

        with server.turn():
            result = load(server.port, iter(list(enumerate(map(server.request, self.judged)))), CLIENTS, check)
        if set(result.statuses) != {200} or len(cosines) != len(self.judged):
            raise RuntimeError(f"statuses {result.statuses}, {len(cosines)} answers")
        return {"cosine_mean": round(float(np.mean(cosines)), 5), "cosine_min": round(min(cosines), 5)}

    def rounds_left(self, rounds: int) -> int:
        """How many rounds of all servers the record lacks."""
        names = {entry.name for entry in self.servers} & self.document["contenders"].keys()
        whole = [turn for turn in self.document["rounds"] if names <= turn.keys()]
        return rounds - len(whole)

    def run(self, rounds: int) -> None:
        """Add rounds until the record has as many; it is written after each."""
        left = self.rounds_left(rounds)
        if left <= 0:
            records.write(self.path, self.document)
            return
        with ExitStack() as stack:
            ready: list[Running] = []
            for entry in self.servers:
                setting = self.document["contenders"][entry.name]["setting"]
                try:
                    server = stack.enter_context(running(entry, setting, self.threads, self.bundle(entry)))
                    self.document["contenders"][entry.name] |= self.answers(server)
                except (RuntimeError, BrokenError) as error:
                    self._leave_out(entry, str(error))
                    continue
                ready.append(server)
            for number in range(left):
                # Nobody always follows the same one, and each round has other texts first.
                order = ready[number % len(ready) :] + ready[: number % len(ready)]
                first = number * BLOCK % len(self.texts.texts)
                found = {}
                for server in order:
                    try:
                        found[server.entry.name] = self.turn(server, first, TURN_SECONDS)[0]
                    except (RuntimeError, BrokenError) as error:
                        self._leave_out(server.entry, str(error))
                        ready.remove(server)
                self.document["rounds"].append(found)
                records.write(self.path, self.document)
                rates = ", ".join(f"{name} {turn['per_second']:.0f}" for name, turn in found.items())
                say(f"  round {number + 1} of {left}, texts per second: {rates}")


def main(host: Host, threads: int, rounds: int, prefixes: tuple[str, ...]) -> None:
    """Make what lacks, try settings that were not tried, and race the servers whose names begin so."""
    began = time.monotonic()
    race = _race(host, threads, prefixes)
    say(f"texts: ready after {time.monotonic() - began:.0f} s")
    race.run(rounds)
    say(f"texts: {time.monotonic() - began:.0f} s")


def prepare(host: Host, threads: int, rounds: int, prefixes: tuple[str, ...]) -> None:
    """Everything but the rounds."""
    race = _race(host, threads, prefixes)
    names = ", ".join(entry.name for entry in race.servers)
    say(f"texts: {names}; {max(0, race.rounds_left(rounds))} rounds to go; absent: {race.document['absent']}")


def _race(host: Host, threads: int, prefixes: tuple[str, ...]) -> Race:
    return Race(host, threads, tuple(entry.name for entry in SERVERS if entry.name.startswith(prefixes)))


def _until(requests: list[bytes], first: int, seconds: float) -> Iterator[tuple[int, bytes]]:
    """Requests with the numbers of their texts, one after the other, until the time is over."""
    end = time.perf_counter() + seconds
    number = first
    while time.perf_counter() < end:
        yield number % len(requests), requests[number % len(requests)]
        number += 1


def _cosine(one: NDArray[Any], other: NDArray[Any]) -> float:
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))


def _own_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
