"""TensorRT's profiles cover what the axes promise, and nothing else gets any."""

from __future__ import annotations

import pytest
from tests.support.plans import target

from ortc.bundle.tensorrt_profiles import TENSORRT, with_profiles
from ortc.common.errors import StageError
from ortc.plan.plan import AxisPlan, InputPlan, ProviderPlan, SessionPlan
from ortc.spec.load import load_profile
from ortc.spec.runtimes import runtime

AXES = (
    AxisPlan(name="batch", min=1, typical=4, max=16),
    AxisPlan(name="sequence", min=8, typical=128, max=512, multiple_of=8),
    AxisPlan(name="fixed", min=3, typical=3, max=3),
)


def tensor(name: str, *shape: str | int) -> InputPlan:
    return InputPlan(name=name, dtype="int64", shape=shape)


def session(provider: str = TENSORRT, **options: str) -> SessionPlan:
    providers = (ProviderPlan(name=provider, options=options), ProviderPlan(name="CPUExecutionProvider", options={}))
    return target().variants[0].session.model_copy(update={"providers": providers})


def test_the_profile_is_that_of_the_axes() -> None:
    inputs = (tensor("ids", "batch", "sequence"), tensor("image", "batch", "fixed", 7), tensor("scale", 1, "fixed"))
    found = with_profiles(session(trt_engine_cache_enable="True"), inputs, AXES)
    assert found.providers[0].options == {
        "trt_profile_min_shapes": "ids:1x8,image:1x3x7",
        "trt_profile_opt_shapes": "ids:4x128,image:4x3x7",
        "trt_profile_max_shapes": "ids:16x512,image:16x3x7",
        "trt_engine_cache_enable": "True",
    }
    assert found.providers[1] == session().providers[1]


def test_what_a_target_profile_says_is_left() -> None:
    found = with_profiles(session(trt_profile_max_shapes="ids:1x8"), (tensor("ids", "batch", "sequence"),), AXES)
    assert found.providers[0].options["trt_profile_max_shapes"] == "ids:1x8"


@pytest.mark.parametrize(
    ("given", "inputs"),
    [
        (session("CUDAExecutionProvider"), (tensor("x", "batch"),)),
        (session(), (tensor("x", "fixed", 2),)),
        (session(), ()),
    ],
    ids=["another provider", "nothing is dynamic", "no inputs"],
)
def test_nothing_to_say(given: SessionPlan, inputs: tuple[InputPlan, ...]) -> None:
    assert with_profiles(given, inputs, AXES) is given


@pytest.mark.parametrize("name", ["a:0", "a,b"])
def test_names_that_the_option_cannot_hold(name: str) -> None:
    with pytest.raises(StageError, match=f"`{name}` cannot be named"):
        with_profiles(session(), (tensor(name, "batch"),), AXES)


def test_the_profile_of_the_target() -> None:
    """Only operators of ONNX itself, engines and timings kept, and options that the runtime has."""
    profile = load_profile("server-gpu-tensorrt")
    assert [variant.rewrites for variant in profile.variants] == [()]
    first = profile.execution_providers[0]
    assert first.name == TENSORRT
    assert {"trt_engine_cache_enable", "trt_timing_cache_enable"} <= first.options.keys()
    known = runtime(profile.runtime.package, profile.runtime.version).provider_options(TENSORRT)
    made = with_profiles(session(), (tensor("ids", "batch"),), AXES).providers[0].options
    assert made.keys() | first.options.keys() <= set(known)
