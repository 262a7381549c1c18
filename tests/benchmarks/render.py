"""docs/performance.md and its plots from the data.

What stands between `<!-- bench: KIND FINGERPRINT MODEL -->` and `<!-- /bench -->` is written here; everything else on
the page is written by hand and stays. Kinds: host, latency, detail (with a shape), start, costs, choice,
objectives, edge, edge-race, texts, gpu.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import records
from catalogue import EAGER, EARLY, MODELS, OUR_TITLES, TITLES, model
from chart import Bar, Panel, chart
from render_edge import edge, edge_race
from render_texts import texts

from ortc.common.statistics import Interval, median, percentile, ratio_of_rounds
from ortc.execution.host import Host

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "performance.md"
PLOTS = ROOT / "docs" / "performance"
_PART = re.compile(r"(<!-- bench: ([^>]+?) -->\n)(.*?)(<!-- /bench -->)", re.DOTALL)
MAX_ABS, COSINE = 1e-4, 0.999
"""What fp32, and what reduced precision, is held to here: the promises of the benchmarks' specs."""
WRONG = 0.9
COLOURS = "blue: ortc, grey: fp32, ochre: reduced precision"

Json = dict[str, Any]


def main() -> None:
    """Write the page and the plots."""
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
    PLOTS.mkdir(parents=True, exist_ok=True)
    for name, content in plots().items():
        (PLOTS / name).write_text(content, "utf-8")


def page(text: str) -> str:
    """The page with every marked part rendered anew.

    Raises:
        KeyError: a marker asks for what does not exist.
    """
    kinds: dict[str, Callable[..., str]] = {
        "host": host,
        "latency": latency,
        "detail": detail,
        "start": start,
        "costs": costs,
        "choice": choice,
        "objectives": objectives,
        "edge": edge,
        "edge-race": edge_race,
        "texts": texts,
        "gpu": gpu,
    }

    def part(match: re.Match[str]) -> str:
        kind, *arguments = match[2].split()
        return f"{match[1]}{kinds[kind](*arguments)}{match[4]}"

    return _PART.sub(part, text)


def gpu() -> str:
    """What tests/gpu measured, with a program of its own: GPU machines have nothing of ours."""
    place = ROOT / "tests" / "gpu" / "gpu_page.py"
    found = importlib.util.spec_from_file_location("gpu_page", place)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    text: str = module.page()
    return text


def plots() -> dict[str, str]:
    """Every plot, by file name: for each machine and model the races and the starts."""
    found = {}
    for directory in sorted(path for path in records.DATA.iterdir() if path.is_dir()):
        for entry in MODELS:
            if races := _races(directory.name, entry.name):
                found[f"latency-{directory.name}-{entry.name}.svg"] = _latency_plot(entry.title, races)
            if document := records.read(records.place(directory.name, "start", entry.name)):
                found[f"start-{directory.name}-{entry.name}.svg"] = _start_plot(entry.title, document)
    return found


def host(fingerprint: str) -> str:
    """What the machine is, how it was measured, and every version."""
    documents = [document for entry in MODELS for document in _races(fingerprint, entry.name)]
    machine = Host.model_validate(documents[0]["host"])
    versions: dict[str, dict[str, None]] = {}
    for document in documents:
        for facts in document["contenders"].values():
            for package, version in facts["versions"].items():
                versions.setdefault(package, {})[version] = None
    packages = "; ".join(f"{package} {' and '.join(found)}" for package, found in sorted(versions.items()))
    return (
        f"{machine.cpu}, {machine.cores} physical cores, {machine.memory // 2**30} GiB, {', '.join(machine.isa)}; "
        f"fingerprint `{machine.fingerprint()}`. {documents[0]['threads']} threads for everyone. {packages}.\n"
    )


def latency(fingerprint: str, name: str) -> str:
    """Medians at every shape, with speed-ups over PyTorch eager."""
    races = _races(fingerprint, name)
    labels = [_label(document) for document in races]
    rows = ["| contender | " + " | ".join(labels) + " |", "|---|" + "---:|" * len(labels)]
    for contender in _contenders(races):
        cells = []
        for document in races:
            rounds = _rounds(document, contender)
            if not rounds:
                cells.append("-")
                continue
            middle = median([value for turn in rounds for value in turn])
            cells.append(f"{_milliseconds(middle)} ({_speedup(document, contender).value:.2f}x)")
        rows.append(f"| {TITLES[contender]} | " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n" + _absent(races)


def detail(fingerprint: str, name: str, label: str) -> str:
    """One race with intervals, sample counts, accuracy and memory."""
    document = next(entry for entry in _races(fingerprint, name) if _label(entry) == label)
    rows = [
        "| contender | p50 ms [95 %] | times eager [95 %] | samples | max_abs | worst cosine | keeps | peak RSS |",
        "|---|---:|---:|---:|---:|---:|---|---:|",
    ]
    for contender in _contenders([document]):
        facts = document["contenders"][contender]
        rounds = _rounds(document, contender)
        p50 = percentile([value for turn in rounds for value in turn], 0.5)
        variant = f" ({facts['variant']})" if "variant" in facts else ""
        cells = (
            f"{TITLES[contender]}{variant}",
            f"{_milliseconds(p50.value)} {_bounds(p50, _milliseconds)}",
            "1" if contender == EAGER else _ratio(_speedup(document, contender)),
            f"{p50.samples} in {len(rounds)} rounds",
            "0" if contender == EAGER else f"{facts['max_abs']:.1e}",
            f"{facts['cosine']:.5f}",
            "" if contender == EAGER else _keeps(facts),
            f"{facts['peak_rss_bytes'] / 1e6:.0f} MB" if "peak_rss_bytes" in facts else "-",
        )
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n" + _scheduling(document) + _absent([document])


def start(fingerprint: str, name: str) -> str:
    """Start to first answer, and peak memory."""
    document = _required(fingerprint, "start", name)
    rows = ["| contender | start to first answer, s | least, most | starts | peak RSS |", "|---|---:|---:|---:|---:|"]
    for entry in document["starts"].values():
        if entry["seconds"]:
            title = TITLES[entry["contender"]] + (f", {entry['how']}" if entry["how"] else "")
            seconds, peak = entry["seconds"], max(entry["peak_rss_bytes"]) / 1e6
            extremes = f"{min(seconds):.2f}, {max(seconds):.2f}"
            rows.append(f"| {title} | {median(seconds):.2f} | {extremes} | {len(seconds)} | {peak:.0f} MB |")
    return "\n".join(rows) + "\n" + _scheduling(document)


def costs(fingerprint: str, name: str) -> str:
    """What building costs, ours by stage."""
    document = _required(fingerprint, "costs", name)
    rows = ["| what | seconds | peak RSS of all processes |", "|---|---:|---:|"]
    for entry in document["costs"]:
        peak = "-" if entry["peak_rss_bytes"] is None else f"{entry['peak_rss_bytes'] / 1e6:.0f} MB"
        result = f"{entry['seconds']:.1f}" if entry["failure"] is None else f"fails after {entry['seconds']:.0f}"
        rows.append(f"| {entry['title']} | {result} | {peak} |")
    return "\n".join(rows) + "\n"


def choice(fingerprint: str, name: str) -> str:
    """Every variant by itself, and what ships at each gate beside what this race says should."""
    document = _required(fingerprint, "choice", name)
    variants, gates = document["variants"], document["shipped"]
    rows = [
        "| variant | p50 ms [95 %] | samples | parity | " + " | ".join(f"ships at {gate}" for gate in gates) + " |",
        "|---|---:|---:|---|" + "---|" * len(gates),
    ]
    middle = {n: median([v for turn in e["rounds"] for v in turn]) for n, e in variants.items() if e["rounds"]}
    for variant in sorted(middle, key=lambda entry: middle[entry]):
        entry = variants[variant]
        p50 = percentile([value for turn in entry["rounds"] for value in turn], 0.5)
        cells = [
            variant,
            f"{_milliseconds(p50.value)} {_bounds(p50, _milliseconds)}",
            str(p50.samples),
            entry["parity"],
        ]
        cells += [_choice_cell(variant, float(gate), document, middle) for gate in gates]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n" + _scheduling(document)


def _choice_cell(variant: str, gate: float, document: Json, middle: dict[str, float]) -> str:
    passing = [name for name in middle if keeps(document["variants"][name]["parity"], gate)]
    if variant not in passing:
        return "fails"
    best = min(passing, key=lambda name: middle[name])
    words = [word for word, is_it in (("**ships**", document["shipped"][str(gate)] == variant),) if is_it]
    if variant == best:
        words.append("fastest here")
    elif words:
        both = [document["variants"][name]["rounds"] for name in (variant, best)]
        words.append(f"{_ratio(ratio_of_rounds(both[0], both[1]))} of {best}")
    return ", ".join(words)


def keeps(parity: str, gate: float) -> bool:
    """Whether what a report says of a variant's parity keeps a gate; fp32 was held to its own, tighter one."""
    kind, value = parity.split()[:2]
    return kind == "max_abs" or float(value) >= gate


def objectives(fingerprint: str, name: str) -> str:
    """The bundles of both objectives, by both measures."""
    document = _required(fingerprint, "choice", name)
    rows = [
        "| objective | variant | session | p50 of one client, ms | requests per second of as many as cores | samples |",
        "|---|---|---|---:|---:|---:|",
    ]
    for objective, entry in document["objectives"].items():
        alone = percentile([value for turn in entry["latency"] for value in turn], 0.5)
        crowd = percentile([value for turn in entry["throughput"] for value in turn], 0.5)
        cells = (objective, entry["variant"], entry["session"], _milliseconds(alone.value), f"{1000 / crowd.value:.1f}")
        rows.append("| " + " | ".join(cells) + f" | {alone.samples} and {crowd.samples} |")
    latency, throughput = (document["objectives"][kind] for kind in ("latency", "throughput"))
    gain = ratio_of_rounds(latency["throughput"], throughput["throughput"])
    rows += ["", f"`throughput` over `latency`, by its own measure: {_ratio(gain)}."]
    return "\n".join(rows) + "\n" + _scheduling(document)


def _races(fingerprint: str, name: str) -> list[Json]:
    """A model's races in the order of its shapes."""
    entry = model(name)
    places = [records.place(fingerprint, "race", name, entry.label(shape)) for shape in entry.shapes]
    return [document for place in places if (document := records.read(place)) is not None]


def _required(fingerprint: str, kind: str, name: str) -> Json:
    document = records.read(records.place(fingerprint, kind, name))
    if document is None:
        raise KeyError(f"no data for {kind} {fingerprint} {name}")
    return document


def _contenders(races: list[Json]) -> list[str]:
    """Those of any race: PyTorch eager, the peers, ours last."""
    present = {name for document in races for turn in document["rounds"] for name in turn}
    return [name for name in (*(n for n in TITLES if n not in OUR_TITLES), *OUR_TITLES) if name in present]


def _scheduling(document: Json) -> str:
    """How the processes were scheduled, where that is not as usual."""
    found = document["scheduling"]
    return "" if found == ["normal"] else f"\nScheduling of the measured processes: {', '.join(found)}.\n"


def _absent(races: list[Json]) -> str:
    """Those that could not take part, and why."""
    reasons = {name: reason for document in races for name, reason in document["absent"].items()}
    return "".join(f"\n{TITLES[name]} does not take part: `{reason[:160]}`\n" for name, reason in reasons.items())


def _rounds(document: Json, contender: str) -> list[list[float]]:
    return [turn[contender] for turn in document["rounds"] if contender in turn]


def _speedup(document: Json, contender: str) -> Interval:
    """Times faster than PyTorch eager, over the rounds that both were in."""
    both = [turn for turn in document["rounds"] if contender in turn and EAGER in turn]
    return ratio_of_rounds([turn[EAGER] for turn in both], [turn[contender] for turn in both])


def _keeps(facts: Json) -> str:
    if facts["problem"] or facts["cosine"] < WRONG:
        return f"**wrong**: {facts['problem'] or 'other answers'}"
    if facts["max_abs"] <= MAX_ABS:
        return "max_abs 1e-4"
    return "cosine 0.999" if facts["cosine"] >= COSINE else "neither"


def _kind(name: str, facts: Json) -> Literal["ours", "fp32", "reduced"]:
    if name in OUR_TITLES:
        return "ours"
    return "fp32" if facts["precision"] == "fp32" else "reduced"


def _latency_plot(title: str, races: list[Json]) -> str:
    contenders = _contenders(races)
    panels = []
    for document in races:
        bars = []
        for name in contenders:
            if not _rounds(document, name):
                bars.append(Bar(_plain(name), None, "-", "fp32"))
                continue
            ratio = _speedup(document, name)
            interval = None if ratio.low is None or ratio.high is None else (ratio.low, ratio.high)
            kind = _kind(name, document["contenders"][name])
            bars.append(Bar(_plain(name), ratio.value, f"{ratio.value:.2f}x", kind, interval))
        middle = median([value for turn in _rounds(document, EAGER) for value in turn])
        panels.append(Panel(f"{_label(document)}: eager {_milliseconds(middle)} ms", tuple(bars)))
    return chart(
        title,
        "times faster than PyTorch eager, with 95 % intervals; panels by shape",
        tuple(panels),
        min(3, len(panels)),
    )


def _start_plot(title: str, document: Json) -> str:
    entries = [entry for entry in document["starts"].values() if entry["seconds"]]
    short = {"verify=fast": " fast", "": ""}
    labels = [_plain(entry["contender"]) + short.get(entry["how"], " full") for entry in entries]
    kinds = [_kind(entry["contender"], entry) for entry in entries]
    seconds = [median(entry["seconds"]) for entry in entries]
    peaks = [max(entry["peak_rss_bytes"]) / 1e6 for entry in entries]
    bars = zip(labels, kinds, seconds, peaks, strict=True)
    drawn = [(Bar(lb, s, f"{s:.2f} s", k), Bar(lb, p, f"{p:.0f} MB", k)) for lb, k, s, p in bars]
    panels = (
        Panel("start to first answer", tuple(left for left, _ in drawn)),
        Panel("peak resident memory", tuple(right for _, right in drawn)),
    )
    return chart(title, f"fresh process, files in the page cache, interpreter included; {COLOURS}", panels, 2)


def _plain(name: str) -> str:
    """A contender's title without Markdown, short."""
    short = {
        "ortc-auto": "ortc auto",
        "ortc-fp32": "ortc fp32",
        EARLY: "ortc, early",
        "ort-int8-nosln": "… no SkipLayerNorm fusion",
    }
    return short.get(name, TITLES[name])


def _label(document: Json) -> str:
    return "x".join(str(size) for size in document["shape"].values())


def _milliseconds(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _bounds(interval: Interval, form: Callable[[float], str]) -> str:
    if interval.low is None or interval.high is None:
        return "[too few]"
    return f"[{form(interval.low)}, {form(interval.high)}]"


def _ratio(interval: Interval) -> str:
    return f"{interval.value:.2f} {_bounds(interval, lambda value: f'{value:.2f}')}"


if __name__ == "__main__":
    main()
