"""Answers to images are those of transformers' pipelines, for a tiny seeded model of each task."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from tests.support.answering import answered
from tests.support.bundles import runtime_module
from tests.support.file_parts import gradients_as_they_are, image_parts
from tests.support.make_image_models import MODELS
from tests.support.odd_pictures import random_file

from ortc.evaluation.agreement import f1, shares, similar
from ortc.frontend.reference.images import depth, opened, segment
from ortc.frontend.samples.odd_images import odd_images, plain_images


@pytest.fixture(autouse=True)
def _gradients() -> Iterator[None]:
    with gradients_as_they_are():
        yield


@pytest.mark.parametrize("name", MODELS)
def test_answers_are_those_of_the_pipeline(name: str, tmp_path: Path) -> None:
    make, task = MODELS[name]
    make(tmp_path / "model")
    parts = image_parts(tmp_path / "model", task)
    reference, own, bundle = parts.reference, parts.own, parts.bundle()
    more = {"pool": True} if task == "image-feature-extraction" else {}
    known = {"semantic-segmentation": "image-segmentation"}.get(task, task)
    ask: Any = transformers.pipeline(known, model=str(tmp_path / "model"), image_processor=own.processor)
    named = 0
    random = np.random.default_rng(10)
    contents = [file.content for file in (*plain_images(), *odd_images())]
    # 50 images in all.
    contents += [random_file(random, 10**5) for _ in range(50 - len(contents))]
    for index, content in enumerate(contents):
        path = tmp_path / "image"
        path.write_bytes(content)
        (found,) = answered(bundle, reference, [content])
        (of_reference,) = own.answers([path], reference)
        if bundle.kind == "depth" and found["minimum"] == found["maximum"]:
            assert set(base64.b64decode(found["depth"])) == {0}
            assert similar(bundle.kind, found, of_reference) > 0.999999
            continue  # the pipeline divides by zero
        wanted = ask(opened(path), **more)
        if bundle.kind == "segments":
            wanted = [segment(entry) for entry in wanted]
        if bundle.kind == "embedding":
            wanted = np.ravel(wanted).tolist()
        elif bundle.kind == "depth":
            picture, pixels = np.asarray(wanted["depth"]), np.frombuffer(base64.b64decode(found["depth"]), np.uint8)
            # A byte is cut to a whole number: one that is near a whole number may go either way.
            assert np.abs(picture.ravel().astype(int) - pixels).max() <= 1
            wanted = depth(wanted["predicted_depth"].reshape(found["size"]).numpy())
        else:
            named += len(wanted)
            assert f1(shares(bundle.kind, wanted, found)) == 1
            assert f1(runtime_module("processing.agreement").shares(bundle.kind, wanted, found)) == 1
        for answer in (found, of_reference):
            assert similar(bundle.kind, wanted, answer) > 0.999999, index
    assert named > 0 or bundle.kind in ("embedding", "depth")
