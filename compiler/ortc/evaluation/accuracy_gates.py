"""Judge the answers of a variant by what a spec promises of them."""

from __future__ import annotations

from collections.abc import Iterator

from ortc.common.errors import StageError
from ortc.evaluation.agreement import SPELLING, AnswerGate
from ortc.evaluation.compare import Difference
from ortc.evaluation.gate_table import EMBEDDING_GATES
from ortc.evaluation.gates import Judge
from ortc.evaluation.report import Check, EmbeddingCheck, Verdict
from ortc.evaluation.spread import FEW
from ortc.plan.plan import AccuracyPlan
from ortc.spec.accuracy import Embeddings

LABEL_AGREEMENT = 0.98
"""Least share of equal labels at reduced precision, unless the spec limits `top1_agreement`."""
EXACT_ANSWER = 0.99999
"""Least cosine similarity of an answer in fp32, unless the spec limits `answer_cosine`."""
AGREEMENT = 0.95
"""Least F1 of entities and spans, and share of equal words, at reduced precision, unless the spec limits them."""
EVERY = list[tuple[str, Difference]]


def accuracy_verdicts(
    check: Check, precision: str, accuracy: AccuracyPlan, platform: str, reference_metric: float | None
) -> tuple[Verdict, ...]:
    """Judge a check by the promises for its precision.

    fp32 is judged by max_abs, and its integers are the reference's. Less is judged by the direction and the norm of
    each sample (`cosine`, `relative_error`), by the error over the spread of all samples (`nrmse`, `spearman`), and by
    the share of equal labels. An output that the reference gives as the same at every row is judged by max_abs at any
    precision. Nothing is judged by outputs that give no evidence; see `ortc.evaluation.unproven`.

    Args:
        check: of a variant.
        precision: of the variant.
        accuracy: the promises.
        platform: where the variant ran.
        reference_metric: the task metric of the reference, or None where there is no metric.

    Raises:
        StageError: nothing was checked.
    """
    return tuple(_verdicts(Judge(platform), check, precision, accuracy, reference_metric))


def _verdicts(
    judge: Judge, check: Check, precision: str, accuracy: AccuracyPlan, reference_metric: float | None
) -> Iterator[Verdict]:
    if check.error is not None:
        yield judge.words("runs", check.error, "every case runs")
        return
    every = [(result.case, difference) for result in check.cases for difference in result.differences]
    if not every:
        raise StageError("no case was checked: a model without outputs cannot be verified")
    broken = next(((case, entry) for case, entry in every if entry.problem is not None), None)
    if broken is not None:
        case, entry = broken
        where = f"output `{entry.output}` at {case}"
        yield judge.words("outputs", str(entry.problem), "the shape and kind of PyTorch's", where)
        return
    yield from _exact(judge, every, accuracy) if precision == "fp32" else _reduced(judge, check, every, accuracy)
    yield from _top1(judge, check, [pair for pair in every if pair[1].proves], precision, accuracy)
    if check.answers is not None:
        texts = f"{check.answers.texts} {check.answers.unit}"
        yield judge.number("answer_cosine", check.answers.cosine_min, answer_limit(precision, accuracy), texts)
        if (gate := check.answers.gate) is not None:
            where = f"{texts} with {check.answers.named} answers"
            least = agreement_limit(gate, precision, accuracy)
            yield judge.number(gate, gated(gate, check.answers.agreement), gated(gate, least), where)
    if accuracy.embeddings is not None:
        yield from _embeddings(judge, check.embeddings, accuracy.embeddings)
    if accuracy.metric is not None and check.metric is not None and reference_metric is not None:
        least = reference_metric - accuracy.metric.max_drop
        if accuracy.metric.minimum is not None:
            least = max(least, accuracy.metric.minimum)
        where = f"{accuracy.metric.entrypoint} (PyTorch: {reference_metric:.4f})"
        yield judge.number("metric", check.metric, least, where)


def answer_limit(precision: str, accuracy: AccuracyPlan) -> float:
    """The least cosine similarity of an answer to PyTorch's at a precision."""
    if accuracy.answer_cosine is not None:
        return accuracy.answer_cosine
    return EXACT_ANSWER if precision == "fp32" else accuracy.cosine


def gated(gate: AnswerGate, agreement: float) -> float:
    """The number that a gate has for an agreement: of errors 1 less it, free of rounding."""
    return round(1 - agreement, 12) if gate == SPELLING else agreement


def agreement_limit(gate: AnswerGate, precision: str, accuracy: AccuracyPlan) -> float:
    """The least agreement of answers with PyTorch's at a precision."""
    if gate == SPELLING and accuracy.answer_token_errors is not None:
        return 1 - accuracy.answer_token_errors
    declared = {"answer_f1": accuracy.answer_f1, "answer_top1": accuracy.answer_top1}.get(gate)
    if declared is not None:
        return declared
    return 1.0 if precision == "fp32" else AGREEMENT


def _exact(judge: Judge, every: EVERY, accuracy: AccuracyPlan) -> Iterator[Verdict]:
    unequal = next(((case, entry) for case, entry in every if differs(entry)), None)
    if unequal is not None:
        case, entry = unequal
        said = f"integer values differ: {entry.top1:.2%} are equal"
        yield judge.words("outputs", said, "equal integers in fp32", f"output `{entry.output}` at {case}")
        return
    case, worst = max(every, key=lambda pair: pair[1].max_abs)
    yield judge.number("max_abs", worst.max_abs, accuracy.max_abs, f"output `{worst.output}` at {case}")


def differs(entry: Difference) -> bool:
    """Whether an output of integers is not the reference's."""
    return entry.cosine is None and entry.top1 is not None and entry.top1 < 1


def _reduced(judge: Judge, check: Check, every: EVERY, accuracy: AccuracyPlan) -> Iterator[Verdict]:
    proven = [pair for pair in every if pair[1].proves]
    if proven and all(entry.cosine is None and not differs(entry) for _, entry in proven):
        yield judge.words("outputs", "equal", "equal integers", held=True)
    constant = _constant(check, every)
    yield from _unvarying(judge, [pair for pair in every if pair[1].output in constant], accuracy)
    varying = [pair for pair in proven if pair[1].output not in constant]
    # Of one value the cosine is the sign: its error is judged by the spread, below.
    cosines = [(entry.cosine, case, entry) for case, entry in varying if entry.cosine is not None and entry.values != 1]
    if cosines:
        cosine, case, entry = min(cosines, key=lambda triple: triple[0])
        yield judge.number("cosine", cosine, accuracy.cosine, f"output `{entry.output}` at {case}")
    errors = [
        (entry.relative_error, case, entry)
        for case, entry in varying
        if entry.relative_error is not None and (entry.values or 0) > FEW
    ]
    if errors:
        error, case, entry = max(errors, key=lambda triple: triple[0])
        where = f"output `{entry.output}` at {case}"
        yield judge.number("relative_error", error, accuracy.relative_error, where)
    spreads = [entry for entry in check.outputs if entry.output not in constant]
    if spreads:
        # What fp32 may be off is no error of less.
        apart = [entry for entry in spreads if entry.max_abs > accuracy.max_abs] or spreads[:1]
        far = max(apart, key=lambda entry: entry.nrmse)
        held = far.max_abs <= accuracy.max_abs
        where = f"output `{far.output}`, {far.rows} rows"
        yield judge.number("nrmse", far.nrmse, accuracy.nrmse, where, held=held)
        ranked = [(entry.spearman, entry) for entry in apart if entry.spearman is not None]
        if ranked:
            correlation, found = min(ranked, key=lambda pair: pair[0])
            where = f"output `{found.output}`, {found.rows} rows"
            yield judge.number(
                "spearman", correlation, accuracy.spearman, where, held=found.max_abs <= accuracy.max_abs
            )


def _constant(check: Check, every: EVERY) -> set[str]:
    """Outputs of floating point without any variation: at every row the same, or 0 at every case."""
    floats = {entry.output for _, entry in every if entry.cosine is not None and entry.compared != 0}
    proven = {entry.output for _, entry in every if entry.proves}
    return {entry.output for entry in check.outputs if entry.is_constant} | (floats - proven)


def _unvarying(judge: Judge, found: EVERY, accuracy: AccuracyPlan) -> Iterator[Verdict]:
    """Judge constant outputs as fp32 is: their direction, ranks and spread are those of any other constant."""
    if found:
        case, worst = max(found, key=lambda pair: pair[1].max_abs)
        where = f"output `{worst.output}` at {case}; PyTorch gives the same at every row"
        yield judge.number("max_abs", worst.max_abs, accuracy.max_abs, where)


def _top1(judge: Judge, check: Check, every: EVERY, precision: str, accuracy: AccuracyPlan) -> Iterator[Verdict]:
    """The share of rows whose largest value, and of integers that, are the reference's: the least of both."""
    limit = LABEL_AGREEMENT if accuracy.top1_agreement is None else accuracy.top1_agreement
    shares: list[tuple[float, str]] = []
    if precision != "fp32":
        found = [entry for entry in check.labels if entry.labels]
        shares += [(entry.share, f"output `{entry.output}`, {entry.labels} labels") for entry in found]
    if accuracy.top1_agreement is not None:
        floats = [entry.top1 for _, entry in every if entry.top1 is not None and entry.cosine is not None]
        if floats:
            shares.append((sum(floats) / len(floats), ""))
        elif not any(entry.cosine is None and entry.top1 is not None for _, entry in every):
            yield judge.number("top1_agreement", None, limit, said="no output has anything to rank")
            return
        elif not shares:
            shares.append((1.0, ""))
    if shares:
        share, where = min(shares)
        yield judge.number("top1_agreement", share, limit, where)


def _embeddings(judge: Judge, found: EmbeddingCheck | None, promised: Embeddings) -> Iterator[Verdict]:
    samples = 0 if found is None else found.samples
    for gate in EMBEDDING_GATES:
        least, value = getattr(promised, gate), getattr(found, gate, None)
        if least is not None:
            yield judge.number(gate, value, least, f"embeddings of {samples} samples", said="too few samples")


def worst_case(check: Check, precision: str) -> str | None:
    """Name of the case at which a variant is furthest off, by the measure of its precision; None when nothing ran."""

    def distance(difference: Difference) -> float:
        if difference.problem is not None:
            return float("inf")
        if precision == "fp32":
            return difference.max_abs
        if difference.cosine is None:
            return 1 - difference.top1 if difference.top1 is not None else 0.0
        return max(1 - difference.cosine, difference.relative_error or 0.0)

    pairs = [(distance(entry), result.case) for result in check.cases for entry in result.differences]
    return max(pairs)[1] if pairs else None
