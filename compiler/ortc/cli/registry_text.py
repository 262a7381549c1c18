"""A version of a registry, for people."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ortc.common.units import format_bytes, format_seconds
from ortc.spec.diagnostics.excerpt import printable

if TYPE_CHECKING:
    from ortc.bundle.performance import Performance
    from ortc.registry.views import BundleView, VersionView


def write_version(found: VersionView) -> None:
    """Write a version to stdout."""
    aliases = f" ({', '.join(found.aliases)})" if found.aliases else ""
    lines = [f"{found.name}@{found.version}{aliases}"]
    for bundle in found.bundles:
        lines += ["", *_bundle(bundle)]
    # Neither times of registration nor aliases are in a manifest.
    verified = any(bundle.verified for bundle in found.bundles)
    lines += ["", "history (not signed)" if verified else "history"]
    for entry in found.history:
        what = f"registered for {entry.subject}" if entry.event == "registered" else f"{entry.event} {entry.subject}"
        lines.append(f"  {entry.at:%Y-%m-%d %H:%M:%S}Z  {entry.version:<12} {what}")
    sys.stdout.write("".join(f"{printable(line)}\n" for line in lines))


def _bundle(bundle: BundleView) -> list[str]:
    record = bundle.record
    marks = [
        word
        for word, holds in (
            ("provisional", record.provisional),
            ("not fit to serve", not record.fit_to_serve),
            ("signed" if bundle.verified else "signature not verified", bundle.signed),
        )
        if holds
    ]
    size = sum(file.bytes for file in record.files)
    axes = ", ".join(f"{axis.name} {axis.min} to {axis.max}" for axis in record.axes)
    tools = ", ".join(f"{name} {version}" for name, version in record.provenance.tools.items())
    revision = f" at {record.provenance.revision}" if record.provenance.revision else ""
    lines = [
        f"{record.target}{f' ({chr(44).join(marks)})' if marks else ''}",
        f"  platforms    {', '.join(record.platforms)}",
        f"  variant      {record.variant.name} ({record.variant.precision}, {record.variant.graph_level})",
        f"  model        opset {record.model.opset}, IR {record.model.ir_version}, by {record.model.exporter}; {axes}",
        f"  runtime      {record.runtime.package} {record.runtime.version}",
        f"  size         {format_bytes(record.model.bytes)} model, {format_bytes(size)} in {len(record.files)} files",
        f"  source       {record.provenance.source}{revision}",
        f"  tools        {tools}",
        f"  manifest     sha256:{record.manifest_sha256}",
    ]
    if bundle.unsigned:
        lines.append(f"  not used     {', '.join(bundle.unsigned)}: no signature covers what was measured")
    for performance in bundle.performance:
        lines += _performance(performance)
    return lines


def _performance(found: Performance) -> list[str]:
    verdicts = ", ".join(f"{count} {outcome}" for outcome, count in found.verdicts.items())
    machine = f"{found.host.cpu}, {found.host.cores} cores{''.join(f', {gpu}' for gpu in found.host.gpus)}"
    lines = [f"  measured on  {found.fingerprint} ({machine}): {verdicts or 'no gates'}"]
    if (numbers := found.numbers) is not None:
        fast = "" if numbers.speedup is None else f", {numbers.speedup.value:.2f}x PyTorch eager"
        lines.append(
            f"    at {found.shape}: p50 {format_seconds(numbers.p50_ms.value / 1000)}, "
            f"p99 {format_seconds(numbers.p99_ms.value / 1000)}{fast}, "
            f"start {format_seconds(numbers.start_seconds.value)}, peak {format_bytes(numbers.peak_rss_bytes)}, "
            f"{numbers.p99_ms.samples} samples"
        )
    return lines
