"""Builds on real inputs of every kind: images, also by a model's own processor, and a function of the user's."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.support.builds import PATIENT, PLAIN, ROOT, Compiler

from ortc.common.errors import StageError
from ortc.frontend.samples.images import PROCESSOR, load_images
from ortc.plan.plan import AxisPlan, InputPlan

STATIC = (*PLAIN, "--variant", "int8-static")
"""A variant that is calibrated."""
FUNCTION = """
from pathlib import Path
import numpy as np

def images():
    with np.load(Path(__file__).parents[1] / "examples" / "digits" / "samples.npz") as arrays:
        for image in arrays["image"]:
            yield {"image": image}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example of the digits with its samples as images, too, and as a function."""
    root = tmp_path_factory.mktemp("project")
    (root / "pyproject.toml").write_text("")
    shutil.copytree(ROOT / "examples" / "digits", root / "examples" / "digits", ignore=lambda *_: ["__pycache__"])
    (root / "examples" / "__init__.py").touch()
    (root / "specs").mkdir()
    shutil.copy(ROOT / "specs" / "digits.yaml", root / "specs")
    with np.load(ROOT / "examples" / "digits" / "samples.npz") as arrays:
        for index, image in enumerate(arrays["image"]):
            path = root / "data" / str(index % 3) / f"{index:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.rint(image[0] * 255).astype(np.uint8)).save(path)
    (root / "data" / "given.py").write_text(FUNCTION)
    return root


@pytest.mark.parametrize(
    ("samples", "order"),
    [
        # By relative path: all of one directory, then all of the next.
        ("accuracy.samples=data", [index for label in range(3) for index in range(label, 128, 3)]),
        pytest.param(
            'accuracy.samples={entrypoint: "data.given:images"}',
            list(range(128)),
            marks=pytest.mark.proof("test_what_was_trained_again_is_built_and_refused_by_the_lock has such samples"),
        ),
    ],
    ids=["images", "function"],
)
def test_a_bundle_is_judged_on_what_it_was_not_calibrated_on(
    digits_compiler: Compiler, project: Path, tmp_path: Path, samples: str, order: list[int]
) -> None:
    options = ["-t", "edge", *STATIC, *PATIENT[2:], "--set", samples]
    built = digits_compiler.build(project / "specs" / "digits.yaml", *options, output=tmp_path).succeeded()
    (target,) = built.report("digits")["targets"]
    # The longest request and the shortest, and every other sample.
    assert target["calibration_requests"] == 2 + 64
    bundle = built.bundle("digits", "edge")
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    assert manifest["variant"]["precision"] == "int8"
    name = next(entry["inputs"] for entry in manifest["golden"] if entry["name"].startswith("samples"))
    with np.load(bundle / name) as golden, np.load(ROOT / "examples" / "digits" / "samples.npz") as arrays:
        real = arrays["image"][order]
        distances = np.abs(golden["image"][:, None] - real[None]).max(axis=(2, 3, 4))
    # What 256 levels keep of 17.
    assert distances.min(axis=1).max() <= 0.5 / 255 + 1e-6
    judged = distances.argmin(axis=1)
    assert len(set(judged)) == len(judged)
    assert not (judged % 2).any()


def test_few_samples_are_told_and_so_is_what_a_budget_could_be(digits_compiler: Compiler, tmp_path: Path) -> None:
    with np.load(ROOT / "examples" / "digits" / "samples.npz") as arrays:
        np.savez(tmp_path / "few.npz", image=arrays["image"][:20])
    options = ["-t", "edge", *STATIC, *PATIENT[2:], "--set", "targets.edge.size_budget=50kB"]
    options += ["--set", f"accuracy.samples={tmp_path}/few.npz"]
    built = digits_compiler.build("specs/digits.yaml", *options, output=tmp_path / "dist")
    told = " ".join(built.failed(6).split())
    assert "edge: calibrated on 10 samples, and few show little" in told
    assert "give 64 or more in `accuracy.samples`" in told
    assert built.bundles() == []
    (target,) = built.report("digits")["targets"]
    assert target["calibration_requests"] == 12
    found = target["smallest_right"]
    tried = {entry["variant"]: entry["bytes"] for entry in target["decisions"] if entry["bytes"]}
    assert found["bytes"] == tried[found["variant"]] == min(tried.values())
    assert found["reason"].startswith("the smallest that is right, and size is ")
    assert found["reason"].endswith("must be <= 50.0 kB")


PIXELS = InputPlan(name="pixel_values", dtype="float32", shape=("batch", 3, 8, 8))
BATCH = AxisPlan(name="batch", min=1, typical=1, max=4)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The files of a model that has an image processor."""
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    settings = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": 8, "width": 8},
        "do_rescale": True,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.25, 0.25, 0.25],
    }
    (tmp_path / PROCESSOR).write_text(json.dumps(settings))
    return tmp_path


@pytest.mark.usefixtures("as_builds")
def test_images_by_the_models_own_processor(model: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    Image.new("L", (20, 12), 255).save(images / "grey.png")
    Image.new("RGB", (5, 9), (255, 51, 0)).save(images / "red.jpg", quality=100, subsampling=0)
    values = load_images(images, model, (PIXELS,), (BATCH,))["pixel_values"]
    assert (values.shape, values.dtype) == ((2, 3, 8, 8), np.float32)
    # (value / 255 - mean) / std, by the files' own mean and deviation.
    assert values[0].ravel().tolist() == pytest.approx([2] * 192)
    assert values[1, :, 4, 4].tolist() == pytest.approx([2, -1.2, -2], abs=0.05)
    (images / "zz.png").write_bytes(b"none")
    with pytest.raises(StageError, match=r"the image `zz\.png` of the samples is no image"):
        load_images(images, model, (PIXELS,), (BATCH,))


@pytest.mark.proof(
    "test_a_processor_of_another_form_is_refused; test_images_by_the_models_own_processor refuses an image"
)
def test_a_processor_that_nobody_knows(model: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.new("L", (2, 2)).save(tmp_path / "images" / "a.png")
    (model / PROCESSOR).write_text('{"image_processor_type": "NoSuchProcessor"}')
    (model / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(StageError, match="the model's image processor cannot be made"):
        load_images(tmp_path / "images", model, (PIXELS,), (BATCH,))
