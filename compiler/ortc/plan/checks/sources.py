"""Files, code and repositories that a spec names, looked at without importing, loading or downloading any."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from ortc.common.permissions import is_trusted, may_use_http
from ortc.common.plain_files import is_directory, is_plain, read_plain
from ortc.common.project import find_installed, in_project, module_file
from ortc.common.suggest import closest, listed
from ortc.common.texts import shown
from ortc.inspection.entrypoint import installed
from ortc.inspection.torch_script import TORCHSCRIPT_HELP, is_torchscript
from ortc.plan.checks import onnx_file, repository, samples
from ortc.plan.checks.paths import ROOT_HELP, missing, neighbour
from ortc.plan.plan import SourcePlan
from ortc.spec.accuracy import SamplesFunction
from ortc.spec.diagnostics.diagnostic import Diagnostic, quoted
from ortc.spec.diagnostics.rules import sources as rules
from ortc.spec.diagnostics.source import Span
from ortc.spec.load import LoadedSpec
from ortc.spec.mirror_urls import MIRROR_PROTOCOLS, host_of, is_mirror_url
from ortc.spec.model_sources import (
    ADAPTER_FILES,
    NO_WEIGHTS_FILE,
    ExportedProgramSource,
    HuggingFaceSource,
    OnnxSource,
    PyTorchSource,
    Teacher,
    models_beside,
)
from ortc.spec.tasks import GENERATION, TASKS

PICKLES = (".pkl", ".pickle", ".joblib", ".dill")
"""Suffixes of files that run code when they are read."""
WEIGHTS = (".safetensors", ".pt", ".pth", ".bin")
"""Suffixes of the weights files that a `pytorch` source reads."""
WEIGHTS_HELP = (
    "write `weights: path/model.safetensors` (a state dict), `weights: entrypoint` (the function loads them itself), "
    "`weights: none` (the module has no parameters and no buffers), or `weights: random` (for measuring; the bundle is "
    "not fit to serve)"
)

_COMMIT = re.compile(r"[0-9a-f]{40}")


def check(loaded: LoadedSpec) -> Iterator[Diagnostic]:
    """The model's source, the samples and the entry points."""
    yield from _source(loaded, loaded.spec.model, ("model",))
    for role, source in models_beside(loaded.spec.model).items():
        yield from _source(loaded, source, ("model", role, "model"))
    if loaded.spec.model.teacher is not None:
        yield from _teacher(loaded, loaded.spec.model.teacher)
    accuracy = loaded.spec.accuracy
    if isinstance(accuracy.samples, SamplesFunction):
        span = loaded.document.locate(["accuracy", "samples", "entrypoint"])
        yield from _entrypoint(loaded, accuracy.samples.entrypoint, span)
    elif accuracy.samples is not None:
        yield from samples.check(loaded, accuracy.samples)
    if accuracy.metric is not None:
        span = loaded.document.locate(["accuracy", "metric", "entrypoint"])
        yield from _entrypoint(loaded, accuracy.metric.entrypoint, span)


def _source(loaded: LoadedSpec, model: SourcePlan, at: tuple[str, ...]) -> Iterator[Diagnostic]:
    """One source, which stands at a path of the document."""
    match model:
        case HuggingFaceSource():
            yield from _huggingface(loaded, model, at)
        case PyTorchSource():
            yield from _entrypoint(loaded, model.entrypoint, loaded.document.locate((*at, "entrypoint")))
            yield from _weights(loaded, model, at)
        case OnnxSource():
            wrong = list(_file(loaded, model, (*at, "path"), model.path, (".onnx",)))
            yield from wrong or onnx_file.check(loaded, model, at)
        case ExportedProgramSource():
            yield from _file(loaded, model, (*at, "path"), model.path, (".pt2",))


def _teacher(loaded: LoadedSpec, teacher: Teacher) -> Iterator[Diagnostic]:
    """What a teacher is compared by, against what the rest of the spec says."""
    if teacher.max_drop is not None and loaded.spec.accuracy.metric is None:
        yield Diagnostic(
            rules.TEACHER_METRIC,
            "`max_drop` of the teacher is about `accuracy.metric`, which is not there",
            loaded.document.locate(("model", "teacher", "max_drop"), key=True),
            help="declare the metric, or limit `cosine`, `max_abs` or `top1_agreement`",
        )
    kept = loaded.spec.export.outputs
    for index, name in enumerate(teacher.outputs or ()):
        if kept is not None and name not in kept:
            meant = closest(name, kept)
            yield Diagnostic(
                rules.TEACHER_OUTPUT,
                f"the output {quoted(name)} is compared with the teacher's, but not kept",
                loaded.document.locate(("model", "teacher", "outputs", index)),
                f"did you mean `{meant}`?" if meant else "",
                help=f"`export.outputs` keeps {listed(kept, 'and')}",
            )


def _huggingface(loaded: LoadedSpec, model: HuggingFaceSource, at: tuple[str, ...]) -> Iterator[Diagnostic]:
    document = loaded.document
    if model.path is not None and not is_directory(loaded.root / model.path):
        yield missing(loaded, document.locate((*at, "path")), model.path, "directory")
    if (adapter := model.adapter) is not None:
        if adapter.path is not None and not is_directory(loaded.root / adapter.path):
            yield missing(loaded, document.locate((*at, "adapter", "path")), adapter.path, "directory")
        for name in adapter.files:
            if name not in ADAPTER_FILES:
                yield Diagnostic(
                    rules.ADAPTER_FILE,
                    f"{quoted(name)} is no file of an adapter that can be merged",
                    document.locate((*at, "adapter", "files", name), key=True),
                    help=f"list {listed(ADAPTER_FILES, 'and')} alone; save the adapter with PEFT's save_pretrained()",
                )
    if model.id is not None and model.revision is None:
        yield Diagnostic(
            rules.REVISION_MISSING,
            f"{quoted(model.id)} needs a `revision`",
            document.locate((*at, "id")),
            help="add `revision:` with the 40 digits of a commit of the repository",
        )
    elif model.id is not None and model.revision is not None and not _COMMIT.fullmatch(model.revision):
        weights = model.weights == "random" or any(name.endswith(".safetensors") for name in model.files)
        pinned = bool(model.files) and weights
        yield Diagnostic(
            rules.REVISION_MOVES if pinned else rules.REVISION_UNPINNED,
            f"the revision {quoted(model.revision)} is not a commit, and can move",
            document.locate((*at, "revision")),
            help="use the 40 digits of the commit" + ("" if pinned else ", or give the digest of each file in `files`"),
        )
    for name in model.files:
        if name.endswith(PICKLES):
            yield _pickle(name, document.locate((*at, "files", name), key=True))
    if model.task in GENERATION:
        yield Diagnostic(
            rules.GENERATION,
            f"{quoted(model.task)} calls the model again for every token, with a cache of what it has seen",
            document.locate((*at, "task")),
            help="`task: causal-lm` gives the logits of one forward pass, `task: text-encoding` the encoder alone; "
            "onnxruntime-genai builds and runs models that generate",
        )
    elif model.task not in TASKS:
        meant = closest(model.task, TASKS)
        yield Diagnostic(
            rules.UNKNOWN_TASK,
            f"there is no task {quoted(model.task)}",
            document.locate((*at, "task")),
            f"did you mean `{meant}`?" if meant else "",
            help=None if meant else f"the tasks are {listed(sorted(TASKS), 'and')}",
        )
    yield from repository.check(loaded, model, at)
    for index, mirror in enumerate(model.mirrors):
        yield from _mirror(loaded, mirror, document.locate((*at, "mirrors", index)))


def _mirror(loaded: LoadedSpec, mirror: str, span: Span) -> Iterator[Diagnostic]:
    scheme, _, place = mirror.partition(":")
    if scheme == "path":
        if not is_directory(loaded.root / place):
            yield Diagnostic(rules.MIRROR_MISSING, f"there is no directory {quoted(place)}", span, help=ROOT_HELP)
        return
    if scheme == "package":
        return
    if is_mirror_url(mirror):
        host = host_of(mirror)
        if scheme == "http" and not may_use_http(host):
            yield Diagnostic(
                rules.MIRROR_HTTP,
                f"{quoted(mirror)} is read over plain HTTP",
                span,
                help=f"use https, or allow the host: `ortc ... --allow-http {shown(host)}`",
            )
        return
    known = [*MIRROR_PROTOCOLS, "path", "package"]
    meant = closest(scheme, known) if ":" in mirror and scheme not in known else None
    yield Diagnostic(
        rules.MIRROR_SCHEME,
        f"{quoted(mirror)} is not a mirror",
        span,
        f"did you mean `{meant}:`?" if meant else "",
        help=f"write `package:module/dir`, `path:dir`, or a URL of {listed(MIRROR_PROTOCOLS)}",
    )


_OF_WEIGHTS_FILES = {"sha256": "is the digest of", "weights_key": "is a place in", "strip_prefix": "is about"}


def _weights(loaded: LoadedSpec, model: PyTorchSource, at: tuple[str, ...]) -> Iterator[Diagnostic]:
    """Where the weights of a module come from: what no spec says would be what its constructor draws."""
    if model.weights is None:
        yield Diagnostic(
            rules.WEIGHTS_UNSAID,
            f"{quoted(model.entrypoint)} needs `weights`: without them, what the constructor draws would ship",
            loaded.document.locate((*at, "entrypoint")),
            help=WEIGHTS_HELP,
        )
    elif model.weights_file is None:
        for key, meaning in _OF_WEIGHTS_FILES.items():
            if getattr(model, key) is not None:
                yield Diagnostic(
                    rules.WEIGHTS_UNSAID,
                    f"`{key}` {meaning} a weights file, and `weights: {model.weights}` names none",
                    loaded.document.locate((*at, key)),
                    help=f"name the file in `weights`, or leave out `{key}`",
                )
    elif meant := closest(model.weights.lower(), NO_WEIGHTS_FILE) if not Path(model.weights).suffix else None:
        yield Diagnostic(
            rules.FORMAT,
            f"{quoted(model.weights)} is not {listed(WEIGHTS)}, which a source `pytorch` reads",
            loaded.document.locate((*at, "weights")),
            f"did you mean `{meant}`?",
            help=WEIGHTS_HELP,
        )
    else:
        yield from _file(loaded, model, (*at, "weights"), model.weights, WEIGHTS)
        if is_torchscript(loaded.root / model.weights):
            yield Diagnostic(
                rules.FORMAT,
                f"{quoted(model.weights)} is TorchScript, and no state dict",
                loaded.document.locate((*at, "weights")),
                help=TORCHSCRIPT_HELP,
            )
        if model.weights_key is not None and model.weights.lower().endswith(".safetensors"):
            yield Diagnostic(
                rules.FORMAT,
                f"`weights_key: {model.weights_key}`, but a .safetensors file holds tensors and no mappings of them",
                loaded.document.locate((*at, "weights_key")),
                help="leave it out; what names begin with is `strip_prefix`",
            )


def _file(
    loaded: LoadedSpec, model: SourcePlan, at: tuple[str, ...], name: str, suffixes: tuple[str, ...]
) -> Iterator[Diagnostic]:
    span = loaded.document.locate(at)
    suffix = Path(name).suffix.lower()
    if suffix in PICKLES:
        yield _pickle(name, span)
    elif suffix not in suffixes:
        other = {".onnx": "onnx", ".pt2": "exported_program"}.get(suffix)
        yield Diagnostic(
            rules.FORMAT,
            f"{quoted(name)} is not {listed(suffixes)}, which a source `{model.source}` reads",
            span,
            help=f"write `source: {other}`" if other else None,
        )
    elif not is_plain(loaded.root / name):
        yield missing(loaded, span, name, "file")


def _pickle(name: str, span: Span) -> Diagnostic:
    return Diagnostic(
        rules.PICKLE,
        f"{quoted(name)} would run code when it is read",
        span,
        "a pickle",
        help="save the state dict with safetensors.torch.save_file(); a model of scikit-learn becomes an .onnx file "
        "with skl2onnx.to_onnx()",
    )


def _entrypoint(loaded: LoadedSpec, entrypoint: str, span: Span) -> Iterator[Diagnostic]:
    """Check that an entry point is a function of the project, or of a package that the caller trusts."""
    module, _, function = entrypoint.partition(":")
    parts = module.split(".")
    if not all(part.isidentifier() for part in parts):
        yield Diagnostic(rules.MODULE_MISSING, f"{quoted(module)} is not the name of a module", span)
        return
    path = loaded.root.joinpath(*parts)
    source = next((file for file in (path.with_suffix(".py"), path / "__init__.py") if is_plain(file)), None)
    if source is None:
        local = is_directory(loaded.root / parts[0]) or is_plain(loaded.root / f"{parts[0]}.py")
        if not local and installed(parts[0]):
            yield from _installed(loaded, module, span)
            return
        meant = neighbour(path.with_suffix(".py"))
        expected = "/".join(parts) + ".py"
        yield Diagnostic(
            rules.MODULE_MISSING,
            f"there is no module {quoted(module)}",
            span,
            f"did you mean `{'.'.join([*parts[:-1], meant.removesuffix('.py')])}`?" if meant else "",
            help=f"expected {expected} under the root of the project",
        )
        return
    if len(parts) > 1 and not is_plain(loaded.root / parts[0] / "__init__.py"):
        # Python takes an installed package before a directory that is none.
        shadow = find_installed(parts[0])
        if shadow is not None and shadow.file is not None and not in_project(shadow.file, loaded.root):
            yield from _installed(loaded, parts[0], span)
            return
    names = _defined(source)
    if names is not None and function not in names:
        meant = closest(function, names)
        yield Diagnostic(
            rules.FUNCTION_MISSING,
            f"the module {quoted(module)} does not define {quoted(function)}",
            span,
            f"did you mean `{meant}`?" if meant else "",
        )


def _installed(loaded: LoadedSpec, module: str, span: Span) -> Iterator[Diagnostic]:
    """An installed module may be named where it is part of the project, or where the caller trusts it."""
    file = module_file(module, loaded.root)
    if not is_trusted(module) and (file is None or not in_project(file, loaded.root)):
        yield Diagnostic(
            rules.ENTRYPOINT_INSTALLED,
            f"{quoted(module)} is not a module of this project",
            span,
            help="call it in a function below the project's root; "
            f"`--trust-entrypoint {module.partition('.')[0]}` lets a spec name any function of that package",
        )


def _defined(path: Path) -> set[str] | None:
    """The names that a module defines at its top level; None when they cannot be told without running it."""
    try:
        tree = ast.parse(read_plain(path))
    except (SyntaxError, ValueError, OSError, RecursionError, MemoryError):
        return None
    names: set[str] = set()
    for node in tree.body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.Import() | ast.ImportFrom():
                names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
            case ast.Assign():
                names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
            case ast.If() | ast.Try() | ast.With() | ast.For() | ast.While() | ast.Match():
                return None
    return None if "*" in names or "__getattr__" in names else names
