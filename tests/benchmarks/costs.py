"""What building costs: wall time, and the peak memory of all processes together; ours by stage."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import records
from catalogue import OURS, PEERS, TITLES, Model
from counting import Cost
from runners import say
from workshop import build_bundles, home, make_artifact, python_of

from ortc.execution.host import Host

_STAGE = re.compile(r"^  (?P<stage>.{13}) (?P<subject>.*)  (?P<seconds>[\d.]+) s$")


def costs(model: Model, names: tuple[str, ...], *, host: Host) -> None:
    """Make each artifact anew, with nothing cached but the installed packages, and keep what that costs.

    An artifact that several contenders run is made once. What is in the record and not made now stays there.
    """
    path = records.place(host.fingerprint(), "costs", model.name)
    document = records.read(path) or {}
    known = {entry["name"]: entry for entry in document.get("costs", [])}
    peers = {peer.artifact: peer for peer in reversed(PEERS) if peer.artifact and peer.name in names}
    with tempfile.TemporaryDirectory(dir=home()) as scratch:
        for peer in peers.values():
            python_of(peer.environment)
            place = Path(scratch) / peer.artifact
            place.mkdir()
            made = make_artifact(peer, model, place)
            title = TITLES[peer.name]
            known[peer.artifact] = _entry(peer.artifact, title, made.seconds, made.peak_rss_bytes, made.failure)
        if set(OURS) & set(names):
            shape = model.main_shape
            cost = build_bundles(model, shape, Path(scratch) / "bundles", _cold_cache(Path(scratch)), "full")
            known = {name: entry for name, entry in known.items() if not name.startswith("ortc")}
            title = f"**ortc build**, both targets, budgets at {model.label(shape)}"
            known["ortc"] = _entry("ortc", title, cost.seconds, cost.peak())
            known |= {entry["name"]: entry for entry in _stages(cost)}
    order = [peer.artifact for peer in PEERS if peer.artifact] + [name for name in known if name.startswith("ortc")]
    entries = [known[name] for name in dict.fromkeys(order) if name in known]
    document |= {"kind": "costs", "model": model.name, "host": host.model_dump(mode="json"), "costs": entries}
    records.write(path, document)
    for entry in entries:
        say(f"  {entry['title']}: {entry['seconds']:.1f} s, {(entry['peak_rss_bytes'] or 0) / 1e6:.0f} MB")


def _cold_cache(scratch: Path) -> Path:
    """A cache of ortc with its runtime environments and nothing else: packages are installed for the peers too."""
    cache, environments = scratch / "cache", home() / "ortc-cache" / "environments"
    cache.mkdir()
    environments.mkdir(parents=True, exist_ok=True)
    (cache / "environments").symlink_to(environments)
    return cache


def _stages(cost: Cost) -> Iterator[dict[str, Any]]:
    """Seconds and peak memory of each kind of stage, from what the build says as its stages end."""
    seconds: dict[str, float] = {}
    peaks: dict[str, int | None] = {}
    for at, line in cost.lines:
        if found := _STAGE.match(line):
            stage, took = found["stage"].strip(), float(found["seconds"])
            seconds[stage] = seconds.get(stage, 0.0) + took
            peaks[stage] = max(filter(None, (peaks.get(stage), cost.peak(at - took, at))), default=None)
    for stage, took in seconds.items():
        yield _entry(f"ortc {stage}", f"… {stage}", took, peaks[stage])


def _entry(name: str, title: str, seconds: float, peak: int | None, failure: str | None = None) -> dict[str, Any]:
    return {"name": name, "title": title, "seconds": round(seconds, 2), "peak_rss_bytes": peak, "failure": failure}
