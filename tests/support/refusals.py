"""What a server says when it refuses to start."""

from __future__ import annotations

import subprocess

from tests.support.serving import SECONDS

INFER = "/v2/models/text/infer"


# --- starting and ending -------------------------------------------------------------------------------------------


def refusal(process: subprocess.Popen[str], code: int) -> str:
    output, log = process.communicate(timeout=SECONDS)
    assert process.returncode == code, log
    assert output == ""
    assert "Traceback" not in log
    assert log.splitlines()[-1].startswith("error: ")
    return log.splitlines()[-1]
