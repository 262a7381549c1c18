"""Load and run one bundle: its files verified, its session as it was measured, its inputs checked.

Needs Python >= 3.11, numpy and onnxruntime, and nothing else (for TensorRT, engines.py beside it); every bundle holds a
verbatim copy of this file.

    with Model.load("dist/bert/1.0.0/cpu") as model:
        hidden = model.run({"input_ids": ids, "attention_mask": mask})["last_hidden_state"]

On the command line, `python runtime/loader.py selftest|bench|run|info` prints one JSON document on stdout and
`worker` answers one JSON line for each line on stdin: `{"ok": true, "result": {...}}` or
`{"ok": false, "error": {"code": "...", "message": "..."}}`. Everything else, ONNX Runtime's own log included, goes to
stderr. Exit codes: 0 ok, 1 internal error, 2 usage, and those of the `BundleError` classes below.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import heapq
import inspect
import json
import math
import os
import platform
import re
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    from engines import Engines

if __name__ == "__main__":
    # Nothing here multiplies matrices in numpy: a program of its own need not start BLAS' threads, one for each core.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray

FORMAT_VERSION = 1
MOST_UNPACKED = 2**30  # bytes that the compressed arrays of one file may unpack to
FEW = 8  # values of a sample up to which the norm of its error tells little
# What session.json calls the members of the enumerations GraphOptimizationLevel and ExecutionMode.
ENUMERATIONS = {
    "graph_optimization_level": {
        "off": "ORT_DISABLE_ALL",
        "basic": "ORT_ENABLE_BASIC",
        "extended": "ORT_ENABLE_EXTENDED",
        "layout": "ORT_ENABLE_LAYOUT",
        "all": "ORT_ENABLE_ALL",
    },
    "execution_mode": {"sequential": "ORT_SEQUENTIAL", "parallel": "ORT_PARALLEL"},
}
# Of /proc/cpuinfo: what tells kinds of processors apart, and the features that decide which kernels run.
PROCESSOR_FIELDS = ("vendor_id", "cpu family", "model", "CPU implementer", "CPU architecture", "CPU part")
PROCESSOR_FLAGS = (
    *("sse4_1", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx_vnni_int8", "avx_ne_convert"),
    *("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimddp", "asimdhp", "fphp", "i8mm", "bf16", "sve", "svei8mm", "svebf16", "sme"),
)
# Makes weights unsigned at load, for processors whose products of U8 and S8 overflow 16 bits.
UNSIGNED_WEIGHTS = "session.x64quantprecision"
CPU, OPENVINO = "CPUExecutionProvider", "OpenVINOExecutionProvider"
CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
UNREAD_ENGINE = "could not deserialize engine"  # of TensorRT's provider, which ONNX Runtime has fail for it
GRAPH_OPTIONS = ("enable_cuda_graph", "trt_cuda_graph_enable")
# Of each CUDA: the least driver of NVIDIA's release notes, the least compute capability that it compiles for, and the
# libraries that ONNX Runtime's provider for it loads.
CUDA_NEEDS = {
    "12": ("525.60.13", (5, 0), ("libcudart.so.12", "libcublasLt.so.12", "libcublas.so.12", "libcudnn.so.9")),
    "13": ("580", (7, 5), ("libcudart.so.13", "libcublasLt.so.13", "libcublas.so.13", "libcudnn.so.9")),
}
# What session.json may say: a bundle can come from a repository that others write to. Options that read or write files,
# load libraries, take addresses or change what a process logs are not among them.
SESSION_OPTIONS = frozenset(
    """
    graph_optimization_level execution_mode execution_order enable_mem_pattern enable_mem_reuse enable_cpu_mem_arena
    use_deterministic_compute
    """.split()  # noqa: SIM905
)
CONFIG_ENTRIES = frozenset(
    """
    mlas.enable_gemm_fastmath_arm64_bfloat16 optimization.disable_specified_optimizers
    optimization.enable_cast_chain_elimination optimization.enable_gelu_approximation
    session.allow_released_opsets_only session.disable_aot_function_inlining session.disable_cpu_ep_fallback
    session.disable_double_qdq_remover session.disable_prepacking session.disable_quant_qdq session.dynamic_block_base
    session.enable_quant_qdq_cleanup session.force_spinning_stop session.graph_optimizations_loop_level
    session.inter_op.allow_spinning session.intra_op.allow_spinning session.intra_op_thread_affinities
    session.qdq_matmulnbits_accuracy_level session.qdqisint8allowed session.set_denormal_as_zero
    session.strict_shape_type_inference session.use_env_allocators session.use_device_allocator_for_initializers
    session.x64quantprecision
    """.split()  # noqa: SIM905
)
PROVIDER_OPTIONS = {
    CPU: frozenset(("arena_extend_strategy",)),
    "AzureExecutionProvider": frozenset(),
    OPENVINO: frozenset(
        """
        device_type precision load_config num_streams num_of_threads model_priority disable_dynamic_shapes
        enable_qdq_optimizer
        """.split()  # noqa: SIM905
    ),
    CUDA: frozenset(
        """
        arena_extend_strategy device_id gpu_mem_limit cudnn_conv_algo_search do_copy_in_default_stream
        cudnn_conv_use_max_workspace cudnn_conv1d_pad_to_nc1d enable_cuda_graph tunable_op_enable
        tunable_op_tuning_enable tunable_op_max_tuning_duration_ms enable_skip_layer_norm_strict_mode prefer_nhwc
        use_ep_level_unified_stream use_tf32 fuse_conv_bias sdpa_kernel
        """.split()  # noqa: SIM905
    ),
    TENSORRT: frozenset(
        """
        device_id trt_max_workspace_size trt_max_partition_iterations trt_min_subgraph_size trt_fp16_enable
        trt_bf16_enable trt_int8_enable trt_engine_cache_enable trt_engine_cache_path trt_timing_cache_enable
        trt_timing_cache_path trt_force_timing_cache trt_cuda_graph_enable trt_force_sequential_engine_build
        trt_context_memory_sharing_enable trt_layer_norm_fp32_fallback trt_build_heuristics_enable trt_sparsity_enable
        trt_builder_optimization_level trt_auxiliary_streams trt_tactic_sources trt_profile_min_shapes
        trt_profile_max_shapes trt_profile_opt_shapes trt_op_types_to_exclude trt_engine_hw_compatible
        """.split()  # noqa: SIM905
    ),
}
OPENVINO_PROPERTIES = frozenset(
    """
    INFERENCE_PRECISION_HINT INFERENCE_NUM_THREADS PERFORMANCE_HINT EXECUTION_MODE_HINT NUM_STREAMS ENABLE_CPU_PINNING
    ENABLE_HYPER_THREADING SCHEDULING_CORE_TYPE MODEL_DISTRIBUTION_POLICY DYNAMIC_QUANTIZATION_GROUP_SIZE
    KV_CACHE_PRECISION CPU_RUNTIME_CACHE_CAPACITY CPU_DENORMALS_OPTIMIZATION
    """.split()  # noqa: SIM905
)
ENVIRONMENT = frozenset(
    """
    ORT_DISABLE_TELEMETRY OMP_NUM_THREADS OMP_WAIT_POLICY CUDA_MODULE_LOADING NVIDIA_TF32_OVERRIDE MALLOC_ARENA_MAX
    MALLOC_TRIM_THRESHOLD_ MALLOC_MMAP_THRESHOLD_ ONEDNN_PRIMITIVE_CACHE_CAPACITY
    """.split()  # noqa: SIM905
)
ENGINES = "/tmp/ortc-engines"  # noqa: S108  # the one place that session.json may name
NAMED = 8  # nodes that a message names
NO_GRAPH = -1  # the gpu_graph_id of a run that is neither captured nor replayed
MOST_CLIENTS = 1024
_COMPANIONS = ("measurements", "attestations")  # may join a bundle after it was published; outside its digests
Arrays = dict[str, NDArray[Any]]
State = tuple[int, int, int, int, int]  # of a file: device, inode, bytes, times of modification and of change
Placed = tuple[str, str, str, str]  # a node: its provider, name, op_type, domain


class BundleError(Exception):
    """Something is not as the bundle promises. `code` is stable and for machines, the message is for people."""

    code: ClassVar[str] = "bundle"
    exit_code: ClassVar[int] = 1


class UsageError(BundleError):
    """The command line or a worker's request is wrong."""

    code, exit_code = "usage", 2


class FormatError(BundleError):
    """The directory is not a bundle, or not one that this loader reads."""

    code, exit_code = "format", 3


class DigestError(BundleError):
    """A file's bytes are not those that were published."""

    code, exit_code = "digest-mismatch", 4


class FilesError(BundleError):
    """A file is missing, unexpected, or outside the bundle."""

    code, exit_code = "files", 4


class RuntimeVersionError(BundleError):
    """ONNX Runtime is missing or too old."""

    code, exit_code = "runtime-version", 5


class ProvidersError(BundleError):
    """ONNX Runtime cannot use the execution providers that the bundle asks for."""

    code, exit_code = "providers", 6


class PlacementError(BundleError):
    """More graph nodes run on the CPU than the bundle allows."""

    code, exit_code = "placement", 7


class SessionError(BundleError):
    """ONNX Runtime refused the model, or failed while it ran."""

    code, exit_code = "session", 8


class GoldenError(BundleError):
    """The model does not give the answers that were recorded at build time."""

    code, exit_code = "golden", 9


class InputError(BundleError):
    """The caller's inputs, or the outputs asked for, do not fit the model."""

    code, exit_code = "input", 10


class ThreadsError(BundleError):
    """The number of threads asked for is not a positive whole number."""

    code, exit_code = "threads", 11


class NumericsError(BundleError):
    """An output holds NaN, which it never did at build time."""

    code, exit_code = "numerics", 13


@dataclass(frozen=True)
class Axis:
    """A dynamic axis: every `multiple_of` from `min` to `max` was checked, or lies between sizes that were."""

    name: str
    min: int
    typical: int
    max: int
    multiple_of: int = 1


@dataclass(frozen=True)
class Tensor:
    """An input or an output; `shape` holds axis names, fixed sizes, and for outputs None where unknown."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[str | int | None, ...]
    range: tuple[float, float] | None = None


# --- files ---------------------------------------------------------------------------------------------------------


def _read_json(path: Path, content: bytes | None = None) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes() if content is None else content)
    except FileNotFoundError:
        raise FormatError(f"{path.parent} is not a bundle: it has no {path.name}. Give a bundle's directory.") from None
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is not JSON: {error}. Get the bundle again.") from error
    if not isinstance(document, dict) or document.get("format_version") != FORMAT_VERSION:
        found = document.get("format_version") if isinstance(document, dict) else type(document).__name__
        raise FormatError(
            f"{path}: format_version is {found!r}, this loader reads {FORMAT_VERSION}. "
            "Use the loader that lies in the bundle's own runtime/."
        )
    return document


@contextlib.contextmanager
def _parsing(path: Path) -> Iterator[None]:
    """Whatever a malformed document trips over becomes a FormatError that names the file."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problem = f"has no {error}" if isinstance(error, KeyError) else f"is malformed: {error}"
        raise FormatError(f"{path} {problem}. Expected the format of docs/bundle.md; get the bundle again.") from error


def inside(root: Path, path: str) -> Path:
    """The file that `path` names in the bundle at `root`; FilesError when it is, or leads, anywhere else."""
    pure = PurePosixPath(path)
    if not path or "\0" in path or str(pure) != path or pure.is_absolute() or ".." in pure.parts or path == ".":
        raise FilesError(f"manifest.json names the file {path!r}. Expected a plain relative path inside the bundle.")
    found = root / path
    if not found.resolve().is_relative_to(root.resolve()):
        raise FilesError(f"{path} is a link to {found.resolve()}, outside the bundle. Put the file itself there.")
    return found


def _hashed(path: Path) -> tuple[str, State]:
    """The digest of a file, and the state of the very file that was read."""
    try:
        with path.open("rb") as file:
            state = _state(os.fstat(file.fileno()))
            return hashlib.file_digest(file, "sha256").hexdigest(), state
    except OSError as error:
        raise FilesError(f"{path} cannot be read: {error.strerror}.") from error


def _state(status: os.stat_result) -> State:
    """What differs once a file is written, or another one is put in its place: no program sets the time of change."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def check_unchanged(root: Path, seen: Mapping[str, State]) -> None:
    """Check that files and directories are those that were verified.

    ONNX Runtime opens the model by its path, and maps it, after it was verified: this is called once it has.

    Raises:
        DigestError: One was written, replaced or moved in the meantime; the message names it.
    """
    for path, state in seen.items():
        try:
            same = _state((root / path).stat()) == state
        except OSError:
            same = False
        if not same:
            raise DigestError(
                f"{path} was changed or replaced while the bundle was loaded. Load it from a place that nobody writes "
                "to meanwhile."
            )


def _sums(root: Path) -> dict[str, str]:
    """What SHA256SUMS says: path -> digest, in the format of `sha256sum`."""
    path = root / "SHA256SUMS"
    sums: dict[str, str] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise FilesError(f"{path} is missing. Get the bundle again.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise FilesError(f"{path} cannot be read: {error}.") from error
    for number, line in enumerate(lines, 1):
        match = re.fullmatch(r"([0-9a-f]{64}) [ *](.+)", line)
        if match is None or match[2] in sums:
            raise DigestError(f"{path}, line {number}: expected `sha256  path`, each path once; found {line[:100]!r}.")
        sums[match[2]] = match[1]
    return sums


def _same_digest(path: str, found: str, expected: str, source: str) -> None:
    if found != expected:
        raise DigestError(
            f"{path} was changed or damaged: its sha256 is {found}, {source} says {expected}. Get the bundle again."
        )


def _present(root: Path) -> Iterator[str]:
    """Every file of the bundle, links to directories included, but for what may come and go."""

    def refuse(error: OSError) -> NoReturn:
        raise FilesError(f"{error.filename} cannot be read: {error.strerror}.") from error

    for folder, names, files in os.walk(root, onerror=refuse):
        here = Path(folder)
        names[:] = [n for n in names if n != "__pycache__" and not (here == root and n in _COMPANIONS)]
        for name in [*files, *(n for n in names if (here / n).is_symlink())]:
            yield (here / name).relative_to(root).as_posix()


def verify_files(
    root: Path,
    manifest: Mapping[str, Any],
    sums: Mapping[str, str],
    *,
    fast: bool,
    seen: dict[str, State] | None = None,
) -> None:
    """Compare the files of the bundle with its manifest and with SHA256SUMS.

    Both ways the set of files must be exact and every size right. `fast` then trusts a file whose modification time is
    the manifest's stamp and hashes the others; otherwise every file is hashed. `seen` takes the state of every file and
    directory as it was verified, but for those that Python keeps bytecode in.

    Raises:
        DigestError: A file, or one of the two lists, was changed; the message names it.
        FilesError: A file is missing, unexpected, or outside the bundle; the message names it.
    """
    listed = {str(entry["path"]): (str(entry["sha256"]), int(entry["bytes"])) for entry in manifest["files"]}
    stamp = int(manifest["stamp"])
    seen = {} if seen is None else seen
    for path in sorted(listed.keys() ^ (sums.keys() - {"manifest.json"})):
        has, lacks = ("manifest.json", "SHA256SUMS") if path in listed else ("SHA256SUMS", "manifest.json")
        raise DigestError(f"{has} lists {path!r}, {lacks} does not. Get the bundle again.")
    for path in sorted(set(_present(root)) - listed.keys() - {"manifest.json", "SHA256SUMS"}):
        raise FilesError(f"{path} is in the bundle and not in manifest.json. Remove it, or get the bundle again.")
    for path, (digest, size) in listed.items():
        file = inside(root, path)
        # Directories first: whoever swaps a file, or one of them, and swaps it back leaves a time of change.
        for folder in map(str, reversed(PurePosixPath(path).parents)):
            if folder not in seen and folder.partition("/")[0] != "runtime" and (root / folder).is_dir():
                seen[folder] = _state((root / folder).stat())
        if not file.is_file():
            raise FilesError(f"{path} is in manifest.json and missing from {root}. Get the bundle again.")
        if sums[path] != digest:
            raise DigestError(f"SHA256SUMS and manifest.json disagree about {path}. Get the bundle again.")
        status = file.stat()
        if status.st_size != size:
            raise DigestError(f"{path} has {status.st_size} bytes, manifest.json says {size}. Get the bundle again.")
        seen[path] = _state(status)
        if not fast or int(status.st_mtime) != stamp:
            found, seen[path] = _hashed(file)
            _same_digest(path, found, digest, "manifest.json")


def read_manifest(root: Path, verify: str, seen: dict[str, State] | None = None) -> dict[str, Any]:
    """The manifest of the bundle at `root`, after the files were verified as `verify` (full, fast or none) says.

    `seen` takes the state of the files as they were verified, for `check_unchanged`.
    """
    if verify not in ("full", "fast", "none"):
        raise UsageError(f"verify is {verify!r}. Expected full, fast or none.")
    path = root / "manifest.json"
    sums, content = None, None
    if verify != "none" and path.is_file():
        sums = _sums(root)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise FilesError(f"{path} cannot be read: {error.strerror}.") from error
        found = hashlib.sha256(content).hexdigest()
        _same_digest("manifest.json", found, sums.get("manifest.json", "nothing"), "SHA256SUMS")
    manifest = _read_json(path, content)
    if manifest.get("kind") != "ortc-bundle":
        raise FormatError(f"{path}: kind is {manifest.get('kind')!r}, expected 'ortc-bundle'.")
    if sums is not None:
        with _parsing(path):
            verify_files(root, manifest, sums, fast=verify == "fast", seen=seen)
    return manifest


def read_npz(path: Path, error: type[BundleError] = InputError) -> Arrays:
    """The arrays of an .npz file, in this machine's byte order; pickled objects are never read.

    What headers promise is compared with what the file holds before memory is taken.
    """
    import struct
    import zipfile
    import zlib

    broken = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OverflowError, RuntimeError, LookupError)
    try:
        with path.open("rb") as stream:
            if stream.read(6) == b"\x93NUMPY":
                raise error(f"{path} is a single array. Expected an .npz file, with the inputs' names as keys.")
            arrays: Arrays = {}
            with zipfile.ZipFile(stream) as archive:
                _check_members(archive.infolist(), path.stat().st_size)
                for entry in archive.infolist():
                    with archive.open(entry) as member:
                        arrays[entry.filename[:-4]] = _read_array(member, entry.file_size)
            return arrays
    except (OSError, ValueError, *broken) as problem:
        raise error(f"{path} cannot be read as .npz: {problem or type(problem).__name__}.") from problem


def read_npy(path: Path, error: type[BundleError] = InputError) -> NDArray[Any]:
    """The array of an .npy file, under the same rules."""
    try:
        with path.open("rb") as stream:
            return _read_array(stream, path.stat().st_size)
    except (OSError, ValueError) as problem:
        raise error(f"{path} cannot be read as .npy: {problem}.") from problem


def _check_members(members: Sequence[Any], size: int) -> None:
    """Refuse an archive whose members are no arrays, are there twice, overlap or unpack to too much."""
    stored, deflated = 0, 8
    names: set[str] = set()
    end = unpacked = 0
    for member in sorted(members, key=lambda entry: entry.header_offset):
        name = ascii(member.filename[:80])
        if not member.filename.endswith(".npy") or member.compress_type not in (stored, deflated):
            raise ValueError(f"its member {name} is no array as numpy.savez writes them")
        if member.filename in names:
            raise ValueError(f"{name} is there more than once")
        if member.header_offset < end or member.header_offset + member.compress_size > size:
            raise ValueError(f"{name} reaches into others, or beyond the end of the file")
        if member.compress_type == stored and member.file_size != member.compress_size:
            raise ValueError(f"{name} has two lengths")
        names.add(member.filename)
        end = member.header_offset + member.compress_size
        unpacked += member.file_size if member.compress_type == deflated else 0
    if unpacked > MOST_UNPACKED:
        raise ValueError(f"compressed arrays unpack to {unpacked} bytes, more than {MOST_UNPACKED}")


def _read_array(stream: Any, size: int) -> NDArray[Any]:
    """The array in the .npy format of so many bytes in all."""
    import ast

    start = stream.read(8)
    width = {b"\x93NUMPY\x01\x00": 2, b"\x93NUMPY\x02\x00": 4}.get(start, 0)
    length = int.from_bytes(stream.read(width), "little")
    if not width or not 0 < length <= 10_000:
        raise ValueError("it does not begin as an array does")
    try:
        header = ast.literal_eval(stream.read(length).decode("latin-1").strip())
        descr, fortran, shape = header["descr"], header["fortran_order"], header["shape"]
    except (SyntaxError, ValueError, TypeError, LookupError, RecursionError, MemoryError) as problem:
        raise ValueError("the header of an array cannot be read") from problem
    if not isinstance(descr, str) or not re.fullmatch(r"[<>|=]?(b1|[iu][1248]|f[248]|c(8|16)|[SU][1-9]\d{0,8})", descr):
        raise ValueError(f"the type {ascii(descr)[:80]}: pickled objects and records are not read")
    if not isinstance(shape, tuple) or len(shape) > 32 or not all(type(s) is int and 0 <= s < 2**48 for s in shape):
        raise ValueError(f"the shape {ascii(shape)[:80]} of an array")
    dtype, held = np.dtype(descr), size - len(start) - width - length
    wanted = math.prod(shape) * dtype.itemsize
    if wanted != held:
        raise ValueError(f"an array of {wanted} bytes by its header, and {held} bytes in the file")
    content = np.empty(held, np.uint8)
    at = 0
    while chunk := stream.read(1 << 20):
        if at + len(chunk) > held:
            raise ValueError("an array that is longer than its header says")
        content[at : at + len(chunk)] = np.frombuffer(chunk, np.uint8)
        at += len(chunk)
    if at != held:
        raise ValueError("an array that is shorter than its header says")
    array = content.view(dtype)
    if not dtype.isnative:
        array = array.byteswap(inplace=True).view(dtype.newbyteorder("="))
    return array.reshape(shape[::-1]).T if fortran is True else array.reshape(shape)


def write_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Like numpy.savez, for any names (savez refuses `file`) and exactly at `path` (savez appends .npz)."""
    import zipfile

    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


# --- threads -------------------------------------------------------------------------------------------------------


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:  # not there in this kernel, container or board: the caller has an answer for that
        return ""


def cpu_quota(root: Path = Path("/")) -> float:
    """CPUs that the cgroups of this process may use together: the least quota on the way up; infinite when none.

    Each cgroup path is looked for under the usual mount points. In a container the path may be the host's and absent
    here; walking up from it still ends at the mount point, which then is the container's own cgroup.
    """
    quota = math.inf
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
        for mount in (controllers, "cpu") if controllers else ("", "unified"):
            for depth in range(len(parts) + 1):
                here = (root / "sys/fs/cgroup" / mount).joinpath(*parts[:depth])
                if controllers:
                    values = [_text(here / "cpu.cfs_quota_us"), _text(here / "cpu.cfs_period_us")]
                else:
                    values = _text(here / "cpu.max").split()
                # `max` and -1 stand for no limit.
                if len(values) == 2 and all(v.isascii() and v.isdigit() for v in values) and int(values[1]):
                    quota = min(quota, int(values[0]) / int(values[1]))
    return quota


def physical_cores(root: Path = Path("/"), cpus: Iterable[int] | None = None) -> int:
    """Physical cores that this process may use: those of its affinity (cpusets included), within the CPU quota.

    Hardware threads of one core count once; a CPU whose topology the kernel does not tell counts as a core. A quota of
    1.5 CPUs gives one core: a second thread would only be throttled.
    """
    if cpus is None:
        # Not on every platform; there every CPU is ours.
        affinity = getattr(os, "sched_getaffinity", None)
        cpus = affinity(0) if affinity else range(os.cpu_count() or 1)
    cores = set()
    for cpu in cpus:
        topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        cores.add(_text(topology / "core_cpus_list") or _text(topology / "thread_siblings_list") or str(cpu))
    quota = cpu_quota(root)
    return max(1, len(cores) if math.isinf(quota) else min(len(cores), math.floor(quota)))


def thread_count(policy: object, threads: int | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Threads for one operator: `threads`, else ORT_INTRA_OP_NUM_THREADS, else the policy of session.json."""
    variable = environ.get("ORT_INTRA_OP_NUM_THREADS", "").strip()
    if threads is not None:
        source, value = "threads", threads
    elif variable:
        source, value = "ORT_INTRA_OP_NUM_THREADS", int(variable) if re.fullmatch("[0-9]{1,9}", variable) else -1
    elif policy == "physical":
        return physical_cores()
    else:
        source, value = "session.json: threads.intra_op", policy if isinstance(policy, int) else -1
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        found = variable if source.startswith("ORT") else policy if source.startswith("session") else value
        raise ThreadsError(f"{source} is {found!r}. Expected a whole number of at least 1.")
    return value


# --- ONNX Runtime --------------------------------------------------------------------------------------------------


def cpu_fields(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
    """What the kernel says of the first processor; nothing where it does not."""
    try:
        block = cpuinfo.read_text("utf-8", "replace").partition("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in block.splitlines())
    return {key.strip(): value.strip() for key, separator, value in pairs if separator}


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The kind of this machine's first processor, as far as kernels differ by it; empty where nothing tells."""
    fields = cpu_fields(cpuinfo)
    kind = [fields[key] for key in PROCESSOR_FIELDS if key in fields]
    known = _flags(fields)
    found = [flag for flag in PROCESSOR_FLAGS if flag in known]
    return " ".join([platform.machine(), *kind, *found]) if kind and found else ""


def adds_in_32_bits(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this processor adds products of 8-bit integers in 32 bits at once (VNNI); False where nothing tells."""
    return not _flags(cpu_fields(cpuinfo)).isdisjoint(("avx512_vnni", "avx_vnni"))


def _flags(fields: Mapping[str, str]) -> set[str]:
    return set((fields.get("flags") or fields.get("Features") or "").split())


def graph_of(root: Path, model: Path, config: Mapping[str, Any], version: str) -> tuple[Path, bool]:
    """The graph to open: the one with packed weights where this processor and this onnxruntime are those it is for.

    Returns:
        Its file, and whether it is that one: it was optimized when it was made.
    """
    packed = config.get("prepacked")
    if not packed:
        return model, False
    fits = packed["runtime"] == version and packed["processor"] == processor() != ""
    return (inside(root, str(packed["file"])), True) if fits else (model, False)


def _release(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def import_runtime(runtime: Mapping[str, str], environment: Mapping[str, str]) -> Any:
    """Import onnxruntime with `environment` set (never overriding what is set already) and check its version.

    The rule: any version from `minimum_version` on, a newer series too; the golden self-test then shows whether that
    one still computes the same. Suffixes such as `.dev1` or `+cu13` are not compared.
    """
    for name, value in environment.items():
        os.environ.setdefault(name, value)
    least = runtime["minimum_version"]
    wanted = f"Expected {least} or newer: install {runtime['package']}=={runtime['version']} (see requirements.txt)."
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise RuntimeVersionError(f"onnxruntime cannot be imported: {error}. {wanted}") from error
    if _release(ort.__version__) < _release(least):
        raise RuntimeVersionError(f"onnxruntime is {ort.__version__}, too old. {wanted}")
    return ort


def refuse_settings(config: Mapping[str, Any]) -> None:
    """Check that session.json says nothing but how to compute.

    Raises:
        ValueError: It holds an option, a property or a variable that is not on the lists above.
    """
    named = [
        ("session_options", config["session_options"], SESSION_OPTIONS),
        ("config_entries", config["config_entries"], CONFIG_ENTRIES),
        ("environment", config["environment"], ENVIRONMENT),
    ]
    for entry in config["providers"]:
        name, options = str(entry["name"]), entry["options"]
        # A provider that is not listed is refused with the session.
        named.append((f"the options of {name}", options, PROVIDER_OPTIONS.get(name, frozenset())))
        if name == OPENVINO:
            for device, properties in json.loads(options.get("load_config", "{}")).items():
                named.append((f"the properties of OpenVINO's {device!r}", properties, OPENVINO_PROPERTIES))
        paths = {key: value for key, value in options.items() if key.endswith("_path") and value != ENGINES}
        if paths:
            raise ValueError(f"{', '.join(map(repr, sorted(paths)))} of {name}: expected {ENGINES} and no other place")
    for where, given, allowed in named:
        other = sorted(str(name) for name in given if name not in allowed)
        if other:
            raise ValueError(f"{where} may not have {', '.join(map(repr, other[:NAMED]))}, which loaders refuse")


def provider_options(name: str, options: Mapping[str, Any], threads: int, requests: int = 1) -> dict[str, Any]:
    """The options of a provider as session.json has them; for OpenVINO on the CPU with the thread policy in them.

    OpenVINO has threads of its own, one for every core of the affinity: it knows nothing of a CPU quota, nor of
    intra_op_num_threads. It binds them to the first cores, so that two processes of one thread each run at half speed
    on one core; here they are not bound unless session.json says so. `load_config` outweighs `num_of_threads`. They
    serve one request after the other, however many callers there are, unless they are parted into streams.

    Raises:
        ValueError: The options set the number of threads themselves, or hold what OpenVINO would ignore.
    """
    given, device = dict(options), options.get("device_type", "CPU")
    if name != OPENVINO or "CPU" not in device:
        return given
    devices = json.loads(given.get("load_config", "{}"))
    if device != "CPU" or devices.keys() - {"CPU"}:
        raise ValueError(f"{name}: expected the device CPU and no other, found {device}, {', '.join(devices)}")
    properties = dict(devices.get("CPU", {}))
    if "num_of_threads" in given or "INFERENCE_NUM_THREADS" in properties:
        raise ValueError(f"{name}: the options set a number of threads, which is for threads.intra_op to say")
    # It takes any other text for no hint.
    hint = properties.get("INFERENCE_PRECISION_HINT", "f32")
    if hint not in ("bf16", "f16", "f32"):
        raise ValueError(f"{name}: INFERENCE_PRECISION_HINT is {hint!r}, expected bf16, f16 or f32")
    streams = {"NUM_STREAMS": str(requests)} if requests > 1 else {}
    properties = {"ENABLE_CPU_PINNING": "NO", **streams, **properties, "INFERENCE_NUM_THREADS": str(threads * requests)}
    return given | {"device_type": device, "load_config": json.dumps({"CPU": properties})}


def _create_session(
    ort: Any,
    model: Path,
    config: Mapping[str, Any],
    threads: int,
    requests: int,
    *,
    optimized: bool = False,
    profile: Path | None = None,
) -> Any:
    """An InferenceSession with what session.json says, on exactly the providers that it asks for.

    A graph that is `optimized` already is taken as it is. With `profile`, ONNX Runtime records what every node does in
    files whose names begin so.
    """
    options = ort.SessionOptions()
    for name, value in config["session_options"].items():
        if not hasattr(options, name):
            raise ValueError(f"session_options.{name} does not exist in onnxruntime {ort.__version__}")
        known = ENUMERATIONS.get(name)
        if known is not None and value not in known:
            raise ValueError(f"session_options.{name} is {value!r}, expected one of {', '.join(known)}")
        setattr(options, name, getattr(type(getattr(options, name)), known[value]) if known else value)
    if optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = int(config["threads"]["inter_op"])
    for name, value in config["config_entries"].items():
        # Where nothing overflows it changes no answer, and products take half again as long.
        if name != UNSIGNED_WEIGHTS or not adds_in_32_bits():
            options.add_session_config_entry(name, value)
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    providers = [
        (str(p["name"]), provider_options(p["name"], p["options"], threads, requests)) for p in config["providers"]
    ]
    asked = [name for name, _ in providers]
    available = ort.get_available_providers()
    missing = [name for name in asked if name not in available]
    if missing or not asked:
        raise ProvidersError(
            f"session.json asks for {', '.join(asked) or 'no provider'}; this onnxruntime {ort.__version__} has "
            f"{', '.join(available)}. Install the package of requirements.txt, or use a bundle for another target."
        )
    if other := [name for name in asked if name not in PROVIDER_OPTIONS]:
        raise ProvidersError(
            f"session.json asks for {', '.join(other)}. Loaders refuse all but {', '.join(PROVIDER_OPTIONS)}."
        )
    # Its notes about missing libraries go to stdout.
    with contextlib.redirect_stdout(sys.stderr):
        if any(name in (CUDA, TENSORRT) for name in asked):
            getattr(ort, "preload_dlls", lambda: None)()
        try:
            session = ort.InferenceSession(model, options, providers=providers, enable_fallback=0)
        except Exception as error:
            # Models fail with classes of their own; a provider that cannot start with a RuntimeError or EPFail, or, as
            # OpenVINO does for a property that it does not know, from its own code.
            ours = isinstance(error, RuntimeError) or type(error).__name__ == "EPFail" or "openvino_ep::" in str(error)
            provider = asked != [CPU] and ours
            kind = ProvidersError if provider else SessionError
            what = f"onnxruntime {ort.__version__} cannot open {model} on {', '.join(asked)}"
            hint = lacking(asked, str(getattr(ort, "cuda_version", "") or "")) if provider else ""
            raise kind(f"{what}: {_line(error)}{hint}") from error
    if session.get_providers() != asked:
        why = lacking(asked, str(getattr(ort, "cuda_version", "") or ""))
        raise ProvidersError(
            f"session.json asks for {', '.join(asked)}; onnxruntime gave {', '.join(session.get_providers())}."
            + (
                why
                or " Its log on stderr says why: most often a driver or a library (CUDA, cuDNN, TensorRT) is missing, "
                "or a provider refuses a value of its options."
            )
        )
    return session


def lacking(asked: Sequence[str], version: str, load: Callable[[str], Any] | None = None) -> str:
    """What NVIDIA's providers lack here and what to install, as a sentence after others; empty where nothing is known.

    Args:
        asked: The providers asked for.
        version: The CUDA that ONNX Runtime was built for.
        load: Opens a shared library by its name, OSError where it is not there; by default the linker does.
    """
    if not {CUDA, TENSORRT}.intersection(asked):
        return ""
    import ctypes

    load = load or ctypes.CDLL
    major = version.partition(".")[0]
    driver, capability, libraries = CUDA_NEEDS.get(major, ("", (0, 0), ()))
    try:
        cuda = load("libcuda.so.1")
    except OSError:
        newest = f"driver {driver} or newer" if driver else "one"
        return (
            f" There is no NVIDIA driver here (libcuda.so.1). Install {newest} on the machine, and give a container "
            "its GPU (docker run --gpus all; nvidia.com/gpu in Kubernetes)."
        )
    number, tenths = ctypes.c_int(), ctypes.c_int()
    if cuda.cuDriverGetVersion(ctypes.byref(number)) == 0 and major and number.value // 1000 < int(major):
        serves = f"{number.value // 1000}.{number.value % 1000 // 10}"
        return (
            f" The NVIDIA driver serves CUDA {serves}, this onnxruntime is for CUDA {version}. Update it to "
            f"{driver or 'one for that CUDA'} or newer."
        )
    if cuda.cuInit(0) != 0 or cuda.cuDeviceGetCount(ctypes.byref(number)) != 0 or number.value == 0:
        return (
            " There is an NVIDIA driver, and no GPU that this process may use. See CUDA_VISIBLE_DEVICES and nvidia-smi."
        )
    # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of the first device.
    told = [cuda.cuDeviceGetAttribute(ctypes.byref(part), 75 + at, 0) for at, part in enumerate((number, tenths))]
    if told == [0, 0] and (number.value, tenths.value) < capability:
        return (
            f" The GPU has compute capability {number.value}.{tenths.value}, CUDA {version} needs "
            f"{capability[0]}.{capability[1]} or higher. Use a newer GPU, or a bundle for another target."
        )
    absent = []
    for name in (*libraries, *(("libnvinfer.so.10",) if TENSORRT in asked else ())):
        try:
            load(name)
        except OSError:
            absent.append(name)
    if not absent:
        return ""
    how = "pip install --require-hashes -r requirements.txt of the bundle"
    if "libnvinfer.so.10" in absent:
        how = "TensorRT 10, or use the base image of the bundle's Dockerfile"
    return f" {', '.join(absent)} cannot be loaded. Install what holds them: {how}."


def check_used(placement: Sequence[Placed]) -> None:
    """Raise ProvidersError when OpenVINO, which was asked for, runs no node.

    A device that it does not have, or an unknown one, is no error to it: it stays in the list of providers, and leaves
    every node to the CPU.
    """
    if placement and not any(provider == OPENVINO for provider, *_ in placement):
        raise ProvidersError(
            f"{OPENVINO} runs none of the {len(placement)} nodes, all fall back to another provider. Expected a "
            "device_type that this machine has, and operators that OpenVINO knows."
        )


def left_to_cpu(
    placement: Sequence[Placed], shape_nodes: Mapping[str, Sequence[str]]
) -> tuple[list[Placed], list[Placed]]:
    """The nodes on the CPU: those that compute nothing but shapes, and all others.

    `shape_nodes` are names by operator (with its domain where that is not ONNX's), as the manifest has them of the
    graph that ships. ONNX Runtime keeps names while it optimizes; what it makes anew, or makes another operator of, is
    not known to be about shapes, and is among the others.
    """
    known = {(operator, name) for operator, names in shape_nodes.items() for name in names}
    shapes: list[Placed] = []
    others: list[Placed] = []
    for node in placement:
        provider, name, op_type, domain = node
        if provider == CPU:
            operator = op_type if domain in ("", "ai.onnx") else f"{domain}::{op_type}"
            (shapes if (operator, name) in known else others).append(node)
    return shapes, others


def check_placement(
    placement: Sequence[Placed], budget: int | None, shape_nodes: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> None:
    """Raise PlacementError when more nodes run on the CPU than `budget` (None: any number) allows.

    Those that compute shapes do not count: ONNX Runtime leaves them there by design, whatever provider leads.
    """
    shapes, others = left_to_cpu(placement, shape_nodes)
    if budget is not None and len(others) > budget:
        besides = f" besides {len(shapes)} that compute shapes" if shapes else ""
        raise PlacementError(
            f"{len(others)} of {len(placement)} nodes run on the CPU{besides}, placement.max_cpu_nodes allows {budget}"
            f": {', '.join(_called(others))}{', ...' if len(others) > NAMED else ''}."
        )


def _called(nodes: Sequence[Placed]) -> list[str]:
    """The first few by operator and name."""
    return [f"{op} {name!r}" for _, name, op, _ in nodes[:NAMED]]


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    import difflib  # here and below, inside: 20 ms of a cold start for what most processes never need

    close = difflib.get_close_matches(name, list(known), 1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _warn(message: object) -> None:
    print(f"warning: {message}", file=sys.stderr, flush=True)


# --- golden answers ------------------------------------------------------------------------------------------------


def worst_cosine(expected: NDArray[np.float64], observed: NDArray[np.float64]) -> float:
    """The least cosine similarity of any sample (row of axis 0), of finite values.

    Two samples of zeros are equal: 1; a sample of zeros and another: 0.
    """
    if not expected.size:
        return 1.0
    x, y = (a.reshape(a.shape[0] if a.ndim else 1, -1) for a in (expected, observed))
    # Scaled so that squares of large or tiny values neither overflow nor vanish.
    tops = (np.abs(a).max(axis=1, keepdims=True) for a in (x, y))
    x, y = (a / np.where(top > 0, top, 1) for a, top in zip((x, y), tops, strict=True))
    norms = np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))
    cosine = np.where(norms > 0, (x * y).sum(axis=1) / np.where(norms > 0, norms, 1), (x == y).all(axis=1))
    return float(min(1.0, cosine.min()))


def worst_relative_error(expected: NDArray[np.float64], observed: NDArray[np.float64]) -> float:
    """The greatest L2 norm of the error of any sample (row of axis 0), over the norm of the sample."""
    x, y = (a.reshape(a.shape[0] if a.ndim else 1, -1) for a in (expected, observed))
    # Scaled as for the cosine.
    top = np.maximum(np.abs(x).max(axis=1, keepdims=True), np.abs(y).max(axis=1, keepdims=True))
    top = np.where(top > 0, top, 1)
    errors, norms = (np.sqrt(np.square(a / top).sum(axis=1)) for a in (x - y, x))
    infinite = np.where(errors > 0, np.inf, 0.0)
    return float(np.divide(errors, norms, out=infinite, where=norms > 0).max())


def compare(
    expected: NDArray[Any], observed: NDArray[Any], tolerance: Mapping[str, Any], mask: NDArray[Any] | None = None
) -> tuple[dict[str, float], str | None]:
    """Compare one output with what PyTorch gave: ({"max_abs", "cosine"}, what is wrong or None).

    `mask` [batch, sequence] counts where the output's first two dimensions are the mask's.
    """
    result = {"max_abs": 0.0, "cosine": 1.0}
    if observed.shape != expected.shape:
        return result, f"shape is {list(observed.shape)}, expected {list(expected.shape)}"
    if expected.dtype.kind != "f" or observed.dtype.kind != "f":
        if observed.dtype.kind != expected.dtype.kind:
            return result, f"dtype is {observed.dtype}, expected {expected.dtype}"
        wrong, least = int((observed != expected).sum()), tolerance.get("top1_agreement")
        if not wrong or (least is not None and (expected.size - wrong) / expected.size >= least):
            return result, None
        most = "all equal" if least is None else f"{least:.2%} equal"
        return result, f"{wrong} of {expected.size} values differ, expected {most}"
    x, y = expected.astype(np.float64), observed.astype(np.float64)
    if mask is not None and mask.ndim == 2 and x.shape[:2] == mask.shape:
        # What stands at padding is nobody's answer, and there rounding errors grow beyond any useful bound.
        keep = (mask != 0).reshape(mask.shape + (1,) * (x.ndim - 2))
        if not keep.any():
            return result, "the mask leaves nothing to compare"
        x, y = np.where(keep, x, 0), np.where(keep, y, 0)
    finite = np.isfinite(x)
    # assert_array_equal's rule: NaN where NaN is expected, the same infinity where one is.
    odd = int((~np.where(finite, np.isfinite(y), (np.isnan(x) & np.isnan(y)) | (x == y))).sum())
    if odd:
        return result, f"{odd} of {x.size} values are NaN or infinite in one and not so in the other"
    x, y = np.where(finite, x, 0), np.where(finite, y, 0)
    difference = np.abs(x - y)
    result = {"max_abs": float(difference.max(initial=0.0)), "cosine": worst_cosine(x, y)}
    allowed, least = tolerance["max_abs"], tolerance["cosine"]
    if allowed is None and least is None:
        raise ValueError("golden tolerance has neither max_abs nor cosine")
    # Written so that a NaN fails.
    if allowed is not None and not result["max_abs"] <= allowed:
        at = np.unravel_index(int(difference.argmax()), x.shape)
        place = f"at {[int(i) for i in at]}: expected {x[at]:.6g}, found {y[at]:.6g}"
        return result, f"max_abs is {result['max_abs']:.3g}, allowed {allowed:.3g} ({place})"
    values = x.size // (x.shape[0] if x.ndim else 1) if x.size else 0
    # Of one value the cosine is its sign, and the difference says more.
    if least is not None and (values > 1 or allowed is None) and not result["cosine"] >= least:
        return result, f"the worst sample's cosine is {result['cosine']:.6f}, allowed {least:.6f}"
    relative = tolerance.get("relative_error")
    if relative is not None and values > FEW and not (far := worst_relative_error(x, y)) <= relative:
        return result, f"the worst sample's relative error is {far:.6f}, allowed {relative:.6f}"
    return result, None


# --- the model -----------------------------------------------------------------------------------------------------


class Model:
    """One loaded bundle. `run` may be called from many threads at once; the session is shared.

    Attributes:
        manifest: manifest.json as read.
        inputs, outputs: The interface, in order.
        axes: The dynamic axes and their bounds.
        providers: Execution providers in order of priority, as ONNX Runtime reports them.
        threads: {"intra_op": n, "inter_op": n} as used.
        concurrency: Runs at once that the session was measured for.
        prepacked: Whether the graph with weights packed for this very kind of processor is the one that is open.
        golden: What the self-test saw, one entry a case; empty when it was skipped.
        seconds: Where the time of loading went: verify, import, session, selftest, warmup, total.
    """

    def __init__(
        self,
        root: Path,
        verify: str,
        threads: int | None,
        strict: bool,
        profile: Path | None = None,
        new_engines: bool = False,
        seen: dict[str, State] | None = None,
    ) -> None:
        """Verify and open; `Model.load` is the way in."""
        clock, self.seconds = time.perf_counter, dict[str, float]()
        started = clock()
        self.root = root
        self.golden: tuple[dict[str, Any], ...] = ()
        self._watch_nan = False
        self._holds_nan: set[str] = set()  # inputs and outputs that have NaN in the golden cases
        self._pool: ThreadPoolExecutor | None = None
        self._pool_lock = threading.Lock()
        self._profiled = profile is not None
        self._engines: Engines | None = None
        # The files as they were verified: by an earlier opening, or now.
        self._seen: dict[str, State] = {} if seen is None else seen
        self.manifest: Mapping[str, Any] = self._manifest(root, verify, self._seen, strict)
        path, config_path = root / "manifest.json", root / "session.json"
        with _parsing(path):
            self.name, self.version, self.target = (str(self.manifest[k]) for k in ("name", "version", "target"))
            self.axes = tuple(
                Axis(str(a["name"]), int(a["min"]), int(a["typical"]), int(a["max"]), int(a.get("multiple_of", 1)))
                for a in self.manifest["axes"]
            )
            self.inputs, self.outputs = (
                tuple(_tensor(entry) for entry in self.manifest[key]) for key in ("inputs", "outputs")
            )
            self._bounds = {axis.name: axis for axis in self.axes}
            for entry in (entry for tensor in self.inputs for entry in tensor.shape):
                if entry not in self._bounds and (not isinstance(entry, int) or entry < 0):
                    raise ValueError(f"an input's shape holds {entry!r}, which is neither an axis nor a size")
            model_file = inside(root, str(self.manifest["model"]["file"]))
            runtime = {k: str(self.manifest["runtime"][k]) for k in ("package", "version", "minimum_version")}
            budget = self.manifest["placement"]["max_cpu_nodes"]
            # Absent in bundles from before shape arithmetic was told apart.
            self._shape_nodes: dict[str, list[str]] = self.manifest["placement"].get("shape_nodes", {})
            _check_names(self._shape_nodes)
        config = _read_json(config_path)
        with _parsing(config_path):
            refuse_settings(config)
            intra_op = thread_count(config["threads"]["intra_op"], threads)
            self.threads = {"intra_op": intra_op, "inter_op": int(config["threads"]["inter_op"])}
            self.concurrency = physical_cores() if config.get("concurrency") == "physical" else 1
            environment = {str(name): str(value) for name, value in config["environment"].items()}
        self.seconds["verify"] = clock() - started

        started = clock()
        ort = import_runtime(runtime, environment)
        self.runtime_version = str(ort.__version__)
        self.seconds["import"] = clock() - started

        started = clock()
        with _parsing(config_path):
            model_file, self.prepacked = graph_of(root, model_file, config, self.runtime_version)
            self._session: Any = self._open(ort, model_file, config, profile, new_engines)
            with _tolerating(DigestError, strict=strict):
                check_unchanged(root, self._seen)
            # A captured CUDA graph reads and writes fixed buffers: one run at a time. All else runs concurrently.
            options = [p["options"] for p in config["providers"]]
        graphs = any(str(o.get(k)).lower() in ("1", "true") for o in options for k in GRAPH_OPTIONS)
        self._lock: contextlib.AbstractContextManager[Any] = threading.Lock() if graphs else contextlib.nullcontext()
        # Shapes of inputs whose run is captured, and their buffers once it was.
        self._captured: dict[tuple[tuple[int, ...], ...], Bound | None] = {}
        self._captures = graphs
        if graphs:
            with _parsing(path):
                self._captured = {self._key(self.example(sizes)): None for sizes in self.manifest.get("warmup", ())}
        self.providers = tuple(self._session.get_providers())
        self._placement: tuple[Placed, ...] = tuple(
            (str(part.ep_name), str(node.name), str(node.op_type), str(node.domain))
            for part in self._session.get_provider_graph_assignment_info()
            for node in part.get_nodes()
        )
        self._check_interface()
        if OPENVINO in self.providers:
            check_used(self._placement)
        if any(provider != CPU for provider in self.providers):
            with _tolerating(PlacementError, strict=strict):
                check_placement(self._placement, budget, self._shape_nodes)
        self.seconds["session"] = clock() - started

    def _open(self, ort: Any, model_file: Path, config: dict[str, Any], profile: Path | None, anew: bool) -> Any:
        """The session; where TensorRT leads, over engines of an earlier start, if there are any that load."""
        while True:
            directed = self._with_engines(config, anew)
            try:
                return _create_session(
                    ort,
                    model_file,
                    directed,
                    self.threads["intra_op"],
                    self.concurrency,
                    optimized=self.prepacked,
                    profile=profile,
                )
            except (ProvidersError, SessionError) as error:
                if anew or not self._suspects_engines(error):
                    if self._engines is not None:
                        self._engines.close()
                    raise
            anew = True

    def _with_engines(self, config: dict[str, Any], anew: bool) -> dict[str, Any]:
        """session.json with TensorRT's caches where this bundle's engines are kept on this machine, or built `anew`."""
        self._engines = None
        chain = config["providers"]
        first = next((entry for entry in chain if entry["name"] == TENSORRT), None)
        if first is None:
            return config
        engines = _engines_module()
        options: dict[str, Any] = first["options"]
        if not engines.wanted(options):
            return config
        base, directory = None, None
        try:
            base = engines.base_of(options)
            machine = engines.machine(self.runtime_version, int(options.get("device_id", 0)))
            self._engines = engines.Engines(base, engines.name_of(self.root, self.manifest, machine), anew=anew)
            directory = self._engines.directory
        except OSError as error:
            _warn(
                f"TensorRT's engines cannot be kept in {base or 'a cache'}: {error.strerror or error}. They are built "
                f"at every start; set {engines.VARIABLE} to a directory that can be written."
            )
        found = [{**e, "options": engines.directed(e["options"], directory)} if e is first else e for e in chain]
        return {**config, "providers": found}

    def _suspects_engines(self, error: BundleError) -> bool:
        """Whether engines of an earlier start may be why `error` came, so that others are worth building beside them.

        Of what providers report, only that an engine cannot be read is: they start, or fail, without engines, too.
        """
        if self._engines is None or not self._engines.kept:
            return False
        if isinstance(error, ProvidersError) and UNREAD_ENGINE not in str(error):
            return False
        _warn(
            f"the engines in {self._engines.directory} may be of no use; others are built beside them, and replace "
            f"them once their answers are right: {error}"
        )
        return True

    def _keep_engines(self) -> None:
        """Keep the engines that were built, because their answers are right; say once where that cannot be."""
        engines = self._engines
        if engines is not None and not engines.obstacle and not engines.keep() and engines.obstacle:
            _warn(f"TensorRT's engines are not kept, and are built again at the next start: {engines.obstacle}.")

    @classmethod
    def load(
        cls,
        bundle: str | os.PathLike[str],
        *,
        verify: str = "full",
        threads: int | None = None,
        strict: bool = True,
        nan: str = "raise",
        selftest: bool = True,
        warmup: bool = True,
        profile: str | os.PathLike[str] | None = None,
    ) -> Model:
        """Open the bundle in the directory `bundle`, ready to answer.

        Args:
            bundle: The directory that holds manifest.json.
            verify: `full` hashes every file; `fast` compares sizes and times and hashes what has another time than
                the manifest's stamp, for cold starts from an image whose layers are digested; `none` trusts.
            threads: Threads for one operator; by default the bundle's policy (see `thread_count`).
            strict: Refuse changed files, golden answers that differ, and more nodes on the CPU than the bundle allows;
                False makes warnings on stderr of these, to look into a bundle that is refused.
            nan: `raise` refuses NaN in inputs and answers wherever the golden cases have none; `allow` lets all pass.
            selftest: Run the golden cases and refuse the bundle when an answer differs.
            warmup: Run once at each shape the manifest lists, so that the first request is not the slow one.
            profile: Let ONNX Runtime record every node that runs, in a file whose name begins so; `executed` reads it.

        Raises:
            BundleError: One of its subclasses; nothing stays open.
        """
        started = time.perf_counter()
        if nan not in ("raise", "allow"):
            raise UsageError(f"nan is {nan!r}. Expected raise or allow.")
        model = cls(Path(bundle), verify, threads, strict, None if profile is None else Path(profile))
        if not model.manifest.get("fit_to_serve"):
            reason = model.manifest.get("unfit_reason")
            _warn(f"{model.name} {model.version} ({model.target}) is not fit to serve: {reason}")
        step = time.perf_counter()
        if selftest:
            with _tolerating(GoldenError, strict=strict):
                try:
                    model.selftest()
                except GoldenError as error:
                    if not model._suspects_engines(error):
                        raise
                    model.close()
                    recorded = None if profile is None else Path(profile)
                    seen = model._seen
                    model = cls(Path(bundle), "none", threads, strict, recorded, new_engines=True, seen=seen)
                    model.selftest()
            with _tolerating(DigestError, strict=strict):
                check_unchanged(model.root, model._seen)
        model.seconds["selftest"] = time.perf_counter() - step
        step = time.perf_counter()
        for sizes in model.manifest.get("warmup", ()) if warmup else ():
            try:
                model.run(model.example(sizes))
            except InputError as error:
                raise FormatError(f"manifest.json: warmup has {sizes}: {error}") from error
        model._watch_nan = nan == "raise"
        model.seconds["warmup"] = time.perf_counter() - step
        model.seconds["total"] = time.perf_counter() - started
        return model

    @staticmethod
    def _manifest(root: Path, verify: str, seen: dict[str, State], strict: bool) -> dict[str, Any]:
        with _tolerating(DigestError, FilesError, strict=strict):
            return read_manifest(root, verify, seen)
        return read_manifest(root, "none")

    def _check_interface(self) -> None:
        for what, listed, infos in (
            ("inputs", self.inputs, self._session.get_inputs()),
            ("outputs", self.outputs, self._session.get_outputs()),
        ):
            names, found = [t.name for t in listed], [i.name for i in infos]
            if sorted(names) != sorted(found):
                raise FormatError(f"manifest.json lists the {what} {names}, the model has {found}. Build it again.")

    def placement(self) -> list[Placed]:
        """Which node runs where, after optimization: (provider, node name, op_type, domain)."""
        return list(self._placement)

    def fallback(self) -> dict[str, Any]:
        """What the first provider left to the CPU.

        Returns:
            `nodes`: how many; `shape_nodes`: how many besides that compute nothing but shapes; `named`: some of the
            former, by operator and name. Nothing where only the CPU was asked for.
        """
        if all(provider == CPU for provider in self.providers):
            return {"nodes": 0, "shape_nodes": 0, "named": []}
        shapes, others = left_to_cpu(self._placement, self._shape_nodes)
        return {"nodes": len(others), "shape_nodes": len(shapes), "named": _called(others)}

    def check(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        """Raise InputError unless `inputs` holds exactly what the model takes.

        Nothing is cast: a Python list, a float64 where float32 is taken, or another byte order is refused, because a
        silent conversion hides mistakes and costs time; the message says what to send. Memory layout is free.
        """
        if not isinstance(inputs, Mapping):
            raise InputError(f"inputs is a {type(inputs).__name__}. Expected a dict of name to numpy array.")
        names = [tensor.name for tensor in self.inputs]
        for name in inputs:
            if name not in names:
                hint = _did_you_mean(str(name), names)
                raise InputError(f"input {name!r} is unknown. Expected {', '.join(names)}.{hint}")
        sizes: dict[str, tuple[int, str]] = {}
        for tensor in self.inputs:
            if tensor.name not in inputs:
                raise InputError(f"input {tensor.name!r} is missing. Send {tensor.dtype} of shape {_shape(tensor)}.")
            self._check_one(tensor, inputs[tensor.name], sizes)

    def _check_one(self, tensor: Tensor, array: object, sizes: dict[str, tuple[int, str]]) -> None:
        name, dtype = f"input {tensor.name!r}", tensor.dtype
        if not isinstance(array, np.ndarray) or _is_masked(array):
            raise InputError(f"{name} is a {type(array).__name__}. Send numpy.array(value, dtype=numpy.{dtype}).")
        if array.dtype != dtype:
            raise InputError(
                f"{name} is {array.dtype}, the model takes {dtype}. Send array.astype(numpy.{dtype}) if that keeps "
                "the values."
            )
        if array.ndim != len(tensor.shape):
            raise InputError(f"{name} has shape {list(array.shape)}. Send {len(tensor.shape)} axes: {_shape(tensor)}.")
        for index, (size, wanted) in enumerate(zip(array.shape, tensor.shape, strict=True)):
            if isinstance(wanted, str):
                axis = self._bounds[wanted]
                if not axis.min <= size <= axis.max:
                    raise InputError(
                        f"{name} has shape {list(array.shape)}: axis {index} ({wanted}) is {size}. "
                        f"Send {axis.min} to {axis.max}."
                    )
                if size % axis.multiple_of:
                    raise InputError(
                        f"{name} has shape {list(array.shape)}: axis {index} ({wanted}) is {size}. "
                        f"Send a multiple of {axis.multiple_of}."
                    )
                known, other = sizes.setdefault(wanted, (size, tensor.name))
                if known != size:
                    raise InputError(
                        f"{name} has {wanted} {size}, input {other!r} has {wanted} {known}. Send the same in both."
                    )
            elif size != wanted:
                raise InputError(f"{name} has shape {list(array.shape)}: axis {index} is {size}. Send {wanted}.")
        if tensor.range is not None and array.size:
            (low, high), least, most = tensor.range, array.min(), array.max()
            if not (low <= least and most <= high):  # written so that a NaN fails
                raise InputError(f"{name} holds values from {least} to {most}. Send values from {low} to {high}.")
        if self._watch_nan and tensor.name not in self._holds_nan and has_nan(array):
            raise InputError(f"{name} holds NaN. Send numbers.")

    def output_names(self, outputs: Sequence[str] | None = None) -> list[str]:
        """The outputs asked for, or all of them; raises InputError for one that the model does not have."""
        known = [tensor.name for tensor in self.outputs]
        if outputs is None:
            return known
        for name in outputs:
            if isinstance(outputs, str) or name not in known:
                hint = _did_you_mean(str(name), known)
                raise InputError(f"outputs={outputs!r}. Expected a list out of {', '.join(known)}.{hint}")
        if not outputs:
            raise InputError(f"outputs is empty. Name some of {', '.join(known)}, or give None for all.")
        return list(outputs)

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None) -> Arrays:
        """The model's answer: name -> array, for the `outputs` named or for all.

        Raises:
            InputError: The inputs do not fit; the message says what to send instead.
            NumericsError: The answer holds NaN where the golden answers have none.
            SessionError: ONNX Runtime failed, or the model is closed.
        """
        self.check(inputs)
        return self.run_checked(inputs, self.output_names(outputs))

    def run_checked(self, inputs: Mapping[str, NDArray[Any]], names: Sequence[str], run_options: Any = None) -> Arrays:
        """`run` for inputs that `check`, and names that `output_names`, has passed already.

        `run_options` is an onnxruntime.RunOptions, whose `terminate` ends the run from another thread.
        """
        session = self._session
        if session is None:
            raise SessionError(f"{self.name} was closed. Load it again.")
        try:
            with self._lock:
                if self._captures:
                    answer = self._run_graph(inputs, names, run_options)
                else:
                    answer = dict(zip(names, session.run(names, inputs, run_options), strict=True))
        except Exception as error:
            # A value that only the graph can judge, such as an index past the end of a table.
            kind = InputError if type(error).__name__ == "InvalidArgument" else SessionError
            raise kind(f"onnxruntime could not run {self.name}: {_line(error)}") from error
        if self._watch_nan:
            for name, array in answer.items():
                if name not in self._holds_nan and has_nan(array):
                    raise NumericsError(f"output {name!r} of {self.name} holds NaN, which no golden answer does.")
        return answer

    def _key(self, inputs: Mapping[str, NDArray[Any]]) -> tuple[tuple[int, ...], ...]:
        return tuple(inputs[tensor.name].shape for tensor in self.inputs)

    def _run_graph(self, inputs: Mapping[str, NDArray[Any]], names: Sequence[str], run_options: Any) -> Arrays:
        """A run of a session that captures CUDA graphs: replayed at the manifest's warm-up shapes, plain at others.

        Each captured shape keeps its buffers on the device, so that no more are captured than the bundle names.
        """
        import onnxruntime as ort

        if self._key(inputs) not in self._captured:
            options = run_options or ort.RunOptions()
            options.add_run_config_entry("gpu_graph_id", str(NO_GRAPH))
            return dict(zip(names, self._session.run(names, inputs, options), strict=True))
        bound = self._bound(inputs)
        bound.run(run_options)
        answer = bound.answer()
        return {name: answer[name] for name in names}

    def _bound(self, inputs: Mapping[str, NDArray[Any]]) -> Bound:
        """Buffers that hold these inputs: those of a shape that is captured, or new ones. Under the lock."""
        key = self._key(inputs)
        if key not in self._captured:
            return Bound(self, inputs, NO_GRAPH if self._captures else None)
        bound = self._captured[key]
        if bound is None:
            bound = self._captured[key] = Bound(self, inputs, list(self._captured).index(key) + 1)
        else:
            bound.update(inputs)
        return bound

    def bind(self, inputs: Mapping[str, NDArray[Any]]) -> Bound:
        """Keep inputs, and the outputs that they give, in buffers on the first provider's device, for run after run.

        At a shape that is captured the buffers are those that `run` uses, too.

        Raises:
            InputError: The inputs do not fit.
            SessionError: ONNX Runtime failed, or the model is closed.
        """
        self.check(inputs)
        if self._session is None:
            raise SessionError(f"{self.name} was closed. Load it again.")
        try:
            with self._lock:
                bound = self._bound(inputs)
                bound.run()
                return bound
        except Exception as error:
            raise SessionError(f"onnxruntime could not run {self.name}: {_line(error)}") from error

    def executed(self) -> list[dict[str, Any]]:
        """What ran since the model was loaded with `profile`: each node once, and nothing is recorded from here on.

        Returns:
            For each node name, op_type, provider, runs, and microseconds of its last run; copies between devices, which
            ONNX Runtime inserts on its own, are nodes whose op_type begins with Memcpy.

        Raises:
            SessionError: It was loaded without `profile`, or was asked already.
        """
        if self._session is None or not self._profiled:
            raise SessionError(f"{self.name} was not loaded with profile. Load it so to see what runs.")
        self._profiled = False
        nodes: dict[str, dict[str, Any]] = {}
        for event in json.loads(Path(self._session.end_profiling()).read_bytes()):
            about = event.get("args", {})
            if event.get("cat") == "Node" and "op_name" in about:
                name = event["name"].removesuffix("_kernel_time")
                entry = nodes.setdefault(
                    name, {"name": name, "op_type": about["op_name"], "provider": about.get("provider"), "runs": 0}
                )
                entry |= {"runs": entry["runs"] + 1, "microseconds": event["dur"]}
        return list(nodes.values())

    def run_async(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None) -> Future[Arrays]:
        """`run` in a thread of the model's own, of which there are `concurrency`; its errors are the future's.

        Inputs that do not fit are refused at once, by InputError. `asyncio.wrap_future` makes it awaitable.
        """
        self.check(inputs)
        names = self.output_names(outputs)
        with self._pool_lock:
            if self._session is None:
                raise SessionError(f"{self.name} was closed. Load it again.")
            if self._pool is None:
                from concurrent.futures import ThreadPoolExecutor

                self._pool = ThreadPoolExecutor(self.concurrency, thread_name_prefix=f"run-{self.name}")
            return self._pool.submit(self.run_checked, inputs, names)

    def selftest(self) -> tuple[dict[str, Any], ...]:
        """Run every golden case: name, tolerance, and what was observed, in all and for each output.

        Raises:
            GoldenError: An answer differs by more than the manifest allows, or there is no case to run.
        """
        results = []
        with _parsing(self.root / "manifest.json"):
            cases = [
                (str(c["name"]), c["tolerance"], c["mask"], *(inside(self.root, c[k]) for k in ("inputs", "outputs")))
                for c in self.manifest["golden"]
            ]
        if not cases:
            raise GoldenError("the bundle has no golden case, so that nothing shows that it is right. Build it again.")
        for name, tolerance, mask, inputs_file, outputs_file in cases:
            inputs, expected = read_npz(inputs_file, FormatError), read_npz(outputs_file, FormatError)
            self._holds_nan.update(name for name, array in {**inputs, **expected}.items() if has_nan(array))
            if sorted(expected) != sorted(t.name for t in self.outputs):
                raise FormatError(f"{outputs_file} holds {sorted(expected)}, expected every output of the model.")
            try:
                observed = self.run(inputs)
            except BundleError as error:
                raise GoldenError(f"golden case {name!r} could not be run: {error}") from error
            seen: dict[str, dict[str, float]] = {}
            for output, array in observed.items():
                with _parsing(self.root / "manifest.json"):
                    limits = {**tolerance, **(tolerance.get("outputs") or {}).get(output, {})}
                    seen[output], problem = compare(expected[output], array, limits, inputs[mask] if mask else None)
                if problem:
                    raise GoldenError(
                        f"golden case {name!r}, output {output!r}: {problem}. On this machine the bundle does not "
                        f"compute what PyTorch computed; do not serve it (onnxruntime {self.runtime_version})."
                    )
            overall = {"max_abs": max(s["max_abs"] for s in seen.values())}
            overall["cosine"] = min(s["cosine"] for s in seen.values())
            results.append({"name": name, "tolerance": dict(tolerance), **overall, "outputs": seen})
        self.golden = tuple(results)
        self._keep_engines()
        return self.golden

    def example(self, sizes: Mapping[str, int] | None = None) -> Arrays:
        """Inputs of the given axis sizes (typical ones where not given), for warming up and measuring.

        They are the first golden inputs, repeated or cut to size; seeded values within `range` where none fit.
        """
        for name in sizes or ():
            if name not in self._bounds:
                hint = _did_you_mean(name, self._bounds)
                raise InputError(f"axis {name!r} is unknown. Expected {', '.join(self._bounds) or 'none'}.{hint}")
        every = {axis.name: axis.typical for axis in self.axes} | dict(sizes or {})
        with _parsing(self.root / "manifest.json"):
            files = [inside(self.root, case["inputs"]) for case in self.manifest["golden"][:1]]
        golden = read_npz(files[0], FormatError) if files else {}
        generator: np.random.Generator | None = None
        made: Arrays = {}
        for tensor in self.inputs:
            shape = tuple(every[d] if isinstance(d, str) else int(d or 0) for d in tensor.shape)
            array = golden.get(tensor.name)
            if array is None or array.ndim != len(shape) or not array.size:
                low, high = tensor.range or ((1, 1) if tensor.dtype.kind != "f" else (-1.0, 1.0))
                generator = generator or np.random.default_rng(0)  # an import of its own, seldom needed
                array = generator.uniform(low, high, shape).astype(tensor.dtype)
            for axis, size in enumerate(shape):
                array = array.take(np.arange(size) % max(1, array.shape[axis]), axis=axis)
            made[tensor.name] = array
        return made

    def info(self) -> dict[str, Any]:
        """What was loaded and on what: identity, versions, providers, placement counts, threads, memory, times."""
        import onnxruntime as ort

        return {
            "name": self.name,
            "version": self.version,
            "target": self.target,
            "variant": self.manifest.get("variant"),
            "fit_to_serve": bool(self.manifest.get("fit_to_serve")),
            "versions": {
                "python": platform.python_version(),
                "numpy": np.__version__,
                "onnxruntime": self.runtime_version,
                "build": str(ort.get_build_info()),
            },
            "platform": f"{platform.system().lower()}/{platform.machine()}",
            "providers": list(self.providers),
            "placement": dict(Counter(provider for provider, *_ in self._placement)),
            "fallback": self.fallback(),
            "threads": dict(self.threads),
            "prepacked": self.prepacked,
            "peak_rss_bytes": peak_rss_bytes(),
            "load_seconds": self.seconds.get("total"),
            "seconds": dict(self.seconds),
        }

    def close(self) -> None:
        """Free the session once running calls have ended; a later `run` raises SessionError.

        What `run_async` has not begun yet is cancelled.
        """
        with self._pool_lock:
            self._captured, self._captures = {}, False
            self._session, pool, self._pool = None, self._pool, None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)
        if self._engines is not None:
            self._engines.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Bound:
    """Buffers on the device of a session's first provider: inputs of one shape, and the outputs that they give.

    A run reads and writes nothing else, so that a CUDA graph can be captured over them, and copies nothing to or from
    the host. Not for several threads at once.
    """

    def __init__(self, model: Model, inputs: Mapping[str, NDArray[Any]], graph: int | None = None) -> None:
        """Copy the inputs to the device and let a run give the outputs their buffers.

        `graph` is the gpu_graph_id of later runs, None where the session captures no graphs.
        """
        import onnxruntime as ort

        self._ort, self._model, self._session, self._graph = ort, model, model._session, graph
        self.device = "cuda" if model.providers[0] in (CUDA, TENSORRT) else "cpu"
        self._binding = self._session.io_binding()
        self._inputs = {name: self._to_device(array) for name, array in inputs.items()}
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        names = [tensor.name for tensor in model.outputs]
        for name in names:
            self._binding.bind_output(name, self.device)
        self._run(None, None if graph is None else NO_GRAPH)
        # What ONNX Runtime gave the outputs is theirs from now on.
        self._outputs = dict(zip(names, self._binding.get_outputs(), strict=True))
        for name, value in self._outputs.items():
            self._binding.bind_ortvalue_output(name, value)

    def _to_device(self, array: NDArray[Any]) -> Any:
        return self._ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self.device, 0)

    def update(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        """Copy other inputs into the buffers; raises InputError unless they are of the same shapes and types."""
        self._model.check(inputs)
        for name, array in inputs.items():
            held = list(self._inputs[name].shape())
            if list(array.shape) != held:
                raise InputError(f"input {name!r} has shape {list(array.shape)}, its buffer {held}. Bind again.")
        for name, array in inputs.items():
            self._inputs[name].update_inplace(np.ascontiguousarray(array))

    def run(self, run_options: Any = None) -> None:
        """Compute the outputs of what is in the buffers; ends when they are there."""
        self._run(run_options, self._graph)

    def _run(self, run_options: Any, graph: int | None) -> None:
        options = run_options
        if graph is not None:
            options = run_options or self._ort.RunOptions()
            options.add_run_config_entry("gpu_graph_id", str(graph))
        self._session.run_with_iobinding(self._binding, options)
        self._binding.synchronize_outputs()

    def answer(self) -> Arrays:
        """Copies of the outputs, on the host."""
        return {name: np.array(value.numpy()) for name, value in self._outputs.items()}


def _tensor(entry: Mapping[str, Any]) -> Tensor:
    bounds = entry.get("range")
    if bounds is not None:
        low, high = bounds
        bounds = (low, high)
    return Tensor(str(entry["name"]), np.dtype(entry["dtype"]), tuple(entry["shape"]), bounds)


def _engines_module() -> ModuleType:
    """engines.py beside this file, also where sys.path no longer leads here."""
    here = str(Path(__file__).resolve().parent)
    sys.path.insert(0, here)
    try:
        import engines
    finally:
        sys.path.remove(here)
    return engines


def _check_names(listed: Mapping[str, Sequence[str]]) -> None:
    for operator, names in listed.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"placement.shape_nodes has {names!r} for {operator}, expected a list of names")


def _is_masked(array: NDArray[Any]) -> bool:
    # Where nobody imported numpy.ma nothing is masked; to ask for the class would import it, at every start.
    masked = sys.modules.get("numpy.ma")
    return masked is not None and isinstance(array, masked.MaskedArray)


def has_nan(array: NDArray[Any]) -> bool:
    """Whether there is a NaN. Their sum has one then, too, and costs half of asking for each."""
    if array.dtype.kind != "f":
        return False
    with np.errstate(all="ignore"):  # infinities of both signs, and float16 that overflows: looked into
        return not math.isfinite(array.sum()) and bool(np.isnan(array).any())


@contextlib.contextmanager
def _tolerating(*kinds: type[BundleError], strict: bool) -> Iterator[None]:
    """Make a warning of these errors unless `strict`."""
    try:
        yield
    except kinds as error:
        if strict:
            raise
        _warn(error)


def _shape(tensor: Tensor) -> str:
    return f"[{', '.join(str(entry) for entry in tensor.shape)}]"


# --- measuring -----------------------------------------------------------------------------------------------------


def peak_rss_bytes() -> int:
    """The most memory this process held resident.

    VmHWM and not ru_maxrss: Linux carries the peak of the process that forked and executed us into ru_maxrss, so that
    a small worker of a large compiler would report the compiler.
    """
    found = re.search(r"^VmHWM:\s+(\d+) kB$", _text(Path("/proc/self/status")), re.MULTILINE)
    if found:
        return int(found[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def process_seconds(started: float | None = None) -> float | None:
    """Seconds since this process began, or since `started` (time.monotonic() of who started it; finer than 10 ms)."""
    if started is not None:
        return time.monotonic() - started
    fields = _text(Path("/proc/self/stat")).rpartition(")")[2].split()
    if len(fields) < 20 or not hasattr(time, "CLOCK_BOOTTIME"):
        return None
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")


def count_copies(
    bundle: Path, inputs: Mapping[str, NDArray[Any]] | None = None, *, verify: str = "fast"
) -> dict[str, int]:
    """Nodes that ONNX Runtime inserted to copy between host and device, by operator, as they ran once.

    Args:
        bundle: The directory; it is loaded for this alone.
        inputs: What to run on; by default an example of the shape that the manifest promises latencies at.
        verify: As for Model.load.
    """
    import tempfile

    with (
        tempfile.TemporaryDirectory(prefix="copies-") as scratch,
        Model.load(bundle, verify=verify, selftest=False, warmup=False, profile=Path(scratch) / "profile") as model,
    ):
        if all(provider == CPU for provider in model.providers):
            return {}
        model.run(model.example(model.manifest["promises"]["at"]) if inputs is None else inputs)
        return dict(Counter(n["op_type"] for n in model.executed() if n["op_type"].startswith("Memcpy")))


SOAK_SECONDS = 15.0
"""How long a soak may take, and one large run more."""
SOAK_WINDOW = 128
"""Shapes over which resident memory has to stay the same before a soak ends."""
SOAK_SHAPES = 2048
"""The most distinct shapes of a soak."""
SOAK_LARGE = 16
"""After so many small shapes comes a larger one."""
SOAK_FLAT_BYTES = 2**20


def soak(model: Model, seconds: float = SOAK_SECONDS) -> dict[str, Any]:
    """Run many distinct shapes in this process: runtimes keep something for every shape that they have seen.

    Small shapes come first, which cost little time, with larger ones in between and the largest one at the end. The
    soak ends when resident memory grew by at most 1 MiB (or 1 %) over the last 128 shapes, when every shape was run,
    or when the time is over.

    Args:
        model: what to run.
        seconds: that it may take.

    Returns:
        `shapes` that were run and how many there are, `seconds`, the `end` (`plateau`, `all`, `time` or `fixed`), bytes
        that resident memory grew by, and `peak_rss_bytes`: the most that any shape may need. Where memory still grew at
        the end, the growth of the last shapes is continued over all that were not run.
    """
    began = time.perf_counter()
    count = math.prod(len(_sizes_of(axis)) for axis in model.axes)
    if count <= 1:
        still = {"shapes": 0, "of": count, "seconds": 0.0, "end": "fixed", "grown_bytes": 0}
        return {**still, "peak_rss_bytes": peak_rss_bytes()}
    largest = {axis.name: _sizes_of(axis)[-1] for axis in model.axes}
    slowest = _timed_run(model, largest)
    first, resident, end = rss_bytes(), [rss_bytes()], "all"
    for sizes in _soak_shapes(model.axes, max(1.0, seconds / 20) / slowest):
        if len(resident) > SOAK_WINDOW and _growth(resident) <= max(SOAK_FLAT_BYTES, resident[-1] // 100):
            end = "plateau"
            break
        late = time.perf_counter() - began > seconds and len(resident) > SOAK_LARGE
        if late or len(resident) > SOAK_SHAPES:
            end = "time"
            break
        _timed_run(model, sizes)
        resident.append(rss_bytes())
    _timed_run(model, largest)
    # The largest shape was the first one, too.
    shapes = min(count, len(resident))
    rest = count - shapes
    more = 0
    if end == "time":
        window = min(SOAK_WINDOW, shapes - 1)
        more = rest * _growth(resident) // max(1, window)
    return {
        "shapes": shapes,
        "of": count,
        "seconds": time.perf_counter() - began,
        "end": end,
        "grown_bytes": max(0, max(resident) - first) + more,
        "peak_rss_bytes": peak_rss_bytes() + more,
    }


def rss_bytes() -> int:
    """The memory that this process holds resident now; the most that it held where Linux does not say."""
    found = re.search(r"^VmRSS:\s+(\d+) kB$", _text(Path("/proc/self/status")), re.MULTILINE)
    return int(found[1]) * 1024 if found else peak_rss_bytes()


def _growth(resident: Sequence[int]) -> int:
    """Bytes that resident memory grew by over the last shapes, by the most of either half of them."""
    window = resident[-SOAK_WINDOW - 1 :]
    half = len(window) // 2
    return max(0, max(window[half:]) - max(window[:half])) * 2


def _timed_run(model: Model, sizes: Mapping[str, int]) -> float:
    inputs = model.example(sizes)
    began = time.perf_counter()
    model.run(inputs)
    return max(1e-6, time.perf_counter() - began)


def _sizes_of(axis: Axis) -> range:
    first = -(-axis.min // axis.multiple_of) * axis.multiple_of
    return range(first, axis.max + 1, axis.multiple_of)


def _soak_shapes(axes: Sequence[Axis], affordable: float) -> Iterator[dict[str, int]]:
    """Distinct shapes from the smallest on, with larger ones of at most this share of the largest in between."""
    sizes = [_sizes_of(axis) for axis in axes]
    whole = math.prod(values[-1] for values in sizes)
    start = (0,) * len(sizes)

    def volume(place: tuple[int, ...]) -> int:
        return math.prod(values[index] for values, index in zip(sizes, place, strict=True))

    larger = [tuple((len(values) - 1) * step // SOAK_LARGE for values in sizes) for step in range(1, SOAK_LARGE)]
    larger = [place for place in larger if volume(place) <= affordable * whole]
    queue, seen, given = [(volume(start), start)], {start}, set[tuple[int, ...]]()
    while queue:
        chosen = [heapq.heappop(queue)[1]]
        if len(given) % SOAK_LARGE == SOAK_LARGE - 1 and larger:
            chosen.append(larger.pop(0))
        for place in chosen:
            if place not in given:
                given.add(place)
                yield {axis.name: values[index] for axis, values, index in zip(axes, sizes, place, strict=True)}
        for dimension, values in enumerate(sizes):
            place = tuple(index + (at == dimension) for at, index in enumerate(chosen[0]))
            if place[dimension] < len(values) and place not in seen:
                seen.add(place)
                heapq.heappush(queue, (volume(place), place))


def measure(model: Model, inputs: Mapping[str, NDArray[Any]], runs: int, warmup: int) -> list[float]:
    """Milliseconds of each of `runs` calls of `model.run`, validation included, after `warmup` that do not count."""
    return measure_turn(model, inputs, runs, warmup).latencies_ms


@dataclass(frozen=True)
class Turn:
    """Counted calls: milliseconds of each, seconds of all, and what all threads of this process computed meanwhile."""

    latencies_ms: list[float]
    wall_seconds: float
    cpu_seconds: float


def measure_turn(
    model: Model, inputs: Mapping[str, NDArray[Any]], runs: int, warmup: int, clients: int | None = None
) -> Turn:
    """Time `runs` calls of `model.run` after `warmup` that do not count.

    With `clients`, that many threads send `runs` requests each at once, and the one value is the milliseconds of the
    whole by the number of requests.
    """
    for what, value, least in (("runs", runs, 1), ("warmup", warmup, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UsageError(f"{what} is {value!r}. Expected a whole number of at least {least}.")
    if clients is not None and (isinstance(clients, bool) or not isinstance(clients, int)):
        raise UsageError(f"clients is {clients!r}. Expected a whole number from 1 to {MOST_CLIENTS}.")
    if clients is not None and not 1 <= clients <= MOST_CLIENTS:
        raise UsageError(f"clients is {clients!r}. Expected a whole number from 1 to {MOST_CLIENTS}.")
    for _ in range(warmup):
        model.run(inputs)
    began, computed = time.perf_counter_ns(), time.process_time_ns()
    latencies = _timed_runs(model, inputs, runs) if clients is None else _timed_crowd(model, inputs, runs, clients)
    computed, wall = time.process_time_ns() - computed, time.perf_counter_ns() - began
    return Turn(latencies, wall / 1e9, computed / 1e9)


def _timed_runs(model: Model, inputs: Mapping[str, NDArray[Any]], runs: int) -> list[float]:
    latencies = []
    for _ in range(runs):
        began = time.perf_counter_ns()
        model.run(inputs)
        latencies.append((time.perf_counter_ns() - began) / 1e6)
    return latencies


def _timed_crowd(model: Model, inputs: Mapping[str, NDArray[Any]], runs: int, clients: int) -> list[float]:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(clients) as pool:
        began = time.perf_counter_ns()
        for future in [pool.submit(_timed_runs, model, inputs, runs) for _ in range(clients)]:
            future.result()
        return [(time.perf_counter_ns() - began) / 1e6 / (clients * runs)]


# --- worker --------------------------------------------------------------------------------------------------------


def _described(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    return {name: {"dtype": str(array.dtype), "shape": list(array.shape)} for name, array in arrays.items()}


def _success(result: Mapping[str, Any]) -> str:
    return json.dumps({"ok": True, "result": result}, allow_nan=False)


def failure(error: BaseException) -> str:
    """The JSON answer for an error; a traceback of what nobody foresaw goes to stderr."""
    code, message = "internal", f"{type(error).__name__}: {error}"
    if isinstance(error, BundleError):
        code, message = error.code, str(error)
    else:
        traceback.print_exception(error, file=sys.stderr)
    return json.dumps({"ok": False, "error": {"code": code, "message": message}})


class Worker:
    """Answers requests about one model at a time; each public method is an operation, its parameters the request."""

    operations = ("load", "run", "bench", "copies", "soak", "info", "close")

    def __init__(self) -> None:
        self._model: Model | None = None

    def answer(self, line: bytes) -> str:
        """The reply to one line, without its end; never raises but for a signal."""
        try:
            try:
                request = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UsageError(f"the line is not JSON: {error}. Send one JSON object a line.") from error
            if not isinstance(request, dict) or request.get("op") not in self.operations:
                raise UsageError(f"expected an object with op one of {', '.join(self.operations)}.")
            operation: Callable[..., dict[str, Any]] = getattr(self, request.pop("op"))
            try:
                inspect.signature(operation).bind(**request)
            except TypeError as error:
                raise UsageError(f"{operation.__name__}: {error}.") from error
            return _success(operation(**request))
        except Exception as error:  # noqa: BLE001 - no request may end the worker; failure() reports all of it
            return failure(error)

    def _loaded(self) -> Model:
        if self._model is None:
            raise UsageError("no model is loaded. Send load first.")
        return self._model

    def load(
        self, bundle: str, verify: str = "full", threads: int | None = None, selftest: bool = True, warmup: bool = True
    ) -> dict[str, Any]:
        """Load a bundle in place of the one before; answers with info and the golden results."""
        self.close()
        path = _path("bundle", bundle)
        # Whether there may be NaN is for the compiler to say, which has PyTorch's answer beside.
        self._model = Model.load(path, verify=verify, threads=threads, nan="allow", selftest=selftest, warmup=warmup)
        return {**self._model.info(), "golden": list(self._model.golden)}

    def run(self, inputs: str, outputs: str) -> dict[str, Any]:
        """Run on the arrays of one .npz file and write another."""
        model, target = self._loaded(), _path("outputs", outputs)
        return run_files(model, read_npz(_path("inputs", inputs)), target)

    def bench(self, inputs: str, runs: int, warmup: int = 1, clients: int | None = None) -> dict[str, Any]:
        """Latency of every run; with `clients` that ask at once, the one time that a request takes of the whole.

        Besides, seconds of all counted runs, by the clock on the wall and by what this process computed.
        """
        return vars(measure_turn(self._loaded(), read_npz(_path("inputs", inputs)), runs, warmup, clients))

    def copies(self, inputs: str) -> dict[str, Any]:
        """See count_copies; the model that is loaded stays so."""
        return {"copies": count_copies(self._loaded().root, read_npz(_path("inputs", inputs)), verify="none")}

    def soak(self, seconds: float = SOAK_SECONDS) -> dict[str, Any]:
        """See soak."""
        return soak(self._loaded(), seconds)

    def info(self) -> dict[str, Any]:
        """See Model.info."""
        return self._loaded().info()

    def close(self) -> dict[str, Any]:
        """Drop the model; harmless when there is none."""
        if self._model is not None:
            self._model.close()
        self._model = None
        return {}


def _path(what: str, value: object) -> Path:
    if not isinstance(value, str) or not value or "\0" in value:
        raise UsageError(f"{what} is {value!r}. Expected the path of a file.")
    return Path(value)


def run_files(model: Model, inputs: Arrays, target: Path) -> dict[str, Any]:
    """Run once and write the answer to `target`."""
    began = time.perf_counter()
    answer = model.run(inputs)
    seconds = time.perf_counter() - began
    try:
        write_npz(target, answer)
    except OSError as error:
        raise UsageError(f"{target} cannot be written: {error.strerror}.") from error
    return {"outputs": _described(answer), "file": str(target), "seconds": seconds}


# --- command line --------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}. See {self.prog} --help.")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    common = _Parser(add_help=False)
    common.add_argument("--bundle", default=str(Path(__file__).resolve().parent.parent), help="default: the one around")
    common.add_argument("--verify", default="full", choices=("full", "fast", "none"))
    common.add_argument("--threads", type=int, help="default: what session.json says")
    skips = _Parser(add_help=False, parents=[common])
    skips.add_argument("--no-selftest", action="store_true", help="skip the golden cases")
    skips.add_argument("--no-warmup", action="store_true")
    parser = _Parser(prog="loader.py", description="Check, measure or run the bundle; JSON on stdout.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("selftest", parents=[common], help="load, verify and run the golden cases")
    commands.add_parser("info", parents=[skips], help="versions, providers, placement, threads, memory")
    bench = commands.add_parser("bench", parents=[skips], help="latency, memory, start to first answer")
    bench.add_argument("--shape", default="", help="e.g. batch=1,sequence=128; typical sizes where not given")
    bench.add_argument("--runs", type=int, default=200)
    bench.add_argument("--warmup", type=int, default=10)
    bench.add_argument("--started", type=float, help="time.monotonic() when the process was started")
    run = commands.add_parser("run", parents=[skips], help="run once on arrays from files")
    run.add_argument("--input", action="append", default=[], metavar="NAME=FILE.npy")
    run.add_argument("--npz", metavar="FILE.npz", help="all inputs in one file")
    run.add_argument("--output", required=True, metavar="FILE.npz")
    commands.add_parser("worker", help="answer JSON lines on stdin")
    return parser.parse_args(argv)


def _bench(model: Model, arguments: argparse.Namespace) -> dict[str, Any]:
    sizes: dict[str, int] = {}
    for part in filter(None, arguments.shape.split(",")):
        match = re.fullmatch(r"\s*(\w+)=([0-9]{1,9})\s*", part)
        if match is None:
            raise UsageError(f"--shape has {part!r}. Expected axis=size, e.g. batch=1,sequence=128.")
        sizes[match[1]] = int(match[2])
    inputs = model.example(sizes)
    model.run(inputs)
    first = process_seconds(arguments.started)
    latencies = measure(model, inputs, arguments.runs, arguments.warmup)
    p50, p90, p99 = (float(value) for value in np.percentile(latencies, (50, 90, 99)))
    mean = sum(latencies) / len(latencies)
    used = {axis.name: sizes.get(axis.name, axis.typical) for axis in model.axes}
    return {
        "shape": used,
        "n": len(latencies),
        "latency_ms": {"p50": p50, "p90": p90, "p99": p99, "mean": mean},
        "throughput_per_second": used.get("batch", 1) * 1000 / mean,
        "start_to_first_answer_seconds": first,
        **model.info(),
    }


def _run(model: Model, arguments: argparse.Namespace) -> dict[str, Any]:
    if bool(arguments.npz) == bool(arguments.input):
        raise UsageError("give either --npz FILE.npz or --input NAME=FILE.npy for each input.")
    inputs = read_npz(Path(arguments.npz)) if arguments.npz else {}
    for item in arguments.input:
        name, _, path = item.partition("=")
        try:
            inputs[name] = read_npy(Path(path))
        except InputError as error:
            raise InputError(f"--input {item}: {error}") from error
    return run_files(model, inputs, Path(arguments.output))


def _command(arguments: argparse.Namespace) -> dict[str, Any]:
    selftest = not getattr(arguments, "no_selftest", False)
    warmup = not getattr(arguments, "no_warmup", True)
    with Model.load(
        arguments.bundle, verify=arguments.verify, threads=arguments.threads, selftest=selftest, warmup=warmup
    ) as model:
        if arguments.command == "bench":
            return _bench(model, arguments)
        if arguments.command == "run":
            return _run(model, arguments)
        return {**model.info(), **({"golden": list(model.golden)} if arguments.command == "selftest" else {})}


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    # Native code writes to descriptor 1 as it likes: keep that for the answers alone and send all else to stderr.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")

    def reply(document: str) -> None:
        answers.write(document + "\n")
        answers.flush()

    try:
        arguments = _arguments(argv)
        sys.stdout.flush()
        os.dup2(2, 1)
        if arguments.command == "worker":
            worker = Worker()
            for line in sys.stdin.buffer:
                reply(worker.answer(line))
            return 0
        reply(_success(_command(arguments)))
    except BrokenPipeError:  # whoever asked is gone
        return 1
    except Exception as error:  # noqa: BLE001 - the boundary: failure() reports it
        reply(failure(error))
        print(f"error: {_line(error)}", file=sys.stderr)
        return error.exit_code if isinstance(error, BundleError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
