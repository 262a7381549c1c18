"""Render the text files of a bundle; pure. Templates get finished fields and decide nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ortc.bundle.dockerfile import image_fields, image_of
from ortc.bundle.manifest import Manifest, to_json
from ortc.bundle.node_package import FILE as PACKAGE
from ortc.bundle.node_package import package_json
from ortc.bundle.rows import example_row, takes_rows
from ortc.bundle.script_files import script_sources
from ortc.bundle.session_file import SessionFile
from ortc.common.resources import templates_dir
from ortc.common.texts import one_line
from ortc.passes.kernel_tables import counted, own_operators
from ortc.plan.plan import TargetPlan
from ortc.spec.runtimes import PinSet, extras

if TYPE_CHECKING:
    import jinja2

PROCESSING = "processing"
"""Directory below templates/runtime of what bundles that give answers have besides."""
OWN = {"images": "image", "audio": "audio"}
"""Directories in it that bundles of one kind of requests have, by what these take."""


@dataclass(frozen=True)
class File:
    """A file of the bundle: path inside it, and content."""

    path: str
    content: bytes


def render(target: TargetPlan, manifest: Manifest, session: SessionFile, pins: PinSet) -> tuple[File, ...]:
    """Every file of a bundle but the model, the golden data, the manifest and the checksums.

    Args:
        target: the plan of the target.
        manifest: identity and interface; its list of files is not used.
        session: session.json.
        pins: the packages of the runtime; requirements.txt names those of all platforms of the target.
    """
    if target.is_javascript:
        return script_files(target, manifest, session)
    environment = template_environment()
    readme = readme_fields(target, manifest)
    runtime = templates_dir() / "runtime"
    dockerfile = environment.get_template(image_of(target).template)
    return (
        File("session.json", to_json(session).encode()),
        File("requirements.txt", pins.requirements_txt(target.platforms).encode()),
        *(
            File(f"requirements-{extra.name}.txt", extra.requirements_txt(target.platforms, beside=pins).encode())
            for extra in extras()
        ),
        File("Dockerfile", dockerfile.render(image_fields(target, manifest, session, pins)).encode()),
        File(".dockerignore", environment.get_template("dockerignore.j2").render().encode()),
        File("README.md", environment.get_template("README.md.j2").render(readme).encode()),
        *(
            File(f"runtime/{path}", (runtime / path).read_bytes())
            for path in runtime_files(takes=None if manifest.processing is None else manifest.processing.takes)
        ),
    )


def script_files(target: TargetPlan, manifest: Manifest, session: SessionFile) -> tuple[File, ...]:
    """Every such file of a bundle for browsers or for Node, but those of ONNX Runtime itself."""
    template = "README.web.md.j2" if target.is_web else "README.node.md.j2"
    readme = template_environment().get_template(template).render(readme_fields(target, manifest))
    package = () if target.is_web else (File(PACKAGE, package_json(manifest, target.description).encode()),)
    sources = script_sources(is_web=target.is_web, texts=manifest.processing is not None)
    return (
        File("session.json", to_json(session).encode()),
        File("README.md", readme.encode()),
        *package,
        *(File(place, source.read_bytes()) for place, source in sources.items()),
    )


def readme_fields(target: TargetPlan, manifest: Manifest) -> dict[str, object]:
    """Fields of README.md.j2, README.web.md.j2 and README.node.md.j2."""
    return {
        "name": manifest.name,
        "version": manifest.version,
        "target": manifest.target,
        "description": target.description,
        "variant": manifest.variant.name,
        "precision": manifest.variant.precision,
        "opset": manifest.model.opset,
        "runtime": manifest.runtime.package,
        "runtime_version": manifest.runtime.version,
        "platforms": manifest.platforms,
        "fit_to_serve": manifest.fit_to_serve,
        "unfit_reason": manifest.unfit_reason,
        "provisional": manifest.provisional,
        "inputs": [
            {"name": tensor.name, "dtype": tensor.dtype, "shape": _shape(tensor.shape)} for tensor in manifest.inputs
        ],
        "outputs": [
            {"name": tensor.name, "dtype": tensor.dtype, "shape": _shape(tensor.shape)} for tensor in manifest.outputs
        ],
        "axes": manifest.axes,
        **_request_fields(manifest),
        "own_operators": counted(own_operators(manifest.model.operators)),
        "nodes": sum(manifest.model.operators.values()),
    }


def _request_fields(manifest: Manifest) -> dict[str, str | None]:
    """What the bundle answers besides tensors, and a row where it takes rows."""
    if manifest.processing is not None:
        return {"takes": manifest.processing.takes, "kind": manifest.processing.kind, "row": None, "row_value": None}
    if not takes_rows(manifest):
        return {"takes": None, "kind": None, "row": None, "row_value": None}
    row, value = example_row(manifest)
    return {"takes": "row", "kind": None, "row": row, "row_value": value}


def runtime_files(*, takes: str | None = None) -> list[str]:
    """Paths, below templates/runtime, of what bundles carry verbatim.

    Args:
        takes: `text`, `image` or `audio`; bundles of tensors are without `processing`, and others without its
            directories for other requests.
    """
    runtime = templates_dir() / "runtime"
    files = (path for path in runtime.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    names = (path.relative_to(runtime) for path in files)
    return sorted(name.as_posix() for name in names if _is_carried(name.parts, takes))


def _is_carried(parts: tuple[str, ...], takes: str | None) -> bool:
    if parts[0] != PROCESSING:
        return True
    return takes is not None and OWN.get(parts[1], takes) == takes


def template_environment() -> jinja2.Environment:
    """What renders templates: an undefined field is an error."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates_dir()),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        # Nothing here is HTML.
        autoescape=False,  # noqa: S701
        # A line break in a value would begin an instruction, a key or another document.
        finalize=lambda value: one_line(value) if isinstance(value, str) else value,
    )
    environment.filters |= {"dockerfile": _in_dockerfile, "markdown": _in_markdown}
    return environment


def _in_dockerfile(value: str) -> str:
    """A text between the quotes of an instruction."""
    return re.sub(r'([\\"$`])', r"\\\1", one_line(value))


def _in_markdown(value: object) -> str:
    """A text of a page, in a cell or between backticks, that begins no markup of its own."""
    return re.sub(r"([\\<>|`\[\]])", lambda match: f"&#{ord(match[1])};", one_line(str(value)))


def _shape(shape: tuple[str | int | None, ...]) -> str:
    return f"[{', '.join('?' if entry is None else str(entry) for entry in shape)}]"
