"""All stages of a build, in one table: the name, the code and the inputs that make a key, and the type of the result.

A build executes the actions of these stages, `ortc plan` looks them up, and `ortc diff` records them.
"""

from __future__ import annotations

from typing import Any

from ortc.build.search.precision_ladder import Sensitivity
from ortc.build.stage import CODE, Action, Stage
from ortc.build.stage_results import (
    BuiltModule,
    ExportDone,
    ExportFailed,
    MetricOfReference,
    MetricOfTeacher,
    Proven,
    Ranges,
    References,
    SamplesRead,
    Skip,
    Sums,
    TeacherAnswers,
    Texts,
)
from ortc.evaluation.compare import Difference
from ortc.evaluation.noise import race_noise, starts_noise
from ortc.evaluation.report import CaseResult, Check, Race, Starts
from ortc.execution.code_closure import DOCUMENTS, LOADER, PACKAGE, Code
from ortc.passes.canonical import Exported
from ortc.passes.variant_graph import VariantGraph
from ortc.plan.audio_processing import AudioProcessing, WaveFeatures
from ortc.plan.image_processing import ImageProcessing
from ortc.plan.processing import AnswerForm, Padding, Processing, TextProcessing


def _code(*roots: str, without: frozenset[str] = DOCUMENTS) -> Code:
    return Code(tuple(root if root == LOADER else f"{PACKAGE}.{root}" for root in roots), without)


def _assumed_export(action: Action[Any]) -> ExportDone:
    export = action.inputs["export"]
    found = {"exporter": action.inputs["exporter"], "domains": {}, "outputs": (), "operators": {}, "warnings": ()}
    taken = {"opset": export["opset"], "ir_version": export["ir_version"], "inputs": export["inputs"] or ()}
    return ExportDone(exported=Exported.model_validate({**found, **taken}))


def _assumed_texts(action: Action[Any]) -> Texts:
    text = TextProcessing(max_length=1, truncation="right", padding=Padding(side="right", token=0, type=0))
    answer = AnswerForm.model_validate(action.inputs["form"])
    return Texts(processing=Processing(task="", text=text, answer=answer))


def _assumed_images(action: Action[Any]) -> Texts:
    return _assumed_files(action, image=ImageProcessing(input="pixel_values", steps=()))


def _assumed_sounds(action: Action[Any]) -> Texts:
    features = WaveFeatures(normalize=True)
    return _assumed_files(action, audio=AudioProcessing(input="input_values", rate=1, features=features))


def _assumed_files(action: Action[Any], **settings: Any) -> Texts:
    answer = AnswerForm.model_validate(action.inputs["form"])
    return Texts(processing=Processing(task="", answer=answer, **settings))


def _assumed_graph(action: Action[Any]) -> VariantGraph:
    """A graph that no other variant has."""
    return VariantGraph(bytes=0, domains={}, operators={}, sha256=action.key)


def _assumed_check(_: Action[Any]) -> Check:
    exact = Difference(output="", max_abs=0.0, cosine=1.0, top1=1.0)
    return Check(cases=(CaseResult(case="", differences=(exact,)),), invariance=0.0, metric=1e300)


_BUNDLE_RUNS = ("evaluation.accuracy", "bundle.assemble", LOADER)
_RESULTS = "build.stage_results"
_SAMPLES = ("frontend.samples.sources", "frontend.samples.inputs")
_ORIGINAL = (
    "frontend.ort_original",
    "passes.canonical",
    "spec.onnx_header",
    "spec.runtimes",
    "execution.host",
    "execution.worker",
)
_METRIC = _code(
    "build.task_metric",
    _RESULTS,
    "build.distillation",
    "build.original",
    "build.plain_runtime",
    "frontend.onnx_forms",
    "frontend.reference.custom",
    "inspection.external_data",
    "execution.worker",
    "execution.host",
    "passes.canonical",
    *_ORIGINAL,
)
_TIMED = _code("build.races", "frontend.samples.inputs", "evaluation.latency", *_BUNDLE_RUNS)
_ASKING = (
    "build.model",
    "build.plain_runtime",
    "build.references",
    _RESULTS,
    "frontend.samples.masking",
    "frontend.onnx_forms",
    *_SAMPLES,
)
_REFERENCE = _code("common.arrays", *_ASKING)
_REFERENCE_OF_ONNX = _code("build.original", *_ASKING, *_ORIGINAL)

_SESSION = ("variant", "session", "runtime", "host", "max_cpu_nodes", "variables")
"""What decides how a made variant runs on this host."""

ENTRYPOINT: Stage[BuiltModule] = Stage(
    "entrypoint",
    ("source", "files", "module", "tools", "variables", CODE),
    BuiltModule,
    # The process that exports also answers; what only exports does not change the answers.
    code=_code("frontend.__main__", without=DOCUMENTS | {f"{PACKAGE}.frontend.export"}),
    reads_files=True,
)
SAMPLES: Stage[SamplesRead] = Stage("samples", ("samples", "files"), SamplesRead, reads_files=True)
EXPORT: Stage[ExportDone | ExportFailed] = Stage(
    "export",
    ("model", "export", "exporter", CODE),
    ExportDone | ExportFailed,
    code=_code("build.model", _RESULTS, "frontend.__main__", "frontend.import_onnx"),
    assume=_assumed_export,
)
_ASKED = ("model", "runtime", "interface", "cases", "samples", "split", CODE)
REFERENCE: Stage[References] = Stage("reference", _ASKED, References, code=_REFERENCE)
REFERENCE_OF_ONNX: Stage[References] = Stage("reference", _ASKED, References, of="of ONNX", code=_REFERENCE_OF_ONNX)
_CALIBRATED = ("model", "export", "calibration", "use", CODE)
CALIBRATION_REFERENCE: Stage[References] = Stage(
    "reference", _CALIBRATED, References, of="at calibration samples", code=_REFERENCE
)
CALIBRATION_REFERENCE_OF_ONNX: Stage[References] = Stage(
    "reference", _CALIBRATED, References, of="of ONNX at calibration samples", code=_REFERENCE_OF_ONNX
)
TEACHER_REFERENCE: Stage[TeacherAnswers] = Stage(
    "teacher",
    ("teacher", "cases"),
    TeacherAnswers,
    code=_code("build.distillation", _RESULTS, "execution.worker", "execution.host", "passes.canonical"),
)
METRIC: Stage[MetricOfReference] = Stage(
    "metric", ("model", "interface", "metric", "module", CODE), MetricOfReference, code=_METRIC, reads_files=True
)
METRIC_OF_ONNX: Stage[MetricOfReference] = Stage(
    "metric",
    ("model", "runtime", "interface", "metric", "module", CODE),
    MetricOfReference,
    of="of ONNX",
    code=_METRIC,
    reads_files=True,
)
METRIC_OF_TEACHER: Stage[MetricOfTeacher] = Stage(
    "metric",
    ("model", "interface", "metric", "module", CODE),
    MetricOfTeacher,
    of="of the teacher",
    code=_METRIC,
    reads_files=True,
)
TEXTS: Stage[Texts] = Stage(
    "texts",
    ("model", "interface", "inputs", "form", "samples", "split", CODE),
    Texts,
    code=_code(
        "build.answers",
        "build.requests",
        _RESULTS,
        "execution.worker",
        "frontend.reference.answers",
        "frontend.reference.texts",
        "frontend.samples.odd_texts",
        "passes.canonical",
    ),
    assume=_assumed_texts,
)
IMAGES: Stage[Texts] = Stage(
    "images",
    ("model", "interface", "inputs", "form", "samples", "split", "pillow", CODE),
    Texts,
    code=_code(
        "build.image_answers",
        "build.file_answers",
        _RESULTS,
        "execution.worker",
        "frontend.reference.images",
        "frontend.samples.odd_images",
        "passes.canonical",
    ),
    assume=_assumed_images,
)
SOUNDS: Stage[Texts] = Stage(
    "sounds",
    ("model", "interface", "inputs", "form", CODE),
    Texts,
    code=_code(
        "build.audio_answers",
        "build.file_answers",
        _RESULTS,
        "execution.worker",
        "frontend.reference.audio",
        "frontend.samples.odd_sounds",
        "passes.canonical",
    ),
    assume=_assumed_sounds,
)
ANSWERS: Stage[Proven] = Stage(
    "answers",
    ("model", "host", "runtime", "variables", "accuracy", CODE),
    Proven,
    code=_code(
        "build.model", "build.canonical_bundle", "build.answer_proof", _RESULTS, "evaluation.answers", *_BUNDLE_RUNS
    ),
    counts_results=True,
)
SHAPE_MATRIX: Stage[Check] = Stage(
    "shape matrix",
    ("model", "only", "host", "runtime", "variables", CODE),
    Check,
    code=_code("build.model", "build.canonical_bundle", "frontend.samples.inputs", *_BUNDLE_RUNS),
    counts_results=True,
)
CALIBRATE: Stage[Ranges | Skip] = Stage(
    "calibrate",
    ("model", "rewrites", "operators", "method", "samples", "runtime", "variables", CODE),
    Ranges | Skip,
    code=_code(
        "build.variant_graph",
        "build.plain_runtime",
        _RESULTS,
        "frontend.samples.calibration",
        "passes.quantization.calibration",
        "passes.rewrite",
        *_SAMPLES,
    ),
)
VARIANT: Stage[VariantGraph | Skip] = Stage(
    "variant",
    ("model", "variant", "config", "level", "runtime", "ranges", "kernels", "tools", "variables", CODE),
    VariantGraph | Skip,
    code=_code("build.variant_graph", _RESULTS, "passes.__main__", "passes.make_variant"),
    assume=_assumed_graph,
)
VERIFY: Stage[Check] = Stage(
    "verify",
    (*_SESSION, "model", "metric", "embeddings", "only", "copies", "measured at", CODE),
    Check,
    code=_code("build.variant", "build.answer_proof", "frontend.samples.inputs", *_BUNDLE_RUNS),
    assume=_assumed_check,
)
VERIFY_ON_CPU: Stage[Check] = Stage(
    "verify",
    ("variant", "model", "metric", "embeddings", "runtime", "variables", "on", "only", "host", CODE),
    Check,
    of="on CPU",
    code=_code("build.cpu_check", "build.plain_runtime", "frontend.samples.inputs", "passes.upcast", *_BUNDLE_RUNS),
    assume=_assumed_check,
)
VERIFY_ON_AVX2: Stage[Check] = Stage(
    "verify",
    (*_SESSION, "model", "only", "on", CODE),
    Check,
    of="on AVX2",
    code=_code("build.instruction_sets", "frontend.samples.inputs", "bundle.emulation", *_BUNDLE_RUNS),
    assume=_assumed_check,
)
MEASURE: Stage[Race] = Stage(
    "measure",
    ("variants", "model", "shape", "host", "threads", "quantity", "rounds", "reference", CODE),
    Race,
    code=_TIMED,
    is_final=lambda race: not race_noise(race),
)
START: Stage[Starts] = Stage(
    "start",
    (*_SESSION, "model", "shape", "starts", CODE),
    Starts,
    code=_TIMED,
    assume=lambda _: Starts(seconds=(0.0,), peak_rss_bytes=0),
    is_final=lambda starts: not starts_noise(starts),
)
START_OF_PYTORCH: Stage[Starts] = Stage(
    "start",
    ("model", "shape", "host", "threads", CODE),
    Starts,
    of="of PyTorch",
    code=_TIMED,
    assume=lambda _: Starts(seconds=(0.0,), peak_rss_bytes=0),
    is_final=lambda starts: not starts_noise(starts),
)
SENSITIVITY: Stage[Sensitivity] = Stage(
    "sensitivity",
    (*_SESSION, "model", "references", "runtime on CPU", "at", "accuracy", "on", CODE),
    Sensitivity,
    code=_code(
        "build.sensitivity",
        "build.search.precision_ladder",
        "build.cpu_check",
        "build.plain_runtime",
        "frontend.samples.calibration",
        "frontend.samples.inputs",
        "evaluation.machine",
        "passes.quantization.mixed_graphs",
        "passes.upcast",
        "passes.rewrite",
        "plan.texts",
        *_BUNDLE_RUNS,
    ),
    assume=lambda _: Sensitivity(nodes=(), steps=()),
)
PREPACK: Stage[VariantGraph | Skip] = Stage(
    "prepack",
    ("variant", "session", "processor", "runtime", "variables", CODE),
    VariantGraph | Skip,
    code=_code("build.packing", _RESULTS, "passes.prepack"),
    assume=_assumed_graph,
)
BUNDLE: Stage[Sums] = Stage(
    "bundle",
    (
        *("plan", "files", "opened", "left out", "cases", "exporter", "variant", "invariance", "report", "tools"),
        *("stamp", CODE, "extras", "dependencies"),
    ),
    Sums,
    code=_code(
        "build.target_result",
        _RESULTS,
        "build.dependencies",
        "inspection.image_files",
        "bundle.assemble",
        "bundle.tradeoff_plot",
        "bundle.integrity",
        "bundle.supply_chain.provenance",
        LOADER,
        without=frozenset(),
    ),
)

STAGES: tuple[Stage[Any], ...] = (
    ENTRYPOINT,
    SAMPLES,
    EXPORT,
    REFERENCE,
    REFERENCE_OF_ONNX,
    TEXTS,
    IMAGES,
    SOUNDS,
    ANSWERS,
    SHAPE_MATRIX,
    TEACHER_REFERENCE,
    METRIC,
    METRIC_OF_ONNX,
    METRIC_OF_TEACHER,
    VARIANT,
    CALIBRATE,
    CALIBRATION_REFERENCE,
    CALIBRATION_REFERENCE_OF_ONNX,
    VERIFY,
    VERIFY_ON_CPU,
    VERIFY_ON_AVX2,
    MEASURE,
    START,
    START_OF_PYTORCH,
    SENSITIVITY,
    PREPACK,
    BUNDLE,
)
"""Every stage whose results are kept, in the order of a build."""

FETCH, ENVIRONMENT = "fetch", "environment"
"""Steps of every build beside the stages: the model's files, and runtime environments, have stores of their own."""
