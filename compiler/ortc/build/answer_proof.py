"""The proof that a bundle answers as the model does: its token ids or features, and its answers to samples."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ortc.bundle.answers import Answers
from ortc.common.arrays import Array, read_arrays
from ortc.common.errors import AccuracyError
from ortc.common.texts import shown
from ortc.evaluation.accuracy_gates import agreement_limit, answer_limit, gated
from ortc.evaluation.agreement import SPELLING
from ortc.evaluation.answers import check_answers
from ortc.evaluation.report import AnswerCheck
from ortc.execution.worker import Worker
from ortc.plan.plan import AccuracyPlan
from ortc.plan.processing import MEDIA, Medium


class WrongTokensError(AccuracyError):
    """A bundle's tokenizer gives other token ids than the model's own."""


class WrongArraysError(AccuracyError):
    """A bundle makes other pixels of an image, or features of a sound, than the model's own processor."""


def prove(answers: Answers, accuracy: AccuracyPlan, interpreter: Path, bundle: Path) -> None:
    """Check that a bundle's processing is the model's own: what requests become, and answers.

    Args:
        answers: what PyTorch and the model's own tokenizer give.
        accuracy: the promises.
        interpreter: of an environment with the bundle's requirements.
        bundle: of the canonical graph.

    Raises:
        WrongTokensError: token ids differ; the message names the text.
        WrongArraysError: pixels or features differ; the message names the image or the sound.
        AccuracyError: an answer differs.
    """
    with Worker.for_bundle(bundle.name, interpreter, bundle) as worker:
        worker.call("load", bundle=str(bundle), verify="none", selftest=False, warmup=False)
        if answers.features is None:
            texts = [row["text"] for row in answers.odd]
            check_tokens(answers.odd, worker.call("tokens", texts=texts)["rows"])
        else:
            _check_files(answers, answers.features, worker)
        check = check_answers(answers.judged, worker)
    check_graph(check, accuracy)


def prove_in_page(answers: Answers, worker: Worker) -> None:
    """Check that a page makes the token ids of the model's own tokenizer, of every odd text.

    Args:
        answers: what the model's own tokenizer gives.
        worker: a browser that has loaded a bundle.

    Raises:
        WrongTokensError: token ids differ; the message names the text.
    """
    check_tokens(answers.odd, worker.call("tokens", texts=[row["text"] for row in answers.odd])["rows"])


def _check_files(answers: Answers, expected: Path, worker: Worker) -> None:
    with tempfile.TemporaryDirectory(prefix="ortc-features-") as scratch:
        output = Path(scratch) / "features.npz"
        refused = worker.call("features", files=[row["path"] for row in answers.odd], outputs=str(output))["refused"]
        names = [str(row["name"]) for row in answers.odd]
        check_arrays(MEDIA[answers.processing.takes], names, read_arrays(expected), read_arrays(output), refused)


def check_arrays(
    medium: Medium,
    names: Sequence[str],
    expected: Mapping[str, Array],
    found: Mapping[str, Array],
    refused: Mapping[str, str],
) -> None:
    """Check that a bundle makes of every file what the model's own processor makes of it.

    Args:
        medium: what the files are called, and how far values may be off.
        names: of the files.
        expected: arrays of the processor, by the places of the files.
        found: those of the bundle.
        refused: reasons of the bundle to make none, by the places of the files.

    Raises:
        WrongArraysError: they differ; the message names the file.
    """
    for place, name in enumerate(names):
        wanted, made = expected[str(place)], found.get(str(place))
        if made is None:
            problem = f"refuses it: {refused.get(str(place), 'without a reason')}"
        elif made.shape != wanted.shape:
            problem = f"gives {medium.made} of shape {list(made.shape)}, expected {list(wanted.shape)}"
        elif not (off := float(np.abs(made - wanted).max())) <= medium.most:
            problem = f"gives {medium.made} that differ by {off:.6g}, at most {medium.most:g} is allowed"
        else:
            continue
        raise WrongArraysError(
            f"the bundle reads the {medium.file} {shown(name)!a} otherwise than the model's own {medium.processor}: "
            f"it {problem}",
            help="report it with the model's preprocessor_config.json; `interface: tensors` in `model` builds a bundle "
            f"without {medium.file}s",
        )


def check_tokens(expected: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]]) -> None:
    """Check that a bundle gives the token ids and token types of the model's own tokenizer.

    Raises:
        WrongTokensError: they differ; the message names the text.
    """
    for wanted, row in zip(expected, found, strict=True):
        if [row["ids"], row["types"]] != [wanted["ids"], wanted["types"]]:
            text = shown(str(wanted["text"]))
            raise WrongTokensError(
                f"the bundle's tokenizer gives other token ids than the model's own: {text!a}",
                help="save the tokenizer again with save_pretrained() of transformers, or write "
                "`interface: tensors` in `model`",
                details=(f"expected {wanted['ids'][:16]}", f"found {row['ids'][:16]}"),
            )


def check_graph(check: AnswerCheck, accuracy: AccuracyPlan) -> None:
    """Check that the exported graph answers sample texts as PyTorch does.

    Raises:
        AccuracyError: an answer differs.
    """
    _check_agreement(check, accuracy)
    least = answer_limit("fp32", accuracy)
    if not check.cosine_min >= least:
        raise AccuracyError(
            f"the answer of the exported graph to {shown(check.worst)!a} has cosine {check.cosine_min:.7f} to "
            f"PyTorch's, at least {least} is expected",
            help="the exported graph or its processing computes something else; see the report's cases",
        )


def _check_agreement(check: AnswerCheck, accuracy: AccuracyPlan) -> None:
    """Check that the exported graph names the entities, spans or words that PyTorch names.

    Raises:
        AccuracyError: it names others.
    """
    if check.gate is None:
        return
    least = agreement_limit(check.gate, "fp32", accuracy)
    if not check.agreement >= least:
        bound = "most" if check.gate == SPELLING else "least"
        raise AccuracyError(
            f"{check.gate} of the exported graph's answers is {gated(check.gate, check.agreement):.4f} against "
            f"PyTorch's, at {bound} {gated(check.gate, least)} is expected; {shown(check.worst)!a} is furthest off",
            help="the exported graph or its processing computes something else; see the report's cases",
        )
