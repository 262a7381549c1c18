"""Which cases travel with a bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ortc.bundle.golden_cases import GOLDEN_BYTES, QUICK_GOLDEN_BYTES, golden_cases
from ortc.evaluation.accuracy import ReferenceCase

Make = Callable[..., tuple[ReferenceCase, ...]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Reference cases by name, with outputs of so many bytes."""

    def cases(**sizes: int) -> tuple[ReferenceCase, ...]:
        made = []
        for index, (name, size) in enumerate(sizes.items()):
            path = tmp_path / f"{index}.npz"
            with path.open("wb") as stream:
                stream.truncate(size)
            kind = {"is_sample": "samples" in name, "is_padded": "padded" in name}
            made.append(ReferenceCase(name=name, inputs=path, outputs=path, **kind))
        return tuple(made)

    return cases


def names(cases: tuple[ReferenceCase, ...]) -> list[str]:
    return [case.name for case in cases]


def test_golden_cases_are_of_each_kind(make: Make) -> None:
    sizes = {"batch=1": 1, "batch=3": 1, "batch=9": 1, "batch=1, padded": 1, "batch=3, padded": 1, "samples 1-8": 1}
    assert names(golden_cases(make(**sizes))) == ["samples 1-8", "batch=3, padded", "batch=3"]


def test_golden_cases_stay_small(make: Make) -> None:
    sizes = {"batch=1": 10, "batch=3": GOLDEN_BYTES, "batch=9": GOLDEN_BYTES + 1, "samples 1-8": GOLDEN_BYTES + 1}
    assert names(golden_cases(make(**sizes))) == ["batch=3"]
    # Without a small one the smallest: a bundle without any is refused by its loader.
    sizes = {"batch=9": GOLDEN_BYTES + 9, "batch=3": GOLDEN_BYTES + 1, "batch=5": GOLDEN_BYTES + 5}
    assert names(golden_cases(make(**sizes))) == ["batch=3"]


def test_golden_cases_are_quick_where_they_can_be(make: Make) -> None:
    slow = QUICK_GOLDEN_BYTES + 1
    sizes = {"batch=1": 1, "batch=3": QUICK_GOLDEN_BYTES, "batch=9": slow, "batch=12": slow, "batch=16": slow}
    padded = {"batch=3, padded": QUICK_GOLDEN_BYTES, "batch=9, padded": slow}
    assert names(golden_cases(make(**sizes, **padded))) == ["batch=3, padded", "batch=3"]
    # Real samples are not given up for a faster start, and a single element of a batch of one shows too little.
    sizes = {"samples 1-8": slow, "samples 9-16": slow, "batch=1": 1, "batch=3": slow}
    assert names(golden_cases(make(**sizes))) == ["samples 9-16", "batch=3"]


def test_golden_cases_of_a_model_of_fixed_shape(make: Make) -> None:
    assert names(golden_cases(make(**{"fixed shape": 1}))) == ["fixed shape"]


def case(path: Path, name: str, **fields: object) -> ReferenceCase:
    kind = {"is_sample": "samples" in name, "is_padded": "padded" in name}
    shapes: dict[str, tuple[int, ...]] = {"y": (1,), "boxes": (1,)}
    return ReferenceCase.model_validate(
        {"name": name, "inputs": path, "outputs": path, "output_shapes": shapes, **kind, **fields}
    )


def test_a_golden_case_has_a_value_that_can_be_wrong(tmp_path: Path) -> None:
    path = tmp_path / "0.npz"
    path.write_bytes(b"0")
    blind, some, full = (), ("y",), ("y", "boxes")
    shapes = [case(path, f"batch={n}", telling=blind) for n in range(3)]
    assert names(golden_cases((*shapes, case(path, "batch=9", telling=full)))) == ["batch=9"]
    assert names(golden_cases((case(path, "batch=9", telling=some), *shapes))) == ["batch=9"]
    samples = [case(path, "samples 1-8", telling=some), case(path, "samples 9-16", telling=blind)]
    assert names(golden_cases((*samples, *shapes))) == ["samples 1-8"]
    # Nothing tells anything: the parity of such a bundle is unmeasured.
    assert len(golden_cases(tuple(shapes))) == 1


def test_one_golden_case_has_no_masked_position(tmp_path: Path) -> None:
    path, large = tmp_path / "0.npz", tmp_path / "large.npz"
    path.write_bytes(b"0")
    with large.open("wb") as stream:
        stream.truncate(GOLDEN_BYTES + 1)
    masked = [case(path, f"batch={n}", is_whole=False) for n in range(5)]
    found = golden_cases((*masked, case(path, "batch=9")))
    assert names(found) == ["batch=9"]
    padded = case(path, "batch=3, padded", is_whole=False)
    found = golden_cases((*masked, padded, case(large, "batch=9")))
    assert names(found) == ["batch=3, padded", "batch=2", "batch=9"]
