"""`python -m ortc.passes`: make graphs of variants over JSON lines on stdin and stdout.

A process of its own, so that two variants can be made at once and the memory that quantizers take is given back.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ortc.execution.worker_protocol import serve
from ortc.plan.plan import VariantPlan

Json = dict[str, Any]


def make(request: Json) -> Json:
    """{canonical, output, variant, level, interpreter, ranges} -> the graph, or {"skip": why there is none}.

    The arguments are those of `ortc.passes.make_variant.make_variant`.
    """
    from ortc.common.errors import NotApplicable
    from ortc.passes.make_variant import make_variant

    try:
        graph = make_variant(
            Path(request["canonical"]),
            Path(request["output"]),
            _variant(request),
            request["level"],
            _path(request["interpreter"]),
            _path(request["ranges"]),
        )
    except NotApplicable as error:
        return {"skip": error.message}
    return graph.model_dump(mode="json")


def nodes(request: Json) -> Json:
    """{source, output, variant, ranges} -> the nodes that the variant runs in less precision.

    The arguments are those of `ortc.passes.quantization.mixed_graphs.prepare`.
    """
    from ortc.passes.quantization.mixed_graphs import prepare

    found = prepare(Path(request["source"]), Path(request["output"]), _variant(request), _path(request["ranges"]))
    return {"nodes": [node.model_dump(mode="json") for node in found]}


def mixes(request: Json) -> Json:
    """{output, variant, ranges, mixes, on_cpu} -> the bytes of the weights of each graph.

    The arguments are those of `ortc.passes.quantization.mixed_graphs.write_mixes`.
    """
    from ortc.passes.quantization.mixed_graphs import write_mixes
    from ortc.plan.precision_mix import Mix

    wanted = [Mix.model_validate(mix) for mix in request["mixes"]]
    output, ranges = Path(request["output"]), _path(request["ranges"])
    return {"bytes": write_mixes(output, _variant(request), ranges, wanted, on_cpu=request["on_cpu"])}


def _variant(request: Json) -> VariantPlan:
    return VariantPlan.model_validate_json(json.dumps(request["variant"]))


def _path(name: str | None) -> Path | None:
    return None if name is None else Path(name)


if __name__ == "__main__":
    serve({"make": make, "nodes": nodes, "mixes": mixes})
