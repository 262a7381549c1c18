"""Classes that a request names: each is a hypothesis, and the model says how far the text entails it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from loading.errors import FormatError, InputError

from .forms import Form, softmax
from .padding import Row
from .texts import Texts

FIELDS = frozenset(("text", "labels", "hypothesis", "multi_label"))
MOST_LABELS = 256
LONGEST_LABEL = 1024  # characters of a label, and of a hypothesis
PLACE = "{}"


class ZeroShot(Form):
    """The candidate labels of a request with their scores."""

    def __init__(self, settings: Mapping[str, Any], texts: Texts) -> None:
        super().__init__(settings, texts)
        self._entailment, self._contradiction = int(settings["entailment"]), int(settings["contradiction"])
        self._hypothesis, self._multi_label = str(settings["hypothesis"]), bool(settings["multi_label"])
        if not is_template(self._hypothesis):
            raise FormatError("the hypothesis has no single place for a label")

    def rows(self, entry: object, prompt: str | None) -> list[Row]:
        """A row for each label: the text, and the hypothesis about it."""
        text, labels, hypothesis, _ = self._parts(entry)
        if not isinstance(text, str):
            raise InputError(f"a text is a {type(text).__name__}. Expected a string.")
        return self.texts.rows_beside(text, [hypothesis.replace(PLACE, label) for label in labels], prompt)

    def most_rows(self, entry: object) -> int:
        """The labels of an entry."""
        labels = entry.get("labels") if isinstance(entry, Mapping) else None
        return min(len(labels), MOST_LABELS) if isinstance(labels, list | tuple) else max(1, len(self.labels))

    def answer(self, entry: Any, rows: Sequence[Row], values: Sequence[Any]) -> list[dict[str, Any]]:
        """Labels as {"label", "score"}, the highest score first."""
        _, labels, _, multi_label = self._parts(entry)
        logits = np.stack(values).astype(np.float64)
        if multi_label or len(labels) == 1:
            scores = softmax(logits[:, [self._contradiction, self._entailment]])[:, 1]
        else:
            scores = softmax(logits[:, self._entailment])
        order = reversed(np.argsort(scores, kind="stable"))
        return [{"label": labels[place], "score": float(scores[place])} for place in order]

    def _parts(self, entry: object) -> tuple[Any, Sequence[str], str, bool]:
        """The text of an entry, its labels, its hypothesis, and whether labels exclude each other.

        Raises:
            InputError: the entry is of another form.
        """
        given: Mapping[Any, Any] = entry if isinstance(entry, Mapping) else {"text": entry}
        if "text" not in given or not set(given) <= FIELDS:
            known = ", ".join(sorted(FIELDS))
            raise InputError(f"a request has {sorted(map(str, given))}. Expected text, and of {known} what it needs.")
        labels = given.get("labels", self.labels)
        if not isinstance(labels, list | tuple) or not all(isinstance(label, str) and label for label in labels):
            raise InputError("labels is not a list of names.")
        if not 1 <= len(labels) <= MOST_LABELS:
            raise InputError(f"a request has {len(labels)} labels. Send 1 to {MOST_LABELS} in `labels`.")
        hypothesis, multi_label = given.get("hypothesis", self._hypothesis), given.get("multi_label", self._multi_label)
        if max(map(len, labels)) > LONGEST_LABEL:
            raise InputError(f"a label has more than {LONGEST_LABEL} characters.")
        if not isinstance(hypothesis, str) or len(hypothesis) > LONGEST_LABEL or not is_template(hypothesis):
            raise InputError(
                f"hypothesis is no text of at most {LONGEST_LABEL} characters with one {{}} for the label."
            )
        if not isinstance(multi_label, bool):
            raise InputError("multi_label is neither true nor false.")
        return given["text"], labels, hypothesis, multi_label


def is_template(text: str) -> bool:
    """Whether a text has one place for a label, and no other braces."""
    return text.count("{") == text.count("}") == text.count(PLACE) == 1
