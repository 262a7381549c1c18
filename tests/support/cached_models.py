"""Made-up models for the model cache: what is opened, when, and how large it is."""

from __future__ import annotations

import threading
from pathlib import Path

from tests.support import bundles

cache_module, residents = bundles.runtime_module("serving.cache"), bundles.runtime_module("serving.residents")
catalogue = bundles.runtime_module("serving.catalogue")
loader = bundles.runtime_module("loader")
SECONDS = 60


class Thing:
    """What the cache holds, and what became of it."""

    def __init__(self, name: str, version: str, size: int, device_bytes: int = 0) -> None:
        self.name, self.version, self.bytes, self.closed = name, version, size, 0
        self.device_bytes = device_bytes

    def close(self) -> None:
        self.closed += 1


class Store:
    """Opens things, and remembers which."""

    def __init__(self, sizes: dict[str, int] | None = None) -> None:
        self.opened: list[Thing] = []
        self.sizes = sizes or {}
        self.failing: set[str] = set()  # names, or names and versions
        self.tried = 0
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, known: catalogue.Known) -> Thing:
        assert self.gate.wait(SECONDS)
        self.tried += 1
        if {known.name, f"{known.name}:{known.version}"} & self.failing:
            raise loader.GoldenError("wrong answers")
        size = self.sizes.get(known.name, 10)
        self.opened.append(Thing(known.name, known.version, size, known.device_bytes))
        return self.opened[-1]


def known(name: str, version: str = "1", size: int = 1) -> catalogue.Known:
    return catalogue.Known(name, version, Path("/nowhere"), size)
