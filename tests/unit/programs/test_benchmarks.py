"""What the benchmarks keep, count and choose."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "benchmarks"))

    def module(name: str) -> ModuleType:
        return importlib.import_module(name)

    return module


def test_a_contender_that_changed_starts_anew_and_the_others_keep_their_rounds(benchmarks: Any) -> None:
    race, runners = benchmarks("race"), benchmarks("runners")
    ready = [
        runners.Entrant(name, {"identity": identity}, (), {})
        for name, identity in (("pytorch-eager", "a"), ("ort-fp32", "new"), ("openvino-bf16", "c"))
    ]
    document = {
        "threads": 2,
        "contenders": {
            "pytorch-eager": {"identity": "a"},
            "ort-fp32": {"identity": "old"},
            "openvino-bf16": {"identity": "c"},
        },
        "rounds": [
            {"pytorch-eager": [4.0], "ort-fp32": [2.0], "openvino-bf16": [1.0]},
            {"pytorch-eager": [4.0], "ort-fp32": [2.0]},
        ],
    }
    kept = race._kept(document, ready, 2)
    assert set(kept["contenders"]) == {"pytorch-eager", "openvino-bf16"}
    # Eager alone is no comparison with anybody.
    assert kept["rounds"] == [{"pytorch-eager": [4.0], "openvino-bf16": [1.0]}]
    assert race._rounds_of({"pytorch-eager", "openvino-bf16"}, kept) == 1
    assert race._rounds_of({"pytorch-eager", "ort-fp32"}, kept) == 0
    assert race._kept(document, ready, 4) == {"contenders": {}, "rounds": []}


def test_stages_have_the_memory_of_their_time(benchmarks: Any) -> None:
    counting, costs = benchmarks("counting"), benchmarks("costs")
    cost = counting.Cost(
        seconds=10.0,
        exit_code=0,
        memory=((0.5, 10), (1.5, 30), (4.0, 20), (9.0, 50)),
        lines=(
            (2.0, "  export        dynamo  2.0 s"),
            (2.1, "  note          something else"),
            (2.2, "  reference     21 shapes  cached"),
            (5.0, "  verify        auto: fp32 at all  2.5 s"),
            (10.0, "  verify        auto: int8 at all  1.5 s"),
        ),
    )
    assert [(e["name"], e["seconds"], e["peak_rss_bytes"]) for e in costs._stages(cost)] == [
        ("ortc export", 2.0, 30),
        ("ortc verify", 4.0, 50),
    ]
    assert cost.peak() == 50
    assert cost.peak(5.0, 6.0) is None


def test_images_take_the_path_that_a_peer_has_for_them(benchmarks: Any) -> None:
    catalogue = benchmarks("catalogue")
    peers = {peer.name: peer for peer in catalogue.PEERS}
    assert "--optimize O3" in peers["optimum-o3"].command("feature-extraction")
    assert "--optimize" not in peers["optimum-o3"].command(catalogue.IMAGES)
    assert peers["openvino-fp32"].command(catalogue.IMAGES) == peers["openvino-fp32"].command("feature-extraction")


def test_a_batch_stands_for_itself_at_every_sequence(benchmarks: Any) -> None:
    run, catalogue = benchmarks("run"), benchmarks("catalogue")
    bert = catalogue.model("bert-base")
    assert run._shapes(bert, None) == bert.shapes
    assert run._shapes(bert, "4,1x128") == ((1, 128), (4, 16), (4, 128), (4, 512))
    assert run._shapes(catalogue.model("resnet-50"), "16") == ((16,),)


def test_documents_come_back_as_they_were_and_other_formats_are_refused(benchmarks: Any, tmp_path: Path) -> None:
    records = benchmarks("records")
    path = tmp_path / "data" / "race.json"
    assert records.read(path) is None
    document = {"kind": "race", "rounds": [{"a": [1.5, 2.0], "b": []}], "absent": {}, "none": None}
    records.write(path, document)
    assert records.read(path) == {"format_version": 1, **document}
    assert '"a": [1.5, 2.0]' in path.read_text("utf-8")
    path.write_text('{"format_version": 2}', "utf-8")
    with pytest.raises(ValueError, match="format_version 2, expected 1"):
        records.read(path)


def edge_documents() -> tuple[dict[str, Any], dict[str, Any]]:
    """Answers and times of two contenders, as the edge steps keep them."""
    seen = {"samples": 105, "cosine_mean": 0.999, "cosine_min": 0.998, "rank_correlation": 0.9985}
    golden = [{"name": "samples 1-8", "max_abs": 0.1, "cosine": 0.9991}]
    bundle = {"variant": "int8-mixed", "weights_alone": 12, "in_floating_point": 1}
    compared = {
        "contenders": {
            "ort-fp32": {"identity": "a", "bytes": 90_800_000, **seen, "golden": []},
            "edge-size": {"identity": "b", "bytes": 23_400_000, **seen, "golden": golden, **bundle},
        },
        "emulated": {
            "edge-size": {
                "platform": "linux/arm64",
                "processor": "cortex-a72 emulated by QEMU",
                **seen,
                "golden": golden,
                "to_this_host": {"max_abs": 0.01, "cosine_min": 0.9999},
            }
        },
    }
    raced = {
        "identities": {"ort-fp32": "a", "edge-size": "b"},
        "races": {"1x32": {"ort-fp32": [[4.0, 4.2]] * 8, "edge-size": [[2.0, 2.1]] * 8}},
        "scheduling": ["normal"],
    }
    return compared, raced


def test_the_edge_tables_say_what_was_compared_and_raced(
    benchmarks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, render = benchmarks("records"), benchmarks("render_edge")
    monkeypatch.setattr(records, "DATA", tmp_path)
    with pytest.raises(KeyError, match="no data for edge abc minilm"):
        render.edge("abc", "minilm")
    compared, raced = edge_documents()
    records.write(records.place("abc", "edge", "minilm"), compared)
    records.write(records.place("abc", "edge-race", "minilm"), raced)
    table = render.edge("abc", "minilm")
    ours = "**ortc**, `objective: size` (int8-mixed; nodes kept in more: 12 weights alone, 1 fp32)"
    assert f"| {ours} | 23.4 MB | here | 0.99900 | 0.99800 | 0.99850 | 105 |" in table
    assert f"| {ours} | 23.4 MB | linux/arm64 |" in table
    assert "1 golden cases pass, their worst cosine 0.99910" in table
    assert "2.00 [2.00, 2.00] | 16 in 8 rounds |" in render.edge_race("abc", "minilm")
    raced["identities"]["edge-size"] = "another build"
    records.write(records.place("abc", "edge-race", "minilm"), raced)
    with pytest.raises(ValueError, match="others than were compared"):
        render.edge_race("abc", "minilm")
