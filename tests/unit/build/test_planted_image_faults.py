"""A fault in what surrounds the pixels of a model stops the build and the self-test, each by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.bundles import runtime_module
from tests.support.file_parts import Change, Document, Judged, gradients_as_they_are, image_parts, judged
from tests.support.make_image_models import classifier

from ortc.build.answer_proof import WrongArraysError
from ortc.common.errors import AccuracyError
from ortc.frontend.samples.odd_images import odd_images, plain_images


@pytest.fixture(autouse=True)
def _gradients() -> Iterator[None]:
    with gradients_as_they_are():
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    root = tmp_path_factory.mktemp("image-faults")
    with gradients_as_they_are():
        classifier(root / "model")
        return judged(root, image_parts(root / "model", "image-classification"), plain_images(), odd_images())


def of_step(op: str, **values: Any) -> Change:
    def change(document: Document) -> None:
        (step,) = (step for step in document["image"]["steps"] if step["op"] == op)
        assert step != {**step, **values}
        step.update(values)

    return change


def channels(document: Document) -> None:
    document["image"]["steps"].insert(0, {"op": "flip_channels"})


def crop(document: Document) -> None:
    """A crop of another size, brought to the model's own."""
    steps = document["image"]["steps"]
    steps[1] |= {"height": 28, "width": 28}
    steps.insert(2, {"op": "resize", "size": {"height": 32, "width": 32}, "filter": "bicubic"})


def dropped(document: Document) -> None:
    document["image"]["steps"] = [step for step in document["image"]["steps"] if step["op"] != "normalize"]


def labels(document: Document) -> None:
    document["answer"]["labels"] = document["answer"]["labels"][::-1]


def logits(document: Document) -> None:
    document["answer"]["output"] = "logits"


PIXELS, ANSWER = "pixels that differ by|becomes other pixels", "top1|cosine"
FAULTS: dict[str, tuple[Change, str]] = {
    "other mean": (of_step("normalize", mean=[0.485, 0.456, 0.406]), PIXELS),
    "other deviation": (of_step("normalize", std=[0.229, 0.224, 0.225]), PIXELS),
    "other filter": (of_step("resize", filter="bilinear"), PIXELS),
    "other size": (of_step("resize", size={"shortest_edge": 41}), PIXELS),
    "other ratio": (of_step("resize", size={"height": 40, "width": 40}), PIXELS),
    "other factor": (of_step("rescale", factor=1 / 256), PIXELS),
    "other channel order": (channels, PIXELS),
    "other crop": (crop, PIXELS),
    "no normalization": (dropped, PIXELS),
    "permuted labels": (labels, ANSWER),
    "logits in the place of scores": (logits, ANSWER),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_named(whole: Judged, tmp_path: Path, name: str) -> None:
    change, said = FAULTS[name]
    bundle = whole.parts.bundle(change)
    with pytest.raises((WrongArraysError, AccuracyError), match=said):
        whole.build(bundle)
    with pytest.raises(runtime_module("loading.errors").GoldenError, match=said):
        whole.self_test(bundle, tmp_path)


def test_without_a_fault_both_pass(whole: Judged, tmp_path: Path) -> None:
    bundle = whole.parts.bundle()
    whole.build(bundle)
    whole.self_test(bundle, tmp_path)


def test_a_bundle_that_refuses_an_image_is_named(whole: Judged) -> None:
    found = {place: array for place, array in whole.arrays.items() if place != "3"}
    with pytest.raises(WrongArraysError, match=r"the image 'plain-3\.png'.*image processor: it refuses it: too large"):
        whole.check_arrays(found, {"3": "too large"})
