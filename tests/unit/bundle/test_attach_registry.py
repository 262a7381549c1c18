"""Attaching to signed bundles, and what a registry makes of it."""

from __future__ import annotations

import json
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from tests.support.keys import write_keys
from tests.support.measurements import BOARD, NAME, SIGNATURE, WHEN, Write, verdicts_of

from ortc.__main__ import run
from ortc.bundle.attach import attach
from ortc.bundle.supply_chain.signing import sign, verify
from ortc.common.errors import StageError
from ortc.registry.aliases import promote
from ortc.registry.retrieval import retrieve
from ortc.registry.store import Registry
from ortc.registry.views import view


def test_of_an_unsigned_measurement_beside_a_signed_bundle_nothing_is_kept(
    bundle: Path, write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    private, _ = write_keys(tmp_path / "keys")
    attach(bundle, write())
    planted = json.loads((bundle / NAME).read_bytes())
    promise = {**planted["verdicts"][0], "gate": "planted", "outcome": "pass", "observed": "1", "limit": "2"}
    planted["verdicts"].append(promise)
    planted["trades"] = [{"variant": "planted", "limits": {}, "nodes": [], "points": []}]
    (bundle / NAME).write_text(json.dumps(planted))
    sign(bundle, private)
    newer = (WHEN + timedelta(days=1)).isoformat()
    # Whoever has the key signed it: it is kept.
    shutil.copytree(bundle, tmp_path / "signed")
    assert attach(tmp_path / "signed", write(measured=newer)).not_kept is None
    assert any(verdict["gate"] == "planted" for verdict in verdicts_of(tmp_path / "signed"))
    (bundle / SIGNATURE).unlink()
    capsys.readouterr()
    assert run(["attach", str(bundle), str(write(measured=newer))]) == 0
    assert f"no signature covers {NAME}: not used" in capsys.readouterr().out
    assert all(verdict["gate"] != "planted" for verdict in verdicts_of(bundle))
    assert json.loads((bundle / NAME).read_bytes())["trades"] == []


def test_a_registry_shows_it(bundle: Path, write: Write, tmp_path: Path) -> None:
    registry = Registry((tmp_path / "registry").as_uri())
    registry.add(bundle)
    attach(bundle, write(milliseconds=150.0))
    assert NAME in registry.add(bundle).companions
    (shown,) = view(registry, "linear").bundles
    (found,) = [entry for entry in shown.performance if entry.fingerprint == BOARD.fingerprint()]
    assert (found.host, found.threads, found.verdicts) == (BOARD, 1, {"fail": 1, "pass": 1})
    assert found.numbers is not None
    assert found.numbers.p99_ms.samples == 420


def test_a_registry_promotes_no_broken_promise(bundle: Path, write: Write, tmp_path: Path) -> None:
    url = (tmp_path / "registry").as_uri()
    registry = Registry(url)
    attach(bundle, write(milliseconds=150.0))
    registry.add(bundle)
    with pytest.raises(StageError, match=rf"breaks a promise: cpu on A board \({BOARD.fingerprint()}\)"):
        promote(registry, "linear@1.0.0", "production")
    assert run(["registry", "promote", "linear@1.0.0", "canary", "--registry", url, "--allow-broken-promises"]) == 0
    attach(bundle, write(measured=(WHEN + timedelta(days=1)).isoformat()))
    registry.add(bundle)
    assert promote(registry, "linear@1.0.0", "production") == "1.0.0"


def test_a_registry_gives_back_what_replaced_a_signed_measurement(bundle: Path, write: Write, tmp_path: Path) -> None:
    private, public = write_keys(tmp_path / "keys")
    registry = Registry((tmp_path / "registry").as_uri())
    attach(bundle, write())
    sign(bundle, private)
    assert SIGNATURE in registry.add(bundle).companions
    older = Path(shutil.copytree(bundle, tmp_path / "older"))
    attach(bundle, write(measured=(WHEN + timedelta(days=1)).isoformat()))
    # Until it is signed, the one before stays.
    added = registry.add(bundle)
    assert (added.companions, NAME in added.unsigned) == ((), True)
    got = retrieve(registry, "linear", "1.0.0", "cpu", tmp_path / "got")
    assert (got / NAME).read_bytes() == (older / NAME).read_bytes()
    assert NAME in verify(got, public).measurements
    sign(bundle, private)
    assert NAME in registry.add(bundle).companions
    # A copy from before the newer measurement brings nothing back.
    assert registry.add(older).companions == ()
    got = retrieve(registry, "linear", "1.0.0", "cpu", tmp_path / "signed")
    assert (got / NAME).read_bytes() == (bundle / NAME).read_bytes()
    assert NAME in verify(got, public).measurements
