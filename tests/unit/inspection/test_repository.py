"""What a repository has beside a stock model is refused by name, or left out by the spec's leave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ortc.common.errors import StageError
from ortc.execution.action_cache import Store
from ortc.frontend.fetch import Fetched, fetch
from ortc.inspection.model_files import loaded_files
from ortc.inspection.repository import code, of_directories, parts, weight_files
from ortc.plan.plan import AccuracyPlan
from ortc.spec.accuracy import SamplesFunction
from ortc.spec.model_sources import HuggingFaceSource

Files = dict[str, Any]
PLAIN: Files = {"config.json": {"model_type": "bert"}, "model.safetensors": b"w", "tokenizer.json": {}}
STOCK = "sentence_transformers.models"
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": f"{STOCK}.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{STOCK}.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Dense", "type": f"{STOCK}.Dense"},
    {"idx": 3, "name": "3", "path": "3_LayerNorm", "type": f"{STOCK}.LayerNorm"},
    {"idx": 4, "name": "4", "path": "4_Normalize", "type": f"{STOCK}.Normalize"},
]
SENTENCES: Files = {
    "modules.json": MODULES,
    "1_Pooling/config.json": {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True},
    "2_Dense/config.json": {"in_features": 32, "out_features": 8},
    "2_Dense/model.safetensors": b"dense",
}


def put(place: Path, files: Files) -> Path:
    for name, content in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return place


def get(root: Path, **fields: Any) -> Fetched:
    source = HuggingFaceSource.model_validate({"source": "huggingface", "path": "model", **fields})
    work = root / f"work-{len(list(root.glob('work-*')))}"
    work.mkdir()
    return fetch(source, root, Store(root / "cache"), work)


@pytest.mark.parametrize(
    ("files", "where"),
    [
        ({"config.json": {"auto_map": {"AutoModel": "modeling_x.X"}}}, "config.json: `auto_map` names modeling_x.X"),
        ({"config.json": {"text_config": {"auto_map": {"AutoModel": "m.X"}}}}, "`text_config.auto_map`"),
        ({"config.json": {"encoders": [{"auto_map": {"AutoModel": "m.X"}}]}}, "`encoders.0.auto_map`"),
        ({"tokenizer_config.json": {"auto_map": {"AutoTokenizer": ["t.T", None]}}}, "tokenizer_config.json"),
        ({"preprocessor_config.json": {"auto_map": {"AutoImageProcessor": "p.P"}}}, "preprocessor_config.json"),
        (
            {
                "preprocessor_config.json": {},
                "processor_config.json": {"image_processor": {"auto_map": {"AutoProcessor": "p.P"}}},
            },
            "processor_config.json: `image_processor.auto_map`",
        ),
        ({"modules.json": [{"idx": 0, "path": "", "type": "custom_st.Transformer"}]}, "the module custom_st"),
        ({"modules.json": [*MODULES, {"idx": 5, "path": "", "type": "pooling.Mine"}]}, "the module pooling.Mine"),
    ],
)
@pytest.mark.parametrize("fields", [{}, {"interface": "tensors"}, {"weights": "random", "interface": "tensors"}])
def test_code_of_a_repository(tmp_path: Path, files: Files, where: str, fields: Files) -> None:
    put(tmp_path / "model", {**PLAIN, **files})
    with pytest.raises(StageError, match="`model` brings code of its own") as caught:
        get(tmp_path, **fields)
    assert where in caught.value.message
    assert "source: pytorch" in str(caught.value.help)


def test_configurations_without_code(tmp_path: Path) -> None:
    empty = {"config.json": {"model_type": "bert", "auto_map": {}}, "tokenizer_config.json": {"auto_map": None}}
    assert get(put(tmp_path / "model", {**PLAIN, **empty}).parent).left_out == ()
    # Whatever is said of a processor that nothing reads is no part of the model.
    other = put(
        tmp_path / "other", {"config.json": {}, "tokenizer_config.json": {"auto_map": {"AutoTokenizer": "t.T"}}}
    )
    assert code(of_directories([other]), ["config.json", "model.safetensors"]) == ()


@pytest.mark.parametrize(
    ("files", "named"),
    [
        (
            {"adapter_config.json": {"peft_type": "LORA", "base_model_name_or_path": "me/base"}},
            "adapter_config.json: an adapter (LORA) over me/base",
        ),
        ({"adapter_model.safetensors": b"a"}, "adapter_model.safetensors: an adapter"),
        ({"lora/adapter_model.bin": b"a"}, "lora/adapter_model.bin: an adapter"),
        ({"model_head.pkl": b"h"}, "model_head.pkl: the trained classifier of SetFit"),
        ({"head.safetensors": b"h"}, "head.safetensors: weights that are not loaded"),
        ({"colbert_linear.pt": b"h"}, "colbert_linear.pt: a trained ColBERT head"),
        ({"value_head.bin": b"h"}, "value_head.bin: weights that are not loaded"),
        (
            {
                "model.safetensors.index.json": {"weight_map": {"a": "model-00001-of-00001.safetensors"}},
                "model-00001-of-00001.safetensors": b"w",
            },
            "model-00001-of-00001.safetensors: weights that are not loaded",
        ),
        ({"config.json": {"custom_pipelines": {"rank": {"impl": "r.R"}}}}, "config.json: the custom pipelines rank"),
    ],
)
def test_parts_are_refused_by_name_or_left_out(tmp_path: Path, files: Files, named: str) -> None:
    put(tmp_path / "model", {**PLAIN, **files})
    with pytest.raises(StageError, match="has parts that the exported model would be without") as caught:
        get(tmp_path)
    assert named in caught.value.message
    assert "`interface: tensors`" in str(caught.value.help)
    found = get(tmp_path, interface="tensors")
    assert named in "; ".join(found.left_out)
    # What is left out is not at hand for what loads the model.
    assert not {part.partition(":")[0] for part in found.left_out} & {file.name for file in found.files} - {
        "config.json"
    }


@pytest.mark.parametrize(
    ("files", "refused", "named"),
    [
        (SENTENCES, "needs `3_LayerNorm/config.json`", "Pooling (mean), Dense (32 to 8), LayerNorm, Normalize"),
        ({"modules.json": [MODULES[0], MODULES[4]]}, "where one Pooling comes first", "Normalize"),
        (
            {"modules.json": [{"idx": 0, "path": "", "type": f"{STOCK}.CLIPModel"}]},
            "the first module is CLIPModel",
            "CLIPModel",
        ),
        ({"modules.json": b"{"}, "cannot be read", "modules around the model, which cannot be read here"),
        ({"modules.json": {"0": "?"}}, "cannot be read", "modules around the model, which cannot be read here"),
    ],
)
def test_modules_that_are_not_reproduced_are_refused_or_left_out(
    tmp_path: Path, files: Files, refused: str, named: str
) -> None:
    put(tmp_path / "model", {**PLAIN, **files})
    with pytest.raises(StageError, match=refused) as caught:
        get(tmp_path)
    assert "`interface: tensors`" in str(caught.value.help)
    assert get(tmp_path, interface="tensors").left_out == (f"modules.json: {named}",)


def test_modules_that_are_reproduced_are_fetched(tmp_path: Path) -> None:
    put(tmp_path / "model", {**PLAIN, **SENTENCES, "3_LayerNorm/config.json": {"dimension": 8}})
    found = get(tmp_path)
    assert found.left_out == ()
    assert {"modules.json", "1_Pooling/config.json", "2_Dense/model.safetensors"} < found.digests().keys()


@pytest.mark.parametrize(
    "files",
    [
        {"modules.json": MODULES[:1]},
        {
            "pytorch_model.bin": b"the same weights",
            "training_args.bin": b"t",
            "optimizer.pt": b"o",
            "rng_state.pth": b"r",
        },
        {"checkpoint-500/adapter_config.json": {}, "onnx/model.onnx": b"g", "openvino/model.safetensors": b"o"},
        {"model.onnx": b"g", "vocab.txt": b"a", "README.md": b"# A model"},
    ],
)
def test_what_adds_nothing_is_let_through(tmp_path: Path, files: Files) -> None:
    put(tmp_path / "model", {**PLAIN, **files})
    assert get(tmp_path).left_out == ()


def test_a_seeded_architecture_has_no_weights_to_lose(tmp_path: Path) -> None:
    put(tmp_path / "model", {**PLAIN, "head.safetensors": b"h", "adapter_model.safetensors": b"a"})
    assert set(get(tmp_path, weights="random").digests()) == {"config.json", "tokenizer.json"}
    put(tmp_path / "model", SENTENCES)
    with pytest.raises(StageError, match=r"needs `3_LayerNorm/config\.json`"):
        get(tmp_path, weights="random")


def test_listed_files_say_which_weights_are_the_model(tmp_path: Path) -> None:
    from ortc.common.digests import sha256_file

    place = put(tmp_path / "model", {**PLAIN, "other.safetensors": b"o"})
    files = {name: sha256_file(place / name) for name in PLAIN}
    assert get(tmp_path, files=files).digests() == files
    with pytest.raises(StageError, match=r"other\.safetensors: weights that are not loaded"):
        get(tmp_path, files={**files, "other.safetensors": sha256_file(place / "other.safetensors")})


def test_a_pinned_adapter_is_neither_loaded_nor_listed(tmp_path: Path) -> None:
    from ortc.common.digests import sha256_file

    adapter = {"adapter_config.json": {"peft_type": "LORA"}, "adapter_model.safetensors": b"a"}
    place = put(tmp_path / "model", {**PLAIN, **adapter})
    files = {name: sha256_file(place / name) for name in (*PLAIN, *adapter)}
    with pytest.raises(StageError, match="an adapter") as caught:
        get(tmp_path, files=files)
    assert "name it in `model.adapter`, which merges it" in str(caught.value.help)
    found = get(tmp_path, files=files, interface="tensors")
    assert {file.name for file in found.directory.iterdir()} == set(PLAIN)
    source = HuggingFaceSource(source="huggingface", path="model", files=files, interface="tensors")
    names = loaded_files(
        source, found.directory, found.digests(), AccuracyPlan.model_construct(samples=None, metric=None), derived=False
    )
    assert names == {"config.json", "model.safetensors"}


def test_mirrors_are_looked_into(tmp_path: Path) -> None:
    from ortc.common.digests import sha256_file

    place = put(tmp_path / "mirror", {**PLAIN, **SENTENCES})
    files = {name: sha256_file(place / name) for name in PLAIN}
    hub = {"path": None, "id": "me/encoder", "revision": "0" * 40, "files": files, "mirrors": ("path:mirror",)}
    with pytest.raises(StageError, match=r"needs `3_LayerNorm/config\.json`"):
        get(tmp_path, **hub)
    put(place, {"3_LayerNorm/config.json": {"dimension": 8}})
    with pytest.raises(StageError, match=r"`model\.files` does not list: modules\.json, 1_Pooling/config\.json"):
        get(tmp_path, **hub)
    found = get(tmp_path, **hub, interface="tensors")
    # A mirror is not the same everywhere: it is told of, but is not in the bundle.
    assert found.left_out == ()
    assert "left out: modules.json: Pooling (mean), Dense (32 to 8), LayerNorm, Normalize" in found.notes
    files = {name: sha256_file(place / name) for name in (*PLAIN, "modules.json")}
    found = get(tmp_path, **{**hub, "files": files}, interface="tensors")
    assert found.left_out == ("modules.json: Pooling, Dense, LayerNorm, Normalize",)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"model.safetensors": b"", "pytorch_model.bin": b""}, {"model.safetensors"}),
        ({"pytorch_model.bin": b""}, {"pytorch_model.bin"}),
        ({"config.json": {"transformers_weights": "w.safetensors"}, "w.safetensors": b""}, {"w.safetensors"}),
        (
            {"model.safetensors.index.json": {"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}}
            | {"1.safetensors": b"", "2.safetensors": b"", "3.safetensors": b""},
            {"model.safetensors.index.json", "1.safetensors", "2.safetensors"},
        ),
    ],
)
def test_weight_files(tmp_path: Path, files: Files, expected: set[str]) -> None:
    assert weight_files(of_directories([put(tmp_path, files)])) == expected


def test_only_files_that_are_read_are_listed(tmp_path: Path) -> None:
    files = {**PLAIN, "tokenizer_config.json": {}, "preprocessor_config.json": {}, "modules.json": MODULES}
    put(tmp_path, files)
    source = HuggingFaceSource(source="huggingface", path="model", interface="tensors")

    def listed(samples: Any, *, derived: bool = False) -> set[str]:
        accuracy = AccuracyPlan.model_construct(samples=samples, metric=None)
        return set(loaded_files(source, tmp_path, files, accuracy, derived=derived))

    model = {"config.json", "model.safetensors"}
    assert listed(None) == listed("a.npz") == model
    assert listed(None, derived=True) == model | {"tokenizer_config.json", "preprocessor_config.json"}
    assert {"tokenizer.json", *model} <= listed("lines.txt")
    assert listed(SamplesFunction(entrypoint="m:f")) == {*files} - {"modules.json"}


def test_directories_are_walked_with_an_end(tmp_path: Path) -> None:
    put(tmp_path, {"a/b/c/adapter_config.json": {}, ".git/adapter_config.json": {}, "a/b/config.json": {}})
    assert of_directories([tmp_path]).names == {"a/b/config.json"}
    assert parts(of_directories([tmp_path]), ()) == ()


@pytest.mark.parametrize(
    ("config", "method"),
    [
        (
            {"quantization_config": {"quant_method": "compressed-tensors", "format": "pack-quantized"}},
            "compressed-tensors",
        ),
        ({"compression_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "GPTQ"),
        ({"quantization_config": {"quant_method": "awq"}}, "AWQ"),
        ({"quantization_config": {"load_in_4bit": True}}, "bitsandbytes"),
        ({"quantization_config": {"quant_method": "torchao", "quant_type": {"default": {}}}}, "torchao"),
        ({"quantization_config": {"quant_method": "fp8"}}, "fp8"),
        ({"quantization_config": {"bits": 4}}, "an unnamed method"),
        ({"text_config": {"quantization_config": {"quant_method": "awq"}}}, "AWQ"),
    ],
)
def test_weights_that_are_quantized_already_are_refused_by_name(config: Files, method: str, tmp_path: Path) -> None:
    put(tmp_path / "model", {**PLAIN, "config.json": {"model_type": "bert", **config}})
    with pytest.raises(StageError, match=f"are quantized already, with {method}") as caught:
        get(tmp_path, interface="tensors")
    assert "checkpoint that it was made from" in str(caught.value.help)
    get(tmp_path, interface="tensors", weights="random")


def test_configurations_without_quantization_are_taken(tmp_path: Path) -> None:
    put(tmp_path / "model", {**PLAIN, "config.json": {"model_type": "bert", "quantization_config": None}})
    get(tmp_path, interface="tensors")
