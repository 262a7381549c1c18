"""What the loader makes of broken promises, of NaN, and of many callers at once."""

from __future__ import annotations

import asyncio
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from tests.support import bundles

loader = bundles.runtime_module("loader")
numerics_module = bundles.runtime_module("loading.numerics")
SECONDS = 60


def root_bundle(place: Path, golden: list[float]) -> Path:
    """y = sqrt(x): NaN of negative values, for any number of them."""
    graph = helper.make_graph(
        [helper.make_node("Sqrt", ["x"], ["y"], name="sqrt")],
        "root",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch"])],
    )
    recipe = bundles.linear()
    recipe.model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    recipe.manifest["inputs"] = [{"name": "x", "dtype": "float32", "shape": ["batch"], "range": None}]
    recipe.manifest["outputs"] = [{"name": "y", "dtype": "float32", "shape": ["batch"]}]
    recipe.manifest["golden"] = recipe.manifest["golden"][:1]
    recipe.golden = [{"x": np.array(golden, np.float32)}]
    return recipe.write(place / "bundle")


def x(*values: float) -> dict[str, Any]:
    return {"x": np.array(values, np.float32)}


def test_nan_is_refused_where_the_golden_answers_have_none(tmp_path: Path) -> None:
    bundle = root_bundle(tmp_path, [4, 9])
    with loader.Model.load(bundle) as model:
        assert model.run(x(16))["y"] == [4]
        with pytest.raises(loader.NumericsError, match="output 'y' of linear holds NaN") as caught:
            model.run(x(4, -1, 9))
        assert (caught.value.code, caught.value.exit_code) == ("numerics", 13)
        with pytest.raises(loader.InputError, match="input 'x' holds NaN"):
            model.run(x(4, np.nan))
        assert np.isinf(model.run(x(np.inf))["y"]).all()  # an infinity is a number that many masks are made of
    with loader.Model.load(bundle, nan="allow") as model:
        assert np.isnan(model.run(x(4, -1, np.nan))["y"]).tolist() == [False, True, True]
    with pytest.raises(loader.UsageError, match="Expected raise or allow"):
        loader.Model.load(bundle, nan="ignore")


def test_nan_passes_where_pytorch_gave_nan_too(tmp_path: Path) -> None:
    with np.errstate(invalid="ignore"):
        bundle = root_bundle(tmp_path, [4, -1])
    with loader.Model.load(bundle) as model:
        assert np.isnan(model.run(x(-4))["y"]).all()


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([1, np.nan], True),
        ([np.inf, -np.inf], False),
        ([np.inf, np.nan], True),
        ([3e38, 3e38], False),
        ([], False),
        ([1, 2], False),
    ],
)
def test_nan_is_told_from_infinities_and_overflow(values: list[float], found: bool) -> None:
    for dtype in (np.float16, np.float32, np.float64):
        with np.errstate(over="ignore"):
            array = np.array(values, np.float64).astype(dtype)
        assert numerics_module.has_nan(array) is found
    assert not numerics_module.has_nan(np.array([1, 2]))


def test_strict_refuses_what_can_be_looked_into_without(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = bundles.linear().write(tmp_path / "bundle")
    good = {
        "y": np.load(bundle / "golden/0.outputs.npz")["y"],
        "label": np.load(bundle / "golden/0.outputs.npz")["label"],
    }
    np.savez(bundle / "golden/0.outputs.npz", y=good["y"] + 1, label=good["label"])
    with pytest.raises(loader.DigestError):
        loader.Model.load(bundle)
    with loader.Model.load(bundle, strict=False) as model:
        assert np.allclose(model.run({"x": np.load(bundle / "golden/0.inputs.npz")["x"]})["y"], good["y"], atol=1e-5)
    warnings = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in warnings] == ["warning", "warning"]
    assert "golden/0.outputs.npz" in warnings[0]
    assert "golden case 'case-0'" in warnings[1]
    bundles.seal(bundle)
    with pytest.raises(loader.GoldenError):
        loader.Model.load(bundle)
    (bundle / "manifest.json").write_text("{}")
    with pytest.raises(loader.FormatError):
        loader.Model.load(bundle, strict=False)


def test_run_async_answers_as_run_does_and_close_cancels_what_waits(tmp_path: Path) -> None:
    with loader.Model.load(bundles.text().write(tmp_path / "bundle")) as model:
        asked = [
            {"ids": np.full((1, 1 + n % 12), n % 50), "mask": np.ones((1, 1 + n % 12), np.int64)} for n in range(64)
        ]
        futures = [model.run_async(inputs, ["hidden"]) for inputs in asked]
        for inputs, future in zip(asked, futures, strict=True):
            assert np.array_equal(future.result(SECONDS)["hidden"], model.run(inputs)["hidden"])

        async def main() -> Any:
            return await asyncio.wrap_future(model.run_async(asked[3]))

        assert np.array_equal(asyncio.run(main())["hidden"], model.run(asked[3])["hidden"])
        with pytest.raises(loader.InputError, match="missing"):
            model.run_async({})
        futures = [model.run_async(inputs) for inputs in asked]
        model.close()
        for inputs, future in zip(asked, futures, strict=True):
            try:
                answer = future.result(SECONDS)
            except (CancelledError, loader.SessionError):
                continue
            assert answer["hidden"].shape == (*inputs["ids"].shape, 8)
        with pytest.raises(loader.SessionError, match="was closed"):
            model.run_async(asked[0])


def test_sixteen_threads_with_mixed_shapes_get_the_answers_of_one(tmp_path: Path) -> None:
    random = np.random.default_rng(7)
    asked = [random.standard_normal((1 + n % 16, 4)).astype(np.float32) for n in range(48)]
    with loader.Model.load(bundles.linear().write(tmp_path / "bundle")) as model:
        alone = [model.run({"x": rows}) for rows in asked]

        def client(seed: int) -> None:
            for step in range(30):
                index = (seed * 5 + step * 7) % len(asked)
                answer = model.run({"x": asked[index]})
                for name, expected in alone[index].items():
                    assert np.array_equal(answer[name], expected)

        with ThreadPoolExecutor(16) as pool:
            for done in [pool.submit(client, seed) for seed in range(16)]:
                done.result(SECONDS)
