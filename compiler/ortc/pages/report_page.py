"""The page of a build: its verdicts first, then everything that the report has of each target."""

from __future__ import annotations

from typing import Any

from ortc.evaluation.report import BuildReport
from ortc.pages.document import render_page
from ortc.pages.facts import Facts
from ortc.pages.sentences import build_sentence
from ortc.pages.shown import Shown
from ortc.pages.target_part import target_part

_MOST_FILES = 40


def report_page(report: BuildReport) -> bytes:
    """Render the page of a report: equal reports give equal bytes.

    Raises:
        StageError: the page is larger than a page may be.
    """
    document = report.model_dump(mode="json")
    facts = Facts(document)
    fields: dict[str, object] = {
        "title": f"{report.name} {report.version}",
        "name": report.name,
        "version": report.version,
        "sentence": build_sentence(report),
        "error_lines": (report.error or "").splitlines(),
        "exit_code": facts.known("/exit_code", "count"),
        "targets": [target_part(Shown(report, index, facts)) for index in range(len(report.targets))],
        "host": _host(report, facts),
        "model": _model(report),
        "stages": _stages(report, facts),
        "plan": report.plan_sha256,
        "tools": list(report.tools.items()),
        "inputs": list(report.inputs.items())[:_MOST_FILES],
        "more_inputs": max(0, len(report.inputs) - _MOST_FILES),
    }
    return render_page("report.html.j2", fields, document)


def _host(report: BuildReport, facts: Facts) -> dict[str, Any]:
    host = report.host
    return {
        "platform": host.platform,
        "cpu": host.cpu,
        "isa": ", ".join(host.isa),
        "cores": facts.known("/host/cores", "count"),
        "memory": facts.known("/host/memory", "bytes"),
        "gpus": host.gpus,
        "fingerprint": host.fingerprint(),
    }


def _model(report: BuildReport) -> list[tuple[str, tuple[str, ...]]]:
    """What is to be known of the model: what was left out, what was not checked, why another exporter was taken."""
    exporter = report.exporter or "none"
    reason = f", because {report.exporter_reason}" if report.exporter_reason else ""
    rows = [
        ("Exporter", (f"{exporter}{reason}",) if report.exporter else ()),
        ("Notes", report.notes),
        ("Parts left out", report.parts_left_out),
        ("Inputs left out", report.inputs_left_out),
        ("Shapes not checked", report.skipped_cases),
    ]
    return [row for row in rows if row[1]]


def _stages(report: BuildReport, facts: Facts) -> list[dict[str, Any]]:
    return [
        {
            "stage": stage.stage,
            "subject": stage.subject,
            "seconds": facts.known(f"/stages/{index}/seconds", "seconds"),
            "how": "from the remote cache" if stage.remote else "cached" if stage.cached else "done",
            "noisy": stage.noisy,
        }
        for index, stage in enumerate(report.stages)
    ]
