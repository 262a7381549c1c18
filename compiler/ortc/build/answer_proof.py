"""The proof that a bundle answers texts as the model does: its token ids, and its answers to sample texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ortc.bundle.answers import Answers
from ortc.common.errors import AccuracyError
from ortc.common.texts import shown
from ortc.evaluation.accuracy_gates import agreement_limit, answer_limit
from ortc.evaluation.answers import check_answers
from ortc.evaluation.report import AnswerCheck
from ortc.execution.worker import Worker
from ortc.plan.plan import AccuracyPlan


class WrongTokensError(AccuracyError):
    """A bundle's tokenizer gives other token ids than the model's own."""


def prove(answers: Answers, accuracy: AccuracyPlan, interpreter: Path, bundle: Path) -> None:
    """Check that a bundle's processing is the model's own: token ids of every text, and answers of sample texts.

    Args:
        answers: what PyTorch and the model's own tokenizer give.
        accuracy: the promises.
        interpreter: of an environment with the bundle's requirements.
        bundle: of the canonical graph.

    Raises:
        WrongTokensError: token ids differ; the message names the text.
        AccuracyError: an answer differs.
    """
    texts = [row["text"] for row in answers.odd]
    with Worker.for_bundle(bundle.name, interpreter, bundle) as worker:
        worker.call("load", bundle=str(bundle), verify="none", selftest=False, warmup=False)
        check_tokens(answers.odd, worker.call("tokens", texts=texts)["rows"])
        check = check_answers(answers.judged, worker)
    check_graph(check, accuracy)


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
        raise AccuracyError(
            f"{check.gate} of the exported graph's answers is {check.agreement:.4f} against PyTorch's, at least "
            f"{least} is expected; {shown(check.worst)!a} is furthest off",
            help="the exported graph or its processing computes something else; see the report's cases",
        )
