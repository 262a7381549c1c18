"""Models that `transformers` knows."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ortc.errors import StageError
from ortc.plan import ExportPlan, InputPlan
from ortc.reference.model import Reference, finish
from ortc.spec import HuggingFaceSource

if TYPE_CHECKING:
    import torch

TASKS = {
    "feature-extraction": "AutoModel",
    "fill-mask": "AutoModelForMaskedLM",
    "text-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "multiple-choice": "AutoModelForMultipleChoice",
    "image-classification": "AutoModelForImageClassification",
    "object-detection": "AutoModelForObjectDetection",
    "semantic-segmentation": "AutoModelForSemanticSegmentation",
    "image-feature-extraction": "AutoModel",
    "depth-estimation": "AutoModelForDepthEstimation",
    "audio-classification": "AutoModelForAudioClassification",
    "ctc": "AutoModelForCTC",
}
"""Task of a spec to the Auto class of transformers that loads its head."""


def load(source: HuggingFaceSource, directory: Path, export: ExportPlan) -> Reference:
    """Load the model of a directory with its head, and derive the inputs that the spec leaves open.

    Raises:
        StageError: unknown task or architecture, missing weights, or an input that the model does not take.
    """
    import transformers

    if source.task not in TASKS:
        raise StageError(
            f"unknown task `{source.task}`", help=f"`model.task` can be any of: {', '.join(sorted(TASKS))}"
        )
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    auto = getattr(transformers, TASKS[source.task])
    try:
        config = transformers.AutoConfig.from_pretrained(directory, trust_remote_code=False)
        # Scaled-dot-product attention exports guards for fully masked rows in every layer; the eager form is the same
        # arithmetic, and faster in ONNX Runtime.
        if source.weights == "random":
            model = auto.from_config(config, attn_implementation=_attention(auto, config))
        else:
            model = _pretrained(auto, config, directory)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise StageError(f"transformers cannot load the model: {_first_line(error)}") from error
    model.eval()
    # Half-precision checkpoints: the reference is fp32, as every promise of the spec is stated against it.
    model.float()
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = False
    inputs = export.inputs or derive_inputs(model, export)
    _check_inputs(model, inputs)
    _check_positions(model.config, export)
    return finish(_ordered(model, tuple(tensor.name for tensor in inputs)), inputs, export)


def _attention(auto: Any, config: Any) -> str | None:
    # Architectures without switchable attention (convolutional ones) refuse the argument's value, not the argument.
    model_class = auto._model_mapping.get(type(config), None)
    model_class = model_class[0] if isinstance(model_class, tuple) else model_class
    return "eager" if model_class is None or getattr(model_class, "_supports_sdpa", False) else None


def _pretrained(auto: Any, config: Any, directory: Path) -> Any:
    model, report = auto.from_pretrained(
        directory,
        config=config,
        attn_implementation=_attention(auto, config),
        trust_remote_code=False,
        local_files_only=True,
        weights_only=True,
        output_loading_info=True,
    )
    missing = sorted(report["missing_keys"])
    mismatched = sorted(str(key) for key in report.get("mismatched_keys", ()))
    if missing or mismatched:
        raise StageError(
            f"the checkpoint lacks {len(missing) + len(mismatched)} of the model's weights, first "
            f"`{(missing + mismatched)[0]}`; transformers would fill them with random numbers",
            help="check `model.task`: the head must be the one that was trained",
            details=tuple(missing + mismatched)[:20],
        )
    return model


def derive_inputs(model: Any, export: ExportPlan) -> tuple[InputPlan, ...]:
    """Inputs from the configuration and the forward signature, over the canonical axis names.

    Raises:
        StageError: an axis that the model's kind of input needs is not declared, or the kind is not known.
    """
    config = model.config
    accepted = inspect.signature(model.forward).parameters
    declared = {axis.name for axis in export.axes}
    main = model.main_input_name

    def axis(name: str, fixed: int = 1) -> str | int:
        return name if name in declared else fixed

    if main == "input_ids":
        _need(declared, "sequence", main)
        text = getattr(config, "get_text_config", lambda: config)()
        shape = (axis("batch"), "sequence")
        inputs = [InputPlan(name=main, dtype="int64", shape=shape, range=(0, text.vocab_size - 1))]
        if "attention_mask" in accepted:
            inputs.append(InputPlan(name="attention_mask", dtype="int64", shape=shape, range=(0, 1), fill=1))
        types = getattr(text, "type_vocab_size", 0) or 0
        if "token_type_ids" in accepted and types > 1:
            inputs.append(InputPlan(name="token_type_ids", dtype="int64", shape=shape, range=(0, types - 1)))
        return tuple(inputs)
    if main == "pixel_values":
        size = getattr(config, "image_size", None) or 224
        height, width = size if isinstance(size, list | tuple) else (size, size)
        channels = getattr(config, "num_channels", 3)
        return (
            InputPlan(
                name=main,
                dtype="float32",
                shape=(axis("batch"), channels, axis("height", height), axis("width", width)),
            ),
        )
    if main == "input_values":
        _need(declared, "samples", main)
        return (InputPlan(name=main, dtype="float32", shape=(axis("batch"), "samples")),)
    raise StageError(
        f"cannot derive the inputs of {type(model).__name__}, whose main input is `{main}`",
        help="declare them in `export.inputs`",
    )


def _need(declared: set[str], axis: str, tensor: str) -> None:
    if axis not in declared:
        raise StageError(
            f"the axis `{axis}` of the model's input `{tensor}` is not declared",
            help=f"add `{axis}: {{min: 1, typical: …, max: …}}` to `export.dynamic_axes`, or declare `export.inputs`",
        )


def _check_inputs(model: Any, inputs: tuple[InputPlan, ...]) -> None:
    accepted = inspect.signature(model.forward).parameters
    for tensor in inputs:
        if tensor.name not in accepted:
            raise StageError(
                f"{type(model).__name__}.forward() takes no input `{tensor.name}`",
                help=f"it takes: {', '.join(name for name in accepted if name not in {'self', 'kwargs'})}",
            )


def _check_positions(config: Any, export: ExportPlan) -> None:
    limit = getattr(config, "max_position_embeddings", None)
    longest = next((axis.max for axis in export.axes if axis.name == "sequence"), None)
    if isinstance(limit, int) and longest is not None and longest > limit > 0:
        raise StageError(
            f"`sequence` goes to {longest}, but the model has {limit} positions",
            help=f"set `export.dynamic_axes.sequence.max` to {limit} or less",
        )


def _ordered(model: Any, names: tuple[str, ...]) -> torch.nn.Module:
    import torch

    class Ordered(torch.nn.Module):
        """The model with its inputs in the order of the spec."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: torch.Tensor) -> Any:
            return self.model(**dict(zip(names, inputs, strict=True)), return_dict=True)

    return Ordered()


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
