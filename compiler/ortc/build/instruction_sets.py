"""Judge INT8 on a processor that adds products of integers in 16 bits: emulated, where this machine's does not.

Processors with x86-64 and without VNNI add two products of U8 and S8 at once in 16 bits, which saturate. A variant can
be right on the machine that builds it and wrong on another one of the same platform.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ortc.build.stages import VERIFY_ON_AVX2
from ortc.build.tried import Tried
from ortc.bundle.emulation import version
from ortc.evaluation.accuracy import ReferenceCase, run_cases
from ortc.evaluation.accuracy_gates import accuracy_verdicts
from ortc.evaluation.gate_table import ON_AVX2
from ortc.evaluation.report import Check, Verdict
from ortc.execution.host import Host
from ortc.execution.processes import emulated_python
from ortc.execution.worker import Worker
from ortc.execution.worker_process import WorkerError
from ortc.plan.plan import TargetPlan, VariantPlan

if TYPE_CHECKING:
    from ortc.build.variant import VariantBuilder

AMD64 = "linux/amd64"
VNNI = frozenset({"avx_vnni", "avx512_vnni"})
EMULATOR = "qemu-x86_64"
LEAST_EMULATOR = (7, 2)
"""The first release of QEMU that emulates AVX2."""
PROCESSOR = "Haswell-noTSX"
"""Has AVX2 and FMA, and neither VNNI nor AVX-512."""
FLAGS = "fpu sse sse2 ssse3 sse4_1 sse4_2 avx avx2 fma f16c"
CASES = 4
"""Most cases of real samples that are run: an emulated processor is about 50 times slower."""


@dataclass(frozen=True)
class Emulator:
    """QEMU for programs of this platform, and how reports call it."""

    path: Path
    description: str


def is_asked(target: TargetPlan, variant: VariantPlan, host: Host) -> bool:
    """Whether a variant has to be judged on another instruction set than this host's: INT8, for any amd64."""
    return variant.quantization is not None and hides_overflow(target.platforms, host)


def hides_overflow(platforms: Collection[str], host: Host) -> bool:
    """Whether this host computes INT8 without the overflow that another processor of a promised platform has."""
    return AMD64 in platforms and host.platform == AMD64 and not VNNI.isdisjoint(host.isa)


def emulator() -> Emulator | None:
    """The installed QEMU; None where there is none that emulates AVX2."""
    found = shutil.which(f"{EMULATOR}-static") or shutil.which(EMULATOR)
    if found is None:
        return None
    release = version(Path(found))
    numbers = tuple(int(part) for part in release.split(".")[:2] if part.isdigit())
    return Emulator(Path(found), f"{PROCESSOR} emulated by QEMU {release}") if numbers >= LEAST_EMULATOR else None


def check_on_avx2(builder: VariantBuilder, entry: Tried) -> Tried:
    """Judge a variant that passes by some cases on an emulated processor without VNNI.

    Verdicts get `on AVX2` in their names. The entry is given back as it is where nothing is asked, and where no
    emulator is installed or runs the loader: then `missing_verdicts` says that.

    Args:
        builder: of the target.
        entry: a variant that was judged at every case.
    """
    made, context = entry.made, builder.context
    if (
        entry.failed is not None
        or not is_asked(builder.target, made.variant, context.host)
        or made.prepacked
        or builder.target.is_node
    ):
        return entry
    found = None if builder.target.is_node else emulator()
    if found is None:
        return entry
    cases = some_cases(builder.model.material.cases)
    inputs = {
        **builder.key(entry),
        "model": builder.model.key,
        "only": [case.name for case in cases],
        "on": found.description,
    }

    def work(_: Path) -> Check:
        return run_on_avx2(found, builder.runner(made), builder.bundle(made), cases)

    name = f"{builder.target.name}: {made.variant.name} on AVX2"
    check = context.run(VERIFY_ON_AVX2.action(name, inputs), work).result
    # Few rows: shares of them are judged at every case, on this machine.
    accuracy = context.plan.accuracy.model_copy(update={"embeddings": None, "metric": None, "top1_agreement": None})
    verdicts = accuracy_verdicts(check, made.variant.precision, accuracy, AMD64, None)
    judged = tuple(
        verdict.model_copy(
            update={"gate": f"{verdict.gate}{ON_AVX2}", "where": f"{verdict.where} ({found.description})".strip()}
        )
        for verdict in verdicts
    )
    return replace(entry, verdicts=(*entry.verdicts, *judged))


def missing_verdicts(builder: VariantBuilder, entry: Tried) -> Iterator[Verdict]:
    """Say that a variant was not judged on AVX2, for want of an emulator."""
    if not is_asked(builder.target, entry.made.variant, builder.context.host):
        return
    if builder.target.is_node:
        yield Verdict(
            gate=f"parity{ON_AVX2}",
            platform=AMD64,
            outcome="unmeasured",
            said="ortc runs no Node on an emulated processor",
            required="measured without VNNI; `platforms` or `precision: fp32` leaves the question out",
        )
    elif emulator() is None:
        yield Verdict(
            gate=f"parity{ON_AVX2}",
            platform=AMD64,
            outcome="unmeasured",
            said=f"{EMULATOR} {'.'.join(map(str, LEAST_EMULATOR))} or later is not installed",
            required="measured without VNNI; Debian and Ubuntu: apt-get install qemu-user-static",
        )


def some_cases(cases: tuple[ReferenceCase, ...]) -> tuple[ReferenceCase, ...]:
    """Real samples, evenly from all of them; without any, cases of the shape matrix with the smallest outputs.

    Cases whose every value is masked, zero or not finite show nothing, and are passed over where there are others.
    """
    cases = tuple(case for case in cases if case.telling is None or case.telling) or cases
    real = [case for case in cases if case.is_sample]
    if not real:
        return tuple(sorted(cases, key=lambda case: case.outputs.stat().st_size)[:CASES])
    step = max(1, len(real) // CASES)
    return tuple(real[::step][:CASES])


def run_on_avx2(found: Emulator, interpreter: Path, bundle: Path, cases: tuple[ReferenceCase, ...]) -> Check:
    """Run a bundle's loader on an emulated processor, in one thread, and compare its answers."""
    try:
        with avx2_worker(found, interpreter, bundle) as worker:
            worker.call("load", bundle=str(bundle), verify="none", selftest=False, warmup=False, threads=1)
            return run_cases(worker, cases, None)
    except WorkerError as error:
        return Check(error="; ".join([error.message, *error.details[-2:]]))


@contextmanager
def avx2_worker(found: Emulator, interpreter: Path, bundle: Path) -> Iterator[Worker]:
    """The process of a bundle's loader on an emulated processor, which it finds in /proc/cpuinfo as well."""
    with tempfile.TemporaryDirectory(prefix="ortc-avx2-") as scratch:
        # QEMU looks for files below this prefix first; it passes the host's /proc/cpuinfo on otherwise.
        place = Path(scratch) / "proc" / "cpuinfo"
        place.parent.mkdir()
        place.write_text(f"processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: {FLAGS}\n\n", "utf-8")
        command = emulated_python(found.path, "-cpu", PROCESSOR, root=Path(scratch), interpreter=interpreter)
        with Worker.emulated(bundle.name, command, {}, bundle) as worker:
            yield worker
