"""What can be told about a model from its files, for `ortc init`: nothing is loaded, run or downloaded."""

import json
import os
import re
from pathlib import Path
from typing import Any

from ortc.common.digests import sha256_file
from ortc.common.errors import StageError
from ortc.common.plain_files import is_directory, is_plain, read_plain
from ortc.common.texts import shown
from ortc.inspection import feature_extractors, image_processors
from ortc.inspection.adapter import adapted
from ortc.inspection.draft_spec import Draft, Value, spec_name
from ortc.inspection.external_data import refuse_pointer
from ortc.inspection.findings import BATCH, BOUNDS, OUTSIDE, InspectionError
from ortc.inspection.hub_files import HUB_PATTERNS
from ortc.inspection.optional_inputs import left_out
from ortc.inspection.other_files import way_out
from ortc.inspection.positions import position_limit
from ortc.inspection.recipe import RecipeError, read_recipe, recipe_files
from ortc.inspection.refused_repository import refuse_repository
from ortc.inspection.repository import ADAPTER, MODULES, Part, of_directories, parts, weight_files
from ortc.inspection.tensor_names import NAME_HELP, name_problem
from ortc.inspection.text_length import declared_length
from ortc.spec.model_sources import ADAPTER_FILES, HuggingFaceSource
from ortc.spec.tasks import AUDIO_TASKS, IMAGE_TASKS, TEXT_TASKS
from ortc.spec.vocabulary import LEAST_OPSET

ENTRYPOINT = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", re.ASCII)
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
DEFAULT_OPSET = 20
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HEADS = {
    "ForMaskedLM": "fill-mask",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForMultipleChoice": "multiple-choice",
    "ForImageClassification": "image-classification",
    "ForObjectDetection": "object-detection",
    "ForSemanticSegmentation": "semantic-segmentation",
    "ForDepthEstimation": "depth-estimation",
    "ForAudioClassification": "audio-classification",
    "ForCTC": "ctc",
    "ForCausalLM": "causal-lm",
    "LMHeadModel": "causal-lm",
    "ForVideoClassification": "video-classification",
    "ForUniversalSegmentation": "image-segmentation",
    "T5EncoderModel": "text-encoding",
}
"""Task by the end of the name of an architecture."""
_PAIRS = frozenset(("clip", "siglip", "siglip2", "align", "altclip", "chinese_clip", "groupvit", "metaclip_2"))
"""Kinds of models that compare each text with each image: as many of the ones as of the others is no rule."""
_DECODERS = frozenset(
    (
        *("gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gptj", "falcon", "llama", "mistral", "mixtral", "qwen2"),
        *("qwen2_moe", "qwen3", "phi", "phi3", "stablelm", "starcoder2", "persimmon", "nemotron", "olmo", "olmo2"),
    )
)
"""Kinds of models that classify a text by its last token, and have no padding token unless somebody adds one."""
_NOT_EXPORTED = {
    "owlvit": "it compares boxes of an image with several texts each",
    "owlv2": "it compares boxes of an image with several texts each",
    "sam": "it answers points, boxes and masks that somebody draws",
    "sam2": "it answers points, boxes and masks that somebody draws",
    "vitpose": "it finds points of persons in boxes that a detector gives",
}
"""Kinds of models that transformers has no head of a task for, and what they take or give."""
_MAX_SEQUENCE = 512
ADAPTER_NOTE = (
    "Without the adapter this is its base: move the adapter into a directory of its own, and name it in\n"
    "`model.adapter`, which merges it, to ship what was trained."
)
PARTS_NOTE = "Whoever uses the bundle adds them, or a `pytorch` source builds the whole."


def inspect(
    place: str,
    root: Path,
    *,
    revision: str | None = None,
    max_opset: int = DEFAULT_OPSET,
    least_opset: int = LEAST_OPSET,
) -> Draft:
    """A draft for a directory, an ONNX file, a .pt2 archive, an entry point or a repository of the hub.

    Args:
        place: A path, `module:function`, or `owner/name`.
        root: What relative paths of the spec will start from.
        revision: Commit of a repository of the hub.
        max_opset: What the runtimes of all targets load.
        least_opset: What the precisions of all targets need.

    Raises:
        InspectionError: it is none of them, or not one that a spec can be written for.
    """
    draft = _inspected(place, root, revision, max_opset, least_opset)
    for name in (*draft.inputs, *draft.axes, *(draft.outputs or ())):
        if (why := name_problem(name)) is not None:
            raise InspectionError(f"the tensor or axis `{shown(name)}` {why}: {NAME_HELP}")
    return draft


def _inspected(place: str, root: Path, revision: str | None, max_opset: int, least_opset: int) -> Draft:
    path = Path(place)
    opset = min(DEFAULT_OPSET, max_opset)
    if is_directory(path):
        return _directory(path, root, opset)
    if is_plain(path):
        try:
            refuse_pointer(path, place)
        except StageError as error:
            raise InspectionError(f"{error.message}; {error.help}") from error
        if path.suffix == ".pt2":
            from ortc.inspection.exported_program import inspect_program

            return inspect_program(path, relative(path, root), opset)
        if path.suffix != ".onnx":
            raise InspectionError(f"`{place}` {way_out(path)}")
        from ortc.inspection.onnx_file import inspect_onnx

        return inspect_onnx(path, relative(path, root), max_opset, least_opset)
    if ENTRYPOINT.fullmatch(place) is not None:
        from ortc.inspection.pytorch_function import inspect_entrypoint

        return inspect_entrypoint(place, root, opset)
    if HUB_ID.fullmatch(place) is None:
        raise InspectionError(
            f"there is no `{place}` here; an id of the hub is `owner/name`, an entry point `module:function`"
        )
    return _hub(place, revision, opset)


def relative(path: Path, root: Path) -> str:
    """A path as a spec has it.

    Raises:
        InspectionError: it holds characters that a spec does not take.
    """
    text = Path(os.path.relpath(path.resolve(), root.resolve())).as_posix()
    if not text.isprintable() or "${" in text:
        raise InspectionError(f"the path {text!r} holds characters that a spec does not take; rename it")
    return text


def _directory(path: Path, root: Path, opset: int) -> Draft:
    config = _config(path / "config.json")
    if config is None and is_plain(path / ADAPTER_FILES[0]):
        return adapted(path, root, relative(path, root), lambda base: _directory(base, root, opset))
    if config is None:
        graphs = sorted(file.name for file in path.glob("*.onnx"))
        hint = f"; name the file: {path / graphs[0]}" if graphs else ""
        raise InspectionError(f"`{path}` has no config.json of a transformers model{hint}")
    if (why := _NOT_EXPORTED.get(str(config.get("model_type")))) is not None:
        raise InspectionError(
            f"`{path}` holds {shown(str(config['model_type']))}, which no task of ortc covers: {why}; write a function "
            "that builds the module with the tensors that you need, and inspect it: `ortc init module:function`"
        )
    place = relative(path, root)
    refuse_repository(path)
    model: dict[str, Value] = {"source": "huggingface", "path": place}
    about = f"Written by `ortc init` from {place}{_kind(config)}."
    notes = {"path": OUTSIDE} if place.startswith("../") else {}
    return _huggingface(path.resolve().name, about, model, config, _digests(path), notes, opset, _parts(path), path)


def _hub(identity: str, revision: str | None, opset: int) -> Draft:
    """A repository of the hub, as far as the local cache of the hub knows it."""
    cached = _cached(identity, revision)
    model: dict[str, Value] = {"source": "huggingface", "id": identity}
    notes: dict[str, str] = {}
    if cached is not None:
        refuse_repository(cached.parent)
        model["revision"] = cached.parent.name
        config = _config(cached) or {}
        digests = _digests(cached.parent)
        if not _has_weights(digests):
            digests = {}  # the cache holds a part of the repository; a list of digests is whole or not there
        return _huggingface(
            identity,
            _about(identity, config),
            model,
            config,
            digests,
            notes,
            opset,
            _parts(cached.parent),
            cached.parent,
        )
    model["revision"] = revision or "main"
    if revision is None or not _COMMIT.fullmatch(revision):
        notes["revision"] = "A branch moves: put the 40 digits of a commit here, which the repository's history shows."
    notes["task"] = "Which head of the model to export."
    return _huggingface(identity, _about(identity, {}), model, {}, {}, notes, opset)


def _about(identity: str, config: dict[str, Any]) -> str:
    return f"Written by `ortc init` for {identity} of the Hugging Face hub{_kind(config)}."


def _cached(identity: str, revision: str | None) -> Path | None:
    """The configuration of a repository in the local cache of the hub."""
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(identity, "config.json", revision=revision)
    except ValueError as error:
        raise InspectionError(f"`{identity}` is no id of the hub: {error}") from error
    path = Path(found) if isinstance(found, str) else None
    return path if path is not None and _COMMIT.fullmatch(path.parent.name) else None


def _huggingface(
    name: str,
    about: str,
    model: dict[str, Value],
    config: dict[str, Any],
    digests: dict[str, str],
    notes: dict[str, str],
    opset: int,
    left: tuple[Part, ...] = (),
    directory: Path | None = None,
) -> Draft:
    if "path" in model and not _has_weights(digests):
        notes["weights"] = (
            "There is no .safetensors file beside config.json: the architecture is seeded, which is right for speed "
            "only.\nThe bundle is marked as not fit to serve. Remove the line when the weights are there."
        )
    if digests:
        model["files"] = dict(digests)
        notes["files"] = "The digests decide which bytes are the model, wherever they come from."
    task, known = _task(config)
    model["task"] = task
    if not known:
        notes.setdefault("task", "The configuration names no head that ortc exports; this is the model without one.")
    if "weights" in notes:
        model["weights"] = "random"
    if left:
        model["interface"] = "tensors"
        notes["interface"] = "\n".join(
            [
                "The bundle answers with the tensors of the model alone, without these parts of its repository:",
                *(f"- {part}" for part in left),
                ADAPTER_NOTE if any(ADAPTER.search(part.file) for part in left) else PARTS_NOTE,
            ]
        )
    elif directory is not None and task in (*IMAGE_TASKS, *AUDIO_TASKS):
        _without_answers(model, notes, directory, task)
    kind = _input_kind(config)
    notes["dynamic_axes"] = f"{BOUNDS}\nInputs are derived from the architecture."
    if without := left_out(config, _architecture(config)):
        notes["dynamic_axes"] += f"\nLeft out, unless `inputs` declares them: {', '.join(without)}."
    axes = _axes(kind, config)
    if _classifies_without_padding(config):
        axes["batch"] = {"min": 1, "typical": 1, "max": 1}
        notes["dynamic_axes"] += (
            "\nconfig.json names no `pad_token_id`, without which the model takes one text at a time."
        )
    longest = axes.get("sequence", {}).get("max")
    if directory is not None and task in TEXT_TASKS and isinstance(longest, int) and "interface" not in model:
        _shorten(model, notes, directory, longest)
    return Draft(
        about=about,
        name=spec_name(name.rpartition("/")[2]),
        model=model,
        opset=opset,
        axes=axes,
        notes=notes,
        text_samples="tokenizer.json" in digests or (kind == "text" and "id" in model and not digests),
    )


def _shorten(model: dict[str, Value], notes: dict[str, str], directory: Path, longest: int) -> None:
    """Cut texts at the bound of the axis, where the repository allows longer ones."""
    declared = declared_length(HuggingFaceSource(source="huggingface", path="."), of_directories((directory,)))
    if declared is not None and declared[0] > longest:
        model["interface"] = {"max_length": longest}
        notes["interface"] = (
            f"Texts are cut at the bound of `sequence`; {declared[1]} allows {declared[0]} tokens.\n"
            "Raise both for longer texts."
        )


def _without_answers(model: dict[str, Any], notes: dict[str, str], directory: Path, task: str) -> None:
    """Ask for the tensors alone where the image processor or the feature extractor is not reproduced."""
    repository = of_directories((directory,))
    if task in AUDIO_TASKS:
        what = feature_extractors.unreproduced(repository)
    else:
        name = image_processors.unreproduced(repository)
        what = None if name is None else f"the image processor {name}"
    if what is not None:
        model["interface"] = "tensors"
        notes["interface"] = f"The bundle takes tensors: {what} is not reproduced."


def _parts(directory: Path) -> tuple[Part, ...]:
    """Parts that a bundle would be without; modules only where they cannot be reproduced."""
    repository = of_directories((directory,))
    with_weights = bool(weight_files(repository))
    left = parts(repository, (), with_weights=with_weights, with_modules=False)
    try:
        read_recipe(repository)
    except RecipeError:
        return parts(repository, (), with_weights=with_weights)
    return parts(repository, (), with_weights=with_weights) if left else ()


def _digests(directory: Path) -> dict[str, str]:
    """Digests of the files that are the model; of modules.json as well, so that every machine knows of its parts."""
    left = {part.file for part in _parts(directory)} - {"config.json", MODULES}
    patterns = (*HUB_PATTERNS, MODULES) if left or _parts(directory) else HUB_PATTERNS
    names = {file.name for pattern in patterns for file in directory.glob(pattern) if file.is_file()} - left
    if not _parts(directory):
        names |= set(recipe_files(of_directories((directory,))))
    return {name: sha256_file(directory / name) for name in sorted(names) if name.isprintable() and "\\" not in name}


def _has_weights(digests: dict[str, str]) -> bool:
    return any(name.endswith(".safetensors") for name in digests)


def _config(path: Path) -> dict[str, Any] | None:
    try:
        config = json.loads(read_plain(path))
    except (OSError, ValueError, RecursionError):
        return None
    return config if isinstance(config, dict) else None


def _architecture(config: dict[str, Any]) -> str:
    names = config.get("architectures")
    first = names[0] if isinstance(names, list) and names else ""
    return first if isinstance(first, str) and first.isidentifier() else ""


def _kind(config: dict[str, Any]) -> str:
    return f" ({architecture})" if (architecture := _architecture(config)) else ""


def _task(config: dict[str, Any]) -> tuple[str, bool]:
    """The task of the head that was trained, and whether there is one."""
    architecture = _architecture(config)
    task = next((task for end, task in _HEADS.items() if architecture.endswith(end)), None)
    if task == "text-classification" and _input_kind(config) in ("audio", "features", "spectrogram"):
        task = "audio-classification"
    if task is None:
        return "feature-extraction", architecture.endswith("Model")
    return task, True


def _classifies_without_padding(config: dict[str, Any]) -> bool:
    """Whether a decoder finds its last token by a padding token that it does not have."""
    is_classifier = _architecture(config).endswith("ForSequenceClassification")
    return is_classifier and str(config.get("model_type")) in _DECODERS and config.get("pad_token_id") is None


def _input_kind(config: dict[str, Any]) -> str:
    """What the model takes: text, images, or audio as a wave, as features of frames or as a spectrogram."""
    if "max_source_positions" in config or "num_mel_bins" in config:
        # Sound as a spectrogram of one length.
        return "spectrogram"
    if "feature_projection_input_dim" in config:
        return "features"
    if "feat_extract_norm" in config or "conv_stride" in config:
        return "audio"
    if "vocab_size" not in config and ("num_channels" in config or "image_size" in config):
        return "image"
    return "text"


def _axes(kind: str, config: dict[str, Any]) -> dict[str, dict[str, Value]]:
    if kind == "image":
        return {"batch": BATCH}
    if kind == "features":
        return {"batch": BATCH, "frames": {"min": 16, "typical": 400, "max": 1600}}
    if kind == "spectrogram":
        return {"batch": BATCH}
    if kind == "audio":
        return {"batch": BATCH, "samples": {"min": 400, "typical": 16000, "max": 160000}}
    longest = min(_MAX_SEQUENCE, position_limit(config) or _MAX_SEQUENCE)
    axes: dict[str, dict[str, Value]] = {"batch": BATCH}
    axes["sequence"] = {"min": 1, "typical": min(128, longest), "max": longest}
    if str(config.get("model_type")) in _PAIRS:
        axes["images"] = BATCH
    return axes
