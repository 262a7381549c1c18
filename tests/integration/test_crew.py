"""Steps at the same time, and processes that outlive one step."""

from __future__ import annotations

import sys
import threading
from functools import partial
from pathlib import Path

import onnx
import pytest
from tests.support import plans
from tests.support.bundles import linear, linear_model

from ortc.execution import worker_pool
from ortc.execution.graph_workers import Makers
from ortc.execution.worker_pool import Loaded, at_once
from ortc.execution.worker_process import WorkerError
from ortc.passes.canonical import MODEL_FILE

pytestmark = pytest.mark.integration


def test_results_come_in_the_order_of_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "cores", lambda: 2)
    second = threading.Event()

    def first() -> str:
        # Ends after the second, which can only be so when they run at the same time.
        assert second.wait(30)
        return "first"

    def other() -> str:
        second.set()
        return "second"

    assert at_once([first, other]) == ["first", "second"]


def test_one_core_takes_one_step_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "cores", lambda: 1)
    names = at_once([lambda: threading.current_thread().name] * 3)
    assert set(names) == {threading.main_thread().name}


def test_the_first_failure_is_raised_and_later_steps_are_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "cores", lambda: 2)
    begun: list[int] = []
    broken = threading.Event()

    def step(number: int) -> None:
        begun.append(number)
        if number == 0:
            broken.set()
            raise ValueError("broken")
        assert broken.wait(30)

    with pytest.raises(ValueError, match="broken"):
        at_once([partial(step, number) for number in range(40)])
    assert len(begun) < 40


@pytest.fixture
def canonical(tmp_path: Path) -> Path:
    place = tmp_path / "canonical"
    place.mkdir()
    onnx.save(linear_model(), place / MODEL_FILE)
    return place


def request(canonical: Path, output: Path, **variant: object) -> dict[str, object]:
    output.mkdir()
    plan = plans.variant("fp32", "fp32", **variant).model_dump(mode="json")
    paths = {"canonical": str(canonical), "output": str(output), "interpreter": None, "ranges": None}
    return {**paths, "variant": plan, "level": "off"}


def test_one_process_makes_several_graphs(canonical: Path, tmp_path: Path) -> None:
    with Makers() as makers:
        made = makers.call("make", **request(canonical, tmp_path / "a"))
        assert made["bytes"] == (tmp_path / "a" / MODEL_FILE).stat().st_size
        (process,) = makers._idle
        skipped = makers.call("make", **request(canonical, tmp_path / "b", rewrites=("merge-projections",)))
        assert "merge-projections" in skipped["skip"]
        assert makers._idle == [process]


def test_a_bug_in_that_process_is_not_taken_for_a_variant_that_cannot_be_made(canonical: Path, tmp_path: Path) -> None:
    with Makers() as makers:
        with pytest.raises(RuntimeError, match="FileNotFoundError"):
            makers.call("make", **request(tmp_path / "nowhere", tmp_path / "a"))
        assert makers.call("make", **request(canonical, tmp_path / "b"))["bytes"] > 0


def test_what_is_loaded_stays_loaded_until_it_fails(tmp_path: Path) -> None:
    bundle, python = linear().write(tmp_path / "bundle"), Path(sys.executable)
    with Loaded() as loaded:
        with loaded.worker("one", python, bundle) as worker:
            first = worker.call("info")["load_seconds"]
        loaded.load([("one", python, bundle)])
        with loaded.worker("one", python, bundle) as again:
            assert again is worker
            assert again.call("info")["load_seconds"] == first
        with pytest.raises(WorkerError), loaded.worker("one", python, bundle) as broken:
            broken.call("run", inputs=str(tmp_path / "nothing.npz"), outputs=str(tmp_path / "out.npz"))
        with loaded.worker("one", python, bundle) as fresh:
            assert fresh is not worker
        loaded.close()
        with loaded.worker("one", python, bundle) as later:
            assert later is not fresh
