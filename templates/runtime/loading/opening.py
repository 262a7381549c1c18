"""A bundle's way to an open session: files verified, documents read, ONNX Runtime imported, the graph opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import DigestError, FilesError, PlacementError, ProvidersError, SessionError, tolerating
from .files import State, check_unchanged, inside, parsing, read_json, read_manifest
from .interface import Interface, interface_of
from .machine import physical_cores, thread_count
from .placement import Placed, check_names, check_placement, check_used
from .providers import CPU, OPENVINO
from .session import create_session, graph_of
from .settings import refuse_settings
from .tensorrt_engines import EngineKeeper


@dataclass(frozen=True)
class How:
    """How to open a bundle; see `Model.load`."""

    verify: str = "full"
    threads: int | None = None
    strict: bool = True
    profile: Path | None = None


@dataclass(frozen=True)
class Contents:
    """What the documents of a bundle say, once its files were verified.

    Attributes:
        seen: The files as they were verified.
        identity: Name, version and target.
        runtime: Package, version and minimum_version of ONNX Runtime.
        config: session.json.
        threads: {"intra_op": n, "inter_op": n} as used.
        concurrency: Runs at once that the session was measured for.
    """

    root: Path
    seen: dict[str, State]
    manifest: Mapping[str, Any]
    identity: tuple[str, str, str]
    interface: Interface
    model_file: Path
    runtime: dict[str, str]
    max_cpu_nodes: int | None
    shape_nodes: Mapping[str, list[str]]
    config: Mapping[str, Any]
    threads: dict[str, int]
    concurrency: int
    environment: dict[str, str]


@dataclass(frozen=True)
class Opened:
    """An InferenceSession, where its nodes run, and whether its graph is the one with packed weights."""

    session: Any
    prepacked: bool
    placement: tuple[Placed, ...]
    engines: EngineKeeper


def read_contents(root: Path, how: How, seen: dict[str, State] | None = None) -> Contents:
    """Verify the files of the bundle at `root`, and read its documents.

    Args:
        root: The directory.
        how: What to verify and what to tolerate.
        seen: Files that were verified by an earlier opening, which takes `verify="none"`.

    Raises:
        BundleError: A file is not as it was published, or a document is malformed.
    """
    seen = {} if seen is None else seen
    manifest = _manifest(root, how, seen)
    with parsing(root / "manifest.json"):
        name, version, target = (str(manifest[key]) for key in ("name", "version", "target"))
        # Absent in bundles from before shape arithmetic was told apart.
        shape_nodes: Mapping[str, list[str]] = manifest["placement"].get("shape_nodes", {})
        check_names(shape_nodes)
        interface = interface_of(manifest)
        model_file = inside(root, str(manifest["model"]["file"]))
        runtime = {k: str(manifest["runtime"][k]) for k in ("package", "version", "minimum_version")}
        max_cpu_nodes = manifest["placement"]["max_cpu_nodes"]
    path = root / "session.json"
    config = read_json(path)
    with parsing(path):
        refuse_settings(config)
        intra_op = thread_count(config["threads"]["intra_op"], how.threads)
        threads = {"intra_op": intra_op, "inter_op": int(config["threads"]["inter_op"])}
        concurrency = physical_cores() if config.get("concurrency") == "physical" else 1
        environment = {str(name): str(value) for name, value in config["environment"].items()}
    return Contents(
        root,
        seen,
        manifest,
        (name, version, target),
        interface,
        model_file,
        runtime,
        max_cpu_nodes,
        shape_nodes,
        config,
        threads,
        concurrency,
        environment,
    )


def _manifest(root: Path, how: How, seen: dict[str, State]) -> dict[str, Any]:
    with tolerating(DigestError, FilesError, strict=how.strict):
        return read_manifest(root, how.verify, seen)
    return read_manifest(root, "none")


def open_session(ort: Any, contents: Contents, how: How, *, new_engines: bool = False) -> Opened:
    """Open the graph of a bundle on the providers that session.json names, and check what runs where.

    Args:
        ort: The module onnxruntime.
        contents: What the bundle's documents say.
        how: Where to record a profile, and what to tolerate.
        new_engines: Take no TensorRT engines of an earlier start.

    Raises:
        BundleError: It cannot be opened, its files changed meanwhile, or nodes run where they may not.
    """
    with parsing(contents.root / "session.json"):
        graph, prepacked = graph_of(contents.root, contents.model_file, contents.config, str(ort.__version__))
        keeper = EngineKeeper(contents.root, contents.manifest, str(ort.__version__))
        session = _over_engines(ort, graph, contents, how, keeper, prepacked=prepacked, anew=new_engines)
        with tolerating(DigestError, strict=how.strict):
            check_unchanged(contents.root, contents.seen)
    placement = tuple(
        (str(part.ep_name), str(node.name), str(node.op_type), str(node.domain))
        for part in session.get_provider_graph_assignment_info()
        for node in part.get_nodes()
    )
    contents.interface.check_graph(session)
    providers = session.get_providers()
    if OPENVINO in providers:
        check_used(placement)
    if any(provider != CPU for provider in providers):
        with tolerating(PlacementError, strict=how.strict):
            check_placement(placement, contents.max_cpu_nodes, contents.shape_nodes)
    return Opened(session, prepacked, placement, keeper)


def _over_engines(
    ort: Any, graph: Path, contents: Contents, how: How, keeper: EngineKeeper, *, prepacked: bool, anew: bool
) -> Any:
    """The session; where TensorRT leads, over engines of an earlier start, if there are any that load."""
    while True:
        config = keeper.direct(contents.config, anew=anew)
        threads = contents.threads["intra_op"]
        try:
            return create_session(
                ort, graph, config, threads, contents.concurrency, optimized=prepacked, profile=how.profile
            )
        except (ProvidersError, SessionError) as error:
            if anew or not keeper.suspects(error):
                keeper.close()
                raise
        anew = True
