"""Coverage-guided fuzzing of everything that reads a spec: `make fuzz`, or this file with libFuzzer's arguments.

Whatever an input holds, the answer is a spec or diagnostics, and every way to show diagnostics works. Anything else is
a crash: another exception, an input that takes more than a second, or memory above 300 MB (libFuzzer watches that).

The first byte of an input chooses what the rest is: a file, text, a structure, one of the repository's specs with a
value replaced or text spliced in, overrides, a spec with a base, or a target profile.
"""

import copy
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import atheris
import yaml

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "compiler")]

# PyYAML is not instrumented: it is half of the work already, and what it finds shows in the coverage of
# `ortc.spec.syntax.yaml_parser`.
with atheris.instrument_imports(include=["ortc"]):
    import ortc.plan.checks
    from ortc.plan.checks import load_profiles, run_checks
    from ortc.spec.accuracy import Accuracy
    from ortc.spec.deployment import Axis, Export, InputSpec, LatencyBudget, Spec, Target
    from ortc.spec.diagnostics.diagnostic import Diagnostic, render_text, to_github, to_json
    from ortc.spec.diagnostics.errors import SpecError
    from ortc.spec.diagnostics.sarif import to_sarif
    from ortc.spec.inheritance import inherited
    from ortc.spec.load import from_document
    from ortc.spec.model_sources import HuggingFaceSource, PyTorchSource
    from ortc.spec.profile import TargetProfile
    from ortc.spec.syntax.schema_walk import fields
    from ortc.spec.syntax.text import decode
    from ortc.spec.syntax.validation import validate
    from ortc.spec.syntax.yaml_parser import parse

MOST_SECONDS = 1.0
"""Processor time of one input; wall time depends on who else uses the machine."""


def texts(directory: str) -> list[str]:
    """The YAML files of a directory without their comments, which are a third of them."""
    files = sorted((ROOT / directory).glob("*.yaml"))
    return [re.sub(r"(?m)^ *#.*\n|  +#.*", "", path.read_text("utf-8")) for path in files]


SPECS = texts("specs")
PROFILES = texts("targets")
PLAIN = {text: yaml.safe_load(text) for text in (*SPECS, *PROFILES)}
"""The values of specs and profiles; PyYAML's own loader is good enough to make inputs."""
MODELS = (
    *(Spec, Export, HuggingFaceSource, PyTorchSource, Target, TargetProfile),
    *(Accuracy, Axis, InputSpec, LatencyBudget),
)
WORDS = (
    *sorted({name for model in MODELS for name in fields(model)}),
    *("ortc/v1alpha1", "ModelDeployment", "TargetProfile", "huggingface", "pytorch", "onnx", "exported_program"),
    *("batch", "sequence", "float32", "int64", "uint8", "8ms", "50MB", "cpu", "edge", "server-gpu", "int8", "fp16"),
    *(
        "${env:HOME}",
        "${env:NOT_SET_ANYWHERE}",
        "${",
        "[key]",
        "<<",
        "..",
        "a:b",
        "0" * 64,
        "examples.bert.sts:spearman",
    ),
    *("model.onnx", "x.pt2", "w.pkl", "path:examples/bert-base", "s3://a/b", "package:x/y", "https://a:b@c/d", "\x00"),
)


class Slowest:
    """What the slowest inputs took, kept in a file because libFuzzer ends the process without a word."""

    def __init__(self, path: str | None) -> None:
        self._path = Path(path) if path else None
        self._seconds = {"processor": 0.0, "wall": 0.0}

    def note(self, processor: float, wall: float) -> None:
        """Remember one input."""
        if processor > self._seconds["processor"] or wall > self._seconds["wall"]:
            self._seconds["processor"] = max(processor, self._seconds["processor"])
            self._seconds["wall"] = max(wall, self._seconds["wall"])
            if self._path is not None:
                self._path.write_text(json.dumps(self._seconds), "utf-8")


class Maker:
    """Makes values, structures and changed specs out of bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = atheris.FuzzedDataProvider(data)

    def word(self) -> str:
        if self._data.ConsumeIntInRange(0, 3):
            return WORDS[self._data.ConsumeIntInRange(0, len(WORDS) - 1)]
        return str(self._data.ConsumeUnicodeNoSurrogates(self._data.ConsumeIntInRange(0, 12)))

    def value(self, depth: int = 0) -> Any:
        match self._data.ConsumeIntInRange(0, 8 if depth < 5 else 5):
            case 0:
                return self._data.ConsumeInt(8)
            case 1:
                return self._data.ConsumeFloat()
            case 2:
                return self._data.ConsumeBool()
            case 3:
                return None
            case 4 | 5:
                return self.word()
            case 6:
                return [self.value(depth + 1) for _ in range(self._data.ConsumeIntInRange(0, 4))]
            case _:
                return self.mapping(depth + 1)

    def mapping(self, depth: int = 0) -> dict[str, Any]:
        return {self.word(): self.value(depth) for _ in range(self._data.ConsumeIntInRange(0, 6))}

    def changed(self, text: str) -> Any:
        """The values of a text with some of them replaced, added or removed."""
        document = copy.deepcopy(PLAIN[text])
        for _ in range(self._data.ConsumeIntInRange(1, 3)):
            node = document
            while True:
                keys = list(node) if isinstance(node, dict) else range(len(node))
                if not keys:
                    break
                key = keys[self._data.ConsumeIntInRange(0, len(keys) - 1)]
                if not isinstance(node[key], (dict, list)) or self._data.ConsumeIntInRange(0, 3) == 0:
                    break
                node = node[key]
            if not isinstance(node, dict) and not keys:
                continue
            match self._data.ConsumeIntInRange(0, 2):
                case 0 if isinstance(node, dict):
                    node[self.word()] = self.value(3)
                case 1 if keys:
                    del node[key]
                case _ if keys:
                    node[key] = self.value(3)
        return document

    def spliced(self, text: str) -> str:
        """A text with other text in the place of some of its characters."""
        start = self._data.ConsumeIntInRange(0, len(text))
        end = min(len(text), start + self._data.ConsumeIntInRange(0, 40))
        return text[:start] + self.word() + str(self._data.ConsumeUnicode(20)) + text[end:]

    def overrides(self) -> tuple[str, ...]:
        return tuple(
            f"{self.word()}.{self.word()}={self.word()}" if self._data.ConsumeBool() else self._data.ConsumeUnicode(30)
            for _ in range(self._data.ConsumeIntInRange(1, 3))
        )

    def choice(self, texts: list[str]) -> str:
        return texts[self._data.ConsumeIntInRange(0, len(texts) - 1)]


def encoded(value: Any) -> bytes:
    """A structure as a YAML file."""
    text: str = yaml.dump(value, Dumper=yaml.CSafeDumper, allow_unicode=True, sort_keys=False)
    return text.encode("utf-8", errors="surrogatepass")


def diagnose(data: bytes, directory: Path) -> None:
    """What ortc says about one input.

    Raises:
        Exception: of any kind, which is a bug.
    """
    mode, data = data[0] % 9 if data else 0, data[1:]
    make = Maker(data)
    overrides: tuple[str, ...] = ()
    language: Any = Spec
    base: bytes | None = None
    match mode:
        case 0:
            content = data
        case 1:
            content = make.word().encode("utf-8", errors="surrogatepass") + data
        case 2:
            content = encoded(make.mapping())
        case 3 | 4:
            content = encoded(make.changed(make.choice(SPECS)))
        case 5:
            content = make.spliced(make.choice(SPECS)).encode("utf-8", errors="surrogatepass")
        case 6:
            content, overrides = make.choice(SPECS[-1:]).encode(), make.overrides()
        case 7:
            base = encoded(make.changed(make.choice(SPECS)))
            content = encoded({"base": "base.yaml"} | make.mapping())
        case _:
            content, language = encoded(make.changed(make.choice(PROFILES))), TargetProfile
    try:
        if base is not None:
            (directory / "base.yaml").write_bytes(base)
            (directory / "spec.yaml").write_bytes(content)
            document = inherited(directory / "spec.yaml")
        else:
            document = parse(decode(content, "spec.yaml"))
        if language is not Spec:
            validate(language, document)
            return
        loaded = from_document(document, overrides, ROOT)
        profiles, unknown = load_profiles(loaded)
        show((*unknown, *run_checks(loaded, profiles)), whole=len(data) % 16 == 0)
    except SpecError as error:
        show(error.diagnostics, whole=len(data) % 16 == 0)


def show(diagnostics: tuple[Diagnostic, ...], *, whole: bool) -> None:
    """Every way to show diagnostics; as a whole SARIF log, which repeats the catalogue, only if so asked."""
    outputs = [render_text(diagnostics), render_text(diagnostics, color=True), to_json(diagnostics)]
    outputs += [to_github(diagnostics), *([to_sarif(diagnostics)] if whole else [])]
    for output in outputs:
        output.encode("utf-8")


def remembering(find: Any) -> Any:
    """`find_profile`, which reads each profile once."""
    known: dict[str, Any] = {}

    def found(name: str, **where: Any) -> Any:
        if name not in known:
            known[name] = find(name, **where)
        return known[name]

    return found


def main() -> None:
    """Fuzz with libFuzzer's arguments; `ORTC_FUZZ_SLOWEST` names the file for the slowest inputs."""
    # The profiles of the repository are the same for every input, and reading them is most of the work.
    ortc.plan.checks.find_profile = remembering(ortc.plan.checks.find_profile)
    slowest = Slowest(os.environ.get("ORTC_FUZZ_SLOWEST"))
    with tempfile.TemporaryDirectory() as directory:

        def one(data: bytes) -> None:
            processor, wall = time.process_time(), time.perf_counter()
            diagnose(data, Path(directory))
            processor, wall = time.process_time() - processor, time.perf_counter() - wall
            slowest.note(processor, wall)
            if processor > MOST_SECONDS:
                raise RuntimeError(f"{processor:.2f} s of processor time for one input")

        atheris.Setup(sys.argv, one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
