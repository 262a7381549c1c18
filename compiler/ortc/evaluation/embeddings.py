"""Embeddings of real samples: how close a variant's are to the reference's, and whether they rank pairs alike."""

from __future__ import annotations

import numpy as np

from ortc.common.arrays import Array, Arrays
from ortc.common.errors import StageError
from ortc.evaluation.ranks import spearman
from ortc.evaluation.report import EmbeddingCheck
from ortc.spec.accuracy import Embeddings, Pooling


def embedded(outputs: Arrays, declared: Embeddings) -> str:
    """Name the output that holds embeddings: the declared one, or the first of floating point."""
    return declared.output or next((name for name, value in outputs.items() if value.dtype.kind == "f"), "")


def pooled(outputs: Arrays, declared: Embeddings, mask: Array | None) -> Array:
    """One embedding a sample, float64 [samples, hidden].

    Args:
        outputs: of one run.
        declared: which output, and how its positions become one; an output [samples, hidden] is taken as it is.
        mask: the attention mask [samples, positions]; None counts every position.

    Raises:
        StageError: there is no such output, or it holds no embeddings.
    """
    name = embedded(outputs, declared)
    value = outputs.get(name)
    if value is None or value.dtype.kind != "f" or value.ndim not in (2, 3):
        found = "none" if value is None else f"{value.dtype} {list(value.shape)}"
        raise StageError(
            f"`accuracy.embeddings` needs an output [batch, hidden] or [batch, sequence, hidden]; `{name}` is {found}",
            help=f"name one in `accuracy.embeddings.output`: {', '.join(outputs)}",
        )
    hidden = value.astype(np.float64)
    return hidden if hidden.ndim == 2 else _pool(hidden, declared.pooling, mask)


def _pool(hidden: Array, pooling: Pooling, mask: Array | None) -> Array:
    keep = np.ones(hidden.shape[:2]) if mask is None or mask.shape != hidden.shape[:2] else mask.astype(np.float64)
    if pooling == "cls":
        # The first that the mask leaves: some tokenizers pad on the left.
        return np.asarray(hidden[np.arange(len(hidden)), (keep > 0).argmax(axis=1)])
    if pooling == "max":
        return np.asarray(np.where(keep[:, :, np.newaxis] > 0, hidden, -np.inf).max(axis=1))
    weights = keep[:, :, np.newaxis]
    return np.asarray((hidden * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1.0))


def check_embeddings(expected: Array, actual: Array) -> EmbeddingCheck:
    """Compare embeddings, float [samples, hidden] each.

    What is not finite on either side has cosine -1 and ranks nothing.
    """
    left, right = _unit(expected), _unit(actual)
    if not np.isfinite(right).all() or not np.isfinite(left).all():
        return EmbeddingCheck(samples=len(left), cosine_mean=-1.0, cosine_min=-1.0, rank_correlation=-1.0)
    cosines = np.minimum((left * right).sum(axis=1), 1.0)
    return EmbeddingCheck(
        samples=len(left),
        cosine_mean=float(cosines.mean()),
        cosine_min=float(cosines.min()),
        rank_correlation=_pair_correlation(left, right),
    )


def _unit(rows: Array) -> Array:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(norms > 0, norms, 1.0))


def _pair_correlation(left: Array, right: Array) -> float | None:
    """Spearman's rho of the cosines of all pairs of samples; None with fewer than three samples, which rank nothing."""
    if len(left) < 3:
        return None
    upper = np.triu_indices(len(left), k=1)
    return spearman((left @ left.T)[upper], (right @ right.T)[upper])
