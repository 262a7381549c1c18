"""One loaded bundle, ready to answer."""

from __future__ import annotations

import os
import platform
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from .answering import AnsweringSession
from .errors import DigestError, FormatError, GoldenError, InputError, UsageError, tolerating, warn
from .files import State, check_unchanged
from .machine import peak_rss_bytes
from .opening import How, open_session, read_contents
from .selftest import cases_of, run_case
from .session import import_runtime


class Model(AnsweringSession):
    """One loaded bundle. `run` may be called from many threads at once; the session is shared.

    Attributes:
        manifest: manifest.json as read.
        inputs, outputs: The interface, in order.
        axes: The dynamic axes and their bounds.
        providers: Execution providers in order of priority, as ONNX Runtime reports them.
        threads: {"intra_op": n, "inter_op": n} as used.
        concurrency: Runs at once that the session was measured for.
        prepacked: Whether the graph with weights packed for this very kind of processor is the one that is open.
        golden: What the self-test saw, one entry a case; empty when it was skipped.
        seconds: Where the time of loading went: verify, import, session, selftest, warmup, total.
    """

    def __init__(
        self, root: Path, how: How, *, seen: dict[str, State] | None = None, new_engines: bool = False
    ) -> None:
        """Verify and open; `Model.load` is the way in."""
        clock, seconds = time.perf_counter, dict[str, float]()
        started = clock()
        contents = read_contents(root, how, seen)
        seconds["verify"] = clock() - started
        started = clock()
        ort = import_runtime(contents.runtime, contents.environment)
        seconds["import"] = clock() - started
        started = clock()
        opened = open_session(ort, contents, how, new_engines=new_engines)
        super().__init__(contents, opened, profiled=how.profile is not None)
        seconds["session"] = clock() - started
        self.seconds = seconds
        self.threads, self.prepacked = contents.threads, opened.prepacked
        self.runtime_version = str(ort.__version__)
        self.golden: tuple[dict[str, Any], ...] = ()
        self._seen = contents.seen

    @classmethod
    def load(
        cls,
        bundle: str | os.PathLike[str],
        *,
        verify: str = "full",
        threads: int | None = None,
        strict: bool = True,
        nan: str = "raise",
        selftest: bool = True,
        warmup: bool = True,
        profile: str | os.PathLike[str] | None = None,
    ) -> Model:
        """Open the bundle in the directory `bundle`, ready to answer.

        Args:
            bundle: The directory that holds manifest.json.
            verify: `full` hashes every file; `fast` compares sizes and times and hashes what has another time than
                the manifest's stamp, for cold starts from an image whose layers are digested; `none` trusts.
            threads: Threads for one operator; by default the bundle's policy (see `thread_count`).
            strict: Refuse changed files, golden answers that differ, and more nodes on the CPU than the bundle allows;
                False makes warnings on stderr of these, to look into a bundle that is refused.
            nan: `raise` refuses NaN in inputs and answers wherever the golden cases have none; `allow` lets all pass.
            selftest: Run the golden cases and refuse the bundle when an answer differs.
            warmup: Run once at each shape the manifest lists, so that the first request is not the slow one.
            profile: Let ONNX Runtime record every node that runs, in a file whose name begins so; `executed` reads it.

        Raises:
            BundleError: One of its subclasses; nothing stays open.
        """
        started = time.perf_counter()
        if nan not in ("raise", "allow"):
            raise UsageError(f"nan is {nan!r}. Expected raise or allow.")
        how = How(verify, threads, strict, None if profile is None else Path(profile))
        model = cls(Path(bundle), how)
        if not model.manifest.get("fit_to_serve"):
            reason = model.manifest.get("unfit_reason")
            warn(f"{model.name} {model.version} ({model.target}) is not fit to serve: {reason}")
        step = time.perf_counter()
        if selftest:
            model = model._tested(how)
        model.seconds["selftest"] = time.perf_counter() - step
        step = time.perf_counter()
        for sizes in model.manifest.get("warmup", ()) if warmup else ():
            try:
                model.run(model.example(sizes))
            except InputError as error:
                raise FormatError(f"manifest.json: warmup has {sizes}: {error}") from error
        model._nan.on = nan == "raise"
        model.seconds["warmup"] = time.perf_counter() - step
        model.seconds["total"] = time.perf_counter() - started
        return model

    def _tested(self, how: How) -> Model:
        """The model after its self-test; another one, over new engines, where those of an earlier start may be bad."""
        model, seen = self, self._seen
        with tolerating(GoldenError, strict=how.strict):
            try:
                model.selftest()
            except GoldenError as error:
                if not model._engines.suspects(error):
                    raise
                model.close()
                again = How("none", how.threads, how.strict, how.profile)
                model = type(self)(self.root, again, seen=seen, new_engines=True)
                model.selftest()
        with tolerating(DigestError, strict=how.strict):
            check_unchanged(model.root, seen)
        return model

    def selftest(self) -> tuple[dict[str, Any], ...]:
        """Run every golden case: name, tolerance, and what was observed, in all and for each output.

        Raises:
            GoldenError: An answer differs by more than the manifest allows, or there is no case to run.
        """
        cases = cases_of(self.root, self.manifest)
        if not cases:
            raise GoldenError("the bundle has no golden case, so that nothing shows that it is right. Build it again.")
        names = self.output_names()
        self.golden = tuple(run_case(case, names, self.run, self._nan, self.runtime_version) for case in cases)
        if self.manifest.get("processing"):
            self.golden = (*self.golden, self.check_answers())
        self._engines.keep()
        return self.golden

    def info(self) -> dict[str, Any]:
        """What was loaded and on what: identity, versions, providers, placement counts, threads, memory, times."""
        import onnxruntime as ort

        return {
            "name": self.name,
            "version": self.version,
            "target": self.target,
            "variant": self.manifest.get("variant"),
            "fit_to_serve": bool(self.manifest.get("fit_to_serve")),
            "versions": {
                "python": platform.python_version(),
                "numpy": np.__version__,
                "onnxruntime": self.runtime_version,
                "build": str(ort.get_build_info()),
            },
            "platform": f"{platform.system().lower()}/{platform.machine()}",
            "providers": list(self.providers),
            "placement": dict(Counter(provider for provider, *_ in self._placement)),
            "fallback": self.fallback(),
            "threads": dict(self.threads),
            "prepacked": self.prepacked,
            "peak_rss_bytes": peak_rss_bytes(),
            "load_seconds": self.seconds.get("total"),
            "seconds": dict(self.seconds),
        }
