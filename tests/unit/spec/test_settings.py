"""What bundles may set is data, the same for the compiler and for the loader, and depends on the runtime's version."""

from __future__ import annotations

import importlib

import pytest
from tests.support.bundles import runtime_module

from ortc.common.resources import data_dir, targets_dir
from ortc.spec import runtimes
from ortc.spec.settings import ENGINES, settings

loader = runtime_module("loader")
settings_module = runtime_module("loading.settings")


def test_the_table_is_what_its_generator_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """`python targets/generate_settings.py` writes it, after a change of the loader's lists or of the runtimes."""
    monkeypatch.syspath_prepend(str(targets_dir()))
    generator = importlib.import_module("generate_settings")
    assert (data_dir() / "settings.json").read_text("utf-8") == generator.text(settings_module)


def test_engines_have_one_place() -> None:
    assert settings_module.ENGINES == ENGINES


@pytest.mark.parametrize("runtime", runtimes.runtimes(), ids=lambda entry: f"{entry.package}-{entry.version}")
def test_every_runtime_has_its_own_names(runtime: runtimes.Runtime) -> None:
    allowed = settings().of(runtime.package, runtime.version)
    assert allowed.config_entries <= runtime.config_keys & settings_module.CONFIG_ENTRIES
    assert allowed.session_options <= runtime.session_options.keys() & settings_module.SESSION_OPTIONS
    for provider, options in allowed.provider_options.items():
        assert options <= runtime.provider_options(provider).keys() & settings_module.PROVIDER_OPTIONS[provider]


def test_a_key_that_only_some_wheels_know_is_allowed_there_alone() -> None:
    key = "mlas.enable_gemm_fastmath_arm64_bfloat16"
    assert key in settings().of("onnxruntime", "1.31.1").config_entries
    assert key not in settings().of("onnxruntime-gpu", "1.31.1").config_entries
