"""`ortc init`: the first spec of a model."""

import os
import shlex
import sys
from pathlib import Path

import rich_click as click

from ortc.cli.demo import SPEC, write_demo
from ortc.cli.options import trust_options
from ortc.cli.report import use_color, write
from ortc.common.atomic_files import replace_file
from ortc.common.plain_files import is_directory, is_plain, not_plain, read_plain_text
from ortc.inspection.draft_spec import render
from ortc.inspection.findings import InspectionError
from ortc.inspection.inspect_model import inspect
from ortc.plan.checks import check_spec
from ortc.plan.checks.target import known_runtime
from ortc.spec.boundary import project_root
from ortc.spec.diagnostics.diagnostic import render_text
from ortc.spec.diagnostics.errors import SpecError
from ortc.spec.diagnostics.rules.sources import REVISION_UNPINNED
from ortc.spec.json_schema import schema_text
from ortc.spec.load import load_profile
from ortc.spec.vocabulary import LEAST_INT8_OPSET, LEAST_OPSET

_SCHEMA = "spec.schema.json"


@click.command
@click.argument("model", metavar="MODEL", required=False)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write.  [default: specs/NAME.yaml]",
)
@click.option("-t", "--target", "targets", multiple=True, help="Target profile; may be repeated.  [default: cpu]")
@click.option("--revision", help="Commit of a repository of the hub.")
@trust_options
@click.option("--force", is_flag=True, help="Replace a file that exists.")
@click.option(
    "--demo",
    is_flag=True,
    help="Write a small project instead: a text classifier, trained in seconds without a network, with its spec and a "
    "test. MODEL is its directory then.  [default: demo]",
)
def init(
    model: str | None, output: Path | None, targets: tuple[str, ...], revision: str | None, force: bool, demo: bool
) -> None:
    """Write a spec for MODEL: a directory, an .onnx or .pt2 file, `module:function`, or a repository of the hub.

    The model's files are inspected, nothing is imported, run or downloaded. The spec has comments where there is a
    choice to make, and passes `ortc check`. What a function's text does not say is marked `To fill in`.
    """
    if demo:
        given = {"--output": output, "--target": targets, "--revision": revision, "--force": force}
        if others := [name for name, value in given.items() if value]:
            raise click.UsageError(f"{others[0]} does not go with --demo")
        _init_demo(Path("demo" if model is None else model))
        return
    if model is None:
        raise click.UsageError("Missing argument 'MODEL', or `--demo`.")
    root = project_root(output or Path("specs/spec.yaml"))
    targets = tuple(dict.fromkeys(targets)) or ("cpu",)
    profiles = [load_profile(name, root=root) for name in targets]
    runtimes = [known_runtime(profile) for profile in profiles]
    reach = min((runtime.max_opset for runtime in runtimes if runtime is not None), default=0)
    try:
        least = LEAST_OPSET if all(profile.precision == "fp32" for profile in profiles) else LEAST_INT8_OPSET
        draft = inspect(model, root, revision=revision, least_opset=least, **({"max_opset": reach} if reach else {}))
    except InspectionError as error:
        raise click.BadParameter(str(error), param_hint="MODEL") from error
    path = output or Path("specs") / f"{draft.name}.yaml"
    if path.exists() and not force:
        raise click.UsageError(f"{path} exists; `--force` replaces it, `-o` names another file")
    if (kind := not_plain(path) or ("a directory" if is_directory(path) else None)) is not None:
        raise click.UsageError(f"{path} is {kind}, not a plain file; `-o` names another one")
    path.parent.mkdir(parents=True, exist_ok=True)
    reference = _schema(root, path.parent)
    replace_file(path, render(draft, targets, reference).encode())
    try:
        found = check_spec(path).warnings
    except SpecError as error:
        # The commit of a repository is for the user to fill in.
        if any(entry.severity == "error" and entry.rule is not REVISION_UNPINNED for entry in error.diagnostics):
            raise
        found = error.diagnostics
    if found:
        write(render_text(found, color=use_color()) + "\n")
    sys.stdout.write(f"wrote {path}\n")


def _init_demo(directory: Path) -> None:
    write("training a small classifier; this takes a few seconds\n")
    said = write_demo(directory)
    sys.stdout.write(f"wrote {directory}: {said}\n")
    steps = [f"ortc build {SPEC}", f"more in {directory / 'README.md'}"]
    if directory.resolve() != Path.cwd().resolve():
        steps.insert(0, f"cd {shlex.quote(str(directory))}")
    sys.stdout.write("".join(f"{'next' if number == 0 else '':<6}{step}\n" for number, step in enumerate(steps)))


def _schema(root: Path, directory: Path) -> str:
    """Where the JSON Schema lies for a spec in a directory; it is written beside the spec where a project has none."""
    place = root / "docs" / _SCHEMA
    if is_plain(place):
        return Path(os.path.relpath(place, directory.resolve())).as_posix()
    place = directory / _SCHEMA
    if not is_plain(place) or read_plain_text(place) != schema_text("spec"):
        replace_file(place, schema_text("spec").encode())
        sys.stdout.write(f"wrote {place}\n")
    return _SCHEMA
