"""Answers to texts: the model's own tokenizer, PyTorch's answers, and the proof that a bundle gives the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ortc.build.audio_answers import build_audio_answers
from ortc.build.context import Context
from ortc.build.image_answers import build_image_answers
from ortc.build.observation import model_key
from ortc.build.requests import golden_texts, requests
from ortc.build.runner import Done
from ortc.build.stage_results import Texts
from ortc.build.stages import TEXTS
from ortc.bundle.answers import Answers
from ortc.common.errors import StageError
from ortc.evaluation.answers import TextAnswer
from ortc.execution.worker import Worker
from ortc.frontend.samples.odd_texts import PLAIN_TEXTS, odd_texts
from ortc.frontend.samples.sources import samples_digest
from ortc.inspection.repository import of_directories
from ortc.passes.canonical import Exported
from ortc.plan.plan import InputPlan
from ortc.plan.processing import AnswerForm, Processing, TextProcessing
from ortc.plan.texts import IDS, MASK, TEXT_INPUTS, TYPES, answer_form, taken_by

SAMPLE_TEXTS = 64
"""Most sample texts that a variant is judged by."""
WAY_OUT = "`interface: tensors` in `model` builds a bundle of the model's tensors, without texts"
TEXTS_FILE, TOKENIZER_FILE = "texts.json", "tokenizer.json"


def build_answers(context: Context, exported: Exported) -> Answers | None:
    """Read the model's own tokenizer or processor and its answers; None for bundles of tensors.

    Raises:
        StageError: what a text, an image or a sound becomes cannot be reproduced.
    """
    plan = context.plan
    repository = of_directories((context.workspace.fetched.directory,))
    form = answer_form(plan.model, plan.export, repository)
    if form is None:
        return None
    outputs = {tensor.name for tensor in exported.outputs}
    # A comparison of two specs exports nothing, and knows of no output.
    if outputs and form.output not in outputs:
        raise StageError(
            f"answers are read from `{form.output}`, which the exported graph does not have",
            help="add it to `export.outputs`, or write `interface: tensors` in `model`",
        )
    sizes = {tensor.name: tensor.shape[-1] for tensor in exported.outputs if tensor.shape}
    longest, size = max(form.dimensions or (0,)), sizes.get(form.output)
    if isinstance(size, int) and longest > size:
        raise StageError(
            f"vectors of {size} numbers are to be cut to {longest}",
            help="name sizes below that in `model.interface.dimensions`",
        )
    takes = taken_by(plan.model, repository)
    if takes != "text":
        build = build_image_answers if takes == "image" else build_audio_answers
        return build(context, form, exported)
    _check_inputs(exported.inputs)
    done = _reference_texts(context, form, exported)
    # A dry run and a comparison may have no files: no key depends on what they hold.
    place = done.files.get(TEXTS_FILE)
    content = {"odd": [], "samples": []} if place is None or not place.is_file() else json.loads(place.read_bytes())
    cuts = form.dimensions or ()
    judged = tuple(
        TextAnswer(text=row["text"], answer=row["answer"], kind=form.kind, cuts=cuts) for row in content["samples"]
    )
    return Answers(
        processing=done.result.processing,
        tokenizer=done.files.get(TOKENIZER_FILE, Path(TOKENIZER_FILE)),
        golden=tuple(golden_texts(content, form)),
        judged=judged,
        odd=(*content["samples"], *content["odd"]),
        key=done.key,
    )


def _check_inputs(inputs: Sequence[InputPlan]) -> None:
    """Check that texts give everything that the model takes.

    Raises:
        StageError: they do not.
    """
    names = {tensor.name for tensor in inputs}
    if other := sorted(names - TEXT_INPUTS):
        raise StageError(
            f"the model takes `{other[0]}`, which no text gives",
            help=WAY_OUT,
        )
    if any(len(tensor.shape) != 2 for tensor in inputs):
        raise StageError("the model's token ids are not of the shape [batch, sequence]", help=WAY_OUT)
    rows = inputs[0].shape[0]
    if MASK not in names and rows != 1:
        raise StageError(
            f"the model takes no `{MASK}`, so that texts of different lengths cannot share a run",
            help=f"declare `{MASK}` in `export.inputs`, or write `interface: tensors` in `model`",
        )


def _reference_texts(context: Context, form: AnswerForm, exported: Exported) -> Done[Texts]:
    """The model's own tokenizer as it ships, with token ids of odd texts, and answers of sample texts."""
    plan = context.plan
    declared = plan.accuracy.samples
    inputs = {
        "model": model_key(context),
        "interface": plan.export.model_dump(mode="json", include={"axes", "inputs", "outputs"}),
        "inputs": [tensor.model_dump(mode="json") for tensor in exported.inputs],
        "form": form.model_dump(mode="json"),
        "samples": samples_digest(str(declared), context.workspace.root) if _is_text(declared) else None,
        "split": plan.calibrates,
    }

    def work(output: Path) -> Texts:
        worker = context.reference.worker()
        bound = _bound(context, exported)
        names = [tensor.name for tensor in exported.inputs]
        place = str(output / TOKENIZER_FILE)
        made = worker.call("texts", form=inputs["form"], bound=bound, inputs=names, tokenizer=place)
        lines, text = _sample_texts(context), made["processing"]["text"]
        strange = [*odd_texts(made["special"]), _long(lines, int(text["max_length"]))]
        odd, samples = requests(form, lines, strange, pairs=bool(text["pairs"]), mask=made["mask"])
        processing = Processing.model_validate(made["processing"])
        odd_rows, rows = (_tokens(worker, texts, processing.of_text) for texts in (odd, samples))
        if form.kind == "fill-mask":
            rows = [row for row in rows if processing.of_text.tokens.mask in row["ids"]]
        if not rows:
            raise StageError(
                "no sample text can be answered within the greatest length of a text",
                help="name shorter texts in `accuracy.samples`, or raise `model.interface.max_length`",
            )
        _check_types([*odd_rows, *rows], exported.inputs)
        answers = worker.call("answers", texts=[row["text"] for row in rows])["answers"]
        answered = [{**row, "answer": answer} for row, answer in zip(rows, answers, strict=True)]
        content = {"odd": odd_rows, "samples": answered}
        (output / TEXTS_FILE).write_text(json.dumps(content), "utf-8")
        return Texts(processing=processing)

    return context.run(TEXTS.action(plan.name, inputs), work)


def _tokens(worker: Worker, texts: Sequence[Any], settings: TextProcessing) -> list[dict[str, Any]]:
    """Token ids of texts by the model's own tokenizer; without texts that the bundle refuses for their length."""
    found = worker.call("tokens", texts=list(texts))["rows"]
    rows = [{"text": text, **row} for text, row in zip(texts, found, strict=True)]
    if settings.truncation != "refuse":
        return rows
    return [row for row in rows if len(row["ids"]) <= settings.max_length]


def _is_text(declared: object) -> bool:
    return isinstance(declared, str) and declared.endswith(".txt")


def _bound(context: Context, exported: Exported) -> int:
    """The most tokens that the model's inputs hold."""
    ids = next(tensor for tensor in exported.inputs if tensor.name == IDS)
    last = ids.shape[-1]
    return last if isinstance(last, int) else next(axis.max for axis in context.plan.export.axes if axis.name == last)


def _sample_texts(context: Context) -> list[str]:
    """The samples of the spec that nothing is calibrated on, where they are texts; else plain sentences."""
    declared = context.plan.accuracy.samples
    if not isinstance(declared, str) or not _is_text(declared):
        return list(PLAIN_TEXTS)
    lines = [
        line.strip() for line in (context.workspace.root / declared).read_text("utf-8").splitlines() if line.strip()
    ]
    judged = lines[::2] if context.plan.calibrates and len(lines) > 1 else lines
    step = max(1, len(judged) // SAMPLE_TEXTS)
    return judged[::step][:SAMPLE_TEXTS]


def _long(samples: Sequence[str], length: int) -> str:
    """A text of more tokens than a text may have: no token is longer than a word."""
    words = " ".join(samples).split()
    return " ".join(words[index % len(words)] for index in range(length + 8))


def _check_types(rows: Sequence[dict[str, Any]], inputs: Sequence[InputPlan]) -> None:
    """Check that token types are an input where the tokenizer makes others than 0.

    Raises:
        StageError: they are not.
    """
    if TYPES in {tensor.name for tensor in inputs}:
        return
    if any(any(row["types"]) for row in rows):
        raise StageError(
            f"the tokenizer gives token types, which the model does not take: `{TYPES}` is no input",
            help=f"declare `{TYPES}` in `export.inputs`, or write `interface: tensors` in `model`",
        )
