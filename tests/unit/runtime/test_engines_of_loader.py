"""The loader with TensorRT's engines between starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support import bundles
from tests.support.machines import MACHINE, engines, loader, no_home, selftest

opening, settings = bundles.runtime_module("loading.opening"), bundles.runtime_module("loading.settings")


class TestLoader:
    """The loader over sessions that stand in for TensorRT's: they read and write one file in the directory given."""

    @pytest.fixture
    def bundle(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        open_session = opening.create_session

        def create(ort: Any, model: Path, config: dict[str, Any], *arguments: Any, **options: Any) -> Any:
            first, *others = config["providers"]
            self.given.append(first["options"])
            place = first["options"].get("trt_engine_cache_path")
            if self.failing is not None:
                raise self.failing
            engine = None if place is None else Path(place) / "graph.engine"
            if engine is not None and engine.exists() and engine.read_text() == "torn":
                raise loader.ProvidersError("could not deserialize engine from cache")
            if engine is not None and not engine.exists():
                engine.write_text("engine")
                self.built += 1
            return open_session(ort, model, {**config, "providers": others}, *arguments, **options)

        self.given: list[dict[str, Any]] = []
        self.built = 0
        self.failing: Exception | None = None
        monkeypatch.setattr(opening, "create_session", create)
        monkeypatch.setattr(engines, "machine", lambda *_: MACHINE)
        monkeypatch.setenv(engines.VARIABLE, str(tmp_path / "engines"))
        recipe = bundles.linear()
        options = {"trt_engine_cache_enable": "True", "trt_engine_cache_path": settings.ENGINES}
        recipe.session["providers"] = [
            {"name": "TensorrtExecutionProvider", "options": options},
            {"name": "CPUExecutionProvider", "options": {}},
        ]
        return recipe.write(tmp_path / "bundle")

    def engine(self, tmp_path: Path) -> Path:
        (found,) = (tmp_path / "engines").glob("*/graph.engine")
        return found

    def test_engines_are_built_once(self, bundle: Path, tmp_path: Path) -> None:
        before = bundles.digest(bundle / "SHA256SUMS")
        for _ in range(3):
            loader.Model.load(bundle).close()
        assert self.built == 1
        assert [given["trt_engine_cache_path"] for given in self.given[1:]] == [str(self.engine(tmp_path).parent)] * 2
        loader.Model.load(bundle, verify="full").close()
        assert bundles.digest(bundle / "SHA256SUMS") == before

    def test_without_golden_answers_nothing_is_kept(self, bundle: Path, tmp_path: Path) -> None:
        loader.Model.load(bundle, selftest=False).close()
        assert list((tmp_path / "engines").iterdir()) == []
        with loader.Model.load(bundle, selftest=False) as model:
            model.selftest()
        assert self.engine(tmp_path).exists()

    def test_a_torn_engine_is_built_anew(
        self, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        loader.Model.load(bundle).close()
        self.engine(tmp_path).write_text("torn")
        loader.Model.load(bundle).close()
        assert "once their answers are right: could not deserialize" in capsys.readouterr().err
        assert (self.built, self.engine(tmp_path).read_text()) == (2, "engine")

    @pytest.mark.parametrize(
        ("error", "attempts"),
        [(loader.SessionError("out of memory"), 2), (loader.ProvidersError("this onnxruntime has only the CPU"), 1)],
    )
    def test_engines_outlive_what_is_not_their_fault(
        self, bundle: Path, tmp_path: Path, error: Exception, attempts: int
    ) -> None:
        loader.Model.load(bundle).close()
        kept = self.engine(tmp_path)
        self.given.clear()
        self.failing = error
        with pytest.raises(type(error)):
            loader.Model.load(bundle)
        assert len(self.given) == attempts
        assert list((tmp_path / "engines").iterdir()) == [kept.parent]
        self.failing = None
        loader.Model.load(bundle).close()
        assert (self.built, self.engine(tmp_path)) == (1, kept)

    def test_engines_outlive_a_session_whose_answers_nobody_checks(self, bundle: Path, tmp_path: Path) -> None:
        loader.Model.load(bundle).close()
        self.engine(tmp_path).write_text("torn")
        loader.Model.load(bundle, selftest=False).close()
        assert (self.built, self.engine(tmp_path).read_text()) == (2, "torn")

    def test_what_cannot_be_kept_is_said_once(
        self, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(engines, "machine", lambda *_: None)
        with loader.Model.load(bundle) as model:
            model.selftest()
        assert capsys.readouterr().err.count("are not kept, and are built again at the next start") == 1
        assert list((tmp_path / "engines").iterdir()) == []

    def test_a_user_without_a_home_gets_a_warning(
        self, bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        session = json.loads((bundle / "session.json").read_bytes())
        del session["providers"][0]["options"]["trt_engine_cache_path"]
        bundles.edit_json(bundle / "session.json", providers=session["providers"])
        for variable in (engines.VARIABLE, "XDG_CACHE_HOME"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setattr(engines.Path, "home", no_home)
        loader.Model.load(bundles.seal(bundle)).close()
        assert "cannot be kept in a cache: this user has no home directory" in capsys.readouterr().err

    def test_engines_with_wrong_answers_are_built_anew(
        self, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        loader.Model.load(bundle).close()
        right, asked = selftest.compare, []

        def compare(*arguments: Any) -> Any:
            asked.append(self.built)
            return ({"max_abs": 1.0, "cosine": 0.0}, "wrong") if self.built == 1 else right(*arguments)

        monkeypatch.setattr(selftest, "compare", compare)
        with loader.Model.load(bundle) as model:
            assert len(model.golden) == 2
        assert (self.built, asked[0]) == (2, 1)

    def test_answers_that_stay_wrong_are_refused(
        self, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        loader.Model.load(bundle).close()
        monkeypatch.setattr(selftest, "compare", lambda *_: ({"max_abs": 1.0, "cosine": 0.0}, "wrong"))
        with pytest.raises(loader.GoldenError):
            loader.Model.load(bundle)
        assert self.built == 2
        # Nothing says which of them is wrong: what took minutes is not thrown away for no better.
        assert len(list((tmp_path / "engines").glob("[!.]*/graph.engine"))) == 1

    def test_where_nothing_can_be_written_engines_are_not_kept(
        self, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv(engines.VARIABLE, str(tmp_path / "file"))
        loader.Model.load(bundle).close()
        assert "ORTC_ENGINE_CACHE to a directory that can be written" in capsys.readouterr().err
        assert self.given[0]["trt_engine_cache_enable"] == "False"
