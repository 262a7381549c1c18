"""What a repository of sentence-transformers adds to its model, read from JSON files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ortc.inspection.recipe import Dense, Normalize, Pooling, RecipeError, read_recipe, recipe_files
from ortc.inspection.repository import Repository, of_directories
from ortc.inspection.text_length import declared_length
from ortc.spec.model_sources import HuggingFaceSource

STOCK = "sentence_transformers.models."
DENSE = {"in_features": 8, "out_features": 4, "bias": True, "activation_function": "torch.nn.modules.linear.Identity"}


def repository(place: Path, **files: Any) -> Repository:
    """A repository with pooling, a dense layer and normalization; `files` replace files, with `/` as `__`."""
    content: dict[str, Any] = {
        "modules.json": [
            {"path": "", "type": f"{STOCK}Transformer"},
            {"path": "1_Pooling", "type": f"{STOCK}Pooling"},
            {"path": "2_Dense", "type": f"{STOCK}Dense"},
            {"path": "3_Normalize", "type": f"{STOCK}Normalize"},
        ],
        "1_Pooling/config.json": {"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True},
        "2_Dense/config.json": DENSE,
        "2_Dense/model.safetensors": {},
        "sentence_bert_config.json": {"max_seq_length": 256, "do_lower_case": False},
    }
    content |= {name.replace("__", "/").replace("_json", ".json"): value for name, value in files.items()}
    for name, value in content.items():
        if value is not None:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(value if isinstance(value, str) else json.dumps(value), "utf-8")
    return of_directories((place,))


def test_the_steps_are_those_of_the_modules(tmp_path: Path) -> None:
    recipe = read_recipe(repository(tmp_path))
    assert recipe is not None
    assert recipe.steps == (
        Pooling(modes=("mean",)),
        Dense(weights="2_Dense/model.safetensors", in_features=8, out_features=4, bias=True, activation="Identity"),
        Normalize(),
    )
    assert (recipe.max_length, recipe.prompts, recipe.default_prompt) == (256, {}, None)


@pytest.mark.parametrize(
    ("config", "modes"),
    [
        ({}, ("mean",)),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, ("cls",)),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, ("cls", "mean")),
        ({"pooling_mode": "lasttoken", "embedding_dimension": 8}, ("lasttoken",)),
        ({"pooling_mode": ["weightedmean", "max"], "include_prompt": True}, ("weightedmean", "max")),
    ],
)
def test_pooling_modes_are_read_in_both_forms(tmp_path: Path, config: dict[str, Any], modes: tuple[str, ...]) -> None:
    files = {"1_Pooling__config_json": config}
    recipe = read_recipe(repository(tmp_path, **files))
    assert recipe is not None
    assert recipe.steps[0] == Pooling(modes=modes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("1_Pooling__config_json", {"pooling_mode": "median"}, "the pooling mode `median` is not reproduced"),
        ("1_Pooling__config_json", {"pooling_mode": 7}, "the settings of Pooling are not understood"),
        ("2_Dense__config_json", {**DENSE, "in_features": [8]}, "the settings of Dense are not understood"),
        ("1_Pooling__config_json", {"heads": 4}, "the setting `heads` of Pooling is not reproduced"),
        ("1_Pooling__config_json", "[", "cannot be read"),
        ("2_Dense__config_json", {**DENSE, "activation_function": "mine.Swish"}, "`mine.Swish` is not reproduced"),
        ("2_Dense__config_json", {**DENSE, "gate": True}, "the setting `gate` of Dense is not reproduced"),
        ("2_Dense__config_json", {**DENSE, "module_input_name": "token_embeddings"}, "`module_input_name: token_emb"),
        ("2_Dense__config_json", {"in_features": 8}, "are not understood"),
        ("sentence_bert_config_json", {"query_length": 32}, "`query_length: 32` is not reproduced"),
        ("config_sentence_transformers_json", {"model_type": "SparseEncoder"}, "`model_type: SparseEncoder`"),
        ("config_sentence_transformers_json", {"default_prompt_name": "q"}, "is none of `prompts`"),
        ("modules_json", "{}", "cannot be read as a list of modules"),
        ("modules_json", [{"path": "", "type": f"{STOCK}BoW"}], "the first module is BoW"),
        (
            "modules_json",
            [{"path": "", "type": f"{STOCK}Transformer"}, {"path": "1_CNN", "type": f"{STOCK}CNN"}],
            "the module sentence_transformers.models.CNN is not reproduced",
        ),
        (
            "modules_json",
            [{"path": "", "type": f"{STOCK}Transformer"}, {"path": "3_Normalize", "type": f"{STOCK}Normalize"}],
            "where one Pooling comes first",
        ),
    ],
)
def test_what_is_not_reproduced_is_refused_by_name(tmp_path: Path, name: str, content: Any, said: str) -> None:
    files = {name: content}
    with pytest.raises(RecipeError, match=said.replace("[", r"\[")) as caught:
        read_recipe(repository(tmp_path, **files))
    assert "interface: tensors" in str(caught.value.help)


def test_a_prompt_that_pooling_leaves_out_is_refused(tmp_path: Path) -> None:
    files = {
        "1_Pooling__config_json": {"include_prompt": False},
        "config_sentence_transformers_json": {"prompts": {"query": "query: "}},
    }
    with pytest.raises(RecipeError, match="include_prompt: false"):
        read_recipe(repository(tmp_path, **files))


def test_a_file_that_a_spec_lists_and_this_machine_lacks_is_no_error(tmp_path: Path) -> None:
    known = repository(tmp_path, **{"1_Pooling__config_json": None})
    listed = Repository(known.names | {"1_Pooling/config.json"}, known.read)
    assert read_recipe(listed) is None
    with pytest.raises(RecipeError, match=r"list it in `model\.files`"):
        read_recipe(known)


def test_the_files_of_a_recipe_are_named(tmp_path: Path) -> None:
    assert set(recipe_files(repository(tmp_path, tokenizer_json={}))) == {
        "modules.json",
        "sentence_bert_config.json",
        "tokenizer.json",
        "1_Pooling/config.json",
        "2_Dense/config.json",
        "2_Dense/model.safetensors",
    }


@pytest.mark.parametrize(
    ("interface", "removed", "length"),
    [
        ({"max_length": 64}, (), (64, "interface.max_length")),
        ("auto", (), (256, "sentence_bert_config.json")),
        ("auto", ("sentence_bert_config_json",), (512, "tokenizer_config.json")),
        ("auto", ("sentence_bert_config_json", "tokenizer_config_json"), (128, "tokenizer.json")),
        ("auto", ("sentence_bert_config_json", "tokenizer_config_json", "tokenizer_json"), None),
    ],
)
def test_the_greatest_length_is_the_first_that_is_said(
    tmp_path: Path, interface: Any, removed: tuple[str, ...], length: tuple[int, str] | None
) -> None:
    files: dict[str, Any] = {
        "tokenizer_config_json": {"model_max_length": 512},
        "tokenizer_json": {"truncation": {"max_length": 128}, "padding": {"strategy": {"Fixed": 32}}},
    }
    files |= dict.fromkeys(removed)
    source = HuggingFaceSource.model_validate({"source": "huggingface", "path": ".", "interface": interface})
    assert declared_length(source, repository(tmp_path, **files)) == length


def test_a_length_without_bound_is_none(tmp_path: Path) -> None:
    files: dict[str, Any] = {"sentence_bert_config_json": None, "tokenizer_config_json": {"model_max_length": 1e30}}
    source = HuggingFaceSource(source="huggingface", path=".")
    assert declared_length(source, repository(tmp_path, **files)) is None
