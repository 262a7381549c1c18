"""Flag texts by a multi-label classifier: each class with a score above its threshold is named.

python runtime/server.py --port 8080                     # in a bundle of a multi-label classifier
python -m examples.moderation.moderate --model toxicity "a text" "another text"
"""

from __future__ import annotations

import argparse
import json
import urllib.request
from collections.abc import Mapping, Sequence

THRESHOLD = 0.5


def scores(texts: Sequence[str], server: str, model: str) -> list[dict[str, float]]:
    """Scores of all classes for each text, by the server of a bundle."""
    body = json.dumps({"model": model, "inputs": list(texts)}).encode()
    request = urllib.request.Request(f"{server}/v1/predict", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        outputs = json.load(response)["outputs"]
    return [{entry["label"]: float(entry["score"]) for entry in answer} for answer in outputs]


def flags(found: Mapping[str, float], thresholds: Mapping[str, float] | None = None) -> list[str]:
    """Classes whose score is above their threshold, the surest first; 0.5 for a class without one."""
    limits = thresholds or {}
    return sorted(
        (label for label, score in found.items() if score > limits.get(label, THRESHOLD)),
        key=lambda label: -found[label],
    )


def main() -> None:
    """Print the flags of every text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", nargs="+")
    parser.add_argument("--server", default="http://127.0.0.1:8080", help="of the bundle")
    parser.add_argument("--model", required=True, help="the bundle's name")
    parser.add_argument("--threshold", action="append", default=[], metavar="CLASS=SCORE")
    arguments = parser.parse_args()
    limits = {name: float(value) for name, _, value in (given.rpartition("=") for given in arguments.threshold)}
    for text, found in zip(arguments.texts, scores(arguments.texts, arguments.server, arguments.model), strict=True):
        print(f"{', '.join(flags(found, limits)) or 'fine'}: {text}")


if __name__ == "__main__":
    main()
