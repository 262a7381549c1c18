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

    interpreter, ranges = request["interpreter"], request["ranges"]
    try:
        graph = make_variant(
            Path(request["canonical"]),
            Path(request["output"]),
            VariantPlan.model_validate_json(json.dumps(request["variant"])),
            request["level"],
            None if interpreter is None else Path(interpreter),
            None if ranges is None else Path(ranges),
        )
    except NotApplicable as error:
        return {"skip": error.message}
    return graph.model_dump(mode="json")


if __name__ == "__main__":
    serve({"make": make})
