"""A fault in what surrounds the pixels of a model stops the build and the self-test, each by name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.answering import answered, runner
from tests.support.bundles import runtime_module
from tests.support.image_parts import Change, Document, bundle_of, parts
from tests.support.make_image_models import classifier
from tests.support.plans import accuracy

from ortc.build.answer_proof import WrongPixelsError, check_graph, check_pixels
from ortc.build.image_answers import golden_images
from ortc.common.arrays import write_arrays
from ortc.common.errors import AccuracyError
from ortc.evaluation.answers import TextAnswer, compare_answers
from ortc.frontend.reference.images import ReferenceImages
from ortc.frontend.samples.odd_images import odd_images, plain_images

LIMITS = {"cosine": 0.99999, "top1": 1.0, "pixels": 1e-5}


@dataclass(frozen=True)
class Made:
    """A model with what it answers, from which a bundle is made."""

    reference: Any
    own: ReferenceImages
    rows: list[dict[str, Any]]
    pixels: dict[str, Any]
    golden: list[dict[str, Any]]


@pytest.fixture(autouse=True)
def _gradients() -> Iterator[None]:
    """Loading a model switches gradients off for the whole process."""
    with torch.inference_mode(False), torch.set_grad_enabled(torch.is_grad_enabled()):
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("image-faults")
    with torch.inference_mode(False), torch.set_grad_enabled(torch.is_grad_enabled()):
        return made(root)


def made(root: Path) -> Made:
    """What the build takes down of a model: pixels of odd images, answers of samples, and golden images."""
    place = root / "model"
    classifier(place)
    reference, own = parts(place, "image-classification")
    form = own.processing.answer
    rows: list[dict[str, Any]] = []
    for index, file in enumerate((*plain_images(), *odd_images())):
        path = root / f"image-{index}"
        path.write_bytes(file.content)
        rows.append({"name": file.name, "path": str(path)})
    paths = [Path(row["path"]) for row in rows]
    pixels = {str(index): own.pixels(path) for index, path in enumerate(paths)}
    write_arrays(root / "pixels.npz", pixels)
    samples = len(plain_images())
    for row, answer in zip(rows, own.answers(paths[:samples], reference), strict=False):
        row["answer"] = answer
    return Made(reference, own, rows, pixels, golden_images(rows, form, root / "pixels.npz"))


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
def test_a_planted_fault_is_named(whole: Made, tmp_path: Path, name: str) -> None:
    change, said = FAULTS[name]
    bundle = bundle_of(whole.reference, whole.own, change)
    with pytest.raises((WrongPixelsError, AccuracyError), match=said):
        build(whole, bundle, tmp_path)
    with pytest.raises(runtime_module("loading.errors").GoldenError, match=said):
        self_test(whole, bundle, tmp_path)


def test_without_a_fault_both_pass(whole: Made, tmp_path: Path) -> None:
    bundle = bundle_of(whole.reference, whole.own)
    build(whole, bundle, tmp_path)
    self_test(whole, bundle, tmp_path)


def test_a_bundle_that_refuses_an_image_is_named(whole: Made) -> None:
    found = {place: array for place, array in whole.pixels.items() if place != "3"}
    with pytest.raises(WrongPixelsError, match=r"plain-3\.png.*it refuses it: too large"):
        check_pixels([row["name"] for row in whole.rows], whole.pixels, found, {"3": "too large"})


def build(whole: Made, bundle: Any, place: Path) -> None:
    """What the build proves of a bundle, with PyTorch in the place of the exported graph."""
    files = [Path(row["path"]).read_bytes() for row in whole.rows]
    found = {str(index): bundle.media.row(content).pixels for index, content in enumerate(files)}
    check_pixels([row["name"] for row in whole.rows], whole.pixels, found, {})
    judged = [
        TextAnswer(text=row["path"], name=row["name"], answer=row["answer"], kind="labels")
        for row in whole.rows
        if "answer" in row
    ]
    answers = answered(bundle, whole.reference, [Path(str(entry.text)).read_bytes() for entry in judged])
    check_graph(compare_answers(judged, answers), accuracy())


def self_test(whole: Made, bundle: Any, place: Path) -> None:
    """What the loader checks at every start."""
    path = place / "answers.json"
    path.write_text(json.dumps({"format_version": 1, "cases": whole.golden}), "utf-8")
    runtime_module("processing.golden").check(bundle, path, LIMITS, runner(whole.reference))
