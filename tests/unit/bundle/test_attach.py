"""Attaching measurements: only what is of exactly this bundle, whole and newer; and what it makes of the promises."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from tests.support.bundles import digest as sha256
from tests.support.bundles import runtime_module
from tests.support.cpuinfo import ARM, X86
from tests.support.keys import write_keys
from tests.support.measurements import BOARD, NAME, SIGNATURE, WHEN, Write, outcomes, verdicts_of
from tests.support.whole_bundles import HOST, whole_bundle

from ortc.__main__ import run
from ortc.bundle.attach import attach
from ortc.bundle.supply_chain.signing import sign, verify
from ortc.common import bundle_runtime
from ortc.common.errors import OrtcError, StageError, UsageError
from ortc.execution import host

measure = runtime_module("measure")


def test_a_kept_promise(bundle: Path, write: Write) -> None:
    digests = {name: sha256(bundle / name) for name in ("SHA256SUMS", "manifest.json")}
    done = attach(bundle, write())
    assert (done.bundle, done.measurement, done.measured) == ("linear/1.0.0/cpu", NAME, WHEN)
    assert outcomes(bundle) == {"self-test": "pass", "latency p99": "pass"}
    assert done.numbers is not None
    assert (done.numbers.p99_ms.samples, done.numbers.p50_ms.value) == (420, pytest.approx(2.209))
    assert digests == {name: sha256(bundle / name) for name in digests}
    card = (bundle / NAME).with_suffix(".cdx.json").read_text("utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_7).validate_str(card) is None
    assert BOARD.fingerprint() in card
    assert not [path.name for path in bundle.parent.iterdir() if ".new-" in path.name]


@pytest.mark.parametrize(
    ("milliseconds", "changes", "code", "gates"),
    [
        (2.0, {}, 0, {"self-test": "pass", "latency p99": "pass"}),
        (150.0, {}, 6, {"self-test": "pass", "latency p99": "fail"}),
        # The interval of p99 reaches over 100 ms.
        (99.585, {}, 7, {"self-test": "pass", "latency p99": "inconclusive"}),
        # Too few samples for an upper bound.
        (2.0, {"rounds": [[2.0] * 21] * 3}, 7, {"self-test": "pass", "latency p99": "inconclusive"}),
        (
            2.0,
            {"failed": "golden case 'case-0', output 'y': max_abs is 1", "rounds": [], "starts": [], "golden": []},
            5,
            {"self-test": "fail", "latency p99": "unmeasured"},
        ),
        (
            2.0,
            {"golden": [{"name": f"case-{index}", "max_abs": index, "cosine": 1.0} for index in range(2)]},
            5,
            {"self-test": "fail", "latency p99": "pass"},
        ),
    ],
)
def test_exit_codes_and_the_evidence_that_stays(
    bundle: Path, write: Write, milliseconds: float, changes: dict[str, Any], code: int, gates: dict[str, str]
) -> None:
    assert run(["attach", str(bundle), str(write(milliseconds=milliseconds, **changes))]) == code
    assert outcomes(bundle) == gates


def controlled(share: float, turns: int) -> dict[str, Any]:
    """A control workload whose thread computed this share of its turns."""
    return {
        "threads": 1,
        "rounds": [[1.0] * 16] * turns,
        "wall_seconds": [0.016] * turns,
        "cpu_seconds": [0.016 * share] * turns,
    }


def clocks(share: float) -> dict[str, Any]:
    """Processor time of the rounds, the control workload, and what ran beside."""
    return {
        "wall_seconds": [0.1] * 20,
        "cpu_seconds": [0.1 * share] * 20,
        "control": controlled(share, 20),
        "start_control": controlled(share, 6),
        "load": {"average": 4.2, "stolen": 0.0, "processes": [{"name": "python", "cores": 3.9}]},
    }


@pytest.mark.parametrize(
    ("share", "milliseconds", "code", "outcome"),
    [
        (0.99, 2.0, 0, "pass"),
        (0.99, 150.0, 6, "fail"),
        # Nothing about time is claimed, one way or the other.
        (0.3, 2.0, 7, "inconclusive"),
        (0.3, 150.0, 7, "inconclusive"),
    ],
)
def test_a_busy_machine_proves_nothing(
    bundle: Path, write: Write, share: float, milliseconds: float, code: int, outcome: str
) -> None:
    assert run(["attach", str(bundle), str(write(milliseconds=milliseconds, **clocks(share)))]) == code
    assert outcomes(bundle) == {"self-test": "pass", "latency p99": outcome}
    document = json.loads((bundle / NAME).read_bytes())
    assert document["race"]["load"]["processes"] == [{"name": "python", "cores": 3.9}]
    assert document["numbers"]["control"] == ("quiet" if share > 0.9 else "noisy")


def test_a_file_without_a_control_is_read_and_says_so(bundle: Path, write: Write) -> None:
    assert run(["attach", str(bundle), str(write())]) == 0
    (latency,) = [verdict for verdict in verdicts_of(bundle) if verdict["gate"] == "latency p99"]
    assert latency["where"].endswith("420 samples, no control")


@pytest.mark.parametrize(
    "changes",
    [
        {"load": {"processes": [{"name": "\x1b[31mred", "cores": 1.0}]}},
        {"load": {"processes": [{"name": "x" * 33, "cores": 1.0}]}},
        {"load": {"processes": [{"name": "x", "cores": -1.0}]}},
        {"load": {"processes": [{"name": "x", "cores": 1.0}] * 17}},
        {"control": controlled(0.99, 20) | {"cpu_seconds": [0.016]}},
        {"control": controlled(0.99, 20) | {"wall_seconds": [0.0] * 20}},
        {"control": controlled(0.99, 20) | {"threads": 0}},
        {"start_control": controlled(0.99, 6) | {"rounds": [[]] * 6}},
        {"cpu_seconds": [0.1]},
        {"wall_seconds": [0.1] * 21},
    ],
)
def test_clocks_and_loads_that_cannot_be_are_refused(
    bundle: Path, write: Write, changes: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["attach", str(bundle), str(write(**(clocks(0.99) | changes)))]) == 4
    assert "\x1b" not in capsys.readouterr().err
    assert not (bundle / NAME).exists()


def test_json_and_text(bundle: Path, write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["attach", str(bundle), str(write()), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["measurement"], document["host"]["cpu"]) == (NAME, "A board")
    assert run(["attach", str(bundle), str(write())]) == 0
    text = capsys.readouterr().out
    assert "pass         linux/amd64  latency p99  2.4" in text
    assert f"{NAME} is what was measured on A board" in text


def test_a_measurement_makes_nothing_fit_to_serve(
    tmp_path: Path, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = whole_bundle(tmp_path / "random", fit_to_serve=False, unfit_reason="random weights")
    assert run(["attach", str(bundle), str(write(of=bundle))]) == 0
    assert f"{bundle}: not fit to serve: random weights" in capsys.readouterr().out
    assert attach(bundle, write(of=bundle)).unfit_reason == "random weights"


def test_what_stays_unmeasured_is_told(tmp_path: Path, write: Write) -> None:
    promises = {"at": {"batch": 1}, "latency": {"p99": 0.1}, "size": None, "memory": 2**20, "start": 1.0}
    bundle = whole_bundle(tmp_path / "fast", promises={**promises, "min_speedup": 2.0})
    done = attach(bundle, write(of=bundle))
    found = {verdict.gate: verdict.outcome for verdict in done.verdicts}
    assert found == {
        "self-test": "pass",
        "latency p99": "pass",
        "start": "pass",
        "speed-up": "unmeasured",
        "memory": "fail",
    }
    assert done.unmeasured == ("speed-up on linux/amd64",)


def test_what_the_build_judged_without_timing_stays(bundle: Path, write: Write) -> None:
    verdicts = [
        {"gate": gate, "platform": "linux/amd64", "outcome": outcome, "observed": "-", "limit": "-"}
        for gate, outcome in (("cosine on CPU", "pass"), ("parity", "unmeasured"), ("latency p99", "unmeasured"))
    ]
    board = BOARD.model_dump(mode="json")
    built = {"format_version": 1, "host": board, "verdicts": verdicts, "numbers": None, "race": None, "trades": []}
    (bundle / NAME).write_text(json.dumps(built))
    done = attach(bundle, write())
    assert outcomes(bundle) == {
        "self-test": "pass",
        "latency p99": "pass",
        "cosine on CPU": "pass",
        "parity": "unmeasured",
    }
    assert done.unmeasured == ("parity on linux/amd64",)


def test_another_bundle(tmp_path: Path, bundle: Path, write: Write) -> None:
    version = whole_bundle(tmp_path / "newer", version="1.1.0")
    with pytest.raises(UsageError, match=r"measured of linear 1\.1\.0 for cpu, .* is linear 1\.0\.0 for cpu"):
        attach(bundle, write(of=version))
    built = whole_bundle(tmp_path / "again", seed=1)
    with pytest.raises(UsageError, match=r"another build of linear 1\.0\.0 for cpu"):
        attach(bundle, write(of=built))
    assert not (bundle / NAME).exists()


def test_another_platform(bundle: Path, write: Write) -> None:
    host = BOARD.model_copy(update={"platform": "linux/arm64"}).model_dump(mode="json")
    with pytest.raises(UsageError, match=r"measured on linux/arm64, the bundle is for linux/amd64"):
        attach(bundle, write(host=host))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"versions": {"onnxruntime": "1.30.0"}}, r"onnxruntime 1\.30\.0, the bundle has 1\.31\.1"),
        ({"providers": ["CUDAExecutionProvider", "CPUExecutionProvider"]}, "the providers CUDAExecutionProvider"),
        ({"threads": 4}, "threads 4, the bundle has 1"),
        ({"at": {"batch": 2}}, "the shape"),
        ({"golden": []}, "the golden cases"),
        ({"manifest_sha256": "0" * 64}, r"manifest\.json with sha256 0"),
        ({"measured": (datetime.now(UTC) + timedelta(days=400)).isoformat()}, "still to come"),
    ],
)
def test_what_does_not_ship(bundle: Path, write: Write, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(StageError, match=said):
        attach(bundle, write(**changes))
    assert not (bundle / NAME).exists()


def test_an_edited_file(bundle: Path, write: Write) -> None:
    file = write(milliseconds=150.0)
    file.write_text(file.read_text().replace("150.0", "15.0"))
    with pytest.raises(StageError, match="edited or damaged"):
        attach(bundle, file)
    assert run(["attach", str(bundle), str(file)]) == 4
    # The same content in another layout is the same content.
    whole = write()
    whole.write_text(json.dumps(json.loads(whole.read_bytes()), sort_keys=True))
    attach(bundle, whole)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format_version": 2}, "has format_version 2, this ortc reads 1"),
        ({"kind": "ortc-bundle"}, "its `kind` is not"),
        ({"rounds": [[1.0, -1.0]]}, r"rounds\.0\.1: Input should be greater than or equal to 0"),
        ({"rounds": []}, "either wrong golden answers or times"),
        ({"measured": "2026-05-01T12:00:00"}, "timezone"),
        ({"extra": 1}, "extra"),
        ({"host": {}}, r"host\.platform"),
    ],
)
def test_an_unknown_format(bundle: Path, write: Write, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(StageError, match=said):
        attach(bundle, write(**changes))


@pytest.mark.parametrize(
    "content", ["", "[]", "null", '{"kind": "ortc-measurement"', "[" * 100_000, '{"a": NaN}', "\ud800"]
)
def test_no_measurement_at_all(bundle: Path, tmp_path: Path, content: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(StageError, match="is no measurement"):
        attach(bundle, file)
    with pytest.raises(UsageError, match="cannot be read"):
        attach(bundle, tmp_path / "none")
    assert run(["attach", str(bundle), str(tmp_path / "none")]) == 2


def test_the_newer_one_stays(bundle: Path, write: Write) -> None:
    attach(bundle, write(milliseconds=3.0))
    before = (bundle / NAME).read_bytes()
    # The same once more changes nothing.
    attach(bundle, write(milliseconds=3.0))
    assert (bundle / NAME).read_bytes() == before
    for when in (WHEN - timedelta(seconds=1), WHEN):
        with pytest.raises(StageError, match="the newer one stays"):
            attach(bundle, write(measured=when.isoformat()))
    assert (bundle / NAME).read_bytes() == before
    attach(bundle, write(measured=(WHEN + timedelta(seconds=1)).isoformat()))
    assert (bundle / NAME).read_bytes() != before


def test_what_the_build_timed_itself_stays(bundle: Path, write: Write) -> None:
    place = bundle / f"measurements/{HOST.fingerprint()}.json"
    before = place.read_bytes()
    with pytest.raises(StageError, match="what the build itself measured"):
        attach(bundle, write(host=HOST.model_dump(mode="json")))
    assert place.read_bytes() == before


def test_a_damaged_bundle(bundle: Path, write: Write) -> None:
    file = write()
    (bundle / "session.json").write_text("{}")
    with pytest.raises(StageError, match=r"session\.json"):
        attach(bundle, file)


def test_many_at_once_lose_nothing(bundle: Path, write: Write) -> None:
    machines = [BOARD.model_copy(update={"cores": cores}) for cores in range(1, 5)]
    files = [(machine, WHEN + timedelta(minutes=minute)) for minute in (2, 0, 1) for machine in machines]
    written = [
        write(f"{index}.json", host=machine.model_dump(mode="json"), measured=when.isoformat())
        for index, (machine, when) in enumerate(files)
    ]

    def one(file: Path) -> str:
        try:
            return attach(bundle, file).measurement
        except StageError as error:
            return error.message

    with ThreadPoolExecutor(len(written)) as pool:
        told = list(pool.map(one, written))
    assert all("newer one stays" in text or text.startswith("measurements/") for text in told)
    for machine in machines:
        found = json.loads((bundle / f"measurements/{machine.fingerprint()}.json").read_bytes())
        assert datetime.fromisoformat(found["attached"]["measured"]) == WHEN + timedelta(minutes=2)


def test_signatures_hold(bundle: Path, write: Write, tmp_path: Path) -> None:
    private, public = write_keys(tmp_path / "keys")
    sign(bundle, private)
    assert attach(bundle, write()).signature is None
    assert verify(bundle, public).unsigned_measurements == (NAME.replace(".json", ".cdx.json"), NAME)
    sign(bundle, private)
    assert verify(bundle, public).unsigned_measurements == ()
    # The same again keeps the signature, a newer one has none yet.
    assert attach(bundle, write()).signature is None
    assert verify(bundle, public).unsigned_measurements == ()
    assert attach(bundle, write(measured=(WHEN + timedelta(days=1)).isoformat())).signature == SIGNATURE
    assert NAME in verify(bundle, public).unsigned_measurements


@pytest.mark.parametrize("text", [X86, ARM, "", None])
@pytest.mark.parametrize("machine", ["x86_64", "aarch64", "riscv64"])
def test_equal_hardware_has_one_fingerprint(
    text: str | None, machine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundle describes a machine as the compiler does."""
    cpuinfo = tmp_path / "cpuinfo"
    if text is not None:
        cpuinfo.write_text(text)
    ours, read = bundle_runtime.runtime_module("loading.host"), measure.describe.__globals__["cpu_fields"]
    monkeypatch.setattr(ours, "cpu_fields", lambda _: read(cpuinfo))
    monkeypatch.setattr(ours.platform, "machine", lambda: machine)
    # Neither may start a process here.
    monkeypatch.setattr(ours.shutil, "which", lambda _: None)
    monkeypatch.setattr(ours.platform, "processor", lambda: "")
    found, theirs = host.describe(), measure.describe(cpuinfo)
    assert theirs == found.model_dump(mode="json")
    assert measure.digest(theirs)[:16] == found.fingerprint()


@pytest.mark.parametrize(
    ("output", "said"),
    [("{bundle}/measurement.json", "lies in the bundle"), ("{bundle}/../none/x.json", "no file that")],
)
def test_where_a_measurement_cannot_go(bundle: Path, output: str, said: str) -> None:
    with pytest.raises(measure.UsageError, match=said):
        measure.measure(["--bundle", str(bundle), "--output", output.format(bundle=bundle)])


def test_every_refusal_says_what_to_do(bundle: Path, write: Write) -> None:
    for changes in ({"version": "2.0.0"}, {"sums_sha256": "0" * 64}, {"threads": 2}, {"format_version": 9}, {"at": {}}):
        with pytest.raises(OrtcError) as caught:
            attach(bundle, write(**changes))
        assert caught.value.help
        assert "measurement.json" in caught.value.message
