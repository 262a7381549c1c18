"""`ortc doctor`: what this machine has, and what is missing for which target."""

import json
import sys
from pathlib import Path
from typing import Any

import rich_click as click

from ortc.build.doctor import Facts, collect
from ortc.build.readiness import Problem, Readiness, of_machine, of_target
from ortc.common.errors import UnmeasuredError
from ortc.common.units import format_bytes
from ortc.spec.boundary import project_root
from ortc.spec.load import load_profile, profile_files


@click.command
@click.option(
    "-t", "--target", "targets", multiple=True, help="Only this target profile, and fail with 7 if not ready."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def doctor(targets: tuple[str, ...], as_json: bool) -> int:
    """Show what this machine has, and for each target profile what is missing and how to get it.

    Exits with 0, whatever is missing; with `--target`, with 7 when a promise for it cannot be measured here.
    """
    root = project_root(Path("spec.yaml"))
    profiles = [load_profile(name, root=root) for name in targets or profile_files(root)]
    facts = collect()
    problems = of_machine(facts)
    found = [of_target(facts, profile) for profile in profiles]
    if as_json:
        document: dict[str, Any] = {
            "format_version": 1,
            "machine": facts.model_dump(mode="json"),
            "problems": [problem.model_dump(mode="json") for problem in problems],
            "targets": [{**item.model_dump(mode="json"), "ready": item.ready} for item in found],
        }
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        sys.stdout.write(_text(facts, problems, found))
    return UnmeasuredError.exit_code if targets and not all(item.ready for item in found) else 0


def _text(facts: Facts, problems: tuple[Problem, ...], found: list[Readiness]) -> str:
    rows = _rows(facts)
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {value}" for name, value in rows]
    lines += ["", *(_problem(problem, "") for problem in problems)]
    for item in found:
        state = "ready" if item.ready else f"not measurable here: {', '.join(item.unmeasured)}"
        also = f"; measurable here: {', '.join(item.measured)}" if item.measured and item.unmeasured else ""
        lines += ["", f"target {item.target}: {state}{also}"]
        lines += [_problem(problem, "  ") for problem in item.problems]
    return "\n".join(lines) + "\n"


def _problem(problem: Problem, indent: str) -> str:
    return f"{indent}missing: {problem.what}\n{indent}   help: {problem.how}"


def _rows(facts: Facts) -> list[tuple[str, str]]:
    cpus, runtime, gpu = facts.cpus, facts.runtime, facts.gpu
    quota = "no CPU quota" if cpus.quota is None else f"CPU quota {cpus.quota:g}"
    limit = "" if facts.memory_limit is None else f", limited to {format_bytes(facts.memory_limit)}"
    fitting = sum(package.fits for package in facts.packages)
    rows = [
        ("ortc", f"{facts.ortc}, Python {facts.python}, {fitting} of {len(facts.packages)} packages fit"),
        ("onnxruntime", f"{runtime.version} with {', '.join(runtime.providers)}" if runtime.version else "none"),
        ("processor", f"{facts.host.cpu}, {facts.host.platform}, {' '.join(facts.host.isa) or 'no known extensions'}"),
        (
            "cores",
            f"{cpus.physical_within_quota} physical usable; {cpus.logical} logical, {cpus.allowed} allowed, {quota}",
        ),
        ("memory", f"{format_bytes(facts.host.memory)}{limit}"),
        ("GPU", f"{', '.join(gpu.names)}, driver {gpu.driver}" if gpu.names else "none"),
        ("CUDA", ", ".join(gpu.libraries) or "no libraries outside of Python (wheels bring their own)"),
    ]
    rows += [(f"disk ({disk.purpose})", f"{format_bytes(disk.free)} free at {disk.path}") for disk in facts.disks]
    rows += [(tool.name, tool.version) for tool in facts.tools if tool.version is not None]
    if not facts.host.platform.endswith("arm64"):
        rows.append(("arm64", "emulated" if facts.arm64_emulation else "not emulated"))
    if facts.host.platform.endswith("amd64"):
        rows.append(("AVX2", facts.avx2_emulation or "not emulated"))
    return [*rows, ("hub", f"{facts.hub.endpoint}: {facts.hub.detail}")]
