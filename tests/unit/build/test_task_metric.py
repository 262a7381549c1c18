"""A task metric runs in every build, on answers that the reference gave before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ortc.build.stage_results import MetricOfReference
from ortc.build.task_metric import Answers, again
from ortc.common.arrays import Arrays
from ortc.execution.files_opened import Opened

Predict = Callable[[Arrays], Arrays]


def doubled(inputs: Arrays) -> Arrays:
    return {"y": inputs["x"] * 2}


def kept(metric: Callable[[Predict], float], place: Path) -> tuple[MetricOfReference, dict[str, Path]]:
    answers = Answers(doubled, place)
    value = metric(answers.ask)
    before = MetricOfReference(value=value, opened=Opened(), asked=tuple(answers.asked))
    return before, {path.name: path for path in place.iterdir()}


def never() -> Predict:
    pytest.fail("the reference was asked again")


def test_labels_that_nobody_saw_change_the_value_without_the_reference(tmp_path: Path) -> None:
    labels = [1.0]

    def metric(predict: Predict) -> float:
        return float(predict({"x": np.ones(2, np.float32)})["y"].sum()) * labels[0]

    before, files = kept(metric, tmp_path)
    assert (before.value, again(metric, before, files, never)) == (4.0, 4.0)
    labels[0] = 2.0
    assert again(metric, before, files, never) == 8.0


def test_other_questions_are_the_reference_s_to_answer(tmp_path: Path) -> None:
    scale = [1.0]

    def metric(predict: Predict) -> float:
        try:
            return float(predict({"x": np.full(2, scale[0], np.float32)})["y"].sum())
        except LookupError:
            return 0.0

    before, files = kept(metric, tmp_path)
    scale[0] = 3.0
    assert again(metric, before, files, lambda: doubled) == 12.0
