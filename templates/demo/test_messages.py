"""Test the bundle: `python -m unittest`, after `ortc build specs/messages.yaml`."""

from __future__ import annotations

import json
import subprocess
import sys
import unittest
from pathlib import Path

BUNDLE = Path(__file__).with_name("dist") / "messages" / "1.0.0" / "cpu"
EXPECTED = {
    "Hello, my parcel has not arrived.": "delivery",
    "I was charged twice for my lamp.": "billing",
    "The chair is wonderful.": "praise",
}


class TestMessages(unittest.TestCase):
    """What the bundle answers to messages of customers."""

    def test_labels(self) -> None:
        command = [sys.executable, "-m", "ortc", "run", str(BUNDLE), "--json", *EXPECTED]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        found = {row["text"]: row["answer"][0]["label"] for row in json.loads(done.stdout)}
        self.assertEqual(found, EXPECTED)
